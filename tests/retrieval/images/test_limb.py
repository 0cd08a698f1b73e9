"""The mask of a limb: thin and pale parts are kept, empty film and bright frames are not, doubt keeps everything."""

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.images.limb import limb_mask
from retrieval.synthetic.dataset import draw_study


def hand(ground: int = 20) -> NDArray[np.uint8]:
    """A bright palm and a pale finger on dark film with a little noise and shade."""
    film = np.random.default_rng(0).normal(ground, 1.5, (400, 300)) + np.linspace(0, 6, 300)
    film[200:400, 80:220] = 180
    film[60:200, 120:140] = ground + 22
    return np.clip(film, 0, 255).astype(np.uint8)


def test_a_pale_finger_is_limb_and_the_film_around_it_is_not() -> None:
    mask = limb_mask(hand())
    assert mask[60:200, 120:140].mean() > 0.95
    assert mask[210:390, 90:210].all()
    corners = mask[:40, :60], mask[:40, -60:], mask[-60:, :40]
    assert max(float(corner.mean()) for corner in corners) < 0.02


def test_a_bright_edge_of_the_cassette_is_no_limb() -> None:
    pixels = hand()
    pixels[:12] = 230
    assert limb_mask(pixels)[:4].mean() < 0.1


@pytest.mark.parametrize("pixels", [np.full((200, 200), 90, np.uint8), np.zeros((3, 5), np.uint8), 255 - hand()])
def test_where_the_rim_is_not_dark_everything_is_limb(pixels: NDArray[np.uint8]) -> None:
    mask = limb_mask(pixels)
    assert mask.shape == pixels.shape
    assert mask[hand()[: mask.shape[0], : mask.shape[1]] > 100].all()


def test_drawn_fingers_keep_their_lesions() -> None:
    for study in range(4):
        for view in draw_study(5, study, abnormal=True):
            assert limb_mask(view.pixels)[view.mask].all()
