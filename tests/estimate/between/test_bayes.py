"""Structural Bayes: Gibbs against the posterior integrated on a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msmmiv.errors import ChoiceError, DataError, TooFewSitesError
from msmmiv.estimate.between.bayes import StructuralBayes, _ess, _notes, _r_hat
from tests.estimate.between.reml_dense import draw

#: Half a step of the grid, so that no cell is cut.
EDGE = np.exp(0.05)


def on_a_grid(rows, scale: float = 2.5):
    """Posterior of (slope, s, t) on a grid, means and true compliances integrated out by formula."""
    x, y = rows.x[:, 0], rows.y
    a, b, c = rows.noise[:, 0, 0], rows.itt_variance, rows.covariance[:, 0]
    ratio = y.std(ddof=1) / x.std(ddof=1)
    beta = ratio * scale * 4.5 * np.linspace(-1, 1, 121)
    s = x.std(ddof=1) * np.exp(np.linspace(-6, 5, 111))
    t = y.std(ddof=1) * np.exp(np.linspace(-6, 5, 111))
    beta, s, t = np.meshgrid(beta, s, t, indexing="ij")
    n11 = n12 = n22 = r1 = r2 = quad = logdet = 0.0
    for k in range(len(x)):
        s11, s12, s22 = a[k] + s**2, c[k] + beta * s**2, b[k] + beta**2 * s**2 + t**2
        det = s11 * s22 - s12**2
        w11, w12, w22 = s22 / det, -s12 / det, s11 / det
        logdet = logdet + np.log(det)
        n11, n12, n22 = n11 + w11, n12 + w12, n22 + w22
        r1, r2 = r1 + w11 * x[k] + w12 * y[k], r2 + w12 * x[k] + w22 * y[k]
        quad = quad + w11 * x[k] ** 2 + 2 * w12 * x[k] * y[k] + w22 * y[k] ** 2
    det = n11 * n22 - n12**2
    fitted = (n22 * r1**2 - 2 * n12 * r1 * r2 + n11 * r2**2) / det
    log = -0.5 * (logdet + np.log(det) + quad - fitted) - 0.5 * (beta / (scale * ratio)) ** 2
    weight = np.exp(log - log.max()) * s * t  # flat in s and t, steps equal in their logarithms
    weight /= weight.sum()
    d = (n11 * r2 - n12 * r1) / det - beta * (n22 * r1 - n12 * r2) / det
    small_s, small_t = s < EDGE * x.std(ddof=1), t < EDGE * y.std(ddof=1)
    moments = {"beta": beta, "d": d, "positive": beta > 0, "small_s": small_s, "small_t": small_t}
    return {n: float((weight * v).sum()) for n, v in moments.items()} | {
        "sd": float(np.sqrt((weight * beta**2).sum() - (weight * beta).sum() ** 2))
    }


@pytest.mark.parametrize("correlated", [False, True])
def test_gibbs_is_the_integral(correlated: bool) -> None:
    rows = draw(21, k=6, size=1.0, beta=1.0)
    size = np.sqrt(np.einsum("kaa->ka", rows.cov))
    sign = np.where(np.arange(6) % 3 == 0, 0.3, 0.8) if correlated else np.zeros(6)
    cov = rows.cov.copy()
    cov[:, 0, 1] = cov[:, 1, 0] = sign * size.prod(axis=1)
    rows = replace(rows, cov=cov)
    fit = StructuralBayes(draws=5000).solve(rows, seed=1)
    exact = on_a_grid(rows)
    beta, d, s, t = fit.posterior.draws.reshape(-1, 4).T
    error = 4 * fit.std_errors / np.sqrt(fit.posterior.ess[:2])
    assert abs(beta.mean() - exact["beta"]) < error[0]
    assert abs(d.mean() - exact["d"]) < error[1]
    assert beta.std() == pytest.approx(exact["sd"], rel=0.05)
    assert (beta > 0).mean() == pytest.approx(exact["positive"], abs=0.02)
    assert (s < EDGE * rows.x.std(ddof=1)).mean() == pytest.approx(exact["small_s"], abs=0.025)
    assert (t < EDGE * rows.y.std(ddof=1)).mean() == pytest.approx(exact["small_t"], abs=0.025)
    assert fit.posterior.r_hat.max() < 1.01
    assert len(fit.notes) == 1
    assert fit.notes[0].startswith("Prior: effect of m0 normal around 0 with standard deviation")


def test_the_correlation_matters() -> None:
    """Otherwise the test above could not see it."""
    rows = draw(21, k=6, size=1.0)
    one, two = (on_a_grid(rows.with_correlation(0, value)) for value in (0.8, 0.0))
    assert abs(one["d"] - two["d"]) > 0.1 or abs(one["positive"] - two["positive"]) > 0.03


def test_units_and_seed() -> None:
    rows = draw(22, k=6)
    unit = np.array([1e3, 1e-3])
    other = replace(rows, y=rows.y * 1e3, x=rows.x * 1e-3, cov=rows.cov * np.outer(unit, unit))
    short = StructuralBayes(draws=200, burn=50)
    one, two = short.solve(rows, seed=5), short.solve(other, seed=5)
    assert two.coefficients / [1e6, 1e3] == pytest.approx(one.coefficients, rel=1e-8)
    assert (short.solve(rows, seed=5).posterior.draws == one.posterior.draws).all()
    assert (short.solve(rows, seed=6).posterior.draws != one.posterior.draws).any()
    assert one.conf_int(0.9) == pytest.approx(one.posterior.interval(0.9)[:2])
    flat = one.posterior.draws[:, :, 0].ravel()
    assert one.posterior.probability_above(1.0) == (flat > 1.0).mean()


def test_a_tight_prior_pulls_to_zero() -> None:
    rows = draw(23, k=6)
    wide, tight = (StructuralBayes(draws=1000, prior_scale=v).solve(rows, seed=1) for v in (2.5, 0.05))
    assert abs(tight.coefficients[0]) < 0.3 * abs(wide.coefficients[0])


def test_diagnostics() -> None:
    rng = np.random.default_rng(0)
    calm = rng.normal(size=(4, 2000))
    assert _r_hat(calm) < 1.005
    assert _ess(calm) == pytest.approx(8000, rel=0.15)
    assert _r_hat(calm + np.arange(4)[:, None]) > 1.2
    assert _r_hat(calm * [[1.0], [1.0], [1.0], [4.0]]) > 1.05
    slow = np.zeros((4, 2000))
    for i in range(1, 2000):
        slow[:, i] = 0.9 * slow[:, i - 1] + rng.normal(size=4)
    assert _ess(slow) == pytest.approx(8000 * 0.1 / 1.9, rel=0.4)
    assert "not settled" in _notes(np.array([1.0, 1.02]), np.array([900.0, 900.0]), "x")[1]
    assert "not settled" in _notes(np.array([1.0, 1.0]), np.array([900.0, 300.0]), "x")[1]


def test_what_is_refused() -> None:
    spec = StructuralBayes(draws=10)
    with pytest.raises(ChoiceError, match="one mediator"):
        spec.solve(draw(1, p=2), seed=0)
    with pytest.raises(ChoiceError, match="no site covariates"):
        spec.solve(draw(1, q=2), seed=0)
    with pytest.raises(ChoiceError, match="share no people"):
        spec.solve(draw(1, k=5, arms=2), seed=0)
    with pytest.raises(TooFewSitesError, match="improper"):
        spec.solve(draw(1, k=2), seed=0)
    with pytest.raises(ChoiceError, match="positive"):
        StructuralBayes(draws=0).solve(draw(1), seed=0)
    with pytest.raises(DataError, match="level"):
        spec.solve(draw(1), seed=0).posterior.interval(1.5)
