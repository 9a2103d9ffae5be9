"""What the numbers say and what they do not, in sentences: the same ones in the report and on the terminal."""

from __future__ import annotations

from msmmiv.diagnose.rank import RankReport
from msmmiv.errors import listing
from msmmiv.inference.results import Estimate
from msmmiv.show.analysis import Analysis
from msmmiv.show.explain import set_sentence
from msmmiv.show.sets import set_words, term_rows, why
from msmmiv.show.words import fit_label, method_words, number, one_line, p_words, unit_words

__all__ = [
    "OVERIDENTIFICATION",
    "WU_HAUSMAN",
    "answers",
    "direct_effect_reading",
    "estimand",
    "limits",
    "rests_on",
]

#: First-stage statistic below which the reader is warned; no method is chosen by it.
WEAK = 10.0
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
    >>> limits(mm.fit(mm.data.star(), "2sls"))[0]
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
        _weak_words(fit),
        "The effects of single sites are noisy. Their order is not a league table.",
    )


def _weak_words(fit: Estimate) -> str:
    if fit.interval == "score":
        return (
            "Its confidence sets allow for weak instruments but are approximate, the more so with few sites."
        )
    return "Its standard errors suppose strong instruments; where the rank section finds weakness they are too small."


def estimand(fit: Estimate) -> str:
    """The estimand of a fit as a sentence."""
    text = one_line(fit.estimand)
    return f"{text[0].upper()}{text[1:]}."


def answers(fit: Estimate) -> tuple[str, ...]:
    """One sentence per mediator, and one that counts the data.

    Examples
    --------
    >>> import msmmiv as mm
    >>> for line in answers(mm.fit(mm.data.star(), "2sls")):
    ...     print(line)
    If the assumptions hold, one unit more of class_size changes math by -1.114 on average across sites
    (95% interval -1.649 to -0.5781, p < 0.001).
    From 79 sites, 5,871 rows, 325 clusters; 2SLS, cluster (CR1S) covariance.
    """
    rows = {row.term: row for row in term_rows(fit)}
    who = "among compliers" if fit.design.estimand == "late" else "on average across sites"
    lines = []
    for name in fit.design.mediators:
        row = rows[name]
        interval = row.found is not None and row.found.shape == "interval"
        limits = f" (95% interval {set_words(row.found)}, {p_words(row.p_value)})" if interval else ""
        unit = f"one unit more of {one_line(name)} changes {one_line(fit.design.outcome)}"
        said = (
            f"These data do not give one number for how much {unit}."
            if fit.status
            else f"If the assumptions hold, {unit} by {number(row.estimate)} {who}{limits}."
        )
        if not interval:
            said += f" {set_sentence(row.found, one_line(name))}"
        elif fit.status:
            said += f" The 95% confidence set is {set_words(row.found)}."
        if interval and row.found is not None and 0.0 in row.found:
            said += " The interval includes zero: these data do not settle the sign."
        lines.append(said)
    if fit.status:
        lines.append(f"Why there is no number: {why(fit)}.")
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


def weakness(report: RankReport, fit: Estimate) -> str:
    """A warning when the weakest first-stage F is below ten, else nothing.

    Examples
    --------
    >>> import msmmiv as mm
    >>> weakness(mm.rank(mm.data.star()), mm.fit(mm.data.star(), "2sls"))
    ''
    >>> weak = mm.data.star("math_two_mediators")
    >>> weakness(mm.rank(weak), mm.fit(weak, "2sls"))[:60]
    'Weak instruments: in the weakest direction the first-stage F'
    """
    found, what = _weakest(report)
    if not found < WEAK:  # none, or strong enough not to warn
        return ""
    lean = (
        "two-stage least squares leans towards least squares and its intervals are too short; the headline takes "
        "the lean out"
    )
    if fit.interval == "score":
        said = f"{lean}, and its confidence sets allow for the weakness."
    elif fit.rule and fit.method == "ujive":
        said = f"{lean}, and by the rule these instruments are strong enough for its interval."
    else:
        said = "estimates are unreliable: 2SLS leans towards least squares, and intervals are too short."
    where = f"in the weakest direction the {what} is {number(found, 2)} (see Rank)"
    return f"Weak instruments: {where}. There {said}"


def _weakest(report: RankReport) -> tuple[float, str]:
    """The statistic of the weakest direction, with clusters as rows where they are declared; NaN without any."""
    for value in (report.cluster_level, report.cragg_donald):
        if isinstance(value, float):
            return value, "first-stage F"
    if report.spectrum is None:
        return float("nan"), ""
    return float(report.spectrum.strength[-1]), "strength, of which noise gives 1,"


def _pair(analysis: Analysis) -> tuple[Estimate, Estimate] | None:
    """Exclusion and a free direct effect by one method: the headline's, or 2SLS where that has no estimate."""
    head = analysis.headline
    for method, cov_types in ((head.method, {head.cov_type}), ("2sls", {f.cov_type for f in analysis.fits})):
        for cov_type in sorted(cov_types):
            same = [
                f for f in analysis.fits if f.method == method and f.cov_type == cov_type and not f.status
            ]
            without = next((f for f in same if not f.direct_effect), None)
            free = next((f for f in same if f.direct_effect), None)
            if without is not None and free is not None:
                return without, free
    return None


def direct_effect_reading(analysis: Analysis) -> str:
    """What freeing the direct effect does to the coefficients, and how to take it.

    Examples
    --------
    >>> import msmmiv as mm
    >>> text = direct_effect_reading(mm.Study(mm.data.star()).analysis())
    >>> text[:94]
    'With the direct effect free instead of zero (UJIVE), the coefficient of class_size goes from -'
    """
    pair = _pair(analysis)
    if pair is None:
        return "The comparison with and without a direct effect could not be made with these sites."
    without, free = pair
    rows = {row.term: row for row in term_rows(free)}
    parts = []
    for name in analysis.headline.design.mediators:
        ratio = float(free.std_errors[name] / without.std_errors[name])
        parts.append(
            f"the coefficient of {one_line(name)} goes from {number(float(without.params[name]))} to "
            f"{number(float(free.params[name]))} (95%: {set_words(rows[name].found)}; standard error "
            f"{number(ratio, 2)} times as large)"
        )
    start = len(free.design.mediators)
    away = []
    for term in free.terms[start : len(free.terms) - _n_covariates(free)]:
        found = rows[term].found
        if found is not None and not found.is_empty and 0.0 not in found:
            away.append(term)
        parts.append(
            f"{one_line(term)} is estimated at {number(float(free.params[term]))} ({set_words(found)})"
        )
    text = f"With the direct effect free instead of zero ({method_words(free)}), {listing(parts)}. "
    if away:
        return text + (
            "A confidence set of a direct effect that excludes zero speaks against exclusion, or against linearity or "
            "independence of compliance and effects, under which the two fits would agree."
        )
    return text + (
        "The confidence set of the direct effect includes zero; that is not evidence for exclusion, since it includes "
        "all the other values too. The free fit uses only the variation of compliance around its mean, so it is "
        "usually the less precise one."
    )


def _n_covariates(fit: Estimate) -> int:
    return sum(term in fit.design.covariates for term in fit.terms)
