"""Answers as DICOM, judged by other people's tools: dciodvfy and DCMTK."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

from retrieval.dicom.results import ArchiveAnswer, write_instances  # noqa: E402  # only where they are installed
from tests.retrieval.dicom.dicom_results import FULL, gradient  # noqa: E402

Write = Callable[..., Path]
Ask = Callable[..., ArchiveAnswer]


def errors(file: Path) -> list[str]:
    """What dciodvfy (dicom3tools) says is wrong; warnings are not among it."""
    done = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
    assert done.stderr, "dciodvfy names at least the IOD"
    return [line for line in done.stderr.splitlines() if "Error" in line]


needs_validator = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
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
    ask_archive: Ask, write_dicom: Write, dicom_archive: Path, tmp_path: Path, kind: str, keep: bool
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
    for file in write_instances(tmp_path / "out", ask_archive(path, keep=keep).instances):
        assert errors(file) == [], file


@needs_validator
def test_the_validator_finds_an_error(ask_archive: Ask, dicom_query: Path, tmp_path: Path) -> None:
    """So that its silence means something: a report without a flag, and one that refers to what is no evidence."""
    (tmp_path / "out").mkdir()
    file = write_instances(tmp_path / "out", ask_archive(dicom_query).instances)[0]
    ds = pydicom.dcmread(file)
    del ds.CompletionFlag
    ds.save_as(file)
    assert any("CompletionFlag" in line for line in errors(file))


@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dsrdump (dcmtk) is not installed")
@pytest.mark.parametrize("keep", [False, True])
def test_another_toolkit_reads_the_report(ask_archive: Ask, dicom_query: Path, tmp_path: Path, keep: bool) -> None:
    """DCMTK holds the tree to the constraints of Comprehensive SR, and prints it."""
    found = ask_archive(dicom_query, keep=keep)
    (tmp_path / "out").mkdir()
    file = write_instances(tmp_path / "out", found.instances)[0]
    done = subprocess.run(["dsrdump", "+Pl", str(file)], capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if line.startswith(("E:", "F:"))] == []
    assert f'Probability of abnormality, classifier")="{found.answer.classifier.probability:.6f}'[:-2] in done.stdout
    assert done.stdout.count("Similar study of another patient") == (10 if keep else 5)


@needs_validator
def test_a_real_radiograph(ask_archive: Ask, tmp_path: Path) -> None:
    """RG3 of pydicom-data, a radiograph of an extremity."""
    pytest.importorskip("data_store", reason="pydicom-data is not installed")
    from pydicom.data import get_testdata_file

    path = get_testdata_file("RG3_UNCR.dcm", download=False)
    if path is None:
        pytest.skip("pydicom-data holds no RG3_UNCR.dcm")
    (tmp_path / "out").mkdir()
    report, capture = write_instances(tmp_path / "out", ask_archive(Path(path)).instances)
    assert errors(report) == []
    assert errors(capture) == []
    asked, made = pydicom.dcmread(path, stop_before_pixels=True), pydicom.dcmread(capture)
    assert (made.Rows, made.Columns) == (asked.Rows, asked.Columns)
    assert made.StudyInstanceUID == asked.StudyInstanceUID
