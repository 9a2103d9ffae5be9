"""Sites that two files both hold: found by their numbers, and only where chance cannot have made them equal."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.linalg import Array, Codes
from msmmiv.moments.sums import CellSums

__all__ = ["cells_in_both"]

#: Numbers are compared to 24 binary digits (seven decimal ones) of a cell's own scale: engines agree to ten.
_DIGITS = 2.0**24
#: Chance below which equal sites are taken for the same people.
_CHANCE = 1e-6
#: Steps in which values are counted: whole numbers, halves, hundreds, and so on, the coarsest that fits.
_STEPS = [m * 10.0**k for k in range(6, -5, -1) for m in (5, 2.5, 2, 1)]


def cells_in_both(one: CellSums, other: CellSums) -> Codes:
    """Cells of ``one`` in sites that ``other`` seems to hold as well, whatever the labels.

    A site counts if each of its cells has an equal in ``other`` (count, means, scatters). How likely that is for other
    people follows from the cell: two sets of n people with scatter S, whose p values move in steps, have equal sums
    with a chance of about 1 / sqrt((4 pi)^p det S), S in units of the steps (the normal approximation on a lattice).
    Sites count if that is less than one in a million for one of them among all pairs, or for so many equal sites.
    """
    group = _groups(one, other)
    mine, theirs = group[: len(one.n)], group[len(one.n) :]
    found = np.isin(mine, theirs)
    site, names = pd.factorize(one.keys["site"])
    there, others = pd.factorize(other.keys["site"])
    whole = np.bincount(site, ~found, len(names)) == 0
    if not whole.any():
        return np.zeros(0, dtype=np.int64)
    steps = [
        _step(np.concatenate([s.n * s.mean[:, j] for s in (one, other)])) for j in range(one.mean.shape[1])
    ]
    log = _log_chance(one, np.array(steps))
    alone = np.bincount(site, np.minimum(log + math.log(len(other.n)), 0.0), len(names))
    told = whole & (alone + math.log(len(names)) < math.log(_CHANCE))
    # Coarse values: many sites at once, each equal to one whole site.
    same = whole & np.isin(_of_sites(mine, site, len(names)), _of_sites(theirs, there, len(others)))
    if same.any():
        expected = len(others) * np.exp(np.bincount(site, log, len(names))).sum()
        m = int(same.sum())
        if m * math.log(max(expected, 1e-300)) - math.lgamma(m + 1) < math.log(_CHANCE):
            told |= same
    return np.flatnonzero(told[site])


def _groups(one: CellSums, other: CellSums) -> Codes:
    """The same number for cells with the same count, weights, means and scatters; scales are each cell's own."""
    n, weight, mean, scatter = (
        np.concatenate([getattr(s, f) for s in (one, other)]) for f in ("n", "weight", "mean", "scatter")
    )
    square = np.maximum(np.einsum("cjj->cj", scatter), 0.0)
    power = _power(np.abs(mean) + np.sqrt(square / weight[:, None]))
    heavy = _power(weight)
    upper = np.triu_indices(mean.shape[1])
    pairs = power[:, upper[0]] + power[:, upper[1]] + heavy[:, None]
    columns = np.column_stack(
        [
            n,
            heavy,
            np.round(np.ldexp(weight, -heavy) * _DIGITS),
            power,
            np.round(np.ldexp(mean, -power) * _DIGITS),
            np.round(np.ldexp(scatter[:, upper[0], upper[1]], -pairs) * _DIGITS),
        ]
    )
    frame = pd.DataFrame(columns + 0.0)  # no negative zeros
    return np.asarray(frame.groupby(list(frame.columns), sort=False).ngroup(), dtype=np.int64)


def _power(scale: Array) -> npt.NDArray[np.int32]:
    """The power of two of a scale; not one at which whole numbers would change sides by rounding."""
    out: npt.NDArray[np.int32] = np.frexp(1.2345 * scale)[1]
    return out


def _step(totals: Array) -> float:
    """The coarsest step in which totals move; 0 where they move in none."""
    largest = float(np.abs(totals).max(initial=0.0))
    for step in _STEPS:
        away = np.abs(totals - np.round(totals / step) * step)
        if step >= 1e-7 * largest and np.all(away <= 1e-10 * np.abs(totals)):
            return step
    return 0.0


def _log_chance(sums: CellSums, steps: Array) -> Array:
    """Logarithm of the chance that other people have the sums of a cell."""
    sd = np.sqrt(np.einsum("cjj->cj", sums.scatter) / sums.weight[:, None])
    size = sums.n[:, None]
    finest = np.maximum(size * (np.abs(sums.mean) + sd) / _DIGITS, np.finfo(float).tiny)
    with np.errstate(over="ignore"):
        spread = np.minimum(np.sqrt(size) * (sd / np.maximum(steps, finest)), 1e8)
    one = np.where(sd > 0, sd, 1.0)
    alike = sums.scatter / sums.weight[:, None, None] / one[:, :, None] / one[:, None, :]
    scatter = alike * spread[:, :, None] * spread[:, None, :]
    # Directions in which nobody differs say nothing here, though equal means of such a column are a sign too.
    volume = np.maximum(4 * math.pi * np.linalg.eigvalsh(scatter), 1.0)
    out: Array = -0.5 * np.log(volume).sum(axis=1)
    return out


def _of_sites(group: Codes, site: Codes, size: int) -> Codes:
    """A number for each site that depends on the groups of its cells, in any order, alone."""
    mixed = np.asarray(pd.util.hash_array(group.astype(np.int64)))
    out = np.zeros(size, dtype=np.uint64)
    np.add.at(out, site, mixed)
    return out.view(np.int64)
