"""Robust F statistics of the site-by-treatment instruments, with covariates.

Write the first stage as ``v = d' a_s + x*' phi + e`` with ``x*`` the covariates net of the instruments, so that
the two parts are orthogonal. The slopes of interest are ``pi_s = a_s - Pi_s phi`` with ``Pi_s`` the slopes of
the covariates on the contrasts. Their covariance is block diagonal over sites plus a matrix of rank 2q, which
keeps the Wald statistic linear in the number of sites (Woodbury).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msmmiv.errors import MomentsInsufficient
from msmmiv.inference.covariance import HC_POWER, CovType
from msmmiv.inference.row_products import cell_scores, row_products
from msmmiv.linalg import Array, Codes, dependent_columns, frozen, gram_root, gram_solve, group_sum
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.site_covariance import SiteCovType, equal_weights, joint_covariance
from msmmiv.moments.sums import Rows
from msmmiv.moments.within import Within, within_sites

__all__ = ["SlopeCovariance", "joint_slope_covariance", "site_effects_from_rows", "slope_covariances"]


@dataclass(frozen=True, eq=False)
class SlopeCovariance:
    """Covariance of slopes on the instruments, M per site: blocks plus left middle left'.

    M is the number of contrasts D for one variable, D times E for E of them (`joint_slope_covariance`).

    Attributes
    ----------
    blocks : (K, M, M) array
    left : (K, M, r) array
    middle : (r, r) array
    """

    blocks: Array
    left: Array
    middle: Array

    def scaled(self, factor: float) -> SlopeCovariance:
        """The covariance times a small-sample factor."""
        return SlopeCovariance(factor * self.blocks, self.left, factor * self.middle)

    def combined(self, combinations: Array) -> SlopeCovariance:
        """Covariance of combinations of variables, the same in every site.

        Parameters
        ----------
        combinations : (E, F) array
            One combination of the E variables per column.
        """
        contrasts = self.blocks.shape[1] // len(combinations)
        to: Array = np.kron(np.eye(contrasts), combinations).astype(np.float64)
        return SlopeCovariance(to.T @ self.blocks @ to, to.T @ self.left, self.middle)

    def estimable(self, omega: Array, slopes: Array) -> Codes:
        """(K,) number of contrasts of each site whose slope of one variable has a variance beyond rounding.

        Parameters
        ----------
        omega : (K, D, D) array
            Cross-products of the contrasts, which say what counts as rounding.
        slopes : (K, D) array
        """
        root = gram_root(omega)
        sizes = np.linalg.eigvalsh(root @ self.blocks @ root)
        signal = np.einsum("kd,kde,ke->k", slopes, omega, slopes)
        floor = np.maximum(1e-10 * sizes[:, -1], 1e-12 * np.maximum(signal, np.finfo(float).tiny))
        out: Codes = (sizes > floor[:, None]).sum(axis=1)
        return out

    def marginal(self) -> Array:
        """(K, M, M) covariance of each site's slopes."""
        out: Array = self.blocks + np.einsum("kdr,rs,kes->kde", self.left, self.middle, self.left)
        return out

    def wald(self, slopes: Array, common: Array | None) -> float:
        """Wald statistic of all slopes, or (with ``common`` given) of their differences between sites.

        Parameters
        ----------
        slopes : (K, M) array
        common : (K, M, c) array or None
            Directions left free, such as the direct effects.
        """
        inverse = np.linalg.pinv(self.blocks, rcond=1e-11, hermitian=True)
        columns = (
            slopes[:, :, None] if common is None else np.concatenate([slopes[:, :, None], common], axis=2)
        )
        solved = inverse @ columns
        if self.left.shape[2]:
            cross = inverse @ self.left
            inner = np.eye(len(self.middle)) + self.middle @ np.einsum("kdr,kds->rs", self.left, cross)
            part = np.linalg.solve(inner, self.middle @ np.einsum("kdr,kdc->rc", cross, columns))
            solved = solved - cross @ part
        gram = np.einsum("kda,kdb->ab", columns, solved)
        stat = gram[0, 0]
        if common is not None:
            stat -= gram[0, 1:] @ np.linalg.pinv(gram[1:, 1:], hermitian=True) @ gram[1:, 0]
        return float(stat)


def slope_covariances(
    within: Within,
    covariates: tuple[int, ...],
    kind: CovType,
    *,
    rows: Rows | None,
    sums: Array | None = None,
    restricted: tuple[Array, Array] | None = None,
) -> list[SlopeCovariance]:
    """Robust covariance of the slopes of outcome and mediators, one per variable.

    With ``sums``, a (1 + P, E) array, of E linear combinations of outcome and mediators instead.

    Parameters
    ----------
    within : Within
    covariates : tuple of int
    kind : {"HC0", "HC1", "HC2", "HC3", "cluster"}
    rows : Rows or None
    sums : (1 + P, E) array, optional
    restricted : (D, p) and (q, p) arrays, optional
        Coefficients of all variables on contrasts (the same in all sites) and covariates; residuals are taken from
        these instead of the first stages, as score (LM) tests do.

    Raises
    ------
    MomentsInsufficient
        HC forms without rows at hand.
    """
    m, p = within.moments, within.n_variables
    x = list(covariates)
    d, q, size = within.n_contrasts, len(x), 1 + len(m.design.mediators)
    effects = within.slopes if restricted is None else np.broadcast_to(restricted[0], within.slopes.shape)
    if sums is None and _from_cells(within, x, kind):
        cov = joint_covariance(within, effects, within.omega, _FORM.get(kind, kind), own_slopes=False)  # type: ignore[arg-type]
        none = np.zeros((m.n_sites, d, 0))
        return [SlopeCovariance(cov[:, :, j, :, j], none, np.zeros((0, 0))) for j in range(size)]
    inside = (within.total - within.between).sum(axis=0)
    xx_inverse = gram_solve(inside[np.ix_(x, x)], np.eye(q))
    x_slopes = within.slopes[:, :, x]
    if restricted is None:
        phi = xx_inverse @ inside[x]
        effects = effects - x_slopes @ phi
    else:
        phi = restricted[1]
    root = gram_root(within.omega_inverse)
    # Regressors: contrasts scaled to unit cross-products, then the covariates net of the contrasts.
    loading = np.zeros((m.n_sites, p + d, d + q))
    loading[:, p:, :d] = root
    loading[:, p:, d:] = -x_slopes
    loading[:, x, d + np.arange(q)] = 1.0
    residual = np.zeros((m.n_sites, p + d, size))
    residual[:, np.arange(size), np.arange(size)] = 1.0
    residual[:, x, :] = -phi[:, :size]
    residual[:, p:, :] = -effects[:, :, :size]
    residual = residual if sums is None else residual @ sums
    meat = _meat(within, loading, residual, xx_inverse, kind, rows)
    middle = np.block([[np.zeros((q, q)), -np.eye(q)], [-np.eye(q), np.zeros((q, q))]])
    out = []
    for j in range(meat.shape[1]):
        blocks = root @ meat[:, j, :d, :d] @ root
        left = np.concatenate([root @ meat[:, j, :d, d:] @ xx_inverse, x_slopes], axis=2)
        here = middle.copy()
        here[q:, q:] = xx_inverse @ meat[:, j, d:, d:].sum(axis=0) @ xx_inverse
        out.append(SlopeCovariance(blocks, left, here))
    return out


#: What the covariances of a fit are called by those of site effects.
_FORM: dict[str, SiteCovType] = {"cluster": "CR0", "HC1": "HC0"}


def _from_cells(within: Within, covariates: list[int], kind: CovType) -> bool:
    """Whether cells alone give the covariance, without scores of single regressors."""
    plain = not HC_POWER.get(kind) or equal_weights(within)
    return not covariates and bool(within.moments.arms) and plain


def joint_slope_covariance(
    within: Within,
    covariates: tuple[int, ...],
    kind: CovType,
    *,
    rows: Rows | None,
    restricted: tuple[Array, Array] | None = None,
) -> SlopeCovariance:
    """Robust covariance of the slopes of outcome and mediators together, for tests that combine variables.

    Parameters
    ----------
    within, covariates, kind, rows, restricted
        As in `slope_covariances`.

    Returns
    -------
    SlopeCovariance
        Of D (1 + P) slopes per site, contrasts outermost.

    Raises
    ------
    MomentsInsufficient
        HC forms with covariates, without rows at hand.
    """
    k, d, size = within.moments.n_sites, within.n_contrasts, 1 + len(within.moments.design.mediators)
    if _from_cells(within, list(covariates), kind):
        effects = within.slopes if restricted is None else np.broadcast_to(restricted[0], within.slopes.shape)
        cov = joint_covariance(within, effects, within.omega, _FORM.get(kind, kind), own_slopes=False)  # type: ignore[arg-type]
        return SlopeCovariance(
            cov.reshape(k, d * size, d * size), np.zeros((k, d * size, 0)), np.zeros((0, 0))
        )
    # Covariances of two variables from variances of sums: 2 Cov(a, b) = Var(a + b) - Var(a) - Var(b).
    pairs = [(a, b) for a in range(size) for b in range(a, size)]
    sums = np.array([np.eye(size)[a] + (a != b) * np.eye(size)[b] for a, b in pairs]).T
    got = slope_covariances(within, covariates, kind, rows=rows, sums=sums, restricted=restricted)
    single = {a: got[i] for i, (a, b) in enumerate(pairs) if a == b}
    q = got[0].left.shape[2] // 2
    blocks = np.empty((k, d, size, d, size))
    # Cov(v, w) = blocks - load_vw x' - x load_wv' + x cov_vw x', with x the covariates' slopes on the contrasts.
    load, slopes = np.empty((k, d, size, size, q)), got[0].left[:, :, q:]
    middle = np.zeros((2, size, q, 2, size, q))
    for i, (a, b) in enumerate(pairs):
        own = [got[i]] if a == b else [got[i], single[a], single[b]]
        sign = np.array([1.0] if a == b else [0.5, -0.5, -0.5])
        blocks[:, :, a, :, b] = np.einsum("i,ikde->kde", sign, [c.blocks for c in own])
        blocks[:, :, b, :, a] = blocks[:, :, a, :, b]
        load[:, :, a, b] = np.einsum("i,ikdq->kdq", sign, [c.left[:, :, :q] for c in own])
        load[:, :, b, a] = load[:, :, a, b]
        shared = np.einsum("i,iqr->qr", sign, [c.middle[q:, q:] for c in own])
        middle[1, a, :, 1, b] = middle[1, b, :, 1, a] = shared
    for a in range(size):
        middle[0, a, :, 1, a] = middle[1, a, :, 0, a] = -np.eye(q)
    own_slopes = np.einsum("kdq,vw->kdvwq", slopes, np.eye(size))
    left = np.stack([load, own_slopes], axis=3).reshape(k, d * size, 2 * size * q)
    return SlopeCovariance(
        blocks.reshape(k, d * size, d * size), left, middle.reshape(2 * size * q, 2 * size * q)
    )


def _meat(
    within: Within, loading: Array, residual: Array, xx_inverse: Array, kind: CovType, rows: Rows | None
) -> Array:
    """(K, E, k, k) sums of score products in each site."""
    m = within.moments
    if kind == "cluster":
        _, group = np.unique(m.cluster * m.n_sites + m.site, return_inverse=True)
        site = np.zeros(int(group.max()) + 1, dtype=np.int64)
        site[group] = m.site
        scores = group_sum(cell_scores(within, loading, residual), group, len(site))
        return group_sum(np.einsum("gke,gle->gekl", scores, scores), site, m.n_sites)
    if rows is None:
        raise MomentsInsufficient(
            f"{kind} with covariates needs the rows; fit from the data with Study(data, design)"
        )
    d, q = within.n_contrasts, len(xx_inverse)
    bread = np.block([[np.eye(d), np.zeros((d, q))], [np.zeros((q, d)), xx_inverse]])
    return row_products(within, loading, residual, bread=bread, power=HC_POWER[kind], rows=rows, by_site=True)


def site_effects_from_rows(moments: Moments, rows: Rows) -> SiteEffects:
    """Site effects with HC2 covariances where those need every row: with covariates, or a dose.

    Covariates have one slope for all sites, as in two-stage least squares.
    """
    effects = SiteEffects.from_moments(moments)
    within = within_sites(moments)
    p, q = within.n_variables, len(moments.design.covariates)
    inside = (within.total - within.between).sum(axis=0)
    x = [*range(p - q, p)]
    lost = dependent_columns(inside[np.ix_(x, x)], np.diag(within.total.sum(axis=0))[x])
    kept = tuple(c for i, c in enumerate(x) if i not in lost)
    cov = joint_slope_covariance(within, kept, "HC2", rows=rows).marginal().reshape(effects.cov.shape)
    cov[~np.isfinite(effects.cov) & np.isnan(effects.estimates)[:, :, :, None, None]] = np.nan
    return replace(effects, cov=frozen(cov), cov_type="HC2")
