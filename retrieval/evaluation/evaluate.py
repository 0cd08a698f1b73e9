"""How well an index and its model read studies that neither has seen. Nothing is tuned here."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from index.case import Case
from retrieval.answer import IndexSource, ModelSource, plain
from retrieval.datasets.collection import Collection
from retrieval.decision.rules import Rules
from retrieval.encoding.batches import file_digest
from retrieval.encoding.bundle import digest_number
from retrieval.errors import EvaluationError
from retrieval.evaluation.index_leakage import IndexLeakage, index_leakage
from retrieval.evaluation.predictions import StudyPrediction, read_studies
from retrieval.evaluation.summary import LesionFigures, Summary, SweepPoint, lesions_of, summarise, sweep_of
from retrieval.evaluation.triage import Triage, triage
from retrieval.searcher import Searcher

__all__ = ["Evaluation", "evaluate", "refuse_known"]

SCHEMA = "mura-search/evaluation/1"


@dataclass(frozen=True, slots=True)
class Evaluation(Summary):
    """A `Summary` and what it rests on.

    `sweep` shows what other numbers of voting studies would have given, `lesions` figures by kind of lesion,
    `copies` near duplicates of what is judged in the index, with the figures of the studies that have none there,
    `unfamiliar` how many studies are unlike what is indexed. `worklist` is how much earlier than as they arrive
    abnormal studies are reached, read in the order of each reader's probability. `skipped` are the cases that could not
    be read, with the reason; `readings` the others by study.
    """

    sweep: tuple[SweepPoint, ...]
    lesions: Mapping[str, LesionFigures]
    worklist: Mapping[str, Triage]
    copies: IndexLeakage
    unfamiliar: int
    skipped: tuple[tuple[str, str], ...]
    rules: Rules
    notes: tuple[str, ...]
    model: ModelSource
    index: IndexSource
    seconds: float
    readings: tuple[StudyPrediction, ...] = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/evaluation/1"; single studies are left to the CSV table."""
        return {
            "schema": SCHEMA,
            **Summary.to_dict(self),
            "copies": self.copies.to_dict(),
            "unfamiliar": self.unfamiliar,
            "worklist": {reader: of.to_dict() for reader, of in self.worklist.items()},
            "sweep": [point.to_dict() for point in self.sweep],
            "lesions": {kind: of.to_dict() for kind, of in self.lesions.items()},
            "skipped": [{"case": case, "reason": reason} for case, reason in self.skipped],
            "rules": self.rules.to_dict(),
            "notes": list(self.notes),
            "model": plain(self.model),
            "index": plain(self.index),
            "seconds": self.seconds,
        }


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
    those the model was trained on, byte for byte, or where no radiograph can be read. Near duplicates of what is
    indexed are judged too and reported, since only who sees them can say that they are copies.
    """
    started = time.perf_counter()
    hashed = searcher.site or searcher.layout == "dicom"
    if collection.layout == "dicom" and hashed and collection.site != searcher.site:
        raise EvaluationError(
            "the index names its patients otherwise than these are named, by another site key or by none: "
            "whether these are others cannot be told"
        )
    if not len(searcher.index.embeddings()):
        raise EvaluationError(f"{searcher.index.path} holds no radiograph any more: there is nothing to evaluate with")
    refuse_known(searcher, collection.cases)
    readings, skipped = read_studies(searcher, collection, workers=workers, progress=progress)
    if not readings:
        reason = skipped[0][1] if skipped else "there is none"
        raise EvaluationError(f"none of the {len(collection.cases)} radiographs could be read; the first: {reason}")
    summary = summarise(readings, rounds=rounds, seed=seed)
    return Evaluation(
        **{of.name: getattr(summary, of.name) for of in fields(summary)},
        sweep=sweep_of(readings, searcher.rules.k, rounds=rounds, seed=seed),
        lesions=lesions_of(readings, rounds=rounds, seed=seed),
        worklist=_worklist(readings, rounds, seed),
        copies=index_leakage(searcher.index, readings, workers=workers, rounds=rounds, seed=seed),
        unfamiliar=sum(reading.familiar is False for reading in readings),
        skipped=tuple(skipped),
        rules=searcher.rules,
        notes=_notes(searcher, collection),
        model=searcher.model,
        index=searcher.source,
        seconds=time.perf_counter() - started,
        readings=tuple(readings),
    )


def _worklist(readings: Sequence[StudyPrediction], rounds: int, seed: int) -> dict[str, Triage]:
    return triage(
        np.array([reading.label for reading in readings]),
        [reading.patient for reading in readings],
        {
            "classifier": np.array([reading.probability for reading in readings]),
            "knn": np.array([reading.vote_probability for reading in readings]),
            "mean": np.array([reading.mean for reading in readings]),
        },
        rounds=rounds,
        seed=seed,
    )


def refuse_known(searcher: Searcher, cases: Sequence[Case]) -> None:
    """Raise EvaluationError where a patient or a radiograph is in the index, or taught the model."""
    _refuse_known_patients(searcher, cases)
    _refuse_known_radiographs(searcher, cases)


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
    if searcher.prefixes:
        notes.append(
            f"patients of other indexes were merged with a prefix ({', '.join(searcher.prefixes)}), so their names do "
            "not tell: see to it that they are not those judged here"
        )
    return tuple(notes)
