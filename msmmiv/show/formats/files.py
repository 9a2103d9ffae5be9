"""Tables as files: the ending says the format, and a file is there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from msmmiv.errors import ChoiceError, check_choice, listing
from msmmiv.files import write_whole
from msmmiv.show.formats.as_csv import to_csv
from msmmiv.show.formats.as_docx import to_docx
from msmmiv.show.formats.as_html import to_html
from msmmiv.show.formats.as_latex import to_latex
from msmmiv.show.formats.as_markdown import to_markdown
from msmmiv.show.formats.sheet import Sheet

__all__ = ["ENDINGS", "TableFormat", "as_bytes", "format_of", "save_sheet"]

TableFormat: TypeAlias = Literal["latex", "html", "markdown", "csv", "docx"]
ENDINGS: dict[str, TableFormat] = {
    ".tex": "latex", ".html": "html", ".htm": "html", ".md": "markdown", ".csv": "csv", ".docx": "docx",
}  # fmt: skip


def _page(sheet: Sheet) -> str:
    return to_html(sheet, document=True)


_TEXT: dict[str, Callable[[Sheet], str]] = {
    "latex": to_latex, "html": _page, "markdown": to_markdown, "csv": to_csv,
}  # fmt: skip


def format_of(path: str | Path) -> TableFormat:
    """The format that a file's ending stands for.

    Raises
    ------
    ChoiceError
        An ending that stands for none.

    Examples
    --------
    >>> format_of("table1.TEX")
    'latex'
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ChoiceError(
            f"{str(path)!r}: the ending {ending!r} is no format of a table. Use {listing(ENDINGS)}."
        )
    return ENDINGS[ending]


def as_bytes(sheet: Sheet, format: TableFormat) -> bytes:  # noqa: A002 - the word that readers use
    r"""What a file of that format holds.

    Examples
    --------
    >>> from msmmiv.show.formats import Line
    >>> as_bytes(Sheet("", (("", "y"),), (Line(("a", "1.5")),)), "csv")
    b',y\na,1.5\n'
    """
    check_choice(format, TableFormat, "format")
    return to_docx(sheet) if format == "docx" else _TEXT[format](sheet).encode("utf-8")


def save_sheet(sheet: Sheet, path: str | Path) -> Path:
    """Write a table; the ending of the path says in which format.

    Parameters
    ----------
    sheet : Sheet
    path : path
        Ending in .tex, .html, .md, .csv or .docx.

    Returns
    -------
    Path

    Raises
    ------
    ChoiceError
        Another ending.
    OutputError
        The folder is not there, or the file cannot be written.
    MissingExtraError
        Word without python-docx.
    """
    format_ = format_of(path)
    return write_whole(path, as_bytes(sheet, format_))
