"""Robust weak-IV statistics against plain sums over sites, and sets against their own tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import msmmiv as mm
from msmmiv.errors import DataError, DesignError, MomentsInsufficient, TooFewSitesError
from msmmiv.inference import site_profile, weak_iv_common
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.inference.site_profile import Profile
from msmmiv.inference.site_scores import Sites
from msmmiv.inference.weak_iv import (
    anderson_rubin_set,
    anderson_rubin_test,
    conditional_lr_set,
    conditional_lr_test,
    kleibergen_set,
    kleibergen_test,
)
from msmmiv.inference.weak_iv_sites import fieller_sets, many_instrument_ar_set, many_instrument_ar_test
from tests.estimate.helpers import trial
from tests.inference.helpers import dense_form, effects_of, weak_trial


def known(effects):
    """The same effects with covariances taken as known."""
    return replace(effects, df=np.full(len(effects.sites), np.inf))


@pytest.fixture(scope="module")
def one():
    return known(effects_of(trial(3, sites=9), ["m0"]))


def plain(effects, beta):
    """AR, K and rk as the sums of the literature, one contrast, one mediator."""
    b, g = effects.estimates[:, 0].T
    v = effects.cov[:, 0, :, 0, :]
    e = b - beta * g
    vee = v[:, 0, 0] - 2 * beta * v[:, 0, 1] + beta**2 * v[:, 1, 1]
    vge = v[:, 0, 1] - beta * v[:, 1, 1]
    d = g - vge / vee * e
    k = (d * e / vee).sum() ** 2 / (d**2 / vee).sum()
    return (e**2 / vee).sum(), k, (d**2 / (v[:, 1, 1] - vge**2 / vee)).sum()


@pytest.mark.parametrize("beta", [-3.0, 0.0, 0.45, 7.0])
def test_sums_over_sites(one, beta):
    ar, k, rk = plain(one, beta)
    test = anderson_rubin_test(one, beta)
    assert test.stat == pytest.approx(ar, rel=1e-12)
    assert test.dist == "chi2(9)"
    assert kleibergen_test(one, beta).stat == pytest.approx(k, rel=1e-10)
    lr = 0.5 * (ar - rk + np.sqrt((ar + rk) ** 2 - 4 * (ar - k) * rk))
    found = conditional_lr_test(one, beta)
    assert found.stat == pytest.approx(lr, rel=1e-9)
    assert k <= found.stat <= ar


@pytest.mark.parametrize("beta", [0.1, 0.9])
def test_direct_effect_is_profiled_exactly(one, beta):
    b, g = one.estimates[:, 0].T
    v = one.cov[:, 0, :, 0, :]
    weight = 1 / (v[:, 0, 0] - 2 * beta * v[:, 0, 1] + beta**2 * v[:, 1, 1])
    e = b - beta * g
    centred = e - (weight * e).sum() / weight.sum()
    test = anderson_rubin_test(one, beta, direct_effect=True)
    assert test.stat == pytest.approx((weight * centred**2).sum(), rel=1e-12)
    assert test.dist == "chi2(8)"
    # Moving every outcome effect by a constant changes nothing but the direct effect.
    estimates = one.estimates.copy()
    estimates[:, :, 0] += 5.0
    moved = replace(one, estimates=estimates)
    for function in (anderson_rubin_test, kleibergen_test, conditional_lr_test):
        assert function(moved, beta, direct_effect=True).stat == pytest.approx(
            function(one, beta, direct_effect=True).stat, rel=1e-7
        )


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(("seed", "strength"), [(0, 0.1), (1, 0.6), (2, 1.5)])
def test_sets_are_their_tests_inverted(seed, strength, direct):
    effects = effects_of(weak_trial(seed, strength=strength, het=0.5, per_arm=6), ["m0"])
    grid = np.concatenate([np.linspace(-6, 6, 31), [-1e6, 1e6]])
    pairs = [
        (anderson_rubin_set, anderson_rubin_test),
        (kleibergen_set, kleibergen_test),
        (conditional_lr_set, conditional_lr_test),
    ]
    for region, test in pairs:
        found = region(effects, "m0", direct_effect=direct)
        for x in grid:
            p = test(effects, x, direct_effect=direct).pvalue
            assert (x in found) == (p >= 0.05) or abs(p - 0.05) < 1e-4
        for end in np.ravel(found.intervals):
            if np.isfinite(end):
                assert test(effects, end, direct_effect=direct).pvalue == pytest.approx(0.05, abs=1e-6)


def test_ar_and_j_add_up_with_two_mediators():
    effects = effects_of(trial(5, sites=12, mediators=2), ["m0", "m1"])
    beta = [0.4, 0.1]
    ar, k = anderson_rubin_test(effects, beta), kleibergen_test(effects, beta)
    assert 0 < k.stat < ar.stat
    assert k.df == 2
    sites = Sites.of(effects)
    at = sites.scores(np.array([beta]))
    basis = np.linalg.qr(at.first[0])[0]
    outside = at.residual[0] - basis @ (basis.T @ at.residual[0])
    assert outside @ outside == pytest.approx(ar.stat - k.stat, rel=1e-12)


def test_several_arms_are_one_block_per_site():
    effects = effects_of(trial(6, arms=3, sites=7), ["m0"])
    e = effects.estimates[:, :, 0] - 0.3 * effects.estimates[:, :, 1]
    b = np.array([1.0, -0.3])
    v = np.einsum("kdaeb,a,b->kde", effects.cov, b, b)
    stat = np.einsum("kd,kde,ke->", e, np.linalg.inv(v), e)
    test = anderson_rubin_test(effects, 0.3)
    assert test.stat == pytest.approx(stat, rel=1e-12)
    assert test.df == 14
    assert anderson_rubin_test(effects, 0.3, direct_effect=True).df == 12
    absent = replace(effects, estimates=effects.estimates.copy(), cov=effects.cov.copy())
    absent.estimates[2, 1], absent.cov[2, 1], absent.cov[2, :, :, 1] = np.nan, np.nan, np.nan
    assert anderson_rubin_test(absent, 0.3).df == 13
    assert anderson_rubin_set(absent, "m0").shape == "interval"


@pytest.mark.parametrize("direct", [False, True])
def test_profile_is_the_minimum_over_the_other_effect(direct):
    effects = effects_of(weak_trial(5, strength=0.5, mediators=2, het=0.5, sites=6, per_arm=8), ["m0", "m1"])
    sites = Sites.of(effects, direct_effect=direct)
    x = np.sinh(np.linspace(-9, 9, 121))
    value = Profile(sites, 0)(x)
    angles = np.tan(np.linspace(-1.5707, 1.5707, 3001))
    for i in range(0, 121, 10):
        theta = np.concatenate([angles, angles * abs(x[i])])
        least = sites.scores(np.column_stack([np.full(theta.shape, x[i]), theta])).ar.min()
        assert value[i] <= least + 1e-6


@pytest.mark.parametrize("arms", [2, 3])
@pytest.mark.parametrize("direct", [False, True])
def test_the_statistic_alone_is_that_of_the_scores(arms, direct):
    effects = effects_of(trial(5, sites=7, mediators=2, arms=arms), ["m0", "m1"])
    sites = Sites.of(effects, direct_effect=direct)
    line = np.random.default_rng(2).normal(size=(6, 3))
    want = sites.scores(np.empty((6, 2)), direction=line).ar
    np.testing.assert_array_equal(sites.anderson_rubin(line), want)


@pytest.mark.parametrize(("copies", "shown"), [(1, False), (60, True)])
def test_long_searches_have_a_bar(copies, shown, monkeypatch):
    asked = []

    def watched(steps, *, what, show):
        asked.append((what, show))
        return steps

    for module in (site_profile, weak_iv_common):
        monkeypatch.setattr(module, "watched", watched)
    monkeypatch.setattr(site_profile, "_LONG", 801 * 100)
    monkeypatch.setattr(weak_iv_common, "_LONG", 4001 * 100)
    few = effects_of(trial(5, sites=7, mediators=2), ["m0", "m1"])
    many = replace(
        few, sites=tuple(range(7 * copies)), estimates=np.tile(few.estimates, (copies, 1, 1)),
        cov=np.tile(few.cov, (copies, 1, 1, 1, 1)), df=np.tile(few.df, copies),
        precision=np.tile(few.precision, (copies, 1, 1)), n=np.tile(few.n, copies),
    )  # fmt: skip
    anderson_rubin_set(many, "m0")
    whats = {what for what, show in asked if show}
    assert len(whats) == (2 if shown else 0)
    asked.clear()
    one = replace(many, estimates=many.estimates[:, :, :2], cov=many.cov[:, :, :2, :, :2], mediators=("m0",))
    anderson_rubin_set(one, "m0")
    assert any(show for _, show in asked) == shown


def test_subvector_set_lies_inside_the_projection():
    effects = effects_of(weak_trial(2, strength=1.5, mediators=2), ["m0", "m1"])
    form = dense_form(weak_trial(2, strength=1.5, mediators=2), ["m0", "m1"])
    for source in (effects, form):
        inner = anderson_rubin_set(source, "m1")
        outer = anderson_rubin_set(source, "m1", projection=True)
        assert outer.hull[0] < inner.hull[0] < inner.hull[1] < outer.hull[1]


def test_shapes_sites_can_give():
    cov = np.array([[[1.0, 0.2], [0.2, 0.04]]] * 2)[:, None, :, None, :]

    def make(itt, compliance):
        return replace(
            effects_of(weak_trial(0, sites=2), ["m0"]),
            estimates=np.column_stack([itt, compliance])[:, None, :],
            cov=cov + 0.05 * np.eye(2)[:, None, :],
            df=np.full(2, np.inf),
        )

    assert anderson_rubin_set(make([0.1, 0.1], [0.0, 0.0]), "m0").is_whole_line
    assert anderson_rubin_set(make([30.0, -30.0], [9.0, 9.0]), "m0").is_empty
    assert anderson_rubin_set(make([9.0, 9.0], [9.0, 9.0]), "m0").shape == "interval"
    assert anderson_rubin_set(make([9.0, 9.0], [0.1, 0.1]), "m0").shape == "two rays"


def test_many_instruments():
    effects = known(effects_of(trial(8, sites=30, per_site=12), ["m0"]))
    e = effects.estimates[:, 0, 0] - 0.2 * effects.estimates[:, 0, 1]
    v = np.einsum("kab,a,b->k", effects.cov[:, 0, :, 0, :], [1, -0.2], [1, -0.2])
    w = effects.precision[:, 0, 0]
    ar = (w * (e**2 - v)).sum() / np.sqrt(2 * (w**2 * v**2).sum())
    test = many_instrument_ar_test(effects, 0.2)
    assert test.stat == pytest.approx(30 + np.sqrt(60) * ar, rel=1e-12)
    for end in np.ravel(many_instrument_ar_set(effects, "m0").intervals):
        assert many_instrument_ar_test(effects, end).pvalue == pytest.approx(0.05, abs=1e-9)


def test_fieller_is_anderson_rubin_in_one_site():
    effects = known(effects_of(weak_trial(4, strength=0.6, sites=6), ["m0"]))
    found = fieller_sets(effects, level=0.9)
    for region in found.sets:
        for end in np.ravel(region.intervals):
            if np.isfinite(end):
                k = found.sets.index(region)
                e = effects.estimates[k, 0, 0] - end * effects.estimates[k, 0, 1]
                v = effects.cov[k, 0, :, 0, :]
                b = np.array([1, -end])
                assert e**2 / (b @ v @ b) == pytest.approx(stats.chi2.isf(0.1, 1), rel=1e-8)
    frame = found.to_frame()
    assert list(frame["site"]) == list(effects.sites)
    student = fieller_sets(replace(effects, df=np.full(6, 4.0))).sets
    normal = fieller_sets(effects).sets
    assert all(a.shape != "interval" or a.hull[0] < b.hull[0] for a, b in zip(student, normal, strict=True))


def test_sites_without_an_arm_add_nothing():
    effects = effects_of(trial(3, sites=9), ["m0"])
    estimates, cov = effects.estimates.copy(), effects.cov.copy()
    estimates[4], cov[4] = np.nan, np.nan
    less = replace(effects, estimates=estimates, cov=cov)
    assert anderson_rubin_test(less, 0.3).df == 8
    assert fieller_sets(less).to_frame()["set"][4] == "arm absent"
    for function in (anderson_rubin_set, kleibergen_set, conditional_lr_set, many_instrument_ar_set):
        assert function(less, "m0").level == 0.95


def test_refusals():
    one = effects_of(trial(3, sites=5), ["m0"])
    two = effects_of(trial(3, sites=5, mediators=2), ["m0", "m1"])
    form = ReducedForm(np.eye(2), np.eye(2), 3, 50, ("m",))
    bad = replace(one, cov=np.where(np.arange(5)[:, None, None, None, None] == 2, np.nan, one.cov))
    with pytest.raises(MomentsInsufficient, match=r"not available in 3"):
        anderson_rubin_test(bad, 0.1)
    flat = replace(one, cov=np.where(np.arange(5)[:, None, None, None, None] == 2, 0.0, one.cov))
    with pytest.raises(DataError, match="In 3 the outcome has no sampling variance"):
        anderson_rubin_test(flat, 0.1)
    with pytest.raises(DataError, match="no degrees of freedom"):
        anderson_rubin_test(replace(one, df=np.zeros(5)), 0.1)
    with pytest.raises(DesignError, match="one effect per mediator"):
        anderson_rubin_test(two, 0.1)
    with pytest.raises(DataError, match="finite"):
        anderson_rubin_test(one, np.nan)
    with pytest.raises(DesignError, match="not a mediator"):
        anderson_rubin_set(one, "m9")
    with pytest.raises(DesignError, match="partialled out"):
        anderson_rubin_set(form, "m", direct_effect=True)
    with pytest.raises(MomentsInsufficient, match="one mediator"):
        conditional_lr_set(two, "m0")
    with pytest.raises(MomentsInsufficient, match="one mediator"):
        conditional_lr_test(two, [0, 0])
    for function in (kleibergen_set, many_instrument_ar_set):
        with pytest.raises(DesignError, match="several mediators"):
            function(two, "m0")
    with pytest.raises(DesignError, match="several mediators"):
        fieller_sets(two)
    few = effects_of(trial(3, sites=2), ["m0"])
    with pytest.raises(TooFewSitesError):
        anderson_rubin_set(effects_of(trial(3, sites=2, mediators=2), ["m0", "m1"]), "m0", direct_effect=True)
    assert anderson_rubin_set(few, "m0").method == "Anderson-Rubin (robust)"


def test_just_identified_k_and_lr_are_ar():
    effects = effects_of(trial(4, sites=2, mediators=2), ["m0", "m1"])
    assert kleibergen_test(effects, [0.2, 0.1]).stat == anderson_rubin_test(effects, [0.2, 0.1]).stat
    form = ReducedForm(np.array([[9.0, 6.0], [6.0, 8.0]]), np.eye(2), 1, 50, ("m",))
    at = form.n_instruments * anderson_rubin_test(form, 0.3).stat
    assert conditional_lr_test(form, 0.3).stat == kleibergen_test(form, 0.3).stat == pytest.approx(at)


def test_star_runs():
    effects = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    assert not anderson_rubin_set(effects, "class_size").is_whole_line
