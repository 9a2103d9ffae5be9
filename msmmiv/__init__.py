"""msmmiv: effects of several mediators from a multisite trial, with site-by-treatment instruments.

The path: data -> `Design` -> `Moments` -> `SiteEffects` -> `Estimate` -> report. `Study` walks it.
"""

from msmmiv import data, errors
from msmmiv.audit.assumptions import load_assumptions
from msmmiv.design import Design
from msmmiv.diagnose.heterogeneity import Heterogeneity, heterogeneity
from msmmiv.diagnose.rank import RankReport, rank
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
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.flow import SampleFlow
from msmmiv.moments.instruments import site_by_treatment
from msmmiv.moments.strata import strata_as_sites
from msmmiv.moments.strata_build import Strata
from msmmiv.moments.subgroups import Subgroups, crossfit, find_subgroups
from msmmiv.study import Study

__version__ = "0.1.0"

__all__ = [
    "BCES", "SIMEX", "AdjustedDebiased", "BCLinear", "BCSymmetric", "BiasDecomposition", "ConfidenceSet",
    "CorrectedNormal", "Decomposition", "Design", "EbScore", "Estimate", "FirstStage", "Fuller", "Heterogeneity",
    "KnappHartung", "LambdaCorrected", "Moments", "NotApplicable", "RankReport", "ReducedForm", "SampleFlow",
    "SiteEffects", "SiteEquations", "SiteRatios", "Strata", "StructuralBayes", "StructuralReml", "Study",
    "Subgroups", "TestStatistic", "WildTest", "__version__", "anderson_rubin_set", "anderson_rubin_test",
    "bias_decomposition", "compliance_strata", "conditional_lr_set", "conditional_lr_test", "corrected_iv",
    "crossfit", "data", "decompose", "errors", "estimating_equations", "fieller_sets", "find_subgroups", "fit",
    "heterogeneity", "kleibergen_set", "kleibergen_test", "load_assumptions", "many_instrument_ar_set",
    "many_instrument_ar_test", "rank", "site_by_treatment", "strata_as_sites", "wild_set", "wild_test",
]  # fmt: skip
