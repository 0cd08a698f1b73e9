"""Pictures that are no radiographs, made of radiographs, to learn from what is none (outlier exposure, Hendrycks et al.
2019, arXiv 1812.04606).

Made of radiographs, they have their greys and their borders: they differ only in what they show.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["inside", "spoilt"]

Picture = NDArray[np.uint8]


def inside(picture: Picture) -> tuple[slice, slice]:
    """The rows and columns of a prepared picture (S, S, C) within its black letterbox; none where it is all black."""
    lit = picture.max(2) > 0
    ys, xs = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    if not len(ys):
        return slice(0, 0), slice(0, 0)
    return slice(int(ys[0]), int(ys[-1]) + 1), slice(int(xs[0]), int(xs[-1]) + 1)


def spoilt(picture: Picture, generator: np.random.Generator) -> Picture:
    """A prepared picture (S, S, 1 or 3) as RGB (S, S, 3) that shows no body part any more, in one of three ways.

    Its pieces in another order; its spectrum with random phases, up to a random frequency; or a small piece of it,
    magnified. Its letterbox stays.
    """
    shown = np.array(np.broadcast_to(picture, (*picture.shape[:2], 3)))
    ys, xs = inside(picture)
    grey = shown[ys, xs].mean(2)
    if not grey.size:
        return shown
    ways = (_shuffled, _scrambled, _magnified)
    shown[ys, xs] = ways[generator.integers(len(ways))](grey, generator).clip(0, 255).astype(np.uint8)[:, :, None]
    return shown


Grey = NDArray[np.floating]


def _shuffled(grey: Grey, generator: np.random.Generator) -> Grey:
    """Cut into 3 to 8 rows and columns of equal pieces; what is left at the edges stays."""
    n = int(generator.integers(3, 9))
    h, w = grey.shape[0] // n, grey.shape[1] // n
    pieces = grey[: n * h, : n * w].reshape(n, h, n, w).transpose(0, 2, 1, 3).reshape(n * n, h, w)
    order = generator.permutation(n * n)
    out = grey.copy()
    out[: n * h, : n * w] = pieces[order].reshape(n, n, h, w).transpose(0, 2, 1, 3).reshape(n * h, n * w)
    return out


def _scrambled(grey: Grey, generator: np.random.Generator) -> Grey:
    """The amplitudes of its frequencies up to a random one, with noise's phases: a gradient, clouds or a texture."""
    H, W = grey.shape
    noise = np.fft.rfft2(generator.standard_normal((H, W)))
    highest = np.exp(generator.uniform(0, np.log(max(H, W, 2) / 2)))
    cycles = np.hypot(np.fft.fftfreq(H, 1 / H)[:, None], np.fft.rfftfreq(W, 1 / W))
    amplitudes = np.abs(np.fft.rfft2(grey)) * (cycles <= highest)
    cloud = np.fft.irfft2(amplitudes * noise / np.maximum(np.abs(noise), 1e-9), (H, W))
    low, high = np.quantile(grey, (0.02, 0.98))
    return np.asarray(low + (cloud - cloud.min()) * ((high - low) / max(float(np.ptp(cloud)), 1e-9)))


def _magnified(grey: Grey, generator: np.random.Generator) -> Grey:
    """A piece of an eighth to a sixteenth of each side; of four, that with the most contrast."""
    H, W = grey.shape
    part = generator.uniform(1 / 16, 1 / 8)
    h, w = max(2, int(H * part)), max(2, int(W * part))
    corners = zip(
        generator.integers(max(1, H - h + 1), size=4), generator.integers(max(1, W - w + 1), size=4), strict=True
    )
    piece = max((grey[y : y + h, x : x + w] for y, x in corners), key=np.std)
    return np.asarray(cv2.resize(piece, (W, H), interpolation=cv2.INTER_CUBIC))
