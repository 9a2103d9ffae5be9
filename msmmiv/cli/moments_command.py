"""`msmmiv moments`: make, merge and look at the files that agencies exchange instead of persons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

import msmmiv as mm
from msmmiv.audit.json_values import json_text
from msmmiv.cli.commands import main
from msmmiv.cli.files import check_file, check_name, paths_of
from msmmiv.cli.options import plain_words, with_json, with_roles
from msmmiv.cli.sources import read_persons
from msmmiv.errors import count, listing
from msmmiv.moments.cells import Missing
from msmmiv.moments.data_file import is_moments
from msmmiv.moments.exchange import MomentsFile, read_table
from msmmiv.moments.merging import EqualCells, SharedSites
from msmmiv.moments.small_cells import SmallCells, cells_told
from msmmiv.show.words import one_line, short

__all__ = ["moments_group"]

_SMALL = 10
_REMEDY = "Make the file again with --min-cell before it leaves the house."
_COPIES = "Rows are copies (frequency weights): one person can be a whole cell, which no number here shows."


def _check_out(out: str, given: Sequence[str]) -> None:
    """Refuse a name that cannot be written, or must not be, before anything is read."""
    if check_name(out).suffix.lower() not in (".csv", ".parquet"):
        raise click.UsageError(f"--out {out!r}: a moments file ends in .csv or .parquet.")
    if any(Path(p).resolve() == Path(out).resolve() for p in given):
        raise click.UsageError(f"--out {out!r} is one of the files to read; write to another name.")


def _units_of(given: tuple[str, ...]) -> dict[str, str]:
    """Units from ``COLUMN=UNIT``.

    >>> _units_of(("hours=hours a week",))
    {'hours': 'hours a week'}
    """
    out: dict[str, str] = {}
    for item in given:
        column, sign, unit = item.partition("=")
        if not sign or not unit.strip():
            raise click.UsageError(f"--unit {item!r}: write COLUMN=UNIT, such as 'hours=hours a week'.")
        if out.setdefault(column, unit.strip()) != unit.strip():
            raise click.UsageError(f"--unit gives two units for {column!r}; give one.")
    return out


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
@click.option("--unit", "units", metavar="COLUMN=UNIT", multiple=True,
              help="What a column is counted in; repeat for several.")  # fmt: skip
@with_json
def make(
    file: str,
    out: str,
    min_cell: int | None,
    small_cells: SmallCells | None,
    missing: Missing | None,
    units: tuple[str, ...],
    as_json: bool,
    **roles: Any,
) -> None:
    """Sum the persons in FILE (CSV or Parquet, a glob of several) by site and arm, and write a moments file.

    Without --min-cell cells may be as small as one row, and a cell of one row is a person. With --small-cells suppress
    the cells left out are said here, and what that does to the estimates; the file holds neither.

    \b
    msmmiv moments make trial.csv -y score -t treated -m hours -s school --out moments.csv --min-cell 10
    """  # noqa: D301 - click reads the control character
    with plain_words():
        paths = paths_of(file)
        _check_out(out, paths)
        if any(is_moments(Path(p)) for p in paths):
            raise click.UsageError(f"{file!r} holds moments already; see msmmiv moments inspect and merge.")
        counted = _units_of(units)
        given = {k: v for k, v in roles.items() if v not in (None, ())}
        found = read_persons(
            file, given, lambda rows, d: mm.Moments.from_data(rows, d, missing=missing or "error")
        )
        found.save(out, min_cell=min_cell, small_cells=small_cells or "refuse", units=counted)
        effect = mm.suppression_effect(found, min_cell=min_cell or 1) if small_cells == "suppress" else None
        _say(out, mm.Moments.load(out), as_json=as_json, effect=effect, rows=found.n.sum())


@moments_group.command(short_help="Merge moments files over different people into one.")
@click.argument("files", nargs=-1, required=True)
@click.option("--out", metavar="FILE", required=True, help="Moments file: .csv or .parquet.")
@click.option("--min-cell", type=click.IntRange(min=1), help="Smallest number of rows that a cell may have.")
@click.option("--small-cells", type=click.Choice(get_args(SmallCells)),
              help="Smaller cells stop everything (default), or are left out and counted.")  # fmt: skip
@click.option("--shared-sites", type=click.Choice(get_args(SharedSites)),
              help="A site in two files stops everything (default), or its cells are added up.")  # fmt: skip
@click.option("--equal-cells", type=click.Choice(get_args(EqualCells)),
              help="Equal cells in two files stop everything (default), or are kept as other people.")  # fmt: skip
@with_json
def merge(
    files: tuple[str, ...],
    out: str,
    min_cell: int | None,
    small_cells: SmallCells | None,
    shared_sites: SharedSites | None,
    equal_cells: EqualCells | None,
    as_json: bool,
) -> None:
    """Merge moments FILES of the same design over different people into one.

    The same file twice is refused, and so are sites and cells that are in two files, unless you say what they are.

    \b
    msmmiv moments merge north.csv south.csv --out both.csv
    """  # noqa: D301 - click reads the control character
    with plain_words():
        paths = [path for file in files for path in paths_of(file)]
        if len(paths) < 2:
            raise click.UsageError("Merging needs two moments files or more.")
        _check_out(out, paths)
        found = mm.Moments.load(
            *paths, shared_sites=shared_sites or "refuse", equal_cells=equal_cells or "refuse"
        )
        found.save(out, min_cell=min_cell, small_cells=small_cells or "refuse")
        effect = mm.suppression_effect(found, min_cell=min_cell or 1) if small_cells == "suppress" else None
        _say(out, mm.Moments.load(out), as_json=as_json, effect=effect, rows=found.n.sum(), files=len(paths))


def _say(
    out: str,
    moments: mm.Moments,
    *,
    as_json: bool,
    effect: mm.SuppressionEffect | None = None,
    rows: float | None = None,
    files: int | None = None,
) -> None:
    """What was written, what was left out and what that does, and what the smallest cells give away."""
    told = cells_told(moments)
    if as_json:
        cells = asdict(told) | {"of_one_value": dict(told.of_one_value)}
        values = {"file": out, "files": files, "sites": moments.n_sites, "cells": cells, "rows": moments.n.sum(),
                  "flow": moments.flow.to_dict(), "suppression": effect and effect.to_dict()}  # fmt: skip
        click.echo(json_text({k: v for k, v in values.items() if v is not None}), nl=False)
        return
    used = f"{moments.n.sum():,.0f}"
    words = f"{count(moments.n_sites, 'site')}, {count(moments.n_cells, 'cell')}, {used} rows"
    words += f" of {rows:,.0f}" if effect is not None else ""
    lines = [f"Moments: {Path(out)} ({f'{files} files; ' if files else ''}{words})"]
    if effect is not None:
        lines += ["", *str(effect).splitlines()]
    elif moments.flow.suppressed:
        lines += ["", *(f"{s}." for s in moments.flow.suppressed)]
    if told.gives_rows:
        lines += ["", *told.sentences(), _REMEDY]
    if moments.design.weight_kind == "frequency":
        lines += ["", _COPIES]
    click.echo("\n".join("".join(filter(str.isprintable, line)) for line in lines))


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
        read = read_table(check_file(file))
        moments = mm.Moments.load(file)
        if as_json:
            click.echo(json_text(_values(read, moments)), nl=False)
        else:
            click.echo("\n".join(_lines(read, moments)))


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


def _values(read: MomentsFile, moments: mm.Moments) -> dict[str, Any]:
    smallest, told = _cell(moments, int(moments.n.argmin())), cells_told(moments)
    return {
        "file": read.name, "format": read.version, "software": read.software, "sha256": read.seal,
        "min_cell": read.min_cell, "design": moments.design.to_dict(), "units": dict(moments.units),
        "sites": moments.sites, "arms": moments.arms, "blocks": len(moments.blocks), "clusters": len(moments.clusters),
        "cells": moments.n_cells, "rows": float(moments.n.sum()), "smallest_cell": smallest,
        "cells_of_one_row": told.of_one_row, "cells_of_two_rows": told.of_two_rows,
        "cells_of_weighted_rows": told.of_weighted_rows, "cells_of_one_weight": told.of_one_weight,
        "counts": "copies" if moments.design.weight_kind == "frequency" else "rows",
        "cells_of_one_value": dict(told.of_one_value), f"cells_below_{_SMALL}_rows": int(np.sum(moments.n < _SMALL)),
        "flow": moments.flow.to_dict(),
    }  # fmt: skip


def _lines(read: MomentsFile, moments: mm.Moments) -> list[str]:
    smallest, told = _cell(moments, int(moments.n.argmin())), cells_told(moments)
    rows = smallest.pop("rows")
    where = ", ".join(f"{key} {short(label)}" for key, label in smallest.items())
    counts = [count(moments.n_sites, "site")]
    counts += [f"arms {listing(map(short, moments.arms))}"] if moments.arms else []
    counts += [count(len(v), n) for v, n in ((moments.blocks, "block"), (moments.clusters, "cluster")) if v]
    few = int(np.sum(moments.n < _SMALL))
    made = f", {read.software}" if read.software else ""
    units = [f"{column} in {unit}" for column, unit in moments.units]
    lines = [
        f"Moments file {one_line(read.name)}: {read.version}{one_line(made)}, seal {read.seal[:12]} intact", "",
        "ROLES", *map(one_line, str(moments.design).splitlines()),
        *([one_line(f"{'units':<13}{', '.join(units)}")] if units else []), "", "CELLS",
        f"{', '.join(counts)}; {count(moments.n_cells, 'cell')} with {moments.n.sum():,.0f} rows",
        f"smallest cell: {count(int(rows), 'row')} ({where}); {count(few, 'cell')} below {_SMALL} rows",
    ]  # fmt: skip
    floor = (
        "none was kept" if read.min_cell is None else f"no cell has fewer than {count(read.min_cell, 'row')}"
    )
    lines.append(f"floor: {floor}")
    if few and moments.clusters:
        least = int(moments.by_arm().n.min())
        lines.append(f"clusters make cells small: without them the smallest would have {count(least, 'row')}")
    lines += map(one_line, told.sentences())
    lines += [_REMEDY] if told.gives_rows else []
    lines += [_COPIES] if moments.design.weight_kind == "frequency" else []
    flow = moments.flow.to_frame()
    steps = zip(flow["rows"], flow["step"], strict=True)
    return [*lines, "", "SAMPLE", *(f"{rows:>12,}  {one_line(step)}" for rows, step in steps)]
