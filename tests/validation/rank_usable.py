"""Size and power of the test that the weakest combination has strength 2 or more: docs/validation/rank_usable.csv.

Site effects are drawn as normal people would give them, with a compliance matrix whose strength is exactly the stated
one along the weakest combination, and 10 along the other. The null is true at strength 2 and above.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.rank_evidence import detectable_strength, effective_df, strength_test
from msmmiv.diagnose.spectrum import spectrum
from tests.validation.independence import CORR, noisy
from tests.validation.study import Row

TRIALS = 1000
SITES = (12, 20, 40, 100)
#: Draws behind each noise floor; strength of the combinations that are not the weakest.
DRAWS, OTHER = 199, 10.0
#: True strength of the weakest combination.
STRENGTHS = (1.0, 1.5, 2.0, 4.0)
LEVEL = 0.05


@dataclass(frozen=True)
class UsableCell:
    """``errors``: people in each arm of each site, and whether variances are known."""

    errors: str
    strength: float
    mediators: int
    sites: int


def grid() -> list[UsableCell]:
    """Every cell."""
    errors = ("variances known", "20 an arm", "skewed sizes")
    main = itertools.product(errors, STRENGTHS, (1, 2), SITES)
    three = itertools.product(("20 an arm",), (2.0,), (3,), (20, 40))
    return [UsableCell(*c) for c in itertools.chain(main, three)]


def simulate(cell: UsableCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """How often strength 2 is rejected, by the test alone and where the audit has a test, and what it could find.

    The audit has none where strength differs neither from 2 nor from noise; no test is no rejection.
    """
    rng = np.random.default_rng(seed)
    shape = (trials, cell.sites)
    n = np.full(shape, 20.0)
    if cell.errors == "skewed sizes":
        n = np.clip(np.round(25.0 * np.exp(0.8 * rng.standard_normal(shape))), 6.0, None)
    g = compliances(cell, n, rng)
    truth = np.concatenate([0.5 * g.sum(axis=-1, keepdims=True), g], axis=-1)
    drawn = noisy(truth, n, rng, known=cell.errors == "variances known")
    p, strength, shown, reach = (np.empty(trials) for _ in range(4))
    for r in range(trials):
        found = spectrum(Compliances.from_effects(drawn.effects(r), direct_effect=False), draws=DRAWS, seed=r)
        p[r] = strength_test(found).pvalue
        strength[r] = found.strength[-1]
        shown[r] = p[r] <= LEVEL or found.pvalues[-1] <= LEVEL
        reach[r] = detectable_strength(effective_df(found))[0]
    share = float((p <= LEVEL).mean())
    middle = float(np.nanmedian(reach)) if np.isfinite(reach).any() else float("nan")
    return [
        vars(cell)
        | {
            "test": "strength 2 or more", "rejects": share, "rejects_se": float(np.sqrt(share * (1 - share) / trials)),
            "none": float(1.0 - shown.mean()), "mean_strength": float(strength.mean()), "detectable": middle,
            "replications": trials,
        }
    ]  # fmt: skip


def compliances(cell: UsableCell, n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(R, K, P) compliances whose signal has roots strength - 1 (the weakest) and 9 with respect to the noise."""
    p = cell.mediators
    g = 1.0 + 0.7 * rng.standard_normal((*n.shape, p))
    # Two arms of n and errors of variance one: weight n / 2 times variance 2 / n is one in every site.
    noise = (np.full((p, p), CORR) + (1.0 - CORR) * np.eye(p)) * n.shape[1]
    roots = np.array([cell.strength - 1.0, *[OTHER - 1.0] * (p - 1)])
    for r in range(len(n)):
        signal = np.einsum("k,kp,kq->pq", n[r] / 2.0, g[r], g[r])
        values, vectors = eigh(signal, noise)
        # g vectors has roots ``values``; each is brought to its own, and back in the mediators' terms.
        g[r] = g[r] @ (vectors * np.sqrt(roots / values)) @ np.linalg.inv(vectors)
    return g
