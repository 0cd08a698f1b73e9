"""DICOM in every transfer syntax and in colour, held against highdicom's, pydicom's and OpenCV's own ways."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.images.radiograph import read_frames, read_radiograph

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from tests.dicom_files import (  # noqa: E402  # only where they are installed
    BIG,
    DEFLATED,
    EXPLICIT,
    FILES,
    IMPLICIT,
    RAMP,
    RLE,
    as_radiograph,
    highdicoms,
    real,
)

Write = Callable[..., Path]


@pytest.mark.parametrize(
    "name",
    [
        *("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_gdcm_KY.dcm"),
        *("SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm"),
        *("SC_rgb_jls_lossy_line.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm", "SC_rgb_rle_2frame.dcm"),
    ],
)
def test_colour_is_what_highdicom_shows(name: str) -> None:
    frames = read_frames(FILES / name)
    assert len(frames) == (2 if "2frame" in name else 1)
    for number, radiograph in enumerate(frames, start=1):
        assert np.array_equal(radiograph.pixels, highdicoms(FILES / name, number))


def test_colour_in_big_endian() -> None:
    big, little = (read_radiograph(FILES / f"SC_rgb_small_odd{end}.dcm").pixels for end in ("_big_endian", ""))
    assert np.array_equal(big, little)


def test_blue_is_blue(write_dicom: Write) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 10, 20, 200  # red, green, blue
    path = write_dicom("q.dcm", pixels, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="OT")
    assert read_radiograph(path).pixels[0, 0].tolist() == [200, 20, 10]
    deep = pixels.astype(np.uint16) * 257
    assert read_radiograph(write_dicom("d.dcm", deep)).pixels[0, 0].tolist() == [200, 20, 10]


def test_a_palette_without_preamble_or_meta_header() -> None:
    path = real("OT-PAL-8-face.dcm")
    ds = pydicom.dcmread(path, force=True)
    red = np.frombuffer(ds.RedPaletteColorLookupTableData, "<u2")[ds.PixelData[0]]
    assert abs(int(read_radiograph(path).pixels[0, 0, 2]) - red / 257) <= 0.5


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("pixels", [RAMP, RAMP.astype(np.int16) - 2048, (RAMP // 16).astype(np.uint8)])
def test_every_uncompressed_syntax_gives_the_same(write_dicom: Write, syntax: str, pixels: NDArray[Any]) -> None:
    window = {"WindowCenter": int(np.median(pixels)), "WindowWidth": int(np.ptp(pixels)), "BitsStored": None}
    window["BitsStored"] = 8 if pixels.dtype == np.uint8 else 12
    there = read_radiograph(write_dicom("q.dcm", pixels, syntax=syntax, **window)).pixels
    assert np.array_equal(there, read_radiograph(write_dicom("e.dcm", pixels, **window)).pixels)
    assert np.abs(there - highdicoms(write_dicom("h.dcm", pixels, **window))).max() < 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_rle(write_dicom: Write, dtype: Any) -> None:
    pixels = (RAMP // 16).astype(dtype)
    plain = write_dicom("e.dcm", pixels)
    ds = pydicom.dcmread(plain)
    ds.compress(RLE)
    ds.save_as(plain.with_name("r.dcm"))
    assert np.array_equal(read_radiograph(plain.with_name("r.dcm")).pixels, read_radiograph(plain).pixels)


@pytest.mark.parametrize("kind", ["RLE", "bigendian", "implicit", "padded", "jp2klossless", "jpeg_ls_lossless"])
def test_one_picture_in_many_syntaxes(tmp_path: Path, kind: str) -> None:
    name = f"MR_small_{kind}.dcm"
    there = read_radiograph(as_radiograph(FILES / name, tmp_path / "q.dcm")).pixels
    assert np.array_equal(there, read_radiograph(as_radiograph(FILES / "MR_small.dcm", tmp_path / "e.dcm")).pixels)


@pytest.mark.parametrize(
    "name",
    [
        *("JPGExtended.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"),
        *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "image_dfl.dcm"),
    ],
)
def test_compressed_grey(tmp_path: Path, name: str) -> None:
    """JPEG extended of 12 bits, JPEG 2000, JPEG-LS and deflated, decoded as pydicom does and scaled by hand."""
    path = as_radiograph(FILES / name, tmp_path / "q.dcm")
    ds = pydicom.dcmread(path)
    for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.save_as(path)
    stored = ds.pixel_array.astype(float)
    low, high = (
        (0, 255) if ds.BitsStored == 8 else np.sort(stored, axis=None)[[stored.size // 1000, -1 - stored.size // 1000]]
    )
    assert np.abs(read_radiograph(path).pixels - np.clip((stored - low) / (high - low), 0, 1) * 255).max() < 0.51


def test_jpeg_lossless_loses_nothing() -> None:
    lossless, plain = (read_radiograph(path) for path in (FILES / "SC_rgb_jpeg_gdcm.dcm", real("SC_rgb.dcm")))
    assert np.array_equal(lossless.pixels, plain.pixels)


def test_a_baseline_jpeg_is_what_opencv_makes_of_it(write_dicom: Write) -> None:
    smooth = cv2.resize(np.random.default_rng(3).integers(0, 256, (6, 8), np.uint8), (64, 48))
    frame = cv2.imencode(".jpg", smooth)[1].tobytes()
    path = write_dicom("q.dcm", smooth, syntax="1.2.840.10008.1.2.4.50", frames=[frame])
    assert np.abs(read_radiograph(path).pixels.astype(int) - cv2.imdecode(np.frombuffer(frame, np.uint8), 0)).max() <= 2


def test_without_preamble_by_its_ending(write_dicom: Write) -> None:
    for syntax in (EXPLICIT, IMPLICIT):
        path = write_dicom("q.dcm", RAMP, syntax=syntax, preamble=False, BitsStored=12)
        assert path.read_bytes()[128:132] != b"DICM"
        assert np.array_equal(read_radiograph(path).pixels, read_radiograph(write_dicom("p.dcm", RAMP)).pixels)


def test_the_docs_list_the_syntaxes_that_are_read() -> None:
    from retrieval.images.dicom_header import SYNTAXES

    text = (Path(__file__).parents[3] / "docs" / "dicom.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "1.2.840.10008.1.2" in line]
    listed = {row[1]: row[0].removeprefix("| ") for row in rows if len(row) == 3}
    assert listed == SYNTAXES
