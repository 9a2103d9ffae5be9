"""The page of text of a decomposition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pandas as pd

from msmmiv.errors import count, listing
from msmmiv.estimate.between.direct_spread import DirectSpread
from msmmiv.estimate.between.interaction import READING
from msmmiv.estimate.between.reml import RandomEffects
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestResult

__all__ = ["page"]

_SIZE = 0.05


class _Decomposed(Protocol):
    """What the page reads."""

    @property
    def rows(self) -> BetweenRows: ...
    @property
    def fit(self) -> BetweenFit: ...
    @property
    def by_default(self) -> bool: ...
    @property
    def level(self) -> float: ...
    @property
    def individual(self) -> tuple[Estimate, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def cautions(self) -> tuple[str, ...]: ...
    @property
    def effects(self) -> pd.DataFrame: ...
    @property
    def slope_sets(self) -> Mapping[str, ConfidenceSet]: ...
    @property
    def direct_spread(self) -> DirectSpread: ...
    @property
    def tests(self) -> tuple[TestResult, ...]: ...
    @property
    def interaction(self) -> TestResult: ...
    @property
    def sensitivity(self) -> pd.DataFrame: ...

    def tidy(self, level: float | None = None) -> pd.DataFrame: ...


def page(found: _Decomposed) -> str:
    """Coefficients, effects, heterogeneity, tests, readings and notes."""
    rows = found.rows
    free = "direct effect free" if rows.has_direct_effect else "no direct effect"
    lines = [
        f"Effect on {rows.outcome} through {listing(rows.mediators)}: {count(rows.n_rows, 'row')}, {free}",
        _how(found),
        "",
        *_coefficients(found),
        "",
        f"Average effects at these sites ({found.level:.0%} sets)",
        *_effects(found.effects),
        "",
        "Direct effects across rows",
        *(f"  {line}" for line in str(found.direct_spread).splitlines()),
    ]
    if isinstance(found.fit, RandomEffects):
        share = listing([f"{m} {r:.0%}" for m, r in zip(rows.mediators, found.fit.reliability, strict=True)])
        lines.append(f"  share of the variance of compliance that is not sampling error: {share}")
    lines += ["", "Tests of no effect of the mediator", *(f"  {t}" for t in found.tests)]
    if found.individual:
        lines += ["", "Individual-level estimators, treatment included", *_individual(found)]
    lines += ["", *_interaction(found.interaction), *_band(found)]
    notes = [*found.notes, *found.cautions, *found.fit.notes]
    return "\n".join([*lines, *(f"Note: {note}" for note in dict.fromkeys(notes))])


def _how(found: _Decomposed) -> str:
    if not found.by_default:
        return f"{found.fit.method}; sets of effects from the empirical-Bayes score"
    method = next(iter(found.slope_sets.values())).method
    return f"{found.fit.method}; sets from the {method}"


def _coefficients(found: _Decomposed) -> list[str]:
    names = ("estimate", "std_error", "p_value", "conf_low", "conf_high")
    lines = [f"{'':<20}" + "".join(f"{n:>12}" for n in names)]
    for row in found.tidy().to_dict("records"):
        term = str(row["term"])
        label = term if len(term) < 20 else term[:18] + "~"
        lines.append(f"{label:<20}" + "".join(f"{row[n]:>12.4g}" for n in names))
    if found.fit.status:
        lines.append(f"No point estimate: {found.fit.status}.")
    if found.by_default:
        odd = [s for s in found.slope_sets.values() if s.shape != "interval"]
        lines += [f"{s.level:.0%} set of {s.term}: {s}" for s in odd]
        outside = [
            s.term
            for s, b in zip(found.slope_sets.values(), found.fit.coefficients, strict=False)
            if np.isfinite(b) and float(b) not in s
        ]
        if outside:
            lines.append(
                f"The point estimate of {listing(outside)} lies outside its set: likelihood and score weigh rows "
                "differently, and one of the two fits these rows badly."
            )
    return lines


def _effects(frame: pd.DataFrame) -> list[str]:
    lines = []
    for row in frame.to_dict("records"):
        p = _p(row["p_value"])
        value = f"{row['estimate']:.4g}" if np.isfinite(row["estimate"]) else "none"
        why = f"  ({row['status']})" if row["status"] else ""
        lines.append(f"  {row['effect']:<28}{value:>10}  {row['set']}{p}{why}")
    return lines


def _p(value: float) -> str:
    if not np.isfinite(value):
        return ""
    return "  p < 1e-16" if value < 1e-16 else f"  p = {value:.3g}"


def _individual(found: _Decomposed) -> list[str]:
    lines = []
    for fit in found.individual:
        for row in fit.tidy(found.level).to_dict("records"):
            ends = f"[{row['conf_low']:.4g}, {row['conf_high']:.4g}]"
            lines.append(
                f"  {fit.method:<8}{row['term']:<20}{row['estimate']:>12.4g} (se {row['std_error']:.3g}) {ends}"
            )
    return lines


def _interaction(test: TestResult) -> list[str]:
    lines = [READING, f"  {test}"]
    if not isinstance(test, NotApplicable):
        lines.append(
            "  The data contradict it: read the indirect effect without interaction only."
            if test.pvalue < _SIZE
            else "  Not contradicted; with few sites the test sees little."
        )
    return lines


def _band(found: _Decomposed) -> list[str]:
    frame = found.sensitivity
    if frame.empty:
        return []
    lines = ["", "If itt and compliance have correlated sampling errors (unknown here, taken as zero)"]
    for term, part in frame.groupby("term", sort=False):
        low, high = part["estimate"].min(), part["estimate"].max()
        lines.append(
            f"  {term}: estimates from {low:.4g} to {high:.4g}, sets within [{part['lower'].min():.4g}, "
            f"{part['upper'].max():.4g}], over its correlations from -1 to 1"
        )
    return lines
