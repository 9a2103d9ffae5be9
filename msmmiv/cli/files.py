"""Files that commands read and write: near names for a wrong one, and nothing half-written."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from msmmiv.errors import DataError, OutputError
from msmmiv.files import files_in, move_into, own_room
from msmmiv.moments.data_file import DataFile, reader_of
from msmmiv.show.outputs import check_folder

__all__ = ["check_file", "check_name", "paths_of", "whole_file", "written"]


def paths_of(file: str) -> list[str]:
    """The files that a name, glob or folder stands for, after checking that there is one.

    Raises
    ------
    DataError
        No such file, with names near it; a glob that matches nothing; a folder without files of one kind.
    """
    if Path(file).is_dir():
        folder = DataFile((file,))
        reader_of(folder)
        return list(folder.files)
    if glob.has_magic(file) and not Path(file).exists():
        found = list(DataFile((file,)).files)
        if not found:
            raise DataError(f"No file matches {file!r}.")
        return found
    check_file(file)
    return [file]


def check_file(file: str | Path) -> Path:
    """The path, if it is a file; otherwise a refusal with the names that are near it.

    Raises
    ------
    DataError
    """
    path = Path(file)
    if path.is_dir():
        raise DataError(f"{str(file)!r} is a folder; name a file in it, or several as '{path / '*.csv'}'.")
    if path.exists():
        return path
    if not path.parent.exists():
        raise DataError(
            f"{str(file)!r} was not found: there is no folder {str(path.parent)!r}.{_near(path.parent)}"
        )
    raise DataError(f"{str(file)!r} was not found.{_near(path)}")


def _near(path: Path) -> str:
    """A question with the names beside a path that look like it; empty when none does."""
    try:
        names = [p.name for p in path.parent.iterdir() if not p.name.startswith(".")]
    except OSError:
        return ""
    folded = {n.casefold(): n for n in names}
    close = [folded[n] for n in difflib.get_close_matches(path.name.casefold(), folded, n=2, cutoff=0.7)]
    same = [n for n in names if Path(n).stem.casefold() == path.stem.casefold()]
    near = [repr(str(path.with_name(n))) for n in dict.fromkeys([*same, *close])][:2]
    return f" Did you mean {' or '.join(near)}?" if near else ""


def check_name(path: str | Path) -> Path:
    """The path, if a file can be written there; to be asked before long work.

    Raises
    ------
    OutputError
        The folder is not there, or the name is that of a folder.
    """
    wanted = Path(path)
    if wanted.is_dir():
        raise OutputError(f"{str(path)!r} is a folder; give the name of a file.")
    if not wanted.parent.is_dir():
        raise OutputError(
            f"The folder {str(wanted.parent)!r} does not exist. Make it first, or write elsewhere."
        )
    return wanted


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name beside the wanted one, which takes its place when the block ends well; otherwise nothing is left.

    Raises
    ------
    OutputError
        The folder is not there, or the name is that of a folder.
    """
    wanted = check_name(path)
    with own_room(wanted.parent) as folder:
        yield folder / wanted.name
        move_into(wanted.parent, folder, [Path(wanted.name)])


def written(folder: str | Path, write: Callable[[Path], Mapping[str, Path]]) -> dict[str, Path]:
    """Have files written into a folder, which sees each of them whole or not at all.

    They are written into a folder of their own inside it, and moved when all are there. A folder that was made for
    them goes again when that fails.

    Parameters
    ----------
    folder : path
    write : callable
        Such as `write_outputs`: takes a folder, returns its files by name.
    """
    path = check_folder(folder)
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with own_room(path) as room:
            files = write(room)
            move_into(path, room, files_in(room))
            return {name: path / file.relative_to(room) for name, file in files.items()}
    except BaseException as error:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()
        if isinstance(error, OSError):
            raise OutputError(f"The folder {str(path)!r} could not be written: {error.strerror}.") from error
        raise
