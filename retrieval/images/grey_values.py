"""A radiograph's own grey values with all their bits, for a viewer that windows them.

An encoder gets 8 bits (`retrieval.images.radiograph`); a radiologist who changes the window needs what the file holds.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.images.colours import channel_range
from retrieval.images.grey_range import all_values, count_values, robust_range
from retrieval.images.image_header import HeaderError
from retrieval.images.limb import limb_mask
from retrieval.images.radiograph import MAX_BYTES, MAX_MEMORY, MAX_PIXELS, file_and_frame, holds_dicom, read_bytes
from retrieval.images.raster_headers import read_header
from retrieval.images.raster_reader import read_raster_values
from retrieval.images.windows import GreyValues, Spacing, Window
from retrieval.wording import printable

__all__ = ["decode_grey_values", "deeper_than_pixels", "grey_values_of", "read_grey_values", "shrunk", "with_presets"]

_BONE = 0.45, 0.998  # quantiles of the values on the limb that a window spans
_SOFT_TISSUE = 0.02, 0.65
_MOST_COUNTED = 2**20  # pixels for the quantiles


def grey_values_of(pixels: NDArray[np.uint8]) -> GreyValues:
    """The values of a radiograph of 8 bits, (H, W) grey or (H, W, 3) BGR as read; colours become grey."""
    colour = pixels.ndim == 3
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if colour else pixels, np.uint8)
    coloured = colour and bool(channel_range(pixels[::8, ::8]).max() > 0)
    plain = GreyValues(grey, 8, windows=(Window("as read", 128.0, 256.0),), colour=coloured)
    return with_presets(plain, pixels)


def read_grey_values(path: Path, name: str, frame: int = 0) -> GreyValues:
    """As `decode_grey_values`, for a file of this machine. Raises RadiographError."""
    file, named_frame = file_and_frame(path)
    return decode_grey_values(read_bytes(file, printable(name)), name, named_frame or frame)


def decode_grey_values(data: bytes, name: str, frame: int = 0) -> GreyValues:
    """The values in a file's bytes; of DICOM the frame, counted from 1, where 0 and 1 mean the first one.

    Raises RadiographError as `decode_radiograph` does, MissingExtra for DICOM without the extra.
    """
    shown = printable(name)
    try:
        if holds_dicom(data, Path(name).suffix):
            from retrieval.images.dicom_reader import read_values

            values, pixels = read_values(data, max(1, frame), MAX_BYTES, MAX_PIXELS)
            return with_presets(values, pixels)
        stored, white_is_zero = read_raster_values(data, MAX_PIXELS, MAX_MEMORY)
    except ValueError as error:  # RasterError or DicomError
        raise RadiographError(f"{shown} {error}") from None
    return _of_raster(stored, white_is_zero)


def deeper_than_pixels(data: bytes, name: str) -> bool:
    """Whether a file may hold more than the 8 bits of `Radiograph.pixels`, or a header with windows and spacing."""
    if holds_dicom(data, Path(name).suffix):
        return True
    try:
        header = read_header(data)
    except HeaderError:
        return False
    return header is not None and header.depth > 1


def shrunk(grey: GreyValues, longest: int) -> GreyValues:
    """The values with at most `longest` pixels on the long side; the spacing grows with it."""
    height, width = grey.values.shape
    scale = longest / max(height, width)
    if scale >= 1:
        return grey
    size = max(1, round(width * scale)), max(1, round(height * scale))
    values = np.asarray(cv2.resize(grey.values, size, interpolation=cv2.INTER_AREA), grey.values.dtype)
    spacing = grey.spacing and Spacing(grey.spacing.millimetres * width / size[0], grey.spacing.where)
    return replace(grey, values=values, spacing=spacing)


def with_presets(grey: GreyValues, pixels: NDArray[np.uint8]) -> GreyValues:
    """The values with three more windows: bone and soft tissue by what lies on the limb, and the full range.

    Radiographs have no absolute units, so the first two are quantiles of the values where `pixels`, the radiograph of
    8 bits, shows a limb.
    """
    step = 1 + int(np.sqrt(grey.values.size / _MOST_COUNTED))
    sample = grey.values[::step, ::step].astype(np.float64) * grey.slope + grey.intercept
    on_limb = sample[limb_mask(pixels)[::step, ::step]] if pixels.shape[:2] == grey.values.shape else sample.ravel()
    # A quantile counts from dark to bright, whichever end of the values is dark.
    ranked = np.sort(-on_limb if grey.inverted else on_limb)

    def at(share: float) -> float:
        value = float(ranked[min(len(ranked) - 1, int(share * len(ranked)))])
        return -value if grey.inverted else value

    presets = [
        Window.between(name, *sorted((at(low), at(high))))
        for name, (low, high) in (("bone", _BONE), ("soft tissue", _SOFT_TISSUE))
    ]
    ends = [
        float(grey.values.min()) * grey.slope + grey.intercept,
        float(grey.values.max()) * grey.slope + grey.intercept,
    ]
    presets.append(Window.between("full range", *sorted(ends)))
    return replace(grey, windows=(*grey.windows, *presets))


def _of_raster(stored: NDArray[Any], white_is_zero: bool) -> GreyValues:
    if stored.dtype == np.uint8:
        return grey_values_of(stored)
    colour = stored.ndim == 3
    if stored.dtype != np.uint16:
        stored, slope, intercept = _as_16_bits(stored)
    else:
        slope, intercept = 1.0, 0.0
    grey = np.asarray(cv2.cvtColor(stored, cv2.COLOR_BGR2GRAY) if colour else stored, np.uint16)
    low, high, _ = robust_range(all_values(grey), count_values(grey))
    window = Window.between("as read", low * slope + intercept, high * slope + intercept)
    plain = GreyValues(grey, 16, slope, intercept, white_is_zero, (window,))
    levels = np.clip((grey.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    eight = np.rint(255 * (1 - levels if white_is_zero else levels)).astype(np.uint8)
    return with_presets(plain, eight)


def _as_16_bits(stored: NDArray[Any]) -> tuple[NDArray[np.uint16], float, float]:
    """Numbers of another type in 65,536 steps between their ends, with slope and intercept."""
    finite = np.where(np.isfinite(stored) & (np.abs(stored) < 1e30), stored, 0).astype(np.float64)
    low, high = float(finite.min()), float(finite.max())
    slope = max(high - low, 1e-12) / 65535
    return np.rint((finite - low) / slope).astype(np.uint16), slope, low
