"""The cost of a run, measured on a few steps before it begins."""

import copy
import resource
import sys
import time
from dataclasses import dataclass, fields

import torch
from torch import nn

from training.errors import TrainingError
from training.model.siamese import Siamese
from training.recipe import Recipe

__all__ = ["Plan", "Trial", "make_plan", "try_step"]

_SMALL = 4  # pictures enough to see which precision is faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one batch of whole pictures of a run's own size took on this machine.

    `memory_bytes` is the most that the process has taken so far, or what the batch took of the GPU.
    """

    device: str
    precision: str
    parameters: int
    trained_parameters: int
    step_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Trial):
    """A run before it begins: a trial, and the counts of each run of a `soup`.

    `steps` are those of an epoch on whole pictures, `crop_steps` of one on crops. `seconds` estimates all steps and
    the validation after each epoch, without early stopping.
    """

    learning: int
    holdout: int
    steps: int
    epochs: int
    crop_steps: int
    crop_epochs: int
    soup: int
    processes: int
    seconds: float

    @property
    def all_steps(self) -> int:
        return self.steps_before(self.crop_epochs + self.epochs)

    def steps_before(self, epoch: int) -> int:
        """The steps of the first so many epochs, crops first."""
        return min(epoch, self.crop_epochs) * self.crop_steps + max(0, epoch - self.crop_epochs) * self.steps


def try_step(model: Siamese, recipe: Recipe, device: torch.device, precision: str | None = None) -> Trial:
    """Try a step on random pictures, in both precisions where the recipe leaves the choice and none was chosen before.

    The model stays as it is: a copy takes the step, as large as the moving average of the weights.
    """
    network = copy.deepcopy(model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its types
    chosen = precision or (recipe.precision if recipe.precision != "auto" else _faster(network, recipe, device))
    _seconds(network, recipe.side, 2, chosen, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = _seconds(network, recipe.side, recipe.batch, chosen, device)
    return Trial(
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU threads",
        precision=chosen,
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        step_seconds=seconds,
        memory_bytes=_memory(device),
    )


def make_plan(trial: Trial, recipe: Recipe, *, learning: int, holdout: int, crops: int = 0, processes: int = 1) -> Plan:
    """The plan of a run whose step was tried.

    `learning` and `holdout` count pictures, `crops` those that crops are cut from. Raises TrainingError where there is
    no batch for each process.
    """
    if processes > 1 and learning // recipe.batch < processes:
        raise TrainingError(
            f"{learning:,} radiographs to learn from are {learning // recipe.batch} batches of {recipe.batch}, too few "
            f"for {processes} processes; start fewer, or one without torchrun"
        )
    steps, crop_steps = (max(1, pictures // recipe.batch // processes) for pictures in (learning, crops))
    return Plan(
        **{field.name: getattr(trial, field.name) for field in fields(Trial)},
        learning=learning,
        holdout=holdout,
        steps=steps,
        epochs=recipe.epochs,
        crop_steps=crop_steps,
        crop_epochs=recipe.crop_epochs,
        soup=recipe.soup,
        processes=processes,
        # A crop costs its share of a picture's pixels; validation is forward only, about a third of a step a picture.
        seconds=recipe.soup
        * trial.step_seconds
        * (
            recipe.epochs * (steps + holdout * (recipe.size / recipe.side) ** 2 / recipe.batch / 3)
            + recipe.crop_epochs * crop_steps * (recipe.crop / recipe.side) ** 2
        ),
    )


def _faster(model: nn.Module, recipe: Recipe, device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    pictures = min(_SMALL, recipe.batch)
    seconds = {}
    for precision in ("float32", "bf16"):
        _seconds(model, recipe.side, pictures, precision, device)  # the first time is slower
        seconds[precision] = _seconds(model, recipe.side, pictures, precision, device)
    return min(seconds, key=lambda precision: seconds[precision])


def _seconds(model: nn.Module, size: int, pictures: int, precision: str, device: torch.device) -> float:
    """Seconds of one step, forward, backward and AdamW with its moments, which moves nothing."""
    model.train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
    inputs = torch.rand(pictures, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = model(inputs)
    (output.embeddings.sum() + output.logits.sum() + output.suspicion.sum()).backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
