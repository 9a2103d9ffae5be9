"""What the numbers say and what they do not, in sentences: the same ones in the report and on the terminal."""

from __future__ import annotations

from msmmiv.diagnose.rank import RankReport
from msmmiv.errors import listing
from msmmiv.inference.results import Estimate
from msmmiv.show.analysis import Analysis
from msmmiv.show.words import fit_label, number, one_line, p_words, unit_words

__all__ = [
    "OVERIDENTIFICATION",
    "WU_HAUSMAN",
    "answers",
    "direct_effect_reading",
    "estimand",
    "limits",
    "rests_on",
]

OVERIDENTIFICATION = (
    "The over-identification tests ask whether all sites agree on one set of mediator effects. A rejection says that "
    "at least one of these fails: exclusion (ii), linearity (iii, iv), ignorable assignment (vi), unrelated "
    "compliance and effects of people within sites (vii), or effects that are the same in every site, which the "
    "estimand does not even need. It does not say which. It is not a test of (ix), and no rejection is no evidence "
    "for exclusion: a violation in proportion to compliance leaves no trace."
)
WU_HAUSMAN = (
    "The Wu-Hausman tests ask whether least squares and two-stage least squares differ by more than chance. A "
    "rejection says that the mediators are related to other causes of the outcome inside sites, or that an assumption "
    "of the instruments fails; no rejection does not license least squares."
)


def limits(fit: Estimate) -> tuple[str, ...]:
    """What the analysis does not claim.

    Examples
    --------
    >>> import msmmiv as mm
    >>> limits(mm.fit(mm.data.star()))[0]
    'It does not establish that the treatment acts only through these mediators: exclusion is assumed.'
    """
    first = (
        "Leaving the direct effect free does not dispense with exclusion; it trades it for another assumption."
        if fit.direct_effect
        else "It does not establish that the treatment acts only through these mediators: exclusion is assumed."
    )
    return (
        first,
        "It does not establish any of the nine assumptions. Tests can contradict some of them and confirm none.",
        "It says nothing about sites unlike these, or about mediators changed far beyond what the treatment did.",
        "Its standard errors suppose strong instruments; where the rank section finds weakness they are too small.",
        "The effects of single sites are noisy. Their order is not a league table.",
    )


def estimand(fit: Estimate) -> str:
    """The estimand of a fit as a sentence."""
    text = one_line(fit.estimand)
    return f"{text[0].upper()}{text[1:]}."


def answers(fit: Estimate) -> tuple[str, ...]:
    """One sentence per mediator, and one that counts the data.

    Examples
    --------
    >>> import msmmiv as mm
    >>> for line in answers(mm.fit(mm.data.star())):
    ...     print(line)
    If the assumptions hold, one unit more of class_size changes math by -1.114 on average across sites
    (95% interval -1.649 to -0.5781, p < 0.001).
    From 79 sites, 5,871 rows, 325 clusters; 2SLS, cluster (CR1S) covariance.
    """
    tidy = {row["term"]: row for row in fit.tidy().to_dict("records")}
    who = "among compliers" if fit.design.estimand == "late" else "on average across sites"
    lines = []
    for name in fit.design.mediators:
        low, high, p = (float(tidy[name][c]) for c in ("conf_low", "conf_high", "p_value"))
        unsettled = (
            " The interval includes zero: these data do not settle the sign." if low <= 0 <= high else ""
        )
        lines.append(
            f"If the assumptions hold, one unit more of {one_line(name)} changes {one_line(fit.design.outcome)} by "
            f"{number(tidy[name]['estimate'])} {who} (95% interval {number(low)} to {number(high)}, "
            f"{p_words(p)}).{unsettled}"
        )
    kind = fit.cov_type + (f" ({fit.small_sample})" if fit.small_sample else "")
    return (*lines, f"From {unit_words(fit)}; {fit_label(fit).split(',')[0]}, {kind} covariance.")


def rests_on(fit: Estimate) -> str:
    """The assumptions that carry the headline, in one sentence."""
    first = (
        "on direct effects that are unrelated to compliance across sites (the direct effect is free, so exclusion "
        "(ii) is not assumed)"
        if fit.direct_effect
        else "on exclusion (ii): the treatment moves the outcome through "
        f"{listing([one_line(m) for m in fit.design.mediators])} and in no other way"
    )
    return (
        f"The answer rests above all {first}; on random assignment inside sites (vi); and on effects that are not "
        "larger or smaller where the treatment moves the mediators more (ix). The data cannot confirm these; read the "
        "assumption list before using the number."
    )


def weakness(report: RankReport) -> str:
    """A warning when the weakest first-stage F is below ten, else nothing.

    Examples
    --------
    >>> import msmmiv as mm
    >>> weakness(mm.rank(mm.data.star()))
    ''
    >>> weakness(mm.rank(mm.data.star("math_two_mediators")))[:60]
    'Weak instruments: in the weakest direction the first-stage F'
    """
    found = report.cluster_level if isinstance(report.cluster_level, float) else report.cragg_donald
    if not isinstance(found, float):  # no F, as with probability weights: what the singular values say
        found = float(report.singular_values[-1] ** 2 / report.n_instruments)
    if found >= 10.0:
        return ""
    return (
        f"Weak instruments: in the weakest direction the first-stage F is {number(found, 2)} (see Rank). There the "
        "estimates lean towards least squares and the intervals are too short."
    )


def _pair(analysis: Analysis) -> tuple[Estimate, Estimate] | None:
    """2SLS with exclusion and with a free direct effect, both with the headline's covariance."""
    same = [f for f in analysis.fits if f.method == "2sls" and f.cov_type == analysis.headline.cov_type]
    without = next((f for f in same if not f.direct_effect), None)
    free = next((f for f in same if f.direct_effect), None)
    return None if without is None or free is None else (without, free)


def direct_effect_reading(analysis: Analysis) -> str:
    """What freeing the direct effect does to the coefficients, and how to take it.

    Examples
    --------
    >>> import msmmiv as mm
    >>> text = direct_effect_reading(mm.Study(mm.data.star()).analysis())
    >>> text[:94]
    'With the direct effect free instead of zero, the coefficient of class_size goes from -1.114 to'
    """
    pair = _pair(analysis)
    if pair is None:
        return "The comparison with and without a direct effect could not be made with these sites."
    without, free = pair
    ends = {row["term"]: row for row in free.tidy().to_dict("records")}
    parts = []
    for name in analysis.headline.design.mediators:
        low, high = (float(ends[name][c]) for c in ("conf_low", "conf_high"))
        ratio = float(free.std_errors[name] / without.std_errors[name])
        parts.append(
            f"the coefficient of {one_line(name)} goes from {number(float(without.params[name]))} to "
            f"{number(float(free.params[name]))} (95% interval {number(low)} to {number(high)}; standard error "
            f"{number(ratio, 2)} times as large)"
        )
    start = len(free.design.mediators)
    away = []
    for term in free.terms[start : len(free.terms) - _n_covariates(free)]:
        low, high = (float(ends[term][c]) for c in ("conf_low", "conf_high"))
        if low > 0 or high < 0:
            away.append(term)
        parts.append(
            f"{one_line(term)} is estimated at {number(float(free.params[term]))} ({number(low)} to {number(high)})"
        )
    text = f"With the direct effect free instead of zero, {listing(parts)}. "
    if away:
        return text + (
            "An interval of a direct effect that excludes zero speaks against exclusion, or against linearity or "
            "independence of compliance and effects, under which the two fits would agree."
        )
    return text + (
        "The interval of the direct effect includes zero; that is not evidence for exclusion, since it includes all "
        "the other values too. The free fit uses only the variation of compliance around its mean, so it is "
        "usually the less precise one."
    )


def _n_covariates(fit: Estimate) -> int:
    return sum(term in fit.design.covariates for term in fit.terms)
