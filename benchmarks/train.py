"""A training step, images a second: the loop of mura-search against a plain PyTorch loop; and its wait for data.

    python benchmarks/train.py [FOLDER] [--backbone densenet169] [--size 320] [--batch 8] [--steps 4] [--runs 3]

FOLDER is a collection (default: synthetic radiographs are drawn). Both train the same network from random weights with
the same batch, AdamW and a cross-entropy; the plain one in float32 with a DataLoader that decodes files, as most
scripts do. Each side runs in a process of its own, in turn, on the GPU where there is one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from benchmarks._timing import alternate, machine, ratio, show
from index.case import Case
from retrieval.datasets.collection import read_collection
from retrieval.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from retrieval.synthetic.dataset import write_collection
from training.data.dataset import load_training_set
from training.data.loader import Feed
from training.data.sampler import batches
from training.loop.checkpoint import State, stages_of
from training.loop.cost_estimate import try_step
from training.loop.objective import Objective
from training.loop.trainer import keep_memory
from training.model.backbone import load_backbone
from training.model.siamese import Siamese
from training.recipe import Recipe


class Files(Dataset[tuple[Tensor, float]]):
    """Radiographs that are decoded when they are needed, as in a plain script."""

    def __init__(self, cases: Sequence[Case], size: int) -> None:
        self.cases, self.size = cases, size

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, row: int) -> tuple[Tensor, float]:
        image = cv2.imread(self.cases[row].path, cv2.IMREAD_COLOR)
        assert image is not None
        picture = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        pixels = torch.from_numpy(np.ascontiguousarray(picture[:, :, ::-1])).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
        return (pixels - mean) / std, float(self.cases[row].label)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def finished(seconds_from: float) -> float:
    """Seconds since `started`, when the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - seconds_from


def plain(recipe: Recipe, cases: Sequence[Case], steps: int) -> dict[str, float]:
    backbone, channels = load_backbone(recipe.backbone, "")
    network = Siamese(backbone, channels, recipe.dimension, recipe.hidden).to(device()).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loader = DataLoader(
        Files(cases, recipe.size),
        recipe.batch,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        pin_memory=device().type == "cuda",
    )
    taken, waited, began, asked = 0, 0.0, 0.0, 0.0
    while taken <= steps:
        for pictures, labels in loader:
            if taken == 1:  # the first step is not counted
                began, waited = time.perf_counter(), 0.0
            elif taken > 1:
                waited += time.perf_counter() - asked
            loss = binary_cross_entropy_with_logits(network(pictures.to(device())).logits, labels.to(device()).float())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            taken += 1
            if taken > steps:
                break
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # else the time of computing would look like waiting
            asked = time.perf_counter()
    seconds = finished(began)
    return {"rate": steps * recipe.batch / seconds, "waiting": waited / seconds}


def ours(recipe: Recipe, folder: Path, cache: Path, steps: int) -> dict[str, float]:
    """The loop of `training.loop.trainer`, with every loss of a default run: it does more than the plain one."""
    keep_memory()
    data, _ = load_training_set([read_collection(folder)], recipe.preprocessing, cache=cache)
    backbone, channels = load_backbone(recipe.backbone, "")
    network = Siamese(backbone, channels, recipe.dimension, recipe.hidden)
    network.to(device(), memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    precision = try_step(network, recipe, device()).precision
    (stage,) = stages_of(recipe)
    state = State(network, recipe, 0, steps)
    objective = Objective(data, recipe, stage, device())
    rows = list(batches(data.cases, recipe.identities, recipe.images, np.random.default_rng(0)))
    rows = (rows * (1 + steps // len(rows)))[: steps + 1]
    feed = Feed(data, recipe, device())
    began = 0.0
    for number, batch in enumerate(feed.batches(rows, list(range(len(rows))))):
        if number == 1:
            finished(0)
            began, feed.waited = time.perf_counter(), 0.0
        with torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16"):
            output = network(batch.pictures)
        state.advance(torch.stack(list(objective(output, batch).values())).sum())
    seconds = finished(began)
    return {
        "rate": steps * recipe.batch / seconds,
        "waiting": feed.waited / seconds,
        "bf16": float(precision == "bf16"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--backbone", default="densenet169")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    recipe = Recipe(backbone=options.backbone, weights="", size=options.size, identities=2, images=options.batch // 2)
    if options.side == "plain":
        print(json.dumps(plain(recipe, read_collection(options.folder).cases, options.steps)))
        return
    if options.side == "ours":
        print(json.dumps(ours(recipe, options.folder, options.cache, options.steps)))
        return

    machine("torch", "torchvision", "timm")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "phantoms"
        if options.folder is None:
            write_collection(folder, patients=40, seed=0)
        results: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}

        def measured(side: str) -> float:
            words = [f"--{name}={getattr(options, name)}" for name in ("backbone", "size", "batch", "steps")]
            command = [sys.executable, __file__, str(folder), *words, f"--side={side}", f"--cache={temporary}/cache"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr}")
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
            return results[side][-1]["rate"]

        samples, reference = alternate(options.runs, lambda: measured("ours"), lambda: measured("plain"), warm_up=0)
    precision = "bf16" if results["ours"][-1]["bf16"] else "float32"
    print(
        f"{options.backbone} at {options.size} pixels, batches of {options.batch}, {device().type}; ours in {precision}"
    )
    show("mura-search", samples, "images/s")
    show("plain PyTorch", reference, "images/s")
    ratio("mura-search / plain", samples, reference)
    for side, name in (("ours", "mura-search"), ("plain", "plain PyTorch")):
        shares = ", ".join(f"{result['waiting']:.1%}" for result in results[side])
        print(f"{name} waits for data: {shares} of the time")


if __name__ == "__main__":
    main()
