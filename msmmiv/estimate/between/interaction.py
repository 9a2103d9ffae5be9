"""What indirect and direct effect mean when treatment and mediator interact, and the condition that needs."""

from __future__ import annotations

import numpy as np

from msmmiv.estimate.between.rows import BetweenRows, between_rows
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.linalg import frozen
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["READING", "baseline_rows", "baseline_test"]

READING = (
    "If treatment and mediator interact, the indirect effect is the total one (the mediator's effect among the "
    "treated) and the direct effect the pure one; the pure indirect effect is not identified. That needs the "
    "mediator's level among controls to be unrelated to compliance across sites."
)


def baseline_rows(moments: Moments, mediator: str) -> BetweenRows | NotApplicable:
    """Control means of the mediator on compliances, errors included: both come from the same controls.

    Notes
    -----
    compliance = treated mean - control mean, so that the errors of control mean and compliance have covariance
    -S0 / n0 even where true levels and compliances are unrelated.
    """
    name = "level of the mediator among controls"
    design = moments.design
    reason = (
        "more than two arms" if len(moments.arms) != 2
        else "blocks inside sites" if design.block
        else "clusters" if design.cluster
        else "weights that are not copies" if design.weights and design.weight_kind != "frequency"
        else ""
    )  # fmt: skip
    if reason:
        return NotApplicable(name, f"the sampling error of control means is not computed with {reason}")
    by_arm = moments.by_arm()
    j = by_arm.variables.index(mediator)
    mean, variance = np.full((2, by_arm.n_sites), np.nan), np.full((2, by_arm.n_sites), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = by_arm.first.scatter[:, j, j] / (by_arm.n - 1.0) / by_arm.n
    mean[by_arm.arm, by_arm.site] = by_arm.first.mean[:, j]
    variance[by_arm.arm, by_arm.site] = spread
    use = np.isfinite(variance).all(axis=0) & (variance > 0).all(axis=0)
    if use.sum() < 4:
        return NotApplicable(name, "fewer than four sites have a variance of the mediator in both arms")
    mean, variance = mean[:, use], variance[:, use]
    k = int(use.sum())
    cov = np.empty((k, 1, 2, 1, 2))
    cov[:, 0, 0, 0, 0] = variance[0]
    cov[:, 0, 1, 0, 1] = variance.sum(axis=0)
    cov[:, 0, 0, 0, 1] = cov[:, 0, 1, 0, 0] = -variance[0]
    effects = SiteEffects(
        sites=tuple(s for s, u in zip(by_arm.sites, use, strict=True) if u),
        contrasts=("",),
        mediators=(mediator,),
        outcome=f"{mediator} among controls",
        estimates=frozen(np.stack([mean[0], mean[1] - mean[0]], axis=1)[:, None, :]),
        cov=frozen(cov),
        precision=frozen(np.ones((k, 1, 1))),
        n=frozen(np.full(k, np.nan)),
        cov_type="unbiased",
        df=frozen(np.full(k, np.inf)),
    )
    return between_rows(effects)


def baseline_test(rows: BetweenRows | NotApplicable, *, draws: int, seed: int) -> TestResult:
    """Test that control levels do not go with compliance: the score of a zero slope, which needs no slope."""
    if isinstance(rows, NotApplicable):
        return rows
    found = SlopeTest.of(rows, rows.mediators[0], draws=draws, seed=seed).test(0.0)
    return TestStatistic(
        "level of the mediator among controls",
        f"{rows.mediators[0]} among controls does not go with compliance across sites",
        found.stat,
        found.pvalue,
        found.df,
        law=found.dist,
    )
