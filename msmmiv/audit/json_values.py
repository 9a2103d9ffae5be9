"""Values that strict JSON has: no NaN, no infinity, no numpy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from msmmiv.errors import MsmmivError

__all__ = ["json_text"]


def json_text(values: Mapping[str, Any]) -> str:
    r"""Strict JSON of nested results; a number that does not exist becomes null.

    Raises
    ------
    MsmmivError
        For a value that has no place in JSON.

    Examples
    --------
    >>> json_text({"p": float("nan"), "n": np.int64(3)})
    '{\n "p": null,\n "n": 3\n}\n'
    """
    return json.dumps(_plain(values), allow_nan=False, indent=1) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise MsmmivError(f"{type(value).__name__} has no place in results.json.")
