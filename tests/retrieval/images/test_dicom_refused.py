"""DICOM that is no radiograph, damaged, cut off or mutated: what is refused, and what is not said of it."""

import contextlib
import io
import logging
import os
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retrieval.errors import RadiographError
from retrieval.images.radiograph import MAX_BYTES, decode_radiograph, read_radiograph

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from tests.dicom_files import (  # noqa: E402  # only where they are installed
    DEFLATED,
    EXPLICIT,
    FILES,
    RAMP,
    RLE,
    as_radiograph,
    refusal,
)

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "CT_small.dcm",
            "is DICOM, but not a radiograph (CT Image Storage): only CR, DX and secondary capture are read",
        ),
        ("test-SR.dcm", "not a radiograph (Comprehensive SR Storage)"),
        ("rtplan.dcm", "not a radiograph (RT Plan Storage)"),
        ("dicomdirtests/DICOMDIR", "is a DICOMDIR"),
        ("JPEG-lossy.dcm", "is a secondary capture of NM, not of a radiograph"),
        ("SC_rgb_rle_32bit.dcm", "stores 32 of 32 bits per sample; 2 to 8 of 8 and 2 to 16 of 16 are supported"),
    ],
)
def test_what_is_no_radiograph_is_told_what_it_is(name: str, says: str) -> None:
    assert says in refusal(FILES / name)


def test_more_that_is_no_radiograph(write_dicom: Write, tmp_path: Path) -> None:
    def refused(**elements: Any) -> str:
        return refusal(write_dicom("q.dcm", RAMP, **elements))

    assert "Encapsulated PDF Storage" in refused(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    assert "(private or unknown)" in refused(SOPClassUID="1.2.3.4.5.6.7")
    assert "of another modality" in refused(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="SMITH")
    assert "does not say what it is" in refused(SOPClassUID=None, Modality="CT")
    assert "MPEG2" in refused(syntax="1.2.840.10008.1.2.4.100", frames=[b"1234"])
    assert "a private or unknown transfer syntax" in refused(syntax="1.2.3.4.5", frames=[b"1234"])
    assert "photometric interpretation" in refused(PhotometricInterpretation="HSV")
    assert "samples per pixel do not fit" in refused(SamplesPerPixel=3, PhotometricInterpretation="MONOCHROME1")
    assert "cannot be decoded" in refusal(as_radiograph(FILES / "JPEG-lossy.dcm", tmp_path / "l.dcm"))  # not conformant
    assert refused(Rows=0) == "holds no picture"
    assert refused(NumberOfFrames=10**6).startswith("has 64 x 64 pixels in each of 1,000,000 frames, more than")
    assert read_radiograph(write_dicom("q.dcm", RAMP, SOPClassUID=None)).pixels.size == RAMP.size  # CR all the same


def test_a_picture_of_another_size_than_announced_is_not_decoded(write_dicom: Write) -> None:
    """A JPEG 2000 of a few bytes may announce gigabytes."""
    huge = bytearray(cv2.imencode(".jp2", np.zeros((64, 64), np.uint8))[1].tobytes())
    at = huge.find(b"\xff\x4f\xff\x51")
    huge[at + 8 : at + 16] = (60_000).to_bytes(4, "big") * 2
    path = write_dicom("q.dcm", RAMP.astype(np.uint8), syntax="1.2.840.10008.1.2.4.91", frames=[bytes(huge)])
    assert refusal(path) == "is damaged: its compressed picture is of another size than its header says"


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(write_dicom: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom("q.dcm", np.zeros((2000, 2000), np.uint8), syntax=DEFLATED)
    assert path.stat().st_size < 20_000
    assert MAX_BYTES > 2**20
    monkeypatch.setattr("retrieval.images.radiograph.MAX_BYTES", 2**20)
    assert "unpacks to more than the 1 MiB that are read" in refusal(path)


@pytest.mark.parametrize("source", ["e.dcm", "r.dcm", "d.dcm", "MR_small_jp2klossless.dcm", "JPGExtended.dcm",
                                    "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm"])  # fmt: skip
def test_cut_anywhere_it_is_whole_or_refused(write_dicom: Write, tmp_path: Path, source: str) -> None:
    small = (RAMP[:16, :16] // 16).astype(np.uint8)
    path = write_dicom("e.dcm", small, syntax=DEFLATED if source == "d.dcm" else EXPLICIT)
    if source == "r.dcm":
        ds = pydicom.dcmread(path)
        ds.compress(RLE)
        ds.save_as(path)
    elif source.endswith(".dcm") and len(source) > 5:
        path = as_radiograph(FILES / source, tmp_path / "s.dcm")
    data = path.read_bytes()
    whole = read_radiograph(path).pixels
    cuts = sorted(random.Random(5).sample(range(1, len(data)), min(150, len(data) - 1)))
    for cut in cuts:
        with contextlib.suppress(RadiographError):
            assert np.array_equal(decode_radiograph(data[:cut], "q.dcm").pixels, whole), cut


def test_nothing_is_said_besides(
    write_dicom: Write, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """pydicom warns, logs and raises with values of the header; nobody hears of them, but of the place."""
    caplog.set_level(logging.DEBUG)
    mark = "SMITH^JOHN"
    odd = write_dicom("q.dcm", RAMP, WindowCenter=5, WindowWidth=10, BitsStored=12)
    ds = pydicom.dcmread(odd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword in ("Rows", "BodyPartExamined", "ViewPosition", "RescaleSlope", "NumberOfFrames", "WindowCenter"):
            changed = pydicom.dcmread(odd)
            element = pydicom.DataElement(pydicom.tag.Tag(keyword), "LO", mark, already_converted=True)
            changed[keyword] = element
            file = io.BytesIO()
            changed.save_as(file, enforce_file_format=False)
            odd.with_name(f"{keyword}.dcm").write_bytes(file.getvalue())
    assert ds.Rows == 64
    heard, refused = "", 0
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for file_ in sorted(odd.parent.glob("*.dcm")):
            try:
                heard += repr(read_radiograph(file_))
            except RadiographError as error:
                heard += str(error)
                refused += 1
    captured = capfd.readouterr()
    for text in (captured.out, captured.err, caplog.text, heard):
        assert "SMITH" not in text
    assert refused == 2  # Rows and NumberOfFrames
    assert {record.name for record in caplog.records} == {"mura-search"}
    assert all(re.fullmatch(r"\w+ in \w+:\d+( > [\w<>]+:\d+)*", record.message) for record in caplog.records)


def test_pydicom_is_not_imported_for_other_files(tmp_path: Path) -> None:
    path = tmp_path / "q.png"
    assert cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))
    script = (
        "import sys; from pathlib import Path; from retrieval.query import read_views\n"
        f"read_views(Path({str(path)!r})); read_views(Path({str(tmp_path)!r}))\n"
        "print('pydicom' in sys.modules, 'platformdirs' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "False False\n"


def test_mutated_files_are_read_or_refused() -> None:
    """A few hundred of the benchmark's mutants: no crash, no hang, no memory beyond bounds, no other error."""
    script = Path(__file__).parents[3] / "tests" / "fuzz" / "fuzz_dicom.py"
    command = [sys.executable, str(script), "--mutants", "600", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, cwd=script.parents[2])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 faults in " in done.stdout
    assert "read " in done.stdout.splitlines()[-2]
