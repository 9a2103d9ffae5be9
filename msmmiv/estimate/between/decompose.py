"""decompose: from site effects to mechanisms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from msmmiv.errors import DataError, MsmmivError, listing, whole_number
from msmmiv.estimate import Method, fit
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.estimate.between.effects import Shares, shares_of
from msmmiv.estimate.between.interaction import baseline_rows
from msmmiv.estimate.between.methods import BetweenEstimator, BetweenMethod, run
from msmmiv.estimate.between.rows import BetweenRows, between_rows
from msmmiv.estimate.site_moments import noise_effects
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["decompose"]


def decompose(
    source: Moments | SiteEffects,
    method: BetweenMethod | BetweenEstimator | None = None,
    *,
    mediators: str | Sequence[str] | None = None,
    direct_effect: bool = True,
    covariates: pd.DataFrame | None = None,
    shares: Shares = None,
    level: float = 0.95,
    draws: int = 999,
    seed: int = 0,
) -> Decomposition:
    """Split the effect of the treatment into what goes through the mediators and what goes past them.

    Sites (subgroups, types of treatment) in which the treatment moves the mediator further should show larger effects
    on the outcome; the slope is the mediator's effect and the intercept the direct effect, provided that direct
    effects do not go with compliance across sites (Fu 2023, Assumption 1). Sampling errors of both are allowed for.

    Parameters
    ----------
    source : Moments or SiteEffects
        Site effects come from data or from a published table (`SiteEffects.from_table`).
    method : str or estimator, optional
        By default structural REML, with confidence sets that invert the empirical-Bayes score. Otherwise "ols",
        "meta_regression", "lambda_corrected", "bces", "simex", "corrected", "adjusted_debiased", "eb_score", "reml" or
        "bayes", or an object with options such as ``BCES(ddof="fu")`` or ``SIMEX(extrapolant="quadratic")``: its
        estimate with its own interval.
    mediators : str or sequence of str, optional
        Some of the mediators; effects through the others count as direct.
    direct_effect : bool
        Leave the direct effect free.
    covariates : DataFrame, optional
        Site-level regressors, indexed by site.
    shares : mapping, Series or (K,) array_like, optional
        Weights of the rows in average effects, summing to one; equal by default.
    level : float
    draws, seed : int
        Of simulated critical values, bootstraps and estimators that draw.

    Returns
    -------
    Decomposition

    Raises
    ------
    TooFewSitesError
        No more rows than coefficients.
    RankDeficientError
        Compliances that do not vary.
    MomentsInsufficient
        A site without a sampling covariance.
    DataError
        Shares that do not sum to one, covariates that do not match, covariances that are not positive.
    ChoiceError
        An unknown method, or one that cannot take these rows.

    Notes
    -----
    itt_k = direct effect + sum_p effect_p compliance_pk + e_k, with estimates of itt and compliance in the place of
    the true ones. The covariance of their sampling errors is used throughout; where a table does not give it, zero is
    assumed, said, and `Decomposition.sensitivity` shows what other values would do. See docs: decomposition.

    Examples
    --------
    >>> import pandas as pd, msmmiv as mm
    >>> table = pd.DataFrame({
    ...     "site": list("abcdefgh"), "itt": [4.1, 5.2, 5.9, 6.4, 7.1, 8.3, 8.8, 10.2], "itt_se": [0.3] * 8,
    ...     "compliance": [0.2, 0.5, 1.0, 1.2, 1.6, 2.1, 2.4, 3.0], "compliance_se": [0.1] * 8, "cov": [0.0] * 8})
    >>> effects = mm.SiteEffects.from_table(table, site="site", itt="itt", itt_se="itt_se", compliance="compliance",
    ...                                     compliance_se="compliance_se", cov="cov")
    >>> found = mm.decompose(effects)
    >>> found.params.round(2).to_dict()
    {'compliance': 2.09, 'direct_effect': 3.86}
    >>> print(found.confidence_set("compliance"))
    [1.916, 2.285]
    """
    if not 0.0 < level < 1.0:
        raise DataError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    draws = whole_number(draws, "draws", least=19, more=", such as 999")
    effects = noise_effects(source)
    chosen = _chosen(effects, mediators)
    effects = effects.only(chosen)
    rows = between_rows(effects, direct_effect=direct_effect, covariates=covariates)
    weights = shares_of(rows, shares)
    default = method is None
    if method is None:
        method = "reml" if direct_effect else "eb_score"
    found = run(method, rows, seed=seed)
    whole = isinstance(source, Moments) and len(chosen) == len(source.design.mediators)
    single = direct_effect and len(chosen) == 1
    return Decomposition(
        rows=rows,
        fit=found,
        by_default=default,
        shares=weights,
        level=level,
        draws=draws,
        seed=seed,
        individual=_individual(source) if whole and direct_effect and isinstance(source, Moments) else (),
        baseline=_baseline(source, chosen, single=single),
        notes=_notes(source, effects, rows, chosen),
    )


def _chosen(effects: SiteEffects, mediators: str | Sequence[str] | None) -> tuple[str, ...]:
    if mediators is None:
        return effects.mediators
    names = (mediators,) if isinstance(mediators, str) else tuple(mediators)
    unknown = [m for m in names if m not in effects.mediators]
    if unknown or not names or len(set(names)) < len(names):
        raise DataError(
            f"mediators={list(names)} must name some of {listing(effects.mediators, quote=True)}, each once."
        )
    return names


def _individual(source: Moments) -> tuple[Estimate, ...]:
    out = []
    methods: tuple[Method, ...] = ("2sls", "mbtsls", "ujive")
    for method in methods:
        try:
            out.append(fit(source, method, cov_type="site", direct_effect=True))
        except MsmmivError:  # what the design does not allow is documented with fit(), which says why
            continue
    return tuple(out)


def _baseline(
    source: Moments | SiteEffects, chosen: tuple[str, ...], *, single: bool
) -> BetweenRows | NotApplicable:
    name = "level of the mediator among controls"
    if not single:
        return NotApplicable(name, "the reading is for one mediator with a free direct effect")
    if isinstance(source, SiteEffects):
        return NotApplicable(name, "site effects do not hold the controls' level of the mediator")
    return baseline_rows(source, chosen[0])


def _notes(
    source: Moments | SiteEffects, effects: SiteEffects, rows: BetweenRows, chosen: tuple[str, ...]
) -> tuple[str, ...]:
    notes = []
    if rows.zero_covariance_assumed:
        notes.append(
            "Cov(itt, compliance) is unknown and taken as zero; both come from the same people, so it rarely is."
        )
    if effects.clusters_ignored:
        notes.append(
            "Sampling covariances take people in one cluster as independent: too little error is corrected for, and Q "
            "is too large. Use cov_type='pooled' in SiteEffects.from_moments, or decompose the moments."
        )
    lost = len(effects.sites) * len(effects.contrasts) - rows.n_rows
    if lost:
        notes.append(
            f"{lost} of {lost + rows.n_rows} rows have no estimate (an arm is missing) and are left out."
        )
    if rows.cross is not None:
        notes.append("Arms of one site share its controls: rows are correlated, and that is allowed for.")
    if rows.common.any():
        notes.append(
            "All rows share one control group: its sampling error moves the direct effect, not the slope."
        )
    if isinstance(source, Moments) and len(chosen) < len(source.design.mediators):
        others = [m for m in source.design.mediators if m not in chosen]
        notes.append(f"Effects through {listing(others)} count as direct effects here.")
    if np.isfinite(effects.df).any() and float(np.nanmin(effects.df)) < _FEW_PEOPLE:
        notes.append(
            f"Some sites' errors rest on {float(np.nanmin(effects.df)):.0f} degrees of freedom but count as known."
        )
    return tuple(notes)


#: Degrees of freedom of a site's covariance below which taking it as known is said.
_FEW_PEOPLE = 20
