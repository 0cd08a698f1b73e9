"""The second stage: the classifier on frozen embeddings."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from training.model import SiameseHead

__all__ = ["fit_classifier"]


def fit_classifier(head: SiameseHead, embeddings: NDArray[np.float32], labels: Sequence[int], seed: int) -> None:
    """The report's second stage: the classifier's layers on frozen embeddings, abnormal and normal weighing the same.

    Full-batch AdamW; the strong weight decay keeps it close to a linear rule on few data.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in (head.hidden, head.output):
        bound = 1 / math.sqrt(layer.in_features)
        for parameter in layer.parameters():
            with torch.no_grad():
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 2 * bound - bound)
    inputs, targets = torch.from_numpy(embeddings), torch.tensor([float(label) for label in labels])
    weights = torch.where(targets == 1, 0.5 / targets.mean(), 0.5 / (1 - targets.mean()))
    optimiser = torch.optim.AdamW([*head.hidden.parameters(), *head.output.parameters()], lr=3e-3, weight_decay=0.1)
    for _ in range(300):
        loss = binary_cross_entropy_with_logits(head.classify(inputs), targets, weight=weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
