"""Hostile bytes instead of cases.sqlite: an error of this program, or an answer; never another exception."""

import random
import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexFailure
from index.reader import IndexReader
from index.writer import IndexWriter
from tests.repetitions import repetitions

PAGE = 4096
STATEMENTS = (
    "UPDATE cases SET logit = 'x' WHERE row = 3",
    "UPDATE cases SET study = x'ff00' WHERE row = 2",
    "UPDATE cases SET label = label",
    "UPDATE cases SET \"case\" = 'a' || row",
    "DELETE FROM embeddings WHERE row = 5",
    "UPDATE embeddings SET vector = 'abc' WHERE row = 4",
    "UPDATE thumbnails SET image = 12 WHERE row = 4",
    "UPDATE metadata SET document = '{}'",
    "UPDATE metadata SET document = '[1'",
    "UPDATE metadata SET document = x'ff'",
    "DELETE FROM metadata",
    "INSERT INTO history VALUES (999, 'x', 'y', 'z', -5, 0)",
    "UPDATE history SET generation = -generation",
    "UPDATE history SET cases = 'x'",
    "UPDATE history SET detail = 5",
    "DROP TABLE removed",
    "DROP TABLE history",
    "DROP TABLE cases",
    "CREATE VIEW x AS SELECT 1",
    "UPDATE sqlite_sequence SET seq = -1",
    "INSERT INTO removed VALUES (3)",
    "INSERT INTO quarantine VALUES (x'ff', x'ff', '', '', '', 0)",
    "PRAGMA user_version = 3",
    "PRAGMA user_version = 99",
    "PRAGMA application_id = 1",
    "PRAGMA journal_mode = WAL",
    "CREATE TRIGGER t AFTER INSERT ON history BEGIN DELETE FROM cases; END",
    "ALTER TABLE cases ADD COLUMN zz TEXT",
    "ALTER TABLE history DROP COLUMN crc",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text("{}")
    cases = [Case(f"{n}.png", f"s{n // 2}", f"p{n // 4}", n // 2 % 2, digest=f"{n:064x}") for n in range(40)]
    vectors = np.random.default_rng(3).normal(size=(40, 8))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    with IndexBuilder.start(folder / "index", model=folder / "model", dimension=8, fingerprint="f") as build:
        build.add(cases, unit, [bytes([n]) * 900 for n in range(40)], np.zeros(40, np.float32))
        build.quarantine([(Case("bad.png", "s", "p9", 0), "it is empty")])
        build.finish()
    with IndexWriter.open(folder / "index") as writer:
        writer.remove({"patient": ["p4"]})
    return folder / "index"


def mutated(data: bytes, random_: random.Random) -> bytes:
    """The bytes with one kind of harm done to them."""
    changed, pages = bytearray(data), len(data) // PAGE
    page = random_.randrange(pages) * PAGE
    match random_.choice(["head", "flips", "integer", "swap", "zero", "cut", "longer"]):
        case "head":
            for _ in range(random_.choice([1, 2, 4])):
                changed[random_.randrange(100)] = random_.randrange(256)
        case "flips":
            for _ in range(random_.choice([1, 5, 50])):
                changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
        case "integer":  # in the header of a page
            at = page + (0 if page else 100) + random_.randrange(12)
            changed[at : at + 2] = struct.pack(">H", random_.choice([0, 1, 0xFFFF, 4096, 100]))
        case "swap":
            other = random_.randrange(pages) * PAGE
            changed[page : page + PAGE], changed[other : other + PAGE] = (
                data[other : other + PAGE],
                data[page : page + PAGE],
            )
        case "zero":
            changed[page : page + PAGE] = bytes(PAGE)
        case "cut":
            del changed[random_.randrange(len(changed)) :]
        case "longer":
            changed += random_.randbytes(random_.choice([1, PAGE, 10_000]))
    return bytes(changed)


def use(place: Path) -> None:
    """Everything that commands do with an index."""
    query = np.eye(8, dtype=np.float32)[:1]

    def ask() -> None:
        with IndexReader.open(place) as reader:
            for action in (reader.info, reader.history, reader.set_aside, reader.cases, reader.logits, reader.verify):
                with suppress(IndexFailure):
                    action()
            with suppress(IndexFailure):
                for hit in reader.search(query, 5, where={"label": ["normal"]}, exclude_patients=[["p1"]])[0]:
                    reader.thumbnail(hit.case.case)

    def change(action: Callable[[IndexWriter], object]) -> None:
        with IndexWriter.open(place) as writer:
            action(writer)

    for step in (
        ask,
        lambda: change(lambda writer: writer.remove({"patient": ["p1"]})),
        lambda: change(lambda writer: writer.relabel("s9", 1) if writer.find("study", ["s9"]) else None),
        lambda: change(lambda writer: writer.add([Case("new.png", "new", "new", 1)], query, [b"x"], query[0, :1])),
        lambda: change(lambda writer: writer.compact()),
        ask,
    ):
        with suppress(IndexFailure):
            step()


@pytest.mark.repeated
def test_mutated_bytes(template: Path, tmp_path: Path, copied: Callable[[Path, Path], Path]) -> None:
    data = (template / "cases.sqlite").read_bytes()
    for seed in range(repetitions(60, 3000)):
        place = copied(template, tmp_path / str(seed))
        random_ = random.Random(seed)
        (place / "cases.sqlite").write_bytes(mutated(data, random_))
        if random_.random() < 0.1:
            (place / "cases.sqlite-journal").write_bytes(random_.randbytes(random_.choice([0, 28, 512, 5000])))
        use(place)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_content_that_another_program_wrote(
    template: Path, tmp_path: Path, copied: Callable[[Path, Path], Path], statement: str
) -> None:
    place = copied(template, tmp_path / "index")
    with closing(sqlite3.connect(place / "cases.sqlite", isolation_level=None)) as connection:
        connection.execute(statement)
    use(place)


@pytest.fixture
def copied() -> Callable[[Path, Path], Path]:
    """Copies an index without its SHA256SUMS, as after a writer was killed."""

    def copy(template: Path, place: Path) -> Path:
        shutil.copytree(template, place)
        (place / "SHA256SUMS").unlink()
        return place

    return copy
