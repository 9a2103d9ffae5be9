"""Cases at the edge: singular first-stage covariances, many covariates, what rank says when there is no F."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from tests.estimate.helpers import dense, hc, trial


def design(mediators: list[str], **more: object) -> mm.Design:
    return mm.Design(outcome="y", treatment="t", mediators=mediators, site="site", **more)


def test_robust_first_stage_needs_more_clusters_than_arms() -> None:
    """Three arms in four classes per site: the clustered covariance of two slopes has rank one, and no inverse."""
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({"site": np.repeat(range(12), 80), "room": np.tile(np.repeat(range(4), 20), 12)})
    rows["t"] = rows["room"].map({0: 0, 1: 0, 2: 1, 3: 2})
    rows["cluster"] = rows["site"] * 4 + rows["room"]
    rows["m"] = (
        rows["t"] * (1 + rows["site"] % 3) + rng.normal(size=48)[rows["cluster"]] + rng.normal(size=len(rows))
    )
    rows["y"] = rows["m"] + rng.normal(size=len(rows))
    fit = mm.Study(rows, design(["m"], cluster="cluster")).fit("2sls")
    for stage in (fit.reduced_form, *fit.first_stage):
        assert isinstance(stage.f_robust, mm.NotApplicable)
        assert "singular" in stage.f_robust.reason
    assert isinstance(mm.Study(rows, design(["m"])).fit("2sls").first_stage[0].f_robust, mm.TestStatistic)


@pytest.mark.parametrize("source", ["frame", "file"])
def test_many_covariates(tmp_path: object, source: str) -> None:
    df = trial(4, covariates=25, sites=6, per_site=60)
    x = [f"x{j}" for j in range(25)]
    data: object = df
    if source == "file":
        data = tmp_path / "d.parquet"  # type: ignore[operator]
        df.to_parquet(data)
    fit = mm.Study(data, design(["m0"], covariates=x)).fit("2sls", cov_type="HC3")
    np.testing.assert_allclose(fit.cov, hc(dense(df, ["m0"], covariates=tuple(x)), 2), rtol=1e-7, atol=1e-14)


def test_rank_says_why_there_is_no_f() -> None:
    df = trial(1, mediators=2, sites=10, weights=True).assign(dup=lambda d: d["m0"])
    df["dose"] = df["t"] * (df["site"] % 3 + 1.0)
    same = mm.rank(mm.Moments.from_data(df, design(["m0", "dup"])))
    assert "dup is a linear combination" in same.sentence
    assert same.spectrum is None
    fixed = mm.rank(mm.Moments.from_data(df, design(["m0", "dose"])))
    assert "dose does not vary inside site-by-arm cells" in fixed.sentence
    assert fixed.spectrum is None
    sampled = mm.rank(mm.Moments.from_data(df, design(["m0", "m1"], weights="w", weight_kind="probability")))
    precise = mm.rank(mm.Moments.from_data(df, design(["m0", "m1"], weights="w", weight_kind="analytic")))
    assert sampled.spectrum is not None
    assert precise.spectrum is not None
    np.testing.assert_allclose(sampled.spectrum.strength, precise.spectrum.strength)
    assert isinstance(sampled.cragg_donald, mm.NotApplicable)
    assert isinstance(precise.cragg_donald, float)


def test_the_clause_on_weights_is_true_of_the_design() -> None:
    df = trial(2, mediators=2, sites=12)
    one = mm.Study(df, design(["m0"]))
    assert "n p (1 - p) times squared compliance" in one.fit("2sls").estimand
    e = one.effects
    w, g, b = e.weight.to_numpy(), e.compliance["m0"].to_numpy(), e.itt.to_numpy()
    assert (w * g**2 * (b / g)).sum() / (w * g**2).sum() == pytest.approx(float(one.fit("2sls").params["m0"]))
    free = one.fit("2sls", direct_effect=True)
    assert "count negatively" in free.estimand
    away = w * g * (g - np.average(g, weights=w))
    assert (away * (b / g)).sum() / away.sum() == pytest.approx(float(free.params["m0"]))
    assert "n p (1 - p)" not in mm.Study(df, design(["m0", "m1"])).fit("2sls").estimand


def test_site_effects_with_covariates_are_robust_where_rows_are_held() -> None:
    df = trial(1, mediators=2, sites=6, covariates=2, weights=True, arms=3)
    names = ["y", "m0", "m1"]
    roles = design(["m0", "m1"], covariates=["x0", "x1"], weights="w", weight_kind="probability")
    effects = mm.Study(df, roles).effects
    assert effects.cov_type == "HC2"
    root = np.sqrt(df[["w"]].to_numpy())
    site = pd.get_dummies(df["site"], dtype=float).to_numpy()
    z = np.hstack([site * (df[["t"]] == a).to_numpy(float) for a in (1, 2)])
    x = np.hstack([z, df[["x0", "x1"]], site]) * root
    bread = np.linalg.inv(x.T @ x)
    h = np.einsum("ij,jk,ik->i", x, bread, x)
    outcome = df[names].to_numpy() * root
    e = outcome - x @ (bread @ x.T @ outcome)
    for s in range(6):
        rows = np.array([s, 6 + s])
        for a in range(3):
            for b in range(3):
                meat = x.T @ (x * (e[:, a] * e[:, b] / (1 - h))[:, None])
                truth = (bread @ meat @ bread)[np.ix_(rows, rows)]
                np.testing.assert_allclose(effects.cov[s, :, a, :, b], truth, rtol=1e-8, atol=1e-12)
    alone = mm.SiteEffects.from_moments(mm.Moments.from_data(df, roles))
    assert np.isnan(alone.cov).all()
    assert "rows" in alone.cov_type
    with pytest.raises(mm.errors.MomentsInsufficient, match="invalid with probability weights"):
        mm.SiteEffects.from_moments(mm.Moments.from_data(df, roles), cov_type="classical")


def test_ignored_clusters_are_said() -> None:
    effects = mm.SiteEffects.from_moments(mm.data.star())
    assert effects.clusters_ignored
    assert "taken as independent" in repr(effects)
    assert not mm.SiteEffects.from_moments(mm.data.star(), cov_type="CR0").clusters_ignored


def test_cluster_means_are_the_rows_of_the_aggregated_table() -> None:
    """Mediators that vary inside clusters, so that what is inside must really be gone."""
    df = trial(6, mediators=2, sites=10, per_site=120, clusters=6)
    means = mm.Moments.from_data(df, design(["m0", "m1"], cluster="cluster")).cluster_means()
    table = df.groupby(["site", "cluster", "t"], as_index=False).agg(
        y=("y", "mean"), m0=("m0", "mean"), m1=("m1", "mean"), size=("y", "size")
    )
    truth = mm.Study(table, design(["m0", "m1"], weights="size", weight_kind="analytic"))
    for kind in ("classical", "HC1"):
        ours, theirs = mm.fit(means, "2sls", cov_type=kind), truth.fit("2sls", cov_type=kind)
        np.testing.assert_allclose(ours.params, theirs.params, rtol=1e-10)
        np.testing.assert_allclose(ours.cov, theirs.cov, rtol=1e-9)
        assert ours.nobs == theirs.nobs
    assert mm.rank(means).cragg_donald == pytest.approx(truth.rank().cragg_donald, rel=1e-9)


def test_sites_far_apart_are_not_called_constant() -> None:
    df = trial(8, sites=8)
    plain = mm.Study(df, design(["m0"])).fit("2sls").params["m0"]
    far = df.assign(m0=df["m0"] + 1e8 * df["site"])
    assert mm.Study(far, design(["m0"])).fit("2sls").params["m0"] == pytest.approx(float(plain), rel=1e-5)
