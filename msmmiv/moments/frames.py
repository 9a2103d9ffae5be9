"""The only door to data engines: a frame or a file goes in, a narwhals frame comes out.

Everything behind it is written against narwhals. What an engine needs of its own is here: how a small table is put
beside its rows, and how it says what went wrong.
"""

from __future__ import annotations

import decimal
import glob
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from narwhals.exceptions import ComputeError

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DataError, MissingExtraError, MomentsFileError, listing
from msmmiv.moments.data_file import DataFile, header, patterns
from msmmiv.moments.labels import plain_labels

__all__ = [
    "Frame",
    "collected",
    "first_rows",
    "frame_of",
    "joined",
    "read_parquet",
    "reading",
    "write_parquet",
]

Frame = Any  # nw.DataFrame or nw.LazyFrame: the verbs used behind this door are common to both

#: All rows decide a column's type, and what pandas and R write for missing is read as missing.
READ_CSV = ", header=true, sample_size=-1, nullstr=['', 'NA', 'N/A', 'NaN', 'nan', 'NULL', 'null', '.']"
#: Whose complaints are about the data; every other exception is a mistake of ours.
_ENGINES_SAY = ("duckdb", "polars", "pyarrow", "ibis", "dask", "pyspark", "py4j")


def frame_of(data: Any, design: Design) -> tuple[Frame, str]:
    """A frame of the engine the data are in, and what to call it in messages.

    Raises
    ------
    DataError
        A file that cannot be read, or a frame of an engine that is not supported.
    """
    if isinstance(data, pd.DataFrame):
        return nw.from_native(_plain_frame(data, design)), "the frame"
    if isinstance(data, str | Path | DataFile):
        file = data if isinstance(data, DataFile) else DataFile((str(data),))
        return nw.from_native(_relation(file, design)), repr(str(file))
    try:
        with _hushed():
            frame: Frame = nw.from_native(data)
    except TypeError as error:
        raise DataError(
            f"Data of type {type(data).__name__} is not supported. Give a frame ({_engines()}), the path of a CSV or "
            "Parquet file (globs allowed), or Moments."
        ) from error
    if frame.implementation not in _BESIDE:
        raise DataError(
            f"Frames of {frame.implementation.name.lower()} are not supported, but those of {_engines()} are. "
            "Convert the frame, or write Parquet and give its path."
        )
    return frame, f"the {frame.implementation.name.lower()} frame"


def collected(frame: Frame, name: str) -> pd.DataFrame:
    """Compute a frame of any engine; only what is asked for leaves it.

    Raises
    ------
    DataError
        The engine failed: what it said, in one line.
    MissingExtraError
        The engine needs a package to hand over its results.
    """
    with reading(name):
        got = frame.collect("pandas") if isinstance(frame, nw.LazyFrame) else frame
        out: pd.DataFrame = got.to_pandas()
    return out.reset_index(drop=True)


def joined(frame: Frame, small: pd.DataFrame, on: Sequence[str], how: Literal["left", "inner"]) -> Frame:
    """Columns of a small table beside the rows of a frame, in its engine, by columns that both have."""
    native = nw.to_native(frame)
    with _hushed():
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


def _beside_duckdb(native: Any, small: pd.DataFrame) -> Any:  # noqa: ARG001 - read by the query
    """In the connection of the relation, whose queries see local names."""
    return native.query("unused", "SELECT * FROM small")


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


@contextmanager
def _hushed() -> Iterator[None]:
    """Engines advertise packages and announce changes that users of this one can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(narwhals|dask|pyspark|ibis)(\.|$)")
        # Said of whatever line calls narwhals, or DuckDB.
        warnings.filterwarnings("ignore", message="Dask support is moving", category=FutureWarning)
        warnings.filterwarnings(
            "ignore", message="The inplace keyword in DataFrame", category=DeprecationWarning
        )
        yield


def first_rows(data: DataFile, most: int) -> pd.DataFrame:
    """The first rows of files, all columns, as `open_rows` would read them: for looking at columns.

    Raises
    ------
    DataError
        As `open_rows`.
    """
    with reading(repr(str(data))):
        frame: pd.DataFrame = _relation(data, None).limit(most).df()
    return frame


def _relation(data: DataFile, design: Design | None) -> Any:
    import duckdb

    reader, found = patterns(data)
    connection = duckdb.connect()
    options = READ_CSV if reader == "read_csv" else ""
    options += "".join(f", {name}=?" for name in data.options)
    with reading(repr(str(data))):
        files = data.files
        for file in files:
            if design is not None:
                _check_columns(connection, reader, file, design, data, alone=len(files) == 1)
        return connection.sql(
            f"SELECT * FROM {reader}(?, union_by_name=true{options})",  # noqa: S608 - names from FILES and options
            params=[found, *data.options.values()],
        )


def _check_columns(
    connection: Any, reader: str, file: str, design: Design, data: DataFile, *, alone: bool
) -> None:
    """Look at a file's own header: reading several as one would fill what one of them lacks with nulls."""
    options = "".join(f", {name}=?" for name in data.options)
    relation = connection.sql(
        f"SELECT * FROM {reader}(?{options}) LIMIT 0",  # noqa: S608 - see _relation
        params=[glob.escape(file), *data.options.values()],
    )
    for role, column in design.roles():
        if column not in relation.columns and not alone:
            raise ColumnError.not_found(column, role, relation.columns, where=f"{Path(file).name!r}")
        twice = reader == "read_csv" and f"{column}_1" in relation.columns
        if twice and header(file, data).count(column) > 1:
            raise ColumnError(f"{column!r} is the name of more than one column of {Path(file).name!r}.")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Say what an engine says of the data in one line that names them; our own mistakes pass as they are."""
    try:
        with _hushed():
            yield
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        raise MissingExtraError(
            f"{name} needs {package}, which is not installed: pip install {package}."
        ) from error
    except Exception as error:
        said_by = type(error).__module__.partition(".")[0].lstrip("_")
        if said_by not in _ENGINES_SAY and not isinstance(error, ComputeError):
            raise
        raise DataError(f"Could not read {name}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What happened, without traces of Java and without rows: a person's row does not belong in a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    failed = [line for line in lines if re.match(r"(Caused by: )?[\w.]*(Error|Exception): ", line)]
    if failed and type(error).__module__.startswith(
        ("py4j", "pyspark")
    ):  # traces end with the task's own error
        return failed[-1].removeprefix("Caused by: ")
    return " - ".join(
        [lines[0], *(v for v in lines[1:] if v.startswith(("Invalid unicode", "Expected Number")))]
    )


def _plain_frame(data: pd.DataFrame, design: Design) -> pd.DataFrame:
    """One column per name, and plain labels where pandas holds objects, categories or dates."""
    if data.columns.nlevels > 1:
        raise ColumnError(
            "The columns of the data have several levels. Give each one name, for example with "
            "df.columns = ['_'.join(c) for c in df.columns]."
        )
    used = [column for _, column in design.roles() if column in data]
    twice = [c for c in used if (data.columns == c).sum() > 1]
    if twice:
        raise ColumnError(
            f"{listing(twice, quote=True)} is the name of more than one column of the data. Rename or drop the copies."
        )
    if not data.columns.is_unique:
        data = data.loc[:, ~data.columns.duplicated()]
    keys = {design.site, design.block, design.cluster}
    keys |= {design.treatment} if design.treatment_kind == "arms" else set()
    changed: dict[str, Any] = {}
    for column in used:
        kind = data[column].dtype
        if pd.api.types.is_object_dtype(kind) and column not in keys and _all_decimals(data[column]):
            changed[column] = data[column].astype(float)
        elif isinstance(kind, pd.SparseDtype):
            changed[column] = np.asarray(data[column])
        elif column in keys and not (pd.api.types.is_numeric_dtype(kind) or isinstance(kind, pd.StringDtype)):
            changed[column] = plain_labels(data[column])
    return data.assign(**changed) if changed else data


def _all_decimals(column: pd.Series[Any]) -> bool:
    """Whether these are the decimal numbers of a database, which pandas keeps as objects."""
    there = column.dropna()
    return len(there) > 0 and all(isinstance(v, decimal.Decimal) for v in there)


def write_parquet(table: pd.DataFrame, path: Path, header: str) -> None:
    """Write a small table to Parquet with a header in the file's key-value metadata."""
    import duckdb

    quoted, target = (text.replace("'", "''") for text in (header, str(path)))
    with duckdb.connect() as connection:
        connection.register("small", table)
        try:
            connection.execute(
                f"COPY small TO '{target}' (FORMAT parquet, KV_METADATA {{msmmiv: '{quoted}'}})"
            )
        except duckdb.IOException as error:
            raise OSError(str(error).splitlines()[0]) from error


def read_parquet(path: Path) -> tuple[str, pd.DataFrame]:
    """Header (empty if there is none) and table of a Parquet file."""
    import duckdb

    pattern = glob.escape(str(path))
    try:
        with duckdb.connect() as connection:
            found = connection.execute(
                "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = 'msmmiv'", [pattern]
            ).fetchone()
            table = connection.execute("SELECT * FROM read_parquet(?)", [pattern]).df()
    except duckdb.Error as error:
        raise MomentsFileError(f"Could not read {str(path)!r}: {str(error).splitlines()[0]}") from error
    return (str(found[0]) if found else ""), table
