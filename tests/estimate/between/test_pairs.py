"""Resampled rows: the quick draws against the estimator called on each, mechte's interval, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msmmiv.errors import DataError, MomentsInsufficient
from msmmiv.estimate.between.corrected import BCES, CorrectedNormal
from msmmiv.estimate.between.pairs import _any_draws, _bces_draws, pairs_percentile_t, resampled
from tests.estimate.between.made_rows import golden_rows, random_rows


@pytest.mark.parametrize("estimator", [BCES(), BCES("fu"), BCES(cov_uv=False)], ids=lambda e: e.name)
@pytest.mark.parametrize(
    "rows", [random_rows(0, k=8, scale=0.9), golden_rows("k5", corr=0.3)], ids=["made", "k5"]
)
def test_quick_draws_are_those_of_the_estimator(rows, estimator):
    index = np.random.default_rng(0).integers(0, rows.n_rows, (150, rows.n_rows))
    index[0] = 2  # one row over and over
    quick, slow = _bces_draws(rows, estimator, index), _any_draws(rows, estimator, index)
    assert np.isnan(slow[0][0]).all()
    assert 0 < np.isnan(slow[0][:, 0]).sum() < 100
    np.testing.assert_array_equal(np.isnan(quick[0]), np.isnan(slow[0]))
    np.testing.assert_allclose(quick[0], slow[0], rtol=1e-9)
    np.testing.assert_allclose(quick[1], slow[1], rtol=1e-6, atol=1e-9)


def test_interval_and_pvalue_from_the_formula():
    rows = random_rows(2, k=25, scale=0.2)
    fit = BCES().solve(rows)
    found = pairs_percentile_t(rows, BCES(), draws=400, level=0.9, seed=4)
    index = np.random.default_rng(4).integers(0, 25, (400, 25))
    b, se = _any_draws(rows, BCES(), index)
    t = (b - fit.coefficients) / se
    assert found.dropped == 0.0
    for j in range(2):
        low, high = np.quantile(t[:, j], [0.05, 0.95])
        want = [fit.coefficients[j] - high * fit.std_errors[j], fit.coefficients[j] - low * fit.std_errors[j]]
        np.testing.assert_allclose(found.interval[j], want, rtol=1e-9)
        below = np.mean(t[:, j] <= fit.coefficients[j] / fit.std_errors[j])
        assert found.pvalues[j] == pytest.approx(2 * min(below, 1 - below), abs=1e-12)
    assert (found.draws, found.seed, found.level, found.status) == (400, 4, 0.9, None)
    assert "For comparison only" in found.notes[0]
    assert len(found.notes) == 1


def test_covariates_and_other_estimators_go_through_the_estimator():
    rows = random_rows(3, k=20, p=2, covariates=1, scale=0.2)
    found = pairs_percentile_t(rows, CorrectedNormal("itt"), draws=60)
    assert found.interval.shape == (4, 2)
    assert (found.interval[:, 0] < found.interval[:, 1]).all()
    assert found.method == "corrected(itt)"


def test_dropped_draws_are_reported():
    found = pairs_percentile_t(golden_rows("k30"), BCES())
    assert found.dropped > 0.05
    assert f"Unreliable: {found.dropped:.0%} of draws had no estimate" in found.notes[1]
    rows = random_rows(2, k=4, scale=1.0)
    little = pairs_percentile_t(rows, BCES(), draws=24)
    assert little.status == f"only {round(24 * (1 - little.dropped))} of 24 draws have an estimate"
    assert np.isnan(little.interval).all()
    assert np.isnan(little.pvalues).all()
    nothing = pairs_percentile_t(golden_rows("k10"), BCES())
    assert "denominator not positive" in nothing.status
    assert np.isnan(nothing.interval).all()


def test_what_is_refused():
    with pytest.raises(MomentsInsufficient, match="one site share its controls"):
        pairs_percentile_t(random_rows(0, arms=2), BCES())
    for bad in ({"draws": 5}, {"level": 95}):
        with pytest.raises(DataError, match="at least 19"):
            pairs_percentile_t(random_rows(0), BCES(), **bad)


def test_resampled_sites_bring_their_rows_and_copies_are_independent():
    rows = random_rows(0, arms=2)
    two = resampled(rows, np.array([3, 3, 0]))
    assert two.labels == ("s6", "s7", "s6", "s7", "s0", "s1")
    assert two.site.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(two.cross[0, :, 1, :], rows.cross[6, :, 7, :])
    assert not two.cross[0, :, 2, :].any()
    np.testing.assert_array_equal(np.einsum("kakb->kab", two.cross), two.cov)
    fewer = replace(rows, site=rows.site * 10)  # codes need not be 0..G-1
    assert resampled(fewer, np.array([1])).labels == ("s2", "s3")
