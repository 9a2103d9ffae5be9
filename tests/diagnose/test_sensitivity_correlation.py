"""Sensitivity to compliance and effect going together over sites: closed forms against brute force and truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import msmmiv as mm
from msmmiv.diagnose.sensitivity_correlation import (
    _moments,
    _response,
    compliance_effect_correlation,
    imbens_manski,
)
from msmmiv.errors import ChoiceError, DataError
from msmmiv.estimate.site_moments import SiteRows, site_rows
from msmmiv.inference.tests import NotApplicable
from msmmiv.plan.simulate import simulate, simulate_many


def normal_sites(p, rng, sites=400_000):
    mean = rng.uniform(0.3, 1.0, p)
    root = rng.normal(size=(p, p)) * 0.4 + 0.4 * np.eye(p)
    spread = root @ root.T
    return mean, spread, mean + rng.normal(size=(sites, p)) @ root.T


def symmetric_root(spread):
    scale = np.sqrt(np.diag(spread))
    values, vectors = np.linalg.eigh(spread / np.outer(scale, scale))
    return (vectors / np.sqrt(values)) @ vectors.T / scale[:, None]


@pytest.mark.parametrize("p", [1, 2, 3])
def test_bias_at_any_dependence_is_the_linear_form(p):
    """2SLS over many sites whose effects are linear in compliance, against c_pqr."""
    rng = np.random.default_rng(p)
    mean, spread, g = normal_sites(p, rng)
    z = (g - mean) @ symmetric_root(spread)
    np.testing.assert_allclose(np.cov(z.T).reshape(p, p), np.eye(p), atol=0.02)
    for _ in range(3):
        rotation = rng.normal(size=(p, p))
        moved = z @ rotation.T
        bias = np.linalg.solve(g.T @ g, g.T @ (g * moved).sum(axis=1))
        c = _response(mean, spread)
        np.testing.assert_allclose(np.einsum("pqr,qr->p", c, rotation), bias, atol=0.03)


@pytest.mark.parametrize("p", [2, 3])
def test_the_bound_is_attained_and_never_passed(p):
    rng = np.random.default_rng(10 + p)
    mean, spread, _ = normal_sites(p, rng, 2)
    sd = rng.uniform(0.2, 1.0, p)
    c = _response(mean, spread) * sd[None, :, None]
    reach, box = np.sqrt((c**2).sum(axis=2)).sum(axis=1), np.abs(c).sum(axis=(1, 2))
    rows = rng.normal(size=(20_000, p, p))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    found = np.abs(np.einsum("pqr,nqr->np", c, rows)).max(axis=0)
    assert (found <= reach + 1e-12).all()
    assert (found > 0.9 * reach).all()
    for j in range(p):
        worst = c[j] / np.linalg.norm(c[j], axis=1, keepdims=True)
        assert np.einsum("qr,qr->", c[j], worst) == pytest.approx(reach[j], rel=1e-12)
    assert (box >= reach - 1e-12).all()
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * (p * p))).reshape(p * p, -1).T.reshape(-1, p, p)
    np.testing.assert_allclose(np.einsum("pqr,nqr->np", c, corners).max(axis=0), box, rtol=1e-12)


def test_the_bound_does_not_depend_on_units_or_order():
    mean, spread, _ = normal_sites(3, np.random.default_rng(3), 2)

    def reach(mean, spread):
        return np.sqrt((_response(mean, spread) ** 2).sum(axis=2))

    units, order = np.array([10.0, 0.1, 3.0]), [2, 0, 1]
    other = reach(mean * units, spread * np.outer(units, units))
    np.testing.assert_allclose(other * units[:, None] / units[None, :], reach(mean, spread), rtol=1e-9)
    np.testing.assert_allclose(
        reach(mean[order], spread[np.ix_(order, order)]), reach(mean, spread)[np.ix_(order, order)], rtol=1e-9
    )


def test_one_mediator_has_the_closed_form():
    mean, variance = np.array([0.8]), np.array([[0.25]])
    cv = 0.5 / 0.8
    assert abs(_response(mean, variance)[0, 0, 0]) == pytest.approx(2 * cv / (1 + cv**2), rel=1e-12)
    effects = simulate(sites=50, people=100, seed=2).effects
    found = compliance_effect_correlation(effects, effect_sd=0.4)
    cv = found.coefficient_of_variation
    assert found.reach[0] == pytest.approx(0.4 * 2 * cv / (1 + cv**2), rel=1e-12)
    assert found.reach_box[0] == pytest.approx(found.reach[0], rel=1e-12)


def test_moments_of_compliance_are_free_of_noise():
    """Averages over many small trials against those of the sites themselves."""
    mine, true = [], []
    for trial in simulate_many(trials=150, sites=25, people=24, mediators=2, seed=1):
        mean, spread, fourth = _moments(site_rows(trial.effects))
        mine.append([*mean, spread[0, 0], spread[0, 1], spread[1, 1], fourth])
        g, w = trial.truth.compliances[:, 0], trial.truth.weights[:, 0, 0]
        w = w / w.sum()
        away = g - w @ g
        s = (away.T * w) @ away / (1 - w @ w)
        true.append([*(w @ g), s[0, 0], s[0, 1], s[1, 1], w @ g[:, 0] ** 4])
    gap = np.array(mine) - np.array(true)
    assert (np.abs(gap.mean(axis=0)) < 4 * gap.std(axis=0) / np.sqrt(len(gap))).all()
    assert (np.abs(gap.mean(axis=0))[:5] < 0.03).all()  # the fourth moment is noisier


@pytest.mark.parametrize("strength", [0.5, -0.5])
def test_the_right_correlation_undoes_the_violation(strength):
    """Simulated: effects rise with compliance; slope b gives rho = b tau / sqrt(b^2 tau^2 + s^2)."""
    b, tau, s = strength, 0.5, 0.2
    sd = np.hypot(b * tau, s)
    trials = simulate_many("ix", strength=b, effect_sd=s, sites=100, people=150, trials=12, seed=4)
    left, before = [], []
    for trial in trials:
        found = compliance_effect_correlation(trial.effects, effect_sd=sd)
        assert not found.inflate
        left.append(found.to_frame([b * tau / sd])["estimate"][0])
        before.append(found.estimate[0])
    assert abs(np.mean(before) - 0.5) > 0.15
    assert np.mean(left) == pytest.approx(0.5, abs=0.05)


def test_negative_compliance_turns_the_sign():
    trial = simulate("ix", strength=0.5, compliance_mean=-0.8, sites=100, people=150, seed=5)
    found = compliance_effect_correlation(trial.effects, effect_sd=0.27)
    assert found.bias(0.5)[0] < 0
    assert trial.truth.bias[0] < 0


@pytest.mark.parametrize("inflate", [True, False])
@pytest.mark.parametrize("mediators", [1, 2])
def test_robustness_values_are_exact(inflate, mediators):
    effects = simulate(sites=60, people=120, mediators=mediators, effect_sd=0.5, seed=8).effects
    found = compliance_effect_correlation(effects, effect_sd=0.9, inflate=inflate)
    for j, rv in enumerate(found.robustness):
        if np.isfinite(rv):
            assert abs(found.bias(rv)[j]) == pytest.approx(abs(found.estimate[j]), rel=1e-10)
            bounds = found.bounds(rv)
            assert np.abs(bounds.loc[j, ["low", "high"]].astype(float)).min() == pytest.approx(0.0, abs=1e-10)
        limit = found.robustness_limit[j]
        assert limit <= rv
        if 0 < limit < np.inf:
            frame = found.to_frame([limit, -limit])
            ends = frame[frame["mediator"] == found.mediators[j]][["lower", "upper"]].to_numpy()
            assert np.abs(ends).min() == pytest.approx(0.0, abs=1e-9)


def test_inflation_is_the_most_that_the_spread_can_miss():
    """Residuals of a fit under dependence lack at most the part of effects that goes with compliance."""
    rho, sd = 0.8, 0.4
    b, s = rho * sd / 0.5, sd * np.sqrt(1 - rho**2)
    seen = [
        compliance_effect_correlation(t.effects).effect_sd[0]
        for t in simulate_many("ix", strength=b, effect_sd=s, sites=80, people=200, trials=12, seed=2)
    ]
    assert s - 0.03 < np.mean(seen) < sd + 0.03


def test_the_distribution_free_bound_is_never_passed():
    rng = np.random.default_rng(0)
    g = rng.gamma(2.0, 0.5, 100_000)
    for effect in (g, g**2, np.sqrt(g), rng.normal(size=len(g)), np.where(g > 1, 1.0, 0.0)):
        bias = np.cov(g**2, effect)[0, 1] / (g**2).mean()
        assert abs(bias) <= effect.std() * (g**2).std() / (g**2).mean() * (1 + 1e-4)
    found = compliance_effect_correlation(simulate(sites=200, people=200, seed=1).effects, effect_sd=0.3)
    mu, tau = 0.8, 0.5
    ratio = np.sqrt(4 * mu**2 * tau**2 + 2 * tau**4) / (mu**2 + tau**2)
    assert found.reach_free[0] == pytest.approx(0.3 * ratio, rel=0.12)
    assert found.robustness_free[0] <= found.robustness[0]


def test_imbens_manski_covers_each_end():
    rng = np.random.default_rng(2)
    for width in (0.0, 0.5, 3.0):
        half = imbens_manski(width, 1.0)
        drawn = rng.normal(size=100_000)  # the lower end of the bounds, around zero
        covered = (drawn - half <= 0) & (drawn + width + half >= 0)
        assert covered.mean() == pytest.approx(0.95, abs=0.004)
    assert imbens_manski(0.0, 2.0, df=5) == pytest.approx(2.5706 * 2, rel=1e-4)
    assert np.isnan(imbens_manski(0.0, float("nan")))
    assert imbens_manski(1.0, 0.0) == 0.0


def test_effects_that_do_not_differ_have_a_status():
    star = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    found = compliance_effect_correlation(star)
    assert "give effect_sd" in found.status
    assert found.status in found.sentence
    assert np.isnan(found.robustness).all()
    given = compliance_effect_correlation(star, effect_sd=1.0)
    assert given.status is None
    assert 0 < given.robustness[0] < 1.0 or np.isinf(given.robustness[0])
    assert isinstance(given.evidence().test, NotApplicable)
    assert given.evidence().check == "sensitivity.compliance_effect_correlation"


def test_compliance_without_spread_has_a_status():
    effects = simulate(sites=20, compliance_sd=0.0, people=40, seed=3).effects
    found = compliance_effect_correlation(effects, effect_sd=1.0)
    assert found.status is None or "noise" in found.status
    assert str(found)


@pytest.mark.parametrize("options", [{"arms": 3, "mediators": 2}, {"mediators": 3}])
def test_other_shapes(options):
    found = compliance_effect_correlation(simulate(sites=80, people=150, **options).effects, effect_sd=0.3)
    assert found.status is None
    assert (found.reach > 0).all()
    assert len(found.to_frame([0.0, 0.5])) == 2 * len(found.mediators)


def test_bad_arguments():
    effects = simulate(sites=20).effects
    with pytest.raises(DataError, match="effect_sd"):
        compliance_effect_correlation(effects, effect_sd=[0.1, 0.2])
    with pytest.raises(DataError, match="correlation below one"):
        compliance_effect_correlation(effects, effect_sd=0.1, inflate=True).bias(1.0)
    with pytest.raises(DataError, match="level"):
        compliance_effect_correlation(effects, level=2.0)


@pytest.mark.parametrize("p", [1, 2])
def test_moments_of_compliance_have_the_expectation_of_true_ones_exactly(p):
    """Over all values of errors with three points, which have a normal error's first five moments."""
    rng = np.random.default_rng(p)
    g, weight = rng.normal(1.0, 0.6, (3, p)), np.array([1.0, 4.0, 2.0])
    root = rng.normal(size=(3, p, p))
    cov = np.zeros((3, 1 + p, 1 + p))
    cov[:, 1:, 1:] = root @ root.transpose(0, 2, 1)
    point, chance = np.array([-np.sqrt(3.0), 0.0, np.sqrt(3.0)]), np.array([1.0, 4.0, 1.0]) / 6.0
    mean, spread, fourth = np.zeros(p), np.zeros((p, p)), 0.0
    for pick in itertools.product(range(3), repeat=3 * p):
        error = np.einsum("rpq,rq->rp", root, point[list(pick)].reshape(3, p))
        values = np.column_stack([np.zeros(3), g + error])
        found = _moments(SiteRows(np.arange(3), values, cov, weight, 3))
        share = float(np.prod(chance[list(pick)]))
        mean, spread, fourth = mean + share * found[0], spread + share * found[1], fourth + share * found[2]
    np.testing.assert_allclose(mean, np.average(g, axis=0, weights=weight), rtol=1e-12)
    # A weighted variance is half the weighted mean of squared differences of pairs.
    pairs = [(a, b) for a in range(3) for b in range(a)]
    apart = sum(weight[a] * weight[b] * np.outer(g[a] - g[b], g[a] - g[b]) for a, b in pairs)
    np.testing.assert_allclose(
        spread, apart / (2.0 * sum(weight[a] * weight[b] for a, b in pairs)), rtol=1e-10
    )
    assert fourth == pytest.approx(np.average(g[:, 0] ** 4, weights=weight), rel=1e-10)


@pytest.mark.parametrize(
    "bad", ["a", "0.3", -0.1, 0.0, np.nan, np.inf, True, [], [0.1, None], {"m1": 0.1}, [[0.1]]]
)
def test_a_spread_that_is_none_is_refused(bad):
    with pytest.raises(DataError, match=r"effect_sd=.* needs one positive number"):
        compliance_effect_correlation(simulate(sites=12).effects, effect_sd=bad)


@pytest.mark.parametrize("bad", ["a", "0.3", None, np.nan, True, [0.3], 1.5])
def test_what_is_no_correlation_is_refused(bad):
    found = compliance_effect_correlation(simulate(sites=12).effects, effect_sd=0.3)
    for ask in (found.bias, found.bounds):
        with pytest.raises(DataError, match="is not a correlation"):
            ask(bad)
    with pytest.raises(DataError, match="correlation"):
        found.to_frame([0.1, bad])


def test_other_options_that_cannot_be_are_refused():
    effects = simulate(sites=12).effects
    for bad in ("no", 1, 0.5, [True]):
        with pytest.raises(ChoiceError, match="must be True, False or None"):
            compliance_effect_correlation(effects, effect_sd=0.3, inflate=bad)
    for bad in ("liml", None, 3, ["ujive"]):
        with pytest.raises(ChoiceError, match="estimator="):
            compliance_effect_correlation(effects, effect_sd=0.3, estimator=bad)
    for bad in (1.0, 0.0, "a", None, True, np.nan, [0.9]):  # a level of one would be looked for without end
        with pytest.raises(DataError, match="level="):
            imbens_manski(1.0, 1.0, level=bad)
    for name in ("width", "std_error", "df"):
        for bad in ("a", None, -1.0, True, [1.0]):
            with pytest.raises(DataError, match=f"{name}="):
                imbens_manski(**({"width": 1.0, "std_error": 1.0} | {name: bad}))
