"""Why this headline, what stands beside it, and what robust sets, spread and single sites say: in sentences."""

from __future__ import annotations

import math

import numpy as np

from msmmiv.diagnose.heterogeneity import Heterogeneity
from msmmiv.errors import listing
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.show.analysis import Analysis
from msmmiv.show.sets import set_words, term_rows
from msmmiv.show.words import fit_label, method_words, number, one_line, p_words, short

__all__ = ["anderson_rubin", "beside", "chosen", "heterogeneity", "leave_one_out", "set_sentence"]

_PLAIN = {
    "2sls": "two-stage least squares, the usual method; it leans towards the plain association in the data where the "
    "treatment moves the mediators little",
    "ujive": "the usual method (two-stage least squares) with its lean towards the plain association in the data "
    "taken out",
    "liml": "limited-information maximum likelihood, which supposes one effect for all sites",
    "ols": "the plain association in the data, no causal estimate",
}


def chosen(fit: Estimate) -> str:
    """Who chose the headline's method and why.

    Examples
    --------
    >>> import msmmiv as mm
    >>> chosen(mm.Study(mm.data.star()).fit())[:84]
    'A fixed rule chose the method from the number of sites and from how far the treatmen'
    """
    plain = f": {_PLAIN[fit.method]}" if fit.method in _PLAIN else ""
    if not fit.rule:
        return f"The method was asked for by name, {fit_label(fit)}{plain}. No rule was applied."
    return (
        "A fixed rule chose the method from the number of sites and from how far the treatment moves the mediators, "
        f"without looking at the answer. It chose {method_words(fit)}{plain}. In the rule's words: "
        f"{one_line(fit.rule)}"
    )


def set_sentence(found: ConfidenceSet | None, name: str) -> str:
    """What a confidence set says about an effect; bounded intervals need no sentence.

    Examples
    --------
    >>> set_sentence(ConfidenceSet(((-float("inf"), float("inf")),)), "hours")
    'The data do not bound this effect: no value of the effect of hours is ruled out.'
    """
    if found is None:
        return f"There is no confidence set for the effect of {name} by this method."
    if found.is_empty:
        return (
            f"The 95% confidence set for the effect of {name} is empty: no value fits the data, so the model itself is "
            "contradicted."
        )
    if found.is_whole_line:
        return f"The data do not bound this effect: no value of the effect of {name} is ruled out."
    if not found.is_bounded:
        low, high = found.hull
        side = "on either side" if low == -math.inf and high == math.inf else "on one side"
        return (
            f"The data do not bound this effect: the 95% confidence set for {name} is {set_words(found)}. It is no "
            f"interval; it has no end {side}."
        )
    return f"The 95% confidence set for {name} has several pieces: {set_words(found)}."


def beside(analysis: Analysis) -> tuple[str, ...]:
    """2SLS beside a headline that is something else."""
    fit = analysis.two_stage
    if fit is analysis.headline:
        return ()
    parts = [
        f"{number(r.estimate)} for {one_line(r.term)} (95%: {set_words(r.found)})"
        for r in term_rows(fit)
        if r.term in fit.design.mediators
    ]
    return (f"Beside it, two-stage least squares with {fit.cov_type} errors gives {listing(parts)}.",)


def anderson_rubin(analysis: Analysis) -> tuple[str, ...]:
    """Robust Anderson-Rubin sets in words, one sentence per mediator, after what they are."""
    what = (
        "The Anderson-Rubin sets hold all effects that the site differences do not reject, however weakly the "
        "treatment moves the mediators. They suppose that an effect is the same in all sites; unequal variances and "
        "clusters are heeded."
    )
    lines = [what]
    for name, found in zip(analysis.effects.mediators, analysis.anderson_rubin, strict=True):
        label = one_line(name)
        if isinstance(found, NotApplicable):
            lines.append(f"{label}: not computed ({found.reason}).")
        elif found.is_empty:
            lines.append(
                f"{label}: empty. No single effect fits all sites: effects differ, or an assumption fails."
            )
        elif found.is_bounded and found.is_connected:
            lines.append(f"{label}: {set_words(found)} (95%).")
        else:
            lines.append(f"{label}: {set_sentence(found, label)}")
    return tuple(lines)


def heterogeneity(found: Heterogeneity | NotApplicable) -> tuple[str, ...]:
    """The test that one effect fits all sites, and what it says."""
    if isinstance(found, NotApplicable):
        return (f"How the effects differ between sites could not be estimated: {found.reason}.",)
    lines = []
    if isinstance(found.q, TestStatistic):
        lines.append(
            f"Q = {number(found.q.stat)} against {found.q.dist}, {p_words(found.q.pvalue)}; I² = {found.i2:.0%}."
            if np.isfinite(found.i2)
            else f"Q = {number(found.q.stat)} against {found.q.dist}, {p_words(found.q.pvalue)}."
        )
    lines.append(found.sentence)
    status = found.spread_status
    return tuple(dict.fromkeys([*lines, *([status] if status else []), *found.notes]))


def leave_one_out(analysis: Analysis) -> tuple[str, ...]:
    """How far one site can move the headline.

    Examples
    --------
    >>> import msmmiv as mm
    >>> leave_one_out(mm.Study(mm.data.star()).analysis())[0][:70]
    'Without one site at a time, the coefficient of class_size (-1.183) lie'
    """
    found = analysis.leave_one_out
    if isinstance(found, NotApplicable):
        return (f"Leaving out one site at a time was not done: {found.reason.rstrip('.')}.",)
    lines = []
    for name in analysis.effects.mediators:
        column = found[name]
        known = column.dropna()
        if known.empty:
            lines.append(f"Without any one site, the coefficient of {one_line(name)} is not determined.")
            continue
        low, high = known.idxmin(), known.idxmax()
        lines.append(
            f"Without one site at a time, the coefficient of {one_line(name)} "
            f"({number(float(analysis.headline.params[name]))}) lies between {number(float(known.min()))} (without "
            f"{short(low)}) and {number(float(known.max()))} (without {short(high)})."
        )
        if gone := int(column.isna().sum()):
            lines.append(f"In {gone} of {len(column):,} cases the other sites do not determine it.")
    return tuple(lines)
