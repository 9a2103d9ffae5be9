"""Samples in which itt is a plane in compliances: what tests of that plane are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msmmiv.estimate.site_moments import estimated, site_rows
from msmmiv.linalg import Array, Codes, frozen, gram_root
from msmmiv.moments.effects import SiteEffects

__all__ = ["NullSurface", "SurfaceRows", "plane_scatter", "shrunken", "surface_rows"]

#: Numbers held at once while trials are simulated.
_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class SurfaceRows:
    """Sites and arms that have estimates.

    Attributes
    ----------
    values : (R, 1 + P) array
        itt, then compliances.
    cov : (R, 1 + P, 1 + P) array
        Their joint sampling covariance.
    site : (R,) array of int
        Sites that have rows, coded 0, 1, ...
    joint : (S, D, 1 + P, D, 1 + P) array
        Sampling covariance of all arms of each of these sites; zero where an arm is missing.
    have : (S, D) array of bool
        Whether a site has a row for an arm.
    """

    values: Array
    cov: Array
    site: Codes
    joint: Array
    have: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

    @property
    def n_sites(self) -> int:
        """Independent units."""
        return len(self.have)

    @property
    def shared(self) -> bool:
        """Whether some site has several rows."""
        return self.n_sites < len(self.values)


def surface_rows(effects: SiteEffects) -> SurfaceRows:
    """Rows of a test of the surface, with the covariance of the arms of each site.

    Raises
    ------
    MomentsInsufficient
        A site has estimates but no sampling covariance.
    TooFewSitesError
        No site has estimates.
    """
    found, have = site_rows(effects), estimated(effects)
    some = have.any(axis=1)
    both = have[:, :, None, None, None] & have[:, None, None, :, None]
    return SurfaceRows(
        values=found.values,
        cov=found.cov,
        site=np.unique(found.site, return_inverse=True)[1].astype(np.int64),
        joint=frozen(np.where(both, effects.cov, 0.0)[some]),
        have=have[some],
    )


def shrunken(values: Array, cov: Array) -> tuple[Array, Array]:
    """Posterior means (R, P) and covariances (R, P, P) of true compliances under a normal prior.

    Notes
    -----
    The prior has the mean of the estimates and the covariance Cov(g^) - mean V, its negative eigenvalues set to zero.
    Posterior mean plus posterior noise is as dispersed as the true compliances are, and follows their skewness as far
    as the estimates are reliable; the estimates themselves are too dispersed by V.
    """
    mean = values.mean(axis=0)
    away = values - mean
    noise = cov.mean(axis=0)
    prior = away.T @ away / max(len(values) - 1, 1) - noise
    size = np.sqrt(np.maximum(np.diag(noise), np.finfo(float).tiny))
    unit = np.outer(size, size)
    lengths, vectors = np.linalg.eigh((prior + prior.T) / 2.0 / unit)
    prior = (vectors * np.maximum(lengths, 0.0)) @ vectors.T * unit
    total = prior + cov
    share = np.swapaxes(_solved(total, np.broadcast_to(prior, total.shape)), -1, -2)
    left = prior - share @ prior
    return mean + np.einsum("rpq,rq->rp", share, away), (left + np.swapaxes(left, -1, -2)) / 2.0


def _solved(total: Array, right: Array) -> Array:
    """total^-1 right; where compliances have neither noise nor spread in some direction, zero there."""
    size = np.sqrt(np.einsum("rpp->rp", total))
    unit = np.where(size > 0, size, 1.0)
    scale = unit[:, :, None] * unit[:, None, :]
    if (np.linalg.eigvalsh(total / scale)[:, 0] > 1e-12).all():
        return np.asarray(np.linalg.solve(total, right))
    return np.asarray(np.linalg.pinv(total / scale, rcond=1e-12, hermitian=True) / scale @ right)


def plane_scatter(residual: Array, variance: Array, lost: int) -> float:
    """Variance of itt around the plane beyond sampling error, zero at least: sum(e^2 - V_ee) / (R - lost)."""
    excess = float((residual**2 - variance).sum())
    return max(excess / max(len(residual) - lost, 1), 0.0)


@dataclass(frozen=True, eq=False)
class NullSurface:
    """Trials with the sites, errors and plane of the one at hand, in which the plane is the truth.

    Attributes
    ----------
    rows : SurfaceRows
    intercept : float
        Average direct effect.
    slopes : (P,) array
        Mediator effects.
    scatter : float
        Variance of itt around the plane, averaged over rows: g'Omega g, with Omega in proportion to (E gg')^-1.
    """

    rows: SurfaceRows
    intercept: float
    slopes: Array
    scatter: float

    def parts(self, draws: int, terms: int) -> list[int]:
        """So many trials in parts that memory holds at once, for a fit of so many terms."""
        once = int(np.clip(_AT_ONCE // (len(self.rows.values) * terms**2), 1, draws))
        return [min(once, draws - start) for start in range(0, draws, once)]

    def draw(
        self, rng: np.random.Generator, draws: int, violation: Callable[[Array], Array] | None = None
    ) -> Array:
        """(B, R, 1 + P) estimates of trials; ``violation`` of true compliances (B, R, P) is added to itt.

        Notes
        -----
        True compliances are posterior mean plus posterior noise (`shrunken`), errors are normal with the known joint
        covariance of each site.
        """
        rows = self.rows
        centre, left = shrunken(rows.values[:, 1:], rows.cov[:, 1:, 1:])
        root = _root(left)
        g = centre + np.einsum("rpq,brq->brp", root, rng.standard_normal((draws, *centre.shape)))
        y = self.intercept + g @ self.slopes
        if self.scatter:
            gram = np.einsum("rp,rq->pq", centre, centre) + left.sum(axis=0)
            size = ((g @ np.linalg.pinv(gram, hermitian=True)) * g).sum(axis=-1)
            share = self.scatter * len(centre) / g.shape[-1]
            y += np.sqrt(np.maximum(share * size, 0.0)) * rng.standard_normal(y.shape)
        if violation is not None:
            y += violation(g)
        return np.concatenate([y[..., None], g], axis=-1) + self._errors(rng, draws)

    def _errors(self, rng: np.random.Generator, draws: int) -> Array:
        """(B, R, 1 + P) sampling errors, correlated between the arms of a site."""
        s, d, size, *_ = self.rows.joint.shape
        root = _root(self.rows.joint.reshape(s, d * size, d * size))
        error = np.einsum("sij,bsj->bsi", root, rng.standard_normal((draws, s, d * size)))
        out: Array = error.reshape(draws, s, d, size)[:, self.rows.have]
        return out


def _root(cov: Array) -> Array:
    """Roots L with L L' = cov, for draws that change with the units of the columns and with nothing else."""
    size = np.sqrt(np.maximum(np.einsum("kii->ki", cov), 0.0))
    scale = np.where(size > 0, size, 1.0)
    return np.asarray(scale[:, :, None] * gram_root(cov / (scale[:, :, None] * scale[:, None, :])))
