"""The conditional likelihood-ratio statistic and its p-value, by quadrature and not by simulation."""

from __future__ import annotations

import numpy as np

from msmmiv.linalg import Array

__all__ = ["conditional_lr_pvalue", "conditional_lr_statistic"]

_CHUNK = 3_000_000  # values in memory at once


def conditional_lr_statistic(ar: Array, k: Array, rk: Array) -> Array:
    """LR = (AR - rk + sqrt((AR - rk)^2 + 4 K rk)) / 2, without cancellation.

    Moreira (2003); with ``J = AR - K`` it is the usual ``sqrt((AR + rk)^2 - 4 J rk)``. LR is AR when the
    instruments carry nothing (rk = 0) and K when they carry everything (rk infinite).

    Parameters
    ----------
    ar, k, rk : array
        Anderson-Rubin, Kleibergen and first-stage strength; ``rk`` may be infinite.

    Examples
    --------
    >>> conditional_lr_statistic(np.array([5.0, 5.0, 5.0]), np.full(3, 2.0), np.array([0.0, 5.0, np.inf])).round(4)
    array([5.    , 3.1623, 2.    ])
    """
    strong = ~np.isfinite(rk)
    rk = np.where(strong, 0.0, rk)
    gap = ar - rk
    root = np.sqrt(gap**2 + 4 * np.maximum(k, 0.0) * rk)
    below = 2 * k * rk / np.where(gap < 0, root - gap, 1.0)
    return np.asarray(np.where(strong, k, np.where(gap >= 0, 0.5 * (gap + root), below)), dtype=np.float64)


def conditional_lr_pvalue(stat: Array, rk: Array, *, n_instruments: int, n_terms: int = 1) -> Array:
    """P(LR > stat) given the strength of the first stage.

    Under the null LR exceeds m exactly when ``q_P + a q_{L-P} > m`` with independent chi-squared variables
    and ``a = m / (m + rk)`` [derived]. Given the share ``B = q_P / (q_P + q_{L-P})``, which is
    Beta(P/2, (L-P)/2) and independent of the sum,

        p = E[ P(chi2_L > m / (B + a (1 - B))) ],

    a smooth function of the angle whose squared sine is B, integrated by Gauss-Legendre panels. The same
    integral is in Andrews, Moreira and Stock (2007) and Hillier (2009). For several terms it bounds the
    p-value when ``rk`` is the smallest root (Kleibergen 2007).

    Parameters
    ----------
    stat, rk : array
        ``rk`` may be infinite.
    n_instruments : int
        L.
    n_terms : int
        P, endogenous regressors under test.

    Examples
    --------
    >>> conditional_lr_pvalue(np.array([3.841459, 18.307038]), np.array([np.inf, 0.0]), n_instruments=10).round(6)
    array([0.05, 0.05])
    """
    from scipy.special import chdtrc

    stat, rk = np.broadcast_arrays(np.asarray(stat, dtype=float), np.asarray(rk, dtype=float))
    flat, strength = stat.ravel(), rk.ravel()
    if n_instruments <= n_terms:  # just identified: LR is AR
        return np.asarray(chdtrc(n_instruments, np.maximum(stat, 0.0)), dtype=np.float64)
    share, weight = _beta_nodes(n_terms, n_instruments - n_terms)
    out, chunk = np.empty(flat.size), max(1, _CHUNK // share.size)
    for start in range(0, flat.size, chunk):
        m = np.maximum(flat[start : start + chunk, None], 0.0)
        total = m + strength[start : start + chunk, None]
        # m / (B + a (1 - B)) with a = m / total, written so that m = 0 gives 0 and rk = inf gives m / B.
        with np.errstate(invalid="ignore", divide="ignore"):
            a = np.where(total > 0, np.where(np.isinf(total), 0.0, m / total), 1.0)
            bound = m / (share + a * (1 - share))
        out[start : start + chunk] = np.where(
            np.isposinf(m[:, 0]), 0.0, chdtrc(n_instruments, bound) @ weight
        )
    return np.clip(out, 0.0, 1.0).reshape(stat.shape)


def _beta_nodes(first: int, second: int) -> tuple[Array, Array]:
    """Nodes and weights for the mean over Beta(first / 2, second / 2), by the angle."""
    # The density of the angle is sin^(first-1) cos^(second-1): for many instruments a spike near zero.
    # Beyond nine standard deviations of it there is nothing that a double could hold.
    end = min(np.pi / 2, (9.0 + np.sqrt(first)) / np.sqrt(second))
    # P(chi2_L > .) steps over a relative width of sqrt(2 / L), which the panels have to resolve.
    # Small statistics step near zero, where the panels are narrow.
    edges = end * np.linspace(0.0, 1.0, int(min(max(8.0, np.sqrt(second)), 200.0)) + 1) ** 2
    x, w = np.polynomial.legendre.leggauss(20)
    width = np.diff(edges)[:, None]
    angle, w = (edges[:-1, None] + 0.5 * width * (x + 1)).ravel(), (w * width).ravel()
    log = (first - 1) * np.log(np.sin(angle)) + (second - 1) * np.log(np.cos(angle))
    weight = w * np.exp(log - log.max())
    return np.sin(angle) ** 2, np.asarray(weight / weight.sum(), dtype=np.float64)
