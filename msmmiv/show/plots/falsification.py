"""Whether itt is a plane in compliances: sites, the plane, a smooth, and where it lies when the plane is the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from msmmiv.diagnose.linearity import SurfaceTest
from msmmiv.errors import ChoiceError, count
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.sheet import above, across, sheet
from msmmiv.show.plots.surface_points import (
    DASHES,
    DRAWN,
    Plane,
    arm_handles,
    ellipses,
    points,
    reach,
    result_words,
    span_of,
    unit_words,
)
from msmmiv.show.words import number, one_line, p_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["falsification"]

BAND: Final = "#DDE1E6"
#: The origin is shown where it is nearer than so many ranges of the points.
_NEAR: Final = 0.75
#: Small panels beside one another.
_ACROSS: Final = 3


def falsification(found: SurfaceTest, effects: SiteEffects) -> Picture:
    """Itt over compliance with the line that is tested, the corrected quadratic, and a smooth beside its null band.

    With several mediators itt is shown over what the plane predicts, and below over each compliance less the other
    mediators' part.

    Parameters
    ----------
    found : SurfaceTest
        Of kind "curvature", "reset" or "vech".
    effects : SiteEffects
        Those of the test.

    Returns
    -------
    Picture
        ``data`` has the sites (``part`` "site"), the curves ("curve") and the ends of the straight lines ("line"); with
        several mediators ``mediator`` names the panel, empty for the plane's value.

    Raises
    ------
    ChoiceError
        A test of the origin; `origin` draws it.
    DataError
        Effects that are not those of the test.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.diagnose.linearity import surface_test
    >>> effects = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    >>> picture = falsification(surface_test(effects, "curvature", direct_effect=True, draws=99), effects)
    >>> picture.name, picture.data["part"].value_counts().to_dict()
    ('falsification', {'site': 79, 'curve': 61, 'line': 2})
    """
    if found.kind == "origin":
        raise ChoiceError("falsification() draws curvature; origin() draws a test of the origin.")
    plane = Plane(found, effects)
    several = not plane.single
    names = ("",) if not several else (*([""] if plane.exists else []), *found.mediators)
    frames = [_panel_frame(plane, j) for j in ([None] if not several else _order(plane))]
    with drawing():
        figure, panels = _panels(plane)
        for axes, frame, name in zip(panels, frames, names, strict=True):
            _draw(axes, frame, small=several and name != "")
        if not several or plane.exists:
            _main_labels(panels[0], plane)
        _legend(panels[0], frames[0], plane)
        if several:
            _small_labels(panels[-len(found.mediators) :], plane)
        finished(figure)
    if several:
        frames = [f.assign(mediator=n) for f, n in zip(frames, names, strict=True)]
    data = pd.concat(frames, ignore_index=True)
    file = "falsification" if found.kind == "curvature" else f"falsification_{found.kind}"
    return Picture(file, figure, data, _caption(plane), _alt(plane))


def _order(plane: Plane) -> list[int | None]:
    """Panels: the plane's value, where there is one, then the mediators."""
    head: list[int | None] = [None] if plane.exists else []
    return head + list(range(len(plane.slopes)))


def _panel_frame(plane: Plane, j: int | None) -> pd.DataFrame:
    """Sites, curves, and the ends of the straight line, of one panel; "null" and the curves are heights at x."""
    sites = plane.whole() if j is None else plane.partial(j)
    parts = [sites.assign(part="site")]
    if not plane.exists:
        return parts[0]
    x = sites["x"].to_numpy()
    zero = [0.0] if _near(x) else []
    ends = np.array([min([*zero, x.min()]), max([*zero, x.max()])])
    slope = float(plane.slopes[j or 0]) if plane.single or j is not None else 1.0
    if j is None and not plane.found.curves.empty:
        parts.append(plane.found.curves.rename(columns={"at": "x"}).assign(part="curve"))
    parts.append(pd.DataFrame({"x": ends, "null": plane.intercept + slope * ends, "part": "line"}))
    return pd.concat(parts, ignore_index=True)


def _near(x: Any) -> bool:
    low, high = float(x.min()), float(x.max())
    return low - _NEAR * span_of(x) <= 0.0 <= high + _NEAR * span_of(x)


def _panels(plane: Plane) -> tuple[Figure, list[Any]]:
    """The figure, and its panels: the large one first, where there is one."""
    p = len(plane.slopes)
    if plane.single:
        figure = sheet(5.8, 4.3)
        return figure, [figure.add_subplot()]
    beside = across(p, _ACROSS)
    down = -(-p // beside)
    large = 2 if plane.exists else 0
    width = 6.4 if beside > 1 else 4.0
    figure = sheet(width, 1.75 * large + 2.35 * down)
    grid = figure.add_gridspec(down + bool(large), beside, height_ratios=[1.55] * bool(large) + [1.0] * down)
    panels = [figure.add_subplot(grid[0, :])] if large else []
    panels += [figure.add_subplot(grid[j // beside + bool(large), j % beside]) for j in range(p)]
    return figure, panels


def _draw(axes: Axes, frame: pd.DataFrame, *, small: bool) -> None:
    sites = frame[frame["part"] == "site"]
    curve, line = frame[frame["part"] == "curve"], frame[frame["part"] == "line"]
    around = ellipses(axes, sites)
    points(axes, sites, small=small)
    if len(curve):
        axes.fill_between(curve["x"], curve["lower"], curve["upper"], color=BAND, linewidth=0, zorder=0.5)
        axes.plot(curve["x"], curve["smooth"], color=INK["black"], linewidth=1.4, zorder=4.5)
        if _has(curve, "quadratic"):
            axes.plot(curve["x"], curve["quadratic"], color=INK["line"], linewidth=2.0, zorder=4)
    if len(line):
        axes.plot(line["x"], line["null"], color=INK["axis"], linewidth=1.2, linestyle=DASHES, zorder=4.2)
    x, y = sites["x"].to_numpy(), sites["y"].to_numpy()
    heights = [
        curve[c].to_numpy(dtype=float) for c in ("smooth", "lower", "upper", "quadratic") if c in curve
    ]
    inner_x = np.append(x, [0.0] if _near(x) else [])
    inner_y = np.append(y, [0.0] if _near(y) else [])
    axes.set_xlim(reach(inner_x, around[:, [0, 2]].ravel()))
    lines = line["null"].to_numpy(dtype=float) if len(line) else np.empty(0)
    axes.set_ylim(reach(inner_y, np.concatenate([around[:, [1, 3]].ravel(), lines, *heights])))


def _has(frame: pd.DataFrame, column: str) -> bool:
    return column in frame and bool(np.isfinite(frame[column].to_numpy(dtype=float)).any())


def _main_labels(axes: Axes, plane: Plane) -> None:
    found, outcome = plane.found, label(plane.effects.outcome)
    axes.set_ylabel(f"Effect of treatment on {outcome}")
    axes.set_xlabel(
        f"Effect of treatment on {label(found.mediators[0])}"
        if plane.single
        else f"Effect of treatment on {outcome}, predicted from compliances"
    )


def _small_labels(panels: list[Any], plane: Plane) -> None:
    net = ",\nless the others' part" if plane.exists else ""
    outcome = label(plane.effects.outcome, 20)
    for j, (axes, name) in enumerate(zip(panels, plane.found.mediators, strict=True)):
        axes.set_xlabel(f"Effect on {label(name, 24)}", fontsize=8)
        axes.tick_params(labelsize=7)
        if j % across(len(panels), _ACROSS) == 0:
            axes.set_ylabel(f"Effect on {outcome}{net}", fontsize=8)


def _legend(axes: Axes, frame: pd.DataFrame, plane: Plane) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if plane.exists:
        shape = "straight line" if plane.single else "plane"
        where = "" if plane.found.direct_effect else " through the origin"
        handles.append(
            Line2D([], [], color=INK["axis"], linewidth=1.2, linestyle=DASHES, label=f"null: {shape}{where}")
        )
    if _has(frame, "smooth"):
        handles.append(Line2D([], [], color=INK["black"], linewidth=1.4, label="smooth of the sites"))
    if _has(frame, "quadratic"):
        handles.append(
            Line2D([], [], color=INK["line"], linewidth=2.0, label="quadratic, corrected for error")
        )
    if _has(frame, "lower"):
        handles.append(Patch(color=BAND, label="95% of smooths under the null"))
    handles += arm_handles(frame[frame["part"] == "site"])
    above(axes, handles, 2 if plane.single else 3)


def _caption(plane: Plane) -> str:
    found, outcome = plane.found, one_line(plane.effects.outcome)
    rows = len(found.sites)
    errors = (
        f", in the ellipse of one standard error of both ({plane.effects.error_kind})"
        if rows <= DRAWN
        else f" (errors are not drawn for {rows:,} of them)"
    )
    over = (
        f"that on {one_line(found.mediators[0])}"
        if plane.single or not plane.exists
        else "what the plane through compliances predicts"
    )
    if not plane.single and not plane.exists:
        over = "that on each mediator"
    said = [
        f"Each point is a {unit_words(plane)}: the effect of treatment on {outcome} against {over}{errors}."
    ]
    if plane.exists:
        said += _curve_words(plane)
    said.append(_coefficient_words(found))
    what = {"curvature": "A coefficient of the square", "reset": "A coefficient of the squared prediction"}
    said.append(result_words(found, what.get(found.kind, "A coefficient")))
    flat, mediator = ("straight line", "mediator") if plane.single else ("plane", "mediators")
    said.append(
        f"Curvature may be a failure of (iv), an outcome that is not linear in the {mediator}, or of (ix), effects "
        f"that go with compliance; a {flat} confirms neither."
    )
    return " ".join(s for s in said if s)


def _curve_words(plane: Plane) -> list[str]:
    found = plane.found
    shape = "straight line" if plane.single else "plane"
    through = (
        "with a free intercept, so that a direct effect is not read as curvature"
        if found.direct_effect
        else "through the origin"
    )
    said = [f"Dashed: the {shape} {through}, corrected for sampling error; it is the null."]
    if _has(found.curves, "lower"):
        said.append(
            "Black: a smooth of the sites; grey: where it lies, point by point, in 95% of trials of these sites in "
            "which the null holds, bent by sampling error alone."
        )
    elif _has(found.curves, "smooth"):
        said.append("Black: a smooth of the sites.")
    if _has(found.curves, "quadratic"):
        said.append("Orange: the quadratic, corrected.")
    elif found.kind == "curvature":
        said.append("The corrected quadratic has no estimate and is not drawn.")
    if not plane.single:
        said.append(
            "Below: the effect on the outcome less the other mediators' estimated part, against each compliance."
        )
    return said


def _coefficient_words(found: SurfaceTest) -> str:
    if len(found.added) != 1 or not np.isfinite(found.added.iloc[0]):
        return ""
    of = "the square" if found.kind == "curvature" else "the squared prediction"
    value, error = float(found.added.iloc[0]), float(found.std_errors.iloc[0])
    return f"Coefficient of {of}: {number(value, 3)} (standard error {number(error, 2)})."


def _alt(plane: Plane) -> str:
    found = plane.found
    rows = f"{count(len(found.sites), 'row')}, one per {unit_words(plane)}"
    said = [f"Scatter plot of {rows}: effect on {one_line(plane.effects.outcome)} against {_over(plane)}."]
    curves = found.curves
    if _has(curves, "lower"):
        out = (curves["smooth"] < curves["lower"]) | (curves["smooth"] > curves["upper"])
        said.append(f"The smooth lies outside its band over {out.mean():.0%} of the range.")
    if _has(curves, "quadratic"):
        said.append(f"The quadratic bends {'up' if found.added.iloc[0] > 0 else 'down'}.")
    if np.isfinite(found.test.pvalue):
        said.append(
            f"Test of the straight {'line' if plane.single else 'plane'}: {p_words(found.test.pvalue)}."
        )
    return " ".join(said)


def _over(plane: Plane) -> str:
    """What lies on the horizontal axis."""
    names = [f"effect on {one_line(m)}" for m in plane.found.mediators]
    if plane.single:
        return names[0]
    return f"the value of the plane, and against {', '.join(names)}" if plane.exists else ", ".join(names)
