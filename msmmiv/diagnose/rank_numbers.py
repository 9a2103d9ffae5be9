"""RankNumbers: every figure about assumption (viii), before anything is said about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.spectrum import Spectrum
from msmmiv.diagnose.strength import RankTest
from msmmiv.inference.tests import NotApplicable

__all__ = ["RankNumbers"]


@dataclass(frozen=True, eq=False)
class RankNumbers:
    """What the sites say about rank, in numbers.

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

    mediators: tuple[str, ...]
    contrasts: tuple[Label, ...]
    n_sites: int
    n_instruments: int
    direct_effect: bool
    compliances: Compliances
    variation: pd.DataFrame
    spectrum: Spectrum | None
    tests: tuple[RankTest, ...]
    strength: pd.DataFrame
    thresholds: pd.DataFrame
    correlation: pd.DataFrame
    leverage: pd.DataFrame
    cragg_donald: float | NotApplicable
    cluster_level: float | NotApplicable
    cluster: str
    constant_in_clusters: tuple[str, ...]
    why_no_spectrum: str

    @property
    def n_mediators(self) -> int:
        """P."""
        return len(self.mediators)

    @property
    def noise(self) -> str:
        """Whose variances the noise floor uses."""
        return self.compliances.noise

    @property
    def median_df(self) -> float:
        """Degrees of freedom behind a typical site's variance."""
        return float(np.median(self.compliances.df))
