"""Spark keeps the contract of engines, moves nothing but cells, and says in one line what failed."""

from __future__ import annotations

import itertools
import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError
from tests.moments.engine_contract import EngineContract
from tests.moments.engines import table_of
from tests.moments.helpers import design, people

pytest.importorskip("pyspark", reason="the extra 'spark' is not installed")
pytest.importorskip("pyarrow")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java 17 or newer", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2]").appName("msmmiv tests")
        .config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "3")
        .config("spark.sql.session.timeZone", "UTC").getOrCreate()
    )  # fmt: skip
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture
def framed(spark, tmp_path):
    """An Arrow table as a Spark frame that reads three files: most rows, none, and the rest."""
    import pyarrow.parquet as pq

    made = itertools.count()

    def frame(table):
        folder, cut = tmp_path / f"rows{next(made)}", 9 * table.num_rows // 10
        folder.mkdir()
        for name, part in (("a", table[:cut]), ("b", table[:0]), ("c", table[cut:])):
            pq.write_table(part, folder / f"{name}.parquet")
        return spark.read.parquet(str(folder))

    return frame


class TestSpark(EngineContract):
    """What all engines do, in one session of Spark."""


def test_instants_are_those_of_utc_in_any_session(spark):
    """Where clocks are set back an hour comes twice: in the session's zone two sites would be one."""
    from pyspark.sql import functions

    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        frame = spark.createDataFrame(people(5)[["s", "t", "m", "y"]])
        hour = functions.make_dt_interval(functions.lit(0), functions.col("s").cast("int"))
        frame = frame.withColumn("s", functions.to_timestamp(functions.lit("2024-11-02 23:30:00")) + hour)
        for far in (0.0, 1e9):
            away = frame.withColumn("y", functions.col("y") + far * functions.hour("s"))
            got = mm.Moments.from_data(away, design())
            assert got.sites == tuple(f"2024-11-03 {3 + k:02d}:30:00" for k in range(got.n_sites))
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")


def test_a_name_that_is_there_twice(spark):
    from pyspark.sql import functions

    frame = spark.createDataFrame(people(5)[["s", "t", "m", "y", "x"]])
    with pytest.raises(ColumnError, match="'y' is the name of more than one column"):
        mm.Moments.from_data(frame.select("*", functions.lit(1.0).alias("y")), design())
    twice = frame.select("*", functions.lit(1.0).alias("x"))
    assert mm.Moments.from_data(twice, design()).equals(mm.Moments.from_data(people(5), design()))


@pytest.mark.parametrize("name", ["a.b", "a`b", "a b"])
def test_names_that_spark_reads_in_another_way_are_one_line(spark, name):
    frame = spark.createDataFrame(people(5)[["s", "t", "m", "y"]]).withColumnRenamed("s", name)
    try:
        got = mm.Moments.from_data(frame, mm.Design(outcome="y", treatment="t", mediators="m", site=name))
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - some names are read
    else:
        assert got.sites == mm.Moments.from_data(people(5), design()).sites


def test_names_that_differ_by_case(spark):
    from pyspark.sql import functions

    frame = spark.createDataFrame(people(5)[["s", "t", "m", "y"]]).select("*", functions.lit(1).alias("S"))
    with pytest.raises(ColumnError, match="'s' is the name of more than one column"):
        mm.Moments.from_data(frame, design())


def test_the_plan_moves_cells_only(framed, monkeypatch):
    """Whatever is collected is an aggregate: every scan of rows lies below one, and few rows come out."""
    from pyspark.sql.classic.dataframe import DataFrame

    plans, inner = [], DataFrame.toPandas

    def noted(self):
        out = inner(self)
        plans.append((self._jdf.queryExecution().executedPlan().toString(), len(out)))
        return out

    monkeypatch.setattr(DataFrame, "toPandas", noted)
    study = mm.Study(framed(table_of(people(9, n=4000, sites=4))), design(covariates=["x"]))
    study.fit("2sls", cov_type="HC2")
    assert len(plans) >= 3
    for plan, rows in plans:
        assert "HashAggregate" in plan
        assert plan.index("HashAggregate") < plan.index("Scan")
        assert rows <= study.moments.n_cells == 8


def test_a_task_that_fails_is_one_clear_error(spark):
    from pyspark.sql.functions import udf
    from pyspark.sql.types import DoubleType

    def broken(value):
        raise ValueError("the disk of this executor is gone")

    frame = spark.createDataFrame(people(5)[["s", "t", "m", "y"]])
    frame = frame.withColumn("y", udf(broken, DoubleType())("y"))
    said = r"^Could not read the pyspark frame: .*the disk of this executor is gone"
    with pytest.raises(DataError, match=said) as caught:
        mm.Moments.from_data(frame, design())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_example_for_a_cluster_runs(spark, monkeypatch, capsys):
    """In this session, which it would otherwise end."""
    example = Path(__file__).resolve().parents[2] / "examples" / "spark_moments.py"
    monkeypatch.setattr(type(spark), "stop", lambda _: None)
    monkeypatch.setattr("sys.argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    said = capsys.readouterr().out
    assert "40 cells of 2,032 people came to the driver" in said
    assert "ujive" in said.lower()
