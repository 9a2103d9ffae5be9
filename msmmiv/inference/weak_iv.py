"""Tests and confidence sets that stay valid when the instruments are weak.

Every function takes either a `ReducedForm` (homoskedastic errors) or `SiteEffects` (robust: each site has
its own sampling covariance). Residuals of a hypothesis are ``e_s = itt_s - compliance_s' d``; site
samples are independent, so every robust statistic is a sum over sites.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msmmiv.errors import DesignError, MomentsInsufficient
from msmmiv.inference.conditional_lr import conditional_lr_pvalue, conditional_lr_statistic
from msmmiv.inference.confidence_set import ConfidenceSet, invert
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.inference.site_profile import Profile
from msmmiv.inference.site_scores import Sites
from msmmiv.inference.tests import TestStatistic, chi2_test, f_test
from msmmiv.inference.weak_iv_classical import classical_at, subvector_quadratic, subvector_roots
from msmmiv.inference.weak_iv_common import (
    Source,
    centre_and_scale,
    hypothesis,
    inverted,
    null_text,
    one_mediator_set,
    refuse_switch,
    remaining_df,
    require_instruments,
    require_order,
    robust_at,
    robust_line,
    term_position,
)
from msmmiv.linalg import Array

__all__ = [
    "anderson_rubin_set",
    "anderson_rubin_test",
    "conditional_lr_set",
    "conditional_lr_test",
    "kleibergen_set",
    "kleibergen_test",
]

_PROFILE_POINTS = 801  # each one is a minimisation


def anderson_rubin_test(
    source: Source, beta: float | Sequence[float] | Array, *, direct_effect: bool = False
) -> TestStatistic:
    """Anderson-Rubin test that these effects leave residuals unrelated to the instruments.

    Homoskedastic: ``(b'Nb / L) / b'Sb`` with ``b = (1, -beta)``, F(L, df) exactly under Gaussian errors
    (Anderson and Rubin 1949). Robust: ``sum_s e_s^2 / V_ee,s``, chi2(L) (Stock and Wright 2000); with
    two arms each site's t ratio is first taken from its Student distribution (`SiteEffects.df`) to the
    normal, so that few people per site do not inflate the sum. Rejection says that the effects are
    wrong, or that the model is: an exclusion fails, or effects differ across sites.

    Parameters
    ----------
    source : ReducedForm or SiteEffects
    beta : float or sequence of float
        Hypothetical effects, one per mediator.
    direct_effect : bool
        Robust form: a direct effect of treatment (one per arm) is profiled out. A `ReducedForm` has it
        partialled out already, if there is one.

    Raises
    ------
    DesignError, TooFewSitesError, MomentsInsufficient, DataError

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star())
    >>> print(anderson_rubin_test(effects, 0.0).dist)
    chi2(79)
    """
    values = hypothesis(source, beta)
    null = null_text(source, values, direct_effect)
    if isinstance(source, ReducedForm):
        refuse_switch(direct_effect)
        stat = float(classical_at(source, values).ar[0]) / source.n_instruments
        return f_test("Anderson-Rubin (homoskedastic)", null, stat, source.n_instruments, source.df)
    sites = Sites.of(source, direct_effect=direct_effect)
    require_instruments(sites, 1)
    return chi2_test(
        "Anderson-Rubin (robust)", null, float(sites.scores(values[None]).ar[0]), sites.n_instruments
    )


def anderson_rubin_set(
    source: Source,
    term: str,
    *,
    level: float = 0.95,
    direct_effect: bool = False,
    projection: bool = False,
) -> ConfidenceSet:
    """Effects of one mediator that the Anderson-Rubin test does not reject.

    With one mediator the inverted test. With more, the *subvector* set: the statistic is minimised over
    the other effects and compared with chi2(L - P + 1) instead of chi2(L). Guggenberger, Kleibergen, Mavroeidis
    and Chen (2012) prove that this keeps its level under **homoskedasticity, whatever the strength of the
    first stage**; the robust form does so when the other effects are well identified, and has no proof
    otherwise. ``projection=True`` takes chi2(L): wider, and valid always. The homoskedastic set has a
    closed form (F quantiles in place of chi-squared ones); the robust one is found by `invert`.

    An empty set says that no effect fits (the model is rejected), the whole line that the data exclude none.

    Parameters
    ----------
    source : ReducedForm or SiteEffects
    term : str
        The mediator.
    level : float
    direct_effect : bool
        See `anderson_rubin_test`.
    projection : bool
        Critical values of the full vector; the same set with one mediator.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star())
    >>> anderson_rubin_set(effects, "class_size", level=0.95).level
    0.95
    """
    from scipy.special import chdtri, fdtri

    position = term_position(source, term, level)
    others = len(source.mediators) - 1
    kind = "" if not others else ", projection" if projection else ", subvector"
    lost = 0 if projection else others
    if isinstance(source, ReducedForm):
        refuse_switch(direct_effect)
        df = remaining_df(source.n_instruments - lost, source.n_instruments, lost)
        critical = df * float(fdtri(df, source.df, level))
        return subvector_quadratic(
            source, term, critical, level=level, method=f"Anderson-Rubin (homoskedastic{kind})"
        )
    sites = Sites.of(source, direct_effect=direct_effect)
    df = remaining_df(sites.n_instruments - lost, sites.n_instruments, lost)
    critical = float(chdtri(df, 1 - level))
    method = f"Anderson-Rubin (robust{kind})"
    if not others:
        return inverted(
            sites, lambda x: robust_line(sites, x)[0] - critical, level=level, method=method, term=term
        )
    profile = Profile(sites, position)
    return inverted(
        sites,
        lambda x: profile(x) - critical,
        level=level,
        method=method,
        term=term,
        position=position,
        points=_PROFILE_POINTS,
    )


def kleibergen_test(
    source: Source, beta: float | Sequence[float] | Array, *, direct_effect: bool = False
) -> TestStatistic:
    """Kleibergen's K: the part of Anderson-Rubin in the directions of the first stage.

    ``K = (sum D_s e_s / V)' (sum D_s D_s' / V)^-1 (sum D_s e_s / V)``, with
    ``D_s = compliance_s - V_ge,s e_s / V_ee,s`` uncorrelated with ``e_s``; chi2(P) whatever the strength
    (Kleibergen 2002, 2005). ``J = AR - K`` is independent of it. K is zero not only at the estimate but
    wherever AR has an extreme; the conditional LR test does not have that weakness.

    K takes ``V_ge / V_ee`` of every site as known, which few people do not support. In the simulations of
    docs/validation/tests.csv (5 to 50 sites, one effect) its robust form rejects the truth at 5% in 4 to 7% of trials
    with 20 people per arm and site, on average over designs in 5.4%, and with 6 in 5 to 10%, on average in 7.0%.
    The robust Anderson-Rubin test stays below: 3 to 6%, and 1 to 5%. The homoskedastic form of K is at 4 to 7% there.

    Parameters
    ----------
    source : ReducedForm or SiteEffects
    beta : float or sequence of float
    direct_effect : bool
        See `anderson_rubin_test`.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star())
    >>> kleibergen_test(effects, 0.0).dist
    'chi2(1)'
    """
    values = hypothesis(source, beta)
    null = null_text(source, values, direct_effect)
    size = len(source.mediators)
    if isinstance(source, ReducedForm):
        refuse_switch(direct_effect)
        require_order(source.n_instruments, size)
        at = classical_at(source, values)
        stat = at.ar if source.n_instruments == size else at.k
        return chi2_test("Kleibergen K (homoskedastic)", null, float(stat[0]), size)
    sites = Sites.of(source, direct_effect=direct_effect)
    require_instruments(sites, size)
    stat = robust_at(sites, values)[1]
    return chi2_test("Kleibergen K (robust)", null, float(stat[0]), size)


def kleibergen_set(
    source: Source, term: str, *, level: float = 0.95, direct_effect: bool = False
) -> ConfidenceSet:
    """Effects that Kleibergen's K does not reject, for one mediator.

    Often a union of pieces: K is also zero at maxima of AR. With several mediators K of one effect needs the
    others to be strongly identified, and is not offered.

    Parameters
    ----------
    source : ReducedForm or SiteEffects
    term : str
    level : float
    direct_effect : bool

    Raises
    ------
    DesignError
        With several mediators.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star())
    >>> kleibergen_set(effects, "class_size").method
    'Kleibergen K (robust)'
    """
    from scipy.special import chdtri

    term_position(source, term, level)
    if len(source.mediators) > 1:
        raise DesignError(
            "Kleibergen's K gives a set for one effect only when the other effects are strongly identified, and "
            "is not offered with several mediators. Use anderson_rubin_set, or kleibergen_test for all together."
        )
    critical = float(chdtri(1, 1 - level))
    return one_mediator_set(
        source,
        term,
        lambda ar, k, rk, instruments: k - critical,  # noqa: ARG005 - one signature for all criteria
        level=level,
        method="Kleibergen K",
        direct_effect=direct_effect,
    )


def conditional_lr_test(
    source: Source, beta: float | Sequence[float] | Array, *, direct_effect: bool = False
) -> TestStatistic:
    """Conditional likelihood ratio: between Anderson-Rubin and K, by the strength of the first stage.

    ``LR = (AR - rk + sqrt((AR + rk)^2 - 4 J rk)) / 2`` with a p-value given ``rk`` (Moreira 2003;
    Kleibergen 2005 for the robust form, with ``rk = sum D_s^2 / Var(D_s)``), integrated and not
    simulated. With several mediators (homoskedastic only) ``LR = AR - min AR`` and ``rk`` is the
    smallest root, which bounds the p-value from above (Kleibergen 2007). ``df`` of the result is P; the
    reference is not a chi-squared distribution. With few people per arm it shares the limits of
    `kleibergen_test`.

    Parameters
    ----------
    source : ReducedForm or SiteEffects
    beta : float or sequence of float
    direct_effect : bool
        See `anderson_rubin_test`.

    Raises
    ------
    MomentsInsufficient
        Robust, with several mediators.

    Examples
    --------
    >>> form = ReducedForm(np.array([[9.0, 6.0], [6.0, 8.0]]), np.eye(2), 4, 100, ("m",))
    >>> test = conditional_lr_test(form, 1.0)
    >>> round(test.stat, 4), round(test.pvalue, 4)
    (0.0208, 0.8986)
    """
    values = hypothesis(source, beta)
    null = null_text(source, values, direct_effect)
    size = len(source.mediators)
    if isinstance(source, ReducedForm):
        refuse_switch(direct_effect)
        require_order(source.n_instruments, size)
        at, instruments, kind = classical_at(source, values), source.n_instruments, "homoskedastic"
        # The infimum over the effects includes their limits, so the smallest root never exceeds AR.
        stat = np.maximum(at.ar - source.min_root(), 0.0) if instruments > size else at.ar
        rk = at.rk
    else:
        if size > 1:
            raise MomentsInsufficient(
                "The robust conditional LR test is offered for one mediator. Use anderson_rubin_test or "
                "kleibergen_test, or a ReducedForm (homoskedastic errors)."
            )
        sites = Sites.of(source, direct_effect=direct_effect)
        require_instruments(sites, size)
        ar, k, rk = robust_at(sites, values)
        instruments, kind = sites.n_instruments, "robust"
        stat = conditional_lr_statistic(ar, k, rk)
    pvalue = conditional_lr_pvalue(stat, rk, n_instruments=instruments, n_terms=size)
    law = "its law given the strength of the first stage"
    return TestStatistic(f"conditional LR ({kind})", null, float(stat[0]), float(pvalue[0]), size, law=law)


def conditional_lr_set(
    source: Source, term: str, *, level: float = 0.95, direct_effect: bool = False
) -> ConfidenceSet:
    """Effects of one mediator that the conditional LR test does not reject.

    With several mediators (homoskedastic only) the subvector test of Kleibergen (2021): AR minimised over
    the other effects, less its overall minimum, with ``rk`` the sum of the two smallest roots less that
    minimised AR, and L - P + 1 instruments.

    Parameters
    ----------
    source : ReducedForm or SiteEffects
    term : str
    level : float
    direct_effect : bool

    Raises
    ------
    MomentsInsufficient
        Robust, with several mediators.

    Examples
    --------
    >>> form = ReducedForm(np.array([[9.0, 6.0], [6.0, 8.0]]) * 9, np.eye(2), 4, 100, ("m",))
    >>> print(conditional_lr_set(form, "m"))
    [0.7372, 1.623]
    """
    position = term_position(source, term, level)
    if len(source.mediators) == 1:
        return one_mediator_set(
            source,
            term,
            lambda ar, k, rk, instruments: (
                1
                - level
                - conditional_lr_pvalue(conditional_lr_statistic(ar, k, rk), rk, n_instruments=instruments)
            ),
            level=level,
            method="conditional LR",
            direct_effect=direct_effect,
        )
    if not isinstance(source, ReducedForm):
        raise MomentsInsufficient(
            "The robust conditional LR set is offered for one mediator. Use anderson_rubin_set, or a ReducedForm "
            "(homoskedastic errors)."
        )
    refuse_switch(direct_effect)
    left = remaining_df(
        source.n_instruments - len(source.mediators) + 1, source.n_instruments, len(source.mediators) - 1
    )
    roots = source.roots()
    form = source

    def excess(x: Array) -> Array:
        ar = subvector_roots(form, term, x)
        stat = np.maximum(ar - roots[0], 0.0) if left > 1 else ar
        rk = np.maximum(roots[0] + roots[1] - ar, 0.0)
        return 1 - level - conditional_lr_pvalue(stat, rk, n_instruments=left)

    centre, scale = centre_and_scale(form.between, form.within * form.n_instruments, position)
    return invert(
        excess,
        centre=centre,
        scale=scale,
        level=level,
        method="conditional LR (homoskedastic, subvector)",
        term=term,
    )
