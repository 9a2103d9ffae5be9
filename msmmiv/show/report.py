"""The report: one HTML file with the answer, what it rests on, and how to get it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msmmiv.diagnose.rank_words import GATES
from msmmiv.errors import count, listing
from msmmiv.files import write_whole
from msmmiv.inference.tests import NotApplicable
from msmmiv.show import explain, peers, rank_tables, readings, reproduce, tables
from msmmiv.show.analysis import Analysis
from msmmiv.show.audit_report import checks_table, figure_links, finding_items, sensitivity_table
from msmmiv.show.plots import Picture, gallery
from msmmiv.show.provenance import moments_digest, versions
from msmmiv.show.references import references
from msmmiv.show.template import filled, source
from msmmiv.show.words import one_line, question

__all__ = ["render_report", "write_report"]


def render_report(analysis: Analysis, *, pictures: Sequence[Picture] | None = None) -> str:
    """The report as one self-contained HTML page: no network, no other file.

    Parameters
    ----------
    analysis : Analysis
    pictures : sequence of Picture, optional
        The pictures of `gallery`, if they were drawn already.

    Returns
    -------
    str

    Examples
    --------
    >>> import msmmiv as mm
    >>> page = render_report(mm.Study(mm.data.star()).analysis())
    >>> page.startswith("<!doctype html>"), page.count("<svg ")
    (True, 12)
    """
    from markupsafe import Markup

    drawn = {p.name: p for p in (gallery(analysis) if pictures is None else pictures)}
    # The SVG is ours and escaped where it was made; everything else is escaped by the template.
    svgs = {name: Markup(p.svg()) for name, p in drawn.items()}  # noqa: S704
    return filled(source("report.html.j2"), **_context(analysis, list(drawn)), pictures=drawn, svgs=svgs)


def write_report(analysis: Analysis, path: str | Path) -> Path:
    """Write the report to a file and return its path.

    Raises
    ------
    OutputError
        When the file cannot be written.

    Examples
    --------
    >>> import msmmiv as mm, tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_report(mm.Study(mm.data.star()).analysis(), pathlib.Path(folder) / "star.html")
    ...     path.stat().st_size < 1_000_000
    True
    """
    return write_whole(path, render_report(analysis).encode())


def _context(analysis: Analysis, drawn: Sequence[str]) -> dict[str, Any]:
    parts = (_asked(analysis), _answered(analysis), _strength(analysis), _sites(analysis), _again(analysis))
    return {name: value for part in parts for name, value in part.items()} | {
        "findings": finding_items(analysis.audit, drawn),
        "opened": False,
        "checks": checks_table(analysis.audit),
        "sensitivity": sensitivity_table(analysis.audit),
        "drawn_checks": figure_links(analysis.audit, drawn),
        "limits": readings.limits(analysis.headline),
    }


def _asked(analysis: Analysis) -> dict[str, Any]:
    """Question, estimand, roles and sample."""
    fit, moments = analysis.headline, analysis.moments
    return {
        "title": one_line(analysis.title),
        "source": "moments (one row per cell, none per person)"
        if analysis.source == "moments"
        else analysis.source,
        "question": question(moments.design),
        "estimand": readings.estimand(fit),
        "target": fit.target,
        "rests_on": readings.rests_on(fit),
        "direct": fit.direct_effect,
        "roles": [(line[:12].strip(), line[13:]) for line in str(moments.design).splitlines()],
        "flow": tables.flow(moments.flow),
        "missing": tables.missing_by_arm(moments),
    }


def _answered(analysis: Analysis) -> dict[str, Any]:
    """The headline and the fits beside it."""
    fit = analysis.headline
    return {
        "answers": readings.answers(fit),
        "weakness": readings.weakness(analysis.rank, fit),
        "headline": tables.headline(fit),
        "chosen": explain.chosen(fit),
        "beside": explain.beside(analysis),
        "notes": fit.notes,
        "estimates": tables.all_estimates(analysis.fits),
        "skipped": analysis.skipped,
        "reading": readings.direct_effect_reading(analysis),
        "tests": tables.tests(fit),
        "overidentification": readings.OVERIDENTIFICATION,
        "clustered": bool(analysis.moments.design.cluster),
        "wu_hausman": readings.WU_HAUSMAN,
    }


def _strength(analysis: Analysis) -> dict[str, Any]:
    """First stages, rank, and sets that hold when compliance is weak."""
    return {
        "stages": tables.first_stages(analysis.headline),
        "unavailable": _unavailable(analysis),
        "rank": rank_tables.rank_tables(analysis.rank),
        "rank_lines": analysis.rank.sentences,
        "rank_counts": rank_tables.counts(analysis.rank),
        "rank_sentence": analysis.rank.sentence,
        "gates": GATES,
        "weak_sets": explain.anderson_rubin(analysis),
    }


def _sites(analysis: Analysis) -> dict[str, Any]:
    """Site effects, their spread, and what single sites do."""
    return _pages(analysis) | {
        "sites": tables.sites(analysis.effects),
        "across": _across(analysis),
        "assumed_zero": analysis.effects.zero_covariance_assumed,
        "spread_lines": explain.heterogeneity(analysis.heterogeneity),
        "without": explain.leave_one_out(analysis),
    }


def _again(analysis: Analysis) -> dict[str, Any]:
    """How to get the numbers again, here and elsewhere."""
    return {
        "python": reproduce.python_lines(analysis),
        "cli": reproduce.cli_line(analysis),
        "stata": reproduce.stata_lines(analysis),
        "fixest": reproduce.fixest_lines(analysis),
        "ivreg": reproduce.ivreg_lines(analysis),
        "linearmodels": reproduce.linearmodels_lines(analysis),
        "peers": peers.other_lines(analysis),
        "peers_note": peers.PEERS,
        "remarks": _remarks(analysis),
        "references": references,
        "versions": versions(),
        "seeds": _seeds(analysis),
        "seals": _seals(analysis),
    }


def _seeds(analysis: Analysis) -> str:
    """The seeds of everything that was simulated."""
    audit, found = analysis.audit, analysis.rank.spectrum
    rank = "" if found is None else f"; rank: seed {found.seed}, {found.draws:,} draws"
    return f"Simulated null distributions of the audit: seed {audit.seed}, {audit.draws:,} draws{rank}."


def _seals(analysis: Analysis) -> dict[str, str]:
    """Hashes of design and moments, and of the files the analysis was made from where they are known."""
    own = {
        "design": analysis.moments.design.digest,
        "moments (SHA-256)": moments_digest(analysis.moments),
    }
    return own | {one_line(name): one_line(seal) for name, seal in (analysis.stamp or {}).items()}


def _pages(analysis: Analysis) -> dict[str, Any]:
    """Tables of the pages on spread and bias, or none with the reason."""
    spread, bias = analysis.heterogeneity, analysis.bias
    return {
        "spread": None if isinstance(spread, NotApplicable) else tables.across_sites(spread),
        "averages": None if isinstance(spread, NotApplicable) else tables.averages(spread),
        "bias": None if isinstance(bias, NotApplicable) else tables.bias(bias),
        "bias_lines": [f"Not computed: {bias.reason}."] if isinstance(bias, NotApplicable) else
        [bias.reading, *bias.notes],
    }  # fmt: skip


def _across(analysis: Analysis) -> list[str]:
    many = len(analysis.effects.mediators)
    return ["site_scatter"] if many == 1 else [f"partial_{j}" for j in range(1, many + 1)]


def _unavailable(analysis: Analysis) -> list[str]:
    """Why a robust first-stage F is missing, each reason once."""
    stages = (*analysis.headline.first_stage, analysis.headline.reduced_form)
    found = [r for s in stages for f in (s.f_classical, s.f_robust) if (r := getattr(f, "reason", ""))]
    return list(dict.fromkeys(found))


def _remarks(analysis: Analysis) -> list[str]:
    """What to watch when the same model is run elsewhere."""
    design, fit = analysis.moments.design, analysis.two_stage
    out = ["The coefficients agree to rounding; standard errors can differ by small-sample factors."]
    if fit.small_sample in ("CR2", "CR3"):
        out.append(
            f"The errors here are {fit.small_sample}, which these lines do not ask for: they cluster by "
            f'{one_line(design.site)}, as study.fit("2sls", cov_type="site") does.'
        )
    flow = analysis.moments.flow
    if flow.incomplete or flow.dropped:
        parts = ["rows without a value in one of the columns"] * bool(flow.incomplete)
        gone = [d.site for d in flow.dropped if d.site is not None]
        parts += [f"{count(len(gone), 'site')} ({listing(gone)})"] if gone else []
        out.append(f"Left out here, and to be left out there: {' and '.join(parts)}; see the sample above.")
    if design.block:
        out.append("Intercepts are per block inside a site, instruments per site: keep the two apart.")
    if design.weight_kind == "probability":
        out.append("Probability weights: use a robust or clustered covariance everywhere.")
    if design.weight_kind == "frequency":
        out.append(
            "Frequency weights count copies; fixest and linearmodels take them as precisions, so there the "
            "coefficients agree and the standard errors do not."
        )
    if fit.cov_type in ("HTE", "bekker"):
        out.append(
            f"No other program gives the {fit.cov_type} covariance; the lines ask for the nearest one."
        )
    if fit.direct_effect:
        out.append(
            "With the direct effect in the model one instrument per contrast is redundant; programs drop it."
        )
    return out
