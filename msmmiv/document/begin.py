"""Beginning a study file: looking at the data, and writing down what was found with the reasons beside it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msmmiv.audit.assumption_files import load_assumptions
from msmmiv.document.columns import Column, look
from msmmiv.document.dialect import found_dialect
from msmmiv.document.estimators import EXAMPLE
from msmmiv.document.guessing import Ask, Guess, guess_roles
from msmmiv.document.problems import StudyFileError
from msmmiv.document.reading import parse_study
from msmmiv.document.study_file import StudyFile
from msmmiv.document.toml_text import toml_value
from msmmiv.errors import ChoiceError, DataError, OutputError, check_choice, count, listing
from msmmiv.files import write_whole
from msmmiv.moments.cells import Missing, Moments
from msmmiv.moments.data_file import DataFile, header, is_moments
from msmmiv.moments.row_files import first_rows
from msmmiv.show.summary import wrap
from msmmiv.show.words import one_line

__all__ = ["StudyDraft", "init_study"]

#: Rows that are looked at; a file sorted by site shows its first sites whole.
ROWS = 200_000
_ROLES = ("outcome", "treatment", "mediators", "site", "covariates", "block", "cluster", "weights", "weight_kind",
          "control", "treatment_kind", "estimand")  # fmt: skip
_SHOWN = 8


@dataclass(frozen=True)
class StudyDraft:
    """A study file that was begun by `init_study`.

    Attributes
    ----------
    path : Path
        Where it belongs: paths in it are relative to that folder.
    text : str
        The file with its comments.
    file : StudyFile or None
        What it says; None while a role that is needed is open.
    guesses : tuple of Guess
        Every role with the reason.
    notes : tuple of str
        How the data are written down, and what was noticed.
    """

    path: Path
    text: str
    file: StudyFile | None
    guesses: tuple[Guess, ...]
    notes: tuple[str, ...]

    @property
    def open_roles(self) -> tuple[str, ...]:
        """Roles that are needed and open."""
        return tuple(g.role for g in self.guesses if g.how == "open")

    def write(self, *, force: bool = False) -> Path:
        """Write the file; one that is there is left alone unless ``force`` says otherwise.

        Raises
        ------
        OutputError
        """
        if self.path.is_dir() or (self.path.exists() and not force):
            what = "a folder" if self.path.is_dir() else "there already"
            raise OutputError(
                f"{str(self.path)!r} is {what}. Choose another name, or overwrite it with --force."
            )
        return write_whole(self.path, self.text.encode("utf-8"))

    def __str__(self) -> str:
        return "\n".join([*(f"data       {n}" for n in self.notes), *map(str, self.guesses)])


def init_study(
    data: str | Path | DataFile,
    *,
    path: str | Path = "study.toml",
    ask: Ask | None = None,
    missing: Missing | None = None,
    **roles: Any,
) -> StudyDraft:
    """Begin a study file by looking at the columns of the data; nothing is written before `StudyDraft.write`.

    Use it to get from a file to an analysis that can be re-run. Roles that you give are taken; others are guessed from
    how the columns lie inside one another and what they are called, each with its reason in a comment. What is not
    clear stays open, with candidates in comments.

    Parameters
    ----------
    data : path or DataFile
        A file of persons, a glob or folder of several, or moments files.
    path : path
        Where the study file will lie.
    ask : callable, optional
        Called as ``ask(role, candidates, names)`` for what is not clear; gives a tuple of names, or an empty one.
    missing : {"error", "drop"}, optional
        What happens to rows without site or arm.
    **roles
        The fields of `Design`, as far as they are known; the control may be given as text.

    Returns
    -------
    StudyDraft

    Raises
    ------
    DataError
        The data cannot be read; the message says what to do.
    ColumnError
        A column that was given is not there.

    Examples
    --------
    >>> import numpy as np, pandas as pd, tempfile
    >>> from pathlib import Path
    >>> frame = pd.DataFrame({"school": np.repeat(list("abcd"), 20), "treated": np.tile([0, 1], 40)})
    >>> frame["hours"] = frame["treated"] + np.arange(80) % 7 / 7
    >>> frame["score"] = frame["hours"] + np.arange(80) % 11 / 11
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     frame.to_csv(Path(folder) / "trial.csv", index=False)
    ...     draft = init_study(Path(folder) / "trial.csv", path=Path(folder) / "study.toml")
    >>> draft.file.design.site, draft.file.design.treatment, draft.file.design.mediators, draft.file.design.outcome
    ('school', 'treated', ('hours',), 'score')
    """
    unknown = [r for r in roles if r not in _ROLES]
    if unknown:
        raise ChoiceError(f"{unknown[0]!r} is no role; roles are {listing(_ROLES, most=20)}.")
    if missing is not None:
        check_choice(missing, Missing, "missing")
    given = {k: v for k, v in roles.items() if v not in (None, (), [])}
    where = Path(path)
    source = data if isinstance(data, DataFile) else DataFile((str(data),))
    kinds = {is_moments(f) for f in source.files}
    if kinds == {True}:
        return _of_moments(source, where, given | ({"missing": missing} if missing else {}))
    if kinds == {True, False}:
        raise DataError(f"{str(source)!r} matches moments files and other files; begin one study for each.")
    first_rows(source, 0) if not source.files else None  # says what is wrong with the path
    source, seen = found_dialect(source)
    frame = first_rows(source, ROWS)
    if frame.empty:
        raise DataError(f"{str(source)!r} has a header and no rows.")
    columns, more = _usable(look(frame), source)
    notes = (*seen, *more)
    if len(frame) == ROWS:
        notes = (*notes, f"the first {ROWS:,} rows were looked at")
    many = {
        k: ((v,) if isinstance(v, str) else tuple(v))
        for k, v in given.items()
        if k in ("mediators", "covariates")
    }
    guesses = guess_roles(columns, len(frame), given | many, ask=ask)
    text = _text(
        _data_lines(source, where, notes) + _missing_lines(missing, columns, guesses),
        _design_lines(given | many, guesses),
    )
    file = parse_study(text, path=where) if all(g.how != "open" for g in guesses) else None
    return StudyDraft(where, text, file, guesses, notes)


def _of_moments(source: DataFile, where: Path, given: Mapping[str, Any]) -> StudyDraft:
    if source.memory_limit is not None:
        given = {**given, "memory_limit": source.memory_limit}
    if given:
        raise StudyFileError(f"Moments carry their own roles; leave out {listing(list(given))}.")
    design = Moments.load(*source.files).design
    roles = [f"# {line}" for line in _lines(str(design))]
    lines = [
        "[data]",
        f"file = {toml_value(_relative(source, where))}",
        "",
        "# Moments carry their roles:",
        *roles,
    ]
    text = _text(lines, [])
    return StudyDraft(where, text, parse_study(text, path=where), (), ("moments, which carry their roles",))


def _lines(text: str) -> list[str]:
    """Lines without what a comment cannot hold."""
    return [one_line(line) for line in text.splitlines()]


def _usable(columns: list[Column], source: DataFile) -> tuple[list[Column], tuple[str, ...]]:
    """Columns that can have a role, and what is said of the others."""
    notes = []
    files = [f for f in source.files if f.lower().endswith(".csv")]
    repeated = {n for f in files for n, k in Counter(header(f, source)).items() if k > 1 and n}
    copies = {f"{n}_{i}" for n in repeated for i in range(1, len(columns))}
    empty = [c.name for c in columns if c.kind == "empty"]
    if repeated:
        notes.append(
            f"{listing(sorted(repeated), quote=True, most=_SHOWN)} is the name of more than one column; rename the "
            "copies to use one of them"
        )
    if empty:
        notes.append(f"{count(len(empty), 'column')} without any value left aside")
    if len(columns) == 1:
        notes.append("there is only one column: is another mark between the fields?")
    gone = repeated | copies | set(empty)
    return [c for c in columns if c.name not in gone], tuple(notes)


def _relative(source: DataFile, where: Path) -> str:
    """The data as seen from the study file."""
    name = source.paths[0]
    try:
        return Path(os.path.relpath(name, where.parent)).as_posix()
    except ValueError:  # another drive
        return str(name)


def _data_lines(source: DataFile, where: Path, notes: tuple[str, ...]) -> list[str]:
    lines = ["[data]", f"file = {toml_value(_relative(source, where))}"]
    for note in notes:
        lines += _comment(note)
    for name in ("delimiter", "decimal", "encoding", "memory_limit"):
        if (value := getattr(source, name)) is not None:
            lines.append(f"{name} = {toml_value(value)}")
    return lines


def _missing_lines(missing: Missing | None, columns: list[Column], guesses: tuple[Guess, ...]) -> list[str]:
    """What happens to rows without site or arm, where there are any."""
    if missing is not None:
        return [f"missing = {toml_value(missing)}"]
    named = {c.name: c for c in columns}
    placed = [g for g in guesses if g.role in ("site", "treatment") and g.value is not None]
    gaps = [(named[g.value].missing, g.role) for g in placed if named[g.value].missing]
    lost = [f"{count(n, 'row')} {'has' if n == 1 else 'have'} no {role}" for n, role in gaps]
    if not lost:
        return []
    words = f"{' and '.join(lost)}: fill them in, or leave these rows out by taking the '#' away:"
    return [*_comment(words), '# missing = "drop"']


def _design_lines(given: Mapping[str, Any], guesses: tuple[Guess, ...]) -> list[str]:
    lines = ["[design]"]
    for guess in guesses:
        if guess.how == "left out" and not guess.candidates:
            continue
        if guess.value is not None:
            if guess.how != "given":
                lines += _comment(f"{guess.how}: {guess.reason}")
            lines.append(f"{guess.role} = {toml_value(guess.value)}")
            continue
        needed = "OPEN, needed" if guess.how == "open" else "not needed"
        lines += _comment(f"{guess.role} ({needed}): {guess.reason}. Take the '#' away before one of:")
        lines += _candidates(guess)
    for role in ("covariates", "weight_kind", "treatment_kind", "estimand"):
        if role in given:
            lines.append(f"{role} = {toml_value(given[role])}")
    if "covariates" not in given:
        lines += [
            *_comment("numeric columns fixed before treatment; balance is tested"),
            '# covariates = ["..."]',
        ]
    return lines


def _candidates(guess: Guess) -> list[str]:
    lines = []
    for c in guess.candidates[:_SHOWN]:
        value = toml_value([c.value] if guess.role == "mediators" else c.value)
        lines.append(f"# {guess.role} = {value}  # {one_line(c.reason)}")
    if len(guess.candidates) > _SHOWN:
        lines.append(f"# and {count(len(guess.candidates) - _SHOWN, 'more column')}")
    if guess.role == "weights":
        lines.append('# weight_kind = "..."')
    return lines or [f'# {guess.role} = "..."']


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(one_line(text)).splitlines() if line.strip()]


def _text(data: list[str], design: list[str]) -> str:
    head = [
        "# The analysis as a document: `msmmiv run` does what it says, `msmmiv run --check` says what has changed.",
        "",
        "[study]",
        "format = 1",
        '# title = "..."',
        "# seed = 0",
        '# out = "results"',
    ]
    rest = [
        "[estimate]",
        *_comment("left out: estimator, covariance and interval are chosen by rule"),
        '# estimator = "ujive"',
        '# cov_type = "site"',
        "# direct_effect = true",
        *_comment("an estimator with options is a table of its name and these"),
        f"# {EXAMPLE}",
        "",
        "# Further estimates to compare with, each in a table of its own:",
        "# [[compare]]",
        '# estimator = "liml"',
        '# cov_type = "site"',
        '# small_sample = "CR2"',
        "",
        "[audit]",
        "# draws = 999",
        "# planned_share = 0.5",
        '# planned_shares = "shares.csv"  # where it differs: columns of sites and share',
        '# site_covariates = "sites.csv"',
        "",
        "[dag]",
        *_comment("changes to the graph of parallel mediators that share one unmeasured cause"),
        '# edges = ["A -> B"]',
        '# without = ["A -> B"]',
        '# confounders = ["U"]',
        "",
        "[arguments]",
        *_comment("what no test can reach: your argument, quoted in the report and never weighed"),
    ]
    for a in load_assumptions():
        rest += [*_comment(f"({a.id}) {a.title}: {a.questions[0]}"), f'# {a.id} = """..."""']
    parts = [head, data, design, rest]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"
