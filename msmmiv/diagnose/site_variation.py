"""Moments of residuals and compliances across sites: what the spread of effects is computed from.

Every product is corrected for the sampling error of its factors, whose covariances are unbiased.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt

from msmmiv.estimate.site_moments import SiteRows, corrected_product
from msmmiv.inference.meta import meta_regression
from msmmiv.linalg import Array

__all__ = ["compliance_moments", "effect_covariance", "residuals"]


def residuals(rows: SiteRows, coefficients: Array, direct: Array) -> tuple[Array, Array]:
    """(R, 1 + P) residual and compliances, and their (R, 1 + P, 1 + P) sampling covariance at d.

    ``direct`` holds the direct effect of each row.
    """
    turn = np.eye(rows.values.shape[1])
    turn[0, 1:] = -coefficients
    values = rows.values @ turn.T
    values[:, 0] -= direct
    return values, turn @ rows.cov @ turn.T


def compliance_moments(
    values: Array, cov: Array, arm: npt.NDArray[np.int64], *, spread: float
) -> tuple[Array, Array]:
    """(R,) posterior means and variances of compliance given estimates, for one mediator.

    The part of an estimated compliance that goes with the residual is taken out first, or sites with large
    residuals would seem to have large compliances. ``spread`` is a first estimate of the variance of effects: where it
    is large, little of a residual is sampling error and little is taken out. Arms have their own mean and variance.
    """
    second = max(float(np.mean(values[:, 1] ** 2 - cov[:, 1, 1])), 0.0)
    share = cov[:, 0, 1] / (cov[:, 0, 0] + max(spread, 0.0) * second)
    clean = values[:, 1] - share * values[:, 0]
    noise = np.maximum(cov[:, 1, 1] - share * cov[:, 0, 1], 1e-12 * np.mean(values[:, 1] ** 2) + 1e-300)
    mean, variance = clean.copy(), noise.copy()
    for a in np.unique(arm):
        here = arm == a
        if here.sum() < 2:
            continue
        fit = meta_regression(clean[here], v=noise[here], tau2="PM")
        keep = fit.tau2 / (fit.tau2 + noise[here])
        mean[here] = fit.coefficients[0] + keep * (clean[here] - fit.coefficients[0])
        variance[here] = keep * noise[here]
    return mean, variance


def effect_covariance(rows: SiteRows, values: Array, cov: Array) -> tuple[Array | None, bool]:
    """(P, P) covariance of site effects by regressing squared residuals on products of compliances.

    Every product is corrected for sampling error, up to four factors; the result is projected on positive
    semi-definite matrices, and the flag says whether that changed it. None when the regression does not exist.
    """
    unit = np.sqrt((values**2).mean(axis=0))
    unit = np.where(unit > 0, unit, 1.0)
    x, v = values / unit, cov / np.outer(unit, unit)
    p = values.shape[1] - 1
    pairs = list(combinations_with_replacement(range(1, 1 + p), 2))
    times = np.array([1.0 if i == j else 2.0 for i, j in pairs])
    w = rows.weights("precision")
    gram = np.array([[w @ corrected_product(x, v, a + b) for b in pairs] for a in pairs]) * np.outer(
        times, times
    )
    cross = np.array([w @ corrected_product(x, v, (*a, 0, 0)) for a in pairs]) * times
    if np.linalg.eigvalsh(gram)[0] <= 1e-10 * np.trace(gram):
        return None, False
    flat = np.linalg.solve(gram, cross)
    omega = np.zeros((p, p))
    for value, (i, j) in zip(flat, pairs, strict=True):
        omega[i - 1, j - 1] = omega[j - 1, i - 1] = value
    roots, vectors = np.linalg.eigh(omega)
    scale = unit[0] / unit[1:]
    fixed = (vectors * np.clip(roots, 0.0, None)) @ vectors.T
    return fixed * np.outer(scale, scale), bool(roots[0] < 0)
