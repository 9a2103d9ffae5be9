"""A bar on what takes more than about two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Self, TypeVar

__all__ = ["Passes", "watched"]

T = TypeVar("T")


def watched(steps: Iterable[T], *, what: str, show: bool) -> Iterable[T]:
    """The steps, with a bar while they run if ``show`` and somebody is there to see it.

    Silenced by the environment variable TQDM_DISABLE=1, and without a terminal or notebook.

    Parameters
    ----------
    steps : iterable
    what : str
        What is being done.
    show : bool
        Whether it will take more than about two seconds.

    Examples
    --------
    >>> list(watched(range(3), what="counting", show=False))
    [0, 1, 2]
    """
    if not show or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, desc=what, leave=False)


class Passes:
    """A bar that counts the passes over the rows; silent unless asked for."""

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=None, unit=" pass", leave=False)
        return self

    def __call__(self, step: str) -> None:
        """A pass begins."""
        if self._bar is not None:
            self._bar.set_description(step)
            self._bar.update()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
