"""Heatmaps of a score by Smooth Grad-CAM++ on the encoder's feature map, in NumPy.

    A       feature map of the radiograph                         (C, h, w)
    S       score: the abnormality logit, its negative, or a cosine
    Y       = exp(S), so that derivatives of every order are powers of the first
    D1..D3  = mean over the copies of exp(S) (dS/dA)^1..3         (C, h, w) each
    alpha   = D2 / (2 D2 + sum_ab A_ab D3)                        (C, h, w)
    w_k     = sum_ij alpha_kij ReLU(D1_kij)                       (C,)
    L       = ReLU(sum_k w_k A_k)                                 (h, w)

alpha is equation 19 of Grad-CAM++ (Chattopadhay et al. 2018, arXiv 1710.11063). Smooth Grad-CAM++ (Omeiza et al. 2019,
arXiv 1908.01224) averages the derivatives over n noisy copies, not the finished maps. Noise relative to the image's
range comes from SmoothGrad (Smilkov et al. 2017, arXiv 1706.03825). The head has a closed form of dS/dA, so only
forward passes are needed.

Differences from the papers:
- Omeiza et al. print D1 as alpha's numerator. Their derivation gives D2, which torchcam also uses.
- exp(S) has second derivatives that powers of dS/dA lack, since the head is not linear in A. Grad-CAM++ neglects them
  for every network, and so does this module.
- Copies may disagree about a derivative's sign. Then D1 can be positive where D3 is negative, and alpha can have a
  pole. Negative D3 count as 0, so alpha is at most 1/2, as it is for a single copy where D1 is positive. Nothing is
  added to the denominator; alpha is 0 where D2 is 0.
- Copies come in pairs, picture + noise and picture - noise, so that the first-order effect of the noise cancels.
- The noise is grey, as radiographs are, and leaves out the black bars of the letterbox.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.encoding.encoder import Encoder
from retrieval.encoding.head import Head
from retrieval.errors import RadiographError
from retrieval.images.preprocessing import Letterbox

__all__ = [
    "TARGETS",
    "Heatmap",
    "Smoothing",
    "explain_class",
    "explain_similarity",
    "undo_letterbox",
    "weigh",
]

TARGETS = ("abnormal", "normal")

Array = NDArray[np.float32]
# From the views' feature maps, one or (mirrored) two of (n, C, h, w), to the copies' scores (n,) and their gradients.
Score = Callable[[Head, Sequence[Array]], tuple[Array, list[Array]]]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How a heatmap is smoothed: averaged over `samples` noisy copies (at least 1), the same for the same `seed`.

    `noise`, in [0, 1], is its standard deviation as a share of the prepared picture's range; 0 gives Grad-CAM++. Each
    copy costs one encoding of the radiograph, and more than two copies change little (docs/heatmap.md).
    """

    samples: int = 2
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.seed < 0 or not 0 <= self.noise <= 1:
            raise ValueError(f"samples is at least 1, seed at least 0 and noise between 0 and 1, not {self}")


SMOOTHING = Smoothing()


@dataclass(frozen=True, slots=True)
class Heatmap:
    """The parts of a radiograph that support a score.

    `values` (H, W) float32 in [0, 1], at the radiograph's own resolution: 1 where support for the target is strongest,
    all 0 where nothing supports it. Each heatmap has its own scale. `target` is one of TARGETS or "similarity".
    """

    values: Array
    target: str
    smoothing: Smoothing


def explain_class(
    encoder: Encoder,
    pixels: NDArray[np.uint8],
    smoothing: Smoothing = SMOOTHING,
    *,
    target: str = "abnormal",
    views: Sequence[Array] | None = None,
) -> Heatmap:
    """Show what raises the abnormality score of a radiograph (H, W) or (H, W, 3) BGR, for any prediction.

    target "normal" shows what lowers the score. With "mirror" in the model's bundle, score and heatmap are averages
    over the radiograph and its mirror image. The same input gives the same heatmap.

    views: the result of `encoder.views` for this prepared radiograph, which saves a forward pass. Raises ValueError for
    an unknown target, RadiographError where the model gives numbers that are not finite.
    """
    if target not in TARGETS:
        raise ValueError(f"target is {' or '.join(TARGETS)}, not {target!r}")
    sign = np.float32(1 if target == "abnormal" else -1)

    def score(head: Head, views: Sequence[Array]) -> tuple[Array, list[Array]]:
        share = sign / np.float32(len(views))
        pooled = [head.apply(maps) for maps in views]
        upstreams = [share * head.logit_upstream(head_output.embeddings) for head_output in pooled]
        gradients = [head.gradient(maps, upstream) for maps, upstream in zip(views, upstreams, strict=True)]
        return share * np.sum([head_output.logits for head_output in pooled], axis=0), gradients

    return Heatmap(_explain(encoder, pixels, smoothing, score, views), target, smoothing)


def explain_similarity(
    encoder: Encoder,
    pixels: NDArray[np.uint8],
    neighbour: Array,
    smoothing: Smoothing = SMOOTHING,
    *,
    views: Sequence[Array] | None = None,
) -> Heatmap:
    """Show which regions of a radiograph make it similar to another, given by its embedding (D,) of unit length.

    The query's pixels with a case's embedding show the regions of the query; the case's pixels with the query's
    embedding show those of the case. Of two identical radiographs the similarity is at its maximum, so that without
    noise the heatmap is empty except for rounding. See also `explain_class`. Raises ValueError for an embedding that
    has another length or is not finite.
    """
    if neighbour.shape != (encoder.head.dimension,) or not np.isfinite(neighbour).all():
        raise ValueError(f"neighbour must be an embedding of {encoder.head.dimension} finite numbers")

    def score(head: Head, views: Sequence[Array]) -> tuple[Array, list[Array]]:
        total = np.sum([head.apply(maps).embeddings for maps in views], axis=0)  # (n, D), as Encoder averages them
        length = np.maximum(np.linalg.norm(total, axis=1, keepdims=True), np.float32(1e-12))
        e = total / length
        cosine = e @ neighbour
        upstream = (neighbour - cosine[:, None] * e) / length
        return cosine, [head.gradient(maps, upstream) for maps in views]

    return Heatmap(_explain(encoder, pixels, smoothing, score, views), "similarity", smoothing)


def weigh(maps: Array, gradients: Array, scores: Array) -> Array:
    """L of the module's formula, (h, w) and never negative, from A (C, h, w), dS/dA (n, C, h, w) and S (n,)."""
    shares = np.exp(scores - scores.max())  # a common factor changes no proportion
    shares /= shares.sum()
    largest = np.abs(gradients).max()
    if largest == 0:
        return np.zeros(maps.shape[1:], np.float32)
    D1, D2, D3 = (np.zeros_like(maps) for _ in range(3))  # of dS/dA / largest, whose cube single precision can hold
    for share, gradient in zip(shares, gradients, strict=True):
        g = gradient / largest
        term = share * g
        D1 += term
        term *= g
        D2 += term
        term *= g
        D3 += term
    denominator = 2 * D2 + np.maximum(largest * maps.sum((1, 2), keepdims=True) * D3, 0)
    alpha = D2 / np.maximum(denominator, np.finfo(np.float32).tiny)  # 0 where D2 is 0
    w = (alpha * np.maximum(D1, 0)).sum((1, 2)) * largest
    return np.maximum(np.tensordot(w, maps, 1), 0)


def undo_letterbox(heat: Array, height: int, width: int, size: int) -> Array:
    """Values (height, width) in [0, 1] from a map (h, w), never negative, of a radiograph letterboxed into size x size.

    Bilinear. Values over the black bars are cut off; the strongest value of the radiograph is 1.
    """
    box = Letterbox.fit(height, width, size)
    peak = heat.max()
    if not peak > 0:
        return np.zeros((height, width), np.float32)
    whole = cv2.resize(heat / peak, (size, size), interpolation=cv2.INTER_LINEAR)
    part = whole[box.top : box.top + box.height, box.left : box.left + box.width]
    values = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    strongest = values.max()  # the peak itself may lie over the bars
    return np.asarray(np.clip(values / strongest, 0, 1) if strongest > 0 else values * 0, np.float32)


def _explain(
    encoder: Encoder, pixels: NDArray[np.uint8], smoothing: Smoothing, score: Score, views: Sequence[Array] | None
) -> Array:
    picture = encoder.prepare(pixels)
    H, W = pixels.shape[:2]
    box = Letterbox.fit(H, W, len(picture))
    clean = encoder.views([picture]) if views is None else views
    noisy = clean
    if smoothing.noise:  # on a CPU, one copy at a time is faster than a batch
        passes = [encoder.views([copy]) for copy in _noisy(picture, box, smoothing)]
        noisy = [np.concatenate(maps) for maps in zip(*passes, strict=True)]
    scores, gradients = score(encoder.head, noisy)
    heats = [weigh(maps[0], gradient, scores) for maps, gradient in zip(clean, gradients, strict=True)]
    heat = heats[0] if len(heats) == 1 else heats[0] + heats[1][:, ::-1]
    if not np.isfinite(heat).all():
        raise RadiographError("the model gives numbers that are not finite for this radiograph, so it has no heatmap")
    return undo_letterbox(heat, H, W, len(picture))


def _noisy(picture: NDArray[np.uint8], box: Letterbox, smoothing: Smoothing) -> list[Array]:
    """Copies of a prepared picture (S, S, 3), float32 and not clipped, in pairs of opposite noise."""
    inside = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    sigma = np.float32(smoothing.noise * np.ptp(picture[inside]))
    generator = np.random.default_rng(smoothing.seed)
    copies: list[Array] = []
    while len(copies) < smoothing.samples:
        grain = sigma * generator.standard_normal((box.height, box.width), np.float32)
        grey = cv2.merge((grain, grain, grain))
        for noise in (grey, -grey):
            copies.append(picture.astype(np.float32))
            copies[-1][inside] += noise
    return copies[: smoothing.samples]
