"""A finger's anatomy and pose: four bones, their joints, and their projection into a view.

Lengths are millimetres, angles radians. A bone lies along its own x from base (0) to head (`length`). Across, its
section is an ellipse, half as wide as `width` from the radial to the ulnar side and half as deep as `depth` from dorsal
to palmar. A direction about the axis is an angle: 0 radial, pi/2 palmar. A view from `theta` (0 posteroanterior, pi/2
lateral) shows the part cos(side - theta) of what points toward `side`.
"""

from dataclasses import dataclass, replace
from math import cos, hypot, radians, sin

from retrieval.synthetic.rng import RandomStream

__all__ = [
    "VIEWS",
    "Bone",
    "Cavity",
    "Dislocation",
    "Finger",
    "FracturePlane",
    "Frame",
    "Line",
    "Point",
    "Pose",
    "Sizes",
    "Skeleton",
    "project_bones",
    "random_finger",
    "random_pose",
]

VIEWS = ("pa", "oblique", "lateral")

Point = tuple[float, float]
Sizes = tuple[float, ...]  # three: at base, shaft and head, or of three joint spaces


@dataclass(frozen=True, slots=True)
class FracturePlane:
    """A fracture plane through (`x`, 0), and how the part on its positive side lies.

    The plane's normal is `along` the bone and `across` it in the direction `side`. `apart` is the gap; `step` and
    `bend` move and turn the far part in the direction `toward`. A `loose` part is a chip: the rest of the finger stays.
    `ragged` gives the plane's unevenness at equal steps across.
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
class Cavity:
    """An ellipsoid in the marrow. The share `left` of its bone remains, and the outline swells by `swell`."""

    x: float
    long: float
    wide: float
    left: float
    swell: float


@dataclass(frozen=True, slots=True)
class Line:
    """A short line in a bone's (x, y), `radius` thick, that adds `bone` mm of bone (negative: takes away)."""

    start: Point
    end: Point
    radius: float
    bone: float


@dataclass(frozen=True, slots=True)
class Dislocation:
    """A dislocated joint: the far bone is moved by `offset` toward `side`, back by `overlap`, turned by `tilt`."""

    joint: int
    offset: float
    overlap: float
    tilt: float
    side: float


@dataclass(frozen=True, slots=True)
class Bone:
    """A bone of a finger, in mm: its shape, its walls, and what is wrong with it."""

    length: float
    width: Sizes
    depth: Sizes
    cortex: float  # the wall's thickness at mid-shaft
    cup: float  # how far the base's rim reaches around the head before it
    ridge: float  # how far the base's middle stands out, into the groove before it
    groove: float  # how deep the head is parted into two condyles
    tuft: bool = False  # the distal phalanx ends in one
    physis: float = 0.0  # an open growth plate's thickness; 0 when closed
    scar: float = 0.0  # mm of bone in the line that a closed growth plate leaves
    sclerosis: tuple[float, float] = (0.0, 0.0)  # extra bone under the joint surface at base and head, 0 to 1
    spurs: tuple[float, float] = (0.0, 0.0)  # osteophytes at base and head
    fracture: FracturePlane | None = None
    cavity: Cavity | None = None
    lines: tuple[Line, ...] = ()

    @property
    def pivot(self) -> float:
        """How far from the head's end the joint turns."""
        return 0.8 * self.depth[2]

    def scaled(self, factor: float) -> "Bone":
        width, depth = (tuple(size * factor for size in sizes) for sizes in (self.width, self.depth))
        return replace(self, length=self.length * factor, width=width, depth=depth)


@dataclass(frozen=True, slots=True)
class Finger:
    """Metacarpal, proximal, middle and distal phalanx, the three joint spaces between them, and what surrounds them."""

    digit: int  # 0 index to 3 little
    bones: tuple[Bone, ...]  # four
    spaces: Sizes  # MCP, PIP, DIP
    girth: float  # scale of the soft tissue
    mineral: float  # scale of the bones' density
    sesamoid: float = 0.0  # radius of the small bone at the palmar side of the MCP joint; 0 where there is none
    creases: tuple[Point, ...] = ()  # skin folds: (joint and part of the way to the next, depth)
    dislocation: Dislocation | None = None

    def with_bone(self, number: int, bone: Bone) -> "Finger":
        return replace(self, bones=tuple(bone if i == number else old for i, old in enumerate(self.bones)))

    def with_space(self, joint: int, space: float) -> "Finger":
        return replace(self, spaces=tuple(space if i == joint else old for i, old in enumerate(self.spaces)))

    def scaled(self, factor: float) -> "Finger":
        return replace(self, bones=tuple(bone.scaled(factor) for bone in self.bones), girth=self.girth * factor)


@dataclass(frozen=True, slots=True)
class Pose:
    """A finger's pose: angle of view, and flexion and sideways turn of each bone against the one before it."""

    theta: float
    flexion: tuple[float, float, float, float]
    yaw: tuple[float, float, float, float]
    origin: Point = (0.0, 0.0)

    def shows(self, side: float) -> float:
        """How much of what points toward `side` lies in the picture's plane, -1 to 1."""
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

    def moved(self, point: Point, turn: float = 0.0) -> "Frame":
        cosine = self.cosine * cos(turn) - self.sine * sin(turn)
        sine = self.sine * cos(turn) + self.cosine * sin(turn)
        return Frame(point[0], point[1], cosine, sine, self.scale)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The bones' frames, that of each broken part (None where whole), the joints' middles, and the end of the last."""

    frames: tuple[Frame, ...]
    fragments: tuple[Frame | None, ...]
    joints: tuple[Point, ...]
    tip: Point


# Metacarpal, proximal, middle, distal, about an adult's: length, half-widths, half-depths; cortex, cup, ridge, groove.
ADULT: tuple[tuple[float, Sizes, Sizes, Sizes, float], ...] = (
    (62.0, (8.0, 4.3, 7.7), (7.5, 4.4, 7.4), (1.8, 0.4, 0.0), 0.0),
    (41.0, (7.6, 4.6, 5.9), (6.0, 3.9, 4.4), (1.65, 1.9, 0.0), 0.8),
    (25.0, (6.7, 4.0, 5.1), (5.2, 3.1, 3.5), (1.3, 0.9, 0.55), 0.6),
    (18.0, (5.7, 2.7, 3.6), (4.1, 2.0, 1.9), (0.9, 0.7, 0.4), 0.0),
)
SPACES: Sizes = (1.6, 1.15, 1.0)
REACH, THICK = (0.95, 1.05, 1.0, 0.8), (1.0, 1.05, 0.97, 0.86)  # index, middle, ring, little


def random_finger(patient: RandomStream, study_rng: RandomStream) -> Finger:
    """Draw a finger at random: its build from `patient`, finger, marks and skin folds from `study_rng`.

    What a healthy finger may show is there at random: an open or closed growth plate, nutrient canals, bone islands,
    a sesamoid, skin folds.
    """
    digit = study_rng.integer(0, 3)
    size, stocky, cortex = patient.around(1.0, 0.07), patient.around(1.0, 0.06), patient.around(1.0, 0.14)
    reach, thick = REACH[digit] * size, THICK[digit] * size * stocky
    young = patient.chance(0.12)
    physis = patient.uniform(0.7, 1.1) if young else 0.0
    scar = patient.uniform(0.3, 0.9) if not young and patient.chance(0.3) else 0.0

    def grown(sizes: Sizes) -> Sizes:
        return tuple(thick * size * patient.around(1.0, 0.035) for size in sizes)

    bones: list[Bone] = []
    for length, width, depth, (wall, cup, ridge), groove in ADULT:
        bone = Bone(
            length * reach * patient.around(1.0, 0.03), grown(width), grown(depth), wall * cortex * thick,
            cup, ridge, groove, tuft=length < 20, physis=physis, scar=scar,
        )  # fmt: skip
        bones.append(replace(bone, lines=_marks(bone, study_rng)))
    spaces = tuple(space * patient.around(1.0, 0.12) for space in SPACES)
    return Finger(
        digit,
        tuple(bones),
        spaces,
        girth=thick * patient.around(1.0, 0.06),
        mineral=patient.around(1.0, 0.1),
        sesamoid=patient.uniform(1.6, 2.6) if patient.chance(0.45) else 0.0,
        creases=tuple(
            (joint + study_rng.around(0.0, 0.09), study_rng.uniform(0.02, 0.09))
            for joint in (1, 2, 2, 3)
            if study_rng.chance(0.6)
        ),
    )


def _marks(bone: Bone, rng: RandomStream) -> tuple[Line, ...]:
    """Nutrient canals (short, slanting, lucent) and bone islands (small, dense): both are normal."""
    lines: list[Line] = []
    if rng.chance(0.3):
        x, y = bone.length * rng.uniform(0.35, 0.6), rng.sign() * bone.width[1] * rng.uniform(0.35, 0.8)
        end = (x + rng.uniform(2.0, 4.0), y * rng.uniform(0.4, 0.8))
        lines.append(Line((x, y), end, 0.35, -rng.uniform(0.4, 0.9)))
    if rng.chance(0.06):
        x, y = bone.length * rng.uniform(0.7, 0.9), bone.width[2] * rng.uniform(-0.4, 0.4)
        lines.append(Line((x, y), (x + 0.6, y), rng.uniform(0.6, 1.1), rng.uniform(0.5, 1.3)))
    return tuple(lines)


def random_pose(view: str, rng: RandomStream) -> Pose:
    """Draw a pose for one of `VIEWS` at random, as inexact as real ones; fingers are more bent in the lateral view."""
    theta = {"pa": 0.0, "oblique": radians(42), "lateral": radians(88)}[view] + rng.around(0.0, radians(7))
    most = (22, 34, 22) if view == "lateral" else (14, 14, 10)
    mcp, pip, dip = (radians(rng.uniform(0, angle)) for angle in most)
    yaw = (0.0, radians(rng.around(0, 4)), radians(rng.around(0, 2.2)), radians(rng.around(0, 2.5)))
    return Pose(theta, (0.0, mcp, pip, dip), yaw)


def project_bones(finger: Finger, pose: Pose) -> Skeleton:
    """Project the chain of bones into the picture's plane; each base faces the centre of the head before it."""
    frames: list[Frame] = []
    fragments: list[Frame | None] = []
    joints: list[Point] = []
    pitch = turn = off = 0.0  # `off`: how far findings have turned the chain in the picture
    centre = tip = pose.origin
    for number, bone in enumerate(finger.bones):
        pitch += pose.flexion[number]
        turn += pose.yaw[number]
        dislocation = finger.dislocation
        if dislocation is not None and dislocation.joint != number - 1:
            dislocation = None
        off += dislocation.tilt * pose.shows(dislocation.side) if dislocation else 0.0
        frame = _direction(pitch, turn, pose).moved(centre, off)
        if number:
            radius, space = finger.bones[number - 1].pivot, finger.spaces[number - 1]
            joints.append(frame.at((radius + space / 2) / frame.scale))
            back, across = (
                (dislocation.overlap, dislocation.offset * pose.shows(dislocation.side)) if dislocation else (0.0, 0.0)
            )
            frame = frame.moved(frame.at((radius + space - back) / frame.scale, across))
        frames.append(frame)
        fragment = None
        if bone.fracture is not None:
            shown, bend = pose.shows(bone.fracture.toward), bone.fracture.bend * pose.shows(bone.fracture.toward)
            fragment = frame.moved(frame.at(bone.fracture.x, bone.fracture.step * shown), bend)
            fragment = fragment.moved(fragment.at(-bone.fracture.x))
            if not bone.fracture.loose:
                frame = fragment
                off += bend
        fragments.append(fragment)
        tip = frame.at(bone.length)
        centre = frame.at(bone.length - bone.pivot / frame.scale)
    return Skeleton(tuple(frames), tuple(fragments), tuple(joints), tip)


def _direction(pitch: float, turn: float, pose: Pose) -> Frame:
    """Project a bone's direction: `pitch` toward the palm, `turn` toward the radial side."""
    along, across = cos(pitch) * cos(turn), sin(turn) * cos(pose.theta) + sin(pitch) * sin(pose.theta)
    flat = max(hypot(along, across), 1e-6)
    return Frame(0.0, 0.0, along / flat, across / flat, max(flat, 0.3))
