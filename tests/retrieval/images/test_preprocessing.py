import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.images import preprocessing
from retrieval.images.preprocessing import Letterbox, Preprocessing, enhance, letterbox, normalise, preprocess, shrink

HOW = Preprocessing(size=64)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    smooth = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(height, width)), (0, 0), 3)
    spread = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.asarray(np.round(spread * 255), np.uint8)


def merged(*channels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack(channels, 2)


def test_grey_goes_the_way_through_lab() -> None:
    # The oracle is the report's five steps, literally.
    grey = noise(190, 131)
    lightness, a, b = cv2.split(cv2.cvtColor(merged(grey, grey, grey), cv2.COLOR_BGR2LAB))
    clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
    through_colour = cv2.cvtColor(cv2.merge((clahe.apply(lightness), a, b)), cv2.COLOR_LAB2BGR)
    assert np.array_equal(enhance(grey, HOW), through_colour[:, :, 0])
    assert np.abs(through_colour.astype(int) - enhance(grey, HOW)[:, :, None]).max() <= 1


def test_tables_of_lightness_are_those_of_opencv() -> None:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    neutral = np.full_like(ramp, 128)
    lightness = cv2.cvtColor(merged(ramp, ramp, ramp), cv2.COLOR_BGR2LAB)[:, 0, 0]
    grey = cv2.cvtColor(merged(ramp, neutral, neutral), cv2.COLOR_LAB2BGR)[:, 0, 0]
    assert np.array_equal(preprocessing._TO_LIGHTNESS, lightness)
    assert np.array_equal(preprocessing._TO_GREY, grey)


def test_only_lightness_is_enhanced() -> None:
    colour = merged(noise(120, 90), noise(120, 90, seed=1), noise(120, 90, seed=2)) // 2 + 60
    before, after = (cv2.cvtColor(image, cv2.COLOR_BGR2LAB).astype(int) for image in (colour, enhance(colour, HOW)))
    assert np.abs(after - before)[:, :, 0].mean() > 5
    assert np.median(np.abs(after - before)[:, :, 1:]) <= 2  # out-of-gamut colours are clipped on the way back


def test_grey_and_the_same_grey_as_colour_are_one_picture() -> None:
    grey = noise(77, 130)
    assert np.array_equal(preprocess(grey, HOW), preprocess(merged(grey, grey, grey), HOW))


def test_colour_is_given_as_rgb() -> None:
    blue = np.zeros((64, 64, 3), np.uint8)
    blue[:, :, 0] = 200
    assert preprocess(blue, Preprocessing(size=64, clahe=False))[32, 32].tolist() == [0, 0, 200]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 512))
def test_letterbox_keeps_the_aspect_ratio_and_lies_inside(height: int, width: int, size: int) -> None:
    box = Letterbox.fit(height, width, size)
    assert max(box.height, box.width) == size
    assert 0 <= box.top <= size - box.height
    assert 0 <= box.left <= size - box.width
    assert abs(box.height - max(1, height * size / max(height, width))) <= 0.5
    assert abs((size - box.height) - 2 * box.top) <= 1


def test_letterbox_fills_with_black_and_centres() -> None:
    picture = letterbox(np.full((10, 20), 255, np.uint8), 40)
    assert picture[10:30].min() == 255
    assert picture[:10].max() == 0
    assert picture[30:].max() == 0


def test_normalise_by_hand() -> None:
    how = Preprocessing(size=32, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    picture = np.full((32, 32, 3), 255, np.uint8)
    picture[0, 0] = (0, 51, 102)
    batch = normalise([picture], how)
    assert batch.dtype == np.float32
    assert batch[0, :, 5, 5] == pytest.approx([1.0, 1.0, 0.0])
    assert batch[0, :, 0, 0] == pytest.approx([0.0, (0.2 - 0.5) / 0.5, (0.4 - 1) / 0.25], abs=1e-6)


def test_preprocessing_survives_json_and_refuses_nonsense() -> None:
    import json

    how = Preprocessing(size=224, clahe=False, clip_limit=3.5)
    assert Preprocessing.from_dict(json.loads(json.dumps(how.to_dict()))) == how
    for wrong in ({"size": 0}, {"clip_limit": 0}, {"tile_grid": 0}):
        with pytest.raises(ValueError, match="must"):
            Preprocessing(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(40, 80), (80, 40, 3)])
def test_shrink_keeps_the_aspect_ratio_and_enlarges_nothing(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 7, np.uint8)
    assert shrink(pixels, 80) is pixels
    small = shrink(pixels, 20)
    assert small.shape == tuple(side // 4 if side > 3 else side for side in shape)
    assert (small == 7).all()


def test_preprocessing_needs_three_channels() -> None:
    with pytest.raises(ValueError, match="three channels"):
        Preprocessing(mean=(0.5,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="up to 1000"):
        Preprocessing(clip_limit=2000.0)
