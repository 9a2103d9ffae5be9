"""Trials with any number of mediators, arms, blocks, covariates and clusters, and their dense matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.diagnose.compliances import Compliances
from msmmiv.estimate import system_of
from msmmiv.estimate.system import System


@dataclass(frozen=True)
class Kind:
    """What a trial is made of."""

    mediators: int = 2
    arms: int = 2
    covariates: int = 0
    blocks: int = 1
    weighted: bool = False
    direct_effect: bool = False
    sites: int = 8
    people: int = 60

    @property
    def names(self) -> list[str]:
        return [f"m{p}" for p in range(self.mediators)]

    @property
    def design(self) -> mm.Design:
        more = {"block": "block"} if self.blocks > 1 else {}
        if self.weighted:
            more |= {"weights": "w", "weight_kind": "analytic"}
        return mm.Design(
            outcome="y",
            treatment="t",
            mediators=self.names,
            site="site",
            cluster="class",
            covariates=[f"x{j}" for j in range(self.covariates)],
            **more,
        )


#: Every feature alone and several together.
KINDS = [
    Kind(mediators=1),
    Kind(),
    Kind(direct_effect=True),
    Kind(mediators=3),
    Kind(arms=3),
    Kind(arms=3, direct_effect=True),
    Kind(covariates=1),
    Kind(arms=3, covariates=2, blocks=2, direct_effect=True),
    Kind(blocks=2),
    Kind(weighted=True),
    Kind(mediators=3, arms=3, covariates=1, blocks=2, weighted=True, direct_effect=True),
]


def rows_of(kind: Kind, seed: int = 1, *, moved: float = 0.5) -> pd.DataFrame:
    """One person a row; compliances differ between sites and arms, errors between sites."""
    rng = np.random.default_rng(seed)
    k, n = kind.sites, kind.sites * kind.people
    site = np.repeat(np.arange(k), kind.people)
    t, shared = rng.integers(0, kind.arms, n), rng.normal(size=n)
    x = rng.normal(size=(n, kind.covariates)) + 0.1 * t[:, None]
    out = {
        "site": site,
        "t": t,
        "block": rng.integers(0, kind.blocks, n),
        "class": site * 1000 + rng.integers(0, 12, n),
        "w": rng.uniform(0.5, 2.0, n),
    }
    y = shared + rng.normal(size=n)
    for name in kind.names:
        g = rng.normal(moved, moved, (k, kind.arms))
        errors = rng.normal(size=n) * (1 + site / 8)
        out[name] = g[site, t] * (t > 0) + 0.5 * shared + errors + 0.3 * x.sum(axis=1)
        y = y + 0.5 * out[name]
    return pd.DataFrame({**out, "y": y, **{f"x{j}": x[:, j] for j in range(kind.covariates)}})


def dense(kind: Kind, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mediators, excluded instruments and exogenous regressors, rows multiplied by root weights."""
    intercepts = pd.get_dummies(rows["site"].astype(str) + "/" + rows["block"].astype(str), dtype=float)
    sites = pd.get_dummies(rows["site"], dtype=float).to_numpy()
    arms = [(rows["t"] == a).to_numpy(float)[:, None] for a in range(1, kind.arms)]
    z, x = np.hstack([sites * a for a in arms]), rows[[c for c in rows if c.startswith("x")]].to_numpy(float)
    exogenous = np.hstack([intercepts.to_numpy(), x])
    if kind.direct_effect:
        exogenous = np.hstack([exogenous, *arms])
        z = np.delete(z, [a * sites.shape[1] for a in range(kind.arms - 1)], axis=1)
    root = np.sqrt(rows["w"].to_numpy())[:, None] if kind.weighted else 1.0
    return rows[kind.names].to_numpy() * root, z * root, exogenous * root


def study_of(kind: Kind, rows: pd.DataFrame) -> tuple[mm.Study, System, Compliances]:
    """The study, its system and its compliances."""
    study = mm.Study(rows, kind.design)
    system = system_of(study.moments, direct_effect=kind.direct_effect)
    return study, system, Compliances.from_system(system)


def net_of(exogenous: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Residuals of a regression."""
    return values - exogenous @ np.linalg.lstsq(exogenous, values, rcond=None)[0]


def simple(
    sites: int, people: int, mediators: int = 2, *, seed: int = 0, proportional: bool = False
) -> pd.DataFrame:
    """Two balanced arms without clusters; compliances N(1, 0.5), proportional on request."""
    rng = np.random.default_rng(seed)
    site, t = np.repeat(np.arange(sites), people), np.tile(np.arange(people) % 2, sites)
    shared, first = rng.normal(size=len(site)), rng.normal(1, 0.5, sites)
    out, y = {"site": site, "t": t}, shared + rng.normal(size=len(site))
    for p in range(mediators):
        g = first * (0.7 if p else 1.0) if proportional else rng.normal(1, 0.5, sites)
        out[f"m{p}"] = g[site] * t + 0.5 * shared + rng.normal(size=len(site))
        y = y + 0.5 * out[f"m{p}"]
    return pd.DataFrame({**out, "y": y})


def simple_study(rows: pd.DataFrame, **roles: object) -> mm.Study:
    """Mediators are the columns called m."""
    mediators = [c for c in rows if str(c).startswith("m")]
    return mm.Study(rows, mm.Design(outcome="y", treatment="t", mediators=mediators, site="site", **roles))
