"""Figures of readings that are written by hand, against scikit-learn and against counting."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from index.case import Case
from retrieval.reading import StudyReading, Summary, summarise

# part, label, each view's classifier, each view's vote, thresholds of the fold that judged it
TABLE = [
    ("hand", 0, (0.1, 0.3), (0.2, 0.4), 0.5, 0.5),
    ("hand", 1, (0.9,), (0.4,), 0.5, 0.5),
    ("hand", 0, (0.4, 0.4, 0.7), (0.1, 0.1, 0.1), 0.5, 0.5),
    ("hand", 1, (0.4, 0.45), (0.9, 0.7), 0.3, 0.6),
    ("wrist", 1, (0.6,), (0.8,), 0.7, 0.6),
    ("wrist", 0, (0.35,), (0.65,), 0.3, 0.6),
    ("wrist", 1, (0.8, 0.6), (0.55, 0.75), 0.3, 0.6),
]


def readings() -> list[StudyReading]:
    made = []
    for number, (part, label, classifier, vote, of_classifier, of_vote) in enumerate(TABLE):
        cases = tuple(Case(f"{number}/{v}", f"s{number}", f"p{number // 2}", label, part) for v in range(len(vote)))
        precision = {1: float(label), 5: 0.2 * number / 2, 10: 0.5}
        embeddings = np.zeros((len(vote), 2), np.float32)
        made.append(StudyReading(cases, classifier, vote, of_classifier, of_vote, precision, embeddings))
    return made


def calls(level: str, reader: str) -> tuple[list[int], list[float], list[bool]]:
    """Labels, probabilities and calls, each at the thresholds of its own fold."""
    labels, scores, called = [], [], []
    for _, label, classifier, vote, of_classifier, of_vote in TABLE:
        threshold = {"classifier": of_classifier, "knn": of_vote, "mean": (of_classifier + of_vote) / 2}[reader]
        both = list(zip(classifier, vote, strict=True))
        if level == "study":
            both = [(float(np.mean(classifier)), float(np.mean(vote)))]
        for c, v in both:
            score = {"classifier": c, "knn": v, "mean": (c + v) / 2}[reader]
            labels.append(label)
            scores.append(score)
            called.append(score > threshold)
    return labels, scores, called


@pytest.mark.parametrize("level", ["study", "image"])
@pytest.mark.parametrize("reader", ["classifier", "knn", "mean"])
def test_every_study_is_called_at_the_thresholds_of_its_own_fold(level: str, reader: str) -> None:
    found = getattr(summarise(readings(), rounds=50), level)[reader]
    labels, scores, called = calls(level, reader)
    assert found["kappa"].value == pytest.approx(cohen_kappa_score(labels, called))
    assert found["auroc"].value == pytest.approx(roc_auc_score(labels, scores))
    assert found["accuracy"].value == pytest.approx(np.mean(np.equal(labels, called)))


def test_counts_parts_and_precision() -> None:
    found = summarise(readings(), rounds=50, seed=3)
    assert (found.studies, found.images, found.patients) == (7, 12, 4)
    assert (found.abnormal_studies, found.abnormal_images) == (4, 6)
    assert (found.rounds, found.seed) == (50, 3)
    assert found.retrieval["precision_at_1"].value == pytest.approx(4 / 7)
    assert found.retrieval["precision_at_5"].value == pytest.approx(0.2 * 21 / 2 / 7)
    assert list(found.parts) == ["hand", "wrist"]
    alone = [reading for reading in readings() if reading.part == "wrist"]
    wrist = found.parts["wrist"]
    assert (wrist.studies, wrist.abnormal) == (3, 2)
    assert wrist.readers["knn"]["kappa"] == summarise(alone, rounds=50, seed=3).study["knn"]["kappa"]
    assert found.difference["kappa"].value == pytest.approx(
        (found.study["knn"]["kappa"].value or 0) - (found.study["classifier"]["kappa"].value or 0)
    )


def test_as_json_it_is_numbers_and_reasons() -> None:
    normal = [reading for reading in readings() if reading.label == 0]
    told = Summary.to_dict(summarise(normal, rounds=20))
    assert told["studies"] == 3
    parts = told["parts"]
    assert isinstance(parts, dict)
    assert parts["wrist"]["knn"]["kappa"] == {
        "value": None, "low": None, "high": None, "reason": "needs both normal and abnormal ones"
    }  # fmt: skip
    assert parts["hand"]["studies"] == 2
