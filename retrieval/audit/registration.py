"""Whether two pictures are one radiograph: laid over each other, do their fine details agree?

Radiographs of one protocol look much alike, so neither a hash nor an embedding can tell a copy from another patient's
radiograph in the same pose. Their details can: trabeculae, edges and markers of a copy lie at the same places. Picture
two is moved, zoomed and tilted onto picture one (Evangelidis and Psarakis 2008, "Parametric image alignment using
enhanced correlation coefficient maximization"), and the correlation is taken of what remains when both lose their
coarse shades.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Match", "detail_match"]

# Correlations from which two pictures are one, as they lie and aligned; alignment fits whatever can be fitted, so more
# is asked of it. Chosen on copies of FracAtlas's radiographs and of phantoms; docs/audit.md has what they find.
_LYING, _ALIGNED = 0.9, 0.97
_COARSE, _FINE = 32, 112  # pixels a side
# Correlations below which dearer looks are spared: of the details as they lie (copies that are cut short have 0.5 and
# more), of the coarse pictures (0.96), and of the details aligned as the coarse pictures are (0.75).
_UNLIKE, _HOPELESS, _ROUGH = 0.3, 0.92, 0.5
_ZOOMS = (1.0, 0.87)  # a search from here finds a crop of some 15 % in the whole
_DETAIL = 3.0  # pixels of the finer pictures; what is smoother is no detail
_GRAIN = 1.0  # pixels; what is finer is lost when a picture is moved by parts of a pixel
_CLOSE = 0.92  # coarse correlation with which no other zoom is tried
_MARGIN = 5  # pixels at the edge of either, where details are taken from what is not there
_LEAST, _LEAST_LEFT = 1 / 3, 1 / 10  # of the picture has to overlap, and to be left without blank parts
_BLANK = (0.3, 0.6)  # grey levels; what varies less is blank
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """How well the details of two pictures agree: a correlation, as they lie or `aligned`."""

    correlation: float
    aligned: bool

    @property
    def copy(self) -> bool:
        """Whether the two are one radiograph."""
        return self.correlation >= (_ALIGNED if self.aligned else _LYING)


def detail_match(one: Grey, two: Grey) -> Match:
    """Compare the details of two grey pictures (H, W), sizes may differ.

    First as they lie, without what is blank in either, for a file that ends early lacks its last rows; if that is no
    copy, aligned. The correlation is 0 where they cannot be laid over each other.
    """
    fine_one, fine_two = _square(one, _FINE), _square(two, _FINE)
    unmoved = np.eye(2, 3, dtype=np.float32)
    correlation = _correlation(fine_one, fine_two, unmoved)
    if correlation >= _UNLIKE:
        correlation = max(correlation, *(_correlation(fine_one, fine_two, unmoved, blank=level) for level in _BLANK))
    lying = Match(correlation, aligned=False)
    if lying.copy:
        return lying
    # Either may be a crop of the other, and only a crop is found in the whole.
    turns = [(_coarsely(_square(a, _COARSE), _square(b, _COARSE)), a, b) for a, b in ((one, two), (two, one))]
    (warp, score), *pictures = max(turns, key=lambda turn: turn[0][1])
    if score < _HOPELESS:
        return lying
    warp[:, 2] *= _FINE / _COARSE
    fine_one, fine_two = (_square(picture, _FINE) for picture in pictures)
    if _correlation(fine_one, fine_two, warp, grain=_GRAIN) < _ROUGH:
        return lying
    warp, score = _aligned(fine_one, fine_two, warp)
    aligned = Match(_correlation(fine_one, fine_two, warp, grain=_GRAIN) if score > 0 else 0.0, aligned=True)
    return max(lying, aligned, key=lambda match: match.correlation)


def _coarsely(one: Floats, two: Floats) -> tuple[Floats, float]:
    """The best warp of coarse pictures from several starts, and their correlation."""
    warp, best = np.eye(2, 3, dtype=np.float32), -1.0
    for zoom in _ZOOMS:
        found, score = _aligned(one, two, _zoomed(zoom))
        if score > best:
            warp, best = found, score
        if best > _CLOSE:
            break
    return warp, best


def _square(picture: Grey, side: int) -> Floats:
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)


def _zoomed(zoom: float) -> Floats:
    """A zoom about the middle of the coarse picture."""
    shift = (1 - zoom) * (_COARSE - 1) / 2
    return np.array([[zoom, 0, shift], [0, zoom, shift]], np.float32)


def _aligned(one: Floats, two: Floats, start: Floats) -> tuple[Floats, float]:
    """The affine warp of two onto one found from `start`, and their correlation; -1 where there is none."""
    try:
        everywhere = np.ones(two.shape, np.uint8)
        score, warp = cv2.findTransformECC(one, two, start.copy(), cv2.MOTION_AFFINE, _STEPS, everywhere, 3)
    except cv2.error:  # it did not converge, or a picture is blank
        return start, -1.0
    return np.asarray(warp, np.float32), float(score)


def _correlation(one: Floats, two: Floats, warp: Floats, *, blank: float = 0.0, grain: float = 0.0) -> float:
    """Of the details coarser than `grain`, where both pictures are and neither varies by less than `blank`."""
    side = (one.shape[1], one.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = np.asarray(cv2.warpAffine(two, warp, side, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)
    inside = (cv2.warpAffine(np.ones_like(two), warp, side, flags=flags) > 0.99).astype(np.uint8)
    around = np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8)
    common = cv2.erode(inside, around, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0
    if common.mean() < _LEAST:
        return 0.0
    if blank:
        common &= ~(_blank(one, blank) | _blank(moved, blank))
        if common.mean() < _LEAST_LEFT:
            return 0.0
    first, second = (_details(picture, grain)[common] for picture in (one, moved))
    first, second = first - first.mean(), second - second.mean()
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length > 0 else 0.0


def _details(picture: Floats, grain: float) -> Floats:
    fine = cv2.GaussianBlur(picture, (0, 0), grain) if grain else picture
    return np.asarray(fine - cv2.GaussianBlur(picture, (0, 0), _DETAIL), np.float32)


def _blank(picture: Floats, level: float) -> NDArray[np.bool_]:
    """Where a picture hardly varies, and the edge around it."""
    mean = cv2.blur(picture, (7, 7))
    flat = (cv2.blur(picture * picture, (7, 7)) - mean * mean < level * level).astype(np.uint8)
    large = cv2.erode(flat, np.ones((3, 3), np.uint8))  # a few pixels alike are no blank part
    return np.asarray(cv2.dilate(large, np.ones((21, 21), np.uint8)) > 0)
