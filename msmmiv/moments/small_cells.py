"""Small cells: which are kept out of a moments file, and what the smallest of the others give away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import DataError, check_choice, count, listing
from msmmiv.linalg import Array, Codes
from msmmiv.moments.flow import SampleFlow, Suppressed

__all__ = ["CellsTold", "SmallCells", "cells_told", "checked_floor", "large_cells", "left_out", "rows_told"]

SmallCells = Literal["refuse", "suppress"]


class _First(Protocol):
    @property
    def scatter(self) -> Array: ...


class _Cells(Protocol):
    @property
    def design(self) -> Design: ...
    @property
    def n(self) -> Array: ...
    @property
    def first(self) -> _First: ...


def checked_floor(least: Any, small: SmallCells, n: Array, keys: Callable[[], pd.DataFrame]) -> int | None:
    """The smallest size that a cell may have, or None for no limit.

    Raises
    ------
    DataError
        It is no size, cells are smaller and must not be, or suppression is asked for without a size.
    """
    check_choice(small, SmallCells, "small_cells")
    if least is None:
        if small == "suppress":
            raise DataError(
                'small_cells="suppress" needs a size: min_cell=10 leaves out cells below ten rows.'
            )
        return None
    floor = _size(least)
    few = np.flatnonzero(n < floor)
    if few.size and small == "refuse":
        names = keys().iloc[few].astype(str).agg("/".join, axis=1)
        where = [f"{name} ({n[c]:g})" for name, c in zip(names, few, strict=True)]
        raise DataError(
            f"{count(few.size, 'cell')} with fewer than {floor} rows: {listing(where, most=5)}. Leave "
            'them out with small_cells="suppress" (the estimates then lack those rows), or declare no cluster.'
        )
    return floor


def large_cells(n: Array, least: Any) -> Codes:
    """Positions of the cells of ``least`` rows or more.

    Raises
    ------
    DataError
        ``least`` is no size, or every cell is smaller.
    """
    floor = _size(least)
    large = np.flatnonzero(n >= floor)
    if not large.size:
        raise DataError(f"Every cell has fewer than {floor} rows: nothing would be left to save.")
    return large


def _size(least: Any) -> int:
    if isinstance(least, bool) or not isinstance(least, int | np.integer) or least < 1:
        raise DataError(f"min_cell must be a whole number of 1 or more, not {least!r}; None sets no limit.")
    return int(least)


def left_out(flow: SampleFlow, source: str, least: int, *, cells: int, rows: int, sites: int) -> SampleFlow:
    """The flow after suppression, with the number of rows only where it may be told."""
    return flow.suppress(Suppressed(source, int(least), cells, rows_told(rows, cells, least), sites), rows)


def rows_told(rows: int, cells: int, least: int) -> int | None:
    """The rows in suppressed cells, or None where that number would tell how many are in one cell.

    It is told if it keeps to the floor itself and does not fix every cell at its smallest or largest size.

    Examples
    --------
    >>> rows_told(7, 1, 10), rows_told(14, 3, 10), rows_told(18, 2, 10), rows_told(12, 12, 10)
    (None, 14, None, None)
    """
    return rows if rows >= least and cells < rows < cells * (least - 1) else None


@dataclass(frozen=True)
class CellsTold:
    """What cells give away about single persons; ``str`` says it in sentences.

    Attributes
    ----------
    number, smallest : int
        Cells, and rows in the smallest of them.
    of_one_row, of_two_rows : int
        Cells whose rows can be read off: their means are the row, or means and scatters give both rows back.
    of_one_value : tuple of (str, int)
        Cells of three rows or more in which everybody has the same value, by variable (0 left out).
    """

    number: int
    smallest: int
    of_one_row: int
    of_two_rows: int
    of_one_value: tuple[tuple[str, int], ...]

    def sentences(self) -> list[str]:
        """What a reader of the file can infer; empty where no cell is that small."""
        out = []
        if self.of_one_row:
            out.append(
                f"{count(self.of_one_row, 'cell')} of one row: the means of such a cell are the values of a person."
            )
        if self.of_two_rows:
            out.append(
                f"{count(self.of_two_rows, 'cell')} of two rows: means and scatters of such a cell give the values of "
                "both persons back."
            )
        if self.of_one_value:
            where = listing([f"{name} in {count(cells, 'cell')}" for name, cells in self.of_one_value])
            out.append(f"Everybody in a cell has the same value of {where}; the mean is that value.")
        return out


def cells_told(moments: _Cells) -> CellsTold:
    """What the cells give away, computed from the cells.

    Examples
    --------
    >>> import msmmiv as mm
    >>> cells_told(mm.data.star())
    CellsTold(number=325, smallest=9, of_one_row=0, of_two_rows=0, of_one_value=(('class_size', 325),))
    """
    n, scatter = moments.n, moments.first.scatter
    flat = {
        name: int(np.sum((n > 2) & (scatter[:, j, j] == 0)))
        for j, name in enumerate(moments.design.variables)
    }
    return CellsTold(
        number=len(n), smallest=int(n.min()) if len(n) else 0, of_one_row=int(np.sum(n == 1)),
        of_two_rows=int(np.sum(n == 2)), of_one_value=tuple((k, v) for k, v in flat.items() if v),
    )  # fmt: skip
