"""Score tests of added terms: identities with dense computations, and what must not move them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from msmmiv.errors import DataError
from msmmiv.estimate.between.added_terms import Term, added_terms
from msmmiv.estimate.between.polynomial import polynomial
from msmmiv.estimate.site_moments import corrected_product
from tests.estimate.between.made_rows import rows_from

ONE, G, G2 = Term("one"), Term("g", (1,)), Term("g^2", (1, 1))


def sites(
    rng: np.random.Generator, k: int = 30, p: int = 1, shape: tuple[int, ...] = ()
) -> tuple[np.ndarray, ...]:
    """Values (..., K, 1 + P) and the covariances of their errors (K, 1 + P, 1 + P)."""
    half = 0.3 * rng.standard_normal((k, 1 + p, 1 + p))
    cov = half @ half.transpose(0, 2, 1) + 0.02 * np.eye(1 + p)
    g = 1.0 + rng.standard_normal((*shape, k, p))
    y = g.sum(axis=-1) + 0.3 * rng.standard_normal((*shape, k))
    noise = np.einsum("kab,...kb->...ka", np.linalg.cholesky(cov), rng.standard_normal((*shape, k, 1 + p)))
    return np.concatenate([y[..., None], g], axis=-1) + noise, cov


def dense(y: np.ndarray, x: np.ndarray, new: np.ndarray, w: np.ndarray) -> float:
    """Robust score statistic of added columns in least squares without errors in the regressors."""
    fit = np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * y))
    residual = w * (y - x @ fit)
    clean = new - x @ np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w[:, None] * new))
    scores = clean * residual[:, None]
    k, a, df = len(y), new.shape[1], len(y) - x.shape[1] - new.shape[1]
    mean = scores.mean(axis=0)
    spread = np.atleast_2d(np.cov(scores.T, ddof=0))
    return float(df / a * mean @ np.linalg.solve(spread, mean)) if k else np.nan


def test_without_errors_it_is_the_robust_score_test() -> None:
    rng = np.random.default_rng(1)
    values, cov = sites(rng, p=2)
    y, x = values[:, 0], values[:, 1:]
    w = rng.uniform(0.5, 2.0, len(y))
    base = [ONE, Term("a", (1,)), Term("b", (2,))]
    added = [Term("aa", (1, 1)), Term("ab", (1, 2)), Term("bb", (2, 2))]
    found = added_terms(values, 0.0 * cov, base=base, added=added, weights=w)
    columns = np.column_stack([np.ones(len(y)), x])
    new = np.column_stack([x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2])
    assert found.statistic == pytest.approx(dense(y, columns, new, w), rel=1e-10)
    full = np.column_stack([columns, new])
    solved = np.linalg.solve(full.T @ (w[:, None] * full), full.T @ (w * y))
    np.testing.assert_allclose(found.coefficients, solved[3:], rtol=1e-9)
    np.testing.assert_allclose(
        found.base_coefficients,
        np.linalg.solve(columns.T @ (w[:, None] * columns), columns.T @ (w * y)),
        rtol=1e-10,
    )
    assert found.left == pytest.approx(1.0)


def test_it_is_the_constancy_test_of_the_polynomial() -> None:
    values, cov = sites(np.random.default_rng(2))
    found = added_terms(values, cov, base=[G, ONE], added=[G2])
    line = polynomial(rows_from(values[:, 0], values[:, 1], cov))
    assert found.statistic == pytest.approx(line.constancy.stat, rel=1e-9)
    assert found.pvalue == pytest.approx(line.constancy.pvalue, rel=1e-9)
    assert found.coefficients[0] == pytest.approx(line.coefficients[1], rel=1e-9)


def test_units_of_columns_and_order_of_rows_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    values, cov = sites(rng, p=2)
    terms = {"base": [Term("a", (1,)), Term("b", (2,))], "added": [ONE, Term("ab", (1, 2))]}
    before = added_terms(values, cov, **terms)
    unit, order = np.array([1e6, 1e-5, 3.0]), rng.permutation(len(values))
    after = added_terms((values * unit)[order], (cov * np.outer(unit, unit))[order], **terms)
    assert after.statistic == pytest.approx(before.statistic, rel=1e-10)
    np.testing.assert_allclose(after.coefficients, before.coefficients * [1e6, 1e6 / 3e-5], rtol=1e-9)


def test_a_batch_is_a_loop() -> None:
    rng = np.random.default_rng(4)
    values, cov = sites(rng, shape=(3, 4))
    weights, site = rng.uniform(0.5, 2.0, 30), np.repeat(np.arange(15), 2)
    for terms, one_site in itertools.product(([G2], [G2, ONE]), (None, site)):
        found = added_terms(values, cov, base=[G], added=terms, weights=weights, site=one_site)
        assert found.statistic.shape == (3, 4)
        for i, j in itertools.product(range(3), range(4)):
            alone = added_terms(values[i, j], cov, base=[G], added=terms, weights=weights, site=one_site)
            for name in (
                "statistic",
                "coefficients",
                "std_errors",
                "score",
                "left",
                "ok",
                "base_coefficients",
            ):
                np.testing.assert_allclose(getattr(found, name)[i, j], getattr(alone, name), rtol=1e-9)


def test_rows_of_one_site_count_once() -> None:
    values, cov = sites(np.random.default_rng(5))
    twice = added_terms(
        np.repeat(values, 2, axis=0),
        np.repeat(cov, 2, axis=0),
        base=[G],
        added=[G2],
        site=np.repeat(np.arange(30), 2),
    )
    once = added_terms(values, cov, base=[G], added=[G2])
    assert twice.statistic == pytest.approx(once.statistic, rel=1e-10)
    assert twice.df_denom == once.df_denom == 28.0


def test_scores_are_right_on_average_whatever_the_errors() -> None:
    rng = np.random.default_rng(6)
    k, draws = 12, 200_000
    g = rng.uniform(0.5, 2.0, k)
    _, cov = sites(rng, k)
    truth = np.column_stack([2.0 * g, g])
    errors = np.einsum("kab,bdk->dka", np.linalg.cholesky(cov), rng.standard_normal((2, draws, k)))
    for columns, power in (((1, 1, 0), 2.0 * g**3), ((1, 1, 1, 1), g**4), ((0, 0, 1), 4.0 * g**3)):
        drawn = corrected_product(truth + errors, cov, columns)
        error = drawn.std(axis=0) / np.sqrt(draws)
        assert (np.abs(drawn.mean(axis=0) - power) < 5.0 * error).all()


def test_no_base_no_variation_and_nothing_to_test() -> None:
    values, cov = sites(np.random.default_rng(7))
    alone = added_terms(values, cov, base=[], added=[ONE])
    y = values[:, 0]
    assert alone.statistic == pytest.approx(29.0 * y.mean() ** 2 / y.var(), rel=1e-10)
    noisy = added_terms(values, 100.0 * cov, base=[G, ONE], added=[G2])
    assert not noisy.ok
    assert np.isnan(noisy.statistic)
    assert np.isnan(noisy.coefficients).all()
    line = np.column_stack([2.0 * values[:, 1], values[:, 1]])
    assert np.isnan(added_terms(0.0 * line, 0.0 * cov, base=[G], added=[ONE]).statistic)
    with pytest.raises(DataError, match="at least one term"):
        added_terms(values, cov, base=[G], added=[])
    few = added_terms(values[:2], cov[:2], base=[G], added=[ONE])
    assert np.isnan(few.statistic)


def test_all_coefficients_solve_the_corrected_equations() -> None:
    values, cov = sites(np.random.default_rng(8))
    found = added_terms(values, cov, base=[G, ONE], added=[G2])
    columns = [(1,), (), (1, 1)]
    gram = np.array([[corrected_product(values, cov, a + b).mean() for b in columns] for a in columns])
    right = np.array([corrected_product(values, cov, (0, *a)).mean() for a in columns])
    solved = np.linalg.solve(gram, right)
    np.testing.assert_allclose([*found.fitted_base, *found.coefficients], solved, rtol=1e-9)
