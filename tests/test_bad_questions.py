"""Questions the data cannot answer: refused with the reason, never answered with a silent number."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import (
    ChoiceError,
    CollinearCovariateWarning,
    CrossingClusterWarning,
    DataError,
    DesignError,
    LabelWarning,
    MomentsInsufficient,
    MomentsMismatch,
    OneArmSiteWarning,
    RankDeficientError,
    TooFewSitesError,
    WeightsError,
)
from tests.moments.helpers import design, fit, people, refuses

# --------------------------------------------------------------------------- variables without content


@pytest.mark.parametrize("value", [0.0, 0.1, 3.7, 1e8 + 0.1, -1e-9])
@pytest.mark.parametrize("column", ["y", "m"])
def test_constants(column, value):
    role = {"y": "outcome", "m": "mediator"}[column]
    refuses(
        people(12).assign(**{column: value}),
        DataError,
        f"The {role} '{column}' is constant: it has one value",
    )


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_mediators_that_vary_between_sites_only(offset):
    df = people(12)
    refuses(df.assign(m=df["s"] * 0.1 + offset), DataError, "mediator 'm' is constant within every site")
    blocked = df.assign(m=df["s"] + 0.3 * df["b"])
    refuses(blocked, DataError, "constant within every block", block="b")


@pytest.mark.parametrize(
    "make",
    [lambda d: d["m"], lambda d: 1 - 3 * d["m"], lambda d: 1e-6 * d["m"] + 5, lambda d: d["m"] + 10 * d["s"]],
)
@pytest.mark.parametrize("cov_type", ["HC1", "site"])
def test_mediators_that_repeat_each_other(make, cov_type):
    df = people(13)
    words = "Inside sites 'm2' is a linear combination of the other mediators.*Keep one of them"
    refuses(df.assign(m2=make(df)), RankDeficientError, words, mediators=["m", "m2"], cov_type=cov_type)


@pytest.mark.parametrize("scale", [1.0, -2.5, 1e6, 1e-6])
def test_compliances_in_exact_proportion(scale):
    df = people(14)
    noise = np.random.default_rng(0).normal(size=len(df))
    noise -= pd.Series(noise).groupby([df["s"], df["t"]]).transform("mean").to_numpy()
    df["m2"] = scale * (df["m"] + noise)
    words = "Across the 5 sites the treatment moves 'm2' in exact proportion.*assumption .viii. fails"
    refuses(df, RankDeficientError, words, mediators=["m", "m2"])
    assert np.isfinite(mm.Study(df, design(mediators=["m", "m2"])).fit("ols").params).all()


def test_equal_compliance_everywhere_leaves_no_room_for_a_direct_effect():
    df = people(14)
    df["m"] = df["m"] - df.groupby(["s", "t"])["m"].transform("mean") + df["t"]
    assert np.isfinite(fit(df).params).all()
    refuses(df, RankDeficientError, "in exact proportion.*the direct effect", direct_effect=True)


def test_covariates_that_add_nothing():
    df = people(15)
    want = fit(df, covariates=["x"])
    for useless in (df["s"] * 2.0, 1.0 + 0 * df["x"], 3 - 2 * df["x"]):
        with pytest.warns(CollinearCovariateWarning, match="Left out 'z'"):
            got = fit(df.assign(z=useless), covariates=["x", "z"])
        np.testing.assert_allclose(got.params, want.params, rtol=1e-9)


def test_covariates_that_are_the_treatment():
    df = people(15)
    words = "'z' do not vary inside site-by-arm cells.*fixed before"
    refuses(df.assign(z=df["t"] * 1.0), DesignError, words, covariates=["z"])


# --------------------------------------------------------------------------------------------- sites


def test_one_site_serves_one_mediator():
    df = people(16).assign(s="only")
    got = fit(df)
    arms = df.groupby("t")[["y", "m"]].mean()
    assert got.params["m"] == pytest.approx(
        (arms["y"][1] - arms["y"][0]) / (arms["m"][1] - arms["m"][0]), rel=1e-10
    )
    words = "1 usable site.* cannot identify 1 mediator.* and a direct effect.*at least 2"
    refuses(df, TooFewSitesError, words, direct_effect=True)


def test_fewer_sites_than_mediators():
    df = people(16, sites=2, mediators=3)
    three = ["m", "m2", "m3"]
    words = r"2 usable sites cannot identify 3 mediators: assumption \(viii\.b\) needs at least 3"
    refuses(df, TooFewSitesError, words, mediators=three)
    refuses(df, TooFewSitesError, "2 mediators and a direct effect.*at least 3.*direct_effect=False",
            mediators=three[:2], direct_effect=True)  # fmt: skip
    assert fit(df, mediators=three[:2], cov_type="HC1").n_sites == 2


def test_too_few_sites_after_dropping_names_them():
    df = people(16, sites=3, mediators=2)
    lame = df[(df["s"] == 0) | (df["t"] == 1)]
    with pytest.warns(OneArmSiteWarning):
        study = mm.Study(lame, design(mediators=["m", "m2"]))
    with pytest.raises(TooFewSitesError, match=r"1 usable site.*\(1 and 2 dropped\)"):
        study.fit("2sls")


def test_site_clusters_need_sites():
    df = people(16, sites=2)
    refuses(df, TooFewSitesError, "site-clustered standard errors need at least 2.*HC1", cov_type="site")
    assert fit(people(16, sites=3), cov_type="site").df_resid == 2


def test_labels_that_differ_by_case_or_spaces():
    df = people(17)
    df["s"] = df["s"].map({0: "North", 1: "north ", 2: "South", 3: "SOUTH", 4: "East"})
    with pytest.warns(LabelWarning, match=r"'s' \(site\) differ only by case or spaces.*'North' = 'north '"):
        study = mm.Study(df, design())
    assert study.moments.n_sites == 5


def test_arms_that_differ_by_case_or_spaces():
    df = people(17, arms=("none", "Small", "small "))
    with pytest.warns(LabelWarning, match=r"'t' \(arm\).*'Small' = 'small '"):
        mm.Study(df, design(control="none"))


def test_blocks_that_differ_by_case():
    df = people(17)
    df["b"] = df["b"].map({0: "a", 1: "A"})
    with pytest.warns(LabelWarning, match=r"'b' \(block\)"):
        mm.Study(df, design(block="b"))


def test_a_hundred_thousand_sites_of_three():
    rng = np.random.default_rng(18)
    k = 100_000
    s = np.repeat(np.arange(k), 3)
    t = np.tile([0, 1, 1], k)
    u = rng.normal(size=3 * k)
    m = t * rng.normal(1, 0.5, k)[s] + u + rng.normal(size=3 * k)
    df = pd.DataFrame({"s": s, "t": t, "m": m, "y": 0.5 * m + u + rng.normal(size=3 * k)})
    start = time.perf_counter()
    got = fit(df, cov_type="site")
    assert time.perf_counter() - start < 30  # a guard against quadratic work, not a benchmark
    cube = df[["y", "m"]].to_numpy().reshape(k, 3, 2)
    gain = cube[:, 1:].mean(axis=1) - cube[:, 0]  # two treated, one control; n p (1 - p) = 2/3 in all sites
    itt, compliance = gain.T
    b = (compliance * itt).sum() / (compliance**2).sum()
    assert got.params["m"] == pytest.approx(b, rel=1e-9)
    assert got.n_sites == k
    # Scores of a site: n p (1 - p) compliance (itt - compliance b).
    score = 2 / 3 * compliance * (itt - compliance * b)
    bread = 1 / (2 / 3 * (compliance**2).sum())
    want = bread * np.sqrt((score**2).sum() * k / (k - 1))
    assert got.std_errors["m"] == pytest.approx(want, rel=1e-9)


# ------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("kind", ["analytic", "probability", "frequency"])
@pytest.mark.parametrize(("bad", "shown"), [(0.0, "0"), (-2.0, "-2")])
def test_weights_that_are_not_positive(kind, bad, shown):
    df = people(19).assign(w=1.0)
    df.loc[5, "w"] = bad
    refuses(
        df,
        WeightsError,
        f"Weights 'w' must be positive; the smallest is {shown}",
        weights="w",
        weight_kind=kind,
    )


def test_weights_that_are_all_zero():
    words = "must be positive; the smallest is 0"
    refuses(people(19).assign(w=0), WeightsError, words, weights="w", weight_kind="frequency")


def test_fractional_frequencies():
    df = people(19)
    words = "whole numbers; 'w' has fractions.*'analytic' or 'probability'"
    refuses(df, WeightsError, words, weights="w", weight_kind="frequency")
    df["k"] = df["k"].astype(float)
    assert fit(df, weights="k", weight_kind="frequency").nobs == int(df["k"].sum())


# ------------------------------------------------------------------------------------------- choices


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"cov_type": "robust"}, ChoiceError, "cov_type='robust' is not one of 'classical', 'HC0'"),
        ({"cov_type": "hc3"}, ChoiceError, "Did you mean 'HC3'"),
        ({"estimator": "OLS"}, ChoiceError, "estimator='OLS' is not one of.*Did you mean 'ols'"),
        ({"estimator": "gmm"}, ChoiceError, "estimator='gmm'"),
        ({"small_sample": "CR1"}, ChoiceError, "corrects clustered covariances; cov_type is 'HC1'"),
        ({"small_sample": "CR1", "cov_type": "HC3"}, ChoiceError, "cov_type is 'HC3'"),
        ({"small_sample": "CR8", "cov_type": "site"}, ChoiceError, "small_sample='CR8' is not one of"),
        ({"cov_type": "cluster"}, MomentsInsufficient, "needs a design with cluster="),
    ],
)
def test_choices_outside_their_list(options, error, words):
    with pytest.raises(error, match=words):
        mm.Study(people(20), design()).fit(**{"estimator": "2sls"} | options)


def test_missing_is_a_closed_choice():
    with pytest.raises(ChoiceError, match=r"missing='Drop'.*Did you mean 'drop'"):
        mm.Study(people(20), design(), missing="Drop")


def test_classical_errors_with_probability_weights():
    options = {"weights": "w", "weight_kind": "probability"}
    words = "invalid with probability weights. Use 'HC1'"
    refuses(people(20), DesignError, words, cov_type="classical", **options)


def test_clusters_that_cross_sites():
    df = people(21).assign(c=lambda d: d.index % 40)
    with pytest.warns(CrossingClusterWarning, match="40 labels of 'c' found in more than one site"):
        got = fit(df, cluster="c")
    assert got.n_clusters == 40
    assert np.isfinite(got.std_errors).all()


def test_late_needs_binary_mediators_and_two_arms():
    df = people(22)
    refuses(df, DesignError, "late' needs 0/1 mediators; 'm' takes other values", estimand="late")
    binary = df.assign(m=(df["m"] > 0.4).astype(int))
    assert "compliers" in fit(binary, estimand="late").estimand
    assert "compliers" in fit(binary, estimand="late", block="b", cluster="c").estimand
    refuses(binary.assign(m=binary["m"] + 1), DesignError, "'m' takes other values", estimand="late")
    refuses(binary.assign(t=binary.index % 3), DesignError, "two arms; there are 3", estimand="late")


def test_moments_of_another_design():
    m = mm.Moments.from_data(people(23), design())
    with pytest.raises(MomentsMismatch, match="made with another design"):
        mm.Study(m, design(control=0))
    assert mm.Study(m, design()).moments is m


def test_a_covariate_needs_rows_for_robust_errors():
    m = mm.Moments.from_data(people(24), design(covariates=["x"]))
    with pytest.raises(MomentsInsufficient, match=r"HC3 needs .*covariates.*Study\(data, design\)"):
        mm.Study(m).fit("2sls", cov_type="HC3")
    assert np.isfinite(mm.Study(m).fit("2sls", cov_type="site").std_errors).all()
