"""The tables of cases.sqlite, and the checksums of their rows.

Every row that means something has a CRC-32 that is checked when it is read, since SQLite notices only damage to its own
structure. They are three tables, so that reading the records does not read the other two.
"""

import zlib

from index.case import FIELDS, Case
from index.sqlite.connection import Row

__all__ = [
    "APPLICATION",
    "GENERATION",
    "READABLE",
    "SCHEMA",
    "TABLES",
    "WIDTH",
    "blob_crc",
    "case_of",
    "intact",
    "record_crc",
    "row_crc",
    "text_crc",
]

SCHEMA = 4
READABLE = (3, 4)  # in format 3 the rows of history and quarantine had no checksums
APPLICATION = 0x4D555241  # "MURA" in the file's header

# A row of history is one transaction: "add", "merge", "update", "remove", "relabel", "synthetic", "compact",
# "calibrate" or "undo-calibrate". Its number is the generation of the index. `detail` has the number of cases that it
# changed, `cases` the number of cases after it. The row number of a case is never used again (AUTOINCREMENT), so a
# reader of an older generation cannot get another case.
# `removed` has the removed rows that vectors.faiss may still hold. `pending` has the changed rows that are not up to
# date in Milvus.
TABLES = """
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
    reason TEXT NOT NULL,
    crc INTEGER
);
CREATE TABLE metadata (one INTEGER PRIMARY KEY CHECK (one = 1), document TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE history (
    generation INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL,
    cases INTEGER NOT NULL,
    crc INTEGER
)
"""

WIDTH = len(FIELDS) + 3  # columns of cases
GENERATION = "(SELECT coalesce(max(generation), 0) FROM history)"
_RECORD = "\x1f".join(["%s"] * (WIDTH - 1))  # a row of cases without its checksum, as one text


def case_of(row: Row) -> Case:
    """The record in a row of cases."""
    return Case(*row[1:-2])


def record_crc(record: Row) -> int:
    """Of a row of cases without its checksum."""
    return text_crc(_RECORD % record)


def row_crc(row: Row) -> int:
    """Of a row of history or quarantine without its checksum."""
    return text_crc("\x1f".join(map(str, row)))


def text_crc(text: str) -> int:
    return zlib.crc32(text.encode())


def blob_crc(row: int, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(b"%d" % row))  # with its row, so that a blob moved to another row is noticed


def intact(row: Row) -> bool:
    """Whether (row, blob, crc, ...) is what was written."""
    return isinstance(row[1], bytes) and blob_crc(row[0], row[1]) == row[2]
