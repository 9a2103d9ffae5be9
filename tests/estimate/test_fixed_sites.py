"""Sites held fixed: the covariance of UJIVE and MBTSLS from the noise of site effects, by simulation of moments."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, MomentsInsufficient
from msmmiv.estimate import system_of
from msmmiv.estimate.covariances import _noise_meat
from msmmiv.estimate.ujive import score_noise
from tests.estimate.dense import design_of
from tests.estimate.helpers import trial

REPS = 6000


def drawn(rng: np.random.Generator, p: int, each: int, sites: int = 12) -> dict[str, np.ndarray]:
    """One trial with fixed sites, REPS times: site effects r and covariances V, n = ``each`` per cell.

    Means are Gaussian and scatters Wishart, drawn at the level of arrays; arms and sites differ in variance, and
    effects differ between sites.
    """
    size = 1 + p
    g = rng.normal(0.6, 0.4, (sites, p))
    delta = 0.5 + 0.8 * rng.normal(size=(sites, p))
    mean = np.concatenate([(g * delta).sum(axis=1, keepdims=True), g], axis=1)
    root = np.tril(rng.normal(0, 0.4, (size, size)) + np.eye(size))
    scale = rng.uniform(0.6, 1.6, (sites, 2))
    effects = np.broadcast_to(mean, (REPS, sites, size)).copy()
    cov = np.zeros((REPS, sites, size, size))
    truth = np.zeros((sites, size, size))
    for arm in (0, 1):
        half = scale[:, arm, None, None] * root
        truth += half @ np.swapaxes(half, 1, 2) / each
        rows = rng.normal(size=(REPS, sites, each, size)) @ np.swapaxes(half, 1, 2)
        centre = rows.mean(axis=2)
        effects += (2 * arm - 1) * centre
        away = rows - centre[:, :, None]
        cov += np.einsum("rsni,rsnj->rsij", away, away) / (each - 1) / each
    return {"mean": mean, "effects": effects, "cov": cov, "truth": truth}


def meat_of(effects: np.ndarray, cov: np.ndarray, b: np.ndarray, weight: float, df: float) -> np.ndarray:
    """The package's meat for one draw: two arms, no direct effect."""
    sites, size = effects.shape
    within = SimpleNamespace(
        moments=SimpleNamespace(arms=(0, 1)), omega=np.full((sites, 1, 1), weight),
        identified=np.ones((sites, 1), dtype=bool), n_contrasts=1,
    )  # fmt: skip
    system = SimpleNamespace(
        within=within, n_mediators=size - 1, n_direct=0, covariates=(), terms=("m",) * (size - 1),
        site_slopes=effects[:, None, :], noise=SimpleNamespace(cov=cov[:, None, :, None, :], df=np.full(sites, df)),
    )  # fmt: skip
    return _noise_meat(system, SimpleNamespace(coefficients=b), "ujive")


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("each", [6, 20])
def test_the_variance_of_the_score_is_unbiased_at_a_fixed_coefficient(p: int, each: int) -> None:
    """E[meat] = Var(sum_s w (g e - V_ge)) with heterogeneous effects, unequal variances, few rows a cell."""
    rng = np.random.default_rng(100 * p + each)
    got = drawn(rng, p, each)
    b, weight = np.full(p, 0.5), each / 2
    direction = np.concatenate([[1.0], -b])
    e = got["effects"] @ direction
    score = weight * (got["effects"][..., 1:] * e[..., None] - got["cov"][:, :, 1:] @ direction)
    truth = np.atleast_2d(np.cov(score.sum(axis=1), rowvar=False))
    expected_mean = weight * (got["mean"][:, 1:] * (got["mean"] @ direction)[:, None]).sum(axis=0)
    error = np.sqrt(np.diag(truth) / REPS)
    assert (np.abs(score.sum(axis=1).mean(axis=0) - expected_mean) < 4.5 * error).all()
    meats = np.array(
        [meat_of(got["effects"][r], got["cov"][r], b, weight, 2 * (each - 1)) for r in range(REPS)]
    )
    # The truth is itself simulated: its standard error is about truth * sqrt(2 / REPS), 2%.
    scale = np.sqrt(np.outer(np.diag(truth), np.diag(truth)))
    assert (np.abs(meats.mean(axis=0) - truth) / scale < 0.07).all(), (meats.mean(axis=0), truth)


@pytest.mark.parametrize("p", [1, 2])
def test_standard_errors_follow_the_spread_of_the_estimates(p: int) -> None:
    """The coefficient's own sampling variance, sites fixed, against the mean of what the formula says (n = 20)."""
    rng = np.random.default_rng(7 + p)
    got = drawn(rng, p, 20, sites=40)
    weight = 10.0
    products = np.einsum("rsi,rsj->rij", got["effects"], got["effects"]) - got["cov"].sum(axis=1)
    b = np.linalg.solve(products[:, 1:, 1:], products[:, 1:, :1])[..., 0]
    spread = np.atleast_2d(np.cov(b, rowvar=False))
    covs = []
    for r in range(0, REPS, 6):
        bread = np.linalg.inv(weight * products[r, 1:, 1:])
        covs.append(bread @ meat_of(got["effects"][r], got["cov"][r], b[r], weight, 38.0) @ bread)
    np.testing.assert_allclose(np.diag(np.mean(covs, axis=0)), np.diag(spread), rtol=0.12)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("arms", [2, 3])
def test_from_the_moments_it_is_the_formula(arms: int, direct: bool) -> None:
    """With two arms and one mediator: w^2 {V_ee g^2 + 2 e g V_ge + e^2 V_gg - (df-1)/(df+1) (V_ee V_gg + V_ge^2)}."""
    df = trial(51, sites=8, per_site=60, arms=arms)
    study = mm.Study(df, design_of(df))
    fit = study.fit("ujive", cov_type="HTE", direct_effect=direct)
    assert np.isfinite(fit.covariance).all()
    if arms == 3 or direct:
        return
    system = system_of(study.moments)
    b = float(fit.params.iloc[0])
    w, (beta, g) = system.within.omega[:, 0, 0], system.site_slopes[:, 0].T
    v = system.noise.cov[:, 0, :, 0, :]
    e = beta - b * g
    vee, vge = v[:, 0, 0] - 2 * b * v[:, 0, 1] + b**2 * v[:, 1, 1], v[:, 0, 1] - b * v[:, 1, 1]
    vgg = v[:, 1, 1]
    shrink = (system.noise.df - 1) / (system.noise.df + 1)
    meat = w**2 * (vee * g**2 + 2 * e * g * vge + e**2 * vgg - shrink * (vee * vgg + vge**2))
    q = (w * (g**2 - vgg)).sum()
    assert float(fit.cov.iloc[0, 0]) == pytest.approx(meat.sum() / q**2, rel=1e-9)


def test_a_covariance_that_is_not_positive_is_none() -> None:
    """Compliance that is all noise: the estimated variance of the score can be negative, and then there is none."""
    found = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        df = trial(seed, sites=3, per_site=8)
        df["m0"] = rng.normal(size=len(df)) + 0.9 * df["t"] * (df["site"] == 1)
        fit = mm.Study(df, design_of(df)).fit("mbtsls", cov_type="HTE")
        if fit.status is None and np.isnan(fit.covariance).all():
            found += 1
            assert any("not positive definite: no standard errors" in note for note in fit.notes)
            assert fit.conf_int().isna().all(axis=None)
            assert fit.pvalues.isna().all()
            assert "nan" in fit.summary
            with pytest.raises(mm.errors.DataError, match="no Wald interval"):
                fit.confidence_set("m0")
    assert found


@pytest.mark.parametrize("name", ["ujive", "mbtsls"])
def test_covariates_and_doses_are_refused(name: str) -> None:
    df = trial(52, covariates=1)
    with pytest.raises(MomentsInsufficient, match="with covariates needs products of rows"):
        mm.Study(df, design_of(df)).fit(name, cov_type="HTE")
    dose = trial(52).assign(t=lambda d: d["t"] + 0.1 * np.sin(np.arange(len(d))))
    with pytest.raises(MomentsInsufficient, match="with a continuous treatment needs products of rows"):
        mm.Study(dose, design_of(dose, treatment_kind="continuous")).fit(name, cov_type="HTE")
    with pytest.raises(ChoiceError, match="'liml' has no 'HTE'"):
        mm.Study(df, design_of(df)).fit("liml", cov_type="HTE")


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("p", [1, 2])
def test_score_noise_as_a_quadratic_form_is_the_direct_formula(p: int, direct: bool) -> None:
    """Two arms: w^2 (V_ee g g' + V_ge V_ge'), the direct effect's own score being w e."""
    df = trial(53, sites=6, mediators=p)
    system = system_of(mm.Study(df, design_of(df)).moments, direct_effect=direct)
    form = score_noise(system, system.noise.cov)
    rng = np.random.default_rng(1)
    b = rng.normal(size=p + direct)
    vector = np.concatenate([[1.0], -b])
    got = np.einsum("kabij,i,j->kab", form, vector, vector)
    v = system.noise.cov[:, 0, :, 0, :]
    short = np.concatenate([[1.0], -b[:p]])
    for k in range(6):
        w, g = system.within.omega[k, 0, 0], np.append(system.site_slopes[k, 0, 1 : 1 + p], [1.0] * direct)
        vge = np.append(v[k, 1:] @ short, [0.0] * direct)
        expected = w**2 * (short @ v[k] @ short * np.outer(g, g) + np.outer(vge, vge))
        np.testing.assert_allclose(got[k], expected, rtol=1e-10, atol=1e-12)


def test_score_noise_of_three_arms_is_the_variance_of_the_score() -> None:
    """Simulated: the score g'Omega e less its noise, two contrasts that share the control."""
    df = trial(54, sites=4, arms=3)
    system = system_of(mm.Study(df, design_of(df)).moments)
    rng = np.random.default_rng(2)
    b = np.array([0.4])
    got = np.einsum("kabij,i,j->kab", score_noise(system, system.noise.cov), [1, -0.4], [1, -0.4])[:, 0, 0]
    for k in range(4):
        v = system.noise.cov[k].reshape(4, 4)
        u = (rng.normal(size=(200_000, 4)) @ np.linalg.cholesky(v).T).reshape(-1, 2, 2)
        g, omega = system.site_slopes[k, :, 1], system.within.omega[k]
        e = u[:, :, 0] - b * u[:, :, 1]
        score = np.einsum("rd,de,re->r", g + u[:, :, 1], omega, e)
        # At the true g the formula leaves out V_ee V_gg, which an estimated g adds on average.
        vgg, vee = (
            v.reshape(2, 2, 2, 2)[:, 1, :, 1],
            np.einsum("daeb,a,b->de", v.reshape(2, 2, 2, 2), [1, -0.4], [1, -0.4]),
        )
        extra = np.trace(omega @ vee @ omega @ vgg)
        assert score.var() == pytest.approx(got[k] + extra, rel=0.02)
