"""Writes cases.sqlite: adds, removes and relabels cases, and keeps the history."""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.case import FIELDS, TEXTS, Case, Where, as_text
from index.sqlite.connection import Row
from index.sqlite.reader import CaseReader, Extras
from index.sqlite.schema import (
    ADDITIONS,
    APPLICATION,
    COLUMNS,
    EXTRAS,
    FILED,
    LOGIT,
    SCHEMA,
    TABLES,
    TEXT_COLUMNS,
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
        schema = self.schema()
        if schema == SCHEMA:
            return
        for column in TEXT_COLUMNS:
            self._sqlite.query(f"ALTER TABLE cases ADD COLUMN {column}")
        for statement in ADDITIONS.split(";"):
            self._sqlite.query(statement)
        if schema == 3:
            self._upgrade_3(model)
        self._sqlite.query(f"PRAGMA user_version = {SCHEMA}")

    def _upgrade_3(self, model: Callable[[], Mapping[str, object]]) -> None:
        for table, key in (("history", "generation"), ("quarantine", '"case"')):
            rows = self._rows_with_crc(table, 5)
            self._sqlite.query(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
            checksums = [(row_crc(row), row[0]) for row in rows]
            self._sqlite.write(f"UPDATE {table} SET crc = ? WHERE {key} = ?", checksums)
        values = self.metadata()["values"]
        if "notes" in (values.get("collection") or {}):  # they named files, and so patients
            values["collection"]["notes"] = []
        self.set_metadata(model=dict(model()), values=values)

    def add(
        self,
        cases: Sequence[Case],
        vectors: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
        extras: Extras | None = None,
    ) -> None:
        """Append n cases with (n, D) vectors, with an entry in the history. Raises ValueError if a case exists."""
        self.insert(cases, vectors, thumbnails, logits, extras)
        self.record("add", {"cases": len(cases)}, len(cases))

    def insert(
        self,
        cases: Sequence[Case],
        vectors: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
        extras: Extras | None = None,
    ) -> None:
        """Append n cases with vectors (n, D) and logits (n,) as `add` does, without an entry in the history."""
        first = 1 + self.last()
        records, blobs, images = [], [], []
        for row, (case, vector, image, logit) in enumerate(zip(cases, vectors, thumbnails, logits, strict=True), first):
            records.append(_record(row, case, float(logit) + 0.0))  # + 0.0, since SQLite keeps no negative zero
            blob = vector.astype("<f4").tobytes()
            blobs.append((row, blob, blob_crc(row, blob)))
            images.append((row, image, blob_crc(row, image)))
        self._sqlite.write(f"INSERT INTO cases VALUES ({', '.join('?' * len(COLUMNS))})", records)
        self._sqlite.write("INSERT INTO embeddings VALUES (?, ?, ?)", blobs)
        self._sqlite.write("INSERT INTO thumbnails VALUES (?, ?, ?)", images)
        for table, data in (extras or {}).items():
            self.put(table, {row: blob for row, blob in enumerate(data, first) if blob})
        self._sqlite.write('DELETE FROM quarantine WHERE "case" = ?', [(case.case,) for case in cases])
        if self.remote:
            self.unsettle([record[0] for record in records])

    def put(self, table: str, data: Mapping[int, bytes]) -> None:
        """Store the bytes of rows in one of the tables `EXTRAS`, in place of what is there."""
        rows = [(row, blob, blob_crc(row, blob)) for row, blob in data.items()]
        self._sqlite.write(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", rows)

    def remove(self, rows: Sequence[int], action: str = "remove") -> None:
        """Remove cases with all that belongs to them; their bytes are overwritten."""
        for table in (*EXTRAS, "thumbnails", "embeddings", "cases"):
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
            changed.append((*_record(old[0], cases[old[0]], old[LOGIT])[2:], old[0]))
        fields = ", ".join(f"{name} = ?" for name in COLUMNS[2:])
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

    def forget_quarantined(self, where: Where) -> list[str]:
        """Forget the cases set aside that match "case", "study" and "patient"; gives their names."""
        named = [{"case": case.case, "study": case.study, "patient": case.patient} for case, _ in self.set_aside()]
        names = [row["case"] for row in named if all(row.get(field) in values for field, values in where.items())]
        self._sqlite.write('DELETE FROM quarantine WHERE "case" = ?', [(case,) for case in names])
        return names

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

    def mark_synthetic(self) -> None:
        """Note that the index holds synthetic radiographs."""
        values = self.metadata()["values"]
        about = {**(values.get("collection") or {}), "synthetic": True}
        self.set_metadata(values=values | {"collection": about})

    def require_whole_studies(self, cases: Sequence[Case]) -> None:
        """Raise ValueError if the study of one of the cases, as indexed now, has two labels or two patients."""
        studies: dict[str, tuple[int, str]] = {}
        for case in self.cases_where("study", {case.study for case in cases}).values():
            if studies.setdefault(case.study, (case.label, case.patient)) != (case.label, case.patient):
                raise ValueError(f"{case.case}: study {case.study} is indexed with another label or patient")

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


def _record(row: int, case: Case, logit: float) -> Row:
    """A row of cases with its checksum."""
    fields = [getattr(case, name) for name in FIELDS]
    count = len(fields) - len(TEXTS)
    record: Row = (row, *fields[:count], logit, 0, *fields[count:])
    return (*record[: LOGIT + 1], record_crc(record), *record[LOGIT + 2 :])


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
