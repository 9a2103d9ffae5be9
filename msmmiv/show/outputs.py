"""The files an analysis leaves behind: tables, figures, a report, and everything again as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.audit.json_values import json_text
from msmmiv.audit.result import Audit
from msmmiv.diagnose.attrition import Attrition
from msmmiv.diagnose.balance import CovariateBalance
from msmmiv.diagnose.heterogeneity import Heterogeneity
from msmmiv.diagnose.rank import RankReport
from msmmiv.diagnose.shares import ArmShares
from msmmiv.errors import OutputError
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.show.analysis import Analysis
from msmmiv.show.audit_report import render_audit
from msmmiv.show.checklist import checklist
from msmmiv.show.decomposition_report import render_decomposition
from msmmiv.show.decomposition_tables import decomposition_dict, decomposition_frames, decomposition_text
from msmmiv.show.iv_table import iv_table
from msmmiv.show.plots import Picture, audit_pictures, decomposition_pictures, gallery, rank_pictures
from msmmiv.show.provenance import moments_digest, table_text, versions
from msmmiv.show.rank_tables import rank_frames
from msmmiv.show.report import render_report
from msmmiv.show.sets import shape_of, term_rows
from msmmiv.show.summary import rank_text, summary_text
from msmmiv.show.words import printable

__all__ = [
    "check_folder",
    "rank_dict",
    "results_dict",
    "write_audit",
    "write_decomposition",
    "write_outputs",
    "write_rank",
]


def check_folder(folder: str | Path) -> Path:
    """The folder as a path, after checking that it is one or can become one.

    Raises
    ------
    OutputError
        A file stands where the folder should be.
    """
    path = Path(folder)
    standing = next((p for p in (path, *path.parents) if p.exists()), None)
    if standing is not None and not standing.is_dir():
        raise OutputError(
            f"{str(path)!r} cannot be a folder: {str(standing)!r} is a file. Choose another folder."
        )
    return path


def write_outputs(analysis: Analysis, folder: str | Path) -> dict[str, Path]:
    """Write the analysis into a folder, which is made if it is not there.

    The same moments give the same files, byte by byte. (Large files of persons are summed by several
    threads, so the last digits of moments made from them can differ from run to run.)

    Parameters
    ----------
    analysis : Analysis
    folder : path

    Returns
    -------
    dict of str to Path
        ``report``, ``summary``, ``estimates``, ``site_effects``, ``moments``, ``results``, the table for a paper as
        ``table_tex``, ``table_html``, ``table_md`` and ``table_csv``, ``rank_<table>`` for every table about rank that
        has rows, and ``figures/<name>`` for every figure (its PNG; an SVG of the same name lies beside it).

    Raises
    ------
    OutputError
        When the folder cannot be made.

    Examples
    --------
    >>> import msmmiv as mm, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_outputs(mm.Study(mm.data.star()).analysis(), folder)
    >>> sorted(files)[:4]
    ['estimates', 'figures/causal_dag', 'figures/compliance_map', 'figures/estimates']
    """
    path = _made(folder)
    files = {
        "report": path / "report.html", "summary": path / "summary.txt", "estimates": path / "estimates.csv",
        "site_effects": path / "site_effects.csv", "results": path / "results.json",
    }  # fmt: skip
    table = iv_table(analysis)
    for ending in ("tex", "html", "md", "csv"):
        files[f"table_{ending}"] = table.save(path / f"table.{ending}")
    pictures = _settled(gallery(analysis))
    _write(files["report"], render_report(analysis, pictures=pictures))
    _write(files["summary"], summary_text(analysis))
    _write(files["estimates"], table_text(_estimates(analysis)))
    _write(files["site_effects"], table_text(analysis.effects.to_frame()))
    _write(files["results"], json_text(results_dict(analysis)))
    files["moments"] = analysis.moments.save(path / "moments.csv")
    return files | _rank_files(analysis.rank, path) | _figures(pictures, path)


def write_rank(report: RankReport, folder: str | Path) -> dict[str, Path]:
    """Write a rank report into a folder, which is made if it is not there: page, tables, numbers and figures.

    Parameters
    ----------
    report : RankReport
    folder : path

    Returns
    -------
    dict of str to Path
        ``rank`` (the page), ``rank_json``, ``rank_<table>`` for every table with rows, and ``figures/<name>``.

    Raises
    ------
    OutputError
        When the folder cannot be made.

    Examples
    --------
    >>> import msmmiv as mm, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_rank(mm.rank(mm.data.star()), folder)
    >>> sorted(files)[:4]
    ['figures/compliance_map', 'figures/rank_spectrum', 'rank', 'rank_directions']
    """
    path = _made(folder)
    files = {"rank": path / "rank.txt", "rank_json": path / "rank.json"}
    _write(files["rank"], rank_text(report))
    _write(files["rank_json"], json_text(rank_dict(report)))
    return files | _rank_files(report, path) | _figures(rank_pictures(report), path)


def write_decomposition(found: Decomposition, folder: str | Path) -> dict[str, Path]:
    """Write a decomposition into a folder, which is made if it is not there: pages, tables, numbers and figures.

    Parameters
    ----------
    found : Decomposition
    folder : path

    Returns
    -------
    dict of str to Path
        ``page`` (HTML), ``decomposition`` (text), ``json``, the tables ``tidy``, ``effects``, ``sites``, ``compare``
        and, where a covariance is unknown, ``sensitivity``, and ``figures/<name>``.

    Raises
    ------
    OutputError
        When the folder cannot be made.

    Examples
    --------
    >>> import msmmiv as mm, tempfile
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_decomposition(decompose(mm.data.star()), folder)
    >>> sorted(files)[:4]
    ['compare', 'decomposition', 'effects', 'figures/confidence_curve']
    """
    path = _made(folder)
    names = {"page": "html", "decomposition": "txt", "json": "json"}
    files = {name: path / f"decomposition.{ending}" for name, ending in names.items()}
    frames, pictures = decomposition_frames(found), _settled(decomposition_pictures(found))
    _write(files["page"], render_decomposition(found, pictures=pictures, frames=frames))
    _write(files["decomposition"], decomposition_text(found))
    _write(files["json"], json_text(decomposition_dict(found, frames)))
    for name, frame in frames.items():
        files[name] = path / f"{name}.csv"
        _write(files[name], table_text(frame))
    return files | _figures(pictures, path)


def write_audit(audit: Audit, folder: str | Path) -> dict[str, Path]:
    """Write an audit into a folder, which is made if it is not there: page, checklist, tables, graph and figures.

    Parameters
    ----------
    audit : Audit
    folder : path

    Returns
    -------
    dict of str to Path
        ``page`` (HTML), ``checklist`` (HTML, to print), ``audit`` (text), ``json``, the tables ``findings`` and
        ``evidence``, where there are people and arms ``arm_shares`` (units and share of each arm by site), ``balance``
        and ``attrition`` (over all sites, and ``_by_site``), the graph as ``dot``, ``mermaid`` and ``dagitty``, and
        ``figures/<name>``.

    Raises
    ------
    OutputError
        When the folder cannot be made.

    Examples
    --------
    >>> import msmmiv as mm, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_audit(mm.Study(mm.data.star()).audit(draws=199), folder)
    >>> sorted(files)[:4]
    ['arm_shares', 'attrition', 'attrition_by_site', 'audit']
    """
    path = _made(folder)
    pictures, dag = _settled(audit_pictures(audit)), audit.dag
    texts = {
        "page": ("audit.html", render_audit(audit, pictures=pictures)),
        "checklist": ("checklist.html", checklist(audit=audit)),
        "audit": ("audit.txt", printable(audit.summary)),
        "json": ("audit.json", audit.to_json()),
        "findings": ("findings.csv", table_text(audit.to_frame())),
        "evidence": ("evidence.csv", table_text(audit.evidence_frame())),
        "dot": ("dag.dot", dag.to_dot()),
        "mermaid": ("dag.mmd", dag.to_mermaid()),
        "dagitty": ("dag.dagitty", dag.to_dagitty()),
    }
    texts |= {name: (f"{name}.csv", table_text(frame)) for name, frame in _site_tables(audit).items()}
    files = {name: path / file for name, (file, _) in texts.items()}
    for name, (_, text) in texts.items():
        _write(files[name], text)
    return files | _figures(pictures, path)


def _site_tables(audit: Audit) -> dict[str, pd.DataFrame]:
    """What the checks of assignment have for every site, by file; none that is empty."""
    shares, compared, lost = (audit.results.get(name) for name in ("shares", "balance", "attrition"))
    found = {}
    if isinstance(shares, ArmShares) and shares.arms:
        found["arm_shares"] = shares.to_frame()
    if isinstance(compared, CovariateBalance):
        found |= {"balance": compared.to_frame(), "balance_by_site": compared.site_frame()}
    if isinstance(lost, Attrition):
        found |= {"attrition": lost.to_frame(), "attrition_by_site": lost.site_frame()}
    return {name: frame for name, frame in found.items() if len(frame)}


def _made(folder: str | Path) -> Path:
    path = check_folder(folder)
    try:
        (path / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {str(path)!r} could not be made: {error.strerror}.") from error
    return path


def _rank_files(report: RankReport, path: Path) -> dict[str, Path]:
    files = {}
    for name, frame in rank_frames(report).items():
        files[f"rank_{name}"] = path / f"rank_{name}.csv"
        _write(files[f"rank_{name}"], table_text(frame))
    return files


def _settled(pictures: Sequence[Picture]) -> tuple[Picture, ...]:
    """Pictures that page and files share: nothing changes them in between."""
    return tuple(p.settled() for p in pictures)


def _figures(pictures: Sequence[Picture], path: Path) -> dict[str, Path]:
    return {f"figures/{p.name}": p.save(path / "figures")[0] for p in pictures}


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _estimates(analysis: Analysis) -> pd.DataFrame:
    """Tidy rows with the sets as text; of a set in several pieces or none the two ends are left blank."""
    return pd.concat([_tidy(f) for f in analysis.fits], ignore_index=True)


def _tidy(fit: Estimate) -> pd.DataFrame:
    rows = term_rows(fit)
    frame = fit.tidy().assign(direct_effect=fit.direct_effect, small_sample=fit.small_sample)
    frame = frame.assign(
        interval=fit.interval, set=["" if r.found is None else str(r.found) for r in rows],
        shape=[shape_of(r.found) for r in rows], status=fit.status or "", rule=fit.rule,
    )  # fmt: skip
    pieces = [len(r.found.intervals) == 1 if r.found else False for r in rows]
    ends = ["conf_low", "conf_high"]
    frame.loc[~np.array(pieces), ends] = np.nan
    return frame


def _fit(fit: Estimate) -> dict[str, Any]:
    """A fit with, for every term, its set."""
    named = ["conf_low", "conf_high", "set", "shape"]
    more = _tidy(fit)[named].astype(object).to_dict("records")
    pieces = [{"pieces": r.found.to_dict()["intervals"] if r.found else None} for r in term_rows(fit)]
    whole = fit.to_dict()
    whole["terms"] = [t | m | p for t, m, p in zip(whole["terms"], more, pieces, strict=True)]
    return whole


def _heterogeneity(found: Heterogeneity) -> dict[str, Any]:
    return {
        "q": _maybe(found.q), "q_p": found.q.pvalue, "i2": found.i2, "mediators": found.to_frame().to_dict("records"),
        "spread_status": found.spread_status, "sentence": found.sentence,
    }  # fmt: skip


def rank_dict(report: RankReport) -> dict[str, Any]:
    """Every number of the report, by table; of the compliances themselves site_effects.csv has the estimates."""
    found = report.spectrum
    return {
        "mediators": report.mediators, "contrasts": report.contrasts, "n_sites": report.n_sites,
        "n_instruments": report.n_instruments, "n_mediators": report.n_mediators, "direct_effect": report.direct_effect,
        "noise": report.noise, "draws": found.draws if found else None, "seed": found.seed if found else None,
        "directions": report.to_frame().to_dict("records"), "why_no_spectrum": report.why_no_spectrum,
        "tests": report.tests_frame().to_dict("records"), "variation": report.variation.to_dict("records"),
        "strength": report.strength.to_dict("records"), "thresholds": report.thresholds.to_dict("records"),
        "correlation": report.correlation.to_dict("records"), "leverage": report.leverage.to_dict("list"),
        "cragg_donald": _maybe(report.cragg_donald), "cluster_level": _maybe(report.cluster_level),
        "constant_in_clusters": report.constant_in_clusters, "sentence": report.sentence, "sentences": report.sentences,
    }  # fmt: skip


def results_dict(analysis: Analysis) -> dict[str, Any]:
    """What ``results.json`` holds: design, flow, every fit with its sets, rank, audit, versions."""
    rank, spread, bias, without = analysis.rank, analysis.heterogeneity, analysis.bias, analysis.leave_one_out
    return {
        "title": analysis.title,
        "source": analysis.source,
        "design": analysis.moments.design.to_dict(),
        "design_digest": analysis.moments.design.digest,
        "moments_sha256": moments_digest(analysis.moments),
        "flow": analysis.moments.flow.to_dict(),
        "headline": 0,
        "fits": [_fit(f) for f in analysis.fits],
        "skipped": list(analysis.skipped),
        "rank": rank_dict(rank),
        "anderson_rubin": [
            s.to_dict() | {"set": str(s)} if isinstance(s, ConfidenceSet) else _maybe(s)
            for s in analysis.anderson_rubin
        ],
        "heterogeneity": _maybe(spread) if isinstance(spread, NotApplicable) else _heterogeneity(spread),
        "bias": _maybe(bias) if isinstance(bias, NotApplicable) else bias.to_frame().to_dict("records"),
        "leave_one_out": _maybe(without)
        if isinstance(without, NotApplicable)
        else without.describe().loc[["min", "max"]].to_dict(),
        "audit": analysis.audit.to_dict(),
        "versions": versions(),
    }


def _maybe(value: Any) -> Any:
    """A number, or the reason why there is none."""
    if isinstance(value, int | float):
        return value
    return value.stat if isinstance(value, TestStatistic) else {"not_applicable": value.reason}
