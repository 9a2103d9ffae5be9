"""Joint sampling covariance of the effects in each site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np

from msmmiv.errors import MomentsInsufficient
from msmmiv.linalg import Array, Codes, gram_pinv, group_sum
from msmmiv.moments.within import Within

__all__ = [
    "SiteCovType",
    "clustered_covariance",
    "equal_weights",
    "joint_covariance",
    "leverage_of_cells",
    "slope_residuals",
]

SiteCovType: TypeAlias = Literal["classical", "HC0", "HC1", "HC2", "HC3", "CR0", "CR2"]


def equal_weights(within: Within) -> bool:
    """Whether all rows of each cell have the same weight, so that leverage is constant inside cells."""
    m = within.moments
    if m.squared is m.first:
        return True
    even = m.first.weight**2 / m.n
    return bool(np.allclose(m.squared.weight, even, rtol=1e-10, atol=0.0))


def slope_residuals(within: Within, slopes: Array) -> Array:
    """(C, p) mean residual of each variable in each cell, given the site's slopes on the contrasts."""
    p = within.n_variables
    fitted = np.einsum("cd,cdp->cp", within.deviation[:, p:], slopes[within.moments.site])
    out: Array = within.deviation[:, :p] - fitted
    return out


def leverage_of_cells(within: Within) -> Array:
    """(C,) leverage of one row in the regression on block intercepts and the site's contrasts.

    With unequal weights inside a cell it is not defined; callers check `equal_weights` first.
    """
    m, p = within.moments, within.n_variables
    d = within.deviation[:, p:]
    quadratic = np.einsum("cd,cde,ce->c", d, within.omega_inverse[m.site], d)
    row_weight = np.ones_like(m.n) if m.squared is m.first else m.first.weight / m.n
    out: Array = row_weight * (1.0 / within.weight[m.intercept] + quadratic)
    return out


def joint_covariance(
    within: Within, slopes: Array, precision: Array, kind: SiteCovType, *, own_slopes: bool
) -> Array:
    """Covariance of (itt, compliances) in each site.

    Parameters
    ----------
    within : Within
    slopes : (K, D, p) array
        Covariate-adjusted slopes of all variables.
    precision : (K, D, D) array
        Cross-products of the contrasts, net of covariates where those have a slope per site.
    kind : str
    own_slopes : bool
        Whether covariates have a slope per site.

    Returns
    -------
    (K, D, 1 + P, D, 1 + P) array

    Raises
    ------
    MomentsInsufficient
        When the form is not a function of the moments.
    """
    m = within.moments
    size = 1 + len(m.design.mediators)
    if kind == "classical":
        if m.design.weight_kind == "probability":
            raise MomentsInsufficient(
                "Classical covariances are invalid with probability weights. Use 'HC0' or 'HC1'; with covariates or a "
                "dose, Study(data, design).effects takes HC2 from the rows."
            )
        return _classical(within, slopes, precision, own_slopes=own_slopes)[:, :, :size, :, :size]
    if m.design.covariates:
        raise MomentsInsufficient(
            f"{kind} covariances of site effects with covariates need the rows (fourth moments). "
            "Use cov_type='classical', or leave the covariates out."
        )
    if m.design.treatment_kind == "continuous" and not kind.startswith("CR"):
        raise MomentsInsufficient(
            f"{kind} covariances with a continuous treatment need the rows. Use cov_type='classical'."
        )
    if kind in ("HC2", "HC3") and not equal_weights(within):
        raise MomentsInsufficient(
            f"{kind} needs each row's weight, and weights differ inside cells. Use 'HC0' or 'HC1'."
        )
    if kind.startswith("CR"):
        if not m.clusters:
            raise MomentsInsufficient(f"{kind} needs a design with cluster=...")
        if m.design.treatment_kind == "continuous" and kind == "CR2":
            raise MomentsInsufficient("CR2 with a continuous treatment needs the rows. Use 'CR0'.")
        return clustered_covariance(within, slopes, adjust=kind == "CR2")[:, :, :size, :, :size]
    return _robust(within, slopes, kind)[:, :, :size, :, :size]


def _classical(within: Within, slopes: Array, precision: Array, *, own_slopes: bool) -> Array:
    m, q = within.moments, len(within.moments.design.covariates)
    n = np.bincount(m.site, m.n, m.n_sites)
    intercepts = np.bincount(m.intercept_site, minlength=m.n_sites)
    inverse, rank = gram_pinv(precision)
    if own_slopes and q:
        p = within.n_variables
        xx = np.linalg.pinv(within.total[:, p - q :, p - q :], hermitian=True)
        x_rows = within.total[:, p - q :, :]
        total = within.total - np.einsum("kxp,kxz,kzq->kpq", x_rows, xx, x_rows)
        inside = total - np.einsum("kdp,kde,keq->kpq", slopes, precision, slopes)
        return _scaled(inverse, inside, n - intercepts - rank - q)
    inside = within.total - within.between
    if not q:
        return _scaled(inverse, inside, n - intercepts - rank)
    # One slope for all sites: one residual covariance for all, and the error of the slopes is shared.
    p = within.n_variables
    pooled = inside.sum(axis=0)
    xx = np.linalg.pinv(pooled[p - q :, p - q :], hermitian=True)
    left = pooled - pooled[:, p - q :] @ xx @ pooled[p - q :, :]
    sigma = left / (n.sum() - m.n_blocks - rank.sum() - q)
    x_slopes = within.slopes[:, :, p - q :]
    unscaled = inverse + np.einsum("kdx,xz,kez->kde", x_slopes, xx, x_slopes)
    out: Array = np.einsum("kde,pq->kdpeq", unscaled, sigma)
    return out


def _scaled(inverse: Array, inside: Array, df: Array | Codes) -> Array:
    """Inverse precision times residual covariance; NaN where a site has no degrees of freedom."""
    sigma = inside * np.where(df > 0, 1.0 / np.where(df > 0, df, 1.0), np.nan)[:, None, None]
    out: Array = np.einsum("kde,kpq->kdpeq", inverse, sigma)
    return out


def _robust(within: Within, slopes: Array, kind: SiteCovType) -> Array:
    m, p = within.moments, within.n_variables
    fitted = np.einsum("cd,cdp->cp", within.deviation[:, p:], slopes[m.site])
    residual = within.squared_deviation[:, :p] - fitted
    squares = m.squared.scatter[:, :p, :p] + np.einsum("c,cp,cq->cpq", m.squared.weight, residual, residual)
    if kind in ("HC2", "HC3"):
        rest = 1.0 - leverage_of_cells(within)
        # A lone row in its cell fits itself: its variance is not estimable, so the site's is undefined.
        alone = rest < 1e-9
        factor = np.where(alone, np.nan, 1.0 / np.where(alone, 1.0, rest) ** (1 if kind == "HC2" else 2))
        squares = squares * factor[:, None, None]
    d = within.deviation[:, p:]
    meat = group_sum(np.einsum("cd,ce,cpq->cdpeq", d, d, squares), m.site, m.n_sites)
    if kind == "HC1":
        n = np.bincount(m.site, m.n, m.n_sites)
        df = n - np.bincount(m.intercept_site, minlength=m.n_sites) - within.rank
        meat = meat * np.where(df > 0, n / np.where(df > 0, df, 1), np.nan)[:, None, None, None, None]
    return _sandwich(within.omega_inverse, meat)


def _sandwich(inverse: Array, meat: Array) -> Array:
    out: Array = np.einsum("kda,kapbq,kbe->kdpeq", inverse, meat, inverse)
    return out


def clustered_covariance(within: Within, slopes: Array, *, adjust: bool) -> Array:
    """Cluster sandwich per site; with ``adjust`` the CR2 form, exact because regressors are constant in cells.

    In a cluster, rows of one cell share their regressors, so (I - H)^(-1/2) acts on the cluster's cell sums
    through a matrix of the size of the number of its cells (Bell & McCaffrey 2002). Covers all p variables:
    (K, D, p, D, p).
    """
    m, p = within.moments, within.n_variables
    residual = slope_residuals(within, slopes)
    d = within.deviation[:, p:]
    weight = m.first.weight
    # Inside a cell only a dose varies, and the residual with it: v - slope d.
    inside = within.scatter[:, p:, :p] - within.scatter[:, p:, p:] @ slopes[m.site]
    sums = np.einsum("c,cd,cp->cdp", weight, d, residual) + inside
    pair = m.cluster * m.n_sites + m.site
    _, group = np.unique(pair, return_inverse=True)
    if adjust:
        if not equal_weights(within):
            raise MomentsInsufficient(
                "CR2 needs each row's weight, and weights differ inside cells. Use 'CR0'."
            )
        sums = _half_adjusted(within, residual, group)
    site = np.zeros(group.max() + 1, dtype=np.int64)
    site[group] = m.site
    scores = group_sum(sums, group, len(site))
    meat = group_sum(np.einsum("gdp,geq->gdpeq", scores, scores), site, m.n_sites)
    return _sandwich(within.omega_inverse, meat)


def _half_adjusted(within: Within, residual: Array, group: Codes) -> Array:
    """Cell contributions to the CR2 score: d' W^(1/2) (I - H)^(-1/2) W^(1/2) e, cluster by cluster."""
    m, p = within.moments, within.n_variables
    d = within.deviation[:, p:]
    root = np.sqrt(m.first.weight)
    out = np.zeros((len(root), d.shape[1], residual.shape[1]))
    for members in _equal_sizes(group):
        hat = np.einsum(
            "gcd,gde,gfe->gcf", d[members], within.omega_inverse[m.site[members[:, 0]]], d[members]
        )
        block = m.intercept[members]
        hat += (block[:, :, None] == block[:, None, :]) / within.weight[block][:, :, None]
        inside = root[members][:, :, None] * hat * root[members][:, None, :]
        values, vectors = np.linalg.eigh(np.eye(members.shape[1]) - inside)
        fits = values <= 1e-10
        half = np.where(fits, 0.0, 1.0 / np.sqrt(np.where(fits, 1.0, values)))
        # A cluster that is an arm by itself fits itself: the variance of its site is not estimable.
        weighted = root[members][:, :, None] * d[members]
        moved = np.abs(np.einsum("gcv,gcd->gvd", vectors, weighted)).max(axis=2)
        half[(fits & (moved > 1e-6 * root[members].max(axis=1)[:, None])).any(axis=1)] = np.nan
        turned = np.einsum("gcv,gcp->gvp", vectors, root[members][:, :, None] * residual[members])
        adjusted = np.einsum("gcv,gv,gvp->gcp", vectors, half, turned)
        out[members] = np.einsum("gcd,gcp->gcdp", weighted, adjusted)
    return out


def _equal_sizes(group: Codes, most: int = 2**20) -> Iterator[Codes]:
    """(G, c) members of the groups, those of one size c together and no more than ``most`` pairs of them at once."""
    order, size = np.argsort(group, kind="stable"), np.bincount(group)
    start = np.cumsum(size) - size
    for c in np.unique(size[size > 0]):
        first = start[size == c]
        for part in np.array_split(first, max(1, len(first) * int(c) ** 2 // most)):
            yield order[part[:, None] + np.arange(c)]
