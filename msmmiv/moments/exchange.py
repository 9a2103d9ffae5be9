"""The moments file: one tidy table with a header that says what it is and seals it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import DataError, MomentsFileError
from msmmiv.moments.files import read_parquet, write_parquet
from msmmiv.moments.flow import SampleFlow
from msmmiv.moments.sums import CellSums

__all__ = ["FORMAT", "read_table", "write_table"]

#: Name and version of the format; a reader refuses versions it does not know.
FORMAT = "msmmiv-moments/1"
KEYS = ("site", "block", "arm", "cluster")


def write_table(path: Path, design: Design, table: pd.DataFrame, flow: SampleFlow) -> Path:
    """Write the table; `Moments.save` is the public way."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise DataError(f"A moments file ends in .csv or .parquet, not {path.suffix!r}.")
    body = _csv(table)
    header: dict[str, Any] = {
        "format": FORMAT,
        "design": design.to_dict(),
        "flow": flow.to_dict(),
        "labels": {k: table[k].map(type).iloc[0].__name__ for k in KEYS if k in table},
    }
    text = json.dumps(header | {"sha256": _seal(header, body)}, ensure_ascii=False)
    try:
        if path.is_dir():
            raise DataError(f"{str(path)!r} is a folder; give the name of a file.")
        if not path.parent.is_dir():
            raise DataError(
                f"The folder {str(path.parent)!r} does not exist. Make it first, or save elsewhere."
            )
        if kind == ".csv":
            path.write_text(f"# {text}\n{body}", encoding="utf-8", newline="\n")
        else:
            write_parquet(table, path, text)
    except OSError as error:
        raise DataError(f"Could not write {str(path)!r}: {error}. Save elsewhere.") from error
    return path


def read_table(path: Path) -> tuple[str, tuple[Design, CellSums, SampleFlow]]:
    """Read, check and unpack a moments file, its seal first; `Moments.load` is the public way."""
    if not path.is_file():
        raise MomentsFileError(f"Moments file {str(path)!r} was not found.")
    if path.suffix.lower() == ".parquet":
        text, table = read_parquet(path)
        body = _csv(table) if text else ""
    else:
        text, body = _read_csv(path)
        table = None
    if not text:
        raise MomentsFileError(
            f"{str(path)!r} has no msmmiv header: it is not a moments file. Rows are read with "
            "Moments.from_data(path, design)."
        )
    try:
        header: dict[str, Any] = json.loads(text)
        version, seal = header["format"], header.pop("sha256")
    except (json.JSONDecodeError, KeyError) as error:
        raise MomentsFileError(f"The header of {str(path)!r} is damaged: {error}.") from error
    if version != FORMAT:
        raise MomentsFileError(f"{str(path)!r} is of format {version!r}; this version reads {FORMAT!r}.")
    if seal not in (_seal(header, body), _seal(header, body.replace("\r\n", "\n"))):
        raise MomentsFileError(f"{str(path)!r} was altered after it was written (its seal does not match).")
    design = Design(**header["design"])
    cells = _parsed(body, header["labels"]) if table is None else table
    return seal, (design, _unpack(design, cells), SampleFlow.from_dict(header["flow"]))


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def _seal(header: dict[str, Any], body: str) -> str:
    """SHA-256 of header and table together, so that neither can be changed alone."""
    text = json.dumps(header, sort_keys=True)
    return hashlib.sha256(f"{text}\n{body}".encode()).hexdigest()


def _read_csv(path: Path) -> tuple[str, str]:
    """Header and body; the header is empty where there is none."""
    try:
        first, _, body = path.read_bytes().decode("utf-8").partition("\n")
    except UnicodeDecodeError:
        return "", ""
    return (first.removeprefix("# ") if first.startswith("# {") else ""), body


def _parsed(body: str, labels: dict[str, str]) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(body), dtype=str, keep_default_na=False)
    parse: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": lambda v: v == "True"}
    for name in table:
        table[name] = table[name].map(parse[labels.get(str(name), "float")])
    return table


def _unpack(design: Design, table: pd.DataFrame) -> CellSums:
    names = design.variables
    p = len(names)

    def part(prefix: str) -> tuple[Any, Any, Any]:
        mean = np.column_stack([table[f"{prefix}mean[{a}]"] for a in names]).astype(float)
        scatter = np.empty((len(table), p, p))
        for i, a in enumerate(names):
            for j, b in enumerate(names[i:], start=i):
                scatter[:, i, j] = scatter[:, j, i] = table[f"{prefix}scatter[{a},{b}]"].to_numpy(float)
        return table[f"{prefix}weight"].to_numpy(float), mean, scatter

    first = part("")
    squared = part("squared_") if "squared_weight" in table else first
    keys = table[[k for k in KEYS if k in table]]
    return CellSums(keys, table["n"].to_numpy(float), *first, *squared)
