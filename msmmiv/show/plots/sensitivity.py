"""How far an assumption would have to fail: coefficients along the size of the failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from msmmiv.diagnose.sensitivity import DirectEffectLine
from msmmiv.diagnose.sensitivity_correlation import ComplianceEffectCorrelation
from msmmiv.errors import DataError
from msmmiv.linalg import Array
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.sheet import above, across, sheet
from msmmiv.show.words import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sensitivity_plot"]

#: Panels beside one another.
ACROSS = 3


def sensitivity_plot(result: DirectEffectLine | ComplianceEffectCorrelation) -> Picture:
    """The coefficient of each mediator against the size of a direct effect, or of a correlation, with its interval.

    Parameters
    ----------
    result : DirectEffectLine or ComplianceEffectCorrelation

    Returns
    -------
    Picture
        ``data`` is the result's own ``to_frame``.

    Raises
    ------
    DataError
        The result has a status instead of figures.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.diagnose.sensitivity import direct_effect_line
    >>> picture = sensitivity_plot(direct_effect_line(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")))
    >>> picture.name, list(picture.data.columns)[:3]
    ('sensitivity_direct_effect', ['kappa', 'mediator', 'estimate'])
    """
    if result.status:
        raise DataError(f"There is nothing to draw: {result.status}.")
    line = isinstance(result, DirectEffectLine)
    frame = result.to_frame()
    along = "kappa" if line else "rho"
    with drawing():
        names = result.mediators
        wide = across(len(names), ACROSS)
        down = -(-len(names) // wide)
        figure = sheet(0.6 + 3.1 * wide, 3.4 * down)
        panels = list(figure.subplots(down, wide, squeeze=False).ravel())
        for j, (axes, name) in enumerate(zip(panels, names, strict=False)):
            _panel(axes, frame[frame["mediator"] == name], along)
            if isinstance(result, DirectEffectLine):
                _direct(axes, result, j)
            else:
                _correlation(axes, result, j)
            above(axes, axes.get_legend_handles_labels()[0])  # on the panel it would hide the band
            axes.set_ylabel(f"effect of {label(name, 22)}")
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        finished(figure)
    name = "sensitivity_direct_effect" if line else "sensitivity_correlation"
    caption = (
        _direct_caption(result) if isinstance(result, DirectEffectLine) else _correlation_caption(result)
    )
    return Picture(name, figure, frame, caption, f"Sensitivity. {one_line(result.sentence)}")


def _panel(axes: Axes, part: pd.DataFrame, along: str) -> None:
    x = part[along].to_numpy()
    axes.axhline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    low, high = part["lower"].to_numpy(), part["upper"].to_numpy()
    if np.isfinite(low).all():
        axes.fill_between(x, low, high, color=INK["sky"], alpha=0.3, linewidth=0, zorder=0)
    axes.plot(x, part["estimate"], color=INK["point"], linewidth=1.6, zorder=2)
    axes.set_xlim(float(x.min()), float(x.max()))
    axes.margins(y=0.08)


def _mark(axes: Axes, x: float, y: float, words: str, shape: str, color: str) -> None:
    left, right = axes.get_xlim()
    if not left <= x <= right:
        return
    axes.plot([x], [y], shape, color=color, markersize=6, zorder=3, label=words)


def _direct(axes: Axes, result: DirectEffectLine, j: int) -> None:
    _mark(axes, 0.0, float(result.estimate[j]), "no direct effect", "D", INK["line"])
    if np.isfinite(result.free_direct):
        free = result.free_direct
        if np.isfinite(result.free_se):
            _reaching(axes, free, 2.0 * result.free_se, float(result.at(free)[j]))
        _mark(axes, free, float(result.at(free)[j]), "estimated, with 2 se", "s", INK["green"])
    # Last: where both are at one place the corners of the square show around the circle.
    if np.isfinite(result.flip[j]):
        _mark(axes, float(result.flip[j]), 0.0, f"zero at {result.flip[j]:.3g}", "o", INK["black"])
    axes.set_xlabel("direct effect assumed in every site")


def _reaching(axes: Axes, centre: float, half: float, y: float) -> None:
    """A bar that ends in a stroke, or in an arrow where it leaves the panel: without, it looks like a line of zero."""
    left, right = axes.get_xlim()
    if centre + half < left or centre - half > right:
        return
    low, high = max(centre - half, left), min(centre + half, right)
    axes.plot([low, high], [y, y], color=INK["green"], linewidth=1.2, zorder=2)
    for at, inside, arrow in ((low, centre - half >= left, "<"), (high, centre + half <= right, ">")):
        axes.plot([at], [y], marker="|" if inside else arrow, markersize=6, color=INK["green"], clip_on=False,
                  zorder=2.5)  # fmt: skip


def _correlation(axes: Axes, result: ComplianceEffectCorrelation, j: int) -> None:
    several = len(result.mediators) > 1
    _mark(axes, 0.0, float(result.estimate[j]), "no correlation", "D", INK["line"])
    needed = float(_needed(result)[j])
    if np.isfinite(needed):
        _mark(axes, needed, 0.0, f"zero at {needed:.2g}", "o", INK["black"])
    axes.set_xlabel(
        "multiple correlation assumed" if several else "correlation of compliance and effect assumed"
    )


def _needed(result: ComplianceEffectCorrelation) -> Array:
    """(P,) correlation at which each coefficient is zero."""
    return np.asarray(result.robustness * result.sign * np.sign(result.estimate))


def _direct_caption(result: DirectEffectLine) -> str:
    # Marks beyond the panel are not drawn and not told.
    least, most = float(result.to_frame()["kappa"].min()), float(result.to_frame()["kappa"].max())
    free = ""
    if least <= result.free_direct <= most:
        free = (
            " Square: the direct effect that the sites estimate, and what the coefficient then is; the "
            "bar reaches two standard errors to either side (an arrow: further than the panel)."
        )
    crossed = bool(((result.flip >= least) & (result.flip <= most)).any())
    zero = " Circle: how large a direct effect would make the coefficient zero." if crossed else ""
    return (
        f"Coefficients if assignment had a direct effect of the size below, the same in every site, with "
        f"{result.level:.0%} intervals (band). Diamond: no direct effect, as estimated.{zero}{free}"
    )


def _correlation_caption(result: ComplianceEffectCorrelation) -> str:
    several = len(result.mediators) > 1
    what = (
        "the effects' multiple correlation with the compliances were as below, in the direction that moves it most"
        if several
        else "the correlation of a site's compliance with its effect were as below"
    )
    sds = ", ".join(f"{s:.3g}" for s in result.effect_sd)
    grown = ", larger under a correlation" if result.inflate else ""
    drawn = np.abs(_needed(result)) <= result.to_frame()["rho"].max()
    zero = " Circle: the correlation at which the coefficient is zero." if drawn.any() else ""
    return (
        f"Coefficients if {what}, with {result.level:.0%} intervals (band). Diamond: no correlation, as "
        f"estimated.{zero} Standard deviation of effects over sites: {sds} ({result.effect_sd_from}{grown})."
    )
