"""Rows of a between-site regression and products of them whose sampling error is corrected exactly.

A row is a site (and arm): effects on the outcome and the mediators, estimated on the same people, with a
known joint sampling covariance. Products of estimated effects are biased for products of true effects;
`corrected_product` removes that, for any number of factors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.errors import ChoiceError, MomentsInsufficient, TooFewSitesError, count, listing
from msmmiv.linalg import Array, Codes, frozen, group_sum
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = [
    "SiteRows",
    "SiteWeights",
    "corrected_inverse",
    "corrected_product",
    "estimated",
    "noise_effects",
    "site_rows",
    "weighted_products",
    "with_direct_effect",
]

#: Share of the observed variation of the regressors below which what is left after correction is rounding.
_TINY = 1e-10

SiteWeights: TypeAlias = Literal["equal", "precision"]


@dataclass(frozen=True, eq=False)
class SiteRows:
    """Rows of sites and arms that have estimates.

    Attributes
    ----------
    site : (R,) array of int
        Position of the site in ``effects.sites``.
    values : (R, 1 + P) array
        itt, then compliances.
    cov : (R, 1 + P, 1 + P) array
        Their joint sampling covariance.
    precision : (R,) array
        Weight of the row in 2SLS.
    n_sites : int
        K, sites without rows included.
    """

    site: Codes
    values: Array
    cov: Array
    precision: Array
    n_sites: int

    @property
    def usable_sites(self) -> int:
        """Sites with at least one row."""
        return int(np.count_nonzero(np.bincount(self.site)))

    def weights(self, kind: SiteWeights) -> Array:
        """(R,) weights that sum to one."""
        raw = self.precision if kind == "precision" else np.ones(len(self.site))
        return np.asarray(raw / raw.sum())

    def by_site(self, rows: Array) -> Array:
        """Sum (R, ...) rows within sites: (K, ...)."""
        return group_sum(rows, self.site, self.n_sites)


def noise_effects(source: Moments | SiteEffects) -> SiteEffects:
    """Site effects with a sampling covariance in every site, clusters heeded; effects as they are.

    Raises
    ------
    ChoiceError
        Neither moments nor effects.

    Examples
    --------
    >>> import msmmiv as mm
    >>> noise_effects(mm.data.star()).cov_type
    'pooled'
    """
    if isinstance(source, SiteEffects):
        return source
    if not isinstance(source, Moments):
        raise ChoiceError(
            f"Moments or SiteEffects are needed, not {type(source).__name__}. From rows use Study(data, design), from "
            "a table SiteEffects.from_table()."
        )
    return SiteEffects.from_moments(source, cov_type="pooled" if source.clusters else "unbiased")


def estimated(effects: SiteEffects) -> npt.NDArray[np.bool_]:
    """(K, D) whether a site has estimates for an arm.

    Examples
    --------
    >>> import msmmiv as mm
    >>> int(estimated(mm.SiteEffects.from_moments(mm.data.star())).sum())
    79
    """
    return np.asarray(np.isfinite(effects.estimates).all(axis=2))


def site_rows(effects: SiteEffects) -> SiteRows:
    """The rows of sites and arms that have estimates, after checking that each has a sampling covariance.

    Raises
    ------
    MomentsInsufficient
        A site has estimates but no sampling covariance.
    TooFewSitesError
        No site has estimates.

    Examples
    --------
    >>> import msmmiv as mm
    >>> site_rows(mm.SiteEffects.from_moments(mm.data.star())).values.shape
    (79, 2)
    """
    have = estimated(effects)
    if not have.any():
        raise TooFewSitesError("No site has estimates: every site lacks the control or the treatment arm.")
    _check_covariance(effects)
    cov = np.einsum("kdadb->kdab", effects.cov)[have]
    precision = np.einsum("kdd->kd", effects.precision)[have]
    return SiteRows(np.nonzero(have)[0], effects.estimates[have], cov, precision, len(effects.sites))


def _check_covariance(effects: SiteEffects) -> None:
    """Refuse effects whose sampling covariance is missing where there are estimates."""
    have = estimated(effects)
    both = have[:, :, None] & have[:, None, :]
    missing = both & ~np.isfinite(effects.cov).all(axis=(2, 4))
    bad = np.asarray(missing.any(axis=(1, 2)))
    if not bad.any():
        return
    names = [s for s, b in zip(effects.sites, bad, strict=True) if b]
    where = "every site" if bad.all() else listing(names)
    raise MomentsInsufficient(
        f"The sampling covariance ({effects.cov_type}) of {count(len(names), 'site')} is missing: {where}. "
        "An arm there has one row or is one cluster, or the covariance needs the rows. Use one that borrows from other "
        "sites, cov_type='unbiased' or 'pooled' in SiteEffects.from_moments, or leave these sites out."
    )


def corrected_product(values: Array, cov: Array, factors: tuple[int, ...]) -> Array:
    """Products of columns of ``values`` whose expectation is the product of their true values.

    Use it where a plain product of estimates would carry their sampling variances and covariances.

    Parameters
    ----------
    values : (..., R, m) array
        Estimates; leading axes are samples.
    cov : (R, m, m) or (..., R, m, m) array
        Their known sampling covariances.
    factors : tuple of int
        Columns to multiply; a column may occur more than once.

    Returns
    -------
    (..., R) array

    Notes
    -----
    For normal errors, H(i, rest) = x_i H(rest) - sum_{j in rest} V_ij H(rest without j): the Hermite
    polynomial in several variables. Two factors give x_i x_j - V_ij whatever the distribution.

    Examples
    --------
    >>> corrected_product(np.array([[2.0]]), np.array([[[0.5]]]), (0, 0, 0)).tolist()
    [5.0]
    """
    if not factors:
        return np.ones(values.shape[:-1])
    first, rest = factors[0], factors[1:]
    out: Array = values[..., first] * corrected_product(values, cov, rest)
    for j, other in enumerate(rest):
        out = out - cov[..., first, other] * corrected_product(values, cov, rest[:j] + rest[j + 1 :])
    return out


def corrected_inverse(corrected: Array, observed: Array) -> tuple[Array | None, float]:
    """Inverse of a Gram matrix from which sampling error was removed, if that left it positive definite.

    Use it wherever corrected normal equations are solved: a matrix that has lost its sign against the observed one
    is not to be inverted, whatever the units of its columns.

    Parameters
    ----------
    corrected, observed : (k, k) arrays
        Cross-products of regressors with and without the correction (`corrected_product`).

    Returns
    -------
    inverse : (k, k) array or None
        None where no positive share is left, or the observed columns depend on one another.
    left : float
        The smallest share of observed variation, over all combinations of the regressors, that is not noise.

    Examples
    --------
    >>> inverse, left = corrected_inverse(np.diag([1.0, 2.0]), np.diag([4.0, 4.0]))
    >>> inverse.tolist(), left
    ([[1.0, 0.0], [0.0, 0.5]], 0.25)
    >>> corrected_inverse(np.array([[-1.0]]), np.array([[4.0]]))
    (None, -0.25)
    """
    scale = np.sqrt(np.diag(observed))
    scale = np.where(scale > 0, scale, 1.0)
    unit = np.outer(scale, scale)
    values, vectors = np.linalg.eigh(observed / unit)
    keep = values > _TINY * max(float(values[-1]), np.finfo(float).tiny)
    if not keep.all():
        return None, 0.0
    half = vectors / np.sqrt(values)
    shares, rotation = np.linalg.eigh(half.T @ (corrected / unit) @ half)
    if shares[0] <= _TINY:
        return None, float(shares[0])
    turned = half @ rotation
    return (turned / shares) @ turned.T / unit, float(shares[0])


def with_direct_effect(effects: SiteEffects) -> SiteEffects:
    """A last mediator that every arm moves by one, known without error: its coefficient is a direct effect.

    Examples
    --------
    >>> import msmmiv as mm
    >>> e = with_direct_effect(mm.SiteEffects.from_moments(mm.data.star()))
    >>> e.mediators, e.estimates[:2, 0, -1].tolist()
    (('class_size', 'direct effect'), [1.0, 1.0])
    """
    k, d, m = effects.estimates.shape
    cov = np.zeros((k, d, m + 1, d, m + 1))
    cov[:, :, :m, :, :m] = effects.cov
    ones = np.where(estimated(effects)[:, :, None], 1.0, np.nan)
    return replace(
        effects, mediators=(*effects.mediators, "direct effect"),
        estimates=frozen(np.concatenate([effects.estimates, ones], axis=2)), cov=frozen(cov),
    )  # fmt: skip


def weighted_products(effects: SiteEffects, weights: SiteWeights) -> tuple[Array, Array]:
    """Cross-products of effects in each site and the part of them that is sampling noise.

    Parameters
    ----------
    effects : SiteEffects
    weights : {"precision", "equal"}
        The cross-products of the treatment contrasts (as 2SLS has it), or one for every row.

    Returns
    -------
    observed, noise : (K, 1 + P, 1 + P) arrays
        sum_de Omega_de r_d r_e' and sum_de Omega_de V_de over the arms of each site.

    Examples
    --------
    >>> import msmmiv as mm
    >>> e = mm.SiteEffects.from_moments(mm.data.star())
    >>> n = weighted_products(e, "precision")[0].sum(axis=0)
    >>> round(float(n[1, 0] / n[1, 1]), 5)  # two-stage least squares
    -1.11376
    """
    have = estimated(effects)
    both = have[:, :, None] & have[:, None, :]
    omega = effects.precision if weights == "precision" else np.eye(have.shape[1])[None]
    omega = np.where(both, omega, 0.0)
    r = np.where(have[:, :, None], effects.estimates, 0.0)
    v = np.where(both[:, :, None, :, None], effects.cov, 0.0)
    observed = np.einsum("kde,kda,keb->kab", omega, r, r, optimize=True)
    noise = np.einsum("kde,kdaeb->kab", omega, v)
    return observed, (noise + noise.transpose(0, 2, 1)) / 2.0
