"""Builds an index beside its path, resumably, and moves it there when it is complete."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import CASES, MODEL, VECTORS, copy_folder, refusals_named, remove_strays, replace_folder, sync
from index.case import Case
from index.checksums import SUMS, break_seal, seal
from index.closing import Closing
from index.errors import IndexBusy, IndexDamaged, IndexFailure, IndexSchema
from index.generation import make_vector_file
from index.lock import Lock
from index.sqlite.reader import Batch, CaseReader
from index.sqlite.writer import CaseWriter, now
from index.vectors.base import Demand, require_one_each

__all__ = ["IndexBuilder"]

JOURNAL = f"{CASES}-journal"  # SQLite's journal, left by a writer that was killed
BUILDING = "building"  # an empty file that marks a partial index, unlike an old one that is about to be removed

_PARTS = {CASES, JOURNAL, VECTORS, MODEL, SUMS, BUILDING}


class IndexBuilder(Closing):
    """A new index, written to the hidden neighbour `.NAME.partial` of its path until `finish` moves it there.

    Every `add` and `quarantine` is on the disk when it returns. If the context ends without `finish`, or the process
    dies, the next `start` with the same fingerprint goes on with the partial index.
    """

    def __init__(self, path: Path, model: Path, replace: bool, lock: Lock, database: CaseWriter) -> None:
        """`start` makes one."""
        self.path = path
        self._partial = _partial(path)
        self._model = model
        self._replace = replace
        self._lock = lock
        self._database = database
        self._dimension = int(database.metadata()["dimension"])

    @classmethod
    def start(
        cls, path: Path, *, model: Path, dimension: int, fingerprint: str, replace: bool = False
    ) -> "IndexBuilder":
        """Begin an index, or go on with a partial one.

        path: the folder of the new index. replace: whether an index that is there already gives way to the new one when
        that is finished. model: the folder to copy into the index. dimension: of the embeddings. fingerprint: equal if
        the same radiographs are encoded in the same way; a partial index with another fingerprint is removed.

        Raises IndexBusy if the path is taken or another process is building there.
        """
        path = path.resolve()  # behind a link, so that the neighbour is on the same file system
        with refusals_named(path):
            _require_free(path, replace)
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
            try:
                partial = _partial(path)
                database = _resume(partial, dimension, fingerprint) or _begin(partial, dimension, fingerprint)
            except BaseException:
                lock.release()
                raise
        return cls(path, model, replace, lock, database)

    def close(self) -> None:
        """Close the partial index and release its lock; the next `start` goes on with it."""
        self._database.close()
        self._lock.release()

    def done(self) -> set[str]:
        """The cases added so far."""
        return {case.case for case in self.cases()}

    def quarantined(self) -> dict[str, str]:
        """The cases set aside so far, each with its reason."""
        return self._database.quarantined()

    def add(
        self,
        cases: Sequence[Case],
        embeddings: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
    ) -> None:
        """Add n cases in one transaction, which is on the disk at the end. They are no longer set aside.

        embeddings: (n, D) unit rows. thumbnails: JPEG or PNG, one a case. logits: (n,) finite. Raises ValueError, and
        adds none, if one of them is invalid or a case was added already.
        """
        require_one_each(cases, embeddings, thumbnails, logits, self._dimension)
        with self._database.transaction(writing=True):
            self._database.add(cases, embeddings, thumbnails, logits)

    def quarantine(self, cases: Sequence[tuple[Case, str]]) -> None:
        """Set aside cases that cannot be indexed, each with its reason, in one transaction."""
        with self._database.transaction(writing=True):
            self._database.quarantine(cases)

    def cases(self) -> list[Case]:
        """All cases added so far, in row order."""
        return self._database.cases()

    def embeddings(self) -> NDArray[np.float32]:
        """(N, D) unit rows, in row order."""
        return self._database.vectors(self._dimension)[2]

    def logits(self) -> NDArray[np.float32]:
        """(N,), in row order."""
        return self._database.logits()

    def batches(self) -> Iterator[Batch]:
        """Everything of all cases added so far, in row order, about a thousand at a time."""
        return self._database.batches(self._dimension)

    def metadata(self, key: str) -> object:
        """The JSON value stored under a key, or None."""
        values: dict[str, object] = self._database.metadata()["values"]
        return values.get(key)

    def set_metadata(self, key: str, value: object) -> None:
        """Store a JSON value for `IndexReader.metadata`."""
        with self._database.transaction(writing=True):
            values = self._database.metadata()["values"]
            self._database.set_metadata(values=values | {key: value})

    def finish(self) -> None:
        """Complete the index, move it to its path in one step, replacing an old one, and close the build.

        Raises IndexBusy, and keeps the partial index, if the path was taken meanwhile.
        """
        with refusals_named(self.path):
            _require_free(self.path, self._replace)
            remove_strays(self._partial)
            break_seal(self._partial)  # written by a process that was killed before the move
            with self._database.transaction(writing=True):
                self._database.set_metadata(created=now())
            metadata = self._database.metadata()
            if metadata["values"].get("store"):
                from index.milvus.sync import fill

                fill(self._database)
            else:
                snapshot = make_vector_file(self._database, Demand(**metadata["values"].get("demand", {})))
                snapshot.write(self._partial / VECTORS, bytes.fromhex(metadata["identity"]))
            copy_folder(self._model, self._partial / MODEL)
            sync(self._partial)
            self._database.close()
            seal(self._partial)
            former = _metadata(self.path)
            replace_folder(self._partial, self.path)
            (self.path / BUILDING).unlink()
        if former.get("values", {}).get("store"):
            from index.milvus.sync import forget

            forget(former)
        self.close()

    def discard(self) -> None:
        """Remove the partial index, and close the build."""
        self._database.close()
        shutil.rmtree(self._partial)
        self.close()


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of the index at a path; empty if they cannot be read."""
    if not (path / CASES).is_file():
        return {}
    with contextlib.suppress(IndexFailure), contextlib.closing(CaseReader(path / CASES)) as database:
        return database.metadata()
    return {}


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _require_free(path: Path, replace: bool) -> None:
    """Raise IndexBusy unless the path is free, an empty folder, or an index that may be replaced."""
    if not path.exists():
        return
    if not path.is_dir():
        raise IndexBusy(f"{path} is a file; give a folder for the index")
    names = {entry.name for entry in path.iterdir()}
    others = sorted(name for name in names - _PARTS if not name.startswith("."))
    if others or (names and CASES not in names):
        foreign = others[0] if others else sorted(names)[0]
        raise IndexBusy(f"{path} holds {foreign}, which is not part of an index; give a new or empty folder")
    if names and not replace:
        raise IndexBusy(f"{path} holds an index already; add --replace to build it again, or give another folder")


def _lock(path: Path) -> Lock:
    try:
        return Lock(path.with_name(f".{path.name}.lock"))
    except BlockingIOError:
        raise IndexBusy(f"another process is building {path}; wait until it has finished, or end it") from None


def _resume(partial: Path, dimension: int, fingerprint: str) -> CaseWriter | None:
    """The partial index with this fingerprint, or None if there is none or it is damaged."""
    if not (partial / BUILDING).is_file() or not (partial / CASES).is_file():
        return None
    database = None
    try:
        database = CaseWriter(partial / CASES)
        with database.transaction():
            database.check()
            metadata = database.metadata()
            if (metadata["dimension"], metadata["fingerprint"]) == (dimension, fingerprint):
                database.cases()
                database.vectors(dimension)
                return database
    except (IndexDamaged, IndexSchema):  # a partial index is simply built again
        pass
    if database is not None:
        database.close()
    return None


def _begin(partial: Path, dimension: int, fingerprint: str) -> CaseWriter:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    database = CaseWriter.create(partial / CASES)
    with database.transaction(writing=True):
        identity = secrets.token_hex(16)
        database.set_metadata(identity=identity, dimension=dimension, fingerprint=fingerprint, created=now(), values={})
    (partial / BUILDING).touch()
    sync(partial)
    sync(partial.parent)
    return database
