"""StudyFile: an analysis as a document, and the objects that it asks for."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.result import Audit
from msmmiv.design import Design
from msmmiv.diagnose.heterogeneity import Heterogeneity
from msmmiv.diagnose.rank import RankReport
from msmmiv.document.phrases import about_columns, about_estimate, about_graph, about_sites, in_file_words
from msmmiv.document.problems import StudyFileError
from msmmiv.document.tables import AuditTable, DagTable, DataTable, EstimateTable, said
from msmmiv.document.toml_text import toml_text, toml_value
from msmmiv.errors import DataError, GraphError, MsmmivError
from msmmiv.estimate.bias import BiasDecomposition
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.results import Estimate
from msmmiv.moments.cells import Moments
from msmmiv.moments.data_file import DataFile, is_moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.published import read_shares, read_site_covariates
from msmmiv.show.analysis import Analysis
from msmmiv.show.gather import gather
from msmmiv.show.words import one_line
from msmmiv.study import Study

__all__ = ["FORMAT", "StudyFile"]

#: The only format of study files so far.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """An analysis as a document: data, roles, estimators, graph, arguments and seed; made by `read_study`.

    It is what is kept, sent and re-run in two years. Nothing is read or computed before it is asked for.

    Attributes
    ----------
    title : str, optional
    seed : int
        Of everything that is simulated.
    out : str, optional
        Folder of the results, relative to the study file; by default named after it.
    data : DataTable
    design : Design, optional
        None for moments, which carry their own.
    estimate : EstimateTable
    compare : tuple of EstimateTable
    auditing : AuditTable
        The table ``[audit]``.
    dag : DagTable
    arguments : mapping of str to str
    path : Path, optional
        Where the file lies; relative paths in it start there.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.document.tables import DataTable
    >>> design = mm.Design(outcome="math", treatment="small", mediators="class_size", site="school")
    >>> print(StudyFile(data=DataTable(file=("star.csv",)), design=design).to_toml(), end="")
    [study]
    format = 1
    <BLANKLINE>
    [data]
    file = "star.csv"
    <BLANKLINE>
    [design]
    outcome = "math"
    treatment = "small"
    mediators = ["class_size"]
    site = "school"
    """

    data: DataTable
    design: Design | None = None
    title: str | None = None
    seed: int = 0
    out: str | None = None
    estimate: EstimateTable = field(default_factory=EstimateTable)
    compare: tuple[EstimateTable, ...] = ()
    auditing: AuditTable = field(default_factory=AuditTable)
    dag: DagTable = field(default_factory=DagTable)
    arguments: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return Path() if self.path is None else self.path.parent

    @property
    def out_folder(self) -> Path:
        """Where results go unless another folder is asked for."""
        name = "study" if self.path is None else self.path.stem
        return self.folder / (self.out or f"{name}-results")

    def source(self) -> DataFile:
        """The data with their paths as seen from here, and how they are written down."""
        table = self.data
        paths = tuple(self._seen_from_here(p) for p in table.file)
        return DataFile(paths, table.delimiter, table.decimal, table.encoding, table.memory_limit)

    def study(self, *, progress: bool | None = None) -> Study:
        """The data and the design together, read once.

        Parameters
        ----------
        progress : bool, optional
            A bar with the passes over the rows.

        Raises
        ------
        StudyFileError
            Rows without ``[design]``, moments with keys that are about rows, or columns that cannot play their role.
        DataError
            No data, or data that cannot be read.
        """
        source = self.source()
        kinds = {is_moments(f) for f in source.files}
        if kinds == {True, False}:
            raise self._wrong("[data] file", "matches moments files and other files; analyse them apart.")
        if kinds == {True}:
            # Their name is left to the study: what is shown of moments is how to load the results' own copy.
            return Study(self._moments(source))
        name = ", ".join(self.data.file)
        if self.design is None:
            raise self._wrong("[design]", f"missing. It says which column of {name!r} plays which role.")
        with about_columns(self.design, self._prefix):
            study = Study(source, self.design, missing=self.data.missing or "error", progress=bool(progress))
        # As the file writes it: lines that read the data again are run from where the study file lies.
        study.source = name
        return study

    def graph(self, design: Design) -> CausalDAG | None:
        """The graph of ``[dag]``; None where the file says nothing.

        Raises
        ------
        StudyFileError
            A graph that cannot be.
        """
        given = said(self.dag)
        try:
            return CausalDAG.from_design(design, **given) if given else None
        except GraphError as error:
            raise about_graph(design, given, error, self._prefix) from error

    def audited(self, study: Study) -> Audit:
        """The audit of a study that was read already, with the graph, the arguments and the options of this file."""
        table = self.auditing
        options: dict[str, Any] = {"draws": table.draws, "seed": self.seed}
        sites, site = study.moments.sites, study.design.site
        if table.planned_share is not None:
            options["planned_shares"] = table.planned_share
        try:
            where = "planned_shares"
            if table.planned_shares is not None:
                options[where] = read_shares(self.folder / table.planned_shares, sites, site=site)
            where = "site_covariates"
            if table.site_covariates is not None:
                options[where] = read_site_covariates(self.folder / table.site_covariates, sites, site=site)
        except DataError as error:
            raise self._wrong(f"[audit] {where}", in_file_words(error)) from error
        graph = self.graph(study.design)
        with about_sites(options, self._prefix):
            return study.audit(graph, self.arguments, **options)

    def analyzed(self, study: Study) -> Analysis:
        """The analysis of a study that was read already, with the audit and the further estimates of this file."""
        table = self.estimate
        audit = self.audited(study)
        with about_estimate(self._prefix):
            whole = gather(
                _Asked(study, self.auditing.draws, self.seed), title=self.title, estimator=table.estimator,
                cov_type=table.cov_type, direct_effect=table.direct_effect, interval=table.interval or "wald",
                small_sample=table.small_sample, audit=audit,
            )  # fmt: skip
        fits, skipped = list(whole.fits), list(whole.skipped)
        for more in self.compare:
            try:
                fit = _fitted(study, more)
            except MsmmivError as error:
                words = ", ".join(f"{k} = {toml_value(v)}" for k, v in said(more).items())
                skipped.append(f"{words}: {one_line(in_file_words(error))}")
                continue
            if not any(_same(fit, f) for f in fits):
                fits.append(fit)
        return replace(whole, fits=tuple(fits), skipped=tuple(dict.fromkeys(skipped)))

    def audit(self) -> Audit:
        """The nine findings; see `Study.audit`."""
        return self.audited(self.study())

    def analysis(self) -> Analysis:
        """Everything that the report shows; see `Study.analysis`."""
        return self.analyzed(self.study())

    def to_dict(self) -> dict[str, Any]:
        """The tables as TOML holds them, without what is left at its default."""
        head: dict[str, Any] = {
            "format": FORMAT,
            "title": self.title,
            "seed": self.seed or None,
            "out": self.out,
        }
        tables: dict[str, Any] = {"study": {k: v for k, v in head.items() if v is not None}}
        tables["data"] = said(self.data)
        if self.design is not None:
            tables["design"] = _roles(self.design)
        tables |= {"estimate": said(self.estimate), "compare": [said(t) for t in self.compare]}
        tables |= {"audit": said(self.auditing), "dag": said(self.dag), "arguments": dict(self.arguments)}
        return {k: v for k, v in tables.items() if v}

    def to_toml(self) -> str:
        """The file's text, without comments; reading it gives an equal object."""
        return toml_text(self.to_dict())

    @property
    def _prefix(self) -> str:
        """How messages begin: with the name of the file, where there is one."""
        return "" if self.path is None else f"{self.path.name}: "

    def _wrong(self, where: str, problem: str) -> StudyFileError:
        return StudyFileError.at(f"{self._prefix}{where}", problem)

    def _seen_from_here(self, name: str) -> str:
        """The path with the folder before it, whose own marks are no pattern."""
        if glob.has_magic(name) and not (self.folder / name).exists():
            return os.path.normpath(Path(glob.escape(str(self.folder))) / name)
        return os.path.normpath(self.folder / name)

    def _moments(self, source: DataFile) -> Moments:
        if self.design is not None:
            raise self._wrong("[design]", "the data are moments, which carry their own roles; take it out.")
        about_rows = [k for k in said(self.data) if k != "file"]
        if about_rows:
            raise self._wrong(
                f"[data] {about_rows[0]}", "is about rows, and the data are moments; take it out."
            )
        return Moments.load(*source.files)


class _Asked:
    """A study whose report on rank takes draws and seed from the file."""

    def __init__(self, study: Study, draws: int, seed: int) -> None:
        self.study, self.draws, self.seed = study, draws, seed
        self.source, self.moments = study.source, study.moments

    @property
    def effects(self) -> SiteEffects:
        return self.study.effects

    def fit(self, estimator: Any = None, **options: Any) -> Estimate:
        return self.study.fit(estimator, **options)

    def anderson_rubin_set(self, term: str, *, direct_effect: bool = False) -> ConfidenceSet:
        return self.study.anderson_rubin_set(term, direct_effect=direct_effect)

    def heterogeneity(self, *, direct_effect: bool = False) -> Heterogeneity:
        return self.study.heterogeneity(direct_effect=direct_effect)

    def bias_decomposition(self) -> BiasDecomposition:
        return self.study.bias_decomposition()

    def rank(self, *, direct_effect: bool = False) -> RankReport:
        return self.study.rank(direct_effect=direct_effect, draws=self.draws, seed=self.seed)

    def audit(self) -> Audit:
        return self.study.audit(draws=self.draws, seed=self.seed)


def _fitted(study: Study, table: EstimateTable) -> Estimate:
    estimator = table.estimator or ("2sls" if table.cov_type else None)
    return study.fit(
        estimator,
        cov_type=table.cov_type,
        direct_effect=table.direct_effect,
        interval=table.interval or "wald",
        small_sample=table.small_sample,
    )


def _same(one: Estimate, other: Estimate) -> bool:
    keys = ("method", "cov_type", "small_sample", "interval", "direct_effect")
    return all(getattr(one, k) == getattr(other, k) for k in keys)


def _roles(design: Design) -> dict[str, Any]:
    """The roles beyond the defaults."""
    out = {k: v for k, v in design.to_dict().items() if v not in (None, [])}
    for name, usual in (("treatment_kind", "arms"), ("estimand", "ate")):
        if out[name] == usual:
            del out[name]
    return out
