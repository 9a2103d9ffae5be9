"""Cost of inference after the moments: wild bootstrap draws, ten estimators against one, tests of rank.

    python benchmarks/inference.py [--write]

Everything is a ratio within one run: the wild bootstrap against the same draws in a plain loop, ten estimators
against one from the same million rows, robust tests of rank from the frame against linearmodels' on dummies.
``--write`` stores them in ``benchmarks/inference.json``.
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
from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.strength import rank_tests
from msmmiv.estimate import system_of

HERE = Path(__file__).parent
LOOP_DRAWS = 499


def frame(rows: int, sites: int, mediators: int) -> pd.DataFrame:
    """Effects that differ by site, an unobserved common cause."""
    rng = np.random.default_rng(20261121)
    site = rng.integers(0, sites, rows)
    t = rng.integers(0, 2, rows)
    common = rng.normal(size=rows)
    data = {"site": site, "t": t}
    y = common + rng.normal(size=rows)
    for j in range(mediators):
        data[f"m{j}"] = rng.normal(0.6, 0.3, sites)[site] * t + common + rng.normal(size=rows)
        y = y + 0.5 * data[f"m{j}"]
    return pd.DataFrame(data | {"y": y})


def best(job: Callable[[], object], times: int) -> float:
    """Shortest of several runs, in seconds."""
    out = []
    for _ in range(times):
        start = time.perf_counter()
        job()
        out.append(time.perf_counter() - start)
    return min(out)


def study(rows: int, sites: int, mediators: int) -> mm.Study:
    """A study on fresh data."""
    names = [f"m{j}" for j in range(mediators)]
    design = mm.Design(outcome="y", treatment="t", mediators=names, site="site")
    return mm.Study(frame(rows, sites, mediators), design)


def wild(sites: int = 100, draws: int = 9999) -> dict[str, float]:
    """Draws at 100 sites and two mediators, vectorised and in a loop over draws."""
    equations = study(40 * sites, sites, 2).fit("ujive").equations
    assert equations is not None
    null = {"m0": 0.5}
    ours = best(lambda: mm.wild_test(equations, null, draws=draws, seed=1), 5)
    _, scores = equations.restricted(null)
    total = equations.blocks.sum(axis=0)
    rng = np.random.default_rng(1)

    def loop() -> None:
        # One draw at a time: flip the scores, estimate the other coefficient again, studentise.
        for _ in range(LOOP_DRAWS):
            sign = rng.choice([-1.0, 1.0], len(scores))
            flipped = sign[:, None] * scores
            step = np.linalg.solve(total[1:, 2:], flipped[:, 1:].sum(axis=0))
            moved = flipped - equations.blocks[:, :, 2:] @ step
            side = total[:1, 2:] @ np.linalg.inv(total[1:, 2:])
            effective = moved[:, 0] - moved[:, 1:] @ side.T[:, 0]
            _ = effective.sum() / np.sqrt(((effective - effective.mean()) ** 2).sum())

    looped = best(loop, 3) * draws / LOOP_DRAWS
    return {"seconds": round(ours, 3), "times_faster_than_a_loop": round(looped / ours, 1)}


def compare(rows: int = 1_000_000, sites: int = 50) -> dict[str, float]:
    """Ten estimators against one, both from the frame."""
    df = frame(rows, sites, 1)
    design = mm.Design(outcome="y", treatment="t", mediators=["m0"], site="site")
    ten = ["ols", "2sls", "liml", mm.Fuller(1.0), mm.Fuller(4.0), "mbtsls", "ujive", "bc_linear",
           mm.BCLinear(weights="precision"), mm.BCSymmetric()]  # fmt: skip
    mm.Study(df.head(5000), design).compare(ten)  # code paths loaded
    one = best(lambda: mm.Study(df, design).compare(["2sls"]), 7)
    all_ten = best(lambda: mm.Study(df, design).compare(ten), 7)
    return {"ten_over_one": round(all_ten / one, 3), "seconds_for_one": round(one, 3)}


def rank_of(rows: int = 100_000, sites: int = 50) -> dict[str, float]:
    """Kleibergen and Paap's tests, robust, from the frame; and the whole rank report."""
    from linearmodels.iv.common import kleibergen_paap, kleibergen_paap_f

    df = frame(rows, sites, 2)
    design = mm.Design(outcome="y", treatment="t", mediators=["m0", "m1"], site="site")

    def ours() -> dict[str, float]:
        system = system_of(mm.Study(df, design).moments)
        tests = rank_tests(system, Compliances.from_system(system), rows=None)
        return {t.test.name: t.printed for t in tests if t.covariance == "robust"}

    dummies = pd.get_dummies(df["site"], dtype=float).to_numpy()
    m, z = df[["m0", "m1"]].to_numpy(), dummies * df[["t"]].to_numpy(float)
    start = time.perf_counter()
    theirs = (kleibergen_paap(m, z, dummies).stat, kleibergen_paap_f(m, z, dummies))
    dense = time.perf_counter() - start
    got = ours()
    assert np.allclose([got["Kleibergen-Paap rk LM"], got["Kleibergen-Paap rk Wald"]], theirs, rtol=1e-9)
    tests = best(ours, 5)
    report = best(lambda: mm.Study(df, design).rank(), 3)
    return {
        "seconds_for_the_tests": round(tests, 3),
        "times_faster_than_linearmodels": round(dense / tests, 0),
        "report_over_tests": round(report / tests, 1),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    result = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "wild bootstrap, 9,999 draws, 100 sites, two mediators": wild(),
        "compare() of ten estimators against one, a million rows": compare(),
        "robust tests of rank from the frame, 100,000 rows, 50 sites, two mediators": rank_of(),
    }
    print(json.dumps(result, indent=2))
    if args.write:
        (HERE / "inference.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
