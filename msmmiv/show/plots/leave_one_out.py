"""Coefficients without each site in turn: whether one site carries the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msmmiv.errors import count
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.scatter import MANY
from msmmiv.show.plots.sheet import SMALLEST, above, across, sheet
from msmmiv.show.sets import set_words, term_rows
from msmmiv.show.words import fit_label, number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["leave_one_out_plot"]

#: Sites that are named at either end.
NAMED = 3
#: Sites up to which points are large.
LARGE = 40
BAND = "#DDE1E6"


def leave_one_out_plot(fit: Estimate, without: pd.DataFrame) -> Picture:
    """The coefficients without each site in turn, in order, before the estimate and its confidence set.

    Parameters
    ----------
    fit : Estimate
        Of all sites.
    without : DataFrame
        `Study.leave_one_out` of the same estimator: one row per site left out, one column per term.

    Returns
    -------
    Picture
        ``data`` has one row per term and site: ``term``, ``left_out``, ``estimate``, ``change`` (less the estimate of
        all sites) and ``rank``; sites whose absence leaves nothing to estimate come last, with NaN.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import leave_one_out_plot
    >>> study = mm.Study(mm.data.star())
    >>> picture = leave_one_out_plot(study.fit("2sls", cov_type="site"), study.leave_one_out("2sls"))
    >>> len(picture.data), bool(picture.data["estimate"].is_monotonic_increasing)
    (79, True)
    """
    terms = [t for t in fit.terms if t in without and t not in fit.design.covariates]
    frame = pd.concat([_ordered(without[t], t, float(fit.params[t])) for t in terms], ignore_index=True)
    sets = {r.term: r.found for r in term_rows(fit)}
    with drawing():
        beside = across(len(terms), 3)
        down = -(-len(terms) // beside)
        figure = sheet(0.9 + (4.9 if beside == 1 else 2.9) * beside, 3.3 * down)
        panels: list[Any] = list(figure.subplots(down, beside, squeeze=False).ravel())
        for axes in panels[len(terms) :]:
            axes.set_visible(False)
        for axes, term in zip(panels, terms, strict=False):
            _panel(axes, frame[frame["term"] == term], term, float(fit.params[term]), sets[term])
        finished(figure)
        for axes, term in zip(panels, terms, strict=False):
            _names(axes, frame[frame["term"] == term])
    return Picture("leave_one_out", figure, frame, _caption(fit, frame, terms), _alt(fit, frame, terms))


def _ordered(values: pd.Series[float], term: str, estimate: float) -> pd.DataFrame:
    found = values.to_numpy(dtype=float)
    order = np.argsort(found, kind="stable")  # NaN last
    return pd.DataFrame({
        "term": term, "left_out": [values.index[i] for i in order], "estimate": found[order],
        "change": found[order] - estimate, "rank": np.arange(1, len(found) + 1),
    })  # fmt: skip


def _panel(axes: Axes, part: pd.DataFrame, term: str, estimate: float, found: ConfidenceSet | None) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    known = part[np.isfinite(part["estimate"])]
    values, place = known["estimate"].to_numpy(), known["rank"].to_numpy()
    low, high = _limits(np.append(values, estimate), found)
    many = len(known) > MANY
    for piece in found.intervals if found is not None else ():
        axes.axhspan(*np.clip(piece, low, high), color=BAND, linewidth=0, zorder=0)
    if low < 0.0 < high:
        axes.axhline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.axhline(estimate, color=INK["line"], linewidth=1.4, zorder=2)
    axes.plot(
        place, values, linestyle="", marker="o", markersize=4.0 if len(known) <= LARGE else 2.6 if not many else 1.2,
        color=INK["point"], markeredgewidth=0, zorder=3, rasterized=many,
    )  # fmt: skip
    axes.set_ylim(low, high)
    axes.set_xlim(0.0, len(part) + 1.0)
    axes.set_xlabel(f"{count(len(part), 'site')} left out in turn, in order")
    axes.set_ylabel("Direct effect" if term.startswith("direct_effect") else f"Effect of {label(term, 24)}")
    handles: list[Any] = [
        Line2D([], [], color=INK["line"], linewidth=1.4, label=f"all sites: {number(estimate)}")
    ]
    if found is not None and not found.is_empty:
        handles.append(Patch(color=BAND, label="95% set"))
    above(axes, handles)


def _limits(values: Any, found: ConfidenceSet | None) -> tuple[float, float]:
    """All points; ends of the set as far as they do not flatten the points."""
    low, high = float(values.min()), float(values.max())
    span = (high - low) or abs(high) or 1.0
    ends = [e for piece in (found.intervals if found is not None else ()) for e in piece if np.isfinite(e)]
    near = [e for e in ends if low - 4.0 * span <= e <= high + 4.0 * span]
    low, high = min([low, *near]), max([high, *near])
    room = 0.12 * ((high - low) or span)
    return low - room, high + room


def _names(axes: Axes, part: pd.DataFrame) -> None:
    """Labels of the sites that move the coefficient most to either side, where none lies over another."""
    known = part[np.isfinite(part["estimate"])]
    below, beyond = known[known["change"] < 0].head(NAMED), known[known["change"] > 0].tail(NAMED)[::-1]
    for some, left in ((below, False), (beyond, True)):
        taken: list[float] = []
        for row in some.to_dict("records"):
            height = axes.transData.transform((0.0, float(row["estimate"])))[1]
            if all(abs(height - other) > 9.0 for other in taken):
                taken.append(height)
                axes.annotate(
                    label(row["left_out"], 16), (row["rank"], row["estimate"]), (-4 if left else 4, 4 if left else -4),
                    textcoords="offset points", fontsize=SMALLEST, ha="right" if left else "left",
                    va="bottom" if left else "top", color=INK["axis"], zorder=4,
                )  # fmt: skip


def _told(fit: Estimate, frame: pd.DataFrame, term: str) -> str:
    part = frame[(frame["term"] == term) & np.isfinite(frame["estimate"])]
    if part.empty:
        return f"{one_line(term)} is not determined without any one site"
    first, last = part.iloc[0], part.iloc[-1]
    return (
        f"{one_line(term)} is {number(float(fit.params[term]))} with all sites and lies between "
        f"{number(float(first['estimate']))} (without {one_line(first['left_out'])}) and "
        f"{number(float(last['estimate']))} (without {one_line(last['left_out'])})"
    )


def _caption(fit: Estimate, frame: pd.DataFrame, terms: list[str]) -> str:
    sets = "; ".join(f"{one_line(r.term)} {set_words(r.found)}" for r in term_rows(fit) if r.term in terms)
    gone = int(frame["estimate"].isna().sum())
    said = [
        (
            f"Each point is {fit_label(fit)} without one site, in order; the line is the estimate of all sites, the "
            f"band its 95% set ({sets})."
        ),
        *(f"{_told(fit, frame, t)}." for t in terms),
    ]
    if gone:
        said.append(f"{count(gone, 'coefficient is', 'coefficients are')} not determined without the site.")
    if fit.method not in ("2sls", "ols") or fit.design.covariates:
        said.append("What all sites share, such as slopes of covariates, stays as it is with all sites.")
    return " ".join(said)


def _alt(fit: Estimate, frame: pd.DataFrame, terms: list[str]) -> str:
    return f"Coefficients without each site in turn. {'; '.join(_told(fit, frame, t) for t in terms)}."
