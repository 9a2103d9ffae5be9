"""Confidence sets as people read them, and the terms of a fit with their sets: one source for every output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from msmmiv.errors import DataError
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.show.words import number

__all__ = ["TermRow", "set_words", "shape_of", "term_rows", "why"]

_KEPT: WeakKeyDictionary[Estimate, tuple[TermRow, ...]] = WeakKeyDictionary()


@dataclass(frozen=True)
class TermRow:
    """One coefficient: numbers that may be NaN, and the set of values that its test does not reject.

    Attributes
    ----------
    term : str
    estimate, std_error, statistic, p_value : float
    found : ConfidenceSet or None
        None where there is neither a point estimate nor a set.
    """

    term: str
    estimate: float
    std_error: float
    statistic: float
    p_value: float
    found: ConfidenceSet | None


def term_rows(fit: Estimate) -> tuple[TermRow, ...]:
    """The terms of a fit with 95% sets; kept, because inverting score tests takes time.

    Examples
    --------
    >>> import msmmiv as mm
    >>> row = term_rows(mm.Study(mm.data.star()).fit())[0]
    >>> round(row.estimate, 3), str(row.found)
    (-1.183, '[-1.815, -0.5578]')
    """
    if fit not in _KEPT:
        parts = zip(fit.terms, fit.params, fit.std_errors, fit.tstats, fit.pvalues, strict=True)
        _KEPT[fit] = tuple(
            TermRow(t, float(b), float(se), float(z), float(p), _set(fit, t)) for t, b, se, z, p in parts
        )
    return _KEPT[fit]


def _set(fit: Estimate, term: str) -> ConfidenceSet | None:
    try:
        return fit.confidence_set(term)
    except DataError:  # a Wald interval without an estimate or without a standard error
        return None


def why(fit: Estimate) -> str:
    """Why a fit has no point estimate, as one clause; empty when it has one.

    Examples
    --------
    >>> import msmmiv as mm
    >>> why(mm.fit(mm.data.star("math_two_mediators"), "ujive"))[:53]
    'the bias-corrected denominator is not positive defini'
    """
    return (fit.status or "").partition(". ")[0].rstrip(".")


def shape_of(found: ConfidenceSet | None) -> str:
    """The shape of a set; "none" where there is no set."""
    return "none" if found is None else found.shape


def set_words(found: ConfidenceSet | None) -> str:
    """A set in words, without brackets and infinities.

    Examples
    --------
    >>> inf = float("inf")
    >>> for pieces in [((1.0, 2.0),), ((-inf, 1.0), (3.0, inf)), ((-inf, inf),), ()]:
    ...     print(set_words(ConfidenceSet(pieces)))
    1.000 to 2.000
    1.000 or less, or 3.000 or more
    any value (not bounded)
    empty
    >>> set_words(None)
    'none'
    """
    if found is None or found.is_empty:
        return "none" if found is None else "empty"
    if found.is_whole_line:
        return "any value (not bounded)"
    return ", or ".join(_piece(low, high) for low, high in found.intervals)


def _piece(low: float, high: float) -> str:
    if math.isinf(low):
        return f"{number(high)} or less"
    return f"{number(low)} or more" if math.isinf(high) else f"{number(low)} to {number(high)}"
