"""Finding: one assumption, its status, the evidence for that status, and the author's argument beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from msmmiv.audit.assumptions import Assumption, AssumptionVariant
from msmmiv.design import Estimand
from msmmiv.diagnose.evidence import Evidence
from msmmiv.errors import MsmmivError, listing
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import Array

__all__ = ["LEVEL", "Finding", "Status", "finding_of", "holm"]

Status: TypeAlias = Literal[
    "supported", "not contradicted", "contradicted", "untestable: argue it", "not assessed"
]

#: Size of the tests of one finding together.
LEVEL = 0.05
#: Nothing rejects, and nothing says how much would have been needed: that is no support of any kind.
_SILENT = (
    "No test rejects, and what they could have seen is not known here, so that their silence says nothing."
)


@dataclass(frozen=True)
class Finding:
    """What design and data say about one assumption; there is no status that says it holds because data agree.

    Attributes
    ----------
    assumption : Assumption
        Statement, bias without it, questions.
    estimand : {"ate", "late"}
    status : str
        "supported" (by design or logic only), "not contradicted", "contradicted", "untestable: argue it" or
        "not assessed".
    reasons : tuple of str
        Why this status: one entry for each piece of evidence that decides, or for the design, or the graph; with (vi)
        also which sites have no controls.
    evidence : tuple of Evidence
        All that was looked at, what can contradict first.
    adjusted : tuple of float
        p-values of what can contradict, adjusted for their number (Holm); NaN for the rest.
    argument : str or None
        What the author says, quoted; it never changes the status.
    declared : bool
        Whether the author's graph, or exact algebra, contradicts it whatever the tests say.

    Examples
    --------
    >>> import msmmiv as mm
    >>> found = mm.Study(mm.data.star()).audit(draws=199)["iii"]
    >>> found.status, found.reason
    ('supported', "With two arms every person's mediators are linear in the treatment by construction.")
    """

    assumption: Assumption
    estimand: Estimand
    status: Status
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    adjusted: tuple[float, ...]
    argument: str | None = None
    declared: bool = False

    @property
    def variant(self) -> AssumptionVariant | None:
        """The form that the estimand needs, where there are two."""
        return self.assumption.variant_for(self.estimand)

    @property
    def id(self) -> str:
        """Its number: "i" to "ix", with a letter where the estimand decides."""
        return (self.variant or self.assumption).id

    @property
    def title(self) -> str:
        """The assumption in a few words."""
        return (self.variant or self.assumption).title

    @property
    def reason(self) -> str:
        """The reasons in one paragraph."""
        return " ".join(self.reasons)

    @property
    def deciding(self) -> Evidence | None:
        """The evidence with the smallest adjusted p-value; None where nothing could contradict."""
        if not np.isfinite(self.adjusted).any():
            return None
        return self.evidence[int(np.nanargmin(self.adjusted))]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values; NaN where there is no number."""
        return {
            "assumption": self.id,
            "title": self.title,
            "status": self.status,
            "reason": self.reason,
            "argument": self.argument,
            "declared": self.declared,
            "evidence": [
                {
                    "check": e.check,
                    "role": e.role,
                    "test": e.test.name,
                    "statistic": e.test.stat,
                    "law": e.test.dist,
                    "p_value": e.test.pvalue,
                    "adjusted_p_value": p,
                    "not_applicable": "" if e.applies else str(getattr(e.test, "reason", "")),
                    "reading": e.reading,
                    "detectable": e.detectable,
                }
                for e, p in zip(self.evidence, self.adjusted, strict=True)
            ],
        }


def finding_of(
    assumption: Assumption,
    evidence: Sequence[Evidence],
    *,
    estimand: Estimand,
    guarantee: str = "",
    declared: str = "",
    remark: str = "",
    argument: str | None = None,
) -> Finding:
    """The status that evidence, design and declared graph give to an assumption.

    Parameters
    ----------
    assumption : Assumption
    evidence : sequence of Evidence
        Of all checks; those that the assumption lists are taken.
    estimand : {"ate", "late"}
    guarantee : str
        Why design or logic alone settles it; empty otherwise.
    declared : str
        Which part of the graph that the author declared contradicts it; empty otherwise.
    remark : str
        What a reader should know beside a status that leaves it to argument.
    argument : str, optional
        Quoted, without any influence on the status.

    Notes
    -----
    The tests that can contradict are read together: p-values are adjusted by Holm's method, so that tests that keep
    their size contradict a true assumption in at most 5% of samples however many there are. An assumption that
    nothing in the data could confirm stays "untestable: argue it" when no test contradicts it. Where none of the tests
    knows what it could have seen, an assumption that is not contradicted is "not assessed".

    Examples
    --------
    >>> from msmmiv.audit import load_assumptions
    >>> from msmmiv.inference.tests import f_test
    >>> origin = Evidence("linearity.origin_intercept", f_test("origin", "none", 9.0, 1, 40), "evidence")
    >>> finding_of(load_assumptions()[1], [origin], estimand="ate", argument="Nothing else came with it.").status
    'contradicted'
    """
    form = assumption.variant_for(estimand) or assumption
    mine = [e for e in evidence if e.check in form.checks]
    deciding = [e for e in mine if e.role == "evidence" and e.check in form.decisive]
    if unclear := [e.check for e in deciding if e.applies and not np.isfinite(e.test.pvalue)]:
        raise MsmmivError(
            f"{listing(unclear)} has a statistic and no p-value: report this as an error of ours."
        )
    rest = [e for e in mine if e not in deciding]
    shown = [e for e in rest if e.check in form.decisive]
    adjusted = holm(np.array([e.test.pvalue for e in deciding]))
    ordered = (*deciding, *rest)
    p = (*map(float, adjusted), *[float("nan")] * len(rest))
    status, reasons = _status(
        form.testable, deciding, adjusted, shown, guarantee=guarantee, declared=declared, remark=remark
    )
    return Finding(assumption, estimand, status, reasons, ordered, p, argument, bool(declared))


def holm(pvalues: Array) -> Array:
    """p-values adjusted by Holm's method; NaN stays NaN and does not count.

    Examples
    --------
    >>> holm(np.array([0.01, np.nan, 0.04, 0.03])).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    out = np.full(len(pvalues), np.nan)
    have = np.flatnonzero(np.isfinite(pvalues))
    order = have[np.argsort(pvalues[have], kind="stable")]
    factor = np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(factor * pvalues[order]), 1.0)
    return out


def _status(
    testable: str,
    deciding: Sequence[Evidence],
    adjusted: Array,
    shown: Sequence[Evidence],
    *,
    guarantee: str,
    declared: str,
    remark: str,
) -> tuple[Status, tuple[str, ...]]:
    if declared:
        return "contradicted", (declared,)
    if guarantee:
        return "supported", (guarantee,)
    tests = int(np.isfinite(adjusted).sum())
    said = [_said(e, p, tests) for e, p in zip(deciding, adjusted, strict=True) if e.applies]
    against = [_said(e, p, tests) for e, p in zip(deciding, adjusted, strict=True) if p <= LEVEL]
    own = {e.check for e in deciding}
    missing = _not_tested(
        [e for e in (*deciding, *(e for e in shown if e.check not in own)) if not e.applies]
    )
    if against:
        return "contradicted", tuple(against)
    if testable == "no":
        if any(e.applies for e in (*deciding, *shown)):
            first = "Data can contradict it here and cannot support it."
        else:
            first = (
                "No data can support it, and none contradicts it here."
                if missing
                else "No data can settle it."
            )
        return "untestable: argue it", tuple(t for t in (first, remark, *said, missing) if t)
    if said:
        known = any(e.detectable for e in deciding if e.applies)
        reasons = (*said, missing) if known else (_SILENT, *said, missing)
        return "not contradicted" if known else "not assessed", tuple(t for t in reasons if t)
    context = [f"As context only: {_said(e, e.test.pvalue, 1)}" for e in shown if e.applies]
    return "not assessed", tuple(t for t in (missing, *context) if t) or ("No check speaks to it here.",)


def _not_tested(evidence: Sequence[Evidence]) -> str:
    """Which tests that could contradict do not exist here, and why; reasons that recur once."""
    why: dict[str, list[str]] = {}
    for e in evidence:
        if isinstance(e.test, NotApplicable):
            names = why.setdefault(e.test.reason.rstrip("."), [])
            if e.test.name not in names:
                names.append(e.test.name)
    return "Not tested: " + "; ".join(f"{listing(n)} ({r})" for r, n in why.items()) + "." if why else ""


def _said(evidence: Evidence, adjusted: float, tests: int) -> str:
    """What a piece of evidence says, with what it could have seen."""
    own = evidence.test.pvalue
    p = f"p {_p(own)}" + (
        f", {_p(adjusted).removeprefix('= ')} after Holm over {tests} tests" if tests > 1 else ""
    )
    parts = (f"{evidence.test.name}: {p}.", evidence.reading, evidence.detectable)
    return " ".join(_capital(part) for part in parts if part)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
