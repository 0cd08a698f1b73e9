"""Batches for the network: read ahead by a thread, augmented on the device."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from training.data.augment import augment
from training.data.crops import windows
from training.data.dataset import TrainingSet
from training.recipe import Recipe

__all__ = ["Batch", "Feed", "normalised", "step_seed"]

_AHEAD = 3  # batches


@dataclass(frozen=True, slots=True)
class Batch:
    """B pictures ready for the network, (B, 3, s, s); coverage (B, 1, S/4, S/4) in [0, 1]; and their rows."""

    pictures: Tensor
    coverage: Tensor
    rows: Sequence[int]


class Feed:
    """Gives batches of `data` on a device; `waited` adds up the seconds in which pixels were being waited for.

    With `crop`, the pictures are crops of that side (see `data.crops`), else they are as large as the recipe shows
    them. What is learned at a smaller size serves at a larger one where small things matter (Touvron et al. 2019, arXiv
    1906.06423), and costs less.
    """

    def __init__(self, data: TrainingSet, recipe: Recipe, device: torch.device, crop: int = 0) -> None:
        self.data, self.recipe, self.device, self.crop = data, recipe, device, crop
        self.waited = 0.0

    def batches(self, rows: Sequence[Sequence[int]], seeds: Sequence[int]) -> Iterator[Batch]:
        """The batches of these rows, each augmented by its seed."""
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        with ThreadPoolExecutor(1) as reader:
            try:
                for number, (taken, seed) in enumerate(zip(rows, seeds, strict=True)):
                    for ahead in range(number + len(waiting), min(number + _AHEAD, len(rows))):
                        waiting.append(reader.submit(self._read, rows[ahead], seeds[ahead]))
                    began = time.perf_counter()
                    read = waiting.popleft().result()
                    self.waited += time.perf_counter() - began
                    pictures, coverage = (
                        part.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255 for part in read
                    )
                    if not self.crop and self.recipe.side < pictures.shape[-1]:
                        side = self.recipe.side
                        pictures = interpolate(pictures, (side, side), mode="bilinear", antialias=True)
                    pictures, coverage = augment(pictures, coverage, seed, self.recipe.augmentation)
                    if self.crop:
                        pictures, coverage = _middle(pictures, self.crop), _middle(coverage, self.crop // 4)
                    yield Batch(normalised(pictures, self.recipe), coverage, taken)
            finally:
                reader.shutdown(cancel_futures=True)

    def _read(self, rows: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
        pictures, coverage = self.data.take(rows, np.random.default_rng([seed, 1]))
        if self.crop:
            pictures, coverage = windows(pictures, coverage, self.crop, np.random.default_rng(seed))
        parts = torch.from_numpy(pictures), torch.from_numpy(coverage[:, :, :, None])
        return parts if self.device.type == "cpu" else (parts[0].pin_memory(), parts[1].pin_memory())


def _middle(images: Tensor, side: int) -> Tensor:
    start = (images.shape[-1] - side) // 2
    return images[:, :, start : start + side, start : start + side]


def normalised(pictures: Tensor, recipe: Recipe) -> Tensor:
    """Pictures (B, 1 or 3, S, S) in [0, 1] as the network takes them, (B, 3, S, S), channels last."""
    preprocessing = recipe.preprocessing
    mean, std = (
        torch.tensor(v, device=pictures.device).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.std)
    )
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)  # one grey channel becomes three


def step_seed(*numbers: int) -> int:
    """A seed for one step of one process, the same whenever it is asked for."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
