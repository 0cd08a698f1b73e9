"""Model soups (Wortsman et al. 2022, arXiv 2203.05482): several runs become one network, the mean of their weights.

Runs that begin with the same pretrained weights and the same head, and differ only in what they draw, end in one basin
of the loss. There the mean of their weights does about as well as the mean of their predictions, at the cost of a
single network. Runs from random weights have no common basin, so they cannot be averaged.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from training.loop.checkpoint import read_tensors, write_tensors
from training.loop.trainer import Trainer
from training.model.siamese import Siamese

__all__ = ["fit_soup", "mean_weights", "remove_checkpoints"]


def fit_soup(start: Siamese, trainer: Trainer) -> tuple[list[dict[str, float]], Siamese]:
    """`Trainer.fit` as often as the recipe's `soup` says, each time from `start` with another seed; then the mean.

    Gives the figures of all epochs, numbered through, and the network. Finished runs are kept beside the checkpoint and
    are not trained again.
    """
    epochs: list[dict[str, float]] = []
    weights: list[Mapping[str, Tensor]] = []
    recipe, soup = trainer.recipe, trainer.recipe.soup
    for number in range(soup):
        file = trainer.checkpoint.with_name(f"member-{number + 1}.pt")
        if file.exists():
            member = read_tensors(file)
        else:

            def report(stage: str, done: int, total: int, figures: Mapping[str, float], number: int = number) -> None:
                trainer.report(stage, number * total + done, soup * total, figures)

            run = replace(trainer, recipe=replace(recipe, seed=recipe.seed + number), report=report)
            figures, model = run.fit(copy.deepcopy(start))
            member = {"epochs": figures, "weights": model.state_dict()}
            if trainer.world.leads and soup > 1:
                write_tensors(member, file)
                trainer.checkpoint.unlink()
        epochs += [{**figures, "epoch": len(epochs) + n} for n, figures in enumerate(member["epochs"], 1)]
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


def remove_checkpoints(checkpoint: Path) -> None:
    """Remove a finished run's checkpoint and its members' files."""
    for file in (checkpoint, *checkpoint.parent.glob("member-*.pt")):
        file.unlink(missing_ok=True)
