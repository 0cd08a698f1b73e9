"""Radiographs that show nothing: failed exposures and failed conversions."""

import numpy as np
from numpy.typing import NDArray

from retrieval.notices import Code, Notice

__all__ = ["blank_notices", "is_nearly_blank"]

_SOME = 2**12  # pixels that show whether all are worth a look
_BAND = 16  # neighbouring grey levels
_SHARE = 0.97  # of the pixels; of 2,788 radiographs of FracAtlas, the emptiest has 0.89


def is_nearly_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether 97 % of the pixels, (H, W) or (H, W, 3), have almost the same grey level, in each channel.

    A band of 16 of the 256 levels counts as almost the same. A picture whose pixels are all alike is nearly blank, too.
    """
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / _SOME) ** 0.5))
    return _mostly_alike(pixels[::step, ::step]) and (step == 1 or _mostly_alike(pixels))


def blank_notices(pixels: NDArray[np.uint8]) -> tuple[Notice, ...]:
    """What to know of a radiograph (H, W) or (H, W, 3) that is blank or nearly so; empty for others."""
    if not is_nearly_blank(pixels):
        return ()
    alike = (pixels == pixels[0, 0]).all()
    return (Notice(Code.BLANK if alike else Code.NEARLY_BLANK),)


def _mostly_alike(pixels: NDArray[np.uint8]) -> bool:
    for number in range(1 if pixels.ndim == 2 else 3):
        channel = pixels if pixels.ndim == 2 else pixels[..., number]
        upto = np.concatenate(([0], np.cumsum(np.bincount(channel.ravel(), minlength=256))))
        if (upto[_BAND:] - upto[:-_BAND]).max() < _SHARE * channel.size:
            return False
    return True
