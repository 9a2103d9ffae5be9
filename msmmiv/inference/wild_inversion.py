"""Inversion of the wild bootstrap test of one coefficient, exact for its draws.

A draw is at least as extreme as the data where ``N*^2 Q - N^2 Q* >= 0`` with numerators N linear and spreads Q
quadratic in the value tested: a polynomial of degree four, whose roots are where the p-value may step.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from msmmiv.inference.profile import Profile
from msmmiv.inference.wild_draws import Plan
from msmmiv.linalg import Array

__all__ = ["TIE", "p_value_steps"]

#: Relative difference below which two statistics are the same: sign vectors tie exactly.
TIE = 1e-9
#: "Infinity", in units of the scale of the scores.
_FAR = 1e9


def p_value_steps(plan: Plan, profile: Profile) -> tuple[Array, npt.NDArray[np.int64]] | None:
    """Ascending values where the number of draws at least as extreme may change, and the numbers between them.

    Parameters
    ----------
    plan : Plan
    profile : Profile
        Of one coefficient.

    Returns
    -------
    edges : (n,) array
    numbers : (n + 1,) array of int
        From minus infinity on. None instead of both when all scores are zero at all values.
    """
    centre, unit = _centre(profile)
    psi = np.stack([profile.alpha[:, 0] - centre * profile.eta[:, 0, 0], -unit * profile.eta[:, 0, 0]])
    size = np.sqrt((psi**2).sum())
    if size == 0:
        return None
    psi = psi / size
    rest = np.stack(
        [
            profile.nuisance_alpha - centre * profile.nuisance_eta[:, :, 0],
            -unit * profile.nuisance_eta[:, :, 0],
        ]
    )
    feedback = profile.feedback[:, 0] / size
    squares = _square(psi)
    edges: list[Array] = []
    changes: list[npt.NDArray[np.int64]] = []
    start = 0
    for w in plan.chunks():
        total = np.stack([w @ p for p in psi])
        spread = np.stack([w**2 @ s for s in squares])
        if rest.shape[2]:
            shift = np.stack([w @ r for r in rest])
            crossed = np.stack([w @ (p[:, None] * feedback) for p in psi])
            mixed = [(crossed[i] * shift[j]).sum(axis=1) for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
            spread -= 2.0 * np.stack([mixed[0], mixed[1] + mixed[2], mixed[3]])
            again = shift @ (feedback.T @ feedback)
            parts = [(again[i] * shift[j]).sum(axis=1) for i, j in ((0, 0), (0, 1), (1, 1))]
            spread += np.stack([parts[0], 2.0 * parts[1], parts[2]])
        here, change, at_left = _changes(total, spread, psi.sum(axis=1), squares.sum(axis=1))
        start += at_left
        edges.append(here)
        changes.append(change)
    where = np.concatenate(edges)
    order = np.argsort(where)
    steps = np.concatenate(changes)[order]
    return centre + unit * where[order], np.concatenate([[start], start + np.cumsum(steps)])


def _centre(profile: Profile) -> tuple[float, float]:
    """A point and a width from which the roots are well scaled: the estimate and its standard error."""
    slope, top = float(profile.eta.sum()), float(profile.alpha.sum())
    eta, alpha = profile.eta[:, 0, 0], profile.alpha[:, 0]
    size = float(np.sqrt(eta @ eta))
    if size == 0:
        return 0.0, 1.0
    centre = top / slope if abs(slope) > 1e-3 * size else float(alpha @ eta) / size**2
    left = alpha - centre * eta
    return centre, float(np.sqrt(left @ left)) / max(abs(slope), size) or 1.0


def _square(line: Array) -> Array:
    """Coefficients (ascending) of the square of a line, for every row."""
    return np.stack([line[0] ** 2, 2.0 * line[0] * line[1], line[1] ** 2])


def _changes(
    total: Array, spread: Array, data: Array, own: Array
) -> tuple[Array, npt.NDArray[np.int64], int]:
    """Steps of 1{ N*^2 Q >= N^2 Q* } for every draw, N numerator and Q spread, and their number at -infinity."""
    left, right = _square(total), _square(data[:, None])[:, 0]
    quartic = np.zeros((5, total.shape[1]))
    size = np.zeros(total.shape[1])
    for i in range(3):
        for j in range(3):
            quartic[i + j] += left[i] * own[j] - right[i] * spread[j]
            size += np.abs(left[i] * own[j]) + np.abs(right[i] * spread[j])
    # A draw that ties with the data at every value, like the identity and its opposite, always counts.
    live = np.abs(quartic).max(axis=0) > TIE * size
    roots = np.clip(_roots(quartic[:, live]), -_FAR, _FAR)
    ends = np.full((len(roots), 1), _FAR)
    points = np.concatenate([-ends, roots, ends], axis=1)
    points = (points[:, 1:] + points[:, :-1]) / 2.0
    value = np.zeros_like(points)
    for coefficients in quartic[::-1, live]:
        value = value * points + coefficients[:, None]
    counts = (value >= 0).astype(np.int64)
    # Beyond the first and last root that is not far away nothing changes.
    leftmost = (roots <= -_FAR).sum(axis=1)
    step = np.diff(counts, axis=1)
    moved = (step != 0) & (np.abs(roots) < _FAR)
    at_left = int(counts[np.arange(len(roots)), leftmost].sum()) + int((~live).sum())
    return roots[moved], step[moved], at_left


def _roots(quartic: Array) -> Array:
    """(n, 4) real parts of the roots, ascending; those of complex pairs are harmless, nothing changes there."""
    scale = np.abs(quartic).max(axis=0)
    poly = quartic / scale
    # A vanishing leading coefficient is a root at infinity; far away is near enough.
    lead = np.where(np.abs(poly[4]) < 1e-14, np.where(poly[4] < 0, -1e-14, 1e-14), poly[4])
    companion = np.zeros((poly.shape[1], 4, 4))
    companion[:, [1, 2, 3], [0, 1, 2]] = 1.0
    companion[:, :, 3] = -(poly[:4] / lead).T
    roots = np.linalg.eigvals(companion) if len(companion) else np.zeros((0, 4))
    out: Array = np.sort(roots.real, axis=1)
    return out
