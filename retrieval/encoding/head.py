"""From feature map to embedding and abnormality logit, in NumPy, with the gradients in closed form.

    F        feature map                                (C, h, w), n = h w positions p
    s_p      suspicion at a position  s_p = u.F_p + c
    a_p      attention                a = softmax(s)
    z        pooled features          z = [mean_p F_p ; sum_p a_p F_p]             (2C,)
    e        embedding                e = v / |v|,  v = P z + q                    (D,)
    logit    of the classifier        logit = o.relu(H e + b) + d                  scalar

Mean pooling sees the whole radiograph. Attention pooling (Ilse et al. 2018, arXiv 1802.04712) sees the few suspicious
positions, which the mean would hide: a fracture covers 0.3 % of a radiograph.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from retrieval.errors import BundleError
from retrieval.wording import reason_text

__all__ = ["Head", "Pooled"]

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pooled:
    """The head's output for B feature maps: embeddings (B, D) of unit length, logits (B,), suspicion (B, h, w)."""

    embeddings: Array
    logits: Array
    suspicion: Array


@dataclass(frozen=True, slots=True)
class Head:
    """The head's weights; names and shapes are those in `head.safetensors`.

    attention_weight (C,), attention_bias (1,), projection_weight (D, 2C), projection_bias (D,),
    hidden_weight (M, D), hidden_bias (M,), output_weight (M,), output_bias (1,).
    """

    attention_weight: Array
    attention_bias: Array
    projection_weight: Array
    projection_bias: Array
    hidden_weight: Array
    hidden_bias: Array
    output_weight: Array
    output_bias: Array

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The head in the bytes of a safetensors file. Raises BundleError where a tensor is missing or misshapen."""
        try:
            tensors = load(data)
            head = cls(**{f.name: np.ascontiguousarray(tensors[f.name], np.float32) for f in fields(cls)})
            C, D, M = head.features, head.dimension, head.hidden_bias.size
        except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
            raise BundleError(
                f"head.safetensors is not a head of this version ({reason_text(error)}); train or fetch the model again"
            ) from error
        expected = ((C,), (1,), (D, 2 * C), (D,), (M, D), (M,), (M,), (1,))
        for field, shape in zip(fields(cls), expected, strict=True):
            values = getattr(head, field.name)
            if values.shape != shape or not values.size or not np.isfinite(values).all():
                raise BundleError(
                    f"head.safetensors: {field.name} is not of shape {shape}, empty or not finite; train or fetch the "
                    "model again"
                )
        return head

    def save(self, path: Path) -> None:
        path.write_bytes(save({f.name: np.ascontiguousarray(getattr(self, f.name), np.float32) for f in fields(self)}))

    @property
    def features(self) -> int:
        """C, the channels of the feature map."""
        return int(self.attention_weight.shape[0])

    @property
    def dimension(self) -> int:
        """D, the length of an embedding."""
        return int(self.projection_bias.shape[0])

    def apply(self, maps: Array) -> Pooled:
        """Embeddings, logits and suspicion of feature maps (B, C, h, w)."""
        z, suspicion = self.pool(maps)
        e = self.embed(z)
        return Pooled(e, self.classify(e), suspicion)

    def pool(self, maps: Array) -> tuple[Array, Array]:
        """The pooled features z (B, 2C) and the suspicion (B, h, w) of feature maps (B, C, h, w)."""
        B, C, h, w = maps.shape
        F = maps.reshape(B, C, h * w)
        suspicion = np.matmul(self.attention_weight, F) + self.attention_bias  # (B, n)
        attention = _softmax(suspicion)
        z = np.concatenate((F.mean(2), np.einsum("bcn,bn->bc", F, attention)), 1)
        return z, suspicion.reshape(B, h, w)

    def embed(self, z: Array) -> Array:
        """Embeddings (..., D) of unit length of pooled features (..., 2C)."""
        v = z @ self.projection_weight.T + self.projection_bias
        return np.asarray(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12))

    def classify(self, embeddings: Array) -> Array:
        """Logits (B,) of unit embeddings (B, D)."""
        hidden = np.maximum(embeddings @ self.hidden_weight.T + self.hidden_bias, 0)
        return np.asarray(hidden @ self.output_weight + self.output_bias, np.float32)

    def logit_gradient(self, maps: Array) -> Array:
        """d logit / d F, shape (B, C, h, w)."""
        return self.gradient(maps, self.logit_upstream(self.apply(maps).embeddings))

    def logit_upstream(self, embeddings: Array) -> Array:
        """d logit / d e, shape (B, D)."""
        active = (embeddings @ self.hidden_weight.T + self.hidden_bias) > 0
        return np.asarray((active * self.output_weight) @ self.hidden_weight, np.float32)

    def gradient(self, maps: Array, upstream: Array) -> Array:
        """d (upstream . e) / d F by the chain rule, for `upstream` (B, D); shape (B, C, h, w).

        dv   = (g - (g.e) e) / |v|                      through the normalisation
        dz   = P^T dv                                   split into dz_mean and dz_att
        dF_p = dz_mean / n + a_p dz_att + a_p (dz_att . (F_p - z_att)) u
        """
        B, C, h, w = maps.shape
        F = maps.reshape(B, C, h * w)
        attention = _softmax(np.matmul(self.attention_weight, F) + self.attention_bias)
        z_att = np.einsum("bcn,bn->bc", F, attention)
        v = np.concatenate((F.mean(2), z_att), 1) @ self.projection_weight.T + self.projection_bias
        norm = np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
        e = v / norm
        dv = (upstream - (upstream * e).sum(1, keepdims=True) * e) / norm
        dz = dv @ self.projection_weight
        dz_mean, dz_att = dz[:, :C], dz[:, C:]
        pull = np.einsum("bc,bcn->bn", dz_att, F) - (dz_att * z_att).sum(1, keepdims=True)  # dz_att . (F_p - z_att)
        columns = np.stack((dz_att, np.broadcast_to(self.attention_weight, dz_att.shape)), 2)  # (B, C, 2)
        dF = np.matmul(columns, np.stack((attention, attention * pull), 1))  # both outer products at once
        dF += dz_mean[:, :, None] / (h * w)
        return np.asarray(dF.reshape(B, C, h, w), np.float32)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True), np.float32)
