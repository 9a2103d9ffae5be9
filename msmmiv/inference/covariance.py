"""Covariances of linear estimators whose scores are sums over cells.

An estimator solves ``sum_i z_i e_i = 0`` with regressors ``z_i = loading_s' u_i`` and residuals
``e_i = residual' u_i``, both linear in the within-intercept variables ``u`` of `Within`. The sandwich
``A^-1 (sum of score products) A^-1`` then needs

* per cluster or site: sums of scores, a function of cell means and scatters, always exact;
* per row (HC): sums of e^2 z z', exact from cells when z is constant in every cell (no covariates,
  arms, instrumented regressors), otherwise a second pass over the rows.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from msmmiv.errors import CrossingClusterWarning, MomentsInsufficient, TooFewSitesError, count
from msmmiv.inference.row_products import cell_scores, row_products
from msmmiv.linalg import Array, Codes, group_sum
from msmmiv.moments.cells import Moments
from msmmiv.moments.site_covariance import equal_weights
from msmmiv.moments.sums import Rows
from msmmiv.moments.within import Within

__all__ = [
    "HC_POWER",
    "CovType",
    "Scores",
    "SmallSample",
    "cluster_codes",
    "crossing_clusters",
    "lone_clusters",
    "require_clusters",
    "sandwich_meat",
    "small_sample_factor",
    "warn_crossing_clusters",
]

CovType: TypeAlias = Literal["classical", "HC0", "HC1", "HC2", "HC3", "HTE", "bekker", "cluster", "site"]
#: Power of 1 - leverage that divides squared residuals.
HC_POWER = {"HC0": 0, "HC1": 0, "HC2": 1, "HC3": 2}
SmallSample: TypeAlias = Literal["CR0", "CR1", "CR1S", "CR1N", "CR1P", "CR2", "CR3"]


@dataclass(frozen=True, eq=False)
class Scores:
    """The linear forms behind an estimator's estimating equations.

    Attributes
    ----------
    loading : (K, m, k) array
        Regressors z_i = loading[site]' u_i; u has m = p + D entries.
    residual : (K, m) array
        e_i = residual[site]' u_i; the part on the variables is the same in all sites.
    bread : (k, k) array
        Inverse of the cross-products of z.
    """

    loading: Array
    residual: Array
    bread: Array

    def constant_in_cells(self, within: Within) -> bool:
        """Whether the regressors do not vary inside cells."""
        p = within.n_variables
        return bool(within.moments.arms) and not np.any(self.loading[:, :p])

    def by_cell(self, within: Within) -> Array:
        """(C, k) sums of z_i e_i in each cell, exact."""
        return cell_scores(within, self.loading, self.residual[:, :, None])[:, :, 0]


def cluster_codes(within: Within, kind: Literal["cluster", "site"]) -> Codes:
    """Code of the cluster (or site) each cell belongs to.

    Raises
    ------
    MomentsInsufficient
        Clusters were asked for and the design declares none.
    """
    m = within.moments
    if kind == "site":
        return m.site
    require_clusters(m)
    return m.cluster


def require_clusters(moments: Moments) -> None:
    """Raise `MomentsInsufficient` unless the moments are those of clusters."""
    if not moments.clusters:
        raise MomentsInsufficient(
            "cov_type='cluster' needs a design with cluster=...; the moments were made without it. "
            "Declare it and make the moments again, or use cov_type='site'."
        )


def small_sample_factor(
    kind: SmallSample, *, groups: int, nobs: float, slopes: int, between: int, all_: int
) -> float:
    """Small-sample factor of a clustered covariance.

    Parameters
    ----------
    kind : {"CR0", "CR1", "CR1S", "CR1N", "CR1P"}
        G is the number of clusters, n of rows.
        CR0: 1. CR1: G/(G-1). CR1S: G/(G-1) (n-1)/(n-k) with every coefficient in k, absorbed intercepts too
        (Stata with dummies, linearmodels debiased, estimatr "stata"). For sites only, CR1N: the same, but the
        intercepts, nested in the sites, count as one (reghdfe, fixest); CR1P: G/(G-P), P the coefficients
        estimated between sites.
    groups : int
    nobs : float
    slopes, between, all_ : int
        Slope coefficients, those estimated between sites, and all coefficients with absorbed intercepts.

    Examples
    --------
    >>> round(small_sample_factor("CR1S", groups=12, nobs=6000, slopes=2, between=2, all_=14), 6)
    1.093278
    """
    if kind == "CR0":
        return 1.0
    if kind == "CR1P":
        return groups / (groups - between)
    factor = groups / (groups - 1)
    if kind == "CR1":
        return factor
    return factor * (nobs - 1) / (nobs - (slopes + 1 if kind == "CR1N" else all_))


def sandwich_meat(
    within: Within, scores: Scores, kind: CovType, *, rows: Rows | None = None
) -> tuple[Array, int]:
    """Sum of score products, without small-sample factors, and the number of clusters (0 for HC).

    HC2 and HC3 use leverages of the second-stage regressors and intercepts.

    Raises
    ------
    MomentsInsufficient
        The form needs rows and none are at hand.
    TooFewSitesError
        Fewer than two clusters.
    """
    if kind in ("cluster", "site"):
        codes = cluster_codes(within, "site" if kind == "site" else "cluster")
        groups = int(np.count_nonzero(np.bincount(codes)))
        if groups < 2:
            raise TooFewSitesError(f"cov_type={kind!r} needs at least two clusters; there is {groups}.")
        sums = group_sum(scores.by_cell(within), codes, int(codes.max()) + 1)
        return sums.T @ sums, groups
    power = HC_POWER[kind]
    if scores.constant_in_cells(within) and (not power or equal_weights(within)):
        return _meat_from_cells(within, scores, power), 0
    if rows is None:
        raise MomentsInsufficient(_why(within, scores, kind))
    forms = scores.loading, scores.residual[:, :, None]
    return row_products(within, *forms, bread=scores.bread, power=power, rows=rows)[0, 0], 0


def _why(within: Within, scores: Scores, kind: str) -> str:
    design = within.moments.design
    if design.covariates and np.any(scores.loading[:, : within.n_variables]):
        missing = "fourth moments of covariates and residuals, which cells do not hold"
    elif design.treatment_kind == "continuous":
        missing = "fourth moments of the dose and residuals, which cells do not hold"
    elif scores.constant_in_cells(within):
        missing = "each row's weight"
    else:
        missing = "fourth moments of regressors and residuals, which cells do not hold"
    cluster = "'cluster', " if within.moments.clusters else ""
    return (
        f"{kind} needs {missing}. Fit from the data (Study(data, design) makes a second pass over the rows), or use "
        f"cov_type={cluster}'site' or 'classical', which are exact from moments."
    )


def _meat_from_cells(within: Within, scores: Scores, power: int) -> Array:
    m = within.moments
    z = np.einsum("cmk,cm->ck", scores.loading[m.site], within.deviation)
    p = within.n_variables
    residual = scores.residual[m.site]
    e = np.einsum("cm,cm->c", within.squared_deviation, residual)
    inside = np.einsum("cp,cpq,cq->c", residual[:, :p], m.squared.scatter, residual[:, :p])
    squares = m.squared.weight * e**2 + inside
    if power:
        row_weight = np.ones_like(m.n) if m.squared is m.first else m.first.weight / m.n
        h = row_weight * (1.0 / within.weight[m.intercept] + np.einsum("ck,kl,cl->c", z, scores.bread, z))
        rest = 1.0 - h
        # A row that is alone in its block fits itself and has no residual: it adds nothing.
        squares = np.where(rest > 1e-12, squares / np.where(rest > 1e-12, rest, 1.0) ** power, 0.0)
    out: Array = np.einsum("c,ck,cl->kl", squares, z, z)
    return out


def crossing_clusters(moments: Moments) -> int:
    """Number of cluster labels that occur in more than one site."""
    if not moments.clusters:
        return 0
    pairs = np.unique(np.column_stack([moments.cluster, moments.site]), axis=0)
    return int((np.bincount(pairs[:, 0]) > 1).sum())


def lone_clusters(moments: Moments) -> int:
    """Number of site-by-arm cells that consist of a single cluster."""
    if not moments.clusters or not moments.arms:
        return 0
    cell = moments.intercept * len(moments.arms) + moments.arm
    pairs = np.unique(np.column_stack([cell, moments.cluster]), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] == 1).sum())


def warn_crossing_clusters(moments: Moments) -> None:
    """Warn where a cluster label occurs in more than one site."""
    crossing = crossing_clusters(moments)
    if crossing:
        warnings.warn(
            f"{count(crossing, 'label')} of {moments.design.cluster!r} found in more than one site, each taken as one "
            "cluster. If they are different clusters, make the labels unique (for example site and class).",
            CrossingClusterWarning,
            stacklevel=4,
        )
