"""Which column probably plays which role, and why; what is not clear is asked or left open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msmmiv.design import Label
from msmmiv.document.columns import Column, arms_inside, moved_by, nested
from msmmiv.document.hints import hinted, is_reference
from msmmiv.document.problems import StudyFileError
from msmmiv.document.toml_text import toml_value
from msmmiv.errors import ColumnError, count, listing

__all__ = ["Ask", "Candidate", "Guess", "guess_roles"]

#: Share of sites that need people of two arms, rows a site needs on average, and the fewest sites.
_BOTH, _ROWS, _SITES = 0.8, 8, 3
_MOST_ARMS = 5
#: Labels of a mark, not of two sites.
_FLAGS = frozenset(["yes", "no", "y", "n", "oui", "non", "ja", "nein", "true", "false", "0", "1"])
_LISTED = 8
_COLUMNS = ("outcome", "treatment", "site", "block", "cluster", "weights")


@dataclass(frozen=True)
class Candidate:
    """A column (or a label) that could play a role, and what speaks for it."""

    value: Label
    reason: str


@dataclass(frozen=True)
class Guess:
    """What was decided about a role.

    Attributes
    ----------
    role : str
        A field of `Design`.
    value : object
        A column, a tuple of columns or a label; None while it is open.
    reason : str
    how : {"given", "guessed", "answered", "open", "left out"}
        Open: the role is needed. Left out: it is not, and nothing was clear.
    candidates : tuple of Candidate
    """

    role: str
    value: Any
    reason: str
    how: str
    candidates: tuple[Candidate, ...] = ()

    def __str__(self) -> str:
        said = "?" if self.value is None else toml_value(self.value)
        return f"{self.role:<10} {said} ({self.how}): {self.reason}"


#: Asked for a role with its candidates; gives names or labels, or nothing to leave it open.
Ask = Callable[[str, Sequence[Candidate], Sequence[str]], tuple[str, ...]]


@dataclass
class _Table:
    """The columns, what was given, and what is decided so far."""

    columns: Mapping[str, Column]
    rows: int
    given: Mapping[str, Any]
    ask: Ask | None
    made: dict[str, Guess] = field(default_factory=dict)

    def one(self, role: str) -> Column | None:
        """The column of a role, if there is one and its values are labels."""
        value = self.made[role].value if role in self.made else self.given.get(role)
        column = self.columns[value] if isinstance(value, str) else None
        return column if column is not None and column.labelled else None

    @property
    def free(self) -> list[Column]:
        """Columns without a role."""
        taken: set[str] = set()
        for value in (*self.given.values(), *(g.value for g in self.made.values())):
            taken |= {value} if isinstance(value, str) else set(value) if isinstance(value, tuple) else set()
        return [c for c in self.columns.values() if c.name not in taken]

    def decide(
        self,
        role: str,
        found: Sequence[tuple[Column, str]],
        *,
        needed: bool,
        many: bool = False,
        alone: bool = True,
        none: str,
    ) -> None:
        """Take what was given, what is clear, or the answer; otherwise leave the role open with its candidates."""
        if (given := self.given.get(role)) is not None:
            self.made[role] = Guess(role, given, "as you said", "given")
            return
        ranks = [hinted(c.name, role) for c, _ in found]
        top = [f for f, r in zip(found, ranks, strict=True) if r and r == max(ranks)]
        clear = top or (list(found) if len(found) == 1 and alone else [])
        candidates = tuple(Candidate(c.name, why) for c, why in found)
        if len(clear) == 1 or (many and 0 < len(clear) <= 3):
            value = tuple(c.name for c, _ in clear) if many else clear[0][0].name
            why = "; ".join(w for _, w in clear) + (", and its name reads like one" if len(top) == 1 else "")
            self.made[role] = Guess(
                role, value, why, "guessed", candidates if len(found) > len(clear) else ()
            )
            return
        if self.ask is not None and (needed or candidates):
            answer = self.ask(role, candidates, list(self.columns))
            if answer:
                value = tuple(answer) if many else answer[0]
                self.made[role] = Guess(role, value, "your answer", "answered", candidates)
                return
        several = f"{count(len(found), 'column')} could be it" if found else none
        self.made[role] = Guess(role, None, several, "open" if needed else "left out", candidates)


def guess_roles(
    columns: Sequence[Column], rows: int, given: Mapping[str, Any], *, ask: Ask | None = None
) -> tuple[Guess, ...]:
    """Every role, decided or open, in the order of `Design`.

    Parameters
    ----------
    columns : sequence of Column
    rows : int
    given : mapping
        Roles that are known, by the names of `Design`'s fields; a reference arm as text.
    ask : callable, optional
        For what is not clear.

    Raises
    ------
    ColumnError
        A column that was given is not there.
    StudyFileError
        A reference arm that the treatment does not have.
    """
    named = {c.name: c for c in columns}
    for role in (*_COLUMNS, "mediators", "covariates"):
        for name in _several(given.get(role)):
            if name not in named:
                raise ColumnError.not_found(name, role.removesuffix("s"), list(named))
    table = _Table(named, rows, {k: v for k, v in given.items() if k != "control"}, ask)
    sites, none = _sites(table), "no column has many rows per label and two arms inside"
    # Whole numbers, or two labels, may be anything unless the name speaks for them.
    sure = all(c.kind == "text" and c.distinct >= _SITES for c, _ in sites)
    table.decide("site", sites, needed=True, alone=sure, none=none)
    table.decide(
        "treatment", _arms(table), needed=True, none="no column with 2 to 5 values varies inside sites"
    )
    if (control := _control(table, given)) is not None:
        table.made["control"] = control
    table.decide("cluster", _clusters(table), needed=False, none="no column is nested in the site")
    table.decide("block", _blocks(table), needed=False, none="no column's name speaks for it")
    # The last numeric column left is a guess only if the other role has one already.
    known, none = "mediators" in given, "no numeric column is left"
    table.decide("outcome", _outcomes(table), needed=True, alone=known, none=none)
    known = table.made["outcome"].value is not None
    table.decide("mediators", _mediators(table), needed=True, many=True, alone=known, none=none)
    _weights(table)
    order = ("outcome", "treatment", "control", "mediators", "site", "cluster", "block", "weights")
    return tuple(table.made[r] for r in order if r in table.made)


def _several(value: Any) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _sites(table: _Table) -> list[tuple[Column, str]]:
    arms = [c for c in [table.one("treatment")] if c] or [c for c in table.free if _armlike(c)]
    dose = "treatment" in table.given and table.one("treatment") is None
    out: list[tuple[Column, str]] = []
    few: list[tuple[Column, str]] = []
    for c in table.free:
        pair = c.distinct < _SITES
        if not c.labelled or (pair and not _two_sites(c)) or table.rows / c.distinct < _ROWS:
            continue
        shares = [arms_inside(c, a) for a in arms if a.name != c.name]
        if not dose and not any(some >= _BOTH * every for some, every in shares):
            continue
        text = f"{c.distinct:,} labels with {table.rows / c.distinct:,.0f} rows each on average"
        (few if pair else out).append((c, text if dose else f"{text}, two arms inside"))
    names = [f for f in out if hinted(f[0].name, "site")]
    words = [f for f in out if f not in names and f[0].kind == "text"]
    # Whole numbers that nothing in their name calls labels are more often counts than sites.
    numbers = [f for f in out if f not in [*names, *words]]
    return names + words if names else (words or few) + numbers


def _two_sites(c: Column) -> bool:
    """Two labels that may be two sites: words that are neither yes and no nor arms."""
    said = {str(v).casefold() for v in c.labels}
    arms = hinted(c.name, "treatment") or any(is_reference(v) for v in c.labels)
    return c.kind == "text" and c.distinct == 2 and not said & _FLAGS and not arms


def _armlike(column: Column) -> bool:
    return column.labelled and 2 <= column.distinct <= _MOST_ARMS


def _arms(table: _Table) -> list[tuple[Column, str]]:
    site, out = table.one("site"), []
    for c in table.free:
        if not _armlike(c):
            continue
        text = f"{c.distinct} values ({listing([toml_value(v) for v in c.labels])})"
        if site is not None:
            some, every = arms_inside(site, c)
            if some < _BOTH * every:
                continue
            text += f", two of them inside {some:,} of {count(every, 'site')}"
        out.append((c, text))
    return out


def _control(table: _Table, given: Mapping[str, Any]) -> Guess | None:
    """The reference arm: none where the arms are 0 and 1, or the treatment is a dose or not known."""
    arms, text = table.one("treatment"), given.get("control")
    if arms is None or table.given.get("treatment_kind") == "continuous":
        if text is not None:
            raise StudyFileError("A reference arm needs a treatment with arms: give the treatment too.")
        return None
    if text is not None:
        for value in arms.labels:
            if str(value).casefold() == str(text).casefold():
                return Guess("control", value, "as you said", "given")
        raise StudyFileError(
            f"Treatment {arms.name!r} has no arm {text!r}; it has {listing(arms.labels, quote=True)}."
        )
    if set(arms.labels) <= {0, 1}:
        return None
    likely = [v for v in arms.labels if is_reference(v)]
    if len(likely) == 1:
        return Guess("control", likely[0], "its name reads like a control arm", "guessed")
    candidates = tuple(Candidate(v, f"an arm of {toml_value(arms.name)}") for v in arms.labels)
    if table.ask is not None and (answer := table.ask("control", candidates, [str(v) for v in arms.labels])):
        value = next(v for v in arms.labels if str(v) == answer[0])
        return Guess("control", value, "your answer", "answered")
    return Guess("control", None, "no arm is called 0 or reads like a control arm", "open", candidates)


def _clusters(table: _Table) -> list[tuple[Column, str]]:
    site, arms, out = table.one("site"), table.one("treatment"), []
    if site is None:
        return []
    for c in table.free:
        many = c.labelled and c.distinct >= 2 * site.distinct and table.rows >= 2 * c.distinct
        if not many or not (c.kind == "text" or hinted(c.name, "cluster")) or not nested(c, site):
            continue
        text = f"{c.distinct:,} labels, each inside one site"
        if arms is not None and arms_inside(c, arms)[0] == 0:
            text += ", with one arm each"
        out.append((c, text))
    return out


def _blocks(table: _Table) -> list[tuple[Column, str]]:
    arms, out = table.one("treatment"), []
    for c in table.free:
        if not c.labelled or not hinted(c.name, "block") or c.distinct < 2 or arms is None:
            continue
        some, every = arms_inside(c, arms)
        if some >= _BOTH * every:
            out.append((c, f"{c.distinct:,} labels, two arms inside {some:,} of them"))
    return out


def _outcomes(table: _Table) -> list[tuple[Column, str]]:
    found = [c for c in table.free if _measured(c, table) and not math.isinf(_moved(c, table))]
    found.sort(key=lambda c: (-hinted(c.name, "outcome"), c.distinct == 2))
    return [(c, _described(c)) for c in found]


def _mediators(table: _Table) -> list[tuple[Column, str]]:
    found = [(c, _moved(c, table)) for c in table.free if _measured(c, table)]
    # What the arm settles by itself is the treatment in other words.
    found = [(c, t) for c, t in found if not math.isinf(t)]
    found.sort(key=lambda pair: -pair[1])
    known = table.one("treatment") is not None
    return [
        (c, f"{_described(c)}{f', differs between arms (|t| = {t:.1f})' if known else ''}") for c, t in found
    ]


def _measured(c: Column, table: _Table) -> bool:
    """A number that is not just the number of the row."""
    return c.numeric and not (c.kind == "whole" and c.distinct == table.rows)


def _moved(column: Column, table: _Table) -> float:
    arms = table.one("treatment")
    return 0.0 if arms is None or not _armlike(arms) else moved_by(column, table.one("site"), arms)


def _described(c: Column) -> str:
    lost = f", {c.missing:,} missing" if c.missing else ""
    return f"{c.distinct:,} different numbers{lost}"


def _weights(table: _Table) -> None:
    """Weights are never guessed: what they mean is not in the data."""
    if (given := table.given.get("weights")) is not None:
        table.made["weights"] = Guess("weights", given, "as you said", "given")
        return
    found = [
        c for c in table.free if c.numeric and hinted(c.name, "weights") and c.values[c.values <= 0].size == 0
    ]
    if found:
        candidates = tuple(Candidate(c.name, f"{_described(c)}, all positive") for c in found)
        why = "say what they mean: weight_kind is 'analytic', 'frequency' or 'probability'"
        table.made["weights"] = Guess("weights", None, why, "left out", candidates)
