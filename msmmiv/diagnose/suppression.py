"""What leaving out small cells does to the estimates, for the agency that holds them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import MsmmivError, OneArmSiteWarning, count, listing
from msmmiv.estimate import fit, fit_by_rule
from msmmiv.inference.covariance import CovType
from msmmiv.inference.results import Estimate
from msmmiv.moments.cells import Moments
from msmmiv.moments.small_cells import floor_for
from msmmiv.notebook import card, frame_table

__all__ = ["FitChange", "SuppressionEffect", "suppression_effect"]


@dataclass(frozen=True)
class FitChange:
    """One coefficient with all cells and with those that are left; NaN where there is no estimate.

    ``why`` says why there is none; ``method`` and ``method_left`` differ where the rule chooses another estimator.
    """

    term: str
    method: str
    estimate: float
    std_error: float
    method_left: str
    estimate_left: float
    std_error_left: float
    why: str

    @property
    def change_in_se(self) -> float:
        """The change of the estimate in standard errors of the one with all cells."""
        return (self.estimate_left - self.estimate) / self.std_error


@dataclass(frozen=True)
class SuppressionEffect:
    """What a floor on the size of cells takes away and what it does to the estimates; ``str`` gives the page.

    It compares numbers with and without the suppressed rows, so it tells about them: it stays in the house.

    Attributes
    ----------
    min_cell : int
    cells, rows : int
        Cells and rows left out.
    cells_left, rows_left : int
    sites_lost : tuple of labels
        Sites in which the treatment varies before and not after.
    sites_left : int
        Sites in which it still varies.
    changes : tuple of FitChange
        The estimate that the rule chooses, then 2SLS.
    """

    min_cell: int
    cells: int
    rows: int
    cells_left: int
    rows_left: int
    sites_lost: tuple[Label, ...]
    sites_left: int
    changes: tuple[FitChange, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row per method and term, with all cells and with those that are left."""
        rows = [vars(c) | {"change_in_se": c.change_in_se} for c in self.changes]
        names = [f for f in FitChange.__dataclass_fields__ if f != "why"]
        return pd.DataFrame(rows, columns=[*names, "change_in_se", "why"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        out = {k: v for k, v in vars(self).items() if k != "changes"}
        return out | {"changes": self.to_frame().to_dict("records")}

    def sentence(self) -> str:
        """What is left out, in one sentence."""
        few = count(self.min_cell, "row")
        if not self.cells:
            return f"No cell has fewer than {few}: nothing is left out."
        lost = f"{count(len(self.sites_lost), 'site is', 'sites are')} lost with them ({listing(self.sites_lost)})"
        all_sites = self.sites_left + len(self.sites_lost)
        sites = (
            f"{lost}, {self.sites_left:,} of {all_sites:,} are left" if self.sites_lost else "no site is lost"
        )
        return (
            f"Left out: {self.cells:,} of {count(self.cells + self.cells_left, 'cell')}, those of fewer than {few}, "
            f"with {self.rows:,} of {count(self.rows + self.rows_left, 'row')}; {sites}."
        )

    def __str__(self) -> str:
        if not self.cells:
            return self.sentence()
        head = f"{'':<33}{'all cells':>18}{'cells that are left':>22}{'change':>11}"
        lines = [self.sentence(), "", head]
        for c in self.changes:
            method = c.method if c.method == c.method_left or c.why else f"{c.method}, then {c.method_left}"
            numbers = [
                f"{v:.4g} ({s:.3g})"
                for v, s in ((c.estimate, c.std_error), (c.estimate_left, c.std_error_left))
            ]
            change = f"{c.change_in_se:+.2f} se"
            if c.why:
                numbers[1], change = "none", ""
            lines.append(
                f"{c.term[:14]:<14} {method:<18}{numbers[0]:>18}{numbers[1]:>22}{change:>11}".rstrip()
            )
        lines += [
            f"No estimate is left: {why}" for why in dict.fromkeys(c.why for c in self.changes if c.why)
        ]
        return "\n".join(
            [*lines, "", "This compares rows that leave the house with rows that do not: keep it inside."]
        )

    def _repr_html_(self) -> str:
        notes = ["This compares rows that leave the house with rows that do not: keep it inside."]
        table = frame_table(self.to_frame(), what="coefficients") if self.changes else ""
        return card("Suppression of small cells", escape(self.sentence()), table, notes=notes)


def suppression_effect(moments: Moments, *, min_cell: int) -> SuppressionEffect:
    """What ``Moments.save(min_cell=..., small_cells="suppress")`` would leave out, and how estimates change by it.

    Use it before a file leaves the house: a suppressed cell can take a whole site with it. Both the estimate that the
    rule chooses and 2SLS are computed with all cells and with those that are left.

    Parameters
    ----------
    moments : Moments
        With all their cells.
    min_cell : int
        Smallest number of rows a cell may have; raised with analytic and probability weights, see `Moments.save`.

    Raises
    ------
    DataError
        ``min_cell`` is not a size, or every cell is smaller; frequency weights, with which no floor can be kept.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effect = mm.suppression_effect(mm.data.star(), min_cell=12)
    >>> effect.cells, effect.rows, effect.sites_lost
    (10, 102, (169219, 189382, 203457))
    >>> effect.to_frame()[["method", "method_left", "change_in_se"]].round(2).values.tolist()
    [['ujive', 'ujive', -0.61], ['2sls', '2sls', -0.66]]
    """
    floor, kept = floor_for(moments.design, min_cell), moments.suppress(min_cell)
    before = {s for s, good in zip(moments.sites, moments.treated_sites(), strict=True) if good}
    after = {s for s, good in zip(kept.sites, kept.treated_sites(), strict=True) if good}
    lost = tuple(s for s in moments.sites if s in before - after)
    changes: list[FitChange] = []
    if kept is not moments:
        for new in (_changes(fit_by_rule, moments, kept), _two_stage(moments, kept)):
            changes += [c for c in new if c not in changes]
    return SuppressionEffect(
        min_cell=floor, cells=moments.n_cells - kept.n_cells,
        rows=round(float(moments.n.sum() - kept.n.sum())), cells_left=kept.n_cells,
        rows_left=round(float(kept.n.sum())), sites_lost=lost, sites_left=len(after), changes=tuple(changes),
    )  # fmt: skip


def _two_stage(moments: Moments, kept: Moments) -> list[FitChange]:
    """2SLS with the first covariance that both have: HC1 may need rows, that over sites more sites than are left."""
    kinds: tuple[CovType | None, ...] = (None, "site", "classical")
    tried = [_changes(partial(fit, estimator="2sls", cov_type=kind), moments, kept) for kind in kinds]
    return next((new for new in tried if not any(c.why for c in new)), tried[0])


def _changes(how: Callable[[Moments], Estimate], moments: Moments, kept: Moments) -> list[FitChange]:
    (one, why_not), (other, why) = _tried(how, moments), _tried(how, kept)
    if one is None:
        return [
            FitChange(m, "", np.nan, np.nan, "", np.nan, np.nan, why_not) for m in moments.design.mediators
        ]
    out = []
    for term in one.terms:
        left = (
            (np.nan, np.nan) if other is None else (float(other.params[term]), float(other.std_errors[term]))
        )
        method = "" if other is None else other.method
        out.append(
            FitChange(
                term, one.method, float(one.params[term]), float(one.std_errors[term]), method, *left, why
            )
        )
    return out


def _tried(how: Callable[[Moments], Estimate], moments: Moments) -> tuple[Estimate | None, str]:
    """An estimate, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OneArmSiteWarning)
            got = how(moments.usable())
    except MsmmivError as error:
        return None, str(error)
    return (got, "") if got.status is None else (None, str(got.status))
