"""Moments files at the edges: given twice, small counts in the header, folders that are not there, odd columns."""

from __future__ import annotations

import json
import shutil

import duckdb
import numpy as np
import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError, MomentsFileError
from msmmiv.moments.flow import DroppedSite, SampleFlow
from tests.moments.helpers import design, people


def moments(df, **options):
    return mm.Moments.from_data(df, design(**options))


def header(path):
    return json.loads(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))


# -------------------------------------------------------------------------------------- given twice


@pytest.mark.parametrize("second", ["a.csv", "copy.csv", "a.parquet"])
def test_a_file_given_twice_is_refused(second, tmp_path):
    m = moments(people(1))
    m.save(tmp_path / "a.csv")
    m.save(tmp_path / "a.parquet")
    shutil.copy(tmp_path / "a.csv", tmp_path / "copy.csv")
    moments(people(2)).save(tmp_path / "b.csv")
    with pytest.raises(MomentsFileError, match=rf"a\.csv' and '.*{second}' hold the same moments.*twice"):
        mm.Moments.load(tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / second)
    both = mm.Moments.load(tmp_path / "a.csv", tmp_path / "b.csv", shared_sites="pool")
    assert both.n.sum() == 600


# -------------------------------------------------------------------------------------- small counts


def test_the_header_keeps_to_the_floor(tmp_path):
    df = people(3, n=600, sites=6)
    df.loc[df.index[df["s"] == 0][:3], "y"] = np.nan
    df.loc[df.index[(df["s"] == 1) & (df["t"] == 1)][:12], "m"] = np.nan
    tiny = df.index[(df["s"] == 5) & (df["t"] == 1)]
    other = df.index[(df["s"] == 4) & (df["t"] == 0)]
    m = moments(df.drop(index=[*tiny[4:], *other[3:]])).drop(3)
    path = m.save(tmp_path / "m.csv", min_cell=10, small_cells="suppress")
    flow = header(path)["flow"]
    # Without the three of y, those of m would be all but three of the fifteen.
    assert (flow["missing"], flow["missing_cells"]) == ([], [])
    assert (flow["incomplete"], flow["untold"]) == (15, ["m", "y"])
    dropped = m.flow.dropped[0]
    assert flow["dropped"] == [[3, dropped.rows, dropped.reason]]
    # Two cells of 4 and 3 rows: seven is below the floor itself, so it is not told.
    assert flow["suppressed"] == [{"source": "m", "min_cell": 10, "cells": 2, "rows": None, "sites": 2}]
    assert flow["rows_in"] == m.flow.rows_in - 7
    back = mm.Moments.load(path)
    assert back.flow.rows_used == back.n.sum()
    assert "2 cells of fewer than 10 rows left out when 'm' was written" in str(back.flow)
    assert {c.rows for c in m.flow.missing_cells} > {12}


def test_small_sites_that_were_dropped_are_added_up(tmp_path):
    df = people(4, n=600)
    rows = [df.index[df["s"] == s] for s in (3, 4)]
    m = moments(df.drop(index=[*rows[0][2:], *rows[1][5:]]))
    used = m.drop(3, 4)
    path = used.save(tmp_path / "m.csv", min_cell=10)
    assert header(path)["flow"]["dropped"] == [[None, None, "left out by request"]]
    assert header(used.save(tmp_path / "n.csv"))["flow"]["dropped"] == used.flow.to_dict()["dropped"]
    assert mm.Moments.load(path).flow.rows_used == used.flow.rows_used


def test_a_flow_names_the_sites_it_may():
    both = SampleFlow(rows_in=90).drop(DroppedSite("a", 20, "asked"), DroppedSite(None, 3, "asked"))
    assert both.to_frame()["step"].tolist()[1] == "asked (1 site: a; sites not named)"
    assert (both + both).rows_used == 134


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "5", np.nan])
def test_floors_that_are_no_size(size, tmp_path):
    with pytest.raises(DataError, match="min_cell must be a whole number of 1 or more, not"):
        moments(people(5)).save(tmp_path / "m.csv", min_cell=size)
    assert not list(tmp_path.iterdir())


def test_suppression_needs_a_size(tmp_path):
    with pytest.raises(DataError, match=r'small_cells="suppress" needs a size: min_cell=10'):
        moments(people(5)).save(tmp_path / "m.csv", small_cells="suppress")
    assert moments(people(5)).save(tmp_path / "m.csv", min_cell=np.int64(1)).exists()


# --------------------------------------------------------------------------------- places and columns


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_places_that_cannot_be_written(ending, tmp_path):
    m = moments(people(6))
    with pytest.raises(DataError, match=r"The folder '.*nowhere' does not exist. Make it first"):
        m.save(tmp_path / "nowhere" / f"m.{ending}")
    (tmp_path / f"folder.{ending}").mkdir()
    with pytest.raises(DataError, match="is a folder; give the name of a file"):
        m.save(tmp_path / f"folder.{ending}")
    with pytest.raises(DataError, match=r"Could not write '.*x+\.") as caught:
        m.save(tmp_path / f"{'x' * 300}.{ending}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "role"), [("s", "site"), ("t", "treatment"), ("b", "block"), ("c", "cluster")]
)
@pytest.mark.parametrize(
    ("value", "kind"),
    [("'a'::BLOB", "Binary"), ("[1]", "List"), ("{'a': 1}", "Struct"), ("{'a': [1]}", "Struct")],
)
def test_columns_that_cannot_be_labels(column, role, value, kind, tmp_path):
    df = people(7)
    path = tmp_path / "d.parquet"
    with duckdb.connect() as connection:
        connection.register("rows", df)
        connection.execute(f"COPY (SELECT * REPLACE ({value} AS {column}) FROM rows) TO '{path}'")  # noqa: S608 - values from above
    with pytest.raises(ColumnError, match=rf"'{column}' \({role}\) holds values of type {kind}"):
        moments(path, block="b", cluster="c")


@pytest.mark.parametrize("value", ["MAP([s], [1])", "('00000000-0000-0000-0000-00000000000' || s)::UUID"])
def test_other_columns_are_read_as_text(value, tmp_path):
    df = people(8)
    path = tmp_path / "d.parquet"
    with duckdb.connect() as connection:
        connection.register("rows", df)
        connection.execute(f"COPY (SELECT * REPLACE ({value} AS s) FROM rows) TO '{path}'")  # noqa: S608 - values from above
    m = moments(path)
    assert m.n_sites == 5
    assert all(isinstance(s, str) for s in m.sites)
    np.testing.assert_allclose(mm.fit(m, "2sls").params, mm.fit(moments(df), "2sls").params)


def test_unknown_sites_are_shown_as_they_are():
    with pytest.raises(DataError, match="No site '3'; the sites are 0, 1, 2, 3 and 4"):
        moments(people(9)).drop("3")
