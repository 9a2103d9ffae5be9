"""msmmiv: effects of several mediators from a multisite trial, with site-by-treatment instruments.

The path: data -> `Design` -> `Moments` -> `SiteEffects` -> `Estimate` -> report. `Study` walks it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msmmiv import data, errors
from msmmiv.audit.assumption_files import load_assumptions
from msmmiv.audit.cascade import Cascade, cascade
from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.findings import Finding
from msmmiv.audit.result import Audit
from msmmiv.audit.run import audit_assumptions
from msmmiv.design import Design
from msmmiv.diagnose.balance import covariate_balance
from msmmiv.diagnose.heterogeneity import Heterogeneity, heterogeneity
from msmmiv.diagnose.independence import independence
from msmmiv.diagnose.linearity import SurfaceTest, surface_test
from msmmiv.diagnose.rank import RankReport, rank
from msmmiv.diagnose.sensitivity import direct_effect_line
from msmmiv.diagnose.sensitivity_correlation import compliance_effect_correlation
from msmmiv.diagnose.sensitivity_omitted import omitted_mediator
from msmmiv.diagnose.sensitivity_within import within_site_covariance
from msmmiv.diagnose.suppression import SuppressionEffect, suppression_effect
from msmmiv.diagnose.within_site import within_site_subgroups
from msmmiv.estimate import estimating_equations, fit
from msmmiv.estimate.between.bayes import StructuralBayes
from msmmiv.estimate.between.corrected import BCES, AdjustedDebiased, CorrectedNormal
from msmmiv.estimate.between.decompose import decompose
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.estimate.between.eb_estimator import EbScore
from msmmiv.estimate.between.linear import KnappHartung
from msmmiv.estimate.between.reliability import LambdaCorrected
from msmmiv.estimate.between.reml import StructuralReml
from msmmiv.estimate.between.simex import SIMEX
from msmmiv.estimate.bias import BiasDecomposition, bias_decomposition
from msmmiv.estimate.corrected import BCLinear, BCSymmetric, corrected_iv
from msmmiv.estimate.kclass import Fuller
from msmmiv.inference.bootstrap import WildTest, wild_set, wild_test
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.inference.results import Estimate
from msmmiv.inference.stage import FirstStage
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.inference.weak_iv import (
    anderson_rubin_set,
    anderson_rubin_test,
    conditional_lr_set,
    conditional_lr_test,
    kleibergen_set,
    kleibergen_test,
)
from msmmiv.inference.weak_iv_sites import (
    SiteRatios,
    fieller_sets,
    many_instrument_ar_set,
    many_instrument_ar_test,
)
from msmmiv.moments.cells import Moments
from msmmiv.moments.compliance_strata import compliance_strata
from msmmiv.moments.data_file import DataFile
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.flow import SampleFlow
from msmmiv.moments.instruments import site_by_treatment
from msmmiv.moments.strata import strata_as_sites
from msmmiv.moments.strata_build import Strata
from msmmiv.moments.subgroups import Subgroups, crossfit, find_subgroups
from msmmiv.plan.simulate import SimulatedTrial, simulate
from msmmiv.study import Study

if TYPE_CHECKING:
    from msmmiv.document import StudyFile, check_study, init_study, read_study, run_study
    from msmmiv.show.checklist import checklist, write_checklist

__version__ = "0.1.0"

__all__ = [
    "BCES", "SIMEX", "AdjustedDebiased", "Audit", "BCLinear", "BCSymmetric", "BiasDecomposition", "Cascade",
    "CausalDAG", "ConfidenceSet", "CorrectedNormal", "DataFile", "Decomposition", "Design", "EbScore", "Estimate",
    "Finding", "FirstStage", "Fuller", "Heterogeneity", "KnappHartung", "LambdaCorrected", "Moments",
    "NotApplicable", "RankReport", "ReducedForm", "SampleFlow", "SimulatedTrial", "SiteEffects", "SiteEquations",
    "SiteRatios", "Strata", "StructuralBayes", "StructuralReml", "Study", "StudyFile", "Subgroups",
    "SuppressionEffect", "SurfaceTest", "TestStatistic", "WildTest", "__version__", "anderson_rubin_set",
    "anderson_rubin_test", "audit_assumptions", "bias_decomposition", "cascade", "check_study", "checklist",
    "compliance_effect_correlation", "compliance_strata", "conditional_lr_set", "conditional_lr_test",
    "corrected_iv", "covariate_balance", "crossfit", "data", "decompose", "direct_effect_line", "errors",
    "estimating_equations", "fieller_sets", "find_subgroups", "fit", "heterogeneity", "independence", "init_study",
    "kleibergen_set", "kleibergen_test", "load_assumptions", "many_instrument_ar_set", "many_instrument_ar_test",
    "omitted_mediator", "rank", "read_study", "run_study", "simulate", "site_by_treatment", "strata_as_sites",
    "suppression_effect", "surface_test", "wild_set", "wild_test", "within_site_covariance",
    "within_site_subgroups", "write_checklist",
]  # fmt: skip

#: Loaded when first asked for: they bring pages, tables and figures with them, which many programs never need.
_LATER = {
    "StudyFile": "document", "check_study": "document", "checklist": "show.checklist", "init_study": "document",
    "read_study": "document", "run_study": "document", "write_checklist": "show.checklist",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """One of these names, from the room it lives in."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"msmmiv.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
