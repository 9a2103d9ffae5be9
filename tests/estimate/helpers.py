"""Row-level two-stage least squares with every dummy written out: the slow truth that moments must equal."""

from __future__ import annotations

import numpy as np
import pandas as pd


def trial(
    seed: int = 0,
    *,
    sites: int = 8,
    per_site: int = 40,
    mediators: int = 1,
    arms: int = 2,
    blocks: int = 0,
    covariates: int = 0,
    clusters: int = 0,
    weights: bool = False,
) -> pd.DataFrame:
    """A synthetic multisite trial with unequal sites, probabilities and effects."""
    rng = np.random.default_rng(seed)
    size = rng.integers(per_site // 2, per_site * 2, sites) + 4 * arms
    site = np.repeat(np.arange(sites), size)
    n = len(site)
    df = pd.DataFrame({"site": site + 1})
    share = rng.uniform(0.3, 0.7, sites)
    t = (rng.uniform(size=n) < share[site]).astype(int) if arms == 2 else rng.integers(0, arms, n)
    for s in range(sites):
        where = np.flatnonzero(site == s)
        t[where[: 2 * arms]] = np.tile(np.arange(arms), 2)
    df["t"] = t
    if blocks:
        df["block"] = rng.integers(0, blocks, n)
    if clusters:
        df["cluster"] = site * clusters + rng.integers(0, clusters, n)
    noise = rng.normal(size=n)
    common = rng.normal(size=n)
    y = rng.normal(size=sites)[site] + common + rng.normal(size=n) * (1 + 0.5 * t)
    for j in range(covariates):
        df[f"x{j}"] = rng.normal(size=n) + 0.3 * rng.normal(size=sites)[site]
        y = y + (0.5 + j) * df[f"x{j}"]
    for j in range(mediators):
        effect = rng.normal(0.7, 0.5, (sites, arms))
        effect[:, 0] = 0
        m = effect[site, t] + 0.6 * common + 0.3 * noise + rng.normal(size=n)
        m = m + sum(0.2 * df[f"x{k}"] for k in range(covariates))
        df[f"m{j}"] = m
        y = y + (0.5 - 0.3 * j) * m
    df["y"] = y
    if weights:
        df["w"] = np.exp(rng.normal(0, 0.4, n))
    return df


def dense(
    df: pd.DataFrame,
    mediators: list[str],
    *,
    covariates: tuple[str, ...] = (),
    block: str | None = None,
    direct: bool = False,
    weights: str | None = None,
    ols: bool = False,
) -> dict[str, np.ndarray]:
    """2SLS (or OLS) by least squares on dense matrices; returns what sandwiches need."""
    w = df[weights].to_numpy() if weights else np.ones(len(df))
    root = np.sqrt(w)[:, None]
    level = [df["site"], df[block]] if block else [df["site"]]
    dummies = pd.get_dummies(pd.Series(list(zip(*level, strict=True))), dtype=float).to_numpy()
    arms = sorted(df["t"].unique())[1:]
    indicators = np.column_stack([(df["t"] == a).to_numpy(float) for a in arms])
    site = pd.get_dummies(df["site"], dtype=float).to_numpy()
    z = np.hstack([site * indicators[:, [a]] for a in range(len(arms))])
    z = z[:, np.abs(z).sum(axis=0) > 0]
    x = df[list(covariates)].to_numpy(float)
    extra = indicators if direct else np.zeros((len(df), 0))
    regressors = np.hstack([df[mediators].to_numpy(float), extra, x, dummies]) * root
    instruments = np.hstack([z, x, dummies]) * root
    y = df["y"].to_numpy(float) * root[:, 0]
    fitted = regressors if ols else instruments @ np.linalg.lstsq(instruments, regressors, rcond=None)[0]
    bread = np.linalg.inv(fitted.T @ fitted)
    b = bread @ fitted.T @ y
    k = len(mediators) + extra.shape[1] + x.shape[1]
    return {
        "b": b, "k": k, "bread": bread, "fitted": fitted, "e": y - regressors @ b,
        "h": np.einsum("ij,jk,ik->i", fitted, bread, fitted), "all": regressors.shape[1],
    }  # fmt: skip


def hc(fit: dict[str, np.ndarray], power: int) -> np.ndarray:
    """Sandwich with residuals divided by (1 - leverage)^power."""
    score = fit["fitted"] * (fit["e"] / (1 - fit["h"]) ** (power / 2))[:, None]
    return (fit["bread"] @ score.T @ score @ fit["bread"])[: fit["k"], : fit["k"]]


def clustered(fit: dict[str, np.ndarray], groups: pd.Series) -> np.ndarray:
    """Cluster sandwich without correction."""
    score = pd.DataFrame(fit["fitted"] * fit["e"][:, None]).groupby(groups.to_numpy()).sum().to_numpy()
    return (fit["bread"] @ score.T @ score @ fit["bread"])[: fit["k"], : fit["k"]]
