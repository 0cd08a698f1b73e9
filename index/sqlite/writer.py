"""Writes cases.sqlite: adds, removes and relabels cases, and keeps the history."""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.case import FIELDS, Case, as_text
from index.sqlite.connection import Row
from index.sqlite.reader import CaseReader
from index.sqlite.schema import (
    APPLICATION,
    FILED,
    SCHEMA,
    TABLES,
    WIDTH,
    blob_crc,
    record_crc,
    row_crc,
    text_crc,
)

__all__ = ["CaseWriter", "now"]


class CaseWriter(CaseReader):
    """cases.sqlite, opened for reading and writing. Methods that write need a writing transaction."""

    def __init__(self, path: Path, mode: str = "rw") -> None:
        """mode: "rw" to write, "rwc" to write and to create a missing file."""
        super().__init__(path, mode)
        self.remote = False  # whether the vectors are in Milvus, so that changes are noted as pending

    @classmethod
    def create(cls, path: Path) -> "CaseWriter":
        """A new file, open for writing."""
        database = cls(path, "rwc")
        with database.transaction(writing=True):
            for statement in TABLES.split(";"):
                database._sqlite.query(statement)
            database._sqlite.query(f"PRAGMA application_id = {APPLICATION}")
            database._sqlite.query(f"PRAGMA user_version = {SCHEMA}")
            database._write_document({})
        return database

    def upgrade(self, model: Callable[[], Mapping[str, object]]) -> None:
        """Bring a file of an older format to this one; `model` gives its metadata about the model."""
        if self.schema() == SCHEMA:
            return
        for table, key in (("history", "generation"), ("quarantine", '"case"')):
            rows = self._rows_with_crc(table, 5)
            self._sqlite.query(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
            checksums = [(row_crc(row), row[0]) for row in rows]
            self._sqlite.write(f"UPDATE {table} SET crc = ? WHERE {key} = ?", checksums)
        values = self.metadata()["values"]
        if "notes" in (values.get("collection") or {}):  # they named files, and so patients
            values["collection"]["notes"] = []
        self.set_metadata(model=dict(model()), values=values)
        self._sqlite.query(f"PRAGMA user_version = {SCHEMA}")

    def add(
        self,
        cases: Sequence[Case],
        vectors: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
    ) -> None:
        """Append n cases with (n, D) vectors, with an entry in the history. Raises ValueError if a case exists."""
        self.insert(cases, vectors, thumbnails, logits)
        self.record("add", {"cases": len(cases)}, len(cases))

    def insert(
        self,
        cases: Sequence[Case],
        vectors: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
    ) -> None:
        """Append n cases as `add` does, without an entry in the history."""
        first = 1 + self.last()
        records, blobs, images = [], [], []
        for row, (case, vector, image, logit) in enumerate(zip(cases, vectors, thumbnails, logits, strict=True), first):
            fields = [getattr(case, name) for name in FIELDS]
            record: Row = (row, *fields, float(logit) + 0.0)  # + 0.0, since SQLite keeps no negative zero
            records.append((*record, record_crc(record)))
            blob = vector.astype("<f4").tobytes()
            blobs.append((row, blob, blob_crc(row, blob)))
            images.append((row, image, blob_crc(row, image)))
        self._sqlite.write(f"INSERT INTO cases VALUES ({', '.join('?' * WIDTH)})", records)
        self._sqlite.write("INSERT INTO embeddings VALUES (?, ?, ?)", blobs)
        self._sqlite.write("INSERT INTO thumbnails VALUES (?, ?, ?)", images)
        self._sqlite.write('DELETE FROM quarantine WHERE "case" = ?', [(case.case,) for case in cases])
        if self.remote:
            self.unsettle([record[0] for record in records])

    def remove(self, rows: Sequence[int], action: str = "remove") -> None:
        """Remove cases with their embeddings and thumbnails; their bytes are overwritten."""
        for table in ("thumbnails", "embeddings", "cases"):
            self._sqlite.write(f"DELETE FROM {table} WHERE row = ?", [(row,) for row in rows])
        if self.remote:
            self.unsettle(rows)
        else:
            self._sqlite.write("INSERT INTO removed VALUES (?)", [(row,) for row in rows])
        self.record(action, {"cases": len(rows)}, -len(rows))

    def rewrite(self, cases: Mapping[int, Case], action: str, **detail: str) -> None:
        """Give rows other records, with an entry in the history; their names stay."""
        changed = []
        for old in self._sqlite.query_in("SELECT * FROM cases WHERE row IN {}", cases):
            record: Row = (old[0], *(getattr(cases[old[0]], name) for name in FIELDS), old[-2])
            changed.append((*record[2:], record_crc(record), old[0]))
        fields = ", ".join(f"{name} = ?" for name in (*FIELDS[1:], "logit", "crc"))
        self._sqlite.write(f"UPDATE cases SET {fields} WHERE row = ?", changed)
        if self.remote:
            self.unsettle(cases)
        self.record(action, {"cases": len(cases), **detail})

    def record(self, action: str, detail: Mapping[str, Any], more: int = 0) -> None:
        """Add an entry to the history; `more` is the change of the number of cases."""
        event = (self.generation() + 1, now(), action, json.dumps(detail), self.count() + more)
        self._sqlite.write("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?)", [(*event, row_crc(event))])

    def quarantine(self, cases: Sequence[tuple[Case, str]]) -> None:
        """Set cases aside with a reason each."""
        rows = [tuple(map(as_text, (case.case, case.study, case.patient, case.path, reason))) for case, reason in cases]
        checked = [(*row, row_crc(row)) for row in rows]
        self._sqlite.write("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)", checked)

    def forget_quarantined(self, where: Mapping[str, Collection[str]]) -> list[str]:
        """Forget the cases set aside that match "case", "study" and "patient"; gives their names."""
        named = [{"case": case.case, "study": case.study, "patient": case.patient} for case, _ in self.set_aside()]
        found = [row["case"] for row in named if all(row.get(field) in values for field, values in where.items())]
        self._sqlite.write('DELETE FROM quarantine WHERE "case" = ?', [(case,) for case in found])
        return found

    def keep_filed(self, generation: int, data: bytes) -> None:
        """Keep what undoing the change of a generation needs: a JSON object whose "names" are those of its cases."""
        self._sqlite.query(FILED)
        self._sqlite.write("INSERT INTO filed VALUES (?, ?, ?)", [(generation, data, blob_crc(generation, data))])

    def forget_filed(self, generations: Collection[int]) -> None:
        if generations:
            self._sqlite.write("DELETE FROM filed WHERE generation = ?", [(number,) for number in generations])

    def forget_filed_of(self, names: Collection[str]) -> None:
        """Forget the changes that concern one of the cases: they cannot be undone any more."""
        known = set(names)
        self.forget_filed([n for n, data in self.filed().items() if known & set(json.loads(data)["names"])])

    def set_metadata(self, **values: object) -> None:
        """Set JSON values."""
        self._write_document(self.metadata() | values)

    # For vectors.faiss and Milvus.

    def forget_removed(self) -> None:
        """Note that vectors.faiss no longer holds the removed rows."""
        self._sqlite.query("DELETE FROM removed")

    def settle(self, rows: Sequence[int]) -> None:
        """Note that Milvus holds these rows as they are."""
        self._sqlite.write("DELETE FROM pending WHERE row = ?", [(row,) for row in rows])

    def unsettle(self, rows: Collection[int] | None = None) -> None:
        """Note that these rows, by default all, have to be written to Milvus."""
        if rows is None:
            self._sqlite.query("INSERT OR IGNORE INTO pending SELECT row FROM cases")
        else:
            self._sqlite.write("INSERT OR IGNORE INTO pending VALUES (?)", [(row,) for row in rows])

    def compact(self) -> None:
        """Write the file again without the space of removed cases. Call it outside a transaction."""
        os.environ["SQLITE_TMPDIR"] = str(self.path.parent)  # not the system's, which may be small, or of another owner
        self._sqlite.query("VACUUM")

    def _write_document(self, document: dict[str, Any]) -> None:
        text = json.dumps(document, allow_nan=False)
        self._sqlite.query("INSERT OR REPLACE INTO metadata VALUES (1, ?, ?)", (text, text_crc(text)))


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
