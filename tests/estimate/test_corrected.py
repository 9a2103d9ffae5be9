"""Estimators of the average effect when effects go with compliance."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, DesignError, MomentsInsufficient, TooFewSitesError
from msmmiv.estimate.corrected import BCLinear, BCSymmetric, corrected_iv
from msmmiv.estimate.site_moments import corrected_product, site_rows, weighted_products
from msmmiv.moments.effects import SiteEffects
from tests.estimate.helpers import trial


def effects(values, cov, weight=None) -> SiteEffects:
    """Two arms, known covariances."""
    values, cov = np.asarray(values, float), np.asarray(cov, float)
    k, m = values.shape
    return SiteEffects(
        sites=tuple(range(k)), contrasts=("",), mediators=tuple(f"m{j}" for j in range(m - 1)), outcome="y",
        estimates=values[:, None], cov=cov[:, None, :, None],
        precision=np.ones((k, 1, 1)) if weight is None else np.asarray(weight, float)[:, None, None],
        n=np.full(k, np.nan), cov_type="known", df=np.full(k, np.inf),
    )  # fmt: skip


def noisy(rng, truth, cov) -> SiteEffects:
    root = np.linalg.cholesky(cov)
    return effects(truth + np.einsum("kij,kj->ki", root, rng.normal(size=truth.shape)), cov)


def draw(rng, k, cv, *, rho=0.6, sd=0.4, noise=0.1) -> SiteEffects:
    """Mean effect one; effects go with compliance (correlation rho); correlated sampling errors."""
    mean = 1.2 / np.sqrt(1 + cv**2)
    z = rng.normal(size=(k, 2))
    g, d = mean + cv * mean * z[:, 0], 1 + sd * (rho * z[:, 0] + np.sqrt(1 - rho**2) * z[:, 1])
    scale = noise * rng.uniform(0.5, 1.5, k)
    return noisy(rng, np.column_stack([g * d, g]), scale[:, None, None] * np.array([[1.5, 0.6], [0.6, 1.0]]))


def arms() -> SiteEffects:
    rows = trial(5, sites=12, arms=3, mediators=2, per_site=600)
    design = mm.Design(outcome="y", treatment="t", mediators=["m0", "m1"], site="site")
    return SiteEffects.from_moments(mm.Study(rows, design).moments)


# ------------------------------------------------------------------------------- corrected products


def test_products_follow_the_printed_formulas():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(6, 3))
    root = rng.normal(size=(6, 3, 3))
    v = root @ root.transpose(0, 2, 1)
    b, g, h = u.T
    vg = v[:, 1, 1]
    assert np.allclose(corrected_product(u, v, (1, 1)), g**2 - vg, rtol=1e-12)
    assert np.allclose(corrected_product(u, v, (1, 1, 1)), g**3 - 3 * vg * g, rtol=1e-12)
    assert np.allclose(corrected_product(u, v, (1,) * 4), g**4 - 6 * vg * g**2 + 3 * vg**2, rtol=1e-12)
    assert np.allclose(corrected_product(u, v, (0, 1)), b * g - v[:, 0, 1], rtol=1e-12)
    assert np.allclose(
        corrected_product(u, v, (1, 1, 0)), g**2 * b - vg * b - 2 * v[:, 0, 1] * g, rtol=1e-12, atol=1e-12
    )
    assert np.allclose(corrected_product(u, v, (1, 2)), g * h - v[:, 1, 2], rtol=1e-12)


def test_products_are_unbiased_by_quadrature():
    """Exact expectation over normal errors in three dimensions: every product up to four factors."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    grid = np.array(list(product(nodes, repeat=3)))
    mass = np.prod(list(product(weights / weights.sum(), repeat=3)), axis=1)
    truth = np.array([0.7, -1.3, 0.4])
    v = np.array([[1.0, 0.5, -0.2], [0.5, 0.8, 0.1], [-0.2, 0.1, 0.6]])
    u = truth + grid @ np.linalg.cholesky(v).T
    many = np.broadcast_to(v, (len(u), 3, 3))
    for size in range(1, 5):
        for factors in product(range(3), repeat=size):
            mean = mass @ corrected_product(u, many, factors)
            assert np.isclose(mean, np.prod(truth[list(factors)]), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------- no noise


def test_exact_without_noise():
    """Effects exactly linear in compliance: the average comes out to rounding."""
    g = np.array([0.2, 0.5, 0.9, 1.4, 1.6])
    d = 0.3 + 0.8 * g
    e = effects(np.column_stack([g * d, g]), np.zeros((5, 2, 2)))
    assert np.isclose(BCLinear().solve(e).coefficients[0], d.mean(), rtol=1e-12)
    w = np.arange(1.0, 6.0)
    weighted = BCLinear(weights="precision").solve(
        effects(np.column_stack([g * d, g]), np.zeros((5, 2, 2)), w)
    )
    assert np.isclose(weighted.coefficients[0], w @ d / w.sum(), rtol=1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
def test_several_mediators_identify_the_symmetric_part(symmetric):
    """With an antisymmetric part A the estimate is off by A E[g], and E[g]'E[delta] is right all the same."""
    rng = np.random.default_rng(1)
    g = rng.normal(0.7, 0.5, (15, 2))
    b = np.array([[0.5, 0.2], [0.2, -0.3]])
    a = np.zeros((2, 2)) if symmetric else np.array([[0.0, 0.4], [-0.4, 0.0]])
    d = np.array([1.0, -0.5]) + g @ (b + a).T
    fit = BCLinear().solve(effects(np.column_stack([(g * d).sum(axis=1), g]), np.zeros((15, 3, 3))))
    mean = g.mean(axis=0)
    assert np.allclose(fit.coefficients, d.mean(axis=0) - a @ mean, rtol=1e-10)
    assert np.isclose(mean @ fit.coefficients, mean @ d.mean(axis=0), rtol=1e-10)
    assert fit.n_params == 5
    assert any("symmetric" in note for note in fit.notes)


def test_symmetric_formula():
    rng = np.random.default_rng(2)
    e = draw(rng, 9, 0.3)
    (b, g), v = e.estimates[:, 0].T, e.cov[:, 0, :, 0]
    cov = np.cov(g, b)
    top = g.mean() * b.mean() - (cov[0, 1] - v[:, 0, 1].mean())
    bottom = g.mean() ** 2 - (cov[0, 0] - v[:, 1, 1].mean())
    assert np.isclose(BCSymmetric().solve(e).coefficients[0], top / bottom, rtol=1e-12)


# ------------------------------------------------------------------------------------ influence


@pytest.mark.parametrize("estimator", [BCLinear(), BCLinear(weights="precision"), BCSymmetric(), None])
def test_influence_is_the_derivative_in_site_weights(estimator):
    """Repeat a site: the change per copy tends to the influence times sites over total."""
    rng = np.random.default_rng(3)
    base = draw(rng, 40, 0.4)
    solve = corrected_iv if estimator is None else estimator.solve
    fit = solve(base)
    assert fit.influence.shape == (40, 1)
    assert np.allclose(fit.influence.sum(axis=0), 0, atol=1e-12)
    copies = 400
    values = np.repeat(base.estimates[:, 0], copies, axis=0)
    cov = np.repeat(base.cov[:, 0, :, 0], copies, axis=0)
    for s in (0, 7):
        more = effects(np.vstack([values, values[[s * copies]]]), np.concatenate([cov, cov[[s * copies]]]))
        step = (solve(more).coefficients - solve(effects(values, cov)).coefficients) * copies
        assert np.allclose(step, fit.influence[s], rtol=2e-2, atol=2e-4)


def test_influence_of_several_mediators_and_arms():
    e = arms()
    for fit in (BCLinear().solve(e), corrected_iv(e), corrected_iv(e, weights="equal")):
        assert fit.influence.shape == (12, 2)
        assert np.allclose(fit.influence.sum(axis=0), 0, atol=1e-10)
        assert fit.cov.shape == (2, 2)
        assert np.allclose(fit.std_errors**2, np.diag(fit.cov))


def test_arms_without_estimates_are_left_out():
    e = arms()
    holed = e.estimates.copy()
    holed[3, 1] = np.nan
    holed[5] = np.nan
    cov = np.where(np.isnan(holed).any(axis=2)[:, :, None, None, None], np.nan, e.cov)
    cov = np.where(np.isnan(holed).any(axis=2)[:, None, None, :, None], np.nan, cov)
    less = replace(e, estimates=holed, cov=cov)
    assert len(site_rows(less).site) == 21
    fit = BCLinear().solve(less)
    assert np.isfinite(fit.coefficients).all()
    assert np.allclose(fit.influence[5], 0)


# -------------------------------------------------------------------------- corrected between-site IV


def test_corrected_iv_is_ujive_by_cells():
    """Kolesar's UJIVE: sum over sites of SSB less sum over arms of (1 - n_sa / n_s) S_sa."""
    rows = trial(4, sites=9, arms=3, mediators=2, per_site=60)
    design = mm.Design(outcome="y", treatment="t", mediators=["m0", "m1"], site="site")
    total = np.zeros((3, 3))
    for _, site in rows.groupby("site"):
        middle = site[["y", "m0", "m1"]].mean().to_numpy()
        for _, cell in site.groupby("t"):
            v = cell[["y", "m0", "m1"]].to_numpy()
            away = v.mean(axis=0) - middle
            total += len(v) * np.outer(away, away) - (1 - len(v) / len(site)) * np.cov(v.T)
    expected = np.linalg.solve(total[1:, 1:], total[1:, 0])
    fit = corrected_iv(SiteEffects.from_moments(mm.Study(rows, design).moments))
    assert np.allclose(fit.coefficients, expected, rtol=1e-10)


def test_observed_products_are_those_of_2sls():
    rows = trial(6, sites=7, mediators=2)
    design = mm.Design(outcome="y", treatment="t", mediators=["m0", "m1"], site="site")
    study = mm.Study(rows, design)
    n = weighted_products(SiteEffects.from_moments(study.moments), "precision")[0].sum(axis=0)
    expected = mm.fit(study.moments, "2sls").params[["m0", "m1"]].to_numpy()
    assert np.allclose(np.linalg.solve(n[1:, 1:], n[1:, 0]), expected, rtol=1e-10)


def test_units_drop_out():
    e = draw(np.random.default_rng(5), 30, 0.7)
    unit = np.array([1e5, 1e-4])
    other = effects(e.estimates[:, 0] * unit, e.cov[:, 0, :, 0] * np.outer(unit, unit))
    for solve in (BCLinear().solve, BCSymmetric().solve, corrected_iv):
        assert np.allclose(solve(other).coefficients, solve(e).coefficients * 1e9, rtol=1e-9)
        assert np.allclose(solve(other).influence, solve(e).influence * 1e9, rtol=1e-7)


# ----------------------------------------------------------------------------------------- simulation


@pytest.mark.parametrize("cv", [0.4, 1.0, 2.0])
def test_linear_is_consistent_where_2sls_is_not(cv):
    rng = np.random.default_rng(11)
    fits, plain, hit = [], [], 0
    for _ in range(150):
        e = draw(rng, 200, cv)
        fit = BCLinear().solve(e)
        fits.append(fit.coefficients[0])
        hit += abs(fits[-1] - 1) < 1.96 * fit.std_errors[0]
        plain.append(corrected_iv(e, weights="equal").coefficients[0])
    assert abs(np.mean(fits) - 1) < 0.025
    assert 0.88 <= hit / 150 <= 0.99
    assert np.isclose(np.mean(plain), 1 + 0.6 * 0.4 * 2 * cv / (1 + cv**2), atol=0.025)


@pytest.mark.parametrize("cv", [0.4, 2.0])
def test_symmetric_is_consistent_away_from_one(cv):
    rng = np.random.default_rng(12)
    fits = [BCSymmetric().solve(draw(rng, 200, cv)).coefficients[0] for _ in range(200)]
    assert abs(np.nanmedian(fits) - 1) < 0.02


def test_symmetric_is_singular_at_one():
    rng = np.random.default_rng(13)
    fits = [BCSymmetric().solve(draw(rng, 800, 1.0)) for _ in range(20)]
    silent = [f for f in fits if f.status]
    assert len(silent) >= 18
    assert silent[0].status.startswith("|1 - CV^2| < 0.25: BCSymmetric is singular at CV = 1")
    assert np.isnan(silent[0].coefficients).all()


def test_linear_with_two_mediators():
    rng = np.random.default_rng(14)
    b = np.array([[0.3, 0.1], [0.1, -0.2]])
    mean, fits = np.array([1.0, 0.6]), []
    v = 0.05 * (0.5 * np.eye(3) + 0.5)
    for _ in range(80):
        g = mean + rng.normal(size=(300, 2)) * [0.6, 0.5]
        d = [0.5, 0.8] + g @ b.T + 0.2 * rng.normal(size=(300, 2))
        e = noisy(rng, np.column_stack([(g * d).sum(axis=1), g]), np.broadcast_to(v, (300, 3, 3)))
        fits.append(BCLinear().solve(e).coefficients)
    assert np.allclose(np.mean(fits, axis=0), np.array([0.5, 0.8]) + b @ mean, atol=0.03)


def test_dropping_the_covariance_is_wrong():
    """The same draws with V_gb set to zero: the error the correction is for."""
    rng = np.random.default_rng(15)
    right, wrong = [], []
    for _ in range(60):
        e = draw(rng, 300, 0.4, noise=0.15)
        cov = e.cov[:, 0, :, 0].copy()
        cov[:, 0, 1] = cov[:, 1, 0] = 0
        right.append(corrected_iv(e).coefficients[0])
        wrong.append(corrected_iv(effects(e.estimates[:, 0], cov)).coefficients[0])
    gap = 0.15 * 0.6 / 1.2**2 * 1.0
    assert np.isclose(np.mean(wrong) - np.mean(right), gap, atol=0.01)


# ---------------------------------------------------------------------------------------------- edges


def test_denominator_not_positive():
    rng = np.random.default_rng(16)
    e = effects(0.01 * rng.normal(size=(20, 2)), np.broadcast_to(np.eye(2), (20, 2, 2)))
    for fit in (BCLinear().solve(e), corrected_iv(e)):
        assert fit.status.startswith("denominator not positive")
        assert np.isnan(fit.coefficients).all()
        assert np.isnan(fit.influence).all()
        assert np.isnan(fit.std_errors).all()


def test_too_few_sites():
    rng = np.random.default_rng(17)
    two = draw(rng, 2, 0.4)
    with pytest.raises(TooFewSitesError, match="2 usable sites cannot identify the 2 parameters of BCLinear"):
        BCLinear().solve(two)
    with pytest.raises(TooFewSitesError, match="BCSymmetric; it needs at least 3"):
        BCSymmetric().solve(two)
    assert np.isfinite(corrected_iv(two).coefficients).all()
    small = BCLinear().solve(draw(rng, 6, 1.0, noise=1e-4))
    assert any("6 sites for 2 parameters" in note for note in small.notes)


def test_refusals():
    e = arms()
    with pytest.raises(DesignError, match="BCSymmetric is for one mediator; there are 2"):
        BCSymmetric().solve(e)
    with pytest.raises(ChoiceError, match="weights='size'"):
        BCLinear(weights="size").solve(e)
    one = draw(np.random.default_rng(1), 5, 0.4)
    cov = one.cov[:, 0, :, 0].copy()
    cov[[1, 3]] = np.nan
    with pytest.raises(MomentsInsufficient, match=r"\(known\) of 2 sites is missing: 1 and 3.*pooled"):
        BCLinear().solve(effects(one.estimates[:, 0], cov))
    with pytest.raises(TooFewSitesError, match="No site has estimates"):
        site_rows(effects(np.full((3, 2), np.nan), np.full((3, 2, 2), np.nan)))


def test_published_table():
    rng = np.random.default_rng(18)
    e = draw(rng, 25, 0.5)
    t = pd.DataFrame(
        {"s": range(25), "b": e.estimates[:, 0, 0], "g": e.estimates[:, 0, 1], "c": e.cov[:, 0, 0, 0, 1],
         "sb": np.sqrt(e.cov[:, 0, 0, 0, 0]), "sg": np.sqrt(e.cov[:, 0, 1, 0, 1])}
    )  # fmt: skip
    published = SiteEffects.from_table(
        t, site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg", cov="c"
    )
    for weights in ("equal", "precision"):
        ours = BCLinear(weights=weights).solve(published)
        assert np.isfinite(ours.coefficients).all()
    assert np.allclose(BCLinear().solve(published).coefficients, BCLinear().solve(e).coefficients, rtol=1e-12)
