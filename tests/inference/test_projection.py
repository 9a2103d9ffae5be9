"""Projection against dense matrices: cross-products, their noise, and the spectrum of that noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import block_diag

from tests.diagnose.trials import KINDS, Kind, dense, net_of, rows_of, study_of


def dense_metric(c) -> np.ndarray:
    """Q as one matrix over all sites and contrasts."""
    to = c.projection
    cross = np.concatenate(list(to.cross))
    return block_diag(*to.omega) - cross @ to.gram_inverse @ cross.T


def dense_noise(c, combination) -> np.ndarray:
    return block_diag(*np.einsum("p,kdpeq,q->kde", combination, c.cov, combination))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_explained_is_what_the_excluded_instruments_explain(kind):
    rows = rows_of(kind)
    _, system, c = study_of(kind, rows)
    m, z, exogenous = dense(kind, rows)
    m, z = net_of(exogenous, m), net_of(exogenous, z)
    fitted = z @ np.linalg.lstsq(z, m, rcond=None)[0]
    np.testing.assert_allclose(c.explained, fitted.T @ fitted, rtol=1e-9)
    np.testing.assert_allclose(c.explained, system.reduced_form.between[1:, 1:], rtol=1e-10)
    # Sites' contributions are the cross-products of their own people's fitted values.
    parts = c.projection.contributions(c.slopes)
    for k in range(kind.sites):
        own = fitted[(rows["site"] == k).to_numpy()]
        np.testing.assert_allclose(parts[k], own.T @ own, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(parts.sum(axis=0), c.explained, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_noise_and_law_are_those_of_the_dense_matrices(kind):
    _, _, c = study_of(kind, rows_of(kind))
    q = dense_metric(c)
    p = c.n_mediators
    for i in range(p):
        for j in range(p):
            a, b = np.eye(p)[i], np.eye(p)[j]
            pair = (
                np.trace(q @ dense_noise(c, a + b))
                - np.trace(q @ dense_noise(c, a))
                - np.trace(q @ dense_noise(c, b))
            ) / 2
            if i == j:
                pair = np.trace(q @ dense_noise(c, a))
            assert c.expected_noise[i, j] == pytest.approx(pair, rel=1e-10)
    combination = np.linspace(1.0, 2.0, p)
    others = c.slopes[:, :, : p - 1]
    if p > 1:
        u = others.reshape(-1, p - 1)
        q = q - q @ u @ np.linalg.inv(u.T @ q @ u) @ u.T @ q
    law = c.projection.law(np.einsum("p,kdpeq,q->kde", combination, c.cov, combination), free=others)
    values = np.linalg.eigvals(q @ dense_noise(c, combination)).real
    for power, got in ((1, law.trace), (2, law.squares), (3, law.cubes)):
        assert got == pytest.approx((values**power).sum(), rel=1e-9)
    assert law.top >= values.max() * (1 - 1e-9)


def test_homoskedastic_noise_is_the_number_of_instruments_times_the_variance():
    kind = Kind(arms=3, covariates=1, direct_effect=True)
    _, system, c = study_of(kind, rows_of(kind))
    within = system.within
    x = list(system.covariates)
    inside = (within.total - within.between).sum(axis=0)[np.ix_(x, x)]
    # Covariance of slopes that share the covariates' slopes: not block diagonal, so the trace is taken densely.
    load = within.slopes[:, :, x].reshape(-1, len(x))
    v = block_diag(*within.omega_inverse) + load @ np.linalg.inv(inside) @ load.T
    assert np.trace(dense_metric(c) @ v) == pytest.approx(c.n_instruments, rel=1e-9)


def test_products_take_any_leading_shape():
    _, _, c = study_of(Kind(direct_effect=True), rows_of(Kind(direct_effect=True)))
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 5, *c.slopes.shape))
    got = c.projection.product(left, right)
    for i in range(5):
        np.testing.assert_allclose(got[i], c.projection.product(left[i], right[i]), rtol=1e-12)
        np.testing.assert_allclose(got[i], c.projection.product(right[i], left[i]).T, rtol=1e-10)
