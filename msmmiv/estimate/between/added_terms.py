"""Score tests of terms added to a regression over sites whose regressors, and their powers, carry sampling error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from msmmiv.errors import DataError
from msmmiv.estimate.site_moments import corrected_product
from msmmiv.linalg import Array, Codes, group_sum_along

__all__ = ["AddedTerms", "Term", "added_terms", "hotelling"]

#: Share of the observed variation below which what the correction leaves of it is rounding.
_TINY = 1e-10


@dataclass(frozen=True, eq=False)
class Term:
    """A regressor: known numbers times a product of columns that carry sampling error.

    Attributes
    ----------
    name : str
    columns : tuple of int
        Columns of ``values`` to multiply; one may occur more than once, and none makes the regressor exact.
    factor : (K,) or (..., K) array, optional
        Known numbers; ones by default.

    Examples
    --------
    >>> Term("compliance squared", (1, 1)).columns
    (1, 1)
    """

    name: str
    columns: tuple[int, ...] = ()
    factor: Array | None = None


@dataclass(frozen=True, eq=False)
class AddedTerms:
    """What the scores of added terms say; leading axes are samples.

    Attributes
    ----------
    base, added : tuple of str
        Names of the q terms that are fitted and the a that are tested.
    statistic : (...,) array
        Hotelling's T^2 of the effective scores as F. NaN where not ``ok`` and where the scores do not vary.
    df : int
        a.
    df_denom : float
        Sites less q + a.
    base_coefficients : (..., q) array
        Fitted without the added terms.
    score : (..., a) array
        Mean over sites of the effective scores.
    spread : (..., a, a) array
        Their covariance between sites (divided by the number of sites).
    sensitivity : (..., a, a) array
        How the mean score rises with the coefficients of the added terms; NaN unless asked for.
    onto : (..., a, q) array
        What is taken of the base scores from each added one: G_10 G_00^-1.
    left : (...,) array
        Smallest share of the observed variation of the base regressors that is not sampling error.
    ok : (...,) array of bool
        Whether the corrected cross-products of the base are positive definite.
    """

    base: tuple[str, ...]
    added: tuple[str, ...]
    statistic: Array
    df: int
    df_denom: float
    base_coefficients: Array
    score: Array
    spread: Array
    sensitivity: Array
    onto: Array
    left: Array
    ok: npt.NDArray[np.bool_]

    @property
    def pvalue(self) -> Array:
        """(...,) upper tail of F."""
        from scipy.special import fdtrc

        return np.asarray(fdtrc(self.df, self.df_denom, self.statistic))

    @cached_property
    def coefficients(self) -> Array:
        """(..., a) coefficients of the added terms in the fit of all terms; NaN where that fit does not exist."""
        return np.asarray(np.einsum("...ab,...b->...a", self._inverse, self.score))

    @property
    def fitted_base(self) -> Array:
        """(..., q) coefficients of the base terms in the fit of all terms."""
        return np.asarray(
            self.base_coefficients - np.einsum("...aq,...a->...q", self.onto, self.coefficients)
        )

    @property
    def covariance(self) -> Array:
        """(..., a, a) covariance of ``coefficients`` where they are small: sites are the sampled units."""
        inverse = self._inverse
        return np.asarray(inverse @ self.spread @ np.swapaxes(inverse, -1, -2) / self.df_denom)

    @property
    def std_errors(self) -> Array:
        """(..., a) standard errors of ``coefficients``."""
        return np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1))

    @cached_property
    def _inverse(self) -> Array:
        """Inverse of ``sensitivity`` where sampling error has left it positive definite."""
        a = self.df
        known = np.asarray(np.isfinite(self.sensitivity).all(axis=(-2, -1)))
        safe = np.where(known[..., None, None], self.sensitivity, np.eye(a))
        scale = np.sqrt(np.abs(np.diagonal(safe, axis1=-2, axis2=-1)))
        scale = np.where(scale > 0, scale, 1.0)
        unit = scale[..., :, None] * scale[..., None, :]
        good = np.asarray(known & (np.linalg.eigvalsh(safe / unit)[..., 0] > _TINY))
        safe = np.where(good[..., None, None], safe / unit, np.eye(a))
        return np.where(good[..., None, None], np.linalg.inv(safe) / unit, np.nan)


def added_terms(
    values: Array,
    cov: Array,
    *,
    base: Sequence[Term],
    added: Sequence[Term],
    weights: Array | None = None,
    response: int = 0,
    site: Codes | None = None,
    sensitivity: bool = True,
) -> AddedTerms:
    """Test whether terms belong in a regression over sites, with the sampling error of every regressor corrected.

    Use it for curvature, an intercept, or an interaction of estimated effects: least squares takes their sampling
    errors for violations. The test divides by the variation of the base regressors only, so that it exists where
    the coefficient of an added power does not.

    Parameters
    ----------
    values : (..., K, m) array
        Estimates, the response among them; leading axes are samples.
    cov : (K, m, m) or (..., K, m, m) array
        Their known sampling covariances.
    base : sequence of Term
        q regressors that are fitted; none is allowed.
    added : sequence of Term
        a regressors whose coefficients are zero under the null.
    weights : (K,) or (..., K) array, optional
        Row weights that do not depend on ``values``; equal by default.
    response : int
        Column that is explained.
    site : (K,) array of int, optional
        Rows of one site, coded 0, 1, ...: their scores are summed, and sites are the independent units.
    sensitivity : bool
        Compute how the score rises with the added coefficients, for coefficients and detectable violations. Simulated
        samples can do without.

    Returns
    -------
    AddedTerms

    Raises
    ------
    DataError
        Nothing to test.

    Notes
    -----
    With regressors h, psi_k(b) = w_k {E*[h_k y_k] - E*[h_k h_k'] b}, where E* stands for products whose expectation is
    that of the true values (`corrected_product`; exact for normal errors of known covariance). b solves sum psi_0 = 0
    for the base terms, and the effective scores of the added ones are s_k = psi_1k - G_10 G_00^-1 psi_0k, G the mean of
    E*[h h']. T^2 = K s'S^-1 s with S the covariance of s_k is referred to F(a, K - q - a) after the usual scaling. The
    coefficients of the added terms are (G_11 - G_10 G_00^-1 G_01)^-1 s exactly, and their standard errors follow.

    References
    ----------
    Cheng & Schneeweiss (1998), polynomial regression with errors in the variables.

    Examples
    --------
    >>> g = np.array([0.2, 0.5, 0.8, 1.1, 1.4, 2.0])
    >>> y = 1.0 + 2.0 * g + np.array([0.1, -0.1, 0.0, 0.2, -0.2, 0.1])
    >>> none = np.zeros((6, 2, 2))
    >>> found = added_terms(np.column_stack([y, g]), none, base=[Term("g", (1,))], added=[Term("one")])
    >>> found.coefficients.round(2).tolist(), found.df, found.df_denom
    ([1.01], 1, 4.0)
    """
    if not added:
        raise DataError("added_terms() needs at least one term to test.")
    terms, q = [*base, *added], len(base)
    products = _Products(np.asarray(values, dtype=float), np.asarray(cov, dtype=float), terms, weights)
    wide = len(terms) if sensitivity else q
    gram, cross = products.gram(wide), products.cross(response)
    plain = products.gram(q, observed=True)[..., :q, :]
    if site is not None:
        gram, cross, plain = (
            group_sum_along(part, site, axis) for part, axis in ((gram, -3), (cross, -2), (plain, -3))
        )
    k = cross.shape[-2]
    mean, right = gram.mean(axis=-3), cross.mean(axis=-2)
    inverse, left, ok = _corrected_inverses(mean[..., :q, :q], plain.mean(axis=-3))
    b = np.einsum("...pq,...q->...p", inverse, right[..., :q])
    psi = cross - np.einsum("...kpq,...q->...kp", gram[..., :q], b)
    onto = np.einsum("...ap,...pq->...aq", mean[..., q:, :q], inverse)
    score = psi[..., q:] - np.einsum("...aq,...kq->...ka", onto, psi[..., :q])
    average = score.mean(axis=-2)
    away = score - average[..., None, :]
    spread = np.einsum("...ka,...kb->...ab", away, away) / k
    rise = np.full(spread.shape, np.nan)
    if sensitivity:
        rise = mean[..., q:, q:] - onto @ mean[..., :q, q:]
    df = float(k - len(terms))
    return AddedTerms(
        base=tuple(t.name for t in base),
        added=tuple(t.name for t in added),
        statistic=hotelling(average, spread, df),
        df=len(added),
        df_denom=df,
        base_coefficients=b,
        score=average,
        spread=spread,
        sensitivity=rise,
        onto=onto,
        left=left,
        ok=ok,
    )


class _Products:
    """Products of terms whose expectation is that of true values; each product of columns is computed once."""

    def __init__(self, values: Array, cov: Array, terms: Sequence[Term], weights: Array | None) -> None:
        self._values, self._cov, self._terms, self._weights = values, cov, terms, weights
        self._known: dict[tuple[int, ...], Array] = {}

    def gram(self, wide: int, *, observed: bool = False) -> Array:
        """(..., K, k, wide) products of all terms with the first ``wide``."""
        k = len(self._terms)
        if not wide:
            return np.zeros((*self._shape, k, 0))
        rows = [
            [self._product(i, self._terms[j], observed=observed) for j in range(wide)] for i in self._terms
        ]
        return self._weighted([part for row in rows for part in row]).reshape(*self._shape, k, wide)

    def cross(self, response: int) -> Array:
        """(..., K, k) products of all terms with the response."""
        return self._weighted([self._product(t, Term("", (response,))) for t in self._terms])

    @property
    def _shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(
            self._values.shape[:-1],
            self._cov.shape[:-2],
            *(t.factor.shape for t in self._terms if t.factor is not None),
            () if self._weights is None else self._weights.shape,
        )

    def _weighted(self, parts: list[Array]) -> Array:
        out = np.stack([np.broadcast_to(part, self._shape) for part in parts], axis=-1)
        return out if self._weights is None else out * self._weights[..., None]

    def _product(self, one: Term, two: Term, *, observed: bool = False) -> Array:
        columns = tuple(sorted(one.columns + two.columns))
        if observed:
            out: Array = np.prod(self._values[..., list(columns)], axis=-1)
        else:
            if columns not in self._known:
                self._known[columns] = corrected_product(self._values, self._cov, columns)
            out = self._known[columns]
        for term in (one, two):
            out = out if term.factor is None else out * term.factor
        return out


def _corrected_inverses(corrected: Array, observed: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Inverses of matrices that lost their sampling error, NaN where they are not positive against the observed ones.

    The arithmetic of `corrected_inverse`, for many samples at once.
    """
    shape, q = corrected.shape[:-2], corrected.shape[-1]
    if not q:
        return np.zeros(corrected.shape), np.ones(shape), np.ones(shape, dtype=bool)
    if q == 1:  # one mediator through the origin: the case that simulations repeat
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(observed > 0, corrected / observed, 0.0)
            ok = left > _TINY
            return np.where(ok, 1.0 / corrected, np.nan), left[..., 0, 0], ok[..., 0, 0]
    scale = np.sqrt(np.diagonal(observed, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, 1.0)
    unit = scale[..., :, None] * scale[..., None, :]
    values, vectors = np.linalg.eigh(observed / unit)
    full = values[..., 0] > _TINY * np.maximum(values[..., -1], np.finfo(float).tiny)
    half = vectors / np.sqrt(np.where(full[..., None], values, 1.0))[..., None, :]
    shares, rotation = np.linalg.eigh(np.swapaxes(half, -1, -2) @ (corrected / unit) @ half)
    left = np.where(full, shares[..., 0], 0.0)
    ok = left > _TINY
    turned = half @ rotation
    inverse = (turned / np.where(ok[..., None], shares, np.nan)[..., None, :]) @ np.swapaxes(turned, -1, -2)
    return inverse / unit, left, ok


def hotelling(average: Array, spread: Array, df: float) -> Array:
    """Hotelling's T^2 of mean scores as F, over leading axes.

    Parameters
    ----------
    average : (..., a) array
        Mean scores.
    spread : (..., a, a) array
        Covariance of the scores, divided by their number.
    df : float
        Degrees of freedom of the denominator.

    Returns
    -------
    (...,) array
        NaN where scores do not vary or no degrees of freedom are left.

    Examples
    --------
    >>> float(hotelling(np.array([2.0]), np.array([[4.0]]), 10.0))
    10.0
    """
    a = average.shape[-1]
    if a == 1:
        variance = spread[..., 0, 0]
        usable = np.asarray((variance > 0) & (df > 0))
        return np.where(usable, df * average[..., 0] ** 2 / np.where(usable, variance, 1.0), np.nan)
    size = np.sqrt(np.diagonal(spread, axis1=-2, axis2=-1))
    usable = np.asarray(np.isfinite(spread).all(axis=(-2, -1)) & (size > 0).all(axis=-1))
    size = np.where(usable[..., None], size, 1.0)
    unit = np.where(usable[..., None, None], spread / (size[..., :, None] * size[..., None, :]), np.eye(a))
    usable = np.asarray(usable & (np.linalg.matrix_rank(unit, hermitian=True) == a))
    unit = np.where(usable[..., None, None], unit, np.eye(a))
    z = average / size
    solved = np.linalg.solve(unit, z[..., None])[..., 0]
    out = df / a * (z * solved).sum(axis=-1)
    return np.where(usable & (df > 0), out, np.nan)
