"""Mediator effects that change with compliance: a polynomial over rows, with errors in compliance corrected.

Fu's (2023) Remark 1: the effect of the mediator in a row may be theta_0 + theta_1 g (+ theta_2 g^2), g the compliance.
Then itt is a polynomial in g one degree higher, and its powers are estimated with errors that least squares
takes for curvature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.errors import DesignError, TooFewSitesError, check_choice, count, listing
from msmmiv.estimate.between.added_terms import Term, added_terms
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.estimate.site_moments import corrected_inverse, corrected_product
from msmmiv.inference.tests import NotApplicable, TestResult, f_test
from msmmiv.linalg import Array, frozen

__all__ = ["Degree", "PolynomialEffect", "polynomial"]

Degree: TypeAlias = Literal[1, 2]

#: Rows below which the covariance, which counts rows as many, is too small.
_FEW = 30
#: Share of the observed variation below which the reader is told that the correction took nearly all.
_FAINT = 0.05
_ENDS = ("", " x compliance", " x compliance^2")
_NOT_POSITIVE = "denominator not positive: compliance and its powers vary no more than noise"


@dataclass(frozen=True, eq=False)
class PolynomialEffect:
    """How the effect of the mediator goes with compliance, with what every row says about it.

    Attributes
    ----------
    labels : tuple
        K rows.
    degree : {1, 2}
    terms : tuple of str
        ``degree + 1`` coefficients of the effect (of g^0, g^1, g^2), then regressors without error.
    coefficients : (k,) array
        NaN with a ``status``.
    influence : (K, k) array
        First-order influence of each row; its columns sum to zero.
    compliance, noise : (K,) arrays
        Estimated compliances and their sampling variances.
    own : (K, degree + 1) array
        Covariance of each row's estimated compliance with the coefficients of the effect.
    constancy : TestStatistic or NotApplicable
        Of theta_1 = theta_2 = 0.
    left : float
        Smallest share of the observed variation of the regressors that is not sampling error.
    status : str or None
        Why there is no estimate.
    notes : tuple of str
    """

    labels: tuple[object, ...]
    degree: Degree
    terms: tuple[str, ...]
    coefficients: Array
    influence: Array
    compliance: Array
    noise: Array
    own: Array
    constancy: TestResult
    left: float
    status: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """Name in results."""
        return f"polynomial({self.degree})"

    @property
    def df(self) -> float:
        """Degrees of freedom of t intervals: rows less coefficients."""
        return float(len(self.labels) - len(self.terms))

    @cached_property
    def covariance(self) -> Array:
        """(k, k) covariance, rows being sampled units, times K / (K - k)."""
        return frozen(self.influence.T @ self.influence * len(self.labels) / self.df)

    @property
    def std_errors(self) -> Array:
        """(k,) standard errors."""
        return np.sqrt(np.diag(self.covariance))

    def mediator_effect(self, compliance: npt.ArrayLike) -> Array:
        """Effect of the mediator where compliance is known to be g: theta_0 + theta_1 g (+ theta_2 g^2)."""
        return np.asarray(self._powers(compliance) @ self.coefficients[: self.degree + 1])

    def std_error(self, compliance: npt.ArrayLike) -> Array:
        """Standard error of `mediator_effect` at a given compliance."""
        return _root(_quadratic(self._powers(compliance), self._effect_covariance))

    @property
    def average(self) -> tuple[float, float]:
        """Effect averaged over the rows, with its standard error: theta_0 + theta_1 E[g] + theta_2 E[g^2].

        Moments of compliance are corrected for its sampling error; rows are sampled units.
        """
        n, theta = self.degree + 1, self.coefficients[: self.degree + 1]
        powers = self._corrected(range(n))
        mean = powers.mean(axis=0)
        influence = self.influence[:, :n] @ mean + (powers - mean) @ theta / len(powers)
        scale = len(powers) / self.df
        return float(mean @ theta), float(np.sqrt(scale * influence @ influence))

    def effects(self) -> pd.DataFrame:
        """Effect of the mediator in every row and what goes through it there, with standard errors.

        ``indirect_effect`` is effect times compliance, theta_0 g + theta_1 g^2 + theta_2 g^3. Powers of the
        estimated compliance are corrected for its sampling error; standard errors (delta method) count
        that error, that of the coefficients, and their covariance: the row had a part in both. NaN where that
        covariance, itself estimated, leaves nothing (a few rows of small error, mostly with ``degree=2``).
        """
        n, theta = self.degree + 1, self.coefficients[: self.degree + 1]
        powers = self._corrected(range(n + 1))
        out = {"row": list(self.labels), "compliance": self.compliance}
        for name, first in (("mediator_effect", 0), ("indirect_effect", 1)):
            load = powers[:, first : first + n]
            exponents = np.arange(first, first + n)
            slope = np.column_stack([e * powers[:, e - 1] if e else 0.0 * self.noise for e in exponents])
            slope = slope @ theta
            variance = _quadratic(load, self._effect_covariance) + slope**2 * self.noise
            variance += 2.0 * slope * (load * self.own).sum(axis=1)
            out[name], out[f"{name}_se"] = load @ theta, _root(variance)
        return pd.DataFrame(out)

    @property
    def _effect_covariance(self) -> Array:
        return self.covariance[: self.degree + 1, : self.degree + 1]

    def _powers(self, compliance: npt.ArrayLike) -> Array:
        g = np.asarray(compliance, dtype=float)
        return g[..., None] ** np.arange(self.degree + 1)

    def _corrected(self, exponents: range) -> Array:
        values, cov = self.compliance[:, None], self.noise[:, None, None]
        return np.column_stack([corrected_product(values, cov, (0,) * e) for e in exponents])


def polynomial(rows: BetweenRows, *, degree: Degree = 1) -> PolynomialEffect:
    """Fit itt on powers of compliance up to ``degree + 1``, errors in both corrected, rows counted alike.

    Use it to see whether the effect of the mediator depends on how far the treatment moves it: where it does, the
    straight line of the decomposition has no single slope to estimate.

    Parameters
    ----------
    rows : BetweenRows
        One mediator, independent rows. With a direct effect it must not be related to compliance either:
        its curvature would be read as that of the mediator effect.
    degree : {1, 2}
        Of the effect in compliance.

    Returns
    -------
    PolynomialEffect
        With a status where sampling error leaves no variation of compliance and its powers.

    Raises
    ------
    DesignError
        Several mediators, or rows that share people.
    TooFewSitesError
        Fewer than two rows more than coefficients.

    Notes
    -----
    With h = (z, g, ..., g^D), D = degree + 1, the corrected normal equations

        sum_k { E*[h_k y_k] - E*[h_k h_k'] b } = 0

    use products whose expectation is that of true values (`corrected_product`: Hermite polynomials, up to
    six factors), exact for normal errors with known variances. Compliance is measured from its mean inside, which
    alters nothing but rounding. Influence of row k: A^-1 psi_k / K.

    The test of constancy is a score test: psi at the fit with theta_1 = theta_2 = 0, less its projection on the
    scores of what is fitted, referred to F(degree, K - k) as Hotelling's T^2. It divides by the variation of compliance
    only, not by that of its powers. Simulated size at 0.05, errors correlated 0.5 (docs/validation/claims.csv, 600
    draws): 0.03 to 0.05 with the standard deviation of errors at 0.3 of that of compliance (K = 30, 100; both degrees);
    with it at 1, 0.04 to 0.06, but 0.10 with K = 100 and degree 2. A Wald test of the same coefficients has 0.08 to
    0.13 and 0.00 to 0.01; least squares on powers of estimated compliance, normal as its errors are, 0.04 to 0.07. With
    as much error as compliance there is often no estimate to test: in 57 % (K = 30) and 27 % (K = 100) of draws for
    degree 1, and in 99 % and 92 % for degree 2.

    References
    ----------
    Fu (2023), Remark 1. Cheng & Schneeweiss (1998), polynomial regression with errors in the variables.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> fit = polynomial(rows)
    >>> fit.terms
    ('class_size', 'class_size x compliance', 'direct_effect')
    >>> print(fit.constancy)
    constant mediator effect: 2.998 ~ F(1, 76), p = 0.0874 (H0: the mediator effect does not change with compliance)
    """
    check_choice(degree, Degree, "degree")
    n, k = degree + 1, degree + 1 + len(rows.exogenous)
    _check(rows, k)
    basis = _Basis.of(rows, n)
    gram, cross = basis.products(basis.cov)
    plain, _ = basis.products(np.zeros_like(basis.cov))
    inverse, left = corrected_inverse(gram.mean(axis=0), plain.mean(axis=0))
    name = rows.mediators[0]
    nothing = frozen(np.full((rows.n_rows, k), np.nan))
    out = PolynomialEffect(
        labels=rows.labels,
        degree=degree,
        terms=(*(name + end for end in _ENDS[:n]), *rows.exogenous),
        coefficients=nothing[0],
        influence=nothing,
        compliance=frozen(rows.x[:, 0]),
        noise=frozen(rows.noise[:, 0, 0]),
        own=nothing[:, :n],
        constancy=_constancy(basis, n),
        left=left,
        status=None if inverse is not None else _NOT_POSITIVE,
        notes=_notes(rows, left),
    )
    if inverse is None:
        return out
    theta = inverse @ cross.mean(axis=0)
    influence = (cross - gram @ theta) @ inverse / rows.n_rows
    own = basis.own_covariance(theta) @ inverse / rows.n_rows
    back = basis.back()
    return replace(
        out,
        coefficients=frozen(back @ theta),
        influence=frozen(influence @ back.T),
        own=frozen((own @ back.T)[:, :n] * basis.x_unit),
    )


@dataclass(frozen=True, eq=False)
class _Basis:
    """Regressors factor * u^exponent, with u compliance from ``centre`` in units; first powers, then z."""

    values: Array
    cov: Array
    factor: Array
    exponent: npt.NDArray[np.int64]
    centre: float
    x_unit: float
    y_unit: float
    z_unit: Array

    @classmethod
    def of(cls, rows: BetweenRows, n: int) -> _Basis:
        # With a free intercept powers of g - c span those of g; far from zero the latter lose every digit.
        x, y = rows.x[:, 0], rows.y
        centre = float(x.mean()) if rows.has_direct_effect else 0.0
        units = [_rms(y), _rms(x - centre)]
        z_unit = np.array([_rms(column) for column in rows.z.T])
        q = rows.z.shape[1]
        return cls(
            values=np.column_stack([y, x - centre]) / units,
            cov=rows.cov / np.outer(units, units),
            factor=np.column_stack([np.ones((len(y), n)), rows.z / z_unit]),
            exponent=np.concatenate([np.arange(1, n + 1), np.zeros(q, dtype=np.int64)]),
            centre=centre,
            x_unit=units[1],
            y_unit=units[0],
            z_unit=z_unit,
        )

    def products(self, cov: Array) -> tuple[Array, Array]:
        """(K, k, k) and (K, k): products of regressors, and with itt, whose expectation is that of true values."""
        power, with_y = self._powers(cov)
        gram = self.factor[:, :, None] * self.factor[:, None, :] * power[:, self._sums]
        return gram, self.factor * with_y[:, self.exponent]

    def own_covariance(self, theta: Array) -> Array:
        """(K, k) covariance of a row's scores with the error of its own compliance.

        For normal errors Cov(psi, u) = E[d psi / d(itt, g)] Cov(error, u) exactly (Stein), and the derivative of a
        corrected power is the corrected power below it, times the exponent.
        """
        power, with_y = self._powers(self.cov)
        by_y = self.factor * power[:, self.exponent]
        below, e = np.maximum(self._sums - 1, 0), self.exponent
        by_x = self.factor * e * with_y[:, np.maximum(e - 1, 0)]
        gram = self.factor[:, :, None] * self.factor[:, None, :] * self._sums * power[:, below]
        out: Array = by_y * self.cov[:, :1, 1] + (by_x - gram @ theta) * self.cov[:, 1:, 1]
        return out

    def back(self) -> Array:
        """(k, k) matrix that gives the coefficients of powers of g itself, and of z, in their own units."""
        n = int(self.exponent.max())
        out = np.diag(np.concatenate([np.zeros(n), self.y_unit / self.z_unit]))
        for e in range(1, n + 1):
            for m in range(0 if self.centre else 1, e + 1):
                at = m - 1 if m else n  # what is left of u^e at g = 0 belongs to the direct effect
                share = comb(e, m) * (-self.centre) ** (e - m)
                out[at, e - 1] += self.y_unit * share / self.x_unit**e
        return out

    @property
    def _sums(self) -> npt.NDArray[np.int64]:
        return self.exponent[:, None] + self.exponent[None, :]

    def _powers(self, cov: Array) -> tuple[Array, Array]:
        n = int(self.exponent.max())
        power = [corrected_product(self.values, cov, (1,) * e) for e in range(2 * n + 1)]
        with_y = [corrected_product(self.values, cov, (0,) + (1,) * e) for e in range(n + 1)]
        return np.column_stack(power), np.column_stack(with_y)


def _constancy(basis: _Basis, n: int) -> TestResult:
    """Score test of a constant effect: the higher powers of compliance as added terms."""
    title = "constant mediator effect"
    powers = [Term(f"g^{e}", (1,) * e) for e in range(1, n + 1)]
    exact = [Term(f"z{j}", factor=basis.factor[:, j]) for j in range(n, basis.factor.shape[1])]
    found = added_terms(
        basis.values, basis.cov, base=[powers[0], *exact], added=powers[1:], sensitivity=False
    )
    if not found.ok:
        return NotApplicable(title, "compliance varies no more than noise")
    if not np.isfinite(found.statistic):
        return NotApplicable(title, "the rows lie on a line: their scores do not vary")
    null = "the mediator effect does not change with compliance"
    return f_test(title, null, float(found.statistic), found.df, found.df_denom)


def _check(rows: BetweenRows, k: int) -> None:
    if len(rows.mediators) > 1:
        raise DesignError(
            f"polynomial() is for one mediator; there are {len(rows.mediators)} ({listing(rows.mediators)}). Keep one."
        )
    # An error that all rows share shifts every compliance, and with it the slope of a curve (not that of a line).
    if rows.cross is not None or np.any(rows.common) or rows.n_sites < rows.n_rows:
        raise DesignError(
            "polynomial() needs independent rows, and arms of one site share its controls. Keep two arms, or one row "
            "per site."
        )
    if rows.n_rows < k + 2:
        raise TooFewSitesError(
            f"{count(rows.n_rows, 'row')} cannot carry {count(k, 'coefficient')} of a polynomial and tell how sure "
            f"they are; it needs at least {k + 2}. Use degree=1 or fewer site covariates."
        )


def _notes(rows: BetweenRows, left: float) -> tuple[str, ...]:
    notes = []
    if rows.n_rows < _FEW:
        notes.append(f"{count(rows.n_rows, 'row')}, fewer than {_FEW}: standard errors are optimistic.")
    if 0.0 < left < _FAINT:
        notes.append(
            f"Sampling error is all but {left:.1%} of the variation of compliance and its powers in their weakest "
            "direction: the estimate may be far off, and its standard error too small."
        )
    if rows.zero_covariance_assumed:
        notes.append("Cov(itt, compliance) was not given and counts as zero; the correction rests on it.")
    return tuple(notes)


def _quadratic(load: Array, cov: Array) -> Array:
    return np.asarray(np.einsum("...i,ij,...j->...", load, cov, load))


def _root(variance: Array) -> Array:
    """Square root; NaN where a variance put together from estimates came out negative."""
    return np.sqrt(np.where(variance >= 0, variance, np.nan))


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean())) or 1.0
