"""Confidence sets that need not be intervals: unions of intervals, rays, the whole line, or nothing.

Tests that stay valid under weak instruments invert to sets that can be unbounded, disjoint or empty, and
each of those shapes says something. A pair of numbers cannot say it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from msmmiv.errors import DataError
from msmmiv.linalg import Array

__all__ = ["ConfidenceSet", "Excess", "invert"]

#: A test statistic minus its critical value, vectorised over candidate values; <= 0 means "in the set".
Excess: TypeAlias = Callable[[Array], Array]

_INF = float("inf")
_FAR = 1e9  # "infinity", in units of the scale that `invert` was given
_POINTS = 4001
_ROUNDS = 5
_FINE = 17
#: Bend of an extreme, relative to its distance from zero, below which it cannot reach zero between its neighbours
#: unless it is a thirtieth of their distance wide; far out rounding makes bends of a millionth.
_WIGGLE = 1e-3


@dataclass(frozen=True)
class ConfidenceSet:
    """A union of disjoint closed intervals on the line, ascending; ends may be infinite.

    Attributes
    ----------
    intervals : tuple of (float, float)
    level : float
    method : str
        The test that was inverted.
    term : str
        The coefficient the set is for.

    Examples
    --------
    >>> rays = ConfidenceSet.from_quadratic(-1.0, -2.0, -3.0, term="m")
    >>> print(rays)
    (-inf, 1] and [3, inf)
    >>> 2.0 in rays, rays.is_bounded, rays.hull
    (False, False, (-inf, inf))
    """

    intervals: tuple[tuple[float, float], ...]
    level: float = 0.95
    method: str = ""
    term: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise DataError(f"A confidence level lies between 0 and 1; got {self.level!r}.")
        last = -_INF
        for i, (lower, upper) in enumerate(self.intervals):
            if not lower <= upper or lower == _INF or upper == -_INF or (i and lower <= last):
                raise DataError(
                    f"Intervals must be ascending and disjoint with lower <= upper; got {self.intervals!r}."
                )
            last = upper

    @classmethod
    def from_quadratic(
        cls, a: float, h: float, k: float, *, level: float = 0.95, method: str = "", term: str = ""
    ) -> ConfidenceSet:
        """The set {x : a x^2 - 2 h x + k <= 0}, with roots that do not cancel.

        An interval or nothing for a > 0, two rays or the whole line for a < 0, and a ray, the whole line
        or nothing for a = 0. The roots are ``q / a`` and ``k / q`` with ``q = h + sign(h) sqrt(h^2 - a k)``
        (Press et al., Numerical Recipes, section 5.6).

        Parameters
        ----------
        a, h, k : float
        level : float
        method, term : str

        Raises
        ------
        DataError
            A coefficient that is not finite.

        Examples
        --------
        >>> print(ConfidenceSet.from_quadratic(1.0, 2.0, 3.0))
        [1, 3]
        >>> print(ConfidenceSet.from_quadratic(1.0, 0.0, 1.0), "|", ConfidenceSet.from_quadratic(0.0, 1.0, 4.0))
        empty | [2, inf)
        """
        if not np.isfinite([a, h, k]).all():
            raise DataError(f"The quadratic of a confidence set is not finite: {a!r}, {h!r}, {k!r}.")
        pieces = _quadratic(float(a), float(h), float(k))
        return cls.from_pieces(pieces, level=level, method=method, term=term)

    @classmethod
    def from_pieces(
        cls,
        pieces: Iterable[tuple[float, float]],
        *,
        level: float = 0.95,
        method: str = "",
        term: str = "",
    ) -> ConfidenceSet:
        """The union of closed intervals in any order, overlapping ones merged.

        Examples
        --------
        >>> print(ConfidenceSet.from_pieces([(3, 4), (0, 1), (0.5, 2)]))
        [0, 2] and [3, 4]
        """
        out: list[tuple[float, float]] = []
        for lower, upper in sorted((float(a), float(b)) for a, b in pieces):
            if out and lower <= out[-1][1]:
                out[-1] = (out[-1][0], max(out[-1][1], upper))
            else:
                out.append((lower, upper))
        return cls(tuple(out), level, method, term)

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float, np.integer, np.floating)):
            return False
        return any(lower <= value <= upper for lower, upper in self.intervals)

    @property
    def is_empty(self) -> bool:
        """No value is compatible with the data: the model itself is rejected."""
        return not self.intervals

    @property
    def is_bounded(self) -> bool:
        """Both ends are finite (the empty set is bounded)."""
        return all(np.isfinite(self.hull)) or self.is_empty

    @property
    def is_whole_line(self) -> bool:
        """The data exclude nothing."""
        return self.intervals == ((-_INF, _INF),)

    @property
    def is_connected(self) -> bool:
        """At most one piece."""
        return len(self.intervals) < 2

    @property
    def hull(self) -> tuple[float, float]:
        """Smallest interval around the set; ``(nan, nan)`` when it is empty."""
        if not self.intervals:
            return (float("nan"), float("nan"))
        return (self.intervals[0][0], self.intervals[-1][1])

    @property
    def shape(self) -> str:
        """One of "empty", "interval", "ray", "two rays", "whole line" and "union"."""
        if self.is_empty or self.is_whole_line:
            return "empty" if self.is_empty else "whole line"
        infinite = sum(not np.isfinite(end) for end in self.hull)
        if len(self.intervals) == 1:
            return "ray" if infinite else "interval"
        return "two rays" if infinite == 2 and len(self.intervals) == 2 else "union"

    def intersection(self, other: ConfidenceSet) -> ConfidenceSet:
        """Values in both sets; level, method and term are those of this one.

        Examples
        --------
        >>> print(ConfidenceSet(((0, 2), (4, 9))).intersection(ConfidenceSet(((1, 5),))))
        [1, 2] and [4, 5]
        """
        pieces = [
            (max(a, c), min(b, d))
            for a, b in self.intervals
            for c, d in other.intervals
            if max(a, c) <= min(b, d)
        ]
        return ConfidenceSet.from_pieces(pieces, level=self.level, method=self.method, term=self.term)

    def to_frame(self) -> pd.DataFrame:
        """Columns ``lower`` and ``upper``, one row per piece; no rows when the set is empty."""
        return pd.DataFrame(list(self.intervals), columns=["lower", "upper"], dtype=float)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite end is None.

        Examples
        --------
        >>> ConfidenceSet(((2.0, float("inf")),), term="m").to_dict()["intervals"]
        [[2.0, None]]
        """
        ends = [[x if np.isfinite(x) else None for x in pair] for pair in self.intervals]
        return {
            "term": self.term,
            "method": self.method,
            "level": self.level,
            "shape": self.shape,
            "intervals": ends,
        }

    def __str__(self) -> str:
        if self.is_empty:
            return "empty"
        if self.is_whole_line:
            return "the whole line"
        return " and ".join(_piece(lower, upper) for lower, upper in self.intervals)


def _piece(lower: float, upper: float) -> str:
    left = "(-inf" if lower == -_INF else f"[{lower:.4g}"
    right = "inf)" if upper == _INF else f"{upper:.4g}]"
    return f"{left}, {right}"


def _quadratic(a: float, h: float, k: float) -> list[tuple[float, float]]:
    size = max(abs(a), abs(h), abs(k)) or 1.0
    a, h, k = a / size, h / size, k / size  # so that no square overflows
    discriminant = h * h - a * k
    # No root, or a double one: the sign of the curve decides.
    if (a == 0 and h == 0) or discriminant < 0 or (a < 0 and discriminant == 0):
        return [(-_INF, _INF)] if (k if a == 0 else a) <= 0 else []
    if a == 0:
        return [(k / (2 * h), _INF)] if h > 0 else [(-_INF, k / (2 * h))]
    q = h + (1.0 if h >= 0 else -1.0) * float(np.sqrt(discriminant))
    with np.errstate(over="ignore"):  # a root beyond the largest number is a ray
        low, high = sorted((float(np.divide(q, a)), float(np.divide(k, q)) if q else 0.0))
    pieces = [(low, high)] if a > 0 else [(-_INF, low), (high, _INF)]
    return [(lower, upper) for lower, upper in pieces if lower < _INF and upper > -_INF]


def invert(
    excess: Excess,
    *,
    centre: float,
    scale: float,
    level: float = 0.95,
    method: str = "",
    term: str = "",
    points: int = _POINTS,
) -> ConfidenceSet:
    """All values that a test does not reject, over the whole line.

    The line is covered by ``x = centre + scale sinh(u)``, ``u`` equally spaced: with 4001 points, steps of
    1% of the scale in the middle and of 1% of the distance far out, up to a billion scales, where the last
    value stands for infinity.
    Every local extreme that does not change sign is searched more finely, so that narrow pieces and narrow
    gaps are found (a thirtieth of a step wide, or wider), and each boundary is found to rounding. Ends lie inside the
    set.

    Parameters
    ----------
    excess : callable
        Maps an array of candidate values to statistic minus critical value; <= 0 means "not rejected".
    centre, scale : float
        Where the set is expected and how wide it may be; both need only be rough.
    level : float
    method, term : str
    points : int
        Values tried before refinement.

    Returns
    -------
    ConfidenceSet

    Raises
    ------
    DataError
        When the excess is not a number somewhere, or centre and scale are not finite and positive.

    Examples
    --------
    >>> print(invert(lambda x: (x - 1) ** 2 - 4, centre=0.0, scale=1.0))
    [-1, 3]
    >>> print(invert(lambda x: 1 - np.abs(x), centre=0.0, scale=1.0))
    (-inf, -1] and [1, inf)
    """
    if not np.isfinite([centre, scale]).all() or scale <= 0:
        raise DataError(
            f"A test is inverted around a finite centre with a positive scale; got {centre!r}, {scale!r}."
        )

    def at(u: Array) -> Array:
        x = centre + scale * np.sinh(u)
        value = np.asarray(excess(x.ravel()), dtype=float).reshape(u.shape)
        if np.isnan(value).any():
            raise DataError(f"{method or 'The test'} is not a number at {x[np.isnan(value)].flat[0]:.4g}.")
        return value

    # An odd number: the centre itself, where point estimates sit, is a grid point.
    grid = np.linspace(-np.arcsinh(_FAR), np.arcsinh(_FAR), points | 1)
    grid, value = _refined(at, grid)
    inside = value <= 0
    flips = np.flatnonzero(inside[1:] != inside[:-1])
    low, high = (grid[flips], value[flips]), (grid[flips + 1], value[flips + 1])
    ends = centre + scale * np.sinh(_roots(at, low, high))
    edges = ends.tolist()
    if inside[0]:
        edges.insert(0, -_INF)
    if inside[-1]:
        edges.append(_INF)
    pieces = zip(edges[::2], edges[1::2], strict=True)
    return ConfidenceSet.from_pieces(pieces, level=level, method=method, term=term)


def _refined(at: Excess, grid: Array) -> tuple[Array, Array]:
    """The grid with the points added that show sign changes between its points."""
    value = at(grid)
    inside = value <= 0
    middle = np.arange(1, len(grid) - 1)
    same = (inside[middle] == inside[middle - 1]) & (inside[middle] == inside[middle + 1])
    below = (value[middle] <= value[middle - 1]) & (value[middle] <= value[middle + 1]) & ~inside[middle]
    above = (value[middle] >= value[middle - 1]) & (value[middle] >= value[middle + 1]) & inside[middle]
    # A flat stretch is one extreme, not thousands, and neither are wiggles of rounding on it.
    with np.errstate(over="ignore", invalid="ignore"):
        bend = np.abs((value[middle - 1] - value[middle]) + (value[middle + 1] - value[middle]))
    peaks = middle[same & (below | above) & (bend > _WIGGLE * np.abs(value[middle]))]
    if not len(peaks):
        return grid, value
    low, high, sign = grid[peaks - 1], grid[peaks + 1], np.where(inside[peaks], -1.0, 1.0)
    for _ in range(_ROUNDS):
        points = np.linspace(low, high, _FINE, axis=1)
        found = at(points)
        best = (found * sign[:, None]).argmin(axis=1)
        rows = np.arange(len(best))
        low = points[rows, np.maximum(best - 1, 0)]
        high = points[rows, np.minimum(best + 1, _FINE - 1)]
    turned = (found[rows, best] <= 0) != inside[peaks]
    new, extra = points[rows, best][turned], found[rows, best][turned]
    order = np.argsort(np.concatenate([grid, new]), kind="stable")
    return np.concatenate([grid, new])[order], np.concatenate([value, extra])[order]


def _roots(at: Excess, low: tuple[Array, Array], high: tuple[Array, Array]) -> Array:
    """The points inside the set nearest to the changes of sign between ``low`` and ``high`` (u, excess).

    Chandrupatla (1997): inverse quadratic interpolation where it is safe, else bisection, for all
    boundaries at once.
    """
    (x1, f1), (x2, f2) = high, low
    if not len(x1):
        return x1
    t = np.full(len(x1), 0.5)
    for _ in range(100):
        x = x1 + t * (x2 - x1)
        f = at(x)
        same = (f <= 0) == (f1 <= 0)
        x3, f3 = np.where(same, x1, x2), np.where(same, f1, f2)
        x2, f2 = np.where(same, x2, x1), np.where(same, f2, f1)
        x1, f1 = x, f
        least = 4e-16 * (1 + np.abs(x)) / np.maximum(np.abs(x2 - x1), 1e-300)
        if (least > 0.5).all():
            break
        with np.errstate(all="ignore"):  # equal or infinite values fall back to halving
            xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
            quick = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
            step = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
        t = np.where(quick & np.isfinite(step), step, 0.5)
        t = np.clip(t, np.minimum(least, 0.5), np.maximum(1 - least, 0.5))
    return np.where(f1 <= 0, x1, x2)
