"""Average mediator effects when sites with larger compliance may have other effects.

2SLS weights sites by their squared compliance. When effects and compliances go together its target is not
the average effect; the estimators here target that average under a weaker condition, and correct the
products of estimated compliances for sampling error, Cov(itt, compliance) included.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from msmmiv.errors import DesignError, TooFewSitesError, check_choice, count
from msmmiv.estimate.site_moments import (
    SiteRows,
    SiteWeights,
    corrected_inverse,
    corrected_product,
    site_rows,
    weighted_products,
)
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["BCLinear", "BCSymmetric", "Corrected", "corrected_iv"]

#: Below this distance of the squared coefficient of variation from one, BCSymmetric divides by almost nothing.
NEAR_SINGULAR = 0.25
#: Share below which the correction has removed nearly everything, and the reader is told.
_FAINT = 0.05
_FEW = 30


@dataclass(frozen=True, eq=False)
class Corrected:
    """Coefficients with the influence of every site on them, or the reason why there are none.

    Attributes
    ----------
    mediators : tuple of str
    coefficients : (P,) array
        NaN with a ``status``.
    influence : (K, P) array
        First-order influence of each site; its columns sum to zero, and the sum of outer products of its rows
        is the covariance with sites as sampled units. Arms of a site are summed.
    status : str or None
        None when fine.
    notes : tuple of str
        What the reader must know to read the figures.
    n_params : int
        Parameters estimated from the sites; degrees of freedom are sites less this.
    """

    mediators: tuple[str, ...]
    coefficients: Array
    influence: Array
    status: str | None
    notes: tuple[str, ...]
    n_params: int

    @property
    def cov(self) -> Array:
        """(P, P) covariance, clustered by site, without a small-sample factor."""
        centred = self.influence - self.influence.mean(axis=0)
        return np.asarray(centred.T @ centred)

    @property
    def std_errors(self) -> Array:
        """(P,) standard errors."""
        return np.sqrt(np.diag(self.cov))


@dataclass(frozen=True)
class BCLinear:
    """Average effect of each mediator when the effect may change linearly with compliance.

    Prefer it to 2SLS when sites with larger compliance may have other effects. With one mediator it is
    consistent if E[effect | compliance] = a + b compliance; with several, see Notes.

    Attributes
    ----------
    weights : {"equal", "precision"}
        Average over sites counted alike, or by n p (1 - p). The weights change the population averaged over.

    Notes
    -----
    With E[delta_p | g] = a_p + sum_q B_pq g_q, itt has mean a'g + g'Bg: a regression on compliances and their
    products. Normal equations use products corrected for sampling error (`corrected_product`, up to
    four factors), and the estimate is a + B gbar.

    g'Bg only holds B + B': the two products g_p delta_q and g_q delta_p enter itt together. **With several
    mediators the estimate therefore assumes that B is symmetric**: a difference of one in the compliance of q
    goes with the same change in the effect of p as the other way round. It includes the case that each
    effect depends on its own compliance alone (B diagonal). Without it, an antisymmetric part A moves the
    averages by A E[g], and no data on itt and compliances can tell. The sum sum_p E[g_p] E[delta_p] needs no such
    assumption, since E[g]'A E[g] = 0. With one mediator there is nothing to assume.

    The third and fourth moments rest on normal errors of the site estimates (means over people).

    Examples
    --------
    >>> import msmmiv as mm
    >>> fit = BCLinear().solve(mm.SiteEffects.from_moments(mm.data.star()))
    >>> fit.coefficients.round(3).tolist(), fit.status
    ([-1.322], None)
    """

    weights: SiteWeights = "equal"

    @property
    def name(self) -> str:
        """Name in the table of estimators."""
        return "bc_linear"

    @property
    def label(self) -> str:
        """Name in results."""
        return self.name if self.weights == "equal" else f"{self.name}({self.weights})"

    def solve(self, effects: SiteEffects) -> Corrected:
        """Coefficients and site influences.

        Raises
        ------
        TooFewSitesError
            No more sites than parameters, P + P (P + 1) / 2.
        MomentsInsufficient
            A site has no sampling covariance.
        """
        check_choice(self.weights, SiteWeights, "weights")
        rows = site_rows(effects)
        p = len(effects.mediators)
        terms = _terms(p)
        _check_sites(rows, len(terms), "BCLinear")
        # Units drop out: every column is measured by its root mean square.
        unit = _units(rows)
        values, cov = rows.values / unit, rows.cov / np.outer(unit, unit)
        w = rows.weights(self.weights)
        gram = _products(values, cov, terms, terms)
        cross = _products(values, cov, terms, [(0,)])[:, :, 0]
        plain = _products(values, np.zeros_like(cov), terms, terms)
        inverse, left = corrected_inverse(np.einsum("r,rij->ij", w, gram), np.einsum("r,rij->ij", w, plain))
        notes = _notes(rows, len(terms), p, left)
        if inverse is None:
            return _none(
                effects,
                rows,
                "denominator not positive: compliance varies no more than noise",
                len(terms),
                notes,
            )
        theta = inverse @ (w @ cross)
        scores = w[:, None] * (cross - gram @ theta) @ inverse
        a, b = theta[:p], _symmetric(theta[p:], p)
        mean = w @ values[:, 1:]
        moved = np.einsum("rpq,q->rp", _symmetric(scores[:, p:], p), mean)
        influence = scores[:, :p] + moved + (w[:, None] * (values[:, 1:] - mean)) @ b
        scale = unit[0] / unit[1:]
        return Corrected(
            effects.mediators,
            frozen((a + b @ mean) * scale),
            frozen(rows.by_site(influence * scale)),
            None,
            notes,
            len(terms),
        )


@dataclass(frozen=True)
class BCSymmetric:
    """Average effect of one mediator when effect and compliance are jointly symmetric around their means.

    It needs only second moments, so it is steadier than `BCLinear` where compliance varies little or
    much, but it divides by zero where the standard deviation of compliance equals its mean.

    Attributes
    ----------
    weights : {"equal", "precision"}
        Average over sites counted alike, or by n p (1 - p).

    Notes
    -----
    With mean mu and variance tau2 of compliance, and no third central cross moment,
    mu E[itt] - Cov(compliance, itt) = (mu^2 - tau2) E[effect]. Sampling variances are removed from tau2 and
    sampling covariances from Cov.

    Examples
    --------
    >>> import msmmiv as mm
    >>> fit = BCSymmetric().solve(mm.SiteEffects.from_moments(mm.data.star()))
    >>> fit.coefficients.round(3).tolist(), fit.status
    ([-1.224], None)
    """

    weights: SiteWeights = "equal"

    @property
    def name(self) -> str:
        """Name in the table of estimators."""
        return "bc_symmetric"

    @property
    def label(self) -> str:
        """Name in results."""
        return self.name if self.weights == "equal" else f"{self.name}({self.weights})"

    def solve(self, effects: SiteEffects) -> Corrected:
        """Coefficients and site influences.

        Raises
        ------
        DesignError
            More than one mediator.
        TooFewSitesError
            Fewer than three sites.
        MomentsInsufficient
            A site has no sampling covariance.
        """
        check_choice(self.weights, SiteWeights, "weights")
        if len(effects.mediators) > 1:
            raise DesignError(
                f"BCSymmetric is for one mediator; there are {len(effects.mediators)}. Use BCLinear()."
            )
        rows = site_rows(effects)
        _check_sites(rows, 2, "BCSymmetric")
        w = rows.weights(self.weights)
        mean_itt, mean = w @ rows.values
        away_itt, away = (rows.values - [mean_itt, mean]).T
        spare = 1.0 - float(w @ w)  # makes the weighted (co)variances unbiased; 1 - 1/K with equal weights
        cov_s = w * (away * away_itt - (1.0 - w) * rows.cov[:, 0, 1]) / spare
        tau2_s = w * (away**2 - (1.0 - w) * rows.cov[:, 1, 1]) / spare
        cov, tau2 = float(cov_s.sum()), float(tau2_s.sum())
        notes = _notes(rows, 1, 1, 1.0)
        below = mean**2 - tau2
        if abs(below) < NEAR_SINGULAR * mean**2 or mean == 0:
            why = f"|1 - CV^2| < {NEAR_SINGULAR}: BCSymmetric is singular at CV = 1 (CV^2 is {tau2 / mean**2:.3g})"
            return _none(effects, rows, why, 1, notes)
        estimate = (mean * mean_itt - cov) / below
        top = w * (mean * away_itt + mean_itt * away) - (cov_s - w * cov)
        bottom = 2.0 * w * mean * away - (tau2_s - w * tau2)
        influence = (top - estimate * bottom) / below
        return Corrected(
            effects.mediators,
            frozen([estimate]),
            frozen(rows.by_site(influence[:, None])),
            None,
            notes,
            1,
        )


def corrected_iv(effects: SiteEffects, *, weights: SiteWeights = "precision") -> Corrected:
    """2SLS with the sampling noise of the compliances removed, from site effects alone.

    With ``precision`` weights it has the target of 2SLS, effects averaged by squared compliance and n p (1 - p),
    without the pull of weak instruments towards least squares. ``equal`` counts all sites alike.

    Parameters
    ----------
    effects : SiteEffects
    weights : {"precision", "equal"}

    Returns
    -------
    Corrected
        With status "denominator not positive" where noise explains all of the compliances.

    Raises
    ------
    TooFewSitesError, MomentsInsufficient

    Notes
    -----
    [sum_s w_s (g g' - V_gg)]^-1 sum_s w_s (g b - V_gb), which is Kolesar's UJIVE with two arms, no covariates and
    the HC2 covariance.

    Examples
    --------
    >>> import msmmiv as mm
    >>> corrected_iv(mm.SiteEffects.from_moments(mm.data.star())).coefficients.round(4).tolist()
    [-1.1151]
    """
    check_choice(weights, SiteWeights, "weights")
    rows = site_rows(effects)
    p = len(effects.mediators)
    _check_sites(rows, p - 1, "the corrected between-site regression")
    observed, noise = weighted_products(effects, weights)
    signal = observed - noise
    inverse, left = corrected_inverse(signal.sum(axis=0)[1:, 1:], observed.sum(axis=0)[1:, 1:])
    notes = () if left > _FAINT or inverse is None else (_faint(left),)
    if inverse is None:
        return _none(effects, rows, "denominator not positive: compliance is no more than noise", p, notes)
    d = inverse @ signal.sum(axis=0)[1:, 0]
    scores = signal[:, 1:, 0] - signal[:, 1:, 1:] @ d
    return Corrected(effects.mediators, frozen(d), frozen(scores @ inverse), None, notes, p)


def _terms(p: int) -> list[tuple[int, ...]]:
    """Columns of the regressors: compliances, then their products, first factor before second."""
    names = range(1, 1 + p)
    return [*((j,) for j in names), *combinations_with_replacement(names, 2)]


def _products(values: Array, cov: Array, left: list[tuple[int, ...]], right: list[tuple[int, ...]]) -> Array:
    out = np.empty((len(values), len(left), len(right)))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            out[:, i, j] = out[:, j, i] if left is right and j < i else corrected_product(values, cov, a + b)
    return out


def _units(rows: SiteRows) -> Array:
    size = np.sqrt((rows.values**2).mean(axis=0))
    return np.where(size > 0, size, 1.0)


def _symmetric(products: Array, p: int) -> Array:
    """(..., P, P) symmetric B from the coefficients of products: off the diagonal each holds B_pq + B_qp."""
    out = np.zeros((*products.shape[:-1], p, p))
    for k, (i, j) in enumerate(combinations_with_replacement(range(p), 2)):
        share = products[..., k] / (1.0 if i == j else 2.0)
        out[..., i, j] = out[..., j, i] = share
    return out


def _check_sites(rows: SiteRows, n_params: int, name: str) -> None:
    if rows.usable_sites <= n_params:
        raise TooFewSitesError(
            f"{count(rows.usable_sites, 'usable site')} cannot identify the {count(n_params, 'parameter')} of {name}; "
            f"it needs at least {n_params + 1}."
        )


def _faint(left: float) -> str:
    return (
        f"Sampling noise is all but {left:.1%} of the variation of the compliances in their weakest direction: "
        "the estimate may be far off, and its standard error too small."
    )


def _notes(rows: SiteRows, n_params: int, p: int, left: float) -> tuple[str, ...]:
    notes = []
    if p > 1:
        notes.append(
            "With several mediators, how the effect of one goes with the compliance of another is taken to be "
            "symmetric; itt and compliances cannot tell otherwise."
        )
    if rows.usable_sites < max(_FEW, 2 * n_params):
        notes.append(
            f"{count(rows.usable_sites, 'site')} for {count(n_params, 'parameter')}: standard errors are optimistic."
        )
    if 0.0 < left < _FAINT:
        notes.append(_faint(left))
    return tuple(notes)


def _none(effects: SiteEffects, rows: SiteRows, why: str, n_params: int, notes: tuple[str, ...]) -> Corrected:
    p = len(effects.mediators)
    return Corrected(
        effects.mediators,
        frozen(np.full(p, np.nan)),
        frozen(np.full((rows.n_sites, p), np.nan)),
        why,
        notes,
        n_params,
    )
