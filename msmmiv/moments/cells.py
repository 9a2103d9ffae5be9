"""Moments: one row per cell (site x block x arm x cluster), closed under merging and dropping."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from msmmiv.design import Design, Label
from msmmiv.errors import DataError, MomentsMismatch, OneArmSiteWarning, check_choice, count, listing
from msmmiv.linalg import Codes, frozen, group_sum
from msmmiv.moments.assembly import CellMoments, CodedCells, coded_cells
from msmmiv.moments.cell_table import cell_table, equal_tables, joined_sums, taken
from msmmiv.moments.exchange import Units, checked_units, write_table
from msmmiv.moments.flow import DroppedSite, MissingCount, SampleFlow
from msmmiv.moments.labels import check_labels, plain
from msmmiv.moments.merging import (
    EqualCells,
    SharedSites,
    common_floor,
    common_units,
    differences,
    merged_files,
)  # fmt: skip
from msmmiv.moments.moments_card import moments_card
from msmmiv.moments.opening import open_rows
from msmmiv.moments.small_cells import SmallCells, cells_told, checked_floor, floor_for, large_cells, left_out
from msmmiv.moments.sums import CellSums, Rows

__all__ = ["Missing", "Moments"]

Missing = Literal["error", "drop"]


@dataclass(frozen=True, eq=False)
class Moments(CodedCells):
    """Counts, means and centred scatter per cell: all that most estimators see of the data.

    Make it with `from_data`, `load` or `+`; it holds no person's row, can be saved, sent and merged, and
    everything computed from it equals the computation on the rows.

    Attributes
    ----------
    design : Design
    sites, arms, blocks, clusters : tuple
        Labels; ``arms[0]`` is the control. Blocks are (site, block) pairs.
    site, arm, block, cluster : (C,) arrays of int
        Codes of each cell into those labels.
    n : (C,) array
        Rows (with frequency weights: copies).
    first : CellMoments
        Moments with the weights (with one, if there are none).
    squared : CellMoments
        Moments with squared weights, for robust covariances; the same object where weights are copies.
    flow : SampleFlow
    units : tuple of (column, unit)
        What numbers are counted in, where a file said so.
    floor : int or None
        The smallest floor (``min_cell``) of the files they come from; None if one of them keeps none.

    See Also
    --------
    SiteEffects.from_moments : the next step on the path.

    Examples
    --------
    >>> import msmmiv as mm
    >>> m = mm.data.star()
    >>> m.n_sites, m.n_cells, int(m.n.sum())
    (79, 325, 5871)
    >>> north, south = m.drop(*m.sites[:40]), m.drop(*m.sites[40:])
    >>> (north + south).equals(m)
    True
    """

    design: Design
    flow: SampleFlow
    units: Units = ()
    floor: int | None = None

    # -- making ---------------------------------------------------------------------------------

    @classmethod
    def from_data(
        cls,
        data: Any,
        design: Design,
        *,
        missing: Missing = "error",
        progress: bool | None = None,
    ) -> Moments:
        """Pass over the rows and keep one row per cell.

        Parameters
        ----------
        data : frame or path
            A frame (of which engine: see `Study`), or files: a path, glob or folder, or a `DataFile`.
        design : Design
        missing : {"error", "drop"}
            Rows that lack an outcome, mediator, covariate, weight, block or cluster are left out and
            counted. Rows that lack the site or the arm are an error unless "drop".
        progress : bool, optional
            Bars on the passes over the rows; by default on a terminal, for files.

        Raises
        ------
        DataError
            And its children, for unreadable data; see `msmmiv.errors`.

        Examples
        --------
        >>> import pandas as pd, msmmiv as mm
        >>> df = pd.DataFrame({"s": [1, 1, 1, 1], "t": [0, 0, 1, 1], "m": [0., 1, 2, 3], "y": [1., 2, 4, 5]})
        >>> d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
        >>> mm.Moments.from_data(df, d).to_frame()[["site", "arm", "n", "mean[y]", "mean[m]"]]
           site  arm    n  mean[y]  mean[m]
        0     1    0  2.0      1.5      0.5
        1     1    1  2.0      4.5      2.5
        """
        check_choice(missing, Missing, "missing")
        return cls.from_rows(open_rows(data, design, missing=missing, progress=progress))

    @classmethod
    def from_rows(cls, rows: Rows) -> Moments:
        """Moments of rows that are already open (`Study` keeps them for second passes)."""
        sums = rows.cell_sums()
        lost: list[list[Any]] = rows.missing_cells.to_numpy(dtype=object).tolist()
        cells = [
            MissingCount(plain(site), plain(arm), column, int(count)) for site, arm, column, count in lost
        ]
        flow = SampleFlow(rows.rows_in, rows.missing, rows.incomplete, tuple(cells)).sorted()
        check_labels(rows.design, sums.keys)
        return cls._of(rows.design, sums, flow)

    @classmethod
    def _of(
        cls, design: Design, sums: CellSums, flow: SampleFlow, units: Units = (), floor: int | None = None
    ) -> Moments:
        cells = coded_cells(design, sums)
        return cls(**vars(cells), design=design, flow=flow, units=units, floor=floor)

    @classmethod
    def load(
        cls, *paths: str | Path, shared_sites: SharedSites = "refuse", equal_cells: EqualCells = "refuse"
    ) -> Moments:
        """Read moments files written by `save` and merge them.

        Files must have the same roles, labels of the same kind and the same units. A file given twice (also as a copy,
        or as CSV and as Parquet) is refused. Nothing else about people who are in two files can be noticed than what
        the two options ask about; `+` checks nothing and counts what it is given.

        Parameters
        ----------
        *paths : path
        shared_sites : {"refuse", "pool"}
            A site that is in two files: an error that names it, or its cells are added up. Adding up is exact for
            other people in one place, wrong for two places with one label; who holds a part can subtract it again.
        equal_cells : {"refuse", "keep"}
            A cell that is in two files with the same count, means and scatters: an error, or other people after all.

        Raises
        ------
        MomentsFileError
            Not a moments file, of another version, altered since it was written, or the same as another.
        MomentsMismatch
            Files with different roles, labels or units, with sites in common, or with cells in common.
        """
        return cls._of(*merged_files(paths, shared_sites=shared_sites, equal_cells=equal_cells))

    def save(
        self,
        path: str | Path,
        *,
        min_cell: int | None = None,
        small_cells: SmallCells = "refuse",
        units: Mapping[str, str] | None = None,
    ) -> Path:
        """Write one tidy table (CSV or Parquet, by the ending) with a header.

        No person's row is in it, but a cell of one is a person, and a cell of two gives both back: see ``min_cell``.
        The header says how many such cells there are. The file is there whole or not at all.

        Parameters
        ----------
        path : path
            Ends in ``.csv`` or ``.parquet``.
        min_cell : int, optional
            Smallest number of rows (1 or more) a cell may have; counts in the header keep to it too. With analytic or
            probability weights and p variables at least p + 3, since smaller cells give their rows back.
        small_cells : {"refuse", "suppress"}
            What happens to smaller ones: an error that lists them, or they are left out and counted (`suppress`);
            `suppression_effect` says what that does to the estimates.
        units : mapping of column to unit, optional
            What numbers are counted in, such as ``{"hours": "hours a week"}``; files whose units differ do not merge,
            and a unit that a file had stays: numbers are not converted.

        Raises
        ------
        DataError
            When cells are too small and ``small_cells="refuse"``, ``min_cell`` is missing or not a size, a unit is
            none or another than before, or the file cannot be written.
        WeightsError
            ``min_cell`` with frequency weights: cells count copies.

        Examples
        --------
        >>> import msmmiv as mm, tempfile, pathlib
        >>> m = mm.data.star()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = m.save(pathlib.Path(folder) / "star.csv")
        ...     mm.Moments.load(path).equals(m)
        True
        """
        floor = checked_floor(min_cell, small_cells, self.n, self.design, self._keys)
        kept = self if floor is None else self.suppress(floor, source=Path(path).stem)
        floor = max(floor or 0, self.floor or 0) or None
        flow = kept.flow if floor is None else kept.flow.floored(floor)
        known = checked_units(units, self.design, self.units)
        return write_table(
            Path(path), kept.to_frame(), design=self.design, flow=flow, units=known,
            told=cells_told(kept), min_cell=floor,
        )  # fmt: skip

    def suppress(self, min_cell: int, *, source: str = "") -> Moments:
        """Leave out cells of fewer than ``min_cell`` rows and count them in the flow, all together.

        The number of rows left out is not told where it would tell how many there are in a single cell.

        Parameters
        ----------
        min_cell : int
        source : str
            What the flow calls the file (or agency) that did it.

        Raises
        ------
        DataError
            ``min_cell`` is not a size, or every cell is smaller; frequency weights.

        Examples
        --------
        >>> import msmmiv as mm
        >>> kept = mm.data.star().suppress(12, source="tennessee")
        >>> print(kept.n_cells, "-", kept.flow.suppressed[0])
        315 - 10 cells of fewer than 12 rows left out when 'tennessee' was written; 3 sites lost with them
        """
        least = floor_for(self.design, min_cell)
        kept = self.take(large_cells(self.n, least))
        if kept.n_cells == self.n_cells:
            return self
        sites = int(self.treated_sites().sum() - kept.treated_sites().sum())
        rows, cells = int(self.n.sum() - kept.n.sum()), self.n_cells - kept.n_cells
        flow = left_out(self.flow, source, least, self.floor, cells=cells, rows=rows, sites=sites)
        return replace(kept, flow=flow)

    # -- reading --------------------------------------------------------------------------------

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the p columns: outcome, mediators, covariates (and a continuous treatment)."""
        return self.design.variables

    def _keys(self) -> pd.DataFrame:
        every = {"site": (self.sites, self.site), "block": ([b for _, b in self.blocks], self.block),
                 "arm": (self.arms, self.arm), "cluster": (self.clusters, self.cluster)}  # fmt: skip
        return pd.DataFrame({k: [x[c] for c in code] for k, (x, code) in every.items() if x or k == "site"})

    def to_frame(self) -> pd.DataFrame:
        """The cells as a tidy table, in the columns of the moments file."""
        parts = [self.first] if self.squared is self.first else [self.first, self.squared]
        return cell_table(self.design, self._keys(), self.n, parts)

    def equals(self, other: Moments, *, rtol: float = 1e-12) -> bool:
        """Whether two sets of moments agree cell by cell, to relative ``rtol`` of each variable's scale."""
        if self.design != other.design or self.n_cells != other.n_cells:
            return False
        return equal_tables(self.to_frame(), other.to_frame(), rtol=rtol)

    # -- combining ------------------------------------------------------------------------------

    def __add__(self, other: Moments) -> Moments:
        """Merge moments of the same design over different people; that they are different is not checked."""
        if not isinstance(other, Moments):
            return NotImplemented
        if self.design != other.design:
            raise MomentsMismatch(
                "Moments of different designs cannot be merged; they differ in "
                f"{differences(self.design, other.design)}."
            )
        units, floor = common_units(self.units, other.units), common_floor([self.floor, other.floor])
        sums = joined_sums([self._sums(), other._sums()])
        return self._of(self.design, sums, self.flow + other.flow, units, floor)

    def _sums(self) -> CellSums:
        parts = [getattr(x, f) for x in (self.first, self.squared) for f in ("weight", "mean", "scatter")]
        return CellSums(self._keys(), self.n, *parts)

    def take(self, cells: Codes) -> Moments:
        """The moments of the chosen cells only, with labels recoded, as if no others had been in the data."""
        sums = taken(self._sums(), cells)
        flow = replace(self.flow, rows_in=self.flow.rows_in - round(float(self.n.sum() - sums.n.sum())))
        return self._of(self.design, sums, flow, self.units, self.floor)

    def drop(self, *sites: Label) -> Moments:
        """Leave out whole sites; undoes merging, and leave-one-site-out needs nothing more.

        Raises
        ------
        DataError
            An unknown site, or no site left.
        """
        unknown = [s for s in sites if s not in self.sites]
        if unknown:
            raise DataError(
                f"No site {listing(map(repr, unknown))}; the sites are {listing(map(repr, self.sites), most=15)}."
            )
        return self._without(dict.fromkeys(sites, "left out by request"))

    def _without(self, reasons: dict[Label, str]) -> Moments:
        codes = np.array([c for c, s in enumerate(self.sites) if s in reasons], dtype=np.int64)
        gone = np.isin(self.site, codes)
        if gone.all():
            raise DataError("No site is left after leaving those out.")
        rows = np.bincount(self.site, self.n, self.n_sites)
        dropped = [DroppedSite(self.sites[c], int(rows[c]), reasons[self.sites[c]]) for c in codes]
        return replace(self.take(np.flatnonzero(~gone)), flow=self.flow.drop(*dropped))

    def usable(self) -> Moments:
        """Leave out sites in which the treatment does not vary, with a warning that lists them.

        Raises
        ------
        DataError
            When no site has two arms.
        """
        treated = self.treated_sites()
        bad = [s for s, good in zip(self.sites, treated, strict=True) if not good]
        if not bad:
            return self
        if len(bad) == self.n_sites:
            arms = f" (arms found: {listing(map(repr, self.arms))})" if self.arms else ""
            raise DataError(
                f"{self.design.treatment!r} does not vary inside any site{arms}: nothing identifies its effect."
            )
        rows = int(self.n[~treated[self.site]].sum())
        warnings.warn(
            f"{self.design.treatment!r} does not vary inside {len(bad)} of {count(self.n_sites, 'site')}, which "
            f"{'was' if len(bad) == 1 else 'were'} dropped ({count(rows, 'row')}): {listing(bad)}.",
            OneArmSiteWarning,
            stacklevel=2,
        )
        return self._without(dict.fromkeys(bad, "the treatment does not vary inside the site"))

    def by_arm(self) -> Moments:
        """Merge clusters, so that a cell is a site x block x arm."""
        if not self.clusters:
            return self
        label = self.intercept * (len(self.arms) + 1) + (self.arm if self.arms else 0)
        _, start, groups = np.unique(label, return_index=True, return_inverse=True)
        first = self.first.merged(groups, len(start))
        squared = first if self.squared is self.first else self.squared.merged(groups, len(start))
        return replace(
            self, clusters=(), cluster=np.zeros(len(start), dtype=np.int64), site=self.site[start],
            arm=self.arm[start], block=self.block[start], first=first, squared=squared,
            n=frozen(group_sum(self.n, groups, len(start))),
        )  # fmt: skip

    def cluster_means(self) -> Moments:
        """Every cluster (in each block and arm) as one row: its mean, weighted by its size.

        This is the level at which mediators that have one value per cluster really vary.

        Raises
        ------
        DataError
            When the design declares no cluster.
        """
        if not self.clusters:
            raise DataError("Cluster means need a design with cluster=...")
        flat = frozen(np.zeros_like(self.first.scatter))
        size, mean = self.first.weight, self.first.mean
        rows, squared = CellMoments(size, mean, flat), CellMoments(frozen(size**2), mean, flat)
        n = frozen(np.ones(self.n_cells))
        return replace(self, n=n, first=rows, squared=squared, floor=None).by_arm()

    def __repr__(self) -> str:
        kinds = [f"{self.n_sites} sites"]
        kinds += [f"{len(v)} {k}" for k, v in (("blocks", self.blocks), ("arms", self.arms)) if v]
        kinds += [f"{len(self.clusters)} clusters"] if self.clusters else []
        return f"Moments({self.n.sum():,.0f} rows in {self.n_cells:,} cells: {', '.join(kinds)})"

    _repr_html_ = moments_card
