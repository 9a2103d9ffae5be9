"""The published critical values against the exact bias, against simulation, and their edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import chndtr, chndtrix, hyp1f1
from scipy.stats import chi2

from msmmiv.errors import ChoiceError
from msmmiv.inference.stock_yogo import stock_yogo
from msmmiv.inference.tests import NotApplicable

BIAS, SIZE = (0.05, 0.10, 0.20, 0.30), (0.10, 0.15, 0.20, 0.25)


def tabulated(criterion):
    for mediators in range(1, 4 if criterion == "bias" else 3):
        for instruments in range(mediators + 2 if criterion == "bias" else mediators, 101):
            yield instruments, mediators


@pytest.mark.parametrize(
    ("instruments", "criterion", "figures"),
    [
        (3, "bias", (13.91, 9.08, 6.46, 5.39)),
        (5, "bias", (18.37, 10.83, 6.77, 5.25)),
        (30, "bias", (21.42, 11.32, 6.09, 4.29)),
        (1, "size", (16.38, 8.96, 6.66, 5.53)),
        (2, "size", (19.93, 11.59, 8.75, 7.25)),
        (30, "size", (86.17, 44.78, 30.72, 23.65)),
    ],
)
def test_figures_everyone_quotes(instruments, criterion, figures):
    limits = BIAS if criterion == "bias" else SIZE
    found = tuple(stock_yogo(instruments, 1, criterion=criterion, limit=x) for x in limits)
    assert found == figures


@pytest.mark.parametrize("limit", BIAS)
def test_every_bias_with_one_mediator_against_the_exact_formula(limit):
    """Skeels and Windmeijer (2018); the published figures carry the simulation error of their time."""
    for instruments in range(3, 101):

        def excess(mu, dof=instruments):
            return hyp1f1(1.0, dof / 2, -mu / 2) - limit

        mu = brentq(excess, 1e-6, 40 * instruments + 200)
        exact = chndtrix(0.95, instruments, mu) / instruments
        tolerance = 0.022 if instruments == 3 else 0.013 if instruments <= 30 else 0.0065
        assert stock_yogo(instruments, 1, limit=limit) == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize(("criterion", "limits"), [("bias", BIAS), ("size", SIZE)])
def test_figures_fall_with_the_limit_and_are_smooth(criterion, limits):
    figures = {
        (p, limit): [
            stock_yogo(n, m, criterion=criterion, limit=limit) for n, m in tabulated(criterion) if m == p
        ]
        for p in range(1, 4 if criterion == "bias" else 3)
        for limit in limits
    }
    for (p, limit), column in figures.items():
        assert len(column) == (99 - p if criterion == "bias" else 101 - p)
        # From about 20 instruments on, curvature is rounding: a wrong digit would stand out.
        assert np.abs(np.diff(column[18:], 2)).max() < 0.0201
        if limit > limits[0]:
            assert (np.array(column) < figures[p, limits[limits.index(limit) - 1]]).all()


def concentration(figure, instruments):
    """The strength at which 95% of Cragg and Donald's F lie below a figure."""
    return brentq(
        lambda mu: chndtr(figure * instruments, instruments, mu) - 0.95, 0.0, 20 * figure * instruments
    )


def weak_limit(instruments, mediators, mu, draws, rng):
    """First-stage coefficients and their noise where every direction has the same strength; noise in pairs."""
    noise = rng.standard_normal((draws, instruments, mediators))
    noise = np.concatenate([noise, -noise])
    return noise + np.sqrt(mu) * np.eye(instruments, mediators), noise


@pytest.mark.parametrize(
    ("instruments", "mediators", "tolerance"),
    [(8, 1, 0.03), (4, 2, 0.07), (8, 2, 0.035), (40, 2, 0.03), (5, 3, 0.07), (8, 3, 0.035), (40, 3, 0.03)],
)
@pytest.mark.parametrize("limit", [0.05, 0.10, 0.30])
def test_simulated_bias_at_the_critical_value(instruments, mediators, tolerance, limit):
    rng = np.random.default_rng(11)
    mu = concentration(stock_yogo(instruments, mediators, limit=limit), instruments)
    theta, noise = weak_limit(instruments, mediators, mu, 60_000 // instruments + 4000, rng)
    gram = np.einsum("rlp,rlq->rpq", theta, theta)
    towards = np.linalg.solve(gram, np.einsum("rlp,rlq->rpq", theta, noise)).mean(axis=0)
    assert np.trace(towards) / mediators == pytest.approx(limit, rel=tolerance + 0.01)


@pytest.mark.parametrize(("instruments", "mediators"), [(1, 1), (5, 1), (40, 1), (2, 2), (10, 2), (60, 2)])
@pytest.mark.parametrize("limit", [0.10, 0.25])
def test_simulated_size_at_the_critical_value(instruments, mediators, limit):
    """The Wald test of all effects where the endogeneity is perfect, the worst of cases."""
    rng = np.random.default_rng(12)
    mu = concentration(stock_yogo(instruments, mediators, criterion="size", limit=limit), instruments)
    theta, noise = weak_limit(instruments, mediators, mu, 120_000 // instruments + 5000, rng)
    gram = np.einsum("rlp,rlq->rpq", theta, theta)
    score = np.einsum("rlp,rl->rp", theta, noise[:, :, 0])
    away = np.linalg.solve(gram, score[:, :, None])[:, :, 0]
    variance = (1 - away[:, 0]) ** 2 + (away[:, 1:] ** 2).sum(axis=1)
    wald = np.einsum("rp,rp->r", away, score) / variance
    assert (wald > chi2.isf(0.05, mediators)).mean() == pytest.approx(limit, abs=0.015)


@pytest.mark.parametrize(
    ("instruments", "mediators", "criterion", "says"),
    [
        (2, 1, "bias", "with 1 mediator for 3 to 100 instruments; here are 2"),
        (4, 3, "bias", "with 3 mediators for 5 to 100 instruments; here are 4"),
        (101, 1, "bias", "here are 101"),
        (1, 2, "size", "for 2 to 100 instruments; here are 1"),
        (10, 3, "size", "size of the Wald test of 2SLS for 1 to 2 mediators; here are 3"),
        (10, 4, "bias", "1 to 3 mediators; here are 4"),
        (10, 0, "bias", "1 to 3 mediators; here are 0"),
    ],
)
def test_where_nothing_is_tabulated(instruments, mediators, criterion, says):
    found = stock_yogo(instruments, mediators, criterion=criterion)
    assert isinstance(found, NotApplicable)
    assert found.reason.startswith("Stock and Yogo tabulate")
    assert says in found.reason


def test_ends_of_the_tables():
    assert stock_yogo(100, 3) == 10.72
    assert stock_yogo(5, 3) == 6.61
    assert stock_yogo(100, 2, criterion="size") == 181.53
    assert stock_yogo(2, 2, criterion="size") == 7.03


def test_closed_choices():
    with pytest.raises(ChoiceError, match=r"limit=0\.15 is not tabulated for criterion='bias'"):
        stock_yogo(5, 1, limit=0.15)
    with pytest.raises(ChoiceError, match="criterion='sise'"):
        stock_yogo(5, 1, criterion="sise")
