"""The headers of image files, read before OpenCV decodes: format, size, orientation.

`read_header` allocates nothing by what a file claims, so a few bytes that claim 30,000 x 30,000 pixels cost nothing.
Three formats are not read although OpenCV has a decoder: it ignores the orientation of an AVIF, makes a grey Sun raster
black, and leaves a copy of a Radiance HDR in the temporary folder.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from retrieval.images.codestream import (
    JPEG_FRAMES,
    JPEG_SCAN,
    JPEG_SCAN_START,
    MOST_SCANS,
    STREAM_END,
    jpeg_segments,
    read_jpeg2000,
)
from retrieval.images.image_header import Header, HeaderError
from retrieval.images.tiff_directory import read_directory
from retrieval.images.tiff_header import read_tiff

__all__ = ["IMAGE_SUFFIXES", "read_header"]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm", ".png"}
    | {".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""The endings, in small letters, of radiographs in a folder. A file's bytes decide what it is."""


_MOST_PARTS = 100_000  # of a file, each of which costs time but may hold nothing


def read_header(data: bytes) -> Header | None:
    """The header of an image file, None for an unknown format.

    Raises HeaderError where the header is broken, or a PNG's checksums do not fit.
    """
    for kind, magic, parse in _KINDS:
        if magic.match(data):
            try:
                header = parse(kind, data)
            except (struct.error, IndexError):
                raise HeaderError("it ends within its header") from None
            if header.width < 1 or header.height < 1:
                raise HeaderError(f"its header says {header.width} x {header.height} pixels")
            return header
    return None


# PNG: W3C, Portable Network Graphics, third edition.
_PNG_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3}  # OpenCV makes four of grey with alpha


def _png(kind: str, data: bytes) -> Header:
    """Keeps the chunks that make the picture, and checks their checksums.

    The others (colour profiles, text, later frames) only make libpng write to stderr, or cost memory.
    """
    kept, orientation, pictures = [data[:8]], 1, ""
    position, name = 8, b""
    while name != b"IEND":
        if len(kept) > _MOST_PARTS:
            raise HeaderError("it has too many parts")
        name, body = data[position + 4 : position + 8], position + 8
        end = body + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            raise HeaderError("it ends early")
        if name in _PNG_PICTURE:
            if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise HeaderError("a checksum does not fit its data")
            kept.append(data[position : end + 4])
        elif name == b"eXIf":
            orientation = _exif_orientation(data[body:end])
        elif name == b"acTL" and data[body : body + 4] > b"\0\0\0\1":
            pictures = "frames"
        position = end + 4
    width, height, bits, colour = struct.unpack_from(">IIBB", kept[1], 8)
    transparent = any(chunk[4:8] == b"tRNS" for chunk in kept)
    channels = 4 if transparent else _PNG_CHANNELS.get(colour, 4)
    depth = 2 if bits == 16 else 1
    colours = sum(len(chunk) - 12 for chunk in kept if chunk[4:8] == b"PLTE") // 3
    short = colour == 3 and bits <= 8 and colours < 2**bits
    return Header(
        kind,
        width,
        height,
        b"".join(kept),
        channels,
        depth,
        channels * depth,
        orientation=orientation,
        pictures=pictures,
        numbers=_palette_numbers(kept) if short else b"",
        last_number=(colours - 1) * 255 // (2**bits - 1) if short else 0,
    )


def _palette_numbers(chunks: list[bytes]) -> bytes:
    """A PNG with a palette, as one in grey."""
    head = bytearray(chunks[1])
    head[17] = 0  # the type of colours
    head[-4:] = zlib.crc32(head[4:-4]).to_bytes(4, "big")
    return b"".join([chunks[0], head, *(chunk for chunk in chunks[2:] if chunk[4:8] not in (b"PLTE", b"tRNS"))])


_JPEG_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_JPEG_EXIF, _JPEG_ADOBE = 0xE1, 0xEE


def _jpeg(kind: str, data: bytes) -> Header:
    frame, orientation, scan, adobe = None, 1, 0, False
    for number, segment in enumerate(jpeg_segments(data)):
        if number > _MOST_PARTS:
            raise HeaderError("it has too many parts")
        if segment.marker in JPEG_FRAMES:
            frame = segment
        elif segment.marker == _JPEG_EXIF and segment.body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(segment.body[6:])
        elif segment.marker == _JPEG_ADOBE:
            adobe |= segment.body.startswith(b"Adobe")
        elif segment.marker == JPEG_SCAN:
            scan = segment.end
            break
    if frame is None or not scan:
        raise HeaderError("it ends before its picture")
    scans = data.count(JPEG_SCAN_START, scan)
    if scans >= MOST_SCANS:
        raise HeaderError(f"it has {scans + 1:,} scans, more than {MOST_SCANS}")
    height, width, components = struct.unpack_from(">HHB", frame.body, 1)
    if components == 4 and not adobe:  # Adobe's inks are inverted, and decoders take all inks for Adobe's
        raise HeaderError("it has four colours, and does not say whether their zero is white")
    channels, coefficients = 1 if components == 1 else 3, 2 * components * (scans > 0)
    header = Header(kind, width, height, data, channels, 1, components + coefficients, orientation=orientation)
    if data.find(STREAM_END, scan) >= 0:
        return header
    # Interrupted copies are often filled up with zeros. libjpeg gives what it has when it meets an end marker.
    ended = data.rstrip(b"\0\xff") + STREAM_END
    colour = components < 4  # CMYK does not show what is missing
    measurable = colour and (frame.marker not in _JPEG_PROGRESSIVE or _all_sent(data, frame.body[6]))
    return replace(header, data=ended, cut=True, measurable=measurable)


def _all_sent(data: bytes, component: int) -> bool:
    """Whether the scans before the last one of a cut progressive JPEG hold every frequency of a component."""
    segments = islice(jpeg_segments(data), _MOST_PARTS)
    scans = [segment.body for segment in segments if segment.marker == JPEG_SCAN]
    sent: set[int] = set()
    for body in scans[:-1]:
        if component in body[1:-3:2]:
            sent.update(range(body[-3], body[-2] + 1))
    return len(sent) == 64


def _exif_orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 where it is missing or the block is broken, since it is no part of the picture."""
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        orientation = read_directory(exif).tags.get(0x0112, 1)
    except struct.error:
        return 1
    return orientation if 1 <= orientation <= 8 else 1


_BMP_WITH_PROFILE = 124  # the size of the header; a colour profile follows the pixels


def _surplus(data: bytes, end: int) -> bool:
    """Whether there is more than filling behind the end of the pixels."""
    return bool(data[max(end, 0) :].strip(b"\0 \t\r\n"))


def _bmp(kind: str, data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    header = Header(kind, width, abs(height), data, 4, 1, 4)
    if size == 12:
        return header
    bits, compression = struct.unpack_from("<HI", data, 28)
    (pixels_at,), (colours,) = struct.unpack_from("<I", data, 10), struct.unpack_from("<I", data, 46)
    if compression == 0 and size < _BMP_WITH_PROFILE:
        header = replace(header, surplus=_surplus(data, pixels_at + (bits * width + 31) // 32 * 4 * abs(height)))
    if bits > 8 or not 0 < colours < 2**bits:
        return header
    levels = [number * 255 // (2**bits - 1) for number in range(2**bits)]
    palette = b"".join(bytes([level, level, level, 0]) for level in levels)
    numbers = data[:10] + struct.pack("<I", 14 + size + len(palette)) + data[14:46] + bytes(4) + data[50 : 14 + size]
    return replace(header, numbers=numbers + palette + data[pixels_at:], last_number=levels[colours - 1])


# GIF89a specification, appendix A.
_GIF_IMAGE, _GIF_EXTENSION = 0x2C, 0x21


def _gif(kind: str, data: bytes) -> Header:
    """Reads the blocks until a second image begins."""
    width, height = struct.unpack_from("<HH", data, 6)
    position, images, parts = 13 + _gif_colours(data[10]), 0, 0
    while images < 2 and position < len(data) and data[position] in (_GIF_IMAGE, _GIF_EXTENSION):
        if data[position] == _GIF_IMAGE:
            if not (data[10] | data[position + 9]) & 0x80:
                raise HeaderError("it has no colour table")
            images += 1
            position += 11 + _gif_colours(data[position + 9])
        else:
            position += 2
        while position < len(data) and data[position]:  # sub-blocks, each after its length
            position, parts = position + 1 + data[position], parts + 1
            if parts > 10 * _MOST_PARTS:
                raise HeaderError("it has too many parts")
        position += 1
    return Header(kind, width, height, data, 3, 1, 8, pictures="frames" if images > 1 else "")


def _gif_colours(flags: int) -> int:
    """The size in bytes of the colour table that a flags byte announces."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


# WebP: RFC 9649.
_ZEROS_OF_A_CUT_FILE = 64  # interrupted copies are often filled up with zeros


def _webp(kind: str, data: bytes) -> Header:
    form = data[12:16]
    if form in (b"VP8 ", b"VP8L") and data.endswith(bytes(_ZEROS_OF_A_CUT_FILE)):
        raise HeaderError("it ends early")
    if form == b"VP8L" and bytes(_ZEROS_OF_A_CUT_FILE) in data[21:]:  # without loss, even one grey has no such run
        raise HeaderError("a part of it is lost")
    if form == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
        return Header(kind, width, height, data, 3, 1, 4)
    if form == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header(kind, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, data, 4, 1, 4)
    if form != b"VP8X":
        raise HeaderError("its first chunk is not one of WebP's")
    width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    orientation, position = 1, 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"EXIF":
            exif = data[position + 8 : position + 8 + length]
            orientation = _exif_orientation(exif.removeprefix(b"Exif\0\0"))
            break
        position += 8 + length + length % 2
    pictures = "frames" if data[20] & 0x02 else ""
    return Header(kind, width, height, data, 4, 1, 8, orientation=orientation, pictures=pictures)


def _jpeg2000(kind: str, data: bytes) -> Header:
    stream = read_jpeg2000(data)
    if stream is None:
        raise HeaderError("it holds no codestream")
    channels, depth = (1 if stream.components == 1 else max(3, stream.components)), 1 if stream.bits <= 8 else 2
    return Header(kind, stream.width, stream.height, data, channels, depth, 8 * channels)


_PNM_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM_SIZE = re.compile(rb"P[1-6fF]" + _PNM_SPACE + rb"(\d{1,9})" + _PNM_SPACE + rb"(\d{1,9})\s")
_PNM_WHITE = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,5})\s")


def _pnm(kind: str, data: bytes) -> Header:
    size = _PNM_SIZE.match(data, 0, 4096)
    if size is None:
        raise HeaderError("its header has no width and height")
    form = data[1:2]
    maximum = _PNM_WHITE.match(data, size.end() - 1, 8192) if form in b"2356" else None
    white = int(maximum[1]) if maximum else 255
    depth = 4 if form in b"fF" else 2 if white > 255 else 1
    channels = 3 if form in b"36F" else 1
    white = white if white < 255 and form in b"56" else 0  # OpenCV itself scales numbers that are written out
    width, height = int(size[1]), int(size[2])
    row = (width + 7) // 8 if form == b"4" else width * channels * depth
    end = len(data) if form in b"123fF" else (maximum or size).end() + row * height
    several = "frames" if _PNM_SIZE.match(data, end, end + 4096) else ""
    surplus = not several and _surplus(data, end)
    data += b"\n" if form in b"123" else b""  # OpenCV wants white space behind the last number
    return Header(
        kind, width, height, data, channels, depth, channels * depth, white=white, pictures=several, surplus=surplus
    )


_KINDS: tuple[tuple[str, re.Pattern[bytes], Callable[[str, bytes], Header]], ...] = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    ("JPEG", re.compile(rb"\xff\xd8\xff"), _jpeg),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), read_tiff),
    ("BMP", re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), _bmp),
    ("GIF", re.compile(rb"GIF8[79]a"), _gif),
    ("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _webp),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), _jpeg2000),
    ("PNM", re.compile(rb"P[1-6fF][\s#]"), _pnm),
)
