"""Losses, each beside its equation.

A metric loss takes `embeddings` (B, D) of unit length in float32 or float64, the batch's `pairs` and the recipe, and
gives a number. D(i, j) is the Euclidean distance of two embeddings and s_ij their cosine; a is an anchor, p a positive
of it and n a negative; m is the recipe's margin.

A triplet whose three embeddings are equal does not count: all its distances are 0, their gradients too, and nothing can
be learned from it. Where no triplet counts (one identity, one image of each, all embeddings equal) the loss is 0 with a
gradient of zeros. So a loss of 0 alone does not tell a perfect network from a collapsed one.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from training.model.mining import Pairs, furthest, nearest, semi_hard
from training.recipe import Recipe

__all__ = [
    "LOSSES",
    "batch_hard_triplet",
    "focal_triplet",
    "neighbourhood",
    "pairwise_distances",
    "region_loss",
    "selective_triplet",
    "semi_hard_triplet",
    "triplet",
]


def pairwise_distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances D[i, j] = |e_i - e_j| between rows of (B, D), shape (B, B).

    The gradient is finite everywhere: where two rows are equal the distance is exactly 0 and so is its gradient.
    """
    # Not through the matrix product: autocast would make it bf16, and equal rows would be 1e-3 apart even in float32.
    return torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")


def triplet(embeddings: Tensor, pairs: Pairs, recipe: Recipe) -> Tensor:
    """Triplet loss over all valid triplets of a batch (Weinberger and Saul 2009; FaceNet, Schroff et al. 2015).

        L = mean over triplets above 0 of max(0, D(a, p) - D(a, n) + m)

    Triplets that keep the margin do not count, or they would drown the others (Hermans et al. 2017).
    Where a hardest example is often a mislabelled one, as in a study's views without its fracture, this is calmer.
    Memory grows as B^3: 8 MB a tensor at B = 128.
    """
    D = pairwise_distances(embeddings)
    d_ap, d_an = D[:, :, None], D[:, None, :]  # (anchor, positive, negative)
    terms = (d_ap - d_an + recipe.margin).clamp_min(0)
    valid = pairs.positive[:, :, None] & pairs.negative[:, None, :]
    return _mean(terms, valid & (terms > 0) & _apart(d_ap, d_an))


def semi_hard_triplet(embeddings: Tensor, pairs: Pairs, recipe: Recipe) -> Tensor:
    """Triplet loss on the nearest semi-hard negative of every pair (FaceNet, Schroff et al. 2015, arXiv 1503.03832).

        L = mean over (a, p) of D(a, p) - D(a, n*) + m,   n* = argmin_n D(a, n) with D(a, p) < D(a, n) < D(a, p) + m

    FaceNet takes any semi-hard negative, this the nearest, as Xuan et al. (2020) describe it. A pair without one does
    not count: its negatives either keep the margin already, or are no further than the positive, and those are what the
    method leaves out because they make a network collapse early. FaceNet squares the distances; no loss here does.
    """
    D = pairwise_distances(embeddings)
    negatives = semi_hard(D, pairs, recipe.margin)
    d_an = nearest(D[:, None, :].expand_as(negatives), negatives)
    return _mean(D - d_an + recipe.margin, negatives.any(-1))


def batch_hard_triplet(embeddings: Tensor, pairs: Pairs, recipe: Recipe) -> Tensor:
    """Triplet loss on each anchor's hardest positive and hardest negative (Hermans et al. 2017, arXiv 1703.07737).

        L = mean_a max(0, max_p D(a, p) - min_n D(a, n) + m)

    Here, as in the two losses below, the negative is sought among the other label of the anchor's part, and anchors
    without a positive or a negative in the batch do not count.
    """
    D = pairwise_distances(embeddings)
    d_ap, d_an = furthest(D, pairs.positive), nearest(D, pairs.hard_negative)
    return _mean((d_ap - d_an + recipe.margin).clamp_min(0), _complete(pairs) & _apart(d_ap, d_an))


def focal_triplet(embeddings: Tensor, pairs: Pairs, recipe: Recipe) -> Tensor:
    """Triplet focal loss on the batch-hard pairs (Zhang et al. 2018, IEEE Access 6, 78092-78099).

        L = mean_a max(0, exp(max_p D(a, p) / sigma) - exp(min_n D(a, n) / sigma) + m)

    The exponential weighs hard triplets more: the gradient of a distance d is exp(d / sigma) / sigma times that of
    batch-hard, for sigma = 0.3 from 3 at d = 0 to 2,600 at d = 2. The paper sums over anchors; a mean does not depend
    on the size of the batch. A sigma below 0.023 overflows in float32; recipes take 0.05 or more.
    """
    D = pairwise_distances(embeddings)
    d_ap, d_an = furthest(D, pairs.positive), nearest(D, pairs.hard_negative)
    terms = ((d_ap / recipe.sigma).exp() - (d_an / recipe.sigma).exp() + recipe.margin).clamp_min(0)
    return _mean(terms, _complete(pairs) & _apart(d_ap, d_an))


def selective_triplet(embeddings: Tensor, pairs: Pairs, recipe: Recipe) -> Tensor:
    """Selectively contrastive triplet loss (Xuan et al. 2020, ECCV, arXiv 2007.12749).

        L = mean_a  lambda s_an                              where s_an > s_ap
                    -log(e^s_ap / (e^s_ap + e^s_an))         elsewhere

    s_ap is the cosine of the easiest (most similar) positive and s_an of the hardest (most similar) negative, as in the
    authors' code; lambda is the recipe's `negative_weight`, 1 there. A hard negative is only pushed away, since pulling
    the positive at the same time is what makes training on hard negatives fail. The authors' code also divides the
    cosines of the second case by 0.1 and takes s_an > 0.8 as hard; the paper's equation, followed here, does neither.
    No margin. A loss below 0 is possible, where the hardest negative is more than 90 degrees away.
    """
    D = pairwise_distances(embeddings)
    d_ap, d_an = nearest(D, pairs.positive), nearest(D, pairs.hard_negative)
    s_ap, s_an = 1 - d_ap**2 / 2, 1 - d_an**2 / 2  # of unit vectors
    terms = torch.where(s_an > s_ap, recipe.negative_weight * s_an, softplus(s_an - s_ap))
    return _mean(terms, _complete(pairs) & _apart(d_ap, d_an))


def neighbourhood(embeddings: Tensor, pairs: Pairs, recipe: Recipe) -> Tensor:
    """Neighbourhood components analysis (Goldberger et al. 2004, NIPS 17) on cosines: the vote's own likelihood.

        L = mean_a -log( sum_p e^(s_ap / T) / (sum_p e^(s_ap / T) + sum_n e^(s_an / T)) )

    The quotient is the share of the vote that an anchor's own identity gets when everything else in the batch votes as
    `decision.vote` lets neighbours vote; T is the recipe's `temperature`. The paper has squared distances and no T: of
    unit vectors -D^2 = 2 s - 2, so that is T = 1/2 here. No margin: what is right already is still drawn closer.
    """
    D = pairwise_distances(embeddings)
    counted = _complete(pairs) & ((D != 0) & (pairs.positive | pairs.negative)).any(1)
    same = pairs.positive | ~counted[:, None]  # a row that does not count stays finite, and is 0
    everyone = same | pairs.negative
    scaled = (1 - D**2 / 2) / recipe.temperature
    shares = [scaled.masked_fill(~among, -torch.inf).logsumexp(1) for among in (everyone, same)]
    return _mean(shares[0] - shares[1], counted)


def _complete(pairs: Pairs) -> Tensor:
    """Anchors that have a positive and a negative, (B,)."""
    return pairs.positive.any(1) & pairs.hard_negative.any(1)


def _apart(d_ap: Tensor, d_an: Tensor) -> Tensor:
    """Triplets whose three embeddings are not all equal."""
    return (d_ap != 0) | (d_an != 0)


def _mean(terms: Tensor, counted: Tensor) -> Tensor:
    """The mean of the terms that count, 0 where none does. Any NaN shows: a diverged network must be noticed."""
    return (terms * counted).sum() / counted.sum().clamp_min(1)


def region_loss(suspicion: Tensor, coverage: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of the suspicion map against where lesions lie, lesion and background weighing the same.

        L = mean over lesion positions of log(1 + e^-s)  +  mean over the others of log(1 + e^s)

    `suspicion` (B, h, w) logits; `coverage` (B, h, w) in [0, 1], the lesion's share of a position; `known` (B,) says
    for which images the lesions are known (a normal one has none). 0 if nothing is known.
    """
    s, t = suspicion[known], coverage[known]
    lesion = (softplus(-s) * t).sum() / t.sum().clamp_min(1)
    background = (softplus(s) * (1 - t)).sum() / (1 - t).sum().clamp_min(1)
    return lesion + background


LOSSES: dict[str, Callable[[Tensor, Pairs, Recipe], Tensor]] = {
    "batch-hard": batch_hard_triplet,
    "focal": focal_triplet,
    "neighbourhood": neighbourhood,
    "selective": selective_triplet,
    "semi-hard": semi_hard_triplet,
    "triplet": triplet,
}
