"""Which sites speak: their shares in each coefficient, and what leaving them out does to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.design import Label
from msmmiv.diagnose.site_weights import site_weights
from msmmiv.errors import count
from msmmiv.inference.results import Estimate
from msmmiv.linalg import Array
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.scatter import MANY
from msmmiv.show.plots.sheet import SMALLEST, narrow, sheet
from msmmiv.show.words import fit_label, number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["effective_sites", "weights"]

#: Sites up to which every one has its row; above, the largest.
ROWS = 30
#: Inches of a page that a figure may take.
HEIGHT = 9.0


def weights(fit: Estimate, sites: Sequence[Label]) -> Picture:
    """The share of every site in the coefficient of each mediator, and what leaving the site out does to it.

    Sites stand in the order of their shares; with many, the largest are shown, and the rest together.

    Parameters
    ----------
    fit : Estimate
        Usually 2SLS, whose shares are never negative.
    sites : sequence of labels
        K sites in the order of the moments.

    Returns
    -------
    Picture
        ``data`` has ``mediator, site, share, ratio, part, influence`` (see Notes), ``rank`` (1 for the largest share)
        and ``shown`` (whether the site has a row of its own).

    Raises
    ------
    DataError
        There is no estimate.
    ChoiceError
        The estimator does not solve one equation per site.

    Notes
    -----
    ``ratio`` is the coefficient of the site alone, the other coefficients held to their equations; the coefficient is
    the average of the ratios with the shares. With one mediator and no covariates the share of site s in 2SLS is
    ``w_s c_s^2 / sum(w c^2)`` with compliance c and w = n p (1 - p), and the ratio is ``itt_s / c_s``. ``influence`` is
    the coefficient less that without the site.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import weights
    >>> moments = mm.data.star()
    >>> data = weights(mm.fit(moments, "2sls", cov_type="site"), moments.sites).data
    >>> len(data), int(data["shown"].sum()), round(float(data["share"].sum()), 9)
    (79, 30, 1.0)
    """
    names = fit.design.mediators
    # Several mediators share a page's height.
    most = min(ROWS, max(5, int((HEIGHT / len(names) - 1.0) / 0.155) - 1))
    frames = [_ordered(site_weights(fit, sites, m), m, most) for m in names]
    rows = min(len(sites), most) + (len(sites) > most)
    with drawing():
        figure = sheet(7.0 if len(names) > 1 else 5.8, len(names) * (1.0 + 0.155 * max(rows, 4)))
        panels: Any = figure.subplots(len(names), 2, squeeze=False, sharey="row", width_ratios=(1.25, 1))
        for (left, right), frame, name in zip(panels, frames, names, strict=True):
            _shares(left, frame, name)
            _influences(right, frame, name)
        finished(figure)
    data = pd.concat(frames, ignore_index=True)
    return Picture("weights", figure, data, _caption(fit, frames), _alt(fit, frames))


def _ordered(frame: pd.DataFrame, mediator: str, most: int) -> pd.DataFrame:
    order = np.argsort(-frame["share"].to_numpy(), kind="stable")
    out = frame.iloc[order].reset_index(drop=True)
    out.insert(0, "mediator", mediator)
    place = np.arange(len(out))
    return out.assign(rank=1 + place, shown=place < most)


def _rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, Array, bool]:
    """The sites with a row, their heights, and whether the rest has one."""
    shown = frame[frame["shown"]]
    rest = len(shown) < len(frame)
    return shown, np.arange(len(shown), dtype=float)[::-1] + rest, rest


def _shares(axes: Axes, frame: pd.DataFrame, name: str) -> None:
    shown, place, rest = _rows(frame)
    share = 100.0 * shown["share"].to_numpy()
    axes.barh(place, share, height=0.7, color=INK["sky"], edgecolor=INK["point"], linewidth=0.4, zorder=2)
    names = [label(s, 12 if narrow() else 22) for s in shown["site"]]
    if rest:
        other = frame[~frame["shown"]]
        _rest(axes, 100.0 * other["share"].to_numpy(), float(share.max(initial=0.0)))
        names.append(f"{len(other):,} others")
    axes.axvline(100.0 / len(frame), color=INK["axis"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.set_yticks([*place, *[0.0] * rest], names)
    axes.tick_params(axis="y", length=0, labelsize=SMALLEST)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel(f"Share in the effect of {label(name, 20)}, %")


def _rest(axes: Axes, share: Array, widest: float) -> None:
    """All others in one row: their largest, and in words what they have together."""
    most = float(share.max())
    axes.barh(
        [0.0],
        [most],
        height=0.7,
        color="white",
        edgecolor=INK["point"],
        linewidth=0.6,
        hatch="////",
        zorder=2,
    )
    words = f"{number(float(share.sum()), 3)}% together"
    axes.annotate(
        words, (max(most, 0.0) + 0.02 * widest, 0.0), (3, 0), textcoords="offset points", va="center",
        fontsize=SMALLEST, color=INK["axis"], zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip


def _influences(axes: Axes, frame: pd.DataFrame, name: str) -> None:
    shown, place, rest = _rows(frame)
    moved = shown["influence"].to_numpy(dtype=float)
    known = np.isfinite(moved)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.hlines(place[known], 0.0, moved[known], color=INK["bar"], linewidth=1.2, zorder=2)
    axes.plot(moved[known], place[known], "o", color=INK["line"], markersize=4, zorder=3)
    if rest:
        other = frame.loc[~frame["shown"], "influence"].to_numpy(dtype=float)
        other = other[np.isfinite(other)]
        many = len(other) > MANY
        axes.plot(other, np.zeros(len(other)), "|", color=INK["bar"], markersize=6, markeredgewidth=0.6, alpha=0.6,
                  zorder=2, rasterized=many)  # fmt: skip
    for y in place[~known]:
        axes.annotate("not defined", (0.0, y), (3, 0), textcoords="offset points", va="center", fontsize=SMALLEST,
                      style="italic", color=INK["axis"])  # fmt: skip
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.margins(x=0.08)
    axes.set_xlabel(f"What the site adds to the effect of {label(name, 20)}")
    axes.grid(axis="x", color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)


def effective_sites(share: npt.ArrayLike) -> float:
    """How many sites of equal share would speak as unevenly as these: one over the sum of squared shares.

    Examples
    --------
    >>> effective_sites([0.25] * 4), effective_sites([1.0, 0.0])
    (4.0, 1.0)
    """
    return float(1.0 / np.square(np.asarray(share, dtype=float)).sum())


def _told(frame: pd.DataFrame) -> str:
    share = frame["share"].to_numpy()
    few = "" if len(share) <= 5 else f", the five largest have {100.0 * share[:5].sum():.0f}%"
    return (
        f"{one_line(frame['mediator'][0])}: the largest share is {100.0 * share[0]:.1f}% ({one_line(frame['site'][0])})"
        f"{few}; the shares are as uneven as those of {effective_sites(share):.0f} equal sites"
    )


def _caption(fit: Estimate, frames: list[pd.DataFrame]) -> str:
    several = len(frames) > 1 or fit.direct_effect
    held = ", the other coefficients held to their equations," if several else ""
    said = [
        (
            f"Left: the share of each site in {fit_label(fit)}. The coefficient is the average of what each site says "
            f"alone{held} with these shares; dashed: equal shares. Right: the coefficient less that without the site."
        ),
        *(f"Effect of {_told(f)}." for f in frames),
    ]
    if not frames[0]["shown"].all():
        most = int(frames[0]["shown"].sum())
        said.append(
            f"The {most} largest of {len(frames[0]):,} sites have rows; the last row holds all others, hatched to the "
            "largest share among them."
        )
    if negative := sum(int((f["share"] < 0).sum()) for f in frames):
        said.append(
            f"{count(negative, 'share is', 'shares are')} negative: this estimator takes sampling error out, and there "
            "more of it is expected than the compliance shows."
        )
    return " ".join(said)


def _alt(fit: Estimate, frames: list[pd.DataFrame]) -> str:
    return f"Bars of the shares of {len(frames[0]):,} sites in {fit_label(fit)}. {'; '.join(map(_told, frames))}."
