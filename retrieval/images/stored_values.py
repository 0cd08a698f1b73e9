"""How a DICOM picture's values are really stored, where that and its header contradict each other.

Neighbours in a radiograph are alike. So which bits belong to the values, the order of their bytes and the length of a
row are chosen by which of the possible readings makes neighbours most alike.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.images.colours import channel_range
from retrieval.images.dicom_header import DicomLayout, sample
from retrieval.notices import Code, Notice

__all__ = [
    "byte_swapped",
    "lacks_sign",
    "padded_beyond",
    "read_in_planes",
    "size_by_pixels",
    "without_unused_bits",
    "zeros_at_the_end",
]

_ROWS_COMPARED = 512
_PIXELS_COMPARED = 200_000
_ROWS_FOR_ORDER, _ROWS_FOR_SIGN = 64, 128
_GREY = 0.9
_EDGE, _FEWEST_ZEROS = 20, 0.02
_FEWEST_STEPS = 0.05
_LEAST_SIDE = 16  # of a picture whose neighbours tell how its colours are stored
_SMOOTHER = 0.1  # the least share of such values; 0.27 or more in real radiographs, 0 in drawings
_RANDOM = 0.5  # the `_unlikeness` of a picture is less, that of random values 1.1
_COMB = 1.5  # the difference of next rows beside that of rows after the next: 1 at most, but in a comb
_NEARER = 0.98  # the difference of the halves of rows beside that of rows: 1.12 or more in noise, far more without
_FEWEST_CROSSINGS, _ALIKE = 0.001, 0.05  # of all neighbours; of the range of the values


def without_unused_bits(stored: NDArray[Any], layout: DicomLayout) -> tuple[NDArray[Any], DicomLayout, list[Notice]]:
    """The values (H, W) among the bits that are stored, as the header says or, where that cannot be, as the values say.

    Bits above Bits Stored belong to the values if these are smoother with them, and to a drawing if not. Values have no
    sign if they are much smoother without it, and have one if neighbours jump from one end of the range to the other.
    """
    container, notices = 8 * stored.dtype.itemsize, []
    if layout.stored > container:  # a recompressed picture
        layout = replace(layout, stored=container, high=container - 1)
    lowest = layout.high + 1 - layout.stored
    if lowest > 0 and layout.high < layout.allocated and not np.bitwise_or.reduce(stored, axis=None) & (2**lowest - 1):
        stored = stored >> lowest
    elif lowest:
        notices.append(Notice(Code.CONTRADICTORY_BITS))
        smaller = min(layout.stored, layout.high + 1)
        layout = replace(layout, stored=smaller if _fits(stored, smaller, layout.signed) else layout.allocated)
    if _fits(stored, layout.stored, layout.signed):
        if not layout.signed:
            return _with_missing_sign(stored, layout, notices)
        if stored.min() >= 0:
            return stored, layout, notices
        plain = stored.view(f"u{stored.dtype.itemsize}") & (2**layout.stored - 1)
        sample, unsigned = (_some_rows(values, _ROWS_FOR_SIGN) for values in (stored, plain))
        if 2 * _roughness(plain) >= _roughness(stored) and not _wraps(sample, unsigned, sample < 0):
            return stored, layout, notices
        return plain, replace(layout, signed=False), [*notices, Notice(Code.CONTRADICTORY_BITS)]
    unused = container - layout.stored
    masked = (stored << unused) >> unused
    # Of negative values, the copies of the sign above the stored bits may be missing.
    unextended = layout.signed and stored.max() < 2**layout.stored and stored.min() >= -(2 ** (layout.stored - 1))
    smoother = _roughness(stored) < _roughness(masked) if unextended else _goes_on(stored, masked)
    if smoother:
        return stored, replace(layout, stored=layout.allocated), [*notices, Notice(Code.VALUES_BEYOND_BITS)]
    if not all(bit in layout.overlay_bits for bit in _bits_beyond(stored, layout.stored)):
        notices.append(Notice(Code.STRAY_BITS))
    return (masked, layout, notices) if layout.signed else _with_missing_sign(masked, layout, notices)


def _goes_on(stored: NDArray[Any], masked: NDArray[Any]) -> bool:
    """Whether the bits that `masked` lacks belong to the values.

    Then many values change less where these bits change than they do without them, which a drawing never does. Where so
    many bits are missing that nothing of the picture is left, what is left looks random.
    """
    sample, masked_sample = _some_rows(stored), _some_rows(masked)
    changed = np.diff(sample - masked_sample, axis=1) != 0
    if not changed.any():
        return False
    steps, jumps = (np.abs(np.diff(rows, axis=1))[changed] for rows in (sample, masked_sample))
    return (steps < jumps).mean() > _SMOOTHER or _unlikeness(masked_sample) > max(_RANDOM, 2 * _unlikeness(sample))


def _with_missing_sign(
    stored: NDArray[Any], layout: DicomLayout, notices: list[Notice]
) -> tuple[NDArray[Any], DicomLayout, list[Notice]]:
    """The values with a sign that the header does not tell of, if neighbours say so."""
    half = 2 ** (layout.stored - 1)
    if not lacks_sign(stored, layout.stored):
        return stored, layout, notices
    values = (stored.astype(np.int32) ^ half) - half
    kind = f"i{stored.dtype.itemsize}"
    return values.astype(kind), replace(layout, signed=True), [*notices, Notice(Code.CONTRADICTORY_BITS)]


def lacks_sign(stored: NDArray[Any], bits: int) -> bool:
    """Whether values (H, W) of some bits that were taken for unsigned have a sign."""
    half = 2 ** (bits - 1)
    sample = _some_rows(stored, _ROWS_FOR_SIGN)
    return _wraps(sample, (sample ^ half) - half, sample >= half)


def _wraps(values: NDArray[np.int32], alternative: NDArray[np.int32], upper: NDArray[np.bool_]) -> bool:
    """Whether values (H, W) are rather the `alternative` ones, which differ where the highest bit is set, in `upper`.

    Then neighbours of which one has that bit lie at the two ends of the range. A marker or frame at the end of the
    range beside black does so, too, but its pixels are alike.
    """
    crossing = upper[:, 1:] != upper[:, :-1]
    if not crossing.any() or crossing.mean() < _FEWEST_CROSSINGS:
        return False
    # Values that wrap around at the end of the range jump at every other crossing.
    sizes = ((values, 0.25), (alternative, 0.5))
    jumps, steps = (np.quantile(np.abs(np.diff(rows, axis=1))[crossing], share) for rows, share in sizes)
    (least, most), (low, high) = (np.quantile(rows, (0.05, 0.95)) for rows in (alternative[upper], alternative))
    return bool(8 * steps <= jumps and most - least >= _ALIKE * (max(most, high) - min(least, low)))


def _some_rows(stored: NDArray[Any], most: int = _ROWS_COMPARED) -> NDArray[np.int32]:
    return np.asarray(stored[:: max(1, len(stored) // most)], np.int32)


def byte_swapped(stored: NDArray[Any]) -> bool:
    """Whether the two bytes of each value (H, W) are stored in the wrong order.

    Then neighbours are much more alike, beside the range of all values, with the bytes in the other order.
    """
    if stored.dtype.itemsize != 2:
        return False
    sample = stored[:: max(1, len(stored) // _ROWS_FOR_ORDER)]
    if not np.count_nonzero(sample[:, 1:] != sample[:, :-1]) > _FEWEST_STEPS * sample.size:  # a few pixels tell nothing
        return False
    return 2 * _unlikeness(sample.byteswap()) < _unlikeness(sample)


def _unlikeness(stored: NDArray[Any]) -> float:
    """The mean difference of neighbours in a row, beside the standard deviation of all: 1.1 for random values."""
    deviation = float(stored.std())
    return float(np.abs(np.diff(stored.astype(np.int32), axis=1)).mean()) / deviation if deviation else 0.0


def zeros_at_the_end(stored: NDArray[Any]) -> float:
    """The share of an uncompressed picture (H, W) that is filled with zeros as its file was not copied whole; else 0.

    Such zeros begin in the middle of a row, below pixels that are not zero.
    """
    rows, columns = stored.shape[:2]
    nonzero = stored.reshape(rows * columns, -1)[:, 0] != 0
    end = nonzero.size - int(np.argmax(nonzero[::-1]))
    row, column = divmod(end, columns)
    filled = 1 - end / nonzero.size
    if not (row and columns <= _EDGE * column <= (_EDGE - 1) * columns and filled > _FEWEST_ZEROS and nonzero[end - 1]):
        return 0.0
    beside, above = nonzero[row * columns : end], nonzero[end - columns : row * columns]
    return filled if min(beside.mean(), above.mean()) > _GREY else 0.0


def size_by_pixels(stored: NDArray[Any]) -> tuple[int, int]:
    """Rows and columns as the pixels of an uncompressed picture say, where its header is wrong and the picture sheared.

    Rows and Columns are exchanged if a pixel is much more like the one that is as many pixels on as the picture has
    rows than like the one below. Multiples of that distance, up to a row, are looked at as well: in a picture that only
    changes from row to row, one of them reaches at least half into the next row, so it is never called exchanged.

    Or one of them is half of what it should be, and the other double: then the row after the next is more alike than
    the next one, or the two halves of each row follow each other like rows do, and its quarters do not. Rows that are
    all the same as those after the next are a drawing's.
    """
    rows, columns = stored.shape[:2]
    flat = stored.reshape(rows * columns, -1)[:, 0]
    below, next_but_one = _difference(flat, columns), _difference(flat, 2 * columns)
    steps = [step * rows for step in range(1, max(1, round(columns / rows)) + 1)]
    other = max(_difference(flat, step) for step in steps)
    small = min(rows, columns) < _LEAST_SIDE
    if not small and rows % 2 == 0 and below > _COMB * next_but_one and 0 < next_but_one < other:
        return rows // 2, 2 * columns
    if rows != columns and below > 2 * other:
        return columns, rows
    if small:
        return rows, columns
    if columns % 2 == 0 and _difference(flat, columns // 4) > below and _are_rows(flat.reshape(2 * rows, columns // 2)):
        return 2 * rows, columns // 2
    return rows, columns


def _are_rows(halves: NDArray[Any]) -> bool:
    """Whether the halves of rows are rows: each more like the next one than like the one after it.

    Of a right picture the right half of a row is as unlike the next left half as the two halves of one row are.
    """
    for first in (0, 1):
        picked = np.arange(first, len(halves) - 2, 2 * max(1, len(halves) // 2 // _ROWS_FOR_SIGN))
        own, after, later = (halves[picked + on].astype(np.int32) for on in range(3))
        if np.abs(own - after).mean() >= _NEARER * np.abs(own - later).mean():
            return False
    return True


def read_in_planes(stored: NDArray[Any], planar: bool, luminance: bool) -> bool:
    """Whether the samples of an uncompressed picture (H, W, 3) lie in planes.

    `planar` is what its header says, and counts where nothing else decides, as in a tiny picture. `luminance` says that
    the first sample of a pixel is unlike the others, so that neighbours are alike in planes alone. Otherwise, in
    planes, a sample is more like the one that comes a row of pixels later than the one after three rows. That is also
    so where a picture changes from row to row alone, so most samples must be more like those a plane later than their
    neighbours as well.
    """
    rows, columns = stored.shape[:2]
    if min(rows, columns) < _LEAST_SIDE:
        return planar
    flat = np.ascontiguousarray(stored.transpose(2, 0, 1) if planar else stored).reshape(-1)
    if luminance and (planar or not _grey(stored)):
        nearer, farther, votes = _difference(flat, 1), _difference(flat, 3), 0
    else:
        nearer, farther = _difference(flat, columns), _difference(flat, 3 * columns)
        votes = _more_alike(flat, rows * columns)
    if nearer < farther and votes >= 0:
        return planar or luminance or votes > 0
    return planar and not (nearer > farther and votes <= 0)


def _grey(stored: NDArray[Any]) -> bool:
    """Whether the samples (H, W, 3) of almost all pixels are equal, whatever colour space the header says."""
    sample = _some_rows(stored)
    return bool((channel_range(sample) == 0).mean() > _GREY)


def _more_alike(flat: NDArray[Any], distance: int) -> int:
    """How many samples more are nearer to the sample at a distance than to the next one, than the other way round."""
    left = flat.size - distance
    step = -(-left // _PIXELS_COMPARED)
    sample = flat[:left:step].astype(np.int32)
    far, near = (np.abs(sample - flat[at : at + left : step]) for at in (distance, 1))
    return int((far < near).sum()) - int((near < far).sum())


def _difference(flat: NDArray[Any], distance: int) -> float:
    """The mean difference of some pixels and those that come `distance` pixels later; 0 where there are none."""
    left = flat.size - distance
    if left <= 0:
        return 0.0
    step = -(-left // _PIXELS_COMPARED)
    return float(np.abs(flat[:left:step].astype(np.int32) - flat[distance::step]).mean())


def padded_beyond(stored: NDArray[Any], ds: Any, layout: DicomLayout) -> NDArray[np.bool_] | None:
    """Which pixels (H, W) are padding, if its value needs more bits than are stored; None if there are none."""
    order = "<" if ds.original_encoding[1] else ">"
    ends = [sample(ds, keyword, order, layout.signed) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    values = np.array([end for end in ends if end is not None])
    if ends[0] is None or _fits(values, layout.stored, layout.signed):
        return None
    padding = (stored >= values.min()) & (stored <= values.max())
    return padding if padding.any() and not padding.all() else None


def _fits(stored: NDArray[Any], bits: int, signed: bool) -> bool:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return bool(stored.min() >= least and stored.max() <= most)


def _bits_beyond(stored: NDArray[Any], bits: int) -> list[int]:
    used = int(np.bitwise_or.reduce(stored, axis=None))
    return [bit for bit in range(bits, 8 * stored.dtype.itemsize) if used >> bit & 1]


def _roughness(stored: NDArray[Any]) -> float:
    """The mean difference of neighbours in a row."""
    rows = _some_rows(stored)
    return float(np.abs(np.diff(rows, axis=1)).mean()) if rows.shape[1] > 1 else 0.0
