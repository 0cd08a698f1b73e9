"""A finger's anatomy, and how thick its tissues are along each ray of a radiograph.

Lengths are millimetres, angles radians. A bone lies along its own x from base (0) to head (`length`). Across, its section is
an ellipse, half as wide as `width` from the radial to the ulnar side and half as deep as `depth` from dorsal to
palmar. Seen from the angle theta about that axis (0 posteroanterior, pi/2 lateral), an ellipse with half axes w and d
has the half-width a = sqrt(w² cos² + d² sin²), and the ray at distance y from its middle crosses
2 (w d / a) sqrt(1 - (y / a)²) of it. All thickness maps below are such chords.
"""

from dataclasses import dataclass, field, replace
from math import cos, hypot, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.dice import Dice

__all__ = [
    "Bone",
    "Camera",
    "Cut",
    "Finger",
    "Pose",
    "Skeleton",
    "Slip",
    "Stroke",
    "Tissue",
    "Void",
    "draw_finger",
    "grow_finger",
    "place",
]

Map = NDArray[np.float64]
Point = tuple[float, float]

PROFILE = 129  # samples of a bone's outline from base to head


@dataclass(frozen=True, slots=True)
class Cut:
    """A fracture plane through (`x`, 0), and how the part on its positive side lies.

    The plane's normal is (`along`, `across`) in the bone's axis and in the direction `side` about it (0 radial,
    pi/2 palmar). `apart` is the gap; `step` and `bend` move and turn the far part in the direction `toward`.
    A `loose` part is a chip: the rest of the finger stays.
    """

    x: float
    along: float
    across: float
    side: float
    apart: float
    step: float
    bend: float
    toward: float
    loose: bool
    ragged: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Void:
    """An ellipsoid in the marrow: bone within it is gone but for the share `left`; the outline swells by `swell`."""

    x: float
    long: float
    wide: float
    left: float
    swell: float


@dataclass(frozen=True, slots=True)
class Stroke:
    """A short line in a bone's (x, y), `radius` thick, that adds `bone` mm of bone (negative: takes away)."""

    start: Point
    end: Point
    radius: float
    bone: float


@dataclass(frozen=True, slots=True)
class Slip:
    """A joint out of place: the far bone is moved by `offset` toward `side`, back by `overlap`, turned by `tilt`."""

    joint: int
    offset: float
    overlap: float
    tilt: float
    side: float


@dataclass(frozen=True, slots=True)
class Bone:
    length: float
    width: tuple[float, float, float]
    depth: tuple[float, float, float]
    cortex: float
    cup: float
    groove: float
    tuft: bool = False
    physis: float = 0.0  # open growth plate's thickness; 0 when closed
    scar: float = 0.0  # mm of bone in the line a closed plate leaves
    sclerosis: tuple[float, float] = (0.0, 0.0)  # extra subchondral bone at base and head, 0 to 1
    spurs: tuple[float, float] = (0.0, 0.0)  # osteophytes at base and head, mm
    cut: Cut | None = None
    void: Void | None = None
    strokes: tuple[Stroke, ...] = ()


@dataclass(frozen=True, slots=True)
class Finger:
    """Four bones from metacarpal to distal phalanx, the three joint spaces between them, and what surrounds them."""

    bones: tuple[Bone, Bone, Bone, Bone]
    spaces: tuple[float, float, float]
    girth: float
    mineral: float
    sesamoid: float = 0.0
    slip: Slip | None = None


@dataclass(frozen=True, slots=True)
class Pose:
    """How a finger is held and seen: angle of view, flexion and sideways turn of each bone against the one before."""

    theta: float
    flexion: tuple[float, float, float, float]
    yaw: tuple[float, float, float, float]
    origin: Point = (0.0, 0.0)

    def across(self, side: float) -> float:
        """How much of a direction about the axis lies in the picture, -1 to 1."""
        return cos(side - self.theta)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a bone's base lies in the picture's plane, its direction, and its foreshortening."""

    x: float
    y: float
    cosine: float
    sine: float
    scale: float = 1.0

    def at(self, along: float, across: float = 0.0) -> Point:
        along *= self.scale
        return self.x + along * self.cosine - across * self.sine, self.y + along * self.sine + across * self.cosine


@dataclass(frozen=True, slots=True)
class Skeleton:
    frames: tuple[Frame, ...]
    fragments: tuple[Frame | None, ...]
    joints: tuple[Point, ...]
    tip: Point


@dataclass(frozen=True, slots=True)
class Camera:
    """A picture of `height` x `width` pixels, `mm` wide each, about the point `centre`; distal is up at angle 0."""

    height: int
    width: int
    mm: float
    angle: float
    centre: Point
    mirror: float = 1.0

    def pixel(self, point: Point) -> Point:
        """Give the (column, row) of a point in the picture's plane."""
        dx, dy = point[0] - self.centre[0], point[1] - self.centre[1]
        right = dx * sin(self.angle) + dy * cos(self.angle)
        down = -dx * cos(self.angle) + dy * sin(self.angle)
        return (self.width - 1) / 2 + right / self.mm * self.mirror, (self.height - 1) / 2 + down / self.mm

    def window(self, points: list[Point], margin: float) -> tuple[slice, slice]:
        """Give the rows and columns of the box around `points`, `margin` mm wider; empty when outside."""
        pixels = [self.pixel(point) for point in points]
        pad = margin / self.mm
        columns = [p[0] for p in pixels]
        rows = [p[1] for p in pixels]
        top, left = max(0, int(min(rows) - pad)), max(0, int(min(columns) - pad))
        bottom = max(top, min(self.height, int(max(rows) + pad) + 2))
        right = max(left, min(self.width, int(max(columns) + pad) + 2))
        return slice(top, bottom), slice(left, right)

    def local(self, frame: Frame, window: tuple[slice, slice]) -> tuple[Map, Map]:
        """Give x along and y across `frame` for each pixel of the window."""
        rows = (np.arange(window[0].start, window[0].stop) - (self.height - 1) / 2)[:, None] * self.mm
        columns = (np.arange(window[1].start, window[1].stop) - (self.width - 1) / 2)[None, :] * self.mm * self.mirror
        sine, cosine = sin(self.angle), cos(self.angle)
        # The frame's two axes expressed in (right, down), so that each map is one outer sum.
        ax, ay = frame.cosine * sine + frame.sine * cosine, -frame.cosine * cosine + frame.sine * sine
        bx, by = -frame.sine * sine + frame.cosine * cosine, frame.sine * cosine + frame.cosine * sine
        dx, dy = self.centre[0] - frame.x, self.centre[1] - frame.y
        x = columns * ax + (rows * ay + (dx * frame.cosine + dy * frame.sine))
        y = columns * bx + (rows * by + (-dx * frame.sine + dy * frame.cosine))
        return x / frame.scale, y


@dataclass(slots=True)
class Tissue:
    """What the rays cross, mm for each pixel, and where the finding lies."""

    soft: Map
    bone: Map
    metal: Map
    grain: Map = field(repr=False)  # trabecular texture, 1/8 mm a sample, mean 0, standard deviation 1
    finding: NDArray[np.bool_]

    @classmethod
    def empty(cls, height: int, width: int, dice: Dice) -> "Tissue":
        fine, coarse = dice.noise(320, 512), dice.noise(320, 512)
        grain = cv2.GaussianBlur(fine, (0, 0), 4.5, sigmaY=1.7) * 9.0 + cv2.GaussianBlur(coarse, (0, 0), 3.0) * 7.0
        grain /= 1.3
        zeros = np.zeros((height, width))
        return cls(zeros, zeros.copy(), zeros.copy(), grain, np.zeros((height, width), dtype=np.bool_))


def grow_finger(patient: Dice, which: int) -> Finger:
    """Grow finger 0 (index) to 3 (little) of a patient; the same dice state gives the same finger."""
    size = patient.around(1.0, 0.07)
    stocky, cortex = patient.around(1.0, 0.06), patient.around(1.0, 0.13)
    reach = (0.95, 1.05, 1.0, 0.8)[which] * size
    thick = (1.0, 1.05, 0.97, 0.86)[which] * size * stocky
    young = patient.chance(0.12)
    physis = patient.uniform(0.7, 1.1) if young else 0.0
    scar = patient.uniform(0.3, 0.9) if not young and patient.chance(0.3) else 0.0

    def bone(
        length: float,
        width: tuple[float, float, float],
        depth: tuple[float, float, float],
        wall: float,
        cup: float,
        groove: float,
        tuft: bool = False,
    ) -> Bone:
        def grown(sizes: tuple[float, float, float]) -> tuple[float, float, float]:
            first, second, third = (thick * s * patient.around(1.0, 0.035) for s in sizes)
            return first, second, third

        return Bone(
            length * reach * patient.around(1.0, 0.03),
            grown(width),
            grown(depth),
            wall * cortex * thick,
            cup,
            groove,
            tuft,
            physis,
            scar,
        )

    bones = (
        bone(60.0, (8.0, 4.3, 7.6), (7.5, 4.4, 7.4), 1.9, 0.4, 0.0),
        bone(41.0, (7.4, 4.7, 5.8), (6.0, 3.9, 4.4), 1.75, 1.0, 0.9),
        bone(25.0, (6.6, 4.1, 5.1), (5.2, 3.2, 3.6), 1.4, 0.9, 0.7),
        bone(17.5, (5.6, 2.5, 3.9), (4.1, 2.0, 2.0), 0.95, 0.7, 0.0, True),
    )
    spaces = (1.9 * patient.around(1.0, 0.1), 1.35 * patient.around(1.0, 0.1), 1.1 * patient.around(1.0, 0.1))
    sesamoid = patient.uniform(1.6, 2.6) if patient.chance(0.45) else 0.0
    return Finger(bones, spaces, thick * patient.around(1.0, 0.06), patient.around(1.0, 0.1), sesamoid)


def place(finger: Finger, pose: Pose) -> Skeleton:
    """Lay the chain of bones into the picture's plane, each base facing the centre of the head before it."""
    frames: list[Frame] = []
    fragments: list[Frame | None] = []
    joints: list[Point] = []
    pitch = turn = extra = 0.0
    base = pose.origin
    tip = base
    for number, bone in enumerate(finger.bones):
        pitch += pose.flexion[number]
        turn += pose.yaw[number]
        slip = finger.slip if finger.slip is not None and finger.slip.joint == number - 1 else None
        if slip is not None:
            extra += slip.tilt * pose.across(slip.side)
        along = cos(pitch) * cos(turn)
        across = sin(turn) * pose.across(0.0) + sin(pitch) * sin(pose.theta)
        scale = max(hypot(along, across), 0.3)
        cosine, sine = along / scale, across / scale
        norm = hypot(cosine, sine)
        cosine, sine = cosine / norm, sine / norm
        cosine, sine = cosine * cos(extra) - sine * sin(extra), sine * cos(extra) + cosine * sin(extra)
        frame = Frame(base[0], base[1], cosine, sine, scale)
        if number:
            space = finger.spaces[number - 1]
            radius = _pivot(finger.bones[number - 1])
            start = frame.at(radius + space)
            if slip is not None:
                start = frame.at(radius + space - slip.overlap, slip.offset * pose.across(slip.side))
            joints.append(frame.at(radius + space / 2))
            frame = replace(frame, x=start[0], y=start[1])
        fragment = None
        if bone.cut is not None:
            cut, shown = bone.cut, pose.across(bone.cut.toward)
            bend = cut.bend * shown
            pivot = frame.at(cut.x, cut.step * shown)
            turned = replace(
                frame, cosine=cosine * cos(bend) - sine * sin(bend), sine=sine * cos(bend) + cosine * sin(bend)
            )
            origin = replace(turned, x=pivot[0], y=pivot[1]).at(-cut.x)
            fragment = replace(turned, x=origin[0], y=origin[1])
        frames.append(frame)
        fragments.append(fragment)
        carrier = frame
        if fragment is not None and bone.cut is not None and not bone.cut.loose:
            carrier = fragment
            extra += bone.cut.bend * pose.across(bone.cut.toward)
        base = carrier.at(bone.length - _pivot(bone))
        tip = carrier.at(bone.length)
    return Skeleton(tuple(frames), tuple(fragments), tuple(joints), tip)


def _pivot(bone: Bone) -> float:
    """How far from the head's end the joint turns: about half the head's depth."""
    return 0.8 * bone.depth[2]


def _profile(bone: Bone, sizes: tuple[float, float, float]) -> Map:
    """Half-size from base to head, (PROFILE,): flared ends, waist a little beyond the middle."""
    base, shaft, head = sizes
    if bone.tuft:
        knots = [
            (0.0, base * 0.93),
            (0.08, base),
            (0.2, 0.55 * base + 0.45 * shaft),
            (0.4, shaft * 1.05),
            (0.62, shaft),
            (0.78, 0.7 * head + 0.3 * shaft),
            (0.88, head),
            (1.0, head * 0.86),
        ]
    else:
        knots = [
            (0.0, base * 0.95),
            (0.07, base),
            (0.18, 0.55 * base + 0.45 * shaft),
            (0.33, 0.12 * base + 0.88 * shaft),
            (0.56, shaft),
            (0.74, 0.14 * head + 0.86 * shaft),
            (0.86, 0.72 * head + 0.28 * shaft),
            (0.94, head),
            (1.0, head * 0.95),
        ]
    t = np.linspace(0.0, 1.0, PROFILE)
    sizes_at = np.interp(t, [k[0] for k in knots], [k[1] for k in knots])
    smooth = cv2.GaussianBlur(sizes_at[None, :], (0, 0), 3.0, borderType=cv2.BORDER_REPLICATE)[0]
    for place_, spur in ((0.035, bone.spurs[0]), (0.965, bone.spurs[1])):
        smooth += spur * np.maximum(0.0, 1.0 - np.abs(t - place_) / 0.05)
    if bone.void is not None:
        smooth *= 1.0 + bone.void.swell * np.exp(-(((t * bone.length - bone.void.x) / bone.void.long) ** 2))
    return np.asarray(smooth, dtype=np.float64)


def _dome(gone: Map) -> Map:
    """How much of the full chord is there at depth `gone` (in units of the end's rounding) below the surface."""
    share = np.clip(gone, 0.0, 1.0)
    return np.asarray(np.sqrt(share * (2.0 - share)), dtype=np.float64)


def _ends(bone: Bone, v: Map, pose: Pose) -> tuple[Map, Map]:
    """Where the bone begins and ends along x at v = y / a: cupped base, condyles (PA) or round head (lateral)."""
    side = sin(pose.theta) ** 2
    v2 = np.minimum(v * v, 1.0)
    middle = np.exp(-v2 / 0.06)
    rim = v2 * v2 * v2
    begin = bone.cup * (1.0 - 1.7 * v2 + 1.5 * rim * v2) - 0.35 * bone.groove * (1.0 - side) * middle
    corner = 1.0 - np.sqrt(1.0 - np.minimum(rim, 0.999))
    round_ = 1.0 - np.sqrt(1.0 - np.minimum(v2, 0.999))
    radius = bone.depth[2]
    if bone.tuft:
        end = bone.length - 0.8 * bone.width[2] * (0.5 * corner + 0.5 * round_)
    else:
        flat = radius * (0.75 * corner + 0.12 * v2) if bone.groove else radius * 0.8 * round_
        end = bone.length - (1.0 - side) * (flat + bone.groove * middle) - side * radius * 0.95 * round_
    return np.asarray(begin), np.asarray(end)


def _draw_bone(
    tissue: Tissue, camera: Camera, bone: Bone, frame: Frame, pose: Pose, mineral: float, part: float = 0.0
) -> None:
    """Add one bone, or the part of it on one side (-1, +1) of its cut."""
    widest = max(max(bone.width), max(bone.depth)) + max(bone.spurs)
    window = camera.window([frame.at(0.0), frame.at(bone.length)], widest + 1.0)
    if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
        return
    x, y = camera.local(frame, window)
    c2, s2 = cos(pose.theta) ** 2, sin(pose.theta) ** 2
    w, d = _profile(bone, bone.width), _profile(bone, bone.depth)
    a_at = np.sqrt(w * w * c2 + d * d * s2)
    b_at = w * d / a_at
    t = np.linspace(0.0, 1.0, PROFILE)
    # Dorsal bow of the shaft: palmar surface hollow, dorsal surface nearly straight.
    bow = -0.16 * bone.depth[1] * np.sin(np.pi * t) * sin(pose.theta)
    wall_at = bone.cortex * np.clip(np.sin(np.pi * np.clip(t * 1.02, 0.0, 1.0)), 0.0, 1.0) ** 1.4 + 0.38
    if bone.void is not None:
        wall_at = wall_at * (1.0 - 0.65 * np.exp(-(((t * bone.length - bone.void.x) / bone.void.long) ** 2)))
    wall_at = np.minimum(wall_at, 0.72 * np.minimum(a_at, b_at))
    spread = np.minimum(1.0, np.abs(2.0 * t - 1.0))
    fill_at = 0.05 + 0.24 * spread**2.2
    u = x / bone.length
    a, b = np.interp(u, t, a_at), np.interp(u, t, b_at)
    wall, fill = np.interp(u, t, wall_at), np.interp(u, t, fill_at)
    y = y - np.interp(u, t, bow)
    v = y / a
    begin, end = _ends(bone, v, pose)
    depth = np.minimum(x - begin, end - x)
    rounding = 1.1
    outer = 2.0 * b * np.sqrt(np.maximum(1.0 - v * v, 0.0)) * _dome(depth / rounding)
    v_in = y / (a - wall)
    plate = 0.45 + np.where(u < 0.5, bone.sclerosis[0], bone.sclerosis[1]) * 0.9
    inner = 2.0 * (b - wall) * np.sqrt(np.maximum(1.0 - v_in * v_in, 0.0)) * _dome((depth - plate) / rounding)
    inner = np.minimum(inner, outer)
    rows = (np.clip(y * 8.0 + 160.0, 0, 319)).astype(np.int64)
    columns = (np.clip(x * 8.0 + 16.0, 0, 511)).astype(np.int64)
    grain = tissue.grain[rows, columns]
    scler = np.where(u < 0.5, bone.sclerosis[0], bone.sclerosis[1]) * np.exp(-np.maximum(depth, 0.0) / 2.0)
    spongy = inner * np.maximum(fill * (1.0 + 0.4 * grain) + 0.3 * scler, 0.0)
    total = outer - inner + spongy
    if bone.physis or bone.scar:
        total = total + _growth_line(bone, x, v, outer)
    if bone.void is not None:
        hollow = np.maximum(1.0 - ((x - bone.void.x) / bone.void.long) ** 2 - (y / bone.void.wide) ** 2, 0.0)
        gone = np.minimum(np.sqrt(hollow) * 2.2, 1.0)
        total = total - gone * (1.0 - bone.void.left) * (spongy + 0.35 * (outer - inner))
        tissue.finding[window] |= (hollow > 0.0) & (outer > 0.0)
    for stroke in bone.strokes:
        total = total + _stroke(stroke, x, y) * np.minimum(outer, 1.0)
    total = np.maximum(total, 0.0)
    if bone.cut is not None and part:
        share, near = _part(bone.cut, x, y, b, pose, part)
        tissue.finding[window] |= near & (outer > 0.0)
        total = total * share
    tissue.bone[window] += total * mineral


def _part(cut: Cut, x: Map, y: Map, b: Map, pose: Pose, part: float) -> tuple[Map, NDArray[np.bool_]]:
    """Share of the chord on one side of the cut, and the neighbourhood of the cut.

    A plane seen at a slant takes its gap away along a ramp as wide as its depth in the ray, so it shows sharply only
    in a view along it, as a real fracture does.
    """
    shown = pose.across(cut.side)
    hidden = cut.across * (max(0.0, 1.0 - shown * shown) ** 0.5)
    jag = np.interp(y, np.linspace(-8.0, 8.0, len(cut.ragged)), np.asarray(cut.ragged))
    q = cut.along * (x - cut.x) + cut.across * shown * y + jag
    ramp = np.maximum(2.0 * b * abs(hidden), 0.25)
    share = np.clip(0.5 + (part * q - cut.apart / 2) / ramp, 0.0, 1.0)
    return np.asarray(share), np.asarray(np.abs(q) < 1.3 + cut.apart / 2)


def _growth_line(bone: Bone, x: Map, v: Map, outer: Map) -> Map:
    """An open growth plate (a lucent band with denser borders) or the dense line that a closed one leaves."""
    middle = 0.11 * bone.length + 0.9 + 0.5 * v * v
    off = np.abs(x - middle)
    if bone.physis:
        band = np.clip((bone.physis / 2 + 0.2 - off) / 0.4, 0.0, 1.0)
        border = np.maximum(1.0 - np.abs(off - bone.physis / 2 - 0.5) / 0.5, 0.0)
        return np.asarray(outer * (-0.2 * band + 0.06 * border))
    return np.asarray(np.minimum(outer, bone.scar) * np.maximum(1.0 - off / 0.4, 0.0))


def _stroke(stroke: Stroke, x: Map, y: Map) -> Map:
    (x0, y0), (x1, y1) = stroke.start, stroke.end
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9), 0.0, 1.0)
    off2 = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2
    return np.asarray(stroke.bone * np.sqrt(np.maximum(1.0 - off2 / stroke.radius**2, 0.0)))


def _draw_soft(tissue: Tissue, camera: Camera, finger: Finger, skeleton: Skeleton, pose: Pose) -> None:
    """Skin, fat and tendon: an elliptic tube about the chain of joints, thicker on the palmar side."""
    frames, tip = skeleton.frames, skeleton.tip
    last = frames[-1]
    shift = 1.3 * finger.girth * sin(pose.theta)
    end = (tip[0] - 2.5 * last.cosine, tip[1] - 2.5 * last.sine)
    spine = [frames[0].at(5.0), *skeleton.joints, end]
    spine = [(px - shift * last.sine, py + shift * last.cosine) for px, py in spine]
    window = camera.window(spine, 16.0)
    if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
        return
    best = along = None
    s0 = 0.0
    marks = [0.0]
    for (ax, ay), (bx, by) in zip(spine, spine[1:], strict=False):
        length = max(hypot(bx - ax, by - ay), 0.1)
        x, y = camera.local(Frame(ax, ay, (bx - ax) / length, (by - ay) / length), window)
        foot = np.clip(x, 0.0, length)
        off2 = (x - foot) ** 2 + y * y
        if best is None or along is None:
            best, along = off2, foot
        else:
            nearer = off2 < best
            best = np.where(nearer, off2, best)
            along = np.where(nearer, foot + s0, along)
        s0 += length
        marks.append(s0)
    assert best is not None and along is not None
    knots: list[float] = [marks[0]]
    for left, right in zip(marks[1:], marks[2:], strict=False):
        knots += [left, (left + right) / 2]
    knots.append(marks[-1])
    g = finger.girth
    w_at = [12.0, 12.0, 9.6, 9.7, 8.4, 8.4, 7.9, 5.8]
    d_at = [13.5, 12.0, 8.8, 8.7, 7.4, 7.2, 6.6, 4.6]
    s = np.linspace(0.0, s0, 200)
    blur = lambda values: cv2.GaussianBlur(
        np.interp(s, knots, values)[None, :] * g, (0, 0), 7.0, borderType=cv2.BORDER_REPLICATE
    )[0]
    w, d = blur(w_at), blur(d_at)
    a_at = np.sqrt((w * cos(pose.theta)) ** 2 + (d * sin(pose.theta)) ** 2)
    a, b = np.interp(along, s, a_at), np.interp(along, s, w * d / a_at)
    tube = 2.0 * b * np.sqrt(np.maximum(1.0 - best / (a * a), 0.0))
    core_a = np.maximum(a - 2.2, 0.5)
    core = 2.0 * np.maximum(b - 2.2, 0.5) * np.sqrt(np.maximum(1.0 - best / (core_a * core_a), 0.0))
    # Fat attenuates less than muscle and tendon: count the outer shell at four fifths.
    tissue.soft[window] = np.maximum(tissue.soft[window], 0.8 * tube + 0.25 * core)


def _draw_sesamoid(tissue: Tissue, camera: Camera, finger: Finger, skeleton: Skeleton, pose: Pose) -> None:
    radius = finger.sesamoid
    x, y = skeleton.frames[0].at(finger.bones[0].length - 5.0, 3.5 * cos(pose.theta) + 8.5 * sin(pose.theta))
    window = camera.window([(x, y)], radius + 1.0)
    if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
        return
    u, v = camera.local(Frame(x, y, 1.0, 0.0), window)
    ball = 2.0 * np.sqrt(np.maximum(radius * radius - u * u - 1.3 * v * v, 0.0))
    tissue.bone[window] += 0.45 * ball * finger.mineral


def draw_finger(tissue: Tissue, camera: Camera, finger: Finger, pose: Pose) -> Skeleton:
    """Add a finger to the thickness maps; where a bone's finding lies is marked in `tissue.finding`."""
    skeleton = place(finger, pose)
    _draw_soft(tissue, camera, finger, skeleton, pose)
    for bone, frame, fragment in zip(finger.bones, skeleton.frames, skeleton.fragments, strict=True):
        if fragment is None:
            _draw_bone(tissue, camera, bone, frame, pose, finger.mineral)
        else:
            _draw_bone(tissue, camera, bone, frame, pose, finger.mineral, -1.0)
            _draw_bone(tissue, camera, bone, fragment, pose, finger.mineral, 1.0)
    if finger.sesamoid:
        _draw_sesamoid(tissue, camera, finger, skeleton, pose)
    return skeleton
