"""Simulated trials for the validation tables, drawn as moments of cells: no row ever becomes a data frame.

In site s, arm T:  m = g_s T + v,  y = delta_s' m + u,  with (u, v) correlated (confounding), g_s ~ N(mu, tau^2)
independent of delta_s ~ N(delta, effect_sd^2). The target is delta, the average effect over the population of sites.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.linalg import frozen
from msmmiv.moments.assembly import CellMoments

#: Average effects; counts and 0/1 outcomes have one mediator.
TRUTH = {"gaussian": (0.5, -0.3), "skewed": (0.5, -0.3), "count": (0.5,), "binary": (0.2,)}
#: Correlations of outcome error and mediator errors; the multiple correlation is 0.75 and 0.76.
ERRORS = {
    1: np.array([[1.0, 0.75], [0.75, 1.0]]),
    2: np.array([[1.0, 0.7, 0.5], [0.7, 1.0, 0.3], [0.5, 0.3, 1.0]]),
}
#: Mean and standard deviation over sites of what the treatment does to the mediators, before scaling to the F.
MU, TAU = {1: np.array([1.0]), 2: np.array([1.0, 0.4])}, 0.5
#: Share of mediators that are one without treatment, and the range of what treatment adds.
BASE, SHIFT = 0.1, (-0.05, 0.85)


@dataclass(frozen=True)
class Cell:
    """One cell of the validation grid; ``n`` people in each arm of each site."""

    sites: int
    mean_f: float
    effect_sd: float
    mediators: int
    errors: str
    n: int

    @property
    def truth(self) -> dict[str, float]:
        """Average effect by term."""
        return dict(zip(terms(self.mediators), TRUTH[self.errors], strict=False))

    @property
    def feasible(self) -> bool:
        """Whether 0/1 mediators can move enough to reach the F."""
        return self.errors not in ("count", "binary") or _binary_scale(self.mean_f, self.n) is not None


def terms(mediators: int) -> list[str]:
    """Names of the mediators."""
    return [f"m{j}" for j in range(1, mediators + 1)]


@cache
def template(sites: int, mediators: int) -> mm.Moments:
    """Moments with the right sites and arms; the numbers in it are replaced."""
    rows = np.arange(sites * 2 * 3)
    frame = pd.DataFrame({"site": rows // 6, "t": rows // 3 % 2, "y": rows % 3})
    for name in terms(mediators):
        frame[name] = frame["y"]
    plan = mm.Design(outcome="y", treatment="t", mediators=terms(mediators), site="site")
    return mm.Moments.from_data(frame, plan)


def moments(cell: Cell, mean: np.ndarray, scatter: np.ndarray) -> mm.Moments:
    """Moments of one trial; means and scatters by site and arm."""
    size = frozen(np.full(2 * cell.sites, float(cell.n)))
    sums = CellMoments(size, frozen(mean), frozen(scatter))
    return replace(template(cell.sites, cell.mediators), n=size, first=sums, squared=sums)


def draw(cell: Cell, rng: np.random.Generator, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (R, 2K, 1 + P) and scatters (R, 2K, 1 + P, 1 + P) of R trials; the outcome first."""
    if cell.errors in ("count", "binary"):
        return _draw_binary(cell, rng, trials)
    p, shape = cell.mediators, (trials, 2 * cell.sites)
    if cell.errors == "gaussian":
        mean, scatter = gaussian_sums(rng, shape, ERRORS[p], cell.n)
    else:
        mean, scatter = _sums(_skewed(rng, (*shape, cell.n), p))
    g = signal_root(p, 2.0 * (cell.mean_f - 1.0) / cell.n) * (
        MU[p] + TAU * rng.standard_normal((trials, cell.sites, p))
    )
    # Cells are sorted by site, then arm: every second one is treated.
    mean[:, 1::2, 1:] += g
    effect = np.array(TRUTH[cell.errors][:p])
    effect = effect + cell.effect_sd * rng.standard_normal((trials, cell.sites, p))
    return to_outcomes(mean, scatter, np.repeat(effect, 2, axis=1))


def gaussian_sums(
    rng: np.random.Generator, shape: tuple[int, ...], cov: np.ndarray, n: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
    """Means and scatters of n Gaussian rows, drawn from their own distributions (normal and Wishart)."""
    d, root = len(cov), np.linalg.cholesky(cov)
    size = np.broadcast_to(np.asarray(n, dtype=float), shape)
    mean = rng.standard_normal((*shape, d)) @ root.T / np.sqrt(size)[..., None]
    lower = np.zeros((*shape, d, d))
    for i in range(d):
        lower[..., i, i] = np.sqrt(rng.chisquare(size - 1 - i))
        for j in range(i):
            lower[..., i, j] = rng.standard_normal(shape)
    factor = root @ lower
    return mean, factor @ np.swapaxes(factor, -1, -2)


def to_outcomes(mean: np.ndarray, scatter: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn the outcome's error u, the first variable, into the outcome y = effect' m + u."""
    turn = np.zeros(scatter.shape)
    turn[...] = np.eye(scatter.shape[-1])
    turn[..., 0, 1:] = effect
    return (turn @ mean[..., None])[..., 0], turn @ scatter @ np.swapaxes(turn, -1, -2)


def signal_root(mediators: int, target: float) -> float:
    """Scale at which the smallest generalised eigenvalue of signal over error covariance is the target."""
    mu = MU[mediators]
    signal = np.outer(mu, mu) + TAU**2 * np.eye(mediators)
    smallest = np.linalg.eigvals(np.linalg.solve(ERRORS[mediators][1:, 1:], signal)).real.min()
    return float(np.sqrt(target / smallest))


def _skewed(rng: np.random.Generator, shape: tuple[int, ...], p: int) -> np.ndarray:
    """Errors (u, v) that are mixtures of centred exponentials (skewness 2) with the correlations `ERRORS`."""
    mix = np.linalg.cholesky(ERRORS[p][::-1, ::-1])[::-1, ::-1]
    return (rng.standard_exponential((*shape, 1 + p)) - 1.0) @ mix.T


def _sums(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = rows.mean(axis=-2)
    away = rows - mean[..., None, :]
    return mean, np.swapaxes(away, -1, -2) @ away


@cache
def _binary_scale(mean_f: float, n: int) -> float | None:
    """Average shift in probability that gives the F, or None where no shift within `SHIFT` does."""
    z = np.random.default_rng(1).standard_normal(100_001)

    def strength(c: float) -> float:
        g = np.clip(c * (1.0 + TAU * z), *SHIFT)
        treated = BASE + g
        noise = (treated * (1.0 - treated) + BASE * (1.0 - BASE)).mean() / n
        return float(1.0 + (g**2).mean() / noise)

    low, high = 0.0, 0.6
    if strength(high) < mean_f:
        return None
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if strength(middle) < mean_f else (low, middle)
    return high


def _draw_binary(cell: Cell, rng: np.random.Generator, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """A 0/1 mediator; the outcome is a count or 0/1. The rank x in the queue for the mediator confounds."""
    scale = _binary_scale(cell.mean_f, cell.n)
    assert scale is not None
    shape = (trials, 2 * cell.sites, cell.n)
    g = np.clip(scale * (1.0 + TAU * rng.standard_normal((trials, cell.sites))), *SHIFT)
    share = np.full(shape[:2], BASE)
    share[:, 1::2] += g
    x = rng.random(shape)
    m = (x < share[..., None]).astype(float)
    (centre,) = TRUTH[cell.errors]
    if cell.errors == "count":
        away = np.clip(cell.effect_sd * rng.standard_normal(g.shape), -1.4, 1.4)
        effect = np.repeat(centre + away, 2, axis=1)[..., None]
        y = rng.poisson(1.0 + 3.0 * (1.0 - x) + effect * m).astype(float)
    else:
        # Effects on a probability: a third of the spread, cut symmetrically so that it stays inside 0 and 1.
        away = np.clip(cell.effect_sd / 3.0 * rng.standard_normal(g.shape), -0.2, 0.2)
        effect = np.repeat(centre + away, 2, axis=1)[..., None]
        y = (rng.random(shape) < 0.1 + 0.5 * (1.0 - x) + effect * m).astype(float)
    return _sums(np.stack([y, m], axis=-1))
