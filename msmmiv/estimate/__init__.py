"""The table of estimators, and the functions that run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from msmmiv.errors import ChoiceError, DesignError, check_choice, listing
from msmmiv.estimate.corrected import BCLinear, BCSymmetric
from msmmiv.estimate.covariances import Spread, choose_correction, choose_covariance, covariance
from msmmiv.estimate.identification import identification
from msmmiv.estimate.kclass import Fuller, KClass, Liml, Mbtsls, Solution, eliminated
from msmmiv.estimate.recommend import recommend
from msmmiv.estimate.stages import first_stages, overidentification, wu_hausman
from msmmiv.estimate.system import System, build_system
from msmmiv.estimate.ujive import Ujive
from msmmiv.estimate.wording import estimand_text, notes_text, target_text
from msmmiv.inference.covariance import CovType, SmallSample, cluster_codes, warn_crossing_clusters
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.results import Estimate, Interval
from msmmiv.inference.site_equations import site_equations
from msmmiv.inference.stage import FirstStage
from msmmiv.inference.tests import NotApplicable, TestResult
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Moments
from msmmiv.moments.sums import Rows
from msmmiv.moments.within import within_sites

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Method",
    "estimating_equations",
    "exogeneity_test",
    "fit",
    "fit_all",
    "fit_by_rule",
    "system_of",
]

By: TypeAlias = Literal["site", "cluster"]
Method: TypeAlias = Literal["ols", "2sls", "liml", "mbtsls", "ujive", "bc_linear", "bc_symmetric"]
Corrector: TypeAlias = BCLinear | BCSymmetric
Estimator: TypeAlias = KClass | Liml | Fuller | Mbtsls | Ujive | Corrector

TWO_STAGE = KClass("2sls", 1.0)
ESTIMATORS: dict[str, Estimator] = {
    "ols": KClass("ols", 0.0),
    "2sls": TWO_STAGE,
    "liml": Liml(),
    "mbtsls": Mbtsls(),
    "ujive": Ujive(),
    "bc_linear": BCLinear(),
    "bc_symmetric": BCSymmetric(),
}


def fit(
    moments: Moments,
    estimator: Method | Estimator,
    *,
    cov_type: CovType | None = None,
    direct_effect: bool = False,
    small_sample: SmallSample | None = None,
    interval: Interval = "wald",
    rows: Rows | None = None,
) -> Estimate:
    """Estimate the effect of each mediator on the outcome from moments.

    ``2sls`` uses the treatment in each site as an instrument; it equals the regression of itt on
    compliance across sites through the origin, weighted by n p (1 - p). With ``direct_effect=True`` the
    line has an intercept: the effect of treatment that no mediator carries. ``ols`` is the within-site
    regression, for comparison. The others remove the bias of 2SLS toward it: ``liml`` (one effect for
    all sites), ``mbtsls`` (one residual covariance), ``ujive`` (neither is needed); ``bc_linear`` and
    ``bc_symmetric`` also average effects over sites without weighting by compliance.

    Parameters
    ----------
    moments : Moments
    estimator : str or estimator object
        "ols", "2sls", "liml", "mbtsls", "ujive", "bc_linear", "bc_symmetric", or an object with options such
        as `Fuller`. `Study.fit` can choose by rule.
    cov_type : str, optional
        "classical", "HC0" to "HC3", "HTE" (sites fixed, effects differ), "bekker" (many instruments, equal
        variances), "cluster" or "site". Default "cluster" if the design declares one, else "HC1"; for LIML,
        Fuller and MBTSLS "bekker"; for UJIVE and the BC estimators "site".
    direct_effect : bool
        Free a direct effect of treatment (Fu 2023) instead of assuming exclusion.
    small_sample : {"CR0", "CR1", "CR1S", "CR1N", "CR1P", "CR2", "CR3"}, optional
        Correction of clustered covariances; default "CR1S" for clusters and "CR1P" for sites.
    interval : {"wald", "score"}
        Where intervals and p-values come from: the standard error, or the scores of the sites (few sites, weak
        instruments; cov_type "site").
    rows : Rows, optional
        Open rows for covariances that need a second pass; `Study` supplies them.

    Returns
    -------
    Estimate
        With a ``status`` instead of coefficients where a bias-corrected denominator is not positive definite.

    Raises
    ------
    MomentsInsufficient
        The covariance is not a function of the moments and no rows are at hand.
    TooFewSitesError, RankDeficientError, DataError, DesignError, ChoiceError

    Notes
    -----
    Two-stage least squares: b = (sum_s w_s g_s g_s')^-1 sum_s w_s g_s b_s with compliances g_s, itt b_s
    and w_s = sum_i (T_i - Tbar_s)^2 (Reardon & Raudenbush 2013; the identity is Frisch-Waugh-Lovell).
    UJIVE replaces g_s g_s' and g_s b_s by estimates without sampling error (Kolesar 2013).

    Examples
    --------
    >>> import msmmiv as mm
    >>> f = mm.fit(mm.data.star(), "2sls")
    >>> round(float(f.params["class_size"]), 5), round(float(f.std_errors["class_size"]), 4)
    (-1.11376, 0.2723)
    """
    return fit_all(
        moments, [estimator], cov_type=cov_type, direct_effect=direct_effect, small_sample=small_sample,
        interval=interval, rows=rows,
    )[0]  # fmt: skip


def fit_all(
    moments: Moments,
    estimators: Sequence[Method | Estimator],
    *,
    cov_type: CovType | None = None,
    direct_effect: bool = False,
    small_sample: SmallSample | None = None,
    interval: Interval = "wald",
    rows: Rows | None = None,
) -> list[Estimate]:
    """Several estimators on one set of moments, sharing everything they have in common.

    Parameters
    ----------
    moments, estimators, cov_type, direct_effect, small_sample, interval, rows
        As in `fit`, for all of them.

    Examples
    --------
    >>> import msmmiv as mm
    >>> [round(float(f.params.iloc[0]), 3) for f in fit_all(mm.data.star(), ["2sls", "ujive"])]
    [-1.114, -1.183]
    """
    check_choice(interval, Interval, "interval")
    given: object = moments
    if not isinstance(given, Moments):
        raise DesignError(
            f"fit() needs Moments, not {type(given).__name__}. Site effects alone serve corrected_iv(), "
            "BCLinear().solve(), heterogeneity() and the weak-instrument tests."
        )
    if interval == "score" and small_sample is not None:
        raise ChoiceError("interval='score' has its own small-sample form; leave small_sample out.")
    chosen = [_estimator(e) for e in estimators]
    return _fits(
        system_of(moments, direct_effect=direct_effect), chosen, cov_type, small_sample, interval, rows
    )


def _fits(
    system: System, estimators: Sequence[Estimator], cov_type: CovType | None, small_sample: SmallSample | None,
    interval: Interval, rows: Rows | None,
) -> list[Estimate]:  # fmt: skip
    moments = system.within.moments
    shared: dict[tuple[CovType, SmallSample | None], _Shared] = {}
    out = []
    for estimator in estimators:
        kind = choose_covariance(moments, estimator.name, cov_type)
        correction = choose_correction(kind, small_sample, estimator.name)
        # First of all: whether the effects are identified, said in words. BC estimators rest on the same matrix.
        solution = (TWO_STAGE if isinstance(estimator, Corrector) else estimator).solve(system)
        if (kind, correction) not in shared:
            if kind == "cluster" and moments.clusters:
                warn_crossing_clusters(moments)
            shared[kind, correction] = _Shared.of(system, kind, correction, rows)
        common = shared[kind, correction]
        out.append(_run(system, estimator, solution, kind, correction, interval, common, rows))
    return out


def fit_by_rule(moments: Moments, *, direct_effect: bool = False, rows: Rows | None = None) -> Estimate:
    """The estimate that the rule of `recommend` chooses, with 2SLS beside it; `Study.fit` calls it."""
    system = system_of(moments, direct_effect=direct_effect)
    TWO_STAGE.solve(system)  # says in words when the effects are not identified
    chosen = recommend(system)
    others = [] if chosen.estimator == "2sls" else [TWO_STAGE]
    how = (chosen.cov_type, chosen.small_sample, chosen.interval)
    got, *beside = _fits(system, [ESTIMATORS[chosen.estimator], *others], *how, rows)
    return replace(got, rule=chosen.text, beside=tuple(beside))


def estimating_equations(
    moments: Moments, estimator: Method | Estimator, *, by: By = "site", direct_effect: bool = False
) -> SiteEquations:
    """The equations an estimator solves, by site or cluster, for `wild_test` and `wild_set`; no covariates in them.

    Parameters
    ----------
    moments, estimator
        As in `fit`.
    by : {"site", "cluster"}
        Sites as a sample, or clusters as a sample with the sites held fixed.
    direct_effect : bool

    Raises
    ------
    ChoiceError
        The estimator does not solve equations of that kind: BC estimators, and UJIVE by cluster.
    MomentsInsufficient
        By cluster without a declared cluster.

    Examples
    --------
    >>> import msmmiv as mm
    >>> rooms = mm.estimating_equations(mm.data.star(), "2sls", by="cluster")
    >>> rooms.groups, mm.wild_test(rooms, {"class_size": 0.0}, seed=1).pvalue < 0.001
    (325, True)
    """
    check_choice(by, By, "by")
    chosen, system = _estimator(estimator), system_of(moments, direct_effect=direct_effect)
    if isinstance(chosen, Corrector):
        raise ChoiceError(f"{chosen.name!r} does not solve one equation per site. Use 'ujive' or '2sls'.")
    solution = chosen.solve(system)
    if by == "site":
        return solution.between
    if solution.scores is None:
        why = solution.status or "UJIVE removes noise site by site"
        raise ChoiceError(f"No equations by cluster: {why}. Use '2sls', 'liml' or 'mbtsls', or by='site'.")
    codes = cluster_codes(system.within, "cluster")
    every = site_equations(system.within, solution.scores, system.selected, terms=system.terms, codes=codes)
    return eliminated(every, solution.n_between)


def system_of(moments: Moments, *, direct_effect: bool = False) -> System:
    """Cross-products behind all estimators, after the checks that belong to the design."""
    system = build_system(within_sites(moments), direct_effect=direct_effect)
    _check_late(system)
    return system


def exogeneity_test(
    moments: Moments,
    *,
    cov_type: CovType | None = None,
    direct_effect: bool = False,
    small_sample: SmallSample | None = None,
    rows: Rows | None = None,
) -> TestResult:
    """Durbin-Wu-Hausman F test of least squares against two-stage least squares; `Study.wu_hausman` calls it.

    Parameters
    ----------
    moments, cov_type, direct_effect, small_sample, rows
        As in `fit`; HC forms need the rows.

    Returns
    -------
    TestStatistic or NotApplicable
    """
    kind = choose_covariance(moments, "ols", cov_type)
    correction = choose_correction(kind, small_sample, "ols")
    system = build_system(within_sites(moments), direct_effect=direct_effect)
    classical, robust = wu_hausman(system, kind, correction, rows=rows)
    return classical if kind == "classical" else robust


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all estimators with one covariance have in common: first stages, reduced form, exogeneity."""

    stages: tuple[FirstStage, ...]
    exogeneity: tuple[TestResult, TestResult]

    @classmethod
    def of(cls, system: System, kind: CovType, correction: SmallSample | None, rows: Rows | None) -> _Shared:
        # The first stages are regressions with many coefficients of few rows each: they know the plain forms.
        kind = {"HTE": "HC1", "bekker": "classical"}.get(kind, kind)  # type: ignore[assignment]
        if correction in ("CR2", "CR3"):
            correction = "CR1S" if kind == "cluster" else "CR1P"
        if kind == "cluster" and correction is None:
            correction = "CR1S"
        # Without rows: a diagnostic nobody asked for must not cost a pass over the data.
        return cls(
            first_stages(system, kind, correction, rows=rows), wu_hausman(system, kind, correction, rows=None)
        )


def _estimator(given: Method | Estimator) -> Estimator:
    if isinstance(given, str):
        check_choice(given, Method, "estimator")
        return ESTIMATORS[given]
    if not isinstance(given, Estimator):
        raise ChoiceError(
            f"{given!r} is not an estimator: use {listing(ESTIMATORS, quote=True)}, or an object such as Fuller(1.0)."
        )
    return given


def _run(
    system: System, estimator: Estimator, solution: Solution, kind: CovType, correction: SmallSample | None,
    interval: Interval, shared: _Shared, rows: Rows | None,
) -> Estimate:  # fmt: skip
    name, m = estimator.name, system.within.moments
    if interval == "score" and (kind != "site" or isinstance(estimator, Corrector)):
        raise ChoiceError(
            f"interval='score' tests the scores of sites; it goes with cov_type='site' (here {kind!r}) and an "
            f"estimator that solves site equations (here {name!r})."
        )
    notes: tuple[str, ...] = ()
    equations: Callable[[], SiteEquations] | None = None
    why = f"it is computed for '2sls', 'liml' and Fuller; for {name!r} see Study.heterogeneity()"
    tests: tuple[TestResult, TestResult] = NotApplicable("Sargan", why), NotApplicable("Basmann", why)
    if isinstance(estimator, Corrector):
        terms, coefficients, spread, rss, status, notes = _corrected(system, estimator)
    else:
        terms, coefficients, rss, status = system.terms, solution.coefficients, solution.rss, solution.status
        spread = _spread(system, solution, kind, correction, name, rows)
        equations = partial(_between, solution)
        if name in ("2sls", "liml", "fuller"):
            tests = overidentification(system, solution)
        elif name == "ols":
            none = "least squares uses no instruments"
            tests = NotApplicable("Sargan", none), NotApplicable("Basmann", none)
    n, few = system.nobs, interval == "score" or correction in ("CR2", "CR3")
    return Estimate(
        method=getattr(estimator, "label", name), terms=terms, coefficients=frozen(coefficients), covariance=spread.cov,
        cov_type=kind, small_sample=correction, status=status, df=spread.df, interval=interval,
        solve_equations=equations, rule="", nobs=round(n), n_sites=m.n_sites,
        n_intercepts=m.n_blocks, n_instruments=system.n_instruments, n_clusters=spread.groups,
        direct_effect=bool(system.n_direct), estimand=estimand_text(system, name), target=target_text(kind),
        rss=rss, sigma2=rss / (n - system.n_coefficients), r2=1.0 - rss / float(system.within.overall[0]),
        r2_within=1.0 - rss / float(system.total[0, 0]), first_stage=shared.stages[1:],
        reduced_form=shared.stages[0], sargan=tests[0], basmann=tests[1],
        wu_hausman=shared.exogeneity[0], wu_hausman_robust=shared.exogeneity[1],
        notes=(*notes_text(system, name, kind, corrected=few), *notes, *spread.notes), design=m.design, flow=m.flow,
        identify=partial(identification, system, coefficients, kind, rows),
    )  # fmt: skip


def _between(solution: Solution) -> SiteEquations:
    return solution.between


def _spread(
    system: System, solution: Solution, kind: CovType, correction: SmallSample | None, name: str, rows: Rows | None
) -> Spread:  # fmt: skip
    if solution.status is None:
        return covariance(system, solution, kind, correction, name=name, rows=rows)
    k = len(system.terms)
    df = float(system.within.moments.n_sites - solution.n_between) if kind == "site" else system.df_within
    groups = system.within.moments.n_sites if kind == "site" else None
    return Spread(frozen(np.full((k, k), np.nan)), frozen(np.full(k, df)), groups)


def _corrected(
    system: System, estimator: Corrector
) -> tuple[tuple[str, ...], Array, Spread, float, str | None, tuple[str, ...]]:
    """A bias-corrected estimator of the unweighted average, which sees site effects only."""
    if system.n_direct:
        raise ChoiceError(
            f"{estimator.name!r} is defined under exclusion; it has no direct effect. Use 'ujive' or '2sls' with "
            "direct_effect=True."
        )
    got = estimator.solve(system.site_effects)
    sites = len(system.site_effects.sites)
    factor, df = sites / max(sites - got.n_params, 1), float(max(sites - got.n_params, 1))
    spread = Spread(frozen(factor * got.cov), frozen(np.full(len(got.mediators), df)), sites)
    m = system.n_mediators
    b = np.concatenate([[1.0], -got.coefficients])
    rss = float(b @ system.total[: 1 + m, : 1 + m] @ b)
    return got.mediators, got.coefficients, spread, rss, got.status, got.notes


def _check_late(system: System) -> None:
    """Complier effects are defined for two arms and 0/1 mediators; the moments can tell."""
    m = system.within.moments
    if m.design.estimand != "late":
        return
    if len(m.arms) != 2:
        raise DesignError(f"estimand='late' needs two arms; there are {len(m.arms)}. Use estimand='ate'.")
    for j, name in enumerate(m.design.mediators, start=1):
        mean, scatter = m.first.mean[:, j], m.first.scatter[:, j, j]
        expected = m.first.weight * mean * (1.0 - mean)
        if not np.allclose(scatter, expected, rtol=1e-8, atol=1e-8 * float(m.first.weight.max())):
            raise DesignError(
                f"estimand='late' needs 0/1 mediators; {name!r} takes other values. Use estimand='ate'."
            )
