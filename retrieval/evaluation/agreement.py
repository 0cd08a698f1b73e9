"""Whether classifier and vote agree, and who is right where they do not, by study."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import comb

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.metrics import Estimate, Reader, bootstrap, bootstrap_ratios

__all__ = ["Agreement", "Cell", "McNemar", "agreement_of", "mcnemar"]

_NEVER = "they never disagree"


@dataclass(frozen=True, slots=True)
class Cell:
    """How many studies the two called so, and how many of those are abnormal."""

    studies: int
    abnormal: int


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test: the studies that only one of the two called right, and how likely so uneven a split is by chance.

    It takes studies as independent, which those of one patient are not; the paired intervals do not.
    """

    knn_only: int
    classifier_only: int
    p: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Classifier and vote on the same studies.

    The four cells of who called abnormal; `share` of the studies on which they agree; Cohen's `kappa` between the two;
    the accuracy of what they agree on, and of each where they do not (one of the two is right there).
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

    def to_dict(self) -> dict[str, object]:
        told: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            plain = {of.name: getattr(value, of.name) for of in fields(value)}
            told[field.name] = value.to_dict() if isinstance(value, Estimate) else plain
        return told


def agreement_of(
    labels: NDArray[np.int64],
    classifier: NDArray[np.bool_],
    vote: NDArray[np.bool_],
    patients: Sequence[str],
    *,
    rounds: int = 10_000,
    seed: int = 0,
) -> Agreement:
    """Compare the calls of two readers. labels (N,) of 0 and 1, calls (N,), True for abnormal; one patient a study."""
    abnormal = labels == 1
    agree, ones = classifier == vote, np.ones(len(labels))
    right = {"classifier": classifier == abnormal, "knn": vote == abnormal}
    ratios = bootstrap_ratios(
        {
            "share": (agree, ones),
            "agreeing": (agree & right["knn"], agree),
            "classifier": (~agree & right["classifier"], ~agree),
            "knn": (~agree & right["knn"], ~agree),
        },
        patients,
        rounds=rounds,
        seed=seed,
    )
    if agree.all():
        ratios |= dict.fromkeys(("classifier", "knn"), Estimate(None, reason=_NEVER))
    of_each_other = bootstrap(
        classifier.astype(np.int64), patients, {"vote": Reader(vote.astype(np.float64), vote)}, rounds=rounds, seed=seed
    )

    def cell(of: NDArray[np.bool_]) -> Cell:
        return Cell(int(of.sum()), int((of & abnormal).sum()))

    return Agreement(
        both_abnormal=cell(classifier & vote),
        classifier_abnormal=cell(classifier & ~vote),
        knn_abnormal=cell(~classifier & vote),
        both_normal=cell(~classifier & ~vote),
        share=ratios["share"],
        kappa=of_each_other.estimates()["vote"]["kappa"],
        accuracy_agreeing=ratios["agreeing"],
        classifier_accuracy_disagreeing=ratios["classifier"],
        knn_accuracy_disagreeing=ratios["knn"],
        mcnemar=mcnemar(right["knn"], right["classifier"]),
    )


def mcnemar(knn: NDArray[np.bool_], classifier: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test (1947) of two readers' right calls (N,): two-sided binomial over those they differ in."""
    b, c = int((knn & ~classifier).sum()), int((classifier & ~knn).sum())
    tail = sum(comb(b + c, i) for i in range(min(b, c) + 1))
    return McNemar(b, c, min(1.0, 2 * tail / 2 ** (b + c)))
