"""Learning the decision rules of an index from its own studies.

N radiographs of labelled studies; V of them belong to the S studies that teach (`decision.teachers`). The own patient
of a study is left out of the index when its neighbours are found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL, Case
from retrieval.decision.calibration import best_threshold, fit_platt, sigmoid
from retrieval.decision.leave_patient_out import Ranked, ranked_studies
from retrieval.decision.rules import DEFAULTS, Rules
from retrieval.decision.tail_limit import normal_limit, tail_limit
from retrieval.decision.teachers import LabelledStudies, Teachers
from retrieval.decision.vote import vote_weights
from retrieval.encoding.probes import NOTHING, Appearance

__all__ = ["NEIGHBOURS", "TEMPERATURES", "Lesson", "VoteChoice", "fit_rules", "learn_rules", "study_votes"]

Floats = NDArray[np.float64]

VoteChoice = Callable[[Ranked, NDArray[np.int64], NDArray[np.int64]], tuple[int, float, Floats]]
"""Gives k, temperature and the votes (S,) for ranks of V radiographs, the numbers of their studies and labels (S,)."""

NEIGHBOURS = (5, 9, 15, 25, 35, 51)
TEMPERATURES = (0.003, 0.01, 0.03, 0.1, 0.3)
# This share of the known studies is flagged as unfamiliar by similarity and looks; as many are by plain measures.
_FALSE_ALARMS = 0.005
_COMMON = 0.05  # a part as which this share of an index's radiographs is seen is familiar, whatever its table names


@dataclass(frozen=True, slots=True)
class Lesson:
    """What rules are learned from: studies, those of them that teach, and the nearest studies of other patients.

    `ranked` is of the V radiographs that teach. `copies` are the same ranks and logits (N,) of the radiographs
    processed otherwise: they teach vote, calibration and thresholds too, but not familiarity.
    """

    studies: LabelledStudies
    teachers: Teachers
    ranked: Ranked
    copies: Sequence[tuple[Ranked, NDArray[np.float32]]] = ()

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """Those that teach (V, D)."""
        return self.studies.embeddings[self.teachers.rows]


def learn_rules(
    studies: LabelledStudies,
    *,
    fallback: Rules = DEFAULTS,
    appearance: Appearance | None = None,
    copies: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]] = (),
) -> Rules:
    """Learn the rules of an index from its own studies, leaving out each study's patient.

    appearance: the model's, where it has one. copies: embeddings (N, D) and logits (N,) of all cases, processed
    otherwise. With fewer than 20 teaching studies of either label the rules are `fallback`, of whose parts only those
    that this index holds are familiar.

    Similarity and looks may give 0.5 % false alarms, each limit an equal share of it: that of similarity by its tail,
    those of looks, whose margins are near to normal, by their mean and deviation (`decision.tail_limit`).
    """
    cases, embeddings, teachers = studies.cases, studies.embeddings, studies.teachers()
    if not teachers.enough:
        return _narrowed(fallback, studies, appearance)
    ranked = ranked_studies(cases, embeddings, teachers.rows, max(NEIGHBOURS))
    if ranked.nobody:
        return _narrowed(fallback, studies, appearance)

    patients = len({cases[row].patient for row in teachers.rows})
    copied = [
        (ranked_studies(cases, embeddings, teachers.rows, max(NEIGHBOURS), asked=copy), logits)
        for copy, logits in copies
    ]
    return fit_rules(
        Lesson(studies, teachers, ranked, copied),
        fallback=fallback,
        appearance=appearance,
        source=f"learned on {len(teachers.labels)} studies ({teachers.labels.sum()} abnormal) of {patients} patients "
        "on whom the model was not trained, each with its own patient left out",
    )


def fit_rules(
    lesson: Lesson,
    *,
    fallback: Rules,
    appearance: Appearance | None,
    source: str,
    parts: tuple[str, ...] | None = None,
    choose_vote: VoteChoice | None = None,
) -> Rules:
    """Learn the rules from radiographs whose nearest studies of other patients are known.

    fallback: whose calibration is kept where the logits say nothing. source: what the studies are, in words. parts:
    those that are familiar, by default those that the cases are of. choose_vote: chooses k and temperature instead of
    `_best_vote`.
    """
    teachers, copies = lesson.teachers, lesson.copies
    S, versions = len(teachers.labels), 1 + len(copies)
    # The copies' studies are others.
    taught = np.concatenate([teachers.study_of + S * version for version in range(versions)])
    labels = np.tile(teachers.labels, versions)
    logits = np.concatenate(
        [values[teachers.rows] for values in (lesson.studies.logits, *(values for _, values in copies))]
    )
    ranked = _stacked([lesson.ranked, *(values for values, _ in copies)])
    k, temperature, votes = (choose_vote or _best_vote)(ranked, taught, labels)
    slope, intercept, probabilities, note = _calibration(logits, taught, labels, fallback)
    limit, known, appearance_limits = _limits(lesson, appearance, parts)
    if copies:
        note += f"; from each also in {len(copies)} copies that were processed otherwise"
    return Rules(
        k=k,
        temperature=temperature,
        vote_threshold=best_threshold(labels, votes),
        slope=slope,
        intercept=intercept,
        classifier_threshold=best_threshold(labels, probabilities),
        familiarity_limit=limit,
        parts=known,
        appearance_limits=appearance_limits,
        borderline=fallback.borderline,
        source=source + note,
    )


def _stacked(ranked: Sequence[Ranked]) -> Ranked:
    """Several rankings among the same studies, one below the other."""
    return replace(
        ranked[0],
        similarities=np.concatenate([ranking.similarities for ranking in ranked]),
        numbers=np.concatenate([ranking.numbers for ranking in ranked]),
    )


def _calibration(
    logits: NDArray[np.float32], study_of: NDArray[np.int64], labels: NDArray[np.int64], fallback: Rules
) -> tuple[float, float, Floats, str]:
    """Slope, intercept, the studies' probabilities (S,), and a note where the fallback's calibration had to be kept."""
    views = np.bincount(study_of)  # (S,)
    slope, intercept = fit_platt(logits.astype(np.float64), labels[study_of], 1 / views[study_of])
    note = ""
    if slope <= 0:
        slope, intercept = fallback.slope, fallback.intercept
        note = "; the classifier's scores say nothing here, and keep their former calibration"
    return slope, intercept, np.bincount(study_of, sigmoid(slope * logits + intercept)) / views, note


def _limits(
    lesson: Lesson, appearance: Appearance | None, parts: tuple[str, ...] | None
) -> tuple[float, tuple[str, ...], tuple[float, ...]]:
    """The familiarity limit, the familiar parts, and the appearance limits."""
    cases, embeddings, study_of = lesson.studies.cases, lesson.embeddings, lesson.teachers.study_of
    nearest = _least(lesson.ranked.similarities[:, :1], study_of)[:, 0]  # (S,)
    if appearance is None:
        return -tail_limit(-nearest, _FALSE_ALARMS), (), ()
    parts = _known_parts(cases, embeddings, appearance) if parts is None else parts
    own_parts = [cases[row].part for row in lesson.teachers.rows]
    margins = _least(_margins(appearance, embeddings, own_parts, parts), study_of)
    finite = [column[np.isfinite(column)] for column in margins.T]
    share = _FALSE_ALARMS / (1 + sum(len(values) > 0 for values in finite))
    limits = tuple(-normal_limit(-values, share) if len(values) else 0.0 for values in finite)
    return -tail_limit(-nearest, share), parts, limits


def _least(values: NDArray[np.floating], study_of: NDArray[np.int64]) -> Floats:
    """The least value of each study's radiographs, (S, M) of (V, M)."""
    least = np.full((int(study_of.max()) + 1, values.shape[1]), np.inf)
    np.minimum.at(least, study_of, values)
    return least


def _narrowed(fallback: Rules, studies: LabelledStudies, appearance: Appearance | None) -> Rules:
    """The fallback, where only the parts that this index holds are familiar."""
    if appearance is None or not fallback.appearance_limits:
        return fallback
    known = set(_known_parts(studies.cases, studies.embeddings, appearance))
    if set(fallback.parts) != set(appearance.parts) - {NOTHING}:
        # Its limit was learned where some parts together are familiar (`_margins`), and flags too much where fewer are.
        known |= set(fallback.parts)
    return replace(fallback, parts=tuple(part for part in appearance.parts if part in known))


def _margins(
    appearance: Appearance, embeddings: NDArray[np.float32], own_parts: Sequence[str], parts: tuple[str, ...]
) -> Floats:
    """The margins (V, 3) by which V radiographs of the parts `own_parts` are usual where `parts` are familiar.

    Where the model knows no others, a radiograph's margin is that of its own part: so the limit holds for an index
    that takes these rules over, but holds fewer parts.
    """
    margins = appearance.margins(embeddings, parts)
    if set(appearance.parts) - {NOTHING} == set(parts):
        for part in set(own_parts):
            rows = np.array([name == part for name in own_parts])
            margins[rows, 0] = appearance.margins(embeddings[rows], (part,))[:, 0]
    return margins


def _known_parts(cases: Sequence[Case], embeddings: NDArray[np.float32], appearance: Appearance) -> tuple[str, ...]:
    """The parts that an index holds: those its table names, and those as which many of V embeddings (V, D) are seen."""
    named = {case.part for case in cases}
    seen = appearance.part(embeddings)
    return tuple(
        part
        for part in appearance.parts
        if part != NOTHING and (part in named or seen.count(part) >= _COMMON * len(seen))
    )


def _best_vote(ranked: Ranked, study_of: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[int, float, Floats]:
    """Choose k and temperature of the lowest log loss of the studies' votes, and those votes (S,)."""
    best = (np.inf, 0, 0.0, np.empty(0))
    for k in NEIGHBOURS:
        for temperature in TEMPERATURES:
            votes = study_votes(ranked, study_of, k, temperature)
            # A vote can be 0 or 1 exactly; unbounded, one study would then decide.
            right = np.clip(np.where(labels == ABNORMAL, votes, 1 - votes), 0.01, 1)
            loss = -float(np.log(right).mean())
            if loss < best[0]:
                best = (loss, k, temperature, votes)
    return best[1:]


def study_votes(ranked: Ranked, study_of: NDArray[np.int64], k: int, temperature: float) -> Floats:
    """The votes (S,) on the studies of V ranked radiographs, whose studies have the numbers `study_of` (V,)."""
    weights = vote_weights(ranked.similarities[:, :k], temperature)
    abnormal = (weights * (ranked.neighbour_labels[:, :k] == ABNORMAL)).sum(axis=1)
    votes: Floats = np.clip(np.bincount(study_of, abnormal) / np.bincount(study_of), 0, 1)
    return votes
