"""DICOM in colours, or in another colour space than its header says."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")
from tests.dicom_files import J2K, arm, read, refusal  # noqa: E402

Write = Callable[..., Path]


@pytest.mark.parametrize("maximum", [255, 65535])
def test_a_palette_of_fewer_bits_than_declared(write_dicom: Write, maximum: int) -> None:
    grey = (np.arange(256) * (maximum // 255)).astype("<u2").tobytes()
    tables = {f"{c}PaletteColorLookupTable{part}": value for c in ("Red", "Green", "Blue")
              for part, value in (("Descriptor", [256, 0, 16]), ("Data", grey))}  # fmt: skip
    pixels = (arm() // 16).astype(np.uint8)
    path = write_dicom("q.dcm", pixels, PhotometricInterpretation="PALETTE COLOR", **tables)
    np.testing.assert_array_equal(read(path)[0][..., 1], pixels)


@pytest.mark.parametrize("said", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("stored", ["RGB", "YBR_FULL"])
def test_a_grey_picture_in_another_colour_space_than_said(write_dicom: Write, said: str, stored: str) -> None:
    grey = (arm() // 16).astype(np.uint8)
    other = grey if stored == "RGB" else np.full_like(grey, 128)
    path = write_dicom("q.dcm", np.dstack([grey, other, other]), PhotometricInterpretation=said)
    pixels, codes = read(path)
    assert np.abs(pixels - grey[..., None]).max() <= 1
    assert codes == ["contradictory-colours"] * (said != stored)


def test_the_transform_of_jpeg_2000_counts_for_more_than_the_header(write_dicom: Write) -> None:
    grey = (arm() // 16).astype(np.uint8)
    path = write_dicom("q.dcm", np.dstack([grey] * 3))
    ds = pydicom.dcmread(path)
    ds.PhotometricInterpretation = "YBR_RCT"
    ds.compress(J2K)
    ds.PhotometricInterpretation = "YBR_FULL"
    ds.save_as(path)
    pixels, codes = read(path)
    np.testing.assert_array_equal(pixels[..., 0], grey)
    assert codes == []


def test_a_coloured_picture_is_named(write_dicom: Write) -> None:
    path = write_dicom("q.dcm", np.full((20, 20, 3), (20, 200, 20), np.uint8))
    assert "coloured" in read(path)[1]


def test_samples_that_contradict_the_photometric_interpretation(write_dicom: Write) -> None:
    grey = (arm() // 16).astype(np.uint8)
    colour = np.dstack([grey] * 3)
    stream = cv2.imencode(".jpg", grey)[1].tobytes()
    jpeg = {"syntax": "1.2.840.10008.1.2.4.50"}
    for path in (
        write_dicom("a.dcm", grey, PhotometricInterpretation="RGB"),
        write_dicom("b.dcm", colour, PhotometricInterpretation="MONOCHROME2"),
        write_dicom("c.dcm", colour, frames=[stream], **jpeg),
        write_dicom("d.dcm", grey, frames=[cv2.imencode(".jpg", colour)[1].tobytes()], **jpeg),
    ):
        pixels, codes = read(path)
        assert np.abs((pixels if pixels.ndim == 2 else pixels[..., 0]) - grey).mean() < 2
        assert codes == ["contradictory-colours"]
    assert "whether bone is bright" in refusal(write_dicom("e.dcm", grey, PhotometricInterpretation=None))


@pytest.mark.parametrize("space", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("said", [0, 1])
@pytest.mark.parametrize("stored", [0, 1])
def test_samples_in_other_planes_than_said(
    write_dicom: Write, said: int, stored: int, coloured: bool, space: str
) -> None:
    grey = (arm() // 16).astype(np.uint8)
    other = np.full_like(grey, 128) if space == "YBR_FULL" else grey
    picture = np.dstack([grey, other, other])
    if coloured and space == "RGB":
        picture[10:30, 10:40] = (250, 40, 40)  # a marker
    path = write_dicom("q.dcm", picture, PhotometricInterpretation=space)
    right, _ = read(path)
    ds = pydicom.dcmread(path)
    ds.PlanarConfiguration = said
    ds.PixelData = (picture.transpose(2, 0, 1) if stored else picture).tobytes()
    ds.save_as(path)
    pixels, codes = read(path)
    np.testing.assert_array_equal(pixels, right)
    assert codes == ["contradictory-planes"] * (said != stored)
