"""The parts of the expectation of 2SLS: they add up, they find what was put in, and they say when they cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import msmmiv as mm
from msmmiv.errors import DataError, RankDeficientError
from msmmiv.estimate.bias import bias_decomposition
from msmmiv.estimate.corrected import BCLinear, corrected_iv
from msmmiv.estimate.site_moments import weighted_products
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.within import within_sites
from tests.estimate.helpers import trial


def from_rows(rows, mediators) -> dict:
    design = mm.Design(outcome="y", treatment="t", mediators=mediators, site="site")
    moments = mm.Study(rows, design).moments
    w = within_sites(moments)
    n = w.between.sum(axis=0)
    s = (w.total.sum(axis=0) - n) / (moments.n.sum() - moments.n_cells)
    return {
        "effects": SiteEffects.from_moments(moments), "between": n, "within": s, "n_instruments": int(w.rank.sum()),
    }  # fmt: skip


def decompose(given):
    given = dict(given)
    return bias_decomposition(given.pop("effects"), **given)


def sites(rng, k, *, rho=0.0, size=0.0, per_arm=400.0, noise=1.0, confounding=0.7) -> dict:
    """Site effects, S and N of a trial with known residual covariance; mean effect one."""
    z = rng.normal(size=(k, 3))
    g = 1.0 + 0.5 * z[:, 0]
    d = 1.0 + 0.4 * (rho * z[:, 0] + size * z[:, 1] + np.sqrt(1 - rho**2 - size**2) * z[:, 2])
    w = per_arm / 2 * np.exp(0.5 * z[:, 1])
    s = noise * np.array([[1.0 + 2 * confounding + 1, 1.0 + confounding], [1.0 + confounding, 1.0]])
    v = s / w[:, None, None]
    r = np.column_stack([g * d, g]) + np.einsum("kij,kj->ki", np.linalg.cholesky(v), rng.normal(size=(k, 2)))
    effects = SiteEffects(
        sites=tuple(range(k)), contrasts=("",), mediators=("m",), outcome="y", estimates=r[:, None],
        cov=v[:, None, :, None], precision=w[:, None, None], n=4 * w, cov_type="known", df=np.full(k, np.inf),
    )  # fmt: skip
    return {"effects": effects, "between": np.einsum("k,ka,kb->ab", w, r, r), "within": s, "n_instruments": k}


@pytest.mark.parametrize(("arms", "mediators"), [(2, 1), (2, 2), (3, 2)])
def test_parts_add_up_to_2sls(arms, mediators):
    """By algebra, up to how the noise of compliances is estimated."""
    names = [f"m{j}" for j in range(mediators)]
    given = from_rows(trial(3, sites=14, per_site=600, arms=arms, mediators=mediators), names)
    d = decompose(given)
    assert np.allclose(sum(part.estimate for part in d.parts), d.expected, rtol=1e-12)
    moved = np.abs(d.finite_sample.estimate).max()
    assert np.allclose(d.expected, d.observed, atol=0.2 * moved + 1e-6)
    design = mm.Design(outcome="y", treatment="t", mediators=names, site="site")
    rows = trial(3, sites=14, per_site=600, arms=arms, mediators=mediators)
    assert np.allclose(d.observed, mm.fit(mm.Study(rows, design).moments, "2sls").params[names], rtol=1e-10)


def test_parts_add_up_exactly_when_the_noise_agrees():
    d = decompose(sites(np.random.default_rng(0), 30, rho=0.5))
    assert np.allclose(d.expected, d.observed, rtol=1e-12)


def test_each_part_is_what_it_says():
    given = sites(np.random.default_rng(1), 40, rho=0.4, size=0.3)
    e, n, s = given["effects"], given["between"], given["within"]
    d = decompose(given)
    weighted, equal = corrected_iv(e), corrected_iv(e, weights="equal")
    average = BCLinear().solve(e)
    assert np.allclose(d.target.estimate, average.coefficients)
    assert np.allclose(d.covariance.estimate, equal.coefficients - average.coefficients)
    assert np.allclose(d.weight.estimate, weighted.coefficients - equal.coefficients)
    f = n[1, 1] / (40 * s[1, 1])
    assert np.isclose(d.f, f, rtol=1e-12)
    assert np.allclose(d.least_squares, s[1, 0] / s[1, 1])
    assert np.allclose(d.finite_sample.estimate, (s[1, 0] / s[1, 1] - weighted.coefficients) / f, rtol=1e-12)
    assert np.allclose(d.target.std_errors, average.std_errors)


def test_finite_sample_part_for_two_mediators():
    given = from_rows(trial(9, sites=20, per_site=300, mediators=2), ["m0", "m1"])
    n, s, count = given["between"], given["within"], given["n_instruments"]
    centre = corrected_iv(given["effects"]).coefficients
    signal = n[1:, 1:] - count * s[1:, 1:]
    expected = np.linalg.solve(signal + count * s[1:, 1:], count * (s[1:, 0] - s[1:, 1:] @ centre))
    assert np.allclose(decompose(given).finite_sample.estimate, expected, rtol=1e-10)


@pytest.mark.parametrize("part", ["covariance", "weight", "finite_sample", "target"])
def test_standard_errors_against_the_jackknife(part):
    given = sites(np.random.default_rng(2), 60, rho=0.4, size=0.3, per_arm=60)
    e = given["effects"]
    full = getattr(decompose(given), part)
    left_out = []
    for s in range(60):
        keep = np.arange(60) != s
        less = replace(
            e, sites=tuple(np.arange(60)[keep]), estimates=e.estimates[keep], cov=e.cov[keep],
            precision=e.precision[keep], n=e.n[keep], df=e.df[keep],
        )  # fmt: skip
        n = weighted_products(less, "precision")[0].sum(axis=0)
        other = bias_decomposition(less, between=n, within=given["within"], n_instruments=59)
        left_out.append(getattr(other, part).estimate[0])
    jackknife = np.sqrt(59 / 60 * np.sum((left_out - np.mean(left_out)) ** 2))
    assert np.isclose(full.std_errors[0], jackknife, rtol=0.25)


def test_parts_find_what_was_put_in():
    """rho sd 2 CV / (1 + CV^2) for compliance; Cov(w g^2, delta) for weights; (OLS - d) / F for weakness."""
    rng = np.random.default_rng(3)
    runs = [decompose(sites(rng, 200, rho=0.5, size=0.4, per_arm=30)) for _ in range(60)]
    mean = {
        name: np.mean([getattr(r, name).estimate[0] for r in runs])
        for name in ("target", "covariance", "weight")
    }
    assert np.isclose(mean["target"], 1.0, atol=0.03)
    assert np.isclose(mean["covariance"], 0.5 * 0.4 * 2 * 0.5 / 1.25, atol=0.03)
    assert np.isclose(mean["weight"], 0.4 * 0.4 * 0.5, atol=0.02)  # E[w d] / E[w] - 1 for lognormal w
    pull = np.mean([r.finite_sample.estimate[0] for r in runs])
    truth = np.mean(
        [r.observed[0] - r.target.estimate[0] - r.covariance.estimate[0] - r.weight.estimate[0] for r in runs]
    )
    assert np.isclose(pull, truth, atol=1e-9)
    assert pull > 0.01


def test_page_and_frame():
    d = decompose(from_rows(trial(3, sites=14, per_site=300, mediators=2), ["m0", "m1"]))
    frame = d.to_frame()
    assert list(frame.columns) == ["mediator", "part", "estimate", "std_error", "status"]
    assert frame["part"].tolist()[:6] == [
        "target", "covariance", "weight", "finite sample", "expected 2SLS", "observed 2SLS",
    ]  # fmt: skip
    assert frame["mediator"].tolist() == ["m0"] * 6 + ["m1"] * 6
    page = str(d)
    for words in ("average effect over sites", "observed 2SLS", "times their noise", "taken to be symmetric"):
        assert words in page


def test_reading_names_the_mediator():
    strong = decompose(sites(np.random.default_rng(4), 300, rho=0.9, per_arm=4000))
    assert (
        "In these sites compliance and effect go together for m, so 2SLS is not the average" in strong.reading
    )
    calm = decompose(sites(np.random.default_rng(5), 100, per_arm=4000))
    assert "no clear sign that compliance and effect go together" in calm.reading


def test_parts_that_do_not_exist_say_so():
    """Two sites: 2SLS and the finite-sample part exist, the target does not."""
    given = sites(np.random.default_rng(6), 2)
    d = decompose(given)
    assert "2 usable sites cannot identify" in d.target.status
    assert "2 usable sites cannot identify" in d.covariance.status
    assert np.isnan(d.target.estimate).all()
    assert np.isnan(d.expected).all()
    assert d.finite_sample.status is None
    assert np.isfinite(d.finite_sample.estimate).all()
    assert np.isfinite(d.observed).all()
    assert "cannot be said" in d.reading
    assert "  -" in str(d)


def test_noise_only():
    rng = np.random.default_rng(7)
    given = sites(rng, 20)
    e = given["effects"]
    weak = replace(e, estimates=0.01 * e.estimates)
    d = bias_decomposition(weak, between=1e-4 * given["between"], within=given["within"], n_instruments=20)
    assert all(part.status.startswith("denominator not positive") for part in d.parts)
    assert d.f < 1
    assert "2SLS is about as biased as least squares within arms" in d.reading


def test_mediator_that_does_not_vary_inside_arms():
    given = sites(np.random.default_rng(8), 10)
    flat = given["within"].copy()
    flat[1] = flat[:, 1] = 0
    d = bias_decomposition(given["effects"], between=given["between"], within=flat, n_instruments=10)
    assert np.isnan(d.least_squares).all()
    assert d.f == float("inf")
    assert np.allclose(d.finite_sample.estimate, 0)


def test_refusals():
    given = sites(np.random.default_rng(9), 10)
    e, n, s = given["effects"], given["between"], given["within"]
    with pytest.raises(DataError, match=r"between has shape \(3, 3\); outcome and 1 mediators need \(2, 2\)"):
        bias_decomposition(e, between=np.eye(3), within=s, n_instruments=10)
    with pytest.raises(DataError, match="within must be finite and symmetric"):
        bias_decomposition(e, between=n, within=[[1, 2], [0, 1]], n_instruments=10)
    with pytest.raises(DataError, match="within has a negative"):
        bias_decomposition(e, between=n, within=-s, n_instruments=10)
    with pytest.raises(DataError, match="n_instruments=0"):
        bias_decomposition(e, between=n, within=s, n_instruments=0)
    with pytest.raises(RankDeficientError, match="m adds nothing to the first stage"):
        bias_decomposition(e, between=[[1.0, 0.0], [0.0, 0.0]], within=s, n_instruments=10)
