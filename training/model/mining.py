"""Which images of a batch are each other's positives and negatives, and which of them are hard.

B images a batch; rows are anchors (a), columns their positives (p) or negatives (n).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Pairs", "furthest", "nearest", "semi_hard", "valid_pairs"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """For each anchor (row), which images (columns) can be its positive or its negative; (B, B) booleans."""

    positive: Tensor
    negative: Tensor
    hard_negative: Tensor  # those of `negative` among which the hardest one is sought


def valid_pairs(identities: Tensor, patients: Tensor) -> Pairs:
    """The pairs of a batch, from `identities` (2 * part + label) and `patients` (numbers), both (B,) integers.

    Positive: another image of the anchor's identity, and of another patient. Views of one patient look alike for
    reasons that have nothing to do with the diagnosis, so they are positives only where the batch has no other patient
    of that identity; else they are neither positive nor negative.
    Negative: an image of another identity, whoever the patient is. Hard negative: the other label of the anchor's part,
    as telling a finger from a shoulder is easy and useless; any negative where the batch has no such image.
    """
    same = identities[:, None] == identities[None, :]
    elsewhere = same & (patients[:, None] != patients[None, :])
    itself = torch.eye(len(identities), dtype=torch.bool, device=identities.device)
    part = identities // 2
    nearby = ~same & (part[:, None] == part[None, :])
    return Pairs(
        positive=torch.where(elsewhere.any(1, keepdim=True), elsewhere, same & ~itself),
        negative=~same,
        hard_negative=torch.where(nearby.any(1, keepdim=True), nearby, ~same),
    )


def furthest(distances: Tensor, among: Tensor) -> Tensor:
    """The largest distance of each row among the marked ones, 0 where none is; (..., B) and (..., B) give (...).

    The hardest positive. Ties share the gradient evenly.
    """
    return distances.masked_fill(~among, 0).amax(-1)


def nearest(distances: Tensor, among: Tensor) -> Tensor:
    """The smallest distance of each row among the marked ones, 0 where none is; (..., B) and (..., B) give (...).

    The hardest negative or the easiest positive. Ties share the gradient evenly.
    """
    return distances.masked_fill(~among, torch.inf).amin(-1).masked_fill(~among.any(-1), 0)


def semi_hard(distances: Tensor, pairs: Pairs, margin: float) -> Tensor:
    """The semi-hard triplets (FaceNet, Schroff et al. 2015): D(a, p) < D(a, n) < D(a, p) + m; booleans (B, B, B).

    In the order anchor, positive, negative: negatives that are further away than the positive, but not by the margin.
    """
    d_ap, d_an = distances[:, :, None], distances[:, None, :]
    return pairs.positive[:, :, None] & pairs.negative[:, None, :] & (d_ap < d_an) & (d_an < d_ap + margin)
