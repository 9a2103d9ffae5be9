"""Compliances with two mediators against one another: where they are proportional, effects cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.rank import RankReport
from msmmiv.inference.rank_tests import directions
from msmmiv.linalg import Array
from msmmiv.show.plots.compliance_map import common_compliance
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.rank import direction_words
from msmmiv.show.plots.scatter import ARMS, MANY
from msmmiv.show.plots.sheet import above, dot_areas, sheet
from msmmiv.show.words import number, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["compliance_scatter"]

#: Up to so many points all have their ellipse; above, the sites with the largest leverage.
ELLIPSES = 60
LARGEST = 12
#: Sites that are named.
NAMED = 4
#: Square root of the 95% quantile of chi-squared with two degrees of freedom.
RADIUS = 2.447746830680816


@dataclass(frozen=True)
class _Pair:
    """Two mediators, their correlation across sites, and the combination of the two that differs least."""

    first: int
    second: int
    correlation: float
    kind: str
    clean: bool
    weakest: Array | None


def compliance_scatter(report: RankReport) -> Picture | None:
    """Compliance with one mediator against compliance with another, with ellipses of sampling error.

    The line is where the weakest combination of the two is zero: sites along it are moved in proportion. It goes
    through the origin, or where the direct effect is free through each arm's common compliance.

    Parameters
    ----------
    report : RankReport

    Returns
    -------
    Picture or None
        Of the pair whose compliances are correlated most; None for one mediator.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import compliance_scatter
    >>> picture = compliance_scatter(mm.rank(mm.data.star("math_two_mediators")))
    >>> picture.data.columns.tolist()
    ['site', 'x', 'y', 'x_se', 'y_se', 'covariance', 'weight', 'leverage']
    >>> compliance_scatter(mm.rank(mm.data.star())) is None
    True
    """
    if report.n_mediators < 2:
        return None
    c = report.compliances
    pair = _pair(report)
    frame = _frame(report, pair)
    names = [c.mediators[pair.first], c.mediators[pair.second]]
    origin = common_compliance(c)[:, [pair.first, pair.second]]
    with drawing():
        figure = sheet(5.8, 4.3)
        axes = figure.add_subplot()
        around = _ellipses(axes, frame)
        _points(axes, frame, c)
        _limits(axes, frame, around)
        _lines(axes, pair, origin, len(c.contrasts))
        axes.set_xlabel(f"Effect of treatment on {label(names[0])}")
        axes.set_ylabel(f"Effect of treatment on {label(names[1])}")
        _legend(axes, pair, c)
        finished(figure)
        _names(axes, frame)
    return Picture(
        "compliance_scatter", figure, frame, _caption(report, pair, frame), _alt(report, pair, frame)
    )


def _pair(report: RankReport) -> _Pair:
    c, table = report.compliances, report.correlation
    kind = "centred" if report.direct_effect else "uncentred"
    table = table[table["kind"] == kind].reset_index(drop=True)
    clean = bool(table["disattenuated"].notna().any())
    values = table["disattenuated" if clean else "raw"]
    at = int(np.argmax(values.abs().fillna(-1.0).to_numpy()))
    first, second = (c.mediators.index(table[side][at]) for side in ("first", "second"))
    return _Pair(first, second, float(values[at]), kind, clean, _weakest(c, [first, second]))


def _weakest(c: Compliances, pair: list[int]) -> Array | None:
    """The combination of two mediators that stands out of the noise least; None where one has no noise."""
    own = np.ix_(pair, pair)
    explained, noise = c.explained[own], c.expected_noise[own]
    if (np.diag(noise) <= 1e-12 * np.diag(explained)).any() or not np.isfinite(noise).all():
        return None
    try:
        return directions(explained, noise).combinations[:, -1]
    except np.linalg.LinAlgError:
        return None


def _frame(report: RankReport, pair: _Pair) -> pd.DataFrame:
    c = report.compliances
    k, d, _ = c.slopes.shape
    i, j = pair.first, pair.second
    block = np.einsum("kdpdq->kdpq", c.cov)
    table = report.leverage.set_index("site")
    share = table.loc[list(c.sites), "weakest"].to_numpy(dtype=float)
    if not np.isfinite(share).all():
        share = table.loc[list(c.sites), "leverage"].to_numpy(dtype=float)
        share = share / share.sum()
    columns: dict[str, Any] = {"site": [s for s in c.sites for _ in range(d)]}
    if d > 1:
        columns["arm"] = list(c.contrasts) * k
    columns |= {
        "x": c.slopes[:, :, i].ravel(), "y": c.slopes[:, :, j].ravel(),
        "x_se": np.sqrt(np.clip(block[:, :, i, i], 0.0, None)).ravel(),
        "y_se": np.sqrt(np.clip(block[:, :, j, j], 0.0, None)).ravel(),
        "covariance": block[:, :, i, j].ravel(), "weight": np.einsum("kdd->kd", c.projection.omega).ravel(),
        "leverage": np.repeat(share, d),
    }  # fmt: skip
    return pd.DataFrame(columns)[c.present.ravel() > 0].reset_index(drop=True)


def _with_ellipse(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """(n,) whether a point has its ellipse: all when they are few, else those with the largest leverage."""
    out = np.ones(len(frame), dtype=bool)
    if len(frame) > ELLIPSES:
        out[:] = False
        out[np.argsort(-frame["leverage"].to_numpy(), kind="stable")[:LARGEST]] = True
    return out


def _ellipses(axes: Axes, frame: pd.DataFrame) -> Array:
    """Draw 95% ellipses of sampling error; (n, 4) how far the drawn ones reach."""
    from matplotlib.collections import PolyCollection

    shown = frame[_with_ellipse(frame)]
    cov = np.empty((len(shown), 2, 2))
    cov[:, 0, 0], cov[:, 1, 1] = shown["x_se"] ** 2, shown["y_se"] ** 2
    cov[:, 0, 1] = cov[:, 1, 0] = shown["covariance"]
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    angle = np.linspace(0.0, 2.0 * np.pi, 49)
    circle = RADIUS * np.stack([np.cos(angle), np.sin(angle)])
    rim = (root @ circle).transpose(0, 2, 1) + shown[["x", "y"]].to_numpy()[:, None, :]
    axes.add_collection(
        PolyCollection(list(rim), facecolors="none", edgecolors=INK["bar"], linewidths=0.6, alpha=0.7, zorder=2),
        autolim=False,
    )  # fmt: skip
    out: Array = np.concatenate([rim.min(axis=1), rim.max(axis=1)], axis=1)
    return out


def _points(axes: Axes, frame: pd.DataFrame, c: Compliances) -> None:
    many = len(frame) > MANY
    axes.axhline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    strong = _with_ellipse(frame)
    area = dot_areas(frame["weight"].to_numpy(dtype=float), many=many) / (1.0 if many else 2.0)
    for i, arm in enumerate(c.contrasts):
        ink, marker = ARMS[i % len(ARMS)]
        mine = (frame["arm"] == arm).to_numpy() if "arm" in frame else np.ones(len(frame), dtype=bool)
        # Points without an ellipse step back, so that the ellipses find their centres.
        for some, alpha, raster in ((~strong & mine, 0.35, many), (strong & mine, 0.9, False)):
            axes.scatter(
                frame["x"][some], frame["y"][some], area[some], color=INK[ink], marker=marker, alpha=alpha,
                edgecolors="none" if raster else "white", linewidths=0.5, zorder=3, rasterized=raster,
            )  # fmt: skip


def _limits(axes: Axes, frame: pd.DataFrame, around: Array) -> None:
    """All points and the axes; ellipses as far as they do not dwarf the points."""
    for side, (low, high) in (("x", (0, 2)), ("y", (1, 3))):
        points = np.append(frame[side].to_numpy(), 0.0)
        span = float(np.ptp(points)) or 1.0
        ends = np.clip(
            [around[:, low].min(), around[:, high].max()],
            points.min() - 1.2 * span,
            points.max() + 1.2 * span,
        )
        left, right = min(points.min(), ends[0]), max(points.max(), ends[1])
        room = 0.05 * (right - left)
        (axes.set_xlim if side == "x" else axes.set_ylim)(left - room, right + room)


def _lines(axes: Axes, pair: _Pair, origin: Array, contrasts: int) -> None:
    if pair.weakest is None:
        return
    # Two far points in units of the axes, so that steep lines are no problem for the arithmetic.
    along = np.array([-pair.weakest[1], pair.weakest[0]])
    scale = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())])
    along = along / np.abs(along / scale).max()
    lines = np.unique(origin, axis=0) if contrasts > 1 else origin[:1]
    limits = axes.get_xlim(), axes.get_ylim()
    for i, start in enumerate(lines):
        parallel = len(lines) > 1
        ends = np.stack([start - 10.0 * along, start + 10.0 * along])
        axes.plot(ends[:, 0], ends[:, 1], color=INK[ARMS[i % len(ARMS)][0]] if parallel else INK["line"], linewidth=1.6,
                  linestyle=(0, (5, 2)), zorder=4)  # fmt: skip
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _legend(axes: Axes, pair: _Pair, c: Compliances) -> None:
    from matplotlib.lines import Line2D

    handles = []
    if pair.weakest is not None:
        ink = INK["axis" if len(c.contrasts) > 1 and c.direct_effect else "line"]
        handles.append(
            Line2D([], [], color=ink, linewidth=1.6, linestyle=(0, (5, 2)), label="proportional compliances")
        )
    if c.cov.any():
        handles.append(
            Line2D([], [], linestyle="", marker="o", markersize=9, markerfacecolor="none", color=INK["bar"],
                   label="95% of sampling error")
        )  # fmt: skip
    if len(c.contrasts) > 1:
        handles += [
            Line2D([], [], linestyle="", marker=m, color=INK[ink], label=f"arm {label(arm, 18)}")
            for arm, (ink, m) in zip(c.contrasts, ARMS, strict=False)
        ]
    above(axes, handles)


def _names(axes: Axes, frame: pd.DataFrame) -> None:
    """Labels of the sites with the largest leverage, where none lies over another."""
    to_points = axes.transData.transform
    taken: list[Array] = []
    right = axes.transAxes.transform((0.7, 0.0))[0]
    order = np.argsort(-frame["leverage"].to_numpy(), kind="stable")
    for row in frame.iloc[order].drop_duplicates("site").head(NAMED).to_dict("records"):
        x, y = float(row["x"]), float(row["y"])
        at = to_points((x, y))
        if all(abs(at[1] - other[1]) > 12.0 or abs(at[0] - other[0]) > 110.0 for other in taken):
            taken.append(at)
            left = at[0] > right
            axes.annotate(
                label(row["site"], 16), (x, y), (-5 if left else 5, 4), textcoords="offset points", fontsize=7,
                ha="right" if left else "left", color=INK["axis"], zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.4},
            )  # fmt: skip


def _words(pair: _Pair) -> str:
    """The correlation, with what it is."""
    if not np.isfinite(pair.correlation):
        return "it has no correlation"
    with_error = "sampling error taken out" if pair.clean else "sampling error in it"
    return f"{pair.kind} correlation {number(pair.correlation, 2)}, {with_error}"


def _caption(report: RankReport, pair: _Pair, frame: pd.DataFrame) -> str:
    c = report.compliances
    one, two = (short(c.mediators[j], 60) for j in (pair.first, pair.second))
    unit = "site and arm" if len(c.contrasts) > 1 else "site"
    text = (
        f"Each point is a {unit}: the effect of treatment on {two} against that on {one} ({_words(pair)}). "
    )
    if c.n_mediators > 2:
        text += f"Of the {c.n_mediators} mediators these two are correlated most. "
    if c.cov.any():
        few = len(frame) <= ELLIPSES
        text += "Ellipses hold 95% of the sampling error" + (
            ". "
            if few
            else f", for the {min(LARGEST, len(frame))} points with the largest share of the information. "
        )
    if pair.weakest is not None:
        unit_weights = pair.weakest * np.sqrt(np.diag(c.expected_noise)[[pair.first, pair.second]])
        unit_weights = unit_weights / np.linalg.norm(unit_weights)
        through = "each arm's common effects" if len(c.contrasts) > 1 else "the common effects"
        start = (
            f"through {through}, because the direct effect is free"
            if c.direct_effect
            else "through the origin"
        )
        text += (
            f"Along the dashed line, {start}, {direction_words((one, two), unit_weights, 40)} is "
            f"{'the same everywhere' if c.direct_effect else 'zero'}: sites on it are moved in proportion and do not "
            f"tell {one} from {two}; only distance from the line does. "
        )
    return (
        text
        + "Areas are proportional to the weight of a site, compliance left aside (the smallest are enlarged)."
    )


def _alt(report: RankReport, pair: _Pair, frame: pd.DataFrame) -> str:
    one, two = (short(report.mediators[j], 60) for j in (pair.first, pair.second))
    return (
        f"Scatter plot of {len(frame):,} points: effect of treatment on {two}, from {number(frame['y'].min(), 3)} to "
        f"{number(frame['y'].max(), 3)}, against effect on {one}, from {number(frame['x'].min(), 3)} to "
        f"{number(frame['x'].max(), 3)}; {_words(pair)}."
    )
