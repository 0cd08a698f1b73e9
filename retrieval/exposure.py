"""The X-ray room: where the camera looks, what the collimator lets through, how detector and processing make grey of it."""

from dataclasses import dataclass
from math import cos, pi, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.dice import Dice
from retrieval.finger import Camera, Finger, Skeleton, Tissue

__all__ = ["Room", "aim", "expose", "furnish"]

Map = NDArray[np.float64]

SOFT, BONE, METAL = 0.034, 0.155, 0.9  # attenuation per mm at about 35 keV; bone is counted above soft tissue


@dataclass(frozen=True, slots=True)
class Room:
    """What the views of one study share: the detector, its processing, and habits of the radiographer."""

    long_side: int
    dose: float
    sharpness: float
    scatter: float
    contrast: float
    level: float
    enhance: float
    field: str  # outside the collimator: "open" (none in the picture), "black" (shutter), "white" (unexposed)
    letter: str
    marker: str  # "lead", "printed" or ""
    inverted: bool
    ring: bool


def furnish(dice: Dice) -> Room:
    return Room(
        long_side=dice.choice((512, 480, 448, 400, 352, 320, 300), (0.5, 0.1, 0.1, 0.1, 0.08, 0.06, 0.06)),
        dose=dice.uniform(1500.0, 9000.0),
        sharpness=dice.uniform(0.45, 0.95),
        scatter=dice.uniform(0.04, 0.2),
        contrast=dice.uniform(0.85, 1.35),
        level=dice.uniform(-0.06, 0.08),
        enhance=dice.uniform(0.0, 0.9),
        field=dice.choice(("open", "black", "white"), (0.4, 0.48, 0.12)),
        letter=dice.choice(("L", "R")),
        marker=dice.choice(("lead", "printed", ""), (0.55, 0.15, 0.3)),
        inverted=dice.chance(0.06),
        ring=dice.chance(0.06),
    )


def aim(skeleton: Skeleton, finger: Finger, room: Room, dice: Dice) -> Camera:
    """Choose the picture's frame: from behind the first joint to beyond the tip, turned a little or a lot."""
    angle = radians(dice.around(0.0, 9.0)) + dice.choice((0.0, pi / 2, -pi / 2, pi), (0.8, 0.07, 0.07, 0.06))
    first = skeleton.frames[0]
    back = finger.bones[0].length - dice.uniform(9.0, 34.0)
    points = [first.at(back), *skeleton.joints, skeleton.tip]
    right = [p[0] * sin(angle) + p[1] * cos(angle) for p in points]
    down = [-p[0] * cos(angle) + p[1] * sin(angle) for p in points]
    margins = [dice.uniform(13.0, 34.0) for _ in range(2)] + [dice.uniform(8.0, 24.0), dice.uniform(2.0, 10.0)]
    if sin(angle) ** 2 > 0.5:
        margins = margins[2:] + margins[:2]
    left, wide = min(right) - margins[0], max(right) + margins[1]
    top, low = min(down) - margins[2], max(down) + margins[3]
    mm = max(wide - left, low - top) / room.long_side
    x, y = (left + wide) / 2, (top + low) / 2
    centre = (x * sin(angle) - y * cos(angle), x * cos(angle) + y * sin(angle))
    return Camera(max(64, round((low - top) / mm)), max(64, round((wide - left) / mm)), mm, angle, centre, dice.sign())


def _collimate(camera: Camera, room: Room, dice: Dice) -> Map:
    """Give the share of the beam that reaches each pixel: 1 within the collimator's opening."""
    turn = radians(dice.around(0.0, 5.0)) if dice.chance(0.5) else 0.0
    half_x, half_y = (dice.uniform(0.4, 0.56) for _ in range(2))
    off_x, off_y = dice.around(0.0, 0.015), dice.around(0.0, 0.015)
    if room.field == "open":
        return np.ones((camera.height, camera.width))
    columns = ((np.arange(camera.width) + 0.5) / camera.width - 0.5 - off_x)[None, :] * camera.width
    rows = ((np.arange(camera.height) + 0.5) / camera.height - 0.5 - off_y)[:, None] * camera.height
    u, v = columns * cos(turn) + rows * sin(turn), rows * cos(turn) - columns * sin(turn)
    inside = np.minimum(half_x * camera.width - np.abs(u), half_y * camera.height - np.abs(v))
    return np.asarray(np.clip(inside / 2.0 + 0.5, 0.0, 1.0))


GLYPHS = {
    "L": [[(0.0, 0.0), (0.0, 1.0), (0.55, 1.0)]],
    "R": [
        [(0.0, 1.0), (0.0, 0.0), (0.35, 0.0), (0.52, 0.07), (0.6, 0.25), (0.52, 0.43), (0.35, 0.5), (0.0, 0.5)],
        [(0.3, 0.5), (0.6, 1.0)],
    ],
}


def _letter(camera: Camera, room: Room, dice: Dice) -> Map:
    """Give a side marker's shape, 0 to 1, near a corner; sometimes lying mirrored or turned."""
    shape = np.zeros((camera.height, camera.width))
    tall = dice.uniform(0.045, 0.075) * max(camera.height, camera.width)
    right, low = dice.chance(0.5), dice.chance(0.4)
    x0 = dice.uniform(0.07, 0.14) * camera.width
    y0 = dice.uniform(0.07, 0.2) * camera.height
    x0 = camera.width - x0 - tall if right else x0
    y0 = camera.height - y0 - tall if low else y0
    turn, flip = radians(dice.around(0.0, 12.0)), -1.0 if dice.chance(0.2) else 1.0
    if not room.marker or not dice.chance(0.85):
        return shape
    rows, columns = np.arange(camera.height)[:, None] - y0, np.arange(camera.width)[None, :] - x0
    if flip < 0:
        columns = 0.6 * tall - columns
    u, v = (columns * cos(turn) + rows * sin(turn)) / tall, (rows * cos(turn) - columns * sin(turn)) / tall
    for line in GLYPHS[room.letter]:
        for (ax, ay), (bx, by) in zip(line, line[1:], strict=False):
            dx, dy = bx - ax, by - ay
            along = np.clip(((u - ax) * dx + (v - ay) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
            off = np.sqrt((u - ax - along * dx) ** 2 + (v - ay - along * dy) ** 2)
            shape = np.maximum(shape, np.clip((0.075 - off) * tall + 0.5, 0.0, 1.0))
    return shape


def expose(tissue: Tissue, camera: Camera, room: Room, dice: Dice) -> NDArray[np.uint8]:
    """Beam, scatter, detector and processing: from thickness to 8-bit grey."""
    height, width = camera.height, camera.width
    field, letter = _collimate(camera, room, dice), _letter(camera, room, dice)
    mottle = cv2.resize(dice.noise(24, 24), (width, height), interpolation=cv2.INTER_CUBIC)
    soft = tissue.soft * (1.0 + 0.03 * mottle)
    lead = 2.2 * letter if room.marker == "lead" else 0.0
    path = SOFT * soft + BONE * tissue.bone + METAL * tissue.metal + lead
    heel = dice.uniform(-0.08, 0.08), dice.uniform(-0.08, 0.08)
    beam = 1.0 + heel[0] * np.linspace(-1.0, 1.0, width)[None, :] + heel[1] * np.linspace(-1.0, 1.0, height)[:, None]
    primary = np.exp(-path) * beam
    opening = field if room.field == "white" else np.ones_like(field)
    primary = primary * opening
    small = cv2.resize(primary, (max(8, width // 8), max(8, height // 8)), interpolation=cv2.INTER_AREA)
    haze = cv2.resize(
        cv2.GaussianBlur(small, (0, 0), 9.0 / camera.mm / 8 * 0.6), (width, height), interpolation=cv2.INTER_LINEAR
    )
    signal = (1.0 - room.scatter) * primary + room.scatter * haze + 0.004
    signal = cv2.GaussianBlur(signal, (0, 0), room.sharpness)
    grain = 0.8 * dice.noise(height, width) + 1.2 * cv2.GaussianBlur(dice.noise(height, width), (0, 0), 1.0)
    signal = np.maximum(signal + np.sqrt(signal / room.dose) * grain, 0.002)
    density = -np.log(signal)
    if room.enhance:
        density = density + room.enhance * (density - cv2.GaussianBlur(density, (0, 0), 0.9 / camera.mm))
    level = room.level + dice.around(0.0, 0.03)
    tone = (density * room.contrast / 1.75 + level) * dice.uniform(0.92, 1.08)
    tone = np.maximum(tone, 0.0) ** dice.uniform(0.75, 0.95)
    tone = tone / (1.0 + tone**5) ** 0.2
    if room.marker == "printed":
        tone = np.maximum(tone, letter * 0.97)
    if room.inverted:
        tone = 1.0 - tone
    if room.field == "black":
        tone = tone * field + 0.01 * (1.0 - field)
    return np.clip(np.floor(tone * 255.0 + 0.5), 0, 255).astype(np.uint8)
