"""What was tried for the bundled model and left (docs/fracatlas.md), to be tried again; one run of five folds each.

    python benchmarks/tried.py DATA pretext --out OUT
    python benchmarks/tried.py DATA larger --weights FILE --out OUT
    python benchmarks/tried.py DATA taught --teacher OUT/runs/larger --out OUT

All are `after-crops-448` of the grid `fracatlas` but for one thing, and judged as `mura-search experiment` does it; OUT
may be the same folder. "pretext": six epochs before the others, on crops of normal radiographs, tell those with a
simulated fracture from the others. "larger": EfficientNet-Lite2, whose weights are FILE. "taught": on whole pictures a
larger network of the same fold teaches, by its logits (Hinton et al. 2015, arXiv 1503.02531) and by the similarities of
its embeddings (relational distillation: Park et al. 2019, arXiv 1904.05068).
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from simulated import fractured, warped
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import training.fit
from retrieval.bundle import digest_number
from retrieval.collection import read_collection
from retrieval.encoder import Encoder
from training.crops import windows
from training.data import TrainingSet
from training.experiment import run_experiment
from training.feed import Batch, Feed
from training.finish import encode
from training.grid import grid_named, read_grid
from training.model import Output
from training.objective import Objective
from training.recipe import Recipe
from training.state import Stage, stages_of

EPOCHS = 6  # of the pretext
TEMPERATURE = 2.0


class _Pretext(int):
    """The side of a crop, where crops get simulated fractures."""


def with_pretext(recipe: Recipe) -> list[Stage]:
    """Stages of `training.fit`, the pretext before them."""
    return [Stage(_Pretext(recipe.crop), EPOCHS, recipe.crop_learning_rate, 0), *stages_of(recipe)]


class PretextFeed(Feed):
    """Batches of crops of the pretext: a simulated fracture in each of the first half. Others are `Feed`'s."""

    def _read(self, rows: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
        if not isinstance(self.crop, _Pretext):
            return super()._read(rows, seed)
        rng = np.random.default_rng(seed)
        pictures, coverage = self.data.take(rows)
        cut, _ = windows(pictures, 0 * coverage, self.crop, rng)
        reach = int(0.35 * self.crop)
        made = [
            fractured(one, reach, rng) if number < len(cut) // 2 else warped(one, rng) for number, one in enumerate(cut)
        ]
        return (
            torch.from_numpy(np.stack([picture for picture, _ in made])),
            torch.from_numpy(np.stack([covered for _, covered in made])[:, :, :, None]),
        )


_drawn = training.fit._draw


def draw(data: TrainingSet, recipe: Recipe, stage: Stage, rng: np.random.Generator) -> list[list[int]]:
    """The rows of an epoch's batches: in the pretext normal radiographs, as many batches as on crops."""
    if not isinstance(stage.crop, _Pretext):
        return _drawn(data, recipe, stage, rng)
    normal = np.flatnonzero(np.array([case.label for case in data.cases]) == 0)
    return [
        rng.choice(normal, recipe.batch, replace=False).tolist() for _ in range(max(1, len(data.cases) // recipe.batch))
    ]


class TaughtObjective(Objective):
    """On whole pictures also the teacher's logits, softened, and the similarities of its embeddings."""

    teacher: Path
    fold = 0

    def __init__(self, data: TrainingSet, recipe: Recipe, stage: Stage, device: torch.device) -> None:
        super().__init__(data, recipe, stage, device)
        if self.crops:
            return
        TaughtObjective.fold += 1  # folds are trained one after another
        teacher = Encoder.open(self.teacher / f"fold-{self.fold}" / "model")
        if not teacher.bundle.seen() >= {digest_number(case.digest) for case in data.cases}:
            raise SystemExit(f"{teacher.bundle.folder} learned from other radiographs; teach all folds in one go")
        embeddings, logits = encode(teacher, data)
        self.similarities = torch.from_numpy(embeddings @ embeddings.T)
        self.soft = torch.sigmoid(torch.from_numpy(logits) / TEMPERATURE)

    def __call__(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        terms = super().__call__(output, batch)
        if self.crops:
            return terms
        rows = torch.tensor(batch.rows)
        embeddings, logits = output.embeddings.float(), output.logits.float()
        told = TEMPERATURE**2 * binary_cross_entropy_with_logits(logits / TEMPERATURE, self.soft[rows])
        relations = (embeddings @ embeddings.T - self.similarities[rows][:, rows]).square().mean()
        return {
            **terms,
            "triplet": terms["triplet"] + relations,
            "classification": terms["classification"] + told,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("idea", choices=("pretext", "larger", "taught"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="ImageNet weights of EfficientNet-Lite2")
    parser.add_argument("--teacher", type=Path, help="the folder of a run of five folds")
    options = parser.parse_args()
    for idea, name in (("larger", "weights"), ("taught", "teacher")):
        if options.idea == idea and not getattr(options, name):
            parser.error(f"{idea} needs --{name}")
    grid = read_grid(grid_named("fracatlas"))
    (run,) = (run for run in grid.runs if run.name == "after-crops-448")
    recipe = run.recipe
    if options.idea == "larger":
        recipe = replace(recipe, backbone="timm:tf_efficientnet_lite2", weights=str(options.weights))
    replaced: dict[str, dict[str, object]] = {
        "pretext": {"stages_of": with_pretext, "Feed": PretextFeed, "_draw": draw},
        "taught": {"Objective": TaughtObjective},
    }
    if options.teacher:
        TaughtObjective.teacher = options.teacher
    grid = replace(grid, runs=(replace(run, name=options.idea, recipe=recipe),), baseline="", tables=(), figures=())
    with ExitStack() as stack:
        for name, own in replaced.get(options.idea, {}).items():
            stack.enter_context(patch.object(training.fit, name, own))
        run_experiment(
            grid,
            read_collection(options.data),
            [],
            options.out,
            tell=print,
            report=lambda stage, done, total, figures: print(dict(figures), flush=True) if stage == "epoch" else None,
        )


if __name__ == "__main__":
    main()
