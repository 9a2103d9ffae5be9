"""First stages, reduced form, and the tests that come with a fit; all from the system's cross-products."""

from __future__ import annotations

import numpy as np
import pandas as pd

from msmmiv.errors import MomentsInsufficient
from msmmiv.estimate.kclass import Solution, scores_at
from msmmiv.estimate.system import System
from msmmiv.inference.covariance import CovType, Scores, SmallSample, sandwich_meat, small_sample_factor
from msmmiv.inference.first_stage import SlopeCovariance, slope_covariances
from msmmiv.inference.stage import FirstStage
from msmmiv.inference.tests import NotApplicable, TestResult, chi2_test, f_test
from msmmiv.linalg import Array, dependent_columns, gram_solve, schur
from msmmiv.moments.sums import Rows

__all__ = ["first_stages", "overidentification", "wu_hausman"]

#: Share of a sum of squares below which a residual sum of squares is rounding.
EXACT = 1e-14
_EXACT = "the outcome is fitted exactly: there is no residual variance"
_PWEIGHTS = "probability weights: this test supposes homoskedastic errors; use the robust forms"


def first_stages(
    system: System, kind: CovType, correction: SmallSample | None, *, rows: Rows | None
) -> tuple[FirstStage, ...]:
    """One `FirstStage` per variable: the outcome (reduced form) first, then the mediators."""
    names = [system.within.moments.design.outcome, *system.within.moments.design.mediators]
    covs, why = _slope_covariances(system, kind, correction, rows)
    return tuple(
        _stage(system, j, name, kind, covs[j] if covs else None, why) for j, name in enumerate(names)
    )


def _slope_covariances(
    system: System, kind: CovType, correction: SmallSample | None, rows: Rows | None
) -> tuple[list[SlopeCovariance], str]:
    """Covariance of the first-stage slopes in the flavour of the fit, or why there is none."""
    within, m = system.within, system.within.moments
    if kind == "classical":
        return [], "the fit is classical; the F above is its form"
    if kind == "site":
        return [], (
            "with one instrument per site, scores summed over a site are exactly zero in the first stage; "
            "use unit-level or within-site clusters"
        )
    if kind == "cluster":
        pairs = np.unique(np.column_stack([m.cluster, m.site]), axis=0)
        if np.bincount(pairs[:, 0]).max() > 1:
            return [], "clusters cross sites, so first-stage slopes of different sites are correlated"
    try:
        covs = slope_covariances(within, system.covariates, kind, rows=rows)
    except MomentsInsufficient as error:
        return [], str(error)
    n, k = system.nobs, m.n_blocks + len(system.covariates) + system.n_instruments
    factor = n / (n - k) if kind == "HC1" else 1.0
    if correction is not None:
        factor = small_sample_factor(correction, groups=len(m.clusters), nobs=n, slopes=k, between=0, all_=k)
    return [c.scaled(factor) for c in covs], ""


def _stage(
    system: System, j: int, name: str, kind: CovType, cov: SlopeCovariance | None, why: str
) -> FirstStage:
    within = system.within
    m = within.moments
    first = 1 + system.n_mediators
    exogenous = list(range(first, len(system.total)))
    rss = system.total[j, j] - system.projected[j, j]
    restricted = float(schur(system.total, [j], exogenous)[0, 0])
    excluded = system.n_instruments - system.n_direct
    df = system.nobs - m.n_blocks - len(system.covariates) - system.n_instruments
    null = f"the treatment moves {name} {'equally in all sites' if system.n_direct else 'in no site'}"
    label = f"First-stage F, {name}"
    classical: TestResult
    if restricted <= EXACT * system.total[j, j]:
        restricted = rss = float("nan")
        classical = NotApplicable(label, f"intercepts and covariates fit {name} exactly")
    elif rss <= EXACT * restricted:
        classical = NotApplicable(label, f"{name} does not vary inside site-by-arm cells")
    elif m.design.weight_kind == "probability":
        classical = NotApplicable(label, _PWEIGHTS)
    else:
        classical = f_test(label, null, (restricted - rss) / excluded / (rss / df), excluded, df)
    robust = _robust_f(system, j, f"{label} ({kind})", null, cov, why, excluded, df, kind)
    se = np.full(system.site_slopes.shape[:2], np.nan)
    if cov is not None:
        se = np.sqrt(np.einsum("kdd->kd", cov.marginal()))
    elif kind == "classical":
        se = _classical_errors(system, rss / df)
    arms = m.arms[1:] if m.arms else ("",)
    k, d = np.nonzero(within.identified)
    table = pd.DataFrame(
        {
            "site": [m.sites[i] for i in k],
            "arm": [arms[i] for i in d],
            "estimate": system.site_slopes[k, d, j],
            "std_error": se[k, d],
        }
    )
    overall = within.overall[j]
    return FirstStage(name, table, classical, robust, 1.0 - rss / restricted, 1.0 - rss / overall)


def _classical_errors(system: System, sigma2: float) -> Array:
    """Standard errors of the slopes under homoskedasticity, covariates included."""
    within = system.within
    x = list(system.covariates)
    inside = (within.total - within.between).sum(axis=0)[np.ix_(x, x)]
    unscaled = np.einsum("kdd->kd", within.omega_inverse).copy()
    if x:
        load = within.slopes[:, :, x]
        unscaled += np.einsum("kdx,xz,kdz->kd", load, gram_solve(inside, np.eye(len(x))), load)
    out: Array = np.sqrt(sigma2 * unscaled)
    return out


def _robust_f(
    system: System, j: int, label: str, null: str, cov: SlopeCovariance | None, why: str, excluded: int, df: float,
    kind: CovType,
) -> TestResult:  # fmt: skip
    """Wald F of the excluded instruments with the covariance of the fit."""
    if cov is None:
        return NotApplicable(label, why)
    if not np.isfinite(cov.blocks).all():
        return NotApplicable(label, "a site has an arm of one row, whose variance cannot be estimated")
    within, slopes = system.within, system.site_slopes[:, :, j]
    if np.any(cov.estimable(within.omega, slopes) < within.rank):
        return NotApplicable(
            label,
            "in some sites the covariance is singular (too few clusters, or no variation inside the arms)",
        )
    d = within.n_contrasts
    common = np.broadcast_to(np.eye(d), (len(slopes), d, d)) if system.n_direct else None
    df_denom = float(len(within.moments.clusters) - 1) if kind == "cluster" else df
    return f_test(label, null, cov.wald(slopes, common) / excluded, excluded, df_denom)


def overidentification(system: System, solution: Solution) -> tuple[TestResult, TestResult]:
    """Sargan's and Basmann's tests of the surplus instruments."""
    surplus = system.n_instruments - system.n_direct - system.n_mediators
    null = "all sites agree on one set of mediator effects (exclusion and constant effects together)"
    if system.within.moments.design.weight_kind == "probability":
        return NotApplicable("Sargan", _PWEIGHTS), NotApplicable("Basmann", _PWEIGHTS)
    if surplus == 0:
        why = "as many instruments as effects: nothing is left to test"
        return NotApplicable("Sargan", why), NotApplicable("Basmann", why)
    if solution.rss <= EXACT * float(system.total[0, 0]):
        return NotApplicable("Sargan", _EXACT), NotApplicable("Basmann", _EXACT)
    b = np.concatenate([[1.0], -solution.coefficients])
    explained = float(b @ system.projected @ b)
    n = system.nobs
    df = n - system.within.moments.n_blocks - len(system.covariates) - system.n_instruments
    sargan = chi2_test("Sargan", null, n * explained / solution.rss, surplus)
    basmann = chi2_test("Basmann", null, explained / ((solution.rss - explained) / df), surplus)
    return sargan, basmann


def wu_hausman(
    system: System, kind: CovType, correction: SmallSample | None, *, rows: Rows | None
) -> tuple[TestResult, TestResult]:
    """Durbin-Wu-Hausman F tests, classical and in the flavour of the fit.

    Least squares with the fitted mediators added (the same as adding first-stage residuals); the null is
    that their coefficients are zero.
    """
    name, null = "Wu-Hausman", "least squares is consistent too (the mediators are exogenous)"
    m, k = system.n_mediators, len(system.terms)
    residual = np.diag(system.total - system.projected)[1 : 1 + m]
    fitted = system.projected[:, 1 : 1 + m]
    added = np.block([[system.total, fitted], [fitted.T, fitted[1 : 1 + m]]])
    why = ""
    if np.any(residual <= 1e-12 * np.diag(system.total)[1 : 1 + m]):
        why = "a mediator does not vary inside site-by-arm cells"
    elif dependent_columns(added[1:, 1:], tolerance=1e-12):
        # What is left of them is rounding, and may look positive definite or not.
        why = (
            "across sites the treatment moves the mediators in proportion: their fitted values are dependent"
        )
    if why:
        return NotApplicable(name, why), NotApplicable(f"{name} ({kind})", why)
    solved = gram_solve(added[1:, 1:], np.column_stack([added[1:, 0], np.eye(k + m)]))
    b, bread = solved[:, 0], solved[:, 1:]
    rss = float(added[0, 0] - added[0, 1:] @ b)
    df = system.nobs - system.n_coefficients - m
    if rss <= EXACT * float(system.total[0, 0]) or df <= 0:
        return NotApplicable(name, _EXACT), NotApplicable(f"{name} ({kind})", _EXACT)
    classical: TestResult
    if system.within.moments.design.weight_kind == "probability":
        classical = NotApplicable(name, _PWEIGHTS)
    else:
        classical = f_test(
            name, null, float(b[k:] @ np.linalg.solve(bread[k:, k:], b[k:])) / m / (rss / df), m, df
        )
    return classical, _sandwich_wu_hausman(system, f"{name} ({kind})", null, b, bread, kind, correction, rows)


def _sandwich_wu_hausman(
    system: System, label: str, null: str, b: Array, bread: Array, kind: CovType,
    correction: SmallSample | None, rows: Rows | None,
) -> TestResult:  # fmt: skip
    """The test in the flavour of the fit: ``b`` of least squares with the fitted mediators added, its last ones."""
    if kind == "classical":
        return NotApplicable(label, "the fit is classical; the F above is its form")
    m, k = system.n_mediators, len(system.terms)
    # Regressors of least squares, then the fitted mediators, which are those of two-stage least squares.
    loading = np.concatenate(
        [scores_at(system, 0.0, b[:k], bread).loading, scores_at(system, 1.0, b[:k], bread).loading[:, :, :m]],
        axis=2,
    )  # fmt: skip
    outcome = np.zeros(loading.shape[:2])
    outcome[:, 0] = 1.0
    scores = Scores(loading, outcome - loading @ b, bread)
    try:
        meat, groups = sandwich_meat(system.within, scores, kind, rows=rows)
    except MomentsInsufficient as error:
        needs = f"{kind} needs a pass over the rows: Study(data, design).wu_hausman(cov_type={kind!r})"
        return NotApplicable(label, needs if rows is None else str(error))
    n, all_, between = system.nobs, system.n_coefficients + m, 2 * m + system.n_direct
    if groups and groups <= (between if kind == "site" else m):
        return NotApplicable(label, f"too few clusters ({groups}) for this test")
    factor = n / (n - all_) if kind == "HC1" else 1.0
    if correction is not None:
        factor = small_sample_factor(
            correction, groups=groups, nobs=n, slopes=k + m, between=between, all_=all_
        )
    cov = factor * (bread @ meat @ bread)[k:, k:]
    stat = float(b[k:] @ np.linalg.solve(cov, b[k:])) / m
    return f_test(label, null, stat, m, groups - 1 if groups else n - all_)
