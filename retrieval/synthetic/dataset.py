"""Synthetic finger radiographs: a finger, held and lit in some way, with or without a finding, all from a seed.

They let anybody try, test and measure this tool without data. They are drawn, not learned: no patient's radiograph went
into them, and no figure measured on them says anything about real ones.

The same seed gives the same pixels on every machine. The random numbers come from PCG64's raw stream (see `Dice`), and
all arithmetic is in double precision up to one rounding to 8 bits at the end, so a library that differs in the last
bits of exp, sin or a sum shows only where a value lies within about 1e-11 of a rounding edge. The files hold the same
pixels everywhere, though their bytes may differ between versions of the PNG encoder.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import radians
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.csv_format import table
from retrieval.errors import CollectionError
from retrieval.synthetic.acquisition import Room, aim, expose, furnish
from retrieval.synthetic.finger import VIEWS, Finger, Pose, grow_finger, hold, place
from retrieval.synthetic.lesions import LESIONS, Lesion, draw_lesion, inflict
from retrieval.synthetic.rng import Dice
from retrieval.synthetic.thickness_maps import Tissue, draw_finger, draw_palm, draw_ring

__all__ = ["LESIONS", "VIEWS", "Phantom", "draw_study", "write_collection"]

# Which views a study has, and how often: as in MURA, mostly all three.
TAKEN = (("pa", "oblique", "lateral"), ("pa", "lateral"), ("pa", "oblique"), ("lateral",), ("pa",))
TAKEN_SHARES = (0.55, 0.22, 0.1, 0.06, 0.07)


@dataclass(frozen=True, slots=True)
class Phantom:
    """One synthetic radiograph.

    `pixels` (H, W) uint8; `label` 1 abnormal, 0 normal; `lesion` "" or one of LESIONS; `mask` (H, W) bool, where the
    finding lies (nowhere in a normal one); `view` one of VIEWS.
    """

    pixels: NDArray[np.uint8]
    label: int
    lesion: str
    mask: NDArray[np.bool_]
    view: str


def draw_study(seed: int, study: int, abnormal: bool, *, patient: int | None = None) -> list[Phantom]:
    """Draw the one to three views of one finger.

    All follows from `seed`, `study` and `patient` (by default the study's number), each at least 0: two studies of one
    patient show fingers of one build, and the same numbers with `abnormal` False the same finger without its finding.
    """
    habit = Dice(seed, 1, study)
    finger = grow_finger(Dice(seed, 0, study if patient is None else patient), habit)
    room = furnish(habit)
    views = habit.choice(TAKEN, TAKEN_SHARES)
    poses = [hold(view, habit) for view in views]
    lesion = None
    if abnormal:
        harm = Dice(seed, 2, study)
        lesion = inflict(finger, harm, harm.choice(poses).theta)
    return [
        _draw_view(view, pose, finger, lesion, room=room, dice=Dice(seed, 3, study, number))
        for number, (view, pose) in enumerate(zip(views, poses, strict=True))
    ]


def _draw_view(view: str, pose: Pose, finger: Finger, lesion: Lesion | None, *, room: Room, dice: Dice) -> Phantom:
    whole = place(finger, pose)
    tissue = Tissue.empty(aim(whole, finger, room, dice), dice)
    _draw_neighbours(tissue, finger, pose, dice)
    skeleton = draw_finger(tissue, finger if lesion is None else lesion.finger, pose)
    draw_palm(tissue, finger, whole.frames[0], pose)
    if room.ring and view != "lateral":
        draw_ring(tissue, finger, whole.frames[1], room.ring)
    if lesion is not None:
        draw_lesion(tissue, lesion, skeleton, pose)
    pixels = expose(tissue, room, dice)
    return Phantom(pixels, int(lesion is not None), lesion.name if lesion else "", tissue.finding, view)


def _draw_neighbours(tissue: Tissue, finger: Finger, pose: Pose, dice: Dice) -> None:
    """Draw the fingers beside it: spread in the picture's plane, or folded out of the way of a lateral view."""
    for sign in (1.0, -1.0):  # radial, ulnar
        other = finger.scaled(dice.uniform(0.85, 1.02))
        fist = (radians(dice.uniform(50, 85)), radians(dice.uniform(60, 95)), radians(dice.uniform(20, 50)))
        spread, back = radians(dice.uniform(3.0, 12.0)) * sign, dice.uniform(-10.0, 2.0)
        there, lateral = dice.chance(0.75), pose.shows(0.0) < 0.35
        away = dice.around(0.0, 2.0) if lateral else 20.0 * finger.girth * sign * pose.shows(0.0) ** 0.5
        beside = replace(
            pose,
            flexion=(0.0, *fist) if lateral else pose.flexion,
            yaw=(spread * 0.5, pose.yaw[1] + spread * 0.5, *pose.yaw[2:]),
            origin=(back, away),
        )
        edge = finger.which == (0 if sign > 0 else 3)
        if there and not edge:
            draw_finger(tissue, other, beside)


NOTICE = """These radiographs are synthetic.

They were drawn by mura-search (retrieval/synthetic/) from the seed {seed}: {patients} patients, {studies} studies,
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

    Everything is written in a hidden neighbour and renamed into place at the end, so `folder` is whole or absent; a
    process killed midway leaves that neighbour and nothing else.
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
    images: dict[str, list[tuple[str, ...]]] = {"train": [], "valid": []}
    lesions = [("path", "view", "lesion", "mask")]
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
            images[study.split].append((f"{name}/{path}",))
            lesions.append((path, phantom.view, phantom.lesion, mask))
        if progress is not None:
            progress(done + 1, len(studies))
    for split, paths in images.items():
        labels = [(f"{name}/{s.folder}/", str(int(s.abnormal))) for s in studies if s.split == split]
        _write_table(root / f"{split}_image_paths.csv", paths)
        _write_table(root / f"{split}_labeled_studies.csv", labels)
    _write_table(root / "lesions.csv", lesions)
    count = len({s.patient for s in studies})
    notice = NOTICE.format(seed=seed, patients=count, studies=len(studies), images=len(lesions) - 1)
    _write_bytes(root / "SYNTHETIC.txt", notice.encode())


def _write_table(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    _write_bytes(path, table(rows).encode())


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
