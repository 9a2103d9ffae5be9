"""The report on assumption (viii): what it says, about which trials, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.strength import SITE_REASON
from msmmiv.errors import DataError, MomentsInsufficient, TooFewSitesError
from tests.diagnose.trials import Kind, rows_of, simple, simple_study, study_of

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def star_two() -> mm.RankReport:
    return mm.rank(mm.data.star("math_two_mediators"))


def test_star_second_mediator_is_not_separately_identified(star_two):
    assert star_two.sentences[0].startswith(
        "The effect of tch_exp is not separately identified: beyond what goes with class_size, the treatment moves "
        "tch_exp no more than noise"
    )
    assert "1 of 2 directions stands out of the noise" in star_two.sentences[0]
    assert "class_size and tch_exp do not vary inside class_id" in star_two.sentences[1]
    assert "no more than noise at the level of class_id" in star_two.sentences[1]
    assert star_two.cragg_donald == pytest.approx(23.7796, abs=6e-5)
    assert star_two.cluster_level < 1
    assert star_two.spectrum.strength[0] > 30
    assert star_two.spectrum.strength[1] < star_two.spectrum.floor_95[1]


def test_star_class_size_alone_is_strong_at_class_level():
    report = mm.rank(mm.data.star())
    assert report.sentences[0].startswith("The treatment moves class_size beyond noise")
    assert "strong at the level of class_id" in report.sentences[1]
    assert report.cragg_donald == pytest.approx(1082.126, abs=6e-3)
    assert report.cluster_level == pytest.approx(31.63, abs=0.01)
    row = report.strength.iloc[0]
    assert row["f"] == pytest.approx(1082.126, abs=6e-3)
    assert row["clusters_f"] == pytest.approx(31.63, abs=0.01)
    assert 30 < row["effective_f"] < 100


def test_there_is_no_effective_f_beside_a_mediator_that_is_not_moved(star_two):
    rows = star_two.strength.set_index("mediator")
    assert np.isnan(rows.loc["class_size", "effective_f"])
    assert rows.loc["class_size", "note"].startswith("the other mediators are not moved beyond noise")
    assert rows.loc["tch_exp", "effective_f"] < 1
    assert rows.loc["tch_exp", "note"] == ""
    assert "against noise: the other mediators are not moved" in str(star_two)


def test_first_stage_f_clustered_by_site_never_is_a_number(star_two):
    site = [t for t in star_two.tests if t.covariance == "site"]
    assert len(site) == 1
    assert isinstance(site[0].test, mm.NotApplicable)
    assert site[0].test.reason == SITE_REASON
    assert np.isnan(site[0].printed)
    assert "scores summed over a site are exactly zero" in str(star_two)


def test_proportional_compliances_pass_a_and_fail_c():
    report = simple_study(simple(30, 60, proportional=True)).rank()
    assert (report.variation["p_value"] < 0.01).all()  # (viii.a)
    assert report.spectrum.pvalues[-1] > 0.05  # (viii.c)
    assert report.spectrum.found == 1
    assert report.sentences[0].startswith("The sites cannot tell m1 from m0")
    assert any(
        "That is not enough: they do not vary in different ways (viii.c)" in s for s in report.sentences
    )
    assert any("go together" in s for s in report.sentences)
    apart = simple_study(simple(30, 60)).rank()
    assert apart.spectrum.found == 2
    assert apart.sentences[0].startswith("The sites tell m0 and m1 apart")


def test_one_constant_compliance_is_enough_without_and_not_with_a_direct_effect():
    rows = simple(30, 80, seed=3)
    rows["m1"] = np.random.default_rng(0).normal(size=len(rows)) + 1.0 * rows["t"]
    study = simple_study(rows)
    assert study.rank().spectrum.found == 2
    freed = study.rank(direct_effect=True)
    assert freed.n_instruments == 29
    assert freed.spectrum.found == 1
    assert "The effect of m1 is not separately identified" in freed.sentences[0]
    assert "or a direct effect" in freed.sentences[0]
    assert any("for every mediator; it is not shown to for m1" in s for s in freed.sentences)
    alone = simple_study(rows.drop(columns="m0")).rank(direct_effect=True)
    assert "cannot be told from a direct effect" in alone.sentences[0]
    moved = simple_study(rows.drop(columns="m0")).rank()
    assert moved.sentences[0].startswith("The treatment moves m1 beyond noise")


def test_a_mediator_that_is_not_moved_at_all():
    rows = simple(20, 40, 1)
    rows["m0"] = np.random.default_rng(5).normal(size=len(rows))
    assert "does not move m0 beyond noise" in simple_study(rows).rank().sentences[0]
    rows["m1"] = np.random.default_rng(6).normal(size=len(rows))
    said = simple_study(rows).rank().sentences[0]
    assert said.startswith("No combination of mediators stands out of the noise")
    assert "none of the effects of m0 and m1" in said


def test_more_mediators_than_sites_and_as_many():
    with pytest.raises(TooFewSitesError, match="2 usable sites cannot identify 3 mediators"):
        simple_study(simple(2, 40, 3)).rank()
    with pytest.raises(TooFewSitesError, match="and a direct effect"):
        simple_study(simple(2, 40, 2)).rank(direct_effect=True)
    same = simple_study(simple(3, 200, 3)).rank()
    assert {t.test.df for t in same.tests if isinstance(t.test, mm.TestStatistic) and t.test.df} == {1}
    assert np.isfinite(same.spectrum.pvalues).all()


def test_a_mediator_without_variation_is_an_error_and_collinear_ones_are_a_status():
    rows = simple(6, 40)
    with pytest.raises(DataError, match="'m1' is constant: it has one value"):
        simple_study(rows.assign(m1=3.0)).rank()
    with pytest.raises(DataError, match="constant within every site"):
        simple_study(rows.assign(m1=rows["site"] * 1.0)).rank()
    same = simple_study(rows.assign(m1=2 * rows["m0"])).rank()
    assert same.spectrum is None
    assert same.to_frame().empty
    assert "m1 is a linear combination of the other mediators" in same.sentences[0]
    assert "assumption (viii) fails" in same.sentences[0]
    assert isinstance(same.cragg_donald, mm.NotApplicable)
    assert all(isinstance(t.test, mm.NotApplicable) for t in same.tests)
    assert "not applicable" in str(same)


def test_a_dose_that_the_design_sets_has_no_noise():
    rows = simple(6, 40)
    report = simple_study(rows.assign(m1=rows["t"] * (1.0 + rows["site"]))).rank()
    assert report.spectrum is None
    assert report.sentences[0] == (
        "Strength cannot be set against noise: m1 does not vary inside site-by-arm cells."
    )
    reason = report.variation.set_index("mediator")["reason"]
    assert reason["m0"] == ""
    assert reason["m1"] == "its compliance is exact in 6 sites: it does not vary inside the arms there"
    assert "not vary inside" in str(report)


def test_a_mediator_that_is_the_treatment_is_one_with_a_direct_effect():
    rows = simple(6, 40)
    study = simple_study(rows.assign(m1=1.0 * rows["t"]))
    assert "does not vary inside site-by-arm cells" in study.rank().sentences[0]
    freed = study.rank(direct_effect=True)
    assert freed.spectrum is None
    assert (
        "compliance with m1 is the same in every site, so that its effect is one with a direct effect"
        in (freed.sentences[0])
    )
    assert "assumption (viii) fails" in str(freed)


def test_mediators_may_be_called_anything():
    rows = simple(6, 40).rename(columns={"site": "s", "m0": "m leverage", "m1": "m weakest"})
    names = ["site", "leverage"]
    rows = rows.rename(columns={"m leverage": "leverage", "m weakest": "site"})
    design = mm.Design(outcome="y", treatment="t", mediators=names, site="s")
    report = mm.Study(rows, design).rank(draws=19)
    assert list(report.leverage.columns) == ["site", "leverage", "weakest", "of site", "of leverage"]
    assert sorted(report.leverage["site"]) == [0, 1, 2, 3, 4, 5]


def test_a_thousand_sites_of_four_people():
    report = simple_study(simple(1000, 4)).rank(draws=199)
    assert report.spectrum.found == 2
    few = next(s for s in report.sentences if s.startswith("A typical site's variance"))
    assert "few degrees of freedom" in few
    # Each variance rests on two people an arm: no F by site, and Q sees nothing where the added-up noise does.
    assert report.strength["site_f"].isna().all()
    assert (report.variation["p_value"] > 0.05).all()
    assert (report.variation["noise_p_value"] < 0.05).all()
    proportional = simple_study(simple(1000, 4, proportional=True)).rank(draws=199)
    assert proportional.spectrum.found == 1


def test_two_sites():
    report = simple_study(simple(2, 40, 1)).rank()
    assert report.n_instruments == 2
    assert "compliance across sites" in str(report)
    assert simple_study(simple(2, 40, 1)).rank(direct_effect=True).n_instruments == 1


def test_sites_without_controls_are_left_out():
    rows = simple(8, 40)
    rows.loc[rows["site"] == 3, "t"] = 1
    report = simple_study(rows).rank()
    assert report.n_sites == 7
    assert 3 not in report.compliances.sites


def test_from_site_effects_alone_the_noise_side_is_the_same():
    study = simple_study(simple(12, 40))
    effects = mm.SiteEffects.from_moments(study.moments, cov_type="unbiased")
    full, part = study.rank(), mm.rank(effects)
    np.testing.assert_allclose(part.spectrum.strength, full.spectrum.strength, rtol=1e-9)
    np.testing.assert_allclose(part.spectrum.pvalues, full.spectrum.pvalues)
    np.testing.assert_allclose(part.strength["effective_f"], full.strength["effective_f"], rtol=1e-9)
    np.testing.assert_allclose(part.strength["site_f"], full.strength["site_f"], rtol=0.05)
    pd.testing.assert_frame_equal(part.correlation, full.correlation, rtol=1e-9)
    assert "give moments or data" in part.cragg_donald.reason
    assert part.strength["conditional_f"].isna().all()
    freed = mm.rank(effects, direct_effect=True)
    np.testing.assert_allclose(
        freed.spectrum.strength, study.rank(direct_effect=True).spectrum.strength, rtol=1e-9
    )
    with pytest.raises(TooFewSitesError, match="1 usable site cannot identify 2 mediators"):
        mm.rank(mm.SiteEffects.from_moments(study.moments.drop(*range(1, 11)).drop(11), cov_type="unbiased"))


def test_site_effects_without_covariances_are_refused():
    rows = simple(6, 20)
    rows["class"] = rows["site"] * 2 + rows["t"]
    study = simple_study(rows, cluster="class")
    effects = mm.SiteEffects.from_moments(study.moments, cov_type="CR2")
    with pytest.raises(MomentsInsufficient, match="cov_type='unbiased'"):
        mm.rank(effects)


def test_covariates_need_the_rows_for_robust_tests_and_only_for_those():
    kind = Kind(covariates=1)
    study, _, _ = study_of(kind, rows_of(kind))
    with_rows = {t.covariance for t in study.rank(draws=19).tests if isinstance(t.test, mm.TestStatistic)}
    without = mm.rank(study.moments, draws=19)
    alone = {t.covariance for t in without.tests if isinstance(t.test, mm.TestStatistic)}
    assert with_rows - alone == {"robust"}
    robust = next(t for t in without.tests if t.covariance == "robust")
    assert "needs the rows" in robust.test.reason


def test_a_dose_with_clusters_has_classical_tests_and_says_why_no_noise():
    kind = Kind()
    rows = rows_of(kind)
    rows["t"] = np.random.default_rng(0).normal(size=len(rows))
    design = mm.Design(
        outcome="y", treatment="t", mediators=kind.names, site="site", cluster="class", treatment_kind="continuous"
    )  # fmt: skip
    report = mm.Study(rows, design).rank()
    assert isinstance(report.cragg_donald, float)
    assert report.spectrum is None
    assert "not a function of the moments" in report.why_no_spectrum
    assert report.variation["q"].isna().all()
    assert "Strength cannot be set against noise" in str(report)
    names = {t.test.name for t in report.tests if isinstance(t.test, mm.TestStatistic)}
    assert {"Anderson LM", "Cragg-Donald", "Kleibergen-Paap rk LM"} <= names


def test_units_and_order_of_mediators_do_not_matter():
    rows = simple(12, 40)
    first = simple_study(rows).rank()
    changed = rows.assign(m0=rows["m0"] * 1e6 + 5, m1=rows["m1"] * 1e-3, y=rows["y"] + 1e8)
    second = simple_study(changed[["site", "t", "m1", "m0", "y"]]).rank()
    np.testing.assert_allclose(first.spectrum.strength, second.spectrum.strength, rtol=1e-6)
    np.testing.assert_allclose(first.cragg_donald, second.cragg_donald, rtol=1e-6)
    one, two = (r.strength.set_index("mediator").loc[["m0", "m1"], "effective_f"] for r in (first, second))
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_frames_hold_what_the_page_says(star_two):
    frame = star_two.to_frame()
    assert list(frame.columns) == [
        "direction", "strength", "floor", "floor_95", "p_value", "noise_share", "bias_share", "of class_size",
        "of tch_exp",
    ]  # fmt: skip
    assert frame["noise_share"].tolist() == [1 / frame["strength"][0], 1.0]
    # Treatment explains most of class size, so that least squares is far less biased than noise.
    assert 0.15 < frame["bias_share"][0] < 0.35
    assert frame["bias_share"][1] == 1.0
    tests = star_two.tests_frame()
    assert list(tests.columns) == [
        "test", "covariance", "statistic", "printed", "df", "p_value", "law", "reason",
    ]  # fmt: skip
    assert ((tests["reason"] == "") == tests["statistic"].notna()).all()
    assert tests.set_index(["test", "covariance"]).loc[
        ("Cragg-Donald", "classical"), "printed"
    ] == pytest.approx(23.7796, abs=6e-5)


def test_the_share_of_bias_is_that_of_least_squares():
    # y is the error alone: what 2SLS and least squares find is bias. Four people in each of 400 sites.
    rng, two, ols, said = np.random.default_rng(3), [], [], []
    for _ in range(12):
        site, t = np.repeat(np.arange(400), 4), np.tile([0, 1, 0, 1], 400)
        u = rng.normal(size=1600)
        study = simple_study(pd.DataFrame({"site": site, "t": t, "m0": 2.0 * t + u, "y": u}))
        two.append(study.fit("2sls").params["m0"])
        ols.append(study.fit("ols").params["m0"])
        said.append(mm.rank(study.moments, draws=19).spectrum.bias_share[0])
    assert np.mean(said) == pytest.approx(np.mean(two) / np.mean(ols), rel=0.06)
    assert np.mean(said) > 0.4  # one over the strength would be 0.2


@pytest.mark.parametrize("mediator", ["flat", "twice", "treatment"])
def test_degenerate_mediators_with_probability_weights(mediator):
    rows = simple(6, 40).assign(w=np.random.default_rng(0).uniform(0.5, 2.0, 240))
    rows["m1"] = {
        "flat": rows["t"] * (1.0 + rows["site"]),
        "twice": 2 * rows["m0"],
        "treatment": 1.0 * rows["t"],
    }[mediator]
    study = simple_study(rows, weights="w", weight_kind="probability")
    report = study.rank(direct_effect=mediator == "treatment")
    assert report.spectrum is None
    assert all(isinstance(t.test, mm.NotApplicable) for t in report.tests)


def test_four_to_one_names_both_and_rank_one_of_three_names_all():
    rows = simple(30, 60, 1)
    rng = np.random.default_rng(1)
    rows["m1"] = 0.0
    for s, part in rows.groupby("site"):
        g = 1.0 + 0.1 * s
        rows.loc[part.index, "m0"] = 4 * g * part["t"] + rng.normal(size=len(part))
        rows.loc[part.index, "m1"] = g * part["t"] + rng.normal(size=len(part))
        rows.loc[part.index, "m2"] = 1.5 * g * part["t"] + rng.normal(size=len(part))
    assert "cannot tell m1 from m0" in simple_study(rows.drop(columns="m2")).rank().sentences[0]
    said = simple_study(rows).rank().sentences[0]
    assert said.startswith("Only 1 of 3 combinations of mediators stands out of the noise")
    assert all(name in said for name in ("m0", "m1", "m2"))


def test_p_values_are_sequential_so_that_words_and_count_agree():
    for seed in (146, 204, 273):
        report = simple_study(simple(12, 40, 3, seed=seed)).rank(draws=99)
        assert (np.diff(report.spectrum.pvalues) >= 0).all()
        apart = report.sentences[0].startswith("The sites tell")
        assert apart == (report.spectrum.found == 3)


def test_people_of_a_class_are_counted_once_though_mediators_vary_inside():
    rng = np.random.default_rng(0)
    room = np.repeat(np.arange(80), 10)
    rows = pd.DataFrame({"site": room // 8, "t": room % 2, "room": room})
    rows["m0"] = 0.3 * rows["t"] + rng.normal(size=80)[room] + 0.1 * rng.normal(size=800)
    rows["y"] = rng.normal(size=800)
    report = simple_study(rows, cluster="room").rank()
    assert report.constant_in_clusters == ()
    assert any(s.startswith("People of one room are alike") for s in report.sentences)
    lone = simple_study(simple(8, 20).assign(person=np.arange(160)), cluster="person").rank()
    assert not any("overstates" in s for s in lone.sentences)


def test_thresholds_say_where_they_do_not_exist(star_two):
    table = star_two.thresholds
    stock = table[table["statistic"].str.startswith("Cragg-Donald")].iloc[0]
    assert np.isnan(stock["critical"])
    assert "declares clusters" in stock["reason"]
    assert table["critical"].notna().sum() == 4  # Lewis-Mertens at four limits
    plain = simple_study(simple(12, 40, 1)).rank().thresholds
    values = plain.set_index(["statistic", "criterion"])["critical"]
    # 12 instruments, one mediator, as tabulated by Stock and Yogo.
    assert values["Cragg-Donald F (Stock-Yogo, homoskedastic errors only)", "bias 10%"] == pytest.approx(
        11.52
    )
    assert 13.46 < values["Effective F (Montiel Olea-Pflueger)", "bias 10%"] < 20


def test_draws_and_seeds():
    study = simple_study(simple(8, 40))
    with pytest.raises(DataError, match="draws=10"):
        study.rank(draws=10)
    assert study.rank(seed=1).spectrum.seed == 1
    same = [study.rank(seed=3, draws=99).spectrum.floor for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (study.rank(seed=4, draws=99).spectrum.floor != same[0]).any()
