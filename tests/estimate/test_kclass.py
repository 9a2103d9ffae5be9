"""LIML, Fuller, MBTSLS and their covariances against formulas on the rows and against linearmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from linearmodels.iv import IVLIML

import msmmiv as mm
from tests.estimate.dense import Dense, dense_of, design_of
from tests.estimate.helpers import trial

CASES = {
    "plain": {},
    "two mediators": {"mediators": 2},
    "three arms": {"arms": 3, "mediators": 2},
    "blocks": {"blocks": 2},
    "covariates": {"covariates": 2, "mediators": 2},
    "weights": {"weights": True},
    "everything": {"blocks": 2, "arms": 3, "covariates": 1, "mediators": 2, "weights": True},
}


def study_of(df: pd.DataFrame) -> mm.Study:
    return mm.Study(df, design_of(df))


def kclass(d: Dense, kappa: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients, bread, and mixed regressors by the textbook formula on all columns."""
    r = np.hstack([d.m, d.w])
    mixed = (1 - kappa) * r + kappa * d.hat @ r
    bread = np.linalg.inv(mixed.T @ r)
    return bread @ mixed.T @ d.y, bread, mixed


def liml_root(d: Dense) -> float:
    return float(np.linalg.eigvals(np.linalg.solve(d.residual * d.df, d.explained)).real.min())


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_liml_and_fuller_equal_linearmodels(case: str, direct: bool) -> None:
    """Coefficients and classical covariances are theirs; robust ones differ in one known choice.

    The equations of a k-class estimator are sums of (1 - kappa) x + kappa xhat times the residual, and that is what
    our scores are. linearmodels (and ManyIV) take xhat alone as the score, with the k-class bread; both are shown.
    """
    df = trial(31, sites=6, per_site=30, **CASES[case])
    study, d = study_of(df), dense_of(df, direct=direct)
    p, exogenous = d.m.shape[1], d.w.shape[1]
    # Their columns: direct effects, covariates, dummies, mediators.
    ours_in_theirs = [*range(exogenous, exogenous + p), *range(exogenous - d.intercepts)]
    both = np.ix_(ours_in_theirs, ours_in_theirs)
    root = np.sqrt(df["w"].to_numpy()[:, None]) if "w" in df else np.ones((len(df), 1))
    columns = d.y[:, None] / root, d.w / root, d.m / root, d.z / root
    for fuller in (0.0, 1.0, 4.0):
        model = IVLIML(*columns, weights=df.get("w"), fuller=fuller)
        estimator = "liml" if fuller == 0 else mm.Fuller(fuller)
        theirs = model.fit(cov_type="unadjusted", debiased=True)
        fit = study.fit(estimator, cov_type="classical", direct_effect=direct)
        np.testing.assert_allclose(fit.params, theirs.params.to_numpy()[ours_in_theirs], rtol=1e-9)
        np.testing.assert_allclose(fit.cov, theirs.cov.to_numpy()[both], rtol=1e-9, atol=1e-14)
        b, bread, mixed = kclass(d, float(theirs.kappa))
        e = (d.y - np.hstack([d.m, d.w]) @ b)[:, None]
        fitted = d.hat @ np.hstack([d.m, d.w])
        k = len(fit.terms)
        for kind, debiased, factor in (("HC0", False, 1.0), ("HC1", True, d.n / (d.n - len(b)))):
            robust = model.fit(cov_type="robust", debiased=debiased)
            with_fitted = factor * bread @ (fitted * e).T @ (fitted * e) @ bread
            np.testing.assert_allclose(
                robust.cov.to_numpy()[both], with_fitted[:k, :k], rtol=1e-8, atol=1e-13
            )
            with_scores = factor * bread @ (mixed * e).T @ (mixed * e) @ bread
            ours = study.fit(estimator, cov_type=kind, direct_effect=direct)
            np.testing.assert_allclose(ours.cov, with_scores[:k, :k], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_estimators_and_covariances_equal_the_dense_formulas(case: str, direct: bool) -> None:
    df = trial(32, sites=9, per_site=30, clusters=4, **CASES[case])
    study, d = study_of(df), dense_of(df, direct=direct)
    root = liml_root(d)
    kappas = {
        "liml": (1 + root, "liml"),
        "fuller": (1 + root - 1 / d.df, mm.Fuller()),
        "mbtsls": (1 + d.excluded / d.df, "mbtsls"),
    }
    for name, (kappa, estimator) in kappas.items():
        b, bread, mixed = kclass(d, kappa)
        fit = study.fit(estimator, cov_type="classical", direct_effect=direct)
        k = len(fit.terms)
        if np.linalg.eigvalsh((d.explained - (kappa - 1) * d.df * d.residual)[1:, 1:])[0] <= 0:
            assert fit.status is not None
            continue
        np.testing.assert_allclose(fit.params, b[:k], rtol=1e-9, atol=1e-12, err_msg=name)
        e = d.y - np.hstack([d.m, d.w]) @ b
        left = d.n - len(b)
        np.testing.assert_allclose(fit.cov, (e @ e / left * bread)[:k, :k], rtol=1e-8, atol=1e-14)
        assert fit.rss == pytest.approx(e @ e, rel=1e-9)

        def sandwich(power: float, groups=None, *, mixed=mixed, bread=bread, e=e, k=k) -> np.ndarray:
            h = np.einsum("ij,jk,ik->i", mixed, bread, mixed)
            score = mixed * (e / (1 - h) ** (power / 2))[:, None]
            if groups is not None:
                score = pd.DataFrame(score).groupby(groups.to_numpy()).sum().to_numpy()
            return (bread @ score.T @ score @ bread.T)[:k, :k]

        for kind, cov in (("HC0", sandwich(0)), ("HC1", sandwich(0) * d.n / left)):
            got = study.fit(estimator, cov_type=kind, direct_effect=direct)
            np.testing.assert_allclose(got.cov, cov, rtol=1e-8, atol=1e-13, err_msg=f"{name} {kind}")
        for kind in ("cluster", "site"):
            got = study.fit(estimator, cov_type=kind, small_sample="CR0", direct_effect=direct)
            np.testing.assert_allclose(got.cov, sandwich(0, df[kind]), rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bekker_covariance_equals_its_formula(case: str, direct: bool) -> None:
    """Lambda^-1 {s2 Lambda + tau (s2 S_MM +- S_Mb S_Mb')} Lambda^-1; mediators with W partialled out."""
    df = trial(33, sites=9, per_site=30, **CASES[case])
    study, d = study_of(df), dense_of(df, direct=direct)
    p = d.m.shape[1]
    left = d.n - d.w.shape[1]
    tau = d.excluded * left / (left - d.excluded)
    for name, sign, lam in (("liml", -1, liml_root(d) * d.df), ("mbtsls", 1, d.excluded)):
        matrix = (d.explained - lam * d.residual)[1:, 1:]
        fit = study.fit(name, cov_type="bekker", direct_effect=direct)
        if np.linalg.eigvalsh(matrix)[0] <= 0:
            assert fit.status is not None
            assert fit.params.isna().all()
            continue
        b = np.linalg.solve(matrix, (d.explained - lam * d.residual)[1:, 0])
        v = np.concatenate([[1.0], -b])
        s2, sve = v @ d.residual @ v, d.residual[1:] @ v
        meat = s2 * matrix + tau * (s2 * d.residual[1:, 1:] + sign * np.outer(sve, sve))
        inverse = np.linalg.inv(matrix)
        np.testing.assert_allclose(fit.params[:p], b, rtol=1e-8)
        np.testing.assert_allclose(fit.cov.to_numpy()[:p, :p], inverse @ meat @ inverse, rtol=1e-7)
        assert (study.fit(name, cov_type="classical", direct_effect=direct).std_errors > 0).all()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("case", ["plain", "two mediators", "three arms", "blocks", "weights"], ids=str)
def test_2sls_with_heterogeneous_effects_equals_the_row_formula(case: str, direct: bool) -> None:
    """Score of a row: fitted regressors times residual, plus what the site's itt leaves times v."""
    df = trial(34, sites=7, per_site=24, **CASES[case])
    study, d = study_of(df), dense_of(df, direct=direct)
    b, bread, mixed = kclass(d, 1.0)
    r = np.hstack([d.m, d.w])
    e = d.y - r @ b
    gap, first = (d.hat - d.hat_w) @ e, r - d.hat @ r
    score = mixed * e[:, None] + gap[:, None] * first
    fit = study.fit("2sls", cov_type="HTE", direct_effect=direct)
    k = len(fit.terms)
    np.testing.assert_allclose(fit.cov, (bread @ score.T @ score @ bread)[:k, :k], rtol=1e-8, atol=1e-13)


def test_covariances_of_kclass_with_hc2_and_hc3_use_their_own_leverage() -> None:
    df = trial(35, sites=6)
    study, d = study_of(df), dense_of(df)
    b, bread, mixed = kclass(d, 1 + liml_root(d))
    e = d.y - np.hstack([d.m, d.w]) @ b
    h = np.einsum("ij,jk,ik->i", mixed, bread, mixed)
    for kind, power in (("HC2", 1), ("HC3", 2)):
        score = mixed * (e / (1 - h) ** (power / 2))[:, None]
        np.testing.assert_allclose(
            study.fit("liml", cov_type=kind).cov, (bread @ score.T @ score @ bread)[:1, :1], rtol=1e-8
        )


def test_from_moments_hc_of_liml_says_what_is_missing() -> None:
    moments = mm.Moments.from_data(df := trial(36), design_of(df))
    for name in ("liml", "mbtsls"):
        with pytest.raises(mm.errors.MomentsInsufficient, match="fourth moments of regressors and residuals"):
            mm.fit(moments, name, cov_type="HC1")
        assert np.isfinite(mm.fit(moments, name, cov_type="site").covariance).all()


@pytest.mark.parametrize("a", [-1.0, float("nan"), float("inf")])
def test_fuller_refuses_constants_without_meaning(a: float) -> None:
    with pytest.raises(mm.errors.ChoiceError, match="not negative"):
        mm.Fuller(a)


def test_fuller_of_zero_is_liml_and_more_pulls_toward_least_squares() -> None:
    df = trial(37, sites=5, per_site=14)
    study = study_of(df)
    got = [
        float(study.fit(e, cov_type="classical").params.iloc[0])
        for e in ("liml", mm.Fuller(0.0), mm.Fuller(1.0), mm.Fuller(4.0), "ols")
    ]
    assert got[0] == pytest.approx(got[1], rel=1e-12)
    steps = np.diff(got[1:])
    assert (steps > 0).all() or (steps < 0).all()
