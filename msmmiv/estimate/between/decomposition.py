"""Decomposition: what the between-site regression says about indirect and direct effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.errors import DataError, MsmmivError, listing
from msmmiv.estimate.between.cautions import cautions_of
from msmmiv.estimate.between.corrected import BCES
from msmmiv.estimate.between.decomposition_page import page
from msmmiv.estimate.between.direct_spread import DirectSpread, direct_spread
from msmmiv.estimate.between.effects import intercept_pvalue, intercept_set
from msmmiv.estimate.between.effects_table import effects_frame, site_effects_frame
from msmmiv.estimate.between.interaction import baseline_test
from msmmiv.estimate.between.methods import METHODS, BetweenEstimator, BetweenMethod, run
from msmmiv.estimate.between.pairs import pairs_percentile_t
from msmmiv.estimate.between.polynomial import Degree, PolynomialEffect, polynomial
from msmmiv.estimate.between.reml_bootstrap import reml_bootstrap
from msmmiv.estimate.between.rlr import rlr_test
from msmmiv.estimate.between.rows import DIRECT, BetweenFit, BetweenRows
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.estimate.between.wild_score import wild_score
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.linalg import Array
from msmmiv.notebook import card, frame_table, label, number, prose
from msmmiv.progress import watched

__all__ = ["Decomposition"]

#: Rows below which the likelihood ratio is compared with simulations.
_FEW = 30
#: Correlations of the sensitivity band (every second one with several mediators), and draws for each.
_CORRELATIONS = (-1.0, -0.5, 0.0, 0.5, 1.0)
_BAND_DRAWS = 499
#: Rows from which the band takes more than about two seconds.
_LONG = 50


@dataclass(frozen=True, eq=False, kw_only=True)
class Decomposition:
    """Effects through mediators and past them; ``str`` gives the page, frames the numbers.

    Attributes
    ----------
    rows : BetweenRows
        What was regressed.
    fit : BetweenFit
        Point estimates and their own standard errors.
    by_default : bool
        Structural REML with sets from the empirical-Bayes score, rather than a method that was named.
    shares : (K,) array
        Weights of the rows in average effects.
    level : float
    draws, seed : int
        Of simulated critical values and bootstraps.
    individual : tuple of Estimate
        Individual-level estimators with the treatment as a regressor (from moments).
    baseline : BetweenRows or NotApplicable
        Control levels of the mediator by site, for the reading under interaction.
    notes : tuple of str
    """

    rows: BetweenRows
    fit: BetweenFit
    by_default: bool
    shares: Array
    level: float
    draws: int
    seed: int
    individual: tuple[Estimate, ...]
    baseline: BetweenRows | NotApplicable
    notes: tuple[str, ...]

    # -- coefficients ---------------------------------------------------------------------------

    def _series(self, values: Any, name: str) -> pd.Series[float]:
        index = pd.Index(self.rows.terms, name="term")
        return pd.Series(np.array(values, dtype=float), index=index, name=name)

    @property
    def method(self) -> str:
        """Where the point estimates come from."""
        return self.fit.method

    @property
    def status(self) -> str | None:
        """Why there is no point estimate."""
        return self.fit.status

    @property
    def params(self) -> pd.Series[float]:
        """Mediator effects, direct effect, coefficients of site covariates."""
        return self._series(self.fit.coefficients, "estimate")

    @property
    def std_errors(self) -> pd.Series[float]:
        """Standard errors of the point estimates; with weak compliances the sets say more."""
        return self._series(self.fit.std_errors, "std_error")

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance of the point estimates."""
        return pd.DataFrame(self.fit.covariance.copy(), self.rows.terms, list(self.rows.terms))

    @cached_property
    def slope_tests(self) -> dict[str, SlopeTest]:
        """The empirical-Bayes score test of each mediator."""
        return {m: SlopeTest.of(self.rows, m, draws=self.draws, seed=self.seed) for m in self.rows.mediators}

    @cached_property
    def slope_sets(self) -> dict[str, ConfidenceSet]:
        """Confidence sets of the mediator effects at ``level``, whatever the method."""
        return {m: test.confidence_set(self.level) for m, test in self.slope_tests.items()}

    def confidence_set(self, term: str, level: float | None = None) -> ConfidenceSet:
        """Values of a coefficient that are not rejected: possibly a ray, two, or the whole line.

        By default from the empirical-Bayes score; with a named method its own interval.

        Raises
        ------
        DataError
            An unknown term, or a named method without an estimate.
        """
        level = self.level if level is None else level
        if term not in self.rows.terms:
            raise DataError(f"No term {term!r}; the terms are {listing(self.rows.terms, quote=True)}.")
        if self.by_default and term in self.slope_tests:
            return (
                self.slope_sets[term] if level == self.level else self.slope_tests[term].confidence_set(level)
            )
        if self._profiled:
            column = self.rows.exogenous.index(term)
            slope = self.confidence_set(self.rows.mediators[0], level)
            return intercept_set(self.slope_tests[self.rows.mediators[0]], slope, column)
        if self.status is not None:
            raise DataError(
                f"{self.method} has no interval: {self.status}. The default has a set: leave method out."
            )
        low, high = (float(v) for v in self.fit.conf_int(level)[self.rows.terms.index(term)])
        if not np.isfinite([low, high]).all():
            return ConfidenceSet(((-np.inf, np.inf),), level, f"{self.method}: no standard error", term)
        return ConfidenceSet(((low, high),), level, self.method, term)

    def conf_int(self, level: float | None = None) -> pd.DataFrame:
        """Hulls of the confidence sets: columns ``lower`` and ``upper``; NaN where there is none."""
        return pd.DataFrame(
            [self._hull(t, level) for t in self.rows.terms], self.params.index, ["lower", "upper"]
        )

    def _hull(self, term: str, level: float | None) -> tuple[float, float]:
        try:
            return self.confidence_set(term, level).hull
        except DataError:
            if self.status is None:
                raise
            return (float("nan"), float("nan"))

    @property
    def _profiled(self) -> bool:
        """Whether coefficients of regressors without error have sets with the slope profiled out."""
        return self.by_default and len(self.rows.mediators) == 1

    @cached_property
    def _tested(self) -> tuple[Array, Array]:
        """Statistics and p-values of zero."""
        from scipy.special import ndtri, stdtr

        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.asarray(self.fit.coefficients / self.fit.std_errors, dtype=np.float64)
        p = np.asarray(2.0 * stdtr(min(self.fit.df, 1e10), -np.abs(t)), dtype=np.float64)
        if self.by_default:
            for j, test in enumerate(self.slope_tests.values()):
                zero = test.test(0.0)
                t[j], p[j] = zero.stat, zero.pvalue
        if self._profiled:
            ((name, test),) = self.slope_tests.items()
            for j in range(len(self.rows.exogenous)):
                p[1 + j] = intercept_pvalue(test, self.slope_sets[name], j)
                t[1 + j] = np.copysign(ndtri(1.0 - p[1 + j] / 2.0), self.fit.coefficients[1 + j])
        return t, p

    @property
    def pvalues(self) -> pd.Series[float]:
        """Two-sided p-values of zero that go with the sets: of the score by default, otherwise of t ratios."""
        return self._series(self._tested[1], "p_value")

    def tidy(self, level: float | None = None) -> pd.DataFrame:
        """One row per term: ``term, estimate, std_error, statistic, p_value, conf_low, conf_high, method, cov_type``.

        By default statistics of mediators are those of the score, with one mediator those of the other terms normal
        quantiles of their p-values (slope profiled out); otherwise t ratios (``cov_type`` "own").
        """
        ends = self.conf_int(level).to_numpy()
        statistic, p = self._tested
        kind = np.full(len(statistic), "eb_score" if self.by_default else "own", dtype=object)
        if not self._profiled:
            kind[len(self.rows.mediators) :] = "own"
        return pd.DataFrame({
            "term": list(self.rows.terms), "estimate": self.fit.coefficients, "std_error": self.fit.std_errors,
            "statistic": statistic, "p_value": p, "conf_low": ends[:, 0], "conf_high": ends[:, 1],
            "method": self.method, "cov_type": kind,
        })  # fmt: skip

    # -- effects --------------------------------------------------------------------------------

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Average effects at these sites: ``effect, estimate, lower, upper, p_value, set, status``.

        Rows: total effect, indirect effect of each mediator, direct effect, share mediated (of each).
        """
        return effects_frame(self.fit, self.slope_tests, self.slope_sets, self.shares)

    @cached_property
    def site_effects(self) -> pd.DataFrame:
        """Indirect and direct effect of every row with their intervals."""
        return site_effects_frame(self.fit, self.slope_tests, self.slope_sets)

    @cached_property
    def direct_spread(self) -> DirectSpread:
        """Whether direct effects differ between rows, and by how much."""
        start: Array = self.fit.coefficients[: len(self.rows.mediators)]
        if not np.isfinite(start).all():
            start = next(iter(self.slope_tests.values())).effects
        return direct_spread(self.rows, start, level=self.level)

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """What the rows themselves say against reading the sets as they stand."""
        return cautions_of(self.rows, self.slope_tests, self.direct_spread)

    # -- tests ----------------------------------------------------------------------------------

    @cached_property
    def tests(self) -> tuple[TestResult, ...]:
        """Tests of no effect of each mediator, the one behind the sets first."""
        out: list[TestResult] = []
        for mediator, test in self.slope_tests.items():
            out.append(test.test(0.0))
            if test.reference == "bootstrap":
                out.append(SlopeTest(self.rows, mediator, "t").test(0.0))
        if len(self.rows.mediators) == 1:
            asked: dict[str, Callable[[BetweenRows], TestResult]] = {"restricted likelihood ratio": rlr_test}
            if self._few:
                asked["restricted likelihood ratio, bootstrap"] = self._simulated
            asked |= {"wild score": self._wild, "BCES, pairs percentile-t": self._pairs}
            out += [self._tried(name, test) for name, test in asked.items()]
        return tuple(out)

    @property
    def _few(self) -> bool:
        return self.rows.n_rows < _FEW and self.rows.cross is None and self.rows.has_direct_effect

    def _simulated(self, rows: BetweenRows) -> TestStatistic:
        found = reml_bootstrap(rows, draws=self.draws, seed=self.seed)
        return TestStatistic(found.name, found.null, found.stat, found.pvalue, 1, law=found.dist)

    def _wild(self, rows: BetweenRows) -> TestStatistic:
        found = wild_score(rows, seed=self.seed)
        law = f"{found.dist}, smallest p {found.smallest:.2g}"
        return TestStatistic(found.name, found.null, found.stat, found.pvalue, 1, law=law)

    def _pairs(self, rows: BetweenRows) -> TestResult:
        name, fit = "BCES, pairs percentile-t", BCES().solve(rows)
        if fit.status is not None:
            return NotApplicable(name, fit.status)
        found = pairs_percentile_t(rows, BCES(), draws=self.draws, level=self.level, seed=self.seed)
        if found.status is not None:
            return NotApplicable(name, found.status)
        t = float(fit.coefficients[0] / fit.std_errors[0])
        p = max(float(found.pvalues[0]), 1.0 / (self.draws + 1.0))  # what so many draws can show
        law = "resampled rows; rejects a true null in up to 35% of samples, for comparison only"
        return TestStatistic(name, f"the effect of {rows.mediators[0]} is 0", t, p, 1, law=law)

    def _tried(self, name: str, test: Callable[[BetweenRows], TestResult]) -> TestResult:
        try:
            return test(self.rows)
        except MsmmivError as why:
            return NotApplicable(name, str(why))

    @cached_property
    def interaction(self) -> TestResult:
        """The extra condition of the reading under interaction: control levels unrelated to compliance."""
        return baseline_test(self.baseline, draws=self.draws, seed=self.seed)

    # -- what if --------------------------------------------------------------------------------

    @cached_property
    def sensitivity(self) -> pd.DataFrame:
        """Slopes and sets under sampling correlations of itt and one compliance from -1 to 1, the others' left at zero.

        Columns ``correlation, term, estimate, lower, upper, set``; empty where the covariance is known.
        """
        names = ["correlation", "term", "estimate", "lower", "upper", "set"]
        if not self.rows.zero_covariance_assumed:
            return pd.DataFrame(columns=names)
        method: BetweenMethod = "reml" if self.by_default and self.has_direct_effect else "eb_score"
        several = len(self.rows.mediators) > 1
        cases = [
            (j, c) for j in range(len(self.rows.mediators)) for c in _CORRELATIONS[:: 2 if several else 1]
        ]
        out = []
        for j, value in watched(cases, what="sensitivity", show=several or self.rows.n_rows > _LONG):
            # Just inside one, where the two errors of a row would be a single number.
            rows, term = self.rows.with_correlation(j, 0.999 * value), self.rows.mediators[j]
            fit = run(method, rows, seed=self.seed)
            test = SlopeTest.of(rows, term, draws=min(self.draws, _BAND_DRAWS), seed=self.seed)
            found = test.confidence_set(self.level)
            out.append((value, term, fit.coefficients[j], *found.hull, str(found)))
        return pd.DataFrame(out, columns=names)

    def polynomial(self, *, degree: Degree = 1) -> PolynomialEffect:
        """Mediator effects that change with compliance (Fu's Remark 1), errors corrected; see `PolynomialEffect`."""
        return polynomial(self.rows, degree=degree)

    def compare(self, methods: Sequence[BetweenMethod | BetweenEstimator] | None = None) -> pd.DataFrame:
        """Tidy rows of several estimators with their own intervals, and why one has no estimate.

        Columns ``term, estimate, std_error, conf_low, conf_high, method, status``.
        """
        out = []
        for method in tuple(METHODS) if methods is None else methods:
            name = method if isinstance(method, str) else method.name
            try:
                fit = run(method, self.rows, seed=self.seed)
            except MsmmivError as why:
                fit = BetweenFit.without_estimate(name, self.rows, str(why))
            ends = fit.conf_int(self.level)
            for j, term in enumerate(fit.terms):
                status = fit.status or ("" if np.isfinite(fit.std_errors[j]) else "no standard error")
                out.append((term, fit.coefficients[j], fit.std_errors[j], *ends[j], fit.method, status))
        names = ["term", "estimate", "std_error", "conf_low", "conf_high", "method", "status"]
        return pd.DataFrame(out, columns=names)

    # -- words ----------------------------------------------------------------------------------

    @property
    def has_direct_effect(self) -> bool:
        """Whether a direct effect was left free."""
        return DIRECT in self.rows.exogenous

    @cached_property
    def summary(self) -> str:
        """The decomposition as a page of text."""
        return page(self)

    def __str__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        through = f"On {label(self.rows.outcome)} through {listing([label(m) for m in self.rows.mediators])}"
        lead = zip(*(self.effects[c].head(3) for c in ("effect", "estimate", "set")), strict=True)
        return card(
            "; ".join(f"{label(e)} {number(b)}, set {label(s)}" for e, b, s in lead),
            f"{through}, {label(self.method)}.",
            prose(self.status or ""), frame_table(self.effects, what="effects"),
            frame_table(self.tidy(), what="terms", caption="Coefficients"), notes=[*self.notes, *self.cautions][:5],
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON-able values: labels as text, None where a number is infinite or missing."""
        found = {
            "method": self.method, "status": self.status, "level": self.level, "seed": self.seed,
            "draws": self.draws, "terms": self.tidy().to_dict("records"),
            "sets": {t: s.to_dict() for t, s in self.slope_sets.items()},
            "effects": self.effects.to_dict("records"), "sites": self.site_effects.to_dict("records"),
            "direct_spread": str(self.direct_spread), "tests": [str(t) for t in self.tests],
            "interaction": str(self.interaction), "sensitivity": self.sensitivity.to_dict("records"),
            "notes": [*self.notes, *self.cautions, *self.fit.notes],
        }  # fmt: skip
        plain: dict[str, Any] = _plain(found)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)
