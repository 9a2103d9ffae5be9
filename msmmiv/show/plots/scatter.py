"""Itt against compliance: the regression over sites that two-stage least squares is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.errors import DataError
from msmmiv.inference.results import Estimate
from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.sheet import above, across, dot_areas, sheet
from msmmiv.show.words import fit_label, number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ARMS", "partial_panels", "partial_plots", "site_scatter"]

#: Above this many points the layer of points is a picture inside the picture, which keeps files small.
MANY = 400
Z95 = 1.959963984540054
#: Points up to which all have their ellipse; above, those with the largest weight.
ELLIPSES = 100
LARGEST = 12
#: How far ellipses may push the limits beyond the points, in ranges of the points.
ROOM = 0.35
#: Colour and marker of every contrast, in order.
ARMS = (("point", "o"), ("green", "s"), ("purple", "^"), ("orange", "D"), ("sky", "v"))


def site_scatter(effects: SiteEffects, fit: Estimate) -> Picture:
    """Effect on the outcome against effect on the mediator, one point per site (and arm).

    The line is the fit's: through the origin, or through the direct effect where that was left free. With
    no covariates and 2SLS it is the weighted least-squares line through the points.

    Parameters
    ----------
    effects : SiteEffects
        With one mediator.
    fit : Estimate

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        With several mediators; `partial_plots` is meant for those.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import site_scatter
    >>> study = mm.Study(mm.data.star())
    >>> site_scatter(study.effects, study.fit("2sls")).data.columns.tolist()
    ['site', 'x', 'y', 'x_se', 'y_se', 'covariance', 'weight']
    """
    if len(effects.mediators) != 1:
        raise DataError(
            f"site_scatter shows one mediator; there are {len(effects.mediators)}. Use partial_plots()."
        )
    frame = _points(effects, np.eye(2)[1], np.eye(2)[0])
    name, outcome = effects.mediators[0], effects.outcome
    slope = float(fit.params[name])
    intercepts = _direct(effects, fit)
    direct = " through the direct effect" if fit.direct_effect else " through the origin"
    caption = (
        f"Each point is a {_unit(effects)}: its effect on {one_line(outcome)} against its effect on {one_line(name)}, "
        f"{_error_words(frame, effects.error_kind)}; {_areas(effects)}. "
        f"The line{direct} is {fit_label(fit)}: slope {number(slope)}. {_adjusted(fit)}"
    )
    alt = (
        f"Scatter plot of {len(frame)} sites: effect on {one_line(outcome)} against effect on {one_line(name)}; the "
        f"fitted line{direct} has slope {number(slope)}."
    )
    with drawing():
        figure, axes = _figure()
        _draw(axes, frame, effects, slope, intercepts)
        axes.set_xlabel(f"Effect of treatment on {label(name)}")
        axes.set_ylabel(f"Effect of treatment on {label(outcome)}")
        return Picture("site_scatter", finished(figure), frame, caption.strip(), alt)


def partial_plots(effects: SiteEffects, fit: Estimate) -> tuple[Picture, ...]:
    """One picture per mediator: itt against its compliance, both net of the other mediators.

    Both are residuals of the weighted regression over sites on the other compliances (and the direct
    effect where it was left free), so that, with no covariates, the weighted slope through the points
    is exactly the 2SLS coefficient (Frisch and Waugh). With more than two arms the contrasts of a site
    share their control arm; the weights are then matrices.

    Parameters
    ----------
    effects : SiteEffects
    fit : Estimate

    Returns
    -------
    tuple of Picture
        In ``data``, ``x`` and ``y`` are the residuals in units of the data; ``x_weighted`` and
        ``y_weighted`` are the same after weighting: plain least squares of one on the other gives the
        coefficient.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import partial_plots
    >>> study = mm.Study(mm.data.star("math_two_mediators"))
    >>> fit = study.fit("2sls")
    >>> data = partial_plots(study.effects, fit)[1].data
    >>> slope = (data.x_weighted * data.y_weighted).sum() / (data.x_weighted**2).sum()
    >>> bool(abs(slope - fit.params["tch_exp"]) < 1e-10)
    True
    """
    return tuple(_partial(effects, fit, j) for j in range(1, 1 + len(effects.mediators)))


def partial_panels(effects: SiteEffects, fit: Estimate) -> Picture:
    """The pictures of `partial_plots` beside one another in one.

    Parameters
    ----------
    effects : SiteEffects
    fit : Estimate

    Returns
    -------
    Picture
        ``data`` has the column ``mediator`` and those of `partial_plots`.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import partial_panels
    >>> study = mm.Study(mm.data.star("math_two_mediators"))
    >>> picture = partial_panels(study.effects, study.fit("2sls"))
    >>> len(picture.axes), picture.data["mediator"].value_counts().to_dict()
    (2, {'class_size': 79, 'tch_exp': 79})
    """
    names, outcome = effects.mediators, effects.outcome
    frames = [_partial_frame(effects, j, direct=fit.direct_effect) for j in range(1, 1 + len(names))]
    others = "the other mediators" + " and the direct effect" * fit.direct_effect
    slopes = ", ".join(f"{number(float(fit.params[m]))} for {one_line(m)}" for m in names)
    caption = (
        f"Each point is a {_unit(effects)}: its effect on {one_line(outcome)} against its effect on each mediator, "
        f"both net of {others} (residuals of the weighted regression over sites), "
        f"{_error_words(frames[0], 'that regression held fixed')}; {_areas(effects)}. The "
        f"lines are {fit_label(fit)}: slope {slopes}. {_adjusted(fit)}"
    )
    alt = (
        f"Partial regression plots of {len(frames[0])} points, one for each of {', '.join(map(one_line, names))}; "
        f"slopes of the lines through the origin: {slopes}."
    )
    with drawing():
        beside = across(len(names), 2)
        down = -(-len(names) // beside)
        figure = sheet(0.5 + 3.25 * beside, 3.1 * down)
        panels: list[Any] = list(figure.subplots(down, beside, squeeze=False).ravel())
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        for axes, name, frame in zip(panels, names, frames, strict=False):
            _draw(axes, frame, effects, float(fit.params[name]), np.zeros(len(effects.contrasts)))
            axes.set_xlabel(f"Effect on {label(name)}, net of the others")
            axes.set_ylabel(f"Effect on {label(outcome)}, net of the others")
        finished(figure)
    data = pd.concat([f.assign(mediator=m) for f, m in zip(frames, names, strict=True)], ignore_index=True)
    return Picture("partial_plots", figure, data, caption.strip(), alt)


def _partial(effects: SiteEffects, fit: Estimate, j: int) -> Picture:
    name, outcome = effects.mediators[j - 1], effects.outcome
    slope = float(fit.params[name])
    frame = _partial_frame(effects, j, direct=fit.direct_effect)
    others = [one_line(m) for m in effects.mediators if m != name] + ["the direct effect"] * fit.direct_effect
    net = f"net of {', '.join(others)}" if others else ""
    caption = (
        f"Each point is a {_unit(effects)}: its effect on {one_line(outcome)} against its effect on {one_line(name)}, "
        f"both {net} (residuals of the weighted regression over sites), "
        f"{_error_words(frame, 'that regression held fixed')}; {_areas(effects)}. "
        f"The line is {fit_label(fit)}: slope "
        f"{number(slope)}. {_adjusted(fit)}"
    )
    alt = (
        f"Partial regression plot of {len(frame)} points: effect on {one_line(outcome)} against effect on "
        f"{one_line(name)}, {net}; the fitted line through the origin has slope {number(slope)}."
    )
    with drawing():
        figure, axes = _figure()
        _draw(axes, frame, effects, slope, np.zeros(len(effects.contrasts)))
        axes.set_xlabel(f"Effect on {label(name)}, net of the others")
        axes.set_ylabel(f"Effect on {label(outcome)}, net of the others")
        return Picture(f"partial_{j}", finished(figure), frame, caption.strip(), alt)


def _partial_frame(effects: SiteEffects, j: int, *, direct: bool) -> pd.DataFrame:
    """Residuals of compliance j and of itt on the rest, in units of the data and weighted."""
    k, d, size = effects.estimates.shape
    absent = np.isnan(effects.estimates[:, :, 0])
    values = np.where(absent[:, :, None], 0.0, effects.estimates)
    rest = [i for i in range(1, size) if i != j]
    constant = np.broadcast_to(np.eye(d), (k, d, d)) if direct else np.zeros((k, d, 0))
    others = np.concatenate([values[:, :, rest], np.where(absent[:, :, None], 0.0, constant)], axis=2)
    root = _root(np.where(absent[:, :, None] | absent[:, None, :], 0.0, effects.precision))
    target = values[:, :, [j, 0]]
    flat_others, flat = ((root @ a).reshape(k * d, -1) for a in (others, target))
    coef = np.linalg.lstsq(flat_others, flat, rcond=None)[0]
    residual = target - others @ coef
    directions = np.zeros((2, size))
    directions[0, j] = directions[1, 0] = 1.0
    directions[:, rest] = -coef[: len(rest)].T
    frame = _points(effects, *directions)
    kept = ~absent.ravel()
    frame["x"], frame["y"] = residual.reshape(-1, 2)[kept].T
    # A site's weighted rows mix its arms, so they are listed by position, not by arm.
    frame["x_weighted"], frame["y_weighted"] = (root @ residual).reshape(-1, 2)[kept].T
    return frame


def _root(precision: Array) -> Array:
    """(K, D, D) symmetric square roots; rows of absent arms are zero and stay where they are."""
    values, vectors = np.linalg.eigh(precision)
    out: Array = np.einsum("kde,ke,kfe->kdf", vectors, np.sqrt(np.clip(values, 0.0, None)), vectors)
    return out


def _points(effects: SiteEffects, x: Array, y: Array) -> pd.DataFrame:
    """Two linear combinations of each site's effects with their standard errors, absent arms left out."""
    combined = np.stack([x, y])
    values = np.nan_to_num(effects.estimates) @ combined.T
    block = np.einsum("kdadb->kdab", effects.cov)
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.einsum("ra,kdab,rb->kdr", combined, block, combined))
    k, d, _ = effects.estimates.shape
    columns: dict[str, Any] = {"site": [s for s in effects.sites for _ in range(d)]}
    if d > 1:
        columns["arm"] = list(effects.contrasts) * k
    columns |= {"x": values[:, :, 0].ravel(), "y": values[:, :, 1].ravel()}
    columns |= {"x_se": se[:, :, 0].ravel(), "y_se": se[:, :, 1].ravel()}
    columns["covariance"] = np.einsum("a,kdab,b->kd", x, block, y).ravel()
    columns["weight"] = effects.weight.to_numpy()
    kept = ~np.isnan(effects.estimates[:, :, 0].ravel())
    return pd.DataFrame(columns)[kept].reset_index(drop=True)


def _direct(effects: SiteEffects, fit: Estimate) -> Array:
    """The direct effect of each contrast, zero where exclusion is assumed."""
    if not fit.direct_effect:
        return np.zeros(len(effects.contrasts))
    start = len(effects.mediators)
    return fit.coefficients[start : start + len(effects.contrasts)]


def _areas(effects: SiteEffects) -> str:
    """What the areas of points are, in words."""
    table = effects.cov_type == "published"
    what = "one over its squared standard error" if table else "its weight before compliance, n p (1 - p)"
    return f"its area is proportional to {what} (the smallest are enlarged)"


def _figure() -> tuple[Any, Axes]:
    figure = sheet(5.6, 4.0)
    return figure, figure.add_subplot()


def _draw(axes: Axes, frame: pd.DataFrame, effects: SiteEffects, slope: float, intercepts: Array) -> None:
    many = len(frame) > MANY
    arms = effects.contrasts if "arm" in frame else ("",)
    area = dot_areas(frame["weight"].to_numpy(dtype=float), many=many)
    axes.axhline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    around = _ellipses(axes, frame, arms)
    span = np.array([min(0.0, frame["x"].min()), max(0.0, frame["x"].max())])
    for i, arm in enumerate(arms):
        ink, marker = ARMS[i % len(ARMS)]
        mine = (frame["arm"] == arm).to_numpy() if "arm" in frame else np.ones(len(frame), dtype=bool)
        known = np.isfinite(frame["y_se"].to_numpy()) & mine
        style: dict[str, Any] = {"marker": marker, "linewidths": 0.6, "zorder": 3, "rasterized": many}
        axes.scatter(
            frame["x"][known], frame["y"][known], area[known], color=INK[ink], alpha=0.4 if many else 0.75,
            edgecolors="none" if many else "white", **style,
        )  # fmt: skip
        open_ = mine & ~known
        axes.scatter(
            frame["x"][open_], frame["y"][open_], area[open_], facecolors="white", edgecolors=INK[ink], **style
        )  # fmt: skip
        if np.isfinite(slope) and (i == 0 or intercepts.any()):
            own = INK[ink] if len(arms) > 1 and intercepts.any() else INK["line"]
            axes.plot(span, intercepts[i] + slope * span, color=own, linewidth=1.8, zorder=4)
    axes.set_xlim(_reach(np.append(frame["x"], span), around[:, [0, 2]].ravel()))
    axes.set_ylim(_reach(np.append(frame["y"], 0.0), around[:, [1, 3]].ravel()))
    parallel = len(arms) > 1 and bool(intercepts.any())
    _legend(
        axes, arms, slope, INK["axis" if parallel else "line"], open_points=bool(frame["y_se"].isna().any())
    )


def _with_ellipse(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """(n,) whether a point has its ellipse: all when they are few, else those with the largest weight."""
    known: npt.NDArray[np.bool_] = frame[["x_se", "y_se", "covariance"]].notna().all(axis=1).to_numpy()
    if len(frame) <= ELLIPSES:
        return known
    largest = np.argsort(-np.where(known, frame["weight"], -np.inf), kind="stable")[:LARGEST]
    out = np.zeros(len(frame), dtype=bool)
    out[largest] = True
    return out & known


def _ellipses(axes: Axes, frame: pd.DataFrame, arms: tuple[Any, ...]) -> Array:
    """Draw ellipses of one standard error; (n, 4) how far the drawn ones reach."""
    from matplotlib.collections import PolyCollection

    shown = frame[_with_ellipse(frame)]
    cov = np.empty((len(shown), 2, 2))
    cov[:, 0, 0], cov[:, 1, 1] = shown["x_se"] ** 2, shown["y_se"] ** 2
    cov[:, 0, 1] = cov[:, 1, 0] = shown["covariance"]
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    angle = np.linspace(0.0, 2.0 * np.pi, 49)
    rim = (root @ np.stack([np.cos(angle), np.sin(angle)])).transpose(0, 2, 1)
    rim = rim + shown[["x", "y"]].to_numpy()[:, None, :]
    for i, arm in enumerate(arms):
        mine = (shown["arm"] == arm).to_numpy() if "arm" in shown else np.ones(len(shown), dtype=bool)
        ink = INK[ARMS[i % len(ARMS)][0]] if len(arms) > 1 else INK["bar"]
        axes.add_collection(
            PolyCollection(
                list(rim[mine]), facecolors="none", edgecolors=ink, linewidths=0.6, alpha=0.6, zorder=2
            ),
            autolim=False,
        )
    out: Array = np.concatenate([rim.min(axis=1), rim.max(axis=1)], axis=1)
    return out


def _reach(inner: Array, outer: Array) -> tuple[float, float]:
    """Limits that hold all points, and ellipses as far as they do not dwarf them."""
    low, high = float(inner.min()), float(inner.max())
    span = (high - low) or 1.0
    near = np.clip(outer, low - ROOM * span, high + ROOM * span)
    return float(near.min(initial=low) - 0.04 * span), float(near.max(initial=high) + 0.04 * span)


def _error_words(frame: pd.DataFrame, kind: str) -> str:
    """What the ellipses are, and which points have one."""
    drawn = int(_with_ellipse(frame).sum())
    which = (
        "in the ellipse" if len(frame) <= ELLIPSES else f"the {drawn} with the largest weight in the ellipse"
    )
    return (
        f"{which} of one standard error of both ({kind})" if drawn else "whose sampling errors are not known"
    )


def _legend(axes: Axes, arms: tuple[Any, ...], slope: float, ink_line: str, *, open_points: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=ink_line, linewidth=1.8, label=f"slope {number(slope)}")]
    if len(arms) > 1:
        handles += [
            Line2D([], [], linestyle="", marker=m, color=INK[ink], label=f"arm {label(arm, 18)}")
            for arm, (ink, m) in zip(arms, ARMS, strict=False)
        ]
    if open_points:
        handles.append(
            Line2D([], [], linestyle="", marker="o", markerfacecolor="white", color=INK["point"],
                   label="no standard error")
        )  # fmt: skip
    above(axes, handles, 3)


def _unit(effects: SiteEffects) -> str:
    return "site and arm" if len(effects.contrasts) > 1 else "site"


def _adjusted(fit: Estimate) -> str:
    if fit.status:
        return "There is no line: this fit has no point estimate."
    if fit.method == "ols":
        return "It is not the line of best fit through these points: least squares uses all variation inside sites."
    if fit.method != "2sls":
        return (
            "It is not the line of best fit through these points: it allows for the sampling error of the effects on "
            "the mediator, which flattens that line."
        )
    if fit.design.covariates:
        return (
            "The points are adjusted for the covariates; the line is the exact 2SLS one, whose weights differ a "
            "little from those of the points."
        )
    return ""
