"""What a sceptical referee found: questions whose answers were wrong, mislabelled or a crash."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.moments.noise import site_noise
from msmmiv.moments.within import within_sites
from tests.estimate.helpers import trial


def design(**more: object) -> mm.Design:
    return mm.Design(**{"outcome": "y", "treatment": "t", "mediators": ["m0"], "site": "site"} | more)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return trial(5, sites=14)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 1e8])
def test_proportional_mediators_are_named_by_the_rule_too(rows, factor):
    study = mm.Study(rows.assign(m2=factor * rows["m0"]), design(mediators=["m0", "m2"]))
    with pytest.raises(mm.errors.RankDeficientError, match="viii"):
        study.fit()


def test_data_without_noise_return_the_effect():
    exact = pd.DataFrame(
        [
            (s, t, t * (1 + 0.1 * s), 2 * t * (1 + 0.1 * s))
            for s in range(8)
            for t in (0, 1)
            for _ in range(5)
        ],
        columns=["site", "t", "m0", "y"],
    )
    fit = mm.Study(exact, design()).fit()
    assert abs(float(fit.params["m0"]) - 2.0) < 1e-12
    assert fit.rule


def test_one_class_in_an_arm_is_said_beside_the_clustered_errors(rows):
    study = mm.Study(rows.assign(c=rows["site"] * 10 + rows["t"]), design(cluster="c"))
    assert any("single cluster" in note for note in study.fit("2sls").notes)
    better = study.fit("2sls", small_sample="CR2")
    assert not any("single cluster" in note for note in better.notes)
    assert float(better.std_errors["m0"]) > 1.2 * float(study.fit("2sls").std_errors["m0"])


@pytest.mark.parametrize("name", ["bc_linear", "bc_symmetric"])
def test_corrections_that_an_estimator_has_not_are_refused(rows, name):
    study = mm.Study(rows, design())
    with pytest.raises(mm.errors.ChoiceError, match="small_sample"):
        study.fit(name, small_sample="CR2")
    assert study.fit(name).small_sample is None


def test_score_intervals_take_no_other_correction(rows):
    with pytest.raises(mm.errors.ChoiceError, match="leave small_sample out"):
        mm.Study(rows, design()).fit("ujive", interval="score", small_sample="CR3")


def test_clusters_that_are_not_declared(rows):
    for name in ("ujive", "2sls", "liml"):
        with pytest.raises(mm.errors.MomentsInsufficient, match="cluster"):
            mm.Study(rows, design()).fit(name, cov_type="cluster")


def test_site_effects_are_not_moments(rows):
    effects = mm.Study(rows, design()).noise_effects()
    with pytest.raises(mm.errors.DesignError, match="corrected_iv"):
        mm.fit(effects, "ujive")
    ours = mm.fit(mm.Study(rows, design()).moments, "ujive").params["m0"]
    assert abs(float(mm.corrected_iv(effects).coefficients[0]) - float(ours)) < 1e-10


def test_compare_tells_options_apart_and_leaves_out_what_cannot_be(rows):
    study = mm.Study(rows, design())
    got = study.compare([mm.Fuller(1.0), mm.Fuller(4.0), mm.BCLinear(weights="precision"), mm.BCLinear()])
    assert got["method"].tolist() == ["fuller(1)", "fuller(4)", "bc_linear(precision)", "bc_linear"]
    assert "bc_linear" not in set(study.compare(direct_effect=True)["method"])
    with pytest.raises(mm.errors.ChoiceError, match="at least one"):
        study.compare([])


def test_late_names_its_assumptions_for_averages_over_sites(rows):
    binary = rows.assign(m0=(rows["m0"] > 0.5).astype(float))
    fit = mm.Study(binary, design(estimand="late")).fit("bc_linear")
    assert "vii.b" in fit.estimand
    assert "ix.b" in fit.estimand


def test_pooled_variance_of_the_outcome_does_not_depend_on_the_mediator():
    got = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        classes = np.repeat(np.arange(60), 8)
        df = pd.DataFrame({"c": classes, "site": classes // 6, "t": classes % 2})
        shared = rng.normal(size=60)[classes]
        df["y"] = shared + rng.normal(size=len(df))
        # No class shares this mediator: its variance between classes comes out around zero, or below.
        df["m0"], df["m1"] = (
            df["t"] + rng.normal(size=len(df)),
            df["t"] + 0.7 * shared + rng.normal(size=len(df)),
        )
        variances = []
        for mediator in ("m0", "m1"):
            moments = mm.Moments.from_data(df, design(mediators=[mediator], cluster="c"))
            variances.append(site_noise(within_sites(moments), "pooled").cov[:, 0, 0, 0, 0])
        np.testing.assert_allclose(*variances, rtol=1e-9)
        got.append(variances[0].mean())
    truth = (1.0 + 1.0 / 8.0) / 3.0 * 2.0
    assert abs(np.mean(got) / truth - 1.0) < 0.1
