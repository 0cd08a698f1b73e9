"""The DICOM layout: which files of an archive become cases, and what they are called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.datasets.collection import Collection, read_collection
from retrieval.errors import CollectionError, EvaluationError, RadiographError
from retrieval.evaluation.evaluate import evaluate
from retrieval.indexing.build import build_index
from retrieval.indexing.update import add_to_index
from retrieval.notices import Code
from retrieval.pseudonyms import KEY_VARIABLE, SiteKey
from retrieval.searcher import Searcher
from tests.pictures import grey_square

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

Write = Callable[..., Path]
FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def put(write_dicom: Write) -> Write:
    """Writes a plain square of the archive: `put("a/1", 200, study="1.2", patient="P")`."""

    def write(name: str, brightness: int, *, study: str, patient: str = "P", **elements: Any) -> Path:
        pixels = grey_square(brightness)
        return write_dicom(f"archive/{name}", pixels, StudyInstanceUID=study, PatientID=patient, **elements)

    return write


@pytest.fixture
def label(tmp_path: Path) -> Callable[..., Path]:
    """Writes the table of labels, a row a text."""

    def write(*rows: str, columns: str = "study,label", name: str = "archive/labels.csv") -> Path:
        (tmp_path / name).write_text("\n".join((columns, *rows)) + "\n", encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def archive(put: Write, label: Callable[..., Path], tmp_path: Path) -> Path:
    """Four studies of three patients in nested folders, among other things."""
    put("DOE^JANE/IM1", 20, study="1.1", patient="A", BodyPartExamined="HAND", ViewPosition="PA", Laterality="L")
    put("DOE^JANE/IM2", 25, study="1.1", patient="A", BodyPartExamined="HAND", ViewPosition="LL")
    put("DOE^JANE/later/IM1", 210, study="1.2", patient="A", BodyPartExamined="WRIST")
    put("x/y/z.dcm", 230, study="1.3", patient="B", AccessionNumber="ACC")
    put("w/1.2.840.1", 40, study="1.4", patient="C")
    label("1.1,normal,", "1.2,abnormal,", ",positive,ACC", "1.4,0,", columns="study,label,accession")
    return tmp_path / "archive"


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


def test_hashes_are_the_same_people_without_their_names(archive: Path) -> None:
    """The table of cases is the same but for a one-to-one renaming."""
    plain = read_collection(archive, "dicom", keep_identifiers=True).cases
    hashed = read_collection(archive)
    assert hashed.layout == "dicom"
    for field in ("case", "study", "patient", "series"):
        pairs = {(getattr(one, field), getattr(two, field)) for one, two in zip(plain, hashed.cases, strict=True)}
        assert len(pairs) == len({one for one, _ in pairs}) == len({two for _, two in pairs})
        assert all(len(two) == 20 and int(two, 16) for _, two in pairs)
    key = SiteKey.find()
    assert key is not None
    assert hashed.site == key.name
    assert hashed.cases[0].patient == key.pseudonym("patient", "A")
    assert [hashed.stored(case).path for case in hashed.cases] == [""] * 5


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
        "passed over, not DICOM: 1",
        "passed over, DICOM but not radiographs: 2 (1 CT Image Storage, 1 Comprehensive SR Storage)",
        "passed over, DICOM that cannot be read: 1",
        "passed over, copies of a radiograph that is read: 1",
        "passed over, radiographs without a label: 1 (studies: 1)",
        "passed over, studies that name two patients: 1",
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
            "holds no radiographs in the layout dicom; passed over, radiographs without a label: 5 (studies: 4)",
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


# The query's own patient


@pytest.fixture
def place(archive: Path, model: Path, tmp_path: Path) -> Path:
    build_index(read_collection(archive, "dicom"), tmp_path / "index", model=model)
    return tmp_path / "index"


def test_the_own_patient_is_left_out_by_the_hash_of_its_number(place: Path, put: Write) -> None:
    key = SiteKey.find()
    assert key is not None
    new = put("../new.dcm", 210, study="7.7", patient="A")  # of Jane Doe, a study that is not indexed
    with Searcher.open(place) as searcher:
        answer = searcher.search(new)
        assert answer.query.excluded_patients == (key.pseudonym("patient", "A"),)
        assert {case.patient for case in answer.cases} == {key.pseudonym("patient", one) for one in "BC"}
        assert not any("site key" in warning for warning in answer.warnings)
        by_number = searcher.search(put("../other.dcm", 210, study="7.8", patient="new"), patient="A")
        assert by_number.query.excluded_patients == (key.pseudonym("patient", "A"),)


def test_views_of_two_patients_or_studies_are_refused(place: Path, put: Write) -> None:
    views = [put(f"../{name}.dcm", 210, study="7.7", patient=name) for name in ("A", "B")]
    other = put("../other.dcm", 215, study="7.8", patient="A")
    with Searcher.open(place) as searcher:
        with pytest.raises(RadiographError, match=r"of 2 patients: ask about one study .* mura-search worklist FOLDER"):
            searcher.search(views)
        with pytest.raises(RadiographError, match="of 2 studies: ask about one study at a time"):
            searcher.search([views[0], other])
        answer = searcher.search(views, one_study=True)
        assert Code.SEVERAL_PATIENTS in [notice.code for notice in answer.notices]
        assert not any("several patients" in warning for warning in searcher.search(views[0]).warnings)


def test_kept_identifiers_leave_the_own_patient_out_as_well(
    archive: Path, model: Path, tmp_path: Path, put: Write
) -> None:
    build_index(read_collection(archive, "dicom", keep_identifiers=True), tmp_path / "kept", model=model)
    with Searcher.open(tmp_path / "kept") as searcher:
        answer = searcher.search(put("../new.dcm", 210, study="7.7", patient="A"))
    assert answer.query.excluded_patients == ("A",)


def test_another_key_is_noticed(
    place: Path, put: Write, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("ab" * 32, encoding="ascii")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "key"))
    with Searcher.open(place) as searcher:
        answer = searcher.search(put("../new.dcm", 210, study="7.7", patient="A"))
    assert answer.query.excluded_patients == ()
    assert any("a site key that is not here" in warning for warning in answer.warnings)
    for collection in (read_collection(archive, "dicom"), read_collection(archive, "dicom", keep_identifiers=True)):
        with pytest.raises(CollectionError, match="by hashes with another site key"):
            add_to_index(collection, place)
        with Searcher.open(place) as searcher, pytest.raises(EvaluationError, match="with different site keys"):
            evaluate(searcher, collection)


def test_added_studies_are_known_again(place: Path, put: Write, label: Callable[..., Path], archive: Path) -> None:
    put("new/IM1", 60, study="6.6", patient="B")
    with (archive / "labels.csv").open("a", encoding="utf-8") as table:
        table.write("6.6,normal,\n")
    report = add_to_index(read_collection(archive, "dicom"), place)
    assert (report.added, len(report.known)) == (1, 5)
    with Searcher.open(place) as searcher:
        assert {case.path for case in searcher.index.cases()} == {""}


def test_an_index_of_hashes_says_no_path(place: Path) -> None:
    with Searcher.open(place) as searcher:
        about = searcher.index.metadata("collection")
    assert isinstance(about, dict)
    assert about["root"] == ""
    assert Collection(Path("a"), "dicom", (), site="x").site == "x"


def test_linked_folders_are_read_and_loops_are_not(archive: Path, tmp_path: Path) -> None:
    (archive / "w").rename(tmp_path / "share")
    (archive / "w").symlink_to(tmp_path / "share")
    (archive / "x/loop").symlink_to(archive)
    (archive / "x/up").symlink_to(tmp_path)
    cases = read_collection(archive, "dicom", keep_identifiers=True).cases
    assert [case.case for case in cases if case.study == "1.4"] == ["w/1.2.840.1"]
    assert len(cases) == 5


@pytest.mark.parametrize("placeholder", ["ANONYMOUS", "0", "N/A", "Anonymous^Patient"])
def test_a_placeholder_as_patient_names_nobody(put: Write, label: Write, tmp_path: Path, placeholder: str) -> None:
    for number in range(4):
        put(f"{number}", 20, study=f"1.{number}", patient=placeholder)
    label(*(f"1.{number},normal" for number in range(4)))
    for keep in (True, False):
        collection = read_collection(tmp_path / "archive", "dicom", keep_identifiers=keep)
        assert all(case.patient == case.study for case in collection.cases)
        codes = [notice.code for notice in collection.notices]
        assert codes[:2] == [Code.WITHOUT_PATIENT, Code.PLACEHOLDERS]
        assert Code.ONE_PATIENT not in codes


def test_identifiers_in_other_forms_are_one_patient(put: Write, label: Write, tmp_path: Path) -> None:
    put("a", 20, study="1.1", patient="M\u00fcller", SpecificCharacterSet="ISO_IR 192")
    put("b", 20, study="1.1", patient="Mu\u0308ller ", SpecificCharacterSet="ISO_IR 192")
    label("1.1,normal")
    (patient,) = {case.patient for case in read_collection(tmp_path / "archive", "dicom").cases}
    key = SiteKey.find()
    assert key is not None
    assert patient == key.pseudonym("patient", "Mu\u0308ller")


def test_numbers_that_lost_their_zeros_are_said_to(put: Write, label: Write, tmp_path: Path) -> None:
    put("a", 20, study="1.1", AccessionNumber="0001234")
    put("b", 20, study="1.2", AccessionNumber="77")
    label("1234,normal", "77,normal", "1.23457E+14,normal", columns="accession,label")
    collection = read_collection(tmp_path / "archive", "dicom")
    details = {notice.code: dict(notice.detail) for notice in collection.notices}
    assert details[Code.LABELS_ALIKE] == {"count": 1}
    assert details[Code.CHANGED_IDENTIFIERS] == {"count": 1}  # what a table names may be a patient's number


def test_one_patient_with_most_studies_is_not_named(put: Write, label: Write, tmp_path: Path) -> None:
    for number in range(5):
        put(f"{number}", 20, study=f"1.{number}", patient="SMITH")
    label(*(f"1.{number},normal" for number in range(5)))
    collection = read_collection(tmp_path / "archive", "dicom")
    assert {notice.code: dict(notice.detail) for notice in collection.notices}[Code.ONE_PATIENT] == {
        "count": 5,
        "total": 5,
    }
    assert not any("SMITH" in note for note in collection.notes)
