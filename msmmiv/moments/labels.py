"""Labels of sites, arms, blocks and clusters: plain values, a natural order, the control arm."""

from __future__ import annotations

import datetime as dt
import decimal
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.design import Design, Label
from msmmiv.errors import ColumnError, LabelWarning, TreatmentError, listing

__all__ = [
    "check_labels",
    "check_spelling",
    "find_arms",
    "label_columns",
    "natural_order",
    "plain",
    "plain_labels",
]

#: Whole numbers from here on are not all different as floats.
_EXACT = 2.0**53
#: More arms than this and the column is more likely a dose, a date or an id.
MOST_ARMS = 50


def label_columns(design: Design) -> list[str]:
    """Columns whose values are names: of sites, blocks, clusters and arms.

    Examples
    --------
    >>> label_columns(Design(outcome="y", treatment="t", mediators="m", site="s", cluster="c"))
    ['s', 'c', 't']
    """
    arms = design.treatment if design.treatment_kind == "arms" else None
    return [c for c in (design.site, design.block, design.cluster, arms) if c]


def plain(value: Any) -> Any:
    """A Python value: numpy scalars unwrapped, whole floats and decimals as integers, dates as text.

    Times are those of UTC where they know their zone, and midnight is a day: engines differ in how they hand them over.

    Examples
    --------
    >>> plain(np.float64(3.0)), plain(np.int64(2)), plain("a"), plain(pd.Timestamp("2024-02-27"))
    (3, 2, 'a', '2024-02-27')
    """
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dt.datetime):
        value = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
        return str(value.date() if value == dt.datetime.combine(value.date(), dt.time()) else value)
    if isinstance(value, decimal.Decimal) and value.is_finite():
        whole, near = value == value.to_integral_value(), float(value)
        # What a float cannot hold stays text, or several labels would become one.
        value = int(value) if whole else near if decimal.Decimal(repr(near)) == value else str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2.0**63:
        return int(value)
    if isinstance(value, int) and abs(value) >= 2**63:  # more than files and engines hold as a number
        return str(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def plain_labels(column: pd.Series[Any]) -> Any:
    """The column with plain labels, all numbers or all text.

    Raises
    ------
    ColumnError
        Values that cannot be labels, such as lists.
    """
    try:
        codes, uniques = pd.factorize(column)
    except (TypeError, NotImplementedError) as error:  # of pandas, and of columns that Arrow holds
        raise ColumnError(
            f"Column {column.name!r} holds values that cannot be labels (such as {column.iloc[0]!r}). "
            "Give one number or text per row."
        ) from error
    if any(isinstance(u, bytes) for u in uniques):
        raise ColumnError(
            f"Column {column.name!r} holds bytes, which cannot be labels. Give one number or text per row."
        )
    labels = [plain(u) for u in uniques]
    if len({isinstance(v, str) for v in labels}) > 1:
        labels = [str(v) for v in labels]
    return pd.array(labels).take(codes, allow_fill=True)


def natural_order(labels: Sequence[Any]) -> list[int]:
    """Positions that sort the labels: numbers by value, then text.

    Examples
    --------
    >>> [["10", 2, 1][i] for i in natural_order(["10", 2, 1])]
    [1, 2, '10']
    """
    if all(type(v) is str for v in labels):
        return sorted(range(len(labels)), key=labels.__getitem__)
    return sorted(
        range(len(labels)),
        key=lambda i: (isinstance(labels[i], str), labels[i] if not isinstance(labels[i], str) else 0,
                       str(labels[i])),
    )  # fmt: skip


def find_arms(design: Design, arms: Sequence[Label]) -> list[int]:
    """Positions of the arms with the control first.

    Raises
    ------
    TreatmentError
        When the control is unknown, not present, or the column does not look like arms.
    """
    name = design.treatment
    if len(arms) > MOST_ARMS:
        raise TreatmentError(
            f"{name!r} holds {len(arms)} different values (such as {listing(arms, most=4)}): too many for arms. "
            "If it is a dose, say treatment_kind='continuous'."
        )
    found = listing(map(repr, arms))
    control: Any = design.control
    if control is None:
        if 0 not in arms and len(arms) > 1:
            raise TreatmentError(f"The arms in {name!r} are {found}; say which is the reference: control=...")
        control = 0
    elif control not in arms and len(arms) > 1:
        yes_no = (
            " Columns of yes and no in files are read as True and False: say control=False or control=True."
            if all(isinstance(a, bool) for a in arms)
            else ""
        )
        raise TreatmentError(f"control={control!r} is not an arm of {name!r}; the arms are {found}.{yes_no}")
    return sorted(range(len(arms)), key=lambda i: (arms[i] != control, i))


def check_labels(design: Design, keys: pd.DataFrame) -> None:
    """Refuse labels of which several may have become one, and warn of those that look like two spellings of one.

    Raises
    ------
    ColumnError
    """
    columns = {"site": design.site, "block": design.block, "arm": design.treatment, "cluster": design.cluster}
    for role in map(str, keys):
        _check_exact(keys[role], str(columns[role]), role)
        if role != "cluster":
            check_spelling(keys[role].unique(), str(columns[role]), role)


def _check_exact(labels: pd.Series[Any], column: str, role: str) -> None:
    """Refuse floats so large that several whole numbers are the same one."""
    if labels.dtype.kind == "f" and (labels.abs() >= _EXACT).any():
        raise ColumnError(
            f"Column {column!r} ({'treatment' if role == 'arm' else role}) comes as floats of 16 digits and more "
            f"(such as {labels.abs().max():.0f}), which several numbers share. Store it as text, or as integers."
        )


def check_spelling(labels: Iterable[Any], column: str, role: str) -> None:
    """Warn where labels differ only by case, spaces or the coding of accents."""
    if getattr(getattr(labels, "dtype", None), "kind", "O") in "iufb":
        return
    seen: dict[str, list[str]] = {}
    for label in labels:
        if isinstance(label, str):
            spelt = unicodedata.normalize("NFC", " ".join(label.split())).casefold()
            seen.setdefault(unicodedata.normalize("NFC", spelt), []).append(label)
    twins = [" = ".join(repr(x) for x in sorted(v)) for v in seen.values() if len(v) > 1]
    if twins:
        warnings.warn(
            f"Labels in {column!r} ({role}) differ only by case or spaces, or by how an accent is coded, and were "
            f"kept apart: {listing(twins, most=5)}. Clean them if they are the same {role}.",
            LabelWarning,
            stacklevel=4,
        )
