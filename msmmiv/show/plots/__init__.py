"""Figures: drawn from results, with the numbers behind them; the only folder that imports matplotlib."""

from msmmiv.show.plots.accessor import StudyPlots, figure_names
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
from msmmiv.show.plots.gallery import audit_pictures, decomposition_pictures, gallery, rank_pictures
from msmmiv.show.plots.independence import independence
from msmmiv.show.plots.leave_one_out import leave_one_out_plot
from msmmiv.show.plots.origin import origin
from msmmiv.show.plots.picture import Picture
from msmmiv.show.plots.rank import rank_spectrum
from msmmiv.show.plots.scatter import partial_panels, partial_plots, site_scatter
from msmmiv.show.plots.sensitivity import sensitivity_plot
from msmmiv.show.plots.weights import weights

__all__ = ["Picture", "StudyPlots", "audit_pictures", "balance", "causal_dag", "compliance_map", "compliance_scatter",
           "confidence_curve", "decomposition_pictures", "decomposition_scatter", "estimates", "falsification",
           "figure_names", "forest", "gallery", "independence", "indirect_forest", "leave_one_out_plot",
           "origin", "partial_panels", "partial_plots", "rank_pictures",
           "rank_spectrum", "sensitivity_plot", "simex_extrapolation", "site_scatter",
           "weights"]  # fmt: skip
