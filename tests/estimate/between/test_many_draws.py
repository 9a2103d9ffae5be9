"""Draws and values that do not fit in memory together are taken in turn; what is computed of them is the same."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import msmmiv as mm
from msmmiv import linalg
from msmmiv.diagnose import null_surface
from msmmiv.diagnose.control_level import effect_by_control_mean
from msmmiv.diagnose.surface_curves import smooth_band
from msmmiv.errors import DataError
from msmmiv.estimate.between import calibration, rows, simex_draws
from msmmiv.estimate.between.calibration import IndependentRows, calibrate
from msmmiv.estimate.between.corrected import BCES
from msmmiv.estimate.between.decompose import decompose
from msmmiv.estimate.between.eb_score import Samples
from msmmiv.estimate.between.normal_equations import corrected
from msmmiv.estimate.between.pairs import pairs_percentile_t
from msmmiv.estimate.between.simex_draws import _products, noise_root, simulate
from tests.estimate.between.made_rows import golden_rows
from tests.estimate.helpers import trial
from tests.inference.helpers import effects_of


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


@pytest.mark.parametrize("arms", [2, 3])
def test_values_in_turn(arms, monkeypatch):
    """Sets, averages and intercepts of a decomposition: one value at a time, and all at once."""
    effects = effects_of(trial(4, sites=14, per_site=60, arms=arms), ["m0"])

    def everything():
        found = decompose(effects, draws=199)
        (slope,) = found.slope_sets.values()
        numbers = found.effects.select_dtypes("number").to_numpy().ravel()
        return [*slope.hull, *numbers, *found.confidence_set("direct_effect").hull]

    want = everything()
    monkeypatch.setattr(linalg, "_AT_ONCE", 1)
    np.testing.assert_allclose(everything(), want, rtol=1e-9)


def test_pairs_in_turn(monkeypatch):
    data = golden_rows("k30")
    want = pairs_percentile_t(data, BCES(), draws=199)
    monkeypatch.setattr(linalg, "_AT_ONCE", 7 * data.n_rows)
    np.testing.assert_allclose(
        pairs_percentile_t(data, BCES(), draws=199).interval, want.interval, rtol=1e-12
    )


def test_trials_in_turn(monkeypatch):
    made = mm.simulate(sites=60, people=40, seed=2)
    moments = mm.Moments.from_data(made.frame, mm.Design(
        outcome=made.design.outcome, treatment=made.design.treatment, mediators=made.design.mediators,
        site=made.design.site,
    ))  # fmt: skip
    at_once = effect_by_control_mean(moments, draws=199).test
    parts = []
    inner = null_surface.NullSurface.draw
    monkeypatch.setattr(null_surface, "_AT_ONCE", 60 * 9 * 50)
    monkeypatch.setattr(
        null_surface.NullSurface, "draw", lambda self, rng, n, *a: parts.append(n) or inner(self, rng, n, *a)
    )
    turned = effect_by_control_mean(moments, draws=199).test
    assert parts == [50, 50, 50, 49]
    assert turned.stat == at_once.stat
    assert abs(turned.pvalue - at_once.pvalue) < 0.15


def test_curves_in_turn(monkeypatch):
    rng = np.random.default_rng(1)
    at, itt = rng.normal(size=(2, 30))
    many_at, many_itt = rng.normal(size=(2, 250, 30))
    want = smooth_band(at, itt, many_at, many_itt, weights=np.ones(30))
    monkeypatch.setattr(linalg, "_AT_ONCE", 90)
    got = smooth_band(at, itt, many_at, many_itt, weights=np.ones(30))
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_no_table_of_sites_by_sites(monkeypatch):
    """With 4,000 sites a table of all pairs of sites takes 128 MB, all simulated trials as much as 800 MB."""
    made = mm.simulate(sites=4000, people=20, seed=6)
    study = mm.Study(mm.Moments.from_data(made.frame, made.design))
    monkeypatch.setattr(linalg, "_AT_ONCE", 2**17)
    monkeypatch.setattr(null_surface, "_AT_ONCE", 2**19)
    monkeypatch.setattr(calibration, "_AT_ONCE", 2**17)
    peaks = []
    for job in (lambda: study.decompose().slope_sets, lambda: study.audit(draws=199)):
        tracemalloc.start()
        job()
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert max(peaks) < 90, peaks


def test_rows_that_share_controls_and_do_not_fit_in_memory(monkeypatch):
    effects = effects_of(trial(4, sites=14, per_site=60, arms=3), ["m0"])
    assert mm.decompose(effects).rows.cross.size == (28 * 2) ** 2
    monkeypatch.setattr(rows, "_MOST", (28 * 2) ** 2 - 1)
    with pytest.raises(DataError, match="the errors of 28 such rows take a table of 0 GB"):
        mm.decompose(effects)
