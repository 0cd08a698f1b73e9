"""The MURA layout: SPLIT/XR_PART/patientNNNNN/studyN_LABEL/imageN.png, with or without its four CSV files.

Rajpurkar et al. 2018, MURA: Large Dataset for Abnormality Detection in Musculoskeletal Radiographs, arXiv 1712.06957.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from index.case import ABNORMAL, NORMAL, Case
from retrieval.datasets.case_table import some
from retrieval.errors import CollectionError
from retrieval.images.raster_headers import IMAGE_SUFFIXES
from retrieval.notices import Code, Notice

__all__ = ["MURA_PATIENT", "MuraFolder", "find_mura", "read_mura"]

_SPLITS = ("train", "valid", "test")
_PART = re.compile(r"XR_(\w+)", re.IGNORECASE)
MURA_PATIENT = re.compile(r"patient\w+", re.IGNORECASE)  # a name stands for one patient throughout the data set
_STUDY = re.compile(r"(study[a-z0-9]*)(?:_(positive|negative))?", re.IGNORECASE)
_LABELS = {"positive": ABNORMAL, "negative": NORMAL}


@dataclass(frozen=True, slots=True)
class MuraFolder:
    """The root of a copy of MURA, and the folders of parts to read, as (split, folder); the split may be ""."""

    root: Path
    parts: tuple[tuple[str, Path], ...]

    @property
    def splits(self) -> list[str]:
        return sorted({split for split, _ in self.parts} - {""})


@dataclass(frozen=True, slots=True)
class _Study:
    folder: str  # relative to the root: train/XR_FINGER/patient00001/study1_positive
    split: str
    name: str  # XR_FINGER/patient00001/study1
    patient: str
    part: str
    label: int | None  # as the folder's name says
    images: tuple[str, ...]


def find_mura(folder: Path) -> MuraFolder | None:
    """The copy of MURA whose root, split or part `folder` is; None if it is none of these."""
    splits = [(split, part) for split in _SPLITS for part in _subfolders(folder / split, _PART)]
    if splits:
        return MuraFolder(folder, tuple(splits))
    parts = _subfolders(folder, _PART)
    if not parts and _PART.fullmatch(folder.name) and _subfolders(folder, MURA_PATIENT):
        parts, folder = [folder], folder.parent
    if not parts:
        return None
    split = folder.name if folder.name in _SPLITS else ""
    return MuraFolder(folder.parent if split else folder, tuple((split, part) for part in parts))


def read_mura(mura: MuraFolder) -> tuple[list[Case], list[Notice]]:
    """The cases by split, part, patient, study and image number, and notices.

    The study folder ends in its label, `_positive` or `_negative`; else SPLIT_labeled_studies.csv has it. A study is
    named XR_PART/patientNNNNN/studyN, preceded by its split only if another split has a study of that name. Hidden
    files (such as `._*`) and files that are not images are passed over. Notices say where SPLIT_image_paths.csv and the
    folders differ.

    Raises CollectionError where a folder and a CSV file give different labels, and for a study without a label.
    """
    studies = [study for split, part in mura.parts for study in _studies(mura.root, split, part)]
    labels = _labels(mura, studies)
    splits_with = Counter(name for name, _ in {(study.name, study.split) for study in studies})

    cases = []
    for study in studies:
        name = study.name if splits_with[study.name] == 1 else f"{study.split}/{study.name}"
        for image in study.images:
            case = f"{study.folder}/{image}"
            path = str(mura.root / case)
            cases.append(
                Case(case, name, study.patient, labels[study.folder], study.part, split=study.split, path=path)
            )
    return cases, _notices(mura, cases)


def _studies(root: Path, split: str, part: Path) -> Iterator[_Study]:
    for patient in _subfolders(part, MURA_PATIENT):
        for folder in _subfolders(patient, _STUDY):
            name, _, label = folder.name.partition("_")
            yield _Study(
                folder=folder.relative_to(root).as_posix(),
                split=split,
                name=f"{part.name}/{patient.name}/{name}",
                patient=patient.name,
                part=part.name[len("XR_") :].lower(),
                label=_LABELS.get(label.lower()),
                images=_images(folder),
            )


def _subfolders(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    names = [entry.name for entry in os.scandir(folder) if pattern.fullmatch(entry.name) and entry.is_dir()]
    return [folder / name for name in sorted(names, key=_reading_order)]


def _images(folder: Path) -> tuple[str, ...]:
    names = [entry.name for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES]
    # A name that is not printable text cannot be stored or shown.
    return tuple(sorted((name for name in names if name[0] != "." and name.isprintable()), key=_reading_order))


def _reading_order(name: str) -> list[tuple[str, int]]:
    """image2 before image10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def _labels(mura: MuraFolder, studies: list[_Study]) -> dict[str, int]:
    """The label of each study's folder: as its name says, compared with the CSV files if there are any."""
    table = {folder: label for split in mura.splits for folder, label in _labelled_studies(mura.root, split)}
    other = [study.folder for study in studies if None is not study.label != table.get(study.folder, study.label)]
    if other:
        raise CollectionError(
            f"{mura.root}: the folder and labeled_studies.csv give different labels to {len(other)} studies: "
            f"{some(other)}; correct one of them"
        )
    unlabelled = [study.folder for study in studies if study.label is None and study.folder not in table]
    if unlabelled:
        raise CollectionError(
            f"{mura.root}: {len(unlabelled)} studies have no label: {some(unlabelled)}; end the folder's name in "
            "_positive or _negative, or list it in labeled_studies.csv"
        )
    return {study.folder: table[study.folder] if study.label is None else study.label for study in studies}


def _labelled_studies(root: Path, split: str) -> Iterator[tuple[str, int]]:
    table = root / f"{split}_labeled_studies.csv"
    for row in _rows(table):
        if len(row) != 2 or row[1].strip() not in ("0", "1"):
            raise CollectionError(f"{table} has a line other than a study's folder and 0 or 1: {','.join(row)}")
        yield _relative(row[0], levels=4), int(row[1])


def _listed_images(root: Path, split: str) -> list[str]:
    return [_relative(row[0], levels=5) for row in _rows(root / f"{split}_image_paths.csv")]


def _rows(table: Path) -> list[list[str]]:
    """The rows of a CSV file that are not empty; none if there is no file."""
    if not table.is_file():
        return []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CollectionError(f"{table} is not a CSV table in UTF-8: {error}; copy it again") from error


def _relative(path: str, levels: int) -> str:
    """A path relative to the root, whatever the root's name was when the CSV file was written."""
    return "/".join(path.strip().rstrip("/").split("/")[-levels:])


def _notices(mura: MuraFolder, cases: list[Case]) -> list[Notice]:
    lists = {split: images for split in mura.splits if (images := _listed_images(mura.root, split))}
    folders = {f"{split}/{part.name}" for split, part in mura.parts}  # a copy may hold fewer parts than its lists
    listed = {image for images in lists.values() for image in images if image.rsplit("/", 3)[0] in folders}
    here = {case.case for case in cases if case.split in lists}
    differences = {Code.LISTED_MISSING: listed - here, Code.UNLISTED_READ: here - listed}
    return [
        Notice(code, detail={"count": len(images), "names": some(sorted(images))})
        for code, images in differences.items()
        if images
    ]
