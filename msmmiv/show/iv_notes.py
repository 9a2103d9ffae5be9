"""What stands below the instrumental-variables table, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from msmmiv.errors import count, listing
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.show.iv_parts import Parts, Wanted, columns_of, shared_tests
from msmmiv.show.sets import why
from msmmiv.show.words import method_words, one_line

__all__ = ["notes"]


def notes(parts: Parts, wanted: Wanted) -> Iterator[str]:
    """The sentences below a table: estimand, brackets, instruments, tests, sample, and reasons for what is absent."""
    fits, design = parts.fits, parts.fits[0].design
    home = next(
        (f for f in fits if f.method == "2sls"), next((f for f in fits if f.method != "ols"), fits[0])
    )
    yield f"Estimand of {method_words(home)}: {one_line(home.estimand)}."
    yield from _bracket_notes(parts)
    site = one_line(design.site)
    yield (
        f"First stages and reduced form regress on {one_line(design.treatment)} in each {site}, with an intercept for "
        f"each {one_line(design.block) if design.block else site}: one coefficient per instrument, not shown."
    )
    yield from _test_notes(parts)
    if design.covariates and not wanted.covariates:
        yield f"Adjusted for {one_line(listing(design.covariates))} (not shown)."
    yield _flow(home)
    for name, reason in parts.missing:
        yield f"{name}: not computed ({one_line(reason).rstrip('.')})."
    for j, c in enumerate(columns_of(parts), start=1):
        if c.fit is not None and c.fit.status is not None:
            yield f"({j}) {c.head}: no point estimate, because {one_line(why(c.fit))}."
    for name, test, _ in shared_tests(parts):
        if isinstance(test, NotApplicable):
            yield f"{name}: none ({one_line(test.reason).rstrip('.')})."
    for found in parts.ar_sets:
        if isinstance(found, NotApplicable):
            yield f"Anderson-Rubin set: none ({one_line(found.reason).rstrip('.')})."
    yield _stars(wanted)


def _bracket_notes(parts: Parts) -> Iterator[str]:
    fits = parts.fits
    scored = [f"({j})" for j, c in enumerate(columns_of(parts), 1) if c.fit and c.fit.interval == "score"]
    words = "In round brackets: standard errors. In square brackets: 95% confidence sets from "
    if not scored:
        words += "estimate and standard error"
    elif all(f.interval == "score" for f in fits):
        words += "the scores of the sites, valid when instruments are weak"
    else:
        words += (
            f"the scores of the sites in {listing(scored)}, valid when instruments are weak, and from estimate and "
            "standard error in the other columns"
        )
    yield f"{words}; those that are no interval are given in words."
    for text in dict.fromkeys(f.target for f in fits):
        yield f"Standard errors: {one_line(text)}."


def _test_notes(parts: Parts) -> Iterator[str]:
    cluster = parts.stages.design.cluster
    robust = parts.stages.reduced_form.f_robust
    if cluster and isinstance(robust, NotApplicable):
        yield (
            f"F and p of first stages and reduced form take rows as independent, and claim too much if clusters share "
            f"shocks: there is none by {one_line(cluster)} ({one_line(robust.reason)})."
        )
    if parts.rank is not None:
        yield (
            "Sanderson-Windmeijer F: strength for one mediator given the others, under homoskedasticity. "
            "Kleibergen-Paap: the null is that some combination of mediators is moved by no instrument; the F is that "
            "of ivreg2, the LM statistic counts rows after intercepts."
        )
    if isinstance(parts.j, TestStatistic):
        yield (
            "Hansen J (continuously updated): whether one set of effects fits all sites. It cannot tell a failed "
            "exclusion from effects that differ between sites, and does not see an exclusion that fails in proportion "
            "to compliance everywhere."
        )
    if parts.ar_test is not None:
        yield (
            "Anderson-Rubin test and set: valid whatever the strength of the instruments, if effects are the same in "
            "all sites; an empty set says that no such effects fit."
        )


def _flow(fit: Estimate) -> str:
    flow = fit.flow
    lost, sites = flow.rows_in - flow.rows_used, len(flow.dropped)
    if not lost and not sites and not flow.suppressed:
        return "No rows and no sites were dropped."
    reasons = [f"{flow.incomplete:,} with a missing value"] if flow.incomplete else []
    reasons += [f"{s.rows or 0:,} in small cells: {one_line(str(s))}" for s in flow.suppressed]
    for reason in dict.fromkeys(d.reason for d in flow.dropped):
        same = [d for d in flow.dropped if d.reason == reason]
        reasons.append(
            f"{sum(d.rows or 0 for d in same):,} in {count(len(same), 'site')}: {one_line(reason)}"
        )
    return (
        f"Dropped: {count(lost, 'row')} of {flow.rows_in:,} ({'; '.join(reasons)}), {count(sites, 'site')}."
    )


def _stars(wanted: Wanted) -> str:
    if not wanted.stars:
        return "No stars: read the sets."
    marks = ", ".join(f"{'*' * (i + 1)} p < {level:g}" for i, level in enumerate(wanted.stars))
    return f"{marks} (two-sided, of a zero effect)."
