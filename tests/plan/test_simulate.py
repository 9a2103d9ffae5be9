"""Simulated trials: their stated truth against formulas, against people, and one violation at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, DataError, RankDeficientError
from msmmiv.plan.options import recipe_of
from msmmiv.plan.process import draw_sites
from msmmiv.plan.simulate import _truth, simulate, simulate_many
from msmmiv.plan.violations import VIOLATIONS

WAYS = [(None, None), *((v, w) for v, broken in VIOLATIONS.items() for w in broken.variants)]
MEAN, SD = 0.8, 0.5
SECOND = MEAN**2 + SD**2


def truth_of(violation, variant=None, *, sites=200_000, **options):
    recipe, _ = recipe_of(violation, variant, None, {"sites": sites, "effect_sd": 0.0, **options})
    return _truth(recipe, draw_sites(recipe, np.random.default_rng(0)))


def unadjusted(trial):
    return mm.Moments.from_data(trial.frame, replace(trial.design, covariates=()))


# ---------------------------------------------------------------- the stated truth against the formulas


@pytest.mark.parametrize(
    ("violation", "variant", "bias"),
    [
        (None, None, 0.0),
        ("i", "share", -1.0 * 0.5 * MEAN / SECOND),
        ("i", "peers", 0.3),
        ("ii", "constant", 0.3 * MEAN / SECOND),
        ("iv", "quadratic", 0.3 * 2 * MEAN * SD**2 / SECOND + 0.3 * 0.04 * MEAN / SECOND),
        ("vii.a", "covariate", 0.3 * MEAN / SECOND),
        ("ix", "compliance", 0.5 * 2 * MEAN * SD**2 / SECOND),
        ("ix", "covariate", 0.6 * 0.7 * 2 * MEAN * SD**2 / SECOND),
        ("ix", "size", 0.3 * 0.4),  # E[n z] / E[n] for n lognormal with sd 0.4 of its logarithm
    ],
)
def test_the_limit_is_what_the_formula_says(violation, variant, bias):
    truth = truth_of(violation, variant, people=6000)
    assert truth.bias[0] == pytest.approx(bias, abs=0.004)


def test_a_cascade_leaves_direct_effects():
    truth = truth_of("v")
    np.testing.assert_allclose(truth.limit, [0.5, 0.3], atol=1e-9)
    np.testing.assert_allclose(truth.total_effects, [0.65, 0.3], rtol=1e-12)


def test_effects_that_go_with_the_other_mediators_compliance_bias_both():
    truth = truth_of("ix", "cross")
    g = truth.compliances[:, 0]
    w = truth.weights[:, 0, 0]
    bias = np.linalg.solve((g * w[:, None]).T @ g, (g * w[:, None]).T @ (g[:, 0] * 0.5 * (g[:, 1] - 0.4)))
    np.testing.assert_allclose(truth.bias, bias, atol=1e-9)


def test_average_effects_stay_where_they_were_put():
    for violation, variant in [
        ("iv", "quadratic"),
        ("iv", "interaction"),
        ("ix", "compliance"),
        ("ix", "size"),
    ]:
        truth = truth_of(violation, variant)
        np.testing.assert_allclose(truth.site_effects.mean(axis=0), truth.mediator_effects, atol=0.01)


# ---------------------------------------------------------------- the people against the stated truth


@pytest.mark.parametrize(("violation", "variant"), WAYS)
def test_endless_people_give_the_limit(violation, variant):
    trial = simulate(violation, variant=variant, sites=30, people=3000, seed=2)
    moments = unadjusted(trial)
    if violation == "viii":
        assert np.isnan(trial.truth.limit).all()
        return
    fit = mm.fit(moments, "ujive", cov_type="site")
    effects = mm.SiteEffects.from_moments(moments)
    error = np.sqrt(np.einsum("kdada->kda", effects.cov))
    known = np.concatenate([trial.truth.itt[:, :, None], trial.truth.compliances], axis=2)
    z = (effects.estimates - known) / error
    # Ranking people by a score keeps arms a little closer to their expectation than independent draws.
    assert 0.6 < z.std() < 1.4, z.std()
    assert np.abs(z.mean(axis=(0, 1))).max() < 4 / np.sqrt(z.shape[0] * z.shape[1])
    np.testing.assert_allclose(fit.params.to_numpy(), trial.truth.limit, atol=0.1)


def test_clean_trials_are_estimated_without_bias_except_by_least_squares():
    found = [
        [mm.fit(t.moments, name, cov_type="site").params["m1"] for name in ("ujive", "ols")]
        for t in simulate_many(trials=60, seed=5)
    ]
    ujive, ols = np.mean(found, axis=0)
    assert ujive == pytest.approx(0.5, abs=4 * np.std([f[0] for f in found]) / np.sqrt(60))
    assert ols > 0.75


@pytest.mark.parametrize(("people", "low", "high"), [(40, 0.65, 0.8), (60, 0.72, 0.86), (120, 0.84, 0.93)])
def test_reliability_is_that_of_real_trials(people, low, high):
    g = np.concatenate(
        [t.effects.estimates[:, 0, 1] for t in simulate_many(trials=20, people=people, seed=1)]
    )
    truth = np.concatenate(
        [t.truth.compliances[:, 0, 0] for t in simulate_many(trials=20, people=people, seed=1)]
    )
    assert low < np.corrcoef(g, truth)[0, 1] ** 2 < high


# ---------------------------------------------------------------- what a trial is made of


@pytest.mark.parametrize(("violation", "variant"), WAYS)
def test_violations_change_nothing_else(violation, variant):
    """Arms have the sizes that were planned, and columns are the same in every trial of this many mediators."""
    trial = simulate(violation, variant=variant, sites=10, people=50)
    p = len(trial.design.mediators)
    assert [*trial.frame] == ["site", "t", *(f"m{j + 1}" for j in range(p)), "y", "x1", "x2", "z"]
    assert trial.frame.groupby("site")["z"].nunique().eq(1).all()
    assert trial.frame["y"].isna().any() == (variant == "attrition")
    assert set(trial.frame["t"]) == ({0, 1, 2} if violation == "iii" else {0, 1})
    assert str(trial.violation or "hold") in repr(trial)


def test_a_seed_is_a_trial():
    one, two, other = (simulate("ix", seed=s) for s in (4, 4, 5))
    pd.testing.assert_frame_equal(one.frame, two.frame)
    assert not one.frame["y"].equals(other.frame["y"])


def test_measured_imbalance_shows_in_covariates_and_unmeasured_does_not():
    def gap(variant):
        frame = simulate("vi", variant=variant, sites=30, people=400).frame
        means = frame.groupby(["site", "t"])["x1"].mean().unstack()
        return float((means[1] - means[0]).mean())

    assert gap("assignment") > 0.3
    assert abs(gap("unmeasured")) < 0.06


def test_defiers_make_negative_compliances_in_their_sites():
    trial = simulate("vii.b", variant="sites", sites=40, people=500)
    assert (trial.truth.compliances[::5] < 0).all()
    assert (np.delete(trial.truth.compliances[:, 0, 0], np.s_[::5]) > 0).all()
    assert set(trial.frame["m1"]) == {0.0, 1.0}


def test_proportional_compliances_have_no_rank():
    exact = simulate("viii", sites=20, people=40)
    np.testing.assert_allclose(
        exact.truth.compliances[:, 0, 1], 0.7 * exact.truth.compliances[:, 0, 0], rtol=1e-12
    )
    with pytest.raises(RankDeficientError):
        mm.fit(replace_moments(exact), "2sls")


def replace_moments(trial):
    """Moments in which the second mediator is in proportion to the first, noise and all."""
    return mm.Moments.from_data(trial.frame.assign(m2=0.7 * trial.frame["m1"]), trial.design)


@pytest.mark.parametrize(("violation", "variant"), [("ii", None), ("vi", "attrition"), ("iii", None)])
def test_many_trials_have_their_own_truth_and_moments(violation, variant):
    trials = list(
        simulate_many(violation, variant=variant, trials=3, sites=7, people=40, mediators=2, seed=8)
    )
    assert [len(t.truth.itt) for t in trials] == [7, 7, 7]
    for t in trials:
        own = mm.Moments.from_data(t.frame, t.design)
        assert t.moments.equals(own)
        assert t.moments.flow == own.flow
        assert t.moments.sites == own.sites
        got = mm.fit(t.moments, "ujive", cov_type="site").params
        np.testing.assert_allclose(got, mm.fit(own, "ujive", cov_type="site").params, rtol=1e-12)
    assert len({float(t.truth.itt[0, 0]) for t in trials}) == 3


def test_many_batches_differ(monkeypatch):
    monkeypatch.setattr("msmmiv.plan.simulate._ROWS", 300)
    trials = list(simulate_many(trials=4, sites=5, people=30))
    assert len({float(t.frame["y"].sum()) for t in trials}) == 4


@pytest.mark.parametrize(
    "options", [{"arms": 3}, {"arms": 3, "dose": True}, {"binary": True}, {"covariates": 0}]
)
def test_clean_trials_of_other_shapes(options):
    trial = simulate(sites=40, people=2000, mediators=2, **options)
    np.testing.assert_allclose(mm.fit(trial.moments, "ujive").params.iloc[:2], trial.truth.limit, atol=0.15)


# ---------------------------------------------------------------- bad questions


@pytest.mark.parametrize(
    ("violation", "options", "said"),
    [
        ("x", {}, "is not one of"),
        ("ii", {"variant": "sometimes"}, "'constant'"),
        (None, {"strength": 1.0}, "name it"),
        ("ii", {"colour": 1}, "'colour' is not an option"),
        ("iii", {"arms": 2}, "holds by construction"),
        ("iii", {"dose": False}, "arms need none"),
        ("v", {"mediators": 1}, "takes two mediators"),
        ("ix", {"variant": "cross", "mediators": 1}, "takes two mediators"),
        ("vii.a", {"covariates": 0}, "measured covariate"),
        ("iv", {"binary": True}, "not simulated with 0/1"),
        ("vii.b", {"binary": False}, "defiers"),
        (None, {"binary": True, "dose": True}, "no line"),
        (None, {"sites": 0}, "sites=0"),
        (None, {"people": 5}, "people=5"),
    ],
)
def test_named_errors(violation, options, said):
    with pytest.raises(ChoiceError, match=said):
        simulate(violation, **options)


@pytest.mark.parametrize(
    ("violation", "options", "said"),
    [
        (None, {"effects": [1.0, 2.0]}, "2 values for 1 mediator"),
        (None, {"effect_sd": -1.0}, "must not be negative"),
        ("vii.b", {"strength": 1.5}, "share"),
    ],
)
def test_numbers_out_of_range(violation, options, said):
    with pytest.raises(DataError, match=said):
        simulate(violation, **options)


NO_NUMBERS = ["a", "3", None, True, np.nan, np.inf, [], [3, 4], {"n": 3}]


@pytest.mark.parametrize("bad", [*NO_NUMBERS, -1, 2.5])
@pytest.mark.parametrize("name", ["sites", "people", "mediators", "arms", "covariates", "seed"])
def test_what_is_no_whole_number_is_refused(name, bad):
    with pytest.raises(ChoiceError, match=f"^{name}=.* must be a whole number of [0-9]+ or more"):
        simulate(**{name: bad})
    with pytest.raises(ChoiceError, match=f"^{name}="):
        next(simulate_many(trials=2, **{name: bad}))
    with pytest.raises(ChoiceError, match=r"^trials=.* must be a whole number of 1 or more"):
        next(simulate_many(trials=bad))


@pytest.mark.parametrize("name", ["sites", "people", "mediators", "arms"])
def test_a_count_of_zero_is_refused(name):
    with pytest.raises(ChoiceError, match=f"^{name}=0 must be a whole number"):
        simulate(**{name: 0})
    with pytest.raises(ChoiceError, match=r"^trials=0"):
        next(simulate_many(trials=0))


@pytest.mark.parametrize("bad", NO_NUMBERS)
@pytest.mark.parametrize("name", ["compliance_mean", "compliance_sd", "effect_sd", "strength"])
def test_what_is_no_number_is_refused(name, bad):
    if name == "strength" and bad is None:
        return  # the default of the variant
    with pytest.raises(DataError, match=f"^{name}=.* must be a number, such as 0.5"):
        simulate("ii", **{name: bad})


@pytest.mark.parametrize(
    "bad", ["a", "0.5", None, True, np.nan, ["a"], [None], [True], [np.inf], {"m1": 0.5}]
)
def test_effects_that_are_no_numbers_are_refused(bad):
    with pytest.raises(DataError, match=r"^effects=.* must be numbers, one per mediator"):
        simulate(effects=bad)


@pytest.mark.parametrize("name", ["dose", "binary"])
@pytest.mark.parametrize("bad", ["no", 0, 1, None, np.nan, [True]])
def test_switches_are_true_or_false(name, bad):
    with pytest.raises(ChoiceError, match=f"^{name}=.* must be True or False"):
        simulate(**{name: bad})


@pytest.mark.parametrize("bad", ["x", 2, True, ["ii"], np.nan, ""])
def test_violations_and_variants_are_names(bad):
    with pytest.raises(ChoiceError, match=r"violation=.* is not one of"):
        simulate(bad)
    with pytest.raises(ChoiceError, match=r"variant=.* is not one of"):
        simulate("ii", variant=bad)


def test_numbers_of_numpy_are_numbers():
    plain = simulate("ii", sites=8, people=30, effects=[0.4], strength=1.0, seed=3, binary=True)
    other = simulate(
        "ii", sites=np.int64(8), people=30, effects=np.array([0.4]), strength=np.float32(1), seed=np.int32(3),
        binary=np.True_,
    )  # fmt: skip
    pd.testing.assert_frame_equal(plain.frame, other.frame)
    assert (type(other.seed), other.strength) == (int, 1.0)
    one = simulate("ii", sites=8, people=30, effects=0.4, strength=1, seed=3, binary=True)
    pd.testing.assert_frame_equal(plain.frame, one.frame)


@pytest.mark.parametrize(
    ("violation", "variant"), [("vi", "attrition"), ("vii.b", "everywhere"), ("vii.b", "sites")]
)
def test_somebody_must_be_left(violation, variant):
    with pytest.raises(DataError, match="must be below 1"):
        simulate(violation, variant=variant, strength=1.0)


@pytest.mark.parametrize("name", ["broken", "colour"])
def test_what_is_no_option_is_refused(name):
    with pytest.raises(ChoiceError, match=f"'{name}' is not an option"):
        simulate("ii", **{name: "ii"})
