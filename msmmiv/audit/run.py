"""audit_assumptions: run every check, and put what it found beside the nine assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from msmmiv.audit.assumption_files import load_assumptions
from msmmiv.audit.assumptions import Assumption
from msmmiv.audit.cascade import Cascade, cascade
from msmmiv.audit.checks import SURVEYS, Subject, Survey
from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.dag_meaning import only_through
from msmmiv.audit.findings import Finding, finding_of
from msmmiv.audit.result import Audit
from msmmiv.audit.together import read_together
from msmmiv.design import Design, Estimand, Label
from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.rank import RankReport
from msmmiv.diagnose.rank_evidence import rank_failure
from msmmiv.errors import ChoiceError, DesignError, MsmmivError, count, listing, whole_number
from msmmiv.inference.tests import NotApplicable
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.sums import Rows

__all__ = ["audit_assumptions"]

#: Least number of draws: the smallest p-value is one over one more, and Holm's method multiplies it.
DRAWS: Final = 199
_FEW: Final = (
    ": the smallest p-value that n draws can give is 1/(n + 1), and Holm's adjustment multiplies it by the number of "
    "tests, so that with 99 draws and six tests nothing could be contradicted at 5%"
)


def audit_assumptions(
    source: Moments | SiteEffects,
    *,
    dag: CausalDAG | None = None,
    arguments: Mapping[str, str] | None = None,
    site_covariates: pd.DataFrame | None = None,
    planned_shares: float | Mapping[Label, float] | None = None,
    draws: int = 999,
    seed: int = 0,
    rows: Rows | None = None,
) -> Audit:
    """Audit the nine assumptions: what the design guarantees, what the data contradict, and what has to be argued.

    Use it before a coefficient is believed. Every finding carries its tests, what they could have seen, and the
    author's argument or the place where one is missing; there is no overall verdict.

    Parameters
    ----------
    source : Moments or SiteEffects
        From a table of published estimates what needs people is "not assessed".
    dag : CausalDAG, optional
        The graph the author believes in; parallel mediators by default. An edge that an assumption rules out
        contradicts that assumption by the author's own account.
    arguments : mapping of str to str, optional
        The author's argument for an assumption by its number ("ii", "vii.a"); quoted, never weighed.
    site_covariates : DataFrame, optional
        Numeric columns indexed by site; otherwise site means of the design's covariates.
    planned_shares : float or mapping, optional
        Planned share treated, for all sites or by site.
    draws, seed : int
        Of simulated null distributions; 199 draws or more.
    rows : Rows, optional
        Open rows, for checks of persons; `Study.audit` supplies them.

    Returns
    -------
    Audit

    Raises
    ------
    ChoiceError
        Arguments for something that is none of the nine assumptions, or too few draws.
    DesignError
        A graph whose treatment, mediators, outcome or site are not those of the design.

    Notes
    -----
    A finding is contradicted when a test that its checklist calls decisive rejects at 5 % after Holm's adjustment for
    the number of such tests. Sizes of these tests: `docs/validation.md`.

    Examples
    --------
    >>> import msmmiv as mm
    >>> audit = mm.audit_assumptions(mm.data.star("math_two_mediators"))
    >>> audit["viii"].status, audit["v"].status
    ('contradicted', 'untestable: argue it')
    """
    _check(draws, seed)
    subject = Subject.of(
        source,
        site_covariates=site_covariates,
        planned_shares=planned_shares,
        draws=draws,
        seed=seed,
        rows=rows,
    )
    given = _arguments(arguments or {}, subject.estimand)
    graph = CausalDAG.from_design(subject.design) if dag is None else _checked(dag, subject.design)
    results: dict[str, object] = {"effects": subject.effects}
    evidence: list[Evidence] = []
    for survey in SURVEYS:
        found, said = _surveyed(survey, subject)
        evidence.extend(said)
        if found is not None:
            results[survey.name] = found
    declared = _declared(graph, results.get("rank"))
    if (chain := _chain(graph)) is not None:
        results["cascade"] = _cascade(subject, *chain)
    findings = tuple(
        finding_of(
            a,
            evidence,
            estimand=subject.estimand,
            guarantee=_guarantee(a, subject),
            declared=declared.get(a.id, ""),
            remark=_remark(a, subject),
            argument=given.get(a.id),
        )
        for a in load_assumptions()
    )
    read = _noted(read_together(findings), _without_controls(subject))
    return Audit(read, _title(subject), subject.estimand, graph, results, draws, seed)


def _check(draws: object, seed: object) -> None:
    whole_number(draws, "draws", least=DRAWS, more=_FEW)
    whole_number(seed, "seed", least=0)


def _surveyed(survey: Survey, subject: Subject) -> tuple[object | None, tuple[Evidence, ...]]:
    """What a survey found; where it is refused, the refusal takes the place of its checks."""
    try:
        return survey.run(subject)
    except MsmmivError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        return None, tuple(Evidence(c, NotApplicable(_short(c), reason), "evidence") for c in survey.checks)


def _short(check: str) -> str:
    """A check in words: "covariates joint" of "balance.covariates_joint"."""
    return check.partition(".")[2].replace("_", " ")


def _arguments(arguments: Mapping[str, str], estimand: Estimand) -> dict[str, str]:
    """Arguments by assumption, whatever form of its number they came under."""
    nine = load_assumptions()
    known = {a.id: a.id for a in nine} | {v.id: a.id for a in nine if (v := a.variant_for(estimand))}
    if not isinstance(arguments, Mapping):
        raise ChoiceError(
            f"arguments is a mapping such as {{'ii': 'Nothing else came.'}}, not {arguments!r}."
        )
    out: dict[str, str] = {}
    for key, text in arguments.items():
        if key not in known:
            raise ChoiceError(f"arguments has {key!r}; assumptions here are {listing(list(known), most=20)}.")
        if known[key] in out:
            raise ChoiceError(f"arguments has two entries for assumption {known[key]}; give one.")
        said: object = text
        if not isinstance(said, str) or not said.strip():
            raise ChoiceError(f"The argument for {key!r} must be text that is not empty, not {said!r}.")
        out[known[key]] = said.strip()
    return out


def _checked(dag: CausalDAG, design: Design) -> CausalDAG:
    if not isinstance(dag, CausalDAG):
        raise ChoiceError(
            f"dag= must be a CausalDAG, not {type(dag).__name__}; CausalDAG.from_design(design, edges=['a -> b'])."
        )
    for role in ("treatment", "outcome", "site"):
        if (role != "site" or dag.site is not None) and getattr(dag, role) != getattr(design, role):
            raise DesignError(
                f"The graph's {role} is {getattr(dag, role)!r}, the design's {getattr(design, role)!r}."
            )
    if set(dag.mediators) != set(design.mediators):
        raise DesignError(
            f"The graph's mediators are {listing(dag.mediators, quote=True)}, the design's "
            f"{listing(design.mediators, quote=True)}."
        )
    return dag


def _declared(dag: CausalDAG, rank: object | None) -> dict[str, str]:
    """What the author's graph, or exact algebra, says against an assumption."""
    out: dict[str, str] = {}
    for assumption, edges in dag.broken().groupby("assumption")["edge"]:
        out[str(assumption)] = (
            f"The graph you declared has {listing(list(edges))}, which this assumption rules out."
        )
    if isinstance(rank, RankReport) and (why := rank_failure(rank)):
        out["viii"] = why
    return out


def _chain(dag: CausalDAG) -> tuple[str, str] | None:
    """Two mediators of which the treatment moves the second by way of the first alone, where the graph has one pair."""
    pairs = [(a, b) for a, b in dag.edges if {a, b} <= set(dag.mediators) and only_through(dag, a, b)]
    return pairs[0] if len(pairs) == 1 else None


def _cascade(subject: Subject, first: str, second: str) -> Cascade | NotApplicable:
    try:
        return cascade(subject.source, first=first, second=second)
    except MsmmivError as error:
        return NotApplicable("cascade", " ".join(str(error).split()).rstrip("."))


def _guarantee(a: Assumption, subject: Subject) -> str:
    """What design or logic settles without data."""
    if a.id == "iii":
        return _linear_in_treatment(subject)
    if a.id == "iv" and len(subject.design.mediators) == 1 and subject.binary_mediators:
        return "The only mediator has two values, so that every person's outcome is linear in it."
    return ""


def _linear_in_treatment(subject: Subject) -> str:
    if subject.design.treatment_kind == "continuous" or not isinstance(subject.source, Moments):
        return ""  # a table of slopes does not say whether they are of two arms or of a dose
    arms = len(subject.effects.contrasts) + 1
    if arms == 2:
        return "With two arms every person's mediators are linear in the treatment by construction."
    return f"The {arms} arms enter one by one, so that no line through them is assumed."


def _remark(a: Assumption, subject: Subject) -> str:
    if a.id == "v" and len(subject.design.mediators) == 1:
        return "With one mediator in the model, whatever it changes on the way to the outcome is part of its effect."
    if a.id == "v":
        return "If one mediator feeds another, mm.CausalDAG says what the coefficients mean, and mm.cascade estimates."
    return ""


def _lacking(subject: Subject) -> list[Label]:
    """Sites without a single effect against the control."""
    known = np.isfinite(subject.effects.estimates.sum(axis=2)).any(axis=1)
    return [s for s, has in zip(subject.effects.sites, known, strict=True) if not has]


def _without_controls(subject: Subject) -> str:
    """Which sites have no controls, and what becomes of them."""
    sites = _lacking(subject)
    if not sites:
        return ""
    has, them = ("has", "it") if len(sites) == 1 else ("have", "them")
    which = f"{count(len(sites), 'site')} of {len(subject.effects.sites):,} ({listing(sites)}) {has}"
    if not isinstance(subject.source, Moments) or len(subject.source.arms) < 3:
        return f"{which} no effect against the control: tests that are made from effects by site leave {them} out."
    return (
        f"{which} no comparison with the control arm {subject.source.arms[0]!r}: two-stage least squares compares the "
        f"other arms there; tests that are made from effects by site leave {them} out."
    )


def _noted(findings: tuple[Finding, ...], note: str) -> tuple[Finding, ...]:
    """A note on the sample beside the finding on assignment, where the shares of the arms are reported."""
    if not note:
        return findings
    return tuple(replace(f, reasons=(*f.reasons, note)) if f.assumption.id == "vi" else f for f in findings)


def _title(subject: Subject) -> str:
    design = subject.design
    whose = "complier effects (late)" if subject.estimand == "late" else "average effects (ate)"
    every = len(subject.effects.sites)
    sites = every - len(_lacking(subject))
    # With several arms a site may lack controls: 2SLS compares its other arms, tests on site effects leave it out.
    some = "" if sites == every else f" with effects against the control (of {every})"
    ignored = ", people in one cluster taken as independent" if subject.effects.clusters_ignored else ""
    return f"{design.outcome} through {listing(design.mediators)}, {count(sites, 'site')}{some}, {whose}{ignored}"
