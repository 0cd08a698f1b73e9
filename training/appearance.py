"""Learning to read body part, polarity and turn off the embeddings of a trained network (`retrieval.appearance`).

The network is shown its own training radiographs as they are, inverted, and turned by a quarter to either side.
Logistic regression (softmax over parts) with an L2 penalty, on standardised embeddings; their scale is folded into the
weights.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from retrieval.appearance import Appearance
from retrieval.encoder import Encoder
from training.data import TrainingSet

__all__ = ["changed", "fit_appearance", "fit_layer", "learn_appearance"]

MOST = 2_000  # radiographs that are shown in each of four ways; a linear layer needs no more
PENALTY = 10.0  # of the squared weights, half, against the summed loss: scikit-learn's C = 0.1
_AT_ONCE = 4

Pictures = NDArray[np.uint8]


def learn_appearance(
    encoder: Encoder, data: TrainingSet, seed: int, progress: Callable[[int, int], None] = lambda done, of: None
) -> Appearance:
    """Learn the layers of an encoder from radiographs that it was trained on; from at most 2,000 of them."""
    rows = np.random.default_rng(seed).permutation(len(data.cases))[:MOST]
    embeddings, parts, changes = [], [], []
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE].tolist()
        pictures = data.take(some)[0]
        shown = [version for picture in pictures for version in changed(picture)]
        embeddings.append(encoder.encode_prepared(shown).embeddings)
        parts += [data.cases[row].part for row in some for _ in range(4)]
        changes += [*range(4)] * len(some)
        progress(start + len(some), len(rows))
    return fit_appearance(np.concatenate(embeddings), parts, np.array(changes))


def changed(picture: Pictures) -> tuple[Pictures, ...]:
    """A prepared picture (S, S, 1 or 3) as RGB: as it is, inverted, turned to the left and to the right.

    Inversion leaves the letterbox black. CLAHE of the inverted radiograph is the inverse of its CLAHE, nearly.
    """
    rgb = np.broadcast_to(picture, (*picture.shape[:2], 3))
    lit = np.asarray(picture.max(2) > 0)
    inside = np.zeros_like(lit)
    ys, xs = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    if len(ys):
        inside[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] = True
    inverted = np.where(inside[:, :, None], 255 - rgb, rgb).astype(np.uint8)
    return rgb, inverted, np.rot90(rgb), np.rot90(rgb, 3)


def fit_appearance(embeddings: NDArray[np.float32], parts: Sequence[str], changes: NDArray[np.int64]) -> Appearance:
    """Fit the layers to embeddings (N, D); changes (N,) are 0 as is, 1 inverted, 2 and 3 turned.

    Parts are learned from what is not inverted, turned or not; whether inverted from all; whether turned from what is
    not inverted.
    """
    names = tuple(sorted(set(parts)))
    numbers = np.array([names.index(part) for part in parts])
    upright = changes != 1
    layers = [
        fit_layer(embeddings[upright], numbers[upright], len(names)),
        fit_layer(embeddings, (changes == 1).astype(np.int64)),
        fit_layer(embeddings[upright], (changes[upright] >= 2).astype(np.int64)),
    ]
    weight, bias = (np.concatenate(rows).astype(np.float32) for rows in zip(*layers, strict=True))
    return Appearance(names, weight, bias)


def fit_layer(
    embeddings: NDArray[np.float32], classes: NDArray[np.int64], count: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logistic regression on embeddings (N, D): weight (M, D) and bias (M,).

    M is `count` with softmax over classes 0 to `count` - 1, or 1, the log-odds of class 1, where it is 0. The penalty
    is on the weights of standardised embeddings.
    """
    x = torch.from_numpy(embeddings.astype(np.float64))
    mean, scale = x.mean(0), x.std(0, correction=0).clamp_min(1e-9)
    x = (x - mean) / scale
    y = torch.from_numpy(classes)
    weight = torch.zeros(max(count, 1), x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(max(count, 1), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        z = x @ weight.T + bias
        if count:
            fit = cross_entropy(z, y, reduction="sum")
        else:
            fit = binary_cross_entropy_with_logits(z[:, 0], y.double(), reduction="sum")
        value: torch.Tensor = (fit + PENALTY / 2 * (weight**2).sum()) / len(x)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scaled = weight / scale
        return scaled.numpy(), (bias - scaled @ mean).numpy()
