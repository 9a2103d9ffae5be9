"""The compliance matrix as a picture: every site, every mediator, in units of noise."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.rank import RankReport
from msmmiv.errors import count
from msmmiv.linalg import Array
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.rank import direction_words
from msmmiv.show.plots.sheet import sheet
from msmmiv.show.words import number, one_line, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["common_compliance", "compliance_map"]

#: Up to here every site has its label.
LABELLED = 40
#: Rows that can be told apart; with more sites, neighbours share a row.
ROWS = 400
#: Named among the sites with the largest leverage, where rows have no labels.
TOP = 3
#: Compliances up to so many standard errors have colours in proportion; beyond, colours change slowly.
LINEAR = 1.5
ABSENT = "#B9BEC5"
_COLOURS = ("#00304F", "#0072B2", "#8CC5E8", "#F7F7F7", "#F2B48A", "#D55E00", "#6B2F00")


def compliance_map(report: RankReport) -> Picture:
    """The compliance matrix, sites by mediators (and arms), ordered by the strongest direction.

    Columns that rise and fall together are proportional: the sites cannot tell their mediators apart. With a free
    direct effect cells are differences from the common effect, because only these count.

    Parameters
    ----------
    report : RankReport

    Returns
    -------
    Picture
        ``data`` has one row per site, arm and mediator: ``compliance``, ``std_error``, ``shown`` (in units of the
        mediator's typical standard error) and the shares of the site in the first-stage information.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import compliance_map
    >>> picture = compliance_map(mm.rank(mm.data.star()))
    >>> len(picture.data), bool(picture.data["shown"].is_monotonic_decreasing)
    (79, True)
    """
    c = report.compliances
    shown, units = _in_units_of_noise(c)
    order, by = _order(report, shown, units)
    frame = _frame(report, shown, order)
    k, (d, p) = len(c.sites), shown.shape[1:]
    per = -(-k // ROWS)
    values = _stripes(shown[order].transpose(0, 2, 1).reshape(k, p * d), per)
    shares = _shares(report)
    strips = {name: _stripes(100.0 * v[order, None], per, total=True)[:, 0] for name, v in shares.items()}
    with drawing():
        columns = p * d
        wide = 1.0 if columns <= 3 else max(0.34, 3.6 / columns)
        height = 1.3 + 0.165 * max(k, 4) if k <= LABELLED else 6.4
        sizes = [wide * columns, *[0.75] * len(strips)]
        figure = sheet(1.9 + sum(sizes), height)
        panels: list[Any] = list(figure.subplots(1, len(sizes), sharey=True, width_ratios=sizes))
        image = _cells(panels[0], values, d)
        _column_labels(panels[0], c)
        _row_labels(panels[0], [c.sites[i] for i in order], len(values), by)
        for axes, (name, strip) in zip(panels[1:], strips.items(), strict=True):
            _strip(axes, strip, name)
        if k > LABELLED:
            _largest(panels[-1], list(strips.values())[-1], [c.sites[i] for i in order], shares, order, per)
        _colour_bar(figure, image, panels, np.nanmax(np.abs(values), initial=1.0))
        finished(figure)
    return Picture("compliance_map", figure, frame, _caption(report, by, units, per), _alt(report, by))


def _in_units_of_noise(c: Compliances) -> tuple[Array, dict[str, str]]:
    """(K, D, P) compliances (net of direct effects) over typical standard errors, and what the unit of each is."""
    present = c.present[:, :, None] > 0
    net = np.where(present, c.slopes - common_compliance(c), np.nan)
    se = _standard_errors(c)
    size = np.sqrt(np.nanmean(net**2, axis=(0, 1)))
    out, units = np.empty_like(net), {}
    for j, name in enumerate(c.mediators):
        known = se[:, :, j][se[:, :, j] > 1e-12 * size[j]]
        noisy = len(known) > 0
        unit = float(np.median(known)) if noisy else float(size[j])
        units[name] = "noise" if noisy else "size"
        out[:, :, j] = net[:, :, j] / (unit if unit > 0 else 1.0)
    return out, units


def common_compliance(c: Compliances) -> Array:
    """(D, P) compliance that goes with the direct effect where that is free; else zero."""
    d = len(c.contrasts)
    if not c.direct_effect:
        return np.zeros((d, c.n_mediators))
    load = c.projection.gram_inverse @ np.einsum("kdr,kdp->rp", c.projection.cross, c.slopes)
    out: Array = load[:d]
    return out


def _standard_errors(c: Compliances) -> Array:
    """(K, D, P); NaN for arms that a site lacks."""
    se = np.sqrt(np.clip(np.einsum("kdpdp->kdp", c.cov), 0.0, None))
    out: Array = np.where(c.present[:, :, None] > 0, se, np.nan)
    return out


def _order(report: RankReport, shown: Array, units: dict[str, str]) -> tuple[npt.NDArray[np.intp], str]:
    """Sites by the strongest direction, or by the first mediator, and what that is in words."""
    found = report.spectrum
    if found is None:
        key, by = shown[:, :, 0], one_line(report.mediators[0])
    else:
        key, by = shown @ found.weights[:, 0], direction_words(found.mediators, found.weights[:, 0])
        if len(set(units.values())) > 1:
            key = np.where(
                np.isnan(shown[:, :, 0]), np.nan, report.compliances.slopes @ found.combinations[:, 0]
            )
    mean = np.nansum(key, axis=1) / np.maximum(1, np.isfinite(key).sum(axis=1))
    return np.argsort(-mean, kind="stable"), by


def _shares(report: RankReport) -> dict[str, Array]:
    """Shares of the first-stage information by site, in the order of the compliances; all, and the weakest."""
    table = report.leverage.set_index("site")
    sites = list(report.compliances.sites)
    every = table.loc[sites, "leverage"].to_numpy(dtype=float)
    out = {"all": every / every.sum()}
    weakest = table.loc[sites, "weakest"].to_numpy(dtype=float)
    if report.n_mediators > 1 and np.isfinite(weakest).all():
        out["weakest"] = weakest
    return out


def _frame(report: RankReport, shown: Array, order: npt.NDArray[np.intp]) -> pd.DataFrame:
    c = report.compliances
    k, d, p = shown.shape
    se, shares = _standard_errors(c), _shares(report)
    columns: dict[str, Any] = {"site": [c.sites[i] for i in order for _ in range(d * p)]}
    if d > 1:
        columns["arm"] = [a for a in c.contrasts for _ in range(p)] * k
    columns["mediator"] = list(c.mediators) * (k * d)
    columns |= {
        "compliance": np.where(np.isnan(shown), np.nan, c.slopes)[order].ravel(), "std_error": se[order].ravel(),
        "shown": shown[order].ravel(), "leverage": np.repeat(shares["all"][order], d * p),
    }  # fmt: skip
    if "weakest" in shares:
        columns["weakest"] = np.repeat(shares["weakest"][order], d * p)
    return pd.DataFrame(columns)


def _stripes(rows: Array, per: int, *, total: bool = False) -> Array:
    """Means (sums) of so many neighbouring rows, absent cells left out."""
    if per == 1:
        return rows
    starts = np.arange(0, len(rows), per)
    known = np.add.reduceat(np.isfinite(rows).astype(float), starts)
    sums = np.add.reduceat(np.nan_to_num(rows), starts)
    with np.errstate(invalid="ignore"):
        out: Array = sums if total else sums / known
    return out


def _cells(axes: Axes, values: Array, contrasts: int) -> Any:
    from matplotlib.colors import AsinhNorm, LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("compliance", _COLOURS).with_extremes(bad=ABSENT)
    limit = max(3.0, float(np.nanmax(np.abs(values), initial=0.0)))
    norm = AsinhNorm(linear_width=LINEAR, vmin=-limit, vmax=limit)
    rows, columns = values.shape
    if rows <= LABELLED:
        image: Any = axes.pcolormesh(
            np.ma.masked_invalid(values), cmap=colours, norm=norm, edgecolor="white", linewidth=0.6
        )
        # Masked cells are left out of a mesh; what is behind them shows.
        axes.set_facecolor(ABSENT)
    else:
        image = axes.imshow(
            np.ma.masked_invalid(values), cmap=colours, norm=norm, aspect="auto", interpolation="nearest",
            extent=(0, columns, rows, 0),
        )  # fmt: skip
    for edge in range(contrasts, columns, contrasts):
        axes.axvline(edge, color="white", linewidth=2.0)
    axes.set_ylim(rows, 0)
    axes.set_xlim(0, columns)
    for side in axes.spines.values():
        side.set_visible(False)
    return image


def _column_labels(axes: Axes, c: Compliances) -> None:
    d, p = len(c.contrasts), c.n_mediators
    few = d * p <= 3
    names = [short(m, 24) + (f" · {short(a, 12)}" if d > 1 else "") for m in c.mediators for a in c.contrasts]
    # Broken into lines first: a break between a backslash and its dollar sign would start a formula.
    shown = [(textwrap.fill(n, 13) if few else n).replace("$", r"\$") for n in names]
    axes.xaxis.tick_top()
    axes.set_xticks(
        np.arange(d * p) + 0.5, shown, fontsize=7.5, rotation=0 if few else 40, ha="center" if few else "left",
        rotation_mode="anchor",
    )  # fmt: skip
    axes.tick_params(axis="x", length=0, pad=2)


def _row_labels(axes: Axes, sites: list[Any], rows: int, by: str) -> None:
    axes.tick_params(axis="y", length=0, labelsize=7)
    if len(sites) <= LABELLED:
        axes.set_yticks(np.arange(rows) + 0.5, [label(s, 22) for s in sites])
        return
    axes.set_yticks([])
    axes.set_ylabel(f"{len(sites):,} sites, ordered by {label(by, 60)}", fontsize=8)


def _strip(axes: Axes, values: Array, name: str) -> None:
    shown = np.nan_to_num(values)
    ink = INK["sky"] if name == "all" else INK["purple"]
    if len(shown) <= LABELLED:
        axes.barh(np.arange(len(shown)) + 0.5, shown, height=0.85, color=ink)
    else:  # one outline instead of one bar per row: a tenth of the size
        axes.stairs(shown, np.arange(len(shown) + 1), orientation="horizontal", fill=True, color=ink)
    top = float(shown.max(initial=0.0)) or 1.0
    axes.set_xlim(0.0, 1.05 * top)
    axes.set_xticks([0.0, top], ["0", f"{top:.2g}%"], fontsize=7)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.set_title("Leverage" if name == "all" else "Weakest\ndirection", fontsize=7.5, color=INK["axis"])
    axes.spines["left"].set_visible(False)


def _largest(
    axes: Axes,
    strip: Array,
    sites: list[Any],
    shares: dict[str, Array],
    order: npt.NDArray[np.intp],
    per: int,
) -> None:
    """Names of the sites with the largest shares, where there is room for them."""
    share = np.nan_to_num(list(shares.values())[-1][order])
    room, taken = 0.035 * len(strip), list[float]()
    for i in np.argsort(-share, kind="stable")[:TOP]:
        y = float(i // per) + 0.5
        if all(abs(y - other) >= room for other in taken):
            taken.append(y)
            axes.annotate(
                label(sites[i], 16), (float(strip[i // per]), y), (3, 0), textcoords="offset points", fontsize=7,
                va="center", color=INK["axis"], annotation_clip=False,
            )  # fmt: skip


def _colour_bar(figure: Any, image: Any, panels: list[Any], limit: float) -> None:
    bar = figure.colorbar(image, ax=panels, orientation="horizontal", aspect=40, pad=0.02)
    ends = [t for t in (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 1e4, 1e5) if t <= max(3.0, limit)]
    bar.set_ticks(
        [-t for t in ends[::-1]] + [0.0, *ends],
        labels=[f"−{t:g}" for t in ends[::-1]] + ["0"] + [f"{t:g}" for t in ends],
    )
    bar.minorticks_off()
    bar.set_label("Compliance, in standard errors", fontsize=8)
    bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)


def _caption(report: RankReport, by: str, units: dict[str, str], per: int) -> str:
    cells = "sites by mediators" + (" and arms" if len(report.contrasts) > 1 else "")
    net = (
        " less the part that is the same in all sites, because the direct effect is free"
        if report.direct_effect
        else ""
    )
    text = (
        f"The compliance matrix, {cells}: what the treatment does to each mediator in each site{net}, in typical "
        f"standard errors of that mediator, ordered by {one_line(by)}. Pale cells are within noise. "
    )
    if report.n_mediators > 1:
        text += "Columns with the same pattern of colours are proportional, and their effects cannot be told apart. "
    if fixed := [one_line(m) for m, unit in units.items() if unit == "size"]:
        text += f"{', '.join(fixed)}: no sampling error, in units of its root mean square. "
    if not report.compliances.present.all():
        text += "Grey: the site lacks that arm. "
    if per > 1:
        text += f"Every row is the mean of {per} neighbouring sites (leverage: their sum). "
    beside = "Beside it: each site's share of the first-stage information"
    return (
        f"{text}{beside}{', and of that in the weakest direction' if 'weakest' in _shares(report) else ''}."
    )


def _alt(report: RankReport, by: str) -> str:
    shares = list(_shares(report).values())[-1]
    top = report.compliances.sites[int(np.nanargmax(shares))] if np.isfinite(shares).any() else ""
    arms = len(report.contrasts) > 1
    told = "; ".join(
        short(r["mediator"], 60)
        + (f" ({one_line(r['contrast'])})" if arms else "")
        + f": mean {number(float(r['mean']))}"
        for r in report.variation.to_dict("records")
    )
    most = (
        f" The largest share of the information, {np.nanmax(shares):.1%}, is that of {one_line(top)}."
        if top != ""
        else ""
    )
    sites = count(len(report.compliances.sites), "site")
    return f"Heat map of compliances in {sites}, ordered by {one_line(by)}. {told}.{most}"
