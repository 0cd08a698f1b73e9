"""Which studies a run of an experiment predicts wrongly: by fold, fracture size, number of radiographs and patient.

    python -m experiments.error_analysis DATA RUN [--folds 5]

RUN is a run's folder (OUT/runs/NAME). DATA is the collection that it predicts, with a table of boxes. The size of a
fracture is the square root of its area, as a share of the radiograph's longer side. The size of a study is that of its
largest fracture. Plates and screws, and several views in one picture, are columns of FracAtlas (`dataset.csv`, two
folders above a radiograph).
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from index.case import Case
from retrieval.datasets.collection import read_collection
from retrieval.datasets.splits import patient_folds
from retrieval.evaluation.metrics import Predictor, measure
from retrieval.evaluation.paired_comparison import Prediction, read_predictions
from retrieval.images.radiograph import read_radiograph
from training.data.lesion_boxes import Box, read_boxes


def largest_box(case: Case, boxes: Sequence[Box]) -> float:
    """The size of the largest box of a radiograph, 0 without a box."""
    if not boxes:
        return 0.0
    height, width = read_radiograph(Path(case.path)).pixels.shape[:2]
    return float(max(np.sqrt(w * width * h * height) for _, _, w, h in boxes) / max(height, width))


def marked(cases: Sequence[Case]) -> dict[str, frozenset[str]]:
    """By study, which of hardware and multiscan FracAtlas marks in its radiographs."""
    by_image: dict[str, frozenset[str]] = {}
    for folder in {Path(case.path).parents[2] for case in cases}:
        if not (folder / "dataset.csv").is_file():
            continue
        with (folder / "dataset.csv").open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                by_image[row["image_id"]] = frozenset(name for name in ("hardware", "multiscan") if row[name] == "1")
    marks: dict[str, frozenset[str]] = {}
    for case in cases:
        marks[case.study] = marks.get(case.study, frozenset()) | by_image.get(Path(case.path).name, frozenset())
    return marks


def print_groups(
    title: str, predictions: Sequence[Prediction], groups: Sequence[tuple[str, Callable[[Prediction], bool]]]
) -> None:
    print(f"\n{title}: studies predicted rightly by the classifier, by the vote, by either")
    for name, belongs in groups:
        right = np.array(
            [
                ((c.classifier > c.classifier_threshold) == c.label, (c.vote > c.vote_threshold) == c.label)
                for c in predictions
                if belongs(c)
            ]
        )
        if len(right):
            classifier, vote = right.mean(0)
            print(f"  {name}: {len(right)} studies, {classifier:.2f}, {vote:.2f}, {right.any(1).mean():.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--folds", type=int, default=5, help="of the grid")
    options = parser.parse_args()
    predictions = read_predictions(options.run / "calls.csv")
    collection = read_collection(options.data)
    fold_of = dict(
        zip((c.study for c in collection.cases), patient_folds(collection.cases, options.folds), strict=True)
    )
    for fold in range(options.folds):
        members = [prediction for prediction in predictions if fold_of[prediction.study] == fold]
        labels_of = np.array([prediction.label for prediction in members])
        scores = (np.array([getattr(prediction, kind) for prediction in members]) for kind in ("classifier", "vote"))
        classifier, vote = (measure(labels_of, Predictor(score, score > 0.5))["auroc"][0] for score in scores)
        print(
            f"fold {fold + 1}: {len(members)} studies, AUROC of the classifier {classifier:.3f}, of the vote {vote:.3f}"
        )
    boxes = read_boxes(collection)
    studies: dict[str, list[Case]] = {prediction.study: [] for prediction in predictions}
    for case in collection.cases:
        if case.study in studies:
            studies[case.study].append(case)

    abnormal = [prediction for prediction in predictions if prediction.label]
    size = {
        prediction.study: max(
            largest_box(case, boxes.get(Path(case.path).name, [])) for case in studies[prediction.study]
        )
        for prediction in abnormal
    }
    low, high = np.quantile(list(size.values()), (1 / 3, 2 / 3))
    print_groups(
        "Abnormal, by the size of the largest fracture",
        abnormal,
        [
            (f"up to {low:.3f} of the radiograph", lambda prediction: size[prediction.study] <= low),
            (f"up to {high:.3f}", lambda prediction: low < size[prediction.study] <= high),
            ("larger", lambda prediction: size[prediction.study] > high),
        ],
    )
    labels: dict[str, set[int]] = {}
    for case in collection.cases:
        labels.setdefault(case.patient, set()).add(case.label)
    marks = marked(collection.cases)
    for title, label in (("Abnormal", 1), ("Normal", 0)):
        members = [prediction for prediction in predictions if prediction.label == label]
        print_groups(
            f"{title}, by radiographs in the study",
            members,
            [
                ("1", lambda prediction: len(studies[prediction.study]) == 1),
                ("2", lambda prediction: len(studies[prediction.study]) == 2),
                ("3 or more", lambda prediction: len(studies[prediction.study]) > 2),
            ],
        )
        print_groups(
            f"{title}, by the patient's other studies",
            members,
            [
                ("all of this label", lambda prediction: len(labels[prediction.patient]) == 1),
                ("some of the other label", lambda prediction: len(labels[prediction.patient]) == 2),
            ],
        )
        print_groups(
            f"{title}, by what the radiographs show",
            members,
            [
                ("plates or screws", lambda prediction: "hardware" in marks[prediction.study]),
                ("several views in one picture", lambda prediction: "multiscan" in marks[prediction.study]),
                ("neither", lambda prediction: not marks[prediction.study]),
            ],
        )


if __name__ == "__main__":
    main()
