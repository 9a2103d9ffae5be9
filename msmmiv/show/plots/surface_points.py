"""Sites over compliance, or over what a plane predicts, with sampling errors: shared by figures of the surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from msmmiv.diagnose.linearity import SurfaceTest
from msmmiv.errors import DataError, count
from msmmiv.estimate.site_moments import SiteRows, estimated, site_rows
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.plots.picture import INK, label
from msmmiv.show.plots.scatter import ARMS, MANY, Z95
from msmmiv.show.words import number, one_line, p_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Plane",
    "arm_handles",
    "bars",
    "ellipses",
    "points",
    "reach",
    "result_words",
    "span_of",
    "unit_words",
]

#: Rows up to which sampling errors are drawn, and up to which ellipses are filled.
DRAWN: Final = 200
_FILLED: Final = 15
#: How far errors and curves may push the limits beyond the points, in ranges of the points; with few rows further.
ROOM: Final = 0.3
_ROOM_FEW: Final = 0.6
#: The line of the null.
DASHES: Final = (0, (4, 3))


class Plane:
    """The null plane of a test with the rows it was fitted to, and views along its directions.

    Attributes
    ----------
    slopes : (P,) array
        NaN where there is no plane.
    intercept : float
        Zero where the plane goes through the origin.
    """

    def __init__(self, found: SurfaceTest, effects: SiteEffects) -> None:
        self.found, self.effects = found, effects
        self.rows = _matching(found, effects)
        # By position: a mediator may be called "direct_effect".
        base: Array = np.asarray(found.base, dtype=np.float64)
        self.slopes: Array = base[: len(found.mediators)]
        self.intercept = float(base[-1]) if found.direct_effect else 0.0

    @property
    def exists(self) -> bool:
        """Whether there are coefficients to draw."""
        return bool(np.isfinite(self.slopes).all() and np.isfinite(self.intercept))

    @property
    def single(self) -> bool:
        """Whether there is one mediator."""
        return len(self.slopes) == 1

    def whole(self) -> pd.DataFrame:
        """Itt against compliance, or with several mediators against what the plane predicts without its intercept."""
        return self._seen(np.ones(1) if self.single else self.slopes, np.zeros(len(self.slopes)))

    def partial(self, j: int) -> pd.DataFrame:
        """Itt less the other mediators' part against the compliance of mediator j; without a plane plain itt."""
        one = np.eye(len(self.slopes))[j]
        return self._seen(one, np.where(one > 0, 0.0, self.slopes) if self.exists else 0.0 * one)

    def _seen(self, across: Array, less: Array) -> pd.DataFrame:
        both = np.stack([np.concatenate([[0.0], across]), np.concatenate([[1.0], -less])])
        values, cov = self.rows.values @ both.T, np.einsum("ra,kab,sb->krs", both, self.rows.cov, both)
        variance = np.einsum("krr->kr", cov)
        se = np.sqrt(np.where(variance >= 0, variance, np.nan))
        effects, (site, arm) = self.effects, np.nonzero(estimated(self.effects))
        columns: dict[str, Any] = {"site": [effects.sites[s] for s in site]}
        if len(effects.contrasts) > 1:
            columns["arm"] = [effects.contrasts[d] for d in arm]
        columns |= {"x": values[:, 0], "y": values[:, 1], "x_se": se[:, 0], "y_se": se[:, 1]}
        return pd.DataFrame(columns | {"covariance": cov[:, 0, 1]})


def _matching(found: SurfaceTest, effects: SiteEffects) -> SiteRows:
    rows = site_rows(effects)
    same = effects.mediators == found.mediators and len(rows.values) == len(found.sites)
    if not (same and np.array_equal(rows.values[:, 0], found.sites["itt"].to_numpy())):
        raise DataError(
            f"These site effects are not those of the test: {count(len(rows.values), 'row')} with mediators "
            f"{effects.mediators}, the test has {len(found.sites)} with {found.mediators}."
        )
    return rows


def ellipses(axes: Axes, frame: pd.DataFrame) -> Array:
    """Draw ellipses of one standard error, unless there are too many rows; (n, 4) how far they reach."""
    from matplotlib.collections import PolyCollection

    if len(frame) > DRAWN:
        return _none(frame)
    cov = np.empty((len(frame), 2, 2))
    cov[:, 0, 0], cov[:, 1, 1] = frame["x_se"] ** 2, frame["y_se"] ** 2
    cov[:, 0, 1] = cov[:, 1, 0] = frame["covariance"]
    known: Any = np.isfinite(cov).all(axis=(1, 2))
    values, vectors = np.linalg.eigh(np.where(known[:, None, None], cov, 0.0))
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    angle = np.linspace(0.0, 2.0 * np.pi, 49)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    rim = (root @ circle).transpose(0, 2, 1) + frame[["x", "y"]].to_numpy()[:, None, :]
    few = len(frame) <= _FILLED
    for ink, _, mine in _by_arm(frame):
        axes.add_collection(
            PolyCollection(
                list(rim[mine & known]), facecolors=INK[ink] if few else "none", edgecolors=INK[ink],
                linewidths=0.6, alpha=0.22 if few else 0.5 if len(frame) <= 60 else 0.3, zorder=2,
            ),
            autolim=False,
        )  # fmt: skip
    out: Array = np.concatenate([rim.min(axis=1), rim.max(axis=1)], axis=1)
    return out


def bars(axes: Axes, frame: pd.DataFrame) -> Array:
    """Draw 95% intervals of both effects, unless there are too many rows; (n, 4) how far they reach."""
    if len(frame) > DRAWN:
        return _none(frame)
    centre = frame[["x", "y"]].to_numpy()
    half = np.nan_to_num(Z95 * frame[["x_se", "y_se"]].to_numpy())
    axes.errorbar(
        frame["x"], frame["y"], xerr=half[:, 0], yerr=half[:, 1], fmt="none", ecolor=INK["bar"],
        elinewidth=0.6 if len(frame) <= 60 else 0.4, alpha=0.55 if len(frame) <= 60 else 0.35, zorder=2,
    )  # fmt: skip
    out: Array = np.concatenate([centre - half, centre + half], axis=1)
    return out


def points(axes: Axes, frame: pd.DataFrame, *, small: bool = False) -> None:
    """Points over lines at zero; marker and colour by arm."""
    axes.axhline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    axes.axvline(0.0, color=INK["zero"], linewidth=0.8, zorder=1)
    many = len(frame) > MANY
    size = 22.0 if len(frame) <= 40 else 12.0 if len(frame) <= DRAWN else 3.0 if many else 6.0
    for ink, marker, mine in _by_arm(frame):
        axes.scatter(
            frame["x"][mine], frame["y"][mine], size * (0.55 if small else 1.0), color=INK[ink], marker=marker,
            alpha=0.5 if many else 0.9, edgecolors="none" if len(frame) > DRAWN else "white", linewidths=0.5,
            zorder=3, rasterized=many,
        )  # fmt: skip


def _by_arm(frame: pd.DataFrame) -> list[tuple[str, str, Any]]:
    """Colour, marker and rows of each arm, in the order in which arms appear first."""
    if "arm" not in frame:
        return [(*ARMS[0], np.ones(len(frame), dtype=bool))]
    arms = list(dict.fromkeys(frame["arm"]))
    return [(*ARMS[i % len(ARMS)], (frame["arm"] == a).to_numpy()) for i, a in enumerate(arms)]


def arm_handles(frame: pd.DataFrame) -> list[Any]:
    """Legend entries of the arms; none where there is one."""
    from matplotlib.lines import Line2D

    if "arm" not in frame:
        return []
    return [
        Line2D([], [], linestyle="", marker=marker, color=INK[ink], markersize=5,
               label=f"arm {label(frame['arm'][mine].iloc[0], 18)}")
        for ink, marker, mine in _by_arm(frame)
    ]  # fmt: skip


def _none(frame: pd.DataFrame) -> Array:
    centre = frame[["x", "y"]].to_numpy()
    out: Array = np.concatenate([centre, centre], axis=1)
    return out


def reach(inner: Array, outer: Array) -> tuple[float, float]:
    """Limits that hold all of ``inner``, and ``outer`` as far as it does not dwarf that."""
    inner, outer = inner[np.isfinite(inner)], outer[np.isfinite(outer)]
    span = span_of(inner)
    far = (ROOM if len(inner) > _FILLED else _ROOM_FEW) * span
    low = max(min(outer.min(initial=np.inf), inner.min()), inner.min() - far)
    high = min(max(outer.max(initial=-np.inf), inner.max()), inner.max() + far)
    margin = 0.05 * max(high - low, 0.2 * span)
    return float(low - margin), float(high + margin)


def span_of(values: Array) -> float:
    """Range of the values; where they are all one, something to draw an axis with."""
    return float(np.ptp(values)) or 0.2 * float(np.abs(values).max()) or 1.0


def unit_words(plane: Plane) -> str:
    """What a point is."""
    return "site and arm" if len(plane.effects.contrasts) > 1 else "site"


def result_words(found: SurfaceTest, what: str) -> str:
    """Result of the test, what it could have found, and its power, in sentences; the reason where there is none."""
    if isinstance(found.test, NotApplicable):
        said = [f"There is no test: {one_line(found.test.reason)}."]
    else:
        said = [
            f"Against {found.draws:,} simulated trials in which the null holds: {p_words(found.test.pvalue)}."
        ]
    if np.isfinite(found.detectable):
        said.append(f"{what} of {number(found.detectable, 3)} would be found with 80% power.")
    elif np.isfinite(found.power) and found.kind == "origin":  # sizes of a bend are not tried
        said.append("No size that was tried would be found with 80% power.")
    if np.isfinite(found.power):
        said.append(f"The power against {one_line(found.violation)} is {found.power:.2f}.")
    if found.zero_covariance_assumed:
        said.append(
            "The covariance of the two errors was not given and counts as zero; all corrections rest on it."
        )
    return " ".join(said)
