"""Registration: whether the fine details of two pictures agree once they are laid over each other.

Radiographs of one protocol look much alike, so neither a hash nor an embedding can tell the same radiograph from
another patient's in the same pose. Fine details can: trabeculae, edges and markers. The second picture is moved, zoomed
and tilted onto the first (Evangelidis and Psarakis 2008, "Parametric image alignment using enhanced correlation
coefficient maximization"), and the correlation is that of the pictures without their coarse shades.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Match", "detail_match"]

# Correlations from which two pictures are the same: without alignment, and with it, which fits whatever can be fitted.
# Chosen on changed radiographs of FracAtlas and phantoms; docs/audit.md has what is found with them.
_UNMOVED, _ALIGNED = 0.9, 0.97
_COARSE, _LEAST_FINE, _FINE = 32, 64, 112  # pixels a side
# Correlations below which slower steps are skipped: of the details unmoved (a file that ends early reaches 0.5), of the
# coarse pictures (the same radiograph reaches 0.96), and of the details with the coarse alignment (0.75).
_UNLIKE, _HOPELESS, _ROUGH = 0.3, 0.92, 0.5
# Degrees and zoom from which the search starts: it finds a crop of about 15 % in the whole picture, and a turn of about
# 15 degrees more or less. (Of 30 radiographs of FracAtlas turned by 30 degrees 27 agree with these, 12 without turns.)
_STARTS = ((0, 1.0), (0, 0.87), (20, 1.0), (-20, 1.0))
_DETAIL = 3.0  # pixels of the fine pictures; smoother structures are no details
_GRAIN = 1.0  # pixels; finer structures are lost when a picture is moved by parts of a pixel
_CLOSE = 0.92  # coarse correlation from which no other start is tried
_MARGIN = 5  # pixels at the edges, where details depend on pixels outside
_LEAST, _LEAST_LEFT = (
    1 / 3,
    1 / 10,
)  # least shares that overlap, and that are left without blanks
_BLANK = (0.3, 0.6)  # grey levels; parts that vary less are blank
_STEPS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """The correlation of the details of two pictures, unmoved or `aligned`."""

    correlation: float
    aligned: bool

    @property
    def same(self) -> bool:
        """Whether the two are the same radiograph."""
        return self.correlation >= (_ALIGNED if self.aligned else _UNMOVED)


def detail_match(first: Grey, second: Grey, *, framed: bool = False) -> Match:
    """Compare the details of two grey pictures (H, W); their sizes may differ.

    framed: both have a border. Unmoved, the edges of equal borders agree whatever is inside, so they do not count.

    First unmoved, also without the blank parts of either, since a file that ends early lacks its last rows; then
    aligned. The correlation is 0 if they cannot be laid over each other.
    """
    side = max(_LEAST_FINE, min(_FINE, max(first.shape), max(second.shape)))  # as blurred as the smaller picture is
    fine_one, fine_two = _square(first, side), _square(second, side)
    identity = np.eye(2, 3, dtype=np.float32)
    correlation = _correlation(fine_one, fine_two, identity)
    if correlation >= _UNLIKE:
        within = [_correlation(fine_one, fine_two, identity, blank=level) for level in _BLANK]
        correlation = max(within if framed else [correlation, *within])
    unmoved = Match(correlation, aligned=False)
    if unmoved.same:
        return unmoved
    # Either may be a crop of the other, and the search only finds the crop in the whole picture.
    searches = [
        (_coarse_search(_square(a, _COARSE), _square(b, _COARSE)), a, b) for a, b in ((first, second), (second, first))
    ]
    (warp, score), *pictures = max(searches, key=lambda search: search[0][1])
    if score < _HOPELESS:
        return unmoved
    warp[:, 2] *= side / _COARSE
    fine_one, fine_two = (_square(picture, side) for picture in pictures)
    if _correlation(fine_one, fine_two, warp, grain=_GRAIN) < _ROUGH:
        return unmoved
    warp, score = _aligned(fine_one, fine_two, warp)
    aligned = Match(_correlation(fine_one, fine_two, warp, grain=_GRAIN) if score > 0 else 0.0, aligned=True)
    return max(unmoved, aligned, key=lambda match: match.correlation)


def _coarse_search(fixed: Floats, moving: Floats) -> tuple[Floats, float]:
    """The best warp of coarse pictures, and their correlation."""
    best = np.eye(2, 3, dtype=np.float32), -1.0
    middle = (_COARSE - 1) / 2
    for degrees, zoom in _STARTS:
        start = np.asarray(cv2.getRotationMatrix2D((middle, middle), degrees, zoom), np.float32)
        best = max(best, _aligned(fixed, moving, start), key=lambda result: result[1])
        if best[1] > _CLOSE:
            break
    return best


def _square(picture: Grey, side: int) -> Floats:
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)


def _aligned(fixed: Floats, moving: Floats, start: Floats) -> tuple[Floats, float]:
    """The affine warp of `moving` onto `fixed` found from `start`, and their correlation; -1 if the search fails."""
    try:
        everywhere = np.ones(moving.shape, np.uint8)
        score, warp = cv2.findTransformECC(fixed, moving, start.copy(), cv2.MOTION_AFFINE, _STEPS, everywhere, 3)
    except cv2.error:  # it did not converge, or a picture is blank
        return start, -1.0
    return np.asarray(warp, np.float32), float(score)


def _correlation(fixed: Floats, moving: Floats, warp: Floats, *, blank: float = 0.0, grain: float = 0.0) -> float:
    """The correlation of details coarser than `grain`, where the pictures overlap and both vary by at least `blank`."""
    side = (fixed.shape[1], fixed.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = np.asarray(cv2.warpAffine(moving, warp, side, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)
    inside = (cv2.warpAffine(np.ones_like(moving), warp, side, flags=flags) > 0.99).astype(np.uint8)
    around = np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8)
    common = cv2.erode(inside, around, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0
    if common.mean() < _LEAST:
        return 0.0
    if blank:
        common &= ~(_blank(fixed, blank) | _blank(moved, blank))
        if common.mean() < _LEAST_LEFT:
            return 0.0
    first, second = (_details(picture, grain)[common] for picture in (fixed, moved))
    first, second = first - first.mean(), second - second.mean()
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length > 0 else 0.0


def _details(picture: Floats, grain: float) -> Floats:
    fine = cv2.GaussianBlur(picture, (0, 0), grain) if grain else picture
    return np.asarray(fine - cv2.GaussianBlur(picture, (0, 0), _DETAIL), np.float32)


def _blank(picture: Floats, level: float) -> NDArray[np.bool_]:
    """The parts (H, W) of a picture that vary by less than `level`, and their edges."""
    mean = cv2.blur(picture, (7, 7))
    flat = (cv2.blur(picture * picture, (7, 7)) - mean * mean < level * level).astype(np.uint8)
    large = cv2.erode(flat, np.ones((3, 3), np.uint8))  # a few equal pixels are no blank part
    return np.asarray(cv2.dilate(large, np.ones((21, 21), np.uint8)) > 0)
