"""Critical values of the first stage where the population is exactly at their threshold.

    python -m tests.validation.study --table critical

writes docs/validation/critical.csv: how often the statistic exceeds the critical value although 2SLS has all the bias
that the null allows, and how large that bias is. Drawn from the weak-instrument limit (normal first-stage coefficients
with known covariance, independent between sites), which is what the critical values are derived in.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from msmmiv.inference.critical_values import (
    NoiseLaw,
    effective_f_critical_value,
    min_eigenvalue_critical_value,
    worst_relative_bias,
)
from tests.validation.study import Row

#: Pairs of trials drawn at once; trials of the committed table.
BATCH, TRIALS = 2000, 200_000
#: How much noisier the noisiest site is than the quietest, where they differ, and in how flat an ellipse.
SPREAD, FLAT = 30.0, 0.2


@dataclass(frozen=True)
class CriticalCell:
    """One cell: ``strength`` is spread over sites at random or lies where noise is largest."""

    mediators: int
    sites: int
    noise: str
    strength: str
    others: float
    bias: float


def grid() -> list[CriticalCell]:
    """Every cell; ``others`` is the strength of the second combination of mediators over that of the weakest."""
    every = itertools.product(
        (1, 2), (5, 20, 50), ("equal", "unequal"), ("spread", "noisiest"), (1.0, 10.0), (0.1, 0.3)
    )
    cells = (CriticalCell(*values) for values in every)
    return [cell for cell in cells if cell.mediators == 2 or cell.others == 1.0]


def critical(cell: CriticalCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """One row of the table.

    ``worst_bias`` is the mean bias of 2SLS for the endogeneity that makes it largest, over the benchmark; its square
    is estimated without bias from two halves of the trials. ``nagar_bias`` is its leading term.
    """
    rng = np.random.default_rng(seed)
    noise = noise_of(cell)
    law, at = least_favourable(noise)
    bound = worst_relative_bias(law, cell.mediators)
    strength = strength_of(cell, noise, at, rng) * np.sqrt(bound / cell.bias)
    if cell.mediators == 1:
        value = effective_f_critical_value(law, bias=cell.bias)
    else:
        value = min_eigenvalue_critical_value(law, cell.mediators, bias=cell.bias)
    above, halves = simulate(strength, noise, value, rng, trials)
    square = np.einsum("lpq,lpr,lrs->qs", halves[0], np.linalg.inv(noise), halves[1])
    return [
        vars(cell)
        | {"top": law.top, "threshold": bound / cell.bias, "critical_value": value, "replications": trials}
        | {"above": above, "worst_bias": _root(square), "nagar_bias": _root(nagar_square(strength, noise))}
    ]


def noise_of(cell: CriticalCell) -> np.ndarray:
    """(L, P, P) noise of the sites' coefficients, with a total of one."""
    sites = np.arange(cell.sites)
    if cell.noise == "equal":
        noise = np.tile(0.5 * np.eye(cell.mediators) + 0.5, (cell.sites, 1, 1))
    else:
        angle = 2.4 * sites  # directions all around, none twice
        along = np.column_stack([np.cos(angle), np.sin(angle)])[:, : cell.mediators]
        noise = (1 - FLAT) * np.einsum("lp,lq->lpq", along, along) + FLAT * np.eye(cell.mediators)
        if cell.mediators == 1:
            noise = np.ones_like(noise)
        noise = noise * (SPREAD ** (sites / (cell.sites - 1)))[:, None, None]
    values, vectors = np.linalg.eigh(noise.sum(axis=0))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return np.asarray(root @ noise @ root)


def least_favourable(noise: np.ndarray) -> tuple[NoiseLaw, np.ndarray]:
    """The largest power sums over combinations of mediators, and the combination with the noisiest site."""
    angle = np.linspace(0, np.pi, 361)
    x = np.column_stack([np.cos(angle), np.sin(angle)]) if noise.shape[1] == 2 else np.ones((1, 1))
    mu = np.einsum("ip,lpq,iq->il", x, noise, x)
    law = NoiseLaw(1.0, (mu**2).sum(axis=1).max(), (mu**3).sum(axis=1).max(), mu.max())
    return law, x[np.argmax(mu.max(axis=1))]


def strength_of(
    cell: CriticalCell, noise: np.ndarray, at: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(L, P) coefficients whose weakest combination is ``at``, with strength one."""
    axes = np.column_stack([at, [-at[1], at[0]]]) if cell.mediators == 2 else np.ones((1, 1))
    if cell.strength == "noisiest":
        order = np.argsort(-np.einsum("p,lpq,q->l", at, noise, at))
        where = np.eye(cell.sites)[:, order[: cell.mediators]]
    else:
        where = np.linalg.qr(rng.standard_normal((cell.sites, cell.mediators)))[0]
    scale = np.sqrt([1.0, cell.others][: cell.mediators])
    return np.asarray(where * scale @ axes.T)


def simulate(
    strength: np.ndarray, noise: np.ndarray, value: float, rng: np.random.Generator, trials: int
) -> tuple[float, list[np.ndarray]]:
    """Share of trials above the critical value, and per half of them the mean of V_l (theta'theta)^-1 theta_l'."""
    root, above, halves = np.linalg.cholesky(noise), 0, []
    for _ in range(2):
        total, done = np.zeros_like(noise), 0
        while done < trials // 2:
            v = np.einsum("lpq,rlq->rlp", root, rng.standard_normal((BATCH, *strength.shape)))
            v = np.concatenate([v, -v])  # the odd part of the error cancels
            theta = strength + v
            gram = theta.transpose(0, 2, 1) @ theta
            above += int((np.linalg.eigvalsh(gram)[:, 0] > value).sum())
            weight = theta @ np.linalg.inv(gram)
            total += (v.transpose(1, 2, 0) @ weight.transpose(1, 0, 2)) / (2 * BATCH)
            done += 2 * BATCH
        halves.append(total * 2 * BATCH / done)
    return above / (2 * done), halves


def nagar_square(strength: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The square of the worst bias to first order, from ``E[V'(I - QQ')e - C'V (C'C)^-1 C'e]``."""
    inverse = np.linalg.inv(strength.T @ strength)
    leverage = np.einsum("lp,pq,lq->l", strength, inverse, strength)
    back = strength @ inverse
    m = (1 - leverage)[:, None, None] * inverse - back[:, :, None] * back[:, None, :]
    return np.asarray(np.einsum("lpa,lpq,lqb->ab", m, noise, m))


def _root(square: np.ndarray) -> float:
    """Square root of the largest eigenvalue of a matrix that is symmetric up to simulation error."""
    return float(np.sqrt(max(np.linalg.eigvalsh((square + square.T) / 2)[-1], 0.0)))
