"""Results as small pieces of HTML for notebooks: escaped, without scripts, in the colours of the page around them."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

__all__ = ["card", "cell", "frame_table", "label", "number", "p_value", "pairs", "prose", "table"]

_ROWS = 10
_COLUMNS = 12
_WIDTH = 60

# Colours are inherited; lines are half transparent, so that they show on white and on black.
_STYLE = (
    "<style>.msmmiv{color:inherit;font-size:.95em;max-width:60em;overflow-x:auto;line-height:1.45}"
    ".msmmiv p{margin:.25em 0}.msmmiv .hd{font-size:1.1em;font-weight:600}"
    ".msmmiv table{border-collapse:collapse;margin:.5em 0;color:inherit;border:0}"
    ".msmmiv caption{text-align:left;caption-side:top;color:inherit;opacity:.8;padding:0 0 .2em}"
    ".msmmiv th,.msmmiv td{padding:.15em .7em;border:0;border-bottom:1px solid rgba(127,127,127,.35);"
    "text-align:left;vertical-align:top;background:transparent;color:inherit;font-weight:400;"
    "white-space:normal;overflow-wrap:break-word;word-break:normal}"
    ".msmmiv thead th{font-weight:600}"
    ".msmmiv .n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".msmmiv .dim{opacity:.8}</style>"
)
_JOINERS = "\u200c\u200d"  # inside Persian words and emoji


def label(value: Any, width: int = _WIDTH) -> str:
    r"""A name as escaped text on one line, cut in the middle where it is longer than ``width``.

    Control and direction characters go: they would turn the rest of the page around.

    Examples
    --------
    >>> label("<b>two\nlines</b>"), label("x" * 300, 9), label("\u202eevil"), label("")
    ('&lt;b&gt;two lines&lt;/b&gt;', 'xxxxx…xxx', 'evil', '(blank)')
    """
    text = _line(value) or "(blank)"
    if len(text) > width:
        tail = (width - 1) * 2 // 5
        text = f"{text[: width - 1 - tail]}…{text[-tail:]}"
    return html.escape(text)


def prose(value: Any, width: int = 600) -> str:
    """Sentences as escaped text, cut at a word where they are longer than ``width``.

    Examples
    --------
    >>> prose("Sites < 5 are few.", 12), prose("Few.")
    ('Sites &lt; 5…', 'Few.')
    """
    text = _line(value)
    return html.escape(text if len(text) <= width else f"{text[: width - 1].rsplit(' ', 1)[0]}…")


def _line(value: Any) -> str:
    return " ".join("".join(map(_letter, str(value))).split())


def _letter(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind in {"Cc", "Cs", "Zl", "Zp"}:
        return " "
    return "" if kind == "Cf" and letter not in _JOINERS else letter


def number(value: float) -> str:
    """A number with four digits; a dash where there is none.

    Examples
    --------
    >>> number(-1.113759), number(5871.0), number(float("nan")), number(float("inf"))
    ('-1.114', '5,871', '–', '∞')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def p_value(value: float) -> str:
    """A p-value to three decimals.

    Examples
    --------
    >>> p_value(0.0421), p_value(1e-9), p_value(float("nan"))
    ('0.042', '&lt;0.001', '–')
    """
    if math.isnan(value):
        return "–"
    return "&lt;0.001" if value < 0.0005 else f"{value:.3f}"


def cell(value: Any) -> str:
    """The text of a cell: numbers with four digits, everything else as a label.

    Examples
    --------
    >>> cell(0.12345), cell(12), cell(True), cell("a & b")
    ('0.1235', '12', 'True', 'a &amp; b')
    """
    if isinstance(value, str | bool):
        return label(value)
    try:
        return number(float(value))
    except (TypeError, ValueError):
        return label(value)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", numbers: Sequence[int] = ()
) -> str:
    """A table whose first column names the rows; cells, columns and caption are HTML, escaped already.

    Parameters
    ----------
    columns : sequence of str
    rows : iterable of sequences of str
    caption : str
    numbers : sequence of int
        Columns to align right.

    Examples
    --------
    >>> table(["term", "estimate"], [["m", "1.2"]], numbers=[1])[:32]
    '<table><thead><tr><th scope="col'
    """
    right = ['class="n"' if j in numbers else "" for j in range(len(columns))]
    head = "".join(_tag('th scope="col"', text, side) for text, side in zip(columns, right, strict=True))
    body = []
    for first, *rest in rows:
        others = (_tag("td", text, side) for text, side in zip(rest, right[1:], strict=True))
        name = _tag('th scope="row"', first, right[0])
        body.append(f"<tr>{name}{''.join(others)}</tr>")
    title = f"<caption>{caption}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _tag(name: str, text: str, side: str) -> str:
    return f"<{name}{' ' + side if side else ''}>{text}</{name.partition(' ')[0]}>"


def frame_table(frame: pd.DataFrame, *, what: str, caption: str = "", most: int = _ROWS) -> str:
    """The first rows of a frame, and how many more there are.

    Parameters
    ----------
    frame : DataFrame
    what : str
        What a row is, in the plural.
    caption : str
        Plain text; it is escaped here.
    most : int
        Rows to show; columns beyond the first twelve are counted.

    Examples
    --------
    >>> found = frame_table(pd.DataFrame({"site": range(30), "itt": 0.5}), what="sites")
    >>> found.count("<tr>"), "20 more sites" in found
    (11, True)
    """
    shown = frame.iloc[:most, :_COLUMNS]
    numbers = [j for j in range(1, shown.shape[1]) if pd.api.types.is_numeric_dtype(shown.dtypes.iloc[j])]
    # A row's name is a name, also where it is a number: site 1234 is not 1,234.
    kinds = [label, *(p_value if str(c).endswith("p_value") else cell for c in shown.columns[1:])]
    rows = (
        [kind(v) for kind, v in zip(kinds, row, strict=True)]
        for row in shown.itertuples(index=False, name=None)
    )
    out = table([label(c, 28) for c in shown], rows, caption=prose(caption), numbers=numbers)
    more = [f"{n:,} more {kind}" for n, kind in
            ((len(frame) - len(shown), what), (frame.shape[1] - shown.shape[1], "columns")) if n > 0]  # fmt: skip
    return out + (f'<p class="dim">… {prose(" and ".join(more))}</p>' if more else "")


def pairs(
    found: Sequence[tuple[str, Any]], columns: tuple[str, str] = ("role", "column"), *, most: int = 20
) -> str:
    """Names and values, one row each; beyond ``most`` they are counted.

    Examples
    --------
    >>> pairs([("site", "school")] * 30).count("<tr>")
    21
    """
    out = table(columns, [[label(a), label(b)] for a, b in found[:most]])
    return out + (f'<p class="dim">… {len(found) - most:,} more</p>' if len(found) > most else "")


def card(headline: str, *parts: str, notes: Iterable[str] = ()) -> str:
    """One result: the headline, then paragraphs and tables in the order given, then notes in small.

    Parameters
    ----------
    headline : str
        HTML, escaped already, as are the parts; a part that is no tag becomes a paragraph, an empty one nothing.
    notes : iterable of str
        Plain text; escaped here.

    Examples
    --------
    >>> page = card("5 sites", "Two arms.", notes=["x < y"])
    >>> page.endswith('<p class="hd">5 sites</p><p>Two arms.</p><p class="dim">x &lt; y</p></div>')
    True
    """
    body = "".join(p if p.startswith("<") else f"<p>{p}</p>" for p in parts if p)
    small = "".join(f'<p class="dim">{prose(n)}</p>' for n in notes if n)
    return f'{_STYLE}<div class="msmmiv"><p class="hd">{headline}</p>{body}{small}</div>'
