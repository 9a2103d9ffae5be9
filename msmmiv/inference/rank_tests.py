"""Tests that the first stages of P mediators have rank below P, and conditional first-stage F statistics.

All of them look at combinations of mediators that the instruments explain least. Where the null is rank ``q``, the
P - q weakest combinations have no compliance, and a statistic measures how far theirs is from zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.special import chdtri, fdtrc

from msmmiv.errors import DesignError
from msmmiv.inference.critical_values import NoiseLaw, weighted_chi2_sf
from msmmiv.inference.first_stage import SlopeCovariance
from msmmiv.inference.projection import Projection
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.inference.tests import TestStatistic, chi2_test
from msmmiv.linalg import Array, frozen

__all__ = [
    "Directions",
    "anderson_lm_test",
    "cragg_donald_test",
    "directions",
    "kleibergen_paap_test",
    "noise_tail",
    "robin_smith_test",
]

#: Quantiles of the shared variance over which a tail is averaged.
QUANTILES = 200
EXCLUDED = "the excluded instruments"


@dataclass(frozen=True, eq=False)
class Directions:
    """Combinations of mediators, from the one that the instruments explain most to the least.

    Attributes
    ----------
    roots : (P,) array
        Explained over unexplained cross-products, largest first.
    combinations : (P, P) array
        One combination per column, of unit length in the metric.
    """

    roots: Array
    combinations: Array


def directions(explained: Array, metric: Array) -> Directions:
    """Generalised eigenvectors of explained cross-products with respect to a metric.

    Use it with the residual covariance for classical statistics, and with the expected cross-products of
    sampling errors for those that hold without homoskedasticity.

    Parameters
    ----------
    explained, metric : (P, P) arrays

    Raises
    ------
    numpy.linalg.LinAlgError
        When the metric is not positive definite.

    Examples
    --------
    >>> directions(np.diag([4.0, 9.0]), np.eye(2)).roots.tolist()
    [9.0, 4.0]
    """
    scale = np.sqrt(np.diag(metric))
    values, vectors = eigh(explained / np.outer(scale, scale), metric / np.outer(scale, scale))
    # Explained cross-products are not negative: below zero is rounding.
    return Directions(frozen(np.clip(values[::-1], 0.0, None)), frozen(vectors[:, ::-1] / scale[:, None]))


def _classical(form: ReducedForm) -> Directions:
    own = slice(1, None)
    form.whitener(rows=own)  # refuses mediators without residual variation, by name
    return directions(form.between[own, own], form.within[own, own])


def _null(mediators: Sequence[str], rank: int) -> str:
    p = len(mediators)
    if p == 1:
        return f"the excluded instruments do not move {mediators[0]}"
    some = "some combination" if rank == p - 1 else f"{p - rank} combinations"
    what = (
        f"no mediator is moved by {EXCLUDED}" if rank == 0 else f"{some} of mediators not moved by {EXCLUDED}"
    )
    return f"rank {rank}, not {p}: {what}"


def _checked(rank: int | None, p: int) -> int:
    rank = p - 1 if rank is None else rank
    if not 0 <= rank < p:
        raise DesignError(f"rank={rank} is no null hypothesis for {p} mediators: choose 0 to {p - 1}.")
    return rank


def cragg_donald_test(form: ReducedForm, *, rank: int | None = None) -> TestStatistic:
    """Test the rank of the first stages under homoskedasticity (Wald form).

    Use it where errors are independent with one variance; its statistic over the number of instruments, at the
    default rank, is Cragg and Donald's F.

    Parameters
    ----------
    form : ReducedForm
    rank : int, optional
        Under the null; P - 1 if left out.

    Returns
    -------
    TestStatistic
        Sum of the P - rank smallest roots. Chi-squared with (L - rank)(P - rank) degrees of freedom in large samples;
        the p-value is that of an F with as many and the residual degrees of freedom, which programs leave out.

    Raises
    ------
    RankDeficientError
        A mediator without residual variation of its own.
    DesignError
        A rank outside 0 to P - 1.

    Notes
    -----
    Cragg and Donald (1993); equal to the Wald form of Kleibergen and Paap (2006) with a classical covariance.

    Examples
    --------
    >>> import msmmiv as mm
    >>> form = mm.Study(mm.data.star()).reduced_form()
    >>> round(cragg_donald_test(form).stat / form.n_instruments, 1)
    1082.1
    """
    p, found = form.n_mediators, _classical(form)
    q = _checked(rank, p)
    stat, df = float(found.roots[q:].sum()), (form.n_instruments - q) * (p - q)
    tail = float(fdtrc(df, form.df, stat / df))
    return TestStatistic(
        "Cragg-Donald", _null(form.mediators, q), stat, tail, df, law=f"{df} F({df}, {form.df:g})"
    )


def anderson_lm_test(
    form: ReducedForm, *, nobs: float | None = None, rank: int | None = None
) -> TestStatistic:
    """Test the rank of the first stages under homoskedasticity (canonical correlations, LM form).

    Use it beside `cragg_donald_test`: the two differ with few people per instrument, and neither holds where variances
    differ between sites or people share clusters.

    Parameters
    ----------
    form : ReducedForm
    nobs : float, optional
        Rows that count. By default those left by intercepts, covariates and direct effects (L plus the residual degrees
        of freedom); programs that treat intercepts as dummies count all rows, which rejects far too often where there
        is an intercept for every few people.
    rank : int, optional
        Under the null; P - 1 if left out.

    Returns
    -------
    TestStatistic
        ``nobs`` times the sum of the P - rank smallest squared canonical correlations.

    Raises
    ------
    RankDeficientError
        A mediator without residual variation of its own.
    DesignError
        A rank outside 0 to P - 1.

    Notes
    -----
    Anderson (1951). With roots r of `cragg_donald_test` the canonical correlations are sqrt(r / (df + r)).

    Examples
    --------
    >>> import msmmiv as mm
    >>> anderson_lm_test(mm.Study(mm.data.star()).reduced_form()).dist
    'chi2(79)'
    """
    p, found = form.n_mediators, _classical(form)
    q = _checked(rank, p)
    roots = found.roots[q:]
    counted = form.df + form.n_instruments if nobs is None else nobs
    stat = float(counted * (roots / (form.df + roots)).sum())
    return chi2_test("Anderson LM", _null(form.mediators, q), stat, (form.n_instruments - q) * (p - q))


def kleibergen_paap_test(
    slopes: Array,
    cov: SlopeCovariance,
    found: Directions,
    *,
    mediators: Sequence[str],
    n_instruments: int,
    free: Array,
    label: str,
    rank: int | None = None,
) -> TestStatistic:
    """Test the rank of the first stages with any covariance of the slopes.

    With ``C`` the P - rank weakest combinations and ``B`` the others, the statistic is the least Wald statistic of
    ``pi C - pi B a`` over ``a``; that is Kleibergen and Paap's rk, without matrices of the size of the number of
    instruments.

    Parameters
    ----------
    slopes : (K, D, P) array
    cov : SlopeCovariance
        Of the D P slopes of each site, contrasts outermost; from residuals (Wald) or restricted residuals (LM).
    found : Directions
        Under the residual covariance.
    mediators : sequence of str
    n_instruments : int
        Excluded instruments.
    free : (K, D, c) array
        Directions that exogenous treatment effects take.
    label : str
        Name of the result.
    rank : int, optional
        Under the null; P - 1 if left out.

    Notes
    -----
    Kleibergen and Paap (2006). Their ``lambda' Omega^-1 lambda`` projects the weakest singular vectors on the
    complement of the strong left ones; a generalised least squares residual does the same.
    """
    k, d, p = slopes.shape
    q = _checked(rank, p)
    weak, strong = found.combinations[:, q:], slopes @ found.combinations[:, :q]
    combined = cov.combined(weak)
    outside = np.concatenate([strong, free], axis=2)
    # Every weak combination has coefficients of its own on each strong one.
    columns = np.einsum("kdc,vw->kdvwc", outside, np.eye(p - q)).reshape(k, d * (p - q), -1)
    stat = combined.wald((slopes @ weak).reshape(k, -1), columns)
    return chi2_test(label, _null(mediators, q), stat, (n_instruments - q) * (p - q))


def robin_smith_test(
    slopes: Array,
    blocks: Array,
    projection: Projection,
    found: Directions,
    *,
    mediators: Sequence[str],
    df: float = np.inf,
) -> TestStatistic:
    """Test that the weakest combination of mediators is moved nowhere, by its explained sum of squares alone.

    Use it where sites have few people: no site's own variance is inverted, only sums of them over all sites are
    used. The law under the null is a weighted sum of chi-squared variables, matched by three cumulants.

    Parameters
    ----------
    slopes : (K, D, P) array
    blocks : (K, D, P, D, P) array
        Sampling covariance of the slopes in each site.
    projection : Projection
    found : Directions
        Under the expected cross-products of sampling errors.
    mediators : sequence of str
    df : float
        Degrees of freedom behind a variance that all sites share; infinite where each has its own.

    Notes
    -----
    Robin and Smith (2000) at rank P - 1, with the metric of `Projection.noise`.
    """
    p = len(mediators)
    c, others = found.combinations[:, -1], found.combinations[:, :-1]
    law = projection.law(np.einsum("p,kdpeq,q->kde", c, blocks, c), free=slopes @ others)
    stat = float(found.roots[-1])
    return TestStatistic(
        "Robin-Smith",
        _null(mediators, p - 1),
        stat,
        noise_tail(stat, law, df),
        0,
        law=f"weighted chi2, mean {law.trace:.3g}" + ("" if np.isinf(df) else f", over chi2({df:.3g})"),
    )


def noise_tail(stat: float, law: NoiseLaw, df: float) -> float:
    """Upper tail of a weighted chi-squared variable over an independent chi-squared of mean one."""
    if np.isinf(df):
        return weighted_chi2_sf(stat, law)
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return float(np.mean([weighted_chi2_sf(stat * x / df, law) for x in chdtri(df, levels)]))
