"""What lies behind single figures: ROC and precision-recall curves, and observed frequencies by probability.

N items; labels (N,) of 0 and 1, scores (N,), higher is more abnormal. Curves have a point for every distinct score.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.metrics import BINS, bin_of

__all__ = ["Bin", "precision_recall", "reliability", "roc"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """The items whose probability lies in one of BINS equal bins: how many, their mean probability, share abnormal."""

    items: int
    probability: float
    share: float


def roc(labels: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """1 - specificity and sensitivity at every threshold, from (0, 0) to (1, 1). Needs both labels."""
    found, met = _counts(labels, scores)
    missed = met - found
    return missed / missed[-1], found / found[-1]


def precision_recall(labels: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at every threshold, the highest first. Needs an abnormal item."""
    found, met = _counts(labels, scores)
    return found[1:] / found[-1], found[1:] / met[1:]


def reliability(labels: NDArray[np.int64], probabilities: Floats) -> list[Bin | None]:
    """The bins from 0 to 1; None for one without items."""
    places = bin_of(probabilities)
    bins: list[Bin | None] = []
    for place in range(BINS):
        own = places == place
        items = int(own.sum())
        bins.append(Bin(items, float(probabilities[own].mean()), float(labels[own].mean())) if items else None)
    return bins


def _counts(labels: NDArray[np.int64], scores: Floats) -> tuple[Floats, Floats]:
    """How many abnormal items, and how many at all, score at least as high as each distinct score; nothing first."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    found = np.cumsum(labels[order])[last]
    return np.concatenate([[0.0], found]), np.concatenate([[0.0], last + 1.0])
