"""The pictures of one analysis, in the order in which the report shows them."""

from __future__ import annotations

from msmmiv.diagnose.rank import RankReport
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.show.analysis import Analysis
from msmmiv.show.plots.compliance_map import compliance_map
from msmmiv.show.plots.compliance_scatter import compliance_scatter
from msmmiv.show.plots.decomposition import decomposition_scatter
from msmmiv.show.plots.decomposition_curves import confidence_curve, simex_extrapolation
from msmmiv.show.plots.decomposition_forest import indirect_forest
from msmmiv.show.plots.estimates import estimates
from msmmiv.show.plots.forest import forest
from msmmiv.show.plots.picture import Picture
from msmmiv.show.plots.rank import rank_spectrum
from msmmiv.show.plots.scatter import partial_plots, site_scatter

__all__ = ["decomposition_pictures", "gallery", "rank_pictures"]


def gallery(analysis: Analysis) -> tuple[Picture, ...]:
    """The estimates, the regression over sites (whole or partial), the forest, and the pictures of rank.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import gallery
    >>> [p.name for p in gallery(mm.Study(mm.data.star()).analysis())]
    ['estimates', 'site_scatter', 'forest', 'rank_spectrum', 'compliance_map']
    """
    # A line needs a slope: where the headline has no point estimate the pictures show 2SLS, and say so.
    effects, fit = analysis.effects, analysis.two_stage if analysis.headline.status else analysis.headline
    one = len(effects.mediators) == 1
    across = (site_scatter(effects, fit),) if one else partial_plots(effects, fit)
    return (estimates(analysis.fits), *across, forest(effects), *rank_pictures(analysis.rank))


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
