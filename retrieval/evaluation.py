"""How well an index and its model read studies that neither has seen. Nothing is tuned here."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.case import Case
from retrieval.answer import IndexSource, ModelSource, plain
from retrieval.bundle import digest_number
from retrieval.collection import Collection
from retrieval.encoder import Encoded
from retrieval.errors import EvaluationError
from retrieval.metrics import METRICS, Bootstrap, Estimate, Reader, bootstrap, bootstrap_mean
from retrieval.rules import Rules
from retrieval.searcher import Judgement, Searcher
from retrieval.stream import encoded_batches, file_digest

__all__ = ["Evaluation", "evaluate"]

SCHEMA = "mura-search/evaluation/1"
DEPTHS = (1, 5, 10)

Figures = Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures with 95 % intervals, from `rounds` resamplings of the patients.

    `study` and `image` give METRICS of three readers: "classifier", "knn" (the vote) and "mean" of their probabilities,
    called at the mean of their thresholds. A study's probability is the mean over its images. `retrieval` is the share
    of the nearest studies with the query's label, over studies; `difference` what the vote gains on the classifier
    over the same studies, paired. `skipped` are the cases that could not be read, with the reason.
    """

    studies: int
    images: int
    patients: int
    abnormal_studies: int
    abnormal_images: int
    skipped: tuple[tuple[str, str], ...]
    study: Figures
    image: Figures
    retrieval: Mapping[str, Estimate]
    difference: Mapping[str, Estimate]
    rules: Rules
    rounds: int
    seed: int
    notes: tuple[str, ...]
    model: ModelSource
    index: IndexSource
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/evaluation/1"."""
        figures = {
            level: {reader: _plain_figures(of_reader) for reader, of_reader in figures.items()}
            for level, figures in (("study", self.study), ("image", self.image))
        }
        others = {"retrieval": _plain_figures(self.retrieval), "difference": _plain_figures(self.difference)}
        skipped = [{"case": case, "reason": reason} for case, reason in self.skipped]
        return {"schema": SCHEMA, **plain(self), **figures, **others, "skipped": skipped}


def evaluate(
    searcher: Searcher,
    collection: Collection,
    *,
    rounds: int = 10_000,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Query every study of a collection as a user would, and count how often the answers are right.

    Raises EvaluationError where a patient of the collection is in the index, where a radiograph is there or was among
    those the model was trained on, byte for byte, or where no radiograph can be read.
    """
    started = time.perf_counter()
    _refuse_known_patients(searcher, collection.cases)
    _refuse_known_radiographs(searcher, collection.cases)
    studies: dict[str, list[tuple[Case, Encoded]]] = {}
    skipped: list[tuple[str, str]] = []
    met = 0
    with closing(encoded_batches(collection.cases, searcher.encoder, workers=workers)) as batches:
        for batch in batches:
            for row, case in enumerate(batch.cases):
                one = Encoded(batch.embeddings[row : row + 1], batch.logits[row : row + 1])
                studies.setdefault(case.study, []).append((case, one))
            skipped += [(case.case, reason) for case, reason in batch.unreadable]
            met += len(batch.cases) + len(batch.unreadable)
            if progress:
                progress(met, len(collection.cases))
    if not studies:
        reason = skipped[0][1] if skipped else "there is none"
        raise EvaluationError(f"none of the {len(collection.cases)} radiographs could be read; the first: {reason}")

    judged = [(cases, searcher.judge(encoded, shown=max(DEPTHS))) for cases, encoded in map(_joined, studies.values())]
    by_study, by_image = _readings(judged, searcher.rules, rounds, seed)
    patients = [cases[0].patient for cases, _ in judged]
    return Evaluation(
        studies=len(judged),
        images=sum(len(cases) for cases, _ in judged),
        patients=len(set(patients)),
        abnormal_studies=sum(cases[0].label for cases, _ in judged),
        abnormal_images=sum(case.label for cases, _ in judged for case in cases),
        skipped=tuple(skipped),
        study=by_study.estimates(),
        image=by_image.estimates(),
        retrieval={
            f"precision_at_{depth}": bootstrap_mean(
                np.array([_precision(cases[0].label, judgement, depth) for cases, judgement in judged]),
                patients,
                rounds=rounds,
                seed=seed,
            )
            for depth in DEPTHS
        },
        difference={metric: by_study.difference("knn", "classifier", metric) for metric in METRICS},
        rules=searcher.rules,
        rounds=rounds,
        seed=seed,
        notes=_notes(searcher, collection),
        model=searcher.model,
        index=searcher.source,
        seconds=time.perf_counter() - started,
    )


def _readings(
    judged: Sequence[tuple[list[Case], Judgement]], rules: Rules, rounds: int, seed: int
) -> tuple[Bootstrap, Bootstrap]:
    """The three readers' figures, by study and by image."""

    def figures(cases: Sequence[Case], classifier: list[float], vote: list[float]) -> Bootstrap:
        scores = {"classifier": np.array(classifier), "knn": np.array(vote)}
        thresholds = {"classifier": rules.classifier_threshold, "knn": rules.vote_threshold}
        scores["mean"] = (scores["classifier"] + scores["knn"]) / 2
        thresholds["mean"] = (thresholds["classifier"] + thresholds["knn"]) / 2
        return bootstrap(
            np.array([case.label for case in cases]),
            [case.patient for case in cases],
            {name: Reader(values, values > thresholds[name]) for name, values in scores.items()},
            rounds=rounds,
            seed=seed,
        )

    votes = [judgement.vote.probability for _, judgement in judged]
    by_study = figures(
        [cases[0] for cases, _ in judged],
        [judgement.probability for _, judgement in judged],
        [vote for vote in votes if vote is not None],  # an index that was built holds a study, and all of them may vote
    )
    by_image = figures(
        [case for cases, _ in judged for case in cases],
        [probability for _, judgement in judged for probability in judgement.classifier],
        [vote for _, judgement in judged for vote in judgement.vote.views],
    )
    return by_study, by_image


def _joined(views: Sequence[tuple[Case, Encoded]]) -> tuple[list[Case], Encoded]:
    encoded = [one for _, one in views]
    return [case for case, _ in views], Encoded(
        np.concatenate([one.embeddings for one in encoded]), np.concatenate([one.logits for one in encoded])
    )


def _precision(label: int, judgement: Judgement, depth: int) -> float:
    nearest = judgement.neighbours[:depth]
    return sum(hit.case.label == label for hit in nearest) / len(nearest)


def _refuse_known_patients(searcher: Searcher, cases: Sequence[Case]) -> None:
    patients = {case.patient for case in cases}
    known = sorted(patients & {case.patient for case in searcher.index.cases()})
    if known:
        raise EvaluationError(
            f"{len(known)} of {len(patients)} patients are in the index ({_some(known)}): the figures would say "
            "nothing about new patients; evaluate others, such as another split, or build an index without them"
        )


def _refuse_known_radiographs(searcher: Searcher, cases: Sequence[Case]) -> None:
    indexed = {case.digest for case in searcher.index.cases()}
    trained = searcher.encoder.bundle.seen()
    in_index: list[str] = []
    in_training: list[str] = []
    for case in cases:
        try:
            digest = file_digest(Path(case.path))
        except OSError:
            continue  # reported when it is read
        if digest in indexed:
            in_index.append(case.case)
        if digest_number(digest) in trained:
            in_training.append(case.case)
    if in_index:
        raise EvaluationError(
            f"{len(in_index)} of {len(cases)} radiographs are in the index under another patient ({_some(in_index)}); "
            "take them out of the one or the other (audit lists duplicates)"
        )
    if in_training:
        raise EvaluationError(
            f"the model was trained on {len(in_training)} of {len(cases)} radiographs ({_some(in_training)}): the "
            "figures would say nothing about new ones; evaluate others, or with another model"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _notes(searcher: Searcher, collection: Collection) -> tuple[str, ...]:
    notes = list(collection.notes)
    if collection.synthetic or searcher.source.synthetic:
        notes.append("these are synthetic radiographs: the figures say nothing about patients")
    return tuple(notes)


def _plain_figures(figures: Mapping[str, Estimate]) -> dict[str, object]:
    return {name: estimate.to_dict() for name, estimate in figures.items()}
