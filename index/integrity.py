"""Whether an index folder holds what it should: its files, its model, and the same vectors in both files."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from index.atomic import CASES, MODEL, MODEL_FOLDER, PARTIAL, VECTORS
from index.errors import IndexDamaged, IndexFailure, IndexMissing
from index.sqlite.reader import CaseReader
from index.vectors.vector_file import VectorFile

__all__ = ["FileIdentity", "file_identity", "model_folder", "require_index", "require_model", "require_same_vectors"]

FileIdentity = tuple[int, int]
"""The device and inode of a file, which another file in its place does not have."""


def require_index(path: Path) -> None:
    """Raise IndexMissing, IndexDamaged or IndexFailure if there is no index at the path."""
    try:
        names = {entry.name for entry in path.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        names = set()
    except OSError as error:
        raise IndexFailure(f"{path} cannot be read: {error.strerror}") from error
    if CASES not in names and PARTIAL in names:
        raise IndexMissing(f"{path} holds an unfinished build; the same mura-search index build continues it")
    if CASES not in names and names & {VECTORS, MODEL}:
        raise IndexDamaged(f"{path / CASES} is missing; build the index again, or restore it from a copy")
    if CASES not in names:
        raise IndexMissing(f"no index at {path}; build one with: mura-search index build DATA --index {path}")


def file_identity(path: Path) -> FileIdentity | None:
    """The identity of the file at the path; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def model_folder(metadata: Mapping[str, Any]) -> str:
    """The name of the folder with the model that encoded an index."""
    name = str(metadata.get("model", {}).get("folder", MODEL))
    return name if MODEL_FOLDER.fullmatch(name) else MODEL


def require_model(path: Path, metadata: Mapping[str, Any], limit: float = math.inf) -> None:
    """Raise IndexDamaged unless each file of the model, of up to `limit` bytes, has the checksum in cases.sqlite."""
    model = path / model_folder(metadata)
    for name, digest in metadata.get("model", {}).get("files", {}).items():
        try:
            file = model / name
            same = file.stat().st_size > limit or hashlib.sha256(file.read_bytes()).hexdigest() == digest
        except OSError:
            same = False
        if not same:
            raise IndexDamaged(
                f"{model / name} is damaged or missing: it does not have its checksum; build the index again, or "
                "restore the file from a copy"
            )


def require_same_vectors(path: Path, database: CaseReader) -> None:
    """Raise IndexDamaged if vectors.faiss has another vector than cases.sqlite; in a transaction."""
    metadata = database.metadata()
    snapshot = VectorFile.read(path / VECTORS, bytes.fromhex(metadata["identity"]), thorough=True)
    if snapshot is None:
        return
    rows, _, truth = database.vectors(metadata["dimension"])
    there = rows <= snapshot.last
    positions = np.searchsorted(snapshot.rows, rows[there])
    if not (
        np.array_equal(snapshot.rows[positions], rows[there])
        and np.array_equal(snapshot.vectors[positions].view(np.int32), truth[there].view(np.int32))
    ):
        raise IndexDamaged(
            f"{path / VECTORS} is damaged; delete that file; the next change of the index writes it again"
        )
