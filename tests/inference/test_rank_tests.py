"""Rank tests against linearmodels, ivmodels, dense formulas, and each other."""

from __future__ import annotations

import numpy as np
import pytest
from ivmodels.tests.rank import rank_test
from linearmodels.iv.common import cragg_donald, kleibergen_paap, kleibergen_paap_f
from scipy import stats

from msmmiv.diagnose.strength import rank_tests
from msmmiv.errors import DesignError, RankDeficientError
from msmmiv.inference.first_stage import SlopeCovariance, joint_slope_covariance
from msmmiv.inference.projection import Projection
from msmmiv.inference.rank_tests import (
    anderson_lm_test,
    cragg_donald_test,
    directions,
    kleibergen_paap_test,
    noise_tail,
    robin_smith_test,
)
from msmmiv.inference.reduced_form import ReducedForm
from tests.diagnose.trials import KINDS, Kind, dense, net_of, rows_of, study_of

pytestmark = pytest.mark.filterwarnings("ignore")


def classical_directions(system):
    own = slice(1, None)
    return directions(system.reduced_form.between[own, own], system.reduced_form.within[own, own])


def joint(system, kind, study, restricted=None):
    full = joint_slope_covariance(
        system.within, system.covariates, kind, rows=study._rows, restricted=restricted
    )
    return full.combined(np.eye(1 + system.n_mediators)[:, 1:])


def rk(system, compliances, cov, **options):
    return kleibergen_paap_test(
        compliances.slopes, cov, classical_directions(system), mediators=compliances.mediators,
        n_instruments=compliances.n_instruments, free=compliances.free, label="rk", **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_classical_tests_equal_linearmodels(kind):
    rows = rows_of(kind)
    study, system, _ = study_of(kind, rows)
    matrices = dense(kind, rows)
    ours, theirs = cragg_donald_test(system.reduced_form), cragg_donald(*matrices)
    assert ours.stat == pytest.approx(theirs.stat, rel=1e-9)
    assert ours.df == theirs.df
    assert stats.chi2.sf(ours.stat, ours.df) == pytest.approx(theirs.pval, rel=1e-7, abs=1e-300)
    left = len(rows) - matrices[1].shape[1] - matrices[2].shape[1]
    assert ours.pvalue == pytest.approx(stats.f.sf(ours.stat / ours.df, ours.df, left), rel=1e-7, abs=1e-300)
    lm = kleibergen_paap(*matrices, "unadjusted")
    all_rows = anderson_lm_test(system.reduced_form, nobs=system.nobs)
    assert all_rows.stat == pytest.approx(lm.stat, rel=1e-9)
    # Rows left by intercepts, covariates and direct effects count by default.
    left = len(rows) - matrices[2].shape[1]
    assert anderson_lm_test(system.reduced_form).stat == pytest.approx(lm.stat * left / len(rows), rel=1e-9)
    assert study.rank(direct_effect=kind.direct_effect, draws=19).cragg_donald == pytest.approx(
        theirs.stat / matrices[1].shape[1], rel=1e-9
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("covariance", ["robust", "clustered"])
def test_kleibergen_paap_equals_linearmodels(kind, covariance):
    rows = rows_of(kind)
    study, system, compliances = study_of(kind, rows)
    matrices = dense(kind, rows)
    config = {"clusters": rows["class"].to_numpy()} if covariance == "clustered" else None
    label = "cluster" if covariance == "clustered" else "robust"
    tests = rank_tests(system, compliances, rows=study._rows)
    ours = {t.test.name: t for t in tests if t.covariance == label}
    f = kleibergen_paap_f(*matrices, covariance, config)
    assert ours["Kleibergen-Paap rk Wald"].printed == pytest.approx(f, rel=1e-9)
    theirs = kleibergen_paap(*matrices, covariance, config)
    assert ours["Kleibergen-Paap rk LM"].printed == pytest.approx(theirs.stat, rel=1e-9)
    assert ours["Kleibergen-Paap rk LM"].test.df == theirs.df
    n = rows["class"].nunique() if config else len(rows)
    exogenous = matrices[2].shape[1] - (kind.covariates if config else 0)
    assert ours["Kleibergen-Paap rk LM"].test.stat == pytest.approx(
        theirs.stat * (n - exogenous) / n, rel=1e-9
    )


@pytest.mark.parametrize("mediators", [1, 2, 3])
def test_cragg_donald_equals_ivmodels(mediators):
    kind = Kind(mediators=mediators)
    rows = rows_of(kind)
    m, z, exogenous = dense(kind, rows)
    _, system, _ = study_of(kind, rows)
    stat, pvalue = rank_test(z, m, C=exogenous, fit_intercept=False)
    ours = cragg_donald_test(system.reduced_form)
    assert ours.stat == pytest.approx(stat, rel=1e-9)
    assert stats.chi2.sf(ours.stat, ours.df) == pytest.approx(pvalue, abs=1e-12)


def dense_rk(m, z, exogenous, rank):
    """Kleibergen and Paap's statistic as printed: Kronecker products of singular vectors, any rank."""
    m, z = net_of(exogenous, m), net_of(exogenous, z)
    n = len(m)
    root_z = np.linalg.cholesky(np.linalg.inv(z.T @ z / n))
    root_m = np.linalg.cholesky(np.linalg.inv(m.T @ m / n))
    theta = root_z.T @ (z.T @ m / n) @ root_m
    u, _, vt = np.linalg.svd(theta)
    left, right = u[:, rank:], vt.T[:, rank:]
    residual = m - z @ np.linalg.lstsq(z, m, rcond=None)[0]
    scores = np.einsum("ip,il->ipl", residual, z).reshape(n, -1)
    to = np.kron(root_m.T, root_z.T)
    omega = to @ (scores.T @ scores / n) @ to.T
    pick = np.kron(right.T, left.T)
    found = pick @ theta.ravel(order="F")
    return n * found @ np.linalg.solve(pick @ omega @ pick.T, found)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_any_rank_equals_the_printed_formula(rank):
    kind = Kind(mediators=3, arms=3, covariates=1, direct_effect=True)
    rows = rows_of(kind)
    study, system, compliances = study_of(kind, rows)
    test = rk(system, compliances, joint(system, "HC0", study), rank=rank)
    assert test.stat == pytest.approx(dense_rk(*dense(kind, rows), rank), rel=1e-9)
    assert test.df == (compliances.n_instruments - rank) * (3 - rank)


@pytest.mark.parametrize("rank", [0, 1])
def test_with_a_classical_covariance_rk_is_cragg_donald(rank):
    kind = Kind()
    _, system, compliances = study_of(kind, rows_of(kind))
    form = system.reduced_form
    blocks = np.einsum("kde,pq->kdpeq", system.within.omega_inverse, form.within[1:, 1:])
    cov = SlopeCovariance(blocks.reshape(8, 2, 2), np.zeros((8, 2, 0)), np.zeros((0, 0)))
    assert rk(system, compliances, cov, rank=rank).stat == pytest.approx(
        cragg_donald_test(form, rank=rank).stat, rel=1e-12
    )


def test_the_joint_covariance_has_the_single_ones_as_its_blocks():
    from msmmiv.inference.first_stage import slope_covariances

    kind = Kind(arms=3, covariates=2, blocks=2)
    study, system, _ = study_of(kind, rows_of(kind))
    for name in ("HC0", "cluster"):
        full = joint_slope_covariance(system.within, system.covariates, name, rows=study._rows)
        single = slope_covariances(system.within, system.covariates, name, rows=study._rows)
        for j, one in enumerate(single):
            picked = full.combined(np.eye(3)[:, [j]])
            np.testing.assert_allclose(picked.marginal(), one.marginal(), rtol=1e-9)
            slopes = system.site_slopes[:, :, j]
            assert picked.wald(slopes, None) == pytest.approx(one.wald(slopes, None), rel=1e-9)


def test_robin_smith_is_exact_where_noise_is_known_and_alike():
    # One mediator, homoskedastic known noise: the sum of squares over its mean is chi2(L) / L.
    omega = np.full((6, 1, 1), 5.0)
    projection = Projection(omega, omega[:, :, :0], omega[:, :0, :0])
    slopes = np.random.default_rng(0).normal(size=(6, 1, 1))
    blocks = np.full((6, 1, 1, 1, 1), 0.4)
    found = directions(projection.explained(slopes), projection.noise(blocks))
    test = robin_smith_test(slopes, blocks, projection, found, mediators=["m"])
    assert test.stat == pytest.approx(float((slopes**2).sum() / 0.4 / 6), rel=1e-12)
    assert test.pvalue == pytest.approx(stats.chi2.sf(6 * test.stat, 6), rel=1e-9)


def test_a_shared_variance_turns_chi2_into_f():
    law = Projection(np.full((6, 1, 1), 1.0), np.zeros((6, 1, 0)), np.zeros((6, 0, 0))).law(
        np.full((6, 1, 1), 1 / 6)
    )
    assert noise_tail(1.9, law, 20.0) == pytest.approx(stats.f.sf(1.9, 6, 20), rel=0.01)


def test_questions_that_have_no_answer():
    kind = Kind()
    _, system, _ = study_of(kind, rows_of(kind))
    form = system.reduced_form
    for test in (cragg_donald_test, anderson_lm_test):
        with pytest.raises(DesignError, match="choose 0 to 1"):
            test(form, rank=2)
    within = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    flat = ReducedForm(np.eye(3), within, 4, 50.0, ("a", "b"))
    with pytest.raises(RankDeficientError, match="b are zero or an exact combination"):
        cragg_donald_test(flat)
