"""Restricted likelihood ratio test of the slope of the between-site regression, and its confidence set."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc, fdtri

from msmmiv.errors import ChoiceError, DataError
from msmmiv.estimate.between.ascent import climb
from msmmiv.estimate.between.reml import RemlData, reml_data, reml_value
from msmmiv.estimate.between.reml_many import check_one_mediator, fit_many
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.inference.confidence_set import ConfidenceSet, invert
from msmmiv.inference.tests import TestStatistic
from msmmiv.linalg import Array

__all__ = ["restricted_lr", "rlr_set", "rlr_test"]

_NAME = "restricted likelihood ratio"
#: Values tried before refinement; the profile likelihood is smooth in the angle of the slope.
_POINTS = 401
_FAR = 1e6


def restricted_lr(rows: BetweenRows, beta0: npt.ArrayLike) -> Array:
    """Twice the fall of the restricted log-likelihood when the slope is fixed at each value of an array.

    Infinite values are allowed: there the model says that compliance does not vary, and the ratio is what speaks
    against that.

    Parameters
    ----------
    rows : BetweenRows
        One mediator, free direct effect; rows of one site may be correlated, which is slower.
    beta0 : (m,) array_like

    Returns
    -------
    (m,) array
        Not negative.

    Raises
    ------
    ChoiceError
        Several mediators, or a direct effect fixed at zero.
    """
    candidates = np.atleast_1d(np.asarray(beta0, dtype=float))
    if rows.cross is not None and len(rows.mediators) == 1 and rows.has_direct_effect:
        return _by_blocks(rows, candidates)
    check_one_mediator(rows, "The restricted likelihood ratio")
    x, a, b, c = rows.x[:, 0], rows.noise[:, 0, 0], rows.itt_variance, rows.covariance[:, 0]
    free = fit_many(x, y=rows.y, a=a, b=b, c=c, z=rows.z)
    fixed = fit_many(x, y=rows.y, a=a, b=b, c=c, z=rows.z, slope=candidates)
    # Both see the same summits up to rounding; a fall below zero is that rounding.
    out: Array = np.maximum(2.0 * (np.maximum(free.loglik, fixed.loglik.max()) - fixed.loglik), 0.0)
    return out


def rlr_test(rows: BetweenRows, *, beta0: float = 0.0) -> TestStatistic:
    """Test that the mediator effect is ``beta0``, by restricted likelihood with an F reference.

    The most powerful of the tests with a direct effect when normality holds; with five rows and noisy compliances
    it errs on the safe side, and with direct effects that vary more where compliance is extreme it rejects too often.

    Parameters
    ----------
    rows : BetweenRows
        One mediator, free direct effect.
    beta0 : float

    Returns
    -------
    TestStatistic

    Raises
    ------
    ChoiceError
        Several mediators, a direct effect fixed at zero, or ``beta0`` that is not finite.

    Notes
    -----
    F = (K - q - 1) [exp(LR / (K - q)) - 1] with K rows and q regressors without error, referred to F(1, K - q - 1).
    Without sampling error it is the F of least squares, exactly. Size of 5% tests in 500 draws of Fu's (2023) design
    (docs/validation/table1.csv): .004 with K = 5, .080 with 10 and .058 with 30; `reml_bootstrap` has its own.

    Examples
    --------
    >>> from msmmiv.estimate.between.rows import BetweenRows
    >>> x = np.array([[0.0], [1.0], [2.0], [4.0]])
    >>> rows = BetweenRows(
    ...     ("a", "b", "c", "d"), ("m",), "y", ("direct_effect",), np.array([1.0, 2.0, 5.0, 9.0]), x,
    ...     np.ones((4, 1)), 0.01 * np.eye(2)[None].repeat(4, axis=0), None, np.zeros((2, 2)), np.arange(4), False,
    ... )
    >>> print(rlr_test(rows, beta0=2.0))
    restricted likelihood ratio: 0.2185 ~ F(1, 2), p = 0.6862 (H0: the effect of m is 2)
    """
    if not np.isfinite(beta0):
        raise ChoiceError(f"beta0 must be a finite number; got {beta0!r}.")
    stat = float(_f(rows, restricted_lr(rows, beta0))[0])
    df = _df(rows)
    null = f"the effect of {rows.mediators[0]} is {beta0:g}"
    return TestStatistic(_NAME, null, stat, float(fdtrc(1, df, stat)), 1, float(df))


def rlr_set(rows: BetweenRows, *, level: float = 0.95, points: int = _POINTS) -> ConfidenceSet:
    """All mediator effects that `rlr_test` does not reject; unbounded where compliance may not vary at all.

    Parameters
    ----------
    rows : BetweenRows
        One mediator, free direct effect, rows that share no people.
    level : float
    points : int
        Values tried before refinement.

    Raises
    ------
    ChoiceError
        What `restricted_lr` refuses, and rows that share people.
    """
    check_one_mediator(rows, "The set of the restricted likelihood ratio")
    if not 0.0 < level < 1.0:
        raise DataError(f"A confidence level lies between 0 and 1; got {level!r}.")
    x, a, b, c = rows.x[:, 0], rows.noise[:, 0, 0], rows.itt_variance, rows.covariance[:, 0]
    best = fit_many(x, y=rows.y, a=a, b=b, c=c, z=rows.z)
    critical = float(fdtri(1, _df(rows), level))
    bound = len(x) - rows.z.shape[1]
    limit = bound * float(np.log1p(critical / _df(rows)))
    top = float(best.loglik[0])
    spread = [np.sqrt(((v - rows.z @ np.linalg.lstsq(rows.z, v)[0]) ** 2).mean()) for v in (x, rows.y)]
    scale = float(spread[1] / spread[0]) if spread[0] > 0 and spread[1] > 0 else 1.0
    slope = float(best.slope[0])

    centre = slope if np.isfinite(slope) and abs(slope) < 1e3 * scale else 0.0
    profile = _Profile(rows, centre, scale)
    return invert(
        lambda beta: np.round(2.0 * (top - profile(beta)) - limit, 6),
        centre=centre,
        scale=scale,
        level=level,
        method=_NAME,
        term=rows.mediators[0],
        points=points,
    )


class _Profile:
    """Restricted log-likelihood at many candidates in several calls, each fit started from those found nearest.

    Far out it is flat, and its last digits would be taken for summits to explore: beyond a million scales all
    candidates count as one, and callers round.
    """

    def __init__(self, rows: BetweenRows, centre: float, scale: float) -> None:
        x, noise, both = rows.x[:, 0], rows.noise[:, 0, 0], rows.covariance[:, 0]
        self._fit = partial(fit_many, x, y=rows.y, a=noise, b=rows.itt_variance, c=both, z=rows.z)
        self._ends = centre - _FAR * scale, centre + _FAR * scale
        self._beta, self._root = np.empty(0), np.empty((0, 2))

    def __call__(self, beta: Array) -> Array:
        beta = np.clip(beta, *self._ends)
        known = len(self._beta)
        starts: tuple[Array, ...] = ()
        if known > 1:
            after = np.clip(np.searchsorted(self._beta, beta), 1, known - 1)
            starts = self._root[after - 1], self._root[after]
        fit = self._fit(slope=beta, starts=starts)
        joined = np.concatenate([self._beta, beta])
        self._beta, first = np.unique(joined, return_index=True)
        self._root = np.concatenate([self._root, fit.root])[first]
        return fit.loglik


def _df(rows: BetweenRows) -> int:
    return int(rows.n_rows - rows.z.shape[1] - 1)


def _f(rows: BetweenRows, ratio: Array) -> Array:
    df = _df(rows)
    return np.asarray(df * np.expm1(ratio / (df + 1)))


def _by_blocks(rows: BetweenRows, candidates: Array) -> Array:
    """The same ratio where rows of one site are correlated."""
    data = reml_data(rows)
    free = _highest(data, None)
    with np.errstate(invalid="ignore"):
        beta = candidates * (data.unit[0] / data.unit[1])
    fixed = np.array([_highest(data, float(value)) for value in beta])
    return np.asarray(np.maximum(2.0 * (max(free, fixed.max()) - fixed), 0.0))


def _highest(data: RemlData, beta: float | None) -> float:
    starts: list[tuple[float, ...]]
    if beta is None:
        frame = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
        starts = [(0.7, 0.2, 0.7), (0.2, 0.01, 0.2), (0.3, 1.0, 0.05), (0.3, -1.0, 0.05)]
    else:
        first, second = (
            (0.0, float(np.sign(beta))) if np.isinf(beta) else np.array([1.0, beta]) / np.hypot(1.0, beta)
        )
        frame = np.array([[[first, 0.0], [second, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
        starts = [(0.7, 0.7), (0.2, 0.2), (1.0, 0.1)]

    def slope(theta: Array, _: npt.NDArray[np.intp]) -> tuple[Array, Array]:
        factor = np.einsum("nm,mij->nij", theta, frame)
        with np.errstate(all="ignore"):
            value, score, _means, _bread = reml_value(data, factor)
        gradient = np.einsum("nij,mij->nm", score @ factor, frame)
        return np.where(np.isfinite(value), value, -np.inf), np.nan_to_num(gradient)

    return float(climb(slope, np.array(starts)).value.max())
