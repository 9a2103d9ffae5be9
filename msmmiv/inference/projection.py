"""Projection: the measure that two-stage least squares puts on first-stage slopes, and the noise in it.

Slopes on the site-by-treatment instruments count with the cross-products of those instruments, net of what is
exogenous: covariates, and the treatment itself where a direct effect is free. With ``Omega`` block diagonal over
sites, ``C`` the cross-products of instruments and exogenous regressors and ``G`` those of the latter,

    Q = Omega - C G^-1 C',

so that ``pi' Q pi`` are the explained cross-products of the mediators. Everything is linear in the number of sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msmmiv.inference.critical_values import NoiseLaw
from msmmiv.linalg import Array, frozen, gram_pinv, gram_root

__all__ = ["Projection"]


@dataclass(frozen=True, eq=False)
class Projection:
    """Cross-products of instruments net of exogenous regressors, kept as sites' blocks.

    Attributes
    ----------
    omega : (K, D, D) array
        Cross-products of the treatment contrasts in each site.
    cross : (K, D, r) array
        Cross-products of contrasts and exogenous regressors.
    exogenous : (K, r, r) array
        Cross-products of exogenous regressors in each site.

    Examples
    --------
    >>> omega = np.full((2, 1, 1), 5.0)
    >>> Projection(omega, omega, omega).explained(np.array([[[1.0]], [[3.0]]])).tolist()
    [[10.0]]
    """

    omega: Array
    cross: Array
    exogenous: Array

    @cached_property
    def gram_inverse(self) -> Array:
        """(r, r) inverse cross-products of the exogenous regressors."""
        return frozen(gram_pinv(self.exogenous.sum(axis=0)[None])[0][0])

    def product(self, left: Array, right: Array) -> Array:
        """``left' Q right`` for two sets of slopes.

        Parameters
        ----------
        left, right : (..., K, D, P) arrays

        Returns
        -------
        (..., P, P) array
        """
        out = np.einsum("...kdp,...kdq->...pq", left, self.omega @ right, optimize=True)
        if self.cross.shape[2]:
            one, two = (np.einsum("kdr,...kdp->...rp", self.cross, x, optimize=True) for x in (left, right))
            out = out - np.swapaxes(one, -1, -2) @ self.gram_inverse @ two
        return np.asarray(out, dtype=np.float64)

    def explained(self, slopes: Array) -> Array:
        """(..., P, P) cross-products of the mediators that the excluded instruments explain.

        Parameters
        ----------
        slopes : (..., K, D, P) array
        """
        out = self.product(slopes, slopes)
        return np.asarray((out + np.swapaxes(out, -1, -2)) / 2.0, dtype=np.float64)

    def contributions(self, slopes: Array) -> Array:
        """(K, P, P) parts of `explained`, one per site: cross-products of its people's fitted mediators."""
        load = self.gram_inverse @ np.einsum("kdr,kdp->rp", self.cross, slopes)
        across = np.einsum("kdp,kdr,rq->kpq", slopes, self.cross, load)
        out: Array = (
            np.einsum("kdp,kde,keq->kpq", slopes, self.omega, slopes)
            - across
            - across.transpose(0, 2, 1)
            + np.einsum("rp,krs,sq->kpq", load, self.exogenous, load)
        )
        return out

    def noise(self, blocks: Array) -> Array:
        """(P, P) expected cross-products of sampling errors.

        Parameters
        ----------
        blocks : (K, D, P, D, P) array
            Sampling covariance of the slopes in each site.
        """
        inside = self.omega - np.einsum("kdr,rs,kes->kde", self.cross, self.gram_inverse, self.cross)
        out: Array = np.einsum("kde,kdpeq->pq", inside, blocks)
        return (out + out.T) / 2.0

    def law(self, blocks: Array, *, free: Array | None = None) -> NoiseLaw:
        """Law of ``e' Q e`` for errors of one combination of mediators: what decides how far noise alone can go.

        Parameters
        ----------
        blocks : (K, D, D) array
            Sampling covariance of the slopes of that combination.
        free : (K, D, c) array, optional
            Further directions that are partialled out: slopes of the other combinations.
        """
        inverse, _ = gram_pinv(self.omega)
        root, back = gram_root(self.omega), gram_root(inverse)
        values, vectors = np.linalg.eigh(self.gram_inverse)
        factor = back @ self.cross @ (vectors * np.sqrt(np.clip(values, 0.0, None)))
        if free is not None and free.shape[2]:
            load = self.gram_inverse @ np.einsum("kdr,kdc->rc", self.cross, free)
            more = root @ free - back @ self.cross @ load
            scaled = gram_root(gram_pinv(self.explained(free)[None])[0])[0]
            factor = np.concatenate([factor, more @ scaled], axis=2)
        # Unbiased covariances need not be positive in every site; a law needs eigenvalues that are.
        half = gram_root(root @ blocks @ root)
        noise = half @ half
        powers = [noise, noise @ noise, noise @ noise @ noise]
        traces = [float(np.einsum("kdd->", a)) for a in powers]
        first, second, third = (np.einsum("kda,kde,keb->ab", factor, a, factor) for a in powers)
        return NoiseLaw(
            trace=traces[0] - float(np.trace(first)),
            squares=traces[1] - 2.0 * float(np.trace(second)) + float(np.trace(first @ first)),
            cubes=traces[2]
            - 3.0 * float(np.trace(third))
            + 3.0 * float(np.trace(second @ first))
            - float(np.trace(first @ first @ first)),
            top=float(np.linalg.eigvalsh(noise)[:, -1].max()),
        )
