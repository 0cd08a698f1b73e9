"""The headers of JPEG and JPEG 2000 streams, read before anything is decoded.

A decoder allocates memory by the size in these headers, so the size is checked first. Image files and compressed DICOM
frames are read with the same two walkers: `jpeg_segments` and `read_jpeg2000`.

JPEG: ITU-T T.81, B.1.1 and B.2.2. JPEG-LS: ITU-T T.87, C.2.2. JPEG 2000 and HTJ2K: ITU-T T.800, A.5.1 and annex I. All
three end in FF D9, which occurs nowhere within their data. RLE: PS3.5, annex G.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

__all__ = [
    "JPEG_FRAMES",
    "JPEG_SCAN",
    "JPEG_SCAN_START",
    "MOST_SCANS",
    "STREAM_END",
    "Codestream",
    "Segment",
    "jpeg_segments",
    "read_codestream",
    "read_jpeg2000",
    "rle_fits",
]

JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # F7 is JPEG-LS
JPEG_SCAN, JPEG_SCAN_START = 0xDA, b"\xff\xda"
MOST_SCANS = 100
"""The largest number of scans of a JPEG that is decoded: each costs a pass over all pixels. Encoders write up to 12."""
STREAM_END = b"\xff\xd9"
_JPEG_END, _JPEG_TEMPORARY = 0xD9, 0x01
_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # the data of a scan hold no such bytes
_JPEG_SYNTAXES = {0xC3: (70, 57), 0xF7: (80, 81)}  # lossless, JPEG-LS
_LOSSY_SYNTAXES, _JPEG2000_SYNTAXES = (51, 50), (90, 91, 201, 202, 203)
_JPEG2000_START = b"\xff\x4f\xff\x51"  # its first marker and its SIZ segment
_JPEG2000_CODING = b"\xff\x52"  # its COD segment: length, style, progression, layers (2), colour transform


@dataclass(frozen=True, slots=True)
class Codestream:
    """Size in pixels, components a pixel, bits a component; `whole` where the end marker is present.

    `rgb` marks JPEG 2000 whose colour transform makes it decode to RGB (T.800, A.6.1). `syntaxes` are the ends of the
    transfer syntaxes 1.2.840.10008.1.2.4.x that it may have, the first of them for choice.
    """

    width: int
    height: int
    components: int
    bits: int
    whole: bool
    rgb: bool = False
    scans: int = 1
    syntaxes: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a JPEG: its marker's second byte, its bytes after the length, and where it starts and ends."""

    marker: int
    body: bytes
    start: int
    end: int


def jpeg_segments(data: bytes) -> Iterator[Segment]:
    """The whole segments of a JPEG in their order. Bytes between segments, such as a scan's data, are skipped."""
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        marker, body = match[1][0], match.end() + 2
        if marker == _JPEG_TEMPORARY:  # has neither length nor body
            position = match.end()
            continue
        position = match.end() + int.from_bytes(data[match.end() : body], "big")
        if marker == _JPEG_END or not body <= position <= len(data):
            return
        yield Segment(marker, data[body:position], match.start(), position)


def read_jpeg2000(data: bytes, *, long_boxes: bool = True) -> Codestream | None:
    """The size in a JPEG 2000 codestream or JP2 file; None where `data` holds no codestream.

    `long_boxes` allows boxes before the codestream whose length has 64 bits. Raises struct.error where `data` ends
    within the header.
    """
    start = _after_boxes(data, long_boxes) if data[4:8] == b"jP  " else 0
    if not data.startswith(_JPEG2000_START, start):
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    components, depth = struct.unpack_from(">HB", data, start + 40)
    coding = data.find(_JPEG2000_CODING, start + 42 + 3 * components)  # it follows the SIZ segment
    rgb = components == 3 and coding >= 0 and data[coding + 8 : coding + 9] == b"\1"
    whole = data.rfind(STREAM_END) > start
    return Codestream(right - left, bottom - top, components, (depth & 0x7F) + 1, whole, rgb, 1, _JPEG2000_SYNTAXES)


def _after_boxes(data: bytes, long_boxes: bool) -> int:
    """The offset of the codestream in a JP2 file, len(data) where no box holds one (T.800, I.4)."""
    position = 0
    while position + 16 <= len(data):
        length, kind, long_length = struct.unpack_from(">I4sQ", data, position)
        header = 8
        if length == 1 and long_boxes:
            header, length = 16, long_length
        if kind == b"jp2c":
            return position + header
        if length < header:  # a box of length 0 is the last
            break
        position += length
    return len(data)


def read_codestream(data: bytes) -> Codestream | None:
    """The header of a DICOM frame in JPEG, JPEG-LS or JPEG 2000; None where it cannot be read.

    A frame must keep stricter rules than a file. A JPEG has nothing between its segments, and one frame header before
    its first scan, since decoders differ in which of two they take. Some writers put boxes around JPEG 2000; a box
    whose length has 64 bits or is 0 is refused, since pydicom would loop over it for ever.
    """
    try:
        if not data.startswith(b"\xff\xd8"):
            return read_jpeg2000(data, long_boxes=False)
        frame: Codestream | None = None
        position = 2
        for segment in jpeg_segments(data):
            if segment.start != position or (frame and segment.marker in JPEG_FRAMES):
                return None
            if segment.marker == JPEG_SCAN:
                return frame and replace(frame, scans=1 + data.count(JPEG_SCAN_START, segment.end))
            if segment.marker in JPEG_FRAMES:
                bits, height, width, components = struct.unpack_from(">BHHB", segment.body)
                whole = data.rfind(STREAM_END) > segment.start
                syntaxes = _JPEG_SYNTAXES.get(segment.marker, _LOSSY_SYNTAXES)
                frame = Codestream(width, height, components, bits, whole, syntaxes=syntaxes)
            position = segment.end
    except struct.error:
        pass
    return None


def rle_fits(frame: bytes, plane: int) -> bool:
    """Whether no segment of an RLE frame unpacks to more than twice `plane` bytes. Nothing is unpacked."""
    if len(frame) < 64:
        return False
    count, *offsets = struct.unpack_from("<16L", frame)
    starts = [*offsets[: min(count, 15)], len(frame)]
    return all(_unpacked_length(frame, start, end, 2 * plane) <= 2 * plane for start, end in pairwise(starts))


def _unpacked_length(frame: bytes, position: int, end: int, most: int) -> int:
    """The number of bytes that a segment unpacks to; counting stops just beyond `most`."""
    length, end = 0, min(end, len(frame))
    while position < end and length <= most:
        packet = frame[position]
        if packet < 128:  # packet + 1 bytes follow as they are
            length += packet + 1
            position += packet + 2
        else:  # one byte is repeated; 128 adds nothing, and is counted as one
            length += 257 - packet if packet > 128 else 1
            position += 2 if packet > 128 else 1
    return length
