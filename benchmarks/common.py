"""What the benchmarks share: made-up trials, clocks that alternate, peaks of memory, the form of the JSON files.

Every script writes ``{"machine": ..., "options": ..., "records": [...]}``: a list of flat records of ratios and sizes.
Seconds, which say something about one machine only, are printed and not stored. Jobs of one thread
are compared by the time of the processor, which another program's work on the machine lengthens less than it does the
time on the wall; engines with threads of their own by the latter, with the former beside it.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
SEED = 20261121
#: What the machine was doing when the script began.
LOAD = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
LIBRARIES = (
    "numpy", "pandas", "scipy", "narwhals", "polars", "pyarrow", "duckdb", "dask", "ibis-framework", "pyspark",
    "linearmodels", "pyfixest",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo, cores = Path("/proc/cpuinfo"), os.cpu_count()
    if cpuinfo.exists():
        names = [v for v in cpuinfo.read_text(encoding="utf-8").splitlines() if v.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model, "cores": cores, "memory_gib": round(memory), "system": platform.system(),
        "python": platform.python_version(), "load_before": LOAD, "versions": versions,
    }  # fmt: skip


def trial(
    rows: int, sites: int, mediators: int = 2, *, clusters: int = 0, seed: int = SEED, effects: int = SEED
) -> pd.DataFrame:
    """A trial whose compliances differ by site, with an unobserved common cause; columns site, t, m1, m2 ..., y.

    ``effects`` is the seed of what belongs to the sites and ``seed`` that of the people, so that a large trial can be
    made in pieces. With fewer than twenty people a site, sites and arms are dealt out in turn.
    """
    law, rng = np.random.default_rng(effects), np.random.default_rng([seed, rows])
    if rows < 20 * sites:
        site, t = np.arange(rows) % sites, (np.arange(rows) // sites) % 2
    else:
        site, t = rng.integers(0, sites, rows), rng.integers(0, 2, rows)
    data: dict[str, Any] = {"site": site, "t": t}
    if clusters:
        data["cluster"] = (site * 2 + t) * clusters + rng.integers(0, clusters, rows)
    common = rng.normal(size=rows)
    y = common + rng.normal(size=rows)
    for j in range(1, mediators + 1):
        mean, sign, effect = (0.6, 1.0, 0.5) if j % 2 else (0.3, -1.0, -0.3)
        data[f"m{j}"] = law.normal(mean, 0.3, sites)[site] * t + sign * common + rng.normal(size=rows)
        y += effect * data[f"m{j}"]
    return pd.DataFrame(data | {"y": y})


def alternated(jobs: Mapping[str, Callable[[], object]], times: int) -> dict[str, dict[str, float]]:
    """Shortest wall and processor time of each job; the jobs take turns, so that a busy machine is busy for all."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _ in range(times):
        for name, job in jobs.items():
            gc.collect()
            start, cpu = time.perf_counter(), time.process_time()
            job()
            taken[name].append((time.perf_counter() - start, time.process_time() - cpu))
    return {
        name: {"seconds": min(w for w, _ in got), "cpu_seconds": min(c for _, c in got)}
        for name, got in taken.items()
    }


def best(job: Callable[[], object], times: int) -> float:
    """Shortest of several runs, in seconds of the processor."""
    return alternated({"": job}, times)[""]["cpu_seconds"]


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def extra_mb(job: Callable[[], Any]) -> tuple[float, Any]:
    """Peak memory of a job above what the process holds before it, and what it returns.

    Linux forgets the earlier peak when it is asked to, so that making the data leaves no mark. Elsewhere the largest
    size so far is all there is, and a job that stays below it shows zero.
    """
    gc.collect()
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5", encoding="utf-8")
        before = _status("VmRSS")
        out = job()
        return max(_status("VmHWM") - before, 0.0), out
    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    out = job()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit - before, out


def apart(script: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job of a script in a process of its own, and read what it prints last.

    A job that dies gives ``{"failed": why}``: a limit of memory shows in the table instead of ending it.
    """
    command = [sys.executable, script, "--job", json.dumps(job)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        return {"failed": said[:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def limited(gib: float) -> None:
    """Let this process have so much memory and no more."""
    size = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--write", action="store_true", help="store the figures beside the script")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    return parser


def rounded(value: Any) -> Any:
    """Four digits: more would be noise."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def finished(script: str, args: argparse.Namespace, records: list[dict[str, Any]], **more: Any) -> None:
    """Print the records, and store them where that was asked for."""
    short = [{k: rounded(v) for k, v in record.items()} for record in records]
    kept = {"machine": machine(), "options": {"quick": args.quick}, "records": short, **more}
    for record in short:
        print("  ".join(f"{k}={v}" for k, v in record.items()))
    if args.write:
        path = Path(script).with_suffix(".json")
        part = path.with_suffix(".part")
        # One record a line, which is what a diff should show.
        text = json.dumps(kept | {"records": []}, indent=1)
        ratios = [{k: v for k, v in record.items() if "seconds" not in k} for record in short]
        lines = ",\n".join(f"  {json.dumps(record)}" for record in ratios)
        part.write_text(text.replace('"records": []', f'"records": [\n{lines}\n ]') + "\n", encoding="utf-8")
        part.replace(path)
