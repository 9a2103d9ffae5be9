"""Reading the nine assumptions from TOML, checked field by field, never edited in code.

The files are prose that researchers may correct, so a mistake in one must be found by name: every
complaint says which file and which key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

from msmmiv.audit.assumptions import Assumption, AssumptionPart, AssumptionVariant, Prompts, Testable
from msmmiv.audit.check_names import CHECK_NAMES
from msmmiv.design import Estimand
from msmmiv.errors import AssumptionFileError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["IDS", "load_assumptions"]

T = TypeVar("T", bound=str)

IDS: Final = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
_ESTIMANDS: Final[tuple[Estimand, ...]] = get_args(Estimand)
_TESTABLE: Final[tuple[Testable, ...]] = get_args(Testable)
_EDGE: Final = re.compile(r"\w+ (->|<->) \w+")


def load_assumptions(*, folder: Path | None = None) -> tuple[Assumption, ...]:
    """Read and check the nine assumptions, in order.

    Parameters
    ----------
    folder : Path, optional
        A folder with files ``i.toml`` to ``ix.toml``, for instance a translation. By default the
        files that come with the package.

    Returns
    -------
    tuple of Assumption
        Always nine, from "i" to "ix".

    Raises
    ------
    AssumptionFileError
        If a file is missing, unreadable or superfluous, or a key is missing, unknown or of the
        wrong type. The message names the file and the key.

    References
    ----------
    Reardon, S. F., and Raudenbush, S. W. (2013). Under what assumptions do site-by-treatment
    instruments identify average causal effects? Sociological Methods & Research 42: 143-163.

    Examples
    --------
    >>> from msmmiv.audit import load_assumptions
    >>> assumptions = load_assumptions()
    >>> [a.id for a in assumptions]
    ['i', 'ii', 'iii', 'iv', 'v', 'vi', 'vii', 'viii', 'ix']
    >>> assumptions[1].title
    'Exclusion'
    """
    source = _packaged_folder() if folder is None else folder
    strangers = sorted(
        entry.name
        for entry in (source.iterdir() if source.is_dir() else ())
        if entry.name.endswith(".toml") and entry.name.removesuffix(".toml") not in IDS
    )
    if strangers:
        raise AssumptionFileError(
            f"{source} holds {', '.join(strangers)}, which is none of the nine assumptions "
            f"({', '.join(IDS)}). Remove or rename it."
        )
    return tuple(_read_file(source, expected) for expected in IDS)


def _packaged_folder() -> Traversable:
    """Find the files in a wheel, or beside the package in a checkout (editable installs)."""
    inside = files("msmmiv") / "_assumptions"
    beside = Path(__file__).resolve().parents[2] / "assumptions"
    for folder in (inside, beside):
        if folder.is_dir():
            return folder
    raise AssumptionFileError(
        f"The nine assumptions are neither in the package ({inside}) nor in a checkout ({beside}). "
        "Reinstall msmmiv, or pass folder= to load_assumptions."
    )


def _read_file(folder: Traversable, expected: str) -> Assumption:
    name = f"{expected}.toml"
    try:
        raw = tomllib.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise AssumptionFileError(
            f"{name}: cannot be read from {folder}. All nine files, i.toml to ix.toml, are needed."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AssumptionFileError(f"{name}: is not valid TOML: {error}.") from error
    found = _assumption(_Table(name, raw))
    if found.id != expected:
        raise AssumptionFileError(f"{name}: key 'id' is {found.id!r} but must be {expected!r}.")
    return found


class _Table:
    """One TOML table on its way to a dataclass: it knows where it stands, so complaints do too."""

    def __init__(self, where: str, raw: object) -> None:
        if not isinstance(raw, Mapping):
            raise AssumptionFileError(f"{where}: must be a table, not {type(raw).__name__}.")
        self.where = where
        self.raw: Mapping[str, Any] = raw

    def check_keys(self, target: type, *, optional: frozenset[str] = frozenset()) -> None:
        known = set(target.__dataclass_fields__)  # type: ignore[attr-defined]  # one of ours
        if missing := sorted(known - optional - set(self.raw)):
            raise AssumptionFileError(f"{self.where}: missing key {', '.join(map(repr, missing))}.")
        if unknown := sorted(set(self.raw) - known):
            raise AssumptionFileError(
                f"{self.where}: unknown key {', '.join(map(repr, unknown))}; "
                f"known are {', '.join(sorted(known))}."
            )

    def text(self, key: str) -> str:
        return self._nonempty(key, self.raw[key])

    def texts(self, key: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
        items = self._items(key)
        if not items and not may_be_empty:
            raise AssumptionFileError(f"{self.where}: key {key!r} must not be empty.")
        return tuple(self._nonempty(key, item) for item in items)

    def choice(self, key: str, choices: tuple[T, ...]) -> T:
        return self._chosen(key, self.raw[key], choices)

    def choices(self, key: str, choices: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(self._chosen(key, item, choices) for item in self.texts(key))

    def tables(self, key: str) -> tuple[_Table, ...]:
        rows = self._items(key) if key in self.raw else []
        return tuple(_Table(f"{self.where}, {key}[{i}]", row) for i, row in enumerate(rows, 1))

    def _items(self, key: str) -> list[object]:
        value = self.raw[key]
        if not isinstance(value, list):
            raise AssumptionFileError(f"{self.where}: key {key!r} must be a list.")
        return value

    def _nonempty(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise AssumptionFileError(
                f"{self.where}: key {key!r} must be text that is not empty, not {value!r}."
            )
        return value.strip()

    def _chosen(self, key: str, value: object, choices: tuple[T, ...]) -> T:
        for choice in choices:
            if value == choice:
                return choice
        raise AssumptionFileError(
            f"{self.where}: key {key!r} is {value!r}; choose from {', '.join(choices)}."
        )


def _assumption(table: _Table) -> Assumption:
    table.check_keys(Assumption, optional=frozenset({"variants", "parts"}))
    checks, decisive = _checks(table), _decisive(table)
    assumption = Assumption(
        id=table.text("id"),
        title=table.text("title"),
        statement=table.text("statement"),
        formal=table.text("formal"),
        estimand=table.choices("estimand", _ESTIMANDS),
        breaks=table.text("breaks"),
        data_can_say=table.text("data_can_say"),
        testable=table.choice("testable", _TESTABLE),
        dag_edges_ruled_out=_edges(table),
        checks=checks,
        decisive=decisive,
        questions=table.texts("questions"),
        prompts=_prompts(_Table(f"{table.where}, prompts", table.raw["prompts"])),
        references=table.texts("references"),
        variants=tuple(_variant(t, checks, decisive) for t in table.tables("variants")),
        parts=tuple(map(_part, table.tables("parts"))),
    )
    _check_family(table.where, assumption)
    return assumption


def _checks(table: _Table) -> tuple[str, ...]:
    checks = table.texts("checks")
    for check in checks:
        if check not in CHECK_NAMES:
            close = get_close_matches(check, CHECK_NAMES, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(CHECK_NAMES)}."
            raise AssumptionFileError(
                f"{table.where}: key 'checks' has {check!r}, which no check is called{hint}"
            )
    return checks


def _decisive(table: _Table) -> tuple[str, ...]:
    decisive = table.texts("decisive", may_be_empty=True)
    if strange := sorted(set(decisive) - set(table.texts("checks"))):
        raise AssumptionFileError(
            f"{table.where}: key 'decisive' has {', '.join(map(repr, strange))}, not listed in 'checks'."
        )
    return decisive


def _edges(table: _Table) -> tuple[str, ...]:
    key = "dag_edges_ruled_out"
    # Empty is meant: an assumption on functional form rules out no edge of the graph.
    edges = table.texts(key, may_be_empty=True)
    for edge in edges:
        if not _EDGE.fullmatch(edge):
            raise AssumptionFileError(
                f"{table.where}: key {key!r} has {edge!r}; write 'A -> B' or 'A <-> B'."
            )
    return edges


def _prompts(table: _Table) -> Prompts:
    table.check_keys(Prompts)
    return Prompts(
        education=table.text("education"),
        political_science=table.text("political_science"),
        epidemiology=table.text("epidemiology"),
    )


def _part(table: _Table) -> AssumptionPart:
    table.check_keys(AssumptionPart)
    return AssumptionPart(
        id=table.text("id"),
        title=table.text("title"),
        statement=table.text("statement"),
        formal=table.text("formal"),
        testable=table.choice("testable", _TESTABLE),
        checks=_checks(table),
    )


def _variant(table: _Table, checks: tuple[str, ...], decisive: tuple[str, ...]) -> AssumptionVariant:
    """A variant has the checks of the assumption unless it names its own."""
    table.check_keys(AssumptionVariant, optional=frozenset({"checks", "decisive"}))
    return AssumptionVariant(
        id=table.text("id"),
        estimand=table.choice("estimand", _ESTIMANDS),
        title=table.text("title"),
        statement=table.text("statement"),
        formal=table.text("formal"),
        breaks=table.text("breaks"),
        data_can_say=table.text("data_can_say"),
        testable=table.choice("testable", _TESTABLE),
        checks=_checks(table) if "checks" in table.raw else checks,
        decisive=_decisive(table) if "decisive" in table.raw else decisive,
    )


def _check_family(where: str, assumption: Assumption) -> None:
    """Variants cover the estimands once each; variants and parts are lettered a, b, c."""
    for key, members in (("variants", assumption.variants), ("parts", assumption.parts)):
        expected = [f"{assumption.id}.{letter}" for letter in "abcdefgh"[: len(members)]]
        if (found := [member.id for member in members]) != expected:
            raise AssumptionFileError(
                f"{where}: key {key!r} has ids {', '.join(found)}; expected {', '.join(expected)}."
            )
    covered = [variant.estimand for variant in assumption.variants]
    if covered and sorted(covered) != sorted(assumption.estimand):
        raise AssumptionFileError(
            f"{where}: key 'variants' covers {', '.join(covered)}; it must cover "
            f"{', '.join(assumption.estimand)}, once each."
        )
