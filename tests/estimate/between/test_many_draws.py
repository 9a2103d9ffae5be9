"""Draws that do not fit in memory together are made in turn; what is computed of them is the same."""

from __future__ import annotations

import numpy as np

from msmmiv.estimate.between import calibration, simex_draws
from msmmiv.estimate.between.calibration import IndependentRows, calibrate
from msmmiv.estimate.between.eb_score import Samples
from msmmiv.estimate.between.normal_equations import corrected
from msmmiv.estimate.between.simex_draws import _products, noise_root, simulate
from tests.estimate.between.made_rows import golden_rows


def test_critical_values_of_draws_in_turn(monkeypatch):
    data = golden_rows("k10")
    rows = IndependentRows(
        Samples(data.y, data.x[:, 0], data.z, data.itt_variance, data.noise[:, 0, 0], data.covariance[:, 0])
    )
    first = calibrate(rows, centre=1.0, scale=1.0, draws=40, seed=3)
    monkeypatch.setattr(calibration, "_AT_ONCE", 40 * data.n_rows)
    both = calibrate(rows, centre=1.0, scale=1.0, draws=100, seed=3)
    assert both.sizes.shape == (len(first.angle), 100)
    assert (np.diff(both.sizes, axis=1) <= 0).all()
    # The first forty draws are those that would be made alone.
    assert all(set(a) <= set(b) for a, b in zip(first.sizes.tolist(), both.sizes.tolist(), strict=True))
    assert (both.sizes[:, -1] > 0).any(), "the last draws were not filled in"


def test_simex_of_draws_in_turn(monkeypatch):
    data = golden_rows("k10")
    root = noise_root(data, joint=True)
    monkeypatch.setattr(simex_draws, "_AT_ONCE", 2 * data.n_rows * 15)
    run = simulate(data, root, 80, np.random.default_rng(5), covariances=True)
    parts, rng = corrected(data, np.ones(data.n_rows)), np.random.default_rng(5)
    drawn = [_products(data, parts, root, n, rng) for n in (15, 15, 10)]
    on_z, square = np.concatenate([d[1] for d in drawn], axis=1), np.concatenate([d[2] for d in drawn])
    left = square - np.einsum("qhd,qp,phe->hde", on_z, parts.inverse, on_z)
    np.testing.assert_allclose(run.added, left.mean(axis=0), rtol=1e-12)
    assert np.isfinite(run.t2).all()
