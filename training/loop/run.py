"""A training run, from labelled radiographs to a model bundle.

OUT/
  recipe.json        the recipe, seed, versions, a fingerprint of the data, and the seconds it has taken so far
  metrics.csv        losses and held-out figures by epoch
  metrics.svg        the same, drawn
  checkpoint.pt      to resume after an interruption; removed when done, as is member-N.pt, a finished run of a soup
  model/             the bundle
  done.json          what `train` gave; a run without it is unfinished
"""

import csv
import io
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from index.atomic import remove_strays, write_whole
from index.case import Case
from retrieval.datasets.splits import draw
from retrieval.decision.rules import Rules
from retrieval.encoding.bundle import Bundle
from training.data.dataset import TrainingSet
from training.distributed import World, joined
from training.errors import TrainingError
from training.export.bundle import BundleExport
from training.loop.cost_estimate import Plan, Trial, make_plan, try_step
from training.loop.metrics_chart import metrics_drawing
from training.loop.model_soup import fit_all, remove_checkpoints
from training.loop.trainer import keep_memory
from training.model.backbone import load_backbone
from training.model.siamese import Siamese
from training.recipe import Recipe, without_removed
from training.types import Report

__all__ = ["RunOptions", "Trained", "plan_run", "recorded_recipe", "train"]

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: the bundle's folder, the figures by epoch, and how far the export differs from torch."""

    model: Path
    epochs: tuple[Mapping[str, float], ...]
    export_difference: float
    rules: Rules
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run is called and continued; what it learns is the recipe's.

    name: of the model; "" for the folder's. provenance: what model.json says of the data. resume: an unfinished run of
    the same recipe and data continues, and a finished one is given as it is. trial: a step of this recipe that was
    measured before. Without `appearance` the bundle cannot tell body part, polarity and rotation, which take as long to
    learn as some epochs.
    """

    name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    trial: Trial | None = None
    appearance: bool = True


def train(
    data: TrainingSet,
    recipe: Recipe,
    out: Path,
    options: RunOptions = RunOptions(),  # frozen
    report: Report = lambda stage, done, total, figures: None,
) -> Trained | None:
    """Train a Siamese encoder and its classifier on `data`, calibrate on held-out patients, and write OUT/model.

    A resumed run has the same result as one that was not interrupted. `report(stage, done, total, figures)` is called
    as work proceeds. Under torchrun every process calls this, and all but the first get None. Raises TrainingError
    where data or weights do not allow it.
    """
    began = time.monotonic()
    keep_memory()
    with joined() as world:
        # Data: what is learned from, and what is held out to validate and to calibrate.
        learning, holdout = divide(data, recipe)
        record = _record(recipe, data, world)
        before = _open(out, record, options.resume)
        if (out / "done.json").exists():
            return _finished(out) if world.leads else None
        if world.leads:
            remove_strays(out)  # of a killed run

        # Model: the network, and what a step of it costs here.
        model = _model(recipe)
        chosen, trial = before.get("precision"), options.trial
        if trial is None or chosen not in (None, trial.precision):
            trial = try_step(model, recipe, world.device, chosen)
        plan = world.agreed(_plan(trial, recipe, world, data.cases))
        record["precision"] = plan.precision
        log = _Log(out, record, began - before.get("seconds", 0.0), report if world.leads else None)
        log.reported("plan", 0, 0, {name: getattr(plan, name) for name in ("seconds", "memory_bytes", "step_seconds")})

        # Loop: batches, losses, steps, and validation after each epoch.
        epochs, model = fit_all(model, learning, holdout, recipe, plan, out=out, world=world, report=log.reported)
    if not world.leads:
        return None
    log.write(epochs)

    # Export: the bundle, checked against torch.
    about = {
        "name": options.name or out.name,
        "backbone": recipe.backbone,
        "dimension": recipe.dimension,
        "test_time": recipe.test_time,
        "provenance": {**record, **options.provenance},
    }
    export = BundleExport(out / "model", data.of_part(recipe.part), recipe, about, options.appearance, report)
    rules, difference = export.write(model, learning)
    seconds = log.seconds
    _write_json(out / "done.json", {"epochs": epochs, "export_difference": difference, "seconds": seconds})
    remove_checkpoints(out)
    return Trained(out / "model", tuple(epochs), difference, rules, seconds)


def plan_run(cases: Sequence[Case], recipe: Recipe) -> Plan:
    """What `train` would take on these radiographs, measured on one batch of random ones; nothing is read or written.

    Raises TrainingError where data or weights do not allow it.
    """
    keep_memory()
    with joined() as world:
        trial = try_step(_model(recipe), recipe, world.device)
        return world.agreed(_plan(trial, recipe, world, cases))


def divide(data: TrainingSet, recipe: Recipe) -> tuple[TrainingSet, TrainingSet]:
    """What is learned from, and what is held out to judge and calibrate, which is of the recipe's part only.

    No patient is on both sides. Raises TrainingError where one side has one label only.
    """
    learning, holdout = (data.rows(np.array(rows)) for rows in _divided(data.cases, recipe))
    return learning, holdout


def _divided(cases: Sequence[Case], recipe: Recipe) -> tuple[list[int], list[int]]:
    """The rows of both sides of `divide`."""
    held = [draw(case.patient, recipe.seed + 1) < recipe.holdout for case in cases]
    of_part = [row for row, case in enumerate(cases) if recipe.part in ("", case.part)]
    learning, holdout = [row for row in range(len(cases)) if not held[row]], [row for row in of_part if held[row]]
    if not of_part:
        there = ", ".join(sorted({case.part for case in cases}))
        raise TrainingError(f"there is no radiograph of {recipe.part} to learn from; there are: {there}")
    for side, what in (([row for row in of_part if not held[row]], "training"), (holdout, "held-out")):
        if len({cases[row].label for row in side}) < 2:
            raise TrainingError(f"the {what} patients have radiographs of one label only; give more data")
    return learning, holdout


def recorded_recipe(out: Path) -> Recipe:
    """The recipe of the run in OUT. Raises TrainingError where there is none."""
    try:
        record = json.loads((out / "recipe.json").read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{out} holds no run to continue; start it without --resume") from error
    return Recipe.from_dict(without_removed(record), str(out / "recipe.json"))


def _plan(trial: Trial, recipe: Recipe, world: World, cases: Sequence[Case]) -> Plan:
    learning, holdout = _divided(cases, recipe)
    return make_plan(
        trial,
        recipe,
        learning=sum(recipe.part in ("", cases[row].part) for row in learning),
        holdout=len(holdout),
        crops=len(learning),
        processes=world.size,
    )


def _model(recipe: Recipe) -> Siamese:
    torch.manual_seed(recipe.seed)
    backbone, channels = load_backbone(recipe.backbone, recipe.weights)
    model = Siamese(backbone, channels, recipe.dimension, recipe.hidden)
    model.frozen_statistics = bool(recipe.weights)
    if recipe.frozen_until:
        try:
            model.freeze_until(recipe.frozen_until)
        except ValueError as error:
            raise TrainingError(f"{error}; see the names with: timm or torchvision's named_parameters()") from error
    return model


def _record(recipe: Recipe, data: TrainingSet, world: World) -> dict[str, Any]:
    """What a run is made of."""
    return {
        "recipe": recipe.to_dict(),
        "pretrained": bool(recipe.weights),
        "images": len(data.cases),
        "studies": len({case.study for case in data.cases}),
        "patients": len({case.patient for case in data.cases}),
        "data_sha256": data.fingerprint(),
        "processes": world.size,
        "versions": {package: version(package) for package in _PACKAGES},
        "python": platform.python_version(),
    }


def _open(out: Path, record: Mapping[str, Any], resume: bool) -> Mapping[str, Any]:
    """Make the folder of the run, or see that it holds this very run; gives the record of that one."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "recipe.json"
    if not file.exists():
        return {}
    before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    same = Recipe(**record["recipe"]).recorded_as(before.get("recipe", {}))
    if not same or before.get("data_sha256") != record["data_sha256"]:
        raise TrainingError(f"{out} holds a run with another recipe or other data; give another --out, or remove it")
    if not resume:
        state = "a finished run" if (out / "done.json").exists() else "an unfinished run"
        raise TrainingError(f"{out} holds {state} of this recipe; go on with --resume, or give another --out")
    # Steps and draws are shared out among the processes.
    if before.get("processes", 1) != record["processes"] and not (out / "done.json").exists():
        raise TrainingError(f"{out} holds a run of {before.get('processes', 1)} processes; go on with as many")
    return before


def _finished(out: Path) -> Trained:
    done = json.loads((out / "done.json").read_text(encoding="utf-8"))
    rules = Bundle.open(out / "model").rules
    assert rules is not None  # written before done.json
    return Trained(
        out / "model", tuple(done["epochs"]), done["export_difference"], Rules.from_dict(rules), done["seconds"]
    )


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_whole(file, (json.dumps(content, indent=1) + "\n").encode())


class _Log:
    """What a run reports: to `report`, and in recipe.json, metrics.csv and metrics.svg.

    `began` is when the run would have begun without interruption. Where `report` is None, another process reports.
    """

    def __init__(self, out: Path, record: Mapping[str, Any], began: float, report: Report | None) -> None:
        self.out, self.record, self.began, self.report = out, record, began, report
        self.epochs: list[Mapping[str, float]] = []
        if (out / "metrics.csv").exists():
            with (out / "metrics.csv").open(newline="", encoding="utf-8") as lines:
                self.epochs = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def reported(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if self.report is None:
            return
        if stage == "epoch":  # an epoch after the last checkpoint of a killed run comes again
            earlier = [epoch for epoch in self.epochs if epoch["epoch"] < done]
            self.write([*earlier, {**figures, "epoch": float(done)}])
        if stage in ("plan", "epoch"):
            _write_json(self.out / "recipe.json", {**self.record, "seconds": self.seconds})
        self.report(stage, done, total, figures)

    def write(self, epochs: Sequence[Mapping[str, float]]) -> None:
        """Write the figures of all epochs so far."""
        self.epochs = list(epochs)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for figures in epochs for name in figures)))
        writer.writeheader()
        writer.writerows(epochs)
        write_whole(self.out / "metrics.csv", text.getvalue().encode())
        write_whole(self.out / "metrics.svg", metrics_drawing(epochs).encode())
