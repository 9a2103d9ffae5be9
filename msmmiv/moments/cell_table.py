"""The tidy table of cells: how moments are laid out in columns, and how such a table is read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Protocol

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import DataError, MomentsMismatch, count, listing
from msmmiv.linalg import Array, Codes
from msmmiv.moments.assembly import KEYS
from msmmiv.moments.cell_checks import wrong
from msmmiv.moments.sums import CellSums

__all__ = ["cell_table", "equal_tables", "joined_sums", "key_columns", "sums_of", "taken", "value_columns"]


class _Part(Protocol):
    @property
    def weight(self) -> Array: ...
    @property
    def mean(self) -> Array: ...
    @property
    def scatter(self) -> Array: ...


def key_columns(design: Design, *, clusters: bool) -> list[str]:
    """The columns that say which cell a row is; without ``cluster`` where clusters were merged (`Moments.by_arm`)."""
    declared = {
        "site": True,
        "block": design.block,
        "arm": design.treatment_kind == "arms",
        "cluster": clusters,
    }
    return [k for k in KEYS if declared[k]]


def value_columns(design: Design) -> list[str]:
    """The columns of numbers, in order.

    Examples
    --------
    >>> value_columns(Design(outcome="y", treatment="t", mediators="m", site="s"))[:4]
    ['n', 'weight', 'mean[y]', 'mean[m]']
    """
    names = design.variables
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i:]]
    prefixes = ("", "squared_") if design.weight_kind in ("analytic", "probability") else ("",)
    out = ["n"]
    for prefix in prefixes:
        out += [f"{prefix}weight", *(f"{prefix}mean[{a}]" for a in names)]
        out += [f"{prefix}scatter[{a},{b}]" for a, b in pairs]
    return out


def cell_table(design: Design, keys: pd.DataFrame, n: Array, parts: Sequence[_Part]) -> pd.DataFrame:
    """One row per cell: its labels, its count, and the moments of every part (weights, squared weights).

    Raises
    ------
    DataError
        Two columns of the table would have the same name.
    """
    names = value_columns(design)
    if len(set(names)) < len(names):
        raise DataError(
            "Names with commas make the columns of this table ambiguous: "
            f"{listing(design.variables, quote=True)}. Rename those columns in the data."
        )
    upper = np.triu_indices(len(design.variables))
    values = [n[:, None]]
    for part in parts:
        values += [part.weight[:, None], part.mean, part.scatter[:, upper[0], upper[1]]]
    return pd.concat([keys, pd.DataFrame(np.hstack(values), columns=names)], axis=1)


def sums_of(design: Design, table: pd.DataFrame, name: str) -> CellSums:
    """The moments in a table, after checking that it is what the design says.

    Raises
    ------
    MomentsFileError
        Columns that are missing or unknown, cells that are not there once each, and numbers that cannot be moments.
    """
    clusters = bool(design.cluster) and "cluster" in table
    keys, names = key_columns(design, clusters=clusters), value_columns(design)
    wanted, found = [*keys, *names], [str(c) for c in table]
    if absent := [c for c in wanted if c not in found]:
        raise wrong(name, f"column {listing(absent, quote=True)} is missing")
    if more := [c for c in found if c not in wanted]:
        raise wrong(name, f"column {listing(more, quote=True)} is not one of the format")
    if table.empty:
        raise wrong(name, "it has no cells")
    if (twice := table.duplicated(keys)).any():
        cell = ", ".join(f"{k} {table[k].iloc[int(twice.argmax())]!r}" for k in keys)
        raise wrong(name, f"{count(int(twice.sum()), 'cell')} occurs more than once ({cell})")
    if text := [c for c in names if table[c].dtype.kind not in "iuf"]:
        raise wrong(name, f"column {listing(text, quote=True)} holds no numbers")
    for key in keys:  # a label that is not there would be taken for another one
        if table[key].isna().any() or (table[key].dtype.kind == "f" and not np.isfinite(table[key]).all()):
            raise wrong(name, f"{key!r} has cells without a label")
    numbers = {c: table[c].to_numpy(dtype=float) for c in names}
    _check_numbers(name, numbers)
    p = len(design.variables)
    rows, columns = np.triu_indices(p)

    def part(prefix: str) -> tuple[Array, Array, Array]:
        mean = np.column_stack([numbers[f"{prefix}mean[{a}]"] for a in design.variables])
        scatter = np.empty((len(table), p, p))
        for i, j in zip(rows, columns, strict=True):
            a, b = design.variables[i], design.variables[j]
            scatter[:, i, j] = scatter[:, j, i] = numbers[f"{prefix}scatter[{a},{b}]"]
        return numbers[f"{prefix}weight"], mean, scatter

    first = part("")
    squared = part("squared_") if "squared_weight" in numbers else first
    return CellSums(table[keys].reset_index(drop=True), numbers["n"], *first, *squared)


def equal_tables(one: pd.DataFrame, other: pd.DataFrame, *, rtol: float) -> bool:
    """Whether two tables of as many cells agree, to ``rtol`` of each column's scale."""
    keys = [k for k in KEYS if k in one]
    if list(one) != list(other) or not one[keys].equals(other[keys]):
        return False
    a, b = (t.drop(columns=keys).to_numpy(dtype=float) for t in (one, other))
    return bool(np.all(np.abs(a - b) <= rtol * np.maximum(np.abs(a).max(axis=0), np.abs(b).max(axis=0))))


def joined_sums(parts: Sequence[CellSums]) -> CellSums:
    """The cells of several sources, one after another; equal ones are merged when they are coded.

    Raises
    ------
    MomentsMismatch
        Some have clusters, and in others clusters were merged.
    """
    if len({tuple(p.keys) for p in parts}) > 1:
        raise MomentsMismatch(
            "Cells by cluster and cells in which clusters were merged cannot be added up. Merge the clusters of all "
            "(by_arm()), or of none."
        )
    return CellSums(
        pd.concat([p.keys for p in parts], ignore_index=True),
        *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(CellSums)[1:]),
    )


def taken(sums: CellSums, cells: Codes) -> CellSums:
    """Some of the cells."""
    keys = sums.keys.iloc[cells].reset_index(drop=True)
    return CellSums(keys, *(getattr(sums, f.name)[cells] for f in fields(CellSums)[1:]))


def _check_numbers(name: str, numbers: Mapping[str, Array]) -> None:
    for column, values in numbers.items():
        positive = column in ("n", "weight", "squared_weight")
        kind, _, inside = column.partition("[")
        first, _, second = inside.removesuffix("]").partition(",")
        square = kind.endswith("scatter") and first == second
        bad = ~np.isfinite(values) | (values <= 0 if positive else values < 0 if square else False)
        if bad.any():
            rule = "positive" if positive else "0 or more" if square else "a finite number"
            raise wrong(
                name, f"{column!r} is {values[bad][0]:g} in cell {int(np.argmax(bad)) + 1} and must be {rule}"
            )
