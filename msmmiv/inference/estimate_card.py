"""An estimate as a notebook shows it: the coefficients with their sets first, then what they rest on."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import DataError, count
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.stage import FirstStage
from msmmiv.notebook import card, label, number, p_value, prose, table

__all__ = ["estimate_card", "set_text"]

_TERMS = 20


class _Fitted(Protocol):
    """What the card reads."""

    @property
    def method(self) -> str: ...
    @property
    def terms(self) -> tuple[str, ...]: ...
    @property
    def design(self) -> Design: ...
    @property
    def cov_type(self) -> str: ...
    @property
    def small_sample(self) -> str | None: ...
    @property
    def interval(self) -> Any: ...
    @property
    def direct_effect(self) -> bool: ...
    @property
    def nobs(self) -> int: ...
    @property
    def n_sites(self) -> int: ...
    @property
    def n_instruments(self) -> int: ...
    @property
    def n_clusters(self) -> int | None: ...
    @property
    def status(self) -> str | None: ...
    @property
    def estimand(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def first_stage(self) -> tuple[FirstStage, ...]: ...

    def tidy(self, level: float = 0.95) -> pd.DataFrame: ...

    def confidence_set(self, term: str, level: float = 0.95) -> ConfidenceSet: ...


def set_text(found: ConfidenceSet | None) -> str:
    """A set in a few words.

    Examples
    --------
    >>> inf = float("inf")
    >>> [set_text(ConfidenceSet(p)) for p in (((1, 2),), ((-inf, 1), (3, inf)), ((-inf, inf),), ())]
    ['1 to 2', '1 or less, or 3 or more', 'any value (not bounded)', 'empty']
    """
    if found is None:
        return "none"
    if found.is_empty or found.is_whole_line:
        return "empty" if found.is_empty else "any value (not bounded)"
    return ", or ".join(_piece(*ends) for ends in found.intervals)


def _piece(low: float, high: float) -> str:
    if not np.isfinite(low):
        return f"{number(high)} or less"
    return f"{number(low)} or more" if not np.isfinite(high) else f"{number(low)} to {number(high)}"


def estimate_card(fit: _Fitted) -> str:
    """The HTML of `Estimate` in a notebook."""
    design, mediators = fit.design, len(fit.design.mediators)
    terms = list(fit.terms[: max(_TERMS, mediators)])
    sets = {term: set_text(_set(fit, term)) for term in terms}
    frame = fit.tidy().head(len(terms))
    rows = [
        [label(t), number(b), number(se), p_value(p), sets[t]]
        for t, b, se, p in frame[["term", "estimate", "std_error", "p_value"]].itertuples(
            index=False, name=None
        )
    ]
    lead = "; ".join(
        f"{label(t)}: {number(float(b))}, 95% set {sets[t]}"
        for t, b in zip(frame["term"].head(min(3, mediators)), frame["estimate"], strict=False)
    )
    columns = ["term", "estimate", "std. error", "p", "95% set"]
    cut = (
        f'<p class="dim">… {len(fit.terms) - len(terms):,} more terms</p>' if fit.terms[len(terms) :] else ""
    )
    return card(
        lead,
        f"No point estimate: {prose(fit.status)}." if fit.status else "",
        f"{label(fit.method)} of {label(design.outcome)}, {_rests_on(fit)}.",
        table(columns, rows, numbers=[1, 2, 3]) + cut,
        f"Estimand: {prose(fit.estimand)}",
        notes=[
            f"Standard errors: {fit.target}",
            f"Chosen by rule: {fit.rule}" if fit.rule else "",
            *fit.notes[:5],
        ],
    )


def _set(fit: _Fitted, term: str) -> ConfidenceSet | None:
    try:
        return fit.confidence_set(term)
    except DataError:  # a Wald interval without an estimate or without a standard error
        return None


def _rests_on(fit: _Fitted) -> str:
    """Sample, covariance and strength in a line."""
    cov = fit.cov_type + (f" {fit.small_sample}" if fit.small_sample else "")
    words = [count(fit.nobs, "row"), count(fit.n_sites, "site"), count(fit.n_instruments, "instrument")]
    words += [count(fit.n_clusters, "cluster")] if fit.n_clusters and fit.cov_type != "site" else []
    words.append(f"{cov} {'scores' if fit.interval == 'score' else 'covariance'}")
    words.append(f"direct effect {'free' if fit.direct_effect else 'fixed at zero'}")
    # Where people share clusters the classical F overstates the strength; the notes then say what counts.
    strength = [] if fit.design.cluster else [f.f_classical.stat for f in fit.first_stage]
    if strength and np.isfinite(min(strength)):
        words.append(f"{'smallest ' if len(strength) > 1 else ''}first-stage F {number(min(strength))}")
    return ", ".join(map(label, words))
