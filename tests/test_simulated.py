"""Simulated fractures (benchmarks/simulated.py): what is broken is where the coverage says, and nothing else is."""

import importlib
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

S, REACH = 240, 56


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("simulated")


@pytest.fixture
def picture() -> np.ndarray:
    """A light bone with a texture, from top to bottom, on a darker limb."""
    grain = np.random.default_rng(0).normal(size=(S, S)).astype(np.float32)
    limb = 80 + 40 * cv2.GaussianBlur(grain, (0, 0), 2)
    limb[:, 95:145] += 90
    return cv2.GaussianBlur(limb, (0, 0), 1).clip(0, 255).astype(np.uint8)[:, :, None]


def test_fractures_lie_in_their_boxes_and_on_the_bone(picture: np.ndarray, simulated: ModuleType) -> None:
    on_bone = within = seen = 0
    for seed in range(40):
        broken, coverage = simulated.fractured(picture, REACH, np.random.default_rng(seed))
        whole, nothing = simulated.warped(picture, np.random.default_rng(seed))  # bent in the same way
        assert broken.shape == whole.shape == picture.shape
        assert broken.dtype == whole.dtype == np.uint8
        assert not nothing.any()
        rows, columns = np.nonzero(coverage)
        middle = 4 * np.array([rows.mean(), columns.mean()]) + 2
        assert abs(middle - S / 2).max() <= REACH + 4
        on_bone += 90 < middle[1] < 150
        changed = np.abs(broken.astype(int) - whole).max(2)
        seen += changed.max() > 10
        # A step fades away from its line, so its far side reaches out of the box.
        box = cv2.dilate(cv2.resize(coverage, (S, S), interpolation=cv2.INTER_NEAREST), np.ones((83, 83), np.uint8))
        assert not changed[box == 0].any()
        inside = cv2.resize(coverage, (S, S), interpolation=cv2.INTER_NEAREST) > 0
        within += changed[inside].mean() > 4 * changed[~inside].mean()
    assert on_bone > 30
    assert within > 35
    assert 25 < seen < 40  # some are subtle


def test_where_nothing_looks_like_bone_nothing_breaks(simulated: ModuleType) -> None:
    broken, coverage = simulated.fractured(np.zeros((S, S, 1), np.uint8), REACH, np.random.default_rng(0))
    assert not broken.any()
    assert not coverage.any()
