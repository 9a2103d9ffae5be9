"""The empirical-Bayes score: against loops and dense matrices, identities, invariance, size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from msmmiv.errors import ChoiceError
from msmmiv.estimate.between import eb_estimator
from msmmiv.estimate.between.calibration import SharedRows
from msmmiv.estimate.between.eb_estimator import EbScore
from msmmiv.estimate.between.eb_many import Blocks, many_path, solve_scores
from msmmiv.estimate.between.eb_score import Samples, paule_mandel, score_path
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.inference.meta import meta_regression
from tests.estimate.between.makers import covariances, draw_rows, rows_from, shared_controls


def samples(rows: BetweenRows) -> Samples:
    return Samples(
        rows.y, rows.x[:, 0], rows.z, rows.itt_variance, rows.noise[:, 0, 0], rows.covariance[:, 0]
    )


def by_hand(rows: BetweenRows, v: float) -> tuple[float, float]:
    """Score and standard error by loops and scipy's root finder, from the formulas of the docstring."""
    y, x, z = rows.y, rows.x[:, 0], rows.z
    a, b, c = rows.noise[:, 0, 0], rows.itt_variance, rows.covariance[:, 0]
    k, q = z.shape
    r = y - v * x
    e = np.array([b[i] + v**2 * a[i] - 2 * v * c[i] for i in range(k)])
    kappa = c - v * a

    def regress(values: np.ndarray, w: np.ndarray) -> np.ndarray:
        return values - z @ np.linalg.solve(z.T @ np.diag(w) @ z, z.T @ np.diag(w) @ values)

    def root(values: np.ndarray, variances: np.ndarray) -> float:
        def excess(t: float) -> float:
            w = 1 / (t + variances)
            return float(w @ regress(values, w) ** 2) - (k - q)

        return 0.0 if excess(0.0) <= 0 else brentq(excess, 0.0, 1e4, xtol=1e-15)

    w = 1 / (root(r, e) + e)
    rest = regress(r, w)
    clean = x - kappa * w * rest
    left = a - kappa**2 * w
    pull = 1 / (root(clean, left) + left)
    h = regress(clean, pull) * pull
    design = np.column_stack([z, h])
    bread = np.linalg.inv(design.T @ np.diag(w) @ design)
    coef = bread @ design.T @ np.diag(w) @ r
    residual = r - design @ coef
    meat = np.zeros_like(bread)
    for i in range(k):
        lift = w[i] * design[i] @ bread @ design[i]
        meat += np.outer(design[i], design[i]) * (w[i] * residual[i] / (1 - lift)) ** 2
    classical = (w @ residual**2) / (k - q - 1) * bread[-1, -1]
    share = min(2.5 / k, 1)
    return float(coef[-1]), float(np.sqrt(share * classical + (1 - share) * (bread @ meat @ bread)[-1, -1]))


@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("value", [-1.5, 0.0, 2.0, 40.0])
def test_the_score_is_what_the_formulas_say(q: int, value: float) -> None:
    rng = np.random.default_rng(3)
    z = np.column_stack([np.ones(14), rng.normal(size=(14, q - 1))])
    rows = draw_rows(rng, 14, z=z)
    path = score_path(samples(rows), np.array([value]))
    score, error = by_hand(rows, value)
    np.testing.assert_allclose([path.score[0], path.std_error[0]], [score, error], rtol=1e-9)


def test_paule_mandel_is_that_of_meta_regression_and_solves_its_equation() -> None:
    rng = np.random.default_rng(0)
    y, v = rng.normal(size=(50, 9)) * np.arange(1, 51)[:, None] / 10, rng.gamma(1, 1, (50, 9)) + 0.01
    z = np.column_stack([np.ones(9), np.arange(9.0)])
    found, w, _, rest = paule_mandel(y, v, z)
    for i in range(50):
        expected = meta_regression(y[i], v=v[i], x=z, tau2="PM").tau2
        np.testing.assert_allclose(found[i], expected, rtol=1e-8, atol=1e-12)
    q = (w * rest**2).sum(axis=1)
    np.testing.assert_allclose(q[found > 0], 7.0, rtol=1e-9)
    assert (q[found == 0] <= 7.0 + 1e-9).all()
    assert 0 < (found == 0).sum() < 50


def test_without_sampling_error_it_is_least_squares() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=12)
    y = 1 + 0.4 * x + rng.normal(size=12)
    rows = rows_from(y, x, np.tile(1e-14 * np.eye(2), (12, 1, 1)))
    design = np.column_stack([np.ones(12), x])
    bread = np.linalg.inv(design.T @ design)
    b = bread @ design.T @ y
    e = (y - design @ b) / (1 - np.einsum("ka,ab,kb->k", design, bread, design))
    se = np.sqrt((bread @ (design.T * e**2) @ design @ bread)[1, 1])
    classical = ((y - design @ b) ** 2).sum() / 10 * bread[1, 1]
    mixed = np.sqrt(2.5 / 12 * classical + 9.5 / 12 * se**2)
    for value in (0.0, 1.0):
        np.testing.assert_allclose(
            score_path(samples(rows), np.array([value])).statistic[0], (b[1] - value) / mixed, rtol=1e-6
        )
    fit = EbScore().solve(rows)
    np.testing.assert_allclose(fit.coefficients, b[::-1], rtol=1e-6)
    np.testing.assert_allclose(fit.std_errors[0], se, rtol=1e-6)


@pytest.mark.parametrize("q", [0, 1, 2])
def test_the_engine_for_several_mediators_agrees_with_that_for_one(q: int) -> None:
    rng = np.random.default_rng(5)
    z = np.column_stack([np.ones(20), rng.normal(size=20)])[:, :q]
    rows = draw_rows(rng, 20, z=z)
    value = np.array([-3.0, 0.0, 1.7, 9.0])
    one, many = score_path(samples(rows), value), many_path(Blocks(rows), 0, value).path
    np.testing.assert_allclose(many.statistic, one.statistic, rtol=1e-9)
    np.testing.assert_allclose(many.direct_variance, one.direct_variance, rtol=1e-9)
    np.testing.assert_allclose(many.intercepts, one.intercepts, rtol=1e-9)
    np.testing.assert_allclose(many.intercept_cov, one.intercept_cov, rtol=1e-9)
    r = rows.y - value[:, None] * rows.x[:, 0]
    np.testing.assert_allclose((many.influence * r).sum(axis=1), many.score, rtol=1e-9)
    np.testing.assert_allclose((one.influence * r).sum(axis=1), one.score, rtol=1e-9)


def test_the_statistic_does_not_depend_on_units_or_origins() -> None:
    rng = np.random.default_rng(7)
    rows = draw_rows(rng, 15)
    value = np.array([-1.0, 0.5, 2.0])
    plain = score_path(samples(rows), value).statistic
    unit = np.diag([1e3, 1e-4])
    moved = rows_from(1e3 * rows.y + 50, 1e-4 * rows.x + 7, unit @ rows.cov @ unit)
    np.testing.assert_allclose(score_path(samples(moved), value * 1e7).statistic, plain, rtol=1e-8)


def test_rows_that_share_controls_against_dense_matrices() -> None:
    rows = shared_controls(np.random.default_rng(11), 7, 3)
    v, k = 1.2, rows.n_rows
    c = np.array([1.0, -v])
    e = np.einsum("a,kalb,b->kl", c, rows.cross, c)
    kappa = np.einsum("klb,b->kl", rows.cross[:, 1], c)
    r = rows.y - v * rows.x[:, 0]

    def gls(t: float) -> tuple[np.ndarray, np.ndarray]:
        w = np.linalg.inv(e + t * np.eye(k))
        return w, r - rows.z @ np.linalg.solve(rows.z.T @ w @ rows.z, rows.z.T @ w @ r)

    def excess(t: float) -> float:
        w, rest = gls(t)
        return float(rest @ w @ rest) - (k - 1)

    t = brentq(excess, 0.0, 1e3, xtol=1e-14)
    w, rest = gls(t)
    clean = rows.x[:, 0] - kappa @ w @ rest
    left = rows.noise[:, 0, 0] - np.diag(kappa @ w @ kappa.T)
    s2, _, mean, _ = paule_mandel(clean, left, rows.z)
    h = s2 / (s2 + left) * (clean - mean[0])
    design = np.column_stack([rows.z, h])
    bread = np.linalg.inv(design.T @ w @ design)
    coef = bread @ design.T @ w @ r
    residual, variance = r - design @ coef, 0.0
    for s in range(7):
        own = rows.site == s
        ws = w[np.ix_(own, own)]
        lift = design[own] @ bread @ design[own].T @ ws
        adjusted = np.linalg.solve(np.eye(3) - lift, residual[own])
        variance += float((bread @ design[own].T @ ws @ adjusted)[1] ** 2)
    path = many_path(Blocks(rows), 0, np.array([v])).path
    np.testing.assert_allclose(path.direct_variance[0], t, rtol=1e-8)
    np.testing.assert_allclose(path.score[0], coef[1], rtol=1e-8)
    classical = residual @ w @ residual / (k - 2) * bread[1, 1]
    np.testing.assert_allclose(
        path.std_error[0], np.sqrt(2.5 / 7 * classical + 4.5 / 7 * variance), rtol=1e-6
    )


def test_an_error_common_to_all_rows_moves_no_slope() -> None:
    rng = np.random.default_rng(2)
    rows = draw_rows(rng, 10)
    shared = covariances(rng, 1, 1)[0]
    cross = np.zeros((10, 2, 10, 2)) + shared[None, :, None, :]
    for i in range(10):
        cross[i, :, i, :] += rows.cov[i]
    joint = rows_from(rows.y, rows.x, rows.cov + shared, cross=cross, site=np.zeros(10, dtype=int))
    apart = rows_from(rows.y, rows.x, rows.cov, common=shared)
    value = np.array([0.0, 1.5])
    both = [many_path(Blocks(r), 0, value).path for r in (joint, apart)]
    np.testing.assert_allclose(both[0].direct_variance, both[1].direct_variance, rtol=1e-7)
    np.testing.assert_allclose(both[0].intercepts, both[1].intercepts, rtol=1e-7)
    # Only how far compliances are shrunken differs: the shared error counts there as each row's own.
    np.testing.assert_allclose(solve_scores(Blocks(joint))[0], solve_scores(Blocks(apart))[0], rtol=0.02)
    fit, plain = EbScore().solve(apart), EbScore().solve(rows)
    contrast = np.array([1.0, -fit.coefficients[0]])
    extra = fit.covariance - plain.covariance
    np.testing.assert_allclose(extra[1, 1], contrast @ shared @ contrast, rtol=1e-9)
    assert np.abs(extra[0]).max() < 1e-14


def test_several_mediators_solve_their_scores_and_do_not_mind_their_order() -> None:
    rows = draw_rows(np.random.default_rng(4), 40, (1.0, -0.5, 0.3))
    effects, left = solve_scores(Blocks(rows))
    assert left < 1e-6
    turned = rows_from(rows.y, rows.x[:, ::-1], rows.cov[:, [0, 3, 2, 1]][:, :, [0, 3, 2, 1]])
    np.testing.assert_allclose(solve_scores(Blocks(turned))[0][::-1], effects, rtol=1e-6)
    value = np.array([0.2, 0.8])
    one, other = many_path(Blocks(rows), 0, value), many_path(Blocks(turned), 2, value)
    np.testing.assert_allclose(one.path.statistic, other.path.statistic, rtol=1e-5)
    np.testing.assert_allclose(one.effects, other.effects[:, ::-1], rtol=1e-5)
    # At the estimate the conditional estimates are the joint ones, and the statistic is zero.
    at = many_path(Blocks(rows), 0, effects[:1])
    np.testing.assert_allclose(at.effects[0], effects, rtol=1e-5)
    assert abs(at.path.statistic[0]) < 1e-4


def test_several_mediators_by_a_dense_regression() -> None:
    rows = draw_rows(np.random.default_rng(9), 25, (1.0, -0.5))
    found = many_path(Blocks(rows), 1, np.array([0.1]))
    beta = found.effects[0]
    c = np.concatenate([[1.0], -beta])
    e = np.einsum("a,kab,b->k", c, rows.cov, c)
    r = rows.y - rows.x @ beta
    t, w, _, rest = paule_mandel(r, e, rows.z)
    kappa = rows.cov[:, 1:, :] @ c
    clean = rows.x - kappa * (w * rest)[:, None]
    left = rows.noise - np.einsum("kp,kq,k->kpq", kappa, kappa, w)
    m = np.eye(25) - 1 / 25
    gamma = (clean.T @ m @ clean - (24 / 25) * left.sum(axis=0)) / 24
    away = clean - clean.mean(axis=0)
    h = np.stack([gamma @ np.linalg.solve(gamma + v, d) for v, d in zip(left, away, strict=True)])
    design = np.column_stack([rows.z, h])
    bread = np.linalg.inv((design.T * w) @ design)
    coef = bread @ (design.T * w) @ r
    lift = w * np.einsum("ka,ab,kb->k", design, bread, design)
    scores = (design.T * (w * (r - design @ coef) / (1 - lift))).T @ bread
    np.testing.assert_allclose(found.path.score[0], coef[2], rtol=1e-8)
    classical = (w @ (r - design @ coef) ** 2) / 22 * bread[2, 2]
    mixed = 0.1 * classical + 0.9 * (scores[:, 2] ** 2).sum()
    np.testing.assert_allclose(found.path.std_error[0], np.sqrt(mixed), rtol=1e-8)
    nuisance = (np.linalg.inv((design[:, :2].T * w) @ design[:, :2]) @ (design[:, :2].T * w) @ r)[1]
    assert abs(nuisance) < 1e-8  # the other mediator's score is zero
    np.testing.assert_allclose(found.path.direct_variance[0], t, rtol=1e-8)


def test_scores_without_a_common_zero_are_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    # With one mediator the score has opposite signs at the two ends of the line, and so a zero.
    rng = np.random.default_rng(0)
    assert all(EbScore().solve(draw_rows(rng, 4, (1.0,), size=5.0)).status is None for _ in range(40))
    rows = draw_rows(rng, 12, (1.0, 0.5))
    monkeypatch.setattr(eb_estimator, "solve_scores", lambda _: (np.zeros(2), 0.7))
    fit = EbScore().solve(rows)
    assert fit.status == "the scores have no common zero (the smallest left is t = 0.7)"
    assert np.isnan(fit.coefficients).all()


def test_simulated_critical_values_are_those_of_draws_made_by_hand() -> None:
    rows = draw_rows(np.random.default_rng(8), 9)
    test = SlopeTest.of(rows, "m1", draws=99, seed=4)
    knots = test.calibration
    assert knots is not None
    fit = score_path(samples(rows), np.zeros(1))
    normal = np.random.default_rng(4).standard_normal((4, 99, 9))
    a, b, c = rows.noise[:, 0, 0], rows.itt_variance, rows.covariance[:, 0]
    larger = 0
    observed = abs(fit.statistic[0])
    for i in range(99):
        u = np.sqrt(a) * normal[0, i]
        v = c / np.sqrt(a) * normal[0, i] + np.sqrt(b - c**2 / a) * normal[1, i]
        g = fit.compliance_mean[0, 0] + np.sqrt(fit.compliance_variance[0]) * normal[2, i]
        d = fit.intercepts[0, 0] + np.sqrt(fit.direct_variance[0]) * normal[3, i]
        one = rows_from(d + v, g + u, rows.cov)
        larger += abs(score_path(samples(one), np.zeros(1)).statistic[0]) >= observed
    assert test.test(0.0).pvalue == pytest.approx((1 + larger) / 100, abs=1e-12)


@pytest.mark.parametrize("k", [5, 12, 40])
def test_sets_hold_what_is_not_rejected(k: int) -> None:
    rows = draw_rows(np.random.default_rng(k), k)
    test = SlopeTest.of(rows, "m1", draws=199)
    found = test.confidence_set(0.9)
    # The zero of the score is searched for on the whole line.
    assert test.estimate in found
    np.testing.assert_allclose(test.statistic(np.array([test.estimate])), 0.0, atol=1e-8)
    for low, high in found.intervals:
        for end in (low, high):
            if np.isfinite(end):
                at = np.array([end])
                np.testing.assert_allclose(np.abs(test.statistic(at)), test.critical(at, 0.9), rtol=1e-6)
    inside = np.linspace(-8, 12, 400)
    kept = np.abs(test.statistic(inside)) <= test.critical(inside, 0.9)
    assert kept.tolist() == [float(v) in found for v in inside]
    curve = test.curve()
    assert curve["p_value"].max() == pytest.approx(1.0, abs=1e-9)


def test_t_reference_with_many_rows_and_several_mediators() -> None:
    assert SlopeTest.of(draw_rows(np.random.default_rng(0), 201), "m1").reference == "t"
    assert SlopeTest.of(draw_rows(np.random.default_rng(0), 30, (1.0, 0.0)), "m2").reference == "t"
    shared = SlopeTest.of(shared_controls(np.random.default_rng(0), 6, 2), "m1")
    assert (shared.reference, shared.draws) == ("bootstrap", 199)
    with pytest.raises(ChoiceError, match="one mediator"):
        SlopeTest(draw_rows(np.random.default_rng(0), 30, (1.0, 0.0)), "m2", "bootstrap").confidence_set()
    assert SlopeTest.of(draw_rows(np.random.default_rng(0), 200), "m1").reference == "bootstrap"


def test_critical_values_of_rows_that_share_controls() -> None:
    rows = shared_controls(np.random.default_rng(1), 8, 3)
    engine = SharedRows(Blocks(rows))
    rng = np.random.default_rng(2)
    v, u = engine.errors(rng.standard_normal((2, 20000, 24)))
    dense = np.stack([v, u], axis=-1).reshape(20000, 48)
    np.testing.assert_allclose(np.cov(dense.T), rows.cross.reshape(48, 48), atol=0.03)
    # A batch of samples gives what each of them gives alone.
    y, x = rows.y + rng.normal(size=(3, 24)), rows.x[:, 0] + rng.normal(size=(3, 24))
    together = engine.statistic(y, x, 0.7)
    for j in range(3):
        one = replace(rows, y=y[j], x=x[j][:, None])
        np.testing.assert_allclose(
            together[j], many_path(Blocks(one), 0, np.array([0.7])).path.statistic[0], rtol=1e-9
        )
    test = SlopeTest.of(rows, "m1", draws=99)
    low, high = test.confidence_set().hull
    assert low < test.estimate < high


def test_rows_without_shared_people_have_the_same_critical_values_either_way() -> None:
    rows = draw_rows(np.random.default_rng(3), 12)
    cross = np.zeros((12, 2, 12, 2))
    for i in range(12):
        cross[i, :, i, :] = rows.cov[i]
    shared = SlopeTest(replace(rows, cross=cross), "m1", "bootstrap", draws=999)
    alone = SlopeTest.of(rows, "m1", draws=999)
    value = np.array([0.0, 2.0])
    np.testing.assert_allclose(shared.statistic(value), alone.statistic(value), rtol=1e-8)
    np.testing.assert_allclose(shared.critical(value, 0.9), alone.critical(value, 0.9), rtol=0.12)


def test_size_in_small_samples() -> None:
    """Six rows, noisy: about five in a hundred; the t reference rejects less, which is why it is not the default."""
    rng, simulated, by_t = np.random.default_rng(20), 0, 0
    for _ in range(60):
        rows = draw_rows(rng, 6, (1.0,), size=0.8)
        p = SlopeTest.of(rows, "m1", draws=99).test(1.0).pvalue
        simulated += p <= 0.05
        by_t += SlopeTest(rows, "m1", "t").test(1.0).pvalue <= 0.05
    assert 1 <= simulated <= 9
    assert by_t < simulated
