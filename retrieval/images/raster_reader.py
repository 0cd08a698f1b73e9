"""Image files other than DICOM, from bytes to grey levels or colours. OpenCV decodes."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.images.codestream import STREAM_END
from retrieval.images.raster_headers import Header, HeaderError, read_header
from retrieval.notices import Code, Notice

__all__ = ["RasterError", "read_raster"]

_BEYOND_RANGE = 0.001  # the share of an image's values, at either end, that its range leaves out
_MISSING = 128  # libjpeg's value for a block that is missing in the file
_MOST_ROWS_MISSING = 0.25  # the share of its rows that a cut JPEG may lack


class RasterError(ValueError):
    """Bytes that give no picture; `str(error)` completes "q.png ..."."""


def read_raster(data: bytes, most_pixels: int) -> tuple[NDArray[np.uint8], tuple[Notice, ...]]:
    """The picture in a file's bytes, upright, (H, W) grey or (H, W, 3) BGR, and what to know about it.

    For what is read see `retrieval.images.radiograph.decode_radiograph`. Raises RasterError.
    """
    try:
        header = read_header(data)
    except HeaderError as error:
        raise RasterError(f"cannot be read: {error}; copy or export it again") from error
    if header is None:
        raise RasterError("is no image that can be read; export the radiograph as PNG, JPEG or TIFF")
    if header.width * header.height > most_pixels:
        size = f"{header.width:,} x {header.height:,} pixels"
        raise RasterError(f"has {size}, more than {most_pixels:,} in all; export it smaller")
    if header.cut and not header.measurable:
        raise RasterError("ends early, before all its detail was sent; copy or export it again")
    stored = _decode(header)
    if stored is None or sorted(stored.shape[:2]) != sorted((header.height, header.width)):
        raise RasterError(f"is a damaged {header.kind}, or of a kind that is not read; copy or export it again")
    notices = []
    if header.cut or (header.kind == "JPEG" and _ran_out(header, stored)):
        notices.append(_without_missing_rows(stored))
    if header.pictures:
        notices.append(Notice(Code.SEVERAL_PICTURES, detail={"kind": header.pictures}))
    pixels = _eight_bits(_on_black(stored), inverted=header.inverted)
    return np.ascontiguousarray(_upright(pixels, header.orientation)), tuple(notices)


def _decode(header: Header) -> NDArray[Any] | None:
    """The picture as OpenCV decodes it, (H, W) or (H, W, 3 or 4) of any depth; None where OpenCV cannot."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    flags = cv2.IMREAD_UNCHANGED
    if header.kind == "TIFF" and not header.straight_alpha:
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR  # "unchanged" would give CMYK as if it were BGR and alpha
    try:
        with _silent_stderr() if header.cut else nullcontext():
            return cv2.imdecode(np.frombuffer(header.data, np.uint8), flags)
    except cv2.error:
        return None


def _ran_out(header: Header, stored: NDArray[Any]) -> bool:
    """Whether a JPEG lacks its last blocks although it has an end marker.

    Missing blocks are mid-grey, but blocks of a whole picture may be so too. Bytes inserted before the end marker fill
    missing blocks, and do not change a whole picture. 4 KiB fill at least one block.
    """
    if not (stored[-1, -8:] == _MISSING).all():
        return False
    end = header.data.rfind(STREAM_END)
    filled = _decode(replace(header, data=header.data[:end] + bytes(4096) + header.data[end:], cut=True))
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


def _on_black(stored: NDArray[Any]) -> NDArray[Any]:
    if stored.ndim == 2 or stored.shape[2] == 3:
        return stored
    colour, alpha = stored[..., :3].astype(np.float32), stored[..., 3:].astype(np.float32)
    opaque = np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1.0
    composed: NDArray[Any] = np.rint(colour * (alpha / opaque)).astype(stored.dtype)
    return composed


def _eight_bits(pixels: NDArray[Any], *, inverted: bool) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels  # libtiff itself has inverted an 8-bit TIFF
    if pixels.dtype.kind == "f":
        pixels = np.where(np.abs(pixels) < 1e30, pixels, 0)  # NaN and absurd values count as 0
    values = pixels.astype(np.float32)
    outermost = int(values.size * _BEYOND_RANGE)  # at either end
    low, high = np.partition(values, (outermost, values.size - 1 - outermost), axis=None)[[outermost, -1 - outermost]]
    scaled = np.clip((values - low) * (255 / max(high - low, 1e-12)), 0, 255)
    return np.asarray(np.rint(255 - scaled if inverted else scaled), np.uint8)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """EXIF 2.3, table 6: 2 to 4 flip or turn the stored picture by 180 degrees, 5 to 8 also exchange its axes."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


_STDERR = threading.Lock()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep libjpeg from writing to the terminal that a file ends early; a notice says so."""
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:  # a process without stderr
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
