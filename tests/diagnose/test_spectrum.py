"""Strength of directions, its noise floor, variation, correlation and leverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import msmmiv as mm
from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.separation import compliance_correlation, site_leverage
from msmmiv.diagnose.spectrum import spectrum
from msmmiv.diagnose.variation import variation
from msmmiv.inference.meta import meta_regression
from msmmiv.linalg import frozen
from tests.diagnose.trials import KINDS, Kind, dense, net_of, rows_of, simple, simple_study, study_of

pytestmark = pytest.mark.filterwarnings("ignore")


def known(
    g: np.ndarray, cov: np.ndarray, weight: np.ndarray | None = None, *, direct: bool = False
) -> Compliances:
    """Compliances of sites with known covariances."""
    k, p = g.shape
    names = tuple(f"m{j}" for j in range(p))
    full = np.zeros((k, 1, 1 + p, 1, 1 + p))
    full[:, 0, 0, 0, 0] = 1.0
    full[:, 0, 1:, 0, 1:] = cov
    effects = mm.SiteEffects(
        sites=tuple(range(k)), contrasts=("",), mediators=names, outcome="y",
        estimates=frozen(np.column_stack([np.zeros(k), g])[:, None, :]), cov=frozen(full),
        precision=frozen((np.ones(k) if weight is None else weight)[:, None, None]), n=frozen(np.ones(k)),
        cov_type="published", df=frozen(np.full(k, np.inf)),
    )  # fmt: skip
    return Compliances.from_effects(effects, direct_effect=direct)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_strengths_solve_the_generalised_eigenproblem(kind):
    _, _, c = study_of(kind, rows_of(kind))
    found = spectrum(c, draws=19)
    for j, strength in enumerate(found.strength):
        x = found.combinations[:, j]
        np.testing.assert_allclose(c.explained @ x, strength * c.expected_noise @ x, rtol=1e-7, atol=1e-9)
        assert x @ c.expected_noise @ x == pytest.approx(1.0, rel=1e-9)
    assert (np.diff(found.strength) <= 0).all()
    assert np.linalg.norm(found.weights, axis=0) == pytest.approx(np.ones(kind.mediators))


def test_with_one_variance_strengths_are_cragg_donald_roots():
    study = simple_study(simple(10, 40))
    form = study.reduced_form()
    cov = form.within[1:, 1:]
    # Known homoskedastic noise: Omega^-1 Sigma in every site.
    full = Compliances.from_effects(mm.SiteEffects.from_moments(study.moments), direct_effect=False)
    weight = full.projection.omega[:, 0, 0]
    exact = known(full.slopes[:, 0], cov / weight[:, None, None], weight)
    roots = form.roots(rows=slice(1, None))[::-1] / form.n_instruments
    np.testing.assert_allclose(spectrum(exact, draws=19).strength, roots, rtol=1e-9)


def test_the_floor_is_the_law_of_noise():
    # No compliance at all: the only root of one mediator is chi2(K) / K.
    k = 10
    c = known(np.full((k, 1), 1e-9), np.full((k, 1, 1), 2.0))
    found = spectrum(c, draws=20_000, seed=1)
    assert found.floor[0] == pytest.approx(1.0, abs=0.01)
    assert found.floor_95[0] == pytest.approx(stats.chi2.ppf(0.95, k) / k, abs=0.03)
    # Two mediators of which the first is strong: the second root is near chi2(K - 1) / K.
    g = np.column_stack([np.linspace(5, 25, k), np.zeros(k)])
    two = spectrum(known(g, np.broadcast_to(np.eye(2), (k, 2, 2))), draws=20_000, seed=1)
    assert two.floor[1] == pytest.approx((k - 1) / k, abs=0.01)
    assert two.floor_95[1] == pytest.approx(stats.chi2.ppf(0.95, k - 1) / k, abs=0.03)


def test_p_values_are_uniform_without_compliance():
    rng, k, p = np.random.default_rng(7), 12, []
    cov = np.array([[1.0, 0.4], [0.4, 2.0]])
    g = np.column_stack([np.linspace(2, 9, k), 0.7 * np.linspace(2, 9, k)])
    for seed in range(400):
        estimates = g + rng.multivariate_normal(np.zeros(2), cov, k)
        p.append(spectrum(known(estimates, np.broadcast_to(cov, (k, 2, 2))), draws=99, seed=seed).pvalues[1])
    for level in (0.05, 0.25, 0.5):
        assert abs(np.mean(np.array(p) <= level) - level) < 3 * np.sqrt(level * (1 - level) / 400)


def test_a_shared_variance_widens_the_floor():
    c = known(np.full((10, 1), 1e-9), np.full((10, 1, 1), 2.0))
    few = replace(c, noise="pooled", df=frozen(np.full((10, 1), 8.0)))
    assert few.pooled_df == 8.0
    found = spectrum(few, draws=20_000)
    assert found.floor_95[0] == pytest.approx(stats.f.ppf(0.95, 10, 8), rel=0.03)


def test_variation_with_known_variances_is_meta_analysis():
    rng = np.random.default_rng(2)
    g, v = rng.normal(1.0, 0.6, 25), rng.uniform(0.05, 0.3, 25)
    table = variation(known(g[:, None], v[:, None, None], 1.0 / v)).iloc[0]
    fixed = meta_regression(g, v=v, tau2="FE")
    assert table["q"] == pytest.approx(fixed.q, rel=1e-9)
    assert table["df"] == 24
    assert table["i2"] == pytest.approx(1 - 24 / fixed.q, rel=1e-9)
    assert table["sd"] ** 2 == pytest.approx(meta_regression(g, v=v, tau2="PM").tau2, rel=1e-6)
    assert table["sd_reml"] ** 2 == pytest.approx(meta_regression(g, v=v, tau2="REML").tau2, rel=1e-6)
    # Weights one over variance: the moment estimate is DerSimonian and Laird's, the noise test is Q's.
    assert table["variance_moment"] == pytest.approx(meta_regression(g, v=v, tau2="DL").tau2, rel=1e-9)
    assert table["noise_p_value"] == pytest.approx(stats.chi2.sf(fixed.q, 24), rel=1e-6)


def test_variation_is_one_row_per_mediator_and_contrast():
    kind = Kind(arms=3, direct_effect=True)
    _, _, c = study_of(kind, rows_of(kind))
    table = variation(c)
    assert list(zip(table["mediator"], table["contrast"], strict=True)) == [
        ("m0", 1), ("m0", 2), ("m1", 1), ("m1", 2),
    ]  # fmt: skip
    assert (table["reason"] == "").all()


def test_correlation_takes_shared_noise_out():
    # True compliances are unrelated; errors of the two mediators are nearly the same.
    rng, k = np.random.default_rng(4), 4000
    truth = rng.normal(0.0, 1.0, (k, 2))
    cov = np.array([[1.0, 0.95], [0.95, 1.0]])
    g = truth + rng.multivariate_normal(np.zeros(2), cov, k)
    table = compliance_correlation(known(g, np.broadcast_to(cov, (k, 2, 2)))).set_index("kind")
    assert table.loc["uncentred", "raw"] == pytest.approx(0.475, abs=0.05)
    assert abs(table.loc["uncentred", "disattenuated"]) < 3 * table.loc["uncentred", "std_error"]
    assert table.loc["uncentred", "std_error"] == pytest.approx(0.026, abs=0.01)
    assert table.loc["centred", "reliability_first"] == pytest.approx(0.5, abs=0.05)
    # Both have mean three: together through the origin, unrelated around the mean.
    table = compliance_correlation(known(g + 3.0, np.broadcast_to(cov, (k, 2, 2)))).set_index("kind")
    assert table.loc["uncentred", "disattenuated"] == pytest.approx(0.9, abs=0.02)
    assert abs(table.loc["centred", "disattenuated"]) < 0.1


@pytest.mark.parametrize(
    "kind", [Kind(), Kind(direct_effect=True), Kind(arms=3), Kind(covariates=1)], ids=str
)
def test_the_standard_error_leaves_sites_out(kind):
    kind = replace(kind, sites=20)
    _, _, c = study_of(kind, rows_of(kind, moved=1.5))
    table = compliance_correlation(c).set_index("kind")
    if kind.covariates:  # slopes of covariates are kept as they are: no refit to compare with
        assert table["std_error"].notna().all()
        return
    for name, free in (("uncentred", False), ("centred", True)):
        at = c.with_direct_effect(free=free)
        values = []
        for k in range(kind.sites):
            keep = np.arange(kind.sites) != k
            cov, slopes = at.cov[keep], at.slopes[keep]
            to = type(at.projection)(
                at.projection.omega[keep], at.projection.cross[keep], at.projection.exogenous[keep]
            )
            s = to.explained(slopes) - to.noise(cov)
            values.append(s[0, 1] / np.sqrt(s[0, 0] * s[1, 1]))
        spread = np.sqrt((kind.sites - 1) / kind.sites * ((values - np.mean(values)) ** 2).sum())
        assert table.loc[name, "std_error"] == pytest.approx(spread, rel=1e-8)


def test_correlation_of_nothing_but_noise_is_a_status():
    rng = np.random.default_rng(0)
    g = np.column_stack([rng.normal(3, 1, 30), 0.01 * rng.normal(size=30)])
    row = compliance_correlation(known(g, np.broadcast_to(np.eye(2) * 0.1, (30, 2, 2)))).iloc[0]
    assert np.isnan(row["disattenuated"])
    assert row["note"] == "m1: nothing but noise is left"
    assert compliance_correlation(known(g[:, :1], np.full((30, 1, 1), 0.1))).empty


def test_leverage_sums_and_finds_the_site_that_carries_a_mediator():
    g = np.column_stack([np.ones(10), np.zeros(10)])
    g[4, 1] = 2.0
    c = known(g, np.broadcast_to(np.eye(2) * 0.01, (10, 2, 2)))
    table = site_leverage(c, spectrum(c, draws=19).combinations[:, -1])
    assert table["leverage"].sum() == pytest.approx(2.0)
    assert table.iloc[0]["site"] == 4
    assert table.iloc[0]["of m1"] == pytest.approx(0.9)
    for name in ("of m0", "of m1", "weakest"):
        assert table[name].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_leverage_is_that_of_the_second_stage(kind):
    rows = rows_of(kind)
    _, _, c = study_of(kind, rows)
    m, z, exogenous = dense(kind, rows)
    m, z = net_of(exogenous, m), net_of(exogenous, z)
    fitted = z @ np.linalg.lstsq(z, m, rcond=None)[0]
    hat = np.einsum("ip,pq,iq->i", fitted, np.linalg.inv(fitted.T @ fitted), fitted)
    ours = site_leverage(c, np.ones(kind.mediators)).set_index("site")["leverage"].sort_index()
    np.testing.assert_allclose(ours, pd.Series(hat).groupby(rows["site"].to_numpy()).sum(), rtol=1e-7)
