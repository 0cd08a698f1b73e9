"""Radiographs as other hospitals would have acquired, processed and exported them, to learn what does not matter.

A network that has seen one hospital's radiographs alone takes their sharpness for health: softer ones look abnormal to
it. So pictures are changed at random before local contrast enhancement, as they would have been before they are read.
`retrieval.images.corruptions` measures what that brings; what is done here is done otherwise, and combined.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["UNCHANGED", "processed"]

Grey = NDArray[np.float32]
UNCHANGED = 1 / 3  # of the pictures stay as they are
_INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)
_FONTS = (cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL, cv2.FONT_HERSHEY_PLAIN)


def processed(
    picture: NDArray[np.uint8], generator: np.random.Generator, strength: float = 1.0
) -> NDArray[np.uint8] | None:
    """A radiograph (H, W) or (H, W, 1), grey, uint8, processed otherwise, of the same size; None where it is unchanged.

    A third is unchanged. Of the others three quarters are softer or sharper, half have other tones, two fifths are
    noisier, a third were compressed by JPEG, a quarter have a frame, and some have few greys or letters. `strength`
    multiplies the ranges of what is drawn. The geometry stays, so lesions stay where they are.
    """
    if generator.random() < UNCHANGED:
        return None
    grey = np.asarray(picture.reshape(picture.shape[:2]), np.float32)
    first, then = (_noisy, _sharpened) if generator.random() < 0.5 else (_sharpened, _noisy)
    shares = {_noisy: 0.4, _sharpened: 0.75}
    steps = ((first, shares[first]), (then, shares[then]), (_toned, 0.55), (_lettered, 0.1), (_framed, 0.25))
    for change, share in (*steps, (_coarse, 0.15), (_compressed, 0.35)):
        if generator.random() < share:
            grey = np.asarray(change(grey.clip(0, 255), generator, strength), np.float32)
    return np.asarray(np.rint(grey).clip(0, 255), np.uint8).reshape(picture.shape)


def _sharpened(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """Softer three times in five, else sharper."""
    ways: tuple[Callable[[Grey, np.random.Generator, float], Grey], ...]
    ways = (_softened, _resampled, _softened, _resampled, _band_enhanced, _band_enhanced, _unsharp)
    return ways[generator.integers(len(ways))](grey, generator, strength)


def _softened(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """The focal spot's or the screen's blur, a little wider along one axis; sigma 0.3 to 2 pixels, or a median of 3."""
    if generator.random() < 0.1:
        return np.asarray(cv2.medianBlur(grey, 3), np.float32)
    sigma = strength * generator.uniform(0.3, 2.0)
    if sigma < 0.1:
        return grey
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), sigma, sigmaY=sigma * generator.uniform(0.8, 1.25)), np.float32)


def _resampled(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """Made smaller, to 30 % at the least, and larger again."""
    height, width = grey.shape
    scale = max(0.1, 1 - strength * generator.uniform(0.1, 0.7))
    small = max(2, round(width * scale)), max(2, round(height * scale))
    down, up = _INTERPOLATIONS[generator.integers(3)], _INTERPOLATIONS[1 + generator.integers(2)]
    return np.asarray(cv2.resize(cv2.resize(grey, small, interpolation=down), (width, height), interpolation=up))


def _unsharp(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    smooth = cv2.GaussianBlur(grey, (0, 0), generator.uniform(0.6, 4.0))
    return np.asarray(grey + strength * generator.uniform(0.3, 1.8) * (grey - smooth), np.float32)


def _band_enhanced(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """The bands of a Laplacian pyramid, each raised or lowered by a factor of its own; faint detail gains most."""
    bands, rest = [], grey
    for _ in range(4):
        smaller = cv2.pyrDown(rest)
        bands.append(rest - cv2.pyrUp(smaller, dstsize=rest.shape[::-1]))
        rest = np.asarray(smaller, np.float32)
    for band in reversed(bands):
        gain = 2 ** (strength * generator.uniform(-0.3, 1.3))
        knee = generator.uniform(4, 24)  # grey levels above which an edge gains little
        factor = 1 + (gain - 1) / (1 + np.abs(band) / knee)
        rest = np.asarray(cv2.pyrUp(rest, dstsize=band.shape[::-1]) + band * factor, np.float32)
    return rest


def _noisy(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """Noise that grows with the grey level, as behind bone, or not; of single pixels, or smoothed by the detector."""
    sigma = strength * 10 * generator.random() ** 1.5
    noise = generator.standard_normal(grey.shape, np.float32)
    if generator.random() < 0.4:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), generator.uniform(0.5, 1.0)), np.float32)
        noise /= max(float(noise.std()), 1e-6)
    if generator.random() < 0.5:
        noise *= np.sqrt(0.3 + 1.4 * grey / 255)
    return np.asarray(grey + sigma * noise, np.float32)


def _toned(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """Another curve from what was measured to what is shown: gamma, a window, an S; and less or more of the range."""
    values = grey / 255
    way = generator.integers(3)
    if way == 0:
        values = values ** np.float32(2 ** (strength * generator.uniform(-1, 1)))
    elif way == 1:
        low, high = strength * generator.uniform(0, 0.15, 2)
        values = ((values - low) / max(0.1, 1 - low - high)).clip(0, 1)
    else:
        steep = 1 + strength * generator.uniform(0, 5)
        values = np.tanh(steep * (values - generator.uniform(0.35, 0.65)))
        values = (values - values.min()) / max(float(values.max() - values.min()), 1e-6)
    share = 1 - strength * generator.uniform(0, 0.5)
    return np.asarray(255 * (max(share, 0.1) * (values - 0.5) + 0.5 + (1 - share) * generator.uniform(-0.5, 0.5)))


def _lettered(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """A few letters, white or black, over what is there."""
    text = "".join(generator.choice(list("LRAPMK0123456789-/ "), generator.integers(1, 12)))
    at = int(generator.integers(grey.shape[1])), int(generator.integers(grey.shape[0]))
    scale, tone = strength * generator.uniform(0.4, 1.2), float(generator.choice([0, 255, 255, 230]))
    font = _FONTS[generator.integers(len(_FONTS))]
    ink = (
        cv2.putText(np.zeros(grey.shape, np.uint8), text, at, font, scale, 255, 1, cv2.LINE_AA).astype(np.float32) / 255
    )
    return np.asarray(grey + ink * (tone - grey), np.float32)


def _framed(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """The shadow of a collimator on some sides, black as a rule; up to a tenth of the picture."""
    wide = strength * 0.1 * generator.random(4) * (generator.random(4) < 0.75)
    height, width = grey.shape
    top, bottom, left, right = (wide * (height, height, width, width)).astype(int)
    framed = np.full_like(grey, 0 if generator.random() < 0.8 else generator.uniform(0, 255))
    inside = slice(top, height - bottom), slice(left, width - right)
    framed[inside] = grey[inside]
    return framed


def _coarse(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    """Fewer greys: down to 20 at full strength."""
    step = max(1.0, strength * generator.uniform(1, 13))
    return np.asarray(np.rint(grey / step) * step, np.float32)


def _compressed(grey: Grey, generator: np.random.Generator, strength: float) -> Grey:
    quality = int(np.clip(100 - strength * generator.uniform(20, 92), 3, 100))
    data = cv2.imencode(".jpg", np.asarray(np.rint(grey), np.uint8), (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32)
