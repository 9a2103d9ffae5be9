"""The least Q over coefficients, on the normal scale, and the variance of effects at which it has a given value.

Arms of a site are one block: residuals e_s (D,) with covariance V_s(d) (D, D), evaluated at the coefficients d
they belong to. The least sum of squares is looked for with the covariances as they are; what is reported there is
the sum on the normal scale, because covariances that come from few rows make Student ratios of residuals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from msmmiv.errors import DataError, RankDeficientError, count, listing
from msmmiv.estimate.site_moments import estimated
from msmmiv.inference.site_scores import Sites
from msmmiv.linalg import Array, dependent_columns, root
from msmmiv.moments.effects import SiteEffects

__all__ = ["Blocks", "Minimum", "add_spread", "blocks_of", "least_q", "normal_q", "variance_where"]

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
    df : (K,) array or None
        Degrees of freedom behind each site's sampling covariance; None where covariances count as known.
    between : (K, D, D) array
        Part of the variance of itt in ``cov`` that is no sampling error, and is not estimated site by site.
    """

    values: Array
    cov: Array
    present: npt.NDArray[np.bool_]
    unit: Array
    direct: bool
    df: Array | None
    between: Array

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
        On the normal scale (`normal_q`).
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
    return Blocks(
        values, cov, present, unit, direct, _few(effects, present), np.zeros_like(cov[:, :, 0, :, 0])
    )


def _few(effects: SiteEffects, present: npt.NDArray[np.bool_]) -> Array | None:
    """Degrees of freedom of the covariances, or None where all count as known."""
    if np.isinf(effects.df[present.any(axis=1)]).all():
        return None
    if present.shape[1] == 1:
        return Sites.of(effects).df
    return np.asarray(np.maximum(effects.df, present.sum(axis=1)), dtype=np.float64)


def add_spread(blocks: Blocks, second: Array, variance: float) -> Blocks:
    """Blocks whose itt also varies by variance * E[g_d g_e]: effects that differ across sites (P = 1)."""
    cov, more = blocks.cov.copy(), variance * second
    cov[:, :, 0, :, 0] += more
    return replace(blocks, cov=cov, between=blocks.between + more)


def normal_q(blocks: Blocks, b: Array) -> float:
    """The sum of squares at direction b, each site's taken to the normal scale first.

    With one contrast a site gives a Student ratio, and the sum is the Anderson-Rubin statistic (Wallace 1959). With D
    contrasts it gives Hotelling's T^2, and (f - D / 2) log(1 + T^2 / f) is chi2(D): exactly so for D = 2 where the
    covariance is Wishart, and Bartlett's approximation otherwise.

    Only the sampling part V of a variance T = V + B is estimated from the site, so that f is multiplied by
    D (D + 1) / (tr(V T^-1)^2 + tr(V T^-1 V T^-1)), which is T^2 / V^2 for one contrast (Satterthwaite).
    """
    if blocks.df is None:
        return _evaluate(blocks, b)[0]
    e, inverse, _ = _weighted(blocks, b)
    total = np.einsum("a,kdaeb,b->kde", b, blocks.cov, b)
    share = (total - b[0] ** 2 * blocks.between) @ inverse
    trace = np.einsum("kdd->k", share)
    arms = blocks.present.sum(axis=1)
    used = np.maximum(trace**2 + np.einsum("kde,ked->k", share, share), 1e-12)
    df = np.where(arms > 0, blocks.df * arms * (arms + 1.0) / used, np.inf)
    if blocks.present.shape[1] == 1:
        cov = blocks.cov.copy()
        cov[arms == 0, 0, :, 0] = np.eye(len(b))
        sites = Sites(blocks.values, cov, blocks.present, df, blocks.direct)
        return float(sites.anderson_rubin(b[None])[0])
    square = np.einsum("kd,kde,ke->k", e, inverse, e)
    known = np.isinf(df)
    f = np.where(known, 1.0, df)
    return float(np.where(known, square, (f - arms / 2.0) * np.log1p(square / f)).sum())


def _evaluate(blocks: Blocks, b: Array) -> tuple[float, Array]:
    """Q at direction b, direct effects profiled out, and its gradient."""
    if blocks.present.shape[1] == 1:
        return _evaluate_two_arms(blocks, b)
    e, inverse, vb = _weighted(blocks, b)
    x = np.einsum("kde,ke->kd", inverse, e)
    slope = np.einsum("kd,kda->a", x, blocks.values) - np.einsum("kd,kdae,ke->a", x, vb, x, optimize=True)
    return float((x * e).sum()), 2.0 * slope


def _weighted(blocks: Blocks, b: Array) -> tuple[Array, Array, Array]:
    """Residuals (K, D) at direction b, direct effects taken out; their inverse covariances; and what these are from."""
    e = blocks.values @ b
    vb = blocks.cov @ b  # (K, D, 1 + P, D)
    v = np.einsum("kdae,a->kde", vb, b)
    both = blocks.present[:, :, None] & blocks.present[:, None, :]
    inverse = np.where(both, np.linalg.inv(v + blocks.absent), 0.0)
    if blocks.direct:
        load = np.einsum("kde,ke->d", inverse, e)
        e = e - np.linalg.lstsq(inverse.sum(axis=0), load, rcond=None)[0]
    return e, inverse, vb


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
    mediator, several starts (the roots of the limited-information problem among them) with more. The value
    returned is on the normal scale.

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
    q = q if blocks.df is None else normal_q(blocks, b)
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
                b = _ray(root(slope, middle - reach, middle + reach, xtol=1e-14, rtol=1e-14))
                return _evaluate(blocks, b)[0], b
    angles = np.linspace(-np.pi / 2.0, np.pi / 2.0, _GRID)[:-1]  # both ends are the same direction
    step, q = np.pi / (_GRID - 1), _on_grid(blocks, angles)
    found = []
    for j in np.flatnonzero((q <= np.roll(q, 1)) & (q <= np.roll(q, -1))):
        angle, low, high = float(angles[j]), float(angles[j] - step), float(angles[j] + step)
        if slope(low) < 0 < slope(high):
            angle = root(slope, low, high, xtol=1e-14, rtol=1e-14)
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
    from scipy.optimize import minimize

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


def variance_where(blocks: Blocks, second: Array, target: float, least: Minimum) -> float:
    """The variance of effects at which the least Q equals ``target`` (inf if there is none).

    Q falls in the variance at every d, hence also its least value does. ``least`` is the minimum without variance,
    above the target. The minimum is followed from there; where it changes valleys on the way, it is looked for afresh
    at every variance.
    """
    found = _crossing(blocks, second, target, least, follow=True)
    if np.isfinite(found):
        at = least_q(add_spread(blocks, second, found))
        if at.q > target * (1.0 - 1e-6):
            return found
    return _crossing(blocks, second, target, least, follow=False)


def _crossing(blocks: Blocks, second: Array, target: float, least: Minimum, *, follow: bool) -> float:
    near = least.direction
    # Ends are evaluated once: followed from elsewhere, the minimum there might be another.
    known = {0.0: least.q - target}

    def excess(variance: float) -> float:
        nonlocal near
        if variance not in known:
            found = least_q(add_spread(blocks, second, variance), start=near if follow else None)
            near, known[variance] = found.direction, found.q - target
        return known[variance]

    top = 0.1
    while excess(top) > 0:
        top *= 4.0
        if top > 1e12:
            return float("inf")
    return root(excess, 0.0, top, xtol=1e-15, rtol=1e-11)
