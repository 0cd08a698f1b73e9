"""How often the tally of findings is right, for each finding that evaluated studies have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np

from retrieval.evaluation.metrics import Estimate, Predictor, Resampling, bootstrap
from retrieval.evaluation.predictions import StudyPrediction

__all__ = ["FindingFigures", "findings_of"]


@dataclass(frozen=True, slots=True)
class FindingFigures:
    """One finding: how many evaluated studies have it, in how many the tally names it first, and the figures.

    `auroc` is how well the finding's weight separates studies with it from the others; chance is 0.5. `precision`
    is how often a study has the finding where the tally names it first; chance is the share of studies that have it.
    """

    studies: int
    named_first: int
    auroc: Estimate
    precision: Estimate


def findings_of(predictions: Sequence[StudyPrediction], **resampling: Unpack[Resampling]) -> dict[str, FindingFigures]:
    """The figures of each finding of the evaluated studies, the most common finding first."""
    spellings = {name.casefold(): name for study in reversed(predictions) for name in study.findings}
    patients = [study.patient for study in predictions]
    result = {}
    for key, finding in sorted(spellings.items()):
        has = np.array([key in {name.casefold() for name in study.findings} for study in predictions])
        weights = np.array([_weight(study, key) for study in predictions])
        first = np.array([bool(study.tally) and study.tally[0].finding.casefold() == key for study in predictions])
        measured = bootstrap(has.astype(np.int64), patients, {"tally": Predictor(weights, first)}, **resampling)
        figures = measured.estimates()["tally"]
        auroc, precision = figures["auroc"], figures["precision"]
        if auroc.value is None:
            auroc = replace(auroc, reason="needs studies with and without the finding")
        if precision.value is None:
            precision = replace(precision, reason="the tally never names it first")
        result[finding] = FindingFigures(
            studies=int(has.sum()),
            named_first=int(first.sum()),
            auroc=replace(auroc, chance=0.5),
            precision=replace(precision, chance=float(has.mean())),
        )
    return dict(sorted(result.items(), key=lambda item: -item[1].studies))


def _weight(study: StudyPrediction, key: str) -> float:
    return next((share.weight for share in study.tally if share.finding.casefold() == key), 0.0)
