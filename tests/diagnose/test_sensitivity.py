"""Sensitivity to a direct effect, to covariance inside sites and to a mediator left out: identities and truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.heterogeneity import heterogeneity
from msmmiv.diagnose.sensitivity import direct_effect_line, outcome_spread
from msmmiv.diagnose.sensitivity_omitted import omitted_mediator
from msmmiv.diagnose.sensitivity_within import within_site_covariance
from msmmiv.errors import ChoiceError, DataError, MomentsInsufficient, TooFewSitesError
from msmmiv.estimate.corrected import corrected_iv
from msmmiv.inference.tests import NotApplicable
from msmmiv.plan.simulate import simulate

SHAPES = {
    "one": {"sites": 20},
    "two": {"sites": 25, "mediators": 2},
    "three": {"sites": 30, "mediators": 3},
    "arms": {"sites": 20, "mediators": 2, "arms": 3},
}


@pytest.fixture(scope="module", params=SHAPES)
def effects(request):
    return simulate(seed=4, covariates=0, **SHAPES[request.param]).effects


@pytest.fixture(scope="module")
def holes():
    """Three arms, of which some sites lack one."""
    frame = simulate(seed=4, covariates=0, **SHAPES["arms"]).frame
    design = mm.Design(outcome="y", treatment="t", mediators=["m1", "m2"], site="site")
    lost = ((frame["site"] % 5 == 0) & (frame["t"] == 2)) | ((frame["site"] % 5 == 3) & (frame["t"] == 1))
    return mm.SiteEffects.from_moments(mm.Moments.from_data(frame[~lost], design), cov_type="unbiased")


def less(effects, kappa):
    """Effects whose itt is lower by a direct effect, per site or in all of them."""
    estimates = effects.estimates.copy()
    estimates[:, :, 0] -= np.reshape(kappa, (-1, 1))
    return replace(effects, estimates=estimates)


def two_stage(effects):
    """2SLS by brute force, row by row."""
    p = len(effects.mediators)
    a, c = np.zeros((p, p)), np.zeros(p)
    for every, precision in zip(effects.estimates, effects.precision, strict=True):
        have = np.isfinite(every[:, 0])
        r, omega = every[have], precision[np.ix_(have, have)]
        a += r[:, 1:].T @ omega @ r[:, 1:]
        c += r[:, 1:].T @ omega @ r[:, 0]
    return np.linalg.solve(a, c)


# ---------------------------------------------------------------- a direct effect


@pytest.mark.parametrize("kappa", [0.0, 0.7, -2.0])
def test_the_line_is_the_fit_to_what_is_left_of_itt(effects, kappa):
    line = direct_effect_line(effects)
    again = corrected_iv(less(effects, kappa))
    np.testing.assert_allclose(line.at(kappa), again.coefficients, atol=1e-12, rtol=1e-12)
    k, p = len(effects.sites), len(effects.mediators)
    np.testing.assert_allclose(line.std_errors(kappa), again.std_errors * np.sqrt(k / (k - p)), rtol=1e-9)
    plain = direct_effect_line(effects, estimator="2sls")
    np.testing.assert_allclose(plain.at(kappa), two_stage(less(effects, kappa)), atol=1e-12, rtol=1e-12)


def test_sites_without_an_arm_count_with_the_arms_they_have(holes):
    line = direct_effect_line(holes, estimator="2sls")
    np.testing.assert_allclose(line.at(0.4), two_stage(less(holes, 0.4)), atol=1e-12)
    np.testing.assert_allclose(
        direct_effect_line(holes).at(0.4), corrected_iv(less(holes, 0.4)).coefficients, atol=1e-12
    )


def test_direct_effects_may_differ_between_sites(effects):
    kappa = np.random.default_rng(1).normal(size=len(effects.sites))
    np.testing.assert_allclose(
        direct_effect_line(effects).at(kappa), corrected_iv(less(effects, kappa)).coefficients, atol=1e-12
    )


def test_robustness_values_are_exact(effects):
    line = direct_effect_line(effects)
    for j in range(len(line.mediators)):
        assert line.at(line.flip[j])[j] == pytest.approx(0.0, abs=1e-12)
        if line.touch[j] == 0.0 or not np.isfinite(line.touch[j]):
            continue
        frame = line.to_frame([line.touch[j], 0.9 * line.touch[j]])
        frame = frame[frame["mediator"] == line.mediators[j]]
        ends = frame[["lower", "upper"]].to_numpy()
        assert np.abs(ends[0]).min() == pytest.approx(0.0, abs=1e-9)
        assert (ends[1] > 0).all() or (ends[1] < 0).all()
        assert line.robustness_limit[j] < line.robustness[j]


def test_no_smaller_direct_effect_brings_zero_into_the_interval(effects):
    line = direct_effect_line(effects)
    for j, touch in enumerate(line.touch):
        reach = abs(touch) if np.isfinite(touch) else 50.0
        frame = line.to_frame(np.linspace(-0.999, 0.999, 301) * reach)
        frame = frame[frame["mediator"] == line.mediators[j]]
        assert not ((frame["lower"] <= 0) & (frame["upper"] >= 0)).any() or touch == 0.0


def free_fit(effects, noise):
    """Direct effect and coefficients by brute force, two arms: noise of every site times what is given, taken off.

    Sums over sites of the equations in (compliances, one), the whole matrix inverted; HC1 over sites.
    """
    k, p = len(effects.sites), len(effects.mediators)
    w, size = effects.precision[:, 0, 0], p + 1
    grams, rights = np.zeros((k, size, size)), np.zeros((k, size))
    for s in range(k):
        x, v = np.append(effects.estimates[s, 0, 1:], 1.0), effects.cov[s, 0, :, 0]
        grams[s], rights[s] = w[s] * np.outer(x, x), w[s] * x * effects.estimates[s, 0, 0]
        grams[s, :p, :p] -= noise[s] * v[1:, 1:]
        rights[s, :p] -= noise[s] * v[1:, 0]
    inverse = np.linalg.inv(grams.sum(axis=0))
    b = inverse @ rights.sum(axis=0)
    psi = (rights - grams @ b) @ inverse.T
    return b, np.sqrt(k / (k - size) * np.diag(psi.T @ psi))


@pytest.mark.parametrize("shape", ["one", "two", "three"])
@pytest.mark.parametrize("estimator", ["2sls", "ujive"])
def test_the_line_passes_through_the_fit_with_a_free_direct_effect(shape, estimator):
    moments = simulate("ii", seed=9, people=60, covariates=0, **SHAPES[shape]).moments
    effects = mm.SiteEffects.from_moments(moments, cov_type="unbiased")
    w = effects.precision[:, 0, 0]
    line = direct_effect_line(effects, estimator=estimator)
    b, errors = free_fit(effects, w if estimator == "ujive" else 0.0 * w)
    np.testing.assert_allclose(np.append(line.at(line.free_direct), line.free_direct), b, rtol=1e-9)
    assert line.free_se == pytest.approx(errors[-1], rel=1e-9)
    fit = mm.fit(moments, estimator, direct_effect=True, cov_type="site").params
    # UJIVE takes off the noise that is left beside the direct effect: of order 1/K less.
    same = b if estimator == "2sls" else free_fit(effects, w - w**2 / w.sum())[0]
    np.testing.assert_allclose(fit, same, rtol=1e-8)
    if estimator == "ujive":
        np.testing.assert_allclose(
            line.at(line.free_direct), heterogeneity(effects, direct_effect=True).centre, rtol=1e-9
        )
        assert 0.0 < abs(line.free_direct - fit.iloc[-1]) < line.free_se / 10.0


def test_units_of_the_outcome_cancel(effects):
    scaled = effects.estimates.copy()
    scaled[:, :, 0] *= 7.0
    cov = effects.cov.copy()
    cov[:, :, 0] *= 7.0
    cov[:, :, :, :, 0] *= 7.0
    other = replace(effects, estimates=scaled, cov=cov)
    np.testing.assert_allclose(
        direct_effect_line(effects).robustness, direct_effect_line(other).robustness, rtol=1e-10
    )


def test_union_holds_every_interval(effects):
    line = direct_effect_line(effects)
    whole = line.union(-0.3, 0.5)
    every = line.to_frame(np.linspace(-0.3, 0.5, 50)).groupby("mediator", sort=False)
    np.testing.assert_allclose(whole["lower"], every["lower"].min(), atol=1e-12)
    np.testing.assert_allclose(whole["upper"], every["upper"].max(), atol=1e-12)
    with pytest.raises(DataError, match="empty"):
        line.union(1.0, 0.0)


def test_a_prior_adds_what_draws_from_it_add(effects):
    line = direct_effect_line(effects, level=0.9)
    none = line.under_prior(sd=0.0)
    frame = line.to_frame([0.0])
    np.testing.assert_allclose(none["lower"], frame["lower"], rtol=1e-12)
    draws = np.random.default_rng(0).normal(0.2, 0.3, 4000)
    spread = np.std([line.at(k) for k in draws], axis=0)
    wide = line.under_prior(mean=0.2, sd=0.3)
    np.testing.assert_allclose(wide["std_error"] ** 2, line.std_errors(0.2) ** 2 + spread**2, rtol=0.06)
    k = len(effects.sites)
    sites = np.random.default_rng(1).normal(0.0, 0.3, (4000, k))
    spread = np.std([line.at(row) for row in sites], axis=0)
    wide = line.under_prior(sd=0.0, site_sd=0.3)
    np.testing.assert_allclose(wide["std_error"] ** 2, line.std_errors(0.0) ** 2 + spread**2, rtol=0.06)
    with pytest.raises(DataError, match="negative"):
        line.under_prior(sd=-1.0)


@pytest.mark.parametrize(("violation", "options"), [("ii", {}), ("ii", {"mediators": 2}), ("vii.a", {})])
def test_the_right_offset_undoes_the_violation(violation, options):
    """Simulated: a direct effect, or a covariance inside sites, of 0.3; what is left is the chance of the sites."""
    trial = simulate(
        violation, strength=0.3, sites=60, people=2500, seed=6, effect_sd=0.0, covariates=1, **options
    )
    line = direct_effect_line(trial.effects)
    assert abs(line.at(0.0)[0] - trial.truth.mediator_effects[0]) > 0.1
    np.testing.assert_allclose(line.at(0.3), trial.truth.mediator_effects, atol=0.04)
    np.testing.assert_allclose(trial.truth.bias, 0.3 * line.slope, atol=0.02)


def test_the_unit_is_the_spread_inside_arms():
    frame = simulate(sites=6, people=50, covariates=0).frame
    design = mm.Design(outcome="y", treatment="t", mediators="m1", site="site")
    away = frame["y"] - frame.groupby(["site", "t"])["y"].transform("mean")
    spread = outcome_spread(mm.Moments.from_data(frame, design))
    assert spread == pytest.approx(np.sqrt((away**2).sum() / (len(frame) - 12)), rel=1e-12)
    weighted = mm.Moments.from_data(frame.assign(w=3.0), replace(design, weights="w", weight_kind="analytic"))
    assert outcome_spread(weighted) == pytest.approx(spread, rel=1e-12)
    effects = simulate(sites=20).effects
    line = direct_effect_line(effects, outcome_sd=2.0)
    np.testing.assert_allclose(line.robustness, np.abs(line.flip) / 2.0)
    assert "standard deviations of the outcome" in line.sentence


# ---------------------------------------------------------------- published tables and poor data


def table(itt, g, se=0.1):
    frame = pd.DataFrame({"s": range(len(g)), "b": itt, "g": g, "sb": se, "sg": se, "c": 0.0})
    return mm.SiteEffects.from_table(
        frame, site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg", cov="c"
    )


def test_a_published_table_is_enough():
    line = direct_effect_line(table([0.5, 1.1, 1.4, 2.2], [0.4, 1.0, 1.5, 2.0]))
    assert line.status is None
    assert np.isfinite([line.flip[0], line.robustness[0], line.free_direct]).all()


def test_two_sites():
    line = direct_effect_line(table([0.5, 1.1], [0.4, 1.0]))
    assert np.isfinite(line.flip[0])
    assert np.isnan(line.free_se)
    two = simulate(sites=2, mediators=2, people=400).effects
    line = direct_effect_line(two)
    assert np.isnan(line.touch).all()
    assert line.status or "too few sites" in line.sentence
    with pytest.raises(TooFewSitesError, match="viii"):
        direct_effect_line(simulate(sites=1, mediators=2).effects)


def test_compliance_that_is_noise_has_a_status_and_no_figures():
    noise = table([0.1, -0.1, 0.2], [0.01, -0.02, 0.01])
    for found in (direct_effect_line(noise), within_site_covariance(noise), omitted_mediator(noise)):
        assert found.status is not None
        assert found.status in found.sentence
        assert isinstance(found.evidence().test, NotApplicable)
        assert found.evidence().role == "context"
    assert np.isnan(direct_effect_line(noise).flip).all()
    assert np.isnan(direct_effect_line(noise).touch).all()


@pytest.mark.parametrize("bad", ["a", "2.0", "", [1.0, 2.0], True, np.nan, np.inf, 0.0, -1.0, {}])
def test_units_and_deviations_that_are_none_are_refused(bad):
    effects = table([0.5, 1.1, 1.4], [0.4, 1.0, 1.5])
    with pytest.raises(DataError, match=r"outcome_sd=.* must be a positive number"):
        direct_effect_line(effects, outcome_sd=bad)
    for name in ("compliance_sd", "effect_sd"):
        with pytest.raises(DataError, match=f"{name}=.* needs one positive number"):
            within_site_covariance(effects, **{name: bad})


@pytest.mark.parametrize("bad", ["a", "0.5", None, True, np.nan, np.inf, [[0.5]]])
def test_direct_effects_that_are_no_numbers_are_refused(bad):
    line = direct_effect_line(table([0.5, 1.1, 1.4], [0.4, 1.0, 1.5]))
    for name, ask in (
        ("kappa", line.at), ("kappa", line.std_errors), ("kappas", lambda x: line.to_frame([0.0, x])),
        ("low", lambda x: line.union(x, 1.0)), ("high", lambda x: line.union(0.0, x)),
        ("mean", lambda x: line.under_prior(mean=x, sd=1.0)), ("sd", lambda x: line.under_prior(sd=x)),
        ("site_sd", lambda x: line.under_prior(sd=1.0, site_sd=x)),
    ):  # fmt: skip
        with pytest.raises(DataError, match=f"^{name}"):
            ask(bad)


@pytest.mark.parametrize("bad", ["a", "0.95", None, True, np.nan, 0.0, 1.0, [0.95]])
def test_levels_and_correlations_that_are_none_are_refused(bad):
    effects = table([0.5, 1.1, 1.4], [0.4, 1.0, 1.5])
    for ask in (direct_effect_line, within_site_covariance):
        with pytest.raises(DataError, match=r"level=.* must lie between 0 and 1"):
            ask(effects, level=bad)
    if bad != 1.0 or bad is True:
        with pytest.raises(DataError, match="correlation="):
            within_site_covariance(effects).product(bad)
    for ask in (direct_effect_line, within_site_covariance, omitted_mediator):
        with pytest.raises(ChoiceError, match=r"estimator=.* is not one of 'ujive' and '2sls'"):
            ask(effects, estimator=bad)


@pytest.mark.parametrize("ask", [
    direct_effect_line, within_site_covariance, omitted_mediator, mm.compliance_effect_correlation,
    lambda x: mm.surface_test(x, "origin"),
])  # fmt: skip
def test_what_is_no_site_effects_is_refused(ask):
    for bad in (None, "a", 1.0, pd.DataFrame(), mm.data.star()):
        with pytest.raises(ChoiceError, match=f"SiteEffects are needed, not {type(bad).__name__}"):
            ask(bad)


def test_bad_arguments():
    effects = table([0.5, 1.1, 1.4], [0.4, 1.0, 1.5])
    with pytest.raises(ChoiceError, match="estimator"):
        direct_effect_line(effects, estimator="liml")
    with pytest.raises(DataError, match="outcome_sd"):
        direct_effect_line(effects, outcome_sd=0.0)
    with pytest.raises(DataError, match="level"):
        direct_effect_line(effects, level=95)
    with pytest.raises(DataError, match="one per site"):
        direct_effect_line(effects).at([1.0, 2.0])
    with pytest.raises(DataError, match="compliance_sd"):
        within_site_covariance(effects, compliance_sd=-1.0)
    with pytest.raises(DataError, match="correlation"):
        within_site_covariance(effects).product(0.0)
    lost = effects.cov.copy()
    lost[0] = np.nan
    with pytest.raises(MomentsInsufficient):
        direct_effect_line(replace(effects, cov=lost))


# ---------------------------------------------------------------- inside sites


def test_within_sites_the_figures_are_those_of_the_line(effects):
    line, found = (
        direct_effect_line(effects),
        within_site_covariance(effects, compliance_sd=0.5, effect_sd=0.4),
    )
    np.testing.assert_allclose(found.needed, line.flip)
    np.testing.assert_allclose(found.correlation, line.flip / 0.2)
    np.testing.assert_allclose(found.product(0.3) * 0.3, np.abs(line.flip))
    assert list(found.to_frame()["mediator"]) == list(effects.mediators)
    told = found.evidence()
    assert told.check == "sensitivity.within_site_covariance"
    assert told.reading == found.sentence
    assert "product" in within_site_covariance(effects).sentence


# ---------------------------------------------------------------- a mediator left out


def test_leaving_out_a_mediator_is_the_fit_without_it(effects):
    if len(effects.mediators) == 1:
        found = omitted_mediator(effects)
        assert "one mediator" in found.status
        assert found.to_frame().empty
        return
    found = omitted_mediator(effects).to_frame()
    for name in effects.mediators:
        rest = [m for m in effects.mediators if m != name]
        part = found[found["omitted"] == name].set_index("mediator").loc[rest]
        np.testing.assert_allclose(part["without"], corrected_iv(effects.only(rest)).coefficients, rtol=1e-10)
        np.testing.assert_allclose(part["estimate"] + part["change"], part["without"], rtol=1e-12)


def test_an_unseen_mediator_does_what_the_formula_says():
    trial = simulate(mediators=2, sites=80, people=2000, seed=3, effect_sd=0.0, effects=[0.5, 0.4])
    found = omitted_mediator(trial.effects)
    g, w = trial.truth.compliances[:, 0], trial.truth.weights[:, 0, 0]
    bias = 0.4 * (w * g[:, 0] * g[:, 1]).sum() / (w * g[:, 0] ** 2).sum()
    assert found.change[1, 0] == pytest.approx(bias, abs=0.02)
    assert found.needed[1, 0] * found.slopes[1, 0] == pytest.approx(found.estimate[0], rel=1e-12)
    assert "m2" in found.sentence
