"""Whether direct effects differ between rows by more than sampling error, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

from msmmiv.errors import DataError, count
from msmmiv.estimate.between.eb_many import Blocks
from msmmiv.estimate.between.eb_score import weighted_regression
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.inference.tests import TestStatistic, chi2_test
from msmmiv.linalg import Array, root

__all__ = ["DirectSpread", "direct_spread"]

#: Points of the line, and rounds of coming closer to the lowest of them.
_LINE, _CLOSER = 401, 6


@dataclass(frozen=True, eq=False)
class DirectSpread:
    """Variation of direct effects between rows.

    Attributes
    ----------
    q : TestStatistic
        Least Q over the slopes, chi-squared when one direct effect fits all rows.
    i2 : float
        Share of the residual variation that sampling error does not explain.
    sd : float
        Standard deviation of direct effects, Paule-Mandel.
    lower, upper : float
        Q-profile limits of ``sd``; NaN when rows agree better than their errors allow.
    level : float
    """

    q: TestStatistic
    i2: float
    sd: float
    lower: float
    upper: float
    level: float

    def __str__(self) -> str:
        limits = (
            f"{self.level:.0%} interval {self.lower:.4g} to {self.upper:.4g}"
            if np.isfinite(self.lower)
            else "rows agree better than their standard errors allow"
        )
        return f"{self.q}  I2 {self.i2:.0%}\n  standard deviation of direct effects {self.sd:.4g}, {limits}"


def direct_spread(rows: BetweenRows, start: Array, *, level: float = 0.95) -> DirectSpread:
    """Cochran's Q of the between-site regression, least over the slopes, and the variance it leaves.

    Parameters
    ----------
    rows : BetweenRows
    start : (P,) array
        Slopes near the smallest Q.
    level : float

    Notes
    -----
    Q(t) = min over slopes b of sum of squares of itt - compliances b net of z, weighted by 1 / (t + e(b)), e(b) the
    sampling variance of that difference. At t = 0 it is chi-squared with K - P - q degrees of freedom; Paule-Mandel
    sets it to them, and the interval to the quantiles of chi-squared. Sampling covariances count as known: with few
    people per arm use `msmmiv.heterogeneity(direct_effect=True)`, which does not.
    """
    if not 0.0 < level < 1.0:
        raise DataError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    least = _LeastQ(rows, start)
    df = rows.n_rows - len(rows.terms)
    at_zero = least(0.0)
    test = chi2_test("Cochran's Q", f"one direct effect fits all {count(rows.n_rows, 'row')}", at_zero, df)
    tail = (1.0 - level) / 2.0
    high, low = float(chdtri(df, tail)), float(chdtri(df, 1.0 - tail))
    return DirectSpread(
        q=test,
        i2=max(0.0, 1.0 - df / at_zero) if at_zero > 0 else 0.0,
        sd=least.root(float(df)) ** 0.5,
        lower=least.root(high) ** 0.5 if at_zero > low else float("nan"),
        upper=least.root(low) ** 0.5 if at_zero > low else float("nan"),
        level=level,
    )


class _LeastQ:
    """Least Q as a function of the variance of direct effects."""

    def __init__(self, rows: BetweenRows, start: Array) -> None:
        self._rows, self._blocks = rows, Blocks(rows)
        self._unit: Array = np.atleast_1d(max(float(rows.y.std()), 1e-300) / rows.x.std(axis=0))
        self._best: Array = start / self._unit

    def __call__(self, t: float) -> float:
        if len(self._best) == 1 and self._rows.cross is None:
            return self._on_line(t)
        from scipy.optimize import minimize

        found = minimize(
            self._q, self._best, args=(t,), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-10}
        )
        self._best = np.asarray(found.x, dtype=float)
        return float(found.fun)

    def _on_line(self, t: float) -> float:
        """One slope: the whole line, then closer around every valley, since there may be two."""
        x = self._rows.x[:, 0]
        middle = float(np.cov(x, self._rows.y)[0, 1] / np.var(x, ddof=1))
        line = middle + self._unit[0] * np.tan(np.linspace(-1.5707, 1.5707, _LINE))
        q = self._along(line, t)
        inner = (q[1:-1] <= q[:-2]) & (q[1:-1] <= q[2:])
        valleys = [0, *(1 + np.flatnonzero(inner)), len(line) - 1]
        best = min(float(q[0]), float(q[-1]))
        for at in valleys:
            low, high = line[max(at - 1, 0)], line[min(at + 1, len(line) - 1)]
            for _ in range(_CLOSER):
                grid = np.linspace(low, high, 41)
                value = self._along(grid, t)
                k = int(np.argmin(value))
                low, high = grid[max(k - 1, 0)], grid[min(k + 1, 40)]
            best = min(best, float(value.min()))
        return best

    def _along(self, slopes: Array, t: float) -> Array:
        """(G,) Q at slopes (G,)."""
        rows, v = self._rows, slopes[:, None]
        a, b, c = rows.noise[:, 0, 0], rows.itt_variance, rows.covariance[:, 0]
        w = 1.0 / np.maximum(b + v**2 * a - 2.0 * v * c + t, 1e-300)
        _, left = weighted_regression(rows.y - v * rows.x[:, 0], w, rows.z)
        return np.asarray((w * left**2).sum(axis=1))

    def root(self, target: float) -> float:
        """The variance at which the least Q, which falls, equals ``target``; zero where it is below at zero."""
        if self(0.0) <= target:
            return 0.0
        top = float(np.var(self._rows.y))
        while self(top) > target:
            top *= 4.0
        return root(lambda t: self(t) - target, 0.0, top, rtol=1e-8)

    def _q(self, slopes: Array, t: float) -> float:
        rows, slope = self._rows, slopes * self._unit
        contrast = np.concatenate([[1.0], -slope])
        r = rows.y - rows.x @ slope
        if rows.cross is None:
            e = np.einsum("a,kab,b->k", contrast, rows.cov, contrast) + t
            root = 1.0 / np.sqrt(np.maximum(e, 1e-300))
            r, z = r * root, rows.z * root[:, None]
        else:
            r, z = self._whitened(slope, contrast, t)
        left = r - z @ np.linalg.lstsq(z, r, rcond=None)[0]
        return float(left @ left)

    def _whitened(self, slope: Array, contrast: Array, t: float) -> tuple[Array, Array]:
        """Residuals and z of rows that share people, site by site on the scale where their errors are independent."""
        blocks = self._blocks
        e = np.einsum("sdaeb,a,b->sde", blocks.cov, contrast, contrast, optimize=True)
        e[:, np.arange(e.shape[1]), np.arange(e.shape[1])] += np.where(blocks.present, t, 1.0)
        inverse = np.linalg.inv(np.linalg.cholesky(e))
        r = (inverse @ (blocks.y - blocks.x @ slope)[:, :, None])[:, :, 0]
        return r[blocks.present], (inverse @ blocks.z)[blocks.present]
