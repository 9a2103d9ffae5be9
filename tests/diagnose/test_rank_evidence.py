"""What a rank report says in an audit: shown to be too weak, shown not to be noise, or neither."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import msmmiv as mm
from msmmiv.diagnose.rank_evidence import USABLE, effective_df, rank_evidence, rank_failure, strength_test
from msmmiv.inference.tests import NotApplicable


@pytest.fixture(scope="module")
def report() -> mm.RankReport:
    return mm.rank(mm.simulate(mediators=2, sites=40, people=100, seed=1).moments, draws=199)


def with_weakest(report: mm.RankReport, strength: float, pvalue: float) -> mm.RankReport:
    found = report.spectrum
    assert found is not None
    sizes, p = found.strength.copy(), found.pvalues.copy()
    sizes[-1], p[-1] = strength, pvalue
    return replace(report, spectrum=replace(found, strength=sizes, pvalues=p))


def test_strong_sites_are_not_contradicted(report):
    first = rank_evidence(report)[0]
    assert (first.check, first.role) == ("rank.noise_floor_eigenvalues", "evidence")
    assert first.test.pvalue > 0.9
    assert "four times in five" in first.detectable


@pytest.mark.parametrize(
    ("strength", "noise_p", "applies"), [(1.6, 0.2, False), (1.6, 0.04, True), (0.9, 0.6, True)]
)
def test_neither_shown_weak_nor_shown_moved_is_not_applicable(report, strength, noise_p, applies):
    first = rank_evidence(with_weakest(report, strength, noise_p))[0]
    assert isinstance(first.test, NotApplicable) != applies
    if not applies:
        assert "neither" in first.test.reason


def test_the_law_is_that_of_a_ratio_with_the_floors_spread(report):
    """Noncentral chi-squared over its degrees of freedom, drawn."""
    found = with_weakest(report, 1.5, 0.5).spectrum
    f = effective_df(found)
    rng = np.random.default_rng(0)
    drawn = rng.noncentral_chisquare(f, f * (USABLE - 1.0), 200_000) / f * found.floor[-1]
    assert strength_test(found).pvalue == pytest.approx(float((drawn <= 1.5).mean()), abs=0.005)
    noise = rng.chisquare(f, 400_000) / f
    assert np.quantile(noise, 0.95) == pytest.approx(found.floor_95[-1] / found.floor[-1], rel=0.01)


def test_exactly_proportional_compliances_fail_without_a_test():
    trial = mm.simulate(sites=15, seed=1)
    frame = trial.frame.assign(m2=2.0 * trial.frame["m1"])
    found = mm.rank(mm.Moments.from_data(frame, replace(trial.design, mediators=("m1", "m2"))), draws=99)
    assert "assumption (viii) fails" in rank_failure(found)
    audit = mm.Study(frame, replace(trial.design, mediators=("m1", "m2"))).audit(draws=199)
    assert audit["viii"].status == "contradicted"
    assert rank_failure(mm.rank(trial.moments, draws=99)) == ""
