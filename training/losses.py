"""Losses, each beside its equation."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["LOSSES", "batch_hard_triplet", "pairwise_distances", "region_loss", "triplet"]


def pairwise_distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances D[i, j] = |e_i - e_j| between rows of (B, D), shape (B, B).

    The gradient is finite everywhere: where two rows are equal the distance is 0 and so is its gradient.
    """
    squared = (2 - 2 * embeddings @ embeddings.T).clamp_min(0)  # of unit vectors
    zero = squared < 1e-12
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


def triplet(embeddings: Tensor, identities: Tensor, margin: float) -> Tensor:
    """Triplet loss over all valid triplets of a batch (Weinberger and Saul 2009; FaceNet, Schroff et al. 2015).

        L = mean over triplets above 0 of max(0, D(a, p) - D(a, n) + m),   y_a = y_p != y_n,   p != a

    Arguments as below. Triplets that keep the margin do not count, or they would drown the others (Hermans et al.).
    Where a hardest example is often a mislabelled one, as in a study's views without its fracture, this is calmer.
    """
    distances = pairwise_distances(embeddings)
    same = identities[:, None] == identities[None, :]
    positive = same & ~torch.eye(len(identities), dtype=torch.bool, device=same.device)
    valid = positive[:, :, None] & ~same[:, None, :]  # (anchor, positive, negative)
    terms = (distances[:, :, None] - distances[:, None, :] + margin).clamp_min(0) * valid
    return terms.sum() / (terms > 0).sum().clamp_min(1)


def batch_hard_triplet(embeddings: Tensor, identities: Tensor, margin: float) -> Tensor:
    """Triplet loss on each anchor's hardest positive and hardest negative (Hermans et al. 2017, arXiv 1703.07737).

        L = mean_a max(0, max_p D(a, p) - min_n D(a, n) + m),   y_a = y_p != y_n,   p != a

    `embeddings` (B, D) of unit length, `identities` (B,) integers. Anchors without a positive or a negative in the
    batch do not count; with none left the loss is 0, and still has a gradient (of zeros).
    """
    distances = pairwise_distances(embeddings)
    same = identities[:, None] == identities[None, :]
    positive = same & ~torch.eye(len(identities), dtype=torch.bool, device=same.device)
    hardest_positive = distances.masked_fill(~positive, -torch.inf).amax(1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(1)
    valid = positive.any(1) & (~same).any(1)
    if not valid.any():
        return embeddings.sum() * 0
    return (hardest_positive[valid] - hardest_negative[valid] + margin).clamp_min(0).mean()


def region_loss(suspicion: Tensor, coverage: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of the suspicion map against where lesions lie, lesion and background weighing the same.

        L = mean over lesion places of log(1 + e^-s)  +  mean over the others of log(1 + e^s)

    `suspicion` (B, h, w) logits; `coverage` (B, h, w) in [0, 1], the lesion's share of a place; `known` (B,) says for
    which images the lesions are known (a normal one has none). 0 where nothing is known.
    """
    s, t = suspicion[known], coverage[known]
    lesion = (softplus(-s) * t).sum() / t.sum().clamp_min(1)
    background = (softplus(s) * (1 - t)).sum() / (1 - t).sum().clamp_min(1)
    return lesion + background


LOSSES = {"triplet": triplet, "batch-hard": batch_hard_triplet}
