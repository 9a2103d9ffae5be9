"""The pictures of one analysis, in the order in which the report shows them."""

from __future__ import annotations

from msmmiv.show.analysis import Analysis
from msmmiv.show.plots.estimates import estimates
from msmmiv.show.plots.forest import forest
from msmmiv.show.plots.picture import Picture
from msmmiv.show.plots.scatter import partial_plots, site_scatter

__all__ = ["gallery"]


def gallery(analysis: Analysis) -> tuple[Picture, ...]:
    """The estimates, the regression over sites (whole or partial), and the forest.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import gallery
    >>> [p.name for p in gallery(mm.Study(mm.data.star()).analysis())]
    ['estimates', 'site_scatter', 'forest']
    """
    # A line needs a slope: where the headline has no point estimate the pictures show 2SLS, and say so.
    effects, fit = analysis.effects, analysis.two_stage if analysis.headline.status else analysis.headline
    one = len(effects.mediators) == 1
    across = (site_scatter(effects, fit),) if one else partial_plots(effects, fit)
    return (estimates(analysis.fits), *across, forest(effects))
