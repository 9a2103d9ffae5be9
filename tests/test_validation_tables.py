"""The committed validation tables are what their code writes today: a few rows are simulated again.

The study compares every cell with `fit_by_rule` on its first trials, so these tests do it too.
"""

from __future__ import annotations

import pandas as pd
import pytest

from tests.validation import classes, study
from tests.validation.classes import ClassCell
from tests.validation.design import Cell


@pytest.mark.parametrize(
    "cell",
    [
        Cell(5, 2.0, 0.3, 1, "gaussian", 6),
        Cell(8, 10.0, 0.0, 2, "skewed", 6),
        Cell(12, 5.0, 0.3, 1, "count", 20),
    ],
    ids=str,
)
def test_recommended(cell: Cell) -> None:
    table = pd.read_csv(study.DOCS / "recommended.csv")
    again = row_again(table, study.grid(), cell, "recommended", study.recommended)
    assert again["used_score"] == pytest.approx(table_row(table, cell)["used_score"], abs=0.003)


@pytest.mark.parametrize("cell", [ClassCell(8, 20.0, 0.3, 1, 0.2, 0.6)], ids=str)
def test_clusters(cell: ClassCell) -> None:
    table = pd.read_csv(study.DOCS / "clusters.csv")
    again = row_again(table, classes.grid(), cell, "clusters", classes.coverage)
    committed = table_row(table, cell)["coverage_classes_ignored"]
    assert again["coverage_classes_ignored"] == pytest.approx(committed, abs=0.003)


@pytest.mark.parametrize("errors", ["count", "binary"])
def test_shifts_that_cannot_reach_an_f_are_said_to(errors: str) -> None:
    assert not Cell(8, 50.0, 0.0, 1, errors, 20).feasible
    assert Cell(8, 50.0, 0.0, 1, errors, 60).feasible


def table_row(table: pd.DataFrame, cell: Cell | ClassCell) -> pd.Series:
    same = pd.concat([table[name] == value for name, value in vars(cell).items()], axis=1).all(axis=1)
    assert same.sum() == 1, "one row per cell"
    return table[same].iloc[0]


def row_again(table, cells, cell, name, simulate):
    committed = table_row(table, cell)
    seed = study.seeds_of(name, len(cells))[cells.index(cell)]
    (row,) = simulate(cell, seed, int(committed["replications"]))
    # A trial on the edge may fall to the other side on another machine.
    assert row["coverage"] == pytest.approx(committed["coverage"], abs=0.003)
    assert row["unbounded"] == pytest.approx(committed["unbounded"], abs=0.003)
    return row
