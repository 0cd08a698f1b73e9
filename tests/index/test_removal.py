"""Of what is removed or corrected no byte stays, and no search finds it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.builder import IndexBuilder
from index.case import Case
from index.reader import IndexReader
from index.writer import IndexWriter
from tests.index.contents import Sample, assert_holds, chosen, everything_in

Write = Callable[[Path, Sample], Path]


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


def test_what_a_corrected_record_held_before_is_gone(place: Path, sample: Sample) -> None:
    names = [case.case for case in sample[0] if case.patient == "patient3"]
    with IndexWriter.open(place) as writer:
        cases = writer.find("patient", ["patient3"])
        writer.update([replace(case, patient="p3", study=f"p{case.study}", path="") for case in cases])
    assert b"patient3" not in (place / "cases.sqlite").read_bytes()
    with IndexReader.open(place) as reader:
        assert [case.case for case in reader.find("patient", ["p3"])] == names


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
