"""The pictures of one analysis, in the order in which the report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from msmmiv.audit.result import Audit
from msmmiv.diagnose.rank import RankReport
from msmmiv.errors import MsmmivError
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.analysis import Analysis
from msmmiv.show.plots.balance import balance
from msmmiv.show.plots.compliance_map import compliance_map
from msmmiv.show.plots.compliance_scatter import compliance_scatter
from msmmiv.show.plots.dag import causal_dag
from msmmiv.show.plots.decomposition import decomposition_scatter
from msmmiv.show.plots.decomposition_curves import confidence_curve, simex_extrapolation
from msmmiv.show.plots.decomposition_forest import indirect_forest
from msmmiv.show.plots.estimates import estimates
from msmmiv.show.plots.falsification import falsification
from msmmiv.show.plots.forest import forest
from msmmiv.show.plots.independence import independence
from msmmiv.show.plots.leave_one_out import leave_one_out_plot
from msmmiv.show.plots.origin import origin
from msmmiv.show.plots.picture import Picture
from msmmiv.show.plots.rank import rank_spectrum
from msmmiv.show.plots.scatter import partial_plots, site_scatter
from msmmiv.show.plots.sensitivity import sensitivity_plot
from msmmiv.show.plots.weights import weights

__all__ = ["audit_pictures", "decomposition_pictures", "gallery", "rank_pictures"]


def gallery(analysis: Analysis) -> tuple[Picture, ...]:
    """The estimates, the regression over sites (whole or partial), single sites, and the pictures of rank and audit.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import gallery
    >>> names = [p.name for p in gallery(mm.Study(mm.data.star()).analysis())]
    >>> names[:7]
    ['estimates', 'site_scatter', 'forest', 'weights', 'leave_one_out', 'rank_spectrum', 'compliance_map']
    >>> names[7:]
    ['causal_dag', 'origin', 'falsification', 'independence', 'sensitivity_direct_effect']
    """
    # A line needs a slope: where the headline has no point estimate the pictures show 2SLS, and say so.
    effects, fit = analysis.effects, analysis.two_stage if analysis.headline.status else analysis.headline
    one = len(effects.mediators) == 1
    across = (site_scatter(effects, fit),) if one else partial_plots(effects, fit)
    made = (estimates(analysis.fits), *across, forest(effects), *_speaking(analysis, fit))
    return made + rank_pictures(analysis.rank) + audit_pictures(analysis.audit)


def _speaking(analysis: Analysis, fit: Estimate) -> list[Picture]:
    """Which sites speak, and the headline without each; without an equation per site there is neither."""
    made, without = [], analysis.leave_one_out
    with suppress(MsmmivError):
        made.append(weights(fit, analysis.moments.sites))
    if not isinstance(without, NotApplicable):
        made.append(leave_one_out_plot(analysis.headline, without))
    return made


def rank_pictures(report: RankReport) -> tuple[Picture, ...]:
    """Strength by direction, compliances of two mediators, and the compliance matrix; those that exist.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import rank_pictures
    >>> [p.name for p in rank_pictures(mm.rank(mm.data.star("math_two_mediators")))]
    ['rank_spectrum', 'compliance_scatter', 'compliance_map']
    """
    made = (rank_spectrum(report), compliance_scatter(report), compliance_map(report))
    return tuple(p for p in made if p is not None)


def decomposition_pictures(found: Decomposition) -> tuple[Picture, ...]:
    """Scatter and confidence curve of every mediator, effects row by row, and simulation-extrapolation if it exists.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> from msmmiv.show.plots import decomposition_pictures
    >>> [p.name for p in decomposition_pictures(decompose(mm.data.star()))]
    ['decomposition', 'confidence_curve', 'indirect_effects', 'simex_extrapolation']
    """
    names = found.rows.mediators
    made = (
        *(decomposition_scatter(found, m) for m in names),
        *(confidence_curve(found, m) for m in names),
        indirect_forest(found),
        simex_extrapolation(found),
    )
    return tuple(p for p in made if p is not None)


def audit_pictures(audit: Audit) -> tuple[Picture, ...]:
    """The graph, the surface, balance, independence and sensitivity; those that exist and have something to draw.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import audit_pictures
    >>> audit = mm.audit_assumptions(mm.data.star(), draws=199)
    >>> [p.name for p in audit_pictures(audit)][:4]
    ['causal_dag', 'origin', 'falsification', 'independence']
    """
    found = audit.results
    made = [causal_dag(audit.dag)]
    if (effects := found.get("effects")) is not None:
        made += _surfaces(found, effects)
    compared = found.get("balance")
    if compared is not None and np.isfinite(compared.standardised).any():
        made.append(balance(compared))
    across = found.get("independence")
    if across is not None and across.matrix[["correlation", "pvalue"]].notna().any(axis=None):
        made.append(independence(across.matrix))
    failures = (found.get("direct_effect_line"), found.get("correlation"))
    made += [sensitivity_plot(f) for f in failures if f is not None and not f.status]
    return tuple(made)


def _surfaces(found: Mapping[str, Any], effects: SiteEffects) -> list[Picture]:
    """Tests of the surface; also without a test, but the origin of several mediators only where there is a plane."""
    through = found.get("origin")
    bent = [found[kind] for kind in ("curvature", "reset") if kind in found]
    out = [falsification(b, effects) for b in bent]
    if through is not None and (len(through.mediators) == 1 or np.isfinite(through.base).all()):
        out.insert(0, origin(through, effects))
    return out
