"""The weighted and the ridged estimator against the Mendelian-randomization packages and the derivative."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msmmiv.estimate.between.corrected import AdjustedDebiased, CorrectedNormal
from tests.estimate.between.made_rows import GOLDEN, golden_multi, golden_rows, random_rows, rows_of


def test_mendelian_randomization_packages():
    theirs = json.loads((GOLDEN / "mr_packages.json").read_text())
    rows = golden_multi()
    # Without errors in the compliances the corrected equations are multivariable IVW.
    known = rows_of(rows.y, rows.x, rows.cov * np.diag([1.0, 0, 0, 0]), z=rows.z, exogenous=())
    ivw = np.array(theirs["MVMR"]["ivw_mvmr"]["values"])[:, 0]
    np.testing.assert_allclose(CorrectedNormal("itt").solve(known).coefficients, ivw, rtol=1e-10)
    assert AdjustedDebiased().solve(known).notes == ("Ridge phi = 0: the debiased estimator itself.",)
    divw = np.ravel(theirs["mr.divw_multi"]["mvmr_srivw"]["beta.hat"])
    for estimator in (CorrectedNormal("itt"), AdjustedDebiased()):
        np.testing.assert_allclose(estimator.solve(rows).coefficients, divw, rtol=1e-10)
    assert theirs["mr.divw_multi"]["mvmr_srivw"]["phi_selected"] == 0
    for name in ("k10", "k30"):
        one = golden_rows(name, direct_effect=False)
        want = theirs[f"single_agg_{name}"]["pkg_mr.divw"]["beta.hat"]
        np.testing.assert_allclose(CorrectedNormal("itt").solve(one).coefficients, want, rtol=1e-11)


@pytest.mark.parametrize("phi", [0.5, 40.0])
def test_the_ridge_of_wu_and_others(phi):
    """With errors of unit variance for every row it is (A + phi A^-1)^-1, and its influence is the derivative."""
    rng = np.random.default_rng(3)
    k = 30
    cov = np.tile(np.eye(3), (k, 1, 1))
    x = 2 * rng.normal(size=(k, 2)) + [2, 1]
    y = x @ [1, -1] + rng.normal(size=k)
    rows = rows_of(y, x, cov, z=np.empty((k, 0)), exogenous=())
    fit = AdjustedDebiased(phi=phi).solve(rows)

    def solved(weights):
        a = (x.T * weights) @ x - weights.sum() * np.eye(2)
        return np.linalg.solve(a + phi * np.linalg.inv(a), (x.T * weights) @ y)

    np.testing.assert_allclose(fit.coefficients, solved(np.ones(k)), rtol=1e-12)
    step = 1e-6
    slopes = np.array(
        [(solved(1 + step * np.eye(k)[i]) - solved(1 - step * np.eye(k)[i])) / (2 * step) for i in range(k)]
    )
    np.testing.assert_allclose(fit.covariance, k / (k - 2) * slopes.T @ slopes, rtol=1e-6)


def test_the_chosen_ridge_minimises_the_loss_and_does_not_depend_on_units():
    rows = random_rows(11, k=12, p=2, scale=1.3)
    fit = AdjustedDebiased().solve(rows)
    assert fit.status is None
    unit = np.array([10.0, 1000.0, 0.01])
    other = AdjustedDebiased().solve(rows_of(rows.y * 10, rows.x * unit[1:], rows.cov * np.outer(unit, unit)))
    np.testing.assert_allclose(other.coefficients[:2] * unit[1:] / 10, fit.coefficients[:2], rtol=1e-8)
    phi = float(fit.notes[-1].split("=")[1].split(":")[0].rstrip("."))

    def loss(phi):
        b = AdjustedDebiased(phi=phi).solve(rows).coefficients[:2]
        e = np.array([np.r_[1, -b] @ v @ np.r_[1, -b] for v in rows.cov])
        w = 1 / rows.itt_variance
        r = rows.y - rows.x @ b
        r2 = (r - w @ r / w.sum()) ** 2
        return np.mean(r2 / (max(w @ (r2 - e) / w.sum(), 0) + e))

    assert phi > 0
    assert all(loss(phi) <= loss(phi * t) + 1e-3 for t in (np.exp(-0.5), np.exp(0.5)))
