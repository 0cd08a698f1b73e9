"""Pictures for a page, on heatmaps that can be followed by hand."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.encoding.batches import small_jpeg
from retrieval.explain.rendering import heatmap_png, strongest_region
from retrieval.explain.smooth_grad_cam import Heatmap, Smoothing


def heatmap(values: NDArray[np.float32]) -> Heatmap:
    return Heatmap(values, "abnormal", Smoothing(noise=0))


def decoded(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


def test_a_radiograph_is_made_smaller_and_never_larger() -> None:
    pixels = np.full((100, 50), 90, np.uint8)
    assert decoded(small_jpeg(pixels, 40)).shape == (40, 20)
    assert decoded(small_jpeg(pixels, 4000)).shape == (100, 50)
    assert decoded(small_jpeg(np.dstack([pixels] * 3), 40)).shape == (40, 20, 3)
    assert abs(int(decoded(small_jpeg(pixels, 40)).mean()) - 90) <= 1
    assert decoded(small_jpeg(np.zeros((1, 9000), np.uint8), 80)).shape == (1, 80)


def test_a_heatmap_is_clear_where_nothing_speaks_and_opaque_where_all_does() -> None:
    values = np.zeros((60, 40), np.float32)
    values[:20], values[20:40] = 1, 0.5
    drawn = decoded(heatmap_png(heatmap(values)))
    assert drawn.shape == (60, 40, 4)
    assert (drawn[45:, :, 3] == 0).all()
    assert (drawn[:15, :, 3] == 255).all()
    middle = drawn[25:35, :, 3]
    assert (np.abs(middle.astype(int) - 255 * 0.5**1.5) <= 1).all()
    # A white line runs around what lies above 3/4, and nowhere else.
    white = (drawn == 255).all(axis=2)
    assert white[19].all()
    assert not white[1:18, 1:-1].any()
    assert not white[20:].any()


def test_a_large_heatmap_keeps_its_proportions() -> None:
    assert decoded(heatmap_png(heatmap(np.ones((1000, 500), np.float32)), 100)).shape == (100, 50, 4)


@pytest.mark.parametrize(
    ("y", "x", "words"),
    [(0, 0, "upper left"), (0, 8, "upper right"), (4, 4, "centre"), (4, 0, "middle left"), (8, 4, "lower centre")],
)
def test_the_strongest_place_in_words(y: int, x: int, words: str) -> None:
    values = np.zeros((9, 9), np.float32)
    values[y, x] = 0.5
    assert strongest_region(heatmap(values)) == words
    assert strongest_region(heatmap(np.zeros((9, 9), np.float32))) == "nowhere"
