"""Files of Stata, SPSS and SAS, read into memory: the columns of a design, with words where labels have them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DataError, MissingExtraError
from msmmiv.moments.labels import label_columns

__all__ = ["READERS", "read_stat_files"]

Read = Callable[[str, Sequence[str] | None, Sequence[str] | None, int | None], pd.DataFrame]


def read_stat_files(
    files: Sequence[str], reader: str, design: Design | None, most: int | None = None
) -> pd.DataFrame:
    """Rows of files that one program wrote, under one another.

    Value labels become the words of sites, arms, blocks and clusters; in all other columns the numbers stay. What the
    program counts as missing is missing.

    Parameters
    ----------
    files : sequence of str
    reader : {"stata", "spss", "sas"}
    design : Design, optional
        Whose columns are read; all without one.
    most : int, optional
        Rows to read of the first file.

    Raises
    ------
    ColumnError
        A column that one of the files lacks.
    DataError
        A file that cannot be read.
    MissingExtraError
        SPSS and SAS files, where pyreadstat is not installed.
    """
    names = None if design is None else list(dict.fromkeys(column for _, column in design.roles()))
    labels = None  # words wherever there are some, for looking at columns
    if design is not None:
        labels = label_columns(design)
    parts = []
    for file in files[:1] if most is not None else files:
        read = READERS[reader]
        there = list(read(file, None, (), 0).columns)
        for role, column in design.roles() if design is not None else ():
            if column not in there:
                raise ColumnError.not_found(column, role, there, where=f"{Path(file).name!r}")
        part = read(file, names, labels, most)
        for column in labels or ():  # nothing between quotes is what these programs write for missing text
            part[column] = part[column].mask(part[column].astype(str) == "", None)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def _stata(
    file: str, names: Sequence[str] | None, labels: Sequence[str] | None, most: int | None
) -> pd.DataFrame:
    reader: Any
    try:
        with pd.read_stata(file, iterator=True, convert_categoricals=labels is None) as reader:
            if most == 0:
                return pd.DataFrame(columns=list(reader.variable_labels()))
            frame: pd.DataFrame = reader.read(most, columns=None if names is None else list(names))
        if labels:
            with pd.read_stata(file, iterator=True) as reader:
                words = reader.read(most, columns=list(dict.fromkeys(labels)))
            frame = frame.assign(**{c: words[c] for c in words})
    except (ValueError, OSError, struct.error) as error:
        if "convert_categoricals" in str(error):
            raise DataError(
                f"{Path(file).name!r} has a column in which two codes have the same label and would become one. "
                "Give each code a label of its own."
            ) from error
        raise DataError(
            f"Could not read {file!r} as a Stata file: {' '.join(str(error).split())}."
        ) from error
    return frame


def _readstat(kind: str, program: str) -> Read:
    def read(
        file: str, names: Sequence[str] | None, labels: Sequence[str] | None, most: int | None
    ) -> pd.DataFrame:
        try:
            import pyreadstat
        except ImportError as error:
            raise MissingExtraError(
                f"{Path(file).name!r} needs pyreadstat, which is not installed: pip install 'msmmiv[io]'."
            ) from error
        options: dict[str, Any] = {"usecols": list(names)} if names is not None else {}
        options |= {"metadataonly": True} if most == 0 else {"row_limit": most} if most else {}
        try:
            frame, meta = getattr(pyreadstat, kind)(file, **options)
        except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, OSError, ValueError) as error:
            raise DataError(f"Could not read {file!r} as a file of {program}: {error}.") from error
        for column in frame.columns if labels is None else labels:
            if words := meta.variable_value_labels.get(column):
                _check_words(file, str(column), [w for v, w in words.items() if (frame[column] == v).any()])
                frame[column] = frame[column].map(partial(_word, words))
        return pd.DataFrame(frame)

    return read


def _check_words(file: str, column: str, words: Sequence[str]) -> None:
    twice = [w for w in words if words.count(w) > 1]
    if twice:
        raise DataError(
            f"Column {column!r} of {Path(file).name!r} has two codes with the label {twice[0]!r}, which would be one. "
            "Give each code a label of its own."
        )


def _word(words: dict[Any, str], value: Any) -> Any:
    return words.get(value, value)


#: One reader per program: file, columns (None: all), those that are labels, rows.
READERS: dict[str, Read] = {
    "stata": _stata,
    "spss": _readstat("read_sav", "SPSS"),
    "sas": _readstat("read_sas7bdat", "SAS"),
}
