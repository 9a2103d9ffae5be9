"""One table, many formats: LaTeX, HTML, Markdown, Word and CSV, all from one small structure."""

from msmmiv.show.formats.as_csv import to_csv
from msmmiv.show.formats.as_docx import to_docx
from msmmiv.show.formats.as_html import to_html
from msmmiv.show.formats.as_latex import to_latex
from msmmiv.show.formats.as_markdown import to_markdown
from msmmiv.show.formats.files import TableFormat, as_bytes, format_of, save_sheet
from msmmiv.show.formats.sheet import Line, Sheet, sheet_of

__all__ = ["Line", "Sheet", "TableFormat", "as_bytes", "format_of", "save_sheet", "sheet_of", "to_csv", "to_docx",
           "to_html", "to_latex", "to_markdown"]  # fmt: skip
