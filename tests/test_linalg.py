"""linalg: small dense algebra, exact in the units of the columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmmiv.linalg import dependent_columns, frozen, gram_pinv, gram_solve, group_sum, schur


def gram(rng, n=20, k=4, scale=None):
    x = rng.normal(size=(n, k)) * (1.0 if scale is None else np.asarray(scale))
    return x, x.T @ x


def test_frozen_is_a_read_only_copy():
    source = np.arange(3.0)
    out = frozen(source)
    source[0] = 9
    assert out[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        out[0] = 1


@given(
    groups=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    shape=st.sampled_from([(), (2,), (2, 3)]),
    seed=st.integers(0, 99),
)
def test_group_sum_is_a_loop(groups, shape, seed):
    values = np.random.default_rng(seed).normal(size=(len(groups), *shape))
    want = np.zeros((6, *shape))
    for g, v in zip(groups, values, strict=True):
        want[g] += v
    np.testing.assert_allclose(group_sum(values, np.array(groups), 6), want, rtol=1e-13, atol=1e-13)


def test_gram_pinv_of_one_by_one():
    pinv, rank = gram_pinv(np.array([[[4.0]], [[0.0]], [[2.0**-900]]]))
    assert pinv.ravel().tolist() == [0.25, 0.0, 2.0**900]
    assert rank.tolist() == [1, 0, 1]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_gram_pinv_of_full_rank_is_the_inverse(k):
    rng = np.random.default_rng(k)
    stack = np.stack([gram(rng, k=k)[1] for _ in range(7)])
    pinv, rank = gram_pinv(stack)
    np.testing.assert_allclose(pinv @ stack, np.broadcast_to(np.eye(k), stack.shape), atol=1e-10)
    assert rank.tolist() == [k] * 7


def test_gram_pinv_of_deficient_matrices():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 3))
    x[:, 2] = x[:, 0] - x[:, 1]
    g = x.T @ x
    stack = np.stack([g, np.zeros((3, 3))])
    pinv, rank = gram_pinv(stack)
    assert rank.tolist() == [2, 0]
    np.testing.assert_allclose(pinv[0], np.linalg.pinv(g, rcond=1e-10), rtol=1e-8)
    assert not pinv[1].any()


def test_gram_solve_equals_least_squares():
    rng = np.random.default_rng(1)
    x, g = gram(rng)
    y = rng.normal(size=(20, 2))
    want = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(gram_solve(g, x.T @ y), want, rtol=1e-11)
    np.testing.assert_allclose(gram_solve(g, x.T @ y[:, 0]), want[:, 0], rtol=1e-11)


@given(powers=st.lists(st.integers(-40, 40), min_size=4, max_size=4))
def test_gram_solve_is_equivariant_to_units(powers):
    rng = np.random.default_rng(2)
    x, g = gram(rng)
    y = rng.normal(size=20)
    unit = 2.0 ** np.array(powers)
    scaled = gram_solve(g * np.outer(unit, unit), unit * (x.T @ y))
    np.testing.assert_allclose(scaled * unit, gram_solve(g, x.T @ y), rtol=1e-12)


def test_gram_solve_of_nothing():
    assert gram_solve(np.zeros((0, 0)), np.zeros((0, 2))).shape == (0, 2)


def test_gram_solve_refuses_singular_matrices():
    with pytest.raises(np.linalg.LinAlgError):
        gram_solve(np.array([[1.0, 1.0], [1.0, 1.0]]) - np.diag([0.0, 1e-3]), np.ones(2))


@pytest.mark.parametrize("scale", [[1, 1, 1, 1], [1e-9, 1e9, 1, 1e-3]])
def test_dependent_columns_finds_the_later_one(scale):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 4)) * scale
    x[:, 3] = x[:, 0] / scale[0] - 2 * x[:, 1] / scale[1]
    assert dependent_columns(x.T @ x) == [3]
    x[:, 2] = 0
    assert dependent_columns(x.T @ x) == [2, 3]


def test_dependent_columns_of_independent_ones():
    assert dependent_columns(gram(np.random.default_rng(4))[1]) == []
    assert dependent_columns(np.zeros((0, 0))) == []


def test_dependent_columns_measures_against_the_reference():
    g = np.diag([1.0, 1e-12])
    assert dependent_columns(g) == []
    assert dependent_columns(g, np.array([1.0, 1.0])) == [1]


def test_schur_is_the_residual_of_a_regression():
    rng = np.random.default_rng(5)
    x, g = gram(rng, k=5)
    fitted = x[:, [1, 3]] @ np.linalg.lstsq(x[:, [1, 3]], x[:, [0, 2]], rcond=None)[0]
    rest = x[:, [0, 2]] - fitted
    np.testing.assert_allclose(schur(g, [0, 2], [1, 3]), rest.T @ rest, rtol=1e-11)
    np.testing.assert_array_equal(schur(g, [0, 2], []), g[np.ix_([0, 2], [0, 2])])
