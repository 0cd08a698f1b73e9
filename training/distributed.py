"""The processes of one run: one, or as many as torchrun started, a GPU each."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

__all__ = ["World", "joined", "rank_and_size"]

_GROUPS = itertools.count()

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class World:
    """The `rank` of this process among `size`, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def average(self, network: nn.Module) -> None:
        """Make the gradients of the network their mean over all processes, in one exchange after `backward`.

        DistributedDataParallel would overlap the two, but leaves threads behind that may abort a process at its end.
        """
        if self.size == 1:
            return
        trained = [p for p in network.parameters() if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        mean = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(mean)
        mean /= self.size
        parts = torch.split(mean, [p.numel() for p in trained])
        for p, gradient, part in zip(trained, gradients, parts, strict=True):
            p.grad = gradient.copy_(part.view_as(gradient))  # in its own order of memory

    def agreed(self, value: Value) -> Value:
        """Rank 0's value, in every process: decisions must not differ by a rounding."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        if self.size == 1:
            return flag
        total = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(total)
        return bool(total > 0)


def rank_and_size() -> tuple[int, int]:
    """What torchrun says: which process this is, and of how many. (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK), or be the only one."""
    rank, size = rank_and_size()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else None
    if device:
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device or torch.device("cpu"))
        return
    # Each group has keys of its own in torchrun's store: a process could else find the closed port of a former group.
    store, _, _ = next(distributed.rendezvous("env://", rank, size))  # type: ignore[attr-defined]  # not in its types
    store = distributed.PrefixStore(f"group {next(_GROUPS)}", store)  # type: ignore[attr-defined]  # not in its types
    distributed.init_process_group("nccl" if device else "gloo", store=store, rank=rank, world_size=size)
    try:
        distributed.barrier()  # nobody goes on, and perhaps fails and leaves, before all have joined
        yield World(rank, size, device or torch.device("cpu"))
        distributed.barrier()  # nobody leaves while another still speaks; where one has failed, nobody waits
    finally:
        distributed.destroy_process_group()
