"""The map of a view: attention within the limb, on one scale that is the view's probability."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.decision.rules import Rules
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.explain.evidence import ATTENTION, attention, evidence, evidence_of, within_limb
from retrieval.explain.rendering import overlay
from retrieval.explain.smooth_grad_cam import Heatmap, Smoothing

SIDE = 32


@pytest.fixture
def quarters(model: Path) -> Encoder:
    """An encoder of 2 x 2 positions that looks at bright ones."""
    encoder = Encoder.open(model)
    encoder.head = replace(encoder.head, attention_weight=np.array([3, 0, 0], np.float32))
    return encoder


def bright(row: int, column: int) -> NDArray[np.uint8]:
    pixels = np.full((SIDE, SIDE), 60, np.uint8)
    pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 250
    return pixels


def row(logit: float) -> Encoded:
    return Encoded(np.array([[1, 0]], np.float32), np.array([logit], np.float32))


@pytest.mark.parametrize(("y", "x"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_it_is_strongest_where_the_head_looks_and_as_strong_as_the_probability(
    quarters: Encoder, y: int, x: int
) -> None:
    heatmap = evidence(quarters, bright(y, x), 0.7)
    at = np.unravel_index(heatmap.values.argmax(), heatmap.values.shape)
    assert (int(at[0]) // 16, int(at[1]) // 16, heatmap.target) == (y, x, ATTENTION)
    assert heatmap.values.max() == pytest.approx(0.7)


def test_one_scale_for_all_views_and_nothing_below_the_threshold(quarters: Encoder) -> None:
    rules = Rules(classifier_threshold=0.4)
    loud, quiet = (evidence_of(quarters, rules, bright(0, 0), row(logit), always=True).values for logit in (2, -3))
    probabilities = rules.probabilities(np.array([2.0, -3.0]))
    assert (loud.max(), quiet.max()) == pytest.approx(tuple(probabilities), rel=1e-4)
    assert not evidence_of(quarters, rules, bright(0, 0), row(-3)).values.any()
    pixels = bright(0, 0)
    nothing = overlay(pixels, evidence_of(quarters, rules, pixels, row(-3)))
    assert (nothing == pixels[:, :, None]).all()  # nor a white line


def test_even_attention_points_nowhere_so_the_score_decides(model: Path) -> None:
    heatmap = attention(Encoder.open(model), bright(1, 1))
    assert heatmap.target == "abnormal"


def test_nothing_lies_on_empty_film() -> None:
    pixels = np.full((256, 256), 12, np.uint8)
    pixels[64:192, 64:192] = 200
    values = np.ones((256, 256), np.float32)
    values[0, 0] = 5
    kept = within_limb(Heatmap(np.asarray(values / 5, np.float32), ATTENTION, Smoothing()), pixels).values
    assert kept[:40].max() == 0
    assert kept[128, 128] == kept.max() == 1
