"""How cost grows: with rows the pass alone, with sites everything in proportion; a million sites, a million clusters.

    python benchmarks/growth.py [--large] [--quick] [--write]

Against rows: 100 sites and 1e4 to 1e7 rows of pandas, polars and DuckDB, then the analysis of those moments. Against
sites: 1e2 to 1e6 sites in 1e7 rows of pandas. Clusters: 1,000 sites of 1,000 clusters each. ``--large`` adds the rank
report of a million sites, which is minutes. Every size runs in a process of its own; ``units`` is processor time over
that of one robust 2SLS fit from the moments of 10,000 rows in 100 sites, ``extra_mb`` the peak above what was held.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from typing import Any

from bare import ENGINES
from common import alternated, apart, extra_mb, finished, options, trial

OVER_ROWS = "pass over the rows"
FIT = "2SLS, robust"
#: Steps of the analysis that are known to be long where there are many sites.
SLOW = ("rank report",)


def in_engine(engine: str, df: Any) -> Any:
    """The frame where the engine wants it."""
    if engine == "polars":
        import polars as pl

        return pl.DataFrame({name: df[name].to_numpy() for name in df})
    if engine == "DuckDB":
        import duckdb

        connection = duckdb.connect()
        connection.register("made", df)
        connection.execute("CREATE TABLE trial AS SELECT * FROM made")
        connection.unregister("made")
        return connection.table("trial")
    return df


def steps(study: Any, clusters: bool) -> dict[str, Callable[[], object]]:
    """The analysis after the pass, each step from the moments."""
    import msmmiv as mm

    moments = study.moments
    fits = {"2SLS, robust": {"cov_type": "HC1"}, "2SLS, HC2": {"cov_type": "HC2"}, "2SLS, HTE": {"cov_type": "HTE"},
            "2SLS, sites as a sample": {"cov_type": "site"},
            "2SLS, sites as a sample, CR2": {"cov_type": "site", "small_sample": "CR2"},
            "2SLS, classical": {"cov_type": "classical"}}  # fmt: skip
    if clusters:
        fits |= {"2SLS, clusters": {"cov_type": "cluster"},
                 "2SLS, clusters, CR2": {"cov_type": "cluster", "small_sample": "CR2"}}  # fmt: skip
    out: dict[str, Callable[[], object]] = {
        name: lambda o=options_: mm.fit(moments, "2sls", **o).summary for name, options_ in fits.items()
    }
    out["site effects"] = lambda: mm.SiteEffects.from_moments(moments)
    out["UJIVE"] = lambda: mm.fit(moments, "ujive")
    out["heterogeneity"] = lambda: str(study.heterogeneity())
    out["rank report"] = lambda: str(study.rank())
    return out


def clocked(step: str, run: Callable[[], object], times: int) -> dict[str, Any]:
    """Peak memory of the first run, and the shortest of all."""
    peak, first = extra_mb(lambda: alternated({"": run}, 1)[""])
    more = [first] + ([alternated({"": run}, times - 1)[""]] if times > 1 else [])
    return {"step": step, "extra_mb": peak} | {k: min(m[k] for m in more) for k in ("seconds", "cpu_seconds")}


def passed(job: dict[str, Any], roles: Any) -> tuple[dict[str, Any], Any]:
    """The record of the pass, and the moments; the rows are gone then."""
    import msmmiv as mm

    held = in_engine(job["engine"], trial(job["rows"], job["sites"], clusters=job.get("clusters", 0)))
    record = clocked(OVER_ROWS, lambda: mm.Moments.from_data(held, roles), job["times"])
    moments = mm.Moments.from_data(held, roles)
    return record | {"cells": moments.n_cells}, moments


def measured(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The pass, and where asked for the steps after it, at one size."""
    import msmmiv as mm

    warnings.simplefilter("ignore")  # sites without a contrast, which are dropped, are not the subject here
    clusters = job.get("clusters", 0)
    roles = mm.Design(
        outcome="y", treatment="t", mediators=["m1", "m2"], site="site", cluster="cluster" if clusters else None
    )  # fmt: skip
    warm = mm.Study(trial(2000, 20, clusters=min(clusters, 10)), roles)
    for run in steps(warm, bool(clusters)).values():
        run()
    first, moments = passed(job, roles)
    out = [first]
    for name, run in steps(mm.Study(moments), bool(clusters)).items() if job["analysis"] else ():
        if name in job["without"]:
            continue
        out.append(clocked(name, run, job["times"]))
    return out


def jobs(quick: bool, large: bool) -> list[dict[str, Any]]:
    """All sizes."""
    engines = [e for e in ("pandas", "polars", "DuckDB") if importlib.util.find_spec(ENGINES[e][0])]
    tens = [10**4, 10**5] if quick else [10**4, 10**5, 10**6, 10**7]
    out = [
        {"against": "rows", "engine": e, "rows": n, "sites": 100, "analysis": e == "pandas", "without": [],
         "times": 5 if n < 10**7 else 3}
        for n in tens for e in engines
    ]  # fmt: skip
    for sites in [10**2, 10**3] if quick else [10**2, 10**3, 10**4, 10**5, 10**6]:
        many = sites >= 10**5
        out.append({
            "against": "sites", "engine": "pandas", "rows": 20_000 if quick else 10**7, "sites": sites,
            "analysis": True, "without": list(SLOW) if many and not large else [], "times": 1 if many else 3,
        })  # fmt: skip
    sites, clusters = (10, 10) if quick else (1000, 500)  # clusters in each arm of a site
    out.append({
        "against": "clusters", "engine": "pandas", "rows": 4 * 2 * sites * clusters, "sites": sites,
        "clusters": clusters, "analysis": True, "without": [], "times": 1,
    })  # fmt: skip
    return out


def main() -> None:
    """Every size in turn."""
    parser = options(__doc__)
    parser.add_argument("--large", action="store_true", help="the rank report of many sites too")
    args = parser.parse_args()
    if args.job:
        print(json.dumps({"steps": measured(args.job)}))
        return
    records, left_out = [], []
    for job in jobs(args.quick, args.large):
        size = {k: job[k] for k in ("against", "engine", "rows", "sites")}
        if "clusters" in job:
            size["clusters"] = 2 * job["clusters"] * job["sites"]
        got = apart(__file__, job)
        if "failed" in got:
            left_out.append(f"{size}: {got['failed']}")
        left_out += [f"{step} with {job['sites']:,} sites: only with --large" for step in job["without"]]
        records += [size | step for step in got.get("steps", [])]
        print(size, [(s["step"], s["cpu_seconds"]) for s in got.get("steps", [])], flush=True)
    unit = next(r["cpu_seconds"] for r in records if r["step"] == FIT)
    finished(__file__, args, [r | {"units": r["cpu_seconds"] / unit} for r in records], left_out=left_out)


if __name__ == "__main__":
    main()
