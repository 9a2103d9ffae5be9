"""Cost of the decomposition: SIMEX and bootstraps against plain loops over the same draws.

    python benchmarks/decompose.py [--quick] [--write]

Thirty sites, the table of tests/golden/agg_k30.csv. R's mechte::simest took 2.63 s for SIMEX with 1,000 draws on that
table; that was on another machine, so the ratio to it says no more than its order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import alternated, best, finished, options

import msmmiv as mm
from msmmiv.estimate.between.calibration import IndependentRows, calibrate
from msmmiv.estimate.between.eb_score import Samples, score_path
from msmmiv.estimate.between.pairs import pairs_percentile_t
from msmmiv.estimate.between.reml_bootstrap import reml_bootstrap
from msmmiv.estimate.between.rows import BetweenRows, between_rows

TABLE = Path(__file__).resolve().parents[1] / "tests" / "golden" / "agg_k30.csv"
DRAWS, SIMEST_SECONDS = 1000, 2.63


def published() -> mm.SiteEffects:
    """The golden table as site effects."""
    return mm.SiteEffects.from_table(
        pd.read_csv(TABLE).assign(none=0.0), site="site", itt="tau_hat", itt_se="se_tau", compliance="gamma_hat",
        compliance_se="se_gamma", cov="none",
    )  # fmt: skip


def simex_loop(data: BetweenRows, draws: int) -> None:
    """SIMEX as it is usually written: a regression for each draw and each amount of added error."""
    rng, sd, sites = np.random.default_rng(0), np.sqrt(data.noise[:, 0, 0]), data.n_rows
    for scale in (0.5, 1.0, 1.5, 2.0):
        for _ in range(draws):
            x = data.x[:, 0] + np.sqrt(scale) * sd * rng.standard_normal(sites)
            design = np.column_stack([np.ones(sites), x])
            coef = np.linalg.lstsq(design, data.y, rcond=None)[0]
            residual = data.y - design @ coef
            (residual @ residual / (sites - 2)) * np.linalg.inv(design.T @ design)


def samples(data: BetweenRows, y: np.ndarray) -> Samples:
    """The rows as one sample."""
    return Samples(y, data.x[:, 0], data.z, data.itt_variance, data.noise[:, 0, 0], data.covariance[:, 0])


def score_loop(data: BetweenRows, draws: int) -> None:
    """The statistic of each draw by itself, at one candidate."""
    rng = np.random.default_rng(0)
    for _ in range(draws):
        score_path(samples(data, data.y + rng.standard_normal(data.n_rows)), np.zeros(1))


def main() -> None:
    """Each job and its loop in turn."""
    args = options(__doc__).parse_args()
    effects = published()
    data = between_rows(effects)
    draws = 100 if args.quick else DRAWS
    got = alternated({
        "simex": lambda: mm.SIMEX(extrapolant="quadratic", B=draws).solve(data),
        "simex loop": lambda: simex_loop(data, draws),
        "calibrated": lambda: calibrate(
            IndependentRows(samples(data, data.y)), centre=2.0, scale=2.0, draws=draws - 1
        ),
        "score loop": lambda: score_loop(data, draws - 1),
    }, 3)  # fmt: skip
    seconds = {name: taken["cpu_seconds"] for name, taken in got.items()}
    records: list[dict[str, Any]] = [
        {"job": f"SIMEX, {draws:,} draws", "against": "a loop over draws",
         "time_ratio": seconds["simex loop"] / seconds["simex"], "cpu_seconds": seconds["simex"]},
        {"job": f"critical values of the slope set, {draws - 1:,} draws at 34 candidates",
         "against": "a loop over draws and candidates",
         "time_ratio": 34 * seconds["score loop"] / seconds["calibrated"], "cpu_seconds": seconds["calibrated"]},
    ]  # fmt: skip
    if draws == DRAWS:
        records.insert(1, {
            "job": f"SIMEX, {draws:,} draws", "against": "mechte::simest of R, 2.63 s on another machine",
            "time_ratio": SIMEST_SECONDS / seconds["simex"], "cpu_seconds": seconds["simex"],
        })  # fmt: skip
    alone = {
        f"percentile-t of pairs, {draws - 1:,} draws": lambda: pairs_percentile_t(
            data, mm.BCES(), draws=draws - 1
        ),
        f"REML bootstrap, {draws - 1:,} draws": lambda: reml_bootstrap(data, draws=draws - 1),
        "the whole slope set": lambda: mm.decompose(effects).slope_sets,
    }
    unit = best(lambda: mm.decompose(effects), 10)
    for name, job in alone.items():
        taken = best(job, 3)
        records.append({"job": name, "units": taken / unit, "cpu_seconds": taken})
    finished(__file__, args, records)


if __name__ == "__main__":
    main()
