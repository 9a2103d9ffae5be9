"""Assumption (viii): how differently the treatment moves the mediators in different sites."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.rank_numbers import RankNumbers
from msmmiv.diagnose.rank_page import page
from msmmiv.diagnose.rank_words import reading
from msmmiv.diagnose.separation import compliance_correlation, site_leverage
from msmmiv.diagnose.spectrum import spectrum
from msmmiv.diagnose.strength import (
    conditional_strength,
    no_classical,
    no_noise,
    noise_tests,
    one_with_direct_effect,
    rank_tests,
)
from msmmiv.diagnose.thresholds import thresholds
from msmmiv.diagnose.variation import variation
from msmmiv.errors import DataError, MsmmivError, count, listing
from msmmiv.estimate.system import System, build_system
from msmmiv.inference.rank_tests import cragg_donald_test
from msmmiv.inference.tests import NotApplicable
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.sums import Rows
from msmmiv.moments.within import within_sites
from msmmiv.notebook import card, frame_table, label, prose

__all__ = ["RankReport", "rank"]

_FROM_TABLE = "site effects alone do not hold the residual covariance of the mediators; give moments or data"


@dataclass(frozen=True, eq=False)
class RankReport(RankNumbers):
    """What the sites say about rank; ``str`` gives the page, the frames give the numbers.

    Attributes
    ----------
    mediators, contrasts : tuple
    n_sites, n_instruments : int
        Usable sites and excluded instruments: (viii.b) asks for as many as mediators.
    direct_effect : bool
        Whether the mediators must also be told from a direct effect (a constant column of the matrix).
    compliances : Compliances
        The matrix, with sampling covariances.
    variation : DataFrame
        (viii.a), one row per mediator and contrast: Q, spread across sites with its interval, I2.
    spectrum : Spectrum or None
        (viii.c), one direction per mediator, against the noise floor; None with ``why_no_spectrum``.
    tests : tuple of RankTest
        Null: rank P - 1.
    strength : DataFrame
        First-stage F of each mediator, alone and given the others, with people, clusters and sites' own variances.
    thresholds : DataFrame
        ``statistic, value, criterion, critical, reason``: published critical values where they exist.
    correlation : DataFrame
        Of compliances across sites, per pair of mediators; raw and disattenuated, centred and uncentred.
    leverage : DataFrame
        Which sites carry the identification.
    cragg_donald : float or NotApplicable
        Cragg and Donald's F, with people as rows.
    cluster_level : float or NotApplicable
        The same with every cluster as one row.
    cluster : str
        Name of the cluster column; empty without one.
    constant_in_clusters : tuple of str
        Mediators that have one value per cluster: statistics that count people overstate the strength.
    why_no_spectrum : str
    """

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """The reading in words, most important first."""
        return reading(self)

    @property
    def sentence(self) -> str:
        """The first of them, with what the level of clusters adds."""
        return " ".join(self.sentences[: 2 if self.constant_in_clusters else 1])

    def to_frame(self) -> pd.DataFrame:
        """One row per direction; see `Spectrum.to_frame`. Empty without a spectrum."""
        return pd.DataFrame() if self.spectrum is None else self.spectrum.to_frame()

    def tests_frame(self) -> pd.DataFrame:
        """One row per test: ``test, covariance, statistic, printed, df, p_value, law, reason``."""
        return pd.DataFrame([t.row for t in self.tests])

    def __str__(self) -> str:
        return page(self, self.sentences)

    def _repr_html_(self) -> str:
        names = listing([label(m) for m in self.mediators])
        found = self.strength.select_dtypes("number").dropna(axis="columns", how="all").columns
        numbers = [c for c in found if not str(c).endswith("p_value")]
        directions, caption = self.to_frame(), "Strength by direction, strongest first; noise alone gives 1"
        return card(
            f"Rank, assumption (viii), of {names}", prose(self.sentence, 1200),
            f"{count(self.n_sites, 'site')}, {count(self.n_instruments, 'instrument')}"
            f"{', direct effect free' if self.direct_effect else ''}.",
            prose(self.why_no_spectrum) if directions.empty else
            frame_table(directions, what="directions", caption=caption),
            frame_table(self.strength[["mediator", *numbers]], what="mediators", caption="First-stage F"),
        )  # fmt: skip


def rank(
    source: Moments | SiteEffects,
    *,
    direct_effect: bool = False,
    draws: int = 999,
    seed: int = 0,
    rows: Rows | None = None,
) -> RankReport:
    """Report how well the sites separate the mediators: assumption (viii), in full.

    The estimated compliance matrix always has full rank because of noise, so every combination of mediators is
    measured against what noise alone would give it. Use it before reading coefficients of several mediators, and
    with ``direct_effect=True`` before freeing the direct effect.

    Parameters
    ----------
    source : Moments or SiteEffects
        From site effects (a published table) all but the statistics that need the residual covariance.
    direct_effect : bool
        Ask whether the mediators can also be told apart from a direct effect.
    draws : int
        Of the parametric bootstrap behind the noise floor.
    seed : int
        Of these draws.
    rows : Rows, optional
        Open rows for robust tests with covariates; `Study.rank` supplies them.

    Returns
    -------
    RankReport

    Raises
    ------
    TooFewSitesError
        When (viii.b) fails.
    DataError
        A mediator without any variation, or ``draws`` below 19.
    MomentsInsufficient
        Site effects without sampling covariances.

    Notes
    -----
    With N the cross-products of mediators that the excluded instruments explain and Phi what sampling errors alone
    are expected to add, strengths are the roots of N c = l Phi c. For one mediator l is the effective F; the smallest
    is the statistic of Lewis and Mertens (2022); 1 / l approximates the bias of 2SLS along c as a share of what it
    would be with instruments of pure noise. Without declared clusters each site's own variances are used, with them one
    variance between and inside clusters for all sites.

    Examples
    --------
    >>> import msmmiv as mm
    >>> report = mm.rank(mm.data.star("math_two_mediators"))
    >>> round(report.cragg_donald, 1), round(report.cluster_level, 1)
    (23.8, 0.7)
    >>> report.sentences[0][:50]
    'The effect of tch_exp is not separately identified'
    """
    if draws < 19:
        raise DataError(f"draws={draws} cannot show a 95% floor; use 19 or more, such as 999.")
    system = None
    if isinstance(source, Moments):
        system = build_system(within_sites(source), direct_effect=direct_effect)
        compliances = Compliances.from_system(system)
    else:
        compliances = Compliances.from_effects(source, direct_effect=direct_effect)
    why = _why_no_spectrum(compliances, system)
    residual = system.reduced_form.within[1:, 1:] * system.df_within if system else None
    found = None if why else spectrum(compliances, residual=residual, draws=draws, seed=seed)
    clusters = _at_clusters(system, direct_effect=direct_effect)
    weakest = np.full(compliances.n_mediators, np.nan) if found is None else found.combinations[:, -1]
    return RankReport(
        mediators=compliances.mediators,
        contrasts=compliances.contrasts,
        n_sites=len(compliances.sites),
        n_instruments=compliances.n_instruments,
        direct_effect=direct_effect,
        compliances=compliances,
        variation=variation(compliances),
        spectrum=found,
        tests=rank_tests(system, compliances, rows=rows) if system else noise_tests(compliances),
        strength=conditional_strength(compliances, system, clusters),
        thresholds=thresholds(compliances, system, found),
        correlation=compliance_correlation(compliances),
        leverage=site_leverage(compliances, weakest),
        cragg_donald=_cragg_donald(system, "Cragg-Donald F", _FROM_TABLE),
        cluster_level=_cluster_level(clusters),
        cluster=str(system.within.moments.design.cluster or "") if system else "",
        constant_in_clusters=_constant_in_clusters(system),
        why_no_spectrum=why,
    )


def _why_no_spectrum(c: Compliances, system: System | None) -> str:
    """Why no direction can be set against noise; empty when all can."""
    inside = no_classical(system) if system else ""
    return one_with_direct_effect(c) or (inside if "assumption (viii) fails" in inside else no_noise(c))


def _at_clusters(system: System | None, *, direct_effect: bool) -> System | MsmmivError | None:
    """The system with every cluster as one row, or why there is none."""
    if system is None or not system.within.moments.clusters:
        return None
    try:
        return build_system(within_sites(system.within.moments.cluster_means()), direct_effect=direct_effect)
    except MsmmivError as error:
        return error


def _cluster_level(clusters: System | MsmmivError | None) -> float | NotApplicable:
    name = "Cragg-Donald F, clusters as rows"
    if isinstance(clusters, MsmmivError):
        return NotApplicable(name, str(clusters))
    return _cragg_donald(clusters, name, "no cluster is declared")


def _cragg_donald(system: System | None, name: str, without: str) -> float | NotApplicable:
    if system is None:
        return NotApplicable(name, without)
    if why := no_classical(system):
        return NotApplicable(name, why)
    return cragg_donald_test(system.reduced_form).stat / system.n_excluded


def _constant_in_clusters(system: System | None) -> tuple[str, ...]:
    """Mediators that have one value per cluster."""
    if system is None or not system.within.moments.clusters:
        return ()
    m = system.within.moments
    inside, overall = np.einsum("cjj->j", m.first.scatter), system.within.overall
    return tuple(n for j, n in enumerate(m.design.mediators, start=1) if inside[j] <= 1e-12 * overall[j])
