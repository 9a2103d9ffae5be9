"""The rule behind `Study.fit()` without arguments: what to report, from how many sites and how strong they are.

The rule was chosen by simulation (docs/validation.md has the table and the command): 5 to 100 sites, effects
that differ between sites or not, one and two mediators, Gaussian, skewed and binary data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.errors import DataError, MomentsInsufficient, count
from msmmiv.estimate.system import System
from msmmiv.estimate.ujive import noise_products
from msmmiv.inference.covariance import CovType, SmallSample
from msmmiv.inference.results import Interval

__all__ = ["Recommendation", "Strength", "recommend", "strength_of"]

#: Strength above which Wald intervals hold; more where classes are randomised, whose noise is itself uncertain.
ENOUGH, ENOUGH_CLUSTERED = 6.0, 10.0
#: Sites from which the score set costs so little that one effect does not need the gate.
MANY = 50
#: Fewest sites of the simulations.
FEWEST = 5


@dataclass(frozen=True)
class Strength:
    """How much the instruments move the mediators, in the direction they move least.

    Attributes
    ----------
    f_min : float
        Smallest effective F: explained cross-products over what noise alone explains, one if irrelevant.
    z : float
        Explained less noise over the standard error of the noise; about standard normal if irrelevant.
    """

    f_min: float
    z: float


@dataclass(frozen=True)
class Recommendation:
    """What the rule chose, and why in words."""

    estimator: str
    cov_type: CovType | None
    small_sample: SmallSample | None
    interval: Interval
    text: str


def strength_of(system: System) -> Strength:
    """Strength of the instruments against the noise of site effects; clusters are heeded.

    Notes
    -----
    With N the explained cross-products of the mediators (exogenous regressors partialled out), B what noise adds
    to them, and x the direction with the smallest x'N x / x'B x: F = x'N x / x'B x and
    z = x'(N - B) x / sqrt(2 sum_s trace(W_s V_s W_s V_s)), V_s the noise variance of x'g_s and W_s its weight.

    Raises
    ------
    DataError, MomentsInsufficient
        As `site_noise`: the noise cannot be estimated.
    """
    cov = system.noise.cov
    noise = noise_products(system, cov)[:, 1:, 1:].sum(axis=0)
    signal = system.reduced_form.between[1:, 1:]
    scale = np.sqrt(np.diag(signal))
    size = np.outer(scale, scale)
    # Generalised eigenvalues through the matrix that is surely positive definite, so noise may be singular.
    root = np.linalg.inv(np.linalg.cholesky(signal / size))
    values, vectors = np.linalg.eigh(root @ (noise / size) @ root.T)
    if values[-1] <= 1e-14:
        return Strength(float("inf"), float("inf"))
    x = (root.T @ vectors[:, -1]) / scale
    inside = np.einsum("kdaeb,a,b->kde", np.nan_to_num(cov[:, :, 1:, :, 1:]), x, x)
    part = system.own_weight @ inside
    spread = 2.0 * float(np.einsum("kde,ked->", part, part))
    excess = float(x @ (signal - noise) @ x)
    return Strength(1.0 / float(values[-1]), excess / spread**0.5 if spread > 0 else float("inf"))


def recommend(system: System) -> Recommendation:
    """Estimator, covariance and interval by the rule that the validation table is about.

    Parameters
    ----------
    system : System

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate import system_of
    >>> chosen = recommend(system_of(mm.data.star()))
    >>> chosen.estimator, chosen.interval
    ('ujive', 'score')
    """
    m = system.within.moments
    sites, size = m.n_sites, system.n_mediators + system.n_direct
    if sites - size < 2:
        return Recommendation(
            "2sls", None, None, "wald",
            f"{count(sites, 'site')} and {count(size, 'effect')} between them leave fewer than 2 degrees of "
            "freedom: nothing can be said about a population of sites, and no interval here is validated. 2SLS with "
            "the sites held fixed; anderson_rubin_set(robust=False) is exact for normal errors of equal variance, if "
            "effects are the same in all sites.",
        )  # fmt: skip
    try:
        strength = strength_of(system)
    except (DataError, MomentsInsufficient) as error:
        return Recommendation(
            "2sls", "site", "CR3", "wald",
            f"UJIVE is not available: {_reason(error)}. So this is 2SLS with a jackknife over sites; it is biased "
            "toward least squares within arms unless the first-stage F is large, and its interval is not validated.",
        )  # fmt: skip
    return _with_strength(system, strength, sites, size)


def _reason(error: Exception) -> str:
    """The message of an error as the rest of a sentence."""
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]


def _with_strength(system: System, strength: Strength, sites: int, size: int) -> Recommendation:
    clustered = bool(system.within.moments.clusters)
    enough = ENOUGH_CLUSTERED if clustered else ENOUGH
    facts = (
        f"{sites} sites, smallest effective F {strength.f_min:.3g} (each site's own noise), strength {strength.z:.3g} "
        f"(enough: {enough:g}{', clusters' if clustered else ''})"
    )
    why = "2SLS is biased toward least squares within arms by about 1/F of the gap between them; UJIVE is not"
    beyond = (
        "" if size < 3 else f" The rule was validated for up to two effects between sites; here are {size}."
    )
    if sites < FEWEST:
        beyond += f" It was simulated from {FEWEST} sites on; here are {sites}."
    if size == 1 and sites >= MANY:
        how = f"from {MANY} sites on, its interval is the set of values that the site scores do not reject"
        return Recommendation("ujive", "site", None, "score", f"{facts}: {why}; {how}.")
    if strength.z > enough:
        kind: SmallSample = "CR2" if size == 1 else "CR3"
        name = "CR2 with Bell-McCaffrey degrees of freedom" if size == 1 else "the jackknife over sites (CR3)"
        return Recommendation("ujive", "site", kind, "wald", f"{facts}: {why}; {name} holds.{beyond}")
    how = (
        "instruments are weak, so the interval is the set of values that the site scores do not reject (cautious: with "
        "few sites it covers up to 99.7% in simulations); where it is unbounded the data do not bound the effect"
    )
    return Recommendation("ujive", "site", None, "score", f"{facts}: {why}; {how}.{beyond}")
