"""The whole audit: nine findings whatever the data, the right one contradicted, arguments and graphs in their place."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.audit.checks import SURVEYS, Subject
from msmmiv.errors import ChoiceError, DataError, DesignError, MomentsInsufficient

NINE = ["i", "ii", "iii", "iv", "v", "vi", "vii.a", "viii", "ix.a"]
COLUMNS = ["assumption", "title", "status", "evidence", "statistic", "p_value", "detail", "argument"]
FEW = 199


def audited(violation: str | None = None, *, covariate: bool = False, **options: object) -> mm.Audit:
    trial = mm.simulate(violation, **{"seed": 1, "sites": 60, "people": 100} | options)
    late = trial.design.estimand == "late" or violation == "vii.b"
    design = replace(trial.design, estimand="late") if late else trial.design
    table = trial.frame.groupby("site")[["z"]].mean() if covariate else None
    return mm.Study(trial.frame, design).audit(draws=199, site_covariates=table)


def contradicted(audit: mm.Audit) -> set[str]:
    return {f.id for f in audit.having("contradicted")}


@pytest.fixture(scope="module")
def star() -> mm.Audit:
    return mm.Study(mm.data.star("math_covariates")).audit()


# ------------------------------------------------------------------------------------------- the object


def test_always_nine(star):
    assert [f.id for f in star.findings] == NINE
    frame = star.to_frame()
    assert list(frame.columns) == COLUMNS
    assert list(frame["assumption"]) == NINE
    assert star["vii"] is star["vii.a"] is star.findings[6]
    with pytest.raises(ChoiceError, match="'x' is no assumption"):
        star["x"]
    assert not hasattr(star, "passed")


def test_the_frame_shows_the_smallest_adjusted_p(star):
    frame = star.to_frame().set_index("assumption")
    for f in star.findings:
        finite = [p for p in f.adjusted if np.isfinite(p)]
        shown = frame.loc[f.id, "p_value"]
        assert shown == min(finite) if finite else np.isnan(shown)
    every = star.evidence_frame()
    assert len(every) == sum(len(f.evidence) for f in star.findings)


def test_json_is_strict_and_whole(star):
    kept = json.loads(star.to_json(), parse_constant=pytest.fail)
    assert [f["assumption"] for f in kept["findings"]] == NINE
    assert kept["dag"] == star.dag.to_frame()["edge"].tolist()


def test_the_same_seed_gives_the_same_audit():
    one, two = (audited("ix", sites=20) for _ in range(2))
    assert one.to_json() == two.to_json()


def test_summary_has_everything_and_fits(star):
    lines = star.summary.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("(") for line in lines) == 9
    assert star.summary.count("no argument given") == 9 - len(star.having("supported"))
    assert str(star) == star.summary
    text = " ".join(star.summary.split())
    asked = [f for f in star.findings if f.status != "supported"]
    assert all(" ".join(f.assumption.questions[0].split()) in text for f in asked)
    assert "class_size: average effect" in text


# -------------------------------------------------------------------------------------------------- STAR


def test_star_reads_true(star):
    """Balance not contradicted, the direct effect hardly to be seen, argument slots empty."""
    assert star["vi"].status == "not contradicted"
    joint = next(e for e in star["vi"].evidence if e.check == "balance.covariates_joint")
    assert joint.test.pvalue > 0.5
    assert star["iii"].status == "supported"
    assert star["ii"].status == "not contradicted"
    assert star.results["origin"].power < 0.15
    assert "half the mean itt, would be found 8 times in 100" in star["ii"].reason
    assert all(f.argument is None for f in star.findings)
    assert star["viii"].status == "not contradicted"


def test_stars_second_mediator_is_warned_of():
    two = mm.Study(mm.data.star("math_two_mediators")).audit(draws=199)
    assert two["viii"].status == "contradicted"
    assert "tch_exp is not separately identified" in two["viii"].reason


# ------------------------------------------------------------------------- one violation, one finding


@pytest.mark.parametrize(
    ("violation", "options", "finding"),
    [
        ("ii", {}, "ii"),
        ("ii", {"mediators": 2}, "ii"),
        ("iii", {}, "iii"),
        ("iv", {"sites": 100, "people": 400, "compliance_sd": 0.7, "strength": 0.6}, "iv"),
        ("vi", {}, "vi"),
        ("vi", {"variant": "attrition"}, "vi"),
        ("vii.a", {"people": 200}, "vii.a"),
        ("vii.b", {"variant": "sites"}, "vii.b"),
        ("viii", {}, "viii"),
        ("ix", {"variant": "covariate", "covariate": True}, "ix.a"),
        ("ix", {"variant": "size", "sites": 100, "strength": 0.5}, "ix.a"),
    ],
)  # fmt: skip
def test_a_violation_contradicts_its_own_assumption(violation, options, finding):
    """And no other, but for curvature, which may be (iv) or (ix) and is said to be."""
    found = contradicted(audited(violation, **options))
    allowed = {"iv", "ix.a"} if finding in ("iv", "ix.a") else {finding}
    assert finding in found
    assert found <= allowed


@pytest.mark.parametrize("violation", ["i", "v"])
def test_what_no_test_reaches_stays_an_argument(violation):
    audit = audited(violation)
    assert audit[violation].status == "untestable: argue it"


@pytest.mark.parametrize(
    "options", [{}, {"mediators": 2}, {"mediators": 3}, {"arms": 3}, {"dose": True, "arms": 3}]
)
def test_a_clean_trial_contradicts_nothing(options):
    assert contradicted(audited(**options)) == set()


# --------------------------------------------------------------------------------- arguments and graphs


def test_arguments_are_quoted_and_change_nothing():
    study = mm.Study(mm.data.star())
    plain, argued = (
        study.audit(draws=FEW),
        study.audit(arguments={"ii": "  Yes. ", "vii.a": "No."}, draws=FEW),
    )
    assert [f.status for f in plain.findings] == [f.status for f in argued.findings]
    assert (argued["ii"].argument, argued["vii"].argument) == ("Yes.", "No.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": "Yes."}, "'x'"),
        ({"vii.b": "Yes."}, "'vii.b'"),
        ({"vii": "Yes.", "vii.a": "Yes."}, "two entries"),
        ({"ii": "  "}, "not empty"),
        ({"ii": None}, "not empty"),
        (["ii"], "is a mapping"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ChoiceError, match=message):
        mm.Study(mm.data.star()).audit(arguments=arguments, draws=FEW)


def test_a_declared_edge_contradicts_by_the_authors_own_account():
    study = mm.Study(mm.data.star())
    dag = mm.CausalDAG.from_design(
        study.design, edges=["small -> math", "ability -> small"], confounders=["ability"]
    )
    audit = study.audit(dag, draws=FEW)
    assert {"ii", "vi"} <= contradicted(audit)
    assert "small -> math" in audit["ii"].reason
    assert audit.dag is dag


def test_a_declared_chain_is_estimated():
    study = mm.Study(mm.data.star("math_two_mediators"))
    chain = mm.CausalDAG.from_design(
        study.design, edges=["class_size -> tch_exp"], without=["small -> tch_exp"]
    )
    audit = study.audit(chain, draws=FEW)
    assert audit["v"].status == "contradicted"
    found = audit.results["cascade"]
    assert found.estimates[0] == pytest.approx(study.fit("2sls").params["class_size"])
    assert "theta: effect of class_size on tch_exp" in audit.summary
    assert "direct effect. The average effect of one unit of class_size" in " ".join(audit.summary.split())
    both = mm.CausalDAG.from_design(
        study.design, edges=["class_size -> tch_exp"]
    )  # theta is not identified here
    assert "cascade" not in study.audit(both, draws=FEW).results


def test_a_dose_of_many_values_is_not_compared_as_arms():
    trial = mm.simulate(dose=True, arms=3, sites=20, seed=1)
    rng = np.random.default_rng(0)
    frame = trial.frame.assign(t=trial.frame["t"] + rng.uniform(0, 0.2, len(trial.frame)))
    audit = mm.Study(frame, trial.design).audit(draws=FEW)
    assert audit["iii"].status == "not assessed"
    assert "declare ranges of it as arms" in audit["iii"].reason
    assert "dose.curvature" in [e.check for e in audit["iii"].evidence if e.applies]


def test_a_table_does_not_say_whether_it_comes_from_two_arms():
    effects = mm.simulate(sites=15, seed=1).effects
    assert mm.audit_assumptions(effects, draws=FEW)["iii"].status == "not assessed"


def test_several_mediators_say_why_subgroups_are_not_looked_at():
    audit = audited(mediators=2, sites=20)
    assert "several mediators" in audit["vii.a"].reason


def test_a_graph_of_another_trial_is_refused():
    other = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    with pytest.raises(DesignError, match="treatment is 't'"):
        mm.Study(mm.data.star()).audit(mm.CausalDAG.from_design(other), draws=FEW)
    planet = mm.CausalDAG.from_design(replace(mm.data.star().design, site="planet"))
    with pytest.raises(DesignError, match="site is 'planet', the design's 'school'"):
        mm.Study(mm.data.star()).audit(planet, draws=FEW)
    two = mm.Study(mm.data.star("math_two_mediators"))
    with pytest.raises(DesignError, match="mediators"):
        two.audit(mm.CausalDAG.from_design(mm.Study(mm.data.star()).design), draws=FEW)


# ------------------------------------------------------------------------------- less than a whole trial


def test_a_published_table_is_audited_as_far_as_it_goes():
    table = mm.simulate(sites=40, people=200, seed=2).effects.to_frame()
    effects = mm.SiteEffects.from_table(
        table,
        site="site",
        itt="itt",
        itt_se="itt_se",
        compliance="m1",
        compliance_se="m1_se",
        cov="cov_itt_m1",
    )
    audit = mm.audit_assumptions(effects, draws=FEW)
    assert audit["ii"].status == "not contradicted"
    assert audit["vi"].status == "not assessed"
    assert "people" in audit["vi"].reason


def test_unknown_covariances_make_the_surface_context():
    table = mm.simulate("ii", sites=40, people=200, seed=2).effects.to_frame()
    with pytest.warns(UserWarning, match="assumed to be zero"):
        effects = mm.SiteEffects.from_table(
            table, site="site", itt="itt", itt_se="itt_se", compliance="m1", compliance_se="m1_se"
        )
    audit = mm.audit_assumptions(effects, draws=FEW)
    assert audit["ii"].status == "not assessed"
    assert "As context only" in audit["ii"].reason


def test_too_few_sites_is_said():
    audit = audited(sites=5)
    assert audit["ii"].status == "not assessed"
    assert "oo few sites" in audit["ii"].reason
    assert len(audited(sites=2).findings) == 9


def test_moments_alone_lack_people_only():
    trial = mm.simulate(sites=30, seed=3)
    rows = mm.Study(trial.frame, trial.design)
    whole, part = rows.audit(draws=FEW), mm.Study(rows.moments).audit(draws=FEW)
    # Robust tests of rank with covariates make a pass over the rows; subgroups inside sites are made of people.
    same = [f.id for f in whole.findings if f.id not in ("vii.a", "viii")]
    assert [str(whole[i].to_dict()) for i in same] == [str(part[i].to_dict()) for i in same]
    assert "people" in str(part["vii.a"].evidence[0].test)


def test_bad_questions_are_errors():
    study = mm.Study(mm.data.star())
    for draws in (5, 99.5, True, None, float("nan")):
        with pytest.raises(ChoiceError, match="draws"):
            study.audit(draws=draws)
    with pytest.raises(ChoiceError, match="seed"):
        study.audit(seed=-1, draws=FEW)
    with pytest.raises(DataError, match="ovariates"):
        study.audit(site_covariates=pd.DataFrame({"x": [1.0]}, index=[-1]), draws=FEW)
    with pytest.raises(ChoiceError, match=r"1\.5"):
        study.audit(planned_shares=1.5, draws=FEW)
    with pytest.raises(ChoiceError, match="holds none"):
        mm.audit_assumptions(study.effects, planned_shares=0.5, draws=FEW)
    with pytest.raises(ChoiceError, match="not str"):
        mm.audit_assumptions("star.csv")


def test_the_moments_of_a_table_are_asked_for_by_name():
    effects = mm.simulate(sites=15, seed=1).effects
    subject = Subject.of(effects, site_covariates=None, planned_shares=None, draws=FEW, seed=0, rows=None)
    with pytest.raises(MomentsInsufficient, match="site effects"):
        _ = subject.moments
    assert not subject.binary_mediators


def test_every_survey_answers_for_the_checks_it_names():
    trial = mm.simulate(sites=45, seed=1, people=60)
    study = mm.Study(trial.frame, trial.design)
    subject = Subject.of(
        study.moments, site_covariates=None, planned_shares=0.5, draws=FEW, seed=0, rows=study._rows
    )
    for survey in SURVEYS:
        _, said = survey.run(subject)
        assert not said or set(survey.checks) <= {e.check for e in said}, survey.name


def test_a_graph_of_another_type_is_a_named_error():
    with pytest.raises(ChoiceError, match="dag= must be a CausalDAG, not str"):
        mm.audit_assumptions(mm.data.star(), dag="t -> m")  # type: ignore[arg-type]


def test_units_do_not_make_a_mediator_binary():
    trial = mm.simulate(sites=15, seed=1)
    tiny = trial.frame.assign(m1=1e-12 * trial.frame["m1"])
    assert mm.Study(tiny, trial.design).audit(draws=FEW)["iv"].status != "supported"
    binary = mm.simulate(sites=15, seed=1, binary=True)
    assert mm.Study(binary.frame, binary.design).audit(draws=FEW)["iv"].status == "supported"
