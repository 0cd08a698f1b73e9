"""The training loop: batch, loss, backward, step; evaluate and save after each epoch."""

import ctypes
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.crops import crop_rows
from training.data.dataset import TrainingSet
from training.data.loader import Feed, step_seed
from training.data.sampler import batches
from training.distributed import World
from training.errors import TrainingError
from training.loop.checkpoint import Stage, State, read_tensors, stages_of
from training.loop.cost_estimate import Plan
from training.loop.objective import Objective
from training.loop.validation import judge
from training.model.siamese import Siamese
from training.recipe import Recipe
from training.signals import Interruption
from training.types import Report

__all__ = ["fit", "keep_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>
_JUDGED_BY = "valid_kappa"


def keep_memory() -> None:
    """Let glibc keep freed memory: handing back and faulting in every activation anew halves the speed on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
            libc.mallopt(option, value)


def fit(
    model: Siamese,
    learning: TrainingSet,
    holdout: TrainingSet,
    recipe: Recipe,
    plan: Plan,
    *,
    checkpoint: Path,
    world: World,
    report: Report,
) -> tuple[list[dict[str, float]], Siamese]:
    """Train `model` in place; gives the figures of each epoch and the network with the averaged weights.

    First on crops, where the recipe has epochs for them, then on whole pictures of the recipe's part, each with a
    schedule of its own. Goes on from `checkpoint` where it exists; it is written after each epoch and when interrupted,
    between two steps. With patience, the weights are those of the epoch on whole pictures with the highest held-out
    kappa. Raises KeyboardInterrupt after saving, and TrainingError where
    the loss is no number.
    """
    model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    saved = _saved(checkpoint, recipe, world)
    epochs: list[dict[str, float]] = []
    with Interruption() as interruption:
        for number, stage in enumerate(stages_of(recipe)):
            if saved and saved["number"] > number:
                continue
            data = learning if stage.crop else learning.of_part(recipe.part)
            steps = plan.crop_steps if stage.crop else plan.steps
            state = State(model, recipe, number, steps, epochs)
            if saved and saved["number"] == number:
                state.load(saved)
            objective = Objective(data, recipe, stage, world.device)
            feed = Feed(data, recipe, world.device, stage.crop)
            while not state.finished:
                epoch = len(state.epochs) + 1
                model.train()
                # Everything random follows from seed, epoch, step and rank, so that a resumed run is the same run.
                drawn = _draw(data, recipe, stage, np.random.default_rng([recipe.seed, epoch]))
                drawn = drawn[world.rank :: world.size][:steps]
                seeds = [step_seed(recipe.seed, epoch, step, world.rank) for step in range(steps)]
                for batch in feed.batches(drawn[state.step :], seeds[state.step :]):
                    torch.manual_seed(seeds[state.step])  # a network's own dropout
                    with torch.autocast(world.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                        output = model(batch.pictures)
                    terms = objective(output, batch)
                    loss = torch.stack([objective.factors[term] * value for term, value in terms.items()]).sum()
                    state.advance(loss, world.average)
                    for term, value in terms.items():
                        state.sums[term] = state.sums.get(term, 0) + value.detach()
                    if world.any(interruption.asked):
                        if world.leads:
                            state.save(checkpoint)
                        raise KeyboardInterrupt
                    report("train", plan.steps_before(epoch - 1) + state.step, plan.all_steps, {})

                means = {term: float(total) / steps for term, total in state.sums.items()}
                if not all(np.isfinite(value) for value in means.values()):
                    raise TrainingError(f"the loss of epoch {epoch} is no number; lower the learning rates")
                # Crops are not what is asked about; judging whole pictures would take longer than learning from crops.
                judged_on = holdout if world.leads and not stage.crop else None
                judged = world.agreed(judge(state.averaged, judged_on, recipe, world.device) if judged_on else {})
                told = {"epoch": float(epoch), "crop": float(stage.crop), **means, **judged}
                state.close_epoch(told, judged.get(_JUDGED_BY))
                if world.leads:
                    state.save(checkpoint)
                report("epoch", epoch, plan.crop_epochs + plan.epochs, state.epochs[-1])
                if world.any(interruption.asked):  # while it was judged or saved
                    raise KeyboardInterrupt
            model.load_state_dict(state.kept)
            epochs = state.epochs
    return epochs, model.cpu().eval()


def _saved(checkpoint: Path, recipe: Recipe, world: World) -> dict[str, Any] | None:
    """What is there to go on from; not of another run of the same soup, killed before its checkpoint was removed."""
    saved = read_tensors(checkpoint, world.device) if checkpoint.exists() else None
    return saved if saved and saved.get("seed") == recipe.seed else None


def _draw(data: TrainingSet, recipe: Recipe, stage: Stage, rng: np.random.Generator) -> list[list[int]]:
    """The rows of an epoch's batches, for all processes together."""
    count = max(1, len(data.cases) // recipe.batch)
    if stage.crop:
        return crop_rows(data, recipe.batch, count, rng)
    if recipe.sampling == "identities":
        return list(batches(data.cases, recipe.identities, recipe.images, rng))
    order = rng.permutation(len(data.cases)).tolist()
    return [order[start : start + recipe.batch] for start in range(0, count * recipe.batch, recipe.batch)]
