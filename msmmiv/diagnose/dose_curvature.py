"""Assumption (iii) from rows: whether a continuous treatment bends the mediators within sites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.diagnose.assignment import noncentrality
from msmmiv.diagnose.evidence import Evidence
from msmmiv.inference.tests import NotApplicable, TestResult, f_test
from msmmiv.linalg import Array, Codes, frozen, gram_pinv, group_sum
from msmmiv.moments.opening import open_rows
from msmmiv.moments.sums import Rows

__all__ = ["DoseCurvature", "dose_curvature"]

CHECK = "dose.curvature"
_NAME = "squared dose within sites"
#: Fewest effective sites less one, per mediator.
FEWEST_DF = 5.0


@dataclass(frozen=True, eq=False)
class DoseCurvature:
    """Coefficients of the squared treatment, each site (block) with a line of its own.

    Attributes
    ----------
    mediators : tuple of str
    curvature, std_error : (P,) arrays
        Mediator per unit of squared dose, with standard errors clustered by site.
    sites : int
        Sites in which the dose has three values or more.
    joint : TestStatistic or NotApplicable
    detectable : (P,) array
        Smallest curvature found with 80% power.
    """

    mediators: tuple[str, ...]
    curvature: Array
    std_error: Array
    sites: int
    joint: TestResult
    detectable: Array

    def to_frame(self) -> pd.DataFrame:
        """One row per mediator: curvature, std_error, detectable."""
        return pd.DataFrame(
            {
                "mediator": self.mediators, "curvature": self.curvature, "std_error": self.std_error,
                "detectable": self.detectable,
            }
        )  # fmt: skip

    def evidence(self) -> tuple[Evidence, ...]:
        """The joint test over mediators: context, a parabola being one bend among many."""
        if isinstance(self.joint, NotApplicable):
            return (Evidence(CHECK, self.joint),)
        found = [f"{m} {c:.3g}" for m, c in zip(self.mediators, self.curvature, strict=True)]
        seen = [f"{d:.3g} in {m}" for m, d in zip(self.mediators, self.detectable, strict=True)]
        reading = (
            f"Mediators per unit of squared dose: {', '.join(found)}. A parabola is one way to bend: a kink or a step "
            "may not show. A small p-value says that a line is wrong: declare ranges of the dose as arms."
        )
        return (
            Evidence(CHECK, self.joint, "context", reading,
                     f"A curvature of {' or '.join(seen)} would be found with 80% power."),
        )  # fmt: skip


def dose_curvature(data: Any, design: Design) -> DoseCurvature:
    """Regress every mediator on the dose and its square within sites, each site with its own line.

    Use it for a continuous treatment, of which moments know nothing beyond a line. Sites with different average
    slopes and different ranges of the dose do not count as curvature.

    Parameters
    ----------
    data : DataFrame, path or Rows
        What `Moments.from_data` reads; incomplete rows are left out.
    design : Design
        Covariates are not used: the dose is randomised.

    Notes
    -----
    With r the square of the dose less its projection on (1, dose) in the site (block), B_s = sum w r^2 and
    c_s = sum w r m, the curvature is sum c_s / sum B_s; its variance adds up squares of
    (c_s - B_s curvature) / sqrt(1 - B_s / B) over sites. F has (sum B)^2 / sum B^2 - 1 denominator degrees of freedom,
    scaled like Hotelling's for several mediators.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"s": np.repeat(range(20), 30), "dose": rng.uniform(0, 4, 600), "y": rng.normal(size=600)})
    >>> df["m"] = np.sqrt(df["dose"]) + 0.3 * rng.normal(size=600)
    >>> d = mm.Design(outcome="y", treatment="dose", mediators="m", site="s", treatment_kind="continuous")
    >>> dose_curvature(df, d).joint.pvalue < 0.001
    True
    """
    rows = data if isinstance(data, Rows) else open_rows(data, design, missing="drop")
    frame = rows.collect()
    names = design.mediators
    dose = pd.to_numeric(frame[design.treatment], errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(dose).all():
        return _none(names, "the treatment's values are not numbers: no line is assumed")
    site = _codes(frame, [design.site])
    stratum = _codes(frame, [design.site, design.block]) if design.block else site
    weight = frame[design.weights].to_numpy(dtype=float) if design.weights else np.ones(len(frame))
    r = _bent(dose, weight, stratum)
    m = frame[list(names)].to_numpy(dtype=float)
    sites = int(site.max()) + 1
    own = group_sum(weight * r**2, site, sites)
    cross = group_sum((weight * r)[:, None] * m, site, sites)
    use = own > 1e-10 * max(float(own.max()), np.finfo(float).tiny)
    if not use.any():
        return _none(names, "in no site does the dose have three values: linear by construction")
    return _fitted(names, own[use], cross[use])


def _codes(frame: pd.DataFrame, keys: list[str]) -> Codes:
    return np.asarray(frame.groupby(keys, sort=False).ngroup(), dtype=np.int64)


def _bent(dose: Array, weight: Array, stratum: Codes) -> Array:
    """Squared dose less its weighted projection on (1, dose) in each stratum."""
    size = int(stratum.max()) + 1
    total = group_sum(weight, stratum, size)

    def centred(x: Array) -> Array:
        out: Array = x - (group_sum(weight * x, stratum, size) / total)[stratum]
        return out

    t = centred(dose)
    square = centred(t**2)
    run = group_sum(weight * t**2, stratum, size)
    slope = group_sum(weight * t * square, stratum, size) / np.where(run > 0, run, 1.0)
    r: Array = square - slope[stratum] * t
    # With two values in a stratum nothing but rounding is left.
    left, scale = group_sum(weight * r**2, stratum, size), group_sum(weight * t**4, stratum, size)
    return np.where((left > 1e-20 * scale)[stratum], r, 0.0)


def _fitted(names: tuple[str, ...], own: Array, cross: Array) -> DoseCurvature:
    total, p, k = float(own.sum()), len(names), len(own)
    curvature = cross.sum(axis=0) / total
    df = total**2 / float((own**2).sum()) - 1.0
    if df - p + 1.0 < FEWEST_DF * p:
        why = f"too few sites: {k} with three doses or more ({df + 1.0:.1f} of equal information)"
        return _none(names, why, curvature, k)
    left = (cross - own[:, None] * curvature) / np.sqrt(1.0 - own / total)[:, None]
    cov = left.T @ left / total**2
    error = np.sqrt(np.diag(cov))
    safe = np.where(error > 0, error, 1.0)
    inverse, rank = gram_pinv((cov / np.outer(safe, safe))[None])
    q = int(rank[0])
    if q == 0:
        return _none(names, "the mediators do not vary, or lie on lines", curvature, k)
    inner = inverse[0] / np.outer(safe, safe)
    denominator = df - q + 1.0
    stat = float(curvature @ inner @ curvature) / q * denominator / df
    test = f_test(_NAME, "mediators are linear in the dose within sites", stat, q, round(denominator, 1))
    diagonal = np.diag(inner)
    reach = noncentrality(q, denominator) / np.where(diagonal > 0, diagonal, np.nan)
    return DoseCurvature(names, frozen(curvature), frozen(error), k, test, frozen(np.sqrt(reach)))


def _none(names: tuple[str, ...], why: str, curvature: Array | None = None, sites: int = 0) -> DoseCurvature:
    empty = np.full(len(names), np.nan)
    return DoseCurvature(
        names,
        empty if curvature is None else frozen(curvature),
        empty,
        sites,
        NotApplicable(_NAME, why),
        empty,
    )
