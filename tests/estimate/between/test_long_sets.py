"""Sets that take long: no search in the rounding far out, and a bar."""

from __future__ import annotations

import numpy as np

import msmmiv as mm
from msmmiv.estimate.between import eb_many, slope_test
from tests.estimate.helpers import trial
from tests.inference.helpers import effects_of


def test_a_set_takes_few_evaluations(monkeypatch):
    """601 values and some dozens of steps for the other effect; wiggles of rounding far out are not searched."""
    counted, inner = [], eb_many._move

    def move(blocks, state, which):
        counted.append(len(state.tau2))
        return inner(blocks, state, which)

    monkeypatch.setattr(eb_many, "_move", move)
    effects = effects_of(trial(3, sites=120, per_site=60, mediators=2), ["m0", "m1"])
    assert mm.decompose(effects).slope_sets["m0"].is_bounded
    assert sum(counted) < 2 * 601 * 60


def test_a_long_search_has_a_bar(monkeypatch):
    asked = []
    monkeypatch.setattr(slope_test, "watched", lambda steps, *, what, show: asked.append(show) or steps)  # noqa: ARG005
    effects = effects_of(trial(3, sites=8, mediators=2), ["m0", "m1"])
    test = mm.decompose(effects).slope_tests["m0"]
    test.statistic(np.zeros(3))
    monkeypatch.setattr(slope_test, "_LONG", {False: 16, True: 16})
    test.statistic(np.zeros(3))
    assert asked[-2:] == [False, True]
