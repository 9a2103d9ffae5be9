"""What docs/validation.md says about the recommended intervals, held against the committed tables."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.validation import classes, sizes, study
from tests.validation.design import Cell

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Cells that were simulated."""
    every = pd.read_csv(study.DOCS / "recommended.csv")
    return every[every["replications"] > 0]


def test_the_tables_are_complete() -> None:
    cells = [Cell(**row) for row in rows("recommended", study.grid())]
    assert cells == study.grid()
    assert [cell.feasible for cell in cells] == read("recommended")["feasible"].tolist()
    assert rows("clusters", classes.grid()) == [vars(cell) for cell in classes.grid()]
    tested = read("tests").drop_duplicates(list(vars(sizes.grid()[0])))
    assert len(tested) == len(sizes.grid())


def test_enough_replications(table: pd.DataFrame) -> None:
    assert (table["replications"] >= 1000).all()
    assert (read("clusters")["replications"] >= 1000).all()


def test_no_cell_covers_too_little(table: pd.DataFrame) -> None:
    assert table["coverage"].min() >= 0.93


def test_coverage_is_above_the_goal_only_with_few_sites_or_weak_instruments(table: pd.DataFrame) -> None:
    above = table[table["coverage"] > 0.97]
    assert 0.70 < 1.0 - len(above) / len(table) < 0.85
    assert above.query("sites > 12 and mean_f > 5").empty
    assert above.query("sites > 20")["coverage"].max() <= 0.976
    assert above.query("sites > 20 and mean_f > 2").shape[0] <= 2
    # Two mediators and five sites: three degrees of freedom.
    assert table.loc[table["coverage"].idxmax(), ["sites", "mediators"]].tolist() == [5, 2]


def test_wide_sets_are_honest_about_weak_instruments(table: pd.DataFrame) -> None:
    weak = table.query("mean_f == 2 and sites <= 12")
    assert weak["unbounded"].min() > 0.5
    assert table.query("mean_f == 50 and sites >= 8")["unbounded"].max() < 0.03


def test_ujive_has_little_bias_and_2sls_has_a_lot(table: pd.DataFrame) -> None:
    part = table.query("errors in ['gaussian', 'skewed'] and mediators == 1 and sites >= 12 and mean_f >= 5")
    assert part["bias_m1"].abs().max() < 0.03
    assert part.query("mean_f == 5")["bias_2sls_m1"].min() > 0.1


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(study.DOCS / f"{name}.csv")


def rows(name, cells):
    return read(name)[list(vars(cells[0]))].to_dict("records")
