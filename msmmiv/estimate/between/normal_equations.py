"""Cross-products of the rows, the part of them that is sampling error, and what follows from their difference.

Every estimator that removes the errors from the normal equations (`BCES`, `CorrectedNormal`, `AdjustedDebiased`) is
built from `Corrected`; they differ in weights and in how the corrected matrix is inverted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msmmiv.errors import RankDeficientError, TooFewSitesError, count
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.linalg import Array, frozen, gram_solve, group_sum

__all__ = [
    "Corrected",
    "check_rows",
    "corrected",
    "degrees_of_freedom",
    "fit_of",
    "small_sample",
    "sum_by_site",
    "with_common",
]

#: Share of the observed variation below which what is left after correction is rounding.
_TINY = 1e-10
#: Share below which the correction has removed nearly everything, and the reader is told.
_FAINT = 0.05


@dataclass(frozen=True, eq=False)
class Corrected:
    """Weighted cross-products of (itt, compliances) net of the exogenous regressors, and their sampling errors.

    Attributes
    ----------
    w : (K,) array
        Weights.
    centred : (K, 1 + P) array
        (itt, compliances) less their weighted regression on z.
    slopes : (q, 1 + P) array
        The coefficients of that regression.
    inverse : (q, q) array
        (Z'WZ)^-1.
    noise : (K, 1 + P, 1 + P) array
        What row k adds to the expected error of the cross-products: sum_l M_kl V_kl with
        M = W - WZ(Z'WZ)^-1 Z'W, made symmetric.
    """

    w: Array
    centred: Array
    slopes: Array
    inverse: Array
    noise: Array

    @cached_property
    def observed(self) -> Array:
        """(1 + P, 1 + P) cross-products as they are."""
        return np.asarray((self.centred.T * self.w) @ self.centred)

    @cached_property
    def net(self) -> Array:
        """(1 + P, 1 + P) cross-products without sampling error."""
        return np.asarray(self.observed - self.noise.sum(axis=0))

    @cached_property
    def left(self) -> float:
        """Smallest share, over directions, of the variation of compliances that is not sampling error."""
        seen = self.observed[1:, 1:]
        size = np.sqrt(np.diag(seen))
        if (size <= 0).any():
            return -np.inf
        try:
            root = np.linalg.cholesky(seen / np.outer(size, size))
        except np.linalg.LinAlgError:
            return -np.inf
        half = np.linalg.solve(root, self.net[1:, 1:] / np.outer(size, size))
        return float(np.linalg.eigvalsh(np.linalg.solve(root, half.T))[0])

    @property
    def why_not(self) -> str | None:
        """Why the corrected matrix has no usable inverse, with the figure; None when it has one."""
        if self.left > _TINY:
            return None
        if self.left == -np.inf:
            return "denominator not positive: the compliances do not vary"
        many = self.net.shape[0] > 2
        which = "a combination of the compliances" if many else "the compliances"
        return (
            f"denominator not positive: sampling error is {1.0 - self.left:.0%} of the variation of {which} "
            "across rows, so nothing is left to regress on"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """A warning when almost nothing is left."""
        if self.why_not is not None or self.left >= _FAINT:
            return ()
        note = (
            f"denominator near zero: only {self.left:.1%} of the variation of compliance is not sampling error; so "
            "close to zero the estimate has no finite moments and its standard error says little."
        )
        return (note,)

    def scores(self, beta: Array) -> Array:
        """(K, P) w x (y - x'b) + f (V_u b - V_uv): they sum to zero at the solution."""
        x = self.centred[:, 1:]
        r = self.centred[:, 0] - x @ beta
        correction = np.einsum("kpq,q->kp", self.noise[:, 1:, 1:], beta) - self.noise[:, 1:, 0]
        return np.asarray((self.w * r)[:, None] * x + correction)

    def influence(self, rows: BetweenRows, beta: Array, of_beta: Array) -> Array:
        """(K, P + q) influence on all coefficients from that on the slopes."""
        r = self.centred[:, 0] - self.centred[:, 1:] @ beta
        direct = (self.w * r)[:, None] * rows.z @ self.inverse - of_beta @ self.slopes[:, 1:].T
        return np.column_stack([of_beta, direct])

    def coefficients(self, beta: Array) -> Array:
        """(P + q,) slopes and the coefficients of z that go with them."""
        return np.concatenate([beta, self.slopes[:, 0] - self.slopes[:, 1:] @ beta])


def corrected(rows: BetweenRows, w: Array, *, leverage: bool = True, cov_uv: bool = True) -> Corrected:
    """Cross-products net of z with weights ``w``.

    Parameters
    ----------
    rows : BetweenRows
    w : (K,) array
    leverage : bool
        Count that errors are partly absorbed by the fit on z, so that the correction is unbiased; without it
        M is W.
    cov_uv : bool
        Use Cov(itt, compliance).

    Raises
    ------
    RankDeficientError
        The columns of z are dependent.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> round(corrected(rows, np.ones(rows.n_rows)).left, 3)
    0.654
    """
    both = np.column_stack([rows.y, rows.x])
    zw = rows.z * w[:, None]
    try:
        inverse = gram_solve(rows.z.T @ zw, np.eye(rows.z.shape[1]))
    except np.linalg.LinAlgError:
        raise RankDeficientError(
            f"The regressors without error ({', '.join(rows.exogenous)}) are linearly dependent in these rows."
        ) from None
    slopes = inverse @ (zw.T @ both)
    if rows.cross is None:
        absorbed = np.einsum("ki,ij,kj->k", zw, inverse, zw) if leverage else 0.0
        noise = (w - absorbed)[:, None, None] * rows.cov
    else:
        maker = np.diag(w) - (zw @ inverse @ zw.T if leverage else 0.0)
        noise = np.einsum("kl,kalb->kab", maker, rows.cross)
        noise = (noise + noise.transpose(0, 2, 1)) / 2.0
    if not cov_uv:
        noise[:, 0, 1:] = noise[:, 1:, 0] = 0.0
    return Corrected(w, both - rows.z @ slopes, slopes, inverse, noise)


def check_rows(rows: BetweenRows, who: str, *, spare: int = 1) -> None:
    """Refuse rows, or independent sites, too few for the coefficients.

    Raises
    ------
    TooFewSitesError

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> check_rows(rows, "BCES")
    """
    size = len(rows.terms)
    if rows.n_rows < size + spare:
        raise TooFewSitesError(
            f"{who} needs at least {count(size + spare, 'row')} for {count(size, 'coefficient')} and a standard "
            f"error; there are {rows.n_rows}."
        )
    if rows.cross is not None and rows.n_sites <= size:
        # The scores of all sites sum to zero, so this few of them carry no variance of all coefficients.
        raise TooFewSitesError(
            f"Rows of one site are correlated, so {who} takes sites as the independent units, and "
            f"{count(rows.n_sites, 'site')} carry no standard errors of {count(size, 'coefficient')}; it needs at "
            f"least {size + 1}. With arms of one site, leave the direct effect free."
        )


def degrees_of_freedom(rows: BetweenRows) -> int:
    """K - P - q, but not more than sites less one when rows of a site are correlated.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> degrees_of_freedom(rows)
    77
    """
    free = rows.n_rows - len(rows.terms)
    return free if rows.cross is None else min(free, rows.n_sites - 1)


def small_sample(rows: BetweenRows) -> float:
    """K / (K - P - q); with correlated rows G / (G - 1) (K - 1) / (K - P - q).

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> round(small_sample(rows), 4)
    1.026
    """
    k, free = rows.n_rows, rows.n_rows - len(rows.terms)
    if rows.cross is None:
        return k / free
    return rows.n_sites / (rows.n_sites - 1) * (k - 1) / free


def sum_by_site(rows: BetweenRows, values: Array) -> Array:
    """Sum over the rows of a site where rows are correlated; as they are where not.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> sum_by_site(rows, rows.x).shape
    (79, 1)
    """
    if rows.cross is None:
        return values
    codes = np.unique(rows.site, return_inverse=True)[1].astype(np.int64)  # `take` leaves gaps in them
    return group_sum(values, codes, rows.n_sites)


def with_common(rows: BetweenRows, covariance: Array, beta: Array) -> Array:
    """Add the error that all rows share: it moves the direct effect by (1, -b)'e and nothing else.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> with_common(rows, np.eye(2), np.ones(1)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if not rows.has_direct_effect:
        return covariance
    out = covariance.copy()
    at = rows.terms.index("direct_effect")
    both = np.concatenate([[1.0], -beta])
    out[at, at] += both @ rows.common @ both
    return out


def fit_of(
    rows: BetweenRows,
    parts: Corrected,
    beta: Array,
    of_beta: Array,
    *,
    method: str,
    factor: float,
    notes: tuple[str, ...] = (),
) -> BetweenFit:
    """A fit from slopes and the influence of the rows on them.

    Parameters
    ----------
    rows : BetweenRows
    parts : Corrected
    beta : (P,) array
    of_beta : (K, P) array
    method : str
    factor : float
        Small-sample factor of the covariance.
    notes : tuple of str

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> parts = corrected(rows, np.ones(rows.n_rows))
    >>> beta = parts.net[1:, 0] / parts.net[1, 1]
    >>> fit_of(rows, parts, beta, parts.scores(beta) / parts.net[1, 1], method="by hand", factor=1.0).df
    77.0
    """
    each = sum_by_site(rows, parts.influence(rows, beta, of_beta))
    return BetweenFit(
        method=method,
        terms=rows.terms,
        coefficients=frozen(parts.coefficients(beta)),
        covariance=frozen(with_common(rows, factor * (each.T @ each), beta)),
        df=float(degrees_of_freedom(rows)),
        notes=(*parts.notes, *notes),
    )
