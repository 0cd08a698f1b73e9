"""Pictures that tests draw."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["grey_square"]


def grey_square(brightness: int, side: int = 32) -> NDArray[np.uint8]:
    """A square (side, side) whose lines are a little darker and brighter in turn, so that it is not blank."""
    contrast = min(20, brightness, 255 - brightness)
    pixels = np.full((side, side), brightness + contrast, np.uint8)
    pixels[::2] -= np.uint8(2 * contrast)
    return pixels
