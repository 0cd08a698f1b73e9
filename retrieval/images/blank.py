"""Radiographs that show nothing: failed exposures and failed conversions."""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["is_nearly_blank"]

_BAND = 16  # neighbouring grey levels
_SHARE = 0.97  # of the pixels; of 2,788 radiographs of FracAtlas, the emptiest has 0.89


def is_nearly_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether 97 % of the pixels, (H, W) or (H, W, 3), have almost the same grey level, in each channel.

    A band of 16 of the 256 levels counts as almost the same. A picture whose pixels are all alike is nearly blank, too.
    """
    channels = range(1 if pixels.ndim == 2 else pixels.shape[2])
    return all(_fullest_band(pixels, channel) >= _SHARE for channel in channels)


def _fullest_band(pixels: NDArray[np.uint8], channel: int) -> float:
    """The largest share of a channel's pixels that lie within one band of neighbouring levels."""
    counts = cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel().astype(np.float64)
    upto = np.concatenate(([0.0], np.cumsum(counts)))
    return float((upto[_BAND:] - upto[:-_BAND]).max() / upto[-1])
