"""Table 1 of Fu (2023), section 6.1: docs/validation/table1.csv.

"fixed" repeats Algorithm 1 as printed: compliances, direct effects and standard errors are drawn once per K and only
sampling errors again, so that one row of the paper's table is one draw of a design. Twenty designs show how much
that decides. "redrawn" draws everything in each replication: then the rejection rate at beta = 0 is a size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msmmiv.estimate.between.rlr import rlr_set
from msmmiv.estimate.between.slope_test import Reference, SlopeTest
from msmmiv.estimate.between.wild_score import wild_score
from msmmiv.inference.confidence_set import ConfidenceSet
from tests.validation import fu_tests
from tests.validation.between_tests import (
    DRAWS,
    SIZE,
    Interval,
    bces,
    calibrated,
    check,
    eb_t,
    ols,
    rlr_f,
    simex,
    simex_default,
)
from tests.validation.between_trials import Population, Trials
from tests.validation.study import SEED, Row

SITES = (5, 10, 30, 50, 100)
#: Designs, and replications of each (the paper's B); of the default with more than ten sites, which takes longer.
FIXED, PAPER_B, SLOW_B = 20, 500, 100
#: Bounded sets that the package computes for their length; trials in which everything is checked.
SETS, CHECKED = 30, 5
#: Replications of redrawn cells with 10 and 30 sites; half with more; four times as many with 5: a close race.
TRIALS = 2000
#: Value that stands for infinity, where the statistics have stopped to change.
FAR = 1e7

DEFAULT = "EB score, simulated"
CODED, PAIRS, WILD, SIMEX = "BCES, coded variance", "BCES, pairs", "BCES, wild", "SIMEX, quadratic"
#: What the paper prints: by method, beta, and K = 100, 50, 30, 10, 5.
PRINTED = {
    (CODED, 0): (0.034, 0.067, 0.166, 0.338, 0.422),
    (PAIRS, 0): (0.042, 0.082, 0.002, 0.228, 0.184),
    (WILD, 0): (0.038, 0.04, 0.05, 0.05, 0.018),
    (SIMEX, 0): (0.092, 0.09, 0.066, 0.084, 0.058),
    (PAIRS, 2): (0.192, 0.16, 0.024, 0.384, 0.222),
    (WILD, 2): (0.548, 0.302, 0.438, 0.166, 0.102),
    (SIMEX, 2): (0.988, 0.854, 0.926, 0.27, 0.168),
}

Test = Callable[[Trials, float], np.ndarray]


@dataclass(frozen=True)
class Table1Cell:
    """``design`` is "fixed" or "redrawn"."""

    design: str
    sites: int
    beta: float


def grid() -> list[Table1Cell]:
    """Every cell."""
    return [Table1Cell(*values) for values in itertools.product(("fixed", "redrawn"), SITES, (0.0, 2.0))]


def simulate(cell: Table1Cell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Rows of one cell, one per method; ``trials`` is how often a design with up to 30 sites is redrawn."""
    return fixed(cell) if cell.design == "fixed" else redrawn(cell, seed, trials)


def printed(method: str, cell: Table1Cell) -> float:
    """The paper's figure, or NaN."""
    row = PRINTED.get((method, int(cell.beta)))
    return row[::-1][SITES.index(cell.sites)] if row else float("nan")


def paper_rejects(trials: Trials, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Rejections of zero by what the paper used."""
    return {
        CODED: fu_tests.coded(trials).rejects(0.0),
        PAIRS: fu_tests.pairs(trials, rng).rejects(0.0),
        WILD: fu_tests.wild(trials, rng, 0.0),
        SIMEX: simex(trials, rng).rejects(0.0),
    }


def fixed(cell: Table1Cell, designs: int = FIXED) -> list[Row]:
    """Algorithm 1: rejection rate of each design, its smallest, median and largest value."""
    shares: dict[str, list[float]] = {}
    calibrations = PAPER_B if cell.sites <= 10 else SLOW_B
    # The same sites for both values of beta.
    for one in np.random.SeedSequence([SEED, cell.sites]).spawn(designs):
        rng = np.random.default_rng(one)
        trials = Population.draw(rng, (1, cell.sites)).repeated(PAPER_B).trials(rng, cell.beta)
        found = paper_rejects(trials, rng) | {
            "BCES, t": bces(trials).rejects(0.0),
            "least squares": ols(trials).rejects(0.0),
            "EB score, t": eb_t(trials, 0.0),
            DEFAULT: calibrated(trials.take(slice(0, calibrations)), 0.0) <= SIZE,
        }
        for method, rejected in found.items():
            shares.setdefault(method, []).append(float(rejected.mean()))
    return [
        {**vars(cell), "method": method, "printed": printed(method, cell), "first_design": share[0]}
        | {
            "min": min(share),
            "median": float(np.median(share)),
            "max": max(share),
            "rejects": float(np.mean(share)),
        }
        | {"designs": designs, "replications": calibrations if method == DEFAULT else PAPER_B}
        for method, share in shares.items()
    ]


def redrawn(cell: Table1Cell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Size or power, coverage, and the shape of the sets."""
    share = {5: 4.0, 50: 0.5, 100: 0.5}.get(cell.sites, 1.0)
    slow, trials = max(int(trials * min(share, 1.0)) // 4, 2), int(trials * share)
    rng = np.random.default_rng(seed)
    drawn = Population.draw(rng, (trials, cell.sites)).trials(rng, cell.beta)
    check(drawn, CHECKED)
    few = drawn.take(slice(0, slow))
    intervals = {
        CODED: fu_tests.coded(drawn),
        "BCES, z": bces(drawn, normal=True),
        "BCES, t": bces(drawn),
        PAIRS: fu_tests.pairs(drawn, rng),
        SIMEX: simex(drawn, rng),
        "SIMEX()": simex_default(drawn, rng),
        "least squares": ols(drawn),
    }
    rows = [
        {**vars(cell), "method": name, **of_interval(found, cell.beta)} for name, found in intervals.items()
    ]
    tests: dict[str, tuple[Trials, Test, Callable[[Trials, int], ConfidenceSet] | None]] = {
        DEFAULT: (drawn, lambda t, v: calibrated(t, v) <= SIZE, lambda t, r: slope_set(t, r, "bootstrap")),
        "EB score, t": (drawn, eb_t, lambda t, r: slope_set(t, r, "t")),
        "RLR, F": (few, rlr_f, lambda t, r: rlr_set(t.rows(r))),
        "wild score": (few, wild, None),
        WILD: (drawn, lambda t, v: fu_tests.wild(t, rng, v), None),
    }
    for name, (some, test, find) in tests.items():
        rejects = test(some, 0.0)
        missed = rejects if cell.beta == 0 else test(some, cell.beta)
        row = {**vars(cell), "method": name, **rates(rejects, missed)}
        if name != WILD:
            bounded = test(some, FAR)
            row["unbounded"] = float(1.0 - bounded.mean())
        if find is not None:
            sets = [find(some, int(r)) for r in np.flatnonzero(bounded)[:SETS]]
            length = [one.hull[1] - one.hull[0] for one in sets if one.is_bounded]
            row |= {
                "median_length": float(np.median(length)) if length else float("nan"),
                "sets": len(length),
            }
        rows.append(row)
    return rows


def of_interval(found: Interval, beta: float) -> Row:
    """Without a standard error there is no length, and nothing is rejected."""
    have = found.length[~found.none]
    return rates(found.rejects(0.0), found.rejects(beta)) | {
        "unbounded": 0.0,
        "median_length": float(np.median(have)),
        "no_result": float(found.none.mean()),
        "sets": int(have.size),
    }


def rates(rejects: np.ndarray, missed: np.ndarray) -> Row:
    """Rejections of zero and coverage, with the standard error that simulation leaves."""
    share, covered = float(rejects.mean()), float(1.0 - missed.mean())
    n = len(rejects)
    return {
        "replications": n,
        "rejects": share,
        "rejects_se": float(np.sqrt(share * (1.0 - share) / n)),
        "coverage": covered,
        "coverage_se": float(np.sqrt(covered * (1.0 - covered) / n)),
    }


def slope_set(trials: Trials, r: int, reference: Reference) -> ConfidenceSet:
    """The package's set."""
    return SlopeTest(trials.rows(r), "m", reference, DRAWS, int(trials.seeds[r])).confidence_set()


def wild(trials: Trials, value: float) -> np.ndarray:
    """`wild_score`, trial by trial."""
    return np.array(
        [wild_score(trials.rows(r), beta0=value, draws=499).pvalue <= SIZE for r in range(len(trials.x))]
    )
