"""The causal graph as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.dag_graph import site_words
from msmmiv.errors import listing
from msmmiv.show.plots.dag_layout import FONT, Arrow, Box, Layout, Mark, lay_out
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.sheet import INCHES, SMALLEST, narrow
from msmmiv.show.words import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["causal_dag"]

_HIDDEN = "#7A808A"
_MARGIN = 0.22
_FOOT = 0.24  # room for the name of the site


def causal_dag(dag: CausalDAG) -> Picture:
    """The causal graph: treatment left, mediators in the middle, outcome right, inside the frame of a site.

    Unmeasured causes and their arrows are dashed. An edge that breaks an assumption has another colour and the
    assumption's number.

    Parameters
    ----------
    dag : CausalDAG

    Returns
    -------
    Picture
        ``data`` is `CausalDAG.to_frame`.

    Examples
    --------
    >>> from msmmiv.audit.dag import CausalDAG
    >>> from msmmiv.show.plots.dag import causal_dag
    >>> dag = CausalDAG.from_edges(["t -> m", "m -> y", "t -> y"], treatment="t", mediators="m", outcome="y")
    >>> causal_dag(dag).data["assumption"].tolist()
    ['', 'ii', '']
    """
    frame = dag.to_frame()
    marks = [(e, False) for e in dag.edges] + [(e, True) for e in dag.bidirected]
    breaking: dict[Mark, str] = {m: str(a) for m, a in zip(marks, frame["assumption"], strict=True) if a}
    layout = lay_out(dag, frozenset(breaking))
    foot = _FOOT if dag.site is not None else 0.0
    margin = _MARGIN if dag.site is not None else 0.08
    low = (layout.lower[0] - margin, layout.lower[1] - margin - foot)
    high = (layout.upper[0] + margin, layout.upper[1] + margin)
    with drawing():
        edge = 0.06
        size = (high[0] - low[0] + 2 * edge, high[1] - low[1] + 2 * edge)
        # Smaller where the sheet asks for it, but never with letters that cannot be read.
        scale = max(SMALLEST / FONT, min(1.0, INCHES["column" if narrow() else "page"] / size[0]))
        from matplotlib.figure import Figure

        figure = Figure(figsize=(size[0] * scale, size[1] * scale))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(low[0] - edge, high[0] + edge)
        axes.set_ylim(low[1] - edge, high[1] + edge)
        if dag.site is not None:
            _frame(axes, low, high, dag.site, scale)
        for arrow in layout.arrows:
            _arrow(axes, arrow, breaking.get((arrow.ends, arrow.two_headed), ""), dag)
        for box in layout.boxes.values():
            _box(axes, box, dag, scale)
        _tags(axes, layout, breaking, scale)
        finished(figure)
    return Picture("causal_dag", figure, frame, _caption(dag, breaking), _alt(dag))


def _frame(axes: Axes, low: tuple[float, float], high: tuple[float, float], site: str, scale: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            low, high[0] - low[0], high[1] - low[1], boxstyle="round,pad=0,rounding_size=0.12", linewidth=0.8,
            edgecolor=INK["bar"], facecolor="#F7F8F9", zorder=0,
        )
    )  # fmt: skip
    words = f"inside each {site_words(label(site, 22))}, own intercepts"
    axes.text(
        (low[0] + high[0]) / 2,
        low[1] + 0.13,
        words,
        fontsize=max(SMALLEST, (FONT - 1) * scale),
        color=_HIDDEN,
        ha="center",
        va="center",
    )


def _arrow(axes: Axes, arrow: Arrow, broken: str, dag: CausalDAG) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    hidden = arrow.two_headed or arrow.ends[0] in dag.unmeasured
    codes = [Path.MOVETO, Path.LINETO] if len(arrow.points) == 2 else [Path.MOVETO, *[Path.CURVE4] * 3]
    axes.add_patch(
        FancyArrowPatch(
            path=Path(arrow.points, codes), arrowstyle="<|-|>" if arrow.two_headed else "-|>", mutation_scale=9,
            linewidth=1.5 if broken else 0.9 if hidden else 1.1, linestyle=(0, (4, 2.5)) if hidden else "-",
            color=INK["line"] if broken else _HIDDEN if hidden else INK["axis"], shrinkA=0, shrinkB=0,
            zorder=4 if broken else 2 if hidden else 3, capstyle="butt", joinstyle="miter",
        )
    )  # fmt: skip


def _box(axes: Axes, box: Box, dag: CausalDAG, scale: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    hidden, cause = box.name in dag.unmeasured, box.name in dag.others
    axes.add_patch(
        FancyBboxPatch(
            (box.x - box.w / 2, box.y - box.h / 2), box.w, box.h,
            boxstyle=f"round,pad=0,rounding_size={0.18 if cause else 0.06}", linewidth=0.9 if cause else 1.2,
            linestyle=(0, (4, 2.5)) if hidden else "-", edgecolor=_HIDDEN if cause else INK["point"],
            facecolor="white", zorder=5,
        )
    )  # fmt: skip
    axes.text(
        box.x, box.y, box.text, fontsize=FONT * scale, ha="center", va="center",
        color=_HIDDEN if cause else INK["black"], linespacing=1.25, zorder=6,
    )  # fmt: skip


def _tags(axes: Axes, layout: Layout, breaking: dict[Mark, str], scale: float) -> None:
    for arrow in layout.arrows:
        if arrow.tag is not None:
            number = f"({breaking[arrow.ends, arrow.two_headed]})"
            axes.text(
                *arrow.tag, number, fontsize=FONT * scale, color=INK["line"], ha="center", va="center", weight="bold",
                zorder=7,
                bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"},
            )  # fmt: skip


def _caption(dag: CausalDAG, breaking: dict[Mark, str]) -> str:
    names = listing(map(one_line, dag.mediators))
    words = [f"Causal graph: {one_line(dag.treatment)}, by way of {names}, to {one_line(dag.outcome)}."]
    if dag.site is not None:
        site = site_words(one_line(dag.site))
        words.append(
            f"The frame is one {site}: what a site does to those inside is absorbed by its intercept."
        )
    if dag.unmeasured or dag.bidirected:
        words.append("Dashed: unmeasured common causes.")
    if breaking:
        ids = sorted(set(breaking.values()), key=("ii", "v", "vi").index)
        words.append(f"Coloured edges break an assumption: {listing(f'({i})' for i in ids)}.")
    else:
        words.append("No edge breaks an assumption.")
    return " ".join(words)


def _alt(dag: CausalDAG) -> str:
    frame = dag.to_frame()
    words = [
        one_line(edge) + (f" (breaks {broken})" if broken else "")
        for edge, broken in zip(frame["edge"], frame["assumption"], strict=True)
    ]
    return f"A graph with the edges {', '.join(words)}."
