"""Two models on the same studies: what one gains on the other, paired.

Calls are kept as a CSV table, a study a line, so that a later run can be compared with an earlier one.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from index.atomic import write_whole
from retrieval.errors import CollectionError
from retrieval.evaluation.metrics import Estimate, Reader, bootstrap
from retrieval.evaluation.predictions import StudyPrediction

__all__ = ["COMPARED", "Prediction", "compare", "predictions_of", "read_predictions", "readers_of", "write_predictions"]

COMPARED = ("kappa", "auroc")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What classifier and vote said of one study: probabilities of abnormality, called above their thresholds."""

    study: str
    patient: str
    label: int
    classifier: float
    classifier_threshold: float
    vote: float
    vote_threshold: float


def predictions_of(readings: Sequence[StudyPrediction]) -> list[Prediction]:
    """The calls of studies that were read; a study's probability is the mean over its radiographs."""
    return [
        Prediction(
            reading.study,
            reading.patient,
            reading.label,
            reading.probability,
            reading.classifier_threshold,
            reading.vote_probability,
            reading.vote_threshold,
        )
        for reading in readings
    ]


def readers_of(calls: Sequence[Prediction]) -> dict[str, Reader]:
    """What `classifier` and `vote` said, in the order of the calls."""
    readers = {}
    for kind in ("classifier", "vote"):
        scores = np.array([getattr(call, kind) for call in calls])
        readers[kind] = Reader(scores, scores > [getattr(call, f"{kind}_threshold") for call in calls])
    return readers


def write_predictions(calls: Sequence[Prediction], file: Path) -> None:
    """Write a CSV table, whole or not at all."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, [field.name for field in fields(Prediction)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(call) for call in calls)
    write_whole(file, lines.getvalue().encode())


def read_predictions(file: Path) -> list[Prediction]:
    """Give back what `write_predictions` wrote. Raises CollectionError where the file is no such table."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return [
                Prediction(**{f.name: f.type(row[f.name]) for f in fields(Prediction)})  # type: ignore[operator]
                for row in csv.DictReader(lines)
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CollectionError(f"{file} is not a table of calls ({error!r}); run the experiment again") from error


def compare(
    calls: Sequence[Prediction], others: Sequence[Prediction], *, rounds: int = 10_000, seed: int = 0
) -> Mapping[str, Estimate]:
    """What `calls` gain on `others` in kappa and AUROC by study, as "classifier kappa", "vote auroc" and so on.

    Both read the same resampled patients, so the intervals are paired. Raises CollectionError where they are not of the
    same studies with the same labels.
    """
    other = {call.study: call for call in others}
    if {(c.study, c.label) for c in calls} != {(c.study, c.label) for c in others}:
        raise CollectionError("the two models read other studies, so they cannot be compared")
    sides = {"own": calls, "other": [other[call.study] for call in calls]}
    result = bootstrap(
        np.array([call.label for call in calls]),
        [call.patient for call in calls],
        {f"{side} {kind}": reader for side, of in sides.items() for kind, reader in readers_of(of).items()},
        rounds=rounds,
        seed=seed,
    )
    return {
        f"{kind} {metric}": result.difference(f"own {kind}", f"other {kind}", metric)
        for kind in ("classifier", "vote")
        for metric in COMPARED
    }
