"""LaTeX with booktabs, threeparttable and dcolumn: numbers on their decimal point, everything else escaped."""

from __future__ import annotations

import unicodedata

from msmmiv.show.formats.sheet import Line, Sheet, is_number
from msmmiv.show.words import one_line

__all__ = ["escape", "to_latex"]

PACKAGES = ("booktabs", "threeparttable", "dcolumn", "graphicx")
#: Columns from which the type is small and the columns stand closer.
WIDE = 7

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "{''}", "`": r"\textasciigrave{}",
    # After the end of a row these would be read as its options.
    "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip
_LETTERS = {
    "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "„": r"\quotedblbase{}", "…": r"\ldots{}",
    "−": r"\ensuremath{-}", "×": r"\ensuremath{\times}", "÷": r"\ensuremath{\div}", "∞": r"\ensuremath{\infty}",
    "≤": r"\ensuremath{\leq}", "≥": r"\ensuremath{\geq}", "≠": r"\ensuremath{\neq}", "≈": r"\ensuremath{\approx}",
    "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "¹": r"\textsuperscript{1}", "€": r"\texteuro{}",
    "•": r"\textbullet{}", "™": r"\texttrademark{}", "→": r"\ensuremath{\rightarrow}", "\u00a0": "~",
}  # fmt: skip
_GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
          "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega")  # fmt: skip
# Latin letters that a pdfLaTeX with T1 fonts does not know.
_UNKNOWN = frozenset("ĦħĸĿŀŉŦŧſ")


def to_latex(sheet: Sheet, *, label: str = "", document: bool = False, unicode: bool = False) -> str:
    r"""The table as a LaTeX float to be read in with ``\input``, or as a document of its own.

    Parameters
    ----------
    sheet : Sheet
    label : str
        For ``\ref``; letters, digits and ``:-.`` only.
    document : bool
        Put a document around it, which compiles alone.
    unicode : bool
        Leave letters of all scripts as they are, for XeLaTeX and LuaLaTeX. Otherwise those that pdfLaTeX does not know
        (Arabic, Chinese, emoji) are written as their code points, such as ``U+0645``.

    Returns
    -------
    str

    Examples
    --------
    >>> text = to_latex(Sheet("A & B", (("", "y"),), (Line(("a_1", "-1.5")),)))
    >>> text.splitlines()[5], text.splitlines()[10]
    ('\\caption{A \\& B}', 'a\\_1 & -1.5 \\\\')
    """
    width = len(sheet.columns)
    numeric = [sheet.numeric(j) for j in range(width)]
    kinds = "".join(_kind(sheet, j) if numeric[j] else "l" if j == 0 else "c" for j in range(width))
    close = [r"\small", r"\setlength{\tabcolsep}{3pt}"] if width >= WIDE else []
    name = "".join(c for c in label if c.isascii() and (c.isalnum() or c in ":-."))
    lines = [
        f"% In the preamble: \\usepackage{{{','.join(PACKAGES)}}} and \\usepackage[T1]{{fontenc}}",
        r"\begin{table}[htbp]",
        r"\centering",
        *close,
        # No wider than the text: a table of many columns is set smaller.
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        r"\begin{threeparttable}",
        *([rf"\caption{{{escape(sheet.caption, unicode=unicode)}}}"] if sheet.caption else []),
        *([rf"\label{{{name}}}"] if name else []),
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        *(_row(head, [False] * width, numeric, unicode=unicode) for head in sheet.heads),
        r"\midrule",
        *(row for line in sheet.lines for row in _lines(line, numeric, unicode=unicode)),
        r"\bottomrule",
        r"\end{tabular}",
        *_notes(sheet.notes, unicode=unicode),
        r"\end{threeparttable}}",
        r"\end{table}",
    ]
    text = "\n".join(lines) + "\n"
    return _document(text, unicode=unicode) if document else text


def _kind(sheet: Sheet, column: int) -> str:
    """A column of dcolumn, with as many places before and after the point as its numbers need."""
    numbers = [line.cells[column] for line in sheet.lines if is_number(line.cells[column])]
    before, after = zip(*(n.replace(",", "").partition(".")[::2] for n in numbers), strict=True)
    return f"D{{.}}{{.}}{{{max(map(len, before))}.{max(1, *map(len, after))}}}"


def escape(text: str, *, unicode: bool = False) -> str:
    r"""Text that LaTeX prints as it is.

    Parameters
    ----------
    text : str
    unicode : bool
        See `to_latex`.

    Examples
    --------
    >>> print(escape("50% of $x_1$ & [y]"))
    50\% of \$x\_1\$ \& {[}y{]}
    >>> escape("R² −1 日本")
    'R\\textsuperscript{2} \\ensuremath{-}1 {[}U+65E5 U+672C{]}'
    """
    out: list[str] = []
    codes: list[str] = []
    plain = unicodedata.normalize("NFC", one_line(text))
    for i, letter in enumerate(plain):
        if (
            letter == "-"
            and plain[i + 1 : i + 2].isdigit()
            and not plain[max(i - 1, 0) : i].isalnum()
            and not codes
        ):
            out.append(r"\ensuremath{-}")  # the sign of a number
            continue
        if letter == "-" and out and out[-1] == "-" and not codes:
            out.append("{}")  # two hyphens would become one dash
        found = _letter(letter, unicode=unicode)
        if found is None:
            codes.append(f"U+{ord(letter):04X}")
            continue
        out += _coded(codes)
        codes = []
        out.append(found)
    return "".join([*out, *_coded(codes)])


def _coded(codes: list[str]) -> list[str]:
    return [f"{{[}}{' '.join(codes)}{{]}}"] if codes else []


def _letter(letter: str, *, unicode: bool) -> str | None:
    """How LaTeX writes one letter; None where pdfLaTeX cannot."""
    if (known := _SPECIAL.get(letter) or _LETTERS.get(letter)) is not None:
        return known
    if letter.isascii() or unicode:
        return letter
    if (kind := unicodedata.category(letter)) in ("Zs", "Cf"):  # joiners are format characters
        return " " if kind == "Zs" else ""
    if "\u00a1" <= letter <= "\u017f" and letter not in _UNKNOWN:
        return letter
    script, _, name = unicodedata.name(letter, "").lower().partition(" letter ")
    return rf"\ensuremath{{\{name}}}" if script == "greek small" and name in _GREEK else None


def _lines(line: Line, numeric: list[bool], *, unicode: bool) -> list[str]:
    rule = [r"\midrule"] if line.rule else []
    return [*rule, _row(line.cells, [is_number(c) for c in line.cells], numeric, unicode=unicode)]


def _row(cells: tuple[str, ...], number: list[bool], numeric: list[bool], *, unicode: bool) -> str:
    out = []
    for cell, is_one, column in zip(cells, number, numeric, strict=True):
        if is_one and column:
            out.append(_number(cell))
        elif column and cell:
            out.append(rf"\multicolumn{{1}}{{c}}{{{escape(cell, unicode=unicode)}}}")
        else:
            out.append(escape(cell, unicode=unicode))
    return " & ".join(out) + r" \\"


def _number(cell: str) -> str:
    """A number inside a column of dcolumn, which is in mathematics."""
    body = cell.rstrip("*")
    stars = f"^{{{'*' * (len(cell) - len(body))}}}" if body != cell else ""
    return body.replace(",", "{,}").replace("∞", r"\infty") + stars


def _notes(notes: tuple[str, ...], *, unicode: bool) -> list[str]:
    if not notes:
        return []
    items = [rf"\item {escape(note, unicode=unicode)}" for note in notes]
    return [r"\begin{tablenotes}[flushleft]", r"\footnotesize", *items, r"\end{tablenotes}"]


def _document(text: str, *, unicode: bool) -> str:
    fonts = r"\usepackage{fontspec}" if unicode else "\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}"
    return (
        "\\documentclass{article}\n"
        f"{fonts}\n\\usepackage{{textcomp}}\n\\usepackage[margin=2cm]{{geometry}}\n"
        f"\\usepackage{{{','.join(PACKAGES)}}}\n\\begin{{document}}\n{text}\\end{{document}}\n"
    )
