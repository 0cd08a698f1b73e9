"""Learning the layers that recognise body part, polarity and turn in an embedding (`retrieval.encoding.probes`).

They learn from training radiographs as they are, inverted, turned by a quarter to either side, and spoilt so that they
show none any more (`training.data.outliers`): logistic regression (softmax over parts and none) with an L2 penalty, on
standardised vectors, whose scale is folded into the weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from retrieval.encoding.encoder import Encoder
from retrieval.encoding.probes import NOTHING, Appearance
from training.data.dataset import TrainingSet
from training.data.outliers import inside, spoilt

__all__ = ["Shown", "changed", "fit_appearance", "fit_layer", "show"]

MOST = 2_000  # radiographs that are shown; a linear layer needs no more
PENALTY = 10.0  # of the squared weights, half, against the summed loss: scikit-learn's C = 0.1
STEADY = 0.1  # of the root mean square deviation: a number that varies less is not scaled up, so that it cannot decide
AS_IS, INVERTED, LEFT, RIGHT, SPOILT = range(5)
_AT_ONCE = 4

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shown:
    """Pooled features z (N, 5, 2C) of N radiographs, as they are, inverted, turned left, right, and spoilt; N parts."""

    features: NDArray[np.float32]
    parts: tuple[str, ...]


def show(
    encoder: Encoder, data: TrainingSet, seed: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Shown:
    """Show an encoder radiographs that it was trained on, at most 2,000 of them, drawn by seed, in five ways each."""
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(data.cases))[:MOST]
    features = []
    for start in range(0, len(rows), _AT_ONCE):
        batch = rows[start : start + _AT_ONCE].tolist()
        ways = [way for picture in data.take(batch)[0] for way in (*changed(picture), spoilt(picture, generator))]
        z, _ = encoder.head.pool(encoder.maps(ways))
        features.append(z.reshape(len(batch), -1, z.shape[1]))
        progress(start + len(batch), len(rows))
    return Shown(np.concatenate(features), tuple(data.cases[row].part for row in rows))


def changed(picture: Pictures) -> tuple[Pictures, ...]:
    """A prepared picture (S, S, 1 or 3) as RGB: as it is, inverted, turned to the left and to the right.

    Inversion leaves the letterbox black. CLAHE of the inverted radiograph is the inverse of its CLAHE, nearly.
    """
    rgb = np.broadcast_to(picture, (*picture.shape[:2], 3))
    inverted, within = rgb.copy(), inside(picture)
    inverted[within] = 255 - rgb[within]
    return rgb, inverted, np.rot90(rgb), np.rot90(rgb, 3)


def fit_appearance(vectors: NDArray[np.float32], parts: Sequence[str]) -> Appearance:
    """Fit the layers to vectors (N, 5, M), embeddings or features, of N radiographs of these parts, as `show` has them.

    Parts, and none, are learned from what is not inverted; whether inverted from all radiographs; whether turned from
    those that are not inverted.
    """
    names = (*sorted(set(parts)), NOTHING)
    N = len(vectors)
    numbers = np.repeat([[names.index(part)] for part in parts], 4, axis=1)
    numbers[:, -1] = len(names) - 1

    def rows(*ways: int) -> NDArray[np.float32]:
        return vectors[:, ways].reshape(N * len(ways), -1)

    layers = [
        fit_layer(rows(AS_IS, LEFT, RIGHT, SPOILT), numbers.ravel(), len(names)),
        fit_layer(rows(AS_IS, INVERTED, LEFT, RIGHT), np.tile([0, 1, 0, 0], N)),
        fit_layer(rows(AS_IS, LEFT, RIGHT), np.tile([0, 1, 1], N)),
    ]
    weight, bias = (np.concatenate(values).astype(np.float32) for values in zip(*layers, strict=True))
    return Appearance(names, weight, bias)


def fit_layer(
    embeddings: NDArray[np.float32], classes: NDArray[np.int64], count: int = 0, penalty: float = PENALTY
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logistic regression on embeddings (N, D): weight (M, D) and bias (M,).

    M is `count` with softmax over classes 0 to `count` - 1, or 1, the log-odds of class 1, where it is 0. The penalty
    is on the weights of standardised embeddings.
    """
    x = torch.from_numpy(embeddings.astype(np.float64))
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = scale.clamp_min(max(STEADY * float((scale**2).mean().sqrt()), 1e-9))
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
        value: torch.Tensor = (fit + penalty / 2 * (weight**2).sum()) / len(x)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scaled = weight / scale
        return scaled.numpy(), (bias - scaled @ mean).numpy()
