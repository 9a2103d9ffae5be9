"""Hashes of what an analysis was made from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from msmmiv.document.problems import StudyFileError
from msmmiv.document.study_file import StudyFile
from msmmiv.errors import DataError

__all__ = ["file_sha256", "files_sha256", "stamp_of"]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, read in pieces.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}.") from error


def files_sha256(files: Sequence[str], folder: Path) -> str:
    """One hash of several files: that of the file itself, or of the list that ``sha256sum`` prints of them.

    Notes
    -----
    The list has a line ``hash, two spaces, path relative to the study file`` per file, sorted by path, as
    ``sha256sum FILES | sha256sum`` makes it.
    """
    if len(files) == 1:
        return file_sha256(files[0])
    named = sorted((Path(os.path.relpath(f, folder)).as_posix(), f) for f in files)
    lines = "".join(f"{file_sha256(f)}  {name}\n" for name, f in named)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def stamp_of(file: StudyFile) -> dict[str, str]:
    """Names and hashes of the study file, the data and the tables of sites beside them, and the seed.

    Raises
    ------
    StudyFileError
        The study was not read from a file.
    DataError
        No data, or data that cannot be read.
    """
    if file.path is None:
        raise StudyFileError(
            "This study was not read from a file; write it with to_toml() and read_study() it."
        )
    files = file.source().files
    if not files:
        raise DataError(f"No file matches {', '.join(map(repr, file.data.file))} beside {file.path.name!r}.")
    names = ", ".join(file.data.file) + (f" ({len(files)} files)" if len(files) > 1 else "")
    stamp = {
        "study file": file.path.name,
        "SHA-256 of the study file": file_sha256(file.path),
        "data": names,
        "SHA-256 of the data": files_sha256(files, file.folder),
    }
    beside = {
        "planned shares": file.auditing.planned_shares,
        "site covariates": file.auditing.site_covariates,
    }
    for name, table in beside.items():
        if table is not None:
            stamp |= {name: table, f"SHA-256 of the {name}": file_sha256(file.folder / table)}
    return stamp | {"seed": str(file.seed)}
