"""Files and folders that are written completely or not at all, even if the process dies or the power fails."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from index.errors import IndexFailure

__all__ = [
    "CASES",
    "MODEL",
    "VECTORS",
    "copy_folder",
    "refusals_named",
    "remove_strays",
    "replace_folder",
    "sync",
    "whole_file",
    "write_whole",
]

CASES, VECTORS, MODEL = "cases.sqlite", "vectors.faiss", "model"  # the parts of an index


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's list of names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of `path` for writing, and rename it to `path` when the block ends.

    A reader sees the old bytes or the new ones. If the block raises an error, `path` stays as it is and the neighbour
    is removed. Raises OSError.
    """
    neighbour = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with neighbour.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            neighbour.unlink()
        raise
    sync(path.parent)


def write_whole(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file through `whole_file`, all at once or piece by piece. Raises OSError."""
    with whole_file(path) as file:
        file.writelines([data] if isinstance(data, bytes) else data)


def remove_strays(folder: Path) -> None:
    """Remove the temporary neighbours that a killed process left in a folder."""
    for file in folder.glob(f".*.{'[0-9a-f]' * 8}"):
        file.unlink()


def copy_folder(source: Path, target: Path) -> None:
    """Replace the target by a copy of a folder, synced to the disk."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    for folder, _, names in os.walk(target):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))


def replace_folder(new: Path, path: Path) -> None:
    """Move the folder `new` to its neighbour `path`, and remove the folder that was there. Raises OSError.

    Linux swaps two folders in one step (renameat2(2) with RENAME_EXCHANGE). Other systems, and some file systems,
    cannot; there the old folder is moved aside first, and for a moment nothing is at `path`.
    """
    aside = path.with_name(f".{path.name}.old")
    shutil.rmtree(aside, ignore_errors=True)  # left by a process that was killed
    if not path.exists() or not any(path.iterdir()):
        new.replace(path)  # rename(2) replaces an empty folder
    elif _swapped(new, path):
        new.replace(aside)
    else:
        path.replace(aside)
        try:
            new.replace(path)
        except OSError:
            aside.replace(path)
            raise
    sync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _swapped(first: Path, second: Path) -> bool:
    """Swap two folders; gives False if the system cannot."""
    if sys.platform != "linux":
        return False
    import ctypes

    at_fdcwd, rename_exchange = -100, 2  # from fcntl.h and linux/fs.h
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # since glibc 2.28 and musl 1.2.4
    paths = os.fsencode(first.absolute()), os.fsencode(second.absolute())
    return renameat2 is not None and renameat2(at_fdcwd, paths[0], at_fdcwd, paths[1], rename_exchange) == 0


@contextlib.contextmanager
def refusals_named(index: Path) -> Iterator[None]:
    """Turn an OSError inside into an IndexFailure that names the index."""
    try:
        yield
    except OSError as error:
        raise IndexFailure(f"the index {index} cannot be written: {error}") from error
