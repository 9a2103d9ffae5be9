"""Effective scores: the equations of some coefficients with the others estimated at each of their values.

They are linear in the values ``d``, so the one-sample t test of the scores at ``d`` inverts to the roots of
a quadratic: Fieller's theorem for scores of sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.errors import DataError
from msmmiv.inference.cluster_robust import ALONE, root_of_rest, whitened
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.tests import NotApplicable, TestResult, chi2_test, f_test
from msmmiv.linalg import Array

__all__ = ["EXPONENT", "Correction", "Profile", "nuisance_correction"]

Correction: TypeAlias = Literal["CR0", "CR2", "CR3"]

#: Power of I minus leverage that multiplies residuals.
EXPONENT = {"CR0": 0.0, "CR2": -0.5, "CR3": -1.0}


@dataclass(frozen=True, eq=False)
class Profile:
    """Scores of q coefficients as linear functions of their values, the other r estimated at each value.

    Attributes
    ----------
    terms : tuple of str
        The q coefficients.
    small_sample : {"CR0", "CR2", "CR3"}
        The correction in ``spread_alpha`` and ``spread_eta``.
    alpha, eta : (G, q), (G, q, q) arrays
        Effective scores ``psi_g(d) = alpha_g - eta_g d``.
    spread_alpha, spread_eta : (G, q), (G, q, q) arrays
        The same after the small-sample correction; for variances.
    nuisance_alpha, nuisance_eta : (G, r), (G, r, q) arrays
        Scores of the other coefficients; their sums over g are zero at every d.
    feedback : (G, q, r) array
        What the effective score of g loses per unit of a sum of nuisance scores; its sum over g is zero.
    noise : (3,) array or None
        Sampling variance ``n0 - 2 n1 d + n2 d^2`` of the sum of effective scores with the sites held fixed, for
        one coefficient, where it is known.
    """

    terms: tuple[str, ...]
    small_sample: Correction
    alpha: Array
    eta: Array
    spread_alpha: Array
    spread_eta: Array
    nuisance_alpha: Array
    nuisance_eta: Array
    feedback: Array
    noise: Array | None = None

    @property
    def groups(self) -> int:
        """G."""
        return len(self.alpha)

    @property
    def n_nuisance(self) -> int:
        """Number r of coefficients estimated at each value."""
        return int(self.feedback.shape[2])

    @property
    def df(self) -> int:
        """G - k, with k = q + r."""
        return self.groups - len(self.terms) - self.n_nuisance

    @property
    def factor(self) -> float:
        """Centred products of scores times this estimate the variance of their sum."""
        lost = self.n_nuisance if self.small_sample == "CR0" else 0
        return self.groups / (self.groups - lost - 1)

    def test(self, values: npt.ArrayLike) -> TestResult:
        """Test that the coefficients have these values; see `SiteEquations.score_test`."""
        d = np.atleast_1d(np.asarray(values, dtype=float))
        name = f"score test ({self.small_sample})"
        null = ", ".join(f"{term} = {value:g}" for term, value in zip(self.terms, d, strict=True))
        total = (self.alpha - self.eta @ d).sum(axis=0)
        spread = self.spread_alpha - self.spread_eta @ d
        spread = spread - spread.mean(axis=0)
        size = np.sqrt((spread**2).sum(axis=0))
        if (size == 0).any():
            return NotApplicable(
                name, "all effective scores are equal, so they have no spread to be compared with"
            )
        variance = (spread / size).T @ (spread / size)
        if np.linalg.eigvalsh(variance)[0] < ALONE:
            return NotApplicable(name, "the effective scores of the restrictions are linearly dependent")
        stat = float(total / size @ np.linalg.solve(variance, total / size)) / self.factor
        f = stat * self.df / (len(d) * (self.groups - self.n_nuisance - 1))
        between = f_test(name, null, f, len(d), float(self.df))
        if self.noise is None:
            return between
        variance_held = float(self.noise @ [1.0, -2.0 * d[0], d[0] ** 2])
        held = (
            chi2_test(name, null, float(total[0] ** 2) / variance_held, 1) if variance_held > 0 else between
        )
        return between if between.pvalue >= held.pvalue else held

    def confidence_set(self, *, level: float = 0.95) -> ConfidenceSet:
        """Values of the one coefficient that `test` does not reject; see `SiteEquations.score_set`."""
        from scipy.special import ndtri, stdtrit

        if not 0.0 < level < 1.0:
            raise DataError(f"A confidence level lies between 0 and 1; got {level!r}.")
        cut = float(stdtrit(self.df, (1.0 + level) / 2.0)) ** 2 * self.factor
        one = self.spread_alpha[:, 0] - self.spread_alpha[:, 0].mean()
        two = self.spread_eta[:, 0, 0] - self.spread_eta[:, 0, 0].mean()
        top, slope = float(self.alpha.sum()), float(self.eta.sum())
        found = ConfidenceSet.from_quadratic(
            slope**2 - cut * float(two @ two), top * slope - cut * float(one @ two),
            top**2 - cut * float(one @ one), level=level, term=self.terms[0],
            method=f"site scores ({self.small_sample}, t with {self.df} df)",
        )  # fmt: skip
        if self.noise is None:
            return found
        cut = float(ndtri((1.0 + level) / 2.0)) ** 2
        held = ConfidenceSet.from_quadratic(
            slope**2 - cut * self.noise[2], top * slope - cut * self.noise[1], top**2 - cut * self.noise[0],
            level=level,
        )  # fmt: skip
        method = f"{found.method} with the noise of the sites as a floor"
        return ConfidenceSet.from_pieces(
            [*found.intervals, *held.intervals], level=level, term=self.terms[0], method=method
        )


def nuisance_correction(gram: Array, fixed: list[int], free: list[int], kind: Correction) -> Array | str:
    """What the correction adds to effective scores per nuisance score, or why it is not defined.

    Parameters
    ----------
    gram : (G, k, k) array
        Cross-products of the regressors.
    fixed, free : list of int
        The q coefficients of the null and the r that are estimated.
    kind : {"CR2", "CR3"}

    Returns
    -------
    (G, q, r) array or str
    """
    total = gram.sum(axis=0)
    try:
        lower = np.linalg.cholesky(total[np.ix_(free, free)])
    except np.linalg.LinAlgError:
        return f"{kind} needs regressors with positive definite cross-products; use small_sample='CR0'"
    values, vectors = np.linalg.eigh(whitened(gram[:, free][:, :, free], lower))
    if (values > 1.0 + ALONE).any():
        return f"{kind} is not defined: a block weighs more than all of them together; use small_sample='CR0'"
    power = root_of_rest(values, EXPONENT[kind])[0]
    small = np.abs(values) < 1e-7
    phi = np.where(small, -EXPONENT[kind], (power - 1.0) / np.where(small, 1.0, values))
    side = np.linalg.solve(total[np.ix_(free, free)], total[np.ix_(free, fixed)]).T
    star = gram[:, fixed][:, :, free] - side @ gram[:, free][:, :, free]
    back = np.linalg.inv(lower)
    out: Array = star @ back.T @ np.einsum("gij,gj,gkj->gik", vectors, phi, vectors) @ back
    return out
