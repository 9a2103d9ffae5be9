"""Assumption (viii.a): whether compliance with each mediator differs across sites."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.heterogeneity import heterogeneity
from msmmiv.errors import count
from msmmiv.inference.meta import meta_regression
from msmmiv.inference.projection import Projection
from msmmiv.inference.rank_tests import noise_tail
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["variation"]

_FIGURES = (
    "mean", "std_error", "q", "df", "p_value", "i2", "sd", "sd_lower", "sd_upper", "sd_reml", "noise_p_value",
    "variance_moment",
)  # fmt: skip


EMPTY = "the interval of the spread is empty: compliances differ less than their variances allow"


def variation(compliances: Compliances) -> pd.DataFrame:
    """Whether and how much compliance differs across sites, one row per mediator and contrast.

    Compliance plays the part of the effect in `heterogeneity` with a mediator that the treatment moves by one in every
    site: the same Q, the same spread and the same correction for variances that come from few people.

    Returns
    -------
    DataFrame
        ``mediator, contrast, sites, mean`` (weighted as in 2SLS) ``, std_error, q, df, p_value, i2, sd`` (Paule-Mandel)
        with its Q-profile limits ``sd_lower, sd_upper``, and ``sd_reml``; beside them ``noise_p_value`` and
        ``variance_moment``, which add sites' variances up instead of dividing by each: Q sees little where a site has a
        handful of people. NaN, with the ``reason``, where a mediator does not vary inside arms or fewer than two sites
        have the contrast. ``note`` says so where the interval of the spread is empty.

    Notes
    -----
    With weights w and sampling variances v, S = sum w (g - mean)^2 has mean sum (w - w^2 / sum w) (t + v) where
    compliances vary by t: ``variance_moment`` solves that for t (it may be negative), ``noise_p_value`` is the law of
    S at t = 0 (`robin_smith_test` for one mediator and a free direct effect).
    """
    rows = []
    for p, mediator in enumerate(compliances.mediators):
        for d, contrast in enumerate(compliances.contrasts):
            here = compliances.present[:, d] > 0
            row = {"mediator": mediator, "contrast": contrast, "sites": int(here.sum())}
            rows.append(row | _row(compliances, here, d, p))
    return pd.DataFrame(rows)


def _row(c: Compliances, here: npt.NDArray[np.bool_], d: int, p: int) -> dict[str, object]:
    g, v, df = c.slopes[here, d, p], c.cov[here, d, p, d, p], c.df[here, p]
    out: dict[str, object] = dict.fromkeys(_FIGURES, np.nan) | {"reason": c.unknown, "note": ""}
    out["mean"] = float(g.mean()) if len(g) else np.nan
    if c.unknown:
        return out
    if len(g) < 2:
        return out | {"reason": "one site has no variation across sites"}
    weight = c.projection.omega[here, d, d]
    if exact := int((v <= 1e-24 * np.maximum(g**2, np.finfo(float).tiny)).sum()):
        known = _added_up(g, v, weight, c.pooled_df) if v.sum() > 0 else {}
        return (
            out
            | known
            | {
                "reason": f"its compliance is exact in {count(exact, 'site')}: it does not vary inside the arms there"
            }
        )
    found = heterogeneity(_as_effects(g, v, df, weight, c.noise))
    test = found.q
    return out | {
        "mean": float(found.centre[0]), "std_error": float(found.centre_se[0]), "q": test.stat,
        "df": np.nan if isinstance(test, NotApplicable) else test.df, "p_value": test.pvalue, "i2": found.i2,
        "sd": float(found.spread[0]), "sd_lower": float(found.spread_interval[0]),
        "sd_upper": float(found.spread_interval[1]),
        "sd_reml": float(np.sqrt(max(meta_regression(g, v=v, tau2="REML").tau2, 0.0))),
        **_added_up(g, v, weight, c.pooled_df),
        "note": EMPTY if np.isnan(found.spread_interval[0]) and not isinstance(test, NotApplicable) else "",
    }  # fmt: skip


def _added_up(g: Array, v: Array, weight: Array, df: float) -> dict[str, float]:
    """What variances added up over sites say."""
    w = weight[:, None, None]
    around = Projection(w, w, w)  # net of a common effect
    slopes, blocks = g[:, None, None], v[:, None, None, None, None]
    seen, noise = float(around.explained(slopes)[0, 0]), float(around.noise(blocks)[0, 0])
    spare = float(weight.sum() - (weight**2).sum() / weight.sum())
    return {
        "noise_p_value": noise_tail(seen, around.law(v[:, None, None]), df),
        "variance_moment": (seen - noise) / spare,
    }


def _as_effects(g: Array, v: Array, df: Array, weight: Array, noise: str) -> SiteEffects:
    """Compliance as the outcome of a mediator that the treatment moves by exactly one."""
    k = len(g)
    cov = np.zeros((k, 1, 2, 1, 2))
    cov[:, 0, 0, 0, 0] = v
    return SiteEffects(
        sites=tuple(range(k)),
        contrasts=("",),
        mediators=("the treatment itself",),
        outcome="compliance",
        estimates=frozen(np.stack([g, np.ones(k)], axis=1)[:, None, :]),
        cov=frozen(cov),
        precision=frozen(weight[:, None, None]),
        n=frozen(np.full(k, np.nan)),
        cov_type=noise,
        df=frozen(df),
    )
