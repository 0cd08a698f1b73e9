"""An index opened for reading: `IndexReader.open(path).search(embeddings, k)`."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import CASES, MODEL, VECTORS
from index.case import Case
from index.checksums import check_bytes, sealed, verify_seal
from index.errors import IndexBusy, IndexDamaged, IndexFailure, IndexMissing
from index.generation import Generation, require_filter
from index.sqlite.reader import Batch, CaseReader
from index.sqlite.schema import SCHEMA
from index.vectors.base import require_unit_rows
from index.vectors.vector_file import VectorFile

if TYPE_CHECKING:
    from index.milvus.store import MilvusStore
    from index.milvus.sync import RemoteGeneration

__all__ = ["Hit", "IndexReader", "require_index"]

CHECKED = 64 << 20  # bytes: up to here every byte of cases.sqlite is compared with its checksum when it is opened
REMEMBERED = 50_000  # cases that were shown, so that SQLite need not be asked again
ATTEMPTS = 20  # to search while somebody changes the index

_File = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A study found. `similarity` is the cosine, -1 to 1 to within rounding; `case` is the study's nearest case."""

    similarity: float
    case: Case


class IndexReader:
    """An index for reading. Several threads may use it.

    Each search is of the index as it is then, whole: what another process adds, removes or relabels is there for the
    next one. `cases`, `embeddings` and `logits` are of one state, that of the last search or `refresh`.
    """

    def __init__(
        self,
        path: Path,
        database: CaseReader,
        state: "Generation | RemoteGeneration",
        file: _File,
        remote: "MilvusStore | None",
    ) -> None:
        """`open` makes one."""
        self.path = path
        self.model = path / MODEL
        self._database = database
        self._state = state
        self._file = file
        self._remote = remote
        self._metadata = database.metadata()

    @classmethod
    def open(cls, path: Path) -> "IndexReader":
        """Open the index in a folder.

        Raises IndexMissing where there is none, IndexSchema where another version wrote it, IndexDamaged where bytes
        are not those written, and MissingExtra without FAISS.
        """
        require_index(path)
        for _ in range(ATTEMPTS):
            file = _file(path / CASES)
            try:
                return cls._open(path, file)
            except IndexDamaged:
                if file == _file(path / CASES):
                    raise
        raise IndexBusy(f"{path} is replaced faster than it can be opened; try again")

    @classmethod
    def _open(cls, path: Path, file: "_File") -> "IndexReader":
        """Open the index of that file; one that is replaced meanwhile may look damaged."""
        database = CaseReader(path / CASES)
        remote = None
        try:
            with database.transaction():
                database.check()
                database.generation()  # from here on, nobody changes the file until the transaction ends
                small = (path / CASES).stat().st_size <= CHECKED
                if small and not check_bytes(path, CASES, database.image()):
                    raise IndexDamaged(
                        f"{path / CASES} is damaged: it does not have its checksum; "
                        "build the index again, or restore it from a copy"
                    )
                remote = _remote(database)
                state = _state(path, database, remote)
            return cls(path, database, state, file, remote)
        except BaseException:
            if remote:
                remote.close()
            database.close()
            raise

    def __enter__(self) -> "IndexReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._remote:
            self._remote.close()
        self._database.close()

    def replaced(self) -> bool:
        """Whether another index is at this place than was opened. One that is gone still answers."""
        file = _file(self.path / CASES)
        return file is not None and file != self._file

    def refresh(self) -> bool:
        """Go over to the state that the index has now; gives whether it was another one."""
        if self._database.generation() == self._state.generation:
            return False
        with self._database.transaction():
            self._state = _state(self.path, self._database, self._remote)
            self._metadata = self._database.metadata()
        return True

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
        ties in the order in which the cases were indexed. A study's hit is its nearest matching case. Raises ValueError
        for embeddings of another shape or length than unit, k below 1, an unknown field, or exclusions not one a query.
        """
        queries = np.ascontiguousarray(embeddings, dtype=np.float32)
        require_unit_rows(queries, int(self._metadata["dimension"]))
        if k < 1:
            raise ValueError(f"k is the number of studies to find, at least 1, not {k}")
        for field, values in (where or {}).items():
            require_filter(field, values)
        for _ in range(ATTEMPTS):
            state = self._state
            answers, generation = state.search(queries, k, where or {}, exclude_patients, self._database)
            cases = self._cases(state, [row for answer in answers for _, row in answer], generation)
            if cases is not None:
                found = iter(cases)
                return [[Hit(similarity, next(found)) for similarity, _ in answer] for answer in answers]
            self.refresh()
        raise IndexBusy(f"{self.path} changes faster than it can be searched; try again")

    def _cases(
        self, state: "Generation | RemoteGeneration", rows: Sequence[int], generation: int | None
    ) -> list[Case] | None:
        """The cases of the rows; None where the index is not in this state any more.

        generation: that of the index when it was last asked in this search, if it was.
        """
        known = {row: case for row in rows if (case := state.shown.get(row)) is not None}  # another thread may clear it
        missing = [row for row in rows if row not in known]
        found: dict[int, Case] = {}
        if missing:
            generation, found = self._database.records(missing)
        elif generation is None:
            generation = self._database.generation()
        if generation != state.generation:
            return None
        if missing:
            if len(found) < len(set(missing)):
                raise IndexDamaged(
                    f"{self.path / CASES} is damaged: it lacks a case that {VECTORS} has; build it again"
                )
            known |= found
            state.shown.update(found)
            if len(state.shown) > REMEMBERED:
                state.shown.clear()
        return [known[row] for row in rows]

    def cases(self) -> list[Case]:
        """All cases, in row order. Raises IndexBusy where the index was changed since the last search or `refresh`."""
        with self._unchanged():
            return self._database.cases()

    def embeddings(self) -> NDArray[np.float32]:
        """(N, D) unit rows in row order, bit for bit as they were added."""
        return self._state.embeddings()

    def logits(self) -> NDArray[np.float32]:
        """(N,) the classifier's uncalibrated logits in row order. Raises IndexBusy as `cases` does."""
        with self._unchanged():
            return self._database.logits()

    def batches(self) -> Iterator[Batch]:
        """Everything of all cases, in row order, about a thousand at a time. Raises IndexBusy as `cases` does."""
        with self._unchanged():
            yield from self._database.batches(int(self._metadata["dimension"]))

    def thumbnail(self, case: str) -> bytes | None:
        """The picture stored with a case, JPEG or PNG; None where there is no such case, or no longer."""
        return self._database.thumbnail(case)

    def embedding(self, case: str) -> NDArray[np.float32] | None:
        """(D,) of unit length, bit for bit as it was added; None where there is no such case, or no longer."""
        return self._database.embedding(case)

    def counts(self, field: str) -> dict[str, int]:
        """How many cases have each value of a field of `Case`. Raises ValueError for an unknown field."""
        require_filter(field, [])
        return self._database.counts(field)

    def set_aside(self) -> list[tuple[Case, str]]:
        """What could not be read when the index was built, with the reasons; labels are not kept."""
        return self._database.set_aside()

    def find(self, field: str, values: Collection[str]) -> list[Case]:
        """The cases whose field is one of the values, in row order. Raises ValueError for an unknown field."""
        require_filter(field, values)
        return list(self._database.cases_where(field, values).values())

    def find_digest(self, digest: str) -> list[Case]:
        """The cases whose file had these bytes: its SHA-256 in hex. None for ""."""
        return self.find("digest", [digest]) if digest else []

    def size(self) -> tuple[int, int]:
        """How many cases and studies there are, counted in memory."""
        return self._state.count(), self._state.count_studies()

    def info(self) -> dict[str, object]:
        """Counts, and where the index stands now."""
        self.refresh()
        cases, studies = self.size()
        return {
            "cases": cases,
            "studies": studies,
            "patients": self._database.distinct("patient"),
            "parts": self._database.counts("part"),
            "labels": {"normal": 0, "abnormal": 0} | self._database.counts("label"),
            "quarantined": len(self._database.quarantined()),
            "store": self._state.store.describe(),
            "generation": self._state.generation,
            "schema": SCHEMA,
            "created": self._metadata["created"],
            "sealed": sealed(self.path),
        }

    def history(self) -> list[dict[str, Any]]:
        """What was done to the index, oldest first, one entry a transaction.

        Each has "generation", "at" (UTC), "action" ("add", "merge", "remove", "relabel" or "compact"),
        "detail" and "cases"
        afterwards.
        """
        return self._database.history()

    def verify(self) -> bool:
        """Read every byte, compare it with its checksum, and vectors.faiss or Milvus with cases.sqlite.

        Gives whether every byte of every file was covered: False where the index was changed and not sealed again, so
        that bytes of cases.sqlite that mean nothing could not be checked. Raises IndexDamaged where something is not
        what was written.
        """
        whole = sealed(self.path)
        with self._database.transaction():
            self._database.verify()
            if self._remote:
                from index.milvus.sync import require_same

                require_same(self._database, self._remote)
            else:
                _require_same(self.path, self._database)
            if whole and sealed(self.path):
                verify_seal(self.path)
        return whole and sealed(self.path)

    def metadata(self, key: str) -> object | None:
        """A JSON value stored when the index was built, such as "rules" or "collection"; None where none was."""
        value: object | None = self._metadata["values"].get(key)
        return value

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        with self._database.transaction():
            if self._database.generation() != self._state.generation:
                raise IndexBusy(f"{self.path} was changed meanwhile; do it again")
            yield


def _file(path: Path) -> _File:
    """Which file is at the path, whatever is in it; None where none is."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remote(database: CaseReader) -> "MilvusStore | None":
    """The collection that holds the vectors of the index, where that is in Milvus."""
    metadata = database.metadata()
    if not metadata["values"].get("store"):
        return None
    from index.milvus.sync import open_remote

    return open_remote(metadata)


def _state(path: Path, database: CaseReader, remote: "MilvusStore | None") -> "Generation | RemoteGeneration":
    """What the index holds now, in a transaction."""
    if remote is None:
        return Generation.read(path / VECTORS, database)
    from index.milvus.sync import RemoteGeneration

    return RemoteGeneration.read(database, remote)


def _require_same(path: Path, database: CaseReader) -> None:
    """Raise IndexDamaged where vectors.faiss has another vector than cases.sqlite; in a transaction."""
    metadata = database.metadata()
    snapshot = VectorFile.read(path / VECTORS, bytes.fromhex(metadata["identity"]), thorough=True)
    if snapshot is None:
        return
    rows, _, truth = database.vectors(metadata["dimension"])
    there = rows <= snapshot.last
    places = np.searchsorted(snapshot.rows, rows[there])
    if not (
        np.array_equal(snapshot.rows[places], rows[there])
        and np.array_equal(snapshot.vectors[places].view(np.int32), truth[there].view(np.int32))
    ):
        raise IndexDamaged(
            f"{path / VECTORS} is damaged; delete that file; the next change of the index writes it again"
        )


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
