"""Simulated trials that a test of the surface is compared with: its p-value, its power, and what it can find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import fdtri, ndtri

from msmmiv.diagnose.null_surface import NullSurface
from msmmiv.diagnose.surface import Surface, Violation
from msmmiv.diagnose.surface_curves import CURVES
from msmmiv.estimate.between.added_terms import AddedTerms
from msmmiv.linalg import Array
from msmmiv.progress import watched

__all__ = ["Trials", "compare"]

_LEVEL, _POWER = 0.05, 0.8
#: z_.975, and with z_.8: standard errors that a violation must measure to be found four times in five.
_Z = 1.959963984540054
_REACH = _Z + 0.8416212335729143
#: Trials for each size of a violation that is tried, sizes tried, and what their power may be off.
_TRIED, _SIZES, _NEAR = 249, 5, 0.04
_FLAT = "compliance varies no more than noise around its mean: an intercept and a slope cannot be told apart"


@dataclass(frozen=True, eq=False)
class Trials:
    """Simulated trials beside the one at hand, or the reason why there are none."""

    found: AddedTerms
    null: NullSurface | None = None
    drawn: Array | None = None
    sizes: Array = field(default_factory=lambda: np.empty(0))
    violation: str = ""
    power: float = float("nan")
    detectable: float = float("nan")
    reason: str = ""
    with_f: bool = False

    @property
    def pvalue(self) -> float:
        """(1 + # as large) / (1 + #), or that of F if it is the larger and counts."""
        # Rounding must not turn a tie into a difference.
        larger = (self.sizes >= self.found.statistic * (1.0 - 1e-12)).sum()
        return max(
            float((1 + larger) / (1 + len(self.sizes))), float(self.found.pvalue) if self.with_f else 0.0
        )

    @property
    def critical(self) -> float:
        """Statistic from which the test rejects at 0.05."""
        limit = float(self.sizes[-max(int(_LEVEL * (len(self.sizes) + 1)), 1)])
        return (
            max(limit, float(fdtri(self.found.df, self.found.df_denom, 1.0 - _LEVEL)))
            if self.with_f
            else limit
        )

    @property
    def law(self) -> str:
        """Where the p-value comes from."""
        drawn = f"simulated where the null holds, {len(self.sizes)} draws"
        f = f"F({self.found.df}, {self.found.df_denom:g})"
        return f"{f} or {drawn}, whichever gives the larger p" if self.with_f else drawn


def compare(surface: Surface, *, draws: int, seed: int, power: bool = True) -> Trials:
    """Simulate trials in which the plane is the truth and, for ``power``, as many with the stated violation."""
    found = surface.fit(surface.rows.values, sensitivity=True)
    if not found.ok:
        return Trials(found, reason="compliances vary no more than noise")
    null = surface.null(found)
    if np.isnan(found.sensitivity).any():
        return Trials(found, null, reason=_FLAT)
    if not np.isfinite(found.statistic):
        return Trials(found, null, reason="the scores of the sites do not vary")
    rng = np.random.default_rng(seed)
    sizes, drawn = _statistics(surface, null, rng, draws)
    sizes = np.sort(sizes[np.isfinite(sizes)])
    if 2 * len(sizes) < draws:
        return Trials(
            found, null, drawn, reason="compliances vary no more than noise in most trials like this one"
        )
    trials = Trials(found, null, drawn, sizes, with_f=surface.kind == "reset")
    violation = surface.violation(null) if power else None
    if violation is None:
        return trials
    worse, _ = _statistics(surface, null, rng, draws, violation.of(violation.size))
    share = float((worse >= trials.critical).mean())
    trials = replace(trials, violation=violation.words, power=share)
    return replace(trials, detectable=_detectable(surface, trials, violation, draws=draws, seed=seed))


def _detectable(surface: Surface, trials: Trials, violation: Violation, *, draws: int, seed: int) -> float:
    """Size of the added coefficient with which 80% of simulated trials reject; NaN where none was found.

    With few sites the test finds less than its standard error promises, so sizes are tried: the same draws for each
    of them, the next one by a straight line through the last two in logs of size and of z = z_power + z_.975.
    """
    # Of a bend it could not be shown: beside a free intercept hardly any trial has a size that is found so often.
    if surface.kind != "origin" or trials.null is None:
        return float("nan")
    sign = -1.0 if violation.size < 0 else 1.0
    size, share = abs(violation.size), trials.power
    if not size > 0:
        error = float(trials.found.std_errors[0] * abs(surface.added_unit[0]))
        if not np.isfinite(error) or not error > 0:
            return float("nan")
        size, share = _REACH * error, 0.5
    last: tuple[float, float] | None = None
    for _ in range(_SIZES):
        z, rise = _Z + float(ndtri(np.clip(share, _LEVEL, 0.995))), 1.0
        if last is not None:
            further, more = np.log(size / last[0]), np.log(z / last[1])
            if further > np.log(1.5) and more < 0.02:  # power has stopped rising
                return float("nan")
            rise = float(np.clip(more / further, 0.4, 2.0)) if further else 1.0
        last = size, z
        size *= float(np.clip((_REACH / z) ** (1.0 / rise), 0.2, 5.0))
        drawn, _ = _statistics(
            surface,
            trials.null,
            np.random.default_rng([seed, 1]),
            min(draws, _TRIED),
            violation.of(sign * size),
        )
        share = float((drawn >= trials.critical).mean())
        if abs(share - _POWER) <= _NEAR:
            return size * _REACH / (_Z + float(ndtri(share)))
    return float("nan")


def _statistics(
    surface: Surface,
    null: NullSurface,
    rng: np.random.Generator,
    draws: int,
    change: Callable[[Array], Array] | None = None,
) -> tuple[Array, Array]:
    """(B,) statistics of simulated trials, and the first of the trials; as many at once as memory allows."""
    parts = null.parts(draws, sum(map(len, surface.terms)))
    found: list[Array] = []
    kept: list[Array] = []
    for size in watched(parts, what="simulated trials", show=len(parts) > 20):
        drawn = null.draw(rng, size, change)
        found.append(surface.fit(drawn).statistic)
        if sum(map(len, kept)) < CURVES:
            kept.append(drawn)
    return np.concatenate(found), np.concatenate(kept)[:CURVES]
