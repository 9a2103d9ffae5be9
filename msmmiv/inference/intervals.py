"""Statistics, p-values and confidence sets of coefficients: by Wald's principle or from the scores of sites."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msmmiv.errors import DataError, listing
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.tests import NotApplicable, TestResult
from msmmiv.linalg import Array

__all__ = ["Intervals"]


@dataclass(frozen=True, eq=False)
class Intervals:
    """Coefficients with what inference about each of them needs; `Estimate` delegates to it.

    Attributes
    ----------
    terms : tuple of str
    coefficients, df : (k,) arrays
    covariance : (k, k) array
    scores : SiteEquations or None
        Where given, its terms are tested by their site scores instead of by Wald's principle.
    status : str or None
        Why there is no estimate.
    """

    terms: tuple[str, ...]
    coefficients: Array
    covariance: Array
    df: Array
    scores: SiteEquations | None
    status: str | None

    @cached_property
    def _tests(self) -> dict[int, TestResult]:
        """Score tests of zero; covariates are estimated inside sites and keep Wald's."""
        if self.scores is None:
            return {}
        return {
            j: self.scores.score_test({t: 0.0}, small_sample="CR0") for j, t in enumerate(self.scores.terms)
        }

    @cached_property
    def errors(self) -> Array:
        """(k,) standard errors."""
        return np.sqrt(np.diag(self.covariance))

    @cached_property
    def statistics(self) -> Array:
        """(k,) t ratios, or roots of the score statistics with the sign of the estimate."""
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Array = self.coefficients / self.errors
        for j, test in self._tests.items():
            out[j] = np.copysign(np.sqrt(test.stat), self.coefficients[j])
        return out

    @cached_property
    def pvalues(self) -> Array:
        """(k,) two-sided p-values of zero."""
        from scipy.special import stdtr

        out: Array = 2.0 * stdtr(self.df, -np.abs(self.statistics))
        for j, test in self._tests.items():
            out[j] = test.pvalue
        return out

    def set_of(self, term: str, level: float) -> ConfidenceSet:
        """Confidence set of one coefficient; see `Estimate.confidence_set`."""
        if term not in self.terms:
            raise DataError(f"No term {term!r}; the terms are {listing(self.terms, quote=True)}.")
        if self.scores is not None and term in self.scores.terms:
            found = self.scores.score_set(term, level=level, small_sample="CR0")
            if isinstance(found, NotApplicable):
                return ConfidenceSet(((-np.inf, np.inf),), level, f"site scores: {found.reason}", term)
            return found
        if self.status is not None:
            raise DataError(
                f"There is no Wald interval: {self.status}. Ask for interval='score', or for anderson_rubin_set()."
            )
        j = self.terms.index(term)
        low, high = self._wald(level)[j]
        if not np.isfinite(high - low):
            raise DataError(
                f"There is no Wald interval for {term!r}: its standard error or its df do not exist."
            )
        return ConfidenceSet(((float(low), float(high)),), level, f"Wald, t with {self.df[j]:.4g} df", term)

    def ends(self, level: float) -> Array:
        """(k, 2) hulls of the sets, NaN where there is none."""
        out = self._wald(level)
        if self.scores is not None:
            for j, term in enumerate(self.scores.terms):
                out[j] = self.set_of(term, level).hull
        return out

    def _wald(self, level: float) -> Array:
        from scipy.special import stdtrit

        if not 0 < level < 1:
            raise DataError(f"level must lie between 0 and 1, not {level!r}.")
        half = stdtrit(self.df, 0.5 + level / 2.0) * self.errors
        return np.column_stack([self.coefficients - half, self.coefficients + half])
