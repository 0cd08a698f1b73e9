"""What a structured report says of patients: the query's own identifiers, and hashes of others."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
highdicom = pytest.importorskip("highdicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")
from retrieval.dicom.results import ArchiveAnswer, search_for_archive  # noqa: E402
from retrieval.dicom.source_instances import read_origins  # noqa: E402  # only where they are installed
from retrieval.dicom.structured_report import structured_report  # noqa: E402
from tests.retrieval.dicom.dicom_results import FULL, gradient, read_back  # noqa: E402

Write = Callable[..., Path]


Ask = Callable[..., ArchiveAnswer]


def test_patient_and_study_are_those_of_the_query(ask_archive: Ask, dicom_query: Path, tmp_path: Path) -> None:
    report, captures = read_back(tmp_path / "out", ask_archive(dicom_query))
    asked = pydicom.dcmread(dicom_query)
    for instance in (report, *captures):
        for keyword in FULL:
            if keyword not in ("SpecificCharacterSet", "Laterality", "BurnedInAnnotation"):
                assert instance.get(keyword) == asked.get(keyword), keyword
        assert instance.SpecificCharacterSet == "ISO_IR 192"
        assert instance.StudyInstanceUID == "1.2.99"
        assert instance.SeriesInstanceUID not in ("1.2.99.1", "")
    assert report.SeriesInstanceUID != captures[0].SeriesInstanceUID
    assert (captures[0].Laterality, captures[0].BurnedInAnnotation) == ("L", "NO")
    evidence = report.CurrentRequestedProcedureEvidenceSequence
    assert [item.StudyInstanceUID for item in evidence] == ["1.2.99"]
    referred = evidence[0].ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == "1.2.99.1"
    assert referred.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == asked.SOPInstanceUID
    assert referred.ReferencedSOPSequence[0].ReferencedSOPClassUID == asked.SOPClassUID


def similar(report: Any) -> list[dict[str, Any]]:
    whole = next(
        item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "SIMILAR-STUDIES"
    )
    return [
        {item.ConceptNameCodeSequence[0].CodeValue: item for item in one.ContentSequence}
        for one in whole.ContentSequence
    ]


def test_by_default_similar_studies_have_hashes_and_no_references(
    ask_archive: Ask, dicom_query: Path, tmp_path: Path
) -> None:
    found = ask_archive(dicom_query)
    report, _ = read_back(tmp_path / "out", found)
    assert "PertinentOtherEvidenceSequence" not in report
    told = similar(report)
    assert [one["NAME"].TextValue for one in told] == [case.study for case in found.answer.cases]
    meanings = [one["LABEL"].ConceptCodeSequence[0].CodeMeaning.lower() for one in told]
    assert meanings == [case.label for case in found.answer.cases]
    weights = [float(one["WEIGHT"].MeasuredValueSequence[0].NumericValue) for one in told]
    assert weights == pytest.approx([case.weight for case in found.answer.cases])
    everything = b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())
    assert b"STRANGER" not in everything
    assert b"Other^Patient" not in everything


def test_kept_identifiers_are_referred_to_as_evidence(
    ask_archive: Ask, dicom_query: Path, dicom_archive: Path, write_dicom: Write, tmp_path: Path
) -> None:
    found = ask_archive(dicom_query, keep=True)
    nearest, second = (case.study for case in found.answer.cases[:2])
    report, _ = read_back(tmp_path / "out", found)
    evidence = {
        item.StudyInstanceUID: item.ReferencedSeriesSequence[0] for item in report.PertinentOtherEvidenceSequence
    }
    assert evidence.keys() == {case.study for case in found.answer.cases}
    original = pydicom.dcmread(dicom_archive / nearest.rpartition(".")[2])
    assert evidence[nearest].SeriesInstanceUID == original.SeriesInstanceUID
    assert (
        similar(report)[0]["SIMILAR-STUDY"].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID
    )
    assert all("NAME" not in one for one in similar(report))
    assert b"STRANGER" not in next((tmp_path / "out").glob("SR*")).read_bytes()

    (dicom_archive / second.rpartition(".")[2]).unlink()  # and what is gone, or another's now, is not referred to
    write_dicom(f"archive/{nearest.rpartition('.')[2]}", gradient(), StudyInstanceUID="1.2.55", PatientID="STRANGER")
    report, _ = read_back(tmp_path / "again", ask_archive(dicom_query, keep=True))
    studies = {item.StudyInstanceUID for item in report.PertinentOtherEvidenceSequence}
    assert studies == {case.study for case in found.answer.cases[2:]}


def test_names_of_a_case_table_do_not_get_out(
    squares: Callable[..., Collection], model: Path, dicom_query: Path, tmp_path: Path
) -> None:
    """They are whatever the user wrote, and the report is filed with another patient."""
    studies = [("JANE", "DOE-JANE-1", 0, [20]), ("JOHN", "DOE-JOHN-1", 0, [40]), ("J", "DOE-J", 1, [220])]
    build_index(squares(studies), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as searcher:
        found = search_for_archive(searcher, [dicom_query])
    assert found.answer.cases[0].study.startswith("DOE-")
    report, _ = read_back(tmp_path / "out", found)
    assert len(similar(report)) == 3
    everything = b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())
    assert b"DOE-" not in everything
    assert str(tmp_path).encode() not in everything


def test_a_name_that_is_no_hash_does_not_get_out_of_an_index_of_hashes(ask_archive: Ask, dicom_query: Path) -> None:
    """Radiographs of a case table may have been added to it."""
    answer = ask_archive(dicom_query).answer
    first, *others = answer.cases
    mixed = replace(answer, cases=(replace(first, study="SMITH^JOHN 1950"), *others))
    report = structured_report(mixed, read_origins(answer.query.files), None, named=True)
    told = similar(report)
    assert "NAME" not in told[0]
    assert [one["NAME"].TextValue for one in told[1:]] == [case.study for case in others]
    assert "SMITH" not in str(report)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "00000000"),
        ("StudyDate", "20230230"),
        ("StudyTime", "256199"),
        ("PatientName", "A^B\\C^D"),
        ("ReferringPhysicianName", "A\\B"),
        ("LossyImageCompressionRatio", "abcd"),
    ],
)
def test_a_value_that_says_nothing_is_left_empty(
    ask_archive: Ask, dicom_query: Path, tmp_path: Path, keyword: str, value: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(dicom_query)
        element = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(keyword),
            pydicom.datadict.dictionary_VR(keyword),
            len(value),
            value.encode(),
            0,
            False,
            True,
        )
        ds[element.tag] = element
        ds.save_as(tmp_path / "odd.dcm")
    report, _ = read_back(tmp_path / "out", ask_archive(tmp_path / "odd.dcm"))
    assert not report.get(keyword)


def test_nothing_else_of_the_header_gets_out(ask_archive: Ask, dicom_query: Path, tmp_path: Path) -> None:
    ds = pydicom.dcmread(dicom_query)
    mark = "Q7MARK"
    for keyword in ("InstitutionName", "OperatorsName", "PerformingPhysicianName", "PatientComments", "PatientAddress",
                    "StationName", "DeviceSerialNumber", "SeriesDescription", "ProtocolName", "ImageComments",
                    "PatientTelephoneNumbers", "OtherPatientNames", "RequestingPhysician", "Manufacturer"):  # fmt: skip
        setattr(ds, keyword, mark)
    ds.private_block(0x0011, mark, create=True).add_new(0x01, "LO", mark)
    folder = tmp_path / f"{mark}^FOLDER"
    folder.mkdir()
    ds.save_as(folder / f"{mark}.dcm")
    assert (folder / f"{mark}.dcm").read_bytes().count(mark.encode()) > 14
    read_back(tmp_path / "out", ask_archive(folder / f"{mark}.dcm"))
    for file in (tmp_path / "out").iterdir():
        assert mark.encode() not in file.read_bytes()
