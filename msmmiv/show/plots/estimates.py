"""All estimates beside one another: what changes when an assumption or a standard error does."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msmmiv.errors import DataError
from msmmiv.inference.results import Estimate
from msmmiv.linalg import Array
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.sheet import narrow, sheet
from msmmiv.show.sets import set_words, shape_of, term_rows, why
from msmmiv.show.words import fit_label, number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["estimates"]

#: Panels beside one another; four only where that is all.
ACROSS = 3
#: What stands in the row of a fit that gives nothing, and where a panel is too narrow for that.
NOTHING, NOTHING_SHORT = "no estimate, no set", "none"
#: Sets may push the axis so many of their median widths beyond the points before they are cut.
FAR = 4.0


def estimates(fits: Sequence[Estimate], *, skipped: Sequence[str] = ()) -> Picture:
    """Coefficients of mediators and direct effects with 95% confidence sets, one panel per term.

    A bounded set is a bar, an unbounded one goes to the edge and ends in an arrow, a set in two pieces is two bars
    with a gap, an empty set and a fit without any set are words. Axes reach as far as estimates and finite ends; a
    set much wider than the others is cut at the edge, with an open arrow.

    Parameters
    ----------
    fits : sequence of Estimate
        The headline first.
    skipped : sequence of str
        Estimates that could not be had, each with the reason; for the caption.

    Returns
    -------
    Picture
        ``data`` has one row per fit, term and piece of the set, ends in ``lower`` and ``upper``; a fit whose set is
        empty, or who has none, has one row with both ends NaN. ``shape`` is that of the whole set ("none" where there
        is no set), ``status`` says why there is no point estimate.

    Raises
    ------
    DataError
        When there is no fit.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import estimates
    >>> m = mm.data.star()
    >>> picture = estimates([mm.fit(m, "2sls"), mm.fit(m, "2sls", direct_effect=True)])
    >>> picture.data[["term", "fit", "shape"]].values.tolist()[-1]
    ['direct_effect', '2SLS + direct effect, cluster', 'interval']
    """
    if not fits:
        raise DataError("estimates() needs at least one fit.")
    frame = pd.DataFrame([row for i, fit in enumerate(fits) for row in _rows(i, fit)])
    terms = list(dict.fromkeys(frame["term"]))
    with drawing():
        most = 2 if narrow() else ACROSS + (len(terms) == 4)
        beside = min(len(terms), most)
        down = -(-len(terms) // beside)
        names = [textwrap.fill(fit_label(f), 22) if narrow() else fit_label(f) for f in fits]
        row = 0.34 if not narrow() else 0.17 + 0.13 * max(n.count("\n") for n in names)
        size = (0.6 + 0.07 * max(map(len, names)) + 2.1 * beside, down * (0.95 + row * len(fits)))
        figure = sheet(*size)
        nothing = NOTHING_SHORT if narrow() or beside > ACROSS else NOTHING
        panels: list[Any] = list(figure.subplots(down, beside, sharey=True, squeeze=False).ravel())
        for axes, term in zip(panels, terms, strict=False):
            _panel(axes, frame[frame["term"] == term], term, len(fits), nothing)
        for axes in panels[len(terms) :]:
            axes.set_visible(False)
        panels[0].set_yticks(range(len(fits))[::-1], names)
        finished(figure)
    head = "the first row is the headline" if fits[0].status else "the diamond is the headline"
    caption = (
        f"Coefficients with 95% confidence sets; {head}. Outcome: "
        f"{one_line(fits[0].design.outcome)}. The panels have scales of their own."
    )
    if frame["shape"].isin(["ray", "two rays", "whole line", "union"]).any():
        caption += (
            " A bar that ends in an arrow has no end on that side: the data do not bound the effect there."
        )
    if any(_cut(axes, frame[frame["term"] == t]) for axes, t in zip(panels, terms, strict=False)):
        caption += " An open arrow: the set is much wider than the others and ends outside the picture."
    if any(text.get_text() == NOTHING_SHORT for axes in panels for text in axes.texts):
        caption += f" “{NOTHING_SHORT}”: neither an estimate nor a set."
    for fit in fits:
        caption += f" {fit_label(fit)} has no point estimate: {why(fit)}." if fit.status else ""
    if skipped:
        caption += f" Not shown: {'; '.join(one_line(s).rstrip('.') for s in skipped)}."
    told = [
        f"{one_line(r.term)}, {fit_label(f)}: {number(r.estimate)} ({set_words(r.found)})"
        for f in fits
        for r in term_rows(f)
        if r.term not in f.design.covariates
    ]
    return Picture(
        "estimates", figure, frame.drop(columns="order"), caption, f"Estimates. {'; '.join(told)}."
    )


def _panel(axes: Axes, part: pd.DataFrame, term: str, rows: int, nothing: str) -> None:
    place = rows - 1 - part["order"].to_numpy()
    low, high, points = (part[c].to_numpy(dtype=float) for c in ("lower", "upper", "estimate"))
    left, right = _limits(low, high, points)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    drawn = ~np.isnan(low)
    axes.hlines(
        place[drawn], np.maximum(low, left)[drawn], np.minimum(high, right)[drawn], color=INK["bar"], linewidth=1.4,
        zorder=2,
    )  # fmt: skip
    arrow: dict[str, Any] = {"color": INK["bar"], "markersize": 6, "clip_on": False, "zorder": 2}
    for ends, out, edge, marker in ((low, low < left, left, "<"), (high, high > right, right, ">")):
        for some, face in ((out & np.isinf(ends), INK["bar"]), (out & np.isfinite(ends), "white")):
            if some.any():
                axes.plot(np.full(some.sum(), edge), place[some], marker, markerfacecolor=face, **arrow)
    for y, shape, point in zip(place[~drawn], part["shape"][~drawn], points[~drawn], strict=True):
        alone = np.isnan(point)
        words = "empty" if shape == "empty" else nothing if alone else "no set"
        axes.text(
            0.5, y if alone else y + 0.15, words, transform=axes.get_yaxis_transform(), ha="center",
            va="center" if alone else "bottom", fontsize=7.5, style="italic", color=INK["axis"],
        )  # fmt: skip
    # The first row is the headline; it differs by shape as well as by colour.
    first = (part["order"] == 0).to_numpy()
    axes.plot(points[first], place[first], "D", color=INK["line"], markersize=6, zorder=3)
    axes.plot(points[~first], place[~first], "o", color=INK["point"], markersize=5, zorder=3)
    axes.set_xlim(left, right)
    axes.set_ylim(-0.6, rows - 0.4)
    if not np.isfinite([*low, *high, *points]).any():
        axes.set_xticks([0.0])  # nothing has a scale here
    axes.set_xlabel(label(term, 26))
    axes.tick_params(axis="y", length=0, pad=8)  # room for arrows
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)


def _cut(axes: Axes, part: pd.DataFrame) -> bool:
    """Whether a finite end lies outside the picture."""
    left, right = axes.get_xlim()
    low, high = part["lower"].to_numpy(dtype=float), part["upper"].to_numpy(dtype=float)
    return bool((np.isfinite(low) & (low < left)).any() or (np.isfinite(high) & (high > right)).any())


def _limits(low: Array, high: Array, points: Array) -> tuple[float, float]:
    """From the point estimates and the finite ends, zero among them, with room for the markers."""
    ends = np.concatenate([low, high])
    ends = ends[np.isfinite(ends)]
    known = points[np.isfinite(points)]
    core = np.append(known, 0.0)
    whole = np.append(core, ends)
    left, right = float(whole.min()), float(whole.max())
    width = (high - low)[np.isfinite(high - low)]
    if len(known) and len(width):
        far = FAR * float(np.median(width))
        near = np.append(core, np.clip(ends, known.min() - far, known.max() + far))
        if np.ptp(near) < 0.6 * (right - left):
            left, right = float(near.min()), float(near.max())
    if left == right:
        return -1.0, 1.0
    return left - 0.07 * (right - left), right + 0.07 * (right - left)


def _rows(order: int, fit: Estimate) -> list[dict[str, Any]]:
    out = []
    for row in term_rows(fit):
        if row.term in fit.design.covariates:
            continue
        pieces = row.found.intervals if row.found is not None else ()
        out += [
            {
                "term": row.term, "estimate": row.estimate, "std_error": row.std_error, "lower": low, "upper": high,
                "shape": shape_of(row.found), "fit": fit_label(fit), "method": fit.method, "cov_type": fit.cov_type,
                "status": fit.status or "", "order": order,
            }
            for low, high in pieces or [(float("nan"), float("nan"))]
        ]  # fmt: skip
    return out
