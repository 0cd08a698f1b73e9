"""What classifier and vote say of labelled studies, study by study, and the figures that follow.

One index judges the studies of a collection (`read_studies`); `summarise` counts readings, of one index or of the folds
of a cross-validation together: every study is called at the thresholds of the index that judged it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.collection import Collection
from retrieval.encoder import Encoded
from retrieval.metrics import METRICS, Bootstrap, Estimate, Reader, bootstrap, bootstrap_mean
from retrieval.searcher import Searcher
from retrieval.stream import encoded_batches

__all__ = ["DEPTHS", "Figures", "StudyReading", "Summary", "read_studies", "summarise"]

DEPTHS = (1, 5, 10)

Figures = Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True, slots=True)
class StudyReading:
    """One study of V radiographs, judged.

    `classifier` and `vote` (V) are each radiograph's probabilities of abnormality, called above the two thresholds;
    the study's own are their means (MURA's protocol). `precision` is the share of its nearest studies with its label,
    by depth. `embeddings` (V, D).
    """

    cases: tuple[Case, ...]
    classifier: tuple[float, ...]
    vote: tuple[float, ...]
    classifier_threshold: float
    vote_threshold: float
    precision: Mapping[int, float]
    embeddings: NDArray[np.float32] = field(repr=False, compare=False)

    @property
    def label(self) -> int:
        return self.cases[0].label

    @property
    def patient(self) -> str:
        return self.cases[0].patient

    @property
    def part(self) -> str:
        return self.cases[0].part


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures with 95 % intervals, from `rounds` resamplings of the patients.

    `study` and `image` give METRICS of three readers: "classifier", "knn" (the vote) and "mean" of their probabilities,
    called at the mean of their thresholds. `retrieval` is the share of the nearest studies with the query's label, over
    studies; `difference` what the vote gains on the classifier over the same studies, paired. `parts` gives, for each
    body part, its `studies`, how many are `abnormal`, and the readers' kappa and AUROC by study.
    """

    studies: int
    images: int
    patients: int
    abnormal_studies: int
    abnormal_images: int
    study: Figures
    image: Figures
    retrieval: Mapping[str, Estimate]
    difference: Mapping[str, Estimate]
    parts: Mapping[str, "PartFigures"]
    rounds: int
    seed: int

    def to_dict(self) -> dict[str, object]:
        counts = {field.name: getattr(self, field.name) for field in fields(self) if field.type is int}
        return {**counts, **self.figures()}

    def figures(self) -> dict[str, object]:
        """The figures alone, for JSON."""
        return {
            "study": {reader: _plain(of) for reader, of in self.study.items()},
            "image": {reader: _plain(of) for reader, of in self.image.items()},
            "retrieval": _plain(self.retrieval),
            "difference": _plain(self.difference),
            "parts": {part: of.to_dict() for part, of in self.parts.items()},
        }


@dataclass(frozen=True, slots=True)
class PartFigures:
    """Kappa and AUROC by study of the three readers on one body part."""

    studies: int
    abnormal: int
    readers: Figures

    def to_dict(self) -> dict[str, object]:
        readers = {reader: _plain(figures) for reader, figures in self.readers.items()}
        return {"studies": self.studies, "abnormal": self.abnormal, **readers}


def read_studies(
    searcher: Searcher,
    collection: Collection,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[StudyReading], list[tuple[str, str]]]:
    """Query every study of a collection as a user would; also (case, reason) of radiographs that could not be read.

    `progress` is called with (radiographs done, all).
    """
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
    return [_read(searcher, views) for views in studies.values()], skipped


def summarise(readings: Sequence[StudyReading], *, rounds: int = 10_000, seed: int = 0) -> Summary:
    """Count how often the readings are right."""
    patients = [reading.patient for reading in readings]
    by_study = _by_study(readings, rounds, seed)
    return Summary(
        studies=len(readings),
        images=sum(len(reading.cases) for reading in readings),
        patients=len(set(patients)),
        abnormal_studies=sum(reading.label for reading in readings),
        abnormal_images=sum(case.label for reading in readings for case in reading.cases),
        study=by_study.estimates(),
        image=_by_image(readings, rounds, seed).estimates(),
        retrieval={
            f"precision_at_{depth}": bootstrap_mean(
                np.array([reading.precision[depth] for reading in readings]), patients, rounds=rounds, seed=seed
            )
            for depth in DEPTHS
        },
        difference={metric: by_study.difference("knn", "classifier", metric) for metric in METRICS},
        parts={
            part: _of_part([reading for reading in readings if reading.part == part], rounds, seed)
            for part in sorted({reading.part for reading in readings})
        },
        rounds=rounds,
        seed=seed,
    )


def _read(searcher: Searcher, views: Sequence[tuple[Case, Encoded]]) -> StudyReading:
    encoded = [one for _, one in views]
    together = Encoded(
        np.concatenate([one.embeddings for one in encoded]), np.concatenate([one.logits for one in encoded])
    )
    judgement = searcher.judge(together, shown=max(DEPTHS))
    cases = tuple(case for case, _ in views)
    nearest = [hit.case.label == cases[0].label for hit in judgement.neighbours]
    return StudyReading(
        cases=cases,
        classifier=judgement.classifier,
        vote=judgement.vote.views,
        classifier_threshold=searcher.rules.classifier_threshold,
        vote_threshold=searcher.rules.vote_threshold,
        precision={depth: sum(nearest[:depth]) / len(nearest[:depth]) for depth in DEPTHS},
        embeddings=together.embeddings,
    )


def _by_study(readings: Sequence[StudyReading], rounds: int, seed: int) -> Bootstrap:
    return _readers(
        readings,
        [reading.cases[:1] for reading in readings],
        [(sum(reading.classifier) / len(reading.classifier),) for reading in readings],
        [(sum(reading.vote) / len(reading.vote),) for reading in readings],
        rounds=rounds,
        seed=seed,
    )


def _by_image(readings: Sequence[StudyReading], rounds: int, seed: int) -> Bootstrap:
    return _readers(
        readings,
        [reading.cases for reading in readings],
        [reading.classifier for reading in readings],
        [reading.vote for reading in readings],
        rounds=rounds,
        seed=seed,
    )


def _readers(
    readings: Sequence[StudyReading],
    cases: Sequence[Sequence[Case]],
    classifier: Sequence[Sequence[float]],
    vote: Sequence[Sequence[float]],
    *,
    rounds: int,
    seed: int,
) -> Bootstrap:
    """The three readers on the items of each reading: one for the study, or one for each radiograph."""
    counts = [len(items) for items in cases]
    scores = {"classifier": np.concatenate(classifier), "knn": np.concatenate(vote)}
    thresholds = {
        "classifier": np.repeat([reading.classifier_threshold for reading in readings], counts),
        "knn": np.repeat([reading.vote_threshold for reading in readings], counts),
    }
    for both in (scores, thresholds):
        both["mean"] = (both["classifier"] + both["knn"]) / 2
    items = [case for of_reading in cases for case in of_reading]
    return bootstrap(
        np.array([case.label for case in items]),
        [case.patient for case in items],
        {name: Reader(values, values > thresholds[name]) for name, values in scores.items()},
        rounds=rounds,
        seed=seed,
    )


def _of_part(readings: Sequence[StudyReading], rounds: int, seed: int) -> PartFigures:
    figures = _by_study(readings, rounds, seed).estimates()
    kept = {reader: {metric: of[metric] for metric in ("kappa", "auroc")} for reader, of in figures.items()}
    return PartFigures(len(readings), sum(reading.label for reading in readings), kept)


def _plain(figures: Mapping[str, Estimate]) -> dict[str, object]:
    return {name: estimate.to_dict() for name, estimate in figures.items()}
