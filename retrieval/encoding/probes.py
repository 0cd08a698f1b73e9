"""Body part, polarity and turn of a radiograph, by linear probes of its embedding.

An embedding that was learned to separate fractures has many directions, and these properties are few of them, so a
nearest study can differ in them. Linear layers, learned with the model, measure them (linear probes, Alain and Bengio
2016, arXiv 1610.01644). For an embedding e and body parts p, of which those in K are familiar:

    part       log sum_{p in K} exp(w_p.e + b_p) - log sum_{p not in K} exp(w_p.e + b_p)
    polarity   -(w_i.e + b_i)     the log-odds that the radiograph is not inverted
    turn       -(w_t.e + b_t)     the log-odds that it does not lie on its side

One of the parts is NOTHING, a picture that is not a radiograph. A higher margin is more usual; the limits are learned
with an index (`decision.rules`).
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from retrieval.errors import BundleError
from retrieval.wording import reason_text

__all__ = ["MARGINS", "NOTHING", "Appearance"]

MARGINS = ("part", "polarity", "turn")
NOTHING = "no radiograph"  # a part that is never familiar


@dataclass(frozen=True, slots=True)
class Appearance:
    """`parts` names P body parts; weight (P + 2, D) and bias (P + 2,) are theirs, then inversion's, then turn's."""

    parts: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def parse(cls, data: bytes, dimension: int) -> Self:
        """The layers in the bytes of a safetensors file, for embeddings of `dimension`. Raises BundleError."""
        try:
            tensors = load(data)
            parts = tuple(map(str, json.loads(tensors["parts"].tobytes())))
            weight, bias = (np.ascontiguousarray(tensors[name], np.float32) for name in ("weight", "bias"))
        except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise BundleError(
                f"appearance.safetensors cannot be read ({reason_text(error)}); train or fetch the model again"
            ) from error
        shaped = weight.shape == (len(parts) + 2, dimension) and bias.shape == (len(parts) + 2,)
        if not (shaped and np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise BundleError("appearance.safetensors has layers of another shape; train or fetch the model again")
        return cls(parts, weight, bias)

    def dump(self) -> bytes:
        """The reverse of `parse`."""
        names = np.frombuffer(json.dumps(self.parts).encode(), np.uint8)
        return save({"parts": names, "weight": self.weight, "bias": self.bias})

    def scores(self, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
        """Log-odds (B, P + 2) of embeddings (B, D): each part's up to a constant, inversion's, turn's."""
        return np.asarray(embeddings @ self.weight.T + self.bias, np.float64)

    def margins(self, embeddings: NDArray[np.floating], known: Collection[str]) -> NDArray[np.float64]:
        """The margins (B, 3) in the order of MARGINS, where the parts in `known` are familiar.

        That of the part is infinite where all parts are familiar, or none is.
        """
        scores = self.scores(embeddings)
        usual = np.array([part in known and part != NOTHING for part in self.parts])
        by_part = scores[:, : len(self.parts)]
        margins = np.full((len(scores), 3), np.inf)
        if usual.any() and not usual.all():
            margins[:, 0] = np.logaddexp.reduce(by_part[:, usual], 1) - np.logaddexp.reduce(by_part[:, ~usual], 1)
        margins[:, 1:] = -scores[:, len(self.parts) :]
        return margins

    def part(self, embeddings: NDArray[np.floating]) -> list[str]:
        """The most probable part of each of B embeddings (B, D)."""
        best = self.scores(embeddings)[:, : len(self.parts)].argmax(1)
        return [self.parts[number] for number in best]

    def part_beside(self, embedding: NDArray[np.floating], known: Collection[str]) -> str:
        """The most probable part of an embedding (D,) that is not in `known`, which must not hold all parts."""
        scores = self.scores(embedding[None])[0]
        return max((score, part) for score, part in zip(scores, self.parts, strict=False) if part not in known)[1]
