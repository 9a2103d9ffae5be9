"""The empirical-Bayes score as an estimator: effects at which the scores of all mediators are zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.estimate.between.eb_many import Blocks, regression_at, solve_scores
from msmmiv.estimate.between.rows import DIRECT, BetweenFit, BetweenRows
from msmmiv.linalg import frozen

__all__ = ["EbScore"]

#: Largest t ratio of a score that still counts as zero.
_SOLVED = 1e-3


@dataclass(frozen=True)
class EbScore:
    """Solve the empirical-Bayes scores of all mediators.

    Use it with several mediators, or where rows share people; its confidence sets are those of `SlopeTest`, which
    hold with weak compliances where the Wald intervals of this estimator do not.

    Notes
    -----
    Standard errors are HC3 (CR3 by site where rows share people) of the regression of itt - compliances x effects on
    the shrunken compliances: their expected product with the compliances is their own square.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> EbScore().solve(rows).coefficients.round(2).tolist()
    [-0.66, 3.78]
    """

    @property
    def name(self) -> str:
        """Name in results."""
        return "eb_score"

    def solve(self, rows: BetweenRows) -> BetweenFit:
        """Effects of the mediators, then coefficients of the regressors without error."""
        blocks = Blocks(rows)
        effects, left = solve_scores(blocks)
        if not left <= _SOLVED:
            return BetweenFit.without_estimate(
                self.name, rows, f"the scores have no common zero (the smallest left is t = {left:.2g})"
            )
        coef, influence, slopes = regression_at(blocks, effects)
        q, p = rows.z.shape[1], len(rows.mediators)
        # A step of the effects moves the intercepts by minus the regression of the compliances on z.
        moved = np.eye(q + p)
        moved[:q, q:] = -slopes
        cov = moved @ (influence.T @ influence) @ moved.T
        order = [*range(q, q + p), *range(q)]
        cov = cov[np.ix_(order, order)]
        if DIRECT in rows.exogenous:
            contrast = np.concatenate([[1.0], -effects])
            at = p + rows.exogenous.index(DIRECT)
            cov[at, at] += contrast @ rows.common @ contrast
        return BetweenFit(
            self.name,
            rows.terms,
            frozen(np.concatenate([effects, coef[:q]])),
            frozen(cov),
            float(max(rows.n_sites - q - p, 1)),
            None,
            (),
        )
