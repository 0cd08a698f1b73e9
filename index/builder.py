"""Building an index: beside its place, resumable, and there in whole or not at all."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import CASES, MODEL, VECTORS, copy_folder, refusals_named, remove_strays, replace_folder, sync
from index.case import Case
from index.checksums import SUMS, break_seal, seal
from index.errors import IndexBusy, IndexDamaged, IndexFailure, IndexSchema
from index.generation import make_vector_file
from index.lock import Lock
from index.sqlite.reader import Batch, CaseReader
from index.sqlite.writer import CaseWriter, now
from index.vectors.base import Demand, require_one_each, require_unit_rows

__all__ = ["IndexBuilder"]

JOURNAL = f"{CASES}-journal"  # SQLite's, left by a process that was killed while it changed the index
BUILDING = "building"  # an empty file that tells a partial index from an old one that is about to be removed

_PARTS = {CASES, JOURNAL, VECTORS, MODEL, SUMS, BUILDING}


class IndexBuilder:
    """A new index, written to the hidden neighbour `.NAME.partial` of its place until `finish` moves it there.

    Every `add` and `quarantine` is on the disk when it returns. Leaving the context without `finish`, or dying, keeps
    the partial index for the next `start` with the same fingerprint.
    """

    def __init__(self, place: Path, model: Path, replace: bool, lock: Lock, database: CaseWriter) -> None:
        """`start` makes one."""
        self.place = place
        self._partial = _partial(place)
        self._model = model
        self._replace = replace
        self._lock = lock
        self._database = database
        self._dimension = int(database.metadata()["dimension"])

    @classmethod
    def start(
        cls, place: Path, *, model: Path, dimension: int, fingerprint: str, replace: bool = False
    ) -> "IndexBuilder":
        """Begin an index, or go on with one that was begun.

        place: the folder that is to be the index; where it holds one already, `replace` says that the new one takes its
        place when it is finished. model: the folder copied into the index. dimension: of the embeddings. fingerprint:
        equal where the same radiographs are encoded in the same way; a partial index with another one is thrown away.

        Raises IndexBusy where the place is taken, or another process is building there.
        """
        place = place.resolve()  # behind a link, so that the neighbour is on the same file system
        with refusals_named(place):
            _require_free(place, replace)
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock(place)
            try:
                partial = _partial(place)
                database = _resume(partial, dimension, fingerprint) or _begin(partial, dimension, fingerprint)
            except BaseException:
                lock.release()
                raise
        return cls(place, model, replace, lock, database)

    def __enter__(self) -> "IndexBuilder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the partial index; what was added stays for the next `start`."""
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
        """Add n cases in one transaction that is on the disk at the end; a case set aside before no longer is.

        embeddings: (n, D) unit rows. thumbnails: JPEG or PNG, one a case. logits: (n,) finite. Raises ValueError where
        one of them does not fit, or a case was added already, and adds none.
        """
        require_unit_rows(embeddings, self._dimension)
        require_one_each(cases, embeddings, thumbnails, logits)
        with self._database.transaction(writing=True):
            self._database.add(cases, embeddings, thumbnails, logits)

    def quarantine(self, cases: Sequence[tuple[Case, str]]) -> None:
        """Set cases aside that cannot be indexed, each with the reason, in one transaction."""
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
        """A JSON value that was stored under a key; None where there is none."""
        values: dict[str, object] = self._database.metadata()["values"]
        return values.get(key)

    def set_metadata(self, key: str, value: object) -> None:
        """Store a JSON value for `IndexReader.metadata`."""
        with self._database.transaction(writing=True):
            values = self._database.metadata()["values"]
            self._database.set_metadata(values=values | {key: value})

    def finish(self) -> None:
        """Make the index whole and move it to its place, where it appears at once; an old one goes. Closes the build.

        Raises IndexBusy where the place was taken meanwhile; the partial index then stays.
        """
        with refusals_named(self.place):
            _require_free(self.place, self._replace)
            remove_strays(self._partial)
            break_seal(self._partial)  # of a process that was killed in this moment
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
            former = _metadata(self.place)
            replace_folder(self._partial, self.place)
            (self.place / BUILDING).unlink()
        if former.get("values", {}).get("store"):
            from index.milvus.sync import forget

            forget(former)
        self.close()

    def discard(self) -> None:
        """Remove the partial index, and close the build."""
        self._database.close()
        shutil.rmtree(self._partial)
        self.close()


def _metadata(place: Path) -> dict[str, Any]:
    """The metadata of the index at a place; nothing where none can be read."""
    if not (place / CASES).is_file():
        return {}
    with contextlib.suppress(IndexFailure), contextlib.closing(CaseReader(place / CASES)) as database:
        return database.metadata()
    return {}


def _partial(place: Path) -> Path:
    return place.with_name(f".{place.name}.partial")


def _require_free(place: Path, replace: bool) -> None:
    """Raise IndexBusy unless at the place is nothing, an empty folder, or an index that may be replaced."""
    if not place.exists():
        return
    if not place.is_dir():
        raise IndexBusy(f"{place} is a file; give a folder for the index")
    names = {entry.name for entry in place.iterdir()}
    others = sorted(name for name in names - _PARTS if not name.startswith("."))
    if others or (names and CASES not in names):
        found = others[0] if others else sorted(names)[0]
        raise IndexBusy(f"{place} holds {found}, which is no part of an index; give a new or empty folder")
    if names and not replace:
        raise IndexBusy(f"{place} holds an index already; add --replace to build it again, or give another folder")


def _lock(place: Path) -> Lock:
    try:
        return Lock(place.with_name(f".{place.name}.lock"))
    except BlockingIOError:
        raise IndexBusy(f"another process is building {place}; wait until it has finished, or end it") from None


def _resume(partial: Path, dimension: int, fingerprint: str) -> CaseWriter | None:
    """The partial index that was begun with this fingerprint, if there is one and it is whole."""
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
    except (IndexDamaged, IndexSchema):  # nobody has seen this index yet: it is simply built again
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
