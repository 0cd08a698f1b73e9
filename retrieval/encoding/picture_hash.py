"""A perceptual hash of 512 bits, by which the same radiograph in other bytes is known.

The signs of the 512 lowest frequencies of the cosine transform of a thumbnail that is stretched to 64 x 64, as in
`audit.perceptual_hash`, whose 64 bits name candidates for a comparison and are too few to decide without one. Another
encoding, half of the size, gamma 0.8 and a tenth less brightness change at most an eighth of the bits. Of the 426,000
pairs among 924 upper limbs of FracAtlas 36 differ in so few, all of them copies; pairs of different radiographs differ
in more than a sixth.

An inverted, turned or flipped picture has the same waves with other signs, so its hash is computed from the hash. Of
the 3.9 million pairs among 2,791 radiographs none is taken for an inverted, turned or flipped copy: the nearest differ
in 94 bits.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["BYTES", "Hashes", "picture_hash", "picture_hashes", "same_picture"]

BITS = 512
BYTES = BITS // 8
MOST = BITS // 8  # bits that may differ
_SIDE = 64
_FLAT = 1.0  # grey levels of standard deviation; below it the signs would be those of noise
_ROWS, _COLUMNS = np.divmod(np.arange(_SIDE * _SIDE), _SIDE)
_LOWEST = np.lexsort((_ROWS, _ROWS + _COLUMNS))[1 : BITS + 1]  # of the cosine transform, read row by row

# Where the wave with rows and columns exchanged is among the lowest; -1 where it is not.
_PLACES = {int(wave): place for place, wave in enumerate(_LOWEST)}
_EXCHANGED = np.array([_PLACES.get(int(wave % _SIDE * _SIDE + wave // _SIDE), -1) for wave in _LOWEST])
_WHOLE, _SQUARE = np.ones(BITS, np.bool_), _EXCHANGED >= 0

Hashes = NDArray[np.uint8]


def picture_hash(thumbnail: bytes) -> Hashes:
    """The hash (64,) of a thumbnail as `encoding.batches` makes it; zeros for a blank one or one that does not read."""
    grey = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_GRAYSCALE) if thumbnail else None
    if grey is None or grey.std() < _FLAT:
        return np.zeros(BYTES, np.uint8)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.packbits(cv2.dct(small).ravel()[_LOWEST] > 0)


def picture_hashes(thumbnails: Iterable[bytes]) -> Hashes:
    """The hashes (N, 64) of N thumbnails."""
    return np.array([picture_hash(thumbnail) for thumbnail in thumbnails], np.uint8).reshape(-1, BYTES)


def same_picture(hashes: Hashes, others: Hashes) -> NDArray[np.bool_]:
    """Which of n hashes (n, 64) is that of a picture among the others (N, 64), also inverted, turned or flipped.

    A hash of zeros is like none.
    """
    words = np.ascontiguousarray(others[others.any(1)].view(np.uint64).T)  # (8, N)
    return np.array(
        [own.any() and any(_alike(turned, known, words) for turned, known in _turned(own)) for own in hashes], np.bool_
    )


def _turned(own: Hashes) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """The bits of the eight turns and flips of a picture, its own first, and which of them are known."""
    bits = np.unpackbits(own).astype(np.bool_)
    for turned, known in ((bits, _WHOLE), (bits[_EXCHANGED], _SQUARE)):
        for rows in (0, 1):  # a flip changes the sign of the odd waves
            for columns in (0, 1):
                yield turned ^ ((_LOWEST // _SIDE * rows + _LOWEST % _SIDE * columns) % 2 == 1), known


def _alike(bits: NDArray[np.bool_], known: NDArray[np.bool_], words: NDArray[np.uint64]) -> bool:
    """Whether any of the hashes (8, N) has almost the known bits, or almost all of them inverted."""
    own, mask = (np.packbits(flags).view(np.uint64)[:, None] for flags in (bits, known))
    differing = np.bitwise_count((own ^ words) & mask).sum(0)
    return bool(((differing <= MOST) | (differing >= known.sum() - MOST)).any())
