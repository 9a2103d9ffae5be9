"""The sheet a figure is drawn on: as wide as a column or a page of a journal, with text that fits there."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from msmmiv.errors import check_choice
from msmmiv.linalg import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text

__all__ = [
    "INCHES",
    "SMALLEST",
    "Width",
    "above",
    "across",
    "at_width",
    "dot_areas",
    "finished",
    "narrow",
    "sheet",
]

Width: TypeAlias = Literal["column", "page"]

#: The widest a figure may be. Nothing is scaled when it is printed at this width, so letters keep their size.
INCHES: Final[dict[str, float]] = {"column": 3.4, "page": 7.0}
#: The smallest letters, in points.
SMALLEST: Final = 7.0
_GAP: Final = 4.0
#: Axes smaller than this, in pixels, have found no room yet.
_NONE: Final = 20.0
_WIDTH: ContextVar[Width] = ContextVar("width", default="page")


@contextmanager
def at_width(width: Width) -> Iterator[None]:
    """Draw figures for a column (3.4 in) or for a page (7 in, the default).

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import forest
    >>> with at_width("column"):
    ...     picture = forest(mm.SiteEffects.from_moments(mm.data.star()))
    >>> float(picture.figure.get_figwidth())
    3.4
    """
    check_choice(width, Width, "width")
    token = _WIDTH.set(width)
    try:
        yield
    finally:
        _WIDTH.reset(token)


def narrow() -> bool:
    """Whether figures are drawn for a column."""
    return _WIDTH.get() == "column"


def across(panels: int, most: int = 3) -> int:
    """How many panels stand beside one another."""
    return 1 if narrow() else min(panels, most)


def sheet(width: float, height: float, *, layout: str | None = "constrained") -> Figure:
    """An empty figure, as wide as asked for where the sheet is, else as wide as the sheet; a column is filled."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    wide = INCHES["column"] if narrow() else min(width, INCHES["page"])
    figure = Figure(figsize=(wide, height), layout=layout)  # type: ignore[arg-type]
    if isinstance(engine := figure.get_layout_engine(), ConstrainedLayoutEngine):
        engine.set(w_pad=0.06)  # letters are wider or narrower by a little in each kind of file
    return figure


def above(axes: Axes, handles: Sequence[Any], ncols: int = 2) -> None:
    """A legend above the axes, with as many columns as there is room for (`finished` sees to that)."""
    if handles:
        _legend(axes, list(handles), [str(h.get_label()) for h in handles], ncols, "left")


def _legend(axes: Axes, handles: list[Any], words: list[str], ncols: int, side: str) -> Legend:
    loc: Literal["lower left", "lower right"] = "lower left" if side == "left" else "lower right"
    made: Legend = axes.legend(
        handles, words, loc=loc, bbox_to_anchor=(0.0 if side == "left" else 1.0, 1.0), ncols=ncols,
        borderaxespad=0.2, columnspacing=1.4, handletextpad=0.6,
    )  # fmt: skip
    made.set_gid(f"columns-{ncols}-{side}")
    return made


def dot_areas(weight: Array, *, many: bool) -> Array:
    """Areas in square points, proportional to weights; the smallest stay large enough to be seen.

    Examples
    --------
    >>> dot_areas(np.array([4.0, 1.0, 0.01]), many=False).tolist()
    [90.0, 22.5, 6.0]
    """
    area: Array = np.maximum(90.0 * weight / np.nanmax(weight), 6.0)
    return area / 12.0 if many else area


def finished(figure: Figure) -> Figure:
    """Lay the figure out once and keep it so: every file then shows the same picture.

    Labels of axes that are longer than their axes are wrapped, legends that are wider than the figure get fewer
    columns and shorter lines, and numbers below an axis that run into one another become fewer.
    """
    said = _draw(figure)
    # Legends first: one that is too wide leaves no room by which labels could be wrapped.
    for step in (_narrower, _wrapped, _sparser):
        for _ in range(10):
            changed = [step(axes) for axes in figure.axes]
            if not any(changed):
                break
            said = _draw(figure)
    for warning in said:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        if (made := axes.get_legend()) is not None:
            made.set_gid(None)  # an SVG would take it for an id
    return figure


def _draw(figure: Figure) -> list[warnings.WarningMessage]:
    """Lay out, and hand back what is said: a legend that is still too wide leaves no room for axes, for now."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from", category=UserWarning)
        warnings.filterwarnings(
            "ignore", message=r"Matplotlib currently does not support", category=UserWarning
        )
        engine = figure.get_layout_engine()
        if engine is None or any(axes.get_aspect() != "auto" for axes in figure.axes):
            figure.draw_without_rendering()
        else:  # places alone: what stands on the axes is drawn when a file is made
            engine.execute(figure)
            for axes in figure.axes:  # asking for its labels brings an axis up to date with its new length
                axes.get_xticklabels()
                axes.get_yticklabels()
    return said


def _sparser(axes: Axes) -> bool:
    """Fewer numbers below an axis where two touch; whether it was so. Ticks that were set by hand stay."""
    from matplotlib.ticker import AutoLocator, MaxNLocator

    locator = axes.xaxis.get_major_locator()
    if not isinstance(locator, MaxNLocator) or not axes.get_visible():
        return False
    low, high = sorted(axes.get_xlim())
    ticks = [t for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_text()]
    ticks.sort(key=lambda t: float(t.get_loc()))
    boxes = [t.label1.get_window_extent() for t in ticks]
    if all(b.x0 - a.x1 >= _GAP for a, b in pairwise(boxes)):
        return False
    most = len(boxes) if isinstance(locator, AutoLocator) else int(getattr(locator, "_nbins", 4))
    if most <= 1:  # the ends alone
        axes.set_xticks([float(ticks[0].get_loc()), float(ticks[-1].get_loc())])
        return True
    axes.xaxis.set_major_locator(MaxNLocator(nbins=most - 1, steps=[1, 2, 2.5, 5, 10]))
    return True


def _narrower(axes: Axes) -> bool:
    """Give a legend that has no room a shape that has; whether it was changed.

    It loses columns first, then stands at the right edge, then its longest entries are wrapped.
    """
    made = axes.get_legend()
    gid = str(made.get_gid()) if made is not None else ""
    figure = axes.get_figure(root=True)
    if made is None or figure is None or not gid.startswith("columns-"):
        return False
    _, columns, side = gid.split("-")
    ncols = int(columns)
    box, frame, room = made.get_window_extent(), axes.get_window_extent(), figure.bbox.width - 2.0 * _GAP
    if (place := axes.get_subplotspec()) is not None:  # panels have their part of the figure
        room *= len(place.colspan) / place.get_gridspec().ncols
    if box.x0 < figure.bbox.x0:  # at the right edge, which itself is inside the figure
        room = min(room, box.x1 - _GAP)
    inside = side == "right" or box.x1 <= frame.x1 + 1.0
    # The layout makes room for a legend by taking it from the axes.
    squeezed = box.width > frame.width and frame.width < 0.5 * room
    if box.width <= room and inside and not squeezed:
        return False
    words = [t.get_text() for t in made.get_texts()]
    if ncols > 1 and (box.width > room or squeezed):
        ncols, side = ncols - 1, "left"
    elif box.width <= room and side == "left":
        side = "right"  # where it may reach back over the names of the other axis
    else:
        shorter = _shorter(words, min(room / box.width, 0.9))
        if shorter == words:
            return False
        words, side = shorter, "left"
    _legend(axes, list(made.legend_handles), words, ncols, side)
    return True


def _shorter(words: list[str], part: float) -> list[str]:
    """Entries of a legend with lines of ``part`` of the length of the longest, where they can be parted."""
    most = max(12, int(part * max(len(line) for entry in words for line in entry.split("\n"))) - 1)
    out = []
    for entry in words:
        if max(map(len, entry.split("\n"))) <= most:
            out.append(entry)
            continue
        whole = " ".join(entry.split("\n"))
        even = -(-len(whole) // -(-len(whole) // most))  # no single word on the last line
        width = min(most, even + 3)
        out.append(textwrap.fill(whole, width, break_long_words=False, break_on_hyphens=False))
    return out


def _wrapped(axes: Axes) -> bool:
    """Wrap labels that are longer than the axes and what stands beside them; whether one was."""
    frame, figure = axes.get_window_extent(), axes.get_figure(root=True)
    if figure is None or min(frame.width, frame.height) < _NONE:
        return False
    alone = len(figure.axes) == 1
    pairs: list[tuple[Text, float]] = [
        # Alone, a label may reach as far to both sides as the figure lets it.
        (
            axes.xaxis.label,
            2.0 * min(frame.x1 - (frame.x0 + frame.x1) / 2.0 + (4.0 if alone else 0.0), figure.bbox.x1),
        ),
        (axes.yaxis.label, frame.height + 12.0),
    ]
    changed = False
    for text, room in pairs:
        words = text.get_text()
        if not words.strip():
            continue
        box = text.get_window_extent()
        length = box.width if text is axes.xaxis.label else box.height
        lines = words.split("\n")
        if length <= room or " " not in max(lines, key=len):
            continue
        most = max(map(len, lines))
        wrapped = textwrap.fill(" ".join(lines), max(8, int(most * room / length)), break_long_words=False)
        if wrapped != words:
            text.set_text(wrapped)
            changed = True
    return changed
