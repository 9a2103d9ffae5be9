"""The nodes and edges of a causal graph, read from text or pairs and checked against their roles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from msmmiv.errors import GraphError, listing

__all__ = ["Edge", "EdgeLike", "Graph", "read_edges", "site_words", "taken_out"]

Edge: TypeAlias = tuple[str, str]
#: "A -> B", "A <-> B", ("A", "B"), or ("A", "<->", "B") for names that hold an arrow themselves.
EdgeLike: TypeAlias = str | Sequence[str]

_ARROWS: Final = re.compile(r"(<->|->|<-)")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A causal graph with roles, valid as soon as it exists; `CausalDAG` asks the questions.

    Attributes
    ----------
    treatment, outcome : str
    mediators : tuple of str
    site : str or None
    edges : tuple of (cause, effect)
    bidirected : tuple of (str, str)
        Pairs with an unmeasured common cause that has no name.
    measured, unmeasured : tuple of str
        Declared causes beside treatment, mediators and site.
    """

    treatment: str
    mediators: tuple[str, ...]
    outcome: str
    site: str | None = None
    edges: tuple[Edge, ...] = ()
    bidirected: tuple[Edge, ...] = ()
    measured: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for role in ("mediators", "measured", "unmeasured"):
            object.__setattr__(self, role, _names(role, getattr(self, role)))
        self._check_names()
        position = {name: i for i, name in enumerate(self.nodes)}
        pairs = {(a, b): f"{a} -> {b}" for a, b in self.edges}
        both = {(a, b): f"{a} <-> {b}" for a, b in self.bidirected}
        for pair, text in (pairs | both).items():
            for name in pair:
                if name not in position:
                    raise GraphError.unknown_node(name, text, self.nodes)
        directed = sorted(pairs, key=lambda e: (position[e[0]], position[e[1]]))
        ends = {(a, b) if position[a] <= position[b] else (b, a) for a, b in both}
        object.__setattr__(self, "edges", tuple(directed))
        object.__setattr__(
            self, "bidirected", tuple(sorted(ends, key=lambda e: (position[e[0]], position[e[1]])))
        )
        self._check_edges()
        self._check_mediators()

    @property
    def others(self) -> tuple[str, ...]:
        """Declared causes, measured first."""
        return (*self.measured, *self.unmeasured)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Treatment, mediators, outcome, site, declared causes."""
        site = () if self.site is None else (self.site,)
        return (self.treatment, *self.mediators, self.outcome, *site, *self.others)

    def children(self, node: str) -> tuple[str, ...]:
        """Direct effects of a node, in the order of the nodes."""
        return tuple(b for a, b in self.edges if a == node)

    def parents(self, node: str) -> tuple[str, ...]:
        """Direct causes of a node that have names."""
        return tuple(a for a, b in self.edges if b == node)

    def reaches(self, start: str, *, without: Iterable[str] = ()) -> frozenset[str]:
        """Effects of a node along directed paths that pass through none of the nodes named."""
        shut, found, todo = set(without), set[str](), [start]
        while todo:
            for child in self.children(todo.pop()):
                if child not in found and child not in shut:
                    found.add(child)
                    todo.append(child)
        return frozenset(found)

    def _check_names(self) -> None:
        roles: list[tuple[str, Any]] = [("treatment", self.treatment), ("outcome", self.outcome)]
        roles += [("mediator", m) for m in self.mediators]
        roles += [] if self.site is None else [("site", self.site)]
        roles += [("declared cause", c) for c in self.others]
        if not self.mediators:
            raise GraphError("A causal graph needs at least one mediator: mediators=[...].")
        seen: dict[str, str] = {}
        for role, name in roles:
            if not isinstance(name, str) or not name.strip():
                raise GraphError(f"The {role} must be a name, not {name!r}.")
            if name in seen:
                raise GraphError(
                    f"{name!r} is in two roles: {seen[name]} and {role}. Give each its own name."
                )
            seen[name] = role

    def _check_edges(self) -> None:
        for a, b in (*self.edges, *self.bidirected):
            if a == b:
                raise GraphError(f"{a!r} has an edge to itself. A thing does not cause itself: leave it out.")
        for a, b in self.edges:
            edge = f"{a} -> {b}"
            if b == self.treatment and a in (*self.mediators, self.outcome):
                raise GraphError(
                    f"Edge {edge!r} goes into the treatment from what comes after it. Assignment is fixed before "
                    "mediators and outcome are; if it was revised later, the first assignment is the treatment."
                )
            if a == self.outcome:
                raise GraphError(
                    f"Edge {edge!r} leaves the outcome, which is the last thing in the graph. If an early outcome "
                    f"changed {b!r}, give it a name of its own and declare it."
                )
            if b == self.site:
                raise GraphError(
                    f"Edge {edge!r} goes into the site. Effects are compared inside sites, so what sends people to "
                    "them plays no part: leave it out."
                )
        if self.site is not None and any(self.site in pair for pair in self.bidirected):
            raise GraphError(
                f"The site {self.site!r} has a two-headed edge. Effects are compared inside sites, so what sends "
                "people to them plays no part: leave it out."
            )
        if circle := _cycle(self):
            raise GraphError.cycle(circle)

    def _check_mediators(self) -> None:
        after = self.reaches(self.treatment)
        for m in self.mediators:
            if m not in after:
                raise GraphError.left_out(m, self.treatment, self.outcome, before=True)
            if self.outcome not in self.reaches(m):
                raise GraphError.left_out(m, self.treatment, self.outcome, before=False)
        linked = {name for pair in (*self.edges, *self.bidirected) for name in pair}
        if idle := [c for c in self.others if c not in linked]:
            raise GraphError(
                f"{listing(idle, quote=True)} {'is' if len(idle) == 1 else 'are'} declared and has no edge. "
                "Say what it causes, such as 'U -> outcome', or leave it out."
            )


def read_edges(edges: Iterable[EdgeLike]) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Directed and two-headed edges from text or pairs.

    Examples
    --------
    >>> read_edges(["a -> b", ("b", "c"), "a <-> c", ("x->y", "<->", "c")])
    ((('a', 'b'), ('b', 'c')), (('a', 'c'), ('x->y', 'c')))
    """
    if isinstance(edges, str):
        raise GraphError(f"Edges come as a list, such as [{edges!r}].")
    directed: list[Edge] = []
    both: list[Edge] = []
    for given in edges:
        left, arrow, right = _read(given)
        if arrow == "<-":
            raise GraphError(f"Write the cause first: '{right} -> {left}' instead of {given!r}.")
        (both if arrow == "<->" else directed).append((left, right))
    return tuple(directed), tuple(both)


def taken_out(without: Iterable[EdgeLike], base: Sequence[Edge], added: Sequence[Edge]) -> tuple[Edge, ...]:
    """Edges to leave out of the parallel graph, each of which is in it."""
    out, both = read_edges(without)
    for edge, arrow in [*((e, "->") for e in out), *((e, "<->") for e in both)]:
        text = f"{edge[0]} {arrow} {edge[1]}"
        if arrow == "<->" or edge not in base:
            has = listing([f"{a} -> {b}" for a, b in base], quote=True, most=20)
            raise GraphError(
                f"{text!r} cannot be taken out: it is not in the parallel graph, which has {has}."
            )
        if edge in added:
            raise GraphError(f"{text!r} is both added and taken out. Leave it out of one of the two.")
    return out


def _read(given: EdgeLike) -> tuple[str, str, str]:
    """Left, arrow, right of one edge."""
    shape = "An edge is 'A -> B', 'A <-> B', ('A', 'B') or ('A', '<->', 'B')"
    if isinstance(given, str):
        parts = [part.strip() for part in _ARROWS.split(given)]
        if len(parts) > 3:
            raise GraphError(
                f"{shape}; {given!r} has {len(parts) // 2} arrows. Write one edge at a time, and give names that "
                "hold an arrow as a pair."
            )
    else:
        unchecked: object = given
        parts = list(unchecked) if isinstance(unchecked, Sequence) else []
        parts = [parts[0], "->", parts[1]] if len(parts) == 2 else parts
    if (
        len(parts) != 3
        or parts[1] not in ("->", "<-", "<->")
        or not all(isinstance(p, str) and p for p in parts)
    ):
        raise GraphError(f"{shape}, not {given!r}.")
    return parts[0], parts[1], parts[2]


def _names(role: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, set | frozenset):
        raise GraphError(f"{role} must be a list of names, not {value!r}.")
    return tuple(names)


def _cycle(graph: Graph) -> list[str]:
    """One circle of directed edges, or nothing; its first node is the first in the order of the graph."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return trail[trail.index(node) :]
        if node in done:
            return []
        for child in graph.children(node):
            if found := visit(child, [*trail, node]):
                return found
        done.add(node)
        return []

    for start in graph.nodes:
        if found := visit(start, []):
            return found
    return []


def site_words(name: str) -> str:
    """The word "site" with the column's own name, which may be anything, unless that says the same.

    Examples
    --------
    >>> site_words("the town"), site_words("Site")
    ('site (the town)', 'site')
    """
    return "site" if name.strip().casefold() in ("site", "sites") else f"site ({name})"
