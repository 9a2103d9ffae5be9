"""Weights of the wild bootstrap: all sign vectors of a few blocks, or random draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.errors import TooFewSitesError, check_choice, whole_number
from msmmiv.linalg import Array

__all__ = ["Plan", "WildWeights", "plan_draws"]

WildWeights: TypeAlias = Literal["rademacher", "webb", "mammen"]

#: With so few blocks all sign vectors are enumerated: 2^12 = 4,096.
ENUMERATED = 12
#: Numbers in a chunk of draws: 32 megabytes.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Plan:
    """Which weights are drawn, how often."""

    groups: int
    weights: WildWeights
    draws: int
    enumerated: bool
    seed: int | None

    @property
    def words(self) -> str:
        """The draws in words."""
        how = "all sign vectors" if self.enumerated else f"{self.draws:,} draws, seed {self.seed}"
        return f"{self.weights}, {how}"

    @property
    def smallest(self) -> float:
        """Smallest p-value: a sign vector and its opposite tie when all are there."""
        return 2.0 / self.draws if self.enumerated else 1.0 / (1.0 + self.draws)

    def share(self, number: int) -> float:
        """P-value from the number of draws at least as extreme."""
        return float(self.shares(np.array(number)))

    def shares(self, number: npt.NDArray[np.int64]) -> Array:
        """P-values from numbers of draws at least as extreme."""
        top, bottom = (number, self.draws) if self.enumerated else (1 + number, 1 + self.draws)
        return np.asarray(top / bottom, dtype=np.float64)

    def chunks(self) -> Iterator[Array]:
        """(n, G) arrays of weights, together all draws."""
        step = max(1, _CHUNK // self.groups)
        rng = np.random.default_rng(self.seed)
        for first in range(0, self.draws, step):
            n = min(step, self.draws - first)
            if self.enumerated:
                bits = np.arange(first, first + n)[:, None] >> np.arange(self.groups)
                yield np.where(bits & 1, -1.0, 1.0)
            else:
                yield _random(rng, self.weights, (n, self.groups))


def plan_draws(groups: int, k: int, weights: WildWeights | None, draws: int, seed: int | None) -> Plan:
    """What to draw for G blocks and k coefficients.

    Raises
    ------
    TooFewSitesError
        G <= k.
    ChoiceError

    Examples
    --------
    >>> plan_draws(6, 1, None, 9999, None).words, plan_draws(20, 1, None, 999, 7).words
    ('rademacher, all sign vectors', 'webb, 999 draws, seed 7')
    """
    if groups <= k:
        raise TooFewSitesError(
            f"A bootstrap over {groups} sites or clusters needs fewer than {groups} coefficients; there are {k}."
        )
    if weights is None:
        weights = "rademacher" if groups <= ENUMERATED else "webb"
    check_choice(weights, WildWeights, "weights")
    if weights == "rademacher" and groups <= ENUMERATED:
        return Plan(groups, weights, 2**groups, enumerated=True, seed=None)
    draws = whole_number(draws, "draws", least=1)
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    return Plan(groups, weights, draws, enumerated=False, seed=int(seed))


def _random(rng: np.random.Generator, weights: WildWeights, shape: tuple[int, int]) -> Array:
    """Weights with mean zero and variance one; each takes one uniform number, whatever the chunks."""
    uniform = rng.random(shape)
    if weights == "rademacher":
        return np.where(uniform < 0.5, -1.0, 1.0)
    if weights == "webb":
        table: Array = np.sqrt([1.5, 1.0, 0.5, 0.5, 1.0, 1.5]) * np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
        out: Array = table[(6.0 * uniform).astype(np.int64)]
        return out
    golden = 5.0**0.5
    low, high = (1.0 - golden) / 2.0, (1.0 + golden) / 2.0
    return np.asarray(np.where(uniform < high / golden, low, high), dtype=np.float64)
