"""Tables of the report about assumption (viii), and the same as files."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.diagnose.rank import RankReport
from msmmiv.diagnose.rank_words import combination_words
from msmmiv.errors import count
from msmmiv.inference.tests import TestStatistic
from msmmiv.show.tables import Cell, Table, make, p_cell
from msmmiv.show.words import number, one_line

__all__ = ["SITES_SHOWN", "correlation", "counts", "directions", "leverage", "rank_frames", "rank_tables", "strength",
           "tests", "thresholds", "variation"]  # fmt: skip

#: Sites in the table of leverage; rank_leverage.csv has them all.
SITES_SHOWN = 10


def rank_tables(report: RankReport) -> dict[str, Table | None]:
    """All tables by name; None for one that has nothing to show.

    Examples
    --------
    >>> import msmmiv as mm
    >>> [name for name, table in rank_tables(mm.rank(mm.data.star())).items() if table is None]
    ['correlation']
    """
    made = (directions, variation, tests, strength, thresholds, correlation, leverage)
    return {table.__name__: table(report) for table in made}


def rank_frames(report: RankReport) -> dict[str, pd.DataFrame]:
    """The numbers behind the tables, tidy, in the order of the page; empty ones are left out.

    Examples
    --------
    >>> import msmmiv as mm
    >>> list(rank_frames(mm.rank(mm.data.star())))
    ['directions', 'tests', 'variation', 'strength', 'thresholds', 'leverage']
    """
    frames = {
        "directions": report.to_frame(), "tests": report.tests_frame(), "variation": report.variation,
        "strength": report.strength, "thresholds": report.thresholds, "correlation": report.correlation,
        "leverage": report.leverage,
    }  # fmt: skip
    return {name: frame for name, frame in frames.items() if len(frame)}


def counts(report: RankReport) -> str:
    """(viii.b): how much there is to count on, and the two statistics that other programs print.

    Examples
    --------
    >>> import msmmiv as mm
    >>> counts(mm.rank(mm.data.star()))[:74]
    '(viii.b) asks for at least as many instruments as mediators: 79 usable sit'
    """
    direct = " beside a direct effect" if report.direct_effect else ""
    text = (
        f"(viii.b) asks for at least as many instruments as mediators: {count(report.n_sites, 'usable site')} give "
        f"{count(report.n_instruments, 'instrument')} for {count(report.n_mediators, 'mediator')}{direct}."
    )
    named = {"Cragg-Donald F": report.cragg_donald, "with clusters as rows": report.cluster_level}
    said = [
        f"{name} {number(v)}" if isinstance(v, float) else f"{name} not applicable ({v.reason})"
        for name, v in named.items()
    ]
    return f"{text} {'; '.join(said)}."


def directions(report: RankReport) -> Table | None:
    """One row per direction, strongest first; None without a noise floor."""
    found = report.spectrum
    if found is None:
        return None
    several = len(found.mediators) > 1
    words = [
        combination_words(found.mediators, w) if several else found.mediators[0] for w in found.weights.T
    ]
    rows = [
        (words[j], float(s), float(found.floor[j]), float(found.floor_95[j]), p_cell(float(found.pvalues[j])),
         _percent(float(found.bias_share[j] if math.isfinite(found.bias_share[j]) else found.noise_share[j])))
        for j, s in enumerate(found.strength)
    ]  # fmt: skip
    columns = ("Direction", "Strength", "Noise alone: mean", "Noise alone: 95%", "p", "Bias that 2SLS keeps")
    caption = (
        f"Strength by direction against noise, strongest first ({report.noise} variances, {found.draws:,} draws; "
        "weights in units of each mediator's noise)"
    )
    return make(caption, columns, rows)


def variation(report: RankReport) -> Table:
    """(viii.a), one row per mediator and arm."""
    several = len(report.contrasts) > 1
    rows = [
        (r["mediator"], *([Cell(one_line(r["contrast"]))] if several else []), int(r["sites"]), float(r["mean"]),
         float(r["std_error"]), float(r["sd"]), _range(r["sd_lower"], r["sd_upper"]), float(r["q"]), _whole(r["df"]),
         p_cell(r["p_value"]), p_cell(r["noise_p_value"]), _percent(r["i2"]), r["reason"])
        for r in report.variation.to_dict("records")
    ]  # fmt: skip
    columns = ["Mediator", *(["Arm"] if several else []), "Sites", "Mean compliance", "Std. error", "SD across sites",
               "its 95% interval", "Q", "df", "p", "p, variances added up", "I²", "Where there is no test"]  # fmt: skip
    return _without_blank(make("(viii.a): does compliance differ across sites?", columns, rows))


def tests(report: RankReport) -> Table:
    """The tests of rank, with the reason where one does not apply."""
    rows = [
        (r["test"], r["covariance"], float(r["statistic"]), float(r["printed"]), p_cell(r["p_value"]),
         f"not applicable: {r['reason']}" if r["reason"] else r["law"])
        for r in report.tests_frame().to_dict("records")
    ]  # fmt: skip
    columns = ("Test", "Covariance", "Statistic", "As ivreg2 prints it", "p", "Reference")
    null = next((t.test.null for t in report.tests if isinstance(t.test, TestStatistic)), "")
    return _without_blank(make(f"Tests of rank{f'; null hypothesis: {null}' if null else ''}", columns, rows))


def strength(report: RankReport) -> Table:
    """First-stage F of each mediator: alone and given the others, with people, clusters and sites as rows."""
    several = report.n_mediators > 1
    # Column names must differ: blanks at their end are cut when they are shown.
    names = {
        "f": "People as rows", "conditional_f": "given the others", "p_value": "p", "clusters_f": "Clusters as rows",
        "clusters_conditional_f": "given the others ", "effective_f": "Against noise added up",
        "effective_p_value": "p ", "site_f": "Against each site's noise", "site_p_value": "p  ",
    }  # fmt: skip
    alone = {"conditional_f", "clusters_conditional_f"}
    kept = [c for c in names if (several or c not in alone) and report.strength[c].notna().any()]
    rows = [
        (r["mediator"], *(p_cell(r[c]) if c.endswith("p_value") else float(r[c]) for c in kept), r["note"])
        for r in report.strength.to_dict("records")
    ]
    caption = "First-stage F by mediator"
    if several:
        caption += "; those against noise are given the other mediators"
    return _without_blank(make(caption, ("Mediator", *(names[c] for c in kept), "Note"), rows))


def thresholds(report: RankReport) -> Table | None:
    """Published critical values beside the statistics; None where there is nothing to compare."""
    if report.thresholds.empty:
        return None
    criteria = list(dict.fromkeys(report.thresholds["criterion"]))
    rows = []
    for name, part in report.thresholds.groupby("statistic", sort=False):
        critical = dict(zip(part["criterion"], part["critical"], strict=True))
        why = "; ".join(dict.fromkeys(r for r in part["reason"] if r))
        values = (float(critical.get(c, math.nan)) for c in criteria)
        rows.append((str(name), float(part["value"].iloc[0]), *values, why))
    caption = "How large a statistic must be to rule out, at 5%, so much bias of 2SLS or size of its t test"
    return _without_blank(make(caption, ("Statistic", "Value", *criteria, "Where there is none"), rows))


def correlation(report: RankReport) -> Table | None:
    """Correlations of compliances across sites; None with one mediator."""
    if report.correlation.empty:
        return None
    read = "centred" if report.direct_effect else "uncentred"
    rows = [
        (f"{one_line(r['first'])}, {one_line(r['second'])}", r["kind"], float(r["raw"]), float(r["disattenuated"]),
         float(r["std_error"]), _reliability(r), r["note"])
        for r in report.correlation.to_dict("records")
    ]  # fmt: skip
    columns = (
        "Mediators",
        "Kind",
        "As estimated",
        "Sampling error taken out",
        "Std. error",
        "Reliability",
        "Note",
    )
    caption = f"Correlation of compliances across sites (the {read} one counts here)"
    return _without_blank(make(caption, columns, rows))


def leverage(report: RankReport) -> Table:
    """The sites that carry the identification, largest first."""
    table = report.leverage.head(SITES_SHOWN)
    # All shares sum to the number of mediators, unless one follows from the others.
    total = float(report.leverage["leverage"].sum())
    names = {}
    if report.n_mediators > 1:
        names = {"weakest": "of the weakest direction"} if table["weakest"].notna().all() else {}
        names |= {f"of {m}": f"of {one_line(m)} given the others" for m in report.mediators}
    rows = [
        (_site(r["site"]), _percent(r["leverage"] / total), *(_percent(r[c]) for c in names))
        for r in table.to_dict("records")
    ]
    few = len(report.leverage) <= SITES_SHOWN
    caption = (
        "Every site's share"
        if few
        else f"The {SITES_SHOWN} of {len(report.leverage):,} sites with the largest share"
    ) + " of the first-stage information"
    return make(caption, ("Site", "Share", *names.values()), rows)


def _without_blank(table: Table) -> Table:
    """The table without columns in which nothing is said."""
    kept = [j for j in range(len(table.columns)) if any(row[j].text not in ("", "–") for row in table.rows)]
    return Table(
        table.caption,
        tuple(table.columns[j] for j in kept),
        tuple(tuple(row[j] for j in kept) for row in table.rows),
    )


def _whole(value: float) -> Cell:
    return Cell(
        number(value) if math.isnan(value) else f"{value:,.0f}", None if math.isnan(value) else float(value)
    )


def _percent(value: float) -> Cell:
    if math.isnan(value):
        return Cell("–")
    return Cell(f"{value:.1%}", float(value))


def _range(low: float, high: float) -> Cell:
    # Two lines at most: the second end stays with its word.
    return Cell("–" if math.isnan(low) else f"{number(float(low), 3)} to\u00a0{number(float(high), 3)}")


def _reliability(row: dict[Any, Any]) -> str:
    return f"{number(float(row['reliability_first']), 2)}, {number(float(row['reliability_second']), 2)}"


def _site(value: Any) -> Cell:
    return Cell(
        one_line(value) or "(blank)", float(value) if isinstance(value, int | float | np.number) else None
    )
