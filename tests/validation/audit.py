"""What a whole audit says of trials that violate one assumption, and of clean ones: docs/validation/audit.csv.

Every trial is audited as a user would: from persons, with pre-treatment covariates, and with one site covariate. A cell
gives the share of trials in which each finding is "contradicted".
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import msmmiv as mm
from msmmiv.plan.simulate import simulate
from tests.validation.study import Row

TRIALS = 100
DRAWS = 199
SITES = (20, 60)
PEOPLE = 80
NINE = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")

#: Violation, variant, and what else the trial has.
CASES: tuple[tuple[str | None, str | None, dict[str, Any]], ...] = (
    (None, None, {}),
    (None, None, {"mediators": 2}),
    (None, None, {"binary": True}),
    ("i", "share", {}),
    ("i", "peers", {}),
    ("ii", "constant", {}),
    ("ii", "constant", {"mediators": 2}),
    ("iii", "saturation", {}),
    ("iv", "quadratic", {}),
    ("iv", "interaction", {"mediators": 2}),
    ("v", "cascade", {}),
    ("vi", "assignment", {}),
    ("vi", "attrition", {}),
    ("vi", "unmeasured", {}),
    ("vii.a", "covariate", {}),
    ("vii.b", "everywhere", {}),
    ("vii.b", "sites", {}),
    ("viii", "proportional", {}),
    ("ix", "compliance", {}),
    ("ix", "covariate", {}),
    ("ix", "size", {}),
    ("ix", "cross", {}),
    ("ii", "constant", {"binary": True}),
)


@dataclass(frozen=True)
class AuditCell:
    """One kind of trial."""

    violation: str
    variant: str
    mediators: int
    binary: bool
    sites: int


def grid() -> list[AuditCell]:
    """Every cell."""
    out = []
    for (violation, variant, more), sites in itertools.product(CASES, SITES):
        two = violation in ("v", "viii") or variant == "cross" or more.get("mediators") == 2
        binary = violation == "vii.b" or bool(more.get("binary"))
        out.append(AuditCell(violation or "none", variant or "", 2 if two else 1, binary, sites))
    return out


def simulate_cell(cell: AuditCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Shares of every status, a row per assumption."""
    # Trials and draws have seeds of their own.
    seeds = seed.generate_state(2 * trials).reshape(trials, 2)
    said = [statuses(cell, int(data), int(draws)) for data, draws in seeds]
    rows = []
    for number in NINE:
        counts = Counter(one[number] for one in said)
        share = counts["contradicted"] / trials
        rows.append(vars(cell) | {
            "finding": number, "contradicted": share,
            "contradicted_se": float(np.sqrt(share * (1.0 - share) / trials)),
            "not_assessed": counts["not assessed"] / trials, "replications": trials,
        })  # fmt: skip
    return rows


def statuses(cell: AuditCell, seed: int, draws_seed: int) -> dict[str, str]:
    """Status of every finding in one trial."""
    options: dict[str, Any] = {
        "mediators": cell.mediators,
        "sites": cell.sites,
        "people": PEOPLE,
        "seed": seed,
    }
    if cell.binary:
        options["binary"] = True
    violation: Any = None if cell.violation == "none" else cell.violation
    trial = simulate(violation, variant=cell.variant or None, **options)
    sites = trial.frame.groupby("site")[["z"]].mean()
    # Persons with 0/1 mediators are audited for complier effects, whose assumption (vii) is that there are no defiers.
    design = replace(trial.design, estimand="late") if cell.binary else trial.design
    study = mm.Study(trial.frame, design)
    audit = study.audit(site_covariates=sites, draws=DRAWS, seed=draws_seed)
    return {number: audit[number].status for number in NINE}
