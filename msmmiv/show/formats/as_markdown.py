"""Markdown tables (GitHub's, Pandoc's and MyST's pipe tables) in which labels cannot become markup."""

from __future__ import annotations

import re

from msmmiv.show.formats.sheet import Sheet
from msmmiv.show.words import one_line

__all__ = ["escape", "to_markdown"]

_BACKSLASH = frozenset("\\|*_`~#")
# Brackets as entities: a backslash before them means mathematics to some readers.
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "$": "&#36;", "[": "&#91;", "]": "&#93;", "{": "&#123;"}
# A confidence set: brackets that no link can hide in.
_SET = re.compile(r"\[[\w.,∞ ()\-]*\]")


def to_markdown(sheet: Sheet) -> str:
    r"""The table as a pipe table, its caption above in bold and its notes below.

    Parameters
    ----------
    sheet : Sheet

    Returns
    -------
    str

    Examples
    --------
    >>> from msmmiv.show.formats import Line
    >>> print(to_markdown(Sheet("", (("", "y"),), (Line(("a|b", "1.5")),))))
    |      |   y |
    |:-----|----:|
    | a\|b | 1.5 |
    <BLANKLINE>
    """
    names = tuple("<br>".join(escape(p) for p in parts if p) for parts in zip(*sheet.heads, strict=True))
    rows = [tuple(escape(c) for c in line.cells) for line in sheet.lines]
    width = len(names)
    wide = [max(3, *(len(row[j]) for row in (names, *rows))) for j in range(width)]
    right = [sheet.numeric(j) for j in range(width)]
    rule = "|".join(
        ("-" * (w + 1) + ":") if r else ":" + "-" * (w + 1) for w, r in zip(wide, right, strict=True)
    )
    out = [_row(names, wide, right), f"|{rule}|", *(_row(row, wide, right) for row in rows)]
    head = [f"**{escape(sheet.caption)}**", ""] if sheet.caption else []
    notes = [part for note in sheet.notes for part in ("", escape(note))]
    return "\n".join([*head, *out, *notes]) + "\n"


def escape(text: str) -> str:
    r"""Text that Markdown prints as it is.

    Examples
    --------
    >>> print(escape("a|b *c* <i> [x](y)"), escape("[1.5, 2.5]"))
    a\|b \*c\* &lt;i&gt; &#91;x&#93;(y) [1.5, 2.5]
    """
    plain = one_line(text)
    if _SET.fullmatch(plain):
        return plain
    return "".join(_ENTITIES.get(c) or (f"\\{c}" if c in _BACKSLASH else c) for c in plain)


def _row(cells: tuple[str, ...], wide: list[int], right: list[bool]) -> str:
    out = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, wide, right, strict=True))
    return f"| {' | '.join(out)} |"
