"""How noisy the site effects are: unbiased covariances that exist in every site, for error correction.

A site's own covariance needs two rows (two clusters) in each arm. Real trials break that: Project STAR has
schools with one small class. The variance of a cell mean is then taken from all the other cells,

    Var(mean) = tau q + sum_g a_g^2 u_g,    a_g = W_g / W,  q = sum_g a_g^2,

with W_g the weight of cluster g, u_g the sampling variance of its mean given the cluster, and tau the variance
between clusters, by analysis of variance over the cells that hold two or more. Without clusters every row is
its own cluster and u_g is zero. The variance of a lone row or cluster is never taken as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from msmmiv.errors import DataError, MomentsInsufficient
from msmmiv.linalg import Array, Codes, frozen, group_sum
from msmmiv.moments.assembly import CellMoments
from msmmiv.moments.site_covariance import clustered_covariance, equal_weights
from msmmiv.moments.within import Within

__all__ = ["NoiseKind", "SiteNoise", "site_noise"]

NoiseKind = Literal["unbiased", "pooled"]


@dataclass(frozen=True, eq=False)
class SiteNoise:
    """Sampling covariance of (itt, compliances) in each site, with the degrees of freedom behind it.

    Attributes
    ----------
    cov : (K, D, 1 + P, D, 1 + P) array
    df : (K,) array
        Welch-Satterthwaite degrees of freedom, for the variance of itt.
    borrowed : int
        Cells whose variance came from the other cells because they hold one row (or one cluster).
    """

    cov: Array
    df: Array
    borrowed: int


@dataclass(frozen=True, eq=False)
class _Parts:
    """Var(mean of cell c) = unit_c share_c + extra_c; NaN where the cell cannot tell. ``weight`` pools units."""

    unit: Array
    share: Array
    extra: Array
    df: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class _Means:
    """Covariance (C, p, p) of cell means, its degrees of freedom (C,), and where it was borrowed (C,)."""

    cov: Array
    df: Array
    borrowed: npt.NDArray[np.bool_]


def site_noise(within: Within, kind: NoiseKind, *, adjust: Array | None = None) -> SiteNoise:
    """Covariance of the site effects: each cell's own where it has one ("unbiased"), or one for all ("pooled").

    With declared clusters the clusters are the sample, otherwise the rows.

    Parameters
    ----------
    within : Within
    kind : {"unbiased", "pooled"}
        "pooled" supposes that rows (clusters and rows) have one covariance in all cells of an arm.
    adjust : (p, 1 + P) array, optional
        Columns that turn the variables into outcome and mediators net of covariates.

    Raises
    ------
    DataError
        No cell has two rows (clusters), so that no variance can be estimated.
    MomentsInsufficient
        Clusters with a continuous treatment.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.moments.within import within_sites
    >>> noise = site_noise(within_sites(mm.data.star()), "unbiased")
    >>> noise.borrowed > 0, bool(np.isfinite(noise.cov).all())
    (True, True)
    """
    m = within.moments
    if adjust is None:
        adjust = np.eye(within.n_variables)[:, : 1 + len(m.design.mediators)]
    if not m.arms:
        return _dose_noise(within, kind, adjust)
    parts = _rows_noise(m.first, m.squared, m.n, adjust)
    if m.clusters and not np.isfinite(parts.df).any():
        # Every cluster is one row: its own noise is part of what differs between clusters.
        rows = _Means(np.zeros_like(parts.unit), np.ones(m.n_cells), np.zeros(m.n_cells, dtype=np.bool_))
    else:
        rows = _filled(parts, arm=m.arm, kind=kind, what="row")
    code, lead = _arm_cells(within)
    # One slope per covariate was estimated from the same residuals, those between clusters included.
    free = float(m.n.sum()) - len(lead)
    q = len(m.design.covariates)
    factor = free / max(free - q, 1.0) if q else 1.0
    load = _loads(within)
    if m.clusters and not _nested(m.site, m.cluster, m.arm):
        return _crossed_noise(within, rows, load, adjust, kind, factor)
    site, means = m.site, rows
    if m.clusters:
        own = _cluster_noise(m.first, code, rows, adjust)
        means = _filled(own, arm=m.arm[lead], kind=kind, what="cluster")
        # The contrast is the same for all cells of an arm; weights add up.
        load, site = group_sum(load, code, len(lead)), m.site[lead]
    cov = group_sum(np.einsum("cd,ce,cpq->cdpeq", load, load, means.cov), site, m.n_sites)
    part = (load**2).sum(axis=1) * means.cov[:, 0, 0]
    squares = group_sum(part**2 / means.df, site, m.n_sites)
    df = group_sum(part, site, m.n_sites) ** 2 / np.where(squares > 0, squares, np.nan)
    return SiteNoise(frozen(factor * cov), frozen(np.nan_to_num(df, nan=1.0)), int(means.borrowed.sum()))


def _loads(within: Within) -> Array:
    """(C, D): the site's slopes are sums over cells of load times the cell's mean."""
    m, p = within.moments, within.n_variables
    contrast = np.einsum("cde,ce->cd", within.omega_inverse[m.site], within.deviation[:, p:])
    out: Array = m.first.weight[:, None] * contrast
    return out


def _arm_cells(within: Within) -> tuple[Codes, Codes]:
    """Code of the site-by-block-by-arm cell that each cell belongs to, and one member of each."""
    m = within.moments
    _, lead, code = np.unique(m.intercept * (len(m.arms) + 1) + m.arm, return_index=True, return_inverse=True)
    return code, lead


def _nested(site: Codes, cluster: Codes, arm: Codes) -> bool:
    """Whether every cluster has one arm in each site."""
    pairs = np.unique(np.column_stack([site, cluster, arm]), axis=0)
    return len(np.unique(pairs[:, :2], axis=0)) == len(pairs)


def _rows_noise(first: CellMoments, squared: CellMoments, n: Array, adjust: Array) -> _Parts:
    """Weighted means of independent rows: the unit is the variance of a row."""
    if squared is first:
        share, products = 1.0 / first.weight, first.scatter / first.weight[:, None, None]
    else:
        share = squared.weight / first.weight**2
        away = squared.mean - first.mean
        products = squared.scatter / squared.weight[:, None, None] + away[:, :, None] * away[:, None, :]
    alone = (n < 2) | (share > 1.0 - 1e-9)
    rest = np.where(alone, np.nan, 1.0 - share)[:, None, None]
    unit = np.einsum("pa,cpq,qb->cab", adjust, products, adjust) / rest
    df = np.where(alone, np.nan, n - 1.0)
    return _Parts(unit, share, np.zeros_like(unit), df, df)


def _cluster_noise(first: CellMoments, code: Codes, rows: _Means, adjust: Array) -> _Parts:
    """Means of clusters: the unit is the variance between clusters, by analysis of variance in the cell."""
    size = int(code.max()) + 1
    merged = first.merged(code, size)
    a = first.weight / merged.weight[code]
    share = group_sum(a**2, code, size)
    away = (first.mean - merged.mean[code]) @ adjust
    spread = group_sum(a[:, None, None] * away[:, :, None] * away[:, None, :], code, size)
    spread -= group_sum((a * (1.0 - a))[:, None, None] * rows.cov, code, size)
    extra = group_sum((a**2)[:, None, None] * rows.cov, code, size)
    number = np.bincount(code, minlength=size)
    df = np.where(number > 1, number - 1.0, np.nan)
    rest = np.where(number > 1, 1.0 - share, np.nan)
    return _Parts(spread / rest[:, None, None], share, extra, df, merged.weight * rest)


def _filled(parts: _Parts, *, arm: Codes, kind: NoiseKind, what: str) -> _Means:
    """Put the arm's pooled unit variance (all arms', if the arm has none) where a cell has none, or everywhere."""
    have = np.isfinite(parts.df)
    if not have.any():
        raise DataError(
            f"Every site-by-arm cell holds a single {what}, so the noise in the site effects cannot be estimated. "
            "Larger cells are needed; with several cells in a block, '2sls' with cov_type='site' does without."
        )
    unit, df = np.empty_like(parts.unit), np.empty_like(parts.df)
    for a in np.unique(arm):
        members = have & (arm == a) if (have & (arm == a)).any() else have
        unit[arm == a] = np.average(parts.unit[members], axis=0, weights=parts.weight[members])
        df[arm == a] = parts.df[members].sum()
    if kind == "pooled":
        unit = _positive_part(unit)
    use = ~have if kind == "unbiased" else np.ones_like(have)
    unit, df = np.where(use[:, None, None], unit, parts.unit), np.where(use, df, parts.df)
    return _Means(unit * parts.share[:, None, None] + parts.extra, df, ~have)


def _positive_part(blocks: Array) -> Array:
    """Positive semi-definite matrices with the same variances; those that came out negative are zero.

    Correlations are clipped, not variances: what one variable's comes to must not depend on the others.
    """
    variance = np.clip(np.einsum("cpp->cp", blocks), 0.0, None)
    scale = np.sqrt(variance)
    safe = np.where(scale > 0, scale, 1.0)
    known = (scale[:, :, None] > 0) & (scale[:, None, :] > 0)
    correlation = np.where(known, blocks / (safe[:, :, None] * safe[:, None, :]), 0.0)
    values, vectors = np.linalg.eigh(correlation)
    clipped = np.einsum("cij,cj,ckj->cik", vectors, np.clip(values, 0.0, None), vectors)
    size = np.sqrt(np.einsum("cpp->cp", clipped))
    size = np.where(size > 0, size, 1.0)
    factor = scale / size
    out: Array = clipped * factor[:, :, None] * factor[:, None, :]
    return out


def _crossed_noise(
    within: Within, rows: _Means, load: Array, adjust: Array, kind: NoiseKind, factor: float
) -> SiteNoise:
    """Clusters in which the arm varies: each site's own CR2 where it exists, else components of variance."""
    m = within.moments
    code, lead = _arm_cells(within)
    parts = _cluster_noise(m.first, code, rows, adjust)
    common = _filled(parts, arm=np.zeros_like(lead), kind="pooled", what="cluster")
    between = (common.cov - parts.extra)[0] / parts.share[0]
    _, group = np.unique(m.cluster * m.n_sites + m.site, return_inverse=True)
    site = np.zeros(int(group.max()) + 1, dtype=np.int64)
    site[group] = m.site
    # What a cluster's shared part adds is its net load; contrasts inside the cluster cancel it.
    net = group_sum(load, group, len(site))
    pooled = group_sum(np.einsum("gd,ge,pq->gdpeq", net, net, between), site, m.n_sites)
    pooled += group_sum(np.einsum("cd,ce,cpq->cdpeq", load, load, rows.cov), m.site, m.n_sites)
    pooled *= factor
    df = np.full(m.n_sites, common.df[0])
    if kind == "pooled" or not equal_weights(within):
        return SiteNoise(frozen(pooled), frozen(df), 0 if kind == "pooled" else m.n_sites)
    # CR2 acts on every variable; turn its columns into outcome and mediators net of covariates.
    own = clustered_covariance(within, within.slopes, adjust=True)
    own = np.einsum("kdpeq,pa,qb->kdaeb", own, adjust, adjust)
    none = ~np.isfinite(own).all(axis=(1, 2, 3, 4))
    clusters = np.bincount(site, minlength=m.n_sites)
    left = clusters - np.bincount(m.intercept_site, minlength=m.n_sites) - within.rank
    df = np.where(none, df, np.maximum(left, 1))
    cov = np.where(none[:, None, None, None, None], pooled, own)
    return SiteNoise(frozen(cov), frozen(df), int(none.sum()))


def _dose_noise(within: Within, kind: NoiseKind, adjust: Array) -> SiteNoise:
    """A dose: the site's own residual covariance (rows of equal variance), pooled where it has none."""
    m = within.moments
    if m.clusters:
        raise MomentsInsufficient(
            "The noise in site effects of a continuous treatment with clusters is not a function of the moments. Use "
            "'2sls' with cov_type='cluster' or 'site', or leave the cluster out of the design."
        )
    inside = np.einsum("pa,kpq,qb->kab", adjust, within.total - within.between, adjust)
    left = (
        np.bincount(m.site, m.n, m.n_sites) - np.bincount(m.intercept_site, minlength=m.n_sites) - within.rank
    )
    total = float(left.sum()) - len(m.design.covariates)
    if total <= 0:
        raise DataError("No residual degrees of freedom are left to estimate the noise in the site effects.")
    pooled = inside.sum(axis=0) / total
    none = (left < 2) | (kind == "pooled")
    unit = np.where(none[:, None, None], pooled, inside / np.where(none, 1.0, left)[:, None, None])
    cov = np.einsum("kde,kpq->kdpeq", within.omega_inverse, unit)
    return SiteNoise(frozen(cov), frozen(np.where(none, total, left)), int(((left < 2) & none).sum()))
