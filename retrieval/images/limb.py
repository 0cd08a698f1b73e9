"""Where a radiograph shows something: the limb and what lies on it, apart from the empty film around.

Made for saying where nothing can be seen, not for outlines. What is doubtful counts as limb.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.images.preprocessing import shrink

__all__ = ["limb_mask"]

_SIDE = 256  # pixels of the long side on which the mask is found
_BLUR = 1.5  # standard deviation, in these pixels
_REACH = 61  # pixels; what is narrower, such as a finger, stands out from its neighbourhood
_DARKEST, _DARK = 4.0, 0.35  # levels above the ground, and share of the way from it to Otsu's threshold
_LEAST_DARK, _LEAST_LIMB = 0.3, 0.05  # shares of the rim, and of the picture
_MARGIN = 5  # pixels around the limb

Mask = NDArray[np.bool_]


def limb_mask(pixels: NDArray[np.uint8]) -> Mask:
    """Where a radiograph (H, W) or (H, W, 3) BGR is not empty, (H, W).

    Empty is what is dark, smooth and connected to the picture's rim, and a bright frame along one side. All of the
    picture counts as limb if its rim is hardly dark, as in a close-up or an inverted radiograph, or if nearly nothing
    would be left.
    """
    H, W = pixels.shape[:2]
    small = shrink(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.ndim == 3 else pixels, _SIDE)
    smooth = np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR), np.float32)
    rim = _rim(small.shape[:2])
    bright = float(cv2.threshold(smooth.astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0])
    dark = smooth[rim & (smooth < bright)]
    empty = _frames(smooth)
    if dark.size >= _LEAST_DARK * rim.sum():
        ground = float(np.median(dark))
        empty |= _dark(smooth, ground, float(np.abs(dark - ground).mean()), bright)
        empty = _connected(empty, rim)
        empty |= _without_bone(~empty, smooth, (ground + bright) / 2)
    else:
        empty = _connected(empty, rim)
    mask = cv2.morphologyEx((~empty).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _MARGIN + 1, 2 * _MARGIN + 1)))
    if mask.mean() < _LEAST_LIMB:
        return np.ones((H, W), np.bool_)
    return np.asarray(cv2.resize(mask, (W, H), interpolation=cv2.INTER_NEAREST) > 0, np.bool_)


def _rim(shape: tuple[int, ...]) -> Mask:
    rim = np.zeros(shape, np.bool_)
    rim[:3] = rim[-3:] = True
    rim[:, :3] = rim[:, -3:] = True
    return rim


def _dark(smooth: NDArray[np.float32], ground: float, spread: float, bright: float) -> Mask:
    """What is hardly brighter than the ground, or smooth and not much brighter, and stands out from nothing."""
    kernel = np.ones((5, 5), np.uint8)
    steps = cv2.dilate(smooth, kernel) - cv2.erode(smooth, kernel)
    limit = _DARK * (bright - ground)
    surely = smooth <= ground + min(max(3 * spread, _DARKEST), max(_DARKEST, limit))
    dark = surely | ((smooth <= ground + limit) & (steps <= max(3.0, 0.05 * (bright - ground))))
    if not dark.any():
        return dark
    above = cv2.morphologyEx(smooth, cv2.MORPH_TOPHAT, np.ones((_REACH, _REACH), np.uint8))
    usual = float(np.median(above[dark]))
    noise = 1.5 * float(np.median(np.abs(above[dark] - usual)))
    return np.asarray(dark & (above <= usual + max(2.5, 3 * noise)), np.bool_)


def _frames(smooth: NDArray[np.float32]) -> Mask:
    """Bright, even strips along one side of the picture: the edge of a cassette, a shutter."""
    kernel = np.ones((5, 5), np.uint8)
    even = cv2.dilate(smooth, kernel) - cv2.erode(smooth, kernel) <= 8
    count, parts, boxes, _ = cv2.connectedComponentsWithStats((even & (smooth >= 200)).astype(np.uint8), connectivity=4)
    height, width = smooth.shape
    frames = np.zeros(smooth.shape, np.bool_)
    for part in range(1, count):
        x, y, w, h = (int(side) for side in boxes[part][:4])
        lying = w >= 0.6 * width and h < 0.2 * height and (y == 0 or y + h == height)
        standing = h >= 0.6 * height and w < 0.2 * width and (x == 0 or x + w == width)
        if lying or standing:
            frames |= parts == part
    return np.asarray(cv2.dilate(frames.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0, np.bool_)


def _connected(empty: Mask, rim: Mask) -> Mask:
    """The parts that reach the rim."""
    parts = cv2.connectedComponents(empty.astype(np.uint8), connectivity=4)[1]
    at_rim = np.unique(parts[rim])
    return np.asarray(np.isin(parts, at_rim[at_rim > 0]), np.bool_)


def _without_bone(limb: Mask, smooth: NDArray[np.float32], least: float) -> Mask:
    """The parts of a supposed limb that are nowhere as bright as `least`: uneven film."""
    count, parts = cv2.connectedComponents(limb.astype(np.uint8), connectivity=4)[:2]
    brightest = np.zeros(count, np.float32)
    np.maximum.at(brightest, np.asarray(parts.ravel(), np.int64), smooth.ravel())
    dim = brightest < least
    dim[0] = False
    return np.asarray(dim[parts], np.bool_)
