"""Bytes that are not those written are noticed, or do no harm; either way nothing is changed."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexDamaged, IndexFailure, IndexSchema
from index.reader import IndexReader
from tests.repetitions import repetitions

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]


def everything(place: Path) -> object:
    """All that an index answers."""
    with IndexReader.open(place) as folder:
        cases, embeddings = folder.cases(), folder.embeddings()
        thumbnails = [folder.thumbnail(case.case) for case in cases]
        hits = folder.search(embeddings[:5], 9, where={"label": ["normal"]}, exclude_patients=[["patient3"]] * 5)
        digests = [folder.find_digest(case.digest) for case in cases]
        logits, rules = folder.logits().tolist(), folder.metadata("rules")
        return cases, embeddings.tolist(), thumbnails, hits, digests, logits, rules, folder.info()["cases"]


def contents(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def assert_refused(place: Path, file: str, kind: type[IndexFailure] = IndexDamaged) -> str:
    before = contents(place)
    with pytest.raises(kind) as caught:
        IndexReader.open(place)
    message = str(caught.value)
    assert file in message
    assert "\n" not in message
    assert contents(place) == before
    return message


garbage = np.random.default_rng(0).bytes(10_000)


@pytest.mark.parametrize("file", ["cases.sqlite", "vectors.faiss"])
@pytest.mark.parametrize(
    "ruin",
    [
        lambda data: b"",
        lambda data: garbage,
        lambda data: b"path,label\n" * 500,
        lambda data: data[:10],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:-4096] if len(data) > 4096 else data[1:],
        lambda data: data[:4096] + garbage[:512] + data[4608:] if len(data) > 8192 else garbage[:512] + data[512:],
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "garbage", "text", "10 bytes", "half", "a byte short", "a page short", "overwritten", "zeros"],
)
def test_ruined_files(place: Path, file: str, ruin: object) -> None:
    assert callable(ruin)
    (place / file).write_bytes(ruin((place / file).read_bytes()))
    if file == "cases.sqlite":
        assert "build the index again" in assert_refused(place, file)
    else:
        assert "delete that file" in assert_refused(place, file)
        (place / file).unlink()  # the remedy
        IndexReader.open(place).close()


def test_missing_cases(place: Path) -> None:
    (place / "cases.sqlite").unlink()
    assert "is missing" in assert_refused(place, "cases.sqlite")


def test_another_schema_version(place: Path) -> None:
    connection = sqlite3.connect(place / "cases.sqlite")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    assert "format 9" in assert_refused(place, "cases.sqlite", IndexSchema)


def test_a_database_of_something_else(place: Path) -> None:
    (place / "cases.sqlite").unlink()
    connection = sqlite3.connect(place / "cases.sqlite")
    connection.execute("CREATE TABLE cases (row INTEGER)")
    connection.commit()
    connection.close()
    assert "not a case database" in assert_refused(place, "cases.sqlite")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cases SET label = 1 - label WHERE row = 7",
        "UPDATE cases SET patient = 'patient1' WHERE row = 8",
        "UPDATE cases SET logit = logit + 1 WHERE row = 9",
        "UPDATE cases SET row = 1000 WHERE row = 9",
        "UPDATE cases SET study = NULL WHERE row = 9",
        "DELETE FROM cases WHERE row = 60",
        "UPDATE metadata SET document = '{}'",
        "DELETE FROM metadata",
        "DELETE FROM history",
        "UPDATE history SET cases = 'sixty'",
        "DROP TABLE cases",
    ],
)
def test_records_that_do_not_match_their_checksums(place: Path, statement: str) -> None:
    connection = sqlite3.connect(place / "cases.sqlite")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '')")
    connection.commit()
    connection.close()
    connection = sqlite3.connect(place / "cases.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert_refused(place, "cases.sqlite")


@pytest.mark.parametrize("table", ["embeddings SET vector", "thumbnails SET image"])
@pytest.mark.parametrize("value", ["x'00'", "'text'", "(SELECT {1} FROM {0} WHERE row = 4)"])
def test_a_blob_that_is_not_the_one_written(place: Path, sample: Sample, table: str, value: str) -> None:
    name, column = table.split(" SET ")
    connection = sqlite3.connect(place / "cases.sqlite")
    connection.execute(f"UPDATE {table} = {value.format(name, column)} WHERE row = 3")
    connection.commit()
    connection.close()
    assert_refused(place, "cases.sqlite")  # since it is sealed
    (place / "SHA256SUMS").unlink()
    if name == "embeddings":
        (place / "vectors.faiss").unlink()
        assert_refused(place, "cases.sqlite")
        return
    with IndexReader.open(place) as folder:
        assert folder.thumbnail(sample[0][3].case) == sample[2][3]
        with pytest.raises(IndexDamaged, match="thumbnails"):
            folder.thumbnail(sample[0][2].case)


@pytest.mark.parametrize("table", [b"embeddings", b"thumbnails", b"cases"])
def test_a_row_number_that_the_structure_no_longer_keeps(place: Path, table: bytes) -> None:
    file = place / "cases.sqlite"
    data = bytearray(file.read_bytes())
    at = data.index(b"PRIMARY", data.index(b"CREATE TABLE " + table))
    data[at] ^= 1  # the column is then none that SQLite numbers, and empty
    file.write_bytes(data)
    assert_refused(place, "cases.sqlite", IndexFailure)


@pytest.mark.repeated
@given(st.data())
@settings(max_examples=repetitions(120, 2000), deadline=None)
def test_one_byte_changed_in_the_cases(template: Path, data: st.DataObject) -> None:
    """Structure, records, blobs: whichever byte it is, no answer changes in silence."""
    expected = everything(template)
    original = (template / "cases.sqlite").read_bytes()
    at = data.draw(st.integers(0, len(original) - 1) | st.integers(0, 99) | st.integers(0, 20 * 4096))
    flip = data.draw(st.integers(1, 255))
    changed = bytearray(original)
    changed[at] ^= flip
    with tempfile.TemporaryDirectory() as folder:
        place = Path(shutil.copytree(template, Path(folder, "index")))
        if data.draw(st.booleans()):
            (place / "vectors.faiss").unlink()
        (place / "cases.sqlite").write_bytes(changed)
        message = ""
        try:
            found = everything(place)
        except IndexFailure as error:
            message = str(error)
        assert "\n" not in message
        assert message or found == expected
        assert (place / "cases.sqlite").read_bytes() == bytes(changed)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_one_byte_changed_in_the_vectors(template: Path, data: st.DataObject) -> None:
    original = (template / "vectors.faiss").read_bytes()
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(shutil.copytree(template, Path(folder, "index")))
        (place / "vectors.faiss").write_bytes(changed)
        assert_refused(place, "vectors.faiss")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE embeddings SET vector = x'00' WHERE row = 3",
        "UPDATE thumbnails SET image = x'00' WHERE row = 3",
        "DELETE FROM embeddings WHERE row = 60",
        "DELETE FROM thumbnails WHERE row = 60",
    ],
)
def test_reading_everything_finds_what_opening_does_not_read(place: Path, statement: str) -> None:
    (place / "SHA256SUMS").unlink()  # as after a writer was killed
    with closing(sqlite3.connect(place / "cases.sqlite", isolation_level=None)) as connection:
        connection.execute(statement)
    with IndexReader.open(place) as reader:
        for read in (lambda: list(reader.batches()), reader.verify):
            with pytest.raises(IndexDamaged, match=r"cases\.sqlite is damaged"):
                read()


def test_a_damaged_history_is_noticed(place: Path) -> None:
    (place / "SHA256SUMS").unlink()
    with closing(sqlite3.connect(place / "cases.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE history SET detail = '{'")
    with IndexReader.open(place) as reader, pytest.raises(IndexDamaged, match="its history is not what was written"):
        reader.history()


def test_a_folder_instead_of_a_file(place: Path) -> None:
    (place / "cases.sqlite").unlink()
    (place / "cases.sqlite").mkdir()
    assert "check its permissions" in assert_refused(place, "cases.sqlite", IndexFailure)
