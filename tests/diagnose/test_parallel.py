"""One-directional evidence on parallel mediators, and the hint on interference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.interference import control_means
from msmmiv.diagnose.parallel import parallel
from msmmiv.estimate.between.rows import between_rows
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.inference.meta import meta_regression
from msmmiv.inference.tests import NotApplicable
from tests.diagnose.trials import Kind, net_of, rows_of, simple, simple_study

CHECKS = [
    "independence.compliance_correlations",
    "independence.cascade_slope",
    "independence.mediator_separation_within_arm",
]


def cascade(theta: float, sites: int = 40, people: int = 60, seed: int = 0) -> mm.Moments:
    """M2 is its own part plus theta M1."""
    rows = simple(sites, people, 2, seed=seed)
    return simple_study(rows.assign(m1=rows.m1 + theta * rows.m0)).moments


def test_all_three_are_context():
    found = parallel(cascade(0.0), draws=99)
    assert [e.check for e in found.evidence()] == CHECKS
    assert {e.role for e in found.evidence()} == {"context"}
    assert list(found.to_frame()["first"]) == ["m0"]


def test_a_cascade_is_seen_and_read_both_ways():
    found = parallel(cascade(0.8), draws=199)
    evidence = found.evidence()[1]
    assert evidence.test.pvalue < 0.01
    assert " ".join(e.reading for e in found.evidence()).count("Either a cascade") == 1
    alone = replace(found, correlations=found.correlations.iloc[:0]).evidence()
    assert alone[1].reading.count("Either a cascade") == 1
    assert "Compliance with m1 rises by" in evidence.reading
    assert abs(found.slopes["slope"].iloc[0] - 0.8) < 0.35


def test_the_slope_uses_the_errors_the_two_compliances_share():
    effects = mm.SiteEffects.from_moments(cascade(0.3), cov_type="unbiased")
    turned = Compliances.from_effects(effects, direct_effect=False).as_effects(1)
    own = SlopeTest.of(between_rows(turned), "m0", draws=99, seed=4)
    found = parallel(effects, draws=99, seed=4)
    np.testing.assert_allclose(found.slopes["slope"].iloc[0], own.estimate, rtol=1e-9)
    assert found.slopes["pvalue"].iloc[0] == pytest.approx(own.test(0.0).pvalue)


@pytest.mark.parametrize("covariates", [0, 2])
def test_correlation_among_people_is_that_of_residuals(covariates):
    kind = Kind(mediators=3, covariates=covariates)
    rows = rows_of(kind)
    moments = mm.Moments.from_data(rows, replace(kind.design, cluster=None))
    found = parallel(moments, draws=19).within_arm
    cells = pd.get_dummies(rows["site"].astype(str) + "/" + rows["t"].astype(str), dtype=float).to_numpy()
    x = rows[[f"x{j}" for j in range(covariates)]].to_numpy(float)
    left = net_of(np.hstack([cells, x]), rows[kind.names].to_numpy(float))
    r = np.corrcoef(left.T)
    np.testing.assert_allclose(found["correlation"], [r[0, 1], r[0, 2], r[1, 2]], atol=1e-12)
    assert (found["people"] == len(rows) - cells.shape[1] - covariates).all()


def test_weights_count_for_fewer_people():
    kind = Kind(weighted=True)
    rows = rows_of(kind)
    moments = mm.Moments.from_data(rows, replace(kind.design, cluster=None))
    by = rows.groupby(["site", "t"])["w"]
    expected = (by.sum() ** 2 / by.apply(lambda w: (w**2).sum()) - 1.0).sum()
    np.testing.assert_allclose(parallel(moments, draws=19).within_arm["people"], expected, rtol=1e-10)


def test_what_is_not_there_says_why():
    one = parallel(mm.data.star())
    assert all("one mediator" in e.test.reason for e in one.evidence())
    assert one.to_frame().empty
    effects = mm.SiteEffects.from_moments(cascade(0.0), cov_type="unbiased")
    assert "give the moments" in parallel(effects, draws=19).evidence()[2].test.reason
    two = parallel(cascade(0.0, sites=2), draws=19)
    assert isinstance(two.evidence()[1].test, NotApplicable)


def test_more_arms_and_clusters():
    kind = Kind(arms=3, sites=10)
    found = parallel(mm.Study(rows_of(kind), kind.design).moments, draws=19)
    assert found.slopes["pvalue"].notna().all()


def test_control_means_against_the_share_treated():
    rng = np.random.default_rng(1)
    share = rng.uniform(0.2, 0.8, 30)
    site = np.repeat(np.arange(30), 60)
    t = (rng.random(1800) < share[site]).astype(int)
    rows = pd.DataFrame({"site": site, "t": t, "m0": t + rng.normal(size=1800)})
    rows["y"] = 3.0 * t.reshape(30, 60).mean(axis=1)[site] + rng.normal(size=1800)
    found = control_means(simple_study(rows).moments)
    (evidence,) = found.evidence()
    assert evidence.check == "independence.share_treated_on_control_means"
    assert evidence.role == "context"
    assert evidence.test.pvalue < 0.01
    controls = rows[rows.t == 0].groupby("site")["y"]
    x = rows.groupby("site")["t"].mean()
    fit = meta_regression(
        controls.mean(), v=controls.var() / controls.size(),
        x=np.column_stack([np.ones(30), 10 * (x - x.mean())]), tau2="PM", test="knapp-hartung",
    )  # fmt: skip
    np.testing.assert_allclose(found.table["slope"].iloc[0], fit.coefficients[1], rtol=1e-9)
    np.testing.assert_allclose(found.table["pvalue"].iloc[0], fit.pvalues[1], rtol=1e-9)


def test_no_control_means():
    moments = cascade(0.0, sites=8)
    assert "same in all sites" in control_means(moments).evidence()[0].test.reason
    effects = mm.SiteEffects.from_moments(moments)
    assert "give the moments" in control_means(effects).evidence()[0].test.reason
    assert control_means(effects).to_frame().empty
