"""Adding, removing and relabelling: each change in whole, told in the history, and nothing left of what was removed."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.case import Case
from index.errors import IndexBusy, IndexDamaged, IndexFailure, IndexMissing
from index.reader import IndexReader
from index.vectors.vector_file import VectorFile
from index.writer import IndexWriter
from tests.index.contents import Sample, assert_holds, chosen, everything_in

Write = Callable[[Path, Sample], Path]


def test_added_cases_are_as_if_built_with(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    place = write_index(tmp_path / "index", chosen(sample, [*range(40)]))
    with IndexWriter.open(place) as edit:
        edit.add(*chosen(sample, [*range(40, 55)]))
        edit.add(*chosen(sample, [*range(55, 60)]))
    assert_holds(place, sample)
    whole = write_index(tmp_path / "whole", sample)
    with IndexReader.open(place) as added, IndexReader.open(whole) as built:
        assert added.search(sample[1], 9) == built.search(sample[1], 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "whole"]


def test_a_corrected_report_changes_the_label_of_every_view(place: Path, sample: Sample) -> None:
    views = [n for n, case in enumerate(sample[0]) if case.study == "study4"]
    with IndexWriter.open(place) as edit:
        assert edit.relabel("study4", 1) == len(views)
        assert edit.relabel("study4", 1) == 0
    cases = [replace(case, label=1) if n in views else case for n, case in enumerate(sample[0])]
    assert_holds(place, (cases, *sample[1:]))
    with IndexReader.open(place) as folder:
        (found,) = folder.search(sample[1][views[:1]], 30, where={"label": ["abnormal"]})
        assert "study4" in {hit.case.study for hit in found}


def test_the_history_tells_what_was_done_and_names_nobody(place: Path, sample: Sample) -> None:
    with IndexWriter.open(place) as edit:
        edit.remove({"patient": ["patient3"]})
        edit.relabel("study4", 1)
        left = len(edit.cases())
    with IndexReader.open(place) as folder:
        history = folder.history()
    assert [(entry["generation"], entry["action"], entry["cases"]) for entry in history] == [
        (1, "add", 60),
        (2, "remove", left),
        (3, "relabel", left),
    ]
    assert history[1]["detail"] == {"cases": 60 - left}
    assert "patient3" not in str(history)


def test_an_open_reader_finds_what_was_changed(place: Path, sample: Sample) -> None:
    first, last = sample[0][0], sample[0][-1]
    with IndexReader.open(place) as reader:
        with IndexWriter.open(place) as edit:
            edit.remove({"case": [last.case]})
            edit.add([replace(last, case="another.png")], sample[1][:1], [b"another"], sample[3][:1])
            (found,) = reader.search(sample[1][:1], 30)  # of a vectors.faiss that is older than cases.sqlite
            assert {hit.case.case for hit in found} & {first.case, "another.png"}
            edit.relabel(last.study, 1 - last.label)
        with pytest.raises(IndexBusy, match="changed meanwhile"):
            reader.cases()
        assert reader.refresh()
        assert not reader.refresh()
        cases = reader.cases()
        assert last not in cases
        assert {case.label for case in cases if case.study == last.study} == {1 - last.label}
        assert reader.thumbnail(last.case) is None  # removed, and its place was not given to another
        assert reader.thumbnail("another.png") == b"another"
        assert reader.verify()
        assert not reader.replaced()


def test_what_does_not_fit_is_refused_and_changes_nothing(place: Path, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = chosen(sample, [0])
    new = [replace(cases[0], case="new.png")]
    before = everything_in(place)
    with IndexWriter.open(place) as edit:
        for batch, says in (
            ((cases, embeddings, thumbnails, logits), "already"),
            ((new, 2 * embeddings, thumbnails, logits), "length 1"),
            ((new, embeddings[:, :7], thumbnails, logits), "embeddings are"),
            ((new, embeddings, [], logits), "one thumbnail"),
            ((new, embeddings, thumbnails, np.array([np.inf], np.float32)), "finite"),
            (([replace(new[0], label=1)], embeddings, thumbnails, logits), "another label or patient"),
            (([replace(new[0], patient="patient1")], embeddings, thumbnails, logits), "another label or patient"),
        ):
            with pytest.raises(ValueError, match=says):
                edit.add(*batch)
        with pytest.raises(ValueError, match="name the cases"):
            edit.remove({})
        with pytest.raises(ValueError, match="no field"):
            edit.remove({"colour": ["grey"]})
        with pytest.raises(ValueError, match="no study nowhere"):
            edit.relabel("nowhere", 1)
        with pytest.raises(ValueError, match="0 \\(normal\\) or 1"):
            edit.relabel("study1", 2)
    assert everything_in(place) == before


def test_one_writer_at_a_time(place: Path, sample: Sample) -> None:
    (place.parent / "link").symlink_to(place)
    with IndexWriter.open(place) as edit:
        for way in (place, place.parent / "link"):
            with pytest.raises(IndexBusy, match="another process is building or changing"):
                IndexWriter.open(way)
        edit.relabel("study4", 1)
    IndexWriter.open(place).close()


def test_no_index_to_change(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing):
        IndexWriter.open(tmp_path / "nothing")


def test_a_damaged_index_is_not_changed(place: Path) -> None:
    (place / "cases.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(IndexFailure):
        IndexWriter.open(place)
    assert [path.name for path in place.parent.iterdir()] == ["index"]  # no lock is left


def test_a_full_disk_loses_nothing(place: Path, sample: Sample) -> None:
    """SQLite's own limit of pages stands in for the disk: the same error, at the same moment."""
    many = [Case(f"new{n}.png", f"new{n}", "newcomer", 0) for n in range(200)]
    vectors = np.repeat(sample[1][:1], 200, axis=0)
    with IndexWriter.open(place) as edit:
        pages = edit._database._sqlite.number("PRAGMA page_count")
        edit._database._sqlite.query(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(IndexFailure, match="full"):
            edit.add(many, vectors, [b"x" * 4000] * 200, np.zeros(200, np.float32))
    assert_holds(place, sample)


@pytest.mark.parametrize("table", ["embeddings SET vector", "thumbnails SET image"])
def test_verify_finds_what_opening_does_not_read(place: Path, table: str) -> None:
    connection = sqlite3.connect(place / "cases.sqlite")
    connection.execute(f"UPDATE {table} = x'00' WHERE row = 3")
    connection.commit()
    connection.close()
    (place / "SHA256SUMS").unlink()  # as where a process was killed
    with IndexReader.open(place) as folder, pytest.raises(IndexDamaged, match=r"cases\.sqlite is damaged"):
        folder.verify()


def test_verify_compares_the_vectors_with_the_truth(
    tmp_path: Path, place: Path, write_index: Write, sample: Sample
) -> None:
    """A file of vectors that is whole and stamped for this index, but holds others."""
    with IndexReader.open(place) as folder:
        identity = bytes.fromhex(folder._metadata["identity"])
    snapshot = VectorFile.read(place / "vectors.faiss", identity)
    assert snapshot is not None
    replace(snapshot, vectors=-snapshot.vectors).write(place / "vectors.faiss", identity)
    (place / "SHA256SUMS").unlink()
    with IndexReader.open(place) as folder, pytest.raises(IndexDamaged, match="delete that file"):
        folder.verify()


def test_a_copy_has_a_life_of_its_own(tmp_path: Path, place: Path, sample: Sample) -> None:
    copy = shutil.copytree(place, tmp_path / "copy")
    with IndexWriter.open(copy) as edit:
        edit.remove({"patient": ["patient3"]})
    assert_holds(place, sample)


def test_a_writer_finds_what_is_indexed(place: Path, sample: Sample) -> None:
    cases = sample[0]
    with IndexWriter.open(place) as writer:
        assert not writer.remote
        assert writer.metadata("rules") == {"k": 15, "source": "a sentence"}
        assert writer.find("study", ["study4", "nowhere"]) == [case for case in cases if case.study == "study4"]
        first = next(case for case in cases if case.patient == "patient2")
        assert writer.known("patient", ["patient2", "nobody"])["patient2"][0] == first
        with pytest.raises(ValueError, match="no field"):
            writer.known("colour", ["grey"])


def test_temporary_files_of_killed_writers_are_removed(place: Path) -> None:
    for name in (".vectors.faiss.0123abcd", ".SHA256SUMS.00ff00ff", ".nfs.somebody"):
        (place / name).write_bytes(b"half")
    IndexWriter.open(place).close()
    assert sorted(path.name for path in place.iterdir() if path.name.startswith(".")) == [".nfs.somebody"]


def test_corrected_records_are_taken_over_in_one_transaction(place: Path, sample: Sample) -> None:
    cases, embeddings, thumbnails, _ = sample
    study = [case for case in cases if case.study == "study7"]
    new = [
        replace(case, label=0, patient="JaneRoe", study="Roe-1", part="hand", path="/new", digest="") for case in study
    ]
    with IndexReader.open(place) as reader:
        with IndexWriter.open(place) as writer:
            assert writer.update(new) == len(new)
            assert writer.update(new) == 0
        given = {case.case: replace(case, digest=old.digest) for case, old in zip(new, study, strict=True)}
        expected = [given.get(case.case, case) for case in cases]
        hits = reader.search(embeddings[:5], 25, where={"part": ["hand"]})  # a reader that was open all the time
        assert {hit.case.case for hit in hits[0]} <= given.keys()
        assert [len(found) for found in hits] == [1] * 5  # one study, although vectors.faiss numbered it otherwise
        assert reader.cases() == expected
        assert reader.history()[-1]["action"] == "update"
        assert reader.history()[-1]["detail"] == {"cases": len(new)}
        assert reader.thumbnail(study[0].case) == thumbnails[cases.index(study[0])]
    with IndexReader.open(place) as reader:
        assert reader.verify()
        assert len(reader.search(embeddings[:1], 99)[0]) == 25
        assert reader.embeddings().tobytes() == embeddings.tobytes()


def test_a_correction_that_would_split_a_study_changes_nothing(place: Path, sample: Sample) -> None:
    first, *rest = [case for case in sample[0] if case.study == "study7"]
    assert rest
    with IndexWriter.open(place) as writer:
        for wrong in (replace(first, label=1 - first.label), replace(first, patient="another")):
            with pytest.raises(ValueError, match="study7"):
                writer.update([wrong])
        with pytest.raises(ValueError, match="holds no case unknown"):
            writer.update([Case("unknown", "s", "p", 0)])
        assert writer.cases() == sample[0]
    with IndexReader.open(place) as reader:
        assert reader.info()["generation"] == 1
