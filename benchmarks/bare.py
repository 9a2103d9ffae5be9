"""The sums behind the moments as an expert would write them by hand in each engine: no checks, nothing about missing.

Two steps everywhere, as in the package: means of the columns, then one group-by of counts, sums and products of the
centred columns. Each engine is a pair of functions: ``held(path)`` brings Parquet files (a glob) to where the engine
wants them, ``bare(held)`` is the query.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pandas as pd

KEYS = ["site", "t"]
VALUES = ["y", "m1", "m2"]
PAIRS = list(combinations_with_replacement(VALUES, 2))


def in_sql(run: Callable[[str], pd.DataFrame], table: str) -> pd.DataFrame:
    """The two statements that every SQL engine understands; ``run`` gives a frame of pandas."""
    means = run(f"SELECT {', '.join(f'avg({v}) AS {v}' for v in VALUES)} FROM {table}").iloc[0]  # noqa: S608
    c = {v: f"({v} - {float(means[v])!r})" for v in VALUES}
    sums = [f"sum({c[v]}) AS {v}" for v in VALUES]
    sums += [f"sum({c[a]} * {c[b]}) AS {a}_{b}" for a, b in PAIRS]
    return run(f"SELECT site, t, count(*) AS n, {', '.join(sums)} FROM {table} GROUP BY site, t")  # noqa: S608


def pandas_held(path: str) -> Any:
    import duckdb

    return duckdb.read_parquet(path).df()


def pandas_bare(df: Any) -> pd.DataFrame:
    c = df[VALUES] - df[VALUES].mean()
    products = {f"{a}_{b}": c[a] * c[b] for a, b in PAIRS}
    # One integer key in the place of two, where pandas is quicker; ours takes labels of any kind.
    wide = pd.DataFrame({v: c[v] for v in VALUES} | products, copy=False)
    code = 2 * df["site"].to_numpy() + df["t"].to_numpy()
    groups = wide.groupby(code, sort=False)
    got = groups.sum().assign(n=groups.size())
    return got.assign(site=got.index // 2, t=got.index % 2).reset_index(drop=True)


def polars_held(path: str) -> Any:
    import polars as pl

    return pl.read_parquet(path)


def polars_bare(df: Any) -> pd.DataFrame:
    import polars as pl

    lazy = df.lazy()
    means = lazy.select(pl.col(v).mean() for v in VALUES).collect().row(0, named=True)
    c = {v: pl.col(v) - means[v] for v in VALUES}
    sums = [c[v].sum().alias(v) for v in VALUES] + [(c[a] * c[b]).sum().alias(f"{a}_{b}") for a, b in PAIRS]
    return lazy.group_by(KEYS).agg(pl.len().alias("n"), *sums).collect().to_pandas()


def polars_lazy_held(path: str) -> Any:
    import polars as pl

    return pl.scan_parquet(path)


def pyarrow_held(path: str) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(str(Path(path).parent))


def pyarrow_bare(table: Any) -> pd.DataFrame:
    import pyarrow.compute as pc

    c = {v: pc.subtract(table[v], pc.mean(table[v])) for v in VALUES}
    wide = table.select(KEYS)
    for name, column in [*c.items(), *((f"{a}_{b}", pc.multiply(c[a], c[b])) for a, b in PAIRS)]:
        wide = wide.append_column(name, column)
    sums = [(name, "sum") for name in wide.column_names if name not in KEYS]
    got = wide.group_by(KEYS).aggregate([([], "count_all"), *sums]).to_pandas()
    return got.rename(columns={f"{name}_sum": name for name, _ in sums} | {"count_all": "n"})


def duckdb_held(path: str) -> Any:
    import duckdb

    connection = duckdb.connect()
    connection.execute("CREATE TABLE trial AS SELECT * FROM read_parquet(?)", [path])
    return connection.table("trial")


def duckdb_bare(relation: Any) -> pd.DataFrame:
    return in_sql(lambda sql: relation.query("trial", sql).df(), "trial")


def parquet_held(path: str) -> Any:
    return path


def parquet_bare(path: str) -> pd.DataFrame:
    import duckdb

    with duckdb.connect() as connection:
        return in_sql(lambda sql: connection.sql(sql).df(), f"read_parquet('{path}')")


def ibis_held(path: str) -> Any:
    import ibis

    connection = ibis.duckdb.connect()
    return connection.create_table("trial", connection.read_parquet(path))


def ibis_bare(table: Any) -> pd.DataFrame:
    means = table.aggregate(**{v: table[v].mean() for v in VALUES}).execute().iloc[0]
    c = {v: table[v] - float(means[v]) for v in VALUES}
    sums = {v: c[v].sum() for v in VALUES} | {f"{a}_{b}": (c[a] * c[b]).sum() for a, b in PAIRS}
    return table.group_by(KEYS).aggregate(n=table.count(), **sums).execute()


def dask_held(path: str) -> Any:
    import dask.dataframe as dd

    return dd.from_pandas(pandas_held(path), npartitions=8)


def dask_bare(df: Any) -> pd.DataFrame:
    means = df[VALUES].mean().compute()
    c = {v: df[v] - means[v] for v in VALUES}
    wide = df[KEYS].assign(n=1, **c, **{f"{a}_{b}": c[a] * c[b] for a, b in PAIRS})
    return wide.groupby(KEYS).sum().compute().reset_index()


def spark_held(path: str) -> Any:
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[*]").config("spark.ui.enabled", "false")
    session = session.config("spark.sql.shuffle.partitions", "8").config("spark.driver.memory", "4g")
    return session.getOrCreate().read.parquet(path)


def spark_bare(df: Any) -> pd.DataFrame:
    df.createOrReplaceTempView("trial")
    return in_sql(lambda sql: df.sparkSession.sql(sql).toPandas(), "trial")


#: Name of an engine: what it needs, where the rows are, how they get there, the query.
ENGINES: dict[str, tuple[str, str, Callable[[str], Any], Callable[[Any], pd.DataFrame]]] = {
    "pandas": ("pandas", "in memory", pandas_held, pandas_bare),
    "polars": ("polars", "in memory", polars_held, polars_bare),
    "polars, lazy": ("polars", "Parquet", polars_lazy_held, polars_bare),
    "pyarrow": ("pyarrow", "in memory", pyarrow_held, pyarrow_bare),
    "DuckDB": ("duckdb", "its own table", duckdb_held, duckdb_bare),
    "DuckDB, Parquet": ("duckdb", "Parquet", parquet_held, parquet_bare),
    "ibis (DuckDB)": ("ibis", "its own table", ibis_held, ibis_bare),
    "Dask": ("dask", "in memory, 8 partitions", dask_held, dask_bare),
    "PySpark": ("pyspark", "Parquet", spark_held, spark_bare),
}


def installed(engine: str) -> bool:
    """Whether the engine can be asked here."""
    return importlib.util.find_spec(ENGINES[engine][0]) is not None
