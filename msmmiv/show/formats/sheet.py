"""Sheet: a table as it will be printed, before any format: texts in rows and columns, and notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.errors import ChoiceError, DataError
from msmmiv.show.tables import Table
from msmmiv.show.words import number, one_line

__all__ = ["Line", "Sheet", "is_number", "sheet_of"]

# A number as the package writes it: alone, in round brackets (a standard error), with stars, or "<0.001".
_NUMBER = re.compile(r"\(?[<]?-?(\d[\d,]*(\.\d*)?(e-?\d+)?|∞)\)?\**")


@dataclass(frozen=True)
class Line:
    """One row of texts.

    Attributes
    ----------
    cells : tuple of str
        The first one is the row's header; where it is empty, the header above still holds.
    rule : bool
        Draw a line above.
    """

    cells: tuple[str, ...]
    rule: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table of texts with caption, header rows and notes; every format is written from it.

    Attributes
    ----------
    caption : str
    heads : tuple of tuple of str
        Header rows, each as wide as the body.
    lines : tuple of Line
    notes : tuple of str

    Raises
    ------
    DataError
        Rows of different widths, or no header.

    Examples
    --------
    >>> sheet = Sheet("Means", (("", "y"),), (Line(("a", "1.5")),))
    >>> sheet.columns, sheet.numeric(1)
    (('', 'y'), True)
    """

    caption: str
    heads: tuple[tuple[str, ...], ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        widths = {len(row) for row in (*self.heads, *(line.cells for line in self.lines))}
        if not self.heads or len(widths) != 1 or 0 in widths:
            raise DataError(
                f"All rows of a table need one width and a header; found widths {sorted(widths)}."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """One name per column: its header rows joined."""
        return tuple(" ".join(part for part in parts if part) for parts in zip(*self.heads, strict=True))

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers (it is then set flush right or on the decimal point)."""
        return column > 0 and any(is_number(line.cells[column]) for line in self.lines)

    def to_frame(self) -> pd.DataFrame:
        """The texts as they are printed, one column per column."""
        rows = [line.cells for line in self.lines]
        return pd.DataFrame(rows, columns=pd.Index(self.columns, dtype=object), dtype=object)


def is_number(text: str) -> bool:
    """Whether a cell is a number, and not words.

    Examples
    --------
    >>> [is_number(t) for t in ("-1.114", "(0.272)", "5,871", "<0.001", "1.2**", "[1 to 2]", "none", "")]
    [True, True, True, True, True, False, False, False]
    """
    return _NUMBER.fullmatch(text) is not None


def sheet_of(table: Table | pd.DataFrame, *, caption: str = "", notes: Sequence[str] = ()) -> Sheet:
    """A table of the report, or any tidy frame, as a sheet; use it to hand those on in every format.

    Parameters
    ----------
    table : Table or DataFrame
        Of a frame the columns; its index only where that has a name. Numbers get four digits.
    caption : str
        Of a frame; a `Table` has its own.
    notes : sequence of str
        Printed below.

    Raises
    ------
    ChoiceError
        Something else; a caption beside a table that has one; or notes that are one string.
    DataError
        No column.

    Examples
    --------
    >>> sheet_of(pd.DataFrame({"term": ["m"], "estimate": [0.123456]})).lines[0].cells
    ('m', '0.1235')
    """
    if isinstance(notes, str):
        raise ChoiceError("notes must be a sequence of sentences, such as ('One note.',).")
    said = tuple(one_line(n) for n in notes)
    if isinstance(table, Table):
        if caption:
            raise ChoiceError("This table has a caption of its own; leave caption out.")
        lines = tuple(Line(tuple(one_line(c.text) for c in row)) for row in table.rows)
        return Sheet(one_line(table.caption), (tuple(one_line(c) for c in table.columns),), lines, said)
    given: object = table
    if not isinstance(given, pd.DataFrame):
        raise ChoiceError(f"A table is made from a Table or a pandas DataFrame, not {type(given).__name__}.")
    frame = table.reset_index() if any(n is not None for n in table.index.names) else table
    rows = frame.itertuples(index=False, name=None)
    heads = (tuple(one_line(c) for c in frame.columns),)
    return Sheet(one_line(caption), heads, tuple(Line(tuple(_text(v) for v in row)) for row in rows), said)


def _text(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if isinstance(value, float | np.floating):
        return number(float(value))
    return one_line(value)
