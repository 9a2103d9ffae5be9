"""The checklist: complete in both forms, one variant per estimand, escaped, and filled in from an audit."""

from __future__ import annotations

import re
from html import unescape

import pytest

import msmmiv as mm
from msmmiv.audit.check_names import CHECK_NAMES
from msmmiv.errors import ChoiceError, OutputError
from msmmiv.show.checklist import checklist, write_checklist
from msmmiv.show.formulas import NOTATION, marked, unicode_math

NINE = mm.load_assumptions()


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_every_question_prompt_and_check_is_there(form):
    text = " ".join(unescape(checklist(form=form)).split())
    for a in NINE:
        for question in a.questions:
            assert question in text
        for prompt in (a.prompts.education, a.prompts.political_science, a.prompts.epidemiology):
            assert " ".join(prompt.split()) in text
        for check in (a.variant_for("ate") or a).checks:
            assert CHECK_NAMES[check] in text
    assert text.count("(can contradict)") == sum(len((a.variant_for("ate") or a).decisive) for a in NINE)


def test_the_estimand_decides_the_variant():
    late = checklist(estimand="late", form="markdown")
    assert "## (vii.b) No defiers" in late
    assert "vii.a" not in late
    assert "## (vii.a)" in checklist(form="markdown")


def test_one_field_only():
    text = checklist(field="epidemiology", form="markdown")
    assert text.count("- [ ] (epidemiology)") == 9
    assert "(education)" not in text


def test_an_audit_fills_it_in():
    audit = mm.Study(mm.data.star()).audit(arguments={"ii": "<b>Nothing</b> else."}, draws=199)
    page = checklist(audit=audit)
    assert "&lt;b&gt;Nothing&lt;/b&gt; else." in page
    assert "<b>Nothing" not in page
    assert len(re.findall(r'<p class="status( against)?" ', page)) == 9
    assert page.count('class="status against"') == len(audit.having("contradicted")) == page.count("✗")
    assert page.count('class="lines filled"') == page.count("<h3>The author argues:</h3>") == 1
    assert "The author argues: <b>Nothing</b> else." in checklist(audit=audit, form="markdown")


def test_what_is_contradicted_stands_out():
    study = mm.Study(mm.data.star())
    dag = mm.CausalDAG.from_design(
        study.design, edges=[f"{study.design.treatment} -> {study.design.outcome}"]
    )
    page = checklist(audit=study.audit(dag, draws=199))
    assert page.count('class="status against"') == 1
    assert "✗ </span>Contradicted." in page


def test_an_audit_has_its_own_estimand():
    audit = mm.Study(mm.data.star()).audit(draws=199)
    assert checklist(audit=audit) == checklist(audit=audit, estimand="ate")
    with pytest.raises(ChoiceError, match="the audit is about estimand='ate'"):
        checklist(audit=audit, estimand="late")


def test_formal_statements_and_notation():
    page, text = checklist(), checklist(form="markdown")
    for a in NINE:
        form = a.variant_for("ate") or a
        assert f'<p class="formal">{marked(unicode_math(form.formal))}</p>' in page
        assert f"${' '.join(form.formal.split())}$" in text
    assert NOTATION in text
    assert str(marked(NOTATION)) in page
    assert "sum_s" not in page + text


def test_the_page_needs_nothing_else():
    page = checklist()
    assert "://" not in page
    assert "<script" not in page
    assert page.startswith("<!doctype html>")


def test_files_by_their_ending(tmp_path):
    assert write_checklist(tmp_path / "a.md").read_text(encoding="utf-8").startswith("# Checklist")
    assert (
        write_checklist(tmp_path / "a.html", field="education")
        .read_text(encoding="utf-8")
        .startswith("<!doctype")
    )
    assert write_checklist(tmp_path / "a.HTM").read_text(encoding="utf-8").startswith("<!doctype")
    with pytest.raises(OutputError, match="could not be written"):
        write_checklist(tmp_path / "none" / "a.html")


@pytest.mark.parametrize("name", ["a.txt", "a.pdf", "a"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match=rf"ends in .html, .htm or .md .* {name!r} does not"):
        write_checklist(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_choices_are_closed():
    with pytest.raises(ChoiceError, match="physics"):
        checklist(field="physics")
    with pytest.raises(ChoiceError, match="pdf"):
        checklist(form="pdf")
