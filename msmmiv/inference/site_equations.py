"""The estimating equations of a linear estimator, gathered by site or cluster from the cells."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from msmmiv.inference.cluster_robust import cluster_grams
from msmmiv.inference.covariance import Scores
from msmmiv.inference.equations import SiteEquations
from msmmiv.linalg import Codes, frozen
from msmmiv.moments.within import Within

__all__ = ["site_equations"]


def site_equations(
    within: Within,
    scores: Scores,
    positions: Iterable[int],
    *,
    terms: tuple[str, ...],
    codes: Codes | None = None,
) -> SiteEquations:
    """Blocks of an estimator with regressors ``z = loading' u`` and structural variables among u.

    Parameters
    ----------
    within : Within
    scores : Scores
    positions : iterable of int
        Columns of u: the outcome, then the variable of each coefficient.
    terms : tuple of str
    codes : (C,) array of int, optional
        Cluster of each cell; default the sites.

    Returns
    -------
    SiteEquations
        ``H_g = loading' (cross-products of u in g)[:, positions]``, with the cross-products of z as leverage.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.inference.covariance import Scores
    >>> from msmmiv.moments.within import within_sites
    >>> w = within_sites(mm.data.star())
    >>> z = np.zeros((79, 3, 1))
    >>> z[:, 2, 0] = w.slopes[:, 0, 1]
    >>> eq = site_equations(w, Scores(z, z[:, :, 0], np.eye(1)), [0, 1], terms=("class_size",))
    >>> eq.coefficients.round(5).tolist()
    [-1.11376]
    """
    where = list(positions)
    pick = np.zeros((*scores.loading.shape[:2], len(where)))
    pick[:, where, np.arange(len(where))] = 1.0
    group = np.unique(within.moments.site if codes is None else codes, return_inverse=True)[1]
    forms = np.concatenate([pick, scores.loading], axis=2)
    out = cluster_grams(within, scores.loading, forms, group)
    return SiteEquations(frozen(out[:, :, : len(where)]), terms, frozen(out[:, :, len(where) :]))
