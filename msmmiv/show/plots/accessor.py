"""``study.plot``: every figure of a study by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast, get_args

from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.result import Audit
from msmmiv.diagnose.influence import leave_one_out
from msmmiv.diagnose.rank import RankReport
from msmmiv.errors import DataError, check_choice, listing
from msmmiv.estimate import Estimator, Method
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.inference.covariance import CovType, SmallSample
from msmmiv.inference.results import Estimate, Interval
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.show.comparison import compared, named_or_by_rule
from msmmiv.show.plots import audit_figures
from msmmiv.show.plots.compliance_map import compliance_map
from msmmiv.show.plots.compliance_scatter import compliance_scatter
from msmmiv.show.plots.dag import causal_dag
from msmmiv.show.plots.decomposition import decomposition_scatter
from msmmiv.show.plots.decomposition_curves import confidence_curve, simex_extrapolation, simex_fit
from msmmiv.show.plots.decomposition_forest import indirect_forest
from msmmiv.show.plots.estimates import estimates
from msmmiv.show.plots.forest import forest
from msmmiv.show.plots.leave_one_out import leave_one_out_plot
from msmmiv.show.plots.picture import Picture
from msmmiv.show.plots.rank import rank_spectrum
from msmmiv.show.plots.scatter import partial_panels, partial_plots, site_scatter
from msmmiv.show.plots.sheet import Width, at_width
from msmmiv.show.plots.weights import weights
from msmmiv.show.sets import why
from msmmiv.show.words import one_line

__all__ = ["FigureName", "StudyPlots", "figure_names"]

FigureName: TypeAlias = Literal[
    "estimates", "scatter", "forest", "leave_one_out", "weights", "rank", "compliances", "compliance_map", "dag",
    "origin", "falsification", "balance", "independence", "direct_effect_line", "sensitivity", "decomposition",
    "confidence_curve", "indirect_effects", "simex",
]  # fmt: skip

T = TypeVar("T")


class Drawn(Protocol):
    """What figures ask of a study (`msmmiv.Study`), which stands above this room."""

    moments: Moments

    @property
    def effects(self) -> SiteEffects: ...

    def fit(
        self, estimator: Method | Estimator | None = None, *, cov_type: CovType | None = None,
        direct_effect: bool = False, small_sample: SmallSample | None = None, interval: Interval = "wald",
    ) -> Estimate: ...  # fmt: skip

    def rank(self, *, direct_effect: bool = False, draws: int = 999, seed: int = 0) -> RankReport: ...

    def audit(self) -> Audit: ...

    def decompose(self, **options: Any) -> Decomposition: ...


def figure_names() -> dict[str, str]:
    """The figures of `StudyPlots`, each with what it shows in one sentence.

    Examples
    --------
    >>> figure_names()["forest"]
    'Effects on outcome and mediators, one row per site, in order.'
    """
    return {
        name: str(getattr(StudyPlots, name).__doc__).strip().splitlines()[0] for name in get_args(FigureName)
    }


@dataclass(frozen=True, eq=False)
class StudyPlots:
    """Every figure of a study by name; each comes with its data, caption and description (`Picture`).

    Attributes
    ----------
    study : Study
    width : {"page", "column"}
        How wide the figures may be: 7 inches, or 3.4. Letters are as large in either and never below 7 points.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import StudyPlots
    >>> plot = StudyPlots(mm.Study(mm.data.star()))
    >>> plot.forest()
    Picture('forest', 5.6 x 7.0 in, data of 79 rows)
    >>> plot.at("column").forest()
    Picture('forest', 3.4 x 7.0 in, data of 79 rows)
    """

    study: Drawn
    width: Width = "page"
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_choice(self.width, Width, "width")

    def at(self, width: Width) -> StudyPlots:
        """The same figures for a column (3.4 inches) or a page (7 inches); what was computed is kept."""
        return replace(self, width=width)

    def draw(self, name: FigureName, **options: Any) -> Picture:
        """A figure by its name, for programs; in a notebook write ``study.plot.forest()``.

        Raises
        ------
        ChoiceError
            There is no figure of this name.

        Examples
        --------
        >>> import msmmiv as mm
        >>> from msmmiv.show.plots import StudyPlots
        >>> StudyPlots(mm.Study(mm.data.star())).draw("dag").name
        'causal_dag'
        """
        check_choice(name, FigureName, "name")
        return cast("Picture", getattr(self, name)(**options))

    # ------------------------------------------------------------------------------ estimates and sites

    def estimates(self, *, direct_effect: bool = False) -> Picture:
        """Every estimator with its confidence set, with and without a direct effect.

        The headline, chosen by rule, is the diamond; estimators that this sample cannot support are named in the
        caption.
        """
        fits, skipped = self._once(
            ("fits", direct_effect), lambda: compared(self.study, self.study.fit(direct_effect=direct_effect))
        )
        with at_width(self.width):
            return estimates(fits, skipped=skipped)

    def scatter(
        self,
        mediator: str | None = None,
        *,
        estimator: Method | Estimator | None = None,
        direct_effect: bool = False,
    ) -> Picture:
        """Effects on the outcome against those on the mediator, site by site, with the line of an estimator.

        By default the one that the rule chooses. With several mediators these are partial plots: of all of them, or of
        the one that is named.
        """
        effects = self.study.effects
        fit = named_or_by_rule(self.study, estimator, direct_effect=direct_effect)
        names = effects.mediators
        if mediator is not None and mediator not in names:
            raise DataError(f"mediator={mediator!r} must be one of {listing(names, quote=True)}.")
        with at_width(self.width):
            if len(names) == 1:
                return site_scatter(effects, fit)
            if mediator is None:
                return partial_panels(effects, fit)
            return partial_plots(effects, fit)[names.index(mediator)]

    def forest(self) -> Picture:
        """Effects on outcome and mediators, one row per site, in order."""
        with at_width(self.width):
            return forest(self.study.effects)

    def leave_one_out(
        self, estimator: Method | Estimator | None = None, *, direct_effect: bool = False
    ) -> Picture:
        """The coefficients without each site in turn, before the confidence set of all sites.

        Of the estimator that the rule chooses, or of the one that is named.
        """
        fit = named_or_by_rule(self.study, estimator, direct_effect=direct_effect)
        if fit.status:
            raise DataError(
                f"There is no estimate to leave sites out of ({why(fit)}); name another estimator, such as '2sls'."
            )
        without = leave_one_out(fit, self.study.moments.sites)
        with at_width(self.width):
            return leave_one_out_plot(fit, without)

    def weights(self, estimator: Method | Estimator | None = None, *, direct_effect: bool = False) -> Picture:
        """Which sites speak: the share of each in every coefficient, and what leaving it out does.

        Of the estimator that the rule chooses, or of the one that is named.
        """
        fit = named_or_by_rule(self.study, estimator, direct_effect=direct_effect)
        with at_width(self.width):
            return weights(fit, self.study.moments.sites)

    # ----------------------------------------------------------------------------------------------- rank

    def rank(self, *, direct_effect: bool = False, draws: int = 999, seed: int = 0) -> Picture:
        """How differently the treatment moves the mediators, direction by direction, against noise alone."""
        with self._ranked(direct_effect=direct_effect, draws=draws, seed=seed) as report:
            made = rank_spectrum(report)
            if made is None:
                raise DataError(f"There is no noise floor to draw: {one_line(report.why_no_spectrum)}.")
            return made

    def compliances(self, *, direct_effect: bool = False, draws: int = 999, seed: int = 0) -> Picture:
        """Compliance with two mediators against one another; of several, the two correlated most."""
        with self._ranked(direct_effect=direct_effect, draws=draws, seed=seed) as report:
            made = compliance_scatter(report)
            if made is None:
                raise DataError(
                    "compliances() compares two mediators and there is one; use compliance_map()."
                )
            return made

    def compliance_map(self, *, direct_effect: bool = False, draws: int = 999, seed: int = 0) -> Picture:
        """What the treatment does to every mediator in every site, in units of noise."""
        with self._ranked(direct_effect=direct_effect, draws=draws, seed=seed) as report:
            return compliance_map(report)

    # ---------------------------------------------------------------------------------------------- audit

    def dag(self, dag: CausalDAG | None = None) -> Picture:
        """The causal graph: the one given, or that of the design."""
        with at_width(self.width):
            return causal_dag(CausalDAG.from_design(self.study.moments.design) if dag is None else dag)

    def origin(self, audit: Audit | None = None) -> Picture:
        """What is left of the effect on the outcome where the treatment moves no mediator."""
        with self._audited(audit) as found:
            return audit_figures.origin_of(found)

    def falsification(self, audit: Audit | None = None) -> Picture:
        """Whether effects on the outcome are a plane in those on the mediators, with the reach of noise."""
        with self._audited(audit) as found:
            return audit_figures.falsification_of(found)

    def balance(self, audit: Audit | None = None) -> Picture:
        """Differences of the covariates between arms, pooled and by site; needs covariates in the design."""
        with self._audited(audit) as found:
            return audit_figures.balance_of(found)

    def independence(self, audit: Audit | None = None) -> Picture:
        """Correlations of compliances, effects and properties of sites, sampling error taken out."""
        with self._audited(audit) as found:
            return audit_figures.independence_of(found)

    def direct_effect_line(self, audit: Audit | None = None) -> Picture:
        """The coefficients if assignment had a direct effect of a given size."""
        with self._audited(audit) as found:
            return audit_figures.sensitivity_of(found, "direct_effect_line")

    def sensitivity(self, audit: Audit | None = None) -> Picture:
        """The coefficients if sites' effects went with their compliances to a given degree."""
        with self._audited(audit) as found:
            return audit_figures.sensitivity_of(found, "correlation")

    # -------------------------------------------------------------------------------------- decomposition

    def decomposition(
        self, mediator: str | None = None, *, found: Decomposition | None = None, **options: Any
    ) -> Picture:
        """Effects site by site with their errors, and the lines that the data leave open.

        ``options`` are those of `Study.decompose`; or hand over what that gave as ``found``.
        """
        with self._decomposed(found, options) as made:
            return decomposition_scatter(made, mediator)

    def confidence_curve(
        self, mediator: str | None = None, *, found: Decomposition | None = None, **options: Any
    ) -> Picture:
        """The p-value of every size of a mediator's effect: all confidence sets at once."""
        with self._decomposed(found, options) as made:
            return confidence_curve(made, mediator)

    def indirect_effects(self, *, found: Decomposition | None = None, **options: Any) -> Picture:
        """What goes through the mediators and past them, one row per site."""
        with self._decomposed(found, options) as made:
            return indirect_forest(made)

    def simex(self, *, found: Decomposition | None = None, **options: Any) -> Picture:
        """Coefficients as sampling error is added, and led back to none."""
        with self._decomposed(found, options) as made:
            picture = simex_extrapolation(made)
            if picture is None:
                tried = simex_fit(made)
                told = tried if isinstance(tried, str) else tried.status or "no error could be added"
                raise DataError(f"There is no extrapolation to draw: {one_line(told)}.")
            return picture

    # ---------------------------------------------------------------------------------------------- inside

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was computed for one figure serves the next."""
        if key not in self._kept:
            self._kept[key] = make()
        return cast("T", self._kept[key])

    @contextmanager
    def _ranked(self, *, direct_effect: bool, draws: int, seed: int) -> Iterator[RankReport]:
        key = ("rank", direct_effect, draws, seed)
        found = self._once(key, lambda: self.study.rank(direct_effect=direct_effect, draws=draws, seed=seed))
        with at_width(self.width):
            yield found

    @contextmanager
    def _audited(self, audit: Audit | None) -> Iterator[Audit]:
        found = self._once("audit", self.study.audit) if audit is None else audit
        with at_width(self.width):
            yield found

    @contextmanager
    def _decomposed(self, found: Decomposition | None, options: dict[str, Any]) -> Iterator[Decomposition]:
        if found is not None and options:
            raise DataError(
                f"Options ({listing(options)}) are for a decomposition made here; leave out `found`."
            )
        if found is None:
            # Options may be arrays, which no table can look up: only the plain decomposition is kept.
            found = (
                self.study.decompose(**options)
                if options
                else self._once("decomposition", self.study.decompose)
            )
        with at_width(self.width):
            yield found
