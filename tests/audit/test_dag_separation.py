"""Separation, separating sets and paths against brute force and against networkx, on random graphs."""

from __future__ import annotations

from itertools import combinations, pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.dag_graph import Graph
from msmmiv.audit.dag_paths import (
    TRIES,
    backdoor_paths,
    closed_paths,
    directed_paths,
    minimal_separators,
    opens_backdoor,
)
from msmmiv.errors import GraphError

COUNT = 7


@st.composite
def random_parents(draw):
    """Parents by node; every node may be caused by those before it."""
    order = draw(st.permutations(range(COUNT)))
    return {node: [p for p in order[:i] if draw(st.integers(0, 2)) == 0] for i, node in enumerate(order)}


@st.composite
def random_dags(draw):
    """Valid causal graphs: one to three mediators, causes with and without names, a site; x may follow t."""
    mediators = [f"m{i}" for i in range(draw(st.integers(1, 3)))]
    inside = ["t", *mediators, "y"]
    possible = [("t", "y"), *combinations(mediators, 2), *((c, n) for c in "su" for n in inside), ("u", "x")]
    after = draw(st.booleans())
    possible += [(n, "x") for n in ["t", *mediators]] if after else [("x", n) for n in ["t", *mediators]]
    edges = set(draw(st.lists(st.sampled_from(possible), max_size=12)))
    moved = {b for a, b in edges if a in mediators and b in mediators}
    edges |= {("t", m) for m in mediators if m not in moved or draw(st.booleans())}
    edges |= {(m, "y") for m in mediators}
    edges |= {("x", "y")} if draw(st.booleans()) else {("u", "x")}
    both = draw(st.lists(st.sampled_from(list(combinations([*inside, "x", "u"], 2))), max_size=3))
    return CausalDAG(
        treatment="t", mediators=tuple(mediators), outcome="y", site="s", edges=(*edges, ("u", "m0")),
        bidirected=tuple(both), measured=("x",), unmeasured=("u",),
    )  # fmt: skip


def parents_of(dag):
    """Causes by node; a two-headed edge is a hidden cause without a name, so that no name can be mistaken for it."""
    parents = {n: [a for a, b in dag.edges if b == n] for n in dag.nodes}
    for pair in dag.bidirected:
        parents[frozenset(pair)] = []
        for node in pair:
            parents[node].append(frozenset(pair))
    return parents


def networkx_of(parents):
    graph = nx.DiGraph()
    graph.add_nodes_from(parents)
    graph.add_edges_from((p, n) for n, ps in parents.items() for p in ps)
    return graph


def simple_paths(parents, a, b):
    """Every path without a repeated node, whichever way its arrows point."""
    near = {n: {*ps, *(c for c in parents if n in parents[c])} for n, ps in parents.items()}
    todo = [(a,)]
    while todo:
        trail = todo.pop()
        if trail[-1] == b:
            yield trail
        else:
            todo += [(*trail, n) for n in near[trail[-1]] if n not in trail]


def descendants(parents, node):
    """The node and everything it leads to."""
    after = {node}
    while more := {n for n, ps in parents.items() if after & set(ps)} - after:
        after |= more
    return after


def middles(parents, a, b):
    """Each path between two nodes, with its chains and forks, and for each collider what it leads to."""
    after = {n: descendants(parents, n) for n in parents}
    for path in simple_paths(parents, a, b):
        triples = list(zip(path, path[1:], path[2:], strict=False))
        colliders = {m for one, m, two in triples if one in parents[m] and two in parents[m]}
        yield path, {m for _, m, _ in triples} - colliders, [after[m] for m in colliders]


def blocked(held, plain, below):
    """A chain or fork is held, or a collider is not and none of its descendants is (Pearl 1988)."""
    return bool(held & plain) or any(not held & after for after in below)


def separation_of(parents):
    """D-separation as defined: a set separates two nodes if it blocks each single path between them."""
    listed = {}

    def separated(a, b, given):
        if (a, b) not in listed:
            listed[a, b] = [found[1:] for found in middles(parents, a, b)]
        return all(blocked(set(given), *found) for found in listed[a, b])

    return separated


def with_hidden(trail):
    """A listed path as nodes, with the hidden cause for each two-headed edge."""
    out = [trail[0]]
    for arrow, node in zip(trail[1::2], trail[2::2], strict=True):
        out += [frozenset((out[-1], node)), node] if arrow == "<->" else [node]
    return tuple(out)


def minimal_of(separated, a, b, allowed):
    """Minimal separating sets by trying every set."""
    sizes = range(len(allowed) + 1)
    every = [set(z) for size in sizes for z in combinations(allowed, size) if separated(a, b, z)]
    return sorted(sorted(z) for z in every if not any(o < z for o in every))


@settings(deadline=None, max_examples=100)
@given(random_parents(), st.sets(st.integers(0, COUNT - 1), max_size=4))
def test_the_brute_force_agrees_with_networkx(parents, held):
    """What the other tests compare with, compared itself."""
    graph, separated = networkx_of(parents), separation_of(parents)
    for a, b in combinations(range(COUNT), 2):
        rest = held - {a, b}
        assert separated(a, b, rest) == nx.is_d_separator(graph, {a}, {b}, rest)


@settings(deadline=None, max_examples=60)
@given(random_parents(), st.sets(st.integers(0, COUNT - 1), min_size=3))
def test_minimal_separators_are_all_and_minimal(parents, allowed):
    """Against every subset of all allowed nodes, where ours are given the causes of the pair alone."""
    separated = separation_of(parents)
    for a, b in combinations(range(COUNT), 2):
        pool = sorted(allowed - {a, b})
        got = minimal_separators(separated, a, b, [n for n in pool if {a, b} & descendants(parents, n)])
        assert got.complete
        assert sorted(sorted(z) for z in got.sets) == minimal_of(separated, a, b, pool)


@settings(deadline=None, max_examples=100)
@given(random_dags(), st.sets(st.sampled_from(["t", "m0", "m1", "m2", "y", "s", "x", "u"]), max_size=4))
def test_a_graph_s_separation_is_as_defined(dag, held):
    parents = parents_of(dag)
    graph, separated = networkx_of(parents), separation_of(parents)
    for a, b in combinations(dag.nodes, 2):
        rest = sorted(held & set(dag.nodes) - {a, b})
        said = dag.is_separated(a, b, rest)
        assert said == dag.is_separated(b, a, rest) == separated(a, b, rest)
        assert said == nx.is_d_separator(graph, {a}, {b}, set(rest))


@settings(deadline=None, max_examples=60)
@given(random_dags(), st.booleans())
def test_independences_are_all_and_minimal(dag, everything):
    parents = parents_of(dag)
    graph, separated = networkx_of(parents), separation_of(parents)
    seen = [n for n in dag.nodes if everything or n not in dag.unmeasured]
    table = dag.independences(include_unmeasured=everything)
    assert table["complete"].all()
    listed = {}
    for row in table.itertuples():
        listed.setdefault((row.left, row.right), []).append(sorted(row.given))
        assert nx.is_d_separator(graph, {row.left}, {row.right}, set(row.given))
    for a, b in combinations(seen, 2):
        rest = [n for n in seen if n not in (a, b)]
        assert sorted(listed.get((a, b), [])) == minimal_of(separated, a, b, rest)


@settings(deadline=None, max_examples=150)
@given(random_dags())
def test_paths_are_networkx_s_and_backdoors_are_open(dag):
    full = networkx_of(parents_of(dag))
    directed = {tuple(p) for p in nx.all_simple_paths(full, "t", "y")}
    assert set(directed_paths(dag, "t", "y")) == directed
    # With the arrows out of the treatment cut, what is left between it and the outcome is the backdoor.
    cut = full.copy()
    cut.remove_edges_from(list(full.out_edges("t")))
    closed = nx.is_d_separator(cut, {"t"}, {"y"}, {"s"})
    assert (not backdoor_paths(dag)) == closed
    parents = {n: [p for p in ps if p != "t"] for n, ps in parents_of(dag).items()}
    open_paths = {path for path, *found in middles(parents, "t", "y") if not blocked({"s"}, *found)}
    assert {with_hidden(trail) for trail in backdoor_paths(dag)} == open_paths
    starts = {(p[1], p[2]) for p in backdoor_paths(dag)}
    for node in dag.parents("t"):
        assert opens_backdoor(dag, node) == (("<-", node) in starts)
    for a, b in dag.bidirected:
        if "t" in (a, b):
            other = b if a == "t" else a
            assert opens_backdoor(dag, other, two_headed=True) == (("<->", other) in starts)
    assert ("vi" in set(dag.broken()["assumption"])) == (not closed)
    kinds = set(dag.paths()["kind"])
    assert ("ii" in set(dag.broken()["assumption"])) == ("direct" in kinds)
    if "cascade" in kinds:
        assert "v" in set(dag.broken()["assumption"])


@settings(deadline=None, max_examples=100)
@given(random_dags())
def test_all_paths_are_listed_and_said_to_be_open_or_closed(dag):
    """Against every simple path, its colliders, and networkx on the graph of that path alone."""
    parents = parents_of(dag)
    closed = {with_hidden(trail): set(by) for trail, by in closed_paths(dag)}
    assert len(closed) == len(closed_paths(dag))
    found = {
        path: {*(n for n in path[1:-1] if n == "s"), *(n for n in path[1:-1] if n not in plain)}
        for path, plain, _ in middles(parents, "t", "y")
    }
    assert closed == {path: by for path, by in found.items() if by}
    for path, by in found.items():
        alone = nx.DiGraph([(a, b) if a in parents[b] else (b, a) for a, b in pairwise(path)])
        assert nx.is_d_separator(alone, {"t"}, {"y"}, {"s"} & set(path)) == bool(by)
    table = dag.paths()
    assert len(table) == len(found)
    assert (table["kind"] == "closed").sum() == len(closed)
    assert ((table["closed_by"].map(len) > 0) == (table["kind"] == "closed")).all()
    assert table[table["kind"] != "closed"].equals(dag.paths(closed=False))


def test_a_large_graph_is_answered_in_full_where_sets_are_few():
    """A pair with 26 causes, none of which can be spared."""
    names = [f"x{i}" for i in range(26)]
    edges = [("t", "m"), ("m", "y"), *((x, "t") for x in names), *((x, "y") for x in names)]
    dag = CausalDAG(treatment="t", mediators=("m",), outcome="y", edges=tuple(edges), measured=tuple(names))
    table = dag.independences()
    assert table["complete"].all()
    (only,) = table[(table["left"] == "t") & (table["right"] == "y")]["given"]
    assert set(only) == {"m", *names}


def test_a_large_graph_stops_in_time_and_says_so():
    """Thirteen paths of two steps: 8,192 minimal sets of t and y, one node of each path."""
    first, second = [f"a{i}" for i in range(13)], [f"b{i}" for i in range(13)]
    edges = [pair for a, b in zip(first, second, strict=True) for pair in (("t", a), (a, b), (b, "y"))]
    dag = CausalDAG(treatment="t", mediators=(*first, *second), outcome="y", edges=tuple(edges))
    asked = []

    def separated(a, b, given):
        asked.append(given)
        return dag.is_separated(a, b, given)

    found = minimal_separators(separated, "t", "y", dag.mediators)
    assert not found.complete
    (only,) = found.sets
    assert sorted(int(name[1:]) for name in only) == list(range(13))
    assert len(asked) <= TRIES + 2 * len(dag.mediators) + 2


def test_names_that_look_like_a_two_headed_edge_stay_apart():
    """A mediator called as the hidden cause of two others would be."""
    name = "m <-> y"
    edges = [("t", "m"), ("t", name), ("m", "y"), (name, "y")]
    dag = CausalDAG(
        treatment="t", mediators=("m", name), outcome="y", edges=tuple(edges), bidirected=(("m", "y"),)
    )
    assert len(dag.to_networkx()) == 5
    assert dag.is_separated("m", name, ["t"])
    assert not dag.is_separated("t", "y", ["m", name])


def test_independences_of_a_trial_without_confounding():
    dag = CausalDAG.from_edges(
        ["t -> a", "t -> b", "a -> y", "b -> y"], treatment="t", mediators=["a", "b"], outcome="y"
    )
    assert dag.independences()["statement"].tolist() == ["t ⊥ y | a, b", "a ⊥ b | t"]
    confounded = dag.adding("a <-> y", "b <-> y")
    assert confounded.independences()["statement"].tolist() == ["a ⊥ b | t"]


def test_unmeasured_nodes_only_when_asked_for():
    dag = CausalDAG.from_edges(
        ["t -> m", "m -> y", "u -> m", "u -> y"], treatment="t", mediators="m", outcome="y", unmeasured="u"
    )
    assert dag.independences().empty
    assert dag.independences(include_unmeasured=True)["statement"].tolist() == ["t ⊥ y | m, u", "t ⊥ u"]
    assert dag.is_separated("t", "u")
    with pytest.raises(GraphError, match="no role"):
        dag.is_separated("t", "z")
    with pytest.raises(GraphError, match="two different nodes"):
        dag.is_separated("t", "u", ["t"])


def test_a_graph_without_questions_is_still_checked():
    with pytest.raises(GraphError, match="left out"):
        Graph(treatment="t", mediators=("m",), outcome="y")
