"""What a rank report has to say in an audit of assumption (viii)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.rank import RankReport
from msmmiv.diagnose.rank_words import combination_words
from msmmiv.diagnose.spectrum import Spectrum
from msmmiv.errors import count
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic, chi2_test
from msmmiv.linalg import root

__all__ = ["USABLE", "detectable_strength", "effective_df", "rank_evidence", "rank_failure", "strength_test"]

#: Strength at which 2SLS keeps half of the bias of instruments of pure noise: less is of no use.
USABLE = 2.0
_SIZE, _POWER = 0.05, 0.8
_NO_RANK = (
    "Its null is that some combination of mediators is not moved at all, so that a small p-value speaks for rank, and "
    "says little of strength."
)
_WEAKEST = "rank.noise_floor_eigenvalues"
_NAME = f"strength {USABLE:g} or more of the weakest combination"


def rank_failure(report: RankReport) -> str:
    """Why rank fails whatever the noise: compliances that are zero or exactly proportional; empty otherwise."""
    why = report.why_no_spectrum
    return f"{why[:1].upper()}{why[1:].rstrip('.')}." if "assumption (viii) fails" in why else ""


def rank_evidence(report: RankReport) -> tuple[Evidence, ...]:
    """The pieces of a rank report, the one that can contradict first.

    Full rank itself cannot be contradicted: a tiny compliance has rank too. What can be is that the strength of the
    weakest combination of mediators is of any use, ``USABLE`` or more.

    Notes
    -----
    Strength is the ratio of explained to expected noise cross-products, about chi2(f, f (s - 1)) / f where s is the
    true strength; f is chosen so that with s = 1 the ratio of 95 % quantile to mean is that of the noise floor, which
    was drawn with the sites' own variances. For the weakest of several combinations the law is that of a direction
    fixed in advance; with one to three mediators and 12 to 100 sites the test rejects in .035 to .065 of trials where
    the strength is 2 (docs/validation/rank_usable.csv).

    Examples
    --------
    >>> import msmmiv as mm
    >>> first = rank_evidence(mm.rank(mm.data.star("math_two_mediators")))[0]
    >>> first.check, first.test.pvalue < 0.001
    ('rank.noise_floor_eigenvalues', True)
    """
    free = " beside a direct effect" if report.direct_effect else ""
    counts = (
        f"{count(report.n_sites, 'usable site')}, {report.n_instruments} instruments for "
        f"{count(report.n_mediators, 'mediator')}{free}."
    )
    usable = _usable(report)
    out = [
        Evidence(_WEAKEST, usable, "evidence", _reading(report), _reach(report, usable)),
        Evidence("rank.counts", NotApplicable("counts", "a count, not a test"), "context", counts),
        *(_varies(row) for row in report.variation.to_dict("records")),
        *(
            Evidence(
                _name(t.test.name),
                replace(t.test, name=f"{t.test.name}, {t.covariance}"),
                reading="" if isinstance(t.test, NotApplicable) else _NO_RANK,
            )
            for t in report.tests
            if _name(t.test.name)
        ),
    ]
    if report.cluster:
        level = report.cluster_level
        words = level.reason if isinstance(level, NotApplicable) else f"F = {level:.3g}"
        reading = f"With clusters ({report.cluster}) as rows: {words}."
        test = NotApplicable("cluster-level strength", "a strength, not a test")
        out.append(Evidence("rank.cluster_level_strength", test, "context", reading))
    for row in report.strength.to_dict("records"):
        at = "clusters_" if np.isfinite(row["clusters_f"]) else ""
        alone, given = row[f"{at}f"], row[f"{at}conditional_f"]
        if np.isfinite(given):
            rows = f" (clusters of {report.cluster} as rows)" if at else ""
            others = f" alone, {given:.3g} given the others" if report.n_mediators > 1 else ""
            reading = f"First-stage F of {row['mediator']}: {alone:.3g}{others}{rows}."
            test = NotApplicable("Sanderson-Windmeijer F", "a strength, not a test")
            out.append(Evidence("rank.sanderson_windmeijer", test, "context", reading))
    return tuple(out)


def _usable(report: RankReport) -> TestResult:
    found = report.spectrum
    if found is None:
        return NotApplicable(_NAME, report.why_no_spectrum.rstrip("."))
    weakest = combination_words(found.mediators, found.weights[:, -1])
    test = strength_test(found)
    if test.pvalue > _SIZE and found.pvalues[-1] > _SIZE:
        return NotApplicable(
            _NAME,
            f"the sites can show neither that {weakest} is moved beyond noise nor that it is not (strength "
            f"{found.strength[-1]:.3g}; noise alone gives up to {found.floor_95[-1]:.3g})",
        )
    return test


def strength_test(found: Spectrum) -> TestStatistic:
    """Lower-tail test that the weakest strength is ``USABLE`` or more."""
    from scipy.special import chndtr

    floor, strength = float(found.floor[-1]), float(found.strength[-1])
    f = effective_df(found)
    p = float(chndtr(f * strength / floor, f, f * (USABLE - 1.0)))
    law = f"noncentral chi2({f:.3g}) / {f:.3g}"
    return TestStatistic(_NAME, f"strength {USABLE:g} or more", strength, p, 1, law=law)


def _reading(report: RankReport) -> str:
    """The report's sentence, with the share of bias against pure noise where it gives that against OLS."""
    found = report.spectrum
    if found is None or "of the bias of OLS" not in report.sentence:
        return report.sentence
    share = float(found.noise_share[-1])
    part = f"about {share:.0%}" if share >= 0.01 else "less than 1%"
    return (
        f"{report.sentence} Of the bias that instruments of pure noise would have 2SLS keeps {part}, one over the "
        "strength; OLS is less biased than that where the treatment explains much of a mediator."
    )


def _reach(report: RankReport, usable: TestResult) -> str:
    """The strength that the test finds to be less than ``USABLE`` four times in five."""
    if report.spectrum is None or isinstance(usable, NotApplicable):
        return ""
    least, power = detectable_strength(effective_df(report.spectrum))
    if np.isfinite(least):
        return f"A strength below about {least:.3g} would have been found four times in five."
    return f"Even compliance of pure noise, a strength of 1, would have been found only {_times(power)}."


def _times(power: float) -> str:
    return f"{power:.0%} of the time"


def detectable_strength(f: float) -> tuple[float, float]:
    """Strength below ``USABLE`` that is found with 80% power, NaN where none is; and the power at strength one.

    Examples
    --------
    >>> [round(v, 2) for v in detectable_strength(100.0)]
    [1.45, 1.0]
    """
    from scipy.special import chdtr, chndtr

    def level(x: float) -> float:
        return float(chndtr(x, f, f * (USABLE - 1.0))) - _SIZE

    critical = root(level, 0.0, USABLE * f)
    noise = float(chdtr(f, critical))
    if noise < _POWER:
        return float("nan"), noise

    def gap(s: float) -> float:
        return float(chndtr(critical, f, f * (s - 1.0))) - _POWER

    return root(gap, 1.0 + 1e-12, USABLE), noise


def effective_df(found: Spectrum) -> float:
    """Degrees of freedom f at which chi2(f) / f has the ratio of 95 % quantile to mean of the weakest floor."""
    from scipy.special import chdtri

    ratio = float(found.floor_95[-1] / found.floor[-1])

    def gap(log_f: float) -> float:
        f = float(np.exp(log_f))
        return float(chdtri(f, 0.05)) / f - ratio

    low, high = np.log(0.5), np.log(1e7)
    if gap(low) <= 0:
        return 0.5
    return float(np.exp(root(gap, low, high))) if gap(high) < 0 else 1e7


def _varies(row: Mapping[Any, Any]) -> Evidence:
    name = f"Cochran's Q of compliance with {row['mediator']}"
    arm = f" (arm {row['contrast']})" if row["contrast"] != "" else ""
    reading = (
        f"Compliance with {row['mediator']}{arm} has mean {row['mean']:.4g} and, sampling error taken out, standard "
        f"deviation {row['sd']:.3g} across sites."
    )
    if np.isfinite(row["q"]):
        null = "compliance is the same in all sites"
        return Evidence(
            "rank.compliance_variance", chi2_test(name, null, row["q"], int(row["df"])), "context", reading
        )
    return Evidence("rank.compliance_variance", NotApplicable(name, row["reason"] or "no test"), "context")


def _name(test: str) -> str:
    lowered = test.casefold()
    if lowered.startswith("cragg"):
        return "rank.cragg_donald"
    return "rank.kleibergen_paap" if lowered.startswith("kleibergen") else ""
