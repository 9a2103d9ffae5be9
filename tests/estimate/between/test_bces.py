"""Corrected normal equations against loops from the formulas, Akritas and Bershady's program, and R packages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import msmmiv as mm
from msmmiv.errors import (
    ChoiceError,
    DataError,
    DesignError,
    MsmmivWarning,
    RankDeficientError,
    TooFewSitesError,
)
from msmmiv.estimate.between.corrected import BCES, AdjustedDebiased, CorrectedNormal
from msmmiv.estimate.between.rows import between_rows
from tests.estimate.between.made_rows import (
    golden,
    golden_rows,
    random_rows,
    simple,
    with_corr,
)
from tests.estimate.helpers import trial

ALL = [
    BCES(),
    BCES("fu"),
    CorrectedNormal(),
    CorrectedNormal("itt"),
    CorrectedNormal("random"),
    AdjustedDebiased(),
]


def akritas_bershady(rows, f, *, covariance=True):
    """Slope, intercept and their covariance, row by row as printed."""
    x, y, k = rows.x[:, 0], rows.y, rows.n_rows
    a = f * rows.noise[:, 0, 0]
    c = f * rows.covariance[:, 0] * covariance
    mx, my = x.mean(), y.mean()
    left = sum((x[i] - mx) ** 2 - a[i] for i in range(k)) / k
    beta = sum((x[i] - mx) * (y[i] - my) - c[i] for i in range(k)) / k / left
    alpha = my - beta * mx
    xi = np.array(
        [((x[i] - mx) * (y[i] - beta * x[i] - alpha) + beta * a[i] - c[i]) / left for i in range(k)]
    )
    zeta = np.array([y[i] - beta * x[i] - mx * xi[i] for i in range(k)])
    both = np.array([xi - xi.mean(), zeta - zeta.mean()])
    return np.array([beta, alpha]), both @ both.T / k**2


def by_hand(rows, w, *, leverage=True, factor=None):
    """Coefficients and covariance from the whole normal matrix of (X, Z), with full K by K matrices."""
    k, p = rows.x.shape
    d = np.column_stack([rows.x, rows.z])
    q = rows.z.shape[1]
    big = np.diag(w)
    maker = big - (
        big @ rows.z @ np.linalg.inv(rows.z.T @ big @ rows.z) @ rows.z.T @ big if q and leverage else 0
    )
    cross = rows.cross
    if cross is None:
        cross = np.zeros((k, 1 + p, k, 1 + p))
        for i in range(k):
            cross[i, :, i, :] = rows.cov[i]
    each = np.zeros((k, 1 + p, 1 + p))
    for i in range(k):
        for j in range(k):
            each[i] += maker[i, j] * (cross[i, :, j, :] + cross[i, :, j, :].T) / 2
    normal = d.T @ big @ d
    normal[:p, :p] -= each.sum(axis=0)[1:, 1:]
    right = d.T @ big @ rows.y
    right[:p] -= each.sum(axis=0)[1:, 0]
    b = np.linalg.solve(normal, right)
    scores = np.array([w[i] * d[i] * (rows.y[i] - d[i] @ b) for i in range(k)])
    scores[:, :p] += np.array([each[i][1:, 1:] @ b[:p] - each[i][1:, 0] for i in range(k)])
    groups = np.arange(k) if rows.cross is None else rows.site
    summed = np.array([scores[groups == g].sum(axis=0) for g in np.unique(groups)])
    bread = np.linalg.inv(normal)
    g = len(summed)
    if factor is None:
        factor = k / (k - p - q) if rows.cross is None else g / (g - 1) * (k - 1) / (k - p - q)
    return b, factor * bread @ summed.T @ summed @ bread.T


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ddof", ["fu", "unbiased"])
@pytest.mark.parametrize("cov_uv", [True, False])
def test_bces_is_akritas_and_bershady(seed, ddof, cov_uv):
    rows = random_rows(seed)
    fit = BCES(ddof, cov_uv=cov_uv).solve(rows)
    b, v = akritas_bershady(rows, 1.0 if ddof == "fu" else 1 - 1 / 14, covariance=cov_uv)
    np.testing.assert_allclose(fit.coefficients, b, rtol=1e-12)
    np.testing.assert_allclose(fit.covariance, v, rtol=1e-11)
    assert fit.df == 12
    assert ("left out" in "".join(fit.notes)) == (not cov_uv)


KINDS = [
    {"p": p, "covariates": c, "intercept": i, "arms": a}
    for p, c, i, a in [
        (1, 0, True, 1),
        (2, 0, True, 1),
        (1, 2, True, 1),
        (3, 1, True, 1),
        (2, 1, False, 1),
        (1, 0, False, 1),
        (1, 0, True, 2),
        (2, 1, True, 2),
        (1, 0, True, 3),
        (1, 1, False, 2),
    ]
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_all_weights_and_designs_equal_the_full_normal_matrix(kind):
    rows = random_rows(5, k=24, scale=0.25, **kind)
    one = np.ones(24)
    for fit, (b, v) in [
        (BCES().solve(rows), by_hand(rows, one, factor=1.0)),
        (BCES("fu").solve(rows), by_hand(rows, one, leverage=False, factor=1.0)),
        (CorrectedNormal().solve(rows), by_hand(rows, one)),
        (CorrectedNormal("itt").solve(rows), by_hand(rows, 1 / rows.itt_variance)),
        (AdjustedDebiased(phi=0.0).solve(rows), by_hand(rows, 1 / rows.itt_variance)),
    ]:
        assert fit.status is None
        np.testing.assert_allclose(fit.coefficients, b, rtol=1e-9)
        np.testing.assert_allclose(fit.covariance, v, rtol=1e-8, atol=1e-13)
    free = 24 - len(rows.terms)
    assert fit.df == (free if kind["arms"] == 1 else min(free, 24 // kind["arms"] - 1))


def test_random_weights_are_paule_mandel_at_the_equal_weights():
    rows = random_rows(2, p=2, covariates=1)
    beta = CorrectedNormal().solve(rows).coefficients[:2]
    e = np.array([np.r_[1, -beta] @ v @ np.r_[1, -beta] for v in rows.cov])
    r = rows.y - rows.x @ beta
    fit = CorrectedNormal("random").solve(rows)
    t2 = float(fit.notes[-1].split()[-1].rstrip("."))
    w = 1 / (t2 + e)
    z = rows.z
    left = r - z @ np.linalg.solve((z.T * w) @ z, (z.T * w) @ r)
    assert t2 > 0
    assert w @ left**2 == pytest.approx(14 - 4, rel=1e-2)  # t2 was rounded in the note
    b, _ = by_hand(rows, w)
    np.testing.assert_allclose(fit.coefficients, b, rtol=1e-3)


@pytest.mark.parametrize("name", ["k5", "k10", "k30", "example"])
def test_golden_standard_errors_of_akritas_and_bershady(name):
    """Divisor n. Where their denominator is negative (k10, example) there is a status instead."""
    theirs = golden(name)["bces_reference_AB96"]
    fit = BCES("fu").solve(golden_rows(name))
    if name in {"k10", "example"}:
        assert fit.status.startswith("denominator not positive: sampling error is 1")
        assert np.isnan(fit.coefficients).all()
        return
    np.testing.assert_allclose(fit.coefficients, [theirs["beta"], theirs["alpha"]], rtol=1e-11)
    np.testing.assert_allclose(fit.std_errors, [theirs["se_beta"], theirs["se_alpha"]], rtol=1e-11)


@pytest.mark.parametrize("name", ["k5", "k10", "k30", "example"])
def test_as_printed_is_mechte(name):
    theirs = golden(name)["bces"]
    with pytest.warns(MsmmivWarning, match="It is wrong in two ways"):
        fit = BCES(as_printed=True).solve(golden_rows(name, corr=0.4))  # the covariance is not used
    np.testing.assert_allclose(fit.coefficients, [theirs["beta"], theirs["alpha"]], rtol=1e-11)
    np.testing.assert_allclose(fit.std_errors, [theirs["sd_beta"], theirs["sd_alpha"]], rtol=1e-11)
    np.testing.assert_allclose(fit.conf_int(), [theirs["ci_beta"], theirs["ci_alpha"]], atol=1e-8)
    assert any("no meaning" in n for n in fit.notes) == (name in {"k10", "example"})
    if name == "example":
        assert "-26.07" in fit.notes[1]
        assert fit.coefficients[0] == pytest.approx(-5.681735, abs=1e-6)


def test_as_printed_covers_no_more_than_the_paper():
    with pytest.raises(DesignError, match="fixes ddof and cov_uv"):
        BCES("fu", as_printed=True).solve(random_rows(0))
    for rows in (random_rows(0, p=2), random_rows(0, covariates=1), random_rows(0, arms=2)):
        with pytest.raises(DesignError, match="one mediator, a free direct effect"):
            BCES(as_printed=True).solve(rows)
    rows = random_rows(0)
    same = simple(rows.x[:, 0], rows.y, 0.1, 0.1)
    with pytest.warns(MsmmivWarning):
        fit = BCES(as_printed=True).solve(same)
    assert np.isnan(fit.std_errors).all()
    assert "divides by zero" in fit.notes[-1]


#: bces 2.0 from the Python Package Index, bces.bces.bces(x, sd_x, y, sd_y, cov)[...][0], on the golden tables with
#: Corr(itt, compliance) as given. Its influence leaves out - cov, so that its errors agree at zero covariance only.
BCES_PACKAGE = {
    ("k5", 0.0): [
        3.7728075759201722,
        -0.1780235178422025,
        1.4771634280942103,
        3.704378005414305,
        -5.44561813330606,
    ],
    ("k5", 0.5): [3.590731600504025, 0.22900318064131575],
    ("k30", 0.0): [
        3.1422633256389663,
        2.2481411192018372,
        1.4124695861153047,
        2.3990197263679804,
        -3.351140683359751,
    ],
    ("k30", 0.5): [3.0954285750414976, 2.3281500067445506],
}


@pytest.mark.parametrize(("name", "corr"), list(BCES_PACKAGE))
def test_numbers_of_the_bces_package(name, corr):
    theirs = BCES_PACKAGE[name, corr]
    fit = BCES("fu").solve(golden_rows(name, corr=corr))
    np.testing.assert_allclose(fit.coefficients, theirs[:2], rtol=1e-11)
    if corr == 0.0:
        np.testing.assert_allclose([*fit.std_errors, fit.covariance[0, 1]], theirs[2:], rtol=1e-11)


def test_the_bces_package_itself():
    package = pytest.importorskip("bces.bces")
    rows = random_rows(8, k=20)
    sx, sy = np.sqrt(rows.noise[:, 0, 0]), np.sqrt(rows.itt_variance)
    a, b, *_ = package.bces(rows.x[:, 0], sx, rows.y, sy, rows.covariance[:, 0])
    np.testing.assert_allclose(BCES("fu").solve(rows).coefficients, [a[0], b[0]], rtol=1e-11)
    none = with_corr(rows, 0.0)
    _, _, ea, eb, ab = package.bces(rows.x[:, 0], sx, rows.y, sy, np.zeros(20))
    fit = BCES("fu").solve(none)
    np.testing.assert_allclose([*fit.std_errors, fit.covariance[0, 1]], [ea[0], eb[0], ab[0]], rtol=1e-11)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.name)
def test_a_shared_error_moves_only_the_direct_effect(estimator):
    rows = random_rows(3, p=2, covariates=1)
    root = np.random.default_rng(0).normal(size=(3, 3))
    common = root @ root.T
    plain, moved = estimator.solve(rows), estimator.solve(replace(rows, common=common))
    both = np.r_[1, -plain.coefficients[:2]]
    want = np.zeros((4, 4))
    want[2, 2] = both @ common @ both
    np.testing.assert_allclose(moved.covariance - plain.covariance, want, atol=1e-10)


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: e.name)
def test_no_estimate_near_zero_and_too_few(estimator):
    rows = random_rows(1, p=2)
    noisy = replace(rows, cov=rows.cov + 9 * np.eye(3))
    fit = estimator.solve(noisy)
    assert "denominator not positive: sampling error is" in fit.status
    assert "a combination of the compliances" in fit.status
    assert np.isnan(fit.coefficients).all()
    assert np.isnan(fit.covariance).all()
    few = rows.take(np.arange(14) < 3)
    with pytest.raises(TooFewSitesError, match="at least 4 rows for 3 coefficients"):
        estimator.solve(few)
    one_site = replace(random_rows(0, arms=2), site=np.zeros(14, dtype=int))
    with pytest.raises(TooFewSitesError, match="leave the direct effect free"):
        estimator.solve(one_site)


def test_near_zero_is_said_with_the_figure():
    rows = random_rows(1)
    x = rows.x[:, 0]
    spread = ((x - x.mean()) ** 2).sum() / (len(x) - 1)
    fit = BCES().solve(simple(x, rows.y, 0.97 * spread, 0.1))
    assert fit.status is None
    assert "only 3.0% of the variation" in fit.notes[0]
    assert not BCES().solve(simple(x, rows.y, 0.94 * spread, 0.1)).notes
    fit = BCES().solve(simple(x, rows.y, 1.1 * spread, 0.1))
    assert "sampling error is 110% of the variation of the compliances" in fit.status


def test_wrong_options():
    rows = random_rows(0)
    with pytest.raises(ChoiceError, match="ddof"):
        BCES("ab").solve(rows)
    with pytest.raises(ChoiceError, match="weights"):
        CorrectedNormal("precision").solve(rows)
    with pytest.raises(DataError, match="phi"):
        AdjustedDebiased(phi=-1.0).solve(rows)
    z = np.column_stack([np.ones(14), np.ones(14)])
    with pytest.raises(RankDeficientError, match="linearly dependent"):
        BCES().solve(replace(rows, z=z, exogenous=("direct_effect", "w")))
    beta = BCES().solve(simple(rows.x[:, 0], rows.y, 0.04, 0.04)).coefficients[0]
    tied = rows.x[:, 0]
    with pytest.raises(DataError, match="would be infinite"):
        CorrectedNormal("random").solve(simple(tied, beta * tied, 0.04, 0.04 * beta**2, 0.04 * beta))


def test_row_order_and_units_do_not_matter():
    rows = random_rows(6, k=15, p=2, covariates=1, arms=3)
    order = np.random.default_rng(1).permutation(15)
    moved = replace(
        rows,
        y=rows.y[order],
        x=rows.x[order],
        z=rows.z[order],
        cov=rows.cov[order],
        site=rows.site[order],
        cross=rows.cross[order][:, :, order],
    )
    for estimator in ALL:
        one, two = estimator.solve(rows), estimator.solve(moved)
        np.testing.assert_allclose(one.coefficients, two.coefficients, rtol=1e-9)
        np.testing.assert_allclose(one.covariance, two.covariance, rtol=1e-8)


@pytest.mark.parametrize(
    ("covariates", "arms", "weights"), [(0, 1, "equal"), (2, 1, "equal"), (1, 2, "itt"), (2, 3, "equal")]
)
def test_corrected_products_are_unbiased(covariates, arms, weights):
    """Errors are redrawn around fixed truths: the corrected products average to those of the truths."""
    from msmmiv.estimate.between.normal_equations import corrected

    rows = random_rows(9, k=12, p=2, covariates=covariates, arms=arms, scale=1.0)
    w = 1 / rows.itt_variance if weights == "itt" else np.ones(12)
    w = w / w.mean()
    truth = np.column_stack([rows.y, rows.x])
    full = np.zeros((12, 3, 12, 3))
    for i in range(12):
        full[i, :, i, :] = rows.cov[i]
    full = full if rows.cross is None else rows.cross
    root = np.linalg.cholesky(full.reshape(36, 36))
    rng = np.random.default_rng(0)
    n = 1500
    draws = truth + (root @ rng.normal(size=(36, n))).T.reshape(n, 12, 3)
    nets = np.array([corrected(replace(rows, y=d[:, 0], x=d[:, 1:]), w).net for d in draws])
    z = rows.z * np.sqrt(w)[:, None]
    t = truth * np.sqrt(w)[:, None]
    t = t - z @ np.linalg.lstsq(z, t, rcond=None)[0]
    error = nets.std(axis=0) / np.sqrt(n)
    away = (nets.mean(axis=0) - t.T @ t) / error
    noise = corrected(rows, w).noise.sum(axis=0) / error
    assert np.abs(away[:, 1:]).max() < 3.5
    assert noise[1:, 1:].max() > 30  # without the correction it would be that far off


@pytest.mark.parametrize("sites", [1, 9])
def test_arms_that_share_controls(sites):
    """From people to rows: the shared control of one site moves only the direct effect; of many sites, everything."""
    people = trial(5, sites=sites, arms=10 if sites == 1 else 3, per_site=4000 if sites == 1 else 600)
    design = mm.Design(outcome="y", treatment="t", mediators=["m0"], site="site")
    rows = between_rows(mm.SiteEffects.from_moments(mm.Study(people, design).moments))
    fit = BCES().solve(rows)
    if sites == 1:
        assert rows.cross is None
        full = rows.cov + rows.common
        whole = np.zeros((9, 2, 9, 2))
        for i in range(9):
            for j in range(9):
                whole[i, :, j, :] = full[i] if i == j else rows.common
        # Taking all errors into account gives the same slope: what rows share is centred away.
        by_all, _ = by_hand(replace(rows, cross=whole), np.ones(9), factor=1.0)
        np.testing.assert_allclose(fit.coefficients, by_all, rtol=1e-9)
        plain = BCES().solve(replace(rows, common=np.zeros((2, 2))))
        assert fit.std_errors[1] > plain.std_errors[1]
        assert fit.std_errors[0] == plain.std_errors[0]
    else:
        assert rows.cross is not None
        b, v = by_hand(rows, np.ones(18), factor=1.0)
        np.testing.assert_allclose(fit.coefficients, b, rtol=1e-9)
        np.testing.assert_allclose(fit.covariance, v, rtol=1e-9)
        assert fit.df == 8
        alone = BCES().solve(replace(rows, cross=None))
        assert abs(alone.coefficients[0] - fit.coefficients[0]) > 1e-5
