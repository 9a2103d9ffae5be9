"""Linear estimators of the mediator effects: one system of cross-products, one number kappa.

With instruments and regressors in deviations from the intercepts, every member of the k-class solves

    ((1 - kappa) R'R + kappa R'P R) b = (1 - kappa) R'y + kappa R'P y,

where R holds mediators, direct effects and covariates and P projects on the site-by-treatment instruments
and the covariates: kappa = 0 is least squares, kappa = 1 two-stage least squares.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from msmmiv.errors import (
    CollinearCovariateWarning,
    DataError,
    DesignError,
    RankDeficientError,
    TooFewSitesError,
    count,
    listing,
)
from msmmiv.inference.covariance import Scores
from msmmiv.linalg import Array, dependent_columns, gram_solve
from msmmiv.moments.within import Within

__all__ = ["KClass", "Solution", "System", "build_system"]


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


@dataclass(frozen=True, eq=False)
class Solution:
    """Coefficients with what every covariance needs."""

    coefficients: Array
    scores: Scores
    rss: float


@dataclass(frozen=True)
class KClass:
    """A k-class estimator; the registry holds ``ols`` and ``2sls``."""

    name: str
    kappa: float

    def solve(self, system: System) -> Solution:
        """Coefficients, bread and score forms.

        Raises
        ------
        RankDeficientError
            When the regressors are not independent after projection.
        """
        k = len(system.terms)
        mixed = (1.0 - self.kappa) * system.total + self.kappa * system.projected
        _check_rank(system, mixed, self.name)
        solved = gram_solve(mixed[1:, 1:], np.column_stack([mixed[1:, 0], np.eye(k)]))
        b, bread = solved[:, 0], solved[:, 1:]
        bread = (bread + bread.T) / 2.0
        direction = np.concatenate([[1.0], -b])
        rss = float(direction @ system.total @ direction)
        return Solution(b, self.scores(system, b, bread), max(rss, 0.0))

    def scores(self, system: System, b: Array, bread: Array) -> Scores:
        """Linear forms of regressors and residuals at coefficients ``b``."""
        within, p, d, m = system.within, system.within.n_variables, system.n_direct, system.n_mediators
        k, sites = len(system.terms), len(within.gram)
        loading = np.zeros((sites, p + within.n_contrasts, k))
        for j in range(m):
            loading[:, 1 + j, j] = 1.0 - self.kappa
            loading[:, p:, j] = self.kappa * system.site_slopes[:, :, 1 + j]
            for i, x in enumerate(system.covariates):
                loading[:, x, j] = self.kappa * system.covariate_slopes[i, 1 + j]
        for j in range(d):
            loading[:, p + j, m + j] = 1.0
        for i, x in enumerate(system.covariates):
            loading[:, x, m + d + i] = 1.0
        residual = np.zeros((sites, p + within.n_contrasts))
        residual[:, 0] = 1.0
        residual[:, 1 : 1 + m] = -b[:m]
        residual[:, p : p + d] = -b[m : m + d]
        residual[:, list(system.covariates)] = -b[m + d :]
        return Scores(loading, residual, bread)


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


def _check_rank(system: System, mixed: Array, name: str) -> None:
    m, k = system.n_mediators, len(system.terms)
    order = [*range(m + 1, k + 1), *range(1, m + 1)]
    size = np.diag(system.total)[order]
    bad = [system.terms[order[i] - 1] for i in dependent_columns(mixed[np.ix_(order, order)], size)]
    if not bad:
        return
    same = dependent_columns(system.total[np.ix_(order, order)], size)
    if same or name == "ols":
        raise RankDeficientError(
            f"Inside sites {listing(bad, quote=True)} is a linear combination of the other mediators and covariates: "
            "assumption (viii) fails. Keep one of them."
        )
    raise RankDeficientError(
        f"Across the {system.within.moments.n_sites} sites the treatment moves {listing(bad, quote=True)} in exact "
        "proportion to the other mediators"
        + (" and the direct effect" if system.n_direct else "")
        + ", so their effects cannot be told apart: assumption (viii) fails. Leave it out, or see rank()."
    )
