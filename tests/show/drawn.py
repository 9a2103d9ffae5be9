"""What a figure of the audit has on its axes, by kind."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex

from msmmiv.show.plots.picture import INK


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
