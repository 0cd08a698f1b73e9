"""Whether two pictures are one radiograph: laid over each other, do their fine details agree?

Radiographs of one protocol look much alike, so neither a hash nor an embedding can tell a copy from another patient's
radiograph in the same pose. Their details can: trabeculae, edges and markers of a copy lie at the same places. Picture
two is moved, zoomed and tilted onto picture one (Evangelidis and Psarakis 2008, "Parametric image alignment using
enhanced correlation coefficient maximization"), and the correlation is taken of what remains when both lose their
coarse shades.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["COPY", "detail_match"]

# Copies of FracAtlas's radiographs and of phantoms mostly reach 0.94; of the radiographs of different patients that lie
# nearest to each other, none that were no copies reached 0.92. docs/audit.md has the figures.
COPY = 0.92
_COARSE, _FINE = 32, 112  # pixels a side
_HOPELESS = 0.8  # coarse correlation
_ZOOMS = (1.0, 1.15, 0.87)  # a search from here finds crops by some 15 %
_DETAIL = 3.0  # pixels of the finer pictures; what is smoother is no detail
_MARGIN = 4  # pixels at the edge, where a collimator's shadow may have been cut
_LEAST = 1 / 3  # of the picture has to overlap; half of that where blank parts are left out
_BLANK = (0.0, 0.3, 0.6)  # grey levels; what varies less is blank
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


def detail_match(one: Grey, two: Grey) -> float:
    """Correlation of the details of two grey pictures (H, W), sizes may differ: 1 for one and the same, else to -1.

    First as they lie, without what is blank in either, for a file that ends early lacks its last rows; then aligned. 0
    where they cannot be laid over each other.
    """
    fine_one, fine_two = _square(one, _FINE), _square(two, _FINE)
    unmoved = np.eye(2, 3, dtype=np.float32)
    best = max(_detail_correlation(fine_one, fine_two, unmoved, level) for level in _BLANK)
    if best >= COPY:
        return best
    warp, score = _coarsely(_square(one, _COARSE), _square(two, _COARSE))
    if score < _HOPELESS:
        return best
    warp[:, 2] *= _FINE / _COARSE
    warp, score = _aligned(fine_one, fine_two, warp)
    return max(best, _detail_correlation(fine_one, fine_two, warp)) if score > 0 else best


def _coarsely(one: Floats, two: Floats) -> tuple[Floats, float]:
    """The best warp of coarse pictures from several starts, and their correlation."""
    warp, best = np.eye(2, 3, dtype=np.float32), -1.0
    for zoom in _ZOOMS:
        found, score = _aligned(one, two, _zoomed(zoom))
        if score > best:
            warp, best = found, score
        if best > COPY:
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


def _detail_correlation(one: Floats, two: Floats, warp: Floats, blank: float = 0.0) -> float:
    """Of where both are, and where neither varies by less than `blank` grey levels around a pixel."""
    side = (one.shape[1], one.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = np.asarray(cv2.warpAffine(two, warp, side, flags=flags), np.float32)
    common = cv2.warpAffine(np.ones_like(two), warp, side, flags=flags) > 0.99
    common[:_MARGIN] = common[-_MARGIN:] = False
    common[:, :_MARGIN] = common[:, -_MARGIN:] = False
    if common.mean() < _LEAST:
        return 0.0
    if blank:
        common &= ~(_blank(one, blank) | _blank(moved, blank))
        if common.mean() < _LEAST / 2:
            return 0.0
    details = [(picture - cv2.GaussianBlur(picture, (0, 0), _DETAIL))[common] for picture in (one, moved)]
    first, second = (detail - detail.mean() for detail in details)
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length > 0 else 0.0


def _blank(picture: Floats, level: float) -> NDArray[np.bool_]:
    """Where a picture hardly varies, and the edge around it."""
    mean = cv2.blur(picture, (7, 7))
    flat = (cv2.blur(picture * picture, (7, 7)) - mean * mean < level * level).astype(np.uint8)
    large = cv2.erode(flat, np.ones((3, 3), np.uint8))  # a few pixels alike are no blank part
    return np.asarray(cv2.dilate(large, np.ones((21, 21), np.uint8)) > 0)
