"""DICOM files sent to the server: read as the command line reads them, and no value of a header gets out."""

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")
pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")

import httpx  # noqa: E402  # only where all of these are installed

from cli.serve import report_of  # noqa: E402
from retrieval.datasets.collection import Collection  # noqa: E402
from retrieval.datasets.pseudonyms import SiteKey  # noqa: E402
from retrieval.indexing.build import build_index  # noqa: E402
from retrieval.searcher import Searcher  # noqa: E402

Bytes = Callable[..., bytes]
Serve = Callable[..., str]
MARK = "Q7MARK"  # no byte sequence that a picture, a hash or a sentence has by chance
UID = "1.2.271828182845904523536"


def grey(*levels: int) -> Any:
    """One frame (32, 32), or several (N, 32, 32), of these levels."""
    frames = np.stack([np.full((32, 32), level, np.uint8) for level in levels])
    return frames if len(levels) > 1 else frames[0]


def post(client: httpx.Client, *files: tuple[str, bytes], **fields: str) -> httpx.Response:
    return client.post("/api/search", files=[("files", one) for one in files], data=fields)


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """What an answer says, whatever the files are called."""
    cases = [{**case, "path": ""} for case in answer["cases"]]
    figures = [{**view, "file": "", "heatmap": None} for view in answer["views"]]
    kept = ("classifier", "knn", "agreement", "familiarity")
    excluded = answer["query"]["excluded_patients"]
    return {**{name: answer[name] for name in kept}, "cases": cases, "views": figures, "excluded": excluded}


@pytest.mark.parametrize("levels", [(236,), (236, 30, 200)])
def test_it_answers_as_the_command_line_does_and_each_frame_is_a_view(
    serve: Serve, place: Path, tmp_path: Path, dicom_bytes: Bytes, levels: tuple[int, ...]
) -> None:
    data = dicom_bytes(grey(*levels), PatientID="dee")
    (tmp_path / "run.dcm").write_bytes(data)
    with Searcher.open(place) as searcher:
        expected = searcher.search(tmp_path / "run.dcm", k=4).to_dict()
    assert expected["query"]["excluded_patients"] == ["dee"]  # type: ignore[index]  # of a JSON object
    with httpx.Client(base_url=serve()) as client:
        answer = post(client, ("run.dcm", data), k="4").json()
    assert told(answer) == told(expected)
    names = [f"run.dcm[{number}]" for number in range(1, len(levels) + 1)] if len(levels) > 1 else ["run.dcm"]
    assert answer["query"]["files"] == names


def test_a_patient_that_the_site_hashes_is_left_out_also_when_asked_again(
    serve: Serve,
    squares: Callable[..., Collection],
    model: Path,
    tmp_path: Path,
    dicom_bytes: Bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "key").write_text("5c" * 32, encoding="utf-8")
    monkeypatch.setenv("MURA_SEARCH_SITE_KEY_FILE", str(tmp_path / "key"))
    key = SiteKey.find()
    assert key
    own = key.pseudonym("patient", MARK)
    studies = [(own, "own", 1, [236]), ("cid", "s3", 1, [215]), ("bob", "s2", 0, [40])]
    build_index(squares(studies, "hashed"), tmp_path / "hashed-index", model=model)
    with httpx.Client(base_url=serve(tmp_path / "hashed-index")) as client:

        def shown(patient: str) -> set[str]:
            answer = post(client, ("a.dcm", dicom_bytes(grey(236), PatientID=patient)), heatmap="true").json()
            again = client.get(answer["remembered"]["study"]).json()
            assert MARK not in str(answer) + str(again)
            found: set[str] = {case["study"] for case in answer["cases"]}
            assert found == {case["study"] for case in again["cases"]}
            return found

        assert shown(MARK) == {"s2", "s3"}
        assert shown("somebody else") == {"own", "s2", "s3"}
        (tmp_path / "key").unlink()
        refused = post(client, ("a.dcm", dicom_bytes(grey(236), PatientID=MARK)))
    assert (refused.status_code, str(tmp_path) in refused.text) == (503, False)


def test_frames_and_pixels_have_limits(serve: Serve, dicom_bytes: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with httpx.Client(base_url=serve(limits={"views": 3, "pixels": 4096})) as client:
        four, two, one = (("x.dcm", dicom_bytes(grey(*levels))) for levels in ((9, 8, 7, 6), (9, 8), (7,)))
        assert post(client, two, one).status_code == 200
        assert post(client, two, ("y.dcm", two[1])).status_code == 413
        assert "4,096 pixels together" in post(client, ("big.dcm", dicom_bytes(np.zeros((65, 64), np.uint8)))).text
        huge = ("huge.dcm", dicom_bytes(grey(7), Rows=60_000, Columns=60_000))

        def decode(*_: Any) -> None:
            raise AssertionError("it was decoded")

        monkeypatch.setattr("retrieval.images.dicom_reader._decoded", decode)
        refused = post(client, four)
        assert (refused.status_code, "has 4 frames, more than the 3 views" in refused.text) == (422, True)
        assert "60,000 x 60,000 pixels, more than" in post(client, huge).json()["error"]


def marked(ds: Any) -> None:
    """A marker in what names somebody or something, a nested and a private element, a date that is none, and UIDs."""
    for keyword in ("PatientName", "ReferringPhysicianName", "OperatorsName"):
        setattr(ds, keyword, f"{MARK}^JOHN")
    for keyword in (
        *("PatientID", "AccessionNumber", "InstitutionName", "StudyDescription", "SeriesDescription", "StationName"),
        *("PatientAddress", "StudyID", "ImageComments", "BodyPartExamined", "ViewPosition", "OtherPatientIDs"),
    ):
        setattr(ds, keyword, MARK)
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(ds, keyword, f"{UID}.1")
    ds["StudyDate"] = pydicom.DataElement(pydicom.tag.Tag("StudyDate"), "DA", MARK, already_converted=True)
    inner = pydicom.Dataset()
    inner.PatientName = MARK
    ds.ReferencedStudySequence = pydicom.Sequence([inner])
    ds.private_block(0x0011, f"{MARK} PRIVATE", create=True).add_new(0x01, "LO", MARK)
    ds.file_meta.SourceApplicationEntityTitle = MARK
    ds.preamble = (MARK.encode() * 22)[:128]


def stored(data: bytes, **elements: Any) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(data))
    marked(ds)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=False)
    assert file.getvalue().count(MARK.encode()) > 15
    return file.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of writing what no file should hold
def test_no_value_of_a_header_gets_out(serve: Serve, dicom_bytes: Bytes, caplog: pytest.LogCaptureFixture) -> None:
    data = dicom_bytes(grey(236))
    whole = stored(data)
    broken = {
        "cut": whole[:-300],
        "kind": stored(data, SOPClassUID=f"{UID}.9"),
        "ct": stored(data, SOPClassUID="1.2.840.10008.5.1.4.1.1.2"),
        "grey": stored(data, PhotometricInterpretation=MARK),
        "capture": stored(data, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality=MARK),
        "window": stored(data, VOILUTFunction=MARK, WindowCenter=1, WindowWidth=2),
        "shape": stored(data, PresentationLUTShape=MARK),
    }
    texts: list[str] = []
    with caplog.at_level(logging.DEBUG), httpx.Client(base_url=serve(report=report_of), timeout=30) as client:
        for name, content in broken.items():
            reply = post(client, (f"{name}.dcm", content))
            assert reply.status_code == (200 if name in ("window", "shape") else 422), name
            texts += [reply.text, post(client, ("a.dcm", whole), (f"{name}.dcm", content)).text]
        answer = post(
            client,
            ("a.dcm", whole),
            ("b.dcm", dicom_bytes(grey(230), PatientID=f"{MARK}2")),
            one_study="true",
            heatmap="true",
        )
        assert any("of several patients" in warning for warning in answer.json()["warnings"])
        study = answer.json()["remembered"]["study"]
        page = client.post("/search", files={"files": whole}, data={"heatmap": "true"}, follow_redirects=True)
        report = client.get(study.removeprefix("/api") + "/report")
        pictures = [client.get(f"{study}/views/1/{what}") for what in ("image", "heatmap")]
        for one in (answer, page, report, *pictures):
            assert one.status_code == 200
            texts += [one.content.decode("latin-1"), str(one.headers), str(one.url)]
        texts.append(client.get("/metrics").text)
    assert "POST /api/search 200" in caplog.text
    assert not [text for text in (caplog.text, *texts) if re.search(f"{MARK}|{re.escape(UID)}", text, re.IGNORECASE)]


def test_without_the_extra_it_says_so(
    serve: Serve, dicom_bytes: Bytes, png: Bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dicom_bytes(grey(200))
    (tmp_path / "pydicom.py").write_text("raise ModuleNotFoundError(name='pydicom')")
    monkeypatch.syspath_prepend(str(tmp_path))  # the processes that decode look for modules there, too
    with httpx.Client(base_url=serve()) as client:
        refused = post(client, ("a.dcm", data))
        assert (refused.status_code, "which this server cannot read" in refused.json()["error"]) == (422, True)
        answer = post(client, ("a.dcm", data), ("b.png", png(200))).json()
    assert answer["query"]["files"] == ["b.png"]
    assert any("left out: a.dcm is DICOM" in warning for warning in answer["warnings"])
