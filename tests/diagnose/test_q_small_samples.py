"""Q and the spread with variances that come from few rows: Student ratios on the normal scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import chdtrc, chdtri, fdtrc, ndtri, stdtrit

import msmmiv as mm
from msmmiv.diagnose.least_q import add_spread, blocks_of, least_q, normal_q, variance_where
from msmmiv.inference.tests import NotApplicable
from tests.validation.design import Cell, draw, moments

DESIGN = mm.Design(outcome="y", treatment="t", mediators="m", site="s")


def effects(seed: int, *, sites: int = 20, per_arm: int = 6) -> mm.SiteEffects:
    """One effect for all sites, few people in each."""
    rng = np.random.default_rng(seed)
    s, t = np.repeat(np.arange(sites), 2 * per_arm), np.tile([0, 1], sites * per_arm)
    u = rng.normal(size=len(s))
    m = rng.normal(1.5, 0.5, sites)[s] * t + u + rng.normal(size=len(s))
    y = m + u + rng.normal(size=len(s))
    moments = mm.Moments.from_data(pd.DataFrame({"s": s, "t": t, "m": m, "y": y}), DESIGN)
    return mm.SiteEffects.from_moments(moments, cov_type="unbiased")


def known(found: mm.SiteEffects) -> mm.SiteEffects:
    """The same with variances that count as known."""
    return replace(found, df=np.full(len(found.sites), np.inf))


def test_known_variances_give_the_plain_sum_at_its_minimum():
    found = known(effects(1))
    got = mm.heterogeneity(found)
    d = got.q_coefficients[0]
    e = found.estimates[:, 0, 0] - d * found.estimates[:, 0, 1]
    b = np.array([1.0, -d])
    v = np.einsum("a,kab,b->k", b, found.cov[:, 0, :, 0, :], b)
    assert abs(got.q.stat / float((e**2 / v).sum()) - 1.0) < 1e-8
    for other in (d - 0.01, d + 0.01):
        assert mm.anderson_rubin_test(found, other).stat >= got.q.stat


def test_estimated_variances_give_anderson_rubin_at_the_same_place():
    found = effects(1)
    got = mm.heterogeneity(found)
    assert abs(got.q.stat - mm.anderson_rubin_test(found, got.q_coefficients[0]).stat) < 1e-9
    assert got.q.stat < mm.heterogeneity(known(found)).q.stat


@pytest.mark.parametrize(("df", "off"), [(2.0, 0.03), (4.0, 0.01), (10.0, 0.003), (40.0, 0.001)])
def test_one_ratio_has_the_p_value_of_students_distribution(df, off):
    """At 5% and at 1%, for one site."""
    one = effects(3, sites=1)
    for p in (0.05, 0.01):
        t = -float(stdtrit(df, p / 2.0))
        value = one.estimates * [0.0, 1.0] + [t * np.sqrt(one.cov[0, 0, 0, 0, 0]), 0.0]
        blocks = blocks_of(replace(one, estimates=value, df=np.array([df])), direct=False)
        assert np.isclose(np.sqrt(normal_q(blocks, np.array([1.0, 0.0]))), -ndtri(p / 2.0), rtol=off)


def test_few_rows_no_longer_look_like_differences_between_sites():
    plain, taken = [], []
    for seed in range(120):
        found = effects(100 + seed)
        page = mm.heterogeneity(found)
        taken.append(page.q.pvalue)
        plain.append(chdtrc(19, mm.anderson_rubin_test(known(found), page.q_coefficients).stat))
    assert (np.array(plain) < 0.05).mean() > 0.15
    assert (np.array(taken) < 0.05).mean() < 0.1


# ------------------------------------------------------------------------------------- the spread


def three_arms(rng: np.random.Generator, *, sites: int, per_arm: int, spread: float = 0.0) -> mm.SiteEffects:
    """Two treatments that share a control."""
    s, t = np.repeat(np.arange(sites), 3 * per_arm), np.tile(np.repeat([0, 1, 2], per_arm), sites)
    u, g = rng.normal(size=len(s)), rng.normal(1.5, 0.75, (sites, 3))
    m = g[s, t] * (t > 0) + u + rng.normal(size=len(s))
    y = (0.5 + spread * rng.normal(size=sites))[s] * m + u + rng.normal(size=len(s))
    data = mm.Moments.from_data(pd.DataFrame({"s": s, "t": t, "m": m, "y": y}), replace(DESIGN, control=0))
    return mm.SiteEffects.from_moments(data, cov_type="unbiased")


def two_arms(
    rng: np.random.Generator, *, sites: int, per_arm: int, spread: float, f: float = 10.0
) -> mm.SiteEffects:
    cell = Cell(sites, f, spread, 1, "gaussian", per_arm)
    (mean,), (scatter,) = draw(cell, rng, 1)
    return mm.SiteEffects.from_moments(moments(cell, mean, scatter), cov_type="unbiased")


def agrees(page: mm.Heterogeneity, level: float) -> bool:
    """Whether the interval, the estimate and the test say the same about zero."""
    assert not isinstance(page.q, NotApplicable)
    low, high = page.spread_interval
    half = (1.0 - level) / 2.0
    if np.isnan(low):  # empty: sites agree too well
        return page.spread[0] == 0 and page.q.pvalue > 1.0 - half
    told = any("still starts at zero" in note for note in page.notes)
    return (
        (low > 0) == (page.q.pvalue < half)
        and (page.spread[0] > 0) == (page.q.stat > page.q.df)
        and low <= page.spread[0] <= high
        and told == (half <= page.q.pvalue < 1.0 - level)
    )


@pytest.mark.parametrize("seed", range(42))
def test_interval_estimate_and_test_never_contradict_one_another(seed):
    """Random designs: few or many people and sites, effects that differ or not, weak or strong, 2 or 3 arms."""
    rng = np.random.default_rng(seed)
    sites, per_arm = int(rng.integers(6, 40)), int(rng.integers(4, 15))
    spread, level = float(rng.choice([0.0, 0.2, 0.6])), float(rng.choice([0.5, 0.9, 0.95]))
    if seed % 6 == 0:
        found = three_arms(rng, sites=sites, per_arm=per_arm, spread=spread)
    else:
        found = two_arms(
            rng, sites=sites, per_arm=per_arm, spread=spread, f=float(rng.choice([4.0, 10.0, 50.0]))
        )
    page = mm.heterogeneity(found, direct_effect=seed % 4 == 1, level=level)
    if np.isfinite(page.centre).all():
        assert agrees(page, level), page
    else:
        assert np.isnan(page.spread).all()


def test_the_page_says_why_a_rejection_goes_with_an_interval_from_zero():
    pages = [
        mm.heterogeneity(two_arms(np.random.default_rng(s), sites=12, per_arm=8, spread=0.4))
        for s in range(60)
    ]
    between = [page for page in pages if 0.025 <= page.q.pvalue < 0.05]
    assert between
    for page in between:
        assert page.spread_interval[0] == 0
        assert "it leaves zero out where p < 0.025" in str(page)


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_few_people_do_not_make_a_spread(spread):
    """Chi-squared quantiles of ratios with the variances of 6 people covered zero in 76 percent of trials."""
    cell, covered = Cell(50, 10.0, spread, 1, "gaussian", 6), []
    rng = np.random.default_rng(1)
    for mean, scatter in zip(*draw(cell, rng, 150), strict=True):
        found = mm.SiteEffects.from_moments(moments(cell, mean, scatter), cov_type="unbiased")
        low, high = mm.heterogeneity(found).spread_interval
        covered.append(low <= spread <= high)
    assert 0.91 <= np.mean(covered) <= 0.99


def test_with_three_arms_the_sum_is_hotellings():
    """As if known, it rejects in more than half of these trials."""
    as_known, taken = [], []
    for seed in range(60):
        found = three_arms(np.random.default_rng(seed), sites=30, per_arm=6)
        as_known.append(least_q(blocks_of(known(found), direct=False)).q)
        taken.append(least_q(blocks_of(found, direct=False)).q)
    critical = chdtri(59, 0.05)
    assert (np.array(as_known) > critical).mean() > 0.3
    assert (np.array(taken) > critical).mean() < 0.15


def test_two_contrasts_are_exact_and_the_spread_adds_degrees_of_freedom():
    found = three_arms(np.random.default_rng(3), sites=1, per_arm=6)
    e = replace(found, df=np.array([11.0]))
    blocks, b = blocks_of(e, direct=False), np.array([1.0, 0.0])
    v = blocks.cov[0, :, 0, :, 0]
    square = float(blocks.values[0, :, 0] @ np.linalg.solve(v, blocks.values[0, :, 0]))
    assert np.isclose(chdtrc(2, normal_q(blocks, b)), fdtrc(2, 10, square * 10 / 11 / 2), rtol=1e-10)
    # As much again that is no sampling error: half of the variance is known, the degrees of freedom are fourfold.
    twice = normal_q(add_spread(blocks, v[None], 1.0), b)
    assert np.isclose(chdtrc(2, twice), fdtrc(2, 43, square / 2 * 43 / 44 / 2), rtol=1e-10)
    one = two_arms(np.random.default_rng(3), sites=4, per_arm=6, spread=0.0)
    blocks = blocks_of(one, direct=False)
    wide = add_spread(blocks, blocks.cov[:, :, 0, :, 0], 1.0)
    same = replace(blocks, cov=wide.cov, df=4.0 * blocks.df)
    assert np.isclose(normal_q(wide, b), normal_q(same, b), rtol=1e-12)


@pytest.mark.parametrize("seed", [0, 10, 24, 30, 56])
def test_the_variance_is_where_the_least_q_over_all_directions_has_its_value(seed):
    """Weak compliances: Q has several valleys, and following one of them leads past the deepest in these trials."""
    found = known(three_arms(np.random.default_rng(seed), sites=6, per_arm=4, spread=1.0))
    blocks = blocks_of(replace(found, estimates=found.estimates - [0.0, 1.3]), direct=False)
    least = least_q(blocks)
    second = blocks.values[:, :, None, 1] * blocks.values[:, None, :, 1]
    variance = variance_where(blocks, second, 0.5 * least.q, least)
    again = least_q(add_spread(blocks, second, variance))
    assert np.isclose(again.q, 0.5 * least.q, rtol=1e-5)
