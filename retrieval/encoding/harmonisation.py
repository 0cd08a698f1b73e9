"""Takes back what other processing of a radiograph does to the classifier's logit.

A radiograph that is softer, sharper or noisier than those that a model was trained on lies elsewhere among the
embeddings, and its scores rise or fall with that. Plain measures of the radiograph estimate by how much, as covariates
estimate batch effects (Johnson et al. 2007, ComBat; in images Fortin et al. 2017). With M measures x, in standard
deviations of the training radiographs, and the range l to u that these mostly have:

    h = min(8, [max(0, l - x), max(0, x - u)])        (2M,)
    e' = (e - h W) / |e - h W|                        (D,)

The classifier judges e'. Neighbours are those of e, since a vote among e' is no better (`docs/robustness.md`). A
radiograph within the range keeps its logit. W is learned with the model (`training.export.harmonisation`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from retrieval.errors import BundleError
from retrieval.images.measures import Measures
from retrieval.wording import reason_text

__all__ = ["Harmonisation", "covariates"]

_MOST = 8.0  # standard deviations beyond the range; nothing is known of what lies farther
_LEAST_NOISE = 0.5  # grey levels, so that a radiograph without noise has a logarithm

Floats = NDArray[np.float64]


def covariates(measures: Sequence[Measures]) -> Floats:
    """Sharpness and the logarithm of noise of N radiographs, (N, 2).

    Contrast, range, and the shares of white and black are left out: text and borders change them as processing does.
    """
    return np.array(
        [(measured.sharpness, np.log(measured.noise + _LEAST_NOISE)) for measured in measures], np.float64
    ).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Harmonisation:
    """mean, scale, low and high (M,) of the covariates, low and high in deviations; weight (2M, D)."""

    mean: Floats
    scale: Floats
    low: Floats
    high: Floats
    weight: Floats

    @classmethod
    def parse(cls, data: bytes, dimension: int) -> Self:
        """The layer in the bytes of a safetensors file, for embeddings of `dimension`. Raises BundleError."""
        try:
            tensors = load(data)
            layer = cls(*(np.asarray(tensors[field.name], np.float64) for field in fields(cls)))
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise BundleError(
                f"harmonisation.safetensors cannot be read ({reason_text(error)}); train or fetch the model again"
            ) from error
        M = covariates([]).shape[1]
        shapes = [(M,)] * 4 + [(2 * M, dimension)]
        values = [getattr(layer, field.name) for field in fields(cls)]
        shaped = all(value.shape == shape for value, shape in zip(values, shapes, strict=True))
        if not (shaped and all(np.isfinite(value).all() for value in values) and (layer.scale > 0).all()):
            raise BundleError("harmonisation.safetensors has numbers of another shape; train or fetch the model again")
        return layer

    def dump(self) -> bytes:
        """The reverse of `parse`."""
        return save({field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)})

    def beyond(self, measures: Sequence[Measures]) -> Floats:
        """How far the measures of N radiographs lie below and above the range, h (N, 2M), in deviations."""
        x = (covariates(measures) - self.mean) / self.scale
        return np.concatenate((self.low - x, x - self.high), axis=1).clip(0, _MOST)

    def apply(self, embeddings: NDArray[np.float32], measures: Sequence[Measures]) -> NDArray[np.float32]:
        """Embeddings (N, D) of unit length, as those of radiographs processed as the training radiographs were."""
        h = self.beyond(measures)
        moved = embeddings - h @ self.weight
        moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        return np.where(h.any(1, keepdims=True), moved, embeddings).astype(np.float32)
