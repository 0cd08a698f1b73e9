"""One radiograph, changed, against itself and against others."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from retrieval.audit.registration import detail_match
from retrieval.synthetic.dataset import draw_study

Draw = Callable[..., np.ndarray]


def cut_short(picture: np.ndarray) -> np.ndarray:
    """As a JPEG file that ends early is read."""
    changed = picture.copy()
    changed[-len(changed) // 4 :] = 0
    return changed


def zoomed_and_tilted(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape
    return cv2.warpAffine(picture, cv2.getRotationMatrix2D((width / 2, height / 2), 3, 1.05), (width, height))


def turned(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape
    return cv2.warpAffine(picture, cv2.getRotationMatrix2D((width / 2, height / 2), -27, 1), (width, height))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "itself": lambda picture: picture,
    "turned by 27 degrees": turned,
    "smaller": lambda picture: cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "darker": lambda picture: (picture * 0.7 + 20).astype(np.uint8),
    "compressed": lambda picture: np.asarray(
        cv2.imdecode(cv2.imencode(".jpg", picture, [1, 30])[1], cv2.IMREAD_GRAYSCALE)
    ),
    "cropped": lambda picture: picture[len(picture) // 16 :, : -picture.shape[1] // 20],
    "tilted": zoomed_and_tilted,
    "cut short": cut_short,
}


@pytest.fixture(scope="module")
def fingers() -> list[np.ndarray]:
    return [draw_study(5, study, abnormal=False)[0].pixels for study in range(4)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_finger_is_still_the_same(fingers: list[np.ndarray], change: str) -> None:
    for finger in fingers:
        assert detail_match(CHANGES[change](finger), finger).same
        assert detail_match(finger, CHANGES[change](finger)).same


def test_other_fingers_are_not(fingers: list[np.ndarray]) -> None:
    for number, finger in enumerate(fingers):
        for other in fingers[:number]:
            assert not detail_match(finger, other).same


def test_the_mirror_image_is_another_picture(fingers: list[np.ndarray]) -> None:
    for finger in fingers:
        assert not detail_match(np.ascontiguousarray(finger[:, ::-1]), finger).same


def test_the_same_to_the_last_bit(texture: Draw) -> None:
    match = detail_match(texture(1), texture(1))
    assert match.correlation == pytest.approx(1)
    assert match.same
    assert not match.aligned


def test_a_negative_is_no_copy(texture: Draw) -> None:
    assert detail_match(255 - texture(1), texture(1)).correlation < 0.5


@pytest.mark.parametrize("grey", [0, 200])
def test_a_blank_picture_is_like_nothing(texture: Draw, grey: int) -> None:
    blank = np.full((50, 60), grey, np.uint8)
    assert detail_match(blank, texture(1)).correlation < 0.1
    assert detail_match(blank, blank).correlation == 0
