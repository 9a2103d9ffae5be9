"""Covariances that do not exist: messages name those that this estimator has in this design, and no 0/0."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, DesignError, MomentsInsufficient, TooFewSitesError
from msmmiv.estimate import ESTIMATORS, system_of
from msmmiv.estimate.covariances import ALLOWED, _between_sites, covariance
from tests.estimate.dense import design_of
from tests.estimate.helpers import trial

NAMES = ("ols", "2sls", "liml", "mbtsls", "ujive")


def study_of(df: pd.DataFrame, **roles: object) -> mm.Study:
    return mm.Study(df, replace(design_of(df), **roles))


def suggested(error: Exception, start: str) -> set[str]:
    """Quoted names after these words."""
    text = str(error)
    assert start in text, text
    return set(re.findall(r"'([^']+)'", text.split(start, 1)[1]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clusters", [0, 4])
def test_too_few_sites_names_what_the_estimator_has(name, clusters):
    study = study_of(trial(1, sites=2, per_site=60, clusters=clusters))
    with pytest.raises(TooFewSitesError, match="need at least 2") as caught:
        study.fit(name, cov_type="site")
    found = suggested(caught.value, "cov_type may be ")
    assert found
    assert found <= set(ALLOWED[name]) - {"site"}
    assert ("cluster" in found) == bool(clusters)
    for kind in found:
        assert study.fit(name, cov_type=kind).cov_type == kind


@pytest.mark.parametrize("name", NAMES)
def test_probability_weights_name_what_the_estimator_has(name):
    study = study_of(trial(2, weights=True), weights="w", weight_kind="probability")
    with pytest.raises(DesignError, match="invalid with probability weights") as caught:
        study.fit(name, cov_type="classical")
    found = suggested(caught.value, "Use ")
    assert "site" in found
    for kind in found:
        assert study.fit(name, cov_type=kind).cov_type == kind


@pytest.mark.parametrize("name", ["2sls", "mbtsls", "ujive"])
def test_covariates_name_what_the_estimator_has(name):
    study = study_of(trial(3, covariates=1))
    with pytest.raises(MomentsInsufficient, match="with covariates needs products of rows") as caught:
        study.fit(name, cov_type="HTE")
    found = suggested(caught.value, "are exact from moments: ")
    assert {"site", "classical"} <= found
    assert ("bekker" in found) == (name != "2sls")
    assert ("HC1" in found) == (name != "ujive")
    for kind in found:
        assert study.fit(name, cov_type=kind).cov_type == kind
    with pytest.raises(ChoiceError, match="'2sls' has no 'bekker' covariance"):
        study.fit("2sls", cov_type="bekker")


def test_sites_that_agree_exactly_have_no_variance_and_no_nan():
    """Without noise the jackknife of UJIVE does not move, and CR2 has nothing to scale."""
    df = trial(4, sites=6, covariates=1)
    system = system_of(mm.Study(df, design_of(df)).moments)
    solution = ESTIMATORS["ujive"].solve(system)
    still = SimpleNamespace(
        groups=6, jackknife=lambda: np.tile(solution.coefficients, (6, 1)),
    )  # fmt: skip
    between = SimpleNamespace(
        blocks=solution.between.blocks, groups=6, scores=lambda _: np.zeros((6, 1)),
        score_noise=lambda _: np.zeros((6, 1, 1)),
    )  # fmt: skip
    calm = SimpleNamespace(equations=still, between=between, coefficients=solution.coefficients, n_between=1)
    with np.errstate(all="raise"):
        got = _between_sites(calm, "CR2")
    assert np.array_equal(got.cov, np.zeros((2, 2)))
    assert np.isfinite(got.df).all()


@pytest.mark.parametrize("name", ["mbtsls", "ujive"])
@pytest.mark.parametrize("p", [1, 2])
def test_many_instruments_add_noise_to_estimators_that_subtract_it(name, p):
    """Bekker: s^2 Lambda + tau (s^2 S_MM + S_Mb S_Mb'), with what is subtracted as noisy as what it is taken from."""
    df = trial(5, sites=30, per_site=12, mediators=p)
    system = system_of(mm.Study(df, design_of(df)).moments)
    solution = ESTIMATORS[name].solve(system)
    got = covariance(system, solution, "bekker", None, name=name, rows=None).cov
    form, b = system.reduced_form, np.concatenate([[1.0], -solution.coefficients])
    n, k, instruments = len(df), 30, form.n_instruments
    tau = instruments * (n - k) / (n - k - instruments)
    s2, both = b @ form.within @ b, form.within[1:] @ b
    more = tau * (s2 * form.within[1:, 1:] + np.outer(both, both))
    meat = s2 * np.linalg.inv(solution.bread) + more
    np.testing.assert_allclose(got, solution.bread @ meat @ solution.bread, rtol=1e-9)
