"""Which studies a run of an experiment gets wrong: by fold, fracture's size, number of radiographs, patient and quirks.

    python -m experiments.error_analysis DATA RUN [--folds 5]

RUN is a run's folder (OUT/runs/NAME) and DATA the collection that it judged, with a table of boxes. A fracture's size
is the square root of its area, as a share of the radiograph's longer side; a study's is that of its largest one. Plates
and screws, and several views in one picture, are FracAtlas's columns (`dataset.csv`, two folders above a radiograph).
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from index.case import Case
from retrieval.datasets.collection import read_collection
from retrieval.datasets.splits import patient_folds
from retrieval.evaluation.metrics import Reader, measure
from retrieval.evaluation.paired_comparison import Prediction, read_predictions
from retrieval.images.radiograph import read_radiograph
from training.data.lesion_boxes import Box, read_boxes


def size_of(case: Case, boxes: Sequence[Box]) -> float:
    """The largest box of a radiograph, 0 where there is none."""
    if not boxes:
        return 0.0
    height, width = read_radiograph(Path(case.path)).pixels.shape[:2]
    return float(max(np.sqrt(w * width * h * height) for _, _, w, h in boxes) / max(height, width))


def quirks(cases: Sequence[Case]) -> dict[str, frozenset[str]]:
    """Which of hardware and multiscan FracAtlas says of a study's radiographs; nothing is known of others'."""
    of_image: dict[str, frozenset[str]] = {}
    for folder in {Path(case.path).parents[2] for case in cases}:
        if not (folder / "dataset.csv").is_file():
            continue
        with (folder / "dataset.csv").open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                of_image[row["image_id"]] = frozenset(name for name in ("hardware", "multiscan") if row[name] == "1")
    found: dict[str, frozenset[str]] = {}
    for case in cases:
        found[case.study] = found.get(case.study, frozenset()) | of_image.get(Path(case.path).name, frozenset())
    return found


def table(title: str, calls: Sequence[Prediction], groups: Sequence[tuple[str, Callable[[Prediction], bool]]]) -> None:
    print(f"\n{title}: studies called right by classifier, by vote, by either")
    for name, belongs in groups:
        right = np.array(
            [
                ((c.classifier > c.classifier_threshold) == c.label, (c.vote > c.vote_threshold) == c.label)
                for c in calls
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
    calls = read_predictions(options.run / "calls.csv")
    collection = read_collection(options.data)
    fold_of = dict(
        zip((c.study for c in collection.cases), patient_folds(collection.cases, options.folds), strict=True)
    )
    for fold in range(options.folds):
        own = [call for call in calls if fold_of[call.study] == fold]
        labels_of = np.array([call.label for call in own])
        scores = (np.array([getattr(call, kind) for call in own]) for kind in ("classifier", "vote"))
        classifier, vote = (measure(labels_of, Reader(score, score > 0.5))["auroc"][0] for score in scores)
        print(f"fold {fold + 1}: {len(own)} studies, AUROC of the classifier {classifier:.3f}, of the vote {vote:.3f}")
    boxes = read_boxes(collection)
    studies: dict[str, list[Case]] = {call.study: [] for call in calls}
    for case in collection.cases:
        if case.study in studies:
            studies[case.study].append(case)

    abnormal = [call for call in calls if call.label]
    size = {
        call.study: max(size_of(case, boxes.get(Path(case.path).name, [])) for case in studies[call.study])
        for call in abnormal
    }
    low, high = np.quantile(list(size.values()), (1 / 3, 2 / 3))
    table(
        "Abnormal, by the size of the largest fracture",
        abnormal,
        [
            (f"up to {low:.3f} of the radiograph", lambda call: size[call.study] <= low),
            (f"up to {high:.3f}", lambda call: low < size[call.study] <= high),
            ("larger", lambda call: size[call.study] > high),
        ],
    )
    labels: dict[str, set[int]] = {}
    for case in collection.cases:
        labels.setdefault(case.patient, set()).add(case.label)
    quirk = quirks(collection.cases)
    for title, label in (("Abnormal", 1), ("Normal", 0)):
        own = [call for call in calls if call.label == label]
        table(
            f"{title}, by radiographs in the study",
            own,
            [
                ("1", lambda call: len(studies[call.study]) == 1),
                ("2", lambda call: len(studies[call.study]) == 2),
                ("3 or more", lambda call: len(studies[call.study]) > 2),
            ],
        )
        table(
            f"{title}, by the patient's other studies",
            own,
            [
                ("all of this label", lambda call: len(labels[call.patient]) == 1),
                ("some of the other label", lambda call: len(labels[call.patient]) == 2),
            ],
        )
        table(
            f"{title}, by quirks",
            own,
            [
                ("plates or screws", lambda call: "hardware" in quirk[call.study]),
                ("several views in one picture", lambda call: "multiscan" in quirk[call.study]),
                ("neither", lambda call: not quirk[call.study]),
            ],
        )


if __name__ == "__main__":
    main()
