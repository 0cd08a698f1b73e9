"""How coloured a picture is: a radiograph is grey, whatever colour space its file has."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRONGLY_COLOURED", "channel_range", "colourfulness", "one_channel", "some_pixels", "strongly_coloured"]

STRONGLY_COLOURED = 24
"""The `colourfulness` above which a picture is no radiograph, or is read in a wrong colour space."""

_SOME = 256  # rows and columns


def some_pixels(picture: NDArray[Any]) -> NDArray[Any]:
    """At most 256 rows and columns of a picture (H, W, 3)."""
    height, width = picture.shape[:2]
    return picture[:: -(-height // _SOME), :: -(-width // _SOME)]


def one_channel(picture: NDArray[Any]) -> NDArray[Any]:
    """A grey picture saved as colour, (H, W, 3) with three equal channels, as (H, W); any other as it is."""
    if picture.ndim == 2 or channel_range(some_pixels(picture)).any():
        return picture
    first = picture[..., 0]
    equal = all((first == picture[..., channel]).all() for channel in (1, 2))
    return np.ascontiguousarray(first) if equal else picture


def channel_range(picture: NDArray[Any]) -> NDArray[Any]:
    """The largest minus the smallest of the three samples of each pixel: of (H, W, 3) whole numbers (H, W).

    That is `numpy.ptp` over the channels, which takes ten times as long.
    """
    blue, green, red = picture[..., 0], picture[..., 1], picture[..., 2]
    largest = np.maximum(np.maximum(blue, green), red)
    return np.asarray(largest - np.minimum(np.minimum(blue, green), red))


def colourfulness(picture: NDArray[Any]) -> float:
    """The mean difference between the channels (H, W, 3), 0 to 255 grey levels."""
    return float(channel_range(picture).mean())


def strongly_coloured(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture (H, W) or (H, W, 3) is strongly coloured."""
    return picture.ndim == 3 and colourfulness(some_pixels(picture)) > STRONGLY_COLOURED
