"""An index opened for reading: `IndexFolder.open(path).search(embeddings, k)`."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from index.database import SCHEMA, Database
from index.errors import IndexDamaged, IndexFailure, IndexMissing
from index.ranking import nearest_studies
from index.records import Records
from index.vectors import VectorStore, by_exclusion, require_unit_rows

__all__ = ["CASES", "MODEL", "VECTORS", "Hit", "IndexFolder", "require_index"]

_File = tuple[int, int] | None

CASES, VECTORS, MODEL = "cases.sqlite", "vectors.faiss", "model"


@dataclass(frozen=True, slots=True)
class Hit:
    """A study found. `similarity` is the cosine, -1 to 1 to within rounding; `case` is the study's nearest case."""

    similarity: float
    case: Case


class IndexFolder:
    """An index as it was when it was opened. Several threads may use it."""

    def __init__(
        self, path: Path, database: Database, records: Records, store: VectorStore, *, generation: int, file: _File
    ) -> None:
        """`open` makes one."""
        self.path = path
        self.model = path / MODEL
        self._database = database
        self._records = records
        self._store = store
        self._generation = generation
        self._file = file
        self._metadata = database.metadata()

    @classmethod
    def open(cls, path: Path) -> "IndexFolder":
        """Open the index in a folder.

        Raises IndexMissing where there is none, IndexSchema where another version wrote it, IndexDamaged where bytes
        are not those written, and MissingExtra without FAISS.
        """
        require_index(path)
        file = _file(path / CASES)  # before it is opened: one that is replaced meanwhile has changed
        database = Database(path / CASES, "ro")
        try:
            with database.transaction():
                database.check()
                records = Records(database.rows())
                store = _vectors(path / VECTORS, database)
                return cls(path, database, records, store, generation=database.generation(), file=file)
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> "IndexFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def changed(self) -> bool:
        """Whether the index at this place is another one than was opened: changed since, or replaced.

        One that is gone has not changed: what was opened still answers.
        """
        file = _file(self.path / CASES)
        return file is not None and (file != self._file or self._database.generation() != self._generation)

    def search(
        self,
        embeddings: NDArray[np.float32],
        k: int,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        exclude_patients: Sequence[Collection[str]] | None = None,
    ) -> list[list[Hit]]:
        """The k nearest studies of each query.

        embeddings: (Q, D) unit rows. where: field of `Case` to the values allowed, the label as "normal" or "abnormal".
        exclude_patients: for each query the patients whose cases it must not find.

        Gives for each query min(k, studies with a case that matches) hits, at most one a study, the most similar first;
        ties in the order of the studies' texts. A study's hit is its nearest matching case. Raises ValueError for
        embeddings of another shape or length than unit, k below 1, an unknown field, or exclusions not one a query.
        """
        queries = np.ascontiguousarray(embeddings, dtype=np.float32)
        require_unit_rows(queries, int(self._metadata["dimension"]))
        if k < 1:
            raise ValueError(f"k is the number of studies to find, at least 1, not {k}")
        matching = self._records.matching(where) if where else None
        hits: list[list[Hit]] = [[] for _ in queries]
        for patients, members in by_exclusion(exclude_patients, len(queries)).items():
            allowed = self._allowed(matching, patients)
            answers = nearest_studies(self._store, queries[members], k, self._records.studies, allowed)
            for query, answer in zip(members, answers, strict=True):
                hits[query] = [Hit(similarity, self._records.case(position)) for similarity, position in answer]
        return hits

    def _allowed(self, matching: NDArray[np.bool_] | None, patients: frozenset[str]) -> NDArray[np.bool_] | None:
        if not patients:
            return matching
        others = ~self._records.matching({"patient": patients})
        return others if matching is None else matching & others

    def cases(self) -> list[Case]:
        """All cases, in row order."""
        return self._records.cases()

    def embeddings(self) -> NDArray[np.float32]:
        """(N, D) unit rows in row order, bit for bit as they were added."""
        return self._store.take(np.arange(len(self._records)))

    def logits(self) -> NDArray[np.float32]:
        """(N,) the classifier's uncalibrated logits in row order."""
        return self._records.logits()

    def thumbnail(self, case: str) -> bytes | None:
        """The picture stored with a case, JPEG or PNG; None where there is no such case, or no longer."""
        found = self._records.find("case", case)
        return self._database.thumbnail(self._records.row(found[0])) if found else None

    def find_digest(self, digest: str) -> list[Case]:
        """The cases whose file had these bytes: its SHA-256 in hex. None for ""."""
        return [self._records.case(position) for position in self._records.find("digest", digest)] if digest else []

    def info(self) -> dict[str, object]:
        """Counts, and where the index stands."""
        labels = {"normal": 0, "abnormal": 0} | self._records.counts("label")
        return {
            "cases": len(self._records),
            "studies": len(self._records.counts("study")),
            "patients": len(self._records.counts("patient")),
            "parts": self._records.counts("part"),
            "labels": labels,
            "quarantined": len(self._database.quarantined()),
            "store": self._store.describe(),
            "generation": self._generation,
            "schema": SCHEMA,
            "created": self._metadata["created"],
        }

    def history(self) -> list[dict[str, Any]]:
        """What was done to the index, oldest first, one entry a transaction.

        Each has "generation", "at" (UTC), "action" ("add", "remove" or "relabel"), "detail" and "cases" afterwards.
        """
        return self._database.history()

    def verify(self) -> None:
        """Read every byte of records, embeddings, thumbnails and vectors, and compare vectors.faiss with cases.sqlite.

        Raises IndexDamaged where one of them is not what was written. Opening has read records and vectors already.
        """
        with self._database.transaction():
            self._database.structure()
            if self._database.generation() == self._generation:
                truth = self._database.embeddings(int(self._metadata["dimension"]))
                if truth.tobytes() != self.embeddings().tobytes():
                    raise IndexDamaged(
                        f"{self.path / VECTORS} is damaged; delete that one file, and it is made again from {CASES}"
                    )

    def metadata(self, key: str) -> object | None:
        """A JSON value stored when the index was built, such as "rules" or "collection"; None where none was."""
        value: object | None = self._metadata["values"].get(key)
        return value


def _file(path: Path) -> _File:
    """Which file is at the path, whatever is in it; None where none is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def require_index(path: Path) -> None:
    """Raise IndexMissing, IndexDamaged or IndexFailure where the folder holds no index that could be opened."""
    try:
        names = {entry.name for entry in path.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        names = set()
    except OSError as error:
        raise IndexFailure(f"{path} cannot be read: {error.strerror}") from error
    if CASES not in names and names & {VECTORS, MODEL}:
        raise IndexDamaged(f"{path / CASES} is missing; build the index again, or restore it from a copy")
    if CASES not in names:
        raise IndexMissing(f"no index at {path}; build one with: mura-search index build DATA --index {path}")


def _vectors(path: Path, database: Database) -> VectorStore:
    """The vectors from vectors.faiss, or, where that is missing or of another generation, from cases.sqlite."""
    from index.faiss_store import FaissFlat  # not before it is needed: it takes longer to import than all the rest

    metadata = database.metadata()
    identity, generation = bytes.fromhex(metadata["identity"]), database.generation()
    store = FaissFlat.read(path, identity, generation)
    if store is None:
        store = FaissFlat.of(database.embeddings(metadata["dimension"]))
        with contextlib.suppress(OSError):  # in a folder that may only be read, the vectors stay in memory
            store.write(path, identity, generation)
    return store
