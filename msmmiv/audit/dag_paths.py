"""Paths and minimal separating sets in a small causal graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, TypeAlias

from msmmiv.audit.dag_graph import Graph
from msmmiv.errors import GraphError

__all__ = [
    "PATHS",
    "Separated",
    "Separators",
    "backdoor_paths",
    "closed_paths",
    "directed_paths",
    "minimal_separators",
    "opens_backdoor",
]

#: Whether the third, a set of nodes, blocks every path between the first two (d-separation).
Separated: TypeAlias = Callable[[str, str, Collection[str]], bool]

#: More paths than this are not listed.
PATHS: Final = 10_000
#: Sets tried for one pair of nodes before one minimal set has to do.
TRIES: Final = 4096


@dataclass(frozen=True)
class Separators:
    """Minimal separating sets of a pair, and whether all sets were tried."""

    sets: tuple[tuple[str, ...], ...]
    complete: bool


def minimal_separators(separated: Separated, a: str, b: str, causes: Sequence[str]) -> Separators:
    """All sets of these causes that separate two nodes and lose that when any one is taken out.

    Parameters
    ----------
    separated : callable
        Whether a set of nodes separates two others in the graph.
    a, b : str
    causes : sequence of str
        Nodes that may be held fixed, all of them direct or indirect causes of one of the two.

    Notes
    -----
    A minimal set consists of causes of the pair, and if any allowed set separates, all allowed causes together
    do (van der Zander, Liskiewicz and Textor 2014). That answers most pairs at once; and a cause without which all
    the others fail is in every set, so that only the other causes are tried with and without.

    Examples
    --------
    >>> def chain(a, b, given):  # s -> m -> y
    ...     return "m" in given
    >>> minimal_separators(chain, "s", "y", ["m"]).sets
    (('m',),)
    """
    if not separated(a, b, causes):
        return Separators((), complete=True)
    always = {n for n in causes if not separated(a, b, [c for c in causes if c != n])}
    if separated(a, b, always):
        return Separators((tuple(n for n in causes if n in always),), complete=True)
    found: list[tuple[str, ...]] = []
    for tries, some in enumerate(_subsets([n for n in causes if n not in always])):
        if tries >= TRIES:
            one = _reduced(separated, a, b, causes)
            return Separators(tuple(found) if found else (one,), complete=False)
        tried = tuple(n for n in causes if n in always or n in some)
        if not any(set(s) <= set(tried) for s in found) and separated(a, b, tried):
            found.append(tried)
    return Separators(tuple(found), complete=True)


def _subsets(pool: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(pool) + 1):
        yield from combinations(pool, size)


def _reduced(separated: Separated, a: str, b: str, causes: Sequence[str]) -> tuple[str, ...]:
    """One minimal set: causes left out one after the other while the rest still separates."""
    kept = list(causes)
    for node in causes:
        rest = [n for n in kept if n != node]
        if separated(a, b, rest):
            kept = rest
    return tuple(kept)


def directed_paths(graph: Graph, start: str, goal: str) -> list[tuple[str, ...]]:
    """Every directed path from one node to another, short ones first."""
    found: list[tuple[str, ...]] = []
    useful = {n for n in graph.nodes if n == goal or goal in graph.reaches(n)}

    def walk(trail: tuple[str, ...]) -> None:
        if trail[-1] == goal:
            _keep(found, trail)
            return
        for child in graph.children(trail[-1]):
            if child in useful:
                walk((*trail, child))

    walk((start,))
    return sorted(found, key=len)


def backdoor_paths(graph: Graph) -> list[tuple[str, ...]]:
    """Open paths from treatment to outcome that begin with an arrow into the treatment, sites held fixed.

    Each is given as nodes and arrows in turn: ``("T", "<-", "U", "->", "Y")``. A path without a collider goes up to a
    cause and then down; a path with one is closed, because nothing but the site is held fixed and the site has no
    causes in the graph.
    """
    found: list[tuple[str, ...]] = []
    twins: dict[str, list[str]] = {n: [] for n in graph.nodes}
    for a, b in graph.bidirected:
        twins[a].append(b)
        twins[b].append(a)

    def walk(trail: tuple[str, ...], *, up: bool) -> None:
        here = trail[-1]
        if here == graph.outcome:
            _keep(found, trail)
            return
        steps = [("->", n, False) for n in graph.children(here)] if len(trail) > 1 else []
        if up:
            steps += [("<-", n, True) for n in graph.parents(here)]
            steps += [("<->", n, False) for n in twins[here]]
        for arrow, node, still_up in steps:
            if node != graph.site and node not in trail[::2]:
                walk((*trail, arrow, node), up=still_up)

    walk((graph.treatment,), up=True)
    return sorted(found, key=len)


def closed_paths(graph: Graph) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every other path from treatment to outcome, whichever way its arrows point, with the nodes that close it.

    Those are the colliders on it, two arrows into one node, of which nothing is held fixed; and the site, which is. The
    site has no causes in the graph, so it is never a collider or an effect of one and opens no path.

    Raises
    ------
    GraphError
        More than 10,000 of them.
    """
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    steps: dict[str, list[tuple[str, str]]] = {n: [] for n in graph.nodes}
    for a, b in graph.edges:
        steps[a].append(("->", b))
        steps[b].append(("<-", a))
    for a, b in graph.bidirected:
        steps[a].append(("<->", b))
        steps[b].append(("<->", a))

    def walk(trail: tuple[str, ...]) -> None:
        if trail[-1] == graph.outcome:
            if closers := _closers(graph, trail):
                if len(found) >= PATHS:
                    raise GraphError(
                        f"There are more than {PATHS:,} closed paths from treatment to outcome. Ask for the others "
                        "alone with `paths(closed=False)`, or draw fewer nodes."
                    )
                found.append((trail, closers))
            return
        open_to = _connected(steps, graph.outcome, without=trail[::2])
        for arrow, node in steps[trail[-1]]:
            if node in open_to:  # not on the trail, and not a dead end
                walk((*trail, arrow, node))

    walk((graph.treatment,))
    return sorted(found, key=lambda each: len(each[0]))


def _closers(graph: Graph, trail: tuple[str, ...]) -> tuple[str, ...]:
    """Nodes that close a path: its colliders, and the site."""
    inner = zip(trail[1::2], trail[2:-1:2], trail[3::2], strict=False)
    return tuple(
        node
        for before, node, after in inner
        if node == graph.site or (before in ("->", "<->") and after in ("<-", "<->"))
    )


def _connected(
    steps: Mapping[str, Sequence[tuple[str, str]]], goal: str, *, without: Collection[str]
) -> set[str]:
    """Nodes with a way to the goal past those named."""
    found, todo = {goal}, [goal]
    while todo:
        for _, node in steps[todo.pop()]:
            if node not in found and node not in without:
                found.add(node)
                todo.append(node)
    return found


def opens_backdoor(graph: Graph, neighbour: str, *, two_headed: bool = False) -> bool:
    """Whether an open path to the outcome begins with an arrow into the treatment from this node.

    The answer of `backdoor_paths` without listing them: any walk up and then down holds a path.
    """
    closed = {graph.treatment, *(() if graph.site is None else (graph.site,))}
    if neighbour in closed:
        return False
    ways = {n: {n, *graph.reaches(n, without=closed)} for n in graph.nodes if n not in closed}
    tops = {neighbour} if two_headed else {n for n, after in ways.items() if neighbour in after}
    ends = set(tops)
    if not two_headed:
        for a, b in graph.bidirected:
            ends |= {b} if a in tops else {a} if b in tops else set()
    return any(graph.outcome in ways.get(n, ()) for n in ends)


def _keep(found: list[tuple[str, ...]], trail: tuple[str, ...]) -> None:
    if len(found) >= PATHS:
        raise GraphError(
            f"There are more than {PATHS:,} paths from treatment to outcome. Draw fewer nodes: leave out declared "
            "causes that have the same edges, or ask `broken()`, which looks at edges."
        )
    found.append(trail)
