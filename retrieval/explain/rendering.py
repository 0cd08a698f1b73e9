"""Heatmaps and radiographs as pictures: one painted over the other, or as layers of a page.

Heatmaps have the colours of inferno, violet to yellow, whose order by lightness needs no colour vision. A weaker
heatmap covers less of the radiograph. A white line surrounds its own strongest parts.
"""

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from index.atomic import write_whole
from retrieval.errors import HeatmapError
from retrieval.explain.smooth_grad_cam import Heatmap
from retrieval.images.preprocessing import shrink
from retrieval.query import Images

__all__ = [
    "heatmap_png",
    "overlay",
    "overlay_files",
    "radiograph_png",
    "strongest_region",
    "write_overlay",
]

_STRONG = 0.75  # of a heatmap's strongest value; the white line surrounds higher ones
_SIDE, _LEVELS = 320, 48  # of a heatmap in a report, which is smooth


def overlay(pixels: NDArray[np.uint8], heatmap: Heatmap, opacity: float = 0.6) -> NDArray[np.uint8]:
    """Paint a heatmap over its radiograph, (H, W, 3) BGR uint8.

    The colours cover the radiograph by `opacity` where the heatmap is 1, and not at all where it is 0. Raises
    ValueError where the heatmap has another size.
    """
    H, W = pixels.shape[:2]
    if heatmap.values.shape != (H, W) or not 0 <= opacity <= 1:
        raise ValueError(f"a radiograph of {H} x {W} needs a heatmap of that size, and an opacity between 0 and 1")
    base = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR) if pixels.ndim == 2 else pixels
    colours, cover = _coloured(heatmap.values, 255)
    painted = np.rint(base + np.float32(opacity) * cover[:, :, None] * (colours.astype(np.float32) - base))
    return _outlined(painted.astype(np.uint8), heatmap.values, cv2.LINE_AA)


def heatmap_png(heatmap: Heatmap, side: int = _SIDE, levels: int = _LEVELS) -> bytes:
    """A heatmap as a transparent PNG, as `overlay` paints it at opacity 1.

    It has its radiograph's aspect ratio, at most `side` pixels on the long side, and `levels` levels of colour.
    """
    values = shrink(heatmap.values, side)
    colours, cover = _coloured(values, levels)
    layer = np.dstack([colours, np.rint(255 * cover).astype(np.uint8)])
    return _png(_outlined(np.ascontiguousarray(layer), values, cv2.LINE_8))


def radiograph_png(pixels: NDArray[np.uint8], side: int) -> bytes:
    """A radiograph (H, W) or (H, W, 3) BGR as PNG, at most `side` pixels on the long side, never enlarged."""
    return _png(shrink(pixels, side))


def strongest_region(heatmap: Heatmap) -> str:
    """The ninth of a heatmap where it is strongest, in words such as "upper left"; "nowhere" if it is empty."""
    values = heatmap.values
    if not values.max() > 0:
        return "nowhere"
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    row = ("upper", "middle", "lower")[3 * int(y) // values.shape[0]]
    column = ("left", "centre", "right")[3 * int(x) // values.shape[1]]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"


def overlay_files(path: Path, count: int, images: Images) -> list[Path]:
    """The files for the overlays of a study's `count` views: `path`, or path-1, path-2 ... of several.

    images: what the query names. Raises HeatmapError where `path` is not a PNG in an existing folder, where it would
    replace a queried file, and where it would lie in a queried folder and so be a view of the next query.
    """
    if path.suffix.lower() != ".png":
        raise HeatmapError(f"the heatmap {path} is not a PNG file; end its name in .png")
    if not path.parent.is_dir():
        raise HeatmapError(f"the heatmap {path} cannot be written: its folder does not exist; make it, or name another")
    names = [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]
    files = [path] if count == 1 else names
    given = [images] if isinstance(images, Path | str | np.ndarray) else list(images)
    queried = {os.path.realpath(image) for image in given if not isinstance(image, np.ndarray)}
    for file in map(os.path.realpath, files):
        if queried & {file, os.path.dirname(file)}:  # noqa: PTH120  (Path.resolve raises where a link leads to itself)
            raise HeatmapError(f"the heatmap {path} would lie among the queried radiographs; name another file")
    return files


def write_overlay(path: Path, painted: NDArray[np.uint8]) -> None:
    """Write the result of `overlay`, (H, W, 3) BGR, as PNG, completely or not at all. Raises HeatmapError."""
    try:
        write_whole(path, cv2.imencode(".png", painted)[1].tobytes())
    except OSError as error:
        raise HeatmapError(f"the heatmap {path} cannot be written: {error.strerror}; name another file") from error


def _coloured(values: NDArray[np.float32], levels: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The colours (H, W, 3) of a heatmap, BGR, and how much each pixel covers the radiograph, (H, W) in [0, 1]."""
    rounded = np.rint(values * levels) / np.float32(levels)
    colours = cv2.applyColorMap(np.rint(255 * rounded).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(colours, np.uint8), np.asarray(rounded**1.5, np.float32)


def _outlined(picture: NDArray[np.uint8], values: NDArray[np.float32], line: int) -> NDArray[np.uint8]:
    """The picture with a white line around the strongest parts of a heatmap."""
    strong = (values > _STRONG * values.max()) & (values > 0)
    lines, _ = cv2.findContours(strong.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, lines, -1, (255,) * 4, max(1, round(max(values.shape) / 500)), line)
    return picture


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_COMPRESSION, 4))[1].tobytes()
