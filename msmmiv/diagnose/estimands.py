"""Averages of site effects under different weights, and tests that they agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.estimate.corrected import BCLinear, Corrected, corrected_iv
from msmmiv.estimate.site_moments import SiteRows
from msmmiv.inference.tests import NotApplicable, TestResult, f_test
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["Estimand", "weightings"]


@dataclass(frozen=True, eq=False)
class Estimand:
    """An average of site effects under one weighting, with site-clustered standard errors.

    Attributes
    ----------
    name : str
    estimate, std_errors : (P,) arrays
    status : str or None
    """

    name: str
    estimate: Array
    std_errors: Array
    status: str | None


def _pooled(effects: SiteEffects, rows: SiteRows) -> Corrected:
    """Pooled sum w itt / sum w compliance: effects weighted by compliance, not its square (one mediator)."""
    w = rows.weights("precision")
    itt, g = w @ rows.values
    noise = float(w**2 @ rows.cov[:, 1, 1])
    none = np.full((rows.n_sites, 1), np.nan)
    if g**2 <= 3.84 * noise:
        why = "mean compliance is not distinguishable from zero"
        return Corrected(effects.mediators, none[0], none, why, (), 1)
    d = itt / g
    influence = rows.by_site((w * (rows.values @ [1.0, -d]) / g)[:, None])
    return Corrected(effects.mediators, frozen([d]), frozen(influence), None, (), 1)


def weightings(
    effects: SiteEffects, rows: SiteRows, *, direct: bool
) -> tuple[tuple[Estimand, ...], tuple[TestResult, ...]]:
    """Averages of site effects under different weights, and Hausman tests that they agree with the first.

    They agree when effects do not go with compliance or site weight; a gap is direct evidence on assumption (ix).
    The covariance of each gap comes from the site influences of both averages, so neither has to be efficient.

    Parameters
    ----------
    effects : SiteEffects
    rows : SiteRows
        Of the same effects.
    direct : bool
        Whether a direct effect is free; there are no contrasts then.

    Returns
    -------
    estimands : tuple of Estimand
    contrasts : tuple of TestResult
        F(P, K - P) with the Wald statistic scaled by (K - P) / K.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.site_moments import site_rows
    >>> e = mm.SiteEffects.from_moments(mm.data.star())
    >>> [round(float(a.estimate[0]), 3) for a in weightings(e, site_rows(e), direct=False)[0]]
    [-1.115, -1.196, -1.054, -1.322]
    """
    if direct:
        why = "with a direct effect the averages under different weights are not identified separately"
        return (), (NotApplicable("Hausman", why),)
    p = len(effects.mediators)
    if rows.usable_sites <= p:
        return (), (NotApplicable("Hausman", "there are as many coefficients as sites"),)
    fits = {"by squared compliance and n p (1 - p), as 2SLS": corrected_iv(effects)}
    if p == 1:
        fits["by compliance and n p (1 - p), pooled IV"] = _pooled(effects, rows)
    fits["by squared compliance, sites alike"] = corrected_iv(effects, weights="equal")
    if rows.usable_sites > p * (p + 3) // 2:
        fits["sites alike, effect linear in compliance"] = BCLinear().solve(effects)
    estimands = tuple(Estimand(n, f.coefficients, f.std_errors, f.status) for n, f in fits.items())
    (_, first), *others = fits.items()
    return estimands, tuple(
        _hausman(first, fit, f"2SLS weights against {name}", rows) for name, fit in others
    )


def _hausman(one: Corrected, other: Corrected, name: str, rows: SiteRows) -> TestResult:
    label = f"Hausman, {name}"
    if why := one.status or other.status:
        return NotApplicable(label, why)
    gap = one.coefficients - other.coefficients
    moved = one.influence - other.influence
    cov = moved.T @ moved
    size = np.diag(one.cov) + np.diag(other.cov)
    if (np.diag(cov) <= 1e-20 * size).any() or np.linalg.matrix_rank(
        cov / np.sqrt(np.outer(size, size)), 1e-14
    ) < len(gap):
        return NotApplicable(label, "the two averages are the same figure in these sites")
    k, p = rows.usable_sites, len(gap)
    wald = float(gap @ np.linalg.solve(cov, gap))
    return f_test(label, "the averages agree", wald / p * (k - p) / k, p, k - p)
