"""cases.sqlite: the truth of an index. Case records, embeddings, thumbnails, and what was set aside.

Every record, embedding and thumbnail carries a CRC-32 that is checked when it is read, since SQLite itself notices
damage only to its own structure. They are three tables, so that reading the records of a large index, which every query
does, does not read the other two. The journal is SQLite's rollback journal: unlike a write-ahead log it serves readers
in folders they cannot write, and on network file systems.
"""

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.case import LABEL_NAMES, Case
from index.errors import IndexBusy, IndexDamaged, IndexFailure, IndexSchema

__all__ = ["SCHEMA", "Database", "Row", "now"]

SCHEMA = 3
PATIENCE_S = 5.0  # for a writer to finish its commit
APPLICATION = 0x4D555241  # "MURA" in the file's header

Row = tuple[Any, ...]  # of the table cases: row, the fields of Case in their order, logit, crc

# A row of history is one transaction on the cases: "add", "remove" or "relabel". The row's number is the index's
# generation, `detail` says how many cases and studies it changed, and `cases` is how many there were after it. A row
# number of a case is never given again (AUTOINCREMENT), so a reader of an older generation cannot meet another case.
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

_LABEL = 4  # where a row of cases has its label
_RECORD = "\x1f".join(["%s"] * 13)  # a row of cases without its checksum, as one text

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_REFUSED = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


class Database:
    """A connection to cases.sqlite, for reading or for writing; several threads may use it.

    Every method raises IndexDamaged where the bytes are not those written, IndexBusy where another process holds the
    file, and IndexFailure where the system refuses.
    """

    def __init__(self, path: Path, mode: str) -> None:
        """mode: "ro" to read, "rw" to write, "rwc" to write a file that may not be there yet."""
        self.path = path
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        try:
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.DatabaseError as error:
            raise self._named(error) from error

    @classmethod
    def create(cls, path: Path) -> "Database":
        """A new file, open for writing."""
        database = cls.open_writing(path, "rwc")
        with database.transaction(writing=True):
            for statement in _TABLES.split(";"):
                database._query(statement)
            database._query(f"PRAGMA application_id = {APPLICATION}")
            database._query(f"PRAGMA user_version = {SCHEMA}")
            database._write_document({})
        return database

    @classmethod
    def open_writing(cls, path: Path, mode: str = "rw") -> "Database":
        database = cls(path, mode)
        database._query("PRAGMA synchronous = EXTRA")  # a committed transaction survives a power failure
        database._query("PRAGMA foreign_keys = ON")
        database._query("PRAGMA secure_delete = ON")  # what is removed is overwritten, not only forgotten
        return database

    def close(self) -> None:
        self._connection.close()

    def check(self) -> None:
        """Raise IndexDamaged or IndexSchema where this is no case database, or one that this program cannot read."""
        if self._number("PRAGMA application_id") != APPLICATION:
            raise self._damaged("it is no case database")
        schema = self._number("PRAGMA user_version")
        if schema != SCHEMA:
            raise IndexSchema(
                f"{self.path} has index format {schema}, and this program reads format {SCHEMA}; "
                "build the index again, or use the mura-search that wrote it"
            )
        if self.path.stat().st_size % self._number("PRAGMA page_size"):
            raise self._damaged("it ends early")

    @contextlib.contextmanager
    def transaction(self, *, writing: bool = False) -> Iterator[None]:
        """What is read inside is of one moment; what is written is on the disk at the end, or not at all."""
        self._query("BEGIN IMMEDIATE" if writing else "BEGIN")
        try:
            yield
            self._query("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    def generation(self) -> int:
        """The number of transactions on the cases so far."""
        return self._number("SELECT coalesce(max(generation), 0) FROM history")

    def count(self) -> int:
        """The number of cases, as the history has it."""
        return self._number("SELECT coalesce((SELECT cases FROM history ORDER BY generation DESC LIMIT 1), 0)")

    def rows(self) -> list[Row]:
        """All case records, in row order."""
        rows = self._query("SELECT * FROM cases ORDER BY row")
        if len(rows) != self.count() or any(_record_crc(row[:-1]) != row[-1] for row in rows):
            raise self._damaged("its case records are not those written")
        return rows

    def embeddings(self, dimension: int) -> NDArray[np.float32]:
        """(N, D) in row order."""
        rows = self._query("SELECT row, vector, crc FROM embeddings ORDER BY row")
        if len(rows) != self.count() or not all(_intact(row) and len(row[1]) == 4 * dimension for row in rows):
            raise self._damaged("its embeddings are not those written")
        vectors = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f4")
        return vectors.reshape(len(rows), dimension).astype(np.float32)

    def thumbnail(self, row: int) -> bytes | None:
        """The picture of a case; None where it was removed."""
        if not self._query("SELECT 1 FROM cases WHERE row = ?", (row,)):
            return None
        found = self._query("SELECT row, image, crc FROM thumbnails WHERE row = ?", (row,))
        if not found or not _intact(found[0]):
            raise self._damaged("its thumbnails are not those written")
        image: bytes = found[0][1]
        return image

    def quarantined(self) -> dict[str, str]:
        """Case to the reason why it was set aside."""
        return dict(self._query('SELECT "case", reason FROM quarantine ORDER BY "case"'))

    def metadata(self) -> dict[str, Any]:
        found = self._query("SELECT document, crc FROM metadata")
        if not found or not isinstance(found[0][0], str) or _text_crc(found[0][0]) != found[0][1]:
            raise self._damaged("its metadata is not what was written")
        document: dict[str, Any] = json.loads(found[0][0])
        return document

    def set_metadata(self, **values: object) -> None:
        """Set JSON values, in a writing transaction."""
        self._write_document(self.metadata() | values)

    def _write_document(self, document: dict[str, Any]) -> None:
        text = json.dumps(document, allow_nan=False)
        self._query("INSERT OR REPLACE INTO metadata VALUES (1, ?, ?)", (text, _text_crc(text)))

    def add(
        self,
        cases: Sequence[Case],
        vectors: NDArray[np.float32],
        thumbnails: Sequence[bytes],
        logits: NDArray[np.float32],
    ) -> None:
        """Append n cases with (n, D) vectors, in a writing transaction. ValueError where a case is there already."""
        first = 1 + self._number("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'cases'")
        records, blobs, images = [], [], []
        for row, (case, vector, image, logit) in enumerate(zip(cases, vectors, thumbnails, logits, strict=True), first):
            record: Row = (row, case.case, case.study, case.patient, int(case.label), case.part, case.view, case.split)
            record += (case.path, case.digest, case.laterality, case.series)
            record += (float(logit) + 0.0,)  # + 0.0, since SQLite keeps no negative zero
            records.append((*record, _record_crc(record)))
            blob = vector.astype("<f4").tobytes()
            blobs.append((row, blob, _blob_crc(row, blob)))
            images.append((row, image, _blob_crc(row, image)))
        self._insert(f"INSERT INTO cases VALUES ({', '.join('?' * 14)})", records)
        self._insert("INSERT INTO embeddings VALUES (?, ?, ?)", blobs)
        self._insert("INSERT INTO thumbnails VALUES (?, ?, ?)", images)
        self._insert('DELETE FROM quarantine WHERE "case" = ?', [(case.case,) for case in cases])
        self._record("add", {"cases": len(cases)}, self.count() + len(cases))

    def remove(self, rows: Sequence[int]) -> None:
        """Remove cases with their embeddings and thumbnails, in a writing transaction; their bytes are overwritten."""
        for table in ("thumbnails", "embeddings", "cases"):
            self._insert(f"DELETE FROM {table} WHERE row = ?", [(row,) for row in rows])
        self._record("remove", {"cases": len(rows)}, self.count() - len(rows))

    def relabel(self, rows: Sequence[Row], label: int) -> None:
        """Give case records, as `rows` gave them, another label, in a writing transaction."""
        changed = []
        for row in rows:
            record: Row = (*row[:_LABEL], label, *row[_LABEL + 1 : -1])
            changed.append((label, _record_crc(record), row[0]))
        self._insert("UPDATE cases SET label = ?, crc = ? WHERE row = ?", changed)
        self._record("relabel", {"cases": len(rows), "label": LABEL_NAMES[label]}, self.count())

    def history(self) -> list[dict[str, Any]]:
        """What was done, oldest first: generation, at, action, detail and the number of cases afterwards."""
        rows = self._query("SELECT generation, at, action, detail, cases FROM history ORDER BY generation")
        names = ("generation", "at", "action", "detail", "cases")
        try:
            return [dict(zip(names, (*row[:3], json.loads(row[3]), row[4]), strict=True)) for row in rows]
        except (TypeError, ValueError) as error:
            raise self._damaged("its history is not what was written") from error

    def compact(self) -> None:
        """Give the space of what was removed back to the disk, outside a transaction. The file is written anew."""
        self._query("VACUUM")

    def structure(self) -> None:
        """Raise IndexDamaged where SQLite finds its own structure damaged, or a blob is not the one written."""
        if self._query("PRAGMA integrity_check") != [("ok",)] or self._query("PRAGMA foreign_key_check"):
            raise self._damaged("SQLite finds its structure broken")
        counts = []
        for table, column in (("embeddings", "vector"), ("thumbnails", "image")):
            last, count = 0, 0
            while rows := self._query(
                f"SELECT row, {column}, crc FROM {table} WHERE row > ? ORDER BY row LIMIT 1000", (last,)
            ):
                if not all(map(_intact, rows)):
                    raise self._damaged(f"its {table} are not those written")
                last, count = rows[-1][0], count + len(rows)
            counts.append(count)
        if counts != [self.count()] * 2:
            raise self._damaged("it has not one embedding and one thumbnail a case")

    def _record(self, action: str, detail: dict[str, Any], cases: int) -> None:
        event = (self.generation() + 1, now(), action, json.dumps(detail), cases)
        self._insert("INSERT INTO history VALUES (?, ?, ?, ?, ?)", [event])

    def quarantine(self, cases: Sequence[tuple[Case, str]]) -> None:
        """Set cases aside with a reason each, in a writing transaction."""
        rows = [
            tuple(map(_storable, (case.case, case.study, case.patient, case.path, reason))) for case, reason in cases
        ]
        self._insert("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)", rows)

    def forget_quarantined(self, where: Mapping[str, Collection[str]]) -> list[str]:
        """Forget the cases set aside whose "case", "study" and "patient" are as named, in a writing transaction."""
        rows = self._query('SELECT "case", study, patient FROM quarantine')
        named = [dict(zip(("case", "study", "patient"), row, strict=True)) for row in rows]
        found = [row["case"] for row in named if all(row.get(field) in values for field, values in where.items())]
        self._insert('DELETE FROM quarantine WHERE "case" = ?', [(case,) for case in found])
        return found

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_READONLY_ROLLBACK:
                    raise
                self._undo_the_dead()
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.ProgrammingError:  # a closed connection: a mistake in the program, not in the file
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._named(error) from error

    def _undo_the_dead(self) -> None:
        """Roll back what a killed writer left half done, which a connection that only reads must not do itself."""
        with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True)) as writing:
            writing.execute("PRAGMA schema_version").fetchall()  # reading is enough: SQLite then rolls back by itself

    def _insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(statement, rows)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"a case is in the index already, or its label is neither 0 nor 1: {error}") from error
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._named(error) from error

    def _number(self, statement: str) -> int:
        found = self._query(statement)
        if not found or not isinstance(found[0][0], int):
            raise self._damaged("its history is not what was written")
        return found[0][0]

    def _damaged(self, what: str) -> IndexDamaged:
        return IndexDamaged(f"{self.path} is damaged: {what}; build the index again, or restore it from a copy")

    def _named(self, error: sqlite3.DatabaseError | UnicodeDecodeError) -> IndexFailure:
        code = _code(error) & 0xFF  # the extended code's first byte is the kind
        if code in _BUSY:
            return IndexBusy(f"{self.path} is in use by another process; try again when that has finished")
        if _code(error) == sqlite3.SQLITE_READONLY_ROLLBACK:
            return IndexFailure(
                f"{self.path} was left half written by a process that died, and cannot be written here to undo that; "
                "open the index once as a user who may write it"
            )
        if code in _REFUSED:
            return IndexFailure(f"{self.path} cannot be used ({error}); check its permissions and the disk")
        return self._damaged("SQLite cannot read it")


def _code(error: Exception) -> int:
    """SQLite's extended result code; 0 for an error of Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0))


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _record_crc(record: Row) -> int:
    return _text_crc(_RECORD % record)


def _text_crc(text: str) -> int:
    return zlib.crc32(text.encode())


def _blob_crc(row: int, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(b"%d" % row))  # with its row, so that it cannot turn up at another


def _intact(row: Row) -> bool:
    """Whether (row, blob, crc) is what was written."""
    return isinstance(row[1], bytes) and _blob_crc(row[0], row[1]) == row[2]


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # a file's name need not be Unicode, SQLite's text must
