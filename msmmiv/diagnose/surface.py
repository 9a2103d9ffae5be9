"""The regression of itt on compliances in which terms are tested, and the trials it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from msmmiv.diagnose.null_surface import NullSurface, SurfaceRows, plane_scatter, shrunken
from msmmiv.diagnose.origin_score import origin_score
from msmmiv.errors import count
from msmmiv.estimate.between.added_terms import AddedTerms, Term, added_terms
from msmmiv.linalg import Array, frozen

__all__ = ["DIRECT", "Surface", "SurfaceKind", "Violation"]

SurfaceKind: TypeAlias = Literal["origin", "curvature", "reset", "vech"]

DIRECT = "direct_effect"
#: Fewest sites with which the tests were shown to hold their size: lines, and bends of planes of several mediators.
_FEWEST, _FEWEST_MANY = 12, 40


@dataclass(frozen=True, eq=False)
class Violation:
    """What is added to itt where the plane is not the truth.

    Attributes
    ----------
    words : str
        Of ``size``.
    size : float
        Coefficient of the added term.
    shape : callable
        The added term as a function of true compliances (..., P).
    """

    words: str
    size: float
    shape: Callable[[Array], Array]

    def of(self, size: float) -> Callable[[Array], Array]:
        """The same with another coefficient."""
        return lambda g: size * self.shape(g)


@dataclass(frozen=True, eq=False)
class Surface:
    """The regression of one test; inside, columns are in units of their size (from their means with an intercept).

    Attributes
    ----------
    rows : SurfaceRows
    kind : {"origin", "curvature", "reset", "vech"}
    mediators : tuple of str
    direct_effect : bool
        Whether the intercept is free.
    centre, unit : (1 + P,) arrays
    weights : (R,) array
    """

    rows: SurfaceRows
    kind: SurfaceKind
    mediators: tuple[str, ...]
    direct_effect: bool
    centre: Array
    unit: Array
    weights: Array

    @classmethod
    def of(
        cls, rows: SurfaceRows, kind: SurfaceKind, mediators: tuple[str, ...], *, direct_effect: bool
    ) -> Surface:
        """With equal weights."""
        centre = np.zeros(rows.values.shape[1])
        if direct_effect:
            centre[1:] = rows.values[:, 1:].mean(axis=0)
        unit = np.sqrt(((rows.values - centre) ** 2).mean(axis=0))
        unit = np.where(unit > 0, unit, 1.0)
        return cls(rows, kind, mediators, direct_effect, centre, unit, np.ones(len(rows.values)))

    @property
    def terms(self) -> tuple[list[Term], list[Term]]:
        """What is fitted and what is added."""
        names, p = self.mediators, len(self.mediators)
        base = [Term(name, (j,)) for j, name in enumerate(names, start=1)]
        if self.kind == "origin":
            return base, [Term(DIRECT)]
        if self.kind == "reset":
            added = [Term("plane^2", (p + 1, p + 1))]
        else:
            pairs = [(a, b) for a in range(1, p + 1) for b in range(a, p + 1)]
            added = [Term(_product(names[a - 1], names[b - 1]), (a, b)) for a, b in pairs]
        return base + [Term(DIRECT)] * self.direct_effect, added

    def unusable(self) -> str:
        """Why there can be no test, if there can be none: too few sites, or covariances that are none."""
        base, added = self.terms
        least = _FEWEST_MANY if self.kind in ("reset", "vech") else _FEWEST
        if self.kind == "vech":
            least = max(least, 2 * (len(base) + len(added)))
        have = self.rows.n_sites
        if have < least:
            return f"too few sites: {have}; the test is made for {least} or more"
        variance = np.einsum("raa->ra", self.rows.cov)
        bad = (variance < 0).any(axis=1) | (
            np.linalg.eigvalsh(self.rows.cov)[:, 0] < -1e-9 * variance.sum(axis=1)
        )
        if bad.any():
            return f"the sampling covariance of {count(int(bad.sum()), 'row')} is not positive; take cov_type='pooled'"
        return ""

    def fit(self, values: Array, *, sensitivity: bool = False) -> AddedTerms:
        """The test on samples (..., R, 1 + P); its coefficients are those of the columns in units."""
        values = (values - self.centre) / self.unit
        cov = self.rows.cov / np.outer(self.unit, self.unit)
        base, added = self.terms
        site = self.rows.site if self.rows.shared else None
        if self.kind == "origin":
            return origin_score(values, cov, names=self.mediators, site=site, weights=self.weights)
        if self.kind == "reset":
            first = added_terms(  # for its base alone
                values, cov, base=base, added=base[:1], weights=self.weights, site=site, sensitivity=False
            )
            values, cov = _with_index(values, cov, first.base_coefficients[..., : len(self.mediators)])
        return added_terms(
            values, cov, base=base, added=added, weights=self.weights, site=site, sensitivity=sensitivity
        )

    def weighted(self) -> Surface:
        """With weights 1 / (V_ee + t^2), which depend on estimates by way of the plane alone."""
        found = self.fit(self.rows.values)
        if not found.ok:
            return self
        null = self.null(found)
        variance = _variance(self.rows.cov, null.slopes) + null.scatter
        if not (variance > 0).all():
            return self
        return replace(self, weights=frozen((1.0 / variance) / (1.0 / variance).mean()))

    def null(self, found: AddedTerms) -> NullSurface:
        """Trials in which the fitted plane is the truth."""
        plane = self.base(found.base_coefficients)
        slopes, intercept = plane[: len(self.mediators)], float(plane[-1]) if self.direct_effect else 0.0
        residual = self.rows.values[:, 0] - self.rows.values[:, 1:] @ slopes - intercept
        scatter = plane_scatter(residual, _variance(self.rows.cov, slopes), len(plane))
        return NullSurface(self.rows, intercept, frozen(slopes), scatter)

    def base(self, coefficients: Array) -> Array:
        """(q,) coefficients of the base terms in their own units, the intercept that at zero compliance."""
        p = len(self.mediators)
        out = np.array(coefficients * self.unit[0])
        out[:p] /= self.unit[1:]
        if self.direct_effect:
            out[-1] -= out[:p] @ self.centre[1:]
        return out

    @property
    def added_unit(self) -> Array:
        """(a,) what coefficients of the added terms are multiplied with."""
        y, x = float(self.unit[0]), self.unit[1:]
        if self.kind == "origin":
            return np.array([y])
        if self.kind == "reset":
            return np.array([1.0 / y])
        return np.array([y / np.prod(x[[c - 1 for c in t.columns]]) for t in self.terms[1]])

    def quadratic(self, found: AddedTerms, at: Array) -> Array:
        """Corrected parabola of one mediator; NaN where sampling error leaves none."""
        u = (at - self.centre[1]) / self.unit[1]
        b = found.fitted_base
        level = b[1] if self.direct_effect else 0.0
        return np.asarray(self.unit[0] * (level + b[0] * u + found.coefficients[0] * u**2))

    def violation(self, null: NullSurface) -> Violation | None:
        """The violation that power is stated for; None where the plane is level or compliances do not vary."""
        if self.kind == "origin":
            size = 0.5 * float(np.average(self.rows.values[:, 0], weights=self.weights))
            words = f"a direct effect of {size:.3g}, half the mean itt"
            return Violation(words, size, lambda g: np.ones(g.shape[:-1]))
        mean, left = shrunken(self.rows.values[:, 1:], self.rows.cov[:, 1:, 1:])
        index = mean @ null.slopes
        own = np.einsum("p,rpq,q->r", null.slopes, left, null.slopes).mean()
        middle, spread = float(index.mean()), float(np.sqrt(index.var() + own))
        if not spread > 1e-10 * float(np.sqrt((index**2).mean())):
            return None

        if len(self.mediators) > 1:
            words = (
                f"effects one and a half times as large where the plane predicts an itt of {middle + spread:.3g}, one "
                f"standard deviation above its mean of {middle:.3g}"
            )
            return Violation(words, 0.5 / spread, lambda g: (g @ null.slopes) * (g @ null.slopes - middle))
        slope, g0 = float(null.slopes[0]), float(mean.mean())
        words = (
            f"an effect of {self.mediators[0]} per unit of {1.5 * slope:.3g} where compliance is "
            f"{g0 + spread / abs(slope):.3g}, one standard deviation above its mean of {g0:.3g}, and of "
            f"{slope:.3g} at the mean"
        )
        return Violation(words, 0.5 * slope * abs(slope) / spread, lambda g: g[..., 0] * (g[..., 0] - g0))


def _product(one: str, two: str) -> str:
    return f"{one}^2" if one == two else f"{one} x {two}"


def _variance(cov: Array, slopes: Array) -> Array:
    """(R,) sampling variance of itt - g'b."""
    contrast = np.concatenate([[1.0], -slopes])
    return np.asarray(np.einsum("rab,a,b->r", cov, contrast, contrast))


def _with_index(values: Array, cov: Array, slopes: Array) -> tuple[Array, Array]:
    """Samples with the plane's value g'b as one more column, and the covariance that goes with it."""
    p, size = slopes.shape[-1], values.shape[-1]
    turn = np.zeros((*slopes.shape[:-1], size + 1, size))
    turn[..., range(size), range(size)] = 1.0
    turn[..., size, 1 : 1 + p] = slopes
    turn = turn[..., None, :, :]
    return (turn @ values[..., None])[..., 0], turn @ cov @ np.swapaxes(turn, -1, -2)
