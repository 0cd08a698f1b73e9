"""Perceptual hashes: 64 bits of what a radiograph looks like, nearly the same for a copy of it.

The signs of the 64 lowest frequencies of the cosine transform of the picture, shrunk to 32 x 32 (after Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions", but with signs for the comparison to the median,
so that the hash of the mirror image follows from the same transform). Another size, another brightness or contrast and
another encoding change few of the bits, a crop of some percent more. N pictures.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "distances", "perceptual_hashes"]

BITS = 64
_SIDE = 32
_FLAT = 1.0  # grey levels of standard deviation; below it the signs would be those of noise
_CHUNK = 1 << 22  # distances at once

Hashes = NDArray[np.uint64]


def _lowest() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the 64 lowest frequencies but the mean: by their sum, then by the row."""
    places = sorted((row + column, row, column) for row in range(_SIDE) for column in range(_SIDE))[1 : BITS + 1]
    return np.array([row for _, row, _ in places]), np.array([column for _, _, column in places])


_ROWS, _COLUMNS = _lowest()
_MIRROR = np.where(_COLUMNS % 2, -1.0, 1.0)  # mirroring turns the sign of every odd wave across the picture


def perceptual_hashes(pixels: NDArray[np.uint8]) -> tuple[int, int] | None:
    """The hashes of a picture (H, W) or (H, W, 3) BGR and of its mirror image; None of one that is blank."""
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT:
        return None
    waves = cv2.dct(small)[_ROWS, _COLUMNS]
    return _bits(waves > 0), _bits(waves * _MIRROR > 0)


def _bits(signs: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


def distances(hashes: Hashes, others: Hashes) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """How many bits differ between N hashes and M others: (first row, (n, M)) for one block of rows after the other."""
    at_once = max(1, _CHUNK // max(1, len(others)))
    for start in range(0, len(hashes), at_once):
        yield start, np.bitwise_count(hashes[start : start + at_once, None] ^ others[None])
