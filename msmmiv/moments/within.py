"""Within-intercept geometry of the moments: every estimator is built on these few arrays.

Write ``u = (v, d)`` for the variables ``v`` (outcome, mediators, covariates) followed by the treatment
contrasts ``d`` (one indicator per arm other than the control, or the dose), all measured from the mean
of their block (or site). Per site the Gram matrix of ``u`` holds

    omega = d'd,   cross = d'v,   total = v'v,

and two-stage least squares, ordinary least squares, first stages and their classical covariances are
functions of these. Cells add the scores that robust covariances need.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from msmmiv.linalg import Array, Codes, gram_pinv, group_products, group_sum, sealed
from msmmiv.moments.cells import Moments

__all__ = ["Within", "within_sites"]


@dataclass(frozen=True, eq=False)
class Within:
    """Cells and sites in deviations from their intercepts.

    Attributes
    ----------
    moments : Moments
        The moments it was made from (usable sites only).
    n_variables : int
        Number p of variables v: outcome, mediators, covariates.
    n_contrasts : int
        Number D of treatment contrasts: arms - 1, or 1 for a dose.
    deviation : (C, p + D) array
        Mean of u in each cell, from the block's mean.
    squared_deviation : (C, p + D) array
        The same for means taken with squared weights.
    scatter : (C, p + D, p + D) array
        Scatter of u inside each cell.
    gram : (K, p + D, p + D) array
        Gram matrix of u in each site.
    origin : (B, p + D) array
        Mean of u in each block (or site).
    weight : (B,) array
        Sum of weights in each block (or site).
    """

    moments: Moments
    n_variables: int
    n_contrasts: int
    deviation: Array
    squared_deviation: Array
    scatter: Array
    gram: Array
    origin: Array
    weight: Array

    @property
    def omega(self) -> Array:
        """(K, D, D): cross-products of the treatment contrasts; n p (1 - p) for two arms."""
        p = self.n_variables
        return self.gram[:, p:, p:]

    @property
    def cross(self) -> Array:
        """(K, D, p): cross-products of contrasts and variables."""
        p = self.n_variables
        return self.gram[:, p:, :p]

    @property
    def total(self) -> Array:
        """(K, p, p): within-intercept cross-products of the variables."""
        p = self.n_variables
        return self.gram[:, :p, :p]

    @cached_property
    def _inverse(self) -> tuple[Array, Codes]:
        pinv, rank = gram_pinv(self.omega)
        return sealed(pinv), rank

    @property
    def omega_inverse(self) -> Array:
        """(K, D, D): pseudo-inverse of omega (sites may lack arms)."""
        return self._inverse[0]

    @cached_property
    def identified(self) -> npt.NDArray[np.bool_]:
        """(K, D): whether the arm can be compared with the control there (a site may lack either)."""
        share = np.einsum("kde,ked->kd", self.omega_inverse, self.omega)
        out: npt.NDArray[np.bool_] = share > 1.0 - 1e-9
        return out

    @property
    def rank(self) -> Codes:
        """(K,): number of instruments each site contributes."""
        return self._inverse[1]

    @cached_property
    def slopes(self) -> Array:
        """(K, D, p): within-site regressions of the variables on the contrasts, no covariates."""
        return sealed(self.omega_inverse @ self.cross)

    @cached_property
    def between(self) -> Array:
        """(K, p, p): the part of `total` that the contrasts explain."""
        return sealed(np.einsum("kdp,kdq->kpq", self.slopes, self.cross))

    @cached_property
    def overall(self) -> Array:
        """(p,): sums of squares of the variables around their overall means."""
        p = self.n_variables
        mean = np.average(self.origin[:, :p], axis=0, weights=self.weight)
        spread = (self.weight[:, None] * (self.origin[:, :p] - mean) ** 2).sum(axis=0)
        inside: Array = np.einsum("kpp->p", self.total)
        return sealed(inside + spread)


def within_sites(moments: Moments) -> Within:
    """Deviations from block means (site means where no block is declared) and Gram matrices per site.

    Examples
    --------
    >>> import msmmiv as mm
    >>> w = within_sites(mm.data.star())
    >>> w.omega.shape, w.total.shape
    ((79, 1, 1), (79, 2, 2))
    """
    moments = moments.usable()
    first, where = moments.first, moments.intercept
    blocks = first.merged(where, moments.n_blocks)
    mean, squared, scatter = first.mean, moments.squared.mean, first.scatter
    origin = blocks.mean
    if moments.arms:
        arm = (moments.arm[:, None] == np.arange(1, len(moments.arms))).astype(float)
        share = group_sum(first.weight[:, None] * arm, where, moments.n_blocks) / blocks.weight[:, None]
        mean, squared = np.hstack([mean, arm]), np.hstack([squared, arm])
        origin = np.hstack([origin, share])
        wider = np.zeros((len(mean), mean.shape[1], mean.shape[1]))
        p = scatter.shape[1]
        wider[:, :p, :p] = scatter
        scatter = wider
    contrasts = max(len(moments.arms) - 1, 1)
    deviation = mean - origin[where]
    gram = group_products(first.weight, deviation, moments.site, moments.n_sites, inside=scatter)
    return Within(
        moments=moments,
        n_variables=mean.shape[1] - contrasts,
        n_contrasts=contrasts,
        deviation=sealed(deviation),
        squared_deviation=sealed(squared - origin[where]),
        scatter=sealed(scatter),
        gram=sealed(gram),
        origin=sealed(origin),
        weight=blocks.weight,
    )
