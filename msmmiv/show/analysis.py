"""Everything a report shows, gathered in one frozen object."""

from __future__ import annotations

from dataclasses import dataclass

from msmmiv.diagnose.rank import RankReport
from msmmiv.inference.results import Estimate
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["Analysis"]


@dataclass(frozen=True, eq=False)
class Analysis:
    """The parts of an analysis, made by `Study.analysis`.

    Attributes
    ----------
    title : str
    source : str
        Where the data came from, in words.
    moments : Moments
    effects : SiteEffects
    headline : Estimate
        The estimate that is read first.
    fits : tuple of Estimate
        All estimates, the headline first.
    skipped : tuple of str
        Estimates that could not be computed, each with the reason.
    rank : RankReport
    """

    title: str
    source: str
    moments: Moments
    effects: SiteEffects
    headline: Estimate
    fits: tuple[Estimate, ...]
    skipped: tuple[str, ...]
    rank: RankReport
