"""Whether the line of itt over compliance goes through the origin: what is left of itt where compliance is zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msmmiv.diagnose.linearity import SurfaceTest
from msmmiv.errors import ChoiceError, DataError, count
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.scatter import Z95
from msmmiv.show.plots.sheet import above, sheet
from msmmiv.show.plots.surface_points import (
    DASHES,
    DRAWN,
    Plane,
    arm_handles,
    bars,
    points,
    reach,
    result_words,
    span_of,
    unit_words,
)
from msmmiv.show.words import number, one_line, p_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["origin"]

#: How far the estimate at zero may stretch the vertical axis, in ranges of the points; beyond it is cut with an arrow.
_STRETCH = 1.0
_SHAPES: dict[str, dict[str, Any]] = {
    "estimate": {
        "linestyle": "", "marker": "D", "markersize": 6, "color": INK["black"], "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    },
    "found": {
        "linestyle": "", "marker": "_", "markersize": 15, "markeredgewidth": 2.2, "color": INK["purple"],
    },
}  # fmt: skip


def origin(found: SurfaceTest, effects: SiteEffects) -> Picture:
    """Itt against compliance from the origin out to the sites, and the direct effect estimated at zero compliance.

    Exclusion puts the line through the origin. With several mediators the horizontal axis is what the plane predicts.

    Parameters
    ----------
    found : SurfaceTest
        Of kind "origin".
    effects : SiteEffects
        Those of the test.

    Returns
    -------
    Picture
        ``data`` has the sites (``part`` "site"), the ends of the line ("line"), the direct effect with its 95% interval
        ("direct_effect": ``y, lower, upper``) and the smallest ones found with 80% power ("detectable").

    Raises
    ------
    ChoiceError
        A test of another kind; `falsification` draws those.
    DataError
        Effects that are not those of the test, or several mediators without a plane.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.diagnose.linearity import surface_test
    >>> effects = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    >>> data = origin(surface_test(effects, "origin", draws=99), effects).data
    >>> data.loc[data["part"] == "direct_effect", "y"].round(1).tolist()
    [3.8]
    """
    if found.kind != "origin":
        raise ChoiceError(f"origin() draws a test of the origin; falsification() draws {found.kind!r}.")
    plane = Plane(found, effects)
    if not (plane.single or plane.exists):
        raise DataError(f"There is no plane to draw: {one_line(found.test)}.")
    sites = plane.whole()
    data = pd.concat([sites.assign(part="site"), *_marks(plane, sites)], ignore_index=True)
    with drawing():
        figure = sheet(5.8, 4.3)
        axes = figure.add_subplot()
        _draw(axes, sites, data)
        _legend(axes, sites, data)
        outcome = label(effects.outcome)
        axes.set_ylabel(f"Effect of treatment on {outcome}")
        axes.set_xlabel(
            f"Effect of treatment on {label(found.mediators[0])}"
            if plane.single
            else f"Effect of treatment on {outcome}, predicted from compliances"
        )
        finished(figure)
    return Picture("origin", figure, data, _caption(plane), _alt(plane))


def _marks(plane: Plane, sites: pd.DataFrame) -> list[pd.DataFrame]:
    """The line's ends, the direct effect and what would have been found; those that exist."""
    found, out = plane.found, []
    if plane.exists:
        ends = np.array([min(0.0, sites["x"].min()), max(0.0, sites["x"].max())])
        slope = float(plane.slopes[0]) if plane.single else 1.0
        out.append(pd.DataFrame({"x": ends, "y": slope * ends, "part": "line"}))
    value, error = _estimate(found)
    if np.isfinite(value):
        half = Z95 * error if np.isfinite(error) else np.nan
        out.append(pd.DataFrame({"x": [0.0], "y": [value], "lower": [value - half], "upper": [value + half],
                                 "part": "direct_effect"}))  # fmt: skip
    if np.isfinite(found.detectable):
        far = found.detectable
        out.append(pd.DataFrame({"x": [0.0, 0.0], "y": [-far, far], "part": "detectable"}))
    return out


def _estimate(found: SurfaceTest) -> tuple[float, float]:
    return float(found.added.iloc[0]), float(found.std_errors.iloc[0])


def _draw(axes: Axes, sites: pd.DataFrame, data: pd.DataFrame) -> None:
    around = bars(axes, sites)
    points(axes, sites)
    line, at, found = (data[data["part"] == p] for p in ("line", "direct_effect", "detectable"))
    ends = np.concatenate(
        [at[["lower", "upper"]].to_numpy(dtype=float).ravel() if len(at) else [], found["y"]]
    )
    y = np.concatenate([sites["y"], at["y"], line["y"], [0.0]])
    span = span_of(sites["y"].to_numpy())
    near = np.clip(ends, sites["y"].min() - _STRETCH * span, sites["y"].max() + _STRETCH * span)
    axes.set_xlim(reach(np.append(sites["x"], 0.0), around[:, [0, 2]].ravel()))
    axes.set_ylim(reach(np.append(y, near[np.isfinite(near)]), around[:, [1, 3]].ravel()))
    if len(line):
        axes.plot(line["x"], line["y"], color=INK["axis"], linewidth=1.4, linestyle=DASHES, zorder=4)
    if len(at):
        _upright(axes, at["lower"].iloc[0], at["upper"].iloc[0])
        axes.plot(at["x"], at["y"], zorder=6, **_SHAPES["estimate"])
    bottom, top = axes.get_ylim()
    shown = found[found["y"].between(bottom, top)]
    axes.plot(shown["x"], shown["y"], zorder=5.5, clip_on=False, **_SHAPES["found"])


def _upright(axes: Axes, low: float, high: float) -> None:
    """The interval at zero compliance, with arrows where it leaves the figure."""
    if not np.isfinite([low, high]).all():
        return
    bottom, top = axes.get_ylim()
    ends = np.clip([low, high], bottom, top)
    axes.plot(
        [0.0, 0.0], ends, color=INK["black"], linewidth=2.0, zorder=5, solid_capstyle="butt", clip_on=False
    )
    for value, edge, marker in ((low, bottom, "v"), (high, top, "^")):
        if not bottom <= value <= top:
            axes.plot(
                [0.0], [edge], marker=marker, markersize=7, color=INK["black"], clip_on=False, zorder=5.2
            )


def _legend(axes: Axes, sites: pd.DataFrame, data: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D

    line, at, found = (data[data["part"] == p] for p in ("line", "direct_effect", "detectable"))
    handles: list[Any] = []
    if len(line):
        style: dict[str, Any] = {"color": INK["axis"], "linewidth": 1.4, "linestyle": DASHES}
        handles.append(Line2D([], [], label="null: through the origin", **style))
    if len(at):
        row = at.iloc[0]
        reaching = (
            f" (95%: {number(row['lower'], 3)} to {number(row['upper'], 3)})"
            if np.isfinite(row["lower"])
            else ""
        )
        words = f"direct effect {number(row['y'], 3)}{reaching}"
        handles.append(Line2D([], [], label=words, **_SHAPES["estimate"]))
    if len(found):
        words = f"found with 80% power: ±{number(found['y'].max(), 3)}"
        handles.append(Line2D([], [], label=words, **(_SHAPES["found"] | {"markersize": 11})))
    handles += arm_handles(sites)
    above(axes, handles)


def _caption(plane: Plane) -> str:
    found, rows = plane.found, len(plane.found.sites)
    over = (
        f"that on {one_line(found.mediators[0])}"
        if plane.single
        else "what the plane through compliances predicts"
    )
    errors = (
        f", with 95% intervals (estimate ± 1.96 standard errors, {plane.effects.error_kind})"
        if rows <= DRAWN
        else f" (errors are not drawn for {rows:,} of them)"
    )
    effect = f"the effect of treatment on {one_line(plane.effects.outcome)}"
    said = [f"Each point is a {unit_words(plane)}: {effect} against {over}{errors}."]
    if plane.exists:
        shape = "line" if plane.single else "plane"
        said.append(
            f"Dashed: the {shape} through the origin, corrected for sampling error; it is the null of no direct effect."
        )
    value, error = _estimate(found)
    if np.isfinite(value):
        said.append(
            "Diamond: the direct effect estimated where compliance is zero, "
            f"{number(value, 3)} (standard error {number(error, 2)}; bar: ± 1.96 of them, while p is simulated)."
        )
    else:
        said.append("The direct effect has no estimate and is not drawn.")
    said.append(result_words(found, "A direct effect (dashes)"))
    said.append(_far(plane))
    said.append("A line through the origin does not confirm exclusion.")
    return " ".join(s for s in said if s)


def _far(plane: Plane) -> str:
    """How far from the sites zero compliance is."""
    x = plane.whole()["x"].to_numpy()
    beyond = max(float(x.min()), -float(x.max()))
    if beyond <= 0.0:
        return ""
    return f"Zero lies beyond all sites, {number(beyond / span_of(x), 2)} of their range away."


def _alt(plane: Plane) -> str:
    found = plane.found
    value, error = _estimate(found)
    over = f"effect on {one_line(found.mediators[0])}" if plane.single else "what the plane predicts"
    rows = f"{count(len(found.sites), 'row')}, one per {unit_words(plane)}"
    said = [
        f"Scatter plot of {rows}: effect on {one_line(plane.effects.outcome)} against {over}, from the origin."
    ]
    if np.isfinite(value):
        said.append(f"At zero compliance the direct effect is {number(value, 3)} (se {number(error, 2)}).")
    if np.isfinite(found.test.pvalue):
        said.append(f"Test of the origin: {p_words(found.test.pvalue)}.")
    return " ".join(said)
