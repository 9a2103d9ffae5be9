"""Wild bootstrap of scores: enumeration by brute force, sets by inversion on a grid, refits in every draw."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from msmmiv.errors import ChoiceError, DataError, TooFewSitesError
from msmmiv.inference import wild_draws
from msmmiv.inference.bootstrap import WildTest, wild_set, wild_test
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.tests import NotApplicable
from msmmiv.inference.wild_draws import plan_draws
from tests.inference.blocks import random_equations


def run(*args, **kwargs) -> WildTest:
    out = wild_test(*args, **kwargs)
    assert isinstance(out, WildTest)
    return out


def refitted(eq: SiteEquations, null: dict[str, float], w: np.ndarray) -> tuple[float, float]:
    """One draw the long way: outcomes under the null times w, the others estimated again, statistic."""
    b0, psi = eq.restricted(null)
    blocks = eq.blocks.copy()
    blocks[:, :, 0] = eq.blocks[:, :, 1:] @ b0 + w[:, None] * psi
    new = SiteEquations(blocks, eq.terms)
    _, scores = new.restricted(null)
    fixed = [eq.terms.index(t) for t in null]
    free = [j for j in range(len(eq.terms)) if j not in fixed]
    total = eq.blocks.sum(axis=0)[:, 1:]
    side = np.linalg.solve(total[np.ix_(free, free)].T, total[np.ix_(fixed, free)].T).T
    effective = scores[:, fixed] - scores[:, free] @ side.T
    top = effective.sum(axis=0)
    return float(top @ np.linalg.pinv(effective.T @ effective) @ top), float(top[0])


@pytest.mark.parametrize(("k", "null"), [
    (1, {"a": 0.0}), (2, {"a": 0.2}), (3, {"c": 0.1}), (2, {"a": 0.0, "b": 0.0}), (3, {"c": 0.3, "a": 0.1}),
])  # fmt: skip
def test_enumeration_is_every_sign_vector_with_a_refit(k: int, null: dict[str, float]) -> None:
    eq = random_equations(k, 7, k)
    draws = [refitted(eq, null, np.array(w)) for w in itertools.product((1.0, -1.0), repeat=7)]
    stats = np.array([s for s, _ in draws])
    out = run(eq, null)
    assert out.enumerated
    assert (out.draws, out.seed) == (128, None)
    assert out.stat == pytest.approx(stats[0], rel=1e-9)
    assert out.pvalue == pytest.approx(np.mean(stats >= stats[0] * (1 - 1e-9)))
    assert out.smallest_pvalue == 2 / 128
    if len(null) == 1:
        root = np.array([np.sign(t) * np.sqrt(s) for s, t in draws])
        tail = min(np.mean(root >= root[0] - 1e-9), np.mean(root <= root[0] + 1e-9))
        assert out.pvalue_equal_tailed == pytest.approx(min(1.0, 2 * tail))
    else:
        assert np.isnan(out.pvalue_equal_tailed)


@pytest.mark.parametrize("weights", ["rademacher", "webb", "mammen"])
@pytest.mark.parametrize("k", [1, 2])
def test_random_draws_are_refits_too(weights: str, k: int) -> None:
    eq = random_equations(20 + k, 14, k)
    out = run(eq, {"a": 0.0}, weights=weights, draws=199, seed=3)
    (w,) = plan_draws(14, k, weights, 199, 3).chunks()
    stats = np.array([refitted(eq, {"a": 0.0}, row)[0] for row in w])
    assert out.pvalue == pytest.approx((1 + np.sum(stats >= out.stat * (1 - 1e-9))) / 200)
    assert (out.seed, out.weights, out.draws) == (3, weights, 199)


@pytest.mark.parametrize("weights", ["rademacher", "webb", "mammen"])
def test_weights_have_mean_zero_and_variance_one(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (w,) = plan_draws(20, 1, weights, 40000, 1).chunks()
    assert abs(w.mean()) < 5e-3
    assert w.var() == pytest.approx(1.0, abs=0.01)
    assert len(np.unique(w)) == {"rademacher": 2, "webb": 6, "mammen": 2}[weights]
    monkeypatch.setattr(wild_draws, "_CHUNK", 20 * 37)
    np.testing.assert_array_equal(np.concatenate(list(plan_draws(20, 1, weights, 40000, 1).chunks())), w)


@pytest.mark.parametrize(
    ("seed", "groups", "k", "weights", "level"),
    [
        (1, 7, 1, None, 0.95), (2, 8, 2, None, 0.95), (3, 12, 1, None, 0.9), (4, 15, 1, "webb", 0.95),
        (5, 15, 2, "webb", 0.95), (6, 20, 3, "rademacher", 0.9), (7, 9, 1, "mammen", 0.8), (8, 6, 2, None, 0.9),
    ],
)  # fmt: skip
def test_set_is_the_test_inverted(seed: int, groups: int, k: int, weights: str | None, level: float) -> None:
    eq = random_equations(seed, groups, k)
    options = {"weights": weights, "draws": 299, "seed": seed}
    found = wild_set(eq, "a", level=level, **options)
    assert isinstance(found, ConfidenceSet)
    centre = float(eq.coefficients[0])
    assert centre in found
    for x in centre + np.sinh(np.linspace(-5, 5, 200)):
        inside = run(eq, {"a": x}, **options).pvalue > (1 - level) * (1 + 1e-12)
        assert inside == (x in found), x
    for end in np.ravel(found.intervals):
        if np.isfinite(end):
            near = [run(eq, {"a": end + s}, **options).pvalue for s in (-1e-6, 1e-6)]
            assert min(near) <= (1 - level) * (1 + 1e-12) < max(near)


def test_weak_instruments_leave_the_set_unbounded() -> None:
    blocks = random_equations(8, 10, 1).blocks.copy()
    blocks[::2, :, 1] = -blocks[1::2, :, 1]
    found = wild_set(SiteEquations(blocks, ("a",)), "a")
    assert isinstance(found, ConfidenceSet)
    assert not found.is_bounded


def test_a_site_without_compliance_ties_at_infinity() -> None:
    """Its sign does not matter far out, which makes leading coefficients exactly zero."""
    eq = random_equations(14, 7, 1)
    blocks = eq.blocks.copy()
    blocks[0, 0] = [0.4, 0.0]
    eq = SiteEquations(blocks, eq.terms)
    found = wild_set(eq, "a", level=0.95)
    assert isinstance(found, ConfidenceSet)
    for x in np.concatenate([-np.logspace(-1, 7, 40), np.logspace(-1, 7, 40)]):
        assert (run(eq, {"a": x}).pvalue > 0.05) == (x in found)


def test_too_few_blocks_for_the_level_give_the_whole_line() -> None:
    found = wild_set(random_equations(1, 5, 1), "a")
    assert isinstance(found, ConfidenceSet)
    assert found.is_whole_line
    assert "no p-value can be below 0.0625" in found.method
    assert not wild_set(random_equations(1, 6, 1), "a").is_whole_line


def test_joint_tests_do_not_depend_on_order_or_scale() -> None:
    eq = random_equations(3, 9, 2)
    twice = SiteEquations(eq.blocks * np.array([2.0, 1.0])[:, None], eq.terms)
    assert run(eq, {"a": 0.3}).pvalue == run(twice, {"a": 0.3}).pvalue
    both = run(eq, {"a": 0.3, "b": 0.1})
    assert both.pvalue == run(eq, {"b": 0.1, "a": 0.3}).pvalue
    assert both.null == (("a", 0.3), ("b", 0.1))


def test_units_do_not_matter() -> None:
    eq = random_equations(9, 20, 2)
    other = SiteEquations(eq.blocks * np.array([1e5, 1e-7])[:, None] * np.array([1e3, 1e5, 1e-7]), eq.terms)
    options = {"draws": 999, "seed": 1}
    assert run(eq, {"a": 0.1}, **options).pvalue == run(other, {"a": 0.1e-2}, **options).pvalue
    one, two = wild_set(eq, "a", **options), wild_set(other, "a", **options)
    np.testing.assert_allclose(np.array(two.intervals) * 100.0, one.intervals, rtol=1e-6)
    joint = [run(e, {"a": 0.1 * s, "b": 0.2 * t}, **options).pvalue for e, s, t in (
        (eq, 1.0, 1.0), (other, 1e3 / 1e5, 1e3 / 1e-7))]  # fmt: skip
    assert joint[0] == joint[1]


def test_seed_is_kept_and_repeats() -> None:
    eq = random_equations(2, 30, 1)
    first = run(eq, {"a": 0.4}, draws=499)
    assert first.seed is not None
    assert first == run(eq, {"a": 0.4}, draws=499, seed=first.seed, weights="webb")
    assert str(first.seed) in str(first)
    assert str(first.seed) in wild_set(eq, "a", draws=499, seed=first.seed).method


def test_many_draws_and_sites_are_quick() -> None:
    eq = random_equations(1, 100, 2)
    start = time.perf_counter()
    run(eq, {"a": 0.5}, seed=1)
    wild_set(eq, "a", seed=1)
    assert (
        time.perf_counter() - start < 10
    )  # a fraction of a second; the bound only catches a loop over draws


def test_refusals_and_reasons() -> None:
    eq = random_equations(1, 20, 2)
    with pytest.raises(TooFewSitesError, match="needs fewer than 2 coefficients"):
        wild_test(random_equations(1, 2, 2), {"a": 0.0})
    with pytest.raises(ChoiceError, match="webb"):
        wild_test(eq, {"a": 0.0}, weights="weeb")
    with pytest.raises(ChoiceError, match="draws"):
        wild_test(eq, {"a": 0.0}, draws=0)
    with pytest.raises(DataError, match="finite"):
        wild_test(eq, {"a": float("nan")})
    with pytest.raises(DataError, match="between 0 and 1"):
        wild_set(eq, "a", level=5)
    blocks = eq.blocks.copy()
    blocks[:, 1, 2] -= 2.0 * blocks[:, 1, 2].mean()
    bad = SiteEquations(blocks, eq.terms)
    assert isinstance(wild_test(bad, {"a": 0.0}), NotApplicable)
    assert isinstance(wild_set(bad, "a"), NotApplicable)
    flat = SiteEquations(np.zeros((7, 1, 2)), ("a",))
    assert isinstance(wild_test(flat, {"a": 0.0}), NotApplicable)
    assert isinstance(wild_set(flat, "a"), NotApplicable)
