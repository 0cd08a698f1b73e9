"""The vote as a scikit-learn classifier: scikit-learn's own checks, and small cases by hand."""

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from retrieval.analysis.vote_classifier import VoteClassifier


@pytest.mark.filterwarnings("ignore")  # the checks try what warns
@parametrize_with_checks([VoteClassifier()])  # type: ignore[untyped-decorator]
def test_it_is_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


X = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
Y = ["normal", "normal", "abnormal", "abnormal"]


def test_a_query_does_not_meet_its_own_patient() -> None:
    fitted = VoteClassifier(k=1).fit(X, Y, groups=["a", "b", "c", "d"])
    assert fitted.predict([[1.0, 0.0]]).tolist() == ["normal"]
    distances, rows = fitted.kneighbors([[1.0, 0.0]], groups=["a"])
    assert rows.tolist() == [[1]]
    assert distances[0, 0] == pytest.approx(1 - 0.9 / np.hypot(0.9, 0.1))
    alone = VoteClassifier(k=2).fit(X[:2], ["normal", "abnormal"], groups=["a", "a"])
    assert alone.kneighbors([[1.0, 0.0]], groups=["a"])[1].tolist() == [[-1, -1]]
    assert alone.predict_proba([[1.0, 0.0]], groups=["a"]).tolist() == [[0.5, 0.5]]


def test_a_study_votes_once() -> None:
    fitted = VoteClassifier(k=4).fit(X, Y, studies=["s", "s", "t", "u"])
    assert sorted(fitted.kneighbors([[1.0, 0.0]])[1][0].tolist()) == [0, 2, 3]


def test_it_is_cross_validated_by_patient() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    rows = np.stack([generator.normal(4.0 * labels - 2, 1), np.ones(60)], axis=1)
    scores = cross_val_score(VoteClassifier(k=5), rows, labels, groups=np.arange(60) // 3, cv=GroupKFold(5))
    assert scores.mean() > 0.9


def test_what_makes_no_sense_is_refused() -> None:
    for options in ({"k": 0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="k is at least 1"):
            VoteClassifier(**options).fit(X, Y)
    with pytest.raises(ValueError, match="groups and studies need a value for each row"):
        VoteClassifier().fit(X, Y, groups=["a"])
    with pytest.raises(ValueError, match="groups of queries need groups in fit"):
        VoteClassifier().fit(X, Y).predict(X, groups=["a"] * 4)
