"""CausalDAG: which edges the nine assumptions allow, which they rule out, and what the coefficients then mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pandas as pd

from msmmiv.audit.dag_export import dag_to_dagitty, dag_to_dot, dag_to_mermaid
from msmmiv.audit.dag_graph import Edge, EdgeLike, Graph, read_edges, site_words, taken_out
from msmmiv.audit.dag_meaning import Meaning, meaning_of
from msmmiv.audit.dag_paths import Separated, backdoor_paths, closed_paths, directed_paths, minimal_separators
from msmmiv.audit.dag_rules import assumption_of, judged, judged_pair
from msmmiv.design import Design
from msmmiv.errors import DesignError, GraphError

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["CausalDAG"]


@dataclass(frozen=True, kw_only=True)
class CausalDAG(Graph):
    """The causal graph behind an analysis: treatment, mediators, outcome, site and declared common causes.

    Draw it before the estimates: it lists every path, names the assumption that each extra edge breaks, and says what
    the coefficients mean in the graph as drawn. Build it with `from_design` (parallel mediators, plus what you add) or
    `from_edges`.

    Attributes
    ----------
    treatment, outcome : str
    mediators : tuple of str
    site : str or None
    edges : tuple of (str, str)
        Cause and effect, in the order of the nodes.
    bidirected : tuple of (str, str)
        Pairs with an unmeasured common cause that has no name.
    measured, unmeasured : tuple of str
        Declared causes.

    Raises
    ------
    GraphError
        A cycle; an edge that names an unknown node; a mediator that no path leads to or from; an edge into the
        treatment from a mediator or the outcome, an edge out of the outcome, an edge into the site; a declared cause
        without an edge; a name in two roles.

    Notes
    -----
    An edge into the treatment from a *declared cause* is not an error. It cannot be ruled out by time, only by
    randomisation; so it is accepted and reported as what breaks (vi). Unmeasured common causes of mediators and
    outcome are allowed and are in every graph of `from_design`: they are why instruments are used. Common causes of
    two mediators are allowed too; (v) rules out that one mediator *causes* another.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.audit.dag import CausalDAG
    >>> design = mm.Design(outcome="score", treatment="offer", mediators=["voucher", "poverty"], site="city")
    >>> dag = CausalDAG.from_design(design, edges=["voucher -> poverty"])
    >>> dag.broken()[["edge", "assumption"]].values.tolist()
    [['voucher -> poverty', 'v']]
    """

    @classmethod
    def from_design(
        cls,
        design: Design,
        *,
        edges: Iterable[EdgeLike] = (),
        without: Iterable[EdgeLike] = (),
        confounders: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        measured: Sequence[str] = (),
    ) -> CausalDAG:
        """The graph that the design supposes, with the edges you add and without those you take out.

        Parallel by default: treatment to every mediator, every mediator to the outcome; the site to all of them (its
        effects are absorbed by intercepts) and to the treatment (whose share may differ between sites).

        Parameters
        ----------
        design : Design
        edges : list of edges, optional
            "A -> B", "A <-> B", or pairs.
        without : list of edges, optional
            Taken out of the default, such as "offer -> poverty" where only the voucher moves poverty.
        confounders : list of str, or mapping from str to list of str, optional
            Causes beside these. A list: each is a cause of every mediator and the outcome. A mapping: of what it says.
            Default: one unmeasured cause of all, called "U"; an empty list for none.
        measured : list of str, optional
            Those of the confounders that are in the data.

        Raises
        ------
        GraphError

        Examples
        --------
        >>> import msmmiv as mm
        >>> from msmmiv.audit.dag import CausalDAG
        >>> print(CausalDAG.from_design(mm.Design(outcome="y", treatment="t", mediators="m", site="s")))
        Causal graph: t -> m -> y inside each site (s)
        t -> m   effect of assignment
        m -> y   effect of a mediator
        s -> t   shares that differ between sites
        s -> m   absorbed by intercepts
        s -> y   absorbed by intercepts
        U -> m   allowed: common causes are why instruments are used
        U -> y   allowed: common causes are why instruments are used
        Edges break no assumption. What no graph can show: (i), (vii) and (ix).
        """
        given: object = design
        if not isinstance(given, Design):
            raise DesignError(f"CausalDAG.from_design needs a Design, not {type(given).__name__}.")
        inside = (*design.mediators, design.outcome)
        causes = _causes(design, confounders, inside)
        base = [(design.treatment, m) for m in design.mediators]
        base += [(m, design.outcome) for m in design.mediators]
        base += [(design.site, node) for node in (design.treatment, *inside)]
        base += [(cause, child) for cause, children in causes.items() for child in children]
        directed, both = read_edges(edges)
        out = taken_out(without, base, directed)
        known = (measured,) if isinstance(measured, str) else tuple(measured)
        if unknown := [m for m in known if m not in causes]:
            raise GraphError(f"measured= names {unknown[0]!r}; it must be one of the confounders.")
        return cls(
            treatment=design.treatment, mediators=design.mediators, outcome=design.outcome, site=design.site,
            edges=(*(e for e in base if e not in out), *directed), bidirected=both, measured=known,
            unmeasured=tuple(c for c in causes if c not in known),
        )  # fmt: skip

    @classmethod
    def from_edges(
        cls,
        edges: Iterable[EdgeLike],
        *,
        treatment: str,
        mediators: str | Sequence[str],
        outcome: str,
        site: str | None = None,
        measured: Sequence[str] = (),
        unmeasured: Sequence[str] = (),
    ) -> CausalDAG:
        """A graph of exactly these edges.

        Parameters
        ----------
        edges : list of edges
            "A -> B", "A <-> B" (an unmeasured common cause), or pairs.
        treatment : str
        mediators : str or list of str
        outcome : str
        site : str, optional
        measured, unmeasured : list of str, optional
            Declared causes that edges may name.

        Raises
        ------
        GraphError

        Examples
        --------
        >>> from msmmiv.audit.dag import CausalDAG
        >>> chain = ["offer -> voucher", "voucher -> poverty", "voucher -> score", "poverty -> score"]
        >>> dag = CausalDAG.from_edges(
        ...     chain, treatment="offer", mediators=["voucher", "poverty"], outcome="score"
        ... )
        >>> dag.paths()[["path", "kind", "breaks"]].values.tolist()
        [['offer -> voucher -> score', 'mediated', ''], ['offer -> voucher -> poverty -> score', 'cascade', 'v']]
        """
        directed, both = read_edges(edges)
        return cls(
            treatment=treatment, mediators=mediators, outcome=outcome, site=site, edges=directed, bidirected=both,  # type: ignore[arg-type]  # made a tuple when checked
            measured=measured, unmeasured=unmeasured,  # type: ignore[arg-type]  # likewise
        )  # fmt: skip

    def adding(self, *edges: EdgeLike) -> CausalDAG:
        """The same graph with more edges.

        Examples
        --------
        >>> from msmmiv.audit.dag import CausalDAG
        >>> dag = CausalDAG.from_edges(["t -> m", "m -> y"], treatment="t", mediators="m", outcome="y")
        >>> dag.adding("t -> y").broken()["assumption"].tolist()
        ['ii']
        """
        directed, both = read_edges(edges)
        return replace(self, edges=(*self.edges, *directed), bidirected=(*self.bidirected, *both))

    def paths(self, *, closed: bool = True) -> pd.DataFrame:
        """Every path between treatment and outcome, the site held fixed: directed, open backdoor, then closed ones.

        Parameters
        ----------
        closed : bool
            Also the paths along which nothing passes, of which a graph with many nodes has very many.

        Returns
        -------
        DataFrame
            ``path``; ``kind``: "mediated" (by one mediator), "cascade", "direct", "backdoor" or "closed"; ``mediators``
            on it; ``breaks``: the assumption that rules it out, or ""; ``closed_by``: its colliders, and the site.

        Raises
        ------
        GraphError
            More than 10,000 paths of either kind, open or closed.

        Examples
        --------
        >>> from msmmiv.audit.dag import CausalDAG
        >>> edges = ["t -> m", "m -> y", "m <-> y"]
        >>> dag = CausalDAG.from_edges(edges, treatment="t", mediators="m", outcome="y")
        >>> dag.paths()[["path", "kind", "closed_by"]].values.tolist()
        [['t -> m -> y', 'mediated', ()], ['t -> m <-> y', 'closed', ('m',)]]
        """
        every: list[tuple[tuple[str, ...], str, str, tuple[str, ...]]] = []
        for nodes in directed_paths(self, self.treatment, self.outcome):
            met = len(set(nodes) & set(self.mediators))
            kind, rule = (("direct", "T -> Y"), ("mediated", ""), ("cascade", "M_p -> M_q"))[min(met, 2)]
            trail = tuple(part for node in nodes for part in ("->", node))[1:]
            every.append((trail, kind, assumption_of(rule) if rule else "", ()))
        every += [(trail, "backdoor", assumption_of("U -> T"), ()) for trail in backdoor_paths(self)]
        every += [(trail, "closed", "", by) for trail, by in closed_paths(self)] if closed else []
        met_by = [tuple(n for n in trail[::2] if n in self.mediators) for trail, *_ in every]
        rows = [(" ".join(trail), k, m, b, by) for m, (trail, k, b, by) in zip(met_by, every, strict=True)]
        return pd.DataFrame(rows, columns=["path", "kind", "mediators", "breaks", "closed_by"])

    def to_frame(self) -> pd.DataFrame:
        """One row per edge: ``edge``, ``rule`` (as in the assumption files), ``assumption`` it breaks, ``says``."""
        rows = [(f"{a} -> {b}", *judged(self, a, b)) for a, b in self.edges]
        rows += [(f"{a} <-> {b}", *judged_pair(self, a, b)) for a, b in self.bidirected]
        return pd.DataFrame(rows, columns=["edge", "rule", "assumption", "says"])

    def broken(self) -> pd.DataFrame:
        """The edges that an assumption rules out: ``edge``, ``rule``, ``assumption``, ``says``; empty without any.

        The rules are ``dag_edges_ruled_out`` of ``assumptions/*.toml``: T -> Y breaks (ii), M_p -> M_q breaks (v),
        U -> T and X -> T break (vi). An edge counts wherever it has that consequence: T -> X breaks (ii) if X leads to
        the outcome past the mediators. What (i), (vii) and (ix) rule out is in ``msmmiv.audit.dag_rules.NOT_DRAWABLE``,
        with the reason.
        """
        frame = self.to_frame()
        return frame[frame["assumption"] != ""].reset_index(drop=True)

    def independences(self, *, include_unmeasured: bool = False) -> pd.DataFrame:
        """Conditional independences that the graph implies, with minimal sets to hold fixed.

        These can be contradicted by data. A graph with a common cause of all mediators and the outcome implies hardly
        any: that is the sense in which its assumptions must be argued.

        Parameters
        ----------
        include_unmeasured : bool
            Also pairs and sets with unmeasured causes, which no data can check.

        Returns
        -------
        DataFrame
            ``left, right, given, statement, complete``; ``complete`` is False where more than 4,096 sets would
            have to be tried and some minimal ones may be missing.
        """
        import networkx as nx

        hidden = set() if include_unmeasured else set(self.unmeasured)
        nodes = [n for n in self.nodes if n not in hidden]
        graph = self.to_networkx()
        separated = _separation_in(graph)
        linked = {frozenset(pair) for pair in (*self.edges, *self.bidirected)}
        rows = []
        for a, b in combinations(nodes, 2):
            if frozenset((a, b)) in linked:
                continue
            above = (nx.ancestors(graph, a) | nx.ancestors(graph, b)) - {a, b}
            found = minimal_separators(separated, a, b, [n for n in nodes if n in above])
            for given in found.sets:
                bar = f" | {', '.join(given)}" if given else ""
                rows.append((a, b, given, f"{a} ⊥ {b}{bar}", found.complete))
        return pd.DataFrame(rows, columns=["left", "right", "given", "statement", "complete"])

    def is_separated(self, left: str, right: str, given: Sequence[str] = ()) -> bool:
        """Whether the graph implies that two nodes are independent given others.

        Examples
        --------
        >>> from msmmiv.audit.dag import CausalDAG
        >>> dag = CausalDAG.from_edges(["t -> m", "m -> y"], treatment="t", mediators="m", outcome="y")
        >>> dag.is_separated("t", "y", ["m"])
        True
        """
        asked = (left, right, *((given,) if isinstance(given, str) else given))
        for name in asked:
            if name not in self.nodes:
                raise GraphError.unknown_node(name, "is_separated", self.nodes)
        if left == right or {left, right} & set(asked[2:]):
            raise GraphError("Ask about two different nodes that are not among those held fixed.")
        return _separation_in(self.to_networkx())(left, right, asked[2:])

    def meaning(self, *, direct_effect: bool = False) -> Meaning:
        """What each coefficient estimates if the graph is right; see `Meaning`.

        Parameters
        ----------
        direct_effect : bool
            The model frees a direct effect of the treatment.

        Examples
        --------
        >>> from msmmiv.audit.dag import CausalDAG
        >>> edges = ["t -> m1", "t -> m2", "m1 -> m2", "m1 -> y", "m2 -> y"]
        >>> dag = CausalDAG.from_edges(edges, treatment="t", mediators=["m1", "m2"], outcome="y")
        >>> dag.meaning().to_frame()[["term", "kind"]].values.tolist()
        [['m1', 'direct effect'], ['m2', 'effect']]
        """
        return meaning_of(self, list(self.broken()["assumption"]), direct_effect=direct_effect)

    def to_networkx(self) -> nx.DiGraph[str]:
        """A networkx graph: nodes have ``role``; a two-headed edge is a hidden common cause called "A <-> B"."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        roles = dict.fromkeys(self.mediators, "mediator") | dict.fromkeys(self.measured, "measured")
        roles |= {self.treatment: "treatment", self.outcome: "outcome"} | dict.fromkeys(
            self.unmeasured, "unmeasured"
        )
        for name in self.nodes:
            graph.add_node(name, role=roles.get(name, "site"))
        graph.add_edges_from(self.edges)
        for a, b in self.bidirected:
            hidden = f"{a} <-> {b}"
            while hidden in graph:  # names may hold arrows themselves
                hidden += "'"
            graph.add_node(hidden, role="unmeasured")
            graph.add_edges_from([(hidden, a), (hidden, b)])
        return graph

    def to_dot(self) -> str:
        """The graph in the DOT language of Graphviz; edges that break an assumption carry its number."""
        return dag_to_dot(self, self._breaking())

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flow chart."""
        return dag_to_mermaid(self, self._breaking())

    def to_dagitty(self) -> str:
        """The graph in the language of dagitty (dagitty.net and the R package)."""
        return dag_to_dagitty(self)

    def __str__(self) -> str:
        frame = self.to_frame()
        inside = f" inside each {site_words(self.site)}" if self.site else ""
        lines = [
            f"Causal graph: {self.treatment} -> {', '.join(self.mediators)} -> {self.outcome}{inside}",
        ]
        width = max(len(e) for e in frame["edge"])
        for edge, _, assumption, says in frame.itertuples(index=False, name=None):
            mark = f"breaks ({assumption}): " if assumption else ""
            lines.append(f"{edge:<{width}}   {mark}{says}".rstrip())
        broken = sorted(set(self.broken()["assumption"]), key=("ii", "v", "vi").index)
        said = (
            f"Edges break {', '.join(f'({a})' for a in broken)}." if broken else "Edges break no assumption."
        )
        return "\n".join([*lines, f"{said} What no graph can show: (i), (vii) and (ix)."])

    def _breaking(self) -> dict[tuple[Edge, bool], str]:
        """Assumption by edge and whether it has two heads."""
        marks = [(e, False) for e in self.edges] + [(e, True) for e in self.bidirected]
        return {m: a for m, a in zip(marks, self.to_frame()["assumption"].tolist(), strict=True) if a}


def _separation_in(graph: nx.DiGraph[str]) -> Separated:
    """The question whether a set separates two nodes, put to networkx."""
    import networkx as nx

    return lambda a, b, given: bool(nx.is_d_separator(graph, {a}, {b}, set(given)))


def _causes(
    design: Design, confounders: Sequence[str] | Mapping[str, Sequence[str]] | None, inside: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Declared causes and what they cause."""
    if confounders is None:
        taken = {design.treatment, design.site, *inside}
        return {next(n for n in ("U", "U_", "unmeasured", "unmeasured causes") if n not in taken): inside}
    if isinstance(confounders, str):
        return {confounders: inside}
    if isinstance(confounders, Mapping):
        children: dict[str, Any] = dict(confounders)
        return {name: (c,) if isinstance(c, str) else tuple(c) for name, c in children.items()}
    return dict.fromkeys(confounders, inside)
