"""A trial whose subgroups are known, and a causal tree that needs no library."""

from __future__ import annotations

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.moments.subgroup_tree import Tree

SITES = mm.Design(outcome="y", treatment="t", mediators="m", site="s")


def trial(seed=0, n=3000, *, gain=1.0, sites=4):
    """The treatment moves the mediator of those up to 40, of women more; direct effect 0.3, effect 0.5."""
    rng = np.random.default_rng(seed)
    s, age, female = rng.integers(0, sites, n), rng.integers(18, 80, n), rng.integers(0, 2, n)
    t = (rng.random(n) < np.linspace(0.35, 0.65, sites)[s]).astype(int)
    u = rng.normal(size=n)
    m = s + gain * t * ((age <= 40) * 1.5 + female) + u + rng.normal(size=n)
    y = 0.3 * t + 0.5 * m + u - s + rng.normal(size=n)
    region = rng.choice(["north", "south", "west"], n)
    return pd.DataFrame(
        {"s": s, "t": t, "age": age, "female": female, "region": region, "m": m, "y": y, "w": 1.0,
         "c": np.arange(n) // 4}
    )  # fmt: skip


def simple_tree(x, treatment, mediator, weight, *, min_leaf, depth, seed):
    """A causal tree with nothing but loops, of greatest gain: it stands in for the library's."""
    left, right, feature, threshold = [], [], [], []

    def node(rows, level):
        here = len(left)
        for column in (left, right, feature):
            column.append(-1)
        threshold.append(0.0)
        best = (0.0, -1, 0.0)
        for j in range(x.shape[1]):
            for cut in np.unique(np.quantile(x[rows, j], np.linspace(0.1, 0.9, 9), method="lower")):
                side = x[rows, j] <= cut
                if level and min(side.sum(), (~side).sum()) >= min_leaf:
                    parts = [rows[side], rows[~side]]
                    tt = [weight[p] @ treatment[p] ** 2 for p in parts]
                    g = [weight[p] @ (treatment[p] * mediator[p]) / s for p, s in zip(parts, tt, strict=True)]
                    best = max(best, (tt[0] * tt[1] / sum(tt) * (g[0] - g[1]) ** 2, j, cut))
        if best[1] >= 0:
            feature[here], threshold[here] = best[1], best[2]
            side = x[rows, best[1]] <= best[2]
            left[here] = node(rows[side], level - 1)
            right[here] = node(rows[~side], level - 1)
        return here

    node(np.arange(len(x)), min(depth, 3))
    return Tree(np.array(left), np.array(right), np.array(feature), np.array(threshold))
