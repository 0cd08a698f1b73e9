"""Perceptual hashes against a cosine transform written out, and what leaves them alone."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.audit.perceptual_hash import BITS, ORIENTATIONS, distances, perceptual_hashes, without_border

Draw = Callable[..., np.ndarray]


def noise(seed: int) -> np.ndarray:
    """A picture (32, 32) in which no wave is missing."""
    dice = np.random.default_rng(seed)
    return np.clip(dice.normal(128, 30, (32, 32)), 0, 255).astype(np.uint8)


def differing(one: int, two: int) -> int:
    return (one ^ two).bit_count()


def hashes(picture: np.ndarray) -> tuple[int, ...]:
    found = perceptual_hashes(picture)
    assert found is not None
    return found


def test_bits_are_the_signs_of_the_lowest_waves() -> None:
    picture = noise(1)
    places = np.arange(32)
    waves = np.cos(np.pi * np.outer(places, places + 0.5) / 32)  # DCT-II but for positive factors
    amounts = waves @ picture.astype(float) @ waves.T
    order = sorted((row + column, row, column) for row in range(11) for column in range(11) if 0 < row + column <= 10)
    order.remove((10, 5, 5))
    wanted = "".join("1" if amounts[row, column] > 0 else "0" for _, row, column in order)
    assert f"{hashes(picture)[0]:064b}" == wanted


def test_one_wave_by_hand() -> None:
    """Bright on the left: the first wave across is positive, and negative in the mirror image."""
    picture = np.tile(np.linspace(200, 50, 32).astype(np.uint8), (32, 1))
    first, mirrored = hashes(picture)[0], hashes(picture)[4]
    across = 1 << (BITS - 1)  # (0, 1) comes first
    assert first & across
    assert not mirrored & across


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_a_turned_or_flipped_picture_has_the_hash_of_that_orientation(seed: int) -> None:
    picture = noise(seed)
    assert len({orientation.applied(picture).tobytes() for orientation in ORIENTATIONS}) == 8
    for orientation, expected in zip(ORIENTATIONS, hashes(picture), strict=True):
        turned = orientation.applied(picture)
        assert differing(hashes(turned)[0], expected) <= 1  # a wave near zero, rounded in another order
        assert np.array_equal(orientation.inverse.applied(turned), picture)


def test_orientations_by_hand() -> None:
    picture = np.array([[1, 2], [3, 4]], np.uint8)
    quarter, mirror = ORIENTATIONS[1], ORIENTATIONS[4]
    assert quarter.applied(picture).tolist() == [[2, 4], [1, 3]]  # counter-clockwise
    assert mirror.applied(picture).tolist() == [[2, 1], [4, 3]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_an_inverted_picture_has_all_bits_inverted(seed: int) -> None:
    picture = noise(seed)
    assert differing(hashes(255 - picture)[0], hashes(picture)[0]) >= BITS - 1


@pytest.mark.parametrize("grey", [0, 90, 255])
@pytest.mark.parametrize("sides", [(9, 9, 12, 12), (0, 40, 0, 0), (0, 0, 5, 0)])
def test_a_border_is_removed(texture: Draw, grey: int, sides: tuple[int, int, int, int]) -> None:
    picture = texture(1)
    top, bottom, left, right = sides
    bordered = np.pad(picture, ((top, bottom), (left, right)), constant_values=grey)
    inside = without_border(bordered)
    assert all(lost <= 5 for lost in np.subtract(picture.shape, inside.shape))  # blurred pixels go with the border
    assert differing(hashes(inside)[0], hashes(picture)[0]) <= 12
    assert np.array_equal(without_border(picture), picture)


def test_a_blank_picture_has_no_inside() -> None:
    blank = np.full((40, 30), 7, np.uint8)
    assert np.array_equal(without_border(blank), blank)
    blank[20, 15] = 200
    assert np.array_equal(without_border(blank), blank)  # too little would be left


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_a_larger_picture_has_the_same_hash(seed: int, factor: int) -> None:
    picture = noise(seed)
    assert perceptual_hashes(np.kron(picture, np.ones((factor, factor), np.uint8))) == perceptual_hashes(picture)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 0.9), st.floats(0, 20))
def test_brightness_and_contrast_change_few_bits(seed: int, contrast: float, brightness: float) -> None:
    picture = noise(seed)
    changed = np.round(contrast * picture + brightness).astype(np.uint8)
    assert differing(hashes(changed)[0], hashes(picture)[0]) <= 6  # white noise has waves near zero


def test_colour_is_taken_as_grey() -> None:
    picture = noise(3)
    assert perceptual_hashes(np.repeat(picture[:, :, None], 3, axis=2)) == perceptual_hashes(picture)


def test_different_pictures_differ_in_about_half_of_the_bits(texture: Draw) -> None:
    found = [hashes(texture(seed))[0] for seed in range(40)]
    apart = [differing(one, two) for i, one in enumerate(found) for two in found[:i]]
    assert 28 < np.mean(apart) < 36
    assert min(apart) > 8


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_blank_picture_has_none(grey: int) -> None:
    picture = np.full((40, 30), grey, np.uint8)
    picture[3, 3] ^= 1
    assert perceptual_hashes(picture) is None


@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_distances_of_all_to_all(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("retrieval.audit.perceptual_hash._CHUNK", chunk)
    dice = np.random.default_rng(0)
    one, two = (dice.integers(0, 1 << 63, size, dtype=np.uint64) for size in (5, 4))
    found = np.concatenate([bits for _, bits in distances(one, two)])
    assert found.tolist() == [[differing(a, b) for b in two.tolist()] for a in one.tolist()]
