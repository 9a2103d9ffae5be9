"""The analysis as a page of text: what the terminal shows and summary.txt holds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from msmmiv.diagnose.rank import RankReport
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.moments.flow import SampleFlow
from msmmiv.show.analysis import Analysis
from msmmiv.show.explain import anderson_rubin, beside, chosen, heterogeneity, leave_one_out
from msmmiv.show.readings import answers, direct_effect_reading, estimand, rests_on, weakness
from msmmiv.show.sets import set_words, term_rows, why
from msmmiv.show.tables import across_sites
from msmmiv.show.words import fit_label, number, one_line, p_value, p_words, short

__all__ = ["WIDTH", "rank_text", "summary_text"]

WIDTH = 100


def summary_text(analysis: Analysis) -> str:
    """Roles, sample, answer, estimates, first stages, rank and estimand; no line over 100 characters.

    Examples
    --------
    >>> import msmmiv as mm
    >>> text = summary_text(mm.Study(mm.data.star()).analysis())
    >>> [line for line in text.splitlines() if line.isupper()][:7]
    ['ROLES', 'SAMPLE', 'ANSWER', 'ESTIMATES', 'WEAK INSTRUMENTS', 'ACROSS SITES', 'FIRST STAGES']
    """
    fit = analysis.headline
    parts = [
        wrap(analysis.title),
        _section("Roles", _roles(fit)),
        _section("Sample", _flow(analysis.moments.flow)),
        _section(
            "Answer",
            [
                wrap(s)
                for s in (
                    *answers(fit),
                    *beside(analysis),
                    weakness(analysis.rank, fit),
                    rests_on(fit),
                    chosen(fit),
                )
                if s
            ],
        ),
        _section("Estimates", _estimates(analysis)),
        _section("Weak instruments", map(wrap, anderson_rubin(analysis))),
        _section("Across sites", _across(analysis)),
        _section("First stages", _stages(fit)),
        _section("Rank", rank_text(analysis.rank).splitlines()),
        _section(
            "Tests", [_test(t) for t in (fit.sargan, fit.basmann, fit.wu_hausman, fit.wu_hausman_robust)]
        ),
        _section("What is estimated", [wrap(estimand(fit)), wrap(f"Standard errors: {fit.target}.")]),
    ]
    if fit.notes:
        parts.append(_section("Notes", [wrap(f"- {note}", hang=2) for note in fit.notes]))
    return "\n\n".join(parts) + "\n"


def rank_text(report: RankReport) -> str:
    """The page of a rank report; no line over 100 characters.

    Examples
    --------
    >>> import msmmiv as mm
    >>> rank_text(mm.rank(mm.data.star())).splitlines()[0]
    'Rank of the compliance matrix, assumption (viii): class_size'
    """
    return "".join(f"{wrap(line, hang=_hang(line))}\n" for line in str(report).splitlines())


def _hang(line: str) -> int:
    """Paragraphs are not indented, items are."""
    lead = len(line) - len(line.lstrip(" "))
    return lead + 2 if lead else 0


def wrap(text: str, *, hang: int = 0) -> str:
    """One paragraph in lines of at most 100 characters.

    Examples
    --------
    >>> max(map(len, wrap("word " * 100).splitlines())) <= 100
    True
    """
    lead = text[: len(text) - len(text.lstrip(" "))]
    return textwrap.fill(
        one_line(text), WIDTH, initial_indent=lead, subsequent_indent=" " * hang, break_on_hyphens=False
    )


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([title.upper(), *lines])


def _roles(fit: Estimate) -> list[str]:
    return [_hung(line[13:], f"{line[:12]:<13}") for line in str(fit.design).splitlines()]


def _flow(flow: SampleFlow) -> list[str]:
    frame = flow.to_frame()
    counts = zip(frame["step"], frame["rows"], strict=True)
    return [_hung(step, f"{rows:>12,}  ") for step, rows in counts]


def _hung(text: str, lead: str) -> str:
    """A paragraph after a lead, its further lines below the first."""
    return textwrap.fill(
        one_line(text), WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False
    )


def _estimates(analysis: Analysis) -> list[str]:
    lines = [f"{'':<24}{'estimate':>10}{'std_error':>11}{'p':>8}  95% confidence set"]
    for fit in analysis.fits:
        lines.append(fit_label(fit) + (f" ({fit.small_sample})" if fit.small_sample else ""))
        for row in term_rows(fit):
            cells = f"{number(row.estimate):>10}{number(row.std_error):>11}{p_value(row.p_value):>8}"
            lines.append(f"  {short(row.term, 22):<22}{cells}  {set_words(row.found)}")
        lines += [wrap(f"  No point estimate: {why(fit)}.", hang=4)] if fit.status else []
    lines += [wrap(f"Not computed: {reason}", hang=2) for reason in analysis.skipped]
    return [*lines, wrap(direct_effect_reading(analysis))]


def _across(analysis: Analysis) -> list[str]:
    """Spread, prediction, the parts of 2SLS and the reach of single sites."""
    found, lines = analysis.heterogeneity, [wrap(s) for s in heterogeneity(analysis.heterogeneity)]
    table = None if isinstance(found, NotApplicable) else across_sites(found)
    if table is not None:
        for row in table.rows:
            name, mean, sd, _, new = (cell.text for cell in row)
            lines.append(
                wrap(
                    f"{name}: mean effect {mean}, standard deviation across sites {sd}; 95% for a new site: {new}"
                )
            )
    bias = analysis.bias
    lines.append(wrap(f"Bias of 2SLS: {bias.reason}." if isinstance(bias, NotApplicable) else bias.reading))
    return [*lines, *map(wrap, leave_one_out(analysis))]


def _stages(fit: Estimate) -> list[str]:
    lines = []
    for stage in (*fit.first_stage, fit.reduced_form):
        kind = "reduced form, " if stage is fit.reduced_form else ""
        lines.append(wrap(f"{stage.variable} ({kind}partial R2 {number(stage.partial_r2)})"))
        lines += [_test(t, indent="  ") for t in (stage.f_classical, stage.f_robust)]
    return lines


def _test(test: TestResult, *, indent: str = "") -> str:
    if isinstance(test, TestStatistic):
        text = f"{test.name}: {number(test.stat)} ~ {test.dist}, {p_words(test.pvalue)} (H0: {test.null})"
    else:
        text = f"{test.name}: not applicable ({test.reason})"
    return wrap(indent + text, hang=len(indent) + 2)
