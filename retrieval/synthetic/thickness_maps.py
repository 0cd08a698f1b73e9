"""What the rays of a radiograph cross: thickness maps of a finger's soft tissue, bone and metal.

Seen from the angle theta about its axis, a tube whose section is an ellipse with half axes w and d has the half-width
a = sqrt(w² cos² theta + d² sin² theta), and the ray at distance y from its middle crosses 2 b sqrt(1 - (y / a)²) of it,
with b = w d / a. All maps below are such chords: bone is the chord of the outline less that of the marrow, plus the
marrow's share of spongy bone.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from math import cos, hypot, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.synthetic.finger import (
    Bone,
    Finger,
    FracturePlane,
    Frame,
    Line,
    Point,
    Pose,
    Sizes,
    Skeleton,
    project_bones,
)
from retrieval.synthetic.rng import RandomStream

__all__ = ["Camera", "Map", "Tissue", "Window", "draw_finger", "draw_palm", "draw_ring", "mark_joint"]

Map = NDArray[np.float64]
Window = tuple[slice, slice]

SAMPLES = np.linspace(0.0, 1.0, 129)  # where a bone's outline is sampled, from base to head
ROUNDING = 0.8  # mm over which a bone's end falls away


@dataclass(frozen=True, slots=True)
class Camera:
    """A picture of `height` x `width` pixels, `mm` wide each, about the point `centre`; distal is up at angle 0."""

    height: int
    width: int
    mm: float
    angle: float
    centre: Point
    mirror: float = 1.0

    def window(self, points: list[Point], margin: float) -> Window:
        """Give the rows and columns of the box around `points`, `margin` mm wider; empty when outside the picture."""
        rows, columns = [], []
        for x, y in points:
            dx, dy = x - self.centre[0], y - self.centre[1]
            right, down = dx * sin(self.angle) + dy * cos(self.angle), dy * sin(self.angle) - dx * cos(self.angle)
            columns.append((self.width - 1) / 2 + right / self.mm * self.mirror)
            rows.append((self.height - 1) / 2 + down / self.mm)
        pad = margin / self.mm
        top, left = max(0, int(min(rows) - pad)), max(0, int(min(columns) - pad))
        bottom = max(top, min(self.height, int(max(rows) + pad) + 2))
        right_ = max(left, min(self.width, int(max(columns) + pad) + 2))
        return slice(top, bottom), slice(left, right_)

    def local(self, frame: Frame, window: Window) -> tuple[Map, Map]:
        """Give x along and y across `frame`, mm, for each pixel of the window."""
        down = (np.arange(window[0].start, window[0].stop) - (self.height - 1) / 2)[:, None] * self.mm
        right = (np.arange(window[1].start, window[1].stop) - (self.width - 1) / 2)[None, :] * self.mm * self.mirror
        s, c = sin(self.angle), cos(self.angle)
        dx, dy = self.centre[0] - frame.x, self.centre[1] - frame.y
        x = right * (frame.cosine * s + frame.sine * c) + (
            down * (frame.sine * s - frame.cosine * c) + (dx * frame.cosine + dy * frame.sine)
        )
        y = right * (frame.cosine * c - frame.sine * s) + (
            down * (frame.sine * c + frame.cosine * s) + (dy * frame.cosine - dx * frame.sine)
        )
        return (x if frame.scale == 1.0 else x / frame.scale), y


@dataclass(slots=True)
class Tissue:
    """What each pixel's ray crosses, mm, and where the finding lies; all (H, W) of the camera."""

    camera: Camera
    soft: Map
    bone: Map
    metal: Map
    finding: NDArray[np.bool_]
    grain: Map = field(repr=False)  # (128, 256) trabeculae, 1/8 mm a sample, along x; mean 0, standard deviation 1

    @classmethod
    def empty(cls, camera: Camera, rng: RandomStream) -> "Tissue":
        """Air alone, with the pattern of the trabeculae of bones to come."""
        shape = (camera.height, camera.width)
        fine, coarse = rng.noise(128, 256), rng.noise(128, 256)
        # Blurring white noise by sigmas s and t leaves the standard deviation 1 / (2 sqrt(pi s t)).
        fine = cv2.GaussianBlur(fine, (0, 0), 5.5, sigmaY=1.6) * (2.0 * (pi * 5.5 * 1.6) ** 0.5)
        coarse = cv2.GaussianBlur(coarse, (0, 0), 6.0, sigmaY=4.0) * (2.0 * (pi * 6.0 * 4.0) ** 0.5)
        grain = 0.9 * fine + 0.45 * coarse
        return cls(camera, np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.bool_), grain)


def draw_finger(tissue: Tissue, finger: Finger, pose: Pose) -> Skeleton:
    """Add a finger to the maps; findings in its bones are marked in `tissue.finding`."""
    skeleton = project_bones(finger, pose)
    _draw_soft(tissue, finger, skeleton, pose)
    for bone, frame, fragment in zip(finger.bones, skeleton.frames, skeleton.fragments, strict=True):
        _draw_bone(tissue, bone, frame, pose, finger.mineral, part=0.0 if fragment is None else -1.0)
        if fragment is not None:
            _draw_bone(tissue, bone, fragment, pose, finger.mineral, part=1.0)
    if finger.sesamoid:
        _draw_sesamoid(tissue, finger, skeleton.frames[0], pose)
    return skeleton


def _draw_bone(tissue: Tissue, bone: Bone, frame: Frame, pose: Pose, mineral: float, *, part: float = 0.0) -> None:
    """Add a bone, or its part on one side (-1, 1) of the fracture plane."""
    window = tissue.camera.window([frame.at(0.0), frame.at(bone.length)], max(*bone.width, *bone.depth) + 3.0)
    x, y = tissue.camera.local(frame, window)
    if x.size == 0:
        return
    w, d = _outline(bone, bone.width), _outline(bone, bone.depth)
    a_at = np.sqrt((w * cos(pose.theta)) ** 2 + (d * sin(pose.theta)) ** 2)
    b_at = w * d / a_at
    wall_at = bone.cortex * np.sin(pi * np.minimum(SAMPLES * 1.02, 1.0)) ** 1.3 + 0.34
    if bone.cavity is not None:
        wall_at *= 1.0 - 0.65 * np.exp(-(((SAMPLES * bone.length - bone.cavity.x) / bone.cavity.long) ** 2))
    wall_at = np.minimum(wall_at, 0.7 * np.minimum(a_at, b_at))
    fill_at = 0.03 + 0.2 * np.abs(2.0 * SAMPLES - 1.0) ** 2.2
    bow_at = -0.16 * bone.depth[1] * np.sin(pi * SAMPLES) * sin(pose.theta)  # a shaft is hollow on its palmar side

    u = x / bone.length
    a, b, wall, fill = (np.interp(u, SAMPLES, values) for values in (a_at, b_at, wall_at, fill_at))
    y = y - np.interp(u, SAMPLES, bow_at)
    v = y / a
    begin, end = _ends(bone, v, pose)
    deep = np.minimum(x - begin, end - x)
    dense = np.where(u < 0.5, bone.sclerosis[0], bone.sclerosis[1])
    outer = _chord(v * v, b) * _dome(deep)
    marrow = np.minimum(_chord((y / (a - wall)) ** 2, b - 0.85 * wall) * _dome(deep - 0.4 - 0.9 * dense), outer)
    shell = outer - marrow
    rows = np.floor(y * 8.0 + 7.0 * bone.length).astype(np.int64) & 127
    columns = np.floor(x * 8.0 + 11.0 * bone.length).astype(np.int64) & 255
    spongy = marrow * np.maximum(
        fill * (1.0 + 0.42 * tissue.grain[rows, columns]) + 0.3 * dense * np.exp(-np.maximum(deep, 0.0) / 2.0), 0.0
    )
    total = shell + spongy
    if bone.physis or bone.scar:
        total += _growth_line(bone, x, v, outer)
    if bone.cavity is not None:
        room = np.maximum(1.0 - ((x - bone.cavity.x) / bone.cavity.long) ** 2 - (y / bone.cavity.wide) ** 2, 0.0)
        total -= np.minimum(np.sqrt(room) * 2.2, 1.0) * (1.0 - bone.cavity.left) * (spongy + 0.35 * shell)
        tissue.finding[window] |= (room > 0.0) & (outer > 0.0)
    for line in bone.lines:
        total += _line(line, x, y) * np.minimum(outer, 1.0)
    if bone.fracture is not None and part:
        share, near = _broken(bone.fracture, (x, y), b, pose.shows(bone.fracture.side), part)
        total *= share
        tissue.finding[window] |= near & (outer > 0.0)
    tissue.bone[window] += np.maximum(total, 0.0) * mineral


def _outline(bone: Bone, sizes: Sizes) -> Map:
    """Half-size at each of SAMPLES: flared ends, the waist beyond the middle, spurs and swellings."""
    base, shaft, head = sizes
    if bone.tuft:
        at = (0.0, 0.09, 0.25, 0.45, 0.66, 0.78, 0.88, 0.95, 1.0)
        size = [0.93 * base, base, 0.5 * (base + shaft), shaft * 1.12, shaft]
        size += [0.5 * (shaft + head), head, head, 0.9 * head]
    else:
        at = (0.0, 0.07, 0.18, 0.34, 0.57, 0.74, 0.86, 0.94, 1.0)
        size = [shaft + f * (base - shaft) for f in (0.95, 1.0, 0.6, 0.16, 0.0)]
        size += [shaft + f * (head - shaft) for f in (0.17, 0.7, 1.0, 0.93)]
    even = np.interp(SAMPLES, at, size)[None, :]
    smooth = np.asarray(cv2.GaussianBlur(even, (0, 0), 3.5, borderType=cv2.BORDER_REPLICATE)[0], dtype=np.float64)
    smooth += bone.spurs[0] * np.maximum(0.0, 1.0 - np.abs(SAMPLES - 0.035) / 0.05)
    smooth += bone.spurs[1] * np.maximum(0.0, 1.0 - np.abs(SAMPLES - 0.965) / 0.05)
    if bone.cavity is not None:
        smooth *= 1.0 + bone.cavity.swell * np.exp(-(((SAMPLES * bone.length - bone.cavity.x) / bone.cavity.long) ** 2))
    return smooth


def _ends(bone: Bone, v: Map, pose: Pose) -> tuple[Map, Map]:
    """Where along x the bone begins and ends at v = y / a: a cupped base with a ridge, two condyles or a round head."""
    lateral = sin(pose.theta) ** 2
    v2 = np.minimum(v * v, 1.0)
    corner = 1.0 - np.sqrt(1.0 - np.minimum(v2 * v2 * v2, 0.998))
    around = 1.0 - np.sqrt(1.0 - np.minimum(v2, 0.998))
    middle = (1.0 - lateral) * np.exp(-v2 / 0.07)
    begin = 1.5 * corner - bone.cup * (1.0 + 0.5 * lateral) * (v2 - 0.15) - bone.ridge * middle
    if bone.tuft:
        return begin, bone.length - bone.width[2] * (0.45 * corner + 0.45 * around)
    radius = bone.depth[2]
    front = radius * (0.7 * corner + 0.14 * v2) + bone.groove * middle if bone.groove else radius * 0.8 * around
    return begin, bone.length - (1.0 - lateral) * front - lateral * radius * 0.95 * around


def _chord(v2: Map, b: Map) -> Map:
    """Give the chord of an ellipse, half as deep as `b`, at the squared share `v2` of its half-width; 0 beyond it."""
    return np.asarray(2.0 * b * np.sqrt(np.maximum(1.0 - v2, 0.0)))


def _dome(deep: Map) -> Map:
    """How much of the full chord is there `deep` mm below a rounded end."""
    share = np.clip(deep / ROUNDING, 0.0, 1.0)
    return np.asarray(np.sqrt(share * (2.0 - share)))


def _growth_line(bone: Bone, x: Map, v: Map, outer: Map) -> Map:
    """An open growth plate, lucent with denser borders, or the dense line that a closed one leaves."""
    off = np.abs(x - (0.11 * bone.length + 0.9 + 0.5 * v * v))
    if bone.physis:
        band = np.clip((bone.physis / 2 + 0.2 - off) / 0.4, 0.0, 1.0)
        border = np.maximum(1.0 - np.abs(off - bone.physis / 2 - 0.5) / 0.5, 0.0)
        return np.asarray(outer * (0.06 * border - 0.2 * band))
    return np.asarray(np.minimum(outer, bone.scar) * np.maximum(1.0 - off / 0.4, 0.0))


def _line(line: Line, x: Map, y: Map) -> Map:
    (x0, y0), (x1, y1) = line.start, line.end
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0.0, 1.0)
    off2 = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2
    return np.asarray(line.bone * np.sqrt(np.maximum(1.0 - off2 / line.radius**2, 0.0)))


def _broken(
    fracture: FracturePlane, local: tuple[Map, Map], b: Map, shown: float, part: float
) -> tuple[Map, NDArray[np.bool_]]:
    """Give the share of the chord on one side of a fracture plane, and the neighbourhood of the plane.

    A plane seen at a slant blurs its gap over a ramp as wide as its depth along the ray. So it is sharp only in a view
    along it, like a real fracture.
    """
    x, y = local
    slant = fracture.across * max(0.0, 1.0 - shown * shown) ** 0.5
    jag = np.interp(y, np.linspace(-8.0, 8.0, len(fracture.ragged)), fracture.ragged)
    q = fracture.along * (x - fracture.x) + fracture.across * shown * y + jag
    ramp = np.maximum(2.0 * b * abs(slant), 0.25)
    share = np.clip(0.5 + (part * q - fracture.apart / 2) / ramp, 0.0, 1.0)
    return np.asarray(share), np.asarray(np.abs(q) < 1.3 + fracture.apart / 2)


# Half-widths and half-depths of the whole finger along its axis: metacarpal, then each joint and the middle of each
# phalanx, then the end of the tip.
GIRTH_WIDTH = (12.0, 11.6, 9.6, 9.7, 8.5, 8.3, 8.0, 5.9)
GIRTH_DEPTH = (12.5, 11.0, 8.8, 8.7, 7.5, 7.2, 6.6, 4.6)


def _draw_soft(tissue: Tissue, finger: Finger, skeleton: Skeleton, pose: Pose) -> None:
    """Skin, fat and tendon: an elliptic tube about the chain of joints, thicker on the palmar side."""
    last = skeleton.frames[-1]
    sag = 1.3 * finger.girth * sin(pose.theta)
    end = (skeleton.tip[0] - 2.5 * last.cosine, skeleton.tip[1] - 2.5 * last.sine)
    spine = [
        (x - sag * last.sine, y + sag * last.cosine) for x, y in (skeleton.frames[0].at(5.0), *skeleton.joints, end)
    ]
    window = tissue.camera.window(spine, 15.0)
    marks = [0.0]
    off2, along = np.array(np.inf), np.array(0.0)
    for (ax, ay), (bx, by) in pairwise(spine):
        length = max(hypot(bx - ax, by - ay), 0.1)
        x, y = tissue.camera.local(Frame(ax, ay, (bx - ax) / length, (by - ay) / length), window)
        foot = np.clip(x, 0.0, length)
        here = (x - foot) ** 2 + y * y
        along = np.where(here < off2, foot + marks[-1], along)
        off2 = np.minimum(here, off2)
        marks.append(marks[-1] + length)
    if along.size == 0:
        return
    knots = [marks[0], *(s for left, right in pairwise(marks[1:]) for s in (left, (left + right) / 2)), marks[-1]]
    s = np.linspace(0.0, marks[-1], 200)
    w, d = (
        cv2.GaussianBlur(
            np.interp(s, knots, sizes)[None, :] * finger.girth, (0, 0), 7.0, borderType=cv2.BORDER_REPLICATE
        )[0]
        for sizes in (GIRTH_WIDTH, GIRTH_DEPTH)
    )
    a_at = np.sqrt((w * cos(pose.theta)) ** 2 + (d * sin(pose.theta)) ** 2)
    a, b = np.interp(along, s, a_at), np.interp(along, s, w * d / a_at)
    core = np.maximum(a - 2.2, 0.5)
    # Fat attenuates less than muscle and tendon: the outer shell counts four fifths.
    thick = 0.8 * _chord(off2 / (a * a), b) + 0.25 * _chord(off2 / (core * core), np.maximum(b - 2.2, 0.5))
    for where, depth in finger.creases:
        fold = np.interp(where, np.arange(len(marks)), marks)
        thick *= 1.0 - depth * np.maximum(1.0 - np.abs(along - fold - 0.02 * off2) / 0.5, 0.0)
    tissue.soft[window] = np.maximum(tissue.soft[window], thick)


def _draw_sesamoid(tissue: Tissue, finger: Finger, frame: Frame, pose: Pose) -> None:
    radius = finger.sesamoid
    x, y = frame.at(finger.bones[0].length - 5.0, 3.5 * cos(pose.theta) + 8.5 * sin(pose.theta))
    window = tissue.camera.window([(x, y)], radius + 1.0)
    u, v = tissue.camera.local(Frame(x, y, 1.0, 0.0), window)
    tissue.bone[window] += 0.9 * finger.mineral * np.sqrt(np.maximum(radius * radius - u * u - 1.3 * v * v, 0.0))


def draw_palm(tissue: Tissue, finger: Finger, frame: Frame, pose: Pose) -> None:
    """Join the fingers by the palm, which begins at the web; index and little finger stand at its edge."""
    g = finger.girth
    radial = 12.5 if finger.digit == 0 else 75.0
    ulnar = 12.5 if finger.digit == 3 else 75.0
    w, d = (radial + ulnar) / 2 * g, 12.0 * g
    a = hypot(w * cos(pose.theta), d * sin(pose.theta))
    b = min(w * d / a, 17.0)
    middle = (radial - ulnar) / 2 * g * cos(pose.theta) + 1.5 * g * sin(pose.theta)
    flat = Frame(frame.x, frame.y, frame.cosine, frame.sine)
    edge = finger.bones[0].length + 0.42 * finger.bones[1].length
    window = tissue.camera.window([flat.at(x, y) for x in (-40.0, edge) for y in (middle - a, middle + a)], 0.0)
    x, y = tissue.camera.local(flat, window)
    beyond = np.maximum(np.abs(y) - 12.0 * g, 0.0)
    web = edge - 0.006 * beyond * beyond
    inward = np.clip((web - x) / (20.0 + 16.0 * sin(pose.theta) ** 2), 0.0, 1.0)
    palm = _chord(((y - middle) / a) ** 2, np.array(b)) * inward * (1.6 - 0.6 * inward)
    # A smooth maximum, so that the finger grows out of the palm without an edge.
    tissue.soft[window] = np.sqrt(np.hypot(tissue.soft[window] ** 2, palm * palm))


def draw_ring(tissue: Tissue, finger: Finger, frame: Frame, half: float) -> None:
    """Put a ring, `half` mm to either side, on the proximal phalanx: a thin cylinder of metal, which is no finding."""
    at, radius = 0.48 * finger.bones[1].length, 9.2 * finger.girth
    window = tissue.camera.window([frame.at(at)], radius + 3.0)
    x, y = tissue.camera.local(frame, window)
    tall = np.clip((half - np.abs(x - at - 0.008 * y * y)) / 0.3, 0.0, 1.0)
    wall = np.sqrt(np.maximum((radius + 0.8) ** 2 - y * y, 0.0)) - np.sqrt(np.maximum(radius**2 - y * y, 0.0))
    tissue.metal[window] += 2.0 * wall * tall


def mark_joint(tissue: Tissue, joint: Point, radius: float) -> None:
    """Mark the disc of `radius` mm about a joint as the finding."""
    window = tissue.camera.window([joint], radius)
    x, y = tissue.camera.local(Frame(joint[0], joint[1], 1.0, 0.0), window)
    tissue.finding[window] |= x * x + y * y < radius * radius
