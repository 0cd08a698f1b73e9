"""The size that a compressed frame claims, held against what OpenCV wrote."""

import struct
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.images.codestream import Codestream, read_codestream, read_jpeg2000, rle_fits

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
JPEG, JP2 = (cv2.imencode(suffix, PICTURE)[1].tobytes() for suffix in (".jpg", ".jp2"))
BARE = JP2[JP2.find(b"\xff\x4f\xff\x51") :]


@pytest.mark.parametrize("data", [JPEG, JP2, BARE], ids=["jpeg", "jp2", "bare"])
def test_what_opencv_wrote(data: bytes) -> None:
    assert read_codestream(data) == Codestream(width=96, height=64, components=3, bits=8, whole=True)
    cut = read_codestream(data[:-40])
    assert cut is not None
    assert not cut.whole


def test_grey_and_16_bits() -> None:
    grey = cv2.imencode(".jp2", PICTURE[..., 0].astype(np.uint16) * 257)[1].tobytes()
    assert read_codestream(grey) == Codestream(96, 64, 1, 16, True)


def test_jpeg_ls_and_lossless_by_their_markers() -> None:
    for marker, bits in ((0xF7, 12), (0xC3, 16)):
        frame = struct.pack(">BHHB", bits, 20, 30, 1) + b"\1\x11\0"
        data = b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xda\0\2\xff\xd9"
        assert read_codestream(data) == Codestream(30, 20, 1, bits, True)
        twice = data[:-6] + data[2:]  # which of two frames a decoder takes is its own affair
        assert read_codestream(twice) is None


def test_a_box_without_length_keeps_nobody() -> None:
    """pydicom would go round for ever."""
    data = bytearray(JP2)
    data[12:16] = bytes(4)
    assert read_codestream(bytes(data)) is None


def test_a_box_with_a_long_length() -> None:
    """A file may have one; pydicom would read it byte by byte, so a frame may not."""
    long_box = JP2[:12] + struct.pack(">I4sQ", 1, b"free", 24) + bytes(8) + JP2[12:]
    assert read_jpeg2000(long_box) == read_jpeg2000(JP2)
    assert read_codestream(long_box) is None
    position = JP2.find(b"jp2c") - 4
    long_stream = JP2[:position] + struct.pack(">I4sQ", 1, b"jp2c", len(JP2) - position + 8) + JP2[position + 8 :]
    assert read_jpeg2000(long_stream) == read_jpeg2000(JP2)
    assert read_codestream(long_stream) is None


def test_nothing_lies_between_the_segments_of_a_frame() -> None:
    assert read_codestream(JPEG[:2] + b"\xff\xff" + JPEG[2:]) == read_codestream(JPEG)  # filled up as T.81 allows
    assert read_codestream(JPEG[:2] + b"\0\0" + JPEG[2:]) is None
    assert read_codestream(JPEG[:2] + b"\xff\x01" + JPEG[2:]) is None


@given(st.binary(max_size=60), st.sampled_from([b"", JPEG[:40], JP2[:60], b"\xff\xd8\xff"]))
def test_whatever_else_is_none(tail: bytes, head: bytes) -> None:
    stream = read_codestream(head + tail)
    assert stream is None or not stream.whole or b"\xff\xd9" in tail


def rle(*segments: bytes) -> bytes:
    starts = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    return struct.pack("<16L", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


def test_rle_is_counted_before_it_is_unpacked() -> None:
    """Two literal bytes, a byte twice, and 128, which is nothing: four bytes a segment."""
    segment = b"\x01ab\xffc\x80"
    assert rle_fits(rle(segment, segment), 4)
    assert rle_fits(rle(segment, segment), 3)  # some pad, and some write more than there is
    assert not rle_fits(rle(segment, segment), 2)
    assert not rle_fits(rle(segment, b"\x81a" * 100), 4)
    assert not rle_fits(b"\0" * 63, 4)


def test_a_small_rle_frame_that_unpacks_to_gigabytes_costs_nothing() -> None:
    bomb = rle(b"\x81a" * 10_000_000)
    tracemalloc.start()
    try:
        assert not rle_fits(bomb, 512 * 512)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(bomb)
    finally:
        tracemalloc.stop()
