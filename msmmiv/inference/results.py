"""Estimate: coefficients with their covariance, their meaning in words, and the diagnostics that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import DataError, listing
from msmmiv.inference.tests import TestResult, TestStatistic, f_test
from msmmiv.linalg import Array
from msmmiv.moments.flow import SampleFlow

__all__ = ["Estimate", "FirstStage"]


@dataclass(frozen=True, eq=False)
class FirstStage:
    """Regression of one mediator (or, as the reduced form, of the outcome) on the site-by-treatment instruments.

    Attributes
    ----------
    variable : str
        The mediator; the outcome for the reduced form.
    coefficients : DataFrame
        Columns ``site``, ``arm``, ``estimate``, ``std_error`` (NaN where not available).
    f_classical, f_robust : TestResult
        F of the excluded instruments under homoskedasticity, and with the covariance of the fit.
    partial_r2, r2 : float
        Share of the variance left by intercepts and covariates that the instruments explain; and of all.
    """

    variable: str
    coefficients: pd.DataFrame
    f_classical: TestResult
    f_robust: TestResult
    partial_r2: float
    r2: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimate:
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
    df_resid : float
        Degrees of freedom of t and F references.
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
    """

    method: str
    terms: tuple[str, ...]
    coefficients: Array
    covariance: Array
    cov_type: str
    small_sample: str | None
    df_resid: float
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
    seed: int | None = None

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
    def tstats(self) -> pd.Series[float]:
        """Ratios of each coefficient to its standard error."""
        se = np.sqrt(np.diag(self.covariance))
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._series(self.coefficients / se, "statistic")

    @property
    def pvalues(self) -> pd.Series[float]:
        """Two-sided p values from t with ``df_resid`` degrees of freedom."""
        from scipy.special import stdtr

        return self._series(2.0 * stdtr(self.df_resid, -np.abs(self.tstats.to_numpy())), "p_value")

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        """Wald intervals by term: columns ``lower`` and ``upper``.

        Examples
        --------
        >>> import msmmiv as mm
        >>> mm.fit(mm.data.star(), "2sls").conf_int().round(2).loc["class_size"].tolist()
        [-1.65, -0.58]
        """
        from scipy.special import stdtrit

        if not 0 < level < 1:
            raise DataError(f"level must lie between 0 and 1, not {level!r}.")
        half = stdtrit(self.df_resid, 0.5 + level / 2.0) * self.std_errors
        return pd.DataFrame({"lower": self.params - half, "upper": self.params + half})

    def tidy(self, level: float = 0.95) -> pd.DataFrame:
        """One row per term, with stable column names.

        Returns
        -------
        DataFrame
            ``term, estimate, std_error, statistic, p_value, conf_low, conf_high, method, cov_type``.
        """
        ends = self.conf_int(level)
        parts = [self.params, self.std_errors, self.tstats, self.pvalues]
        frame = pd.concat([*parts, ends.set_axis(["conf_low", "conf_high"], axis=1)], axis=1)
        return frame.assign(method=self.method, cov_type=self.cov_type).rename_axis("term").reset_index()

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit; with several mediators the first-stage F is the smallest."""
        weakest = min((f.f_classical.stat for f in self.first_stage), default=np.nan)
        return pd.DataFrame(
            [{
                "method": self.method, "cov_type": self.cov_type, "small_sample": self.small_sample,
                "direct_effect": self.direct_effect, "nobs": self.nobs, "n_sites": self.n_sites,
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
        k = len(self.terms)
        names = [
            r for r in np.atleast_1d(np.asarray(restriction, dtype=object)).ravel() if isinstance(r, str)
        ]
        if names:
            unknown = [n for n in names if n not in self.terms]
            if unknown:
                raise DataError(
                    f"No term {listing(unknown, quote=True)}; the terms are {listing(self.terms)}."
                )
            matrix = np.eye(k)[[self.terms.index(n) for n in names]]
        else:
            matrix = np.atleast_2d(np.asarray(restriction, dtype=float))
        target = np.zeros(len(matrix)) if value is None else np.atleast_1d(np.asarray(value, dtype=float))
        if matrix.shape[1] != k or target.shape != (len(matrix),):
            raise DataError(f"R must have {k} columns ({listing(self.terms)}) and q one entry per row of R.")
        if np.linalg.matrix_rank(matrix) < len(matrix):
            raise DataError("The restrictions repeat each other: R does not have full row rank.")
        gap = matrix @ self.coefficients - target
        middle = matrix @ self.covariance @ matrix.T
        stat = float(gap @ np.linalg.solve(middle, gap)) / len(matrix)
        rows = [" + ".join(f"{w:g} {t}" for w, t in zip(r, self.terms, strict=True) if w) for r in matrix]
        null = " and ".join(f"{r} = {q:g}" for r, q in zip(rows, target, strict=True))
        return f_test("Wald", null, stat, len(matrix), self.df_resid)

    @property
    def summary(self) -> str:
        """The fit as a page of text."""
        return summarise(self)

    def __str__(self) -> str:
        return self.summary

    def to_dict(self) -> dict[str, Any]:
        """Everything but the site tables as JSON-able values."""
        return {
            "method": self.method,
            "estimand": self.estimand,
            "target": self.target,
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
    clusters = f", {fit.n_clusters} clusters" if fit.n_clusters else ""
    extra = ", direct effect free" if fit.direct_effect else ""
    header = "".join(
        f"{c:>12}" for c in ("estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high")
    )
    lines = [
        f"{fit.method} of {fit.design.outcome} on {listing(fit.design.mediators)}{extra}",
        f"{fit.nobs:,} rows, {fit.n_sites} sites, {fit.n_instruments} instruments{clusters}",
        f"{cov} covariance, t with {fit.df_resid:g} df",
        "",
        f"{'':<20}{header}",
    ]
    numbers = fit.tidy().drop(columns=["method", "cov_type"])
    for term, est, se, t, p, low, high in numbers.itertuples(index=False):
        lines.append(
            f"{_short(str(term), 19):<20}{est:>12.5g}{se:>12.5g}{t:>12.3f}{p:>12.4f}{low:>12.5g}{high:>12.5g}"
        )
    lines += ["", f"Estimand: {fit.estimand}", f"Standard errors: {fit.target}", ""]
    tests: list[TestResult] = [t for s in fit.first_stage for t in (s.f_classical, s.f_robust)]
    lines += [str(t) for t in (*tests, fit.sargan, fit.basmann, fit.wu_hausman, fit.wu_hausman_robust)]
    lines += [f"Note: {note}" for note in fit.notes]
    return "\n".join(lines)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"
