"""A causal graph in the languages of other programs; any name may stand in it."""

from __future__ import annotations

from collections.abc import Mapping

from msmmiv.audit.dag_graph import Edge, Graph

__all__ = ["dag_to_dagitty", "dag_to_dot", "dag_to_mermaid"]

_BROKEN = "#D55E00"


def dag_to_dot(graph: Graph, breaking: Mapping[tuple[Edge, bool], str]) -> str:
    r"""DOT: nodes are n0, n1, ... and names are labels, so that no name can be a keyword.

    Examples
    --------
    >>> from msmmiv.audit.dag_graph import Graph
    >>> print(dag_to_dot(Graph(treatment="t", mediators="m", outcome='y"', edges=(("t", "m"), ("m", 'y"'))), {}))
    digraph {
      rankdir=LR;
      node [shape=box, style=rounded];
      n0 [label="t"];
      n1 [label="m"];
      n2 [label="y\""];
      n0 -> n1;
      n1 -> n2;
    }
    """
    ids = {name: f"n{i}" for i, name in enumerate(graph.nodes)}
    lines = ["digraph {", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    for name, i in ids.items():
        style = ', style="rounded,dashed"' if name in graph.unmeasured else ""
        lines.append(f'  {i} [label="{_dot_text(name)}"{style}];')
    for a, b in graph.edges:
        style = _dot_style(breaking.get(((a, b), False), ""), hidden=a in graph.unmeasured)
        lines.append(f"  {ids[a]} -> {ids[b]}{style};")
    for a, b in graph.bidirected:
        style = _dot_style(breaking.get(((a, b), True), ""), hidden=True, both=True)
        lines.append(f"  {ids[a]} -> {ids[b]}{style};")
    return "\n".join([*lines, "}"])


def _dot_style(broken: str, *, hidden: bool, both: bool = False) -> str:
    parts = ["dir=both", "constraint=false"] if both else []
    parts += ["style=dashed"] if hidden else []
    parts += [f'color="{_BROKEN}"', f'fontcolor="{_BROKEN}"', f'label="({broken})"'] if broken else []
    return f" [{', '.join(parts)}]" if parts else ""


def _dot_text(name: str) -> str:
    """Graphviz reads entities and backslashes in labels."""
    text = _plain(name).replace("\\", "\\\\").replace('"', '\\"')
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def dag_to_mermaid(graph: Graph, breaking: Mapping[tuple[Edge, bool], str]) -> str:
    """Mermaid flow chart with the same ids; signs that mean something there are written as entity codes.

    Examples
    --------
    >>> from msmmiv.audit.dag_graph import Graph
    >>> print(dag_to_mermaid(Graph(treatment="t", mediators="m", outcome="end", edges=(("t", "m"), ("m", "end"))), {}))
    flowchart LR
      n0["t"]
      n1["m"]
      n2["end"]
      n0 --> n1
      n1 --> n2
    """
    ids = {name: f"n{i}" for i, name in enumerate(graph.nodes)}
    lines = ["flowchart LR", *(f'  {i}["{_mermaid_text(name)}"]' for name, i in ids.items())]
    styled = []
    for i, (a, b) in enumerate((*graph.edges, *graph.bidirected)):
        broken = breaking.get(((a, b), i >= len(graph.edges)), "")
        arrow = "<-.->" if i >= len(graph.edges) else "-.->" if a in graph.unmeasured else "-->"
        mark = f'|"({broken})"|' if broken else ""
        lines.append(f"  {ids[a]} {arrow}{mark} {ids[b]}")
        styled += [str(i)] if broken else []
    lines += [f"  style {ids[name]} stroke-dasharray: 4 3" for name in graph.unmeasured]
    lines += [f"  linkStyle {','.join(styled)} stroke:{_BROKEN},color:{_BROKEN}"] if styled else []
    return "\n".join(lines)


def _mermaid_text(name: str) -> str:
    """Letters, digits, spaces and marks of other scripts stay; ASCII signs other than these become codes."""
    plain = _plain(name)
    out = "".join(c if ord(c) > 127 or c.isalnum() or c in " _-.," else f"#{ord(c)};" for c in plain)
    return out or " "


def dag_to_dagitty(graph: Graph) -> str:
    r"""The language of dagitty: every name in quotes, with its role; the site counts as adjusted for.

    Examples
    --------
    >>> from msmmiv.audit.dag_graph import Graph
    >>> print(dag_to_dagitty(Graph(treatment="t", mediators="m", outcome="y z", edges=(("t", "m"), ("m", "y z")))))
    dag {
    "t" [exposure]
    "m"
    "y z" [outcome]
    "t" -> "m"
    "m" -> "y z"
    }
    """
    roles = dict.fromkeys(graph.unmeasured, " [latent]")
    roles |= {graph.treatment: " [exposure]", graph.outcome: " [outcome]"}
    if graph.site is not None:
        roles[graph.site] = " [adjusted]"
    names = _dagitty_names(graph.nodes)
    lines = ["dag {", *(f"{names[n]}{roles.get(n, '')}" for n in graph.nodes)]
    lines += [f"{names[a]} -> {names[b]}" for a, b in graph.edges]
    lines += [f"{names[a]} <-> {names[b]}" for a, b in graph.bidirected]
    return "\n".join([*lines, "}"])


def _dagitty_names(nodes: tuple[str, ...]) -> dict[str, str]:
    """Names are identities there: two that differ by a control character only are told apart by a number.

    Its grammar takes a backslash before the closing quote as part of the quote, so a name cannot end in one.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in nodes:
        text = base = _plain(name).rstrip("\\") or "_"
        number = 2
        while text in taken:
            text, number = f"{base} {number}", number + 1
        taken.add(text)
        found[name] = '"' + text.replace('"', '\\"') + '"'
    return found


def _plain(name: str) -> str:
    """The name on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())
