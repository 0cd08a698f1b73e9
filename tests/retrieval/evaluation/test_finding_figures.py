"""How often the tally of findings is right, on studies that can be counted by hand."""

import numpy as np
import pytest

from index.case import Case
from retrieval.decision.findings import FindingShare
from retrieval.evaluation.finding_figures import findings_of
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.retrieval_metrics import Retrieved


def study(name: str, own: str, **tally: float) -> StudyPrediction:
    shares = sorted(tally.items(), key=lambda item: -item[1])
    return StudyPrediction(
        cases=(Case(f"{name}.png", name, name, 1, finding=own),),
        classifier=(0.5,),
        vote=(0.5,),
        classifier_threshold=0.5,
        vote_threshold=0.5,
        retrieved=Retrieved({}, {}),
        embeddings=np.zeros((1, 2), np.float32),
        tally=tuple(FindingShare(finding, weight, 1) for finding, weight in shares),
    )


STUDIES = [
    study("a", "fracture; plate", fracture=0.9, plate=0.2),
    study("b", "Fracture", fracture=0.6),
    study("c", "", fracture=0.3, plate=0.1),
    study("d", "fracture"),
]


def test_figures_are_those_counted_by_hand() -> None:
    figures = findings_of(STUDIES, rounds=200)
    assert list(figures) == ["fracture", "plate"]
    fracture = figures["fracture"]
    assert (fracture.studies, fracture.named_first) == (3, 3)
    assert fracture.precision.value == pytest.approx(2 / 3)  # a and b of a, b and c
    assert fracture.precision.chance == 0.75
    assert fracture.auroc.value == pytest.approx(2 / 3)  # 0.9 and 0.6 are above c's 0.3, and 0 is not
    assert fracture.auroc.chance == 0.5
    plate = figures["plate"]
    assert (plate.studies, plate.named_first, plate.auroc.value) == (1, 0, 1.0)
    assert (plate.precision.value, plate.precision.reason) == (None, "the tally never names it first")


def test_a_collection_without_findings_has_no_figures() -> None:
    assert findings_of([study("a", "", fracture=1.0)], rounds=10) == {}
