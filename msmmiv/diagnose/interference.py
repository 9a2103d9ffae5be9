"""A hint on assumption (i): whether controls do better or worse where more people around them are treated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.diagnose.evidence import Evidence
from msmmiv.inference.meta import meta_regression
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.linalg import Array, Codes, group_sum
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["ControlMeans", "control_means"]

_NAME = "control means and the share treated"
_COLUMNS = ["variable", "slope", "std_error", "pvalue", "sites", "note"]


@dataclass(frozen=True, eq=False)
class ControlMeans:
    """Control-arm means against the share treated, across sites.

    Attributes
    ----------
    table : DataFrame
        One row per variable (outcome, then mediators): ``variable, slope, std_error, pvalue, sites, note``; the slope
        is per ten percentage points more treated.
    sites : DataFrame
        One row per site: ``site, share_treated`` and the control mean of each variable.
    note : str
        Why there is no table.
    """

    table: pd.DataFrame
    sites: pd.DataFrame
    note: str

    def to_frame(self) -> pd.DataFrame:
        """``table``."""
        return self.table

    def evidence(self) -> tuple[Evidence, ...]:
        """One check, context."""
        check = "independence.share_treated_on_control_means"
        known = self.table[self.table["pvalue"].notna()] if len(self.table) else self.table
        if known.empty:
            return (Evidence(check, NotApplicable(_NAME, self.note or "no mean has a sampling variance")),)
        at = known.iloc[int(np.argmin(known["pvalue"].to_numpy()))]
        p = min(1.0, float(at["pvalue"]) * len(known))
        law = f"t({int(at['sites']) - 2}), Bonferroni over {len(known)} variables"
        test = TestStatistic(
            _NAME,
            "control means do not go with the share treated",
            float(at["slope"] / at["std_error"]),
            p,
            1,
            law=law,
        )
        reading = (
            f"Clearest: {at['variable']}: {at['slope']:+.3g} (se {at['std_error']:.2g}) for ten points more treated. "
            "Spill-over does this, and so does anything that made sites treat more: a hint and no more, unless the "
            "share treated was itself randomised."
        )
        return (Evidence(check, test, "context", reading),)


def control_means(source: Moments | SiteEffects) -> ControlMeans:
    """Regress control-arm means on the share treated across sites.

    A relation is a hint at spill-over or at rival explanations; the absence of one says little.

    Parameters
    ----------
    source : Moments or SiteEffects
        Site effects hold no control means, and give a note.

    Returns
    -------
    ControlMeans

    Notes
    -----
    Random-effects meta-regression with variances S0 / n0 (Paule-Mandel, Knapp-Hartung t). Where people come in clusters
    these variances are too small; the variance between sites makes up for it.

    Examples
    --------
    >>> import msmmiv as mm
    >>> found = control_means(mm.data.star()).table
    >>> list(found["variable"]), found["pvalue"].round(2).tolist()
    (['math', 'class_size'], [0.64, 0.11])
    """
    none = pd.DataFrame(columns=_COLUMNS)
    if not isinstance(source, Moments):
        return ControlMeans(none, pd.DataFrame(), "site effects do not hold control means: give the moments")
    if not source.arms:
        return ControlMeans(none, pd.DataFrame(), "the treatment has doses, not arms")
    weight, k = source.first.weight, source.n_sites
    share = group_sum(weight * (source.arm > 0), source.site, k) / group_sum(weight, source.site, k)
    here = source.arm == 0
    names = [source.design.outcome, *source.design.mediators]
    at = np.flatnonzero(here)
    merged = source.first.take(at).merged(*_codes(source.site[at]))
    sites = np.unique(source.site[at])
    n = np.bincount(source.site[at], source.n[at], k)[sites]
    x = share[sites]
    frame = pd.DataFrame({"site": [source.sites[s] for s in sites], "share_treated": x})
    rows = []
    for j, name in enumerate(names):
        frame[name] = merged.mean[:, j]
        with np.errstate(divide="ignore", invalid="ignore"):
            v = merged.scatter[:, j, j] / merged.weight / (n - 1.0)
        good = np.isfinite(v) & (v > 1e-12 * np.nanmax(v, initial=0.0)) & (x > 0) & (x < 1)
        rows.append((name, *_regression(merged.mean[good, j], v[good], x[good])))
    return ControlMeans(pd.DataFrame(rows, columns=_COLUMNS), frame, rows[0][-1])


def _codes(site: Codes) -> tuple[Codes, int]:
    found, code = np.unique(site, return_inverse=True)
    return code.astype(np.int64), len(found)


def _regression(y: Array, v: Array, x: Array) -> tuple[float, float, float, int, str]:
    nan, k = float("nan"), len(y)
    if k < 4:
        return nan, nan, nan, k, "too few sites: fewer than four have a variance among controls"
    if np.ptp(x) <= 1e-10:
        return nan, nan, nan, k, "the share treated is the same in all sites"
    z = 10.0 * (x - x.mean())
    fit = meta_regression(y, v=v, x=np.column_stack([np.ones(k), z]), tau2="PM", test="knapp-hartung")
    return float(fit.coefficients[1]), float(fit.std_errors[1]), float(fit.pvalues[1]), k, ""
