import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexBusy, IndexFailure, IndexMissing, MissingExtra
from index.frozen import FrozenReader
from index.generation import Generation
from index.hits import Hit
from index.reader import IndexReader
from index.sqlite.reader import CaseReader
from index.writer import IndexWriter

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]
Write = Callable[[Path, Sample], Path]


def oracle(
    sample: Sample, query: NDArray[np.float32], k: int, where: dict[str, list[str]], excluded: set[str]
) -> list[Hit]:
    cases, embeddings, _, _ = sample
    similarities = (embeddings.astype(np.float64) @ query.astype(np.float64)).astype(np.float32).tolist()
    hits: dict[str, Hit] = {}
    for row in sorted(range(len(cases)), key=lambda row: (-similarities[row], row)):
        case = cases[row]
        fits = all(
            (case.label_name if field == "label" else getattr(case, field)) in values for field, values in where.items()
        )
        if fits and case.patient not in excluded:
            hits.setdefault(case.study, Hit(similarities[row], case))
    return list(hits.values())[:k]


filters = st.fixed_dictionaries(
    {},
    optional={
        "part": st.lists(st.sampled_from(["finger", "wrist", "élbow", "knee"]), max_size=3),
        "view": st.lists(st.sampled_from(["pa", "lateral", ""]), max_size=3),
        "label": st.lists(st.sampled_from(["normal", "abnormal"]), max_size=2),
        "study": st.lists(st.integers(0, 30).map("study{}".format), min_size=1, max_size=20),
        "case": st.lists(st.just("train/study0/image0.png"), min_size=1, max_size=1),
    },
)
# A patient of the index, or one it does not know.
patients = st.sets(st.integers(0, 20).map("patient{}".format), max_size=8)


@given(st.data(), st.integers(1, 40), filters)
@settings(max_examples=200, deadline=None)
def test_search_gives_the_definition(
    template: Path, sample: Sample, data: st.DataObject, k: int, where: dict[str, list[str]]
) -> None:
    Q = data.draw(st.integers(0, 4))
    rows = data.draw(st.lists(st.integers(0, 59), min_size=Q, max_size=Q))
    queries = sample[1][rows]
    excluded = data.draw(st.none() | st.lists(patients, min_size=Q, max_size=Q))
    with IndexReader.open(template) as folder:
        found = folder.search(queries, k, where=where, exclude_patients=excluded)
    assert found == [
        oracle(sample, query, k, where, patients)
        for query, patients in zip(queries, excluded or [set[str]()] * Q, strict=True)
    ]


@pytest.mark.parametrize("N", [0, 1, 2])
def test_tiny_indexes(tmp_path: Path, write_index: Write, sample: Sample, N: int) -> None:
    cases, embeddings, thumbnails, logits = sample
    few = cases[:N], embeddings[:N], thumbnails[:N], logits[:N]
    with IndexReader.open(write_index(tmp_path / "few", few)) as folder:
        assert folder.search(embeddings[:3], 5) == [oracle(few, query, 5, {}, set()) for query in embeddings[:3]]
        assert folder.embeddings().shape == (N, 8)
        assert folder.info()["cases"] == N
        assert folder.info()["labels"] == {"normal": (N + 1) // 2, "abnormal": N // 2}


def test_ties_go_by_the_order_of_indexing_and_a_study_is_found_once(tmp_path: Path, write_index: Write) -> None:
    rows = [("c1", "s2", 0.6), ("c2", "s10", 0.6), ("c3", "s2", 0.6), ("c4", "s3", 0.8), ("c5", "s10", 0.0)]
    cases = [Case(case, study, f"p{study}", 1) for case, study, _ in rows]
    vectors = np.array([[x, np.sqrt(1 - x * x)] for _, _, x in rows], dtype=np.float32)
    place = write_index(tmp_path / "i", (cases, vectors, [b"x"] * 5, np.zeros(5, np.float32)))
    with IndexReader.open(place) as folder:
        (found,) = folder.search(np.array([[1, 0]], dtype=np.float32), 9)
    assert [(hit.case.case, round(hit.similarity, 6)) for hit in found] == [("c4", 0.8), ("c1", 0.6), ("c2", 0.6)]


def test_everything_comes_back_as_it_was_added(template: Path, sample: Sample, model: Path) -> None:
    cases, embeddings, thumbnails, logits = sample
    with IndexReader.open(template) as folder:
        assert folder.cases() == cases
        assert folder.embeddings().tobytes() == embeddings.tobytes()
        assert folder.logits().tobytes() == logits.tobytes()
        assert [folder.thumbnail(case.case) for case in cases] == thumbnails
        assert folder.thumbnail("no such case") is None
        np.testing.assert_array_equal([folder.embedding(case.case) for case in cases], embeddings)
        assert folder.embedding("no such case") is None
        assert folder.find_digest(cases[3].digest) == [cases[3], cases[58]]
        assert folder.find_digest("0") == folder.find_digest("") == []
        assert folder.metadata("rules") == {"k": 15, "source": "a sentence"}
        assert folder.metadata("never set") is None
        assert folder.path == template
        for name in ("model.json", "parts/encoder.onnx"):
            assert (folder.model / name).read_bytes() == (model / name).read_bytes()


def test_info(template: Path, sample: Sample) -> None:
    cases = sample[0]
    with IndexReader.open(template) as folder:
        info = folder.info()
    assert str(info.pop("created")).endswith("+00:00")
    parts = [case.part for case in cases]
    assert info == {
        "cases": 60,
        "studies": 25,
        "patients": 15,
        "parts": {part: parts.count(part) for part in ("finger", "wrist", "élbow")},
        "labels": {"normal": 60 - sum(c.label for c in cases), "abnormal": sum(c.label for c in cases)},
        "quarantined": 0,
        "store": {"kind": "faiss-flat", "dimension": 8, "vectors": 60, "exact": True},
        "generation": 1,
        "schema": 5,
        "sealed": True,
    }


def test_labels(place: Path, sample: Sample) -> None:
    with IndexReader.open(place) as reader:
        assert reader.labels() == FrozenReader(reader).labels() == ("normal", "abnormal")
        with IndexWriter.open(place) as writer:
            writer.remove({"study": [case.study for case in sample[0] if not case.label]})
        assert reader.labels() == FrozenReader(reader).labels() == ("abnormal",)


def test_wrong_questions_are_refused(template: Path, sample: Sample) -> None:
    query = sample[1][:1]
    with IndexReader.open(template) as folder:
        for wrong in (query[0], query[:, :7], 2 * query, np.nan * query):
            with pytest.raises(ValueError, match="embedding"):
                folder.search(wrong, 5)
        with pytest.raises(ValueError, match="at least 1"):
            folder.search(query, 0)
        with pytest.raises(ValueError, match="no field 'colour'"):
            folder.search(query, 5, where={"colour": ["grey"]})
        with pytest.raises(ValueError, match="collection of strings"):
            folder.search(query, 5, where={"part": "finger"})
        with pytest.raises(ValueError, match="normal or abnormal"):
            folder.search(query, 5, where={"label": ["positive"]})
        wrong_exclusions: list[Sequence[Collection[str]]] = [[], [[], []], ["patient1"]]
        for exclusions in wrong_exclusions:
            with pytest.raises(ValueError, match="1 collections of patients"):
                folder.search(query, 5, exclude_patients=exclusions)


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


def test_reading_changes_nothing(place: Path, sample: Sample) -> None:
    before = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in place.rglob("*")}
    with IndexReader.open(place) as folder:
        folder.search(sample[1], 3)
        folder.thumbnail(sample[0][0].case)
        folder.info()
    assert before == {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in place.rglob("*")
    }


def test_several_threads_may_read(template: Path, sample: Sample) -> None:
    cases, embeddings, thumbnails, _ = sample
    with IndexReader.open(template) as folder, ThreadPoolExecutor(8) as pool:

        def ask(row: int) -> tuple[list[Hit], bytes | None]:
            hits = folder.search(embeddings[row : row + 1], 4, where={"label": [cases[row].label_name]})
            return hits[0], folder.thumbnail(cases[row].case)

        found = list(pool.map(ask, [*range(60)] * 4))
    expected = [
        (oracle(sample, embeddings[row], 4, {"label": [cases[row].label_name]}, set()), thumbnails[row])
        for row in range(60)
    ]
    assert found == expected * 4


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


@pytest.mark.parametrize("few", [0, 3, 1000])
def test_however_many_are_excluded(template: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """A few are asked for and left out afterwards, more are masked: the answers are the same."""
    monkeypatch.setattr("index.generation.FEW", few)
    cases, embeddings = sample[:2]
    rng = np.random.default_rng(few)
    known = sorted({case.patient for case in cases})
    with IndexReader.open(template) as folder:
        for row in range(60):
            excluded = {*rng.choice(known, rng.integers(0, 16)).tolist(), "nobody"}
            for where in ({}, {"part": ["finger", "wrist"]}):
                (found,) = folder.search(embeddings[row : row + 1], 5, where=where, exclude_patients=[excluded])
                assert found == oracle(sample, embeddings[row], 5, where, excluded)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("remembered", [False, True])
def test_a_change_in_the_midst_of_a_search(
    place: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch, when: str, remembered: bool
) -> None:
    """A search finds the whole state of the moment at which it last asks cases.sqlite; the next finds the newest."""
    query, other = sample[1][:1], [["nobody"]]
    with IndexReader.open(place) as folder:
        (before,) = folder.search(query, 25, exclude_patients=other)
        if not remembered:
            folder._generation.shown.clear()
        gone = before[0].case.study
        rows_of = CaseReader.rows_of

        def changed(reader: CaseReader, patients: Collection[str]) -> tuple[int, list[int]]:
            monkeypatch.undo()
            found = rows_of(reader, patients) if when == "after" else None
            with IndexWriter.open(place) as edit:
                edit.remove({"study": [gone]})
            return found or rows_of(reader, patients)

        monkeypatch.setattr(CaseReader, "rows_of", changed)
        (found,) = folder.search(query, 25, exclude_patients=other)
        (after,) = folder.search(query, 25, exclude_patients=other)
        assert gone not in {hit.case.study for hit in after}
        assert len(after) == len(before) - 1
        assert found == (before if when == "after" and remembered else after)


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


def test_a_picture_whose_case_is_removed_at_this_moment_is_none(
    tmp_path: Path, write_index: Write, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, case = write_index(tmp_path / "index", sample), sample[0][0]
    with IndexReader.open(place) as folder:
        found = iter([CaseReader.rows_where(folder._database, "case", [case.case]), np.array([], np.int64)] * 2)
        with IndexWriter.open(place) as edit:
            edit.remove({"case": [case.case]})
        monkeypatch.setattr(CaseReader, "rows_where", lambda *_: next(found))
        assert folder.thumbnail(case.case) is None
        assert folder.embedding(case.case) is None


def test_an_index_that_changes_in_every_search_is_busy(
    place: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of, labels = CaseReader.rows_of, iter([0, 1] * 40)

    def changed(reader: CaseReader, patients: Collection[str]) -> tuple[int, list[int]]:
        with IndexWriter.open(place) as writer:
            writer.relabel("study1", next(labels))
        return rows_of(reader, patients)

    with IndexReader.open(place) as reader:
        monkeypatch.setattr(CaseReader, "rows_of", changed)
        with pytest.raises(IndexBusy, match="changes faster than it can be searched"):
            reader.search(sample[1][:1], 3, exclude_patients=[["nobody"]])


def test_an_index_that_is_replaced_at_every_attempt_is_busy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(folder: Path, name: str, data: bytes) -> bool:
        shutil.copy(place / "cases.sqlite", place / "new")
        (place / "new").replace(place / "cases.sqlite")
        return False

    monkeypatch.setattr("index.opening.check_bytes", replaced)
    with pytest.raises(IndexBusy, match="replaced faster than it can be opened"):
        IndexReader.open(place)


def test_what_is_kept_in_memory_is_bounded(template: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.hits.REMEMBERED", 5)
    monkeypatch.setattr("index.generation.MASKS", 2)
    with IndexReader.open(template) as reader:
        for row in range(60):
            where = {"study": [f"study{row % 25}", "study3"], "part": ["finger", "wrist", "élbow"][: 1 + row % 3]}
            (found,) = reader.search(sample[1][row : row + 1], 4, where=where)
            assert found == oracle(sample, sample[1][row], 4, where, set())
            assert len(reader._generation.shown) <= 5 + 4
            assert isinstance(reader._generation, Generation)
            assert len(reader._generation._masks) <= 2


def test_a_closed_reader_is_a_mistake_of_the_caller(template: Path) -> None:
    reader = IndexReader.open(template)
    reader.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        reader.counts("part")


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
