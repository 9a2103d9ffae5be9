"""The table of estimators, and the one function that runs them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from msmmiv.errors import ChoiceError, DesignError, TooFewSitesError, check_choice
from msmmiv.estimate.kclass import KClass, Solution, System, build_system
from msmmiv.estimate.stages import first_stages, overidentification, wu_hausman
from msmmiv.inference.covariance import (
    CovType,
    SmallSample,
    sandwich_meat,
    small_sample_factor,
    warn_crossing_clusters,
)
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestResult
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Moments
from msmmiv.moments.sums import Rows
from msmmiv.moments.within import within_sites

__all__ = ["ESTIMATORS", "Method", "exogeneity_test", "fit"]

Method: TypeAlias = Literal["ols", "2sls"]

ESTIMATORS: dict[str, KClass] = {"ols": KClass("ols", 0.0), "2sls": KClass("2sls", 1.0)}


def fit(
    moments: Moments,
    estimator: Method | None = None,
    *,
    cov_type: CovType | None = None,
    direct_effect: bool = False,
    small_sample: SmallSample | None = None,
    rows: Rows | None = None,
) -> Estimate:
    """Estimate the effect of each mediator on the outcome from moments.

    ``2sls`` uses the treatment in each site as an instrument; it equals the regression of itt on
    compliance across sites through the origin, weighted by n p (1 - p). With ``direct_effect=True`` the
    line has an intercept: the effect of treatment that no mediator carries. ``ols`` is the within-site
    regression, for comparison.

    Parameters
    ----------
    moments : Moments
    estimator : {"2sls", "ols"}
        Default "2sls".
    cov_type : {"classical", "HC0", "HC1", "HC2", "HC3", "cluster", "site"}, optional
        Default "cluster" if the design declares one, else "HC1".
    direct_effect : bool
        Free a direct effect of treatment (Fu 2023) instead of assuming exclusion.
    small_sample : {"CR0", "CR1", "CR1S", "CR1N", "CR1P"}, optional
        Correction of clustered covariances; default "CR1S" for clusters and "CR1P" for sites.
    rows : Rows, optional
        Open rows for covariances that need a second pass; `Study` supplies them.

    Returns
    -------
    Estimate

    Raises
    ------
    MomentsInsufficient
        The covariance is not a function of the moments and no rows are at hand.
    TooFewSitesError, RankDeficientError, DataError, DesignError

    Notes
    -----
    Two-stage least squares: b = (sum_s w_s g_s g_s')^-1 sum_s w_s g_s b_s with compliances g_s, itt b_s
    and w_s = sum_i (T_i - Tbar_s)^2 (Reardon & Raudenbush 2013; the identity is Frisch-Waugh-Lovell).

    Examples
    --------
    >>> import msmmiv as mm
    >>> f = mm.fit(mm.data.star(), "2sls")
    >>> round(float(f.params["class_size"]), 5), round(float(f.std_errors["class_size"]), 4)
    (-1.11376, 0.2723)
    """
    name = "2sls" if estimator is None else estimator
    check_choice(name, Method, "estimator")
    kind = _cov_type(moments, cov_type)
    correction = _correction(kind, small_sample)
    system = build_system(within_sites(moments), direct_effect=direct_effect)
    if kind == "cluster" and system.within.moments.clusters:
        warn_crossing_clusters(system.within.moments)
    _check_late(system)
    solution = ESTIMATORS[name].solve(system)
    cov, groups, df = _covariance(system, solution, kind, correction, rows)
    stages = first_stages(system, kind, correction, rows=rows)
    none = "least squares uses no instruments"
    tests = overidentification(system, solution) if name == "2sls" else (
        NotApplicable("Sargan", none), NotApplicable("Basmann", none))  # fmt: skip
    # Without rows: a diagnostic nobody asked for must not cost a pass over the data.
    exogeneity = wu_hausman(system, kind, correction, rows=None)
    m, n, overall = system.within.moments, system.nobs, float(system.within.overall[0])
    return Estimate(
        method=name, terms=system.terms, coefficients=frozen(solution.coefficients), covariance=frozen(cov),
        cov_type=kind, small_sample=correction, df_resid=df, nobs=round(n), n_sites=m.n_sites,
        n_intercepts=m.n_blocks, n_instruments=system.n_instruments, n_clusters=groups,
        direct_effect=direct_effect, estimand=_estimand(system, name), target=_target(kind),
        rss=solution.rss, sigma2=solution.rss / (n - system.n_coefficients), r2=1.0 - solution.rss / overall,
        r2_within=1.0 - solution.rss / float(system.total[0, 0]), first_stage=stages[1:],
        reduced_form=stages[0], sargan=tests[0], basmann=tests[1],
        wu_hausman=exogeneity[0], wu_hausman_robust=exogeneity[1],
        notes=_notes(system, kind), design=m.design, flow=m.flow,
    )  # fmt: skip


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
    moments : Moments
    cov_type, direct_effect, small_sample, rows
        As in `fit`; HC forms need the rows.

    Returns
    -------
    TestStatistic or NotApplicable
    """
    kind = _cov_type(moments, cov_type)
    system = build_system(within_sites(moments), direct_effect=direct_effect)
    classical, robust = wu_hausman(system, kind, _correction(kind, small_sample), rows=rows)
    return classical if kind == "classical" else robust


def _cov_type(moments: Moments, cov_type: CovType | None) -> CovType:
    if cov_type is None:
        return "cluster" if moments.design.cluster else "HC1"
    check_choice(cov_type, CovType, "cov_type")
    if cov_type == "classical" and moments.design.weight_kind == "probability":
        raise DesignError(
            "Classical covariances are invalid with probability weights. Use 'HC1', 'cluster' or 'site', or "
            "declare the weights as analytic if they are precisions."
        )
    return cov_type


def _correction(kind: CovType, small_sample: SmallSample | None) -> SmallSample | None:
    if kind not in ("cluster", "site"):
        if small_sample is not None:
            raise ChoiceError(
                f"small_sample={small_sample!r} corrects clustered covariances; cov_type is {kind!r}. "
                "Leave it out, or use cov_type='cluster' or 'site'."
            )
        return None
    if small_sample is None:
        return "CR1S" if kind == "cluster" else "CR1P"
    check_choice(small_sample, SmallSample, "small_sample")
    if kind == "cluster" and small_sample in ("CR1N", "CR1P"):
        raise ChoiceError(
            f"small_sample={small_sample!r} is for cov_type='site', in which intercepts are nested. "
            "For clusters inside sites use 'CR0', 'CR1' or 'CR1S'."
        )
    return small_sample


def _covariance(
    system: System, solution: Solution, kind: CovType, correction: SmallSample | None, rows: Rows | None
) -> tuple[Array, int | None, float]:
    n, k = system.nobs, system.n_coefficients
    if kind == "classical":
        return solution.rss / (n - k) * solution.scores.bread, None, n - k
    meat, groups = sandwich_meat(system.within, solution.scores, kind, rows=rows)
    cov = solution.scores.bread @ meat @ solution.scores.bread
    if correction is None:
        return cov * (n / (n - k) if kind == "HC1" else 1.0), None, n - k
    between = system.n_mediators + system.n_direct
    if kind == "site" and groups - between < 2:
        raise TooFewSitesError(
            f"{groups} sites leave {groups - between} degrees of freedom for {between} effects between sites; "
            "site-clustered standard errors need at least 2. Use cov_type='HC1' (sites held fixed)."
        )
    factor = small_sample_factor(
        correction, groups=groups, nobs=n, slopes=len(system.terms), between=between, all_=k
    )
    return cov * factor, groups, float(groups - between if kind == "site" else groups - 1)


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


def _estimand(system: System, name: str) -> str:
    design = system.within.moments.design
    if name == "ols":
        return (
            f"the within-site association of {design.outcome} with the mediators; an effect only if nothing else "
            "moves both"
        )
    who = (
        "among compliers (assumptions vii.b and ix.b)"
        if design.estimand == "late"
        else "on average across sites"
    )
    held = "given a direct effect of treatment that does not vary with compliance across sites" if (
        system.n_direct) else "if treatment acts only through the mediators (exclusion)"  # fmt: skip
    return f"the effect of one unit more of each mediator on {design.outcome}, {who}, {held}; {_weighting(system)}"


def _weighting(system: System) -> str:
    """How sites count in the average, as far as one clause can say it truly."""
    m, design = system.within.moments, system.within.moments.design
    if system.n_direct:
        return (
            "sites count by how far the treatment moves the mediators there beyond its average over sites, and can "
            "count negatively"
        )
    if system.n_mediators > 1 or len(m.arms) > 2 or system.covariates:
        return "sites count the more, the larger they are and the further the treatment moves the mediators there"
    amount = "n p (1 - p)" if m.arms else "the sum of squares of the dose"
    if m.blocks:
        amount += ", summed over blocks,"
    if design.weights and design.weight_kind != "frequency":
        amount += " (in weights)"
    return f"sites count by {amount} times squared compliance"


def _target(kind: CovType) -> str:
    if kind == "site":
        return "sites are taken as a sample: the target is the average over the population of sites"
    if kind == "cluster":
        return "these sites are held fixed; clusters inside them are a sample"
    return "these sites are held fixed; people inside them are a sample" + (
        " with equal error variance" if kind == "classical" else ""
    )


def _notes(system: System, kind: CovType) -> tuple[str, ...]:
    m = system.within.moments
    notes = []
    if m.clusters:
        inside = np.einsum("cjj->j", m.first.scatter)
        for j, name in enumerate(m.design.mediators, start=1):
            if inside[j] <= 1e-12 * float(system.within.overall[j]):
                notes.append(
                    f"{name} does not vary inside {m.design.cluster}: the classical first-stage F counts people "
                    "who share one value and overstates the strength; rank() counts clusters."
                )
    if m.clusters:
        notes.append(
            "Sargan, Basmann and the classical F and Wu-Hausman take rows as independent; where clusters share shocks "
            "they reject too often."
        )
    if kind == "site" and m.n_sites < 20:
        notes.append(
            f"{m.n_sites} sites are few for site-clustered standard errors; intervals may be too short."
        )
    if m.arms and (m.by_arm().n == 1).any():
        lone = int((m.by_arm().n == 1).sum())
        notes.append(
            f"{lone} site-by-arm cells hold one row; they count in the estimate but carry no variance."
        )
    return tuple(notes)
