"""All sites under one another, with intervals: readable at five sites and at five thousand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.scatter import MANY, Z95
from msmmiv.show.plots.sheet import narrow, sheet
from msmmiv.show.words import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forest"]

#: Up to here every row has its label; above, only the extremes do.
LABELLED = 60
#: Groups of neighbours that stand for the rows where these are too many to be drawn one by one.
GROUPS = 80
#: Smallest distance of two rows of which three at either end are named, and of two labels, in points.
PITCH, APART = 5.0, 7.0


def forest(effects: SiteEffects) -> Picture:
    """Effects on the outcome and on every mediator, one row per site (and arm), ordered by itt.

    Parameters
    ----------
    effects : SiteEffects

    Returns
    -------
    Picture
        Above 400 rows neighbours are drawn together, as quantiles; ``data`` still has every row, with its ``group``.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import forest
    >>> picture = forest(mm.SiteEffects.from_moments(mm.data.star()))
    >>> bool(picture.data["itt"].is_monotonic_decreasing)
    True
    """
    frame = effects.to_frame().dropna(subset="itt")
    frame = frame.sort_values("itt", ascending=False, kind="stable").reset_index(drop=True)
    rows, names = len(frame), ["itt", *effects.mediators]
    titles = [effects.outcome, *effects.mediators]
    unit = "site and arm" if "arm" in frame else "site"
    plural = "site-by-arm contrasts" if "arm" in frame else "sites"
    height = 1.0 + min(0.165 * rows, 7.6) if rows <= LABELLED else 7.0
    with drawing():
        beside = min(len(names), 3 if narrow() else 4)
        down = -(-len(names) // beside)
        figure = sheet(1.6 + 2.0 * beside, down * max(height, 1.8))
        panels: list[Any] = list(figure.subplots(down, beside, sharey=True, squeeze=False).ravel())
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        for axes, name, title in zip(panels, names, titles, strict=False):
            _panel(axes, frame[name].to_numpy(), frame[f"{name}_se"].to_numpy())
            axes.set_xlabel(f"Effect on {label(title, 24)}")
        _row_labels(panels[0], frame, 72.0 * (height - 1.0) / max(rows, 1))
        if rows > LABELLED:
            panels[0].set_ylabel(f"{rows:,} {plural}, ordered by the effect on {label(effects.outcome)}")
        finished(figure)
    listed = ", ".join(one_line(t) for t in titles)
    open_ = (
        " Open points have no standard error."
        if rows <= MANY and frame[[f"{n}_se" for n in names]].isna().any(axis=None)
        else ""
    )
    if rows > MANY:
        frame = frame.assign(group=_groups(rows))
        how = (
            f"in {GROUPS} groups of neighbours: median (point), the middle 80% (thick), and the median ends of the 95% "
            f"intervals of single {plural} (thin; estimate ± 1.96 standard errors, {effects.error_kind})"
        )
    else:
        how = f"with 95% intervals (estimate ± 1.96 standard errors, {effects.error_kind})"
    caption = (
        f"Effects of treatment on {listed} in every {unit}, ordered by the effect on {one_line(effects.outcome)}, "
        f"{how}.{open_} The spread shown is more "
        "than the spread of the true effects, because every point carries sampling error."
    )
    alt = (
        f"Forest plot of {rows:,} {plural}, one panel for each of {listed}. "
        f"Effects on {one_line(effects.outcome)} range from {frame['itt'].min():.3g} to {frame['itt'].max():.3g}."
    )
    return Picture("forest", figure, frame, caption, alt)


def _groups(rows: int) -> npt.NDArray[np.intp]:
    """(rows,) which of at most `GROUPS` groups of neighbours a row is drawn in."""
    out: npt.NDArray[np.intp] = np.arange(rows) * GROUPS // rows
    return out


def _quantiles(axes: Axes, values: Array, se: Array) -> None:
    """Groups of neighbours: median, middle 80%, and the interval of a typical row; heights are those of the rows."""
    rows = len(values)
    place = np.arange(rows)[::-1].astype(float)
    table = pd.DataFrame({
        "group": _groups(rows), "place": place, "value": values, "low": values - Z95 * se, "high": values + Z95 * se,
    }).groupby("group")  # fmt: skip
    height, middle = table["place"].mean().to_numpy(), table["value"].median().to_numpy()
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.hlines(
        height, table["low"].median(), table["high"].median(), color=INK["sky"], linewidth=0.8, zorder=2
    )
    axes.hlines(
        height,
        table["value"].quantile(0.1),
        table["value"].quantile(0.9),
        color=INK["point"],
        linewidth=1.8,
        zorder=3,
    )
    axes.plot(middle, height, linestyle="", marker="o", color=INK["black"], markersize=2.0, zorder=4)
    axes.set_ylim(-0.8, rows - 0.2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)


def _panel(axes: Axes, values: Array, se: Array) -> None:
    rows = len(values)
    if rows > MANY:
        _quantiles(axes, values, se)
        return
    place = np.arange(rows)[::-1]
    half = Z95 * se
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    # One broken line instead of one object per row: a tenth of the size.
    gap = np.full(rows, np.nan)
    x = np.column_stack([values - half, values + half, gap]).ravel()
    y = np.column_stack([place, place, gap]).ravel()
    thin = 1.1 if rows <= LABELLED else 0.7
    axes.plot(x, y, color=INK["sky"] if rows > LABELLED else INK["bar"], linewidth=thin, zorder=2)
    size = 4.0 if rows <= LABELLED else 2.2
    known = np.isfinite(se)
    style: dict[str, Any] = {"linestyle": "", "marker": "o", "zorder": 3}
    axes.plot(values[known], place[known], color=INK["point"], markersize=size, markeredgewidth=0, **style)
    axes.plot(
        values[~known], place[~known], color=INK["point"], markersize=size, markerfacecolor="white",
        markeredgewidth=0.7, **style,
    )  # fmt: skip
    axes.set_ylim(-0.8, rows - 0.2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)


def named_rows(rows: int, pitch: float) -> list[int]:
    """Rows with a label: all of few, else three at either end, or one where rows are very close.

    >>> named_rows(3, 12.0), named_rows(79, 5.5), named_rows(300, 1.4)
    ([0, 1, 2], [0, 2, 4, 74, 76, 78], [0, 299])
    """
    if rows <= LABELLED:
        return list(range(rows))
    step, ends = int(np.ceil(APART / pitch)), 3 if pitch >= PITCH else 1
    first = [i * step for i in range(ends)]
    return [*first, *(rows - 1 - i for i in first[::-1])]


def _row_labels(axes: Axes, frame: pd.DataFrame, pitch: float) -> None:
    rows = len(frame)
    shown = named_rows(rows, pitch)
    texts = [
        label(frame["site"][i], 22) + (f" · {label(frame['arm'][i], 14)}" if "arm" in frame else "")
        for i in shown
    ]
    axes.set_yticks([rows - 1 - i for i in shown], texts)
    axes.tick_params(axis="y", labelsize=7)
