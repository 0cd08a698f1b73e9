"""Perceptual hash: 64 bits of what a radiograph looks like, nearly the same for a changed radiograph.

The bits are the signs of the lowest frequencies of the cosine transform of the picture at 32 x 32 (after Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions", where values are compared with their median). One
transform gives the hashes of the picture turned and mirrored in all eight ways. An inverted picture has all bits
inverted. Size, brightness, contrast and encoding change few bits; a crop of some percent changes more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["BITS", "ORIENTATIONS", "Orientation", "distances", "perceptual_hashes", "without_border"]

BITS = 64
_SIDE = 32
_FLAT = 1.0  # grey levels of standard deviation in these waves; below it the signs would be those of noise
_CHUNK = 1 << 22  # distances at once
_EVEN = 10  # grey levels by which a border may vary, as after a strong compression
_BLURRED = 2  # pixels inside a border that have some of its grey
_LEAST = 0.2  # of height and width has to be left within a border

Hashes = NDArray[np.uint64]
Grey = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Orientation:
    """A way to turn a picture: mirrored left to right or not, then turned counter-clockwise by quarter `turns`."""

    turns: int = 0
    mirrored: bool = False

    def applied(self, picture: Grey) -> Grey:
        """The picture (H, W) in this orientation."""
        turned = np.rot90(picture[:, ::-1] if self.mirrored else picture, self.turns)
        return np.ascontiguousarray(turned)

    @property
    def inverse(self) -> "Orientation":
        return self if self.mirrored else Orientation(-self.turns % 4)


ORIENTATIONS = tuple(Orientation(turns, mirrored) for mirrored in (False, True) for turns in range(4))


def _frequencies() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of 64 low frequencies without the mean, as many across as upright: (5, 5) is left out."""
    pairs = ((row, total - row) for total in range(1, 11) for row in range(total + 1))
    rows, columns = zip(*(pair for pair in pairs if pair != (5, 5)), strict=True)
    return np.array(rows), np.array(columns)


_ROWS, _COLUMNS = _frequencies()
_ODD = np.where(np.arange(_SIDE) % 2, -1.0, 1.0)  # a flip turns the sign of every odd wave


def perceptual_hashes(pixels: Grey) -> tuple[int, ...] | None:
    """The hashes of a picture (H, W) or (H, W, 3) BGR in each of `ORIENTATIONS`; None for a blank picture."""
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    waves = cv2.dct(small)
    if np.linalg.norm(waves[_ROWS, _COLUMNS]) < _FLAT * _SIDE:
        return None
    hashes = []
    for orientation in ORIENTATIONS:
        turned = waves * _ODD if orientation.mirrored else waves
        for _ in range(orientation.turns):
            turned = turned.T * _ODD[:, None]  # transposed, then flipped top to bottom
        hashes.append(int.from_bytes(np.packbits(turned[_ROWS, _COLUMNS] > 0).tobytes(), "big"))
    return tuple(hashes)


def without_border(picture: Grey) -> Grey:
    """The picture (H, W) without rows and columns of one grey at its edges, unless too little would be left."""
    inside = picture
    for _ in range(2):  # rows, then columns
        start, end = _inside(inside)
        if end - start < _LEAST * len(inside):
            return picture
        inside = inside[start:end].T
    return np.ascontiguousarray(inside)


def _inside(picture: Grey) -> tuple[int, int]:
    """The first row, and the row after the last, that differ from the grey of the edge above or below."""
    limits = []
    for side in (picture, picture[::-1]):
        edge = float(np.median(side[0]))
        same = (np.abs(side.astype(np.float32) - edge) <= _EVEN).all(axis=1)
        depth = 0 if same.all() else int(same.argmin())
        limits.append(depth + _BLURRED if depth > 1 else 0)  # a single line is no border
    return limits[0], len(picture) - limits[1]


def distances(hashes: Hashes, others: Hashes) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """How many bits differ between N hashes and M others: (first row, (n, M)) of each block of rows."""
    at_once = max(1, _CHUNK // max(1, len(others)))
    for start in range(0, len(hashes), at_once):
        yield start, np.bitwise_count(hashes[start : start + at_once, None] ^ others[None])
