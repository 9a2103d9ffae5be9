"""Checking a study file: what is different from the run whose results lie in the folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from msmmiv.audit.json_values import json_text
from msmmiv.document.problems import StudyFileError
from msmmiv.document.reading import read_study
from msmmiv.document.running import RESULTS, stamped
from msmmiv.document.study_file import StudyFile
from msmmiv.errors import count
from msmmiv.show.outputs import results_dict
from msmmiv.show.words import one_line, short

__all__ = ["Change", "StudyCheck", "check_study"]

Leaf: TypeAlias = str | float | bool | None
#: Sums over many rows are made by several threads, in any order: digits after the eighth are not a difference.
_RELATIVE, _ABSOLUTE = 1e-8, 1e-13
#: Texts that are results; others (sentences) repeat numbers that are compared themselves.
_TEXTS = frozenset(("status", "set", "shape", "not_applicable", "cov_type", "interval"))
#: Parts in which every text counts.
_WHOLE = ("stamp", "versions", "title", "source", "design", "skipped")
#: What follows from other parts: the order of fits, files, and hashes of what is compared number by number.
_LEFT_OUT = frozenset(("files", "headline", "design_digest", "moments_sha256"))
#: Corrections that covariances have unasked; see `msmmiv.estimate.covariances.choose_correction`.
_USUAL = {"cluster": "CR1S", "site": "CR1P"}
_NAMES = ("term", "assumption", "check", "test", "edge", "mediator", "site", "name")


@dataclass(frozen=True)
class Change:
    """One thing that is different.

    Attributes
    ----------
    name : str
        Where it stands in ``results.json``, in words.
    old, new : str, float, bool or None
        None where there is no value.
    """

    name: str
    old: Leaf
    new: Leaf

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class StudyCheck:
    """What `check_study` found.

    Attributes
    ----------
    folder : Path
        Where the earlier results lie.
    changes : tuple of Change
        Empty if nothing is different.
    compared : int
        How many values were compared.
    """

    folder: Path
    changes: tuple[Change, ...]
    compared: int

    def to_frame(self) -> pd.DataFrame:
        """One row per change: ``name, old, new``."""
        return pd.DataFrame([asdict(c) for c in self.changes], columns=["name", "old", "new"])

    def __str__(self) -> str:
        where = f"the run in {str(self.folder)!r} ({count(self.compared, 'value')} compared)"
        if not self.changes:
            return f"Nothing differs from {where}."
        verb = "differs" if len(self.changes) == 1 else "differ"
        head = f"{count(len(self.changes), 'value')} {verb} from {where}; old -> new:"
        return "\n".join([head, *(f"  {c}" for c in self.changes)])


def check_study(
    study: StudyFile | str | Path, *, out: str | Path | None = None, progress: bool | None = None
) -> StudyCheck:
    """Compute everything again and list what is not as the earlier run left it; nothing is written.

    Use it before results are sent on, and after an update: hashes of study file and data, versions, estimates,
    standard errors, p-values, sets and statuses of findings are compared.

    Parameters
    ----------
    study : StudyFile or path
    out : path, optional
        Folder of the earlier run; by default that of `run_study`.
    progress : bool, optional

    Returns
    -------
    StudyCheck

    Raises
    ------
    StudyFileError
        There is no earlier run in the folder.

    Notes
    -----
    Two numbers are the same if they agree to eight digits.
    """
    file = study if isinstance(study, StudyFile) else read_study(study)
    folder = file.out_folder if out is None else Path(out)
    before = _earlier(folder)
    analysis = stamped(file, progress=progress)
    now = json.loads(json_text(results_dict(analysis) | {"stamp": analysis.stamp}))
    old, new = dict(_leaves("", before)), dict(_leaves("", now))
    names = [*new, *(k for k in old if k not in new)]
    moved = [Change(k, old[k], new[k]) for k in new if k in old and not _equal(old[k], new[k])]
    changes = [
        *moved,
        *_whole_parts(new, old),
        *(Change(c.name, c.new, c.old) for c in _whole_parts(old, new)),
    ]
    changes.sort(key=lambda c: _place(c.name))
    return StudyCheck(folder, tuple(changes), len(names))


def _earlier(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyFileError(
            f"There is no earlier run in {str(folder)!r} ({RESULTS} is not there): `msmmiv run` makes one."
        ) from error
    except (OSError, ValueError) as error:
        raise StudyFileError(f"{str(path)!r} cannot be read as results: {one_line(error)}") from error
    if not isinstance(found, dict) or "stamp" not in found:
        raise StudyFileError(f"{str(path)!r} was not left by `msmmiv run`: it has no stamp.")
    return found


def _leaves(where: str, value: Any) -> Iterator[tuple[str, Leaf]]:
    """Every value that is a result, by a name made of the names above it."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not (key in _LEFT_OUT if not where else key == "covariance" and where.startswith("fits: ")):
                yield from _leaves(f"{where}: {key}" if where else key, part)
    elif isinstance(value, list):
        for name, part in zip(_labels(value), value, strict=True):
            yield from _leaves(f"{where}: {name}", part)
    else:
        first, last = where.split(": ", maxsplit=1)[0], where.rsplit(": ", 1)[-1]
        if not isinstance(value, str) or first in _WHOLE or last in _TEXTS:
            yield where, value


def _whole_parts(here: Mapping[str, Leaf], there: Mapping[str, Leaf]) -> list[Change]:
    """What only one side has, a part (such as a fit) as one change; values that are null are as good as absent."""
    known = {part for name in there for part in _above(name)}
    parts: dict[str, list[str]] = {}
    for name, value in here.items():
        if value is not None and name not in there:
            top = next((part for part in _above(name) if part not in known), name)
            parts.setdefault(top, []).append(name)
    return [
        Change(top, None, here[top] if names == [top] else f"({count(len(names), 'value')})")
        for top, names in parts.items()
    ]


def _above(name: str) -> list[str]:
    """The names above a name, the highest first, and itself."""
    words = name.split(": ")
    return [": ".join(words[: i + 1]) for i in range(len(words))]


def _labels(items: Sequence[Any]) -> list[str]:
    """What tells the items of a list apart: what they are about, or their number."""
    labels = [_label(item) or str(i) for i, item in enumerate(items, 1)]
    return [name if labels.count(name) == 1 else f"{name} #{i}" for i, name in enumerate(labels, 1)]


def _label(item: Any) -> str:
    if not isinstance(item, Mapping):
        return ""
    if isinstance(glance := item.get("glance"), Mapping):
        direct = " + direct effect" if glance.get("direct_effect") else ""
        return f"{glance.get('method')}{direct}, {_covariance(glance)}, {glance.get('interval')}"
    return next((one_line(item[k]) for k in _NAMES if item.get(k) not in (None, "")), "")


def _covariance(glance: Mapping[str, Any]) -> str:
    """The covariance, with its small-sample correction where that is not the usual one."""
    kind, correction = glance.get("cov_type"), glance.get("small_sample")
    return str(kind) if correction in (None, _USUAL.get(str(kind))) else f"{kind} {correction}"


def _equal(old: Leaf, new: Leaf) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, int | float) and isinstance(new, int | float):
        return math.isclose(old, new, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return old == new


def _place(name: str) -> int:
    order = ("stamp", "versions", "title", "source", "design", "flow", "fits", "audit")
    first = name.split(": ", maxsplit=1)[0]
    return order.index(first) if first in order else len(order)


def _shown(value: Leaf) -> str:
    if value is None:
        return "(none)"
    return short(value, 70) if isinstance(value, str) else f"{value:.10g}"
