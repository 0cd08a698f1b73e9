"""Which values of a radiograph become black and which white: one rule for DICOM, PNG and TIFF of more than 8 bits.

Integers of up to 16 bits are counted once for each possible value; `values` are then all of these, ascending, and
`counts` how many pixels have each.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["all_values", "count_values", "look_up", "robust_range", "shows_little"]

_PIXELS_AT_ONCE = 2**20  # a position takes eight bytes
_ENDS = 0.001  # the share of pixels, at either end, that the range leaves out
_TAILS = 0.03  # the largest share of pixels, at either end, that can be outliers
_LARGEST_FRAME = 0.4  # the largest share of pixels of one value that can be outliers
_FAR = 1.5  # outliers are farther from the others than this many times their range

_MOST_LOST, _LEAST_LEVELS = 0.13, 64  # of a window that fits
_MOST_CUT, _WIDEST_CUT = 0.08, 0.5  # the share of the pixels, and of the range, that one end of such a window loses
_FEWEST_PIXELS = 256  # a window is not judged by fewer, nor a frame found among them

Values = NDArray[np.float64]
Counts = NDArray[np.int64]


def all_values(stored: NDArray[Any]) -> Values:
    """All values (256,) or (65536,) that the integer type of an array can have, ascending."""
    kind = np.iinfo(stored.dtype)
    return np.arange(kind.min, kind.max + 1, dtype=np.float64)


def count_values(stored: NDArray[Any]) -> Counts:
    """How many elements have each of `all_values`, in the same shape."""
    size = 2 ** (8 * stored.dtype.itemsize)
    counts = np.zeros(size, np.int64)
    for _, positions in _positions(stored):
        counts += np.bincount(positions.ravel(), minlength=size)
    return counts


def look_up(table: NDArray[np.uint8], stored: NDArray[Any]) -> NDArray[np.uint8]:
    """The table's entry for each element; `table` has an entry for each of `all_values`."""
    levels = np.empty(stored.shape, np.uint8)
    for rows, positions in _positions(stored):
        levels[rows] = table[positions]
    return levels


def _positions(stored: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.intp]]]:
    """The position of each element among `all_values`, a few rows at a time."""
    least = np.iinfo(stored.dtype).min
    at_once = max(1, _PIXELS_AT_ONCE // (stored.size // stored.shape[0]))
    for start in range(0, stored.shape[0], at_once):
        rows = slice(start, start + at_once)
        yield rows, stored[rows].astype(np.intp) - least


def robust_range(values: Values, counts: Counts) -> tuple[float, float, bool]:
    """The values that become black and white, and whether outliers were left out to find them.

    These are the 0.1 % and the 99.9 % quantile. Outliers are left out first: up to 3 % of the pixels at either end, far
    from all others and most of them alike, such as a burnt-in marker, and up to 40 % that have one value, such as a
    frame.
    """
    kept = _without_frame(values, counts)
    low, high = _quantiles(values, kept, _TAILS)
    reach = _FAR * (high - low)
    if reach > 0:
        far_above = _alike(values, np.where(values > high + reach, kept, 0))
        far_below = _alike(-values[::-1], np.where(values < low - reach, kept, 0)[::-1])
        kept = np.where((far_above & (values > high + reach)) | (far_below & (values < low - reach)), 0, kept)
    low, high = _quantiles(values, kept, _ENDS)
    return low, high, int(kept.sum()) < (1 - _ENDS) * int(counts.sum())


def _without_frame(values: Values, counts: Counts) -> Counts:
    """The counts without the greatest and the least value, if many pixels have it and it is far from all others."""
    kept = counts.copy()
    present = np.flatnonzero(counts)
    for end in present[[-1, 0]] if counts.sum() >= _FEWEST_PIXELS else ():
        if _TAILS < counts[end] / counts.sum() <= _LARGEST_FRAME:
            kept[end] = 0
            low, high = _quantiles(values, kept, _TAILS)
            far = max(values[end] - high, low - values[end]) > _FAR * (high - low) > 0
            kept[end] = 0 if far else counts[end]
    return kept


def _alike(values: Values, counts: Counts) -> bool:
    """Whether there are outliers, and half of them are nearer to the farthest than to the nearest one."""
    present = values[counts > 0]
    return present.size > 0 and _quantiles(values, counts, 0.5)[0] >= (present[0] + present[-1]) / 2


def _quantiles(values: Values, counts: Counts, share: float) -> tuple[float, float]:
    """The least and the greatest value without a share of the pixels at either end; 0 and 0 without pixels."""
    upto = np.cumsum(counts)
    outermost = int(upto[-1] * share)
    if upto[-1] == 0:
        return 0.0, 0.0
    low, high = np.searchsorted(upto, (outermost, upto[-1] - 1 - outermost), side="right")
    return float(values[low]), float(values[high])


def shows_little(seen: Values, output: Values, counts: Counts) -> bool:
    """Whether a window or lookup table does not fit a radiograph's values.

    `seen` is 0 (black) to 1 (white) for each value of `output`, of which `counts` pixels have each. It does not fit
    where 99 % of the pixels span fewer than 64 of the 256 grey levels, or where too many pixels of too different values
    become black or white: the share of the pixels, times the part of the range that their values span, is above 0.13
    for both ends together, or one end takes more than 8 % of the pixels and half of the range. (Air beside a limb may
    be most of the pixels, but its values are similar.)
    """
    total = int(counts.sum())
    order = np.argsort(output, kind="stable")
    output, seen, counts = output[order], seen[order], counts[order]
    low, high, _ = robust_range(output, counts)
    if total < _FEWEST_PIXELS or low == high:
        return False
    levels = np.rint(255 * seen)
    by_level = np.bincount(levels.astype(np.int64), weights=counts, minlength=256).astype(np.int64)
    darkest, brightest = _quantiles(np.arange(256.0), by_level, 0.005)
    if brightest - darkest < _LEAST_LEVELS:
        return True
    lost = 0.0
    for level in (0, 255):
        at_end = np.where(levels == level, counts, 0)
        least, greatest = _quantiles(output, at_end, 0.05)
        share, span = int(at_end.sum()) / total, (greatest - least) / (high - low)
        if share > _MOST_CUT and span > _WIDEST_CUT:
            return True
        lost += share * span
    return lost > _MOST_LOST
