"""How a synthetic radiograph is taken: the camera's position, the collimator, the detector and its processing."""

from dataclasses import dataclass
from itertools import pairwise
from math import cos, hypot, pi, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.synthetic.finger import Finger, Point, Skeleton
from retrieval.synthetic.rng import RandomStream
from retrieval.synthetic.thickness_maps import Camera, Map, Tissue

__all__ = ["Acquisition", "aim_camera", "expose", "random_acquisition"]

SOFT, BONE, METAL, LEAD = 0.034, 0.155, 0.9, 2.2  # attenuation per mm at about 35 keV; LEAD: of a whole marker

# The strokes of a side marker in units of its height, the origin at its upper left.
GLYPHS: dict[str, tuple[tuple[Point, ...], ...]] = {
    "L": (((0.0, 0.0), (0.0, 1.0), (0.55, 1.0)),),
    "R": (
        ((0.0, 1.0), (0.0, 0.0), (0.35, 0.0), (0.52, 0.07), (0.6, 0.25), (0.52, 0.43), (0.35, 0.5), (0.0, 0.5)),
        ((0.3, 0.5), (0.6, 1.0)),
    ),
}


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What the views of one study have in common: detector, processing, side marker, collimation."""

    long_side: int  # pixels
    dose: float  # quanta a pixel in the open beam
    sharpness: float  # sigma of the detector's blur, pixels
    scatter: float  # share of the signal
    contrast: float
    level: float
    gamma: float
    enhance: float  # unsharp masking
    field: str  # outside the collimator: "open" (no edge visible), "black" (shutter) or "white" (unexposed)
    letter: str
    marker: str  # "lead", "printed" or "none"
    inverted: bool
    ring: float  # half the height of a worn ring, mm; 0 for none


def random_acquisition(rng: RandomStream) -> Acquisition:
    """An acquisition as radiographs of many sites have it."""
    return Acquisition(
        long_side=rng.choice((512, 480, 448, 400, 352, 320, 300), (0.5, 0.1, 0.1, 0.1, 0.08, 0.06, 0.06)),
        dose=rng.uniform(1200.0, 9000.0),
        sharpness=rng.uniform(0.45, 1.0),
        scatter=rng.uniform(0.05, 0.25),
        contrast=rng.uniform(0.78, 1.15),
        level=rng.uniform(-0.07, 0.1),
        gamma=rng.uniform(0.8, 1.1),
        enhance=rng.uniform(0.0, 0.8),
        field=rng.choice(("open", "black", "white"), (0.45, 0.47, 0.08)),
        letter=rng.choice(("L", "R")),
        marker=rng.choice(("lead", "printed", "none"), (0.5, 0.15, 0.35)),
        inverted=rng.chance(0.06),
        ring=rng.uniform(0.7, 2.2) if rng.chance(0.07) else 0.0,
    )


def aim_camera(skeleton: Skeleton, finger: Finger, acquisition: Acquisition, rng: RandomStream) -> Camera:
    """Frame the finger from behind its first joint to beyond its tip, at a random angle, perhaps mirrored."""
    angle = radians(rng.around(0.0, 9.0)) + rng.choice((0.0, pi / 2, -pi / 2, pi), (0.8, 0.07, 0.07, 0.06))
    back = finger.bones[0].length - rng.uniform(9.0, 34.0)
    points = [skeleton.frames[0].at(back), *skeleton.joints, skeleton.tip]
    right = [x * sin(angle) + y * cos(angle) for x, y in points]
    down = [y * sin(angle) - x * cos(angle) for x, y in points]
    beside = (rng.uniform(13.0, 36.0), rng.uniform(13.0, 36.0))
    beyond, behind = rng.uniform(8.0, 24.0), rng.uniform(2.0, 10.0)
    if abs(sin(angle)) > 0.7:
        first, last = (behind, beyond) if sin(angle) < 0 else (beyond, behind)
        sides = (last, first, *beside)
    else:
        sides = (*beside, *((beyond, behind) if cos(angle) > 0 else (behind, beyond)))
    left, wide = min(right) - sides[0], max(right) + sides[1]
    top, low = min(down) - sides[2], max(down) + sides[3]
    mm = max(wide - left, low - top) / acquisition.long_side
    x, y = (left + wide) / 2, (top + low) / 2
    centre = (x * sin(angle) - y * cos(angle), x * cos(angle) + y * sin(angle))
    return Camera(max(64, round((low - top) / mm)), max(64, round((wide - left) / mm)), mm, angle, centre, rng.sign())


def expose(tissue: Tissue, acquisition: Acquisition, rng: RandomStream) -> NDArray[np.uint8]:
    """Turn thickness maps into 8-bit grey (H, W): beam, scatter, detector, processing."""
    height, width, mm = tissue.camera.height, tissue.camera.width, tissue.camera.mm
    opening = _opening(tissue.camera, acquisition, rng)
    letter = _letter(tissue, acquisition, rng)
    mottle = _stretch(2.0 * _blur(rng.noise(32, 32), 1.0), height, width)
    path = SOFT * tissue.soft * (1.0 + 0.03 * mottle) + BONE * tissue.bone + METAL * tissue.metal
    if acquisition.marker == "lead":
        path += LEAD * letter
    # Heel effect: the beam is a little stronger on one side.
    heel_x, heel_y = rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)
    beam = 1.0 + np.linspace(-heel_x, heel_x, width)[None, :] + np.linspace(-heel_y, heel_y, height)[:, None]
    primary = np.exp(-path) * beam
    if acquisition.field == "white":
        primary *= opening
    haze = _stretch(_blur(primary[4::8, 4::8], 0.7 / mm), height, width)
    signal = _blur((1.0 - acquisition.scatter) * primary + acquisition.scatter * haze, acquisition.sharpness)
    quanta = 0.8 * rng.noise(height, width) + 1.2 * _blur(rng.noise(height, width), 1.0)
    signal = np.maximum(signal + np.sqrt(np.maximum(signal, 0.004) / acquisition.dose) * quanta, 0.005)
    density = -np.log(signal)
    if acquisition.enhance:
        density += acquisition.enhance * (density - _blur(density, 0.9 / mm))
    tone = density * (acquisition.contrast * rng.uniform(0.93, 1.07) / 1.7) + acquisition.level + rng.around(0.0, 0.03)
    tone = np.maximum(tone, 0.0) ** acquisition.gamma
    tone /= (1.0 + tone * (tone * tone) ** 2) ** 0.2  # the film's shoulder: metal and lead end at white
    if acquisition.marker == "printed":
        tone = np.maximum(tone, 0.97 * letter)
    if acquisition.inverted:
        tone = 1.0 - tone
    if acquisition.field == "black":
        tone = tone * opening + 0.012 * (1.0 - opening)
    return np.asarray(np.clip(np.floor(tone * 255.0 + 0.5), 0.0, 255.0), dtype=np.uint8)


def _opening(camera: Camera, acquisition: Acquisition, rng: RandomStream) -> Map:
    """Give the share of the beam that reaches each pixel: 1 within the collimator's rectangle, which may be turned."""
    turn = radians(rng.around(0.0, 5.0)) if rng.chance(0.5) else 0.0
    half_x, half_y = rng.uniform(0.4, 0.56), rng.uniform(0.4, 0.56)
    off_x, off_y = rng.around(0.5, 0.015), rng.around(0.5, 0.015)
    if acquisition.field == "open":
        return np.ones((camera.height, camera.width))
    columns = (np.arange(camera.width) + 0.5 - off_x * camera.width)[None, :]
    rows = (np.arange(camera.height) + 0.5 - off_y * camera.height)[:, None]
    u, v = columns * cos(turn) + rows * sin(turn), rows * cos(turn) - columns * sin(turn)
    inside = np.minimum(half_x * camera.width - np.abs(u), half_y * camera.height - np.abs(v))
    return np.asarray(np.clip(inside / 2.0 + 0.5, 0.0, 1.0))


def _letter(tissue: Tissue, acquisition: Acquisition, rng: RandomStream) -> Map:
    """Give a side marker's shape, 0 to 1, (H, W): beside the finger if there is space, sometimes mirrored."""
    height, width = tissue.camera.height, tissue.camera.width
    tall = rng.uniform(0.045, 0.075) * hypot(height, width)
    turn, over = radians(rng.around(0.0, 12.0)), rng.chance(0.2)
    half = 0.75 * tall  # half the side of a square that holds the letter at any angle
    positions = [(rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0)) for _ in range(12)]
    shape = np.zeros((height, width))
    if acquisition.marker == "none" or not rng.chance(0.9):
        return shape
    for across, below in positions:
        x0, y0 = half + across * (width - 2.0 * half), half + below * (height - 2.0 * half)
        window = slice(int(y0 - half), int(y0 + half)), slice(int(x0 - half), int(x0 + half))
        if tissue.soft[window].any():
            continue
        down = (np.arange(window[0].start, window[0].stop) - y0)[:, None] / tall
        right = (np.arange(window[1].start, window[1].stop) - x0)[None, :] / tall
        right = -right if over else right
        u, v = right * cos(turn) + down * sin(turn) + 0.3, down * cos(turn) - right * sin(turn) + 0.5
        shape[window] = np.clip((0.07 - _glyph(acquisition.letter, u, v)) * tall + 0.5, 0.0, 1.0)
        break
    return shape


def _glyph(letter: str, u: Map, v: Map) -> Map:
    """Give the distance from the nearest of a letter's strokes."""
    nearest = np.full(u.shape, np.inf)
    for line in GLYPHS[letter]:
        for (ax, ay), (bx, by) in pairwise(line):
            dx, dy = bx - ax, by - ay
            along = np.clip(((u - ax) * dx + (v - ay) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
            nearest = np.minimum(nearest, (u - ax - along * dx) ** 2 + (v - ay - along * dy) ** 2)
    return np.asarray(np.sqrt(nearest))


def _blur(image: Map, sigma: float) -> Map:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float64)


def _stretch(small: Map, height: int, width: int) -> Map:
    """Stretch a small smooth map linearly to (height, width).

    Not by cv2.resize: its result for doubles depends on whether OpenCV was built with IPP, in the seventh digit.
    """
    for axis, size in ((0, height), (1, width)):
        count = small.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * (count / size) - 0.5, 0.0, count - 1.0)
        low = np.minimum(at.astype(np.int64), count - 2)
        share = (at - low)[:, None] if axis == 0 else at - low
        small = np.take(small, low, axis) * (1.0 - share) + np.take(small, low + 1, axis) * share
    return small
