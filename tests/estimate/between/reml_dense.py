"""Rows drawn for tests, and the likelihood written from scratch with matrices of the size of all data."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from msmmiv.estimate.between.rows import BetweenRows
from tests.estimate.between.makers import rows_from


def make_rows(y, x, cov, z=None, cross=None, site=None, names=None) -> BetweenRows:
    """`rows_from` with mediators m0, m1, ... and covariates w1, w2, ..."""
    p, q = np.asarray(x).reshape(len(y), -1).shape[1], 1 if z is None else z.shape[1]
    names = names or tuple(f"m{j}" for j in range(p))
    exogenous = ("direct_effect", *(f"w{j}" for j in range(1, q)))
    return rows_from(y, x, cov, z=z, cross=cross, site=site, names=names, exogenous=exogenous)


def draw(seed, k=10, p=1, q=1, beta=1.0, size=0.6, arms=1) -> BetweenRows:
    """Rows with unequal and correlated errors; with arms, those of one site share theirs in part."""
    rng = np.random.default_rng(seed)
    n = k * arms
    root = rng.normal(size=(n, 1 + p, 2 + p)) * size * rng.gamma(2, 0.5, (n, 1, 1)) / np.sqrt(2 + p)
    cov = root @ root.swapaxes(1, 2)
    site = np.repeat(np.arange(k), arms)
    cross = None
    if arms > 1:
        share = 0.3 * np.stack([cov[site == s].min(axis=0) * np.eye(1 + p) for s in range(k)])[site]
        cross = np.zeros((n, 1 + p, n, 1 + p))
        for i in range(n):
            for j in range(n):
                cross[i, :, j, :] = (site[i] == site[j]) * share[i] + (i == j) * cov[i]
        cov = np.stack([cross[i, :, i] for i in range(n)])
    z = np.column_stack([np.ones(n), rng.normal(size=(n, q - 1))])
    g = rng.normal(size=(n, p)) + 2.0
    truth = np.column_stack([4 + g @ np.full(p, beta) + rng.normal(size=n), g])
    full = np.zeros((n * (1 + p),) * 2)
    if cross is None:
        for i in range(n):
            full[i * (1 + p) : (i + 1) * (1 + p), i * (1 + p) : (i + 1) * (1 + p)] = cov[i]
    else:
        full = cross.reshape(n * (1 + p), -1)
    d = truth + rng.multivariate_normal(np.zeros(len(full)), full, method="eigh").reshape(truth.shape)
    return make_rows(d[:, 0], d[:, 1:], cov, z, cross, site)


def dense_loglik(rows: BetweenRows, omega, *, restricted=True) -> float:
    """(Restricted) log-likelihood at Omega of (itt, compliances)."""
    n, size = rows.cov.shape[:2]
    full = np.kron(np.eye(n), omega)
    if rows.cross is None:
        for i in range(n):
            full[i * size : (i + 1) * size, i * size : (i + 1) * size] += rows.cov[i]
    else:
        full += rows.cross.reshape(n * size, n * size)
    d = np.column_stack([rows.y, rows.x]).ravel()
    design = np.concatenate([np.kron(np.eye(size), rows.z[i]) for i in range(n)])
    w = np.linalg.inv(full)
    normal = design.T @ w @ design
    e = d - design @ np.linalg.solve(normal, design.T @ w @ d)
    value = -0.5 * (np.linalg.slogdet(full)[1] + e @ w @ e + len(d) * np.log(2 * np.pi))
    if restricted:
        value += -0.5 * np.linalg.slogdet(normal)[1] + 0.5 * design.shape[1] * np.log(2 * np.pi)
    return float(value)


def dense_summit(rows: BetweenRows, *, restricted=True, beta0=None) -> float:
    """The same, maximised without derivatives from several starts."""
    size = rows.cov.shape[1]
    tri = np.tril_indices(size)

    def omega(theta):
        if beta0 is not None:  # (s, t): slope fixed
            s2, t2 = theta**2
            return np.array([[beta0**2 * s2 + t2, beta0 * s2], [beta0 * s2, s2]])
        factor = np.zeros((size, size))
        factor[tri] = theta
        return factor @ factor.T

    rng = np.random.default_rng(0)
    best = -np.inf
    for _ in range(4):
        start = rng.normal(size=2 if beta0 is not None else len(tri[0]))
        for _ in range(3):
            found = minimize(
                lambda t: -dense_loglik(rows, omega(t), restricted=restricted),
                start,
                method="Nelder-Mead",
                options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000, "adaptive": True},
            )
            start = found.x
        best = max(best, -float(found.fun))
    return best
