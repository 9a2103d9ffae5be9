"""The score of an intercept given what compliances are, for the test that a plane goes through the origin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from msmmiv.estimate.between.added_terms import AddedTerms, Term, added_terms, hotelling
from msmmiv.linalg import Array, Codes, group_sum_along

__all__ = ["origin_score"]

#: Variance of compliance, in sampling variances, that every direction is given (a score needs one), and below which
#: expected compliances are so nearly equal that an intercept is a slope.
_FLOOR, _FAINT = 1e-6, 0.02


def origin_score(
    values: Array, cov: Array, *, names: tuple[str, ...], site: Codes | None, weights: Array
) -> AddedTerms:
    """Test of an intercept in the regression of itt on compliances, on shrunken compliances.

    Use it for the origin: corrected products (`added_terms`) carry the error of every compliance into the score, and
    find half as much.

    Parameters
    ----------
    values : (..., R, 1 + P) array
        itt and compliances; leading axes are samples.
    cov : (R, 1 + P, 1 + P) array
    names : tuple of str
        Mediators.
    site : (R,) array of int or None
        Rows whose scores are summed.
    weights : (R,) array
        Of the corrected fit through the origin that the slopes come from.

    Returns
    -------
    AddedTerms
        With the statistic, score, spread and sensitivity of this score; ``score`` over ``sensitivity`` is an estimate
        of the intercept. Statistic and sensitivity are NaN where compliances vary no more than noise in some direction:
        then expected compliances are equal there, and an intercept and a slope cannot be told apart.

    Notes
    -----
    With the slopes b through the origin, e = y - g^'b has variance s^2 = V_ee + t^2 (t^2 what the rows vary by beyond
    sampling error) and covariance k = V_yg - V_gg b with the errors of g^. g~ = g^ - k e / s^2 is uncorrelated with e,
    its error has variance A = V_gg - k k'/s^2, and h = E[g | g~] under a normal prior of the moments of g~ less
    A. With r the residual of 1 on h, weighted by 1/s^2, the score is the mean of r e / s^2. For normal errors any
    function of g~ gives a score of mean zero, so that the prior decides on power first of all. Referred to F its size
    at 0.05 is .04 to .11 (K = 12 to 100), mostly where compliances hardly vary; against simulated trials .04 to .065.

    Examples
    --------
    >>> g = np.array([0.2, 0.5, 0.8, 1.1, 1.4, 2.0])
    >>> y = 1.0 + 2.0 * g + np.array([0.1, -0.1, 0.0, 0.2, -0.2, 0.1])
    >>> values, none = np.column_stack([y, g]), np.zeros((6, 2, 2))
    >>> found = origin_score(values, none, names=("g",), site=None, weights=np.ones(6))
    >>> found.coefficients.round(2).tolist()  # without errors it is least squares
    [1.01]
    """
    base = [Term(name, (j,)) for j, name in enumerate(names, start=1)]
    first = added_terms(
        values, cov, base=base, added=[Term("direct_effect")], weights=weights, site=site, sensitivity=False
    )
    e, w, tied = _residuals(values, cov, first.base_coefficients)
    h, flat = _expected(values, cov, e, w, tied)
    ones = np.ones(h.shape[:-1])
    gram = np.swapaxes(h * w[..., None], -1, -2) @ h
    inverse = np.linalg.pinv(np.where(np.isfinite(gram), gram, 0.0), hermitian=True)
    r = ones - _fitted(h, w, inverse, ones)
    e = e - _fitted(h, w, inverse, e)
    psi = np.stack([w * r * e, w * r * r], axis=-1)
    if site is not None:
        psi = group_sum_along(psi, site, -2)
    mean = psi.mean(axis=-2)
    score, rise = mean[..., :1], mean[..., 1:, None]
    away = psi[..., :1] - score[..., None, :]
    spread = np.einsum("...sa,...sb->...ab", away, away) / psi.shape[-2]
    return replace(
        first,
        statistic=np.where(flat, np.nan, hotelling(score, spread, first.df_denom)),
        score=score,
        spread=spread,
        sensitivity=np.where(flat[..., None, None], np.nan, rise),
    )


def _residuals(values: Array, cov: Array, slopes: Array) -> tuple[Array, Array, Array]:
    """Residuals e (..., R), weights 1/s^2, and covariances (..., R, P) of e with the errors of compliances."""
    contrast = np.concatenate([np.ones((*slopes.shape[:-1], 1)), -slopes], axis=-1)
    tied = np.einsum("rab,...b->...ra", cov, contrast)
    variance = np.einsum("...ra,...a->...r", tied, contrast)
    e = np.einsum("...ra,...a->...r", values, contrast)
    excess = (e**2 - variance).sum(axis=-1) / max(e.shape[-1] - slopes.shape[-1], 1)
    total = variance + np.maximum(excess, 0.0)[..., None]
    smallest = 1e-12 * (e**2).mean(axis=-1, keepdims=True) + np.finfo(float).tiny
    return e, 1.0 / np.maximum(total, smallest), tied[..., 1:]


def _expected(
    values: Array, cov: Array, e: Array, w: Array, tied: Array
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """(..., R, P) compliances expected given what is left of them once the residual is known; (...,) whether flat."""
    clean = values[..., 1:] - tied * (w * e)[..., None]
    noise = cov[:, 1:, 1:] - tied[..., :, None] * tied[..., None, :] * w[..., None, None]
    away = clean - clean.mean(axis=-2, keepdims=True)
    mean_noise = noise.mean(axis=-3)
    observed = np.einsum("...rp,...rq->...pq", away, away) / max(away.shape[-2] - 1, 1)
    size = np.sqrt(
        np.maximum(
            np.diagonal(mean_noise, axis1=-2, axis2=-1), 1e-9 * np.diagonal(observed, axis1=-2, axis2=-1)
        )
    )
    size = np.where(size > 0, size, 1.0)
    unit = size[..., :, None] * size[..., None, :]
    prior = np.where(np.isfinite(observed), (observed - mean_noise) / unit, 0.0)
    lengths, vectors = np.linalg.eigh((prior + np.swapaxes(prior, -1, -2)) / 2.0)
    prior = (vectors * np.maximum(lengths, _FLOOR)[..., None, :]) @ np.swapaxes(vectors, -1, -2) * unit
    prior = prior[..., None, :, :]
    weight = np.linalg.solve(prior + np.where(np.isfinite(noise), noise, 0.0), away[..., None])
    flat = np.asarray(lengths[..., 0] <= _FAINT, dtype=np.bool_)
    return np.asarray(clean - away + (prior @ weight)[..., 0]), flat


def _fitted(h: Array, w: Array, inverse: Array, of: Array) -> Array:
    """(..., R) weighted regression on ``h``, evaluated."""
    right = np.einsum("...rp,...r->...p", h, w * of)
    return np.asarray((h @ (inverse @ right[..., None]))[..., 0])
