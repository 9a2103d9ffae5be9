"""Where the other mediator's score settles, and that a set of two mediators holds no points beside it."""

from __future__ import annotations

import numpy as np
import pytest

import msmmiv as mm
from msmmiv.estimate.between import eb_many, slope_test
from msmmiv.estimate.between.settling import settled
from tests.estimate.helpers import trial
from tests.inference.helpers import effects_of


@pytest.fixture(scope="module")
def blocks():
    return eb_many.Blocks(mm.decompose(effects_of(trial(3, sites=40, mediators=2), ["m0", "m1"])).rows)


def steps(blocks, value, theta):
    """The step of the first mediator's effect at many points, the second at one value."""
    effects = np.column_stack([theta, np.full(len(theta), value)])
    return eb_many._move(blocks, eb_many._state(blocks, effects), [0])[0][:, 0]


@pytest.mark.parametrize("value", [-3.0, -0.6, 0.2, 0.9, 4.0])
def test_the_nearest_root_on_the_side_of_the_drift(value, blocks):
    start = eb_many._start(blocks, 1, np.array([value]))[0, 0]
    found = eb_many.many_path(blocks, 1, np.array([value])).effects[0, 0]
    first = steps(blocks, value, np.array([start]))[0]
    between = np.linspace(start, found, 202)[1:-1]
    assert (np.sign(steps(blocks, value, between)) == np.sign(first)).all()
    beyond = found + np.array([-1.0, 1.0]) * 1e-5 * abs(found - start)
    left, right = steps(blocks, value, beyond)
    assert left > 0 > right, "steps lead away from the point"


def test_sets_have_no_pieces_of_other_roots():
    """A trial in which both effects are known well, and the plain halving of steps found roots of the wrong kind."""
    effects = effects_of(trial(3, sites=120, per_site=60, mediators=2), ["m0", "m1"])
    found = mm.decompose(effects)
    for name, truth in {"m0": 0.5, "m1": 0.2}.items():
        assert found.slope_sets[name].shape == "interval"
        assert truth in found.slope_sets[name]


def test_a_set_takes_few_evaluations(monkeypatch):
    """601 values, some ten evaluations each for the other effect, and no search in the rounding far out."""
    counted, inner = [], eb_many._move

    def move(blocks, state, which):
        counted.append(len(state.tau2))
        return inner(blocks, state, which)

    monkeypatch.setattr(eb_many, "_move", move)
    effects = effects_of(trial(3, sites=120, per_site=60, mediators=2), ["m0", "m1"])
    assert mm.decompose(effects).slope_sets["m0"].is_bounded
    assert sum(counted) < 2 * 601 * 25


def test_drift_to_the_edge_and_at_rest():
    start = np.array([[-1.0], [0.0], [2.0]])
    out = settled(
        lambda which, x: (np.sign(x) + 0.0 * which[:, None], x[:, 0] ** 2), start, np.full((3, 1), 50.0)
    )
    assert out[[0, 2], 0].tolist() == [-50.0, 50.0]
    assert abs(out[1, 0]) < 1e-9


def test_several_unknowns_settle_together():
    def move(which, x):
        away = np.array([[1.0, 2.0], [3.0, -1.0]])[which] - x
        return 0.5 * away, (away**2).sum(axis=1)

    out = settled(move, np.zeros((2, 2)), np.full((2, 2), 10.0))
    np.testing.assert_allclose(out, [[1.0, 2.0], [3.0, -1.0]], atol=1e-8)


def test_a_long_search_has_a_bar(monkeypatch):
    asked = []
    monkeypatch.setattr(slope_test, "watched", lambda steps, *, what, show: asked.append(show) or steps)  # noqa: ARG005
    effects = effects_of(trial(3, sites=8, mediators=2), ["m0", "m1"])
    test = mm.decompose(effects).slope_tests["m0"]
    test.statistic(np.zeros(3))
    monkeypatch.setattr(slope_test, "_LONG", {False: 16, True: 16})
    test.statistic(np.zeros(3))
    assert asked[-2:] == [False, True]
