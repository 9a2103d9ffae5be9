"""Small cells: which are kept out of a moments file, and what the smallest of the others give away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import DataError, WeightsError, check_choice, count, listing
from msmmiv.linalg import Array, Codes
from msmmiv.moments.flow import SampleFlow, Suppressed, rows_told

__all__ = ["CellsTold", "SmallCells", "cells_told", "checked_floor", "floor_for", "large_cells", "left_out"]

SmallCells = Literal["refuse", "suppress"]


class _Part(Protocol):
    @property
    def weight(self) -> Array: ...
    @property
    def scatter(self) -> Array: ...


class _Cells(Protocol):
    @property
    def design(self) -> Design: ...
    @property
    def n(self) -> Array: ...
    @property
    def first(self) -> _Part: ...
    @property
    def squared(self) -> _Part: ...


def checked_floor(
    least: Any, small: SmallCells, n: Array, design: Design, keys: Callable[[], pd.DataFrame]
) -> int | None:
    """The smallest size that a cell may have, or None for no limit.

    Raises
    ------
    DataError
        It is no size, cells are smaller and must not be, or suppression is asked for without a size.
    WeightsError
        See `floor_for`.
    """
    check_choice(small, SmallCells, "small_cells")
    if least is None:
        if small == "suppress":
            raise DataError(
                'small_cells="suppress" needs a size: min_cell=10 leaves out cells below ten rows.'
            )
        return None
    floor = floor_for(design, least)
    few = np.flatnonzero(n < floor)
    if few.size and small == "refuse":
        frame = keys()
        names = frame.iloc[few].astype(str).agg("/".join, axis=1)
        where = [f"{name} ({n[c]:g})" for name, c in zip(names, few, strict=True)]
        raised = (
            f" (min_cell={least} was raised: cells of up to {_fixed_rows(design)} weighted rows give them back)"
            if floor > least
            else ""
        )
        coarser = ", or declare no cluster" if "cluster" in frame else ""
        raise DataError(
            f"{count(few.size, 'cell')} with fewer than {floor} rows: {listing(where, most=5)}{raised}. Leave "
            f'them out with small_cells="suppress" (the estimates then lack those rows){coarser}.'
        )
    return floor


def floor_for(design: Design, least: Any) -> int:
    """The floor on the size of cells that ``min_cell`` stands for in a design.

    Sums with weights and with squared weights together fix up to p + 2 rows of p variables: no such cell is large.

    Raises
    ------
    DataError
        ``least`` is no size.
    WeightsError
        Frequency weights: one person can be any number of copies.

    Examples
    --------
    >>> roles = {"outcome": "y", "treatment": "t", "mediators": ["m"], "site": "s"}
    >>> floor_for(Design(**roles), 3), floor_for(Design(**roles, weights="w", weight_kind="analytic"), 3)
    (3, 5)
    """
    size = _size(least)
    if design.weight_kind == "frequency":
        raise WeightsError(
            "min_cell cannot be kept with frequency weights: cells hold copies, and ten copies can be one person. Make "
            "the file from one row per person, without weights."
        )
    return max(size, _fixed_rows(design) + 1)


def _fixed_rows(design: Design) -> int:
    """The most rows that a cell fixes by its two sets of weighted sums; 0 where there is one set."""
    return len(design.variables) + 2 if design.weight_kind in ("analytic", "probability") else 0


def large_cells(n: Array, floor: int) -> Codes:
    """Positions of the cells of ``floor`` rows or more.

    Raises
    ------
    DataError
        Every cell is smaller.
    """
    large = np.flatnonzero(n >= floor)
    if not large.size:
        raise DataError(f"Every cell has fewer than {floor} rows: nothing would be left to save.")
    return large


def _size(least: Any) -> int:
    if isinstance(least, bool) or not isinstance(least, int | np.integer) or least < 1:
        raise DataError(f"min_cell must be a whole number of 1 or more, not {least!r}; None sets no limit.")
    return int(least)


def left_out(
    flow: SampleFlow, source: str, least: int, kept: int | None, *, cells: int, rows: int, sites: int
) -> SampleFlow:
    """The flow after suppression, with the number of rows only where it may be told.

    Whoever knows that a smaller floor was kept before (``kept``, or one in the flow) knows how small cells can be.
    """
    lowest = max([kept or 1, *(s.min_cell for s in flow.suppressed)])
    told = rows_told(rows, cells, least, lowest)
    return flow.suppress(Suppressed(source, int(least), cells, told, sites), rows)


@dataclass(frozen=True)
class CellsTold:
    """What cells give away about single persons; ``str`` says it in sentences.

    Attributes
    ----------
    number, smallest : int
        Cells, and rows in the smallest of them.
    of_one_row, of_two_rows : int
        Cells whose rows can be read off: their means are the row, or means and scatters give both rows back.
    of_weighted_rows : int
        Cells of three rows or more whose rows can be computed, since sums with weights and with squared weights are
        there: those of at most p + 2 rows of p variables.
    of_one_weight : int
        Cells of three rows or more in which one weight outweighs the others, so that means are nearly one person's: the
        square of the sum of weights is below twice the sum of their squares.
    of_one_value : tuple of (str, int)
        Cells of three rows or more in which everybody has the same value, by variable (0 left out).
    """

    number: int
    smallest: int
    of_one_row: int
    of_two_rows: int
    of_weighted_rows: int
    of_one_weight: int
    of_one_value: tuple[tuple[str, int], ...]

    @property
    def gives_rows(self) -> bool:
        """Whether some cell gives a person away, which a floor would have prevented."""
        return bool(self.of_one_row or self.of_two_rows or self.of_weighted_rows or self.of_one_weight)

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
        if self.of_weighted_rows:
            out.append(
                f"{count(self.of_weighted_rows, 'cell')} of so few weighted rows that the sums with weights and with "
                "squared weights give every row back."
            )
        if self.of_one_weight:
            out.append(
                f"{count(self.of_one_weight, 'cell')} in which one weight outweighs the others: the means are nearly "
                "the values of a person."
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
    >>> cells_told(mm.data.star())  # doctest: +NORMALIZE_WHITESPACE
    CellsTold(number=325, smallest=9, of_one_row=0, of_two_rows=0, of_weighted_rows=0, of_one_weight=0,
              of_one_value=(('class_size', 325),))
    """
    n, scatter = moments.n, moments.first.scatter
    # Copies of one person are not seen in sums; sums of squared weights show one that dominates.
    two = moments.design.weight_kind in ("analytic", "probability")
    alone = moments.first.weight**2 < 2 * moments.squared.weight if two else np.zeros(len(n), dtype=bool)
    flat = {
        name: int(np.sum((n > 2) & (scatter[:, j, j] == 0)))
        for j, name in enumerate(moments.design.variables)
    }
    return CellsTold(
        number=len(n), smallest=int(n.min()) if len(n) else 0, of_one_row=int(np.sum(n == 1)),
        of_two_rows=int(np.sum(n == 2)),
        of_weighted_rows=int(np.sum((n > 2) & (n <= _fixed_rows(moments.design)))),
        of_one_weight=int(np.sum((n > 2) & alone)), of_one_value=tuple((k, v) for k, v in flat.items() if v),
    )  # fmt: skip
