"""Output files that are there whole or not at all: written under another name, then given their own."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msmmiv.errors import OutputError

__all__ = ["files_in", "move_into", "own_room", "write_whole"]


@contextmanager
def own_room(parent: Path) -> Iterator[Path]:
    """A folder inside another, in the same file system, that is gone afterwards.

    Raises
    ------
    OutputError
        Nothing can be written there.
    """
    try:
        room = Path(tempfile.mkdtemp(prefix=".msmmiv-", dir=parent))
    except OSError as error:
        raise OutputError(f"Nothing can be written in {str(parent)!r}: {error.strerror}.") from error
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def files_in(room: Path) -> list[Path]:
    """Every file below a folder, as seen from it, sorted."""
    return sorted(p.relative_to(room) for p in room.rglob("*") if p.is_file())


def move_into(folder: Path, room: Path, names: Iterable[Path]) -> None:
    """Give files their places in this order, each in one step; see `_put`."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _put(room / name, folder / name)


def _put(made: Path, place: Path) -> None:
    """Put a file in the place of another, whose permissions it takes; a link stays, its target is replaced."""
    real = Path(os.path.realpath(place)) if place.is_symlink() else place
    if real.exists():
        made.chmod(stat.S_IMODE(real.stat().st_mode))
    if made.stat().st_dev == real.parent.stat().st_dev:
        os.replace(made, real)  # noqa: PTH105 - replaces on every system
        return
    with own_room(
        real.parent
    ) as room:  # a link into another file system, in which no file can be moved from here
        shutil.copy(made, room / real.name)
        os.replace(room / real.name, real)  # noqa: PTH105


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write one file in one step, so that nobody finds half of it.

    Raises
    ------
    OutputError
        The folder is not there, or does not let the file be written; the name is that of a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(
            f"{str(path)!r} cannot be written: there is no folder {str(path.parent)!r}. Make it first."
        )
    if path.is_dir():
        raise OutputError(f"{str(path)!r} is a folder; give the name of a file in it.")
    made: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".msmmiv-", delete=False) as file:
            made = Path(file.name)
            file.write(content)
        # A temporary file is the owner's alone; an output is what the owner's other files are.
        mask = os.umask(0)
        os.umask(mask)
        made.chmod(0o666 & ~mask)
        _put(made, path)
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        if made is not None:
            made.unlink(missing_ok=True)
    return path
