"""Labels that look wrong: studies whose neighbours, of other patients, mostly have the other label.

Every study is voted on by its nearest studies with its own patient left out, and with the patients left out who share a
radiograph with it. The vote becomes the probability of the other label by Platt's calibration on the labels as they
are. How probable a wrong label is then depends on how many are wrong at all, which nobody knows; it is assumed, said,
and can be changed. If a share e of the labels, drawn at random, is wrong, and the calibrated vote says p for the other
label as it would be written down, then q = (p - e) / (1 - 2 e) is what it says of the truth, and by Bayes' rule the
label is wrong with chance e q / (e q + (1 - e)(1 - q)). V radiographs of S studies.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL, LABEL_NAMES, Case
from retrieval.decision.calibration import fit_platt, sigmoid
from retrieval.decision.rules import FEWEST, Rules, ranked_studies
from retrieval.decision.vote import vote_weights
from retrieval.encoding.bundle import digest_number

__all__ = ["ASSUMED", "LEAST", "LabelCheck", "LabelIssue", "Neighbour", "chance_of_error", "check_labels"]

ASSUMED = 0.05  # of the labels
LEAST = 0.2  # chance of a wrong label from which a study is listed
SHOWN = 5  # neighbours of a suspect
_EDGE = 0.01  # a vote can be 0 or 1 exactly, but nothing is certain

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A study that voted: its label, its nearest radiograph's name and similarity, and its part of the vote."""

    study: str
    label: str
    case: str
    similarity: float
    weight: float


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A study whose label may be wrong.

    `vote` and `classifier` are probabilities of abnormality, the latter None where the model was trained on the
    patient; `other` is the calibrated probability of the other label, `chance` that the label is wrong if the assumed
    share of labels is. `seconded` tells whether the classifier calls the other label too, None where it has no say.
    """

    study: str
    patient: str
    part: str
    split: str
    label: str
    cases: tuple[str, ...]
    vote: float
    classifier: float | None
    other: float
    chance: float
    seconded: bool | None
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """The issues, those of the highest chance first, of `studies` that could be voted on.

    `expected` is how many of the listed labels would be wrong, if `assumed` of all were: the sum of their chances.
    `trained_on` studies are of patients whom the model learned from, wrong labels and all; those may go unnoticed.
    `calibrated` is False where too few studies are labelled and votes stand as they are.
    """

    studies: int
    issues: tuple[LabelIssue, ...]
    assumed: float
    least: float
    expected: float
    trained_on: int
    calibrated: bool
    rules: Rules


def chance_of_error(other: Floats, assumed: float) -> Floats:
    """How probable a wrong label is where the calibrated probability of the other label is `other`; any shape.

    >>> chance_of_error(np.array([0.05, 0.5, 0.95]), 0.05).round(3).tolist()
    [0.001, 0.05, 0.839]
    """
    truth = np.clip((other - assumed) / (1 - 2 * assumed), _EDGE, 1 - _EDGE)
    wrong = assumed * truth
    chance: Floats = wrong / (wrong + (1 - assumed) * (1 - truth))
    return chance


def check_labels(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    logits: NDArray[np.float32],
    rules: Rules,
    *,
    owners: Sequence[str] | None = None,
    trained_on: Collection[int] = frozenset(),
    assumed: float = ASSUMED,
    least: float = LEAST,
) -> LabelCheck:
    """Vote on every study and list those whose labels are wrong with a chance of at least `least`.

    cases V; embeddings (V, D) unit rows; logits (V,); `owners` (V) names who is left out with each radiograph, by
    default its patient; `trained_on` the radiographs the model was trained on, as `Bundle.seen` numbers them; `assumed`
    the share of wrong labels, above 0 and below 0.5.
    """
    ranked = ranked_studies(cases, embeddings, np.arange(len(cases)), rules.k, owners)
    study_of = np.unique([case.study for case in cases], return_inverse=True)[1]
    weights = _weights(ranked.similarities, rules)
    voting = weights.sum(axis=1) > 0  # (V,)
    views = np.bincount(study_of, voting, len(ranked.studies))
    abnormal = (weights * (ranked.labels[ranked.numbers] == ABNORMAL)).sum(axis=1)  # (V,)
    votes: Floats = np.clip(np.bincount(study_of, abnormal) / np.maximum(views, 1), 0.0, 1.0)  # (S,)
    judged = views > 0
    probabilities = np.bincount(study_of, rules.probabilities(logits)) / np.bincount(study_of)
    known = _trained_on(cases, study_of, trained_on)

    labels = ranked.labels
    calibration, calibrated = _calibrated(votes, labels, judged)
    other = np.where(labels == ABNORMAL, 1 - calibration, calibration)
    chances = np.where(judged, chance_of_error(other, assumed), 0.0)
    # The chance grows with the other label's probability, but for its edges.
    listed = [study for study in np.lexsort((-other, -chances)) if chances[study] >= least]
    members = _members(study_of)
    issues = []
    for study in listed:
        rows = members[study]
        first = cases[rows[0]]
        second = None if known[study] else float(probabilities[study])
        issues.append(
            LabelIssue(
                study=first.study,
                patient=first.patient,
                part=first.part,
                split=first.split,
                label=LABEL_NAMES[first.label],
                cases=tuple(cases[row].case for row in rows),
                vote=float(votes[study]),
                classifier=second,
                other=float(other[study]),
                chance=float(chances[study]),
                seconded=None if second is None else (second > rules.classifier_threshold) != (first.label == ABNORMAL),
                neighbours=_neighbours(cases, embeddings, rows, voters=(ranked.numbers, weights), members=members),
            )
        )
    return LabelCheck(
        studies=int(judged.sum()),
        issues=tuple(issues),
        assumed=assumed,
        least=least,
        expected=float(chances[listed].sum()),
        trained_on=int((known & judged).sum()),
        calibrated=calibrated,
        rules=rules,
    )


def _weights(similarities: NDArray[np.float32], rules: Rules) -> Floats:
    """The weights of every row's neighbours; of a row that has none, all zero."""
    some = np.isfinite(similarities[:, 0]) if similarities.shape[1] else np.zeros(len(similarities), np.bool_)
    weights = np.zeros(similarities.shape)
    if some.any():
        weights[some] = vote_weights(similarities[some], rules.temperature)
    return weights


def _trained_on(cases: Sequence[Case], study_of: NDArray[np.int64], trained_on: Collection[int]) -> NDArray[np.bool_]:
    """Which studies are of patients of whom the model was trained on any radiograph (S,)."""
    patients = {case.patient for case in cases if case.digest and digest_number(case.digest) in trained_on}
    return np.bincount(study_of, [case.patient in patients for case in cases]) > 0


def _calibrated(votes: Floats, labels: NDArray[np.int64], judged: NDArray[np.bool_]) -> tuple[Floats, bool]:
    """Votes as probabilities of the label as it is written down (S,), and whether there were enough to learn that."""
    if np.bincount(labels[judged], minlength=2).min() < FEWEST:
        return votes, False
    clipped = np.clip(votes, _EDGE, 1 - _EDGE)
    logits = np.log(clipped / (1 - clipped))
    slope, intercept = fit_platt(logits[judged], labels[judged], np.ones(int(judged.sum())))
    if slope <= 0:  # the vote knows nothing, and the share of abnormal studies is all there is
        return np.full(len(votes), labels[judged].mean()), True
    return sigmoid(slope * logits + intercept), True


def _members(study_of: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of every study (S)."""
    order = np.argsort(study_of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(study_of))[:-1])


def _neighbours(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    rows: NDArray[np.int64],
    *,
    voters: tuple[NDArray[np.int64], Floats],
    members: Sequence[NDArray[np.int64]],
) -> tuple[Neighbour, ...]:
    """The studies with the largest parts in the vote on the study of `rows`."""
    numbers, weights = voters
    parts: dict[int, float] = {}
    for row in rows:
        for number, weight in zip(numbers[row].tolist(), weights[row].tolist(), strict=True):
            if weight > 0:
                parts[number] = parts.get(number, 0.0) + weight / len(rows)
    found = []
    for number, weight in sorted(parts.items(), key=lambda part: (-part[1], part[0]))[:SHOWN]:
        products = embeddings[rows] @ embeddings[members[number]].T
        nearest = cases[members[number][int(products.max(axis=0).argmax())]]
        found.append(Neighbour(nearest.study, nearest.label_name, nearest.case, float(products.max()), weight))
    return tuple(found)
