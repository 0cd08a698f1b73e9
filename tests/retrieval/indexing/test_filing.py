"""An answered study becomes an indexed one: what is stored of it, and that it votes at once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index.errors import IndexFailure
from index.reader import IndexReader
from retrieval.datasets.collection import Collection, read_collection
from retrieval.indexing.build import build_index
from retrieval.indexing.filing import StudyRecord, file_study
from retrieval.query import read_views
from retrieval.searcher import Searcher
from tests.pictures import grey_square

Square = Callable[..., Path]


@pytest.fixture
def searcher(squares: Callable[..., Collection], model: Path, tmp_path: Path) -> Iterator[Searcher]:
    studies = [("ann", "s1", 0, [20, 25]), ("bob", "s2", 0, [40]), ("cid", "s3", 1, [215]), ("dee", "s4", 1, [235])]
    build_index(squares(studies), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as opened:
        yield opened


def test_a_filed_study_votes_on_the_next_one(searcher: Searcher, square: Square) -> None:
    views, _ = read_views([square("a.png", 120, 1), square("b.png", 130, 2)])
    encoded = searcher.encoder.encode([view.pixels for view in views])
    filed = file_study(searcher.index.path, views, encoded, StudyRecord(1, "s9", "eve", "Finger", note="seen on CT"))
    assert (filed.study, filed.label, filed.cases, filed.note) == ("s9", "abnormal", 2, "seen on CT")
    nearest = searcher.search(square("c.png", 125, 3)).cases[0]
    assert (nearest.study, nearest.patient, nearest.label, nearest.part) == ("s9", "eve", "abnormal", "finger")
    assert nearest.weight > 0
    with pytest.raises(IndexFailure, match="indexed already, as study s9; correct the label of that study"):
        file_study(searcher.index.path, views, encoded, StudyRecord(0, "other"))


def test_a_study_without_names_gets_one_and_is_its_own_patient(searcher: Searcher, square: Square) -> None:
    names = set()
    for number in range(2):
        views, _ = read_views([square(f"{number}.png", 100 + number, number)])
        encoded = searcher.encoder.encode([view.pixels for view in views])
        names.add(file_study(searcher.index.path, views, encoded, StudyRecord(0)).study)
    with IndexReader.open(searcher.index.path) as reader:
        cases = reader.find("study", names)
    assert len(names) == 2
    assert [case.patient for case in cases] == [case.study for case in cases]
    assert [case.path for case in cases] == ["", ""]


@pytest.mark.parametrize(("keep", "hashed"), [(False, True), (True, False)])
def test_dicom_patients_are_named_as_the_index_names_them(
    write_dicom: Callable[..., Path], model: Path, tmp_path: Path, keep: bool, hashed: bool
) -> None:
    for number, label in enumerate(("normal", "abnormal")):
        write_dicom(
            f"data/{label}/{number}.dcm", grey_square(40 + 150 * number, 32), PatientID=f"P{number}",
            StudyInstanceUID=f"1.2.{number}", SOPInstanceUID=f"1.2.{number}.1",
        )  # fmt: skip
    (tmp_path / "data" / "labels.csv").write_text("study,label\n1.2.0,normal\n1.2.1,abnormal\n")
    collection = read_collection(tmp_path / "data", "dicom", keep_identifiers=keep)
    build_index(collection, tmp_path / "index", model=model)
    file = write_dicom("q.dcm", grey_square(90, 32), PatientID="P0", StudyInstanceUID="1.2.9", SOPInstanceUID="1.2.9.1")
    with Searcher.open(tmp_path / "index") as searcher:
        views, _ = read_views([file])
        encoded = searcher.encoder.encode([view.pixels for view in views])
        filed = file_study(searcher.index.path, views, encoded, StudyRecord(1))
        (case,) = searcher.index.find("study", [filed.study])
        assert case.patient == next(case.patient for case in collection.cases if case.label == 0)
        assert (case.patient == "P0") is not hashed


def test_a_dicom_patient_is_not_stored_where_the_index_is_of_another_layout(
    searcher: Searcher, write_dicom: Callable[..., Path]
) -> None:
    views, _ = read_views([write_dicom("q.dcm", grey_square(90, 32), PatientID="SMITH")])
    encoded = searcher.encoder.encode([view.pixels for view in views])
    filed = file_study(searcher.index.path, views, encoded, StudyRecord(1))
    (case,) = searcher.index.find("study", [filed.study])
    assert case.patient == filed.study
