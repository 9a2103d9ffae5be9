"""Linear estimators of the mediator effects: one system of cross-products, one number kappa.

With instruments and regressors in deviations from the intercepts, every member of the k-class solves

    ((1 - kappa) R'R + kappa R'P R) b = (1 - kappa) R'y + kappa R'P y,

where R holds mediators, direct effects and covariates and P projects on the site-by-treatment instruments
and the covariates: kappa = 0 is least squares, kappa = 1 two-stage least squares. With kappa = 1 + lambda / nu
this subtracts lambda times the residual covariance from what the instruments explain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from msmmiv.errors import ChoiceError, RankDeficientError, listing
from msmmiv.estimate.system import System
from msmmiv.inference.covariance import Scores
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.site_equations import site_equations
from msmmiv.linalg import Array, dependent_columns, frozen, gram_solve, schur

__all__ = ["Fuller", "KClass", "Liml", "Mbtsls", "Solution", "eliminated", "scores_at", "solve_mixed"]


@dataclass(frozen=True, eq=False)
class Solution:
    """Coefficients with what every covariance needs.

    Attributes
    ----------
    coefficients : (k,) array
        NaN when there is a status.
    bread : (k, k) array
        Inverse of the matrix of the estimating equations.
    scores : Scores or None
        Linear forms for covariances over rows and clusters; None where the equations are not sums over rows.
    system : System
    kappa : float
    noise : (K, 1 + P, 1 + P) array or None
        What was subtracted in each site, beyond the k-class.
    rss : float
        Residual sum of squares.
    status : str or None
        Why there is no estimate.
    score_noise : (K, b, b, 1 + b, 1 + b) array or None
        Sampling variance of the b = ``n_between`` scores of a site, as a quadratic form in (1, -b').
    """

    coefficients: Array
    bread: Array
    scores: Scores | None
    system: System
    kappa: float
    noise: Array | None
    rss: float
    status: str | None = None
    score_noise: Array | None = None

    @property
    def n_between(self) -> int:
        """Mediators and direct effects; they come first among the terms."""
        return self.system.n_mediators + self.system.n_direct

    @cached_property
    def equations(self) -> SiteEquations:
        """The estimating equations of all terms, site by site."""
        return _equations(self.system, self.kappa, self.noise)

    @cached_property
    def between(self) -> SiteEquations:
        """Equations of mediators and direct effects: covariates are estimated inside sites, not between them."""
        return replace(eliminated(self.equations, self.n_between), noise=self.score_noise)


@dataclass(frozen=True)
class KClass:
    """A member of the k-class with a fixed kappa: least squares (0) and two-stage least squares (1)."""

    name: str
    kappa: float

    def solve(self, system: System) -> Solution:
        """Coefficients, bread and score forms.

        Raises
        ------
        RankDeficientError
            When the regressors are not independent after projection.
        """
        return _solve_kappa(system, self.kappa, self.name)


@dataclass(frozen=True)
class Liml:
    """Limited-information maximum likelihood: nearly median-unbiased when every site shares one effect.

    kappa = 1 + lambda / nu with lambda the smallest eigenvalue of explained against residual covariance
    (Anderson & Rubin 1949). When effects differ between sites it can converge outside their range
    (Kolesar 2013): prefer "ujive" then.
    """

    @property
    def name(self) -> str:
        """Name in the table of estimators."""
        return "liml"

    def solve(self, system: System) -> Solution:
        """Coefficients, bread and score forms."""
        return _solve_kappa(system, _liml_kappa(system), self.name)


@dataclass(frozen=True)
class Fuller:
    """Fuller's (1977) modification of LIML, which has moments: a = 1 is nearly unbiased, a = 4 has least error.

    Parameters
    ----------
    a : float
        Subtracted from LIML's smallest root; not negative.

    Raises
    ------
    ChoiceError
        A negative or infinite ``a``.

    Examples
    --------
    >>> import msmmiv as mm
    >>> moments = mm.data.star().cluster_means()
    >>> [round(float(mm.fit(moments, mm.Fuller(a), cov_type="classical").params.iloc[0]), 3) for a in (0.0, 1.0, 4.0)]
    [-1.15, -1.15, -1.148]
    """

    a: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.a) and self.a >= 0):
            raise ChoiceError(f"Fuller(a) needs a finite a that is not negative; got {self.a!r}.")

    @property
    def name(self) -> str:
        """Name in the table of covariances."""
        return "fuller"

    @property
    def label(self) -> str:
        """Name in results."""
        return f"fuller({self.a:g})"

    def solve(self, system: System) -> Solution:
        """Coefficients, bread and score forms."""
        return _solve_kappa(system, _liml_kappa(system) - self.a / system.df_within, self.name)


@dataclass(frozen=True)
class Mbtsls:
    """Two-stage least squares with its bias removed, under one residual covariance for all rows.

    kappa = 1 + L / nu: what L irrelevant instruments would explain is subtracted (Kolesar, Chetty, Friedman,
    Glaeser & Imbens 2015; Anatolyev 2013). Keeps the estimand of 2SLS when effects differ between sites.
    """

    @property
    def name(self) -> str:
        """Name in the table of estimators."""
        return "mbtsls"

    def solve(self, system: System) -> Solution:
        """Coefficients, bread and score forms; a status where the matrix is not positive definite."""
        return _solve_kappa(system, 1.0 + system.n_excluded / system.df_within, self.name)


def _liml_kappa(system: System) -> float:
    return 1.0 + system.reduced_form.min_root() / system.df_within


def _solve_kappa(system: System, kappa: float, name: str) -> Solution:
    mixed = (1.0 - kappa) * system.total + kappa * system.projected
    return solve_mixed(system, mixed, name, kappa=kappa)


def solve_mixed(
    system: System, mixed: Array, name: str, *, kappa: float, noise: Array | None = None
) -> Solution:
    """Solve for the coefficients once the cross-products are mixed.

    Parameters
    ----------
    system : System
    mixed : (1 + k, 1 + k) array
        Matrix of the estimating equations, outcome first.
    name : str
    kappa : float
    noise : (K, 1 + P, 1 + P) array, optional
        What was subtracted in each site, beyond the k-class.
    """
    k = len(system.terms)
    corrected = kappa > 1.0 or noise is not None
    _check_rank(system, system.projected if corrected else mixed, name)
    if corrected and not _positive_definite(system, mixed):
        nothing = np.full((k, k), np.nan)
        gone = float("nan")
        return Solution(frozen(nothing[0]), frozen(nothing), None, system, kappa, noise, gone, NOT_POSITIVE)
    solved = gram_solve(mixed[1:, 1:], np.column_stack([mixed[1:, 0], np.eye(k)]))
    b, bread = solved[:, 0], solved[:, 1:]
    bread = (bread + bread.T) / 2.0
    direction = np.concatenate([[1.0], -b])
    rss = max(float(direction @ system.total @ direction), 0.0)
    forms = None if noise is not None else scores_at(system, kappa, b, bread)
    return Solution(frozen(b), frozen(bread), forms, system, kappa, noise, rss)


#: Status of an estimator whose error-corrected matrix has lost its sign.
NOT_POSITIVE = (
    "the bias-corrected denominator is not positive definite: the instruments explain no more of the mediators than "
    "noise would. There is no point estimate; confidence sets that do not divide by it are still valid"
)


def _positive_definite(system: System, mixed: Array) -> bool:
    """Whether the mediators, net of the exogenous regressors, keep a positive definite matrix."""
    m = system.n_mediators
    own = list(range(1, 1 + m))
    rest = list(range(1 + m, len(mixed)))
    left, size = schur(mixed, own, rest), np.sqrt(np.diag(schur(system.total, own, rest)))
    return bool(np.linalg.eigvalsh(left / np.outer(size, size))[0] > 1e-12)


def _equations(system: System, kappa: float, noise: Array | None) -> SiteEquations:
    """Estimating equations of each site, linear in the coefficients, less the noise of a site."""
    k = len(system.terms)
    forms = scores_at(system, kappa, np.zeros(k), np.zeros((k, k)))
    plain = site_equations(system.within, forms, system.selected, terms=system.terms)
    if noise is None:
        return plain
    m = system.n_mediators
    blocks = plain.blocks.copy()
    blocks[:, :m, : 1 + m] -= noise[:, 1:, :]
    return SiteEquations(frozen(blocks), system.terms)


def eliminated(equations: SiteEquations, size: int) -> SiteEquations:
    """The first ``size`` equations with the other coefficients at their solution for every value of these."""
    blocks, k = equations.blocks, len(equations.terms)
    if size == k:
        return equations
    total = blocks.sum(axis=0)
    inner = total[size:, 1 + size :]
    solved = np.linalg.solve(inner, np.column_stack([total[size:, 0], -total[size:, 1 : 1 + size]]))
    linear = np.concatenate([blocks[:, :, :1], -blocks[:, :, 1 : 1 + size]], axis=2)
    linear -= blocks[:, :, 1 + size :] @ solved
    linear = linear[:, :size] - total[:size, 1 + size :] @ np.linalg.solve(inner, linear[:, size:])
    linear[:, :, 1:] *= -1.0
    return SiteEquations(frozen(linear), equations.terms[:size])


def scores_at(system: System, kappa: float, b: Array, bread: Array) -> Scores:
    """Linear forms of the k-class regressors, and of the residuals at coefficients ``b``."""
    within, p, d, m = system.within, system.within.n_variables, system.n_direct, system.n_mediators
    k, sites = len(system.terms), len(within.gram)
    loading = np.zeros((sites, p + within.n_contrasts, k))
    for j in range(m):
        loading[:, 1 + j, j] = 1.0 - kappa
        loading[:, p:, j] = kappa * system.site_slopes[:, :, 1 + j]
        for i, x in enumerate(system.covariates):
            loading[:, x, j] = kappa * system.covariate_slopes[i, 1 + j]
    for j in range(d):
        loading[:, p + j, m + j] = 1.0
    for i, x in enumerate(system.covariates):
        loading[:, x, m + d + i] = 1.0
    residual = np.zeros((sites, p + within.n_contrasts))
    residual[:, system.selected] = np.concatenate([[1.0], -b])
    return Scores(loading, residual, bread)


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
