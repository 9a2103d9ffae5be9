"""Before files become one set of moments: whether they speak of the same things, and of other people."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import reduce
from itertools import permutations
from operator import add
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import (
    DataError,
    MergeWarning,
    MomentsFileError,
    MomentsMismatch,
    check_choice,
    count,
    listing,
)
from msmmiv.moments.assembly import KEYS
from msmmiv.moments.cell_table import joined_sums
from msmmiv.moments.equal_cells import cells_in_both
from msmmiv.moments.exchange import MomentsFile, Units, read_table
from msmmiv.moments.flow import SampleFlow
from msmmiv.moments.labels import check_spelling, plain
from msmmiv.moments.sums import CellSums

__all__ = [
    "EqualCells",
    "SharedSites",
    "check_files",
    "common_floor",
    "common_units",
    "differences",
    "merged_files",
]

SharedSites = Literal["refuse", "pool"]
EqualCells = Literal["refuse", "keep"]


def merged_files(
    paths: Sequence[str | Path], *, shared_sites: SharedSites = "refuse", equal_cells: EqualCells = "refuse"
) -> tuple[Design, CellSums, SampleFlow, Units, int | None]:
    """Read files, check that they can be added up, and put them together; `Moments.load` is the public way.

    Raises
    ------
    DataError
        No path.
    MomentsFileError, MomentsMismatch
        See `read_table` and `check_files`.
    """
    if not paths:
        raise DataError("Moments.load needs at least one path.")
    given: Sequence[Any] = paths
    if listed := [p for p in given if not isinstance(p, str | PathLike)]:
        raise DataError(
            f"Moments.load takes paths one by one, not {listed[0]!r}: write Moments.load(*paths)."
        )
    files = [read_table(Path(path)) for path in paths]
    check_files(files, shared_sites=shared_sites, equal_cells=equal_cells)
    units = dict(pair for file in reversed(files) for pair in file.units)
    order = [c for c in (*files[0].design.variables, files[0].design.weights) if c in units]
    flow = reduce(add, [file.flow for file in files])
    sums = joined_sums([file.sums for file in files])
    floor = common_floor([file.min_cell for file in files])
    return files[0].design, sums, flow, tuple((str(c), units[str(c)]) for c in order), floor


def check_files(
    files: Sequence[MomentsFile], *, shared_sites: SharedSites = "refuse", equal_cells: EqualCells = "refuse"
) -> None:
    """Refuse files that cannot be added up, or that seem to hold the same people.

    Raises
    ------
    MomentsFileError
        The same moments twice.
    MomentsMismatch
        Other roles, other labels, other units; the same cells or the same sites in two files.
    """
    check_choice(shared_sites, SharedSites, "shared_sites")
    check_choice(equal_cells, EqualCells, "equal_cells")
    seen: dict[str, str] = {}
    for file in files:
        if file.seal in seen:
            raise MomentsFileError(
                f"{seen[file.seal]!r} and {file.name!r} hold the same moments (their seals are equal): merging "
                "them would count everybody twice. Give each file once."
            )
        seen[file.seal] = file.name
    for file in files[1:]:
        _check_roles(files[0], file)
        _check_labels(files[0], file)
    if len(files) > 1:
        if equal_cells == "refuse":
            _check_cells(files)
        _check_sites(files, shared_sites)
    known = files[0].units
    for k, file in enumerate(files[1:], start=1):
        before = listing([repr(f.name) for f in files[:k]], most=2)
        known = common_units(known, file.units, between=f"{before} and {file.name!r}")


def differences(mine: Design, theirs: Design) -> str:
    """The roles in which two designs differ, and what each says."""
    a, b = mine.to_dict(), theirs.to_dict()
    out = []
    for role in (k for k in a if a[k] != b[k]):
        same = isinstance(a[role], list) and sorted(a[role]) == sorted(b[role])
        out.append(f"{role}: {a[role]!r} and {b[role]!r}{' (the same in another order)' if same else ''}")
    return "; ".join(out)


def common_floor(floors: Sequence[int | None]) -> int | None:
    """The smallest floor of several sources; None where one of them keeps none."""
    kept = [f for f in floors if f is not None]
    return min(kept) if len(kept) == len(floors) else None


def common_units(mine: Units, theirs: Units, *, between: str = "the two") -> Units:
    """The units of both; a unit that only one of them names is taken for both, with a warning.

    Raises
    ------
    MomentsMismatch
        Two units for one column.
    """
    a, b = dict(mine), dict(theirs)
    differ = [f"{c} is in {a[c]!r} and in {b[c]!r}" for c in a if c in b and a[c] != b[c]]
    if differ:
        raise MomentsMismatch(
            f"The units of {between} differ: {'; '.join(differ)}. Make one of the files again with its columns "
            "converted, or with the unit spelt alike if it is the same."
        )
    one = [f"{c} ({(a | b)[c]})" for c in (a | b) if (c in a) != (c in b)] if a and b else []
    if one or bool(a) != bool(b):
        what = listing(one or [f"{c} ({u})" for c, u in (a | b).items()])
        warnings.warn(
            f"Not every one of {between} names the unit of {what}. It was taken for all: ask the other agency.",
            MergeWarning,
            stacklevel=2,
        )
    return tuple({**a, **b}.items())


def _check_roles(one: MomentsFile, other: MomentsFile) -> None:
    if one.design != other.design:
        raise MomentsMismatch(
            f"{one.name!r} and {other.name!r} have different designs: they differ in "
            f"{differences(one.design, other.design)}. Make one of them again with the roles of the other."
        )


def _check_labels(one: MomentsFile, other: MomentsFile) -> None:
    """Text and numbers are never one label, though they look alike."""
    for key in (k for k in KEYS if k in one.sums.keys and k in other.sums.keys):
        kinds = [sorted({isinstance(v, str) for v in f.sums.keys[key].unique()}) for f in (one, other)]
        if kinds[0] != kinds[1]:
            said = [
                f"{'text' if kind[0] else 'numbers'} in {f.name!r} (such as {plain(f.sums.keys[key].iloc[0])!r})"
                for kind, f in zip(kinds, (one, other), strict=True)
            ]
            raise MomentsMismatch(
                f"The labels of {_role(one.design, key)} are {said[0]} and {said[1]}. Make one of the files again with "
                "labels of the same kind."
            )


def _role(design: Design, key: str) -> str:
    column = {"site": design.site, "block": design.block, "arm": design.treatment, "cluster": design.cluster}[
        key
    ]
    return f"{column!r} ({'treatment' if key == 'arm' else key})"


def _check_cells(files: Sequence[MomentsFile]) -> None:
    """Sites whose every cell is in another file too are a sign of people who were given twice."""
    for one, other in permutations(files, 2):
        hits = cells_in_both(one.sums, other.sums)
        if not len(hits):
            continue
        where = [_cell(one.sums.keys, c) for c in hits]
        raise MomentsMismatch(
            f"{count(len(where), 'cell')} of {one.name!r} ({listing(where, most=3)}) can be found in {other.name!r} "
            "with the same count, means and scatters: the same people seem to be in both. Leave them out of one file, "
            'or say equal_cells="keep" if they are different people.'
        )


def _cell(keys: pd.DataFrame, cell: int) -> str:
    return ", ".join(f"{k} {plain(keys[k].iloc[cell])}" for k in keys)


def _check_sites(files: Sequence[MomentsFile], shared: SharedSites) -> None:
    column = repr(files[0].design.site)
    owners: dict[Any, list[str]] = {}
    for file in files:
        for site in dict.fromkeys(plain(v) for v in file.sums.keys["site"].unique()):
            owners.setdefault(site, []).append(repr(file.name))
    check_spelling(owners, files[0].design.site, "site")
    groups: dict[tuple[str, ...], list[str]] = {}
    for site, names in owners.items():
        if len(names) > 1:
            groups.setdefault(tuple(names), []).append(repr(site))
    if not groups or shared == "pool":
        return
    both = sum(map(len, groups.values()))
    where = [f"{listing(sites, most=5)} in {listing(names)}" for names, sites in groups.items()]
    raise MomentsMismatch(
        f"{count(both, 'site is', 'sites are')} in more than one file: {listing(where, most=3)}. If these are the same "
        'places and other people (two waves), say shared_sites="pool" when you merge them, and their cells are added '
        f"up. If {column} numbers the sites of each agency anew, give every site a label of its own and make the files "
        "again. If the people are the same, leave one file out."
    )
