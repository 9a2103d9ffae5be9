"""The only door to data engines: a frame or a file goes in, a narwhals frame comes out.

Everything behind it is written against narwhals. What an engine needs of its own is here: one column per name, and
labels that mean the same everywhere, before narwhals sees them; and how a small table is put beside its rows.
"""

from __future__ import annotations

import decimal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DataError, listing
from msmmiv.moments.data_file import DataFile
from msmmiv.moments.engine_errors import hushed, reading
from msmmiv.moments.labels import label_columns, plain_labels
from msmmiv.moments.row_files import rows_of
from msmmiv.progress import Passes

__all__ = ["Frame", "OpenFrame", "collected", "joined", "open_frame"]

Frame = Any  # nw.DataFrame or nw.LazyFrame: the verbs used behind this door are common to both


@dataclass(frozen=True)
class OpenFrame:
    """Rows as a narwhals frame, what to call them in messages, bars on passes, and whether they are still the same."""

    frame: Frame
    name: str
    passes: Passes
    unchanged: Callable[[], None] = lambda: None


def open_frame(data: Any, design: Design, *, progress: bool | None = None) -> OpenFrame:
    """A frame of the engine the data are in.

    Parameters
    ----------
    data : frame, path or DataFile
    design : Design
    progress : bool, optional
        Bars on the passes; by default on a terminal, for files.

    Raises
    ------
    DataError
        A file that cannot be read, or a frame of an engine that is not supported.
    """
    if isinstance(data, str | Path | DataFile):
        file = data if isinstance(data, DataFile) else DataFile((str(data),))
        read = rows_of(file, design, show=sys.stderr.isatty() if progress is None else progress)
        rows = nw.from_native(_plain(read.rows, design))
        return OpenFrame(rows, repr(str(file)), read.passes, read.unchanged)
    if type(data).__module__.startswith("narwhals"):
        data = data.to_native()
    with reading("the frame", engine=True):
        native = _plain(data, design)
    try:
        with hushed():
            frame: Frame = nw.from_native(native)
    except TypeError as error:
        raise DataError(
            f"Data of type {type(data).__name__} is not supported. Give a frame ({_engines()}), a file, glob or "
            "folder, or Moments."
        ) from error
    if frame.implementation not in _BESIDE:
        raise DataError(
            f"Frames of {frame.implementation.name.lower()} are not supported, but those of {_engines()} are. "
            "Convert the frame, or write Parquet and give its path."
        )
    if frame.implementation is nw.Implementation.POLARS:
        frame = frame.lazy()  # flags, products and sums in one go: those of all rows are never held
    name = "the frame" if isinstance(data, pd.DataFrame) else f"the {frame.implementation.name.lower()} frame"
    return OpenFrame(frame, name, Passes(bool(progress)))


def collected(frame: Frame, name: str) -> pd.DataFrame:
    """Compute a frame of any engine; only what is asked for leaves it.

    Raises
    ------
    DataError
        The engine failed: what it said, in one line.
    MissingExtraError
        The engine needs a package to hand over its results.
    """
    with reading(name, engine=True):
        got = frame.collect("pandas") if isinstance(frame, nw.LazyFrame) else frame
        out: pd.DataFrame = got.to_pandas()
    return out.reset_index(drop=True)


def joined(frame: Frame, small: pd.DataFrame, on: Sequence[str], how: Literal["left", "inner"]) -> Frame:
    """Columns of a small table beside the rows of a frame, in its engine, by columns that both have."""
    native = nw.to_native(frame)
    with reading("the rows"):
        if frame.implementation is nw.Implementation.DASK:
            # Partition by partition: rows stay where they are, and get the unique index that its columns need.
            return nw.from_native(
                native.map_partitions(pd.merge, small, on=list(on), how=how, clear_divisions=True)
            )
        return frame.join(nw.from_native(_BESIDE[frame.implementation](native, small)), on=list(on), how=how)


def _beside_polars(native: Any, small: pd.DataFrame) -> Any:
    import polars as pl

    schema = native.collect_schema()
    made = pl.from_pandas(small)
    made = made.cast({c: schema[c] for c in made.columns if c in schema})
    return made.lazy() if isinstance(native, pl.LazyFrame) else made


def _beside_pyarrow(native: Any, small: pd.DataFrame) -> Any:
    import pyarrow as pa

    made = pa.Table.from_pandas(small, preserve_index=False)
    both = {f.name: f.type for f in native.schema}
    return made.cast(pa.schema([(f.name, both.get(f.name, f.type)) for f in made.schema]))


def _beside_duckdb(native: Any, small: pd.DataFrame) -> Any:
    """In the connection of the relation, whose queries see local names that are no table of its own."""
    msmmiv_cells = small  # noqa: F841 - read by the query
    return native.query("msmmiv_rows", "SELECT * FROM msmmiv_cells")


def _beside_ibis(_native: Any, small: pd.DataFrame) -> Any:
    import ibis

    return ibis.memtable(small)


def _beside_spark(native: Any, small: pd.DataFrame) -> Any:
    return native.sparkSession.createDataFrame(small)


#: Engines whose frames are accepted, each with its way to put a small table beside them.
_BESIDE: dict[nw.Implementation, Callable[[Any, pd.DataFrame], Any]] = {
    nw.Implementation.PANDAS: lambda _, small: small,
    nw.Implementation.POLARS: _beside_polars,
    nw.Implementation.PYARROW: _beside_pyarrow,
    nw.Implementation.DUCKDB: _beside_duckdb,
    nw.Implementation.IBIS: _beside_ibis,
    nw.Implementation.DASK: lambda _, small: small,
    nw.Implementation.PYSPARK: _beside_spark,
    nw.Implementation.PYSPARK_CONNECT: _beside_spark,
}


def _engines() -> str:
    return listing([i.name.lower() for i in _BESIDE if i is not nw.Implementation.PYSPARK_CONNECT])


def _plain(native: Any, design: Design) -> Any:
    """A frame of the same engine that is ready for narwhals; whatever needs nothing as it is.

    Raises
    ------
    ColumnError
        A role whose column is there twice, columns of several levels, or values that cannot be labels.
    """
    prepare = next((p for known, p in _PREPARED if known(native)), None)
    if prepare is None:
        return native
    if isinstance(native, pd.DataFrame) and native.columns.nlevels > 1:
        raise ColumnError(
            "The columns of the data have several levels. Give each one name, for example with "
            "df.columns = ['_'.join(c) for c in df.columns]."
        )
    columns = list(native.column_names if nw.dependencies.is_pyarrow_table(native) else native.columns)
    used = [c for c in dict.fromkeys(column for _, column in design.roles()) if c in columns]
    # Spark does not tell upper case from lower.
    names = [c.lower() for c in columns] if prepare is _spark else columns
    twice = [c for c in used if names.count(c.lower() if prepare is _spark else c) > 1]
    if twice:
        raise ColumnError(
            f"{listing(twice, quote=True)} is the name of more than one column of the data. Rename or drop the copies."
        )
    if len(set(columns)) < len(columns) and prepare is not _as_it_is:
        native = native.select(used) if prepare in (_pyarrow, _spark) else native[used]
    return prepare(native, used, label_columns(design))


def _pandas(data: pd.DataFrame, used: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Plain labels where pandas holds objects, categories or dates, and numbers where it holds Python's decimals."""
    changed: dict[str, Any] = {}
    for column in used:
        kind = data[column].dtype
        if pd.api.types.is_object_dtype(kind) and column not in labels and _all_decimals(data[column]):
            changed[column] = data[column].astype(float)
        elif isinstance(kind, pd.SparseDtype):
            changed[column] = np.asarray(data[column])
        elif column in labels and not (
            pd.api.types.is_numeric_dtype(kind) or isinstance(kind, pd.StringDtype)
        ):
            changed[column] = plain_labels(data[column])
    return data.assign(**changed) if changed else data


def _all_decimals(column: pd.Series[Any]) -> bool:
    """Whether these are the decimal numbers of a database, which pandas keeps as objects."""
    there = column.dropna()
    return len(there) > 0 and all(isinstance(v, decimal.Decimal) for v in there)


def _pyarrow(table: Any, used: Sequence[str], _labels: Sequence[str]) -> Any:
    """Values in the place of codes, unless they are text: the category 1 is the number."""
    import pyarrow as pa

    for column in used:
        kind = table.schema.field(column).type
        if pa.types.is_dictionary(kind) and "string" not in str(kind.value_type):
            at = table.column_names.index(column)
            table = table.set_column(at, column, table[column].cast(kind.value_type))
    return table


def _dask(frame: Any, _used: Sequence[str], labels: Sequence[str]) -> Any:
    """As for pyarrow; and times of a zone as those of UTC, which narwhals does not tell from text here."""
    changed: dict[str, Any] = {}
    for name in (c for c in labels if c in frame.columns):
        column = frame[name]
        held = _held(column)
        if held is not None:
            changed[name] = column = column.astype(held)
        if getattr(column.dtype, "tz", None) is not None or "tz=" in str(column.dtype):
            changed[name] = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return frame.assign(**changed) if changed else frame


def _held(column: Any) -> Any:
    """The type of what the categories of a column of Dask are; None where they are text, or it has none."""
    kind = column.dtype
    if isinstance(kind, pd.ArrowDtype) and str(kind.pyarrow_dtype).startswith("dictionary"):
        return pd.ArrowDtype(kind.pyarrow_dtype.value_type)
    if not isinstance(kind, pd.CategoricalDtype):
        return None
    values = kind.categories.dtype
    if getattr(values, "tz", None) is not None:
        return values
    text = column.cat.known and pd.api.types.infer_dtype(kind.categories) == "string"
    return _CATEGORIES.get(values.kind, None if text else "object")


#: Kinds of categories that are no text, and the columns that hold them with gaps.
_CATEGORIES = {"i": "Int64", "u": "UInt64", "f": "float64", "b": "boolean", "M": "datetime64[us]"}


def _as_it_is(native: Any, _used: Sequence[str], _labels: Sequence[str]) -> Any:
    return native


def _spark(frame: Any, _used: Sequence[str], labels: Sequence[str]) -> Any:
    """Times of UTC in the place of instants, which come to the driver in the session's zone, some hours twice."""
    from pyspark.sql import functions
    from pyspark.sql.types import TimestampType

    zoned = [
        f.name for f in frame.schema.fields if isinstance(f.dataType, TimestampType) and f.name in labels
    ]
    epoch = "timestamp_ntz'1970-01-01 00:00:00' + make_dt_interval(0, 0, 0, cast({} as decimal(18, 6)))"
    for name in zoned:
        quoted = name.replace("`", "``")
        frame = frame.withColumn(name, functions.expr(epoch.format(f"unix_micros(`{quoted}`) / 1000000bd")))
    return frame


#: How a frame is recognised, and what it needs.
_PREPARED: tuple[tuple[Callable[[Any], bool], Callable[[Any, Sequence[str], Sequence[str]], Any]], ...] = (
    (nw.dependencies.is_pandas_dataframe, _pandas),
    (nw.dependencies.is_pyarrow_table, _pyarrow),
    (nw.dependencies.is_dask_dataframe, _dask),
    (nw.dependencies.is_duckdb_relation, _as_it_is),
    (nw.dependencies.is_pyspark_dataframe, _spark),
    (nw.dependencies.is_pyspark_connect_dataframe, _spark),
)
