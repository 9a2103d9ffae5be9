"""HTML tables that screen readers can follow: caption, scopes, headers that span their rows."""

from __future__ import annotations

from html import escape

from msmmiv.show.formats.sheet import Line, Sheet, is_number

__all__ = ["to_html"]

_STYLE = (
    "body{font:1rem/1.4 system-ui,sans-serif;margin:1.5rem;color-scheme:light dark}"
    "table{border-collapse:collapse}caption{text-align:left;font-weight:600;padding-bottom:.5rem}"
    "th,td{padding:.15rem .6rem;vertical-align:top}tbody th{text-align:left;font-weight:400}"
    "thead tr:last-child>*{border-bottom:1px solid}thead tr:first-child>*{border-top:2px solid}"
    "tbody tr:last-child>*{border-bottom:2px solid}tr.rule>*{border-top:1px solid}"
    "p{max-width:60rem;font-size:.9rem;margin:.4rem 0}"
)


def to_html(sheet: Sheet, *, document: bool = False) -> str:
    """The table and its notes as HTML; every text is escaped.

    Parameters
    ----------
    sheet : Sheet
    document : bool
        A page of its own, with a little style; otherwise a fragment that takes the style of the page around it.

    Returns
    -------
    str

    Examples
    --------
    >>> print(to_html(Sheet("A", (("", "y"),), (Line(("<b>", "1.5")),))))
    <figure>
    <table>
    <caption>A</caption>
    <thead>
    <tr><td></td><th scope="col" dir="auto">y</th></tr>
    </thead>
    <tbody>
    <tr><th scope="row" dir="auto">&lt;b&gt;</th><td style="text-align:right">1.5</td></tr>
    </tbody>
    </table>
    </figure>
    <BLANKLINE>
    """
    spans = _spans(sheet.lines)
    lines = [
        "<figure>",
        "<table>",
        *([f"<caption>{escape(sheet.caption)}</caption>"] if sheet.caption else []),
        "<thead>",
        *(_head(head) for head in sheet.heads),
        "</thead>",
        "<tbody>",
        *(_row(line, span) for line, span in zip(sheet.lines, spans, strict=True)),
        "</tbody>",
        "</table>",
        *(f'<p dir="auto">{escape(note)}</p>' for note in sheet.notes),
        "</figure>",
    ]
    text = "\n".join(lines) + "\n"
    if not document:
        return text
    title = escape(sheet.caption or "Table")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{text}</main>\n</body>\n</html>\n"
    )


def _spans(lines: tuple[Line, ...]) -> list[int]:
    """How many rows each row's header stands for; 0 where the header above holds."""
    spans = [1] * len(lines)
    owner = 0
    for i, line in enumerate(lines):
        if line.cells[0] or i == 0:
            owner = i
        else:
            spans[owner] += 1
            spans[i] = 0
    return spans


def _head(cells: tuple[str, ...]) -> str:
    return f"<tr>{''.join(_column(c) for c in cells)}</tr>"


def _column(text: str) -> str:
    return f'<th scope="col" dir="auto">{escape(text)}</th>' if text else "<td></td>"


def _row(line: Line, span: int) -> str:
    rows = f' rowspan="{span}"' if span > 1 else ""
    head = f'<th scope="row"{rows} dir="auto">{escape(line.cells[0])}</th>' if span else ""
    cells = "".join(
        f'<td style="text-align:right">{escape(c)}</td>'
        if is_number(c)
        else f'<td dir="auto">{escape(c)}</td>'
        for c in line.cells[1:]
    )
    kind = ' class="rule"' if line.rule else ""
    return f"<tr{kind}>{head}{cells}</tr>"
