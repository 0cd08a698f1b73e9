"""The tables of cases.sqlite, and the checksums of their rows.

Every row that means something has a CRC-32 that is checked when it is read, since SQLite notices only damage to its own
structure. They are three tables, so that reading the records does not read the other two.
"""

import zlib

from index.case import FIELDS, TEXTS, Case
from index.sqlite.connection import Row

__all__ = [
    "ADDITIONS",
    "APPLICATION",
    "COLUMNS",
    "EXTRAS",
    "FILED",
    "GENERATION",
    "LOGIT",
    "READABLE",
    "SCHEMA",
    "TABLES",
    "TEXT_COLUMNS",
    "blob_crc",
    "case_of",
    "intact",
    "record_crc",
    "row_crc",
    "text_crc",
    "whole_record",
]

SCHEMA = 5
# In format 3 the rows of history and quarantine had no checksums. In formats 3 and 4 cases had no texts, and there were
# no measures, regions or projection.
READABLE = (3, 4, 5)
APPLICATION = 0x4D555241  # "MURA" in the file's header

# A row of history is one transaction: "add", "merge", "update", "remove", "relabel", "synthetic", "compact", "file",
# "set-aside", "undo", "calibrate" or "undo-calibrate". Its number is the generation of the index. `detail` has the
# number of cases that it changed, `cases` the number of cases after it. The row number of a case is never used again
# (AUTOINCREMENT), so a reader of an older generation cannot get another case.
# `removed` has the removed rows that vectors.faiss may still hold. `pending` has the changed rows that are not up to
# date in Milvus. A row of measures, regions, projection or previews belongs to one radiograph; not each
# radiograph has one.
EXTRAS = ("measures", "regions", "projection", "previews")
ADDITIONS = "".join(
    f"""
CREATE TABLE {name} (
    row INTEGER PRIMARY KEY REFERENCES cases ON DELETE CASCADE,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
);"""
    for name in EXTRAS
)
TEXT_COLUMNS = tuple(f"{name} TEXT NOT NULL DEFAULT ''" for name in TEXTS)
TABLES = f"""
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
    crc INTEGER NOT NULL,
    {", ".join(TEXT_COLUMNS)}
);{ADDITIONS}
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

# What undoing a reader's change needs, by its generation. The first such change makes the table.
FILED = """
CREATE TABLE IF NOT EXISTS filed (
    generation INTEGER PRIMARY KEY,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
)
"""

COLUMNS = ("row", *FIELDS[: -len(TEXTS)], "logit", "crc", *TEXTS)  # of cases; the texts are missing before format 5
LOGIT = COLUMNS.index("logit")
_CRC = COLUMNS.index("crc")
GENERATION = "(SELECT coalesce(max(generation), 0) FROM history)"
_RECORD = "\x1f".join(["%s"] * _CRC)  # a row of cases without its checksum and texts, as one text


def case_of(row: Row) -> Case:
    """The record in a row of cases."""
    return Case(*row[1:LOGIT], *row[_CRC + 1 :])


def record_crc(row: Row) -> int:
    """The checksum that a row of cases should have. Empty texts do not count, so that older rows keep theirs."""
    texts = row[_CRC + 1 :]
    return text_crc(_RECORD % row[:_CRC] + ("\x1f" + "\x1f".join(texts) if any(texts) else ""))


def whole_record(row: Row) -> bool:
    """Whether a row of cases is what was written."""
    return all(isinstance(text, str) for text in row[_CRC + 1 :]) and record_crc(row) == row[_CRC]


def row_crc(row: Row) -> int:
    """Of a row of history or quarantine without its checksum."""
    return text_crc("\x1f".join(map(str, row)))


def text_crc(text: str) -> int:
    """The CRC-32 of a text in UTF-8."""
    return zlib.crc32(text.encode())


def blob_crc(row: int, blob: bytes) -> int:
    """The CRC-32 of the bytes of a row."""
    return zlib.crc32(blob, zlib.crc32(b"%d" % row))  # with its row, so that a blob moved to another row is noticed


def intact(row: Row) -> bool:
    """Whether (row, blob, crc, ...) is what was written."""
    return isinstance(row[0], int) and isinstance(row[1], bytes) and blob_crc(row[0], row[1]) == row[2]
