"""Tables of the report: cells with a text and a value to sort by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from msmmiv.diagnose.heterogeneity import Heterogeneity
from msmmiv.estimate.bias import BiasDecomposition
from msmmiv.inference.results import Estimate
from msmmiv.inference.stage import FirstStage
from msmmiv.inference.tests import TestResult, TestStatistic
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.flow import SampleFlow
from msmmiv.show.sets import set_words, term_rows
from msmmiv.show.words import fit_label, number, one_line, p_value

__all__ = ["SITES_SHOWN", "Cell", "Table", "across_sites", "all_estimates", "averages", "bias", "first_stages", "flow",
           "headline", "make", "missing_by_arm", "p_cell", "sites", "tests"]  # fmt: skip

#: Rows of the site table in the report; the file site_effects.csv has them all.
SITES_SHOWN = 250
FULL_UP_TO = 500


@dataclass(frozen=True)
class Cell:
    """A text, and the number it stands for (None for words)."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A caption, column names and rows of cells; the first cell of a row is its header."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers (it is then set flush right)."""
        return column > 0 and any(row[column].value is not None for row in self.rows)


def make(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table from plain values: floats get four digits, integers commas, the rest stays text.

    Examples
    --------
    >>> make("t", ["a", "b"], [["x", 1234]]).rows[0][1]
    Cell(text='1,234', value=1234.0)
    """
    return Table(caption, tuple(columns), tuple(tuple(_cell(v) for v in row) for row in rows))


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return Cell("" if value is None else one_line(value))
    if isinstance(value, int):
        return Cell(f"{value:,}", float(value))
    return Cell(number(float(value)), None if math.isnan(value) else float(value))


def p_cell(value: float) -> Cell:
    """A p value."""
    return Cell(p_value(value), None if math.isnan(value) else float(value))


def headline(fit: Estimate) -> Table:
    """Every term of one fit.

    Examples
    --------
    >>> import msmmiv as mm
    >>> [cell.text for cell in headline(mm.fit(mm.data.star(), "2sls")).rows[0][1:4]]
    ['-1.114', '0.2723', '-1.649 to -0.5781']
    """
    rows = [
        (r.term, r.estimate, r.std_error, set_words(r.found), r.statistic, p_cell(r.p_value),
         Cell(f"{df:.4g}", float(df)))
        for r, df in zip(term_rows(fit), fit.df, strict=True)
    ]  # fmt: skip
    # The statistic of the scores is not estimate over standard error, and is there where these are not.
    statistic = "t of the site scores" if fit.interval == "score" else "t"
    columns = ("Term", "Estimate", "Std. error", "95% confidence set", statistic, "p", "df")
    kind = f" ({fit.small_sample})" if fit.small_sample else ""
    source = "site scores" if fit.interval == "score" else "estimate and standard error"
    caption = f"{fit_label(fit)}: {fit.cov_type} covariance{kind}, sets and p from {source}"
    return make(caption, columns, rows)


def all_estimates(fits: Sequence[Estimate]) -> Table:
    """Mediators and direct effects of every fit (covariates are in estimates.csv)."""
    rows = [
        (fit_label(f), r.term, r.estimate, r.std_error, set_words(r.found), p_cell(r.p_value))
        for f in fits
        for r in term_rows(f)
        if r.term not in f.design.covariates
    ]
    columns = ("Estimate", "Term", "Coefficient", "Std. error", "95% confidence set", "p")
    return make("All estimates; the first is the headline", columns, rows)


def across_sites(found: Heterogeneity) -> Table | None:
    """Mean, spread and prediction, mediator by mediator; None where none of them exists.

    Examples
    --------
    >>> import msmmiv as mm
    >>> across_sites(mm.Study(mm.data.star()).heterogeneity()).rows[0][4].text
    '-1.790 to -0.5885'
    """
    if not (math.isfinite(found.centre.sum()) or math.isfinite(found.spread.sum())):
        return None
    ends = found.spread_interval if len(found.mediators) == 1 else [float("nan")] * 2
    rows = [
        (m, float(found.centre[j]), float(found.spread[j]), _range(*ends), _range(*found.prediction[j]))
        for j, m in enumerate(found.mediators)
    ]
    columns = ("Mediator", "Mean effect", "Standard deviation across sites", "its 95% interval",
               "95% interval for a new site")  # fmt: skip
    return make("How the effects differ between sites, beyond sampling error", columns, rows)


def averages(found: Heterogeneity) -> Table | None:
    """The averages of site effects under different weights; None with a direct effect."""
    if not found.estimands:
        return None
    rows = [
        (m, e.name, *(("–", e.status) if e.status else (float(e.estimate[j]), float(e.std_errors[j]))))
        for j, m in enumerate(found.mediators)
        for e in found.estimands
    ]
    return make("Averages under different weights", ("Mediator", "Weights", "Average", "Std. error"), rows)


def bias(found: BiasDecomposition) -> Table:
    """What 2SLS estimates, part by part, and what was observed."""
    rows: list[Sequence[Any]] = []
    for j, m in enumerate(found.mediators):
        rows += [
            (m, p.name, f"{p.meaning}: {p.status}", Cell("–"), Cell(""))
            if p.status
            else (m, p.name, p.meaning, *_no_dust(p.estimate[j], p.std_errors[j], scale=found.observed[j]))
            for p in found.parts
        ]
        rows.append((m, "expected 2SLS", "the sum of these parts", float(found.expected[j]), Cell("")))
        rows.append((m, "observed 2SLS", "what the data gave", float(found.observed[j]), Cell("")))
    columns = ("Mediator", "Part", "Meaning", "Size", "Std. error")
    return make("Why two-stage least squares may miss the average effect", columns, rows)


def _no_dust(*values: float, scale: float) -> tuple[float, ...]:
    """The values, with those that are a zero that went through arithmetic as zero.

    >>> _no_dust(1e-16, 0.2, scale=-0.7)
    (0.0, 0.2)
    """
    return tuple(0.0 if abs(v) <= 1e-12 * abs(scale) else float(v) for v in values)


def _range(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{number(float(low))} to {number(float(high))}"


def first_stages(fit: Estimate) -> Table:
    """Strength of the instruments, mediator by mediator, and the reduced form."""
    rows = [_stage(stage, "first stage") for stage in fit.first_stage]
    rows.append(_stage(fit.reduced_form, "reduced form"))
    columns = (
        "Variable",
        "Regression",
        "F, classical",
        "df",
        "p",
        "Partial R²",
        "R²",
        f"F, {fit.cov_type}",
        "p ",
    )
    return make("Regressions of mediators and outcome on the site-by-treatment instruments", columns, rows)


def _stage(stage: FirstStage, kind: str) -> tuple[Any, ...]:
    plain, robust = stage.f_classical, stage.f_robust
    same = isinstance(robust, TestStatistic)
    return (
        stage.variable, kind, plain.stat, plain.dist, p_cell(plain.pvalue), stage.partial_r2, stage.r2,
        robust.stat if same else Cell("not available"), p_cell(robust.pvalue) if same else Cell(""),
    )  # fmt: skip


def tests(fit: Estimate) -> Table:
    """Over-identification and endogeneity."""
    found: tuple[TestResult, ...] = (fit.sargan, fit.basmann, fit.wu_hausman, fit.wu_hausman_robust)
    rows = [
        (t.name, t.stat, t.dist, p_cell(t.pvalue), t.null)
        if isinstance(t, TestStatistic)
        else (t.name, Cell("–"), "", Cell(""), f"not applicable: {t.reason}")
        for t in found
    ]
    return make("Tests", ("Test", "Statistic", "Reference", "p", "Null hypothesis"), rows)


def flow(steps: SampleFlow) -> Table:
    """Rows from the data to the estimate."""
    rows = [(r["step"], int(r["rows"]), int(r["left"])) for r in steps.to_frame().to_dict("records")]
    return make("Rows at each step", ("Step", "Rows", "Left"), rows)


def missing_by_arm(moments: Moments) -> Table | None:
    """Missing rows by arm and column, beside the rows used; None where nothing is missing."""
    if not moments.flow.missing_cells:
        return None
    used: dict[str, float] = {}
    if moments.arms:
        for arm, n in zip(moments.arm, moments.n, strict=True):
            used[str(moments.arms[arm])] = used.get(str(moments.arms[arm]), 0.0) + float(n)
    lost: dict[tuple[str, str], int] = {}
    for count in moments.flow.missing_cells:
        key = ("unknown" if count.arm is None else str(count.arm), count.column)
        lost[key] = lost.get(key, 0) + count.rows
    rows = [
        (arm, column, rows_lost, int(used[arm]) if arm in used else Cell("–"))
        for (arm, column), rows_lost in sorted(lost.items())
    ]
    return make("Missing values by arm", ("Arm", "Column", "Rows missing it", "Rows used in this arm"), rows)


def sites(effects: SiteEffects) -> Table:
    """The site table; with very many sites the largest by weight."""
    frame = effects.to_frame()
    caption = f"Effects in all {len(effects.sites):,} sites"
    if len(frame) > FULL_UP_TO:
        largest = frame["weight"].sort_values(ascending=False, kind="stable").index[:SITES_SHOWN]
        caption = (
            f"The {SITES_SHOWN} of {len(frame):,} rows with the largest weight; site_effects.csv has them all"
        )
        frame = frame.loc[largest]
    caption += f". Standard errors: {effects.error_kind}"
    titles = {"site": "Site", "arm": "Arm", "n": "Rows", "weight": "Weight", "itt": effects.outcome}
    titles["itt_se"] = "std. error"
    for m in effects.mediators:
        titles |= {m: m, f"{m}_se": "std. error"}
    kept = [c for c in frame if c in titles]
    rows = zip(*(_column(frame[c], str(c)) for c in kept), strict=True)
    return make(caption, [one_line(titles[c]) for c in kept], rows)


def _column(values: pd.Series[Any], name: str) -> list[Cell]:
    if name in ("site", "arm"):
        return [_label(v) for v in values]
    numbers = values.to_numpy(dtype=float)
    if name == "n":
        return [Cell(number(v) if math.isnan(v) else f"{v:,.0f}", float(v)) for v in numbers]
    # A standard error of 4e-16 is a zero that went through arithmetic.
    floor = 1e-12 * max((abs(v) for v in numbers if math.isfinite(v)), default=0.0)
    return [_cell(0.0 if abs(v) <= floor else float(v)) for v in numbers]


def _label(value: Any) -> Cell:
    """A site or arm: its own spelling, sorted by value where it is a number."""
    return Cell(one_line(value) or "(blank)", float(value) if isinstance(value, int | float) else None)
