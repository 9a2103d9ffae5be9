"""What a table of cells must be like to be sums over people, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import MomentsFileError, listing
from msmmiv.linalg import Array
from msmmiv.moments.sums import CellSums

__all__ = ["check_kinds", "check_labels", "check_sums", "wrong"]

#: Kinds of labels, and the kinds of columns that hold them.
_KINDS = {"int": "iu", "float": "f", "str": "OTU", "bool": "b"}
#: Sums of two programs agree to far more digits than this.
_LOOSE = 1e-9


def wrong(name: str, what: str) -> MomentsFileError:
    """A table that is not of the format, and the remedy."""
    return MomentsFileError(
        f"The table of {name!r} does not follow the format of moments files: {what}. Have it written again, by "
        "Moments.save or as docs/moments-file.md says."
    )


def check_kinds(labels: Any, keys: Sequence[str], name: str) -> None:
    """Refuse a header that does not say of every key column what kind its labels are.

    Raises
    ------
    MomentsFileError
    """
    kinds = list(_KINDS)
    said = labels if isinstance(labels, dict) else {}
    for key in keys:
        if said.get(key) not in kinds:
            raise MomentsFileError(
                f"The header of {name!r} is damaged: labels must say of {key!r} which of {listing(kinds)} its labels "
                f"are, not {said.get(key)!r}."
            )


def check_labels(table: pd.DataFrame, labels: Any, name: str) -> None:
    """Refuse labels of another kind than the header says.

    Raises
    ------
    MomentsFileError
    """
    check_kinds(labels, [str(k) for k in table], name)
    for key in table:
        column = table[key]
        text = labels[key] != "str" or all(isinstance(v, str) for v in column.unique())
        if column.dtype.kind not in _KINDS[labels[key]] or not text:
            raise wrong(
                name, f"its header says that labels in {key!r} are {labels[key]}, and they are {column.dtype}"
            )


def check_sums(design: Design, sums: CellSums, name: str) -> None:
    """Refuse numbers that no rows can have.

    Raises
    ------
    MomentsFileError
        Counts that are not whole, weights that are not what their kind says, scatters that are too large.
    """
    n = sums.n
    _refuse(name, n != np.round(n), n, "'n' is {} and must be a whole number")
    weight, squared = sums.weight, sums.squared_weight
    if design.weight_kind not in ("analytic", "probability"):
        _refuse(name, np.abs(weight - n) > _LOOSE * n, weight, "'weight' is {} and must equal 'n'")
        parts = [("", weight, sums.mean, sums.scatter)]
    else:
        size = weight**2 / squared
        bad = (size < 1 - _LOOSE) | (size > n * (1 + _LOOSE))
        _refuse(name, bad, squared, "'squared_weight' is {}, which is no sum of squares of 'n' weights")
        parts = [
            ("", weight, sums.mean, sums.scatter),
            ("squared_", squared, sums.squared_mean, sums.squared_scatter),
        ]
    for prefix, w, mean, scatter in parts:
        _check_scatter(design, name, prefix, n, w, mean, scatter)


def _check_scatter(
    design: Design, name: str, prefix: str, n: Array, weight: Array, mean: Array, scatter: Array
) -> None:
    names = design.variables
    square = np.einsum("cjj->cj", scatter)
    scale = (np.abs(mean) + np.sqrt(np.maximum(square, 0) / weight[:, None])).max(axis=0)
    root = np.sqrt(np.maximum(square, 0) + 1e-307)  # squares of numbers below 1e-154 are lost
    lone = n == 1
    for i, a in enumerate(names):
        for j, b in enumerate(names[i:], start=i):
            value, rounding = scatter[:, i, j], _LOOSE * weight * scale[i] * scale[j]
            which = f"'{prefix}scatter[{a},{b}]' is {{}}"
            own = _LOOSE * weight * np.abs(mean[:, i] * mean[:, j])
            _refuse(name, lone & (np.abs(value) > own), value, f"{which} and must be 0 in a cell of one row")
            most = (1 + 1e-6) * root[:, i] * root[:, j] + rounding
            _refuse(
                name, np.abs(value) > most, value, f"{which}, more than scatters of {a!r} and {b!r} allow"
            )


def _refuse(name: str, bad: Any, values: Array, what: str) -> None:
    if bad.any():
        cell = int(np.argmax(bad))
        raise wrong(name, f"{what.format(f'{values[cell]:g}')} (cell {cell + 1})")
