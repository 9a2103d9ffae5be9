"""Tables of a decomposition: for its page, and the same as files."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from msmmiv.errors import MsmmivError
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.inference.tests import NotApplicable
from msmmiv.show.decomposition_words import level_words, method_words
from msmmiv.show.provenance import versions
from msmmiv.show.summary import WIDTH, wrap
from msmmiv.show.tables import Cell, Table, make, p_cell
from msmmiv.show.words import number, one_line, printable

__all__ = ["decomposition_dict", "decomposition_frames", "decomposition_tables", "decomposition_text"]

#: Rows of the regression in the page; sites.csv has them all.
ROWS_SHOWN = 250


def decomposition_text(found: Decomposition) -> str:
    """The page of a decomposition; no line over 100 characters.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> decomposition_text(decompose(mm.data.star())).splitlines()[0]
    'Effect on math through class_size: 79 rows, direct effect free'
    """
    return "".join(f"{_fitted(printable(line).rstrip())}\n" for line in str(found).split("\n"))


def _fitted(line: str) -> str:
    """A line as it is, because it may be a row of a table, unless it is too long."""
    if len(line) <= WIDTH:
        return line
    lead = len(line) - len(line.lstrip(" "))
    return wrap(line, hang=lead + 2 if lead else 0)


def decomposition_frames(found: Decomposition) -> dict[str, pd.DataFrame]:
    """The numbers, tidy: coefficients, average effects, rows, other estimators, and what unknown covariances would do.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> list(decomposition_frames(decompose(mm.data.star())))
    ['tidy', 'effects', 'sites', 'compare']
    """
    frames = {
        "tidy": found.tidy().assign(set=[_set(found, t) for t in found.rows.terms], status=found.status or ""),
        "effects": found.effects, "sites": found.site_effects, "compare": found.compare(),
        "sensitivity": found.sensitivity,
    }  # fmt: skip
    return {name: frame for name, frame in frames.items() if len(frame)}


def decomposition_dict(found: Decomposition, frames: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Everything again as plain values, for JSON."""
    spread, interaction = found.direct_spread, found.interaction
    return found.to_dict() | {
        "outcome": found.rows.outcome, "mediators": list(found.rows.mediators), "n_rows": found.rows.n_rows,
        "shares": found.shares.tolist(), "sites": _records(frames["sites"]), "compare": _records(frames["compare"]),
        "sensitivity": _records(frames["sensitivity"]) if "sensitivity" in frames else [],
        "covariance": found.cov.to_numpy().tolist(), "zero_covariance_assumed": found.rows.zero_covariance_assumed,
        "direct_spread": {"q": spread.q.stat, "p_value": spread.q.pvalue, "i2": spread.i2, "sd": spread.sd,
                          "lower": spread.lower, "upper": spread.upper},
        "interaction": {"not_applicable": interaction.reason} if isinstance(interaction, NotApplicable) else
        {"statistic": interaction.stat, "p_value": interaction.pvalue},
        "fit_notes": list(found.fit.notes), "versions": versions(),
    }  # fmt: skip


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with labels that JSON has: numbers and text stay, everything else becomes text."""
    return [
        {str(k): v if isinstance(v, int | float | str) else str(v) for k, v in row.items()}
        for row in frame.to_dict("records")
    ]


def decomposition_tables(found: Decomposition, frames: dict[str, pd.DataFrame]) -> dict[str, Table | None]:
    """The tables of the page by name; None for one that has nothing to show."""
    sensitivity = frames.get("sensitivity")
    return {
        "coefficients": _coefficients(found, frames["tidy"]), "effects": _effects(found), "tests": _tests(found),
        "compare": _compare(found, frames["compare"]), "individual": _individual(found),
        "sensitivity": None if sensitivity is None else _sensitivity(found, sensitivity),
        "sites": _sites(found, frames["sites"]),
    }  # fmt: skip


def _set(found: Decomposition, term: str) -> str:
    try:
        return str(found.confidence_set(term))
    except MsmmivError:  # a named method without an estimate
        return ""


def _coefficients(found: Decomposition, tidy: pd.DataFrame) -> Table:
    rows = [
        (r["term"], float(r["estimate"]), float(r["std_error"]), _range(r["conf_low"], r["conf_high"]),
         p_cell(float(r["p_value"])), r["set"])
        for r in tidy.to_dict("records")
    ]  # fmt: skip
    percent = level_words(found.level)
    columns = ("Term", "Estimate", "Std. error", f"{percent} interval", "p", f"{percent} set")
    return make(f"Coefficients: {method_words(found.method)}", columns, rows)


def _effects(found: Decomposition) -> Table:
    rows = [
        (r["effect"], float(r["estimate"]), _range(r["lower"], r["upper"]), p_cell(float(r["p_value"])), r["status"])
        for r in found.effects.to_dict("records")
    ]  # fmt: skip
    columns = ("Effect", "Estimate", f"{level_words(found.level)} set", "p", "Where there is none")
    return _without_blank(make("Average effects at these sites", columns, rows))


def _tests(found: Decomposition) -> Table:
    rows: list[tuple[Any, ...]] = []
    for t in (*found.tests, found.direct_spread.q, found.interaction):
        if isinstance(t, NotApplicable):
            rows.append((t.name, Cell("–"), Cell(""), f"not applicable: {t.reason}", ""))
        else:
            rows.append((t.name, float(t.stat), p_cell(t.pvalue), t.dist, t.null))
    return make("Tests", ("Test", "Statistic", "p", "Reference", "Null hypothesis"), rows)


def _compare(found: Decomposition, frame: pd.DataFrame) -> Table:
    rows = [
        (method_words(str(r["method"])), r["term"], float(r["estimate"]), float(r["std_error"]),
         _range(r["conf_low"], r["conf_high"]), r["status"])
        for r in frame.to_dict("records")
    ]  # fmt: skip
    columns = ("Estimator", "Term", "Estimate", "Std. error", f"its own {level_words(found.level)} interval",
               "Why there is none")  # fmt: skip
    return _without_blank(make("The same rows in other estimators, with their own intervals", columns, rows))


def _individual(found: Decomposition) -> Table | None:
    if not found.individual:
        return None
    rows = [
        (fit.method, r["term"], float(r["estimate"]), float(r["std_error"]), _range(r["conf_low"], r["conf_high"]))
        for fit in found.individual
        for r in fit.tidy(found.level).to_dict("records")
    ]  # fmt: skip
    columns = ("Estimator", "Term", "Estimate", "Std. error", f"{level_words(found.level)} interval")
    return make("From people: treatment included, clustered by site", columns, rows)


def _sensitivity(found: Decomposition, frame: pd.DataFrame) -> Table:
    rows = [
        (r["term"], float(r["correlation"]), float(r["estimate"]), _range(r["lower"], r["upper"]))
        for r in frame.to_dict("records")
    ]  # fmt: skip
    columns = (
        "Mediator",
        "Correlation of the sampling errors",
        "Estimate",
        f"{level_words(found.level)} set",
    )
    return make("What an unknown covariance of itt and compliance would do", columns, rows)


def _sites(found: Decomposition, frame: pd.DataFrame) -> Table:
    shown = frame.sort_values("itt", ascending=False, kind="stable").head(ROWS_SHOWN)
    pairs = [c for c in frame if "_" not in str(c).partition(" ")[0] and c != "row"]
    rows = []
    for r in shown.to_dict("records"):
        cells: list[Any] = [Cell(one_line(r["row"]) or "(blank)")]
        for c in pairs:
            cells.append(float(r[c]))
            kind, space, name = str(c).partition(" ")
            if f"{kind}_lower{space}{name}" in r:
                cells.append(_range(r[f"{kind}_lower{space}{name}"], r[f"{kind}_upper{space}{name}"]))
        rows.append(cells)
    columns, blank = ["Row"], 0
    for c in pairs:
        columns.append(one_line(str(c)).capitalize() if c != "itt" else "Total (itt)")
        kind, space, name = str(c).partition(" ")
        if f"{kind}_lower{space}{name}" in frame:
            columns.append(f"{level_words(found.level)} set" + " " * blank)
            blank += 1
    more = (
        ""
        if len(frame) <= ROWS_SHOWN
        else f" (the first {ROWS_SHOWN} of {len(frame):,}; sites.csv has them all)"
    )
    return make(f"Indirect and direct effect of every row, ordered by the total effect{more}", columns, rows)


def _range(low: float, high: float) -> Cell:
    # Two lines at most: the second end stays with its word.
    return Cell("–" if math.isnan(low) else f"{number(float(low))} to\u00a0{number(float(high))}")


def _without_blank(table: Table) -> Table:
    """The table without columns in which nothing is said."""
    kept = [j for j in range(len(table.columns)) if any(row[j].text not in ("", "–") for row in table.rows)]
    return Table(
        table.caption,
        tuple(table.columns[j] for j in kept),
        tuple(tuple(row[j] for j in kept) for row in table.rows),
    )
