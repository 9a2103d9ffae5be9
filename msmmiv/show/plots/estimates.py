"""All estimates beside one another: what changes when an assumption or a standard error does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from msmmiv.errors import DataError
from msmmiv.inference.results import Estimate
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.words import fit_label, number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["estimates"]

#: Panels beside one another.
ACROSS = 3


def estimates(fits: Sequence[Estimate]) -> Picture:
    """Coefficients of mediators and direct effects with 95% intervals, one panel per term.

    Parameters
    ----------
    fits : sequence of Estimate

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        When there is no fit.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import estimates
    >>> m = mm.data.star()
    >>> picture = estimates([mm.fit(m), mm.fit(m, direct_effect=True)])
    >>> picture.data[["term", "fit"]].values.tolist()[-1]
    ['direct_effect', '2SLS + direct effect, cluster']
    """
    if not fits:
        raise DataError("estimates() needs at least one fit.")
    frame = pd.concat([_rows(i, fit) for i, fit in enumerate(fits)], ignore_index=True)
    terms = list(dict.fromkeys(frame["term"]))
    with drawing():
        from matplotlib.figure import Figure

        across = min(len(terms), ACROSS)
        down = -(-len(terms) // across)
        size = (1.9 + 2.1 * across, down * (0.95 + 0.34 * len(fits)))
        figure = Figure(figsize=size, layout="constrained")
        panels: list[Any] = list(figure.subplots(down, across, sharey=True, squeeze=False).ravel())
        for axes, term in zip(panels, terms, strict=False):
            _panel(axes, frame[frame["term"] == term], term, len(fits))
        for axes in panels[len(terms) :]:
            axes.set_visible(False)
        panels[0].set_yticks(range(len(fits))[::-1], [fit_label(f) for f in fits])
        finished(figure)
    caption = (
        f"Coefficients with 95% intervals; the diamond is the headline. Outcome: {one_line(fits[0].design.outcome)}. "
        "The panels have scales of their own."
    )
    told = [
        f"{one_line(term)}, {name}: {number(b)} ({number(low)} to {number(high)})"
        for term, name, b, low, high in frame[["term", "fit", "estimate", "conf_low", "conf_high"]].to_numpy()
    ]
    return Picture(
        "estimates", figure, frame.drop(columns="order"), caption, f"Estimates. {'; '.join(told)}."
    )


def _panel(axes: Axes, part: pd.DataFrame, term: str, rows: int) -> None:
    place = rows - 1 - part["order"].to_numpy()
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.hlines(place, part["conf_low"], part["conf_high"], color=INK["bar"], linewidth=1.4, zorder=2)
    # The first row is the headline; it differs by shape as well as by colour.
    first = (part["order"] == 0).to_numpy()
    axes.plot(part["estimate"][first], place[first], "D", color=INK["line"], markersize=6, zorder=3)
    axes.plot(part["estimate"][~first], place[~first], "o", color=INK["point"], markersize=5, zorder=3)
    axes.set_ylim(-0.6, rows - 0.4)
    axes.set_xlabel(label(term, 26))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)


def _rows(order: int, fit: Estimate) -> pd.DataFrame:
    tidy = fit.tidy()
    kept = tidy[~tidy["term"].isin(fit.design.covariates)]
    return kept.assign(fit=fit_label(fit), order=order)
