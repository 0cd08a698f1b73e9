"""Synthetic finger radiographs: anatomy, pose, beam, detector and labels, all from a seed.

They let anybody try, test and measure this tool without data. They are drawn, not learned: no patient's radiograph
went into them, and no figure measured on them says anything about real ones.

The same seed gives the same pixels on every machine. The random numbers come from PCG64's raw stream (see `Dice`), and
all arithmetic is in double precision up to one rounding to 8 bits at the end; libraries that differ in the last bits
of a double (exp, sin, the order of a sum) would have to meet a value within about 1e-11 of a rounding edge to show.
PNG files hold the same pixels everywhere, though their bytes may differ between versions of zlib.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import cos, radians, sin
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.dice import Dice
from retrieval.errors import CollectionError
from retrieval.exposure import Room, aim, expose, furnish
from retrieval.finger import (
    Bone,
    Camera,
    Finger,
    Pose,
    Skeleton,
    Stroke,
    Tissue,
    draw_finger,
    grow_finger,
    place,
)
from retrieval.lesion import Lesion, draw_lesion, inflict

__all__ = ["VIEWS", "Phantom", "draw_study", "write_collection"]

VIEWS = ("pa", "oblique", "lateral")

Map = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Phantom:
    """One synthetic radiograph.

    `pixels` (H, W) uint8; `label` 1 abnormal, 0 normal; `lesion` "" or one of `retrieval.lesion.LESIONS`; `mask`
    (H, W) bool, where the finding lies (nowhere in a normal one); `view` "pa", "oblique" or "lateral".
    """

    pixels: NDArray[np.uint8]
    label: int
    lesion: str
    mask: NDArray[np.bool_]
    view: str


def draw_study(seed: int, study: int, abnormal: bool, *, patient: int | None = None) -> list[Phantom]:
    """Draw the one to three views of one finger.

    Everything follows from `seed`, `study` and `patient` (by default the study's own number): two studies of one
    patient show fingers of one build. The same numbers with `abnormal` False give the same finger without its finding.
    """
    dice = Dice(seed, 1, study)
    owner = study if patient is None else patient
    which = dice.integer(0, 3)
    finger = _with_marks(grow_finger(Dice(seed, 0, owner), which), dice)
    room = furnish(dice)
    views = dice.choice(
        (("pa", "oblique", "lateral"), ("pa", "lateral"), ("pa", "oblique"), ("lateral",), ("pa",)),
        (0.55, 0.22, 0.1, 0.06, 0.07),
    )
    poses = [_pose(view, dice) for view in views]
    lesion = None
    if abnormal:
        harm = Dice(seed, 2, study)
        lesion = inflict(finger, harm, harm.choice(poses).theta)
    return [
        _draw_view(finger, lesion, view, pose, room, Dice(seed, 3, study, number))
        for number, (view, pose) in enumerate(zip(views, poses, strict=True))
    ]


def _with_marks(finger: Finger, dice: Dice) -> Finger:
    """Add what a healthy finger may show: nutrient canals, bone islands."""

    def marked(bone: Bone) -> Bone:
        strokes: list[Stroke] = []
        if dice.chance(0.3):
            x, y = bone.length * dice.uniform(0.35, 0.6), dice.sign() * bone.width[1] * dice.uniform(0.35, 0.8)
            strokes.append(
                Stroke((x, y), (x + dice.uniform(2.0, 4.0), y * dice.uniform(0.4, 0.8)), 0.35, -dice.uniform(0.4, 0.9))
            )
        if dice.chance(0.06):
            x, y = bone.length * dice.uniform(0.7, 0.9), bone.width[2] * dice.uniform(-0.4, 0.4)
            strokes.append(Stroke((x, y), (x + 0.6, y), dice.uniform(0.6, 1.1), dice.uniform(0.5, 1.3)))
        return replace(bone, strokes=tuple(strokes))

    first, second, third, fourth = finger.bones
    return replace(finger, bones=(first, marked(second), marked(third), marked(fourth)))


def _pose(view: str, dice: Dice) -> Pose:
    theta = {"pa": 0.0, "oblique": radians(42), "lateral": radians(88)}[view] + dice.around(0.0, radians(7))
    if view == "lateral":
        flexion = (0.0, radians(dice.uniform(0, 22)), radians(dice.uniform(2, 34)), radians(dice.uniform(0, 22)))
    else:
        flexion = (0.0, radians(dice.uniform(0, 14)), radians(dice.uniform(0, 14)), radians(dice.uniform(0, 10)))
    yaw = (0.0, radians(dice.around(0, 4)), radians(dice.around(0, 2.2)), radians(dice.around(0, 2.5)))
    return Pose(theta, flexion, yaw)


def _draw_view(finger: Finger, lesion: Lesion | None, view: str, pose: Pose, room: Room, dice: Dice) -> Phantom:
    shown = finger if lesion is None else lesion.finger
    camera = aim(place(finger, pose), finger, room, dice)
    tissue = Tissue.empty(camera.height, camera.width, dice)
    _draw_neighbours(tissue, camera, finger, pose, dice)
    skeleton = draw_finger(tissue, camera, shown, pose)
    _draw_palm(tissue, camera, finger, skeleton, pose)
    if lesion is not None:
        draw_lesion(tissue, camera, lesion, skeleton, pose)
    if room.ring and view != "lateral":
        _draw_ring(tissue, camera, finger, skeleton)
    pixels = expose(tissue, camera, room, dice)
    return Phantom(pixels, int(lesion is not None), "" if lesion is None else lesion.name, tissue.finding, view)


def _draw_neighbours(tissue: Tissue, camera: Camera, finger: Finger, pose: Pose, dice: Dice) -> None:
    """Draw the fingers beside it: spread apart seen from the back, folded out of the way seen from the side."""
    reach = 21.0 * finger.girth
    for sign in (-1.0, 1.0):
        size = dice.uniform(0.85, 1.02)
        other = replace(
            finger,
            bones=tuple(
                replace(b, length=b.length * size, width=_times(b.width, size), depth=_times(b.depth, size))
                for b in finger.bones
            ),
            girth=finger.girth * size,
        )
        spread = radians(dice.uniform(3.0, 12.0)) * sign
        if pose.theta > 1.2:
            folded = (0.0, radians(dice.uniform(50, 85)), radians(dice.uniform(60, 95)), radians(dice.uniform(20, 50)))
            there = dice.chance(0.45)
            beside = replace(pose, flexion=folded, origin=(dice.uniform(-9.0, -3.0), dice.uniform(-3.0, 3.0)))
        else:
            there = dice.chance(0.7)
            yaw = (0.0, pose.yaw[1] + spread, pose.yaw[2], pose.yaw[3])
            beside = replace(pose, yaw=yaw, origin=(dice.uniform(-10.0, 3.0), sign * reach * cos(pose.theta) ** 0.5))
        if there:
            draw_finger(tissue, camera, other, beside)


def _times(sizes: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return sizes[0] * factor, sizes[1] * factor, sizes[2] * factor


def _draw_palm(tissue: Tissue, camera: Camera, finger: Finger, skeleton: Skeleton, pose: Pose) -> None:
    """Join the fingers by the palm, up to the web at two fifths of the proximal phalanx."""
    first = skeleton.frames[0]
    x, y = camera.local(replace(first, scale=1.0), (slice(0, camera.height), slice(0, camera.width)))
    w, d = 36.0 * finger.girth, 13.0 * finger.girth
    a = ((w * cos(pose.theta)) ** 2 + (d * sin(pose.theta)) ** 2) ** 0.5
    b = min(w * d / a, 18.0)
    web = finger.bones[0].length + 0.3 * finger.bones[1].length - 0.004 * y * y
    section = np.maximum(1.0 - (y / a) ** 2, 0.0)
    palm = 2.0 * b * np.sqrt(section) * np.sqrt(np.clip((web - x) / 9.0, 0.0, 1.0))
    # A smooth maximum, so that the finger grows out of the palm without an edge.
    tissue.soft = np.sqrt(np.sqrt(tissue.soft**4 + palm**4))


def _draw_ring(tissue: Tissue, camera: Camera, finger: Finger, skeleton: Skeleton) -> None:
    frame = skeleton.frames[1]
    at, half, radius = 0.5 * finger.bones[1].length, 1.4, 9.0 * finger.girth
    window = camera.window([frame.at(at)], radius + 3.0)
    x, y = camera.local(frame, window)
    tall = np.clip((half - np.abs(x - at - 0.008 * y * y)) / 0.3, 0.0, 1.0)
    outer = np.sqrt(np.maximum((radius + 0.8) ** 2 - y * y, 0.0)) - np.sqrt(np.maximum(radius**2 - y * y, 0.0))
    tissue.metal[window] += 2.0 * outer * tall


NOTICE = """These radiographs are synthetic.

They were drawn by mura-search (retrieval/phantom.py) from the seed {seed}: {patients} patients, {studies} studies,
{images} radiographs. No person was imaged, and no figure measured on them says anything about real radiographs.
lesions.csv names each radiograph's view and finding; masks/ shows where the finding lies (255 = finding).
"""


@dataclass(frozen=True, slots=True)
class _Study:
    """A study to be drawn: its folder relative to the collection, and the numbers it follows from."""

    folder: str
    patient: int
    study: int
    abnormal: bool
    split: str


def write_collection(
    folder: Path,
    *,
    patients: int,
    seed: int = 0,
    abnormal: float = 0.4,
    valid: float = 0.15,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write synthetic finger studies in MURA's own layout, with its four CSV files.

    `patients` (at least 1) with one study, every sixth or so with two; the share `abnormal` of the studies of each
    split and the share `valid` of the patients are met as nearly as whole numbers allow. `progress` is told
    (studies done, studies in all). Beside MURA's files there are SYNTHETIC.txt, lesions.csv (`path,view,lesion,mask`)
    and masks/ with one `imageN_mask.png` for each abnormal radiograph.

    Everything is written in a hidden neighbour and renamed into place at the end, so `folder` is whole or absent.
    Raises CollectionError where `folder` already holds something.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  (a link's own name is the one the CSV files repeat)
    if patients < 1:
        raise CollectionError(f"a collection needs at least 1 patient, not {patients}")
    if not (0.0 <= abnormal <= 1.0 and 0.0 <= valid <= 1.0):
        raise CollectionError(f"the shares abnormal ({abnormal}) and valid ({valid}) must lie between 0 and 1")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CollectionError(f"{folder} already holds something; choose another place or empty it")
    studies = _plan(patients, seed, abnormal, valid)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_studies(partial, folder.name, studies, seed, progress)
        partial.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _plan(patients: int, seed: int, abnormal: float, valid: float) -> list[_Study]:
    """Number patients and studies, validation patients last, and deal the labels out within each split."""
    held = round(patients * valid)
    plan: list[_Study] = []
    for split, first, last in (("train", 1, patients - held), ("valid", patients - held + 1, patients)):
        dice = Dice(seed, 4, first, last)
        numbers = [(p, s) for p in range(first, last + 1) for s in range(1, 3 if Dice(seed, 5, p).chance(0.16) else 2)]
        labels = [i < round(abnormal * len(numbers)) for i in range(len(numbers))]
        for i in range(len(labels) - 1, 0, -1):
            j = dice.integer(0, i)
            labels[i], labels[j] = labels[j], labels[i]
        for (p, s), label in zip(numbers, labels, strict=True):
            name = f"{split}/XR_FINGER/patient{p:05d}/study{s}_{'positive' if label else 'negative'}"
            plan.append(_Study(name, p, 2 * p + s, label, split))
    return plan


def _write_studies(
    root: Path, name: str, studies: list[_Study], seed: int, progress: Callable[[int, int], None] | None
) -> None:
    images: dict[str, list[str]] = {"train": [], "valid": []}
    lesions = ["path,view,lesion,mask"]
    for done, study in enumerate(studies):
        (root / study.folder).mkdir(parents=True)
        views = draw_study(seed, study.study, study.abnormal, patient=study.patient)
        for number, phantom in enumerate(views, start=1):
            path, mask = f"{study.folder}/image{number}.png", ""
            _write_png(root / path, phantom.pixels)
            if study.abnormal:
                mask = f"masks/{study.folder}/image{number}_mask.png"
                (root / mask).parent.mkdir(parents=True, exist_ok=True)
                _write_png(root / mask, phantom.mask.astype(np.uint8) * 255)
            images[study.split].append(f"{name}/{path}")
            lesions.append(f"{path},{phantom.view},{phantom.lesion},{mask}")
        if progress is not None:
            progress(done + 1, len(studies))
    for split, paths in images.items():
        labels = [f"{name}/{s.folder}/,{int(s.abnormal)}" for s in studies if s.split == split]
        _write_bytes(root / f"{split}_image_paths.csv", _lines(paths))
        _write_bytes(root / f"{split}_labeled_studies.csv", _lines(labels))
    _write_bytes(root / "lesions.csv", _lines(lesions))
    count = len({s.patient for s in studies})
    notice = NOTICE.format(seed=seed, patients=count, studies=len(studies), images=len(lesions) - 1)
    _write_bytes(root / "SYNTHETIC.txt", notice.encode())


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    written, data = cv2.imencode(".png", pixels)
    if not written:
        raise OSError(f"{path} could not be encoded as PNG")
    _write_bytes(path, data.tobytes())


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
