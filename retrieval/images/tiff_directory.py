"""The directories of a TIFF, which describe its pages: TIFF 6.0, BigTIFF and, in the same structure, EXIF 2.3."""

import struct
from dataclasses import dataclass

__all__ = ["Directory", "first_offset", "paired_samples", "read_directory", "single_plane"]

_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_ENTRIES = 100_000

_WIDTH, _PHOTOMETRIC, _SAMPLES, _PLANAR, _TILE_WIDTH = 256, 262, 277, 284, 322
_OF_EACH_SAMPLE = {258, 339}  # bits, and the format of the numbers
_OF_EACH_PART = {273, 279, 324, 325}  # the offset and size of each strip or tile
_OTHERS = {_WIDTH, _TILE_WIDTH, 257, 259, 266, 278, 317, 323, 347}  # and height, compression, predictor and the like


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory's tags, each with its first whole-number value and that value's offset; the next directory's offset.

    The first of several equal tags counts, as in libtiff. `entries` has each tag's type and number of values, and the
    offset of the first one.
    """

    tags: dict[int, int]
    offsets: dict[int, int]
    entries: dict[int, tuple[int, int, int]]
    following: int


@dataclass(frozen=True, slots=True)
class _Form:
    """How a file writes numbers: the byte order, and the formats of an offset and of a directory's size."""

    order: str
    offset: str
    counted: str

    @classmethod
    def of(cls, data: bytes) -> "_Form":
        big = data[2:4] in (b"+\0", b"\0+")
        return cls("<" if data[:2] == b"II" else ">", "Q" if big else "I", "Q" if big else "H")

    @property
    def size(self) -> int:
        """Of an offset, in bytes."""
        return struct.calcsize(self.offset)

    @property
    def first(self) -> int:
        """Where the first directory's offset is."""
        return 8 if self.offset == "Q" else 4


def first_offset(data: bytes) -> int:
    """Where the first directory is; 0 for a file without one. Raises struct.error where the data end before it."""
    form = _Form.of(data)
    return int(struct.unpack_from(form.order + form.offset, data, form.first)[0])


def read_directory(data: bytes, start: int | None = None) -> Directory:
    """The directory at an offset, by default the first. Raises struct.error where the data end before it."""
    form = _Form.of(data)
    if start is None:
        start = first_offset(data)
    (count,) = struct.unpack_from(form.order + form.counted, data, start)
    first, entry_size = start + struct.calcsize(form.counted), 4 + 2 * form.size
    end = first + entry_size * min(count, _MOST_ENTRIES)
    tags: dict[int, int] = {}
    offsets: dict[int, int] = {}
    entries: dict[int, tuple[int, int, int]] = {}
    for entry in range(first, end, entry_size):
        tag, kind, values = struct.unpack_from(f"{form.order}HH{form.offset}", data, entry)
        if tag in entries or kind not in _SIZES:
            continue
        at = entry + entry_size - form.size
        if values * _SIZES[kind] > form.size:
            (at,) = struct.unpack_from(form.order + form.offset, data, at)
        if kind in _WHOLE_NUMBERS and tag not in tags:
            (tags[tag],) = struct.unpack_from(form.order + _WHOLE_NUMBERS[kind], data, at)
            offsets[tag] = at
        entries[tag] = kind, values, at
    (following,) = struct.unpack_from(form.order + form.offset, data, end)
    return Directory(tags, offsets, entries, following)


def single_plane(data: bytes, plane: int) -> bytes:
    """A TIFF whose only page is one plane, from 0, of the first page of `data`, as grey. Orientation is left out."""
    directory = read_directory(data)
    samples = directory.tags[_SAMPLES]
    entries = dict(directory.entries)
    for tag in _OF_EACH_PART & entries.keys():
        kind, count, at = entries[tag]
        parts = count // samples
        entries[tag] = kind, parts, at + plane * parts * _SIZES[kind]
    return _with_directory(data, entries, {_PHOTOMETRIC: 1, _SAMPLES: 1, _PLANAR: 1})


def paired_samples(data: bytes) -> bytes:
    """A TIFF of the same samples as the first page of `data`, which has two a pixel, as grey of twice the width.

    Orientation is left out. Samples that were stored as differences (a predictor) are none any more.
    """
    directory = read_directory(data)
    wider = {tag: 2 * directory.tags[tag] for tag in (_WIDTH, _TILE_WIDTH) if tag in directory.tags}
    return _with_directory(data, directory.entries, {_PHOTOMETRIC: 1, _SAMPLES: 1, _PLANAR: 1, **wider})


def _with_directory(data: bytes, entries: dict[int, tuple[int, int, int]], numbers: dict[int, int]) -> bytes:
    """The data with another first directory at their end: what decoding needs of `entries`, and these numbers."""
    form, written = _Form.of(data), []
    kept = (_OF_EACH_SAMPLE | _OF_EACH_PART | _OTHERS) & entries.keys()
    for tag in sorted(kept | numbers.keys()):
        kind, count, at = (4, 1, 0) if tag in numbers else entries[tag]
        count = 1 if tag in _OF_EACH_SAMPLE else count
        size = count * _SIZES[kind]
        if tag in numbers:
            value = struct.pack(form.order + "I", numbers[tag])
        elif size <= form.size:
            value = data[at : at + size]
        else:
            value = struct.pack(form.order + form.offset, at)
        head = struct.pack(f"{form.order}HH{form.offset}", tag, kind, count)
        written.append(head + value.ljust(form.size, b"\0"))
    start = len(data) + len(data) % 2
    changed = bytearray(data.ljust(start, b"\0"))
    struct.pack_into(form.order + form.offset, changed, form.first, start)
    changed += struct.pack(form.order + form.counted, len(written)) + b"".join(written) + bytes(form.size)
    return bytes(changed)
