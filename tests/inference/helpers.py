"""Reduced forms by dense projections, and trials whose instruments can be as weak as one likes."""

from __future__ import annotations

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.inference.reduced_form import ReducedForm


def dense_parts(df: pd.DataFrame, mediators: list[str]):
    """Site dummies, instruments, mediators and outcome as plain matrices."""
    dummies = pd.get_dummies(df["site"], dtype=float).to_numpy()
    z = dummies * df["t"].to_numpy(float)[:, None]
    return dummies, z, df[mediators].to_numpy(float), df["y"].to_numpy(float)


def dense_form(df: pd.DataFrame, mediators: list[str]) -> ReducedForm:
    dummies, z, m, y = dense_parts(df, mediators)
    v = np.column_stack([y, m])
    v = v - dummies @ np.linalg.lstsq(dummies, v, rcond=None)[0]
    w = z - dummies @ np.linalg.lstsq(dummies, z, rcond=None)[0]
    fitted = w @ np.linalg.lstsq(w, v, rcond=None)[0]
    rank = z.shape[1]
    df_resid = len(df) - dummies.shape[1] - rank
    rest = v - fitted
    return ReducedForm(fitted.T @ fitted, rest.T @ rest / df_resid, rank, df_resid, tuple(mediators))


def effects_of(df: pd.DataFrame, mediators: list[str], **kwargs) -> mm.SiteEffects:
    design = mm.Design(outcome="y", treatment="t", mediators=mediators, site="site")
    return mm.SiteEffects.from_moments(mm.Study(df, design).moments, **kwargs)


def weak_trial(
    seed, *, sites=10, per_arm=20, mediators=1, strength=0.3, effect=0.5, direct=0.0, het=0.0
) -> pd.DataFrame:
    """Balanced trial: compliances of size ``strength``, constant effects, errors that share a cause."""
    rng = np.random.default_rng(seed)
    n = 2 * per_arm * sites
    site = np.repeat(np.arange(sites), 2 * per_arm)
    t = np.tile(np.repeat([0, 1], per_arm), sites)
    common = rng.normal(size=n)
    scale = 1 + het * (t * (site % 3))
    out = {"site": site, "t": t}
    y = common + rng.normal(size=n) + direct * t
    for j in range(mediators):
        gamma = strength * rng.normal(1.0 if j == 0 else 0.5, 1.0, sites)
        m = gamma[site] * t + scale * (0.8 * common + 0.6 * rng.normal(size=n))
        out[f"m{j}"] = m
        y = y + effect * m
    return pd.DataFrame({**out, "y": y})
