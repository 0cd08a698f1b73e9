"""Radiographs that show nothing: failed exposures and failed conversions."""

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.notices import Code, Notice

__all__ = ["BLANK_CODES", "blank_notices", "is_nearly_blank"]

BLANK_CODES = (Code.BLANK, Code.NEARLY_BLANK)

_BAND = 16  # neighbouring grey levels
_SHARE = 0.97  # of the pixels; of 2,788 radiographs of FracAtlas, the emptiest has 0.89


def is_nearly_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether 97 % of the pixels, (H, W) or (H, W, 3), have almost the same grey level, in each channel.

    A band of 16 of the 256 levels counts as almost the same. A picture whose pixels are all alike is nearly blank, too.
    """
    return _fullest_band(pixels, _BAND) >= _SHARE


def blank_notices(pixels: NDArray[np.uint8]) -> tuple[Notice, ...]:
    """What to know of a radiograph that is blank or nearly so; empty for others."""
    if not is_nearly_blank(pixels):
        return ()
    return (Notice(Code.BLANK if _fullest_band(pixels, 1) == 1 else Code.NEARLY_BLANK),)


def _fullest_band(pixels: NDArray[np.uint8], band: int) -> float:
    """The largest share of pixels within a band of neighbouring levels, in the channel where it is least."""
    shares = []
    for channel in range(1 if pixels.ndim == 2 else pixels.shape[2]):
        counts = cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel().astype(np.float64)
        upto = np.concatenate(([0.0], np.cumsum(counts)))
        shares.append(float((upto[band:] - upto[:-band]).max() / upto[-1]))
    return min(shares)
