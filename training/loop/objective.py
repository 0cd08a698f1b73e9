"""What a batch is to become better at: the terms of the loss."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits

from index.case import ABNORMAL, Case
from training.data.dataset import TrainingSet
from training.data.loader import Batch
from training.data.sampler import identity_numbers
from training.loop.checkpoint import Stage
from training.model.losses import LOSSES, region_loss
from training.model.mining import valid_pairs
from training.model.siamese import Output
from training.recipe import Recipe

__all__ = ["Objective", "label_weights"]


class Objective:
    """The terms of the loss of a batch, by their names in the recipe, and the `factors` of their sum.

    On crops there are no identities, so no triplets; a crop is abnormal where a lesion lies in it. To learn that is
    what they are for, so there the classifier always learns, also where it is to wait on whole pictures.
    """

    def __init__(self, data: TrainingSet, recipe: Recipe, stage: Stage, device: torch.device) -> None:
        labels = np.array([case.label for case in data.cases], np.float32)
        weights = label_weights(data.cases) if recipe.sampling == "shuffled" else np.ones_like(labels)
        self.recipe, self.crops = recipe, bool(stage.crop)
        self.factors = {term: float(getattr(recipe, term)) for term in ("triplet", "classification", "regions")}
        if self.crops:
            self.factors["classification"] = self.factors["classification"] or 1.0
        self.identities = torch.tensor(identity_numbers(data.cases), device=device)
        self.patients = torch.from_numpy(np.unique([c.patient for c in data.cases], return_inverse=True)[1]).to(device)
        self.labels, self.weights, self.known = (
            torch.from_numpy(np.asarray(values)).to(device) for values in (labels, weights, _known(data))
        )

    def __call__(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        rows = torch.tensor(batch.rows, device=self.labels.device)
        embeddings, logits, suspicion = output
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


def _known(data: TrainingSet) -> NDArray[np.bool_]:
    """Whose regions are supervised (N,): none where no lesion is known, or all that is said were 'nothing here'."""
    abnormal = np.array([case.label == ABNORMAL for case in data.cases])
    return data.known & bool((data.known & abnormal).any())


def label_weights(cases: Sequence[Case]) -> NDArray[np.float32]:
    """MURA's weights of the cross-entropy (N,): within a part, a label weighs the share of the other one, times 2."""
    of_identity = np.array(identity_numbers(cases))
    counts = np.bincount(of_identity, minlength=int(of_identity.max()) // 2 * 2 + 2)
    pairs = counts[of_identity] + counts[of_identity ^ 1]
    return np.asarray(2 * counts[of_identity ^ 1] / pairs, np.float32)
