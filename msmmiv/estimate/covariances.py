"""Which covariance an estimator can have, and how it is computed.

Held fixed: the sites (classical, HC, HTE, cluster, bekker) or nothing (site: the sites are a sample).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.errors import (
    ChoiceError,
    DesignError,
    MomentsInsufficient,
    TooFewSitesError,
    check_choice,
    count,
    listing,
)
from msmmiv.estimate.kclass import Solution
from msmmiv.estimate.system import System
from msmmiv.inference.cluster_robust import cluster_robust
from msmmiv.inference.covariance import (
    CovType,
    SmallSample,
    cluster_codes,
    require_clusters,
    sandwich_meat,
    small_sample_factor,
)
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Moments
from msmmiv.moments.sums import Rows

__all__ = ["Spread", "choose_correction", "choose_covariance", "covariance"]

_ROWS: tuple[CovType, ...] = ("HC0", "HC1", "HC2", "HC3")
_CLUSTERED: tuple[CovType, ...] = ("cluster", "site")
#: Covariances each estimator can have; the first is the default where no cluster is declared.
ALLOWED: dict[str, tuple[CovType, ...]] = {
    "ols": ("HC1", "classical", "HC0", "HC2", "HC3", *_CLUSTERED),
    "2sls": ("HC1", "classical", "HC0", "HC2", "HC3", "HTE", *_CLUSTERED),
    "liml": ("bekker", "classical", *_ROWS, *_CLUSTERED),
    "fuller": ("bekker", "classical", *_ROWS, *_CLUSTERED),
    "mbtsls": ("bekker", "classical", *_ROWS, "HTE", *_CLUSTERED),
    "ujive": ("site", "classical", "bekker", "HTE", "cluster"),
    "bc_linear": ("site",),
    "bc_symmetric": ("site",),
}
#: Forms whose noise is that of rows, in estimators that otherwise heed declared clusters.
_ROWS_ONLY = {("mbtsls", "HTE"), ("ujive", "HTE"), ("ujive", "bekker")}
_WHY = {
    "HTE": "it is the covariance of estimators that keep the 2SLS estimand when effects differ",
    "bekker": "it is for estimators whose many-instrument bias is removed; the bias itself is left in this one",
}


@dataclass(frozen=True, eq=False)
class Spread:
    """A covariance with its degrees of freedom by term, the number of clusters, and what to know about it."""

    cov: Array
    df: Array
    groups: int | None
    notes: tuple[str, ...] = ()


def choose_covariance(moments: Moments, name: str, cov_type: CovType | None) -> CovType:
    """The covariance asked for, or the estimator's default, once it is known to exist.

    Raises
    ------
    ChoiceError
        The estimator has no such covariance.
    DesignError
        Classical forms with probability weights.
    """
    allowed = ALLOWED[name]
    if cov_type is None:
        return (
            "cluster" if moments.design.cluster and "cluster" in allowed and name != "ujive" else allowed[0]
        )
    check_choice(cov_type, CovType, "cov_type")
    if cov_type not in allowed:
        why = f": {_WHY[cov_type]}" if cov_type in _WHY else ""
        raise ChoiceError(
            f"{name!r} has no {cov_type!r} covariance{why}. Use {listing(allowed, quote=True)}."
        )
    if cov_type in ("classical", "bekker") and moments.design.weight_kind == "probability":
        raise DesignError(
            f"{cov_type.capitalize()} covariances are invalid with probability weights. Use "
            f"{listing((*_fixed_sites(moments, name), 'site'), quote=True)}, or declare the weights as analytic if "
            "they are precisions."
        )
    if cov_type == "cluster":
        require_clusters(moments)
    if moments.clusters and (name, cov_type) in _ROWS_ONLY:
        raise ChoiceError(
            f"{cov_type!r} of {name!r} takes rows as independent, and the design declares clusters. Use "
            "cov_type='cluster' (sites held fixed) or 'site'; or leave the cluster out of the design."
        )
    return cov_type


def _fixed_sites(moments: Moments, name: str) -> tuple[CovType, ...]:
    """Covariances that this estimator can have with this design and the sites held fixed; HC1 for all HC."""
    clusters, weighted = bool(moments.clusters), moments.design.weight_kind == "probability"
    left_out: set[CovType] = {"site", "HC0", "HC2", "HC3"}
    left_out |= set() if clusters else {"cluster"}
    left_out |= {"classical", "bekker"} if weighted else set()
    return tuple(k for k in ALLOWED[name] if k not in left_out and not (clusters and (name, k) in _ROWS_ONLY))


def choose_correction(kind: CovType, small_sample: SmallSample | None, name: str) -> SmallSample | None:
    """The small-sample correction asked for, or the default of the covariance.

    Raises
    ------
    ChoiceError
        The correction does not belong to the covariance or the estimator.
    """
    fixed = (name == "ujive" and kind == "cluster") or name.startswith("bc_")
    if kind not in ("cluster", "site") or fixed:
        if small_sample is not None:
            raise ChoiceError(
                f"small_sample={small_sample!r} corrects clustered covariances; cov_type is {kind!r} (of {name!r}), "
                "which is not a sum of clustered scores. Leave it out, or use cov_type='site'."
            )
        return None
    if small_sample is None:
        return "CR1S" if kind == "cluster" else "CR1P"
    check_choice(small_sample, SmallSample, "small_sample")
    if kind == "cluster" and small_sample in ("CR1N", "CR1P"):
        raise ChoiceError(
            f"small_sample={small_sample!r} is for cov_type='site', in which intercepts are nested. "
            "For clusters inside sites use 'CR0', 'CR1', 'CR1S', 'CR2' or 'CR3'."
        )
    return small_sample


def covariance(
    system: System,
    solution: Solution,
    kind: CovType,
    correction: SmallSample | None,
    *,
    name: str,
    rows: Rows | None,
) -> Spread:
    """The covariance of a solution.

    Parameters
    ----------
    system : System
    solution : Solution
        With coefficients; one with a status has no covariance.
    kind, correction
        As checked by `choose_covariance` and `choose_correction`.
    name : str
        Name of the estimator.
    rows : Rows or None

    Raises
    ------
    MomentsInsufficient
        The form is not a function of the moments and no rows are at hand.
    TooFewSitesError
        Site-clustered forms with fewer than two degrees of freedom.
    """
    n, k = system.nobs, system.n_coefficients
    size = len(system.terms)
    if kind == "classical":
        return _spread(solution.rss / (n - k) * solution.bread, n - k, size)
    if kind == "bekker":
        return _spread(solution.bread @ _bekker_meat(system, solution, name) @ solution.bread, n - k, size)
    if kind == "HTE" and name == "2sls":
        return _spread(
            solution.bread @ _heterogeneous_meat(system, solution, name) @ solution.bread, n - k, size
        )
    if kind == "HTE" or (kind == "cluster" and solution.scores is None):
        cov = solution.bread @ _noise_meat(system, solution, name) @ solution.bread
        groups = len(system.within.moments.clusters) or None
        return _checked(cov, float(groups - 1) if groups else n - k, size, groups)
    if kind not in ("cluster", "site"):
        assert solution.scores is not None  # noqa: S101 - ALLOWED gives HC to sums over rows only
        meat, _ = sandwich_meat(system.within, solution.scores, kind, rows=rows)
        factor = n / (n - k) if kind == "HC1" else 1.0
        return _spread(factor * (solution.bread @ meat @ solution.bread), n - k, size)
    return _clustered(system, solution, kind, correction, name)


def _spread(cov: Array, df: float, size: int, groups: int | None = None) -> Spread:
    return Spread(frozen((cov + cov.T) / 2.0), frozen(np.full(size, float(df))), groups)


def _checked(cov: Array, df: float, size: int, groups: int | None) -> Spread:
    """Differences of estimated variances can come out negative; say so instead of taking a root."""
    if np.linalg.eigvalsh((cov + cov.T) / 2.0)[0] > 0:
        return _spread(cov, df, size, groups)
    note = "the estimated covariance is not positive definite: no standard errors; use cov_type='site' or a score set"
    return Spread(frozen(np.full_like(cov, np.nan)), frozen(np.full(size, float(df))), groups, (note,))


def _clustered(
    system: System, solution: Solution, kind: CovType, correction: SmallSample | None, name: str
) -> Spread:
    assert correction is not None  # noqa: S101 - choose_correction
    between = system.n_mediators + system.n_direct
    if kind == "site" and system.within.moments.n_sites - between < 2:
        sites = system.within.moments.n_sites
        raise TooFewSitesError(
            f"{sites} sites less {count(between, 'effect')} between them leave {max(sites - between, 0)}; "
            "site-clustered standard errors need at least 2 degrees of freedom. Hold the sites fixed: cov_type may be "
            f"{listing(_fixed_sites(system.within.moments, name), quote=True)}."
        )
    size = len(system.terms)
    if solution.scores is None and correction in ("CR2", "CR3"):
        return _between_sites(solution, correction)
    if solution.scores is None:
        scores = solution.equations.scores(solution.coefficients)
        meat, groups = scores.T @ scores, len(scores)
    elif correction in ("CR2", "CR3"):
        codes = cluster_codes(system.within, "site" if kind == "site" else "cluster")
        got = cluster_robust(system.within, solution.scores, codes, power=correction)
        df = (
            got.df
            if correction == "CR2"
            else np.full(size, got.groups - (between if kind == "site" else 1.0))
        )
        return Spread(got.covariance, frozen(df), got.groups, (got.reason,) if got.reason else ())
    else:
        meat, groups = sandwich_meat(system.within, solution.scores, kind)
    factor = small_sample_factor(
        correction, groups=groups, nobs=system.nobs, slopes=size, between=between, all_=system.n_coefficients
    )
    left = float(groups - between if kind == "site" else groups - 1)
    return _spread(factor * (solution.bread @ meat @ solution.bread), left, size, groups)


def _between_sites(solution: Solution, correction: SmallSample) -> Spread:
    """CR3 is the jackknife over sites; CR2 of one effect, whose degrees of freedom are derived (`_reduced`)."""
    equations, b = solution.equations, solution.coefficients
    groups, size = equations.groups, len(b)
    df = np.full(size, float(groups - solution.n_between))
    if correction == "CR2" and solution.n_between > 1:
        raise ChoiceError(
            f"CR2 of 'ujive' is derived for one effect between sites; here are {solution.n_between}. Use "
            "small_sample='CR3', the jackknife over sites."
        )
    gaps = equations.jackknife() - b
    if not np.isfinite(gaps).all():
        why = "without one site the others do not identify the effects: the jackknife does not exist"
        return Spread(frozen(np.full((size, size), np.nan)), frozen(df), groups, (why,))
    cov = gaps.T @ gaps
    if correction == "CR2":
        # Covariates, estimated inside sites, keep the jackknife; correlations are the jackknife's.
        variance, df[0] = _reduced(solution)
        scale = np.ones(size)
        # Data without noise: the sites agree exactly, and there is no jackknife to scale.
        scale[0] = np.sqrt(variance / cov[0, 0]) if cov[0, 0] > 0 else 0.0
        cov = cov * np.outer(scale, scale)
    return Spread(frozen((cov + cov.T) / 2.0), frozen(df), groups)


def _reduced(solution: Solution) -> tuple[float, float]:
    """CR2 variance of one coefficient, with Bell-McCaffrey degrees of freedom for what scores of sites consist of.

    The variance of a score is the noise of the site plus heterogeneity times its squared share of the
    denominator; the df are those of sum_s (a_s psi_s)^2 under that variance, between one and K - 1.
    """
    equations = solution.between
    coefficient = solution.coefficients[:1]
    block, score = equations.blocks[:, 0, 1], equations.scores(coefficient)[:, 0]
    total, groups = float(block.sum()), equations.groups
    h = block / total
    # A site with all the leverage has no residual left; bounded so that it counts seven times at most.
    a = 1.0 / np.sqrt(np.maximum(1.0 - h, 0.02)) / total
    noise = equations.score_noise(coefficient)[:, 0, 0]
    omega: Array = (
        noise + max(float((score**2).sum() - noise.sum()), 0.0) / float((block**2).sum()) * block**2
    )
    variance = float(((a * score) ** 2).sum())
    # The quadratic form has matrix diag(own) - f g' - g f' + (sum omega) g g': norms without forming it.
    f, g, own, whole = a * omega, a * h, a**2 * omega, float(omega.sum())
    rest = -2.0 * f * g + whole * g**2
    ff, fg, gg = float(f @ f), float(f @ g), float(g @ g)
    norm = 2.0 * ff * gg + 2.0 * fg**2 - 4.0 * whole * fg * gg + (whole * gg) ** 2
    norm += float((own * (own + 2.0 * rest)).sum())
    diagonal = own + rest
    # Scores without noise or spread have no df of their own.
    df = min(max(float(diagonal.sum()) ** 2 / norm, 1.0), groups - 1.0) if norm > 0 else groups - 1.0
    return variance, df


def _bekker_meat(system: System, solution: Solution, name: str) -> Array:
    """Many-instrument covariance under Gaussian homoskedastic errors (Bekker 1994; Kolesar 2018), any P.

    s^2 Lambda + tau (s^2 S_MM +- S_Mb S_Mb'), minus for LIML and Fuller, plus for the others, with
    tau = L (n - l) / (n - l - L) and l the exogenous regressors.
    """
    form, m = system.reduced_form, system.n_mediators
    b = np.concatenate([[1.0], -solution.coefficients[:m]])
    s2, sve = float(b @ form.within @ b), form.within[1:] @ b
    left = system.df_within + form.n_instruments
    tau = form.n_instruments * left / system.df_within
    meat: Array = np.asarray(s2 * np.linalg.inv(solution.bread), dtype=np.float64)
    sign = -1.0 if name in ("liml", "fuller") else 1.0
    meat[:m, :m] += tau * (s2 * form.within[1:, 1:] + sign * np.outer(sve, sve))
    return meat


def _plain(system: System, name: str, what: str) -> None:
    m = system.within.moments
    if system.covariates or not m.arms:
        lacking = "covariates" if system.covariates else "a continuous treatment"
        weighted = m.design.weight_kind == "probability"
        exact = [k for k in ALLOWED[name] if k == "site" or (k in ("classical", "bekker") and not weighted)]
        passes = "; for 'HC1' Study makes a pass over the rows" if "HC1" in ALLOWED[name] else ""
        raise MomentsInsufficient(
            f"{what} with {lacking} needs products of rows that cells do not hold. Of {name!r} these are exact from "
            f"moments: {listing(exact, quote=True)}{passes}."
        )


def _heterogeneous_meat(system: System, solution: Solution, name: str) -> Array:
    """2SLS with sites fixed and effects that differ between them (Kolesar's "seh"), exact from cells.

    Score of a row: z e + (d'e_s) v, with e_s what the site's itt leaves unexplained and v the first-stage residual.
    """
    _plain(system, name, "HTE")
    within, m, size = system.within, system.n_mediators, len(system.terms)
    cells, p = within.moments, within.n_variables
    assert solution.scores is not None  # noqa: S101 - the caller looks
    d = within.deviation[:, p:]
    z = np.einsum("cmk,cm->ck", solution.scores.loading[cells.site], within.deviation)
    gap = _unexplained(system, solution)
    a = np.einsum("cd,cd->c", d, gap[cells.site])
    first = np.zeros((cells.n_sites, within.gram.shape[1], size))
    for j in range(m):
        first[:, 1 + j, j] = 1.0
        first[:, p:, j] = -system.site_slopes[:, :, 1 + j]
    form = (
        solution.scores.residual[cells.site][:, :, None] * z[:, None, :]
        + a[:, None, None] * first[cells.site]
    )
    mean = np.einsum("cmk,cm->ck", form, within.squared_deviation)
    scatter = within.scatter.copy()
    if cells.squared is not cells.first:
        scatter[:, :p, :p] = cells.squared.scatter
    out: Array = np.einsum("c,ck,cl->kl", cells.squared.weight, mean, mean)
    out += np.einsum("cmk,cmn,cnl->kl", form, scatter, form, optimize=True)
    return out


def _unexplained(system: System, solution: Solution) -> Array:
    """(K, D): itt less what the coefficients predict from compliance."""
    m, d = system.n_mediators, system.n_direct
    b = np.concatenate([[1.0], -solution.coefficients[:m]])
    direct = solution.coefficients[m : m + d] if d else np.zeros(system.within.n_contrasts)
    out: Array = np.where(system.within.identified, system.site_slopes[:, :, : 1 + m] @ b - direct, 0.0)
    return out


def _noise_meat(system: System, solution: Solution, name: str) -> Array:
    """Sites fixed, many instruments, unequal variances, effects that differ: from the noise of site effects.

    The score of a site is g'Omega e less its mean noise. With Gaussian noise of covariance V its variance has an
    estimate in V, the estimated g and the estimated e that is unbiased up to terms of order 1/df times the
    squared covariance of the noises of g and e (derived in docs/derivations.md).
    """
    _plain(system, name, "This covariance")
    m, size = system.n_mediators, len(system.terms)
    noise = system.noise
    v, omega = np.nan_to_num(noise.cov), system.within.omega
    b = np.concatenate([[1.0], -solution.coefficients[:m]])
    vb = np.einsum("kdaeb,b->kdae", v, b)
    vee = np.einsum("kdae,a->kde", vb, b)
    g = np.zeros((*omega.shape[:2], size))
    g[:, :, :m] = system.site_slopes[:, :, 1 : 1 + m]
    g[:, :, m : m + system.n_direct] = np.eye(omega.shape[1])[:, : system.n_direct]
    og, oe = omega @ g, np.einsum("kde,ke->kd", omega, _unexplained(system, solution))
    meat: Array = np.einsum("kda,kde,keb->ab", og, vee, og)
    cross = np.zeros((size, size))
    cross[:m] = np.einsum("kd,kdae,keb->ab", oe, vb[:, :, 1:], og)
    meat = meat + cross + cross.T
    meat[:m, :m] += np.einsum("kd,kdaeb,ke->ab", oe, v[:, :, 1:, :, 1:], oe)
    twice = np.einsum("kdaeb,kde->kab", v[:, :, 1:, :, 1:], omega @ vee @ omega)
    ov = np.einsum("kfd,kdae->kfae", omega, vb[:, :, 1:])
    twice += np.einsum("kfae,kebf->kab", ov, ov)
    # Products of estimated variances are too large by 1 + 1/df; the noise of what was subtracted adds 1/df.
    shrink = (noise.df - 1.0) / (noise.df + 1.0)
    meat[:m, :m] -= np.einsum("k,kab->ab", shrink, twice)
    return meat
