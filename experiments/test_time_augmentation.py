"""What mirrored encoding (test-time augmentation) gains in kappa and AUROC by study, and the time that it takes.

    python -m experiments.test_time_augmentation DATA [--model FOLDER] [--images 32] [--runs 5]

The split `train` of DATA is indexed twice with the same model, with test_time "" and "mirror". Both indexes predict the
split `valid`. All four readers are resampled together, so their differences are paired. Each index learns its own rules
if DATA has enough patients that the model was not trained on. Otherwise both take the model's rules, which fit one of
them only: then look at AUROC, which needs no threshold. The time is that of encoding one radiograph, from its pixels.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._timing import alternate, machine, ratio, show
from retrieval.datasets.collection import read_collection
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.evaluation.evaluate import refuse_known
from retrieval.evaluation.metrics import Predictor, bootstrap
from retrieval.evaluation.predictions import StudyPrediction, predict_studies
from retrieval.images.radiograph import read_radiograph
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from retrieval.wording import estimate_text

SIDES = {"plain": "", "mirrored": "mirror"}


def variant(model: Path, folder: Path, test_time: str) -> Path:
    """Copy a bundle to `folder` and change its test_time."""
    shutil.copytree(model, folder)
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps({**about, "test_time": test_time}), encoding="utf-8")
    return folder


def predicted(data: Path, model: Path, index: Path) -> list[StudyPrediction]:
    """Index the train split with a model, and read the studies of the valid split."""
    report = build_index(read_collection(data, split="train"), index, model=model)
    new = read_collection(data, split="valid")
    with Searcher.open(index) as searcher:
        refuse_known(searcher, new.cases)
        readings, skipped = predict_studies(searcher, new)
    left_out = len(report.quarantined) + len(skipped)
    print(f"{model.name}: {report.studies} studies indexed, {len(readings)} predicted, {left_out} radiographs left out")
    print(f"{model.name}: rules: {report.rules.source}", flush=True)
    return readings


def predictors(name: str, readings: list[StudyPrediction]) -> dict[str, Predictor]:
    """Both readers of an index, by study."""
    classifier = np.array([np.mean(reading.classifier) for reading in readings])
    vote = np.array([np.mean(reading.vote) for reading in readings])
    first = readings[0]  # one index has the same thresholds for all
    return {
        f"{name} classifier": Predictor(classifier, classifier > first.classifier_threshold),
        f"{name} vote": Predictor(vote, vote > first.vote_threshold),
    }


def compare(sides: dict[str, list[StudyPrediction]]) -> None:
    plain, mirrored = sides.values()
    assert [study.cases for study in plain] == [study.cases for study in mirrored], (
        "the two indexes read different radiographs"
    )
    labels = np.array([reading.label for reading in plain])
    all_predictors = {
        name: reader for side, readings in sides.items() for name, reader in predictors(side, readings).items()
    }
    result = bootstrap(labels, [reading.patient for reading in plain], all_predictors)
    print(f"\n{len(labels)} studies of {result.patients} new patients, {labels.sum()} abnormal; 95 % intervals")
    for name, figures in result.estimates().items():
        print(f"{name}: " + ", ".join(f"{metric} {estimate_text(estimate)}" for metric, estimate in figures.items()))
    for kind in ("classifier", "vote"):
        for metric in ("kappa", "auroc"):
            gain = result.difference(f"mirrored {kind}", f"plain {kind}", metric)
            print(f"{kind}, {metric}: mirrored - plain = {estimate_text(gain)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--images", type=int, default=32, help="radiographs that are timed")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    machine("onnxruntime", "opencv-python-headless")
    with tempfile.TemporaryDirectory() as folder:
        models = {side: variant(options.model, Path(folder) / side, kind) for side, kind in SIDES.items()}
        root = Path(folder)
        compare({side: predicted(options.data, model, root / f"{side}-index") for side, model in models.items()})
        plain, mirrored = (Encoder.open(model) for model in models.values())
    sample = [case.path for case in read_collection(options.data, split="valid").cases][: options.images]
    pictures = [read_radiograph(Path(path)).pixels for path in sample]

    def milliseconds(encoder: Encoder) -> float:
        started = time.perf_counter()
        for pixels in pictures:
            encoder.encode([pixels])
        return 1000 * (time.perf_counter() - started) / len(pictures)

    once, twice = alternate(options.runs, lambda: milliseconds(plain), lambda: milliseconds(mirrored))
    print(f"\nencoding of {len(pictures)} radiographs, one at a time")
    show("plain", once, "ms")
    show("mirrored", twice, "ms")
    ratio("mirrored / plain", twice, once)


if __name__ == "__main__":
    main()
