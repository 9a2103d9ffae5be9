"""What `Study.fit()` recommends, on simulated trials: coverage, length, bias, and 2SLS beside it.

    python -m tests.validation.study --workers 2

writes docs/validation/recommended.csv, tests.csv, clusters.csv, rank.csv, critical.csv, table1.csv, decompose.csv,
claims.csv, linearity.csv, independence.csv, balance.csv, rank_usable.csv and audit.csv; ``--table`` chooses one. The
numbers do not depend on the number of workers: every cell of a table has its own seed.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import msmmiv as mm
from msmmiv.estimate import fit_by_rule
from tests.validation.design import Cell, draw, moments
from tests.validation.rule import Verdict, two_stage, verdict

DOCS = Path(__file__).parents[2] / "docs" / "validation"
SEED = 20261121
#: Trials drawn at once; trials of each cell in which `fit_by_rule` itself is run and must agree.
BATCH, CHECKED = 50, 20

Row = dict[str, Any]
Simulate = Callable[[Any, np.random.SeedSequence, int], list[Row]]


def grid() -> list[Cell]:
    """Every cell of docs/validation/recommended.csv, in the order of its rows and of its seeds."""
    sites, strengths = (5, 8, 12, 20, 50, 100), (2.0, 5.0, 10.0, 50.0)
    main = itertools.product(sites, strengths, (0.0, 0.3), (1, 2), ("gaussian", "skewed"), (6, 20, 60))
    more = itertools.product(sites, strengths, (0.0, 0.3), (1,), ("count", "binary"), (20, 60))
    return [Cell(*values) for values in itertools.chain(main, more)]


def recommended(cell: Cell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """One row of the table."""
    row: Row = {**vars(cell), "feasible": cell.feasible}
    if not cell.feasible:
        return [row | {"replications": 0}]
    truth, rng = np.array(list(cell.truth.values())), np.random.default_rng(seed)
    weight, parts, beside = np.full(cell.sites, cell.n / 2.0), [], []
    for start in range(0, trials, BATCH):
        means, scatters = draw(cell, rng, min(BATCH, trials - start))
        effects, inside = means[:, 1::2] - means[:, ::2], scatters[:, 1::2] + scatters[:, ::2]
        got = verdict(effects, inside / (cell.n * (cell.n - 1.0)), weight, truth)
        if start == 0:
            check(got, map(partial(moments, cell), means, scatters), cell.truth)
        parts.append(got)
        beside.append(two_stage(effects, inside, cell.n))
    b, half = (np.concatenate(x) for x in zip(*beside, strict=True))
    return [
        row
        | summary(parts, truth)
        | {"coverage_2sls": float((np.abs(b - truth) <= half).mean()), **_medians(b - truth, "bias_2sls")}
    ]


def summary(parts: Sequence[Verdict], truth: np.ndarray) -> Row:
    """Coverage and the like, terms pooled; median length of bounded sets, median bias where there is an estimate."""
    used = np.concatenate([part.used for part in parts])
    found, covers, length = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("estimate", "covers", "length")
    )
    bounded, have = length[np.isfinite(length)], ~np.isnan(found[:, 0])
    return (
        {"replications": len(used), "coverage": float(covers.mean())}
        | {f"used_{name}": float((used == name).mean()) for name in ("CR2", "CR3", "score")}
        | {"unbounded": float(np.isinf(length).mean())}
        | {"median_length": float(np.median(bounded)) if bounded.size else float("nan")}
        | {"no_estimate": float(1.0 - have.mean()), **_medians(found[have] - truth, "bias")}
    )


def _medians(away: np.ndarray, name: str) -> Row:
    middle = np.median(away, axis=0) if len(away) else np.full(away.shape[1], np.nan)
    return {f"{name}_m{j}": float(value) for j, value in enumerate(middle, start=1)}


def check(got: Verdict, trials: Iterable[mm.Moments], truth: dict[str, float]) -> None:
    """`fit_by_rule` must agree with the verdicts on some trials: interval, estimate, what the sets hold, length."""
    for r, one in zip(range(CHECKED), trials, strict=False):
        fit = fit_by_rule(one)
        assert (fit.small_sample if fit.interval == "wald" else "score") == got.used[r], fit.rule
        np.testing.assert_allclose(fit.coefficients, got.estimate[r], rtol=1e-6)
        for j, (term, value) in enumerate(truth.items()):
            found = fit.confidence_set(term)
            assert (value in found) == got.covers[r, j], (term, fit.rule)
            np.testing.assert_allclose(found.hull[1] - found.hull[0], got.length[r, j], rtol=1e-5)


def run(
    name: str,
    cells: Sequence[Any],
    simulate: Simulate,
    *,
    out: Path,
    replications: int,
    workers: int,
) -> pd.DataFrame:
    """Simulate all cells and write the table; rewritten as cells finish, so that nothing is lost on the way."""
    seeds = seeds_of(name, len(cells))
    # Large cells first, so that the workers end together.
    order = sorted(range(len(cells)), key=lambda i: -cells[i].sites * getattr(cells[i], "n", 20))
    jobs = [(simulate, i, cells[i], seeds[i], replications) for i in order]
    rows: dict[int, list[Row]] = {}
    with multiprocessing.Pool(workers) as pool, tqdm(total=len(jobs), desc=name, unit="cell") as bar:
        for i, got in pool.imap_unordered(_job, jobs):
            rows[i] = got
            bar.update()
            if len(rows) % 50 == 0 or len(rows) == len(jobs):
                _write(rows, out)
    return _write(rows, out)


def seeds_of(name: str, cells: int) -> list[np.random.SeedSequence]:
    """One seed per cell of a table."""
    return np.random.SeedSequence([SEED, *name.encode()]).spawn(cells)


def _job(job: tuple[Any, ...]) -> tuple[int, list[Row]]:
    simulate, i, cell, seed, replications = job
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return i, simulate(cell, seed, replications)


def _write(rows: dict[int, list[Row]], out: Path) -> pd.DataFrame:
    table = pd.DataFrame([row for i in sorted(rows) for row in rows[i]])
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False, float_format="%.5g")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    from tests.validation import (
        audit,
        balance,
        claims,
        classes,
        critical,
        decompose,
        independence,
        linearity,
        rank,
        rank_usable,
        sizes,
        table1,
    )

    tables: dict[str, tuple[Sequence[Any], Simulate, int]] = {
        "recommended": (grid(), recommended, 4000),
        "tests": (sizes.grid(), sizes.sizes, 1000),
        "clusters": (classes.grid(), classes.coverage, 4000),
        "rank": (rank.grid(), rank.sizes, 1000),
        "critical": (critical.grid(), critical.critical, critical.TRIALS),
        "table1": (table1.grid(), table1.simulate, table1.TRIALS),
        "decompose": (decompose.grid(), decompose.simulate, decompose.TRIALS),
        "claims": (claims.grid(), claims.simulate, claims.TRIALS),
        "linearity": (linearity.grid(), linearity.simulate, linearity.TRIALS),
        "independence": (independence.grid(), independence.simulate, independence.TRIALS),
        "balance": (balance.grid(), balance.simulate, balance.TRIALS),
        "rank_usable": (rank_usable.grid(), rank_usable.simulate, rank_usable.TRIALS),
        "audit": (audit.grid(), audit.simulate_cell, audit.TRIALS),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", choices=[*tables, "all"], default="all")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--replications", type=int, help="instead of 4000 (tests.csv and rank.csv: 1000)")
    parser.add_argument(
        "--out", type=Path, help="file to write instead of the committed one (one table only)"
    )
    given = parser.parse_args(arguments)
    if given.out and given.table == "all":
        parser.error("--out names one file: choose a --table")
    for name in tables if given.table == "all" else [given.table]:
        cells, simulate, usual = tables[name]
        out, trials = given.out or DOCS / f"{name}.csv", given.replications or usual
        run(name, cells, simulate, out=out, replications=trials, workers=given.workers)


if __name__ == "__main__":
    main()
