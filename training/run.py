"""A training run, from labelled radiographs to a model bundle.

OUT/
  recipe.json        the recipe, versions, and a fingerprint of the data
  metrics.csv        losses and held-out figures by epoch
  checkpoint.pt      to go on after an interruption; gone when done
  model/             the bundle
"""

import csv
import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.bundle import Bundle, write_bundle
from retrieval.encoder import Encoder
from retrieval.rules import Rules, learn_rules
from retrieval.split import draw
from training.backbone import load_backbone
from training.classifier import fit_classifier
from training.data import TrainingSet
from training.errors import TrainingError
from training.export import check_export, export_encoder
from training.fit import Report, fit, keep_memory
from training.model import Siamese
from training.recipe import Recipe

__all__ = ["Trained", "train"]


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: the bundle's folder, the figures by epoch, and how far the export differs from torch."""

    model: Path
    epochs: tuple[Mapping[str, float], ...]
    export_difference: float
    rules: Rules
    seconds: float


def train(
    data: TrainingSet,
    recipe: Recipe,
    out: Path,
    *,
    name: str = "",
    provenance: Mapping[str, Any] | None = None,
    report: Report = lambda stage, done, total, figures: None,
) -> Trained:
    """Train a Siamese encoder and its classifier on `data`, calibrate on held-out patients, and write OUT/model.

    The same recipe on the same data in the same OUT goes on where it was interrupted. `report(stage, done, total,
    figures)` is called as work proceeds. Raises TrainingError where data or weights do not allow it.
    """
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    keep_memory()
    held = np.array([draw(case.patient, recipe.seed + 1) < recipe.holdout for case in data.cases])
    learning, holdout = data.rows(np.flatnonzero(~held)), data.rows(np.flatnonzero(held))
    for side, what in ((learning, "training"), (holdout, "held-out")):
        if len({case.label for case in side.cases}) < 2:
            raise TrainingError(f"the {what} patients have radiographs of one label only; give more data")

    model = _model(recipe)
    record = _start(out, recipe, data)
    epochs, average = fit(model, learning, holdout, recipe, checkpoint=out / "checkpoint.pt", report=report)
    _write_metrics(out / "metrics.csv", epochs)

    folder = out / "model"
    folder.mkdir(exist_ok=True)
    about = {
        "name": name or out.name,
        "backbone": recipe.backbone,
        "dimension": recipe.dimension,
        "provenance": {**record, **(provenance or {})},
    }
    export_encoder(average, recipe.size, folder / "encoder.onnx")
    learned_from = [case.digest for case in learning.cases]

    def write(rules: Rules | None) -> Bundle:
        average.head.export().save(folder / "head.safetensors")
        about_rules = rules.to_dict() if rules else None
        write_bundle(folder, about=about, preprocessing=recipe.preprocessing, rules=about_rules, seen=learned_from)
        return Bundle.open(folder)

    encoder = Encoder(write(None))
    embeddings = _encode(encoder, data, report)
    fit_classifier(average.head, embeddings[~held], [case.label for case in learning.cases], recipe.seed)
    bundle = write(None)
    logits = Encoder(bundle).head.classify(embeddings)
    rules = learn_rules(data.cases, embeddings, logits, trained_on=bundle.seen())
    bundle = write(rules)
    sample = np.random.default_rng(recipe.seed).permutation(len(data.cases))[:8]
    difference = check_export(average, bundle, _rgb(data.pictures[sample]))
    (out / "checkpoint.pt").unlink(missing_ok=True)
    return Trained(folder, tuple(epochs), difference, rules, time.monotonic() - began)


def _model(recipe: Recipe) -> Siamese:
    backbone, channels = load_backbone(recipe.backbone, recipe.weights)
    model = Siamese(backbone, channels, recipe.dimension, recipe.hidden)
    model.frozen_statistics = bool(recipe.weights)
    if recipe.frozen_until:
        try:
            model.freeze_until(recipe.frozen_until)
        except ValueError as error:
            raise TrainingError(f"{error}; see the names with: timm or torchvision's named_parameters()") from error
    return model


def _start(out: Path, recipe: Recipe, data: TrainingSet) -> dict[str, Any]:
    """Write what the run is made of; refuse a folder that holds another run."""
    fingerprint = hashlib.sha256("".join(sorted(f"{c.digest}{c.label}{c.patient}\n" for c in data.cases)).encode())
    record: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "pretrained": bool(recipe.weights),
        "images": len(data.cases),
        "studies": len({case.study for case in data.cases}),
        "patients": len({case.patient for case in data.cases}),
        "data_sha256": fingerprint.hexdigest(),
        "versions": {p: version(p) for p in ("torch", "torchvision", "timm", "numpy", "opencv-python-headless")},
        "python": platform.python_version(),
    }
    out.mkdir(parents=True, exist_ok=True)
    file = out / "recipe.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if any(before.get(key) != record[key] for key in ("recipe", "data_sha256")):
            raise TrainingError(
                f"{out} holds a run with another recipe or other data; give another --out, or remove it"
            )
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def _encode(encoder: Encoder, data: TrainingSet, report: Report) -> NDArray[np.float32]:
    embeddings = np.empty((len(data.cases), encoder.bundle.dimension), np.float32)
    for start in range(0, len(embeddings), 16):
        chunk = _rgb(data.pictures[start : start + 16])
        embeddings[start : start + 16] = encoder.encode_prepared(list(chunk)).embeddings
        report("encode", min(start + 16, len(embeddings)), len(embeddings), {})
    return embeddings


def _rgb(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


def _write_metrics(file: Path, epochs: Sequence[Mapping[str, float]]) -> None:
    part = file.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(epochs[0]))
        writer.writeheader()
        writer.writerows(epochs)
        lines.flush()
        os.fsync(lines.fileno())
    part.replace(file)
