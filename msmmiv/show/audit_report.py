"""An audit as one HTML file, and its findings as the report shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from msmmiv.audit.assumptions import Assumption
from msmmiv.audit.check_names import CHECK_NAMES
from msmmiv.audit.findings import Finding
from msmmiv.audit.result import Audit
from msmmiv.diagnose.evidence import Evidence
from msmmiv.inference.tests import NotApplicable
from msmmiv.show.formulas import greek, unicode_math
from msmmiv.show.plots import Picture, audit_pictures
from msmmiv.show.provenance import versions
from msmmiv.show.tables import Table, make, p_cell
from msmmiv.show.template import filled, in_report
from msmmiv.show.words import number, one_line, p_value

__all__ = ["checks_table", "figure_links", "finding_items", "prompts_of", "render_audit", "sensitivity_table"]

#: Which figures belong to an assumption, by the beginning of their names.
_FIGURES: Final[Mapping[str, tuple[str, ...]]] = {
    "ii": ("origin", "sensitivity_direct_effect"),
    "iv": ("falsification",),
    "v": ("causal_dag",),
    "vi": ("balance",),
    "ix": ("independence", "sensitivity_correlation"),
}


def render_audit(audit: Audit, *, pictures: Sequence[Picture] | None = None) -> str:
    """The audit as one self-contained HTML page: no network, no other file.

    Parameters
    ----------
    audit : Audit
    pictures : sequence of Picture, optional
        The pictures of `audit_pictures`, if they were drawn already.

    Returns
    -------
    str

    Examples
    --------
    >>> import msmmiv as mm
    >>> page = render_audit(mm.Study(mm.data.star()).audit(draws=199))
    >>> page.startswith("<!doctype html>"), page.count("<details id=")
    (True, 9)
    """
    from markupsafe import Markup

    drawn = {p.name: p for p in (audit_pictures(audit) if pictures is None else pictures)}
    # The SVG is ours and escaped where it was made; everything else is escaped by the template.
    svgs = {name: Markup(p.svg()) for name, p in drawn.items()}  # noqa: S704
    meaning = audit.dag.meaning()
    references = dict.fromkeys(r for f in audit.findings for r in f.assumption.references)
    return filled(
        in_report("audit.html.j2"),
        title=f"Assumption audit: {one_line(audit.subject)}",
        # The graph has a section of its own.
        findings=finding_items(audit, [name for name in drawn if name != "causal_dag"]),
        opened=True,
        evidence=make(
            "Every test and figure; adjusted p-values are Holm's, for tests that can contradict.",
            ["Check", "Assumption", "Test", "Role", "Statistic", "Law", "p", "Adjusted p"],
            [row for f in audit.findings for row in _all_rows(f)],
        ),
        meaning=make(
            "Coefficients in the graph as drawn",
            ["Term", "Kind", "Meaning", "Total effect"],
            [[c.term, c.kind, c.sentence, c.total] for c in meaning.coefficients],
        ),
        notes=[_signs(note) for note in meaning.notes],
        conditions=meaning.conditions,
        pictures=drawn,
        svgs=svgs,
        references=list(references),
        seed=audit.seed,
        draws=audit.draws,
        versions=versions(),
    )


def _signs(note: str) -> str:
    """A note on the graph with its formulas in signs; names of columns, which may be Greek too, stay as they are."""
    for formula in ("A^-1 sum_s w_s g_s kappa_s", "A = sum_s w_s g_s g_s'", "by kappa_s in"):
        note = note.replace(formula, greek(formula))
    return note


def finding_items(audit: Audit, drawn: Sequence[str]) -> list[dict[str, Any]]:
    """The nine findings for ``findings.html.j2``, each with the figures of its own among those drawn."""
    return [_item(f, drawn) for f in audit.findings]


def _item(found: Finding, drawn: Sequence[str]) -> dict[str, Any]:
    form = found.variant or found.assumption
    wanted = _FIGURES.get(found.assumption.id, ())
    p = min((p for p in found.adjusted if math.isfinite(p)), default=math.nan)
    return {
        "id": found.assumption.id,
        "label": found.id,
        "title": form.title,
        "status": found.status,
        "p": p_value(p) if math.isfinite(p) else "",
        "argued": "given" if found.argument else "" if found.status == "supported" else "none given",
        "statement": form.statement,
        "formal": unicode_math(form.formal),
        "reasons": _short_reasons(found),
        "argument": _paragraphs(found.argument or ""),
        "breaks": greek(form.breaks),
        "data_can_say": form.data_can_say,
        "questions": found.assumption.questions,
        "prompts": prompts_of(found.assumption),
        "evidence": _evidence(found) if found.evidence else None,
        "figures": [name for name in drawn if name.startswith(wanted)] if wanted else [],
    }


def _paragraphs(text: str) -> list[str]:
    """A text at its empty lines; single line breaks stay."""
    return [part.strip() for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n")) if part.strip()]


def prompts_of(assumption: Assumption) -> list[tuple[str, str]]:
    """The question of each field of research, with the field's name in words.

    Examples
    --------
    >>> from msmmiv.audit import load_assumptions
    >>> [name for name, _ in prompts_of(load_assumptions()[0])]
    ['education', 'political science', 'epidemiology']
    """
    asked = assumption.prompts
    return [(f.name.replace("_", " "), one_line(getattr(asked, f.name))) for f in fields(asked)]


def _short_reasons(found: Finding) -> list[str]:
    """The reasons without the readings, which the table of evidence has."""
    out = []
    for reason in found.reasons:
        short = reason
        for e in found.evidence:
            for part in filter(None, (e.reading, e.detectable)):
                short = short.replace(part, "").replace(part[:1].upper() + part[1:], "")
        out.append(" ".join(short.split()))
    return [text for text in out if text]


def _evidence(found: Finding) -> Table:
    several = sum(math.isfinite(p) for p in found.adjusted) > 1
    rows = []
    for e, p in zip(found.evidence, found.adjusted, strict=True):
        row = [e.test.name, _role(e.role), p_cell(e.test.pvalue) if e.applies else ""]
        rows.append([*row, *([p_cell(p) if math.isfinite(p) else ""] if several else []), _reading(e)])
    columns = ["Test", "Role", "p", *(["Adjusted p"] if several else []), "Reading"]
    return make("What was looked at", columns, rows)


def checks_table(audit: Audit) -> Table:
    """The checks with a p-value, each once, with the assumptions it speaks to; those of rank have a section."""
    found: dict[tuple[str, str], tuple[Evidence, list[str]]] = {}
    for f in audit.findings:
        for e in f.evidence:
            if e.applies and math.isfinite(e.test.pvalue) and not e.check.startswith("rank."):
                found.setdefault((e.check, e.test.name), (e, []))[1].append(f"({f.id})")
    rows = [[e.test.name, ", ".join(to), _role(e.role), CHECK_NAMES[e.check], p_cell(e.test.pvalue)]
            for e, to in found.values()]  # fmt: skip
    return make("Checks of the audit", ["Test", "Speaks to", "Role", "What is compared", "p"], rows)


def sensitivity_table(audit: Audit) -> Table:
    """How large a violation would change the conclusion, or why that is not known.

    Examples
    --------
    >>> import msmmiv as mm
    >>> table = sensitivity_table(mm.Study(mm.data.star()).audit(draws=199))
    >>> table.rows[0][2].text[:50]
    'The coefficient of class_size, -1.19 by UJIVE from'
    """
    rows = [[_capital(CHECK_NAMES[e.check]), f"({f.id})", _reading(e)]
            for f in audit.findings for e in f.evidence if e.check.startswith("sensitivity.")]  # fmt: skip
    return make("Violations of an assumption", ["Violation", "Of", "What it would do"], rows)


def figure_links(audit: Audit, drawn: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name, words and finding of every figure that shows a check or a sensitivity."""
    return [
        (name, name.replace("_", " "), f.id)
        for f in audit.findings
        for name in drawn
        if f.assumption.id != "v" and name.startswith(_FIGURES.get(f.assumption.id, ("\0",)))
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _reading(e: Evidence) -> str:
    """What a test says and could have seen; its null where it says nothing, and the reason where there is no test."""
    if isinstance(e.test, NotApplicable):
        reason = f"{e.test.reason[:1].upper()}{e.test.reason[1:].rstrip('.')}."
        return " ".join(filter(None, (e.reading, e.detectable, reason)))
    null = f"Null: {e.test.null}; statistic {number(e.test.stat)}, {e.test.dist}."
    return " ".join(filter(None, (e.reading or null, e.detectable)))


def _role(role: str) -> str:
    return "can contradict" if role == "evidence" else "context"


def _all_rows(found: Finding) -> list[list[Any]]:
    return [
        [
            e.check,
            f"({found.id})",
            e.test.name,
            _role(e.role),
            e.test.stat,
            e.test.dist,
            p_cell(e.test.pvalue),
            p_cell(p),
        ]
        for e, p in zip(found.evidence, found.adjusted, strict=True)
    ]
