"""What makes a synthetic finger abnormal: one finding, changed into its anatomy or laid over it."""

from dataclasses import dataclass, replace
from math import cos, hypot, pi, radians, sin

import numpy as np

from retrieval.dice import Dice
from retrieval.finger import Bone, Camera, Cut, Finger, Frame, Pose, Skeleton, Slip, Stroke, Tissue, Void

__all__ = ["LESIONS", "Lesion", "Plate", "Rod", "draw_lesion", "inflict"]

LESIONS = ("fracture", "dislocation", "joint-space narrowing", "lytic lesion", "metal")
SHARES = (0.40, 0.12, 0.18, 0.14, 0.16)

Solid = tuple[float, float, float]  # along the bone, toward radial, toward palmar; mm


@dataclass(frozen=True, slots=True)
class Rod:
    """A wire or screw in a bone's frame; a screw has a `thread` (its depth, mm) and a `head` (its radius, mm)."""

    bone: int
    start: Solid
    end: Solid
    radius: float
    thread: float = 0.0
    head: float = 0.0


@dataclass(frozen=True, slots=True)
class Plate:
    """A plate along a bone from x0 to x1, `distance` from its axis in the direction `side`, with `holes`."""

    bone: int
    x0: float
    x1: float
    side: float
    distance: float
    width: float
    thick: float
    holes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Lesion:
    name: str
    finger: Finger
    implants: tuple[Rod | Plate, ...] = ()
    joint: int | None = None  # the joint where the finding lies, and the radius about it, mm
    radius: float = 0.0


def inflict(finger: Finger, dice: Dice, theta: float) -> Lesion:
    """Give a finger one finding, shown best (not only) in a view from about `theta`."""
    name = dice.choice(LESIONS, SHARES)
    make = {
        "fracture": _fracture,
        "dislocation": _dislocation,
        "joint-space narrowing": _narrowing,
        "lytic lesion": _lytic,
        "metal": _metal,
    }[name]
    return make(finger, dice, theta)


def _with_bone(finger: Finger, number: int, bone: Bone) -> Finger:
    bones = list(finger.bones)
    bones[number] = bone
    first, second, third, fourth = bones
    return replace(finger, bones=(first, second, third, fourth))


def _ragged(dice: Dice, height: float) -> tuple[float, ...]:
    return tuple(dice.around(0.0, height) for _ in range(13))


def _fracture(finger: Finger, dice: Dice, theta: float) -> Lesion:
    kind = dice.choice(("transverse", "oblique", "avulsion"), (0.4, 0.35, 0.25))
    number = dice.choice((1, 2, 3), (0.4, 0.32, 0.28))
    if kind == "avulsion":
        number = dice.choice((2, 3))
    bone = finger.bones[number]
    side = theta + dice.around(0.0, radians(22)) + (pi if dice.chance(0.5) else 0.0)
    if kind == "avulsion":
        reach = max(bone.width[0] * abs(cos(side)), bone.depth[0] * abs(sin(side)))
        long, deep = dice.uniform(2.6, 4.6), reach * dice.uniform(0.5, 0.85)
        norm = hypot(long, deep)
        # The line from (x = long, surface) to (x = 0, surface - deep) cuts the corner off.
        along, across = -deep / norm, long / norm
        x = -(reach - deep) * across / along
        cut = Cut(
            x,
            along,
            across,
            side,
            dice.uniform(0.35, 0.8),
            dice.uniform(0.3, 1.4),
            dice.around(0.0, 0.15),
            side,
            True,
            _ragged(dice, 0.15),
        )
    else:
        slant = dice.around(0.0, radians(9)) if kind == "transverse" else dice.sign() * radians(dice.uniform(32, 58))
        # Displaced or not: a hairline keeps its place, so the line is all there is to see.
        moved = dice.chance(0.6)
        cut = Cut(
            bone.length * dice.uniform(0.28, 0.78),
            cos(slant),
            sin(slant),
            side,
            dice.uniform(0.4, 0.9),
            dice.uniform(0.6, 2.2) if moved else dice.uniform(0.0, 0.3),
            dice.sign() * radians(dice.uniform(4, 18)) if moved else dice.sign() * radians(dice.uniform(0, 2)),
            side + dice.around(0.0, 0.5),
            False,
            _ragged(dice, 0.28),
        )
    return Lesion("fracture", _with_bone(finger, number, replace(bone, cut=cut)))


def _dislocation(finger: Finger, dice: Dice, theta: float) -> Lesion:
    joint = dice.choice((0, 1, 2), (0.15, 0.5, 0.35))
    bone = finger.bones[joint + 1]
    size = bone.depth[0] * 0.5 + bone.width[0] * 0.5
    side = theta + dice.around(0.0, radians(25))
    slip = Slip(
        joint,
        dice.sign() * size * dice.uniform(0.45, 1.15),
        dice.uniform(-0.5, 4.5),
        dice.around(0.0, radians(9)),
        side,
    )
    return Lesion("dislocation", replace(finger, slip=slip), joint=joint, radius=size * 1.25)


def _narrowing(finger: Finger, dice: Dice, theta: float) -> Lesion:
    joint = dice.choice((0, 1, 2), (0.2, 0.4, 0.4))
    spaces = list(finger.spaces)
    spaces[joint] *= dice.uniform(-0.1, 0.3)
    sclerosis, spur = dice.uniform(0.35, 1.0), dice.uniform(0.3, 1.5)
    near, far = finger.bones[joint], finger.bones[joint + 1]
    near = replace(
        near,
        sclerosis=(0.0, sclerosis),
        spurs=(0.0, spur * dice.uniform(0.6, 1.1)),
        groove=near.groove * dice.uniform(0.3, 0.9),
    )
    far = replace(far, sclerosis=(sclerosis, 0.0), spurs=(spur, 0.0), cup=far.cup * dice.uniform(0.5, 1.0))
    changed = _with_bone(_with_bone(finger, joint, near), joint + 1, far)
    first, second, third = spaces
    changed = replace(changed, spaces=(first, second, third))
    return Lesion("joint-space narrowing", changed, joint=joint, radius=far.width[0] * 1.15)


def _lytic(finger: Finger, dice: Dice, theta: float) -> Lesion:
    number = dice.choice((1, 2, 3), (0.5, 0.3, 0.2))
    bone = finger.bones[number]
    void = Void(
        bone.length * (dice.uniform(0.22, 0.72) if number < 3 else dice.uniform(0.3, 0.6)),
        dice.uniform(0.12, 0.23) * bone.length + 1.0,
        bone.width[1] * dice.uniform(0.75, 1.05),
        dice.uniform(0.05, 0.3),
        dice.uniform(0.02, 0.28),
    )
    # An enchondroma often holds specks of calcified cartilage.
    specks = tuple(
        Stroke((x, y), (x + 0.2, y + 0.1), dice.uniform(0.25, 0.5), dice.uniform(0.4, 1.2))
        for x, y in (
            (void.x + void.long * dice.around(0.0, 0.35), void.wide * dice.around(0.0, 0.35))
            for _ in range(dice.choice((0, 0, 3, 6)))
        )
    )
    return Lesion("lytic lesion", _with_bone(finger, number, replace(bone, void=void, strokes=bone.strokes + specks)))


def _metal(finger: Finger, dice: Dice, theta: float) -> Lesion:
    kind = dice.choice(("plate", "screws", "wires"), (0.35, 0.3, 0.35))
    number = dice.choice((1, 2), (0.65, 0.35)) if kind != "wires" else dice.choice((1, 2, 3), (0.4, 0.3, 0.3))
    bone = finger.bones[number]
    length = bone.length
    implants: list[Rod | Plate] = []
    if kind == "plate":
        side = -pi / 2 + dice.around(0.0, 0.35) if dice.chance(0.6) else dice.around(0.0, 0.35)
        distance = (bone.depth[1] if abs(sin(side)) > 0.7 else bone.width[1]) + 0.5
        x0, x1 = length * dice.uniform(0.14, 0.3), length * dice.uniform(0.68, 0.86)
        count = max(3, round((x1 - x0) / 5.0))
        holes = tuple(x0 + (x1 - x0) * (i + 0.5) / count for i in range(count))
        implants.append(Plate(number, x0, x1, side, distance, dice.uniform(3.2, 4.6), dice.uniform(0.7, 1.1), holes))
        for hole in holes:
            if dice.chance(0.8):
                tilt = dice.around(0.0, 0.5)
                implants.append(_screw(number, hole, distance, side, tilt, dice))
    elif kind == "screws":
        middle = length * dice.uniform(0.3, 0.7)
        side = dice.uniform(-pi, pi)
        for i in range(dice.integer(1, 3)):
            turn = side + dice.around(0.0, 0.25)
            distance = hypot(bone.width[1] * cos(turn), bone.depth[1] * sin(turn)) + 0.4
            implants.append(_screw(number, middle + 4.2 * (i - 1), distance, turn, dice.around(0.0, 2.5), dice))
    else:
        turn = theta + dice.around(0.0, 0.3)
        for sign in (-1.0, 1.0)[: dice.integer(1, 2)]:
            lean = dice.uniform(0.9, 1.5) * bone.width[1] * sign
            back, ahead = length * dice.uniform(-0.02, 0.12), length * dice.uniform(0.75, 1.05)
            start = (back, -lean * cos(turn), -lean * sin(turn))
            end = (ahead, lean * cos(turn), lean * sin(turn))
            implants.append(Rod(number, start, end, dice.uniform(0.4, 0.65)))
    changed = finger
    if dice.chance(0.5):
        cut = Cut(
            length * dice.uniform(0.4, 0.6),
            1.0,
            dice.around(0.0, 0.3),
            theta,
            dice.uniform(0.2, 0.5),
            dice.uniform(0.0, 0.4),
            0.0,
            theta,
            False,
            _ragged(dice, 0.25),
        )
        changed = _with_bone(finger, number, replace(bone, cut=cut))
    return Lesion("metal", changed, tuple(implants))


def _screw(number: int, x: float, distance: float, side: float, tilt: float, dice: Dice) -> Rod:
    near, far = distance + 0.6, -distance * dice.uniform(0.75, 1.1)
    start = (x, near * cos(side), near * sin(side))
    return Rod(number, start, (x + tilt, far * cos(side), far * sin(side)), 0.75, 0.22, 1.5)


def draw_lesion(tissue: Tissue, camera: Camera, lesion: Lesion, skeleton: Skeleton, pose: Pose) -> None:
    """Lay the implants over the finger and mark a joint's finding; bones mark their own when they are drawn."""
    for implant in lesion.implants:
        frame = skeleton.frames[implant.bone]
        if isinstance(implant, Plate):
            _draw_plate(tissue, camera, implant, frame, pose)
        else:
            _draw_rod(tissue, camera, implant, frame, pose)
    if lesion.joint is not None:
        joint = skeleton.joints[lesion.joint]
        window = camera.window([joint], lesion.radius)
        x, y = camera.local(Frame(joint[0], joint[1], 1.0, 0.0), window)
        tissue.finding[window] |= x * x + y * y < lesion.radius**2


def _add_metal(
    tissue: Tissue, window: tuple[slice, slice], metal: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
) -> None:
    tissue.metal[window] += metal
    tissue.finding[window] |= metal > 0.05


def _draw_rod(tissue: Tissue, camera: Camera, rod: Rod, frame: Frame, pose: Pose) -> None:
    def seen(solid: Solid) -> tuple[float, float]:
        return solid[0], solid[1] * cos(pose.theta) + solid[2] * sin(pose.theta)

    (x0, y0), (x1, y1) = seen(rod.start), seen(rod.end)
    points = [frame.at(x0, y0), frame.at(x1, y1)]
    window = camera.window(points, max(rod.radius, rod.head) + 1.0)
    if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
        return
    x, y = camera.local(frame, window)
    dx, dy = x1 - x0, y1 - y0
    flat = hypot(dx, dy)
    full = hypot(flat, (rod.end[2] - rod.start[2]) * cos(pose.theta) - (rod.end[1] - rod.start[1]) * sin(pose.theta))
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(flat * flat, 1e-6), 0.0, 1.0)
    off2 = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2
    radius: float | np.ndarray[tuple[int, ...], np.dtype[np.float64]] = rod.radius
    if rod.thread:
        radius = rod.radius + rod.thread * np.sin(along * flat * (2 * pi / 0.9))
    steep = min(full / max(flat, 0.2 * full, 1e-6), 4.0)
    metal = 2.0 * np.sqrt(np.maximum(radius * radius - off2, 0.0)) * steep
    if rod.head:
        head2 = (x - x0) ** 2 + (y - y0) ** 2
        metal = np.maximum(metal, 1.6 * np.sqrt(np.maximum(rod.head**2 - head2, 0.0)))
    _add_metal(tissue, window, metal)


def _draw_plate(tissue: Tissue, camera: Camera, plate: Plate, frame: Frame, pose: Pose) -> None:
    shown = pose.across(plate.side)
    hidden = max(0.0, 1.0 - shown * shown) ** 0.5
    half = 0.5 * (plate.width * hidden + plate.thick * abs(shown))
    middle = plate.distance * shown
    points = [frame.at(plate.x0, middle), frame.at(plate.x1, middle)]
    window = camera.window(points, half + 2.0)
    if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
        return
    x, y = camera.local(frame, window)
    y = y - middle
    gap = np.abs(x - np.asarray(plate.holes)[:, None, None]).min(axis=0)
    # Narrower between the holes, rounded at the ends.
    waist = half * (1.0 - 0.22 * hidden * np.clip((gap - 1.0) / 1.2, 0.0, 1.0))
    end = np.minimum(x - plate.x0, plate.x1 - x)
    edge = np.minimum(end + half * 0.5, waist - np.abs(y))
    metal = np.clip(edge / 0.25, 0.0, 1.0) * (plate.width * plate.thick / (2 * half))
    hole = np.clip((np.sqrt(gap * gap + y * y) - 0.95) / 0.3, 0.0, 1.0)
    metal = metal * (1.0 - hidden * (1.0 - hole))
    _add_metal(tissue, window, metal)
