"""Damage of a JPEG that libjpeg does not report: later blocks are shifted in brightness, or tinted."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.images.decoder_messages import messages_of_this_thread
from retrieval.images.jpeg_damage import is_damaged
from retrieval.images.radiograph import decode_radiograph
from retrieval.notices import Code
from retrieval.synthetic.dataset import draw_study

DRAWN = cv2.resize(draw_study(0, 1, abnormal=True)[0].pixels, (360, 440), interpolation=cv2.INTER_AREA)
RADIOGRAPH = np.asarray(np.clip(DRAWN.astype(int) // 2 + 40, 0, 255), np.uint8)  # no black and no white


def jpeg(pixels: NDArray[np.uint8], quality: int = 92) -> bytes:
    return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def shifted(grey: NDArray[np.uint8], row: int, column: int, by: int, block: int = 8) -> NDArray[np.uint8]:
    """Grey levels of all blocks from (row, column) on, in their order, are `by` higher."""
    picture = grey.astype(int)
    picture[row : row + block, column:] += by
    picture[row + block :] += by
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("column", [0, 104, 176, 264, 344])
@pytest.mark.parametrize("by", [-20, -5, 5, 20])
def test_a_step_along_blocks_is_damage(column: int, by: int, block: int) -> None:
    assert is_damaged(shifted(RADIOGRAPH, 208, column, by, block), jpeg(RADIOGRAPH))


@pytest.mark.parametrize("row", [205, 211, 212])
def test_a_step_elsewhere_is_no_damage(row: int) -> None:
    assert not is_damaged(shifted(RADIOGRAPH, row, 0, 20), jpeg(RADIOGRAPH))


def test_an_edge_of_what_is_shown_is_no_damage() -> None:
    """A collimator's edge along a boundary of blocks: what is shown ends there."""
    for level in (0, 30, 255):
        picture = RADIOGRAPH.copy()
        picture[208:] = level
        assert not is_damaged(picture, jpeg(picture))


@pytest.mark.parametrize("quality", [10, 30, 60])
def test_coarse_quantisation_is_no_damage(quality: int) -> None:
    for study in range(6):
        data = jpeg(draw_study(0, study, abnormal=False)[0].pixels, quality)
        assert not is_damaged(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), -1), np.uint8), data)


def test_a_tint_from_some_row_on_is_damage() -> None:
    colour = np.dstack([RADIOGRAPH] * 3)
    assert not is_damaged(colour, jpeg(colour))
    tinted = colour.copy()
    tinted[208:, :, 2] += 6
    assert is_damaged(tinted, jpeg(colour))
    assert not is_damaged(colour + np.array([0, 0, 6], np.uint8), jpeg(colour)), "all of it has the tint"


def test_small_pictures_are_not_judged() -> None:
    for shape in ((1, 1), (8, 900), (900, 8), (63, 64)):
        assert not is_damaged(np.zeros(shape, np.uint8), b"")


def test_changed_bytes_that_libjpeg_does_not_report_are_found() -> None:
    """Twelve bytes in the middle of a file are changed. Where libjpeg is silent, two of three pictures are flagged."""
    sound, random = jpeg(RADIOGRAPH), np.random.default_rng(5)
    assert not decode_radiograph(sound, "a.jpg").notices
    picture = decode_radiograph(sound, "a.jpg").pixels.astype(int)
    silent = flagged = 0
    for _ in range(60):
        data = bytearray(sound)
        start = len(data) // 3 + int(random.integers(len(data) // 4))
        data[start : start + 12] = random.bytes(12).replace(b"\xff", b"\0")
        with messages_of_this_thread() as messages:
            changed = cv2.imdecode(np.frombuffer(data, np.uint8), -1)
        if changed is None or b"".join(messages) or (np.abs(changed.astype(int) - picture) > 5).mean() < 0.1:
            continue
        silent += 1
        notices = decode_radiograph(bytes(data), "a.jpg").notices
        flagged += Code.DAMAGED in {notice.code for notice in notices}
    assert silent >= 5
    assert flagged >= silent * 2 / 3
