"""Balance and shares: the randomisation covariance against every order of the labels, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.assignment import Shuffled, hits_law, scores
from msmmiv.diagnose.balance import covariate_balance
from msmmiv.diagnose.shares import arm_shares
from msmmiv.inference.tests import NotApplicable, TestStatistic


def design(**more):
    return mm.Design(outcome="y", treatment="t", mediators="m", site="s", **more)


def frame(rng, sites=4, n=6, arms=2):
    """Rows with two covariates, blocks of half a site, and clusters of two rows in one arm."""
    rows = sites * n * arms
    df = pd.DataFrame(
        {"s": np.repeat(np.arange(sites), n * arms), "t": np.tile(np.repeat(np.arange(arms), n), sites)}
    )
    df["x"], df["z"] = rng.normal(size=rows), rng.random(rows) < 0.4
    df["z"] = df["z"].astype(float)
    df["c"], df["w"] = np.arange(rows) // 2, rng.integers(1, 4, rows).astype(float)
    df["m"], df["y"] = rng.normal(size=(2, rows))
    return df


def orders(labels, stratum):
    """Every order of the labels within strata."""
    parts = [sorted(set(itertools.permutations(labels[stratum == b]))) for b in np.unique(stratum)]
    where = [np.flatnonzero(stratum == b) for b in np.unique(stratum)]
    for chosen in itertools.product(*parts):
        out = np.empty(len(labels))
        for at, values in zip(where, chosen, strict=True):
            out[at] = values
        yield out


def enumerated(z, labels, stratum, arms):
    """Covariance of sum t z over all orders, by counting them."""
    sums = []
    for t in orders(labels, stratum):
        d = (t[:, None] == np.arange(1, arms)).astype(float)
        sums.append((d.T @ z).ravel())
    sums = np.array(sums)
    return sums.mean(axis=0), sums.T @ sums / len(sums)


@pytest.mark.parametrize("weights", [None, "analytic", "probability", "frequency"])
@pytest.mark.parametrize("arms", [2, 3])
def test_the_covariance_of_scores_is_that_of_all_orders_of_the_rows(arms, weights):
    rng = np.random.default_rng(arms)
    df = frame(rng, sites=2, n=2, arms=arms).assign(w=lambda d: d["w"] if weights != "frequency" else 1.0)
    more = {"weights": "w", "weight_kind": weights} if weights else {}
    m = mm.Moments.from_data(df, design(covariates=["x", "z"], **more))
    found = scores(m, [2, 3], "rows")
    w = df["w"].to_numpy() if weights else np.ones(len(df))
    s, x = df["s"].to_numpy(), df[["x", "z"]].to_numpy()
    mean = np.array([np.average(x[s == k], axis=0, weights=w[s == k]) for k in (0, 1)])
    middle, cov = enumerated(w[:, None] * (x - mean[s]), df["t"].to_numpy(), s, arms)
    np.testing.assert_allclose(middle, 0.0, atol=1e-12)
    np.testing.assert_allclose(found.covariances().sum(axis=0), cov, atol=1e-12)
    assert np.exp(found.orders.sum()) == pytest.approx(sum(1 for _ in orders(df["t"].to_numpy(), s)))


def test_clusters_are_shuffled_as_wholes():
    rng = np.random.default_rng(1)
    df = frame(rng, sites=2, n=6)
    df["c"] = (
        df.groupby(["s", "t"]).cumcount().map({0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 2})
        + 3 * df["t"]
        + 10 * df["s"]
    )
    m = mm.Moments.from_data(df, design(covariates=["x", "z"], cluster="c"))
    x = df[["x", "z"]] - df.groupby("s")[["x", "z"]].transform("mean")
    total = x.groupby(df["c"]).sum()
    lead = df.groupby("c")[["s", "t"]].first().loc[total.index]
    middle, cov = enumerated(total.to_numpy(), lead["t"].to_numpy(), lead["s"].to_numpy(), 2)
    np.testing.assert_allclose(middle, 0.0, atol=1e-12)
    np.testing.assert_allclose(scores(m, [2, 3], "clusters").covariances().sum(axis=0), cov, atol=1e-12)
    assert covariate_balance(m).assigned == "clusters"


def test_a_dose_is_shuffled_like_arms():
    rng = np.random.default_rng(2)
    df = frame(rng, sites=2, n=2).assign(t=rng.normal(size=8))
    m = mm.Moments.from_data(df, design(covariates=["x"], treatment_kind="continuous"))
    found = scores(m, [2], "rows")
    x = (df["x"] - df.groupby("s")["x"].transform("mean")).to_numpy()
    sums = [t @ x for t in orders(df["t"].to_numpy(), df["s"].to_numpy())]
    assert found.covariances().sum() == pytest.approx(np.mean(np.square(sums)), abs=1e-12)
    assert found.score.sum() == pytest.approx(df["t"].to_numpy() @ x, abs=1e-12)


@pytest.mark.parametrize("block", [False, True])
def test_pooled_differences_are_those_of_the_regression_with_intercepts(block):
    rng = np.random.default_rng(3)
    df = frame(rng, sites=5, n=8, arms=3).sample(frac=0.8, random_state=1)
    df["b"] = rng.integers(0, 2, len(df))
    m = mm.Moments.from_data(df, design(covariates=["x", "z"], block="b" if block else None))
    found = covariate_balance(m)
    keys = ["s", "b"] if block else ["s"]
    d = pd.get_dummies(df["t"], dtype=float)[[1, 2]]
    d, x = d - d.groupby([df[k] for k in keys]).transform("mean"), df[["x", "z"]]
    np.testing.assert_allclose(found.difference, np.linalg.lstsq(d, x, rcond=None)[0], atol=1e-12)
    own = df[df["s"] == 2]
    own_d = d.loc[own.index]
    np.testing.assert_allclose(
        found.site_difference[2], np.linalg.lstsq(own_d, own[["x", "z"]], rcond=None)[0], atol=1e-12
    )


def test_the_joint_statistic_has_its_rank_as_mean_over_all_orders():
    rng = np.random.default_rng(4)
    df = frame(rng, sites=2, n=2)
    stats = []
    for t in orders(df["t"].to_numpy(), df["s"].to_numpy()):
        m = mm.Moments.from_data(df.assign(t=t.astype(int)), design(covariates=["x", "z"]))
        found = scores(m, [2, 3], "rows")
        law = Shuffled.of(found.score.sum(axis=0).ravel(), found.covariances(), found.units, 1)
        stats.append(law.stat)
    assert np.mean(stats) == pytest.approx(law.rank, abs=1e-10)


def test_in_one_site_with_two_arms_the_joint_test_is_hotellings():
    rng = np.random.default_rng(5)
    df = frame(rng, sites=1, n=15)
    found = covariate_balance(mm.Moments.from_data(df, design(covariates=["x", "z"])))
    one, two = (df.loc[df["t"] == t, ["x", "z"]].to_numpy() for t in (1, 0))
    pooled = (np.cov(one.T) * 14 + np.cov(two.T) * 14) / 28
    gap = one.mean(axis=0) - two.mean(axis=0)
    f = 7.5 * gap @ np.linalg.solve(pooled, gap) / 28 * 27 / 2
    assert (found.joint.stat, found.joint.df, found.joint.df_denom) == (pytest.approx(f, rel=1e-9), 2, 27.0)


def test_a_shifted_covariate_is_found_and_a_copy_of_it_changes_nothing():
    rng = np.random.default_rng(6)
    df = frame(rng, sites=20, n=10)
    df["x"] += 0.6 * df["t"]
    one = covariate_balance(mm.Moments.from_data(df, design(covariates=["x", "z"])))
    two = covariate_balance(
        mm.Moments.from_data(df.assign(x2=2 * df["x"]), design(covariates=["x", "z", "x2"]))
    )
    assert one.joint.pvalue < 1e-4
    assert two.joint.pvalue == pytest.approx(one.joint.pvalue, rel=1e-6)
    assert 0.2 < one.detectable < 0.5
    assert one.pvalue[0, 0] < 1e-4 < one.pvalue[0, 1]
    joint, by_site = one.evidence()
    assert (joint.role, by_site.role) == ("evidence", "context")
    assert "'x'" in joint.reading
    assert len(one.site_frame()) == 40


def test_a_constant_covariate_drops_out_and_a_missing_arm_is_left_out():
    rng = np.random.default_rng(7)
    df = frame(rng, sites=6, n=6, arms=3).assign(k=1.0)
    df = df[~((df["s"] == 1) & (df["t"] == 2))]
    found = covariate_balance(mm.Moments.from_data(df, design(covariates=["x", "k"])))
    assert found.joint.df == 2
    assert np.isnan(found.pvalue[:, 1]).all()
    assert np.isnan(found.site_difference[1, 1]).all()
    assert np.isfinite(found.site_difference[1, 0]).all()
    assert set(found.to_frame()["arm"]) == {1, 2}


def test_what_does_not_apply_says_why():
    rng = np.random.default_rng(8)
    df = frame(rng, sites=4)
    none = covariate_balance(mm.Moments.from_data(df, design()))
    assert isinstance(none.joint, NotApplicable)
    assert "declares no pre-treatment covariates" in none.joint.reason
    assert [e.applies for e in none.evidence()] == [False, False]
    assert none.to_frame().empty
    few = covariate_balance(mm.Moments.from_data(frame(rng, sites=1, n=3), design(covariates=["x"])))
    assert "only 20 ways" in few.joint.reason
    many = design(covariates=["x", "z", "w", "c", "k", "l"])
    assert (
        "too few units"
        in covariate_balance(
            mm.Moments.from_data(frame(rng, 1, 7).assign(k=rng.normal(size=14), l=rng.normal(size=14)), many)
        ).joint.reason
    )
    flat = covariate_balance(
        mm.Moments.from_data(df.assign(x=df["s"].astype(float)), design(covariates=["x"]))
    )
    assert "no covariate varies" in flat.joint.reason
    dose = design(covariates=["x"], treatment_kind="continuous", weights="w", weight_kind="analytic")
    dosed = mm.Moments.from_data(df.assign(t=rng.normal(size=len(df))), dose)
    assert "not a function of the moments" in covariate_balance(dosed).joint.reason


def test_clusters_that_cannot_have_been_assigned_are_refused():
    df = frame(np.random.default_rng(9)).assign(c=lambda d: d["s"] * 2 + d.index % 2)
    m = mm.Moments.from_data(df, design(covariates=["x"], cluster="c"))
    assert covariate_balance(m).assigned == "rows"
    with pytest.raises(mm.errors.ChoiceError, match="hold several arms"):
        covariate_balance(m, assigned="clusters")
    with pytest.raises(mm.errors.ChoiceError, match="not declared"):
        covariate_balance(mm.Moments.from_data(df, design(covariates=["x"])), assigned="clusters")
    with pytest.raises(mm.errors.ChoiceError, match="assigned"):
        covariate_balance(m, assigned="people")  # type: ignore[arg-type]


def test_no_p_value_of_a_site_lies_below_one_over_its_orders():
    df = frame(np.random.default_rng(10), sites=8, n=4)
    df["c"] = df["s"] * 10 + df["t"] * 2 + df.groupby(["s", "t"]).cumcount() // 2
    df["x"] = df["t"] + 0.001 * df["x"]
    found = covariate_balance(mm.Moments.from_data(df, design(covariates=["x"], cluster="c")))
    assert found.site_pvalue.min() >= 1 / 6


def test_star_is_balanced_whether_pupils_or_classes_were_assigned():
    m = mm.data.star("math_covariates")
    rows, clusters = (covariate_balance(m, assigned=a) for a in ("rows", "clusters"))
    np.testing.assert_allclose(rows.difference, clusters.difference)
    assert rows.joint.pvalue > 0.5
    assert clusters.joint.pvalue > 0.5
    assert 0.09 < rows.detectable < clusters.detectable < 0.12


def test_the_law_of_hits_is_that_of_all_orders():
    stratum, hit = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([1, 0, 1, 0, 1, 1, 0])
    treated = np.array([1, 1, 0, 0, 1, 0, 0])
    counts = [int(t @ hit) for t in orders(treated, stratum)]
    least, mass = hits_law(*(np.array(v, dtype=float) for v in ([2, 2], [4, 3], [2, 1])))
    expected = np.bincount(counts, minlength=least + len(mass))[least:] / len(counts)
    np.testing.assert_allclose(mass, expected, atol=1e-12)


def test_shares_against_a_plan():
    rng = np.random.default_rng(11)
    df = frame(rng, sites=10, n=20)
    m = mm.Moments.from_data(df, design())
    fair, off = arm_shares(m, planned=0.5), arm_shares(m, planned=dict.fromkeys(range(10), 0.3))
    assert isinstance(fair.as_planned, TestStatistic)
    assert fair.as_planned.pvalue > 0.9
    assert off.as_planned.pvalue < 0.001
    assert off.as_planned == arm_shares(m, planned=0.3).as_planned
    assert off.evidence()[0].role == "evidence"
    assert off.to_frame()["planned"].tolist()[:2] == [0.7, 0.3]
    none = arm_shares(m)
    assert none.evidence()[0].role == "context"
    assert none.common.stat == pytest.approx(0.0)
    from scipy.stats import chi2_contingency

    uneven = mm.Moments.from_data(df.sample(frac=0.6, random_state=2), design())
    table = arm_shares(uneven).units
    assert arm_shares(uneven).common.pvalue == pytest.approx(chi2_contingency(table, correction=False).pvalue)


def test_shares_that_cannot_be_told():
    df = frame(np.random.default_rng(12))
    m = mm.Moments.from_data(df, design(weights="w", weight_kind="probability"))
    assert "probability weights" in arm_shares(m, planned=0.5).as_planned.reason
    dose = mm.Moments.from_data(df.assign(t=df["x"]), design(treatment_kind="continuous"))
    assert "dose" in arm_shares(dose).common.reason
    with pytest.raises(mm.errors.ChoiceError, match="between 0 and 1"):
        arm_shares(m, planned=1.5)
    with pytest.raises(mm.errors.DataError, match="no share for sites 3"):
        arm_shares(m, planned={0: 0.5, 1: 0.5, 2: 0.5})
    blocks = mm.Moments.from_data(df.assign(b=df.index % 2), design(block="b"))
    assert list(arm_shares(blocks).to_frame().columns)[:3] == ["site", "block", "arm"]


def test_departure_from_planned_shares_is_the_two_tests_doubled_exact_probability():
    """One site of 20 with 15 treated, half planned: both statistics have P(|x - 10| >= 5) = .0414."""
    df = pd.DataFrame({"s": 0, "t": [1] * 15 + [0] * 5, "m": np.arange(20.0), "y": np.arange(20.0) ** 2})
    m = mm.Moments.from_data(df, mm.Design(outcome="y", treatment="t", mediators="m", site="s"))
    assert arm_shares(m, planned=0.5).as_planned.pvalue == pytest.approx(2 * 0.0414, abs=0.012)
