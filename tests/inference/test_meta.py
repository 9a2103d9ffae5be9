"""Random-effects meta-regression against metafor, and the edges it must name.

Two flaws of metafor 3.8-1 show in its file and are not reproduced:

* without an intercept it centres the outcome before computing Q and tau2, so both belong to another regression
  (MendelianRandomization's Q, through the origin, agrees with ours);
* its Paule-Mandel and Q-profile roots stop at the default tolerance of R's uniroot. Its empirical Bayes tau2, which
  is Paule-Mandel's to more digits, is the reference here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msmmiv.errors import ChoiceError, DataError, RankDeficientError, TooFewSitesError
from msmmiv.inference.meta import meta_regression, tau2_interval

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FILES = {
    "k5": "agg_k5",
    "k10": "agg_k10",
    "k30": "agg_k30",
    "example": "mechte_example_dat",
    "multi": "agg_multi_k40",
}
METAFOR = json.loads((GOLDEN / "metafor.json").read_text(encoding="utf-8"))
METHODS = ("FE", "DL", "PM", "REML", "HE")
#: metafor's default uniroot tolerance shows in everything that follows from its Paule-Mandel tau2.
LOOSE = 2e-4


def table(name: str) -> pd.DataFrame:
    frame = pd.read_csv(GOLDEN / f"{FILES[name]}.csv")
    return frame.rename(columns={"sd_u": "se_gamma", "sd_v": "se_tau"})


def cases(kind: str) -> list[tuple[str, str]]:
    return [
        (data, fit)
        for data in FILES
        for fit in METAFOR[data]
        if fit.startswith(kind) and fit.rsplit("_", 1)[1] in METHODS
    ]


def inputs(data: str, fit: str) -> dict:
    t = table(data)
    if not fit.startswith("mod"):
        name = fit.split("_", 1)[0]
        return {"y": t[f"{name}_hat"], "v": t[f"se_{name}"] ** 2}
    x = t[[c for c in t if c.startswith("gamma")]].to_numpy()
    if "intercept" in fit:
        x = np.column_stack([np.ones(len(t)), x])
    return {"y": t["tau_hat"], "v": t["se_tau"] ** 2, "x": x}


def run(data: str, fit: str, **options):
    given = inputs(data, fit)
    options.setdefault("test", "knapp-hartung" if "knha" in fit else "normal")
    return meta_regression(given.pop("y"), **given, tau2=fit.rsplit("_", 1)[1], **options)


def close(ours, theirs, tolerance=1e-6):
    ours, theirs = np.atleast_1d(np.asarray(ours, float)), np.atleast_1d(np.asarray(theirs, float))
    assert np.all(np.abs(ours - theirs) <= tolerance * np.maximum(np.abs(theirs), 1e-3)), (ours, theirs)


@pytest.mark.parametrize(("data", "fit"), cases("tau") + cases("gamma") + cases("mod_intercept"))
def test_equals_metafor(data, fit):
    ours, theirs = run(data, fit), METAFOR[data][fit]
    # "multi" ran with metafor's default stopping rule, the others at 1e-12.
    inexact = fit.endswith("PM") or data == "multi"
    tolerance = LOOSE if inexact else 1e-8
    for mine, name in (
        (ours.coefficients, "b"), (ours.std_errors, "se"), (ours.cov, "vb"), (ours.tau2, "tau2"),
        (ours.h2, "H2"), (100 * ours.i2, "I2"), (ours.conf_int()[:, 0], "ci_lb"), (ours.conf_int()[:, 1], "ci_ub"),
    ):  # fmt: skip
        other = theirs[name]
        close(mine, list(other.values()) if isinstance(other, dict) else other, tolerance)
    close(ours.q, theirs["QE"], 1e-10)
    close(ours.q_pvalue, theirs["QEp"], 1e-10)
    close(ours.pvalues, theirs["pval"], tolerance)
    assert ours.n == theirs["k"]
    if fit.endswith("PM"):  # its definition, to more digits than the reference has
        given = inputs(data, fit)
        again = meta_regression(given["y"], v=given["v"] + ours.tau2, x=given.get("x"), tau2="FE")
        close(again.q, ours.df, 1e-10)
    if fit.endswith("FE"):
        assert theirs["se_tau2"] == "NA"
        assert np.isnan(ours.tau2_se)
    else:
        close(ours.tau2_se, theirs["se_tau2"], tolerance)


@pytest.mark.parametrize(("data", "fit"), [c for c in cases("tau") + cases("gamma") if c[1].endswith("PM")])
def test_paule_mandel_equals_empirical_bayes(data, fit):
    ours, theirs = run(data, fit), METAFOR[data][fit.replace("PM", "EB")]
    close(ours.tau2, theirs["tau2"], 1e-10)
    close(ours.std_errors, theirs["se"], 1e-10)
    close(ours.coefficients, list(theirs["b"].values()), 1e-10)


@pytest.mark.parametrize(
    ("data", "fit"),
    [c for c in cases("tau") + cases("gamma") if c[1].rsplit("_", 1)[1] in ("DL", "PM", "REML")],
)
def test_intervals_equal_metafor(data, fit):
    theirs, given = METAFOR[data][fit], inputs(data, fit)
    interval = tau2_interval(given["y"], v=given["v"])
    close([interval.lower, interval.upper], theirs["tau2_ci_QP"], 2e-4)
    close([100 * interval.i2_lower, 100 * interval.i2_upper], theirs["I2_ci"], LOOSE)
    tolerance = LOOSE if fit.endswith("PM") else 1e-8
    hartung = run(data, fit, test="knapp-hartung")
    close(hartung.std_errors, theirs["knha_se"], tolerance)
    close(hartung.pvalues, theirs["knha_pval"], tolerance)
    close(run(data, fit).prediction_interval(), [theirs["pred_lb"], theirs["pred_ub"]], tolerance)


@pytest.mark.parametrize(("data", "fit"), cases("mod_origin"))
def test_through_the_origin_metafor_centres_the_outcome(data, fit):
    """Its Q and tau2 are those of the centred outcome; the fixed-effects coefficients are not affected."""
    theirs, given = METAFOR[data][fit], inputs(data, fit)
    method = fit.rsplit("_", 1)[1]
    tolerance = LOOSE if method == "PM" or data == "multi" else 1e-8
    centred = meta_regression(given["y"] - given["y"].mean(), v=given["v"], x=given["x"], tau2=method)
    close(centred.q, theirs["QE"], 1e-10)
    close(centred.tau2, theirs["tau2"], tolerance)
    if method == "FE":
        ours = run(data, fit)
        close(ours.coefficients, list(theirs["b"].values()), 1e-10)
        close(ours.std_errors, theirs["se"], 1e-10)


@pytest.mark.parametrize("data", ["k5", "k10", "k30", "example"])
def test_q_through_the_origin_equals_mendelian_randomization(data):
    packages = json.loads((GOLDEN / "mr_packages.json").read_text(encoding="utf-8"))
    theirs = packages[f"single_{FILES[data]}"]["mr_ivw_random_simple"]
    ours = run(data, "mod_origin_FE")
    close(ours.q, theirs["Heter.Stat"][0], 1e-10)
    close(ours.coefficients, theirs["Estimate"], 1e-10)


def test_brute_force_matrices():
    rng = np.random.default_rng(3)
    n, t = 9, 0.37
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    v = rng.uniform(0.1, 0.5, n)
    y = rng.normal(size=n)
    w = np.diag(1 / (v + t))
    p = w - w @ x @ np.linalg.inv(x.T @ w @ x) @ x.T @ w
    from msmmiv.inference.meta import _checked, _fit

    fit = _fit(_checked(y, v, x), t)
    assert np.isclose(fit.q, y @ p @ y, rtol=1e-12)
    assert np.isclose(fit.trace, np.trace(p), rtol=1e-12)
    assert np.isclose(fit.trace2, np.trace(p @ p), rtol=1e-12)
    assert np.isclose(fit.score, y @ p @ p @ y - np.trace(p), rtol=1e-10)


def test_restricted_likelihood_finds_the_higher_of_two_peaks():
    """With two groups of precise estimates the likelihood can peak twice; no grid point may lie above."""
    rng = np.random.default_rng(0)
    from msmmiv.inference.meta import _checked, _fit

    for _ in range(8):
        v = np.exp(rng.normal(-3, 2, 8))
        y = rng.normal(size=8) * rng.uniform(0, 1)
        data = _checked(y, v, None)
        best = meta_regression(y, v=v, tau2="REML").tau2
        top = max(_fit(data, t).restricted for t in np.linspace(0, 5, 301))
        assert _fit(data, best).restricted >= top - 1e-9


def test_equivariance_to_units():
    y, v = np.array([0.1, 0.6, 0.3, 1.4]), np.array([0.02, 0.01, 0.03, 0.02])
    for method in METHODS:
        one, other = meta_regression(y, v=v, tau2=method), meta_regression(1e6 * y, v=1e12 * v, tau2=method)
        close(other.tau2, 1e12 * one.tau2, 1e-9)
        close(other.coefficients, 1e6 * one.coefficients, 1e-9)


def test_interval_reaches_zero_or_is_empty():
    v = np.ones(10)
    reaching = tau2_interval(np.linspace(-1.5, 1.5, 10), v=v)
    assert reaching.status == "reaches zero"
    assert reaching.lower == 0
    assert reaching.upper > 0
    empty = tau2_interval(np.linspace(-0.01, 0.01, 10), v=v)
    assert empty.status.startswith("empty: Q = ")
    assert np.isnan([empty.lower, empty.upper]).all()


@pytest.mark.parametrize("method", ["DL", "PM", "REML", "HE"])
def test_boundary_is_said(method):
    fit = meta_regression(np.linspace(-0.01, 0.01, 10), v=np.ones(10), tau2=method)
    assert fit.tau2 == 0
    assert fit.status == "tau2 is at its boundary, zero"
    assert fit.i2 == 0


def test_interval_covers():
    rng = np.random.default_rng(1)
    v = rng.uniform(0.5, 2.0, 15)
    hits = 0
    for _ in range(200):
        interval = tau2_interval(rng.normal(0, np.sqrt(v + 1.0)), v=v)
        hits += interval.lower <= 1.0 <= interval.upper
    assert 0.91 <= hits / 200 <= 0.98


def test_refusals():
    y, v = [0.1, 0.2, 0.4], [0.1, 0.1, 0.2]
    with pytest.raises(ChoiceError, match="tau2="):
        meta_regression(y, v=v, tau2="reml")
    with pytest.raises(ChoiceError, match="test="):
        meta_regression(y, v=v, test="t")
    with pytest.raises(TooFewSitesError, match="1 estimate leave no degree of freedom for 1 coefficient"):
        meta_regression(y[:1], v=v[:1])
    with pytest.raises(DataError, match="1 variance in v are not positive"):
        meta_regression(y, v=[0.1, 0.0, 0.1])
    with pytest.raises(DataError, match="must be finite"):
        meta_regression([0.1, np.nan, 0.2], v=v)
    with pytest.raises(DataError, match="one entry per estimate"):
        meta_regression(y, v=v[:2])
    with pytest.raises(RankDeficientError, match="linearly dependent"):
        meta_regression(y, v=v, x=[[1, 2], [2, 4], [3, 6]])
    with pytest.raises(DataError, match="level=95"):
        tau2_interval(y, v=v, level=95)
