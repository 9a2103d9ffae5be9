"""All sites under one another, with intervals: readable at five sites and at five thousand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.scatter import MANY, Z95
from msmmiv.show.words import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forest"]

#: Up to here every row has its label; above, only the extremes do.
LABELLED = 60
#: Smallest distance of two labels, in points.
PITCH = 5.0


def forest(effects: SiteEffects) -> Picture:
    """Effects on the outcome and on every mediator, one row per site (and arm), ordered by itt.

    Parameters
    ----------
    effects : SiteEffects

    Returns
    -------
    Picture

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
    height = 1.0 + 0.165 * rows if rows <= LABELLED else 7.0
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(1.6 + 2.0 * len(names), max(height, 1.8)), layout="constrained")
        panels: list[Any] = list(np.atleast_1d(figure.subplots(1, len(names), sharey=True)))
        for axes, name, title in zip(panels, names, titles, strict=True):
            _panel(axes, frame[name].to_numpy(), frame[f"{name}_se"].to_numpy())
            axes.set_xlabel(f"Effect on {label(title, 24)}")
        _row_labels(panels[0], frame, 72.0 * (height - 1.0) / max(rows, 1))
        if rows > LABELLED:
            panels[0].set_ylabel(f"{rows:,} {plural}, ordered by the effect on {label(effects.outcome)}")
        finished(figure)
    listed = ", ".join(one_line(t) for t in titles)
    open_ = (
        " Open points have no standard error."
        if frame[[f"{n}_se" for n in names]].isna().any(axis=None)
        else ""
    )
    caption = (
        f"Effects of treatment on {listed} in every {unit}, ordered by the effect on {one_line(effects.outcome)}, "
        f"with 95% intervals (estimate ± 1.96 standard errors, {effects.error_kind}).{open_} The spread shown is more "
        "than the spread of the true effects, because every point carries sampling error."
    )
    alt = (
        f"Forest plot of {rows:,} {plural}, one panel for each of {listed}. "
        f"Effects on {one_line(effects.outcome)} range from {frame['itt'].min():.3g} to {frame['itt'].max():.3g}."
    )
    return Picture("forest", figure, frame, caption, alt)


def _panel(axes: Axes, values: Array, se: Array) -> None:
    rows = len(values)
    many, place = rows > MANY, np.arange(rows)[::-1]
    half = Z95 * se
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    # One broken line instead of one object per row: a tenth of the size.
    gap = np.full(rows, np.nan)
    x = np.column_stack([values - half, values + half, gap]).ravel()
    y = np.column_stack([place, place, gap]).ravel()
    thin = 1.1 if rows <= LABELLED else 0.7 if not many else 0.25
    axes.plot(
        x, y, color=INK["sky"] if rows > LABELLED else INK["bar"], linewidth=thin, zorder=2, rasterized=many
    )
    size = 4.0 if rows <= LABELLED else 2.2 if not many else 0.8
    known = np.isfinite(se)
    style: dict[str, Any] = {"linestyle": "", "marker": "o", "zorder": 3, "rasterized": many}
    axes.plot(values[known], place[known], color=INK["point"], markersize=size, markeredgewidth=0, **style)
    axes.plot(
        values[~known], place[~known], color=INK["point"], markersize=size, markerfacecolor="white",
        markeredgewidth=0.7, **style,
    )  # fmt: skip
    axes.set_ylim(-0.8, rows - 0.2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)


def _row_labels(axes: Axes, frame: pd.DataFrame, pitch: float) -> None:
    rows = len(frame)
    ends = rows if rows <= LABELLED else 3 if pitch >= PITCH else 1
    shown = [i for i in range(rows) if i < ends or i >= rows - ends]
    texts = [
        label(frame["site"][i], 22) + (f" · {label(frame['arm'][i], 14)}" if "arm" in frame else "")
        for i in shown
    ]
    axes.set_yticks([rows - 1 - i for i in shown], texts)
    axes.tick_params(axis="y", labelsize=7 if rows <= LABELLED else 6)
