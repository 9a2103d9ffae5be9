"""From grouped sums to coded, ordered cells; and merging cells by Chan's formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.design import Design, Label
from msmmiv.errors import DataError
from msmmiv.linalg import Array, Codes, group_products, group_sum, sealed
from msmmiv.moments.labels import find_arms, natural_order, plain
from msmmiv.moments.sums import CellSums

__all__ = ["KEYS", "CellMoments", "CodedCells", "coded_cells"]

#: Key columns of a cell, in the order of the moments file.
KEYS = ("site", "block", "arm", "cluster")


@dataclass(frozen=True, eq=False)
class CellMoments:
    """Weight, mean and centred scatter of each cell.

    Attributes
    ----------
    weight : (C,) array
        Sum of weights.
    mean : (C, p) array
        Weighted means of the variables.
    scatter : (C, p, p) array
        Weighted sums of products of deviations from the cell's mean.
    """

    weight: Array
    mean: Array
    scatter: Array

    def merged(self, groups: Codes, size: int) -> CellMoments:
        """Combine cells with equal ``groups`` (Chan's formula, any number at once)."""
        weight = group_sum(self.weight, groups, size)
        # Means relative to one member of the group, so that a common offset costs no digits.
        first = np.zeros(size, dtype=np.int64)
        first[groups[::-1]] = np.arange(len(groups))[::-1]
        origin = self.mean[first]
        delta = self.mean - origin[groups]
        mean = group_sum(self.weight[:, None] * delta, groups, size) / weight[:, None]
        away = delta - mean[groups]
        # Cells with one and the same mean differ by the rounding of that mean alone.
        away = np.where(np.abs(away) <= 8 * np.finfo(float).eps * np.abs(self.mean), 0.0, away)
        scatter = group_products(self.weight, away, groups, size, inside=self.scatter)
        return CellMoments(sealed(weight), sealed(mean + origin), sealed(scatter))

    def take(self, rows: Codes) -> CellMoments:
        """The chosen cells, in that order."""
        return CellMoments(sealed(self.weight[rows]), sealed(self.mean[rows]), sealed(self.scatter[rows]))


@dataclass(frozen=True, eq=False)
class CodedCells:
    """Cells with integer codes into label tuples, sorted by site, block, arm and cluster."""

    sites: tuple[Label, ...]
    arms: tuple[Label, ...]
    blocks: tuple[tuple[Label, Label], ...]
    clusters: tuple[Label, ...]
    site: Codes
    arm: Codes
    block: Codes
    cluster: Codes
    n: Array
    first: CellMoments
    squared: CellMoments

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.n)

    @property
    def n_sites(self) -> int:
        """Number of sites, usable or not."""
        return len(self.sites)

    @property
    def n_blocks(self) -> int:
        """Number of intercepts: blocks, or sites where no block is declared."""
        return len(self.blocks) if self.blocks else self.n_sites

    @property
    def intercept(self) -> Codes:
        """Code of the intercept (block, or site) of each cell."""
        return self.block if self.blocks else self.site

    @property
    def intercept_site(self) -> Codes:
        """Code of the site of each intercept."""
        owner = np.zeros(self.n_blocks, dtype=np.int64)
        owner[self.intercept] = self.site
        return owner

    def treated_sites(self) -> npt.NDArray[np.bool_]:
        """(K,) whether the treatment varies inside some block of the site."""
        if self.arms:
            there = np.zeros((self.n_blocks, len(self.arms)), dtype=bool)
            there[self.intercept, self.arm] = True
            varies = there.sum(axis=1) > 1
        else:
            doses = self.first.merged(self.intercept, self.n_blocks)
            dose = doses.mean[:, -1]
            varies = doses.scatter[:, -1, -1] > 1e-26 * doses.weight * (dose**2 + np.ptp(dose) ** 2)
        out = np.zeros(self.n_sites, dtype=bool)
        out[self.intercept_site[varies]] = True
        return out


def coded_cells(design: Design, sums: CellSums) -> CodedCells:
    """Order the cells, merge those with equal keys, code the labels."""
    keys = sums.keys
    none: tuple[tuple[Label, ...], Codes] = ((), np.zeros(len(keys), dtype=np.int64))
    labels = {k: _coded(keys[k]) for k in keys}
    sites, site = labels["site"]
    arms, arm = labels.get("arm", none)
    if design.treatment_kind == "arms":
        order = find_arms(design, arms)
        arms, arm = tuple(arms[i] for i in order), np.argsort(order)[arm]
    clusters, cluster = labels.get("cluster", none)
    names, code = labels.get("block", none)
    block = code
    blocks: tuple[tuple[Label, Label], ...] = ()
    if names:
        pair, block = np.unique(site * len(names) + code, return_inverse=True)
        blocks = tuple((sites[v // len(names)], names[v % len(names)]) for v in pair.tolist())
    full, new = _order((site, block, arm, cluster))
    groups = np.cumsum(new) - 1
    stack = np.stack([code[full[new]] for code in (site, block, arm, cluster)])
    stack.flags.writeable = False
    size = stack.shape[1]
    copies = design.weight_kind not in ("analytic", "probability")
    first = CellMoments(sums.weight, sums.mean, sums.scatter).take(full)
    squared = CellMoments(sums.squared_weight, sums.squared_mean, sums.squared_scatter).take(full)
    if not new.all():
        first = first.merged(groups, size)
        squared = squared if copies else squared.merged(groups, size)
    return CodedCells(
        sites=sites, arms=arms, blocks=blocks, clusters=clusters,
        site=stack[0], block=stack[1], arm=stack[2], cluster=stack[3],
        n=sealed(group_sum(sums.n[full], groups, size)),
        first=first, squared=first if copies else squared,
    )  # fmt: skip


def _order(codes: Sequence[Codes]) -> tuple[Codes, npt.NDArray[np.bool_]]:
    """The order by all codes, the first before the second, and where in it a combination is seen first."""
    sizes = [int(code.max(initial=0)) + 1 for code in codes]
    if math.prod(sizes) < 2**63:  # one number per cell, which sorts many times faster than four
        key = np.ravel_multi_index(tuple(codes), sizes)
        full = np.argsort(key, kind="stable")
        return full, np.diff(key[full], prepend=-1) != 0
    full = np.lexsort(tuple(codes)[::-1])
    same = np.ones(len(full), dtype=bool)
    for code in codes:
        same &= np.diff(code[full], prepend=-1) == 0
    return full, ~same


def _coded(column: pd.Series[Any]) -> tuple[tuple[Label, ...], Codes]:
    """Labels in natural order, and the code of each cell; a mixture of text and numbers becomes text.

    Labels are looked at once each and not once per cell, and those that are integers in the engine not at all: with
    a million sites that is most of the work.
    """
    codes, uniques = pd.factorize(column)
    if codes.min(initial=0) < 0:  # would be counted from the end, and so be another label
        raise DataError(
            f"Some cells have no {column.name}: every cell needs one. Leave those rows out, or fill them in."
        )
    if isinstance(uniques.dtype, np.dtype) and uniques.dtype.kind == "i":
        numbers = np.asarray(uniques)
        order = np.argsort(numbers)
        return tuple(numbers[order].tolist()), _inverse(order)[codes]
    labels = [plain(u) for u in uniques]
    if len({isinstance(v, str) for v in labels}) > 1:
        labels = [str(v) for v in labels]
    try:
        "".join(v for v in labels if isinstance(v, str)).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"A label of {column.name} holds {error.object[error.start : error.end]!r}, half of a character, which no "
            "file can hold. Spell it anew in the data."
        ) from error
    # What differs in the engine can be one label: 1 and 1.0, or a midnight and its day.
    first = dict[Any, int]()
    which = np.array([first.setdefault(v, len(first)) for v in labels], dtype=np.int64)
    distinct = list(first)
    order = np.array(natural_order(distinct), dtype=np.int64)
    return tuple(distinct[i] for i in order), _inverse(order)[which[codes]]


def _inverse(order: Codes) -> Codes:
    """Position of each element in the order."""
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    return position
