"""Learning the decision rules of an index from its own studies.

N radiographs of S studies; V of the radiographs belong to studies that teach. A study teaches where the model was not
trained on its patient, so that its logit and its neighbours are what a new patient's would be. Its own patient is left
out of the index when its neighbours are found.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL, Case
from retrieval.decision.calibration import best_threshold, fit_platt, sigmoid
from retrieval.decision.leave_patient_out import Ranked, ranked_studies
from retrieval.decision.rules import DEFAULTS, Rules
from retrieval.decision.tail_limit import tail_limit
from retrieval.decision.vote import vote_weights
from retrieval.encoding.bundle import digest_number
from retrieval.encoding.probes import NOTHING, Appearance

__all__ = ["FEWEST", "NEIGHBOURS", "TEMPERATURES", "VoteChoice", "fit_rules", "learn_rules", "study_votes", "teachers"]

Floats = NDArray[np.float64]

VoteChoice = Callable[[Ranked, NDArray[np.int64], NDArray[np.int64]], tuple[int, float, Floats]]
"""Gives k, temperature and the votes (S,) for ranks of V radiographs, the numbers of their studies and labels (S,)."""

NEIGHBOURS = (5, 9, 15, 25, 35, 51)
TEMPERATURES = (0.003, 0.01, 0.03, 0.1, 0.3)
# Fewer teaching studies than this of either label say too little about thresholds.
FEWEST = 20
# Leaving patients out costs teachers x cases; this many studies settle six numbers.
MOST = 5_000
# This share of the known studies is flagged as unfamiliar by similarity and looks; as many are by plain measures.
_FALSE_ALARMS = 0.005
_COMMON = 0.05  # a part as which this share of an index's radiographs is seen is familiar, whatever its table names


def learn_rules(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    logits: NDArray[np.float32],
    *,
    trained_on: Collection[int] = frozenset(),
    fallback: Rules = DEFAULTS,
    appearance: Appearance | None = None,
    copies: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]] = (),
) -> Rules:
    """Learn the rules of an index from its own studies, leaving out each study's patient.

    cases N; embeddings (N, D) unit rows; logits (N,); trained_on: the radiographs that the model was trained on, as
    `Bundle.seen` numbers them. appearance: the model's, where it has one. copies: embeddings and logits of all cases,
    processed otherwise; they teach vote, calibration and thresholds too, but not familiarity. With fewer than 20
    teaching studies of either label the rules are `fallback`, of whose parts only those that this index holds are
    familiar.

    Similarity and looks may give 0.5 % false alarms: each limit is that of `tail_limit` for its equal share of it.
    """
    rows, study_of, labels = teachers(cases, trained_on)
    if np.bincount(labels, minlength=2).min() < FEWEST:
        return _narrowed(fallback, cases, embeddings, appearance)
    ranked = ranked_studies(cases, embeddings, rows, max(NEIGHBOURS))
    if ranked.similarities.shape[1] == 0 or not np.isfinite(ranked.similarities[:, 0]).all():
        return _narrowed(fallback, cases, embeddings, appearance)  # the index holds one patient only

    patients = len({cases[row].patient for row in rows})
    return fit_rules(
        ranked,
        cases,
        embeddings,
        logits,
        (rows, study_of, labels),
        fallback=fallback,
        appearance=appearance,
        source=f"learned on {len(labels)} studies ({labels.sum()} abnormal) of {patients} patients on whom the model "
        "was not trained, each with its own patient left out",
        copies=[
            (ranked_studies(cases, embeddings, rows, max(NEIGHBOURS), asked=copy), scores) for copy, scores in copies
        ],
    )


def fit_rules(
    ranked: Ranked,
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    logits: NDArray[np.float32],
    teaching: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    *,
    fallback: Rules,
    appearance: Appearance | None,
    source: str,
    parts: tuple[str, ...] | None = None,
    copies: Sequence[tuple[Ranked, NDArray[np.float32]]] = (),
    choose_vote: "VoteChoice | None" = None,
) -> Rules:
    """Learn the rules from radiographs whose nearest studies of other patients are known.

    cases N; embeddings (N, D); logits (N,). teaching: what `teachers` gives, rows V of them; ranked: of these rows.
    fallback: whose calibration is kept where the logits say nothing. parts: those that are familiar, by default those
    that the cases are of. copies: the same ranks and logits (N,) of the radiographs processed otherwise.
    choose_vote: chooses k and temperature instead of `_best_vote`.
    """
    rows, study_of, labels = teaching
    S, versions = len(labels), 1 + len(copies)
    taught = np.concatenate([study_of + S * version for version in range(versions)])  # the copies' studies are others
    scores = np.concatenate([own[rows] for own in (logits, *(own for _, own in copies))])
    every_label = np.tile(labels, versions)
    every_rank = _stacked([ranked, *(own for own, _ in copies)])
    k, temperature, votes = (choose_vote or _best_vote)(every_rank, taught, every_label)
    slope, intercept, probabilities, note = _calibration(scores, taught, every_label, fallback)
    nearest = _least(ranked.similarities[:, :1], study_of)
    limit, known, appearance_limits = _limits(
        nearest, cases, embeddings, rows, study_of, appearance=appearance, parts=parts
    )
    if copies:
        note += f"; from each also in {len(copies)} copies that were processed otherwise"
    return Rules(
        k=k,
        temperature=temperature,
        vote_threshold=best_threshold(every_label, votes),
        slope=slope,
        intercept=intercept,
        classifier_threshold=best_threshold(every_label, probabilities),
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
        similarities=np.concatenate([one.similarities for one in ranked]),
        numbers=np.concatenate([one.numbers for one in ranked]),
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
    nearest: Floats,
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    rows: NDArray[np.int64],
    study_of: NDArray[np.int64],
    *,
    appearance: Appearance | None,
    parts: tuple[str, ...] | None,
) -> tuple[float, tuple[str, ...], tuple[float, ...]]:
    """The familiarity limit of the similarities `nearest` (S, 1), the familiar parts, and the appearance limits."""
    if appearance is None:
        return _lower_limit(nearest[:, 0], _FALSE_ALARMS), (), ()
    parts = _known_parts(cases, embeddings[rows], appearance) if parts is None else parts
    margins = _least(_margins(appearance, embeddings[rows], [cases[row].part for row in rows], parts), study_of)
    finite = [column[np.isfinite(column)] for column in margins.T]
    share = _FALSE_ALARMS / (1 + sum(len(values) > 0 for values in finite))
    limits = tuple(_lower_limit(values, share) if len(values) else 0.0 for values in finite)
    return _lower_limit(nearest[:, 0], share), parts, limits


def _lower_limit(values: Floats, share: float) -> float:
    """The limit below which a new value (S,) falls with the probability `share`."""
    return -tail_limit(-values, share)


def _least(values: NDArray[np.floating], study_of: NDArray[np.int64]) -> Floats:
    """The least value of each study's radiographs, (S, M) of (V, M)."""
    least = np.full((int(study_of.max()) + 1, values.shape[1]), np.inf)
    np.minimum.at(least, study_of, values)
    return least


def _narrowed(
    fallback: Rules, cases: Sequence[Case], embeddings: NDArray[np.float32], appearance: Appearance | None
) -> Rules:
    """The fallback, where only the parts that this index holds are familiar."""
    if appearance is None or not fallback.appearance_limits:
        return fallback
    known = set(_known_parts(cases, embeddings, appearance))
    if set(fallback.parts) != set(appearance.parts) - {NOTHING}:
        # Its limit was learned where some parts together are familiar (`_margins`), and flags too much where fewer are.
        known |= set(fallback.parts)
    return replace(fallback, parts=tuple(part for part in appearance.parts if part in known))


def _margins(
    appearance: Appearance, embeddings: NDArray[np.float32], own: Sequence[str], parts: tuple[str, ...]
) -> Floats:
    """The margins (V, 3) by which V radiographs of the parts `own` are usual where `parts` are familiar.

    Where the model knows no others, a radiograph's margin is that of its own part: so the limit holds for an index
    that takes these rules over, but holds fewer parts.
    """
    margins = appearance.margins(embeddings, parts)
    if set(appearance.parts) - {NOTHING} == set(parts):
        for part in set(own):
            rows = np.array([name == part for name in own])
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


def teachers(
    cases: Sequence[Case], trained_on: Collection[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the radiographs that teach (V,), the number of the study of each (V,), and the studies' labels (S,)."""
    owners: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        owners[case.digest].add(case.patient)
    # A radiograph that also lies under another patient finds itself there, whichever patient is left out.
    barred = {
        case.patient
        for case in cases
        if case.digest and (digest_number(case.digest) in trained_on or len(owners[case.digest]) > 1)
    }
    studies = sorted({case.study for case in cases if case.patient not in barred})
    if len(studies) > MOST:
        studies = [studies[i] for i in np.linspace(0, len(studies) - 1, MOST).astype(int)]
    number = {study: i for i, study in enumerate(studies)}
    rows = [row for row, case in enumerate(cases) if case.study in number]
    study_of = np.array([number[cases[row].study] for row in rows], np.int64)
    labels = np.zeros(len(studies), np.int64)
    labels[study_of] = [cases[row].label for row in rows]
    return np.array(rows, np.int64), study_of, labels


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
