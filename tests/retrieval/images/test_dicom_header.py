"""What is read of a DICOM header without its pixels."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from retrieval.images.dicom_header import DicomError, NoRadiograph, sample  # noqa: E402  # only where it is installed
from retrieval.images.dicom_reader import listed_files, read_elements, read_record  # noqa: E402
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS, decode_frames, is_dicom, read_radiograph  # noqa: E402
from tests.dicom_files import DEFLATED, FILES, RAMP, refusal  # noqa: E402

Write = Callable[..., Path]


def test_a_record_has_identifiers_and_words_of_the_tables(write_dicom: Write) -> None:
    path = write_dicom(
        "q.dcm", RAMP, StudyInstanceUID="1.2.3", PatientID=" 7 ", AccessionNumber="A1", BodyPartExamined="THUMB",
        ViewPosition="LL", ImageLaterality="R", BurnedInAnnotation="YES",
    )  # fmt: skip
    record = read_record(io.BytesIO(path.read_bytes()), MAX_BYTES, MAX_PIXELS)
    assert (record.study, record.patient, record.accession, record.frames) == ("1.2.3", "7", "A1", 1)
    assert (record.part, record.view, record.laterality, record.burnt_in) == ("finger", "lateral", "right", True)
    assert "1.2.3" not in repr(record)
    with pytest.raises(DicomError, match="more than 4,000 in all"):
        read_record(io.BytesIO(path.read_bytes()), MAX_BYTES, 4000)
    assert read_radiograph(path).notices[0].code == "burned-in-text"


def test_a_record_of_another_kind_is_refused() -> None:
    with (FILES / "CT_small.dcm").open("rb") as file, pytest.raises(NoRadiograph) as caught:
        read_record(file, MAX_BYTES, MAX_PIXELS)
    assert caught.value.kind == "CT Image Storage"


def test_elements_by_name(write_dicom: Write) -> None:
    path = write_dicom("q.dcm", RAMP, SeriesDescription="hand pa")
    with path.open("rb") as file:
        assert read_elements(file, ("SeriesDescription",), MAX_BYTES).SeriesDescription == "hand pa"
    with pytest.raises(DicomError, match="header that cannot be read"):
        read_elements(io.BytesIO(bytes(128) + b"DICM" + b"\x02\0\0\0UL\4\0\xff"), (), MAX_BYTES)


def test_the_files_that_a_dicomdir_lists() -> None:
    with (FILES / "dicomdirtests" / "DICOMDIR").open("rb") as file:
        listed = listed_files(file, MAX_BYTES)
    assert ("77654033", "CR1", "6154") in listed
    with pytest.raises(DicomError, match="is not a readable DICOMDIR"):
        listed_files(io.BytesIO(bytes(128) + b"DICM" + b"\x02\0\0\0UL\4\0\xff"), MAX_BYTES)


def test_a_heatmap_of_this_tool_is_not_a_radiograph(write_dicom: Write) -> None:
    path = write_dicom("q.dcm", RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ManufacturerModelName="mura-search")
    assert refusal(path) == "is a heatmap that this tool made, not a radiograph"
    processing = write_dicom("p.dcm", RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1")
    assert [notice.code for notice in read_radiograph(processing).notices] == ["for-processing"]


def test_too_many_frames_are_refused_before_decoding(write_dicom: Write) -> None:
    path = write_dicom("run.dcm", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(Exception, match=r"has 3 frames, more than the 2 views of one study; export fewer"):
        decode_frames(path.read_bytes(), "run.dcm", most=2)
    assert is_dicom(path)


def test_a_deflated_file_that_ends_early(write_dicom: Write, tmp_path: Path) -> None:
    data = write_dicom("q.dcm", RAMP, syntax=DEFLATED).read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(data[:-9])
    assert refusal(cut) == "ends early; copy or export it again"


def test_a_stored_value_that_is_too_short_is_missing() -> None:
    ds = pydicom.Dataset()
    ds.add_new("PixelPaddingValue", "OB", b"\1")
    assert sample(ds, "PixelPaddingValue", "<", signed=False) is None
