"""The gain of a ranked worklist: by hand, against the curve itself, and against scikit-learn's AUROC."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retrieval.evaluation.triage import triage

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Labels = np.ndarray[tuple[int], np.dtype[np.int64]]


def area_of_curve(labels: Labels, scores: Floats, orders: int = 400) -> float:
    """The area under the curve as it is walked, the mean over random orders of what scores the same."""
    generator, areas = np.random.default_rng(0), []
    for _ in range(orders):
        order = np.lexsort((generator.random(len(labels)), -scores))
        reached = np.concatenate([[0], np.cumsum(labels[order])]) / labels.sum()
        areas.append(np.trapezoid(reached, dx=1 / len(labels)))
    return float(np.mean(areas))


def test_by_hand() -> None:
    # Read: abnormal, normal, abnormal, normal. Places 1/8 and 5/8 (the middles of the quarters): 3/8 on average.
    told = triage(np.array([1, 0, 1, 0]), list("abcd"), {"r": np.array([0.9, 0.8, 0.7, 0.1])}, rounds=50)["r"]
    assert told.position.value == pytest.approx(3 / 8)
    assert told.area.value == pytest.approx(5 / 8)
    assert told.ideal == pytest.approx(3 / 4)
    assert told.normalised.value == pytest.approx(1 / 2)  # (5/8 - 1/2) / (3/4 - 1/2)
    assert (told.position.chance, told.area.chance, told.normalised.chance) == (0.5, 0.5, 0.0)


def test_the_ends_of_the_scale() -> None:
    labels, names = np.array([1, 1, 0, 0, 0]), list("abcde")
    scores = {"ideal": np.arange(5.0)[::-1], "worst": np.arange(5.0), "same": np.zeros(5)}
    told = triage(labels, names, scores, rounds=50)
    assert told["ideal"].area.value == pytest.approx(told["ideal"].ideal)
    assert [told[name].normalised.value for name in scores] == pytest.approx([1, -1, 0])
    assert told["same"].area.value == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_area_under_the_curve_itself_and_the_gini_coefficient(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random(40) < 0.3).astype(np.int64)
    scores = np.round(labels * 0.3 + generator.random(40), 1)  # with ties
    told = triage(labels, [str(n) for n in range(40)], {"r": scores}, rounds=20)["r"]
    assert told.area.value == pytest.approx(area_of_curve(labels, scores), abs=0.005)
    assert told.normalised.value == pytest.approx(2 * roc_auc_score(labels, scores) - 1)


def test_the_interval_is_of_patients_and_resamples_the_share_of_abnormal_ones() -> None:
    generator = np.random.default_rng(1)
    patients = [str(n // 2) for n in range(60)]
    labels = (generator.random(60) < 0.4).astype(np.int64)
    scores = labels * 0.5 + generator.random(60)
    told = triage(labels, patients, {"r": scores}, rounds=2000, seed=3)["r"]
    # An oracle that resamples by itself, and measures the resampled studies as they lie.
    areas = []
    for _ in range(2000):
        rows = np.concatenate([[2 * p, 2 * p + 1] for p in generator.integers(30, size=30)])
        p = labels[rows].mean()
        abnormal, normal = scores[rows][labels[rows] == 1], scores[rows][labels[rows] == 0]  # without ties
        areas.append(p / 2 + (1 - p) * (abnormal[:, None] > normal).mean())
    assert told.area.low == pytest.approx(np.quantile(areas, 0.025), abs=0.015)
    assert told.area.high == pytest.approx(np.quantile(areas, 0.975), abs=0.015)
    assert told.position.low == pytest.approx(1 - (told.area.high or 0))


def test_one_label_has_no_worklist_to_measure() -> None:
    told = triage(np.ones(3, np.int64), list("abc"), {"r": np.arange(3.0)}, rounds=5)["r"]
    assert told.area.value is told.position.value is told.normalised.value is told.ideal is None
    assert told.area.reason == "needs both labels"
