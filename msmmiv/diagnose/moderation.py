"""Whether mediator effects go with a known property of sites: score tests by random signs, and adjusted effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.design import Label
from msmmiv.estimate.site_moments import (
    corrected_inverse,
    estimated,
    site_rows,
    weighted_products,
    with_direct_effect,
)
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.inference.wild_draws import Plan, plan_draws
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["LEAST_SITES", "LEAST_SITES_OF_SIZES", "Adjusted", "Scores", "Signal", "least_sites", "moderated",
           "moderation_test"]  # fmt: skip

Balance: TypeAlias = Literal["2sls", "tempered", "equal"]

#: Sites below which the test has not been shown to hold its size, with one or two mediators.
LEAST_SITES = 12
#: The same where x is the size of sites itself: with 12 sites of very different sizes .06 to .08 of clean trials are
#: rejected (docs/validation/independence.csv).
LEAST_SITES_OF_SIZES = 20
#: Share of observed variation that must not be noise in the products of compliance and x: with less, standard errors
#: were many times the effect.
_FAINT = 0.1
#: Sites per mediator that the test needs beyond that.
_PER_MEDIATOR = 6


def least_sites(mediators: int) -> int:
    """Fewest sites with which `moderation_test` gives a number."""
    return max(LEAST_SITES, _PER_MEDIATOR * mediators)


@dataclass(frozen=True, eq=False)
class Signal:
    """Products of the effects of each site, free of sampling error in expectation.

    Attributes
    ----------
    sites : tuple
        Those with estimates.
    products : (K, 2 + P, 2 + P) array
        sum_de Omega_de (r_d r_e' - V_de) with r = (itt, compliances, 1), times the site's balance.
    observed : (K, 2 + P, 2 + P) array
        The same without the correction.
    weight : (K,) array
        Cross-products of the treatment contrasts, summed over arms: n p (1 - p) with two arms.
    """

    sites: tuple[Label, ...]
    products: Array
    observed: Array
    weight: Array

    @classmethod
    def of(cls, effects: SiteEffects, balance: Balance) -> Signal:
        """With sites counted as 2SLS counts them, alike, or in between (n / (n + mean n)).

        Raises
        ------
        MomentsInsufficient, TooFewSitesError
            As `site_rows`.
        """
        site_rows(effects)
        used: npt.NDArray[np.bool_] = np.asarray(estimated(effects).any(axis=1), dtype=np.bool_)
        observed, noise = weighted_products(with_direct_effect(effects), "precision")
        weight = np.einsum("kdd->k", np.nan_to_num(effects.precision))[used]
        by = {"2sls": 1.0 / weight.mean(), "tempered": 1.0 / (weight + weight.mean()), "equal": 1.0 / weight}
        share = np.broadcast_to(np.asarray(by[balance]), weight.shape)[:, None, None]
        return cls(
            tuple(s for s, u in zip(effects.sites, used, strict=True) if u),
            frozen(share * (observed - noise)[used]),
            frozen(share * observed[used]),
            frozen(weight),
        )

    @property
    def n_mediators(self) -> int:
        """P."""
        return int(self.products.shape[1]) - 2


@dataclass(frozen=True, eq=False)
class Adjusted:
    """Effects in a model in which they change with x, evaluated where x is average.

    Attributes
    ----------
    effect, effect_se : (P,) arrays
        At the mean of x over sites.
    slope, slope_se : (P,) arrays
        Change of the effect per unit of x.
    unadjusted : (P,) array
        `corrected_iv`, x left out.
    gap, gap_se : (P,) arrays
        Adjusted less unadjusted, with the standard error of the difference.
    status : str or None
        Why there are no numbers.
    """

    effect: Array
    effect_se: Array
    slope: Array
    slope_se: Array
    unadjusted: Array
    gap: Array
    gap_se: Array
    status: str | None = None

    @classmethod
    def none(cls, mediators: int, why: str) -> Adjusted:
        """No numbers, and why."""
        n = frozen(np.full(mediators, np.nan))
        return cls(n, n, n, n, n, n, n, why)


def moderation_test(
    signal: Signal, x: Array, *, name: str, null: str, draws: int = 999, seed: int = 0, least: int = 0
) -> TestResult:
    """Test that mediator effects do not change with a known number of each site, whatever the direct effect.

    It divides by no estimated slope on x and keeps its size with noisy compliances, estimated variances, effects that
    differ between sites, and a direct effect, from 12 sites on (docs/validation/independence.csv).

    Parameters
    ----------
    signal : Signal
    x : (K,) array
        In the order of ``signal.sites``.
    name, null : str
        For the result.
    draws, seed : int
        Of the random signs.
    least : int
        Fewest sites, where more than usual are needed.

    Returns
    -------
    TestStatistic or NotApplicable
        Not applicable with few sites, an x that does not vary, or compliances that are noise.

    Notes
    -----
    Model itt_s = c + (delta + Theta (x_s - xbar))'g_s. With h = (g, 1) and S_s the corrected products of a site, scores
    are psi_s = S_hb - S_hh d; d = (delta, c) solves sum psi = 0. Effective scores e_s = x_s psi_gs - B A^-1 psi_s with
    A = sum S_hh, B = sum x S_gh do not depend on d to first order, and T = K ebar'(sum e e' / K)^-1 ebar. Its law comes
    from psi*_s = eta_s psi_s with random signs eta: d is solved again from each draw, so that scores shrink in the
    draws as they did in the data. F would be too strict with few sites. Were c left out, a direct effect and an x that
    goes with compliance would look like effects that go with x.

    References
    ----------
    Kline & Santos (2012), A score based approach to wild bootstrap inference.

    Examples
    --------
    >>> import msmmiv as mm
    >>> signal = Signal.of(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"), "tempered")
    >>> found = moderation_test(signal, np.log(signal.weight), name="size", null="effects do not go with size")
    >>> found.pvalue > 0.05
    True
    """
    k, p = len(signal.sites), signal.n_mediators
    if k < (fewest := max(least, least_sites(p))):
        why = f"too few sites: {k}; the test is made for {fewest} or more"
        return NotApplicable(name, why)
    if not varies(x):
        return NotApplicable(name, "it is the same in all sites")
    scores = Scores.of(signal, x)
    if scores is None:
        why = "compliance varies no more than noise around its mean: mediator and direct effects cannot be told apart"
        return NotApplicable(name, why)
    plan = plan_draws(k, 2 * p, "rademacher", draws, seed)
    found = scores.test(plan)
    if found is None:
        return NotApplicable(name, "the scores of the sites do not vary")
    return TestStatistic(name, null, *found, p, law=f"random signs ({plan.words})")


def varies(x: Array) -> bool:
    """Whether x differs between sites by more than rounding."""
    return float(np.abs(x - x.mean()).max()) > 1e-10 * max(float(np.abs(x).max()), 1e-300)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of mediator effects and a direct effect, and how those of x times the effects load on them.

    Attributes
    ----------
    psi : (K, P + 1) array
        Scores of the sites where no effect goes with x.
    gram : (K, P + 1, P + 1) array
        S_hh of `moderation_test`.
    inverse : (P + 1, P + 1) array
        Of its mean.
    load : (K, P, P + 1) array
        (x_s I, 0) - B A^-1, x in standard deviations.
    size : (P + 2,) array
        Root mean squares of itt, compliances and one, in which the others are measured: units cost no digits.
    """

    psi: Array
    gram: Array
    inverse: Array
    load: Array
    size: Array

    @classmethod
    def of(cls, signal: Signal, x: Array) -> Scores | None:
        """None where compliance varies no more than noise."""
        size = np.sqrt(np.einsum("kaa->a", signal.observed) / len(signal.sites))
        size = np.where(size > 0, size, 1.0)
        clean, observed = (s / np.outer(size, size) for s in (signal.products, signal.observed))
        gram, cross = clean[:, 1:, 1:], clean[:, 1:, 0]
        inverse, _ = corrected_inverse(gram.mean(axis=0), observed[:, 1:, 1:].mean(axis=0))
        if inverse is None:
            return None
        p, away = signal.n_mediators, x - x.mean()
        z = away / np.sqrt((away**2).mean())
        psi = cross - gram @ (inverse @ cross.mean(axis=0))
        onto = np.einsum("k,kab->ab", z, gram[:, :p]) / len(z) @ inverse
        return cls(psi, gram, inverse, z[:, None, None] * np.eye(p, p + 1) - onto, size)

    def test(self, plan: Plan) -> tuple[float, float] | None:
        """T and its p-value; None where scores do not vary."""
        stat = float(self.squares(np.ones((1, len(self.psi))))[0])
        if not np.isfinite(stat):
            return None
        above, wide = 0, self.load.shape[1]
        for signs in plan.chunks():
            for part in np.array_split(signs, max(1, signs.shape[0] * wide // 500)):
                drawn = self.squares(part)
                above += int((np.nan_to_num(drawn, nan=np.inf) >= stat * (1.0 - 1e-9)).sum())
        return stat, plan.share(above)

    @cached_property
    def effective(self) -> Array:
        """(K, P) scores of x times the effects, whose mean does not depend on the fitted effects to first order."""
        return np.asarray(np.einsum("kij,kj->ki", self.load, self.psi))

    @cached_property
    def _response(self) -> Array:
        """(P + 1, K P) what the effective scores lose when the fitted effects rise by one."""
        lost: Array = self.load @ self.gram
        return lost.reshape(-1, lost.shape[2]).T

    def squares(self, signs: Array) -> Array:
        """(B,) statistics of scores times (B, K) signs, direct and mediator effects being solved again in each."""
        step = signs @ self.psi @ self.inverse / len(self.psi)
        drawn = signs[:, :, None] * self.effective
        return _hotelling(drawn - (step @ self._response).reshape(drawn.shape))


def _hotelling(own: Array) -> Array:
    """(B,) K m'S^-1 m with m and S mean and mean square of (B, K, P) scores; NaN where S has not full rank."""
    k, p = own.shape[1:]
    mean = own.mean(axis=1)
    if p == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Array = k**2 * mean[:, 0] ** 2 / np.einsum("bki,bki->b", own, own)
        return out
    spread = np.swapaxes(own, 1, 2) @ own / k
    rank = np.linalg.matrix_rank(spread, hermitian=True) == p
    safe = np.where(rank[:, None, None], spread, np.eye(p))
    t = k * (mean * np.linalg.solve(safe, mean[:, :, None])[:, :, 0]).sum(axis=1)
    return np.where(rank, t, np.nan)


def moderated(effects: SiteEffects, x: Array) -> Adjusted:
    """Effects at the mean of x, and how they change with x; corrected for sampling error, weighted as in 2SLS.

    Parameters
    ----------
    effects : SiteEffects
    x : (K,) array
        In the order of the sites that have estimates (`Signal.sites`).

    Returns
    -------
    Adjusted

    Notes
    -----
    Normal equations of itt on (g, (x - xbar) g) from corrected products, without a direct effect, as the estimate that
    is adjusted has none; the two fits have site influences, and the gap is judged by the sum of squares of their
    difference, with factor K / (K - 2P).

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    >>> found = moderated(effects, np.log(Signal.of(effects, "2sls").weight))
    >>> found.effect.round(2).tolist(), found.unadjusted.round(2).tolist()
    ([-1.1], [-1.19])
    """
    signal = Signal.of(effects, "2sls")
    p, k = signal.n_mediators, len(signal.sites)
    away = x - x.mean()
    scale = float(np.sqrt((away**2).mean()))
    if k <= 2 * p or not varies(x):
        return Adjusted.none(p, "too few sites" if k <= 2 * p else "it is the same in all sites")
    turn = np.column_stack([np.ones(k), away / scale])
    pairs = np.einsum("ki,kj->kij", turn, turn)
    wide, seen = (_crossed(pairs, s[:, 1:-1, 1:-1]) for s in (signal.products, signal.observed))
    right = np.einsum("ki,ka->kia", turn, signal.products[:, 1:-1, 0]).reshape(k, 2 * p)
    without = _solve(wide[:, :p, :p], seen[:, :p, :p], right[:, :p])
    with_x = _solve(wide, seen, right, least=_FAINT)
    if without is None:
        return Adjusted.none(p, "compliance is no more than noise")
    if with_x is None:
        none = Adjusted.none(p, "the product of compliance and the covariate is hardly more than noise")
        return replace(none, unadjusted=frozen(without[0]))
    (plain, own), (full, both) = without, with_x
    factor = np.sqrt(k / (k - 2.0 * p))
    error = factor * np.sqrt((both**2).sum(axis=0))
    return Adjusted(
        effect=frozen(full[:p]),
        effect_se=frozen(error[:p]),
        slope=frozen(full[p:] / scale),
        slope_se=frozen(error[p:] / scale),
        unadjusted=frozen(plain),
        gap=frozen(full[:p] - plain),
        gap_se=frozen(factor * np.sqrt(((both[:, :p] - own) ** 2).sum(axis=0))),
    )


def _crossed(pairs: Array, blocks: Array) -> Array:
    """(K, 2P, 2P) Kronecker products."""
    k, p = blocks.shape[:2]
    out: Array = np.einsum("kij,kab->kiajb", pairs, blocks).reshape(k, 2 * p, 2 * p)
    return out


def _solve(gram: Array, observed: Array, right: Array, *, least: float = 0.0) -> tuple[Array, Array] | None:
    """Coefficients and the influence of each site; None where the share that is not noise is below ``least``."""
    inverse, left = corrected_inverse(gram.sum(axis=0), observed.sum(axis=0))
    if inverse is None or left < least:
        return None
    b = inverse @ right.sum(axis=0)
    return b, (right - gram @ b) @ inverse
