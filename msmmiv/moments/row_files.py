"""Rows in files: CSV and Parquet are streamed by DuckDB, files of Stata, SPSS and SAS are read into memory."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, MomentsFileError
from msmmiv.moments.data_file import DataFile, check_lengths, header, patterns
from msmmiv.moments.engine_errors import reading
from msmmiv.moments.stat_files import READERS, read_stat_files

__all__ = ["first_rows", "read_parquet", "rows_of", "write_parquet"]

_TEXT = ("VARCHAR", "ENUM")
#: What pandas and R write for missing is read as missing.
_READ_CSV = ", header=true, nullstr=['', 'NA', 'N/A', 'NaN', 'nan', 'NULL', 'null', '.']"


def rows_of(data: DataFile, design: Design) -> tuple[Any, Callable[[], float] | None]:
    """Rows of files, nothing read yet where DuckDB streams them; and how far its query is, in percent.

    Raises
    ------
    ColumnError
        A column that one of several files lacks, or that a file has twice.
    DataError
        A file that is not there, cannot be read, or is not what its name says.
    MissingExtraError
        Files of SPSS and SAS, where pyreadstat is not installed.
    """
    reader, _ = patterns(data)
    if reader in READERS:
        return read_stat_files(data.files, reader, design), None
    with reading(repr(str(data))):
        connection = _connected(data)
        files = data.files
        kinds = [
            _check_columns(connection, reader, file, design, data, alone=len(files) == 1) for file in files
        ]
        if reader == "read_parquet":  # a file of text has no types of its own
            _check_drift(dict(zip(files, kinds, strict=True)), design)
        return _relation(connection, data, design), connection.query_progress


def first_rows(data: DataFile, most: int) -> pd.DataFrame:
    """The first rows of files, all columns, as `open_rows` would read them: for looking at columns.

    Raises
    ------
    DataError
        As `rows_of`.
    """
    reader, _ = patterns(data)
    if reader in READERS:
        return read_stat_files(data.files, reader, None, most)
    with reading(repr(str(data))):
        frame: pd.DataFrame = _relation(_connected(data), data, None).limit(most).df()
    return frame


def _connected(data: DataFile) -> Any:
    """A connection that keeps to the memory limit, and spills into the system's folder for temporary files."""
    import duckdb

    # Made when first needed, and gone with the connection.
    settings = {"temp_directory": str(Path(tempfile.gettempdir()) / f"msmmiv-{uuid4().hex}")}
    if data.memory_limit is not None:
        settings["memory_limit"] = data.memory_limit
    connection = duckdb.connect(config=dict(settings))
    connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    return connection


def _relation(connection: Any, data: DataFile, design: Design | None) -> Any:
    reader, found = patterns(data)
    given: dict[str, Any] = dict(data.options)
    if reader != "read_csv":
        return _read(connection, reader, found, given)
    # All rows decide a column's type. Said once, or every query would look at all of them again.
    whole = _read(connection, reader, found, given | {"sample_size": -1})
    if len(whole.columns) == 1 and data.delimiter is None:
        check_lengths(data)  # a row that is cut off hides from the engine what separates the fields
    kinds = dict(zip(whole.columns, map(str, whole.types), strict=True))
    used = [c for _, c in design.roles() if c in kinds] if design is not None else []
    if not used or any(kinds[c].startswith(("DATE", "TIME")) for c in used):
        return whole  # the way dates are written is found with their type, and cannot be said with it
    return _read(connection, reader, found, given | {"types": {c: kinds[c] for c in used}})


def _read(connection: Any, reader: str, found: list[str], options: Mapping[str, Any]) -> Any:
    named = "".join(f", {name}=?" for name in options)
    csv = _READ_CSV if reader == "read_csv" else ""
    return connection.sql(
        f"SELECT * FROM {reader}(?, union_by_name=true{csv}{named})",  # noqa: S608 - names of ours only
        params=[found, *options.values()],
    )


def _check_columns(
    connection: Any, reader: str, file: str, design: Design, data: DataFile, *, alone: bool
) -> dict[str, str]:
    """Types by column, after a look at a file's own header: what one of several lacks would be filled with nulls."""
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
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _check_drift(kinds: Mapping[str, Mapping[str, str]], design: Design) -> None:
    """Refuse columns that are text in one file and not in another: read as one, numbers would become text."""
    for role, column in design.roles():
        there = {file: k[column] for file, k in kinds.items() if column in k}
        text = [f for f, kind in there.items() if kind.startswith(_TEXT)]
        other = [f for f in there if f not in text]
        if text and other:
            raise ColumnError(
                f"Column {column!r} ({role}) is {there[text[0]]} in {Path(text[0]).name!r} and {there[other[0]]} in "
                f"{Path(other[0]).name!r}. Write it with one type in all files."
            )


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
