"""Structural REML against least squares, a dense likelihood, metafor, and itself in other units."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime

from msmmiv.errors import ChoiceError
from msmmiv.estimate.between.reml import StructuralReml, _factor, _slope, reml_data, reml_value
from msmmiv.estimate.between.reml_many import fit_many
from tests.estimate.between.reml_dense import dense_loglik, dense_summit, draw, make_rows


def parts(rows):
    return {
        "y": rows.y,
        "a": rows.noise[:, 0, 0],
        "b": rows.itt_variance,
        "c": rows.covariance[:, 0],
        "z": rows.z,
    }


CASES = {
    "one mediator": {"k": 12},
    "covariate": {"k": 12, "q": 2},
    "two mediators": {"k": 14, "p": 2, "q": 2},
    "arms": {"k": 6, "arms": 2},
}


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("case", CASES)
def test_the_likelihood_is_the_dense_one(case: str, method: str) -> None:
    rows = draw(3, **CASES[case])
    fit = StructuralReml(method=method).solve(rows)
    assert fit.converged
    assert fit.loglik == pytest.approx(dense_loglik(rows, fit.omega, restricted=method == "REML"), abs=1e-8)


@pytest.mark.parametrize(
    ("case", "method"), [("one mediator", "REML"), ("covariate", "ML"), ("arms", "REML")]
)
def test_nothing_is_higher(case: str, method: str) -> None:
    rows = draw(4, **CASES[case])
    fit = StructuralReml(method=method).solve(rows)
    best = dense_summit(rows, restricted=method == "REML")
    assert fit.loglik == pytest.approx(best, abs=1e-8)


def test_nothing_is_higher_with_two_mediators() -> None:
    rows = draw(5, **CASES["two mediators"])
    fit = StructuralReml().solve(rows)
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky(fit.omega + 1e-12 * np.eye(3))
    for size in (1e-4, 1e-2, 0.3, 1.0):
        for _ in range(50):
            other = root + size * rng.normal(size=(3, 3))
            assert dense_loglik(rows, other @ other.T) <= fit.loglik + 1e-9


@pytest.mark.parametrize("case", CASES)
def test_score_is_the_derivative(case: str) -> None:
    for restricted in (True, False):
        data = reml_data(draw(6, **CASES[case]), restricted=restricted)
        size = data.d.shape[1]
        theta = np.random.default_rng(0).normal(size=size * (size + 1) // 2)
        numeric = approx_fprime(
            theta, lambda t, data=data, size=size: reml_value(data, _factor(t[None], size))[0][0], 1e-7
        )
        assert _slope(data, theta[None])[1][0] == pytest.approx(numeric, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_without_errors_it_is_least_squares(method: str) -> None:
    rows = draw(7, k=12, p=2, q=2)
    rows = replace(rows, cov=np.zeros_like(rows.cov))
    fit = StructuralReml(method=method).solve(rows)
    design = np.column_stack([rows.x, rows.z])
    inverse = np.linalg.inv(design.T @ design)
    ols = inverse @ design.T @ rows.y
    rss = ((rows.y - design @ ols) ** 2).sum()
    assert fit.coefficients == pytest.approx(ols, rel=1e-9)
    assert fit.covariance == pytest.approx(inverse * rss / (12 - 4), rel=1e-5)
    assert fit.df == 12 - 4
    assert fit.reliability == pytest.approx([1.0, 1.0])
    assert fit.direct_sd == pytest.approx(np.sqrt(rss / (12 - 2 * (method == "REML"))), rel=1e-9)


def test_equal_errors_give_the_corrected_normal_equations() -> None:
    rows = draw(8, k=15)
    v = np.array([[0.02, 0.005], [0.005, 0.05]])
    rows = replace(rows, cov=np.repeat(v[None], 15, axis=0))
    fit = StructuralReml().solve(rows)
    x, y = rows.x[:, 0] - rows.x.mean(), rows.y - rows.y.mean()
    assert fit.boundary == ()
    assert fit.coefficients[0] == pytest.approx((x @ y - 14 * 0.005) / (x @ x - 14 * 0.05), rel=1e-8)
    assert fit.compliance_sd[0] ** 2 == pytest.approx(x @ x / 14 - 0.05, rel=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_units_do_not_matter(case: str) -> None:
    rows = draw(9, **CASES[case])
    p = rows.x.shape[1]
    unit = np.array([1e3, *[1e-3] * p])
    other = replace(
        rows,
        y=rows.y * 1e3,
        x=rows.x * 1e-3,
        cov=rows.cov * np.outer(unit, unit),
        cross=None if rows.cross is None else rows.cross * unit[:, None, None] * unit,
    )
    one, two = StructuralReml().solve(rows), StructuralReml().solve(other)
    change = np.array([*[1e6] * p, *[1e3] * rows.z.shape[1]])
    assert two.coefficients / change == pytest.approx(one.coefficients, rel=1e-8)
    assert two.covariance / np.outer(change, change) == pytest.approx(one.covariance, rel=1e-5)
    assert two.omega / np.outer(unit, unit) == pytest.approx(one.omega, rel=1e-7, abs=1e-9)


def test_covariance_is_the_inverse_of_the_whole_information() -> None:
    """For ML: minus the Hessian in (slope, intercept, s, t, m) of the likelihood, its small-sample factor removed."""
    rows = draw(10, k=20, size=0.4)
    fit = StructuralReml(method="ML").solve(rows)
    d = np.column_stack([rows.y, rows.x])

    def loglik(theta: np.ndarray) -> float:
        beta, a, m, s, t = theta
        omega = np.array([[beta**2 * s * s + t * t, beta * s * s], [beta * s * s, s * s]])
        total = omega + rows.cov
        e = d - [a + beta * m, m]
        return -0.5 * float(
            np.linalg.slogdet(total)[1].sum() + np.einsum("ki,kij,kj->", e, np.linalg.inv(total), e)
        )

    at = np.array(
        [*fit.coefficients, fit.means[0, 1], fit.compliance_sd[0], fit.direct_sd],
    )
    h = 1e-4 * np.eye(5)
    hessian = [
        [
            (loglik(at + i + j) - loglik(at + i - j) - loglik(at - i + j) + loglik(at - i - j)) / 4e-8
            for i in h
        ]
        for j in h
    ]
    assert fit.boundary == ()
    assert fit.covariance == pytest.approx(np.linalg.inv(-np.array(hessian))[:2, :2] * 20 / 18, rel=1e-4)


def test_many_at_once_are_the_single_fits() -> None:
    at_boundary = 0
    for seed in range(80):
        rows = draw(seed, k=5 + seed % 8, size=1.5, q=1 + (seed % 3 == 0))
        fit = StructuralReml().solve(rows)
        many = fit_many(rows.x[:, 0], **parts(rows))
        at_boundary += bool(fit.boundary) or fit.status is not None
        assert many.loglik[0] == pytest.approx(fit.loglik, abs=1e-6)
        assert fit.converged
    assert at_boundary > 15


def test_a_batch_is_its_members() -> None:
    many = [draw(seed, k=9, size=1.2) for seed in range(40)]
    stacked = {n: np.stack([parts(r)[n] for r in many]) for n in ("y", "a", "b", "c")}
    x = np.stack([r.x[:, 0] for r in many])
    z = np.ones((9, 1))
    for slope in (None, 0.7):
        batch = fit_many(x, **stacked, z=z, slope=slope)
        single = [fit_many(r.x[:, 0], **parts(r), slope=slope).loglik[0] for r in many]
        assert batch.loglik == pytest.approx(single, abs=1e-9)


@pytest.mark.parametrize("k", [5, 10, 30])
def test_slope_zero_without_correlation_is_two_meta_analyses_of_metafor(golden, k: int) -> None:
    table = pd.read_csv(golden / f"agg_k{k}.csv")
    reference = json.loads((golden / "metafor.json").read_text())[f"k{k}"]
    a, b = table["se_gamma"].to_numpy() ** 2, table["se_tau"].to_numpy() ** 2
    fit = fit_many(
        table["gamma_hat"].to_numpy(),
        y=table["tau_hat"].to_numpy(),
        a=a,
        b=b,
        c=np.zeros(k),
        z=np.ones((k, 1)),
        slope=0.0,
    )
    for j, name in enumerate(("gamma_REML", "tau_REML")):
        assert fit.omega[0, j, j] == pytest.approx(reference[name]["tau2"], rel=1e-4)
        assert fit.means[0, 0, j] == pytest.approx(reference[name]["b"]["intrcpt"], rel=1e-4)


def test_no_compliance_variance_is_a_status_not_a_slope() -> None:
    rng = np.random.default_rng(0)
    x, y = 1 + 0.03 * rng.normal(size=8), rng.normal(size=8)
    fit = StructuralReml().solve(make_rows(y, x, np.repeat(np.eye(2)[None] * [1e-2, 1.0], 8, axis=0)))
    assert fit.status is not None
    assert fit.status.startswith("denominator not positive: compliance varies no more than noise")
    assert np.isnan(fit.coefficients).all()
    assert fit.boundary == ("m0",)
    assert fit.reliability[0] < 1e-3


def test_the_origin_is_refused_by_name() -> None:
    rows = replace(draw(1), z=np.empty((10, 0)), exogenous=())
    with pytest.raises(ChoiceError, match="corrected normal equations or the EB-score"):
        StructuralReml().solve(rows)
    with pytest.raises(ChoiceError, match="method"):
        StructuralReml(method="DL").solve(draw(1))
