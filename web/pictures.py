"""Radiographs and heatmaps as PNGs for the page."""

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.explain.smooth_grad_cam import Heatmap
from retrieval.images.preprocessing import shrink

__all__ = ["LONGEST", "heat_png", "png"]

LONGEST = 2048
"""Pixels on the long side of a radiograph that is sent to be looked at."""

_LONGEST_HEAT = 768  # a heatmap is smooth


def png(pixels: NDArray[np.uint8], longest: int = LONGEST) -> bytes:
    """A radiograph (H, W) or (H, W, 3) BGR, made smaller where a side is longer than `longest`."""
    return _encoded(shrink(pixels, longest))


def heat_png(heatmap: Heatmap) -> bytes:
    """A heatmap to be laid over its radiograph: what `retrieval.explain.smooth_grad_cam.overlay` paints, on nothing."""
    values = shrink(heatmap.values, _LONGEST_HEAT)
    picture = np.empty((*values.shape, 4), np.uint8)
    picture[..., :3] = cv2.applyColorMap(np.rint(255 * values).astype(np.uint8), cv2.COLORMAP_INFERNO)
    picture[..., 3] = np.rint(255 * values**1.5)
    lines, _ = cv2.findContours((values > 0.75).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, lines, -1, (255, 255, 255, 255), max(1, round(max(values.shape) / 500)))
    return _encoded(picture)


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_COMPRESSION, 3))[1].tobytes()
