"""What a mediator that was left out would do, measured against those that were not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.sensitivity_parts import OriginEstimator, context, parts_of
from msmmiv.linalg import Array, frozen, gram_solve
from msmmiv.moments.effects import SiteEffects

__all__ = ["OmittedMediator", "omitted_mediator"]


@dataclass(frozen=True, eq=False)
class OmittedMediator:
    """Coefficients without each observed mediator in turn; ``str`` gives the page, `to_frame` the numbers.

    Attributes
    ----------
    mediators : tuple of str
    estimate : (P,) array
    slopes : (P, P) array
        Row q, column p: change of the compliance of q that goes with one unit of the compliance of p, the others held
        fixed. NaN on the diagonal.
    status : str or None
        Why there is no benchmark.
    """

    mediators: tuple[str, ...]
    estimate: Array
    slopes: Array
    status: str | None

    @property
    def change(self) -> Array:
        """(P, P) what leaving out mediator q (row) adds to the coefficient of p (column)."""
        return np.asarray(self.slopes * self.estimate[:, None])

    @property
    def needed(self) -> Array:
        """(P, P) effect of an unseen mediator, moved as q is, at which the coefficient of p is zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.estimate / self.slopes)

    def to_frame(self) -> pd.DataFrame:
        """One row per pair: ``omitted, mediator, estimate, without, change, slope, needed``."""
        p = len(self.mediators)
        rows = [
            (self.mediators[q], self.mediators[j], self.estimate[j], self.estimate[j] + self.change[q, j],
             self.change[q, j], self.slopes[q, j], self.needed[q, j])
            for q in range(p) for j in range(p) if q != j
        ]  # fmt: skip
        return pd.DataFrame(
            rows, columns=["omitted", "mediator", "estimate", "without", "change", "slope", "needed"]
        )

    @property
    def sentence(self) -> str:
        """The largest change, in words."""
        if self.status:
            return f"There is no benchmark: {self.status}."
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.where(
                np.eye(len(self.mediators), dtype=bool), -1.0, np.abs(self.change / self.estimate)
            )
        q, p = np.unravel_index(int(size.argmax()), size.shape)
        hidden, seen = self.mediators[q], self.mediators[p]
        return (
            f"Without {hidden} the coefficient of {seen} would be {self.estimate[p] + self.change[q, p]:.3g} instead "
            f"of {self.estimate[p]:.3g}, the largest change of all pairs. An unseen mediator that goes with {seen} as "
            f"{hidden} does would need an effect of {self.needed[q, p]:.3g} to account for all of it; that of "
            f"{hidden} is {self.estimate[q]:.3g}."
        )

    def __str__(self) -> str:
        return f"Sensitivity to a mediator left out\n{self.sentence}"

    def evidence(self) -> Evidence:
        """Context for assumption (ii)."""
        why = "a mediator that nobody measured cannot be tested for; observed ones show what it could do"
        return context("sensitivity.omitted_mediator", why, self.sentence)


def omitted_mediator(effects: SiteEffects, *, estimator: OriginEstimator = "ujive") -> OmittedMediator:
    """Leave out each mediator in turn, to see what one more could do that nobody measured.

    Use it with two or more mediators, where the list may be incomplete: an unmeasured mediator moves a coefficient by
    its effect times how its compliance goes with the measured one's over the sites.

    Parameters
    ----------
    effects : SiteEffects
    estimator : {"ujive", "2sls"}

    Returns
    -------
    OmittedMediator
        With a ``status`` with one mediator, or where there is no estimate.

    Raises
    ------
    TooFewSitesError, MomentsInsufficient
    ChoiceError
        An unknown estimator.

    Notes
    -----
    Leaving out q adds ``B^-1 b d_q`` to the other coefficients, with B the matrix of the estimating equations without
    row and column q, and b its column q: the sample form of ``A^-1 sum_s w g g_o d_o``, exact.

    References
    ----------
    Reardon & Raudenbush (2013), Under what assumptions do site-by-treatment instruments identify average causal
    effects?, Sociological Methods & Research 42: 143-163, on exclusion with several mediators. Cinelli & Hazlett
    (2020), Making sense of sensitivity: extending omitted variable bias, Journal of the Royal Statistical Society B
    82: 39-67, on observed covariates as benchmarks for unobserved ones.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.plan.simulate import simulate
    >>> found = omitted_mediator(simulate(mediators=2, sites=100, seed=1).effects)
    >>> found.to_frame()[["omitted", "mediator", "estimate", "without"]].round(2).values.tolist()
    [['m1', 'm2', 0.38, 0.77], ['m2', 'm1', 0.48, 0.6]]
    """
    parts = parts_of(effects, estimator)
    p = len(parts.mediators)
    slopes = np.full((p, p), np.nan)
    if p == 1 or parts.status:
        why = parts.status or (
            "there is one mediator, and none to leave out. One that is not measured moves the coefficient by its "
            "effect times the change of its compliance that goes with one unit of the compliance of "
            + parts.mediators[0]
        )
        return OmittedMediator(parts.mediators, frozen(parts.estimate), frozen(slopes), why)
    a = parts.gram.sum(axis=0)
    for q in range(p):
        rest = [j for j in range(p) if j != q]
        slopes[q, rest] = gram_solve(a[np.ix_(rest, rest)], a[rest, q])
    return OmittedMediator(parts.mediators, frozen(parts.estimate), frozen(slopes), None)
