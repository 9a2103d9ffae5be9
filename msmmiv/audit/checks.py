"""The checks of an audit in order: each asks one part of `msmmiv.diagnose` about one subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from msmmiv.design import Design, Estimand, Label
from msmmiv.diagnose.attrition import attrition
from msmmiv.diagnose.balance import covariate_balance
from msmmiv.diagnose.control_level import effect_by_control_mean
from msmmiv.diagnose.density import instrumental_inequalities
from msmmiv.diagnose.dose import dose_line
from msmmiv.diagnose.dose_curvature import dose_curvature
from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.independence import independence
from msmmiv.diagnose.interference import control_means
from msmmiv.diagnose.linearity import SurfaceKind, surface_test
from msmmiv.diagnose.monotonicity import compliance_signs, is_binary
from msmmiv.diagnose.parallel import parallel
from msmmiv.diagnose.rank import rank
from msmmiv.diagnose.rank_evidence import rank_evidence
from msmmiv.diagnose.sensitivity import direct_effect_line, outcome_spread
from msmmiv.diagnose.sensitivity_correlation import compliance_effect_correlation
from msmmiv.diagnose.sensitivity_omitted import omitted_mediator
from msmmiv.diagnose.sensitivity_within import within_site_covariance
from msmmiv.diagnose.shares import arm_shares
from msmmiv.diagnose.site_table import site_table
from msmmiv.diagnose.within_site import within_site_subgroups
from msmmiv.diagnose.zero_compliance import zero_compliance_sites
from msmmiv.errors import ChoiceError, MomentsInsufficient
from msmmiv.estimate.site_moments import noise_effects
from msmmiv.inference.tests import NotApplicable
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.sums import Rows

__all__ = ["SURVEYS", "Subject", "Survey", "design_of"]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is audited.

    Attributes
    ----------
    source : Moments or SiteEffects
    effects : SiteEffects
        With a covariance in every site, clusters heeded.
    design : Design
        That of the moments; of a published table, one that names its columns.
    site_covariates, planned_shares, rows
        What the user gave beside; None without.
    draws, seed : int
    """

    source: Moments | SiteEffects
    effects: SiteEffects
    design: Design
    site_covariates: pd.DataFrame | None
    planned_shares: float | Mapping[Label, float] | None
    rows: Rows | None
    draws: int
    seed: int

    @classmethod
    def of(
        cls,
        source: Moments | SiteEffects,
        *,
        site_covariates: pd.DataFrame | None,
        planned_shares: float | Mapping[Label, float] | None,
        draws: int,
        seed: int,
        rows: Rows | None,
    ) -> Subject:
        """The subject of an audit; what the user gave beside the data is refused here if it does not fit them.

        Raises
        ------
        MsmmivError
            Site covariates or planned shares that do not match the sites.
        """
        effects = noise_effects(source)
        design = source.design if isinstance(source, Moments) else design_of(source)
        if site_covariates is not None:
            site_table(source, effects, site_covariates)
        if planned_shares is not None:
            if not isinstance(source, Moments):
                raise ChoiceError(
                    "planned_shares are compared with people; a table of site effects holds none."
                )
            arm_shares(source, planned=planned_shares, seed=seed)
        return cls(source, effects, design, site_covariates, planned_shares, rows, draws, seed)

    @property
    def estimand(self) -> Estimand:
        """Whose effects."""
        return self.design.estimand

    @property
    def moments(self) -> Moments:
        """The moments.

        Raises
        ------
        MomentsInsufficient
            There are site effects only.
        """
        if isinstance(self.source, Moments):
            return self.source
        raise MomentsInsufficient(
            "a table of site effects does not hold what this check needs: people, or moments of them, by site and arm"
        )

    @cached_property
    def binary_mediators(self) -> bool:
        """Whether every mediator has the two values zero and one."""
        if not isinstance(self.source, Moments):
            return False
        return all(is_binary(self.source, j) for j in range(1, 1 + len(self.design.mediators)))


#: A result of `msmmiv.diagnose` for figures and pages, None without one, and what it says.
Surveyed: TypeAlias = tuple[Any, tuple[Evidence, ...]]

#: People that an audit collects unasked, and values from which on a covariate is cut at its median.
MOST_ROWS: Final = 1_000_000
#: Values of a dose up to which they are compared as arms.
MOST_ARMS: Final = 10
_LEVELS: Final = 6


@dataclass(frozen=True)
class Survey:
    """One call into `msmmiv.diagnose`, and the checks that it answers."""

    name: str
    checks: tuple[str, ...]
    run: Callable[[Subject], Surveyed]


def _rank(subject: Subject) -> Surveyed:
    found = rank(subject.source, draws=subject.draws, seed=subject.seed, rows=subject.rows)
    return found, rank_evidence(found)


def _surface(kind: SurfaceKind, *, direct_effect: bool) -> Callable[[Subject], Surveyed]:
    """A test of the surface; curvature with a free intercept, so that a failed exclusion is not read as curvature."""

    def run(subject: Subject) -> Surveyed:
        found = surface_test(
            subject.effects, kind, direct_effect=direct_effect, draws=subject.draws, seed=subject.seed
        )
        return found, found.evidence()

    return run


def _through_origin(subject: Subject) -> Surveyed:
    """Curvature with no intercept, as exclusion has it; a direct effect bends it too."""
    found = surface_test(subject.effects, "curvature", draws=subject.draws, seed=subject.seed)
    return found, tuple(
        replace(
            e,
            role="context",
            test=replace(e.test, name="curvature through the origin"),
            reading=f"It takes exclusion (ii) as given: a direct effect is read as a bend here. {e.reading}",
        )
        for e in found.evidence()
    )


def _several(run: Callable[[Subject], Surveyed], *, several: bool) -> Callable[[Subject], Surveyed]:
    """A check for one mediator, or for several; without evidence where it is for the other."""

    def chosen(subject: Subject) -> Surveyed:
        return run(subject) if (len(subject.design.mediators) > 1) == several else (None, ())

    return chosen


def _zero(subject: Subject) -> Surveyed:
    found = zero_compliance_sites(subject.effects)
    return found, (found,)


def _level(subject: Subject) -> Surveyed:
    found = effect_by_control_mean(subject.moments, draws=subject.draws, seed=subject.seed)
    return found, (found,)


def _dose(subject: Subject) -> Surveyed:
    """Doses that take few values are compared as arms; any others with a parabola, as context."""
    if subject.rows is None or subject.design.treatment_kind != "continuous":
        line = dose_line(subject.source)
        return line, line.evidence()
    bent = dose_curvature(subject.rows, subject.design)
    try:
        line = dose_line(_as_arms(_people(subject), subject.design))
    except MomentsInsufficient as error:
        none = NotApplicable("slopes between neighbouring doses", str(error))
        return bent, (Evidence("dose.neighbouring_arms", none, "evidence"), *bent.evidence())
    return line, (*line.evidence(), *bent.evidence())


def _as_arms(rows: Rows, design: Design) -> Moments:
    frame = rows.collect()
    values = np.unique(frame[design.treatment].to_numpy(dtype=float))
    if not 3 <= len(values) <= MOST_ARMS:
        raise MomentsInsufficient(
            f"the dose takes {len(values)} values: declare ranges of it as arms to compare slopes between them"
        )
    arms = replace(design, treatment_kind="arms", control=float(values[0]), covariates=())
    return Moments.from_data(frame, arms)


def _parallel(subject: Subject) -> Surveyed:
    found = parallel(subject.source, draws=subject.draws, seed=subject.seed)
    return found, found.evidence()


def _interference(subject: Subject) -> Surveyed:
    found = control_means(subject.source)
    return found, found.evidence()


def _balance(subject: Subject) -> Surveyed:
    found = covariate_balance(subject.moments)
    return found, found.evidence()


def _shares(subject: Subject) -> Surveyed:
    found = arm_shares(subject.moments, planned=subject.planned_shares, seed=subject.seed)
    return found, found.evidence()


def _attrition(subject: Subject) -> Surveyed:
    found = attrition(subject.moments, seed=subject.seed)
    return found, found.evidence()


def _within(subject: Subject) -> Surveyed:
    """One split per covariate: crossed, subgroups would be too small, and a covariate alone has a name."""
    if subject.design.estimand == "late":
        return None, ()
    if len(subject.design.mediators) > 1:
        why = "with several mediators a site's effects take as many subgroups before anything is left to test"
        return None, (
            Evidence("within_site.subgroups", NotApplicable("subgroups inside sites", why), "evidence"),
        )
    rows, covariates = _people(subject), subject.design.covariates
    if not covariates:
        raise MomentsInsufficient("the design declares no pre-treatment covariates to split the sites by")
    frame, found = rows.collect(), []
    for name in covariates:
        bins = {name: 2} if frame[name].nunique() > _LEVELS else None
        found.append(
            within_site_subgroups(
                frame, subject.design, by=name, bins=bins, draws=subject.draws, seed=subject.seed
            )
        )
    return tuple(found), tuple(e for f in found for e in f.evidence())


def _people(subject: Subject) -> Rows:
    if subject.rows is None:
        raise MomentsInsufficient("this check needs people, and there are moments of them only")
    if subject.moments.n.sum() > MOST_ROWS:
        raise MomentsInsufficient(
            f"with more than {MOST_ROWS:,} people an audit does not collect them unasked; call the check itself"
        )
    return subject.rows


def _signs(subject: Subject) -> Surveyed:
    if subject.design.estimand != "late":
        return None, ()
    found = compliance_signs(subject.source)
    return found, found.evidence()


def _density(subject: Subject) -> Surveyed:
    if subject.design.estimand != "late":
        return None, ()
    rows = subject.rows if subject.rows is not None and subject.moments.n.sum() <= MOST_ROWS else None
    found = instrumental_inequalities(subject.moments, rows=rows, seed=subject.seed)
    return found, found.evidence()


def _independence(subject: Subject) -> Surveyed:
    found = independence(
        subject.source, covariates=subject.site_covariates, draws=subject.draws, seed=subject.seed
    )
    return found, found.evidence()


def _sensitivity(subject: Subject) -> Surveyed:
    unit = outcome_spread(subject.source) if isinstance(subject.source, Moments) else None
    found = direct_effect_line(subject.effects, outcome_sd=unit)
    return found, (found.evidence(),)


def _omitted(subject: Subject) -> Surveyed:
    found = omitted_mediator(subject.effects)
    return found, (found.evidence(),)


def _correlation(subject: Subject) -> Surveyed:
    found = compliance_effect_correlation(subject.effects)
    return found, (found.evidence(),)


def _covariance(subject: Subject) -> Surveyed:
    found = within_site_covariance(subject.effects)
    return found, (found.evidence(),)


SURVEYS: Final[tuple[Survey, ...]] = (
    Survey("interference", ("independence.share_treated_on_control_means",), _interference),
    Survey("origin", ("linearity.origin_intercept",), _surface("origin", direct_effect=False)),
    Survey("zero_compliance", ("linearity.zero_compliance_sites",), _zero),
    Survey("direct_effect_line", ("sensitivity.direct_effect_line",), _sensitivity),
    Survey("omitted_mediator", ("sensitivity.omitted_mediator",), _omitted),
    Survey("dose", ("dose.neighbouring_arms",), _dose),
    Survey(
        "curvature", ("linearity.corrected_curvature",),
        _several(_surface("curvature", direct_effect=True), several=False),
    ),
    Survey(
        "curvature_through_origin", ("linearity.corrected_curvature",), _several(_through_origin, several=False)
    ),
    Survey("reset", ("linearity.reset",), _several(_surface("reset", direct_effect=True), several=True)),
    Survey("vech", ("linearity.vech",), _several(_surface("vech", direct_effect=True), several=True)),
    Survey("control_level", ("linearity.effect_by_control_mean",), _several(_level, several=False)),
    Survey("parallel", ("independence.cascade_slope",), _several(_parallel, several=True)),
    Survey("balance", ("balance.covariates_joint",), _balance),
    Survey("shares", ("balance.arm_shares",), _shares),
    Survey("attrition", ("balance.attrition_by_arm",), _attrition),
    Survey("within_site", ("within_site.subgroups",), _within),
    Survey("within_site_covariance", ("sensitivity.within_site_covariance",), _covariance),
    Survey("signs", ("monotonicity.signs",), _signs),
    Survey("inequalities", ("monotonicity.density",), _density),
    Survey("rank", ("rank.noise_floor_eigenvalues",), _rank),
    Survey(
        "independence",
        ("independence.site_covariates", "independence.site_size", "independence.weights_and_effects"),
        _independence,
    ),
    Survey("correlation", ("sensitivity.compliance_effect_correlation",), _correlation),
)  # fmt: skip


def design_of(effects: SiteEffects) -> Design:
    """Names for a table of published estimates, none twice."""
    taken = {effects.outcome, *effects.mediators}

    def free(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    return Design(
        outcome=effects.outcome, treatment=free("treatment"), mediators=effects.mediators, site=free("site")
    )
