import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from retrieval.decision.calibration import best_threshold, fit_platt, sigmoid


def test_sigmoid_by_hand_and_at_the_ends() -> None:
    assert sigmoid(np.array([0.0, math.log(3), -math.log(3)])) == pytest.approx([0.5, 0.75, 0.25])
    assert list(sigmoid(np.array([-1e6, 1e6]))) == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(4))
def test_platt_is_logistic_regression_on_smoothed_targets(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random(200) < 0.3).astype(np.int64)
    logits = 3 * generator.standard_normal(200) + 2 * labels + seed
    weights = generator.uniform(0.2, 1, 200)
    positives, negatives = weights @ labels, weights @ (1 - labels)
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A target t is t of an abnormal item and 1 - t of a normal one.
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.tile(logits, 2)[:, None],
        np.repeat([1, 0], 200),
        np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    slope, intercept = fit_platt(logits, labels, weights)
    assert slope == pytest.approx(oracle.coef_[0, 0], abs=1e-4)
    assert intercept == pytest.approx(oracle.intercept_[0], abs=1e-4)


def test_platt_of_two_points_by_hand() -> None:
    # Targets 2/3 at 1 and 1/3 at -1 are met exactly: slope ln 2, intercept 0.
    slope, intercept = fit_platt(np.array([1.0, -1.0]), np.array([1, 0]), np.ones(2))
    assert slope == pytest.approx(math.log(2))
    assert intercept == pytest.approx(0, abs=1e-9)


def test_platt_of_constant_and_huge_logits_stays_finite() -> None:
    labels = np.array([1, 0, 0, 0])
    for logits in (np.full(4, 2.0), np.array([1e4, -1e4, -2e4, 1e4]), np.array([1e-9, 0, 0, 0])):
        slope, intercept = fit_platt(logits, labels, np.ones(4))
        assert math.isfinite(slope)
        assert math.isfinite(intercept)
    probability = sigmoid(np.array(fit_platt(np.full(4, 2.0), labels, np.ones(4))) @ np.array([2.0, 1.0]))
    assert probability == pytest.approx((2 / 3 + 3 / 5) / 4)  # the mean of the targets 2/3 and three times 1/5


@pytest.mark.parametrize(
    ("scores", "labels", "threshold"),
    [
        ([0.2, 0.4, 0.8, 0.9], [0, 0, 1, 1], 0.6),  # the middle of the gap between the labels
        ([0.1, 0.2], [0, 1], 0.15),
        ([0.2, 0.2, 0.2, 0.7, 0.7, 0.7], [0, 0, 1, 0, 1, 1], 0.45),
        ([0.2, 0.4, 0.8, 0.9], [1, 1, 0, 0], 0.5),  # higher scores are the normal ones
        ([0.3, 0.3, 0.3], [0, 1, 1], 0.5),
    ],
)
def test_threshold_by_hand(scores: list[float], labels: list[int], threshold: float) -> None:
    assert best_threshold(np.array(labels), np.array(scores)) == pytest.approx(threshold)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10)), min_size=2, max_size=25))
def test_no_threshold_has_a_higher_expected_kappa(rows: list[tuple[int, int]]) -> None:
    labels = np.array([row[0] for row in rows])
    scores = np.array([row[1] / 10 for row in rows])
    threshold = best_threshold(labels, scores)
    assert 0 < threshold < 1
    slope, intercept = fit_platt(scores, labels, np.ones(len(rows)))
    if slope <= 0 or len(set(scores)) < 2:
        assert threshold == 0.5
        return

    def kappa(at: float) -> float:
        """Of a table with both outcomes of every study, each with its chance as weight."""
        chances = sigmoid(slope * scores + intercept)
        return float(
            cohen_kappa_score(
                np.repeat([1, 0], len(rows)),
                np.tile(scores > at, 2).astype(int),
                sample_weight=np.concatenate([chances, 1 - chances]),
            )
        )

    between = [at for at in np.arange(0.05, 1.0, 0.1) if min(scores) < at < max(scores)]
    assert kappa(threshold) == pytest.approx(max(map(kappa, between)))


def test_threshold_of_a_large_sample_has_the_highest_kappa() -> None:
    # Normal scores of one deviation, 1.2 apart, 30 % abnormal: the best of all thresholds is known from a fine grid.
    generator = np.random.default_rng(5)
    labels = (generator.random(4000) < 0.3).astype(np.int64)
    scores = sigmoid(generator.standard_normal(4000) + 1.2 * labels - 0.6)
    threshold = best_threshold(labels[:400], scores[:400])
    kappas = [cohen_kappa_score(labels, scores > at) for at in np.linspace(0.05, 0.95, 91)]
    assert cohen_kappa_score(labels, scores > threshold) > max(kappas) - 0.02
