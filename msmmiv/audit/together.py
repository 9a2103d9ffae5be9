"""Findings read together: a test that several failures can trip does not accuse one of them while another is caught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from msmmiv.audit.findings import LEVEL, Finding
from msmmiv.errors import listing

__all__ = ["read_together"]

_ORIGIN: Final = "linearity.origin_intercept"
_INEQUALITIES: Final = "monotonicity.density"
#: Tests of a bend, which speak to linearity and to independence alike.
_BENDS: Final = {"linearity.corrected_curvature", "linearity.reset", "linearity.vech"}
#: Failures that lift the surface off the origin, and have checks of their own.
_LIFTS: Final = ("iv", "vi", "vii", "ix")


def read_together(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings, with one left open where only a test speaks against it that another failure, found here, trips too.

    An intercept is read as a direct effect of treatment. Groups that differ at the start, effects that go with
    compliance inside or between sites, and curvature give one too: a line through a bent surface misses the origin.
    The inequalities between arms, read as defiers, fail with exclusion too, and defiers lift the surface: where both
    tests reject, both findings say so of one another. A bend that contradicts one of (iv) and
    (ix) is said beside the other, where it may be above the level after adjusting for more tests. What a graph declares
    is never taken back, and clears nothing.

    Examples
    --------
    >>> import msmmiv as mm
    >>> findings = mm.Study(mm.data.star()).audit(draws=199).findings
    >>> read_together(findings) == findings
    True
    """
    caught = [
        f for f in findings if f.assumption.id in _LIFTS and _against(f) and not _only_by(f, _INEQUALITIES)
    ]
    names = listing([f"({f.id})" for f in caught])
    made = (_left_open(f, "exclusion", names) if caught and _only_by(f, _ORIGIN) else f for f in findings)
    return _bends_shared(_lifts_shared(tuple(made)))


def _lifts_shared(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """A direct effect and defiers trip the test of the origin and the inequalities alike: neither is cleared."""
    shared = [f.id for f in findings if _only_by(f, _ORIGIN) or _only_by(f, _INEQUALITIES)]
    if len(shared) < 2:
        return findings
    note = (
        f"Only the origin and the inequalities speak against {listing([f'({i})' for i in shared])}. A direct effect "
        "and defiers trip both: read the two findings as one."
    )
    return tuple(replace(f, reasons=(*f.reasons, note)) if f.id in shared else f for f in findings)


def _bends_shared(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """What a bend says of one of (iv) and (ix) it says of the other."""
    bent = [f for f in findings if f.assumption.id in ("iv", "ix") and _against(f) and _against(f) <= _BENDS]
    if not bent:
        return findings
    note = (
        f"Only a bend of itt over compliance speaks against {listing([f'({f.id})' for f in bent])}. Between sites an "
        "outcome that is not linear in the mediator (iv) and effects that go with compliance (ix) look alike: read "
        "the two findings as one."
    )
    shared = {"iv", "ix"}
    return tuple(replace(f, reasons=(*f.reasons, note)) if f.assumption.id in shared else f for f in findings)


def _against(found: Finding) -> set[str]:
    """Checks that contradict a finding; none where it is not contradicted."""
    if found.status != "contradicted":
        return set()
    return {e.check for e, p in zip(found.evidence, found.adjusted, strict=True) if p <= LEVEL}


def _only_by(found: Finding, check: str) -> bool:
    """Whether one check, and neither another nor the author's graph, contradicts a finding."""
    return not found.declared and _against(found) == {check}


def _left_open(found: Finding, what: str, others: str) -> Finding:
    reason = (
        f"The test rejects, but so do those of {others}, and such a failure trips this test too: {what} cannot be "
        "judged before that is settled."
    )
    return replace(found, status="not assessed", reasons=(reason, *found.reasons))
