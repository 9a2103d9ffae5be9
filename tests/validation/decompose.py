"""How often the tests and sets of a decomposition are right outside Fu's design: docs/validation/decompose.csv.

Kinds of cells: the slope in departures from the design of Fu (2023); effects that follow from the slope; two
mediators; and arms that share controls.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from tests.validation.between_tests import SIZE, bces, calibrated, check, eb_t, ols, rlr_f, simex_default
from tests.validation.between_trials import ALONG, DESIGNS, GAMMA, Population
from tests.validation.decompose_effects import ARMS, effects, shared_controls, two_mediators
from tests.validation.study import Row
from tests.validation.table1 import DEFAULT, rates

#: Replications of the slope with up to 30 sites; the others are shares of it.
TRIALS = 1000
#: Trials that go through the package's own classes too.
CHECKED = 2
SITES = (5, 10, 30, 100)


@dataclass(frozen=True)
class DecomposeCell:
    """``kind``: "slope", "effects", "two mediators" or "shared controls"."""

    kind: str
    design: str
    sites: int
    beta: float


def grid() -> list[DecomposeCell]:
    """Every cell."""
    betas = (0.0, 2.0)
    slopes = itertools.product(["slope"], DESIGNS[1:], SITES, betas)
    more = itertools.product(["effects"], ["Fu"], (5, 10, 30), betas)
    two = itertools.product(["two mediators"], ["Fu, two mediators"], (10, 20, 50), (2.0,))
    arms = (("shared controls", design, sites, beta) for design, sites in ARMS for beta in betas)
    return [DecomposeCell(*values) for values in itertools.chain(slopes, more, two, arms)]


def simulate(cell: DecomposeCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Rows of one cell."""
    rng = np.random.default_rng(seed)
    if cell.kind == "slope":
        found = slopes(cell, rng, trials)
    elif cell.kind == "effects":
        found = effects(rng, cell.sites, cell.beta, max(trials // 6, 2))
    elif cell.kind == "two mediators":
        found = two_mediators(rng, cell.sites, max(trials // 4, 2))
    else:
        found = shared_controls(rng, cell.design, cell.beta, max(trials * 3 // 10, 2))
    return [vars(cell) | row for row in found]


def targets(cell: DecomposeCell) -> dict[str, float]:
    """What a set may be meant to hold.

    Where effects rise with compliance, beta_k = beta + .3 (gamma_k - 2), itt is a parabola in compliance. The slope
    of its best line is beta + .3 x 2 = beta + .6 (normal compliance): that is what every method estimates, and not
    the average effect, which is beta.
    """
    if cell.design == "effects rise with compliance":
        return {"average effect": cell.beta, "slope of the best line": cell.beta + ALONG * GAMMA}
    return {"effect": cell.beta}


def slopes(cell: DecomposeCell, rng: np.random.Generator, trials: int) -> list[Row]:
    """Rejections of zero, and coverage of each target."""
    trials = trials if cell.sites <= 30 else max(trials * 2 // 5, 2)
    drawn = Population.draw(rng, (trials, cell.sites), cell.design).trials(rng, cell.beta)
    check(drawn, CHECKED)
    some = drawn.take(slice(0, max(trials * 3 // 10, 2)))
    intervals = {"least squares": ols(drawn), "SIMEX()": simex_default(drawn, rng), "BCES, t": bces(drawn)}
    tests = {
        DEFAULT: (drawn, lambda t, v: calibrated(t, v) <= SIZE),
        "EB score, t": (drawn, eb_t),
        "RLR, F": (some, rlr_f),
    }
    found = []
    known: dict[tuple[str, float], np.ndarray] = {}
    for name, (used, test) in tests.items():
        for value in {0.0, *targets(cell).values()}:
            known[name, value] = test(used, value)
    for (name, interval), value in itertools.product(intervals.items(), {0.0, *targets(cell).values()}):
        known[name, value] = interval.rejects(value)
    for name, (what, value) in itertools.product([*tests, *intervals], targets(cell).items()):
        row = {"method": name, "quantity": what, **rates(known[name, 0.0], known[name, value])}
        if name in intervals:
            row["no_result"] = float(intervals[name].none.mean())
        found.append(row)
    return found
