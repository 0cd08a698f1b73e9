"""TIFF: compression, pages, planes and alpha."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.images.radiograph import decode_radiograph
from tests.raster_files import ARM, Page, codes, encoded, refusal, tiff


@pytest.mark.parametrize("compression", [34712, 50002, 34933])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_unknown_compression_of_a_tiff_is_refused(compression: int, kind: type[np.generic]) -> None:
    assert "is a damaged TIFF, or of a kind that is not supported" in refusal(
        tiff((ARM.astype(kind), {259: compression}))
    )


@pytest.mark.parametrize(("compression", "compress"), [(8, zlib.compress), (5, None)])
def test_a_damaged_strip_of_a_tiff_is_refused(compression: int, compress: Callable[[bytes], bytes] | None) -> None:
    if compress:
        data = bytearray(tiff((ARM, {259: compression}), compress=compress))
    else:
        data = bytearray(encoded(".tiff", ARM, cv2.IMWRITE_TIFF_COMPRESSION, 5))
    np.testing.assert_array_equal(decode_radiograph(bytes(data)).pixels, ARM)
    data[2000:2012] = b"\xff\x00" * 6
    assert "is a damaged TIFF" in refusal(bytes(data))


def test_a_reduced_page_is_passed_over() -> None:
    small: Page = (ARM[::4, ::4].copy(), {254: 1})
    radiograph = decode_radiograph(tiff(small, (ARM, {})))
    np.testing.assert_array_equal(radiograph.pixels, ARM)
    assert radiograph.notices == ()
    np.testing.assert_array_equal(decode_radiograph(tiff(small, inner=(ARM, {}))).pixels, ARM)
    np.testing.assert_array_equal(decode_radiograph(tiff(small)).pixels, small[0])
    assert codes(tiff((ARM, {}), (255 - ARM, {}))) == ["several-pictures"]


def test_a_small_page_of_the_same_shape_is_passed_over() -> None:
    """Writers do not always mark a thumbnail."""
    for small in (ARM[::4, ::4].copy(), ARM[::3, ::3].copy()):
        radiograph = decode_radiograph(tiff((small, {}), (ARM, {})))
        np.testing.assert_array_equal(radiograph.pixels, ARM)
        assert radiograph.notices == ()
        np.testing.assert_array_equal(decode_radiograph(tiff((ARM, {}), (small, {}))).pixels, ARM)
    other = ARM[:30, :80].copy()
    np.testing.assert_array_equal(decode_radiograph(tiff((other, {}), (ARM, {}))).pixels, other)


def test_a_bigtiff() -> None:
    np.testing.assert_array_equal(decode_radiograph(tiff((ARM, {}), big=True)).pixels, ARM)
    pages = tiff((ARM[::2, ::2].copy(), {254: 1}), (ARM, {}), big=True)
    np.testing.assert_array_equal(decode_radiograph(pages).pixels, ARM)


def test_a_loop_of_pages_ends() -> None:
    data = bytearray(tiff((ARM, {})))
    start = struct.unpack_from("<I", data, 4)[0]
    data[-4:] = struct.pack("<I", start)
    np.testing.assert_array_equal(decode_radiograph(bytes(data)).pixels, ARM)
    assert "it has no page" in refusal(b"II*\0" + bytes(40))


DEEP = ARM.astype(np.uint16) * 256 + np.arange(ARM.size, dtype=np.uint16).reshape(ARM.shape) % 251


def in_planes(pixels: NDArray[Any], strips: int, big: bool, compress: Callable[[bytes], bytes], **tags: int) -> bytes:
    """Samples (H, W, C) in planes of their own, each of as many strips; the keywords are `t` and a tag's number."""
    height, width, samples = pixels.shape
    rows = -(-height // strips)
    head, offset, counted, size = (b"II+\0\x08\0\0\0", "Q", "Q", 8) if big else (b"II*\0", "I", "H", 4)
    data = bytearray(head + bytes(size))
    parts = []
    for plane in range(samples):
        for start in range(0, height, rows):
            part = compress(np.ascontiguousarray(pixels[start : start + rows, :, plane]).tobytes())
            parts.append((len(data), len(part)))
            data += part
    values = {256: [width], 257: [height], 258: [8 * pixels.dtype.itemsize] * samples, 259: [1], 262: [2]}
    values |= {273: [at for at, _ in parts], 277: [samples], 278: [rows], 279: [many for _, many in parts], 284: [2]}
    values |= {int(tag[1:]): [value] for tag, value in tags.items()}
    entries = b""
    for tag, numbers in sorted(values.items()):
        kind = 3 if tag in (258, 338) else 4
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(packed) > size:
            at = len(data)
            data += packed
            packed = struct.pack(f"<{offset}", at)
        entries += struct.pack(f"<HH{offset}", tag, kind, len(numbers)) + packed.ljust(size, b"\0")
    struct.pack_into(f"<{offset}", data, size, len(data))
    return bytes(data + struct.pack(f"<{counted}", len(values)) + entries + bytes(size))


@pytest.mark.parametrize(("compression", "compress"), [(1, bytes), (8, zlib.compress)])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("strips", [1, 7])
def test_colours_of_16_bits_in_planes(
    strips: int, big: bool, compression: int, compress: Callable[[bytes], bytes]
) -> None:
    colours = np.dstack([DEEP, 65535 - DEEP, DEEP // 2])
    whole = decode_radiograph(tiff((colours, {})))
    data = in_planes(colours, strips, big, compress, t259=compression)
    np.testing.assert_array_equal(decode_radiograph(data).pixels, whole.pixels)
    with_alpha = np.dstack([colours, np.full_like(DEEP, 65535)])
    for kind in (0, 1, 2):  # a further sample that nobody explains, alpha that is multiplied, and alpha that is not
        data = in_planes(with_alpha, strips, big, compress, t259=compression, t338=kind)
        np.testing.assert_array_equal(decode_radiograph(data).pixels, whole.pixels)


def test_planes_are_turned_upright() -> None:
    colours = np.dstack([DEEP, 65535 - DEEP, DEEP // 2])
    upright = decode_radiograph(tiff((colours, {}))).pixels
    turned = decode_radiograph(in_planes(colours, 3, False, bytes, t274=6)).pixels
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


def test_planes_of_other_colours_and_broken_planes_are_refused() -> None:
    inks = np.dstack([DEEP] * 4)
    assert "4 samples of 16 bits in separate planes" in refusal(in_planes(inks, 1, False, bytes, t262=5))
    data = bytearray(in_planes(inks[..., :3], 4, False, zlib.compress, t259=8))
    data[20:60] = bytes(40)
    assert "is a damaged TIFF" in refusal(bytes(data))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("apart", [False, True])
def test_grey_with_alpha_in_a_tiff(kind: type[np.unsignedinteger], apart: bool) -> None:
    grey = ARM if kind == np.uint8 else DEEP
    opaque = np.dstack([grey, np.full_like(grey, np.iinfo(kind).max)])
    half = opaque.copy()
    half[:30, :, 1] = 0
    black = half[..., 0].copy()
    black[:30] = 0
    for pixels, want, alpha in ((opaque, grey, 2), (half, black, 2), (half, grey, 1)):
        tags = {262: 1, 338: alpha}
        data = in_planes(pixels, 3, False, bytes, t262=1, t338=alpha) if apart else tiff((pixels, tags))
        found = decode_radiograph(data).pixels
        expected = decode_radiograph(tiff((want, {}))).pixels
        np.testing.assert_array_equal(found if found.ndim == 2 else found[..., 0], expected)
    assert "two samples per pixel" in refusal(tiff((opaque, {262: 1})))  # a second sample that nobody explains
