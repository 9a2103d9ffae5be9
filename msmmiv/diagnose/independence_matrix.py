"""Correlations across sites of compliances, mediator effects, size and covariates, sampling error taken out."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import stdtr

from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.separation import LEAST_RELIABILITY, compliance_correlation
from msmmiv.diagnose.site_covariates import CovariateFinding, SiteCovariates
from msmmiv.errors import MsmmivError
from msmmiv.estimate.between.added_terms import Term, added_terms
from msmmiv.estimate.site_moments import site_rows
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects

__all__ = ["independence_matrix"]

_COLUMNS = ["row", "column", "correlation", "pvalue", "note"]
_ARMS = "several arms: compliance is not one number per site"


def independence_matrix(effects: SiteEffects, about: SiteCovariates, *, spread: Array) -> pd.DataFrame:
    """The pairs below the diagonal of the independence matrix, for a table or a figure.

    Assumption (ix) is about the block of effects against compliances; the other blocks say where a violation could
    come from.

    Parameters
    ----------
    effects : SiteEffects
    about : SiteCovariates
        Of the same effects.
    spread : (P,) array
        Standard deviations of effects across sites (`heterogeneity`).

    Returns
    -------
    DataFrame
        ``row, column, correlation, pvalue, note``; labels are "compliance: m", "effect: m", "log size" and the names of
        the covariates. Correlations are not forced into -1 to 1, and are NaN with a note where one of the two does
        not vary beyond sampling error; the p-value tests that the two go together and can exist without them.

    Notes
    -----
    Compliances: Cov(ghat) less the mean sampling covariance; p from leaving sites out. Effects against x: slope of the
    effect on x times sd(x) over the spread of effects; p from `moderation_test` (all mediators together). Effects
    against their own compliance: coefficient of its square times its standard deviation over the spread, p from
    `added_terms`. An effect against another mediator's compliance cannot be told from the reverse, and has neither.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.diagnose.site_covariates import site_covariates
    >>> moments = mm.data.star()
    >>> effects = mm.SiteEffects.from_moments(moments, cov_type="pooled")
    >>> frame = independence_matrix(effects, site_covariates(moments), spread=np.array([0.5]))
    >>> len(frame)  # four things, six pairs
    6
    """
    names, known = effects.mediators, _known(about)
    sds, why = _sds(effects)
    rows: list[tuple[str, str, float, float, str]] = [*_between_compliances(effects)]
    for j, m in enumerate(names):
        for q, other in enumerate(names):
            rows.append((f"effect: {m}", f"compliance: {other}", *_own(effects, j, q, sds, spread, why)))
    for label, x, found in known:
        for j, m in enumerate(names):
            rows.append((label, f"compliance: {m}", *_with_compliance(effects, found, j, x, sds, why)))
        for j, m in enumerate(names):
            rows.append((label, f"effect: {m}", *_with_effect(found, j, x, spread)))
    rows += [(b[0], a[0], *_plain(a[1], b[1])) for a, b in combinations(known, 2)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _known(about: SiteCovariates) -> list[tuple[str, Array, CovariateFinding]]:
    out = []
    if isinstance(about.size, CovariateFinding) and about.table.log_size is not None:
        out.append((about.size.name, about.table.log_size, about.size))
    values = about.table.values
    return out + [(f.name, values[:, j], f) for j, f in enumerate(about.findings)]


def _sds(effects: SiteEffects) -> tuple[Array, str]:
    """(P,) standard deviations of compliances beyond sampling error, sites alike; NaN where nothing is left."""
    p = len(effects.mediators)
    if len(effects.contrasts) > 1:
        return np.full(p, np.nan), _ARMS
    rows = site_rows(effects)
    if len(rows.values) < 3:
        return np.full(p, np.nan), "too few sites"
    raw = rows.values[:, 1:].var(axis=0, ddof=1)
    left = raw - np.einsum("kpp->kp", rows.cov[:, 1:, 1:]).mean(axis=0)
    good = left > LEAST_RELIABILITY * raw
    return np.sqrt(np.where(good, left, np.nan)), "compliance varies no more than noise"


def _between_compliances(effects: SiteEffects) -> list[tuple[str, str, float, float, str]]:
    if len(effects.mediators) < 2:
        return []
    try:
        found = compliance_correlation(Compliances.from_effects(effects, direct_effect=False))
    except MsmmivError as error:
        pairs = combinations(effects.mediators, 2)
        return [(f"compliance: {b}", f"compliance: {a}", np.nan, np.nan, str(error)) for a, b in pairs]
    k = len(effects.sites)
    out = []
    for pair in found[found["kind"] == "centred"].to_dict("records"):
        r, se = float(pair["disattenuated"]), float(pair["std_error"])
        p = 2.0 * float(stdtr(max(k - 2, 1), -abs(r / se))) if se > 0 else np.nan
        out.append((f"compliance: {pair['second']}", f"compliance: {pair['first']}", r, p, str(pair["note"])))
    return out


def _own(
    effects: SiteEffects, j: int, q: int, sds: Array, spread: Array, why: str
) -> tuple[float, float, str]:
    """Effect of one mediator against a compliance: its own by the corrected square."""
    if j != q:
        return np.nan, np.nan, "cannot be told from the effect of the other on this compliance"
    if len(effects.contrasts) > 1:
        return np.nan, np.nan, _ARMS
    rows = site_rows(effects)
    p = len(effects.mediators)
    if len(rows.values) < p + 3:
        return np.nan, np.nan, "too few sites"
    base = [Term(m, (1 + i,)) for i, m in enumerate(effects.mediators)]
    found = added_terms(rows.values, rows.cov, base=base, added=[Term("square", (1 + j, 1 + j))])
    r = float(found.coefficients[0] * sds[j])
    return _scaled(r, float(found.pvalue), float(spread[j]), why)


def _with_effect(found: CovariateFinding, j: int, x: Array, spread: Array) -> tuple[float, float, str]:
    reason = found.adjusted.status or ""
    r, p = float(found.adjusted.slope[j] * x.std()), float(found.effects.pvalue)
    if isinstance(found.effects, NotApplicable):
        reason = reason or found.effects.reason
    return _scaled(r, p, float(spread[j]), reason)


def _scaled(slope: float, p: float, spread: float, why: str) -> tuple[float, float, str]:
    if not np.isfinite(slope):
        return np.nan, p, why
    if not spread > 0:
        return np.nan, p, "effects vary no more than noise"
    return slope / spread, p, "beyond one: sampling error" if abs(slope) > spread else ""


def _with_compliance(
    effects: SiteEffects, found: CovariateFinding, j: int, x: Array, sds: Array, why: str
) -> tuple[float, float, str]:
    table = found.compliance[found.compliance["mediator"] == effects.mediators[j]]
    p = float(table["pvalue"].min()) * len(table) if table["pvalue"].notna().any() else np.nan
    if not np.isfinite(sds[j]):
        return np.nan, min(p, 1.0), why
    g = site_rows(effects).values[:, 1 + j]
    r = float(np.cov(g, x)[0, 1] / (sds[j] * x.std(ddof=1)))
    return r, min(p, 1.0), "beyond one: sampling error" if abs(r) > 1 else ""


def _plain(a: Array, b: Array) -> tuple[float, float, str]:
    k = len(a)
    r = float(np.corrcoef(a, b)[0, 1])
    if k < 4:
        return r, np.nan, "too few sites"
    if abs(r) >= 1.0 - 1e-12:
        return r, 0.0, ""
    return r, 2.0 * float(stdtr(k - 2, -abs(r) * np.sqrt((k - 2) / (1.0 - r * r)))), ""
