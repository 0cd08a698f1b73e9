"""Figures of studies that were read: by image and by study, of classifier, vote and their mean, overall and by part.

The readings may be of one index or of the folds of a cross-validation together: every study is called at the thresholds
of the index that judged it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from index.case import ABNORMAL, Case
from retrieval.evaluation.agreement import Agreement, agreement_of
from retrieval.evaluation.metrics import METRICS, Bootstrap, Confusion, Estimate, Reader, bootstrap, bootstrap_ratios
from retrieval.evaluation.predictions import StudyPrediction

__all__ = [
    "Figures",
    "LesionFigures",
    "PartFigures",
    "Summary",
    "SweepPoint",
    "figures_of",
    "lesions_of",
    "summarise",
    "sweep_of",
]

Figures = Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures with 95 % intervals, from `rounds` resamplings of the patients.

    `study` and `image` give METRICS of three readers: "classifier", "knn" (the vote) and "mean" of their probabilities,
    called at the mean of their thresholds; `confusion` the counts behind them by "study" and "image". `retrieval` is
    what `retrieval_metrics.Retrieved` names, the mean over studies, with chance; `difference` what the vote gains on
    the classifier over the same studies, paired; `agreement` where the two say the same. `parts` has each body part.
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
    agreement: Agreement
    confusion: Mapping[str, Mapping[str, Confusion]]
    rounds: int
    seed: int

    def to_dict(self) -> dict[str, object]:
        counts = {field.name: getattr(self, field.name) for field in fields(self) if field.type is int}
        return {**counts, **self.figures()}

    def figures(self) -> dict[str, object]:
        """The figures alone, for JSON."""
        return {
            "study": _of_readers(self.study),
            "image": _of_readers(self.image),
            "retrieval": _plain(self.retrieval),
            "difference": _plain(self.difference),
            "agreement": self.agreement.to_dict(),
            "confusion": {
                level: {name: asdict(counts) for name, counts in of.items()} for level, of in self.confusion.items()
            },
            "parts": {part: of.to_dict() for part, of in self.parts.items()},
        }


@dataclass(frozen=True, slots=True)
class PartFigures:
    """METRICS of the three readers on one body part, or other studies: `readers` by study, `image` by image."""

    studies: int
    abnormal: int
    readers: Figures
    images: int
    abnormal_images: int
    image: Figures

    def to_dict(self) -> dict[str, object]:
        return {
            "studies": self.studies,
            "abnormal": self.abnormal,
            **_of_readers(self.readers),
            "images": self.images,
            "abnormal_images": self.abnormal_images,
            "image": _of_readers(self.image),
        }


@dataclass(frozen=True, slots=True)
class LesionFigures:
    """The studies with one kind of lesion: how many of them each reader called abnormal, and what was retrieved."""

    studies: int
    sensitivity: Mapping[str, Estimate]
    retrieval: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, object]:
        sides = {"sensitivity": _plain(self.sensitivity), "retrieval": _plain(self.retrieval)}
        return {"studies": self.studies, **sides}


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """The vote's kappa and AUROC by study had `k` studies voted; `used` is the k that the index was built with."""

    k: int
    used: bool
    kappa: Estimate
    auroc: Estimate

    def to_dict(self) -> dict[str, object]:
        return {"k": self.k, "used": self.used, "kappa": self.kappa.to_dict(), "auroc": self.auroc.to_dict()}


def summarise(readings: Sequence[StudyPrediction], *, rounds: int = 10_000, seed: int = 0) -> Summary:
    """Count how often the readings are right."""
    by_study, by_image = _by_study(readings, rounds, seed), _by_image(readings, rounds, seed)
    study, image = by_study.estimates(), by_image.estimates()
    whole = PartFigures(len(readings), sum(reading.label for reading in readings), study, *_images(readings), image)
    parts = sorted({reading.part for reading in readings})
    calls = np.array([reading.calls for reading in readings])
    return Summary(
        studies=whole.studies,
        images=whole.images,
        patients=len({reading.patient for reading in readings}),
        abnormal_studies=whole.abnormal,
        abnormal_images=whole.abnormal_images,
        study=study,
        image=image,
        retrieval=_retrieval(readings, rounds, seed),
        difference={metric: by_study.difference("knn", "classifier", metric) for metric in METRICS},
        parts={part: _of_part(readings, part, rounds, seed) if len(parts) > 1 else whole for part in parts},
        agreement=agreement_of(
            np.array([reading.label for reading in readings]),
            calls[:, 0],
            calls[:, 1],
            [reading.patient for reading in readings],
            rounds=rounds,
            seed=seed,
        ),
        confusion={"study": by_study.confusions, "image": by_image.confusions},
        rounds=rounds,
        seed=seed,
    )


def figures_of(readings: Sequence[StudyPrediction], *, rounds: int = 10_000, seed: int = 0) -> PartFigures:
    """The figures of the three readers alone, on at least one study."""
    by_study, by_image = (level(readings, rounds, seed).estimates() for level in (_by_study, _by_image))
    abnormal = sum(reading.label for reading in readings)
    return PartFigures(len(readings), abnormal, by_study, *_images(readings), by_image)


def sweep_of(
    readings: Sequence[StudyPrediction], used: int, *, rounds: int = 10_000, seed: int = 0
) -> tuple[SweepPoint, ...]:
    """What other numbers of voting studies would have given at the stored threshold. For the eye: nothing uses it."""
    counts = sorted(set.intersection(*(set(reading.sweep) for reading in readings)))
    thresholds = np.array([reading.vote_threshold for reading in readings])
    votes = {k: np.array([float(np.mean(reading.sweep[k])) for reading in readings]) for k in counts}
    found = bootstrap(
        np.array([reading.label for reading in readings]),
        [reading.patient for reading in readings],
        {str(k): Reader(of, of > thresholds) for k, of in votes.items()},
        rounds=rounds,
        seed=seed,
    ).estimates()
    return tuple(SweepPoint(k, k == used, found[str(k)]["kappa"], found[str(k)]["auroc"]) for k in counts)


def lesions_of(readings: Sequence[StudyPrediction], *, rounds: int = 10_000, seed: int = 0) -> dict[str, LesionFigures]:
    """Sensitivity and retrieval by the kind of lesion, over the abnormal studies whose collection names one."""
    kinds: dict[str, list[StudyPrediction]] = {}
    for reading in readings:
        if reading.lesion and reading.label == ABNORMAL:
            kinds.setdefault(reading.lesion, []).append(reading)
    return {
        kind: LesionFigures(
            len(of),
            {name: figures["sensitivity"] for name, figures in _by_study(of, rounds, seed).estimates().items()},
            _retrieval(of, rounds, seed),
        )
        for kind, of in sorted(kinds.items())
    }


def _by_study(readings: Sequence[StudyPrediction], rounds: int, seed: int) -> Bootstrap:
    return _readers(
        readings,
        [reading.cases[:1] for reading in readings],
        [(reading.probability,) for reading in readings],
        [(reading.vote_probability,) for reading in readings],
        rounds=rounds,
        seed=seed,
    )


def _by_image(readings: Sequence[StudyPrediction], rounds: int, seed: int) -> Bootstrap:
    return _readers(
        readings,
        [reading.cases for reading in readings],
        [reading.classifier for reading in readings],
        [reading.vote for reading in readings],
        rounds=rounds,
        seed=seed,
    )


def _readers(
    readings: Sequence[StudyPrediction],
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


def _of_part(readings: Sequence[StudyPrediction], part: str, rounds: int, seed: int) -> PartFigures:
    return figures_of([reading for reading in readings if reading.part == part], rounds=rounds, seed=seed)


def _images(readings: Sequence[StudyPrediction]) -> tuple[int, int]:
    """How many radiographs there are, and how many of them are abnormal."""
    cases = [case for reading in readings for case in reading.cases]
    return len(cases), sum(case.label for case in cases)


def _retrieval(readings: Sequence[StudyPrediction], rounds: int, seed: int) -> dict[str, Estimate]:
    """The mean of each figure over the studies for which it is defined, with that of chance."""
    figures, chances = {}, {}
    for name in readings[0].retrieved.figures:
        values = np.array([reading.retrieved.figures[name] for reading in readings])
        counted = np.isfinite(values)
        figures[name] = (np.where(counted, values, 0), counted)
        chance = np.array([reading.retrieved.chance[name] for reading in readings])[counted]
        if len(chance):
            chances[name] = float(chance.mean())
    patients = [reading.patient for reading in readings]
    return bootstrap_ratios(figures, patients, chances=chances, rounds=rounds, seed=seed)


def _of_readers(figures: Figures) -> dict[str, object]:
    return {reader: _plain(of) for reader, of in figures.items()}


def _plain(figures: Mapping[str, Estimate]) -> dict[str, object]:
    return {name: estimate.to_dict() for name, estimate in figures.items()}
