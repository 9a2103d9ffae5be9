"""Passes over open rows: per-cell sums, and products of residuals for robust covariances.

Two steps, always: column means first (when the rows are opened), then plain sums of products of *centred*
columns; raw sums of squares lose every digit when mean/sd is large. Where cells lie so far apart that
centring at the column means still cancels, a further pass centres each cell at its own mean.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations_with_replacement
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import DataError, listing
from msmmiv.linalg import Array
from msmmiv.moments.frames import Frame, collected, joined
from msmmiv.moments.labels import plain
from msmmiv.progress import Passes

__all__ = ["CellSums", "Rows"]


@dataclass(frozen=True)
class CellSums:
    """What one grouping of the rows returns: keys, counts and centred first and second moments.

    ``weight``, ``mean`` and ``scatter`` use the weights; the ``squared_`` fields use their squares and
    are what heteroskedasticity-robust covariances read.
    """

    keys: pd.DataFrame
    n: Array
    weight: Array
    mean: Array
    scatter: Array
    squared_weight: Array
    squared_mean: Array
    squared_scatter: Array


@dataclass(frozen=True)
class Rows:
    """Checked rows behind a design: complete cases with canonical column names.

    ``v0, v1, ...`` are `Design.variables` as floats, ``site``, ``block``, ``arm``, ``cluster`` the keys
    that were declared, ``w`` the weights.
    """

    design: Design
    frame: Frame
    keys: tuple[str, ...]
    rows_in: int
    missing: tuple[tuple[str, int], ...]
    incomplete: int
    missing_cells: pd.DataFrame
    centre: Array
    source: str
    passes: Passes
    unchanged: Callable[[], None]

    @cached_property
    def _labels(self) -> dict[tuple[str, ...], pd.DataFrame]:
        """Labels as the engine holds them, once looked up."""
        return {}

    @contextmanager
    def _pass(self, what: str) -> Iterator[None]:
        """A pass over the rows that were opened, and no others."""
        self.unchanged()
        with self.passes.step(what):
            yield

    def cell_sums(self) -> CellSums:
        """Group the rows once, and once more if centring at the column means has lost digits."""
        with self._pass("sums of centred products"), np.errstate(over="ignore", invalid="ignore"):
            sums = _grouped(self, [nw.col(f"v{j}") - m for j, m in enumerate(self.centre.tolist())])
        wild = ~np.isfinite(sums.scatter + sums.squared_scatter).all(axis=(0, 1))
        if wild.any():
            names = [self.design.variables[j] for j in np.flatnonzero(wild)]
            raise DataError(
                f"Sums of squares of {listing(names, quote=True)} overflow. Divide the columns by their scale first."
            )
        if not _cancelled(sums):
            return _shifted(sums, self.centre)
        cells = sums.keys.copy()
        centre = self.centre + sums.mean
        for j in range(centre.shape[1]):
            cells[f"c{j}"] = centre[:, j]
        both = joined(self.frame, cells, self.keys, "left")
        with self._pass("second centring"):
            again = _grouped(self, [nw.col(f"v{j}") - nw.col(f"c{j}") for j in range(centre.shape[1])], both)
        order = pd.MultiIndex.from_frame(sums.keys).get_indexer(pd.MultiIndex.from_frame(again.keys))
        return _shifted(again, centre[order])

    def collect(self) -> pd.DataFrame:
        """Every complete row with its columns under their own names: for estimators that need people, not sums.

        The columns of the design only, numbers as floats; the rows have a new index. This is the one place where
        memory grows with the number of people.

        Examples
        --------
        >>> from msmmiv.moments.opening import open_rows
        >>> df = pd.DataFrame({"s": ["a", "a", "b"], "t": [0, 1, 0], "m": [1, 2, None], "y": [3, 4, 5], "z": 0})
        >>> open_rows(df, Design(outcome="y", treatment="t", mediators="m", site="s"), missing="error").collect()
             y    m  s  t
        0  3.0  1.0  a  0
        1  4.0  2.0  a  1
        """
        names = {f"v{j}": column for j, column in enumerate(self.design.variables)}
        names |= {k: getattr(self.design, "treatment" if k == "arm" else k) for k in self.keys}
        names |= {"w": self.design.weights} if self.design.weights else {}
        with self._pass("all rows"):
            return collected(self.frame.select(*names), self.source).rename(columns=names)

    def _beside(self, table: pd.DataFrame, on: Sequence[str]) -> Frame:
        """Join constants to the rows by label; rows without a match (sites left out) go."""
        self.unchanged()
        if tuple(on) not in self._labels:
            # A group-by, since `unique` sorts all rows on Spark.
            with self._pass("labels"):
                found = collected(self.frame.group_by(*on).agg(nw.len().alias("rows")), self.source)
            self._labels[tuple(on)] = found[list(on)]
        native = self._labels[tuple(on)].copy()
        native["match"] = list(map(tuple, native[list(on)].map(plain).to_numpy(dtype=object)))
        keyed = table.drop(columns=list(on))
        keyed["match"] = list(map(tuple, table[list(on)].to_numpy(dtype=object)))
        found = native.merge(keyed, on="match").drop(columns="match")
        return joined(self.frame, found, on, "inner")

    def squared_residual_products(
        self,
        cells: pd.DataFrame,
        on: Sequence[str],
        residuals: Sequence[Mapping[str, float | str]],
        regressors: Sequence[Mapping[str, float | str]],
        *,
        share: str,
        power: int,
        by_site: bool = False,
    ) -> tuple[pd.DataFrame, Array]:
        """Sums of ``w^2 e_a^2 z_c z_d / (1 - h)^power`` over rows: the meat of a robust covariance.

        Parameters
        ----------
        cells : DataFrame
            One row per cell with the key columns ``on`` and the constants the forms refer to.
        residuals, regressors : sequence of mappings
            Linear forms: ``{"v0": 1.0, "v1": -2.0, "k": 1.0}`` is ``v0 - 2 v1 + k``; names are row
            columns or constants of ``cells``; a text value names a constant that multiplies the column.
        share : str
            Constant of ``cells`` holding the leverage of the intercept (one over the block's weight). The
            regressors have unit cross-products, so leverage is ``w (share + z'z)``.
        power : {0, 1, 2}
            0 for HC0/HC1, 1 for HC2, 2 for HC3.
        by_site : bool
            Return one array per site instead of the total.

        Returns
        -------
        sites : DataFrame
        meat : (G, R, k, k) array
            One matrix per residual; G is the number of sites, or 1.
        """
        frame = self._beside(cells, on)
        e = [f"e{j}" for j in range(len(residuals))]
        z = [f"z{j}" for j in range(len(regressors))]
        forms = dict(zip(e, residuals, strict=True)) | dict(zip(z, regressors, strict=True))
        frame = _computed(frame.with_columns(**{name: _form(form) for name, form in forms.items()}))
        weight = nw.col("w") if self.design.weights else None
        copies = weight is None or self.design.weight_kind == "frequency"
        factor: Any = 1.0 if weight is None else weight if copies else weight * weight
        if power:
            leverage = reduce(operator.add, (nw.col(a) * nw.col(a) for a in z), nw.col(share))
            frame = _computed(frame.with_columns(rest=1.0 - (leverage if copies else leverage * weight)))
            rest = nw.col("rest")
            # A row that is alone in its block fits itself and has no residual: it adds nothing. (A zero made of a
            # column, since Dask puts together columns of one frame only; its `sum_horizontal` leaves the frame too.)
            factor = (
                nw.when(rest > 1e-12)
                .then(factor / (rest if power == 1 else rest * rest))
                .otherwise(0.0 * rest)
            )
        factor = nw.lit(factor) if isinstance(factor, float) else factor
        frame = _computed(frame.with_columns(factor=factor))
        factors = {f"f{a}": nw.col("factor") * nw.col(n) * nw.col(n) for a, n in enumerate(e)}
        frame = _computed(frame.with_columns(**factors))
        pairs = list(combinations_with_replacement(range(len(z)), 2))
        names = {f"q{a}_{c}_{d}": (a, c, d) for a in range(len(e)) for c, d in pairs}
        frame = frame.with_columns(
            **{n: nw.col(f"f{a}") * nw.col(z[c]) * nw.col(z[d]) for n, (a, c, d) in names.items()}
        )
        sums = [nw.col(n).sum() for n in names]
        with self._pass("products of residuals and regressors"):
            got = (
                _aggregated(self, frame, ["site"], sums)
                if by_site
                else collected(frame.select(*sums), self.source)
            )
        meat = np.zeros((len(got), len(e), len(z), len(z)))
        for n, (a, c, d) in names.items():
            meat[:, a, c, d] = meat[:, a, d, c] = got[n].to_numpy(dtype=float)
        return got[["site"]] if by_site else pd.DataFrame(index=range(1)), meat


def _aggregated(rows: Rows, frame: Frame, by: Sequence[str], sums: Sequence[nw.Expr]) -> pd.DataFrame:
    with warnings.catch_warnings():
        # Many covariates make many sums, and pandas calls a frame of those fragmented.
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        return collected(frame.group_by(*by).agg(*sums), rows.source)


def _grouped(rows: Rows, centred: Sequence[nw.Expr], frame: Frame = None) -> CellSums:
    """One group-by: sums of weight, weighted centred columns and their products, per cell."""
    frame = rows.frame if frame is None else frame
    p = len(centred)
    weighted = bool(rows.design.weights)
    squared = rows.design.weight_kind in ("analytic", "probability")
    frame = frame.with_columns(**{f"d{j}": c for j, c in enumerate(centred)})
    pairs = list(combinations_with_replacement(range(p), 2))
    prefixes = {"": None, **({"w": nw.col("w")} if weighted else {}),
                **({"q": nw.col("w") * nw.col("w")} if squared else {})}  # fmt: skip
    if weighted:
        prefixes.pop("")
    made: dict[str, nw.Expr] = {}
    for prefix, weight in prefixes.items():
        if weight is not None:
            made[f"{prefix}_n"] = weight
            made |= {f"{prefix}_{j}": weight * nw.col(f"d{j}") for j in range(p)}
        for i, j in pairs:
            product = nw.col(f"d{i}") * nw.col(f"d{j}")
            made[f"{prefix}_{i}_{j}"] = product if weight is None else weight * product
    names = [*made, *(f"d{j}" for j in range(p) if not weighted)]
    frame = frame.with_columns(**made).select(*rows.keys, *names)
    got = _aggregated(rows, frame, rows.keys, [nw.len().alias("n"), *(nw.col(c).sum() for c in names)])

    def moments(prefix: str) -> tuple[Array, Array, Array]:
        count = got[f"{prefix}_n" if prefix else "n"].to_numpy(dtype=float)
        first = np.column_stack(
            [got[f"{prefix}_{j}" if prefix else f"d{j}"].to_numpy(dtype=float) for j in range(p)]
        )
        mean = first / count[:, None]
        scatter = np.empty((len(got), p, p))
        for i, j in pairs:
            raw = got[f"{prefix}_{i}_{j}"].to_numpy(dtype=float) - first[:, i] * mean[:, j]
            scatter[:, i, j] = scatter[:, j, i] = np.maximum(raw, 0.0) if i == j else raw
        return count, mean, scatter

    base = moments("w" if weighted else "")
    extra = moments("q") if squared else base
    n = base[0] if rows.design.weight_kind == "frequency" else got["n"].to_numpy(dtype=float)
    return CellSums(got[list(rows.keys)], n, *base, *extra)


def _cancelled(sums: CellSums, worst: float = 1e5) -> bool:
    """Whether cells lie so far from the column mean that their scatter has lost more than ~5 digits.

    A cell of one row has no scatter to lose. Rounding is ``eps * weight * mean^2``: with a ratio of 1e5
    the scatter still holds eleven digits.
    """
    for weight, mean, scatter in ((sums.weight, sums.mean, sums.scatter),
                                  (sums.squared_weight, sums.squared_mean, sums.squared_scatter)):  # fmt: skip
        shift = weight[:, None] * mean**2
        inside = np.diagonal(scatter, axis1=1, axis2=2)
        if np.any((shift > worst * inside) & (sums.n[:, None] > 1) & (shift > 0)):
            return True
    return False


def _shifted(sums: CellSums, centre: Array) -> CellSums:
    one = (sums.n == 1)[:, None, None]
    return CellSums(
        sums.keys, sums.n, sums.weight, sums.mean + centre, np.where(one, 0.0, sums.scatter),
        sums.squared_weight, sums.squared_mean + centre, np.where(one, 0.0, sums.squared_scatter),
    )  # fmt: skip


def _computed(frame: Frame) -> Frame:
    """Keep DuckDB from writing an expression out again wherever its column is used.

    It merges stacked projections, and a leverage of k terms would then be computed in each of k^2 products; a
    limit that cuts nothing keeps them apart.
    """
    if frame.implementation is nw.Implementation.DUCKDB:
        return frame.head(2**62)
    return frame


def _form(form: Mapping[str, float | str]) -> nw.Expr:
    terms = (nw.col(n) * (nw.col(f) if isinstance(f, str) else float(f)) for n, f in form.items())
    return reduce(operator.add, terms)
