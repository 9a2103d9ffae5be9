"""Files of rows: where they lie, how they are written down, and what is refused before an engine opens them."""

from __future__ import annotations

import csv
import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

from msmmiv.errors import ChoiceError, DataError, check_choice, listing

__all__ = ["DataFile", "Decimal", "Encoding", "check_lengths", "header", "is_moments", "reader_of"]

Decimal: TypeAlias = Literal[".", ","]
Encoding: TypeAlias = Literal["utf-8", "latin-1", "utf-16"]
#: What reads a file, by its ending: a function of DuckDB, or the program whose files pandas and pyreadstat read.
FILES = {".csv": "read_csv", ".parquet": "read_parquet", ".pq": "read_parquet", ".dta": "stata", ".sav": "spss",
         ".zsav": "spss", ".sas7bdat": "sas"}  # fmt: skip
_KINDS = {"read_csv": "CSV", "read_parquet": "Parquet", "stata": "Stata", "spss": "SPSS", "sas": "SAS"}
#: How files begin that are no text, whatever they are called.
_OTHERS = {b"PK\x03\x04": "an Excel workbook or a zip file", b"\xd0\xcf\x11\xe0": "an Excel workbook",
           b"PAR1": "a Parquet file", b"\x1f\x8b": "a compressed file"}  # fmt: skip
_SIZE = re.compile(r"\d+(\.\d+)? ?([KMGT]i?B)", re.IGNORECASE)
#: What separates fields, as far as readers look for it.
_MARKS = (",", ";", "\t", "|")
#: Also as other programs write it again, which the reader of moments then says.
_HEADER = re.compile(rb'(\xef\xbb\xbf)?"*#[ {"]*format["\s:]*msmmiv-moments')
_FOOTER = b'"format": "msmmiv-moments'


@dataclass(frozen=True)
class DataFile:
    """Files that hold rows, read as one, and how a CSV file among them is written down.

    Use it in the place of a path when the reader should not guess: decimal commas and old encodings.

    Parameters
    ----------
    paths : tuple of str
        Paths, globs and folders, all with files of one kind.
    delimiter : str, optional
        One character between fields; found by the reader if left out.
    decimal : {".", ","}, optional
        The decimal mark; a point if left out.
    encoding : {"utf-8", "latin-1", "utf-16"}, optional
        UTF-8 if left out.
    memory_limit : str, optional
        Memory for reading CSV and Parquet files, such as "4GB"; what does not fit is spilled into the system's folder
        for temporary files. If left out, four fifths of the machine's.

    Raises
    ------
    ChoiceError
        No path, a delimiter of several characters, another decimal mark or encoding, or a limit that is no size.

    Examples
    --------
    >>> print(DataFile(("notes.csv",), delimiter=";", decimal=","))
    notes.csv
    """

    paths: tuple[str, ...]
    delimiter: str | None = None
    decimal: Decimal | None = None
    encoding: Encoding | None = None
    memory_limit: str | None = None

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
        if self.memory_limit is not None and not _SIZE.fullmatch(str(self.memory_limit)):
            raise ChoiceError(f"memory_limit={self.memory_limit!r} must be a size such as '4GB' or '500MB'.")

    @property
    def options(self) -> dict[str, str]:
        """The options of DuckDB's CSV reader that were given."""
        given = {"delim": self.delimiter, "decimal_separator": self.decimal, "encoding": self.encoding}
        return {k: v for k, v in given.items() if v is not None}

    @property
    def name(self) -> str:
        """What the files are called, without their folders."""
        return ", ".join(Path(p).name for p in self.paths)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are there, sorted, each once."""
        found = sorted({f for p in self.paths for f in _files(p)})
        once = {Path(f).resolve(): f for f in reversed(found)}
        return tuple(f for f in found if once[Path(f).resolve()] == f)

    def __str__(self) -> str:
        return ", ".join(self.paths)


def reader_of(data: DataFile) -> str:
    """What reads the files, after looking at every path: a function of DuckDB, or "stata", "spss" or "sas".

    Raises
    ------
    DataError
        A folder without files that are read, a file that is not there or is empty, an ending that is not read, files of
        two kinds, a file that is not what its ending says, or options for CSV and files of another kind.
    """
    readers = {_reader(path) for path in data.paths}
    if len(readers) > 1:
        kinds = listing([_KINDS[r] for r in sorted(readers)])
        raise DataError(f"{kinds} files cannot be read as one ({data}). Convert one kind.")
    reader = readers.pop()
    if reader != "read_csv" and data.options:
        raise DataError(
            f"{listing(data.options)} is about CSV files, and {str(data)!r} is {_KINDS[reader]}; leave it out."
        )
    if reader not in ("read_csv", "read_parquet") and data.memory_limit is not None:
        raise DataError(
            f"memory_limit={data.memory_limit!r} is about CSV and Parquet files, which are streamed; {str(data)!r} is "
            f"{_KINDS[reader]} and is read as a whole. Leave it out, or convert the file to Parquet."
        )
    for file in data.files:
        if Path(file).stat().st_size == 0:
            raise DataError(f"File {file!r} is empty.")
        if reader == "read_csv":
            _check_start(file)
    return reader


def header(file: str, data: DataFile) -> list[str]:
    """The names in the first line of a CSV file, as they are spelt."""
    with _text(file, data) as lines:
        if data.delimiter:
            return [n.strip() for n in next(csv.reader(lines, delimiter=data.delimiter), [])]
        return [n.strip("\"' ") for n in re.split(f"[{''.join(_MARKS)}]", lines.readline().strip())]


def _text(file: str, data: DataFile) -> TextIO:
    encoding = {"latin-1": "latin-1", "utf-16": "utf-16"}.get(data.encoding or "", "utf-8-sig")
    return Path(file).open(encoding=encoding, errors="replace", newline="")


def check_lengths(data: DataFile) -> None:
    """Refuse CSV files with a row that is longer or shorter than the header, and name the row.

    Raises
    ------
    DataError
    """
    for file in data.files:
        with _text(file, data) as lines:
            first = next(lines, "")
            mark = max(_MARKS, key=first.count)
            rows = csv.reader(lines, delimiter=mark)
            wanted = len(next(csv.reader([first], delimiter=mark), []))
            for row in rows:
                if row and len(row) != wanted:
                    raise DataError(
                        f"Line {rows.line_num + 1:,} of {file!r} has {len(row)} fields, and the header {wanted}. Is "
                        "the file cut off? Mend the line or write the file again."
                    )


def is_moments(path: str | Path) -> bool:
    """Whether a file is one that `Moments.save` wrote, without reading it all."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if path.suffix.lower() == ".csv":
            return _HEADER.match(file.read(100)) is not None
        size = path.stat().st_size
        if path.suffix.lower() != ".parquet" or size < 12:
            return False
        # A Parquet file ends with its metadata, their length, and a mark.
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - 8 - length))
        return _FOOTER in file.read(length)


def _files(path: str) -> list[str]:
    """The files behind a path, a glob or a folder."""
    if Path(path).is_file():
        return [path]
    if Path(path).is_dir():
        return _inside(Path(path))
    fixed = len(Path(path[: min(path.find(m) for m in "*?[" if m in path)]).parts) if _is_glob(path) else 0
    found = [f for f in glob.glob(path, recursive=True) if Path(f).is_file()]  # noqa: PTH207 - absolute patterns too
    asked = any(part.startswith("_") for part in Path(path).parts[max(fixed - 1, 0) :])
    return [f for f in found if asked or not _left_behind(Path(f).parts[max(fixed - 1, 0) :])]


def _is_glob(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def _inside(folder: Path) -> list[str]:
    """Files in a folder and below."""
    found = [f for f in folder.rglob("*") if f.suffix.lower() in FILES and f.is_file()]
    return [str(f) for f in found if not _left_behind(f.relative_to(folder).parts)]


def _left_behind(parts: tuple[str, ...]) -> bool:
    """Whether a name begins with a dot or a bar: an engine's own, beside what it wrote."""
    return any(part[0] in "._" for part in parts if part not in (".", ".."))


def _reader(name: str) -> str:
    path = Path(name)
    if path.is_dir():
        inside = _inside(path)
        readers = {FILES[Path(f).suffix.lower()] for f in inside}
        if not readers:
            raise DataError(
                f"The folder {str(path)!r} holds no file that ends in one of {listing(FILES, quote=True)}."
            )
        if len(readers) > 1:
            kinds = listing([_KINDS[r] for r in sorted(readers)])
            raise DataError(
                f"The folder {str(path)!r} holds {kinds} files. To read those of one kind, give a pattern such as "
                f"{str(path / f'*{Path(inside[0]).suffix}')!r}."
            )
        return readers.pop()
    reader = FILES.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path.name!r} does not end in one of {listing(FILES, quote=True)}. Convert the file, or read it "
            "into a frame and give that."
        )
    if path.is_file():
        return reader
    if not _is_glob(str(path)):
        near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        found = f" The folder has {listing(near, quote=True, most=5)}." if near else ""
        raise DataError(f"File {str(path)!r} was not found.{found}")
    if not _files(name):
        raise DataError(f"No file matches {name!r}.")
    return reader


def _check_start(file: str) -> None:
    with Path(file).open("rb") as stream:
        start = stream.read(4)
    for mark, what in _OTHERS.items():
        if start.startswith(mark):
            raise DataError(
                f"{file!r} is called CSV but is {what}. Open it in the program that made it and save it as CSV (UTF-8)."
            )
