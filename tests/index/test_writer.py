"""Adding, removing and relabelling: each change in whole, told in the history, and nothing left of what was removed."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexBusy, IndexDamaged, IndexFailure, IndexMissing
from index.merge import Merged
from index.reader import IndexReader
from index.vectors.vector_file import VectorFile
from index.writer import IndexWriter

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]
Write = Callable[[Path, Sample], Path]


def chosen(sample: Sample, rows: list[int]) -> Sample:
    cases, embeddings, thumbnails, logits = sample
    return [cases[n] for n in rows], embeddings[rows], [thumbnails[n] for n in rows], logits[rows]


def assert_holds(place: Path, sample: Sample) -> None:
    """The index answers as one that was built of exactly these cases."""
    cases, embeddings, thumbnails, logits = sample
    with IndexReader.open(place) as folder:
        folder.verify()
        assert folder.cases() == cases
        assert folder.embeddings().tobytes() == embeddings.tobytes()
        assert folder.logits().tobytes() == logits.tobytes()
        assert [folder.thumbnail(case.case) for case in cases] == thumbnails
        assert folder.info()["cases"] == len(cases)


def everything_in(place: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(place.rglob("*")) if file.is_file())


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


@pytest.mark.parametrize(
    ("where", "goes"),
    [
        ({"patient": ["patient3"]}, lambda case: case.patient == "patient3"),
        ({"study": ["study4", "study7"]}, lambda case: case.study in {"study4", "study7"}),
        ({"case": ["train/study0/image0.png"]}, lambda case: case.case == "train/study0/image0.png"),
        ({"case": ["no such case"]}, lambda case: False),
        ({"part": ["finger", "wrist", "élbow"]}, lambda case: True),
    ],
)
def test_removed_cases_are_gone(
    place: Path, sample: Sample, where: dict[str, list[str]], goes: Callable[[Case], bool]
) -> None:
    with IndexWriter.open(place) as edit:
        removed = edit.remove(where)
    assert removed == [case.case for case in sample[0] if goes(case)]
    assert_holds(place, chosen(sample, [n for n, case in enumerate(sample[0]) if not goes(case)]))


@pytest.mark.parametrize("compacted", [False, True])
def test_nothing_of_a_removed_patient_is_left_in_any_byte(
    tmp_path: Path, write_index: Write, sample: Sample, compacted: bool
) -> None:
    """Names, embeddings and thumbnails are searched for in the bytes of every file, as are parts of them."""
    cases, _, _, logits = sample
    rng = np.random.default_rng(11)
    vectors = rng.normal(size=(60, 8))  # all different, unlike the sample's
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    mine = [n for n, case in enumerate(cases) if case.patient == "patient3"]
    secret = [replace(c, patient="JaneRoe", study=f"Roe-{c.study}", case=f"Roe/{c.case}", path="/d/Roe.png", digest="")
              if n in mine else c for n, c in enumerate(cases)]  # fmt: skip
    pictures = [rng.bytes(3000) for _ in cases]
    place = write_index(tmp_path / "index", (secret, vectors, pictures, logits))
    traces = [
        b"Roe",
        *(vectors[n].tobytes() for n in mine),
        *(pictures[n][at : at + 64] for n in mine for at in (0, 2000)),
    ]
    before = everything_in(place)
    assert all(trace in before for trace in traces)
    with IndexWriter.open(place) as edit:
        assert len(edit.remove({"patient": ["JaneRoe"]})) == len(mine)
        if compacted:
            assert edit.compact() > 0
    after = everything_in(place)
    assert not [trace for trace in traces if trace in after]
    assert vectors[0].tobytes() in after


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


def test_two_indexes_become_one(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    north = write_index(tmp_path / "north", chosen(sample, [*range(30)]))
    south = write_index(tmp_path / "south", chosen(sample, [*range(25, 55)]))  # the first five are in both
    before = everything_in(south)
    with IndexReader.open(south) as other, IndexWriter.open(north) as edit:
        merged = edit.merge(other)
        added, known = merged.added, merged.known
    assert (added, known) == (25, [(case.case, case.case) for case in sample[0][25:30]])
    assert everything_in(south) == before
    assert_holds(north, chosen(sample, [*range(55)]))


def test_merging_twice_adds_nothing(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    north = write_index(tmp_path / "north", chosen(sample, [*range(30)]))
    south = write_index(tmp_path / "south", chosen(sample, [*range(30, 55)]))
    for expected in ((25, 0), (0, 25)):
        with IndexReader.open(south) as other, IndexWriter.open(north) as edit:
            merged = edit.merge(other)
        added, known = merged.added, merged.known
        assert (added, len(known)) == expected
    assert_holds(north, chosen(sample, [*range(55)]))


def test_a_prefix_keeps_two_hospitals_apart(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = chosen(sample, [*range(20)])
    others = [replace(case, digest=f"{n + 500:064x}") for n, case in enumerate(cases)]  # other people, the same names
    north = write_index(tmp_path / "north", (cases, embeddings, thumbnails, logits))
    south = write_index(tmp_path / "south", (others, -embeddings, thumbnails, logits))
    with IndexReader.open(south) as other, IndexWriter.open(north) as edit:
        with pytest.raises(ValueError, match="already"):
            edit.merge(other)
        assert edit.cases() == cases
        assert edit.merge(other, "south/") == Merged(20, [], [])
        renamed = [
            replace(c, case=f"south/{c.case}", study=f"south/{c.study}", patient=f"south/{c.patient}") for c in others
        ]
        assert edit.cases() == [*cases, *renamed]
    with IndexReader.open(north) as folder:
        folder.verify()
        (found,) = folder.search(-embeddings[:1], 1, exclude_patients=[[cases[0].patient]])
        assert found[0].case.case.startswith("south/")


def test_embeddings_of_two_models_are_not_mixed(tmp_path: Path, place: Path, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = chosen(sample, [0])
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "model.json").write_text('{"another": 1}')
    south = tmp_path / "south"
    with IndexBuilder.start(south, model=tmp_path / "another", dimension=8, fingerprint="f") as build:
        build.add(cases, embeddings, thumbnails, logits)
        build.finish()
    with IndexReader.open(south) as other, IndexReader.open(place) as itself, IndexWriter.open(place) as edit:
        for wrong, says in ((other, "another model"), (itself, "with itself")):
            with pytest.raises(ValueError, match=says):
                edit.merge(wrong)
        assert edit.cases() == sample[0]


def test_what_was_set_aside_is_forgotten_with_its_patient(tmp_path: Path, model: Path, sample: Sample) -> None:
    bad = [Case("Roe/1.png", "Roe-1", "JaneRoe", 0, path="/d/Roe/1.png"), Case("bad.png", "study1", "patient1", 1)]
    with IndexBuilder.start(tmp_path / "index", model=model, dimension=8, fingerprint="f") as build:
        build.add(*sample)
        build.quarantine([(case, f"{case.path} is empty") for case in bad])
        build.finish()
    assert b"Roe" in everything_in(tmp_path / "index")
    with IndexWriter.open(tmp_path / "index") as edit:
        assert edit.remove({"patient": ["JaneRoe"]}) == ["Roe/1.png"]
    assert b"Roe" not in everything_in(tmp_path / "index")
    with IndexReader.open(tmp_path / "index") as folder:
        assert (folder.info()["quarantined"], folder.info()["cases"]) == (1, 60)
    with IndexReader.open(tmp_path / "index") as reader:
        assert [(case.case, case.study, case.patient, reason) for case, reason in reader.set_aside()] == [
            ("bad.png", "study1", "patient1", " is empty")
        ]


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


def test_an_index_with_a_synthetic_case_says_so(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    north, south = (
        write_index(tmp_path / "north", chosen(sample, [0])),
        write_index(tmp_path / "south", chosen(sample, [1])),
    )
    with IndexWriter.open(south) as writer:
        writer.mark_synthetic()
    with IndexReader.open(south) as other, IndexWriter.open(north) as writer:
        writer.merge(other)
    with IndexReader.open(north) as reader:
        assert reader.metadata("collection") == {"synthetic": True}
    with IndexReader.open(south) as reader:
        assert reader.history()[-1]["action"] == "synthetic"


def test_temporary_files_of_killed_writers_are_removed(place: Path) -> None:
    for name in (".vectors.faiss.0123abcd", ".SHA256SUMS.00ff00ff", ".nfs.somebody"):
        (place / name).write_bytes(b"half")
    IndexWriter.open(place).close()
    assert sorted(path.name for path in place.iterdir() if path.name.startswith(".")) == [".nfs.somebody"]


def test_no_byte_of_a_removed_patient_stays_whatever_the_length_of_the_names(tmp_path: Path, model: Path) -> None:
    """SQLite leaves copies in the gaps of its pages, the more the longer names differ in length."""
    rng = np.random.default_rng(0)
    cases, thumbnails = [], []
    for _ in range(400):
        patient = "P-" + rng.bytes(6).hex() + "-KLINIKUM-NORD" * int(rng.integers(0, 9))
        for number in range(int(rng.integers(1, 5))):
            study = f"S-{rng.bytes(6).hex()}{'x' * int(rng.integers(0, 90))}"
            cases.append(Case(f"{patient}/{study}/{number}.png", study, patient, 1, path=f"/data/{patient}/{number}"))
            thumbnails.append(rng.bytes(int(rng.choice([300, 900, 2500, 4000]))))
    vectors = np.eye(8, dtype=np.float32)[rng.integers(0, 8, len(cases))]
    with IndexBuilder.start(tmp_path / "index", model=model, dimension=8, fingerprint="f") as build:
        for first in range(0, len(cases), 100):
            some = slice(first, first + 100)
            build.add(cases[some], vectors[some], thumbnails[some], np.zeros(len(cases[some]), np.float32))
        build.finish()
    gone = {case.patient for case in cases[::9]}
    with IndexWriter.open(tmp_path / "index") as writer:
        for patient in sorted(gone):
            writer.remove({"patient": [patient]})
    left = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert [patient for patient in gone if patient[2:14].encode() in left] == []
    removed = [(case, picture) for case, picture in zip(cases, thumbnails, strict=True) if case.patient in gone]
    assert [case.study for case, _ in removed if case.study[2:14].encode() in left] == []
    assert not any(picture[at : at + 64] in left for _, picture in removed for at in range(0, len(picture) - 63, 64))
    with IndexReader.open(tmp_path / "index") as reader:
        assert reader.verify()
        assert reader.cases() == [case for case in cases if case.patient not in gone]


@pytest.mark.parametrize("beside", [False, True])
def test_a_removal_removes_unfinished_builds_that_may_hold_the_patient(
    place: Path, model: Path, sample: Sample, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IndexBuilder.start(place, model=model, dimension=8, fingerprint="f", replace=True) as build:
        build.add(*sample)
    partial = place / ".partial"
    if beside:  # as earlier versions left it
        partial = partial.rename(place.with_name(".index.old"))
    with IndexWriter.open(place) as writer:
        writer.relabel("study3", 0)
        assert partial.exists()  # a build goes on after other changes
        writer.remove({"patient": ["patient3"]})
        assert writer.leftovers == {partial: ""}
    assert not any(b"patient3" in file.read_bytes() for file in place.parent.rglob("*") if file.is_file())
    partial.mkdir()
    (partial / "cases.sqlite").write_bytes(b"x")

    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("index.writer.shutil.rmtree", refuse)
    with IndexWriter.open(place) as writer:
        writer.remove({"patient": ["patient4"]})
        assert writer.leftovers == {partial: "Read-only file system"}


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


def test_what_a_corrected_record_held_before_is_gone(place: Path, sample: Sample) -> None:
    names = [case.case for case in sample[0] if case.patient == "patient3"]
    with IndexWriter.open(place) as writer:
        cases = writer.find("patient", ["patient3"])
        writer.update([replace(case, patient="p3", study=f"p{case.study}", path="") for case in cases])
    assert b"patient3" not in (place / "cases.sqlite").read_bytes()
    with IndexReader.open(place) as reader:
        assert [case.case for case in reader.find("patient", ["p3"])] == names


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


def test_a_merge_names_the_records_that_differ(tmp_path: Path, place: Path, write_index: Write, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = chosen(sample, list(range(20)))
    other = [replace(case, label=1 - case.label) if case.study == cases[0].study else case for case in cases]
    south = write_index(tmp_path / "south", (other, embeddings, thumbnails, logits))
    with IndexReader.open(south) as reader, IndexWriter.open(place) as writer:
        merged = writer.merge(reader)
        assert writer.cases() == sample[0]
    expected = [case.case for case in cases if case.study == cases[0].study]
    assert (merged.added, len(merged.known)) == (0, 20)
    assert [case for case, _ in merged.differing] == expected
    assert "label is" in merged.differing[0][1]


def test_a_removal_that_was_killed_is_finished_by_the_next_writer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[Path] = []

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("index.writer.zero_gaps", killed)
    with pytest.raises(KeyboardInterrupt), IndexWriter.open(place) as writer:
        writer.remove({"patient": ["patient3"]})
    monkeypatch.setattr("index.writer.zero_gaps", cleaned.append)
    for _ in range(2):
        IndexWriter.open(place).close()
    assert cleaned == [place / "cases.sqlite"]
    with IndexReader.open(place) as reader:
        assert reader.verify()
