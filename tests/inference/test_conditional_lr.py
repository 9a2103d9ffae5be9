"""The conditional p-value against simulation, its limits, and an independent integral."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from msmmiv.inference.conditional_lr import conditional_lr_pvalue, conditional_lr_statistic

positive = st.floats(0, 1e3)


@given(positive, st.floats(0, 1), positive)
def test_statistic_lies_between_k_and_ar(ar, share, rk):
    k = share * ar
    lr = conditional_lr_statistic(np.array([ar]), np.array([k]), np.array([rk]))[0]
    assert k - 1e-9 * (1 + ar) <= lr <= ar + 1e-9 * (1 + ar)
    textbook = 0.5 * (ar - rk + np.sqrt(max((ar + rk) ** 2 - 4 * (ar - k) * rk, 0.0)))
    assert lr == pytest.approx(textbook, abs=1e-6 * (1 + ar + rk))


def test_statistic_keeps_its_digits_when_the_first_stage_is_strong():
    lr = conditional_lr_statistic(np.array([20.0]), np.array([3.0]), np.array([1e14]))[0]
    assert lr == pytest.approx(3.0, rel=1e-12)


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("instruments", [3, 7, 40, 300])
@pytest.mark.parametrize(("stat", "rk"), [(0.5, 3.0), (3.8, 0.4), (6.0, 10.0), (9.0, 100.0), (25.0, 2.0)])
def test_pvalue_is_the_convolution(instruments, terms, stat, rk):
    # P(q_P + a q_{L-P} <= m), integrated over q_P = u^2 instead of over the angle.
    a = stat / (stat + rk)

    def density(u):
        return stats.chi2.pdf(u * u, terms) * 2 * u * stats.chi2.cdf((stat - u * u) / a, instruments - terms)

    knots = [np.sqrt(max(stat - a * f * (instruments - terms), 0)) for f in (1.5, 1.0, 0.5)]
    exact = 1 - integrate.quad(density, 0, np.sqrt(stat), limit=500, points=sorted(set(knots)))[0]
    found = conditional_lr_pvalue(np.array([stat]), np.array([rk]), n_instruments=instruments, n_terms=terms)[
        0
    ]
    assert found == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize(("instruments", "rk"), [(4, 5.0), (15, 30.0)])
def test_pvalue_is_the_simulated_one(instruments, rk):
    rng = np.random.default_rng(3)
    k, j = rng.chisquare(1, 200_000), rng.chisquare(instruments - 1, 200_000)
    lr = conditional_lr_statistic(k + j, k, np.full(k.shape, rk))
    for stat in (2.0, 5.0):
        found = conditional_lr_pvalue(np.array([stat]), np.array([rk]), n_instruments=instruments)[0]
        assert found == pytest.approx((lr > stat).mean(), abs=0.004)


def test_pvalue_limits():
    m = np.array([0.0, 1.0, 5.0, 50.0])
    for instruments in (1, 2, 10, 5000):
        weak = conditional_lr_pvalue(m, np.zeros(4), n_instruments=instruments)
        np.testing.assert_allclose(weak, stats.chi2.sf(m, instruments), rtol=1e-9)
        strong = conditional_lr_pvalue(m, np.full(4, np.inf), n_instruments=instruments)
        np.testing.assert_allclose(strong, stats.chi2.sf(m, 1), rtol=1e-8)
    assert conditional_lr_pvalue(np.array([np.inf]), np.array([1.0]), n_instruments=5)[0] == 0.0


def test_pvalue_falls_in_both_arguments():
    m, rk = np.meshgrid(np.linspace(0.1, 20, 30), np.linspace(0, 200, 30))
    p = conditional_lr_pvalue(m, rk, n_instruments=12)
    assert (np.diff(p, axis=1) <= 1e-14).all()
    assert (np.diff(p, axis=0) <= 1e-14).all()
