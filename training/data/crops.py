"""Crops around lesions at full resolution: where a fracture is 25 pixels wide, a picture is mostly something else.

A crop costs (crop / size)^2 of a picture, so a network sees five times as many lesions in the same time. Half of a
batch is cut around a lesion, the other half anywhere on the limb: three of four from normal radiographs, one from
abnormal ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import TrainingSet
from training.errors import TrainingError

__all__ = ["MARGIN", "crop_rows", "windows"]

MARGIN = 1.5  # windows are so much wider than crops, so that turning them brings no empty corner in
_LIMB = 40  # grey level above which a pixel is more likely limb than background
_TRIES = 20


def crop_rows(data: TrainingSet, batch: int, count: int, rng: np.random.Generator) -> list[list[int]]:
    """Rows of `count` batches: the first half of each is to be cut around a lesion.

    Raises TrainingError if it is unknown where lesions lie, or all radiographs have one.
    """
    labels = np.array([case.label for case in data.cases])
    abnormal, normal = np.flatnonzero((labels == 1) & data.known), np.flatnonzero(labels == 0)
    if not len(abnormal) or not len(normal):
        raise TrainingError(
            "crops need normal radiographs and abnormal ones whose lesions are known (fractures.csv or masks); "
            "train with crop_epochs = 0"
        )

    def taken(rows: NDArray[np.int64], number: int) -> list[int]:
        drawn: list[int] = rng.choice(rows, number, replace=len(rows) < number).tolist()
        return drawn

    half, eighth = batch // 2, batch // 8
    return [
        taken(abnormal, half) + taken(normal, batch - half - eighth) + taken(abnormal, eighth) for _ in range(count)
    ]


def windows(
    pictures: NDArray[np.uint8], coverage: NDArray[np.uint8], crop: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Windows (B, W, W, C) of pictures (B, S, S, C), and of their coverage (B, S/4, S/4), W = 1.5 crop, empty outside.

    The first half is placed so that a lesion lies within the crop, the others with their centre on the limb.
    """
    side = int(crop * MARGIN) // 8 * 8
    cut = [
        _window(picture, covered, side, _centre(picture, covered if row < len(pictures) // 2 else None, crop, rng))
        for row, (picture, covered) in enumerate(zip(pictures, coverage, strict=True))
    ]
    return np.stack([picture for picture, _ in cut]), np.stack([covered for _, covered in cut])


def _centre(
    picture: NDArray[np.uint8], coverage: NDArray[np.uint8] | None, crop: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Row and column, in steps of the coverage's grid of four pixels."""
    if coverage is not None and coverage.any():
        rows, columns = np.nonzero(coverage)
        chosen = rng.integers(len(rows))
        reach = int(0.35 * crop / 4)
        away = rng.integers(-reach, reach + 1, 2)
        return int(rows[chosen] + away[0]), int(columns[chosen] + away[1])
    row, column = 0, 0
    for _ in range(_TRIES):
        row, column = rng.integers(0, picture.shape[0] // 4, 2).tolist()
        if picture[4 * row, 4 * column].max() > _LIMB:
            break
    return row, column


def _window(
    picture: NDArray[np.uint8], coverage: NDArray[np.uint8], side: int, centre: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A window of a picture and of its coverage around a centre that is at most half a window outside; 0 beyond."""

    def cut(image: NDArray[np.uint8], size: int, step: int) -> NDArray[np.uint8]:
        padded = np.pad(image, [(size, size)] * 2 + [(0, 0)] * (image.ndim - 2))
        top, left = (step * position + size // 2 for position in centre)
        return padded[top : top + size, left : left + size]

    return cut(picture, side, 4), cut(coverage, side // 4, 1)
