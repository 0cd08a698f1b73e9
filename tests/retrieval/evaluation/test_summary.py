"""Figures of readings that are written by hand, against scikit-learn and against counting."""

import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from index.case import Case
from retrieval.evaluation.metrics import METRICS, Confusion
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.retrieval_metrics import Retrieved
from retrieval.evaluation.summary import Summary, lesions_of, summarise, sweep_of

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


LESIONS = ("", "fracture", "", "fracture", "cyst", "", "")


def readings() -> list[StudyPrediction]:
    made = []
    for number, (part, label, classifier, vote, of_classifier, of_vote) in enumerate(TABLE):
        cases = tuple(Case(f"{number}/{v}", f"s{number}", f"p{number // 2}", label, part) for v in range(len(vote)))
        figures = {"precision_at_1": float(label), "map_at_r": 0.1 * number if number else float("nan")}
        chance = {"precision_at_1": 0.5 * label, "map_at_r": 0.2}
        embeddings = np.zeros((len(vote), 2), np.float32)
        sweep = {1: vote, 3: tuple(1 - v for v in vote), number + 100: vote}
        made.append(
            StudyPrediction(
                cases, classifier, vote, of_classifier, of_vote, Retrieved(figures, chance), embeddings,
                sweep=sweep, lesion=LESIONS[number],
            )
        )  # fmt: skip
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


def test_counts_parts_and_retrieval() -> None:
    found = summarise(readings(), rounds=50, seed=3)
    assert (found.studies, found.images, found.patients) == (7, 12, 4)
    assert (found.abnormal_studies, found.abnormal_images) == (4, 6)
    assert (found.rounds, found.seed) == (50, 3)
    assert found.retrieval["precision_at_1"].value == pytest.approx(4 / 7)
    assert found.retrieval["precision_at_1"].chance == pytest.approx(0.5 * 4 / 7)
    assert found.retrieval["map_at_r"].value == pytest.approx(0.1 * 21 / 6)  # of the six studies that have one
    assert found.retrieval["map_at_r"].chance == pytest.approx(0.2)
    assert list(found.parts) == ["hand", "wrist"]
    alone = [reading for reading in readings() if reading.part == "wrist"]
    wrist = found.parts["wrist"]
    assert (wrist.studies, wrist.abnormal) == (3, 2)
    assert (wrist.images, wrist.abnormal_images) == (4, 3)
    of_wrist = summarise(alone, rounds=50, seed=3)
    assert (wrist.study, wrist.image) == (of_wrist.study, of_wrist.image)
    assert of_wrist.parts["wrist"].study == of_wrist.study
    assert found.difference["kappa"].value == pytest.approx(
        (found.study["knn"]["kappa"].value or 0) - (found.study["classifier"]["kappa"].value or 0)
    )


@pytest.mark.parametrize("level", ["study", "image"])
@pytest.mark.parametrize("reader", ["classifier", "knn", "mean"])
def test_confusions_are_the_calls(level: str, reader: str) -> None:
    labels, _, called = calls(level, reader)
    counts = [sum(y == label and c == call for y, c in zip(labels, called, strict=True))
              for label, call in ((1, True), (1, False), (0, True), (0, False))]  # fmt: skip
    assert summarise(readings(), rounds=2).confusion[level][reader] == Confusion(*counts)


def test_agreement_is_between_the_calls_by_study() -> None:
    found = summarise(readings(), rounds=50).agreement
    classifier, vote = (np.array(calls("study", reader)[2]) for reader in ("classifier", "knn"))
    assert found.share.value == pytest.approx(np.mean(classifier == vote))
    assert found.both_abnormal.studies == np.sum(classifier & vote)


def test_a_sweep_votes_with_other_numbers_of_studies_at_the_stored_threshold() -> None:
    one, three = sweep_of(readings(), used=3, rounds=50)  # the counts that every study has
    assert [(point.k, point.used) for point in (one, three)] == [(1, False), (3, True)]
    labels, scores, _ = calls("study", "knn")
    thresholds = np.array([row[5] for row in TABLE])
    assert one.auroc == summarise(readings(), rounds=50).study["knn"]["auroc"]
    assert three.auroc.value == pytest.approx(roc_auc_score(labels, 1 - np.array(scores)))
    assert three.kappa.value == pytest.approx(cohen_kappa_score(labels, 1 - np.array(scores) > thresholds))
    assert three.used


def test_by_lesion_the_abnormal_studies_alone_count() -> None:
    found = lesions_of(readings(), rounds=20)
    assert list(found) == ["cyst", "fracture"]
    fracture = found["fracture"]
    assert fracture.studies == 2
    _, _, called = calls("study", "knn")
    assert fracture.sensitivity["knn"].value == pytest.approx((called[1] + called[3]) / 2)
    assert fracture.retrieval["map_at_r"].value == pytest.approx((0.1 + 0.3) / 2)


def test_as_json_it_is_numbers_and_reasons() -> None:
    normal = [reading for reading in readings() if reading.label == 0]
    told = Summary.to_dict(summarise(normal, rounds=20))
    assert told["studies"] == 3
    parts = told["parts"]
    assert isinstance(parts, dict)
    assert parts["wrist"]["knn"]["kappa"] == {
        "value": None, "low": None, "high": None, "reason": "needs both labels"
    }  # fmt: skip
    assert parts["hand"]["studies"] == 2
    assert set(parts["hand"]["image"]["mean"]) == set(METRICS)
    json.dumps(told, allow_nan=False)
