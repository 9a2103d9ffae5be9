"""Rows of a small trial, and moments computed from them with nothing but loops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm

BASE = {"outcome": "y", "treatment": "t", "mediators": ["m"], "site": "s"}


def design(**options: Any) -> mm.Design:
    return mm.Design(**{**BASE, **options})


def people(
    seed: int = 0, *, n: int = 300, sites: int = 5, arms: tuple[Any, ...] = (0, 1), mediators: int = 1
) -> pd.DataFrame:
    """Rows with every role a design may name; each site has every arm, every block both ends of them."""
    rng = np.random.default_rng(seed)
    s = rng.integers(0, sites, n)
    t = rng.integers(0, len(arms), n)
    b = rng.integers(0, 2, n)
    for k in range(sites):
        here = np.flatnonzero(s == k)[: 4 * len(arms)]
        t[here] = np.tile(np.arange(len(arms)), 4)[: len(here)]
        b[here] = np.repeat([0, 1], 2 * len(arms))[: len(here)]
    u = rng.normal(size=n)
    df = pd.DataFrame({"s": s, "t": np.array(arms, dtype=object)[t]}).infer_objects()
    y = u + rng.normal(size=n) * (1 + 0.3 * t) + 0.2 * s
    for j in range(mediators):
        gain = rng.normal(0.8, 0.5, (sites, len(arms)))
        gain[:, 0] = 0
        m = gain[s, t] + 0.5 * u + rng.normal(size=n)
        df["m" if j == 0 else f"m{j + 1}"] = m
        y = y + (0.5 - 0.2 * j) * m
    return df.assign(
        y=y,
        x=rng.normal(size=n) + 0.1 * s,
        b=b,
        c=s * 10 + rng.integers(0, 6, n),
        w=rng.uniform(0.5, 2.0, n),
        k=rng.integers(1, 5, n),
        dose=t + rng.normal(size=n) * 0.2,
    )


def brute(df: pd.DataFrame, d: mm.Design) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Cells by loops: key (site, block, arm, cluster) -> n, weight, mean, scatter, and those of squared weights."""
    keys = [d.site, d.block, d.treatment if d.treatment_kind == "arms" else None, d.cluster]
    out = {}
    for key, part in df.groupby([k for k in keys if k], observed=True):
        values = part[list(d.variables)].to_numpy(dtype=float)
        w = part[d.weights].to_numpy(dtype=float) if d.weights else np.ones(len(part))
        copies = d.weight_kind not in ("analytic", "probability")
        names = iter(key)
        out[tuple(next(names) if k else None for k in keys)] = {
            "n": w.sum() if d.weight_kind == "frequency" else len(part),
            "first": _moments(values, w),
            "squared": _moments(values, w if copies else w**2),
        }
    return out


def _moments(values: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    mean = (w[:, None] * values).sum(axis=0) / w.sum()
    away = values - mean
    return w.sum(), mean, (w[:, None, None] * away[:, :, None] * away[:, None, :]).sum(axis=0)


def cell_key(m: mm.Moments, c: int) -> tuple[Any, ...]:
    return (
        m.sites[m.site[c]],
        m.blocks[m.block[c]][1] if m.blocks else None,
        m.arms[m.arm[c]] if m.arms else None,
        m.clusters[m.cluster[c]] if m.clusters else None,
    )


def check_cells(m: mm.Moments, expected: dict[tuple[Any, ...], dict[str, Any]], rtol: float = 1e-12) -> None:
    """Every cell equals its brute-force twin, to ``rtol`` of the variable's scale."""
    assert {cell_key(m, c) for c in range(m.n_cells)} == set(expected)
    scale = np.max(
        [np.abs(e["first"][1]) + np.sqrt(np.diag(e["first"][2])) for e in expected.values()], axis=0
    )
    for c in range(m.n_cells):
        want = expected[cell_key(m, c)]
        assert m.n[c] == want["n"]
        for part, (weight, mean, scatter) in ((m.first, want["first"]), (m.squared, want["squared"])):
            assert np.isclose(part.weight[c], weight, rtol=rtol, atol=0)
            assert np.all(np.abs(part.mean[c] - mean) <= rtol * scale)
            assert np.all(np.abs(part.scatter[c] - scatter) <= rtol * weight * np.outer(scale, scale))


def check_order(m: mm.Moments) -> None:
    """Cells come sorted by site, block, arm and cluster, each key once."""
    keys = list(zip(m.site, m.block, m.arm, m.cluster, strict=True))
    assert all(a < b for a, b in pairwise(keys))


def fit(data, *, missing="error", direct_effect=False, cov_type=None, **options):
    return mm.Study(data, design(**options), missing=missing).fit(
        "2sls", cov_type=cov_type, direct_effect=direct_effect
    )


def refuses(data, error, words, **options):
    with pytest.raises(error, match=words) as caught:
        fit(data, **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
