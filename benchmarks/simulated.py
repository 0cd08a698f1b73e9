"""Fractures where there are none, to learn from without labels: a step in the bone, a jagged line, or both.

A network that is to tell pictures with a simulated flaw from those without learns what intact looks like (CutPaste: Li
et al. 2021, arXiv 2104.04015). What is cut and moved here is one side of a short line across the bone.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["fractured", "warped"]

Picture = NDArray[np.uint8]
Field = NDArray[np.float32]

_ACROSS = 0.45  # standard deviation of the angle between the line and the direction across the bone, radians


def fractured(picture: Picture, reach: int, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """A picture (S, S, C) with a simulated fracture whose middle is at most `reach` pixels from its own, and coverage.

    Coverage (S/4, S/4) is 255 in the box around the line, and nowhere where no place looks like bone.
    """
    S = picture.shape[0]
    covered = np.zeros((S // 4, S // 4), np.uint8)
    dx, dy = _smooth_field(S, rng)
    found = _place(picture[:, :, 0], reach, rng)
    if found is None:
        return _moved(picture, dx, dy), covered
    x, y, across = found
    angle = across + rng.normal() * _ACROSS
    along, beside = (np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))
    half = rng.uniform(7, 26)  # of the line, pixels
    rows, columns = np.mgrid[:S, :S].astype(np.float32)
    u = (columns - x) * along[0] + (rows - y) * along[1]
    v = (columns - x) * beside[0] + (rows - y) * beside[1]
    v -= (_roughness(512, rng) * rng.uniform(0, 2))[np.clip(u + 256, 0, 511).astype(int)]
    fading = np.clip((half - np.abs(u)) / (0.35 * half), 0, 1)
    kind = rng.random()
    if kind < 0.75:  # one side moves along the line, and a little away from it or into it
        side = (v > 0) * np.clip(1 - v / rng.uniform(12, 40), 0, 1) * fading
        step, gap = rng.choice([-1, 1]) * rng.uniform(0.8, 4.0), rng.uniform(-1.5, 2.5)
        dx += side * (step * along[0] + gap * beside[0])
        dy += side * (step * along[1] + gap * beside[1])
    moved = _moved(picture, dx, dy)
    if kind > 0.35:  # dark where there is a gap, now and then light where bone lies on bone
        depth = rng.uniform(0.08, 0.45) * (1 if rng.random() < 0.85 else -0.6)
        light = 1 - depth * np.exp(-0.5 * (v / rng.uniform(0.6, 1.6)) ** 2) * fading
        moved = np.clip(moved * light[:, :, None], 0, 255).astype(np.uint8)
    width, height = (abs(part) * half + 4 for part in along)
    top, left = (max(0, int((middle - size) / 4)) for middle, size in ((y, height), (x, width)))
    covered[top : int(np.ceil((y + height) / 4)), left : int(np.ceil((x + width) / 4))] = 255
    return moved, covered


def warped(picture: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """The same without a fracture, as much bent and blurred by resampling; its coverage is empty."""
    S = picture.shape[0]
    return _moved(picture, *_smooth_field(S, rng)), np.zeros((S // 4, S // 4), np.uint8)


def _smooth_field(S: int, rng: np.random.Generator) -> tuple[Field, Field]:
    size = rng.uniform(0, 4)  # pixels
    x, y = (cv2.GaussianBlur(rng.normal(size=(S, S)).astype(np.float32), (0, 0), 24) for _ in range(2))
    return x / (np.abs(x).max() + 1e-6) * size, y / (np.abs(y).max() + 1e-6) * size


def _moved(picture: Picture, dx: Field, dy: Field) -> Picture:
    S = picture.shape[0]
    rows, columns = np.mgrid[:S, :S].astype(np.float32)
    x, y = (columns + dx).astype(np.float32), (rows + dy).astype(np.float32)
    moved = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8).reshape(picture.shape)


def _place(grey: Picture, reach: int, rng: np.random.Generator) -> tuple[int, int, float] | None:
    """Column and row of a place that is likely bone, light and with edges, and the direction across it, radians."""
    middle = slice(len(grey) // 2 - reach, len(grey) // 2 + reach)
    g = grey.astype(np.float32)
    light = cv2.GaussianBlur(g, (0, 0), 4)
    gx, gy = cv2.Sobel(g, cv2.CV_32F, 1, 0), cv2.Sobel(g, cv2.CV_32F, 0, 1)
    xx, xy, yy = (cv2.GaussianBlur(product, (0, 0), 8) for product in (gx * gx, gx * gy, gy * gy))
    inside = cv2.erode((cv2.medianBlur(grey, 5) > 18).astype(np.uint8), np.ones((25, 25), np.uint8))
    edges = np.minimum(np.sqrt(xx + yy), np.percentile(np.sqrt(xx + yy), 85))
    weights = (inside * np.clip(light - np.percentile(light, 40), 0, None) * edges)[middle, middle].astype(np.float64)
    if weights.sum() <= 0:
        return None
    row, column = divmod(int(rng.choice(weights.size, p=(weights / weights.sum()).ravel())), 2 * reach)
    row, column = row + middle.start, column + middle.start
    across = 0.5 * np.arctan2(2 * xy[row, column], xx[row, column] - yy[row, column])
    return column, row, float(across)


def _roughness(n: int, rng: np.random.Generator) -> Field:
    smooth = rng.uniform(2, 8)
    values = cv2.GaussianBlur(rng.normal(size=(1, n)).astype(np.float32), (0, 0), smooth)[0]
    return np.asarray(values / (values.std() + 1e-6), np.float32)
