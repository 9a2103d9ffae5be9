"""From a frame to robust two-stage least squares: against linearmodels with a dummy per site, and against pyfixest.

    python benchmarks/dense.py [--rows 10000 100000] [--sites 10 50 100] [--memory 10] [--quick] [--write]

linearmodels takes any number of mediators on the dense design (two here); pyfixest absorbs the sites and takes one
mediator, with a column per site for the instruments. Each program runs in a process of its own, on the same frame,
and its numbers have to agree with ours to 1e-9. A program that needs more than ``--memory`` GiB is recorded as such.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from common import alternated, apart, extra_mb, finished, limited, options, trial

SAME = 1e-9


def design_of(mediators: int) -> Any:
    """The design of the trial, with so many mediators."""
    import msmmiv as mm

    return mm.Design(
        outcome="y", treatment="t", mediators=[f"m{j}" for j in range(1, mediators + 1)], site="site"
    )


def ours(df: pd.DataFrame, mediators: int) -> Callable[[], list[float]]:
    """Estimates, robust errors, first stages, over-identification and exogeneity tests."""
    import msmmiv as mm

    design = design_of(mediators)

    def job() -> list[float]:
        fit = mm.Study(df, design).fit("2sls", cov_type="HC1")
        return [*fit.params, *fit.std_errors]

    return job


def linearmodels(df: pd.DataFrame, mediators: int, *, all_of_it: bool) -> Callable[[], list[float]]:
    """The dense design; ``all_of_it`` adds what our fit holds too."""
    from msmmiv.estimate.linearmodels_bridge import to_linearmodels

    design = design_of(mediators)

    def job() -> list[float]:
        res = to_linearmodels(df, design).fit(cov_type="robust", debiased=True)
        names = list(design.mediators)
        out = [*res.params[names], *res.std_errors[names]]
        if all_of_it:
            _ = res.first_stage.diagnostics, res.sargan, res.basmann, res.wu_hausman()
        return out

    return job


def pyfixest(df: pd.DataFrame, mediators: int) -> Callable[[], list[float]]:
    """Sites absorbed, one column of instruments per site; every intercept counted in the errors, as ours does."""
    import pyfixest as pf

    assert mediators == 1, "pyfixest has one endogenous variable"
    sites = np.unique(df["site"])

    def job() -> list[float]:
        wide = df.assign(**{f"z{s}": df["t"] * (df["site"] == s) for s in sites})
        formula = "y ~ 1 | site | m1 ~ " + " + ".join(f"z{s}" for s in sites)
        fit = pf.feols(
            formula, data=wide, vcov="hetero", ssc=pf.ssc(k_adj=True, k_fixef="full"), copy_data=False
        )
        return [float(fit.coef()["m1"]), float(fit.se()["m1"])]

    return job


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """One program at one size: numbers, seconds and peak memory."""
    rows, sites, mediators, program = job["rows"], job["sites"], job["mediators"], job["program"]
    df = trial(rows, sites, mediators)
    small = df.groupby("site").head(20)
    limited(job["memory"])
    if program == "msmmiv":
        run, warm = ours(df, mediators), ours(small, mediators)
    elif program == "pyfixest":
        run, warm = pyfixest(df, mediators), pyfixest(small, mediators)
    else:
        all_of_it = program.endswith("with tests")
        run = linearmodels(df, mediators, all_of_it=all_of_it)
        warm = linearmodels(df.query("site < 3").groupby("site").head(20), mediators, all_of_it=all_of_it)
    warm()  # imports, and what is compiled when first used
    peak, numbers = extra_mb(run)
    times = 20 if program == "msmmiv" else 5 if rows <= 10_000 else 1
    return alternated({"": run}, times)[""] | {"numbers": numbers, "extra_mb": peak}


def compared(base: dict[str, Any], programs: list[str]) -> list[dict[str, Any]]:
    """One record per program at this size; ratios are theirs over ours."""
    own = apart(__file__, base | {"program": "msmmiv"})
    if "failed" in own:
        raise SystemExit(f"msmmiv failed at {base}: {own['failed']}")
    size = {k: base[k] for k in ("rows", "sites", "mediators")}
    records = [size | {"program": "msmmiv"} | {k: own[k] for k in ("seconds", "cpu_seconds", "extra_mb")}]
    for program in programs:
        got = apart(__file__, base | {"program": program})
        record: dict[str, Any] = size | {"program": program}
        if "failed" in got:
            records.append(record | {"skipped": f"{got['failed']} (limit {base['memory']:g} GiB)"})
            continue
        difference = float(np.max(np.abs(np.divide(got["numbers"], own["numbers"]) - 1.0)))
        assert difference < SAME, f"{program} at {size}: relative difference {difference:.2g}"
        records.append(record | {
            "time_ratio": got["cpu_seconds"] / own["cpu_seconds"], "wall_ratio": got["seconds"] / own["seconds"],
            "memory_ratio": got["extra_mb"] / max(own["extra_mb"], 1.0), "relative_difference": difference,
            "seconds": got["seconds"], "cpu_seconds": got["cpu_seconds"], "extra_mb": got["extra_mb"],
        })  # fmt: skip
    return records


def main() -> None:
    """Every size, every program."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--memory", type=float, default=10.0, help="GiB that a program may take")
    args = parser.parse_args()
    if args.job:
        import json

        print(json.dumps(measured(args.job)))
        return
    rows, sites = ([2000], [10]) if args.quick else (args.rows, args.sites)
    dense = ["linearmodels", "linearmodels, with tests"]
    absorbed = ["pyfixest"] if importlib.util.find_spec("pyfixest") else []
    records = []
    for n in rows:
        for k in sites:
            base = {"rows": n, "sites": k, "memory": args.memory}
            records += compared(base | {"mediators": 2}, dense)
            if absorbed:
                records += compared(base | {"mediators": 1}, absorbed)
    left_out = [] if absorbed else ["pyfixest is not installed: pip install 'msmmiv[bench]'"]
    finished(__file__, args, records, left_out=left_out)


if __name__ == "__main__":
    main()
