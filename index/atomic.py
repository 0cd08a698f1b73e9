"""Files and folders that are written completely or not at all, even if the process dies or the power fails."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from index.errors import IndexFailure

__all__ = [
    "CASES",
    "MODEL",
    "MODEL_FOLDER",
    "PARTIAL",
    "VECTORS",
    "copy_folder",
    "leftovers",
    "refusals_named",
    "remove_strays",
    "sync",
    "whole_file",
    "write_whole",
]

CASES, VECTORS, MODEL = "cases.sqlite", "vectors.faiss", "model"  # the parts of an index
MODEL_FOLDER = re.compile(f"{MODEL}(-[0-9a-f]{{8}})?")  # the second form, if an older index there has another model
PARTIAL = ".partial"  # the folder in an index in which a new one is built


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
    with contextlib.ExitStack() as undo:
        undo.callback(neighbour.unlink, missing_ok=True)
        with neighbour.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
        undo.pop_all()
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


def leftovers(index: Path) -> list[Path]:
    """What killed processes left of an index: an unfinished build in its folder, and what earlier versions left beside.

    Each holds records of its own, which a change of the index does not reach.
    """
    beside = [index.with_name(f".{index.name}.{ending}") for ending in ("partial", "old")]
    return [folder for folder in (index / PARTIAL, *beside) if (folder / CASES).is_file()]


@contextlib.contextmanager
def refusals_named(index: Path) -> Iterator[None]:
    """Turn an OSError inside into an IndexFailure that names the index."""
    try:
        yield
    except OSError as error:
        raise IndexFailure(f"the index {index} cannot be written: {error}") from error
