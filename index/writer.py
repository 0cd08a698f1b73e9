"""Changes an index while it is in use: adds, removes and relabels cases, each change completely or not at all."""

import contextlib
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from index.atomic import CASES, leftovers, refusals_named
from index.case import LABEL_NAMES, Case, Where, require_filter
from index.checksums import break_seal, file_digests, seal, sealed
from index.closing import Closing
from index.integrity import model_folder, require_index
from index.lock import Lock
from index.merge import Merged, merge_cases
from index.reader import IndexReader
from index.sqlite.gaps import zero_gaps
from index.sqlite.reader import Extras
from index.sqlite.writer import CaseWriter
from index.vector_update import update_milvus, update_vector_file
from index.vectors.base import Demand, require_one_each

__all__ = ["IndexWriter"]

AT_ONCE = 4_096  # pending cases: from here on they are sent to Milvus before the writer is closed
SEALED = 256 << 20  # bytes of cases.sqlite: up to here SHA256SUMS is written after every change


class IndexWriter(Closing):
    """An index opened for writing, by one process at a time: `with IndexWriter.open(path) as writer`.

    Every change is one transaction with an entry in the history. It is on the disk when the method returns, and every
    reader finds it in its next search. vectors.faiss is brought up to date when the context ends: always if that is
    quick, otherwise when it is far behind, or after `compact`.
    """

    def __init__(self, path: Path, lock: Lock, database: CaseWriter) -> None:
        """`open` makes one."""
        metadata = database.metadata()
        self.path = path
        self.model = path / model_folder(metadata)
        self.behind = 0  # after `close`: the number of changes that vectors.faiss or Milvus lacks
        self.remote = database.remote = bool(metadata["values"].get("store"))  # whether the vectors are in Milvus
        self._lock = lock
        self._database = database
        self._dimension = int(metadata["dimension"])
        self.leftovers: dict[Path, str] = {}  # that `remove` met: "" if it is removed now, else why it cannot be
        self._compacted = self._tuned = False

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the index at a path for writing.

        Raises IndexMissing, IndexSchema and IndexDamaged as `IndexReader.open` does, IndexBusy if another process is
        writing, and IndexFailure if the folder cannot be written.
        """
        path = path.resolve()
        require_index(path)
        with contextlib.ExitStack() as stack:
            with refusals_named(path):
                lock = Lock(path)
            stack.callback(lock.release)
            database = stack.enter_context(contextlib.closing(CaseWriter(path / CASES)))
            with database.transaction():
                database.check()
                writer = cls(path, lock, database)
            stack.pop_all()
        return writer

    def close(self) -> None:
        """Bring vectors.faiss or Milvus and the checksums up to date, and release the lock."""
        try:
            with refusals_named(self.path):
                self._update_vectors()
                if self._database.metadata().get("erased"):
                    self._database.close()
                    zero_gaps(self.path / CASES)
                    self._database = CaseWriter(self.path / CASES)
                    with self._database.transaction(writing=True):
                        self._database.set_metadata(erased=False)
                generation = self._database.generation()
                self._database.close()
                small = (self.path / CASES).stat().st_size <= SEALED
                if not sealed(self.path, generation) and (self._compacted or small):
                    seal(self.model, generation)
        finally:
            self._database.close()
            self._lock.release()

    def _update_vectors(self) -> None:
        if self.remote:
            self.behind = update_milvus(self.path, self._database, compacted=self._compacted)
        else:
            self.behind = update_vector_file(self.path, self._database, compacted=self._compacted, tuned=self._tuned)

    def metadata(self, key: str) -> object | None:
        """A JSON value stored when the index was built, as `IndexReader.metadata` gives it."""
        with self._database.transaction():
            value: object | None = self._database.metadata()["values"].get(key)
        return value

    def cases(self) -> list[Case]:
        """All cases, in row order."""
        with self._database.transaction():
            return self._database.cases()

    def find(self, field: str, values: Collection[str]) -> list[Case]:
        """The cases whose field is one of the values, in row order. Raises ValueError for an unknown field."""
        require_filter(field, values)
        return list(self._database.cases_where(field, values).values())

    def known(self, field: str, values: Collection[str]) -> dict[str, list[Case]]:
        """The values of a field that are indexed, each with its cases in row order."""
        require_filter(field, values)
        return self._database.known(field, values)

    def add(
        self,
        cases: Sequence[Case],
        embeddings: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
        extras: Extras | None = None,
    ) -> None:
        """Add n cases: embeddings (n, D) unit rows, one thumbnail and one finite logit a case.

        Raises ValueError, and adds none, if one of them is invalid, a case is indexed already, or its study is indexed
        with another label or patient.
        """
        require_one_each(cases, embeddings, thumbnails, logits, self._dimension)
        with self._change():
            self._database.add(cases, embeddings, thumbnails, logits, extras)
            self._database.require_whole_studies(cases)
        if self.remote and len(self._database.pending()) >= AT_ONCE:
            self._update_vectors()

    def put(self, table: str, data: Mapping[str, bytes], action: str = "", **detail: str) -> None:
        """Store the bytes of cases, by name, in one of the tables `index.sqlite.schema.EXTRAS`.

        With an `action` the history has an entry, with its `detail`, and so readers see a new generation.
        """
        with self._change():
            rows = {case.case: row for row, case in self._database.cases_where("case", data).items()}
            self._database.put(table, {rows[name]: blob for name, blob in data.items() if name in rows})
            if action:
                self._database.record(action, {"cases": len(rows), **detail})

    def extra(self, table: str) -> list[bytes]:
        """The bytes of every case in one of the tables `index.sqlite.schema.EXTRAS`, in row order; b"" for none."""
        with self._database.transaction():
            return self._database.extra_of_all(table)

    def set_metadata(self, key: str, value: object) -> None:
        """Store a JSON value for `IndexReader.metadata`; there is no history."""
        with self._change():
            values = self._database.metadata()["values"]
            self._database.set_metadata(values=values | {key: value})

    def remove(self, where: Where) -> list[str]:
        """Remove the cases whose fields have one of the values, as in {"patient": ["p17"]}; gives their names.

        Their records, embeddings and thumbnails are overwritten in cases.sqlite, and no search finds them. Their
        vectors leave vectors.faiss when it is written next (`behind`, `compact`). Cases set aside under these names are
        forgotten too, and unfinished builds are removed, which may hold them (`leftovers`). Raises ValueError for an
        unknown field and for an empty `where`.
        """
        if not where:
            raise ValueError("name the cases to remove")
        for field, values in where.items():
            require_filter(field, values)
        with self._change():
            matching: dict[int, Case] | None = None
            for field, values in where.items():
                these = self._database.cases_where(field, values)
                matching = these if matching is None else {row: case for row, case in matching.items() if row in these}
            if matching:
                self._database.remove(list(matching))
            names = [case.case for case in (matching or {}).values()] + self._database.forget_quarantined(where)
            if names:
                self._database.forget_filed_of(names)
                self._database.set_metadata(erased=True)  # until `close` has zeroed what SQLite left of them
        self._remove_leftovers()
        return names

    def _remove_leftovers(self) -> None:
        for folder in leftovers(self.path):
            try:
                shutil.rmtree(folder)
                self.leftovers[folder] = ""
            except OSError as error:
                self.leftovers[folder] = error.strerror or str(error)

    def relabel(self, study: str, label: int) -> int:
        """Give a study the label 0 (normal) or 1 (abnormal); gives how many of its cases had the other one.

        Raises ValueError for another label and for an unknown study.
        """
        if label not in range(len(LABEL_NAMES)):
            raise ValueError(f"a label is 0 (normal) or 1 (abnormal), not {label}")
        with self._change():
            cases = self._database.cases_where("study", [study])
            if not cases:
                raise ValueError(f"the index holds no study {study}")
            return self._relabel(cases, label)

    def _relabel(self, cases: Mapping[int, Case], label: int, action: str = "relabel") -> int:
        """Give rows a label, within a change; gives how many had the other one."""
        wrong = {row: replace(case, label=label) for row, case in cases.items() if case.label != label}
        if wrong:
            self._database.rewrite(wrong, action, label=LABEL_NAMES[label])
        return len(wrong)

    def update(self, cases: Sequence[Case]) -> int:
        """Give indexed cases these records, all in one transaction; gives how many were changed.

        A case is known by its name. Its digest, embedding and thumbnail stay. What the records held before is
        overwritten. Raises ValueError, and changes none, for an unknown case, and for a study that would have two
        labels or two patients.
        """
        with self._change():
            old = self._database.cases_where("case", {case.case for case in cases})
            rows = {case.case: row for row, case in old.items()}
            if unknown := [case.case for case in cases if case.case not in rows]:
                raise ValueError(f"the index holds no case {unknown[0]}")
            new = {rows[case.case]: replace(case, digest=old[rows[case.case]].digest) for case in cases}
            new = {row: case for row, case in new.items() if case != old[row]}
            if not new:
                return 0
            self._database.rewrite(new, "update")
            self._database.require_whole_studies(list(new.values()))
            self._database.forget_filed_of([case.case for case in new.values()])
            self._database.set_metadata(erased=True)
            if not self.remote and any(case.study != old[row].study for row, case in new.items()):
                # vectors.faiss has the numbers of studies: it becomes that of another index, and is written again.
                self._database.set_metadata(identity=secrets.token_hex(16))
            return len(new)

    def merge(self, source: IndexReader, prefix: str = "") -> Merged:
        """Add the cases of another index, all in one transaction, without those whose files are indexed here already.

        Both indexes need the same model: embeddings of two models cannot be compared. prefix: put before the names of
        case, study and patient, as "north/", if two hospitals use the same names for different people. Raises
        ValueError, and adds none, for another model, for a case whose name is taken, and for a study with another label
        or patient.
        """
        if source.path.resolve() == self.path:
            raise ValueError("an index cannot be merged with itself")
        if source.model_files() != file_digests(self.model):
            raise ValueError(
                f"{source.path} was encoded by another model; build it again with the model of {self.path}"
            )

        def merge() -> Merged:
            with self._change():
                return merge_cases(self._database, source, prefix)

        return source.read_whole(merge)

    def set_values(self, action: str, detail: Mapping[str, object], values: Mapping[str, object]) -> None:
        """Store JSON values for `metadata` in one transaction, with an entry of this action in the history.

        A value of None removes its key.
        """
        with self._change():
            stored = self._database.metadata()["values"] | values
            self._database.set_metadata(values={key: value for key, value in stored.items() if value is not None})
            self._database.record(action, detail)

    def mark_synthetic(self) -> None:
        """Mark the index as holding synthetic radiographs, before some are added."""
        with self._change():
            self._database.mark_synthetic()
            self._database.record("synthetic", {})

    def compact(self, **demand: Any) -> int:
        """Shrink cases.sqlite by the space of removed cases; gives the number of bytes saved.

        When the writer is closed, vectors.faiss holds exactly the cases of cases.sqlite. demand: the fields of `Demand`
        that change from now on. Raises ValueError for an invalid demand.
        """
        with self._change():
            if demand:
                values = self._database.metadata()["values"]
                wanted = values.get("demand", {}) | demand
                Demand(**wanted)
                self._database.set_metadata(values=values | {"demand": wanted})
            self._database.record("compact", {})
        self._compacted = True
        self._tuned = bool(demand)
        with refusals_named(self.path):
            before = (self.path / CASES).stat().st_size
            self._database.compact()
            return before - (self.path / CASES).stat().st_size

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        with refusals_named(self.path):
            break_seal(self.path)
            with self._database.transaction(writing=True):
                self._database.upgrade(lambda: {"folder": self.model.name, "files": file_digests(self.model)})
                yield
