"""What is wrong in a study file: where, what, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from msmmiv.errors import MsmmivError, listing

__all__ = ["StudyFileError"]

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a table",
}


class StudyFileError(MsmmivError):
    """A study file that cannot be read, or that says what cannot be; the message names the table and the key."""

    @classmethod
    def at(cls, where: str, problem: str) -> StudyFileError:
        """A problem at a key such as ``[design] site``."""
        return cls(f"{where}: {problem}")

    @classmethod
    def wrong(cls, where: str, wanted: str, value: Any) -> StudyFileError:
        """A value of another type."""
        kind = _KINDS.get(type(value), "a date or time")
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
        return cls.at(where, f"must be {wanted}, not {kind} ({shown}).")

    @classmethod
    def unknown(cls, where: str, name: str, known: Sequence[str], *, elsewhere: str = "") -> StudyFileError:
        """A table or key that means nothing here, with what is near it."""
        near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else elsewhere
        what = f"{where} {name}".strip()
        return cls(f"{what}: unknown; {hint or f'known here: {listing(known, most=20)}.'}")

    @classmethod
    def missing(cls, where: str, keys: Iterable[str], more: str = "") -> StudyFileError:
        """Keys that have to be there."""
        return cls(f"{where} {', '.join(keys)}: missing.{' ' if more else ''}{more}")
