"""On which studies classifier and vote agree, and which of the two is right where they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.metrics import Estimate, Predictor, Resampling, bootstrap, bootstrap_ratios

__all__ = ["Agreement", "Cell", "McNemar", "agreement_of", "mcnemar"]

_NEVER = "they never disagree"


@dataclass(frozen=True, slots=True)
class Cell:
    """How many studies have this pair of predictions, and how many of them are abnormal."""

    studies: int
    abnormal: int


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test: the studies that only one of the two predicts right, and the p value of so uneven a split.

    The test assumes independent studies, though a patient may have several. The paired intervals do not assume it.
    """

    knn_only: int
    classifier_only: int
    p: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Classifier and vote on the same studies.

    The four cells say who predicts abnormal. `share` is the share of studies on which the two agree, `kappa` Cohen's
    kappa between them. The accuracies are over the studies on which they agree, and on which they disagree.
    """

    both_abnormal: Cell
    classifier_abnormal: Cell
    knn_abnormal: Cell
    both_normal: Cell
    share: Estimate
    kappa: Estimate
    accuracy_agreeing: Estimate
    classifier_accuracy_disagreeing: Estimate
    knn_accuracy_disagreeing: Estimate
    mcnemar: McNemar


def agreement_of(
    labels: NDArray[np.int64],
    classifier: NDArray[np.bool_],
    vote: NDArray[np.bool_],
    patients: Sequence[str],
    **resampling: Unpack[Resampling],
) -> Agreement:
    """Compare the predictions of classifier and vote, (N,) each, True for abnormal. labels (N,); patients: N names."""
    abnormal = labels == 1
    agree = classifier == vote
    right = {"classifier": classifier == abnormal, "knn": vote == abnormal}
    ratios = bootstrap_ratios(
        {
            "share": (agree, np.ones(len(labels))),
            "agreeing": (agree & right["knn"], agree),
            "classifier": (~agree & right["classifier"], ~agree),
            "knn": (~agree & right["knn"], ~agree),
        },
        patients,
        **resampling,
    )
    if agree.all():
        ratios |= dict.fromkeys(("classifier", "knn"), Estimate(None, reason=_NEVER))
    # The kappa between the two is that of the vote where the classifier's predictions are the labels.
    predictors = {"vote": Predictor(vote.astype(np.float64), vote)}
    between = bootstrap(classifier.astype(np.int64), patients, predictors, **resampling)

    def cell(studies: NDArray[np.bool_]) -> Cell:
        return Cell(int(studies.sum()), int((studies & abnormal).sum()))

    return Agreement(
        both_abnormal=cell(classifier & vote),
        classifier_abnormal=cell(classifier & ~vote),
        knn_abnormal=cell(~classifier & vote),
        both_normal=cell(~classifier & ~vote),
        share=ratios["share"],
        kappa=between.estimates()["vote"]["kappa"],
        accuracy_agreeing=ratios["agreeing"],
        classifier_accuracy_disagreeing=ratios["classifier"],
        knn_accuracy_disagreeing=ratios["knn"],
        mcnemar=mcnemar(right["knn"], right["classifier"]),
    )


def mcnemar(knn: NDArray[np.bool_], classifier: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact binomial test (1947), two-sided. knn, classifier: which of N studies each predicts right."""
    b, c = int((knn & ~classifier).sum()), int((classifier & ~knn).sum())
    tail = sum(comb(b + c, i) for i in range(min(b, c) + 1))
    return McNemar(b, c, min(1.0, 2 * tail / 2 ** (b + c)))
