"""A local classifier is kept where it beats the model's, and only there."""

import dataclasses

import numpy as np
import pytest

from retrieval.decision.calibration import sigmoid
from retrieval.decision.local_classifier import (
    LocalClassifier,
    Teaching,
    _fit,
    _folds,
    paired_gain,
    try_local_classifier,
)
from retrieval.decision.rules import Rules
from retrieval.encoding.head import Head

D = 6


def teaching(signal: float, model: float, studies: int = 120, seed: int = 0) -> Teaching:
    """Studies of two radiographs, two a patient: the label lies in direction 0 of the embedding, and in the logit."""
    generator = np.random.default_rng(seed)
    labels = np.arange(studies) % 2
    study_of = np.repeat(np.arange(studies), 2)
    sides = 2.0 * labels[study_of] - 1
    vectors = generator.normal(0, 1, (len(study_of), D))
    vectors[:, 0] += signal * sides
    embeddings = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    logits = (model * sides + generator.normal(0, 1, len(study_of))).astype(np.float32)
    return Teaching(embeddings, logits, study_of, labels, [f"p{study // 4}" for study in range(studies)])


def test_it_is_kept_where_the_embedding_knows_what_the_model_does_not() -> None:
    trial = try_local_classifier(teaching(signal=1.5, model=0))
    assert trial is not None
    assert trial.classifier is not None
    assert trial.low > 0
    assert trial.local.auroc > 0.9
    assert trial.model.auroc < 0.6
    assert trial.local.kappa > trial.model.kappa
    assert abs(trial.classifier.weights[0]) == max(map(abs, trial.classifier.weights))
    assert len(trial.probabilities) == 120


def test_it_is_not_kept_where_it_knows_no_more() -> None:
    trial = try_local_classifier(teaching(signal=0, model=1.5))
    assert trial is not None
    assert trial.classifier is None
    assert trial.to_dict()["kept"] is False
    assert trial.model.auroc > 0.9


def test_too_few_studies_try_none() -> None:
    assert try_local_classifier(teaching(1, 1, studies=38)) is None
    assert try_local_classifier(teaching(1, 1, studies=40)) is not None


def test_no_patient_is_on_both_sides_of_a_fold() -> None:
    given = teaching(1, 1)
    folds = _folds(given)
    assert sorted(np.unique(folds)) == [0, 1, 2, 3, 4]
    sides = {(patient, fold) for patient, fold in zip(given.patients, folds, strict=True)}
    assert len(sides) == len(set(given.patients))


def test_the_fit_is_the_minimum_of_its_formula() -> None:
    given = teaching(signal=0.5, model=0.5, studies=40)
    fitted = _fit(given, 0.7)
    scale = float(np.std(given.logits))
    y = given.labels[given.study_of]

    def loss(share: float, weights: np.ndarray, bias: float) -> float:
        z = share * given.logits + given.embeddings @ weights + bias
        free = 1e-3 * ((share * scale) ** 2 + bias**2) / 2
        return float((np.logaddexp(0, z) - y * z).sum() / 2 + 0.7 * (weights @ weights) / 2 + free)

    best = loss(fitted.share, fitted.weights, fitted.bias)
    for step in (-1e-3, 1e-3):
        assert loss(fitted.share + step, fitted.weights, fitted.bias) > best
        assert loss(fitted.share, fitted.weights, fitted.bias + step) > best
        for number in range(D):
            assert loss(fitted.share, fitted.weights + step * np.eye(D)[number], fitted.bias) > best


def test_an_infinite_penalty_leaves_the_models_classifier() -> None:
    fitted = _fit(teaching(1, 1), np.inf)
    assert not fitted.weights.any()
    assert fitted.share > 0


def test_the_interval_of_a_gain_is_by_patient() -> None:
    alike = paired_gain(np.array([0.2] * 30), [f"p{n}" for n in range(30)])
    assert alike == pytest.approx((0.2, 0.2, 0.2))
    gains = np.array([1.0] * 10 + [0.0] * 10)
    few = paired_gain(gains, ["a"] * 10 + ["b"] * 10)
    many = paired_gain(gains, [f"p{n}" for n in range(20)])
    assert few[1:] == (0, 1)
    assert 0.2 < many[1] < 0.5 < many[2] < 0.8


def test_the_head_for_heatmaps_gives_its_logits_and_their_gradient() -> None:
    generator = np.random.default_rng(1)
    shapes = ((3,), (1,), (4, 6), (4,), (5, 4), (5,), (5,), (1,))
    names = [field.name for field in dataclasses.fields(Head)]
    head = Head(**{n: generator.normal(0, 1, s).astype(np.float32) for n, s in zip(names, shapes, strict=True)})
    local = LocalClassifier(0.5, (1.0, -2.0, 0.25, 3.0))
    e = head.embed(generator.normal(0, 1, (7, 6)).astype(np.float32))
    assert local.head(head).classify(e) == pytest.approx(local.logits(e, head.classify(e)), abs=1e-5)
    upstream = 0.5 * head.logit_upstream(e) + np.array(local.weights)
    assert local.head(head).logit_upstream(e) == pytest.approx(upstream, abs=1e-5)


def test_rules_use_it_and_survive_json() -> None:
    rules = Rules(slope=2.0, intercept=-1.0, local=LocalClassifier(0.5, (1.0, 2.0)))
    e, logits = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([4.0, 0.0])
    assert rules.probabilities(logits, e) == pytest.approx(sigmoid(np.array([2 * 3 - 1, 2 * 2 - 1])))
    assert rules.classifier == "local"
    assert Rules.from_dict(rules.to_dict()) == rules
    assert "local" not in Rules().to_dict()
    with pytest.raises(ValueError, match="needs the embeddings"):
        rules.probabilities(logits)


@pytest.mark.parametrize("broken", [1, {"share": 1.0}, {"share": 1.0, "weights": 3}, {"share": 1, "weights": ["a"]}])
def test_a_damaged_local_classifier_is_refused(broken: object) -> None:
    with pytest.raises(ValueError, match="local classifier"):
        Rules.from_dict({**Rules().to_dict(), "local": broken})
