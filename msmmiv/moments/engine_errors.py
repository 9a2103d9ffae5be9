"""What an engine says went wrong, as one line of ours; and its advertisements, kept from users of this package."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from narwhals.exceptions import ComputeError

from msmmiv.errors import DataError, MissingExtraError, MsmmivError

__all__ = ["hushed", "reading"]

#: Packages that an engine may miss, and the extra that brings them.
_EXTRAS = {"polars": "polars", "pyarrow": "polars", "dask": "dask", "ibis": "ibis", "pyspark": "spark"}
#: Whose complaints are about the data; every other exception is a mistake of ours.
_ENGINES_SAY = ("duckdb", "polars", "pyarrow", "ibis", "dask", "pyspark", "py4j")


@contextmanager
def hushed() -> Iterator[None]:
    """Engines advertise packages and announce changes that users of this one can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(narwhals|dask|pyspark|ibis)(\.|$)")
        # Said of whatever line calls narwhals, or DuckDB.
        warnings.filterwarnings("ignore", message="Dask support is moving", category=FutureWarning)
        warnings.filterwarnings(
            "ignore", message="The inplace keyword in DataFrame", category=DeprecationWarning
        )
        yield


@contextmanager
def reading(name: str, *, engine: bool = False) -> Iterator[None]:
    """Say what an engine says of the data in one line that names them; our own mistakes pass as they are.

    With ``engine`` nothing of ours runs in the block, and whatever comes out of it is the engine's: a file that is
    gone, a user's own function that fails.
    """
    try:
        with hushed():
            yield
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        install = f"'msmmiv[{_EXTRAS[package]}]'" if package in _EXTRAS else package
        raise MissingExtraError(
            f"{name} needs {package}, which is not installed: pip install {install}."
        ) from error
    except Exception as error:
        said_by = type(error).__module__.partition(".")[0].lstrip("_")
        known = said_by in _ENGINES_SAY or isinstance(error, ComputeError)
        if isinstance(error, MemoryError | MsmmivError) or not (known or engine):
            raise
        raise DataError(f"Could not read {name}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What happened, without traces of Java and without rows: a person's row does not belong in a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith("Out of Memory"):  # of DuckDB; the rest is advice about its own settings
        return f"{lines[0]}. Allow more with memory_limit=..., or declare fewer cells: one line is held for each."
    failed = [line for line in lines if re.match(r"(Caused by: )?[\w.]*(Error|Exception): ", line)]
    if failed and type(error).__module__.startswith(
        ("py4j", "pyspark")
    ):  # traces end with the task's own error
        return failed[-1].removeprefix("Caused by: ")
    return " - ".join(
        [lines[0], *(v for v in lines[1:] if v.startswith(("Invalid unicode", "Expected Number")))]
    )
