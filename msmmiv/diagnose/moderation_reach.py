"""How large a change of mediator effects with a known number of each site a score test would have found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.diagnose.assignment import noncentrality
from msmmiv.diagnose.moderation import Scores, Signal, varies
from msmmiv.linalg import Array, frozen

__all__ = ["moderation_reach", "reach_words", "unknown_reach"]

#: Simulated trials, signs behind each of their tests, and the power that is asked for: what is read off the data is
#: uncertain itself, so that a new trial has less, about 80%.
TRIALS, SIGNS, POWER = 100, 199, 0.86
#: Sites below which what is read off the data says too little, above all where x goes with compliance.
_FEWEST = 40
#: Share of the variation of (x - mean) times compliance that must be left without sampling error.
_LEAST = 0.1


def moderation_reach(signal: Signal, x: Array) -> Array:
    """(P,) changes of each mediator's effect per standard deviation of x that `moderation_test` finds with 80% power.

    Approximate. Infinite where none is large enough; NaN with fewer than 40 sites, where it would say too little, and
    where sampling error leaves too little of compliance times x.

    Notes
    -----
    With the notation of `moderation_test`, x in standard deviations, a change t of the effect of mediator j adds
    t c_s to the effective scores of a site, c_s = L_s S_hh L_s'e_j with L_s = (x_s I, 0) - B A^-1. Trials with t are
    made from the scores of the data with random signs, and tested with random signs; t is found by bisection with the
    same signs.

    Examples
    --------
    >>> import msmmiv as mm
    >>> signal = Signal.of(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"), "tempered")
    >>> moderation_reach(signal, np.log(signal.weight)).round(1).tolist()
    [0.9]
    """
    k, p = len(signal.sites), signal.n_mediators
    nothing = frozen(np.full(p, np.nan))
    if k < _FEWEST or not varies(x):
        return nothing
    scores = Scores.of(signal, x)
    if scores is None:
        return nothing
    covariance = np.atleast_2d(np.cov(scores.effective, rowvar=False))
    if np.linalg.matrix_rank(covariance, hermitian=True) < p:
        return nothing
    away = (x - x.mean()) ** 2
    left, seen = (
        np.einsum("k,kaa->a", away, part[:, 1:-1, 1:-1]) for part in (signal.products, signal.observed)
    )
    shown = left > _LEAST * seen
    # What a change of one adds to the score of each site, direct and mediator effects being solved again.
    added = scores.load @ scores.gram @ np.swapaxes(scores.load, 1, 2)
    # The scores are smaller than those of a new trial: effects (P + 1) and loads (P of them each) were fitted to them.
    loss = k / max(k - (p + 1.0) ** 2, 1.0)
    rng = np.random.default_rng(0)
    plan = _Plan(
        frozen(scores.effective * np.sqrt(loss)),
        np.where(rng.random((TRIALS, k)) < 0.5, -1.0, 1.0),
        np.where(rng.random((SIGNS, k)) < 0.5, -1.0, 1.0),
    )
    reach = np.array([plan.reach(added[:, :, j]) if shown[j] else np.nan for j in range(p)])
    return frozen(reach * scores.size[0] / scores.size[1:-1])


@dataclass(frozen=True, eq=False)
class _Plan:
    """Scores (K, P) of the sites; signs that make trials of them, and signs that test a trial."""

    score: Array
    trials: Array
    signs: Array

    def power(self, added: Array) -> float:
        """Share of trials in which the test with these signs rejects at 5%."""
        drawn = self.trials[:, :, None] * self.score + added
        root = np.linalg.cholesky(np.einsum("bki,bkj->bij", drawn, drawn))
        # Sums of squares do not change with signs, so that one root serves all draws of a trial.
        unit = np.linalg.solve(root, np.swapaxes(drawn, 1, 2))
        seen = (unit.sum(axis=2) ** 2).sum(axis=1)
        law = ((unit @ self.signs.T) ** 2).sum(axis=1)
        return float((seen > np.quantile(law, 0.95, axis=1)).mean())

    def reach(self, added: Array) -> float:
        """Smallest change with 80% power; infinite where none is found."""
        k, p = self.score.shape
        mean = added.mean(axis=0)
        unit = k * float(mean @ np.linalg.solve(np.atleast_2d(np.cov(self.score, rowvar=False)), mean))
        if not unit > 0:
            return float("inf")
        start = float(np.log(np.sqrt(noncentrality(p, k - p) / unit)))
        low, high = start - 1.5, start + 3.5
        if self.power(float(np.exp(high)) * added) < POWER:
            return float("inf")
        for _ in range(8):
            half = (low + high) / 2.0
            low, high = (low, half) if self.power(float(np.exp(half)) * added) >= POWER else (half, high)
        return float(np.exp((low + high) / 2.0))


def reach_words(mediators: tuple[str, ...], reach: Array, what: str) -> str:
    """The figures in a sentence; empty where none is known."""
    if np.isinf(reach).all():
        return f"No change of effects with {what} would be found with 80% power: too few sites carry it."
    known = [f"{v:.3g} ({m})" for m, v in zip(mediators, reach, strict=True) if np.isfinite(v)]
    if not known:
        return ""
    return (
        f"A change of the effect by {' or '.join(known)} per standard deviation of {what} would be found with about "
        "80% power."
    )


def unknown_reach(what: str) -> str:
    """What is said where `reach_words` has no figure."""
    return (
        f"Which change of effects with {what} would have been found cannot be said: that takes {_FEWEST} sites, and "
        "that sampling error leaves something of how compliance and it vary together."
    )
