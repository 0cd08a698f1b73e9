from pathlib import Path

import cv2
import numpy as np
import pytest

from retrieval.datasets.collection import read_collection
from retrieval.images.preprocessing import Preprocessing
from training.data.dataset import load_training_set
from training.data.processing import UNCHANGED, processed

DRAWS = 240


@pytest.fixture(scope="module")
def radiograph() -> np.ndarray:
    """Soft tissue with a bone of fine texture, dark around it."""
    rng = np.random.default_rng(0)
    picture = np.full((96, 80), 20, np.float32)
    cv2.ellipse(picture, (40, 48), (24, 40), 0, 0, 360, 90, -1)
    cv2.rectangle(picture, (32, 16), (48, 80), 190, -1)
    fine = cv2.GaussianBlur(rng.normal(0, 30, picture.shape).astype(np.float32), (0, 0), 0.7)
    return (picture + fine).clip(0, 255).astype(np.uint8)


def draws(radiograph: np.ndarray, strength: float = 1.0) -> list[np.ndarray | None]:
    return [processed(radiograph, np.random.default_rng(seed), strength) for seed in range(DRAWS)]


def test_a_third_is_unchanged_and_the_same_seed_gives_the_same_picture(radiograph: np.ndarray) -> None:
    made = draws(radiograph)
    unchanged = sum(picture is None for picture in made)
    assert abs(unchanged / DRAWS - UNCHANGED) < 0.1
    for seed, picture in enumerate(made):
        again = processed(radiograph, np.random.default_rng(seed))
        if picture is None or again is None:
            assert picture is again
        else:
            assert np.array_equal(again, picture)
            assert picture.shape == radiograph.shape
            assert picture.dtype == np.uint8


def test_some_are_much_softer_and_some_much_sharper(radiograph: np.ndarray) -> None:
    def detail(picture: np.ndarray) -> float:
        values = picture[20:76, 34:46].astype(np.float64)  # within the bone
        return float(cv2.Laplacian(values, cv2.CV_64F).std() / max(values.std(), 1))

    ratios = np.array([detail(picture) / detail(radiograph) for picture in draws(radiograph) if picture is not None])
    assert (ratios < 0.7).mean() > 0.15
    assert (ratios > 1.1).mean() > 0.1


def test_what_is_shown_stays_where_it_is(radiograph: np.ndarray) -> None:
    outline = cv2.GaussianBlur(radiograph, (0, 0), 3)[12:84, 10:70].ravel()
    same = [
        np.corrcoef(outline, cv2.GaussianBlur(picture, (0, 0), 3)[12:84, 10:70].ravel())[0, 1]
        for picture in draws(radiograph)
        if picture is not None
    ]
    assert np.median(same) > 0.97
    assert min(same) > 0.7


def test_strength_multiplies_what_is_drawn(radiograph: np.ndarray) -> None:
    def change(strength: float) -> float:
        made = [picture for picture in draws(radiograph, strength) if picture is not None]
        return float(np.mean([np.abs(picture.astype(int) - radiograph).mean() for picture in made]))

    assert change(0.2) < 0.6 * change(1.0)


def test_a_set_gives_pictures_as_they_are_or_processed_before_their_contrast_is_equalised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("positive", "negative"):
        folder = tmp_path / "XR_WRIST" / f"patient{label}" / f"study1_{label}"
        folder.mkdir(parents=True)
        picture = cv2.GaussianBlur(rng.integers(0, 256, (60, 40), np.uint8), (0, 0), 1)
        cv2.imwrite(str(folder / "image1.png"), picture)
    collection, how = read_collection(tmp_path), Preprocessing(size=64)
    plain, _ = load_training_set([collection], how, cache=tmp_path / "cache")
    data, _ = load_training_set([collection], how, cache=tmp_path / "cache", processing=1.0)
    as_it_is, _ = plain.take([0, 1])
    assert np.array_equal(data.take([0, 1])[0], as_it_is)
    assert np.array_equal(plain.take([0, 1], np.random.default_rng(0))[0], as_it_is)  # it was not asked for

    taken = [data.rows(np.array([1, 0])).take([0], np.random.default_rng(seed))[0][0] for seed in range(12)]
    same = [np.array_equal(picture, as_it_is[1]) for picture in taken]
    assert any(same)
    assert not all(same)
    assert all((picture[:, :10] == 0).all() and (picture[:, -10:] == 0).all() for picture in taken)  # the letterbox
