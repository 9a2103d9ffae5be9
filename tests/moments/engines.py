"""The same rows in the frame of every engine, and trials whose columns are of awkward types."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from tests.moments.helpers import people

#: Engines whose frames live in this process; Spark has tests of its own, in one session.
LOCAL = ("polars", "polars lazy", "pyarrow", "duckdb", "ibis", "dask")

Values = Callable[[Any], list[Any]]


def table_of(frame: pd.DataFrame, columns: dict[str, tuple[Values, str]] | None = None) -> Any:
    """An Arrow table of rows, some columns made anew with a type of their own."""
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for name, (values, kind) in (columns or {}).items():
        guess = kind in ("guess", "dictionary of values")
        made = pa.array(values(frame[name]), None if guess else kind_of(kind), from_pandas=False)
        made = made.dictionary_encode() if kind.startswith("dictionary") else made
        table = table.set_column(table.schema.get_field_index(name), name, made)
    return table


def kind_of(kind: str) -> Any:
    pa = pytest.importorskip("pyarrow")
    if kind == "dictionary":
        return pa.string()
    if kind.startswith("decimal"):
        return pa.decimal128(12, 3 if kind == "decimal" else 0)
    return getattr(pa, kind)()


def in_engine(table: Any, engine: str, *, pieces: int = 3) -> Any:
    """An Arrow table as a frame of an engine."""
    pandas = table.to_pandas()
    if engine == "pyarrow":
        return table
    if engine.startswith("polars"):
        polars = pytest.importorskip("polars")
        frame = polars.from_arrow(table)
        return frame.lazy() if engine == "polars lazy" else frame
    if engine == "duckdb":
        return pytest.importorskip("duckdb").connect().from_arrow(table)
    if engine == "ibis":
        pytest.importorskip("pyarrow_hotfix", reason="ibis with DuckDB is not installed")
        return pytest.importorskip("ibis").memtable(table)
    if engine == "dask":
        pa = pytest.importorskip("pyarrow")
        # Objects would become text: decimals stay Arrow's, as when Dask reads Parquet.
        kinds = table.to_pandas(types_mapper=lambda k: pd.ArrowDtype(k) if pa.types.is_decimal(k) else None)
        return pytest.importorskip("dask.dataframe").from_pandas(kinds, npartitions=pieces)
    if engine == "pandas":
        return pandas
    raise AssertionError(f"no engine {engine}")


def gaps(values: Any) -> list[Any]:
    """Null, NaN and both infinities here and there."""
    odd = {0: None, 1: float("nan"), 2: float("inf"), 3: -float("inf")}
    return [odd.get(i % 31, float(v)) for i, v in enumerate(values)]


def _day(v: Any) -> dt.datetime:
    return dt.datetime.fromisoformat(f"2024-02-{1 + int(v):02}")


#: Columns that engines hold in different ways: new values and their Arrow type.
AWKWARD: dict[str, dict[str, tuple[Values, str]]] = {
    "null, NaN and infinity": {"y": (gaps, "float64"), "m": (lambda v: gaps(v[::-1]), "float64")},
    "categories": {"s": (lambda v: [f"s{x}" for x in v], "dictionary")},
    "categories of numbers": {"s": (list, "dictionary of values"), "t": (list, "dictionary of values")},
    "categories of yes and no": {"t": (lambda v: [bool(x) for x in v], "dictionary of values")},
    "categories of times": {"s": (lambda v: [_day(x) for x in v], "dictionary of values")},
    "zero with two signs": {
        "s": (lambda v: [-0.0 if x == 0 and i % 2 else float(x) for i, x in enumerate(v)], "float64")
    },
    "text": {"s": (lambda v: [f"s{x}" for x in v], "string")},
    "large text": {"s": (lambda v: [f"s{x}" for x in v], "large_string")},
    "booleans": {"m": (lambda v: [bool(x > 0) for x in v], "bool_"), "t": (lambda v: [bool(x) for x in v], "bool_")},
    "decimals": {"y": (lambda v: [decimal.Decimal(f"{x:.3f}") for x in v], "decimal")},
    "decimal labels": {"s": (lambda v: [decimal.Decimal(int(x)) for x in v], "decimal whole")},
    "times": {"s": (lambda v: [_day(x).replace(hour=8, minute=30) for x in v], "guess")},
    "times of a zone": {"s": (lambda v: [_day(x).replace(hour=8, tzinfo=dt.UTC) for x in v], "guess")},
    "midnights": {"s": (lambda v: [_day(x) for x in v], "guess")},
    "days": {"s": (lambda v: [_day(x).date() for x in v], "date32")},
    "integers with gaps": {"y": (lambda v: [None if i % 13 == 0 else int(10 * x) for i, x in enumerate(v)], "int32")},
    "whole floats as labels": {"s": (lambda v: [float(x) for x in v], "float64")},
    "short floats": {"y": (list, "float32")},
    "small integers": {"t": (list, "int8"), "s": (list, "uint16")},
}  # fmt: skip


def awkward(name: str) -> Any:
    return table_of(people(31, mediators=2), AWKWARD[name])
