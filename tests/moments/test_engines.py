"""Engines of this process keep the contract of engines, and say what went wrong in one line."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError
from msmmiv.moments import frames
from tests.moments.engine_contract import EngineContract
from tests.moments.engines import LOCAL, in_engine, table_of
from tests.moments.helpers import design, people


class TestLocalEngines(EngineContract):
    @pytest.fixture(params=LOCAL)
    def framed(self, request):
        return functools.partial(in_engine, engine=str(request.param))


def test_unsorted_skewed_and_empty_partitions():
    dd = pytest.importorskip("dask.dataframe")
    df = people(4, n=400, sites=4)
    order = np.random.default_rng(0).permutation(len(df))
    parts = [df.iloc[order[:350]], df.iloc[:0], df.iloc[order[350:351]], df.iloc[order[351:]]]
    frame = dd.concat([dd.from_pandas(p, npartitions=1) for p in parts])
    assert frame.npartitions >= 3
    d = design(covariates=["x"])
    want, got = mm.Study(df, d), mm.Study(frame, d)
    assert got.moments.equals(want.moments)
    np.testing.assert_allclose(
        got.fit("2sls", cov_type="HC3").cov, want.fit("2sls", cov_type="HC3").cov, rtol=1e-10
    )


def test_what_an_engine_says_is_one_line(tmp_path):
    pl = pytest.importorskip("polars")
    pl.from_pandas(people(5)).write_parquet(tmp_path / "rows.parquet")
    frame = pl.scan_parquet(tmp_path / "rows.parquet")
    assert mm.Moments.from_data(frame, design()).n_cells == 10
    whole = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^Could not read the polars frame: ") as caught:
        mm.Moments.from_data(pl.scan_parquet(tmp_path / "rows.parquet"), design())
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("wrong", ["column", "cast", "gone"])
def test_a_lazy_frame_with_a_mistake_in_it_is_one_line(wrong, tmp_path):
    pl = pytest.importorskip("polars")
    df = pl.from_pandas(people(5))
    if wrong == "gone":
        df.write_parquet(tmp_path / "rows.parquet")
        frame = pl.scan_parquet(tmp_path / "rows.parquet")
        (tmp_path / "rows.parquet").unlink()
    elif wrong == "column":
        frame = df.lazy().with_columns(pl.col("nope"))
    else:
        frame = df.lazy().with_columns(m=pl.lit("x").cast(pl.Float64))
    with pytest.raises(DataError, match=r"^Could not read the polars frame: ") as caught:
        mm.Moments.from_data(frame, design())
    assert "\n" not in str(caught.value)


def test_categories_that_dask_does_not_know_yet_are_what_they_hold():
    pytest.importorskip("dask.dataframe")
    df = people(5)
    frame = in_engine(table_of(df), "dask")
    frame = frame.assign(s=frame["s"].astype("category"), t=frame["t"].astype("category"))
    assert not frame["s"].cat.known
    assert mm.Moments.from_data(frame, design()).equals(mm.Moments.from_data(df, design()))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris"])
def test_categories_of_instants(zone):
    dd = pytest.importorskip("dask.dataframe")
    df = people(5)
    times = pd.Timestamp("2024-03-30 22:30", tz=zone) + pd.to_timedelta(df["s"], unit="h")
    df = df.assign(s=pd.Categorical(times))
    want = mm.Moments.from_data(df, design())
    assert mm.Moments.from_data(dd.from_pandas(df, npartitions=2), design()).equals(want)


def test_instants_of_a_zone_on_dask():
    dd = pytest.importorskip("dask.dataframe")
    df = people(5)
    times = pd.Timestamp("2024-03-30 22:30", tz="America/New_York") + pd.to_timedelta(df["s"], unit="h")
    df = df.assign(s=times)
    want = mm.Moments.from_data(df, design())
    assert want.sites[0] == "2024-03-31 02:30:00"
    for kind in ("us", "ns"):
        frame = dd.from_pandas(df.assign(s=times.dt.as_unit(kind)), npartitions=2)
        assert mm.Moments.from_data(frame, design()).sites == want.sites


def test_frames_of_narwhals_are_what_they_hold():
    nw = pytest.importorskip("narwhals")
    df = people(5)
    df = df.assign(s=pd.Categorical(df["s"]))
    assert mm.Moments.from_data(nw.from_native(df), design()).equals(mm.Moments.from_data(df, design()))


def test_a_duckdb_relation_with_a_name_twice():
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.connect().from_df(people(5)).query("q", "SELECT s, t, m, y, s + 100 AS s FROM q")
    with pytest.raises(ColumnError, match="'s' is the name of more than one column"):
        mm.Moments.from_data(relation, design())


@pytest.mark.parametrize("engine", ["pyarrow", "dask"])
def test_a_name_that_is_there_twice(engine):
    pa = pytest.importorskip("pyarrow")
    df = people(5)

    def twice(name):
        if engine == "dask":
            return in_engine(table_of(df), "dask").map_partitions(lambda d: pd.concat([d, d[[name]]], axis=1))
        table = table_of(df)
        return pa.Table.from_arrays([*table.columns, table[name]], names=[*table.column_names, name])

    with pytest.raises(ColumnError, match="'y' is the name of more than one column"):
        mm.Moments.from_data(twice("y"), design())
    assert mm.Moments.from_data(twice("x"), design()).equals(mm.Moments.from_data(df, design()))


def test_mistakes_of_ours_are_not_blamed_on_the_data():
    with pytest.raises(ZeroDivisionError), frames.reading("the frame"):
        1 / 0  # noqa: B018


def test_a_package_that_is_not_installed_is_named():
    with (
        pytest.raises(mm.errors.MissingExtraError, match="pip install pyreadstat"),
        frames.reading("'a.sav'"),
    ):
        raise ModuleNotFoundError("no", name="pyreadstat")


def test_frames_of_other_engines_are_named():
    nw = pytest.importorskip("narwhals.stable.v2")
    sf = pytest.importorskip("sqlframe.duckdb", reason="sqlframe is not installed")
    assert nw is not None
    frame = sf.DuckDBSession().createDataFrame(people(2))
    with pytest.raises(DataError, match="Frames of sqlframe are not supported, but those of pandas"):
        mm.Moments.from_data(frame, design())
