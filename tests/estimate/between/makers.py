"""Rows of the between-site regression, made up, and the dense computations they are checked with."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from msmmiv.estimate.between.rows import BetweenRows


def rows_from(
    y: np.ndarray,
    x: np.ndarray,
    cov: np.ndarray,
    *,
    z: np.ndarray | None = None,
    cross: np.ndarray | None = None,
    common: np.ndarray | None = None,
    site: np.ndarray | None = None,
    names: tuple[str, ...] | None = None,
    labels: tuple[Hashable, ...] | None = None,
    exogenous: tuple[str, ...] | None = None,
    zero: bool = False,
) -> BetweenRows:
    """Rows from arrays; independent, with an intercept and mediators m1, m2, ... unless said otherwise."""
    y, cov = np.asarray(y, dtype=float), np.asarray(cov, dtype=float)
    x = np.asarray(x, dtype=float).reshape(len(y), -1)
    k, p = x.shape
    z = np.ones((k, 1)) if z is None else z
    if exogenous is None:
        exogenous = ("direct_effect", *(f"z{j}" for j in range(1, z.shape[1])))[: z.shape[1]]
    return BetweenRows(
        labels=tuple(range(k)) if labels is None else labels,
        mediators=tuple(f"m{j}" for j in range(1, p + 1)) if names is None else names,
        outcome="y",
        exogenous=exogenous,
        y=y,
        x=x,
        z=z,
        cov=cov,
        cross=cross,
        common=np.zeros((1 + p, 1 + p)) if common is None else common,
        site=np.arange(k) if site is None else site,
        zero_covariance_assumed=zero,
    )


def covariances(
    rng: np.random.Generator, k: int, p: int, *, size: float = 0.5, tied: float = 0.5
) -> np.ndarray:
    """(K, 1 + P, 1 + P) unequal sampling covariances with correlation ``tied`` between all errors of a row."""
    sd = size * rng.gamma(2.0, 0.5, (k, 1 + p)) + 0.02
    correlation = tied + (1.0 - tied) * np.eye(1 + p)
    return sd[:, :, None] * sd[:, None, :] * correlation


def draw_rows(
    rng: np.random.Generator,
    k: int,
    slopes: tuple[float, ...] = (2.0,),
    *,
    size: float = 0.5,
    tied: float = 0.5,
    direct: float = 4.0,
    sd: float = 1.0,
    z: np.ndarray | None = None,
) -> BetweenRows:
    """A sample as in Fu's Algorithm 1, sampling errors correlated."""
    p = len(slopes)
    truth = rng.normal(2.0, 1.0, (k, p))
    cov = covariances(rng, k, p, size=size, tied=tied)
    errors = np.einsum("kab,kb->ka", np.linalg.cholesky(cov), rng.normal(size=(k, 1 + p)))
    y = direct + truth @ np.array(slopes) + sd * rng.normal(size=k) + errors[:, 0]
    return rows_from(y, truth + errors[:, 1:], cov, z=z)


def shared_controls(
    rng: np.random.Generator, sites: int, arms: int, slopes: tuple[float, ...] = (2.0,)
) -> BetweenRows:
    """Rows of several arms per site that share its controls: correlated errors."""
    p, k = len(slopes), sites * arms
    own, shared = covariances(rng, k, p, size=0.4), covariances(rng, sites, p, size=0.4)
    site = np.repeat(np.arange(sites), arms)
    cross = np.zeros((k, 1 + p, k, 1 + p))
    for i in range(k):
        for j in range(k):
            cross[i, :, j, :] = shared[site[i]] * (site[i] == site[j]) + own[i] * (i == j)
    dense = cross.reshape(k * (1 + p), -1)
    errors = (np.linalg.cholesky(dense) @ rng.normal(size=k * (1 + p))).reshape(k, 1 + p)
    truth = rng.normal(2.0, 1.0, (k, p))
    y = 4.0 + truth @ np.array(slopes) + rng.normal(size=k) + errors[:, 0]
    cov = np.stack([cross[i, :, i, :] for i in range(k)])
    return rows_from(y, truth + errors[:, 1:], cov, cross=cross, site=site)
