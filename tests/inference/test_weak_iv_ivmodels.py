"""ivmodels, an independent program, on the same rows with every dummy and instrument written out."""

from __future__ import annotations

import numpy as np
import pytest

from msmmiv.inference.weak_iv import (
    anderson_rubin_set,
    anderson_rubin_test,
    conditional_lr_set,
    conditional_lr_test,
    kleibergen_set,
    kleibergen_test,
)
from tests.inference.helpers import dense_form, dense_parts, weak_trial

other = pytest.importorskip("ivmodels.tests", reason="the independent program is not installed")

CASES = [(1, 0.05), (1, 0.5), (1, 1.5), (2, 0.2), (2, 1.5)]


@pytest.fixture(params=CASES, ids=lambda c: f"P{c[0]}-strength{c[1]}", scope="module")
def case(request):
    mediators, strength = request.param
    frame = weak_trial(1, strength=strength, mediators=mediators)
    names = [f"m{j}" for j in range(mediators)]
    c, z, x, y = dense_parts(frame, names)
    return dense_form(frame, names), {"Z": z, "y": y, "C": c, "fit_intercept": False}, x


@pytest.mark.parametrize("value", [-1.0, 0.3])
def test_anderson_rubin(case, value):
    form, data, x = case
    beta = np.full(x.shape[1], value)
    stat, p = other.anderson_rubin_test(X=x, beta=beta, critical_values="f", **data)
    ours = anderson_rubin_test(form, beta)
    assert ours.stat == pytest.approx(stat, rel=1e-10)
    assert ours.pvalue == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("value", [-1.0, 0.3])
def test_kleibergen(case, value):
    form, data, x = case
    beta = np.full(x.shape[1], value)
    stat, p = other.lagrange_multiplier_test(X=x, beta=beta, **data)
    ours = kleibergen_test(form, beta)
    assert ours.stat == pytest.approx(stat, rel=1e-9, abs=1e-11)
    assert ours.pvalue == pytest.approx(p, abs=1e-10)


@pytest.mark.parametrize("value", [-1.0, 0.3])
def test_conditional_lr(case, value):
    form, data, x = case
    beta = np.full(x.shape[1], value)
    stat, p = other.conditional_likelihood_ratio_test(
        X=x, beta=beta, critical_values="moreira2003conditional", tol=1e-10, **data
    )
    ours = conditional_lr_test(form, beta)
    assert ours.stat == pytest.approx(stat, rel=1e-9, abs=1e-10)
    assert ours.pvalue == pytest.approx(p, abs=1e-8)


def _same(ours, theirs, *, tolerance):
    boundaries = np.array(getattr(theirs, "boundaries", []), dtype=float).reshape(-1, 2)
    assert len(ours.intervals) == len(boundaries)
    np.testing.assert_allclose(
        np.array(ours.intervals).reshape(-1, 2), boundaries, rtol=tolerance, atol=tolerance
    )


def test_anderson_rubin_subvector_set(case):
    form, data, x = case
    from ivmodels.confidence_set import ConfidenceSet as Theirs

    quadric = other.inverse_anderson_rubin_test(X=x[:, :1], W=x[:, 1:], critical_values="f", **data)
    _same(anderson_rubin_set(form, "m0"), Theirs.from_quadric(quadric), tolerance=1e-9)


def test_conditional_lr_subvector_set(case):
    form, data, x = case
    theirs = other.inverse_conditional_likelihood_ratio_test(X=x[:, :1], W=x[:, 1:], tol=1e-9, **data)
    _same(conditional_lr_set(form, "m0"), theirs, tolerance=1e-6)


def test_kleibergen_set(case):
    form, data, x = case
    if x.shape[1] > 1:
        pytest.skip("not offered with several mediators")
    ours = kleibergen_set(form, "m0")
    theirs = other.inverse_lagrange_multiplier_test(X=x, tol=1e-9, **data)
    for lower, upper in theirs.boundaries:  # ours may hold more: the other search looks near LIML
        assert any(np.allclose([a, b], [lower, upper], rtol=1e-6, atol=1e-6) for a, b in ours.intervals)
    for end in np.ravel(ours.intervals):
        if np.isfinite(end):
            assert other.lagrange_multiplier_test(X=x, beta=np.array([end]), **data)[1] == pytest.approx(
                0.05, abs=1e-8
            )
