"""From levels of columns to strata in the place of sites: crossing, counting, merging, the new design."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import (
    ColumnError,
    DataError,
    MissingDataError,
    MsmmivWarning,
    TooFewSitesError,
    count,
    listing,
    whole_number,
)
from msmmiv.linalg import Array, Codes
from msmmiv.moments.cells import Missing
from msmmiv.moments.labels import find_arms, natural_order, plain, plain_labels

__all__ = [
    "Level",
    "Small",
    "Strata",
    "arm_codes",
    "build_strata",
    "complete_keys",
    "place_codes",
]

Small: TypeAlias = Literal["drop", "merge", "error"]


@dataclass(frozen=True, eq=False, repr=False)
class Strata:
    """A trial in which strata of baseline covariates are the sites; give its frame and design to `Study`.

    Attributes
    ----------
    frame : DataFrame
        The rows that are kept, with their index, and one new column that names the stratum (two, where sites
        and blocks had to be joined into one column).
    design : Design
        As before, with the new column as site. Where strata run across sites, the old sites (and blocks) are
        the blocks: every site keeps its own intercept in every stratum, so that people are compared only
        with those among whom they were randomised; instruments are per stratum.
    table : DataFrame
        One row per stratum: its rows, how many of them can be compared in each arm (complete, with another
        arm in the same site, block and stratum), its ``status`` (kept, merged or left out), and in ``into``
        the label it has in the frame.
    missing : tuple of (column, rows)
        What rows left out by ``missing="drop"`` lacked.
    seed : int or None
        Seed of the folds, where there are any.
    """

    frame: pd.DataFrame
    design: Design
    table: pd.DataFrame
    missing: tuple[tuple[str, int], ...] = ()
    seed: int | None = None

    def __repr__(self) -> str:
        sites, small = self.table["into"].nunique(), self.table["status"].eq("left out")
        left = f"; {count(int(small.sum()), 'stratum', 'strata')} left out" if small.any() else ""
        block = f", intercepts by {self.design.block!r}" if self.design.block else ""
        rows = count(len(self.frame), "row")
        return f"Strata: {count(sites, 'site')} in {self.design.site!r}{block} ({rows}{left})"


@dataclass(frozen=True)
class Level:
    """One column of the stratification: codes by row, the text of a run of codes, and whether they are ordered."""

    codes: Codes
    text: Callable[[int, int], str]
    ordered: bool = False


def build_strata(
    frame: pd.DataFrame,
    design: Design,
    levels: Mapping[str, Level],
    *,
    name: str,
    min_per_arm: int,
    small: Small,
    missing: tuple[tuple[str, int], ...],
    score: Array | None = None,
    seed: int | None = None,
) -> Strata:
    """Cross the levels, settle what is too small, and write the new column and the new design."""
    whole_number(min_per_arm, "min_per_arm", least=1)
    grid = np.column_stack([level.codes for level in levels.values()])
    strata, stratum = np.unique(grid, axis=0, return_inverse=True)
    stratum = stratum.reshape(-1)
    comparable = _Comparable.of(frame, design)
    fine = comparable.counts(stratum)
    group = np.arange(len(strata))
    ordered = [k for k, level in enumerate(levels.values()) if level.ordered]
    if small == "merge" and ordered:
        group = _merged(strata, ordered[-1], lambda g: comparable.scarcest(g[stratum]), min_per_arm)
    scarcest = comparable.scarcest(group[stratum])
    keep = scarcest[group] >= min_per_arm
    labels = np.array([_label(levels, strata[group == g]) for g in group], dtype=object)
    own = np.array([_label(levels, strata[[s]]) for s in range(len(strata))], dtype=object)
    if len(set(own)) < len(own):
        raise ColumnError(
            f"Two strata would have the same name, because labels in {listing(levels, quote=True)} look alike. "
            "Recode them."
        )
    joined = np.bincount(group, minlength=len(strata))[group] > 1
    table = pd.DataFrame({"stratum": own, "rows": np.bincount(stratum, minlength=len(strata))})
    for a, arm in enumerate(comparable.arms):
        table[f"n[{arm}]"] = fine[:, a].astype(np.int64)
    if score is not None:
        table["predicted"] = np.bincount(stratum, score) / table["rows"].to_numpy(dtype=float)
    table["status"] = np.where(keep, np.where(joined, "merged", "kept"), "left out")
    table["into"] = pd.Series(labels, dtype=object).where(keep, None)
    _settle(table, keep, min_per_arm, small, comparable.arms)
    out, block = _with_block(frame.copy(), design, [c for c in levels if c in frame])
    out[name] = labels[stratum]
    new = replace(design, site=name, block=block)
    return Strata(out.loc[keep[stratum]], new, table, missing, seed)


def complete_keys(
    frame: pd.DataFrame, design: Design, columns: Sequence[str], *, missing: Missing
) -> tuple[pd.DataFrame, tuple[tuple[str, int], ...]]:
    """Rows that have their place: the columns of the strata, the arm, the site and the block.

    Raises
    ------
    MissingDataError
        When rows lack one of these, with the columns and counts, unless they are to be dropped.
    """
    keys = [k for k in (design.treatment, design.site, design.block) if k is not None and k in frame]
    needed = list(dict.fromkeys([*columns, *keys]))
    absent = pd.DataFrame({c: _absent(frame[c]) for c in needed})
    lost = tuple((c, int(absent[c].sum())) for c in needed if absent[c].any())
    if lost and missing == "error":
        which = " and ".join(f"{count(n, 'row has', 'rows have')} no {c!r}" for c, n in lost)
        raise MissingDataError(
            f'{which}: they belong to no stratum. Fill them in, or pass missing="drop" to leave those rows out.'
        )
    kept = frame[~absent.any(axis=1).to_numpy(dtype=bool)]
    if kept.empty:
        raise MissingDataError("No row is left: every one lacks a column that makes the strata.")
    return kept, lost


def _absent(column: pd.Series[Any]) -> Any:
    """Null, NaN and infinity alike, as in moments."""
    null = column.isna()
    if pd.api.types.is_float_dtype(column.dtype):
        null |= np.isinf(column.to_numpy(dtype=float, na_value=np.nan))
    return null


def _label(levels: Mapping[str, Level], members: Codes) -> str:
    runs = zip(levels.values(), members.min(axis=0), members.max(axis=0), strict=True)
    return ", ".join(level.text(int(low), int(high)) for level, low, high in runs)


@dataclass(frozen=True)
class _Comparable:
    """What decides whether a stratum can be used: who is complete, where, and in which arm."""

    arms: tuple[Any, ...]
    arm: Codes
    site: Codes
    place: Codes
    copies: Array

    @classmethod
    def of(cls, frame: pd.DataFrame, design: Design) -> _Comparable:
        """Read the roles; frequency weights count as copies."""
        used = [c for _, c in design.roles() if c in frame]
        complete = ~pd.DataFrame({c: _absent(frame[c]) for c in used}).any(axis=1).to_numpy(dtype=bool)
        arm, arms = arm_codes(frame, design)
        ones = np.ones(len(frame))
        weight = frame[design.weights].to_numpy(dtype=float) if design.weight_kind == "frequency" else ones
        return cls(
            arms, arm, place_codes(frame, [design.site]), place_codes(frame, [design.site, design.block]),
            np.where(complete, weight, 0.0),
        )  # fmt: skip

    def counts(self, stratum: Codes) -> Array:
        """(S, A) rows with another arm beside them; a lone arm in a place tells nothing about the treatment."""
        spot, where = np.unique(np.column_stack([stratum, self.place]), axis=0, return_inverse=True)
        here = self._cross(where.reshape(-1), len(spot))
        here[(here > 0).sum(axis=1) < 2] = 0.0
        out = np.zeros((stratum.max() + 1, len(self.arms)))
        np.add.at(out, spot[:, 0], here)
        return out

    def scarcest(self, stratum: Codes) -> Array:
        """(S,) rows in the scarcest arm, among the arms that the stratum's sites ran."""
        ran = self._cross(self.site, int(self.site.max()) + 1) > 0
        pairs = np.unique(np.column_stack([stratum, self.site]), axis=0)
        expected = np.zeros((stratum.max() + 1, len(self.arms)), dtype=bool)
        np.logical_or.at(expected, pairs[:, 0], ran[pairs[:, 1]])
        least: Array = np.where(expected, self.counts(stratum), np.inf).min(axis=1, initial=np.inf)
        return np.where(expected.sum(axis=1) > 1, least, 0.0)

    def _cross(self, group: Codes, size: int) -> Array:
        flat = np.bincount(group * len(self.arms) + self.arm, self.copies, size * len(self.arms))
        out: Array = flat.reshape(size, len(self.arms)).astype(float)
        return out


def arm_codes(frame: pd.DataFrame, design: Design) -> tuple[Codes, tuple[Any, ...]]:
    """Code of everybody's arm, and the arms with the control first."""
    codes, uniques = pd.factorize(plain_labels(frame[design.treatment]))
    found = [plain(u) for u in uniques]
    natural = natural_order(found)
    labels = [found[i] for i in natural]
    order = find_arms(design, labels)
    arm: Codes = np.argsort(order)[np.argsort(natural)[codes]].astype(np.int64)
    return arm, tuple(labels[i] for i in order)


def place_codes(frame: pd.DataFrame, columns: Sequence[str | None]) -> Codes:
    """Codes of the combinations of those columns that are there."""
    have = [c for c in columns if c in frame]
    if not have:
        return np.zeros(len(frame), dtype=np.int64)
    groups: Codes = np.asarray(frame.groupby(have, observed=True, sort=False).ngroup(), dtype=np.int64)
    return groups


def _merged(strata: Codes, axis: int, scarcest: Callable[[Codes], Array], least: int) -> Codes:
    """Join small strata with the scarcer of their neighbours, once per line and round, until none can be."""
    line = np.unique(np.delete(strata, axis, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    group = np.arange(len(strata))
    moved = True
    while moved:
        moved, have = False, scarcest(group)
        for k in np.unique(line):
            inside = np.flatnonzero(line == k)
            chain = list(dict.fromkeys(group[inside[np.argsort(strata[inside, axis])]].tolist()))
            at = min(range(len(chain)), key=lambda j: have[chain[j]])
            if len(chain) == 1 or have[chain[at]] >= least:
                continue
            beside = min((j for j in (at - 1, at + 1) if 0 <= j < len(chain)), key=lambda j: have[chain[j]])
            group[group == chain[at]] = chain[beside]
            moved = True
    return group


def _settle(table: pd.DataFrame, keep: Any, least: int, small: Small, arms: Sequence[Any]) -> None:
    """Say which strata are too small, in the way that was asked for."""
    if keep.all():
        return
    bad = table[~keep]
    what = (
        f"{count(len(bad), 'stratum has', 'strata have')} fewer than {count(least, 'comparable row')} in an arm "
        f"({listing(arms)}): {listing(bad['stratum'], quote=True, most=5)}"
    )
    if not keep.any():
        raise TooFewSitesError(
            f"No stratum is left: {what}. Use fewer columns or bins, or a smaller min_per_arm."
        )
    if small == "error":
        raise DataError(
            f"{what}. Use fewer columns or bins, or leave them out or merge them: small='drop' or 'merge'."
        )
    warnings.warn(
        f"{what}; left out ({count(int(bad['rows'].sum()), 'row')}). The estimates are about the others.",
        MsmmivWarning,
        stacklevel=4,
    )


def _with_block(frame: pd.DataFrame, design: Design, by: Sequence[str]) -> tuple[pd.DataFrame, str | None]:
    """The column whose levels, inside a stratum, are the groups within which people were randomised."""
    left = [c for c in (design.site, design.block) if c is not None and c in frame and c not in by]
    if not left or frame.groupby(left, observed=True).ngroups == 1:
        return frame, None
    if len(left) == 1:
        return frame, left[0]
    name = "_".join(left)
    while name in frame:
        name += "_"
    pairs = zip(frame[left[0]].map(plain), frame[left[1]].map(plain), strict=True)
    frame[name] = [repr(pair)[1:-1] for pair in pairs]  # text that tells every pair apart
    return frame, name
