"""A training run, from labelled radiographs to a model bundle.

OUT/
  recipe.json        the recipe, seed, versions, a fingerprint of the data, and the seconds it has taken so far
  metrics.csv        losses and held-out figures by epoch
  metrics.svg        the same, drawn
  checkpoint.pt      to resume after an interruption; removed at the end, as is member-N.pt, a finished run of a soup
  model/             the bundle
  done.json          what `train` gave; a run without this file is unfinished
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
from retrieval.datasets.splits import held_out_patients
from retrieval.decision.rules import Rules
from retrieval.encoding.bundle import Bundle
from training.data.dataset import TrainingSet
from training.data.sampler import batches
from training.distributed import World, joined
from training.errors import TrainingError
from training.export.bundle import BundleExport
from training.loop.cost_estimate import Plan, Trial, make_plan, try_step
from training.loop.metrics_chart import metrics_drawing
from training.loop.model_soup import fit_soup, remove_checkpoints
from training.loop.trainer import Trainer, keep_memory
from training.model.backbone import downloads, load_backbone
from training.model.siamese import Siamese
from training.recipe import Recipe, without_removed
from training.types import Report

__all__ = ["Division", "RunOptions", "Trained", "plan_run", "recorded_recipe", "train"]

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: the bundle's folder, the figures by epoch, and the difference between export and torch."""

    model: Path
    epochs: tuple[Mapping[str, float], ...]
    export_difference: float
    rules: Rules
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run is called and continued; what it learns is in the recipe.

    name: of the model; "" for the folder's. provenance: what model.json says of the data. resume: continue an
    unfinished run of the same recipe and data, and accept a finished one. trial: a step of this recipe that was already
    measured. Without `appearance` the bundle cannot recognise body part, polarity and rotation, which take as long to
    learn as some epochs.
    """

    name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    trial: Trial | None = None
    appearance: bool = True


@dataclass(frozen=True, slots=True)
class Division:
    """The rows of the radiographs to learn from, and of those held out for validation and calibration.

    No patient is on both sides. The held-out ones are of the recipe's part only.
    """

    learning: tuple[int, ...]
    holdout: tuple[int, ...]

    @classmethod
    def of_cases(cls, cases: Sequence[Case], recipe: Recipe) -> "Division":
        """The division of a recipe. Raises TrainingError if a side has one label only, or no batch can be drawn."""
        of_part = [row for row, case in enumerate(cases) if recipe.part in ("", case.part)]
        if not of_part:
            parts = ", ".join(sorted({case.part for case in cases}))
            raise TrainingError(f"there is no radiograph of {recipe.part} to learn from; there are: {parts}")
        held = held_out_patients((cases[row] for row in of_part), recipe.holdout, recipe.seed + 1)
        holdout = tuple(row for row in of_part if cases[row].patient in held)
        labels = {label: {cases[row].patient for row in of_part if cases[row].label == label} for label in (0, 1)}
        for side, patients in (("held-out", held), ("training", {case.patient for case in cases} - held)):
            for label, word in enumerate(("normal", "abnormal")):
                if not labels[label] & patients:
                    raise TrainingError(
                        f"no {word} radiograph is left for the {side} patients: {len(labels[label])} of "
                        f"{len(labels[0] | labels[1])} patients have one, and two are needed; add more data"
                    )
        if recipe.sampling == "identities":  # raises where each part has one label
            learned = [cases[row] for row in of_part if cases[row].patient not in held]
            next(batches(learned, recipe.identities, recipe.images, np.random.default_rng(0)))
        return cls(tuple(row for row, case in enumerate(cases) if case.patient not in held), holdout)

    def text(self, cases: Sequence[Case]) -> str:
        """How many radiographs of each label each side has, in one line."""
        sides = []
        for rows in (self.learning, self.holdout):
            abnormal, patients = sum(cases[row].label for row in rows), len({cases[row].patient for row in rows})
            sides.append(
                f"{len(rows) - abnormal:,} normal and {abnormal:,} abnormal radiographs of {patients:,} patients"
            )
        return f"learning from {sides[0]}; held out for validation and calibration: {sides[1]}"


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
    if data or weights do not allow it.
    """
    began = time.monotonic()
    keep_memory()
    with joined() as world:
        # Data: the radiographs to learn from, and those held out for validation and calibration.
        division = Division.of_cases(data.cases, recipe)
        learning, holdout = (data.rows(np.array(rows)) for rows in (division.learning, division.holdout))
        record = _record(recipe, data, world)
        before = _open(out, record, options.resume)
        if (out / "done.json").exists():
            return _finished(out) if world.leads else None
        if world.leads:
            remove_strays(out)  # of a killed run

        # Model: the network, and the cost of a step on this machine.
        model = _model(recipe, recipe.weights)
        chosen, trial = before.get("precision"), options.trial
        if trial is None or chosen not in (None, trial.precision):
            trial = try_step(model, recipe, world.device, chosen)
        plan = world.agreed(_plan(trial, recipe, world, data.cases, division))
        record["precision"] = plan.precision
        log = _Log(out, record, began - before.get("seconds", 0.0), report if world.leads else None)
        log.reported("plan", 0, 0, {name: getattr(plan, name) for name in ("seconds", "memory_bytes", "step_seconds")})

        # Loop: batches, losses, steps, and validation after each epoch.
        checkpoint = out / "checkpoint.pt"
        trainer = Trainer(
            learning=learning, holdout=holdout, recipe=recipe, plan=plan, checkpoint=checkpoint, world=world,
            report=log.reported,
        )  # fmt: skip
        epochs, model = fit_soup(model, trainer)
    if not world.leads:
        return None
    log.write(epochs)

    # Export: the bundle, checked against torch.
    about = _about(options.name or out.name, recipe, {**record, **options.provenance})
    export = BundleExport(out / "model", data.of_part(recipe.part), recipe, about, options.appearance, report)
    rules, difference = export.write(model, learning)
    seconds = log.seconds
    _write_json(out / "done.json", {"epochs": epochs, "export_difference": difference, "seconds": seconds})
    remove_checkpoints(checkpoint)
    return Trained(out / "model", tuple(epochs), difference, rules, seconds)


def _about(name: str, recipe: Recipe, provenance: dict[str, Any]) -> dict[str, Any]:
    """What model.json says of the model besides its files."""
    settings = {"backbone": recipe.backbone, "dimension": recipe.dimension, "test_time": recipe.test_time}
    return {"name": name, **settings, "provenance": provenance}


def plan_run(cases: Sequence[Case], recipe: Recipe, *, offline: bool = False) -> tuple[Plan, str]:
    """The cost of `train` on these radiographs, measured on one batch of random ones; nothing is read or written.

    Also a note on it, "" as a rule: with `offline` nothing is downloaded, and random weights, which cost the same, take
    the place of those that would be. Raises TrainingError if data or weights do not allow the run.
    """
    keep_memory()
    with joined() as world:
        division = Division.of_cases(cases, recipe)
        weights, note = recipe.weights, ""
        if offline and downloads(recipe.backbone, weights):
            weights, note = "", "planned with random weights of the same shape; the run itself downloads ImageNet's"
        model = _model(recipe, weights)
        return world.agreed(_plan(try_step(model, recipe, world.device), recipe, world, cases, division)), note


def recorded_recipe(out: Path) -> Recipe:
    """The recipe of the run in OUT. Raises TrainingError where there is none."""
    try:
        record = json.loads((out / "recipe.json").read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{out} holds no run to continue; start it without --resume") from error
    return Recipe.from_dict(without_removed(record), str(out / "recipe.json"))


def _plan(trial: Trial, recipe: Recipe, world: World, cases: Sequence[Case], division: Division) -> Plan:
    return make_plan(
        trial,
        recipe,
        learning=sum(recipe.part in ("", cases[row].part) for row in division.learning),
        holdout=len(division.holdout),
        crops=len(division.learning),
        processes=world.size,
    )


def _model(recipe: Recipe, weights: str) -> Siamese:
    torch.manual_seed(recipe.seed)
    backbone, channels = load_backbone(recipe.backbone, weights)
    model = Siamese(backbone, channels, recipe.dimension, recipe.hidden)
    model.frozen_statistics = bool(recipe.weights)
    if recipe.frozen_until:
        try:
            model.freeze_until(recipe.frozen_until)
        except ValueError as error:
            raise TrainingError(f"{error}; see the names with: timm or torchvision's named_parameters()") from error
    return model


def _record(recipe: Recipe, data: TrainingSet, world: World) -> dict[str, Any]:
    """What recipe.json says of a run."""
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
    """Make the folder of the run, or check that it holds this very run; gives its record."""
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
        raise TrainingError(f"{out} holds {state} of this recipe; continue with --resume, or give another --out")
    # Steps and draws are shared out among the processes.
    if before.get("processes", 1) != record["processes"] and not (out / "done.json").exists():
        raise TrainingError(f"{out} holds a run of {before.get('processes', 1)} processes; continue with as many")
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
