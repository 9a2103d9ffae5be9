"""How strongly compliance and effect would have to go together inside sites to overturn an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.sensitivity import direct_effect_line
from msmmiv.diagnose.sensitivity_parts import OriginEstimator, as_numbers, context, deviations
from msmmiv.errors import DataError
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["WithinSiteCovariance", "within_site_covariance"]


@dataclass(frozen=True, eq=False)
class WithinSiteCovariance:
    """How strongly compliance and effect of the people in a site would have to go together to explain an estimate.

    Attributes
    ----------
    mediators : tuple of str
    needed : (P,) array
        Sum over mediators of Cov_s(Gamma, Delta), the same in all sites, at which the coefficient is zero: in units of
        the outcome.
    needed_limit : (P,) array
        Likewise for zero in the interval.
    compliance_sd, effect_sd : (P,) arrays
        Standard deviations over the people in a site, where given; else NaN.
    level : float
    status : str or None
    """

    mediators: tuple[str, ...]
    needed: Array
    needed_limit: Array
    compliance_sd: Array
    effect_sd: Array
    level: float
    status: str | None

    @property
    def correlation(self) -> Array:
        """(P,) correlation that the covariance amounts to if it belongs to this mediator; above one: none is enough."""
        return self.needed / (self.compliance_sd * self.effect_sd)

    def product(self, correlation: float) -> Array:
        """(P,) product of the two standard deviations with which this correlation brings the coefficient to zero."""
        rho = as_numbers(correlation)
        if rho.shape != () or not 0.0 < abs(rho) <= 1.0:
            raise DataError(f"correlation={correlation!r} must lie between -1 and 1, and not be zero.")
        return np.abs(self.needed) / abs(correlation)

    def to_frame(self) -> pd.DataFrame:
        """One row per mediator: covariances, and the products of deviations for correlations 0.1, 0.3 and 0.5."""
        out = {"mediator": list(self.mediators), "needed": self.needed, "needed_limit": self.needed_limit}
        out |= {f"sd_product_{r:g}": self.product(r) for r in (0.1, 0.3, 0.5)}
        return pd.DataFrame({**out, "correlation": self.correlation})

    @property
    def sentence(self) -> str:
        """The figures in words."""
        if self.status:
            return f"There is no figure: {self.status}."
        told = []
        for name, c, rho, sd in zip(
            self.mediators, self.needed, self.correlation, self.product(0.3), strict=True
        ):
            how = (
                f"a correlation of {rho:.2g}" + ("" if abs(rho) <= 1 else ", more than there can be")
                if np.isfinite(rho)
                else f"with a correlation of 0.3, standard deviations whose product is {sd:.3g}"
            )
            told.append(
                f"The coefficient of {name} is zero if inside sites the covariance of compliance and effect is "
                f"{c:.3g}: {how}"
            )
        return ". ".join(told) + "."

    def __str__(self) -> str:
        return f"Sensitivity to compliance and effect going together inside sites\n{self.sentence}"

    def evidence(self) -> Evidence:
        """Context for assumption (vii.a)."""
        name = "sensitivity.within_site_covariance"
        return context(
            name,
            "the covariance inside sites cannot be estimated; this says how large it must be",
            self.sentence,
        )


def within_site_covariance(
    effects: SiteEffects,
    *,
    compliance_sd: float | Sequence[float] | None = None,
    effect_sd: float | Sequence[float] | None = None,
    estimator: OriginEstimator = "ujive",
    level: float = 0.95,
) -> WithinSiteCovariance:
    """How far assumption (vii.a) would have to fail for an estimate to be nothing.

    Use it where people who respond more to assignment may also gain more from the mediator.

    Parameters
    ----------
    effects : SiteEffects
    compliance_sd, effect_sd : float or sequence of float, optional
        Standard deviations of person compliances and effects inside a site, one per mediator. No data tell them.
    estimator, level
        As in `direct_effect_line`.

    Returns
    -------
    WithinSiteCovariance

    Raises
    ------
    TooFewSitesError, MomentsInsufficient
    DataError
        Standard deviations that are not positive, or not one per mediator.

    Notes
    -----
    A site's itt gains c_s = sum_p Cov_s(Gamma_p, Delta_p), and the coefficients A^-1 sum_s h_s c_s: what a direct
    effect of c_s would do. The figures are therefore those of `direct_effect_line`.

    References
    ----------
    Reardon & Raudenbush (2013), Under what assumptions do site-by-treatment instruments identify average causal
    effects?, Sociological Methods & Research 42: 143-163.

    Examples
    --------
    >>> import msmmiv as mm
    >>> found = within_site_covariance(mm.SiteEffects.from_moments(mm.data.star()), compliance_sd=3.0, effect_sd=1.0)
    >>> found.needed.round(2).tolist(), found.correlation.round(2).tolist()
    ([8.67], [2.89])
    """
    line = direct_effect_line(effects, estimator=estimator, level=level)
    sds = [_deviations(given, len(line.mediators), n) for n, given in
           (("compliance_sd", compliance_sd), ("effect_sd", effect_sd))]  # fmt: skip
    return WithinSiteCovariance(line.mediators, line.flip, line.touch, sds[0], sds[1], level, line.status)


def _deviations(given: float | Sequence[float] | None, p: int, name: str) -> Array:
    return frozen(np.full(p, np.nan) if given is None else deviations(given, p, name))
