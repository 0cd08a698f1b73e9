"""The DICOM layout: which files of an archive become cases, and what they are called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.datasets.collection import read_collection
from retrieval.errors import CollectionError
from retrieval.indexing.build import build_index
from retrieval.indexing.update import add_to_index
from retrieval.notices import Code
from tests.pictures import grey_square

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

Write = Callable[..., Path]


FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def refusal(data: Path, **options: Any) -> str:
    with pytest.raises(CollectionError) as caught:
        read_collection(data, "dicom", **options)
    return str(caught.value)


def test_cases_with_identifiers(archive: Path) -> None:
    collection = read_collection(archive, keep_identifiers=True)
    assert collection.layout == "dicom"
    assert collection.site == ""
    cases = [(case.case, case.study, case.patient, case.label, case.part, case.view) for case in collection.cases]
    assert cases == [
        ("DOE^JANE/IM1", "1.1", "A", 0, "hand", "pa"),
        ("DOE^JANE/IM2", "1.1", "A", 0, "hand", "lateral"),
        ("DOE^JANE/later/IM1", "1.2", "A", 1, "wrist", ""),
        ("w/1.2.840.1", "1.4", "C", 0, "", ""),
        ("x/y/z.dcm", "1.3", "B", 1, "", ""),
    ]
    assert all(Path(case.path) == archive / case.case for case in collection.cases)
    assert [case.laterality for case in collection.cases] == ["left", "", "", "", ""]
    assert {case.series for case in collection.cases} == {"1.2.3.4.5"}


@pytest.mark.parametrize("column", ["Accession Number", "accession_no"])
def test_a_table_of_labels_with_other_names(put: Write, tmp_path: Path, column: str) -> None:
    put("a", 9, study="1.1", AccessionNumber="0012")
    put("b", 9, study="1.2", AccessionNumber="0013")
    (tmp_path / "LABELS.CSV").write_text(f"{column},Study Instance UID,label\n'0012,,1\n,1.2,0\n", encoding="utf-8")
    collection = read_collection(tmp_path, "dicom", keep_identifiers=True)
    assert [(case.study, case.label) for case in collection.cases] == [("1.1", 1), ("1.2", 0)]


def test_links_to_studies_that_are_read_already_are_counted(archive: Path) -> None:
    before = read_collection(archive, "dicom")
    (archive / "z").symlink_to(archive / "x")
    (archive / "loop").symlink_to(archive)
    after = read_collection(archive, "dicom")
    assert after.cases == before.cases
    assert set(after.notes) - set(before.notes) == {
        "folders that are read under another path already, since links lead to them: 1; each is read once"
    }


def test_what_else_lies_in_an_archive_is_counted(archive: Path, put: Write) -> None:
    (archive / "readme.txt").write_text("hello", encoding="utf-8")
    (archive / ".hidden").write_bytes(b"")
    (archive / "ct.dcm").write_bytes((FILES / "CT_small.dcm").read_bytes())
    (archive / "sr").write_bytes((FILES / "test-SR.dcm").read_bytes())
    broken = put("broken.dcm", 9, study="1.1", patient="A")
    broken.write_bytes(broken.read_bytes()[:200])
    (archive / "copy").write_bytes((archive / "x/y/z.dcm").read_bytes())
    put("nolabel", 9, study="9.9")
    put("torn1", 9, study="5.5", patient="D")
    put("torn2", 9, study="5.5", patient="E")
    put("nobody", 9, study="5.6", patient="")
    put("burnt", 9, study="5.7", BurnedInAnnotation="YES")
    with (archive / "labels.csv").open("a", encoding="utf-8") as table:
        table.write("5.5,normal,\n5.6,normal,\n5.7,normal,\n8.8,normal,\n")
    collection = read_collection(archive, "dicom", keep_identifiers=True)
    assert len(collection.cases) == 7
    assert list(collection.notes) == [
        "skipped, not DICOM: 1",
        "skipped, DICOM but not radiographs: 2 (1 CT Image Storage, 1 Comprehensive SR Storage)",
        "skipped, DICOM that cannot be read: 1",
        "skipped, copies of a radiograph that is read: 1",
        "skipped, radiographs without a label: 1 (studies: 1)",
        "skipped, studies that name two patients: 1",
        "radiographs that name no patient: 1 of 9; each of their studies counts as one patient, so the same "
        "patient can be on both sides of a comparison",
        "radiographs that say that text is burnt into their pictures: 1; it may name patients, also in thumbnails",
        "rows of the table of labels whose study is not here: 1 of 8",
    ]


def test_of_two_copies_the_larger_is_read(archive: Path) -> None:
    whole = archive / "x/y/z.dcm"
    (archive / "a.dcm").write_bytes(whole.read_bytes()[:-100])
    cases = read_collection(archive, "dicom", keep_identifiers=True).cases
    assert "x/y/z.dcm" in {case.case for case in cases}
    assert len(cases) == 5


def test_each_frame_is_a_case(write_dicom: Write, label: Callable[..., Path], tmp_path: Path, model: Path) -> None:
    frames = np.stack([grey_square(level) for level in (30, 200)])
    write_dicom("archive/run.dcm", frames, StudyInstanceUID="1.1")
    label("1.1,abnormal")
    collection = read_collection(tmp_path / "archive", "dicom", keep_identifiers=True)
    assert [case.case for case in collection.cases] == ["run.dcm[1]", "run.dcm[2]"]
    report = build_index(collection, tmp_path / "index", model=model)
    assert (report.cases, report.studies, report.quarantined) == (2, 1, ())
    added = add_to_index(collection, tmp_path / "index")
    assert (added.added, len(added.known)) == (0, 2)


def test_folders_may_be_the_labels(put: Write, tmp_path: Path) -> None:
    put("normal/IM1", 20, study="1.1", patient="A", BodyPartExamined="HAND")
    put("Abnormal/DOE^JANE/a.dcm", 210, study="1.2", patient="B")
    put("Abnormal/DOE^JANE/b.dcm", 220, study="1.2", patient="B")
    put("elsewhere/c.dcm", 30, study="1.3", patient="C")
    for layout in (None, "folders", "dicom"):
        collection = read_collection(tmp_path / "archive", layout, keep_identifiers=layout == "dicom")
        assert collection.layout == "dicom"
        assert bool(collection.site) == (layout != "dicom")
        assert sorted((case.label, case.part) for case in collection.cases) == [(0, "hand"), (1, ""), (1, "")]
        assert len({case.study for case in collection.cases}) == 2
        (unlabelled,) = (notice for notice in collection.notices if notice.code == Code.UNLABELLED)
        assert unlabelled.detail == {"count": 1, "studies": 1}
        assert not any("JANE" in note for note in collection.notes)


def test_folders_of_splits_and_of_other_labels(put: Write, tmp_path: Path) -> None:
    put("train/fracture/1", 20, study="1.1", patient="A")
    put("val/no/1", 20, study="1.2", patient="B")
    put("no/test/1", 20, study="1.3", patient="C")
    put("fracture/test/1", 20, study="1.4", patient="D")
    meanings = {"fracture": 1, "no": 0}
    cases = read_collection(tmp_path / "archive", labels_are=meanings, keep_identifiers=True).cases
    assert {case.study: (case.label, case.split) for case in cases} == {
        "1.1": (1, "train"),
        "1.2": (0, "valid"),
        "1.3": (0, "test"),
        "1.4": (1, "test"),
    }


@pytest.mark.parametrize("copied", [False, True])
def test_a_study_in_folders_of_both_labels_is_refused(put: Write, tmp_path: Path, copied: bool) -> None:
    one = put("normal/1.dcm", 20, study="1.1", patient="DOE")
    put("normal/2.dcm", 20, study="1.2", patient="ROE")
    other = put("abnormal/1.dcm", 21, study="1.1", patient="DOE")
    if copied:
        other.write_bytes(one.read_bytes())
    with pytest.raises(CollectionError, match="folders of both labels: 1 of 2") as caught:
        read_collection(tmp_path / "archive")
    assert "1.1" not in str(caught.value)


def test_a_table_counts_more_than_folders(put: Write, label: Callable[..., Path], tmp_path: Path) -> None:
    put("normal/1.dcm", 20, study="1.1", patient="A")
    put("abnormal/1.dcm", 21, study="1.2", patient="B")
    label("1.1,abnormal", "1.2,abnormal")
    assert [case.label for case in read_collection(tmp_path / "archive").cases] == [1, 1]
    table = label("1.1,normal", "1.2,normal", name="other.csv")
    assert [case.label for case in read_collection(tmp_path / "archive", labels=table).cases] == [0, 0]


def test_dicom_among_image_files_is_counted(put: Write, square: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("archive/normal/1.png", "archive/abnormal/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        square(name, 100)
    put("abnormal/1.dcm", 21, study="1.1")
    collection = read_collection(tmp_path / "archive")
    assert (collection.layout, len(collection.cases)) == ("folders", 2)
    assert [notice.detail["count"] for notice in collection.notices if notice.code == Code.DICOM_LEFT_OUT] == [1]


def test_dicomdir() -> None:
    folder = FILES / "dicomdirtests"
    table = folder.parent / "none.csv"
    assert "does not exist: name a table with --labels" in refusal(folder / "DICOMDIR", labels=table)


def test_dicomdir_names_what_is_missing(tmp_path: Path, label: Callable[..., Path]) -> None:
    source = FILES / "dicomdirtests"
    target = tmp_path / "archive"
    for path in [source / "DICOMDIR", *(source / "77654033").rglob("*")]:
        if path.is_file():
            copy = target / path.relative_to(source).as_posix().lower()  # as some systems show a CD
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    study = pydicom.dcmread(source / "77654033/CR1/6154").StudyInstanceUID
    label(f"{study},abnormal")
    collection = read_collection(target / "dicomdir")
    assert [(case.part, case.view) for case in collection.cases] == [
        ("cervical spine", "lateral"), ("cervical spine", "ap"), ("cervical spine", "ap")]  # fmt: skip
    records = pydicom.dcmread(source / "DICOMDIR").DirectoryRecordSequence
    listed = len({tuple(record.ReferencedFileID) for record in records if "ReferencedFileID" in record})
    there = sum(path.is_file() for path in (source / "77654033").rglob("*"))
    assert f"files that DICOMDIR lists and that are missing: {listed - there}" in collection.notes


@pytest.mark.parametrize(
    ("columns", "rows", "says"),
    [
        ("study,grade", ["1.1,normal"], "has no column 'label'"),
        ("id,label", ["1.1,normal"], "has no column study or accession"),
        ("study,label", ["1.1,broken"], "has labels other than"),
        ("study,label", ["1.1,normal", "1.1,abnormal"], "gives one study two labels, in the lines 2 and 3"),
        ("study,accession,label", ["1.3,,normal", ",ACC,abnormal"], "gives one study two labels, in the lines 2 and 3"),
        ("study,label", [",normal"], "line 2 names neither"),
        (
            "study,label",
            ["7.7,normal"],
            "holds no radiographs in the layout dicom; skipped, radiographs without a label: 5 (studies: 4)",
        ),
    ],
)
def test_a_table_that_cannot_be_used(
    archive: Path, label: Callable[..., Path], columns: str, rows: list[str], says: str
) -> None:
    label(*rows, columns=columns)
    sentence = refusal(archive)
    assert says in sentence
    assert not any(name in sentence for name in ("broken", "1.1", "1.3", "7.7", "ACC", "JANE"))


def test_labels_belong_to_dicom(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="are for DICOM, not for the layout mura"):
        read_collection(archive, "mura", labels=tmp_path / "labels.csv")


def test_part_and_split_of_the_table_come_first(archive: Path, label: Callable[..., Path]) -> None:
    label("1.1,normal,Finger,train", "1.2,abnormal,,valid", columns="study,label,part,split")
    cases = read_collection(archive, "dicom").cases
    assert [(case.part, case.split) for case in cases] == [("finger", "train"), ("finger", "train"), ("wrist", "valid")]


def test_linked_folders_are_read_and_loops_are_not(archive: Path, tmp_path: Path) -> None:
    (archive / "w").rename(tmp_path / "share")
    (archive / "w").symlink_to(tmp_path / "share")
    (archive / "x/loop").symlink_to(archive)
    (archive / "x/up").symlink_to(tmp_path)
    cases = read_collection(archive, "dicom", keep_identifiers=True).cases
    assert [case.case for case in cases if case.study == "1.4"] == ["w/1.2.840.1"]
    assert len(cases) == 5
