"""Verifying finds every byte that was changed, whatever the byte means."""

import json
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from index import checksums, opening
from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexBusy, IndexDamaged, IndexFailure
from index.reader import IndexReader
from index.sqlite.reader import CaseReader
from index.sqlite.schema import EXTRAS
from index.writer import IndexWriter

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]


@pytest.fixture
def edited(place: Path) -> Path:
    """An index with everything that changes leave behind: free pages, gaps in pages, a history."""
    with IndexWriter.open(place) as edit:
        edit.remove({"patient": ["patient3", "patient4", "patient5"]})
        edit.relabel("study7", 0)
    return place


def is_noticed(place: Path) -> bool:
    """Whether an index is refused, or said not to be checked in full."""
    try:
        with IndexReader.open(place) as opened:
            return not opened.verify()
    except IndexFailure:
        return True


def test_an_index_is_sealed_whenever_it_is_left(edited: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=edited, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    with IndexReader.open(edited) as opened:
        assert opened.verify()
        assert opened.info()["sealed"]


def test_every_flipped_byte_is_found(edited: Path) -> None:
    """A sample of all bytes of all files, and all of the small ones; every bit comes up."""
    rng = np.random.default_rng(5)
    files = sorted(path for path in edited.rglob("*") if path.is_file())
    names = [path.name for path in files]
    assert names == ["SHA256SUMS", "cases.sqlite", "model.json", "encoder.onnx", "vectors.faiss"]
    found = 0
    for file in files:
        original = file.read_bytes()
        places = range(len(original)) if len(original) < 300 else rng.choice(len(original), 150, replace=False)
        for at in places:
            changed = bytearray(original)
            changed[at] ^= 1 << (found % 8)
            file.write_bytes(changed)
            assert is_noticed(edited), f"{file.name}, byte {at}"
            found += 1
        file.write_bytes(original)
    assert found > 600
    assert not is_noticed(edited)


def test_zeros_and_free_pages_are_not_beneath_notice(edited: Path) -> None:
    """The bytes of a database that mean nothing: those of what was removed."""
    cases = edited / "cases.sqlite"
    original = cases.read_bytes()
    page = original.find(bytes(4096)) + 1000  # within a page that is free
    assert page >= 1000
    cases.write_bytes(original[:page] + b"x" + original[page + 1 :])
    assert is_noticed(edited)


def test_without_the_seal_what_means_something_is_still_checked(edited: Path, sample: Sample) -> None:
    (edited / "SHA256SUMS").unlink()
    with IndexReader.open(edited) as folder:
        assert not folder.verify()
    cases = edited / "cases.sqlite"
    cases.write_bytes(cases.read_bytes().replace(sample[2][0][:50], bytes(50)))
    with IndexReader.open(edited) as folder, pytest.raises(IndexDamaged, match="thumbnails"):
        folder.verify()


def test_a_large_index_is_opened_without_reading_it_all(
    edited: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond the size that is read on opening is found when it is shown, and by verifying."""
    monkeypatch.setattr("index.opening.CHECKED", 0)
    monkeypatch.setattr("index.vectors.vector_file.CHECKED", 0)
    for name in ("cases.sqlite", "vectors.faiss"):
        file = edited / name
        original = file.read_bytes()
        at = original.rfind(b"finger") if name == "cases.sqlite" else len(original) // 3
        file.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        with IndexReader.open(edited) as folder, pytest.raises(IndexDamaged):
            folder.verify()
        file.write_bytes(original)
    with IndexReader.open(edited) as folder:
        assert folder.verify()


@pytest.mark.parametrize("change", ["remove", "relabel", "add"])
def test_a_change_of_a_large_index_is_sealed_by_compacting(
    edited: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("index.writer.SEALED", 0)
    changes: dict[str, Callable[[IndexWriter], object]] = {
        "remove": lambda edit: edit.remove({"study": ["study8"]}),
        "relabel": lambda edit: edit.relabel("study8", 1),
        "add": lambda edit: edit.add([Case("new.png", "new", "new", 1)], sample[1][:1], [b"x"], sample[3][:1]),
    }
    with IndexWriter.open(edited) as edit:
        changes[change](edit)
    with IndexReader.open(edited) as folder:
        assert not folder.verify()
        assert not folder.info()["sealed"]
    with IndexWriter.open(edited) as edit:
        edit.compact()
    with IndexReader.open(edited) as folder:
        assert folder.verify()


WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    database.execute("BEGIN EXCLUSIVE")
except sqlite3.OperationalError as error:
    print(error)
"""


def test_nobody_writes_between_the_checksums_and_what_they_are_compared_with(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open and close a file ends all locks that a process has on it, SQLite's as well."""
    answers: list[str] = []

    def writing(*arguments: Any) -> Any:
        command = [sys.executable, "-c", WRITER, str(place / "cases.sqlite")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        answers.append(done.stdout.strip())
        return read_generation(*arguments)

    read_generation = opening.read_generation
    monkeypatch.setattr(opening, "read_generation", writing)
    IndexReader.open(place).close()
    assert set(answers) == {"database is locked"}


@pytest.mark.parametrize("times", [1, 9])
def test_a_change_while_everything_is_verified(place: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """It is made at once, and is not taken for damage: the index is verified again."""
    digest, labels = checksums._digest, iter([0, 1] * times)

    def changed(file: Path) -> str:
        if file.name == "vectors.faiss" and (label := next(labels, None)) is not None:
            monkeypatch.setattr(checksums, "_digest", digest)
            with IndexWriter.open(place) as writer:
                assert writer.relabel("study7", label) > 0
            monkeypatch.setattr(checksums, "_digest", changed)
        return digest(file)

    with IndexReader.open(place) as opened:
        monkeypatch.setattr(checksums, "_digest", changed)
        if times == 1:
            assert opened.verify()
        else:
            with pytest.raises(IndexBusy, match="changes faster"):
                opened.verify()


@pytest.mark.parametrize("first_line", [b"# generation 7\n", b""])
def test_stale_checksums_are_told_from_damage_and_renewed(place: Path, first_line: bytes) -> None:
    """As two writers leave them whose locks did not exclude each other."""
    lines = (place / "SHA256SUMS").read_bytes().splitlines(keepends=True)
    (place / "SHA256SUMS").write_bytes(first_line + b"".join(lines[1:]).replace(b"a", b"b"))
    with IndexReader.open(place) as opened:
        assert len(opened.cases()) == 60
        if first_line:
            assert not opened.verify()
        else:
            with pytest.raises(IndexDamaged, match="index compact"):
                opened.verify()
    with IndexWriter.open(place) as writer:
        if not first_line:
            writer.compact()
    with IndexReader.open(place) as opened:
        assert opened.verify()


@pytest.mark.parametrize("table", ["history", "quarantine", "model"])
def test_without_the_sums_a_change_of_a_name_of_the_history_or_of_the_model_is_found(
    tmp_path: Path, model: Path, sample: Sample, table: str
) -> None:
    place = tmp_path / "index"
    with IndexBuilder.start(place, model=model, dimension=8, fingerprint="f") as build:
        build.add(*sample)
        build.quarantine([(Case("JaneRoe/1.png", "Roe-1", "JaneRoe", 0, path="/d/1.png"), "it is empty")])
        build.finish()
    (place / "SHA256SUMS").unlink()
    with IndexReader.open(place) as reader:
        assert not reader.verify()
    if table == "model":
        (place / "model" / "model.json").write_text("[]")
        with pytest.raises(IndexDamaged, match=r"model\.json is damaged"):
            IndexReader.open(place)
        (place / "model" / "model.json").write_text("{}")
        (place / "model" / "parts" / "encoder.onnx").unlink()
        with pytest.raises(IndexDamaged, match=r"encoder\.onnx is damaged or missing"):
            IndexReader.open(place)
        return
    file = place / "cases.sqlite"
    data = file.read_bytes()
    for word in (b"JaneRoe", b"Roe-1", b"it is empty") if table == "quarantine" else (b'{"cases": 60}', b"+00:00"):
        at = data.rindex(word)
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with IndexReader.open(place) as reader, pytest.raises(IndexDamaged, match=rf"{table}|structure|not what"):
            reader.verify()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE history SET generation = 7")
    with IndexReader.open(place) as reader, pytest.raises(IndexDamaged):
        reader.verify()


def without_format_5(connection: sqlite3.Connection) -> None:
    """Take what format 5 added from cases.sqlite."""
    for column in ("finding", "report"):
        connection.execute(f"ALTER TABLE cases DROP COLUMN {column}")
    for table in EXTRAS:
        connection.execute(f"DROP TABLE {table}")


def test_an_index_of_format_4_is_read_and_becomes_format_5_with_its_next_change(place: Path) -> None:
    with closing(sqlite3.connect(place / "cases.sqlite", isolation_level=None)) as connection:
        without_format_5(connection)
        connection.execute("PRAGMA user_version = 4")
    (place / "SHA256SUMS").unlink()
    with IndexReader.open(place) as reader:
        reader.verify()
        assert reader.info()["schema"] == 4
        before = reader.cases()
        changed = [replace(before[0], finding="fracture", report="Seen."), *before[1:]]
        with IndexWriter.open(place) as writer:
            writer.update(changed[:1])
        reader.refresh()
        assert reader.cases() == changed
        reader.verify()
        assert reader.info()["schema"] == 5


def test_an_index_of_format_3_is_read_and_becomes_format_5_with_its_next_change(place: Path, sample: Sample) -> None:
    with closing(sqlite3.connect(place / "cases.sqlite", isolation_level=None)) as connection:
        document = json.loads(connection.execute("SELECT document FROM metadata").fetchone()[0])
        del document["model"]
        document["values"]["collection"] = {"layout": "mura", "notes": ["missing: train/patient7/image1.png"]}
        text = json.dumps(document)
        connection.execute("UPDATE metadata SET document = ?, crc = ?", (text, zlib.crc32(text.encode())))
        bad = ("bad.png", "s", "patient9", "/d/bad.png", "it is empty")
        for table in ("history", "quarantine"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN crc")
        connection.execute("INSERT INTO quarantine VALUES (?, ?, ?, ?, ?)", bad)
        without_format_5(connection)
        connection.execute("PRAGMA user_version = 3")
    sums = subprocess.run(
        ["sha256sum", "cases.sqlite", "model/model.json", "model/parts/encoder.onnx", "vectors.faiss"],
        cwd=place,
        capture_output=True,
        check=True,
    )
    (place / "SHA256SUMS").write_bytes(sums.stdout)
    with IndexReader.open(place) as reader:
        assert reader.verify()
        assert reader.info()["schema"] == 3
        before = reader.history()
        assert reader.model_files().keys() == {"model.json", "parts/encoder.onnx"}
    with IndexWriter.open(place) as writer:
        writer.remove({"patient": ["patient7"]})
    with IndexReader.open(place) as reader:
        assert reader.verify()
        assert reader.info()["schema"] == 5
        assert reader.history()[:-1] == before
        assert [case.case for case, _ in reader.set_aside()] == ["bad.png"]
        assert reader.metadata("collection") == {"layout": "mura", "notes": []}
    assert b"patient7/" not in (place / "cases.sqlite").read_bytes()


def test_half_of_a_change_that_was_rolled_back_is_not_taken_for_damage(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, times = CaseReader.verify, iter([1])

    def torn(reader: CaseReader) -> None:
        for _ in times:
            raise IndexDamaged("half of a change was read")
        verify(reader)

    monkeypatch.setattr(CaseReader, "verify", torn)
    with IndexReader.open(place) as opened:
        assert opened.verify()


def test_half_of_a_change_that_is_met_at_opening_is_a_change(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(path: Path, mode: str) -> CaseReader:
        with IndexWriter.open(place) as writer:
            writer.remove({"patient": ["patient7"]})
        raise IndexDamaged("half of a change was read")

    with IndexReader.open(place) as opened:
        monkeypatch.setattr("index.reader.CaseReader", torn)
        with pytest.raises(IndexBusy):
            opened.cases()
