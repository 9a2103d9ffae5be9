"""Least squares over its reliability: loops, the identity with BCES, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from msmmiv.errors import ChoiceError, DesignError, MomentsInsufficient, TooFewSitesError
from msmmiv.estimate.between.corrected import BCES, LambdaCorrected
from msmmiv.inference.meta import meta_regression
from tests.estimate.between.made_rows import random_rows, simple


def test_hedges_is_bces_whatever_the_covariance():
    for seed in range(3):
        for covariates in (0, 2):
            rows = random_rows(seed, covariates=covariates)
            assert np.abs(rows.covariance).max() > 0.01
            np.testing.assert_allclose(
                LambdaCorrected("HE").solve(rows).coefficients, BCES().solve(rows).coefficients, rtol=1e-11
            )


@pytest.mark.parametrize("variance", ["DL", "PM", "REML"])
def test_lambda_by_hand(variance):
    rows = random_rows(4)
    x, y = rows.x[:, 0], rows.y

    def slope(keep):
        a, c = rows.noise[keep, 0, 0].mean(), rows.covariance[keep, 0].mean()
        s = np.cov(x[keep], y[keep])
        s2 = meta_regression(x[keep], v=rows.noise[keep, 0, 0], tau2=variance).tau2
        b = (s[0, 1] - c) / s[0, 0] / (s2 / (s2 + a))
        return np.array([b, y[keep].mean() - b * x[keep].mean()])

    fit = LambdaCorrected(variance).solve(rows)
    np.testing.assert_allclose(fit.coefficients, slope(np.ones(14, bool)), rtol=1e-11)
    out = np.array([slope(np.arange(14) != k) for k in range(14)])
    away = out - out.mean(axis=0)
    np.testing.assert_allclose(fit.covariance, 13 / 14 * away.T @ away, rtol=1e-9)


def test_lambda_refuses_and_reports():
    with pytest.raises(DesignError, match="one mediator; there are 2"):
        LambdaCorrected().solve(random_rows(0, p=2))
    with pytest.raises(DesignError, match="needs a free direct effect"):
        LambdaCorrected().solve(random_rows(0, intercept=False))
    with pytest.raises(MomentsInsufficient, match="SIMEX use their covariances"):
        LambdaCorrected().solve(random_rows(0, arms=2))
    with pytest.raises(ChoiceError, match="variance"):
        LambdaCorrected("ML").solve(random_rows(0))
    with pytest.raises(TooFewSitesError, match="at least 4 rows"):
        LambdaCorrected().solve(random_rows(0, k=3))
    rows = random_rows(0)
    noisy = simple(rows.x[:, 0], rows.y, 50.0, 1.0)
    assert LambdaCorrected().solve(noisy).status.endswith("(DL) is zero; the mean sampling variance is 46.43")
    one = simple(np.r_[np.linspace(0, 0.1, 9), 5.0], np.arange(10.0), 0.3, 0.1)
    fit = LambdaCorrected("HE").solve(one)
    assert np.isnan(fit.std_errors).all()
    assert "without s9" in fit.notes[-1]
