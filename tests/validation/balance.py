"""Size and power of the checks of assignment, dose and monotonicity: docs/validation/balance.csv.

Every trial goes through the public functions. ``n`` is people per arm and site, ``violation`` what the kind says:
covariates (standard deviations by which one covariate differs), attrition (percentage points), dose (bend),
curvature (of the squared dose), signs (compliance of one site in six, negative), inequalities (direct effect in sd).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.diagnose.attrition import attrition
from msmmiv.diagnose.balance import covariate_balance
from msmmiv.diagnose.density import instrumental_inequalities
from msmmiv.diagnose.dose import dose_line
from msmmiv.diagnose.dose_curvature import dose_curvature
from msmmiv.diagnose.monotonicity import compliance_signs
from msmmiv.diagnose.shares import arm_shares
from msmmiv.linalg import frozen
from msmmiv.moments.assembly import CellMoments
from msmmiv.moments.flow import MissingCount, SampleFlow
from tests.validation.claims import rate
from tests.validation.study import Row

TRIALS = 1000
SIZE = 0.05


@dataclass(frozen=True)
class BalanceCell:
    """A check, a population, and how far it is violated."""

    kind: str
    design: str
    sites: int
    n: int
    violation: float


def grid() -> list[BalanceCell]:
    """Every cell."""
    true, false = (12, 20, 40, 100), (12, 40)
    plan = [
        ("covariates", ("normal", "binary and skewed", "clusters"), true, 0.0),
        ("covariates", ("binary and skewed", "clusters"), false, 0.3),
        ("shares", ("planned .4",), false, 0.0),
        ("shares", ("planned .4",), false, 0.1),
        ("attrition", ("1 % missing", "5 % missing", "5 %, clusters"), true, 0.0),
        ("attrition", ("5 % missing", "5 %, clusters"), false, 0.05),
        ("dose", ("0/1", "two mediators", "0/1, clusters"), true, 0.0),
        ("dose", ("0/1", "two mediators"), false, 0.2),
        ("curvature", ("one mediator", "two mediators"), true, 0.0),
        ("curvature", ("one mediator",), false, 0.05),
        ("signs", ("rare", "half", "two mediators"), true, 0.0),
        ("signs", ("half",), false, 0.4),
        ("inequalities", ("nothing moves", "0/1 outcome, nothing moves", "clusters"), true, 0.0),
        ("inequalities", ("always-takers bind",), false, 0.0),
        ("inequalities", ("always-takers bind", "0/1 outcome, always-takers bind"), false, 1.0),
    ]
    cells = []
    for kind, designs, sites, violation in plan:
        for design, k in itertools.product(designs, sites):
            # Small sites are the hard case; large ones are shown at the ends.
            sizes = (20,) if kind == "curvature" else (6, 40) if k in (12, 100) or violation else (6,)
            cells += [BalanceCell(kind, design, k, n, violation) for n in sizes]
    return cells


def simulate(cell: BalanceCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Rows of one cell: how often the check rejects at 5 %, and how often it does not apply."""
    work = {
        "covariates": covariates, "shares": shares, "attrition": missing, "dose": dose, "curvature": curvature,
        "signs": signs, "inequalities": inequalities,
    }  # fmt: skip
    rng = np.random.default_rng(seed)
    trials = max(int(trials * share(cell)), 2)
    p = np.array([work[cell.kind](cell, rng) for _ in range(trials)])
    none = np.isnan(p)
    rows = [rate("check", none, "not_applicable")]
    if not none.all():
        name = "rejects_true" if cell.violation == 0 else "rejects_false"
        rows.append(rate("check", p[~none] <= SIZE, name))
    return [vars(cell) | row for row in rows]


def share(cell: BalanceCell) -> float:
    """Fewer trials where one takes long."""
    slow = cell.kind in ("inequalities", "curvature", "shares")
    return (0.5 if slow else 1.0) * (0.5 if cell.sites == 100 or cell.violation else 1.0)


def moments_of(
    design: mm.Design, columns: np.ndarray, flow: SampleFlow | None = None, **keys: np.ndarray
) -> mm.Moments:
    """Moments of rows with integer keys, without a data frame in between."""
    order = [k for k in ("site", "arm", "cluster") if k in keys]
    labels, code = np.unique(np.column_stack([keys[k] for k in order]), axis=0, return_inverse=True)
    n = np.bincount(code).astype(float)
    mean = np.column_stack([np.bincount(code, c) for c in columns.T]) / n[:, None]
    away = columns - mean[code]
    p = columns.shape[1]
    scatter = np.empty((len(n), p, p))
    for i, j in itertools.combinations_with_replacement(range(p), 2):
        scatter[:, i, j] = scatter[:, j, i] = np.bincount(code, away[:, i] * away[:, j])
    known = {"arm": ((), np.zeros(len(n), dtype=np.int64)), "cluster": ((), np.zeros(len(n), dtype=np.int64))}
    for k, column in zip(order, labels.T, strict=True):
        names, own = np.unique(column, return_inverse=True)
        known[k] = (tuple(names.tolist()), own.astype(np.int64))
    cells = CellMoments(frozen(n), frozen(mean), frozen(scatter))
    return mm.Moments(
        sites=known["site"][0], arms=known["arm"][0], blocks=(), clusters=known["cluster"][0],
        site=known["site"][1], arm=known["arm"][1], block=np.zeros(len(n), dtype=np.int64),
        cluster=known["cluster"][1], n=frozen(n), first=cells, squared=cells, design=design,
        flow=flow or SampleFlow(len(columns)),
    )  # fmt: skip


def people(cell: BalanceCell, arms: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Site and arm of every row."""
    site = np.repeat(np.arange(cell.sites), arms * cell.n)
    return site, np.tile(np.repeat(np.arange(arms), cell.n), cell.sites)


def classes(cell: BalanceCell, arms: int = 2) -> np.ndarray:
    """Two clusters (of 3 people) or four (of 10) in each arm and site."""
    per = 2 if cell.n == 6 else 4
    return np.repeat(np.arange(cell.sites * arms * per), cell.n // per)


def covariates(cell: BalanceCell, rng: np.random.Generator) -> float:
    """Four covariates; those of clusters share half their variance."""
    site, arm = people(cell)
    x = rng.standard_normal((len(site), 4))
    keys = {"site": site, "arm": arm}
    if cell.design == "clusters":
        keys["cluster"] = classes(cell)
        x = 0.7 * x + 0.7 * rng.standard_normal((keys["cluster"].max() + 1, 4))[keys["cluster"]]
    x[:, 0] += 0.5 * x[:, 1]
    x[:, 3] += cell.violation * arm
    if cell.design != "normal":
        x[:, 0], x[:, 1], x[:, 2] = x[:, 0] > 1.5, x[:, 1] > 0, np.exp(x[:, 2])
    names = ["x1", "x2", "x3", "x4"]
    d = mm.Design(outcome="y", treatment="t", mediators="m", site="s", covariates=names,
                  cluster="c" if "cluster" in keys else None)  # fmt: skip
    m = moments_of(d, np.column_stack([np.zeros((len(site), 2)), x]), **keys)
    return covariate_balance(m).joint.pvalue


def shares(cell: BalanceCell, rng: np.random.Generator) -> float:
    """Coins with a chance of .4."""
    site = np.repeat(np.arange(cell.sites), 2 * cell.n)
    arm = (rng.random(len(site)) < 0.4 + cell.violation).astype(int)
    d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    m = moments_of(d, np.zeros((len(site), 2)), site=site, arm=arm)
    return arm_shares(m, planned=0.4, seed=int(rng.integers(2**31))).as_planned.pvalue


def missing(cell: BalanceCell, rng: np.random.Generator) -> float:
    """Outcomes missing at a rate that varies over sites; in clusters, by cluster as well."""
    site, arm = people(cell)
    base = 0.01 if cell.design == "1 % missing" else 0.05
    chance = base * rng.uniform(0.5, 1.5, cell.sites)[site] + cell.violation * arm
    keys = {"site": site, "arm": arm}
    if cell.design == "5 %, clusters":
        keys["cluster"] = classes(cell)
        chance = chance * rng.gamma(0.5, 2.0, keys["cluster"].max() + 1)[keys["cluster"]]
    lost = rng.random(len(site)) < chance
    cells = tuple(
        MissingCount(s, a, "y", c)
        for (s, a), c in zip(*_tally(np.column_stack([site, arm])[lost]), strict=True)
    )
    total = int(lost.sum())
    flow = SampleFlow(len(site), (("y", total),) if total else (), total, cells)
    d = mm.Design(
        outcome="y", treatment="t", mediators="m", site="s", cluster="c" if "cluster" in keys else None
    )
    kept = {k: v[~lost] for k, v in keys.items()}
    m = moments_of(d, np.zeros((len(site) - total, 2)), flow, **kept)
    return attrition(m).test.pvalue


def _tally(pairs: np.ndarray) -> tuple[list[tuple[int, int]], list[int]]:
    values, counts = np.unique(pairs, axis=0, return_counts=True)
    return [(int(s), int(a)) for s, a in values], [int(c) for c in counts]


def dose(cell: BalanceCell, rng: np.random.Generator) -> float:
    """Arms of 0, 1 and 2 hours with different slopes by site; the violation is a bend at one hour."""
    site, arm = people(cell, 3)
    keys = {"site": site, "arm": arm}
    p = 2 if cell.design == "two mediators" else 1
    slope = rng.uniform(0.0, 0.3, (cell.sites, p))
    level = 0.2 + slope[site] * arm[:, None] - cell.violation * np.maximum(arm - 1, 0)[:, None]
    if "clusters" in cell.design:
        keys["cluster"] = classes(cell, 3)
        level = level + 0.15 * rng.choice([-1.0, 1.0], (keys["cluster"].max() + 1, p))[keys["cluster"]]
    m = (
        (rng.random((len(site), p)) < level).astype(float)
        if p == 1
        else level + 0.4 * rng.standard_normal(level.shape)
    )
    names = ["m1", "m2"][:p]
    d = mm.Design(outcome="y", treatment="t", mediators=names, site="s", control=0,
                  cluster="c" if "cluster" in keys else None)  # fmt: skip
    return dose_line(moments_of(d, np.column_stack([np.zeros(len(site)), m]), **keys)).joint.pvalue


def curvature(cell: BalanceCell, rng: np.random.Generator) -> float:
    """Doses over a range that differs between sites, as slopes do, and with slopes of people that vary."""
    site = np.repeat(np.arange(cell.sites), 2 * cell.n)
    t = rng.uniform(0.0, 1.0, len(site)) * rng.uniform(3.0, 6.0, cell.sites)[site]
    p = 2 if cell.design == "two mediators" else 1
    slope = rng.uniform(0.0, 1.0, (cell.sites, p))[site] + 0.3 * rng.standard_normal((len(site), p))
    m = slope * t[:, None] + cell.violation * t[:, None] ** 2 + rng.standard_normal((len(site), p))
    names = ["m1", "m2"][:p]
    d = mm.Design(outcome="y", treatment="t", mediators=names, site="s", treatment_kind="continuous")
    frame = pd.DataFrame(dict(zip(names, m.T, strict=True)) | {"s": site, "t": t, "y": 0.0})
    return dose_curvature(frame, d).joint.pvalue


def signs(cell: BalanceCell, rng: np.random.Generator) -> float:
    """No compliance anywhere, the least favourable case; the violation in one site of six, .3 in the others."""
    site, arm = people(cell)
    base = 0.1 if cell.design == "rare" else 0.5
    p = 2 if cell.design == "two mediators" else 1
    gap = (
        np.where(np.arange(cell.sites) % 6 == 0, -cell.violation, 0.3)
        if cell.violation
        else np.zeros(cell.sites)
    )
    chance = base + gap[site] * (arm - 0.5)
    m = (rng.random((p, len(site))) < chance).T.astype(float)
    d = mm.Design(outcome="y", treatment="t", mediators=["m1", "m2"][:p], site="s")
    return compliance_signs(
        moments_of(d, np.column_stack([np.zeros(len(site)), m]), site=site, arm=arm)
    ).joint.pvalue


def inequalities(cell: BalanceCell, rng: np.random.Generator) -> float:
    """A quarter always-takers, whose outcomes rise by the violation when treated; compliers or none."""
    site, arm = people(cell)
    keys = {"site": site, "arm": arm}
    kind = rng.random(len(site))
    y = rng.standard_normal(len(site)) + rng.standard_normal(cell.sites)[site]
    if cell.design == "clusters":
        keys["cluster"] = classes(cell)
        y += rng.standard_normal(keys["cluster"].max() + 1)[keys["cluster"]]
    compliers = 0.3 if "always-takers bind" in cell.design else 0.0
    always = kind < 0.4
    m = (always | ((kind < 0.4 + compliers) & (arm == 1))).astype(float)
    y = y + 0.5 * m + cell.violation * arm
    if "0/1 outcome" in cell.design:
        y = (y > 0.3).astype(float)
    d = mm.Design(
        outcome="y", treatment="t", mediators="m", site="s", cluster="c" if "cluster" in keys else None
    )
    moments = moments_of(d, np.column_stack([y, m]), **keys)
    rows = None
    if "0/1 outcome" not in cell.design:
        rows = pd.DataFrame({"s": site, "t": arm, "y": y, "m": m, "c": keys.get("cluster", site)})
    found = instrumental_inequalities(moments, rows=rows, draws=199, seed=int(rng.integers(2**31)))
    return found.test.pvalue
