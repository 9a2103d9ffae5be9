"""Effects by profiling the slope out: against a brute-force profile, limits with known answers, shares."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

import msmmiv as mm
from msmmiv.errors import DataError
from msmmiv.estimate.between.effects import (
    direct_pvalue,
    intercept_pvalue,
    intercept_set,
    mean_effects,
    profile,
    shares_of,
)
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.estimate.between.slope_test import SlopeTest
from tests.estimate.between.makers import draw_rows, rows_from, shared_controls


def equal(rows: BetweenRows) -> np.ndarray:
    return np.full((1, rows.n_rows), 1.0 / rows.n_rows)


def distances(test: SlopeTest, weights: np.ndarray, kind: str, effect: float, values: np.ndarray) -> float:
    """min over slopes of the squared distance of one effect, straight from the definition."""
    rows, best = test.rows, np.inf
    path, p = test.path(values), test.pvalue(values)
    for g, v in enumerate(values):
        c = np.array([1.0, -v])
        own = rows.cov @ c
        spread = max(path.std_error[g] ** 2, float((path.influence[g] ** 2 * (own @ c)).sum()))
        told = (path.influence[g] * weights) @ own / spread  # on (itt, compliance)
        mean = np.array([weights @ rows.y, weights @ rows.x[:, 0]]) - told * path.score[g]
        cov = np.einsum("k,kab->ab", weights**2, rows.cov) - np.outer(told, told) * spread
        a = {"indirect": [0.0, v], "direct": [1.0, -v], "share": [-effect, v]}[kind]
        target = 0.0 if kind == "share" else effect
        z = float(ndtri(1 - p[g] / 2))
        best = min(best, z**2 + (np.dot(a, mean) - target) ** 2 / (a @ cov @ np.array(a)))
    return float(best)


@pytest.mark.parametrize("kind", ["indirect", "direct", "share"])
def test_ends_of_the_sets_are_where_the_profile_reaches_the_quantile(kind: str) -> None:
    rows = draw_rows(np.random.default_rng(1), 20)
    test = SlopeTest.of(rows, "m1", draws=199)
    slope = test.confidence_set(0.95)
    found = getattr(profile(test, slope, equal(rows)), kind)()
    assert found.shape == "interval"
    low, high = slope.hull
    values = np.linspace(low, high, 3001)
    limit = float(ndtri(0.975)) ** 2
    for end in found.hull:
        assert distances(test, equal(rows)[0], kind, end, values) == pytest.approx(limit, rel=0.03)
    middle = 0.5 * sum(found.hull)
    assert distances(test, equal(rows)[0], kind, middle, values) < limit


def test_with_a_slope_known_all_but_exactly_share_is_fiellers_and_effects_are_normal() -> None:
    rng = np.random.default_rng(2)
    k, slope = 150, 2.0
    x = rng.normal(1.0, 1.0, k)
    cov = np.zeros((k, 2, 2))
    cov[:, 0, 0], cov[:, 1, 1] = 0.3**2 * slope**2, 0.3**2
    cov[:, 0, 1] = cov[:, 1, 0] = 0.9999999 * 0.3**2 * slope
    u = 0.3 * rng.normal(size=k)
    rows = rows_from(1.0 + slope * x + slope * u + 1e-6 * rng.normal(size=k), x + u, cov)
    test = SlopeTest.of(rows, "m1", draws=99)
    found = test.confidence_set(0.95)
    assert found.hull[1] - found.hull[0] < 1e-3
    means, noise = (v[0] for v in mean_effects(rows, equal(rows)))
    got = profile(test, found, equal(rows))
    half = 1.96 * slope * np.sqrt(noise[1, 1])
    np.testing.assert_allclose(
        got.indirect().hull, (slope * means[1] - half, slope * means[1] + half), rtol=2e-3
    )


def test_unbounded_slopes_give_unbounded_effects_in_the_right_direction() -> None:
    rng = np.random.default_rng(12)
    seen = set()
    for _ in range(12):
        rows = draw_rows(rng, 5, (1.0,), size=1.5)
        test = SlopeTest.of(rows, "m1", draws=99)
        found = test.confidence_set(0.95)
        if found.is_bounded:
            continue
        got = profile(test, found, equal(rows))
        left, right = not np.isfinite(found.hull[0]), not np.isfinite(found.hull[1])
        seen.add((left, right))
        if rows.x.mean() > 3 * np.sqrt(rows.noise.mean() / 5):  # mean compliance is positive
            assert np.isinf(got.indirect().hull[1]) >= right
            assert np.isinf(got.indirect().hull[0]) >= left
            assert np.isinf(got.direct().hull[0]) >= right
        assert not got.indirect().is_empty
        assert not got.share().is_empty
    assert seen


def test_rows_that_share_controls_have_correlated_means() -> None:
    rows = shared_controls(np.random.default_rng(3), 6, 3)
    weights = np.full((1, 18), 1 / 18)
    mean, cov = mean_effects(rows, weights)
    dense = rows.cross.reshape(36, 36)
    load = np.kron(weights[0][:, None], np.eye(2))
    np.testing.assert_allclose(cov[0], load.T @ dense @ load, rtol=1e-12)
    np.testing.assert_allclose(mean[0], [rows.y.mean(), rows.x.mean()])
    test = SlopeTest.of(rows, "m1")
    got = profile(test, test.confidence_set(0.95), weights)
    assert got.indirect().shape == "interval"


def test_direct_pvalue_and_set_agree() -> None:
    for seed in range(6):
        rows = draw_rows(np.random.default_rng(seed), 15, (1.0,), direct=0.7)
        test = SlopeTest.of(rows, "m1", draws=499)
        found = test.confidence_set(0.95)
        p = direct_pvalue(test, found, equal(rows)[0])
        inside = 0.0 in profile(test, found, equal(rows)).direct()
        if abs(p - 0.05) > 0.01:
            assert inside == (p > 0.05)


def test_intercept_pvalue_and_set_agree() -> None:
    rng = np.random.default_rng(3)
    for seed in range(6):
        z = np.column_stack([np.ones(15), rng.normal(size=15)])
        rows = draw_rows(np.random.default_rng(seed), 15, (1.0,), direct=0.7, z=z)
        test = SlopeTest.of(rows, "m1", draws=499)
        found = test.confidence_set(0.95)
        for column in (0, 1):
            p = intercept_pvalue(test, found, column)
            inside = 0.0 in intercept_set(test, found, column)
            if abs(p - 0.05) > 0.01:
                assert inside == (p > 0.05)


def test_intercept_set_without_error_is_the_regression_interval() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=60)
    y = 3 + 0.5 * x + rng.normal(size=60)
    rows = rows_from(y, x, np.tile(1e-12 * np.eye(2), (60, 1, 1)))
    test = SlopeTest(rows, "m1", "t")
    found = intercept_set(test, test.confidence_set(0.95), 0)
    design = np.column_stack([np.ones(60), x])
    b = np.linalg.lstsq(design, y, rcond=None)[0]
    s2 = ((y - design @ b) ** 2).sum() / 58
    half = 2.0 * np.sqrt(s2 * np.linalg.inv(design.T @ design)[0, 0])
    np.testing.assert_allclose(found.hull, (b[0] - half, b[0] + half), atol=0.03)


def test_shares() -> None:
    rows = draw_rows(np.random.default_rng(0), 4)
    assert shares_of(rows, None).tolist() == [0.25] * 4
    given = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}
    assert shares_of(rows, given).tolist() == [0.1, 0.2, 0.3, 0.4]
    assert shares_of(rows, pd.Series(given).iloc[::-1]).tolist() == [0.1, 0.2, 0.3, 0.4]
    bad = {
        "sum to 1.1": [0.2, 0.2, 0.3, 0.4],
        "zero or more": [-0.1, 0.3, 0.4, 0.4],
        "missing": [np.nan, 0.3, 0.4, 0.3],
        "4 rows": [0.5, 0.5],
        "lacks 3": {0: 0.3, 1: 0.3, 2: 0.4},
        "must be numbers": ["a", "b", "c", "d"],
        "has 9": {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 9: 0.0},
    }
    for words, value in bad.items():
        with pytest.raises(DataError, match=words):
            shares_of(rows, value)


def test_shares_change_averages_only() -> None:
    effects = mm.SiteEffects.from_table(
        pd.DataFrame({"s": list("abcdef"), "b": [1.0, 2, 3, 4, 5, 7], "sb": 0.2, "g": [0.1, 1, 2, 3, 4, 5], "sg": 0.1,
                      "c": 0.0}),
        site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg", cov="c",
    )  # fmt: skip
    plain = mm.decompose(effects, draws=99)
    first = mm.decompose(effects, draws=99, shares={"a": 1.0, "b": 0, "c": 0, "d": 0, "e": 0, "f": 0})
    assert first.params.equals(plain.params)
    table = first.effects.set_index("effect")
    site = first.site_effects.iloc[0]
    assert table.loc["total effect", "estimate"] == pytest.approx(1.0)
    for name, column in (("indirect effect", "indirect"), ("direct effect", "direct")):
        assert table.loc[name, "estimate"] == pytest.approx(site[column])
        assert table.loc[name, "lower"] == pytest.approx(site[f"{column}_lower"])
