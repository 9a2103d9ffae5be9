"""Size and coverage of 2SLS intervals by simulation (slow: ``make validate``).

Writes the table that the docs show: docs/validation/coverage.csv.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm

TABLE = Path(__file__).parents[2] / "docs" / "validation" / "coverage.csv"
REPLICATIONS = 1000
DESIGN = mm.Design(outcome="y", treatment="t", mediators=["m"], site="site", cluster="cluster")

#: name: sites, people per site, mean and sd of compliance, sd of site effects, of classrooms, confounding
SETTINGS = {
    "strong, constant effects": (40, 100, 1.0, 0.3, 0.0, 0.0, 0.3),
    "strong, classrooms": (40, 100, 1.0, 0.3, 0.0, 1.0, 0.3),
    "strong, effects differ by site": (60, 100, 1.0, 0.3, 0.4, 0.0, 0.3),
    "many weak sites": (60, 20, 0.2, 0.1, 0.0, 0.0, 1.0),
}


def draw(
    rng: np.random.Generator,
    sites: int,
    n: int,
    mean: float,
    tau: float,
    spread: float,
    room: float,
    common: float,
) -> pd.DataFrame:
    """One trial in which the effect of the mediator is 1 on average over sites."""
    site = np.repeat(np.arange(sites), n)
    cluster = site * 10 + np.tile(np.arange(n) % 10, sites)
    # Whole classrooms are treated, so that their shared effect matters for the covariance.
    arm = np.array([rng.permutation(np.arange(10) % 2) for _ in range(sites)])
    t = arm[site, cluster % 10]
    g = rng.normal(mean, tau, sites)
    effect = 1.0 + spread * rng.normal(size=sites)
    u = rng.normal(size=len(site))
    m = g[site] * t + common * u + rng.normal(size=len(site))
    y = effect[site] * m + u + room * rng.normal(size=sites * 10)[cluster] + rng.normal(size=len(site))
    return pd.DataFrame({"site": site, "t": t, "cluster": cluster, "m": m, "y": y})


@pytest.mark.validation
@pytest.mark.parametrize("name", SETTINGS)
def test_coverage(name: str) -> None:
    rows = []
    streams = np.random.SeedSequence(20261121).spawn(REPLICATIONS)
    for stream in streams:
        study = mm.Study(draw(np.random.default_rng(stream), *SETTINGS[name]), DESIGN)
        for kind in ("classical", "HC1", "cluster", "site"):
            fit = study.fit("2sls", cov_type=kind)
            low, high = fit.conf_int().iloc[0]
            rows.append((kind, float(fit.params.iloc[0]), float(fit.std_errors.iloc[0]), low <= 1.0 <= high))
    frame = pd.DataFrame(rows, columns=["cov_type", "estimate", "std_error", "covers"])
    table = frame.groupby("cov_type").agg(
        mean=("estimate", "mean"),
        sd=("estimate", "std"),
        mean_se=("std_error", "mean"),
        coverage=("covers", "mean"),
    )
    table = table.reset_index().assign(setting=name, replications=REPLICATIONS).round(4)
    kept = pd.read_csv(TABLE) if TABLE.exists() else table.iloc[:0]
    kept = pd.concat([kept[kept["setting"] != name], table])
    kept["order"] = kept["setting"].map(list(SETTINGS).index)
    kept.sort_values(["order", "cov_type"]).drop(columns="order")[
        ["setting", "cov_type", "mean", "sd", "mean_se", "coverage", "replications"]
    ].to_csv(TABLE, index=False)
    covered = table.set_index("cov_type")["coverage"]
    right = {
        "strong, constant effects": ["classical", "HC1", "cluster", "site"],
        "strong, classrooms": ["cluster", "site"],
        "strong, effects differ by site": ["site"],
        "many weak sites": [],
    }[name]
    for kind in right:
        assert 0.925 <= covered[kind] <= 0.972, (kind, covered[kind])
    if name == "strong, classrooms":
        assert covered["HC1"] < 0.9, "errors that ignore classrooms treated as a whole must be too small"
    if name == "strong, effects differ by site":
        assert covered["HC1"] < 0.9, "errors that hold sites fixed must not cover the average over sites"
    if name == "many weak sites":
        assert covered["HC1"] < 0.9, "2SLS is biased toward least squares here; the docs say so"
        assert table["mean"].iloc[0] > 1.1
