"""A share of the embedding for the appearance of a radiograph, beside the share that its label taught.

An embedding that is trained by labels alone says little else: radiographs of one label lie close together, whatever
they show, so that a query's neighbours share its score and not its appearance, and body parts can hardly be recognised.
The pooled features z, of which the embedding is a projection, still show them. So they join the embedding:

    v = [ sqrt(1 - w) A (P z + q) / a ; sqrt(.95 w) S^(-1/2) U (z - m) / s ; sqrt(.05 w) (L z + c) / r ]    e = v / |v|

    P, q     the projection as trained (D, 2C), (D,)
    A        the first D/2 principal axes of P z + q, not centred, which keep nearly all of it
    L, c     layers that recognise part, inversion and turn in z (`training.export.probes`), M of them, at most D/4
    m, U, S  the mean of z over radiographs trained on, the first D/2 - M principal components and their deviations
    a, s, r  the root mean square lengths of what they divide, so that w is the appearance's share of |v|^2

All of it is one projection of z again. S^(-1/2) whitens by half: a component counts by the root of its deviation. The
layers' share is small, enough for other layers to read them off an embedding, and too little to choose its neighbours.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from training.export.probes import AS_IS, Shown, fit_appearance
from training.model.siamese import SiameseHead

__all__ = ["principal_axes", "root_mean_square", "share_with_looks"]

LAYERS = 0.05  # of the appearance's share
_ROUNDING = 1e-6  # of the largest deviation: a component below it is rounding

Floats = NDArray[np.float64]


def share_with_looks(head: SiameseHead, shown: Shown, share: float) -> None:
    """Replace the head's projection by that of the equation above; its classifier has to be trained again.

    shown: radiographs that it was trained on. share: w, from 0 to below 1. If there are fewer components than room for
    them, the other numbers of an embedding are 0.
    """
    z = shown.features[:, AS_IS].astype(np.float64)
    P, q = (part.detach().cpu().numpy().astype(np.float64) for part in (head.projection.weight, head.projection.bias))
    D = len(q)
    A = principal_axes(z @ P.T + q)[1][: D // 2]
    L, c = _layers(shown, D // 4)
    mean = z.mean(0)
    U = _half_whitened(z - mean, D // 2 - len(c))
    weight, bias = np.zeros_like(P), np.zeros_like(q)
    # Label, appearance and layers: each block's first row, its share of |v|^2, its projection and constants.
    for start, of_all, rows, constants in (
        (0, 1 - share, A @ P, A @ q),
        (D // 2, (1 - LAYERS) * share, U, -U @ mean),
        (D - len(c), LAYERS * share, L, c),
    ):
        factor = np.sqrt(of_all) / root_mean_square(z @ rows.T + constants)
        weight[start : start + len(rows)] = factor * rows
        bias[start : start + len(rows)] = factor * constants
    with torch.no_grad():
        head.projection.weight.copy_(torch.from_numpy(weight))
        head.projection.bias.copy_(torch.from_numpy(bias))


def _layers(shown: Shown, most: int) -> tuple[Floats, Floats]:
    """L (M, 2C) and c (M,). Softmax leaves a common part of the scores of body parts open: here they sum to 0."""
    layers = fit_appearance(shown.features, shown.parts)
    weight, bias = layers.weight.astype(np.float64), layers.bias.astype(np.float64)
    parts = slice(0, len(layers.parts))
    weight[parts] -= weight[parts].mean(0)
    bias[parts] -= bias[parts].mean()
    # Polarity and turn first, should there be more parts than room.
    order = np.roll(np.arange(len(bias)), 2)[:most]
    return weight[order], bias[order]


def _half_whitened(rows: Floats, count: int) -> Floats:
    """S^(-1/2) U of centred rows (N, M): their first `count` principal axes, fewer if the rows have no more."""
    deviations, axes = (values[:count] for values in principal_axes(rows))
    kept = deviations > _ROUNDING * max(deviations[0], np.finfo(float).tiny)
    return np.asarray(axes[kept] / np.sqrt(deviations[kept])[:, None])


def principal_axes(rows: Floats) -> tuple[Floats, Floats]:
    """Root mean squares of (N, M) rows along their principal axes, largest first, and the axes (min(N, M), M)."""
    _, singular, axes = np.linalg.svd(rows, full_matrices=False)
    # The sign of an axis is open; its largest entry shall be positive, so that the same data give the same embedding.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    return singular / np.sqrt(len(rows)), axes * signs[:, None]


def root_mean_square(rows: Floats) -> float:
    """Root mean square length of (N, M) rows; 1 where all are 0."""
    return float(np.sqrt((rows**2).sum(1).mean())) or 1.0
