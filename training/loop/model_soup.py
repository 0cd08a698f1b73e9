"""Several runs from one start become one network: the mean of their weights ("model soups", Wortsman et al. 2022, arXiv
2203.05482).

Runs that differ in what they drew end in one basin where they began with the same pretrained weights and the same head.
There the mean of their weights does about what the mean of their answers would, at the cost of a single network. What
began at random has no basin in common, so it cannot be averaged.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from training.data.dataset import TrainingSet
from training.distributed import World
from training.loop.checkpoint import read_tensors, write_tensors
from training.loop.cost_estimate import Plan
from training.loop.trainer import fit
from training.model.siamese import Siamese
from training.recipe import Recipe
from training.types import Report

__all__ = ["fit_all", "mean_weights", "remove_checkpoints"]

_CHECKPOINT = "checkpoint.pt"


def fit_all(
    start: Siamese,
    learning: TrainingSet,
    holdout: TrainingSet,
    recipe: Recipe,
    plan: Plan,
    *,
    out: Path,
    world: World,
    report: Report,
) -> tuple[list[dict[str, float]], Siamese]:
    """`fit` as often as `recipe.soup` says, each time from `start` with another seed; then the mean of all weights.

    Gives the figures of all epochs, numbered through, and the network. What is done is kept in `out`, and is gone on
    with; see `fit`.
    """
    epochs: list[dict[str, float]] = []
    weights: list[Mapping[str, Tensor]] = []
    for number in range(recipe.soup):
        file = out / f"member-{number + 1}.pt"
        if file.exists():
            member = read_tensors(file)
        else:

            def told(stage: str, done: int, total: int, figures: Mapping[str, float], number: int = number) -> None:
                report(stage, number * total + done, recipe.soup * total, figures)

            figures, model = fit(
                copy.deepcopy(start),
                learning,
                holdout,
                replace(recipe, seed=recipe.seed + number),
                plan,
                checkpoint=out / _CHECKPOINT,
                world=world,
                report=told,
            )
            member = {"epochs": figures, "weights": model.state_dict()}
            if world.leads and recipe.soup > 1:
                write_tensors(member, file)
                (out / _CHECKPOINT).unlink()
        epochs += [{**told, "epoch": len(epochs) + n} for n, told in enumerate(member["epochs"], 1)]
        weights.append(member["weights"])
    model = copy.deepcopy(start).cpu().eval()
    model.load_state_dict(mean_weights(weights))
    return epochs, model


def mean_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several state dicts, in double precision; what is no floating-point number is the first one's."""
    return {
        name: torch.stack([w[name].double() for w in weights]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in weights[0].items()
    }


def remove_checkpoints(out: Path) -> None:
    """Remove what `fit_all` kept in `out`."""
    for file in (out / _CHECKPOINT, *out.glob("member-*.pt")):
        file.unlink(missing_ok=True)
