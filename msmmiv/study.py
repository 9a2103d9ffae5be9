"""Study: the path from data to estimate in one object."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd

from msmmiv.design import Design
from msmmiv.diagnose.rank import RankReport, rank
from msmmiv.errors import DesignError, MomentsMismatch, MsmmivError, check_choice
from msmmiv.estimate import Method, exogeneity_test, fit
from msmmiv.inference.covariance import CovType, SmallSample
from msmmiv.inference.first_stage import site_effects_from_rows
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import TestResult
from msmmiv.moments.cells import Missing, Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.flow import SampleFlow
from msmmiv.moments.frames import open_rows
from msmmiv.moments.sums import Rows
from msmmiv.show.analysis import Analysis
from msmmiv.show.report import write_report

__all__ = ["Study"]


class Study:
    """Data and design together: ten lines from a file to a defended estimate.

    The rows are read once, into moments; everything else is computed from those. Only covariances that
    need every row (HC with covariates, HC of least squares) go back to the data.

    Parameters
    ----------
    data : pandas.DataFrame, path or Moments
        A frame; the path of a CSV or Parquet file (globs allowed); or moments made elsewhere.
    design : Design, optional
        The roles. Left out only when ``data`` is `Moments`, which know their design.
    missing : {"error", "drop"}
        What to do with rows that lack the site or the arm. Rows that lack another declared column are
        left out and counted either way.
    progress : bool, optional
        Show a bar with the passes over the rows; by default on a terminal, for files.

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
        self,
        data: Any,
        design: Design | None = None,
        *,
        missing: Missing = "error",
        progress: bool | None = None,
    ) -> None:
        check_choice(missing, Missing, "missing")
        self._rows: Rows | None = None
        if isinstance(data, Moments):
            if missing != "error" or progress is not None:
                raise DesignError(
                    "missing= and progress= are about reading rows; moments hold none. Leave them out."
                )
            if design is not None and design != data.design:
                raise MomentsMismatch("The moments were made with another design; leave `design` out.")
            self.source = "moments"
            self.moments = data.usable()
            return
        if design is None:
            raise DesignError("Study(data, design) needs a design that gives the columns their roles.")
        named = isinstance(data, str | Path)
        self.source = Path(data).name if named else f"a {type(data).__name__} in memory"
        show = sys.stderr.isatty() and named if progress is None else progress
        with _Passes(show=show) as passes:
            self._rows = open_rows(data, design, missing=missing, tick=passes)
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
        estimator: Method | None = None,
        *,
        cov_type: CovType | None = None,
        direct_effect: bool = False,
        small_sample: SmallSample | None = None,
    ) -> Estimate:
        """Estimate the mediator effects; see `msmmiv.fit` for the choices."""
        return fit(
            self.moments, estimator, cov_type=cov_type, direct_effect=direct_effect, small_sample=small_sample,
            rows=self._rows,
        )  # fmt: skip

    def wu_hausman(
        self,
        *,
        cov_type: CovType | None = None,
        direct_effect: bool = False,
        small_sample: SmallSample | None = None,
    ) -> TestResult:
        """Test least squares against 2SLS with the chosen covariance; HC forms make one pass over the rows.

        Examples
        --------
        >>> import msmmiv as mm
        >>> round(mm.Study(mm.data.star()).wu_hausman(cov_type="cluster").stat, 2)
        1.8
        """
        return exogeneity_test(
            self.moments,
            cov_type=cov_type,
            direct_effect=direct_effect,
            small_sample=small_sample,
            rows=self._rows,
        )

    def compare(
        self, estimators: Sequence[Method], *, cov_type: CovType | None = None, direct_effect: bool = False
    ) -> pd.DataFrame:
        """Tidy rows of several estimators under one another.

        Examples
        --------
        >>> import msmmiv as mm
        >>> frame = mm.Study(mm.data.star()).compare(["ols", "2sls"])
        >>> frame[["method", "estimate"]].round(2).values.tolist()
        [['ols', -1.04], ['2sls', -1.11]]
        """
        fits = [self.fit(e, cov_type=cov_type, direct_effect=direct_effect) for e in estimators]
        return pd.concat([f.tidy() for f in fits], ignore_index=True)

    def rank(self, *, direct_effect: bool = False) -> RankReport:
        """Assumption (viii): what the compliance matrix says; see `msmmiv.rank`."""
        return rank(self.moments, direct_effect=direct_effect)

    def analysis(
        self, *, title: str | None = None, cov_type: CovType | None = None, direct_effect: bool = False
    ) -> Analysis:
        """The main job: 2SLS with its default and site-clustered errors, with a direct effect, and OLS.

        Estimates that this sample cannot support are listed with the reason instead.

        Parameters
        ----------
        title : str, optional
        cov_type : str, optional
            Covariance of the headline, and of the estimates it is compared with; see `msmmiv.fit`.
        direct_effect : bool
            Leave the direct effect free in the headline; it is then compared with exclusion.
        """
        headline = self.fit("2sls", cov_type=cov_type, direct_effect=direct_effect)
        other: CovType | None = None if headline.cov_type == "site" else "site"
        wanted: list[dict[str, Any]] = [
            {"estimator": "2sls", "cov_type": other, "direct_effect": direct_effect},
            {"estimator": "2sls", "cov_type": cov_type, "direct_effect": not direct_effect},
            {"estimator": "ols", "cov_type": cov_type},
        ]
        fits, skipped = [headline], []
        for options in wanted:
            try:
                fits.append(self.fit(**options))
            except MsmmivError as error:
                words = ", ".join(f"{k}={v!r}" for k, v in options.items() if v)
                skipped.append(f"{words}: {error}")
        return Analysis(
            title=title or f"Effects of {', '.join(self.design.mediators)} on {self.design.outcome}",
            source=self.source, moments=self.moments, effects=self.effects, headline=headline,
            fits=tuple(fits), skipped=tuple(skipped), rank=self.rank(direct_effect=direct_effect),
        )  # fmt: skip

    def report(
        self,
        path: str | Path,
        *,
        title: str | None = None,
        cov_type: CovType | None = None,
        direct_effect: bool = False,
    ) -> Path:
        """Write the main job (see `analysis`) as one self-contained HTML file and return its path."""
        return write_report(self.analysis(title=title, cov_type=cov_type, direct_effect=direct_effect), path)

    def __repr__(self) -> str:
        return f"Study of {self.source}: {self.moments!r}"


class _Passes:
    """A bar that counts the passes over the rows; silent unless asked for."""

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=None, unit=" pass", leave=False)
        return self

    def __call__(self, step: str) -> None:
        if self._bar is not None:
            self._bar.set_description(step)
            self._bar.update()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
