"""Thresholds for a wanted sensitivity: by hand, against a plain search, and on an index."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.case import Case
from retrieval.decision.operating_point import learn_thresholds, threshold_for
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.bundle import digest_number
from retrieval.errors import EvaluationError


def test_by_hand() -> None:
    labels, scores = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.6, 0.3, 0.5, 0.1])
    assert threshold_for(labels, scores, 2 / 3) == pytest.approx(0.55)
    assert threshold_for(labels, scores, 0.7) == pytest.approx(0.2)
    assert threshold_for(labels, scores, 0.3) == pytest.approx(0.75)
    assert threshold_for(np.array([1, 0]), np.array([0.2, 0.4]), 0.95) < 0.2


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])), min_size=1).filter(
        lambda rows: any(label for label, _ in rows)
    ),
    st.floats(0.5, 0.999),
)
def test_it_is_the_highest_that_reaches_the_sensitivity(rows: list[tuple[int, float]], wanted: float) -> None:
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))

    def sensitivity(threshold: float) -> float:
        return float((scores[labels == 1] > threshold).mean())

    threshold = threshold_for(labels, scores, wanted)
    assert sensitivity(threshold) >= wanted - 1e-9
    higher = [score for score in scores if score > threshold]
    assert all(sensitivity(score) < wanted for score in higher)


def index(studies: int) -> tuple[list[Case], np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.arange(studies) % 2
    cases = [
        Case(f"c{n}", f"s{n}", f"p{n}", int(label), digest=f"{n:016x}".ljust(64, "0")) for n, label in enumerate(labels)
    ]
    vectors = np.stack([np.ones(studies), generator.normal(labels - 0.5, 0.7)], axis=1)
    embeddings = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return cases, embeddings, generator.normal(2 * labels - 1.0, 1.0).astype(np.float32)


def test_each_predictor_reaches_it_on_the_index() -> None:
    cases, embeddings, logits = index(200)
    rules = Rules(k=5, temperature=0.05)
    learned = learn_thresholds(LabelledStudies(cases, embeddings, logits), rules, 0.9)
    assert (learned.studies, learned.abnormal) == (200, 100)
    abnormal = np.array([case.label for case in cases]) == 1
    assert (rules.probabilities(logits)[abnormal] > learned.classifier).mean() == pytest.approx(0.9)
    stricter = learn_thresholds(LabelledStudies(cases, embeddings, logits), rules, 0.99)
    assert stricter.classifier < learned.classifier
    assert stricter.knn <= learned.knn
    assert stricter.mean < learned.mean


def test_patients_of_the_model_do_not_teach() -> None:
    cases, embeddings, logits = index(60)
    seen = {digest_number(case.digest) for case in cases[:18]}
    learned = learn_thresholds(LabelledStudies(cases, embeddings, logits, seen), Rules(k=5), 0.9)
    assert (learned.studies, learned.abnormal) == (42, 21)
    seen |= {digest_number(case.digest) for case in cases[18:22]}
    with pytest.raises(EvaluationError, match="the index has 19 abnormal studies"):
        learn_thresholds(LabelledStudies(cases, embeddings, logits, seen), Rules(k=5), 0.9)
