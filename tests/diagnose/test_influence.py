"""Leaving sites out: the refit, the same figure in the analysis, and what cannot be left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.influence import leave_one_out
from msmmiv.errors import ChoiceError, DataError
from msmmiv.show import explain
from tests.estimate.dense import design_of
from tests.estimate.helpers import trial
from tests.estimate.test_recommend import weak


@pytest.mark.parametrize("name", ["2sls", "ujive"])
def test_it_is_the_refit(name):
    df = trial(3, sites=7, mediators=2)
    study = mm.Study(df, design_of(df))
    fit = study.fit(name, cov_type="site")
    found = leave_one_out(fit, study.moments.sites)
    assert found.index.name == "left_out"
    assert list(found.columns) == list(fit.terms)
    for site in study.moments.sites:
        again = mm.fit(study.moments.drop(site), name, cov_type="site")
        np.testing.assert_allclose(found.loc[site], again.params, rtol=1e-9)
    pd.testing.assert_frame_equal(found, study.leave_one_out(name))


def test_the_analysis_holds_that_of_its_headline():
    df = trial(4, sites=9)
    study = mm.Study(df, design_of(df))
    analysis = study.analysis(estimator="ujive", cov_type="site")
    pd.testing.assert_frame_equal(analysis.leave_one_out, study.leave_one_out("ujive"))


def test_without_an_estimate_there_is_nothing_to_leave_sites_out_of():
    studies = (mm.Study(df, design_of(df)) for df in map(weak, range(40)))
    study = next(s for s in studies if s.fit("ujive").status is not None)
    fit = study.fit("ujive")
    with pytest.raises(DataError, match=r"nothing to leave sites out of: .*not positive definite"):
        leave_one_out(fit, study.moments.sites)
    (line,) = explain.leave_one_out(study.analysis(estimator="ujive"))
    assert line.startswith(
        "Leaving out one site at a time was not done: There is nothing to leave sites out of: "
    )
    assert not line.endswith("..")


def test_estimators_without_site_equations_are_refused():
    df = trial(5, sites=12)
    study = mm.Study(df, design_of(df))
    with pytest.raises(ChoiceError, match="do not solve site equations; use 'ujive'"):
        study.leave_one_out("bc_linear")
