"""An index opened for reading: `IndexReader.open(path).search(embeddings, k)`."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.atomic import CASES
from index.case import Case, Where, require_filter
from index.checksums import file_digests, sealed, verify_seal
from index.closing import Closing
from index.errors import IndexBusy, IndexDamaged
from index.filed import Filed, filed_changes
from index.hits import Hit, read_hits
from index.integrity import file_identity, model_folder, require_model, require_same_vectors
from index.opening import ATTEMPTS, OpenIndex, open_index, read_generation
from index.sqlite.reader import Batch, CaseReader
from index.vectors.base import require_unit_rows

__all__ = ["IndexReader"]

LONG_READS = 5  # attempts to read everything

T = TypeVar("T")


class IndexReader(Closing):
    """An index for reading. Several threads may use it.

    Each search sees one whole generation, the newest: it includes what other processes added, removed and relabelled.
    `cases`, `embeddings` and `logits` are of the generation of the last search or `refresh`.
    """

    def __init__(self, path: Path, index: OpenIndex) -> None:
        """`open` makes one."""
        self.path = path
        self._database = index.database
        self._generation = index.generation
        self._file = index.file
        self._remote = index.remote
        self._metadata = self._database.metadata()
        self.model = path / model_folder(self._metadata)

    @classmethod
    def open(cls, path: Path) -> "IndexReader":
        """Open the index at a path.

        Raises IndexMissing if there is none, IndexSchema if another version wrote it, IndexDamaged if its bytes are not
        those that were written, IndexBusy if it is replaced all the time, and MissingExtra without FAISS.
        """
        return cls(path, open_index(path))

    def close(self) -> None:
        if self._remote:
            self._remote.close()
        self._database.close()

    def replaced(self) -> bool:
        """Whether another index has taken the path since. This reader still answers from the old one."""
        file = file_identity(self.path / CASES)
        return file is not None and file != self._file

    def refresh(self) -> bool:
        """Go over to the newest generation; gives whether there was a newer one."""
        if self._database.generation() == self._generation.number:
            return False
        with self._database.transaction():
            self._generation = read_generation(self.path, self._database, self._remote)
            self._metadata = self._database.metadata()
        return True

    def search(
        self,
        embeddings: NDArray[np.float32],
        k: int,
        *,
        where: Where | None = None,
        exclude_patients: Sequence[Collection[str]] | None = None,
    ) -> list[list[Hit]]:
        """The k nearest studies of each query.

        embeddings: (Q, D) unit rows. exclude_patients: for each query the patients whose cases it must not find.

        Gives for each query min(k, studies with a case that matches) hits, at most one a study, the most similar first;
        ties in the order in which the cases were indexed. A study's hit is its nearest matching case. Raises ValueError
        unless embeddings are (Q, D) unit rows, k is at least 1, fields are known, and exclusions are one a query.
        """
        queries = np.ascontiguousarray(embeddings, dtype=np.float32)
        require_unit_rows(queries, int(self._metadata["dimension"]))
        if k < 1:
            raise ValueError(f"k is the number of studies to find, at least 1, not {k}")
        for field, values in (where or {}).items():
            require_filter(field, values)
        return self._search(queries, k, where or {}, exclude_patients)

    def _search(
        self, queries: NDArray[np.float32], k: int, where: Where, exclude: Sequence[Collection[str]] | None
    ) -> list[list[Hit]]:
        for _ in range(ATTEMPTS):
            current = self._generation
            answers, generation = current.search(queries, k, where, exclude, self._database)
            hits = read_hits(current, answers, generation, self._database)
            if hits is not None:
                return hits
            self.refresh()
        raise IndexBusy(f"{self.path} changes faster than it can be searched; try again")

    def cases(self) -> list[Case]:
        """All cases, in row order. Raises IndexBusy if the index was changed since the last search or `refresh`."""
        with self._unlocked() as database:
            return database.cases()

    def embeddings(self) -> NDArray[np.float32]:
        """(N, D) unit rows in row order, bit for bit as they were added."""
        return self._generation.embeddings()

    def logits(self) -> NDArray[np.float32]:
        """(N,) the classifier's uncalibrated logits in row order. Raises IndexBusy as `cases` does."""
        with self._unlocked() as database:
            return database.logits()

    def has_extra(self, table: str) -> bool:
        """Whether one of the tables `index.sqlite.schema.EXTRAS` holds something of any case."""
        with self._unlocked() as database:
            return database.has_extra(table)

    def extra(self, table: str) -> list[bytes]:
        """What one of the tables `index.sqlite.schema.EXTRAS` holds of each case, in row order; b"" for nothing."""
        with self._unlocked() as database:
            return database.extra_of_all(table)

    def batches(self) -> Iterator[Batch]:
        """All cases with their data, in row order, about a thousand at a time. Raises IndexBusy as `cases` does.

        All batches are of one generation. Nobody waits meanwhile.
        """
        with self._unlocked() as database:
            for batch in database.batches(int(self._metadata["dimension"])):
                self._require_unchanged()
                yield batch

    def thumbnail(self, case: str) -> bytes | None:
        """The JPEG or PNG stored with a case; None if there is no such case, or no longer."""
        return self._database.thumbnail(case)

    def preview(self, case: str) -> bytes | None:
        """The larger JPEG stored with a case; None if there is no such case, or its index keeps none."""
        return self._database.preview(case)

    def embedding(self, case: str) -> NDArray[np.float32] | None:
        """(D,) of unit length, bit for bit as it was added; None if there is no such case, or no longer."""
        return self._database.embedding(case)

    def study(self, study: str) -> Batch:
        """The cases of a study with their data, in row order; none if there is no such study, or no longer."""
        return self._database.study(study, int(self._metadata["dimension"]))

    def counts(self, field: str) -> dict[str, int]:
        """How many cases have each value of a field of `Case`. Raises ValueError for an unknown field."""
        require_filter(field, [])
        return self._database.counts(field)

    def labels(self) -> tuple[str, ...]:
        """The labels that any case has: "normal", "abnormal", both or none."""
        return self._database.labels()

    def set_aside(self) -> list[tuple[Case, str]]:
        """The cases that could not be read when the index was built, each with its reason; their label is always 0."""
        return self._database.set_aside()

    def find(self, field: str, values: Collection[str]) -> list[Case]:
        """The cases whose field is one of the values, in row order. Raises ValueError for an unknown field."""
        require_filter(field, values)
        return list(self._database.cases_where(field, values).values())

    def find_digest(self, digest: str) -> list[Case]:
        """The cases whose file had these bytes: its SHA-256 in hex. None for ""."""
        return self.find("digest", [digest]) if digest else []

    @property
    def generation(self) -> int:
        """The number of the generation that searches see now; each change of the index makes a new one."""
        return self._generation.number

    @property
    def identity(self) -> str:
        """A random name of the index, which another index in its place does not have."""
        return str(self._metadata["identity"])

    def missing(self) -> bool:
        """Whether no index is at the path any more. This reader still answers from what was there."""
        return file_identity(self.path / CASES) is None

    def size(self) -> tuple[int, int]:
        """The numbers of cases and of studies, counted in memory."""
        return self._generation.count(), self._generation.count_studies()

    def info(self) -> dict[str, object]:
        """Counts, store, format, generation and dates, as JSON values."""
        self.refresh()
        cases, studies = self.size()
        return {
            "cases": cases,
            "studies": studies,
            "patients": self._database.distinct("patient"),
            "parts": self._database.counts("part"),
            "labels": {"normal": 0, "abnormal": 0} | self._database.counts("label"),
            "quarantined": len(self._database.quarantined()),
            "store": self._generation.store.describe(),
            "generation": self._generation.number,
            "schema": self._database.schema(),
            "created": self._metadata["created"],
            "sealed": sealed(self.path, self._generation.number),
        }

    def filed(self) -> list[Filed]:
        """The changes by readers that can be undone, newest first."""
        return filed_changes(self._database)

    def history(self) -> list[dict[str, Any]]:
        """The changes of the index, oldest first, one entry a transaction.

        Each has "generation", "at" (UTC), "action" ("add", "merge", "update", "remove", "relabel", "synthetic",
        "compact", "project", "file", "set-aside", "undo", "calibrate" or "undo-calibrate"), "detail", and "cases", the
        number afterwards.
        """
        return self._database.history()

    def verify(self) -> bool:
        """Compare every byte with its checksum, and vectors.faiss or Milvus with cases.sqlite.

        Gives whether every byte of every file was checked: False if the last writer left no checksums of whole files,
        so that unused bytes of cases.sqlite could not be checked, or if they are stale. Nobody waits meanwhile. Raises
        IndexDamaged at the first difference, and IndexBusy if the index changes again and again.
        """
        return self.read_whole(self._verify)

    def read_whole(self, read: Callable[[], T]) -> T:
        """What `read` gives, which reads the whole index; if the index changes meanwhile, it is called again.

        Raises IndexBusy if it changes again and again.
        """
        damaged = False
        for _ in range(LONG_READS):
            self.refresh()
            try:
                return read()
            except IndexBusy:
                pass
            except IndexDamaged:
                if damaged:
                    raise
                damaged = True  # or half of a change was read, which was rolled back since
        raise IndexBusy(f"{self.path} changes faster than it can be read as a whole; try again")

    def _verify(self) -> bool:
        with self._unlocked() as database:
            whole = sealed(self.path, self._generation.number)
            database.verify()
            require_model(self.path, database.metadata())
            if self._remote:
                from index.milvus.sync import require_same

                require_same(database, self._remote)
            else:
                require_same_vectors(self.path, database)
            if whole:
                verify_seal(self.model)
            return whole

    def model_files(self) -> dict[str, str]:
        """The SHA-256 of each file of the model that encoded the index, by name."""
        stored = self._metadata.get("model", {}).get("files")
        return dict(stored) if stored else file_digests(self.model)

    def all_metadata(self) -> dict[str, object]:
        """All values that `metadata` gives, by key."""
        return dict(self._metadata["values"])

    def metadata(self, key: str) -> object | None:
        """A JSON value stored when the index was built, such as "rules" or "collection", or None."""
        value: object | None = self._metadata["values"].get(key)
        return value

    @contextmanager
    def _unlocked(self) -> Iterator[CaseReader]:
        """cases.sqlite without SQLite's locks, so that no change and no query waits for a long read.

        Raises IndexBusy if the index was changed since the last search or `refresh`, also during the block.
        """
        self._require_unchanged()  # SQLite also rolls back what a killed writer left
        if self.replaced():  # nobody writes to the file that is open here
            yield self._database
            return
        try:
            with closing(CaseReader(self.path / CASES, "ro&immutable=1")) as database:
                yield database
        except IndexDamaged:
            self._require_unchanged()  # else half of a change was read, at opening or later
            raise
        self._require_unchanged()

    def _require_unchanged(self) -> None:
        if self._database.generation() != self._generation.number:
            raise IndexBusy(f"{self.path} changed meanwhile; try again")
