"""Words of a decomposition: names of its estimators and of what was averaged, for figures, tables and pages."""

from __future__ import annotations

import math

from msmmiv.errors import count, listing
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.show.sets import set_words
from msmmiv.show.words import number, one_line, p_words

__all__ = ["answers", "level_words", "method_words", "no_estimate", "row_words", "shape_words", "short_set"]

_METHODS = {
    "ols": "OLS", "meta_regression": "meta-regression", "lambda_corrected": "lambda-corrected", "bces": "BCES",
    "simex": "SIMEX", "corrected": "corrected normal equations", "adjusted_debiased": "adjusted debiased",
    "eb_score": "empirical-Bayes score", "reml": "structural REML", "bayes": "structural Bayes",
}  # fmt: skip


def method_words(name: str) -> str:
    """An estimator of the between-site regression as it is written, its options after it.

    Examples
    --------
    >>> method_words("reml"), method_words("bces(fu)"), method_words("mine")
    ('structural REML', 'BCES (fu)', 'mine')
    """
    base, bracket, options = name.partition("(")
    words = _METHODS.get(base, base.replace("_", " "))
    return f"{words} ({options}" if bracket else words


def level_words(level: float) -> str:
    """A confidence level in percent.

    Examples
    --------
    >>> level_words(0.95), level_words(0.999)
    ('95%', '99.9%')
    """
    return f"{100.0 * level:.4g}%"


def row_words(rows: BetweenRows) -> str:
    """What a row is: a site, or an arm of one.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> row_words(between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")))
    'site'
    """
    if rows.cross is not None:
        return "site and arm"
    return "arm" if rows.common.any() else "site"


def no_estimate(found: Decomposition) -> str:
    """Why there is no point estimate, as a sentence; empty where there is one."""
    return f"There is no point estimate: {found.status}." if found.status else ""


def shape_words(found: Decomposition, mediator: str) -> str:
    """What it means that the set of a mediator's effect is not an interval; empty where it is one."""
    bounds = found.slope_sets[mediator]
    if bounds.is_empty:
        return "No value of the effect fits these rows: the model itself is in doubt."
    if bounds.is_whole_line:
        return "The data do not bound this effect: no slope is ruled out, not even a vertical one."
    if not bounds.is_bounded:
        return "The data do not bound this effect: the set goes on to a vertical line."
    return "" if bounds.is_connected else "The set has several pieces."


def short_set(bounds: ConfidenceSet) -> str:
    """A set for a legend: three digits, and no list of pieces.

    Examples
    --------
    >>> inf = float("inf")
    >>> for pieces in [((1.0, 2.0),), ((-inf, 1.0), (3.0, inf)), ((-inf, inf),), ((1, 2), (3, 4), (5, 6)), ()]:
    ...     print(short_set(ConfidenceSet(pieces)))
    1.00 to 2.00
    1.00 or less, 3.00 or more
    any value (not bounded)
    3 pieces
    empty
    """
    if bounds.is_whole_line or bounds.is_empty:
        return set_words(bounds)
    if len(bounds.intervals) > 2:
        return f"{len(bounds.intervals)} pieces" + ("" if bounds.is_bounded else ", not bounded")
    return ", ".join(
        f"{number(high, 3)} or less" if low == -math.inf
        else f"{number(low, 3)} or more" if high == math.inf else f"{number(low, 3)} to {number(high, 3)}"
        for low, high in bounds.intervals
    )  # fmt: skip


def answers(found: Decomposition) -> list[str]:
    """What was found, in sentences: the slope of every mediator, then the average effects.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> answers(decompose(mm.data.star()))[0]
    'One unit more of class_size changes math by -0.7003 (95% set: -4.416 to 3.357; p = 0.722).'
    """
    rows, percent = found.rows, level_words(found.level)
    p_values, lines = found.pvalues, []
    for mediator in rows.mediators:
        bounds, value = found.slope_sets[mediator], float(found.params[mediator])
        name, outcome = one_line(mediator), one_line(rows.outcome)
        p = f"; {p_words(float(p_values[mediator]))}" if found.by_default else ""
        if found.status:
            lines.append(f"What one unit more of {name} does to {outcome} has no point estimate ({percent} set: "
                         f"{set_words(bounds)}{p}).")  # fmt: skip
        else:
            lines.append(f"One unit more of {name} changes {outcome} by {number(value)} ({percent} set: "
                         f"{set_words(bounds)}{p}).")  # fmt: skip
        if shape := shape_words(found, mediator):
            lines.append(shape)
    told = [
        f"{row['effect']} {number(float(row['estimate']))} ({_ends(float(row['lower']), float(row['upper']))})"
        for row in found.effects.to_dict("records")
        if not str(row["effect"]).startswith("share")
    ]
    unit = (
        count(rows.n_rows, row_words(rows)) if row_words(rows) != "site and arm" else f"{rows.n_rows:,} rows"
    )
    lines.append(f"On average over these {unit}: {listing([one_line(t) for t in told])}.")
    if why := no_estimate(found):
        lines.append(why)
    return lines


def _ends(low: float, high: float) -> str:
    return "no interval" if math.isnan(low) else f"{number(low)} to {number(high)}"
