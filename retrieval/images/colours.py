"""How coloured a picture is: a radiograph is grey, whatever colour space its file has."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRONGLY_COLOURED", "colourfulness", "some_pixels", "strongly_coloured"]

STRONGLY_COLOURED = 24
"""The `colourfulness` above which a picture is no radiograph, or is read in a wrong colour space."""

_SOME = 256  # rows and columns


def some_pixels(picture: NDArray[Any]) -> NDArray[Any]:
    """Some 256 rows and columns of a picture (H, W, 3), or all if it has fewer."""
    height, width = picture.shape[:2]
    return picture[:: max(1, height // _SOME), :: max(1, width // _SOME)]


def colourfulness(picture: NDArray[Any]) -> float:
    """The mean difference between the channels (H, W, 3), 0 to 255 grey levels."""
    return float(np.ptp(picture.astype(np.int16), axis=2).mean())


def strongly_coloured(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture (H, W) or (H, W, 3) is strongly coloured."""
    return picture.ndim == 3 and colourfulness(some_pixels(picture)) > STRONGLY_COLOURED
