"""Other table packages take our results: the protocol of maketables, rendered with it."""

from __future__ import annotations

import re

import numpy as np
import pytest

import msmmiv as mm
from tests.show.helpers import design, trial

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def fits():
    study = mm.Study(trial(range(9)), design("m1", "m2", cluster="class"))
    return [study.fit("ols"), study.fit("2sls"), study.fit("ujive", interval="score", cov_type="site")]


def test_the_coefficient_table_is_tidy_under_their_names(fits):
    for fit in fits:
        table, tidy = fit.__maketables_coef_table__, fit.tidy()
        assert table.index.name == "Coefficient"
        assert table.index.tolist() == list(fit.terms)
        for theirs, ours in (("b", "estimate"), ("se", "std_error"), ("t", "statistic"), ("p", "p_value"),
                             ("ci95l", "conf_low"), ("ci95u", "conf_high")):  # fmt: skip
            np.testing.assert_array_equal(table[theirs], tidy[ours])


def test_statistics_outcome_and_covariance(fits):
    _, fit, site = fits
    assert fit.__maketables_stat__("N") == fit.nobs
    assert fit.__maketables_stat__("r2") == fit.r2
    assert fit.__maketables_stat__("rmse") == pytest.approx(fit.sigma2**0.5)
    assert fit.__maketables_stat__("sargan_p") == fit.sargan.pvalue
    assert fit.__maketables_stat__("aic") is None
    assert site.__maketables_stat__("sargan") is None  # of UJIVE there is none
    assert fit.__maketables_depvar__ == "y"
    assert fit.__maketables_vcov_info__ == {"vcov_type": "by: class (CR1S)", "clustervar": "class"}
    assert site.__maketables_vcov_info__["clustervar"] == "s"
    assert fit.__maketables_fixef_string__ == "s"
    classical = mm.Study(trial(range(5)), design("m1")).fit("2sls", cov_type="HC1")
    assert classical.__maketables_vcov_info__ == {"vcov_type": "HC1"}


def test_maketables_prints_our_numbers(fits):
    maketables = pytest.importorskip("maketables", reason="maketables is not installed")
    table = maketables.ETable(fits, coef_fmt="b:.4f \n (se:.4f)")
    frame = table.df
    for term in ("m1", "m2"):
        row = frame.loc[("coef", term)]
        for cell, fit in zip(row, fits, strict=True):
            got = [float(x) for x in re.findall(r"-?\d+\.\d+", cell)]
            assert got == pytest.approx([fit.params[term], fit.std_errors[term]], abs=6e-5)
    counts = [float(str(c).replace(",", "")) for c in frame.xs("stats").iloc[0]]
    assert counts == [fit.nobs for fit in fits]
    labels = frame.xs("stats").index.tolist()
    assert "Sites" in labels
    assert "m1" in table.make(type="html")


def test_nothing_of_maketables_is_imported():
    import subprocess
    import sys

    fit = "f = msmmiv.fit(msmmiv.data.star(), '2sls'); f.__maketables_coef_table__"
    code = f"import sys, msmmiv; {fit}; sys.exit('maketables' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_an_estimate_cells_are_empty_not_wrong():
    fit = mm.fit(mm.data.star("math_two_mediators"), "ujive")
    assert fit.__maketables_coef_table__["b"].isna().all()
    assert fit.__maketables_stat__("status").startswith("the bias-corrected")
