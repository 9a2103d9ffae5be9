"""Bars: how far the engine says it is, never back, and silence where nobody asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Self

import pytest

from msmmiv.progress import Passes, watched


@dataclass
class Bar:
    """Notes what tqdm would have drawn."""

    n: float = 0.0
    options: dict[str, object] = field(default_factory=dict)
    seen: list[float] = field(default_factory=list)
    closed: bool = False

    def refresh(self) -> None:
        self.seen.append(self.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Bar:
    made = Bar()

    def tqdm(**options: object) -> Bar:
        made.options = options
        return made

    monkeypatch.setattr("tqdm.auto.tqdm", tqdm)
    return made


def test_the_bar_follows_the_query_and_never_goes_back(bar: Bar) -> None:
    says = iter([-1.0, 12.0, 60.0, 40.0, 250.0])  # no answer yet, on its way, a second query begins, rounding
    over = threading.Event()

    def percent() -> float:
        now = next(says, None)
        if now is None:
            over.set()
        return 100.0 if now is None else now

    with Passes(show=True, percent=percent, every=0.001).step("sums"):
        assert over.wait(5)
    assert bar.seen[:5] == [0.0, 12.0, 60.0, 60.0, 100.0]
    assert bar.options["desc"] == "sums"
    assert "{percentage" in str(bar.options["bar_format"])
    assert bar.closed


def test_without_an_answer_there_is_a_clock(bar: Bar) -> None:
    with Passes(show=True).step("sums"):
        pass
    assert "{percentage" not in str(bar.options["bar_format"])
    assert "{elapsed}" in str(bar.options["bar_format"])


def test_the_watcher_ends_with_the_pass_also_when_it_fails(bar: Bar) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="broken"), Passes(show=True, every=0.001).step("sums"):
        raise ValueError("broken")
    assert bar.closed
    assert threading.active_count() == before


def test_nothing_is_drawn_unless_asked_for(bar: Bar, capsys: pytest.CaptureFixture[str]) -> None:
    with Passes().step("sums"):
        pass
    assert not bar.options
    assert list(watched(range(3), what="counting", show=True)) == [0, 1, 2]  # no terminal here
    assert capsys.readouterr() == ("", "")
