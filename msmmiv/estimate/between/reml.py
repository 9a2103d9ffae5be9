"""Structural REML: itt and compliances as a multivariate random-effects meta-analysis, the slope read off it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.errors import ChoiceError, check_choice
from msmmiv.estimate.between.ascent import climb
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.linalg import Array, frozen

__all__ = ["RandomEffects", "RemlData", "StructuralReml", "reml_data", "reml_value"]

Likelihood: TypeAlias = Literal["REML", "ML"]

#: Share of variance between rows in that of the compliances below which it counts as none: likelihoods of slopes that
#: are divided by so little are flat, and the one that wins is an accident. Below the second share the reader is told.
_NONE, _FAINT = 1e-3, 0.05
#: The same for direct effects, whose variance is not divided by.
_ZERO = 1e-7
_STEP = 1e-5
_LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomEffects(BetweenFit):
    """A between-site fit with the distribution of true itt and compliances behind it.

    Attributes
    ----------
    omega : (1 + P, 1 + P) array
        Variance between rows of (itt, compliances), sampling error removed.
    means : (q, 1 + P) array
        Coefficients of the regressors without error in the means of (itt, compliances).
    direct_sd : float
        Standard deviation of direct effects between rows.
    compliance_sd : (P,) array
    reliability : (P,) array
        Share of the variance of each estimated compliance that is not sampling error.
    loglik : float
        Restricted for REML, without the constant log|Z'Z| / 2 per component that some programs add.
    converged : bool
        The score vanishes and no direction out of a boundary rises.
    boundary : tuple of str
        Mediators whose compliance, or "direct_effect" when direct effects, do not vary.
    """

    omega: Array
    means: Array
    direct_sd: float
    compliance_sd: Array
    reliability: Array
    loglik: float
    converged: bool
    boundary: tuple[str, ...]


@dataclass(frozen=True)
class StructuralReml:
    """Slope of true itt on true compliances under normal random effects: the point estimate with a direct effect.

    It weighs rows by their precision and needs no division by a corrected variance, so it is steadier than
    corrected normal equations; it trusts normality and equal variances of direct effects for that.

    Attributes
    ----------
    method : {"REML", "ML"}

    Notes
    -----
    Rows (y_k, x_k) ~ N(B'z_k, Omega + V_k); rows of one site keep their sampling covariance. The slopes are
    Omega_xx^-1 Omega_xy, the variance of direct effects Omega_yy - Omega_yx Omega_xx^-1 Omega_xy, and the
    coefficients of z are B_y - B_x slopes. The covariance is the inverse observed information, by the delta
    method, times n / (n - P) with n = K - q (K for ML, and K / (K - q - P)), which makes it that of least squares
    when nothing has sampling error. At the boundary without compliance variance there is no slope.

    With all V_k alike and Omega inside, the slopes are the corrected normal equations with f = (K - q) / K.
    Source: Jackson, Riley and White (2011) for the model; van Houwelingen, Arends and Stijnen (2002) for the slope.

    Examples
    --------
    >>> from msmmiv.estimate.between.rows import BetweenRows
    >>> x = np.array([[0.0], [1.0], [2.0], [4.0]])
    >>> rows = BetweenRows(
    ...     ("a", "b", "c", "d"), ("m",), "y", ("direct_effect",), np.array([1.0, 2.0, 5.0, 9.0]), x,
    ...     np.ones((4, 1)), 0.01 * np.eye(2)[None].repeat(4, axis=0), None, np.zeros((2, 2)), np.arange(4), False,
    ... )
    >>> fit = StructuralReml().solve(rows)
    >>> fit.coefficients.round(4).tolist(), fit.converged, fit.boundary
    ([2.0929, 0.5874], True, ())
    """

    method: Likelihood = "REML"

    @property
    def name(self) -> str:
        """Name in results."""
        return "reml" if self.method == "REML" else "ml"

    def solve(self, rows: BetweenRows) -> RandomEffects:
        """The fit, verified to be a summit.

        Raises
        ------
        ChoiceError
            The direct effect is fixed at zero, or an unknown method.
        """
        check_choice(self.method, Likelihood, "method")
        if not rows.has_direct_effect:
            raise ChoiceError(
                "Structural REML needs a free direct effect: with the line forced through the origin the mean of itt "
                "is a product of parameters and there is no restricted likelihood. Use the corrected normal "
                "equations or the EB-score."
            )
        data = reml_data(rows, restricted=self.method == "REML")
        theta, smooth = _summit(data)
        return _result(self, rows, data, theta, converged=smooth)


@dataclass(frozen=True, eq=False)
class RemlData:
    """Rows as blocks of independent sites, components ordered (compliances, itt), in units of their spread."""

    d: Array  # (K, D)
    z: Array  # (K, q), orthonormal columns
    blocks: tuple[tuple[npt.NDArray[np.intp], Array], ...]  # rows (n, A) and covariances (n, A D, A D)
    unit: Array  # (D,)
    back: Array  # (q, q): z of the caller is z @ back
    restricted: bool

    @property
    def constant(self) -> float:
        """What the log-likelihood loses to the units and to 2 pi."""
        k, size = self.d.shape
        left = k - self.z.shape[1] * self.restricted
        turned = float(np.linalg.slogdet(self.back)[1]) * size * self.restricted
        return float(left * (float(np.log(self.unit).sum()) + 0.5 * size * _LOG_2PI) + turned)


def reml_data(rows: BetweenRows, *, restricted: bool = True) -> RemlData:
    """What the likelihood reads, scaled so that units of itt and compliances do not matter."""
    order = [*range(1, rows.cov.shape[1]), 0]
    d = np.column_stack([rows.x, rows.y])
    z, back = np.linalg.qr(rows.z)
    left = d - z @ (z.T @ d)
    unit = np.sqrt((left**2).mean(axis=0))
    unit = np.where(unit > 0, unit, np.sqrt(np.einsum("kaa->ka", rows.cov).mean(axis=0))[order])
    scale = np.outer(unit, unit)
    if rows.cross is None:
        cov = rows.cov[np.ix_(range(rows.n_rows), order, order)] / scale
        return RemlData(d / unit, z, ((np.arange(rows.n_rows)[:, None], cov),), unit, back, restricted)
    cross = rows.cross[:, order][:, :, :, order] / (unit[:, None, None] * unit)
    members = [np.flatnonzero(rows.site == s) for s in np.unique(rows.site)]
    blocks = []
    for a in sorted({len(m) for m in members}):
        which = np.stack([m for m in members if len(m) == a])
        covs = [cross[m][:, :, m].reshape(a * len(unit), a * len(unit)) for m in which]
        blocks.append((which, np.stack(covs)))
    return RemlData(d / unit, z, tuple(blocks), unit, back, restricted)


def reml_value(data: RemlData, factor: Array) -> tuple[Array, Array, Array, Array]:
    """Log-likelihood at Omega = L L', without constants, for a stack of factors.

    Returns
    -------
    value : (n,) array
    score : (n, D, D) array
        S with d value = tr(S dOmega) / 2: sum over rows of P d d'P - P, P = W - W X (X'WX)^-1 X'W (W itself
        for ML in the last term).
    means : (n, q, D) array
    bread : (n, D q, D q) array
        (X'WX)^-1, components outside.
    """
    omega = factor @ factor.swapaxes(1, 2)
    n, size, _ = factor.shape
    q = data.z.shape[1]
    normal, right, logdet = np.zeros((n, size * q, size * q)), np.zeros((n, size * q)), np.zeros(n)
    held = []
    for which, cov in data.blocks:
        sites, arms = which.shape
        total = cov + np.einsum("ab,nij->naibj", np.eye(arms), omega).reshape(n, 1, arms * size, arms * size)
        weight = np.linalg.inv(total)
        logdet += np.linalg.slogdet(total)[1].sum(axis=1)
        x = np.einsum("ij,saq->saijq", np.eye(size), data.z[which]).reshape(sites, arms * size, size * q)
        wx = weight @ x
        normal += np.einsum("sra,nsrb->nab", x, wx)
        right += np.einsum("nsra,sr->na", wx, data.d[which].reshape(sites, -1))
        held.append((which, weight, x, wx))
    bread = np.linalg.inv(normal)
    means = np.einsum("nab,nb->na", bread, right)
    value = -0.5 * logdet - 0.5 * np.linalg.slogdet(normal)[1] * data.restricted
    score = np.zeros((n, size, size))
    for which, weight, x, wx in held:
        sites, arms = which.shape
        e = data.d[which].reshape(sites, -1) - np.einsum("sra,na->nsr", x, means)
        u = np.einsum("nsrt,nst->nsr", weight, e)
        value -= 0.5 * np.einsum("nsr,nsr->n", e, u)
        p = weight - wx @ bread[:, None] @ wx.swapaxes(2, 3) if data.restricted else weight
        u = u.reshape(n, sites, arms, size)
        score += np.einsum("nsai,nsaj->nij", u, u)
        score -= np.einsum("nsaiaj->nij", p.reshape(n, sites, arms, size, arms, size))
    return value, score, means.reshape(n, size, q).swapaxes(1, 2), bread


def _factor(theta: Array, size: int) -> Array:
    out = np.zeros((len(theta), size, size))
    out[:, *np.tril_indices(size)] = theta
    return out


def _slope(data: RemlData, theta: Array) -> tuple[Array, Array]:
    size = data.d.shape[1]
    factor = _factor(theta, size)
    with np.errstate(all="ignore"):
        value, score, _, _ = reml_value(data, factor)
    gradient = (score @ factor)[:, *np.tril_indices(size)]
    return np.where(np.isfinite(value), value, -np.inf), np.nan_to_num(gradient)


def _summit(data: RemlData) -> tuple[Array, bool]:
    """The highest summit from several starts, and whether the score says that it is one."""
    size = data.d.shape[1]
    left = data.d - data.z @ (data.z.T @ data.d)
    observed = left.T @ left / (len(left) - data.z.shape[1])
    noise = sum(
        np.einsum("saiaj->ij", v.reshape(len(w), w.shape[1], size, w.shape[1], size)) for w, v in data.blocks
    )
    values, vectors = np.linalg.eigh(observed - noise / len(left))
    moments = (vectors * np.maximum(values, 0.1)) @ vectors.T
    starts = [np.linalg.cholesky(moments), np.linalg.cholesky(moments + observed), 0.2 * np.eye(size)]
    for j in range(size - 1):
        for sign in (1.0, -1.0):
            steep = 0.3 * np.eye(size)
            steep[-1, j], steep[-1, -1] = sign, 0.05
            starts.append(steep)
    rows = np.tril_indices(size)
    top = climb(lambda t, _: _slope(data, t), np.stack([s[rows] for s in starts]), polish=3)
    theta = top.theta[[int(np.argmax(top.value))]]
    score = reml_value(data, _factor(theta, size))[1][0]
    # At a summit over semi-definite matrices score @ Omega = 0 and no eigenvalue of the score is positive.
    still = float(np.abs(_slope(data, theta)[1]).max()) < 1e-4
    return theta, still and float(np.linalg.eigvalsh(score)[-1]) < 1e-3 * len(left)


def _coefficients(data: RemlData, theta: Array) -> tuple[Array, Array, Array]:
    """(n, P + q) slopes and coefficients of z, with means and bread, in scaled units."""
    size = data.d.shape[1]
    factor = _factor(theta, size)
    _, _, means, bread = reml_value(data, factor)
    slopes = np.linalg.solve(factor[:, :-1, :-1].swapaxes(1, 2), factor[:, -1, :-1, None])[:, :, 0]
    free = means[:, :, -1] - np.einsum("nqp,np->nq", means[:, :, :-1], slopes)
    return np.concatenate([slopes, free], axis=1), means, bread


def _covariance(data: RemlData, theta: Array) -> Array:
    """Covariance of slopes and coefficients of z, in scaled units.

    Given Omega the coefficients of z have the covariance (I, -slopes) bread (I, -slopes)'; Omega adds J H^-1 J', with
    H the observed information and J the derivatives. For ML that is the inverse of the joint information.
    """
    m = theta.shape[1]
    moves = np.concatenate([np.eye(m), -np.eye(m)]) * _STEP
    gradient = _slope(data, theta + moves)[1]
    curve = (gradient[:m] - gradient[m:]) / (2.0 * _STEP)
    values, vectors = np.linalg.eigh(-(curve + curve.T) / 2.0)
    # A direction that turns the factor without changing Omega (or a ridge) has no information.
    keep = values > 1e-7 * values[-1]
    inverse = (vectors[:, keep] / values[keep]) @ vectors[:, keep].T
    around = _coefficients(data, theta + moves)[0]
    jacobian = (around[:m] - around[m:]) / (2.0 * _STEP)
    out: Array = jacobian.T @ inverse @ jacobian
    slopes, _, bread = _coefficients(data, theta)
    p, q = data.d.shape[1] - 1, data.z.shape[1]
    contrast = np.kron(np.concatenate([-slopes[0, :p], [1.0]]), np.eye(q))
    out[p:, p:] += contrast @ bread[0] @ contrast.T
    return out


def _result(
    spec: StructuralReml, rows: BetweenRows, data: RemlData, theta: Array, *, converged: bool
) -> RandomEffects:
    size = data.d.shape[1]
    factor = _factor(theta, size)
    value, _, means, _ = reml_value(data, factor)
    scaled = factor[0] @ factor[0].T
    order = [size - 1, *range(size - 1)]
    omega = (scaled * np.outer(data.unit, data.unit))[np.ix_(order, order)]
    noise = np.einsum("kaa->a", rows.noise) / rows.n_rows
    spread = np.diag(omega)[1:]
    share, direct = _weakest(rows, data, scaled), float(factor[0, -1, -1] ** 2)
    boundary = tuple(m for m, s, n in zip(rows.mediators, spread, noise, strict=True) if s <= _NONE * (s + n))
    p = len(rows.terms)
    status, df = None, float(rows.n_rows - p)
    if share > _NONE:
        coefficients, cov = _in_units(rows, data, theta)
        boundary += ("direct_effect",) * (direct <= _ZERO)
    else:
        what = "compliance varies" if size == 2 else "some mixture of the compliances varies"
        status, df = f"denominator not positive: {what} no more than noise", float("nan")
        coefficients, cov = np.full(p, np.nan), np.full((p, p), np.nan)
    return RandomEffects(
        spec.name,
        rows.terms,
        frozen(coefficients),
        frozen(cov),
        df,
        status,
        _notes(share, boundary, converged=converged),
        omega=frozen(omega),
        means=frozen(np.linalg.solve(data.back, means[0] * data.unit)[:, order]),
        direct_sd=float(np.sqrt(direct) * data.unit[-1]),
        compliance_sd=frozen(np.sqrt(spread)),
        reliability=frozen(spread / np.where(spread + noise > 0, spread + noise, 1.0)),
        loglik=float(value[0]) - data.constant,
        converged=converged,
        boundary=boundary,
    )


def _weakest(rows: BetweenRows, data: RemlData, scaled: Array) -> float:
    """The smallest share of true variance in any direction of the compliances, units aside."""
    both = scaled[:-1, :-1] + rows.noise.mean(axis=0) / np.outer(data.unit[:-1], data.unit[:-1])
    root = np.linalg.cholesky(both)
    share = np.linalg.eigvalsh(np.linalg.solve(root, np.linalg.solve(root, scaled[:-1, :-1]).T))
    return float(share[0])


def _in_units(rows: BetweenRows, data: RemlData, theta: Array) -> tuple[Array, Array]:
    """Coefficients (P + q,) and their covariance, of the caller's columns and in his units."""
    p, q, k = data.d.shape[1] - 1, data.z.shape[1], rows.n_rows
    change = np.concatenate([data.unit[-1] / data.unit[:-1], np.full(q, data.unit[-1])])
    turn = np.eye(p + q)
    turn[p:, p:] = np.linalg.inv(data.back)
    turn *= change[:, None]
    # Of least squares when nothing has sampling error.
    factor = (k - q * data.restricted) / (k - q - p)
    coefficients = turn @ _coefficients(data, theta)[0][0]
    cov = turn @ _covariance(data, theta) @ turn.T * factor
    if rows.exogenous and rows.common.any():
        line = np.concatenate([[1.0], -coefficients[:p]])
        cov[p, p] += float(line @ rows.common @ line)
    return coefficients, cov


def _notes(share: float, boundary: tuple[str, ...], *, converged: bool) -> tuple[str, ...]:
    """What a reader must know before using the numbers; where there are none the status says why."""
    notes = []
    if _NONE < share <= _FAINT:
        notes.append(
            f"All but {share:.1%} of the variance of compliance (in its weakest direction) is sampling error: the "
            "estimate may be far off; read the set."
        )
    if "direct_effect" in boundary:
        notes.append("Direct effects vary no more than noise: their variance is at its boundary, zero.")
    if not converged:
        notes.append("The likelihood has no clear summit; treat the estimate as unknown.")
    return tuple(notes)
