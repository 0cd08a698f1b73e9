"""Figures of predictions: by image and by study, of classifier, vote and their mean, overall and by body part.

The predictions may come from one index, or from all folds of a cross-validation: each has its own thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from index.case import ABNORMAL, Case
from retrieval.evaluation.agreement import Agreement, agreement_of
from retrieval.evaluation.metrics import METRICS, Bootstrap, Confusion, Estimate, Predictor, bootstrap, bootstrap_ratios
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

    `study` and `image` have METRICS of three predictors: "classifier", "knn" (the vote), and "mean" of both
    probabilities at the mean of both thresholds. `confusion` has the counts behind them, by "study" and "image".
    `retrieval` has the metrics of `retrieval_metrics.Retrieved`, the mean over studies, with chance. `difference` is
    vote minus classifier by study, paired; `agreement` compares the two; `parts` has the figures of each body part.
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
            "study": _plain_all(self.study),
            "image": _plain_all(self.image),
            "retrieval": _plain(self.retrieval),
            "difference": _plain(self.difference),
            "agreement": self.agreement.to_dict(),
            "confusion": {
                level: {name: asdict(counts) for name, counts in confusions.items()}
                for level, confusions in self.confusion.items()
            },
            "parts": {part: figures.to_dict() for part, figures in self.parts.items()},
        }


@dataclass(frozen=True, slots=True)
class PartFigures:
    """METRICS of the three predictors on some of the studies, such as a body part: by study and by image."""

    studies: int
    abnormal: int
    study: Figures
    images: int
    abnormal_images: int
    image: Figures

    def to_dict(self) -> dict[str, object]:
        return {
            "studies": self.studies,
            "abnormal": self.abnormal,
            **_plain_all(self.study),
            "images": self.images,
            "abnormal_images": self.abnormal_images,
            "image": _plain_all(self.image),
        }


@dataclass(frozen=True, slots=True)
class LesionFigures:
    """The abnormal studies with one kind of lesion: the sensitivity of each predictor, and the metrics of retrieval."""

    studies: int
    sensitivity: Mapping[str, Estimate]
    retrieval: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, object]:
        sides = {"sensitivity": _plain(self.sensitivity), "retrieval": _plain(self.retrieval)}
        return {"studies": self.studies, **sides}


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """The vote's kappa and AUROC by study with `k` voting studies; `used` marks the k of the index."""

    k: int
    used: bool
    kappa: Estimate
    auroc: Estimate

    def to_dict(self) -> dict[str, object]:
        return {"k": self.k, "used": self.used, "kappa": self.kappa.to_dict(), "auroc": self.auroc.to_dict()}


def summarise(predictions: Sequence[StudyPrediction], *, rounds: int = 10_000, seed: int = 0) -> Summary:
    """Measure the predictions on at least one study."""
    by_study, by_image = _by_study(predictions, rounds, seed), _by_image(predictions, rounds, seed)
    whole = _part_figures(predictions, by_study, by_image)
    parts = sorted({prediction.part for prediction in predictions})
    both = np.array([prediction.predictions for prediction in predictions])
    return Summary(
        studies=whole.studies,
        images=whole.images,
        patients=len({prediction.patient for prediction in predictions}),
        abnormal_studies=whole.abnormal,
        abnormal_images=whole.abnormal_images,
        study=whole.study,
        image=whole.image,
        retrieval=_retrieval(predictions, rounds, seed),
        difference={metric: by_study.difference("knn", "classifier", metric) for metric in METRICS},
        parts={part: _of_part(predictions, part, rounds, seed) if len(parts) > 1 else whole for part in parts},
        agreement=agreement_of(
            np.array([prediction.label for prediction in predictions]),
            both[:, 0],
            both[:, 1],
            [prediction.patient for prediction in predictions],
            rounds=rounds,
            seed=seed,
        ),
        confusion={"study": by_study.confusions, "image": by_image.confusions},
        rounds=rounds,
        seed=seed,
    )


def figures_of(predictions: Sequence[StudyPrediction], *, rounds: int = 10_000, seed: int = 0) -> PartFigures:
    """The figures of the three predictors on at least one study."""
    return _part_figures(predictions, _by_study(predictions, rounds, seed), _by_image(predictions, rounds, seed))


def sweep_of(
    predictions: Sequence[StudyPrediction], used: int, *, rounds: int = 10_000, seed: int = 0
) -> tuple[SweepPoint, ...]:
    """The vote with each number of voting studies at the stored threshold. Display only: nothing is tuned on it."""
    counts = sorted(set.intersection(*(set(prediction.sweep) for prediction in predictions)))
    thresholds = np.array([prediction.vote_threshold for prediction in predictions])
    votes = {k: np.array([float(np.mean(prediction.sweep[k])) for prediction in predictions]) for k in counts}
    estimates = bootstrap(
        np.array([prediction.label for prediction in predictions]),
        [prediction.patient for prediction in predictions],
        {str(k): Predictor(scores, scores > thresholds) for k, scores in votes.items()},
        rounds=rounds,
        seed=seed,
    ).estimates()
    return tuple(SweepPoint(k, k == used, estimates[str(k)]["kappa"], estimates[str(k)]["auroc"]) for k in counts)


def lesions_of(
    predictions: Sequence[StudyPrediction], *, rounds: int = 10_000, seed: int = 0
) -> dict[str, LesionFigures]:
    """Sensitivity and retrieval by kind of lesion, over the abnormal studies with a named lesion."""
    kinds: dict[str, list[StudyPrediction]] = {}
    for prediction in predictions:
        if prediction.lesion and prediction.label == ABNORMAL:
            kinds.setdefault(prediction.lesion, []).append(prediction)
    return {
        kind: LesionFigures(
            len(own),
            {name: figures["sensitivity"] for name, figures in _by_study(own, rounds, seed).estimates().items()},
            _retrieval(own, rounds, seed),
        )
        for kind, own in sorted(kinds.items())
    }


def _by_study(predictions: Sequence[StudyPrediction], rounds: int, seed: int) -> Bootstrap:
    return _bootstrap(
        predictions,
        [prediction.cases[:1] for prediction in predictions],
        [(prediction.probability,) for prediction in predictions],
        [(prediction.vote_probability,) for prediction in predictions],
        rounds=rounds,
        seed=seed,
    )


def _by_image(predictions: Sequence[StudyPrediction], rounds: int, seed: int) -> Bootstrap:
    return _bootstrap(
        predictions,
        [prediction.cases for prediction in predictions],
        [prediction.classifier for prediction in predictions],
        [prediction.vote for prediction in predictions],
        rounds=rounds,
        seed=seed,
    )


def _bootstrap(
    predictions: Sequence[StudyPrediction],
    cases: Sequence[Sequence[Case]],
    classifier: Sequence[Sequence[float]],
    vote: Sequence[Sequence[float]],
    *,
    rounds: int,
    seed: int,
) -> Bootstrap:
    """The three predictors on the items of each study: one case for the study, or all its cases."""
    counts = [len(items) for items in cases]
    scores = {"classifier": np.concatenate(classifier), "knn": np.concatenate(vote)}
    thresholds = {
        "classifier": np.repeat([prediction.classifier_threshold for prediction in predictions], counts),
        "knn": np.repeat([prediction.vote_threshold for prediction in predictions], counts),
    }
    for both in (scores, thresholds):
        both["mean"] = (both["classifier"] + both["knn"]) / 2
    items = [case for own in cases for case in own]
    return bootstrap(
        np.array([case.label for case in items]),
        [case.patient for case in items],
        {name: Predictor(values, values > thresholds[name]) for name, values in scores.items()},
        rounds=rounds,
        seed=seed,
    )


def _of_part(predictions: Sequence[StudyPrediction], part: str, rounds: int, seed: int) -> PartFigures:
    return figures_of([prediction for prediction in predictions if prediction.part == part], rounds=rounds, seed=seed)


def _part_figures(predictions: Sequence[StudyPrediction], by_study: Bootstrap, by_image: Bootstrap) -> PartFigures:
    cases = [case for prediction in predictions for case in prediction.cases]
    return PartFigures(
        studies=len(predictions),
        abnormal=sum(prediction.label for prediction in predictions),
        study=by_study.estimates(),
        images=len(cases),
        abnormal_images=sum(case.label for case in cases),
        image=by_image.estimates(),
    )


def _retrieval(predictions: Sequence[StudyPrediction], rounds: int, seed: int) -> dict[str, Estimate]:
    """The mean of each metric over the studies where it is defined, with the mean of chance."""
    figures, chances = {}, {}
    for name in predictions[0].retrieved.figures:
        values = np.array([prediction.retrieved.figures[name] for prediction in predictions])
        counted = np.isfinite(values)
        figures[name] = (np.where(counted, values, 0), counted)
        chance = np.array([prediction.retrieved.chance[name] for prediction in predictions])[counted]
        if len(chance):
            chances[name] = float(chance.mean())
    patients = [prediction.patient for prediction in predictions]
    return bootstrap_ratios(figures, patients, chances=chances, rounds=rounds, seed=seed)


def _plain_all(figures: Figures) -> dict[str, object]:
    return {predictor: _plain(estimates) for predictor, estimates in figures.items()}


def _plain(figures: Mapping[str, Estimate]) -> dict[str, object]:
    return {name: estimate.to_dict() for name, estimate in figures.items()}
