"""The sample flow: what happened to the rows between the file and the estimate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import count, listing

__all__ = ["DroppedSite", "MissingCount", "SampleFlow", "Suppressed"]


@dataclass(frozen=True)
class MissingCount:
    """Rows in one site and arm in which one column is missing."""

    site: Label | None
    arm: Label | None
    column: str
    rows: int


@dataclass(frozen=True)
class DroppedSite:
    """A site that was left out, with the reason; None for rows whose sites must not be named."""

    site: Label | None
    rows: int
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

    @property
    def rows_used(self) -> int:
        """Rows that reach the estimate."""
        gone = sum(d.rows for d in self.dropped) + sum(s.rows or 0 for s in self.suppressed)
        return self.rows_in - self.incomplete - gone

    def drop(self, *sites: DroppedSite) -> SampleFlow:
        """The flow after leaving out further sites."""
        return replace(self, dropped=self.dropped + sites)

    def suppress(self, what: Suppressed, rows: int) -> SampleFlow:
        """The flow after leaving out small cells of so many rows, whether or not their number is told."""
        rows_in = self.rows_in - (rows if what.rows is None else 0)
        return replace(self, rows_in=rows_in, suppressed=(*self.suppressed, what)).sorted()

    def floored(self, least: int) -> SampleFlow:
        """The flow without counts of fewer than ``least`` rows in a named site.

        Small counts of missing values are left out, small sites that were dropped are added up.
        The totals stay as they are.

        Examples
        --------
        >>> flow = SampleFlow(rows_in=50).drop(DroppedSite("a", 1, "asked"), DroppedSite("b", 3, "asked"))
        >>> flow.floored(10).dropped, flow.floored(10).rows_used
        ((DroppedSite(site=None, rows=4, reason='asked'),), 46)
        """
        small: dict[str, int] = {}
        for d in self.dropped:
            if d.rows < least:
                small[d.reason] = small.get(d.reason, 0) + d.rows
        return replace(
            self,
            missing_cells=tuple(c for c in self.missing_cells if c.rows >= least),
            dropped=tuple(d for d in self.dropped if d.rows >= least)
            + tuple(DroppedSite(None, rows, reason) for reason, rows in small.items()),
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
        ).sorted()

    def sorted(self) -> SampleFlow:
        """The same counts in an order that does not depend on the engine or on what was merged first."""
        cells = sorted(self.missing_cells, key=lambda c: (str(c.site), str(c.arm), c.column))
        dropped = sorted(self.dropped, key=lambda d: (d.reason, str(d.site)))
        suppressed = sorted(self.suppressed, key=lambda s: (s.source, s.min_cell, s.cells, s.rows or 0))
        return replace(
            self, missing=tuple(sorted(self.missing)), missing_cells=tuple(cells), dropped=tuple(dropped),
            suppressed=tuple(suppressed),
        )  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """Steps and rows left after each: columns ``step``, ``rows``, ``left``."""
        steps = [("rows in the data", self.rows_in, self.rows_in)]
        left = self.rows_in - self.incomplete
        if self.incomplete:
            by = ", ".join(f"{c}: {r:,}" for c, r in self.missing if r)
            steps.append((f"missing a declared column ({by})", -self.incomplete, left))
        for s in self.suppressed:
            left -= s.rows or 0
            steps.append((str(s), -(s.rows or 0), left))
        for reason in dict.fromkeys(d.reason for d in self.dropped):
            sites = [d for d in self.dropped if d.reason == reason]
            rows = sum(d.rows for d in sites)
            left -= rows
            named = [d.site for d in sites if d.site is not None]
            parts = [f"{count(len(named), 'site')}: {listing(named)}"] if named else []
            parts += ["sites not named"] if len(named) < len(sites) else []
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
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SampleFlow:
        """The inverse of `to_dict`."""
        return cls(
            rows_in=values["rows_in"],
            missing=tuple((c, r) for c, r in values["missing"]),
            incomplete=values["incomplete"],
            missing_cells=tuple(MissingCount(*c) for c in values["missing_cells"]),
            dropped=tuple(DroppedSite(*d) for d in values["dropped"]),
            suppressed=tuple(Suppressed(**s) for s in values.get("suppressed", ())),
        )

    def __str__(self) -> str:
        frame = self.to_frame()
        return "\n".join(
            f"{rows:>12,}  {step}" for step, rows in zip(frame["step"], frame["rows"], strict=True)
        )
