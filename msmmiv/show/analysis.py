"""Everything a report shows, gathered in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from msmmiv.audit.result import Audit
from msmmiv.diagnose.heterogeneity import Heterogeneity
from msmmiv.diagnose.rank import RankReport
from msmmiv.estimate.bias import BiasDecomposition
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable
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
    two_stage : Estimate
        2SLS with the headline's direct effect: the headline itself, or what is shown beside it.
    fits : tuple of Estimate
        All estimates, the headline first.
    skipped : tuple of str
        Estimates that could not be computed, each with the reason.
    rank : RankReport
    anderson_rubin : tuple of ConfidenceSet or NotApplicable
        Robust sets, one per mediator.
    heterogeneity : Heterogeneity or NotApplicable
    bias : BiasDecomposition or NotApplicable
    leave_one_out : DataFrame or NotApplicable
        Coefficients of the headline's estimator without each site in turn.
    audit : Audit
        Nine findings.
    stamp : mapping of str to str, optional
        What the numbers were made from, where a study file says it: hashes of the file and of the data, and the seed.
    """

    title: str
    source: str
    moments: Moments
    effects: SiteEffects
    headline: Estimate
    two_stage: Estimate
    fits: tuple[Estimate, ...]
    skipped: tuple[str, ...]
    rank: RankReport
    anderson_rubin: tuple[ConfidenceSet | NotApplicable, ...]
    heterogeneity: Heterogeneity | NotApplicable
    bias: BiasDecomposition | NotApplicable
    leave_one_out: pd.DataFrame | NotApplicable
    audit: Audit
    stamp: Mapping[str, str] | None = None
