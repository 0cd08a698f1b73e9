"""From stored values to what a radiologist sees (PS3.3, C.7.6.3, C.11.1 Modality LUT, C.11.2 VOI LUT, C.11.6).

Stored values have at most 16 bits, so grey levels are computed once for each possible value, then looked up. `pixels`
is pydicom's module of that name, which only `retrieval.images.dicom_reader` imports.
"""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.images.colours import STRONGLY_COLOURED, colourfulness, some_pixels
from retrieval.images.dicom_header import PALETTE, DicomError, DicomLayout, numbers, sample, text
from retrieval.images.grey_range import all_values, count_values, look_up, robust_range, shows_little
from retrieval.images.windows import GreyValues, Spacing, Window
from retrieval.notices import Code, Notice

__all__ = [
    "colours",
    "grey_levels",
    "grey_values",
    "spacing_of",
    "squared",
]

_MOST_GREY = 8  # the mean difference between the channels of a grey picture
_MOST_OUTPUT = 1e30  # of a rescale; differences of larger numbers may overflow
_SQUARE, _MOST_STRETCHED = 0.02, 10  # pixels that differ less count as square; more cannot be true

Values = NDArray[np.float64]


def grey_levels(stored: NDArray[Any], ds: Any, layout: DicomLayout) -> tuple[NDArray[np.uint8], list[Notice]]:
    """Grey levels (H, W) as a radiologist sees them, and what to know about them."""
    values = all_values(stored)
    order = "<" if ds.original_encoding[1] else ">"
    padding = _padding(values, ds, order, layout.signed)
    counts = np.where(padding, 0, count_values(stored))
    output, notices = _modality(values, ds, order)
    seen, doubts = _of_interest(output, counts, ds, order)
    if seen is None:
        unfit = any(doubt.code == Code.UNFIT_WINDOW for doubt in doubts)
        low, high, outliers = _range(values, output, counts, None if unfit else layout)
        seen = np.clip((output - low) / (high - low if high > low else 1), 0, 1)
        doubts += [Notice(Code.OUTLIERS)] if outliers else []
    levels = np.rint(seen * 255).astype(np.uint8)
    if _inverted(ds, layout):
        levels = 255 - levels
    levels[padding] = 0
    return look_up(levels, stored), notices + doubts


def grey_values(stored: NDArray[Any], ds: Any, layout: DicomLayout) -> GreyValues:
    """The values (H, W) after the Modality LUT, with the file's windows, the one that `grey_levels` takes first.

    A VOI LUT and a sigmoid are stood in for by the linear window with the same ends. Padding gets the darkest value.
    """
    values = all_values(stored)
    order = "<" if ds.original_encoding[1] else ">"
    padding = _padding(values, ds, order, layout.signed)
    counts = np.where(padding, 0, count_values(stored))
    output, _ = _modality(values, ds, order)
    present = counts > 0
    if not present.any():
        present[:] = True
    linear = list(_linear_windows(output, counts, present, ds, order))
    windows = [window for fits, window in linear if fits] + [window for fits, window in linear if not fits]
    if not any(fits for fits, _ in linear):
        low, high, _ = _range(values, output, counts, layout)
        windows.insert(0, Window.between("as read", low, high))
    inverted = _inverted(ds, layout)
    darkest = output[present].max() if inverted else output[present].min()
    output = np.where(padding, darkest, output)
    slope, intercept, raw = 1.0, float(output[present].min()), output - output[present].min()
    if not ds.get("ModalityLUTSequence"):
        slopes = numbers(ds, "RescaleSlope")
        slope = abs(slopes[0]) if slopes and slopes[0] else 1.0
        raw = raw / slope
    table = np.clip(np.rint(raw), 0, 65535).astype(np.uint16)
    shown = table[stored.astype(np.intp) - np.iinfo(stored.dtype).min]
    values_8 = shown.astype(np.uint8) if layout.stored <= 8 and int(shown.max()) < 256 else shown
    return GreyValues(values_8, layout.stored, slope, intercept, inverted, tuple(windows))


def _linear_windows(
    output: Values, counts: NDArray[np.int64], present: NDArray[np.bool_], ds: Any, order: str
) -> Iterator[tuple[bool, Window]]:
    """The file's windows as linear ones, and whether each fits the values.

    Their explanations are free text, which may name anybody; so they have numbers.
    """
    function = text(ds, "VOILUTFunction").upper() or "LINEAR"
    tables = [item for item in ds.get("VOILUTSequence") or [] if item.get("LUTData") is not None]
    centers, widths = numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth")
    for number, (seen, _) in enumerate(_windows(output, ds, order)):
        if seen is None:
            continue
        at = number - len(tables)
        if at >= 0 and at < min(len(centers), len(widths)) and function != "SIGMOID":
            center, width = float(centers[at] or 0), float(widths[at] or 1)
            exact = function == "LINEAR_EXACT"
            window = Window("", center + exact / 2, max(width + exact, 1 + 1e-6))
        else:
            shown = output[present & (seen > 0.005) & (seen < 0.995)]
            if not shown.size:
                continue
            window = Window.between("", float(shown.min()), float(shown.max()))
        fits = not shows_little(seen, output, counts)
        name = f"file's {'table' if at < 0 else 'window'} {number + 1}"
        yield fits, Window(name if fits else f"{name} (does not fit)", window.center, window.width)


def _inverted(ds: Any, layout: DicomLayout) -> bool:
    return layout.photometric == "MONOCHROME1" or text(ds, "PresentationLUTShape").upper() == "INVERSE"


def spacing_of(ds: Any, shape: tuple[int, ...], most_pixels: int) -> Spacing | None:
    """The side of a pixel after `squared`; None where the header has none that can be true.

    A Pixel Spacing that equals the detector's, without a calibration, is the detector's.
    """
    at_detector = numbers(ds, "ImagerPixelSpacing")
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        sizes = [size for size in numbers(ds, keyword) if size is not None and size > 0]
        if len(sizes) == 2:
            rows, columns = sizes
            ratio = max(rows / columns, columns / rows)
            if ratio > _MOST_STRETCHED:
                return None
            stretched = shape[0] * shape[1] * ratio <= most_pixels
            side = min(rows, columns) if stretched else max(rows, columns)
            calibrated = bool(text(ds, "PixelSpacingCalibrationType"))
            if keyword == "NominalScannedPixelSpacing":
                return Spacing(side, "on the film")
            if keyword == "ImagerPixelSpacing" or (sizes == at_detector and not calibrated):
                return Spacing(side, "at the detector")
            return Spacing(side)
    return None


def _padding(values: Values, ds: Any, order: str, signed: bool) -> NDArray[np.bool_]:
    """Which stored values are padding around a picture that is not rectangular (PS3.3, C.7.5.1.1.2)."""
    first = sample(ds, "PixelPaddingValue", order, signed)
    last = sample(ds, "PixelPaddingRangeLimit", order, signed)
    if first is None:
        return np.zeros(len(values), np.bool_)
    low, high = sorted((first, first if last is None else last))
    return np.asarray((values >= low) & (values <= high))


def _modality(values: Values, ds: Any, order: str) -> tuple[Values, list[Notice]]:
    for item in ds.get("ModalityLUTSequence") or []:
        if item.get("LUTData") is not None:
            output = _looked_up(values, item, order)[0]
            flat = output.min() == output.max()
            return (values, [Notice(Code.INVALID_RESCALE)]) if flat else (output, [])
    slopes, intercepts = numbers(ds, "RescaleSlope") or [1.0], numbers(ds, "RescaleIntercept") or [0.0]
    slope, intercept = slopes[0], intercepts[0]
    most = float(np.abs(values).max())
    if not slope or intercept is None or not abs(slope) * most + abs(intercept) < _MOST_OUTPUT:
        return values, [Notice(Code.INVALID_RESCALE)]
    several = len(set(slopes)) > 1 or len(set(intercepts)) > 1
    return values * slope + intercept, [Notice(Code.SEVERAL_RESCALES)] if several else []


def _of_interest(output: Values, counts: NDArray[np.int64], ds: Any, order: str) -> tuple[Values | None, list[Notice]]:
    """The values from 0, dark, to 1, bright, by the first VOI LUT or window that fits them; None where none does."""
    doubts: list[Code] = []
    for seen, notices in _windows(output, ds, order):
        if seen is None or shows_little(seen, output, counts):
            doubts.append(Code.INVALID_WINDOW if seen is None else Code.UNFIT_WINDOW)
            continue
        return seen, [*notices, *_instead(doubts, "another of its windows")]
    return None, _instead(doubts, "its full range")


def _instead(doubts: list[Code], shown: str) -> list[Notice]:
    return [Notice(code, detail={"instead": shown}) for code in dict.fromkeys(doubts)]


def _windows(output: Values, ds: Any, order: str) -> Iterator[tuple[Values | None, list[Notice]]]:
    """What each VOI LUT, then each window, makes of the values, 0 to 1, with notices; None for an invalid one."""
    for item in ds.get("VOILUTSequence") or []:
        if item.get("LUTData") is not None:
            try:
                entries, declared, needed = _looked_up(output, item, order)
            except (DicomError, TypeError, ValueError):  # not whole, or its descriptor is not three numbers
                yield None, []
                continue
            notices = [] if needed == declared else [Notice(Code.TABLE_BITS, detail={"bits": needed})]
            yield entries / (2**needed - 1), notices
    function = text(ds, "VOILUTFunction").upper() or "LINEAR"
    centers, widths = numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth")
    valid = [number for number in centers if number is not None], [number for number in widths if number is not None]
    if (len(centers), len(widths)) != (len(valid[0]), len(valid[1])) or bool(centers) != bool(widths):
        yield None, []
    for center, width in zip(*valid, strict=False):
        yield _windowed(output, center, width, function), []


def _windowed(output: Values, center: float, width: float, function: str) -> Values | None:
    """The values through a window, 0 to 1 (PS3.3, C.11.2.1.2 and C.11.2.1.3); None for an invalid one."""
    if function == "LINEAR" and width > 1:
        seen = (output - center + 0.5) / (width - 1) + 0.5
    elif function == "LINEAR" and width == 1:
        seen = np.where(output > center - 0.5, 1.0, 0.0)
    elif function == "LINEAR_EXACT" and width > 0:
        seen = (output - center) / width + 0.5
    elif function == "SIGMOID" and width > 0:
        seen = 1 / (1 + np.exp(np.clip(-4 * (output - center) / width, -500, 500)))
    else:
        return None
    return np.clip(seen, 0, 1)


def _looked_up(values: Values, item: Any, order: str) -> tuple[Values, int, int]:
    """Values through a lookup table, its declared bits, and those that its entries need (PS3.3, C.11.1.1, C.11.2.1.1).

    pydicom's own functions misread tables of 8 bits with more than 256 entries.
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 2**16
    if first >= 2**15 and values.min() < 0:  # read as unsigned where it was signed
        first -= 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        entries: NDArray[Any] = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
        if len(entries) < count <= len(data) and bits <= 8:
            entries = np.frombuffer(data, np.uint8)  # two in a word
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64))
    if len(entries) < count or not 1 <= bits <= 16:
        raise DicomError("is damaged: a lookup table is incomplete")
    at = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return entries[:count].astype(np.float64)[at], bits, max(1, int(entries[:count].max()).bit_length())


def _range(
    values: Values, output: Values, counts: NDArray[np.int64], layout: DicomLayout | None
) -> tuple[float, float, bool]:
    """The outputs that become black and white, and whether outliers were left out.

    Those of all possible values, where `layout` has up to 8 bits; else those of the frame's values.
    """
    if layout is not None and layout.stored <= 8:
        half = 2 ** (layout.stored - 1)
        possible = output[
            (values >= (-half if layout.signed else 0)) & (values < (half if layout.signed else 2 * half))
        ]
        return float(possible.min()), float(possible.max()), False
    ascending = np.argsort(output, kind="stable")
    return robust_range(output[ascending], counts[ascending])


def colours(stored: NDArray[Any], ds: Any, layout: DicomLayout, pixels: Any) -> tuple[NDArray[np.uint8], list[Notice]]:
    """BGR (H, W, 3), and what to know about it. `stored` is as decoded; `layout.photometric` says what that is."""
    if layout.photometric == PALETTE:
        values = np.arange(2**layout.stored, dtype=stored.dtype)
        table = _scaled(pixels.apply_color_lut(values, ds)[:, :3])
        return np.dstack([look_up(_padded(table[:, channel], stored), stored) for channel in (2, 1, 0)]), []
    samples = _scaled(stored, layout.stored)
    sample = some_pixels(samples)
    colourful = {
        False: colourfulness(sample),
        True: colourfulness(pixels.convert_color_space(sample, "YBR_FULL", "RGB")),
    }
    ybr, notices = layout.photometric.startswith("YBR_FULL"), []
    if colourful[ybr] > _MOST_GREY >= colourful[not ybr]:
        ybr = not ybr
        notices.append(Notice(Code.CONTRADICTORY_COLOURS))
    elif colourful[ybr] > STRONGLY_COLOURED:
        notices.append(Notice(Code.COLOURED))
    rgb = pixels.convert_color_space(samples, "YBR_FULL", "RGB") if ybr else samples
    return np.asarray(rgb[..., ::-1], np.uint8), notices


def _scaled(stored: NDArray[Any], bits: int = 0) -> NDArray[np.uint8]:
    """Samples of some bits, by default as many as the greatest needs, in 8 bits."""
    bits = bits or max(8, int(stored.max()).bit_length())
    if bits == 8:
        return stored.astype(np.uint8)
    levels = np.rint(np.minimum(np.arange(2 ** (8 * stored.dtype.itemsize)) * (255 / (2**bits - 1)), 255))
    return look_up(levels.astype(np.uint8), stored)


def _padded(table: NDArray[np.uint8], stored: NDArray[Any]) -> NDArray[np.uint8]:
    """The table with an entry for each value of the type of `stored`."""
    size = 2 ** (8 * stored.dtype.itemsize)
    return np.concatenate([table, np.full(size - len(table), table[-1])])


def squared(picture: NDArray[Any], ds: Any, most_pixels: int) -> NDArray[Any]:
    """The picture (H, W) or (H, W, 3) with square pixels: the axis whose pixels lie farther apart is stretched.

    Where that gives more than `most_pixels`, the other axis is shrunk.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        sizes = numbers(ds, keyword)
        if len(sizes) == 2 and sizes[0] and sizes[1] and min(sizes[0], sizes[1]) > 0:
            height, width = picture.shape[:2]
            ratio = sizes[0] / sizes[1]
            if 1 + _SQUARE < max(ratio, 1 / ratio) <= _MOST_STRETCHED:
                stretched = height * width * max(ratio, 1 / ratio) <= most_pixels
                if (ratio > 1) == stretched:
                    height = max(1, round(height * ratio))
                else:
                    width = max(1, round(width / ratio))
                interpolation = cv2.INTER_LINEAR if stretched else cv2.INTER_AREA
                return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation), picture.dtype)
            return picture
    return picture
