"""The page in ivreg2's order: every number against R, linearmodels or dense algebra."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linearmodels.iv import IV2SLS, IVGMM
from linearmodels.iv.common import cragg_donald, kleibergen_paap, kleibergen_paap_f

import msmmiv as mm
from msmmiv.errors import ChoiceError, MomentsInsufficient
from msmmiv.estimate import system_of
from msmmiv.estimate.identification import identification, two_step_j
from tests.diagnose.trials import KINDS, Kind, dense, rows_of, study_of

pytestmark = pytest.mark.filterwarnings("ignore")
GOLDEN = Path(__file__).parents[1] / "golden"
RTOL = 1e-8


def ready(study, fit):
    """The fit with its tests of identification, whoever made it."""
    system = system_of(study.moments, direct_effect=fit.direct_effect)
    made = partial(identification, system, fit.coefficients, fit.cov_type, study._rows)
    return replace(fit, identify=fit.identify or made)


def numbers(study, **options):
    return ready(study, study.fit("2sls", **options)).ivreg2().to_dict()


def golden_study(*, x: bool) -> mm.Study:
    design = mm.Design(
        outcome="y", treatment="t", mediators=["m"], site="site", cluster="classroom",
        covariates=["x"] if x else [],
    )  # fmt: skip
    return mm.Study(pd.read_csv(GOLDEN / "ind_k12_p1.csv"), design)


@pytest.fixture(scope="module", params=[False, True], ids=["noX", "withX"])
def golden(request):
    part = "withX" if request.param else "noX"
    aer = json.loads((GOLDEN / "ivreg_p1.json").read_text())[part]
    fixest = json.loads((GOLDEN / "fixest.json").read_text())[f"p1_{part}"]
    return golden_study(x=request.param), aer, fixest


def matrices_of(kind: Kind, rows: pd.DataFrame):
    """Outcome, exogenous, mediators and instruments; with weights, times their roots, for sums that know none."""
    m, z, x = dense(kind, rows)
    return rows["y"].to_numpy(), x, m, z


def test_header_equals_aer(golden):
    study, aer, _ = golden
    got = numbers(study, cov_type="classical")
    assert (got["N"], got["Fdf2"]) == (aer["n"], aer["df_residual"])
    assert got["rss"] == pytest.approx(aer["rss"], rel=RTOL)
    assert got["r2"] == pytest.approx(aer["r2"], rel=RTOL)
    assert got["rmse"] == pytest.approx(aer["sigma"], rel=RTOL)
    b, v = np.array(list(aer["coef"].values())), np.array(aer["vcov_classical"]["values"])
    assert got["F"] == pytest.approx(b @ np.linalg.solve(v, b) / len(b), rel=RTOL)
    y = pd.read_csv(GOLDEN / "ind_k12_p1.csv").groupby("site")["y"]
    inside = ((y.transform(lambda s: s - s.mean())) ** 2).sum()
    assert got["r2_within"] == pytest.approx(1 - aer["rss"] / inside, rel=RTOL)
    whole = pd.read_csv(GOLDEN / "ind_k12_p1.csv")["y"]
    assert got["yyc"] == pytest.approx(((whole - whole.mean()) ** 2).sum(), rel=RTOL)


def test_sargan_and_exogeneity_equal_aer_and_estimatr(golden):
    study, aer, _ = golden
    got = numbers(study, cov_type="classical")
    _, wu, sargan = aer["diagnostics_classical"]["values"]
    assert (got["sargan"], got["sargandf"], got["sarganp"]) == pytest.approx(
        (sargan[2], sargan[0], sargan[3])
    )
    # Durbin's form of the same regression: n r / (1 + r), r the ratio behind the F.
    ratio = wu[2] * wu[0] / wu[1]
    assert got["estat"] == pytest.approx(aer["n"] * ratio / (1 + ratio), rel=RTOL)
    for kind in ("HC1", "HC3"):
        theirs = aer["estimatr_iv_robust"][kind]["diagnostic_endogeneity"]
        got = numbers(study, cov_type=kind)
        assert got["estat"] == pytest.approx(theirs["value"], rel=RTOL)
        assert got["estatp"] == pytest.approx(theirs["p.value"], rel=1e-6)
        assert got["estatdf"] == theirs["numdf"]


def test_strength_equals_fixest(golden):
    """fixest counts the degrees of freedom of the second stage where ivreg2 counts those of the first."""
    study, aer, fixest = golden
    got = numbers(study, cov_type="HC1")
    first = aer["n"] - 12 - 12 - len(study.design.covariates)
    factor = first / aer["df_residual"]
    theirs = fixest["fitstat_hetero"]
    assert got["rkf"] == pytest.approx(theirs["kpr"]["kpr"]["stat"] * factor, rel=RTOL)
    # Without covariates its Cragg-Donald has one degree of freedom less than its own second stage.
    assert got["cdf"] == pytest.approx(theirs["cd"]["cd"] * first / 5986, rel=RTOL)
    assert got["widstat"] == got["rkf"]
    assert numbers(study, cov_type="classical")["widstat"] == got["cdf"]


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[7], KINDS[10]], ids=str)
def test_identification_equals_linearmodels(kind):
    rows = rows_of(kind)
    study, system, _ = study_of(kind, rows)
    matrices = dense(kind, rows)
    clusters = {"clusters": rows["class"].to_numpy()}
    for cov, theirs, config in (("classical", "unadjusted", None), ("HC1", "robust", None),
                                ("cluster", "clustered", clusters)):  # fmt: skip
        got = numbers(study, cov_type=cov, direct_effect=kind.direct_effect)
        test = kleibergen_paap(*matrices, theirs, config)
        assert got["idstat"] == pytest.approx(test.stat, rel=RTOL)
        assert got["iddf"] == test.df
        assert got["idp"] == pytest.approx(test.pval, rel=1e-6, abs=1e-290)
        assert got["cdf"] == pytest.approx(cragg_donald(*matrices).stat / system.n_excluded, rel=RTOL)
        if config is None and cov == "classical":
            assert "rkf" not in got
            assert "j" not in got
        else:
            assert got["rkf"] == pytest.approx(kleibergen_paap_f(*matrices, theirs, config), rel=RTOL)
            assert "sargan" not in got


@pytest.mark.parametrize("kind", [Kind(mediators=1), KINDS[6], KINDS[7]], ids=str)
def test_tests_after_the_fit_equal_linearmodels(kind):
    rows = rows_of(kind)
    study, _, _ = study_of(kind, rows)
    y, x, m, z = matrices_of(kind, rows)
    theirs = IV2SLS(y, x, m, z).fit(cov_type="unadjusted", debiased=True)
    got = numbers(study, cov_type="classical", direct_effect=kind.direct_effect)
    assert got["sargan"] == pytest.approx(theirs.sargan.stat, rel=1e-7)
    assert got["sarganp"] == pytest.approx(theirs.sargan.pval, rel=1e-6)
    assert got["sargandf"] == theirs.sargan.df
    assert got["estat"] == pytest.approx(theirs.durbin().stat, rel=1e-6)
    assert got["estatp"] == pytest.approx(theirs.durbin().pval, rel=1e-5, abs=1e-250)
    for cov, options in (
        ("HC0", {"weight_type": "robust"}),
        ("cluster", {"weight_type": "clustered", "clusters": rows["class"].to_numpy()}),
    ):
        gmm = IVGMM(y, x, m, z, **options).fit(iter_limit=2)
        got = numbers(study, cov_type=cov, direct_effect=kind.direct_effect)
        assert got["j"] == pytest.approx(gmm.j_stat.stat, rel=1e-6)
        assert got["jp"] == pytest.approx(gmm.j_stat.pval, rel=1e-5)
        assert got["jdf"] == gmm.j_stat.df


def test_the_page_has_the_numbers_in_that_programs_order():
    study = golden_study(x=True)
    fit = ready(study, study.fit("2sls", cov_type="cluster"))
    page, got = fit.ivreg2(), fit.ivreg2().to_dict()
    text = str(page)
    assert repr(page) == text
    heads = ["Number of obs", "Number of clusters", "F(2, 299)", "Centred R2", "Root MSE", "Coef.",
             "Underidentification, Kleibergen-Paap rk LM", "Weak identification, Cragg-Donald Wald F",
             "Kleibergen-Paap rk Wald F", "Stock-Yogo", "Overidentification, Hansen J", "Endogeneity, Wu-Hausman",
             "Instrumented:", "Included instruments:", "Excluded instruments:", "Partialled out:"]  # fmt: skip
    places = [text.index(h) for h in heads]
    assert places == sorted(places)
    assert max(len(line) for line in text.splitlines()) <= 78
    for name, form in (("idstat", ".3f"), ("cdf", ".3f"), ("rkf", ".3f"), ("j", ".3f"), ("estat", ".3f"),
                       ("jp", ".4f"), ("F", ".4f"), ("r2", ".4f"), ("rmse", ".5g"), ("rss", ".10g")):  # fmt: skip
        assert f" {got[name]:{form}}" in text, name
    row = fit.tidy().set_index("term").loc["m"]
    assert f"{row.estimate:.6g}" in text
    assert f"{row.std_error:.6g}" in text
    assert (
        "10% maximal IV size                    43.27" in text
    )  # Stock and Yogo (2005), 12 instruments, 1 mediator
    assert "5% maximal IV relative bias            21.01" in text
    assert "12 instruments" in text
    assert "12 intercepts of site" in text


def test_what_does_not_exist_is_said():
    study = golden_study(x=False)
    page = ready(study, study.fit("2sls", cov_type="site")).ivreg2()
    assert not {"idstat", "rkf", "j"} & set(page.to_dict())
    assert str(page).count("exactly zero") == 3
    liml = ready(study, study.fit("liml", cov_type="HC1")).ivreg2()
    assert "those for liml are other tables" in str(liml)
    assert "j" not in liml.to_dict()
    with pytest.raises(ChoiceError, match="'ujive'"):
        ready(study, study.fit("ujive")).ivreg2()
    with pytest.raises(MomentsInsufficient, match="need the moments"):
        replace(study.fit("2sls"), identify=None).ivreg2()


def test_just_identified_and_weighted_designs():
    kind = Kind(mediators=2, sites=2)
    study, system, _ = study_of(kind, rows_of(kind))
    fit = ready(study, study.fit("2sls", cov_type="HC1"))
    assert "nothing is left to test" in str(fit.ivreg2())
    assert isinstance(two_step_j(system, fit.coefficients, "HC0", None), mm.NotApplicable)
    frame = rows_of(Kind(weighted=True))
    roles = replace(Kind(weighted=True).design, weight_kind="probability")
    study = mm.Study(frame, roles)
    page = ready(study, study.fit("2sls", cov_type="HC1")).ivreg2()
    assert "cdf" not in page.to_dict()
    assert page.to_dict()["rkf"] > 0
    assert "Cragg-Donald Wald F: not available (with probability weights" in " ".join(str(page).split())


def test_from_moments_covariates_need_the_rows():
    study = golden_study(x=True)
    alone = mm.Study(study.moments)
    assert numbers(alone, cov_type="cluster") == pytest.approx(numbers(study, cov_type="cluster"), rel=1e-10)
    fit = alone.fit("2sls", cov_type="classical")
    page = replace(
        fit, cov_type="HC1", identify=partial(identification, system_of(alone.moments), fit.coefficients, "HC1", None)
    ).ivreg2()  # fmt: skip
    assert "it needs the rows" in " ".join(str(page).split())
    plain = mm.Study(golden_study(x=False).moments)
    assert numbers(plain, cov_type="HC1")["j"] == pytest.approx(
        numbers(golden_study(x=False), cov_type="HC1")["j"], rel=1e-10
    )


def test_hostile_names_stay_on_their_line():
    names = {"y": "out\ncome\x1b[31m", "m0": "m" * 300, "m1": "$\\frac{1", "class": "class\u202e"}
    rows = rows_of(Kind()).rename(columns=names)
    design = mm.Design(outcome=names["y"], treatment="t", mediators=[names["m0"], names["m1"]], site="site",
                       cluster=names["class"])  # fmt: skip
    study = mm.Study(rows, design)
    text = str(ready(study, study.fit("2sls", cov_type="cluster")).ivreg2())
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "out come" in text
    assert max(len(line) for line in text.splitlines()) <= 78
