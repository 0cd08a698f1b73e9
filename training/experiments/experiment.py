"""A grid of runs, each trained, indexed and judged as a user would do it; what is done is not done again.

OUT/
  runs/NAME/fold-1/       a training run (see `training.loop.run`), and its index
  runs/NAME/result.json   the run's figures; a run that has it is skipped
  runs/NAME/calls.csv     what was said of each judged study
  runs/NAME/embeddings.npz   of the judged radiographs, for the maps: embeddings (N, D) and labels (N,)
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
from retrieval.answer import plain
from retrieval.datasets.collection import Collection
from retrieval.datasets.splits import patient_folds
from retrieval.decision.rules import Rules
from retrieval.evaluation.evaluate import refuse_known
from retrieval.evaluation.metrics import Predictor, measure
from retrieval.evaluation.paired_comparison import predictions_of, write_predictions
from retrieval.evaluation.predictions import StudyPrediction, predict_studies
from retrieval.evaluation.summary import summarise
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from training.data.dataset import load_training_set
from training.data.lesion_boxes import boxes_of
from training.errors import TrainingError
from training.experiments.grid import Grid, Run
from training.experiments.report import write_report
from training.loop.run import RunOptions, train
from training.loop.validation import embedding_loss
from training.recipe import Recipe
from training.types import Report

__all__ = ["run_experiment"]

SCHEMA = "mura-search/experiment-run/1"
SEED = 0  # of the folds and of the resampling

Tell = Callable[[str], None]
Seen = tuple[Sequence[Case], NDArray[np.float32], NDArray[np.float64]]  # N cases, embeddings (N, D), probabilities


@dataclass(frozen=True, slots=True)
class _Data:
    """What every run of a grid learns from and is judged by: (train, valid) of each fold, and what only trains.

    Only studies of `part` are indexed and judged, where one is named; those of all parts train.
    """

    folds: int
    part: str
    divided: Sequence[tuple[Collection, Collection]]
    others: Sequence[Collection]
    sha256: str

    def record(self) -> dict[str, Any]:
        """What a result must have in common with this data to be there already."""
        return {"folds": self.folds, "part": self.part, "data_sha256": self.sha256}


def run_experiment(
    grid: Grid,
    judged: Collection,
    others: Sequence[Collection],
    out: Path,
    *,
    cache: Path | None = None,
    tell: Tell = lambda text: None,
    report: Report = lambda stage, done, total, figures: None,
) -> list[Mapping[str, Any]]:
    """Train and judge every run of the grid on `judged`, write the report to OUT, and give the runs' results.

    With `grid.folds` of k, patients of `judged` are divided into k folds, each judged by a model and an index of the
    others, and the studies of all folds are counted together; else its own split valid is judged by its split train.
    `others` only ever train. A run that fails is reported and the others go on; `tell` is called with a sentence as
    each run begins or ends. Interrupted, the same call goes on. Raises TrainingError where OUT holds other data.
    """
    data = _Data(grid.folds, grid.part, _divided(judged, grid.folds), others, _data_sha256([judged, *others]))
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
            tell(f"{where}: there already")
        results.append(result)
        write_report(grid, results, out)
    return results


def _divided(judged: Collection, folds: int) -> list[tuple[Collection, Collection]]:
    """(train, valid) of each fold."""
    if not folds:
        return [(judged.select(split="train"), judged.select(split="valid"))]
    fold_of = patient_folds(judged.cases, folds, SEED)

    def of(number: int, inside: bool) -> Collection:
        cases = tuple(c for c, fold in zip(judged.cases, fold_of, strict=True) if (fold == number) == inside)
        if not cases:
            raise TrainingError(f"{judged.root} has too few patients for {folds} folds; give fewer")
        return replace(judged, cases=tuple(replace(c, split="valid" if inside else "train") for c in cases))

    return [(of(number, False), of(number, True)) for number in range(folds)]


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
    readings: list[StudyPrediction] = []
    figures: list[dict[str, dict[str, float]]] = []
    for number, (learned, valid) in enumerate(data.divided, 1):
        place = folder / f"fold-{number}"
        loaded, _ = load_training_set([learned, *data.others], run.recipe.preprocessing, cache=cache)
        options = RunOptions(name=run.name, resume=True, appearance=False)
        trained = train(loaded, run.recipe, place, options, report)
        assert trained is not None  # an experiment is one process
        began = time.monotonic()
        part = data.part or None
        build_index(learned.select(part=part), place / "index", model=trained.model, replace=True)
        with Searcher.open(place / "index") as searcher:
            sides = {"train": _known(searcher), "valid": _read(searcher, valid.select(part=part), readings)}
            figures.append({side: _by_image(seen, searcher.rules, run.recipe) for side, seen in sides.items()})
        seconds += trained.seconds + time.monotonic() - began
        if number == 1:
            cases, embeddings, _ = sides["valid"]
            np.savez(folder / "embeddings.npz", embeddings=embeddings, labels=[case.label for case in cases])
    result = {
        "schema": SCHEMA,
        "name": run.name,
        "recipe": run.recipe.to_dict(),
        "pretrained": bool(run.recipe.weights),
        **data.record(),
        "seconds": seconds,
        **{side: _mean([of_fold[side] for of_fold in figures]) for side in ("train", "valid")},
        **summarise(readings, rounds=10_000, seed=SEED).to_dict(),
        "versions": {package: version(package) for package in ("torch", "torchvision", "timm", "numpy", "onnxruntime")},
    }
    write_predictions(predictions_of(readings), folder / "calls.csv")
    write_whole(folder / "result.json", (json.dumps(plain(result), indent=1, allow_nan=False) + "\n").encode())
    return result


def _known(searcher: Searcher) -> Seen:
    """The radiographs that the index holds, as its model sees them."""
    cases, embeddings = searcher.index.cases(), searcher.index.embeddings()
    return cases, embeddings, searcher.rules.probabilities(searcher.index.logits())


def _read(searcher: Searcher, valid: Collection, readings: list[StudyPrediction]) -> Seen:
    """Judge the studies of `valid`, to be added to `readings`; and their radiographs as the model sees them."""
    refuse_known(searcher, valid.cases)
    read, _ = predict_studies(searcher, valid)
    readings += read
    return (
        [case for one in read for case in one.cases],
        np.concatenate([one.embeddings for one in read]),
        np.concatenate([one.classifier for one in read]),
    )


def _by_image(seen: Seen, rules: Rules, recipe: Recipe) -> dict[str, float]:
    """The report's figures: the embedding's loss, and accuracy, error and kappa of the classifier by image."""
    cases, embeddings, probabilities = seen
    calls = Predictor(probabilities, probabilities > rules.classifier_threshold)
    found = measure(np.array([case.label for case in cases]), calls)
    accuracy = float(found["accuracy"][0])
    loss = embedding_loss(embeddings, cases, recipe)
    return {"loss": loss, "accuracy": accuracy, "error": 1 - accuracy, "kappa": float(found["kappa"][0])}


def _mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([of_fold[name] for of_fold in figures])) for name in figures[0]}


def _data_sha256(collections: Sequence[Collection]) -> str:
    """What the collections list, and where lesions are; radiographs are checked when a model is made of them.

    A path begins below the folder that all radiographs of its collection lie in, so where that is, and where a case
    table that lists them is, do not matter.
    """
    found = hashlib.sha256()
    for number, c in enumerate(collections):
        places = [os.path.normpath(c.root.absolute() / x.case) for x in c.cases]
        above = os.path.commonpath([Path(place).parent for place in places])
        for line in sorted(
            f"{number},{os.path.relpath(place, above)},{x.label},{x.patient},{x.study},{x.part},{x.split},{boxes}\n"
            for place, x, boxes in zip(places, c.cases, boxes_of(c), strict=True)
        ):
            found.update(line.encode(errors="surrogateescape"))
    return found.hexdigest()
