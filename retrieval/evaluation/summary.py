"""Figures of predictions: by image and by study, of classifier, vote and their mean, overall and by body part.

The predictions may come from one index, or from all folds of a cross-validation: each has its own thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Unpack

import numpy as np

from index.case import ABNORMAL, Case
from retrieval.decision.operating_point import Thresholds
from retrieval.evaluation.agreement import Agreement, agreement_of
from retrieval.evaluation.metrics import (
    METRICS,
    Bootstrap,
    Confusion,
    Estimate,
    Predictor,
    Resampling,
    bootstrap,
    bootstrap_ratios,
)
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.formats.json_format import plain

__all__ = [
    "AT_THRESHOLD",
    "Figures",
    "LesionFigures",
    "OperatingPoint",
    "PartFigures",
    "Summary",
    "SweepPoint",
    "figures_of",
    "lesions_of",
    "operating_point",
    "summarise",
    "sweep_of",
]

AT_THRESHOLD = ("sensitivity", "specificity", "precision", "npv", "kappa", "accuracy")
"""The metrics that depend on a threshold."""

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
        """The figures as JSON has them."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(Summary)}


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
        """The figures as JSON has them; those by study have no level of their own."""
        values: dict[str, Any] = plain(self)
        by_study: dict[str, object] = values.pop("study")
        return values | by_study


@dataclass(frozen=True, slots=True)
class LesionFigures:
    """The abnormal studies with one kind of lesion: the sensitivity of each predictor, and the metrics of retrieval."""

    studies: int
    sensitivity: Mapping[str, Estimate]
    retrieval: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The figures by study at thresholds that were learned on the index for a wanted sensitivity."""

    wanted: float
    thresholds: Thresholds
    study: Figures


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """The vote's kappa and AUROC by study with `k` voting studies; `used` marks the k of the index."""

    k: int
    used: bool
    kappa: Estimate
    auroc: Estimate


def summarise(predictions: Sequence[StudyPrediction], *, rounds: int = 10_000, seed: int = 0) -> Summary:
    """Measure the predictions on at least one study."""
    resampling = Resampling(rounds=rounds, seed=seed)
    by_study, by_image = _by_study(predictions, **resampling), _by_image(predictions, **resampling)
    whole = _part_figures(predictions, by_study, by_image)
    parts: dict[str, list[StudyPrediction]] = {}
    for prediction in sorted(predictions, key=lambda prediction: prediction.part):
        parts.setdefault(prediction.part, []).append(prediction)
    scores = np.array([prediction.predictions for prediction in predictions])
    return Summary(
        studies=whole.studies,
        images=whole.images,
        patients=len({prediction.patient for prediction in predictions}),
        abnormal_studies=whole.abnormal,
        abnormal_images=whole.abnormal_images,
        study=whole.study,
        image=whole.image,
        retrieval=_retrieval(predictions, **resampling),
        difference={metric: by_study.difference("knn", "classifier", metric) for metric in METRICS},
        parts={part: figures_of(members, **resampling) if len(parts) > 1 else whole for part, members in parts.items()},
        agreement=agreement_of(
            np.array([prediction.label for prediction in predictions]),
            scores[:, 0],
            scores[:, 1],
            [prediction.patient for prediction in predictions],
            **resampling,
        ),
        confusion={"study": by_study.confusions, "image": by_image.confusions},
        rounds=rounds,
        seed=seed,
    )


def figures_of(predictions: Sequence[StudyPrediction], **resampling: Unpack[Resampling]) -> PartFigures:
    """The figures of the three predictors on at least one study."""
    return _part_figures(predictions, _by_study(predictions, **resampling), _by_image(predictions, **resampling))


def operating_point(
    predictions: Sequence[StudyPrediction], wanted: float, thresholds: Thresholds, **resampling: Unpack[Resampling]
) -> OperatingPoint:
    """Measure the predictions at other thresholds; the figures are those of `AT_THRESHOLD`."""
    scores = {
        "classifier": [prediction.probability for prediction in predictions],
        "knn": [prediction.vote_probability for prediction in predictions],
        "mean": [prediction.mean for prediction in predictions],
    }
    measured = bootstrap(
        np.array([prediction.label for prediction in predictions]),
        [prediction.patient for prediction in predictions],
        {
            name: Predictor(np.array(values), np.array(values) > getattr(thresholds, name))
            for name, values in scores.items()
        },
        **resampling,
    ).estimates()
    figures = {name: {metric: values[metric] for metric in AT_THRESHOLD} for name, values in measured.items()}
    return OperatingPoint(wanted, thresholds, figures)


def sweep_of(
    predictions: Sequence[StudyPrediction], used: int, **resampling: Unpack[Resampling]
) -> tuple[SweepPoint, ...]:
    """The vote with each number of voting studies at the stored threshold. Display only: nothing is tuned on it."""
    counts = sorted(set.intersection(*(set(prediction.sweep) for prediction in predictions)))
    thresholds = np.array([prediction.vote_threshold for prediction in predictions])
    votes = {k: np.array([float(np.mean(prediction.sweep[k])) for prediction in predictions]) for k in counts}
    estimates = bootstrap(
        np.array([prediction.label for prediction in predictions]),
        [prediction.patient for prediction in predictions],
        {str(k): Predictor(scores, scores > thresholds) for k, scores in votes.items()},
        **resampling,
    ).estimates()
    return tuple(SweepPoint(k, k == used, estimates[str(k)]["kappa"], estimates[str(k)]["auroc"]) for k in counts)


def lesions_of(predictions: Sequence[StudyPrediction], **resampling: Unpack[Resampling]) -> dict[str, LesionFigures]:
    """Sensitivity and retrieval by kind of lesion, over the abnormal studies with a named lesion."""
    kinds: dict[str, list[StudyPrediction]] = {}
    for prediction in predictions:
        if prediction.lesion and prediction.label == ABNORMAL:
            kinds.setdefault(prediction.lesion, []).append(prediction)
    return {
        kind: LesionFigures(
            len(members),
            {name: figures["sensitivity"] for name, figures in _by_study(members, **resampling).estimates().items()},
            _retrieval(members, **resampling),
        )
        for kind, members in sorted(kinds.items())
    }


def _by_study(predictions: Sequence[StudyPrediction], **resampling: Unpack[Resampling]) -> Bootstrap:
    return _bootstrap(
        predictions,
        [prediction.cases[:1] for prediction in predictions],
        [(prediction.probability,) for prediction in predictions],
        [(prediction.vote_probability,) for prediction in predictions],
        **resampling,
    )


def _by_image(predictions: Sequence[StudyPrediction], **resampling: Unpack[Resampling]) -> Bootstrap:
    return _bootstrap(
        predictions,
        [prediction.cases for prediction in predictions],
        [prediction.classifier for prediction in predictions],
        [prediction.vote for prediction in predictions],
        **resampling,
    )


def _bootstrap(
    predictions: Sequence[StudyPrediction],
    cases: Sequence[Sequence[Case]],
    classifier: Sequence[Sequence[float]],
    vote: Sequence[Sequence[float]],
    **resampling: Unpack[Resampling],
) -> Bootstrap:
    """The three predictors on the items of each study: one case for the study, or all its cases."""
    counts = [len(items) for items in cases]
    scores = {"classifier": np.concatenate(classifier), "knn": np.concatenate(vote)}
    thresholds = {
        "classifier": np.repeat([prediction.classifier_threshold for prediction in predictions], counts),
        "knn": np.repeat([prediction.vote_threshold for prediction in predictions], counts),
    }
    for table in (scores, thresholds):
        table["mean"] = (table["classifier"] + table["knn"]) / 2
    items = [case for study_cases in cases for case in study_cases]
    return bootstrap(
        np.array([case.label for case in items]),
        [case.patient for case in items],
        {name: Predictor(values, values > thresholds[name]) for name, values in scores.items()},
        **resampling,
    )


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


def _retrieval(predictions: Sequence[StudyPrediction], **resampling: Unpack[Resampling]) -> dict[str, Estimate]:
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
    return bootstrap_ratios(figures, patients, chances=chances, **resampling)
