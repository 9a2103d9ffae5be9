"""Many splits, both halves in turn; and subgroups that are given, which need no tree."""

from __future__ import annotations

import numpy as np
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError
from msmmiv.moments import subgroup_people
from msmmiv.moments.strata import strata_as_sites
from msmmiv.moments.subgroups import crossfit
from tests.moments.subgroup_trial import SITES, simple_tree, trial


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.setattr(subgroup_people, "grow", simple_tree)


def slope(e):
    b, v = np.polyfit(e.compliance["m"], e.itt, 1, cov=True)
    return float(b[0]), float(np.sqrt(v[0, 0]))


def test_crossfit_is_the_median_over_splits_of_both_turns(by_hand):
    df = trial(16)
    by = ["age", "female"]
    found = crossfit(df, SITES, by=by, estimate=slope, splits=5, seed=3, max_leaves=4)
    assert found.estimates.shape == (5, 2)
    assert found.failures == ()
    seen = []
    found_again = crossfit(
        df, SITES, by=by, estimate=lambda e: (seen.append(e), slope(e))[1], splits=5, seed=3, max_leaves=4
    )
    assert np.array_equal(found_again.estimates, found.estimates)
    turns = [e.n.sum() for e in seen]
    assert all(a + b == len(df) for a, b in zip(turns[::2], turns[1::2], strict=True))
    assert len(np.unique(found.estimates)) == 10
    each, se = found.estimates.mean(axis=1), np.sqrt((found.std_errors**2).sum(axis=1)) / 2
    assert found.estimate == np.median(each)
    assert found.std_error == pytest.approx(
        np.sqrt(np.median(se**2 + (each - np.median(each)) ** 2)), rel=1e-12
    )
    assert found.estimate == pytest.approx(0.5, abs=0.25)  # not corrected for errors


def test_crossfit_counts_what_failed(by_hand):
    df = trial(17, 1200)
    calls = iter(range(100))

    def sometimes(e):
        return slope(e) if next(calls) not in bad else (float("nan"), float("nan"))

    bad = {1, 2, 3}
    found = crossfit(df, SITES, by=["age", "female"], estimate=sometimes, splits=6, min_arm=30)
    assert found.failures == ("no estimate",) * 3
    assert np.isnan(found.estimates).sum() == 3
    assert np.isfinite(found.estimate)
    assert found.status is None
    calls, bad = iter(range(100)), {0, 2, 4}
    found = crossfit(df, SITES, by=["age", "female"], estimate=sometimes, splits=6, min_arm=30)
    assert np.isnan([found.estimate, found.std_error]).all()
    assert found.status == "3 splits of 6 gave no estimate"
    none = crossfit(df, SITES, by="age", estimate=slope, splits=2, min_arm=290)
    assert none.status == "2 splits of 2 gave no estimate"
    assert all("No split by 'age'" in why for why in none.failures)
    with pytest.raises(ChoiceError, match="splits"):
        crossfit(df, SITES, by="age", estimate=slope, splits=0)


# ------------------------------------------------------------------------- subgroups that are given


def test_given_subgroups_need_nothing_new():
    """A column as the site, sites as blocks; strata_as_sites says the same and checks the counts."""
    df = trial(18).assign(group=lambda d: np.where(d["age"] <= 40, "young", "old") + d["female"].astype(str))
    given = mm.Design(outcome="y", treatment="t", mediators="m", site="group", block="s")
    effects = mm.Study(df, given).effects
    strata = strata_as_sites(df, SITES, by="group")
    assert strata.design.block == "s"
    assert np.allclose(mm.Study(strata.frame, strata.design).effects.estimates, effects.estimates, rtol=1e-12)
    fit = mm.Study(df, given).fit("ujive", direct_effect=True)
    assert fit.params["m"] == pytest.approx(0.5, abs=0.15)
    assert fit.params["direct_effect"] == pytest.approx(0.3, abs=0.25)
