"""Restricted likelihood of one mediator for many data sets, or many candidate slopes, at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msmmiv.errors import ChoiceError
from msmmiv.estimate.between.ascent import climb
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.linalg import Array

__all__ = ["ManyFits", "check_one_mediator", "fit_many"]

#: Promised rise of the log-likelihood, relative to its size, at which a climb stops.
_TOL = 1e-11
_LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, eq=False)
class ManyFits:
    """Fits of B data sets.

    Attributes
    ----------
    loglik : (B,) array
        Restricted log-likelihood, without the constant log|Z'Z| / 2 per component that some programs add.
    omega : (B, 2, 2) array
        Variance between rows of (compliance, itt).
    means : (B, q, 2) array
        Coefficients of z for (compliance, itt).
    root : (B, 3) or (B, 2) array
        Cholesky factor of Omega, or (u, t), in units of each data set's spread.
    converged : (B,) array of bool
    """

    loglik: Array
    omega: Array
    means: Array
    root: Array
    converged: npt.NDArray[np.bool_]

    @property
    def slope(self) -> Array:
        """(B,) slopes, Cov / Var of the true compliances; NaN without any variance."""
        s2 = self.omega[:, 0, 0]
        return np.where(s2 > 0, self.omega[:, 0, 1] / np.where(s2 > 0, s2, 1.0), np.nan)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Data in units of their spread; V and slopes broadcast over the B data sets."""

    x: Array
    y: Array
    a: Array
    b: Array
    c: Array
    z: Array
    angle: Array | None  # (B, 2) direction (1, beta0) of length one, for restricted fits

    def take(self, which: npt.NDArray[np.intp]) -> _Batch:
        def part(values: Array) -> Array:
            return values[which] if len(values) > 1 else values

        angle = None if self.angle is None else part(self.angle)
        return _Batch(part(self.x), part(self.y), part(self.a), part(self.b), part(self.c), self.z, angle)


def check_one_mediator(rows: BetweenRows, what: str) -> None:
    """Refuse what the arithmetic for one mediator and independent rows does not cover.

    Raises
    ------
    ChoiceError
        Several mediators, rows that share people, or a direct effect fixed at zero.
    """
    if len(rows.mediators) > 1:
        raise ChoiceError(
            f"{what} is for one mediator; there are {len(rows.mediators)}. Use StructuralReml() or the EB-score."
        )
    if rows.cross is not None:
        raise ChoiceError(f"{what} needs rows that share no people; arms of a site share its controls.")
    if not rows.has_direct_effect:
        raise ChoiceError(
            f"{what} needs a free direct effect. Through the origin use the corrected normal equations or the EB-score."
        )


def fit_many(
    x: Array,
    *,
    y: Array,
    a: Array,
    b: Array,
    c: Array,
    z: Array,
    slope: npt.ArrayLike | None = None,
    starts: tuple[Array, ...] = (),
) -> ManyFits:
    """Structural REML of B data sets with one mediator and independent rows, free or with the slope fixed.

    (x_k, y_k) ~ N((z_k'm, z_k'g), Omega + V_k), V_k = [[a_k, c_k], [c_k, b_k]]. With a slope beta0,
    Omega = u^2 n n' + t^2 e e' with n the direction (1, beta0) and e = (0, 1), which stays exact as beta0 grows to
    infinity, where it says that compliance does not vary.

    Parameters
    ----------
    x, y, a, b, c : (B, K) or (K,) arrays
        Compliances, itt, and their sampling variances (a of x, b of y) and covariances; one data set, or one V,
        serves all where it has no first axis.
    z : (K, q) array
        Regressors without error, a column of ones among their span.
    slope : (B,) array_like or float, optional
        Fixed slopes.
    starts : tuple of (B, 2) or (B, 3) arrays
        ``root`` of fits close by, for want of which the climbs start from scratch.

    Returns
    -------
    ManyFits

    Notes
    -----
    Newton steps on the Cholesky factor of Omega, where a boundary of Omega is an ordinary point. With few
    rows of unequal precision the likelihood has a second summit in about one data set of a hundred, usually at
    a line without direct-effect variance, so free fits start at moments, at little, and at steep lines both ways,
    and the highest summit is kept. A fit with a fixed slope is nested in the free one.

    Examples
    --------
    >>> x, y = np.array([0.0, 1.0, 2.0, 4.0]), np.array([1.0, 2.0, 5.0, 9.0])
    >>> nothing = np.zeros(4)
    >>> fit = fit_many(x, y=y, a=nothing, b=nothing, c=nothing, z=np.ones((4, 1)))
    >>> fit.slope.round(6).tolist(), np.polyfit(x, y, 1)[0].round(6).tolist()
    ([2.085714], 2.085714)
    """
    parts = [np.atleast_2d(np.asarray(v, dtype=float)) for v in (x, y, a, b, c)]
    beta = None if slope is None else np.atleast_1d(np.asarray(slope, dtype=float))
    size = max(*(len(v) for v in parts), 1 if beta is None else len(beta))
    k, q = z.shape
    basis, back = np.linalg.qr(z)
    sx, sy = (_unit(v, noise, basis) for v, noise in zip(parts[:2], parts[2:4], strict=True))
    units = (sx, sy, sx * sx, sy * sy, sx * sy)
    xs, ys, var_x, var_y, cov = (v / unit[:, None] for v, unit in zip(parts, units, strict=True))
    angle = None if beta is None else _directions(beta * (sx / sy))
    batch = _Batch(xs, ys, var_x, var_y, cov, basis, angle)

    def value(theta: Array, which: npt.NDArray[np.intp]) -> tuple[Array, Array]:
        return _evaluate(batch.take(which), theta)[:2]

    starts = starts or tuple(_starts(batch, size))
    top = climb(value, starts[0], tol=_TOL, polish=0)
    theta, highest, converged = top.theta, top.value, top.converged
    for start in starts[1:]:
        top = climb(value, start, tol=_TOL, polish=0)
        higher = top.value > highest + 1e-12
        theta[higher], highest[higher], converged[higher] = (
            top.theta[higher],
            top.value[higher],
            top.converged[higher],
        )
    best, _, means, factor = _evaluate(batch, theta)
    unit = np.column_stack(np.broadcast_arrays(sx, sy))
    jacobian = (k - q) * np.log(sx * sy) + 2.0 * float(np.linalg.slogdet(back)[1])
    omega = np.stack(
        [
            np.stack([factor[0] ** 2, factor[0] * factor[1]], axis=-1),
            np.stack([factor[0] * factor[1], factor[1] ** 2 + factor[2] ** 2], axis=-1),
        ],
        axis=-2,
    )
    return ManyFits(
        best - jacobian - (k - q) * _LOG_2PI,
        omega * unit[:, :, None] * unit[:, None, :],
        np.linalg.solve(back, means.reshape(-1, 2, q).swapaxes(1, 2)) * unit[:, None, :],
        theta,
        converged,
    )


def _unit(values: Array, noise: Array, basis: Array) -> Array:
    """Spread of each data set around z; the size of its errors if there is none."""
    spread = np.sqrt(((values - (values @ basis) @ basis.T) ** 2).mean(axis=1))
    error = np.sqrt(noise.mean(axis=1))
    return np.where(spread > 1e-9 * np.abs(values).max(axis=1), spread, np.where(error > 0, error, 1.0))


def _directions(beta: Array) -> Array:
    with np.errstate(invalid="ignore"):
        length = np.hypot(1.0, beta)
        second = np.where(np.isinf(beta), np.sign(beta), beta / length)
    return np.column_stack([1.0 / length, second])


def _starts(batch: _Batch, size: int) -> list[Array]:
    """Moments, little, and for free fits steep lines both ways."""
    z = batch.z
    x, y = (v - (v @ z) @ z.T for v in (batch.x, batch.y))
    left = len(z) - z.shape[1]
    others: list[tuple[float, ...]]
    observed = (x**2).sum(axis=1) / left, (x * y).sum(axis=1) / left, (y**2).sum(axis=1) / left
    noise = batch.a.mean(axis=1), batch.c.mean(axis=1), batch.b.mean(axis=1)
    s2 = np.maximum(observed[0] - noise[0], 0.2 * observed[0])
    if batch.angle is None:
        slope = (observed[1] - noise[1]) / s2
        t2 = np.maximum(observed[2] - noise[2] - slope**2 * s2, 0.2 * observed[2])
        middle = np.column_stack(np.broadcast_arrays(np.sqrt(s2), slope * np.sqrt(s2), np.sqrt(t2)))
        others = [(0.2, 0.01, 0.2), (0.3, 1.0, 0.05), (0.3, -1.0, 0.05)]
    else:
        u2 = np.minimum(s2 / np.maximum(batch.angle[:, 0], 1e-3) ** 2, 1.0)
        t2 = 0.5 * observed[2]
        middle = np.column_stack(np.broadcast_arrays(np.sqrt(u2), np.sqrt(t2)))
        others = [(0.2, 0.2)]
    shape = size, middle.shape[1]
    return [np.broadcast_to(start, shape).copy() for start in (middle, *(np.array(o) for o in others))]


def _evaluate(batch: _Batch, theta: Array) -> tuple[Array, Array, Array, tuple[Array, Array, Array]]:
    """Restricted log-likelihood without constants, its gradient, means and the Cholesky factor (l11, l21, l22)."""
    if batch.angle is None:
        l11, l21, l22 = theta.T
    else:
        l11, l21, l22 = theta[:, 0] * batch.angle[:, 0], theta[:, 0] * batch.angle[:, 1], theta[:, 1]
    s11 = batch.a + (l11**2)[:, None]
    s12 = batch.c + (l11 * l21)[:, None]
    s22 = batch.b + (l21**2 + l22**2)[:, None]
    det = np.maximum(s11 * s22 - s12**2, 1e-300)
    w11, w12, w22 = s22 / det, -s12 / det, s11 / det
    z = batch.z
    q = z.shape[1]
    squares = (z[:, :, None] * z[:, None, :]).reshape(len(z), q * q)
    quarters = np.empty((len(det), 2, q, 2, q))
    quarters[:, 0, :, 0, :] = (w11 @ squares).reshape(-1, q, q)
    quarters[:, 0, :, 1, :] = quarters[:, 1, :, 0, :] = (w12 @ squares).reshape(-1, q, q)
    quarters[:, 1, :, 1, :] = (w22 @ squares).reshape(-1, q, q)
    normal = quarters.reshape(-1, 2 * q, 2 * q)
    right = np.concatenate([(w11 * batch.x + w12 * batch.y) @ z, (w12 * batch.x + w22 * batch.y) @ z], axis=1)
    with np.errstate(all="ignore"):
        size = np.linalg.slogdet(normal)[1]
        bread = np.linalg.pinv(normal) if not np.isfinite(size).all() else np.linalg.inv(normal)
    means = (bread @ right[:, :, None])[:, :, 0]
    e1, e2 = batch.x - means[:, :q] @ z.T, batch.y - means[:, q:] @ z.T
    u1, u2 = w11 * e1 + w12 * e2, w12 * e1 + w22 * e2
    value = -0.5 * (np.log(det).sum(axis=1) + size + (e1 * u1 + e2 * u2).sum(axis=1))
    # Row blocks of P = W - W X (X'WX)^-1 X'W.
    block = bread.reshape(-1, 2, q, 2, q)
    h11 = block[:, 0, :, 0, :].reshape(-1, q * q) @ squares.T
    h12 = block[:, 0, :, 1, :].reshape(-1, q * q) @ squares.T
    h22 = block[:, 1, :, 1, :].reshape(-1, q * q) @ squares.T
    t11, t12 = w11 * h11 + w12 * h12, w11 * h12 + w12 * h22
    t21, t22 = w12 * h11 + w22 * h12, w12 * h12 + w22 * h22
    g11 = (u1 * u1 - w11 + t11 * w11 + t12 * w12).sum(axis=1)
    g12 = (u1 * u2 - w12 + t11 * w12 + t12 * w22).sum(axis=1)
    g22 = (u2 * u2 - w22 + t21 * w12 + t22 * w22).sum(axis=1)
    d11, d21, d22 = g11 * l11 + g12 * l21, g12 * l11 + g22 * l21, g22 * l22
    if batch.angle is None:
        gradient = np.column_stack([d11, d21, d22])
    else:
        gradient = np.column_stack([d11 * batch.angle[:, 0] + d21 * batch.angle[:, 1], d22])
    return np.where(np.isfinite(value), value, -np.inf), np.nan_to_num(gradient), means, (l11, l21, l22)
