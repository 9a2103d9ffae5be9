"""Which assumption an edge of the causal graph breaks, by the rules in the assumption files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from msmmiv.audit.assumption_files import load_assumptions
from msmmiv.audit.dag_graph import Graph
from msmmiv.audit.dag_paths import opens_backdoor

__all__ = ["NOT_DRAWABLE", "assumption_of", "direct", "judged", "judged_pair", "next_mediators"]

#: Edges of ``assumptions/*.toml`` that a graph of one person's variables has no place for, and why.
NOT_DRAWABLE: Final[Mapping[str, str]] = {
    "T_other -> M_p": "The graph is that of one person; another person's treatment is not in it.",
    "T_other -> Y": "The graph is that of one person; another person's treatment is not in it.",
    "M_other -> Y": "The graph is that of one person; another person's mediators are not in it.",
    "Gamma_p <-> Delta_p": "A graph says that an arrow is there, not that the people in whom it is strong are "
    "those in whom another one is.",
    "gamma_ps <-> delta_ps": "A graph says that an arrow is there, not that the sites in which it is strong are "
    "those in which another one is.",
    "gamma_ps <-> delta_qs": "A graph says that an arrow is there, not that the sites in which it is strong are "
    "those in which another one is.",
}

_ALLOWED: Final = "allowed: common causes are why instruments are used"


def next_mediators(graph: Graph, node: str) -> tuple[str, ...]:
    """Mediators that a node changes without another mediator in between."""
    before = {node} | graph.reaches(node, without=graph.mediators)
    found = {m for n in before for m in graph.children(n) if m in graph.mediators}
    return tuple(m for m in graph.mediators if m in found and m != node)


def direct(graph: Graph, node: str) -> bool:
    """Whether a node reaches the outcome past all (other) mediators."""
    return graph.outcome in graph.reaches(node, without=graph.mediators)


def judged(graph: Graph, a: str, b: str) -> tuple[str, str, str]:
    """Rule in the assumption files, assumption it breaks ("" for none) and words, for the edge a -> b."""
    t = graph.treatment
    if a == graph.site:
        return "", "", "shares that differ between sites" if b == t else "absorbed by intercepts"
    if b == t:
        return _into_treatment(graph, a)
    if a == t and (b == graph.outcome or (b not in graph.mediators and direct(graph, b))):
        return "T -> Y", assumption_of("T -> Y"), "the treatment reaches the outcome past the mediators"
    if a in graph.mediators:
        onward = (b,) if b in graph.mediators else () if b == graph.outcome else next_mediators(graph, b)
        if others := [m for m in onward if m != a]:
            return (
                "M_p -> M_q",
                assumption_of("M_p -> M_q"),
                f"{a} changes another mediator: {', '.join(others)}",
            )
    if a == t or a in graph.reaches(t):
        return (
            "",
            "",
            "effect of assignment"
            if a == t
            else "effect of a mediator"
            if a in graph.mediators
            else "on the way",
        )
    return "", "", _ALLOWED


def _into_treatment(graph: Graph, cause: str) -> tuple[str, str, str]:
    rule = "X -> T" if cause in graph.measured else "U -> T"
    if opens_backdoor(graph, cause):
        return rule, assumption_of(rule), "a cause of the treatment with a path of its own to the outcome"
    return rule, "", "harmless as drawn: its only path to the outcome is through the treatment"


def judged_pair(graph: Graph, a: str, b: str) -> tuple[str, str, str]:
    """The same for an unmeasured common cause of a and b that has no name."""
    if graph.treatment not in (a, b):
        return "", "", _ALLOWED
    if opens_backdoor(graph, b if a == graph.treatment else a, two_headed=True):
        return (
            "U -> T",
            assumption_of("U -> T"),
            "a common cause of the treatment and of what leads to the outcome",
        )
    return "U -> T", "", "harmless as drawn: no path to the outcome"


def assumption_of(rule: str) -> str:
    """Id of the assumption that rules an edge out, such as "ii" for "T -> Y"."""
    return _ruled_out()[rule]


@lru_cache(maxsize=1)
def _ruled_out() -> Mapping[str, str]:
    return {edge: a.id for a in load_assumptions() for edge in a.dag_edges_ruled_out}
