"""Curves for a figure of itt over compliance: a smooth of the sites, and where it lies when the plane is the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd

from msmmiv.linalg import Array, portions

__all__ = ["CURVES", "local_line", "smooth_band"]

#: Most simulated trials that are smoothed, and points of a curve.
CURVES, _POINTS = 199, 61


def local_line(at: Array, y: Array, grid: Array, *, width: float, weights: Array | None = None) -> Array:
    """Local linear smooth (..., G) of samples (..., R) with a Gaussian kernel.

    Use it to see a shape; its bias and the sampling error of ``at`` are judged against smooths of simulated trials.

    Parameters
    ----------
    at, y : (..., R) arrays
    grid : (G,) array
    width : float
        Standard deviation of the kernel.
    weights : (R,) array, optional

    Examples
    --------
    >>> x = np.linspace(0.0, 1.0, 20)
    >>> local_line(x, 1.0 + 2.0 * x, np.array([0.3, 0.9]), width=0.1).round(6).tolist()
    [1.6, 2.8]
    """
    out = np.empty((*at.shape[:-1], len(grid)))
    w0 = np.ones(at.shape[-1]) if weights is None else weights
    for j, point in enumerate(grid):
        away = (at - point) / width
        # A little weight everywhere keeps the line defined where no site is near.
        w = w0 * (np.exp(-0.5 * away**2) + 1e-6)
        s0, s1, s2 = w.sum(axis=-1), (w * away).sum(axis=-1), (w * away**2).sum(axis=-1)
        t0, t1 = (w * y).sum(axis=-1), (w * away * y).sum(axis=-1)
        room = s0 * s2 - s1**2
        flat = room <= 1e-12 * s0 * s2
        out[..., j] = np.where(flat, t0 / s0, (s2 * t0 - s1 * t1) / np.where(flat, 1.0, room))
    return out


def smooth_band(
    at: Array, itt: Array, drawn_at: Array | None, drawn_itt: Array | None, *, weights: Array
) -> pd.DataFrame:
    """Columns "at", "smooth", "lower", "upper": the smooth, and pointwise 95 % of it over simulated trials.

    Parameters
    ----------
    at, itt : (R,) arrays
    drawn_at, drawn_itt : (B, R) arrays or None
        Trials in which the plane is the truth; at most 199 are used. NaN limits without them.
    weights : (R,) array
    """
    grid = np.linspace(at.min(), at.max(), _POINTS)
    width = float(at.std()) * len(at) ** -0.2 or 1.0
    out = pd.DataFrame({"at": grid, "smooth": local_line(at, itt, grid, width=width, weights=weights)})
    out["lower"] = out["upper"] = np.nan
    if drawn_at is not None and drawn_itt is not None:
        parts = portions(np.arange(min(len(drawn_at), CURVES)), len(at))
        many = np.concatenate(
            [local_line(drawn_at[i], drawn_itt[i], grid, width=width, weights=weights) for i in parts]
        )
        out["lower"], out["upper"] = np.quantile(many, [0.025, 0.975], axis=0)
    return out
