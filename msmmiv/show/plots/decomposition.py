"""Itt against compliance with all that is uncertain about it: sampling error of both, and the slopes that are left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msmmiv.errors import DataError, listing
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.estimate.between.linear import Ols
from msmmiv.estimate.between.rows import DIRECT, BetweenRows
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.linalg import Array
from msmmiv.show.decomposition_words import (
    level_words,
    method_words,
    no_estimate,
    row_words,
    shape_words,
    short_set,
)
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.scatter import MANY
from msmmiv.show.plots.sheet import above, sheet
from msmmiv.show.sets import set_words
from msmmiv.show.words import number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["chosen_mediator", "decomposition_scatter"]

#: Rows up to which all are named; above, the ones with the most extreme compliance.
NAMED, EXTREMES = 12, 4
#: Rows up to which ellipses are filled.
FILLED = 20
#: Square root of the 95% quantile of chi-squared with two degrees of freedom.
RADIUS = 2.447746830680816
#: How far ellipses may push the limits beyond the points, in ranges of the points.
ROOM = 0.35
BAND = "#F7DFCE"
#: Angle between the lines of a fan that opens to the vertical.
FAN = 0.25
#: Slopes in a piece of the set, and how close to vertical an unbounded piece is drawn.
_SLOPES, _VERTICAL = 121, 1e-3


@dataclass(frozen=True, eq=False)
class _View:
    """The regression along one mediator, the others held at ``held``.

    Attributes
    ----------
    frame : DataFrame
        Points with the standard errors and covariance of their errors.
    line, ols : (float, float)
        Intercept and slope of the estimate and of least squares; NaN without an estimate.
    """

    found: Decomposition
    mediator: str
    held: Array
    frame: pd.DataFrame
    line: tuple[float, float]
    ols: tuple[float, float]

    @property
    def bounds(self) -> ConfidenceSet:
        return self.found.slope_sets[self.mediator]

    @property
    def several(self) -> bool:
        return any(term not in (self.mediator, DIRECT) for term in self.found.rows.terms)

    def intercepts(self, value: Array) -> Array:
        """(G,) where the lines with slopes ``value`` meet the axis of this picture."""
        test, rows = self.found.slope_tests[self.mediator], self.found.rows
        path, effects = test.path(value), test.others(value)
        return np.array(
            [
                _intercept(rows, self.mediator, np.concatenate([b, c]), self.held)
                for b, c in zip(effects, path.intercepts, strict=True)
            ]
        )


def chosen_mediator(found: Decomposition, mediator: str | None, figure: str) -> str:
    """The mediator that a picture is about; ``figure`` is the name of the picture in `StudyPlots`.

    Raises
    ------
    DataError
        An unknown name, or none where there are several.
    """
    names = found.rows.mediators
    if mediator is None:
        if len(names) == 1:
            return names[0]
        raise DataError(
            f"There are {len(names)} mediators and each has a figure of its own: name one of "
            f"{listing(names, quote=True)}, as in study.plot.{figure}({names[0]!r})."
        )
    if mediator not in names:
        raise DataError(f"mediator={mediator!r} must be one of {listing(names, quote=True)}.")
    return mediator


def decomposition_scatter(found: Decomposition, mediator: str | None = None) -> Picture:
    """Itt against compliance: error ellipses of the rows, the line, and the fan of lines that the data leave open.

    With several mediators (or site covariates) the itt is net of the others' part, at the estimate.

    Parameters
    ----------
    found : Decomposition
    mediator : str, optional
        Needed where there are several.

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        An unknown mediator, or none where there are several.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> from msmmiv.show.plots import decomposition_scatter
    >>> picture = decomposition_scatter(decompose(mm.data.star()))
    >>> picture.data.columns.tolist()
    ['row', 'x', 'y', 'x_se', 'y_se', 'covariance']
    """
    view = _view(found, chosen_mediator(found, mediator, "decomposition"))
    outcome, name = found.rows.outcome, view.mediator
    with drawing():
        figure = sheet(5.8, 4.5)
        axes = figure.add_subplot()
        around = _ellipses(axes, view.frame)
        _limits(axes, view, around)
        _fan(axes, view)
        _points(axes, view.frame)
        _lines(axes, view)
        net = ", net of the others" if view.several else ""
        axes.set_xlabel(f"Effect of treatment on {label(name)}")
        axes.set_ylabel(f"Effect of treatment on {label(outcome, 20 if net else 28)}{net}")
        _legend(axes, view)
        finished(figure)
        _names(axes, view.frame)
    many = len(found.rows.mediators) > 1
    file = f"decomposition_{1 + found.rows.mediators.index(name)}" if many else "decomposition"
    return Picture(file, figure, view.frame, _caption(view), _alt(view))


def _view(found: Decomposition, mediator: str) -> _View:
    rows, j = found.rows, found.rows.mediators.index(mediator)
    ols = Ols().solve(rows).coefficients
    held = np.where(np.isfinite(found.fit.coefficients).all(), found.fit.coefficients, ols)
    others = np.array([p != j for p in range(len(rows.mediators))])
    slopes = held[: len(rows.mediators)] * others
    away = np.array([name != DIRECT for name in rows.exogenous], dtype=bool)
    y = rows.y - rows.x @ slopes - rows.z[:, away] @ held[len(rows.mediators) :][away]
    both = np.zeros((2, 1 + len(rows.mediators)))
    both[0, 1 + j], both[1] = 1.0, np.concatenate([[1.0], -slopes])
    cov = np.einsum("ra,kab,sb->krs", both, rows.cov, both)
    frame = pd.DataFrame({
        "row": list(rows.labels), "x": rows.x[:, j], "y": y, "x_se": np.sqrt(cov[:, 0, 0]),
        "y_se": np.sqrt(cov[:, 1, 1]), "covariance": cov[:, 0, 1],
    })  # fmt: skip
    estimate = found.fit.coefficients
    lines = [(_intercept(rows, mediator, b, held), float(b[j])) for b in (estimate, ols)]
    return _View(found, mediator, held, frame, lines[0], lines[1])


def _intercept(rows: BetweenRows, mediator: str, coefficients: Array, held: Array) -> float:
    """Where a regression meets the axis once the others' part is taken out at ``held``."""
    p = len(rows.mediators)
    apart = np.array([name != mediator for name in rows.mediators])
    moved = (coefficients - held)[:p][apart] @ rows.x.mean(axis=0)[apart]
    for i, name in enumerate(rows.exogenous):
        moved += coefficients[p + i] if name == DIRECT else (coefficients - held)[p + i] * rows.z[:, i].mean()
    return float(moved)


def _ellipses(axes: Axes, frame: pd.DataFrame) -> Array:
    """Draw 95% ellipses of sampling error; (n, 4) how far they reach."""
    from matplotlib.collections import PolyCollection

    cov = np.empty((len(frame), 2, 2))
    cov[:, 0, 0], cov[:, 1, 1] = frame["x_se"] ** 2, frame["y_se"] ** 2
    cov[:, 0, 1] = cov[:, 1, 0] = frame["covariance"]
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    angle = np.linspace(0.0, 2.0 * np.pi, 49)
    circle = RADIUS * np.stack([np.cos(angle), np.sin(angle)])
    rim = (root @ circle).transpose(0, 2, 1) + frame[["x", "y"]].to_numpy()[:, None, :]
    few, many = len(frame) <= FILLED, len(frame) > MANY
    alpha = 0.25 if few else 0.08 if many else 0.5 if len(frame) <= 40 else 0.28
    axes.add_collection(
        PolyCollection(
            list(rim), facecolors=INK["sky"] if few else "none", edgecolors=INK["point"],
            linewidths=0.8 if few else 0.45, alpha=alpha, zorder=2, rasterized=many,
        ),
        autolim=False,
    )  # fmt: skip
    out: Array = np.concatenate([rim.min(axis=1), rim.max(axis=1)], axis=1)
    return out


def _limits(axes: Axes, view: _View, around: Array) -> None:
    """All points, zero compliance and the direct effect; ellipses as far as they do not dwarf the points."""
    direct = [view.line[0]] if np.isfinite(view.line[0]) else []
    for side, (low, high) in (("x", (0, 2)), ("y", (1, 3))):
        points = np.append(view.frame[side].to_numpy(), [0.0] if side == "x" else [0.0, *direct])
        span = float(np.ptp(points)) or 1.0
        left = max(min(around[:, low].min(), points.min()), points.min() - ROOM * span)
        right = min(max(around[:, high].max(), points.max()), points.max() + ROOM * span)
        room = 0.04 * (right - left)
        (axes.set_xlim if side == "x" else axes.set_ylim)(left - room, right + room)


def _fan(axes: Axes, view: _View) -> None:
    """All lines whose slope belongs to the set; to the vertical where it is unbounded."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = np.linspace(left, right, 400)
    scale = (top - bottom) / (right - left)
    reach = 0.5 * np.pi - _VERTICAL
    for low, high in view.bounds.intervals:
        ends = [np.arctan(low / scale), np.arctan(high / scale)]
        slopes = scale * np.tan(np.linspace(max(ends[0], -reach), min(ends[1], reach), _SLOPES))
        height = view.intercepts(slopes)[:, None] + slopes[:, None] * x
        inside = np.clip(height, bottom - (top - bottom), top + (top - bottom))
        axes.fill_between(
            x, inside.min(axis=0), inside.max(axis=0), color=BAND, alpha=0.75, linewidth=0, zorder=0.5
        )
        # Ends of the set, and where it has none a few lines that show how it opens.
        shown = [i for i, end in ((0, low), (-1, high)) if np.isfinite(end)]
        if not np.isfinite([low, high]).all():
            every = round(_SLOPES * FAN / (ends[1] - ends[0]))
            shown += list(range(every // 2, _SLOPES, every))
        for i in shown:
            axes.plot(x, height[i], color=INK["line"], linewidth=0.6, alpha=0.55, zorder=1.5)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _points(axes: Axes, frame: pd.DataFrame) -> None:
    n = len(frame)
    axes.axhline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    many = n > MANY
    axes.scatter(
        frame["x"], frame["y"], 26.0 if n <= 40 else 13.0 if not many else 3.0, color=INK["point"],
        alpha=0.5 if many else 0.9, edgecolors="none" if many else "white", linewidths=0.5, zorder=4, rasterized=many,
    )  # fmt: skip


def _lines(axes: Axes, view: _View) -> None:
    span = np.array(axes.get_xlim())
    style: dict[str, Any] = {"color": INK["axis"], "linewidth": 1.1, "linestyle": (0, (4, 3)), "zorder": 3}
    axes.plot(span, view.ols[0] + view.ols[1] * span, **style)
    if np.isfinite(view.line[1]):
        axes.plot(span, view.line[0] + view.line[1] * span, color=INK["line"], linewidth=1.8, zorder=3.5)
    if not view.found.has_direct_effect:
        return
    bottom, top = axes.get_ylim()
    bounds = _direct_ends(view.found)
    if bounds is not None and not view.several:
        axes.plot([0.0, 0.0], np.clip(bounds, bottom, top), color=INK["black"], linewidth=1.6, zorder=4.5,
                  solid_capstyle="butt")  # fmt: skip
        for end, edge, marker in ((bounds[0], bottom, "v"), (bounds[1], top, "^")):
            if not np.isfinite(end):
                axes.plot(
                    [0.0], [edge], marker=marker, markersize=6, color=INK["black"], clip_on=False, zorder=4.5
                )
    if np.isfinite(view.line[0]):
        axes.plot([0.0], [view.line[0]], zorder=5, **_diamond())


def _direct_ends(found: Decomposition) -> tuple[float, float] | None:
    low, high = found.conf_int().to_numpy()[found.rows.terms.index(DIRECT)].tolist()
    return None if np.isnan(low) else (low, high)


def _diamond() -> dict[str, Any]:
    return {"linestyle": "", "marker": "D", "markersize": 5.5, "color": INK["black"], "markeredgecolor": "white",
            "markeredgewidth": 0.6}  # fmt: skip


def _legend(axes: Axes, view: _View) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found, percent = view.found, level_words(view.found.level)
    if found.status:
        handles: list[Any] = [
            Line2D([], [], linestyle="", label=f"{method_words(found.method)}: no estimate")
        ]
    else:
        handles = [Line2D([], [], color=INK["line"], linewidth=1.8,
                          label=f"{method_words(found.method)}: slope {number(view.line[1], 3)}")]  # fmt: skip
    handles.append(Patch(color=BAND, label=f"slopes in the {percent} set: {short_set(view.bounds)}"))
    handles.append(
        Line2D([], [], color=INK["axis"], linewidth=1.1, linestyle=(0, (4, 3)),
               label=f"OLS, errors ignored: slope {number(view.ols[1], 3)}")
    )  # fmt: skip
    if found.has_direct_effect and not found.status:
        handles.append(Line2D([], [], label=f"direct effect {number(view.line[0], 3)}", **_diamond()))
    above(axes, handles)


def _names(axes: Axes, frame: pd.DataFrame) -> None:
    """Labels of the rows, or of those with extreme compliance, where none lies over another."""
    to_points, n = axes.transData.transform, len(frame)
    taken: list[Array] = []
    right = axes.transAxes.transform((0.78, 0.0))[0]
    away = np.abs(frame["x"].to_numpy() - float(frame["x"].mean()))
    order = np.argsort(-away, kind="stable")[: n if n <= NAMED else EXTREMES]
    for row in frame.iloc[order].to_dict("records"):
        x, y = float(row["x"]), float(row["y"])
        at = to_points((x, y))
        if all(abs(at[1] - o[1]) > 14.0 or abs(at[0] - o[0]) > 60.0 for o in taken):
            taken.append(at)
            left = at[0] > right
            axes.annotate(
                label(row["row"], 16), (x, y), (-5 if left else 5, 4), textcoords="offset points", fontsize=7,
                ha="right" if left else "left", color=INK["axis"], zorder=6,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.3},
            )  # fmt: skip


def _net(view: _View) -> str:
    rows = view.found.rows
    others = [m for m in rows.mediators if m != view.mediator] + [e for e in rows.exogenous if e != DIRECT]
    return listing([one_line(o) for o in others])


def _caption(view: _View) -> str:
    found, percent = view.found, level_words(view.found.level)
    rows, name, outcome = found.rows, one_line(view.mediator), one_line(found.rows.outcome)
    text = (
        f"Each point is one {row_words(rows)}: the effect of treatment on {outcome} against that on {name}, in the "
        "ellipse that holds 95% of its sampling error (tilted where the two errors are correlated"
    )
    text += "; here that is unknown and taken as zero). " if rows.zero_covariance_assumed else "). "
    if view.several:
        at = "their least-squares effects" if found.status else "their estimated effects"
        text += f"What {_net(view)} contribute is taken out, at {at}. "
    if found.status:
        text += no_estimate(found) + " "
    else:
        text += f"The line is {method_words(found.method)}: its slope is the effect of {name}"
        free = found.has_direct_effect
        text += ", its height at zero compliance the direct effect" if free else ", without a direct effect"
        bounds = _direct_ends(found) if found.has_direct_effect and not view.several else None
        text += f" (bar: {percent} set). " if bounds else ". "
    text += (
        f"The fan holds the lines whose slope is in the {percent} set of the empirical-Bayes score, "
        f"{set_words(view.bounds)}. {shape_words(found, view.mediator)} "
    )
    text += "Least squares (dashed) ignores sampling error in compliance, which pulls its slope towards zero."
    return " ".join(text.split())


def _alt(view: _View) -> str:
    found = view.found
    told = (
        "there is no point estimate"
        if found.status
        else f"the line has slope {number(view.line[1])}"
        + (f" and meets zero compliance at {number(view.line[0])}" if found.has_direct_effect else "")
    )
    return (
        f"Scatter plot of {len(view.frame):,} rows with error ellipses: effect on {one_line(found.rows.outcome)} "
        f"against effect on {one_line(view.mediator)}; {told}; slopes that are not rejected: {set_words(view.bounds)}; "
        f"least squares {number(view.ols[1])}."
    )
