"""Study: the path from data to estimate in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.result import Audit
from msmmiv.audit.run import audit_assumptions
from msmmiv.design import Design
from msmmiv.diagnose.heterogeneity import Heterogeneity, heterogeneity
from msmmiv.diagnose.influence import leave_one_out
from msmmiv.diagnose.rank import RankReport, rank
from msmmiv.errors import ChoiceError, DesignError, MomentsMismatch, check_choice
from msmmiv.estimate import Estimator, Method, exogeneity_test, fit, fit_all, fit_by_rule, system_of
from msmmiv.estimate.between.decompose import decompose
from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.estimate.between.methods import BetweenEstimator, BetweenMethod
from msmmiv.estimate.bias import BiasDecomposition, bias_decomposition
from msmmiv.estimate.linearmodels_bridge import Intercepts, LinearModel, rows_to_linearmodels
from msmmiv.estimate.site_moments import noise_effects
from msmmiv.estimate.ujive import noise_products
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.covariance import CovType, SmallSample
from msmmiv.inference.first_stage import site_effects_from_rows
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.inference.results import Estimate, Interval
from msmmiv.inference.tests import TestResult, TestStatistic
from msmmiv.inference.weak_iv import anderson_rubin_set, anderson_rubin_test
from msmmiv.moments.cells import Missing, Moments
from msmmiv.moments.data_file import DataFile
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.flow import SampleFlow
from msmmiv.moments.moments_card import study_card
from msmmiv.moments.noise import NoiseKind
from msmmiv.moments.opening import open_rows
from msmmiv.moments.sums import Rows

if TYPE_CHECKING:  # pages, tables and figures are loaded when one is asked for
    from msmmiv.show.analysis import Analysis
    from msmmiv.show.iv_table import IVTable
    from msmmiv.show.plots.accessor import StudyPlots

__all__ = ["Study"]


class Study:
    """Data and design together: ten lines from a file to a defended estimate.

    The rows are read once, into moments; everything else is computed from those. Only covariances that
    need every row (HC with covariates, HC of least squares) go back to the data.

    Parameters
    ----------
    data : frame, path, DataFile or Moments
        A frame of pandas, polars, pyarrow, DuckDB, ibis, Dask or PySpark, which stays in its engine; files (CSV or
        Parquet, which are streamed, or of Stata, SPSS or SAS): a path, glob, folder or `DataFile`; or moments.
    design : Design, optional
        The roles. Left out only when ``data`` is `Moments`, which know their design.
    missing : {"error", "drop"}
        What to do with rows that lack the site or the arm. Rows that lack another declared column are
        left out and counted either way.
    progress : bool, optional
        Bars on the passes over the rows; by default on a terminal, for files.

    Raises
    ------
    MsmmivError
        See `msmmiv.errors`; the message says what to do.

    Examples
    --------
    >>> import msmmiv as mm
    >>> study = mm.Study(mm.data.star())
    >>> fit = study.fit("2sls", cov_type="cluster")
    >>> fit.params.round(2).to_dict(), fit.std_errors.round(2).to_dict()
    ({'class_size': -1.11}, {'class_size': 0.27})
    """

    def __init__(
        self, data: Any, design: Design | None = None, *, missing: Missing = "error", progress: bool | None = None
    ) -> None:  # fmt: skip
        check_choice(missing, Missing, "missing")
        self._rows: Rows | None = None
        if isinstance(data, Moments):
            if missing != "error" or progress is not None:
                raise DesignError("missing= and progress= are about reading rows; moments hold none.")
            if design is not None and design != data.design:
                raise MomentsMismatch("The moments were made with another design; leave `design` out.")
            self.source = "moments"
            self.moments = data.usable()
            return
        if design is None:
            raise DesignError("Study(data, design) needs a design that gives the columns their roles.")
        file = DataFile((str(data),)) if isinstance(data, str | Path) else data
        self.source = file.name if isinstance(file, DataFile) else f"a {type(data).__name__} in memory"
        self._rows = open_rows(data, design, missing=missing, progress=progress)
        self.moments = Moments.from_rows(self._rows).usable()

    @property
    def design(self) -> Design:
        """The roles of the columns."""
        return self.moments.design

    @property
    def flow(self) -> SampleFlow:
        """What happened to the rows."""
        return self.moments.flow

    @cached_property
    def effects(self) -> SiteEffects:
        """Site effects on the outcome and on every mediator; with covariates, robust by a pass over the rows."""
        if self._rows is not None and (self.design.covariates or not self.moments.arms):
            return site_effects_from_rows(self.moments, self._rows)
        return SiteEffects.from_moments(self.moments)

    def fit(
        self,
        estimator: Method | Estimator | None = None,
        *,
        cov_type: CovType | None = None,
        direct_effect: bool = False,
        small_sample: SmallSample | None = None,
        interval: Interval = "wald",
    ) -> Estimate:
        """Estimate the mediator effects: by rule without an estimator, else as `msmmiv.fit` says.

        Without an estimator, UJIVE with sites as a sample; how its interval is made depends on the number of
        sites and the strength of the instruments. The result names the rule (``rule``) and carries 2SLS
        (``beside``).

        Raises
        ------
        ChoiceError
            Options of a covariance or interval without an estimator: the rule chooses them together.

        Examples
        --------
        >>> import msmmiv as mm
        >>> fit = mm.Study(mm.data.star()).fit()
        >>> fit.method, fit.interval, fit.beside[0].method
        ('ujive', 'score', '2sls')
        """
        if estimator is not None:
            return fit(
                self.moments, estimator, cov_type=cov_type, direct_effect=direct_effect,
                small_sample=small_sample, interval=interval, rows=self._rows,
            )  # fmt: skip
        if cov_type is not None or small_sample is not None or interval != "wald":
            raise ChoiceError(
                "Without an estimator, fit() chooses estimator, covariance and interval together. Name the estimator "
                "too, for example fit('ujive', cov_type='site')."
            )
        return fit_by_rule(self.moments, direct_effect=direct_effect, rows=self._rows)

    def wu_hausman(
        self, *, cov_type: CovType | None = None, direct_effect: bool = False, small_sample: SmallSample | None = None
    ) -> TestResult:  # fmt: skip
        """Test least squares against 2SLS with the chosen covariance; HC forms make one pass over the rows.

        Examples
        --------
        >>> import msmmiv as mm
        >>> round(mm.Study(mm.data.star()).wu_hausman(cov_type="cluster").stat, 2)
        1.8
        """
        return exogeneity_test(
            self.moments, cov_type=cov_type, direct_effect=direct_effect, small_sample=small_sample, rows=self._rows
        )  # fmt: skip

    def compare(
        self,
        estimators: Sequence[Method | Estimator] | None = None,
        *,
        cov_type: CovType | None = "site",
        direct_effect: bool = False,
        small_sample: SmallSample | None = None,
    ) -> pd.DataFrame:
        """Tidy rows of several estimators under one another, all with one covariance.

        The columns of `Estimate.tidy`, with ``status`` (why there is no estimate). By default sites are a sample,
        the one reading that all estimators share; ``cov_type=None`` takes each one's own default, which ``cov_type``
        in the frame then names.

        Examples
        --------
        >>> import msmmiv as mm
        >>> frame = mm.Study(mm.data.star()).compare(["ols", "2sls", "ujive"])
        >>> frame[["method", "estimate"]].round(2).values.tolist()
        [['ols', -1.04], ['2sls', -1.11], ['ujive', -1.18]]
        """
        if estimators is None:
            exclusion_only: tuple[Method, ...] = () if direct_effect else ("bc_linear",)
            estimators = ("ols", "2sls", "liml", "mbtsls", "ujive", *exclusion_only)
        if not estimators:
            raise ChoiceError("compare() needs at least one estimator; leave it out for the usual ones.")
        fits = fit_all(
            self.moments, estimators, cov_type=cov_type, direct_effect=direct_effect, small_sample=small_sample,
            rows=self._rows,
        )  # fmt: skip
        columns = [f.to_columns() | {"status": [f.status or ""] * len(f.terms)} for f in fits]
        return pd.DataFrame({name: [v for c in columns for v in c[name]] for name in columns[0]})

    def noise_effects(self, kind: NoiseKind | None = None) -> SiteEffects:
        """Site effects with a covariance in every site, for tests that need one.

        Default: each cell's own variance ("unbiased"); where the design declares clusters, one variance between
        and inside clusters for all sites ("pooled"), since few clusters a site say little about their own.
        """
        moments = self.moments
        return noise_effects(moments) if kind is None else SiteEffects.from_moments(moments, cov_type=kind)

    def reduced_form(self, *, direct_effect: bool = False) -> ReducedForm:
        """Sufficient statistics of weak-instrument tests under homoskedasticity, covariates partialled out."""
        return system_of(self.moments, direct_effect=direct_effect).reduced_form

    def anderson_rubin_test(
        self, beta: float | Sequence[float], *, robust: bool = True, direct_effect: bool = False
    ) -> TestStatistic:
        """Test the effects of all mediators at once, whatever the strength of the instruments.

        Parameters
        ----------
        beta : float or sequence of float
            One value per mediator.
        robust : bool
            Unequal variances, clusters heeded; otherwise the exact F test of independent rows of equal variance.
        direct_effect : bool

        Examples
        --------
        >>> import msmmiv as mm
        >>> study = mm.Study(mm.data.star())
        >>> study.anderson_rubin_test(0.0).dist
        'chi2(79)'
        """
        if robust:
            return anderson_rubin_test(self.noise_effects(), beta, direct_effect=direct_effect)
        return anderson_rubin_test(self.reduced_form(direct_effect=direct_effect), beta)

    def anderson_rubin_set(
        self, term: str, *, level: float = 0.95, robust: bool = True, direct_effect: bool = False
    ) -> ConfidenceSet:
        """All values of one mediator's effect that the Anderson-Rubin (subvector) test does not reject.

        Valid with weak instruments when effects are the same in all sites; empty when they are not.

        Examples
        --------
        >>> import msmmiv as mm
        >>> print(mm.Study(mm.data.star()).anderson_rubin_set("class_size", robust=False))
        empty
        """
        if robust:
            return anderson_rubin_set(self.noise_effects(), term, level=level, direct_effect=direct_effect)
        return anderson_rubin_set(self.reduced_form(direct_effect=direct_effect), term, level=level)

    def heterogeneity(self, *, direct_effect: bool = False, level: float = 0.95) -> Heterogeneity:
        """Whether and how much the effects differ between sites; see `msmmiv.heterogeneity`."""
        return heterogeneity(self.noise_effects(), direct_effect=direct_effect, level=level)

    def bias_decomposition(self) -> BiasDecomposition:
        """What makes 2SLS miss the average effect; see `msmmiv.bias_decomposition`."""
        system, effects = system_of(self.moments), self.noise_effects("unbiased")
        # Per instrument, what sampling error adds to the cross-products that 2SLS uses; clusters are heeded.
        noise = noise_products(system, effects.cov).sum(axis=0) / system.n_excluded
        return bias_decomposition(
            effects, between=system.reduced_form.between, within=noise, n_instruments=system.n_excluded
        )

    def leave_one_out(
        self, estimator: Method | Estimator = "ujive", *, direct_effect: bool = False
    ) -> pd.DataFrame:
        """Coefficients without each site in turn: rows are the sites left out.

        What all sites share stays as it is: LIML's root, a pooled or borrowed variance, slopes of covariates. For 2SLS
        and, without those, UJIVE this is the refit; for the others it is close to it.

        Examples
        --------
        >>> import msmmiv as mm
        >>> mm.Study(mm.data.star()).leave_one_out("2sls").shape
        (79, 1)
        """
        whole = self.fit(estimator, cov_type="site", direct_effect=direct_effect)
        return leave_one_out(whole, self.moments.sites)

    def linearmodels(
        self, kind: LinearModel = "2sls", *, direct_effect: bool = False, intercepts: Intercepts = "dummies"
    ) -> Any:
        """The same study as an unfitted model of linearmodels, for its kernel covariances, GMM and tests.

        Raises
        ------
        MomentsInsufficient
            The study holds moments: linearmodels needs the rows.
        """
        return rows_to_linearmodels(self._rows, kind=kind, direct_effect=direct_effect, intercepts=intercepts)

    def rank(self, *, direct_effect: bool = False, draws: int = 999, seed: int = 0) -> RankReport:
        """Assumption (viii): whether the sites tell the mediators apart; see `msmmiv.rank`."""
        return rank(self.moments, direct_effect=direct_effect, draws=draws, seed=seed, rows=self._rows)

    def decompose(
        self,
        mediator: str | Sequence[str] | None = None,
        method: BetweenMethod | BetweenEstimator | None = None,
        **options: Any,
    ) -> Decomposition:
        """Split the effect into what goes through one mediator (or several) and past it; see `msmmiv.decompose`."""
        return decompose(self.moments, method, mediators=mediator, **options)

    def audit(
        self, dag: CausalDAG | None = None, arguments: Mapping[str, str] | None = None, **options: Any
    ) -> Audit:
        """Nine findings: what design and data say about each assumption, and what has to be argued.

        Parameters
        ----------
        dag : CausalDAG, optional
        arguments : mapping of str to str, optional
        **options
            ``site_covariates``, ``planned_shares``, ``draws`` and ``seed`` of `msmmiv.audit_assumptions`.

        Examples
        --------
        >>> import msmmiv as mm
        >>> audit = mm.Study(mm.data.star()).audit()
        >>> audit["iii"].status, audit["v"].status
        ('supported', 'untestable: argue it')
        """
        return audit_assumptions(self.moments, dag=dag, arguments=arguments, rows=self._rows, **options)

    def analysis(
        self,
        *,
        title: str | None = None,
        estimator: Method | Estimator | None = None,
        cov_type: CovType | None = None,
        direct_effect: bool = False,
        interval: Interval = "wald",
        small_sample: SmallSample | None = None,
        audit: Audit | None = None,
    ) -> Analysis:
        """The main job: the estimate that the rule chooses, what it is compared with, and what it rests on.

        Beside it 2SLS, LIML, UJIVE, BC linear and OLS, with and without a direct effect; estimates that this sample
        cannot support are listed with the reason instead.

        Parameters
        ----------
        title : str, optional
        estimator : str or estimator object, optional
            Of the headline; by rule if left out (see `fit`), or 2SLS where ``cov_type`` is given.
        cov_type : str, optional
        direct_effect : bool
            Leave the direct effect free in the headline; it is then compared with exclusion.
        interval, small_sample : str, optional
            As ``cov_type`` of the headline; see `msmmiv.fit`.
        audit : Audit, optional
            With the author's graph and arguments; by default one without.
        """
        from msmmiv.show.gather import gather

        return gather(
            self, title=title, estimator=estimator, cov_type=cov_type, direct_effect=direct_effect, interval=interval,
            small_sample=small_sample, audit=audit,
        )  # fmt: skip

    @cached_property
    def plot(self) -> StudyPlots:
        """Every figure by name: ``study.plot.forest()``; see `StudyPlots`."""
        from msmmiv.show.plots.accessor import StudyPlots

        return StudyPlots(self)

    def table(self, **options: Any) -> IVTable:
        """The table that referees expect, for a paper; options and formats as in `msmmiv.show.iv_table.study_table`."""
        from msmmiv.show.iv_table import study_table

        return study_table(self, **options)

    def report(self, path: str | Path, **options: Any) -> Path:
        """Write the main job as one self-contained HTML file and return its path; options as in `analysis`."""
        from msmmiv.show.report import write_report

        return write_report(self.analysis(**options), path)

    def __repr__(self) -> str:
        return f"Study of {self.source}: {self.moments!r}"

    _repr_html_ = study_card
