"""Label issues: studies whose neighbours, of other patients, mostly have the other label.

Every study gets a k-NN vote without its own patient, and without patients who share a radiograph with it. Platt's
calibration on the given labels turns the vote into p, the probability that the other label is given. The share e of
wrong labels is unknown; it is assumed, reported, and can be changed. If wrong labels are drawn at random, then the
other label is true with the probability q = (p - e) / (1 - 2 e), and by Bayes' rule the given label is wrong with the
chance e q / (e q + (1 - e)(1 - q)). V radiographs of S studies.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL, LABEL_NAMES, Case
from retrieval.decision.calibration import fit_platt, sigmoid
from retrieval.decision.leave_patient_out import ranked_studies
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import FEWEST, LabelledStudies
from retrieval.decision.vote import vote_weights
from retrieval.encoding.bundle import digest_number

__all__ = ["ASSUMED", "LEAST", "LabelCheck", "LabelIssue", "Neighbour", "chance_of_error", "check_labels"]

ASSUMED = 0.05  # of the labels
LEAST = 0.2  # a study with at least this chance of a wrong label is listed
SHOWN = 5  # neighbours of an issue
_EDGE = 0.01  # probabilities are clipped to this and 1 - this

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A study that voted: its label, its nearest radiograph with the similarity, and its part of the vote."""

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
    share of labels is. `seconded` is true where the classifier predicts the other label too, else
    false, or None where `classifier` is None.
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
    """The issues among `studies` that have a vote, the highest chance first.

    `expected` is the number of listed labels that are wrong if the share `assumed` of all labels is: the sum of the
    chances. `trained_on` studies are of patients whom the model was trained on; their wrong labels may go unnoticed.
    `calibrated` is False where too few studies are labelled, and the votes are not calibrated.
    """

    studies: int
    issues: tuple[LabelIssue, ...]
    assumed: float
    least: float
    expected: float
    trained_on: int
    calibrated: bool
    rules: Rules


def chance_of_error(opposite: Floats, assumed: float) -> Floats:
    """The chance of a wrong label where the calibrated probability of the other label is `opposite`; any shape.

    >>> chance_of_error(np.array([0.05, 0.5, 0.95]), 0.05).round(3).tolist()
    [0.001, 0.05, 0.839]
    """
    truth = np.clip((opposite - assumed) / (1 - 2 * assumed), _EDGE, 1 - _EDGE)
    wrong = assumed * truth
    chance: Floats = wrong / (wrong + (1 - assumed) * (1 - truth))
    return chance


def check_labels(
    studies: LabelledStudies,
    rules: Rules,
    *,
    owners: Sequence[str] | None = None,
    assumed: float = ASSUMED,
    least: float = LEAST,
) -> LabelCheck:
    """Vote on every study and list those whose labels are wrong with a chance of at least `least`.

    `owners` names who is left out with each of the V radiographs, by default its patient; `assumed` is the share of
    wrong labels, above 0 and below 0.5.
    """
    cases, embeddings = studies.cases, studies.embeddings
    votes = _vote(cases, embeddings, rules, owners)
    calibrated, learned = _calibrated(votes.probabilities, votes.labels, votes.voted)
    opposite = np.where(votes.labels == ABNORMAL, 1 - calibrated, calibrated)
    chances = np.where(votes.voted, chance_of_error(opposite, assumed), 0.0)
    # Ties in the chance, which is clipped at either end, are broken by the other label's probability.
    listed = [study for study in np.lexsort((-opposite, -chances)) if chances[study] >= least]
    probabilities = rules.probabilities(studies.logits, embeddings)
    classifier = np.bincount(votes.study_of, probabilities) / np.bincount(votes.study_of)
    known = _trained_on(cases, votes.study_of, studies.trained_on)
    members = _members(votes.study_of)
    issues = []
    for study in listed:
        rows = members[study]
        first = cases[rows[0]]
        probability = None if known[study] else float(classifier[study])
        abnormal = None if probability is None else probability > rules.classifier_threshold
        issues.append(
            LabelIssue(
                study=first.study,
                patient=first.patient,
                part=first.part,
                split=first.split,
                label=LABEL_NAMES[first.label],
                cases=tuple(cases[row].case for row in rows),
                vote=float(votes.probabilities[study]),
                classifier=probability,
                other=float(opposite[study]),
                chance=float(chances[study]),
                seconded=None if abnormal is None else abnormal != (first.label == ABNORMAL),
                neighbours=_neighbours(cases, embeddings, rows, votes, members),
            )
        )
    return LabelCheck(
        studies=int(votes.voted.sum()),
        issues=tuple(issues),
        assumed=assumed,
        least=least,
        expected=float(chances[listed].sum()),
        trained_on=int((known & votes.voted).sum()),
        calibrated=learned,
        rules=rules,
    )


@dataclass(frozen=True, slots=True)
class _Votes:
    """The votes on S studies of V radiographs, with k neighbours each.

    study_of (V,) is each radiograph's study number. labels, probabilities of abnormality and voted (S,); a study
    without neighbours is not voted on. neighbours (V, k) are study numbers, weights (V, k) their parts of the vote.
    """

    study_of: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: Floats
    voted: NDArray[np.bool_]
    neighbours: NDArray[np.int64]
    weights: Floats


def _vote(cases: Sequence[Case], embeddings: NDArray[np.float32], rules: Rules, owners: Sequence[str] | None) -> _Votes:
    """Vote on every study by the mean of its radiographs that have neighbours."""
    ranked = ranked_studies(cases, embeddings, np.arange(len(cases)), rules.k, owners)
    study_of = ranked.study_of
    weights = vote_weights(ranked.similarities, rules.temperature)
    views = np.bincount(study_of, weights.sum(axis=1) > 0, len(ranked.studies))
    abnormal = (weights * (ranked.neighbour_labels == ABNORMAL)).sum(axis=1)  # (V,)
    probabilities: Floats = np.clip(np.bincount(study_of, abnormal) / np.maximum(views, 1), 0.0, 1.0)
    return _Votes(study_of, ranked.labels, probabilities, views > 0, ranked.numbers, weights)


def _trained_on(cases: Sequence[Case], study_of: NDArray[np.int64], trained_on: Collection[int]) -> NDArray[np.bool_]:
    """Whether the model was trained on any radiograph of the study's patient (S,)."""
    patients = {case.patient for case in cases if case.digest and digest_number(case.digest) in trained_on}
    return np.bincount(study_of, [case.patient in patients for case in cases]) > 0


def _calibrated(votes: Floats, labels: NDArray[np.int64], voted: NDArray[np.bool_]) -> tuple[Floats, bool]:
    """Votes as calibrated probabilities of an abnormal label (S,), and whether there are enough to calibrate."""
    if np.bincount(labels[voted], minlength=2).min() < FEWEST:
        return votes, False
    clipped = np.clip(votes, _EDGE, 1 - _EDGE)
    logits = np.log(clipped / (1 - clipped))
    slope, intercept = fit_platt(logits[voted], labels[voted], np.ones(int(voted.sum())))
    if slope <= 0:  # the vote is useless, and the share of abnormal studies is the best probability
        return np.full(len(votes), labels[voted].mean()), True
    return sigmoid(slope * logits + intercept), True


def _members(study_of: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of every study (S)."""
    order = np.argsort(study_of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(study_of))[:-1])


def _neighbours(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    rows: NDArray[np.int64],
    votes: _Votes,
    members: Sequence[NDArray[np.int64]],
) -> tuple[Neighbour, ...]:
    """The studies with the largest parts in the vote on the study of `rows`; ties by their number."""
    parts: dict[int, float] = {}
    for row in rows:
        for study, weight in zip(votes.neighbours[row].tolist(), votes.weights[row].tolist(), strict=True):
            if weight > 0:
                parts[study] = parts.get(study, 0.0) + weight / len(rows)
    largest = sorted(parts.items(), key=lambda part: (-part[1], part[0]))[:SHOWN]
    neighbours = []
    for study, weight in largest:
        similarities = embeddings[rows] @ embeddings[members[study]].T
        nearest = cases[members[study][int(similarities.max(axis=0).argmax())]]
        similarity = float(similarities.max())
        neighbours.append(Neighbour(nearest.study, nearest.label_name, nearest.case, similarity, weight))
    return tuple(neighbours)
