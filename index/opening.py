"""Opens an index for reading: checks its files, and notices if it is replaced meanwhile."""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from index.atomic import CASES, VECTORS
from index.checksums import SUMS, check_bytes
from index.errors import IndexBusy, IndexDamaged
from index.generation import Generation
from index.integrity import FileIdentity, file_identity, require_index, require_model
from index.lock import locks_work
from index.sqlite.reader import CaseReader

if TYPE_CHECKING:
    from index.milvus.store import MilvusStore
    from index.milvus.sync import RemoteGeneration

__all__ = ["ATTEMPTS", "OpenIndex", "open_index", "read_generation"]

ATTEMPTS = 20  # to open or search an index while other processes change it
CHECKED = 64 << 20  # bytes: a cases.sqlite up to this size is compared with its checksum
SMALL = 256 << 10  # bytes: the same for a file of the model


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """An index that is open: cases.sqlite, the generation as read, which file it was, and the collection in Milvus."""

    database: CaseReader
    generation: "Generation | RemoteGeneration"
    file: FileIdentity | None
    remote: "MilvusStore | None"


def open_index(path: Path) -> OpenIndex:
    """Open the index at a path, in its newest generation.

    Raises IndexMissing if there is none, IndexSchema if another version wrote it, IndexDamaged if its bytes are not
    those that were written, IndexBusy if it is replaced at every attempt, and MissingExtra without FAISS.
    """
    require_index(path)
    for _ in range(ATTEMPTS):
        file = file_identity(path / CASES)
        try:
            return _open(path, file)
        except IndexDamaged:
            if file == file_identity(path / CASES):
                raise
    raise IndexBusy(f"{path} is replaced faster than it can be opened; try again")


def _open(path: Path, file: FileIdentity | None) -> OpenIndex:
    """Open the index; if it is replaced meanwhile, it may look damaged."""
    # Without locks nothing can be changed there, and nobody need be kept from it.
    locked = all(locks_work(file) for file in (path / SUMS, path / VECTORS) if file.exists())
    database = CaseReader(path / CASES, "ro" if locked else "ro&immutable=1")
    with ExitStack() as stack:
        stack.enter_context(closing(database))
        with database.transaction():
            database.check()
            database.generation()  # SQLite holds its lock from here to the end of the transaction
            small = (path / CASES).stat().st_size <= CHECKED
            if small and not check_bytes(path, CASES, database.image()):
                database.verify()  # distinguishes a stale SHA256SUMS from damage
                if file != file_identity(path / CASES):
                    raise IndexDamaged(f"{path} was replaced meanwhile; open it again")
            require_model(path, database.metadata(), SMALL)
            if remote := _remote(database):
                stack.enter_context(remote)
            generation = read_generation(path, database, remote)
        stack.pop_all()
    return OpenIndex(database, generation, file, remote)


def _remote(database: CaseReader) -> "MilvusStore | None":
    """The Milvus collection of the index; None if its vectors are in vectors.faiss."""
    metadata = database.metadata()
    if not metadata["values"].get("store"):
        return None
    from index.milvus.sync import open_remote

    return open_remote(metadata)


def read_generation(path: Path, database: CaseReader, remote: "MilvusStore | None") -> "Generation | RemoteGeneration":
    """The newest generation, in a transaction."""
    if remote is None:
        return Generation.read(path / VECTORS, database)
    from index.milvus.sync import RemoteGeneration

    return RemoteGeneration.read(database, remote)
