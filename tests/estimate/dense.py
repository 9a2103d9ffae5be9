"""Matrices with every dummy written out, for estimators whose formulas need whole projections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

import msmmiv as mm


def design_of(df: pd.DataFrame, **more: object) -> mm.Design:
    names = [c for c in df if c.startswith("m")]
    return mm.Design(
        outcome="y", treatment="t", mediators=names, site="site",
        covariates=[c for c in df if c.startswith("x")],
        block="block" if "block" in df else None, cluster="cluster" if "cluster" in df else None,
        **({"weights": "w", "weight_kind": "analytic"} if "w" in df else {}), **more,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Dense:
    """Columns times root weights: outcome, mediators, exogenous (dummies last), and instruments."""

    y: np.ndarray
    m: np.ndarray
    w: np.ndarray
    z: np.ndarray
    intercepts: int

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def both(self) -> np.ndarray:
        return np.column_stack([self.y, self.m])

    @cached_property
    def hat_w(self) -> np.ndarray:
        return _hat(self.w)

    @cached_property
    def hat(self) -> np.ndarray:
        return _hat(np.hstack([self.z, self.w]))

    @cached_property
    def excluded(self) -> int:
        return int(np.linalg.matrix_rank(np.hstack([self.z, self.w])) - np.linalg.matrix_rank(self.w))

    @cached_property
    def df(self) -> int:
        return self.n - int(np.linalg.matrix_rank(np.hstack([self.z, self.w])))

    @cached_property
    def explained(self) -> np.ndarray:
        """Cross-products of outcome and mediators that the excluded instruments explain."""
        return self.both.T @ (self.hat - self.hat_w) @ self.both

    @cached_property
    def residual(self) -> np.ndarray:
        """Residual cross-products over their degrees of freedom."""
        return self.both.T @ (np.eye(self.n) - self.hat) @ self.both / self.df


def dense_of(df: pd.DataFrame, *, direct: bool = False) -> Dense:
    root = np.sqrt(df["w"].to_numpy() if "w" in df else np.ones(len(df)))[:, None]
    level = [df["site"], df["block"]] if "block" in df else [df["site"]]
    dummies = pd.get_dummies(pd.Series(list(zip(*level, strict=True))), dtype=float).to_numpy()
    arms = sorted(df["t"].unique())[1:]
    indicators = np.column_stack([(df["t"] == a).to_numpy(float) for a in arms])
    site = pd.get_dummies(df["site"], dtype=float).to_numpy()
    z = np.hstack([site * indicators[:, [a]] for a in range(len(arms))])
    z = z[:, np.abs(z).sum(axis=0) > 0]
    if direct:  # the first site's instruments are the direct effects less the others'
        z = np.hstack([(site * indicators[:, [a]])[:, 1:] for a in range(len(arms))])
    extra = indicators if direct else np.zeros((len(df), 0))
    x = df[[c for c in df if c.startswith("x")]].to_numpy(float)
    m = df[[c for c in df if c.startswith("m")]].to_numpy(float)
    w = np.hstack([extra, x, dummies])
    return Dense(df["y"].to_numpy(float) * root[:, 0], m * root, w * root, z * root, dummies.shape[1])


def _hat(a: np.ndarray) -> np.ndarray:
    q, r = np.linalg.qr(a)
    assert np.abs(np.diag(r)).min() > 1e-9
    return q @ q.T
