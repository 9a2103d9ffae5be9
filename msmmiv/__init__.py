"""msmmiv: effects of several mediators from a multisite trial, with site-by-treatment instruments.

The path: data -> `Design` -> `Moments` -> `SiteEffects` -> `Estimate` -> report. `Study` walks it.
"""

from msmmiv import data, errors
from msmmiv.audit.assumptions import load_assumptions
from msmmiv.design import Design
from msmmiv.diagnose.rank import RankReport, rank
from msmmiv.estimate import fit
from msmmiv.inference.results import Estimate, FirstStage
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.flow import SampleFlow
from msmmiv.moments.instruments import site_by_treatment
from msmmiv.study import Study

__version__ = "0.1.0"

__all__ = [
    "Design",
    "Estimate",
    "FirstStage",
    "Moments",
    "NotApplicable",
    "RankReport",
    "SampleFlow",
    "SiteEffects",
    "Study",
    "TestStatistic",
    "__version__",
    "data",
    "errors",
    "fit",
    "load_assumptions",
    "rank",
    "site_by_treatment",
]
