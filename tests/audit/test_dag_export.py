"""DOT, Mermaid and dagitty: read back by small readers of their grammars, with names that mean harm."""

from __future__ import annotations

import re

import pytest

from msmmiv.audit.dag import CausalDAG

NAMES = (
    "graph", "end", "my mediator", 'say "when"', "back\\slash", "ends in \\", "a -> b", "学校", "Ünïcode ß", "x;y{z}",
    "<b>&amp;</b>", "line\nbreak", "tab\tname", "#35;", "`code`", "-5", "O'Neil", "[latent]", '\\"',
)  # fmt: skip


def dag_of(names):
    """A chain through all names."""
    edges = [pair for m in names for pair in (("dag", m), (m, "node"))]
    return CausalDAG(
        treatment="dag", mediators=tuple(names), outcome="node", site="strict", edges=(*edges, ("subgraph", "node")),
        bidirected=((names[0], "node"), ("subgraph", names[0])), unmeasured=("subgraph",),
    )  # fmt: skip


def quoted(text, start):
    """A quoted string and where it ends, with \\" as the only escape (dagitty's grammar, and DOT's lexer)."""
    out, i = "", start + 1
    while text[i] != '"':
        if text[i : i + 2] == '\\"':
            out, i = out + '"', i + 2
        else:
            out, i = out + text[i], i + 1
    return out, i + 1


def read_dagitty(text):
    """Nodes with properties, and edges, by the rules of dagitty's parser."""
    assert text.startswith("dag {\n")
    assert text.endswith("\n}")
    nodes, edges = {}, []
    for line in text.splitlines()[1:-1]:
        assert not re.search(r"[\x00-\x1f\x7f]", line)
        first, at = quoted(line, 0)
        if match := re.match(r" (->|<->) ", line[at:]):
            second, stop = quoted(line, at + match.end())
            assert stop == len(line)
            edges.append((first, match[1], second))
        else:
            nodes[first] = line[at:].strip()
    return nodes, edges


def test_dagitty_reads_back_every_name():
    dag = dag_of(NAMES)
    nodes, edges = read_dagitty(dag.to_dagitty())
    assert len(nodes) == len(dag.nodes)
    assert {k: v for k, v in nodes.items() if v} == {
        "dag": "[exposure]", "node": "[outcome]", "strict": "[adjusted]", "subgraph": "[latent]",
    }  # fmt: skip
    assert len(edges) == len(dag.edges) + len(dag.bidirected)
    assert {e[0] for e in edges} | {e[2] for e in edges} <= set(nodes)
    plain = [n for n in NAMES if n.isprintable() and not n.endswith("\\")]
    assert set(plain) <= set(nodes)
    assert ("a -> b", "->", "node") in edges


def test_names_that_differ_by_what_is_dropped_stay_apart():
    dag = dag_of(("a\nb", "a b", "a\tb", "c\\", "c"))
    nodes, _ = read_dagitty(dag.to_dagitty())
    assert [n for n in nodes if n[0] in "ac"] == ["a b", "a b 2", "a b 3", "c", "c 2"]


def test_dot_and_mermaid_use_ids():
    dag = dag_of(NAMES)
    dot = dag.to_dot().splitlines()
    nodes = [
        re.fullmatch(r'  (n\d+) \[label="((?:[^"\\]|\\.)*)"(, style="rounded,dashed")?\];', x) for x in dot
    ]
    labels = [m[2] for m in nodes if m]
    assert len(labels) == len(dag.nodes)
    assert r"say \"when\"" in labels
    assert r"ends in \\" in labels
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in labels
    assert sum(bool(re.match(r"  n\d+ -> n\d+", x)) for x in dot) == len(dag.edges) + len(dag.bidirected)
    chart = dag.to_mermaid().splitlines()
    shown = [re.fullmatch(r'  n\d+\["([^"`<>\[\]{}|]+)"\]', x) for x in chart]
    texts = [m[1] for m in shown if m]
    assert len(texts) == len(dag.nodes)
    decoded = [re.sub(r"#(\d+);", lambda m: chr(int(m[1])), t) for t in texts]
    assert decoded == [" ".join(n.split()) for n in dag.nodes]


def test_broken_edges_are_marked_in_the_text():
    dag = CausalDAG.from_edges(["t -> m", "m -> y", "t -> y"], treatment="t", mediators="m", outcome="y")
    assert '  n0 -> n2 [color="#D55E00", fontcolor="#D55E00", label="(ii)"];' in dag.to_dot().splitlines()
    chart = dag.to_mermaid().splitlines()
    assert '  n0 -->|"(ii)"| n2' in chart
    links = [line for line in chart if "-->" in line]
    at = links.index('  n0 -->|"(ii)"| n2')
    assert f"  linkStyle {at} " in dag.to_mermaid()


@pytest.mark.parametrize("role", ["treatment", "mediator", "outcome", "site", "unmeasured"])
def test_networkx_nodes_have_roles(role):
    graph = dag_of(("m", "n")).to_networkx()
    assert role in {r for _, r in graph.nodes(data="role")}
    assert list(graph.predecessors("m <-> node")) == []
    assert set(graph.successors("m <-> node")) == {"m", "node"}
