"""Whether mediator effects go with a known property of sites: score tests by random signs, and adjusted effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.design import Label
from msmmiv.estimate.site_moments import corrected_inverse, estimated, site_rows, weighted_products
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.inference.wild_draws import Plan, plan_draws
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["LEAST_SITES", "Adjusted", "Signal", "least_sites", "moderated", "moderation_test"]

Balance: TypeAlias = Literal["2sls", "tempered", "equal"]

#: Sites below which the test has not been shown to hold its size, with one or two mediators.
LEAST_SITES = 12
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
    products : (K, 1 + P, 1 + P) array
        sum_de Omega_de (r_d r_e' - V_de) with r = (itt, compliances), times the site's balance.
    observed : (K, 1 + P, 1 + P) array
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
        observed, noise = weighted_products(effects, "precision")
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
        return int(self.products.shape[1]) - 1


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
    signal: Signal, x: Array, *, name: str, null: str, draws: int = 999, seed: int = 0
) -> TestResult:
    """Test that mediator effects do not change with a known number of each site.

    It divides by no estimated slope on x and keeps its size with noisy compliances, estimated variances and effects
    that differ between sites, from 12 sites on (docs/validation/independence.csv).

    Parameters
    ----------
    signal : Signal
    x : (K,) array
        In the order of ``signal.sites``.
    name, null : str
        For the result.
    draws, seed : int
        Of the random signs.

    Returns
    -------
    TestStatistic or NotApplicable
        Not applicable with few sites, an x that does not vary, or compliances that are noise.

    Notes
    -----
    Model itt_s = (delta + Theta (x_s - xbar))'g_s. With S_s the corrected products of a site, scores are
    psi_s = S_gb - S_gg d and x_s psi_s; d solves sum psi = 0. Effective scores e_s = (x_s I - B A^-1) psi_s with
    A = sum S_gg, B = sum x S_gg do not depend on d to first order, and T = K ebar'(sum e e' / K)^-1 ebar. Its law comes
    from psi*_s = eta_s psi_s with random signs eta: d is solved again from each draw, so that scores shrink in the
    draws as they did in the data. F would be too strict with few sites.

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
    if k < least_sites(p):
        why = f"too few sites: {k}; the test is made for {least_sites(p)} or more"
        return NotApplicable(name, why)
    away = x - x.mean()
    if np.abs(away).max() <= 1e-10 * max(float(np.abs(x).max()), 1e-300):
        return NotApplicable(name, "it is the same in all sites")
    plan = plan_draws(k, 2 * p, "rademacher", draws, seed)
    found = _signed_scores(_units(signal), away / np.sqrt((away**2).mean()), plan)
    if isinstance(found, str):
        return NotApplicable(name, found)
    stat, pvalue = found
    return TestStatistic(name, null, stat, pvalue, p, law=f"random signs ({plan.words})")


def _units(signal: Signal) -> tuple[Array, Array]:
    """Products and observed ones with every column measured by its root mean square: units cost no digits."""
    size = np.sqrt(np.einsum("kaa->a", signal.observed) / len(signal.sites))
    unit = np.outer(*[np.where(size > 0, size, 1.0)] * 2)
    return signal.products / unit, signal.observed / unit


def _signed_scores(products: tuple[Array, Array], x: Array, plan: Plan) -> tuple[float, float] | str:
    """T and its p-value, or why there is none."""
    clean, observed = products
    gg, gb = clean[:, 1:, 1:], clean[:, 1:, 0]
    inverse, _ = corrected_inverse(gg.mean(axis=0), observed[:, 1:, 1:].mean(axis=0))
    if inverse is None:
        return "compliance varies no more than noise"
    psi = gb - gg @ (inverse @ gb.mean(axis=0))
    p = psi.shape[1]
    onto = np.einsum("k,kab->ab", x, gg) / len(x) @ inverse
    load = x[:, None, None] * np.eye(p) - onto
    stat = float(_squares(psi[None], gg, inverse, load)[0])
    if not np.isfinite(stat):
        return "the scores of the sites do not vary"
    above = 0
    for signs in plan.chunks():
        for part in np.array_split(signs, max(1, signs.shape[0] * p * p // 2000)):
            drawn = _squares(part[:, :, None] * psi, gg, inverse, load)
            above += int((np.nan_to_num(drawn, nan=np.inf) >= stat * (1.0 - 1e-9)).sum())
    return stat, plan.share(above)


def _squares(psi: Array, gg: Array, inverse: Array, load: Array) -> Array:
    """(B,) Hotelling-type statistics of (B, K, P) scores, the nuisance solved again in each."""
    k, p = psi.shape[1:]
    step = psi.mean(axis=1) @ inverse
    away = psi - np.einsum("kpq,bq->bkp", gg, step)
    own = away * load[:, 0] if p == 1 else np.einsum("kij,bkj->bki", load, away)
    mean = own.mean(axis=1)
    if p == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Array = k * mean[:, 0] ** 2 / (own[:, :, 0] ** 2).mean(axis=1)
        return out
    spread = np.einsum("bki,bkj->bij", own, own) / k
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
    Normal equations of itt on (g, (x - xbar) g) from corrected products; the two fits have site influences, and the gap
    is judged by the sum of squares of their difference, with factor K / (K - 2P).

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
    if k <= 2 * p or scale <= 1e-10 * max(float(np.abs(x).max()), 1e-300):
        return Adjusted.none(p, "too few sites" if k <= 2 * p else "it is the same in all sites")
    turn = np.column_stack([np.ones(k), away / scale])
    pairs = np.einsum("ki,kj->kij", turn, turn)
    wide, seen = (_crossed(pairs, s[:, 1:, 1:]) for s in (signal.products, signal.observed))
    right = np.einsum("ki,ka->kia", turn, signal.products[:, 1:, 0]).reshape(k, 2 * p)
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
