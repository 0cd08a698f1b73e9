"""Files that a command writes beside what it prints: whole or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path

from cli.console import note
from index.atomic import write_whole
from retrieval.errors import OutputError

__all__ = ["require_apart", "require_places", "write_file"]


def require_places(*files: Path | None) -> None:
    """Raise OutputError where a file could not be written, before the long part of the work, or two are one."""
    named = [file for file in files if file is not None]
    for file in named:
        if file.is_dir():
            raise OutputError(f"{file} is a folder; name a file in it")
        if not file.absolute().parent.is_dir():
            raise OutputError(f"{file} cannot be written: there is no folder {file.parent}; make it first")
    if len({os.path.realpath(file) for file in named}) < len(named):
        raise OutputError("two results would be written to the same file; name another for one of them")


def require_apart(file: Path, read: Iterable[Path]) -> None:
    """Raise OutputError where a file would replace one of those that are read, or one in a folder that is."""
    place = Path(os.path.realpath(file))  # unlike `resolve`, at peace with links that go round
    known = [Path(os.path.realpath(one)) for one in read]
    if any(one == place or (file.exists() and one == place.parent) for one in known):
        raise OutputError(f"{file} is one of the files that are asked about; name another for the result")


def write_file(file: Path, text: str) -> None:
    """Write a file and say so on stderr. Raises OutputError."""
    try:
        write_whole(file, text.encode("utf-8", "replace"))  # a file's name need not be Unicode
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
    note(f"Wrote {file}")
