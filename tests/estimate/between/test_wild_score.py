"""The wild score test against a loop over sign vectors, its invariances, and its size."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from msmmiv.errors import ChoiceError, DataError, TooFewSitesError
from msmmiv.estimate.between.wild_score import _line, wild_score, wild_score_set
from msmmiv.inference.wild_draws import plan_draws
from tests.estimate.between.reml_dense import draw, make_rows


def by_hand(rows, beta0: float) -> tuple[float, float]:
    """The formula of one column of ones and independent rows, sign vector by sign vector."""
    k = rows.n_rows
    x, y = rows.x[:, 0], rows.y
    atilde = y.mean() - beta0 * x.mean()
    s = (x - x.mean()) * (y - beta0 * x - atilde)
    s = s + (beta0 * rows.noise[:, 0, 0] - rows.covariance[:, 0]) * (1 - 1 / k)

    def t(values):
        return values.sum() / np.sqrt(((values - values.mean()) ** 2).sum())

    all_signs = [abs(t(np.array(signs) * s)) for signs in product([-1, 1], repeat=k)]
    return t(s), float(np.mean(np.array(all_signs) >= abs(t(s)) - 1e-12))


@pytest.mark.parametrize("beta0", [0.0, 0.8, -3.0])
def test_it_is_the_loop_over_all_signs(beta0: float) -> None:
    rows = draw(1, k=8)
    test = wild_score(rows, beta0=beta0)
    stat, p = by_hand(rows, beta0)
    assert test.stat == pytest.approx(stat, rel=1e-12)
    assert test.pvalue == p
    assert test.smallest == 2 / 2**8
    assert test.seed is None


def test_mammen_is_the_loop_over_its_draws() -> None:
    rows = draw(2, k=8)
    test = wild_score(rows, beta0=0.5, weights="mammen", draws=500, seed=7)
    x, y = rows.x[:, 0] - rows.x.mean(), rows.y - rows.y.mean()
    s = x * (y - 0.5 * x) + (0.5 * rows.noise[:, 0, 0] - rows.covariance[:, 0]) * 7 / 8
    w = np.concatenate(list(plan_draws(8, 1, "mammen", 500, 7).chunks())) * s
    t = np.abs(w.sum(axis=1)) / np.sqrt(((w - w.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    observed = abs(s.sum()) / np.sqrt(((s - s.mean()) ** 2).sum())
    # Equal weights for all sites reproduce the statistic up to rounding.
    assert test.pvalue == (1 + (t >= observed * (1 - 1e-9)).sum()) / 501
    assert wild_score(rows, weights="mammen", draws=500, seed=8).seed == 8


def test_the_scores_have_mean_zero_at_the_truth() -> None:
    """With covariates and shared controls too: the correction is the expectation of the products of errors."""
    for rows in (draw(3, k=9, q=3), draw(4, k=5, arms=2, q=2)):
        n = rows.n_rows
        full = np.zeros((n, 2, n, 2))
        for i in range(n):
            full[i, :, i] = rows.cov[i]
        full = full if rows.cross is None else rows.cross
        m = np.eye(n) - rows.z @ np.linalg.pinv(rows.z)
        x, y = m @ rows.x[:, 0], m @ rows.y
        p, q = _line(rows)
        assert p.sum() == pytest.approx(x @ y - np.trace(m @ full[:, 1, :, 0]), rel=1e-12)
        assert q.sum() == pytest.approx(x @ x - np.trace(m @ full[:, 1, :, 1]), rel=1e-12)
        assert len(p) == rows.n_sites


def test_signs_go_by_site() -> None:
    rows = draw(5, k=5, arms=3)
    assert wild_score(rows).smallest == 2 / 2**5
    assert wild_score(rows).draws == 2**5


@pytest.mark.parametrize("weights", ["rademacher", "mammen"])
def test_the_set_is_what_the_test_keeps(weights: str) -> None:
    for seed, k in ((6, 10), (7, 16), (8, 9)):
        rows = draw(seed, k=k, size=0.8)
        found = wild_score_set(rows, level=0.9, weights=weights, draws=499, seed=1)
        for beta in np.linspace(-5, 5, 41):
            kept = wild_score(rows, beta0=float(beta), weights=weights, draws=499, seed=1).pvalue > 0.1
            assert kept == (float(beta) in found)


def test_five_sites_exclude_nothing_at_the_usual_level() -> None:
    rows = draw(9, k=5, size=0.1)
    assert wild_score_set(rows).is_whole_line
    assert not wild_score_set(rows, level=0.9).is_whole_line


def test_units_do_not_matter() -> None:
    rows = draw(10, k=9)
    unit = np.array([1e3, 1e-3])
    other = replace(rows, y=rows.y * 1e3, x=rows.x * 1e-3, cov=rows.cov * np.outer(unit, unit))
    assert wild_score(other, beta0=5e5).stat == pytest.approx(wild_score(rows, beta0=0.5).stat, rel=1e-10)
    assert np.array(wild_score_set(other, level=0.9).hull) / 1e6 == pytest.approx(
        wild_score_set(rows, level=0.9).hull, rel=1e-6
    )


def test_what_is_refused() -> None:
    with pytest.raises(ChoiceError, match="one mediator"):
        wild_score(draw(1, p=2))
    with pytest.raises(ChoiceError, match="weights"):
        wild_score(draw(1), weights="webb")
    with pytest.raises(ChoiceError, match="finite"):
        wild_score(draw(1), beta0=np.nan)
    with pytest.raises(TooFewSitesError, match="needs 3"):
        wild_score(draw(1, k=2))
    with pytest.raises(DataError, match="level"):
        wild_score_set(draw(1), level=0.0)


@pytest.mark.parametrize(("k", "high"), [(5, 0.0), (10, 0.09)])
def test_size(k: int, high: float) -> None:
    """Never with five sites, .055 with ten in the study; 400 draws have a standard error of .011."""
    rng = np.random.default_rng(3)
    rejected = 0
    for _ in range(400):
        a, b = rng.gamma(1, 1, (2, k)) ** 2
        x = rng.normal(2, 1, k) + np.sqrt(a) * rng.normal(size=k)
        y = 4 + rng.normal(size=k) + np.sqrt(b) * rng.normal(size=k)
        rows = make_rows(y, x, np.stack([np.diag(v) for v in zip(b, a, strict=True)]))
        rejected += wild_score(rows).pvalue <= 0.05
    assert rejected / 400 <= high
    assert rejected > 0 or k == 5
