"""The page that a rank report prints."""

from __future__ import annotations

import numpy as np

from msmmiv.diagnose.rank_numbers import RankNumbers
from msmmiv.diagnose.rank_words import GATES, combination_words
from msmmiv.diagnose.strength import RankTest
from msmmiv.errors import count, listing
from msmmiv.inference.tests import NotApplicable

__all__ = ["page"]


def page(report: RankNumbers, sentences: tuple[str, ...]) -> str:
    """The whole report as text."""
    direct = " and a direct effect" if report.direct_effect else ""
    plural, sites = count(len(report.mediators), "mediator"), count(report.n_sites, "usable site")
    lines = [
        f"Rank of the compliance matrix, assumption (viii): {listing(report.mediators)}{direct}",
        *sentences,
        "",
        f"(viii.b) {sites}, {count(report.n_instruments, 'instrument')} for {plural}{direct}: enough to count",
        "(viii.a) compliance across sites",
        *_variation_lines(report),
        f"(viii.c) strength by direction, against noise ({report.noise} variances)",
        *_spectrum_lines(report),
        "",
        f"Tests of rank {len(report.mediators) - 1}, not {len(report.mediators)} [as ivreg2 and linearmodels print it]",
        *(_test_line(t) for t in report.tests),
        "",
        f"First-stage F{' alone / given the other mediators' if len(report.mediators) > 1 else ''}",
        *_strength_lines(report),
        *_threshold_lines(report),
        *_together_lines(report),
        GATES,
    ]
    return "\n".join(lines)


def _test_line(found: RankTest) -> str:
    test = found.test
    if isinstance(test, NotApplicable):
        return f"  {test.name}, {found.covariance}: not applicable ({test.reason})"
    printed = f" [{found.printed:.4g}]" if np.isfinite(found.printed) else ""
    return f"  {test.name}, {found.covariance}: {test.stat:.4g} ~ {test.dist}, p = {test.pvalue:.3g}{printed}"


def _variation_lines(report: RankNumbers) -> list[str]:
    out = []
    for row in report.variation.to_dict("records"):
        arm = f" ({row['contrast']})" if len(report.contrasts) > 1 else ""
        who = f"  {row['mediator']}{arm}: mean {row['mean']:.4g}"
        if row["reason"]:
            out.append(f"{who}; {row['reason']}")
            continue
        limits = (
            f" (95% {row['sd_lower']:.3g} to {row['sd_upper']:.3g})" if np.isfinite(row["sd_lower"]) else ""
        )
        test = "no test"
        if np.isfinite(row["q"]):
            test = f"Q {row['q']:.4g} ~ chi2({row['df']:.0f}), p = {row['p_value']:.3g}, I2 {row['i2']:.0%}"
        out.append(
            f"{who}, sd {row['sd']:.3g}{limits}, {test}; variances added up: variance {row['variance_moment']:.3g}, "
            f"p = {row['noise_p_value']:.3g}" + (f"; {row['note']}" if row["note"] else "")
        )
    return out


def _spectrum_lines(report: RankNumbers) -> list[str]:
    found = report.spectrum
    if found is None:
        return [f"  not applicable: {report.why_no_spectrum}"]
    return [
        f"  {j + 1}. {combination_words(found.mediators, found.weights[:, j])}: strength {s:.4g}, noise "
        f"{found.floor[j]:.3g} (95% {found.floor_95[j]:.3g}), p = {found.pvalues[j]:.3g}, bias left "
        f"{_share(found.bias_share[j], found.noise_share[j])}"
        for j, s in enumerate(found.strength)
    ]


def _share(of_least_squares: float, of_noise: float) -> str:
    if np.isfinite(of_least_squares):
        return f"{of_least_squares:.1%} of OLS"
    return f"{of_noise:.1%} of noise instruments"


def _together_lines(report: RankNumbers) -> list[str]:
    """Correlations of compliances, and the sites that carry most."""
    out = []
    for r in report.correlation.to_dict("records"):
        clean = (
            f"{r['disattenuated']:.2f} without sampling error (se {r['std_error']:.2g})"
            if np.isfinite(r["disattenuated"])
            else r["note"]
        )
        out.append(f"  {r['first']} and {r['second']}, {r['kind']}: {r['raw']:.2f}, {clean}")
    head = report.leverage.head(3).to_dict("records")
    sites = ", ".join(f"{r['site']} ({r['leverage'] / len(report.mediators):.0%})" for r in head)
    return [
        *(["Correlation of compliances across sites"] if out else []),
        *out,
        f"Sites that carry most: {sites}",
    ]


def _strength_lines(report: RankNumbers) -> list[str]:
    several, out = len(report.mediators) > 1, []
    for row in report.strength.to_dict("records"):
        parts = []
        for words, own, given in (
            ("", "f", "conditional_f"),
            ("clusters as rows ", "clusters_f", "clusters_conditional_f"),
            ("against noise ", "", "effective_f"),
            ("against each site's noise ", "", "site_f"),
        ):
            alone = f"{row[own]:.4g}" if own and np.isfinite(row[own]) else ""
            beside = f"{row[given]:.4g}" if (several or not own) and np.isfinite(row[given]) else ""
            if alone or beside:
                parts.append(words + " / ".join(v for v in (alone, beside) if v))
        note = f" (against noise: {row['note']})" if row["note"] and parts else ""
        out.append(f"  {row['mediator']}: {'; '.join(parts) or 'none'}{note}")
    return out


def _threshold_lines(report: RankNumbers) -> list[str]:
    out = []
    for name, part in report.thresholds.groupby("statistic", sort=False):
        rows = part.to_dict("records")
        values = [f"{r['critical']:.4g} ({r['criterion']})" for r in rows if np.isfinite(r["critical"])]
        said = f"critical values {', '.join(values)}" if values else rows[0]["reason"]
        out.append(f"{name!s} {rows[0]['value']:.4g}; {said}")
    return out
