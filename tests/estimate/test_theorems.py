"""The identities the package rests on, each against a computation on the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from tests.estimate.helpers import clustered, dense, hc, trial


def design(df: pd.DataFrame, **more: object) -> mm.Design:
    names = [c for c in df if c.startswith("m")]
    return mm.Design(
        outcome="y", treatment="t", mediators=names, site="site",
        covariates=[c for c in df if c.startswith("x")],
        block="block" if "block" in df else None, cluster="cluster" if "cluster" in df else None,
        **({"weights": "w", "weight_kind": "analytic"} if "w" in df else {}), **more,
    )  # fmt: skip


CASES = {
    "plain": {},
    "two mediators": {"mediators": 2},
    "three arms": {"mediators": 2, "arms": 3},
    "blocks": {"blocks": 3, "mediators": 2},
    "blocks and arms": {"blocks": 2, "arms": 3},
    "covariates": {"covariates": 2, "mediators": 2},
    "weights": {"weights": True, "mediators": 2},
    "everything": {"blocks": 2, "arms": 3, "covariates": 2, "mediators": 2, "weights": True},
}


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("method", ["2sls", "ols"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_covariance_equals_the_row_computation(case: str, method: str, direct: bool) -> None:
    df = trial(3, clusters=6, **CASES[case])
    study = mm.Study(df, design(df))
    truth = dense(
        df, list(study.design.mediators), covariates=study.design.covariates, block=study.design.block,
        direct=direct, weights=study.design.weights, ols=method == "ols",
    )  # fmt: skip
    n, k_all, k = len(df), truth["all"], truth["k"]
    fit = study.fit(method, cov_type="classical", direct_effect=direct)
    np.testing.assert_allclose(fit.params, truth["b"][:k], rtol=1e-10, atol=1e-12)
    sigma2 = truth["e"] @ truth["e"] / (n - k_all)
    expected = {
        "classical": sigma2 * truth["bread"][:k, :k],
        "HC0": hc(truth, 0),
        "HC1": hc(truth, 0) * n / (n - k_all),
        "HC2": hc(truth, 1),
        "HC3": hc(truth, 2),
    }
    for kind, cov in expected.items():
        got = study.fit(method, cov_type=kind, direct_effect=direct)
        np.testing.assert_allclose(got.cov, cov, rtol=1e-9, err_msg=kind)
        assert got.df_resid == n - k_all
    for kind in ("cluster", "site"):
        cr0 = clustered(truth, df[kind])
        g = df[kind].nunique()
        got = study.fit(method, cov_type=kind, small_sample="CR0", direct_effect=direct)
        np.testing.assert_allclose(got.cov, cr0, rtol=1e-8, atol=1e-14, err_msg=kind)
        got = study.fit(method, cov_type=kind, small_sample="CR1S", direct_effect=direct)
        np.testing.assert_allclose(got.cov, cr0 * g / (g - 1) * (n - 1) / (n - k_all), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_2sls_is_weighted_least_squares_of_itt_on_compliance_through_the_origin(
    seed: int, p: int, weighted: bool
) -> None:
    df = trial(seed, mediators=p, weights=weighted)
    study = mm.Study(df, design(df))
    by_hand = {}
    for s, d in df.groupby("site"):
        w = d["w"].to_numpy() if weighted else np.ones(len(d))
        t = d["t"] - np.average(d["t"], weights=w)
        size = (w * t**2).sum()
        by_hand[s] = [size, *((w * t * d[c]).sum() / size for c in ("y", *study.design.mediators))]
    table = np.array(list(by_hand.values()))
    root = np.sqrt(table[:, :1])
    slope = np.linalg.lstsq(table[:, 2:] * root, table[:, 1] * root[:, 0], rcond=None)[0]
    np.testing.assert_allclose(study.fit("2sls").params, slope, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(study.effects.weight, table[:, 0], rtol=1e-12)
    with_intercept = np.column_stack([table[:, 2:], np.ones(len(table))])
    line = np.linalg.lstsq(with_intercept * root, table[:, 1] * root[:, 0], rcond=None)[0]
    fit = study.fit("2sls", direct_effect=True)
    np.testing.assert_allclose(fit.params, line, rtol=1e-11, atol=1e-12)
    assert fit.terms[-1] == "direct_effect"


def test_with_covariates_the_diagonal_regression_is_not_2sls_but_the_full_one_is() -> None:
    df = trial(5, covariates=1)
    study = mm.Study(df, design(df))
    e = study.effects
    w, g, b = e.weight.to_numpy(), e.compliance["m0"].to_numpy(), e.itt.to_numpy()
    diagonal = (w * g * b).sum() / (w * g * g).sum()
    exact = float(study.fit("2sls").params["m0"])
    assert abs(diagonal - exact) > 1e-6
    t = df["t"] - df.groupby("site")["t"].transform("mean")
    z = pd.get_dummies(df["site"], dtype=float).to_numpy() * t.to_numpy()[:, None]
    x = (df["x0"] - df.groupby("site")["x0"].transform("mean")).to_numpy()
    q = np.diag(w) - np.outer(z.T @ x, z.T @ x) / (x @ x)
    assert (g @ q @ b) / (g @ q @ g) == pytest.approx(exact, rel=1e-11)


def test_site_clustered_covariance_is_the_sandwich_of_the_between_site_regression() -> None:
    df = trial(7, mediators=2, sites=15)
    study = mm.Study(df, design(df))
    e = study.effects
    w, g, b = e.weight.to_numpy(), e.compliance.to_numpy(), e.itt.to_numpy()
    fit = study.fit("2sls", cov_type="site")
    score = (w * (b - g @ fit.params.to_numpy()))[:, None] * g
    bread = np.linalg.inv((g * w[:, None]).T @ g)
    np.testing.assert_allclose(fit.cov, bread @ score.T @ score @ bread * 15 / 13, rtol=1e-10)
    assert fit.df_resid == 13


def test_multi_arm_estimate_needs_no_reference_arm() -> None:
    df = trial(11, arms=3, mediators=2)
    one = mm.Study(df, design(df, control=0)).fit("2sls")
    other = mm.Study(df, design(df, control=2)).fit("2sls")
    np.testing.assert_allclose(one.params, other.params, rtol=1e-11)
    np.testing.assert_allclose(one.cov, other.cov, rtol=1e-10)
    assert one.n_instruments == 16


def test_sites_may_lack_arms_even_the_control() -> None:
    df = trial(12, arms=3, mediators=1)
    df = df[~((df["site"] == 1) & (df["t"] == 2)) & ~((df["site"] == 2) & (df["t"] == 0))].reset_index(
        drop=True
    )
    fit = mm.Study(df, design(df)).fit("2sls", cov_type="HC2")
    truth = dense(df, ["m0"])
    np.testing.assert_allclose(fit.params, truth["b"][:1], rtol=1e-10)
    np.testing.assert_allclose(fit.cov, hc(truth, 1), rtol=1e-9)
    assert fit.n_instruments == 14


@pytest.mark.parametrize("kind", ["classical", "HC0", "HC1", "HC2", "HC3", "site"])
@pytest.mark.parametrize("direct", [False, True])
def test_a_dose_equals_the_row_computation(kind: str, direct: bool) -> None:
    df = trial(13, covariates=1)
    rng = np.random.default_rng(0)
    df["t"] = df["t"] * rng.uniform(0.5, 2, len(df))
    study = mm.Study(df, design(df, treatment_kind="continuous"))
    dummies = pd.get_dummies(df["site"], dtype=float).to_numpy()
    x = df[["x0"]].to_numpy()
    t = df[["t"]].to_numpy()
    extra = t if direct else np.zeros((len(df), 0))
    r = np.hstack([df[["m0"]], extra, x, dummies])
    z = np.hstack([dummies * t, x, dummies])
    fitted = z @ np.linalg.lstsq(z, r, rcond=None)[0]
    bread = np.linalg.inv(fitted.T @ fitted)
    b = bread @ fitted.T @ df["y"].to_numpy()
    k = r.shape[1] - dummies.shape[1]
    truth = {"b": b, "k": k, "bread": bread, "fitted": fitted, "e": df["y"].to_numpy() - r @ b,
             "h": np.einsum("ij,jk,ik->i", fitted, bread, fitted)}  # fmt: skip
    fit = study.fit(
        "2sls", cov_type=kind, direct_effect=direct, **({"small_sample": "CR0"} if kind == "site" else {})
    )
    np.testing.assert_allclose(fit.params, b[:k], rtol=1e-9)
    n, left = len(df), len(df) - r.shape[1]
    cov = {
        "classical": truth["e"] @ truth["e"] / left * bread[:k, :k],
        "HC0": hc(truth, 0), "HC1": hc(truth, 0) * n / left, "HC2": hc(truth, 1), "HC3": hc(truth, 2),
        "site": clustered(truth, df["site"]),
    }[kind]  # fmt: skip
    np.testing.assert_allclose(fit.cov, cov, rtol=1e-8)


def test_constant_effect_without_noise_comes_back_exactly() -> None:
    """Reardon & Raudenbush equations 7-9: exact site compliances and one effect return that effect."""
    rng = np.random.default_rng(4)
    df = pd.DataFrame({"site": np.repeat(range(10), 20), "t": np.tile([0, 1], 100)})
    g = rng.normal(1, 1, (10, 2))
    noise = rng.normal(size=(100, 2)).repeat(2, axis=0)  # the same in both arms: cancels from contrasts
    df["m0"] = g[df["site"], 0] * df["t"] + noise[:, 0]
    df["m1"] = g[df["site"], 1] * df["t"] + noise[:, 1]
    df["y"] = 2.0 * df["m0"] - 3.0 * df["m1"]
    fit = mm.Study(df, design(df)).fit("2sls", cov_type="classical")
    np.testing.assert_allclose(fit.params, [2.0, -3.0], rtol=1e-12)
    df["y"] += 5.0 * df["t"]
    fit = mm.Study(df, design(df)).fit("2sls", cov_type="classical", direct_effect=True)
    np.testing.assert_allclose(fit.params, [2.0, -3.0, 5.0], rtol=1e-11)


def test_three_groups_in_five_sites_give_ten_instruments() -> None:
    """Reardon & Raudenbush, note 1."""
    df = trial(1, sites=5, arms=3)
    assert mm.Study(df, design(df)).fit("2sls").n_instruments == 10
    assert mm.site_by_treatment(df, design(df)).shape[1] == 10


def test_late_is_the_same_number_under_another_name() -> None:
    df = trial(2)
    df["m0"] = (df["m0"] > df["m0"].median()).astype(int)
    ate, late = mm.Study(df, design(df)).fit("2sls"), mm.Study(df, design(df, estimand="late")).fit("2sls")
    assert float(ate.params["m0"]) == float(late.params["m0"])
    assert "compliers" in late.estimand
    assert "vii.b" in late.estimand
    assert "compliers" not in ate.estimand


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("p", [1, 2])
def test_first_stage_and_tests_equal_the_row_computation(direct: bool, p: int) -> None:
    df = trial(21, mediators=p, covariates=1, sites=10)
    study = mm.Study(df, design(df))
    fit = study.fit("2sls", cov_type="classical", direct_effect=direct)
    dummies = pd.get_dummies(df["site"], dtype=float).to_numpy()
    t = df[["t"]].to_numpy(float)
    z = dummies * t
    w = np.hstack([df[["x0"]].to_numpy(), dummies] + ([t] if direct else []))

    def rss(y: np.ndarray, x: np.ndarray) -> float:
        return float(((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum())

    full = np.hstack([z, w])
    rank = np.linalg.matrix_rank(full)
    excluded = rank - w.shape[1]
    df_u = len(df) - rank
    for stage, name in zip((fit.reduced_form, *fit.first_stage), ("y", *study.design.mediators), strict=True):
        u, r = rss(df[name].to_numpy(), full), rss(df[name].to_numpy(), w)
        assert stage.f_classical.stat == pytest.approx((r - u) / excluded / (u / df_u), rel=1e-9)
        assert (stage.f_classical.df, stage.f_classical.df_denom) == (excluded, df_u)
        assert stage.partial_r2 == pytest.approx(1 - u / r, rel=1e-9)
        slopes = np.linalg.lstsq(np.hstack([z, df[["x0"]], dummies]), df[name], rcond=None)[0][:10]
        np.testing.assert_allclose(stage.coefficients["estimate"], slopes, rtol=1e-9)
    names = list(study.design.mediators)
    without = df["y"].to_numpy() - df[names].to_numpy() @ fit.params[names].to_numpy()
    e = without - w @ np.linalg.lstsq(w, without, rcond=None)[0]
    q0 = e @ e - rss(e, full)
    assert fit.sargan.stat == pytest.approx(len(df) * q0 / (e @ e), rel=1e-8)
    assert fit.basmann.stat == pytest.approx(q0 / ((e @ e - q0) / df_u), rel=1e-8)
    assert fit.sargan.df == excluded - p
    v = np.column_stack(
        [df[m] - full @ np.linalg.lstsq(full, df[m], rcond=None)[0] for m in study.design.mediators]
    )
    base = np.hstack([df[list(study.design.mediators)], w])
    restricted, free = rss(df["y"].to_numpy(), base), rss(df["y"].to_numpy(), np.hstack([base, v]))
    left = len(df) - base.shape[1] - p
    assert fit.wu_hausman.stat == pytest.approx((restricted - free) / p / (free / left), rel=1e-8)
    assert fit.wu_hausman.df_denom == left
    assert fit.rss == pytest.approx(e @ e, rel=1e-9)


def test_just_identified_fit_has_no_overidentification_test_and_says_why() -> None:
    df = trial(22, mediators=2, sites=2)
    fit = mm.Study(df, design(df)).fit("2sls")
    assert isinstance(fit.sargan, mm.NotApplicable)
    assert "as many instruments" in fit.sargan.reason
    assert np.isnan(fit.sargan.stat)


def test_site_clustered_first_stage_is_not_applicable() -> None:
    df = trial(23, sites=10)
    fit = mm.Study(df, design(df)).fit("2sls", cov_type="site")
    assert isinstance(fit.first_stage[0].f_robust, mm.NotApplicable)
    assert "exactly zero" in fit.first_stage[0].f_robust.reason


def test_wald_test_and_intervals() -> None:
    df = trial(24, mediators=2, sites=10)
    fit = mm.Study(df, design(df)).fit("2sls")
    b, v = fit.params.to_numpy(), fit.cov.to_numpy()
    assert fit.wald_test(["m0", "m1"]).stat == pytest.approx(b @ np.linalg.solve(v, b) / 2)
    assert fit.wald_test([[1, -1]], [0.5]).stat == pytest.approx(
        (b[0] - b[1] - 0.5) ** 2 / (v[0, 0] + v[1, 1] - 2 * v[0, 1])
    )
    inside = fit.conf_int(0.9)
    from scipy.stats import t

    np.testing.assert_allclose(inside["upper"] - b, t.ppf(0.95, fit.df_resid) * fit.std_errors, rtol=1e-10)
    np.testing.assert_allclose(fit.pvalues, 2 * t.sf(np.abs(fit.tstats), fit.df_resid), rtol=1e-8)
    with pytest.raises(mm.errors.DataError, match="No term 'm9'"):
        fit.wald_test(["m9"])
    with pytest.raises(mm.errors.DataError, match="repeat each other"):
        fit.wald_test([[1, 0], [2, 0]])
    assert list(fit.tidy()) == [
        "term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high", "method", "cov_type",
    ]  # fmt: skip
    assert len(fit.glance()) == 1


def test_results_cannot_be_changed() -> None:
    fit = mm.fit(mm.data.star(), "2sls")
    with pytest.raises(AttributeError):
        fit.method = "ols"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        fit.coefficients[0] = 0
    params, cov = fit.params, fit.cov
    params["class_size"] = 99.0
    cov.iloc[0, 0] = 99.0
    assert float(fit.params["class_size"]) < 0
    assert fit.covariance[0, 0] < 1
