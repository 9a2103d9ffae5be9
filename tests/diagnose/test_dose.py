"""Bends of mediators over arms and doses: against regressions on the rows, and what says nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.dose import dose_line
from msmmiv.diagnose.dose_curvature import dose_curvature
from msmmiv.inference.tests import NotApplicable


def design(**more):
    return mm.Design(
        **{"outcome": "y", "treatment": "t", "mediators": ["m"], "site": "s", "control": 0} | more
    )


def frame(rng, doses=(0, 1, 3), sites=15, n=8, bend=0.0):
    df = pd.DataFrame(
        {"s": np.repeat(range(sites), n * len(doses)), "t": np.tile(np.repeat(doses, n), sites)}
    )
    slope = rng.uniform(0, 1, (sites, 2))[df["s"]]
    for j, name in enumerate(["m", "k"]):
        df[name] = slope[:, j] * df["t"] + bend * np.maximum(df["t"] - 1, 0) + rng.normal(size=len(df))
    df["y"], df["c"] = rng.normal(size=len(df)), np.arange(len(df)) // 2
    return df


def regression(df, names, knots):
    """Bends with an intercept and a slope of their own in every site."""
    hinge = np.maximum(df["t"].to_numpy()[:, None] - np.array(knots), 0.0)
    own = pd.get_dummies(df["s"], dtype=float).to_numpy()
    x = np.hstack([hinge, own, own * df["t"].to_numpy()[:, None]])
    return np.linalg.lstsq(x, df[names].to_numpy(), rcond=None)[0][: len(knots)]


@pytest.mark.parametrize("doses", [(0, 1, 3), (0, 1, 2, 5), (2, 0, 7)])
def test_bends_are_those_of_the_regression_with_a_line_in_every_site(doses):
    rng = np.random.default_rng(1)
    df = frame(rng, doses).sample(frac=0.8, random_state=1)
    m = mm.Moments.from_data(df, design(mediators=["m", "k"]))
    found = dose_line(m)
    np.testing.assert_allclose(found.bend, regression(df, ["m", "k"], sorted(doses)[1:-1]), atol=1e-9)
    assert found.doses.tolist() == sorted(doses)
    assert found.joint.df == 2 * (len(doses) - 2)


def test_any_control_gives_the_same_test():
    df = frame(np.random.default_rng(2))
    one, two = (dose_line(mm.Moments.from_data(df, design(control=c))) for c in (0, 3))
    assert one.joint.stat == pytest.approx(two.joint.stat, rel=1e-9)
    assert one.slope[0] == pytest.approx(two.slope[0], rel=1e-9)


def test_the_variance_adds_up_the_arms_own():
    df = frame(np.random.default_rng(3), doses=(0, 1, 2))
    found = dose_line(mm.Moments.from_data(df, design()))
    v = df.groupby(["s", "t"])["m"].var() / 8  # the bend is the mean over sites of m2 - 2 m1 + m0
    expected = np.sqrt((v * v.index.get_level_values(1).map({0: 1, 1: 4, 2: 1})).sum()) / 15
    assert found.std_error[0, 0] == pytest.approx(expected, rel=1e-9)


def test_slopes_that_differ_by_site_are_no_bend_and_a_bend_is_found():
    rng = np.random.default_rng(4)
    assert dose_line(mm.Moments.from_data(frame(rng, sites=30), design())).joint.pvalue > 0.05
    bent = dose_line(mm.Moments.from_data(frame(rng, sites=30, bend=0.8), design()))
    assert bent.joint.pvalue < 0.001
    assert 0.1 < bent.detectable[0] < 1.0
    [one] = bent.evidence()
    assert one.role == "evidence"
    assert "declare the treatment as arms" in one.reading
    assert bent.to_frame()["dose"].tolist() == [1.0]


def test_missing_arms_leave_what_the_other_sites_tell():
    rng = np.random.default_rng(5)
    df = frame(rng, doses=(0, 1, 2, 3))
    cut = df[~((df["s"] < 3) & (df["t"] == 2)) & ~((df["s"] == 4) & (df["t"] > 1))]
    found = dose_line(mm.Moments.from_data(cut, design()))
    np.testing.assert_allclose(found.bend, regression(cut, ["m"], [1, 2]), atol=1e-9)
    assert np.isfinite(found.std_error).all()


def test_clusters_pool_their_noise_and_count_as_units():
    df = frame(np.random.default_rng(6), doses=(0, 1, 2))
    found = dose_line(mm.Moments.from_data(df, design(cluster="c")))
    # 15 sites with 4 clusters per arm: 45 degrees of freedom per arm, shares 1/6, 4/6, 1/6.
    assert (found.noise, found.joint.df_denom) == ("pooled", pytest.approx(90.0))
    assert found.to_frame()["std_error"].notna().all()


def test_what_does_not_apply_says_why():
    rng = np.random.default_rng(7)
    df = frame(rng)

    def reason(frame, **more):
        found = dose_line(mm.Moments.from_data(frame, design(**more)))
        assert isinstance(found.joint, NotApplicable)
        assert found.to_frame().empty or found.to_frame()["p_value"].isna().all()
        assert not found.evidence()[0].applies
        return found.joint.reason

    assert "linear by construction" in reason(df[df["t"] < 3])
    assert "not numbers" in reason(
        df.assign(t=df["t"].map({0: "none", 1: "some", 3: "much"})), control="none"
    )
    assert "dose_curvature" in reason(
        df.assign(t=rng.random(len(df))), control=None, treatment_kind="continuous"
    )
    assert "do not vary" in reason(df.assign(m=2.0 * df["t"]))
    assert "too few sites" in reason(df[(df["s"] < 1) & (df.groupby(["s", "t"]).cumcount() < 2)])
    apart = df[~((df["s"] % 2 == 0) & (df["t"] == 3)) & ~((df["s"] % 2 == 1) & (df["t"] == 1))]
    assert "no site has three arms" in reason(apart)
    effects = mm.SiteEffects.from_moments(mm.Moments.from_data(df, design()))
    assert "label of the control" in dose_line(effects).joint.reason
    assert "one contrast" in dose_line(mm.SiteEffects.from_moments(mm.data.star())).joint.reason


def doses(rng, sites=40, n=20, curvature=0.0):
    s = np.repeat(np.arange(sites), n)
    t = 1e3 + rng.random(len(s)) * rng.uniform(3, 5, sites)[s]
    m = rng.uniform(0, 1, sites)[s] * (t - 1e3) + curvature * (t - 1e3) ** 2 + rng.normal(size=len(s))
    return pd.DataFrame(
        {"s": s, "t": t, "m": m, "k": rng.normal(size=len(s)), "y": 0.0, "b": np.arange(len(s)) % 2}
    )


@pytest.mark.parametrize("block", [None, "b"])
def test_curvature_is_that_of_the_regression_with_a_line_in_every_stratum(block):
    df = doses(np.random.default_rng(8))
    d = design(treatment_kind="continuous", control=None, mediators=["m", "k"], block=block)
    found = dose_curvature(df, d)
    own = pd.get_dummies(df["s"] if block is None else df["s"] * 2 + df["b"], dtype=float).to_numpy()
    t = df["t"].to_numpy() - 1e3
    x = np.hstack([t[:, None] ** 2, own, own * t[:, None]])
    expected = np.linalg.lstsq(x, df[["m", "k"]].to_numpy(), rcond=None)[0][0]
    np.testing.assert_allclose(found.curvature, expected, rtol=1e-6)
    assert found.joint.df == 2
    assert found.to_frame()["std_error"].gt(0).all()


def test_curvature_is_found_and_where_nothing_bends_there_is_no_test():
    rng = np.random.default_rng(9)
    d = design(treatment_kind="continuous", control=None)
    assert dose_curvature(doses(rng), d).joint.pvalue > 0.05
    found = dose_curvature(doses(rng, curvature=0.3), d)
    assert found.joint.pvalue < 0.001
    assert "kink" in found.evidence()[0].reading
    two = doses(rng).assign(t=lambda f: f["b"].astype(float))
    assert "three values" in dose_curvature(two, d).joint.reason
    assert "too few sites" in dose_curvature(doses(rng, sites=4), d).joint.reason
    text = doses(rng).assign(t="a")
    assert "not numbers" in dose_curvature(text, design(control="a")).joint.reason
