"""Patients and studies of a DICOM folder: hashed, known again, left out as the query's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.datasets.collection import Collection, read_collection
from retrieval.datasets.pseudonyms import KEY_VARIABLE, SiteKey
from retrieval.errors import CollectionError, EvaluationError, RadiographError
from retrieval.evaluation.evaluate import evaluate
from retrieval.indexing.build import build_index
from retrieval.indexing.update import add_to_index
from retrieval.notices import Code
from retrieval.searcher import Searcher

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

Write = Callable[..., Path]


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
