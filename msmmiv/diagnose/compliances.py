"""Compliances: first-stage slopes of all mediators, how 2SLS weights them, and how noisy they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from msmmiv.design import Label
from msmmiv.errors import DataError, MomentsInsufficient, TooFewSitesError, count, listing
from msmmiv.estimate.system import System
from msmmiv.inference.projection import Projection
from msmmiv.linalg import Array, frozen, gram_pinv
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.noise import NoiseKind, site_noise

__all__ = ["Compliances"]


@dataclass(frozen=True, eq=False)
class Compliances:
    """What the treatment does to every mediator in every site, with sampling covariances.

    Attributes
    ----------
    sites, contrasts, mediators : tuple
    slopes : (K, D, P) array
        Zero where a site lacks the arm.
    present : (K, D) array
        One where the site has the arm and a control.
    cov : (K, D, P, D, P) array
        Joint sampling covariance in each site.
    df : (K, P) array
        Degrees of freedom behind the variances; infinite where they count as known.
    projection : Projection
        The measure of 2SLS, a free direct effect included.
    direct_effect : bool
    noise : str
        How ``cov`` was computed.
    borrowed : int
        Cells whose variance came from the other cells, because they hold one row (cluster).
    rank : int
        Instruments, those that serve the direct effect included.
    unknown : str
        Why ``cov`` is not known (then NaN); empty when it is.
    """

    sites: tuple[Label, ...]
    contrasts: tuple[Label, ...]
    mediators: tuple[str, ...]
    slopes: Array
    present: Array
    cov: Array
    df: Array
    projection: Projection
    direct_effect: bool
    noise: str
    borrowed: int
    rank: int
    unknown: str = ""

    @classmethod
    def from_system(cls, system: System) -> Compliances:
        """From moments; noise of people, or of clusters (one variance for all sites) where those are declared."""
        m, p = system.within.moments, system.n_mediators
        kind: NoiseKind = "pooled" if m.clusters else "unbiased"
        own = slice(1, 1 + p)
        cov, df, borrowed, unknown = _noise(system, kind)
        return cls(
            sites=m.sites,
            contrasts=m.arms[1:] if m.arms else ("",),
            mediators=m.design.mediators,
            slopes=frozen(system.site_slopes[:, :, own]),
            present=frozen(system.within.identified),
            cov=frozen(cov),
            df=frozen(df),
            projection=_projection(system),
            direct_effect=bool(system.n_direct),
            noise=kind,
            borrowed=borrowed,
            rank=system.n_instruments,
            unknown=unknown,
        )

    @classmethod
    def from_effects(cls, effects: SiteEffects, *, direct_effect: bool) -> Compliances:
        """From site effects alone.

        Raises
        ------
        TooFewSitesError
            Fewer usable sites than mediators (and a direct effect).
        MomentsInsufficient
            A site without a sampling covariance.
        """
        g = effects.estimates[:, :, 1:]
        present: npt.NDArray[np.bool_] = np.asarray(np.isfinite(g).all(axis=2), dtype=np.bool_)
        kept: npt.NDArray[np.bool_] = np.asarray(present.any(axis=1), dtype=np.bool_)
        p, d = len(effects.mediators), len(effects.contrasts)
        if int(present.sum()) < p + d * direct_effect or int(kept.sum()) < p + direct_effect:
            raise TooFewSitesError(
                f"{count(int(kept.sum()), 'usable site')} cannot identify {count(p, 'mediator')}"
                + (" and a direct effect" if direct_effect else "")
                + ": assumption (viii.b). Leave out mediators or add sites."
            )
        both = present[:, :, None, None, None] & present[:, None, None, :, None]
        cov = effects.cov[:, :, 1:, :, 1:]
        unknown = np.isnan(np.where(both, cov, 0.0)).reshape(len(kept), -1).sum(axis=1)
        names = [s for s, bad in zip(effects.sites, unknown, strict=True) if bad]
        if names:
            raise MomentsInsufficient(
                f"Sites {listing(names)} have no sampling covariance ({effects.cov_type}). Use "
                "SiteEffects.from_moments(moments, cov_type='unbiased'), which has one in every site, or the moments."
            )
        omega = np.where(present[:, :, None] & present[:, None, :], effects.precision, 0.0)[kept]
        slopes, shown = np.where(present[:, :, None], g, 0.0)[kept], present[kept]
        cross = omega[:, :, : d * direct_effect]
        return cls(
            sites=tuple(s for s, k in zip(effects.sites, kept, strict=True) if k),
            contrasts=effects.contrasts,
            mediators=effects.mediators,
            slopes=frozen(slopes),
            present=frozen(shown),
            cov=frozen(np.where(both, cov, 0.0)[kept]),
            df=frozen(np.repeat(effects.df[kept, None], p, axis=1)),
            projection=Projection(frozen(omega), frozen(cross), frozen(cross[:, : d * direct_effect])),
            direct_effect=direct_effect,
            noise=effects.cov_type,
            borrowed=0,
            rank=int(present.sum()),
        )

    @property
    def n_mediators(self) -> int:
        """P."""
        return len(self.mediators)

    @property
    def n_instruments(self) -> int:
        """Excluded instruments L."""
        return self.rank - len(self.contrasts) * self.direct_effect

    @property
    def pooled_df(self) -> float:
        """Degrees of freedom behind variances that all sites share; infinite where each site has its own.

        Errors in sites' own variances nearly average out over sites: what they add to the law of a sum makes up for
        what they add to its unit. Those in one shared variance do not.
        """
        return float(np.median(self.df)) if self.noise == "pooled" else float("inf")

    @cached_property
    def explained(self) -> Array:
        """(P, P) cross-products of the mediators that the excluded instruments explain."""
        return frozen(self.projection.explained(self.slopes))

    @cached_property
    def expected_noise(self) -> Array:
        """(P, P) part of `explained` that sampling error alone is expected to give."""
        return frozen(self.projection.noise(self.cov))

    @cached_property
    def free(self) -> Array:
        """(K, D, c) directions that direct effects take; c is zero without one."""
        omega = self.projection.omega
        out = gram_pinv(omega)[0] @ omega
        return frozen(out[:, :, : len(self.contrasts) * self.direct_effect])

    def as_effects(self, mediator: int) -> SiteEffects:
        """One mediator in the place of the outcome, the others as mediators."""
        order = [mediator, *(j for j in range(self.n_mediators) if j != mediator)]
        names = [self.mediators[j] for j in order]
        here = self.present[:, :, None].astype(bool)
        both = here[:, :, :, None, None] & here[:, None, None, :, :]
        return SiteEffects(
            sites=self.sites,
            contrasts=self.contrasts,
            mediators=tuple(names[1:]),
            outcome=names[0],
            estimates=frozen(np.where(here, self.slopes[:, :, order], np.nan)),
            cov=frozen(np.where(both, self.cov[:, :, order][:, :, :, :, order], np.nan)),
            precision=self.projection.omega,
            n=frozen(np.full(len(self.sites), np.nan)),
            cov_type=self.noise,
            df=frozen(self.df[:, mediator]),
        )

    def with_direct_effect(self, *, free: bool) -> Compliances:
        """The same slopes with the treatment's own effect partialled out, or not."""
        if free == self.direct_effect:
            return self
        d, at = len(self.contrasts), self.projection
        if free:
            top = np.concatenate([at.omega, at.cross], axis=2)
            below = np.concatenate([at.cross.transpose(0, 2, 1), at.exogenous], axis=2)
            wider = Projection(at.omega, frozen(top), frozen(np.concatenate([top, below], axis=1)))
        else:
            wider = Projection(at.omega, frozen(at.cross[:, :, d:]), frozen(at.exogenous[:, d:, d:]))
        return replace(self, projection=wider, direct_effect=free)


def _noise(system: System, kind: NoiseKind) -> tuple[Array, Array, int, str]:
    """Sampling covariance of the mediators' slopes, its degrees of freedom, cells that borrow, or why it is unknown."""
    p = system.n_mediators
    k, d = system.site_slopes.shape[:2]
    try:
        found = site_noise(system.within, kind, adjust=system.adjustment[:, 1:])
        # Degrees of freedom differ between mediators: each is asked for alone.
        alone = [site_noise(system.within, kind, adjust=system.adjustment[:, [j]]) for j in range(1, 1 + p)]
    except (DataError, MomentsInsufficient) as error:
        return np.full((k, d, p, d, p), np.nan), np.full((k, p), np.nan), 0, str(error)
    return found.cov, np.column_stack([n.df for n in alone]), found.borrowed, ""


def _projection(system: System) -> Projection:
    """Exogenous regressors: direct effects (the contrasts themselves), then covariates."""
    within, x = system.within, list(system.covariates)
    d = system.n_direct
    cross = np.concatenate([within.omega[:, :, :d], within.cross[:, :, x]], axis=2)
    covariates = within.total[:, x][:, :, x]
    shared = within.cross[:, :d, x]
    exogenous = np.concatenate(
        [
            np.concatenate([within.omega[:, :d, :d], shared], axis=2),
            np.concatenate([shared.transpose(0, 2, 1), covariates], axis=2),
        ],
        axis=1,
    )
    return Projection(frozen(within.omega), frozen(cross), frozen(exogenous))
