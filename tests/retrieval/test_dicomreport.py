"""Answers as DICOM: read back by pydicom and highdicom, judged by dciodvfy, and searched for what must not be there."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retrieval.answer import Answer
from retrieval.build import build_index
from retrieval.collection import Collection, read_collection
from retrieval.errors import DicomResultError, RadiographError
from retrieval.radiograph import read_radiograph
from retrieval.searcher import Searcher

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
highdicom = pytest.importorskip("highdicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

from retrieval.dicomorigin import read_origins  # noqa: E402
from retrieval.dicomreport import SCHEME, remarks, structured_report  # noqa: E402
from retrieval.dicomresult import ArchiveAnswer, search_for_archive, write_instances  # noqa: E402

Write = Callable[..., Path]
Ask = Callable[..., ArchiveAnswer]
SR = "1.2.840.10008.5.1.4.1.1.88.33"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
FULL = {
    "PatientName": "Müller^Jürg",
    "PatientID": "Q7",
    "PatientBirthDate": "19700131",
    "PatientSex": "M",
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "StudyID": "S1",
    "AccessionNumber": "ACC1",
    "ReferringPhysicianName": "Who^Doctor",
    "StudyDescription": "Hand, 2 views",
    "SpecificCharacterSet": "ISO_IR 100",
    "Laterality": "L",
    "BurnedInAnnotation": "NO",
}


@pytest.fixture
def archive(write_dicom: Write, tmp_path: Path) -> Path:
    """Eight studies of four patients: four dark, normal ones and four bright, abnormal ones."""
    rows = ["study,label"]
    for number in range(8):
        pixels = np.full((32, 32), 30 + 25 * number, np.uint8)
        study = f"1.2.{number}"
        write_dicom(
            f"archive/{number}", pixels, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1",
            PatientID=f"STRANGER{number // 2}", PatientName="Other^Patient",
        )  # fmt: skip
        rows.append(f"{study},{number // 4}")
    (tmp_path / "archive" / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "archive"


@pytest.fixture
def ask(archive: Path, model: Path, tmp_path: Path) -> Ask:
    """Asks an index of the archive: `ask(file, ...)`; with keep=True, one that keeps identifiers."""

    def search(*files: Path, keep: bool = False, heatmap: Path | None = None) -> ArchiveAnswer:
        place = tmp_path / f"index-{keep}"
        if not place.exists():
            build_index(read_collection(archive, "dicom", keep_identifiers=keep), place, model=model)
        with Searcher.open(place) as searcher:
            return search_for_archive(searcher, list(files), heatmap=heatmap)

    return search


@pytest.fixture
def query(write_dicom: Write) -> Path:
    return write_dicom("q.dcm", gradient(), StudyInstanceUID="1.2.99", SeriesInstanceUID="1.2.99.1", **FULL)


def gradient(low: int = 40, high: int = 90) -> Any:
    return np.tile(np.linspace(low, high, 40, dtype=np.uint8), (48, 1))


def values(report: Any) -> dict[str, Any]:
    """Of the measurement group of the study: every NUM and CODE item, by the code of its name."""
    report = highdicom.sr.ComprehensiveSR.from_dataset(report)
    group = report.content.get_image_measurement_groups()[0]
    found = {}
    for item in group[0].ContentSequence:
        if item.ValueType in ("NUM", "CODE"):
            found[item.name.value] = item.value.meaning if item.ValueType == "CODE" else float(item.value)
    return found


def read_back(folder: Path, found: ArchiveAnswer) -> tuple[Any, list[Any]]:
    folder.mkdir()
    report, *captures = write_instances(folder, found.instances)
    return highdicom.sr.srread(report), [pydicom.dcmread(file) for file in captures]


def errors(file: Path) -> list[str]:
    """What dciodvfy (dicom3tools) says is wrong; warnings are not among it."""
    done = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
    assert done.stderr, "dciodvfy names at least the IOD"
    return [line for line in done.stderr.splitlines() if "Error" in line]


needs_validator = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")


def test_the_report_says_what_the_answer_does(ask: Ask, query: Path, tmp_path: Path) -> None:
    found = ask(query)
    answer = found.answer
    report, _ = read_back(tmp_path / "out", found)
    assert (report.SOPClassUID, report.Modality) == (SR, "SR")
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    said = values(report)
    assert said == {
        "CLASSIFIER-P": pytest.approx(answer.classifier.probability, abs=1e-12),
        "CLASSIFIER-LIMIT": answer.classifier.threshold,
        "VOTE-P": pytest.approx(answer.knn.probability, abs=1e-12),
        "VOTE-LIMIT": answer.knn.threshold,
        "VOTERS": answer.knn.k,
        "SIMILARITY": pytest.approx(answer.familiarity.similarity, abs=1e-12),
        "FAMILIAR-LIMIT": pytest.approx(answer.familiarity.limit, abs=1e-12),
        "121071": "Normal",
        "CLASSIFIER": "Normal",
        "VOTE": "Normal",
        "AGREEMENT": "Yes",
        "FAMILIAR": "Yes",
    }
    group = report.content.get_image_measurement_groups()[0]
    texts: dict[str, list[str]] = {
        item.name.meaning: [] for item in group[0].ContentSequence if item.ValueType == "TEXT"
    }
    for item in group[0].ContentSequence:
        if item.ValueType == "TEXT":
            texts[item.name.meaning].append(item.value)
    assert texts["Algorithm Name"] == ["mura-search squares"]
    assert texts["Algorithm Version"][0][0].isdigit()
    assert f"model bundle SHA-256 {answer.model.sha256}" in texts["Algorithm Parameters"]
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == SCHEME


def test_patient_and_study_are_those_of_the_query(ask: Ask, query: Path, tmp_path: Path) -> None:
    report, captures = read_back(tmp_path / "out", ask(query))
    asked = pydicom.dcmread(query)
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


def test_two_answers_are_two_series(ask: Ask, query: Path) -> None:
    one, two = ask(query), ask(query)
    uids = [(item.SOPInstanceUID, item.SeriesInstanceUID) for item in (*one.instances, *two.instances)]
    assert len(set(uids)) == len({series for _, series in uids}) == 4


def test_a_heatmap_is_what_the_png_shows(ask: Ask, write_dicom: Write, tmp_path: Path) -> None:
    query = write_dicom("bright.dcm", gradient(130, 250), StudyInstanceUID="1.2.99")
    found = ask(query, heatmap=tmp_path / "heat.png")
    _, (capture,) = read_back(tmp_path / "out", found)
    assert (capture.SOPClassUID, capture.PhotometricInterpretation) == (CAPTURE, "RGB")
    assert np.array_equal(capture.pixel_array[:, :, ::-1], np.asarray(cv2.imread(str(tmp_path / "heat.png"))))
    assert not np.array_equal(capture.pixel_array[..., 0], gradient(130, 250))
    source = capture.SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == pydicom.dcmread(query).SOPInstanceUID
    assert found.answer.views[0].heatmap == str(tmp_path / "heat.png")
    assert ask(query).answer.views[0].heatmap is None


def test_frames_are_referred_to_by_number(ask: Ask, query: Path, write_dicom: Write, tmp_path: Path) -> None:
    frames = np.stack([gradient(), gradient(100, 220)])
    several = write_dicom(
        "many.dcm", frames, StudyInstanceUID="1.2.99", PatientID="Q7", SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2",
        Modality="OT",
    )  # fmt: skip
    report, captures = read_back(tmp_path / "out", ask(query, several))
    groups = report.content.get_image_measurement_groups()
    assert len(groups) == 4
    images = [
        [
            (item.referenced_sop_instance_uid, item.referenced_frame_numbers)
            for item in group[0].ContentSequence
            if item.ValueType == "IMAGE"
        ]
        for group in groups
    ]
    one, many = pydicom.dcmread(query).SOPInstanceUID, pydicom.dcmread(several).SOPInstanceUID
    assert images == [[(one, None), (many, [1, 2])], [(one, None)], [(many, [1])], [(many, [2])]]
    assert [capture.SourceImageSequence[0].get("ReferencedFrameNumber") for capture in captures] == [None, 1, 2]
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1
    assert [capture.StudyDate for capture in captures] == ["20260102"] * 3


def similar(report: Any) -> list[dict[str, Any]]:
    whole = next(
        item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "SIMILAR-STUDIES"
    )
    return [
        {item.ConceptNameCodeSequence[0].CodeValue: item for item in one.ContentSequence}
        for one in whole.ContentSequence
    ]


def test_by_default_similar_studies_have_hashes_and_no_references(ask: Ask, query: Path, tmp_path: Path) -> None:
    found = ask(query)
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
    ask: Ask, query: Path, archive: Path, write_dicom: Write, tmp_path: Path
) -> None:
    found = ask(query, keep=True)
    nearest, second = (case.study for case in found.answer.cases[:2])
    report, _ = read_back(tmp_path / "out", found)
    evidence = {
        item.StudyInstanceUID: item.ReferencedSeriesSequence[0] for item in report.PertinentOtherEvidenceSequence
    }
    assert evidence.keys() == {case.study for case in found.answer.cases}
    original = pydicom.dcmread(archive / nearest.rpartition(".")[2])
    assert evidence[nearest].SeriesInstanceUID == original.SeriesInstanceUID
    assert (
        similar(report)[0]["SIMILAR-STUDY"].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID
    )
    assert all("NAME" not in one for one in similar(report))
    assert b"STRANGER" not in next((tmp_path / "out").glob("SR*")).read_bytes()

    (archive / second.rpartition(".")[2]).unlink()  # and what is gone, or another's now, is not referred to
    write_dicom(f"archive/{nearest.rpartition('.')[2]}", gradient(), StudyInstanceUID="1.2.55", PatientID="STRANGER")
    report, _ = read_back(tmp_path / "again", ask(query, keep=True))
    studies = {item.StudyInstanceUID for item in report.PertinentOtherEvidenceSequence}
    assert studies == {case.study for case in found.answer.cases[2:]}


def test_names_of_a_case_table_do_not_get_out(
    squares: Callable[..., Collection], model: Path, query: Path, tmp_path: Path
) -> None:
    """They are whatever the user wrote, and the report is filed with another patient."""
    studies = [("JANE", "DOE-JANE-1", 0, [20]), ("JOHN", "DOE-JOHN-1", 0, [40]), ("J", "DOE-J", 1, [220])]
    build_index(squares(studies), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as searcher:
        found = search_for_archive(searcher, [query])
    assert found.answer.cases[0].study.startswith("DOE-")
    report, _ = read_back(tmp_path / "out", found)
    assert len(similar(report)) == 3
    everything = b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())
    assert b"DOE-" not in everything
    assert str(tmp_path).encode() not in everything


def test_nothing_else_of_the_header_gets_out(ask: Ask, query: Path, tmp_path: Path) -> None:
    ds = pydicom.dcmread(query)
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
    read_back(tmp_path / "out", ask(folder / f"{mark}.dcm"))
    for file in (tmp_path / "out").iterdir():
        assert mark.encode() not in file.read_bytes()


@pytest.fixture
def answered(ask: Ask, query: Path) -> Answer:
    return ask(query).answer


@pytest.mark.parametrize(
    ("classifier", "vote", "familiar", "finding"),
    [
        (False, False, True, "Normal"),
        (True, True, True, "Abnormal"),
        (True, True, None, "Abnormal"),
        (True, False, True, "Indeterminate"),
        (True, None, True, "Abnormal"),
        (False, False, False, "Indeterminate"),
    ],
)
def test_finding(
    answered: Answer, query: Path, classifier: bool, vote: bool | None, familiar: bool | None, finding: str
) -> None:
    """Both verdicts are told; the finding is theirs where they agree about something like what is indexed."""
    answer = replace(
        answered,
        classifier=replace(answered.classifier, abnormal=classifier),
        knn=replace(answered.knn, abnormal=vote, probability=None if vote is None else 0.3),
        agreement=None if vote is None else classifier == vote,
        familiarity=replace(answered.familiarity, familiar=familiar),
    )
    said = values(structured_report(answer, read_origins([str(query)])))
    words = {True: "Abnormal", False: "Normal", None: "Unknown"}
    assert (said["121071"], said["CLASSIFIER"], said["VOTE"]) == (finding, words[classifier], words[vote])
    assert said["FAMILIAR"] == {True: "Yes", False: "No", None: "Unknown"}[familiar]
    assert ("VOTE-P" in said) == (vote is not None)


def test_remarks_name_views_by_number(answered: Answer, query: Path) -> None:
    answer = replace(
        answered,
        warnings=(
            f"{query}: is for processing, not for presentation: a radiologist would see another picture",
            f"{query} is indexed itself, as secret; patient secret is left out",
            f"the model was trained on {query}: its probability says nothing about new radiographs",
            "left out: /secret/place.dcm is damaged",
            "the index holds no patient secret",
        ),
    )
    said = remarks(answer)
    assert said[1:] == [
        "View 1 is for processing, not for presentation: a radiologist would see another picture.",
        "View 1 is indexed itself; its patient is left out.",
        "The model was trained on view 1: its probability says nothing of it.",
        "Files that could not be read and were left out: 1.",
    ]
    assert "research" in said[0]


def test_only_dicom_of_one_study_can_be_filed(
    ask: Ask, query: Path, square: Write, write_dicom: Write, tmp_path: Path
) -> None:
    with pytest.raises(DicomResultError, match=r"q\.png is no DICOM file, so there is no study"):
        ask(query, square("q.png", 80))
    other = write_dicom("other.dcm", gradient(), StudyInstanceUID="1.2.98", PatientID="Q7")
    with pytest.raises(DicomResultError, match=r"other\.dcm is of another study than .*q\.dcm"):
        ask(query, other)
    other = write_dicom("other.dcm", gradient(), StudyInstanceUID="1.2.99", PatientID="SECRET")
    with pytest.raises(DicomResultError, match="is of another patient") as caught:
        ask(query, other)
    assert "SECRET" not in str(caught.value)
    for study in (None, "", "1.2.X"):
        with pytest.raises(DicomResultError, match="names no StudyInstanceUID that could be referred to"):
            ask(write_dicom("no.dcm", gradient(), StudyInstanceUID=study))


def test_an_own_heatmap_is_no_radiograph(ask: Ask, query: Path, tmp_path: Path) -> None:
    """Read again from the archive, it would be taken for another view, or be indexed."""
    _, (capture,) = read_back(tmp_path / "out", ask(query))
    with pytest.raises(RadiographError, match="is a heatmap that this tool made, not a radiograph"):
        read_radiograph(Path(capture.filename))


ODD: dict[str, dict[str, str | None]] = {
    "full": {**FULL},
    "bare": {},
    "no patient": {"PatientID": None},
    "values that are none": {
        "PatientSex": "X",
        "PatientBirthDate": "1970",
        "StudyDate": "yesterday",
        "StudyTime": "noon",
    },
    "one component": {"PatientName": "Bono"},
    "Japanese": {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう", "SpecificCharacterSet": "ISO_IR 192"},
    "without identity": {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "a tool"},
    "lossy": {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "10.5",
        "LossyImageCompressionMethod": "ISO_10918_1",
    },
    "burnt": {"BurnedInAnnotation": "YES"},
    "other side": {"ImageLaterality": "R"},
}


@needs_validator
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("keep", [False, True])
def test_the_validator_finds_no_error(
    ask: Ask, write_dicom: Write, archive: Path, tmp_path: Path, kind: str, keep: bool
) -> None:
    path = write_dicom("q.dcm", gradient(), StudyInstanceUID="1.2.99")
    ds = pydicom.dcmread(path)
    for keyword, value in ODD[kind].items():
        if value is None:
            delattr(ds, keyword)
        else:
            with pydicom.config.disable_value_validation():
                setattr(ds, keyword, value)
    with pydicom.config.disable_value_validation():
        ds.save_as(path)
    (tmp_path / "out").mkdir()
    for file in write_instances(tmp_path / "out", ask(path, keep=keep).instances):
        assert errors(file) == [], file


@needs_validator
def test_the_validator_finds_an_error(ask: Ask, query: Path, tmp_path: Path) -> None:
    """So that its silence means something: a report without a flag, and one that refers to what is no evidence."""
    (tmp_path / "out").mkdir()
    file = write_instances(tmp_path / "out", ask(query).instances)[0]
    ds = pydicom.dcmread(file)
    del ds.CompletionFlag
    ds.save_as(file)
    assert any("CompletionFlag" in line for line in errors(file))


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dsrdump (dcmtk) is not installed")
@pytest.mark.parametrize("keep", [False, True])
def test_another_toolkit_reads_the_report(ask: Ask, query: Path, tmp_path: Path, keep: bool) -> None:
    """DCMTK holds the tree to the constraints of Comprehensive SR, and prints it."""
    found = ask(query, keep=keep)
    (tmp_path / "out").mkdir()
    file = write_instances(tmp_path / "out", found.instances)[0]
    done = subprocess.run(["dsrdump", "+Pl", str(file)], capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if line.startswith(("E:", "F:"))] == []
    assert f'Probability of abnormality, classifier")="{found.answer.classifier.probability:.6f}'[:-2] in done.stdout
    assert done.stdout.count("Similar study of another patient") == (10 if keep else 5)


@needs_validator
def test_a_real_radiograph(ask: Ask, tmp_path: Path) -> None:
    """RG3 of pydicom-data, a radiograph of an extremity."""
    pytest.importorskip("data_store", reason="pydicom-data is not installed")
    from pydicom.data import get_testdata_file

    path = get_testdata_file("RG3_UNCR.dcm", download=False)
    if path is None:
        pytest.skip("pydicom-data holds no RG3_UNCR.dcm")
    (tmp_path / "out").mkdir()
    report, capture = write_instances(tmp_path / "out", ask(Path(path)).instances)
    assert errors(report) == []
    assert errors(capture) == []
    asked, made = pydicom.dcmread(path, stop_before_pixels=True), pydicom.dcmread(capture)
    assert (made.Rows, made.Columns) == (asked.Rows, asked.Columns)
    assert made.StudyInstanceUID == asked.StudyInstanceUID
