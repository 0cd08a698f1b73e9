"""Bits, signs and byte order that the header of a DICOM file tells wrongly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")
from tests.dicom_files import FULL, J2K, LOSSLESS, RLE, arm, read, refusal  # noqa: E402

Write = Callable[..., Path]


@pytest.mark.parametrize("extra", [1, 2, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_values_of_more_bits_than_stored(write_dicom: Write, extra: int, signed: bool) -> None:
    """Bright bone wraps to black where only the stored bits are read."""
    values = arm(2 ** (12 + extra - signed) - 96, 480, 360).astype(np.int16 if signed and extra < 4 else np.uint16)
    half = 2 ** (11 + extra - signed)
    pixels, codes = read(write_dicom("q.dcm", values, BitsStored=12, WindowCenter=half, WindowWidth=2 * half))
    wide, none = read(write_dicom("r.dcm", values, BitsStored=16, WindowCenter=half, WindowWidth=2 * half))
    np.testing.assert_array_equal(pixels, wide)
    assert (codes, none) == (["values-beyond-bits"], [])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_a_drawing_in_unused_bits(
    write_dicom: Write, right: NDArray[np.int64], compressed: bool, declared: bool
) -> None:
    values = arm()
    values[10:40, 10:60] |= 1 << 13
    group: dict[str, Any] = {}
    if compressed:
        group = {"syntax": J2K, "frames": [cv2.imencode(".jp2", values, LOSSLESS)[1].tobytes()]}
    path = write_dicom("q.dcm", values, **FULL, **group)
    if declared:
        ds = pydicom.dcmread(path)
        ds.add_new(0x60000102, "US", 13)
        ds.save_as(path)
    pixels, codes = read(path)
    np.testing.assert_array_equal(pixels, right)
    assert codes == [] if declared else ["stray-bits"]


@pytest.mark.parametrize(
    ("shift", "header", "codes"),
    [
        (4, {"BitsStored": 12, "HighBit": 15}, []),
        (0, {"BitsStored": 12, "HighBit": 15}, ["contradictory-bits"]),
        (0, {"BitsStored": 16, "HighBit": 11}, ["contradictory-bits"]),
        (0, {"BitsStored": 12, "HighBit": 10}, ["contradictory-bits"]),
    ],
)
def test_high_bit(
    write_dicom: Write, right: NDArray[np.int64], shift: int, header: dict[str, int], codes: list[str]
) -> None:
    for values in (arm() << shift, (arm() << shift).astype(np.int16)):
        if values.dtype == np.int16 and shift:
            continue
        pixels, said = read(write_dicom("q.dcm", values, **FULL | header))
        np.testing.assert_array_equal(pixels, right)
        assert said == codes


@pytest.mark.parametrize("bits", [12, 16])
def test_values_without_a_sign_that_the_header_declares(write_dicom: Write, bits: int) -> None:
    values = arm(2**bits - 96, 480, 360)
    window = {"BitsStored": bits, "WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    right, none = read(write_dicom("r.dcm", values, **window))
    pixels, codes = read(write_dicom("q.dcm", values, **window, PixelRepresentation=1))
    np.testing.assert_array_equal(pixels, right)
    assert (codes, none) == (["values-beyond-bits" if bits == 12 else "contradictory-bits"], [])
    below = values.astype(np.int64) - 2 ** (bits - 1)
    signed, codes = read(write_dicom("s.dcm", below.astype(np.int16), **window | {"WindowCenter": 0}))
    np.testing.assert_array_equal(signed, right)
    assert codes == []


def test_bits_stored_is_missing(write_dicom: Write, right: NDArray[np.int64]) -> None:
    path = write_dicom("q.dcm", arm(), **FULL)
    ds = pydicom.dcmread(path)
    del ds.BitsStored
    ds.save_as(path)
    np.testing.assert_array_equal(read(path)[0], right)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", J2K])
def test_a_compressed_picture_of_fewer_bits_than_the_header_says(write_dicom: Write, syntax: str) -> None:
    grey = (arm() // 16).astype(np.uint8)
    frame = cv2.imencode(".jp2" if syntax == J2K else ".jpg", grey, LOSSLESS if syntax == J2K else ())[1].tobytes()
    pixels, codes = read(write_dicom("q.dcm", arm(), syntax=syntax, frames=[frame], **FULL))
    full, _ = read(write_dicom("full.dcm", grey.astype(np.uint16), BitsStored=12))
    assert np.abs(pixels - full).mean() < 2
    assert codes == ["unfit-window"]


def test_rle_of_16_bits_with_a_drawing(write_dicom: Write, right: NDArray[np.int64]) -> None:
    values = arm()
    values[5:9, 5:30] |= 1 << 14
    path = write_dicom("q.dcm", values, **FULL)
    ds = pydicom.dcmread(path)
    ds.compress(RLE)
    ds.save_as(path)
    np.testing.assert_array_equal(read(path)[0], right)


@pytest.mark.parametrize(("signed", "padding"), [(False, 65535), (True, -32768)])
def test_padding_that_needs_more_bits_than_are_stored(write_dicom: Write, signed: bool, padding: int) -> None:
    values = (arm().astype(np.int32) - 2048).astype(np.int16) if signed else arm()
    center = 0 if signed else 2048
    header = {"BitsStored": 12, "WindowCenter": center, "WindowWidth": 4096, "PixelPaddingValue": padding}
    plain, none = read(write_dicom("r.dcm", values, **header))
    values[:, :20] = padding
    pixels, codes = read(write_dicom("q.dcm", values, **header))
    np.testing.assert_array_equal(pixels[:, 20:], plain[:, 20:])
    assert not pixels[:, :20].any()
    assert codes == none == []


def test_real_numbers_are_named(write_dicom: Write) -> None:
    path = write_dicom("q.dcm", arm())
    ds = pydicom.dcmread(path)
    del ds.PixelData
    ds.FloatPixelData = arm().astype(np.float32).tobytes()
    ds.save_as(path)
    assert "real numbers" in refusal(path)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_bytes_in_the_wrong_order(write_dicom: Write, bits: int, signed: bool) -> None:
    rng = np.random.default_rng(5)
    values = arm(2 ** (bits - 1) - 200, 240, 180) + rng.integers(0, 40, (240, 180)).astype(np.uint16)
    kind = np.int16 if signed else np.uint16
    window = {"BitsStored": bits, "WindowCenter": 2 ** (bits - 2), "WindowWidth": 2 ** (bits - 1)}
    right, none = read(write_dicom("right.dcm", values.astype(kind), **window))
    pixels, codes = read(write_dicom("wrong.dcm", values.byteswap().astype(kind), **window))
    np.testing.assert_array_equal(pixels, right)
    assert (codes, none) == (["contradictory-bits"], [])
    eight = (values >> (bits - 8)).astype(np.uint16)
    for shift in (0, 8):  # one of the two bytes is empty
        assert read(write_dicom("eight.dcm", eight << shift, BitsStored=16))[1] == []


@pytest.mark.parametrize("bits", [8, 9, 10, 11])
def test_values_of_more_bits_in_a_steep_picture(write_dicom: Write, bits: int) -> None:
    """Hard edges are larger than what fewer bits can hold, and the values go on all the same."""
    values = arm(4000, 480, 360)
    values[:, ::60] = 4000
    values[60:64] = 10
    want, _ = read(write_dicom("r.dcm", values, **FULL))
    pixels, codes = read(write_dicom("q.dcm", values, **FULL | {"BitsStored": bits}))
    np.testing.assert_array_equal(pixels, want)
    assert codes == ["values-beyond-bits"]


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_sign_that_the_header_does_not_tell_of(write_dicom: Write, bits: int, compressed: bool) -> None:
    values = (arm(3400, 240, 180).astype(int) - 1500).astype(np.int16)
    right, none = read(write_dicom("right.dcm", values, BitsStored=bits))
    plain = values.view(np.uint16) & np.uint16(2**bits - 1)
    more: dict[str, Any] = {}
    if compressed:
        more = {"syntax": J2K, "frames": [cv2.imencode(".jp2", plain, LOSSLESS)[1].tobytes()]}
    pixels, codes = read(write_dicom("q.dcm", plain, BitsStored=bits, **more))
    np.testing.assert_array_equal(pixels, right)
    assert (codes, none) == (["contradictory-bits"], [])


@pytest.mark.parametrize("kind", ["frame", "marker", "two values", "noise"])
def test_white_beside_black_is_no_missing_sign(write_dicom: Write, kind: str) -> None:
    rng = np.random.default_rng(3)
    values = arm(1500, 240, 180)
    values[values < 200] = 0
    if kind == "frame":
        values[:12], values[:, -9:] = 4095, 4095
    elif kind == "marker":
        cv2.rectangle(mark := np.zeros(values.shape, np.uint8), (10, 10), (40, 80), 1, 3)
        values[mark > 0] = 4095
    elif kind == "two values":
        values = np.where(values > 500, 4095, 0).astype(np.uint16)
    else:
        values = rng.integers(0, 4096, values.shape).astype(np.uint16)
    _, codes = read(write_dicom("q.dcm", values, **FULL))
    assert "contradictory-bits" not in codes


def test_bright_values_whose_highest_bit_is_called_a_sign(write_dicom: Write) -> None:
    values = arm() * np.uint16(16)
    right, _ = read(write_dicom("right.dcm", values, BitsStored=16, HighBit=15))
    wrong, codes = read(write_dicom("wrong.dcm", values, BitsStored=16, HighBit=15, PixelRepresentation=1))
    np.testing.assert_array_equal(wrong, right)
    assert codes == ["contradictory-bits"]
