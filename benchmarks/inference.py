"""Cost of inference after the moments: wild bootstrap draws, ten estimators against one, rank, audit.

    python benchmarks/inference.py [--quick] [--write]

The wild bootstrap against the same draws in a plain loop; ten estimators against one from the same million rows;
robust tests of rank from the frame against linearmodels' on dummies; and whether what comes after the moments depends
on the number of people: the same steps from the moments of ten thousand and of a million rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from common import alternated, best, finished, options, trial

import msmmiv as mm
from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.strength import rank_tests
from msmmiv.estimate import system_of

LOOP_DRAWS = 499


def roles(mediators: int) -> mm.Design:
    """The design of `trial`."""
    return mm.Design(
        outcome="y", treatment="t", mediators=[f"m{j}" for j in range(1, mediators + 1)], site="site"
    )


def from_moments(rows: int, sites: int, mediators: int) -> mm.Study:
    """A study that holds moments and no rows."""
    return mm.Study(mm.Moments.from_data(trial(rows, sites, mediators), roles(mediators)))


def wild(sites: int = 100, draws: int = 9999) -> dict[str, Any]:
    """Draws at 100 sites and two mediators, vectorised and in a loop over draws."""
    equations = from_moments(40 * sites, sites, 2).fit("ujive").equations
    assert equations is not None
    null = {"m1": 0.5}
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

    got = alternated({"ours": lambda: mm.wild_test(equations, null, draws=draws, seed=1), "loop": loop}, 5)
    ours = got["ours"]["cpu_seconds"]
    return {
        "job": f"wild bootstrap, {draws:,} draws, {sites} sites, two mediators", "against": "a loop over draws",
        "time_ratio": got["loop"]["cpu_seconds"] * draws / LOOP_DRAWS / ours, "cpu_seconds": ours,
    }  # fmt: skip


def compare(rows: int, sites: int = 50) -> dict[str, Any]:
    """Ten estimators against one, both from the frame."""
    df, design = trial(rows, sites, 1), roles(1)
    ten = ["ols", "2sls", "liml", mm.Fuller(1.0), mm.Fuller(4.0), "mbtsls", "ujive", "bc_linear",
           mm.BCLinear(weights="precision"), mm.BCSymmetric()]  # fmt: skip
    mm.Study(df.head(5000), design).compare(ten)  # code paths loaded
    got = alternated(
        {
            "one": lambda: mm.Study(df, design).compare(["2sls"]),
            "ten": lambda: mm.Study(df, design).compare(ten),
        },
        5,
    )
    return {
        "job": f"one estimator, {rows:,} rows, {sites} sites", "against": "ten estimators from the same rows",
        "time_ratio": got["ten"]["cpu_seconds"] / got["one"]["cpu_seconds"], "cpu_seconds": got["one"]["cpu_seconds"],
    }  # fmt: skip


def rank_of(rows: int, sites: int = 50) -> dict[str, Any]:
    """Kleibergen and Paap's tests, robust, from the frame; the same numbers to 1e-9."""
    from linearmodels.iv.common import kleibergen_paap, kleibergen_paap_f

    df, design = trial(rows, sites, 2), roles(2)
    dummies = pd.get_dummies(df["site"], dtype=float).to_numpy()
    m, z = df[["m1", "m2"]].to_numpy(), dummies * df[["t"]].to_numpy(float)

    def ours() -> dict[str, float]:
        system = system_of(mm.Study(df, design).moments)
        tests = rank_tests(system, Compliances.from_system(system), rows=None)
        return {t.test.name: t.printed for t in tests if t.covariance == "robust"}

    def theirs() -> tuple[float, float]:
        return kleibergen_paap(m, z, dummies).stat, kleibergen_paap_f(m, z, dummies)

    found = ours()
    own = [found["Kleibergen-Paap rk LM"], found["Kleibergen-Paap rk Wald"]]
    assert np.allclose(own, theirs(), rtol=1e-9)
    got = alternated({"ours": ours, "theirs": theirs}, 2)
    return {
        "job": f"robust tests of rank from the frame, {rows:,} rows, {sites} sites, two mediators",
        "against": "linearmodels on dummies", "cpu_seconds": got["ours"]["cpu_seconds"],
        "time_ratio": got["theirs"]["cpu_seconds"] / got["ours"]["cpu_seconds"],
    }  # fmt: skip


def steps(study: mm.Study) -> dict[str, Callable[[], object]]:
    """What is asked of moments; the audit is the longest."""
    equations = study.fit("ujive").equations
    assert equations is not None
    return {
        "2SLS": lambda: study.fit("2sls", cov_type="HC1"),
        "the estimator of the rule, with its set": study.fit,
        "wild bootstrap, 9,999 draws": lambda: mm.wild_test(equations, {"m1": 0.5}, draws=9999, seed=1),
        "heterogeneity": study.heterogeneity,
        "rank report": study.rank,
        "decomposition, with its set": lambda: study.decompose("m1").slope_sets,
        "audit": study.audit,
    }


def flat(rows: tuple[int, int], sites: int = 100) -> list[dict[str, Any]]:
    """The same steps from the moments of few and of many people, in turn."""
    few, many = (steps(from_moments(n, sites, 1)) for n in rows)
    unit, records = best(few["2SLS"], 5), []
    for name, job in few.items():
        got = alternated({"few": job, "many": many[name]}, 2)
        records.append({
            "job": name, "against": f"moments of {rows[0]:,} rows, {sites} sites",
            "time_ratio": got["many"]["cpu_seconds"] / got["few"]["cpu_seconds"], "rows": rows[1],
            "units": got["few"]["cpu_seconds"] / unit, "cpu_seconds": got["few"]["cpu_seconds"],
        })  # fmt: skip
    return records


def main() -> None:
    """Run and print."""
    args = options(__doc__).parse_args()
    small = args.quick
    records = [wild(), compare(10_000 if small else 1_000_000), rank_of(2_000 if small else 100_000)]
    records += flat((10_000, 20_000 if small else 1_000_000))
    finished(__file__, args, records)


if __name__ == "__main__":
    main()
