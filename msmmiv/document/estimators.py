"""Estimators in a study file: a name, or a table with the name and its options."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast, get_args

from msmmiv.document.problems import StudyFileError
from msmmiv.document.values import Check, choice, number, text
from msmmiv.errors import ChoiceError, listing
from msmmiv.estimate import ESTIMATORS, Estimator, Method
from msmmiv.estimate.corrected import BCLinear, BCSymmetric
from msmmiv.estimate.kclass import Fuller
from msmmiv.estimate.site_moments import SiteWeights

__all__ = ["EXAMPLE", "estimator", "estimator_as_written", "estimator_name", "plain_estimator"]

EXAMPLE = 'estimator = { name = "fuller", a = 4.0 }'
_NAMES: tuple[str, ...] = (*get_args(Method), "fuller")
_MADE: dict[str, type[Fuller | BCLinear | BCSymmetric]] = {
    "fuller": Fuller, "bc_linear": BCLinear, "bc_symmetric": BCSymmetric,
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Check]] = {
    "fuller": {"a": number},
    "bc_linear": {"weights": choice(SiteWeights)},
    "bc_symmetric": {"weights": choice(SiteWeights)},
}


def estimator(where: str, value: Any) -> Method | Estimator:
    """The estimator that a name, or a table of a name and options, stands for.

    Raises
    ------
    StudyFileError
        A name or an option that is unknown, or an option that cannot be.

    Examples
    --------
    >>> estimator("[estimate] estimator", "ujive"), estimator("[estimate] estimator", {"name": "fuller", "a": 4})
    ('ujive', Fuller(a=4.0))
    """
    if not isinstance(value, dict):
        name, given = _named(where, value), {}
    elif "name" not in value:
        raise StudyFileError.missing(where, ["name"], f"A table names the estimator: {EXAMPLE}.")
    else:
        name = _named(f"{where} name", value["name"])
        given = {k: v for k, v in value.items() if k != "name"}
    known = _OPTIONS.get(name, {})
    options = {}
    for key, option in given.items():
        if not known:
            with_options = listing(_OPTIONS, quote=True)
            raise StudyFileError.at(
                f"{where} {key}", f"{name!r} has no options; {with_options} have. Take it out."
            )
        if key not in known:
            raise StudyFileError.unknown(where, key, ["name", *known])
        options[key] = known[key](f"{where} {key}", option)
    if name not in _MADE:
        return cast(Method, name)
    try:
        return plain_estimator(_MADE[name](**options))
    except ChoiceError as error:
        raise StudyFileError.at(f"{where} {', '.join(options)}", str(error)) from error


def plain_estimator(given: Method | Estimator) -> Method | Estimator:
    """The name instead of an object that says no more, so that one estimator has one form in a study file."""
    return next((name for name in get_args(Method) if ESTIMATORS[name] == given), given)


def estimator_name(given: Method | Estimator) -> str:
    """The name without options."""
    return given if isinstance(given, str) else given.name


def estimator_as_written(given: Method | Estimator) -> str | Mapping[str, Any]:
    """A name, or a name with the options that are not the usual ones.

    >>> estimator_as_written(Fuller(1.0)), estimator_as_written(BCLinear(weights="precision"))
    ('fuller', {'name': 'bc_linear', 'weights': 'precision'})
    """
    if isinstance(given, str):
        return given
    options = {f.name: getattr(given, f.name) for f in fields(given) if getattr(given, f.name) != f.default}
    return {"name": given.name, **options} if options else given.name


def _named(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise StudyFileError.wrong(where, f"the name of an estimator, or a table such as {EXAMPLE}", value)
    name = text(where, value)
    if name in _NAMES:
        return name
    # Results call it fuller(4).
    called = re.fullmatch(r"\s*(\w+)\s*\(.*\)\s*", name)
    if called and called[1].casefold() in _OPTIONS:
        raise StudyFileError.at(where, f"{name!r}: options stand beside the name, such as {EXAMPLE}.")
    near = difflib.get_close_matches(name.casefold(), _NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise StudyFileError.at(where, f"{name!r} is not one of {listing(_NAMES, quote=True)}.{hint}")
