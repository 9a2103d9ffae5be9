"""Least squares over the rows, which takes the compliances as known: references, not recommendations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msmmiv.errors import MomentsInsufficient, RankDeficientError, check_choice
from msmmiv.estimate.between.normal_equations import check_rows, degrees_of_freedom, with_common
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.inference.meta import Tau2Method, meta_regression
from msmmiv.linalg import Array, frozen, gram_solve

__all__ = ["KnappHartung", "Ols"]

_ATTENUATED = (
    "For reference only: the compliances count as known. Their sampling errors pull the slope towards zero, and "
    "Cov(itt, compliance) pulls it towards the regression of the errors on each other."
)


@dataclass(frozen=True)
class Ols:
    """Least squares of itt on compliances (Fu 2023, Proposition 1): attenuated, for reference.

    Notes
    -----
    Standard errors are HC3; where rows of a site are correlated they are clustered by site, CR3:
    (D'D)^-1 sum_g D_g'(I - H_gg)^-1 e_g e_g'(I - H_gg)^-1 D_g (D'D)^-1 with D = (X, Z), without a factor (HC3 with
    sites of one row). t with K - P - q degrees of freedom, at most sites less one when clustered.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> Ols().solve(rows).coefficients.round(3).tolist()
    [0.154, 9.335]
    """

    @property
    def name(self) -> str:
        """Name in results, options included."""
        return "ols"

    def solve(self, rows: BetweenRows) -> BetweenFit:
        """Coefficients and their covariance.

        Raises
        ------
        TooFewSitesError
            No more rows than coefficients; or, with correlated rows, no more sites.
        RankDeficientError
            Regressors that are dependent.
        """
        check_rows(rows, "Ols")
        d = np.column_stack([rows.x, rows.z])
        try:
            inverse = gram_solve(d.T @ d, np.eye(d.shape[1]))
        except np.linalg.LinAlgError:
            raise RankDeficientError(
                f"The regressors {', '.join(rows.terms)} are linearly dependent across rows."
            ) from None
        coefficients = inverse @ (d.T @ rows.y)
        groups = np.arange(rows.n_rows) if rows.cross is None else rows.site
        covariance = _clustered(d, rows.y - d @ coefficients, inverse, groups)
        notes: tuple[str, ...] = (_ATTENUATED,)
        if np.isnan(covariance).any():
            notes = (*notes, "No standard error: a row, or the rows of a site, alone carry a coefficient.")
        return BetweenFit(
            method=self.name,
            terms=rows.terms,
            coefficients=frozen(coefficients),
            covariance=frozen(with_common(rows, covariance, coefficients[: rows.x.shape[1]])),
            df=float(degrees_of_freedom(rows)),
            notes=notes,
        )


@dataclass(frozen=True)
class KnappHartung:
    """Random-effects meta-regression of itt on compliances: attenuated like `Ols`, but weighted, for reference.

    Attributes
    ----------
    tau2 : {"REML", "PM", "DL", "HE", "FE"}
        Estimator of the variance of direct effects, or none ("FE").

    Notes
    -----
    Weights 1 / (tau2 + Var(itt)); the covariance is scaled by the weighted residual variance (Knapp and Hartung
    2003) and referred to t with K - P - q degrees of freedom. The numbers are those of R's
    ``metafor::rma(itt, sei, mods, test="knha")``, and with ``FE`` those of ``lm`` with weights, which Mendelian
    randomization calls MR-Egger (with a direct effect) and multivariable IVW (without).

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> KnappHartung().solve(rows).coefficients.round(3).tolist()
    [0.358, 11.258]
    """

    tau2: Tau2Method = "REML"

    @property
    def name(self) -> str:
        """Name in results, options included."""
        return "meta_regression" if self.tau2 == "REML" else f"meta_regression({self.tau2})"

    def solve(self, rows: BetweenRows) -> BetweenFit:
        """Coefficients and their covariance.

        Raises
        ------
        MomentsInsufficient
            Correlated rows.
        TooFewSitesError
            No more rows than coefficients.
        RankDeficientError
            Regressors that are dependent.
        """
        check_choice(self.tau2, Tau2Method, "tau2")
        if rows.cross is not None:
            raise MomentsInsufficient(
                "KnappHartung takes rows as independent, but arms of one site share its controls. Ols clusters by "
                "site; BCES, CorrectedNormal, AdjustedDebiased and SIMEX use the covariances of the rows."
            )
        check_rows(rows, "KnappHartung")
        both = np.column_stack([rows.x, rows.z])
        found = meta_regression(rows.y, v=rows.itt_variance, x=both, tau2=self.tau2, test="knapp-hartung")
        spread = f"Direct effects vary with variance {found.tau2:.4g}" + (
            f" ({found.status})." if found.status else "."
        )
        return BetweenFit(
            method=self.name,
            terms=rows.terms,
            coefficients=found.coefficients,
            covariance=frozen(
                with_common(rows, found.cov, np.asarray(found.coefficients[: rows.x.shape[1]]))
            ),
            df=float(found.df),
            notes=(_ATTENUATED,) if self.tau2 == "FE" else (_ATTENUATED, spread),
        )


def _clustered(d: Array, e: Array, inverse: Array, groups: npt.NDArray[np.signedinteger]) -> Array:
    """CR3 (HC3 with groups of one); NaN where a group alone carries a coefficient."""
    size = d.shape[1]
    scores = np.empty((0, size))
    for g in np.unique(groups):
        own = groups == g
        d_g = d[own]
        keep = np.eye(len(d_g)) - d_g @ inverse @ d_g.T
        if np.linalg.eigvalsh(keep)[0] <= 1e-10:
            return np.full((size, size), np.nan)
        scores = np.vstack([scores, np.linalg.solve(keep, e[own]) @ d_g])
    return np.asarray(inverse @ (scores.T @ scores) @ inverse)
