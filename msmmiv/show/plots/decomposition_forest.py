"""Indirect and direct effect of every row, and their averages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.linalg import Array
from msmmiv.show.decomposition_words import level_words, no_estimate, row_words
from msmmiv.show.plots.forest import LABELLED, named_rows
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.scatter import MANY
from msmmiv.show.plots.sheet import narrow, sheet
from msmmiv.show.words import number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["indirect_forest"]

#: Intervals are drawn as far as so many ranges of the estimates to either side of them.
REACH = 2.5


def indirect_forest(found: Decomposition) -> Picture:
    """What goes through the mediators and past them in every row, ordered by itt, with the averages below.

    Parameters
    ----------
    found : Decomposition

    Returns
    -------
    Picture

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> from msmmiv.show.plots import indirect_forest
    >>> picture = indirect_forest(decompose(mm.data.star()))
    >>> len(picture.data), picture.data["row"].iloc[-1], bool(picture.data["itt"][:-1].is_monotonic_decreasing)
    (80, 'average', True)
    """
    frame, panels = _frame(found)
    rows = len(frame) - 1
    height = 1.2 + min(0.165 * rows, 7.6) if rows <= LABELLED else 7.0
    with drawing():
        beside = min(len(panels), 2 if narrow() else 3)
        down = -(-len(panels) // beside)
        figure = sheet(1.8 + 2.4 * beside, down * max(height, 2.0))
        axes_of: list[Any] = list(figure.subplots(down, beside, sharey=True, squeeze=False).ravel())
        for axes in axes_of[len(panels) :]:
            axes.set_visible(False)
        cut = False
        for axes, (column, title) in zip(axes_of, panels.items(), strict=False):
            low, high = (
                frame[column.replace(*_end(column, e))].to_numpy(dtype=float) for e in ("lower", "upper")
            )
            cut |= _panel(axes, frame[column].to_numpy(dtype=float), low, high)
            axes.set_xlabel(title)
        _row_labels(axes_of[0], frame, 72.0 * (height - 1.0) / max(rows, 1))
        if rows > LABELLED:
            axes_of[0].set_ylabel(f"{rows:,} rows, ordered by the effect on {label(found.rows.outcome)}")
        finished(figure)
    return Picture("indirect_effects", figure, frame, _caption(found, frame, cut=cut), _alt(found, frame))


def _end(column: str, end: str) -> tuple[str, str, int]:
    kind = column.partition(" ")[0]
    return kind, f"{kind}_{end}", 1


def _frame(found: Decomposition) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows with the average last, and the columns that are drawn with their titles."""
    sites = found.site_effects.sort_values("itt", ascending=False, kind="stable")
    average = {str(r["effect"]): r for r in found.effects.to_dict("records")}
    several = len(found.rows.mediators) > 1
    panels = {
        f"indirect {m}" if several else "indirect": f"Through {label(m, 24)}" for m in found.rows.mediators
    }
    last: dict[str, Any] = {"row": "average", "itt": float(average["total effect"]["estimate"])}
    for column, mediator in zip(panels, found.rows.mediators, strict=True):
        _fill(last, column, average[f"indirect effect through {mediator}" if several else "indirect effect"])
    if not several:
        panels["direct"] = "Direct effect"
        _fill(last, "direct", average["direct effect"])
    frame = sites.astype({"row": object}).reset_index(drop=True)
    return pd.concat([frame, pd.DataFrame([last])], ignore_index=True), panels


def _fill(last: dict[str, Any], column: str, row: dict[Any, Any]) -> None:
    last[column] = float(row["estimate"])
    for end in ("lower", "upper"):
        last[column.replace(*_end(column, end))] = float(row[end])


def _panel(axes: Axes, values: Array, low: Array, high: Array) -> bool:
    """One panel; whether an interval is cut at the edge."""
    rows = len(values) - 1
    place = np.append(np.arange(rows)[::-1] + _gap(rows), 0.0)
    left, right = _limits(values, low, high)
    inside = np.column_stack(
        [np.clip(low, left, right), np.clip(high, left, right), np.full(rows + 1, np.nan)]
    )
    up = np.column_stack([place, place, np.full(rows + 1, np.nan)])
    few, many = rows <= LABELLED, rows > MANY
    thin = 1.1 if few else 0.7 if not many else 0.25
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.plot(inside[:-1].ravel(), up[:-1].ravel(), color=INK["bar"] if few else INK["sky"], linewidth=thin, zorder=2,
              rasterized=many)  # fmt: skip
    axes.plot(inside[-1], up[-1], color=INK["line"], linewidth=2.0, zorder=2)
    size = 4.0 if few else 2.2 if not many else 0.8
    axes.plot(values[:-1], place[:-1], linestyle="", marker="o", color=INK["point"], markersize=size,
              markeredgewidth=0, zorder=3, rasterized=many)  # fmt: skip
    axes.plot(values[-1:], place[-1:], linestyle="", marker="D", color=INK["line"], markersize=6, zorder=4)
    cut = False
    for ends, edge, marker, out in ((low, left, "<", low < left), (high, right, ">", high > right)):
        gone = out & ~np.isnan(ends)
        if not gone.any():
            continue
        cut |= bool(np.isfinite(ends[gone]).any())
        for some, ink in ((gone & (np.arange(rows + 1) < rows), "bar" if few else "sky"),
                          (gone & (np.arange(rows + 1) == rows), "line")):  # fmt: skip
            if some.any():
                axes.plot(np.full(some.sum(), edge), place[some], linestyle="", marker=marker, color=INK[ink],
                          markersize=4.0 if few or ink == "line" else 1.8, markeredgewidth=0, zorder=3,
                          clip_on=False)  # fmt: skip
    axes.axhline(0.5 * _gap(rows), color=INK["axis"], linewidth=0.6, zorder=1)
    axes.set_xlim(left, right)
    if not np.isfinite(np.concatenate([values, low, high])).any():
        axes.set_xticks([])  # there is nothing that would give the axis a scale
    axes.set_ylim(-0.5 * _gap(rows) - 0.1, rows + _gap(rows) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    return cut


def _gap(rows: int) -> float:
    """Distance of the average from the rows, in rows."""
    return max(1.5, 0.03 * rows)


def _limits(values: Array, low: Array, high: Array) -> tuple[float, float]:
    """Estimates and zero, and the intervals as far as a few very long ones do not push the rest together."""
    ends = np.concatenate([low, high])
    ends = ends[np.isfinite(ends)]
    width = (high - low)[np.isfinite(high - low)]
    shown = np.append(values[np.isfinite(values)], 0.0)
    if not len(ends) and np.ptp(shown) == 0.0:
        return -1.0, 1.0
    if len(width):
        middle = ((high + low) / 2.0)[np.isfinite(high - low)]
        usual = float(np.median(width))
        shown = np.concatenate([shown, middle - REACH * usual, middle + REACH * usual])
        left, right = max(shown.min(), min(ends.min(), 0.0)), min(shown.max(), max(ends.max(), 0.0))
    else:
        span = float(np.ptp(np.concatenate([shown, ends])))
        left, right = min(shown.min(), *ends, 0.0) - 0.3 * span, max(shown.max(), *ends, 0.0) + 0.3 * span
    known = values[np.isfinite(values)]
    left, right = min([left, *known]), max([right, *known])
    room = 0.04 * (right - left)
    return float(left - room), float(right + room)


def _row_labels(axes: Axes, frame: pd.DataFrame, pitch: float) -> None:
    rows = len(frame) - 1
    shown = named_rows(rows, pitch)
    texts = [*(label(frame["row"][i], 26) for i in shown), "average"]
    axes.set_yticks([*(rows - 1 - i + _gap(rows) for i in shown), 0.0], texts)
    axes.tick_params(axis="y", labelsize=7)


def _caption(found: Decomposition, frame: pd.DataFrame, *, cut: bool) -> str:
    percent, rows = level_words(found.level), found.rows
    text = (
        f"What treatment does to {one_line(rows.outcome)} in every {row_words(rows)} through "
        f"{', '.join(one_line(m) for m in rows.mediators)}"
    )
    text += " and past it" if len(rows.mediators) == 1 else ""
    text += (
        f", with {percent} sets, ordered by the total effect; below, the average ({_shares(found)}). All rows "
        "share the slope, so their sets move together; they allow for the slope and for the sampling error of the row. "
    )
    values = frame[[c for c in map(str, frame) if "lower" in c or "upper" in c]].to_numpy(dtype=float)
    if np.isinf(values).any():
        text += "Arrows: the set goes on without end. "
    if cut:
        text += "Arrows at the edge also stand for long intervals that end outside the picture. "
    if any(not s.is_connected for s in found.slope_sets.values()):
        text += "A slope's set has several pieces; the lines run from the lowest value to the highest. "
    if len(frame) - 1 > LABELLED:
        text += f"Of {len(frame) - 1:,} rows only the first and last are named. "
    return " ".join(f"{text}{no_estimate(found)}".split())


def _shares(found: Decomposition) -> str:
    return "all counted alike" if np.ptp(found.shares) < 1e-12 else "weighted with the shares that were given"


def _alt(found: Decomposition, frame: pd.DataFrame) -> str:
    lines = [
        f"{one_line(r['effect'])} {number(float(r['estimate']))}, {number(float(r['lower']))} to "
        f"{number(float(r['upper']))}"
        for r in found.effects.to_dict("records")
        if not str(r["effect"]).startswith(("share", "total"))
    ]
    return f"Forest plot of {len(frame) - 1:,} rows. On average: {'; '.join(lines)}."
