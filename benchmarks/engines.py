"""The pass over the rows in each engine, against the bare group-by of the same sums in that engine.

    python benchmarks/engines.py [--large] [--folder DIR] [--engines NAME ...] [--quick] [--write]

Two mediators, 100 sites; 1e6 and 1e7 rows, and 1e7 rows in 100,000 sites. ``--large`` adds 1e8 rows of Parquet for
DuckDB (about 2.5 GB in ``--folder``, removed afterwards). Ours looks for missing values in every column, checks
labels and weights and orders the cells; the bare query (``bare.py``) does not. Both take turns in one process; the
peaks of memory are measured in processes of their own. The sums have to agree to 1e-9.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bare import ENGINES, KEYS, PAIRS, VALUES, installed
from common import SEED, alternated, apart, extra_mb, finished, options, trial

SAME = 1e-9
PIECE = 1_000_000


def written(folder: Path, rows: int, sites: int) -> Path:
    """The trial as Parquet, made piece by piece; one file, or one file per piece."""
    import duckdb

    path = folder / f"trial-{rows}-{sites}"
    path.mkdir()
    for number, start in enumerate(range(0, rows, PIECE)):
        piece = trial(min(PIECE, rows - start), sites, seed=SEED + number)
        duckdb.from_df(piece).write_parquet(str(path / f"part-{number:04d}.parquet"))
    return path


def design() -> Any:
    """The roles."""
    import msmmiv as mm

    return mm.Design(outcome="y", treatment="t", mediators=["m1", "m2"], site="site")


def agree(ours: Any, bare: pd.DataFrame) -> float:
    """Largest difference between our scatter and that of the bare query, relative to the largest of its column."""
    bare = bare.sort_values(KEYS, ignore_index=True)
    assert np.array_equal(bare["n"].to_numpy(dtype=float), ours.n), "the counts differ"
    worst = 0.0
    for a, b in PAIRS:
        i, j = VALUES.index(a), VALUES.index(b)
        scatter = bare[f"{a}_{b}"].to_numpy() - bare[a].to_numpy() * bare[b].to_numpy() / bare["n"].to_numpy()
        mine = ours.first.scatter[:, i, j]
        worst = max(worst, float(np.abs(scatter - mine).max() / np.abs(mine).max()))
    return worst


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """One engine at one size: times of both in turn, or the peak of one."""
    import msmmiv as mm

    _, _, hold, bare = ENGINES[job["engine"]]
    roles = design()
    small = hold(job["small"])
    ours, query = mm.Moments.from_data(small, roles), bare(small)
    held = hold(job["path"])
    jobs = {"ours": lambda: mm.Moments.from_data(held, roles), "bare": lambda: bare(held)}
    if job["what"] != "time":
        return {"extra_mb": extra_mb(jobs[job["what"]])[0]}
    got = alternated(jobs, job["times"])
    ours, query = jobs["ours"](), jobs["bare"]()
    difference = agree(ours, query)
    assert difference < SAME, f"{job['engine']}: the sums differ by {difference:.2g}"
    return {"ours": got["ours"], "bare": got["bare"], "difference": difference}


def record(engine: str, rows: int, sites: int, paths: dict[str, str], times: int) -> dict[str, Any]:
    """Ratios of one engine at one size."""
    out: dict[str, Any] = {"engine": engine, "where": ENGINES[engine][1], "rows": rows, "sites": sites}
    base = {"engine": engine, "times": times, **paths}
    got = apart(__file__, base | {"what": "time"})
    if "failed" in got:
        return out | {"skipped": got["failed"]}
    ours, bare = got["ours"], got["bare"]
    out |= {
        "time_ratio": ours["seconds"] / bare["seconds"], "cpu_ratio": ours["cpu_seconds"] / bare["cpu_seconds"],
        "difference": got["difference"], "seconds": ours["seconds"], "cpu_seconds": ours["cpu_seconds"],
        "bare_seconds": bare["seconds"], "bare_cpu_seconds": bare["cpu_seconds"],
    }  # fmt: skip
    # The work of Spark is Java's: processor time and memory of this process say nothing of it.
    if engine == "PySpark":
        return {k: v for k, v in out.items() if "cpu" not in k}
    for what, name in (("ours", "extra_mb"), ("bare", "bare_extra_mb")):
        out[name] = apart(__file__, base | {"what": what}).get("extra_mb")
    return out


def sizes(args: argparse.Namespace) -> list[tuple[int, int, list[str], int]]:
    """Rows, sites, engines and repetitions."""
    engines = [e for e in args.engines if installed(e)]
    if args.quick:
        return [(20_000, 100, engines, 2)]
    main_three = [e for e in engines if e in ("pandas", "polars", "DuckDB")]
    out = [(10**6, 100, engines, 5), (10**7, 100, engines, 3), (10**7, 10**5, main_three, 3)]
    return [*out, (10**8, 100, ["DuckDB, Parquet"], 2)] if args.large else out


def main() -> None:
    """Every engine at every size."""
    parser = options(__doc__)
    parser.add_argument("--large", action="store_true", help="1e8 rows of Parquet too")
    parser.add_argument("--folder", type=Path, help="where Parquet files may lie (default: temporary)")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    args = parser.parse_args()
    if args.job:
        print(json.dumps(measured(args.job)))
        return
    records = []
    folder = Path(tempfile.mkdtemp(prefix="msmmiv-bench-", dir=args.folder))
    try:
        small = f"{written(folder, 10_000, 100)}/*.parquet"
        for rows, sites, engines, times in sizes(args):
            made = written(folder, rows, sites)
            paths = {"path": f"{made}/*.parquet", "small": small}
            for engine in engines:
                records.append(record(engine, rows, sites, paths, times))
                print(records[-1], flush=True)
            shutil.rmtree(made)
    finally:
        shutil.rmtree(folder)
    absent = [e for e in args.engines if not installed(e)]
    finished(__file__, args, records, not_installed=absent)


if __name__ == "__main__":
    main()
