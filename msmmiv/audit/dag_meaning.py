"""What the coefficients of the regression over sites mean in a given causal graph, and what they then rest on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from msmmiv.audit.dag_graph import Graph
from msmmiv.audit.dag_rules import direct, next_mediators
from msmmiv.errors import listing

__all__ = ["CoefficientMeaning", "Meaning", "chain_conditions", "meaning_of", "only_through"]

#: Terms of a total effect that are written out.
_TERMS = 8


@dataclass(frozen=True)
class CoefficientMeaning:
    """One coefficient in words.

    Attributes
    ----------
    term : str
        The mediator, or "direct_effect".
    kind : str
        "average effect" (parallel mediators), "direct effect", "effect" (a mediator that changes no other one),
        "zero as drawn", "average direct effect of treatment".
    sentence : str
    total : str
        The mediator's total effect, put together from coefficients and from what one unit of a mediator does to another
        past all others (its direct effect); "" where the coefficient is all of it.
    """

    term: str
    kind: str
    sentence: str
    total: str = ""


@dataclass(frozen=True)
class Meaning:
    """What each coefficient estimates if the graph is right, and what has to be true beyond the graph.

    Attributes
    ----------
    coefficients : tuple of CoefficientMeaning
    conditions : tuple of str
        What a cascade adds to (vii) and (ix); empty with parallel mediators.
    notes : tuple of str
        Violations that no reading of the coefficients repairs, and what is still identified.
    """

    coefficients: tuple[CoefficientMeaning, ...]
    conditions: tuple[str, ...]
    notes: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Columns ``term, kind, sentence, total``."""
        rows = [(c.term, c.kind, c.sentence, c.total) for c in self.coefficients]
        return pd.DataFrame(rows, columns=["term", "kind", "sentence", "total"])

    def __str__(self) -> str:
        lines = [*self.notes]
        for c in self.coefficients:
            lines.append(f"{c.term}: {c.kind}. {c.sentence}")
            lines += [f"  total effect = {c.total}"] if c.total else []
        if self.conditions:
            lines += ["Beyond the graph this needs:", *(f"  {text}" for text in self.conditions)]
        return "\n".join(lines)


def meaning_of(graph: Graph, broken: Collection[str], *, direct_effect: bool) -> Meaning:
    """Read a graph; ``broken`` are the assumptions that its edges break.

    Notes
    -----
    With constant effects and links theta between mediators, itt_s = sum_p delta_p gamma_ps still holds, where gamma_ps
    is the whole effect of assignment on mediator p, however it gets there, and delta_p the effect of p past all other
    mediators. The total effect of p is the sum over chains p -> q -> ... -> r of the thetas along it times delta_r.
    """
    cascade = any(next_mediators(graph, m) for m in graph.mediators)
    found = [_mediator(graph, m, cascade=cascade) for m in graph.mediators]
    if direct_effect:
        found.append(_direct(graph))
    conditions: tuple[str, ...] = ()
    for p in graph.mediators:
        for q in next_mediators(graph, p):
            only = only_through(graph, p, q)
            conditions += chain_conditions(p, q, treatment=graph.treatment, outcome=graph.outcome, only=only)
    return Meaning(tuple(found), conditions, _notes(graph, broken, direct_effect=direct_effect))


def _mediator(graph: Graph, m: str, *, cascade: bool) -> CoefficientMeaning:
    y, onward, own = graph.outcome, next_mediators(graph, m), direct(graph, m)
    if not onward:
        if not cascade:
            return CoefficientMeaning(m, "average effect", f"The average effect of one unit of {m} on {y}.")
        return CoefficientMeaning(
            m, "effect", f"The average effect of one unit of {m} on {y}: it changes no other mediator."
        )
    through = listing(onward)
    total = _total(graph, m)
    if own:
        text = f"The average effect of one unit of {m} on {y} that does not go through {through}."
        return CoefficientMeaning(m, "direct effect", text, total)
    text = (
        f"All that {m} does to {y} goes through {through}, so its coefficient is zero if the graph is right; a "
        "coefficient other than zero contradicts the graph (or another assumption)."
    )
    return CoefficientMeaning(m, "zero as drawn", text, total)


def _direct(graph: Graph) -> CoefficientMeaning:
    name = "direct_effect"
    if not direct(graph, graph.treatment):
        text = f"{graph.treatment} does not reach {graph.outcome} past the mediators: zero if the graph is right."
        return CoefficientMeaning(name, "zero as drawn", text)
    text = (
        f"The average effect of {graph.treatment} on {graph.outcome} past all mediators, if that effect is unrelated "
        "to compliance across sites. The mediators' coefficients then rest on differences in compliance alone."
    )
    return CoefficientMeaning(name, "average direct effect of treatment", text)


def _total(graph: Graph, start: str) -> str:
    """The total effect as a sum over chains of mediators."""
    terms: list[str] = []

    def walk(chain: tuple[str, ...]) -> None:
        if len(terms) > _TERMS:
            return
        if direct(graph, chain[-1]):
            links = [f"(direct effect of {a} on {b})" for a, b in pairwise(chain)]
            terms.append(" × ".join([*links, f"(coefficient of {chain[-1]})"]))
        for m in next_mediators(graph, chain[-1]):
            walk((*chain, m))

    walk((start,))
    return " + ".join(terms[:_TERMS]) + (" + ..." if len(terms) > _TERMS else "")


def only_through(graph: Graph, first: str, second: str) -> bool:
    """Whether assignment moves the second mediator through the first one only."""
    sources = (graph.treatment, *(m for m in graph.mediators if m != second))
    return [s for s in sources if second in next_mediators(graph, s)] == [first]


def chain_conditions(first: str, second: str, *, treatment: str, outcome: str, only: bool) -> tuple[str, ...]:
    """What the link first -> second adds to assumptions (vii) and (ix), in words.

    Notes
    -----
    With Gamma the response of the first mediator to assignment, Theta what one unit of it does to the second, and
    Delta_1, Delta_2 their effects, a person's itt is Gamma Delta_1 + Gamma Theta Delta_2. The site's mean is
    gamma_1s delta_1s + E_s[Gamma Theta] delta_2s if Cov_s(Gamma, Delta_1) = Cov_s(Gamma Theta, Delta_2) = 0
    (Reardon and Raudenbush 2013, the model of their Figure 2).
    """
    t, y = treatment, outcome
    link, reach = f"how much {first} changes {second}", f"how far {t} moves {first}"
    own, theirs = f"the effect of {first} on {y} past {second}", f"the effect of {second} on {y}"
    if not only:
        passed = (
            f"inside each site, how far {t} moves a person's {second}, what {first} passes on included, is"
        )
        return (
            f"{passed} unrelated to {theirs} for that person",
            f"across sites, {link} is unrelated to the effect of every mediator on {y}, as compliances are (ix)",
        )
    alone = f"only the total effect of {first} is identified"
    rank = f"rank (viii): {link} differs between sites; where it does not, {alone}"
    return (
        f"inside each site, {reach} for a person is unrelated to {own} for that person",
        f"inside each site, {reach} and {link} for a person are unrelated to {theirs} for that person",
        f"(a) across sites, {theirs} is unrelated to {reach}",
        f"(b) across sites, {theirs} is unrelated to {link}",
        f"(c) across sites, {own} is unrelated to {reach}",
        f"(d) across sites, {own} is unrelated to {link}",
        rank,
    )


def _notes(graph: Graph, broken: Collection[str], *, direct_effect: bool) -> tuple[str, ...]:
    out = []
    if "vi" in broken:
        out.append(
            "Assignment shares causes with the outcome in this graph (vi): the contrasts inside sites are not effects "
            f"of {graph.treatment}, and no coefficient means what is said below."
        )
    if "ii" in broken and not direct_effect:
        out.append(
            f"{graph.treatment} reaches {graph.outcome} past the mediators in this graph (ii), by kappa_s in site s. "
            "Coefficients move by A^-1 sum_s w_s g_s kappa_s with A = sum_s w_s g_s g_s'. With direct_effect=True the "
            "intercept takes it up where it is unrelated to compliance."
        )
    if "ii" in broken or "vi" in broken:
        return tuple(out)
    first = next_mediators(graph, graph.treatment)
    if len(first) == 1 and next_mediators(graph, first[0]):
        out.append(
            f"Everything {graph.treatment} does goes through {first[0]}, so its total effect is also that of a model "
            f"with {first[0]} as the only mediator, under (vii) and (ix) for that total effect."
        )
    return tuple(out)
