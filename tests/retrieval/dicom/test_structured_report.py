"""Answers as DICOM: read back by pydicom and highdicom, and searched for what must not be there."""

import io
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from retrieval.answer import Answer
from retrieval.decision.findings import FindingShare
from retrieval.errors import DicomResultError, RadiographError
from retrieval.images.radiograph import read_radiograph

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
highdicom = pytest.importorskip("highdicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")
from cli.render_answer import print_answer  # noqa: E402
from retrieval.dicom.results import ArchiveAnswer  # noqa: E402
from retrieval.dicom.source_instances import read_origins  # noqa: E402  # only where they are installed
from retrieval.dicom.structured_report import SCHEME, remarks, structured_report  # noqa: E402
from retrieval.notices import DOUBTS, Notice  # noqa: E402
from retrieval.notices import Code as Notices  # noqa: E402
from retrieval.reports.answer_report import _notes, _sentences  # noqa: E402
from retrieval.reports.templating import render  # noqa: E402
from retrieval.wording import DISCLAIMER, sentence  # noqa: E402
from tests.notice_details import DETAILS  # noqa: E402
from tests.retrieval.dicom.dicom_results import gradient, read_back  # noqa: E402

Write = Callable[..., Path]


Ask = Callable[..., ArchiveAnswer]


SR = "1.2.840.10008.5.1.4.1.1.88.33"


CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def values(report: Any) -> dict[str, Any]:
    """Of the measurement group of the study: every NUM and CODE item, by the code of its name."""
    report = highdicom.sr.ComprehensiveSR.from_dataset(report)
    group = report.content.get_image_measurement_groups()[0]
    found = {}
    for item in group[0].ContentSequence:
        if item.ValueType in ("NUM", "CODE"):
            found[item.name.value] = item.value.meaning if item.ValueType == "CODE" else float(item.value)
    return found


def test_the_report_says_what_the_answer_does(ask_archive: Ask, dicom_query: Path, tmp_path: Path) -> None:
    found = ask_archive(dicom_query)
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
        "BORDERLINE": "Unknown",  # this index never learned how far mild changes move a prediction
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


def test_two_answers_are_two_series(ask_archive: Ask, dicom_query: Path) -> None:
    one, two = ask_archive(dicom_query), ask_archive(dicom_query)
    uids = [(item.SOPInstanceUID, item.SeriesInstanceUID) for item in (*one.instances, *two.instances)]
    assert len(set(uids)) == len({series for _, series in uids}) == 4


def test_a_heatmap_is_what_the_png_shows(ask_archive: Ask, write_dicom: Write, tmp_path: Path) -> None:
    query = write_dicom("bright.dcm", gradient(130, 250), StudyInstanceUID="1.2.99")
    found = ask_archive(query, heatmap=tmp_path / "heat.png")
    _, (capture,) = read_back(tmp_path / "out", found)
    assert (capture.SOPClassUID, capture.PhotometricInterpretation) == (CAPTURE, "RGB")
    assert np.array_equal(capture.pixel_array[:, :, ::-1], np.asarray(cv2.imread(str(tmp_path / "heat.png"))))
    assert not np.array_equal(capture.pixel_array[..., 0], gradient(130, 250))
    source = capture.SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == pydicom.dcmread(query).SOPInstanceUID
    assert found.answer.views[0].heatmap == str(tmp_path / "heat.png")
    assert ask_archive(query).answer.views[0].heatmap is None


def test_frames_are_referred_to_by_number(
    ask_archive: Ask, dicom_query: Path, write_dicom: Write, tmp_path: Path
) -> None:
    frames = np.stack([gradient(), gradient(100, 220)])
    several = write_dicom(
        "many.dcm", frames, StudyInstanceUID="1.2.99", PatientID="Q7", SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2",
        Modality="OT",
    )  # fmt: skip
    report, captures = read_back(tmp_path / "out", ask_archive(dicom_query, several))
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
    one, many = pydicom.dcmread(dicom_query).SOPInstanceUID, pydicom.dcmread(several).SOPInstanceUID
    assert images == [[(one, None), (many, [1, 2])], [(one, None)], [(many, [1])], [(many, [2])]]
    assert [capture.SourceImageSequence[0].get("ReferencedFrameNumber") for capture in captures] == [None, 1, 2]
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1
    assert [capture.StudyDate for capture in captures] == ["20260102"] * 3


@pytest.fixture
def answered(ask_archive: Ask, dicom_query: Path) -> Answer:
    return ask_archive(dicom_query).answer


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
    answered: Answer, dicom_query: Path, classifier: bool, vote: bool | None, familiar: bool | None, finding: str
) -> None:
    """Both verdicts are told; the finding is theirs where they agree about something like what is indexed."""
    answer = replace(
        answered,
        classifier=replace(answered.classifier, abnormal=classifier),
        knn=replace(answered.knn, abnormal=vote, probability=None if vote is None else 0.3),
        agreement=None if vote is None else classifier == vote,
        familiarity=replace(answered.familiarity, familiar=familiar),
    )
    said = values(structured_report(answer, read_origins([str(dicom_query)])))
    words = {True: "Abnormal", False: "Normal", None: "Unknown"}
    assert (said["121071"], said["CLASSIFIER"], said["VOTE"]) == (finding, words[classifier], words[vote])
    assert said["FAMILIAR"] == {True: "Yes", False: "No", None: "Unknown"}[familiar]
    assert ("VOTE-P" in said) == (vote is not None)


@pytest.mark.parametrize("near", [True, False])
def test_a_borderline_prediction_is_said(answered: Answer, dicom_query: Path, near: bool) -> None:
    answer = replace(answered, classifier=replace(answered.classifier, borderline=near))
    said = values(structured_report(answer, read_origins([str(dicom_query)])))
    assert said["BORDERLINE"] == ("Yes" if near else "No")


@pytest.mark.parametrize("code", [*Notices, "of-a-later-version"])
def test_every_notice_reaches_every_output(code: str, answered: Answer, dicom_query: Path) -> None:
    """Sentences name files and cases; a report for the archive has the number of the view instead."""
    notice = Notice(code, str(dicom_query), DETAILS)
    answer = replace(answered, notices=(notice,))
    words = sentence(notice)
    assert answer.warnings == (words,)
    assert answer.to_dict()["warnings"] == [words]
    assert answer.to_dict()["notices"] == [{"code": code, "view": str(dicom_query), "detail": DETAILS}]
    (line,) = (line for line in remarks(answer) if line not in remarks(replace(answered, notices=())))
    assert line == (line[:1].upper() + line[1:]).rstrip(".") + "."
    assert "secret" not in line
    assert str(dicom_query) not in line
    console = Console(width=1000, record=True, file=io.StringIO())
    print_answer(answer, console)
    assert words in console.export_text()
    doubts = _sentences(answer.doubts)
    head = unescape(render("answer_head.html", answer=answer, verdict="", doubts=doubts, notes=_notes(answer)))
    shown = words[:1].upper() + words[1:]
    assert shown in head
    assert (head.index(shown) < head.index('class="verdict"')) == (code in DOUBTS), "doubts come before the verdict"


def test_findings_of_voting_studies_are_listed_everywhere(answered: Answer, dicom_query: Path) -> None:
    shares = (FindingShare("fracture", 0.61, 5), FindingShare("plate", 0.12, 1))
    answer = replace(answered, findings=shares)
    report = structured_report(answer, read_origins([str(dicom_query)]))
    (listed,) = (item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "FINDINGS")
    assert [
        [part.TextValue if part.ValueType == "TEXT" else float(part.MeasuredValueSequence[0].NumericValue)
         for part in item.ContentSequence]
        for item in listed.ContentSequence
    ] == [["fracture", 0.61, 5], ["plate", 0.12, 1]]  # fmt: skip
    console = Console(width=1000, record=True, file=io.StringIO())
    print_answer(answer, console)
    text = console.export_text()
    assert "fracture 61 %, plate 12 %" in text
    assert "a list to think of, and not a diagnosis" in text
    assert answer.to_dict()["findings"] == [
        {"finding": "fracture", "weight": 0.61, "studies": 5}, {"finding": "plate", "weight": 0.12, "studies": 1}
    ]  # fmt: skip


def test_remarks_name_views_by_number(answered: Answer, dicom_query: Path) -> None:
    view = str(dicom_query)
    codes = (Notices.FOR_PROCESSING, Notices.INDEXED_ITSELF, Notices.TRAINED_ON, Notices.LEFT_OUT)
    answer = replace(answered, notices=tuple(Notice(code, view, DETAILS) for code in codes))
    assert remarks(answer)[1:] == [
        "View 1 is for processing, not for presentation: a radiologist would see another picture.",
        "View 1 is itself in the index; its patient is left out.",
        "The model was trained on view 1: its probability says nothing about new radiographs.",
        "A file could not be read and is left out.",
    ]
    assert remarks(answer)[0] == DISCLAIMER


def test_only_dicom_of_one_study_can_be_filed(
    ask_archive: Ask, dicom_query: Path, square: Write, write_dicom: Write, tmp_path: Path
) -> None:
    with pytest.raises(DicomResultError, match=r"q\.png is not a DICOM file; a DICOM result needs a study"):
        ask_archive(dicom_query, square("q.png", 80))
    other = write_dicom("other.dcm", gradient(), StudyInstanceUID="1.2.98", PatientID="Q7")
    with pytest.raises(RadiographError, match="of 2 studies: ask about one study"):
        ask_archive(dicom_query, other)
    with pytest.raises(DicomResultError, match=r"other\.dcm is of another study than .*q\.dcm"):
        ask_archive(dicom_query, other, one_study=True)
    other = write_dicom("other.dcm", gradient(), StudyInstanceUID="1.2.99", PatientID="SECRET")
    with pytest.raises(DicomResultError, match="is of another patient") as caught:
        ask_archive(dicom_query, other, one_study=True)
    assert "SECRET" not in str(caught.value)
    for study in (None, "", "1.2.X"):
        with pytest.raises(DicomResultError, match="has no valid StudyInstanceUID"):
            ask_archive(write_dicom("no.dcm", gradient(), StudyInstanceUID=study))


def test_an_own_heatmap_is_no_radiograph(ask_archive: Ask, dicom_query: Path, tmp_path: Path) -> None:
    """Read again from the archive, it would be taken for another view, or be indexed."""
    _, (capture,) = read_back(tmp_path / "out", ask_archive(dicom_query))
    with pytest.raises(RadiographError, match="is a heatmap that this tool made, not a radiograph"):
        read_radiograph(Path(capture.filename))
