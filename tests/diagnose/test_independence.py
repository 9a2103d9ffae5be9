"""Moderation tests, adjusted effects, and what is collected on assumption (ix)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.independence import independence
from msmmiv.diagnose.moderation import Signal, least_sites, moderated, moderation_test
from msmmiv.diagnose.moderation_reach import moderation_reach, reach_words
from msmmiv.diagnose.site_covariates import _holm, site_covariates
from msmmiv.diagnose.site_table import DOSE, SHARE, site_table
from msmmiv.errors import ChoiceError, ColumnError, DataError
from msmmiv.estimate.between.added_terms import Term, added_terms
from msmmiv.estimate.corrected import corrected_iv
from msmmiv.estimate.site_moments import noise_effects, site_rows
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.linalg import frozen
from tests.diagnose.trials import Kind, rows_of, simple, simple_study

CHECKS = [
    "independence.compliance_on_covariates",
    "independence.site_covariates",
    "independence.site_size",
    "independence.weights_and_effects",
    "independence.overidentification",
    "influence.leave_one_site_out",
]


def effects_of(mediators: int = 2, sites: int = 20, *, arms: int = 2, seed: int = 1) -> mm.SiteEffects:
    kind = Kind(mediators=mediators, sites=sites, arms=arms, people=40 * arms)
    design = replace(kind.design, cluster=None)
    return mm.SiteEffects.from_moments(
        mm.Moments.from_data(rows_of(kind, seed, moved=1.5), design), cov_type="unbiased"
    )


def exact(g: np.ndarray, effect: np.ndarray, weight: np.ndarray | None = None) -> mm.SiteEffects:
    """Site effects without sampling error."""
    k, p = g.shape
    values = np.column_stack([(effect * g).sum(axis=1), g])
    w = np.ones(k) if weight is None else weight
    return mm.SiteEffects(
        tuple(range(k)), ("",), tuple(f"m{j}" for j in range(p)), "y", frozen(values[:, None]),
        frozen(np.zeros((k, 1, 1 + p, 1, 1 + p))), frozen(w[:, None, None]), frozen(4.0 * w), "published",
        frozen(np.full(k, np.inf)),
    )  # fmt: skip


def test_fn(signal: Signal, x: np.ndarray, **options: int) -> TestStatistic | NotApplicable:
    return moderation_test(signal, x, name="x", null="no x", **options)


test_fn.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("mediators", [1, 2, 3])
def test_statistic_and_slopes_are_those_of_the_added_terms(mediators):
    effects = effects_of(mediators)
    rows, k = site_rows(effects), 20
    x = np.random.default_rng(2).normal(3.0, 2.0, k)
    away = x - x.mean()
    columns = range(1, 1 + mediators)
    base = [Term(f"{j}", (j,)) for j in columns]
    added = [Term(f"x{j}", (j,), away) for j in columns]
    w = rows.precision
    free = [*base, Term("direct effect")]
    found = added_terms(rows.values, rows.cov, base=free, added=added, weights=w / (w + w.mean()))
    share = float(found.statistic) * found.df / found.df_denom
    test = test_fn(Signal.of(effects, "tempered"), x, draws=19)
    np.testing.assert_allclose(test.stat, k * share / (1.0 + share), rtol=1e-10)

    twosls = added_terms(rows.values, rows.cov, base=base, added=added, weights=w)
    adjusted = moderated(effects, x)
    np.testing.assert_allclose(adjusted.slope, twosls.coefficients, rtol=1e-9)
    plain = corrected_iv(effects)
    np.testing.assert_allclose(adjusted.unadjusted, plain.coefficients, rtol=1e-12)
    assert adjusted.status is None
    np.testing.assert_allclose(adjusted.gap, adjusted.effect - adjusted.unadjusted, rtol=1e-12)


def test_arms_and_missing_arms_by_brute_force():
    effects = effects_of(2, 14, arms=3)
    estimates = effects.estimates.copy()
    estimates[3, 1] = np.nan
    estimates[5] = np.nan
    effects = replace(effects, estimates=frozen(estimates))
    signal = Signal.of(effects, "2sls")
    assert 5 not in signal.sites
    assert len(signal.sites) == 13
    for i, s in enumerate(signal.sites):
        arms = [0] if s == 3 else [0, 1]
        own = np.zeros((4, 4))
        for d in arms:
            for e in arms:
                product = np.outer([*estimates[s, d], 1.0], [*estimates[s, e], 1.0])
                product[:3, :3] -= effects.cov[s, d, :, e, :]
                own += effects.precision[s, d, e] * (product + product.T) / 2.0
        np.testing.assert_allclose(signal.products[i] * signal.weight.mean(), own, rtol=1e-10)
    assert moderated(effects, np.arange(13.0)).status is None


def test_effects_that_are_linear_in_x_are_found_exactly():
    rng = np.random.default_rng(3)
    g, x = rng.normal(1.0, 0.5, (15, 2)), rng.normal(5.0, 2.0, 15)
    effect = np.array([0.5, -0.3]) + np.outer(x - x.mean(), [0.2, 0.1])
    found = moderated(exact(g, effect), x)
    np.testing.assert_allclose(found.effect, [0.5, -0.3], atol=1e-12)
    np.testing.assert_allclose(found.slope, [0.2, 0.1], atol=1e-12)


def test_nothing_depends_on_units_or_order():
    effects = effects_of(2)
    x = np.random.default_rng(4).normal(size=20)
    signal = Signal.of(effects, "tempered")
    first = test_fn(signal, x, draws=99, seed=3)
    scale = np.array([1e6, 1e-4, 3.0])
    other = replace(
        effects,
        estimates=frozen(effects.estimates * scale),
        cov=frozen(effects.cov * scale[:, None, None] * scale),
    )
    second = test_fn(Signal.of(other, "tempered"), 1e5 + 7.0 * x, draws=99, seed=3)
    np.testing.assert_allclose(second.stat, first.stat, rtol=1e-6)
    assert second.pvalue == first.pvalue
    assert test_fn(signal, x, draws=99, seed=3) == first


def test_a_violation_is_seen_and_its_size_told():
    rng = np.random.default_rng(5)
    x = rng.normal(size=60)
    g = (1.0 + 0.3 * x + 0.3 * rng.normal(size=60))[:, None]
    effects = exact(g, (0.5 + 0.4 * (x - x.mean()) + 0.2 * rng.normal(size=60))[:, None])
    noise = np.broadcast_to(0.01 * np.eye(2), (60, 2, 2))[:, None, :, None, :]
    effects = replace(effects, cov=frozen(noise))
    found = site_covariates(effects, covariates=pd.DataFrame({"x": x, "z": rng.normal(size=60)}))
    evidence = {e.check: e for e in found.evidence()}
    assert evidence["independence.site_covariates"].test.pvalue < 0.02
    assert "P-values of 'x'" in evidence["independence.site_covariates"].reading
    assert "80% power" in evidence["independence.site_covariates"].detectable
    by = found.to_frame().set_index("covariate")
    assert by.loc["x", "p_both"] == pytest.approx(2 * found.findings[0].both)
    assert by.loc["z", "p_both"] > 0.05
    assert abs(by.loc["x", "slope"] - 0.4) < 0.15
    assert abs(by.loc["x", "effect"] - 0.5) < 3 * by.loc["x", "effect_se"]


def test_a_direct_effect_is_not_taken_for_effects_that_go_with_a_covariate_of_compliance():
    rng = np.random.default_rng(11)
    x = rng.normal(size=60)
    g = (2.0 + 0.4 * x + 0.2 * rng.normal(size=60))[:, None]
    # itt = 3 + .5 g and some noise: through the origin, effects fall steeply with x.
    effects = exact(g, (3.0 + 0.5 * g + 0.3 * rng.normal(size=(60, 1))) / g)
    noise = np.broadcast_to(1e-4 * np.eye(2), (60, 2, 2))[:, None, :, None, :]
    effects = replace(effects, cov=frozen(noise))
    found = site_covariates(effects, covariates=pd.DataFrame({"x": x})).findings[0]
    assert found.relation.pvalue < 1e-6
    assert found.effects.pvalue > 0.05
    assert found.adjusted.slope[0] < -5.0 * found.adjusted.slope_se[0]


def test_it_takes_both_halves():
    rng = np.random.default_rng(6)
    x = rng.normal(size=60)
    g = (1.0 + 0.5 * rng.normal(size=60))[:, None]
    effects = replace(
        exact(g, (0.5 + 0.5 * x + 0.1 * rng.normal(size=60))[:, None]),
        cov=frozen(np.broadcast_to(0.01 * np.eye(2), (60, 2, 2))[:, None, :, None, :]),
    )
    one = site_covariates(effects, covariates=pd.DataFrame({"x": x})).findings[0]
    assert one.effects.pvalue < 0.01
    assert one.relation.pvalue > 0.05
    assert one.both == one.relation.pvalue


def test_holm():
    assert _holm([0.01, np.nan, 0.04, 0.03])[:1] == (0.03,)
    np.testing.assert_allclose(_holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06])


def test_few_sites_are_not_tested():
    effects = effects_of(1, 11)
    found = site_covariates(effects, covariates=pd.DataFrame({"x": np.arange(11.0)}))
    for e in found.evidence()[1:]:
        assert isinstance(e.test, NotApplicable)
        assert e.role == "evidence"
    assert "too few sites: 11" in found.evidence()[1].test.reason
    assert [least_sites(p) for p in (1, 2, 3)] == [12, 12, 18]


def noisy_trial(
    change: float, seed: int, *, mediators: int = 1, sites: int = 40
) -> tuple[mm.SiteEffects, np.ndarray]:
    """Known covariances; the effect of the first mediator changes with x."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=sites)
    g = 1.0 + 0.5 * rng.normal(size=(sites, mediators))
    effect = 0.5 + 0.3 * rng.normal(size=(sites, mediators))
    effect[:, 0] += change * (x - x.mean()) / x.std()
    truth = np.column_stack([(effect * g).sum(axis=1), g])
    values = truth + 0.3 * rng.normal(size=truth.shape)
    cov = np.broadcast_to(0.09 * np.eye(1 + mediators), (sites, 1 + mediators, 1 + mediators))
    return replace(
        exact(g, effect), estimates=frozen(values[:, None]), cov=frozen(cov[:, None, :, None, :])
    ), x


@pytest.mark.parametrize("mediators", [1, 2])
def test_a_change_of_the_size_that_is_told_is_found_four_times_in_five(mediators):
    plain = [noisy_trial(0.0, seed, mediators=mediators) for seed in range(30)]
    told = [moderation_reach(Signal.of(e, "tempered"), x)[0] for e, x in plain]
    change = float(np.median(told))
    found = [
        test_fn(Signal.of(e, "tempered"), x, draws=199).pvalue <= 0.05
        for e, x in (noisy_trial(change, 100 + seed, mediators=mediators) for seed in range(100))
    ]
    assert 0.68 <= np.mean(found) <= 0.96


def test_what_would_have_been_found_does_not_depend_on_units():
    effects, x = noisy_trial(0.0, 1, mediators=2)
    signal = Signal.of(effects, "tempered")
    found = moderation_reach(signal, x)
    np.testing.assert_allclose(moderation_reach(signal, 5.0 + 3.0 * x), found, rtol=1e-6)
    unit = np.array([10.0, 2.0, 0.5])
    other = replace(
        effects, estimates=frozen(effects.estimates * unit),
        cov=frozen(effects.cov * unit[None, None, :, None, None] * unit),
    )  # fmt: skip
    np.testing.assert_allclose(
        moderation_reach(Signal.of(other, "tempered"), x), found * 10.0 / unit[1:], rtol=1e-6
    )


def test_what_cannot_be_found_is_said():
    effects, x = noisy_trial(0.0, 1)
    noise = replace(effects, cov=frozen(effects.cov * 100.0))
    assert np.isnan(moderation_reach(Signal.of(noise, "tempered"), x)).all()
    assert reach_words(("m",), np.array([np.nan]), "x") == ""
    assert reach_words(("m",), np.array([np.inf]), "x").startswith("No change of effects with x")
    assert "0.5 (a) per" in reach_words(("a", "b"), np.array([0.5, np.inf]), "x")
    one_site = np.zeros(40)
    one_site[3] = 1.0
    assert moderation_reach(Signal.of(effects, "tempered"), one_site)[0] > 1.0


def test_a_dose_has_a_mean_in_each_site():
    rng = np.random.default_rng(1)
    df = pd.DataFrame({"s": np.repeat(range(12), 20), "t": rng.uniform(0, 3, 240), "y": rng.normal(size=240)})
    df["m"] = df["t"] + rng.normal(size=240)
    design = mm.Design(outcome="y", treatment="t", mediators="m", site="s", treatment_kind="continuous")
    moments = mm.Study(df, design).moments
    found = site_table(moments, noise_effects(moments), None)
    assert found.names == (DOSE,)
    np.testing.assert_allclose(found.values[:, 0], df.groupby("s")["t"].mean(), rtol=1e-12)


def test_site_table_from_moments_and_rows():
    kind = Kind(mediators=1, covariates=2, sites=12)
    rows = rows_of(kind)
    moments = mm.Study(rows, kind.design).moments
    effects = noise_effects(moments)
    table = site_table(moments, effects, None)
    assert table.names == ("x0", "x1", SHARE)
    by = rows.groupby("site")
    np.testing.assert_allclose(table.values[:, 0], by["x0"].mean(), rtol=1e-12)
    np.testing.assert_allclose(table.values[:, 2], by["t"].mean(), rtol=1e-12)
    np.testing.assert_allclose(table.log_size, np.log(by.size()), rtol=1e-12)
    bare = site_table(effects, effects, None)
    assert bare.names == ()
    constant = site_table(moments, effects, pd.DataFrame({"c": np.ones(12)}, index=moments.sites))
    assert constant.dropped == ("c: the same in all sites",)


def test_frames_that_do_not_fit_are_named():
    effects = effects_of(1, 12)
    whole = pd.DataFrame({"x": np.arange(12.0)})
    with pytest.raises(DataError, match="lack 2 sites: 0 and 1"):
        site_covariates(effects, covariates=whole.iloc[2:])
    with pytest.raises(DataError, match="repeated sites"):
        site_covariates(effects, covariates=pd.concat([whole, whole]))
    with pytest.raises(DataError, match="missing or infinite"):
        site_covariates(effects, covariates=whole.replace(3.0, np.nan))
    with pytest.raises(ColumnError, match="x"):
        site_covariates(effects, covariates=whole.astype(str))
    with pytest.raises(DataError, match="DataFrame indexed by site"):
        site_covariates(effects, covariates=whole["x"])
    with pytest.raises(ChoiceError, match="Moments or SiteEffects"):
        site_covariates(whole)


@pytest.mark.parametrize("mediators", [1, 2, 3])
def test_everything_is_collected(mediators):
    study = simple_study(simple(20, 40, mediators))
    for source in (study.moments, mm.SiteEffects.from_moments(study.moments, cov_type="unbiased")):
        found = independence(source, draws=49)
        assert [e.check for e in found.evidence()] == CHECKS
        assert list(found.to_frame()["check"]) == CHECKS
        assert [e.role for e in found.evidence()] == ["context", *["evidence"] * 3, "context", "context"]
        assert "does not falsify (ix)" in found.evidence()[4].reading
        # All sites have the same weight here: there is nothing to contrast.
        assert isinstance(found.weights, NotApplicable)
        assert found.left_out.shape == (20, mediators)


def test_a_published_table_without_sizes():
    rng = np.random.default_rng(8)
    table = pd.DataFrame({"s": list("abcdefghijklmn"), "y": rng.normal(size=14), "g": rng.normal(1, 0.5, 14)})
    table = table.assign(sy=rng.uniform(0.1, 0.4, 14), sg=0.1, c=0.0)
    effects = mm.SiteEffects.from_table(
        table, site="s", itt="y", itt_se="sy", compliance="g", compliance_se="sg", cov="c"
    )
    found = independence(effects, draws=99)
    evidence = {e.check: e for e in found.evidence()}
    assert "not known" in evidence["independence.site_size"].test.reason
    assert "no site covariate is known" in evidence["independence.site_covariates"].test.reason
    few = evidence["independence.weights_and_effects"].test
    assert "too few sites: 14; the test is made for 20 or more" in few.reason
    wide = pd.concat([table, table.assign(s=table["s"].str.upper(), y=table["y"] + 0.1)])
    effects = mm.SiteEffects.from_table(
        wide, site="s", itt="y", itt_se="sy", compliance="g", compliance_se="sg", cov="c"
    )
    assert {e.check: e for e in independence(effects, draws=99).evidence()}[
        "independence.weights_and_effects"
    ].applies


def test_leaving_sites_out_is_the_refit():
    effects = effects_of(2, 16)
    found = independence(effects, draws=19)
    assert found.left_out_by == "corrected_iv"
    for i, site in enumerate(effects.sites):
        keep = np.arange(16) != i
        parts = {n: frozen(getattr(effects, n)[keep]) for n in ("estimates", "cov", "precision", "n", "df")}
        again = corrected_iv(replace(effects, sites=tuple(np.array(effects.sites)[keep]), **parts))
        np.testing.assert_allclose(found.left_out.loc[site], again.coefficients, rtol=1e-9)
    moments = simple_study(simple(14, 40, 1)).moments
    fit = mm.fit(moments, "ujive", cov_type="site")
    assert independence(moments, estimate=fit, draws=19).left_out_by == "ujive"


def test_the_matrix_without_noise_is_plain_correlation():
    rng = np.random.default_rng(9)
    g, x = rng.normal(1.0, 0.5, (30, 1)), rng.normal(size=30)
    w = rng.uniform(5, 50, 30)
    effects = exact(g, (0.5 + 0.3 * x)[:, None], w)
    effects = replace(effects, cov=frozen(effects.cov + 1e-20 * np.eye(2)[:, None, :]))
    found = site_covariates(effects, covariates=pd.DataFrame({"x": x}), draws=19)
    from msmmiv.diagnose.independence_matrix import independence_matrix

    frame = independence_matrix(effects, found, spread=np.array([0.3 * x.std()]))
    by = frame.set_index(["row", "column"])["correlation"]
    np.testing.assert_allclose(by["x", "compliance: m0"], np.corrcoef(g[:, 0], x)[0, 1], rtol=1e-8)
    np.testing.assert_allclose(by["x", "effect: m0"], 1.0, rtol=1e-8)
    np.testing.assert_allclose(by["x", "log size"], np.corrcoef(np.log(4 * w), x)[0, 1], rtol=1e-10)
    assert set(frame.columns) == {"row", "column", "correlation", "pvalue", "note"}


def test_compliance_that_is_noise():
    rng = np.random.default_rng(10)
    effects = exact(0.05 * rng.normal(size=(14, 1)), np.full((14, 1), 0.5))
    effects = replace(effects, cov=frozen(np.broadcast_to(np.eye(2), (14, 2, 2))[:, None, :, None, :]))
    found = site_covariates(effects, covariates=pd.DataFrame({"x": rng.normal(size=14)}))
    assert found.findings[0].effects.reason.startswith("compliance varies no more than noise")
    assert found.findings[0].adjusted.status is not None
    assert found.to_frame()["note"].str.contains("noise").all()


def test_where_there_is_no_estimate_the_checks_say_so():
    effects = mm.SiteEffects.from_moments(simple_study(simple(14, 40, 2)).moments, cov_type="unbiased")
    load = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    same = replace(
        effects,
        estimates=frozen(effects.estimates @ load),
        cov=frozen(np.einsum("ia,kdiej,jb->kdaeb", load, effects.cov, load)),
    )
    found = independence(same, draws=19)
    assert [e.check for e in found.evidence()] == CHECKS
    assert not any(e.applies for e in found.evidence()[1:])
    few = independence(effects_of(3, 2), draws=19)
    assert not any(e.applies for e in few.evidence()[1:])
