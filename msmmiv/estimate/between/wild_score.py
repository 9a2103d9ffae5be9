"""Score-form wild bootstrap of the between-site slope: no normality, no division by a corrected variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.errors import ChoiceError, DataError, TooFewSitesError, check_choice, count
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.inference.confidence_set import ConfidenceSet, invert
from msmmiv.inference.wild_draws import Plan, plan_draws
from msmmiv.linalg import Array, group_sum

__all__ = ["ScoreWeights", "WildScore", "wild_score", "wild_score_set"]

ScoreWeights: TypeAlias = Literal["rademacher", "mammen"]

_POINTS = 1001
#: Candidates times draws compared at once: 32 megabytes.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class WildScore:
    """A test of one slope by signs of the sites' scores.

    Attributes
    ----------
    name, null : str
    stat : float
        Sum of scores over the root of their centred sum of squares; at most sqrt(G) in size without centring.
    pvalue : float
        Two-sided.
    smallest : float
        Smallest p-value that so many sites, or draws, can give.
    draws : int
    seed : int or None
        None when all sign vectors are there.
    law : str
        The reference in words.
    """

    name: str
    null: str
    stat: float
    pvalue: float
    smallest: float
    draws: int
    seed: int | None
    law: str

    @property
    def dist(self) -> str:
        """The reference distribution as text."""
        return self.law

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.stat:.4g} ~ {self.law}, p = {self.pvalue:.4g}, "
            f"smallest {self.smallest:.4g} (H0: {self.null})"
        )


def wild_score(
    rows: BetweenRows,
    *,
    beta0: float = 0.0,
    weights: ScoreWeights = "rademacher",
    draws: int = 9999,
    seed: int = 0,
) -> WildScore:
    """Test that the mediator effect is ``beta0``, with random signs of the scores under that value.

    Use it where direct effects may be far from normal or vary more at extreme compliance. It costs power:
    with five sites its smallest p-value is 1/16, so it never rejects at 5%.

    Parameters
    ----------
    rows : BetweenRows
        One mediator; rows of one site get one sign. Without a direct effect the scores are not centred either.
    beta0 : float
    weights : {"rademacher", "mammen"}
        Signs, all 2^G of them with up to 12 sites; or Mammen's two points, which keep skewness.
    draws, seed : int

    Returns
    -------
    WildScore

    Raises
    ------
    ChoiceError
        Several mediators, an unknown choice, or ``beta0`` that is not finite.
    TooFewSitesError
        Fewer than three sites.

    Notes
    -----
    With x and y residualised on z, M the matrix that does so and e = y - beta0 x, the score of a row is
    s_k = x_k e_k + sum_l M_kl (beta0 a_lk - c_lk), whose sum has expectation zero: a and c are the sampling
    covariances of compliance with compliance and of compliance with itt. With z = 1 and independent rows the sum over
    l is (1 - 1/K) (beta0 a_k - c_k). T = sum s / sqrt(sum (s - sbar)^2), T* the same with w_g s_g, summed by site.

    5% tests of no effect in Fu's (2023) design reject a true null in 0, .048, .054 and .040 of samples of 5, 10, 30 and
    100 sites (docs/validation/table1.csv). Tests of a true effect of 2 reject it in .08 to .13 from 10 sites on, since
    squares of the errors of compliance then skew the scores. With log-normal standard errors it is .05 to .07 and .08
    to .11 (docs/validation/claims.csv).

    Examples
    --------
    >>> from msmmiv.estimate.between.rows import BetweenRows
    >>> x = np.array([[0.0], [1.0], [2.0], [4.0], [5.0]])
    >>> rows = BetweenRows(
    ...     tuple("abcde"), ("m",), "y", ("direct_effect",), np.array([1.0, 2.0, 5.0, 9.0, 11.5]), x,
    ...     np.ones((5, 1)), 0.01 * np.eye(2)[None].repeat(5, axis=0), None, np.zeros((2, 2)), np.arange(5), False,
    ... )
    >>> print(wild_score(rows))
    wild score: 3.203 ~ rademacher, all sign vectors, p = 0.0625, smallest 0.0625 (H0: the effect of m is 0)
    """
    if not np.isfinite(beta0):
        raise ChoiceError(f"beta0 must be a finite number; got {beta0!r}.")
    line, plan = _line(rows), _plan(rows, weights, draws, seed)
    stat, share = _pvalues(line, plan, np.array([beta0]))
    return WildScore(
        "wild score",
        f"the effect of {rows.mediators[0]} is {beta0:g}",
        float(stat[0]),
        float(share[0]),
        plan.smallest,
        plan.draws,
        plan.seed,
        plan.words,
    )


def wild_score_set(
    rows: BetweenRows,
    *,
    level: float = 0.95,
    weights: ScoreWeights = "rademacher",
    draws: int = 9999,
    seed: int = 0,
) -> ConfidenceSet:
    """All mediator effects that `wild_score` does not reject, with the same signs at all of them.

    It may be unbounded, and it is the whole line where the smallest p-value exceeds 1 - level.

    Parameters
    ----------
    rows, weights, draws, seed
        As in `wild_score`.
    level : float

    Notes
    -----
    Scores are linear in the candidate, s = p - beta0 q, so each draw is three numbers for all candidates.
    """
    if not 0.0 < level < 1.0:
        raise DataError(f"A confidence level lies between 0 and 1; got {level!r}.")
    line, plan = _line(rows), _plan(rows, weights, draws, seed)
    p, q = line
    name = f"wild score ({weights})"
    if plan.smallest > 1.0 - level:
        return ConfidenceSet(((-np.inf, np.inf),), level, name, rows.mediators[0])
    scale = float(np.sqrt((p**2).sum() / max(float((q**2).sum()), 1e-300))) or 1.0
    centre = float(p.sum() / q.sum()) if q.sum() != 0 else 0.0
    if not np.isfinite(centre) or abs(centre) > 1e3 * scale:
        centre = 0.0
    # The p-value moves in steps: a candidate stays while more than 1 - level of the draws are as extreme.
    edge = (1.0 - level) * (1.0 + 1e-9)
    return invert(
        lambda beta: edge - _pvalues(line, plan, beta)[1],
        centre=centre,
        scale=scale,
        level=level,
        method=name,
        term=rows.mediators[0],
        points=_POINTS,
    )


def _line(rows: BetweenRows) -> tuple[Array, Array]:
    """(G,) intercepts and slopes of the sites' scores in the candidate: s = p - beta0 q."""
    if len(rows.mediators) > 1:
        raise ChoiceError(
            f"The wild score is for one mediator; there are {len(rows.mediators)}. Use the EB-score."
        )
    if rows.n_sites < 3:
        raise TooFewSitesError(f"{count(rows.n_sites, 'site')} cannot carry a wild bootstrap; it needs 3.")
    basis = np.linalg.qr(rows.z)[0]
    x = rows.x[:, 0] - basis @ (basis.T @ rows.x[:, 0])
    y = rows.y - basis @ (basis.T @ rows.y)
    if rows.cross is None:
        left = 1.0 - (basis**2).sum(axis=1)
        noise, both = left * rows.noise[:, 0, 0], left * rows.covariance[:, 0]
    else:
        annihilator = np.eye(len(x)) - basis @ basis.T
        noise = np.einsum("kl,lk->k", annihilator, rows.cross[:, 1, :, 1])
        both = np.einsum("kl,lk->k", annihilator, rows.cross[:, 1, :, 0])
    p, q = x * y - both, x * x - noise
    n = rows.n_sites
    site = np.unique(rows.site, return_inverse=True)[1].astype(np.int64)
    return group_sum(p, site, n), group_sum(q, site, n)


def _plan(rows: BetweenRows, weights: ScoreWeights, draws: int, seed: int) -> Plan:
    check_choice(weights, ScoreWeights, "weights")
    return plan_draws(rows.n_sites, 1, weights, draws, seed)


def _pvalues(line: tuple[Array, Array], plan: Plan, beta: Array) -> tuple[Array, Array]:
    """Statistics and p-values at candidates (m,).

    T^2 = A^2 / (B - A^2 / G) with A the sum and B the sum of squares, which grows with A^2 / B: that is compared.
    A ratio of squares of a line in beta0 needs no arrays of candidates times draws times sites.
    """
    p, q = line
    length = np.hypot(1.0, beta)
    one, two = 1.0 / length, beta / length  # far candidates without overflow
    total = one * p.sum() - two * q.sum()
    squares = _quadratic(one, two, *((v * w).sum() for v, w in ((p, p), (p, q), (q, q))))
    observed = _share(total, squares)
    number = np.zeros(len(beta), dtype=np.int64)
    for signs in plan.chunks():
        sums = signs @ p, signs @ q
        w2 = signs**2
        parts = w2 @ (p * p), w2 @ (p * q), w2 @ (q * q)
        step = max(1, _CHUNK // len(signs))
        for first in range(0, len(beta), step):
            at = slice(first, first + step)
            a = one[at, None] * sums[0] - two[at, None] * sums[1]
            b = _quadratic(one[at, None], two[at, None], *parts)
            # Equal up to rounding is equal: the identity and its opposite are among the sign vectors.
            number[at] += (_share(a, b) >= observed[at, None] * (1.0 - 1e-10)).sum(axis=1)
    centred = np.maximum(squares - total**2 / len(p), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        stat = np.where(total == 0, 0.0, total / np.sqrt(centred))
    return stat, plan.shares(number)


def _quadratic(one: Array, two: Array, pp: npt.ArrayLike, pq: npt.ArrayLike, qq: npt.ArrayLike) -> Array:
    return np.asarray(one**2 * np.asarray(pp) - 2.0 * one * two * np.asarray(pq) + two**2 * np.asarray(qq))


def _share(total: Array, squares: Array) -> Array:
    return np.where(squares > 0, total**2 / np.where(squares > 0, squares, 1.0), 0.0)
