"""Image files other than DICOM, from bytes to grey levels or colours. OpenCV decodes."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.images.codestream import STREAM_END
from retrieval.images.colours import one_channel, strongly_coloured
from retrieval.images.decoder_messages import messages_of_opencv, messages_of_this_thread
from retrieval.images.grey_range import all_values, count_values, look_up, robust_range
from retrieval.images.image_header import Header, HeaderError
from retrieval.images.jpeg_damage import is_damaged
from retrieval.images.raster_headers import read_header
from retrieval.images.stored_values import byte_swapped, lacks_sign, size_by_pixels, zeros_at_the_end
from retrieval.images.tiff_directory import paired_samples, single_plane
from retrieval.notices import Code, Notice

__all__ = ["RasterError", "checked_header", "read_raster", "read_raster_values"]

_MISSING = 128  # libjpeg's value for a block that is missing in the file
_MOST_ROWS_MISSING = 0.25  # the share of its rows that a cut JPEG may lack
_ROWS_AT_ONCE = 256
_MOST_COUNTED = 2**22  # of the pixels of other types than integers of 16 bits, for their range


class RasterError(ValueError):
    """Bytes that give no picture; `str(error)` completes "q.png ..."."""


def checked_header(data: bytes, most_pixels: int, most_memory: int) -> Header:
    """The header of an image file that may be decoded. Raises RasterError for unknown formats and large pictures."""
    try:
        header = read_header(data)
    except HeaderError as error:
        raise RasterError(f"cannot be read: {error}; copy or export it again") from error
    if header is None:
        raise RasterError("is not an image that can be read; export the radiograph as PNG, JPEG or TIFF")
    size = f"{header.width:,} x {header.height:,} pixels"
    if header.width * header.height > most_pixels:
        raise RasterError(f"has {size}, more than {most_pixels:,} in all; export it smaller")
    if header.memory > most_memory:
        needed = f"{header.memory / 2**20:,.0f} MiB of memory, more than the {most_memory / 2**20:,.0f} MiB allowed"
        raise RasterError(f"has {size} that take {needed}; export it smaller, or in grey of 8 or 16 bits")
    if header.cut and not header.measurable:
        raise RasterError("ends early, before all its detail was sent; copy or export it again")
    return header


def read_raster(data: bytes, most_pixels: int, most_memory: int) -> tuple[NDArray[np.uint8], tuple[Notice, ...]]:
    """The picture in a file's bytes, upright, (H, W) grey or (H, W, 3) BGR, and what to know about it.

    For what is read see `retrieval.images.radiograph.decode_radiograph`. Raises RasterError.
    """
    header = checked_header(data, most_pixels, most_memory)
    stored, messages = _checked(header)
    stored, notices = _as_neighbours_say(stored, header.kind)
    notices += _without_zeros(stored, header.kind)
    if header.surplus:
        notices.append(Notice(Code.SURPLUS_DATA))
    if header.cut or (b"premature end" in messages and _ran_out(header, stored)):
        notices.append(_without_missing_rows(stored))
    corrupt = b"Corrupt JPEG data" in messages.replace(b"Corrupt JPEG data: bad ICC", b"")
    if not header.cut and (corrupt or (header.kind == "JPEG" and is_damaged(stored, header.data))):
        notices.append(Notice(Code.DAMAGED))
    if header.pictures:
        notices.append(Notice(Code.SEVERAL_PICTURES, detail={"kind": header.pictures}))
    opaque, transparent = _on_black(stored)
    scaled, outliers = _eight_bits(opaque, header)
    pixels = one_channel(scaled)
    doubts = {Code.TRANSPARENT: transparent, Code.OUTLIERS: outliers, Code.COLOURED: strongly_coloured(pixels)}
    notices += [Notice(code) for code, applies in doubts.items() if applies]
    return np.ascontiguousarray(_upright(pixels, header.orientation)), tuple(notices)


def read_raster_values(data: bytes, most_pixels: int, most_memory: int) -> tuple[NDArray[Any], bool]:
    """The values (H, W) in a file's bytes with all their bits, upright, and whether the least value is white.

    Of 8 bits they are `read_raster`'s. Raises RasterError.
    """
    header = checked_header(data, most_pixels, most_memory)
    opaque, _ = _on_black(_as_neighbours_say(_checked(header)[0], header.kind)[0])
    if opaque.dtype == np.uint8:
        return _upright(_eight_bits(opaque, header)[0], header.orientation), False
    return np.ascontiguousarray(_upright(opaque, header.orientation)), header.inverted


def _checked(header: Header) -> tuple[NDArray[Any], bytes]:
    """The decoded picture and the decoder's messages. Raises RasterError."""
    stored, messages = _decode(header)
    if (
        stored is None
        or sorted(stored.shape[:2]) != sorted((header.height, header.width))
        or (header.kind == "TIFF" and b"TIFF_Error" in messages)
    ):
        raise RasterError(f"is a damaged {header.kind}, or of a kind that is not supported; copy or export it again")
    if header.numbers:
        numbers, _ = _decode_bytes(header, header.numbers)
        if numbers is None or int(numbers.max()) > header.last_number:  # decoded as black
            raise RasterError("has pixels of colours that its palette lacks; copy or export it again")
    return stored, messages


def _as_neighbours_say(stored: NDArray[Any], kind: str) -> tuple[NDArray[Any], list[Notice]]:
    """The values in the order of bytes and rows, and with the sign, that make neighbours alike; what was changed."""
    notices = []
    size = size_by_pixels(stored) if kind == "PNM" else stored.shape[:2]
    if size != stored.shape[:2]:
        stored = stored.reshape(*size, *stored.shape[2:])
        notices.append(Notice(Code.EXCHANGED_SIZE))
    if stored.dtype != np.uint16:
        return stored, notices
    swapped = byte_swapped(stored)
    stored = stored.byteswap() if swapped else stored
    signed = stored.ndim == 2 and lacks_sign(stored, 16)
    if swapped or signed:
        notices.append(Notice(Code.CONTRADICTORY_BITS))
    return stored ^ np.uint16(2**15) if signed else stored, notices  # in ascending order


def _without_zeros(stored: NDArray[Any], kind: str) -> list[Notice]:
    """What to say of a file that was not copied whole. Raises RasterError where too much is missing."""
    if kind not in ("BMP", "PNM", "TIFF"):
        return []
    missing = zeros_at_the_end(stored[::-1] if kind == "BMP" else stored)
    if missing > _MOST_ROWS_MISSING:
        raise RasterError(f"ends early: {missing:.0%} of its rows hold only zeros; copy or export it again")
    words = f"the last {missing:.0%} of its rows hold only zeros"
    return [Notice(Code.ENDS_EARLY, detail={"missing": words})] if missing else []


def _decode(header: Header) -> tuple[NDArray[Any] | None, bytes]:
    """The picture as OpenCV decodes it, (H, W) or (H, W, 3 or 4) of any depth; None where it cannot; the messages."""
    if header.paired:
        pairs, messages = _decode_bytes(header, paired_samples(header.data))
        if pairs is None or pairs.ndim != 2:
            return None, messages
        return _grey_with_alpha([pairs[:, ::2], pairs[:, 1::2]], header), messages
    if not header.planes:
        return _decode_bytes(header, header.data)
    decoded = [_decode_bytes(header, single_plane(header.data, number)) for number in range(header.planes)]
    messages = b"".join(messages for _, messages in decoded)
    planes = [plane for plane, _ in decoded if plane is not None and plane.ndim == 2]
    if len(planes) < header.planes:
        return None, messages
    if header.planes == 2:
        return _grey_with_alpha(planes, header), messages
    return np.dstack([*planes[2::-1], *(planes[3:] if header.straight_alpha else [])]), messages


def _grey_with_alpha(planes: list[NDArray[Any]], header: Header) -> NDArray[Any]:
    """Grey as (H, W) where it is multiplied by its alpha already, else (H, W, 4)."""
    grey, alpha = planes
    return np.dstack([grey, grey, grey, alpha]) if header.straight_alpha else np.ascontiguousarray(grey)


def _decode_bytes(header: Header, data: bytes) -> tuple[NDArray[Any] | None, bytes]:
    """Bytes that stand for those of a header, as OpenCV decodes them; the messages."""
    flags, tiff = cv2.IMREAD_UNCHANGED, header.kind == "TIFF"
    if tiff and not header.straight_alpha:
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR  # "unchanged" would give CMYK as if it were BGR and alpha
    stored = None
    with messages_of_opencv() if tiff else messages_of_this_thread() as messages:
        levels = cv2.utils.logging
        levels.setLogLevel(levels.LOG_LEVEL_ERROR if tiff else levels.LOG_LEVEL_SILENT)
        try:
            stored = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            pass
        finally:
            levels.setLogLevel(levels.LOG_LEVEL_SILENT)
    return stored, b"".join(messages)


def _ran_out(header: Header, stored: NDArray[Any]) -> bool:
    """Whether a JPEG lacks its last blocks although it has an end marker.

    Missing blocks are mid-grey, but blocks of a whole picture may be so too. Bytes inserted before the end marker fill
    missing blocks, and do not change a whole picture. 4 KiB fill at least one block.
    """
    if not (stored[-1, -8:] == _MISSING).all():
        return False
    end = header.data.rfind(STREAM_END)
    filled, _ = _decode(replace(header, data=header.data[:end] + bytes(4096) + header.data[end:]))
    return filled is not None and not np.array_equal(stored, filled)


def _without_missing_rows(stored: NDArray[Any]) -> Notice:
    """Blacken what a cut JPEG lacks, in place, and say how much that is. Raises RasterError where it is too much."""
    missing = _blacken_missing(stored)
    if missing > _MOST_ROWS_MISSING:
        raise RasterError(f"ends early: {missing:.0%} of its rows are missing; copy or export it again")
    words = "its last rows or finest detail may be missing"
    if missing:
        words = f"the last {max(missing, 0.01):.0%} of its rows are missing and shown black"
    return Notice(Code.ENDS_EARLY, detail={"missing": words})


def _blacken_missing(stored: NDArray[Any]) -> float:
    """Blacken the missing part of a cut JPEG, in place, and return the share of rows that are wholly missing.

    libjpeg makes a missing block mid-grey. Blocks are stored row by row from the top left, so the tail of one row of
    blocks is missing, and all rows below it.
    """
    grey = stored == _MISSING if stored.ndim == 2 else (stored == _MISSING).all(axis=2)
    height, width = grey.shape
    bottom = height - _run(grey.all(axis=1))
    stored[bottom:] = 0
    tail = _run(grey[bottom - 1]) if bottom else 0
    if tail >= 8:  # a block
        rows = _run(grey[:bottom, width - tail :].all(axis=1))
        stored[bottom - rows : bottom, width - tail :] = 0
    return float((height - bottom) / height)


def _run(flags: NDArray[np.bool_]) -> int:
    """The number of set flags at the end."""
    return len(flags) if flags.all() else int(np.argmin(flags[::-1]))


def _on_black(stored: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """The picture laid on black, and whether it is equally transparent everywhere, in which case that is ignored."""
    if stored.ndim == 2 or stored.shape[2] == 3:
        return stored, False
    opaque = np.float32(np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1)
    if (stored[..., 3] == stored[0, 0, 3]).all():
        return stored[..., :3], bool(stored[0, 0, 3] != opaque)
    composed = np.empty((*stored.shape[:2], 3), stored.dtype)
    for start in range(0, len(stored), _ROWS_AT_ONCE):
        rows = stored[start : start + _ROWS_AT_ONCE].astype(np.float32)
        composed[start : start + _ROWS_AT_ONCE] = np.rint(rows[..., :3] * (rows[..., 3:] / opaque))
    return composed, False


def _eight_bits(pixels: NDArray[Any], header: Header) -> tuple[NDArray[np.uint8], bool]:
    """The picture in 8 bits, and whether outliers were left out to find its range."""
    if pixels.dtype == np.uint8:  # libtiff itself has inverted an 8-bit TIFF
        if not header.white:
            return pixels, False
        return look_up(np.minimum(np.rint(np.arange(256) * 255 / header.white), 255).astype(np.uint8), pixels), False
    whole = pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2
    if whole:
        values, counts = all_values(pixels), count_values(pixels)
    else:
        step = 1 + pixels.size // _MOST_COUNTED
        values, counts = np.unique(_finite(pixels).ravel()[::step].astype(np.float64), return_counts=True)
    low, high, outliers = robust_range(values, counts)
    scale = 255 / max(high - low, 1e-12)

    def levels(numbers: NDArray[Any]) -> NDArray[np.uint8]:
        scaled = np.clip((numbers - low) * scale, 0, 255)
        return np.rint(255 - scaled if header.inverted else scaled).astype(np.uint8)

    if whole:
        return look_up(levels(values), pixels), outliers
    rows = [levels(_finite(pixels[at : at + _ROWS_AT_ONCE])) for at in range(0, len(pixels), _ROWS_AT_ONCE)]
    return np.concatenate(rows), outliers


def _finite(pixels: NDArray[Any]) -> NDArray[Any]:
    """NaN and absurd values count as 0."""
    return np.where(np.abs(pixels) < 1e30, pixels, 0) if pixels.dtype.kind == "f" else pixels


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """EXIF 2.3, table 6: 2 to 4 flip or turn the stored picture by 180 degrees, 5 to 8 also exchange its axes."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
