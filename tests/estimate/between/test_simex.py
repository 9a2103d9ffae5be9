"""SIMEX against a loop of regressions, R's simex and mechte, and the estimator it converges to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msmmiv.errors import ChoiceError, DataError, DesignError, MsmmivWarning, TooFewSitesError
from msmmiv.estimate.between.corrected import BCES
from msmmiv.estimate.between.simex import SIMEX, SimexFit
from msmmiv.estimate.between.simex_draws import LAMBDAS, noise_root, simulate
from tests.estimate.between.made_rows import golden, golden_rows, random_rows, simple, with_corr


class Recorded:
    """A generator whose normals a test can see."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.drawn = []

    def standard_normal(self, size):
        self.drawn.append(self.rng.standard_normal(size))
        return self.drawn[-1]


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"p": 2},
        {"covariates": 2},
        {"p": 2, "covariates": 1, "arms": 2},
        {"intercept": False, "covariates": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("joint", [True, False])
def test_every_draw_is_a_regression(kind, joint):
    """Means and the Stefanski-Cook difference at each lambda, from regressions run one by one."""
    rows = random_rows(1, k=12, **kind)
    rng = Recorded(0)
    run = simulate(rows, noise_root(rows, joint=joint), 6, rng, covariances=True)
    k, m = 12, 1 + rows.x.shape[1]
    if rows.cross is None:
        errors = np.array(
            [
                [root @ e for e in one]
                for root, one in zip(noise_root(rows, joint=joint), rng.drawn[0], strict=True)
            ]
        )
    else:
        errors = (noise_root(rows, joint=joint) @ rng.drawn[0]).reshape(k, m, 3).transpose(0, 2, 1)
    if not joint:
        assert np.abs(errors[..., 0]).max() < 1e-7
    for j, t in enumerate(LAMBDAS):
        b, v = [], []
        for sign in (1, -1):
            for h in range(3):
                star = np.column_stack([rows.y, rows.x]) + sign * np.sqrt(t) * errors[:, h]
                d = np.column_stack([star[:, 1:], rows.z])
                one = np.linalg.lstsq(d, star[:, 0], rcond=None)[0]
                r = star[:, 0] - d @ one
                b.append(one)
                v.append(r @ r / (12 - d.shape[1]) * np.linalg.inv(d.T @ d))
        np.testing.assert_allclose(run.means[j], np.mean(b, axis=0), rtol=1e-10)
        between = np.cov(np.array(b).T, ddof=1) if t else 0.0
        np.testing.assert_allclose(run.t2[j], np.mean(v, axis=0) - between, rtol=1e-8, atol=1e-10)


def test_the_errors_drawn_have_the_covariance_of_the_rows():
    for rows in (random_rows(0, p=2), random_rows(0, p=2, arms=2)):
        root = noise_root(rows, joint=True)
        if rows.cross is None:
            np.testing.assert_allclose(root @ root.transpose(0, 2, 1), rows.cov, atol=1e-12)
        else:
            np.testing.assert_allclose(root @ root.T, rows.cross.reshape(42, 42), atol=1e-12)
        half = noise_root(rows, joint=False)
        if rows.cross is None:
            np.testing.assert_allclose((half @ half.transpose(0, 2, 1))[:, 1:, 1:], rows.noise, atol=1e-12)


@pytest.mark.parametrize(
    "kind", [{}, {"p": 2}, {"covariates": 2}, {"p": 2, "covariates": 1, "arms": 2}, {"arms": 3}], ids=str
)
@pytest.mark.parametrize("joint", [True, False])
def test_the_rational_extrapolant_is_bces(kind, joint):
    """At any number of rows, as draws grow; jointly drawn errors take Cov(itt, compliance) out, others do not."""
    rows = random_rows(4, k=12, **kind)
    if rows.cross is None and rows.x.shape[1] == 1:
        rows = with_corr(rows, 0.6)
    want, other = BCES(cov_uv=joint).solve(rows), BCES(cov_uv=not joint).solve(rows)
    many = np.array([SIMEX(B=4000, joint=joint).solve(rows, seed=s).coefficients for s in range(12)])
    error = many.std(axis=0, ddof=1) / np.sqrt(12)
    # A ratio of means has a bias of its own of order 1 / B; twelve runs of 4000 do not see it.
    assert (np.abs(many.mean(axis=0) - want.coefficients) < 4 * error + 1e-3).all()
    assert np.abs((other.coefficients - want.coefficients) / error).max() > 6
    fit = SIMEX(B=20000, joint=joint).solve(rows, seed=0)
    np.testing.assert_allclose(fit.std_errors, want.std_errors, rtol=0.05)


def test_the_influence_is_that_of_bces_with_the_drawn_denominator():
    rows = random_rows(2)
    fit = SIMEX(B=100000).solve(rows, seed=3)
    want = BCES().solve(rows)
    np.testing.assert_allclose(fit.covariance, want.covariance, rtol=0.03)
    common = np.array([[0.5, 0.2], [0.2, 0.4]])
    b = fit.coefficients[0]
    more = SIMEX(B=100000).solve(replace(rows, common=common), seed=3).covariance - fit.covariance
    np.testing.assert_allclose(more, [[0, 0], [0, 0.5 - 0.4 * b + 0.4 * b * b]], atol=1e-12)


@pytest.mark.parametrize("name", ["k5", "k10", "k30", "example"])
def test_quadratic_simex_is_that_of_r(name):
    """Mean of R over seeds, within four standard errors of it; our own simulation error is far smaller."""
    theirs = golden(name)["simex_mc_error"]
    fits = [SIMEX("quadratic", joint=False).solve(golden_rows(name), seed=s) for s in range(4)]
    ours = np.mean([f.coefficients for f in fits], axis=0)
    band = 4 * np.array(theirs["sd"][:2], dtype=float) / np.sqrt(theirs["reps"])
    assert (np.abs(ours[::-1] - theirs["mean"][:2]) < band).all()
    if name == "k5":  # R's own jackknife variance is negative there too
        assert golden("k5")["simex_quadratic_het"]["variance_jackknife"]["values"][1][1] < 0
        assert np.isnan(fits[0].std_errors[1])
        assert "the extrapolated variance is negative" in fits[0].notes[-1]
        assert np.isfinite(fits[0].coefficients).all()
        return
    errors = np.mean([f.std_errors for f in fits], axis=0)
    band = 4 * np.array(theirs["sd"][2:], dtype=float) / np.sqrt(theirs["reps"])
    assert (np.abs(errors[::-1] - theirs["mean"][2:]) < band).all()


@pytest.mark.parametrize("name", ["k5", "k10", "k30", "example"])
def test_linear_simex_is_that_of_r(name):
    theirs = golden(name)["simex_linear_het"]  # one seed with 1000 draws per lambda, drawn anew at each
    fit = SIMEX("linear", joint=False, B=4000).solve(golden_rows(name))
    spread = golden(name)["simex_mc_error"]
    one = 4 * np.array(spread["sd"][:2], dtype=float) * np.sqrt(spread["B_each"] / 1000)
    coef = [theirs["coef"]["(Intercept)"], theirs["coef"]["gamma_hat"]]
    assert (np.abs(fit.coefficients[::-1] - coef) < one).all()
    variance = np.array(theirs["variance_jackknife"]["values"])[::-1, ::-1]
    np.testing.assert_allclose(fit.covariance, variance, rtol=0.3 if name == "k5" else 0.15)


def test_as_printed_is_simest():
    rows = golden_rows("example", corr=0.5)
    with pytest.warns(MsmmivWarning, match="leaves out Cov"):
        fit = SIMEX(as_printed=True).solve(rows, seed=1)
    theirs = golden("example")["simest"]
    sd = np.array(golden("example")["simex_mc_error"]["sd"]) * np.sqrt(50 / 1000)
    mine = [*fit.coefficients[::-1], *fit.std_errors[::-1]]
    want = [theirs["alpha"], theirs["beta"], theirs["se_alpha"], theirs["se_beta"]]
    assert (np.abs(np.subtract(mine, want)) < 4 * sd).all()
    assert fit.df == 98
    np.testing.assert_allclose(mine, [4.614, 1.281, 0.689, 0.318], atol=0.02)
    for bad in (random_rows(0, p=2), random_rows(0, covariates=1), random_rows(0, arms=2)):
        with pytest.raises(DesignError, match="one mediator"):
            SIMEX(as_printed=True).solve(bad)
    with pytest.raises(DesignError, match="fixes the extrapolant"):
        SIMEX("linear", as_printed=True).solve(rows)


def test_a_pole_on_the_way_is_a_status():
    for name in ("k10", "example"):
        fit = SIMEX().solve(golden_rows(name))
        assert isinstance(fit, SimexFit)
        assert "denominator not positive" in fit.status
        assert fit.status.endswith("the rational extrapolant has a pole in (-1, 0)")
        assert np.isnan(fit.coefficients).all()
        assert np.isnan(fit.path.extrapolated[2]).all()
        assert np.isfinite(fit.path.extrapolated[:2]).all()
        assert (fit.seed, fit.B) == (0, 1000)


def test_the_path_and_its_curves():
    rows = random_rows(3, p=2, covariates=1)
    fit = SIMEX(B=400).solve(rows, seed=5)
    path = fit.path
    assert path.terms == rows.terms
    naive = np.linalg.lstsq(np.column_stack([rows.x, rows.z]), rows.y, rcond=None)[0]
    np.testing.assert_allclose(path.means[0], naive, rtol=1e-10)
    np.testing.assert_allclose(path.curve("rational", at=0.0)[0], naive, rtol=1e-10)
    for degree, name in ((1, "linear"), (2, "quadratic")):
        for j in range(4):
            fitted = np.polynomial.Polynomial.fit(LAMBDAS, path.means[:, j], degree)
            np.testing.assert_allclose(path.curve(name, at=[-1.0, 0.7])[:, j], fitted([-1.0, 0.7]), rtol=1e-9)
            assert path.extrapolated[degree - 1, j] == pytest.approx(fitted(-1.0), rel=1e-9)
    np.testing.assert_array_equal(path.extrapolated[2], fit.coefficients)
    np.testing.assert_allclose(path.curve("rational", at=LAMBDAS), path.means, atol=0.25)
    again = SIMEX(B=400).solve(rows, seed=5)
    np.testing.assert_array_equal(again.coefficients, fit.coefficients)
    assert (SIMEX(B=400).solve(rows, seed=6).coefficients != fit.coefficients).any()


@pytest.mark.parametrize(
    ("reliability", "reached"), [(0.9, 0.995), (0.7, 0.920), (0.5, 0.747), (1 / 3, 0.540)]
)
def test_what_the_quadratic_extrapolant_falls_short_by(reliability, reached):
    """Normal quantiles as truths: so many rows that the sample is the population."""
    from scipy.special import ndtri

    k = 4000
    x = ndtri((np.arange(k) + 0.5) / k)  # observed compliance, variance one
    noise = 1.0 - reliability
    rows = simple(x, reliability * x, noise, 1.0)
    fit = SIMEX("quadratic", B=20).solve(rows)
    assert fit.coefficients[0] == pytest.approx(reached, abs=0.006)
    said = float(fit.notes[0].split("about ")[1].split("%")[0]) / 100
    assert said == pytest.approx(reached, abs=0.01)


@pytest.mark.parametrize("kind", [{}, {"arms": 2}], ids=str)
def test_the_bootstrap_variance_is_near_that_of_the_influence(kind):
    rows = random_rows(6, k=60, scale=0.2, **kind)
    fit = SIMEX(variance="bootstrap", B=100, replicates=200).solve(rows)
    np.testing.assert_allclose(fit.std_errors, BCES().solve(rows).std_errors, rtol=0.3)


def test_replicates_without_an_estimate_are_counted():
    rows = golden_rows("k30")
    fit = SIMEX(variance="bootstrap", B=100, replicates=60).solve(rows)
    assert any("bootstrap replicates had no estimate" in n for n in fit.notes)


def test_what_is_refused():
    rows = random_rows(0)
    with pytest.raises(ChoiceError, match="Use 'influence' or 'bootstrap'"):
        SIMEX(variance="jackknife").solve(rows)
    with pytest.raises(ChoiceError, match="Use 'jackknife' or 'bootstrap'"):
        SIMEX("quadratic", variance="influence").solve(rows)
    with pytest.raises(ChoiceError, match="takes rows as independent"):
        SIMEX("quadratic").solve(random_rows(0, arms=2))
    with pytest.raises(ChoiceError, match="extrapolant"):
        SIMEX("cubic").solve(rows)
    with pytest.raises(ChoiceError, match="variance"):
        SIMEX(variance="jack").solve(rows)
    with pytest.raises(ChoiceError, match="extrapolant"):
        SIMEX().solve(rows).path.curve("cubic", at=0.0)
    with pytest.raises(DataError, match="at least 10"):
        SIMEX(B=5).solve(rows)
    with pytest.raises(TooFewSitesError, match="SIMEX needs at least 3 rows"):
        SIMEX().solve(rows.take(np.arange(14) < 2))
    assert SIMEX("linear", joint=False, variance="bootstrap").name == "simex(linear, joint=False, bootstrap)"
