from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.encoding.batches import thumbnail
from retrieval.encoding.picture_hash import BITS, picture_hash, picture_hashes, same_picture
from retrieval.synthetic.dataset import draw_study

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def drawn() -> list[Pixels]:
    return [phantom.pixels for study in range(12) for phantom in draw_study(3, study, study % 2 == 0)]


def hashes(pictures: list[Pixels]) -> Pixels:
    return picture_hashes(map(thumbnail, pictures))


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    decoded = cv2.imdecode(cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))[1], cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return decoded.astype(np.uint8)


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "itself": lambda pixels: pixels,
    "colour": lambda pixels: np.repeat(pixels[:, :, None], 3, 2),
    "JPEG": lambda pixels: jpeg(pixels, 90),
    "poor JPEG": lambda pixels: jpeg(pixels, 50),
    "half": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.uint8),
    "square": lambda pixels: cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA).astype(np.uint8),
    "darker": lambda pixels: (pixels * 0.9).astype(np.uint8),
    "gamma": lambda pixels: (255 * (pixels / 255) ** 0.8).astype(np.uint8),
    "inverted": lambda pixels: 255 - pixels,
    **{f"turned {90 * turns}": lambda pixels, turns=turns: np.rot90(pixels, turns) for turns in (1, 2, 3)},  # type: ignore[misc]
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "transposed JPEG, inverted": lambda pixels: jpeg(255 - pixels.T, 90),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_radiograph_in_other_bytes_is_the_same_picture(drawn: list[Pixels], copy: str) -> None:
    own = hashes(drawn)
    for number, copied in enumerate(hashes([COPIES[copy](pixels) for pixels in drawn])):
        assert same_picture(copied[None], own[number : number + 1]).all()


def test_different_radiographs_are_different_pictures(drawn: list[Pixels]) -> None:
    own = hashes(drawn)
    for number in range(len(own)):
        assert not same_picture(own[number : number + 1], np.delete(own, number, 0)).any()


def test_blank_and_unreadable_pictures_are_like_none() -> None:
    blank = [thumbnail(np.full((50, 40), 90, np.uint8)), b"", b"no picture"]
    assert not picture_hashes(blank).any()
    assert not same_picture(picture_hashes(blank), picture_hashes(blank)).any()
    assert not same_picture(picture_hashes(blank), np.zeros((0, 64), np.uint8)).any()
    assert same_picture(np.zeros((0, 64), np.uint8), picture_hashes(blank)).dtype == np.bool_


def test_bits_are_signs_of_the_lowest_frequencies() -> None:
    columns = np.mgrid[:64, :64][1]
    wave = 128 + 60 * np.cos(np.pi * (2 * columns + 1) * 1 / 128)  # the first frequency across: (0, 1), the first bit
    first = picture_hash(cv2.imencode(".png", wave.astype(np.uint8))[1].tobytes())
    falling = picture_hash(cv2.imencode(".png", (256 - wave).astype(np.uint8))[1].tobytes())
    assert len(first) * 8 == BITS
    assert (first[0] >> 7, falling[0] >> 7) == (1, 0)
