"""Radiographs spoilt: what stays, what goes."""

import numpy as np
import pytest

from training.data.outliers import inside, spoilt

H, W, S = 96, 72, 128


@pytest.fixture
def picture() -> np.ndarray:
    """A bright bar and grain within a letterbox."""
    made = np.zeros((S, S, 1), np.uint8)
    made[16 : 16 + H, 28 : 28 + W, 0] = np.random.default_rng(0).integers(30, 50, (H, W))
    made[20 : 10 + H, 60:68] += 150
    return made


def test_the_letterbox_stays(picture: np.ndarray) -> None:
    assert inside(picture) == (slice(16, 16 + H), slice(28, 28 + W))
    within = np.zeros((S, S), bool)
    within[inside(picture)] = True
    for seed in range(30):
        made = spoilt(picture, np.random.default_rng(seed))
        assert made.shape == (S, S, 3)
        assert made.dtype == np.uint8
        assert not made[~within].any()


def test_it_differs_in_every_way_and_again_for_the_same_seed(picture: np.ndarray) -> None:
    made = [spoilt(picture, np.random.default_rng(seed)) for seed in range(30)]
    assert all((one != picture).any() for one in made)
    assert len({one.tobytes() for one in made}) > 25
    again = [spoilt(picture, np.random.default_rng(seed)) for seed in range(30)]
    assert all((one == other).all() for one, other in zip(made, again, strict=True))


def test_pieces_in_another_order_are_the_same_pixels(picture: np.ndarray) -> None:
    same = [
        (np.sort(made, None) == np.sort(np.repeat(picture, 3, 2), None)).all()
        for made in (spoilt(picture, np.random.default_rng(seed)) for seed in range(60))
    ]
    assert 10 <= sum(same) <= 30  # a third of them


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (9, 40)])
def test_small_pictures_and_black_ones(size: tuple[int, int]) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    assert not spoilt(picture, np.random.default_rng(0)).any()
    picture[: size[0], : size[1]] = np.random.default_rng(1).integers(1, 256, (*size, 3))
    for seed in range(20):
        made = spoilt(picture, np.random.default_rng(seed))
        assert not made[size[0] :].any()
        assert not made[:, size[1] :].any()
