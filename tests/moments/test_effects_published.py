"""Site effects from published tables, and against numbers computed by R."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError, MomentsInsufficient, UnknownCovarianceWarning
from tests.moments.helpers import design, people


def table(**changes):
    base = pd.DataFrame(
        {"school": ["a", "b", "c"], "itt": [0.2, 0.4, 0.1], "se": [0.1, 0.2, 0.1], "g1": [1.0, 2.0, 0.5],
         "s1": [0.1, 0.2, 0.1], "c1": [0.001, 0.01, -0.002], "g2": [0.3, 0.1, 0.2], "s2": [0.2, 0.2, 0.3],
         "c2": [0.0, 0.001, 0.002], "n": [100, 50, 80]}
    )  # fmt: skip
    return base.assign(**changes)


ROLES = {
    "site": "school", "itt": "itt", "itt_se": "se", "compliance": ["g1", "g2"], "compliance_se": ["s1", "s2"],
    "cov": ["c1", "c2"],
}  # fmt: skip


def test_published_estimates():
    got = mm.SiteEffects.from_table(table(), **ROLES, n="n")
    assert got.sites == ("a", "b", "c")
    assert got.mediators == ("g1", "g2")
    assert got.cov_type == "published"
    assert not got.zero_covariance_assumed
    np.testing.assert_array_equal(got.estimates[:, 0], table()[["itt", "g1", "g2"]])
    np.testing.assert_allclose(got.cov[1, 0, :, 0], [[0.04, 0.01, 0.001], [0.01, 0.04, 0], [0.001, 0, 0.04]])
    np.testing.assert_allclose(got.weight, 1 / table()["se"] ** 2)
    assert got.n.tolist() == [100, 50, 80]


def test_covariances_that_are_not_given_are_flagged():
    with pytest.warns(UnknownCovarianceWarning, match="was not given and is assumed to be zero"):
        got = mm.SiteEffects.from_table(
            table(), site="school", itt="itt", itt_se="se", compliance="g1", compliance_se="s1"
        )
    assert got.zero_covariance_assumed
    assert "assumed zero" in repr(got)
    assert not got.cov[:, 0, 0, 0, 1].any()
    assert np.isnan(got.n).all()


def test_a_table_of_site_effects_reads_back():
    """The way out and the way in are inverse, except for covariances between compliances."""
    there = mm.SiteEffects.from_moments(mm.Moments.from_data(people(20), design()))
    back = mm.SiteEffects.from_table(
        there.to_frame(), site="site", itt="itt", itt_se="itt_se", compliance="m", compliance_se="m_se",
        cov="cov_itt_m", n="n",
    )  # fmt: skip
    np.testing.assert_allclose(back.cov, there.cov, rtol=1e-13)
    np.testing.assert_array_equal(back.estimates, there.estimates)
    assert back.sites == there.sites


@pytest.mark.parametrize(
    ("changes", "roles", "error", "words"),
    [
        ({}, {"itt": "ITT"}, ColumnError, "'ITT' .* is not in the data. Did you mean 'itt'"),
        ({}, {"site": "schol"}, ColumnError, r"'schol' \(site\).*Did you mean 'school'"),
        ({}, {"compliance_se": ["s1"]}, DataError, "2 compliance columns need as many.*got 1 and 2"),
        ({}, {"cov": ["c1"]}, DataError, "2 compliance columns need as many.*got 2 and 1"),
        ({"se": ["0.1", "0.2", "x"]}, {}, ColumnError, "'se' .* holds text"),
        ({"g1": [1.0, np.nan, 2.0]}, {}, DataError, "'g1' has missing or infinite values"),
        ({"s2": [1.0, np.inf, 2.0]}, {}, DataError, "'s2' has missing or infinite values"),
        ({"school": ["a", "a", "c"]}, {}, DataError, "one row; 'a' occur more than once"),
        ({"school": ["a", None, "c"]}, {}, DataError, r"'school' \(site\) has missing values"),
        ({"se": [0.1, 0.0, 0.1]}, {}, DataError, "Standard errors in 'se' must be positive; they are not in b"),
        ({"s1": [0.1, 0.1, -0.1]}, {}, DataError, "'s1' must be positive; they are not in c"),
        ({}, {"itt_se": "s1"}, DataError, "Column 's1' is in two roles"),
        ({}, {"n": "school"}, DataError, "Column 'school' is in two roles"),
        ({}, {"compliance": ["g1", "g1"]}, DataError, "Column 'g1' is in two roles"),
        ({"n": [10, 0, 5]}, {"n": "n"}, DataError, r"'n' \(n\) counts rows and must be positive; it is not in b"),
        ({"c1": [0.001, 0.9, 0.0]}, {}, DataError, "larger than the standard errors allow in b: check.*correlations"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_right(changes, roles, error, words):
    with pytest.raises(error, match=words):
        mm.SiteEffects.from_table(table(**changes), **(ROLES | roles))


def test_an_empty_table():
    with pytest.raises(DataError, match="no rows"):
        mm.SiteEffects.from_table(table().head(0), **ROLES)


# ------------------------------------------------------------------------------------------- golden


@pytest.fixture(scope="module")
def reference(golden):
    return json.loads((golden / "site_effects.json").read_text())


GOLDEN = {
    "p2_noX": ("p2", {"mediators": ["m1", "m2"]}),
    "p2_withX": ("p2", {"mediators": ["m1", "m2"], "covariates": ["x"]}),
    "p2_noX_weighted": ("p2", {"mediators": ["m1", "m2"], "weights": "w", "weight_kind": "analytic"}),
    "p1_noX": ("p1", {"mediators": ["m"]}),
    "p1_withX": ("p1", {"mediators": ["m"], "covariates": ["x"]}),
    "p1_noX_weighted": ("p1", {"mediators": ["m"], "weights": "w", "weight_kind": "analytic"}),
}
KINDS = {"HC1": "HC1", "HC2": "HC2", "classical": "classical", "CR2_classroom": "CR2"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GOLDEN)
def test_estimatr_agrees_in_every_site(name, kind, golden, reference):
    file, roles = GOLDEN[name]
    df = pd.read_csv(golden / f"ind_k12_{file}.csv")
    d = mm.Design(outcome="y", treatment="t", site="site", cluster="classroom", **roles)
    moments = mm.Moments.from_data(df, d)
    rows = [r for r in reference[name] if r["se_type"] == kind]
    assert len(rows) == 12 * (1 + len(d.mediators))
    held = kind == "classical" or not (d.covariates or (d.weights and kind != "HC1"))
    if not held:
        with pytest.raises(MomentsInsufficient, match="need"):
            mm.SiteEffects.from_moments(moments, cov_type=KINDS[kind], slopes="site")
    got = mm.SiteEffects.from_moments(moments, cov_type=KINDS[kind] if held else "classical", slopes="site")
    names = ["y", *d.mediators]
    for r in rows:
        k, j = got.sites.index(r["site"]), names.index(r["outcome"])
        assert got.estimates[k, 0, j] == pytest.approx(r["est"], rel=1e-8)
        assert got.n[k] == r["n"]
        if held:
            assert np.sqrt(got.cov[k, 0, j, 0, j]) == pytest.approx(r["se"], rel=1e-8)


def test_covariances_between_outcomes_are_those_of_their_sum(golden):
    """Var(a + b) = Var(a) + Var(b) + 2 Cov(a, b) ties the off-diagonals to variances R has confirmed."""
    df = pd.read_csv(golden / "ind_k12_p2.csv")
    names = ["y", "m1", "m2"]
    roles = {"treatment": "t", "site": "site", "cluster": "classroom"}
    for kind in ("HC1", "HC2", "classical", "CR2"):
        d = mm.Design(outcome="y", mediators=["m1", "m2"], **roles)
        joint = mm.SiteEffects.from_moments(mm.Moments.from_data(df, d), cov_type=kind).cov[:, 0, :, 0]
        for i, j in combinations(range(3), 2):
            both = df.assign(total=df[names[i]] + df[names[j]])
            d = mm.Design(outcome="total", mediators=names[i], **roles)
            var = mm.SiteEffects.from_moments(mm.Moments.from_data(both, d), cov_type=kind).cov[:, 0, 0, 0, 0]
            np.testing.assert_allclose(joint[:, i, i] + joint[:, j, j] + 2 * joint[:, i, j], var, rtol=1e-9)
