"""Two curves of a decomposition: p-values against the effect, and what adding error to the rows does to the slope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msmmiv.errors import MsmmivError
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.estimate.between.rows import DIRECT
from msmmiv.estimate.between.simex import SIMEX, SimexFit, SimexPath
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.linalg import Array
from msmmiv.show.decomposition_words import level_words, method_words, no_estimate, shape_words, short_set
from msmmiv.show.plots.decomposition import chosen_mediator
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.sheet import above, across, sheet
from msmmiv.show.sets import set_words
from msmmiv.show.words import number, one_line, p_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confidence_curve", "simex_extrapolation", "simex_fit"]

#: Lowest p-value that is drawn.
FLOOR = 0.001
#: Change of the logarithm of p that counts as something happening.
FLAT = 0.15
#: Scales of the data beyond which a value is no estimate.
FAR = 50.0
#: Points of the curve; fewer with several mediators, where each solves equations.
FINE, COARSE = 401, 121
#: Colour and dashes of the extrapolants.
CURVES: dict[str, tuple[str, Any]] = {
    "rational": ("line", "-"), "quadratic": ("green", (0, (5, 2))), "linear": ("purple", (0, (1.5, 1.5))),
}  # fmt: skip


# ---------------------------------------------------------------------------------------- confidence curve


def confidence_curve(found: Decomposition, mediator: str | None = None) -> Picture:
    """The p-value of every value of a mediator's effect: all confidence sets at once.

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
    >>> from msmmiv.show.plots import confidence_curve
    >>> picture = confidence_curve(decompose(mm.data.star()))
    >>> picture.data.columns.tolist()
    ['value', 'p_value', 'p_value_t']
    """
    name = chosen_mediator(found, mediator, "confidence_curve")
    test = found.slope_tests[name]
    points = COARSE if len(found.rows.mediators) > 1 or found.rows.cross is not None else FINE
    # 99% needs 99 draws; `decompose` saw to it that there are enough for its own level.
    reach = 0.99 if test.reference == "t" or found.draws >= 99 else found.level
    frame = _closer(test, test.curve(points=points, level=reach))
    if test.reference != "t":
        thin = SlopeTest(found.rows, name, "t", found.draws, found.seed)
        frame["p_value_t"] = thin.pvalue(frame["value"].to_numpy())
    sets = {v: found.confidence_set(name, v) if found.by_default else test.confidence_set(v)
            for v in sorted({0.95, reach, found.level})}  # fmt: skip
    estimate = float(found.params[name])
    with drawing():
        figure = sheet(5.8, 3.9)
        axes = figure.add_subplot()
        _curve(axes, frame, estimate)
        for level, bounds in sets.items():
            _set_line(axes, level, bounds)
        axes.set_xlabel(f"Effect of {label(name)} on {label(found.rows.outcome)}")
        _curve_legend(axes, found, test, sets, estimate)
        finished(figure)
    many = len(found.rows.mediators) > 1
    file = f"confidence_curve_{1 + found.rows.mediators.index(name)}" if many else "confidence_curve"
    told = "; ".join(f"{level_words(v)} set {set_words(s)}" for v, s in sets.items())
    zero = p_words(float(test.pvalue(np.zeros(1))[0]))
    return Picture(
        file, figure, frame, _curve_caption(found, test, zero, told),
        f"P-value against the effect of {one_line(name)} on {one_line(found.rows.outcome)}: highest at "
        f"{number(float(frame['value'].iloc[int(frame['p_value'].argmax())]))}; {told}; no effect has {zero}.",
    )  # fmt: skip


def _closer(test: SlopeTest, frame: pd.DataFrame) -> pd.DataFrame:
    """The part of a curve in which something happens: an unbounded set has long flat ends."""
    value, p = (frame[c].to_numpy() for c in ("value", "p_value"))
    if (p[[0, -1]] < 0.01).all():
        return frame
    rows, j = test.rows, test.rows.mediators.index(test.mediator)
    scale = float(rows.y.std() / rows.x[:, j].std()) or 1.0
    height = np.log(np.maximum(p, FLOOR))
    moves = np.stack([np.abs(height - height[0]) > FLAT, np.abs(height - height[-1]) > FLAT]).all(axis=0)
    # Where the scores have no zero there is no estimate to stand in the middle.
    core = np.array([-2.0 * scale, 2.0 * scale])
    if abs(test.estimate) < FAR * scale:
        core = np.append(core, [test.estimate, *value[moves]])
    room = 0.5 * float(np.ptp(core))
    low, high = core.min() - room, core.max() + room
    if high - low > 0.6 * np.ptp(value) and abs(test.estimate) < FAR * scale:
        return frame
    closer = np.unique(np.append(np.linspace(low, high, len(value)), 0.0))
    return pd.DataFrame({"value": closer, "p_value": test.pvalue(closer)})


def _curve(axes: Axes, frame: pd.DataFrame, estimate: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    value = frame["value"].to_numpy()
    axes.set_yscale("log")
    axes.set_ylim(FLOOR * 0.9, 1.12)
    axes.yaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_ylabel("p-value (logarithmic)")
    axes.set_xlim(value[0], value[-1])
    axes.grid(axis="y", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    if value[0] <= 0.0 <= value[-1]:
        axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    if "p_value_t" in frame:
        axes.plot(value, frame["p_value_t"], color=INK["bar"], linewidth=0.9, zorder=2)
    axes.plot(value, frame["p_value"], color=INK["point"], linewidth=1.7, zorder=3)
    if np.isfinite(estimate):
        axes.axvline(estimate, color=INK["line"], linewidth=1.1, linestyle=(0, (5, 2)), zorder=2.5)


def _set_line(axes: Axes, level: float, bounds: ConfidenceSet) -> None:
    """The set as thick pieces at its height; arrows where it goes on."""
    height = 1.0 - level
    ink = INK["green" if level >= 0.99 else "black"]
    axes.axhline(height, color=ink, linewidth=0.6, alpha=0.6, zorder=1.5)
    left, right = axes.get_xlim()
    for low, high in bounds.intervals:
        ends = np.clip([low, high], left, right)
        axes.plot(ends, [height, height], color=ink, linewidth=3.2, solid_capstyle="butt", zorder=3.5)
        for end, edge, marker in ((low, left, "<"), (high, right, ">")):
            if (end < left) or (end > right):
                axes.plot([edge], [height], marker=marker, color=ink, markersize=9, clip_on=False, zorder=4)


def _curve_legend(
    axes: Axes, found: Decomposition, test: SlopeTest, sets: dict[float, ConfidenceSet], estimate: float
) -> None:
    from matplotlib.lines import Line2D

    how = "simulated" if test.reference != "t" else f"t({test.df})"
    handles = [Line2D([], [], color=INK["point"], linewidth=1.7, label=f"score test, {how}")]
    if test.reference != "t":
        handles.append(Line2D([], [], color=INK["bar"], linewidth=0.9, label=f"score test, t({test.df})"))
    words = (
        f"{method_words(found.method)}: {number(estimate)}" if np.isfinite(estimate) else "no point estimate"
    )
    dashes: Any = (0, (5, 2)) if np.isfinite(estimate) else ""
    handles.append(Line2D([], [], color=INK["line"], linewidth=1.1, linestyle=dashes, label=words))
    handles += [
        Line2D([], [], color=INK["green" if v >= 0.99 else "black"], linewidth=3.2,
               label=f"{level_words(v)} set: {short_set(s)}")
        for v, s in sets.items()
    ]  # fmt: skip
    above(axes, handles)


def _curve_caption(found: Decomposition, test: SlopeTest, zero: str, told: str) -> str:
    how = (
        f"compared with {found.draws:,} simulations under each value"
        if test.reference != "t"
        else f"compared with t({test.df})"
    )
    text = (
        f"Each value of the effect of {one_line(test.mediator)} on {one_line(found.rows.outcome)} with the p-value of "
        f"the empirical-Bayes score test, {how}. Where the curve lies above a horizontal line, the value belongs to "
        f"that confidence set (thick): {told}. No effect has {zero}. {shape_words(found, test.mediator)} "
    )
    if test.reference != "t":
        text += "The thin curve compares the same statistic with t. "
        text += "There are too few draws for a 99% set. " if found.draws < 99 else ""
    return " ".join(f"{text} {no_estimate(found)}".split())


# ------------------------------------------------------------------------------ simulation-extrapolation


def simex_fit(found: Decomposition) -> SimexFit | str:
    """The fit by simulation-extrapolation: that of the decomposition, or one made now; or why there is none."""
    if isinstance(found.fit, SimexFit):
        return found.fit
    try:
        return SIMEX().solve(found.rows, seed=found.seed)
    except MsmmivError as why:
        return str(why)


def simex_extrapolation(found: Decomposition) -> Picture | None:
    """Coefficients as more and more sampling error is added, and the curves that lead back to none.

    Parameters
    ----------
    found : Decomposition
        Its own fit is shown where that is SIMEX, otherwise ``SIMEX()`` on its rows.

    Returns
    -------
    Picture or None
        None where the rows cannot be simulated.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> from msmmiv.show.plots import simex_extrapolation
    >>> picture = simex_extrapolation(decompose(mm.data.star()))
    >>> picture.data.query("curve == 'mean' and term == 'class_size'")["value"].round(2).tolist()
    [0.15, 0.51, 0.78, 1.0, 1.16]
    """
    fit = simex_fit(found)
    if isinstance(fit, str) or fit.path is None:
        return None
    path = fit.path
    terms = [t for t in path.terms if t in found.rows.mediators or t == DIRECT]
    frame = _simex_frame(path, terms)
    wide = across(len(terms))
    tall = -(-len(terms) // wide)
    with drawing():
        figure = sheet(max(3.7 * wide, 4.4), 3.6 * tall)
        panels = figure.subplots(tall, wide, squeeze=False).ravel()
        for axes, term in zip(panels, terms, strict=False):
            _panel(axes, fit, path, term)
        for axes in panels[len(terms) :]:
            axes.set_axis_off()
        finished(figure)
    return Picture("simex_extrapolation", figure, frame, _simex_caption(found, fit), _simex_alt(fit, path))


def _simex_frame(path: SimexPath, terms: list[str]) -> pd.DataFrame:
    out = []
    for term in terms:
        j = path.terms.index(term)
        out += [
            (term, "mean", float(a), float(v)) for a, v in zip(path.lambdas, path.means[:, j], strict=True)
        ]
        out += [
            (term, name, -1.0, float(path.extrapolated[i, j])) for i, name in enumerate(path.extrapolants)
        ]
    return pd.DataFrame(out, columns=["term", "curve", "lambda", "value"])


def _grid(path: SimexPath, name: str, term: int) -> tuple[Array, Array]:
    """An extrapolant from two back to minus one; the rational one only until its pole."""
    at = np.linspace(2.0, -1.0, 301)
    if name == "rational":
        left = np.array([np.linalg.eigvalsh((path.observed + a * path.added)[1:, 1:])[0] for a in at])
        gone = np.flatnonzero(left <= 0.0)
        at = at[: gone[0]] if len(gone) else at
    return at, path.curve(name, at=at)[:, term]  # type: ignore[arg-type]


def _panel(axes: Axes, fit: SimexFit, path: SimexPath, term: str) -> None:
    j = path.terms.index(term)
    values = dict(zip(path.extrapolants, path.extrapolated[:, j], strict=True))
    _simex_limits(axes, path, j, values)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    bottom, top = axes.get_ylim()
    if bottom < 0.0 < top:
        axes.axhline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    for name, (ink, dashes) in CURVES.items():
        at, curve = _grid(path, name, j)
        text = "pole, no value" if np.isnan(values[name]) else number(float(values[name]))
        axes.plot(
            at, curve, color=INK[ink], linestyle=dashes, linewidth=1.5, zorder=2, label=f"{name}: {text}"
        )
        if bottom <= values[name] <= top:
            axes.plot([-1.0], [values[name]], marker="o", markersize=4.5, color=INK[ink], zorder=3,
                      clip_on=False)  # fmt: skip
    axes.plot(path.lambdas, path.means[:, j], linestyle="", marker="o", markersize=5, color=INK["point"], zorder=4,
              label="mean over draws")  # fmt: skip
    naive = float(path.means[0, j])
    axes.plot([0.0], [naive], linestyle="", marker="o", markersize=8, markerfacecolor="white", markeredgewidth=1.6,
              color=INK["point"], zorder=5, label=f"naive: {number(naive)}")  # fmt: skip
    estimate = float(fit.coefficients[j])
    if bottom <= estimate <= top:
        axes.plot([-1.0], [estimate], linestyle="", marker="D", markersize=7, color=INK["black"],
                  markeredgecolor="white", zorder=6, clip_on=False, label=f"corrected: {number(estimate)}")  # fmt: skip
    axes.set_xlabel("Error added (0: as observed, -1: none left)")
    axes.set_ylabel("Direct effect" if term == DIRECT else f"Effect of {label(term, 24)}")
    above(axes, axes.get_legend_handles_labels()[0])


def _simex_limits(axes: Axes, path: SimexPath, term: int, values: dict[str, float]) -> None:
    """Means and extrapolated values; a rational one that is far away does not flatten the rest."""
    means = path.means[:, term]
    near = np.append(means, [values["linear"], values["quadratic"]])
    span = float(np.ptp(near)) or 1.0
    far = values["rational"]
    if np.isfinite(far) and near.min() - 3.0 * span < far < near.max() + 3.0 * span:
        near = np.append(near, far)
    last = float(path.curve("rational", at=2.0)[0, term])
    near = np.append(near, np.clip(last, near.min() - 0.5 * span, near.max() + 0.5 * span))
    if np.isnan(far):  # room for the curve on its way to the pole
        near = np.append(near, [near.max() + span if means[0] > means[-1] else near.min() - span])
    span = float(np.ptp(near)) or 1.0
    axes.set_ylim(near.min() - 0.08 * span, near.max() + 0.08 * span)
    axes.set_xlim(-1.08, 2.08)
    axes.set_xticks([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0])


def _simex_caption(found: Decomposition, fit: SimexFit) -> str:
    text = (
        f"Simulation-extrapolation: sampling error of known size is added to every row, as multiples of the error that "
        f"is in it ({fit.B:,} draws), and the points are mean least-squares coefficients. Three curves lead back to "
        "minus one, where no error would be left: quadratic and linear are fitted to the points, the rational one is "
        "a ratio of mean cross-products, which with few rows need not pass through them. "
        "Open: least squares as it stands. "
    )
    if fit.status:
        text += f"There is no corrected value: {fit.status}. "
    else:
        text += f"Diamond: {method_words(fit.method)}. "
    if not isinstance(found.fit, SimexFit):
        text += f"It shows what the correction does; the estimate itself is {method_words(found.method)}. "
    text += "Polynomials fall short of the slope; "
    return text + "with many draws the rational curve ends at the correction by moments."


def _simex_alt(fit: SimexFit, path: SimexPath) -> str:
    parts = []
    for j, term in enumerate(path.terms):
        ends = ", ".join(
            f"{n} {'has a pole' if np.isnan(v) else number(float(v))}"
            for n, v in zip(path.extrapolants, path.extrapolated[:, j], strict=True)
        )
        parts.append(
            f"{one_line(term)} is {number(float(path.means[0, j]))} as observed; without error: {ends}"
        )
    none = " There is no corrected value." if fit.status else ""
    return f"Coefficients against added sampling error. {'; '.join(parts)}.{none}"
