"""Looking at columns: what kind each is, and how labels lie inside one another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.linalg import Array

__all__ = ["Column", "arms_inside", "look", "moved_by", "nested", "tokens"]

MOST_LABELS = 12


@dataclass(frozen=True, eq=False)
class Column:
    """One column as it looks.

    Attributes
    ----------
    name : str
    kind : {"number", "whole", "text", "other", "empty"}
        Numbers with fractions, whole numbers, text or yes/no; dates and the rest are "other".
    distinct, missing : int
    labels : tuple
        The values, where there are at most twelve.
    codes : ndarray of int, shape (rows,)
        A number per value, -1 where it is missing; empty unless the column could be labels.
    values : ndarray, shape (rows,)
        As floats where the column is numeric, otherwise empty.
    """

    name: str
    kind: str
    distinct: int
    missing: int
    labels: tuple[Label, ...]
    codes: np.ndarray
    values: Array

    @property
    def numeric(self) -> bool:
        """Whether it can be an outcome or a mediator."""
        return self.values.size > 0 and self.distinct > 1

    @property
    def labelled(self) -> bool:
        """Whether its values can be labels."""
        return self.codes.size > 0


def look(frame: pd.DataFrame) -> list[Column]:
    """Every column of a frame."""
    return [_column(str(name), frame.iloc[:, j]) for j, name in enumerate(frame.columns)]


def tokens(name: str) -> frozenset[str]:
    """The words in a column's name, without accents and capitals.

    >>> sorted(tokens("École_ID")), sorted(tokens("classSize"))
    (['ecole', 'id'], ['class', 'size'])
    """
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    plain = "".join(c for c in unicodedata.normalize("NFKD", split) if not unicodedata.combining(c))
    return frozenset(re.findall(r"[^\W\d_]+|\d+", plain.casefold()))


def arms_inside(groups: Column, arms: Column) -> tuple[int, int]:
    """How many groups have people of two arms or more, and how many groups there are.

    >>> frame = pd.DataFrame({"s": [1, 1, 2, 2], "t": [0, 1, 1, 1]})
    >>> arms_inside(*look(frame))
    (1, 2)
    """
    both = (groups.codes >= 0) & (arms.codes >= 0)
    pairs = np.unique(groups.codes[both].astype(np.int64) * (arms.distinct + 1) + arms.codes[both])
    sizes = np.bincount(pairs // (arms.distinct + 1))
    return int((sizes > 1).sum()), int((sizes > 0).sum())


def nested(inner: Column, outer: Column) -> bool:
    """Whether every label of one column lies in one group of the other.

    >>> nested(*look(pd.DataFrame({"class": [1, 1, 2, 3], "school": ["a", "a", "a", "b"]})))
    True
    """
    both = (inner.codes >= 0) & (outer.codes >= 0)
    pairs = np.unique(inner.codes[both].astype(np.int64) * (outer.distinct + 1) + outer.codes[both])
    return pairs.size == np.unique(inner.codes[both]).size


def moved_by(column: Column, sites: Column | None, arms: Column) -> float:
    r"""How clearly a column differs between arms inside sites: the largest \|t\| of an arm against the others.

    Infinite where the arm settles the value; 0 where there is nothing to compare.
    """
    place = np.zeros(column.values.size, dtype=np.int64) if sites is None else sites.codes
    keep = np.isfinite(column.values) & (arms.codes >= 0) & (place >= 0)
    if keep.sum() < 4:
        return 0.0
    y = _inside(column.values[keep], place[keep])
    return max(
        _t(y, _inside((arms.codes[keep] == a).astype(float), place[keep])) for a in range(arms.distinct)
    )


def _inside(values: Array, place: np.ndarray) -> Array:
    counts = np.maximum(np.bincount(place), 1)
    out: Array = values - (np.bincount(place, weights=values) / counts)[place]
    return out


def _t(y: Array, d: Array) -> float:
    dd, yy = float(d @ d), float(y @ y)
    if dd <= 0 or yy <= 0:
        return 0.0
    slope = float(d @ y) / dd
    rest = max(yy - slope**2 * dd, 0.0)
    return float("inf") if rest <= 1e-9 * yy else abs(slope) / float(np.sqrt(rest / y.size / dd))


def _column(name: str, values: pd.Series) -> Column:
    missing = int(values.isna().sum())
    none: Array = np.zeros(0)
    if missing == len(values):
        return Column(name, "empty", 0, missing, (), none, none)
    kind = _kind(values)
    codes, labels = (none, ()) if kind in ("number", "other") else _labels(values)
    numeric = kind in ("number", "whole") or _yes_no(values)
    numbers: Array = values.to_numpy(dtype=np.float64) if numeric else none
    distinct = len(labels) if codes.size else int(values.nunique())
    few = tuple(_plain(v) for v in labels) if distinct <= MOST_LABELS else ()
    return Column(name, kind, distinct, missing, few, codes, numbers)


def _labels(values: pd.Series) -> tuple[np.ndarray, Sequence[object]]:
    codes, labels = pd.factorize(values, sort=not pd.api.types.is_object_dtype(values.dtype))
    return codes, list(labels)


def _yes_no(values: pd.Series) -> bool:
    return bool(pd.api.types.is_bool_dtype(values.dtype))


def _kind(values: pd.Series) -> str:
    kind = values.dtype
    if pd.api.types.is_bool_dtype(kind):
        return "text"
    if pd.api.types.is_numeric_dtype(kind):
        present = values.dropna().to_numpy(dtype=float)
        whole = np.isfinite(present).all() and bool((present == np.round(present)).all())
        return "whole" if whole else "number"
    first = next((v for v in values if not pd.isna(v)), None)
    return "text" if isinstance(first, str | bool) else "other"


def _plain(value: object) -> Label:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | bool) else str(value)
