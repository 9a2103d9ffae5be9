"""The rule behind `Study.fit()` for many two-arm trials at once, in plain numpy from site effects and their noise.

A second implementation of what `fit_by_rule` computes, without its code (only the thresholds are shared): the study
compares both in every cell of its tables, so each checks the other, and a table takes minutes and not hours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from msmmiv.estimate.recommend import ENOUGH, ENOUGH_CLUSTERED, MANY

Array = np.ndarray


@dataclass(frozen=True)
class Verdict:
    """R trials: the interval used, the estimate (NaN where there is none), whether and how the sets hold the truth.

    Attributes
    ----------
    used : (R,) array of "CR2", "CR3" or "score"
    estimate, covers, length : (R, P) arrays
        Lengths are infinite where the set is unbounded.
    """

    used: Array
    estimate: Array
    covers: Array
    length: Array


def verdict(effects: Array, cov: Array, weight: Array, truth: Array, *, clustered: bool = False) -> Verdict:
    """What the rule says about each trial.

    Parameters
    ----------
    effects : (R, K, 1 + P) array
        Itt and compliances of the sites.
    cov : (R, K, 1 + P, 1 + P) array
        Their sampling covariance.
    weight : (K,) array
        n p (1 - p).
    truth : (P,) array
    clustered : bool
    """
    sites, p = effects.shape[1], len(truth)
    w = weight[:, None, None]
    signal = np.einsum("k,rka,rkb->rab", weight, effects[..., 1:], effects[..., 1:])
    blocks = w * (effects[..., 1:, None] * effects[..., None, :] - cov[..., 1:, :])
    whole = blocks.sum(axis=1)
    bread, right = whole[..., 1:], whole[..., 0]
    size = np.sqrt(np.einsum("raa->ra", signal))
    good = np.linalg.eigvalsh(bread / (size[:, :, None] * size[:, None, :]))[:, 0] > 1e-12
    # Counts can make the bread exactly singular; there is no estimate then.
    bread = np.where(good[:, None, None], bread, np.eye(p))
    solved = np.linalg.solve(bread, right[..., None])[..., 0]
    estimate = np.where(good[:, None], solved, np.nan)
    strong = _strength(signal, cov, weight) > (ENOUGH_CLUSTERED if clustered else ENOUGH)
    scored = np.full(len(effects), p == 1 and sites >= MANY) | ~strong
    with np.errstate(divide="ignore", invalid="ignore"):
        half = _reduced(effects, cov, weight, blocks, solved) if p == 1 else _jackknife(blocks, whole, solved)
    covers, length = np.abs(solved - truth) <= half, 2.0 * half
    found = [_score(effects, cov, weight, blocks, j, truth[j]) for j in range(p)]
    covers = np.where(scored[:, None], np.stack([f[0] for f in found], axis=1), covers & good[:, None])
    length = np.where(scored[:, None], np.stack([f[1] for f in found], axis=1), length)
    used = np.where(scored, "score", "CR2" if p == 1 else "CR3")
    return Verdict(used, estimate, covers, length)


def _strength(signal: Array, cov: Array, weight: Array) -> Array:
    """Signal less noise over the standard error of noise, in the direction where they are closest."""
    noise = np.einsum("k,rkab->rab", weight, cov[..., 1:, 1:])
    root = np.linalg.inv(np.linalg.cholesky(signal))
    vectors = np.linalg.eigh(root @ noise @ np.swapaxes(root, 1, 2))[1]
    x = np.einsum("rba,rb->ra", root, vectors[..., -1])
    part = weight * np.einsum("rkab,ra,rb->rk", cov[..., 1:, 1:], x, x)
    gap = np.einsum("rab,ra,rb->r", signal - noise, x, x)
    out: Array = gap / np.sqrt(2.0 * (part**2).sum(axis=1))
    return out


def _reduced(effects: Array, cov: Array, weight: Array, blocks: Array, b: Array) -> Array:
    """Half widths of CR2 intervals with Bell-McCaffrey degrees of freedom; one mediator."""
    block = blocks[..., 0, 1]
    score, total = blocks[..., 0, 0] - block * b, block.sum(axis=1, keepdims=True)
    h = block / total
    a = 1.0 / np.sqrt(np.maximum(1.0 - h, 0.02)) / total
    u = np.concatenate([np.ones_like(b), -b], axis=1)
    side = np.einsum("rkij,rj->rki", cov, u)
    own = np.einsum("rki,ri->rk", side, u)
    noise = (weight * effects[..., 1]) ** 2 * own + (weight * side[..., 1]) ** 2
    excess = np.maximum((score**2).sum(axis=1) - noise.sum(axis=1), 0.0) / (block**2).sum(axis=1)
    omega = noise + excess[:, None] * block**2
    variance = ((a * score) ** 2).sum(axis=1)
    # The matrix of the quadratic form sum_s (a_s psi_s)^2 in terms of independent scores, formed in full.
    left = a[:, :, None] * (np.eye(block.shape[1]) - h[:, :, None])
    form = (left * omega[:, None, :]) @ np.swapaxes(left, 1, 2)
    trace, squares = np.einsum("rss->r", form), (form**2).sum(axis=(1, 2))
    df = np.clip(trace**2 / squares, 1.0, block.shape[1] - 1.0)
    return (stdtrit(df, 0.975) * np.sqrt(variance))[:, None]


def _jackknife(blocks: Array, whole: Array, b: Array) -> Array:
    """Half widths of CR3 intervals: the estimate without each site."""
    rest = whole[:, None] - blocks
    gaps = np.linalg.solve(rest[..., 1:], rest[..., :1])[..., 0] - b[:, None]
    df = blocks.shape[1] - b.shape[1]
    out: Array = stdtrit(df, 0.975) * np.sqrt((gaps**2).sum(axis=1))
    return out


def _score(
    effects: Array, cov: Array, weight: Array, blocks: Array, j: int, truth: float
) -> tuple[Array, Array]:
    """Whether the score set of coefficient j holds the truth, and its length; one or two mediators."""
    trials, sites, p = blocks.shape[:3]
    exists = np.ones(trials, dtype=bool)
    # Weights of the scores, and of (itt, compliances): level + d change. Both change if another is estimated.
    mix, level, change = np.zeros((trials, p)), np.zeros((trials, 1 + p)), np.zeros((trials, 1 + p))
    mix[:, j], level[:, 0], change[:, 1 + j] = 1.0, 1.0, -1.0
    if p == 2:
        q = 1 - j
        total = blocks.sum(axis=1)
        inner = total[:, q, 1 + q]
        exists = inner > 0
        mix[:, q] = -total[:, j, 1 + q] / inner
        level[:, 1 + q], change[:, 1 + q] = -total[:, q, 0] / inner, total[:, q, 1 + j] / inner
    scores = np.stack([np.einsum("rkai,ri->rka", blocks, x) for x in (level, change)])
    psi = np.einsum("trka,ra->trk", scores, mix)
    wide = psi - psi.mean(axis=2, keepdims=True)
    top = psi.sum(axis=2)
    loads = weight * np.einsum("rka,ra->rk", effects[..., 1:], mix)
    side = weight[:, None] * np.einsum("rkai,ra->rki", cov[..., 1:, :], mix)
    form = np.einsum("rk,rkij->rij", loads**2, cov) + np.einsum("rki,rkj->rij", side, side)
    ends = (level, change)
    held = np.array([[np.einsum("ri,rij,rj->r", x, form, y) for y in ends] for x in ends])
    spread = np.einsum("trk,urk->tur", wide, wide) * sites / (sites - float(p))
    covers, low, high = ~exists, np.full(trials, np.inf), np.full(trials, -np.inf)
    for variance, cut in ((spread, stdtrit(sites - p, 0.975)), (held, ndtri(0.975))):
        form_d = top[:, None] * top[None] - cut**2 * variance
        covers = covers | (form_d[0, 0] + 2.0 * truth * form_d[0, 1] + truth**2 * form_d[1, 1] <= 0)
        lower, upper = _roots(form_d[1, 1], -form_d[0, 1], form_d[0, 0])
        low, high = np.minimum(low, lower), np.maximum(high, upper)
    return covers, np.where(exists, high - low, np.inf)


def _roots(a: Array, h: Array, k: Array) -> tuple[Array, Array]:
    """Ends of {d : a d^2 - 2 h d + k <= 0}, which holds the estimate; infinite if it is unbounded."""
    inside = h**2 - a * k
    root = np.sqrt(np.maximum(inside, 0.0))
    bounded = a > 0
    safe = np.where(bounded, a, 1.0)
    low, high = np.where(bounded, (h - root) / safe, -np.inf), np.where(bounded, (h + root) / safe, np.inf)
    none = bounded & (inside < 0)
    return np.where(none, np.inf, low), np.where(none, -np.inf, high)


def two_stage(effects: Array, scatter: Array, n: int) -> tuple[Array, Array]:
    """2SLS with its default HC1, n people in every arm: coefficients and half widths.

    Parameters
    ----------
    effects : (R, K, 1 + P) array
    scatter : (R, K, 1 + P, 1 + P) array
        Scatter inside the two arms of a site together.
    n : int
    """
    sites, p = effects.shape[1], effects.shape[2] - 1
    cross = np.einsum("rka,rki->rai", effects[..., 1:], effects) * n / 2.0
    b = np.linalg.solve(cross[..., 1:], cross[..., :1])[..., 0]
    u = np.concatenate([np.ones((len(b), 1)), -b], axis=1)
    # Squared residuals of a site: inside its arms, and what its effect leaves at half an arm's distance.
    squares = np.einsum("ri,rkij,rj->rk", u, scatter, u) + n / 2.0 * np.einsum("rki,ri->rk", effects, u) ** 2
    meat = np.einsum("rka,rk,rkb->rab", effects[..., 1:], squares / 4.0, effects[..., 1:])
    inverse, left = np.linalg.inv(cross[..., 1:]), 2 * n * sites - p - sites
    cov = 2 * n * sites / left * inverse @ meat @ inverse
    return b, stdtrit(left, 0.975) * np.sqrt(np.einsum("raa->ra", cov))
