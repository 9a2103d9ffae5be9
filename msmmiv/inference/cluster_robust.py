"""Bias-reduced cluster-robust covariances (CR2, CR3) with Bell-McCaffrey degrees of freedom, from cells.

Regressors ``z_i`` are measured from their intercepts and linear in the variables of `Within`, so every
cluster's cross-products of ``z`` and of the intercept indicators follow from cell means and scatters, and
with them its leverage: the adjustment of a cluster of any size is a matrix function of order
``k + number of intercepts it shares with other clusters``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.errors import TooFewSitesError, check_choice, count
from msmmiv.inference.covariance import Scores
from msmmiv.inference.row_products import cell_scores
from msmmiv.linalg import Array, Codes, frozen, group_sum
from msmmiv.moments.within import Within

__all__ = [
    "ALONE",
    "ClusterRobust",
    "Reduction",
    "block_sandwich",
    "cluster_grams",
    "cluster_robust",
    "root_of_rest",
    "whitened",
]

Reduction: TypeAlias = Literal["CR2", "CR3"]

#: What is left of a direction outside one cluster below which the cluster is all there is of it.
ALONE = 1e-10


@dataclass(frozen=True, eq=False)
class ClusterRobust:
    """A bias-reduced covariance with the degrees of freedom of each coefficient's t test.

    Attributes
    ----------
    covariance : (k, k) array
        NaN in rows and columns of coefficients that one cluster alone determines.
    df : (k,) array
        Satterthwaite degrees of freedom; NaN where the variance is.
    groups : int
        Number of clusters.
    reason : str or None
        Why there are NaN, if there are.
    """

    covariance: Array
    df: Array
    groups: int
    reason: str | None = None


def cluster_robust(
    within: Within, scores: Scores, codes: Codes, *, power: Reduction = "CR2"
) -> ClusterRobust:
    """CR2 or CR3 covariance of a linear estimator's coefficients and its degrees of freedom.

    For inference with few clusters, or clusters of unequal leverage. Clusters may be sites, lie inside sites,
    or cross them; absorbed intercepts count as regressors, as if every dummy had been written out.

    Parameters
    ----------
    within : Within
    scores : Scores
        Regressors z, residuals e and bread, as the estimators return them.
    codes : (C,) array of int
        Cluster of each cell, as `cluster_codes` gives it.
    power : {"CR2", "CR3"}
        Residuals of a cluster times (I - H_gg)^(-1/2), unbiased under the working model, or times
        (I - H_gg)^(-1), the jackknife without its factor (G - 1)/G.

    Returns
    -------
    ClusterRobust

    Raises
    ------
    TooFewSitesError
        Fewer than two clusters.

    Notes
    -----
    Let Z hold the rows of z and of the indicators 1{i in b} / sqrt(W_b) of the intercepts, times sqrt(w_i),
    and let L L' = (Z'Z)^-1. With Q = Z L and G_g = Q_g'Q_g, the identity
    Q_g' f(I - Q_g Q_g') = f(I - G_g) Q_g' turns the matrix function of order n_g into one of order k + t_g.
    Degrees of freedom of c'b: (sum_g p_gg)^2 / sum_gh p_gh^2 with v_g = f(I - Q_g Q_g') Q_g L'c and
    p_gh = v_g'(1{g = h} I - Q_g Q_h') v_h. The double sum is the squared norm of sum_g u_g u_g',
    u_g = Q_g'v_g, so it costs one pass over the clusters.

    The regressors are those of the second stage, projected on the instruments (as clubSandwich and estimatr
    take them); where the bread is not the inverse of their cross-products (LIML), leverages are still theirs.
    The working model is independent errors with variance proportional to 1/w: clubSandwich's
    ``inverse_var = TRUE``. Under weights clubSandwich and estimatr default to equal variances instead, which
    needs sums with the zeroth and second power of the weights; without weights, and with frequency weights,
    the two are the same. The working model shapes the small-sample correction only: the covariance is
    consistent whether it holds or not.

    Source: Bell & McCaffrey (2002); Pustejovsky & Tipton (2018), Theorem 2 and section 2.3.

    Examples
    --------
    Two-stage least squares by hand: the fitted mediator is the site's compliance times the contrast.

    >>> import msmmiv as mm
    >>> from msmmiv.moments.within import within_sites
    >>> w = within_sites(mm.data.star())
    >>> (itt, g), size = w.slopes[:, 0].T, w.omega[:, 0, 0]
    >>> z, e, total = np.zeros((79, 3, 1)), np.zeros((79, 3)), (size * g * g).sum()
    >>> z[:, 2, 0], e[:, 0], e[:, 1] = g, 1.0, -(size * g * itt).sum() / total
    >>> out = cluster_robust(w, Scores(z, e, np.array([[1 / total]])), w.moments.site)
    >>> out.groups, round(float(out.covariance[0, 0] ** 0.5), 4), round(float(out.df[0]), 1)
    (79, 0.2958, 56.7)
    """
    check_choice(power, Reduction, "power")
    work = _Work(within, scores, codes)
    sums = LeverageSums(work.contrasts, -0.5 if power == "CR2" else -1.0)
    for gram, score, intercept in work.batches():
        sums.add(gram, score, intercept)
    return sums.result(work.groups)


def block_sandwich(gram: Array, scores: Array, bread: Array, exponent: float) -> ClusterRobust:
    """The same for scores of blocks that share no intercepts, with a bread that need not be symmetric.

    Parameters
    ----------
    gram : (G, k, k) array
        Symmetric cross-products of the regressors in each block.
    scores : (G, k) array
    bread : (k, k) array
    exponent : {0, -0.5, -1}

    Returns
    -------
    ClusterRobust
        NaN with a reason where the correction or the degrees of freedom are not defined.

    Examples
    --------
    >>> gram, scores = np.array([[[1.0]], [[1.0]], [[2.0]]]), np.array([[0.6], [0.2], [-0.8]])
    >>> out = block_sandwich(gram, scores, np.array([[0.25]]), -0.5)
    >>> round(float(out.covariance[0, 0]), 4), round(float(out.df[0]), 3)
    (0.1133, 1.8)
    """
    groups, nothing = len(gram), np.full(bread.shape, np.nan)
    try:
        lower = np.linalg.cholesky(gram.sum(axis=0))
    except np.linalg.LinAlgError:
        why = "the cross-products of the regressors are not positive definite"
        if exponent:
            return ClusterRobust(nothing, nothing[0], groups, f"{why}; use 'CR0'")
        spread = scores @ bread.T
        return ClusterRobust(frozen(spread.T @ spread), nothing[0], groups, f"{why}: no degrees of freedom")
    unit = whitened(gram, lower)
    values = np.linalg.eigvalsh(unit)
    if exponent and (values > 1.0 + ALONE).any():
        why = "a block weighs more than all of them together, so its leverage exceeds one; use 'CR0'"
        return ClusterRobust(nothing, nothing[0], groups, why)
    sums = LeverageSums(lower.T @ bread.T, exponent)
    turned = np.asarray(np.linalg.solve(lower, scores.T).T, dtype=np.float64)
    sums.add(unit, turned, np.zeros((groups, 0), dtype=np.int64))
    out = sums.result(groups)
    if (values < -1e-8).any():
        why = "a block is not positive semi-definite: no working model, hence no degrees of freedom, fits it"
        return ClusterRobust(out.covariance, frozen(nothing[0]), groups, out.reason or why)
    return out


def whitened(gram: Array, lower: Array) -> Array:
    """``lower^-1 G lower'^-1`` for every G of a stack.

    Examples
    --------
    >>> whitened(np.array([[[1.0]], [[3.0]]]), np.array([[2.0]])).ravel().tolist()
    [0.25, 0.75]
    """
    half = np.linalg.solve(lower, gram)
    out: Array = np.swapaxes(np.linalg.solve(lower, np.swapaxes(half, 1, 2)), 1, 2)
    symmetric: Array = (out + np.swapaxes(out, 1, 2)) / 2.0
    return symmetric


class LeverageSums:
    """Sums over clusters of adjusted score products and of what Satterthwaite's formula needs.

    Parameters
    ----------
    contrasts : (k, c) array
        Column j turns regressors with unit cross-products into those of coefficient j.
    exponent : {0, -0.5, -1}
        Power of I - H_gg: CR0, CR2, CR3.
    """

    def __init__(self, contrasts: Array, exponent: float) -> None:
        k, c = contrasts.shape
        self.contrasts, self.exponent = contrasts, exponent
        self.norms: Array = np.linalg.norm(contrasts, axis=0)
        self.meat, self.trace, self.squares = np.zeros((c, c)), np.zeros(c), np.zeros(c)
        self.inner = np.zeros((c, k, k))
        self.alone, self.lost = 0, np.zeros(c, dtype=bool)
        # Parts of sum_g u_g u_g' that belong to an intercept, and to a pair of them, with their names.
        self.one: list[tuple[Codes, Array]] = []
        self.two: list[tuple[Codes, Array]] = []

    def add(self, gram: Array, score: Array, intercept: Codes) -> None:
        """Add n clusters that share t intercepts with others.

        Parameters
        ----------
        gram : (n, k + t, k + t) array
            Cross-products whose sum over all clusters is the identity.
        score : (n, k + t) array
        intercept : (n, t) array of int
        """
        k = len(self.contrasts)
        values, vectors = np.linalg.eigh(gram)
        factor, full = root_of_rest(values, self.exponent)
        q = np.einsum("gji,jc->gic", vectors[:, :k], self.contrasts)
        here = full[:, :, None] & (np.abs(q) > 1e-6 * self.norms)
        self.alone += int(here.any(axis=(1, 2)).sum())
        self.lost |= here.any(axis=(0, 1))
        turned = np.einsum("gji,gj->gi", vectors, score)
        adjusted = np.einsum("gic,gi->gc", q, factor * turned)
        self.meat += adjusted.T @ adjusted
        own = np.einsum("gi,gic->gc", factor**2 * values * (1.0 - values), q**2)
        u = np.einsum("gji,gic->gjc", vectors, (values * factor)[:, :, None] * q)
        self.trace += own.sum(axis=0)
        self.squares += (own**2 - (u**2).sum(axis=1) ** 2).sum(axis=0)
        self.inner += np.einsum("gic,gjc->cij", u[:, :k], u[:, :k])
        if intercept.shape[1]:
            shared = u[:, k:]
            cross = np.einsum("gic,gtc->gtic", u[:, :k], shared)
            self.one.append((intercept.ravel(), cross.reshape(intercept.size, -1)))
            pair = intercept[:, :, None] * np.int64(2**31) + intercept[:, None, :]
            both = np.einsum("gtc,gsc->gtsc", shared, shared)
            self.two.append((pair.ravel(), both.reshape(pair.size, -1)))

    def df(self) -> Array:
        """(c,) Satterthwaite degrees of freedom, trace(P)^2 / ||P||^2."""
        norm = self.squares + (self.inner**2).sum(axis=(1, 2))
        if self.one:
            cross = _summed(self.one).reshape(-1, len(self.contrasts), len(norm))
            norm = norm + 2.0 * (cross**2).sum(axis=(0, 1)) + (_summed(self.two) ** 2).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            out: Array = self.trace**2 / norm
        return out

    def result(self, groups: int) -> ClusterRobust:
        """Covariance and degrees of freedom, NaN where one cluster alone determines a coefficient."""
        covariance, df, reason = self.meat.copy(), self.df(), None
        if self.lost.any():
            covariance[self.lost] = covariance[:, self.lost] = np.nan
            df[self.lost] = np.nan
            one = self.alone == 1
            reason = (
                f"{count(self.alone, 'cluster')} alone {'determines' if one else 'determine'} "
                f"{count(int(self.lost.sum()), 'coefficient')}: leave {'it' if one else 'one'} out and nothing is "
                "left to estimate from, so the variance between clusters cannot be estimated."
            )
        return ClusterRobust(frozen(covariance), frozen(df), groups, reason)


def root_of_rest(values: Array, exponent: float) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Powers of 1 - eigenvalue, zero (Moore-Penrose) where the cluster is alone, and where that is.

    In such a direction the estimating equations make the cluster's score exactly zero, because no other cluster
    has a share in their sum.
    """
    rest = 1.0 - values
    full: npt.NDArray[np.bool_] = np.abs(rest) < ALONE
    return np.where(full, 0.0, np.where(full, 1.0, rest) ** exponent), full


def cluster_grams(within: Within, left: Array, right: Array, codes: Codes) -> Array:
    """(G, a, b) cross-products of two sets of linear forms in u, summed over the cells of each cluster.

    Parameters
    ----------
    within : Within
    left : (K, m, a) array
    right : (K, m, b) array
    codes : (C,) array of int
        Cluster of each cell, coded 0..G-1.
    """
    return group_sum(cell_scores(within, left, right), codes, int(codes.max()) + 1)


class _Work:
    """Cluster by cluster: cross-products of (z, shared intercepts) with unit total, and score sums."""

    def __init__(self, within: Within, scores: Scores, codes: Codes) -> None:
        m = within.moments
        _, code = np.unique(codes, return_inverse=True)
        self.groups = int(code.max()) + 1
        if self.groups < 2:
            raise TooFewSitesError(
                f"A cluster-robust covariance needs at least two clusters; there is {self.groups}."
            )
        gram = np.einsum("kmi,kmn,knj->ij", scores.loading, within.gram, scores.loading, optimize=True)
        lower = np.linalg.cholesky(gram)
        # z' = z L with L = lower'^-1 has unit cross-products; z' @ contrasts[:, j] is z @ bread[:, j].
        self.contrasts: Array = lower.T @ scores.bread
        unit = np.swapaxes(np.linalg.solve(lower, np.swapaxes(scores.loading, 1, 2)), 1, 2)
        self.gram = cluster_grams(within, unit, unit, code)
        self.score = cluster_grams(within, unit, scores.residual[:, :, None], code)[:, :, 0]
        self.n_intercepts = len(within.weight)
        pairs, pair = np.unique(code * self.n_intercepts + m.intercept, return_inverse=True)
        owner, intercept = np.divmod(pairs, self.n_intercepts)
        # z is orthogonal to an intercept that lies in one cluster, and so are residuals: it changes nothing.
        shared = np.bincount(intercept, minlength=self.n_intercepts)[intercept] > 1
        weight = m.first.weight
        z = np.einsum("cmk,cm->ck", unit[m.site], within.deviation)
        e = np.einsum("cm,cm->c", scores.residual[m.site], within.deviation)
        sums = group_sum(weight[:, None] * np.column_stack([z, e, np.ones_like(e)]), pair, len(pairs))[shared]
        self.owner, self.intercept = owner[shared], intercept[shared]
        sums[:, :-1] /= np.sqrt(within.weight[self.intercept])[:, None]
        sums[:, -1] /= within.weight[self.intercept]
        self.sums = sums

    def batches(self) -> Iterator[tuple[Array, Array, Codes]]:
        """Clusters with the same number t of shared intercepts: (n, k+t, k+t), (n, k+t), (n, t)."""
        touched = np.bincount(self.owner, minlength=self.groups)
        start = np.cumsum(touched) - touched
        k = self.score.shape[1]
        for t in np.unique(touched):
            who = np.flatnonzero(touched == t)
            pair = start[who][:, None] + np.arange(t)
            gram = np.zeros((len(who), k + t, k + t))
            gram[:, :k, :k] = self.gram[who]
            if t:
                gram[:, k:, :k] = self.sums[pair, :k]
                gram[:, :k, k:] = np.swapaxes(gram[:, k:, :k], 1, 2)
                gram[:, k + np.arange(t), k + np.arange(t)] = self.sums[pair, -1]
            score = np.concatenate([self.score[who], self.sums[pair, k]], axis=1)
            yield gram, score, self.intercept[pair]


def _summed(parts: list[tuple[Codes, Array]]) -> Array:
    """Sums of rows that have the same name."""
    _, code = np.unique(np.concatenate([name for name, _ in parts]), return_inverse=True)
    return group_sum(np.concatenate([value for _, value in parts]), code, int(code.max()) + 1)
