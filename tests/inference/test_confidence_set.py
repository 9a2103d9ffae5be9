"""ConfidenceSet: every shape of a quadratic, the algebra of pieces, and inversion over the whole line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmmiv.errors import DataError
from msmmiv.inference.confidence_set import ConfidenceSet, invert

INF = float("inf")
coefficient = st.floats(-1e3, 1e3).map(lambda v: round(v, 3))


@pytest.mark.parametrize(
    ("quadratic", "text", "shape"),
    [
        ((1, 2, 3), "[1, 3]", "interval"),
        ((1, 0, 1), "empty", "empty"),
        ((1, 1, 1), "[1, 1]", "interval"),
        ((-1, -2, -3), "(-inf, 1] and [3, inf)", "two rays"),
        ((-1, 0, -1), "the whole line", "whole line"),
        ((-1, 1, -1), "the whole line", "whole line"),
        ((0, 1, 4), "[2, inf)", "ray"),
        ((0, -1, 4), "(-inf, -2]", "ray"),
        ((0, 0, 1), "empty", "empty"),
        ((0, 0, 0), "the whole line", "whole line"),
        ((0, 0, -1), "the whole line", "whole line"),
    ],
)
def test_shapes_of_the_quadratic(quadratic, text, shape):
    found = ConfidenceSet.from_quadratic(*quadratic)
    assert str(found) == text
    assert found.shape == shape


@given(coefficient, coefficient, coefficient)
def test_membership_is_the_sign_of_the_quadratic(a, h, k):
    found = ConfidenceSet.from_quadratic(a, h, k)
    x = np.concatenate([np.linspace(-20, 20, 801), [-1e7, 1e7]])
    value = a * x**2 - 2 * h * x + k
    clear = np.abs(value) > 1e-9 * (abs(a) * x**2 + 2 * abs(h * x) + abs(k) + 1e-12)
    inside = np.array([v in found for v in x])
    np.testing.assert_array_equal(inside[clear], (value <= 0)[clear])


@given(coefficient.filter(bool), coefficient, coefficient)
def test_ends_solve_the_quadratic(a, h, k):
    for end in np.ravel(ConfidenceSet.from_quadratic(a, h, k).intervals):
        if np.isfinite(end):
            size = abs(a) * end**2 + 2 * abs(h * end) + abs(k)
            assert abs(a * end**2 - 2 * h * end + k) <= 1e-12 * size


def test_roots_do_not_cancel():
    # x^2 - 2e8 x + 1: the small root is 5e-9, and h - sqrt(h^2 - ak) would give 7.45e-9.
    low, high = ConfidenceSet.from_quadratic(1.0, 1e8, 1.0).hull
    assert low == pytest.approx(5e-9, rel=1e-15)
    assert high == pytest.approx(2e8, rel=1e-15)


def test_a_root_beyond_the_numbers_is_a_ray():
    assert str(ConfidenceSet.from_quadratic(1e-320, 1.0, 4.0)) == "[2, inf)"
    assert str(ConfidenceSet.from_quadratic(1e300, 2e300, 3e300)) == "[1, 3]"


@pytest.mark.parametrize("bad", [(np.nan, 0, 0), (INF, 1, 1)])
def test_quadratics_that_are_not_numbers_are_refused(bad):
    with pytest.raises(DataError, match="not finite"):
        ConfidenceSet.from_quadratic(*bad)


@pytest.mark.parametrize("pieces", [((2, 1),), ((0, 2), (1, 3)), ((np.nan, 1),), ((INF, INF),)])
def test_intervals_are_ascending_and_disjoint(pieces):
    with pytest.raises(DataError, match="ascending"):
        ConfidenceSet(pieces)


@pytest.mark.parametrize("level", [0, 1, 95, np.nan])
def test_levels(level):
    with pytest.raises(DataError, match="level"):
        ConfidenceSet((), level=level)


def test_properties_and_exports():
    union = ConfidenceSet(((-INF, 0.0), (1.0, 2.0), (3.0, INF)), method="K", term="m")
    assert not union.is_bounded
    assert not union.is_connected
    assert not union.is_whole_line
    assert union.shape == "union"
    assert 1.5 in union
    assert 2.5 not in union
    assert "a" not in union
    assert union.to_frame().shape == (3, 2)
    assert json.loads(json.dumps(union.to_dict(), allow_nan=False))["intervals"][0] == [None, 0.0]
    empty = ConfidenceSet(())
    assert empty.is_empty
    assert empty.is_bounded
    assert empty.to_frame().empty
    assert list(empty.to_frame().dtypes) == [float, float]
    assert np.isnan(empty.hull).all()


def test_pieces_merge_and_intersect():
    a = ConfidenceSet.from_pieces([(4, INF), (0, 2), (2, 3)])
    assert a.intervals == ((0, 3), (4, INF))
    assert str(a.intersection(ConfidenceSet(((1, 5),)))) == "[1, 3] and [4, 5]"
    assert a.intersection(ConfidenceSet(())).is_empty


@given(
    st.sampled_from([1.0, -1.0]),
    st.floats(-50, 50),
    st.floats(0.01, 30),
    st.floats(-3, 3),
    st.floats(0.05, 20),
)
def test_inversion_finds_what_the_formula_says(sign, middle, half, centre, scale):
    found = invert(lambda x: sign * ((x - middle) ** 2 - half**2), centre=centre, scale=scale)
    exact = ConfidenceSet.from_quadratic(sign, sign * middle, sign * (middle**2 - half**2))
    assert found.shape == exact.shape
    np.testing.assert_allclose(found.intervals, exact.intervals, rtol=1e-11, atol=1e-11)


def test_inversion_sees_narrow_pieces_and_narrow_gaps():
    dip = invert(lambda x: np.abs(x - 3.00456) - 1e-5, centre=0.0, scale=1.0)
    np.testing.assert_allclose(dip.hull, [3.00455, 3.00457], rtol=1e-11)
    gap = invert(lambda x: 1e-5 - np.abs(x - 3.00456), centre=0.0, scale=1.0)
    assert gap.shape == "two rays"


def test_inversion_knows_infinity():
    ray = invert(lambda x: np.tanh(1 - x), centre=0.0, scale=1.0)
    assert str(ray) == "[1, inf)"
    assert invert(lambda x: -np.ones_like(x), centre=0.0, scale=1.0).is_whole_line
    assert invert(np.ones_like, centre=0.0, scale=1.0).is_empty
    # A limit from below the critical value that a grid of ordinary numbers would call rejected.
    late = invert(lambda x: 1 - np.abs(x) / 1e7, centre=0.0, scale=1.0)
    np.testing.assert_allclose(late.intervals[1][0], 1e7, rtol=1e-12)


def test_inversion_of_steps_keeps_the_ends_inside():
    found = invert(lambda x: np.where((x >= -1) & (x <= 2), -1.0, 1.0), centre=0.3, scale=0.7)
    np.testing.assert_allclose(found.hull, [-1, 2], atol=1e-12)
    assert found.hull[0] >= -1
    assert found.hull[1] <= 2


@pytest.mark.parametrize(("centre", "scale"), [(np.nan, 1), (0, 0), (0, -1), (0, INF)])
def test_inversion_refuses_what_it_cannot_search(centre, scale):
    with pytest.raises(DataError, match="finite centre"):
        invert(lambda x: x, centre=centre, scale=scale)


def test_inversion_never_takes_a_nan_for_a_decision():
    with pytest.raises(DataError, match="not a number"):
        invert(lambda x: np.where(x > 5, np.nan, -1.0), centre=0.0, scale=1.0, method="K")
