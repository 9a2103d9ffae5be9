"""Strength: tests of rank and first-stage F statistics of one set of moments, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.errors import MomentsInsufficient, MsmmivError, count, listing
from msmmiv.estimate.identification import without_instruments
from msmmiv.estimate.system import System
from msmmiv.inference.conditional_f import conditional_effective_f, conditional_f, conditional_f_by_site
from msmmiv.inference.covariance import crossing_clusters
from msmmiv.inference.first_stage import joint_slope_covariance
from msmmiv.inference.rank_tests import (
    Directions,
    anderson_lm_test,
    cragg_donald_test,
    directions,
    kleibergen_paap_test,
    robin_smith_test,
)
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic, chi2_test
from msmmiv.linalg import dependent_columns
from msmmiv.moments.sums import Rows

__all__ = [
    "CROSSED",
    "RankTest",
    "conditional_strength",
    "degenerate",
    "no_classical",
    "no_noise",
    "noise_tests",
    "one_with_direct_effect",
    "rank_tests",
]

SITE_REASON = (
    "with one instrument per site and contrast, first-stage scores summed over a site are exactly zero, so that a "
    "covariance clustered by site does not exist; use people or clusters inside sites"
)


CROSSED = "clusters cross sites, so that first-stage slopes of different sites are correlated"


@dataclass(frozen=True)
class RankTest:
    """One test that the first stages lack rank.

    Attributes
    ----------
    test : TestStatistic or NotApplicable
    covariance : str
        "classical", "robust", "cluster", "site", or the noise of site effects.
    printed : float
        What ivreg2 and linearmodels print for it: LM statistics that count all rows, Wald statistics in F form. NaN
        where they have no such statistic.
    """

    test: TestResult
    covariance: str
    printed: float = float("nan")

    @property
    def row(self) -> dict[str, object]:
        """For a table."""
        t = self.test
        return {
            "test": t.name, "covariance": self.covariance, "statistic": t.stat, "printed": self.printed,
            "df": t.df if isinstance(t, TestStatistic) and t.df else np.nan, "p_value": t.pvalue, "law": t.dist,
            "reason": t.reason if isinstance(t, NotApplicable) else "",
        }  # fmt: skip


def no_classical(system: System) -> str:
    """Why the mediators have no classical first-stage statistics jointly; empty when they do."""
    if why := degenerate(system):
        return why
    if system.within.moments.design.weight_kind == "probability":
        return "with probability weights statistics of homoskedastic errors do not apply"
    return ""


def degenerate(system: System) -> str:
    """Why residuals of the mediators do not span all their combinations; empty when they do."""
    p = system.n_mediators
    names = system.within.moments.design.mediators
    size = np.diag(system.total)[1 : 1 + p]
    form = system.reduced_form
    noise = form.within[1:, 1:] * form.df
    if same := [names[j] for j in dependent_columns(noise + form.between[1:, 1:], size)]:
        verb = "is a linear combination" if len(same) == 1 else "are linear combinations"
        return f"inside sites {listing(same)} {verb} of the other mediators and covariates: assumption (viii) fails"
    if flat := [n for n, v, t in zip(names, np.diag(noise), size, strict=True) if v <= 1e-12 * t]:
        return f"{listing(flat)} {'does' if len(flat) == 1 else 'do'} not vary inside site-by-arm cells"
    if np.linalg.eigvalsh(noise / np.sqrt(np.outer(size, size)))[0] <= 1e-12:
        return "a combination of the mediators does not vary inside site-by-arm cells"
    return ""


def rank_tests(system: System, compliances: Compliances, *, rows: Rows | None) -> tuple[RankTest, ...]:
    """Every test at rank P - 1 that the moments (or the rows) allow."""
    why, form = no_classical(system), system.reduced_form
    out = []
    if why:
        out = [RankTest(NotApplicable(n, why), "classical") for n in ("Anderson LM", "Cragg-Donald")]
    else:
        wald = cragg_donald_test(form)
        printed = anderson_lm_test(form, nobs=system.nobs).stat
        out.append(RankTest(anderson_lm_test(form), "classical", printed))
        out.append(RankTest(wald, "classical", wald.stat / form.n_instruments))
    out += _kleibergen_paap(system, compliances, rows)
    out.append(RankTest(NotApplicable("Kleibergen-Paap rk", SITE_REASON), "site"))
    return (*out, *noise_tests(compliances))


def noise_tests(compliances: Compliances) -> tuple[RankTest, ...]:
    """Tests that need no more than site effects and their sampling covariances."""
    c = compliances
    if why := c.unknown or no_noise(c):
        return (RankTest(NotApplicable("Robin-Smith", why), c.noise),)
    found = directions(c.explained, c.expected_noise)
    test = robin_smith_test(c.slopes, c.cov, c.projection, found, mediators=c.mediators, df=c.pooled_df)
    return (RankTest(test, c.noise),)


def no_noise(c: Compliances) -> str:
    """Why no direction can be set against noise; empty when all can."""
    if why := c.unknown or one_with_direct_effect(c):
        return why
    noise = np.diag(c.expected_noise)
    size = np.diag(c.explained) + noise
    if lost := dependent_columns(c.explained + c.expected_noise):
        be = "is a linear combination" if len(lost) == 1 else "are linear combinations"
        beside = " and a direct effect" if c.direct_effect else ""
        return (
            f"compliance with {listing([c.mediators[j] for j in lost])} {be} of that with the other mediators{beside}: "
            "assumption (viii) fails"
        )
    if flat := _named(c, noise <= 1e-12 * size):
        return f"{flat} {'do' if ' and ' in flat else 'does'} not vary inside site-by-arm cells"
    if dependent_columns(c.expected_noise):
        return "a combination of the mediators does not vary inside site-by-arm cells"
    return ""


def one_with_direct_effect(c: Compliances) -> str:
    """Which mediators the treatment moves by exactly the same amount in every site, where that is not allowed."""
    if not c.direct_effect:
        return ""
    noise = np.diag(c.expected_noise)
    whole = np.diag(c.with_direct_effect(free=False).explained) + noise
    if same := _named(c, np.diag(c.explained) + noise <= 1e-12 * whole):
        return (
            f"compliance with {same} is the same in every site, so that its effect is one with a direct effect: "
            "assumption (viii) fails"
        )
    return ""


def _named(c: Compliances, which: npt.NDArray[np.bool_]) -> str:
    return listing([m for m, yes in zip(c.mediators, which, strict=True) if yes]) if which.any() else ""


def _kleibergen_paap(system: System, c: Compliances, rows: Rows | None) -> list[RankTest]:
    m, form = system.within.moments, system.reduced_form
    name = "Kleibergen-Paap rk"
    if why := degenerate(system) or one_with_direct_effect(c):
        return [RankTest(NotApplicable(name, why), "robust")]
    own = slice(1, None)
    found = directions(form.between[own, own], form.within[own, own])
    out = []
    for label in ("robust", *(["cluster"] if m.clusters else [])):
        if label == "cluster" and crossing_clusters(m):
            out.append(RankTest(NotApplicable(name, CROSSED), label))
            continue
        try:
            out += [_rk(system, c, found, label, form_, rows) for form_ in ("LM", "Wald")]
        except MomentsInsufficient as error:
            out.append(RankTest(NotApplicable(name, str(error)), label))
    return out


def _rk(
    system: System, c: Compliances, found: Directions, label: str, form: str, rows: Rows | None
) -> RankTest:
    name = f"Kleibergen-Paap rk {form}"
    restricted = without_instruments(system) if form == "LM" else None
    full = joint_slope_covariance(
        system.within, system.covariates, "cluster" if label == "cluster" else "HC0", rows=rows, restricted=restricted
    )  # fmt: skip
    cov = full.combined(np.eye(1 + c.n_mediators)[:, 1:])  # without the outcome
    weak = found.combinations[:, -1:]
    estimable = cov.combined(weak).estimable(system.within.omega, (c.slopes @ weak)[:, :, 0])
    if short := int((estimable < system.within.rank).sum()):
        where = "cluster" if label == "cluster" else "row"
        return RankTest(
            NotApplicable(
                name,
                f"in {count(short, 'site')} every arm is a single {where} or constant, a variance of zero",
            ),
            label,
        )
    test = kleibergen_paap_test(
        c.slopes, cov, found, mediators=c.mediators, n_instruments=c.n_instruments, free=c.free, label=name
    )
    # Residuals are shorter than errors by what intercepts and slopes take; programs leave that in, or print an F.
    m = system.within.moments
    n, taken = system.nobs, m.n_blocks + len(system.covariates) + system.n_direct
    if label == "cluster":
        n, taken = float(len(m.clusters)), m.n_blocks + system.n_direct
    if form == "LM":
        return RankTest(_times(test, max(n - taken, 1.0) / n), label, test.stat)
    scale = system.df_within / system.nobs
    if label == "cluster":
        scale = system.df_within * (n - 1) / n / (system.nobs - 1)
    small = max(n - taken - c.n_instruments, 1.0) / n
    return RankTest(_times(test, small), label, test.stat * scale / c.n_instruments)


def _times(test: TestStatistic, factor: float) -> TestStatistic:
    """The same test with its statistic multiplied."""
    return chi2_test(test.name, test.null, factor * test.stat, test.df)


def conditional_strength(
    compliances: Compliances, system: System | None, clusters: System | MsmmivError | None
) -> pd.DataFrame:
    """First-stage F of each mediator, alone and given the others, at every level that exists.

    Returns
    -------
    DataFrame
        ``mediator``, ``f`` (of its own first stage), ``conditional_f, p_value`` (Sanderson and Windmeijer), the same
        with clusters as rows (``clusters_f, clusters_conditional_f``), ``effective_f, effective_p_value`` against the
        noise added up over sites, and ``site_f, site_p_value`` against each site's own variance (the F of multivariable
        Mendelian randomization), both given the others. NaN where a figure does not exist; ``note`` says why there is
        no effective F.
    """
    c, rows = compliances, []
    for j, mediator in enumerate(c.mediators):
        unit, conditional = _classical(system, j, mediator)
        clusters_f, clusters_conditional = _classical(
            clusters if isinstance(clusters, System) else None, j, mediator
        )
        effective, by_site = _with_noise(c, j)
        rows.append(
            {"mediator": mediator, "f": unit, "conditional_f": conditional.stat, "p_value": conditional.pvalue,
             "clusters_f": clusters_f, "clusters_conditional_f": clusters_conditional.stat,
             "effective_f": effective.stat, "effective_p_value": effective.pvalue,
             "site_f": by_site.stat, "site_p_value": by_site.pvalue,
             "note": effective.reason if isinstance(effective, NotApplicable) else ""}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _with_noise(c: Compliances, j: int) -> tuple[TestResult, TestResult]:
    """Conditional F against noise added up over sites, and against each site's own."""
    name = c.mediators[j]
    if why := no_noise(c):
        return NotApplicable(name, why), NotApplicable(name, why)
    effective = conditional_effective_f(c.slopes, c.cov, c.projection, c.mediators, name, df=c.pooled_df)
    try:
        return effective, conditional_f_by_site(c.as_effects(j), direct_effect=c.direct_effect)
    except MsmmivError as error:  # a site whose variance is zero
        return effective, NotApplicable(name, str(error))


def _classical(system: System | None, j: int, mediator: str) -> tuple[float, TestResult]:
    """The mediator's own F and its conditional F under homoskedasticity."""
    nothing = NotApplicable("conditional F", "")
    if system is None or system.within.moments.design.weight_kind == "probability":
        return float("nan"), nothing
    form = system.reduced_form
    residual = form.within[1 + j, 1 + j]
    if residual * form.df <= 1e-14 * system.total[1 + j, 1 + j]:
        return float("nan"), nothing
    own = float(form.between[1 + j, 1 + j] / residual / form.n_instruments)
    try:
        return own, conditional_f(form, mediator)
    except np.linalg.LinAlgError:
        return own, nothing
