"""Files of rows: where they lie, how they are written down, and what is refused before an engine opens them."""

from __future__ import annotations

import csv
import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from msmmiv.errors import ChoiceError, DataError, check_choice, listing

__all__ = ["DataFile", "Decimal", "Encoding", "header", "is_moments", "patterns"]

Decimal: TypeAlias = Literal[".", ","]
Encoding: TypeAlias = Literal["utf-8", "latin-1", "utf-16"]
FILES = {".csv": "read_csv", ".parquet": "read_parquet", ".pq": "read_parquet"}
#: How files begin that are no text, whatever they are called.
_OTHERS = {b"PK\x03\x04": "an Excel workbook or a zip file", b"\xd0\xcf\x11\xe0": "an Excel workbook",
           b"PAR1": "a Parquet file", b"\x1f\x8b": "a compressed file"}  # fmt: skip
_HEADER = b'# {"format": "msmmiv-moments'
_FOOTER = b'"format": "msmmiv-moments'


@dataclass(frozen=True)
class DataFile:
    """Files that hold rows, read as one, and how a CSV file among them is written down.

    Use it in the place of a path when the reader should not guess: decimal commas and old encodings.

    Parameters
    ----------
    paths : tuple of str
        Paths and globs, all with one kind of ending.
    delimiter : str, optional
        One character between fields; found by the reader if left out.
    decimal : {".", ","}, optional
        The decimal mark; a point if left out.
    encoding : {"utf-8", "latin-1", "utf-16"}, optional
        UTF-8 if left out.

    Raises
    ------
    ChoiceError
        No path, a delimiter of several characters, or another decimal mark or encoding.

    Examples
    --------
    >>> print(DataFile(("notes.csv",), delimiter=";", decimal=","))
    notes.csv
    """

    paths: tuple[str, ...]
    delimiter: str | None = None
    decimal: Decimal | None = None
    encoding: Encoding | None = None

    def __post_init__(self) -> None:
        if not self.paths or not all(self.paths):
            raise ChoiceError("A data file needs a path that is not empty.")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in "\r\n\0\"'"):
            raise ChoiceError(f"delimiter={self.delimiter!r} must be one character such as ';'.")
        if self.decimal is not None:
            check_choice(self.decimal, Decimal, "decimal")
        if self.encoding is not None:
            check_choice(self.encoding, Encoding, "encoding")
        if self.decimal == "," and self.delimiter == ",":
            raise ChoiceError("A comma cannot be both the delimiter and the decimal mark.")

    @property
    def options(self) -> dict[str, str]:
        """The options of DuckDB's CSV reader that were given."""
        given = {"delim": self.delimiter, "decimal_separator": self.decimal, "encoding": self.encoding}
        return {k: v for k, v in given.items() if v is not None}

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are there, sorted, each once."""
        found = {f for p in self.paths for f in ([p] if Path(p).is_file() else glob.glob(p))}  # noqa: PTH207 - absolute patterns too
        return tuple(sorted(f for f in found if Path(f).is_file()))

    def __str__(self) -> str:
        return ", ".join(self.paths)


def patterns(data: DataFile) -> tuple[str, list[str]]:
    """DuckDB's reader for the files and the patterns it reads, after looking at every path.

    Raises
    ------
    DataError
        A folder, a file that is not there or is empty, an ending that is not read, endings of two kinds, a file
        that is not what its ending says, or options for CSV and a Parquet file.
    """
    found = [_pattern(path) for path in data.paths]
    readers = {reader for reader, _ in found}
    if len(readers) > 1:
        raise DataError(f"CSV and Parquet files cannot be read as one ({data}). Convert one kind.")
    reader = readers.pop()
    if reader != "read_csv" and data.options:
        raise DataError(
            f"{listing(data.options)} is about CSV files, and {str(data)!r} is Parquet; leave it out."
        )
    for file in data.files:
        if Path(file).stat().st_size == 0:
            raise DataError(f"File {file!r} is empty.")
        if reader == "read_csv":
            _check_start(file)
    return reader, [pattern for _, pattern in found]


def header(file: str, data: DataFile) -> list[str]:
    """The names in the first line of a CSV file, as they are spelt."""
    encoding = {"latin-1": "latin-1", "utf-16": "utf-16"}.get(data.encoding or "", "utf-8-sig")
    with Path(file).open(encoding=encoding, errors="replace", newline="") as lines:
        if data.delimiter:
            return [n.strip() for n in next(csv.reader(lines, delimiter=data.delimiter), [])]
        return [n.strip("\"' ") for n in re.split(r"[,;|\t]", lines.readline().strip())]


def is_moments(path: str | Path) -> bool:
    """Whether a file is one that `Moments.save` wrote, without reading it all."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if path.suffix.lower() == ".csv":
            return file.read(len(_HEADER)) == _HEADER
        size = path.stat().st_size
        if path.suffix.lower() != ".parquet" or size < 12:
            return False
        # A Parquet file ends with its metadata, their length, and a mark.
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - 8 - length))
        return _FOOTER in file.read(length)


def _pattern(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.is_dir():
        ending = next((e for e in FILES if any(path.glob(f"*{e}"))), ".csv")
        raise DataError(
            f"{str(path)!r} is a folder. To read its files as one, give {str(path / f'*{ending}')!r}."
        )
    reader = FILES.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path.name!r} does not end in one of {listing(FILES, quote=True)}. Convert the file, or read it "
            "into a pandas frame and give that."
        )
    if path.is_file():
        return reader, glob.escape(str(path))
    if not any(mark in str(path) for mark in "*?["):
        near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        found = f" The folder has {listing(near, quote=True, most=5)}." if near else ""
        raise DataError(f"File {str(path)!r} was not found.{found}")
    return reader, str(path)


def _check_start(file: str) -> None:
    with Path(file).open("rb") as stream:
        start = stream.read(4)
    for mark, what in _OTHERS.items():
        if start.startswith(mark):
            raise DataError(
                f"{file!r} is called CSV but is {what}. Open it in the program that made it and save it as CSV (UTF-8)."
            )
