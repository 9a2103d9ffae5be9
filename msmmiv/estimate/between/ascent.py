"""Newton's method for many small maximisations at once, made for covariance matrices in Cholesky factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.linalg import Array

__all__ = ["Peak", "climb"]

#: Maps points (n, m) and the numbers of their problems (n,) to values (n,) and gradients (n, m).
Slope: TypeAlias = Callable[[Array, npt.NDArray[np.intp]], tuple[Array, Array]]

_STEP = 1e-6  # of the differences of gradients; parameters are of order one
_FLAT = 1e-8  # curvature, relative to the largest, below which a direction counts as flat
_MOST = 200
_HALVINGS = 30


@dataclass(frozen=True, eq=False)
class Peak:
    """Where the climbs ended.

    Attributes
    ----------
    theta : (B, m) array
    value : (B,) array
    slope : (B,) array
        Largest absolute gradient.
    converged : (B,) array of bool
        The rise that Newton's model still promised was below the tolerance.
    """

    theta: Array
    value: Array
    slope: Array
    converged: npt.NDArray[np.bool_]


def climb(slope: Slope, start: Array, *, tol: float = 1e-13, polish: int = 2) -> Peak:
    """Maximise B functions of m parameters of order one, each from its own start; never steps down.

    Curvature comes from differences of gradients, and its sign is ignored: a direction that curves upwards, as at
    the saddle that a Cholesky factor has at zero, is followed instead of fled to the saddle.

    Parameters
    ----------
    slope : callable
        Values and gradients.
    start : (B, m) array
    tol : float
        Stop when Newton's model promises a smaller rise, relative to one plus the size of the value.
    polish : int
        Full Newton steps at the end, kept where they lower the gradient.

    Examples
    --------
    >>> top = climb(lambda t, i: (-((t[:, 0] ** 2 - 1) ** 2), -4 * t * (t**2 - 1)), np.array([[0.1], [-3.0]]))
    >>> top.theta.ravel().round(9).tolist(), top.converged.tolist()
    ([1.0, -1.0], [True, True])
    """
    theta = np.array(start, dtype=float)
    which = np.arange(len(theta))
    value, gradient = slope(theta, which)
    done = np.zeros(len(theta), dtype=bool)
    live = which
    for _ in range(_MOST):
        step = _newton(slope, theta[live], gradient[live], live)
        promised = 0.5 * (gradient[live] * step).sum(axis=1)
        small = promised < tol * (1.0 + np.abs(value[live]))
        done[live[small]] = True
        live, step = live[~small], step[~small]
        if not len(live):
            break
        stuck = _search(slope, theta, value, gradient, live, step)
        live = live[~stuck]
        if not len(live):
            break
    for _ in range(polish):
        step = _newton(slope, theta, gradient, which)
        tried = theta + step
        new, there = slope(tried, which)
        better = (np.abs(there).max(axis=1) < np.abs(gradient).max(axis=1)) & (
            new > value - 1e-9 * (1.0 + np.abs(value))
        )
        theta[better], value[better], gradient[better] = tried[better], new[better], there[better]
    size = np.abs(gradient).max(axis=1)
    # A search that finds nothing higher stands at the top as far as rounding can tell.
    return Peak(theta, value, size, done | (size < 1e-5))


def _newton(slope: Slope, theta: Array, gradient: Array, which: npt.NDArray[np.intp]) -> Array:
    n, m = theta.shape
    curve = np.empty((n, m, m))
    for j in range(m):
        moved = theta.copy()
        moved[:, j] += _STEP
        curve[:, :, j] = (slope(moved, which)[1] - gradient) / _STEP
    curve = np.nan_to_num((curve + curve.swapaxes(1, 2)) / 2.0)
    values, vectors = np.linalg.eigh(curve)
    size = np.abs(values)
    size = np.maximum(size, np.maximum(_FLAT * size.max(axis=1, keepdims=True), 1e-10))
    step: Array = np.einsum("nij,nj,nkj,nk->ni", vectors, 1.0 / size, vectors, gradient)
    length = np.sqrt((step**2).sum(axis=1, keepdims=True))
    reach = 0.5 + np.sqrt((theta**2).sum(axis=1, keepdims=True))
    return np.asarray(step * np.minimum(1.0, reach / np.maximum(length, 1e-300)))


def _search(
    slope: Slope, theta: Array, value: Array, gradient: Array, live: npt.NDArray[np.intp], step: Array
) -> npt.NDArray[np.bool_]:
    """Step, halved until the function rises; writes into the first arrays and says who found nothing."""
    left = np.arange(len(live))
    size = 1.0
    for _ in range(_HALVINGS):
        rows = live[left]
        tried = theta[rows] + size * step[left]
        new, there = slope(tried, rows)
        rises = new > value[rows]
        good = rows[rises]
        theta[good], value[good], gradient[good] = tried[rises], new[rises], there[rises]
        left = left[~rises]
        if not len(left):
            break
        size /= 2.0
    stuck = np.zeros(len(live), dtype=bool)
    stuck[left] = True
    return stuck
