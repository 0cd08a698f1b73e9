"""Agreement of two readers: counted by hand, and against scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest  # type: ignore[import-untyped]  # no stubs
from sklearn.metrics import accuracy_score, cohen_kappa_score

from retrieval.evaluation.agreement import Agreement, Cell, McNemar, agreement_of, mcnemar
from retrieval.formats.json_format import plain

#                      both abnormal, classifier alone, vote alone, both normal
LABELS = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1])
CLASSIFIER = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
VOTE = np.array([1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0], bool)
PATIENTS = list("aabbccddeef")


def found(classifier: np.ndarray = CLASSIFIER, vote: np.ndarray = VOTE) -> Agreement:
    return agreement_of(LABELS, classifier, vote, PATIENTS, rounds=200)


def test_by_hand() -> None:
    told = found()
    assert (told.both_abnormal, told.both_normal) == (Cell(3, 2), Cell(3, 1))
    assert (told.classifier_abnormal, told.knn_abnormal) == (Cell(3, 1), Cell(2, 1))
    assert told.share.value == pytest.approx(6 / 11)
    assert told.accuracy_agreeing.value == pytest.approx(4 / 6)
    # Where they differ, the classifier is right on the abnormal one of its own three and on the normal one of the two.
    assert told.classifier_accuracy_disagreeing.value == pytest.approx(2 / 5)
    assert told.knn_accuracy_disagreeing.value == pytest.approx(3 / 5)
    assert told.mcnemar == McNemar(knn_only=3, classifier_only=2, p=1.0)
    assert told.kappa.value == pytest.approx(cohen_kappa_score(CLASSIFIER, VOTE))
    agree = CLASSIFIER == VOTE
    assert told.accuracy_agreeing.value == pytest.approx(accuracy_score(LABELS[agree], VOTE[agree]))
    assert told.share.low is not None
    assert told.share.high is not None
    assert told.share.low < 6 / 11 < told.share.high


def test_as_json() -> None:
    told = plain(found())
    assert told["both_abnormal"] == {"studies": 3, "abnormal": 2}
    assert told["mcnemar"] == {"knn_only": 3, "classifier_only": 2, "p": 1.0}
    assert set(told["share"]) >= {"value", "low", "high"}


def test_readers_that_never_differ() -> None:
    told = found(CLASSIFIER, CLASSIFIER)
    assert told.share.value == 1
    assert (told.knn_accuracy_disagreeing.value, told.knn_accuracy_disagreeing.reason) == (None, "they never disagree")
    assert told.mcnemar == McNemar(0, 0, 1.0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    knn = np.array([True] * b + [False] * c + [True, False], bool)
    classifier = np.array([False] * b + [True] * c + [True, False], bool)
    told = mcnemar(knn, classifier)
    assert (told.knn_only, told.classifier_only) == (b, c)
    assert told.p == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1)


def test_mcnemar_of_thousands_neither_overflows_nor_ends_at_nothing() -> None:
    knn = np.arange(4000) < 2100
    assert mcnemar(knn, ~knn).p == pytest.approx(binomtest(2100, 4000).pvalue)
