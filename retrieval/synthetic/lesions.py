"""What makes a synthetic finger abnormal: one finding, a change of its anatomy or metal in it."""

from dataclasses import dataclass, replace
from math import cos, hypot, pi, radians, sin

from retrieval.synthetic.finger import Cavity, Dislocation, Finger, FracturePlane, Line, Pose, Skeleton
from retrieval.synthetic.hardware import Implant, Plate, Rod, draw_implant
from retrieval.synthetic.rng import RandomStream
from retrieval.synthetic.thickness_maps import Tissue, mark_joint

__all__ = ["LESIONS", "Lesion", "draw_lesion", "random_lesion"]

LESIONS = ("fracture", "dislocation", "joint-space narrowing", "lytic lesion", "metal")
SHARES = (0.40, 0.12, 0.18, 0.14, 0.16)


@dataclass(frozen=True, slots=True)
class Lesion:
    """A finger with its finding. A finding at a joint lies within `radius` mm of `joint`."""

    name: str
    finger: Finger
    implants: tuple[Implant, ...] = ()
    joint: int | None = None
    radius: float = 0.0


def random_lesion(finger: Finger, rng: RandomStream, theta: float) -> Lesion:
    """Draw one finding at random, seen best (not only) in a view from about `theta`."""
    makers = (_fracture, _dislocation, _narrowing, _lytic, _metal)
    return rng.choice(makers, SHARES)(finger, rng, theta)


def draw_lesion(tissue: Tissue, lesion: Lesion, skeleton: Skeleton, pose: Pose) -> None:
    """Draw the implants and mark a finding at a joint. `draw_finger` marks findings in bones."""
    for implant in lesion.implants:
        draw_implant(tissue, implant, skeleton.frames[implant.bone], pose)
    if lesion.joint is not None:
        mark_joint(tissue, skeleton.joints[lesion.joint], lesion.radius)


def _fracture(finger: Finger, rng: RandomStream, theta: float) -> Lesion:
    side = theta + rng.around(0.0, radians(11)) + rng.choice((0.0, pi))
    if rng.chance(0.25):
        number = rng.choice((2, 3))
        fracture = _avulsion(finger, number, side, rng)
    else:
        number = rng.choice((1, 2, 3), (0.4, 0.32, 0.28))
        slant = radians(rng.around(0.0, 9.0) if rng.chance(0.5) else rng.sign() * rng.uniform(32.0, 58.0))
        # Displaced or not: a hairline fracture does not move, so only the line shows.
        step, bend = (rng.uniform(0.6, 2.2), rng.uniform(4.0, 18.0)) if rng.chance(0.6) else (0.4, 1.5)
        fracture = FracturePlane(
            finger.bones[number].length * rng.uniform(0.28, 0.78), cos(slant), sin(slant), side,
            apart=rng.uniform(0.5, 0.95), step=step, bend=rng.sign() * radians(bend),
            toward=side + rng.around(0.0, 0.5), loose=False, ragged=_ragged(rng, 0.28),
        )  # fmt: skip
    return Lesion("fracture", finger.with_bone(number, replace(finger.bones[number], fracture=fracture)))


def _avulsion(finger: Finger, number: int, side: float, rng: RandomStream) -> FracturePlane:
    """Chip a corner off a base: the plane meets the surface `long` mm up and the base `deep` mm in."""
    bone = finger.bones[number]
    reach = hypot(bone.width[0] * cos(side), bone.depth[0] * sin(side))
    long, deep = rng.uniform(2.6, 4.6), reach * rng.uniform(0.5, 0.85)
    along, across = -deep / hypot(long, deep), long / hypot(long, deep)
    return FracturePlane(
        -(reach - deep) * across / along, along, across, side,
        apart=rng.uniform(0.35, 0.8), step=rng.uniform(0.3, 1.4), bend=rng.around(0.0, 0.15),
        toward=side, loose=True, ragged=_ragged(rng, 0.15),
    )  # fmt: skip


def _ragged(rng: RandomStream, height: float) -> tuple[float, ...]:
    return tuple(rng.around(0.0, height) for _ in range(13))


def _dislocation(finger: Finger, rng: RandomStream, theta: float) -> Lesion:
    joint = rng.choice((0, 1, 2), (0.15, 0.5, 0.35))
    size = (finger.bones[joint + 1].depth[0] + finger.bones[joint + 1].width[0]) / 2
    dislocation = Dislocation(
        joint,
        offset=rng.sign() * size * rng.uniform(0.45, 1.15),
        overlap=rng.uniform(-0.5, 4.5),
        tilt=rng.around(0.0, radians(9)),
        side=theta + rng.around(0.0, radians(25)),
    )
    return Lesion("dislocation", replace(finger, dislocation=dislocation), joint=joint, radius=size * 1.25)


def _narrowing(finger: Finger, rng: RandomStream, theta: float) -> Lesion:
    """Osteoarthritis: the joint space narrows, bone beneath the surface thickens, spurs grow at the rims."""
    joint = rng.choice((0, 1, 2), (0.2, 0.4, 0.4))
    sclerosis, spur = rng.uniform(0.35, 1.0), rng.uniform(0.3, 1.5)
    near, far = finger.bones[joint], finger.bones[joint + 1]
    worn = rng.uniform(0.3, 0.9)
    near = replace(
        near, sclerosis=(0.0, sclerosis), spurs=(0.0, spur * rng.uniform(0.6, 1.1)), groove=near.groove * worn
    )
    far = replace(far, sclerosis=(sclerosis, 0.0), spurs=(spur, 0.0), ridge=far.ridge * worn)
    changed = finger.with_bone(joint, near).with_bone(joint + 1, far)
    changed = changed.with_space(joint, finger.spaces[joint] * rng.uniform(-0.2, 0.25))
    return Lesion("joint-space narrowing", changed, joint=joint, radius=far.width[0] * 1.15)


def _lytic(finger: Finger, rng: RandomStream, theta: float) -> Lesion:
    """Like an enchondroma: a cavity in the marrow, a thin swollen wall, often specks of calcified cartilage."""
    number = rng.choice((1, 2, 3), (0.5, 0.3, 0.2))
    bone = finger.bones[number]
    cavity = Cavity(
        bone.length * rng.uniform(0.25, 0.68),
        long=rng.uniform(0.12, 0.23) * bone.length + 1.0,
        wide=bone.width[1] * rng.uniform(0.75, 1.05),
        left=rng.uniform(0.05, 0.3),
        swell=rng.uniform(0.04, 0.3),
    )
    specks: list[Line] = []
    for _ in range(rng.choice((0, 0, 3, 6))):
        x, y = cavity.x + cavity.long * rng.around(0.0, 0.35), cavity.wide * rng.around(0.0, 0.35)
        specks.append(Line((x, y), (x + 0.2, y + 0.1), rng.uniform(0.25, 0.5), rng.uniform(0.4, 1.2)))
    changed = replace(bone, cavity=cavity, lines=(*bone.lines, *specks))
    return Lesion("lytic lesion", finger.with_bone(number, changed))


def _metal(finger: Finger, rng: RandomStream, theta: float) -> Lesion:
    """Osteosynthesis by a plate with screws, by screws alone, or by wires; the fracture is healed or still visible."""
    kind = rng.choice((_plate, _screws, _wires), (0.35, 0.3, 0.35))
    number = rng.choice((1, 2, 3), (0.4, 0.3, 0.3)) if kind is _wires else rng.choice((1, 2), (0.65, 0.35))
    implants = kind(finger, number, theta, rng)
    bone = finger.bones[number]
    if rng.chance(0.5):
        slant = rng.around(0.0, 0.3)
        fracture = FracturePlane(
            bone.length * rng.uniform(0.4, 0.6), cos(slant), sin(slant), theta,
            apart=rng.uniform(0.2, 0.5), step=rng.uniform(0.0, 0.4), bend=0.0,
            toward=theta, loose=False, ragged=_ragged(rng, 0.25),
        )  # fmt: skip
        bone = replace(bone, fracture=fracture)
    return Lesion("metal", finger.with_bone(number, bone), implants)


def _plate(finger: Finger, number: int, theta: float, rng: RandomStream) -> tuple[Implant, ...]:
    bone = finger.bones[number]
    dorsal = rng.chance(0.6)
    side = (-pi / 2 if dorsal else rng.choice((0.0, pi))) + rng.around(0.0, 0.3)
    distance = (bone.depth[1] if dorsal else bone.width[1]) + 0.5
    start, stop = bone.length * rng.uniform(0.14, 0.3), bone.length * rng.uniform(0.68, 0.86)
    count = max(3, round((stop - start) / 5.0))
    holes = tuple(start + (stop - start) * (i + 0.5) / count for i in range(count))
    plate = Plate(number, (start, stop), side, distance, rng.uniform(3.2, 4.6), rng.uniform(0.7, 1.1), holes)
    screws = (_screw(number, hole, distance, side, rng, lean=0.5) for hole in holes if rng.chance(0.8))
    return plate, *screws


def _screws(finger: Finger, number: int, theta: float, rng: RandomStream) -> tuple[Implant, ...]:
    bone = finger.bones[number]
    middle, side = bone.length * rng.uniform(0.35, 0.65), rng.uniform(-pi, pi)
    distance = hypot(bone.width[1] * cos(side), bone.depth[1] * sin(side)) + 0.4
    count = rng.integer(1, 3)
    return tuple(_screw(number, middle + 4.2 * (i - 1), distance, side, rng, lean=2.5) for i in range(count))


def _screw(number: int, x: float, distance: float, side: float, rng: RandomStream, *, lean: float) -> Rod:
    near, far = distance + 0.6, -distance * rng.uniform(0.75, 1.1)
    start = (x, near * cos(side), near * sin(side))
    end = (x + rng.around(0.0, lean), far * cos(side), far * sin(side))
    return Rod(number, start, end, radius=0.75, thread=0.22, head=1.5)


def _wires(finger: Finger, number: int, theta: float, rng: RandomStream) -> tuple[Implant, ...]:
    """One oblique or two crossed Kirschner wires, their ends standing out of the bone."""
    bone = finger.bones[number]
    turn = theta + rng.around(0.0, 0.3)
    wires: list[Implant] = []
    for sign in (-1.0, 1.0)[: rng.integer(1, 2)]:
        lean = rng.uniform(1.0, 1.7) * bone.width[1] * sign
        start = (bone.length * rng.uniform(-0.05, 0.12), -lean * cos(turn), -lean * sin(turn))
        end = (bone.length * rng.uniform(0.75, 1.05), lean * cos(turn), lean * sin(turn))
        wires.append(Rod(number, start, end, radius=rng.uniform(0.4, 0.65)))
    return tuple(wires)
