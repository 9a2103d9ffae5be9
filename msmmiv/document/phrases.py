"""What the package says of Python's keywords, said of a study file's tables and keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msmmiv.audit.dag import CausalDAG
from msmmiv.design import Design
from msmmiv.document.problems import StudyFileError
from msmmiv.errors import (
    ChoiceError,
    ColumnError,
    DataError,
    DesignError,
    GraphError,
    MissingDataError,
    TreatmentError,
    WeightsError,
)

__all__ = ["about_columns", "about_estimate", "about_graph", "about_sites", "in_file_words", "keywords"]

_TABLES = {
    "design": ("outcome", "treatment", "mediators", "site", "covariates", "block", "cluster", "weights", "weight_kind",
               "control", "treatment_kind", "estimand"),
    "estimate": ("estimator", "cov_type", "direct_effect", "interval", "small_sample"),
    "data": ("missing", "delimiter", "decimal", "encoding", "memory_limit"),
    "dag": ("edges", "without", "confounders", "measured"),
}  # fmt: skip
_KEYS = {key: table for table, keys in _TABLES.items() for key in keys}


def keywords(names: Iterable[str]) -> re.Pattern[str]:
    """A keyword with what follows it: a value in quotes, a list, three dots, true or false, or nothing."""
    return re.compile(
        rf"(?<![\w'\"])({'|'.join(names)})=('[^']*'|\"[^\"]*\"|\[\.\.\.\]|\.\.\.|True\b|False\b|[^\s.,;:]*)"
    )


_KEYWORD = keywords(_KEYS)
_GRAPH = (
    ("Declare a common cause in unmeasured=[...] or measured=[...]", "Declare a common cause in [dag] confounders"),
    # A file has edges as text only.
    (", ('A', 'B') or ('A', '<->', 'B')", ""),
    (", and give names that hold an arrow as a pair", ""),
)  # fmt: skip
#: Keys of the estimate stand in two tables; the one with the mistake is named before.
_TWICE = _TABLES["estimate"]


def in_file_words(error: object) -> str:
    """A message in one line, its keywords as keys of a study file.

    >>> print(in_file_words("The arms are 'a' and 'b'; say which is the reference: control=..."))
    The arms are 'a' and 'b'; say which is the reference: [design] control = "..."
    """
    return _KEYWORD.sub(_key, " ".join(str(error).split()))


def _key(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    key = name if name in _TWICE else f"[{_KEYS[name]}] {name}"
    if not value:
        return key
    if value[0] in "'\"":
        value = f'"{value[1:-1]}"'
    shown = {"...": '"..."', "True": "true", "False": "false", "[...]": '["..."]'}.get(value, value)
    return f"{key} = {shown}"


@contextmanager
def about_columns(design: Design, file: str) -> Iterator[None]:
    """Say which key of ``[design]`` (or ``[data] missing``) a complaint about a column is about."""
    try:
        yield
    except (DesignError, ColumnError, TreatmentError, MissingDataError, WeightsError) as error:
        raise StudyFileError.at(f"{file}{_role(design, error)}", in_file_words(error)) from error


def _role(design: Design, error: Exception) -> str:
    text = str(error)
    if isinstance(error, TreatmentError) and "control=" in text:
        return "[design] control"
    if "missing=" in text:
        return "[data] missing"
    named = [(text.find(repr(column)), role) for role, column in design.roles()]
    # The column in question is named before those that are near it.
    first = min((n for n in named if n[0] >= 0), default=(0, ""))[1]
    keys = {"mediator": "mediators", "covariate": "covariates"}
    return f"[design] {keys.get(first, first)}".rstrip()


@contextmanager
def about_estimate(file: str) -> Iterator[None]:
    """Say that the headline was asked for what cannot be."""
    try:
        yield
    except (ChoiceError, DesignError) as error:
        where = "[design] estimand" if "estimand=" in str(error) else "[estimate]"
        raise StudyFileError.at(f"{file}{where}", in_file_words(error)) from error


@contextmanager
def about_sites(options: Mapping[str, Any], file: str) -> Iterator[None]:
    """Say which table of ``[audit]`` does not fit the sites."""
    try:
        yield
    except (ChoiceError, DataError) as error:
        words = {"planned_shares": "planned", "site_covariates": "covariate"}
        keys = [key for key, word in words.items() if key in options and word in str(error)]
        if not keys:
            raise
        raise StudyFileError.at(f"{file}[audit] {keys[0]}", in_file_words(error)) from error


def about_graph(design: Design, given: dict[str, Any], error: GraphError, file: str) -> StudyFileError:
    """The complaint with the key of ``[dag]`` without which there is none, or the table."""
    text = str(error)
    for python, words in _GRAPH:
        text = text.replace(python, words)
    where = next((f"[dag] {key}" for key in given if _stands(design, given, key)), "[dag]")
    return StudyFileError.at(f"{file}{where}", in_file_words(text))


def _stands(design: Design, given: dict[str, Any], key: str) -> bool:
    """Whether there is a graph without a key."""
    try:
        CausalDAG.from_design(design, **{k: v for k, v in given.items() if k != key})
    except GraphError:
        return False
    return True
