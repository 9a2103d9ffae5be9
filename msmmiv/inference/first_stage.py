"""Robust F statistics of the site-by-treatment instruments, with covariates.

Write the first stage as ``v = d' a_s + x*' phi + e`` with ``x*`` the covariates net of the instruments, so that
the two parts are orthogonal. The slopes of interest are ``pi_s = a_s - Pi_s phi`` with ``Pi_s`` the slopes of
the covariates on the contrasts. Their covariance is block diagonal over sites plus a matrix of rank 2q, which
keeps the Wald statistic linear in the number of sites (Woodbury).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from msmmiv.errors import MomentsInsufficient
from msmmiv.inference.covariance import HC_POWER, CovType
from msmmiv.inference.row_products import cell_scores, row_products
from msmmiv.linalg import Array, dependent_columns, frozen, gram_solve, group_sum
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.site_covariance import SiteCovType, equal_weights, joint_covariance
from msmmiv.moments.sums import Rows
from msmmiv.moments.within import Within, within_sites

__all__ = ["SlopeCovariance", "site_effects_from_rows", "slope_covariances"]


@dataclass(frozen=True, eq=False)
class SlopeCovariance:
    """Covariance of one variable's slopes on the instruments: blocks plus left middle left'.

    Attributes
    ----------
    blocks : (K, D, D) array
    left : (K, D, r) array
    middle : (r, r) array
    """

    blocks: Array
    left: Array
    middle: Array

    def scaled(self, factor: float) -> SlopeCovariance:
        """The covariance times a small-sample factor."""
        return SlopeCovariance(factor * self.blocks, self.left, factor * self.middle)

    def marginal(self) -> Array:
        """(K, D, D) covariance of each site's slopes."""
        out: Array = self.blocks + np.einsum("kdr,rs,kes->kde", self.left, self.middle, self.left)
        return out

    def wald(self, slopes: Array, common: Array | None) -> float:
        """Wald statistic of all slopes, or (with ``common`` given) of their differences between sites.

        Parameters
        ----------
        slopes : (K, D) array
        common : (K, D, D) array or None
            Directions left free: the direct effects.
        """
        inverse = np.linalg.pinv(self.blocks, rcond=1e-11, hermitian=True)
        columns = (
            slopes[:, :, None] if common is None else np.concatenate([slopes[:, :, None], common], axis=2)
        )
        solved = inverse @ columns
        if self.left.shape[2]:
            cross = inverse @ self.left
            inner = np.eye(len(self.middle)) + self.middle @ np.einsum("kdr,kds->rs", self.left, cross)
            part = np.linalg.solve(inner, self.middle @ np.einsum("kdr,kdc->rc", cross, columns))
            solved = solved - cross @ part
        gram = np.einsum("kda,kdb->ab", columns, solved)
        stat = gram[0, 0]
        if common is not None:
            stat -= gram[0, 1:] @ np.linalg.pinv(gram[1:, 1:], hermitian=True) @ gram[1:, 0]
        return float(stat)


def slope_covariances(
    within: Within,
    covariates: tuple[int, ...],
    kind: CovType,
    *,
    rows: Rows | None,
    sums: Array | None = None,
) -> list[SlopeCovariance]:
    """Robust covariance of the slopes of outcome and mediators, one per variable.

    With ``sums``, a (1 + P, E) array, of E linear combinations of outcome and mediators instead.

    Raises
    ------
    MomentsInsufficient
        HC forms without rows at hand.
    """
    m, p = within.moments, within.n_variables
    x = list(covariates)
    if sums is None and not x and m.arms and (not HC_POWER.get(kind) or equal_weights(within)):
        form: SiteCovType = (
            "CR0" if kind == "cluster" else "HC0" if kind == "HC1" else cast("SiteCovType", kind)
        )
        cov = joint_covariance(within, within.slopes, within.omega, form, own_slopes=False)
        none = np.zeros((m.n_sites, within.n_contrasts, 0))
        return [SlopeCovariance(cov[:, :, j, :, j], none, np.zeros((0, 0))) for j in range(cov.shape[2])]
    d, q, size = within.n_contrasts, len(x), 1 + len(m.design.mediators)
    inside = (within.total - within.between).sum(axis=0)
    xx_inverse = gram_solve(inside[np.ix_(x, x)], np.eye(q))
    phi = xx_inverse @ inside[x]
    x_slopes = within.slopes[:, :, x]
    values, vectors = np.linalg.eigh(within.omega_inverse)
    root = np.einsum("kde,ke,kfe->kdf", vectors, np.sqrt(np.clip(values, 0.0, None)), vectors)
    # Regressors: contrasts scaled to unit cross-products, then the covariates net of the contrasts.
    loading = np.zeros((m.n_sites, p + d, d + q))
    loading[:, p:, :d] = root
    loading[:, p:, d:] = -x_slopes
    loading[:, x, d + np.arange(q)] = 1.0
    residual = np.zeros((m.n_sites, p + d, size))
    residual[:, np.arange(size), np.arange(size)] = 1.0
    residual[:, x, :] = -phi[:, :size]
    residual[:, p:, :] = -(within.slopes - x_slopes @ phi)[:, :, :size]
    residual = residual if sums is None else residual @ sums
    meat = _meat(within, loading, residual, xx_inverse, kind, rows)
    middle = np.block([[np.zeros((q, q)), -np.eye(q)], [-np.eye(q), np.zeros((q, q))]])
    out = []
    for j in range(meat.shape[1]):
        blocks = root @ meat[:, j, :d, :d] @ root
        left = np.concatenate([root @ meat[:, j, :d, d:] @ xx_inverse, x_slopes], axis=2)
        here = middle.copy()
        here[q:, q:] = xx_inverse @ meat[:, j, d:, d:].sum(axis=0) @ xx_inverse
        out.append(SlopeCovariance(blocks, left, here))
    return out


def _meat(
    within: Within, loading: Array, residual: Array, xx_inverse: Array, kind: CovType, rows: Rows | None
) -> Array:
    """(K, E, k, k) sums of score products in each site."""
    m = within.moments
    if kind == "cluster":
        _, group = np.unique(m.cluster * m.n_sites + m.site, return_inverse=True)
        site = np.zeros(int(group.max()) + 1, dtype=np.int64)
        site[group] = m.site
        scores = group_sum(cell_scores(within, loading, residual), group, len(site))
        return group_sum(np.einsum("gke,gle->gekl", scores, scores), site, m.n_sites)
    if rows is None:
        raise MomentsInsufficient(
            f"{kind} with covariates needs the rows; fit from the data with Study(data, design)"
        )
    d, q = within.n_contrasts, len(xx_inverse)
    bread = np.block([[np.eye(d), np.zeros((d, q))], [np.zeros((q, d)), xx_inverse]])
    return row_products(within, loading, residual, bread=bread, power=HC_POWER[kind], rows=rows, by_site=True)


def site_effects_from_rows(moments: Moments, rows: Rows) -> SiteEffects:
    """Site effects with HC2 covariances where those need every row: with covariates, or a dose.

    Covariates have one slope for all sites, as in two-stage least squares.
    """
    effects = SiteEffects.from_moments(moments)
    within = within_sites(moments)
    p, q, size = within.n_variables, len(moments.design.covariates), 1 + len(effects.mediators)
    inside = (within.total - within.between).sum(axis=0)
    x = [*range(p - q, p)]
    lost = dependent_columns(inside[np.ix_(x, x)], np.diag(within.total.sum(axis=0))[x])
    kept = tuple(c for i, c in enumerate(x) if i not in lost)
    pairs = [(a, b) for a in range(size) for b in range(a, size)]
    # Covariances of two variables from variances of sums: 2 Cov(a, b) = Var(a + b) - Var(a) - Var(b).
    sums = np.array([np.eye(size)[a] + (a != b) * np.eye(size)[b] for a, b in pairs]).T
    got = [c.marginal() for c in slope_covariances(within, kept, "HC2", rows=rows, sums=sums)]
    single = {a: got[k] for k, (a, b) in enumerate(pairs) if a == b}
    cov = np.empty_like(effects.cov)
    for k, (a, b) in enumerate(pairs):
        block = got[k] if a == b else (got[k] - single[a] - single[b]) / 2.0
        cov[:, :, a, :, b] = cov[:, :, b, :, a] = block
    cov[~np.isfinite(effects.cov) & np.isnan(effects.estimates)[:, :, :, None, None]] = np.nan
    return replace(effects, cov=frozen(cov), cov_type="HC2")
