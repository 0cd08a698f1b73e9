"""Named changes that acquisition, processing and export make to radiographs, each at three strengths.

What ImageNet-C is for photographs (Hendrycks and Dietterich 2019, arXiv 1903.12261), for radiographs. None of them
changes what a radiograph shows of a fracture, up to the strongest, which may hide it. A picture is (H, W) grey or
(H, W, 3) BGR, uint8, with bone bright. Lengths are in the radiograph's own pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["CORRUPTIONS", "STRENGTHS", "Corruption", "corrupt"]

Picture = NDArray[np.uint8]
STRENGTHS = ("mild", "medium", "strong")
_PHOTONS = 20.0  # quanta that reach the detector behind the densest bone, for 100 behind air


@dataclass(frozen=True, slots=True)
class Corruption:
    """A change: its name, what it does in words, its amount at each of STRENGTHS, and the function that makes it.

    `make(picture, amount, random)` gives the changed picture.
    """

    name: str
    about: str
    amounts: tuple[float, float, float]
    make: Callable[[Picture, float, np.random.Generator], Picture]


def corrupt(picture: Picture, name: str, strength: int, seed: int = 0) -> Picture:
    """The picture changed by one of CORRUPTIONS at STRENGTHS[strength]; the same for the same seed.

    Raises KeyError for an unknown name, IndexError for another strength.

    >>> corrupt(np.full((40, 60), 100, np.uint8), "shrunk", 1).shape
    (20, 30)
    """
    chosen = CORRUPTIONS[name]
    return np.asarray(chosen.make(picture, chosen.amounts[strength], np.random.default_rng(seed)), np.uint8)


def _levels(values: NDArray[Any]) -> Picture:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _blurred(picture: Picture, sigma: float, random: np.random.Generator) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


def _resized(picture: Picture, scale: float, random: np.random.Generator) -> Picture:
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation), np.uint8)


def _unsharp_masked(picture: Picture, amount: float, random: np.random.Generator) -> Picture:
    """Add a multiple of what a blur of 1 pixel removes."""
    values = picture.astype(np.float32)
    return _levels(values + amount * (values - cv2.GaussianBlur(values, (0, 0), 1.0)))


def _edge_enhanced(picture: Picture, gain: float, random: np.random.Generator) -> Picture:
    """Multiply the three finest bands of a pyramid of blurs, as multi-scale processing of CR and DR does.

    (Vuylsteke and Schoeters 1994: MUSICA.) Small differences gain most: d becomes sign(d) |d|^(1/gain) 16^(1-1/gain).
    """
    finer = result = np.asarray(picture, np.float32)
    for sigma in (1.0, 2.0, 4.0):
        smoother = np.asarray(cv2.GaussianBlur(np.asarray(picture, np.float32), (0, 0), sigma), np.float32)
        band = finer - smoother
        strength = np.abs(band) ** (1 / gain) * 16 ** (1 - 1 / gain)
        result = result + np.sign(band) * np.maximum(strength, np.abs(band)) - band
        finer = smoother
    return _levels(result)


def _quantum_noise(picture: Picture, quanta: float, random: np.random.Generator) -> Picture:
    """Poisson noise of the X-ray quanta, most where bone lets few through; `quanta` reach a pixel behind air."""
    expected = quanta * (100 - (100 - _PHOTONS) * picture / 255.0) / 100
    return _levels(picture - (random.poisson(expected) - expected) / quanta * 100 / (100 - _PHOTONS) * 255)


def _electronic_noise(picture: Picture, sigma: float, random: np.random.Generator) -> Picture:
    return _levels(picture + random.normal(0, sigma, picture.shape))


def _gamma(picture: Picture, exponent: float, random: np.random.Generator) -> Picture:
    return _levels(255 * (picture / 255.0) ** exponent)


def _windowed(picture: Picture, cut: float, random: np.random.Generator) -> Picture:
    """Make the darkest and the brightest share of the range black and white, as a window that is too narrow does."""
    return _levels((picture - 255.0 * cut) / (1 - 2 * cut))


def _low_contrast(picture: Picture, share: float, random: np.random.Generator) -> Picture:
    return _levels(127.5 + (picture - 127.5) * share)


def _jpeg(picture: Picture, quality: float, random: np.random.Generator) -> Picture:
    data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, int(quality)))[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


def _bordered(picture: Picture, share: float, random: np.random.Generator) -> Picture:
    """A black border around the radiograph, as wide as a share of its longer side: the shadow of a collimator."""
    wide = round(share * max(picture.shape[:2]))
    return np.asarray(cv2.copyMakeBorder(picture, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=0), np.uint8)


def _cropped(picture: Picture, share: float, random: np.random.Generator) -> Picture:
    """Cut a share of height and width off, half of it at either end."""
    top, left = (round(side * share / 2) for side in picture.shape[:2])
    height, width = picture.shape[:2]
    return np.ascontiguousarray(picture[top : max(top + 1, height - top), left : max(left + 1, width - left)])


def _with_text(picture: Picture, share: float, random: np.random.Generator) -> Picture:
    """Two lines of white letters in a corner, each as high as a share of the height: a name plate that was burnt in."""
    changed = np.ascontiguousarray(picture).copy()
    height = max(4, round(share * picture.shape[0]))
    scale, thick = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, height), max(1, height // 8)
    top = 2 * height if random.integers(2) else picture.shape[0] - 2 * height
    left = round(picture.shape[1] * random.uniform(0, 0.5))
    for line in range(2):
        text = "".join(random.choice(list("ABCDEFGHJKLMNPRSTUVXYZ0123456789"), 9))
        at = (left, top + round(1.4 * line * height))
        cv2.putText(changed, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick, cv2.LINE_AA)
    return changed


def _rotated(picture: Picture, degrees: float, random: np.random.Generator) -> Picture:
    """Turn by an angle to a random side; what was outside is black, and nothing is cut off."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees * random.choice([-1, 1]), 1.0)
    cosine, sine = np.abs(turn[0, :2])
    size = round(height * sine + width * cosine), round(height * cosine + width * sine)
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return np.asarray(cv2.warpAffine(picture, turn, size, flags=cv2.INTER_LINEAR), np.uint8)


def _few_levels(picture: Picture, bits: float, random: np.random.Generator) -> Picture:
    most = 2 ** int(bits) - 1
    return _levels(np.rint(picture / 255.0 * most) * 255 / most)


CORRUPTIONS = {
    each.name: each
    for each in (
        Corruption("blurred", "Gaussian blur; sigma in pixels", (0.6, 0.9, 1.3), _blurred),
        Corruption("shrunk", "resampled to a share of its size", (0.75, 0.5, 0.35), _resized),
        Corruption("enlarged", "resampled to a multiple of its size", (1.5, 2.0, 3.0), _resized),
        Corruption("unsharp-masked", "unsharp mask; amount", (0.5, 1.0, 2.0), _unsharp_masked),
        Corruption("edge-enhanced", "multi-scale enhancement; exponent of the bands", (1.15, 1.3, 1.6), _edge_enhanced),
        Corruption("quantum-noise", "Poisson noise; quanta a pixel behind air", (4000, 1000, 250), _quantum_noise),
        Corruption("electronic-noise", "Gaussian noise; sigma in grey levels", (2, 5, 10), _electronic_noise),
        Corruption("darker", "gamma above 1", (1.2, 1.5, 2.0), _gamma),
        Corruption("brighter", "gamma below 1", (0.83, 0.67, 0.5), _gamma),
        Corruption("narrow-window", "share of the range cut off at either end", (0.05, 0.1, 0.2), _windowed),
        Corruption("low-contrast", "share of the contrast that is left", (0.85, 0.7, 0.5), _low_contrast),
        Corruption("jpeg", "JPEG; quality", (60, 30, 10), _jpeg),
        Corruption("bordered", "black border; share of the longer side", (0.03, 0.08, 0.2), _bordered),
        Corruption("cropped", "share of height and width that is cut off", (0.05, 0.1, 0.2), _cropped),
        Corruption("text", "letters that are burnt in; share of the height", (0.03, 0.05, 0.08), _with_text),
        Corruption("rotated", "degrees", (5, 15, 90), _rotated),
        Corruption("few-levels", "bits of grey", (6, 5, 4), _few_levels),
    )
}
"""The changes by name."""
