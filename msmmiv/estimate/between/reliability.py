"""Least squares divided by the reliability of the compliances (Fu 2023, Proposition 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from msmmiv.design import Label
from msmmiv.errors import DesignError, MomentsInsufficient, RankDeficientError, check_choice, listing
from msmmiv.estimate.between.normal_equations import check_rows, corrected, with_common
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.inference.meta import meta_regression
from msmmiv.linalg import Array, frozen

__all__ = ["LambdaCorrected"]

ComplianceVariance: TypeAlias = Literal["DL", "PM", "REML", "HE"]


@dataclass(frozen=True)
class LambdaCorrected:
    """Least squares without Cov(itt, compliance), divided by the share of the spread of compliance that is real.

    For one mediator and uncorrelated rows. The variance of true compliances can be estimated with weights, which helps
    when the rows' precisions are very unequal.

    Attributes
    ----------
    variance : {"DL", "PM", "REML", "HE"}
        Estimator of the variance of true compliances: DerSimonian-Laird, Paule-Mandel, restricted likelihood, Hedges.

    Notes
    -----
    b = (S_xy - c) / S_xx / lambda with lambda = s2 / (s2 + a); S are residual (co)variances given z with divisor K - q,
    and a, c the mean sampling variance and covariance, weighted by 1 - h_k, h_k the leverage of a row in the
    regression on z. With "HE", s2 = S_xx - a, so that lambda = (S_xx - a) / S_xx and b = (S_xy - c) / (S_xx - a):
    `BCES` exactly, **whatever the covariances are**, as long as s2 is positive. The others differ from it.

    Standard errors leave out one row at a time and repeat everything: (K - 1) / K sum (t_(-k) - mean)^2.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> LambdaCorrected("DL").solve(rows).coefficients.round(3).tolist()
    [-1.253, -0.875]
    """

    variance: ComplianceVariance = "DL"

    @property
    def name(self) -> str:
        """Name in results, options included."""
        return f"lambda_corrected({self.variance})"

    def solve(self, rows: BetweenRows) -> BetweenFit:
        """Coefficients and their jackknife covariance.

        Raises
        ------
        DesignError
            More than one mediator, or a direct effect fixed at zero.
        MomentsInsufficient
            Correlated rows.
        TooFewSitesError
            Too few rows to leave one out.
        """
        check_choice(self.variance, ComplianceVariance, "variance")
        if len(rows.mediators) > 1:
            raise DesignError(
                f"LambdaCorrected is for one mediator; there are {len(rows.mediators)}. Use CorrectedNormal()."
            )
        if not rows.has_direct_effect:
            raise DesignError(
                "LambdaCorrected needs a free direct effect: its reliability is about the variance of compliances "
                "around their mean. Use CorrectedNormal() through the origin."
            )
        if rows.cross is not None:
            raise MomentsInsufficient(
                "LambdaCorrected takes rows as independent, but arms of one site share its controls. BCES, "
                "CorrectedNormal, AdjustedDebiased and SIMEX use their covariances."
            )
        check_rows(rows, "LambdaCorrected", spare=2)
        estimate = _estimate(rows, self.variance)
        if estimate is None:
            spread = float(np.mean(corrected(rows, np.ones(rows.n_rows)).noise[:, 1, 1]))
            why = (
                f"denominator not positive: the variance of true compliances ({self.variance}) is zero; the mean "
                f"sampling variance is {spread:.4g}"
            )
            return BetweenFit.without_estimate(self.name, rows, why)
        covariance, lost = _jackknife(rows, self.variance)
        notes: tuple[str, ...] = ()
        if lost:
            notes = (*notes, f"No standard error: nothing is left to regress on without {listing(lost)}.")
        return BetweenFit(
            method=self.name,
            terms=rows.terms,
            coefficients=frozen(estimate),
            covariance=frozen(with_common(rows, covariance, estimate[:1])),
            df=float(rows.n_rows - len(rows.terms)),
            notes=notes,
        )


def _estimate(rows: BetweenRows, variance: ComplianceVariance) -> Array | None:
    """Slope and coefficients of z; None when compliances vary no more than noise."""
    parts = corrected(rows, np.ones(rows.n_rows))
    free = rows.n_rows - rows.z.shape[1]
    (_, s_xy), (_, s_xx) = parts.observed / free
    (_, c), (_, a) = parts.noise.sum(axis=0) / free
    s2 = _true_variance(rows, variance)
    if s2 <= 1e-10 * s_xx:
        return None
    reliability = s2 / (s2 + a)
    return parts.coefficients(np.array([(s_xy - c) / s_xx / reliability]))


def _true_variance(rows: BetweenRows, variance: ComplianceVariance) -> float:
    """Variance of compliances around their regression on z."""
    return meta_regression(rows.x[:, 0], v=rows.noise[:, 0, 0], x=rows.z, tau2=variance).tau2


def _jackknife(rows: BetweenRows, variance: ComplianceVariance) -> tuple[Array, list[Label]]:
    """Covariance from leaving out each row, and the rows without which there is no estimate."""
    size = len(rows.terms)
    found: list[Array] = []
    lost: list[Label] = []
    for k in range(rows.n_rows):
        keep = np.arange(rows.n_rows) != k
        try:
            one = _estimate(rows.take(keep), variance)
        except RankDeficientError:  # a covariate that only this row tells from the others
            one = None
        if one is None:
            lost.append(rows.labels[k])
        else:
            found.append(one)
    if lost:
        return np.full((size, size), np.nan), lost
    away: Array = np.array(found) - np.mean(found, axis=0)
    covariance: Array = (rows.n_rows - 1) / rows.n_rows * (away.T @ away)
    return covariance, lost
