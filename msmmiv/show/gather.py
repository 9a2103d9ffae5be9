"""How the parts of an analysis are gathered, and what is said where a part is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from msmmiv.audit.result import Audit
from msmmiv.diagnose.heterogeneity import Heterogeneity
from msmmiv.diagnose.influence import leave_one_out
from msmmiv.diagnose.rank import RankReport
from msmmiv.errors import MsmmivError
from msmmiv.estimate import Estimator, Method
from msmmiv.estimate.bias import BiasDecomposition
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.covariance import CovType, SmallSample
from msmmiv.inference.results import Estimate, Interval
from msmmiv.inference.tests import NotApplicable
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.analysis import Analysis
from msmmiv.show.comparison import compared
from msmmiv.show.words import one_line

__all__ = ["Asked", "gather"]

#: Sites up to which Anderson-Rubin sets are computed unasked: one effect between sites; several.
AR_SITES, AR_SITES_SEVERAL = 2000, 200

T = TypeVar("T")


class Asked(Protocol):
    """What is asked of a study (`msmmiv.Study`), which stands above this room."""

    source: str
    moments: Moments

    @property
    def effects(self) -> SiteEffects: ...  # noqa: D102

    def fit(  # noqa: D102
        self, estimator: Method | Estimator | None = None, *, cov_type: CovType | None = None,
        direct_effect: bool = False, interval: Interval = "wald", small_sample: SmallSample | None = None,
    ) -> Estimate: ...  # fmt: skip

    def anderson_rubin_set(self, term: str, *, direct_effect: bool = False) -> ConfidenceSet: ...  # noqa: D102

    def heterogeneity(self, *, direct_effect: bool = False) -> Heterogeneity: ...  # noqa: D102

    def bias_decomposition(self) -> BiasDecomposition: ...  # noqa: D102

    def rank(self, *, direct_effect: bool = False) -> RankReport: ...  # noqa: D102

    def audit(self) -> Audit: ...  # noqa: D102


def gather(
    study: Asked,
    *,
    title: str | None,
    estimator: Method | Estimator | None,
    cov_type: CovType | None,
    direct_effect: bool,
    interval: Interval,
    small_sample: SmallSample | None,
    audit: Audit | None,
) -> Analysis:
    """The analysis of a study; `Study.analysis` is the public way."""
    if estimator is None and (cov_type is not None or small_sample is not None):
        estimator = "2sls"
    headline = study.fit(
        estimator,
        cov_type=cov_type,
        direct_effect=direct_effect,
        interval=interval,
        small_sample=small_sample,
    )
    fits, skipped = compared(study, headline, cov_type)
    # `fit` has already succeeded with these moments, so plain 2SLS is among them.
    two_stage = next(f for f in fits if f.method == "2sls" and f.direct_effect == direct_effect)
    design = study.moments.design
    # The audit made here has asked for the same rank; one that is handed in may be of other data or draws.
    found = study.audit() if audit is None else audit
    ranked = None if audit is not None or direct_effect else found.results.get("rank")
    return Analysis(
        title=title or f"Effects of {', '.join(design.mediators)} on {design.outcome}",
        source=study.source, moments=study.moments, effects=study.effects, headline=headline,
        two_stage=two_stage, fits=fits, skipped=skipped, rank=ranked or study.rank(direct_effect=direct_effect),
        anderson_rubin=tuple(_anderson_rubin(study, m, direct_effect=direct_effect) for m in design.mediators),
        heterogeneity=_or_reason("Heterogeneity", lambda: study.heterogeneity(direct_effect=direct_effect)),
        bias=_or_reason("Bias decomposition", study.bias_decomposition),
        leave_one_out=_or_reason("Leave-one-out", lambda: leave_one_out(headline, study.moments.sites)),
        audit=found,
    )  # fmt: skip


def _or_reason(name: str, made: Callable[[], T]) -> T | NotApplicable:
    try:
        return made()
    except MsmmivError as error:
        return NotApplicable(name, one_line(error))


def _anderson_rubin(study: Asked, term: str, *, direct_effect: bool) -> ConfidenceSet | NotApplicable:
    several = len(study.moments.design.mediators) > 1 or direct_effect
    most, sites = AR_SITES_SEVERAL if several else AR_SITES, study.moments.n_sites
    if sites > most:
        ask = f"anderson_rubin_set({term!r}{', direct_effect=True' if direct_effect else ''})"
        return NotApplicable(term, f"with {sites:,} sites it takes long; ask for it with study.{ask}")
    return _or_reason(term, lambda: study.anderson_rubin_set(term, direct_effect=direct_effect))
