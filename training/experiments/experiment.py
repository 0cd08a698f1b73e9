"""A grid of runs, each trained, indexed and evaluated as a user would do it; finished runs are not repeated.

OUT/
  runs/NAME/fold-1/       a training run (see `training.loop.run`), and its index
  runs/NAME/result.json   the run's figures; a run that has it is skipped
  runs/NAME/calls.csv     the predictions for each study of the evaluation
  runs/NAME/embeddings.npz   of the evaluation's radiographs, for the maps: embeddings (N, D) and labels (N,)
  report.md  results.csv  report.html  figures/
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import write_whole
from index.case import Case
from index.errors import MuraSearchError
from retrieval.datasets.collection import Collection
from retrieval.datasets.splits import patient_folds
from retrieval.decision.rules import Rules
from retrieval.evaluation.evaluate import refuse_known
from retrieval.evaluation.metrics import Predictor, measure
from retrieval.evaluation.paired_comparison import predictions_of, write_predictions
from retrieval.evaluation.predictions import StudyPrediction, predict_studies
from retrieval.evaluation.summary import summarise
from retrieval.formats.json_format import plain
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from training.data.dataset import listed_cases, load_training_set
from training.data.lesion_boxes import boxes_of
from training.errors import TrainingError
from training.experiments.grid import Grid, Run
from training.experiments.report import write_report
from training.loop.run import Division, RunOptions, train
from training.loop.validation import embedding_loss
from training.recipe import Recipe
from training.types import Report

__all__ = ["divided", "run_experiment"]

SCHEMA = "mura-search/experiment-run/1"
SEED = 0  # of the folds and of the resampling

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Data:
    """The data of every run of a grid: (train, valid) of each fold, and collections that only train.

    If a part is named, only its studies are indexed and evaluated; those of all parts train.
    """

    folds: int
    part: str
    divided: Sequence[tuple[Collection, Collection]]
    others: Sequence[Collection]
    sha256: str

    def record(self) -> dict[str, Any]:
        """What the result of a finished run must say of its data."""
        return {"folds": self.folds, "part": self.part, "data_sha256": self.sha256}


def run_experiment(
    grid: Grid,
    collection: Collection,
    others: Sequence[Collection],
    out: Path,
    *,
    cache: Path | None = None,
    tell: Tell = lambda text: None,
    report: Report = lambda stage, done, total, figures: None,
) -> list[Mapping[str, Any]]:
    """Train and evaluate every run of the grid on `collection`, write the report to OUT, and give the runs' results.

    With `grid.folds` of k, its patients are divided into k folds, each evaluated with a model and an index of the
    others, and the studies of all folds are counted together; else its split valid is evaluated with its split train.
    `others` only train. A run that fails is reported and the others continue; `tell` is called with a sentence
    as each run begins or ends. After an interruption the same call continues. Raises TrainingError where OUT holds
    other data.
    """
    data = _Data(grid.folds, grid.part, divided(collection, grid.folds), others, _data_sha256([collection, *others]))
    results: list[Mapping[str, Any]] = []
    for number, run in enumerate(grid.runs, 1):
        folder = out / "runs" / run.name
        where = f"run {number} of {len(grid.runs)}, {run.name}"
        result = _done(folder, run, data)
        if result is None:
            tell(f"{where}: begun")
            try:
                result = _run(run, data, folder, cache, report)
            except MuraSearchError as error:
                result = {"name": run.name, "error": str(error)}
                tell(f"{where}: failed: {error}")
        else:
            tell(f"{where}: done already")
        results.append(result)
        write_report(grid, results, out)
    return results


def divided(collection: Collection, folds: int) -> list[tuple[Collection, Collection]]:
    """(train, valid) of each fold; the splits of the collection where `folds` is 0. Raises TrainingError."""
    if not folds:
        return [(collection.select(split="train"), collection.select(split="valid"))]
    fold_of = patient_folds(collection.cases, folds, SEED)

    if len({case.patient for case in collection.cases}) < folds:
        raise TrainingError(f"{collection.root} has too few patients for {folds} folds; choose fewer")

    def side(number: int, split: str) -> Collection:
        rows = zip(collection.cases, fold_of, strict=True)
        chosen = (replace(case, split=split) for case, fold in rows if (fold == number) == (split == "valid"))
        return replace(collection, cases=tuple(chosen))

    return [(side(number, "train"), side(number, "valid")) for number in range(folds)]


def _done(folder: Path, run: Run, data: _Data) -> Mapping[str, Any] | None:
    file = folder / "result.json"
    if not file.exists():
        return None
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    same = run.recipe.recorded_as(result["recipe"])
    if not same or any(result[key] != value for key, value in data.record().items()):
        raise TrainingError(
            f"{folder} holds a run with another recipe or other data; give another --out, or remove the folder"
        )
    return result


def _run(run: Run, data: _Data, folder: Path, cache: Path | None, report: Report) -> Mapping[str, Any]:
    seconds = 0.0
    predictions: list[StudyPrediction] = []
    figures: list[dict[str, dict[str, float]]] = []
    for number, (learned, valid) in enumerate(data.divided, 1):
        fold = folder / f"fold-{number}"
        Division.of_cases(listed_cases([learned, *data.others]), run.recipe)  # labels are checked before reading
        loaded, _ = load_training_set(
            [learned, *data.others], run.recipe.preprocessing, cache=cache, processing=run.recipe.processing
        )
        options = RunOptions(name=run.name, resume=True, appearance=False)
        trained = train(loaded, run.recipe, fold, options, report)
        assert trained is not None  # an experiment is one process
        began = time.monotonic()
        part = data.part or None
        build_index(learned.select(part=part), fold / "index", model=trained.model, replace=True)
        with Searcher.open(fold / "index") as searcher:
            known, rules = searcher.index, searcher.rules
            refuse_known(searcher, valid.select(part=part).cases)
            studies, _ = predict_studies(searcher, valid.select(part=part))
            embedded = known.embeddings()
            train_side = known.cases(), embedded, rules.probabilities(known.logits(), embedded)
            valid_side = (
                [case for study in studies for case in study.cases],
                np.concatenate([study.embeddings for study in studies]),
                np.concatenate([study.classifier for study in studies]),
            )
        figures.append(
            {"train": _by_image(*train_side, rules, run.recipe), "valid": _by_image(*valid_side, rules, run.recipe)}
        )
        predictions += studies
        seconds += trained.seconds + time.monotonic() - began
        if number == 1:
            labels = [case.label for case in valid_side[0]]
            np.savez(folder / "embeddings.npz", embeddings=valid_side[1], labels=labels)
    result = {
        "schema": SCHEMA,
        "name": run.name,
        "recipe": run.recipe.to_dict(),
        "pretrained": bool(run.recipe.weights),
        **data.record(),
        "seconds": seconds,
        **{side: _mean([fold[side] for fold in figures]) for side in ("train", "valid")},
        **summarise(predictions, rounds=10_000, seed=SEED).to_dict(),
        "versions": {package: version(package) for package in ("torch", "torchvision", "timm", "numpy", "onnxruntime")},
    }
    write_predictions(predictions_of(predictions), folder / "calls.csv")
    write_whole(folder / "result.json", (json.dumps(plain(result), indent=1, allow_nan=False) + "\n").encode())
    return result


def _by_image(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    probabilities: NDArray[np.float64],
    rules: Rules,
    recipe: Recipe,
) -> dict[str, float]:
    """The report's figures: the embedding's loss, and accuracy, error and kappa of the classifier by image."""
    predicted = Predictor(probabilities, probabilities > rules.classifier_threshold)
    figures = measure(np.array([case.label for case in cases]), predicted)
    accuracy, kappa = (float(figures[name][0]) for name in ("accuracy", "kappa"))
    loss = embedding_loss(embeddings, cases, recipe)
    return {"loss": loss, "accuracy": accuracy, "error": 1 - accuracy, "kappa": kappa}


def _mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([fold[name] for fold in figures])) for name in figures[0]}


def _data_sha256(collections: Sequence[Collection]) -> str:
    """A fingerprint of the collections' tables and of where lesions lie; radiographs are checked in training.

    A path begins below the folder that all radiographs of its collection lie in, so neither the path of that folder nor
    that of a case table matters.
    """
    fingerprint = hashlib.sha256()
    for number, c in enumerate(collections):
        paths = [os.path.normpath(c.root.absolute() / x.case) for x in c.cases]
        above = os.path.commonpath([Path(path).parent for path in paths])
        for line in sorted(
            f"{number},{os.path.relpath(path, above)},{x.label},{x.patient},{x.study},{x.part},{x.split},{boxes}\n"
            for path, x, boxes in zip(paths, c.cases, boxes_of(c), strict=True)
        ):
            fingerprint.update(line.encode(errors="surrogateescape"))
    return fingerprint.hexdigest()
