"""The page of an audit: nothing is lost, nothing is said twice, and what is contradicted stands out."""

from __future__ import annotations

import dataclasses
import math
import re
from html import unescape

import pytest

import msmmiv as mm
from msmmiv.inference.tests import NotApplicable
from msmmiv.show.audit_report import finding_items, render_audit
from msmmiv.show.formulas import marked, unicode_math
from msmmiv.show.plots import audit_pictures
from msmmiv.show.words import one_line
from tests.show.helpers import design, trial


@pytest.fixture(scope="module")
def audit():
    """A cascade and a direct effect that the author drew: (ii) and (v) are contradicted."""
    study = mm.Study(trial(range(14)), design("m1", "m2", covariates=("x",)))
    dag = mm.CausalDAG.from_design(study.design, edges=["m1 -> m2", "t -> y"])
    return study.audit(dag, draws=199, arguments={"ii": "<b>Nothing</b> else."})


@pytest.fixture(scope="module")
def pictures(audit):
    return audit_pictures(audit)


@pytest.fixture(scope="module")
def page(audit, pictures):
    return render_audit(audit, pictures=pictures)


def part(page, number):
    """One finding of the page."""
    return page.partition(f'<details id="assumption-{number}"')[2].partition('<details id="assumption-')[0]


def words(html):
    return one_line(unescape(re.sub(r"<[^>]+>", " ", html)))


def test_statuses_come_right_after_the_titles(page, audit):
    rows = re.findall(r'<tr><th scope="row"><a href="#assumption-.*?</tr>', page)
    assert len(rows) == 9
    for row, found in zip(rows, audit.findings, strict=True):
        sign = "✗ " * (found.status == "contradicted")
        assert words(row).startswith(f"({found.id}) {found.title} {sign}{found.status}")
    assert "none given" not in next(r for r, f in zip(rows, audit.findings, strict=True) if f.id == "iii")


def test_only_what_is_contradicted_is_marked(page, audit):
    assert {f.id for f in audit.having("contradicted")} >= {"ii", "v"}
    assert page.count('class="badge against"') == page.count("✗") == 2 * len(audit.having("contradicted"))
    assert page.count('class="badge"') == 2 * (9 - len(audit.having("contradicted")))


def test_formal_statements_prompts_and_arguments(page, audit):
    for found in audit.findings:
        text = part(page, found.assumption.id)
        form = found.variant or found.assumption
        assert f'<p class="formal">{marked(unicode_math(form.formal))}</p>' in text
        for asked in (found.assumption.prompts.education, found.assumption.prompts.epidemiology):
            assert one_line(asked) in words(text)
    assert page.count("The author argues:") == 1
    assert "&lt;b&gt;Nothing&lt;/b&gt; else." in part(page, "ii")
    assert audit["iii"].status == "supported"
    assert "gives no argument" not in part(page, "iii")
    assert "gives no argument" in part(page, "i")


def test_every_reading_once_and_every_reason_why_there_is_no_test(page, audit):
    for found in audit.findings:
        # A figure says in words for the blind what it shows: that is no second time.
        text = words(re.sub(r"<figure>.*?</figure>", "", part(page, found.assumption.id), flags=re.DOTALL))
        for e in found.evidence:
            if e.reading:
                assert text.count(one_line(e.reading)) == sum(e.reading in o.reading for o in found.evidence)
            if isinstance(e.test, NotApplicable):
                assert one_line(e.test.reason).rstrip(".")[1:] in text
            elif not e.reading:
                assert f"Null: {one_line(e.test.null)}" in text


def test_p_values_stay_beside_the_findings(audit):
    items = {item["label"]: item for item in finding_items(audit, [])}
    assert any("p = " in reason for item in items.values() for reason in item["reasons"])
    readings = [e.reading for f in audit.findings for e in f.evidence if e.reading]
    assert not [r for item in items.values() for reason in item["reasons"] for r in readings if r in reason]


def test_a_column_for_adjusted_values_only_where_they_differ(audit):
    for found, item in zip(audit.findings, finding_items(audit, []), strict=True):
        several = sum(not math.isnan(p) for p in found.adjusted) > 1
        if item["evidence"]:
            assert ("Adjusted p" in item["evidence"].columns) is several


def test_conditions_have_a_heading(page):
    _, heading, after = page.partition("<h3>Beyond the graph this needs:</h3>")
    assert heading
    assert "inside each site" in after[:400]
    plain = render_audit(mm.Study(mm.data.star()).audit(draws=199), pictures=())
    assert "Beyond the graph this needs" not in plain


def test_figures_stand_by_their_assumptions(page, audit, pictures):
    names = [p.name for p in pictures]
    assert "sensitivity_direct_effect" in names
    assert page.count("<svg ") == len(names)
    everything = [*names, "sensitivity_correlation"]
    shown = {item["id"]: item["figures"] for item in finding_items(audit, everything)}
    assert shown["ii"] == ["origin", "sensitivity_direct_effect"]
    assert "sensitivity_correlation" in shown["ix"]
    assert shown["v"] == ["causal_dag"]
    assert sorted(n for found in shown.values() for n in found) == sorted(everything)


def test_on_a_narrow_screen_tables_stack_and_the_graph_is_whole(page):
    assert re.search(r"max-width: 40rem\) \{\s+table.stack", page)
    assert page.count('class="card whole"') == 1
    for table in re.findall(r'<table class="stack">.*?</table>', page, re.DOTALL):
        cells = re.findall(r"<td([^>]*)>(.*?)</td>", table)
        assert [c for c, text in cells if "data-label" not in c and "badge" not in text] == []


def test_formulas_of_the_graph_are_in_signs(page, audit):
    assert "A⁻¹ ∑_s w_s g_s κ_s" in page
    odd = dataclasses.replace(audit, subject="mu")
    assert "Assumption audit: mu" in render_audit(odd, pictures=())
