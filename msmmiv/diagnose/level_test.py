"""Whether subgroups that are in many sites differ in compliance and in effect: scores without estimated variances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msmmiv.errors import count
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.inference.wild_draws import plan_draws
from msmmiv.linalg import Array, Codes, frozen, group_sum

__all__ = ["LEAST_SITES", "LevelContrast", "level_contrasts", "level_test"]

_NAME = "effects and compliance of subgroups inside sites"
#: Sites below which the size of the test has not been shown.
LEAST_SITES = 8


@dataclass(frozen=True, eq=False)
class LevelContrast:
    """One subgroup against the rest of its sites.

    Attributes
    ----------
    level : int
    moved : (K,) array
        Weighted differences of compliance, by site.
    differ : (K,) array
        b_l g_r - b_r g_l by site, whose mean is g_l g_r (delta_l - delta_r).
    unit : float
        What ``differ`` adds up to when effects differ by one.
    """

    level: int
    moved: Array
    differ: Array
    unit: float

    @property
    def reach(self) -> float:
        """Difference of effects that is found with about 80% power; NaN where compliances leave nothing of it."""
        from scipy.special import stdtrit

        k = len(self.differ)
        error = np.sqrt((self.differ**2).sum())
        factor = stdtrit(k - 1, 0.975) + stdtrit(k - 1, 0.8)
        return float(factor * error / abs(self.unit)) if abs(self.unit) > 0 else float("nan")


def level_contrasts(
    values: Array, weight: Array, *, site: Codes, arm: Codes, level: Codes
) -> tuple[LevelContrast, ...]:
    """Every level against the others of its site, arm by arm; two levels that are all of it are one contrast.

    Parameters
    ----------
    values : (R, 2) array
        itt and compliance of a subgroup (and arm).
    weight : (R,) array
    site, arm, level : (R,) arrays of int
        Whose effects they are. Rows of different subgroups rest on different people.
    """
    _, place = np.unique(np.column_stack([site, arm]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    total = group_sum(weight, place, int(place.max()) + 1)[place]
    whole = group_sum(weight[:, None] * values, place, int(place.max()) + 1)[place]
    rest_weight = total - weight
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = (whole - weight[:, None] * values) / rest_weight[:, None]
        size = weight * rest_weight / total
    paired = rest_weight > 1e-12 * total
    out = []
    for one in np.unique(level[paired]):
        own = paired & (level == one)
        sites, code = np.unique(site[own], return_inverse=True)
        (b, g), (rb, rg), w = values[own].T, rest[own].T, size[own]
        moved, differ = (group_sum(w * part, code, len(sites)) for part in (g - rg, b * rg - rb * g))
        out.append(LevelContrast(int(one), frozen(moved), frozen(differ), float((w * g * rg).sum())))
    several = (
        np.bincount(level[paired]).astype(bool).sum() > 2 or np.bincount(place[paired]).max(initial=0) > 2
    )
    return tuple(out) if several else tuple(out[:1])


def level_test(
    contrasts: Sequence[LevelContrast], *, draws: int, seed: int
) -> tuple[TestResult, LevelContrast | None]:
    """Test that no subgroup differs from the rest of its sites both in compliance and in effect.

    Notes
    -----
    Cov(compliance, effect) between subgroups needs differences of both, so that the p-value of a contrast is the larger
    one of two, each from random signs of the sites: sum of ``moved``, sum of ``differ``. The least of the contrasts is
    multiplied by their number. With errors b = kappa g + e, e independent of g, ``differ`` is the same for b - kappa g
    and for b: where effects are equal in a site it is linear in errors plus products of independent ones, symmetric
    about zero for normal errors of proportional variance, and no variance has to be estimated. A corrected product
    (b_l g_r - b_r g_l)(g_l - g_r) is skewed by (delta - kappa) times a squared error; judged by random signs it rejects
    up to .12 of clean trials ("signs of corrected scores" in docs/validation/independence.csv).
    """
    tested = [c for c in contrasts if len(c.differ) >= LEAST_SITES]
    if not tested:
        most = max((len(c.differ) for c in contrasts), default=0)
        why = f"too few sites: {most} with two or more subgroups; the test needs {LEAST_SITES}"
        return NotApplicable(_NAME, why), None
    found = [
        max((_signs(part, draws, seed) for part in (c.moved, c.differ)), key=lambda p: p[0]) for c in tested
    ]
    at = int(np.argmin([p for p, *_ in found]))
    p, stat, words = found[at]
    if not np.isfinite(p):
        return NotApplicable(_NAME, "subgroups do not differ"), None
    many = f", times {count(len(tested), 'subgroup')}" if len(tested) > 1 else ""
    law = f"larger of two p-values, random signs of sites ({words}){many}"
    null = "no subgroup differs inside sites both in compliance and in effect"
    return TestStatistic(_NAME, null, stat, min(1.0, p * len(tested)), 1, law=law), tested[at]


def _signs(part: Array, draws: int, seed: int) -> tuple[float, float, str]:
    """p-value (infinite where all is zero), sum over root of the sum of squares, and the draws in words."""
    size = float(np.sqrt((part**2).sum()))
    plan = plan_draws(len(part), 1, "rademacher", draws, seed)
    if size == 0.0:
        return float("inf"), float("nan"), plan.words
    total = abs(float(part.sum()))
    above = sum(int((np.abs(signs @ part) >= total * (1.0 - 1e-9)).sum()) for signs in plan.chunks())
    return plan.share(above), float(part.sum()) / size, plan.words
