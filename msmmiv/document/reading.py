"""Reading a study file: from TOML to checked tables, with the place of everything that is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msmmiv.audit.assumption_files import load_assumptions
from msmmiv.design import Design, Estimand, TreatmentKind, WeightKind
from msmmiv.document.estimators import EXAMPLE, estimator, estimator_name
from msmmiv.document.phrases import in_file_words
from msmmiv.document.problems import StudyFileError
from msmmiv.document.study_file import FORMAT, StudyFile
from msmmiv.document.tables import AuditTable, DagTable, DataTable, EstimateTable
from msmmiv.document.values import Check, choice, flag, label, many, mark, names_or_table, share, text, whole
from msmmiv.errors import ChoiceError, DesignError
from msmmiv.estimate.covariances import choose_correction
from msmmiv.inference.covariance import CovType, SmallSample
from msmmiv.inference.results import Interval
from msmmiv.moments.cells import Missing
from msmmiv.moments.data_file import DataFile, Decimal, Encoding

__all__ = ["parse_study", "read_study"]

_DRAWS = ": with fewer, Holm's adjustment leaves nothing that could be contradicted"
_ESTIMATE: dict[str, Check] = {
    "estimator": estimator, "cov_type": choice(CovType), "direct_effect": flag, "interval": choice(Interval),
    "small_sample": choice(SmallSample),
}  # fmt: skip
_TABLES: dict[str, dict[str, Check]] = {
    "study": {"format": whole(1), "title": text, "seed": whole(0), "out": text},
    "data": {
        "file": many, "missing": choice(Missing), "delimiter": mark, "decimal": choice(Decimal),
        "encoding": choice(Encoding), "memory_limit": text,
    },
    "design": {
        "outcome": text, "treatment": text, "mediators": many, "site": text, "covariates": many, "block": text,
        "cluster": text, "weights": text, "weight_kind": choice(WeightKind), "control": label,
        "treatment_kind": choice(TreatmentKind), "estimand": choice(Estimand),
    },
    "estimate": _ESTIMATE,
    "audit": {"draws": whole(199, _DRAWS), "planned_share": share, "planned_shares": text, "site_covariates": text},
    "dag": {"edges": many, "without": many, "confounders": names_or_table, "measured": many},
}  # fmt: skip
_NEEDED = ("outcome", "treatment", "mediators", "site")
_OF_ESTIMATORS = ("a", "name", "options", "weights")
_PLURALS = {"files": "file", "mediator": "mediators", "covariate": "covariates", "edge": "edges"}


def read_study(path: str | Path) -> StudyFile:
    r"""Read a study file, and check everything in it that can be checked without the data.

    Parameters
    ----------
    path : path
        A TOML file; `msmmiv init` writes one.

    Returns
    -------
    StudyFile

    Raises
    ------
    StudyFileError
        No such file, no TOML (with line and column), a table or key that is unknown or missing, or a value that
        cannot be; the message names the key.

    Examples
    --------
    >>> import msmmiv as mm, tempfile
    >>> from pathlib import Path
    >>> from msmmiv.document.reading import read_study
    >>> text = '[study]\nformat = 1\n[data]\nfile = "moments.csv"\n'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "study.toml").write_text(text)
    ...     _ = mm.data.star().save(Path(folder) / "moments.csv")
    ...     study = read_study(Path(folder) / "study.toml").study()
    >>> study.design.mediators
    ('class_size',)
    """
    file = Path(path)
    try:
        content = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        near = sorted(p.name for p in file.parent.glob("*.toml")) if file.parent.is_dir() else []
        found = f" The folder has {', '.join(map(repr, near[:5]))}." if near else " `msmmiv init` writes one."
        raise StudyFileError(
            f"The study file {str(path)!r} cannot be read: {error.strerror}.{found}"
        ) from error
    except UnicodeDecodeError as error:
        raise StudyFileError(
            f"The study file {str(path)!r} is not written in UTF-8. Save it again as UTF-8."
        ) from error
    try:
        return parse_study(content, path=file)
    except StudyFileError as error:
        raise StudyFileError(f"{file.name}: {error}") from error


def parse_study(content: str, *, path: Path | None = None) -> StudyFile:
    """The study that a text holds; relative paths in it start at the folder of ``path``, or here."""
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(error, content) from error
    known = [*_TABLES, "compare", "arguments"]
    for name in document:
        if name not in known:
            raise StudyFileError.unknown("", _bracketed(name, document), [f"[{k}]" for k in known])
    tables = {name: _table(name, document.get(name, {}), keys) for name, keys in _TABLES.items()}
    study = tables["study"]
    if "format" not in study:
        raise StudyFileError.missing("[study]", ["format"], f"Write format = {FORMAT}.")
    if study.pop("format") != FORMAT:
        raise StudyFileError.at(
            "[study] format", f"this version of msmmiv reads format {FORMAT}. Install a newer one."
        )
    if "file" not in tables["data"]:
        raise StudyFileError.missing("[data]", ["file"], 'Say where the data are: file = "trial.csv".')
    design = _design(tables["design"]) if "design" in document else None
    return StudyFile(
        **study, data=_data(tables["data"]), design=design, estimate=_estimate("[estimate]", tables["estimate"]),
        compare=_compare(document.get("compare", [])), auditing=_audit(tables["audit"]),
        dag=DagTable(**tables["dag"]), arguments=_arguments(document.get("arguments", {}), design), path=path,
    )  # fmt: skip


def _syntax(error: tomllib.TOMLDecodeError, content: str) -> StudyFileError:
    what, _, place = str(error).rpartition(" (at ")
    if found := re.fullmatch(r"line (\d+), column (\d+)\)", place):
        return StudyFileError(f"line {found[1]}, column {found[2]}: {what}.")
    lines = content.count("\n") + 1
    return StudyFileError(f"line {lines}, at the end of the file: {what or error}.")


def _bracketed(name: str, document: Mapping[str, Any]) -> str:
    return f"[{name}]" if isinstance(document[name], dict | list) else name


def _table(name: str, given: Any, keys: Mapping[str, Check], *, where: str = "") -> dict[str, Any]:
    where = where or f"[{name}]"
    if not isinstance(given, dict):
        raise StudyFileError.at(name, f"must be a table: a line [{name}] with its keys below.")
    out = {}
    for key, value in given.items():
        if key not in keys:
            raise _unknown_key(where, key, name, keys)
        out[key] = keys[key](f"{where} {key}", value)
    return out


def _unknown_key(where: str, key: str, name: str, keys: Mapping[str, Check]) -> StudyFileError:
    if key in _OF_ESTIMATORS and "estimator" in keys:
        return StudyFileError.at(
            f"{where} {key}", f"unknown; options of an estimator stand beside its name: {EXAMPLE}."
        )
    if (plural := _PLURALS.get(key)) in keys:
        return StudyFileError.at(f"{where} {key}", f"unknown; did you mean {plural!r}?")
    homes = [f"[{t}]" for t, other in _TABLES.items() if key in other and t != name]
    elsewhere = f"it belongs to {' or '.join(homes)}." if homes else ""
    return StudyFileError.unknown(where, key, list(keys), elsewhere=elsewhere)


def _data(given: dict[str, Any]) -> DataTable:
    table = DataTable(**given)
    if not table.file:
        raise StudyFileError.at("[data] file", "is an empty list.")
    try:
        DataFile(table.file, table.delimiter, table.decimal, table.encoding, table.memory_limit)
    except ChoiceError as error:
        raise StudyFileError.at("[data]", in_file_words(error)) from error
    return table


def _design(given: dict[str, Any]) -> Design:
    absent = [k for k in _NEEDED if k not in given]
    if absent:
        more = "Each needs a column; if the file has candidates in comments, take the '#' away before one of them."
        raise StudyFileError.missing("[design]", absent, more)
    try:
        return Design(**given)
    except (DesignError, ChoiceError) as error:
        raise StudyFileError.at("[design]", in_file_words(error)) from error


def _estimate(where: str, given: dict[str, Any]) -> EstimateTable:
    table = EstimateTable(**given)
    if table.interval and not (table.estimator or table.cov_type):
        raise StudyFileError.at(
            f"{where} interval", "needs an estimator beside it: without one, the rule chooses both."
        )
    if table.small_sample:
        _check_correction(where, table)
    return table


def _check_correction(where: str, table: EstimateTable) -> None:
    """What can be said about a small-sample correction before the data are seen."""
    at = f"{where} small_sample"
    if not (table.estimator or table.cov_type):
        raise StudyFileError.at(at, "needs an estimator beside it: without one, the rule chooses both.")
    if table.interval == "score":
        raise StudyFileError.at(
            at, 'interval = "score" has its own small-sample form; leave small_sample out.'
        )
    if table.cov_type:
        name = "2sls" if table.estimator is None else estimator_name(table.estimator)
        try:
            choose_correction(table.cov_type, table.small_sample, name)
        except ChoiceError as error:
            raise StudyFileError.at(at, in_file_words(error)) from error


def _audit(given: dict[str, Any]) -> AuditTable:
    table = AuditTable(**given)
    if table.planned_share is not None and table.planned_shares is not None:
        raise StudyFileError.at(
            "[audit] planned_shares",
            "stands beside planned_share: say one share for all sites, or name a file.",
        )
    return table


def _compare(given: Any) -> tuple[EstimateTable, ...]:
    if not isinstance(given, list) or not all(isinstance(t, dict) for t in given):
        raise StudyFileError.at(
            "[compare]", "must be a list of tables: a line [[compare]], with two brackets, for each."
        )
    out = []
    for i, table in enumerate(given, 1):
        where = f"[[compare]] {i}"
        checked = _table("compare", table, _ESTIMATE, where=where)
        if not checked:
            raise StudyFileError.at(where, "is empty; name an estimator.")
        out.append(_estimate(where, checked))
    return tuple(out)


def _arguments(given: Any, design: Design | None) -> dict[str, str]:
    if not isinstance(given, dict):
        raise StudyFileError.at("arguments", "must be a table: a line [arguments] with its keys below.")
    nine = load_assumptions()
    variants = [v for a in nine for v in a.variants if design is None or v.estimand == design.estimand]
    known = {a.id: a.id for a in nine} | {v.id: v.id.partition(".")[0] for v in variants}
    out: dict[str, str] = {}
    for key, value in given.items():
        if key not in known:
            raise StudyFileError.unknown("[arguments]", key, list(known), elsewhere=_numbers(known))
        if isinstance(value, dict):
            raise StudyFileError.at(f"[arguments] {key}", f'a key with a dot needs quotes: "{key}.a" = "..."')
        if known[key] in {known[k] for k in out}:
            raise StudyFileError.at(f"[arguments] {key}", f"assumption {known[key]} has an argument already.")
        out[key] = text(f"[arguments] {key}", value)
    return out


def _numbers(known: Mapping[str, str]) -> str:
    return f"assumptions here are {', '.join(known)}."
