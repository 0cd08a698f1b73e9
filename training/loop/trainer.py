"""The training loop: batch, loss, backward, step; evaluate and save after each epoch."""

import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path
from threading import Event
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
from training.loop.validation import validate
from training.model.siamese import Siamese
from training.recipe import Recipe
from training.signals import interruptible
from training.types import Report

__all__ = ["Trainer", "keep_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>
_SELECT_BY = "valid_kappa"


def keep_memory() -> None:
    """Let glibc keep freed memory: returning it and faulting in every activation again halves the speed on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
            libc.mallopt(option, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """Trains networks on `learning` by a recipe, and validates them on `holdout`.

    checkpoint: the file that a run is saved in after each epoch and when it is interrupted between two steps, and
    continued from where it exists.
    """

    learning: TrainingSet
    holdout: TrainingSet
    recipe: Recipe
    plan: Plan
    checkpoint: Path
    world: World
    report: Report

    def fit(self, model: Siamese) -> tuple[list[dict[str, float]], Siamese]:
        """Train `model` in place; gives the figures of each epoch and the network with the averaged weights.

        The stages are crops, if the recipe has epochs for them, and whole pictures of the recipe's part. With patience,
        the weights are those of the epoch on whole pictures with the highest held-out kappa. Raises KeyboardInterrupt
        after saving, and TrainingError if the loss is not finite.
        """
        model.to(self.world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its types
        saved = self._saved()
        epochs: list[dict[str, float]] = []
        with interruptible() as interrupted:
            for number, stage in enumerate(stages_of(self.recipe)):
                if saved and saved["number"] > number:
                    continue
                steps = self.plan.crop_steps if stage.crop else self.plan.steps
                state = State(model, self.recipe, number, steps, epochs)
                if saved and saved["number"] == number:
                    state.load(saved)
                self._train_stage(state, steps, interrupted)
                model.load_state_dict(state.kept)
                epochs = state.epochs
        return epochs, model.cpu().eval()

    def _train_stage(self, state: State, steps: int, interrupted: Event) -> None:
        stage, world = state.stage, self.world
        data = self.learning if stage.crop else self.learning.of_part(self.recipe.part)
        objective = Objective(data, self.recipe, stage, world.device)
        feed = Feed(data, self.recipe, world.device, stage.crop)
        while not state.finished:
            epoch = len(state.epochs) + 1
            state.model.train()
            # Everything random follows from seed, epoch, step and rank, so that a resumed run is the same run.
            drawn = _draw(data, self.recipe, stage, np.random.default_rng([self.recipe.seed, epoch]))
            drawn = drawn[world.rank :: world.size][:steps]
            seeds = [step_seed(self.recipe.seed, epoch, step, world.rank) for step in range(steps)]
            for batch in feed.batches(drawn[state.step :], seeds[state.step :]):
                torch.manual_seed(seeds[state.step])  # a network's own dropout
                with torch.autocast(world.device.type, torch.bfloat16, enabled=self.plan.precision == "bf16"):
                    output = state.model(batch.pictures)
                terms = objective(output, batch)
                loss = torch.stack([objective.factors[term] * value for term, value in terms.items()]).sum()
                state.advance(loss, world.average)
                for term, value in terms.items():
                    state.sums[term] = state.sums.get(term, 0) + value.detach()
                if world.any(interrupted.is_set()):
                    self._save(state)
                    raise KeyboardInterrupt
                self.report("train", self.plan.steps_before(epoch - 1) + state.step, self.plan.all_steps, {})
            self._end_epoch(state, epoch, steps)
            if world.any(interrupted.is_set()):  # during validation or saving
                raise KeyboardInterrupt

    def _end_epoch(self, state: State, epoch: int, steps: int) -> None:
        means = {term: float(total) / steps for term, total in state.sums.items()}
        if not all(np.isfinite(value) for value in means.values()):
            raise TrainingError(f"the loss of epoch {epoch} is not a finite number; lower the learning rates")
        crop, validated = state.stage.crop, {}
        if self.world.leads and not crop:  # queries are not crops, and validation costs more than an epoch on crops
            validated = validate(state.averaged, self.holdout, self.recipe, self.world.device)
        validated = self.world.agreed(validated)
        state.close_epoch({"epoch": float(epoch), "crop": float(crop), **means, **validated}, validated.get(_SELECT_BY))
        self._save(state)
        self.report("epoch", epoch, self.plan.crop_epochs + self.plan.epochs, state.epochs[-1])

    def _save(self, state: State) -> None:
        if self.world.leads:
            state.save(self.checkpoint)

    def _saved(self) -> dict[str, Any] | None:
        """The checkpoint; None if it is of another run of the same soup, killed before its checkpoint was removed."""
        saved = read_tensors(self.checkpoint, self.world.device) if self.checkpoint.exists() else None
        return saved if saved and saved.get("seed") == self.recipe.seed else None


def _draw(data: TrainingSet, recipe: Recipe, stage: Stage, rng: np.random.Generator) -> list[list[int]]:
    """The rows of an epoch's batches, for all processes together."""
    count = max(1, len(data.cases) // recipe.batch)
    if stage.crop:
        return crop_rows(data, recipe.batch, count, rng)
    if recipe.sampling == "identities":
        return list(batches(data.cases, recipe.identities, recipe.images, rng))
    order = rng.permutation(len(data.cases)).tolist()
    return [order[start : start + recipe.batch] for start in range(0, count * recipe.batch, recipe.batch)]
