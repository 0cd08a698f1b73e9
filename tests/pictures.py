"""Pictures that tests draw."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["grey_square"]


def grey_square(brightness: int, side: int = 32) -> NDArray[np.uint8]:
    """A square (side, side) like a chessboard, so that it is not blank. No two squares are near duplicates."""
    contrast = min(20, brightness, 255 - brightness)
    pixels = np.full((side, side), brightness + contrast, np.uint8)
    pixels[::2, ::2] -= np.uint8(2 * contrast)
    pixels[1::2, 1::2] -= np.uint8(2 * contrast)
    return pixels
