"""One exception root, named children, and the sentences they say.

A message names what was found, what was looked for, and what to do about it. Everything the package
refuses is an `MsmmivError` (a `ValueError`), so one ``except`` catches all of it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, get_args

__all__ = [
    "AssumptionFileError",
    "ChoiceError",
    "CollinearCovariateWarning",
    "ColumnError",
    "CrossingClusterWarning",
    "DataError",
    "DesignError",
    "GraphError",
    "LabelWarning",
    "MergeWarning",
    "MissingDataError",
    "MissingExtraError",
    "MomentsFileError",
    "MomentsInsufficient",
    "MomentsMismatch",
    "MsmmivError",
    "MsmmivWarning",
    "OneArmSiteWarning",
    "OutputError",
    "RankDeficientError",
    "TooFewSitesError",
    "TreatmentError",
    "UnknownCovarianceWarning",
    "WeightsError",
    "check_choice",
    "count",
    "listing",
]


class MsmmivError(ValueError):
    """Root of everything this package refuses to do."""


class DesignError(MsmmivError):
    """The roles contradict each other."""


class ChoiceError(MsmmivError):
    """A closed choice got a value outside its list."""


class DataError(MsmmivError):
    """The data cannot be read as the design says."""


class ColumnError(DataError):
    """A column the design names is not in the data, or cannot play its role."""

    @classmethod
    def not_found(
        cls, name: str, role: str, available: Sequence[str], *, where: str = "the data"
    ) -> ColumnError:
        """Say which column is missing and which ones are near it."""
        near = difflib.get_close_matches(name, available, n=3, cutoff=0.5)
        folded = [a for a in available if a.strip().casefold() == name.strip().casefold()]
        near = folded or near
        hint = f"Did you mean {listing(near, quote=True)}? " if near else ""
        return cls(
            f"Column {name!r} ({role}) is not in {where}. {hint}"
            f"{where[:1].upper()}{where[1:]} has {listing(available, quote=True, most=15)}."
        )

    @classmethod
    def not_numeric(cls, name: str, role: str, kind: str, values: Sequence[str]) -> ColumnError:
        """Say what was found where numbers were expected."""
        seen = f" (it holds values such as {listing(values, quote=True, most=3)})" if values else ""
        advice = "Convert it to a numeric column; code categories as 0/1 indicator columns first."
        if values and all(re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", v) for v in values):
            advice = (
                "Commas between thousands have to go; decimal commas can be said: DataFile(..., decimal=',')."
            )
        elif values and all(re.fullmatch(r"[-+]?\d+,\d+", v) for v in values):
            advice = "These have decimal commas, which a study file reads: `msmmiv init FILE` writes one."
        return cls(f"Column {name!r} ({role}) holds {kind}, not numbers{seen}. {advice}")


class MissingDataError(DataError):
    """Rows lack the site or the arm they belong to."""


class MissingExtraError(MsmmivError):
    """What was asked for needs an optional package that is not installed; the message gives the command."""


class TreatmentError(DataError):
    """The treatment column cannot be read as arms (or as a dose)."""


class WeightsError(DataError):
    """Weights that are zero, negative, or not what their kind says."""


class TooFewSitesError(MsmmivError):
    """Fewer usable sites than the question needs."""


class RankDeficientError(MsmmivError):
    """The compliance matrix does not have one independent column per mediator: assumption (viii) fails."""


class MomentsInsufficient(MsmmivError):  # noqa: N818 - the public name of the contract
    """What was asked for is not a function of what is held; the message says what is missing and how to get it."""


class MomentsFileError(MsmmivError):
    """A moments file that cannot be trusted: damaged, altered, or of another version."""


class MomentsMismatch(MsmmivError):  # noqa: N818 - reads as the condition it is
    """Two sets of moments that describe different designs cannot be merged."""


class OutputError(MsmmivError):
    """Results cannot be written where they were asked for."""


class AssumptionFileError(MsmmivError):
    """One of the nine assumption files is missing or malformed."""


class MsmmivWarning(UserWarning):
    """Root of the warnings; each one names the sites, columns or rows concerned."""


class OneArmSiteWarning(MsmmivWarning):
    """Sites where everybody is in the same arm were dropped."""


class LabelWarning(MsmmivWarning):
    """Labels that differ only by case or spaces look like one thing written in two ways."""


class MergeWarning(MsmmivWarning):
    """Moments of several sources were merged although they do not say the same about themselves."""


class CollinearCovariateWarning(MsmmivWarning):
    """A covariate carries nothing beyond the site intercepts and the other covariates, and was left out."""


class CrossingClusterWarning(MsmmivWarning):
    """Cluster labels occur in more than one site and were taken as the same cluster."""


class UnknownCovarianceWarning(MsmmivWarning):
    """Cov(itt, compliance) was not given and was assumed to be zero."""


def listing(items: Iterable[Any], *, quote: bool = False, most: int = 10) -> str:
    """Join items for a sentence, cutting long lists.

    Examples
    --------
    >>> listing(["a", "b", "c"], quote=True)
    "'a', 'b' and 'c'"
    >>> listing(range(30), most=3)
    '0, 1, 2 and 27 more'
    """
    words = [repr(str(i)) if quote else str(i) for i in items]
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun.

    Examples
    --------
    >>> count(1, "site"), count(1200, "site"), count(2, "class", "classes")
    ('1 site', '1,200 sites', '2 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def check_choice(value: object, choices: Any, name: str) -> None:
    """Raise `ChoiceError` unless ``value`` is one of the literals in ``choices``.

    Examples
    --------
    >>> from typing import Literal
    >>> check_choice("b", Literal["a", "b"], "letter")
    """
    allowed = get_args(choices)
    if value not in allowed:
        folded = {str(a).casefold(): str(a) for a in allowed}
        near = difflib.get_close_matches(str(value).casefold(), folded, n=1)
        hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
        raise ChoiceError(f"{name}={value!r} is not one of {listing(allowed, quote=True)}.{hint}")


def whole_number(value: Any, name: str, *, least: int, more: str = "") -> int:
    """The option as an int, or a `ChoiceError` that says what it may be; True is no number.

    Examples
    --------
    >>> whole_number(40, "sites", least=2)
    40
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ChoiceError(f"{name}={value!r} must be a whole number of {least} or more{more}.")
    return int(value)


class GraphError(MsmmivError):
    """A causal graph that cannot be: a cycle, an unknown node, a mediator left out, an arrow against time."""

    @classmethod
    def cycle(cls, nodes: Sequence[str]) -> GraphError:
        """Name the circle, each node once and the first again."""
        return cls(
            f"The graph has a cycle: {' -> '.join([*nodes, nodes[0]])}. Causes come before their effects: leave one "
            "of these edges out, or give the two times of one thing two names."
        )

    @classmethod
    def unknown_node(cls, name: str, edge: str, nodes: Sequence[str]) -> GraphError:
        """Say which edge names a node that has no role, and which nodes are near it."""
        near = difflib.get_close_matches(name, nodes, n=3, cutoff=0.5)
        near = [n for n in nodes if n.strip().casefold() == name.strip().casefold()] or near
        hint = f"Did you mean {listing(near, quote=True)}? " if near else ""
        return cls(
            f"Edge {edge!r} names {name!r}, which has no role in the graph. {hint}Nodes are "
            f"{listing(nodes, quote=True, most=15)}. Declare a common cause in unmeasured=[...] or measured=[...], "
            "or make it a mediator."
        )

    @classmethod
    def left_out(cls, mediator: str, treatment: str, outcome: str, *, before: bool) -> GraphError:
        """Say that no path leads to a mediator, or from it."""
        what = f"from {treatment!r} to it" if before else f"from it to {outcome!r}"
        edge = f"{treatment} -> {mediator}" if before else f"{mediator} -> {outcome}"
        return cls(
            f"Mediator {mediator!r} is left out: no directed path leads {what}. Add {edge!r} or an edge by way of "
            "another mediator, or take it out of the mediators."
        )
