"""Reads cases.sqlite, the truth of an index: case records, embeddings, thumbnails, and cases set aside."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.case import LABEL_NAMES, Case
from index.errors import IndexSchema
from index.sqlite.connection import Connection, Row
from index.sqlite.schema import (
    APPLICATION,
    COLUMNS,
    EXTRAS,
    GENERATION,
    LOGIT,
    READABLE,
    SCHEMA,
    case_of,
    intact,
    row_crc,
    text_crc,
    whole_record,
)

__all__ = ["Batch", "CaseReader", "Extras", "Stored"]

Extras = Mapping[str, Sequence[bytes]]  # of `schema.EXTRAS`, one of n cases each; empty bytes for none
Stored = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Batch:
    """n cases, embeddings (n, D), thumbnails, logits (n,), and what else there is of them."""

    cases: list[Case]
    embeddings: NDArray[np.float32]
    thumbnails: list[bytes]
    logits: NDArray[np.float32]
    extras: Extras = field(default_factory=dict)

    def select(self, numbers: Sequence[int]) -> "Batch":
        """The cases with these numbers, counted from 0."""
        return Batch(
            [self.cases[n] for n in numbers],
            self.embeddings[numbers],
            [self.thumbnails[n] for n in numbers],
            self.logits[numbers],
            {table: [data[n] for n in numbers] for table, data in self.extras.items()},
        )


class CaseReader:
    """cases.sqlite, opened for reading; several threads may use it.

    Raises the errors of a `Connection`, and IndexDamaged if the bytes are not those that were written.
    """

    def __init__(self, path: Path, mode: str = "ro") -> None:
        """mode: as of `Connection`."""
        self.path = path
        self._sqlite = Connection(path, mode)
        self.transaction = self._sqlite.transaction

    def close(self) -> None:
        self._sqlite.close()

    def check(self) -> None:
        """Raise IndexDamaged if this is not a case database, IndexSchema if it has another format."""
        if self._sqlite.number("PRAGMA application_id") != APPLICATION:
            raise self._sqlite.damaged("it is not a case database")
        schema = self.schema()
        if schema not in READABLE:
            raise IndexSchema(
                f"{self.path} has index format {schema}, and this program reads formats up to {SCHEMA}; "
                "build the index again, or use the mura-search that wrote it"
            )
        others = self._sqlite.number("SELECT count(*) FROM sqlite_master WHERE type IN ('trigger', 'view')")
        columns = [name for (name,) in self._sqlite.query("SELECT name FROM pragma_table_info('cases')")]
        if others or columns != list(COLUMNS[: len(columns)]) or (len(columns) == len(COLUMNS)) != (schema == SCHEMA):
            raise self._sqlite.damaged("its tables are not those that were written")
        if self.path.stat().st_size % self._sqlite.number("PRAGMA page_size"):
            raise self._sqlite.damaged("it ends early")

    def schema(self) -> int:
        """The format of the file."""
        return self._sqlite.number("PRAGMA user_version")

    def image(self) -> bytes:
        """The bytes of the database, read through SQLite, in a transaction.

        Opening and closing the file here would end SQLite's lock on it. The file may be longer than the database:
        SQLite cuts it after the commit, and a process may die in between.
        """
        image = self._sqlite.image()
        if len(image) > self.path.stat().st_size:
            raise self._sqlite.damaged("it ends early")
        return image

    def generation(self) -> int:
        """The number of transactions so far."""
        return self._sqlite.number(f"SELECT {GENERATION}")

    def count(self) -> int:
        """The number of cases, from the history."""
        return self._sqlite.number("SELECT coalesce((SELECT cases FROM history ORDER BY generation DESC LIMIT 1), 0)")

    # Cases.

    def cases(self) -> list[Case]:
        """All cases, in row order."""
        return [case_of(row) for row in self._rows()]

    def logits(self) -> NDArray[np.float32]:
        """(N,) in row order."""
        return np.array([row[LOGIT] for row in self._rows()], dtype=np.float32)

    def records(self, rows: Sequence[int]) -> tuple[int, dict[int, Case]]:
        """The generation, and the cases of the rows that exist, both of one moment."""
        statement = f"SELECT *, {GENERATION} FROM cases WHERE row IN (SELECT value FROM json_each(?))"
        records = self._sqlite.query(statement, [str(list(rows))])  # the same text each time: SQLite keeps it prepared
        generation = records[0][-1] if records else self.generation()
        return generation, {row[0]: case_of(row) for row in map(self._checked, (row[:-1] for row in records))}

    def rows_of(self, patients: Collection[str]) -> tuple[int, list[int]]:
        """The generation, and the rows of the patients' cases, in any order.

        The rows are of that generation, unless it changed during the call.
        """
        statement = f"SELECT {GENERATION}, group_concat(row) FROM cases WHERE patient IN {{}}"
        records = self._sqlite.query_in(statement, patients)
        generation = records[-1][0] if records else self.generation()
        return generation, [int(row) for _, rows in records if rows for row in rows.split(",")]

    def rows_where(self, field: str, values: Collection[str]) -> NDArray[np.int64]:
        """The rows (n,) whose field is one of the values, in any order; the label is "normal" or "abnormal"."""
        wanted = [LABEL_NAMES.index(value) for value in values] if field == "label" else values
        records = self._sqlite.query_in(f'SELECT row FROM cases WHERE "{field}" IN {{}}', wanted)
        return np.fromiter((row for (row,) in records), dtype=np.int64, count=len(records))

    def cases_where(self, field: str, values: Collection[str]) -> dict[int, Case]:
        """The cases whose field is one of the values, by row, in row order."""
        records = self._sqlite.query_in(f'SELECT * FROM cases WHERE "{field}" IN {{}}', values)
        return {row[0]: case_of(row) for row in map(self._checked, sorted(records))}

    def last(self) -> int:
        """The highest row number ever given; 0 if none was."""
        return self._sqlite.number("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'cases'")

    def known(self, field: str, values: Collection[str], last: int = 2**62) -> dict[str, list[Case]]:
        """The values of a field that exist up to a row, each with its cases."""
        known: dict[str, list[Case]] = {}
        for row, case in self.cases_where(field, values).items():
            if row <= last:
                known.setdefault(getattr(case, field), []).append(case)
        return known

    def counts(self, field: str) -> dict[str, int]:
        """The number of cases for each value of a field, sorted by value; labels by name."""
        groups = self._sqlite.query(f'SELECT "{field}", count(*) FROM cases GROUP BY 1 ORDER BY 1')
        if any(value not in (0, 1) if field == "label" else not isinstance(value, str) for value, _ in groups):
            raise self._sqlite.damaged("its case records are not those that were written")
        return {LABEL_NAMES[value] if field == "label" else value: count for value, count in groups}

    def labels(self) -> tuple[str, ...]:
        """The labels that any case has. This stops at the first case of each, since an index may be large."""
        statement = "SELECT EXISTS(SELECT 1 FROM cases WHERE label = ?)"
        return tuple(name for label, name in enumerate(LABEL_NAMES) if self._sqlite.number(statement, [label]))

    def distinct(self, field: str) -> int:
        """The number of different values of a field."""
        return self._sqlite.number(f'SELECT count(*) FROM (SELECT DISTINCT "{field}" FROM cases)')

    def thumbnail(self, case: str) -> bytes | None:
        """The thumbnail of a case; None if there is no such case."""
        return self._blob("SELECT row, image, crc FROM thumbnails WHERE row = ?", case, "thumbnails")

    def preview(self, case: str) -> bytes | None:
        """The preview of a case; None if there is no such case, or it has none."""
        if "previews" not in self._extras():
            return None
        return next(iter(self.extra("previews", self.rows_where("case", [case]).tolist()).values()), None)

    def embedding(self, case: str) -> NDArray[np.float32] | None:
        """(D,) of a case; None if there is no such case."""
        blob = self._blob("SELECT row, vector, crc FROM embeddings WHERE row = ?", case, "embeddings")
        return None if blob is None else np.frombuffer(blob, "<f4")

    def batches(self, dimension: int, size: int = 1024) -> Iterator[Batch]:
        """All cases with their data, in row order."""
        statement = (
            "SELECT cases.*, row, vector, e.crc, row, image, t.crc "
            "FROM cases JOIN embeddings AS e USING (row) JOIN thumbnails AS t USING (row) ORDER BY row"
        )
        count = 0
        for rows in self._sqlite.stream(statement, size=size):
            count += len(rows)
            yield self._batch(rows, dimension)
        if count != self.count():
            raise self._sqlite.damaged("it does not have one embedding and one thumbnail for each case")

    def _batch(self, rows: Sequence[Row], dimension: int) -> Batch:
        """The cases of rows of cases, each followed by (row, blob, crc) of its embedding and of its thumbnail."""
        records = [self._checked(row[:-6]) for row in rows]
        blobs = [row[-6:-3] for row in rows]
        images = [row[-3:] for row in rows]
        if not all(map(intact, blobs + images)) or any(len(blob[1]) != 4 * dimension for blob in blobs):
            raise self._sqlite.damaged("its embeddings or thumbnails are not those that were written")
        numbers = [record[0] for record in records]
        extras = {table: self.extra(table, numbers) for table in self._extras()}
        return Batch(
            [case_of(record) for record in records],
            np.frombuffer(b"".join(blob[1] for blob in blobs), "<f4").reshape(-1, dimension),
            [image[1] for image in images],
            np.array([record[LOGIT] for record in records], dtype=np.float32),
            {table: [data.get(row, b"") for row in numbers] for table, data in extras.items() if data},
        )

    def study(self, study: str, dimension: int) -> Batch:
        """The cases of a study with their data, in row order; none if it is unknown."""
        rows = self._sqlite.query(
            "SELECT cases.*, row, vector, e.crc, row, image, t.crc FROM cases JOIN embeddings AS e USING (row) "
            "JOIN thumbnails AS t USING (row) WHERE study = ? ORDER BY row",
            (study,),
        )
        return self._batch(rows, dimension)

    def extra(self, table: str, rows: Collection[int]) -> dict[int, bytes]:
        """What one of the tables `EXTRAS` holds of these rows; empty for an older index."""
        if table not in self._extras():
            return {}
        records = self._sqlite.query_in(f"SELECT row, data, crc FROM {table} WHERE row IN {{}}", rows)
        return self._intact(records, table)

    def has_extra(self, table: str) -> bool:
        """Whether one of the tables `EXTRAS` holds something of any case."""
        return table in self._extras() and bool(self._sqlite.query(f"SELECT 1 FROM {table} LIMIT 1"))

    def extra_of_all(self, table: str) -> list[bytes]:
        """What one of the tables `EXTRAS` holds of each case, in row order; b"" for nothing."""
        if table not in self._extras():
            return [b""] * self.count()
        rows = self._sqlite.query(f"SELECT row, data, crc FROM {table}")
        data = self._intact(rows, table)
        return [data.get(row, b"") for (row,) in self._sqlite.query("SELECT row FROM cases ORDER BY row")]

    def _extras(self) -> tuple[str, ...]:
        return EXTRAS if self.schema() == SCHEMA else ()

    def _intact(self, rows: Sequence[Row], table: str) -> dict[int, bytes]:
        if not all(map(intact, rows)):
            raise self._sqlite.damaged(f"its {table} are not those that were written")
        return {row: data for row, data, _ in rows}

    # For vectors.faiss and Milvus.

    def vectors(self, dimension: int, after: int = 0) -> Stored:
        """Rows (n,), studies (n,) and embeddings (n, D) of the cases beyond row `after`, in row order.

        The number of a study is the row of its first case, which may be at or before `after`.
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
        for batch in self._sqlite.stream(statement, (after,)):
            end = at + len(batch)
            if end > n or not all(intact(row) and len(row[1]) == 4 * dimension and row[3] for row in batch):
                raise self._sqlite.damaged("its embeddings are not those that were written")
            rows[at:end] = [row[0] for row in batch]
            studies[at:end] = [row[3] for row in batch]
            vectors[at:end] = np.frombuffer(b"".join(row[1] for row in batch), "<f4").reshape(len(batch), dimension)
            at = end
        if at != n or (after == 0 and n != self.count()):
            raise self._sqlite.damaged("it does not have one embedding for each case")
        return rows, studies, vectors

    def vectors_of(self, rows: Collection[int], dimension: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Row numbers (n,) and embeddings (n, D) of the rows that exist, in row order."""
        records = sorted(self._sqlite.query_in("SELECT row, vector, crc FROM embeddings WHERE row IN {}", rows))
        if not all(intact(row) and len(row[1]) == 4 * dimension for row in records):
            raise self._sqlite.damaged("its embeddings are not those that were written")
        vectors = np.frombuffer(b"".join(row[1] for row in records), "<f4").reshape(len(records), dimension)
        return np.array([row[0] for row in records], dtype=np.int64), vectors.astype(np.float32)

    def removed(self) -> NDArray[np.int64]:
        """The rows (n,) of removed cases that vectors.faiss may still hold, sorted."""
        return np.array([row for (row,) in self._sqlite.query("SELECT row FROM removed ORDER BY row")], dtype=np.int64)

    def pending(self) -> list[int]:
        """The rows that are not up to date in Milvus, sorted."""
        return [row for (row,) in self._sqlite.query("SELECT row FROM pending ORDER BY row")]

    def behind(self, last: int) -> int:
        """The number of cases added or removed since vectors.faiss was written with this last row."""
        added = self._sqlite.number("SELECT count(*) FROM embeddings WHERE row > ?", (last,))
        return added + self._sqlite.number("SELECT count(*) FROM removed WHERE row <= ?", (last,))

    # Metadata, history, and what was set aside.

    def metadata(self) -> dict[str, Any]:
        records = self._sqlite.query("SELECT document, crc FROM metadata")
        if not records or not isinstance(records[0][0], str) or text_crc(records[0][0]) != records[0][1]:
            raise self._sqlite.damaged("its metadata is not what was written")
        return dict(json.loads(records[0][0]))

    def history(self) -> list[dict[str, Any]]:
        """The changes, oldest first: generation, at, action, detail and the number of cases afterwards."""
        names = ("generation", "at", "action", "detail", "cases")
        rows = self._rows_with_crc("history", 5)
        try:
            return [dict(zip(names, (*row[:3], json.loads(row[3]), row[4]), strict=True)) for row in rows]
        except (TypeError, ValueError) as error:
            raise self._sqlite.damaged("its history is not what was written") from error

    def quarantined(self) -> dict[str, str]:
        """The cases set aside, with their reasons."""
        return {case.case: reason for case, reason in self.set_aside()}

    def set_aside(self) -> list[tuple[Case, str]]:
        """The cases set aside, as `Case` with label 0, with their reasons."""
        rows = self._rows_with_crc("quarantine", 5)
        return [(Case(case, study, patient, 0, path=path), reason) for case, study, patient, path, reason in rows]

    def filed(self) -> dict[int, bytes]:
        """What undoing the readers' changes needs, by their generation, in its order."""
        if not self._sqlite.number("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'filed'"):
            return {}
        rows = self._sqlite.query("SELECT generation, data, crc FROM filed ORDER BY generation")
        if not all(map(intact, rows)):
            raise self._sqlite.damaged("the changes that can be undone are not those that were written")
        return {row[0]: row[1] for row in rows}

    def _rows_with_crc(self, table: str, width: int) -> list[Row]:
        """The rows of history or quarantine, in order, without their checksums."""
        rows = self._sqlite.query(f"SELECT * FROM {table} ORDER BY 1")
        if any(row[width:] not in {(), (row_crc(row[:width]),)} for row in rows):
            raise self._sqlite.damaged(f"its {table} is not what was written")
        return [row[:width] for row in rows]

    # Everything.

    def verify(self) -> None:
        """Raise IndexDamaged if SQLite's structure is damaged, or data are not those that were written."""
        if self._sqlite.query("PRAGMA integrity_check") != [("ok",)] or self._sqlite.query("PRAGMA foreign_key_check"):
            raise self._sqlite.damaged("SQLite finds its structure broken")
        cases = sum(1 for _ in self._rows())
        self.metadata(), self.quarantined(), self.filed()
        if [entry["generation"] for entry in self.history()] != list(range(1, self.generation() + 1)):
            raise self._sqlite.damaged("its history is not what was written")
        counts = []
        for table, column in (("embeddings", "vector"), ("thumbnails", "image")):
            count = 0
            for rows in self._sqlite.stream(f"SELECT row, {column}, crc FROM {table} ORDER BY row", size=1024):
                if not all(map(intact, rows)):
                    raise self._sqlite.damaged(f"its {table} are not those that were written")
                count += len(rows)
            counts.append(count)
        if counts != [cases] * 2:
            raise self._sqlite.damaged("it does not have one embedding and one thumbnail for each case")
        for table in self._extras():
            for rows in self._sqlite.stream(f"SELECT row, data, crc FROM {table}", size=1024):
                self._intact(rows, table)

    def _rows(self) -> Iterator[Row]:
        """All rows of cases, in their order."""
        count = 0
        for rows in self._sqlite.stream("SELECT * FROM cases ORDER BY row"):
            count += len(rows)
            yield from map(self._checked, rows)
        if count != self.count():
            raise self._sqlite.damaged("its case records are not those that were written")

    def _checked(self, row: Row) -> Row:
        if not whole_record(row):
            raise self._sqlite.damaged("its case records are not those that were written")
        return row

    def _blob(self, statement: str, case: str, content: str) -> bytes | None:
        rows = self.rows_where("case", [case]).tolist()
        if not rows:
            return None
        records = self._sqlite.query(statement, rows)
        if not records and not len(self.rows_where("case", [case])):
            return None  # removed a moment ago
        if not records or not intact(records[0]):
            raise self._sqlite.damaged(f"its {content} are not those that were written")
        return bytes(records[0][1])
