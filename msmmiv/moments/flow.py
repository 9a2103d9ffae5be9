"""The sample flow: what happened to the rows between the file and the estimate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import count, listing

__all__ = ["DroppedSite", "MissingCount", "SampleFlow", "Suppressed", "rows_told"]


@dataclass(frozen=True)
class MissingCount:
    """Rows in one site and arm in which one column is missing."""

    site: Label | None
    arm: Label | None
    column: str
    rows: int


@dataclass(frozen=True)
class DroppedSite:
    """A site that was left out, with the reason.

    The site is None for rows whose sites must not be named; rows are None where their number would tell the size of one
    site, and they are then not in `SampleFlow.rows_in` either.
    """

    site: Label | None
    rows: int | None
    reason: str


@dataclass(frozen=True)
class Suppressed:
    """Small cells that were left out when a moments file was written, so that they tell nobody about a person.

    Attributes
    ----------
    source : str
        Name of that file, without its ending.
    min_cell : int
        Smallest number of rows that a cell of it may have.
    cells : int
        Cells left out.
    rows : int or None
        Rows in them. None where their number would tell how many there are in a single cell; they are then
        not in `SampleFlow.rows_in` either.
    sites : int
        Sites in which the treatment varied before and does not vary any more.
    """

    source: str
    min_cell: int
    cells: int
    rows: int | None
    sites: int

    def __str__(self) -> str:
        few = count(self.min_cell, "row")
        where = f" when {self.source!r} was written" if self.source else ""
        lost = f"; {count(self.sites, 'site')} lost with them" if self.sites else ""
        untold = "; the number of rows is not told" if self.rows is None else ""
        return f"{count(self.cells, 'cell')} of fewer than {few} left out{where}{untold}{lost}"


@dataclass(frozen=True)
class SampleFlow:
    """Counts of rows from the data to the estimate; ``str`` gives the page, `to_frame` the table.

    Attributes
    ----------
    rows_in : int
        Rows read (with frequency weights, copies: here and in the other counts).
    missing : tuple of (str, int)
        Rows with a missing, NaN or infinite value, by column; a row can count under several columns.
    incomplete : int
        Rows left out because at least one declared column is missing.
    missing_cells : tuple of MissingCount
        The same by site and arm.
    dropped : tuple of DroppedSite
        Sites left out afterwards.
    suppressed : tuple of Suppressed
        Small cells left out, file by file.
    untold : tuple of str
        Columns that some rows lack, in number below the floor of a file or fixed by what it tells. Where the rows of
        all columns together are too few, they are not in ``rows_in`` either.

    Examples
    --------
    >>> SampleFlow(rows_in=10, missing=(("math", 2),), incomplete=2).rows_used
    8
    """

    rows_in: int
    missing: tuple[tuple[str, int], ...] = ()
    incomplete: int = 0
    missing_cells: tuple[MissingCount, ...] = ()
    dropped: tuple[DroppedSite, ...] = field(default=())
    suppressed: tuple[Suppressed, ...] = ()
    untold: tuple[str, ...] = ()

    @property
    def rows_used(self) -> int:
        """Rows that reach the estimate."""
        gone = sum(d.rows or 0 for d in self.dropped) + sum(s.rows or 0 for s in self.suppressed)
        return self.rows_in - self.incomplete - gone

    def drop(self, *sites: DroppedSite) -> SampleFlow:
        """The flow after leaving out further sites."""
        return replace(self, dropped=self.dropped + sites)

    def suppress(self, what: Suppressed, rows: int) -> SampleFlow:
        """The flow after leaving out small cells of so many rows, whether or not their number is told."""
        rows_in = self.rows_in - (rows if what.rows is None else 0)
        return replace(self, rows_in=rows_in, suppressed=(*self.suppressed, what)).sorted()

    def floored(self, least: int) -> SampleFlow:
        """The flow without counts of fewer than ``least`` rows, and without what they could be computed from.

        A count that is withheld takes others with it until those withheld add up to the floor, or their total goes too.
        Rows that are not told are not in ``rows_in``, so that the rows used stay as they are.

        Examples
        --------
        >>> flow = SampleFlow(rows_in=50).drop(DroppedSite("a", 1, "asked"), DroppedSite("b", 3, "asked"))
        >>> flow.floored(10).dropped, flow.floored(10).rows_used
        ((DroppedSite(site=None, rows=None, reason='asked'),), 46)
        """
        few = [s.rows is not None and s.rows < least for s in self.suppressed]
        gone = sum(s.rows or 0 for s, small in zip(self.suppressed, few, strict=True) if small)
        suppressed = [
            replace(s, rows=None) if small else s for s, small in zip(self.suppressed, few, strict=True)
        ]
        dropped, lost = _sites_told(self.dropped, least)
        shown = _columns_told(self, least)
        incomplete = self.incomplete if self.incomplete >= least else 0
        return replace(
            self,
            rows_in=self.rows_in - gone - lost - (self.incomplete - incomplete),
            missing=tuple((c, r) for c, r in self.missing if c in shown),
            incomplete=incomplete,
            missing_cells=tuple(x for c, total in shown.items() for x in _counts_told(self, c, total, least)),
            dropped=dropped,
            suppressed=tuple(suppressed),
            untold=self.untold + tuple(c for c, r in self.missing if r and c not in shown),
        ).sorted()

    def __add__(self, other: SampleFlow) -> SampleFlow:
        missing = dict(self.missing)
        for column, rows in other.missing:
            missing[column] = missing.get(column, 0) + rows
        cells: dict[tuple[Any, ...], int] = {}
        for c in self.missing_cells + other.missing_cells:
            key = (c.site, c.arm, c.column)
            cells[key] = cells.get(key, 0) + c.rows
        return SampleFlow(
            rows_in=self.rows_in + other.rows_in,
            missing=tuple(missing.items()),
            incomplete=self.incomplete + other.incomplete,
            missing_cells=tuple(MissingCount(k[0], k[1], k[2], rows) for k, rows in cells.items()),
            dropped=self.dropped + other.dropped,
            suppressed=self.suppressed + other.suppressed,
            untold=self.untold + other.untold,
        ).sorted()

    def sorted(self) -> SampleFlow:
        """The same counts in an order that does not depend on the engine or on what was merged first."""
        cells = sorted(self.missing_cells, key=lambda c: (str(c.site), str(c.arm), c.column))
        dropped = sorted(self.dropped, key=lambda d: (d.reason, str(d.site)))
        suppressed = sorted(self.suppressed, key=lambda s: (s.source, s.min_cell, s.cells, s.rows or 0))
        return replace(
            self, missing=tuple(sorted(self.missing)), missing_cells=tuple(cells), dropped=tuple(dropped),
            suppressed=tuple(suppressed), untold=tuple(sorted(set(self.untold))),
        )  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """Steps and rows left after each: columns ``step``, ``rows``, ``left``."""
        steps = [("rows in the data", self.rows_in, self.rows_in)]
        left = self.rows_in - self.incomplete
        if self.incomplete or self.untold:
            by = ", ".join(
                [*(f"{c}: {r:,}" for c, r in self.missing if r), *(f"{c}: not told" for c in self.untold)]
            )
            steps.append((f"missing a declared column ({by})", -self.incomplete, left))
        for s in self.suppressed:
            left -= s.rows or 0
            steps.append((str(s), -(s.rows or 0), left))
        for reason in dict.fromkeys(d.reason for d in self.dropped):
            sites = [d for d in self.dropped if d.reason == reason]
            rows = sum(d.rows or 0 for d in sites)
            left -= rows
            named = [d.site for d in sites if d.site is not None]
            parts = [f"{count(len(named), 'site')}: {listing(named)}"] if named else []
            parts += ["sites not named"] if len(named) < len(sites) else []
            parts += ["the number of rows is not told"] if any(d.rows is None for d in sites) else []
            steps.append((f"{reason} ({'; '.join(parts)})", -rows, left))
        steps.append(("used", left, left))
        return pd.DataFrame(steps, columns=["step", "rows", "left"])

    def missing_frame(self) -> pd.DataFrame:
        """Missing rows by site, arm and column (attrition by arm is read from here)."""
        return pd.DataFrame(
            [(c.site, c.arm, c.column, c.rows) for c in self.missing_cells],
            columns=["site", "arm", "column", "rows"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values; `from_dict` reads them back."""
        return {
            "rows_in": self.rows_in,
            "missing": [list(m) for m in self.missing],
            "incomplete": self.incomplete,
            "missing_cells": [[c.site, c.arm, c.column, c.rows] for c in self.missing_cells],
            "dropped": [[d.site, d.rows, d.reason] for d in self.dropped],
            "suppressed": [vars(s) for s in self.suppressed],
            **({"untold": list(self.untold)} if self.untold else {}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SampleFlow:
        """The inverse of `to_dict`, also for what other programs wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            What is missing, or is not what it should be.
        """
        flow = cls(
            rows_in=_whole(values["rows_in"], "rows_in"),
            missing=tuple(
                (_word(c, "missing"), _whole(r, "missing")) for c, r in _lists(values, "missing", 2)
            ),
            incomplete=_whole(values["incomplete"], "incomplete"),
            missing_cells=tuple(
                MissingCount(_label(s), _label(a), _word(c, "missing_cells"), _whole(r, "missing_cells"))
                for s, a, c, r in _lists(values, "missing_cells", 4)
            ),
            dropped=tuple(
                DroppedSite(_label(s), None if r is None else _whole(r, "dropped"), _word(why, "dropped"))
                for s, r, why in _lists(values, "dropped", 3)
            ),
            suppressed=tuple(_suppressed(s) for s in values.get("suppressed", ())),
            untold=tuple(_word(c, "untold") for c in values.get("untold", ())),
        )
        flow._check_sums()
        return flow

    def _check_sums(self) -> None:
        """Refuse counts that contradict one another."""
        totals = dict(self.missing)
        if any(r > self.incomplete for r in totals.values()):
            raise ValueError("flow: more rows lack a column (missing) than are incomplete")
        if not self.untold and self.incomplete > sum(totals.values()):
            raise ValueError("flow: more rows are incomplete than lack a column (missing)")
        for column in {c.column for c in self.missing_cells}:
            if sum(c.rows for c in self.missing_cells if c.column == column) > totals.get(column, 0):
                raise ValueError(f"flow: missing_cells of {column!r} add up to more than missing says")

    def __str__(self) -> str:
        frame = self.to_frame()
        return "\n".join(
            f"{rows:>12,}  {step}" for step, rows in zip(frame["step"], frame["rows"], strict=True)
        )


def rows_told(rows: int, cells: int, least: int, lowest: int = 1) -> int | None:
    """The rows in units left out (cells, sites) of ``lowest`` to ``least - 1`` rows, or None where they are not told.

    They are told from three units on, if they keep to the floor themselves and stay clear of both ends by half of what
    a unit can vary: whoever knows one of two, or sees a number near an end, would know the others.

    Examples
    --------
    >>> rows_told(7, 1, 10), rows_told(14, 2, 10), rows_told(14, 3, 10), rows_told(25, 3, 10), rows_told(15, 3, 10, 5)
    (None, None, 14, None, None)
    """
    most = least - 1
    margin = max(1, (most - lowest + 1) // 2)
    inside = cells * lowest + margin <= rows <= cells * most - margin
    return rows if cells >= 3 and rows >= least and inside else None


def _sites_told(dropped: Sequence[DroppedSite], least: int) -> tuple[tuple[DroppedSite, ...], int]:
    """Dropped sites with the small ones added up by reason, and the rows that are not told."""
    small: dict[str, list[DroppedSite]] = {}
    for d in dropped:
        if d.rows is not None and d.rows < least:
            small.setdefault(d.reason, []).append(d)
    out, lost = [d for d in dropped if d.rows is None or d.rows >= least], 0
    for reason, sites in small.items():
        rows = sum(d.rows or 0 for d in sites)
        # Of sites added up before it is not known how many they are.
        told = rows_told(rows, len(sites), least) if all(d.site is not None for d in sites) else None
        lost += rows if told is None else 0
        out.append(DroppedSite(None, told, reason))
    return tuple(out), lost


def _columns_told(flow: SampleFlow, least: int) -> dict[str, int]:
    """Columns whose number of missing rows may be told: what they leave of the incomplete rows keeps to the floor."""
    if flow.incomplete < least:
        return {}
    shown = {c: r for c, r in sorted(flow.missing, key=lambda x: x[1]) if r >= least or not r}
    few = any(0 < r < least for _, r in flow.missing)
    while few and any(shown.values()) and 0 < flow.incomplete - sum(shown.values()) < least:
        del shown[next(c for c, r in shown.items() if r)]
    return shown


def _counts_told(flow: SampleFlow, column: str, total: int, least: int) -> list[MissingCount]:
    """Counts by site and arm of one column: those withheld are two or more and add up to the floor."""
    every = [c for c in flow.missing_cells if c.column == column]
    shown = sorted((c for c in every if c.rows >= least), key=lambda c: c.rows)
    hidden = total - sum(c.rows for c in shown)
    # A file that keeps to a floor already withholds two or more.
    number = len(every) - len(shown) + (2 if total > sum(c.rows for c in every) else 0)
    while shown and hidden and (hidden < least or number < 2):
        hidden, number = hidden + shown[0].rows, number + 1
        del shown[0]
    return shown


def _whole(value: Any, where: str) -> int:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0 or value != int(value):
        raise ValueError(f"flow: {where} must be a whole number of 0 or more, not {value!r}")
    return int(value)


def _word(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"flow: {where} must hold text, not {value!r}")
    return value


def _label(value: Any) -> Label | None:
    if value is not None and not isinstance(value, str | int | float | bool):
        raise TypeError(f"flow: {value!r} is no label")
    return value


def _lists(values: dict[str, Any], key: str, width: int) -> list[Any]:
    found = values[key]
    if not isinstance(found, list) or any(not isinstance(v, list) or len(v) != width for v in found):
        raise TypeError(f"flow: {key} must be a list of lists of {width}, not {found!r}")
    return found


def _suppressed(values: dict[str, Any]) -> Suppressed:
    s = Suppressed(**values)
    numbers = {k: _whole(getattr(s, k), k) for k in ("min_cell", "cells", "sites")}
    return replace(
        s,
        source=_word(s.source, "source"),
        rows=None if s.rows is None else _whole(s.rows, "rows"),
        **numbers,
    )
