"""The causal graph: roles and errors, paths, and which assumption each edge breaks."""

from __future__ import annotations

import pytest

import msmmiv as mm
from msmmiv.audit.assumption_files import load_assumptions
from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.dag_graph import Graph
from msmmiv.audit.dag_paths import PATHS, closed_paths, directed_paths
from msmmiv.audit.dag_rules import NOT_DRAWABLE
from msmmiv.errors import DesignError, GraphError

DESIGN = mm.Design(outcome="score", treatment="offer", mediators=["hours", "income"], site="city")
PARALLEL = ["offer -> hours", "offer -> income", "hours -> score", "income -> score"]


def graph(*edges, **roles):
    base = {"treatment": "offer", "mediators": ["hours", "income"], "outcome": "score"}
    return CausalDAG.from_edges([*PARALLEL, *edges], **(base | roles))


def verdicts(dag):
    return dict(dag.broken()[["edge", "assumption"]].to_numpy().tolist())


def test_the_design_supposes_parallel_mediators_and_allows_common_causes():
    dag = CausalDAG.from_design(DESIGN)
    assert set(dag.edges) == {
        ("offer", "hours"), ("offer", "income"), ("hours", "score"), ("income", "score"),
        ("city", "offer"), ("city", "hours"), ("city", "income"), ("city", "score"),
        ("U", "hours"), ("U", "income"), ("U", "score"),
    }  # fmt: skip
    assert dag.broken().empty
    assert dag.paths(closed=False)["kind"].tolist() == ["mediated", "mediated"]
    assert dag.independences().empty  # a common cause of everything leaves nothing to test
    shown = dag.to_frame().set_index("edge")["says"]
    assert shown["U -> score"].startswith("allowed")
    assert "no assumption" in str(dag)


def test_a_graph_is_a_value():
    again = graph("hours -> income")
    assert again == graph().adding(("hours", "income"))
    assert hash(again) == hash(graph("hours -> income"))
    mixed = CausalDAG.from_edges(
        reversed(["hours -> income", *PARALLEL]),
        treatment="offer",
        mediators=["hours", "income"],
        outcome="score",
    )
    assert mixed == again


@pytest.mark.parametrize(
    ("edges", "roles", "rule", "broken"),
    [
        (["offer -> score"], {}, "T -> Y", {"offer -> score": "ii"}),
        (["hours -> income"], {}, "M_p -> M_q", {"hours -> income": "v"}),
        (["U -> offer", "U -> score"], {"unmeasured": ["U"]}, "U -> T", {"U -> offer": "vi"}),
        (["X -> offer", "X -> hours"], {"measured": ["X"]}, "X -> T", {"X -> offer": "vi"}),
        (["offer <-> score"], {}, "U -> T", {"offer <-> score": "vi"}),
        (["offer <-> income"], {}, "U -> T", {"offer <-> income": "vi"}),
        (["offer -> X", "X -> score"], {"measured": ["X"]}, "T -> Y", {"offer -> X": "ii"}),
        (["hours -> X", "X -> income"], {"measured": ["X"]}, "M_p -> M_q", {"hours -> X": "v"}),
        (["X -> offer", "X <-> score"], {"measured": ["X"]}, "X -> T", {"X -> offer": "vi"}),
        (
            ["X -> offer", "X <-> W", "W -> score"], {"measured": ["X", "W"]}, "X -> T", {"X -> offer": "vi"},
        ),
        (
            ["X -> offer", "U -> X", "U -> hours"], {"measured": ["X"], "unmeasured": ["U"]}, "X -> T",
            {"X -> offer": "vi"},
        ),
    ],
)  # fmt: skip
def test_an_extra_edge_breaks_its_assumption(edges, roles, rule, broken):
    dag = graph(*edges, **roles)
    assert verdicts(dag) == broken
    assert dag.broken()["rule"].tolist() == [rule]
    assert set(dag.paths()["breaks"]) == {"", next(iter(broken.values()))}


@pytest.mark.parametrize(
    ("edges", "roles"),
    [
        (["U -> hours", "U -> score"], {"unmeasured": ["U"]}),
        (["hours <-> score", "income <-> score", "hours <-> income"], {}),
        (["Z -> offer"], {"unmeasured": ["Z"]}),  # a lottery number: no path of its own
        (["offer -> X", "X -> hours"], {"measured": ["X"]}),
        (["hours -> X", "X -> score"], {"measured": ["X"]}),
        (["offer <-> X"], {"measured": ["X"]}),
    ],
)
def test_what_is_allowed(edges, roles):
    dag = graph(*edges, **roles)
    assert dag.broken().empty
    assert set(dag.paths(closed=False)["kind"]) == {"mediated"}
    assert set(dag.paths()["kind"]) <= {"mediated", "closed"}
    assert set(dag.paths()["breaks"]) == {""}


def test_the_rules_are_those_of_the_assumption_files():
    """Every edge that a file rules out is either drawn and found, or said not to be drawable."""
    drawn = {
        "T -> Y": graph("offer -> score"),
        "M_p -> M_q": graph("hours -> income"),
        "U -> T": graph("U -> offer", "U -> score", unmeasured=["U"]),
        "X -> T": graph("X -> offer", "X -> score", measured=["X"]),
    }
    ruled_out = {edge: a.id for a in load_assumptions() for edge in a.dag_edges_ruled_out}
    assert set(ruled_out) == set(drawn) | set(NOT_DRAWABLE)
    for rule, dag in drawn.items():
        assert dag.broken()[["rule", "assumption"]].to_numpy().tolist() == [[rule, ruled_out[rule]]]


def test_paths_name_themselves():
    dag = graph(
        "hours -> income", "offer -> score", "U -> offer", "U -> hours", "offer <-> score", unmeasured=["U"]
    )
    table = dag.paths().set_index("path")[["kind", "breaks"]].T.to_dict("list")
    assert table == {
        "offer -> score": ["direct", "ii"],
        "offer -> hours -> score": ["mediated", ""],
        "offer -> income -> score": ["mediated", ""],
        "offer -> hours -> income -> score": ["cascade", "v"],
        "offer <-> score": ["backdoor", "vi"],
        "offer <- U -> hours -> score": ["backdoor", "vi"],
        "offer <- U -> hours -> income -> score": ["backdoor", "vi"],
        "offer -> income <- hours -> score": ["closed", ""],
    }


def test_a_path_by_way_of_the_site_is_closed():
    dag = CausalDAG.from_design(DESIGN, confounders=[])
    assert "city -> offer" in dag.to_frame()["edge"].tolist()
    assert "backdoor" not in set(dag.paths()["kind"])
    by = dag.paths().set_index("path")["closed_by"]
    assert by["offer <- city -> score"] == ("city",)
    assert by["offer -> hours <- city -> income -> score"] == ("hours", "city")


def test_a_path_through_two_causes_of_one_mediator_is_closed_there():
    dag = CausalDAG.from_edges(
        ["t -> m", "m -> y", "u -> m", "u -> y"], treatment="t", mediators="m", outcome="y", unmeasured="u"
    )
    assert dag.paths().to_dict("records")[1:] == [
        {"path": "t -> m <- u -> y", "kind": "closed", "mediators": ("m",), "breaks": "", "closed_by": ("m",)}
    ]
    assert dag.paths(closed=False)["kind"].tolist() == ["mediated"]


def test_a_graph_with_very_many_closed_paths_says_how_to_leave_them_out():
    many = mm.Design(outcome="y", treatment="t", mediators=[f"m{i}" for i in range(30)], site="s")
    dag = CausalDAG.from_design(many)
    with pytest.raises(GraphError, match=rf"more than {PATHS:,} closed paths.*closed=False"):
        dag.paths()
    assert len(dag.paths(closed=False)) == 30


def test_dead_ends_are_not_walked():
    """Twenty causes of one another that lead to one mediator only: no path leads through them, at once."""
    names = [f"x{i}" for i in range(20)]
    edges = [(a, b) for i, a in enumerate(names) for b in [*names, "m"][i + 1 :]]
    dag = Graph(
        treatment="t",
        mediators=("m",),
        outcome="y",
        edges=(("t", "m"), ("m", "y"), *edges),
        measured=tuple(names),
    )
    assert closed_paths(dag) == []


def test_too_many_paths_are_not_listed():
    names = [f"m{i}" for i in range(20)]
    edges = [(a, b) for i, a in enumerate(["t", *names, "y"]) for b in [*names, "y"][i:]]
    dag = Graph(treatment="t", mediators=tuple(names), outcome="y", edges=tuple(edges))
    with pytest.raises(GraphError, match=f"more than {PATHS:,} paths"):
        directed_paths(dag, "t", "y")


@pytest.mark.parametrize(
    ("edges", "roles", "message"),
    [
        (["hours -> income", "income -> hours"], {}, r"cycle: hours -> income -> hours"),
        (["A -> B", "B -> A", "A -> score"], {"measured": ["A", "B"]}, r"cycle: A -> B -> A"),
        (["hours -> incme"], {}, r"'incme', which has no role.*Did you mean 'income'\?"),
        (["Hours -> score"], {}, r"Did you mean 'hours'\?"),
        (["hours -> offer"], {}, r"goes into the treatment from what comes after it"),
        (["score -> offer"], {}, r"goes into the treatment from what comes after it"),
        (["score -> hours"], {}, r"leaves the outcome"),
        (["U -> city", "U -> score"], {"site": "city", "unmeasured": ["U"]}, r"goes into the site"),
        (["city <-> score"], {"site": "city"}, r"two-headed edge"),
        (["hours -> hours"], {}, r"edge to itself"),
        ([], {"unmeasured": ["U"]}, r"'U' is declared and has no edge"),
        ([], {"mediators": ["hours", "income", "care"]}, r"Mediator 'care' is left out: .*from 'offer' to it"),
        (["offer -> care"], {"mediators": ["hours", "income", "care"]}, r"from it to 'score'"),
        ([], {"outcome": "offer"}, r"in two roles: treatment and outcome"),
        ([], {"mediators": []}, r"at least one mediator"),
        (["a => b"], {}, r"An edge is 'A -> B'"),
        (["hours -> income -> score"], {}, r"has 2 arrows"),
        (["income <- hours"], {}, r"Write the cause first: 'hours -> income'"),
        ([("a", "b", "c", "d")], {}, r"An edge is"),
        ([7], {}, r"An edge is"),
    ],
)  # fmt: skip
def test_what_is_refused(edges, roles, message):
    with pytest.raises(GraphError, match=message):
        graph(*edges, **roles)


def test_edges_are_a_list():
    with pytest.raises(GraphError, match="as a list"):
        CausalDAG.from_edges("t -> m", treatment="t", mediators="m", outcome="y")


def test_from_design_takes_edges_out_and_declares_causes():
    dag = CausalDAG.from_design(
        DESIGN, edges=["hours -> income", "income <-> score"], without=["offer -> income"],
        confounders={"ability": ["hours", "score"], "age": "score"}, measured="age",
    )  # fmt: skip
    assert ("offer", "income") not in dag.edges
    assert dag.bidirected == (("income", "score"),)
    assert (dag.measured, dag.unmeasured) == (("age",), ("ability",))
    assert ("ability", "income") not in dag.edges
    for out in ("hours -> income", "score -> hours", "hours <-> score", "hours -> nothing"):
        with pytest.raises(
            GraphError, match=rf"'{out}' cannot be taken out: it is not in the parallel graph"
        ):
            CausalDAG.from_design(DESIGN, without=[out])
    with pytest.raises(GraphError, match="'offer -> hours' is both added and taken out"):
        CausalDAG.from_design(DESIGN, edges=["offer -> hours"], without=["offer -> hours"])
    with pytest.raises(GraphError, match="must be one of the confounders"):
        CausalDAG.from_design(DESIGN, measured=["age"])
    with pytest.raises(DesignError, match="needs a Design"):
        CausalDAG.from_design("score ~ 1")


def test_the_unmeasured_cause_finds_a_name_of_its_own():
    design = mm.Design(outcome="U", treatment="t", mediators="U_", site="s")
    assert CausalDAG.from_design(design).unmeasured == ("unmeasured",)


def test_names_that_hold_arrows_come_as_pairs():
    dag = CausalDAG.from_edges(
        [("a->b", "m"), ("m", "->", "y"), ("m", "<->", "y")], treatment="a->b", mediators="m", outcome="y"
    )
    assert dag.edges == (("a->b", "m"), ("m", "y"))
    assert dag.bidirected == (("m", "y"),)


def test_a_common_cause_beside_an_effect_is_another_edge():
    """The same two nodes, once with a cause in common and once one causing the other."""
    dag = graph("hours -> income", "hours <-> income", "offer <-> hours")
    assert verdicts(dag) == {"hours -> income": "v", "offer <-> hours": "vi"}
    for text in (dag.to_dot(), dag.to_mermaid()):
        assert (text.count("(v)"), text.count("(vi)")) == (1, 1)
