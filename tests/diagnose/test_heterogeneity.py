"""Variation of site effects: identities, other people's numbers, and size and coverage in small simulations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.heterogeneity import heterogeneity
from msmmiv.diagnose.least_q import blocks_of, least_q
from msmmiv.errors import (
    ChoiceError,
    DataError,
    MomentsInsufficient,
    RankDeficientError,
    TooFewSitesError,
    UnknownCovarianceWarning,
)
from msmmiv.estimate.corrected import corrected_iv
from msmmiv.inference.meta import meta_regression, tau2_interval
from msmmiv.inference.tests import NotApplicable
from msmmiv.moments.effects import SiteEffects

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def effects(values, cov, weight=None) -> SiteEffects:
    """(K, 1 + P) or (K, D, 1 + P) values with known covariances."""
    values, cov = np.asarray(values, float), np.asarray(cov, float)
    if values.ndim == 2:
        values, cov = values[:, None], cov[:, None, :, None]
    k, d, m = values.shape
    precision = np.broadcast_to(np.eye(d), (k, d, d)) if weight is None else weight[:, None, None] * np.eye(d)
    return SiteEffects(
        tuple(f"s{j}" for j in range(k)), tuple("abc"[:d]) if d > 1 else ("",), tuple(f"m{j}" for j in range(m - 1)),
        "y", values, cov, precision, np.full(k, np.nan), "known", df=np.full(k, np.inf),
    )  # fmt: skip


def draw(rng, k, *, mean=1.0, vary=0.5, sd=0.0, noise=0.02, mediators=1, direct=0.0, corr=0.5):
    g = mean + vary * rng.normal(size=(k, mediators))
    d = np.linspace(1.0, 0.5, mediators) + sd * rng.normal(size=(k, mediators))
    m = 1 + mediators
    scale = noise * rng.uniform(0.5, 1.5, k)
    v = scale[:, None, None] * (np.full((m, m), corr) + (1 - corr) * np.eye(m))
    values = np.column_stack([(g * d).sum(axis=1) + direct, g])
    values = values + np.einsum("kij,kj->ki", np.linalg.cholesky(v), rng.normal(size=(k, m)))
    return effects(values, v, 1 / scale), d


def exact(k=12, seed=0):
    """Compliances without sampling error."""
    rng = np.random.default_rng(seed)
    g, v = rng.uniform(0.5, 1.5, k), rng.uniform(0.01, 0.05, k)
    b = g * (1 + 0.4 * rng.normal(size=k)) + np.sqrt(v) * rng.normal(size=k)
    cov = np.zeros((k, 2, 2))
    cov[:, 0, 0] = v
    return effects(np.column_stack([b, g]), cov, 1 / v), b, g, v


def q_at(e, d, alpha=0.0):
    """By loops over sites."""
    total = 0.0
    for values, cov in zip(e.estimates, e.cov, strict=True):
        residual = values[:, 0] - alpha - values[:, 1:] @ d
        b = np.concatenate([[1.0], -np.asarray(d)])
        v = np.einsum("a,daeb,b->de", b, cov, b)
        total += residual @ np.linalg.solve(v, residual)
    return total


# ------------------------------------------------------------------------------------------ Q


def test_q_is_cochrans_without_noise_in_compliance():
    e, b, g, v = exact()
    h = heterogeneity(e)
    reference = meta_regression(b, v=v, x=g, tau2="FE")
    assert np.isclose(h.q.stat, reference.q, rtol=1e-12)
    assert np.isclose(h.q.pvalue, reference.q_pvalue, rtol=1e-9)
    assert h.q.df == 11
    assert np.isclose(h.i2, reference.i2, rtol=1e-12)
    assert np.allclose(h.q_coefficients, reference.coefficients, rtol=1e-7)
    freed = heterogeneity(e, direct_effect=True)
    with_intercept = meta_regression(b, v=v, x=np.column_stack([np.ones(12), g]), tau2="FE")
    assert np.isclose(freed.q.stat, with_intercept.q, rtol=1e-12)
    assert freed.q.df == 10


@pytest.mark.parametrize("rho", ["", "_rho0.3"])
def test_q_equals_the_mvmr_package(rho):
    """Its pleiotropy Q has the same exact weights at other coefficients; its qhet estimate is our minimum."""
    golden = json.loads((GOLDEN / "mr_packages.json").read_text(encoding="utf-8"))["MVMR"]
    t = pd.read_csv(GOLDEN / "agg_multi_k40.csv")
    g = ["gamma1", "gamma2", "gamma3"]
    se = t[["se_tau", *(f"se_{n}" for n in g)]].to_numpy()
    shape = np.eye(4) if not rho else np.full((4, 4), 0.3) + 0.7 * np.eye(4)
    shape[0, 1:] = shape[1:, 0] = 0
    e = effects(t[["tau_hat", *g]].to_numpy(), se[:, :, None] * se[:, None, :] * shape)
    ivw = np.array(golden["ivw_mvmr"]["values"])[:, 0]
    assert np.isclose(q_at(e, ivw), golden[f"pleiotropy_mvmr{rho}"]["Qstat"], rtol=1e-12)
    least = least_q(blocks_of(e, direct=False))
    theirs = golden[f"qhet_mvmr{rho}"]
    theirs = theirs["est"] if isinstance(theirs, dict) else theirs
    assert np.allclose(least.coefficients, theirs, atol=1e-3)
    assert least.q <= q_at(e, theirs)
    assert np.isclose(least.q, q_at(e, least.coefficients), rtol=1e-12)


@pytest.mark.parametrize("noise", [0.02, 0.5, 3.0])
def test_no_grid_point_lies_below_the_minimum(noise):
    rng = np.random.default_rng(4)
    for _ in range(2):
        e, _ = draw(rng, 8, noise=noise)
        least = least_q(blocks_of(e, direct=False))
        assert min(q_at(e, [d]) for d in np.tan(np.linspace(-1.57, 1.57, 301))) >= least.q - 1e-9
        pair, _ = draw(rng, 8, noise=noise, mediators=2)
        least = least_q(blocks_of(pair, direct=False))
        grid = np.linspace(-4, 4, 17)
        assert min(q_at(pair, [a, b]) for a in grid for b in grid) >= least.q - 1e-7


def test_three_arms_share_a_control():
    """Blocks are inverted, and the direct effect is one per arm."""
    rng = np.random.default_rng(5)
    g = rng.normal(1, 0.5, (9, 2, 1))
    control = 0.02 * np.array([[1.0, 0.4], [0.4, 1.0]])
    v = np.einsum("de,ab->daeb", np.eye(2) + 1.0, control)
    root = np.linalg.cholesky(v.reshape(4, 4))
    values = np.concatenate([g, g], axis=2) + (rng.normal(size=(9, 4)) @ root.T).reshape(9, 2, 2)
    e = effects(values, np.broadcast_to(v, (9, 2, 2, 2, 2)))
    h = heterogeneity(e)
    assert h.q.df == 17
    assert np.isclose(h.q.stat, q_at(e, h.q_coefficients), rtol=1e-12)
    near = np.linspace(-0.2, 0.2, 41)
    assert min(q_at(e, h.q_coefficients + step) for step in near) >= h.q.stat - 1e-12
    freed = heterogeneity(e, direct_effect=True)
    assert freed.q.df == 15
    assert freed.q.stat < h.q.stat
    assert len(h.site_effects) == 9


def test_absent_arms_add_nothing():
    rng = np.random.default_rng(6)
    e, _ = draw(rng, 6)
    wide = np.full((6, 2, 2), np.nan)
    wide[:, 0] = e.estimates[:, 0]
    cov = np.full((6, 2, 2, 2, 2), np.nan)
    cov[:, 0, :, 0, :] = e.cov[:, 0, :, 0, :]
    precision = np.zeros((6, 2, 2))
    precision[:, 0, 0] = e.precision[:, 0, 0]
    holed = replace(e, contrasts=("a", "b"), estimates=wide, cov=cov, precision=precision)
    one, other = heterogeneity(e), heterogeneity(holed)
    assert np.isclose(one.q.stat, other.q.stat, rtol=1e-12)
    assert one.q.df == other.q.df
    assert np.allclose(one.spread, other.spread, rtol=1e-8)
    assert np.allclose(one.site_effects["effect"], other.site_effects["effect"], rtol=1e-8)


# -------------------------------------------------------------------------------------- spread


def test_spread_is_paule_mandel_on_ratios_without_noise_in_compliance():
    e, b, g, v = exact()
    h = heterogeneity(e)
    reference = meta_regression(b / g, v=v / g**2, tau2="PM")
    interval = tau2_interval(b / g, v=v / g**2)
    assert np.isclose(h.spread[0] ** 2, reference.tau2, rtol=1e-7)
    assert np.allclose(h.spread_interval**2, [interval.lower, interval.upper], rtol=1e-7)
    t = reference.tau2
    centre = h.centre[0]
    shrunken = centre + t / (t + v / g**2) * (b / g - centre)
    assert np.allclose(h.site_effects["effect"], shrunken, rtol=1e-7)
    assert np.allclose(h.site_effects["weight"], t / (t + v / g**2), rtol=1e-7)


def test_moment_estimator():
    e, _ = draw(np.random.default_rng(7), 30, sd=0.5)
    (b, g), v, w = e.estimates[:, 0].T, e.cov[:, 0, :, 0], e.precision[:, 0, 0]
    d = corrected_iv(e).coefficients[0]
    noise = v[:, 0, 0] - 2 * d * v[:, 0, 1] + d**2 * v[:, 1, 1]
    expected = 30 / 29 * (w @ ((b - g * d) ** 2 - noise)) / (w @ (g**2 - v[:, 1, 1]))
    h = heterogeneity(e, spread="moment")
    assert np.isclose(h.moment_variance, expected, rtol=1e-12)
    assert np.isclose(h.spread[0], np.sqrt(expected), rtol=1e-12)


def test_spread_of_several_mediators():
    """Mean over draws of the covariance of effects, with correlated sampling errors."""
    rng = np.random.default_rng(8)
    got = []
    for _ in range(40):
        h = heterogeneity(draw(rng, 200, sd=0.5, vary=0.8, mediators=2)[0])
        got.append(h.covariance)
        assert h.site_effects is None
        assert np.isnan(h.spread_interval).all()
    assert np.allclose(np.mean(got, axis=0), 0.25 * np.eye(2), atol=0.03)


def test_boundary_and_empty():
    e, _ = draw(np.random.default_rng(9), 20)
    calm = effects(e.estimates[:, 0], 2.0 * e.cov[:, 0, :, 0])
    h = heterogeneity(calm)
    assert h.spread[0] == 0
    assert "boundary, zero" in h.spread_status
    assert np.allclose(h.site_effects["weight"], 0)
    assert np.allclose(h.site_effects["effect"], h.centre[0])
    assert h.moment_variance < 0
    refused = heterogeneity(calm, spread="moment")
    assert np.isnan(refused.spread).all()
    assert "No spread: the moment estimate of the variance is -" in refused.spread_status
    too_calm = heterogeneity(effects(e.estimates[:, 0], 6.0 * e.cov[:, 0, :, 0]))
    assert np.isnan(too_calm.spread_interval).all()


def test_units_drop_out():
    for mediators in (1, 2):
        e, _ = draw(np.random.default_rng(10), 25, sd=0.4, mediators=mediators)
        unit = np.array([1e4, *([1e-3] * mediators)])
        other = replace(e, estimates=e.estimates * unit, cov=e.cov * unit[:, None, None] * unit)
        one, two = heterogeneity(e), heterogeneity(other)
        assert np.isclose(one.q.stat, two.q.stat, rtol=1e-9)
        assert np.allclose(one.spread * 1e7, two.spread, rtol=1e-6)
        assert np.allclose(one.prediction * 1e7, two.prediction, rtol=1e-6)


# ------------------------------------------------------------------------------------ contrasts


def test_estimands():
    e, _ = draw(np.random.default_rng(11), 30, sd=0.3)
    w, (b, g) = e.precision[:, 0, 0], e.estimates[:, 0].T
    first, pooled, equal, linear = heterogeneity(e).estimands
    assert np.allclose(first.estimate, corrected_iv(e).coefficients)
    assert np.allclose(pooled.estimate, (w @ b) / (w @ g), rtol=1e-12)
    influence = w * (b - g * pooled.estimate[0]) / (w @ g)
    assert np.allclose(
        pooled.std_errors, np.sqrt((influence - influence.mean()) @ (influence - influence.mean()))
    )
    assert np.allclose(equal.estimate, corrected_iv(e, weights="equal").coefficients)
    assert linear.status is None


def test_hausman_sees_effects_that_go_with_compliance():
    rng = np.random.default_rng(12)
    g = rng.normal(1, 0.5, 200)
    v = 0.01 * np.broadcast_to(np.eye(2) * 0.5 + 0.5, (200, 2, 2))
    values = np.column_stack([g * (1 + 0.8 * (g - 1)), g]) + rng.multivariate_normal([0, 0], v[0], 200)
    h = heterogeneity(effects(values, v))
    against_pooled = h.contrasts[0]
    assert "pooled IV" in against_pooled.name
    assert against_pooled.pvalue < 1e-4
    assert isinstance(h.contrasts[1], NotApplicable)  # equal weights: the same figure
    assert "same figure" in h.contrasts[1].reason


def test_pooled_compliance_near_zero():
    rng = np.random.default_rng(13)
    e, _ = draw(rng, 20, mean=0.0, vary=1.0)
    estimates = e.estimates - [0.0, np.average(e.estimates[:, 0, 1], weights=e.precision[:, 0, 0])]
    pooled = heterogeneity(replace(e, estimates=estimates)).estimands[1]
    assert pooled.status == "mean compliance is not distinguishable from zero"
    assert np.isnan(pooled.estimate).all()


# ----------------------------------------------------------------------------------- simulation


def test_size_and_coverage():
    """Size of Q at its minimum; coverage of the spread's and of the prediction interval."""
    rng = np.random.default_rng(14)
    runs, rejected, covered, predicted = 120, 0, 0, 0
    for _ in range(2 * runs):
        rejected += least_q(blocks_of(draw(rng, 30)[0], direct=False)).q > 42.557  # chi2(29) at .95
    for _ in range(runs):
        h = heterogeneity(draw(rng, 30, sd=0.4)[0])
        covered += h.spread_interval[0] <= 0.4 <= h.spread_interval[1]
        predicted += h.prediction[0, 0] <= 1 + 0.4 * rng.normal() <= h.prediction[0, 1]
    assert 0.02 <= rejected / (2 * runs) <= 0.085
    assert 0.90 <= covered / runs <= 0.99
    assert 0.89 <= predicted / runs <= 0.99


# ---------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize(("mediators", "direct"), [(1, False), (2, False), (1, True)])
def test_as_many_coefficients_as_sites(mediators, direct):
    e, _ = draw(np.random.default_rng(15), mediators + direct, mediators=mediators, noise=1e-4)
    h = heterogeneity(e, direct_effect=direct)
    assert isinstance(h.q, NotApplicable)
    assert "as many coefficients as sites" in h.q.reason
    assert np.isnan(h.i2)
    assert np.isnan(h.spread).all()
    assert np.isnan(h.prediction).all()
    assert "No spread" in h.spread_status
    assert "There is no test" in h.sentence
    assert "not applicable" in str(h)


def test_two_sites():
    h = heterogeneity(draw(np.random.default_rng(16), 2)[0])
    assert h.q.df == 1
    assert np.isnan(h.prediction).all()  # no degrees of freedom for a new site
    assert h.spread[0] >= 0
    assert any("2 sites" in note for note in h.notes)


def test_weak_compliances():
    """Noise only: Q exists, averages and spread do not, and the page says why."""
    rng = np.random.default_rng(17)
    v = np.broadcast_to(np.eye(2), (10, 2, 2))
    e = effects(np.column_stack([3 * rng.normal(size=10), 0.01 * rng.normal(size=10)]), v)
    h = heterogeneity(e)
    assert np.isfinite(h.q.stat)
    assert np.isnan(h.centre).all()
    assert "denominator not positive" in h.spread_status
    assert h.site_effects is None
    assert isinstance(h.contrasts[0], NotApplicable)


def test_the_least_q_at_infinity():
    cov = np.broadcast_to(np.diag([0.01, 1.0]), (4, 2, 2))
    values = [[1.0, 0.0], [-1.0, 0.0], [2.0, 1e-12], [-2.0, 0.0]]
    least = least_q(blocks_of(effects(values, cov), direct=False))
    assert least.status.startswith("the least Q lies at infinity")
    assert np.isnan(least.coefficients).all()
    assert least.q < 1e-6


def test_refusals():
    e, _ = draw(np.random.default_rng(18), 6)
    with pytest.raises(ChoiceError, match="spread='REML'"):
        heterogeneity(e, spread="REML")
    with pytest.raises(DataError, match="level=95"):
        heterogeneity(e, level=95)
    with pytest.raises(
        TooFewSitesError, match=r"1 row of sites and arms cannot identify 1 mediator and a direct"
    ):
        heterogeneity(draw(np.random.default_rng(1), 1)[0], direct_effect=True)
    cov = e.cov.copy()
    cov[2] = np.nan
    with pytest.raises(
        MomentsInsufficient, match=r"1 site is missing: s2.*one cluster.*cov_type='unbiased' or 'pooled'"
    ):
        heterogeneity(replace(e, cov=cov))
    still, odd = e.cov.copy(), e.cov.copy()
    still[1] = 0
    odd[4, 0, 0, 0, 1] = odd[4, 0, 1, 0, 0] = 1
    for cov, site in ((still, "s1"), (odd, "s4")):
        with pytest.raises(
            DataError, match=rf"\(known\) of 1 site is not positive: {site}\. .*cov_type='pooled'"
        ):
            heterogeneity(replace(e, cov=cov))
    same = np.column_stack([np.arange(6.0), np.ones(6)])
    with pytest.raises(RankDeficientError, match=r"m0 .*the same in all sites"):
        heterogeneity(effects(same, e.cov[:, 0, :, 0]), direct_effect=True)
    double = np.column_stack([np.arange(6.0), np.arange(1.0, 7.0), 2 * np.arange(1.0, 7.0)])
    with pytest.raises(RankDeficientError, match="exact proportion"):
        heterogeneity(effects(double, np.broadcast_to(np.eye(3), (6, 3, 3))))


def test_published_table_says_what_was_assumed():
    e, _ = draw(np.random.default_rng(19), 12, sd=0.3)
    t = pd.DataFrame({
        "s": e.sites, "b": e.estimates[:, 0, 0], "g": e.estimates[:, 0, 1],
        "sb": np.sqrt(e.cov[:, 0, 0, 0, 0]), "sg": np.sqrt(e.cov[:, 0, 1, 0, 1]),
    })  # fmt: skip
    with pytest.warns(UnknownCovarianceWarning):
        published = SiteEffects.from_table(
            t, site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg"
        )
    h = heterogeneity(published)
    assert any("taken as zero" in note for note in h.notes)
    assert list(h.site_effects["site"]) == list(e.sites)


def test_page_and_frame():
    star = mm.SiteEffects.from_moments(mm.data.star())
    h = heterogeneity(star)
    assert any("one cluster as independent" in note for note in h.notes)
    page = str(h)
    for words in ("Hansen J", "a new site, 95%", "Averages under different weights", "does not contradict"):
        assert words in " ".join(page.split())
    frame = h.to_frame()
    assert frame["mediator"].tolist() == ["class_size"]
    assert frame["lower"][0] < frame["centre"][0] < frame["upper"][0]
    two = heterogeneity(mm.SiteEffects.from_moments(mm.data.star("math_two_mediators")))
    assert len(two.to_frame()) == 2
