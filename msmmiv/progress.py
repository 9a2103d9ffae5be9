"""A bar on what takes more than about two seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, TypeVar

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


@dataclass(frozen=True)
class Passes:
    """A bar for every pass over the rows; silent unless asked for.

    Attributes
    ----------
    show : bool
    percent : callable, optional
        How far the query is that the engine runs just now, in percent; negative while it cannot say. Asked from a
        thread of its own. Without it the bar has a name and a clock.
    every : float
        Seconds between two looks.
    """

    show: bool = False
    percent: Callable[[], float] | None = None
    every: float = 0.2

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A bar with this name while the block runs."""
        if not self.show:
            yield
            return
        from tqdm.auto import tqdm

        clock = (
            "{desc}: {elapsed}" if self.percent is None else "{desc}: {percentage:3.0f}% |{bar}| {elapsed}"
        )
        with tqdm(total=100.0, desc=what, leave=False, bar_format=clock) as bar:
            done = Event()
            watcher = Thread(target=self._follow, args=(bar, done), daemon=True)
            watcher.start()
            try:
                yield
            finally:
                done.set()
                watcher.join()

    def _follow(self, bar: Any, done: Event) -> None:
        while not done.wait(self.every):
            now = -1.0 if self.percent is None else self.percent()
            bar.n = max(bar.n, min(now, 100.0))  # a step may be two queries; a bar never goes back
            bar.refresh()
