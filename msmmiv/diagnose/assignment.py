"""What random assignment alone says: laws of sums over the treated when labels are shuffled within strata.

A stratum (block, or site) holds N units, rows or whole clusters, with totals z_i that add up to zero and labels t_i.
If every order of the labels is equally likely,

    E sum_i t_i z_i = 0,    Cov(sum_i t_i z_i) = sum_i (t_i - t)(t_i - t)' (x) sum_i z_i z_i' / (N - 1)

exactly, whatever the units' values are. Strata are independent. With z_i = w_i (x_i - x), x the weighted mean of the
stratum, the sum is the numerator of the within-stratum difference of means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from msmmiv.errors import ChoiceError, check_choice
from msmmiv.linalg import Array, Codes, frozen, gram_pinv, group_sum, root
from msmmiv.moments.cells import Moments

__all__ = [
    "Assigned",
    "Scores",
    "Shuffled",
    "hits_law",
    "nested",
    "noncentrality",
    "one_sided",
    "scores",
    "site_slopes",
    "units_assigned",
]

#: What was assigned to arms: each row alone, or clusters as wholes.
Assigned: TypeAlias = Literal["rows", "clusters"]


def nested(moments: Moments) -> bool:
    """Whether every declared cluster lies in one arm of its stratum."""
    if not moments.clusters or not moments.arms:
        return bool(moments.clusters)
    pairs = np.unique(np.column_stack([moments.intercept, moments.cluster, moments.arm]), axis=0)
    return len(np.unique(pairs[:, :2], axis=0)) == len(pairs)


def units_assigned(moments: Moments, assigned: Assigned | None) -> Assigned:
    """Rows or clusters; by default clusters where each declared one lies in a single arm of its stratum.

    Raises
    ------
    ChoiceError
        Clusters are asked for that are not declared, or that lie in several arms.
    """
    if assigned is None:
        return "clusters" if nested(moments) else "rows"
    check_choice(assigned, Assigned, "assigned")
    if assigned == "clusters" and not nested(moments):
        why = "hold several arms of one site or block" if moments.clusters else "are not declared"
        raise ChoiceError(
            f"assigned='clusters' means that clusters were assigned as wholes, but clusters {why}. Use assigned='rows'"
            + ("." if moments.clusters else ", or declare the cluster in the design.")
        )
    return assigned


@dataclass(frozen=True, eq=False)
class Scores:
    """Numerators of within-stratum differences and what shuffled labels say of their covariance.

    Attributes
    ----------
    site : (B,) array of int
        Site of each stratum.
    score : (B, D, q) array
        Sums over the units of an arm of z.
    labels : (B, D, D) array
        Cross-products of the units' arm indicators, centred.
    spread : (B, q, q) array
        Cross-products of the units' z.
    units : (B,) array
        Number of units N.
    treated : (B, D) array
        Units in each arm but the control; no columns for a dose, whose values are taken as distinct.
    precision : (B, D, D) array
        Cross-products of the rows' arm indicators with their weights: a difference is its inverse times the score.
    scatter : (B, q, q) array
        Weighted cross-products of rows around the stratum's mean.
    """

    site: Codes
    score: Array
    labels: Array
    spread: Array
    units: Array
    treated: Array
    precision: Array
    scatter: Array

    @property
    def active(self) -> Array:
        """(B,) one where labels vary."""
        out: Array = (np.einsum("bdd->b", self.labels) > 1e-12).astype(float)
        return out

    @property
    def orders(self) -> Array:
        """(B,) logarithm of the number of ways in which the arms' labels can be dealt."""
        from scipy.special import gammaln

        n, arms = self.units, self.treated
        if not arms.shape[1]:
            every: Array = gammaln(n + 1)
            return every
        rest = n - arms.sum(axis=1)
        out: Array = gammaln(n + 1) - gammaln(arms + 1).sum(axis=1) - gammaln(rest + 1)
        return out

    def covariances(self) -> Array:
        """(B, D q, D q) covariance of each stratum's score, arms first."""
        left = np.where(self.units > 1, self.units - 1.0, 1.0)
        both = np.einsum("bde,bpq->bdpeq", self.labels, self.spread) / left[:, None, None, None, None]
        size = self.score.shape[1] * self.score.shape[2]
        out: Array = both.reshape(len(left), size, size)
        return out


def scores(moments: Moments, columns: list[int], assigned: Assigned) -> Scores:
    """Scores of variables (by position) under shuffled rows or clusters.

    A dose enters as its own label; with weights its sum of squares over rows is not in the moments, so that only
    unweighted doses are read here.
    """
    where, size = moments.intercept, moments.n_blocks
    first, squared = moments.first, moments.squared
    merged = first.merged(where, size)
    x = merged.mean[where][:, columns]
    away = first.mean[:, columns] - x
    total = first.weight[:, None] * away
    inside = first.scatter[:, columns][:, :, columns]
    scatter = group_sum(inside + _outer(away, first.weight), where, size)
    labels, dose = _labels(moments)
    center = group_sum(first.weight[:, None] * labels, where, size) / merged.weight[:, None]
    precision = group_sum(dose + _outer(labels - center[where], first.weight), where, size)
    score = np.einsum("cd,cq->cdq", labels - center[where], total)
    if not moments.arms:
        score = score + first.scatter[:, -1, columns][:, None, :]
    if assigned == "clusters":
        _, lead, code = np.unique(
            where * (int(moments.cluster.max()) + 1) + moments.cluster, return_index=True, return_inverse=True
        )
        total, own, home = group_sum(total, code, len(lead)), labels[lead], where[lead]
        count = np.bincount(home, minlength=size).astype(float)
        middle = group_sum(own, home, size) / np.maximum(count, 1.0)[:, None]
        crossed = group_sum(_outer(own - middle[home], np.ones(len(lead))), home, size)
        spread = group_sum(_outer(total, np.ones(len(lead))), home, size)
    else:
        count = group_sum(moments.n, where, size)
        middle = group_sum(moments.n[:, None] * labels, where, size) / count[:, None]
        crossed = group_sum(dose + _outer(labels - middle[where], moments.n), where, size)
        far = squared.mean[:, columns] - x
        spread = squared.scatter[:, columns][:, :, columns] + _outer(far, squared.weight)
        spread = group_sum(spread, where, size)
    treated = np.round(middle * count[:, None])[:, : len(moments.arms)]
    return Scores(
        moments.intercept_site, frozen(group_sum(score, where, size)), frozen(crossed), frozen(spread), frozen(count),
        frozen(treated), frozen(precision), frozen(scatter),
    )  # fmt: skip


def _labels(moments: Moments) -> tuple[Array, Array]:
    """(C, D) mean of the labels in each cell, and (C, D, D) their cross-products inside it."""
    if moments.arms:
        out = (moments.arm[:, None] == np.arange(1, len(moments.arms))).astype(float)
        return out, np.zeros((len(out), out.shape[1], out.shape[1]))
    return moments.first.mean[:, -1:], moments.first.scatter[:, -1:, -1:]


def _outer(values: Array, weight: Array) -> Array:
    out: Array = weight[:, None, None] * values[:, :, None] * values[:, None, :]
    return out


@dataclass(frozen=True, eq=False)
class Shuffled:
    """A joint quadratic form of scores, and the F it is compared with.

    Attributes
    ----------
    stat : float
        ``score' Cov^- score``; its mean under shuffled labels is exactly its rank.
    rank : int
    df : float
        Denominator of F; not positive where there are too few units.
    f : float
    units : float
        Effective number of units minus strata.
    inverse : (D q, D q) array
        Pseudo-inverse of the covariance.

    Notes
    -----
    For one stratum with normal values the form is N - 1 times Pillai's trace, whose usual F has the right mean. With
    several strata, each of kurtosis -6 / (N_b + 1), an N is put in its place that gives the sum the same kurtosis.
    """

    stat: float
    rank: int
    df: float
    f: float
    units: float
    inverse: Array

    @classmethod
    def of(cls, score: Array, parts: Array, units: Array, contrasts: int) -> Shuffled:
        """From (D q,) summed scores, (B, D q, D q) covariances by stratum, and (B,) units."""
        covariance = parts.sum(axis=0)
        inverse, rank = _scaled_pinv(covariance)
        stat = float(score @ inverse @ score)
        share = np.einsum("ij,bji->b", inverse, parts)
        square = float((share**2 / (units + 1.0)).sum())
        if rank == 0 or square <= 0:
            return cls(0.0, 0, 0.0, float("nan"), 0.0, inverse)
        effective = float(share.sum() ** 2 / square) - 2.0
        d = min(contrasts, rank)
        q = max(rank // d, 1)
        smaller, larger = min(d, q), max(d, q)
        df = smaller * (effective - larger)
        spare = smaller * effective - stat
        f = stat / rank * df / spare if spare > 0 and df > 0 else float("inf")
        return cls(stat, rank, df, f, effective, inverse)


def _scaled_pinv(covariance: Array) -> tuple[Array, int]:
    """Pseudo-inverse after scaling the diagonal to one; directions without variance drop out."""
    size = np.sqrt(np.clip(np.diag(covariance), 0.0, None))
    scale = np.where(size > 1e-150, size, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    keep = values > 1e-9
    half = vectors[:, keep] / np.sqrt(values[keep]) / scale[:, None]
    return half @ half.T, int(keep.sum())


def hits_law(hits: Array, size: Array, treated: Array) -> tuple[int, Array]:
    """Law of the number of hits among the treated, summed over strata, when labels are shuffled.

    Parameters
    ----------
    hits, size, treated : (B,) arrays of whole numbers
        Units with the property, all units, and treated units of each stratum.

    Returns
    -------
    least : int
        Smallest possible sum.
    mass : array
        Probabilities of ``least, least + 1, ...``.

    Examples
    --------
    >>> least, mass = hits_law(np.array([1.0, 1.0]), np.array([4.0, 2.0]), np.array([2.0, 1.0]))
    >>> least, mass.tolist()
    (0, [0.25, 0.5, 0.25])
    """
    from scipy.special import gammaln

    least, mass = 0, np.ones(1)
    for k, n, m in zip(hits, size, treated, strict=True):
        low, high = max(0, int(k + m - n)), int(min(k, m))
        least += low
        if high == low:
            continue
        x = np.arange(low, high + 1.0)
        log = (
            gammaln(k + 1) - gammaln(x + 1) - gammaln(k - x + 1)
            + gammaln(n - k + 1) - gammaln(m - x + 1) - gammaln(n - k - m + x + 1)
            - gammaln(n + 1) + gammaln(m + 1) + gammaln(n - m + 1)
        )  # fmt: skip
        own = np.exp(log)
        mass = np.convolve(mass, own / own.sum())
    return least, mass


def one_sided(least: int, mass: Array, seen: float) -> tuple[float, float]:
    """P(sum <= seen) and P(sum >= seen)."""
    at = round(seen) - least
    return float(min(mass[: at + 1].sum(), 1.0)), float(min(mass[max(at, 0) :].sum(), 1.0))


def site_slopes(found: Scores, sites: int) -> tuple[Array, Array]:
    """(K, D, q) within-site differences and their standard errors; NaN where an arm cannot be compared."""
    d, q = found.score.shape[1:]
    precision = group_sum(found.precision, found.site, sites)
    inverse, _ = gram_pinv(precision)
    here = np.einsum("kde,ked->kd", inverse, precision) > 1.0 - 1e-9
    slopes = inverse @ group_sum(found.score, found.site, sites)
    parts = group_sum(found.covariances(), found.site, sites).reshape(sites, d, q, d, q)
    variance = np.einsum("kde,keqfq,kdf->kdq", inverse, parts, inverse)
    lacking = ~here[:, :, None]
    return np.where(lacking, np.nan, slopes), np.where(lacking, np.nan, np.sqrt(np.clip(variance, 0, None)))


def noncentrality(df: int, df_denom: float, *, size: float = 0.05, power: float = 0.8) -> float:
    """Non-centrality at which an F test of this size has this power.

    Examples
    --------
    >>> round(noncentrality(1, 1e6) ** 0.5, 2)
    2.8
    """
    from scipy.special import fdtri, ncfdtr

    df_denom = min(df_denom, 1e6)
    critical = float(fdtri(df, df_denom, 1.0 - size))

    def gap(value: float) -> float:
        return float(1.0 - ncfdtr(df, df_denom, value, critical)) - power

    upper = 8.0
    while gap(upper) < 0:  # far out the function is not computed
        upper *= 1.5
    return root(gap, 1e-3, upper)
