"""The moments file: one tidy table with a header that says what it is and seals it."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DataError, MomentsFileError, MsmmivError, OutputError, count, listing
from msmmiv.files import move_into, own_room
from msmmiv.moments.assembly import KEYS
from msmmiv.moments.cell_checks import check_kinds, check_labels, check_sums
from msmmiv.moments.cell_table import sums_of
from msmmiv.moments.flow import SampleFlow
from msmmiv.moments.row_files import read_parquet, write_parquet
from msmmiv.moments.small_cells import CellsTold
from msmmiv.moments.sums import CellSums

__all__ = ["FORMAT", "MomentsFile", "Units", "checked_units", "read_table", "write_table"]

#: Name and version of the format; a reader refuses versions it does not know.
FORMAT = "msmmiv-moments/2"
#: Version 1 had another seal, and no units, counts of cells or software in the header.
_FIRST = "msmmiv-moments/1"
_ZEROS = "0" * 64

Units = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MomentsFile:
    """What a moments file holds, checked.

    Attributes
    ----------
    name : str
        As it was given.
    seal : str
        64 hexadecimal digits; equal for the same content as CSV and as Parquet.
    version, software : str
        The format and what wrote the file; nothing in files of version 1.
    min_cell : int or None
        The floor its cells and counts keep to.
    design : Design
    units : tuple of (column, unit)
    sums : CellSums
    flow : SampleFlow
    """

    name: str
    seal: str
    version: str
    software: str
    min_cell: int | None
    design: Design
    units: Units
    sums: CellSums
    flow: SampleFlow


def write_table(
    path: Path,
    table: pd.DataFrame,
    *,
    design: Design,
    flow: SampleFlow,
    units: Units,
    told: CellsTold,
    min_cell: int | None,
) -> Path:
    """Write the table, whole or not at all; `Moments.save` is the public way."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise DataError(f"A moments file ends in .csv or .parquet, not {path.suffix!r}.")
    header: dict[str, Any] = {
        "format": FORMAT,
        "software": f"msmmiv {sys.modules['msmmiv'].__version__}",
        "design": design.to_dict(),
        "units": dict(units),
        "counts": "copies" if design.weight_kind == "frequency" else "rows",
        "labels": {k: table[k].map(type).iloc[0].__name__ for k in KEYS if k in table},
        "cells": asdict(told) | {"of_one_value": dict(told.of_one_value)},
        "min_cell": min_cell,
        "flow": flow.to_dict(),
    }
    body = _csv(table)
    blank = json.dumps(header | {"sha256": _ZEROS}, ensure_ascii=False)
    text = blank.removesuffix(f'{_ZEROS}"}}') + f'{_seal(blank, body)}"}}'
    try:
        if path.is_dir():
            raise DataError(f"{str(path)!r} is a folder; give the name of a file.")
        if not path.parent.is_dir():
            raise DataError(
                f"The folder {str(path.parent)!r} does not exist. Make it first, or save elsewhere."
            )
        with own_room(path.parent) as room:
            if kind == ".csv":
                (room / path.name).write_text(f"# {text}\n{body}", encoding="utf-8", newline="\n")
            else:
                write_parquet(table, room / path.name, text)
            move_into(path.parent, room, [Path(path.name)])
    except (OSError, OutputError) as error:
        raise DataError(f"Could not write {str(path)!r}: {error}. Save elsewhere.") from error
    return path


def checked_units(units: Mapping[str, str] | Units | None, design: Design, known: Units = ()) -> Units:
    """Units by column, for columns that hold numbers, together with those that are known already.

    Raises
    ------
    ColumnError
        A column without numbers in the design.
    DataError
        A unit that is not text, or another than the one that is known.
    """
    if not isinstance(units, Mapping | tuple | None):
        raise DataError(f"units must be a mapping such as {{'hours': 'hours a week'}}, not {units!r}.")
    given: dict[Any, Any] = dict(units or ())
    columns = [*design.variables, *([design.weights] if design.weights else [])]
    for column, unit in given.items():
        if column not in columns:
            raise ColumnError.not_found(str(column), "unit", columns, where="the design")
        if not isinstance(unit, str) or not unit.strip():
            raise DataError(f"The unit of {column!r} must be words such as 'hours a week', not {unit!r}.")
        if dict(known).get(column, unit.strip()) != unit.strip():
            raise DataError(
                f"{column!r} is in {dict(known)[column]!r} and cannot be saved as in {unit!r}: numbers are not "
                "converted. Make the moments again from rows that are converted."
            )
    every = dict(known) | {c: u.strip() for c, u in given.items()}
    return tuple((c, every[c]) for c in columns if c in every)


def read_table(path: Path) -> MomentsFile:
    """Read, check and unpack a moments file, its seal first; `Moments.load` is the public way."""
    name = str(path)
    if not path.is_file():
        raise MomentsFileError(f"Moments file {name!r} was not found.{_not_one_file(path)}")
    if path.suffix.lower() == ".parquet":
        text, table = read_parquet(path)
        forms = [(text, _csv(table) if text else "")]
    else:
        table, content = None, _text(path)
        forms = [_split(content), _split(content.replace("\r\n", "\n"))]
    if not forms[0][0]:
        raise MomentsFileError(
            f"{name!r} has no msmmiv header: it is not a moments file. Rows are read with "
            "Moments.from_data(path, design)."
        )
    header = _header(name, forms[0][0])
    seal = header["sha256"]
    sealed = _seal_of_version_1 if header["format"] == _FIRST else _seal_in
    body = next((body for text, body in forms if sealed(text, body) == seal), None)
    if body is None:
        raise MomentsFileError(
            f"{name!r} was altered after it was written (its seal does not match){_how(header, forms[0][1])}. Ask for "
            "the file as it was written."
        )
    return _unpack(name, header, _parsed(name, body, header) if table is None else table)


def _unpack(name: str, header: dict[str, Any], table: pd.DataFrame) -> MomentsFile:
    """The parts of a file whose seal is whole; another program's header can still be wrong."""
    try:
        design = Design(**header["design"])
        flow = SampleFlow.from_dict(header["flow"])
        units = checked_units(header.get("units"), design)
        floor = _floor(header.get("min_cell"))
        said = header.get("cells", {}).get("number", len(table))
    except (KeyError, TypeError, ValueError, AttributeError, MsmmivError) as error:
        raise MomentsFileError(f"The header of {name!r} is damaged: {error}.") from error
    if said != len(table):
        raise MomentsFileError(f"{name!r} has {count(len(table), 'cell')}, but its header says {said}.")
    sums, labels = sums_of(design, table, name), header.get("labels")
    if header["format"] != _FIRST or isinstance(labels, dict):
        check_labels(sums.keys, labels, name)
    check_sums(design, sums, name)
    columns = {column for _, column in design.roles()}
    if strange := sorted({c for c, _ in flow.missing} - columns):
        raise MomentsFileError(
            f"The sample flow of {name!r} counts missing values of {listing(strange, quote=True)}, not in its design."
        )
    if flow.rows_used != round(float(sums.n.sum())):
        raise MomentsFileError(
            f"The sample flow of {name!r} ends in {flow.rows_used:,} rows, but its cells hold {sums.n.sum():,.0f}."
        )
    if floor is not None and sums.n.min() < floor:
        raise MomentsFileError(
            f"{name!r} says that no cell has fewer than {count(floor, 'row')} (min_cell), but its smallest has "
            f"{sums.n.min():g}. Ask for a file that keeps to its floor."
        )
    return MomentsFile(
        name=name, seal=header["sha256"], version=header["format"], software=str(header.get("software", "")),
        min_cell=floor, design=design, units=units, sums=sums, flow=flow,
    )  # fmt: skip


def _floor(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"min_cell must be a whole number of 1 or more, or null, not {value!r}")


def _not_one_file(path: Path) -> str:
    """What to do about a folder, or a name that stands for several files."""
    if path.is_dir():
        return f" It is a folder: name the files in it, Moments.load(*sorted(Path({str(path)!r}).glob('*.csv')))."
    if glob.has_magic(path.name):
        where, what = str(path.parent), path.name
        return f" It takes files one by one: Moments.load(*sorted(Path({where!r}).glob({what!r})))."
    return ""


# --------------------------------------------------------------------------------------- text and seal


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def _seal(blank: str, body: str) -> str:
    """SHA-256 of header and table together, with zeros in the place of the seal."""
    return hashlib.sha256(f"# {blank}\n{body}".encode()).hexdigest()


def _seal_in(text: str, body: str) -> str:
    return _seal(text.replace(json.loads(text)["sha256"], _ZEROS), body)


def _seal_of_version_1(text: str, body: str) -> str:
    header = {k: v for k, v in json.loads(text).items() if k != "sha256"}
    return hashlib.sha256(f"{json.dumps(header, sort_keys=True)}\n{body}".encode()).hexdigest()


def _split(content: str) -> tuple[str, str]:
    """Header and body; the header is empty where there is none."""
    first, _, body = content.partition("\n")
    return (first.removeprefix("# ") if first.startswith("# {") else ""), body


def _text(path: Path) -> str:
    """The text of a CSV file; a byte order mark in front is no part of it.

    Raises
    ------
    MomentsFileError
        Other programs have written it again, and how that can be seen.
    """
    raw = path.read_bytes()
    again = f"Ask for {path.name!r} as it was written, and do not open it in a spreadsheet."
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MomentsFileError(f"{str(path)!r} is in UTF-16, but moments files are in UTF-8. {again}")
    start = raw[:400].decode("latin-1").removeprefix("\xef\xbb\xbf")
    ours = re.match(r'"*#[ {"]*format["\s:]*msmmiv-moments', start)
    if ours and not start.startswith("# {"):
        raise MomentsFileError(
            f"{str(path)!r} was saved again by a spreadsheet, which rewrites the header and rounds numbers. {again}"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not ours:
            return ""
        raise MomentsFileError(
            f"{str(path)!r} is not in UTF-8 (byte {error.start + 1:,}): it was saved again in another encoding. {again}"
        ) from error


def _header(name: str, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
        version = str(header["format"])
        seal = header["sha256"]
    except (json.JSONDecodeError, KeyError) as error:
        raise MomentsFileError(f"The header of {name!r} is damaged: {error}.") from error
    if version not in (FORMAT, _FIRST):
        number = re.fullmatch(r"msmmiv-moments/(\d+)", version)
        newer = number is not None and int(number[1]) > int(FORMAT.rpartition("/")[2])
        todo = (
            "It was written by a newer msmmiv: install that (pip install --upgrade msmmiv)"
            if newer
            else "Have it written again with Moments.save"
        )
        raise MomentsFileError(
            f"{name!r} is of format {version!r}; this version reads {FORMAT!r} and {_FIRST!r}. {todo}."
        )
    if not isinstance(seal, str) or not re.fullmatch("[0-9a-f]{64}", seal):
        raise MomentsFileError(f"The header of {name!r} is damaged: its seal is not 64 hexadecimal digits.")
    out: dict[str, Any] = header
    return out


def _how(header: dict[str, Any], body: str) -> str:
    """In what way a table differs from the one that was sealed, where it can be seen."""
    lines = body.splitlines()
    if lines and ";" in lines[0] and "," not in lines[0].partition("[")[0]:
        return ": semicolons stand between its columns, as when a spreadsheet saves it again"
    told = header.get("cells")
    said = told.get("number") if isinstance(told, dict) else None
    found = len(lines) - 1
    if said is None or found == said or any('"' in line for line in lines[1:]):  # labels may hold line ends
        return ""
    if not body.endswith("\n"):
        return f": it breaks off after {count(max(found, 0), 'line')} of {said}"
    return f": it has {count(found, 'cell')}, and had {said}"


def _parsed(name: str, body: str, header: dict[str, Any]) -> pd.DataFrame:
    parse: dict[str, Any] = {
        "str": str,
        "int": int,
        "float": float,
        "bool": {"True": True, "False": False}.__getitem__,
    }
    labels: Any = header.get("labels")
    try:
        table = pd.read_csv(io.StringIO(body), dtype=str, keep_default_na=False)
        if header["format"] != _FIRST:
            check_kinds(labels, [k for k in KEYS if k in table], name)
        for column in table:
            kind = labels.get(column, "float")
            table[column] = table[column].map(parse[kind])
    except (KeyError, ValueError, AttributeError, pd.errors.ParserError) as error:
        why = " ".join(str(error).split())
        raise MomentsFileError(f"The table of {name!r} cannot be read: {why}.") from error
    return table
