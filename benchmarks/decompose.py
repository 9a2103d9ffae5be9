"""Cost of the decomposition: SIMEX and bootstraps against plain loops over the same draws.

    python benchmarks/decompose.py [--write]

Ratios within one run. R's mechte::simest took 2.63 s for SIMEX with 1,000 draws at 30 sites on another machine
(the timings that came with the reference figures); ``simex_seconds`` is to be read beside it. ``--write`` stores the
figures in ``benchmarks/decompose.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.estimate.between.calibration import IndependentRows, calibrate
from msmmiv.estimate.between.eb_score import Samples, score_path
from msmmiv.estimate.between.pairs import pairs_percentile_t
from msmmiv.estimate.between.reml_bootstrap import reml_bootstrap
from msmmiv.estimate.between.rows import BetweenRows, between_rows

HERE = Path(__file__).parent
SITES, DRAWS = 30, 1000


def rows() -> BetweenRows:
    """Thirty sites as in Fu's Algorithm 1, standard errors scaled by 0.3."""
    rng = np.random.default_rng(20261121)
    g = rng.normal(2, 1, SITES)
    su, sv = 0.3 * rng.gamma(1, 1, (2, SITES)) + 0.01
    table = pd.DataFrame({
        "s": range(SITES), "b": 4 + 2 * g + rng.normal(size=SITES) + sv * rng.normal(size=SITES), "sb": sv,
        "g": g + su * rng.normal(size=SITES), "sg": su, "c": 0.0,
    })  # fmt: skip
    effects = mm.SiteEffects.from_table(
        table, site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg", cov="c"
    )
    return between_rows(effects)


def best(job: Callable[[], object], times: int = 5) -> float:
    """Shortest of several runs, in seconds."""
    out = []
    for _ in range(times):
        start = time.perf_counter()
        job()
        out.append(time.perf_counter() - start)
    return min(out)


def simex_loop(data: BetweenRows) -> None:
    """SIMEX as it is usually written: a regression for each draw and each amount of added error."""
    rng, sd = np.random.default_rng(0), np.sqrt(data.noise[:, 0, 0])
    for scale in (0.5, 1.0, 1.5, 2.0):
        for _ in range(DRAWS):
            x = data.x[:, 0] + np.sqrt(scale) * sd * rng.standard_normal(SITES)
            design = np.column_stack([np.ones(SITES), x])
            coef = np.linalg.lstsq(design, data.y, rcond=None)[0]
            residual = data.y - design @ coef
            (residual @ residual / (SITES - 2)) * np.linalg.inv(design.T @ design)


def score_loop(data: BetweenRows, draws: int) -> None:
    """The statistic of each draw by itself, at one candidate."""
    rng = np.random.default_rng(0)
    for _ in range(draws):
        one = samples(data, data.y + rng.standard_normal(SITES))
        score_path(one, np.zeros(1))


def samples(data: BetweenRows, y: np.ndarray) -> Samples:
    """The rows as one sample."""
    return Samples(y, data.x[:, 0], data.z, data.itt_variance, data.noise[:, 0, 0], data.covariance[:, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="store the figures")
    write = parser.parse_args().write
    data = rows()
    simex = best(lambda: mm.SIMEX(extrapolant="quadratic", B=DRAWS).solve(data))
    calibrated = best(
        lambda: calibrate(IndependentRows(samples(data, data.y)), centre=2.0, scale=2.0, draws=999)
    )
    out = {
        "python": platform.python_version(),
        "simex_seconds": simex,
        "simex_loop_over_ours": best(lambda: simex_loop(data), 3) / simex,
        "critical_values_999_draws_34_candidates_seconds": calibrated,
        "critical_values_loop_over_ours": 34 * best(lambda: score_loop(data, 999), 2) / calibrated,
        "pairs_999_seconds": best(lambda: pairs_percentile_t(data, mm.BCES(), draws=999)),
        "reml_bootstrap_999_seconds": best(lambda: reml_bootstrap(data, draws=999), 3),
        "slope_set_seconds": best(lambda: mm.decompose(_effects(data)).slope_sets, 3),
    }
    for name, value in out.items():
        print(f"{name:<52}{value if isinstance(value, str) else f'{value:.4g}'}")
    if write:
        (HERE / "decompose.json").write_text(json.dumps(out, indent=1) + "\n")


def _effects(data: BetweenRows) -> mm.SiteEffects:
    se = np.sqrt(np.einsum("kaa->ka", data.cov))
    table = pd.DataFrame({
        "s": range(SITES), "b": data.y, "sb": se[:, 0], "g": data.x[:, 0], "sg": se[:, 1], "c": 0.0,
    })  # fmt: skip
    return mm.SiteEffects.from_table(
        table, site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg", cov="c"
    )


if __name__ == "__main__":
    main()
