"""Moments: one row per cell (site x block x arm x cluster), closed under merging and dropping."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from msmmiv.design import Design, Label
from msmmiv.errors import (
    DataError,
    MomentsFileError,
    MomentsMismatch,
    OneArmSiteWarning,
    check_choice,
    count,
    listing,
)
from msmmiv.linalg import Codes, frozen, group_sum
from msmmiv.moments.assembly import KEYS, CellMoments, CodedCells, coded_cells
from msmmiv.moments.exchange import read_table, write_table
from msmmiv.moments.flow import DroppedSite, MissingCount, SampleFlow
from msmmiv.moments.labels import check_spelling, plain
from msmmiv.moments.moments_card import moments_card
from msmmiv.moments.opening import open_rows
from msmmiv.moments.sums import CellSums, Rows

__all__ = ["Missing", "Moments"]

Missing = Literal["error", "drop"]
SmallCells = Literal["refuse", "suppress"]


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
        named = {"site": rows.design.site, "block": rows.design.block, "arm": rows.design.treatment}
        for role, column in named.items():
            if role in sums.keys:
                check_spelling(sums.keys[role].unique(), str(column), role)
        return cls._of(rows.design, sums, flow)

    @classmethod
    def _of(cls, design: Design, sums: CellSums, flow: SampleFlow) -> Moments:
        cells = coded_cells(design, sums)
        return cls(**vars(cells), design=design, flow=flow)

    @classmethod
    def load(cls, *paths: str | Path) -> Moments:
        """Read moments files written by `save` and merge them.

        A file given twice (also as a copy, or as CSV and as Parquet) is refused. People who are in two
        different files cannot be noticed, and `+` checks nothing: it counts what it is given.

        Raises
        ------
        MomentsFileError
            Not a moments file, of another version, altered since it was written, or the same as another.
        MomentsMismatch
            Files with different designs.
        """
        if not paths:
            raise DataError("Moments.load needs at least one path.")
        parts, seen = [], dict[str, Any]()
        for path in paths:
            seal, content = read_table(Path(path))
            if seal in seen:
                raise MomentsFileError(
                    f"{str(seen[seal])!r} and {str(path)!r} hold the same moments (their seals are equal): merging "
                    "them would count everybody twice. Give each file once."
                )
            seen[seal] = path
            parts.append(cls._of(*content))
        return reduce(add, parts)

    def save(
        self, path: str | Path, *, min_cell: int | None = None, small_cells: SmallCells = "refuse"
    ) -> Path:
        """Write one tidy table (CSV or Parquet, by the ending) with a header.

        No person's row is in it, but a cell of one is a person: see ``min_cell``.

        Parameters
        ----------
        path : path
            Ends in ``.csv`` or ``.parquet``.
        min_cell : int, optional
            Smallest number of rows (1 or more) a cell may have. The flow in the header then names no site
            with a smaller count either: small counts of missing values are left out, small sites added up.
        small_cells : {"refuse", "suppress"}
            What happens to smaller ones: an error that lists them, or they are left out and counted.

        Raises
        ------
        DataError
            When cells are too small and ``small_cells="refuse"``, ``min_cell`` is missing or not a size, or
            the file cannot be written.

        Examples
        --------
        >>> import msmmiv as mm, tempfile, pathlib
        >>> m = mm.data.star()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = m.save(pathlib.Path(folder) / "star.csv")
        ...     mm.Moments.load(path).equals(m)
        True
        """
        check_choice(small_cells, SmallCells, "small_cells")
        if min_cell is None:
            if small_cells == "suppress":
                raise DataError(
                    'small_cells="suppress" needs a size: min_cell=10 leaves out cells below ten rows.'
                )
            return write_table(Path(path), self.design, self.to_frame(), self.flow)
        size: Any = min_cell  # whatever was given
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise DataError(
                f"min_cell must be a whole number of 1 or more, not {size!r}; None sets no limit."
            )
        kept, flow = self, self.flow
        small = np.flatnonzero(self.n < min_cell)
        if small.size and small_cells == "refuse":
            names = self._keys().iloc[small].astype(str).agg("/".join, axis=1)
            where = [f"{name} ({self.n[c]:g})" for name, c in zip(names, small, strict=True)]
            raise DataError(
                f"{count(small.size, 'cell')} with fewer than {min_cell} rows: {listing(where, most=5)}. Leave "
                'them out with small_cells="suppress" (the estimates then lack those rows), or declare no cluster.'
            )
        if small.size == self.n_cells:
            raise DataError(f"Every cell has fewer than {min_cell} rows: nothing would be left to save.")
        if small.size:
            kept = self.take(np.setdiff1d(np.arange(self.n_cells), small))
            reason = f"in cells of fewer than {min_cell} rows"
            flow = flow.drop(DroppedSite(None, int(self.n[small].sum()), reason))
        return write_table(Path(path), kept.design, kept.to_frame(), flow.floored(int(min_cell)))

    # -- reading --------------------------------------------------------------------------------

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the p columns: outcome, mediators, covariates (and a continuous treatment)."""
        return self.design.variables

    def _keys(self) -> pd.DataFrame:
        frame = pd.DataFrame({"site": [self.sites[c] for c in self.site]})
        if self.blocks:
            frame["block"] = [self.blocks[c][1] for c in self.block]
        if self.arms:
            frame["arm"] = [self.arms[c] for c in self.arm]
        if self.clusters:
            frame["cluster"] = [self.clusters[c] for c in self.cluster]
        return frame

    def to_frame(self) -> pd.DataFrame:
        """The cells as a tidy table, in the columns of the moments file."""
        frame = self._keys()
        frame["n"] = self.n
        p = len(self.variables)
        parts = {"": self.first} | ({} if self.squared is self.first else {"squared_": self.squared})
        for prefix, part in parts.items():
            columns = {f"{prefix}weight": part.weight}
            for j, a in enumerate(self.variables):
                columns[f"{prefix}mean[{a}]"] = part.mean[:, j]
            for i, a in enumerate(self.variables):
                for j, b in enumerate(self.variables[i:], start=i):
                    columns[f"{prefix}scatter[{a},{b}]"] = part.scatter[:, i, j]
            if len(columns) < 1 + p * (p + 3) // 2:
                raise DataError(
                    "Names with commas make the columns of this table ambiguous: "
                    f"{listing(self.variables, quote=True)}. Rename those columns in the data."
                )
            frame = pd.concat([frame, pd.DataFrame(columns)], axis=1)
        return frame

    def equals(self, other: Moments, *, rtol: float = 1e-12) -> bool:
        """Whether two sets of moments agree cell by cell, to relative ``rtol`` of each variable's scale."""
        if self.design != other.design or self.n_cells != other.n_cells:
            return False
        mine, theirs = self.to_frame(), other.to_frame()
        keys = [k for k in KEYS if k in mine]
        if not mine[keys].equals(theirs[keys]):
            return False
        a = mine.drop(columns=keys).to_numpy(dtype=float)
        b = theirs.drop(columns=keys).to_numpy(dtype=float)
        return bool(np.all(np.abs(a - b) <= rtol * np.maximum(np.abs(a).max(axis=0), np.abs(b).max(axis=0))))

    # -- combining ------------------------------------------------------------------------------

    def __add__(self, other: Moments) -> Moments:
        """Merge moments of the same design over different people; that they are different is not checked."""
        if not isinstance(other, Moments):
            return NotImplemented
        if self.design != other.design:
            mine, theirs = self.design.to_dict(), other.design.to_dict()
            differ = [f"{k}: {mine[k]!r} and {theirs[k]!r}" for k in mine if mine[k] != theirs[k]]
            raise MomentsMismatch(
                f"Moments of different designs cannot be merged; they differ in {'; '.join(differ)}."
            )
        keys = pd.concat([self._keys(), other._keys()], ignore_index=True)
        both = self.first, other.first
        sums = CellSums(
            keys, np.concatenate([self.n, other.n]),
            *(np.concatenate([getattr(x, f) for x in both]) for f in ("weight", "mean", "scatter")),
            *(np.concatenate([getattr(x.squared, f) for x in (self, other)])
              for f in ("weight", "mean", "scatter")),
        )  # fmt: skip
        return self._of(self.design, sums, self.flow + other.flow)

    def take(self, cells: Codes) -> Moments:
        """The moments of the chosen cells only, with labels recoded."""
        first, squared = self.first.take(cells), self.squared.take(cells)
        sums = CellSums(
            self._keys().iloc[cells].reset_index(drop=True), self.n[cells],
            first.weight, first.mean, first.scatter, squared.weight, squared.mean, squared.scatter,
        )  # fmt: skip
        return self._of(self.design, sums, self.flow)

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
        return replace(self, n=frozen(np.ones(self.n_cells)), first=rows, squared=squared).by_arm()

    def __repr__(self) -> str:
        kinds = [f"{self.n_sites} sites"]
        kinds += [f"{len(v)} {k}" for k, v in (("blocks", self.blocks), ("arms", self.arms)) if v]
        kinds += [f"{len(self.clusters)} clusters"] if self.clusters else []
        return f"Moments({self.n.sum():,.0f} rows in {self.n_cells:,} cells: {', '.join(kinds)})"

    _repr_html_ = moments_card
