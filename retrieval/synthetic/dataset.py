"""Synthetic finger radiographs: a finger in some pose, with or without a finding, all from a seed.

They serve to try, test and measure this tool without data. They are drawn, not learned: no patient's radiograph went
into them, and no figure measured on them says anything about real radiographs.

The same seed gives the same pixels on every machine. The random numbers come from PCG64's raw stream (see
`RandomStream`). All arithmetic is in double precision up to one rounding to 8 bits at the end. So a library that
differs in the last bits of exp, sin or a sum changes a pixel only if its value lies within about 1e-11 of a rounding
edge. The bytes of the files may differ between versions of the PNG encoder.
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

from index.atomic import sync
from retrieval.errors import CollectionError
from retrieval.formats.csv_format import table
from retrieval.synthetic.acquisition import Acquisition, aim_camera, expose, random_acquisition
from retrieval.synthetic.finger import VIEWS, Finger, Pose, project_bones, random_finger, random_pose
from retrieval.synthetic.lesions import LESIONS, Lesion, draw_lesion, random_lesion
from retrieval.synthetic.rng import RandomStream
from retrieval.synthetic.thickness_maps import Tissue, draw_finger, draw_palm, draw_ring

__all__ = ["LESIONS", "VIEWS", "Phantom", "draw_study", "write_collection"]

# Which views a study has, and how often: as in MURA, mostly all three.
TAKEN = (("pa", "oblique", "lateral"), ("pa", "lateral"), ("pa", "oblique"), ("lateral",), ("pa",))
TAKEN_SHARES = (0.55, 0.22, 0.1, 0.06, 0.07)


@dataclass(frozen=True, slots=True)
class Phantom:
    """One synthetic radiograph.

    `pixels` (H, W) uint8; `label` 1 abnormal, 0 normal; `lesion` "" or one of LESIONS; `mask` (H, W) bool, True where
    the finding lies; `view` one of VIEWS.
    """

    pixels: NDArray[np.uint8]
    label: int
    lesion: str
    mask: NDArray[np.bool_]
    view: str


def draw_study(seed: int, study: int, abnormal: bool, *, patient: int | None = None) -> list[Phantom]:
    """Draw the one to three views of one finger.

    `seed`, `study` and `patient` (by default the study's number), each at least 0, determine everything. Two studies of
    one patient show fingers of the same build. With `abnormal` False, the same numbers give the same finger without its
    finding.
    """
    study_rng = RandomStream(seed, 1, study)
    finger = random_finger(RandomStream(seed, 0, study if patient is None else patient), study_rng)
    acquisition = random_acquisition(study_rng)
    views = study_rng.choice(TAKEN, TAKEN_SHARES)
    poses = [random_pose(view, study_rng) for view in views]
    lesion = None
    if abnormal:
        lesion_rng = RandomStream(seed, 2, study)
        lesion = random_lesion(finger, lesion_rng, lesion_rng.choice(poses).theta)
    return [
        _draw_view(view, pose, finger, lesion, acquisition=acquisition, rng=RandomStream(seed, 3, study, number))
        for number, (view, pose) in enumerate(zip(views, poses, strict=True))
    ]


def _draw_view(
    view: str, pose: Pose, finger: Finger, lesion: Lesion | None, *, acquisition: Acquisition, rng: RandomStream
) -> Phantom:
    whole = project_bones(finger, pose)
    tissue = Tissue.empty(aim_camera(whole, finger, acquisition, rng), rng)
    _draw_neighbours(tissue, finger, pose, rng)
    skeleton = draw_finger(tissue, finger if lesion is None else lesion.finger, pose)
    draw_palm(tissue, finger, whole.frames[0], pose)
    if acquisition.ring and view != "lateral":
        draw_ring(tissue, finger, whole.frames[1], acquisition.ring)
    if lesion is not None:
        draw_lesion(tissue, lesion, skeleton, pose)
    pixels = expose(tissue, acquisition, rng)
    return Phantom(pixels, int(lesion is not None), lesion.name if lesion else "", tissue.finding, view)


def _draw_neighbours(tissue: Tissue, finger: Finger, pose: Pose, rng: RandomStream) -> None:
    """Draw the adjacent fingers: spread in the picture's plane, or flexed in a lateral view."""
    for sign in (1.0, -1.0):  # radial, ulnar
        neighbour = finger.scaled(rng.uniform(0.85, 1.02))
        fist = (radians(rng.uniform(50, 85)), radians(rng.uniform(60, 95)), radians(rng.uniform(20, 50)))
        spread, back = radians(rng.uniform(3.0, 12.0)) * sign, rng.uniform(-10.0, 2.0)
        there, lateral = rng.chance(0.75), pose.shows(0.0) < 0.35
        away = rng.around(0.0, 2.0) if lateral else 20.0 * finger.girth * sign * pose.shows(0.0) ** 0.5
        beside = replace(
            pose,
            flexion=(0.0, *fist) if lateral else pose.flexion,
            yaw=(spread * 0.5, pose.yaw[1] + spread * 0.5, *pose.yaw[2:]),
            origin=(back, away),
        )
        edge = finger.digit == (0 if sign > 0 else 3)
        if there and not edge:
            draw_finger(tissue, neighbour, beside)


NOTICE = """These radiographs are synthetic.

They were drawn by mura-search (retrieval/synthetic/) from the seed {seed}: {patients} patients, {studies} studies,
{images} radiographs. No person was imaged, and no figure measured on them says anything about real radiographs.
lesions.csv names each radiograph's view and finding; masks/ shows where the finding lies (255 = finding).
"""


@dataclass(frozen=True, slots=True)
class _Study:
    """A study to draw: its folder relative to the collection, and the numbers that determine it."""

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
    split and the share `valid` of the patients are met as closely as whole numbers allow. `progress` is called with
    (studies done, studies in all). Beside MURA's files there are SYNTHETIC.txt, lesions.csv (`path,view,lesion,mask`)
    and masks/ with one `imageN_mask.png` for each abnormal radiograph.

    Everything is written in a hidden neighbour and renamed into place at the end, so `folder` is whole or absent; a
    process killed midway leaves that neighbour and nothing else.
    Raises CollectionError if `folder` already holds something, or a number is out of range.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  (a link's own name is the one the CSV files repeat)
    if patients < 1:
        raise CollectionError(f"a collection needs at least 1 patient, not {patients}")
    if not (0.0 <= abnormal <= 1.0 and 0.0 <= valid <= 1.0):
        raise CollectionError(f"the shares abnormal ({abnormal}) and valid ({valid}) must lie between 0 and 1")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CollectionError(f"{folder} already holds something; choose another folder or empty it")
    studies = _plan(patients, seed, abnormal, valid)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_studies(partial, folder.name, studies, seed, progress)
        partial.chmod(0o755)
        partial.replace(folder)  # rename(2) replaces an empty folder
        sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _plan(patients: int, seed: int, abnormal: float, valid: float) -> list[_Study]:
    """Number patients and studies, validation patients last, and distribute the labels within each split."""
    held = round(patients * valid)
    plan: list[_Study] = []
    for split, first, last in (("train", 1, patients - held), ("valid", patients - held + 1, patients)):
        rng = RandomStream(seed, 4, first, last)
        numbers = [
            (p, s) for p in range(first, last + 1) for s in range(1, 3 if RandomStream(seed, 5, p).chance(0.16) else 2)
        ]
        labels = [i < round(abnormal * len(numbers)) for i in range(len(numbers))]
        for i in range(len(labels) - 1, 0, -1):
            j = rng.integer(0, i)
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
    path.write_bytes(data)
    sync(path)
