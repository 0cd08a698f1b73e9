"""All that changes while a run trains, saved whole so that a resumed run is the same run."""

import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from index.atomic import whole_file
from training.errors import TrainingError
from training.model.siamese import Siamese
from training.recipe import Recipe

__all__ = ["Stage", "State", "read_tensors", "stages_of", "write_tensors"]

_WARM_UP = 0.1  # share of the steps


@dataclass(frozen=True, slots=True)
class Stage:
    """Some epochs of a run that share a schedule: on crops of side `crop`, or on whole pictures where that is 0."""

    crop: int
    epochs: int
    learning_rate: float
    patience: int


def stages_of(recipe: Recipe) -> list[Stage]:
    """A recipe's stages, in their order."""
    crops = Stage(recipe.crop, recipe.crop_epochs, recipe.crop_learning_rate, 0)
    pictures = Stage(0, recipe.epochs, recipe.learning_rate, recipe.patience)
    return [stage for stage in (crops, pictures) if stage.epochs]


class State:
    """Weights, their moving average, optimiser, schedule, and how far the stage is.

    `number` says which of the recipe's stages it is. `epochs` are the figures of finished epochs, those of earlier
    stages (`before`) among them, `step` the steps done of the unfinished one and `sums` what its losses add up to.
    `best` is the averaged weights of the stage's epoch that held-out patients liked best.
    """

    def __init__(
        self, model: Siamese, recipe: Recipe, number: int, steps: int, before: Sequence[dict[str, float]] = ()
    ) -> None:
        self.model, self.number, self.seed = model, number, recipe.seed
        stages = stages_of(recipe)
        stage = self.stage = stages[number]
        self.average = AveragedModel(model, multi_avg_fn=_moving_average(recipe.averaging), use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in model.backbone.parameters() if p.requires_grad], "lr": stage.learning_rate},
                {"params": model.head.parameters(), "lr": recipe.head_learning_rate},
            ],
            weight_decay=recipe.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, _cosine_with_warm_up(steps * stage.epochs))
        self.epochs = list(before)
        self.last = sum(stage.epochs for stage in stages[: number + 1])
        self.step = 0
        self.sums: dict[str, Tensor] = {}
        self.best: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether the stage has all its epochs, or has not become better for as many as its patience."""
        tired = self.stage.patience and self.best and len(self.epochs) - self.best["epoch"] >= self.stage.patience
        return len(self.epochs) >= self.last or bool(tired)

    @property
    def kept(self) -> Mapping[str, Any]:
        """The weights to keep of the stage: with patience those of its best epoch, else the last average."""
        if self.stage.patience and self.best:
            weights: Mapping[str, Any] = self.best["weights"]
            return weights
        return self.averaged.state_dict()

    @property
    def averaged(self) -> Siamese:
        return cast(Siamese, self.average.module)

    def advance(self, loss: Tensor, average: Callable[[nn.Module], None] = lambda network: None) -> None:
        """One step of the optimiser; `average` is given the network between its gradients and the step."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        average(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        self.step += 1

    def close_epoch(self, figures: dict[str, float], kappa: float | None) -> None:
        """End the epoch with its figures; keep its weights where it was validated better than before."""
        self.epochs.append(figures)
        self.step, self.sums = 0, {}
        if kappa is not None and (self.best is None or kappa > self.best["judged"]):
            weights = {name: value.detach().cpu().clone() for name, value in self.averaged.state_dict().items()}
            self.best = {"epoch": len(self.epochs), "judged": kappa, "weights": weights}

    def save(self, file: Path) -> None:
        """Write everything, with the run's seed and the stage's number."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimiser", "schedule")}
        others = {name: getattr(self, name) for name in ("epochs", "step", "sums", "best", "seed", "number")}
        write_tensors({**parts, **others}, file)

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `save` wrote."""
        for name in ("model", "average", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(saved[name])
        self.epochs, self.step, self.sums, self.best = (saved[name] for name in ("epochs", "step", "sums", "best"))


def write_tensors(content: Mapping[str, Any], file: Path) -> None:
    """Write what `read_tensors` reads: whole and on the disk, or not at all."""
    with whole_file(file) as stream:
        torch.save(content, stream)


def read_tensors(file: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `write_tensors` wrote. Raises TrainingError where it is damaged."""
    try:
        content: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{file} is damaged; remove it, and what it held is trained again") from error
    return content


def _moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """a <- d a + (1 - d) w with d = min(decay, (1 + n) / (10 + n)): a short run is not left with its start."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        n = float(count)
        rest = 1 - min(decay, (1 + n) / (10 + n))
        for a, w in zip(averaged, current, strict=True):
            if a.is_floating_point():
                a.lerp_(w, rest)
            else:
                a.copy_(w)

    return update


def _cosine_with_warm_up(steps: int) -> Callable[[int], float]:
    warm = max(1, round(steps * _WARM_UP))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor
