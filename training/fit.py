"""The training loop: batch, loss, backward, step; evaluate and save after each epoch."""

import ctypes
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits

from index.case import Case
from training.crops import crop_rows
from training.data import TrainingSet
from training.errors import TrainingError
from training.feed import Batch, Feed, step_seed
from training.holdout import judge
from training.interruption import Interruption
from training.losses import LOSSES, region_loss
from training.mining import valid_pairs
from training.model import Output, Siamese
from training.plan import Plan
from training.recipe import Recipe
from training.sampler import batches, identity_numbers
from training.state import Stage, State, stages_of
from training.world import World

__all__ = ["Report", "fit", "keep_memory"]

Report = Callable[[str, int, int, Mapping[str, float]], None]
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

    First on crops, where the recipe has epochs for them, then on whole pictures, each with a schedule of its own. Goes
    on from `checkpoint` where it exists; it is written after each epoch and when interrupted, between two steps. With
    patience, the weights are those of the epoch on whole pictures with the highest held-out kappa. Raises
    KeyboardInterrupt after saving, and TrainingError where the loss is no number.
    """
    model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = world.together(model)
    saved = torch.load(checkpoint, map_location=world.device, weights_only=True) if checkpoint.exists() else None
    epochs: list[dict[str, float]] = []
    with Interruption() as interruption:
        for number, stage in enumerate(stages_of(recipe)):
            if saved and saved["stage"] > number:
                continue
            state = State(model, recipe, stage, plan.steps, epochs)
            if saved and saved["stage"] == number:
                state.load(saved)
            losses_of = _Losses(learning, recipe, stage, world.device)
            feed = Feed(learning, recipe, world.device, stage.crop)
            while not state.finished:
                epoch = len(state.epochs) + 1
                model.train()
                # Everything random follows from seed, epoch, step and rank, so that a resumed run is the same run.
                drawn = _draw(learning, recipe, stage, np.random.default_rng([recipe.seed, epoch]))
                drawn = drawn[world.rank :: world.size][: plan.steps]
                seeds = [step_seed(recipe.seed, epoch, step, world.rank) for step in range(plan.steps)]
                for batch in feed.batches(drawn[state.step :], seeds[state.step :]):
                    torch.manual_seed(seeds[state.step])  # a network's own dropout
                    with torch.autocast(world.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                        output = network(batch.pictures)
                    terms = losses_of(output, batch)
                    state.advance(torch.stack([getattr(recipe, term) * value for term, value in terms.items()]).sum())
                    for term, value in terms.items():
                        state.sums[term] = state.sums.get(term, 0) + value.detach()
                    if world.any(interruption.asked):
                        if world.leads:
                            state.save(checkpoint, number)
                        raise KeyboardInterrupt
                    report("train", (epoch - 1) * plan.steps + state.step, plan.epochs * plan.steps, {})

                means = {term: float(total) / plan.steps for term, total in state.sums.items()}
                if not all(np.isfinite(value) for value in means.values()):
                    raise TrainingError(f"the loss of epoch {epoch} is no number; lower the learning rates")
                # Crops are not what is asked about; judging whole pictures would take longer than learning from crops.
                judging = world.leads and not stage.crop
                judged = world.agreed(judge(state.averaged, holdout, recipe, world.device) if judging else {})
                told = {"epoch": float(epoch), "crop": float(stage.crop), **means, **judged}
                state.close_epoch(told, judged.get(_JUDGED_BY))
                if world.leads:
                    state.save(checkpoint, number)
                report("epoch", epoch, plan.epochs, state.epochs[-1])
            model.load_state_dict(state.kept)
            epochs = state.epochs
    return epochs, model.cpu().eval()


class _Losses:
    """The terms of the loss of a batch, by their names in the recipe.

    On crops there are no identities, so no triplets; a crop is abnormal where a lesion lies in it.
    """

    def __init__(self, data: TrainingSet, recipe: Recipe, stage: Stage, device: torch.device) -> None:
        labels = np.array([case.label for case in data.cases], np.float32)
        weights = label_weights(data.cases) if recipe.sampling == "shuffled" else np.ones_like(labels)
        self.recipe, self.crops = recipe, bool(stage.crop)
        self.identities = torch.tensor(identity_numbers(data.cases), device=device)
        self.patients = torch.from_numpy(np.unique([c.patient for c in data.cases], return_inverse=True)[1]).to(device)
        self.labels, self.weights, self.known = (
            torch.from_numpy(np.asarray(values)).to(device) for values in (labels, weights, data.known)
        )

    def __call__(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        rows = torch.tensor(batch.rows, device=self.labels.device)
        embeddings, logits, suspicion = (part.float() for part in output)
        h, w = suspicion.shape[1:]
        coverage = adaptive_avg_pool2d(batch.coverage, (h, w)).squeeze(1)
        regions = region_loss(suspicion, coverage, self.known[rows])
        if self.crops:
            inside = (batch.coverage.flatten(1).amax(1) > 0.5).float()
            classification = binary_cross_entropy_with_logits(logits, inside)
            return {"triplet": torch.zeros_like(regions), "classification": classification, "regions": regions}
        pairs = valid_pairs(self.identities[rows], self.patients[rows])
        return {
            "triplet": LOSSES[self.recipe.loss](embeddings, pairs, self.recipe),
            "classification": binary_cross_entropy_with_logits(logits, self.labels[rows], weight=self.weights[rows]),
            "regions": regions,
        }


def label_weights(cases: Sequence[Case]) -> NDArray[np.float32]:
    """MURA's weights of the cross-entropy (N,): within a part, a label weighs the share of the other one, times 2."""
    of_identity = np.array(identity_numbers(cases))
    counts = np.bincount(of_identity, minlength=int(of_identity.max()) // 2 * 2 + 2)
    both = counts[of_identity] + counts[of_identity ^ 1]
    return np.asarray(2 * counts[of_identity ^ 1] / both, np.float32)


def _draw(data: TrainingSet, recipe: Recipe, stage: Stage, rng: np.random.Generator) -> list[list[int]]:
    """The rows of an epoch's batches, for all processes together."""
    count = max(1, len(data.cases) // recipe.batch)
    if stage.crop:
        return crop_rows(data, recipe.batch, count, rng)
    if recipe.sampling == "identities":
        return list(batches(data.cases, recipe.identities, recipe.images, rng))
    order = rng.permutation(len(data.cases)).tolist()
    return [order[start : start + recipe.batch] for start in range(0, count * recipe.batch, recipe.batch)]
