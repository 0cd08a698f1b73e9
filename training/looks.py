"""A share of the embedding for what a radiograph looks like, beside what its label taught.

Trained by labels alone, an embedding comes to tell little else: radiographs of one label lie close together, whatever
they show, so that studies are found which have the query's score and not its looks, and body parts are hardly told
apart. The pooled features z, of which the embedding is a projection, still tell. So their principal components join it:

    v = [ sqrt(1 - w) A (P z + q) / a ; sqrt(w) S^(-1/2) U (z - m) / s ]        e = v / |v|

    P, q     the projection as trained (D, 2C), (D,)
    A        the first D/2 principal axes of P z + q, not centred, which keep nearly all of it
    m, U, S  the mean of z over radiographs trained on, the first D/2 principal components and their standard deviations
    a, s     the root mean square lengths of what they divide, so that w is the looks' share of |v|^2

All of it is one projection of z again. S^(-1/2) whitens by half: a component counts by the root of its deviation.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.encoder import Encoder
from training.data import TrainingSet
from training.model import SiameseHead

__all__ = ["pooled_features", "share_with_looks"]

MOST = 2_000  # radiographs whose features are decomposed
_AT_ONCE = 16
_NOTHING = 1e-6  # of the largest deviation: a component below it is rounding

Floats = NDArray[np.float64]


def pooled_features(encoder: Encoder, data: TrainingSet, seed: int) -> NDArray[np.float32]:
    """z (N, 2C) of at most 2,000 of the radiographs, drawn by seed."""
    rows = np.random.default_rng(seed).permutation(len(data.cases))[:MOST]
    found = []
    for start in range(0, len(rows), _AT_ONCE):
        pictures = data.take(rows[start : start + _AT_ONCE].tolist())[0]
        rgb = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
        z, _ = encoder.head.pool(encoder.maps(list(rgb)))
        found.append(z)
    return np.concatenate(found)


def share_with_looks(head: SiameseHead, features: NDArray[np.float32], share: float) -> None:
    """Replace the head's projection by that of the equation above; its classifier has to be trained anew.

    features: (N, 2C) of radiographs that it was trained on. share: w, from 0 to below 1. Where there are fewer than D/2
    components, the other numbers of an embedding are 0.
    """
    z = features.astype(np.float64)
    P, q = (part.detach().cpu().numpy().astype(np.float64) for part in (head.projection.weight, head.projection.bias))
    D = len(q)
    label = z @ P.T + q
    axes = _axes(label)[1][: D // 2]
    A = axes / _length(label @ axes.T)
    mean = z.mean(0)
    deviations, components = _axes(z - mean)
    kept = deviations[: D // 2] > _NOTHING * max(deviations[0], np.finfo(float).tiny)
    U = components[: D // 2][kept] / np.sqrt(deviations[: D // 2][kept])[:, None]
    U /= _length((z - mean) @ U.T)
    weight, bias = np.zeros_like(P), np.zeros_like(q)
    weight[: len(A)], bias[: len(A)] = np.sqrt(1 - share) * A @ P, np.sqrt(1 - share) * A @ q
    looks = slice(D // 2, D // 2 + len(U))
    weight[looks], bias[looks] = np.sqrt(share) * U, -np.sqrt(share) * U @ mean
    with torch.no_grad():
        head.projection.weight.copy_(torch.from_numpy(weight))
        head.projection.bias.copy_(torch.from_numpy(bias))


def _axes(rows: Floats) -> tuple[Floats, Floats]:
    """Root mean squares of (N, M) rows along their principal axes, largest first, and the axes (min(N, M), M)."""
    _, singular, axes = np.linalg.svd(rows, full_matrices=False)
    # The sign of an axis is open; its largest entry shall be positive, so that the same data give the same embedding.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    return singular / np.sqrt(len(rows)), axes * signs[:, None]


def _length(rows: Floats) -> float:
    """Root mean square length of (N, M) rows; 1 where all are 0."""
    return float(np.sqrt((rows**2).sum(1).mean())) or 1.0
