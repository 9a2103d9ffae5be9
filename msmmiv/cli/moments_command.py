"""`msmmiv moments`: make, merge and look at the files that agencies exchange instead of persons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

import msmmiv as mm
from msmmiv.audit.json_values import json_text
from msmmiv.cli.commands import main
from msmmiv.cli.files import check_file, check_name, paths_of, whole_file
from msmmiv.cli.options import plain_words, with_json, with_roles
from msmmiv.cli.sources import read_persons
from msmmiv.errors import count, listing
from msmmiv.moments.cells import Missing, SmallCells
from msmmiv.moments.data_file import is_moments
from msmmiv.moments.exchange import FORMAT, read_table
from msmmiv.show.words import one_line, short

__all__ = ["moments_group"]

_SMALL = 10


def _check_out(out: str, given: Sequence[str]) -> None:
    """Refuse a name that cannot be written, or must not be, before anything is read."""
    if check_name(out).suffix.lower() not in (".csv", ".parquet"):
        raise click.UsageError(f"--out {out!r}: a moments file ends in .csv or .parquet.")
    if any(Path(p).resolve() == Path(out).resolve() for p in given):
        raise click.UsageError(f"--out {out!r} is one of the files to read; write to another name.")


def _save(moments: mm.Moments, out: str, **options: Any) -> None:
    with whole_file(out) as path:
        moments.save(path, **options)


@main.group(name="moments", short_help="Make, merge and inspect moments files, which hold no person's row.")
def moments_group() -> None:
    """Make, merge and inspect moments files: sums by site and arm that hold no person's row.

    A moments file (CSV or Parquet) holds a count, means and centred cross-products for every cell, with the roles, the
    sample flow and a seal. Each agency makes one; merged they give the analysis that all persons together give.

    \b
    msmmiv moments make trial.csv -y score -t treated -m hours -s school --out moments.csv
    """  # noqa: D301 - click reads the control character


@moments_group.command(short_help="Sum persons by site and arm into a moments file.")
@with_roles
@click.option("--out", metavar="FILE", required=True, help="Moments file: .csv or .parquet.")
@click.option("--min-cell", type=click.IntRange(min=1), help="Smallest number of rows that a cell may have.")
@click.option("--small-cells", type=click.Choice(get_args(SmallCells)),
              help="Smaller cells stop everything (default), or are left out and counted.")  # fmt: skip
def make(
    file: str,
    out: str,
    min_cell: int | None,
    small_cells: SmallCells | None,
    missing: Missing | None,
    **roles: Any,
) -> None:
    """Sum the persons in FILE (CSV or Parquet, a glob of several) by site and arm, and write a moments file.

    Without --min-cell cells may be as small as one row, and a cell of one row is a person.

    \b
    msmmiv moments make trial.csv -y score -t treated -m hours -s school --out moments.csv --min-cell 10
    """  # noqa: D301 - click reads the control character
    with plain_words():
        paths = paths_of(file)
        _check_out(out, paths)
        if any(is_moments(Path(p)) for p in paths):
            raise click.UsageError(f"{file!r} holds moments already; see msmmiv moments inspect and merge.")
        given = {k: v for k, v in roles.items() if v not in (None, ())}
        found = read_persons(
            file, given, lambda rows, d: mm.Moments.from_data(rows, d, missing=missing or "error")
        )
        _save(found, out, min_cell=min_cell, small_cells=small_cells or "refuse")
        left = count(found.n_cells, "cell") + f", {found.n.sum():,.0f} rows"
        if small_cells == "suppress":
            kept = mm.Moments.load(out)
            left = f"{count(kept.n_cells, 'cell')}, {kept.n.sum():,.0f} rows of {found.n.sum():,.0f}"
        click.echo(f"Moments: {Path(out)} ({count(found.n_sites, 'site')}, {left})")


@moments_group.command(short_help="Merge moments files over different people into one.")
@click.argument("files", nargs=-1, required=True)
@click.option("--out", metavar="FILE", required=True, help="Moments file: .csv or .parquet.")
@click.option("--min-cell", type=click.IntRange(min=1), help="Smallest number of rows that a cell may have.")
def merge(files: tuple[str, ...], out: str, min_cell: int | None) -> None:
    """Merge moments FILES of the same design over different people into one.

    The same file twice is refused; people who are in two different files cannot be noticed.

    \b
    msmmiv moments merge north.csv south.csv --out both.csv
    """  # noqa: D301 - click reads the control character
    with plain_words():
        paths = [path for file in files for path in paths_of(file)]
        if len(paths) < 2:
            raise click.UsageError("Merging needs two moments files or more.")
        _check_out(out, paths)
        found = mm.Moments.load(*paths)
        _save(found, out, min_cell=min_cell)
        words = f"{count(found.n_sites, 'site')}, {count(found.n_cells, 'cell')}, {found.n.sum():,.0f} rows"
        click.echo(f"Moments: {Path(out)} ({len(paths)} files; {words})")


@moments_group.command(short_help="Show roles, sites, cells, the smallest cell and the sample flow.")
@click.argument("file")
@with_json
def inspect(file: str, as_json: bool) -> None:
    """Show what a moments FILE holds: roles, sites, cells, the smallest cell, and the sample flow.

    The seal is checked: a file that was altered is refused.

    \b
    msmmiv moments inspect moments.csv
    """  # noqa: D301 - click reads the control character
    with plain_words():
        seal, _ = read_table(check_file(file))
        moments = mm.Moments.load(file)
        if as_json:
            click.echo(json_text(_values(file, seal, moments)), nl=False)
        else:
            click.echo("\n".join(_lines(file, seal, moments)))


def _cell(moments: mm.Moments, cell: int) -> dict[str, Any]:
    """The labels of a cell and its rows."""
    out: dict[str, Any] = {"site": moments.sites[moments.site[cell]]}
    if moments.blocks:
        out["block"] = moments.blocks[moments.block[cell]][1]
    if moments.arms:
        out["arm"] = moments.arms[moments.arm[cell]]
    if moments.clusters:
        out["cluster"] = moments.clusters[moments.cluster[cell]]
    return out | {"rows": float(moments.n[cell])}


def _values(file: str, seal: str, moments: mm.Moments) -> dict[str, Any]:
    smallest = _cell(moments, int(moments.n.argmin()))
    return {
        "file": file, "format": FORMAT, "sha256": seal, "design": moments.design.to_dict(), "sites": moments.sites,
        "arms": moments.arms, "blocks": len(moments.blocks), "clusters": len(moments.clusters),
        "cells": moments.n_cells, "rows": float(moments.n.sum()), "smallest_cell": smallest,
        "cells_of_one_row": int(np.sum(moments.n == 1)), f"cells_below_{_SMALL}_rows": int(np.sum(moments.n < _SMALL)),
        "flow": moments.flow.to_dict(),
    }  # fmt: skip


def _lines(file: str, seal: str, moments: mm.Moments) -> list[str]:
    smallest = _cell(moments, int(moments.n.argmin()))
    rows = smallest.pop("rows")
    where = ", ".join(f"{key} {short(label)}" for key, label in smallest.items())
    counts = [count(moments.n_sites, "site")]
    counts += [f"arms {listing(map(short, moments.arms))}"] if moments.arms else []
    counts += [count(len(v), n) for v, n in ((moments.blocks, "block"), (moments.clusters, "cluster")) if v]
    alone, few = int(np.sum(moments.n == 1)), int(np.sum(moments.n < _SMALL))
    lines = [
        f"Moments file {one_line(file)}: {FORMAT}, seal {seal[:12]} intact", "", "ROLES",
        *map(one_line, str(moments.design).splitlines()), "", "CELLS",
        f"{', '.join(counts)}; {count(moments.n_cells, 'cell')} with {moments.n.sum():,.0f} rows",
        f"smallest cell: {count(int(rows), 'row')} ({where}); {count(few, 'cell')} below {_SMALL} rows",
    ]  # fmt: skip
    if alone:
        lines.append(
            f"{count(alone, 'cell')} of one row: the means of such a cell are the values of a person. Make the file "
            "again with --min-cell before it leaves the house."
        )
    flow = moments.flow.to_frame()
    steps = zip(flow["rows"], flow["step"], strict=True)
    return [*lines, "", "SAMPLE", *(f"{rows:>12,}  {one_line(step)}" for rows, step in steps)]
