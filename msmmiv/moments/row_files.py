"""Rows in files: CSV and Parquet are streamed by DuckDB, files of Stata, SPSS and SAS are read into memory."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DataError, MomentsFileError, listing
from msmmiv.moments.data_file import DataFile, check_lengths, header, reader_of
from msmmiv.moments.engine_errors import reading
from msmmiv.moments.labels import label_columns
from msmmiv.moments.stat_files import READERS, read_stat_files
from msmmiv.progress import Passes

__all__ = ["RowFiles", "first_rows", "read_parquet", "rows_of", "write_parquet"]

#: What pandas and R write for missing, and infinity, are read as missing.
_MISSING = (
    "",
    "NA",
    "N/A",
    "NaN",
    "nan",
    "NULL",
    "null",
    ".",
    "inf",
    "-inf",
    "Inf",
    "-Inf",
    "Infinity",
    "-Infinity",
)
#: Whole numbers from here on are not all different as floats.
_EXACT = 2**53
#: Types that pandas gets as floats.
_FLOATS = ("DOUBLE", "HUGEINT", "UHUGEINT")
_NUMBERS = (*_FLOATS, "BIGINT", "INTEGER", "FLOAT")
#: Types that are read together without becoming other values.
_FAMILIES = {"VARCHAR": "text", "ENUM": "text", "DATE": "a date", "TIMESTAMP WITH TIME ZONE": "a time with its zone",
             "TIMESTAMP": "a time", "TIME": "a time of day"}  # fmt: skip

Kinds = Mapping[str, str]


@dataclass(frozen=True)
class RowFiles:
    """Rows of files as a frame of the engine that reads them.

    Attributes
    ----------
    rows : DuckDB relation or pandas frame
        Nothing is read yet where DuckDB streams.
    passes : Passes
        Bars that know how far a query is.
    unchanged : callable
        Raises `DataError` if a file is not the one that was opened: later passes would read other rows.
    """

    rows: Any
    passes: Passes
    unchanged: Callable[[], None]


def rows_of(data: DataFile, design: Design, *, show: bool) -> RowFiles:
    """Rows of files, checked to fit one another and the design.

    Raises
    ------
    ColumnError
        A column that one of several files lacks, that a file has twice, or that differs in type between files.
    DataError
        A file that is not there, cannot be read, or is not what its name says.
    MissingExtraError
        Files of SPSS and SAS, where pyreadstat is not installed.
    """
    reader = reader_of(data)
    # From anywhere, also after the program has moved to another folder.
    files = [str(Path(f).absolute()) for f in data.files]
    if reader in READERS:
        return RowFiles(read_stat_files(files, reader, design), Passes(show), lambda: None)
    as_opened = _stamps(files)

    def unchanged() -> None:
        if changed := [f for f, stamp in _stamps(files).items() if stamp != as_opened[f]]:
            raise DataError(
                f"{listing(changed, quote=True, most=3)} has changed since it was opened. Make the study anew, so that "
                "all of it is of the same rows."
            )

    with reading(repr(str(data))):
        connection = _connected(data)
        passes = Passes(show, _percent_of(connection))
        kinds = {f: _columns_of(connection, reader, f, data) for f in files}
        used = {column: role for role, column in design.roles()}
        folders = _in_folders(files, kinds, used)
        for file in files:
            _check_columns(reader, file, kinds[file], used, data, alone=len(files) == 1, folders=folders)
        _check_drift(reader, kinds, used)
        with passes.step("types of columns"):
            rows = _relation(connection, reader, files, data, design, folders)
            _check_spelling(rows, kinds, {c: used[c] for c in label_columns(design)})
            return RowFiles(rows, passes, unchanged)


def first_rows(data: DataFile, most: int) -> pd.DataFrame:
    """The first rows of files, all columns, as `open_rows` would read them: for looking at columns.

    Raises
    ------
    DataError
        As `rows_of`.
    """
    reader, files = reader_of(data), list(data.files)
    if reader in READERS:
        return read_stat_files(files, reader, None, most)
    with reading(repr(str(data))):
        frame: pd.DataFrame = _relation(_connected(data), reader, files, data, None, ()).limit(most).df()
    return frame


def _stamps(files: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """Size and time of the last change; None for a file that is gone."""
    stats = {f: Path(f).stat() if Path(f).exists() else None for f in files}
    return {f: None if s is None else (s.st_size, s.st_mtime_ns) for f, s in stats.items()}


def _connected(data: DataFile) -> Any:
    """A connection that keeps to the memory limit, and spills into the system's folder for temporary files."""
    import duckdb

    # Made when first needed, and gone with the connection.
    settings = {"temp_directory": str(Path(tempfile.gettempdir()) / f"msmmiv-{uuid4().hex}")}
    if data.memory_limit is not None:
        settings["memory_limit"] = data.memory_limit
    return duckdb.connect(config=dict(settings))


def _percent_of(connection: Any) -> Callable[[], float] | None:
    """How far a query is; None in a notebook where DuckDB would draw a bar of its own and lacks the package for it."""
    import duckdb

    try:
        connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    except duckdb.Error:
        return None
    percent: Callable[[], float] = connection.query_progress
    return percent


def _relation(
    connection: Any,
    reader: str,
    files: Sequence[str],
    data: DataFile,
    design: Design | None,
    folders: Sequence[str],
) -> Any:
    """All files as one; of a CSV file, all rows decide a column's type."""
    # Otherwise the name of a folder such as `arm=1` would take the place of what is in the file.
    given: dict[str, Any] = {"union_by_name": True, "hive_partitioning": bool(folders)}
    if reader != "read_csv":
        return _read(connection, reader, files, given)
    given |= data.options
    whole = _read(connection, reader, files, given | {"sample_size": -1})
    kinds = dict(zip(whole.columns, map(str, whole.types), strict=True))
    if design is None:
        return whole
    used = [c for _, c in design.roles() if c in kinds]
    numbers = [design.outcome, *design.mediators, *design.covariates]
    if any(kinds.get(c) == "VARCHAR" for c in numbers) or (len(kinds) == 1 and data.delimiter is None):
        check_lengths(data)  # a row that is cut off makes text of numbers, or hides what separates the fields
    labels = [c for c in label_columns(design) if kinds.get(c) in _FLOATS]
    kinds |= dict.fromkeys(_too_long(whole, labels), "VARCHAR")
    # The way dates are written is found file by file: 01/02 may be a day of January in one, and of February in another.
    kinds |= {c: "VARCHAR" for c in used if kinds[c].startswith(("DATE", "TIME"))}
    if not used:
        return whole
    # Types said once, or every query would look at all rows again to find them.
    return _read(
        connection, reader, files, given | {"types": {c: kinds[c] for c in used if c not in folders}}
    )


def _too_long(rows: Any, labels: Sequence[str]) -> list[str]:
    """Labels that are numbers with so many digits that as floats several would become one."""
    out = []
    for column in labels:
        name = column.replace('"', '""')
        (largest,) = rows.aggregate(f'max(abs("{name}"))').fetchall()[0]
        out += [column] if (largest or 0) >= _EXACT else []
    return out


def _read(connection: Any, reader: str, files: Sequence[str], options: Mapping[str, Any]) -> Any:
    # Nothing is skipped at the top: the engine would leave out what does not fit the rows below. An apostrophe is no
    # quote, however many labels begin with one.
    csv: dict[str, Any] = {"header": True, "skip": 0, "quote": '"', "nullstr": list(_MISSING)}
    csv = csv if reader == "read_csv" else {}
    every = csv | dict(options)
    named = "".join(f", {name}=?" for name in every)
    return connection.sql(
        f"SELECT * FROM {reader}(?{named})",  # noqa: S608 - names of ours only
        params=[[glob.escape(f) for f in files], *every.values()],
    )


def _columns_of(connection: Any, reader: str, file: str, data: DataFile) -> Kinds:
    """Names and types in a file's own header."""
    own = _read(connection, reader, [file], {"hive_partitioning": False, **data.options})
    return dict(zip(own.columns, map(str, own.types), strict=True))


def _in_folders(files: Sequence[str], kinds: Mapping[str, Kinds], used: Mapping[str, str]) -> list[str]:
    """Columns of the design that no file has, and all have in the names of their folders, as `site=3`.

    Raises
    ------
    ColumnError
        Folders of other names would then take the place of columns that the files have.
    """
    keys = [{p.partition("=")[0] for p in Path(f).parent.parts if "=" in p} for f in files]
    common = set.intersection(*keys) if keys else set()
    found = [c for c in used if c in common and not any(c in k for k in kinds.values())]
    if both := [
        c for c in used if found and any(c in k for k in keys) and any(c in k for k in kinds.values())
    ]:
        raise ColumnError(
            f"{listing(both, quote=True)} is a column of the files and in the names of their folders, and {found[0]!r} "
            "is in these names only. Rename the folders, or write the columns into the files."
        )
    return found


def _check_columns(
    reader: str,
    file: str,
    kinds: Kinds,
    used: Mapping[str, str],
    data: DataFile,
    *,
    alone: bool,
    folders: Sequence[str],
) -> None:
    """What one of several files lacks would be filled with nulls, and of two columns of one name one is read."""
    for column, role in used.items():
        if column not in kinds and column not in folders and not alone:
            if len(kinds) == 1 and reader == "read_csv" and data.delimiter is None:
                check_lengths(data)
            raise ColumnError.not_found(column, role, list(kinds), where=f"{Path(file).name!r}")
        twice = reader == "read_csv" and f"{column}_1" in kinds
        if twice and header(file, data).count(column) > 1:
            raise ColumnError(f"{column!r} is the name of more than one column of {Path(file).name!r}.")


def _check_drift(reader: str, kinds: Mapping[str, Kinds], used: Mapping[str, str]) -> None:
    """Refuse a column that is text in one file and a number in another: read as one it would be something else.

    Files of text have no types of their own: there only words for yes and no are kept from numbers.
    """
    for column, role in used.items():
        there = {f: k[column] for f, k in kinds.items() if column in k and k[column] != '"NULL"'}
        family = {f: _family(kind, csv=reader == "read_csv") for f, kind in there.items()}
        one = next(iter(family), None)
        other = next((f for f in family if family[f] != family.get(str(one), "")), None)
        if one is not None and other is not None:
            raise ColumnError(
                f"Column {column!r} ({role}) is {there[one]} in {Path(one).name!r} and {there[other]} in "
                f"{Path(other).name!r}. Write it with one type in all files."
            )


def _check_spelling(rows: Any, kinds: Mapping[str, Kinds], used: Mapping[str, str]) -> None:
    """Refuse labels that are text though some file holds numbers, where one number is spelt in two ways."""
    types = dict(zip(rows.columns, map(str, rows.types), strict=True))
    for column, role in used.items():
        numbers = [f for f, k in kinds.items() if k.get(column) in _NUMBERS]
        if types.get(column) != "VARCHAR" or not numbers:
            continue
        name = column.replace('"', '""')
        found = rows.query(
            "msmmiv_rows",
            f"""SELECT min(label), max(label) FROM (
                SELECT DISTINCT "{name}" AS label, try_cast("{name}" AS DECIMAL(38, 10)) AS number FROM msmmiv_rows
            ) WHERE number IS NOT NULL GROUP BY number HAVING count(*) > 1 ORDER BY 1 LIMIT 1""",  # noqa: S608
        ).fetchall()
        if found:
            one, other = found[0]
            raise ColumnError(
                f"Column {column!r} ({role}) holds {one!r} and {other!r}, one number. Its labels are text, since not "
                "all are numbers that can be told apart, and these would be two. Write them alike in all files."
            )


def _family(kind: str, *, csv: bool) -> str:
    if csv:
        return kind if kind == "BOOLEAN" else ""
    return next((name for start, name in _FAMILIES.items() if kind.startswith(start)), "a number")


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
