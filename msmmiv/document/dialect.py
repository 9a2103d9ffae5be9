"""How a CSV file is written down: encoding, delimiter and decimal mark, found by looking at its text."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from msmmiv.errors import DataError
from msmmiv.moments.data_file import DataFile, Decimal, Encoding, reader_of

__all__ = ["Found", "found_dialect"]

_MARKS = (",", ";", "\t", "|")
_START = 1 << 18
_LINES = 200
#: Share of control characters that no text has.
_ODD = 0.02
_POINT = re.compile(r"[-+]?\d*\.\d+")
_COMMA = re.compile(r"[-+]?\d*,\d+")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(\.\d{3})+,\d+|[-+]?\d{1,3}(,\d{3})+\.\d+")

Found = tuple[DataFile, tuple[str, ...]]


def found_dialect(data: DataFile) -> Found:
    """The file with the options its text asks for, and what was seen in words; what was given stays.

    All files of one study are taken to be written like the first of them. Points, commas and UTF-8 are the reader's own
    habit and are not spelt out.

    Raises
    ------
    DataError
        A file that is no text, or in none of the encodings that are read.
    """
    reader_of(data)  # what is an Excel workbook, empty or not there is said by its name
    files = [f for f in data.files if f.lower().endswith(".csv")]
    if not files:
        return data, ()
    said: list[str] = []
    encoding: Encoding | None = data.encoding
    if encoding is None:
        encoding = next((e for e in map(_encoding, files) if e != "utf-8"), None)
        if encoding:
            said.append(f"not UTF-8: read as {encoding}")
    lines = _lines(files[0], encoding)
    delimiter = data.delimiter
    if delimiter is None and (mark := _delimiter(lines)) != ",":
        delimiter = mark
        said.append(f"fields are separated by {_word(mark)}")
    rows = list(csv.reader(lines[1:], delimiter=delimiter or ","))
    decimal: Decimal | None = data.decimal
    if decimal is None and (delimiter or ",") != "," and _decimal(rows) == ",":
        decimal = ","
        said.append("numbers are written with decimal commas")
    if any(_THOUSANDS.fullmatch(v.strip()) for r in rows for v in r):
        said.append("some numbers have marks between thousands, and are text until these are taken out")
    return replace(data, encoding=encoding, delimiter=delimiter, decimal=decimal), tuple(said)


def _encoding(file: str) -> Encoding:
    """Marks at the start decide; then whether the whole file decodes as UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with Path(file).open("rb") as stream:
        start = stream.read(4)
        if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            raise DataError(f"{file!r} is written in UTF-32. Save it again as CSV (UTF-8).")
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        stream.seek(0)
        _check_text(file, stream.read(_START))
        stream.seek(0)
        try:
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"


def _check_text(file: str, start: bytes) -> None:
    """Refuse what no text holds: zero bytes, or many control characters."""
    odd = sum(b < 32 and b not in b"\t\n\v\f\r\x1a\x1b" for b in start)
    if b"\0" in start or odd > _ODD * len(start):
        raise DataError(
            f"{file!r} is called CSV but is no text. Open it in the program that made it and save it as CSV (UTF-8)."
        )


def _lines(file: str, encoding: Encoding | None) -> list[str]:
    with Path(file).open("rb") as stream:
        text = stream.read(_START).decode(encoding or "utf-8", errors="ignore").lstrip("\ufeff")
    lines = text.splitlines()
    return [line for line in (lines[:-1] if len(lines) > _LINES else lines) if line.strip()][:_LINES]


def _delimiter(lines: list[str]) -> str:
    """The mark that splits most lines into as many fields as the header has; a comma if there is none."""
    best, most = ",", (0.0, 0)
    for mark in _MARKS:
        sizes = Counter(len(row) for row in csv.reader(lines, delimiter=mark))
        width = len(next(csv.reader(lines[:1], delimiter=mark), []))
        if width < 2:
            continue
        score = (sizes[width] / max(1, sum(sizes.values())), width)
        if score > most:
            best, most = mark, score
    return best


def _decimal(rows: list[list[str]]) -> str:
    fields = [v.strip() for row in rows for v in row]
    commas, points = (sum(bool(kind.fullmatch(v)) for v in fields) for kind in (_COMMA, _POINT))
    return "," if commas > points else "."


def _word(mark: str) -> str:
    return {"\t": "tabs", ";": "semicolons", "|": "bars"}.get(mark, mark)
