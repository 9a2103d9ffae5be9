"""Least squares over rows with added sampling error, for all draws at once.

Errors at lambda are the root of lambda times errors of unit size, so every cross-product is a quadratic in that root
whose three coefficients are computed once per draw; no regression is run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msmmiv.errors import RankDeficientError
from msmmiv.estimate.between.normal_equations import Corrected, corrected
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.linalg import Array, frozen, gram_root

__all__ = ["LAMBDAS", "SimexRun", "noise_root", "simulate"]

#: Added error as a multiple of the sampling covariance, as the R package simex has it.
LAMBDAS = frozen([0.0, 0.5, 1.0, 1.5, 2.0])
#: Errors that are held at once.
_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class SimexRun:
    """Means over draws at each lambda.

    Attributes
    ----------
    net : Corrected
        Cross-products, with the mean of the drawn errors' as their noise: its ``net`` is lambda = -1.
    added : (1 + P, 1 + P) array
        Mean cross-products of one unit of error.
    means : (5, P + q) array
        Mean coefficients.
    t2 : (5, P + q, P + q) array
        Mean least-squares covariance less that between draws; empty when not asked for.
    """

    net: Corrected
    added: Array
    means: Array
    t2: Array


def noise_root(rows: BetweenRows, *, joint: bool) -> Array:
    """Square root of the covariance of the errors: (K, m, m), or (K m, K m) where rows are correlated.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> noise_root(rows, joint=True).shape
    (79, 2, 2)
    """
    full = rows.cov if rows.cross is None else rows.cross
    full = np.array(full)
    if not joint:
        full[:, 0] = 0.0
        full[..., 0] = 0.0
    if rows.cross is None:
        return gram_root(full)
    size = full.shape[0] * full.shape[1]
    return np.asarray(gram_root(full.reshape(1, size, size))[0])


def simulate(
    rows: BetweenRows, root: Array, b: int, rng: np.random.Generator, *, covariances: bool
) -> SimexRun:
    """Least squares at every lambda and draw, from cross-products that are quadratic in the root of lambda.

    Raises
    ------
    RankDeficientError
        Compliances that do not vary beyond z.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> run = simulate(rows, noise_root(rows, joint=True), 50, np.random.default_rng(0), covariances=False)
    >>> run.means.shape
    (5, 2)
    """
    parts = corrected(rows, np.ones(rows.n_rows))
    if parts.left == -np.inf:
        raise RankDeficientError("The compliances do not vary beyond z, so nothing can be regressed on them.")
    k, m = rows.n_rows, 1 + rows.x.shape[1]
    half = (b + 1) // 2
    at_once = max(1, _AT_ONCE // (k * m))
    drawn = [
        _products(rows, parts, root, min(at_once, half - first), rng) for first in range(0, half, at_once)
    ]
    cross, on_z, square = (
        np.concatenate(part, axis=axis)
        for part, axis in zip(zip(*drawn, strict=True), (0, 1, 0), strict=True)
    )
    fitted = np.tensordot(parts.inverse, on_z, axes=1)  # coefficients of the errors on z
    square = square - np.einsum("qhd,qhe->hde", on_z, fitted)
    added: Array = square.mean(axis=0)
    # An error and its negative: first-order noise cancels in means.
    step = np.concatenate([np.sqrt(LAMBDAS), -np.sqrt(LAMBDAS)]).reshape(2, -1)[:, :, None, None, None]
    total = parts.observed + step * (cross + cross.transpose(0, 2, 1)) + step**2 * square
    inverse = _inverses(total[..., 1:, 1:])
    beta = (inverse @ total[..., 1:, :1])[..., 0]
    slopes = parts.slopes + step * fitted.transpose(1, 0, 2)  # (2, 5, half, q, m)
    direct = slopes[..., 0] - np.einsum("...qp,...p->...q", slopes[..., 1:], beta)
    all_b = np.concatenate([beta, direct], axis=-1)
    means = all_b.mean(axis=(0, 2))
    t2 = np.empty((0, 0, 0))
    if covariances:
        rss = total[..., 0, 0] - np.einsum("...p,...p->...", total[..., 1:, 0], beta)
        s2 = rss / (k - len(rows.terms))
        t2 = _model_covariance(s2, inverse, slopes[..., 1:], parts.inverse)
        away = all_b - means[:, None]
        t2 = t2 - np.einsum("slha,slhb->lab", away, away) / (2 * half - 1)
    return SimexRun(replace(parts, noise=added[None]), added, means, t2)


def _products(
    rows: BetweenRows, parts: Corrected, root: Array, draws: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Cross-products of drawn errors with centred rows (h, m, m), with z (q, h, m) and with themselves (h, m, m)."""
    k, m = rows.n_rows, 1 + rows.x.shape[1]
    if root.ndim == 3:
        errors = rng.standard_normal((k, draws, m)) @ root.transpose(0, 2, 1)
    else:
        errors = (root @ rng.standard_normal((k * m, draws))).reshape(k, m, draws).transpose(0, 2, 1)
    flat: Array = errors.reshape(k, draws * m)
    cross = (parts.centred.T @ flat).reshape(m, draws, m).transpose(1, 0, 2)
    on_z = (rows.z.T @ flat).reshape(-1, draws, m)
    return cross, on_z, np.einsum("khd,khe->hde", errors, errors)


def _inverses(blocks: Array) -> Array:
    out: Array = 1.0 / blocks if blocks.shape[-1] == 1 else np.linalg.inv(blocks).astype(np.float64)
    return out


def _model_covariance(s2: Array, inverse: Array, slopes: Array, of_z: Array) -> Array:
    """(5, P + q, P + q) mean of s2 (D'D)^-1 with D = (X, Z), by partitioned inversion."""
    v = s2[..., None, None] * inverse
    back = slopes @ v
    top = np.concatenate([v, -back.swapaxes(-1, -2)], axis=-1).mean(axis=(0, 2))
    corner = (back @ slopes.swapaxes(-1, -2)).mean(axis=(0, 2)) + s2.mean(axis=(0, 2))[:, None, None] * of_z
    bottom = np.concatenate([-back.mean(axis=(0, 2)), corner], axis=-1)
    return np.concatenate([top, bottom], axis=1)
