"""Pictures for a page: a radiograph as JPEG, and its heatmap as a transparent PNG to lie over it.

Kept apart so that a reader can take the heatmap away, or look at it more or less strongly.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.explain.smooth_grad_cam import Heatmap
from retrieval.images.preprocessing import shrink

__all__ = ["heatmap_png", "place_of", "radiograph_jpeg"]

_LEVELS = 48  # of a heatmap: more would be seen by no one, and make the file larger
_HEATMAP_SIDE = 320  # a heatmap is smooth; the page enlarges it
_STRONG = 0.75  # a white line runs around what lies above, as in `retrieval.explain.smooth_grad_cam.overlay`


def radiograph_jpeg(pixels: NDArray[np.uint8], side: int, quality: int = 85) -> bytes:
    """A radiograph (H, W) or (H, W, 3) BGR as JPEG, at most `side` pixels on the long side, never enlarged."""
    return cv2.imencode(".jpg", shrink(pixels, side), (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def heatmap_png(heatmap: Heatmap, side: int = _HEATMAP_SIDE) -> bytes:
    """A heatmap as PNG with transparency, in the proportions of its radiograph: inferno, from clear to opaque.

    The weaker a place the more transparent it is, as in `retrieval.explain.smooth_grad_cam.overlay` at opacity 1.
    """
    values = shrink(heatmap.values, side)
    levels = np.rint(np.rint(values * _LEVELS) * (255 / _LEVELS)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    cover = np.rint(255 * (levels / 255) ** 1.5).astype(np.uint8)
    painted = np.ascontiguousarray(np.dstack([colours, cover]))
    lines, _ = cv2.findContours((values > _STRONG).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(painted, lines, -1, (255, 255, 255, 255), 1)
    return cv2.imencode(".png", painted, (cv2.IMWRITE_PNG_COMPRESSION, 6))[1].tobytes()


def place_of(heatmap: Heatmap) -> str:
    """Where a heatmap is strongest, in words: a ninth of it, such as "upper left"; "nowhere" if it is empty."""
    values = heatmap.values
    if not values.max() > 0:
        return "nowhere"
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    row = ("upper", "middle", "lower")[3 * int(y) // values.shape[0]]
    column = ("left", "centre", "right")[3 * int(x) // values.shape[1]]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
