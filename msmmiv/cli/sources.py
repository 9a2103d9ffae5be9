"""What a command reads: persons, moments files or a table of published estimates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click
import pandas as pd

import msmmiv as mm
from msmmiv.audit.checks import design_of
from msmmiv.cli.files import check_file, paths_of
from msmmiv.cli.options import TABLE_COLUMNS
from msmmiv.errors import ColumnError, TreatmentError, listing
from msmmiv.moments.cells import Missing
from msmmiv.moments.data_file import DataFile, is_moments
from msmmiv.moments.published import (
    guess_columns,
    read_shares,
    read_site_covariates,
    read_table,
    table_shares,
)

__all__ = ["arguments_of", "audited", "read_persons", "shares_of", "source_of", "study_of"]

T = TypeVar("T")


def source_of(
    file: str, given: dict[str, Any], missing: Missing | None
) -> tuple[mm.Study | mm.SiteEffects, list[str] | None, pd.DataFrame | None]:
    """What FILE holds, the mediators that were selected, and the table itself: moments, persons or a table."""
    columns = {k: given.pop(k) for k in TABLE_COLUMNS}
    roles = {k: v for k, v in given.items() if v not in (None, ())}
    options = [f"--{k.replace('_', '-')}" for k, v in columns.items() if v not in (None, ())]
    moments = any(is_moments(Path(p)) for p in paths_of(file))
    if moments or set(roles) - {"site", "memory_limit"}:
        if options:
            kind = "these are moments" if moments else "-y, -t and -m are about persons"
            raise click.UsageError(f"Leave out {listing(options)}, columns of a table of estimates: {kind}.")
        selected = list(roles.pop("mediators", ())) if moments else None
        return study_of(file, roles if moments else given, missing), selected or None, None
    for option, value in (("--missing", missing), ("--memory-limit", given["memory_limit"])):
        if value is not None:
            raise click.UsageError(f"{option} is for persons; a table has one row per site.")
    table = read_table(file, given["site"])
    try:
        found = guess_columns([str(c) for c in table], site=given["site"], **columns)
    except ColumnError as error:
        if options:
            raise
        raise ColumnError(f"{error} For a file of persons give -y, -t, -m and -s.") from error
    return mm.SiteEffects.from_table(table, **found), None, table


def shares_of(
    shares: str | None, source: mm.Study | mm.SiteEffects, table: pd.DataFrame | None, *, site: str
) -> Any:
    """Shares from a file, or from a column of the table."""
    if shares is None:
        return None
    if isinstance(source, mm.Study):
        return read_shares(shares, source.moments.sites, site=source.design.site)
    return table_shares(pd.DataFrame() if table is None else table, shares, source.sites, site=site)


def study_of(file: str, given: dict[str, Any], missing: Missing | None) -> mm.Study:
    """The study of a file of persons with its roles, or of moments files, which carry theirs."""
    roles = {k: v for k, v in given.items() if v not in (None, ())}
    paths = paths_of(file)
    kinds = {is_moments(Path(p)) for p in paths}
    if kinds == {True}:
        if extra := [*roles, *["missing"] * (missing is not None)]:
            raise click.UsageError(
                f"{file!r} holds moments, which carry their own roles; leave out the options for {listing(extra)}."
            )
        return mm.Study(mm.Moments.load(*paths))
    if kinds == {True, False}:
        raise click.UsageError(f"{file!r} matches moments files and other files; analyse them apart.")
    return read_persons(file, roles, lambda rows, design: mm.Study(rows, design, missing=missing or "error"))


def read_persons(file: str, given: dict[str, Any], read: Callable[[DataFile, mm.Design], T]) -> T:
    """What ``read`` makes of the rows and the design; the reference arm is tried as a number and as a word."""
    roles = dict(given)
    rows = DataFile((file,), memory_limit=roles.pop("memory_limit", None))
    needed = {"outcome": "-y", "treatment": "-t", "mediators": "-m", "site": "-s"}
    absent = [f"{option} ({name.removesuffix('s')})" for name, option in needed.items() if name not in roles]
    if absent:
        raise click.UsageError(f"Say which column is which: {', '.join(absent)} missing.")
    labels = _labels(roles.pop("control", None))
    try:
        return read(rows, mm.Design(**roles, control=labels[0]))
    except TreatmentError:
        for other in labels[1:]:
            with suppress(TreatmentError):
                return read(rows, mm.Design(**roles, control=other))
        raise


def arguments_of(given: tuple[str, ...]) -> dict[str, str]:
    """Arguments for assumptions from ``NUMBER=TEXT``.

    >>> arguments_of(("ii=Nothing else came with it.",))
    {'ii': 'Nothing else came with it.'}
    """
    out: dict[str, str] = {}
    for item in given:
        number, sign, text = item.partition("=")
        if not sign or not text.strip():
            raise click.UsageError(
                f"--argue {item!r}: write NUMBER=TEXT, such as 'ii=Nothing else came with it.'"
            )
        if number.strip() in out:
            raise click.UsageError(f"--argue gives two arguments for {number.strip()}; give one.")
        out[number.strip()] = text.strip()
    return out


def audited(
    source: mm.Study | mm.SiteEffects,
    *,
    edges: tuple[str, ...],
    without: tuple[str, ...],
    site_covariates: str | None,
    **options: Any,
) -> mm.Audit:
    """The audit of a study or a table: the graph of parallel mediators with edges added and taken out, covariates."""
    if isinstance(source, mm.Study):
        design, sites = source.design, source.moments.sites
        site = design.site
    else:
        design, sites, site = design_of(source), source.sites, "site"
    dag = mm.CausalDAG.from_design(design, edges=edges, without=without) if edges or without else None
    table = read_site_covariates(check_file(site_covariates), sites, site=site) if site_covariates else None
    if isinstance(source, mm.Study):
        return source.audit(dag, site_covariates=table, **options)
    return mm.audit_assumptions(source, dag=dag, site_covariates=table, **options)


def _labels(text: str | None) -> list[Any]:
    """What the reference arm may be called in the file, likelier first: the shell gives text only.

    >>> _labels("2"), _labels("no"), _labels("placebo"), _labels(None)
    ([2, '2'], ['no', False], ['placebo'], [None])
    """
    if text is None:
        return [None]
    for kind in (int, float):
        with suppress(ValueError):
            return [kind(text), text]
    word = {"no": False, "false": False, "yes": True, "true": True}.get(text.casefold())
    return [text] if word is None else [text, word]
