"""Corrected normal equations: what is known to be sampling error is taken out of the cross-products of the rows.

All target the slopes of itt on true compliances with the direct effect free (or fixed at zero), for any number of
mediators and of regressors without error.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from msmmiv.errors import DataError, DesignError, MsmmivWarning, check_choice
from msmmiv.estimate.between.eb_score import paule_mandel
from msmmiv.estimate.between.normal_equations import (
    Corrected,
    check_rows,
    corrected,
    fit_of,
    small_sample,
)
from msmmiv.estimate.between.reliability import LambdaCorrected
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.linalg import Array, frozen

__all__ = ["BCES", "AdjustedDebiased", "CorrectedNormal", "LambdaCorrected"]

BcesDdof: TypeAlias = Literal["unbiased", "fu"]
RowWeights: TypeAlias = Literal["equal", "itt", "random"]

_AS_PRINTED = (
    "BCES(as_printed=True) repeats Fu (2023) and the R package mechte for comparison. It is wrong in two ways: the "
    "numerator keeps the sampling covariance of itt and compliance, and the variance divides each row by its own error "
    "variance less the mean one, a figure that changes sign and is zero when all errors are equal, instead of by the "
    "variance of the compliances less the mean error. Do not report its standard errors; use BCES()."
)


@dataclass(frozen=True)
class BCES:
    """Least squares with the mean sampling errors taken out, all rows counted alike (Akritas and Bershady 1996).

    The estimator of Fu (2023), corrected. It divides by what is left of the spread of compliances, so its moments do
    not exist and at few rows its normal intervals are poor; prefer score-based intervals there.

    Attributes
    ----------
    ddof : {"unbiased", "fu"}
        Subtract (1 - 1/K) of the summed errors, which is unbiased because centring absorbs the rest, or all of it,
        as Akritas and Bershady and Fu have it. With covariates 1/K becomes the leverage of the row.
    cov_uv : bool
        Subtract Cov(itt, compliance) too. Without it the slope is biased unless the covariance is zero.
    as_printed : bool
        Fu's eq. 23 and the variance of the author's code, for replication only: one mediator, no covariates, no
        ``ddof`` or ``cov_uv``, an estimate even when the denominator is negative, and a warning.

    Notes
    -----
    With M = I - Z(Z'Z)^-1 Z' and f_k = M_kk ("unbiased") or 1 ("fu"), b = A^-1 (X'My - sum f_k V_uv,k),
    A = X'MX - sum f_k V_u,k. The influence of a row is A^-1 [x_k^c r_k + f_k (V_u,k b - V_uv,k)], which with one
    mediator is (xi_k - mean xi)/K of Akritas and Bershady, and that on the intercept is (zeta_k - mean zeta)/K with
    zeta_k = y_k - b x_k - mean(x) xi_k. The covariance is the sum of squared influences, without a factor. Where
    rows are correlated the corrections are sum_kl M_kl V_kl and influences are summed by site first.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> fit = BCES().solve(rows)
    >>> fit.terms, fit.coefficients.round(3).tolist()
    (('class_size', 'direct_effect'), [-1.239, -0.767])
    """

    ddof: BcesDdof = "unbiased"
    cov_uv: bool = True
    as_printed: bool = False

    @property
    def name(self) -> str:
        """Name in results, options included."""
        if self.as_printed:
            return "bces(as_printed)"
        more = [self.ddof] * (self.ddof != "unbiased") + ["cov_uv=False"] * (not self.cov_uv)
        return f"bces({', '.join(more)})" if more else "bces"

    def solve(self, rows: BetweenRows) -> BetweenFit:
        """Coefficients and their covariance.

        Raises
        ------
        TooFewSitesError
            No more rows than coefficients; or, with correlated rows, no more sites.
        DesignError
            ``as_printed`` with anything that the printed formula does not cover.
        """
        check_choice(self.ddof, BcesDdof, "ddof")
        check_rows(rows, "BCES")
        if self.as_printed:
            return _as_printed(rows, self)
        parts = corrected(rows, np.ones(rows.n_rows), leverage=self.ddof == "unbiased", cov_uv=self.cov_uv)
        if parts.why_not is not None:
            return BetweenFit.without_estimate(self.name, rows, parts.why_not)
        beta, of_beta = _solved(parts)
        notes = () if self.cov_uv else ("Cov(itt, compliance) is left out: biased unless it is zero.",)
        return fit_of(rows, parts, beta, of_beta, method=self.name, factor=1.0, notes=notes)


@dataclass(frozen=True)
class CorrectedNormal:
    """Corrected normal equations with weights: for rows of very unequal precision.

    ``equal`` has the coefficients of `BCES`; ``itt`` gives weight to rows whose itt is precise, and through the origin
    is the debiased inverse-variance weighted estimator (dIVW); ``random`` allows for direct effects that vary.

    Attributes
    ----------
    weights : {"equal", "itt", "random"}
        1, 1 / Var(itt), or 1 / (t2 + e) where e is the sampling variance of itt - b'compliance and t2 the
        Paule-Mandel variance beyond it, both at the equally weighted estimate (a second step is not taken).

    Notes
    -----
    A = sum w X^c X^c' - sum f_k V_u,k with f_k = w_k (1 - h_k), h_k the leverage of row k in the weighted regression on
    z: w_k (1 - w_k / sum w) with an intercept alone, w_k through the origin. b = A^-1 (sum w X^c y - sum f_k V_uv,k),
    psi_k = w X^c (y^c - X^c'b) + f (V_u b - V_uv), V = A^-1 sum psi psi' A^-1 K / (K - P - q). Weights count as fixed:
    they do not depend on the compliances (``random`` depends on b, which is of second order). Correlated rows as
    in `BCES`, with the factor G / (G - 1) (K - 1) / (K - P - q) and at most G - 1 degrees of freedom.

    Sources: Ye, Shao and Kang (2021) for dIVW; Fuller (1987), Measurement Error Models.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> CorrectedNormal("itt").solve(rows).coefficients.round(3).tolist()
    [-0.888, 2.098]
    """

    weights: RowWeights = "equal"

    @property
    def name(self) -> str:
        """Name in results, options included."""
        return "corrected" if self.weights == "equal" else f"corrected({self.weights})"

    def solve(self, rows: BetweenRows) -> BetweenFit:
        """Coefficients and their covariance.

        Raises
        ------
        TooFewSitesError
            No more rows than coefficients; or, with correlated rows, no more sites.
        DataError
            Weights that are infinite, because the residual of a row has no variance.
        """
        check_choice(self.weights, RowWeights, "weights")
        check_rows(rows, "CorrectedNormal")
        w = np.ones(rows.n_rows)
        notes: tuple[str, ...] = ()
        if self.weights == "itt":
            w = 1.0 / rows.itt_variance
        elif self.weights == "random":
            first = corrected(rows, w)
            if first.why_not is not None:
                return BetweenFit.without_estimate(self.name, rows, f"first step: {first.why_not}")
            beta, _ = _solved(first)
            w, t2 = _random_weights(rows, beta)
            notes = (f"Direct effects vary between rows with variance {t2:.4g}.",)
        parts = corrected(rows, w)
        if parts.why_not is not None:
            return BetweenFit.without_estimate(self.name, rows, parts.why_not)
        beta, of_beta = _solved(parts)
        return fit_of(rows, parts, beta, of_beta, method=self.name, factor=small_sample(rows), notes=notes)


@dataclass(frozen=True)
class AdjustedDebiased:
    """dIVW with a ridge that keeps it from exploding where compliances vary little beyond noise (Wu and others 2024).

    `CorrectedNormal` with weights 1 / Var(itt) and A^-1 replaced by (A + phi C A^-1 C)^-1. The ridge vanishes as the
    strength of the compliances grows; what is gained in stability is a bias towards zero.

    Attributes
    ----------
    phi : float, optional
        Size of the ridge, zero for none. By default it is chosen as Wu and others (2024) recommend (``phi_cand=NULL``
        of the R package mr.divw): from {0} and exp(j / 2 - strength), j = 0..34, the one with the smallest mean of
        r^2 / (t2 + e), e the sampling variance of the residual r and t2 = max(sum w (r^2 - e) / sum w, 0).

    Notes
    -----
    C = sum f_k V_u,k / K, the mean error, so that phi and the strength, the square root of K times the smallest ratio
    of A to K C, do not depend on units; with errors of unit variance this is their (A + phi A^-1)^-1. The
    influence includes that of A inside the ridge: A_phi^-1 (s_k - A_k b + phi C A^-1 A_k A^-1 C b).
    phi counts as fixed.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> AdjustedDebiased().solve(rows).coefficients.round(3).tolist()
    [-0.888, 2.098]
    >>> AdjustedDebiased(phi=1e4).solve(rows).coefficients.round(3).tolist()
    [-0.608, 4.159]
    """

    phi: float | None = None

    @property
    def name(self) -> str:
        """Name in results, options included."""
        return "adjusted_debiased" if self.phi is None else f"adjusted_debiased({self.phi:g})"

    def solve(self, rows: BetweenRows) -> BetweenFit:
        """Coefficients and their covariance.

        Raises
        ------
        TooFewSitesError
            No more rows than coefficients; or, with correlated rows, no more sites.
        DataError
            ``phi`` is negative or not finite.
        """
        if self.phi is not None and not (np.isfinite(self.phi) and self.phi >= 0):
            raise DataError(f"phi={self.phi!r} must be zero or a positive number.")
        check_rows(rows, "AdjustedDebiased")
        parts = corrected(rows, 1.0 / rows.itt_variance)
        if parts.why_not is not None:
            return BetweenFit.without_estimate(self.name, rows, parts.why_not)
        phi = _chosen_phi(rows, parts) if self.phi is None else self.phi
        mean_noise = parts.noise.sum(axis=0)[1:, 1:] / rows.n_rows
        inverse = _inverse(parts.net[1:, 1:])
        ridge = _ridged(parts, phi)
        beta = np.asarray(np.linalg.solve(ridge, parts.net[1:, 0]), dtype=np.float64)
        through = mean_noise @ inverse
        x = parts.centred[:, 1:]
        each = parts.w[:, None, None] * x[:, :, None] * x[:, None, :] - parts.noise[:, 1:, 1:]
        moved = np.einsum("ij,kjl,l->ki", through, each, inverse @ mean_noise @ beta)
        of_beta: Array = (parts.scores(beta) + phi * moved) @ _inverse(ridge)
        note = f"Ridge phi = {phi:.3g}." if phi > 0 else "Ridge phi = 0: the debiased estimator itself."
        return fit_of(rows, parts, beta, of_beta, method=self.name, factor=small_sample(rows), notes=(note,))


def _inverse(matrix: Array) -> Array:
    """Inverse after scaling the diagonal to one, so that units of very different size do no harm."""
    size = np.sqrt(np.diag(matrix))
    return np.asarray(np.linalg.inv(matrix / np.outer(size, size)) / np.outer(size, size))


def _solved(parts: Corrected) -> tuple[Array, Array]:
    """Slopes and the influence of the rows on them."""
    inverse = _inverse(parts.net[1:, 1:])
    beta = inverse @ parts.net[1:, 0]
    return beta, parts.scores(beta) @ inverse


def _residual_variance(rows: BetweenRows, beta: Array) -> Array:
    """(K,) sampling variance of itt - b'compliance."""
    both = np.concatenate([[1.0], -beta])
    out: Array = np.einsum("i,kij,j->k", both, rows.cov, both)
    return out


def _random_weights(rows: BetweenRows, beta: Array) -> tuple[Array, float]:
    e = _residual_variance(rows, beta)
    size = rows.itt_variance + np.einsum("p,kpp->k", beta**2, rows.noise)
    if (e <= 1e-12 * size).any():
        raise DataError(
            "A row's itt and compliances are so correlated that itt - b'compliance has no sampling variance; weights "
            "'random' would be infinite. Use weights='equal'."
        )
    t2, w, *_ = paule_mandel(rows.y - rows.x @ beta, e, rows.z, df=rows.n_rows - len(rows.terms))
    return w, float(t2)


def _ridged(parts: Corrected, phi: float) -> Array:
    """A + phi C A^-1 C."""
    a, c = parts.net[1:, 1:], parts.noise.sum(axis=0)[1:, 1:] / len(parts.w)
    return np.asarray(a + phi * c @ _inverse(a) @ c)


def _chosen_phi(rows: BetweenRows, parts: Corrected) -> float:
    total = parts.noise.sum(axis=0)[1:, 1:]
    largest = float(np.abs(np.linalg.eigvals(_inverse(parts.net[1:, 1:]) @ total)).max())
    if largest <= 0.0:  # no sampling error: nothing to steady
        return 0.0
    strength = np.sqrt(rows.n_rows) / largest
    candidates = np.concatenate([[0.0], np.exp(np.arange(35) / 2.0 - strength)])
    losses = []
    for phi in candidates:
        beta = np.asarray(np.linalg.solve(_ridged(parts, float(phi)), parts.net[1:, 0]), dtype=np.float64)
        r2 = (parts.centred[:, 0] - parts.centred[:, 1:] @ beta) ** 2
        e = _residual_variance(rows, beta)
        t2 = max(float(parts.w @ (r2 - e) / parts.w.sum()), 0.0)
        losses.append(float(np.mean(r2 / (t2 + e))))
    return float(candidates[int(np.argmin(losses))])


def _as_printed(rows: BetweenRows, method: BCES) -> BetweenFit:
    """Fu's eq. 23 with the variance of mechte 0.0.0.9000."""
    if method.ddof != "unbiased" or not method.cov_uv:
        raise DesignError("BCES(as_printed=True) fixes ddof and cov_uv; leave them out.")
    if len(rows.mediators) > 1 or rows.exogenous != ("direct_effect",) or rows.cross is not None:
        raise DesignError(
            "BCES(as_printed=True) is for one mediator, a free direct effect, no site covariates and uncorrelated "
            "rows, which is all the printed formula covers. Use BCES()."
        )
    warnings.warn(_AS_PRINTED, MsmmivWarning, stacklevel=3)
    x, y, a, k = rows.x[:, 0], rows.y, rows.noise[:, 0, 0], rows.n_rows
    away = x - x.mean()
    denominator = float(away @ away - a.sum())
    slope = float(away @ y) / denominator
    intercept = float(y.mean() - slope * x.mean())
    notes = [_AS_PRINTED]
    if denominator <= 0:
        notes.append(f"The denominator is {denominator:.4g}: the slope has no meaning.")
    away_error = a - a.mean()
    if (np.abs(away_error) <= 1e-12 * a.mean()).any():
        covariance = np.full((2, 2), np.nan)
        notes.append("The printed variance divides by zero: a row's error variance equals the mean one.")
    else:
        xi = (away * (y - slope * x - intercept) + slope * a) / away_error
        zeta = y - slope * x - x.mean() * xi
        covariance = np.cov(np.stack([xi, zeta]), ddof=0) / k
    return BetweenFit(
        method.name,
        rows.terms,
        frozen([slope, intercept]),
        frozen(covariance),
        float("inf"),
        notes=tuple(notes),
    )
