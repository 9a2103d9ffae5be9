"""The nine assumptions as a checklist to print and fill in, or as Markdown for an appendix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from msmmiv.audit.assumption_files import load_assumptions
from msmmiv.audit.assumptions import Assumption
from msmmiv.audit.check_names import CHECK_NAMES
from msmmiv.audit.result import Audit
from msmmiv.design import Estimand
from msmmiv.errors import ChoiceError, OutputError, check_choice
from msmmiv.show.audit_report import prompts_of
from msmmiv.show.formulas import NOTATION, greek, unicode_math
from msmmiv.show.template import filled, source
from msmmiv.show.words import one_line, printable

__all__ = ["ResearchField", "checklist", "write_checklist"]

ResearchField: TypeAlias = Literal["education", "political_science", "epidemiology"]
Form: TypeAlias = Literal["html", "markdown"]

_ENDINGS: Final[Mapping[str, Form]] = {".html": "html", ".htm": "html", ".md": "markdown"}
_TESTABLE: Final = {
    "by design": "mostly a matter of design",
    "partly": "data can contradict it",
    "no": "no data can settle it: argue it",
}


def checklist(
    *,
    estimand: Estimand | None = None,
    field: ResearchField | None = None,
    audit: Audit | None = None,
    form: Form = "html",
) -> str:
    """The nine assumptions with their questions, room for answers, and what was found if there is an audit.

    Hand it to co-authors before the analysis, print it, or put it filled in into an appendix.

    Parameters
    ----------
    estimand : {"ate", "late"}, optional
        Decides which variant of (vii) and (ix) is shown; that of the audit, or "ate", by default.
    field : {"education", "political_science", "epidemiology"}, optional
        Show the question in the words of one field; all three by default.
    audit : Audit, optional
        Adds the statuses, their reasons and the author's arguments.
    form : {"html", "markdown"}

    Returns
    -------
    str
        One self-contained page.

    Raises
    ------
    ChoiceError
        An unknown choice, or an estimand that is not the audit's.

    Examples
    --------
    >>> import msmmiv as mm
    >>> print(mm.checklist(form="markdown", field="education").splitlines()[6])
    ## (i) No interference (SUTVA)
    """
    check_choice(form, Form, "form")
    if estimand is not None:
        check_choice(estimand, Estimand, "estimand")
    if field is not None:
        check_choice(field, ResearchField, "field")
    if audit is not None and estimand not in (None, audit.estimand):
        raise ChoiceError(f"estimand={estimand!r}, but the audit is about estimand={audit.estimand!r}.")
    chosen: Estimand = audit.estimand if audit is not None else estimand or "ate"
    items = [_item(a, chosen, field, audit) for a in load_assumptions()]
    subject = one_line(audit.subject) if audit else ""
    return (
        _markdown(items, subject)
        if form == "markdown"
        else filled(source("checklist.html.j2"), items=items, subject=subject)
    )


def write_checklist(
    path: str | Path,
    *,
    estimand: Estimand | None = None,
    field: ResearchField | None = None,
    audit: Audit | None = None,
) -> Path:
    """Write the checklist to a file: HTML to print, or Markdown for an appendix.

    Parameters
    ----------
    path : path
        Ends in .html or .htm, or in .md for Markdown.
    estimand, field, audit
        As in `checklist`.

    Returns
    -------
    Path
        That of the file.

    Raises
    ------
    OutputError
        When the file ends otherwise, or cannot be written.
    ChoiceError
        An unknown choice, or an estimand that is not the audit's.

    Examples
    --------
    >>> import msmmiv as mm, tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = mm.write_checklist(pathlib.Path(folder) / "nine.md", field="education")
    ...     path.read_text(encoding="utf-8").count("- [ ] (education)")
    9
    """
    target = Path(path)
    form = _ENDINGS.get(target.suffix.lower())
    if form is None:
        raise OutputError(f"A checklist ends in .html, .htm or .md (Markdown); {target.name!r} does not.")
    text = checklist(form=form, estimand=estimand, field=field, audit=audit)
    try:
        target.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(
            f"The checklist could not be written to {str(target)!r}: {error.strerror}."
        ) from error
    return target


def _item(
    a: Assumption, estimand: Estimand, field: ResearchField | None, audit: Audit | None
) -> dict[str, Any]:
    form = a.variant_for(estimand) or a
    found = audit[a.id] if audit else None
    shown = field.replace("_", " ") if field else None
    return {
        "id": form.id,
        "title": form.title,
        "statement": one_line(form.statement),
        "formal": unicode_math(form.formal),
        "latex": one_line(form.formal),
        "breaks": greek(one_line(form.breaks)),
        "data_can_say": one_line(form.data_can_say),
        "testable": _TESTABLE[form.testable],
        "checks": [
            f"{CHECK_NAMES[c]}{' (can contradict)' if c in form.decisive else ''}" for c in form.checks
        ],
        "questions": a.questions,
        "prompts": [(name, text) for name, text in prompts_of(a) if shown in (None, name)],
        "status": found.status if found else "",
        "reason": one_line(found.reason) if found else "",
        "argument": found.argument if found else None,
    }


def _markdown(items: list[dict[str, Any]], subject: str) -> str:
    lines = [f"# Checklist: the nine assumptions{f' ({subject})' if subject else ''}", ""]
    lines += ["No test confirms an assumption. Answer in prose what no test can reach.", "", NOTATION, ""]
    for item in items:
        lines += [f"## ({item['id']}) {item['title']}", "", item["statement"], ""]
        lines += [f"${item['latex']}$", ""]
        if item["status"]:
            lines += [f"**Status: {item['status']}.** {item['reason']}", ""]
        lines += [f"*If it fails:* {item['breaks']}", "", f"*What data can say* ({item['testable']}):"]
        lines += [item["data_can_say"], "", "*Checks:*", "", *(f"* {c}" for c in item["checks"]), ""]
        lines += [f"- [ ] {q}" for q in item["questions"]]
        lines += [f"- [ ] ({name}) {text}" for name, text in item["prompts"]]
        said = f"The author argues: {printable(item['argument'])}" if item["argument"] else "Answer: …"
        lines += ["", said, ""]
    return "\n".join(lines).rstrip() + "\n"
