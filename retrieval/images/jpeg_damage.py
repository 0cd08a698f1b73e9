"""Damage of a JPEG that its decoder cannot see: later blocks are too bright, too dark or tinted.

JPEG stores the mean of a block of 8 x 8 pixels as its difference from the block before. So when some bytes in the
middle of a file are changed, all later blocks are wrong by the same amount, in brightness or in colour. The seam is a
staircase: to the right of some column it lies above a row of blocks, to the left of it one row of blocks lower.

For the rows y - 2, y - 1 | y, y + 1 around a boundary the step is s = g(y) - g(y - 1) less the mean of the changes
within each side. There is a seam if the medians of s in three quarters of the width agree, rows next to it have no such
step, and what is shown goes on across it. Coarse quantisation makes steps as well, of once or twice the size by which
means of blocks are quantised, so a seam's step is larger.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.images.codestream import jpeg_segments
from retrieval.images.colours import channel_range, some_pixels

__all__ = ["is_damaged"]

_BLOCK = 8  # pixels
_QUARTERS = 4
_LEAST, _LEAST_SIZES = 3.0, 2.5  # grey levels, and sizes by which means are quantised: the least step in a quarter
_BLACK, _WHITE = 0, 255  # grey levels, at which a step can be cut off
_SPREAD, _ROUNDING = 0.4, 1.5  # of the step, or grey levels, by which quarters may differ
_NEXT = 0.26  # of the step, that rows next to it may have
_ALIKE = 0.7  # correlation of the details on both sides
_SOME = 128  # columns, whose steps tell candidates
_DETAIL = 4  # pixels, between which details are differences
_LEAST_SIDE = 64  # pixels
_TINT = 3  # grey levels between the channels
_FEW, _MANY = 0.01, 0.1  # shares of the pixels of a row: that may be coloured in a grey one, and grey in a coloured one
_ROWS = 0.02  # the share of rows of either kind
_QUANTISATION, _SCAN = 0xDB, 0xDA  # segments of a JPEG


class _Part(NamedTuple):
    """A horizontal part of a seam: it lies between the rows y - 1 and y of some columns."""

    y: int
    columns: slice


def is_damaged(stored: NDArray[np.uint8], data: bytes) -> bool:
    """Whether a JPEG of these bytes, decoded as grey (H, W) or colour (H, W, 3), is damaged in a way that shows."""
    if stored.ndim == 2:
        return _has_seam(stored, data)
    return _is_partly_tinted(stored) or _has_seam(stored[..., 1], data)


def _is_partly_tinted(stored: NDArray[np.uint8]) -> bool:
    """Whether some rows are grey throughout, and others coloured throughout."""
    coloured = (channel_range(some_pixels(stored)) >= _TINT).mean(axis=1)
    return min(float((coloured < _FEW).mean()), float((coloured > 1 - _MANY).mean())) > _ROWS


def _has_seam(grey: NDArray[np.uint8], data: bytes) -> bool:
    height, width = grey.shape
    if min(height, width) < _LEAST_SIDE:
        return False
    width -= width % _QUARTERS
    least = max(_LEAST, _LEAST_SIZES * _quantised_by(data))
    return any(_is_seam(grey, parts, step) for parts, step in _candidates(grey[:, :width], least))


def _quantised_by(data: bytes) -> float:
    """The size by which the means of blocks are quantised, in grey levels; of several tables the first one's."""
    for segment in jpeg_segments(data):
        if segment.marker == _QUANTISATION and len(segment.body) > 2:
            wide = segment.body[0] >> 4  # 16 bits a number
            return int.from_bytes(segment.body[1 : 3 if wide else 2], "big") / _BLOCK
        if segment.marker == _SCAN:
            break
    return 0.0


def _candidates(grey: NDArray[np.uint8], least: float) -> Iterator[tuple[list[_Part], float]]:
    """The parts of a possible seam from left to right, and its step in grey levels."""
    boundaries = np.arange(_BLOCK, len(grey) - 1, _BLOCK)
    quarter = grey.shape[1] // _QUARTERS
    steps = _steps(grey[:, :: 1 + grey.shape[1] // _SOME], boundaries)
    steps = steps[:, : steps.shape[1] // _QUARTERS * _QUARTERS].reshape(len(boundaries), _QUARTERS, -1)
    medians = np.median(steps, axis=2)
    large = np.abs(medians) >= least
    for lower in (1, 2):  # a row of blocks is 8 or 16 pixels high
        for bend in range(_QUARTERS):  # the quarter in which the seam changes its row
            for row in np.flatnonzero(large[lower:, :bend].all(axis=1) & large[:-lower, bend + 1 :].all(axis=1)):
                parts = np.concatenate((medians[row + lower, :bend], medians[row, bend + 1 :]))
                step = float(np.abs(np.median(parts)))
                if np.abs(parts.sum()) < np.abs(parts).sum() or np.ptp(parts) > max(_ROUNDING, _SPREAD * step):
                    continue
                left = _Part(int(boundaries[row + lower]), slice(0, bend * quarter))
                right = _Part(int(boundaries[row]), slice((bend + 1) * quarter, _QUARTERS * quarter))
                yield [part for part in (left, right) if part.columns.start < part.columns.stop], step


def _is_seam(grey: NDArray[np.uint8], parts: list[_Part], step: float) -> bool:
    """Whether the rows next to a candidate have no such step, and what is shown goes on across it."""
    for y, columns in parts:
        shown = grey[:, columns]
        beside = np.array([other for other in range(y - 6, y + 7) if 1 < other < len(grey) - 1 and abs(other - y) > 1])
        if np.abs(np.median(_steps(shown, beside), axis=1)).max() > _NEXT * step:
            return False
        edges = shown[y - 1 : y + 1]
        if ((edges == _BLACK) | (edges == _WHITE)).any(axis=0).mean() > 0.5:
            return False
        above, below = (row[_DETAIL:].astype(np.float64) - row[:-_DETAIL] for row in edges)
        if not above @ below > _ALIKE * np.sqrt((above @ above) * (below @ below)):  # neither has details
            return False
    return True


def _steps(grey: NDArray[np.uint8], rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """The step between the rows y - 1 and y, for Y rows y and W columns: (Y, W), in grey levels."""
    before, above, below, after = (grey[rows + distance].astype(np.float32) for distance in (-2, -1, 0, 1))
    return np.asarray(below - above - ((above - before) + (after - below)) / 2, np.float32)
