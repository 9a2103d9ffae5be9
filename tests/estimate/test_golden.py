"""Other people's software: AER/ivreg, sandwich, clubSandwich, estimatr and fixest (tests/golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm

GOLDEN = Path(__file__).parents[1] / "golden"
PARTS = [("ivreg_p2.json", "noX"), ("ivreg_p2.json", "withX"), ("ivreg_p2.json", "withX_weighted"),
         ("ivreg_p1.json", "noX"), ("ivreg_p1.json", "withX")]  # fmt: skip
RTOL = 1e-9


def study(p: int, *, x: bool, weighted: bool) -> mm.Study:
    names = ["m1", "m2"] if p == 2 else ["m"]
    design = mm.Design(
        outcome="y", treatment="t", mediators=names, site="site", cluster="classroom",
        covariates=["x"] if x else [],
        **({"weights": "w", "weight_kind": "analytic"} if weighted else {}),
    )  # fmt: skip
    return mm.Study(pd.read_csv(GOLDEN / f"ind_k12_p{p}.csv"), design)


@pytest.fixture(params=PARTS, ids=lambda p: f"{p[0][6:8]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> tuple[mm.Study, dict[str, Any]]:
    file, part = request.param
    golden = json.loads((GOLDEN / file).read_text())[part]
    return study(2 if "p2" in file else 1, x="withX" in part, weighted="weighted" in part), golden


def close(got: pd.Series, expected: dict[str, float]) -> None:
    np.testing.assert_allclose([got[k] for k in expected], list(expected.values()), rtol=RTOL)


def test_coefficients_classical_and_fit_statistics(case: tuple[mm.Study, dict[str, Any]]) -> None:
    s, g = case
    fit = s.fit("2sls", cov_type="classical")
    close(fit.params, g["coef"])
    close(fit.std_errors, g["se_classical"])
    np.testing.assert_allclose(fit.cov, g["vcov_classical"]["values"], rtol=RTOL)
    assert fit.nobs == g["n"]
    assert fit.df_resid == g["df_residual"]
    assert fit.n_sites == g["n_sites"]
    assert fit.n_instruments == g["n_instruments_excluded"]
    assert fit.rss == pytest.approx(g["rss"], rel=RTOL)
    assert fit.sigma2**0.5 == pytest.approx(g["sigma"], rel=RTOL)
    assert fit.r2 == pytest.approx(g["r2"], rel=RTOL)
    (estimatr,) = [g["estimatr_iv_robust"]["classical"]]
    close(fit.pvalues, estimatr["p"])


@pytest.mark.parametrize("kind", ["HC0", "HC1"])
def test_hc0_hc1_of_sandwich(case: tuple[mm.Study, dict[str, Any]], kind: str) -> None:
    s, g = case
    fit = s.fit("2sls", cov_type=kind)
    close(fit.std_errors, g[f"se_{kind}"])
    np.testing.assert_allclose(fit.cov, g[f"vcov_{kind}"]["values"], rtol=RTOL)


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
def test_hc_of_estimatr(case: tuple[mm.Study, dict[str, Any]], kind: str) -> None:
    s, g = case
    g = g["estimatr_iv_robust"][kind]
    fit = s.fit("2sls", cov_type=kind)
    close(fit.params, g["coef"])
    close(fit.std_errors, g["se"])
    close(fit.pvalues, g["p"])
    if "diagnostic_endogeneity" in g:
        wu = s.wu_hausman(cov_type=kind)
        assert wu.stat == pytest.approx(g["diagnostic_endogeneity"]["value"], rel=RTOL)
        assert (wu.df, wu.df_denom) == (
            g["diagnostic_endogeneity"]["numdf"],
            g["diagnostic_endogeneity"]["dendf"],
        )
        assert isinstance(fit.wu_hausman_robust, mm.NotApplicable)
        assert "rows" in fit.wu_hausman_robust.reason
        stats = [
            v for k, v in g["diagnostic_first_stage"].items() if k.endswith("value") and "p.value" not in k
        ]
        np.testing.assert_allclose([f.f_robust.stat for f in fit.first_stage], stats, rtol=RTOL)


@pytest.mark.parametrize(("file", "part"), [p for p in PARTS if "weighted" not in p[1]])
def test_sandwich_hc2_hc3_differ_only_by_their_leverage(file: str, part: str) -> None:
    """AER's hatvalues are x_i' A^-1 xhat_i, ours and estimatr's xhat_i' A^-1 xhat_i; both shown on the rows.

    With weights AER's leverage ignores them, and there is no formula to compare with.
    """
    g = json.loads((GOLDEN / file).read_text())[part]
    s = study(2 if "p2" in file else 1, x="withX" in part, weighted=False)
    df = pd.read_csv(GOLDEN / f"ind_k12_p{len(s.design.mediators)}.csv")
    dummies = pd.get_dummies(df["site"], dtype=float).to_numpy()
    x = np.hstack([df[[*s.design.mediators, *s.design.covariates]].to_numpy(), dummies])
    z = np.hstack([dummies * df[["t"]].to_numpy(), df[list(s.design.covariates)].to_numpy(), dummies])
    fitted = z @ np.linalg.lstsq(z, x, rcond=None)[0]
    bread = np.linalg.inv(fitted.T @ fitted)
    e = df["y"].to_numpy() - x @ (bread @ fitted.T @ df["y"].to_numpy())
    theirs = np.einsum("ij,jk,ik->i", x, bread, fitted)
    k = len(g["se_HC2"])
    for kind, power in (("HC2", 1), ("HC3", 2)):
        meat = fitted.T @ (fitted * (e**2 / (1 - theirs) ** power)[:, None])
        np.testing.assert_allclose(
            np.sqrt(np.diag(bread @ meat @ bread))[:k], list(g[f"se_{kind}"].values()), rtol=1e-8
        )
        assert np.abs(s.fit("2sls", cov_type=kind).std_errors / pd.Series(g[f"se_{kind}"]) - 1).max() < 1e-4


@pytest.mark.parametrize(
    ("level", "correction", "where"),
    [
        ("classroom", "CR0", "sandwich_vcovCL_HC0_cadjFALSE"),
        ("classroom", "CR1", "sandwich_vcovCL_HC0_cadjTRUE"),
        ("classroom", "CR1S", "sandwich_vcovCL_HC1_cadjTRUE"),
        ("classroom", "CR0", "clubSandwich_CR0"),
        ("classroom", "CR1", "clubSandwich_CR1"),
        ("classroom", "CR1S", "clubSandwich_CR1S"),
        ("site", "CR0", "sandwich_vcovCL_HC0_cadjFALSE"),
        ("site", "CR1", "sandwich_vcovCL_HC0_cadjTRUE"),
        ("site", "CR1S", "sandwich_vcovCL_HC1_cadjTRUE"),
        ("site", "CR0", "clubSandwich_CR0"),
        ("site", "CR1", "clubSandwich_CR1"),
        ("site", "CR1S", "clubSandwich_CR1S"),
    ],
)
def test_clustered_covariances(
    case: tuple[mm.Study, dict[str, Any]], level: str, correction: str, where: str
) -> None:
    s, g = case
    golden = g[f"cluster_{level}"].get(where)
    if golden is None:
        assert where in ("clubSandwich_CR1", "clubSandwich_CR1S")  # not computed for the one-mediator file
        return
    fit = s.fit("2sls", cov_type="site" if level == "site" else "cluster", small_sample=correction)
    close(fit.std_errors, golden.get("se", golden))
    if "vcov" in golden:
        np.testing.assert_allclose(fit.cov, golden["vcov"]["values"], rtol=RTOL)
    assert fit.n_clusters == (g["n_sites"] if level == "site" else g["n_classrooms"])


@pytest.mark.parametrize(("level", "where", "correction"), [
    ("cluster", "classroom_CR0", "CR0"), ("cluster", "classroom_stata", "CR1S"),
    ("site", "site_CR0", "CR0"), ("site", "site_stata", "CR1S"),
])  # fmt: skip
def test_clustered_estimatr(
    case: tuple[mm.Study, dict[str, Any]], level: str, where: str, correction: str
) -> None:
    s, g = case
    g = g["estimatr_iv_robust"][where]
    fit = s.fit("2sls", cov_type=level, small_sample=correction)
    close(fit.std_errors, g["se"])
    if level == "cluster":  # between sites our t has G - P degrees of freedom, theirs G - 1
        assert set(g["df"].values()) == {fit.df_resid}
        close(fit.pvalues, g["p"])
        close(fit.conf_int()["lower"], g["ci_low"])
        close(fit.conf_int()["upper"], g["ci_high"])


def test_first_stages_reduced_form_and_tests(case: tuple[mm.Study, dict[str, Any]]) -> None:
    s, g = case
    fit = s.fit("2sls", cov_type="classical")
    rows = dict(
        zip(g["diagnostics_classical"]["rownames"], g["diagnostics_classical"]["values"], strict=True)
    )
    for stage in fit.first_stage:
        golden = g["first_stage"][stage.variable]
        np.testing.assert_allclose(
            stage.coefficients["estimate"], list(golden["coef_t_by_site"].values()), rtol=1e-8
        )
        assert stage.f_classical.stat == pytest.approx(golden["F"], rel=RTOL)
        assert (stage.f_classical.df, stage.f_classical.df_denom) == (golden["df1"], golden["df2"])
        assert stage.f_classical.pvalue == pytest.approx(golden["p"], rel=1e-6)
        assert stage.r2 == pytest.approx(golden["r2"], rel=RTOL)
    np.testing.assert_allclose(
        fit.reduced_form.coefficients["estimate"],
        list(g["reduced_form"]["coef_t_by_site"].values()),
        rtol=1e-8,
    )
    wu, sargan = rows["Wu-Hausman"], rows["Sargan"]
    assert [fit.wu_hausman.df, fit.wu_hausman.df_denom] == wu[:2]
    assert fit.wu_hausman.stat == pytest.approx(wu[2], rel=RTOL)
    assert fit.wu_hausman.pvalue == pytest.approx(wu[3], rel=1e-7)
    assert fit.sargan.df == sargan[0]
    assert fit.sargan.stat == pytest.approx(sargan[2], rel=RTOL)
    assert fit.sargan.pvalue == pytest.approx(sargan[3], rel=1e-8)


def test_robust_diagnostics(case: tuple[mm.Study, dict[str, Any]]) -> None:
    s, g = case
    fit = s.fit("2sls", cov_type="HC1")
    rows = dict(zip(g["diagnostics_HC1"]["rownames"], g["diagnostics_HC1"]["values"], strict=True))
    weak = [v for k, v in rows.items() if k.startswith("Weak")]
    np.testing.assert_allclose([f.f_robust.stat for f in fit.first_stage], [w[2] for w in weak], rtol=RTOL)
    assert s.wu_hausman(cov_type="HC1").stat == pytest.approx(rows["Wu-Hausman"][2], rel=RTOL)


def test_ols(case: tuple[mm.Study, dict[str, Any]]) -> None:
    s, g = case
    close(s.fit("ols", cov_type="classical").params, g["ols"]["coef"])
    close(s.fit("ols", cov_type="classical").std_errors, g["ols"]["se"])
    close(s.fit("ols", cov_type="HC1").std_errors, g["ols"]["se_HC1"])


FIXEST = ["p2_noX", "p2_withX", "p2_withX_weighted", "p1_noX", "p1_withX", "p1_withX_weighted"]


@pytest.mark.parametrize("part", FIXEST)
def test_fixest(part: str) -> None:
    """feols: its flaws (weighted Sargan and Cragg-Donald, site-clustered first stages) are not compared."""
    g = json.loads((GOLDEN / "fixest.json").read_text())[part]
    s = study(int(part[1]), x="withX" in part, weighted="weighted" in part)
    names = {"fit_m1": "m1", "fit_m2": "m2", "fit_m": "m", "x": "x"}

    def same(got: pd.Series, golden: dict[str, float]) -> None:
        np.testing.assert_allclose([got[names[k]] for k in golden], list(golden.values()), rtol=RTOL)

    same(s.fit("2sls", cov_type="classical").params, g["coef"])
    same(s.fit("2sls", cov_type="classical").std_errors, g["se_iid"])
    same(s.fit("2sls", cov_type="HC1").std_errors, g["se_hetero"])
    same(s.fit("2sls", cov_type="HC0").std_errors, g["se_hetero_noadj"])
    same(s.fit("2sls", cov_type="cluster").std_errors, g["se_cluster_classroom"])
    same(s.fit("2sls", cov_type="cluster", small_sample="CR0").std_errors, g["se_cluster_classroom_CR0"])
    same(s.fit("2sls", cov_type="site", small_sample="CR1N").std_errors, g["se_cluster_site"])
    same(s.fit("2sls", cov_type="site", small_sample="CR1S").std_errors, g["se_cluster_site_fixefKfull"])
    iid, hetero, cluster = (g[f"fitstat_{k}"] for k in ("iid", "hetero", "cluster_classroom"))
    classical = s.fit("2sls", cov_type="classical")
    for kind, golden in (("HC1", hetero), ("cluster", cluster)):
        fit = s.fit("2sls", cov_type=kind)
        np.testing.assert_allclose(
            [f.f_robust.stat for f in fit.first_stage],
            [v["stat"] for v in golden["ivwald1"].values()],
            rtol=RTOL,
        )
    np.testing.assert_allclose(
        [f.f_classical.stat for f in classical.first_stage],
        [v["stat"] for v in iid["ivwald1"].values()],
        rtol=RTOL,
    )
    assert classical.wu_hausman.stat == pytest.approx(iid["wh"]["wh"]["stat"], rel=RTOL)
    assert classical.r2 == pytest.approx(iid["r2"]["r2"], rel=RTOL)
    assert classical.r2_within == pytest.approx(iid["wr2"]["wr2"], rel=RTOL)
    if "weighted" not in part:
        assert classical.sargan.stat == pytest.approx(iid["sargan"]["sargan"]["stat"], rel=RTOL)
        # fixest's residual degrees of freedom are n - L - P - 1: intercepts and covariates are not counted.
        n, sites, q, p = classical.nobs, 12, len(s.design.covariates), len(s.design.mediators)
        ours, theirs = s.rank().cragg_donald, iid["cd"]["cd"]
        assert ours / (n - 2 * sites - q) == pytest.approx(theirs / (n - sites - p - 1), rel=RTOL)
