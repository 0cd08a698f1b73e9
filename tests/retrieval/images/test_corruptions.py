import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.images.corruptions import CORRUPTIONS, STRENGTHS, corrupt

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def limb() -> Picture:
    """Bright shapes with sharp edges on black, and a little texture."""
    picture = np.zeros((240, 180), np.uint8)
    cv2.ellipse(picture, (90, 120), (40, 100), 10, 0, 360, 170, -1)
    cv2.line(picture, (80, 40), (100, 200), 60, 2)
    return np.asarray(np.clip(picture + np.random.default_rng(0).normal(0, 2, picture.shape), 0, 255), np.uint8)


def difference(one: Picture, other: Picture) -> float:
    if one.shape != other.shape:
        other = np.asarray(cv2.resize(other, one.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_changes_a_picture_more_the_stronger_it_is(name: str, limb: Picture) -> None:
    changed = [corrupt(limb, name, strength, seed=3) for strength in range(len(STRENGTHS))]
    assert all(each.dtype == np.uint8 and each.ndim == 2 for each in changed)
    if name == "enlarged":  # shrunk again it is the picture; it is only larger
        assert [each.shape for each in changed] == [(360, 270), (480, 360), (720, 540)]
        return
    sizes = [difference(limb, each) for each in changed]
    assert 0 < sizes[0] < sizes[2]
    assert sizes[0] < sizes[1] or name == "rotated"


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_gives_the_same_picture_in_grey_and_colour(name: str, limb: Picture) -> None:
    before = limb.copy()
    assert np.array_equal(corrupt(limb, name, 1, seed=5), corrupt(limb, name, 1, seed=5))
    assert np.array_equal(limb, before)
    colour = corrupt(np.dstack([limb] * 3), name, 1, seed=5)
    assert colour.shape == (*corrupt(limb, name, 1, seed=5).shape, 3)


@pytest.mark.parametrize("name", ["quantum-noise", "electronic-noise", "text", "rotated"])
def test_other_seeds_give_other_pictures(name: str, limb: Picture) -> None:
    pictures = {corrupt(limb, name, 1, seed).tobytes() for seed in range(8)}
    assert len(pictures) > 1


def test_blur_and_enhancement_are_opposite_in_their_fine_detail(limb: Picture) -> None:
    def detail(picture: Picture) -> float:
        return float(np.abs(cv2.Laplacian(picture.astype(np.float32), -1)).mean())

    plain = detail(limb)
    assert detail(corrupt(limb, "blurred", 1)) < plain < detail(corrupt(limb, "unsharp-masked", 1))
    assert plain < detail(corrupt(limb, "edge-enhanced", 1))


def test_quantum_noise_is_that_of_its_quanta() -> None:
    # 20 of 100 quanta pass the densest bone: with 1,000 behind air, 200 reach a pixel, give or take 14.1. A grey level
    # stands for 800 / 255 quanta.
    bone = np.full((300, 300), 200, np.uint8)
    expected = 1000 * (100 - 80 * 200 / 255) / 100
    noise = corrupt(bone, "quantum-noise", 1).astype(float)
    assert noise.mean() == pytest.approx(200, abs=0.2)
    assert noise.std() == pytest.approx(np.sqrt(expected) * 255 / 800, rel=0.03)


def test_a_narrow_window_keeps_the_middle_and_a_quarter_turn_the_pixels(limb: Picture) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    cut = corrupt(ramp, "narrow-window", 1)[0]
    assert list(cut[[0, 25, 26, 127, 128, 229, 230, 255]]) == [0, 0, 1, 127, 128, 254, 255, 255]
    turned = corrupt(limb, "rotated", 2, seed=1)
    assert turned.shape == limb.shape[::-1]


def test_unknown_names_and_strengths_are_refused(limb: Picture) -> None:
    with pytest.raises(KeyError):
        corrupt(limb, "haunted", 0)
    with pytest.raises(IndexError):
        corrupt(limb, "blurred", 3)
