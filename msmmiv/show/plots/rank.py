"""Strength by direction against what noise alone would give: assumption (viii.c) as a picture."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msmmiv.diagnose.rank import RankReport
from msmmiv.diagnose.rank_words import combination_words
from msmmiv.diagnose.spectrum import Spectrum
from msmmiv.errors import count
from msmmiv.linalg import Array
from msmmiv.show.plots.picture import INK, Picture, drawing, finished
from msmmiv.show.plots.sheet import narrow, sheet
from msmmiv.show.words import number, one_line, p_words, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["direction_words", "rank_spectrum"]

#: Mediators that are named in a direction; the table has the others.
NAMED = 3
#: From here on the axis of strengths is logarithmic.
WIDE = 5.0
#: Strengths below this are drawn at the edge.
LEAST = 0.05
NOISE = "#DDE1E6"


def direction_words(names: tuple[str, ...], weights: Array, width: int = 22) -> str:
    """A direction in words that fit beside a picture: its largest weights, labels cut to ``width``.

    Examples
    --------
    >>> direction_words(("hours", "dosage"), np.array([0.8, -0.6]))
    '0.80 hours - 0.60 dosage'
    """
    if len(names) == 1:
        return short(names[0], width)
    largest = np.argsort(-np.abs(weights))[:NAMED]
    words = combination_words(tuple(short(names[j], width) for j in largest), weights[largest])
    return words + (" …" if len(weights) > NAMED else "")


def rank_spectrum(report: RankReport) -> Picture | None:
    """Strength of every direction with the reach of noise, and the share of bias that 2SLS keeps there.

    Parameters
    ----------
    report : RankReport

    Returns
    -------
    Picture or None
        None where there is no noise floor; ``report.why_no_spectrum`` says why.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import rank_spectrum
    >>> picture = rank_spectrum(mm.rank(mm.data.star("math_two_mediators")))
    >>> picture.data[["direction", "strength"]].round(1).values.tolist()
    [[1.0, 51.1], [2.0, 0.8]]
    """
    found = report.spectrum
    if found is None:
        return None
    frame = report.to_frame()
    frame.insert(1, "words", [direction_words(found.mediators, w, 40) for w in found.weights.T])
    with drawing():
        names = [
            textwrap.fill(direction_words(found.mediators, w).replace("$", r"\$"), 18 if narrow() else 30)
            for w in found.weights.T
        ]
        lines = sum(max(2, 1 + n.count("\n")) for n in names)
        figure = sheet(7.0, 1.9 + 0.42 * lines if narrow() else 1.0 + 0.21 * lines)
        shape: dict[str, Any] = {"nrows": 2} if narrow() else {"ncols": 2, "width_ratios": (3.2, 1)}
        left, right = figure.subplots(sharey=True, **shape)
        _strengths(left, frame)
        _shares(right, frame)
        left.set_yticks(range(len(names))[::-1], names)
        left.set_ylim(-0.6, len(names) - (0.25 if narrow() else 0.4))
        _legend(figure, frame)
        return Picture("rank_spectrum", finished(figure), frame, _caption(report, found), _alt(found))


def _strengths(axes: Axes, frame: pd.DataFrame) -> None:
    place = np.arange(len(frame))[::-1]
    strength, floor, high = (frame[c].to_numpy(dtype=float) for c in ("strength", "floor", "floor_95"))
    left, right = _scale(axes, np.concatenate([strength, floor, high, [1.0]]))
    axes.set_xlim(left, right)
    axes.barh(place, high - left, left=left, height=0.5, color=NOISE, zorder=1)
    axes.vlines(floor, place - 0.25, place + 0.25, color=INK["bar"], linewidth=1.4, zorder=2)
    axes.axvline(1.0, color=INK["axis"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
    shown = np.maximum(strength, left)
    stands = (frame["p_value"] <= 0.05).to_numpy()
    for some, open_ in ((stands, False), (~stands, True)):
        if some.any():
            axes.plot(shown[some], place[some], zorder=4, clip_on=False, **_marker(hollow=open_))
    for x, y, s, p in zip(np.maximum(shown, high), place, strength, frame["p_value"], strict=True):
        said: dict[str, Any] = {
            "textcoords": "offset points",
            "fontsize": 7.5,
            "color": INK["axis"],
            "zorder": 5,
        }
        words = f"{number(s, 3)}, {p_words(p)}"
        if narrow():  # a column has no room beside the bars, but above them
            axes.annotate(
                words, (right, y + 0.25), (0, 1.5), ha="right", va="bottom", annotation_clip=False, **said
            )
        else:
            axes.annotate(words, (x, y), (8, 0), va="center", **said)
    axes.set_xlabel("Strength (1 is what noise gives)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)


def _marker(*, hollow: bool) -> dict[str, Any]:
    face = "white" if hollow else INK["point"]
    return {"linestyle": "", "marker": "o", "markersize": 7, "color": INK["point"], "markerfacecolor": face,
            "markeredgewidth": 1.4}  # fmt: skip


def _scale(axes: Axes, values: Array) -> tuple[float, float]:
    """Limits with room for the numbers, and a logarithmic axis where strengths differ by much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    top, bottom = float(values.max()), float(max(values.min(), LEAST))
    if top / bottom < WIDE:
        return 0.0, 1.4 * top
    axes.set_xscale("log")
    narrow = top / bottom < 30.0
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}" if v < 1e5 else f"{v:.0e}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return 0.7 * bottom, top * (top / bottom) ** 0.4


def _legend(figure: Any, frame: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    stands = frame["p_value"] <= 0.05
    handles: list[Any] = [Patch(color=NOISE, label="noise alone: 95% of the time")]
    handles.append(Line2D([], [], color=INK["bar"], linewidth=1.4, label="its mean"))
    if stands.any():
        handles.append(Line2D([], [], label="strength", **_marker(hollow=False)))
    if not stands.all():
        handles.append(Line2D([], [], label="strength within noise (p > 0.05)", **_marker(hollow=True)))
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=1 if narrow() else 4,
        columnspacing=1.4,
        handletextpad=0.6,
    )


def _shares(axes: Axes, frame: pd.DataFrame) -> None:
    place, share = (
        np.arange(len(frame))[::-1],
        100.0 * frame["bias_share"].fillna(frame["noise_share"]).to_numpy(dtype=float),
    )
    axes.barh(place, share, height=0.5, color=INK["orange"], zorder=2)
    for y, s in zip(place, share, strict=True):
        axes.annotate(_percent(s), (s, y), (3, 0), textcoords="offset points", va="center", fontsize=7.5,
                      color=INK["axis"])  # fmt: skip
    axes.set_xlim(0.0, 135.0)
    axes.set_xticks([0.0, 50.0, 100.0], ["0", "50", "100%"])
    axes.set_xlabel("Bias kept by 2SLS")
    axes.tick_params(axis="y", length=0)


def _percent(value: float) -> str:
    return f"{value:.0f}%" if value >= 9.95 else f"{value:.1f}%" if value >= 0.095 else "<0.1%"


def _caption(report: RankReport, found: Spectrum) -> str:
    several = len(found.mediators) > 1
    what = (
        "Strength of every combination of mediators, strongest first; weights are in units of each mediator's noise."
        if several
        else f"Strength of the effect of treatment on {one_line(found.mediators[0])} across sites."
    )
    free = (
        " The direct effect is free, so only differences between sites count." if report.direct_effect else ""
    )
    return (
        f"{what}{free} Estimated compliances are never exactly zero or exactly proportional, so that noise alone gives "
        f"a strength of about 1; the grey bars end where noise alone stays 95% of the time ({found.draws:,} draws, "
        f"{report.noise} variances), the lines in them are its mean. Bars to the right: share of the bias of "
        f"OLS that 2SLS keeps (of that with instruments of pure noise, where only site effects are known)."
    )


def _alt(found: Spectrum) -> str:
    told = [
        f"{direction_words(found.mediators, found.weights[:, j], 40)}: strength {number(float(s), 3)}, noise alone "
        f"stays below {number(float(found.floor_95[j]), 3)} in 95% of draws, {p_words(float(found.pvalues[j]))}"
        for j, s in enumerate(found.strength)
    ]
    return f"Strength of {count(len(told), 'direction')} against noise. {'; '.join(told)}."
