"""Q with variances that come from few rows: Student ratios on the normal scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import chdtrc

import msmmiv as mm

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


def test_few_rows_no_longer_look_like_differences_between_sites():
    plain, taken = [], []
    for seed in range(120):
        found = effects(100 + seed)
        taken.append(mm.heterogeneity(found).q.pvalue)
        d = mm.heterogeneity(found).q_coefficients
        plain.append(chdtrc(19, mm.anderson_rubin_test(known(found), d).stat))
    assert (np.array(plain) < 0.05).mean() > 0.15
    assert (np.array(taken) < 0.05).mean() < 0.1
