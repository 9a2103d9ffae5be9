"""Conditional first-stage F statistics: how strongly one mediator is moved given the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from msmmiv.inference.projection import Projection
from msmmiv.inference.rank_tests import EXCLUDED, noise_tail
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.inference.site_scores import Sites
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic, chi2_test, f_test
from msmmiv.linalg import Array, gram_solve
from msmmiv.moments.effects import SiteEffects

__all__ = ["conditional_effective_f", "conditional_f", "conditional_f_by_site", "given_others"]

#: Degrees of freedom from which a squared Student ratio is corrected to mean one.
FEW = 4.0


def given_others(explained: Array, position: int) -> Array:
    """One mediator less its best prediction, in 2SLS, by the others.

    Parameters
    ----------
    explained : (P, P) array
        Cross-products of the mediators that the instruments explain.
    position : int

    Returns
    -------
    (P,) array

    Raises
    ------
    numpy.linalg.LinAlgError
        When the others are exactly collinear.

    Examples
    --------
    >>> given_others(np.array([[4.0, 2.0], [2.0, 4.0]]), 0).tolist()
    [1.0, -0.5]
    """
    others = [j for j in range(len(explained)) if j != position]
    out = np.zeros(len(explained))
    out[position] = 1.0
    if others:
        out[others] = -gram_solve(explained[np.ix_(others, others)], explained[others, position])
    return out


def conditional_f(form: ReducedForm, mediator: str) -> TestResult:
    """First-stage F of one mediator given the others, under homoskedasticity.

    Use it to see which mediator is short of strength: the F of each first stage alone may be large for all of
    them while their fitted values are collinear.

    Parameters
    ----------
    form : ReducedForm
    mediator : str

    Returns
    -------
    TestStatistic or NotApplicable
        F with L - P + 1 and the residual degrees of freedom.

    Raises
    ------
    DesignError
        A name that is no mediator.

    Notes
    -----
    Sanderson and Windmeijer (2016): with c = (1, -pi'), pi the 2SLS coefficients of the mediator on the others,
    F = c'N c / (L - P + 1) / (c'S c), N explained and S residual cross-products (per degree of freedom). Its p-value
    supposes that the others are strongly moved: where they are not, it is too small, more so with more sites
    (`conditional_effective_f` allows for that).

    Examples
    --------
    >>> import msmmiv as mm
    >>> round(conditional_f(mm.Study(mm.data.star()).reduced_form(), "class_size").stat, 1)
    1082.1
    """
    position = form.position(mediator)
    surplus = form.n_instruments - form.n_mediators + 1
    name = f"Conditional F, {mediator} (Sanderson-Windmeijer)"
    if surplus < 1:
        return NotApplicable(name, "there are fewer instruments than mediators")
    c = given_others(form.between[1:, 1:], position - 1)
    residual = float(c @ form.within[1:, 1:] @ c)
    if residual <= 1e-14 * float((c**2) @ np.diag(form.within)[1:]) or residual <= 0:
        return NotApplicable(
            name, f"{mediator} less the other mediators does not vary inside site-by-arm cells"
        )
    stat = float(c @ form.between[1:, 1:] @ c) / surplus / residual
    given = " given the other mediators" if form.n_mediators > 1 else ""
    return f_test(name, f"{EXCLUDED} do not move {mediator}{given}", stat, surplus, form.df)


def conditional_f_by_site(
    effects: SiteEffects, *, weights: Array | None = None, direct_effect: bool = False
) -> TestResult:
    """First-stage F of one mediator given the others, each site with its own sampling covariance.

    Use it on tables of site effects and wherever variances differ between sites; in Mendelian randomization it is the
    conditional F of multivariable analyses.

    Parameters
    ----------
    effects : SiteEffects
        With the mediator in the place of the outcome, and the others (none, for one mediator) as mediators.
    weights : (K, D, D) array, optional
        Of the regression of the mediator's effects on those of the others: their precision by default, as in 2SLS; ones
        for the convention of Mendelian randomization.
    direct_effect : bool
        Partial out a common effect of the treatment.

    Returns
    -------
    TestStatistic or NotApplicable

    Raises
    ------
    MomentsInsufficient
        A site without a sampling covariance.
    DataError
        A site whose residual would have no variance.

    Notes
    -----
    Sanderson, Spiller and Bowden (2021): sum over sites of (g_p - pi'g_others)^2 / (c'V c), over L - P + 1, with
    c = (1, -pi')' and the exact variance of each site. Where that variance comes from few people, p is that of ratios
    taken from Student's to the normal scale, as in `heterogeneity`, and F is divided by the mean that squared Student
    ratios have; it is NaN with 4 or fewer degrees of freedom in some site. As for `conditional_f`, p supposes that the
    other mediators are strongly moved.

    Examples
    --------
    >>> import pandas as pd, msmmiv as mm
    >>> t = pd.DataFrame({"s": [1, 2, 3], "a": [1.0, 2, 3], "sa": 0.1, "b": [1.0, 2, 1], "sb": 0.1, "cov": 0.0})
    >>> e = mm.SiteEffects.from_table(
    ...     t, site="s", itt="a", itt_se="sa", compliance="b", compliance_se="sb", cov="cov"
    ... )
    >>> print(conditional_f_by_site(e).dist)
    chi2(2)/2
    """
    sites = Sites.of(effects, direct_effect=direct_effect)
    name = f"Conditional F, {effects.outcome} (each site's variance)"
    surplus = sites.n_instruments - sites.n_mediators
    if surplus < 1:
        return NotApplicable(name, "there are fewer instruments than mediators")
    precision = np.where(
        sites.present[:, :, None] & sites.present[:, None, :],
        effects.precision if weights is None else weights,
        0.0,
    )
    own, others = sites.estimates[:, :, 0], sites.estimates[:, :, 1:]
    outside = others
    if direct_effect:
        common = np.eye(own.shape[1]) * sites.present[:, :, None]
        outside = np.concatenate([others, common], axis=2)
    found = np.zeros(outside.shape[2])
    if outside.shape[2]:
        gram = np.einsum("kdc,kde,kef->cf", outside, precision, outside)
        found = gram_solve(gram, np.einsum("kdc,kde,ke->c", outside, precision, own))
    scores = sites.scores(found[None, : sites.n_mediators])
    given = " given the other mediators" if effects.mediators else ""
    test = chi2_test(name, f"{EXCLUDED} do not move {effects.outcome}{given}", float(scores.ar[0]), surplus)
    squares, df = (scores.ratio[0] ** 2).reshape(own.shape), effects.df[:, None]
    if (df <= FEW).any():
        return replace(test, stat=float("nan"), law=f"chi2({surplus}) on the normal scale; no F")
    mean = np.where(np.isinf(df), 1.0, 1.0 - 2.0 / df)  # of a Student ratio squared: df / (df - 2)
    return replace(test, stat=float((mean * squares).sum()) / surplus, law=f"chi2({surplus})/{surplus}")


def conditional_effective_f(
    slopes: Array,
    blocks: Array,
    projection: Projection,
    mediators: Sequence[str],
    mediator: str,
    *,
    df: float = np.inf,
) -> TestResult:
    """First-stage F of one mediator given the others, in units of the noise that its own errors give.

    Use it where variances differ between sites, people share clusters, or sites have few people: noise is added up over
    sites. For one mediator it is the effective F of Montiel Olea and Pflueger.

    Parameters
    ----------
    slopes : (K, D, P) array
    blocks : (K, D, P, D, P) array
        Sampling covariance of the slopes in each site.
    projection : Projection
    mediators : sequence of str
    mediator : str
    df : float
        Degrees of freedom behind a variance that all sites share; infinite where each has its own.

    Returns
    -------
    TestStatistic or NotApplicable
        Not applicable where the other mediators are themselves not moved beyond noise.

    Notes
    -----
    c'N c over its mean without compliance. c = (1, -pi')' takes away the mediator's best prediction by the others, pi
    from cross-products less their expected noise: 2SLS coefficients on others that are moved by little more than noise
    are too small, and what they leave looks like strength (for the classical and the site-wise conditional F it does).
    The law is that of `robin_smith_test`.
    """
    j, name = list(mediators).index(mediator), f"Conditional effective F, {mediator}"
    explained, noise = projection.explained(slopes), projection.noise(blocks)
    try:
        c = given_others(explained - noise, j)
    except np.linalg.LinAlgError:
        return NotApplicable(name, "the other mediators are not moved beyond noise in some combination")
    law = projection.law(np.einsum("p,kdpeq,q->kde", c, blocks, c), free=np.delete(slopes, j, axis=2))
    stat = float(c @ explained @ c)
    given = " given the other mediators" if len(mediators) > 1 else ""
    return TestStatistic(
        name,
        f"{EXCLUDED} do not move {mediator}{given}",
        stat / law.trace,
        noise_tail(stat, law, df),
        0,
        law="weighted chi2",
    )
