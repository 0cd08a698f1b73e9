"""What a compressed frame says of its own size: decoders allocate by that, so it is read before anything is decoded.

JPEG: ITU-T T.81, B.2.2. JPEG-LS: ITU-T T.87, C.2.2. JPEG 2000 and HTJ2K: ITU-T T.800, A.5.1. All three end in FF D9,
which occurs nowhere within their data. RLE: PS3.5, annex G.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Codestream", "read_codestream", "rle_fits"]

_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # F7 is JPEG-LS
_JPEG_SCAN = 0xDA
_J2K = b"\xff\x4f\xff\x51"
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Codestream:
    """Size in pixels, components a pixel, bits a component; `whole` where its end marker is there."""

    width: int
    height: int
    components: int
    bits: int
    whole: bool


def read_codestream(data: bytes) -> Codestream | None:
    """The header of a JPEG, JPEG-LS or JPEG 2000 codestream, None where there is none that can be read.

    One codestream has one size: None where a JPEG announces a second frame before its first scan.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        return _jpeg2000(data)
    except (struct.error, IndexError):
        return None


def _jpeg(data: bytes) -> Codestream | None:
    found: Codestream | None = None
    place = 2
    while True:
        if data[place] != 0xFF:
            return None
        while data[place] == 0xFF:  # any number of these may fill up before a marker
            place += 1
        marker = data[place]
        (length,) = struct.unpack_from(">H", data, place + 1)
        if marker in _JPEG_FRAMES:
            if found:
                return None
            bits, height, width, components = struct.unpack_from(">BHHB", data, place + 3)
            found = Codestream(width, height, components, bits, data.rfind(_END) > place)
        if marker == _JPEG_SCAN or length < 2:
            return found
        place += 1 + length


def _jpeg2000(data: bytes) -> Codestream | None:
    place = _after_boxes(data) if data[4:8] == b"jP  " else 0
    if data[place : place + 4] != _J2K:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, place + 8)
    components, depth = struct.unpack_from(">HB", data, place + 40)
    return Codestream(right - left, bottom - top, components, (depth & 0x7F) + 1, data.rfind(_END) > place)


def _after_boxes(data: bytes) -> int:
    """Where the codestream begins in a JP2 file (T.800, I.4): DICOM wants none around it, and some write one.

    A box that does not say how long it is would keep pydicom, which passes over them, for ever.
    """
    place = 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"jp2c":
            return place + 8
        if length < 8:
            return len(data)
        place += length


def rle_fits(frame: bytes, plane: int) -> bool:
    """Whether no segment of an RLE frame unpacks to much more than a plane of so many bytes. Nothing is unpacked."""
    if len(frame) < 64:
        return False
    count, *offsets = struct.unpack_from("<16L", frame)
    starts = [*offsets[: min(count, 15)], len(frame)]
    return all(_run_length(frame, start, end, 2 * plane) <= 2 * plane for start, end in pairwise(starts))


def _run_length(frame: bytes, place: int, end: int, most: int) -> int:
    """How many bytes a segment unpacks to, counted no further than just beyond `most`."""
    length, end = 0, min(end, len(frame))
    while place < end and length <= most:
        packet = frame[place]
        if packet < 128:  # so many bytes and one as they are
            length += packet + 1
            place += packet + 2
        else:  # a byte repeated; 128 is nothing, and counted as one
            length += 257 - packet if packet > 128 else 1
            place += 2 if packet > 128 else 1
    return length
