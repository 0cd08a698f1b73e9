"""cases.sqlite: the truth of an index. Case records, embeddings, thumbnails, and what was set aside.

Every record, embedding and thumbnail carries a CRC-32 that is checked when it is read, since SQLite itself notices
damage only to its own structure. They are three tables, so that reading the records does not read the other two.
"""

import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.case import FIELDS, LABEL_NAMES, Case
from index.connection import Connection, Row, one_of
from index.errors import IndexSchema

__all__ = ["SCHEMA", "Batch", "Database", "Stored", "now"]

SCHEMA = 3
APPLICATION = 0x4D555241  # "MURA" in the file's header

Stored = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]

# A row of history is one transaction: "add", "merge", "remove", "relabel" or "compact". Its number is the generation of
# the index, `detail` says how many cases it changed, and `cases` is how many there were after it. A row number of a
# case is never given again (AUTOINCREMENT), so a reader of an older generation cannot meet another case. `removed` has
# the rows that are gone while vectors.faiss may still hold them; `pending`, where the vectors are in Milvus, the rows
# that were changed and are not up to date there.
_TABLES = """
CREATE TABLE cases (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    "case" TEXT NOT NULL UNIQUE,
    study TEXT NOT NULL,
    patient TEXT NOT NULL,
    label INTEGER NOT NULL CHECK (label IN (0, 1)),
    part TEXT NOT NULL,
    view TEXT NOT NULL,
    split TEXT NOT NULL,
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    laterality TEXT NOT NULL,
    series TEXT NOT NULL,
    logit REAL NOT NULL,
    crc INTEGER NOT NULL
);
CREATE INDEX by_study ON cases (study);
CREATE INDEX by_patient ON cases (patient);
CREATE INDEX by_label ON cases (label);
CREATE INDEX by_part ON cases (part);
CREATE INDEX by_view ON cases (view);
CREATE INDEX by_split ON cases (split);
CREATE INDEX by_digest ON cases (digest);
CREATE TABLE embeddings (
    row INTEGER PRIMARY KEY REFERENCES cases ON DELETE CASCADE,
    vector BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE thumbnails (
    row INTEGER PRIMARY KEY REFERENCES cases ON DELETE CASCADE,
    image BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE removed (row INTEGER PRIMARY KEY);
CREATE TABLE pending (row INTEGER PRIMARY KEY);
CREATE TABLE quarantine (
    "case" TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    patient TEXT NOT NULL,
    path TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE metadata (one INTEGER PRIMARY KEY CHECK (one = 1), document TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE history (
    generation INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL,
    cases INTEGER NOT NULL
)
"""

_WIDTH = len(FIELDS) + 3  # columns of cases
_LABEL = 4  # where a row of cases has its label
_RECORD = "\x1f".join(["%s"] * (_WIDTH - 1))  # a row of cases without its checksum, as one text
_GENERATION = "(SELECT coalesce(max(generation), 0) FROM history)"


@dataclass(frozen=True, slots=True)
class Batch:
    """n cases, embeddings (n, D), thumbnails, logits (n,)."""

    cases: list[Case]
    embeddings: NDArray[np.float32]
    thumbnails: list[bytes]
    logits: NDArray[np.float32]


class Database:
    """cases.sqlite, opened for reading or for writing; several threads may use it.

    Raises what a `Connection` does, and IndexDamaged where the bytes are not those written.
    """

    def __init__(self, path: Path, mode: str = "ro") -> None:
        """mode: "ro" to read, "rw" to write, "rwc" to write a file that may not be there yet."""
        self.path = path
        self.remote = False  # whether the vectors are in Milvus, so that changes are noted as pending
        self._sqlite = Connection(path, mode)
        self.transaction = self._sqlite.transaction

    @classmethod
    def create(cls, path: Path) -> "Database":
        """A new file, open for writing."""
        database = cls(path, "rwc")
        with database.transaction(writing=True):
            for statement in _TABLES.split(";"):
                database._sqlite.query(statement)
            database._sqlite.query(f"PRAGMA application_id = {APPLICATION}")
            database._sqlite.query(f"PRAGMA user_version = {SCHEMA}")
            database._write_document({})
        return database

    def close(self) -> None:
        self._sqlite.close()

    def check(self) -> None:
        """Raise IndexDamaged or IndexSchema where this is no case database, or one that this program cannot read."""
        if self._sqlite.number("PRAGMA application_id") != APPLICATION:
            raise self._sqlite.damaged("it is no case database")
        schema = self._sqlite.number("PRAGMA user_version")
        if schema != SCHEMA:
            raise IndexSchema(
                f"{self.path} has index format {schema}, and this program reads format {SCHEMA}; "
                "build the index again, or use the mura-search that wrote it"
            )
        if self.path.stat().st_size % self._sqlite.number("PRAGMA page_size"):
            raise self._sqlite.damaged("it ends early")

    def generation(self) -> int:
        """The number of transactions so far."""
        return self._sqlite.number(f"SELECT {_GENERATION}")

    def count(self) -> int:
        """The number of cases, as the history has it."""
        return self._sqlite.number("SELECT coalesce((SELECT cases FROM history ORDER BY generation DESC LIMIT 1), 0)")

    # Reading cases.

    def cases(self) -> list[Case]:
        """All cases, in row order."""
        return [_case(row) for row in self._rows()]

    def logits(self) -> NDArray[np.float32]:
        """(N,) in row order."""
        return np.array([row[-2] for row in self._rows()], dtype=np.float32)

    def records(self, rows: Sequence[int]) -> tuple[int, dict[int, Case]]:
        """The generation, and the cases of those of the rows that are there; both of one moment."""
        found = self._sqlite.query(
            f"SELECT *, {_GENERATION} FROM cases WHERE row IN ({','.join(map(str, rows))})"  # integers of our own
        )
        generation = found[0][-1] if found else self.generation()
        return generation, {row[0]: _case(row) for row in map(self._checked, (row[:-1] for row in found))}

    def rows_where(self, field: str, values: Collection[str]) -> NDArray[np.int64]:
        """The rows whose field is one of the values, in any order; the label is "normal" or "abnormal"."""
        wanted = [LABEL_NAMES.index(value) for value in values] if field == "label" else values
        found: list[Row] = []
        for among, names in one_of(wanted):
            found += self._sqlite.query(f'SELECT row FROM cases WHERE "{field}" {among}', names)
        return np.fromiter((row for (row,) in found), dtype=np.int64, count=len(found))

    def cases_where(self, field: str, values: Collection[str]) -> dict[int, Case]:
        """The cases whose field is one of the values, by row, in row order."""
        found: list[Row] = []
        for among, names in one_of(values):
            found += self._sqlite.query(f'SELECT * FROM cases WHERE "{field}" {among}', names)
        return {row[0]: _case(row) for row in map(self._checked, sorted(found))}

    def last(self) -> int:
        """The highest row number ever given; 0 where none was."""
        return self._sqlite.number("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'cases'")

    def known(self, field: str, values: Collection[str], last: int = 2**62) -> dict[str, str]:
        """Those of a field's values that are there up to a row, each with the first case that has it."""
        found: list[Row] = []
        for among, names in one_of(values):
            statement = f'SELECT "{field}", "case", min(row) FROM cases WHERE "{field}" {among} AND row <= ? GROUP BY 1'
            found += self._sqlite.query(statement, [*names, last])
        return {value: case for value, case, _ in found}

    def counts(self, field: str) -> dict[str, int]:
        """How many cases have each value of a field, in the values' order; labels by name."""
        found = self._sqlite.query(f'SELECT "{field}", count(*) FROM cases GROUP BY 1 ORDER BY 1')
        return {LABEL_NAMES[value] if field == "label" else value: count for value, count in found}

    def distinct(self, field: str) -> int:
        """How many values a field has."""
        return self._sqlite.number(f'SELECT count(*) FROM (SELECT DISTINCT "{field}" FROM cases)')

    def thumbnail(self, case: str) -> bytes | None:
        """The picture of a case; None where there is no such case."""
        return self._blob("SELECT row, image, crc FROM thumbnails WHERE row = ?", case, "thumbnails")

    def embedding(self, case: str) -> NDArray[np.float32] | None:
        """(D,) of a case; None where there is no such case."""
        blob = self._blob("SELECT row, vector, crc FROM embeddings WHERE row = ?", case, "embeddings")
        return None if blob is None else np.frombuffer(blob, "<f4")

    def _blob(self, statement: str, case: str, what: str) -> bytes | None:
        rows = self.rows_where("case", [case]).tolist()
        if not rows:
            return None
        found = self._sqlite.query(statement, rows)
        if not found or not _intact(found[0]):
            raise self._sqlite.damaged(f"its {what} are not those written")
        blob: bytes = found[0][1]
        return blob

    # Reading what vectors.faiss is made of.

    def vectors(self, dimension: int, after: int = 0) -> Stored:
        """Of the cases beyond row `after`, in row order: their rows (n,), studies (n,) and embeddings (n, D).

        A study is known by the row of the first of its cases, wherever that is.
        """
        statement = "SELECT count(*) FROM embeddings WHERE row > ?"
        n = self._sqlite.number(statement, (after,))
        rows, studies = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        vectors = np.empty((n, dimension), dtype=np.float32)
        statement = (
            "SELECT row, vector, e.crc, (SELECT min(row) FROM cases AS other WHERE other.study = cases.study) "
            "FROM embeddings AS e JOIN cases USING (row) WHERE row > ? ORDER BY row"
        )
        at = 0
        for found in self._sqlite.stream(statement, (after,)):
            end = at + len(found)
            if end > n or not all(_intact(row) and len(row[1]) == 4 * dimension for row in found):
                raise self._sqlite.damaged("its embeddings are not those written")
            rows[at:end] = [row[0] for row in found]
            studies[at:end] = [row[3] for row in found]
            vectors[at:end] = np.frombuffer(b"".join(row[1] for row in found), "<f4").reshape(len(found), dimension)
            at = end
        if at != n or (after == 0 and n != self.count()):
            raise self._sqlite.damaged("it has not one embedding a case")
        return rows, studies, vectors

    def removed(self) -> NDArray[np.int64]:
        """The rows of cases that are gone while vectors.faiss may still hold them, sorted."""
        return np.array([row for (row,) in self._sqlite.query("SELECT row FROM removed ORDER BY row")], dtype=np.int64)

    def forget_removed(self) -> None:
        """vectors.faiss does not hold them any more; in a writing transaction."""
        self._sqlite.query("DELETE FROM removed")

    def vectors_of(self, rows: Collection[int], dimension: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Of those of the rows that are there, in row order: their numbers (n,) and embeddings (n, D)."""
        found: list[Row] = []
        for among, numbers in one_of(rows):
            found += self._sqlite.query(f"SELECT row, vector, crc FROM embeddings WHERE row {among}", numbers)
        found.sort()
        if not all(_intact(row) and len(row[1]) == 4 * dimension for row in found):
            raise self._sqlite.damaged("its embeddings are not those written")
        vectors = np.frombuffer(b"".join(row[1] for row in found), "<f4").reshape(len(found), dimension)
        return np.array([row[0] for row in found], dtype=np.int64), vectors.astype(np.float32)

    def pending(self) -> list[int]:
        """The rows that are not up to date in Milvus, sorted."""
        return [row for (row,) in self._sqlite.query("SELECT row FROM pending ORDER BY row")]

    def settle(self, rows: Sequence[int]) -> None:
        """Milvus has them; in a writing transaction."""
        self._sqlite.write("DELETE FROM pending WHERE row = ?", [(row,) for row in rows])

    def unsettle(self, rows: Collection[int] | None = None) -> None:
        """Milvus has to be told of these rows, of all by default; in a writing transaction."""
        if rows is None:
            self._sqlite.query("INSERT OR IGNORE INTO pending SELECT row FROM cases")
        else:
            self._sqlite.write("INSERT OR IGNORE INTO pending VALUES (?)", [(row,) for row in rows])

    def behind(self, last: int) -> int:
        """How many cases were added or removed since a vectors.faiss was written whose last row this is."""
        added = self._sqlite.number("SELECT count(*) FROM embeddings WHERE row > ?", (last,))
        return added + self._sqlite.number("SELECT count(*) FROM removed WHERE row <= ?", (last,))

    def batches(self, dimension: int, size: int = 1024) -> Iterator[Batch]:
        """Everything of all cases, in row order."""
        statement = (
            "SELECT cases.*, row, vector, e.crc, row, image, t.crc "
            "FROM cases JOIN embeddings AS e USING (row) JOIN thumbnails AS t USING (row) ORDER BY row"
        )
        count = 0
        for rows in self._sqlite.stream(statement, size=size):
            count += len(rows)
            records = [self._checked(row[:_WIDTH]) for row in rows]
            blobs = [row[_WIDTH : _WIDTH + 3] for row in rows]
            images = [row[_WIDTH + 3 :] for row in rows]
            if not all(map(_intact, blobs + images)) or any(len(blob[1]) != 4 * dimension for blob in blobs):
                raise self._sqlite.damaged("its embeddings or thumbnails are not those written")
            yield Batch(
                [_case(record) for record in records],
                np.frombuffer(b"".join(blob[1] for blob in blobs), "<f4").reshape(-1, dimension),
                [image[1] for image in images],
                np.array([record[-2] for record in records], dtype=np.float32),
            )
        if count != self.count():
            raise self._sqlite.damaged("it has not one embedding and one thumbnail a case")

    # Metadata, history, and what was set aside.

    def metadata(self) -> dict[str, Any]:
        found = self._sqlite.query("SELECT document, crc FROM metadata")
        if not found or not isinstance(found[0][0], str) or _text_crc(found[0][0]) != found[0][1]:
            raise self._sqlite.damaged("its metadata is not what was written")
        document: dict[str, Any] = json.loads(found[0][0])
        return document

    def set_metadata(self, **values: object) -> None:
        """Set JSON values, in a writing transaction."""
        self._write_document(self.metadata() | values)

    def history(self) -> list[dict[str, Any]]:
        """What was done, oldest first: generation, at, action, detail and the number of cases afterwards."""
        rows = self._sqlite.query("SELECT generation, at, action, detail, cases FROM history ORDER BY generation")
        names = ("generation", "at", "action", "detail", "cases")
        try:
            return [dict(zip(names, (*row[:3], json.loads(row[3]), row[4]), strict=True)) for row in rows]
        except (TypeError, ValueError) as error:
            raise self._sqlite.damaged("its history is not what was written") from error

    def quarantined(self) -> dict[str, str]:
        """Case to the reason why it was set aside."""
        return dict(self._sqlite.query('SELECT "case", reason FROM quarantine ORDER BY "case"'))

    def set_aside(self) -> list[tuple[Case, str]]:
        """The same with what else is known of the cases; they have no label here."""
        rows = self._sqlite.query('SELECT "case", study, patient, path, reason FROM quarantine ORDER BY "case"')
        return [(Case(case, study, patient, 0, path=path), reason) for case, study, patient, path, reason in rows]

    # Writing; each in a writing transaction.

    def add(
        self,
        cases: Sequence[Case],
        vectors: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
    ) -> None:
        """Append n cases with (n, D) vectors, and tell the history. ValueError where a case is there already."""
        self.insert(cases, vectors, thumbnails, logits)
        self.record("add", {"cases": len(cases)}, len(cases))

    def insert(
        self,
        cases: Sequence[Case],
        vectors: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
    ) -> None:
        """The same, and leave the history to the caller."""
        first = 1 + self.last()
        records, blobs, images = [], [], []
        for row, (case, vector, image, logit) in enumerate(zip(cases, vectors, thumbnails, logits, strict=True), first):
            fields = [getattr(case, name) for name in FIELDS]
            record: Row = (row, *fields, float(logit) + 0.0)  # + 0.0, since SQLite keeps no negative zero
            records.append((*record, _record_crc(record)))
            blob = vector.astype("<f4").tobytes()
            blobs.append((row, blob, _blob_crc(row, blob)))
            images.append((row, image, _blob_crc(row, image)))
        self._sqlite.write(f"INSERT INTO cases VALUES ({', '.join('?' * _WIDTH)})", records)
        self._sqlite.write("INSERT INTO embeddings VALUES (?, ?, ?)", blobs)
        self._sqlite.write("INSERT INTO thumbnails VALUES (?, ?, ?)", images)
        self._sqlite.write('DELETE FROM quarantine WHERE "case" = ?', [(case.case,) for case in cases])
        if self.remote:
            self.unsettle([record[0] for record in records])

    def remove(self, rows: Sequence[int]) -> None:
        """Remove cases with their embeddings and thumbnails; their bytes are overwritten."""
        for table in ("thumbnails", "embeddings", "cases"):
            self._sqlite.write(f"DELETE FROM {table} WHERE row = ?", [(row,) for row in rows])
        if self.remote:
            self.unsettle(rows)
        else:
            self._sqlite.write("INSERT INTO removed VALUES (?)", [(row,) for row in rows])
        self.record("remove", {"cases": len(rows)}, -len(rows))

    def relabel(self, rows: Collection[int], label: int) -> None:
        """Give cases another label."""
        changed = []
        for among, numbers in one_of(rows):
            for row in self._sqlite.query(f"SELECT * FROM cases WHERE row {among}", numbers):
                record: Row = (*row[:_LABEL], label, *row[_LABEL + 1 : -1])
                changed.append((label, _record_crc(record), row[0]))
        self._sqlite.write("UPDATE cases SET label = ?, crc = ? WHERE row = ?", changed)
        if self.remote:
            self.unsettle(rows)
        self.record("relabel", {"cases": len(rows), "label": LABEL_NAMES[label]})

    def record(self, action: str, detail: Mapping[str, Any], more: int = 0) -> None:
        """Enter what was done into the history; `more` cases are there now, or fewer where it is negative."""
        event = (self.generation() + 1, now(), action, json.dumps(detail), self.count() + more)
        self._sqlite.write("INSERT INTO history VALUES (?, ?, ?, ?, ?)", [event])

    def quarantine(self, cases: Sequence[tuple[Case, str]]) -> None:
        """Set cases aside with a reason each."""
        rows = [
            tuple(map(_storable, (case.case, case.study, case.patient, case.path, reason))) for case, reason in cases
        ]
        self._sqlite.write("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)", rows)

    def forget_quarantined(self, where: Mapping[str, Collection[str]]) -> list[str]:
        """Forget the cases set aside whose "case", "study" and "patient" are as named."""
        rows = self._sqlite.query('SELECT "case", study, patient FROM quarantine')
        named = [dict(zip(("case", "study", "patient"), row, strict=True)) for row in rows]
        found = [row["case"] for row in named if all(row.get(field) in values for field, values in where.items())]
        self._sqlite.write('DELETE FROM quarantine WHERE "case" = ?', [(case,) for case in found])
        return found

    # The file as a whole.

    def compact(self) -> None:
        """Give the space of what was removed back to the disk, outside a transaction. The file is written anew."""
        self._sqlite.query("VACUUM")

    def verify(self) -> None:
        """Raise IndexDamaged where SQLite finds its own structure damaged, or something is not what was written."""
        if self._sqlite.query("PRAGMA integrity_check") != [("ok",)] or self._sqlite.query("PRAGMA foreign_key_check"):
            raise self._sqlite.damaged("SQLite finds its structure broken")
        cases = sum(1 for _ in self._rows())
        self.metadata(), self.history(), self.quarantined()
        counts = []
        for table, column in (("embeddings", "vector"), ("thumbnails", "image")):
            count = 0
            for rows in self._sqlite.stream(f"SELECT row, {column}, crc FROM {table} ORDER BY row", size=1024):
                if not all(map(_intact, rows)):
                    raise self._sqlite.damaged(f"its {table} are not those written")
                count += len(rows)
            counts.append(count)
        if counts != [cases] * 2:
            raise self._sqlite.damaged("it has not one embedding and one thumbnail a case")

    def _rows(self) -> Iterator[Row]:
        """All rows of cases, in their order."""
        count = 0
        for rows in self._sqlite.stream("SELECT * FROM cases ORDER BY row"):
            count += len(rows)
            yield from map(self._checked, rows)
        if count != self.count():
            raise self._sqlite.damaged("its case records are not those written")

    def _checked(self, row: Row) -> Row:
        if _record_crc(row[:-1]) != row[-1]:
            raise self._sqlite.damaged("its case records are not those written")
        return row

    def _write_document(self, document: dict[str, Any]) -> None:
        text = json.dumps(document, allow_nan=False)
        self._sqlite.query("INSERT OR REPLACE INTO metadata VALUES (1, ?, ?)", (text, _text_crc(text)))


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _case(row: Row) -> Case:
    return Case(*row[1:-2])


def _record_crc(record: Row) -> int:
    return _text_crc(_RECORD % record)


def _text_crc(text: str) -> int:
    return zlib.crc32(text.encode())


def _blob_crc(row: int, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(b"%d" % row))  # with its row, so that it cannot turn up at another


def _intact(row: Row) -> bool:
    """Whether (row, blob, crc, ...) is what was written."""
    return isinstance(row[1], bytes) and _blob_crc(row[0], row[1]) == row[2]


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # a file's name need not be Unicode, SQLite's text must
