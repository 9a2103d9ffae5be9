"""The instrumental-variables table of a paper: estimators side by side, what they rest on, and what to read into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from msmmiv.errors import ChoiceError, MomentsInsufficient, MsmmivError, check_choice
from msmmiv.estimate import Method
from msmmiv.estimate.site_moments import noise_effects
from msmmiv.files import write_whole
from msmmiv.inference.covariance import CovType
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.show.analysis import Analysis
from msmmiv.show.comparison import alike, kind_of
from msmmiv.show.formats import (
    Sheet,
    save_sheet,
    to_csv,
    to_docx,
    to_html,
    to_latex,
    to_markdown,
)
from msmmiv.show.iv_notes import notes
from msmmiv.show.iv_parts import Parts, Wanted, anderson_rubin, column_records, laid_out
from msmmiv.show.words import one_line

__all__ = ["IVTable", "iv_table", "study_table"]

#: What stands in the table of a study, in this order.
ESTIMATORS: tuple[Method, ...] = ("ols", "2sls", "liml", "ujive")
_NAMES = {"ols": "OLS", "2sls": "2SLS", "liml": "LIML", "ujive": "UJIVE"}


@dataclass(frozen=True, eq=False)
class IVTable:
    """A finished table: the printed texts as a sheet, the numbers behind them as a tidy frame.

    Attributes
    ----------
    sheet : Sheet
        Caption, header rows, lines and notes as they are printed.
    records : tuple of dict
        Behind `tidy`.

    Examples
    --------
    >>> import msmmiv as mm
    >>> table = iv_table([mm.fit(mm.data.star(), "2sls")])
    >>> table.to_frame().iloc[0].tolist()
    ['class_size', '', '', '-1.114']
    """

    sheet: Sheet
    records: tuple[dict[str, Any], ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """The sentences below the table."""
        return self.sheet.notes

    def to_frame(self) -> pd.DataFrame:
        """The table as it is printed: one row per line, one column per column, all of them texts."""
        return self.sheet.to_frame()

    def tidy(self) -> pd.DataFrame:
        """The numbers at full precision, one row per number.

        Returns
        -------
        DataFrame
            ``column, model, variable, term, quantity, value, text, status``. Coefficients have the quantities
            ``estimate``, ``std_error``, ``p_value`` and ``set`` (its words in ``text``); all others have no term.
        """
        columns = ("column", "model", "variable", "term", "quantity", "value", "text", "status")
        return pd.DataFrame(list(self.records), columns=columns)

    def to_latex(self, *, label: str = "", document: bool = False, unicode: bool = False) -> str:
        """LaTeX with booktabs, threeparttable and dcolumn; see ``msmmiv.show.formats.to_latex``."""
        return to_latex(self.sheet, label=label, document=document, unicode=unicode)

    def to_html(self, *, document: bool = False) -> str:
        """HTML with caption and scopes; see ``msmmiv.show.formats.to_html``."""
        return to_html(self.sheet, document=document)

    def to_markdown(self) -> str:
        """A pipe table with the notes below."""
        return to_markdown(self.sheet)

    def to_csv(self) -> str:
        """The printed table as CSV, without notes; `tidy` has the numbers at full precision."""
        return to_csv(self.sheet)

    def to_docx(self, path: str | Path) -> Path:
        """Write a Word file; needs ``pip install 'msmmiv[docx]'``.

        Raises
        ------
        MissingExtraError
            python-docx is not installed.
        OutputError
            The file cannot be written.
        """
        return write_whole(path, to_docx(self.sheet))

    def save(self, path: str | Path) -> Path:
        """Write the table; the ending (.tex, .html, .md, .csv, .docx) says in which format.

        Raises
        ------
        ChoiceError
            Another ending.
        MissingExtraError, OutputError
        """
        return save_sheet(self.sheet, path)

    def _repr_html_(self) -> str:
        return self.to_html()

    def __str__(self) -> str:
        return self.to_markdown()


def iv_table(
    source: Analysis | Estimate | Sequence[Estimate],
    *,
    covariates: bool = False,
    stars: Sequence[float] = (),
    title: str = "",
) -> IVTable:
    """Put an analysis, or fits of your choice, side by side: the table that referees ask for.

    Least squares, reduced form, first stages, then the other estimators. Of an analysis all diagnostics are shown; of
    fits those that they carry. A study has `Study.table`, which fits all estimators with one covariance first.

    Parameters
    ----------
    source : Analysis, Estimate or sequence of Estimate
        Fits must be of one design, with the same choice about the direct effect.
    covariates : bool
        Show coefficients of covariates too.
    stars : sequence of float
        Levels below which a p-value gives a star each, such as ``(0.1, 0.05, 0.01)``; none by default.
    title : str
        Caption.

    Raises
    ------
    ChoiceError
        No fit, something that is no fit, fits of different designs, or levels outside 0 to 1.

    Notes
    -----
    Standard errors are in round brackets; in square brackets stand 95% confidence sets, in words where they are not
    intervals. First stages and reduced form have a coefficient for every site, of which the table shows number, partial
    R2, F and p.

    Examples
    --------
    >>> import msmmiv as mm
    >>> study = mm.Study(mm.data.star())
    >>> table = iv_table([study.fit("ols"), study.fit("2sls")])
    >>> table.to_frame().columns.tolist()
    ['', '(1) OLS math', '(2) Reduced form math', '(3) First stage class_size', '(4) 2SLS math']
    """
    wanted = Wanted(covariates=covariates, stars=_levels(stars), title=one_line(title))
    if isinstance(source, Analysis):
        return _made(_of_analysis(source), wanted)
    fits = (source,) if isinstance(source, Estimate) else tuple(source)
    _check_fits(fits)
    return _made(Parts(fits=fits, stages=_with_stages(fits)), wanted)


def study_table(
    study: Any,
    *,
    cov_type: CovType | None = None,
    direct_effect: bool = False,
    covariates: bool = False,
    stars: Sequence[float] = (),
    title: str = "",
) -> IVTable:
    """OLS, reduced form, first stages, 2SLS, LIML and UJIVE of a study with one covariance; `Study.table` calls it.

    Parameters
    ----------
    study : Study
    cov_type : str, optional
        For all estimators; see `msmmiv.fit`. By default covariance, correction and kind of confidence set are those
        that `Study.fit` chooses by rule. With "site", sets invert the scores of the sites, which stay valid when
        instruments are weak; with another, they are estimate and standard error.
    direct_effect : bool
        Leave a direct effect of treatment free.
    covariates, stars, title
        As in `iv_table`.

    Returns
    -------
    IVTable
        An estimator that the sample (or the covariance) does not allow keeps its column, with the reason below.

    Raises
    ------
    ChoiceError
    MsmmivError
        When not even two-stage least squares can be computed: the reason.

    Examples
    --------
    >>> import msmmiv as mm
    >>> table = study_table(mm.Study(mm.data.star()))
    >>> table.to_frame().set_index("").loc["class_size"].iloc[[0, 3, 5]].tolist()
    ['-1.039', '-1.114', '-1.183']
    """
    if cov_type is not None:
        check_choice(cov_type, CovType, "cov_type")
    wanted = Wanted(covariates=covariates, stars=_levels(stars), title=one_line(title))
    plain = _plain(study, direct_effect=direct_effect)
    fits: list[Estimate] = []
    missing: list[tuple[str, str]] = []
    by_rule = study.fit(direct_effect=direct_effect) if cov_type is None else None
    interval = "score" if cov_type == "site" else "wald"
    for name in ESTIMATORS:
        try:
            fits.append(
                study.fit(name, cov_type=cov_type, direct_effect=direct_effect, interval=interval)
                if by_rule is None
                else alike(study, name, by_rule, direct_effect=direct_effect)
            )
        except MsmmivError as error:
            missing.append((_NAMES[name], one_line(error)))
    if not fits:
        raise ChoiceError(f"No estimator can be had with cov_type={cov_type!r}: {missing[1][1]}")
    effects = _or_reason("Anderson-Rubin", study.noise_effects)
    spread = _or_reason("Hansen J", lambda: study.heterogeneity(direct_effect=direct_effect))
    sets, test = anderson_rubin(effects, plain, sites=study.moments.n_sites)
    return _made(
        Parts(
            fits=tuple(fits), stages=_with_stages((*fits, plain)), missing=tuple(missing),
            rank=study.rank(direct_effect=direct_effect, draws=19),  # the draws are for what is not shown here
            j=spread if isinstance(spread, NotApplicable) else spread.q, ar_sets=sets, ar_test=test,
        ),
        wanted,
    )  # fmt: skip


def _plain(study: Any, *, direct_effect: bool) -> Estimate:
    """2SLS with its own covariance, for first stages; if moments do not hold it, the classical. Else: why not."""
    try:
        return study.fit("2sls", direct_effect=direct_effect)  # type: ignore[no-any-return]
    except MomentsInsufficient:
        return study.fit("2sls", cov_type="classical", direct_effect=direct_effect)  # type: ignore[no-any-return]


def _of_analysis(found: Analysis) -> Parts:
    """The fits of an analysis that share its direct effect: of every estimator, as the headline where there is one."""
    free = found.headline.direct_effect
    fits: list[Estimate] = []
    missing: list[tuple[str, str]] = []
    for name in ESTIMATORS:
        same = [f for f in found.fits if f.method == name and f.direct_effect == free]
        if same:
            fits.append(min(same, key=lambda f: kind_of(f) != kind_of(found.headline)))
            continue
        heads = [s.partition(": ") for s in found.skipped]
        why = [end for head, _, end in heads if head.split()[0] == name and head.endswith("effect") == free]
        missing.append((_NAMES[name], why[0] if why else "it is not part of this analysis"))
    spread = found.heterogeneity
    effects = _or_reason("Anderson-Rubin", lambda: noise_effects(found.moments))
    _, test = anderson_rubin(effects, found.two_stage, sites=None)
    return Parts(
        fits=tuple(fits), stages=_with_stages((*fits, *found.fits)), missing=tuple(missing), rank=found.rank,
        j=spread if isinstance(spread, NotApplicable) else spread.q, ar_sets=found.anderson_rubin, ar_test=test,
        title=found.title,
    )  # fmt: skip


def _made(parts: Parts, wanted: Wanted) -> IVTable:
    return IVTable(laid_out(parts, wanted, tuple(notes(parts, wanted))), tuple(column_records(parts, wanted)))


def _with_stages(fits: Sequence[Estimate]) -> Estimate:
    """The fit whose first stages are shown: one whose covariance gives them a robust F, if there is one."""
    robust = [f for f in fits if all(isinstance(s.f_robust, TestStatistic) for s in f.first_stage)]
    return min(robust or fits, key=lambda f: (f.method == "ols", f.cov_type == "site"))


def _check_fits(fits: tuple[Any, ...]) -> None:
    if not fits:
        raise ChoiceError("A table needs at least one fit.")
    for fit in fits:
        if not isinstance(fit, Estimate):
            raise ChoiceError(
                f"A table is made from an Analysis or from fits (Estimate), not {type(fit).__name__}; "
                "of a study, ask study.table()."
            )
    if len({(f.design.digest, f.direct_effect, f.nobs) for f in fits}) > 1:
        raise ChoiceError(
            "These fits differ in design, rows or direct effect, and share no first stage. Make a table of each."
        )


def _levels(stars: Sequence[float]) -> tuple[float, ...]:
    given: object = stars
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise ChoiceError(f"stars={stars!r} must be a sequence of levels, such as (0.1, 0.05, 0.01), or ().")
    levels: tuple[object, ...] = tuple(given)
    if not all(isinstance(s, float) and 0 < s < 1 for s in levels):
        raise ChoiceError(
            f"stars={tuple(stars)!r} must be levels between 0 and 1, such as (0.1, 0.05, 0.01)."
        )
    return tuple(sorted(stars, reverse=True))


def _or_reason(name: str, made: Callable[[], Any]) -> Any:
    try:
        return made()
    except MsmmivError as error:
        return NotApplicable(name, one_line(error))
