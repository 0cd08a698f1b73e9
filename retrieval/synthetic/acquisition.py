"""The X-ray room: where the camera looks, what the collimator lets through, and how the detector makes it grey."""

from dataclasses import dataclass
from itertools import pairwise
from math import cos, hypot, pi, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.synthetic.finger import Finger, Point, Skeleton
from retrieval.synthetic.rng import Dice
from retrieval.synthetic.thickness_maps import Camera, Map, Tissue

__all__ = ["Room", "aim", "expose", "furnish"]

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
class Room:
    """What the views of one study share: the detector, its processing, and the radiographer's habits."""

    long_side: int  # pixels
    dose: float  # quanta a pixel in the open beam
    sharpness: float  # sigma of the detector's blur, pixels
    scatter: float  # share of the signal
    contrast: float
    level: float
    gamma: float
    enhance: float  # unsharp masking
    field: str  # outside the collimator: "open" (none to be seen), "black" (shutter) or "white" (unexposed)
    letter: str
    marker: str  # "lead", "printed" or "none"
    inverted: bool
    ring: float  # half the height of a worn ring, mm; 0 for none


def furnish(dice: Dice) -> Room:
    return Room(
        long_side=dice.choice((512, 480, 448, 400, 352, 320, 300), (0.5, 0.1, 0.1, 0.1, 0.08, 0.06, 0.06)),
        dose=dice.uniform(1200.0, 9000.0),
        sharpness=dice.uniform(0.45, 1.0),
        scatter=dice.uniform(0.05, 0.25),
        contrast=dice.uniform(0.78, 1.15),
        level=dice.uniform(-0.07, 0.1),
        gamma=dice.uniform(0.8, 1.1),
        enhance=dice.uniform(0.0, 0.8),
        field=dice.choice(("open", "black", "white"), (0.45, 0.47, 0.08)),
        letter=dice.choice(("L", "R")),
        marker=dice.choice(("lead", "printed", "none"), (0.5, 0.15, 0.35)),
        inverted=dice.chance(0.06),
        ring=dice.uniform(0.7, 2.2) if dice.chance(0.07) else 0.0,
    )


def aim(skeleton: Skeleton, finger: Finger, room: Room, dice: Dice) -> Camera:
    """Frame the finger from behind its first joint to beyond its tip, turned a little or a lot, perhaps mirrored."""
    angle = radians(dice.around(0.0, 9.0)) + dice.choice((0.0, pi / 2, -pi / 2, pi), (0.8, 0.07, 0.07, 0.06))
    back = finger.bones[0].length - dice.uniform(9.0, 34.0)
    points = [skeleton.frames[0].at(back), *skeleton.joints, skeleton.tip]
    right = [x * sin(angle) + y * cos(angle) for x, y in points]
    down = [y * sin(angle) - x * cos(angle) for x, y in points]
    beside = (dice.uniform(13.0, 36.0), dice.uniform(13.0, 36.0))
    beyond, behind = dice.uniform(8.0, 24.0), dice.uniform(2.0, 10.0)
    if abs(sin(angle)) > 0.7:
        first, last = (behind, beyond) if sin(angle) < 0 else (beyond, behind)
        sides = (last, first, *beside)
    else:
        sides = (*beside, *((beyond, behind) if cos(angle) > 0 else (behind, beyond)))
    left, wide = min(right) - sides[0], max(right) + sides[1]
    top, low = min(down) - sides[2], max(down) + sides[3]
    mm = max(wide - left, low - top) / room.long_side
    x, y = (left + wide) / 2, (top + low) / 2
    centre = (x * sin(angle) - y * cos(angle), x * cos(angle) + y * sin(angle))
    return Camera(max(64, round((low - top) / mm)), max(64, round((wide - left) / mm)), mm, angle, centre, dice.sign())


def expose(tissue: Tissue, room: Room, dice: Dice) -> NDArray[np.uint8]:
    """Beam, scatter, detector and processing: from thickness to 8-bit grey (H, W)."""
    height, width, mm = tissue.camera.height, tissue.camera.width, tissue.camera.mm
    opening = _opening(tissue.camera, room, dice)
    letter = _letter(tissue, room, dice)
    mottle = _stretch(2.0 * _blur(dice.noise(32, 32), 1.0), height, width)
    path = SOFT * tissue.soft * (1.0 + 0.03 * mottle) + BONE * tissue.bone + METAL * tissue.metal
    if room.marker == "lead":
        path += LEAD * letter
    # Heel effect: the beam is a little stronger on one side.
    heel_x, heel_y = dice.uniform(-0.08, 0.08), dice.uniform(-0.08, 0.08)
    beam = 1.0 + np.linspace(-heel_x, heel_x, width)[None, :] + np.linspace(-heel_y, heel_y, height)[:, None]
    primary = np.exp(-path) * beam
    if room.field == "white":
        primary *= opening
    haze = _stretch(_blur(primary[4::8, 4::8], 0.7 / mm), height, width)
    signal = _blur((1.0 - room.scatter) * primary + room.scatter * haze, room.sharpness)
    quanta = 0.8 * dice.noise(height, width) + 1.2 * _blur(dice.noise(height, width), 1.0)
    signal = np.maximum(signal + np.sqrt(np.maximum(signal, 0.004) / room.dose) * quanta, 0.005)
    density = -np.log(signal)
    if room.enhance:
        density += room.enhance * (density - _blur(density, 0.9 / mm))
    tone = density * (room.contrast * dice.uniform(0.93, 1.07) / 1.7) + room.level + dice.around(0.0, 0.03)
    tone = np.maximum(tone, 0.0) ** room.gamma
    tone /= (1.0 + tone * (tone * tone) ** 2) ** 0.2  # the film's shoulder: metal and lead end at white
    if room.marker == "printed":
        tone = np.maximum(tone, 0.97 * letter)
    if room.inverted:
        tone = 1.0 - tone
    if room.field == "black":
        tone = tone * opening + 0.012 * (1.0 - opening)
    return np.asarray(np.clip(np.floor(tone * 255.0 + 0.5), 0.0, 255.0), dtype=np.uint8)


def _opening(camera: Camera, room: Room, dice: Dice) -> Map:
    """Give the share of the beam that reaches each pixel: 1 within the collimator's rectangle, which may be turned."""
    turn = radians(dice.around(0.0, 5.0)) if dice.chance(0.5) else 0.0
    half_x, half_y = dice.uniform(0.4, 0.56), dice.uniform(0.4, 0.56)
    off_x, off_y = dice.around(0.5, 0.015), dice.around(0.5, 0.015)
    if room.field == "open":
        return np.ones((camera.height, camera.width))
    columns = (np.arange(camera.width) + 0.5 - off_x * camera.width)[None, :]
    rows = (np.arange(camera.height) + 0.5 - off_y * camera.height)[:, None]
    u, v = columns * cos(turn) + rows * sin(turn), rows * cos(turn) - columns * sin(turn)
    inside = np.minimum(half_x * camera.width - np.abs(u), half_y * camera.height - np.abs(v))
    return np.asarray(np.clip(inside / 2.0 + 0.5, 0.0, 1.0))


def _letter(tissue: Tissue, room: Room, dice: Dice) -> Map:
    """Give a side marker's shape, 0 to 1, (H, W): beside the finger where there is room, at times turned over."""
    height, width = tissue.camera.height, tissue.camera.width
    tall = dice.uniform(0.045, 0.075) * hypot(height, width)
    turn, over = radians(dice.around(0.0, 12.0)), dice.chance(0.2)
    half = 0.75 * tall  # of a square that holds the letter however it is turned
    places = [(dice.uniform(0.0, 1.0), dice.uniform(0.0, 1.0)) for _ in range(12)]
    shape = np.zeros((height, width))
    if room.marker == "none" or not dice.chance(0.9):
        return shape
    for across, below in places:
        x0, y0 = half + across * (width - 2.0 * half), half + below * (height - 2.0 * half)
        window = slice(int(y0 - half), int(y0 + half)), slice(int(x0 - half), int(x0 + half))
        if tissue.soft[window].any():
            continue
        down = (np.arange(window[0].start, window[0].stop) - y0)[:, None] / tall
        right = (np.arange(window[1].start, window[1].stop) - x0)[None, :] / tall
        right = -right if over else right
        u, v = right * cos(turn) + down * sin(turn) + 0.3, down * cos(turn) - right * sin(turn) + 0.5
        shape[window] = np.clip((0.07 - _glyph(room.letter, u, v)) * tall + 0.5, 0.0, 1.0)
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
