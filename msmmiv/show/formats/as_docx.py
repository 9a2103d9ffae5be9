"""Word: a real table whose header rows repeat on every page; python-docx comes with the extra ``docx``."""

from __future__ import annotations

import io
from typing import Any

from msmmiv.errors import MissingExtraError
from msmmiv.show.formats.sheet import Sheet, is_number

__all__ = ["to_docx"]

#: Columns from which the page is turned.
WIDE = 7
#: Points from the left edge of a cell to its decimal point.
DECIMAL = 28


def to_docx(sheet: Sheet) -> bytes:
    """The table as a Word document: caption, table, notes.

    Parameters
    ----------
    sheet : Sheet

    Returns
    -------
    bytes
        Of a .docx file.

    Raises
    ------
    MissingExtraError
        python-docx is not installed.
    """
    try:
        import docx
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Word tables need python-docx. Install it with: pip install 'msmmiv[docx]'. LaTeX, HTML, Markdown and CSV "
            "need nothing more."
        ) from error
    document = docx.Document()
    if len(sheet.columns) >= WIDE:
        _turn(document.sections[0])
    if sheet.caption:
        document.add_paragraph(sheet.caption, style="Caption").paragraph_format.keep_with_next = True
    table = document.add_table(rows=0, cols=len(sheet.columns))
    table.autofit = True
    for head in sheet.heads:
        row = table.add_row()
        _flag(row, "w:tblHeader")
        _fill(row, head, bold=True)
    _edge(table.rows[0], "top")
    _edge(table.rows[-1], "bottom")
    for line in sheet.lines:
        row = table.add_row()
        _fill(row, line.cells, bold=False)
        if line.rule:
            _edge(row, "top")
    for row in table.rows:
        _flag(row, "w:cantSplit")
    _edge(table.rows[-1], "bottom")
    for note in sheet.notes:
        _small(document.add_paragraph(note))
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def _fill(row: Any, cells: tuple[str, ...], *, bold: bool) -> None:
    from docx.enum.text import WD_ALIGN_PARAGRAPH, WD_TAB_ALIGNMENT
    from docx.shared import Pt

    for j, (cell, text) in enumerate(zip(row.cells, cells, strict=True)):
        paragraph = cell.paragraphs[0]
        paragraph.add_run(text).bold = bold
        _small(paragraph)
        if j and not bold and is_number(text):
            # Inside a table, numbers move to a decimal tab by themselves.
            paragraph.paragraph_format.tab_stops.add_tab_stop(Pt(DECIMAL), WD_TAB_ALIGNMENT.DECIMAL)
        elif j:
            paragraph.alignment = WD_ALIGN_PARAGRAPH.CENTER


def _small(paragraph: Any) -> None:
    from docx.shared import Pt

    paragraph.paragraph_format.space_after = Pt(2)
    for run in paragraph.runs:
        run.font.size = Pt(9)


def _turn(section: Any) -> None:
    """Landscape."""
    from docx.enum.section import WD_ORIENT

    section.orientation = WD_ORIENT.LANDSCAPE
    section.page_width, section.page_height = section.page_height, section.page_width


def _flag(row: Any, name: str) -> None:
    """A property of a row that python-docx has no name for."""
    from docx.oxml import OxmlElement

    row._tr.get_or_add_trPr().append(OxmlElement(name))  # noqa: SLF001 - the documented way to the XML


def _edge(row: Any, side: str) -> None:
    """A line above or below a row."""
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    for cell in row.cells:
        properties = cell._tc.get_or_add_tcPr()  # noqa: SLF001 - the documented way to the XML
        edges = properties.find(qn("w:tcBorders"))
        if edges is None:
            edges = OxmlElement("w:tcBorders")
            properties.append(edges)
        edge = OxmlElement(f"w:{side}")
        edge.set(qn("w:val"), "single")
        edge.set(qn("w:sz"), "6")
        edges.append(edge)
