"""A chain of two mediators: what the first does by itself, what the second does, and the first's total effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.audit.dag_meaning import chain_conditions
from msmmiv.diagnose.heterogeneity import Heterogeneity, heterogeneity
from msmmiv.errors import (
    DataError,
    DesignError,
    MomentsInsufficient,
    MsmmivError,
    RankDeficientError,
    TooFewSitesError,
    check_choice,
    listing,
)
from msmmiv.estimate import estimating_equations
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.tests import NotApplicable
from msmmiv.inference.weak_iv_sites import SiteRatios, fieller_sets
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["Cascade", "CascadeEstimator", "cascade"]

#: Estimators whose equations with fewer mediators are some of their equations with all: then the parts add up.
CascadeEstimator: TypeAlias = Literal["2sls", "mbtsls", "ujive"]

T = TypeVar("T")

_QUANTITIES = ("direct", "second", "theta", "indirect", "total")


@dataclass(frozen=True, eq=False)
class Cascade:
    """The effects in a chain treatment -> first -> second; ``str`` gives the page, `to_frame` the numbers.

    Attributes
    ----------
    first, second, treatment, outcome : str
    others : tuple of str
        Further mediators in the model, held fixed throughout.
    estimator : str
    n_sites : int
    level : float
    estimates : (5,) array
        Direct effect of the first mediator, effect of the second, theta (what one unit of the first does to the
        second, on average), indirect effect theta times the effect of the second, and total effect of the first. NaN
        with a ``status``.
    covariance : (5, 5) array
        Joint, sites as a sample: leave-one-site-out (CR3).
    df : (5,) array
        Degrees of freedom of each standard error.
    sets : tuple of (ConfidenceSet or NotApplicable)
        From the scores of the sites; the indirect effect's from its standard error.
    site_thetas : SiteRatios or NotApplicable
        theta_s = compliance of the second over that of the first in every site (and arm), with Fieller sets.
    variation : Heterogeneity or NotApplicable
        Whether theta_s differs between sites: if it does not, the two mediators cannot be told apart (viii).
    conditions : tuple of str
        What the reading rests on beyond (i) to (viii), in the names of the study.
    status : str or None
        Why direct effect and effect of the second are missing, if they are.
    notes : tuple of str
    """

    first: str
    second: str
    treatment: str
    outcome: str
    others: tuple[str, ...]
    estimator: str
    n_sites: int
    level: float
    estimates: Array
    covariance: Array
    df: Array
    sets: tuple[ConfidenceSet | NotApplicable, ...]
    site_thetas: SiteRatios | NotApplicable
    variation: Heterogeneity | NotApplicable
    conditions: tuple[str, ...]
    status: str | None
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The five quantities in words."""
        a, b = self.first, self.second
        return (
            f"direct effect of {a} (past {b})", f"effect of {b}", f"theta: effect of {a} on {b}",
            f"indirect effect of {a} through {b}", f"total effect of {a}",
        )  # fmt: skip

    @property
    def std_errors(self) -> Array:
        """(5,) standard errors."""
        return np.sqrt(np.diag(self.covariance))

    def to_frame(self) -> pd.DataFrame:
        """One row per quantity: ``quantity, label, estimate, std_error, df, conf_low, conf_high, set``.

        Limits are the hull of the set, which may be two rays or the whole line; ``set`` prints it.
        """
        hull = [s.hull if isinstance(s, ConfidenceSet) else (np.nan, np.nan) for s in self.sets]
        return pd.DataFrame({
            "quantity": _QUANTITIES, "label": self.labels, "estimate": self.estimates, "std_error": self.std_errors,
            "df": self.df, "conf_low": [h[0] for h in hull], "conf_high": [h[1] for h in hull],
            "set": [str(s) for s in self.sets],
        })  # fmt: skip

    def __str__(self) -> str:
        head = f"{self.treatment} -> {self.first} -> {self.second}, outcome {self.outcome}"
        lines = [f"{head}; {self.estimator}, {self.n_sites} sites"]
        width = max(map(len, self.labels))
        for label, b, se, found in zip(self.labels, self.estimates, self.std_errors, self.sets, strict=True):
            why = found.reason if isinstance(found, NotApplicable) else ""
            shown = "no set, as said below" if why and why == self.status else found
            lines.append(f"{label:<{width}}  {b:9.4g} (se {se:.3g})  {shown}")
        lines += [self.status] if self.status else []
        v = self.variation
        q = v.q if isinstance(v, Heterogeneity) else f"not applicable ({v.reason})"
        lines += [f"theta the same in all sites? {q}", *self.notes, "This rests on:"]
        return "\n".join([*lines, *(f"  {text}" for text in self.conditions)])


def cascade(
    source: Moments | SiteEffects,
    *,
    first: str,
    second: str,
    estimator: CascadeEstimator = "2sls",
    level: float = 0.95,
) -> Cascade:
    """Effects in a chain where the treatment moves one mediator only through another.

    Use it where parallel mediators (v) are not credible and the chain is known, as in Moving to Opportunity: the
    offer moves the use of a voucher, and neighbourhood poverty only through its use. The regression is the one with
    both mediators; what changes is what its coefficients mean.

    Parameters
    ----------
    source : Moments or SiteEffects
    first, second : str
        Mediators of the design; the treatment is supposed to move the second through the first only.
    estimator : {"2sls", "mbtsls", "ujive"}
        Site effects alone serve 2SLS.
    level : float

    Returns
    -------
    Cascade

    Raises
    ------
    DesignError
        A name that is no mediator, or the same one twice.
    MomentsInsufficient
        An estimator that needs moments, asked of site effects.

    Notes
    -----
    A person's itt is Gamma Delta_1 + Gamma Theta Delta_2 (Reardon and Raudenbush 2013, Figure 2), so that
    ``itt_s = delta_1 gamma_1s + delta_2 gamma_2s`` with gamma_2s = E_s[Gamma Theta], and
    ``theta_s = gamma_2s / gamma_1s`` is the mean of Theta over people counted by how far the treatment moves them.
    Theta is the same regression with the second mediator as the outcome, and the total effect the one with the first
    mediator alone. All three solve ``sum_s H_s (1, -b')' = 0`` with parts of the same H_s, hence exactly

        total = direct + theta * second.

    Standard errors are the spread of leave-one-site-out estimates, for all five together; they are what
    ``fit(..., cov_type="site", small_sample="CR3")`` gives for its coefficients. Sets invert score tests, which hold
    when compliances are weak (`SiteEquations.score_set`).

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.audit.cascade import cascade
    >>> effects = mm.SiteEffects.from_moments(mm.data.star("math_two_mediators"), cov_type="pooled")
    >>> found = cascade(effects, first="class_size", second="tch_exp")
    >>> found.to_frame()["quantity"].tolist()
    ['direct', 'second', 'theta', 'indirect', 'total']
    """
    check_choice(estimator, CascadeEstimator, "estimator")
    if not 0.0 < level < 1.0:
        raise DataError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    effects = _effects(source)
    mediators = effects.mediators
    for name in (first, second):
        if name not in mediators:
            raise DesignError(f"{name!r} is not one of the mediators {listing(mediators, quote=True)}.")
    if first == second:
        raise DesignError(f"A chain has two mediators; {first!r} is named twice.")
    others = tuple(m for m in mediators if m not in (first, second))
    treatment = source.design.treatment if isinstance(source, Moments) else "treatment"
    equations = _equations(source, effects, estimator)
    got = _quantities(equations, first, second, level)
    link = _chain_link(effects, first, second)
    variation = _attempt("theta the same in all sites", lambda: heterogeneity(link, level=level))
    return Cascade(
        first=first, second=second, treatment=treatment, outcome=effects.outcome, others=others, estimator=estimator,
        n_sites=equations.groups, level=level, estimates=got.estimates, covariance=got.covariance, df=got.df,
        sets=got.sets, site_thetas=_attempt("theta by site", lambda: fieller_sets(link, level=level)),
        variation=variation, status=got.status, notes=_notes(effects, first, second, others, variation, level),
        conditions=chain_conditions(first, second, treatment=treatment, outcome=effects.outcome, only=True),
    )  # fmt: skip


def _effects(source: Moments | SiteEffects) -> SiteEffects:
    """Site effects with a covariance in every site; clusters are heeded."""
    given: object = source
    if isinstance(given, SiteEffects):
        return given
    if not isinstance(given, Moments):
        raise DesignError(f"cascade() needs Moments or SiteEffects, not {type(given).__name__}.")
    return SiteEffects.from_moments(given, cov_type="pooled" if given.clusters else "unbiased")


def _chain_link(effects: SiteEffects, first: str, second: str) -> SiteEffects:
    """The second mediator as the outcome of the first."""
    pick = [1 + effects.mediators.index(m) for m in (second, first)]
    return replace(
        effects, outcome=second, mediators=(first,), estimates=frozen(effects.estimates[:, :, pick]),
        cov=frozen(effects.cov[:, :, pick][:, :, :, :, pick]),
    )  # fmt: skip


def _equations(
    source: Moments | SiteEffects, effects: SiteEffects, estimator: CascadeEstimator
) -> SiteEquations:
    if isinstance(source, SiteEffects):
        if estimator != "2sls":
            raise MomentsInsufficient(
                f"{estimator!r} needs the variance inside sites, which site effects do not hold. Give moments, or "
                "use '2sls'."
            )
        return _site_blocks(effects)
    try:
        return estimating_equations(source, estimator)
    except RankDeficientError:
        if estimator != "2sls" or source.design.covariates:
            raise
        return _site_blocks(effects)


def _site_blocks(effects: SiteEffects) -> SiteEquations:
    """H_s = g_s' Omega_s (b_s, g_s), the equations of 2SLS; arms that a site lacks add nothing."""
    present: npt.NDArray[np.bool_] = np.asarray(np.isfinite(effects.estimates).all(axis=2), dtype=np.bool_)
    used: npt.NDArray[np.bool_] = np.asarray(present.any(axis=1), dtype=np.bool_)
    values = np.where(present[:, :, None], effects.estimates, 0.0)[used]
    both = present[:, :, None] & present[:, None, :]
    weight = np.where(both, effects.precision, 0.0)[used]
    blocks = np.einsum("kdp,kde,keq->kpq", values[:, :, 1:], weight, values)
    return SiteEquations(blocks, effects.mediators)


@dataclass(frozen=True, eq=False)
class _Found:
    """What the equations give."""

    estimates: Array
    covariance: Array
    df: Array
    sets: tuple[ConfidenceSet | NotApplicable, ...]
    status: str | None


def _part(equations: SiteEquations, outcome: int, keep: list[int]) -> SiteEquations:
    """The equations of some terms, with column ``outcome`` of the blocks as the outcome."""
    columns = [outcome, *(1 + j for j in keep)]
    noise = equations.noise
    return SiteEquations(
        equations.blocks[:, keep][:, :, columns],
        tuple(equations.terms[j] for j in keep),
        leverage=None if equations.leverage is None else equations.leverage[:, keep][:, :, keep],
        noise=None if noise is None else noise[:, keep][:, :, keep][:, :, :, columns][:, :, :, :, columns],
    )


def _quantities(equations: SiteEquations, first: str, second: str, level: float) -> _Found:
    """Five estimates with their joint leave-one-out covariance."""
    two = equations.terms.index(second)
    rest = [j for j in range(len(equations.terms)) if j != two]
    asked = [
        (equations, first), (equations, second), (_part(equations, 1 + two, rest), first),
        (_part(equations, 0, rest), first),
    ]  # fmt: skip
    got = [_Term.of(eq, term, level) for eq, term in asked]
    values = np.array([t.value for t in got])
    without = np.column_stack([t.without for t in got])
    df = np.array([t.df for t in got])
    # Indirect before total, as the columns of the table stand.
    values = np.insert(values, 3, values[2] * values[1])
    without = np.insert(without, 3, without[:, 2] * without[:, 1], axis=1)
    df = np.insert(df, 3, min(df[1], df[2]))
    away = without - values
    covariance = away.T @ away
    indirect = _t_set(float(values[3]), float(covariance[3, 3]), float(df[3]), level)
    sets = (got[0].found, got[1].found, got[2].found, indirect, got[3].found)
    status = next((t.status for t in got if t.status), None)
    if status is None and not np.isfinite(covariance).all():
        status = (
            f"Some effect rests on one of the {equations.groups} sites alone: without it the others do not determine "
            "it, so it has no standard error."
        )
    return _Found(frozen(values), frozen(covariance), frozen(df), sets, status)


@dataclass(frozen=True, eq=False)
class _Term:
    """One coefficient of one set of equations."""

    value: float
    without: Array
    df: float
    found: ConfidenceSet | NotApplicable
    status: str | None

    @classmethod
    def of(cls, equations: SiteEquations, term: str, level: float) -> _Term:
        j = equations.terms.index(term)
        nothing = np.full(equations.groups, np.nan)
        try:
            value = float(equations.coefficients[j])
        except RankDeficientError as error:
            return cls(np.nan, nothing, np.nan, NotApplicable("score set", str(error)), str(error))
        try:
            df = float(equations.sandwich("CR3").df[j])
            # Blocks of UJIVE need not be positive: no working model gives Satterthwaite's degrees of freedom then.
            df = df if np.isfinite(df) else float(equations.groups - len(equations.terms))
            found = equations.score_set(term, level=level)
        except TooFewSitesError as error:
            return cls(value, nothing, np.nan, NotApplicable("score set", str(error)), str(error))
        return cls(value, equations.jackknife()[:, j], df, found, None)


def _t_set(value: float, variance: float, df: float, level: float) -> ConfidenceSet | NotApplicable:
    from scipy.special import stdtrit

    name = "leave-one-site-out t"
    if not np.isfinite([value, variance]).all() or not df > 0:
        return NotApplicable(name, "there is no standard error")
    half = float(stdtrit(df, (1.0 + level) / 2.0)) * variance**0.5
    return ConfidenceSet(((value - half, value + half),), level, name, "indirect")


def _attempt(name: str, compute: Callable[[], T]) -> T | NotApplicable:
    """What can be computed, or the reason why it cannot."""
    try:
        return compute()
    except MsmmivError as error:
        return NotApplicable(name, str(error))


def _notes(
    effects: SiteEffects, first: str, second: str, others: tuple[str, ...],
    variation: Heterogeneity | NotApplicable, level: float,
) -> tuple[str, ...]:  # fmt: skip
    out = []
    if isinstance(variation, Heterogeneity) and variation.q.pvalue > 1.0 - level:
        out.append(
            f"The sites are within sampling error of one theta. Then {first} and {second} cannot be told apart (viii), "
            "whatever the standard errors say; the total effect does not need them to be. See mm.rank."
        )
    if others:
        out.append(
            f"Held fixed throughout: {listing(others)}. The treatment moves {second} through none of them."
        )
    if effects.cov_type == "published":
        out.append(
            f"The table does not say how the sampling errors of the compliances of {first} and {second} go together; "
            "they are taken as uncorrelated in theta by site and in the test that theta is the same."
        )
    return tuple(out)
