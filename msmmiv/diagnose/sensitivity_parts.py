"""The sums over sites that all questions of sensitivity read: where the estimate is, and where an offset moves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from msmmiv.diagnose.evidence import Evidence
from msmmiv.errors import ChoiceError, DataError, TooFewSitesError, check_choice, count
from msmmiv.estimate.site_moments import corrected_inverse, site_rows, weighted_products, with_direct_effect
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects

__all__ = [
    "OriginEstimator",
    "Parts",
    "as_numbers",
    "check_effects",
    "context",
    "deviations",
    "one_number",
    "parts_of",
    "t_quantile",
]

#: Regression of itt on compliances through the origin: with the noise of compliances removed, or with it.
OriginEstimator: TypeAlias = Literal["ujive", "2sls"]


@dataclass(frozen=True, eq=False)
class Parts:
    """Estimate and the response of the estimate to a direct effect that all sites share.

    Attributes
    ----------
    mediators : tuple of str
    n_sites : int
        With estimates.
    gram : (K, P, P) array
        What each site adds to the matrix of the estimating equations.
    cross, offset : (K, P) arrays
        What each site adds to their right side, and what a direct effect of one would.
    own : (K, 2) array
        Weighted sums of itt and of ones, for the direct effect itself.
    inverse : (P, P) array
        NaN with a ``status``.
    status : str or None
    """

    mediators: tuple[str, ...]
    n_sites: int
    gram: Array
    cross: Array
    offset: Array
    own: Array
    inverse: Array
    status: str | None

    @property
    def df(self) -> int:
        """Sites less mediators."""
        return self.n_sites - len(self.mediators)

    @cached_property
    def estimate(self) -> Array:
        """(P,) coefficients through the origin."""
        return np.asarray(self.inverse @ self.cross.sum(axis=0))

    @cached_property
    def slope(self) -> Array:
        """(P,) how much lower coefficients are for each unit of a direct effect in all sites."""
        return np.asarray(self.inverse @ self.offset.sum(axis=0))

    @cached_property
    def influence(self) -> tuple[Array, Array]:
        """(K, P) influences of the sites on `estimate` and on `slope`."""
        first = (self.cross - self.gram @ self.estimate) @ self.inverse.T
        return first, (self.offset - self.gram @ self.slope) @ self.inverse.T

    @cached_property
    def spread(self) -> Array:
        """(2, 2, P, P) joint covariance of `estimate` and `slope`, sites as sampled units."""
        both = np.stack(self.influence)
        factor = self.n_sites / self.df if self.df > 0 else float("nan")
        return np.asarray(factor * np.einsum("akp,bkq->abpq", both, both))

    @cached_property
    def free(self) -> tuple[float, float]:
        """The direct effect when it is estimated, and its standard error; NaN where sites do not tell."""
        total = self.own.sum(axis=0)
        across = self.offset.sum(axis=0)
        left = float(total[1] - across @ self.slope)
        if self.status or self.df < 2 or not left > 1e-10 * total[1]:
            return float("nan"), float("nan")
        found = float(total[0] - across @ self.estimate) / left
        b = self.estimate - found * self.slope
        score = self.own[:, 0] - self.offset @ b - found * self.own[:, 1]
        mediator = self.cross - self.gram @ b - found * self.offset
        influence = (score - mediator @ self.slope) / left
        factor = self.n_sites / (self.df - 1)
        return found, float(np.sqrt(factor * (influence**2).sum()))


def parts_of(effects: SiteEffects, estimator: OriginEstimator) -> Parts:
    """The sums for these effects.

    Raises
    ------
    TooFewSitesError
        Fewer sites than mediators.
    MomentsInsufficient
        A site has no sampling covariance.
    """
    check_effects(effects)
    check_choice(estimator, OriginEstimator, "estimator")
    rows, p = site_rows(effects), len(effects.mediators)
    if rows.usable_sites < p:
        raise TooFewSitesError(
            f"{count(rows.usable_sites, 'usable site')} cannot identify {count(p, 'mediator')}: assumption (viii.b)."
        )
    observed, noise = weighted_products(with_direct_effect(effects), "precision")
    clean = observed - noise if estimator == "ujive" else observed
    inside = slice(1, 1 + p)
    inverse, left = corrected_inverse(
        clean[:, inside, inside].sum(axis=0), observed[:, inside, inside].sum(axis=0)
    )
    status = None
    if inverse is None:
        noisy = "denominator not positive: some combination of compliances is no more than noise"
        status = "compliances are in exact proportion, or zero" if left == 0.0 else noisy
    return Parts(
        effects.mediators, rows.usable_sites, clean[:, inside, inside], clean[:, inside, 0], clean[:, inside, -1],
        clean[:, -1][:, [0, -1]], np.full((p, p), np.nan) if inverse is None else inverse, status,
    )  # fmt: skip


def t_quantile(level: float, df: int) -> float:
    """Half-width of an interval in standard errors; NaN without degrees of freedom."""
    from scipy.special import stdtrit

    share = as_numbers(level)
    if share.shape != () or not 0.0 < share < 1.0:
        raise DataError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    return -float(stdtrit(df, (1.0 - level) / 2.0)) if df > 0 else float("nan")


def check_effects(effects: object) -> None:
    """Raise `ChoiceError` unless these are site effects; moments hold them, but not how noise is to be counted."""
    if not isinstance(effects, SiteEffects):
        raise ChoiceError(
            f"SiteEffects are needed, not {type(effects).__name__}. Make them with SiteEffects.from_moments(), or "
            "SiteEffects.from_table() from a published table."
        )


def as_numbers(value: object) -> Array:
    """What was given as floats of its shape; one NaN where it is no number, for the check of its range to refuse.

    Text that looks like a number is text, and True is no number, not even among others.
    """
    try:
        found = np.asarray(value)
    except ValueError:  # rows of unequal length
        found = np.asarray(None)
    parts = value if isinstance(value, Sequence) else ()
    if found.dtype.kind not in "iuf" or any(isinstance(part, bool) for part in parts):
        return np.asarray(np.nan)
    return found.astype(float)


def one_number(value: object, name: str, *, negative: bool = True) -> float:
    """The option as a float, or a `DataError` that says what it may be."""
    number = as_numbers(value)
    if number.shape != () or not np.isfinite(number) or (number < 0 and not negative):
        more = "" if negative else " and must not be negative"
        raise DataError(f"{name}={value!r} must be a number, such as 0.5{more}.")
    return float(number)


def deviations(given: float | Sequence[float], p: int, name: str) -> Array:
    """(P,) standard deviations from one for all mediators, or one for each."""
    values = as_numbers(given)
    if values.shape not in {(), (p,)} or not (np.isfinite(values).all() and (values > 0).all()):
        raise DataError(f"{name}={given!r} needs one positive number, or one for each of {p} mediators.")
    return np.array(np.broadcast_to(values, (p,)))


def context(check: str, why: str, reading: str) -> Evidence:
    """A figure that is no test, to be read beside an assumption."""
    name = check.rpartition(".")[2].replace("_", " ")
    return Evidence(check, NotApplicable(name, f"not a test: {why}"), "context", reading)
