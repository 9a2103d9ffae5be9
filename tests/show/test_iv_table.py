"""The instrumental-variables table: every cell against the result it comes from, and what it says in words."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, MsmmivError, TooFewSitesError
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.tests import NotApplicable
from msmmiv.show import iv_table as module
from msmmiv.show.iv_parts import Parts, Wanted, laid_out
from msmmiv.show.iv_table import iv_table, study_table
from msmmiv.show.words import number, p_value
from tests.show.helpers import HOSTILE, design, trial

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def study():
    return mm.Study(trial(range(9)), design("m1", "m2", cluster="class", covariates=["x"]))


@pytest.fixture(scope="module")
def single():
    return mm.Study(trial(range(9)), design("m1", cluster="class", covariates=["x"]))


@pytest.fixture(scope="module")
def table(study):
    return study_table(study)


@pytest.fixture(scope="module")
def by_site(study):
    return study_table(study, cov_type="site")


def cell(table, row, model, *, below=0):
    """The text in a row (the lines below a term are its error and its set) and the column of a model."""
    frame = table.to_frame()
    at = frame.index[frame[""] == row][0] + below
    (name,) = [c for c in frame.columns if model in c]
    return frame.loc[at, name]


def test_columns_stand_in_the_order_referees_know(table):
    assert table.to_frame().columns.tolist() == [
        "", "(1) OLS y", "(2) Reduced form y", "(3) First stage m1", "(4) First stage m2", "(5) 2SLS y", "(6) LIML y",
        "(7) UJIVE y",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "model"), [("ols", "OLS"), ("2sls", "2SLS"), ("liml", "LIML"), ("ujive", "UJIVE")]
)
@pytest.mark.parametrize("rule", [True, False])
def test_coefficients_errors_and_sets_are_those_of_the_fits(study, table, by_site, name, model, rule):
    chosen = study.fit()
    assert (chosen.method, chosen.small_sample, chosen.interval) == ("ujive", "CR3", "wald")
    options = {"small_sample": "CR3"} if rule else {"interval": "score"}
    fit, table = study.fit(name, cov_type="site", **options), table if rule else by_site
    for term in ("m1", "m2"):
        assert cell(table, term, model) == number(fit.params[term])
        assert cell(table, term, model, below=1) == f"({number(fit.std_errors[term])})"
        found = fit.confidence_set(term)
        low, high = found.hull
        text = "any value (not bounded)" if found.is_whole_line else f"{number(low)}, {number(high)}"
        assert cell(table, term, model, below=2) == f"[{text}]"
    assert cell(table, "Rows", model) == f"{fit.nobs:,}"
    assert cell(table, "Sites", model) == "9"
    assert cell(table, "Covariance", model) == ("site CR3" if rule else "site CR1P")


def test_an_analysis_and_its_study_make_the_same_table(study):
    """And the headline is in it: one number has one set on every page."""
    one, two = study.table().tidy(), iv_table(study.analysis(audit=study.audit(draws=199))).tidy()
    pd.testing.assert_frame_equal(one, two)
    kept = one[(one["model"] == "UJIVE") & (one["quantity"] == "set")]["text"].tolist()
    sets = study.fit().conf_int().loc[["m1", "m2"]].to_numpy()
    assert kept[:2] == [f"{number(low)} to {number(high)}" for low, high in sets]


def test_sets_of_two_kinds_are_told_apart_by_column(study):
    found = iv_table([study.fit("2sls"), study.fit("ujive", interval="score")])
    assert "from the scores of the sites in (5), valid" in " ".join(found.notes)
    assert found.to_frame().columns[5].startswith("(5) UJIVE")


def test_regressions_on_the_instruments_show_what_a_table_can(study, table):
    fit = study.fit("2sls")  # clustered: has the robust F
    for stage, model in ((fit.reduced_form, "Reduced form"), (fit.first_stage[0], "First stage m1"),
                         (fit.first_stage[1], "First stage m2")):  # fmt: skip
        assert isinstance(stage.f_robust, mm.TestStatistic)
        assert cell(table, "F of the instruments", model) == number(stage.f_robust.stat)
        assert cell(table, "p", model) == p_value(stage.f_robust.pvalue)
        assert cell(table, "Partial R²", model) == number(stage.partial_r2, 3)
        assert cell(table, "Instruments", model) == "9"
        assert cell(table, "Covariance", model) == "cluster"
        assert cell(table, "m1", model) == ""
    assert len(table.to_frame()) < 28  # nine sites, and never nine rows of coefficients


def test_diagnostics_are_those_of_rank_heterogeneity_and_weak_iv(study, table):
    rank = study.rank()
    strength = rank.strength.set_index("mediator")
    for m in ("m1", "m2"):
        assert cell(table, "Sanderson-Windmeijer F", f"First stage {m}") == number(
            strength.loc[m, "conditional_f"]
        )
    tests = {t.test.name: t for t in rank.tests if t.covariance == "cluster"}
    lm, wald = tests["Kleibergen-Paap rk LM"], tests["Kleibergen-Paap rk Wald"]
    assert cell(table, "Kleibergen-Paap rk LM", "2SLS") == number(lm.test.stat)
    assert cell(table, "Kleibergen-Paap rk LM", "2SLS", below=1) == p_value(lm.test.pvalue)
    assert cell(table, "Kleibergen-Paap rk Wald F", "2SLS") == number(wald.printed)
    q = study.heterogeneity().q
    assert cell(table, "Hansen J", "2SLS") == number(q.stat)
    assert cell(table, "Hansen J", "2SLS", below=1) == p_value(q.pvalue)
    ar = study.anderson_rubin_test([0.0, 0.0])
    assert cell(table, "Anderson-Rubin, all effects zero", "2SLS", below=1) == p_value(ar.pvalue)
    low, high = study.anderson_rubin_set("m2").hull
    assert cell(table, "Anderson-Rubin set, m2", "2SLS") == f"[{number(low)}, {number(high)}]"


def test_tidy_has_the_numbers_at_full_precision(study, table):
    frame = table.tidy()
    fit = study.fit()
    got = frame[(frame["model"] == "UJIVE") & (frame["term"] == "m1")].set_index("quantity")["value"]
    assert got["estimate"] == fit.params["m1"]
    assert got["std_error"] == fit.std_errors["m1"]
    assert got["p_value"] == fit.pvalues["m1"]
    rows = frame[(frame["model"] == "2SLS") & (frame["quantity"] == "rows")]["value"]
    assert rows.tolist() == [fit.nobs]
    assert frame.loc[frame["quantity"] == "Hansen J", "value"].item() == study.heterogeneity().q.stat


def test_notes_say_what_the_numbers_are(study, table, by_site):
    assert "95% confidence sets from estimate and standard error;" in " ".join(table.notes)
    text, table = " ".join(by_site.notes), by_site
    for words in ("Estimand of 2SLS: the effect of one unit more", "In round brackets: standard errors",
                  "from the scores of the sites, valid when instruments are weak", "one coefficient per instrument",
                  "cannot tell a failed exclusion from effects that differ", "Adjusted for x (not shown)",
                  "No rows and no sites were dropped", "No stars"):  # fmt: skip
        assert words in text
    assert "*" not in "".join(table.to_frame().to_numpy().ravel())


def test_covariates_stars_and_title_on_request(single):
    study = single
    table = study_table(study, covariates=True, stars=(0.05, 0.1), title="My\ntable", cov_type="cluster")
    fit = study.fit("2sls", cov_type="cluster")
    assert cell(table, "x", "2SLS").rstrip("*") == number(fit.params["x"])
    for term in ("m1", "x"):
        p = fit.pvalues[term]
        assert cell(table, term, "2SLS").count("*") == int(p < 0.05) + int(p < 0.1)
    assert table.sheet.caption == "My table"
    assert "* p < 0.1, ** p < 0.05" in table.notes[-1]
    assert "from estimate and standard error" in " ".join(table.notes)
    assert cell(table, "Clusters", "2SLS") == f"{fit.n_clusters:,}"


def test_a_direct_effect_is_a_row(single):
    study = single
    table = study_table(study, direct_effect=True)
    fit = study.fit("2sls", cov_type="site", interval="score", direct_effect=True)
    assert cell(table, "direct_effect", "2SLS") == number(fit.params["direct_effect"])
    assert cell(table, "Instruments", "Reduced form") == "9"


def test_status_and_unbounded_sets_in_words():
    table = study_table(mm.Study(mm.data.star("math_two_mediators")))
    assert cell(table, "tch_exp", "UJIVE") == "none"
    assert cell(table, "tch_exp", "UJIVE", below=2) == "[any value (not bounded)]"
    assert any(n.startswith("(7) UJIVE: no point estimate, because the bias-corrected") for n in table.notes)
    assert cell(table, "Kleibergen-Paap rk Wald F", "2SLS") == "none"
    assert any(n.startswith("Kleibergen-Paap rk Wald F: none (in 1 site") for n in table.notes)
    assert any("take rows as independent" in n for n in table.notes)
    assert any("475 rows of 6,325 (475 with a missing value), 0 sites" in n for n in table.notes)


@pytest.mark.parametrize(
    ("pieces", "words"),
    [((), "[empty]"), (((-np.inf, 1.0), (3.0, np.inf)), "[1.000 or less, or 3.000 or more]"),
     (((0.5, 1.0), (2.0, 3.0)), "[0.5000 to 1.000, or 2.000 to 3.000]"), (((2.0, np.inf),), "[2.000 or more]"),
     (((-np.inf, np.inf),), "[any value (not bounded)]")],
)  # fmt: skip
def test_every_shape_of_set(study, pieces, words):
    fit = study.fit("2sls")
    parts = Parts(fits=(fit,), stages=fit, ar_sets=(ConfidenceSet(pieces), NotApplicable("m2", "too many")))
    sheet = laid_out(parts, Wanted(covariates=False, stars=(), title=""), ())
    rows = {line.cells[0]: line.cells for line in sheet.lines}
    assert rows["Anderson-Rubin set, m1"][-1] == words
    assert rows["Anderson-Rubin set, m2"][-1] == "none"


def test_an_estimator_that_cannot_be_had_keeps_its_column(single):
    study = single
    table = study_table(study, cov_type="HC3")
    with pytest.raises(MsmmivError) as refused:
        study.fit("ujive", cov_type="HC3")
    assert cell(table, "m1", "UJIVE") == "none"
    assert any(n.startswith("UJIVE: not computed") and str(refused.value)[:30] in n for n in table.notes)
    assert cell(table, "m1", "2SLS") == number(study.fit("2sls", cov_type="HC3").params["m1"])


def test_from_an_analysis_and_from_fits(two, study):
    table = iv_table(two)
    by_site = [f for f in two.fits if f.method == "2sls" and f.cov_type == "site" and not f.direct_effect]
    assert cell(table, "m1", "2SLS") == number(by_site[0].params["m1"])
    assert cell(table, "m1", "2SLS", below=1) == f"({number(by_site[0].std_errors['m1'])})"
    assert table.sheet.caption == two.title
    assert cell(table, "Hansen J", "2SLS") == number(two.heterogeneity.q.stat)
    low, high = two.anderson_rubin[0].hull
    assert cell(table, "Anderson-Rubin set, m1", "2SLS") == f"[{number(low)}, {number(high)}]"
    fits = [study.fit(mm.Fuller(4.0)), study.fit("2sls")]
    some = iv_table(fits)
    assert [c.split()[1] for c in some.to_frame().columns[1:]] == [
        "Reduced",
        "First",
        "First",
        "fuller(4)",
        "2SLS",
    ]
    assert "Hansen J" not in some.to_frame()[""].tolist()
    assert iv_table(fits[0]).to_frame().shape[1] == 5


def test_refusals(study):
    with pytest.raises(ChoiceError, match="at least one fit"):
        iv_table([])
    with pytest.raises(ChoiceError, match=r"not Study; of a study, ask study.table\(\)"):
        iv_table([study])
    with pytest.raises(ChoiceError, match="share no first stage"):
        iv_table([study.fit("2sls"), study.fit("2sls", direct_effect=True)])
    with pytest.raises(ChoiceError, match="levels between 0 and 1"):
        study_table(study, stars=(5,))
    with pytest.raises(ChoiceError, match="sequence of levels"):
        study_table(study, stars="***")
    with pytest.raises(ChoiceError, match="cov_type='sites'"):
        study_table(study, cov_type="sites")
    with pytest.raises(ChoiceError, match="no format of a table"):
        iv_table(study.fit("2sls")).save("t.doc")
    few = mm.Study(trial(range(2)), design("m1", "m2"))
    with pytest.raises(TooFewSitesError):
        study_table(few, direct_effect=True)


def test_three_arms_and_dropped_sites():
    rows = trial(range(6))
    rows = pd.concat([rows, rows[(rows["s"] == 0) & (rows["t"] == 1)].assign(s="lone")], ignore_index=True)
    rows["s"] = rows["s"].astype(str)
    table = study_table(mm.Study(rows, design("m1")))
    assert any(
        n.startswith("Dropped: 24 rows of 312 (24 in 1 site") and n.endswith("1 site.") for n in table.notes
    )
    arms = trial(range(6), arms=("control", "letter", "visit"))
    arms = arms[~((arms["s"] == 4) & (arms["t"] == "visit"))]
    assert (
        cell(study_table(mm.Study(arms, design("m1", control="control"))), "Instruments", "Reduced form")
        == "11"
    )


def test_hostile_labels_in_every_format(tmp_path):
    names = ("the <b>outcome</b>", "dose $m$|&", "other", "ward\nof", "arm t")
    study = mm.Study(
        trial(HOSTILE, names=names),
        mm.Design(outcome=names[0], mediators=[names[1]], site=names[3], treatment=names[4]),
    )
    table = study_table(study, title="x" * 300)
    assert "<b>" not in table.to_html()
    assert "<b>" not in table.to_markdown()
    assert r"dose \$m\$\textbar{}\&" in table.to_latex()
    for ending in ("tex", "html", "md", "csv"):
        assert table.save(tmp_path / f"t.{ending}").stat().st_size > 300
    docx = pytest.importorskip("docx")
    document = docx.Document(io.BytesIO(table.to_docx(tmp_path / "t.docx").read_bytes()))
    got = [[c.text for c in row.cells] for row in document.tables[0].rows][3:]
    assert got == table.to_frame().to_numpy().tolist()


def test_the_first_stages_shown_are_robust_where_they_can_be(study):
    site = study.fit("2sls", cov_type="site")
    cluster = study.fit("2sls", cov_type="cluster")
    assert module._with_stages([site, cluster]) is cluster
    lone = replace(site, first_stage=site.first_stage)
    assert module._with_stages([study.fit("ols", cov_type="site"), lone]) is lone


def test_the_footer_counts_clusters_and_what_was_dropped():
    rows = trial(range(8))
    rows.loc[[0, 100], "m1"] = np.nan
    rows = rows[(rows["s"] != 3) | (rows["t"] == 1)]
    with pytest.warns(mm.errors.OneArmSiteWarning):
        study = mm.Study(rows, design("m1", cluster="class"))
    table = study.table(cov_type="cluster")
    gone = int((rows["s"] == 3).sum()) + 2
    assert cell(table, "Rows dropped", "2SLS") == str(gone)
    assert cell(table, "Sites dropped", "2SLS") == "1"
    assert cell(table, "Rows", "2SLS") == f"{len(rows) - gone:,}"
    assert cell(table, "Clusters", "2SLS") == f"{study.fit('2sls', cov_type='cluster').n_clusters:,}"
    assert cell(study.table(), "Clusters", "2SLS") == "7"  # by site


def test_an_analysis_says_why_an_estimator_is_missing():
    found = iv_table(mm.Study(trial(["a", "b"], n=40), design("m1")).analysis())
    (why,) = [n for n in found.notes if n.startswith("UJIVE: not computed")]
    assert "site-clustered" in why
    assert "not part of this analysis" not in " ".join(found.notes)
