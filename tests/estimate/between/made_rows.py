"""Rows written by hand, so that every figure in a test is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tests.estimate.between.makers import rows_from

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
FILES = {"k5": "agg_k5", "k10": "agg_k10", "k30": "agg_k30", "example": "mechte_example_dat"}


def rows_of(y, x, cov, *, exogenous=("direct_effect",), **more):
    """`rows_from` with rows s0, s1, ... and mediators m0, m1, ..."""
    k, p = x.reshape(len(y), -1).shape
    labels, names = tuple(f"s{i}" for i in range(k)), tuple(f"m{j}" for j in range(p))
    return rows_from(y, x, cov, labels=labels, names=names, exogenous=exogenous, **more)


def simple(x, y, a, b, c=0.0, **more):
    """One mediator from its five columns."""
    cov = np.empty((len(x), 2, 2))
    cov[:, 0, 0], cov[:, 1, 1] = b, a
    cov[:, 0, 1] = cov[:, 1, 0] = c
    return rows_of(np.asarray(y), np.asarray(x), cov, **more)


def with_corr(rows, value):
    """One-mediator rows with Corr(itt, compliance) of every row set to a value."""
    cov = rows.cov.copy()
    cov[:, 0, 1] = cov[:, 1, 0] = value * np.sqrt(cov[:, 0, 0] * cov[:, 1, 1])
    return replace(rows, cov=cov)


def golden(name):
    return json.loads((GOLDEN / "mechte_simex.json").read_text(encoding="utf-8"))[name]


def golden_rows(name, *, corr=0.0, direct_effect=True):
    t = pd.read_csv(GOLDEN / f"{FILES[name]}.csv").to_numpy()
    x, y, su, sv = t[:, -4:].T
    if direct_effect:
        return simple(x, y, su**2, sv**2, corr * su * sv)
    return simple(x, y, su**2, sv**2, corr * su * sv, z=np.empty((len(x), 0)), exogenous=())


def golden_multi(*, direct_effect=False):
    t = pd.read_csv(GOLDEN / "agg_multi_k40.csv")
    names = ["gamma1", "gamma2", "gamma3"]
    se = t[["se_tau", *(f"se_{n}" for n in names)]].to_numpy()
    cov = np.einsum("ka,ab->kab", se**2, np.eye(4))
    x = t[names].to_numpy()
    if direct_effect:
        return rows_of(t.tau_hat.to_numpy(), x, cov)
    return rows_of(t.tau_hat.to_numpy(), x, cov, z=np.empty((len(x), 0)), exogenous=())


def covariances(rng, k, m, scale=0.3):
    root = rng.normal(size=(k, m, m)) * scale / np.sqrt(m)
    return root @ root.transpose(0, 2, 1) + 0.02 * np.eye(m)


def random_rows(seed=0, *, k=14, p=1, covariates=0, intercept=True, arms=1, scale=0.3):
    """Rows of a model with direct effects that vary; ``arms`` > 1 gives sites whose rows share an error."""
    rng = np.random.default_rng(seed)
    m = 1 + p
    own, shared = covariances(rng, k, m, scale), covariances(rng, k // arms, m, scale)
    site = np.repeat(np.arange(k // arms), arms)
    k = len(site)
    z = (
        np.column_stack([np.ones(k), rng.normal(size=(k, covariates))])
        if intercept
        else rng.normal(size=(k, covariates))
    )
    names = ("direct_effect",) * intercept + tuple(f"w{j}" for j in range(covariates))
    truth = rng.normal(size=(k, p)) + 0.5 * z @ rng.normal(size=(z.shape[1], p)) + 0.7
    beta, delta = np.arange(1, p + 1.0), np.linspace(0.4, -0.6, z.shape[1])
    value = np.column_stack([truth @ beta + z @ delta + 0.3 * rng.normal(size=k), truth])
    draw = lambda v: np.einsum("kij,kj->ki", np.linalg.cholesky(v), rng.normal(size=v.shape[:2]))  # noqa: E731
    value = value + draw(own[:k])
    cov, cross = own[:k], None
    if arms > 1:
        value = value + draw(shared)[site]
        cross = np.zeros((k, m, k, m))
        for i in range(k):
            for j in np.flatnonzero(site == site[i]):
                cross[i, :, j, :] = shared[site[i]] + (own[i] if i == j else 0.0)
        cov = np.array([cross[i, :, i, :] for i in range(k)])
    return rows_of(value[:, 0], value[:, 1:], cov, z=z, exogenous=names, cross=cross, site=site)
