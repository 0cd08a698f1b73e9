"""What makes a synthetic finger abnormal: one finding, changed into its anatomy or laid over it."""

from dataclasses import dataclass, replace
from math import cos, hypot, pi, radians, sin

from retrieval.synthetic.finger import Cut, Finger, Pose, Skeleton, Slip, Stroke, Void
from retrieval.synthetic.hardware import Implant, Plate, Rod, draw_implant
from retrieval.synthetic.rng import Dice
from retrieval.synthetic.thickness_maps import Tissue, mark_joint

__all__ = ["LESIONS", "Lesion", "draw_lesion", "inflict"]

LESIONS = ("fracture", "dislocation", "joint-space narrowing", "lytic lesion", "metal")
SHARES = (0.40, 0.12, 0.18, 0.14, 0.16)


@dataclass(frozen=True, slots=True)
class Lesion:
    """A finger with its finding; `joint` is where it lies if it lies at a joint, within `radius` mm."""

    name: str
    finger: Finger
    implants: tuple[Implant, ...] = ()
    joint: int | None = None
    radius: float = 0.0


def inflict(finger: Finger, dice: Dice, theta: float) -> Lesion:
    """Give a finger one finding, shown best (not only) in a view from about `theta`."""
    makers = (_fracture, _dislocation, _narrowing, _lytic, _metal)
    return dice.choice(makers, SHARES)(finger, dice, theta)


def draw_lesion(tissue: Tissue, lesion: Lesion, skeleton: Skeleton, pose: Pose) -> None:
    """Lay the implants over the finger and mark a joint's finding; bones mark their own when they are drawn."""
    for implant in lesion.implants:
        draw_implant(tissue, implant, skeleton.frames[implant.bone], pose)
    if lesion.joint is not None:
        mark_joint(tissue, skeleton.joints[lesion.joint], lesion.radius)


def _fracture(finger: Finger, dice: Dice, theta: float) -> Lesion:
    side = theta + dice.around(0.0, radians(11)) + dice.choice((0.0, pi))
    if dice.chance(0.25):
        number = dice.choice((2, 3))
        cut = _avulsion(finger, number, side, dice)
    else:
        number = dice.choice((1, 2, 3), (0.4, 0.32, 0.28))
        slant = radians(dice.around(0.0, 9.0) if dice.chance(0.5) else dice.sign() * dice.uniform(32.0, 58.0))
        # Displaced or not: a hairline keeps its place, so the line is all there is to see.
        step, bend = (dice.uniform(0.6, 2.2), dice.uniform(4.0, 18.0)) if dice.chance(0.6) else (0.4, 1.5)
        cut = Cut(
            finger.bones[number].length * dice.uniform(0.28, 0.78),
            along=cos(slant),
            across=sin(slant),
            side=side,
            apart=dice.uniform(0.5, 0.95),
            step=step,
            bend=dice.sign() * radians(bend),
            toward=side + dice.around(0.0, 0.5),
            loose=False,
            ragged=_ragged(dice, 0.28),
        )
    return Lesion("fracture", finger.with_bone(number, replace(finger.bones[number], cut=cut)))


def _avulsion(finger: Finger, number: int, side: float, dice: Dice) -> Cut:
    """Chip a corner off a base: the plane meets the surface `long` mm up and the base `deep` mm in."""
    bone = finger.bones[number]
    reach = hypot(bone.width[0] * cos(side), bone.depth[0] * sin(side))
    long, deep = dice.uniform(2.6, 4.6), reach * dice.uniform(0.5, 0.85)
    along, across = -deep / hypot(long, deep), long / hypot(long, deep)
    return Cut(
        -(reach - deep) * across / along,
        along,
        across,
        side,
        apart=dice.uniform(0.35, 0.8),
        step=dice.uniform(0.3, 1.4),
        bend=dice.around(0.0, 0.15),
        toward=side,
        loose=True,
        ragged=_ragged(dice, 0.15),
    )


def _ragged(dice: Dice, height: float) -> tuple[float, ...]:
    return tuple(dice.around(0.0, height) for _ in range(13))


def _dislocation(finger: Finger, dice: Dice, theta: float) -> Lesion:
    joint = dice.choice((0, 1, 2), (0.15, 0.5, 0.35))
    size = (finger.bones[joint + 1].depth[0] + finger.bones[joint + 1].width[0]) / 2
    slip = Slip(
        joint,
        offset=dice.sign() * size * dice.uniform(0.45, 1.15),
        overlap=dice.uniform(-0.5, 4.5),
        tilt=dice.around(0.0, radians(9)),
        side=theta + dice.around(0.0, radians(25)),
    )
    return Lesion("dislocation", replace(finger, slip=slip), joint=joint, radius=size * 1.25)


def _narrowing(finger: Finger, dice: Dice, theta: float) -> Lesion:
    """Osteoarthritis: the space goes, bone beneath the surface thickens, spurs grow at the rims."""
    joint = dice.choice((0, 1, 2), (0.2, 0.4, 0.4))
    sclerosis, spur = dice.uniform(0.35, 1.0), dice.uniform(0.3, 1.5)
    near, far = finger.bones[joint], finger.bones[joint + 1]
    worn = dice.uniform(0.3, 0.9)
    near = replace(
        near, sclerosis=(0.0, sclerosis), spurs=(0.0, spur * dice.uniform(0.6, 1.1)), groove=near.groove * worn
    )
    far = replace(far, sclerosis=(sclerosis, 0.0), spurs=(spur, 0.0), ridge=far.ridge * worn)
    changed = finger.with_bone(joint, near).with_bone(joint + 1, far)
    changed = changed.with_space(joint, finger.spaces[joint] * dice.uniform(-0.2, 0.25))
    return Lesion("joint-space narrowing", changed, joint=joint, radius=far.width[0] * 1.15)


def _lytic(finger: Finger, dice: Dice, theta: float) -> Lesion:
    """An enchondroma's picture: a hollow in the marrow, a thin swollen wall, often specks of calcified cartilage."""
    number = dice.choice((1, 2, 3), (0.5, 0.3, 0.2))
    bone = finger.bones[number]
    void = Void(
        bone.length * dice.uniform(0.25, 0.68),
        long=dice.uniform(0.12, 0.23) * bone.length + 1.0,
        wide=bone.width[1] * dice.uniform(0.75, 1.05),
        left=dice.uniform(0.05, 0.3),
        swell=dice.uniform(0.04, 0.3),
    )
    specks: list[Stroke] = []
    for _ in range(dice.choice((0, 0, 3, 6))):
        x, y = void.x + void.long * dice.around(0.0, 0.35), void.wide * dice.around(0.0, 0.35)
        specks.append(Stroke((x, y), (x + 0.2, y + 0.1), dice.uniform(0.25, 0.5), dice.uniform(0.4, 1.2)))
    changed = replace(bone, void=void, strokes=(*bone.strokes, *specks))
    return Lesion("lytic lesion", finger.with_bone(number, changed))


def _metal(finger: Finger, dice: Dice, theta: float) -> Lesion:
    """Osteosynthesis by a plate with screws, by screws alone, or by wires; the fracture healed or still to be seen."""
    kind = dice.choice((_plate, _screws, _wires), (0.35, 0.3, 0.35))
    number = dice.choice((1, 2, 3), (0.4, 0.3, 0.3)) if kind is _wires else dice.choice((1, 2), (0.65, 0.35))
    implants = kind(finger, number, theta, dice)
    bone = finger.bones[number]
    if dice.chance(0.5):
        slant = dice.around(0.0, 0.3)
        cut = Cut(
            bone.length * dice.uniform(0.4, 0.6),
            along=cos(slant),
            across=sin(slant),
            side=theta,
            apart=dice.uniform(0.2, 0.5),
            step=dice.uniform(0.0, 0.4),
            bend=0.0,
            toward=theta,
            loose=False,
            ragged=_ragged(dice, 0.25),
        )
        bone = replace(bone, cut=cut)
    return Lesion("metal", finger.with_bone(number, bone), implants)


def _plate(finger: Finger, number: int, theta: float, dice: Dice) -> tuple[Implant, ...]:
    bone = finger.bones[number]
    dorsal = dice.chance(0.6)
    side = (-pi / 2 if dorsal else dice.choice((0.0, pi))) + dice.around(0.0, 0.3)
    distance = (bone.depth[1] if dorsal else bone.width[1]) + 0.5
    start, stop = bone.length * dice.uniform(0.14, 0.3), bone.length * dice.uniform(0.68, 0.86)
    count = max(3, round((stop - start) / 5.0))
    holes = tuple(start + (stop - start) * (i + 0.5) / count for i in range(count))
    plate = Plate(number, (start, stop), side, distance, dice.uniform(3.2, 4.6), dice.uniform(0.7, 1.1), holes)
    screws = (_screw(number, hole, distance, side, dice, lean=0.5) for hole in holes if dice.chance(0.8))
    return plate, *screws


def _screws(finger: Finger, number: int, theta: float, dice: Dice) -> tuple[Implant, ...]:
    bone = finger.bones[number]
    middle, side = bone.length * dice.uniform(0.35, 0.65), dice.uniform(-pi, pi)
    distance = hypot(bone.width[1] * cos(side), bone.depth[1] * sin(side)) + 0.4
    count = dice.integer(1, 3)
    return tuple(_screw(number, middle + 4.2 * (i - 1), distance, side, dice, lean=2.5) for i in range(count))


def _screw(number: int, x: float, distance: float, side: float, dice: Dice, *, lean: float) -> Rod:
    near, far = distance + 0.6, -distance * dice.uniform(0.75, 1.1)
    start = (x, near * cos(side), near * sin(side))
    end = (x + dice.around(0.0, lean), far * cos(side), far * sin(side))
    return Rod(number, start, end, radius=0.75, thread=0.22, head=1.5)


def _wires(finger: Finger, number: int, theta: float, dice: Dice) -> tuple[Implant, ...]:
    """One oblique or two crossed Kirschner wires, their ends standing out of the bone."""
    bone = finger.bones[number]
    turn = theta + dice.around(0.0, 0.3)
    wires: list[Implant] = []
    for sign in (-1.0, 1.0)[: dice.integer(1, 2)]:
        lean = dice.uniform(1.0, 1.7) * bone.width[1] * sign
        start = (bone.length * dice.uniform(-0.05, 0.12), -lean * cos(turn), -lean * sin(turn))
        end = (bone.length * dice.uniform(0.75, 1.05), lean * cos(turn), lean * sin(turn))
        wires.append(Rod(number, start, end, radius=dice.uniform(0.4, 0.65)))
    return tuple(wires)
