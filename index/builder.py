"""Builds an index beside its path, resumably, and moves it there when it is complete."""

import contextlib
import hashlib
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import (
    CASES,
    MODEL,
    MODEL_FOLDER,
    PARTIAL,
    VECTORS,
    copy_folder,
    leftovers,
    refusals_named,
    remove_strays,
    sync,
)
from index.case import Case
from index.checksums import SUMS, break_seal, file_digests, seal
from index.closing import Closing
from index.errors import IndexBusy, IndexDamaged, IndexFailure, IndexSchema
from index.lock import Lock
from index.sqlite.reader import Batch, Extras
from index.sqlite.writer import CaseWriter, now
from index.vector_update import make_vector_file
from index.vectors.base import Demand, require_one_each

__all__ = ["IndexBuilder"]

JOURNAL = f"{CASES}-journal"  # SQLite's journal, left by a writer that was killed
# The names in an index's folder that are not hidden; lost+found is in every new volume.
_PARTS = {CASES, JOURNAL, VECTORS, SUMS, "lost+found"}


class IndexBuilder(Closing):
    """A new index, written to `PARTIAL` in its folder until `finish` puts it in the place of an older one, or of none.

    Every `add` and `quarantine` is on the disk when it returns. If the context ends without `finish`, or the process
    dies, the next `start` with the same fingerprint goes on with the partial index. The folder may be a mount point.
    """

    def __init__(self, path: Path, model: Path, replace: bool, lock: Lock, database: CaseWriter) -> None:
        """`start` makes one."""
        self.path = path
        self._partial = path / PARTIAL
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
        path = path.resolve()  # behind a link, so that one folder has one path
        with refusals_named(path):
            _require_free(path, replace)
            path.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                lock = Lock(path)  # which also shows whether the folder can be written, before anything is encoded
                stack.callback(lock.release)
                _require_free(path, replace)
                for folder in leftovers(path):
                    if folder.parent != path:  # an earlier version's, in another format
                        shutil.rmtree(folder, ignore_errors=True)
                partial = path / PARTIAL
                database = _resume(partial, dimension, fingerprint) or _begin(partial, dimension, fingerprint)
                stack.pop_all()
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
        extras: Extras | None = None,
    ) -> None:
        """Add n cases in one transaction, which is on the disk at the end. They are no longer set aside.

        embeddings: (n, D) unit rows. thumbnails: JPEG or PNG, one a case. logits: (n,) finite. extras: of
        `index.sqlite.schema.EXTRAS`. Raises ValueError, and adds none, if one of them is invalid or a case was added
        already.
        """
        require_one_each(cases, embeddings, thumbnails, logits, self._dimension)
        with self._database.transaction(writing=True):
            self._database.add(cases, embeddings, thumbnails, logits, extras)

    def add_missing(self, batch: Batch, known: Collection[str]) -> None:
        """Add those cases of a batch of another index whose names are not `known`. Raises ValueError as `add` does."""
        new = [row for row, case in enumerate(batch.cases) if case.case not in known]
        if new:
            chosen = batch.select(new)
            self.add(chosen.cases, chosen.embeddings, chosen.thumbnails, chosen.logits, chosen.extras)

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

    def extra(self, table: str) -> list[bytes]:
        """The bytes of every case in one of the tables `index.sqlite.schema.EXTRAS`, in row order; b"" for none."""
        return self._database.extra_of_all(table)

    def forget(self, names: Collection[str]) -> None:
        """Remove cases that were added, so that they can be added again."""
        with self._database.transaction(writing=True):
            self._database.remove(self._database.rows_where("case", names).tolist())
            self._database.forget_removed()

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
        """Complete the index, put it in its folder in one step, replacing an old one, and close the build.

        Raises IndexBusy, and keeps the partial index, if the folder was taken meanwhile.
        """
        with refusals_named(self.path):
            _require_free(self.path, self._replace)
            remove_strays(self.path)
            model = self._copy_model()
            with self._database.transaction(writing=True):
                about = {"folder": model.name, "files": file_digests(self._model)}
                self._database.set_metadata(created=now(), model=about)
            metadata, generation = self._database.metadata(), self._database.generation()
            if metadata["values"].get("store"):
                from index.milvus.sync import fill

                fill(self._database)
            else:
                snapshot = make_vector_file(self._database, Demand(**metadata["values"].get("demand", {})))
                snapshot.write(self._partial / VECTORS, bytes.fromhex(metadata["identity"]))
            self._database.close()
            former = self._put_in_place()
            seal(model, generation)
            for folder in self.path.iterdir():
                if folder == self._partial or (MODEL_FOLDER.fullmatch(folder.name) and folder != model):
                    shutil.rmtree(folder)
        if former.get("values", {}).get("store"):
            from index.milvus.sync import forget

            forget(former)
        self.close()

    def discard(self) -> None:
        """Remove the partial index, and close the build."""
        self._database.close()
        shutil.rmtree(self._partial)
        self.close()
        with contextlib.suppress(OSError):
            self.path.rmdir()  # if nothing is in it

    def _copy_model(self) -> Path:
        """Copy the model into the index; gives the folder.

        If an older index there has another model, the folder gets another name: the old index stays whole until its
        cases.sqlite is replaced.
        """
        model = self.path / MODEL
        files = file_digests(self._model)
        if (self.path / CASES).exists() and file_digests(model) != files:
            model = self.path / f"{MODEL}-{hashlib.sha256(repr(files).encode()).hexdigest()[:8]}"
        if not model.is_dir() or file_digests(model) != files:
            copy_folder(self._model, self._partial / MODEL)
            shutil.rmtree(model, ignore_errors=True)
            (self._partial / MODEL).replace(model)
        return model

    def _put_in_place(self) -> dict[str, Any]:
        """Move the files of the partial index into the folder; gives the metadata of the old index.

        Until cases.sqlite is moved, at the end, the folder holds the old index: its readers ignore a vectors.faiss that
        is not its own.
        """
        former = _metadata(self.path)  # SQLite first rolls back what a killed writer left
        (self.path / JOURNAL).unlink(missing_ok=True)  # of a cases.sqlite that is damaged
        break_seal(self.path)
        (self.path / VECTORS).unlink(missing_ok=True)
        if (self._partial / VECTORS).exists():
            (self._partial / VECTORS).replace(self.path / VECTORS)
        sync(self.path)
        (self._partial / CASES).replace(self.path / CASES)
        sync(self.path)
        return former


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of the index at a path; empty if they cannot be read."""
    if not (path / CASES).is_file():
        return {}
    with contextlib.suppress(IndexFailure), contextlib.closing(CaseWriter(path / CASES)) as database:
        return database.metadata()
    return {}


def _require_free(path: Path, replace: bool) -> None:
    """Raise IndexBusy unless the path is free, an empty folder, or an index that may be replaced."""
    if not path.exists():
        return
    if not path.is_dir():
        raise IndexBusy(f"{path} is a file; give a folder for the index")
    names = {entry.name for entry in path.iterdir()}
    others = sorted(
        name for name in names if not (name in _PARTS or name.startswith(".") or MODEL_FOLDER.fullmatch(name))
    )
    if others or ({VECTORS, MODEL} & names and not {CASES, PARTIAL} & names):
        foreign = others[0] if others else sorted(names)[0]
        raise IndexBusy(f"{path} holds {foreign}, which is not part of an index; give a new or empty folder")
    if CASES in names and not replace:
        raise IndexBusy(f"{path} holds an index already; add --replace to build it again, or give another folder")


def _resume(partial: Path, dimension: int, fingerprint: str) -> CaseWriter | None:
    """The partial index with this fingerprint, or None if there is none or it is damaged."""
    if not (partial / CASES).is_file():
        return None
    # A damaged one is simply built again.
    with contextlib.suppress(IndexDamaged, IndexSchema), contextlib.ExitStack() as stack:
        database = stack.enter_context(contextlib.closing(CaseWriter(partial / CASES)))
        with database.transaction():
            database.check()
            metadata = database.metadata()
            if (metadata["dimension"], metadata["fingerprint"]) == (dimension, fingerprint):
                database.cases()
                database.vectors(dimension)
                stack.pop_all()
                return database
    return None


def _begin(partial: Path, dimension: int, fingerprint: str) -> CaseWriter:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    database = CaseWriter.create(partial / CASES)
    with database.transaction(writing=True):
        identity = secrets.token_hex(16)
        database.set_metadata(identity=identity, dimension=dimension, fingerprint=fingerprint, created=now(), values={})
    sync(partial)
    sync(partial.parent)
    return database
