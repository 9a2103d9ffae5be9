"""The robust Anderson-Rubin statistic minimised over the effects of the other mediators."""

from __future__ import annotations

import numpy as np

from msmmiv.inference.site_scores import Sites
from msmmiv.linalg import Array
from msmmiv.progress import watched

__all__ = ["Profile", "pooled_moments"]

_STEPS = 40
_ANGLES = 48
_VALLEYS = 3
_FEW = 100
_LONG = 300_000  # values times contrasts that take more than about two seconds
_WHAT = "Anderson-Rubin over the other effects"


class Profile:
    """min over the other effects of AR(x, others), for many x at once.

    AR = sum e^2 / V_ee is not convex, because V_ee depends on the effects too. Each x is therefore
    descended from several starts by Levenberg-Marquardt, vectorised over x: every critical point of the
    homoskedastic problem with pooled covariances, the valleys of a grid around the whole line (one other
    mediator), the solutions at neighbouring x, and what earlier calls found nearby. The gradient is exact,
    ``-2 sum D e / V`` with D as in Kleibergen's K.

    Parameters
    ----------
    sites : Sites
    position : int
        Column of the mediator under test.
    """

    def __init__(self, sites: Sites, position: int) -> None:
        self._sites = sites
        self._position = position
        self._others = [p for p in range(sites.n_mediators) if p != position]
        self._seen = (np.empty(0), np.empty((0, len(self._others))))

    def __call__(self, x: Array) -> Array:
        """Smallest AR at each value."""
        order = np.argsort(x, kind="stable")
        sorted_x = np.asarray(x, dtype=float)[order]
        theta, value = self._search(sorted_x)
        if len(x) > len(self._seen[0]):
            self._seen = (sorted_x, theta)
        out = np.empty(len(x))
        out[order] = value
        return out

    def _search(self, x: Array) -> tuple[Array, Array]:
        starts = self._pooled_starts(x)
        seen_x, seen = self._seen
        if len(seen_x) > _FEW and len(x) <= len(seen_x):
            # Refining what a grid of x has settled: its solutions on both sides, and the best pooled start.
            near = np.clip(np.searchsorted(seen_x, x), 1, len(seen_x) - 1)
            starts = [seen[near], seen[near - 1], starts[0]]
        elif len(self._others) == 1:
            starts += self._valleys(x)
        theta, value = self._descend(x, starts[0])
        for start in watched(starts[1:], what=_WHAT, show=self._long(x)):
            theta, value = _better(theta, value, *self._descend(x, start))
        for shift in (1, -1) if len(x) > _FEW else ():
            theta, value = _better(theta, value, *self._descend(x, np.roll(theta, shift, axis=0)))
        return theta, value

    def _long(self, x: Array) -> bool:
        return len(x) * self._sites.present.size > _LONG

    def _beta(self, x: Array, theta: Array) -> Array:
        beta = np.empty((len(x), self._sites.n_mediators))
        beta[:, self._position], beta[:, self._others] = x, theta
        return beta

    def _value(self, x: Array, theta: Array) -> Array:
        line = np.hstack([np.ones((len(x), 1)), -self._beta(x, theta)])
        return np.concatenate([self._sites.anderson_rubin(line[part]) for part in self._sites.chunks(len(x))])

    def _parts(self, x: Array, theta: Array) -> tuple[Array, Array, Array]:
        """AR, half the downhill direction, and the Gauss-Newton matrix."""
        beta = self._beta(x, theta)
        out = []
        for part in self._sites.chunks(len(beta)):
            s = self._sites.scores(beta[part])
            first = s.first[:, :, self._others]
            out.append(
                (
                    s.ar,
                    np.einsum("cnp,cn,cn->cp", first, s.slope, s.ratio),
                    np.einsum("cnp,cn,cnq->cpq", first, s.slope, first),
                )
            )
        ar, score, gram = (np.concatenate(column) for column in zip(*out, strict=True))
        return ar, score, gram

    def _descend(self, x: Array, theta: Array) -> tuple[Array, Array]:
        theta = theta.copy()
        value, score, gram = self._parts(x, theta)
        damping = np.full(len(x), 1e-3)
        active = np.arange(len(x))
        for _ in range(_STEPS):
            size = np.sqrt(np.einsum("cpp->cp", gram))
            size = np.where(size > 0, size, 1.0)
            unit = gram / (size[:, :, None] * size[:, None, :])
            unit = unit + (damping[:, None, None] + 1e-12) * np.eye(len(self._others))
            step = np.linalg.solve(unit, (score / size)[:, :, None])[:, :, 0] / size
            trial = theta[active] + step
            new = self._parts(x[active], trial)
            gain = value[active] - new[0]
            better = gain > 0
            theta[active[better]], value[active[better]] = trial[better], new[0][better]
            score = np.where(better[:, None], new[1], score)
            gram = np.where(better[:, None, None], new[2], gram)
            damping = np.where(better, damping / 9, damping * 6)
            going = (gain > 1e-10 * (1 + value[active])) | (~better & (damping < 1e3))
            active, score, gram, damping = active[going], score[going], gram[going], damping[going]
            if not len(active):
                break
        return theta, value

    def _pooled_starts(self, x: Array) -> list[Array]:
        """Critical points of the pooled homoskedastic problem: eigenvectors of one small pencil per x."""
        between, within = pooled_moments(self._sites)
        m = len(self._others)
        basis = np.zeros((len(x), m + 2, m + 1))
        basis[:, 0, 0], basis[:, 1 + self._position, 0] = 1.0, -x
        for column, p in enumerate(self._others, start=1):
            basis[:, 1 + p, column] = 1.0
        length = np.sqrt(np.einsum("cik,i->ck", basis**2, np.diag(within)))
        basis = basis / length[:, None, :]
        n, s = (np.einsum("cik,ij,cjl->ckl", basis, gram, basis) for gram in (between, within))
        factor = np.linalg.inv(np.linalg.cholesky(s + 1e-9 * np.eye(m + 1)))
        vectors = np.linalg.eigh(factor @ n @ factor.transpose(0, 2, 1))[1]
        u = factor.transpose(0, 2, 1) @ vectors / length[:, :, None]
        head = np.where(np.abs(u[:, :1]) > 1e-9 * np.abs(u).max(axis=1, keepdims=True), u[:, :1], np.nan)
        ratio = -u[:, 1:] / head
        least = np.nan_to_num(ratio[:, :, 0])
        return [least, *(np.where(np.isnan(ratio[:, :, i]), least, ratio[:, :, i]) for i in range(1, m + 1))]

    def _valleys(self, x: Array) -> list[Array]:
        """The deepest valleys along the whole line of the one other effect."""
        # Equal steps in angle where the pooled error covariance is round: none of the line is far away.
        within = pooled_moments(self._sites)[1]
        j, o = 1 + self._position, 1 + self._others[0]
        error = within[0, 0] - 2 * x * within[0, j] + x**2 * within[j, j]
        centre = (within[0, o] - x * within[j, o]) / within[o, o]
        reach = np.sqrt(np.maximum(error / within[o, o] - centre**2, 1e-12 * error / within[o, o]))
        angles = (np.arange(_ANGLES) + 0.5) / _ANGLES * np.pi - np.pi / 2
        theta = centre + reach * np.tan(angles)[:, None]
        looked = watched(theta, what=f"{_WHAT}: where to begin", show=self._long(x))
        value = np.stack([self._value(x, t[:, None]) for t in looked])
        # Both ends of the line are one point, so that the neighbours go around.
        valley = (value <= np.roll(value, 1, axis=0)) & (value <= np.roll(value, -1, axis=0))
        order = np.argsort(np.where(valley, value, np.inf), axis=0)[:_VALLEYS]
        return [np.take_along_axis(theta, row[None], axis=0).T for row in order]


def pooled_moments(sites: Sites) -> tuple[Array, Array]:
    """Cross-products of the estimates and their expected errors, sites weighed by 1 / Var(itt).

    Parameters
    ----------
    sites : Sites

    Returns
    -------
    between, within : (1 + P, 1 + P) arrays
    """
    variance = np.einsum("kdadb->kdab", sites.cov)
    weight = sites.present / variance[:, :, 0, 0]
    r = sites.estimates
    if sites.direct:
        r = r - np.einsum("kd,kda->da", weight, r) / np.maximum(weight.sum(axis=0), 1e-300)[:, None]
    between = np.einsum("kd,kda,kdb->ab", weight, r, r)
    within = np.einsum("kd,kdab->ab", weight, variance)
    # A mediator without sampling error anywhere still needs a unit.
    floor = np.where(np.diag(within) > 0, 0.0, np.maximum(np.diag(between), 1e-300))
    return between, within + np.diag(floor)


def _better(theta: Array, value: Array, other: Array, other_value: Array) -> tuple[Array, Array]:
    take = other_value < value
    return np.where(take[:, None], other, theta), np.where(take, other_value, value)
