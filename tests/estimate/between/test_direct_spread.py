"""Cochran's Q and the spread of direct effects: against meta-regression, the package's other Q, and brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import DataError
from msmmiv.estimate.between.direct_spread import direct_spread
from msmmiv.estimate.between.rows import between_rows
from msmmiv.inference.meta import meta_regression, tau2_interval
from tests.estimate.between.makers import draw_rows, rows_from, shared_controls


@pytest.mark.parametrize("sd", [0.0, 1.0])
def test_with_exact_compliances_it_is_meta_regression(sd: float) -> None:
    rng = np.random.default_rng(1)
    x, v = rng.normal(size=20), rng.gamma(2, 0.3, 20)
    y = 1 + x + sd * rng.normal(size=20) + np.sqrt(v) * rng.normal(size=20)
    cov = np.zeros((20, 2, 2))
    cov[:, 0, 0], cov[:, 1, 1] = v, 1e-14
    found = direct_spread(rows_from(y, x, cov), np.array([1.0]))
    design = np.column_stack([np.ones(20), x])
    meta, limits = meta_regression(y, v=v, x=design, tau2="PM"), tau2_interval(y, v=v, x=design)
    assert found.q.stat == pytest.approx(meta.q, rel=1e-6)
    assert found.q.df == 18
    assert found.sd**2 == pytest.approx(meta.tau2, rel=1e-5, abs=1e-12)
    assert found.lower**2 == pytest.approx(limits.lower, rel=1e-5, abs=1e-12)
    assert found.upper**2 == pytest.approx(limits.upper, rel=1e-5)
    assert found.i2 == pytest.approx(max(0.0, 1 - 18 / meta.q), rel=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_it_is_the_least_q_of_heterogeneity_where_covariances_are_known(p: int) -> None:
    rows = draw_rows(np.random.default_rng(p), 25, (1.0, -0.5)[:p])
    names = [f"m{j}" for j in range(p)]
    frame = pd.DataFrame({"s": range(25), "b": rows.y, "sb": np.sqrt(rows.itt_variance)})
    for j, m in enumerate(names):
        frame[m], frame[f"{m}_se"] = rows.x[:, j], np.sqrt(rows.noise[:, j, j])
        frame[f"{m}_cov"] = rows.covariance[:, j]
    if p == 2:  # a table has no covariance between compliances
        frame[[f"{m}_cov" for m in names]] *= 0.5
    effects = mm.SiteEffects.from_table(
        frame, site="s", itt="b", itt_se="sb", compliance=names, compliance_se=[f"{m}_se" for m in names],
        cov=[f"{m}_cov" for m in names],
    )  # fmt: skip
    expected = mm.heterogeneity(effects, direct_effect=True).q
    found = direct_spread(between_rows(effects), np.zeros(p)).q
    assert found.stat == pytest.approx(expected.stat, rel=1e-6)
    assert found.df == 25 - p - 1


def test_two_valleys_do_not_matter() -> None:
    for seed in range(10):
        rows = draw_rows(np.random.default_rng(seed), 5, (0.5,), size=2.0)
        found = direct_spread(rows, np.array([50.0])).q.stat
        slopes = np.tan(np.linspace(-1.5707, 1.5707, 20001))
        c = np.column_stack([np.ones_like(slopes), -slopes])
        e = np.einsum("ga,kab,gb->gk", c, rows.cov, c)
        r = rows.y - slopes[:, None] * rows.x[:, 0]
        q = ((r - ((r / e).sum(1) / (1 / e).sum(1))[:, None]) ** 2 / e).sum(1)
        assert found <= q.min() + 1e-9
        assert found == pytest.approx(q.min(), rel=1e-4)


def test_rows_that_share_controls_by_dense_matrices() -> None:
    rows = shared_controls(np.random.default_rng(4), 8, 3)

    def q(slope: float, t: float) -> float:
        c = np.array([1.0, -slope])
        w = np.linalg.inv(np.einsum("a,kalb,b->kl", c, rows.cross, c) + t * np.eye(24))
        r = rows.y - slope * rows.x[:, 0]
        left = r - rows.z @ np.linalg.solve(rows.z.T @ w @ rows.z, rows.z.T @ w @ r)
        return float(left @ w @ left)

    found = direct_spread(rows, np.array([2.0]))
    slopes = np.linspace(-1, 5, 1201)
    assert found.q.stat == pytest.approx(min(q(s, 0.0) for s in slopes), rel=1e-3)
    assert min(q(s, found.sd**2) for s in slopes) == pytest.approx(found.q.df, rel=1e-3)


def test_rows_that_agree_too_well_have_no_interval() -> None:
    x = np.arange(12.0)
    rows = rows_from(1 + 2 * x, x, np.tile(np.eye(2), (12, 1, 1)))
    found = direct_spread(rows, np.array([2.0]))
    assert found.sd == 0.0
    assert np.isnan(found.lower)
    assert "agree better" in str(found)
    with pytest.raises(DataError, match="between 0 and 1"):
        direct_spread(rows, np.array([2.0]), level=2)


def test_coverage_of_the_interval() -> None:
    rng, hit = np.random.default_rng(6), 0
    for _ in range(60):
        found = direct_spread(draw_rows(rng, 12, (1.0,), size=0.5, sd=0.8), np.array([1.0]))
        hit += found.lower <= 0.8 <= found.upper
    assert hit >= 52
