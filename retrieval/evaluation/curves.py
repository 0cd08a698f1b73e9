"""ROC curves, precision-recall curves, and reliability diagrams.

N items; labels (N,) of 0 and 1; scores (N,), higher is more abnormal. Curves have a point for each distinct score.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.metrics import BINS, bin_of

__all__ = ["Bin", "precision_recall", "reliability", "roc"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """One of BINS equal bins of probability: how many items it has, their mean probability, and the share abnormal."""

    items: int
    probability: float
    share: float


def roc(labels: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """1 - specificity and sensitivity at each threshold, from (0, 0) to (1, 1). Needs both labels."""
    true, predicted = _counts(labels, scores)
    false = predicted - true
    return false / false[-1], true / true[-1]


def precision_recall(labels: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """Recall and precision (T,) at each of T thresholds, the highest first. Needs an abnormal item."""
    true, predicted = _counts(labels, scores)
    return true[1:] / true[-1], true[1:] / predicted[1:]


def reliability(labels: NDArray[np.int64], probabilities: Floats) -> list[Bin | None]:
    """The bins of the probabilities (n,) from 0 to 1, with labels (n,); None for a bin without items."""
    numbers = bin_of(probabilities)
    bins: list[Bin | None] = []
    for number in range(BINS):
        members = numbers == number
        items = int(members.sum())
        bins.append(Bin(items, float(probabilities[members].mean()), float(labels[members].mean())) if items else None)
    return bins


def _counts(labels: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """True and all predictions of abnormal, with each distinct score as the threshold; before them, 0 and 0."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    true = np.cumsum(labels[order])[last]
    return np.concatenate([[0.0], true]), np.concatenate([[0.0], last + 1.0])
