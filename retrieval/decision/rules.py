"""The decision rules: learned on training studies when an index is built, then frozen with it.

N radiographs of S studies; V of the radiographs belong to studies that teach. A study teaches where the model was not
trained on its patient, so that its logit and its neighbours are what a new patient's would be. It is judged with its
own patient left out of the index.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL, Case
from retrieval.decision.calibration import best_threshold, fit_platt, sigmoid
from retrieval.decision.vote import vote_weights
from retrieval.encoding.bundle import digest_number
from retrieval.encoding.probes import MARGINS, NOTHING, Appearance

__all__ = ["DEFAULTS", "Ranked", "Rules", "learn_rules", "nearest_studies", "ranked_studies"]

Floats = NDArray[np.float64]

NEIGHBOURS = (5, 9, 15, 25, 35, 51)
TEMPERATURES = (0.003, 0.01, 0.03, 0.1, 0.3)
# Fewer teaching studies than this of either label say too little about thresholds.
FEWEST = 20
# Leaving patients out costs teachers x cases; this many studies settle six numbers.
MOST = 5_000
_FALSE_ALARMS = 0.01  # this part of the known studies is called unfamiliar
_COMMON = 0.05  # a part as which so many radiographs of an index are seen is familiar, whatever its table calls it
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything between an embedding with its logit and a call.

    The vote is that of the `k` nearest studies at `temperature`; the classifier's probability is
    sigmoid(slope * logit + intercept); each calls a study abnormal above its threshold. A study is familiar where the
    nearest similarity of its least familiar view is at least `familiarity_limit`, and where the margins by which its
    views are of one of the `parts`, not inverted and not on their side are at least the three `appearance_limits`
    (`retrieval.encoding.probes`), if there are any. `source` says what they rest on.
    """

    k: int = 15
    temperature: float = 0.1
    vote_threshold: float = 0.5
    slope: float = 1.0
    intercept: float = 0.0
    classifier_threshold: float = 0.5
    familiarity_limit: float = 0.5
    parts: tuple[str, ...] = ()
    appearance_limits: tuple[float, ...] = ()
    source: str = "plain defaults: too few labelled studies to learn from, and none in the model bundle"

    def __post_init__(self) -> None:
        numbers = [value for value in asdict(self).values() if not isinstance(value, str | tuple)]
        numbers += self.appearance_limits
        texts = (self.source, *self.parts)
        finite = all(isinstance(n, int | float) and np.isfinite(n) for n in numbers)
        if not (finite and all(isinstance(text, str) for text in texts)):
            raise ValueError("decision rules must be finite numbers, body parts and a source")
        if not isinstance(self.k, int) or self.k < 1 or self.temperature <= 0 or self.slope <= 0:
            raise ValueError("decision rules need a whole k of at least 1, a positive temperature and a positive slope")
        if len(self.appearance_limits) not in (0, len(MARGINS)):
            raise ValueError(f"decision rules need a limit for each of {', '.join(MARGINS)}, or none")

    def probabilities(self, logits: NDArray[np.floating]) -> Floats:
        """Calibrated probabilities of abnormality of classifier logits, any shape."""
        return sigmoid(self.slope * np.asarray(logits, np.float64) + self.intercept)

    def to_dict(self) -> dict[str, object]:
        """The fields as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Rules":
        """Give back what `to_dict` gave, also after JSON; ValueError where a rule is missing, unknown or no number.

        Rules from before there were `parts` and `appearance_limits` have none.
        """
        if not isinstance(values, Mapping):
            raise ValueError("decision rules are named values")
        listed = {name: values.get(name, ()) for name in ("parts", "appearance_limits")}
        if set(values) | set(listed) != set(cls.__slots__):
            raise ValueError(f"decision rules need exactly {', '.join(cls.__slots__)}")
        for name, value in listed.items():
            if not isinstance(value, list | tuple):
                raise ValueError(f"the {name} of decision rules are a list")
            listed[name] = tuple(value)
        return cls(**{**values, **listed})  # type: ignore[arg-type]  # __post_init__ checks them


DEFAULTS = Rules()


def learn_rules(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    logits: NDArray[np.float32],
    *,
    trained_on: Collection[int] = frozenset(),
    fallback: Rules = DEFAULTS,
    appearance: Appearance | None = None,
) -> Rules:
    """Learn the rules of an index from its own studies, leaving out each study's patient.

    cases N; embeddings (N, D) unit rows; logits (N,); trained_on: the radiographs that the model was trained on, as
    `Bundle.seen` numbers them. appearance: the model's, where it has one. With fewer than 20 teaching studies of either
    label the rules are `fallback`, of whose parts only those that this index holds are familiar.

    Familiarity may give 1 % false alarms: each limit is the quantile of the teaching studies for its equal share of it.
    """
    rows, study_of = _teachers(cases, trained_on)
    labels = np.zeros(int(study_of.max(initial=-1)) + 1, np.int64)
    labels[study_of] = [cases[row].label for row in rows]
    if np.bincount(labels, minlength=2).min() < FEWEST:
        return _narrowed(fallback, cases, embeddings, appearance)
    similarities, neighbour_labels = nearest_studies(cases, embeddings, rows, max(NEIGHBOURS))
    if similarities.shape[1] == 0 or not np.isfinite(similarities[:, 0]).all():
        return _narrowed(fallback, cases, embeddings, appearance)  # a patient without anybody else in the index
    views = np.bincount(study_of)  # (S,)

    k, temperature, votes = _best_vote(similarities, neighbour_labels, study_of, labels)
    slope, intercept = fit_platt(logits[rows].astype(np.float64), labels[study_of], 1 / views[study_of])
    note = ""
    if slope <= 0:
        slope, intercept = fallback.slope, fallback.intercept
        note = "; the classifier's scores say nothing here, and keep their former calibration"
    probabilities = np.bincount(study_of, sigmoid(slope * logits[rows] + intercept)) / views
    nearest = np.full(len(labels), np.inf)
    np.minimum.at(nearest, study_of, similarities[:, 0])
    parts = _known_parts(cases, embeddings[rows], appearance) if appearance else ()
    usual = np.full((len(labels), len(MARGINS)), np.inf)
    if appearance:
        own = [cases[row].part for row in rows]
        np.minimum.at(usual, study_of, _margins(appearance, embeddings[rows], own, parts))
    told = [column[np.isfinite(column)] for column in usual.T]
    alarms = _FALSE_ALARMS / (1 + sum(len(values) > 0 for values in told))
    limits = [float(np.quantile(values, alarms)) if len(values) else 0.0 for values in told]
    patients = len({cases[row].patient for row in rows})
    return Rules(
        k=k,
        temperature=temperature,
        vote_threshold=best_threshold(labels, votes),
        slope=slope,
        intercept=intercept,
        classifier_threshold=best_threshold(labels, probabilities),
        familiarity_limit=float(np.quantile(nearest, alarms)),
        parts=parts,
        appearance_limits=tuple(limits) if appearance else (),
        source=f"learned on {len(labels)} studies ({labels.sum()} abnormal) of {patients} patients on whom the model "
        f"was not trained, each judged with its own patient left out{note}",
    )


@dataclass(frozen=True, slots=True)
class Ranked:
    """The K nearest studies of V radiographs: similarities (V, K) descending, -inf where there are fewer.

    `numbers` (V, K) are places in `studies`, their names, and `labels` (S,).
    """

    similarities: NDArray[np.float32]
    numbers: NDArray[np.int64]
    studies: tuple[str, ...]
    labels: NDArray[np.int64]


def nearest_studies(
    cases: Sequence[Case], embeddings: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and labels, (V, K) each, of what `ranked_studies` gives."""
    ranked = ranked_studies(cases, embeddings, rows, k)
    return ranked.similarities, ranked.labels[ranked.numbers]


def ranked_studies(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    rows: NDArray[np.int64],
    k: int,
    owners: Sequence[str] | None = None,
) -> Ranked:
    """Find the k studies of other patients nearest to each of V rows, for all of them at once.

    K = min(k, studies); where a row has fewer, -inf fills it up. The same as the index's search with each row's patient
    excluded, but one product of matrices instead of V searches. `owners` (N) may name other owners than the patients.
    """
    names, first, study_of = np.unique([case.study for case in cases], return_index=True, return_inverse=True)
    labels = np.array([cases[row].label for row in first], np.int64)  # (S,)
    of = [case.patient for case in cases] if owners is None else list(owners)
    _, patient_of = np.unique(of, return_inverse=True)
    order = np.argsort(study_of, kind="stable")
    starts = np.searchsorted(study_of[order], np.arange(len(labels)))
    K = min(k, len(labels))
    similarities = np.empty((len(rows), K), np.float32)
    nearest = np.empty((len(rows), K), np.int64)
    at_once = max(1, _CHUNK_BYTES // (4 * max(1, len(cases))))
    for start in range(0, len(rows), at_once):
        chunk = rows[start : start + at_once]
        products = embeddings[chunk] @ embeddings[order].T  # (chunk, N)
        products[patient_of[chunk][:, None] == patient_of[order]] = -np.inf
        by_study = np.maximum.reduceat(products, starts, axis=1)  # (chunk, S)
        best = np.sort(np.argpartition(-by_study, K - 1, axis=1)[:, :K], axis=1)
        ranks = np.argsort(-np.take_along_axis(by_study, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, ranks, axis=1)
        nearest[start : start + at_once] = best
        similarities[start : start + at_once] = np.take_along_axis(by_study, best, axis=1)
    return Ranked(similarities, nearest, tuple(names.tolist()), labels)


def _narrowed(
    fallback: Rules, cases: Sequence[Case], embeddings: NDArray[np.float32], appearance: Appearance | None
) -> Rules:
    """The fallback, where only the parts that this index holds are familiar."""
    if appearance is None or not fallback.appearance_limits:
        return fallback
    return replace(fallback, parts=_known_parts(cases, embeddings, appearance))


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


def _teachers(cases: Sequence[Case], trained_on: Collection[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the radiographs that teach (V,), and for each the number of its study (V,), counted from 0."""
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
    return np.array(rows, np.int64), np.array([number[cases[row].study] for row in rows], np.int64)


def _best_vote(
    similarities: NDArray[np.float32],
    neighbour_labels: NDArray[np.int64],
    study_of: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> tuple[int, float, Floats]:
    """Choose k and temperature of the lowest log loss of the studies' votes, and those votes (S,)."""
    views = np.bincount(study_of)
    best = (np.inf, 0, 0.0, np.empty(0))
    for k in NEIGHBOURS:
        for temperature in TEMPERATURES:
            weights = vote_weights(similarities[:, :k], temperature)
            votes = np.bincount(study_of, (weights * (neighbour_labels[:, :k] == ABNORMAL)).sum(axis=1)) / views
            # A vote can be 0 or 1 exactly; unbounded, one study would then decide.
            right = np.clip(np.where(labels == ABNORMAL, votes, 1 - votes), 0.01, 1)
            loss = -float(np.log(right).mean())
            if loss < best[0]:
                best = (loss, k, temperature, np.clip(votes, 0, 1))
    return best[1:]
