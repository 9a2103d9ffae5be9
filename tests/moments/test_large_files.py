"""Files larger than memory: the limit is kept, what does not fit is spilled, and nothing stays behind."""

from __future__ import annotations

import os
import tempfile
import threading

import duckdb
import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, DataError
from msmmiv.moments import row_files as files
from msmmiv.moments.data_file import DataFile
from msmmiv.moments.opening import open_rows
from tests.moments.helpers import design, people

#: 1.2 million rows of 20 columns: 190 MB of numbers that do not compress.
COLUMNS = ", ".join(f"random() x{k}" for k in range(16))
WIDE = f"SELECT range % 40 s, (range // 40) % 2 t, random() m, random() y, {COLUMNS} FROM range(1200000)"  # noqa: S608 - names of ours
#: 600,000 cells, whose sums are more than the limit below.
CELLS = "SELECT range % 20 s, range % 2 t, range // 2 c, random() m, random() y FROM range(600000)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The system's folder for temporary files, with nobody else in it."""
    path = tmp_path / "spill"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def written(query, path):
    with duckdb.connect() as connection:
        connection.execute(f"SELECT setseed(0.5); COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return written(WIDE, tmp_path_factory.mktemp("wide") / "wide.parquet")


def test_every_pass_streams(wide, folder, monkeypatch):
    """A tenth of the file's size is enough, also for residuals of rows, and nothing is spilled for it."""
    assert os.path.getsize(wide) > 150e6  # noqa: PTH202
    settings = []
    connected = files._connected

    def spied(data):
        connection = connected(data)
        settings.append(
            connection.sql("SELECT current_setting('memory_limit'), current_setting('temp_directory')")
        )
        return connection

    monkeypatch.setattr(files, "_connected", spied)
    covariates = [f"x{k}" for k in range(3)]
    d = design(covariates=covariates)
    study = mm.Study(DataFile((str(wide),), memory_limit="64MB"), d)
    (limit, where) = settings[0].fetchall()[0]
    assert limit.startswith("61.0 MiB")
    assert where.startswith(str(folder))
    # Not DuckDB, so that nothing which it leaves out can be left out of both.
    rows = pd.read_parquet(wide, columns=["s", "t", "m", "y", *covariates])
    got, want = (s.fit("2sls", cov_type="HC3") for s in (study, mm.Study(rows, d)))
    np.testing.assert_allclose(got.cov, want.cov, rtol=1e-10)
    np.testing.assert_allclose(got.params, want.params, rtol=1e-10)
    assert study.source == "wide.parquet"
    assert list(folder.iterdir()) == []


def test_what_does_not_fit_is_spilled_and_taken_away(folder, tmp_path):
    path = written(CELLS, tmp_path / "cells.parquet")
    d = design(cluster="c")
    want = open_rows(path, d, missing="error").cell_sums()
    seen, over = [], threading.Event()

    def look():
        while not over.wait(0.005):
            seen.extend(p.name for p in folder.rglob("*"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        got = open_rows(DataFile((str(path),), memory_limit="60MB"), d, missing="error").cell_sums()
    finally:
        over.set()
        thread.join()
    assert seen
    order, other = (np.lexsort(v.keys.to_numpy().T) for v in (got, want))
    assert len(order) == 600_000
    np.testing.assert_array_equal(got.keys.to_numpy()[order], want.keys.to_numpy()[other])
    np.testing.assert_allclose(got.mean[order], want.mean[other], rtol=1e-12)
    del got
    assert list(folder.iterdir()) == []


def test_too_little_memory_is_said_with_the_remedy(wide):
    with pytest.raises(
        DataError, match=r"Out of Memory.*Allow more with memory_limit=\.\.\., or declare fewer"
    ):
        mm.Moments.from_data(DataFile((str(wide),), memory_limit="1MB"), design(covariates=["x1"]))


@pytest.mark.parametrize("size", ["4 elephants", "", "-1GB", "4", "80%"])
def test_a_limit_is_a_size(size):
    with pytest.raises(ChoiceError, match="must be a size such as '4GB'"):
        DataFile(("a.csv",), memory_limit=size)


def test_files_that_are_read_as_a_whole_keep_no_limit(tmp_path):
    people(1).to_stata(tmp_path / "a.dta")
    with pytest.raises(
        DataError, match=r"memory_limit='1GB' is about CSV and Parquet.*is Stata and is read as a"
    ):
        mm.Moments.from_data(DataFile((str(tmp_path / "a.dta"),), memory_limit="1GB"), design())


def test_the_types_of_a_csv_file_are_looked_for_once(tmp_path, monkeypatch):
    """A type is decided by all rows, in one look: the engine would otherwise read the file before every query."""
    df = people(5, n=24_000)  # more than the engine looks at of its own accord
    df["site_name"] = "1"
    df.loc[df.index[-1], "site_name"] = "one"  # text in the last row only
    path = tmp_path / "a.csv"
    df.to_csv(path, index=False)
    asked = []
    read = files._read

    def spied(connection, reader, found, options):
        asked.append(options)
        return read(connection, reader, found, options)

    monkeypatch.setattr(files, "_read", spied)
    d = design(covariates=["x"])
    assert mm.Moments.from_data(path, d).equals(mm.Moments.from_data(df, d))
    assert [("sample_size" in o, "types" in o) for o in asked[1:]] == [(True, False), (False, True)]
    block = design(block="site_name")
    assert set(mm.Moments.from_data(path, block).blocks) == set(mm.Moments.from_data(df, block).blocks)


def test_a_notebook_without_the_package_for_bars_reads_all_the_same(tmp_path, monkeypatch):
    """DuckDB refuses the setting there; elsewhere the bar knows how far the query is."""
    df = people(5)
    df.to_csv(tmp_path / "a.csv", index=False)
    assert open_rows(tmp_path / "a.csv", design(), missing="error").passes.percent is not None

    class Refusing:
        def __init__(self, inner):
            self._inner = inner

        def execute(self, query):
            raise duckdb.InvalidInputException(f"Could not change the progress bar setting: {query}")

        def __getattr__(self, name):
            return getattr(self._inner, name)

    connected = files._connected
    monkeypatch.setattr(files, "_connected", lambda data: Refusing(connected(data)))
    rows = open_rows(tmp_path / "a.csv", design(), missing="error")
    assert rows.passes.percent is None
    assert mm.Moments.from_rows(rows).equals(mm.Moments.from_data(df, design()))
