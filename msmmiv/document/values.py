"""Checks of single values in a study file: each takes where it stands and what was written, and gives the value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

from msmmiv.document.problems import StudyFileError
from msmmiv.errors import listing

__all__ = [
    "Check",
    "choice",
    "flag",
    "label",
    "many",
    "mark",
    "names_or_table",
    "number",
    "share",
    "text",
    "whole",
]

Check: TypeAlias = Callable[[str, Any], Any]


def text(where: str, value: Any) -> str:
    """Text that is not empty."""
    if not isinstance(value, str):
        raise StudyFileError.wrong(where, "text in quotes", value)
    if not value.strip():
        raise StudyFileError.at(where, "is empty; write something, or take the line out.")
    return value


def mark(where: str, value: Any) -> str:
    """One character, which may be a tab."""
    if not isinstance(value, str) or len(value) != 1:
        raise StudyFileError.wrong(where, "one character in quotes", value)
    return value


def many(where: str, value: Any) -> tuple[str, ...]:
    """One text or a list of them."""
    if isinstance(value, str):
        return (text(where, value),)
    if not isinstance(value, list):
        raise StudyFileError.wrong(where, "text in quotes, or a list of such", value)
    return tuple(text(f"{where}, item {i}", v) for i, v in enumerate(value, 1))


def names_or_table(where: str, value: Any) -> tuple[str, ...] | Mapping[str, tuple[str, ...]]:
    """Names, or what each of them acts on."""
    if isinstance(value, dict):
        return {text(where, k): many(f"{where}, {k!r}", v) for k, v in value.items()}
    return many(where, value)


def flag(where: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise StudyFileError.wrong(where, "true or false (without quotes)", value)
    return value


def whole(least: int, why: str = "") -> Check:
    """A whole number that is not less than so much."""

    def check(where: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise StudyFileError.wrong(where, "a whole number", value)
        if value < least:
            raise StudyFileError.at(where, f"must be {least} or more, not {value}{why}.")
        return value

    return check


def number(where: str, value: Any) -> float:
    """A number that is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyFileError.wrong(where, "a number", value)
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        finite = False
    if not finite:
        raise StudyFileError.at(where, "must be a finite number.")
    return float(value)


def share(where: str, value: Any) -> float:
    """A number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StudyFileError.wrong(where, "a number between 0 and 1", value)
    if not 0 < value < 1:
        raise StudyFileError.at(where, f"must lie between 0 and 1, not {value}.")
    return float(value)


def label(where: str, value: Any) -> str | int | float | bool:
    """The label of an arm."""
    if not isinstance(value, str | int | float | bool):
        raise StudyFileError.wrong(where, "the label of an arm (text in quotes, or a number)", value)
    return value


def choice(choices: Any) -> Check:
    """One of a closed list of words."""
    allowed = get_args(choices)

    def check(where: str, value: Any) -> str:
        if not isinstance(value, str):
            raise StudyFileError.wrong(where, f"one of {listing(allowed, quote=True)}", value)
        if value not in allowed:
            folded = {a.casefold(): a for a in allowed}
            near = difflib.get_close_matches(value.casefold(), folded, n=1)
            hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
            raise StudyFileError.at(where, f"{value!r} is not one of {listing(allowed, quote=True)}.{hint}")
        return value

    return check
