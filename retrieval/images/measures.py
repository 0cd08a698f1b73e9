"""Plain measures of a radiograph: how soft, noisy, large, compressed and well exposed it is, whatever it shows.

All but the last are taken of the grey picture g of h x w pixels that the encoder sees, before its contrast is enhanced:
scaled so that the long side has S pixels. G_s is a Gaussian filter of deviation s pixels, N the number of pixels.

    sharpness     log(rms(g - G_0.7 g) / rms(G_0.7 g - G_1.4 g)): fine against middle detail, which no contrast changes
    noise         sqrt(pi / 2) / 6 mean|L * g| with L = [1 -2 1; -2 4 -2; 1 -2 1] (Immerkaer 1996), robustly: the median
                  of |L * g| / 0.6745 / 6, over pixels of at least 16 grey levels; in grey levels
    contrast      the standard deviation of g; in grey levels (Peli 1990: root mean square contrast)
    grey_range    from the 1 % to the 99 % quantile of g; in grey levels
    size          min(long side as read, S): a larger radiograph is scaled down, so its size does not matter
    saturated     the share of pixels of at least 250 grey levels
    background    the share of pixels under 16 grey levels
    blocking      log(E / I) of the radiograph as read, in whose blocks of 8 x 8 pixels JPEG rounds: E is the mean of
                  min(|third difference|, 8) across the edges of blocks, I the median of the other seven columns (Wang,
                  Sheikh and Bovik 2002 compare the two as well). The edges are where E is largest. About 0 without
                  JPEG, 0.4 at quality 90, 0.7 at 75, 0.9 at 60, 1.4 at 30, nearly whatever the radiograph shows
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.images.preprocessing import Letterbox

__all__ = ["MEASURES", "TABLE", "Measures", "measure", "measure_rows", "packed", "unpacked"]

_SECOND = np.array([1, -2, 1], np.float32)  # difference; across and along together it is L
_THIRD = np.array([[1, -3, 3, -1]], np.float32)  # difference, from its first pixel
_FINE, _MIDDLE = 0.7, 1.4  # pixels
_DARK, _WHITE = 16, 250  # grey levels
_TINY = 1e-3  # grey levels, so that a blank picture has a sharpness
_BLOCK = 8  # pixels
_MOST_CHANGE = 8  # grey levels; larger third differences are edges of what is shown
_LINES, _LENGTH = 256, 1024  # that many lines each way, and pixels of each, say how strong blocks are
_QUARTILE = 0.6744897501960817  # of the normal distribution: the median of |x| in deviations


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures of one radiograph; see the module for their equations and units."""

    sharpness: float
    noise: float
    contrast: float
    grey_range: float
    size: float
    saturated: float
    background: float
    blocking: float


MEASURES = tuple(Measures.__slots__)
"""The names of the measures, in their order."""

TABLE = "measures"
"""The table of an index that holds them, as `packed`."""


def measure(pixels: NDArray[np.uint8], size: int) -> Measures:
    """The measures of a radiograph as read, (H, W) grey or (H, W, 3) BGR, for an encoder of `size` S pixels."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8) if pixels.ndim == 3 else pixels
    H, W = grey.shape
    box = Letterbox.fit(H, W, size)
    shrinks = box.height < H or box.width < W
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    seen = np.asarray(cv2.resize(grey, (box.width, box.height), interpolation=interpolation), np.uint8)
    share = _counts(seen) / seen.size
    upto = np.cumsum(share)
    darkest, brightest = (int(np.searchsorted(upto, quantile)) for quantile in (0.01, 0.99))
    levels = np.arange(256)
    mean = float(share @ levels)
    return Measures(
        sharpness=_sharpness(seen),
        noise=_noise(seen),
        contrast=float(np.sqrt(max(0.0, float(share @ levels**2) - mean**2))),
        grey_range=float(brightest - darkest),
        size=float(min(max(H, W), size)),
        saturated=float(share[_WHITE:].sum()),
        background=float(share[:_DARK].sum()),
        blocking=_blocking(grey),
    )


def measure_rows(measures: Sequence[Measures]) -> NDArray[np.float64]:
    """The measures of N radiographs as (N, 8), in the order of MEASURES."""
    return np.array([astuple(row) for row in measures], np.float64).reshape(len(measures), len(MEASURES))


def packed(measures: Measures) -> bytes:
    """The measures as an index stores them: 8 little-endian numbers of 32 bits."""
    return np.array(astuple(measures), "<f4").tobytes()


def unpacked(data: bytes) -> Measures | None:
    """The reverse of `packed`; None for other bytes, such as those of a radiograph that was never measured."""
    if len(data) != 4 * len(MEASURES):
        return None
    return Measures(*np.frombuffer(data, "<f4").astype(float).tolist())


def _sharpness(grey: NDArray[np.uint8]) -> float:
    taps = (cv2.getGaussianKernel(length, sigma, cv2.CV_32F) for sigma, length in ((_FINE, 5), (_MIDDLE, 9)))
    finer, softer = (cv2.sepFilter2D(grey, cv2.CV_32F, row, row) for row in taps)
    exact = grey.astype(np.float32)
    fine, middle = (cv2.norm(one, other) / np.sqrt(grey.size) for one, other in ((exact, finer), (finer, softer)))
    return float(np.log((fine + _TINY) / (middle + _TINY)))


def _noise(grey: NDArray[np.uint8]) -> float:
    changes = cv2.convertScaleAbs(cv2.sepFilter2D(grey, cv2.CV_16S, _SECOND, _SECOND))  # 255 or more is no median
    counts = _counts(changes, (grey >= _DARK).view(np.uint8))
    if not (total := float(counts.sum())):
        return 0.0
    # Linear within the bin of the median: whole levels would be too coarse for a radiograph with little noise.
    middle = int(np.searchsorted(np.cumsum(counts), total / 2))
    median = middle - 0.5 + (total / 2 - float(counts[:middle].sum())) / float(counts[middle])
    return max(0.0, median) / _QUARTILE / 6


def _blocking(grey: NDArray[np.uint8]) -> float:
    edge = inside = 0.05  # grey levels, so that a blank picture has no blocks
    for axis, length in enumerate(grey.shape):  # differences between rows, and between columns
        start = max(0, (length - _LENGTH) // 2)
        along, step = slice(start, start + _LENGTH), slice(None, None, max(1, grey.shape[1 - axis] // _LINES))
        strip = grey[along, step] if axis == 0 else grey[step, along]
        changes = np.minimum(_third_differences(strip, axis), np.uint8(_MOST_CHANGE))
        lines = cv2.reduce(changes, 1 - axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()[:-3] / strip.shape[1 - axis]
        if len(lines) < _BLOCK:
            continue
        phases = np.sort(lines[: len(lines) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).mean(0))
        edge, inside = edge + phases[-1], inside + np.median(phases[:-1])
    return float(np.log(edge / inside))


def _third_differences(grey: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """|Third difference| of each pixel and the next three along an axis, at most 255; the last three are of no use."""
    kernel, anchor = (_THIRD.T, (-1, 0)) if axis == 0 else (_THIRD, (0, -1))
    return np.asarray(cv2.convertScaleAbs(cv2.filter2D(grey, cv2.CV_16S, kernel, anchor=anchor)), np.uint8)


def _counts(grey: NDArray[Any], mask: NDArray[np.uint8] | None = None) -> NDArray[np.float64]:
    """How many pixels have each of the 256 grey levels."""
    return np.asarray(cv2.calcHist([grey], [0], mask, [256], [0, 256]), np.float64).ravel()
