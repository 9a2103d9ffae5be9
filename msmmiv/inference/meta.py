"""Random-effects meta-regression: how much estimates of different sites vary beyond their sampling error.

The engine knows nothing of trials: it takes estimates ``y``, their sampling variances ``v`` and regressors
``x``. Matrices of the size of the number of estimates are never formed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, chdtri, fdtrc, ndtri, stdtrit

from msmmiv.errors import DataError, RankDeficientError, TooFewSitesError, check_choice, count
from msmmiv.linalg import Array, frozen, root

__all__ = ["MetaRegression", "Tau2Interval", "Tau2Method", "meta_regression", "tau2_interval"]

Tau2Method: TypeAlias = Literal["FE", "DL", "PM", "REML", "HE"]
MetaTest: TypeAlias = Literal["normal", "knapp-hartung"]

#: Relative size below which a variance component counts as zero.
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class MetaRegression:
    """Coefficients of a meta-regression with the variance that the regressors leave unexplained.

    Attributes
    ----------
    coefficients : (q,) array
    cov : (q, q) array
        Of the coefficients; with Knapp-Hartung scaled by the weighted residual variance.
    tau2, tau2_se : float
        Variance between sites and its asymptotic standard error (NaN for ``FE``, which sets it to zero).
    method : str
        "FE", "DL", "PM", "REML" or "HE".
    test : str
        "normal" or "knapp-hartung".
    n, df : int
        Estimates, and estimates less coefficients.
    q, q_pvalue : float
        Cochran's Q of the residuals with weights 1 / v, and its chi-squared p-value.
    i2, h2 : float
        Share of variance between sites (0 to 1, not percent), and total over sampling variance.
    status : str or None
        None, or that ``tau2`` sits at its boundary.
    """

    coefficients: Array
    cov: Array
    tau2: float
    tau2_se: float
    method: str
    test: str
    n: int
    df: int
    q: float
    q_pvalue: float
    i2: float
    h2: float
    status: str | None

    @property
    def std_errors(self) -> Array:
        """(q,) standard errors."""
        return np.sqrt(np.diag(self.cov))

    @property
    def pvalues(self) -> Array:
        """(q,) two-sided p-values: normal, or t with ``df`` degrees of freedom for Knapp-Hartung."""
        square = self.coefficients**2 / np.diag(self.cov)
        if self.test == "normal":
            return np.asarray(chdtrc(1, square))
        return np.asarray(fdtrc(1, self.df, square))

    def conf_int(self, *, level: float = 0.95) -> Array:
        """(q, 2) confidence limits of the coefficients."""
        half = self._critical(level) * self.std_errors
        return np.column_stack([self.coefficients - half, self.coefficients + half])

    def prediction_interval(self, at: npt.ArrayLike = 1.0, *, level: float = 0.95) -> tuple[float, float]:
        """Limits for the true effect of a new site with regressors ``at`` (Higgins and others 2009)."""
        point = np.atleast_1d(np.asarray(at, dtype=float))
        middle = float(point @ self.coefficients)
        half = self._critical(level) * float(np.sqrt(point @ self.cov @ point + self.tau2))
        return middle - half, middle + half

    def _critical(self, level: float) -> float:
        tail = _tail(level)
        return float(-ndtri(tail) if self.test == "normal" else -stdtrit(self.df, tail))


@dataclass(frozen=True)
class Tau2Interval:
    """Q-profile interval of the variance between sites; ``status`` says when it touches zero or is empty.

    Attributes
    ----------
    lower, upper : float
        NaN when the interval is empty.
    i2_lower, i2_upper : float
        The same as shares of the total variance.
    level : float
    status : str or None
        None for an interval above zero; "reaches zero" or "empty: ..." otherwise.
    """

    lower: float
    upper: float
    i2_lower: float
    i2_upper: float
    level: float
    status: str | None


def meta_regression(
    y: npt.ArrayLike,
    *,
    v: npt.ArrayLike,
    x: npt.ArrayLike | None = None,
    tau2: Tau2Method = "REML",
    test: MetaTest = "normal",
) -> MetaRegression:
    """Regress estimates on regressors, allowing true effects to vary around the line.

    Use it to ask whether sites differ by more than sampling error, and by how much. The regressors are
    taken as known: compliances that are themselves estimated need `msmmiv.diagnose.heterogeneity`.

    Parameters
    ----------
    y, v : (K,) array_like
        Estimates and their sampling variances.
    x : (K, q) array_like, optional
        Regressors; a column of ones by default. No intercept is added.
    tau2 : {"REML", "PM", "DL", "HE", "FE"}
        Restricted likelihood, Paule-Mandel, DerSimonian-Laird, Hedges, or none (fixed effects).
    test : {"normal", "knapp-hartung"}
        Knapp-Hartung scales the covariance by the weighted residual variance and uses t.

    Returns
    -------
    MetaRegression

    Raises
    ------
    TooFewSitesError
        No degree of freedom is left.
    RankDeficientError
        Columns of ``x`` are dependent.
    DataError
        Missing values, unequal lengths, or variances that are not positive.

    Notes
    -----
    With W = diag(1 / (v + tau2)), b = (x'Wx)^-1 x'Wy and P = W - Wx(x'Wx)^-1 x'W, Paule-Mandel solves
    y'Py = K - q, REML maximises the restricted likelihood (its score is y'PPy - tr P) over tau2 >= 0 by a
    search on the whole half-line, not from one start. I2 = tau2 / (tau2 + (K - q) / tr P at 0), for ``FE``
    (Q - df) / Q. The numbers are those of the R package metafor.

    Examples
    --------
    >>> m = meta_regression([0.1, 0.5, 0.9], v=[0.01, 0.02, 0.03], tau2="DL")
    >>> round(m.tau2, 4), round(float(m.coefficients[0]), 4), round(m.q, 3)
    (0.1417, 0.4835, 17.455)
    """
    check_choice(tau2, Tau2Method, "tau2")
    check_choice(test, MetaTest, "test")
    data = _checked(y, v, x)
    at_zero = _fit(data, 0.0)
    df = len(data.y) - data.x.shape[1]
    estimate, error = _TAU2[tau2](data, at_zero, df)
    between = max(estimate, 0.0)
    best = _fit(data, between)
    cov = best.bread * (best.q / df) if test == "knapp-hartung" else best.bread
    typical = df / at_zero.trace
    fixed = tau2 == "FE"
    return MetaRegression(
        coefficients=frozen(best.b),
        cov=frozen(cov),
        tau2=between,
        tau2_se=error,
        method=tau2,
        test=test,
        n=len(data.y),
        df=df,
        q=at_zero.q,
        q_pvalue=float(chdtrc(df, at_zero.q)),
        i2=max(0.0, 1.0 - df / at_zero.q) if fixed and at_zero.q > 0 else between / (between + typical),
        h2=at_zero.q / df if fixed else between / typical + 1.0,
        status="tau2 is at its boundary, zero" if not fixed and estimate <= 0 else None,
    )


def tau2_interval(
    y: npt.ArrayLike, *, v: npt.ArrayLike, x: npt.ArrayLike | None = None, level: float = 0.95
) -> Tau2Interval:
    """Confidence interval of the variance between sites by inverting the generalised Q statistic.

    Exact for normal estimates with known variances, and the interval to report with any estimate of tau2.
    It can reach zero, and it can be empty: estimates that agree better than their variances allow.

    Parameters
    ----------
    y, v, x
        As in `meta_regression`.
    level : float

    Returns
    -------
    Tau2Interval

    Raises
    ------
    TooFewSitesError, RankDeficientError, DataError
        As in `meta_regression`.

    Notes
    -----
    {t >= 0: chi2_{df, (1-level)/2} <= y'P(t)y <= chi2_{df, (1+level)/2}} (Viechtbauer 2007).

    Examples
    --------
    >>> i = tau2_interval([0.1, 0.5, 0.9], v=[0.01, 0.02, 0.03])
    >>> round(i.lower, 3), round(i.upper, 2), i.status
    (0.024, 6.3, None)
    """
    data = _checked(y, v, x)
    df = len(data.y) - data.x.shape[1]
    tail = _tail(level)
    high, low = float(chdtri(df, tail)), float(chdtri(df, 1.0 - tail))
    at_zero = _fit(data, 0.0)
    if at_zero.q < low:
        why = f"empty: Q = {at_zero.q:.4g} is below {low:.4g}; the estimates agree better than their variances allow"
        return Tau2Interval(np.nan, np.nan, np.nan, np.nan, level, why)
    upper = _where_q_is(data, low)
    lower = _where_q_is(data, high) if at_zero.q > high else 0.0
    typical = df / at_zero.trace
    return Tau2Interval(
        lower,
        upper,
        lower / (lower + typical),
        upper / (upper + typical),
        level,
        None if at_zero.q > high else "reaches zero",
    )


# ------------------------------------------------------------------------------------ computation


@dataclass(frozen=True, eq=False)
class _Data:
    y: Array
    v: Array
    x: Array
    scale: float  # a variance of the size of the spread of y, for searches


@dataclass(frozen=True, eq=False)
class _Fit:
    """Weighted regression at one tau2: ``q`` is y'Py, ``trace`` tr P, ``trace2`` tr PP, ``score`` y'PPy - tr P."""

    b: Array
    bread: Array
    q: float
    trace: float
    trace2: float
    score: float
    restricted: float


def _fit(data: _Data, tau2: float) -> _Fit:
    w = 1.0 / (data.v + tau2)
    x = data.x
    bread = np.asarray(np.linalg.inv((x.T * w) @ x), dtype=np.float64)
    b = bread @ ((x.T * w) @ data.y)
    e = data.y - x @ b
    second = bread @ ((x.T * w**2) @ x)
    third = bread @ ((x.T * w**3) @ x)
    trace = float(w.sum() - np.trace(second))
    q = float(w @ e**2)
    return _Fit(
        b=b,
        bread=bread,
        q=q,
        trace=trace,
        trace2=float((w**2).sum() - 2.0 * np.trace(third) + np.trace(second @ second)),
        score=float(w**2 @ e**2) - trace,
        restricted=float(0.5 * (np.log(w).sum() + np.linalg.slogdet(bread)[1] - q)),
    )


def _where_q_is(data: _Data, target: float) -> float:
    """The tau2 >= 0 where y'P(tau2)y, which falls in tau2, equals ``target``."""
    top = data.scale
    while _fit(data, top).q > target:
        top *= 4.0
    return root(lambda t: _fit(data, t).q - target, 0.0, top, xtol=1e-300, rtol=1e-14, maxiter=500)


def _fixed(data: _Data, at_zero: _Fit, df: int) -> tuple[float, float]:  # noqa: ARG001 - one signature
    return 0.0, float("nan")


def _dersimonian_laird(data: _Data, at_zero: _Fit, df: int) -> tuple[float, float]:  # noqa: ARG001
    estimate = (at_zero.q - df) / at_zero.trace
    t = max(estimate, 0.0)
    variance = 2.0 * df + 4.0 * t * at_zero.trace + 2.0 * t**2 * at_zero.trace2
    return estimate, float(np.sqrt(variance)) / at_zero.trace


def _hedges(data: _Data, at_zero: _Fit, df: int) -> tuple[float, float]:  # noqa: ARG001
    x, v = data.x, data.v
    inverse = np.linalg.inv(x.T @ x)
    e = data.y - x @ (inverse @ (x.T @ data.y))
    second = inverse @ ((x.T * v) @ x)
    trace = float(v.sum() - np.trace(second))
    trace2 = float((v**2).sum() - 2.0 * np.trace(inverse @ ((x.T * v**2) @ x)) + np.trace(second @ second))
    estimate = (float(e @ e) - trace) / df
    t = max(estimate, 0.0)
    return estimate, float(np.sqrt(2.0 * trace2 + 4.0 * t * trace + 2.0 * t**2 * df)) / df


def _paule_mandel(data: _Data, at_zero: _Fit, df: int) -> tuple[float, float]:
    estimate = _where_q_is(data, float(df)) if at_zero.q > df else 0.0
    n = len(data.y)
    return estimate, float(np.sqrt(2.0 * n**2 / df)) / float((1.0 / (data.v + estimate)).sum())


def _restricted_likelihood(data: _Data, at_zero: _Fit, df: int) -> tuple[float, float]:  # noqa: ARG001
    grid = np.concatenate([[0.0], data.scale * np.logspace(-10, 3, 131)])
    fits = [_fit(data, float(t)) for t in grid]
    j = int(np.argmax([f.restricted for f in fits]))
    if j == 0 and fits[0].score <= 0:
        return 0.0, float(np.sqrt(2.0 / fits[0].trace2))
    low, high = float(grid[max(j - 1, 0)]), float(grid[min(j + 1, len(grid) - 1)])
    score: Callable[[float], float] = lambda t: _fit(data, t).score  # noqa: E731
    estimate = root(score, low, high, xtol=1e-300, rtol=1e-14, maxiter=500)
    return estimate, float(np.sqrt(2.0 / _fit(data, estimate).trace2))


_TAU2: dict[str, Callable[[_Data, _Fit, int], tuple[float, float]]] = {
    "FE": _fixed,
    "DL": _dersimonian_laird,
    "PM": _paule_mandel,
    "REML": _restricted_likelihood,
    "HE": _hedges,
}


# ----------------------------------------------------------------------------------------- checks


def _checked(y: npt.ArrayLike, v: npt.ArrayLike, x: npt.ArrayLike | None) -> _Data:
    estimates, variances = np.asarray(y, dtype=float), np.asarray(v, dtype=float)
    regressors = np.ones((len(estimates), 1)) if x is None else np.asarray(x, dtype=float)
    if regressors.ndim == 1:
        regressors = regressors[:, None]
    if estimates.ndim != 1 or variances.shape != estimates.shape or len(regressors) != len(estimates):
        raise DataError(
            f"y, v and x need one entry per estimate; their shapes are {estimates.shape}, {variances.shape} "
            f"and {regressors.shape}."
        )
    if not all(np.isfinite(part).all() for part in (estimates, variances, regressors)):
        raise DataError("y, v and x must be finite; leave out estimates without a variance first.")
    if (variances <= 0).any():
        raise DataError(f"{count(int((variances <= 0).sum()), 'variance')} in v are not positive.")
    n, q = regressors.shape
    if n <= q:
        raise TooFewSitesError(
            f"{count(n, 'estimate')} leave no degree of freedom for {count(q, 'coefficient')}."
        )
    size = np.sqrt((regressors**2).sum(axis=0))
    if (size == 0).any() or np.linalg.matrix_rank(regressors / np.where(size > 0, size, 1.0), tol=1e-10) < q:
        raise RankDeficientError("The columns of x are linearly dependent; leave one out.")
    spread = float(np.var(estimates) + np.mean(variances))
    return _Data(estimates, variances, regressors, max(spread, _TINY * float(variances.max())))


def _tail(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise DataError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    return (1.0 - level) / 2.0
