"""Stored values become what is seen: PS3.3, C.7.6.3 Image Pixel, C.11.1 Modality LUT, C.11.2 VOI LUT, C.11.6.

Stored values have at most 16 bits, so grey levels are computed once for each possible value, then looked up.
`pixels` is pydicom's module of that name, which only `retrieval.images.dicom_reader` imports.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.images.dicom_header import PALETTE, DicomError, DicomLayout, sample, text
from retrieval.notices import Code, Notice

__all__ = ["colours", "grey_levels"]

_PIXELS_AT_ONCE = 2**20


def grey_levels(
    stored: NDArray[Any], ds: Any, layout: DicomLayout, pixels: Any
) -> tuple[NDArray[np.uint8], list[Notice]]:
    """Grey levels (H, W) as a radiologist sees them, and what to know about them."""
    kind = np.iinfo(stored.dtype)
    values = np.arange(kind.min, kind.max + 1)  # all possible ones; value v is at v - kind.min
    order = "<" if ds.original_encoding[1] else ">"
    padding = _padding(values, ds, order, layout.signed)
    output = _modality(values, ds, order, pixels)
    with np.errstate(all="ignore"):
        seen, doubts = _of_interest(output, ds, order, pixels)
        if seen is None:
            low, high = _full_range(stored, values, output, padding, layout)
            seen = (output - low) / (high - low if high > low else 1)
        levels = np.rint(np.clip(np.nan_to_num(seen), 0, 1) * 255).astype(np.uint8)
    if layout.photometric == "MONOCHROME1" or text(ds, "PresentationLUTShape").upper() == "INVERSE":
        levels = 255 - levels
    levels[padding] = 0
    grey = np.empty(stored.shape, np.uint8)
    for rows, positions in _positions(stored):
        grey[rows] = levels[positions]
    return grey, doubts


def _positions(stored: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.intp]]]:
    """The position of each pixel's value among all values, a few rows at a time, since a position takes eight bytes."""
    least = np.iinfo(stored.dtype).min
    at_once = max(1, _PIXELS_AT_ONCE // stored.shape[1])
    for start in range(0, stored.shape[0], at_once):
        rows = slice(start, start + at_once)
        yield rows, stored[rows].astype(np.intp) - least


def _padding(values: NDArray[Any], ds: Any, order: str, signed: bool) -> NDArray[np.bool_]:
    """Which stored values are padding around a picture that is not rectangular (PS3.3, C.7.5.1.1.2)."""
    first = sample(ds, "PixelPaddingValue", order, signed)
    last = sample(ds, "PixelPaddingRangeLimit", order, signed)
    if first is None:
        return np.zeros(len(values), np.bool_)
    low, high = sorted((first, first if last is None else last))
    return np.asarray((values >= low) & (values <= high))


def _modality(values: NDArray[Any], ds: Any, order: str, pixels: Any) -> NDArray[np.float64]:
    if ds.get("ModalityLUTSequence"):
        return _looked_up(values, ds.ModalityLUTSequence[0], order)[0]
    output = np.asarray(pixels.apply_rescale(values, ds), np.float64)
    if not np.isfinite(output).all():
        raise DicomError("is damaged: its rescale slope or intercept is no number")
    return output


def _of_interest(
    values: NDArray[np.float64], ds: Any, order: str, pixels: Any
) -> tuple[NDArray[np.float64] | None, list[Notice]]:
    """The values from 0, dark, to 1, bright, by the VOI LUT or the first window; None without either."""
    tables = ds.get("VOILUTSequence")
    if tables and tables[0].get("LUTData") is not None:
        seen, bits = _looked_up(values, tables[0], order)
        return seen / (2**bits - 1), []
    if ds.get("WindowCenter") in (None, "") or ds.get("WindowWidth") in (None, ""):
        return None, []
    # Two values beyond all others show the range of the window's output.
    ends = np.array([-1e30, 1e30])
    try:
        seen = pixels.apply_windowing(np.concatenate([values, ends]), ds)
    except ValueError:  # a width below 1, a function that the standard does not have
        return None, [Notice(Code.INVALID_WINDOW)]
    low, high = seen[-2:]
    if not np.isfinite([low, high]).all() or low == high:
        return None, [Notice(Code.INVALID_WINDOW)]
    return (seen[:-2] - low) / (high - low), []


def _looked_up(values: NDArray[Any], item: Any, order: str) -> tuple[NDArray[np.float64], int]:
    """Values through a lookup table, and its bits (PS3.3, C.11.1.1 and C.11.2.1.1).

    pydicom's own functions misread tables of 8 bits with more than 256 entries.
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 2**16
    if first >= 2**15 and values.min() < 0:  # read as unsigned where it was signed
        first -= 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        entries = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
        if len(entries) < count <= len(data) and bits <= 8:
            entries = np.frombuffer(data, np.uint8)  # two in a word
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64))
    if len(entries) < count or not 1 <= bits <= 16:
        raise DicomError("is damaged: a lookup table is not whole")
    at = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return entries[:count].astype(np.float64)[at], bits


def _full_range(
    stored: NDArray[Any],
    values: NDArray[Any],
    output: NDArray[np.float64],
    padding: NDArray[np.bool_],
    layout: DicomLayout,
) -> tuple[float, float]:
    """The least and the greatest output: of all values of up to 8 bits, of the frame's values for more bits."""
    if layout.stored <= 8:
        half = 2 ** (layout.stored - 1)
        counted = (values >= (-half if layout.signed else 0)) & (values < (half if layout.signed else 2 * half))
    else:
        counted = np.zeros(len(values), np.bool_)
        for _, positions in _positions(stored):
            counted[positions] = True
        counted &= ~padding
    present = output[counted] if counted.any() else output[:1]
    return float(present.min()), float(present.max())


def colours(stored: NDArray[Any], ds: Any, layout: DicomLayout, pixels: Any) -> NDArray[np.uint8]:
    """BGR (H, W, 3)."""
    bits = layout.stored
    if layout.photometric == PALETTE:
        stored = pixels.apply_color_lut(stored, ds)[..., :3]
        bits = 8 * stored.dtype.itemsize
    if bits != 8:
        levels = np.rint(np.minimum(np.arange(2**16) * (255 / (2**bits - 1)), 255)).astype(np.uint8)
        stored = levels[stored.astype(np.uint16)]
    return np.asarray(stored[..., ::-1], np.uint8)
