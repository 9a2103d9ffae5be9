"""Verdicts of the tests of the between-site slope for many simulated trials at once.

The statistics are those of the package (`score_path`, `fit_many`), called for all trials together; least squares,
BCES and SIMEX are written out. `check` compares them with the package's own classes, trial by trial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, ndtri, stdtrit

from msmmiv.estimate.between.corrected import BCES
from msmmiv.estimate.between.eb_score import Samples, score_path
from msmmiv.estimate.between.linear import Ols
from msmmiv.estimate.between.reml_many import fit_many
from msmmiv.estimate.between.rlr import rlr_test
from msmmiv.estimate.between.simex import SIMEX
from msmmiv.estimate.between.simex_draws import noise_root
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.linalg import Array
from tests.validation.between_trials import Trials

#: Level; draws behind simulated critical values; pairs of draws behind a SIMEX.
SIZE, DRAWS, PAIRS = 0.05, 199, 100
LAMBDAS = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
#: Numbers handled at once: what a processor keeps at hand.
CHUNK = 60_000

Flags = np.ndarray


@dataclass(frozen=True, eq=False)
class Interval:
    """(R,) limits; without a standard error nothing is rejected."""

    low: Array
    high: Array

    @classmethod
    def wald(cls, b: Array, se: Array, limit: float) -> Interval:
        return cls(b - limit * se, b + limit * se)

    @property
    def none(self) -> Flags:
        return ~np.isfinite(self.high - self.low)

    @property
    def length(self) -> Array:
        return np.where(self.none, np.nan, self.high - self.low)

    def rejects(self, value: float) -> Flags:
        with np.errstate(invalid="ignore"):
            return (value < self.low) | (value > self.high)


def t_limit(trials: Trials) -> float:
    """Of t with K - 2 degrees of freedom."""
    return float(stdtrit(trials.shape[1] - 2, 1.0 - SIZE / 2.0))


def chunks(trials: Trials, each: int) -> Iterator[Trials]:
    """Some trials at a time, so that trials x ``each`` numbers do not outgrow memory."""
    step = max(1, CHUNK // each)
    for first in range(0, len(trials.x), step):
        yield trials.take(slice(first, first + step))


def calibrated(trials: Trials, value: float, draws: int = DRAWS) -> Array:
    """(R,) p-values of `SlopeTest` with simulated critical values: its `calibrate`, at the tested value alone."""
    k = trials.shape[1]
    found = []
    for some in chunks(trials, draws * k):
        fits = score_path(some.samples, value)
        normal = np.stack(
            [np.random.default_rng(s).standard_normal((4, draws, k)) for s in some.seeds], axis=1
        )
        a, b, c = (v[:, None, :] for v in (some.a, some.b, some.c))
        tied = c / np.sqrt(a)
        u, v = np.sqrt(a) * normal[0], tied * normal[0] + np.sqrt(b - tied**2) * normal[1]
        compliance = (
            fits.compliance_mean[:, None] + np.sqrt(fits.compliance_variance)[:, None, None] * normal[2]
        )
        direct = fits.intercepts[:, None] + np.sqrt(fits.direct_variance)[:, None, None] * normal[3]
        drawn = Samples(direct + value * compliance + v, compliance + u, some.z, b, a, c)
        sizes = np.abs(score_path(drawn, value).statistic)
        limit = np.abs(np.nan_to_num(fits.statistic))[:, None] * (1.0 - 1e-12)
        found.append((1.0 + (sizes >= limit).sum(axis=1)) / (1.0 + draws))
    return np.concatenate(found)


def eb_t(trials: Trials, value: float) -> Flags:
    """`SlopeTest` with the t reference."""
    with np.errstate(invalid="ignore"):
        return np.abs(score_path(trials.samples, value).statistic) > t_limit(trials)


def rlr_f(trials: Trials, value: float) -> Flags:
    """`rlr_test`."""
    df = trials.shape[1] - 2
    found = []
    for some in chunks(trials, 40 * trials.shape[1]):
        fit = {"y": some.y, "a": some.a, "b": some.b, "c": some.c, "z": some.z}
        free, fixed = fit_many(some.x, **fit).loglik, fit_many(some.x, **fit, slope=value).loglik
        found.append(np.maximum(2.0 * (np.maximum(free, fixed) - fixed), 0.0))
    ratio = np.concatenate(found)
    return fdtrc(1, df, df * np.expm1(ratio / (df + 1))) <= SIZE


def ols(trials: Trials) -> Interval:
    """`Ols`: HC3 and t."""
    k = trials.shape[1]
    x, y = centred(trials.x), centred(trials.y)
    sxx = (x**2).sum(axis=1, keepdims=True)
    b = (x * y).sum(axis=1, keepdims=True) / sxx
    spare = 1.0 - 1.0 / k - x**2 / sxx
    se = np.sqrt(((x * (y - b * x) / spare) ** 2).sum(axis=1)) / sxx[:, 0]
    return Interval.wald(b[:, 0], se, t_limit(trials))


def bces(trials: Trials, *, normal: bool = False) -> Interval:
    """`BCES`, with its t limits or (``normal``) the normal ones of Akritas and Bershady."""
    f = 1.0 - 1.0 / trials.shape[1]
    x, y = centred(trials.x), centred(trials.y)
    seen = (x**2).sum(axis=1)
    left = seen - f * trials.a.sum(axis=1)
    left = np.where(left > 1e-10 * seen, left, np.nan)[:, None]
    b = ((x * y).sum(axis=1, keepdims=True) - f * trials.c.sum(axis=1, keepdims=True)) / left
    psi = x * (y - b * x) + f * (b * trials.a - trials.c)
    se = np.sqrt(((psi - psi.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)) / left[:, 0]
    return Interval.wald(b[:, 0], se, float(ndtri(1.0 - SIZE / 2.0)) if normal else t_limit(trials))


def simex(trials: Trials, rng: np.random.Generator, pairs: int = PAIRS) -> Interval:
    """SIMEX(extrapolant="quadratic", joint=False): jackknife variance, t."""
    k = trials.shape[1]
    found = []
    for some in chunks(trials, pairs * (k + 40)):
        error = np.sqrt(some.a)[:, None, :] * rng.standard_normal((len(some.x), pairs, k))
        found.append(_extrapolated(some, error))
    b, se = np.concatenate(found, axis=1)
    return Interval.wald(b, se, t_limit(trials))


def _extrapolated(trials: Trials, error: Array) -> Array:
    """(2, R) slopes and standard errors with errors (R, H, K), each also with the opposite sign."""
    pairs, k = error.shape[1:]
    basis = np.vander(LAMBDAS, 3, increasing=True)
    w = np.array([1.0, -1.0, 1.0]) @ np.linalg.solve(basis.T @ basis, basis.T)
    step = (np.sqrt(LAMBDAS) * np.array([[1.0], [-1.0]]))[..., None, None]  # (2, 5, 1, 1)
    x, y = centred(trials.x), centred(trials.y)
    xe, ye = (np.matmul(error, v[..., None])[..., 0] for v in (x, y))
    ee = np.einsum("rhk,rhk->rh", error, error) - error.sum(axis=2) ** 2 / k
    sxx = (x**2).sum(axis=1)[:, None] + 2.0 * step * xe + step**2 * ee
    sxy = (x * y).sum(axis=1)[:, None] + step * ye
    b = sxy / sxx  # (2, 5, R, H)
    s2 = ((y**2).sum(axis=1)[:, None] - b * sxy) / (k - 2)
    mean = b.mean(axis=(0, 3))
    between = ((b - mean[None, ..., None]) ** 2).sum(axis=(0, 3)) / (2 * pairs - 1)
    variance = w @ ((s2 / sxx).mean(axis=(0, 3)) - between)
    return np.stack([w @ mean, np.sqrt(np.where(variance > 0, variance, np.nan))])


def simex_default(trials: Trials, rng: np.random.Generator, pairs: int = PAIRS) -> Interval:
    """`SIMEX()`: rational, joint, influence variance, t."""
    k = trials.shape[1]
    found = []
    for some in chunks(trials, 2 * pairs * k):
        normal = rng.standard_normal((2, len(some.x), pairs, k))
        a, b, c = (v[:, None, :] for v in (some.a, some.b, some.c))
        tied = c / np.sqrt(a)
        found.append(
            _rational(some, np.sqrt(a) * normal[0], tied * normal[0] + np.sqrt(b - tied**2) * normal[1])
        )
    b, se = np.concatenate(found, axis=1)
    return Interval.wald(b, se, t_limit(trials))


def _rational(trials: Trials, u: Array, v: Array) -> Array:
    """(2, R) slopes and standard errors with the errors (R, H, K) that were drawn."""
    f = 1.0 - 1.0 / trials.shape[1]
    x, y = centred(trials.x), centred(trials.y)
    u, v = u - u.mean(axis=2, keepdims=True), v - v.mean(axis=2, keepdims=True)
    seen = (x**2).sum(axis=1)
    left = seen - np.einsum("rhk,rhk->rh", u, u).mean(axis=1)
    left = np.where(left > 1e-10 * seen, left, np.nan)
    b = ((x * y).sum(axis=1) - np.einsum("rhk,rhk->rh", u, v).mean(axis=1)) / left
    psi = x * (y - b[:, None] * x) + f * (b[:, None] * trials.a - trials.c)
    return np.stack([b, np.sqrt((centred(psi) ** 2).sum(axis=1)) / left])


def centred(values: Array) -> Array:
    return values - values.mean(axis=1, keepdims=True)


def check(trials: Trials, count: int, draws: int = DRAWS) -> None:
    """The package's own classes must say the same about the first trials."""
    trials = trials.take(slice(0, count))
    limits = {
        "ols": (Ols(), ols(trials)),
        "bces": (BCES(), bces(trials)),
    }
    p = {value: calibrated(trials, value, draws) for value in (0.0, 2.0)}
    t = {value: eb_t(trials, value) for value in (0.0, 2.0)}
    ratio = {value: rlr_f(trials, value) for value in (0.0, 2.0)}
    for r in range(len(trials.x)):
        rows = trials.rows(r)
        for how, found in limits.values():
            np.testing.assert_allclose(
                how.solve(rows).conf_int()[0], [found.low[r], found.high[r]], rtol=1e-8
            )
        # The same draws as the package makes.
        root = noise_root(rows, joint=False)
        normal = np.random.default_rng(1).standard_normal((trials.shape[1], PAIRS, 2))
        error = (normal @ root.transpose(0, 2, 1))[:, :, 1].T
        fit = SIMEX(extrapolant="quadratic", joint=False, B=2 * PAIRS).solve(rows, seed=1)
        ours = _extrapolated(trials.take(slice(r, r + 1)), error[None])[:, 0]
        np.testing.assert_allclose(ours, [fit.coefficients[0], fit.std_errors[0]], rtol=1e-6)
        root = noise_root(rows, joint=True)
        error = (normal @ root.transpose(0, 2, 1)).transpose(2, 1, 0)
        fit = SIMEX(B=2 * PAIRS).solve(rows, seed=1)
        ours = _rational(trials.take(slice(r, r + 1)), error[None, 1], error[None, 0])[:, 0]
        np.testing.assert_allclose(ours, [fit.coefficients[0], fit.std_errors[0]], rtol=1e-6)
        test = SlopeTest(rows, "m", "bootstrap", draws, int(trials.seeds[r]))
        plain, held = SlopeTest(rows, "m", "t"), test.confidence_set()
        for value in p:
            # Zero is a knot of the calibration; elsewhere it interpolates.
            found = test.test(value).pvalue
            assert abs(found - p[value][r]) < (1e-9 if value == 0 else 0.2)
            if abs(found - SIZE) > 0.02:
                assert (value in held) == (found > SIZE)
            assert (plain.test(value).pvalue < SIZE) == t[value][r]
            assert (rlr_test(rows, beta0=value).pvalue <= SIZE) == ratio[value][r]
