"""Site effects and their joint covariance equal regressions on the rows, site by site."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, MomentsInsufficient
from tests.moments.helpers import design, people

HC = ("HC0", "HC1", "HC2", "HC3")


def effects(df, kind=None, *, slopes="common", **options):
    m = mm.Moments.from_data(df, design(**options))
    return mm.SiteEffects.from_moments(m, cov_type=kind, slopes=slopes)


def regression(part, d, kind, arms, extra=()):
    """One site by least squares on dense matrices: slopes (D, 1 + P) and their joint covariance.

    The sandwich is written from its definition: (X'WX)^-1 [sum_g X_g'W_g A_g e_g e_g' A_g W_g X_g] (X'WX)^-1
    with A the identity (HC0, CR0), a factor, (1 - h)^-1/2, (1 - h)^-1 or the inverse square root of the
    cluster's block of I - H in the metric of the weights (CR2).
    """
    contrast = (
        part[[d.treatment]].to_numpy(float)
        if d.treatment_kind == "continuous"
        else np.column_stack([(part[d.treatment] == a).to_numpy(float) for a in arms[1:]])
    )
    level = part[d.block] if d.block else pd.Series(0, index=part.index)
    dummies = pd.get_dummies(level, dtype=float).to_numpy()
    x = np.hstack([contrast, part[list(extra)].to_numpy(float), dummies])
    y = part[[d.outcome, *d.mediators]].to_numpy(float)
    w = part[d.weights].to_numpy(float) if d.weights else np.ones(len(part))
    bread = np.linalg.pinv(x.T @ (w[:, None] * x))
    b = bread @ x.T @ (w[:, None] * y)
    e = y - x @ b
    n, k = len(x), np.linalg.matrix_rank(x)
    count = contrast.shape[1]
    if kind == "classical":
        sigma = (w[:, None] * e).T @ e / (n - k)
        cov = np.einsum("de,pq->dpeq", bread[:count, :count], sigma)
        return b[:count], cov
    root = np.sqrt(w)
    hat = root[:, None] * x @ bread @ x.T * root
    groups = part[d.cluster].to_numpy() if kind.startswith("CR") else np.arange(n)
    power = {"HC2": -0.5, "CR2": -0.5, "HC3": -1.0}.get(kind)
    meat = np.zeros((x.shape[1], y.shape[1], x.shape[1], y.shape[1]))
    for g in np.unique(groups):
        rows = np.flatnonzero(groups == g)
        inner = root[rows, None] * e[rows]
        if power is not None:
            values, vectors = np.linalg.eigh(np.eye(len(rows)) - hat[np.ix_(rows, rows)])
            inner = (vectors * values**power) @ vectors.T @ inner
        score = np.einsum("ik,ip->kp", root[rows, None] * x[rows], inner)
        meat += np.einsum("kp,lq->kplq", score, score)
    if kind == "HC1":
        meat *= n / (n - k)
    cov = np.einsum("ak,kplq,bl->apbq", bread, meat, bread)
    return b[:count], cov[:count, :, :count]


CASES = {
    "two arms": {},
    "two mediators": {"mediators": ["m", "m2"]},
    "blocks": {"block": "b", "mediators": ["m", "m2"]},
    "three arms": {"control": "none"},
    "three arms, blocks": {"control": "none", "block": "b"},
}


def rows_for(name, seed=1):
    arms = ("none", "A", "B") if name.startswith("three") else (0, 1)
    return people(seed, mediators=2, arms=arms), arms


@pytest.mark.parametrize("kind", [*HC, "classical", "CR0", "CR2"])
@pytest.mark.parametrize("name", CASES)
def test_every_site_is_its_own_regression(name, kind):
    df, arms = rows_for(name)
    options = CASES[name] | ({"cluster": "c"} if kind.startswith("CR") else {})
    got = effects(df, kind, **options)
    assert got.cov_type == kind
    for k, s in enumerate(got.sites):
        b, cov = regression(df[df["s"] == s], design(**options), kind, arms)
        np.testing.assert_allclose(got.estimates[k], b, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(got.cov[k], cov, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("kind", ["HC0", "HC1", "classical"])
def test_weighted_sites(kind):
    df = people(2)
    options = {"weights": "w", "weight_kind": "analytic", "block": "b"}
    got = effects(df, kind, **options)
    for k, s in enumerate(got.sites):
        b, cov = regression(df[df["s"] == s], design(**options), kind, (0, 1))
        np.testing.assert_allclose(got.estimates[k], b, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(got.cov[k], cov, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("kind", ["HC2", "HC3", "CR2"])
def test_weights_equal_inside_cells_are_enough_for_leverage(kind):
    df = people(3)
    df["w"] = 1.0 + df["s"] + 0.5 * df["t"]
    options = {"weights": "w", "weight_kind": "analytic"} | ({"cluster": "c"} if kind == "CR2" else {})
    got = effects(df, kind, **options)
    for k, s in enumerate(got.sites):
        _, cov = regression(df[df["s"] == s], design(**options), kind, (0, 1))
        np.testing.assert_allclose(got.cov[k], cov, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("block", [None, "b"])
def test_a_dose_is_a_slope(block):
    df = people(4)
    options = {"treatment": "dose", "treatment_kind": "continuous", "block": block}
    for kind in ("classical", "CR0"):
        more = options | ({"cluster": "c"} if kind == "CR0" else {})
        got = effects(df, kind, **more)
        assert got.contrasts == ("",)
        for k, s in enumerate(got.sites):
            b, cov = regression(df[df["s"] == s], design(**more), kind, ())
            np.testing.assert_allclose(got.estimates[k], b, rtol=1e-10)
            np.testing.assert_allclose(got.cov[k], cov, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_covariates_with_a_slope_per_site(name):
    df, arms = rows_for(name, 5)
    options = CASES[name] | {"covariates": ["x", "w"]}
    got = effects(df, "classical", slopes="site", **options)
    for k, s in enumerate(got.sites):
        b, cov = regression(df[df["s"] == s], design(**options), "classical", arms, ("x", "w"))
        np.testing.assert_allclose(got.estimates[k], b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.cov[k], cov, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_covariates_with_one_slope(name):
    """One regression of all sites on their contrasts, the covariates and the intercepts."""
    df, arms = rows_for(name, 6)
    options = CASES[name] | {"covariates": ["x", "w"]}
    d = design(**options)
    got = effects(df, **options)
    assert got.cov_type == "classical"
    site = pd.get_dummies(df["s"], dtype=float).to_numpy()
    columns = [site[:, [k]] * (df["t"] == a).to_numpy(float)[:, None] for k in range(5) for a in arms[1:]]
    level = df["s"].astype(str) + ("/" + df["b"].astype(str) if d.block else "")
    x = np.hstack([*columns, df[["x", "w"]].to_numpy(float), pd.get_dummies(level, dtype=float).to_numpy()])
    y = df[[d.outcome, *d.mediators]].to_numpy(float)
    bread = np.linalg.inv(x.T @ x)
    b = bread @ x.T @ y
    e = y - x @ b
    sigma = e.T @ e / (len(x) - x.shape[1])
    count = len(arms) - 1
    for k in range(5):
        here = slice(k * count, (k + 1) * count)
        np.testing.assert_allclose(got.estimates[k], b[here], rtol=1e-9, atol=1e-12)
        want = np.einsum("de,pq->dpeq", bread[here, here], sigma)
        np.testing.assert_allclose(got.cov[k], want, rtol=1e-8, atol=1e-13)


# ---------------------------------------------------------------------------------------- identities


def test_two_arms_are_differences_of_means_with_unpooled_variances():
    df = people(7)
    got = effects(df)
    assert got.cov_type == "HC2"
    for k, s in enumerate(got.sites):
        arm = [df.loc[(df["s"] == s) & (df["t"] == t), ["y", "m"]].to_numpy() for t in (0, 1)]
        np.testing.assert_allclose(got.estimates[k, 0], arm[1].mean(axis=0) - arm[0].mean(axis=0), rtol=1e-11)
        want = sum(np.cov(a.T) / len(a) for a in arm)
        np.testing.assert_allclose(got.cov[k, 0, :, 0], want, rtol=1e-10)
        n = [len(a) for a in arm]
        assert got.weight.loc[s] == pytest.approx(n[0] * n[1] / sum(n), rel=1e-12)
        assert got.n[k] == sum(n)


def test_arms_share_the_control():
    df = people(8, arms=("none", "A", "B"))
    got = effects(df, control="none")
    assert got.contrasts == ("A", "B")
    for k, s in enumerate(got.sites):
        control = df.loc[(df["s"] == s) & (df["t"] == "none"), ["y", "m"]].to_numpy()
        np.testing.assert_allclose(got.cov[k, 0, :, 1], np.cov(control.T) / len(control), rtol=1e-10)


@pytest.mark.parametrize("kind", [*HC, "classical"])
def test_joint_covariances_are_symmetric_and_not_negative(kind):
    df = people(9, arms=(0, 1, 2), mediators=2)
    got = effects(df, kind, mediators=["m", "m2"])
    for full in got.cov.reshape(5, 6, 6):
        np.testing.assert_allclose(full, full.T, rtol=1e-12, atol=1e-16)
        assert np.linalg.eigvalsh(full)[0] > -1e-14


def test_two_stage_least_squares_is_the_weighted_line_through_the_origin():
    df = people(10)
    got = effects(df)
    w, g, b = got.weight, got.compliance["m"], got.itt
    fit = mm.fit(mm.Moments.from_data(df, design()), "2sls")
    assert fit.params["m"] == pytest.approx((w * g * b).sum() / (w * g * g).sum(), rel=1e-11)


# ------------------------------------------------------------------------------------ missing arms


def test_sites_that_lack_an_arm():
    df = people(11, arms=("none", "A", "B"))
    gone = ((df["s"] == 1) & (df["t"] == "A")) | ((df["s"] == 3) & (df["t"] == "B"))
    got = effects(df[~gone], control="none")
    whole = effects(df, control="none")
    nothing = np.isnan(got.estimates).all(axis=2)
    assert np.argwhere(nothing).tolist() == [[1, 0], [3, 1]]
    assert np.isnan(got.cov[1, 0]).all()
    assert np.isnan(got.cov[1, :, :, 0]).all()
    np.testing.assert_allclose(got.estimates[1, 1], whole.estimates[1, 1], rtol=1e-11)
    np.testing.assert_allclose(got.cov[1, 1, :, 1], whole.cov[1, 1, :, 1], rtol=1e-10)
    frame = got.to_frame().set_index(["site", "arm"])
    assert frame.loc[(1, "A"), ["itt", "itt_se", "m", "m_se", "cov_itt_m"]].isna().all()
    assert frame.loc[(1, "B")].notna().all()


def test_a_site_without_the_control_has_no_effects_but_serves_two_stage_least_squares():
    df = people(12, arms=("none", "A", "B"))
    df = df[~((df["s"] == 2) & (df["t"] == "none"))]
    got = effects(df, control="none")
    assert np.isnan(got.estimates[2]).all()
    assert np.isnan(got.cov[2]).all()
    assert np.isfinite(got.estimates[[0, 1, 3, 4]]).all()
    fit = mm.fit(mm.Moments.from_data(df, design(control="none")), "2sls")
    assert fit.n_instruments == 9
    assert np.isfinite(fit.params).all()
    table = fit.first_stage[0].coefficients
    assert 2 not in set(table["site"])
    assert len(table) == 8


def test_arms_connected_through_blocks_can_be_compared():
    df = people(13, arms=("none", "A", "B"))
    lacking = np.where(df["b"] == 0, "B", "none")
    df = df[(df["s"] != 0) | (df["t"] != lacking)]
    got = effects(df, control="none", block="b")
    b, cov = regression(df[df["s"] == 0], design(control="none", block="b"), "HC2", ("none", "A", "B"))
    np.testing.assert_allclose(got.estimates[0], b, rtol=1e-10)
    np.testing.assert_allclose(got.cov[0], cov, rtol=1e-8)


def test_an_arm_of_one_person_has_no_variance():
    df = people(14)
    first = df[(df["s"] == 1) & (df["t"] == 1)].index[1:]
    got = effects(df.drop(first))
    assert np.isfinite(got.estimates).all()
    assert np.isnan(got.cov[1]).all()
    assert np.isfinite(got.cov[[0, 2, 3, 4]]).all()
    assert np.isfinite(effects(df.drop(first), "HC1").cov).all()


def test_an_arm_of_one_cluster_has_no_clustered_variance():
    df = people(14)
    df.loc[(df["s"] == 1) & (df["t"] == 1), "c"] = 77
    got = effects(df, "CR2", cluster="c")
    assert np.isfinite(got.estimates).all()
    assert np.isnan(got.cov[1]).all()
    assert np.isfinite(got.cov[[0, 2, 3, 4]]).all()


def test_a_block_of_one_cluster_adds_nothing():
    df = people(14)
    df.loc[(df["s"] == 1) & (df["b"] == 1), "c"] = 77
    got = effects(df, "CR2", cluster="c", block="b")
    assert np.isfinite(got.cov).all()


def test_a_site_without_degrees_of_freedom():
    df = people(15)
    two = df[df["s"] == 2].groupby("t").head(1)
    small = pd.concat([df[df["s"] != 2], two])
    for kind in ("classical", "HC1"):
        got = effects(small, kind)
        assert np.isnan(got.cov[2]).all()
        assert np.isfinite(got.estimates).all()


# -------------------------------------------------------------------------------------- what is held


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("HC2", {"covariates": ["x"]}, "HC2 covariances.*covariates need the rows"),
        ("CR2", {"covariates": ["x"], "cluster": "c"}, "CR2 covariances.*covariates need the rows"),
        ("HC0", {"treatment": "dose", "treatment_kind": "continuous"}, "continuous treatment need the rows"),
        ("CR2", {"treatment": "dose", "treatment_kind": "continuous", "cluster": "c"}, "Use 'CR0'"),
        (
            "HC3",
            {"weights": "w", "weight_kind": "analytic"},
            "weights differ inside cells. Use 'HC0' or 'HC1'",
        ),
        (
            "CR2",
            {"weights": "w", "weight_kind": "probability", "cluster": "c"},
            "weights differ inside cells",
        ),
        ("CR0", {}, "CR0 needs a design with cluster"),
    ],
)
def test_what_moments_do_not_hold_is_named(kind, options, words):
    with pytest.raises(MomentsInsufficient, match=words):
        effects(people(16), kind, **options)


def test_defaults():
    df = people(17)
    assert effects(df).cov_type == "HC2"
    assert effects(df, weights="w", weight_kind="analytic").cov_type == "HC1"
    assert effects(df, weights="k", weight_kind="frequency").cov_type == "HC2"
    assert effects(df, covariates=["x"]).cov_type == "classical"


def test_closed_choices():
    with pytest.raises(ChoiceError, match="cov_type='HC4' is not one of"):
        effects(people(18), "HC4")
    with pytest.raises(ChoiceError, match="slopes='own' is not one of 'common' and 'site'"):
        effects(people(18), slopes="own")


def test_the_table_of_sites():
    df = people(19, mediators=2)
    got = effects(df, mediators=["m", "m2"])
    frame = got.to_frame()
    assert list(frame) == [
        "site", "n", "weight", "itt", "itt_se", "m", "m_se", "cov_itt_m", "m2", "m2_se", "cov_itt_m2",
    ]  # fmt: skip
    assert frame["cov_itt_m2"].tolist() == got.cov[:, 0, 0, 0, 2].tolist()
    assert frame["m_se"].tolist() == np.sqrt(got.cov[:, 0, 1, 0, 1]).tolist()
    assert repr(got) == "SiteEffects(5 sites, 2 mediators, HC2)"
    three = effects(people(19, arms=(0, 1, 2)))
    assert list(three.to_frame())[:2] == ["site", "arm"]
    assert repr(three).startswith("SiteEffects(5 sites x 2 arms, 1 mediator")
