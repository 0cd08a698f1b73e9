"""What counts as blank: by hand, by noise, and none of what shows something."""

import numpy as np
import pytest

from retrieval.images.blank import is_nearly_blank


@pytest.mark.parametrize("level", [0, 7, 128, 255])
@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)])
def test_one_level_is_blank(level: int, shape: tuple[int, ...]) -> None:
    assert is_nearly_blank(np.full(shape, level, np.uint8))


def test_a_marker_and_noise_do_not_make_a_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 10, (100, 100), dtype=np.uint8)
    pixels[:10, :29] = 255
    assert is_nearly_blank(pixels)
    pixels[:10, :31] = 255  # 3.1 % of the pixels
    assert not is_nearly_blank(pixels)


def test_a_band_has_16_levels() -> None:
    rows = np.arange(50) % 2 == 0
    assert is_nearly_blank(np.where(rows, 100, 115).astype(np.uint8)[:, None])
    assert not is_nearly_blank(np.where(rows, 100, 116).astype(np.uint8)[:, None])


def test_a_picture_in_one_channel_is_a_picture() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :, 2] = 200
    assert not is_nearly_blank(pixels)
