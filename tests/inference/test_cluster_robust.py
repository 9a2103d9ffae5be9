"""CR2, CR3 and Bell-McCaffrey degrees of freedom from cells: R packages, and (I - H)^-1/2 written out."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, TooFewSitesError
from msmmiv.inference.cluster_robust import cluster_robust
from msmmiv.inference.covariance import cluster_codes
from msmmiv.moments.within import within_sites
from tests.estimate.helpers import dense, trial
from tests.inference.blocks import equations_of, moments_of, two_stage

PARTS = [("p1", "noX"), ("p1", "withX"), ("p2", "noX"), ("p2", "withX")]


def golden_moments(golden, p: str, part: str) -> mm.Moments:
    weights = {"weights": "w"} if "weighted" in part else {}
    return moments_of(
        pd.read_csv(golden / f"ind_k12_{p}.csv"), ["m"] if p == "p1" else ["m1", "m2"],
        cluster="classroom", covariates=["x"] if "withX" in part else [], **weights,
    )  # fmt: skip


def power_of_rest(h: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(np.eye(len(h)) - h)
    values = np.where(values > 1e-9, np.where(values > 1e-9, values, 1.0) ** exponent, 0.0)
    return (vectors * values) @ vectors.T


def by_hand(fit: dict[str, np.ndarray], groups: np.ndarray, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """Covariance and Satterthwaite df from n by n matrices, identity working model for the rows of ``fit``."""
    x, bread, k = fit["fitted"], fit["bread"], fit["k"]
    rest = np.eye(len(x)) - x @ bread @ x.T
    names = np.unique(groups)
    meat = np.zeros_like(bread)
    sides = [[] for _ in range(k)]
    for g in names:
        here = groups == g
        adjust = power_of_rest(x[here] @ bread @ x[here].T, exponent)
        score = x[here].T @ adjust @ fit["e"][here]
        meat += np.outer(score, score)
        for j in range(k):
            side = np.zeros(len(x))
            side[here] = adjust @ x[here] @ bread[:, j]
            sides[j].append(rest @ side)
    df = []
    for side in sides:
        p = np.array(side) @ np.array(side).T
        df.append(np.trace(p) ** 2 / (p**2).sum())
    return (bread @ meat @ bread)[:k, :k], np.array(df)


@pytest.mark.parametrize(("p", "part"), PARTS)
@pytest.mark.parametrize("level", ["classroom", "site"])
def test_cr2_and_df_of_clubsandwich_and_estimatr(golden, p: str, part: str, level: str) -> None:
    g = json.loads((golden / f"ivreg_{p}.json").read_text())[part]
    within = within_sites(golden_moments(golden, p, part))
    scores = two_stage(within)[0]
    out = cluster_robust(within, scores, cluster_codes(within, "site" if level == "site" else "cluster"))
    club, other = g[f"cluster_{level}"]["clubSandwich_CR2"], g["estimatr_iv_robust"][f"{level}_CR2"]
    np.testing.assert_allclose(
        out.covariance, np.atleast_2d(np.array(club["vcov"]["values"], dtype=float)), rtol=1e-9
    )
    np.testing.assert_allclose(out.df, list(club["satterthwaite_df"].values()), rtol=1e-9)
    np.testing.assert_allclose(np.sqrt(np.diag(out.covariance)), list(other["se"].values()), rtol=1e-9)
    np.testing.assert_allclose(out.df, list(other["df"].values()), rtol=1e-9)
    assert out.reason is None
    if level == "site":
        again = equations_of(golden_moments(golden, p, part)).sandwich("CR2")
        np.testing.assert_allclose(again.covariance, out.covariance, rtol=1e-10)
        np.testing.assert_allclose(again.df, out.df, rtol=1e-10)


@pytest.mark.parametrize("part", ["noX", "withX"])
def test_cr3_of_clubsandwich(golden, part: str) -> None:
    """For sites clubSandwich's CR3 is singular (the dummies); for classrooms it is not."""
    g = json.loads((golden / "ivreg_p2.json").read_text())[part]["cluster_classroom"]["clubSandwich_CR3"]
    within = within_sites(golden_moments(golden, "p2", part))
    out = cluster_robust(within, two_stage(within)[0], cluster_codes(within, "cluster"), power="CR3")
    np.testing.assert_allclose(out.covariance, g["vcov"]["values"], rtol=1e-9)
    np.testing.assert_allclose(out.df, list(g["satterthwaite_df"].values()), rtol=1e-9)


def test_under_weights_the_peers_assume_equal_variances(golden) -> None:
    """Ours takes variances as 1 / w. Theirs written out on the rows, and the distance between the two."""
    g = json.loads((golden / "ivreg_p2.json").read_text())["withX_weighted"]
    df = pd.read_csv(golden / "ind_k12_p2.csv")
    within = within_sites(golden_moments(golden, "p2", "withX_weighted"))
    out = cluster_robust(within, two_stage(within)[0], cluster_codes(within, "cluster"))
    fit = dense(df, ["m1", "m2"], covariates=("x",), weights="w")
    w = df["w"].to_numpy()
    x, e = fit["fitted"] / np.sqrt(w)[:, None], fit["e"] / np.sqrt(w)
    bread, k = fit["bread"], fit["k"]
    squared = x.T @ (x * (w**2)[:, None])
    meat = np.zeros_like(bread)
    for c in np.unique(df["classroom"]):
        i = (df["classroom"] == c).to_numpy()
        h = x[i] @ bread @ (x[i] * w[i, None]).T
        rest = h + h.T - x[i] @ bread @ squared @ bread @ x[i].T  # I - (I - H)_g (I - H)_g'
        score = (x[i] * w[i, None]).T @ power_of_rest(rest, -0.5) @ e[i]
        meat += np.outer(score, score)
    theirs = np.array(g["cluster_classroom"]["clubSandwich_CR2"]["vcov"]["values"])
    np.testing.assert_allclose((bread @ meat @ bread)[:k, :k], theirs, rtol=1e-8)
    np.testing.assert_allclose(np.diag(out.covariance), np.diag(theirs), rtol=0.01)
    np.testing.assert_allclose(
        out.df, list(g["estimatr_iv_robust"]["classroom_CR2"]["df"].values()), rtol=0.05
    )


DESIGNS = {
    "one mediator": ({"sites": 6}, {}),
    "two mediators": ({"sites": 7, "mediators": 2}, {}),
    "three arms": ({"sites": 6, "arms": 3, "mediators": 2}, {}),
    "covariates": ({"sites": 6, "covariates": 2}, {"covariates": ("x0", "x1")}),
    "blocks": ({"sites": 5, "blocks": 2}, {"block": "block"}),
    "weights": ({"sites": 6, "covariates": 1, "weights": True}, {"covariates": ("x0",), "weights": "w"}),
    "direct effect": ({"sites": 8, "covariates": 1}, {"covariates": ("x0",), "direct": True}),
    "everything": (
        {"sites": 7, "arms": 3, "mediators": 2, "covariates": 1, "blocks": 2, "weights": True},
        {"covariates": ("x0",), "block": "block", "weights": "w", "direct": True},
    ),
}


def clusters(df: pd.DataFrame, kind: str) -> pd.Series:
    """Cluster labels: inside sites, nested in arms, across sites, one per site in some of them, sites."""
    site, n = df["site"], np.arange(len(df))
    if kind == "inside":
        return site * 10 + n % 3
    if kind == "nested in arms":
        return site * 100 + df["t"] * 10 + n % 2
    if kind == "across sites":
        return pd.Series(n % 7 + 10 * (site <= 3))
    if kind == "some sites whole":
        return site * 10 + np.where(site <= 3, 0, n % 4)
    return site.copy()


@pytest.mark.parametrize("kind", ["inside", "nested in arms", "across sites", "some sites whole", "sites"])
@pytest.mark.parametrize("case", DESIGNS)
@pytest.mark.parametrize("power", ["CR2", "CR3"])
def test_equals_the_matrices_written_out(case: str, kind: str, power: str) -> None:
    made, roles = DESIGNS[case]
    df = trial(11, per_site=8, **made)
    df["cluster"] = clusters(df, kind)
    mediators = [c for c in df if c.startswith("m")]
    fit = dense(
        df, mediators, covariates=roles.get("covariates", ()), block=roles.get("block"),
        direct=roles.get("direct", False), weights=roles.get("weights"),
    )  # fmt: skip
    moments = moments_of(
        df, mediators, cluster="cluster", **{k: v for k, v in roles.items() if k != "direct"}
    )
    within = within_sites(moments)
    scores = two_stage(within, direct=roles.get("direct", False))[0]
    out = cluster_robust(within, scores, cluster_codes(within, "cluster"), power=power)
    cov, degrees = by_hand(fit, df["cluster"].to_numpy(), -0.5 if power == "CR2" else -1.0)
    np.testing.assert_allclose(out.covariance, cov, rtol=1e-8, atol=1e-10 * np.abs(cov).max())
    np.testing.assert_allclose(out.df, degrees, rtol=1e-8)
    assert out.groups == df["cluster"].nunique()


@pytest.mark.parametrize("mediators", [["m0"], ["m0", "m1"]])
def test_cr3_is_the_jackknife_over_sites(mediators: list[str]) -> None:
    moments = moments_of(trial(3, sites=9, mediators=2), mediators)
    eq = equations_of(moments)
    refits = np.array([equations_of(moments.drop(s)).coefficients for s in moments.sites])
    np.testing.assert_allclose(eq.jackknife(), refits, rtol=1e-10)
    change = refits - eq.coefficients
    within = within_sites(moments)
    out = cluster_robust(within, two_stage(within)[0], moments.site, power="CR3")
    np.testing.assert_allclose(out.covariance, change.T @ change, rtol=1e-10)
    np.testing.assert_allclose(eq.sandwich("CR3").covariance, change.T @ change, rtol=1e-10)


def test_units_do_not_matter() -> None:
    df = trial(5, mediators=2, covariates=1, clusters=3)
    scaled = df.assign(y=df["y"] * 1e6, m0=df["m0"] * 1e-5, x0=df["x0"] * 1e4 + 1e6)
    outs = []
    for frame in (df, scaled):
        within = within_sites(moments_of(frame, ["m0", "m1"], covariates=["x0"], cluster="cluster"))
        outs.append(cluster_robust(within, two_stage(within)[0], cluster_codes(within, "cluster")))
    size = 1e6 / np.array([1e-5, 1.0, 1e4])
    np.testing.assert_allclose(outs[1].covariance / np.outer(size, size), outs[0].covariance, rtol=1e-6)
    np.testing.assert_allclose(outs[1].df, outs[0].df, rtol=1e-6)


def test_frequency_weights_are_copies() -> None:
    df = trial(8, sites=5, clusters=3)
    df["copies"] = np.arange(len(df)) % 3 + 1
    long = df.loc[df.index.repeat(df["copies"])]
    outs = []
    for frame, roles in ((df, {"weights": "copies", "weight_kind": "frequency"}), (long, {})):
        within = within_sites(moments_of(frame, ["m0"], cluster="cluster", **roles))
        outs.append(cluster_robust(within, two_stage(within)[0], cluster_codes(within, "cluster")))
    np.testing.assert_allclose(outs[0].covariance, outs[1].covariance, rtol=1e-10)
    np.testing.assert_allclose(outs[0].df, outs[1].df, rtol=1e-10)


def test_a_coefficient_that_one_cluster_determines_has_no_variance() -> None:
    df = trial(2, sites=6, covariates=1)
    df["x0"] = np.where(df["site"] == 2, df["x0"], 0.0)  # varies in one site only
    within = within_sites(moments_of(df, ["m0"], covariates=["x0"]))
    out = cluster_robust(within, two_stage(within)[0], within.moments.site)
    cov, degrees = by_hand(dense(df, ["m0"], covariates=("x0",)), df["site"].to_numpy(), -0.5)
    np.testing.assert_allclose(out.covariance[0, 0], cov[0, 0], rtol=1e-9)
    np.testing.assert_allclose(out.df[0], degrees[0], rtol=1e-9)
    assert np.isnan(out.covariance[1]).all()
    assert np.isnan(out.df[1])
    assert out.reason is not None
    assert "1 cluster alone determines" in out.reason


def test_refusals() -> None:
    within = within_sites(moments_of(trial(1, sites=4), ["m0"]))
    scores = two_stage(within)[0]
    with pytest.raises(TooFewSitesError, match="two clusters"):
        cluster_robust(within, scores, np.zeros_like(within.moments.site))
    with pytest.raises(ChoiceError, match="CR2"):
        cluster_robust(within, scores, within.moments.site, power="CR1")


def test_two_clusters() -> None:
    df = trial(1, sites=4)
    df["cluster"] = df["site"] % 2
    within = within_sites(moments_of(df, ["m0"], cluster="cluster"))
    out = cluster_robust(within, two_stage(within)[0], cluster_codes(within, "cluster"))
    cov, degrees = by_hand(dense(df, ["m0"]), df["cluster"].to_numpy(), -0.5)
    np.testing.assert_allclose(out.covariance, cov, rtol=1e-9)
    np.testing.assert_allclose(out.df, degrees, rtol=1e-9)
