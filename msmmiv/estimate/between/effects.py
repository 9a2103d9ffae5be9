"""Indirect and direct effects, and the share mediated: sets of functions of the slope, by profiling it out.

For each value of a mediator's effect the score test says how far it is from the data, and given that value the
effects are linear in mean compliance and mean itt, which are normal. Adding the two distances and taking the best
value gives sets that stay valid where the slope has no finite standard error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from msmmiv.design import Label
from msmmiv.errors import DataError, count, listing
from msmmiv.estimate.between.rows import DIRECT, BetweenRows
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.linalg import Array, portions

__all__ = [
    "Profile",
    "Shares",
    "direct_pvalue",
    "intercept_pvalue",
    "intercept_set",
    "mean_effects",
    "profile",
    "shares_of",
]

Shares = Mapping[Label, float] | pd.Series | npt.ArrayLike | None

#: Points per piece of the slope's set, and where a ray ends, in scales of the data.
_POINTS, _FAR = 201, 1e6


@dataclass(frozen=True, eq=False)
class Profile:
    """Mean compliance and mean itt given each value of the slope, for one or more sets of row weights.

    Attributes
    ----------
    pieces : tuple of slice
        The slope's set: which values belong to one connected piece.
    value : (G,) array
        Values of the slope, ascending in each piece.
    distance : (G,) array
        Normal quantile of the p-value of the score test.
    mean : (G, W, 2) array
        (compliance, itt), averaged with each of W weightings, less what the score tells about their errors.
    cov : (G, W, 2, 2) array
        Sampling covariance of these.
    level : float
    unbounded : tuple of (bool, bool)
        Of each piece, whether it ends at minus or plus infinity.
    """

    pieces: tuple[slice, ...]
    value: Array
    distance: Array
    mean: Array
    cov: Array
    level: float
    unbounded: tuple[tuple[bool, bool], ...]

    def indirect(self, which: int = 0) -> ConfidenceSet:
        """Slope times mean compliance."""
        return self._linear(which, sign=1.0, itt=0.0, term="indirect effect")

    def direct(self, which: int = 0) -> ConfidenceSet:
        """Mean itt less slope times mean compliance."""
        return self._linear(which, sign=-1.0, itt=1.0, term="direct effect")

    def _linear(self, which: int, *, sign: float, itt: float, term: str) -> ConfidenceSet:
        """Of sign x slope x mean compliance + itt x mean itt."""
        a = np.column_stack([sign * self.value, np.full(len(self.value), itt)])
        middle = np.einsum("gi,gi->g", a, self.mean[:, which])
        half = self._room() * np.sqrt(np.maximum(np.einsum("gi,gij,gj->g", a, self.cov[:, which], a), 0.0))
        found = []
        for piece, (left, right) in zip(self.pieces, self.unbounded, strict=True):
            low, high = float((middle - half)[piece].min()), float((middle + half)[piece].max())
            # Far out the effect is the slope times a mean compliance of known sign, or of unknown sign.
            for at, infinite in ((piece.start, left), (piece.stop - 1, right)):
                if infinite:
                    far = sign * np.sign(self.value[at]) * self._compliance(which, at)
                    low = -np.inf if (far < 0).any() else low
                    high = np.inf if (far > 0).any() else high
            found.append((low, high))
        return self._set(found, term)

    def _compliance(self, which: int, at: int) -> Array:
        """(2,) ends of the interval of mean compliance at one value of the slope."""
        reach = self._room()[at] * np.sqrt(max(float(self.cov[at, which, 0, 0]), 0.0))
        return float(self.mean[at, which, 0]) + np.array([-reach, reach])

    def share(self, which: int = 0) -> ConfidenceSet:
        """Slope times mean compliance over mean itt: Fieller's set for each value of the slope, united."""
        found: list[tuple[float, float]] = []
        room = self._room()
        for piece in self.pieces:
            last: list[tuple[float, float]] = []
            for g in range(piece.start, piece.stop):
                now = list(
                    _fieller(self.value[g], self.mean[g, which], self.cov[g, which], room[g]).intervals
                )
                # Between two neighbouring values the ends move continuously: what lies between belongs to the set.
                joined = (
                    [(min(p[0], n[0]), max(p[1], n[1])) for p, n in zip(last, now, strict=False)]
                    if len(last) == len(now)
                    else []
                )
                found += now + joined
                last = now
            if any(self.unbounded[self.pieces.index(piece)]):
                found = [self._stretched(which, ends) for ends in found]
        return self._set(found, "share mediated")

    def _stretched(self, which: int, ends: tuple[float, float]) -> tuple[float, float]:
        """Ends that only the last value of the grid holds back are infinite."""
        mean = self.mean[:, which]
        limit = 0.01 * float(np.abs(self.value * mean[:, 0] / mean[:, 1]).max())
        low, high = ends
        return (-np.inf if low < -limit else low), (np.inf if high > limit else high)

    def _room(self) -> Array:
        """(G,) standard errors that are left for the means once the slope has used up its distance."""
        limit = float(ndtri(0.5 + self.level / 2.0))
        return np.sqrt(np.maximum(limit**2 - self.distance**2, 0.0))

    def _set(self, pieces: list[tuple[float, float]], term: str) -> ConfidenceSet:
        return ConfidenceSet.from_pieces(
            pieces, level=self.level, method="empirical-Bayes score, slope profiled out", term=term
        )


def _fieller(value: float, mean: Array, cov: Array, room: float) -> ConfidenceSet:
    """{s : (v g - s t)^2 <= room^2 Var(v g - s t)} for mean compliance g and mean itt t."""
    k = room**2
    a = mean[1] ** 2 - k * cov[1, 1]
    h = value * (mean[0] * mean[1] - k * cov[0, 1])
    c = value**2 * (mean[0] ** 2 - k * cov[0, 0])
    return ConfidenceSet.from_quadratic(a, h, c)


def shares_of(rows: BetweenRows, shares: Shares) -> Array:
    """(K,) weights of the rows in averages; equal by default.

    Raises
    ------
    DataError
        Shares that are negative, do not sum to one, or do not match the rows.

    Examples
    --------
    Shares may be given by site, as a dict or Series, or in the order of the rows.
    """
    k = rows.n_rows
    if shares is None:
        return np.full(k, 1.0 / k)
    if isinstance(shares, Mapping | pd.Series):
        table = dict(shares.items())
        absent = [s for s in rows.labels if s not in table]
        extra = [s for s in table if s not in rows.labels]
        if absent or extra:
            raise DataError(
                f"shares needs one entry per row of the regression; it lacks {listing(absent) or 'none'} and has "
                f"{listing(extra) or 'none'} too many. The rows are {listing(rows.labels)}."
            )
        values = _numbers([table[s] for s in rows.labels])
    else:
        values = _numbers(shares)
        if values.shape != (k,):
            raise DataError(f"shares has shape {values.shape}; the regression has {count(k, 'row')}.")
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("shares must be numbers of zero or more, without missing values.")
    if abs(values.sum() - 1.0) > 1e-6:
        raise DataError(f"shares sum to {values.sum():.6g}, not to 1. Divide them by their sum.")
    return np.asarray(values / values.sum())


def _numbers(values: npt.ArrayLike) -> Array:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as why:
        raise DataError(f"shares must be numbers ({why}).") from why


def mean_effects(rows: BetweenRows, weights: Array) -> tuple[Array, Array]:
    """Weighted means of (itt, compliances), (W, 1 + P), with their sampling covariance (W, 1 + P, 1 + P).

    The sites are those at hand: only sampling error counts, not which sites there are.
    """
    values = np.column_stack([rows.y, rows.x])
    if rows.cross is None:
        cov = np.einsum("wk,kab->wab", weights**2, rows.cov)
    else:
        cov = np.einsum("wk,kalb,wl->wab", weights, rows.cross, weights, optimize=True)
    return weights @ values, cov + weights.sum(axis=1)[:, None, None] ** 2 * rows.common


def profile(test: SlopeTest, slope_set: ConfidenceSet, weights: Array) -> Profile:
    """Means given the values in the slope's set.

    Parameters
    ----------
    test : SlopeTest
    slope_set : ConfidenceSet
    weights : (W, K) array
        Row weights of each average.

    Notes
    -----
    The score is a sum of influence omega_k times r_k(v), whose sampling error has covariance omega_k pi_k V_k (1, -b)
    with the mean weighted by pi; means are taken given the score, m - g s / Var(s), with covariance S - g g' / Var(s).
    A value e of an effect belongs to the set if min over v of z(v)^2 + (e - m(v))^2 / s(v)^2 <= z_level^2, z(v) the
    normal quantile of the score's p-value. Mean compliance is estimated at the usual rate, so that one degree of
    freedom is right however little is known of the slope.
    """
    rows = test.rows
    pieces, value, unbounded = _grid(test, slope_set)
    pick = [1 + rows.mediators.index(test.mediator), 0]
    parts = [_ties(test, part, weights, pick) for part in portions(value, rows.n_rows)]
    score, variance, tied = (np.concatenate(column) for column in zip(*parts, strict=True))
    mean, cov = mean_effects(rows, weights)
    told = tied / np.where(variance > 0, variance, np.inf)[:, None, None]
    return Profile(
        pieces,
        value,
        np.asarray(ndtri(1.0 - test.pvalue(value) / 2.0)),
        mean[None, :, pick] - told * score[:, None, None],
        cov[None][:, :, pick][:, :, :, pick] - told[..., :, None] * tied[..., None, :],
        slope_set.level,
        unbounded,
    )


def _ties(test: SlopeTest, value: Array, weights: Array, pick: list[int]) -> tuple[Array, Array, Array]:
    """Score (G,), its variance, and its covariances with the means in ``pick`` (G, W, 2)."""
    rows, path = test.rows, test.path(value)
    contrast = np.column_stack([np.ones(len(value)), -test.others(value)])
    own = np.einsum("kab,gb->gka", rows.cov, contrast)
    variance = np.maximum(path.std_error**2, np.einsum("gk,gka,ga->g", path.influence**2, own, contrast))
    if rows.cross is None:
        tied = np.einsum("gk,wk,gka->gwa", path.influence, weights, own, optimize=True)
    else:
        tied = np.einsum("gk,kblc,wl,gb->gwc", path.influence, rows.cross, weights, contrast, optimize=True)
    return np.nan_to_num(path.score), variance, np.nan_to_num(tied[:, :, pick])


def direct_pvalue(test: SlopeTest, slope_set: ConfidenceSet, weights: Array) -> float:
    """Two-sided p-value of no direct effect, averaged with ``weights`` (K,), over every value of the slope."""
    least = np.inf
    for where in _everywhere(slope_set):
        found = profile(test, where, weights[None])
        a = np.column_stack([-found.value, np.ones(len(found.value))])
        middle = np.einsum("gi,gi->g", a, found.mean[:, 0])
        variance = np.einsum("gi,gij,gj->g", a, found.cov[:, 0], a)
        least = min(least, float((found.distance**2 + middle**2 / np.maximum(variance, 1e-300)).min()))
    return float(2.0 * ndtr(-np.sqrt(least)))


@dataclass(frozen=True, eq=False)
class _Intercepts:
    """A coefficient of a regressor without error given each value of the slope."""

    pieces: tuple[slice, ...]
    unbounded: tuple[tuple[bool, bool], ...]
    distance: Array
    middle: Array
    error: Array


def _intercepts(test: SlopeTest, slope_set: ConfidenceSet, column: int) -> _Intercepts:
    rows = test.rows
    pieces, value, unbounded = _grid(test, slope_set)
    paths = map(test.path, portions(value, rows.n_rows))
    parts = [(path.intercepts[:, column], path.intercept_cov[:, column, column]) for path in paths]
    middle, variance = (np.concatenate(part) for part in zip(*parts, strict=True))
    if rows.exogenous[column] == DIRECT:
        contrast = np.column_stack([np.ones(len(value)), -value])
        variance = variance + np.einsum("ga,ab,gb->g", contrast, rows.common, contrast)
    distance = np.asarray(ndtri(1.0 - test.pvalue(value) / 2.0))
    return _Intercepts(pieces, unbounded, distance, middle, np.sqrt(variance))


def intercept_set(test: SlopeTest, slope_set: ConfidenceSet, column: int) -> ConfidenceSet:
    """Set of the coefficient of a regressor without error (the direct effect), the slope profiled out.

    Given a value v of the slope the coefficient is that of itt - v compliance on ``z``, independent of the score, and
    its t ratio (on the normal scale) takes the place of the distance of an effect in `profile`; one mediator.
    """
    given, level = _intercepts(test, slope_set, column), slope_set.level
    limit = float(ndtri(0.5 + level / 2.0))
    room = np.sqrt(np.maximum(limit**2 - given.distance**2, 0.0))
    half = stdtrit(test.df, ndtr(room)) * given.error
    found = []
    for piece, (left, right) in zip(given.pieces, given.unbounded, strict=True):
        low, high = float((given.middle - half)[piece].min()), float((given.middle + half)[piece].max())
        inner = given.middle[piece]
        for infinite, end, before in ((left, inner[0], inner[1]), (right, inner[-1], inner[-2])):
            if infinite and end != before:
                low, high = (-np.inf, high) if end < before else (low, np.inf)
        found.append((low, high))
    return ConfidenceSet.from_pieces(
        found,
        level=level,
        method="empirical-Bayes score, slope profiled out",
        term=test.rows.exogenous[column],
    )


def intercept_pvalue(test: SlopeTest, slope_set: ConfidenceSet, column: int) -> float:
    """Two-sided p-value of a zero coefficient of a regressor without error, over every value of the slope."""
    least = np.inf
    for where in _everywhere(slope_set):
        given = _intercepts(test, where, column)
        z = ndtri(stdtr(test.df, -np.abs(given.middle) / given.error))
        least = min(least, float((given.distance**2 + z**2).min()))
    return float(2.0 * ndtr(-np.sqrt(least)))


def _everywhere(slope_set: ConfidenceSet) -> list[ConfidenceSet]:
    """The set closely, and the whole line: there a large distance of the slope may still be the smallest sum."""
    line = ConfidenceSet(((-np.inf, np.inf),), slope_set.level)
    return [line] if slope_set.is_empty else [slope_set, line]


def _grid(
    test: SlopeTest, found: ConfidenceSet
) -> tuple[tuple[slice, ...], Array, tuple[tuple[bool, bool], ...]]:
    pieces, values, unbounded, start = [], [], [], 0
    scale = float(test.rows.y.std() / test.rows.x.std()) or 1.0
    for low, high in found.intervals:
        left, right = not np.isfinite(low), not np.isfinite(high)
        centre = float(np.clip(test.estimate, low, high))
        reach = np.sinh(np.linspace(0.0, np.arcsinh(_FAR), _POINTS)) * scale
        if left and right:
            grid = np.concatenate([centre - reach[::-1], centre + reach[1:]])
        elif left or right:
            grid = low + reach if right else high - reach[::-1]
        else:
            grid = np.linspace(low, high, _POINTS)
            if low < centre < high:
                grid = np.unique(np.append(grid, centre))
        values.append(grid)
        pieces.append(slice(start, start + len(grid)))
        unbounded.append((left, right))
        start += len(grid)
    return tuple(pieces), np.concatenate(values) if values else np.empty(0), tuple(unbounded)
