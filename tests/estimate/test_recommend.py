"""The rule of fit() without arguments, the intervals it chooses, and estimates that have a status instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, DataError
from msmmiv.estimate import fit_by_rule, system_of
from msmmiv.estimate.recommend import (
    ENOUGH,
    ENOUGH_CLUSTERED,
    FEWEST,
    MANY,
    Strength,
    _with_strength,
    recommend,
    strength_of,
)
from tests.estimate.dense import design_of
from tests.estimate.helpers import trial

TABLE = Path(__file__).parents[2] / "docs" / "validation" / "recommended.csv"


def study_of(df: pd.DataFrame) -> mm.Study:
    return mm.Study(df, design_of(df))


def weak(seed: int, *, sites: int = 8, per_site: int = 10, mediators: int = 1) -> pd.DataFrame:
    """Compliance of about nothing: the estimators that remove bias often have no estimate."""
    df, rng = trial(seed, sites=sites, per_site=per_site, mediators=mediators), np.random.default_rng(seed)
    for c in [c for c in df if c.startswith("m")]:
        df[c] = rng.normal(size=len(df)) + 0.1 * df["t"]
    df["y"] = 0.5 * df["m0"] + rng.normal(size=len(df))
    return df


# -- every branch -----------------------------------------------------------------------------------------


def test_too_few_sites_for_a_population_of_sites() -> None:
    chosen = recommend(system_of(study_of(trial(1, sites=3, mediators=2)).moments))
    assert (chosen.estimator, chosen.cov_type, chosen.small_sample, chosen.interval) == (
        "2sls",
        None,
        None,
        "wald",
    )
    assert "3 sites and 2 effects" in chosen.text
    assert "fewer than 2 degrees of freedom" in chosen.text
    with_direct = recommend(system_of(study_of(trial(1, sites=3)).moments, direct_effect=True))
    assert "3 sites and 2 effects" in with_direct.text
    fit = study_of(trial(1, sites=3, mediators=2)).fit()
    assert (fit.method, fit.cov_type, fit.beside) == ("2sls", "HC1", ())


def test_noise_that_cannot_be_estimated() -> None:
    df = trial(2, sites=7).assign(cluster=lambda d: d["site"] * 2 + d["t"])
    study = study_of(df)
    chosen = recommend(system_of(study.moments))
    assert (chosen.estimator, chosen.cov_type, chosen.small_sample, chosen.interval) == (
        "2sls",
        "site",
        "CR3",
        "wald",
    )
    assert chosen.text.startswith(
        "UJIVE is not available: every site-by-arm cell holds a single cluster, so "
    )
    assert "does without. So this is 2SLS with a jackknife over sites; it is biased" in chosen.text
    assert "not validated" in chosen.text
    dose = trial(2, sites=7, clusters=3).assign(t=lambda d: d["t"] + 0.1 * np.sin(np.arange(len(d))))
    fit = mm.Study(dose, design_of(dose, treatment_kind="continuous")).fit()
    assert (fit.method, fit.small_sample) == ("2sls", "CR3")
    assert "continuous treatment with clusters" in fit.rule


@pytest.mark.parametrize(
    ("p", "sites", "clusters", "z", "expected"),
    [
        (1, MANY, 0, 100.0, (None, "score", "from 50 sites on")),
        (1, MANY, 0, 0.5, (None, "score", "from 50 sites on")),
        (1, MANY - 1, 0, ENOUGH + 0.1, ("CR2", "wald", "CR2 with Bell-McCaffrey")),
        (1, MANY - 1, 0, ENOUGH, (None, "score", "instruments are weak")),
        (2, MANY, 0, ENOUGH + 0.1, ("CR3", "wald", "the jackknife over sites")),
        (2, MANY, 0, ENOUGH - 0.1, (None, "score", "instruments are weak")),
        (3, 20, 0, ENOUGH + 1, ("CR3", "wald", "validated for up to two effects")),
        (3, 20, 0, ENOUGH - 1, (None, "score", "validated for up to two effects")),
        (1, 4, 0, ENOUGH + 1, ("CR2", "wald", "holds. It was simulated from 5 sites on; here are 4.")),
        (1, 4, 0, ENOUGH - 1, (None, "score", "the effect. It was simulated from 5 sites on; here are 4.")),
        (1, 20, 3, ENOUGH + 0.1, (None, "score", "instruments are weak")),
        (1, 20, 3, ENOUGH_CLUSTERED + 0.1, ("CR2", "wald", "clusters")),
    ],
)
def test_strength_and_number_of_sites_decide(p, sites, clusters, z, expected) -> None:
    system = system_of(study_of(trial(3, sites=6, mediators=p, clusters=clusters)).moments)
    chosen = _with_strength(system, Strength(4.2, z), sites, p)
    assert (chosen.estimator, chosen.cov_type) == ("ujive", "site")
    assert (chosen.small_sample, chosen.interval) == expected[:2]
    assert expected[2] in chosen.text
    assert chosen.text.startswith(
        f"{sites} sites, smallest effective F 4.2 (each site's own noise), strength {z:.3g}"
    )


def test_what_the_rule_says_about_its_simulations_is_in_the_table() -> None:
    table = pd.read_csv(TABLE)
    table = table[table["replications"] > 0]
    assert table["sites"].min() == FEWEST
    system = system_of(study_of(trial(3, sites=6)).moments)
    few = _with_strength(system, Strength(4.2, ENOUGH), FEWEST, 1)
    assert f"up to {table['coverage'].max():.1%} in simulations" in few.text
    assert "It was simulated" not in few.text


@pytest.mark.parametrize("case", [{"sites": 12, "per_site": 60}, {"sites": 12, "per_site": 60, "mediators": 2},
                                  {"sites": 12, "per_site": 8}, {"sites": 55, "per_site": 12}])  # fmt: skip
@pytest.mark.parametrize("direct", [False, True])
def test_the_rules_fit_is_the_fit_it_names(case, direct) -> None:
    study = study_of(trial(4, **case))
    chosen = recommend(system_of(study.moments, direct_effect=direct))
    fit = study.fit(direct_effect=direct)
    named = study.fit(
        chosen.estimator, cov_type=chosen.cov_type, small_sample=chosen.small_sample, interval=chosen.interval,
        direct_effect=direct,
    )  # fmt: skip
    pd.testing.assert_frame_equal(fit.tidy(), named.tidy())
    pd.testing.assert_frame_equal(fit.tidy(), fit_by_rule(study.moments, direct_effect=direct).tidy())
    assert fit.rule == chosen.text
    assert named.rule == ""
    assert f"Chosen by rule: {chosen.text}" in fit.summary
    (beside,) = fit.beside
    pd.testing.assert_frame_equal(
        beside.tidy(),
        study.fit(
            "2sls",
            cov_type="site",
            small_sample=chosen.small_sample,
            interval=chosen.interval,
            direct_effect=direct,
        ).tidy(),
    )
    head = f"Beside it, 2sls (site {fit.small_sample}): {beside.terms[0]} "
    (line,) = [x for x in fit.summary.splitlines() if x.startswith(head)]
    assert line.endswith(str(beside.confidence_set(beside.terms[0])))
    assert fit.to_dict()["rule"] == chosen.text


@pytest.mark.parametrize("options", [{"cov_type": "HC1"}, {"small_sample": "CR2"}, {"interval": "score"}])
def test_options_without_an_estimator_are_refused(options) -> None:
    with pytest.raises(ChoiceError, match="Name the estimator too"):
        study_of(trial(5)).fit(**options)


# -- strength ---------------------------------------------------------------------------------------------


def test_strength_of_one_mediator_is_the_formula() -> None:
    system = system_of(study_of(trial(6, sites=9, per_site=15)).moments)
    w, g = system.within.omega[:, 0, 0], system.site_slopes[:, 0, 1]
    v = system.noise.cov[:, 0, 1, 0, 1]
    got = strength_of(system)
    assert got.f_min == pytest.approx((w * g**2).sum() / (w * v).sum(), rel=1e-12)
    assert got.z == pytest.approx((w * (g**2 - v)).sum() / np.sqrt(2 * ((w * v) ** 2).sum()), rel=1e-12)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("arms", [2, 3])
def test_strength_does_not_depend_on_units_order_or_which_mediators_span(arms, direct) -> None:
    df = trial(7, sites=9, per_site=30, mediators=2, arms=arms)

    def strength(frame: pd.DataFrame) -> list[float]:
        got = strength_of(system_of(study_of(frame).moments, direct_effect=direct))
        return [got.f_min, got.z]

    expected = strength(df)
    changed = {
        "units": df.assign(m0=df["m0"] * 1e-6 + 3, m1=df["m1"] * 1e4),
        "mixed": df.assign(m0=df["m0"] + df["m1"], m1=df["m0"] - 2 * df["m1"]),
        "outcome": df.assign(y=df["y"] * 2 + 1e6),
        "order": df.assign(site=100 - df["site"]).sample(frac=1, random_state=0),
    }
    for name, frame in changed.items():
        np.testing.assert_allclose(strength(frame), expected, rtol=1e-6, err_msg=name)
    moments = study_of(df).moments
    parts = moments.drop(*moments.sites[:4]) + moments.drop(*moments.sites[4:])
    again = strength_of(system_of(parts, direct_effect=direct))
    np.testing.assert_allclose([again.f_min, again.z], expected, rtol=1e-9)


def test_strength_of_irrelevant_instruments_is_about_standard_normal() -> None:
    z = [
        strength_of(
            system_of(
                study_of(
                    weak(s, sites=20).assign(
                        m0=lambda d, s=s: np.random.default_rng(s + 500).normal(size=len(d))
                    )
                ).moments
            )
        ).z
        for s in range(80)
    ]
    assert abs(np.mean(z)) < 0.4
    assert 0.7 < np.std(z) < 1.5


# -- intervals from scores ----------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_p_values_and_sets_are_dual(seed, direct) -> None:
    rng = np.random.default_rng(seed)
    df = trial(
        seed, sites=int(rng.integers(6, 14)), per_site=int(rng.integers(8, 25)), mediators=1 + seed % 2
    )
    df["y"] += float(rng.normal(0, 0.8)) * df["m0"]
    for name in ("ujive", "2sls", "mbtsls"):
        fit = study_of(df).fit(name, cov_type="site", interval="score", direct_effect=direct)
        for term in fit.terms:
            p = float(fit.pvalues[term])
            for level in (0.5, 0.9, 0.95):
                inside = any(low <= 0 <= high for low, high in fit.confidence_set(term, level).intervals)
                # No test (others not estimable at each value): no p-value, and no value is excluded.
                assert inside != (p < 1 - level), (name, term, level, p)
            if fit.status is None:
                hull = fit.conf_int().loc[term]
                assert hull["lower"] <= fit.params[term] <= hull["upper"]
                assert np.sign(fit.tstats[term]) == np.sign(fit.params[term])


@pytest.mark.parametrize("small_sample", ["CR0", "CR2"])
def test_the_score_set_holds_what_the_test_does_not_reject(small_sample) -> None:
    """Where instruments are weak, the noise of the sites decides at some values and their spread at others."""
    decided = 0
    for seed in range(12):
        equations = study_of(weak(seed)).fit("ujive", interval="score").equations
        found = equations.score_set("m0", small_sample=small_sample)
        spread_alone = replace(equations, noise=None).score_set("m0", small_sample=small_sample)
        for d in np.linspace(-4.0, 4.0, 41):
            p = equations.score_test({"m0": d}, small_sample=small_sample).pvalue
            assert (d in found) == (p >= 0.05), (seed, d, p, str(found))
            decided += (d in found) != (d in spread_alone)
    assert decided > 10


def test_score_intervals_need_site_scores() -> None:
    study = study_of(trial(8))
    for name, kind in (("2sls", "HC1"), ("bc_linear", "site")):
        with pytest.raises(ChoiceError, match="interval='score' tests the scores of sites"):
            study.fit(name, cov_type=kind, interval="score")


def test_without_an_estimate_wald_says_nothing_and_scores_say_what_can_be_said() -> None:
    shapes, statuses = set(), 0
    for seed in range(25):
        study = study_of(weak(seed))
        wald = study.fit("ujive")
        if wald.status is None:
            continue
        statuses += 1
        assert "not positive definite" in wald.status
        assert wald.params.isna().all()
        assert wald.conf_int().isna().all(axis=None)
        assert wald.pvalues.isna().all()
        assert wald.covariance.shape == (1, 1)
        assert f"No point estimate: {wald.status}" in wald.summary
        with pytest.raises(DataError, match="There is no Wald interval"):
            wald.confidence_set("m0")
        score = study.fit("ujive", interval="score")
        assert score.status == wald.status
        found = score.confidence_set("m0")
        shapes.add(found.shape)
        assert not np.isfinite(found.hull).all() or found.shape == "interval"
        if found.shape != "interval":
            assert f"95% set of m0: {found}" in score.summary
        assert 0 <= float(score.pvalues["m0"]) <= 1
        compared = study.compare(["2sls", "ujive"])
        assert compared["status"].tolist() == ["", wald.status]
        chosen = study.fit()
        assert (chosen.method, chosen.interval, chosen.status) == ("ujive", "score", wald.status)
        assert np.isfinite(chosen.beside[0].coefficients).all()
        for kind in ("classical", "bekker", "HTE"):
            assert np.isnan(study.fit("ujive", cov_type=kind).covariance).all()
    assert statuses >= 5
    assert "whole line" in shapes or any("line" in s for s in shapes), shapes


def test_mbtsls_and_bc_have_a_status_too() -> None:
    df = weak(
        next(s for s in range(50) if study_of(weak(s)).fit("mbtsls", cov_type="site").status is not None)
    )
    fit = study_of(df).fit("mbtsls", cov_type="site")
    assert fit.params.isna().all()
    assert "No point estimate" in str(fit)
    score = study_of(df).fit("mbtsls", cov_type="site", interval="score")
    assert not np.isfinite(score.conf_int()).all(axis=None)
