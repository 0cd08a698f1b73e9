"""Are the synthetic radiographs too easy? Trivial classifiers on them, cross-validated by patient, and drawing speed.

    python -m experiments.synthetic_difficulty --patients 300

A logistic regression on mean intensity, histogram, size or 16 x 16 pixels must stay under an AUROC of 0.75 by image and
by study. Then the finding separates the classes, not brightness, framing or a marker.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retrieval.datasets.collection import read_collection
from retrieval.synthetic.dataset import write_collection

__all__ = ["main"]

LIMIT = 0.75

Features = NDArray[np.float64]


def features(pixels: NDArray[np.uint8]) -> dict[str, Features]:
    """The input of each trivial classifier, from a radiograph (H, W)."""
    small = cv2.resize(pixels, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    histogram = np.histogram(pixels, bins=16, range=(0, 256))[0] / pixels.size
    return {
        "mean intensity": np.array([pixels.mean()]),
        "histogram, 16 bins": np.asarray(histogram, dtype=np.float64),
        "height and width": np.array(pixels.shape, dtype=np.float64),
        "16 x 16 pixels": small,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), time.process_time()
        write_collection(Path(folder) / "phantoms", patients=options.patients, seed=options.seed)
        wall, used = time.perf_counter() - began, time.process_time() - used
        cases = read_collection(Path(folder) / "phantoms").cases
        seen = [features(np.asarray(cv2.imread(case.path, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)) for case in cases]
    labels = np.array([case.label for case in cases])
    patients = [case.patient for case in cases]
    studies = np.unique([case.study for case in cases], return_inverse=True)[1]
    first = np.unique(studies, return_index=True)[1]
    print(f"{platform.processor() or platform.machine()}, one thread")
    print(f"{len(cases)} radiographs, {len(first)} studies, {labels.mean():.1%} abnormal")
    each, busy = 1000 * wall / len(cases), 1000 * used / len(cases)
    print(f"drawn and written in {wall:.1f} s: {each:.0f} ms a radiograph, {busy:.0f} ms of processor")
    worst = 0.0
    for name in seen[0]:
        rows = np.stack([of_image[name] for of_image in seen])
        for strength in (1.0, 0.001):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
            predicted = cross_val_predict(
                model, rows, labels, groups=patients, cv=GroupKFold(5), method="predict_proba"
            )
            probabilities = predicted[:, 1]
            by_study = np.bincount(studies, probabilities) / np.bincount(studies)
            image, study = roc_auc_score(labels, probabilities), roc_auc_score(labels[first], by_study)
            worst = max(worst, image, study, 1 - image, 1 - study)
            print(f"{name:20s} C {strength:<6g} AUROC by image {image:.3f}, by study {study:.3f}")
    print(f"worst {worst:.3f}, limit {LIMIT}: {'holds' if worst < LIMIT else 'BROKEN'}")
    raise SystemExit(worst >= LIMIT)


if __name__ == "__main__":
    main()
