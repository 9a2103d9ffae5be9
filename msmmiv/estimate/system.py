"""The linear system behind every estimator: cross-products within intercepts, and of their projections."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msmmiv.errors import (
    CollinearCovariateWarning,
    DataError,
    DesignError,
    TooFewSitesError,
    count,
    listing,
)
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.linalg import Array, dependent_columns, frozen, gram_solve, schur
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.noise import SiteNoise, site_noise
from msmmiv.moments.within import Within

__all__ = ["System", "build_system"]


@dataclass(frozen=True, eq=False)
class System:
    """Cross-products of (outcome, mediators, direct effects, covariates) within intercepts.

    Attributes
    ----------
    within : Within
    terms : tuple of str
        Names of the k regressors: mediators, direct effects, covariates.
    covariates : tuple of int
        Positions of the covariates kept, among the variables.
    n_direct : int
        Number of direct-effect terms.
    total, projected : (1 + k, 1 + k) arrays
        Cross-products, and those of the projections on instruments and covariates; the outcome first.
    site_slopes : (K, D, p) array
        Slopes of every variable on the instruments, covariates partialled out.
    covariate_slopes : (q, p) array
        Slopes of every variable on the covariates, instruments partialled out.
    """

    within: Within
    terms: tuple[str, ...]
    covariates: tuple[int, ...]
    n_direct: int
    total: Array
    projected: Array
    site_slopes: Array
    covariate_slopes: Array

    @property
    def n_mediators(self) -> int:
        """P."""
        return len(self.within.moments.design.mediators)

    @property
    def n_instruments(self) -> int:
        """Site-by-treatment instruments, those that serve the direct effect included."""
        return int(self.within.rank.sum())

    @property
    def nobs(self) -> float:
        """Rows (copies, with frequency weights)."""
        return float(self.within.moments.n.sum())

    @property
    def n_coefficients(self) -> int:
        """Slopes and absorbed intercepts."""
        return len(self.terms) + self.within.moments.n_blocks

    @property
    def n_excluded(self) -> int:
        """Excluded instruments L."""
        return self.n_instruments - self.n_direct

    @property
    def df_within(self) -> float:
        """Residual degrees of freedom of the first stages."""
        m = self.within.moments
        return self.nobs - m.n_blocks - len(self.covariates) - self.n_instruments

    @property
    def selected(self) -> list[int]:
        """Positions, among u = (v, d), of the outcome and the regressors."""
        p = self.within.n_variables
        direct = range(p, p + self.n_direct)
        return [*range(1 + self.n_mediators), *direct, *self.covariates]

    @cached_property
    def reduced_form(self) -> ReducedForm:
        """Explained and residual cross-products of outcome and mediators, the rest partialled out."""
        size = 1 + self.n_mediators
        own, rest = list(range(size)), list(range(size, len(self.total)))
        inside = (self.total - self.projected)[:size, :size]
        between = schur(self.projected, own, rest)
        # What exogenous regressors (or arms) explain to the last digit leaves rounding, of either sign.
        nothing = np.diag(between) <= 1e-14 * np.diag(self.projected)[:size]
        between[nothing] = between[:, nothing] = 0.0
        flat = np.diag(inside) <= 1e-14 * np.diag(self.total)[:size]
        inside[flat] = inside[:, flat] = 0.0
        return ReducedForm(
            between=between,
            within=inside / self.df_within,
            n_instruments=self.n_excluded,
            df=self.df_within,
            mediators=self.within.moments.design.mediators,
        )

    @cached_property
    def adjustment(self) -> Array:
        """(p, 1 + P): columns that turn the variables into outcome and mediators net of covariates."""
        size = 1 + self.n_mediators
        out = np.eye(self.within.n_variables)[:, :size]
        out[list(self.covariates)] -= self.covariate_slopes[:, :size]
        return frozen(out)

    @cached_property
    def noise(self) -> SiteNoise:
        """Sampling covariance of the site effects net of covariates, each site's own where it has one."""
        return site_noise(self.within, "unbiased", adjust=self.adjustment)

    @cached_property
    def site_effects(self) -> SiteEffects:
        """Site effects with that noise, for estimators that see nothing else."""
        return SiteEffects.from_moments(self.within.moments, cov_type="unbiased")

    @cached_property
    def own_weight(self) -> Array:
        """(K, D, D): weight of a site's own noise in the projected cross-products.

        Omega_s, less what a free direct effect takes: Omega_s (sum Omega)^-1 Omega_s.
        """
        omega = self.within.omega
        if not self.n_direct:
            return frozen(omega)
        inverse = np.linalg.pinv(omega.sum(axis=0), hermitian=True)
        return frozen(omega - omega @ inverse @ omega)


def build_system(within: Within, *, direct_effect: bool) -> System:
    """Cross-products of the system, after checking that there are enough sites and distinct columns.

    Raises
    ------
    TooFewSitesError
        Fewer usable sites than mediators (and direct effects).
    DataError
        A constant mediator or outcome, or no residual degrees of freedom.
    """
    design = within.moments.design
    m = len(design.mediators)
    d = within.n_contrasts if direct_effect else 0
    _check_sites(within, m, d)
    total, between = within.total.sum(axis=0), within.between.sum(axis=0)
    inside = total - between
    overall = within.overall
    _check_constant(within, total, overall)
    x = _kept_covariates(within, total, inside, overall)
    beta = gram_solve(inside[np.ix_(x, x)], inside[x]) if x else np.zeros((0, within.n_variables))
    explained = between + inside[:, x] @ beta
    slopes = within.slopes - within.slopes[:, :, x] @ beta
    omega, cross = within.omega.sum(axis=0), within.cross.sum(axis=0)
    v = [0, *range(1, 1 + m), *x]
    order = [*range(1 + m), *range(len(v), len(v) + d), *range(1 + m, len(v))]
    grams = []
    for gram in (total, explained):
        full = np.block([[gram[np.ix_(v, v)], cross[:d, v].T], [cross[:d, v], omega[:d, :d]]])
        grams.append(full[np.ix_(order, order)])
    arms = within.moments.arms
    direct = [f"direct_effect[{a}]" for a in arms[1:]] if len(arms) > 2 else ["direct_effect"]
    names = (*design.mediators, *direct[:d], *(design.variables[i] for i in x))
    system = System(within, names, tuple(x), d, grams[0], grams[1], slopes, beta)
    left = system.nobs - system.n_coefficients
    if left <= 0 or system.nobs - within.moments.n_blocks - len(x) - system.n_instruments <= 0:
        raise DataError(
            f"{system.nobs:,.0f} rows cannot carry {within.moments.n_blocks:,} intercepts, {len(names)} slopes and "
            f"{system.n_instruments:,} instruments: no degrees of freedom are left. Use larger sites or fewer blocks."
        )
    return system


def _check_sites(within: Within, m: int, d: int) -> None:
    sites = within.moments.n_sites
    if sites < m + bool(d) or int(within.rank.sum()) < m + d:
        dropped = [x.site for x in within.moments.flow.dropped if x.site is not None]
        gone = f" ({listing(dropped)} dropped)" if dropped else ""
        plus = " and a direct effect" if d else ""
        raise TooFewSitesError(
            f"{count(sites, 'usable site')}{gone} cannot identify {count(m, 'mediator')}{plus}: assumption (viii.b) "
            f"needs at least {m + bool(d)}. Leave out mediators"
            + (", set direct_effect=False" if d else "")
            + " or add sites."
        )


def _check_constant(within: Within, total: Array, overall: Array) -> None:
    design = within.moments.design
    for j, name in enumerate((design.outcome, *design.mediators)):
        role = "outcome" if j == 0 else "mediator"
        if overall[j] <= 0 or overall[j] <= 1e-24 * float((within.weight * within.origin[:, j] ** 2).sum()):
            raise DataError(
                f"The {role} {name!r} is constant: it has one value in all rows. Check the column."
            )
        # Rounding is relative to the size of the values, not to how far sites lie apart.
        size = float((within.weight * within.origin[:, j] ** 2).sum())
        if total[j, j] <= 1e-26 * size:
            raise DataError(
                f"The {role} {name!r} is constant within every {'block' if within.moments.blocks else 'site'}: "
                "the treatment cannot have moved it. Check the column, or the level at which it is measured."
            )


def _kept_covariates(within: Within, total: Array, inside: Array, overall: Array) -> list[int]:
    design = within.moments.design
    first = 1 + len(design.mediators)
    x = list(range(first, first + len(design.covariates)))
    lost = [x[i] for i in dependent_columns(total[np.ix_(x, x)], overall[x])]
    if lost:
        names = [design.variables[i] for i in lost]
        warnings.warn(
            f"Left out {listing(names, quote=True)}: nothing beyond the intercepts and the other covariates.",
            CollinearCovariateWarning,
            stacklevel=4,
        )
    kept = [i for i in x if i not in lost]
    if bad := dependent_columns(inside[np.ix_(kept, kept)], total[kept, kept]):
        names = [design.variables[kept[i]] for i in bad]
        raise DesignError(
            f"Covariates {listing(names, quote=True)} do not vary inside site-by-arm cells beyond the others, "
            "so they are functions of the treatment. Covariates must be fixed before it; leave them out."
        )
    return kept
