"""The tests that ivreg2 prints beside two-stage least squares, from a system's cross-products.

They are the figures of that program to the last digit: LM statistics count all rows, F forms its degrees of freedom.
`msmmiv.rank` corrects both for what intercepts take, and adds what holds with few people in a site.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msmmiv.errors import MomentsInsufficient, MsmmivError
from msmmiv.estimate.stages import wu_hausman
from msmmiv.estimate.system import System
from msmmiv.inference.covariance import CovType, crossing_clusters
from msmmiv.inference.first_stage import SlopeCovariance, joint_slope_covariance
from msmmiv.inference.ivreg2 import Identification
from msmmiv.inference.rank_tests import anderson_lm_test, cragg_donald_test, directions, kleibergen_paap_test
from msmmiv.inference.stock_yogo import stock_yogo
from msmmiv.inference.tests import NotApplicable, TestResult, chi2_test
from msmmiv.linalg import Array, gram_solve
from msmmiv.moments.sums import Rows

__all__ = ["LIMITS", "identification", "two_step_j", "without_instruments"]

LIMITS = (("bias", 0.05), ("bias", 0.10), ("bias", 0.20), ("bias", 0.30), ("size", 0.10), ("size", 0.15),
          ("size", 0.20), ("size", 0.25))  # fmt: skip
_LM, _WALD, _J = "Kleibergen-Paap rk LM", "Kleibergen-Paap rk Wald F", "Hansen J"
_SITE = (
    "with one instrument per site and arm, first-stage scores summed over a site are exactly zero, so that a "
    "covariance clustered by site does not exist"
)


def identification(system: System, coefficients: Array, kind: CovType, rows: Rows | None) -> Identification:
    """Under-, weak and over-identification of a two-stage fit, in the forms of its covariance.

    Parameters
    ----------
    system : System
    coefficients : (k,) array
        Of two-stage least squares; they weight the moments of Hansen's J.
    kind : str
        Covariance of the fit: plain ones get Anderson's LM statistic, others Kleibergen and Paap's and Hansen's J.
    rows : Rows or None
        Needed where covariates are adjusted for and clusters are not declared.

    Returns
    -------
    Identification
    """
    label = {"classical": "", "bekker": "", "cluster": "cluster", "site": "site"}.get(kind, "HC0")
    form, weighted = system.reduced_form, system.within.moments.design.weight_kind == "probability"
    plain: TestResult
    wald: TestResult
    try:
        plain, wald = anderson_lm_test(form, nobs=system.nobs), cragg_donald_test(form)
        wald = replace(wald, stat=wald.stat / system.n_excluded, name="Cragg-Donald Wald F")
        if weighted:
            why = "with probability weights statistics of homoskedastic errors do not apply"
            plain, wald = NotApplicable(plain.name, why), NotApplicable(wald.name, why)
    except MsmmivError as error:
        plain, wald = (
            NotApplicable("Anderson LM", str(error)),
            NotApplicable("Cragg-Donald Wald F", str(error)),
        )
    if not label:
        return Identification(plain, wald, None, None, _critical(system))
    lm, f, j = _robust(system, coefficients, label, rows)
    plain_kind: CovType = "HC1" if kind == "HTE" else kind
    tested = None
    if rows is not None and label == "HC0":
        tested = wu_hausman(system, plain_kind, None, rows=rows)[1]
    return Identification(lm, wald, f, j, _critical(system), tested)


def _critical(system: System) -> tuple[tuple[str, float, float | NotApplicable], ...]:
    """Stock and Yogo's critical values, or why there are none."""
    found = []
    for criterion, limit in LIMITS:
        value = stock_yogo(system.n_excluded, system.n_mediators, criterion=criterion, limit=limit)  # type: ignore[arg-type]
        found.append((criterion, limit, value))
    return tuple(found)


def _robust(
    system: System, coefficients: Array, label: str, rows: Rows | None
) -> tuple[TestResult, TestResult, TestResult]:
    m, why = system.within.moments, ""
    if label == "site":
        why = _SITE
    elif label == "cluster" and crossing_clusters(m):
        why = "clusters cross sites, so that first-stage slopes of different sites are correlated"
    if not why:
        try:
            lm, f = (_rank(system, label, rows, wald=wald) for wald in (False, True))
            return lm, f, two_step_j(system, coefficients, label, rows)
        except MomentsInsufficient:
            why = "with covariates it needs the rows: fit from the data with Study(data, design)"
        except (MsmmivError, np.linalg.LinAlgError) as error:
            why = str(error)
    return NotApplicable(_LM, why), NotApplicable(_WALD, why), NotApplicable(_J, why)


def _rank(system: System, label: str, rows: Rows | None, *, wald: bool) -> TestResult:
    """Kleibergen and Paap's rk as ivreg2 prints it: LM in chi-squared form, Wald in F form."""
    p, d = system.n_mediators, system.within.n_contrasts
    form = system.reduced_form
    form.whitener(rows=slice(1, None))  # refuses mediators without residual variation, by name
    found = directions(form.between[1:, 1:], form.within[1:, 1:])
    restricted = None if wald else without_instruments(system)
    full = joint_slope_covariance(
        system.within, system.covariates, label, rows=rows, restricted=restricted  # type: ignore[arg-type]
    )  # fmt: skip
    cov, slopes = full.combined(np.eye(1 + p)[:, 1:]), system.site_slopes[:, :, 1 : 1 + p]
    weak = found.combinations[:, -1:]
    if short := _short(system, cov.combined(weak), (slopes @ weak)[:, :, 0]):
        return NotApplicable(_WALD if wald else _LM, short)
    test = kleibergen_paap_test(
        slopes, cov, found, mediators=form.mediators, n_instruments=system.n_excluded, free=_free(system, d),
        label=_WALD if wald else _LM,
    )  # fmt: skip
    if not wald:
        return test
    n, clusters = system.nobs, len(system.within.moments.clusters)
    scale = system.df_within / n
    if label == "cluster":
        scale = system.df_within * (clusters - 1) / clusters / (n - 1)
    return replace(test, stat=test.stat * scale / system.n_excluded)


def two_step_j(system: System, coefficients: Array, label: str, rows: Rows | None) -> TestResult:
    """Hansen's J of two-step GMM, weighted by moments at the two-stage residuals.

    Parameters
    ----------
    system : System
    coefficients : (k,) array
    label : {"HC0", "cluster"}
    rows : Rows or None

    Returns
    -------
    TestStatistic or NotApplicable

    Notes
    -----
    Hansen (1982). With slopes a of outcome and mediators on the instruments and C the covariance that slopes would have
    if the two-stage residuals were the errors, J is the least ``(a_y - a_m b)' C^-1 (a_y - a_m b)`` over b and a free
    direct effect. Intercepts and covariates are their own instruments and drop out.
    """
    p, d, direct = system.n_mediators, system.within.n_contrasts, system.n_direct
    surplus = system.n_excluded - p
    if surplus == 0:
        return NotApplicable(_J, "as many instruments as effects: nothing is left to test")
    combined = np.zeros((1 + p, 1))
    combined[:, 0] = [1.0, *-coefficients[:p]]
    # Residuals of outcome less mediator effects, from direct effects and covariates at their two-stage coefficients.
    effects = np.zeros((d, system.within.n_variables))
    effects[:direct, 0] = coefficients[p : p + direct]
    phi = np.zeros((len(system.covariates), system.within.n_variables))
    phi[:, 0] = coefficients[p + direct :]
    cov = joint_slope_covariance(
        system.within, system.covariates, label, rows=rows, restricted=(effects, phi)  # type: ignore[arg-type]
    ).combined(combined)  # fmt: skip
    slopes = system.site_slopes
    if short := _short(system, cov, slopes[:, :, 0] - slopes[:, :, 1 : 1 + p] @ coefficients[:p]):
        return NotApplicable(_J, short)
    free = np.concatenate([slopes[:, :, 1 : 1 + p], _free(system, d)], axis=2)
    null = "all sites agree on one set of mediator effects (exclusion and constant effects together)"
    return chi2_test(_J, null, cov.wald(slopes[:, :, 0], free), surplus)


def _free(system: System, d: int) -> Array:
    """Directions in which a free direct effect moves the slopes of every site."""
    k = system.within.moments.n_sites
    out: Array = np.broadcast_to(np.eye(d)[:, : system.n_direct], (k, d, system.n_direct)).copy()
    return out


def _short(system: System, cov: SlopeCovariance, slopes: Array) -> str:
    """Why a robust covariance of the slopes has no inverse; empty when it has one."""
    if (lost := int((cov.estimable(system.within.omega, slopes) < system.within.rank).sum())) == 0:
        return ""
    where = f"{lost} site has" if lost == 1 else f"{lost:,} sites have"
    return f"{where} no variance of this kind (every arm a single cluster or row, or constant)"


def without_instruments(system: System) -> tuple[Array, Array]:
    """Coefficients of all variables on direct effects and covariates alone."""
    within, x, d = system.within, list(system.covariates), system.n_direct
    cross, total = within.cross.sum(axis=0), within.total.sum(axis=0)
    gram = np.block([[within.omega.sum(axis=0)[:d, :d], cross[:d, x]], [cross[:d, x].T, total[np.ix_(x, x)]]])
    found = gram_solve(gram, np.concatenate([cross[:d], total[x]]))
    effects = np.zeros((within.n_contrasts, within.n_variables))
    effects[:d] = found[:d]
    return effects, found[d:]
