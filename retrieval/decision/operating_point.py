"""Thresholds that reach a wanted sensitivity, learned on the studies of an index.

Only studies on whose patients the model was not trained teach (`decision.teachers`), each with its own patient left out
of the vote. S studies teach.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL
from retrieval.decision.fit_rules import study_votes
from retrieval.decision.leave_patient_out import ranked_studies
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import FEWEST, LabelledStudies
from retrieval.errors import EvaluationError

__all__ = ["Thresholds", "learn_thresholds", "threshold_for"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds of classifier, vote and mean of both, and how many studies of the index they were learned on."""

    classifier: float
    knn: float
    mean: float
    studies: int
    abnormal: int


def learn_thresholds(studies: LabelledStudies, rules: Rules, sensitivity: float) -> Thresholds:
    """The highest thresholds above which at least the share `sensitivity` of the index's abnormal studies lies.

    Raises EvaluationError if fewer than 20 abnormal studies may teach.
    """
    teachers = studies.teachers()
    rows, study_of, labels = teachers.rows, teachers.study_of, teachers.labels
    abnormal = int((labels == ABNORMAL).sum())
    if abnormal < FEWEST:
        raise EvaluationError(
            f"the index has {abnormal} abnormal studies of patients on whom the model was not trained; a threshold for "
            f"a sensitivity needs at least {FEWEST}: use an index of more studies, or leave out --sensitivity"
        )
    ranked = ranked_studies(studies.cases, studies.embeddings, rows, rules.k)
    vote = study_votes(ranked, study_of, rules.k, rules.temperature)
    probabilities = rules.probabilities(studies.logits[rows], studies.embeddings[rows])
    classifier = np.bincount(study_of, probabilities) / np.bincount(study_of)
    scores = {"classifier": classifier, "knn": vote, "mean": (classifier + vote) / 2}
    learned = {name: threshold_for(labels, values, sensitivity) for name, values in scores.items()}
    return Thresholds(**learned, studies=len(labels), abnormal=abnormal)


def threshold_for(labels: NDArray[np.int64], scores: NDArray[np.float64], sensitivity: float) -> float:
    """The highest threshold above which at least this share of the abnormal scores lies.

    labels (S,) of 0 and 1, with at least one 1; scores (S,). Of the thresholds between two scores it is the middle.

    >>> threshold_for(np.array([1, 1, 0, 1]), np.array([0.9, 0.8, 0.6, 0.2]), 0.6)
    0.7
    """
    wanted = np.sort(scores[labels == ABNORMAL])[::-1][math.ceil(sensitivity * int(labels.sum()) - 1e-9) - 1]
    below = scores[scores < wanted]
    return round(float(wanted + below.max()) / 2, 12) if len(below) else float(np.nextafter(wanted, -np.inf))
