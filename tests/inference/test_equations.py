"""Site equations: profiles, leave-one-out, score tests and the sets they invert to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from msmmiv.errors import ChoiceError, DataError, RankDeficientError, TooFewSitesError
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.profile import Profile
from msmmiv.inference.site_equations import site_equations
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.moments.within import within_sites
from tests.estimate.helpers import clustered, dense, trial
from tests.inference.blocks import equations_of, moments_of, random_equations, two_stage

KINDS = ["CR0", "CR2", "CR3"]


def profile_of(eq: SiteEquations, terms, kind: str = "CR0") -> Profile:
    out = eq.profile(terms, small_sample=kind)
    assert isinstance(out, Profile)
    return out


def test_blocks_of_2sls_give_its_coefficients_and_sandwich() -> None:
    df = trial(4, sites=9, mediators=2, covariates=1, blocks=2)
    fit = dense(df, ["m0", "m1"], covariates=("x0",), block="block", direct=True)
    eq = equations_of(moments_of(df, ["m0", "m1"], covariates=["x0"], block="block"), direct=True)
    np.testing.assert_allclose(eq.coefficients, fit["b"][: fit["k"]], rtol=1e-9)
    np.testing.assert_allclose(eq.sandwich("CR0").covariance, clustered(fit, df["site"]), rtol=1e-8)
    np.testing.assert_allclose(eq.bread, fit["bread"][: fit["k"], : fit["k"]], rtol=1e-8, atol=1e-14)


def test_blocks_of_clusters() -> None:
    df = trial(4, sites=6, covariates=1, clusters=3)
    fit = dense(df, ["m0"], covariates=("x0",))
    within = within_sites(moments_of(df, ["m0"], covariates=["x0"], cluster="cluster"))
    scores, positions, terms = two_stage(within)
    eq = site_equations(within, scores, positions, terms=terms, codes=within.moments.cluster)
    assert eq.groups == df["cluster"].nunique()
    np.testing.assert_allclose(eq.sandwich("CR0").covariance, clustered(fit, df["cluster"]), rtol=1e-9)


def test_restricted_solves_the_other_equations() -> None:
    eq = random_equations(1, 10, 3)
    b, scores = eq.restricted({"b": 0.7})
    assert b[1] == 0.7
    np.testing.assert_allclose(scores.sum(axis=0)[[0, 2]], 0.0, atol=1e-12)
    np.testing.assert_allclose(eq.restricted({"b": eq.coefficients[1]})[0], eq.coefficients, rtol=1e-10)
    b, scores = eq.restricted({"c": 1.0, "a": 2.0, "b": 3.0})
    assert b.tolist() == [2.0, 3.0, 1.0]
    np.testing.assert_allclose(scores, eq.scores(b))


@pytest.mark.parametrize("kind", KINDS)
def test_profile_is_linear_and_exact(kind: str) -> None:
    eq = random_equations(2, 8, 3)
    total = eq.blocks.sum(axis=0)[:, 1:]
    side = np.linalg.solve(total[1:, 1:].T, total[0, 1:])
    p = profile_of(eq, "a", kind)
    for d in (-3.0, 0.0, 2.5):
        _, psi = eq.restricted({"a": d})
        effective = psi[:, 0] - psi[:, 1:] @ side
        np.testing.assert_allclose(p.alpha[:, 0] - d * p.eta[:, 0, 0], effective, atol=1e-12)
        np.testing.assert_allclose(
            p.nuisance_alpha - d * p.nuisance_eta[:, :, 0], psi[:, 1:], rtol=0, atol=1e-12
        )
    np.testing.assert_allclose(p.feedback.sum(axis=0), 0.0, atol=1e-12)
    assert p.df == 8 - 3


def test_cr3_spread_estimates_the_others_without_the_block() -> None:
    eq = random_equations(3, 8, 3)
    p = profile_of(eq, "b", "CR3")
    total = eq.blocks.sum(axis=0)
    free = [0, 2]
    side = np.linalg.solve(total[np.ix_(free, [1, 3])].T, total[1, [1, 3]])
    for d in (0.0, 1.3):
        for g in range(8):
            rest = SiteEquations(np.delete(eq.blocks, g, axis=0), eq.terms)
            psi = eq.scores(rest.restricted({"b": d})[0])[g]
            expected = psi[1] - psi[free] @ side
            assert p.spread_alpha[g, 0] - d * p.spread_eta[g, 0, 0] == pytest.approx(expected, abs=1e-11)


def test_cr2_spread_is_unbiased_under_the_working_model() -> None:
    """(I - H)^(-1/2) on the residuals of the nuisance regression, in the score of the partialled-out regressor."""
    rng = np.random.default_rng(4)
    size, x = np.repeat(np.arange(6), 5), rng.normal(size=(30, 3))
    y = rng.normal(size=30)
    blocks = np.array([x[size == g].T @ np.column_stack([y, x])[size == g] for g in range(6)])
    p = profile_of(SiteEquations(blocks, ("a", "b", "c")), "a", "CR2")
    other = x[:, 1:]
    hat = other @ np.linalg.solve(other.T @ other, other.T)
    net, left = x[:, 0] - hat @ x[:, 0], (np.eye(30) - hat) @ (y - 0.4 * x[:, 0])
    for g in range(6):
        i = size == g
        values, vectors = np.linalg.eigh(np.eye(5) - hat[np.ix_(i, i)])
        adjusted = vectors @ (vectors.T @ left[i] / np.sqrt(values))
        got = p.spread_alpha[g, 0] - 0.4 * p.spread_eta[g, 0, 0]
        assert got == pytest.approx(net[i] @ adjusted, abs=1e-12)


def test_jackknife_is_the_refit() -> None:
    eq = random_equations(5, 7, 2)
    refits = [SiteEquations(np.delete(eq.blocks, g, axis=0), eq.terms).coefficients for g in range(7)]
    np.testing.assert_allclose(eq.jackknife(), refits, rtol=1e-10)
    alone = eq.blocks.copy()
    alone[1:, 1, :] = alone[1:, :, 2] = 0.0  # only the first block speaks about b
    out = SiteEquations(alone, eq.terms).jackknife()
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1:]).all()


def test_one_coefficient_is_the_one_sample_t_test() -> None:
    eq = random_equations(6, 9, 1)
    scores = eq.scores(np.array([0.2]))[:, 0]
    for kind in KINDS:
        test = eq.score_test({"a": 0.2}, small_sample=kind)
        expected = stats.ttest_1samp(scores, 0.0)
        assert isinstance(test, TestStatistic)
        assert test.stat == pytest.approx(expected.statistic**2, rel=1e-12)
        assert test.pvalue == pytest.approx(expected.pvalue, rel=1e-10)
        assert (test.df, test.df_denom) == (1, 8.0)


def test_all_coefficients_at_once_is_hotelling() -> None:
    eq = random_equations(7, 9, 2)
    psi = eq.scores(np.array([0.1, 0.9]))
    t2 = 9 * psi.mean(axis=0) @ np.linalg.solve(np.cov(psi.T), psi.mean(axis=0))
    test = eq.score_test({"a": 0.1, "b": 0.9})
    assert test.stat == pytest.approx(t2 * 7 / (2 * 8), rel=1e-12)
    assert isinstance(test, TestStatistic)
    assert (test.df, test.df_denom) == (2, 7.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "groups", "k"), [(1, 5, 1), (2, 12, 2), (3, 30, 3), (4, 4, 2), (9, 5, 2)])
def test_score_set_is_the_test_inverted(seed: int, groups: int, k: int, kind: str) -> None:
    eq = random_equations(seed, groups, k)
    found = eq.score_set("a", small_sample=kind)
    assert isinstance(found, ConfidenceSet)
    centre = float(eq.coefficients[0])
    assert centre in found
    for x in centre + np.sinh(np.linspace(-6, 6, 301)):
        assert (eq.score_test({"a": x}, small_sample=kind).pvalue >= 0.05) == (x in found)
    for end in np.ravel(found.intervals):
        if np.isfinite(end):
            assert eq.score_test({"a": end}, small_sample=kind).pvalue == pytest.approx(0.05, rel=1e-6)


def test_weak_instruments_leave_the_set_unbounded() -> None:
    blocks = random_equations(8, 10, 1).blocks.copy()
    blocks[::2, :, 1] = -blocks[1::2, :, 1]  # the denominator is noise around zero
    found = SiteEquations(blocks, ("a",)).score_set("a")
    assert isinstance(found, ConfidenceSet)
    assert not found.is_bounded


def test_units_of_outcome_and_mediators() -> None:
    eq = random_equations(9, 10, 2)
    blocks = eq.blocks * np.array([1e5, 1e-7])[:, None] * np.array([1e3, 1e5, 1e-7])
    other = SiteEquations(blocks, eq.terms)
    size = 1e3 / 1e5
    for kind in KINDS:
        one, two = eq.score_set("a", small_sample=kind), other.score_set("a", small_sample=kind)
        assert isinstance(one, ConfidenceSet)
        assert isinstance(two, ConfidenceSet)
        np.testing.assert_allclose(np.array(two.intervals) / size, one.intervals, rtol=1e-8)
        a, b = eq.sandwich(kind), other.sandwich(kind)
        assert b.covariance[0, 0] == pytest.approx(a.covariance[0, 0] * size**2, rel=1e-9)
        np.testing.assert_allclose(a.df, b.df, rtol=1e-9)
    np.testing.assert_allclose(other.jackknife()[:, 0], eq.jackknife()[:, 0] * size, rtol=1e-9)


def test_a_denominator_without_sign_is_a_status() -> None:
    eq = random_equations(10, 8, 2)
    blocks = eq.blocks.copy()
    blocks[:, 1, 2] -= 2.0 * blocks[:, 1, 2].mean()  # bias-corrected below zero
    bad = SiteEquations(blocks, eq.terms)
    for out in (bad.score_test({"a": 0.0}), bad.score_set("a")):
        assert isinstance(out, NotApplicable)
        assert "'b' are not positive definite" in out.reason
    assert isinstance(bad.score_test({"a": 0.0, "b": 0.0}), TestStatistic)  # nothing has to be estimated
    out = bad.sandwich("CR2")
    assert np.isnan(out.covariance).all()
    assert out.reason is not None
    assert "CR0" in out.reason
    assert np.isfinite(bad.sandwich("CR0").covariance).all()


def test_blocks_that_are_not_semi_definite_have_no_working_model() -> None:
    eq = random_equations(11, 12, 1)
    blocks = eq.blocks - np.array([0.0, 0.3])  # error-corrected: some sites fall below zero
    assert (blocks[:, 0, 1] < 0).any()
    out = SiteEquations(blocks, eq.terms).sandwich("CR2")
    assert np.isfinite(out.covariance).all()
    assert np.isnan(out.df).all()
    assert out.reason is not None
    assert "working model" in out.reason


def test_small_numbers_of_sites() -> None:
    two = random_equations(12, 2, 1)
    assert isinstance(two.score_set("a"), ConfidenceSet)
    assert two.score_test({"a": 0.0}).dist == "F(1, 1)"
    full = random_equations(12, 2, 2)
    assert np.isfinite(full.coefficients).all()
    for call in (
        lambda: full.score_test({"a": 0.0}),
        lambda: full.score_set("a"),
        lambda: full.sandwich("CR2"),
    ):
        with pytest.raises(TooFewSitesError, match="2 sites"):
            call()


def test_refusals() -> None:
    eq = random_equations(1, 5, 2)
    with pytest.raises(ChoiceError, match="'z' is not one of 'a' and 'b'"):
        eq.score_set("z")
    with pytest.raises(ChoiceError, match="CR1"):
        eq.score_set("a", small_sample="CR1")
    with pytest.raises(ChoiceError, match="at least one"):
        eq.restricted({})
    with pytest.raises(DataError, match="between 0 and 1"):
        eq.score_set("a", level=95)
    with pytest.raises(DataError, match="shape"):
        SiteEquations(eq.blocks, ("a",))
    with pytest.raises(DataError, match="finite"):
        SiteEquations(eq.blocks * np.nan, eq.terms)
    same = eq.blocks[:, [0, 0]][:, :, [0, 1, 1]]
    with pytest.raises(RankDeficientError, match="'a' and 'b'"):
        _ = SiteEquations(same, eq.terms).coefficients


def test_perfect_scores_have_no_spread() -> None:
    blocks = np.ones((4, 1, 2))
    out = SiteEquations(blocks, ("a",)).score_test({"a": 0.0})
    assert isinstance(out, NotApplicable)
    assert "no spread" in out.reason
