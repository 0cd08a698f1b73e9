"""An index that is opened: missing, moved, replaced, being written, without FAISS."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from index.errors import IndexBusy, IndexFailure, IndexMissing, MissingExtra
from index.reader import IndexReader
from index.writer import IndexWriter
from tests.index.contents import Sample, oracle

Write = Callable[[Path, Sample], Path]


def test_no_index_at_the_place(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("empty", "file", "nothing", "file/beneath"):
        with pytest.raises(IndexMissing, match="mura-search index build"):
            IndexReader.open(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


def test_missing_vectors_are_written_by_the_next_writer(place: Path, template: Path, sample: Sample) -> None:
    for name in ("vectors.faiss", "SHA256SUMS"):
        (place / name).unlink()
    with IndexReader.open(place) as folder:
        assert not folder.verify()
        assert folder.search(sample[1], 7) == [oracle(sample, query, 7, {}, set()) for query in sample[1]]
    assert not (place / "vectors.faiss").exists()  # a reader writes nothing
    IndexWriter.open(place).close()
    assert (place / "vectors.faiss").read_bytes() == (template / "vectors.faiss").read_bytes()
    assert sorted(path.name for path in place.iterdir()) == ["SHA256SUMS", "cases.sqlite", "model", "vectors.faiss"]


def test_vectors_of_another_index_are_not_believed(
    tmp_path: Path, place: Path, template: Path, write_index: Write, sample: Sample
) -> None:
    cases, embeddings, thumbnails, logits = sample
    other = write_index(tmp_path / "other", (cases, -embeddings, thumbnails, logits))
    shutil.copy(other / "vectors.faiss", place / "vectors.faiss")
    with IndexReader.open(place) as folder:
        assert folder.search(embeddings[:1], 3) == [oracle(sample, embeddings[0], 3, {}, set())]
    IndexWriter.open(place).close()
    assert (place / "vectors.faiss").read_bytes() == (template / "vectors.faiss").read_bytes()


def test_an_index_may_have_any_name(tmp_path: Path, template: Path, sample: Sample) -> None:
    place = shutil.copytree(template, tmp_path / "a ? b # 100% ü")
    with IndexReader.open(place) as folder:
        assert folder.thumbnail(sample[0][0].case) == sample[2][0]


def test_an_index_being_written_is_busy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.sqlite.connection.PATIENCE_S", 0.01)
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE');"
            "print('held', flush=True); sys.stdin.read()",
            str(place / "cases.sqlite"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"held\n"
        with pytest.raises(IndexBusy, match="in use by another process"):
            IndexReader.open(place)
        writer.communicate()
    IndexReader.open(place).close()


def test_without_faiss_the_extra_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "index.vectors.faiss")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"faiss is not installed; run: pip install \"mura-search\[cpu\]\""):
        IndexReader.open(place)


def test_where_faiss_cannot_be_loaded_it_says_why(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """faiss-gpu raises RuntimeError where a CUDA library is missing."""
    (tmp_path / "faiss.py").write_text("raise RuntimeError('nvidia-cublas-cu12 is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("index.vectors.faiss", "faiss"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(IndexFailure, match="FAISS cannot be used: nvidia-cublas-cu12 is missing"):
        IndexReader.open(place)


def test_an_index_that_is_replaced_while_it_is_opened_is_not_called_damaged(
    tmp_path: Path, write_index: Write, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, embeddings, thumbnails, logits = sample
    place = write_index(tmp_path / "index", sample)
    other = write_index(tmp_path / "other", (cases[:5], embeddings[:5], thumbnails[:5], logits[:5]))
    asked: list[str] = []

    def replaced(folder: Path, name: str, data: bytes) -> bool:
        asked.append(name)
        if len(asked) == 1:  # the sums of the new one beside the bytes of the old one
            shutil.rmtree(place)
            other.rename(place)
            return False
        return True

    monkeypatch.setattr("index.opening.check_bytes", replaced)
    with IndexReader.open(place) as folder:
        assert folder.cases() == cases[:5]
    assert len(asked) == 2
    monkeypatch.setattr("index.opening.check_bytes", lambda *_: False)
    with IndexReader.open(place) as folder:  # every record has its checksum: the sums are stale
        assert folder.cases() == cases[:5]


def test_an_index_that_is_replaced_at_every_attempt_is_busy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(folder: Path, name: str, data: bytes) -> bool:
        shutil.copy(place / "cases.sqlite", place / "new")
        (place / "new").replace(place / "cases.sqlite")
        return False

    monkeypatch.setattr("index.opening.check_bytes", replaced)
    with pytest.raises(IndexBusy, match="replaced faster than it can be opened"):
        IndexReader.open(place)


def test_a_transaction_of_a_killed_writer_is_rolled_back(place: Path, sample: Sample) -> None:
    """The writer has written half of its change to the file; SQLite's journal holds the rest."""
    script = (
        "import os, signal, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1')\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "c.execute('UPDATE cases SET study = patient')\n"
        "c.execute('DELETE FROM thumbnails')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    before = (place / "cases.sqlite").read_bytes()
    done = subprocess.run([sys.executable, "-c", script, str(place / "cases.sqlite")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (place / "cases.sqlite-journal").exists()
    assert (place / "cases.sqlite").read_bytes() != before
    with IndexReader.open(place) as reader:
        assert reader.cases() == sample[0]
        assert reader.verify()
