"""One table in five formats: nothing in a label becomes markup, and every format says the same."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, DataError, MissingExtraError, OutputError
from msmmiv.show.formats import (
    Line,
    Sheet,
    as_bytes,
    save_sheet,
    sheet_of,
    to_csv,
    to_docx,
    to_html,
    to_latex,
    to_markdown,
)
from msmmiv.show.formats.as_latex import escape
from msmmiv.show.tables import headline
from tests.show.helpers import HOSTILE

NASTY = (*HOSTILE, "[x](javascript:y)", "| a | b |", "100% & #1_2 ~ ^ \\ {}", "* star", "=cmd|' /C calc'!A0", "-- –",
         "Ünïcödé ß Łódź ħ", "αβγ ≤ 1 R²", "`code` **b**", "\\\\[2cm]", "%", "</table>", "a\u00a0b")  # fmt: skip


@pytest.fixture(scope="module")
def nasty() -> Sheet:
    lines = tuple(Line((name.replace("\x00", " ") or "blank", "-1.5", "[1 to 2]", name), rule=i == 3)
                  for i, name in enumerate(NASTY))  # fmt: skip
    texts = tuple(
        Line(tuple(" ".join(mm.show.words.one_line(c).split()) for c in line.cells), line.rule)
        for line in lines
    )
    heads = (("", "(1)", "(2)", "<b>"), ("", "a|b", "$x$", "c_d & e"))
    return Sheet(
        "Caption <i> & 50% of $x_1$ | y", heads, texts, ("Note with <b>, $ and _ | and \\.", "* second")
    )


class Reader(HTMLParser):
    """Tags in order, cells as text, and whether all were closed."""

    VOID = frozenset(("meta", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.caption = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "caption":
            self.caption += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_html_is_whole_accessible_and_says_the_labels(nasty):
    reader = read(to_html(nasty, document=True))
    assert reader.caption == nasty.caption
    tags = {tag for tag, _ in reader.seen}
    assert not tags & {"script", "b", "i", "a", "img", "br"}
    assert reader.rows[2:] == [list(line.cells) for line in nasty.lines]
    scopes = [a["scope"] for tag, a in reader.seen if tag == "th"]
    assert scopes.count("row") == len(nasty.lines)
    assert scopes.count("col") == 6
    page = dict(reader.seen)
    assert page["html"]["lang"] == "en"
    assert page["meta"]


def test_a_header_spans_the_rows_it_stands_for():
    sheet = Sheet("", (("", "y"),), (Line(("a", "1")), Line(("", "(2)")), Line(("b", "3"))))
    reader = read(to_html(sheet))
    assert [a.get("rowspan") for t, a in reader.seen if t == "th" and a["scope"] == "row"] == ["2", None]
    assert reader.rows == [["", "y"], ["a", "1"], ["(2)"], ["b", "3"]]
    assert "caption" not in {t for t, _ in reader.seen}


def unescaped_cells(row: str) -> list[str]:
    return [c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_markdown_has_as_many_cells_in_every_row_and_no_markup(nasty):
    text = to_markdown(nasty)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(nasty.lines)
    assert {len(unescaped_cells(row)) for row in table} == {4}
    assert len({len(row) for row in table}) == 1
    body = "\n".join(table).replace("<br>", "")
    assert "<" not in body
    assert "](" not in body
    assert "$" not in body
    assert "`" not in body.replace("\\`", "")
    assert "*" not in body.replace("\\*", "")
    assert unescaped_cells(table[1])[1].endswith(":")  # numbers are flush right
    assert "[1 to 2]" in body


def test_csv_reads_back_to_the_frame_and_starts_no_formula(nasty):
    rows = list(csv.reader(io.StringIO(to_csv(nasty))))
    assert tuple(rows[0]) == nasty.columns
    cells = [list(line.cells) for line in nasty.lines]
    guarded = [[f"'{c}" if c[:1] in "=+@" and c else c for c in row] for row in cells]
    got = [[c[1:] if c.startswith("'-") else c for c in row] for row in rows[1:]]
    assert got == guarded
    assert all(not c.startswith("=") for row in rows for c in row)
    assert rows[1][1] == "-1.5"
    with_notes = list(csv.reader(io.StringIO(to_csv(nasty, notes=True))))
    assert [r[0] for r in with_notes[-3:]] == [nasty.caption, *nasty.notes]


def check_latex(text: str, columns: int) -> None:
    """Braces and environments closed, as many cells in every row, no special letter left alone."""
    plain = re.sub(r"(?<!\\)%.*", "", text).replace(r"\\", "\n").replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    assert re.findall(r"\\begin\{(\w+)", text) == re.findall(r"\\end\{(\w+)", text)[::-1] or sorted(
        re.findall(r"\\begin\{(\w+)", text)
    ) == sorted(re.findall(r"\\end\{(\w+)", text))
    body = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    rows = [r for r in body.splitlines() if r.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", r)) for r in rows} == {columns - 1}
    for row in rows:
        left = re.sub(r"\\[&%$#_{}]|\^\{\**\}", "", row)
        assert not re.search(r"[%$#_^~<>|\"]", left.replace("~", "")), row
        assert not re.search(r"[^\x00-\u017f–]", left), row


def test_latex_is_escaped_and_balanced(nasty):
    text = to_latex(nasty, label="tab:x}\\y", document=True)
    check_latex(text, 4)
    assert r"\label{tab:xy}" in text
    assert r"50\% of \$x\_1\$" in text
    assert "{[}U+0645 U+062F" in text
    assert r"{[}x{]}(javascript:y)" in text


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed; the structure is checked"
)
def test_latex_compiles(nasty, tmp_path):
    (tmp_path / "t.tex").write_text(to_latex(nasty, document=True), encoding="utf-8")
    letters = "".join(chr(c) for c in range(0xA1, 0x180))
    (tmp_path / "l.tex").write_text(
        to_latex(Sheet(letters, (("", letters),), (Line((letters, "1,234.5**")),)), document=True),
        encoding="utf-8",
    )
    for name in ("t.tex", "l.tex"):
        done = subprocess.run(
            [str(shutil.which("pdflatex")), "-interaction=nonstopmode", "-halt-on-error", "-draftmode", name],
            cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-1500:]
        assert "Misplaced" not in done.stdout


def test_numbers_stand_on_their_decimal_point():
    lines = (
        Line(("a", "-1.114")),
        Line(("b", "(0.272)")),
        Line(("c", "1,234")),
        Line(("d", "2.5**")),
        Line(("e", "none")),
    )
    text = to_latex(Sheet("", (("", "y"),), lines))
    assert "D{.}{.}{4.4}" in text  # places before the point (1234), and after it with bracket
    assert "a & -1.114 \\\\" in text
    assert "c & 1{,}234 \\\\" in text
    assert "d & 2.5^{**} \\\\" in text
    assert "e & \\multicolumn{1}{c}{none} \\\\" in text
    assert escape("[-1.5 to x-2]") == r"{[}\ensuremath{-}1.5 to x-2{]}"
    assert escape("日本", unicode=True) == "日本"


def test_word_has_the_frame_and_repeats_its_header(nasty):
    docx = pytest.importorskip("docx")
    document = docx.Document(io.BytesIO(to_docx(nasty)))
    (table,) = document.tables
    rows = [[c.text for c in row.cells] for row in table.rows]
    assert rows[:2] == [list(h) for h in nasty.heads]
    assert rows[2:] == nasty.to_frame().to_numpy().tolist()
    repeated = ["w:tblHeader" in row._tr.xml for row in table.rows]
    assert repeated == [True, True] + [False] * len(nasty.lines)
    texts = [p.text for p in document.paragraphs]
    assert texts[0] == nasty.caption
    assert texts[-2:] == list(nasty.notes)
    tabs = table.rows[2].cells[1].paragraphs[0].paragraph_format.tab_stops
    assert [t.alignment.name for t in tabs] == ["DECIMAL"]


def test_word_without_its_library_says_which_extra(nasty, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(MissingExtraError, match=r"msmmiv\[docx\]"):
        to_docx(nasty)
    with pytest.raises(MissingExtraError):
        save_sheet(nasty, tmp_path / "t.docx")
    assert list(tmp_path.iterdir()) == []


def test_files_are_whole_or_not_there(nasty, tmp_path, monkeypatch):
    for ending in ("tex", "html", "md", "csv"):
        path = save_sheet(nasty, tmp_path / f"t.{ending}")
        assert path.stat().st_size > 500
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == to_markdown(nasty)
    assert (tmp_path / "t.html").read_bytes() == as_bytes(nasty, "html")
    before = (tmp_path / "t.tex").read_bytes()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msmmiv.files.os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        save_sheet(nasty, tmp_path / "t.tex")
    assert (tmp_path / "t.tex").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.html", "t.md", "t.tex"]


def test_refusals(nasty, tmp_path):
    with pytest.raises(ChoiceError, match=r"'\.xlsx' is no format of a table. Use .tex, .html"):
        save_sheet(nasty, tmp_path / "t.xlsx")
    with pytest.raises(OutputError, match="there is no folder"):
        save_sheet(nasty, tmp_path / "no" / "t.tex")
    (tmp_path / "d.tex").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        save_sheet(nasty, tmp_path / "d.tex")
    with pytest.raises(ChoiceError, match="Did you mean 'latex'"):
        as_bytes(nasty, "latx")
    with pytest.raises(DataError, match=r"widths \[1, 2\]"):
        Sheet("", (("a", "b"),), (Line(("a",)),))
    with pytest.raises(DataError, match="header"):
        Sheet("", (), ())
    with pytest.raises(ChoiceError, match="not dict"):
        sheet_of({"a": 1})
    with pytest.raises(ChoiceError, match="sequence of sentences"):
        sheet_of(pd.DataFrame({"a": [1]}), notes="one")


def test_any_frame_and_any_table_of_the_report():
    frame = pd.DataFrame(
        {"term": ["m|1", None], "n": [1234, 5], "b": [0.123456, np.nan], "yes": [True, False]},
        index=pd.Index(["p", "q"], name="row"),
    )
    sheet = sheet_of(frame, caption="A frame", notes=["note"])
    assert sheet.columns == ("row", "term", "n", "b", "yes")
    assert [line.cells for line in sheet.lines] == [
        ("p", "m|1", "1,234", "0.1235", "yes"), ("q", "–", "5", "–", "no")]  # fmt: skip
    fit = mm.fit(mm.data.star(), "2sls")
    table = sheet_of(headline(fit))
    assert table.lines[0].cells[:3] == ("class_size", "-1.114", "0.2723")
    with pytest.raises(ChoiceError, match="caption of its own"):
        sheet_of(headline(fit), caption="x")
    empty = sheet_of(frame.iloc[:0])
    for made in (to_latex, to_html, to_markdown, to_csv):
        assert "term" in made(empty)
    check_latex(to_latex(empty), 5)
