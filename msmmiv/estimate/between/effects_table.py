"""Tables of average and per-site effects, with sets that hold whatever the strength of the compliances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from msmmiv.estimate.between.effects import direct_pvalue, mean_effects, profile
from msmmiv.estimate.between.rows import BetweenFit
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.linalg import Array

__all__ = ["effects_frame", "site_effects_frame"]

_COLUMNS = ["effect", "estimate", "lower", "upper", "p_value", "set", "status"]
#: Total effects closer to zero than this many standard errors have no share: it divides by them.
_SHARE = 1.0


def effects_frame(
    fit: BetweenFit, tests: Mapping[str, SlopeTest], sets: Mapping[str, ConfidenceSet], shares: Array
) -> pd.DataFrame:
    """Total, indirect and direct effects averaged with ``shares`` over the sites at hand, and the share mediated.

    Notes
    -----
    The p-value of an indirect effect is the larger of those of the mediator's effect and of mean compliance
    (intersection-union): it needs both. Sets profile the slope out, see `effects.profile`.
    """
    rows = next(iter(tests.values())).rows
    weights = shares[None]
    means, cov = (v[0] for v in mean_effects(rows, weights))
    slopes = fit.coefficients[: len(rows.mediators)]
    level = next(iter(sets.values())).level
    error = float(np.sqrt(cov[0, 0]))
    half = float(ndtri(0.5 + level / 2.0)) * error
    total = ConfidenceSet(((float(means[0]) - half, float(means[0]) + half),), level)
    out = [_line("total effect", float(means[0]), total, _normal(means[0] / error))]
    indirect = slopes * means[1:]
    several, shares_found = len(rows.mediators) > 1, []
    for j, (name, test) in enumerate(tests.items(), start=1):
        of = f" through {name}" if several else ""
        given = profile(test, sets[name], weights)
        p = max(float(test.pvalue(np.zeros(1))[0]), _normal(means[j] / np.sqrt(cov[j, j])))
        out.append(_line(f"indirect effect{of}", indirect[j - 1], given.indirect(), p, fit.status))
        share = float(indirect[j - 1] / means[0]) if means[0] else float("nan")
        shares_found.append(_share(of, share, given.share(), abs(means[0]) / error, fit.status))
    direct = float(means[0] - indirect.sum())
    if several:
        out.append(_direct_of_several(fit, means, cov, direct, level))
    else:
        ((name, test),) = tests.items()
        p = direct_pvalue(test, sets[name], shares)
        out.append(_line("direct effect", direct, profile(test, sets[name], weights).direct(), p, fit.status))
    return pd.DataFrame([*out, *shares_found], columns=_COLUMNS)


def site_effects_frame(
    fit: BetweenFit, tests: Mapping[str, SlopeTest], sets: Mapping[str, ConfidenceSet]
) -> pd.DataFrame:
    """Indirect effect of each mediator and direct effect of every row.

    Columns ``row, itt``, and per mediator ``compliance, indirect, indirect_lower, indirect_upper`` (the mediator's
    name added where there are several), then ``direct, direct_lower, direct_upper`` (with several mediators Wald limits
    from the fit).
    """
    rows = next(iter(tests.values())).rows
    k = rows.n_rows
    out: dict[str, object] = {"row": list(rows.labels), "itt": rows.y}
    slopes = fit.coefficients[: len(rows.mediators)]
    single = len(rows.mediators) == 1
    for j, (name, test) in enumerate(tests.items()):
        of = "" if single else f" {name}"
        given = profile(test, sets[name], np.eye(k))
        out[f"compliance{of}"] = rows.x[:, j]
        out[f"indirect{of}"] = slopes[j] * rows.x[:, j]
        ends = np.array([given.indirect(i).hull for i in range(k)])
        out[f"indirect_lower{of}"], out[f"indirect_upper{of}"] = ends.T
        if single:
            out["direct"] = rows.y - slopes[0] * rows.x[:, 0]
            ends = np.array([given.direct(i).hull for i in range(k)])
            out["direct_lower"], out["direct_upper"] = ends.T
    if not single:
        level = next(iter(sets.values())).level
        direct = rows.y - rows.x @ slopes
        contrast = np.concatenate([[1.0], -slopes])
        p = len(slopes)
        moved = np.einsum("kp,pq,kq->k", rows.x, fit.covariance[:p, :p], rows.x)
        half = ndtri(0.5 + level / 2.0) * np.sqrt(
            np.einsum("a,kab,b->k", contrast, rows.cov, contrast) + moved
        )
        out |= {"direct": direct, "direct_lower": direct - half, "direct_upper": direct + half}
    return pd.DataFrame(out)


def _line(
    name: str, estimate: float, found: ConfidenceSet, p: float, status: str | None = None
) -> tuple[object, ...]:
    return (name, float(estimate), *found.hull, p, str(found), status or "")


def _share(of: str, value: float, found: ConfidenceSet, t: float, status: str | None) -> tuple[object, ...]:
    name = f"share mediated{of}"
    if t < _SHARE:
        why = f"the total effect is {t:.2g} standard errors from zero: a share of it means nothing"
        return _line(name, float("nan"), found, float("nan"), why)
    return _line(name, value, found, float("nan"), status)


def _direct_of_several(
    fit: BetweenFit, means: Array, cov: Array, direct: float, level: float
) -> tuple[object, ...]:
    """Wald interval: several slopes have no joint set that could be profiled out."""
    p = len(means) - 1
    slopes = fit.coefficients[:p]
    contrast = np.concatenate([[1.0], -slopes])
    variance = contrast @ cov @ contrast + means[1:] @ fit.covariance[:p, :p] @ means[1:]
    half = float(ndtri(0.5 + level / 2.0) * np.sqrt(variance))
    if not np.isfinite(half):
        return ("direct effect", direct, np.nan, np.nan, np.nan, "none", fit.status or "no standard error")
    found = ConfidenceSet(((direct - half, direct + half),), level)
    return _line("direct effect", direct, found, _normal(direct / np.sqrt(variance)))


def _normal(ratio: float) -> float:
    return float(2.0 * ndtr(-abs(ratio)))
