"""From a radiograph as read to the encoder's input, for training and queries alike."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.images.colours import one_channel

__all__ = ["Letterbox", "Picture", "Preprocessing", "enhance", "letterbox", "normalise", "preprocess", "shrink"]

# Values 0 to 255; only copies of a prepared picture, such as noisy ones, have fractions.
Picture = NDArray[np.uint8] | NDArray[np.float32]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# OpenCV's way from a grey level, 0 to 255, to its lightness in LAB, and back. These are constants because OpenCV needs
# 95 ms for its first such conversion, a seventh of a query. A test compares them with OpenCV.
_TO_LIGHTNESS = np.frombuffer(
    bytes.fromhex(
        "00010102020305050607070809090a0b0c0c0e0f10111213151718191b1b1c1e1f21222324262728292a2b2d2e2f303233343536"
        "37393a3b3c3d3e3f41424344454647494a4b4c4d4e4f5052525355565758595a5b5c5d5e5f6162636465666768696a6b6c6d6e6f"
        "7071727374757777797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9c9d9e9fa0a1a2a3"
        "a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c4c5c6c7c8c9cacbcccdcecfd0d0d1d2d3d4"
        "d5d6d7d8d9dadbdbdcdddedfe0e1e2e3e4e4e5e6e7e8e9eaebecededeeeff0f1f2f3f4f5f5f6f7f8f9fafbfcfdfdfeff"
    ),
    np.uint8,
)
_TO_GREY = np.frombuffer(
    bytes.fromhex(
        "000203040607080a0b0d0e0f1011121314151617171819191a1b1c1d1d1e1f2021222223242425262728292a2a2b2c2d2e2f2f30"
        "313233343435363738393a3b3b3c3d3e3f40414243434445464748494a4b4c4d4d4e4f505152535455565758595a5a5b5c5d5e5f"
        "606162636465666768696a6b6c6d6e6f70707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e90909293"
        "9495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaacadaeafb0b1b2b3b4b5b6b7b8b9babcbdbebfc0c1c2c3c4c5c6c7c8ca"
        "cbcccdcecfd0d1d2d3d4d6d7d8d9dadbdcdddee0e1e2e3e4e5e6e7e8eaebecedeeeff0f1f3f4f5f6f7f8f9fafcfdfeff"
    ),
    np.uint8,
)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a radiograph is prepared; part of the model bundle, so a query cannot be prepared in another way.

    `size` S in pixels; `clip_limit` and `tile_grid` (tiles a side) as OpenCV's CLAHE has them; `mean` and `std` by RGB
    channel on the scale [0, 1].
    """

    size: int = 352
    clahe: bool = True
    clip_limit: float = 2.0
    tile_grid: int = 8
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        whole = type(self.size) is int and type(self.tile_grid) is int and type(self.clahe) is bool
        if not (whole and 32 <= self.size <= 4096 and 1 <= self.tile_grid <= 64):
            raise ValueError(
                "size must be a whole number from 32 to 4096 pixels, tile_grid from 1 to 64, clahe a boolean"
            )
        numbers = (self.clip_limit, *self.mean, *self.std)
        if not all(type(number) in (int, float) and abs(number) <= 1000 for number in numbers):
            raise ValueError("clip_limit, mean and std must be numbers up to 1000")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.clip_limit, *self.std) < 0.001:
            raise ValueError(
                "mean and std must have a number for each of three channels, std and clip_limit 0.001 or more"
            )

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The reverse of `to_dict`, also after JSON. Raises TypeError or ValueError where a value does not fit."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The part of the S x S picture that a radiograph covers: rows top..top+height, columns left..left+width."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def fit(cls, height: int, width: int, size: int) -> "Letterbox":
        """The largest rectangle of the same aspect ratio, centred; no side is under one pixel."""
        scale = size / max(height, width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        return cls((size - h) // 2, (size - w) // 2, h, w)


def preprocess(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Contrast-enhanced, letterboxed RGB picture (S, S, 3), uint8, of a radiograph (H, W) grey or (H, W, 3) BGR."""
    pixels = one_channel(pixels)  # grey saved as colour: the same picture, so the same answer
    return letterbox(enhance(pixels, preprocessing) if preprocessing.clahe else pixels, preprocessing.size)


def enhance(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """CLAHE (Zuiderveld 1994) on the lightness alone: BGR to LAB, L equalised in tiles, back to BGR.

    A grey picture (H, W) stays one channel: on grey, BGR to LAB is a table of 256 lightnesses and LAB to BGR one of 256
    greys. The result is the blue channel of the conversion through colour, at a fifth of the cost. (OpenCV's three
    channels differ by up to one level.)
    """
    clahe = cv2.createCLAHE(
        clipLimit=preprocessing.clip_limit, tileGridSize=(preprocessing.tile_grid, preprocessing.tile_grid)
    )
    if pixels.ndim == 2:
        return np.asarray(cv2.LUT(clahe.apply(cv2.LUT(pixels, _TO_LIGHTNESS)), _TO_GREY), np.uint8)
    lightness, a, b = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_BGR2LAB))
    return np.asarray(cv2.cvtColor(cv2.merge((clahe.apply(lightness), a, b)), cv2.COLOR_LAB2BGR), np.uint8)


def shrink(pixels: NDArray[Any], longest: int) -> NDArray[Any]:
    """A picture (H, W) or (H, W, 3) with at most `longest` pixels on its long side; a smaller one stays as it is."""
    scale = longest / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), pixels.dtype)


def letterbox(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) BGR to (S, S, 3) RGB: scaled to fit, aspect ratio kept, black around it."""
    H, W = pixels.shape[:2]
    box = Letterbox.fit(H, W, size)
    shrinks = box.height < H or box.width < W
    scaled = cv2.resize(pixels, (box.width, box.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    rgb = cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB if scaled.ndim == 2 else cv2.COLOR_BGR2RGB)
    picture = np.zeros((size, size, 3), np.uint8)
    picture[box.top : box.top + box.height, box.left : box.left + box.width] = rgb
    return picture


def normalise(pictures: Sequence[Picture] | NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """B pictures (S, S, 3) RGB, 0 to 255, to the encoder's input (B, 3, S, S): (x / 255 - mean) / std by channel."""
    scale = np.array([1 / (255 * s) for s in preprocessing.std], np.float32)
    shift = np.array([-m / s for m, s in zip(preprocessing.mean, preprocessing.std, strict=True)], np.float32)
    batch = np.empty((len(pictures), 3, preprocessing.size, preprocessing.size), np.float32)
    for planes, picture in zip(batch, pictures, strict=True):
        for channel in range(3):
            np.multiply(picture[:, :, channel], scale[channel], out=planes[channel])
            planes[channel] += shift[channel]
    return batch
