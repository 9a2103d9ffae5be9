"""What a figure has on its axes, by kind, and whether it is fit to print."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text

from msmmiv.show.plots.picture import INK
from msmmiv.show.plots.sheet import INCHES, SMALLEST


def lines(axes, width, colour=None):
    found = [line for line in axes.get_lines() if line.get_linewidth() == pytest.approx(width)]
    return [line for line in found if colour is None or to_hex(line.get_color()) == to_hex(INK[colour])]


def dots(axes):
    """Offsets of all points drawn, arm after arm."""
    parts = [c.get_offsets() for c in axes.collections if isinstance(c, PathCollection)]
    return np.concatenate([np.asarray(p) for p in parts])


def rims(axes):
    kinds = [c for c in axes.collections if isinstance(c, PolyCollection)]
    shapes = [c for c in kinds if not isinstance(c, FillBetweenPolyCollection)]
    return [path.vertices for c in shapes for path in c.get_paths()]


def band(axes):
    (found,) = [c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]
    return found.get_paths()[0].vertices


def texts(axes):
    return [t.get_text() for t in axes.texts]


def legend(axes):
    return [t.get_text() for t in axes.get_legend().get_texts()] if axes.get_legend() else []


def shown_texts(figure):
    """Letters that somebody reads: ticks beyond the ends of an axis are there and not drawn."""
    gone: set[int] = set()
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                within = min(limits) - 1e-9 <= tick.get_loc() <= max(limits) + 1e-9
                if not within or not axes.get_visible():
                    gone |= {id(tick.label1), id(tick.label2)}
        if not axes.get_visible():
            gone |= {id(text) for text in axes.findobj(Text)}
    return [t for t in figure.findobj(Text) if id(t) not in gone and t.get_visible() and t.get_text().strip()]


def settle(figure):
    """Letters where files have them: places of axes are known before, those of their letters when they are drawn."""
    if figure.stale:
        figure.draw_without_rendering()


def check_print(picture, width):
    """As wide as the sheet at most, no letter below 7 points, none cut at the edge."""
    figure = picture.figure
    settle(figure)
    wide = figure.get_figwidth()
    dag = picture.name == "causal_dag"  # its boxes are as wide as their names
    assert wide <= INCHES[width] + (0.6 if dag else 1e-9)
    box = figure.bbox
    for text in shown_texts(figure):
        assert text.get_fontsize() >= SMALLEST, text.get_text()
        found = text.get_window_extent()
        assert found.x0 >= -2.0, (text.get_text(), found.x0)
        assert found.x1 <= box.width + 2.0, (text.get_text(), found.x1 - box.width)
        assert found.y0 >= -2.0, (text.get_text(), found.y0)
        assert found.y1 <= box.height + 2.0, (text.get_text(), found.y1 - box.height)
    read = {id(t) for t in shown_texts(figure)}
    for axes in figure.axes:
        for ticks, side in ((axes.get_xticklabels(), 0), (axes.get_yticklabels(), 1)):
            # Upright names below an axis must be apart as well; of slanted ones the boxes may touch.
            check_apart([t for t in ticks if id(t) in read and t.get_rotation() in (0.0, 90.0)], side)


def check_room(picture, *, least=0.3):
    """The one panel of a figure has its part of the sheet's width, and words on it stay on it."""
    settle(picture.figure)
    panels = [axes for axes in picture.figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
    if len(panels) == 1:
        assert panels[0].get_window_extent().width >= least * picture.figure.bbox.width
    for axes in panels:
        frame = axes.get_window_extent()
        for text in axes.texts:
            found = text.get_window_extent()
            assert found.x0 >= frame.x0 - 2.0, (text.get_text(), found.x0 - frame.x0)
            assert found.x1 <= frame.x1 + 2.0, (text.get_text(), found.x1 - frame.x1)


def check_apart(labels, side):
    """No number or name of an axis runs into the next one."""
    ends = sorted(t.get_window_extent().get_points()[:, side].tolist() for t in labels)
    for (_, end), (start, _) in itertools.pairwise(ends):
        assert start >= end - 1.5, [t.get_text() for t in labels]
