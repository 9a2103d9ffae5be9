"""Audit: nine findings, and no verdict over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import pandas as pd

from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.findings import LEVEL, Finding
from msmmiv.audit.json_values import json_text
from msmmiv.design import Estimand
from msmmiv.errors import ChoiceError, listing
from msmmiv.notebook import card, label, p_value, prose, table

__all__ = ["Audit"]

_WIDTH = 100
_HEAD = (
    "A test can contradict an assumption; none confirms one. "
    "What no test can reach stands or falls with the argument beside it."
)


@dataclass(frozen=True, eq=False)
class Audit:
    """What design and data say about the nine assumptions; made by `Study.audit` or `audit_assumptions`.

    Attributes
    ----------
    findings : tuple of Finding
        Always nine, (i) to (ix).
    subject : str
        What was audited, in a line.
    estimand : {"ate", "late"}
    dag : CausalDAG
        Declared by the author, or the parallel one that the design implies.
    results : mapping of str to object
        Results of the checks by name, for figures: "linearity", "balance", "rank" and so on.
    draws, seed : int
        Of simulated null distributions.

    Examples
    --------
    >>> import msmmiv as mm
    >>> audit = mm.Study(mm.data.star()).audit(arguments={"ii": "Nothing came with small classes."})
    >>> len(audit.findings), audit["iii"].status, audit["ii"].argument
    (9, 'supported', 'Nothing came with small classes.')
    """

    findings: tuple[Finding, ...]
    subject: str
    estimand: Estimand
    dag: CausalDAG
    results: Mapping[str, Any] = field(repr=False)
    draws: int
    seed: int

    def __getitem__(self, assumption: str) -> Finding:
        """One finding by its number, "vii" or "vii.a" alike."""
        for found in self.findings:
            if assumption in (found.id, found.assumption.id):
                return found
        raise ChoiceError(
            f"{assumption!r} is no assumption; choose from {listing([f.id for f in self.findings])}."
        )

    def having(self, status: str) -> tuple[Finding, ...]:
        """The findings with one status."""
        return tuple(f for f in self.findings if f.status == status)

    def to_frame(self) -> pd.DataFrame:
        """Nine rows: ``assumption, title, status, evidence, statistic, p_value, detail, argument``.

        ``evidence`` is the check with the smallest p-value among those that can contradict the assumption, and
        ``p_value`` is adjusted for their number (Holm).
        """
        rows = []
        for f in self.findings:
            e = f.deciding
            p = min((p for p in f.adjusted if math.isfinite(p)), default=math.nan)
            rows.append(
                {
                    "assumption": f.id, "title": f.title, "status": f.status, "evidence": e.check if e else "",
                    "statistic": e.test.stat if e else math.nan, "p_value": p, "detail": f.reason,
                    "argument": f.argument or "",
                }
            )  # fmt: skip
        return pd.DataFrame(rows)

    def evidence_frame(self) -> pd.DataFrame:
        """One row per piece of evidence of every finding, with the reason where a test does not apply."""
        return pd.DataFrame(
            [{"assumption": f.id, **e} for f in self.findings for e in f.to_dict()["evidence"]]
        )

    def to_dict(self) -> dict[str, Any]:
        """Findings with all evidence, the graph, and the seed."""
        return {
            "subject": self.subject, "estimand": self.estimand, "level": LEVEL, "draws": self.draws,
            "seed": self.seed, "dag": self.dag.to_frame()["edge"].tolist(),
            "meaning": self.dag.meaning().to_frame().to_dict("records"),
            "findings": [f.to_dict() for f in self.findings],
        }  # fmt: skip

    def to_json(self) -> str:
        """`to_dict` as strict JSON: what is not a number is null."""
        return json_text(self.to_dict())

    @property
    def summary(self) -> str:
        """The page: every finding with its reason, its argument or the place where one is missing."""
        lines = [f"Assumption audit: {self.subject}", fill(_HEAD, _WIDTH), ""]
        for f in self.findings:
            lines.append(f"({f.id}) {f.title}: {f.status}")
            lines += [_paragraph(r) for r in f.reasons]
            if f.argument:
                lines.append(_paragraph(f'Author: "{f.argument}"'))
            elif f.status != "supported":
                lines.append(_paragraph(f"Author: no argument given. To answer: {f.assumption.questions[0]}"))
            lines.append("")
        lines += ["What the coefficients mean in the graph as drawn"]
        lines += [_paragraph(line) for line in str(self.dag.meaning()).splitlines() if line.strip()]
        if "cascade" in self.results:
            lines += [
                "",
                *(_paragraph(line) for line in str(self.results["cascade"]).splitlines() if line.strip()),
            ]
        return "\n".join(lines).rstrip() + "\n"

    def __str__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        kinds = dict.fromkeys(f.status for f in self.findings)
        rows = []
        for f, p in zip(self.findings, self.to_frame()["p_value"], strict=True):
            status = f"<strong>{f.status}</strong>" if f.status == "contradicted" else f.status
            argued = "given" if f.argument else "" if f.status == "supported" else "none given"
            rows.append(
                [
                    f"({f.id})",
                    label(f.title),
                    status,
                    p_value(p),
                    argued,
                    prose(f.reasons[0] if f.reasons else "", 160),
                ]
            )
        columns = ["", "assumption", "status", "p", "argument", "why"]
        return card(
            f"Assumption audit: {'; '.join(f'{len(self.having(k))} {k}' for k in kinds)}",
            prose(self.subject, 300), table(columns, rows, numbers=[3]), notes=[_HEAD],
        )  # fmt: skip


def _paragraph(text: str) -> str:
    return fill(" ".join(text.split()), _WIDTH, initial_indent="    ", subsequent_indent="    ")
