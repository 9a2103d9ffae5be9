"""Spectrum: strength of each combination of mediators against what noise alone would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.inference.rank_tests import Directions, directions
from msmmiv.linalg import Array, frozen, gram_root
from msmmiv.progress import watched

__all__ = ["Spectrum", "spectrum"]

#: Numbers held at once while drawing the floor.
CHUNK = 4_000_000
#: Such pieces that take more than about two seconds.
_LONG = 10


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Strength of combinations of mediators, strongest first, and the floor that noise alone reaches.

    Attributes
    ----------
    mediators : tuple of str
    strength : (P,) array
        Explained over expected noise cross-products: near one without any compliance. For one mediator it is the
        effective F of Montiel Olea and Pflueger, the last is the smallest-eigenvalue statistic of Lewis and Mertens.
    combinations : (P, P) array
        One combination of mediators per column, in units of the mediators, noise cross-products one.
    weights : (P, P) array
        The same in units of each mediator's own noise.
    floor, floor_95 : (P,) arrays
        Mean and 95% quantile of each strength when it and all weaker ones are noise alone.
    pvalues : (P,) array
        Parametric bootstrap: rank below j, for direction j; tested one after the other, so that they do not fall.
    bias_share : (P,) array
        Share of the bias of OLS that 2SLS keeps along each direction; NaN from site effects alone, which
        do not hold what OLS uses.
    draws, seed : int
    """

    mediators: tuple[str, ...]
    strength: Array
    combinations: Array
    weights: Array
    floor: Array
    floor_95: Array
    pvalues: Array
    bias_share: Array
    draws: int
    seed: int

    @property
    def noise_share(self) -> Array:
        """(P,) bias of 2SLS over what it would be with instruments of pure noise, about 1 / strength."""
        return np.minimum(1.0, 1.0 / np.maximum(self.strength, np.finfo(float).tiny))

    @property
    def found(self) -> int:
        """Directions that stand out of the noise at 5%, tested one after the other."""
        return int((self.pvalues <= 0.05).sum())

    def to_frame(self) -> pd.DataFrame:
        """One row per direction: ``direction, strength, floor, floor_95, p_value``, shares of bias, weights."""
        frame = pd.DataFrame(
            {"direction": np.arange(1, 1 + len(self.strength)), "strength": self.strength, "floor": self.floor,
             "floor_95": self.floor_95, "p_value": self.pvalues, "noise_share": self.noise_share,
             "bias_share": self.bias_share}
        )  # fmt: skip
        return frame.assign(**{f"of {m}": self.weights[j] for j, m in enumerate(self.mediators)})


def spectrum(
    compliances: Compliances, *, residual: Array | None = None, draws: int = 999, seed: int = 0
) -> Spectrum:
    """Generalised eigenvalues of the explained cross-products with respect to the noise in them, with their floor.

    The estimated compliance matrix has full rank whatever is true, because of noise; what counts is how far each
    combination stands above what noise gives it.

    Parameters
    ----------
    compliances : Compliances
    residual : (P, P) array, optional
        Cross-products of first-stage residuals, for the comparison with least squares.
    draws : int
        Of the parametric bootstrap.
    seed : int

    Raises
    ------
    numpy.linalg.LinAlgError
        When a combination of mediators has no sampling error.

    Notes
    -----
    With N explained and Phi expected noise cross-products, ``E N = signal + Phi``; roots of ``N c = l Phi c`` are
    near one for combinations without compliance, and the bias of 2SLS along a direction is about 1 / l of what it
    would be with instruments of pure noise. Least squares divides the endogenous part of all variation, c'(Phi + W)c
    with W the residuals, by all of it, c'(N + W)c: it is less biased than noise where the treatment explains much of a
    mediator, and ``bias_share`` is the larger. For direction j, slopes are set to zero along it and all weaker ones,
    errors with each site's covariance are added, and the j-th root is taken, ``draws`` times. Where one variance
    serves all sites, it is drawn as well.
    """
    found = directions(compliances.explained, compliances.expected_noise)
    floors = _floors(compliances, found, draws=draws, seed=seed)
    unit = np.sqrt(np.diag(compliances.expected_noise))
    # Signs are free: the largest weight of each combination is positive.
    weights = found.combinations * unit[:, None]
    lead = np.sign(weights[np.abs(weights).argmax(axis=0), np.arange(len(unit))])
    weights = weights * lead / np.linalg.norm(weights, axis=0)
    return Spectrum(
        mediators=compliances.mediators,
        strength=found.roots,
        combinations=frozen(found.combinations * lead),
        weights=frozen(weights),
        floor=frozen(floors.mean(axis=0)),
        floor_95=frozen(np.quantile(floors, 0.95, axis=0)),
        pvalues=frozen(np.maximum.accumulate((1 + (floors >= found.roots).sum(axis=0)) / (draws + 1))),
        bias_share=frozen(_bias_share(compliances, found, residual)),
        draws=draws,
        seed=seed,
    )


def _bias_share(c: Compliances, found: Directions, residual: Array | None) -> Array:
    """Bias of 2SLS over that of OLS along each direction, endogeneity being in proportion to noise."""
    if residual is None:
        return np.full(c.n_mediators, np.nan)
    to = found.combinations
    both = np.einsum("pj,pq,qj->j", to, residual, to)
    with np.errstate(divide="ignore"):
        share = (1.0 / found.roots) * (found.roots + both) / (1.0 + both)
    out: Array = np.minimum(1.0, share)
    return out


def _floors(c: Compliances, found: Directions, *, draws: int, seed: int) -> Array:
    """(draws, P) roots of each direction with it and all weaker ones set to zero."""
    slopes, cov, projection, df = c.slopes, c.cov, c.projection, c.pooled_df
    k, d, p = slopes.shape
    rng = np.random.default_rng(seed)
    to = found.combinations
    root = gram_root(np.einsum("pu,kdpeq,qv->kduev", to, cov, to, optimize=True).reshape(k, d * p, d * p))
    signal = slopes @ to
    out = np.empty((draws, p))
    size = max(1, CHUNK // slopes.size)
    starts = range(0, draws, size)
    for start in watched(starts, what="noise floor", show=len(starts) > _LONG):
        some = min(size, draws - start)
        errors = np.einsum("bkm,kmn->bkn", rng.standard_normal((some, k, d * p)), root, optimize=True)
        errors = errors.reshape(some, k, d, p)
        if np.isfinite(df):  # the unit of the strengths, one variance for all sites, is an estimate too
            errors *= np.sqrt(df / rng.chisquare(df, some))[:, None, None, None]
        noise = projection.explained(errors)
        cross = projection.product(np.broadcast_to(signal, errors.shape), errors)
        for j in range(p):
            kept = (np.arange(p) < j).astype(float)
            mixed = kept[:, None] * cross
            total = noise + mixed + np.swapaxes(mixed, -1, -2) + np.diag(kept * found.roots)
            out[start : start + some, j] = np.linalg.eigvalsh(total)[:, p - 1 - j]
    return out
