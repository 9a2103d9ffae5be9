"""Running a study file: everything it asks for, written into one folder, each file whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msmmiv.audit.json_values import json_text
from msmmiv.document.reading import read_study
from msmmiv.document.stamp import stamp_of
from msmmiv.document.study_file import StudyFile
from msmmiv.errors import OutputError
from msmmiv.files import files_in, move_into, own_room
from msmmiv.show.analysis import Analysis
from msmmiv.show.outputs import check_folder, write_audit, write_outputs

__all__ = ["RESULTS", "StudyRun", "run_study", "stamped"]

RESULTS = "results.json"
_AUDIT = "audit"


@dataclass(frozen=True, eq=False)
class StudyRun:
    """What `run_study` did.

    Attributes
    ----------
    folder : Path
    analysis : Analysis
        With its ``stamp``.
    files : mapping of str to Path
        As `msmmiv.show.outputs.write_outputs` names them, and those of the audit after ``audit/``.
    """

    folder: Path
    analysis: Analysis
    files: Mapping[str, Path]


def run_study(
    study: StudyFile | str | Path, *, out: str | Path | None = None, progress: bool | None = None
) -> StudyRun:
    r"""Do all that a study file asks for, and write report, tables, figures and numbers, stamped with hashes.

    Use it (or ``msmmiv run``) for every analysis that somebody will want to see again. Files appear in the folder when
    all of them are made; ``results.json`` comes last. Other files in the folder are left alone, except those that an
    earlier run left and this one does not make.

    Parameters
    ----------
    study : StudyFile or path
    out : path, optional
        The folder; by default what the file says, or its own name with ``-results``.
    progress : bool, optional
        A bar with the passes over the rows.

    Returns
    -------
    StudyRun

    Raises
    ------
    StudyFileError, DataError
        The file or the data cannot be used.
    OutputError
        The folder cannot be written.

    Examples
    --------
    >>> import tempfile, msmmiv as mm
    >>> lines = '[study]\nformat = 1\n[data]\nfile = "star.csv"\n[audit]\ndraws = 199\n'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = mm.data.star().save(Path(folder, "star.csv"))
    ...     _ = Path(folder, "study.toml").write_text(lines)
    ...     files = run_study(Path(folder, "study.toml")).files
    ...     files["report"].relative_to(folder).as_posix(), files["report"].exists()
    ('study-results/report.html', True)
    """
    file = study if isinstance(study, StudyFile) else read_study(study)
    folder = check_folder(file.out_folder if out is None else out)
    analysis = stamped(file, progress=progress)
    files = _written(folder, analysis)
    return StudyRun(folder, analysis, files)


def stamped(file: StudyFile, *, progress: bool | None = None) -> Analysis:
    """The analysis of a file, with the hashes of what it was made from taken before that is read."""
    stamp = stamp_of(file)
    return replace(file.analyzed(file.study(progress=progress)), stamp=stamp)


def _written(folder: Path, analysis: Analysis) -> dict[str, Path]:
    """Files in a folder of their own first, then moved; an earlier run's that are no longer made are taken away."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with own_room(folder) as room:
            files = write_outputs(analysis, room)
            audit = write_audit(analysis.audit, room / _AUDIT)
            files |= {f"{_AUDIT}/{name}": path for name, path in audit.items()}
            made = files_in(room)
            _add(room / RESULTS, {"stamp": analysis.stamp, "files": [p.as_posix() for p in made]})
            _clear(folder, {p.as_posix() for p in made})
            move_into(folder, room, sorted(made, key=lambda p: p == Path(RESULTS)))
    except OSError as error:
        raise OutputError(f"The folder {str(folder)!r} could not be written: {error.strerror}.") from error
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()  # empty: nothing came of it
    return {name: folder / path.relative_to(room) for name, path in files.items()}


def _add(path: Path, more: Mapping[str, Any]) -> None:
    results = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json_text(results | more), encoding="utf-8", newline="\n")


def _clear(folder: Path, made: set[str]) -> None:
    """Take away what the earlier run says it left and this one does not make; nothing outside the folder."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        before = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        root = folder.resolve()
        for name in before.get("files", ()):
            if name not in made and (folder / name).resolve().is_relative_to(root):
                (folder / name).unlink(missing_ok=True)
