"""Least squares and Knapp-Hartung against loops, R's lm, metafor and the Mendelian-randomization packages."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from msmmiv.errors import ChoiceError, MomentsInsufficient, RankDeficientError, TooFewSitesError
from msmmiv.estimate.between.linear import KnappHartung, Ols
from tests.estimate.between.made_rows import GOLDEN, golden, golden_multi, golden_rows, random_rows, simple


def by_refitting(d, y, groups):
    """CR3 and HC3 as the jackknife without centring: leave a group out, square how far the fit moves."""
    full = np.linalg.lstsq(d, y, rcond=None)[0]
    out = np.zeros((d.shape[1], d.shape[1]))
    for g in np.unique(groups):
        keep = groups != g
        away = np.linalg.lstsq(d[keep], y[keep], rcond=None)[0] - full
        out += np.outer(away, away)
    return full, out


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("covariates", [0, 1])
@pytest.mark.parametrize("arms", [1, 2])
def test_errors_are_those_of_leaving_out_a_row_or_a_site(p, covariates, arms):
    rows = random_rows(p, k=16, p=p, covariates=covariates, arms=arms)
    fit = Ols().solve(rows)
    groups = rows.site if arms > 1 else np.arange(16)
    b, v = by_refitting(np.column_stack([rows.x, rows.z]), rows.y, groups)
    np.testing.assert_allclose(fit.coefficients, b, rtol=1e-11)
    np.testing.assert_allclose(fit.covariance, v, rtol=1e-9, atol=1e-13)
    assert fit.df == (16 - p - 1 - covariates if arms == 1 else min(16 - p - 1 - covariates, 7))
    assert "towards zero" in fit.notes[0]


@pytest.mark.parametrize("name", ["k5", "k10", "k30", "example"])
def test_slopes_are_those_of_lm(name):
    theirs = golden(name)["naive_ols"]["coef"]
    ours = Ols().solve(golden_rows(name)).coefficients
    np.testing.assert_allclose(ours, [theirs["gamma_hat"], theirs["(Intercept)"]], rtol=1e-12)
    if name == "example":
        assert abs(ours[0] - 0.698484611) < 1e-9


@pytest.mark.parametrize("method", ["REML", "PM"])
@pytest.mark.parametrize("name", ["k10", "k30", "example"])
def test_knapp_hartung_is_metafor(name, method):
    part = json.loads((GOLDEN / "metafor.json").read_text())[name][f"mod_intercept_knha_{method}"]
    fit = KnappHartung(method).solve(golden_rows(name))
    np.testing.assert_allclose(fit.coefficients, [part["b"]["gamma_hat"], part["b"]["intrcpt"]], rtol=1e-6)
    np.testing.assert_allclose(fit.std_errors, part["se"][::-1], rtol=1e-6)
    np.testing.assert_allclose(fit.conf_int()[:, 0], part["ci_lb"][::-1], rtol=1e-5)


def test_fixed_effects_are_multivariable_ivw_and_egger():
    theirs = json.loads((GOLDEN / "mr_packages.json").read_text())
    fit = KnappHartung("FE").solve(golden_multi())
    ivw = np.array(theirs["MVMR"]["ivw_mvmr"]["values"])
    np.testing.assert_allclose(fit.coefficients, ivw[:, 0], rtol=1e-10)
    np.testing.assert_allclose(fit.std_errors, ivw[:, 1], rtol=1e-10)
    egger = theirs["single_agg_k10"]["mr_egger_t"]
    fit = KnappHartung("FE").solve(golden_rows("k10"))
    np.testing.assert_allclose(fit.coefficients, [egger["Estimate"], egger["Intercept"]], rtol=1e-10)
    np.testing.assert_allclose(fit.std_errors, [egger["StdError.Est"], egger["StdError.Int"]], rtol=1e-10)
    np.testing.assert_allclose(fit.conf_int()[0], [egger["CILower.Est"], egger["CIUpper.Est"]], rtol=1e-9)


@pytest.mark.parametrize("estimator", [Ols(), KnappHartung()])
def test_a_shared_error_moves_only_the_direct_effect(estimator):
    rows = random_rows(3)
    common = np.array([[0.5, 0.2], [0.2, 0.4]])
    plain, moved = estimator.solve(rows), estimator.solve(replace(rows, common=common))
    b = plain.coefficients[0]
    more = moved.covariance - plain.covariance
    np.testing.assert_allclose(more, [[0, 0], [0, 0.5 - 2 * b * 0.2 + b * b * 0.4]], atol=1e-12)


def test_what_is_refused():
    correlated = random_rows(0, arms=2)
    with pytest.raises(MomentsInsufficient, match="Ols clusters by site; BCES"):
        KnappHartung().solve(correlated)
    with pytest.raises(ChoiceError, match="REML"):
        KnappHartung("remll").solve(random_rows(0))
    few = random_rows(0, k=4).take(np.array([True, True, False, False]))
    for estimator in (Ols(), KnappHartung()):
        with pytest.raises(TooFewSitesError, match="2"):
            estimator.solve(few)
    with pytest.raises(
        TooFewSitesError, match=r"1 site carry no standard errors.*leave the direct effect free"
    ):
        Ols().solve(replace(correlated, site=np.zeros(14, dtype=int)))
    flat = replace(random_rows(0), x=np.ones((14, 1)))
    with pytest.raises(RankDeficientError, match="m0"):
        Ols().solve(flat)


def test_a_row_that_carries_a_coefficient_alone_has_no_error():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    z = np.column_stack([np.ones(5), [0, 0, 0, 0, 1.0]])
    rows = simple(x, x**2, 0.1, 0.1, z=z, exogenous=("direct_effect", "w"))
    fit = Ols().solve(rows)
    assert np.isnan(fit.std_errors).all()
    assert "alone carry a coefficient" in fit.notes[1]
