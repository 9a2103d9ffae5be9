"""Restricted wild bootstrap of scores: sites (or clusters) keep their scores and change sign at random.

The scores come from `SiteEquations.profile`, so the null is imposed, the other coefficients are estimated again
in every draw, and nothing is refitted. For one coefficient the numerator of a draw is linear in the value
tested and its variance quadratic, so p-values at all values of the line cost one pass over the draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msmmiv.errors import DataError
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.tests import NotApplicable
from msmmiv.inference.wild_draws import WildWeights, plan_draws
from msmmiv.inference.wild_inversion import TIE, p_value_steps
from msmmiv.linalg import Array

__all__ = ["WildTest", "WildWeights", "wild_set", "wild_test"]


@dataclass(frozen=True)
class WildTest:
    """A wild bootstrap test.

    Attributes
    ----------
    stat : float
        Square of the score statistic (one restriction) or quadratic form, not centred: between 0 and G.
    pvalue : float
        Share of draws with a statistic at least as large; with random draws (1 + number) / (1 + draws).
    pvalue_equal_tailed : float
        For one restriction, twice the smaller of the shares of signed statistics at least as large and at
        most as large; NaN otherwise.
    smallest_pvalue : float
        The smallest p-value that these draws could give.
    draws : int
    weights : {"rademacher", "webb", "mammen"}
    enumerated : bool
        All sign vectors were used, the identity among them: no randomness.
    seed : int or None
        None when enumerated.
    null : tuple of (str, float)
    """

    stat: float
    pvalue: float
    pvalue_equal_tailed: float
    smallest_pvalue: float
    draws: int
    weights: WildWeights
    enumerated: bool
    seed: int | None
    null: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        words = ", ".join(f"{term} = {value:g}" for term, value in self.null)
        how = "all sign vectors" if self.enumerated else f"{self.draws:,} draws, seed {self.seed}"
        return f"wild bootstrap ({self.weights}, {how}): p = {self.pvalue:.4g} (H0: {words})"


def wild_test(
    equations: SiteEquations,
    null: Mapping[str, float],
    *,
    weights: WildWeights | None = None,
    draws: int = 9999,
    seed: int | None = None,
) -> WildTest | NotApplicable:
    """Restricted wild bootstrap test of values of one or more coefficients.

    For few sites or clusters with scores that are not normal. With Rademacher weights and no other coefficient in
    the model it is an exact permutation test wherever each score is symmetric around zero under the null.

    Parameters
    ----------
    equations : SiteEquations
    null : mapping from term to value
    weights : {"rademacher", "webb", "mammen"}, optional
        Default Rademacher signs, all of them, with up to 12 blocks, else Webb's six points. Rademacher signs are
        enumerated whenever there are up to 12 blocks.
    draws : int
        Number of random draws; not used when signs are enumerated.
    seed : int, optional
        Drawn and kept in the result when it is not given.

    Returns
    -------
    WildTest or NotApplicable

    Raises
    ------
    TooFewSitesError
        G <= k.

    Notes
    -----
    With effective scores psi_g(d) at the null, weights w_g and F_g the feedback of the r other coefficients:
    ``psi*_g = w_g psi_g - F_g sum_h w_h psi_{-,h}`` and ``stat* = S*' (sum_g psi*_g psi*_g')^-1 S*`` with S* the sum.
    The statistic is that of the score test up to a monotone transformation, so p-values are the same. Sources:
    Cameron, Gelbach & Miller (2008); Kline & Santos (2012) for scores; Webb (2023) for six points; Davidson &
    Flachaire (2008) for imposing the null.

    Examples
    --------
    >>> blocks = np.array([[[1.0, 2.0]], [[2.0, 2.5]], [[1.5, 3.0]], [[2.5, 3.0]], [[2.0, 2.0]], [[1.8, 2.1]]])
    >>> test = wild_test(SiteEquations(blocks, ("m",)), {"m": 0.0})
    >>> print(test)
    wild bootstrap (rademacher, all sign vectors): p = 0.03125 (H0: m = 0)
    """
    plan = plan_draws(equations.groups, len(equations.terms), weights, draws, seed)
    values = np.array([float(v) for v in null.values()])
    if not np.isfinite(values).all():
        raise DataError(f"The values of a null hypothesis are finite numbers; got {dict(null)!r}.")
    profile = equations.profile(null)
    if isinstance(profile, str):
        return NotApplicable("wild bootstrap", profile)
    psi = profile.alpha - profile.eta @ values
    size = np.sqrt((psi**2).sum(axis=0))
    if (size == 0).any():
        return NotApplicable("wild bootstrap", "all effective scores are zero")
    nuisance = profile.nuisance_alpha - profile.nuisance_eta @ values
    psi, feedback = psi / size, profile.feedback / size[:, None]
    observed = _quadratic_form(psi.sum(axis=0)[None], (psi.T @ psi)[None])[0]
    if np.isnan(observed):
        return NotApplicable(
            "wild bootstrap", "the effective scores of the restrictions are linearly dependent"
        )
    signed = np.sign(psi.sum()) * np.sqrt(observed)
    larger = above = below = 0
    for w in plan.chunks():
        total = w @ psi
        stat = _quadratic_form(total, _spread(w, psi, nuisance, feedback))
        larger += int((~(stat < observed * (1.0 - TIE))).sum())
        if len(values) == 1:
            root = np.sign(total[:, 0]) * np.sqrt(stat)
            slack = TIE * abs(signed)
            above += int((~(root < signed - slack)).sum())
            below += int((~(root > signed + slack)).sum())
    tails = min(1.0, 2.0 * plan.share(min(above, below))) if len(values) == 1 else float("nan")
    return WildTest(
        stat=float(observed), pvalue=plan.share(larger), pvalue_equal_tailed=tails,
        smallest_pvalue=plan.smallest, draws=plan.draws, weights=plan.weights, enumerated=plan.enumerated,
        seed=plan.seed, null=tuple((term, float(value)) for term, value in null.items()),
    )  # fmt: skip


def wild_set(
    equations: SiteEquations,
    term: str,
    *,
    level: float = 0.95,
    weights: WildWeights | None = None,
    draws: int = 9999,
    seed: int | None = None,
) -> ConfidenceSet | NotApplicable:
    """All values of a coefficient that `wild_test` does not reject, with the same draws at every value.

    The set is exact for its draws, not a search: between two roots of a polynomial of degree four a draw is
    either at least as extreme as the data or not, so the p-value is a step function with known steps.

    Parameters
    ----------
    equations : SiteEquations
    term : str
    level : float
    weights, draws, seed
        As in `wild_test`.

    Returns
    -------
    ConfidenceSet or NotApplicable
        The whole line, with a note in ``method``, where no p-value can be as small as 1 - level.

    Raises
    ------
    TooFewSitesError
        G <= k.

    Examples
    --------
    >>> blocks = np.array([[[1.0, 2.0]], [[2.0, 2.5]], [[1.5, 3.0]], [[2.5, 3.0]], [[2.0, 2.0]], [[1.8, 2.1]]])
    >>> print(wild_set(SiteEquations(blocks, ("m",)), "m"))
    [0.5, 1]
    """
    if not 0.0 < level < 1.0:
        raise DataError(f"A confidence level lies between 0 and 1; got {level!r}.")
    plan = plan_draws(equations.groups, len(equations.terms), weights, draws, seed)
    profile = equations.profile(term)
    if isinstance(profile, str):
        return NotApplicable(f"wild bootstrap set of {term}", profile)
    method = f"wild bootstrap of site scores ({plan.words})"
    alpha = 1.0 - level
    if plan.smallest > alpha * (1.0 + 1e-12):
        note = f"{method}; no p-value can be below {plan.smallest:.3g}"
        return ConfidenceSet(((-np.inf, np.inf),), level, note, term)
    steps = p_value_steps(plan, profile)
    if steps is None:
        return NotApplicable(f"wild bootstrap set of {term}", "all effective scores are zero at every value")
    edges, number = steps
    kept = np.concatenate([[False], plan.shares(number) > alpha * (1.0 + 1e-12), [False]])
    ends = np.concatenate([[-np.inf], edges, [np.inf]])
    begin, end = np.flatnonzero(kept[1:] & ~kept[:-1]), np.flatnonzero(kept[:-1] & ~kept[1:])
    pieces = zip(ends[begin].tolist(), ends[end].tolist(), strict=True)
    return ConfidenceSet.from_pieces(pieces, level=level, method=method, term=term)


def _spread(w: Array, psi: Array, nuisance: Array, feedback: Array) -> Array:
    """(n, q, q) sums of products of the bootstrapped effective scores."""
    groups, q = psi.shape
    products = psi[:, :, None] * psi[:, None, :]
    out = (w**2 @ products.reshape(groups, -1)).reshape(-1, q, q)
    if nuisance.shape[1]:
        shift = w @ nuisance
        crossed = (w @ (psi[:, :, None, None] * feedback[:, None]).reshape(groups, -1)).reshape(
            len(w), q, q, -1
        )
        mixed = np.einsum("nabr,nr->nab", crossed, shift)
        squares = np.einsum("gar,gbs->arbs", feedback, feedback)
        half = np.einsum("nr,arbs->nabs", shift, squares)
        out = out - mixed - np.swapaxes(mixed, 1, 2) + np.einsum("nabs,ns->nab", half, shift)
    return out


def _quadratic_form(total: Array, spread: Array) -> Array:
    """S' Q^-1 S; infinite where Q is singular and S is not zero."""
    if total.shape[1] == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Array = total[:, 0] ** 2 / spread[:, 0, 0]
        return out
    values, vectors = np.linalg.eigh(spread)
    turned = np.einsum("nij,ni->nj", vectors, total)
    fine = values > 1e-12 * values[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(fine, turned**2 / values, np.where(np.abs(turned) > 1e-9, np.inf, 0.0))
    form: Array = terms.sum(axis=1)
    return form
