"""Changing an index that is in use: adding, removing and relabelling, each change in whole or not at all."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from index.case import LABEL_NAMES, Case
from index.database import Database
from index.errors import IndexBusy
from index.files import refusals_named
from index.folder import CASES, MODEL, VECTORS, IndexFolder, require_index
from index.lock import Lock
from index.records import Records
from index.vectors import require_one_each, require_unit_rows

__all__ = ["IndexEdit"]


class IndexEdit:
    """An index opened for writing, by one process at a time: `with IndexEdit.open(path) as edit`.

    Every change is one transaction that is on the disk when the method returns, with an entry in the history. Those who
    read go on reading the state that they opened. vectors.faiss is made anew when the context ends.
    """

    def __init__(self, path: Path, lock: Lock, database: Database) -> None:
        """`open` makes one."""
        self.path = path
        self._lock = lock
        self._database = database
        self._dimension = int(database.metadata()["dimension"])
        self._studies: dict[str, tuple[int, str]] = {}  # label and patient of each study, once they were needed

    @classmethod
    def open(cls, path: Path) -> "IndexEdit":
        """Open the index in a folder for writing.

        Raises IndexMissing, IndexSchema and IndexDamaged as `IndexFolder.open` does, IndexBusy where another process is
        writing, and IndexFailure where the folder cannot be written.
        """
        path = path.resolve()  # behind a link, so that every writer meets the same lock
        require_index(path)
        with refusals_named(path):
            try:
                lock = Lock(path.with_name(f".{path.name}.lock"))
            except BlockingIOError:
                raise IndexBusy(f"another process is writing {path}; wait until it has finished, or end it") from None
        try:
            database = Database.open_writing(path / CASES)
            try:
                with database.transaction():
                    database.check()
                    return cls(path, lock, database)
            except BaseException:
                database.close()
                raise
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> "IndexEdit":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Make vectors.faiss what cases.sqlite holds, and let others write."""
        try:
            self._refresh()
        finally:
            self._database.close()
            self._lock.release()

    def metadata(self, key: str) -> object | None:
        """A JSON value stored when the index was built, as `IndexFolder.metadata` gives it."""
        with self._database.transaction():
            value: object | None = self._database.metadata()["values"].get(key)
        return value

    def cases(self) -> list[Case]:
        """All cases, in row order."""
        with self._database.transaction():
            return self._records().cases()

    def add(
        self,
        cases: Sequence[Case],
        embeddings: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
    ) -> None:
        """Add n cases: embeddings (n, D) unit rows, one thumbnail and one finite logit a case.

        Raises ValueError, and adds none, where one of them does not fit, a case is there already, or a study or a
        patient would be torn: a study has one label and one patient.
        """
        require_unit_rows(embeddings, self._dimension)
        require_one_each(cases, embeddings, thumbnails, logits)
        with refusals_named(self.path), self._database.transaction(writing=True):
            studies = dict(self._known_studies())
            for case in cases:
                if studies.setdefault(case.study, (case.label, case.patient)) != (case.label, case.patient):
                    raise ValueError(f"{case.case}: study {case.study} is indexed with another label or patient")
            self._database.add(cases, embeddings, thumbnails, logits)
        self._studies = studies

    def remove(self, where: Mapping[str, Collection[str]]) -> list[str]:
        """Remove the cases whose fields have one of the values named, as in {"patient": ["p17"]}; gives their names.

        Their records, embeddings and thumbnails are overwritten in cases.sqlite, and no longer in vectors.faiss when
        the edit is closed. What could not be read and was set aside under these names goes, too. Raises ValueError for
        an unknown field, and where nothing is named.
        """
        if not where:
            raise ValueError("say which cases to remove")
        with refusals_named(self.path), self._database.transaction(writing=True):
            records = self._records()
            found = np.flatnonzero(records.matching(where)).tolist()
            self._studies = {}
            if found:
                self._database.remove([records.row(position) for position in found])
            forgotten = self._database.forget_quarantined(where)
            return [*(records.case(position).case for position in found), *forgotten]

    def relabel(self, study: str, label: int) -> int:
        """Give a study the label 0 (normal) or 1 (abnormal); gives how many of its cases had the other one.

        Raises ValueError for another label, and where the index holds no such study.
        """
        if label not in range(len(LABEL_NAMES)):
            raise ValueError(f"a label is 0 (normal) or 1 (abnormal), not {label}")
        with refusals_named(self.path), self._database.transaction(writing=True):
            rows = self._database.rows()
            records = Records(rows)
            positions = records.find("study", study)
            if not positions:
                raise ValueError(f"the index holds no study {study}")
            wrong = [rows[position] for position in positions if records.case(position).label != label]
            self._studies = {}
            if wrong:
                self._database.relabel(wrong, label)
            return len(wrong)

    def merge(self, other: IndexFolder, prefix: str = "") -> tuple[int, list[tuple[str, str]]]:
        """Add the cases of another index that are not here byte for byte, all in one transaction.

        Both must be of one model, since embeddings of two cannot be compared. prefix: put before the case, study and
        patient of what is added, as "north/", where two hospitals use the same names for different people. Gives how
        many were added, and each case that was not with the one here that has its bytes. Raises ValueError, and adds
        none, for another model, and where a case, or a study with another label or patient, is here under its name.
        """
        if other.path.resolve() == self.path:
            raise ValueError("an index cannot be merged with itself")
        if _contents(other.model) != _contents(self.path / MODEL):
            raise ValueError(f"{other.path} was encoded by another model; build it again with the model of {self.path}")
        digests = {case.digest: case.case for case in reversed(self.cases()) if case.digest}
        incoming = other.cases()
        known = [(case.case, digests[case.digest]) for case in incoming if case.digest in digests]
        rows = [row for row, case in enumerate(incoming) if case.digest not in digests]
        pictures = [other.thumbnail(incoming[row].case) for row in rows]
        if any(picture is None for picture in pictures):
            raise IndexBusy(f"{other.path} was changed meanwhile; merge it again")
        if rows:
            self.add(
                [_prefixed(incoming[row], prefix) for row in rows],
                other.embeddings()[rows],
                [picture or b"" for picture in pictures],
                other.logits()[rows],
            )
        return len(rows), known

    def compact(self) -> int:
        """Give the space of what was removed back; gives how many bytes cases.sqlite has become smaller."""
        with refusals_named(self.path):
            before = (self.path / CASES).stat().st_size
            self._database.compact()
            return before - (self.path / CASES).stat().st_size

    def _records(self) -> Records:
        return Records(self._database.rows())

    def _known_studies(self) -> dict[str, tuple[int, str]]:
        if not self._studies:
            self._studies = {case.study: (case.label, case.patient) for case in self._records().cases()}
        return self._studies

    def _refresh(self) -> None:
        from index.faiss_store import FaissFlat

        with self._database.transaction():
            identity = bytes.fromhex(self._database.metadata()["identity"])
            generation = self._database.generation()
            if FaissFlat.stamped(self.path / VECTORS, identity, generation):
                return
            store = FaissFlat.of(self._database.embeddings(self._dimension))
        with refusals_named(self.path):
            for stray in self.path.glob(f".{VECTORS}.*"):  # of a process killed while it wrote
                stray.unlink()
            store.write(self.path / VECTORS, identity, generation)


def _prefixed(case: Case, prefix: str) -> Case:
    return replace(case, case=prefix + case.case, study=prefix + case.study, patient=prefix + case.patient)


def _contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder, by its path there."""
    digests = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb") as data:
                digests[file.relative_to(folder).as_posix()] = hashlib.file_digest(data, "sha256").hexdigest()
    return digests
