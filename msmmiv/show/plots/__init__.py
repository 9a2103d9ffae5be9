"""Figures: drawn from results, with the numbers behind them; the only folder that imports matplotlib."""

from msmmiv.show.plots.estimates import estimates
from msmmiv.show.plots.forest import forest
from msmmiv.show.plots.gallery import gallery
from msmmiv.show.plots.picture import Picture
from msmmiv.show.plots.scatter import partial_plots, site_scatter

__all__ = ["Picture", "estimates", "forest", "gallery", "partial_plots", "site_scatter"]
