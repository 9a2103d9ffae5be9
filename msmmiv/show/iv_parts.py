"""How the instrumental-variables table is laid out: columns, lines and notes, from finished results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msmmiv.diagnose.rank import RankReport
from msmmiv.diagnose.strength import RankTest
from msmmiv.errors import DataError, MsmmivError
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.inference.stage import FirstStage
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.inference.weak_iv import anderson_rubin_set, anderson_rubin_test
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.formats import Line, Sheet
from msmmiv.show.gather import AR_SITES, AR_SITES_SEVERAL
from msmmiv.show.sets import set_words, why
from msmmiv.show.words import method_words, number, one_line, p_value, short

__all__ = [
    "Column",
    "Parts",
    "Wanted",
    "anderson_rubin",
    "column_records",
    "columns_of",
    "laid_out",
    "shared_tests",
]

_NONE = "none"


@dataclass(frozen=True)
class Wanted:
    """What the reader asked for."""

    covariates: bool
    stars: tuple[float, ...]
    title: str


@dataclass(frozen=True, eq=False)
class Parts:
    """Results that a table is made from.

    Attributes
    ----------
    fits : tuple of Estimate
    stages : Estimate
        Whose first stages and reduced form are shown.
    missing : tuple of (str, str)
        Estimators without a fit, and why.
    rank : RankReport or None
    j : TestResult or None
    ar_sets : tuple of ConfidenceSet or NotApplicable
    ar_test : TestResult or None
        That all mediator effects are zero.
    title : str
    """

    fits: tuple[Estimate, ...]
    stages: Estimate
    missing: tuple[tuple[str, str], ...] = ()
    rank: RankReport | None = None
    j: TestResult | None = None
    ar_sets: tuple[ConfidenceSet | NotApplicable, ...] = ()
    ar_test: TestResult | None = None
    title: str = ""


@dataclass(frozen=True, eq=False)
class Column:
    """A fit, a regression on the instruments, or an estimator without a fit."""

    head: str
    variable: str
    fit: Estimate | None = None
    stage: FirstStage | None = None
    cells: dict[str, str] = field(default_factory=dict)


def anderson_rubin(
    effects: SiteEffects | NotApplicable, fit: Estimate, *, sites: int | None
) -> tuple[tuple[ConfidenceSet | NotApplicable, ...], TestResult]:
    """Sets of the mediators (not where ``sites`` is None, or so many that they take long), and the test of zero."""
    names, free = fit.design.mediators, fit.direct_effect
    if isinstance(effects, NotApplicable):
        return (effects,) * (len(names) if sites else 0), effects
    found: list[ConfidenceSet | NotApplicable] = []
    most = AR_SITES_SEVERAL if len(names) > 1 or free else AR_SITES
    for name in names if sites else ():
        if sites and sites > most:
            found.append(
                NotApplicable(name, f"with {sites:,} sites it takes long; study.anderson_rubin_set() has it")
            )
            continue
        try:
            found.append(anderson_rubin_set(effects, name, direct_effect=free))
        except MsmmivError as error:
            found.append(NotApplicable(name, one_line(error)))
    test: TestResult
    try:
        test = anderson_rubin_test(effects, np.zeros(len(names)), direct_effect=free)
    except MsmmivError as error:
        test = NotApplicable("Anderson-Rubin", one_line(error))
    return tuple(found), test


def laid_out(parts: Parts, wanted: Wanted, notes: tuple[str, ...]) -> Sheet:
    """The table as texts."""
    columns = columns_of(parts)
    heads = (
        ("", *(f"({j})" for j in range(1, len(columns) + 1))),
        ("", *(c.head for c in columns)),
        ("", *(short(c.variable) for c in columns)),
    )
    lines = [Line((short(t, 32) if i == 0 else "", *cells)) for t in _terms(parts, wanted)
             for i, cells in enumerate(_term_cells(columns, t, wanted))]  # fmt: skip
    for block in (_regressions(columns), _diagnostics(columns, parts), _sample(columns)):
        filled = [(name, cells) for name, cells in block if any(cells)]
        lines += [Line((name, *cells), rule=i == 0) for i, (name, cells) in enumerate(filled)]
    outcome = parts.fits[0].design.outcome
    title = wanted.title or parts.title or f"Effects on {one_line(outcome)}"
    return Sheet(one_line(title), heads, tuple(lines), notes)


def column_records(parts: Parts, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Every number of the table, at full precision."""
    columns = columns_of(parts)
    for j, c in enumerate(columns, start=1):
        base = {"column": j, "model": c.head, "variable": c.variable, "term": "", "text": "", "status": ""}
        if c.fit is not None:
            yield from _fit_records(c.fit, base, _terms(parts, wanted))
        if c.stage is not None:
            test = _stage_test(c.stage)
            values = {"partial_r2": c.stage.partial_r2, "f": test.stat, "f_p": test.pvalue}
            yield from (base | {"quantity": k, "value": v} for k, v in values.items())
    base = {"column": 0, "model": "", "variable": "", "term": "", "text": "", "status": ""}
    for name, test, value in shared_tests(parts):
        reason = test.reason if isinstance(test, NotApplicable) else ""
        yield base | {"quantity": name, "value": value, "text": test.dist, "status": reason}
        yield base | {"quantity": f"{name}, p", "value": test.pvalue, "text": test.dist, "status": reason}
    for m, found in zip(parts.stages.design.mediators, parts.ar_sets, strict=False):
        known = isinstance(found, ConfidenceSet)
        yield base | {
            "quantity": "Anderson-Rubin set", "term": m, "value": math.nan,
            "text": set_words(found) if isinstance(found, ConfidenceSet) else "",
            "status": "" if known else found.reason,  # type: ignore[union-attr]
        }  # fmt: skip


def _fit_records(fit: Estimate, base: dict[str, Any], terms: list[str]) -> Iterator[dict[str, Any]]:
    for row in fit.tidy().itertuples(index=False):
        if row.term in terms:
            here = base | {"term": row.term, "status": why(fit)}
            for name in ("estimate", "std_error", "p_value"):
                yield here | {"quantity": name, "value": getattr(row, name)}
            yield here | {"quantity": "set", "value": math.nan, "text": set_words(_set(fit, str(row.term)))}
    values = {
        "rows": fit.nobs,
        "sites": fit.n_sites,
        "clusters": fit.n_clusters,
        "instruments": fit.n_instruments,
    }
    yield from (base | {"quantity": k, "value": v} for k, v in values.items() if v is not None)


def columns_of(parts: Parts) -> list[Column]:
    """The columns in their order: least squares, the regressions on the instruments, the other estimators."""
    outcome, stages = parts.fits[0].design.outcome, parts.stages
    fits = [Column(method_words(f), outcome, fit=f) for f in parts.fits]
    missing = [Column(name, outcome) for name, _ in parts.missing]
    first = [Column("Reduced form", outcome, stage=stages.reduced_form)]
    first += [Column("First stage", s.variable, stage=s) for s in stages.first_stage]
    ols = [c for c in (*fits, *missing) if c.head == "OLS"]
    rest = [c for c in (*fits, *missing) if c.head != "OLS"]
    known = {"2SLS": 0, "LIML": 1, "UJIVE": 2}
    if missing:  # keeps its place among the others
        rest.sort(key=lambda c: known.get(c.head, len(known)))
    return [*ols, *first, *rest]


def _terms(parts: Parts, wanted: Wanted) -> list[str]:
    names = dict.fromkeys(t for f in parts.fits for t in f.terms)
    return [t for t in names if wanted.covariates or t not in parts.fits[0].design.covariates]


def _term_cells(columns: list[Column], term: str, wanted: Wanted) -> list[tuple[str, ...]]:
    """Estimate, standard error and set of one term, one line each."""
    cells = [_cells(c, term, wanted) for c in columns]
    return [tuple(c[i] for c in cells) for i in range(3)]


def _cells(column: Column, term: str, wanted: Wanted) -> tuple[str, str, str]:
    fit = column.fit
    if fit is None:
        return ("" if column.stage else _NONE, "", "")
    if term not in fit.terms:
        return "", "", ""
    j = fit.terms.index(term)
    found = f"[{_set_text(_set(fit, term))}]"
    if fit.status is not None:
        return _NONE, "", found
    p = float(fit.pvalues.iloc[j])
    stars = "*" * sum(p < level for level in wanted.stars)
    error = float(fit.std_errors.iloc[j])
    return f"{number(float(fit.coefficients[j]))}{stars}", f"({number(error)})", found


def _set(fit: Estimate, term: str) -> ConfidenceSet | None:
    try:
        return fit.confidence_set(term)
    except DataError:  # neither an estimate nor a test that does without
        return None


def _set_text(found: ConfidenceSet | None) -> str:
    if found is not None and found.shape == "interval":
        low, high = found.hull
        return f"{number(low)}, {number(high)}"
    return set_words(found)


def _regressions(columns: list[Column]) -> list[tuple[str, list[str]]]:
    """What a table can show of regressions with a coefficient for every site."""
    stages = [c.stage for c in columns]
    tests = [None if s is None else _stage_test(s) for s in stages]
    return [
        ("Instruments", [_instruments(c) for c in columns]),
        ("Partial R²", ["" if s is None else number(s.partial_r2, 3) for s in stages]),
        ("F of the instruments", ["" if t is None else _or_none(number(t.stat)) for t in tests]),
        ("p", ["" if t is None else _or_none(p_value(t.pvalue)) for t in tests]),
    ]


def _instruments(column: Column) -> str:
    if column.stage is not None:
        return f"{len(column.stage.coefficients):,}"
    return "" if column.fit is None or column.fit.method == "ols" else f"{column.fit.n_instruments:,}"


def _or_none(text: str) -> str:
    return _NONE if text == "–" else text


def _stage_test(stage: FirstStage) -> TestResult:
    """The robust F; the classical one where there is none."""
    return stage.f_robust if isinstance(stage.f_robust, TestStatistic) else stage.f_classical


def _diagnostics(columns: list[Column], parts: Parts) -> list[tuple[str, list[str]]]:
    """Tests about the instruments, in the columns of first stages and of two-stage least squares."""
    out = []
    if parts.rank is not None:
        strength = parts.rank.strength.set_index("mediator")["conditional_f"].to_dict()
        found = [
            _or_none(number(float(strength[c.variable]))) if c.head == "First stage" else "" for c in columns
        ]
        out.append(("Sanderson-Windmeijer F", found))
    at = _home(columns)
    for name, test, value in shared_tests(parts):
        out.append((name, _only(columns, at, _or_none(number(value)))))
        if not name.endswith("Wald F"):
            df = f" ({test.df} df)" if isinstance(test, TestStatistic) else ""
            out.append((f"  p{df}", _only(columns, at, _or_none(p_value(test.pvalue)))))
    for m, found_set in zip(parts.stages.design.mediators, parts.ar_sets, strict=False):
        text = f"[{_set_text(found_set)}]" if isinstance(found_set, ConfidenceSet) else _NONE
        out.append((f"Anderson-Rubin set, {short(m, 20)}", _only(columns, at, text)))
    return out


def shared_tests(parts: Parts) -> list[tuple[str, TestResult, float]]:
    """Tests of the whole system: name, result, and the number that is printed."""
    out: list[tuple[str, TestResult, float]] = []
    for name, test, value in _rank_tests(parts):
        out.append((name, test, value))
    if parts.j is not None:
        out.append(("Hansen J", parts.j, parts.j.stat))
    if parts.ar_test is not None:
        out.append(("Anderson-Rubin, all effects zero", parts.ar_test, parts.ar_test.stat))
    return out


def _rank_tests(parts: Parts) -> Iterator[tuple[str, TestResult, float]]:
    """Kleibergen and Paap's statistics: by cluster where the design has one, LM with its p, Wald as F."""
    if parts.rank is None:
        return
    level = "cluster" if parts.stages.design.cluster else "robust"
    found: list[RankTest] = [
        t for t in parts.rank.tests if t.covariance == level and "Kleibergen" in t.test.name
    ]
    for form, name in (("LM", "Kleibergen-Paap rk LM"), ("Wald", "Kleibergen-Paap rk Wald F")):
        # One result without form stands for both where neither exists.
        same = [t for t in found if t.test.name.endswith(form)] or found
        if same:
            yield name, same[0].test, same[0].test.stat if form == "LM" else same[0].printed


def _home(columns: list[Column]) -> int:
    """The column for tests of the whole system: two-stage least squares, else the first that uses instruments."""
    names = [c.head for c in columns]
    if "2SLS" in names:
        return names.index("2SLS")
    using = [i for i, c in enumerate(columns) if c.stage is None and c.head != "OLS"]
    return using[0] if using else len(columns) - 1


def _only(columns: list[Column], at: int, text: str) -> list[str]:
    return [text if i == at else "" for i in range(len(columns))]


def _sample(columns: list[Column]) -> list[tuple[str, list[str]]]:
    kinds = []
    for c in columns:
        if c.stage is not None:
            robust = isinstance(c.stage.f_robust, TestStatistic)
            label = c.stage.f_robust.name.rpartition("(")[2].rstrip(")") if robust else "classical"
            kinds.append(label)
        else:
            kinds.append("" if c.fit is None else _covariance(c.fit))
    fits = [c.fit for c in columns]
    return [
        ("Covariance", kinds),
        ("Sites", ["" if f is None else f"{f.n_sites:,}" for f in fits]),
        ("Clusters", ["" if f is None or not f.n_clusters else f"{f.n_clusters:,}" for f in fits]),
        ("Rows", ["" if f is None else f"{f.nobs:,}" for f in fits]),
        ("Rows dropped", ["" if f is None else f"{f.flow.rows_in - f.flow.rows_used:,}" for f in fits]),
        ("Sites dropped", ["" if f is None else f"{len(f.flow.dropped):,}" for f in fits]),
    ]  # fmt: skip


def _covariance(fit: Estimate) -> str:
    return fit.cov_type + (f" {fit.small_sample}" if fit.small_sample else "")
