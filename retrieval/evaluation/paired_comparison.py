"""Two models on the same studies: the paired differences of their metrics.

Predictions are stored as a CSV table, one line a study, so that a later run can be compared with an earlier run.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Unpack

import numpy as np

from index.atomic import write_whole
from retrieval.errors import CollectionError
from retrieval.evaluation.metrics import Estimate, Predictor, Resampling, bootstrap
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.formats.csv_format import table, unsafe_text

__all__ = [
    "COMPARED",
    "Prediction",
    "compare",
    "predictions_of",
    "predictors_of",
    "read_predictions",
    "write_predictions",
]

COMPARED = ("kappa", "auroc")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Classifier and vote on one study: their probabilities of abnormality, and their thresholds."""

    study: str
    patient: str
    label: int
    classifier: float
    classifier_threshold: float
    vote: float
    vote_threshold: float


def predictions_of(studies: Sequence[StudyPrediction]) -> list[Prediction]:
    """The predictions by study; a study's probability is the mean over its radiographs."""
    return [
        Prediction(
            study=s.study,
            patient=s.patient,
            label=s.label,
            classifier=s.probability,
            vote=s.vote_probability,
            classifier_threshold=s.classifier_threshold,
            vote_threshold=s.vote_threshold,
        )
        for s in studies
    ]


def predictors_of(predictions: Sequence[Prediction]) -> dict[str, Predictor]:
    """`classifier` and `vote` on the studies, in the order of the predictions."""
    predictors = {}
    for kind in ("classifier", "vote"):
        scores = np.array([getattr(prediction, kind) for prediction in predictions])
        thresholds = [getattr(prediction, f"{kind}_threshold") for prediction in predictions]
        predictors[kind] = Predictor(scores, scores > thresholds)
    return predictors


def write_predictions(predictions: Sequence[Prediction], file: Path) -> None:
    """Write a CSV table, whole or not at all."""
    rows = (astuple(prediction) for prediction in predictions)
    text = table([[field.name for field in fields(Prediction)], *rows])
    write_whole(file, text.encode())


def read_predictions(file: Path) -> list[Prediction]:
    """Read what `write_predictions` wrote. Raises CollectionError where the file is not such a table."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return [
                Prediction(**{f.name: f.type(unsafe_text(row[f.name])) for f in fields(Prediction)})  # type: ignore[operator]  # a class
                for row in csv.DictReader(lines)
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CollectionError(f"{file} is not a table of predictions ({error!r}); run the experiment again") from error


def compare(
    predictions: Sequence[Prediction], others: Sequence[Prediction], **resampling: Unpack[Resampling]
) -> Mapping[str, Estimate]:
    """Kappa and AUROC by study, `predictions` minus `others`, as "classifier kappa", "vote auroc" and so on.

    The intervals are paired: both are measured on the same resampled patients. Raises CollectionError where the two
    differ in their studies or labels.
    """
    by_study = {prediction.study: prediction for prediction in others}
    if {(p.study, p.label) for p in predictions} != {(p.study, p.label) for p in others}:
        raise CollectionError("the two models were tested on different studies or labels, so they cannot be compared")
    predictors = {f"own {kind}": predictor for kind, predictor in predictors_of(predictions).items()}
    in_order = [by_study[prediction.study] for prediction in predictions]
    predictors |= {f"other {kind}": predictor for kind, predictor in predictors_of(in_order).items()}
    result = bootstrap(
        np.array([prediction.label for prediction in predictions]),
        [prediction.patient for prediction in predictions],
        predictors,
        **resampling,
    )
    return {
        f"{kind} {metric}": result.difference(f"own {kind}", f"other {kind}", metric)
        for kind in ("classifier", "vote")
        for metric in COMPARED
    }
