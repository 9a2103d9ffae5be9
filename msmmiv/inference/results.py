"""Estimate: coefficients with their covariance, their meaning in words, and the diagnostics that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import MomentsInsufficient, listing
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.estimate_card import estimate_card
from msmmiv.inference.intervals import Intervals
from msmmiv.inference.ivreg2 import Identification, Ivreg2Page, ivreg2_page
from msmmiv.inference.maketables import ForMaketables
from msmmiv.inference.stage import FirstStage
from msmmiv.inference.tests import TestResult, TestStatistic
from msmmiv.inference.wald import wald_test
from msmmiv.linalg import Array
from msmmiv.moments.flow import SampleFlow

__all__ = ["Estimate", "Interval"]

Interval: TypeAlias = Literal["wald", "score"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimate(ForMaketables):
    """The result of a fit: never changes, prints itself, converts to tidy frames.

    Attributes
    ----------
    method : str
        Name of the estimator.
    terms : tuple of str
        Mediators, then direct effects, then covariates.
    coefficients : (k,) array
    covariance : (k, k) array
    cov_type : str
    small_sample : str or None
        CR correction of clustered covariances.
    status : str or None
        Why there is no point estimate; None when there is one.
    df : (k,) array
        Degrees of freedom of each coefficient's t test.
    interval : {"wald", "score"}
        Where intervals and p-values come from: estimate and standard error, or the scores of the sites, which
        never divide by a denominator that may be zero.
    solve_equations : callable or None
        Makes `equations`.
    rule : str
        Which rule chose the estimator and why; empty when it was asked for by name.
    beside : tuple of Estimate
        What the reader should see next to it: 2SLS where the rule chose something else.
    nobs : int
        Rows (copies, with frequency weights).
    n_sites, n_intercepts, n_instruments : int
        Usable sites, absorbed intercepts, site-by-treatment instruments.
    n_clusters : int or None
    direct_effect : bool
        Whether a direct effect of the treatment was left free.
    estimand : str
        What the coefficients estimate, in words.
    target : str
        What the standard errors hold fixed, in words.
    rss, sigma2, r2, r2_within : float
        Residual sum of squares, its mean over n - k (k with absorbed intercepts), and shares explained of
        the variance around the overall mean and around the intercepts.
    first_stage : tuple of FirstStage
    reduced_form : FirstStage
    sargan, basmann : TestResult
        Tests of the surplus instruments under homoskedasticity.
    wu_hausman, wu_hausman_robust : TestResult
        Least squares against two-stage least squares, classical and with the covariance of the fit.
    notes : tuple of str
        What a reader must know before using the numbers.
    design : Design
    flow : SampleFlow
    seed : int or None
    identify : callable or None
        Makes the tests of identification that `ivreg2` prints.
    """

    method: str
    terms: tuple[str, ...]
    coefficients: Array
    covariance: Array
    cov_type: str
    small_sample: str | None
    status: str | None
    df: Array
    interval: Interval
    solve_equations: Callable[[], SiteEquations] | None = field(repr=False)
    rule: str
    nobs: int
    n_sites: int
    n_intercepts: int
    n_instruments: int
    n_clusters: int | None
    direct_effect: bool
    estimand: str
    target: str
    rss: float
    sigma2: float
    r2: float
    r2_within: float
    first_stage: tuple[FirstStage, ...]
    reduced_form: FirstStage
    sargan: TestResult
    basmann: TestResult
    wu_hausman: TestResult
    wu_hausman_robust: TestResult
    notes: tuple[str, ...]
    design: Design
    flow: SampleFlow
    beside: tuple[Estimate, ...] = ()
    seed: int | None = None
    identify: Callable[[], Identification] | None = field(default=None, repr=False)

    def _series(self, values: npt.ArrayLike, name: str) -> pd.Series[float]:
        return pd.Series(np.array(values, dtype=float), index=pd.Index(self.terms, name="term"), name=name)

    @property
    def params(self) -> pd.Series[float]:
        """Coefficients by term."""
        return self._series(self.coefficients, "estimate")

    @property
    def cov(self) -> pd.DataFrame:
        """Covariance of the coefficients."""
        return pd.DataFrame(self.covariance.copy(), index=list(self.terms), columns=list(self.terms))

    @property
    def std_errors(self) -> pd.Series[float]:
        """Standard errors by term."""
        return self._series(np.sqrt(np.diag(self.covariance)), "std_error")

    @property
    def df_resid(self) -> float:
        """Degrees of freedom of t and F references: the smallest over the coefficients."""
        return float(self.df.min())

    @cached_property
    def equations(self) -> SiteEquations | None:
        """Estimating equations of mediators and direct effects, site by site; None for BC estimators."""
        return None if self.solve_equations is None else self.solve_equations()

    @cached_property
    def _intervals(self) -> Intervals:
        scores = self.equations if self.interval == "score" else None
        return Intervals(self.terms, self.coefficients, self.covariance, self.df, scores, self.status)

    @property
    def tstats(self) -> pd.Series[float]:
        """What the p-values rest on: estimate over standard error, or the t of the site scores at zero."""
        return self._series(self._intervals.statistics, "statistic")

    @property
    def pvalues(self) -> pd.Series[float]:
        """Two-sided p-values of zero effects, from t with ``df`` degrees of freedom."""
        return self._series(self._intervals.pvalues, "p_value")

    def confidence_set(self, term: str, level: float = 0.95) -> ConfidenceSet:
        """The set of values of one coefficient that its test does not reject.

        An interval in good cases; two rays, the whole line or nothing in others. With ``interval="score"`` it
        inverts the test of the site scores, otherwise it is the Wald interval.

        Raises
        ------
        DataError
            Unknown term; or a Wald interval where there is no point estimate.

        Examples
        --------
        >>> import msmmiv as mm
        >>> fit = mm.fit(mm.data.star(), "ujive", interval="score")
        >>> print(fit.confidence_set("class_size"))
        [-1.815, -0.5578]
        """
        return self._intervals.set_of(term, level)

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """Intervals by term: columns ``lower`` and ``upper``, the hull of the `confidence_set`.

        Ends are infinite where the set is unbounded and NaN where there is none; a set of several pieces is
        wider than it says here, and the summary prints the pieces.

        Examples
        --------
        >>> import msmmiv as mm
        >>> mm.fit(mm.data.star(), "2sls").conf_int().round(2).loc["class_size"].tolist()
        [-1.65, -0.58]
        """
        return pd.DataFrame(self._intervals.ends(level), self.params.index, ["lower", "upper"])

    def to_columns(self, level: float = 0.95) -> dict[str, list[Any]]:
        """The columns of `tidy` as plain lists, for stacking many fits at little cost."""
        ends = self._intervals.ends(level)
        numbers = (
            self.coefficients, self._intervals.errors, self._intervals.statistics, self._intervals.pvalues,
            ends[:, 0], ends[:, 1],
        )  # fmt: skip
        names = ("estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high")
        size = len(self.terms)
        return {
            "term": list(self.terms),
            **{n: v.tolist() for n, v in zip(names, numbers, strict=True)},
            "method": [self.method] * size,
            "cov_type": [self.cov_type] * size,
        }

    def tidy(self, level: float = 0.95) -> pd.DataFrame:
        """One row per term, with stable column names.

        Returns
        -------
        DataFrame
            ``term, estimate, std_error, statistic, p_value, conf_low, conf_high, method, cov_type``.
        """
        return pd.DataFrame(self.to_columns(level))

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit; with several mediators the first-stage F is the smallest."""
        weakest = min((f.f_classical.stat for f in self.first_stage), default=np.nan)
        return pd.DataFrame(
            [{
                "method": self.method, "cov_type": self.cov_type, "small_sample": self.small_sample,
                "direct_effect": self.direct_effect, "interval": self.interval, "status": self.status,
                "nobs": self.nobs, "n_sites": self.n_sites,
                "n_clusters": self.n_clusters, "n_intercepts": self.n_intercepts,
                "n_instruments": self.n_instruments, "df_resid": self.df_resid, "rss": self.rss,
                "sigma": self.sigma2**0.5, "r2": self.r2, "r2_within": self.r2_within,
                "first_stage_f_min": weakest, "sargan": self.sargan.stat, "sargan_p": self.sargan.pvalue,
                "wu_hausman": self.wu_hausman.stat, "wu_hausman_p": self.wu_hausman.pvalue,
                "design": self.design.digest,
            }]
        )  # fmt: skip

    def diagnostics(self) -> pd.DataFrame:
        """Every test of the fit in one frame: ``test, null, statistic, dist, p_value, note``."""
        tests: list[TestResult] = []
        for stage in self.first_stage:
            tests += [stage.f_classical, stage.f_robust]
        tests += [self.sargan, self.basmann, self.wu_hausman, self.wu_hausman_robust]
        return pd.DataFrame(
            [
                (t.name, t.null, t.stat, t.dist, t.pvalue, "")
                if isinstance(t, TestStatistic)
                else (t.name, "", t.stat, "", t.pvalue, t.reason)
                for t in tests
            ],
            columns=["test", "null", "statistic", "dist", "p_value", "note"],
        )

    def wald_test(
        self, restriction: npt.ArrayLike | Sequence[str], value: npt.ArrayLike | None = None
    ) -> TestStatistic:
        """F test of linear restrictions ``R b = q`` with the covariance of the fit.

        Parameters
        ----------
        restriction : (r, k) array or sequence of str
            R, or names of terms that are jointly ``value``.
        value : (r,) array, optional
            q; zero if left out.

        Raises
        ------
        DataError
            Unknown terms, wrong shapes, or restrictions that repeat each other.

        Examples
        --------
        >>> import msmmiv as mm
        >>> fit = mm.fit(mm.data.star(), "2sls")
        >>> round(fit.wald_test(["class_size"]).stat, 6) == round(float(fit.tstats["class_size"]) ** 2, 6)
        True
        """
        return wald_test(self.terms, self.coefficients, self.covariance, restriction, value, df=self.df_resid)

    def ivreg2(self) -> Ivreg2Page:
        """The fit as a page in the order of Stata's ivreg2, with that program's numbers; see docs/tables.md.

        Raises
        ------
        ChoiceError
            Not 2SLS, LIML or Fuller.
        MomentsInsufficient
            A fit that `msmmiv.fit` did not make.
        """
        if self.identify is None:
            raise MomentsInsufficient(
                "Tests of identification need the moments behind a fit; this one has none."
            )
        return ivreg2_page(self, self.identify())

    @property
    def summary(self) -> str:
        """The fit as a page of text."""
        return summarise(self)

    def __str__(self) -> str:
        return self.summary

    _repr_html_ = estimate_card

    def to_dict(self) -> dict[str, Any]:
        """Everything but the site tables as JSON-able values."""
        return {
            "method": self.method,
            "estimand": self.estimand,
            "target": self.target,
            "status": self.status,
            "rule": self.rule,
            "terms": self.tidy().to_dict("records"),
            "covariance": self.covariance.tolist(),
            "glance": self.glance().to_dict("records")[0],
            "diagnostics": self.diagnostics().to_dict("records"),
            "notes": list(self.notes),
            "design": self.design.to_dict(),
            "flow": self.flow.to_dict(),
            "seed": self.seed,
        }


def summarise(fit: Estimate) -> str:
    """Text page of a fit; `Estimate.summary` is the public way."""
    cov = fit.cov_type + (f" ({fit.small_sample})" if fit.small_sample else "")
    clusters = f", {fit.n_clusters} clusters" if fit.n_clusters and fit.cov_type != "site" else ""
    extra = ", direct effect free" if fit.direct_effect else ""
    header = "".join(
        f"{c:>12}" for c in ("estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high")
    )
    lines = [
        f"{fit.method} of {fit.design.outcome} on {listing(fit.design.mediators)}{extra}",
        f"{fit.nobs:,} rows, {fit.n_sites} sites, {fit.n_instruments} instruments{clusters}",
        f"{cov} covariance, {_reference(fit)}",
        "",
        f"{'':<20}{header}",
    ]
    numbers = fit.tidy().drop(columns=["method", "cov_type"])
    for term, est, se, t, p, low, high in numbers.itertuples(index=False):
        lines.append(
            f"{_short(str(term), 19):<20}{est:>12.5g}{se:>12.5g}{t:>12.3f}{p:>12.4f}{low:>12.5g}{high:>12.5g}"
        )
    lines += _sets(fit)
    if fit.status:
        lines += ["", f"No point estimate: {fit.status}."]
    if fit.rule:
        lines += ["", f"Chosen by rule: {fit.rule}"]
    lines += [line for other in fit.beside for line in _beside(other)]
    lines += ["", f"Estimand: {fit.estimand}", f"Standard errors: {fit.target}", ""]
    tests: list[TestResult] = [t for s in fit.first_stage for t in (s.f_classical, s.f_robust)]
    lines += [str(t) for t in (*tests, fit.sargan, fit.basmann, fit.wu_hausman, fit.wu_hausman_robust)]
    lines += [f"Note: {note}" for note in fit.notes]
    return "\n".join(lines)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def _reference(fit: Estimate) -> str:
    df = (
        f"{fit.df.min():.4g}" if fit.df.min() == fit.df.max() else f"{fit.df.min():.3g} to {fit.df.max():.3g}"
    )
    if fit.interval == "score":
        return f"intervals and p-values from site scores (t with {df} df, or the noise of the sites where larger)"
    return f"t with {df} df"


def _sets(fit: Estimate) -> list[str]:
    """Sets that a pair of numbers cannot show."""
    if fit.interval != "score" or fit.equations is None:
        return []
    found = [fit.confidence_set(term) for term in fit.equations.terms]
    return [f"95% set of {s.term}: {s}" for s in found if s.shape != "interval"]


def _beside(fit: Estimate) -> list[str]:
    """Another estimator's coefficients, a line each."""
    cov = fit.cov_type + (f" {fit.small_sample}" if fit.small_sample else "")
    frame = fit.tidy()[["term", "estimate", "std_error"]]
    return [
        f"Beside it, {fit.method} ({cov}): {term} {est:.5g} (se {se:.5g}), {fit.confidence_set(str(term))}"
        for term, est, se in frame.itertuples(index=False)
    ]
