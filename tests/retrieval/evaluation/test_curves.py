"""Curves against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from retrieval.evaluation.curves import precision_recall, reliability, roc
from retrieval.evaluation.metrics import BINS

ITEMS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=2).filter(
    lambda rows: {row[0] for row in rows} == {0, 1}
)


@given(ITEMS)
def test_curves_are_those_of_scikit_learn(rows: list[tuple[int, float]]) -> None:
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    missed, found = roc(labels, scores)
    theirs_missed, theirs_found, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert missed == pytest.approx(theirs_missed)
    assert found == pytest.approx(theirs_found)

    recall, precision = precision_recall(labels, scores)
    theirs_precision, theirs_recall, _ = precision_recall_curve(labels, scores)
    kept = len(recall)  # theirs run from the lowest threshold up and end at recall 0
    assert recall == pytest.approx(theirs_recall[:-1][::-1][:kept])
    assert precision == pytest.approx(theirs_precision[:-1][::-1][:kept])
    gained = np.diff(recall, prepend=0)
    assert gained @ precision == pytest.approx(average_precision_score(labels, scores))
    assert auc(missed, found) == pytest.approx(auc(theirs_missed, theirs_found))

    bins = reliability(labels, scores)
    shares, means = calibration_curve(labels, scores, n_bins=BINS)
    assert [of.share for of in bins if of] == pytest.approx(shares)
    assert [of.probability for of in bins if of] == pytest.approx(means)
    assert sum(of.items for of in bins if of) == len(rows)
