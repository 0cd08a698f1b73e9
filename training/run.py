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
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from retrieval.bundle import Bundle, write_bundle
from retrieval.encoder import Encoder
from retrieval.metrics import Reader, measure
from retrieval.rules import Rules, learn_rules
from retrieval.split import draw
from training.augment import augment
from training.backbone import load_backbone
from training.data import TrainingSet
from training.errors import TrainingError
from training.export import check_export, export_encoder
from training.losses import batch_hard_triplet, region_loss
from training.model import Siamese, SiameseHead
from training.recipe import Recipe
from training.sampler import batches, identity_numbers

__all__ = ["Trained", "train"]

Report = Callable[[str, int, int, Mapping[str, float]], None]
_WARM_UP = 0.1  # share of the steps


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
    held = np.array([draw(case.patient, recipe.seed + 1) < recipe.holdout for case in data.cases])
    learning, holdout = data.rows(np.flatnonzero(~held)), data.rows(np.flatnonzero(held))
    for part, what in ((learning, "training"), (holdout, "held-out")):
        if len({case.label for case in part.cases}) < 2:
            raise TrainingError(f"the {what} patients have radiographs of one label only; give more data")

    model = _model(recipe)
    record = _start(out, recipe, data)
    epochs, average = _fit(model, learning, holdout, recipe, out / "checkpoint.pt", report)
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
            raise TrainingError(f"{out} holds a run with another recipe or other data; give another --out, or remove it")
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def _fit(
    model: Siamese, learning: TrainingSet, holdout: TrainingSet, recipe: Recipe, checkpoint: Path, report: Report
) -> tuple[list[dict[str, float]], Siamese]:
    """The loop: batch, loss, backward, step; after each epoch evaluate and save. Gives figures and averaged weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=True)
    P, K = recipe.identities, recipe.images
    steps = max(1, len(learning.cases) // (P * K))
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in model.backbone.parameters() if p.requires_grad], "lr": recipe.learning_rate},
            {"params": model.head.parameters(), "lr": recipe.head_learning_rate},
        ],
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine_with_warm_up(steps * recipe.epochs))
    identities = torch.tensor(identity_numbers(learning.cases))
    labels = torch.tensor([float(case.label) for case in learning.cases])
    epochs: list[dict[str, float]] = []
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        for part in ("model", "average", "optimiser", "schedule"):
            {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}[part].load_state_dict(
                saved[part]
            )
        epochs = saved["epochs"]

    for epoch in range(len(epochs) + 1, recipe.epochs + 1):
        # Everything random in an epoch follows from seed and epoch, so that a resumed run is the same run.
        rng = np.random.default_rng([recipe.seed, epoch])
        generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
        model.train()
        sums = {"triplet": 0.0, "classification": 0.0, "regions": 0.0}
        for step, rows in enumerate(batches(learning.cases, P, K, rng), 1):
            pictures, coverage = augment(
                torch.from_numpy(learning.pictures[rows]).permute(0, 3, 1, 2).float() / 255,
                torch.from_numpy(learning.coverage[rows]).unsqueeze(1).float() / 255,
                generator,
            )
            output = model(_normalised(pictures, recipe).to(device, memory_format=torch.channels_last))
            h, w = output.suspicion.shape[1:]
            losses = {
                "triplet": batch_hard_triplet(output.embeddings, identities[rows].to(device), recipe.margin),
                "classification": binary_cross_entropy_with_logits(output.logits, labels[rows].to(device)),
                "regions": region_loss(
                    output.suspicion,
                    adaptive_avg_pool2d(coverage, (h, w)).squeeze(1).to(device),
                    torch.from_numpy(learning.known[rows]).to(device),
                ),
            }
            loss = sum((getattr(recipe, term) * value for term, value in losses.items()), torch.zeros((), device=device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            for term, value in losses.items():
                sums[term] += float(value.detach())
            report("train", (epoch - 1) * steps + step, recipe.epochs * steps, {t: v / step for t, v in sums.items()})

        figures = {"epoch": float(epoch), **{term: value / steps for term, value in sums.items()}}
        figures |= _held_out(average.module, holdout, recipe, device)
        epochs.append(figures)
        report("epoch", epoch, recipe.epochs, figures)
        part = checkpoint.with_suffix(".part")
        torch.save(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "epochs": epochs,
            },
            part,
        )
        part.replace(checkpoint)
    kept: Siamese = average.module
    return epochs, kept.cpu().eval()


def _cosine_with_warm_up(steps: int) -> Callable[[int], float]:
    warm = max(1, round(steps * _WARM_UP))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor


def _normalised(pictures: Tensor, recipe: Recipe) -> Tensor:
    how = recipe.preprocessing
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (how.mean, how.std))
    return (pictures - mean) / std  # one grey channel becomes three here


@torch.inference_mode()
def _held_out(model: Siamese, holdout: TrainingSet, recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Held-out figures of an epoch: the triplet loss over all held-out images and each image's nearest-case accuracy."""
    model.eval()
    outputs = []
    for start in range(0, len(holdout.cases), 32):
        pictures = torch.from_numpy(holdout.pictures[start : start + 32]).permute(0, 3, 1, 2).float() / 255
        output = model(_normalised(pictures, recipe).to(device, memory_format=torch.channels_last))
        outputs.append((output.embeddings.cpu(), output.logits.cpu(), output.suspicion.flatten(1).amax(1).cpu()))
    embeddings, logits, suspicion = (torch.cat(column) for column in zip(*outputs, strict=True))
    labels = np.array([case.label for case in holdout.cases])
    identities = torch.tensor(identity_numbers(holdout.cases))
    return {
        "valid_triplet": float(batch_hard_triplet(embeddings, identities, recipe.margin)),
        "valid_auroc": _auroc(labels, logits.numpy()),
        "valid_vote_auroc": _auroc(labels, _votes(embeddings.numpy(), labels, [c.patient for c in holdout.cases])),
        "valid_suspicion_auroc": _auroc(labels, suspicion.numpy()),
    }


def _auroc(labels: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
    return float(measure(labels, Reader(scores.astype(np.float64), scores > 0))["auroc"][0])


def _votes(embeddings: NDArray[np.float32], labels: NDArray[np.int64], patients: Sequence[str]) -> NDArray[np.float32]:
    """A quick look at neighbourhoods: the share of abnormal among the 9 nearest images of other patients."""
    similarity = embeddings @ embeddings.T
    numbers = np.unique(patients, return_inverse=True)[1]
    similarity[numbers[:, None] == numbers[None, :]] = -np.inf
    nearest = np.argsort(-similarity, 1)[:, :9]
    return labels[nearest].mean(1, dtype=np.float32)


def _encode(encoder: Encoder, data: TrainingSet, report: Report) -> NDArray[np.float32]:
    embeddings = np.empty((len(data.cases), encoder.bundle.dimension), np.float32)
    for start in range(0, len(embeddings), 16):
        chunk = _rgb(data.pictures[start : start + 16])
        embeddings[start : start + 16] = encoder.encode_prepared(list(chunk)).embeddings
        report("encode", min(start + 16, len(embeddings)), len(embeddings), {})
    return embeddings


def _rgb(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))


def fit_classifier(head: SiameseHead, embeddings: NDArray[np.float32], labels: Sequence[int], seed: int) -> None:
    """The report's second stage: the classifier's layers on frozen embeddings, abnormal and normal weighing the same.

    Full-batch AdamW; the strong weight decay keeps it close to a linear rule on few data.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in (head.hidden, head.output):
        bound = 1 / math.sqrt(layer.in_features)
        for parameter in layer.parameters():
            with torch.no_grad():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 2 * bound - bound)
    inputs, targets = torch.from_numpy(embeddings), torch.tensor([float(label) for label in labels])
    weights = torch.where(targets == 1, 0.5 / targets.mean(), 0.5 / (1 - targets.mean()))
    optimiser = torch.optim.AdamW([*head.hidden.parameters(), *head.output.parameters()], lr=3e-3, weight_decay=0.1)
    for _ in range(300):
        loss = binary_cross_entropy_with_logits(head.classify(inputs), targets, weight=weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def _write_metrics(file: Path, epochs: Sequence[Mapping[str, float]]) -> None:
    part = file.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(epochs[0]))
        writer.writeheader()
        writer.writerows(epochs)
        lines.flush()
        os.fsync(lines.fileno())
    part.replace(file)
