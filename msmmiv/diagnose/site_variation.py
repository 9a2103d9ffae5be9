"""Computations behind `heterogeneity`: the least Q over coefficients, and how much site effects vary.

Arms of a site are one block: residuals e_s (D,) with covariance V_s(d) (D, D), evaluated at the coefficients d
they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.optimize import brentq, minimize

from msmmiv.errors import DataError, RankDeficientError, count, listing
from msmmiv.estimate.site_moments import SiteRows, corrected_product, estimated
from msmmiv.inference.meta import meta_regression
from msmmiv.linalg import Array, dependent_columns
from msmmiv.moments.effects import SiteEffects

__all__ = [
    "Blocks",
    "Minimum",
    "blocks_of",
    "compliance_moments",
    "effect_covariance",
    "least_q",
    "residuals",
    "variance_where",
]

_GRID = 121
#: Share of the outcome in the minimising direction below which the coefficients are at infinity.
_AT_INFINITY = 1e-7


@dataclass(frozen=True, eq=False)
class Blocks:
    """Site effects in units of their sampling error, absent arms filled with zeros.

    Attributes
    ----------
    values : (K, D, 1 + P) array
    cov : (K, D, 1 + P, D, 1 + P) array
    present : (K, D) array of bool
    unit : (1 + P,) array
    direct : bool
        Whether every contrast has an intercept.
    """

    values: Array
    cov: Array
    present: npt.NDArray[np.bool_]
    unit: Array
    direct: bool

    @property
    def absent(self) -> Array:
        """(K, D, D) ones on the diagonal of arms without estimates, so that blocks can be inverted."""
        return np.where(self.present, 0.0, 1.0)[:, :, None] * np.eye(self.present.shape[1])


@dataclass(frozen=True, eq=False)
class Minimum:
    """The least Q and where it is.

    Attributes
    ----------
    q : float
    coefficients : (P,) array
        NaN with a status.
    direction : (1 + P,) array
        (1, -d) in scaled units up to length; finite even if d is not.
    status : str or None
    """

    q: float
    coefficients: Array
    direction: Array
    status: str | None


def blocks_of(effects: SiteEffects, *, direct: bool) -> Blocks:
    """Blocks of site effects, after checking that their covariances are positive."""
    present = estimated(effects)
    # In units of sampling error Q is nearly a quadratic form in the direction, so a coarse grid sees its valleys.
    size = np.sqrt((effects.estimates[present] ** 2).mean(axis=0))
    noise = np.sqrt(np.einsum("kdada->kda", effects.cov)[present].mean(axis=0))
    unit = np.maximum(noise, 1e-4 * size)
    unit = np.where(unit > 0, unit, 1.0)
    both = (present[:, :, None] & present[:, None, :])[:, :, None, :, None]
    cov = np.where(both, effects.cov, 0.0) / np.einsum("a,b->ab", unit, unit)[:, None, :]
    k, size = len(cov), cov.shape[1] * cov.shape[2]
    variance = np.einsum("kdd->kd", cov[:, :, 0, :, 0])
    # Covariances that are unbiased in clusters can have negative roots; a residual variance below zero has no Q.
    roots = np.linalg.eigvalsh(cov.reshape(k, size, size))
    bad = (present & (variance <= 0)).any(axis=1) | (roots[:, 0] < -1e-8 * np.abs(roots[:, -1]))
    if bad.any():
        names = [s for s, b in zip(effects.sites, bad, strict=True) if b]
        raise DataError(
            f"The sampling covariance ({effects.cov_type}) of {count(len(names), 'site')} is not positive: "
            f"{listing(names)}. The outcome is constant in an arm there, or an unbiased covariance came out negative; "
            "use cov_type='pooled' or 'HC2', or leave these sites out."
        )
    values = np.where(present[:, :, None], effects.estimates, 0.0) / unit
    g = values[present][:, 1:]
    g = g - g.mean(axis=0) if direct and present.shape[1] == 1 else g
    if bad_columns := dependent_columns(g.T @ g, (values[present][:, 1:] ** 2).sum(axis=0)):
        names = [effects.mediators[j] for j in bad_columns]
        raise RankDeficientError(
            f"Compliances with {listing(names)} are in exact proportion to the others"
            + (" or the same in all sites" if direct else "")
            + ": assumption (viii) fails. Leave it out."
        )
    return Blocks(values, cov, present, unit, direct)


def add_spread(blocks: Blocks, second: Array, variance: float) -> Blocks:
    """Blocks whose itt also varies by variance * E[g_d g_e]: effects that differ across sites (P = 1)."""
    cov = blocks.cov.copy()
    cov[:, :, 0, :, 0] += variance * second
    return replace(blocks, cov=cov)


def _evaluate(blocks: Blocks, b: Array) -> tuple[float, Array]:
    """Q at direction b, direct effects profiled out, and its gradient."""
    if blocks.present.shape[1] == 1:
        return _evaluate_two_arms(blocks, b)
    e = blocks.values @ b
    vb = blocks.cov @ b  # (K, D, 1 + P, D)
    v = np.einsum("kdae,a->kde", vb, b)
    both = blocks.present[:, :, None] & blocks.present[:, None, :]
    inverse = np.where(both, np.linalg.inv(v + blocks.absent), 0.0)
    if blocks.direct:
        load = np.einsum("kde,ke->d", inverse, e)
        e = e - np.linalg.lstsq(inverse.sum(axis=0), load, rcond=None)[0]
    x = np.einsum("kde,ke->kd", inverse, e)
    slope = np.einsum("kd,kda->a", x, blocks.values) - np.einsum("kd,kdae,ke->a", x, vb, x, optimize=True)
    return float((x * e).sum()), 2.0 * slope


def _evaluate_two_arms(blocks: Blocks, b: Array) -> tuple[float, Array]:
    """The same without blocks to invert: the case that is evaluated thousands of times."""
    values, present = blocks.values[:, 0], blocks.present[:, 0]
    e = values @ b
    vb = blocks.cov[:, 0, :, 0] @ b
    w = present / np.maximum(vb @ b, 1e-300)
    if blocks.direct:
        e = e - (w @ e) / w.sum()
    x = w * e
    return float(x @ e), 2.0 * (x @ values - x**2 @ vb)


def least_q(blocks: Blocks, *, start: Array | None = None) -> Minimum:
    """Minimise Q(d) = sum_s e_s' V_s(d)^-1 e_s over all directions (1, -d), infinity included.

    Q depends only on the direction of (1, -d), so the search runs over directions: a grid of angles with one
    mediator, several starts (the roots of the limited-information problem among them) with more.

    Parameters
    ----------
    blocks : Blocks
    start : (1 + P,) array, optional
        One mediator: a direction known to be near; searched first.

    Returns
    -------
    Minimum
    """
    q, b = _least_angle(blocks, start) if blocks.values.shape[2] == 2 else _least_direction(blocks)
    b = b / np.linalg.norm(b)
    if abs(b[0]) < _AT_INFINITY:
        why = "the least Q lies at infinity: compliances are too weak to bound the effects"
        return Minimum(q, np.full(len(b) - 1, np.nan), b, why)
    d = -b[1:] / b[0] * blocks.unit[0] / blocks.unit[1:]
    return Minimum(q, d, b, None)


def _least_angle(blocks: Blocks, start: Array | None) -> tuple[float, Array]:
    def slope(angle: float) -> float:
        gradient = _evaluate(blocks, _ray(angle))[1]
        return float(-np.sin(angle) * gradient[0] - np.cos(angle) * gradient[1])

    if start is not None:
        middle = float(np.arctan2(-start[1], start[0]))
        for reach in (0.05, 0.2):
            if slope(middle - reach) < 0 < slope(middle + reach):
                b = _ray(float(brentq(slope, middle - reach, middle + reach, xtol=1e-14, rtol=1e-14)))
                return _evaluate(blocks, b)[0], b
    angles = np.linspace(-np.pi / 2.0, np.pi / 2.0, _GRID)[:-1]  # both ends are the same direction
    step, q = np.pi / (_GRID - 1), _on_grid(blocks, angles)
    found = []
    for j in np.flatnonzero((q <= np.roll(q, 1)) & (q <= np.roll(q, -1))):
        angle, low, high = float(angles[j]), float(angles[j] - step), float(angles[j] + step)
        if slope(low) < 0 < slope(high):
            angle = float(brentq(slope, low, high, xtol=1e-14, rtol=1e-14))
        found.append((_evaluate(blocks, _ray(angle))[0], angle))
    least, angle = min(found)
    return least, _ray(angle)


def _on_grid(blocks: Blocks, angles: Array) -> Array:
    """Q at many angles; two arms in one go."""
    if blocks.present.shape[1] > 1:
        return np.array([_evaluate(blocks, _ray(float(a)))[0] for a in angles])
    present, values, cov = blocks.present, blocks.values[:, 0], blocks.cov[:, 0, :, 0]
    out = np.empty(len(angles))
    chunk = max(1, 2_000_000 // len(values))
    for at in range(0, len(angles), chunk):
        b = np.vstack([np.cos(angles[at : at + chunk]), -np.sin(angles[at : at + chunk])])
        e = values @ b
        v = cov[:, :1, 0] * b[0] ** 2 + 2.0 * cov[:, :1, 1] * b[0] * b[1] + cov[:, 1:, 1] * b[1] ** 2
        w = present / np.maximum(v, 1e-300)
        if blocks.direct:
            e = e - (w * e).sum(axis=0) / w.sum(axis=0)
        out[at : at + chunk] = (w * e**2).sum(axis=0)
    return out


def _ray(angle: float) -> Array:
    return np.array([np.cos(angle), -np.sin(angle)])


def _least_direction(blocks: Blocks) -> tuple[float, Array]:
    search: Any = minimize  # its stubs want vectors of a length known to the type checker
    found = []
    for start in _starts(blocks):
        done = search(
            lambda b: _evaluate(blocks, b),
            start / np.linalg.norm(start),
            jac=True,
            method="BFGS",
            options={"gtol": 1e-9},
        )
        found.append((float(done.fun), np.asarray(done.x)))
    return min(found, key=lambda one: one[0])


def _starts(blocks: Blocks) -> Array:
    """Rows: least squares, and the roots of cross-products against their noise (limited information)."""
    r = blocks.values
    if blocks.direct:
        n = np.maximum(blocks.present.sum(axis=0), 1)[:, None]
        r = np.where(blocks.present[:, :, None], r - r.sum(axis=0) / n, 0.0)
    v = np.einsum("kdd->kd", blocks.cov[:, :, 0, :, 0])
    w = np.where(blocks.present, 1.0 / np.where(v > 0, v, 1.0), 0.0)
    between = np.einsum("kd,kda,kdb->ab", w, r, r)
    noise = np.einsum("kd,kdadb->ab", w, blocks.cov)
    d = np.linalg.lstsq(between[1:, 1:], between[1:, 0], rcond=None)[0]
    floor = 1e-8 * np.trace(noise) * np.eye(len(noise))
    return np.vstack([np.concatenate([[1.0], -d]), eigh(between, noise + floor)[1].T])


def residuals(rows: SiteRows, coefficients: Array, direct: Array) -> tuple[Array, Array]:
    """(R, 1 + P) residual and compliances, and their (R, 1 + P, 1 + P) sampling covariance at d.

    ``direct`` holds the direct effect of each row.
    """
    turn = np.eye(rows.values.shape[1])
    turn[0, 1:] = -coefficients
    values = rows.values @ turn.T
    values[:, 0] -= direct
    return values, turn @ rows.cov @ turn.T


def compliance_moments(
    values: Array, cov: Array, arm: npt.NDArray[np.int64], *, spread: float
) -> tuple[Array, Array]:
    """(R,) posterior means and variances of compliance given estimates, for one mediator.

    The part of an estimated compliance that goes with the residual is taken out first, or sites with large
    residuals would seem to have large compliances. ``spread`` is a first estimate of the variance of effects: where it
    is large, little of a residual is sampling error and little is taken out. Arms have their own mean and variance.
    """
    second = max(float(np.mean(values[:, 1] ** 2 - cov[:, 1, 1])), 0.0)
    share = cov[:, 0, 1] / (cov[:, 0, 0] + max(spread, 0.0) * second)
    clean = values[:, 1] - share * values[:, 0]
    noise = np.maximum(cov[:, 1, 1] - share * cov[:, 0, 1], 1e-12 * np.mean(values[:, 1] ** 2) + 1e-300)
    mean, variance = clean.copy(), noise.copy()
    for a in np.unique(arm):
        here = arm == a
        if here.sum() < 2:
            continue
        fit = meta_regression(clean[here], v=noise[here], tau2="PM")
        keep = fit.tau2 / (fit.tau2 + noise[here])
        mean[here] = fit.coefficients[0] + keep * (clean[here] - fit.coefficients[0])
        variance[here] = keep * noise[here]
    return mean, variance


def variance_where(blocks: Blocks, second: Array, target: float, start: Array) -> float:
    """The variance of effects at which the least Q equals ``target`` (inf if there is none).

    Q falls in the variance at every d, hence also its least value does.
    """
    near = start

    def excess(variance: float) -> float:
        nonlocal near
        found = least_q(add_spread(blocks, second, variance), start=near)
        near = found.direction
        return found.q - target

    top = 0.1
    while excess(top) > 0:
        top *= 4.0
        if top > 1e12:
            return float("inf")
    return float(brentq(excess, 0.0, top, xtol=1e-15, rtol=1e-11))


def effect_covariance(rows: SiteRows, values: Array, cov: Array) -> tuple[Array | None, bool]:
    """(P, P) covariance of site effects by regressing squared residuals on products of compliances.

    Every product is corrected for sampling error, up to four factors; the result is projected on positive
    semi-definite matrices, and the flag says whether that changed it. None when the regression does not exist.
    """
    unit = np.sqrt((values**2).mean(axis=0))
    unit = np.where(unit > 0, unit, 1.0)
    x, v = values / unit, cov / np.outer(unit, unit)
    p = values.shape[1] - 1
    pairs = list(combinations_with_replacement(range(1, 1 + p), 2))
    times = np.array([1.0 if i == j else 2.0 for i, j in pairs])
    w = rows.weights("precision")
    gram = np.array([[w @ corrected_product(x, v, a + b) for b in pairs] for a in pairs]) * np.outer(
        times, times
    )
    cross = np.array([w @ corrected_product(x, v, (*a, 0, 0)) for a in pairs]) * times
    if np.linalg.eigvalsh(gram)[0] <= 1e-10 * np.trace(gram):
        return None, False
    flat = np.linalg.solve(gram, cross)
    omega = np.zeros((p, p))
    for value, (i, j) in zip(flat, pairs, strict=True):
        omega[i - 1, j - 1] = omega[j - 1, i - 1] = value
    roots, vectors = np.linalg.eigh(omega)
    scale = unit[0] / unit[1:]
    fixed = (vectors * np.clip(roots, 0.0, None)) @ vectors.T
    return fixed * np.outer(scale, scale), bool(roots[0] < 0)
