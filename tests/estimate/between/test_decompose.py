"""decompose: from tables, moments and arms to a page; statuses, notes, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import (
    ChoiceError,
    ColumnError,
    DataError,
    MomentsInsufficient,
    RankDeficientError,
    TooFewSitesError,
)
from msmmiv.estimate.between.rows import between_rows

GOLDEN = Path(__file__).parents[2] / "golden"
pytestmark = pytest.mark.filterwarnings("ignore::msmmiv.errors.UnknownCovarianceWarning")


def golden(k: int) -> mm.SiteEffects:
    return mm.SiteEffects.from_table(
        pd.read_csv(GOLDEN / f"agg_k{k}.csv"), site="site", itt="tau_hat", itt_se="se_tau", compliance="gamma_hat",
        compliance_se="se_gamma",
    )  # fmt: skip


def example() -> mm.SiteEffects:
    """The author's own example: noise explains more than all of the variance of compliance."""
    frame = pd.read_csv(GOLDEN / "mechte_example_dat.csv").assign(site=range(100))
    return mm.SiteEffects.from_table(
        frame, site="site", itt="tau_hat", itt_se="sd_v", compliance="gamma_hat", compliance_se="sd_u"
    )


def table(k: int = 6, **columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "s": list("abcdefghij")[:k], "b": rng.normal(3, 1, k), "sb": 0.2, "g": rng.normal(2, 1, k), "sg": 0.1, "c": 0.0,
    })  # fmt: skip
    return frame.assign(**columns)


def effects(frame: pd.DataFrame, cov: str | None = "c") -> mm.SiteEffects:
    return mm.SiteEffects.from_table(
        frame, site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg", cov=cov
    )


def people(sites: int = 12, n: int = 120, *, arms: int = 2, seed: int = 0, tied: float = 0.0) -> pd.DataFrame:
    """A trial with direct effects; ``tied`` makes the controls' level of the mediator go with compliance."""
    rng = np.random.default_rng(seed)
    s = np.repeat(np.arange(sites), n)
    t = np.tile(np.arange(arms), sites * n)[: sites * n]
    compliance = rng.normal(1.0, 0.8, (sites, arms)) * (np.arange(arms) > 0)
    direct = (2.0 + 0.3 * rng.normal(size=(sites, arms))) * (np.arange(arms) > 0)
    u = rng.normal(size=len(s))
    level = tied * compliance[:, -1] + rng.normal(size=sites)
    m = level[s] + compliance[s, t] + u + rng.normal(size=len(s))
    y = direct[s, t] + 1.5 * m + 2 * u + rng.normal(size=len(s))
    return pd.DataFrame(
        {
            "site": s,
            "t": t,
            "m": m,
            "y": y,
            "other": rng.normal(0.5, 1, sites)[s] * (t > 0) + rng.normal(size=len(s)),
        }
    )


DESIGN = mm.Design(outcome="y", treatment="t", mediators="m", site="site")


# ------------------------------------------------------------------------------------ what it says


@pytest.mark.parametrize("k", [5, 10, 30])
def test_a_table_gives_one_consistent_page(k: int) -> None:
    found = mm.decompose(golden(k), draws=199)
    tidy = found.tidy()
    assert list(tidy.columns) == [
        "term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high", "method", "cov_type",
    ]  # fmt: skip
    assert list(tidy["term"]) == ["gamma_hat", "direct_effect"]
    slope = found.confidence_set("gamma_hat")
    assert tidy["conf_low"].iloc[0] == slope.hull[0]
    assert float(found.params["gamma_hat"]) in slope
    effect = found.effects.set_index("effect")["estimate"]
    assert effect["total effect"] == pytest.approx(effect["indirect effect"] + effect["direct effect"])
    assert effect["share mediated"] == pytest.approx(effect["indirect effect"] / effect["total effect"])
    sites = found.site_effects
    np.testing.assert_allclose(sites["indirect"] + sites["direct"], sites["itt"])
    assert sites["indirect"].mean() == pytest.approx(effect["indirect effect"])
    for word in (
        "Average effects",
        "Cochran's Q",
        "Tests of no effect",
        "interact",
        "unknown here",
        "taken as zero",
    ):
        assert word in str(found)
    assert json.loads(json.dumps(found.to_dict()))["method"] == found.method


def test_the_bootstrap_of_the_likelihood_ratio_is_for_few_rows() -> None:
    law = [t.dist for t in mm.decompose(golden(10), draws=99).tests]
    assert any("parametric bootstrap" in d for d in law)
    assert not any("parametric bootstrap" in t.dist for t in mm.decompose(golden(30), draws=99).tests)
    pairs = next(t for t in mm.decompose(golden(30), draws=99).tests if "pairs" in t.name)
    assert "true null in up to 35%" in pairs.dist


def test_the_authors_example_has_no_corrected_slope_and_a_set_all_the_same() -> None:
    found = mm.decompose(example(), mm.BCES(ddof="fu"), draws=99)
    assert found.status is not None
    assert found.status.startswith("denominator not positive")
    assert np.isnan(found.params).all()
    assert found.slope_sets["gamma_hat"].is_bounded
    assert found.conf_int().isna().all().all()
    with pytest.raises(DataError, match="leave method out"):
        found.confidence_set("gamma_hat")
    frame = found.effects.set_index("effect")
    assert np.isnan(frame.loc["indirect effect", "estimate"])
    assert np.isfinite(frame.loc["indirect effect", "lower"])
    assert "No point estimate" in str(found)
    assert mm.decompose(example(), "ols").params["gamma_hat"] == pytest.approx(0.698484611, abs=1e-9)


def test_sensitivity_is_for_unknown_covariances_only() -> None:
    known = mm.decompose(effects(table()), draws=99)
    assert known.sensitivity.empty
    assert "unknown" not in str(known)
    unknown = mm.decompose(effects(table(), None), draws=99)
    frame = unknown.sensitivity
    assert frame["correlation"].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    at_zero = frame.set_index("correlation").loc[0.0, "estimate"]
    assert at_zero == pytest.approx(unknown.params["g"], rel=1e-6)
    # A positive correlation of the errors makes part of the observed slope theirs.
    assert frame["estimate"].is_monotonic_decreasing


def test_covariances_change_the_slope_as_they_should() -> None:
    rng = np.random.default_rng(1)
    g = rng.normal(2, 1, 400)
    u = 0.7 * rng.normal(size=400)
    frame = pd.DataFrame({
        "s": range(400), "b": 1 + g + u + 0.3 * rng.normal(size=400), "sb": 0.76, "g": g + u, "sg": 0.7, "c": 0.49,
    })  # fmt: skip
    assert mm.decompose(effects(frame)).params["g"] == pytest.approx(1.0, abs=0.05)
    assert mm.decompose(effects(frame), "bces").params["g"] == pytest.approx(1.0, abs=0.05)
    assert mm.decompose(effects(frame.assign(c=0.0)), "bces").params["g"] > 1.3


def test_from_moments_it_heeds_people_and_lists_individual_level_estimators() -> None:
    study = mm.Study(people(), DESIGN)
    found = study.decompose("m", draws=99)
    assert [f.method for f in found.individual] == ["2sls", "mbtsls", "ujive"]
    ujive = found.individual[2]
    assert float(found.params["m"]) == pytest.approx(float(ujive.params["m"]), abs=0.5)
    assert found.params.equals(mm.decompose(study.noise_effects()).params)
    assert 1.5 in found.confidence_set("m")
    assert "Individual-level" in str(found)


def test_reading_under_interaction_tests_the_level_among_controls() -> None:
    free = mm.Study(people(40, 60), DESIGN).decompose(draws=199).interaction
    tied = mm.Study(people(40, 60, tied=1.5), DESIGN).decompose(draws=199).interaction
    assert isinstance(free, mm.TestStatistic)
    assert free.pvalue > 0.05
    assert tied.pvalue < 0.01
    blocked = mm.Design(outcome="y", treatment="t", mediators="m", site="site", cluster="c")
    frame = people(12, 60).assign(c=lambda d: d.groupby(["site", "t"]).cumcount() // 5)
    why = mm.Study(frame, blocked).decompose(draws=99).interaction
    assert isinstance(why, mm.NotApplicable)
    assert "clusters" in why.reason


def test_shared_controls_do_not_make_levels_and_compliances_look_related() -> None:
    """Same-sample errors of a control mean and a compliance are negatively correlated; that is taken out."""
    rejected = 0
    for seed in range(20):
        study = mm.Study(people(15, 12, seed=seed), DESIGN)
        rejected += study.decompose(draws=99).interaction.pvalue < 0.05
    assert rejected <= 4


def test_one_of_several_mediators() -> None:
    design = mm.Design(outcome="y", treatment="t", mediators=["m", "other"], site="site")
    study = mm.Study(people(), design)
    both, one = study.decompose(draws=99), study.decompose("m", draws=99)
    assert list(both.params.index) == ["m", "other", "direct_effect"]
    assert list(one.params.index) == ["m", "direct_effect"]
    assert not one.individual
    assert "Effects through other count as direct effects here." in one.notes
    assert "indirect effect through other" in set(both.effects["effect"])
    assert np.isfinite(both.effects.set_index("effect").loc["direct effect", "lower"])


def test_site_effects_that_ignore_declared_clusters_are_said_to() -> None:
    """From moments clusters are heeded; site effects come with whatever covariance they were made with."""
    said = "take people in one cluster as independent"
    frame = people().assign(room=lambda f: 100 * f.site + 10 * f.t + f.groupby(["site", "t"]).cumcount() % 6)
    frame["m"] += 1.5 * np.random.default_rng(1).normal(size=2000)[frame.room]
    design = mm.Design(outcome="y", treatment="t", mediators="m", site="site", cluster="room")
    moments = mm.Moments.from_data(frame, design)
    rows_only = mm.SiteEffects.from_moments(moments)
    heeded = mm.SiteEffects.from_moments(moments, cov_type="pooled")
    undeclared = mm.SiteEffects.from_moments(mm.Moments.from_data(frame, DESIGN))
    found = mm.decompose(rows_only, draws=19)
    assert [said in note for note in found.notes] == [True]
    assert said in str(found)
    assert said in "".join(found.to_dict()["notes"])
    for source in (moments, heeded, undeclared):
        assert not any(said in note for note in mm.decompose(source, draws=19).notes)
    # What it warns of: the error of compliance comes out too small.
    size = [e.cov[:, 0, 1, 0, 1].mean() for e in (rows_only, heeded)]
    assert size[0] < 0.3 * size[1]


def test_arms_of_one_site_share_controls_without_cost_to_the_slope() -> None:
    study = mm.Study(people(1, 900, arms=9), DESIGN)
    found = study.decompose(draws=99)
    assert found.rows.cross is None
    assert found.rows.n_rows == 8
    assert (np.diag(found.rows.common) > 0).all()
    assert any("share one control group" in n for n in found.notes)
    # Its error moves the direct effect: the slope is that of regressing arm means.
    effects_ = study.noise_effects()
    own = effects_.cov[0, 0, :, 0, :] - found.rows.common
    np.testing.assert_allclose(found.rows.cov[0], own)
    assert 1.5 in found.confidence_set("m")


def test_arms_of_several_sites_are_correlated_rows() -> None:
    study = mm.Study(people(10, 150, arms=3), DESIGN)
    found = study.decompose(draws=99)
    assert found.rows.cross is not None
    assert found.rows.n_rows == 20
    assert any("share its controls" in n for n in found.notes)
    assert found.slope_tests["m"].draws == 99
    assert 1.5 in found.confidence_set("m")
    assert np.isfinite(found.fit.std_errors).all()
    status = found.compare().set_index(["method", "term"])["status"]
    assert (status.xs("m", level="term") != "").sum() >= 1  # those that cannot take such rows say so


def test_site_covariates_enter_the_regression() -> None:
    frame = table(10)
    w = pd.DataFrame({"w": np.arange(10.0) ** 2}, index=list("abcdefghij"))
    found = mm.decompose(effects(frame), "ols", covariates=w.iloc[::-1])
    design = np.column_stack([frame["g"], np.ones(10), w["w"] - w["w"].mean()])
    np.testing.assert_allclose(found.params, np.linalg.lstsq(design, frame["b"], rcond=None)[0], rtol=1e-9)
    assert list(mm.decompose(effects(frame), covariates=w, draws=99).params.index) == [
        "g",
        "direct_effect",
        "w",
    ]


def test_without_direct_effect_the_line_goes_through_the_origin() -> None:
    found = mm.decompose(effects(table()), direct_effect=False, draws=99)
    assert found.method == "eb_score"
    assert list(found.params.index) == ["g"]
    corrected = mm.decompose(effects(table()), "corrected", direct_effect=False, draws=99)
    frame = table()
    slope = (frame["g"] @ frame["b"]) / (frame["g"] @ frame["g"] - 6 * 0.01)
    assert corrected.params["g"] == pytest.approx(slope)


def test_star() -> None:
    found = mm.Study(mm.data.star()).decompose("class_size")
    assert found.params["class_size"] == pytest.approx(-0.70, abs=0.01)
    assert -1.1 in found.confidence_set("class_size")
    assert 0.0 in found.confidence_set("class_size")
    both = mm.Study(mm.data.star("math_two_mediators")).decompose(draws=99)
    assert len(both.params) == 3


def test_the_seed_decides_and_is_kept() -> None:
    one, two, other = (mm.decompose(golden(10), draws=99, seed=s) for s in (1, 1, 2))
    assert one.confidence_set("gamma_hat") == two.confidence_set("gamma_hat")
    assert one.confidence_set("gamma_hat") != other.confidence_set("gamma_hat")
    assert one.to_dict()["seed"] == 1


def test_named_methods_have_their_own_intervals() -> None:
    for method in (
        "ols",
        "bces",
        mm.SIMEX(B=50),
        "lambda_corrected",
        "meta_regression",
        "reml",
        mm.EbScore(),
    ):
        found = mm.decompose(golden(30), method, draws=99)
        low, high = found.fit.conf_int()[0]
        assert found.confidence_set("gamma_hat").hull == (low, high)
    found = mm.decompose(golden(30), "reml")
    assert found.confidence_set("gamma_hat", 0.99).hull[1] > found.confidence_set("gamma_hat").hull[1]


# -------------------------------------------------------------------------------------- bad input

REFUSED = {
    "two rows": (lambda: effects(table(2)), TooFewSitesError, "needs at least 3"),
    "equal compliances": (lambda: effects(table(g=2.0)), RankDeficientError, "the same in all rows"),
    "missing": (lambda: effects(table(b=[1, 2, np.nan, 3, 4, 5.0])), DataError, "missing"),
    "zero error": (lambda: effects(table(sg=0.0)), DataError, "must be positive"),
    "negative error": (lambda: effects(table(sb=-1.0)), DataError, "must be positive"),
    "correlation above one": (lambda: effects(table(c=0.5)), DataError, "larger than the standard errors allow"),
    "text": (lambda: effects(table(b=list("abcdef"))), ColumnError, "text"),
    "a frame": (table, ChoiceError, "from_table"),
    "no covariance": (
        lambda: mm.SiteEffects.from_moments(mm.data.star(), cov_type="CR2"), MomentsInsufficient, "pooled",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_input(name: str) -> None:
    make, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        mm.decompose(make())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "bcess"}, ChoiceError, "Did you mean 'bces'"),
        ({"method": mm.BCES}, ChoiceError, "neither a name nor an estimator"),
        ({"method": 3}, ChoiceError, "neither a name nor an estimator"),
        ({"level": 95}, DataError, "between 0 and 1"),
        ({"draws": 3}, ChoiceError, "19 or more"),
        ({"mediators": "x"}, DataError, "must name some of 'g'"),
        ({"mediators": []}, DataError, "must name some of"),
        ({"shares": [0.5] * 6}, DataError, "sum to 3"),
        ({"shares": [0.5] * 2}, DataError, "6 rows"),
        ({"covariates": pd.DataFrame({"w": [1.0]}, index=["a"])}, DataError, "lack 5 sites"),
        ({"covariates": pd.DataFrame({"w": list("uvwxyz")}, index=list("abcdef"))}, ColumnError, "text"),
        (
            {"covariates": pd.DataFrame({"w": [1.0] * 6}, index=list("abcdef"))},
            RankDeficientError,
            "same in all",
        ),
        ({"covariates": pd.DataFrame({"g": range(6)}, index=list("abcdef"))}, DataError, "two regressors"),
        ({"covariates": pd.DataFrame({"w": range(6)}, index=list("abcdea"))}, DataError, "one row per site"),
        ({"method": "reml", "direct_effect": False}, ChoiceError, "free direct effect"),
    ],
)
def test_refused_options(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        mm.decompose(effects(table()), **options)


def test_too_few_draws_for_the_level_are_refused_when_a_set_is_asked_for() -> None:
    with pytest.raises(ChoiceError, match="more draws"):
        mm.decompose(effects(table()), draws=19, level=0.99).confidence_set("g")
    with pytest.raises(DataError, match="No term"):
        mm.decompose(effects(table()), draws=19).confidence_set("x")


def test_a_common_error_is_split_off_only_where_all_pairs_share_it() -> None:
    effects_ = mm.Study(people(1, 400, arms=4), DESIGN).noise_effects()
    cov = effects_.cov.copy()
    cov[0, 0, :, 1, :] *= 0.5
    cov[0, 1, :, 0, :] *= 0.5
    object.__setattr__(effects_, "cov", cov)
    assert between_rows(effects_).cross is not None
