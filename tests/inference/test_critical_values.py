"""Tails and critical values against Imhof's integral, published figures, and simulated 2SLS."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from msmmiv.errors import DataError, DesignError
from msmmiv.inference.critical_values import (
    NoiseLaw,
    effective_f_critical_value,
    min_eigenvalue_critical_value,
    weighted_chi2_sf,
    worst_relative_bias,
)
from tests.validation import critical
from tests.validation.study import DOCS, seeds_of

BIASES = (0.05, 0.10, 0.20, 0.30)


def one_dominant(share, n):
    return np.r_[share, np.full(n - 1, (1 - share) / (n - 1))]


SPECTRA = (
    {f"flat {n}": np.full(n, 1 / n) for n in (1, 2, 5, 20, 50)}
    | {f"{s} of {n}": one_dominant(s, n) for s in (0.3, 0.5, 0.8, 0.95) for n in (5, 50)}
    | {f"geometric {r}": r ** np.arange(60) for r in (0.5, 0.9, 0.97)}
    | {"mixed": np.r_[np.full(5, 10.0), np.ones(50)], "harmonic": 1 / np.arange(1, 101)}
)
SPECTRA = {name: mu / mu.sum() for name, mu in SPECTRA.items()}


NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


def imhof(stat, mu, delta):
    """P(sum_j mu_j chi2_1(delta_j) > stat), by numerical inversion of the characteristic function."""
    mu, total, start = mu / stat, 0.0, 0.0
    while start < 4000:
        edges = start + np.linspace(0, 16 * np.pi, 65)
        half = 0.5 * np.diff(edges)[:, None]
        u = (edges[:-1, None] + half * (NODES + 1)).ravel()
        v = mu * u[:, None]
        angle = 0.5 * np.sum(np.arctan(v) + delta * v / (1 + v * v), axis=1) - 0.5 * u
        decay = np.sum(0.25 * np.log1p(v * v) + 0.5 * delta * v * v / (1 + v * v), axis=1)
        total += float((half * WEIGHTS).ravel() @ (np.sin(angle) * np.exp(-decay) / u))
        start = edges[-1]
        if decay[-1] > 18:
            break
    return 0.5 + total / np.pi


def least_favourable(mu, x):
    """All strength on the noisiest instrument."""
    delta = np.zeros(mu.size)
    delta[np.argmax(mu)] = x / mu.max()
    return delta


# ------------------------------------------------------------------------------------------ NoiseLaw


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30), st.floats(1e-6, 1e6))
def test_every_spectrum_is_a_law_in_any_unit(values, unit):
    law, other = NoiseLaw.from_eigenvalues(values), NoiseLaw.from_eigenvalues(unit * np.array(values))
    np.testing.assert_allclose(law.normalised_sums(), other.normalised_sums(), rtol=1e-9)
    assert effective_f_critical_value(law) == pytest.approx(effective_f_critical_value(other), rel=1e-8)
    assert weighted_chi2_sf(3.0, law) == pytest.approx(
        weighted_chi2_sf(3.0 * unit, other), rel=1e-6, abs=1e-12
    )


@pytest.mark.parametrize(
    ("sums", "says"),
    [
        ((0.0, 1.0, 1.0, 1.0), "positive and finite"),
        ((1.0, 0.5, -0.1, 0.5), "positive and finite"),
        ((1.0, np.nan, 0.1, 0.5), "positive and finite"),
        ((1.0, 0.5, 0.1, 0.3), r"squares <= trace \* top"),
        ((1.0, 0.4, 0.3, 0.6), r"cubes <= squares \* top"),
        ((1.0, 0.5, 0.1, 0.9), r"squares\^2 <= trace \* cubes"),
        ((1.0, 1.5, 2.5, 2.0), r"squares <= trace\^2"),
    ],
)
def test_sums_that_no_spectrum_has(sums, says):
    with pytest.raises(DataError, match=says):
        NoiseLaw(*sums)


def test_a_loose_top_and_rounding_are_accepted():
    NoiseLaw(1.0, 0.2, 0.04, 3.0)
    NoiseLaw(1.0, 0.2 * (1 + 1e-9), 0.04, 0.2)


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1.0, -0.1], [1.0, np.inf]])
def test_eigenvalues_that_are_none(values):
    with pytest.raises(DataError):
        NoiseLaw.from_eigenvalues(values)


# ------------------------------------------------------------------------------- weighted chi-squared


@pytest.mark.parametrize("mu", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize(("level", "error"), [(0.10, 0.0066), (0.05, 0.0039), (0.01, 0.0002)])
def test_weighted_tail_is_as_accurate_as_its_docstring_says(mu, level, error):
    law = NoiseLaw.from_eigenvalues(mu)
    stat = optimize.brentq(lambda s: weighted_chi2_sf(s, law) - level, 0.01, 50)
    assert imhof(stat, mu, np.zeros(mu.size)) == pytest.approx(level, abs=error + 1e-5)


def test_weighted_tail_is_exact_for_equal_weights_and_holds_its_limits():
    law = NoiseLaw.from_eigenvalues(np.full(7, 2.5))
    stat = np.array([0.5, 10.0, 17.5, 40.0, 200.0])
    found = [weighted_chi2_sf(s, law) for s in stat]
    np.testing.assert_allclose(found, stats.chi2.sf(stat / 2.5, 7), rtol=1e-12)
    skewed = NoiseLaw.from_eigenvalues([5.0, 1.0, 1.0])
    assert weighted_chi2_sf(0.0, skewed) == 1.0
    assert weighted_chi2_sf(np.inf, skewed) == 0.0
    with pytest.raises(DataError, match="not a number"):
        weighted_chi2_sf(np.nan, skewed)


def test_the_oracle_agrees_with_simulation():
    rng = np.random.default_rng(5)
    mu, delta = SPECTRA["0.5 of 5"], np.array([4.0, 0.0, 2.0, 0.0, 0.0])
    draws = ((rng.standard_normal((400_000, 5)) + np.sqrt(delta)) ** 2) @ mu
    assert imhof(6.0, mu, delta) == pytest.approx((draws > 6.0).mean(), abs=0.003)


# ---------------------------------------------------------------------------------------- effective F


@pytest.mark.parametrize(
    ("n", "bias", "published"),
    [
        (1, 0.05, 37.42),
        (1, 0.10, 23.11),
        (1, 0.20, 15.06),
        (1, 0.30, 12.05),
        (5, 0.10, 16.08),
        (10, 0.10, 14.53),
        (20, 0.10, 13.46),
    ],
)
def test_published_effective_f_critical_values(n, bias, published):
    law = NoiseLaw.from_eigenvalues(np.full(n, 3.0))
    assert effective_f_critical_value(law, bias=bias) == pytest.approx(published, abs=0.0051)


@pytest.mark.parametrize("mu", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize(("bias", "most"), [(0.05, 0.0504), (0.10, 0.0504), (0.30, 0.0515)])
def test_effective_f_keeps_its_level_as_its_docstring_says(mu, bias, most):
    cv = effective_f_critical_value(NoiseLaw.from_eigenvalues(mu), bias=bias)
    found = imhof(cv, mu, least_favourable(mu, 1 / bias))
    assert 0.0499 <= found <= most + 5e-5


@pytest.mark.parametrize("name", ["0.5 of 5", "geometric 0.5", "harmonic", "mixed"])
def test_the_noisiest_instrument_is_the_least_favourable_place_for_strength(name):
    mu, rng = SPECTRA[name], np.random.default_rng(8)
    cv = effective_f_critical_value(NoiseLaw.from_eigenvalues(mu))
    worst = imhof(cv, mu, least_favourable(mu, 10.0))
    places = [rng.dirichlet(np.full(mu.size, a)) for a in (0.05, 0.2, 1.0) for _ in range(4)]
    assert all(imhof(cv, mu, 10.0 * p / mu) <= worst + 1e-6 for p in places)


def test_more_tolerance_less_noise_in_one_place_and_a_looser_top():
    law = NoiseLaw.from_eigenvalues(SPECTRA["harmonic"])
    values = [effective_f_critical_value(law, bias=b) for b in BIASES]
    assert values == sorted(values, reverse=True)
    loose = NoiseLaw(law.trace, law.squares, law.cubes, 2 * law.top)
    assert effective_f_critical_value(loose) > effective_f_critical_value(law)
    less = effective_f_critical_value(NoiseLaw.from_eigenvalues(np.ones(5)), worst_bias=0.6)
    assert less == pytest.approx(stats.ncx2.isf(0.05, 5, 30) / 5)


@pytest.mark.parametrize("options", [{"bias": 0.0}, {"bias": 1.0}, {"level": 0.0}, {"level": 5.0}])
def test_shares_outside_their_range(options):
    law = NoiseLaw.from_eigenvalues([1.0])
    with pytest.raises(DataError, match="between 0 and 1"):
        effective_f_critical_value(law, **options)
    with pytest.raises(DataError, match="between 0 and 1"):
        min_eigenvalue_critical_value(law, 2, **options)
    with pytest.raises(DataError, match="worst_bias"):
        effective_f_critical_value(law, worst_bias=0.0)
    with pytest.raises(DesignError, match="at least one"):
        min_eigenvalue_critical_value(law, 0)


def test_a_million_instruments():
    n = 1_000_000
    law = NoiseLaw(trace=1.0, squares=1 / n, cubes=1 / n**2, top=1 / n)
    for value in (effective_f_critical_value(law), min_eigenvalue_critical_value(law, 1)):
        assert 11.0 < value < 11.02


# --------------------------------------------------------------------------------- several mediators


@pytest.mark.parametrize("mu", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("bias", BIASES)
def test_one_mediator_is_never_below_the_effective_f(mu, bias):
    law = NoiseLaw.from_eigenvalues(mu)
    for level in (0.01, 0.05, 0.10):
        single = effective_f_critical_value(law, bias=bias, level=level)
        found = min_eigenvalue_critical_value(law, 1, bias=bias, level=level)
        assert single <= found <= 1.02 * single
        if level == 0.05 and np.ptp(mu) == 0:
            assert found == single


@pytest.mark.parametrize("mu", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize(("level", "most"), [(0.05, 0.0508), (0.01, 0.0103)])
def test_a_single_direction_keeps_its_level_as_the_docstring_says(mu, level, most):
    law = NoiseLaw.from_eigenvalues(mu)
    for bias in (0.05, 0.10, 0.30):
        cv = min_eigenvalue_critical_value(law, 2, bias=bias, level=level)
        x = worst_relative_bias(law, 2) / bias
        assert imhof(cv, mu, least_favourable(mu, x)) <= most + 5e-5


def lewis_mertens(blocks, x, level=0.05):
    """Their three cumulants with their norms, from the joint covariance of all coefficients (P L x P L)."""
    p, n = blocks.shape[0], blocks.shape[1]
    phi = np.einsum("plql->pq", blocks)
    values, vectors = np.linalg.eigh(phi)
    root = np.kron(vectors @ np.diag(values**-0.5) @ vectors.T, np.eye(n))
    sigma = root @ blocks.reshape(p * n, p * n) @ root
    norm = np.linalg.norm(sigma, 2)
    kappa = []
    for m in (1, 2, 3):
        power = np.linalg.matrix_power(sigma, m).reshape(p, n, p, n)
        traces = np.einsum("plql->pq", power)
        kappa.append(2 ** (m - 1) * (1, 1, 2)[m - 1] * (np.linalg.norm(traces, 2) + m * x * norm ** (m - 1)))
    omega = kappa[1] / kappa[2]
    nu = 8 * kappa[1] * omega**2
    return (stats.chi2.isf(level, nu) - nu) / (4 * omega) + kappa[0]


def sup_law(sites):
    """Least favourable law of independent sites, (L, 2, 2) noise with total one, over combinations of mediators."""
    angle = np.linspace(0, np.pi, 721)
    x = np.column_stack([np.cos(angle), np.sin(angle)])
    mu = np.einsum("ip,lpq,iq->il", x, sites, x)
    return NoiseLaw(1.0, (mu**2).sum(1).max(), (mu**3).sum(1).max(), mu.max())


def total_one(sites):
    values, vectors = np.linalg.eigh(sites.sum(axis=0))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return root @ sites @ root


def test_against_the_cumulants_of_lewis_and_mertens():
    """Equal where sites are alike (up to Patnaik's quantile); at the same strength never above elsewhere."""
    rng = np.random.default_rng(2)
    for n in (5, 20):
        alike = total_one(np.tile(np.array([[2.0, 0.7], [0.7, 1.0]]), (n, 1, 1)))
        law = sup_law(alike)
        x = worst_relative_bias(law, 2) / 0.10
        blocks = np.einsum("lpq,lk->plqk", alike, np.eye(n))
        found = min_eigenvalue_critical_value(law, 2)
        assert found == pytest.approx(lewis_mertens(blocks, x), rel=1e-3)
        a = rng.standard_normal((n, 2, 2))
        unlike = total_one(np.einsum("lpa,lqa->lpq", a, a) * np.exp(rng.normal(0, 1, (n, 1, 1))))
        law = sup_law(unlike)
        x = worst_relative_bias(law, 2) / 0.10
        blocks = np.einsum("lpq,lk->plqk", unlike, np.eye(n))
        assert min_eigenvalue_critical_value(law, 2) <= lewis_mertens(blocks, x) * (1 + 1e-3)


# -------------------------------------------------------------------------------- the bias of 2SLS


def nagar(strength, noise):
    """Largest Nagar bias of 2SLS over sqrt(E e'e), independent sites and total noise one: any endogeneity.

    With e_l = f_l' V_l the bias is linear in f, so its largest value is an eigenvalue; derived from
    E[V'(I - Q Q') e - C' V A^(-1) C' e], not from the bound that is under test.
    """
    gram = strength.T @ strength
    inverse = np.linalg.inv(gram)
    leverage = np.einsum("lp,pq,lq->l", strength, inverse, strength)
    m = (1 - leverage)[:, None, None] * inverse
    m = m - np.einsum("ab,lb,lc,cd->lad", inverse, strength, strength, inverse)
    return np.sqrt(np.linalg.eigvalsh(np.einsum("lba,lbc,lcd->ad", m, noise, m))[-1])


@given(st.integers(0, 10_000), st.sampled_from([2, 3, 5, 12]), st.floats(1.0, 30.0), st.booleans())
def test_nagar_bias_stays_below_the_bound(seed, n, other, sparse):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, 2, 2)) * np.exp(rng.normal(0, 1.5, (n, 1, 1)))
    if sparse:
        a[:, :, 1] = 0.0
    noise = total_one(np.einsum("lpa,lqa->lpq", a, a) + 1e-9 * np.eye(2))
    q, _ = np.linalg.qr(rng.standard_normal((n, 2)) * np.exp(rng.normal(0, 1.5, (n, 1))))
    turn, _ = np.linalg.qr(rng.standard_normal((2, 2)))
    strength = q @ np.diag([1.0, np.sqrt(other)]) @ turn
    assert nagar(strength, noise) <= worst_relative_bias(sup_law(noise), 2) + 1e-6


def adverse():
    """Independent sites in which 2SLS with two mediators has more than the bias of its strength: 2 / sqrt(3) of it.

    Two sites carry all strength, one in each of two directions. All noise is in the first of them and in a third, in
    directions that best tell ``e1 e1'`` from ``2/3 u u'``, where u is the direction of the first site.
    """
    strength = np.array([[0.0, 0.0], [np.sqrt(2), 1.0], [1.0, -np.sqrt(2)]]) / np.sqrt(3)
    towards = np.array([[2 * np.sqrt(2), -1.0], [1.0, 2 * np.sqrt(2)], [0.0, 0.0]]) / 3
    return strength, np.einsum("lp,lq->lpq", towards, towards)


def test_the_bound_is_needed_with_two_mediators():
    strength, noise = adverse()
    found = nagar(strength, noise)
    assert found == pytest.approx(2 / np.sqrt(3), rel=1e-12)
    assert found <= worst_relative_bias(sup_law(noise), 2)


@pytest.mark.parametrize("n", [5, 20])
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("bias", [0.10, 0.30])
def test_simulated_2sls_with_two_mediators_at_the_threshold(n, alike, bias):
    """The mean of 2SLS itself where endogeneity is perfect and the population at the threshold."""
    rng = np.random.default_rng(4)
    a = (
        np.tile(np.eye(2), (n, 1, 1))
        if alike
        else rng.standard_normal((n, 2, 2)) * np.exp(rng.normal(0, 1, (n, 1, 1)))
    )
    noise = total_one(np.einsum("lpa,lqa->lpq", a, a))
    law = sup_law(noise)
    strength = np.linalg.qr(rng.standard_normal((n, 2)))[0] * np.sqrt(worst_relative_bias(law, 2) / bias)
    v = np.einsum("lpq,rlq->rlp", np.linalg.cholesky(noise), rng.standard_normal((20_000, n, 2)))
    v = np.concatenate([v, -v])
    theta = strength + v
    gram = np.einsum("rlp,rlq->rpq", theta, theta)
    # The error is the noise of one combination of mediators: for each of them, the mean of 2SLS less the truth.
    mean = np.linalg.solve(gram, np.einsum("rlp,rlq->rpq", theta, v)).mean(axis=0)
    assert np.linalg.norm(mean, 2) <= bias
    smallest = np.linalg.eigvalsh(gram)[:, 0]
    assert (smallest > min_eigenvalue_critical_value(law, 2, bias=bias)).mean() <= 0.05


@pytest.mark.parametrize(("share", "excess"), [(0.5, 1.03), (0.7, 1.14), (0.97, 1.45)])
def test_exact_bias_beyond_nagar_where_one_instrument_has_strength_and_noise(share, excess):
    noise, strength = one_dominant(share, 5).reshape(5, 1, 1), np.zeros((5, 1))
    strength[0] = np.sqrt(1 / 0.10)
    _, halves = critical.simulate(strength, noise, 20.0, np.random.default_rng(6), 400_000)
    square = (halves[0] * halves[1] / noise).sum()
    assert np.sqrt(square) == pytest.approx(0.10 * excess, rel=0.03)


# ---------------------------------------------------------------------------------- validation table


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(DOCS / "critical.csv")


def test_the_table_keeps_level_and_bias_at_the_threshold(table):
    names = list(vars(critical.grid()[0]))
    assert [critical.CriticalCell(**row) for row in table[names].to_dict("records")] == critical.grid()
    assert (table["replications"] == critical.TRIALS).all()
    # The largest level that the docstrings admit, and three standard deviations of chance.
    assert (table["above"] <= 0.0515 + 3 * np.sqrt(0.05 * 0.95 / critical.TRIALS)).all()
    assert (table["nagar_bias"] <= table["bias"] * (1 + 1e-4)).all()
    one_site_in_all = (table["mediators"] == 1) & (table["top"] > 0.5) & (table["strength"] == "noisiest")
    assert (table["worst_bias"] <= table["bias"])[~one_site_in_all].all()
    assert (table["worst_bias"] <= 1.07 * table["bias"])[one_site_in_all].all()
    assert (table["above"] <= 0.05)[table["mediators"] == 2].all()


@pytest.mark.parametrize("at", [4, 33])
def test_the_table_is_what_its_code_writes(table, at):
    cell, row = critical.grid()[at], table.iloc[at]
    seed = seeds_of("critical", len(critical.grid()))[at]
    (again,) = critical.critical(cell, seed, int(row["replications"]))
    assert again["above"] == pytest.approx(row["above"], abs=1e-4)
    for name in ("top", "threshold", "critical_value", "worst_bias", "nagar_bias"):
        assert again[name] == pytest.approx(row[name], rel=1e-3), name
