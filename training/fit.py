"""The training loop: batch, loss, backward, step; evaluate and save after each epoch."""

import ctypes
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from retrieval.metrics import Reader, measure
from training.augment import augment
from training.data import TrainingSet
from training.losses import LOSSES, region_loss
from training.model import Siamese
from training.recipe import Recipe
from training.sampler import batches, identity_numbers

__all__ = ["Report", "fit", "keep_memory"]

Report = Callable[[str, int, int, Mapping[str, float]], None]
_WARM_UP = 0.1  # share of the steps
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>


def keep_memory() -> None:
    """Let glibc keep freed memory: handing back and faulting in every activation anew halves the speed on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
            libc.mallopt(option, value)


def fit(
    model: Siamese, learning: TrainingSet, holdout: TrainingSet, recipe: Recipe, *, checkpoint: Path, report: Report
) -> tuple[list[dict[str, float]], Siamese]:
    """Train `model` in place; gives the figures of each epoch and the network with the averaged weights.

    Goes on from `checkpoint` where it exists, and writes it after each epoch.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    decay = get_ema_multi_avg_fn(recipe.averaging)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    kept = cast(Siamese, average.module)
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
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
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
                "triplet": LOSSES[recipe.loss](output.embeddings, identities[rows].to(device), recipe.margin),
                "classification": binary_cross_entropy_with_logits(output.logits, labels[rows].to(device)),
                "regions": region_loss(
                    output.suspicion,
                    adaptive_avg_pool2d(coverage, (h, w)).squeeze(1).to(device),
                    torch.from_numpy(learning.known[rows]).to(device),
                ),
            }
            loss = sum(
                (getattr(recipe, term) * value for term, value in losses.items()), torch.zeros((), device=device)
            )
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
        figures |= _held_out(kept, holdout, recipe, device)
        epochs.append(figures)
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
        report("epoch", epoch, recipe.epochs, figures)
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
    """Held-out figures of an epoch: triplet loss, and AUROC of classifier, vote and suspicion, by image."""
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
        "valid_triplet": float(LOSSES[recipe.loss](embeddings, identities, recipe.margin)),
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
    shares: NDArray[np.float32] = labels[nearest].mean(1, dtype=np.float32)
    return shares
