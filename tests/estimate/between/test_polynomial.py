"""Effects that are polynomials in compliance: formulas by hand, errors in variables, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, DesignError, TooFewSitesError
from msmmiv.estimate.between.polynomial import polynomial
from msmmiv.estimate.between.rows import BetweenRows, between_rows
from msmmiv.estimate.site_moments import corrected_product
from tests.estimate.helpers import trial


def make(y, x, cov, z=None, names=("direct_effect",)):
    k = len(y)
    z = np.ones((k, 1)) if z is None else z
    return BetweenRows(
        labels=tuple(f"s{i}" for i in range(k)), mediators=("m",), outcome="y", exogenous=names, y=y, x=x[:, None],
        z=z, cov=cov, cross=None, common=np.zeros((2, 2)), site=np.arange(k), zero_covariance_assumed=False,
    )  # fmt: skip


def draw(seed, k, ratio, theta, *, direct=0.3, spread=0.3, rho=0.5, mean=1.0):
    """Rows with errors ``ratio`` times the sd of compliance (one); theta is g^0, g^1, g^2 of the effect."""
    rng = np.random.default_rng(seed)
    g = mean + rng.normal(size=k)
    b, a = ratio**2 * rng.uniform(0.5, 1.5, (2, k))
    c = rho * np.sqrt(a * b)
    cov = np.array([[b, c], [c, a]]).transpose(2, 0, 1)
    v, u = (
        np.einsum("kab,kb->ka", np.linalg.cholesky(cov), rng.normal(size=(k, 2))).T
        if ratio
        else np.zeros((2, k))
    )
    itt = direct + sum(t * g ** (e + 1) for e, t in enumerate(theta)) + spread * rng.normal(size=k)
    return make(itt + v, g + u, cov), g


# ------------------------------------------------------------------------------------ by hand


def powers(x, a):
    """Hermite polynomials with variance a, from the table: mean g^e when x is normal around g."""
    return [
        1.0,
        x,
        x**2 - a,
        x**3 - 3 * a * x,
        x**4 - 6 * a * x**2 + 3 * a**2,
        x**5 - 10 * a * x**3 + 15 * a**2 * x,
        x**6 - 15 * a * x**4 + 45 * a**2 * x**2 - 15 * a**3,
    ]


def by_hand(rows, degree):
    """Normal equations with loops; E[y g^e] = y H_e - e c H_(e-1)."""
    n, q = degree + 1, rows.z.shape[1]
    gram, right = np.zeros((rows.n_rows, n + q, n + q)), np.zeros((rows.n_rows, n + q))
    for k in range(rows.n_rows):
        (_, c), (_, a) = rows.cov[k]
        h, y = powers(rows.x[k, 0], a), rows.y[k]
        for i in range(1, n + 1):
            right[k, i - 1] = y * h[i] - i * c * h[i - 1]
            for j in range(1, n + 1):
                gram[k, i - 1, j - 1] = h[i + j]
            for j in range(q):
                gram[k, i - 1, n + j] = gram[k, n + j, i - 1] = rows.z[k, j] * h[i]
        right[k, n:] = rows.z[k] * y
        gram[k, n:, n:] = np.outer(rows.z[k], rows.z[k])
    b = np.linalg.solve(gram.sum(axis=0), right.sum(axis=0))
    influence = (right - gram @ b) @ np.linalg.inv(gram.sum(axis=0))
    return b, influence


def variants(seed):
    rows, _ = draw(seed, 40, 0.3, (1.0, 0.4, 0.1))
    extra = np.random.default_rng([seed, 1]).normal(size=40)
    yield rows
    yield make(
        rows.y, rows.x[:, 0], rows.cov, np.column_stack([np.ones(40), extra]), ("direct_effect", "urban")
    )
    yield make(rows.y, rows.x[:, 0], rows.cov, np.empty((40, 0)), ())
    yield make(rows.y, rows.x[:, 0], rows.cov, extra[:, None], ("urban",))


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("which", range(4))
def test_normal_equations_by_hand(degree, which):
    for rows in list(variants(3))[which : which + 1]:
        fit = polynomial(rows, degree=degree)
        b, influence = by_hand(rows, degree)
        assert np.allclose(fit.coefficients, b, rtol=1e-10, atol=1e-12)
        assert np.allclose(fit.influence, influence, rtol=1e-8, atol=1e-11)
        assert np.allclose(fit.influence.sum(axis=0), 0, atol=1e-10)
        k, p = influence.shape
        assert np.allclose(fit.covariance, influence.T @ influence * k / (k - p), rtol=1e-8)
        h = np.array(
            [powers(x, a)[: degree + 1] for x, a in zip(rows.x[:, 0], rows.noise[:, 0, 0], strict=True)]
        )
        theta = b[: degree + 1]
        own = influence[:, : degree + 1] @ h.mean(axis=0) + (h - h.mean(axis=0)) @ theta / k
        assert np.allclose(fit.average, [h.mean(axis=0) @ theta, np.sqrt(own @ own * k / (k - p))], rtol=1e-8)
        assert fit.terms[: degree + 1] == ("m", "m x compliance", "m x compliance^2")[: degree + 1]
        assert fit.terms[degree + 1 :] == rows.exogenous


def test_without_error_least_squares_to_the_last_digits():
    rows, g = draw(1, 25, 0.0, (1.0, -0.5, 0.2), spread=0.0)
    fit = polynomial(rows, degree=2)
    assert np.allclose(fit.coefficients, [1.0, -0.5, 0.2, 0.3], rtol=1e-12)
    d = fit.effects()
    assert np.allclose(d["mediator_effect"], 1 - 0.5 * g + 0.2 * g**2, rtol=1e-11)
    assert np.allclose(d["indirect_effect"], g - 0.5 * g**2 + 0.2 * g**3, rtol=1e-11)
    assert fit.average[0] == pytest.approx((1 - 0.5 * g + 0.2 * g**2).mean(), rel=1e-12)
    rough, _ = draw(1, 25, 0.0, (1.0, 0.5, 0.0))
    found = np.polynomial.polynomial.polyfit(rough.x[:, 0], rough.y, 2)
    assert np.allclose(polynomial(rough).coefficients, found[[1, 2, 0]], rtol=1e-12)


@pytest.mark.parametrize("degree", [1, 2])
def test_products_of_six_are_unbiased_by_quadrature(degree):
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    mass = np.outer(weights, weights).ravel() / weights.sum() ** 2
    v = np.array([[0.9, 0.5], [0.5, 0.7]])
    u = np.array([0.4, -1.2]) + np.array(np.meshgrid(nodes, nodes)).reshape(2, -1).T @ np.linalg.cholesky(v).T
    many = np.broadcast_to(v, (len(u), 2, 2))
    for e in range(2 * degree + 3):
        assert mass @ corrected_product(u, many, (1,) * e) == pytest.approx((-1.2) ** e, rel=1e-10)
        assert mass @ corrected_product(u, many, (0,) + (1,) * e) == pytest.approx(
            0.4 * (-1.2) ** e, rel=1e-10
        )


# -------------------------------------------------------------------------------- equivariance


def curve(fit, g):
    n = fit.degree + 1
    return fit.mediator_effect(g) * g + fit.coefficients[n]


@pytest.mark.parametrize("degree", [1, 2])
def test_origin_and_units_of_compliance_do_not_matter(degree):
    rows, _ = draw(2, 60, 0.3, (1.0, 0.4, 0.1))
    fit, at = polynomial(rows, degree=degree), np.linspace(-1, 3, 5)
    moved = polynomial(replace(rows, x=rows.x + 3.0), degree=degree)
    assert np.allclose(curve(moved, at + 3.0), curve(fit, at), rtol=1e-9)
    assert moved.constancy.stat == pytest.approx(fit.constancy.stat, rel=1e-9)
    far = polynomial(replace(rows, x=rows.x + 1e3), degree=1)
    assert np.allclose(curve(far, at + 1e3), curve(polynomial(rows), at), rtol=1e-4)
    scale = np.array([7.0, 1e4])
    units = replace(rows, y=7 * rows.y, x=1e4 * rows.x, cov=rows.cov * np.outer(scale, scale))
    other = polynomial(units, degree=degree)
    assert np.allclose(curve(other, 1e4 * at), 7 * curve(fit, at), rtol=1e-9)
    assert np.allclose(other.average, np.array(fit.average) * 7e-4, rtol=1e-9)
    mine, theirs = fit.effects(), other.effects()
    assert np.allclose(
        theirs["indirect_effect_se"], 7 * mine["indirect_effect_se"], rtol=1e-8, equal_nan=True
    )
    assert np.allclose(
        theirs["mediator_effect_se"], 7e-4 * mine["mediator_effect_se"], rtol=1e-8, equal_nan=True
    )


@pytest.mark.parametrize("degree", [1, 2])
def test_influence_is_the_derivative_in_the_weight_of_a_row(degree):
    """Repeat everybody and one row once more: the coefficients move by influence times K over the new total."""
    rows, _ = draw(4, 50, 0.3, (1.0, 0.4, 0.1))
    fit, times = polynomial(rows, degree=degree), 400
    for extra in (0, 17):
        who = np.append(np.tile(np.arange(50), times), extra)
        many = make(rows.y[who], rows.x[who, 0], rows.cov[who])
        again = polynomial(many, degree=degree)
        step = (again.coefficients - fit.coefficients) * len(who) / 50
        assert np.allclose(step, fit.influence[extra], rtol=0.02, atol=1e-4)
        moved = (again.average[0] - fit.average[0]) * len(who)
        n, theta = degree + 1, fit.coefficients[: degree + 1]
        h = np.array(
            [[1.0, *powers(x, a)[1:n]] for x, a in zip(rows.x[:, 0], rows.noise[:, 0, 0], strict=True)]
        )
        expected = 50 * fit.influence[extra, :n] @ h.mean(axis=0) + (h[extra] - h.mean(axis=0)) @ theta
        assert moved == pytest.approx(expected, rel=0.03, abs=1e-3)


# ---------------------------------------------------------------------------------- simulation


def test_consistent_where_least_squares_is_not():
    theta = (1.0, 0.5, 0.2)
    rows, g = draw(5, 20_000, 0.5, theta)
    fit = polynomial(rows, degree=2)
    assert np.all(np.abs(fit.coefficients - [*theta, 0.3]) < 3.5 * fit.std_errors)
    assert np.all(fit.std_errors < 0.1)
    value, error = fit.average
    assert abs(value - (1.0 + 0.5 + 0.2 * 2.0)) < 3.5 * error < 0.15
    naive = np.polynomial.polynomial.polyfit(rows.x[:, 0], rows.y, 3)
    assert abs(naive[3] - 0.2) > 4 * fit.std_errors[2]
    d = fit.effects()
    assert abs((d["indirect_effect"] - fit.mediator_effect(g) * g).mean()) < 0.05
    assert fit.constancy.pvalue < 1e-6
    assert np.all(fit.std_error([0.0, 1.0]) > 0)
    assert fit.std_error(0.0) == pytest.approx(fit.std_errors[0])


def test_errors_of_rows_count_their_own_part_in_the_fit():
    """Given compliances and no spread off the curve: the variance over draws is the mean of the estimated one."""
    truth, found, variance = draw(6, 25, 0.2, (1.0, 0.5), spread=0.0)[1], [], []
    for seed in range(600):
        rows, _ = draw(seed, 25, 0.2, (1.0, 0.5), spread=0.0)
        itt = 0.3 + truth + 0.5 * truth**2
        root = np.linalg.cholesky(rows.cov)
        noise = np.einsum("kab,kb->ka", root, np.random.default_rng([seed, 1]).normal(size=(25, 2)))
        fit = polynomial(make(itt + noise[:, 0], truth + noise[:, 1], rows.cov))
        d = fit.effects()
        found.append(d["indirect_effect"])
        variance.append(d["indirect_effect_se"] ** 2)
    far = np.argsort(np.abs(truth - truth.mean()))[-5:]
    ratio = np.nanmean(variance, axis=0) / np.var(found, axis=0)
    assert ratio[far].mean() == pytest.approx(1.0, abs=0.2)
    assert ratio.mean() == pytest.approx(1.0, abs=0.2)


@pytest.mark.validation
@pytest.mark.parametrize(
    ("degree", "k", "ratio"), [(d, k, r) for d in (1, 2) for k in (30, 100) for r in (0.3, 1.0)]
)
def test_size_of_the_test_of_constancy(degree, k, ratio):
    p = np.array([
        polynomial(draw(seed, k, ratio, (1.0,), spread=0.5)[0], degree=degree).constancy.pvalue for seed in range(500)
    ])  # fmt: skip
    p = p[np.isfinite(p)]
    assert len(p) > 450
    assert 0.005 < (p < 0.05).mean() < 0.10


def test_the_test_of_constancy_has_power_and_a_null():
    reject = {}
    for curved in (0.0, 0.4):
        p = [polynomial(draw(s, 60, 0.3, (1.0, curved))[0]).constancy.pvalue for s in range(100)]
        reject[curved] = np.mean(np.array(p) < 0.05)
    assert reject[0.0] < 0.12
    assert reject[0.4] > 0.9


# --------------------------------------------------------------------------------- degenerate


def test_noise_that_leaves_nothing_is_a_status():
    rows, _ = draw(7, 40, 0.3, (1.0, 0.5))
    fit = polynomial(replace(rows, cov=rows.cov * 30))
    assert fit.status is not None
    assert "no more than noise" in fit.status
    assert fit.left <= 0
    assert np.isnan(fit.coefficients).all()
    assert np.isnan(fit.average).all()
    assert fit.effects()[["mediator_effect", "indirect_effect_se"]].isna().all().all()
    assert "no more than noise" in str(fit.constancy)
    # The straight line may still be there when its curvature is not, and constancy is then tested.
    shares = [polynomial(replace(rows, cov=rows.cov * s), degree=2) for s in (1, 6)]
    assert [f.status is None for f in shares] == [True, False]
    assert np.isfinite(shares[1].constancy.pvalue)


def test_notes():
    few, many = (polynomial(draw(8, k, 0.1, (1.0,))[0]) for k in (20, 40))
    assert any("20 rows, fewer than 30" in note for note in few.notes)
    assert many.notes == ()
    flagged = replace(draw(8, 40, 0.1, (1.0,))[0], zero_covariance_assumed=True)
    assert any("counts as zero" in note for note in polynomial(flagged).notes)
    lefts = [
        polynomial(replace(draw(8, 40, 0.3, (1.0,))[0], cov=c * draw(8, 40, 0.3, (1.0,))[0].cov))
        for c in (1, 2, 4)
    ]
    assert all(a.left > b.left for a, b in pairwise(lefts))


def test_refusals():
    rows, _ = draw(9, 12, 0.2, (1.0,))
    with pytest.raises(ChoiceError, match="degree"):
        polynomial(rows, degree=3)
    with pytest.raises(DesignError, match="one mediator; there are 2"):
        polynomial(replace(rows, mediators=("m", "n"), x=np.column_stack([rows.x, rows.x**2])))
    with pytest.raises(TooFewSitesError, match=r"needs at least 5\b"):
        polynomial(rows.take(np.arange(12) < 4))
    assert np.isfinite(polynomial(rows.take(np.arange(12) < 5)).coefficients).all()
    with pytest.raises(TooFewSitesError, match=r"needs at least 6\b"):
        polynomial(rows.take(np.arange(12) < 5), degree=2)
    with pytest.raises(DesignError, match="independent rows"):
        polynomial(replace(rows, common=np.full((2, 2), 0.01)))
    arms = trial(3, sites=6, arms=3, per_site=60)
    design = mm.Design(outcome="y", treatment="t", mediators=["m0"], site="site")
    with pytest.raises(DesignError, match="share its controls"):
        polynomial(between_rows(mm.Study(arms, design).effects))


def test_from_a_published_table():
    rng = np.random.default_rng(0)
    g = np.linspace(0.2, 2.0, 14)
    table = pd.DataFrame({"s": [f"site {i}" for i in range(14)], "g": g, "sg": 0.05, "c": 0.0})
    table["b"], table["sb"] = 0.1 + 0.5 * g + 0.3 * g**2 + 0.02 * rng.normal(size=14), 0.05
    e = mm.SiteEffects.from_table(
        table, site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg", cov="c"
    )
    fit = polynomial(between_rows(e))
    assert fit.coefficients[1] == pytest.approx(0.3, abs=0.15)
    assert fit.method == "polynomial(1)"
    assert fit.df == 11
    assert fit.effects()["row"].tolist() == list(table["s"])
