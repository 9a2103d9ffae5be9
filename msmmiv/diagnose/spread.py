"""The spread of site effects: its size, its limits, and what it implies for each site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import chdtri

from msmmiv.diagnose.least_q import Blocks, Minimum, variance_where
from msmmiv.diagnose.site_variation import compliance_moments, effect_covariance, residuals
from msmmiv.estimate.corrected import Corrected
from msmmiv.estimate.site_moments import SiteRows, estimated
from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects

__all__ = ["Spread", "SpreadMethod"]

SpreadMethod: TypeAlias = Literal["PM", "moment"]


@dataclass(frozen=True, eq=False)
class Spread:
    """How much site effects vary beyond sampling error.

    Attributes
    ----------
    covariance : (P, P) array
    interval : (2,) array
        Limits of the standard deviation (one mediator).
    moment : float
        Moment estimate of the variance (one mediator), negative or not.
    status : str or None
    posterior : tuple or None
        One mediator: residuals, and posterior means and variances of compliances, by row.
    """

    covariance: Array
    interval: Array
    moment: float
    status: str | None
    posterior: tuple[Array, Array, Array] | None

    @classmethod
    def of(
        cls, effects: SiteEffects, rows: SiteRows, blocks: Blocks, least: Minimum, centre: Corrected, *,
        p: int, df: int, level: float, method: SpreadMethod,
    ) -> Spread:  # fmt: skip
        """Covariance of site effects, or the reason why there is none."""
        k, params = rows.usable_sites, len(centre.coefficients)
        why = centre.status or ("there are as many coefficients as sites" if df == 0 or k <= params else None)
        if why:
            return cls(np.full((p, p), np.nan), np.full(2, np.nan), float("nan"), f"No spread: {why}.", None)
        d, alpha = centre.coefficients[:p], centre.coefficients[p:]
        arm = np.nonzero(estimated(effects))[1]
        values, cov = residuals(rows, d, alpha[arm] if len(alpha) else np.zeros(len(arm)))
        if p > 1:
            return cls._several(rows, values, cov, k / (k - params))
        w = rows.weights("precision")
        top, bottom = (
            float(w @ (values[:, 0] ** 2 - cov[:, 0, 0])),
            float(w @ (values[:, 1] ** 2 - cov[:, 1, 1])),
        )
        moment = k / (k - params) * top / bottom if bottom > 0 else float("nan")
        first = moment if np.isfinite(moment) else 0.0
        mean, variance = compliance_moments(values, cov, arm, spread=first)
        second = _second(effects, mean, variance) / blocks.unit[1] ** 2
        scale = (blocks.unit[0] / blocks.unit[1]) ** 2
        interval, touch = _q_profile(blocks, least, second, df, level)
        if method == "moment":
            status = (
                None if moment >= 0 else f"No spread: the moment estimate of the variance is {moment:.3g}."
            )
            estimate = moment if moment >= 0 else float("nan")
        else:
            none = least.q <= df
            found = 0.0 if none else variance_where(blocks, second, df, least)
            status = (
                "The spread is at its boundary, zero: sampling error explains the differences."
                if none
                else touch
            )
            estimate = found * scale
        posterior = (values[:, 0], mean, variance)
        return cls(np.array([[estimate]]), np.sqrt(interval * scale), moment, status, posterior)

    @classmethod
    def _several(cls, rows: SiteRows, values: Array, cov: Array, factor: float) -> Spread:
        p = values.shape[1] - 1
        omega, cut = effect_covariance(rows, values, cov)
        none = np.full(2, np.nan)
        if omega is None or rows.usable_sites <= p * (p + 1) // 2:
            why = "No spread: the sites do not identify the covariance of effects."
            return cls(np.full((p, p), np.nan), none, float("nan"), why, None)
        status = (
            "The covariance of effects was not positive and was projected: some spreads are at zero."
            if cut
            else None
        )
        return cls(omega * factor, none, float("nan"), status, None)

    def shrunken(self, effects: SiteEffects, centre: Corrected) -> pd.DataFrame | None:
        """Best linear predictions of site effects from residuals; None without a spread."""
        t = float(self.covariance[0, 0])
        if self.posterior is None or not np.isfinite(t):
            return None
        e, mean, variance = self.posterior
        have = estimated(effects)
        full_e, full_g = np.zeros(have.shape), np.zeros(have.shape)
        full_e[have], full_g[have] = e, mean
        turn = np.array([1.0, -float(centre.coefficients[0])])
        both = have[:, :, None] & have[:, None, :]
        noise = np.where(both, np.einsum("a,kdaeb,b->kde", turn, effects.cov, turn), 0.0)
        total = (
            noise
            + t * _second(effects, mean, variance)
            + np.where(have, 0.0, 1.0)[:, :, None] * np.eye(have.shape[1])
        )
        gain = t * np.linalg.solve(total, full_g[:, :, None])[:, :, 0]
        share = (gain * full_g).sum(axis=1)
        used = np.asarray(have.any(axis=1))
        # What the centre (and the direct effects) are off by moves a prediction by these weights.
        load = np.column_stack([1.0 - share, -gain])[:, : len(centre.coefficients)]
        own = np.einsum("ka,ab,kb->k", load, centre.cov, load)
        frame = pd.DataFrame({
            "site": list(effects.sites), "effect": centre.coefficients[0] + (gain * full_e).sum(axis=1),
            "sd": np.sqrt(t * (1.0 - share) + own), "weight": share,
        })  # fmt: skip
        return frame.iloc[np.flatnonzero(used)].reset_index(drop=True)


def _second(effects: SiteEffects, mean: Array, variance: Array) -> Array:
    """(K, D, D) expected products of the compliances of a site's arms given the data (one mediator)."""
    have = estimated(effects)
    full, spread = np.zeros(have.shape), np.zeros(have.shape)
    full[have], spread[have] = mean, variance
    return full[:, :, None] * full[:, None, :] + spread[:, :, None] * np.eye(have.shape[1])


def _q_profile(
    blocks: Blocks, least: Minimum, second: Array, df: int, level: float
) -> tuple[Array, str | None]:
    tail = (1.0 - level) / 2.0
    high, low = float(chdtri(df, tail)), float(chdtri(df, 1.0 - tail))
    if least.q < low:
        why = f"The interval of the spread is empty: Q = {least.q:.4g} is below {low:.4g}, sites agree too well."
        return np.full(2, np.nan), why
    upper = variance_where(blocks, second, low, least)
    lower = variance_where(blocks, second, high, least) if least.q > high else 0.0
    return np.array([lower, upper]), None if np.isfinite(
        upper
    ) else "The interval of the spread has no upper end."
