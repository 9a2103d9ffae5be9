"""What Table 1 of Fu (2023) did: BCES with the variance of the author's code, and its two bootstraps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from msmmiv.linalg import Array
from tests.validation.between_tests import DRAWS, SIZE, Flags, Interval, chunks
from tests.validation.between_trials import Trials


@dataclass(frozen=True, eq=False)
class Coded:
    """Slope and standard error of `BCES(as_printed=True)`; leading axes are trials and bootstrap draws."""

    b: Array
    se: Array

    @classmethod
    def of(cls, x: Array, y: Array, a: Array) -> Coded:
        """Of (..., K) arrays; the denominator may be negative, as in the code."""
        k = y.shape[-1]
        away = x - x.mean(axis=-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            left = (away**2).sum(axis=-1, keepdims=True) - a.sum(axis=-1, keepdims=True)
            b = (away * y).sum(axis=-1, keepdims=True) / left
            r = y - y.mean(axis=-1, keepdims=True) - b * away
            xi = (away * r + b * a) / (a - a.mean(axis=-1, keepdims=True))
            se = np.sqrt(xi.var(axis=-1) / k)
        return cls(b[..., 0], se)


def coded(trials: Trials) -> Interval:
    """Normal limits."""
    fit = Coded.of(trials.x, trials.y, trials.a)
    return Interval.wald(fit.b, fit.se, float(ndtri(1.0 - SIZE / 2.0)))


def pairs(trials: Trials, rng: np.random.Generator, draws: int = DRAWS) -> Interval:
    """Percentile-t over resampled rows: [b - q_hi se, b - q_lo se]."""
    k = trials.shape[1]
    found = []
    for some in chunks(trials, draws * k):
        index = rng.integers(0, k, (len(some.x), draws, k))
        drawn = (np.take_along_axis(v[:, None, :], index, axis=2) for v in (some.x, some.y, some.a))
        fit, again = Coded.of(some.x, some.y, some.a), Coded.of(*drawn)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (again.b - fit.b[:, None]) / again.se
        # A draw of few distinct rows is fitted exactly: its error is rounding.
        t = np.where(np.isfinite(t) & (again.se > 1e-10 * np.abs(again.b)), t, np.nan)
        low, high = np.nanquantile(t, [SIZE / 2.0, 1.0 - SIZE / 2.0], axis=1)
        found.append(np.stack([fit.b - high * fit.se, fit.b - low * fit.se]))
    low, high = np.concatenate(found, axis=1)
    return Interval(low, high)


def wild(trials: Trials, rng: np.random.Generator, value: float, draws: int = DRAWS) -> Flags:
    """Restricted wild bootstrap, literally: residuals under the value get random signs, compliances stay as they are.

    |t| is compared with |t*|. Away from zero it takes the compliances as free of error.
    """
    found = []
    for some in chunks(trials, draws * trials.shape[1]):
        fit = Coded.of(some.x, some.y, some.a)
        line = value * some.x + (some.y - value * some.x).mean(axis=1, keepdims=True)
        signs = rng.integers(0, 2, (len(some.x), draws, trials.shape[1])) * 2.0 - 1.0
        drawn = line[:, None, :] + signs * (some.y - line)[:, None, :]
        again = Coded.of(some.x[:, None, :], drawn, some.a[:, None, :])
        t, observed = np.abs(again.b - value) / again.se, np.abs(fit.b - value) / fit.se
        larger = (t >= observed[:, None] * (1.0 - 1e-10)).sum(axis=1)
        found.append((1.0 + larger) / (1.0 + draws) <= SIZE)
    return np.concatenate(found)
