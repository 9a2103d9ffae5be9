"""Whether the arms were alike before treatment: standardised differences, pooled and site by site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from msmmiv.diagnose.balance import CovariateBalance
from msmmiv.errors import DataError, count
from msmmiv.inference.tests import NotApplicable
from msmmiv.show.plots.picture import INK, Picture, drawing, finished, label
from msmmiv.show.plots.scatter import ARMS, MANY, Z95
from msmmiv.show.plots.sheet import above, narrow, sheet
from msmmiv.show.words import number, one_line, p_value, p_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["balance"]

#: Covariates up to which each has its p-value beside it; smallest distance of two labels, in points.
_WITH_P: Final = 40
_PITCH: Final = 6.5
#: The axis holds all but so many of the sites, and no more than so many times the pooled intervals.
_MOST_SITES, _TIMES = 0.98, 8.0


def balance(found: CovariateBalance) -> Picture:
    """Standardised differences of the covariates: pooled with their intervals, over those of single sites.

    Covariates are ordered by the largest pooled difference; several arms lie under one another.

    Parameters
    ----------
    found : CovariateBalance

    Returns
    -------
    Picture
        ``data`` has the pooled differences (``part`` "pooled": ``standardised, lower, upper, p_value``) and those of
        the sites ("site").

    Raises
    ------
    DataError
        No covariate has a difference.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.diagnose.balance import covariate_balance
    >>> picture = balance(covariate_balance(mm.data.star("math_covariates"), assigned="rows"))
    >>> picture.data.loc[picture.data["part"] == "pooled", "covariate"].tolist()
    ['white_asian', 'freelunch', 'female']
    """
    if not np.isfinite(found.standardised).any():
        why = found.joint.reason if isinstance(found.joint, NotApplicable) else "no covariate varies"
        raise DataError(f"There is no balance to draw: {one_line(why)}.")
    names, data = _data(found)
    rows, arms = len(names), len(found.contrasts)
    limit = _limit(found, data)
    with drawing():
        height = min(1.1 + rows * (0.26 + 0.12 * arms), 11.0)
        figure = sheet(5.8, max(height, 2.2) + 0.6 * narrow())  # there the legend is higher
        axes = figure.add_subplot()
        _sites(axes, found, data, names)
        _pooled(axes, found, data, names)
        _frame(axes, found, data, names, limit=limit, pitch=72.0 * (height - 1.0) / rows)
        _legend(axes, found)
        finished(figure)
    return Picture("balance", figure, data, _caption(found, data, limit), _alt(found, data))


def _data(found: CovariateBalance) -> tuple[list[str], pd.DataFrame]:
    """Covariates from the largest difference to the smallest, and all that is drawn."""
    size = np.nan_to_num(np.abs(found.standardised).max(axis=0), nan=-1.0)
    names = [found.covariates[j] for j in np.argsort(-size, kind="stable")]
    pooled = found.to_frame()
    half = Z95 * pooled["standardised_se"]
    pooled = pooled.assign(
        lower=pooled["standardised"] - half, upper=pooled["standardised"] + half, part="pooled"
    )
    place = pooled["covariate"].map(names.index)
    pooled = pooled.iloc[np.argsort(place.to_numpy(), kind="stable")]
    sites = found.site_frame().assign(part="site")
    kept = ["part", "site", "covariate", "arm", "standardised", "lower", "upper", "p_value"]
    both = pooled if sites.empty else pd.concat([pooled, sites], ignore_index=True)
    return names, both[[c for c in kept if c in both]].reset_index(drop=True)


def _limit(found: CovariateBalance, data: pd.DataFrame) -> float:
    """Half the axis: the pooled intervals, and as many of the sites as leave those readable."""
    ends = np.abs(data[["lower", "upper"]].to_numpy(dtype=float))
    pooled = float(np.nanmax(np.append(ends, np.abs(data.loc[data["part"] == "pooled", "standardised"]))))
    sites = data.loc[data["part"] == "site", "standardised"].abs().dropna().to_numpy()
    far = min(float(np.quantile(sites, _MOST_SITES)), _TIMES * pooled) if len(sites) else 0.0
    seen = 1.1 * found.detectable if found.detectable < _TIMES * pooled else 0.0
    return max(1.2 * pooled, 1.05 * far, seen) or 1.0


def _shift(found: CovariateBalance, arm: int) -> float:
    """How far below the middle of its covariate an arm lies."""
    arms = len(found.contrasts)
    return 0.62 * ((arm + 0.5) / arms - 0.5) if arms > 1 else 0.0


def _of_arm(data: pd.DataFrame, part: str, arm: Any) -> pd.DataFrame:
    chosen = data["part"] == part
    return data[chosen & (data["arm"] == arm)] if "arm" in data else data[chosen]


def _sites(axes: Axes, found: CovariateBalance, data: pd.DataFrame, names: list[str]) -> None:
    many = int((data["part"] == "site").sum()) > MANY
    crowd = len(found.sites)
    for d, arm in enumerate(found.contrasts):
        mine = _of_arm(data, "site", arm)
        # Spread by the golden section: neighbours never lie at the same height, and the figure stays as it is.
        spread = (np.arange(len(mine)) * 0.6180339887 % 1.0 - 0.5) * 0.6 / len(found.contrasts)
        axes.scatter(
            mine["standardised"], mine["covariate"].map(names.index) + _shift(found, d) + spread,
            9.0 if crowd <= 40 else 5.0 if crowd <= 150 else 2.6, color=INK[ARMS[d % len(ARMS)][0]],
            alpha=0.3, edgecolors="none", zorder=2, rasterized=many,
        )  # fmt: skip


def _pooled(axes: Axes, found: CovariateBalance, data: pd.DataFrame, names: list[str]) -> None:
    for d, arm in enumerate(found.contrasts):
        mine, (ink, marker) = _of_arm(data, "pooled", arm), ARMS[d % len(ARMS)]
        y = mine["covariate"].map(names.index) + _shift(found, d)
        single = len(found.contrasts) == 1
        colour = INK["black"] if single else INK[ink]
        axes.hlines(y, mine["lower"], mine["upper"], color=colour, linewidth=1.8, zorder=3)
        axes.plot(
            mine["standardised"], y, linestyle="", marker="D" if single else marker, markersize=5, color=colour,
            markeredgecolor="white", markeredgewidth=0.5, zorder=4,
        )  # fmt: skip


def _frame(
    axes: Axes, found: CovariateBalance, data: pd.DataFrame, names: list[str], *, limit: float, pitch: float
) -> None:
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    if found.detectable <= limit:
        for side in (-1.0, 1.0):
            axes.axvline(
                side * found.detectable, color=INK["purple"], linewidth=1.2, linestyle=(0, (3, 2)), zorder=1.5
            )
    for edge in range(1, len(names)):
        axes.axhline(edge - 0.5, color="#E6E8EB", linewidth=0.6, zorder=0)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(names) - 0.5, -0.5)
    step = max(1, int(np.ceil(_PITCH / pitch)))
    axes.set_yticks(range(0, len(names), step), [label(n, 26) for n in names[::step]])
    axes.tick_params(axis="y", length=0, labelsize=8 if pitch > 12 else 7)
    axes.set_xlabel("Difference between arms, in standard deviations within sites")
    _beside(axes, found, data, names)


def _beside(axes: Axes, found: CovariateBalance, data: pd.DataFrame, names: list[str]) -> None:
    """The p-values in the margin, and what is said where a covariate does not vary."""
    pooled = data[data["part"] == "pooled"]
    style: dict[str, Any] = {"fontsize": 7.5, "va": "center", "color": INK["axis"]}
    if len(pooled) <= _WITH_P:
        axes.annotate("p", (1.0, 1.0), (8, 3), xycoords="axes fraction", textcoords="offset points", ha="left",
                      **style | {"va": "bottom"})  # fmt: skip
    for d, arm in enumerate(found.contrasts):
        for row in _of_arm(data, "pooled", arm).to_dict("records"):
            y = names.index(row["covariate"]) + _shift(found, d)
            if len(pooled) <= _WITH_P:
                axes.annotate(
                    p_value(row["p_value"]), (1.0, y), (8, 0), xycoords=("axes fraction", "data"),
                    textcoords="offset points", ha="left", **style,
                )  # fmt: skip
            if not np.isfinite(row["standardised"]) and d == 0:
                axes.annotate(
                    "does not vary within sites", (0.0, y), (4, 0), textcoords="offset points", **style
                )


def _legend(axes: Axes, found: CovariateBalance) -> None:
    from matplotlib.lines import Line2D

    arms = found.contrasts
    ends: dict[str, Any] = {"linestyle": "-", "linewidth": 1.8, "markersize": 5, "markeredgecolor": "white",
                            "markeredgewidth": 0.5}  # fmt: skip
    if len(arms) == 1:
        handles = [Line2D([], [], marker="D", color=INK["black"], label="pooled, 95% interval", **ends)]
    else:
        handles = [
            Line2D([], [], marker=ARMS[d % len(ARMS)][1], color=INK[ARMS[d % len(ARMS)][0]],
                   label=f"arm {label(arm, 18)}", **ends)
            for d, arm in enumerate(arms)
        ]  # fmt: skip
    handles.append(
        Line2D(
            [], [], linestyle="", marker="o", markersize=3, color=INK["point"], alpha=0.4, label="one site"
        )
    )
    if found.detectable <= axes.get_xlim()[1]:
        handles.append(
            Line2D([], [], color=INK["purple"], linewidth=1.2, linestyle=(0, (3, 2)),
                   label=f"found with 80% power: ±{number(found.detectable, 2)}")
        )  # fmt: skip
    above(axes, handles)


def _caption(found: CovariateBalance, data: pd.DataFrame, limit: float) -> str:
    several = len(found.contrasts) > 1
    said = [
        "Differences of the covariates between treatment and control"
        + (", arm by arm," if several else "")
        + f" in standard deviations within sites: pooled with 95% intervals (± 1.96 randomisation standard errors, "
        f"{found.assigned} as what was assigned), over those of {count(len(found.sites), 'site')} (faint).",
    ]
    sites = data.loc[data["part"] == "site", "standardised"].abs().to_numpy()
    if beyond := int((sites > limit).sum()):
        said.append(
            f"{count(beyond, 'difference of a site lies', 'differences of sites lie')} beyond the axis."
        )
    if isinstance(found.joint, NotApplicable):
        said.append(f"There is no joint test: {one_line(found.joint.reason)}.")
    else:
        said.append(
            f"All covariates{' and arms' if several else ''} jointly, against shuffled assignment within sites: "
            f"{p_words(found.joint.pvalue)} ({found.joint.dist})."
        )
    if np.isfinite(found.detectable):
        said.append(
            f"It finds a difference of {number(found.detectable, 2)} standard deviations in any one covariate, the "
            "same in all sites, with 80% power."
        )
    if len(data[data["part"] == "pooled"]) <= _WITH_P:
        said.append(
            "The p-values in the margin belong to one difference each and are not adjusted for their number."
        )
    said.append(
        "Sites differ by chance, small ones most; balance on what was measured is not balance on what was not."
    )
    return " ".join(said)


def _alt(found: CovariateBalance, data: pd.DataFrame) -> str:
    pooled = data[data["part"] == "pooled"].dropna(subset="standardised")
    told = "; ".join(
        f"{one_line(r['covariate'])}{' (' + one_line(r['arm']) + ')' if 'arm' in pooled else ''} "
        f"{number(r['standardised'], 2)}"
        for r in pooled.head(12).to_dict("records")
    )
    joint = "" if isinstance(found.joint, NotApplicable) else f" Jointly {p_words(found.joint.pvalue)}."
    return f"Love plot of standardised differences within sites: {told}.{joint}"
