"""Moments and studies as a notebook shows them: how much there is, which column is which, what was left out."""

from __future__ import annotations

from typing import Protocol

from msmmiv.design import Design, Label
from msmmiv.errors import count, listing
from msmmiv.linalg import Array
from msmmiv.moments.flow import SampleFlow
from msmmiv.notebook import card, label, pairs, table

__all__ = ["moments_card", "study_card"]


class _Cells(Protocol):
    """What the card reads."""

    @property
    def design(self) -> Design: ...
    @property
    def flow(self) -> SampleFlow: ...
    @property
    def n(self) -> Array: ...
    @property
    def n_sites(self) -> int: ...
    @property
    def n_cells(self) -> int: ...
    @property
    def arms(self) -> tuple[Label, ...]: ...
    @property
    def clusters(self) -> tuple[Label, ...]: ...


class _Study(Protocol):
    source: str

    @property
    def moments(self) -> _Cells: ...


def moments_card(moments: _Cells) -> str:
    """The HTML of `Moments` in a notebook."""
    return _card(f"Moments of {count(int(moments.n.sum()), 'row')}", moments)


def study_card(study: _Study) -> str:
    """The HTML of `Study` in a notebook."""
    head = f"Study of {label(study.source)}: {count(int(study.moments.n.sum()), 'row')}"
    return _card(head, study.moments)


def _card(head: str, moments: _Cells) -> str:
    arms = f"arms {listing([label(a, 28) for a in moments.arms])}" if moments.arms else "a dose"
    clusters = [count(len(moments.clusters), "cluster")] if moments.clusters else []
    words = [count(moments.n_cells, "cell"), *clusters, arms]
    smallest = f"The smallest cell has {count(int(moments.n.min()), 'row')}." if moments.n_cells else ""
    flow = moments.flow.to_frame()
    steps = [[label(step, 240), f"{rows:,}"] for step, rows in zip(flow["step"], flow["rows"], strict=True)]
    return card(
        f"{head} in {count(moments.n_sites, 'site')}",
        f"{', '.join(words)}. {smallest}",
        pairs(moments.design.roles()),
        table(["sample", "rows"], steps, numbers=[1]),
    )
