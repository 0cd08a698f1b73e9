"""Where the classifier looks in a radiograph, as strong as its probability: one scale for all views and studies.

A view's map is the head's attention above its mean, within the limb, times the view's calibrated probability. So 1 is
the strongest position of a view of probability 1, and a view of probability 0.04 hardly shows. The study's probability
is the mean of its views', so the scale is that of what each view adds to it. A view below the classifier's threshold
has no map unless one is asked for.

Attention points at fractures better and more compactly than Smooth Grad-CAM++ (docs/heatmap.md). A model whose
attention is even has nothing to point with; for it the map is Smooth Grad-CAM++ on the same scale.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retrieval.decision.rules import Rules
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.explain.smooth_grad_cam import Heatmap, Smoothing, explain_class, undo_letterbox
from retrieval.images.limb import limb_mask

__all__ = ["ATTENTION", "attention", "evidence", "evidence_of", "within_limb"]

ATTENTION = "attention"
_EVEN = 1.5  # times the mean attention, below which the strongest position does not stand out

Array = NDArray[np.float32]


def evidence_of(
    encoder: Encoder,
    rules: Rules,
    pixels: NDArray[np.uint8],
    encoded: Encoded,
    *,
    views: Sequence[Array] | None = None,
    always: bool = False,
) -> Heatmap:
    """`evidence` of a view, one row of `encoded`, with nothing below the rules' threshold unless `always`.

    The probability is that of the classifier that predicts, also where it is a local one; attention is the model's.
    """
    probability = float(rules.probabilities(encoded.logits, encoded.embeddings)[0])
    drawn = always or probability > rules.classifier_threshold
    return evidence(encoder, pixels, probability if drawn else 0.0, views=views)


def evidence(
    encoder: Encoder, pixels: NDArray[np.uint8], probability: float, *, views: Sequence[Array] | None = None
) -> Heatmap:
    """The map of a radiograph (H, W) or (H, W, 3) BGR of this probability; all 0 for probability 0.

    views: the result of `encoder.views` for this prepared radiograph, which saves a forward pass.
    """
    if probability <= 0:
        return Heatmap(np.zeros(pixels.shape[:2], np.float32), ATTENTION, Smoothing())
    heatmap = within_limb(attention(encoder, pixels, views=views), pixels)
    return replace(heatmap, values=heatmap.values * np.float32(probability))


def attention(encoder: Encoder, pixels: NDArray[np.uint8], *, views: Sequence[Array] | None = None) -> Heatmap:
    """The attention (H, W) above its mean, 1 where it is strongest; Smooth Grad-CAM++ where the attention is even."""
    picture = encoder.prepare(pixels)
    maps = encoder.views([picture]) if views is None else views
    shares = []
    for number, one_pass in enumerate(maps):
        suspicion = encoder.head.apply(one_pass).suspicion[0]  # (h, w)
        share = np.exp(suspicion - suspicion.max())
        share /= share.sum()
        shares.append(share[:, ::-1] if number else share)  # the second one is of the mirror image
    mean = np.mean(shares, axis=0)
    above = np.maximum(mean * mean.size - 1, 0)
    if not above.max() > _EVEN - 1:
        return explain_class(encoder, pixels, views=maps)
    H, W = pixels.shape[:2]
    return Heatmap(undo_letterbox(above.astype(np.float32), H, W, len(picture)), ATTENTION, Smoothing())


def within_limb(heatmap: Heatmap, pixels: NDArray[np.uint8]) -> Heatmap:
    """The map (H, W) without the film around the limb; its strongest value stays 1 unless nothing is left."""
    values = np.where(limb_mask(pixels), heatmap.values, np.float32(0))
    peak = float(values.max())
    return replace(heatmap, values=np.asarray(values / peak if peak > 0 else values, np.float32))
