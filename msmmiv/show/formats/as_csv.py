"""CSV of the table as it is printed: for spreadsheets, and for reading back."""

from __future__ import annotations

import csv
import io

from msmmiv.show.formats.sheet import Sheet, is_number

__all__ = ["to_csv"]

# Spreadsheets take a cell that begins so for a formula and run it.
_FORMULA = ("=", "+", "-", "@", "\t")


def to_csv(sheet: Sheet, *, notes: bool = False) -> str:
    """The table as CSV, one header row; numbers are as printed.

    Parameters
    ----------
    sheet : Sheet
    notes : bool
        Add caption and notes as further rows below, one cell each.

    Returns
    -------
    str
        A text that begins like a formula of a spreadsheet and is no number gets an apostrophe in front.

    Examples
    --------
    >>> from msmmiv.show.formats import Line
    >>> print(to_csv(Sheet("", (("", "y"),), (Line(("=1+1", "-1.5")),))))
    ,y
    '=1+1,-1.5
    <BLANKLINE>
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_safe(c) for c in sheet.columns)
    writer.writerows([_safe(c) for c in line.cells] for line in sheet.lines)
    if notes:
        writer.writerows([_safe(t)] for t in (sheet.caption, *sheet.notes) if t)
    return out.getvalue()


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) and not is_number(text) else text
