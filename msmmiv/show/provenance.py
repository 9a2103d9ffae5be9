"""What made the numbers: versions of the software, and a seal of the data that was used."""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from msmmiv.moments.cells import Moments

__all__ = ["moments_digest", "table_text", "versions"]


def table_text(frame: pd.DataFrame) -> str:
    """A frame as CSV, the same on every system."""
    return str(frame.to_csv(index=False, lineterminator="\n"))


def moments_digest(moments: Moments) -> str:
    """SHA-256 of the moments table, which is all of moments.csv after its first line.

    Examples
    --------
    >>> import msmmiv as mm
    >>> len(moments_digest(mm.data.star()))
    64
    """
    return hashlib.sha256(table_text(moments.to_frame()).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it computes with."""
    found = {"python": platform.python_version()}
    for name in ("msmmiv", "numpy", "scipy", "pandas", "duckdb", "matplotlib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # A checkout that is not installed; the package itself is loaded, and knows.
            found[name] = str(sys.modules[name].__version__) if name in sys.modules else "unknown"
    return found
