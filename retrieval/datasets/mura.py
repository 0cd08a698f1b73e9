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

__all__ = ["MURA_PATIENT", "MuraFolder", "find_mura", "read_mura"]

_SPLITS = ("train", "valid", "test")
_PART = re.compile(r"XR_(\w+)", re.IGNORECASE)
MURA_PATIENT = re.compile(r"patient\w+", re.IGNORECASE)  # a name stands for one patient throughout the data set
_STUDY = re.compile(r"(study[a-z0-9]*)(?:_(positive|negative))?", re.IGNORECASE)
_LABELS = {"positive": ABNORMAL, "negative": NORMAL}


@dataclass(frozen=True, slots=True)
class MuraFolder:
    """A MURA copy's root, and the part folders to read, each as (split, folder), split "" where there is none."""

    root: Path
    parts: tuple[tuple[str, Path], ...]

    @property
    def splits(self) -> list[str]:
        return sorted({split for split, _ in self.parts} - {""})


@dataclass(frozen=True, slots=True)
class _Study:
    place: str  # relative to the root: train/XR_FINGER/patient00001/study1_positive
    split: str
    name: str  # XR_FINGER/patient00001/study1
    patient: str
    part: str
    label: int | None  # as the folder's name says
    images: tuple[str, ...]


def find_mura(folder: Path) -> MuraFolder | None:
    """The MURA copy that `folder` is the root of, or a split of, or a part of; None where it is none of these."""
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


def read_mura(mura: MuraFolder) -> tuple[list[Case], list[str]]:
    """The cases by split, part, patient, study and image number, and notes.

    The label is the study folder's, `_positive` or `_negative`; a folder that says neither takes it from
    SPLIT_labeled_studies.csv. A study is called XR_PART/patientNNNNN/studyN, with its split before it only where
    another split has a study of that name as well. Hidden files (`._*` among them) and files that are no images are
    passed over. Notes tell where SPLIT_image_paths.csv and the folders disagree.

    Raises CollectionError: a folder and a CSV file that give different labels, a study without any label.
    """
    studies = [study for split, part in mura.parts for study in _studies(mura.root, split, part)]
    labels = _labels(mura, studies)
    splits_with = Counter(name for name, _ in {(study.name, study.split) for study in studies})

    cases = []
    for study in studies:
        name = study.name if splits_with[study.name] == 1 else f"{study.split}/{study.name}"
        for image in study.images:
            case = f"{study.place}/{image}"
            path = str(mura.root / case)
            cases.append(Case(case, name, study.patient, labels[study.place], study.part, split=study.split, path=path))
    return cases, _notes(mura, cases)


def _studies(root: Path, split: str, part: Path) -> Iterator[_Study]:
    for patient in _subfolders(part, MURA_PATIENT):
        for folder in _subfolders(patient, _STUDY):
            name, _, label = folder.name.partition("_")
            yield _Study(
                place=folder.relative_to(root).as_posix(),
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
    # A name that is no printable text could be stored nowhere and shown to nobody.
    return tuple(sorted((name for name in names if name[0] != "." and name.isprintable()), key=_reading_order))


def _reading_order(name: str) -> list[tuple[str, int]]:
    """image2 before image10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def _labels(mura: MuraFolder, studies: list[_Study]) -> dict[str, int]:
    """Each study's label by its place: its folder's, held against the CSV files' where there are any."""
    table = {place: label for split in mura.splits for place, label in _labelled_studies(mura.root, split)}
    other = [study.place for study in studies if None is not study.label != table.get(study.place, study.label)]
    if other:
        raise CollectionError(
            f"{mura.root}: the folder and labeled_studies.csv give different labels to {len(other)} studies: "
            f"{some(other)}; correct one of them"
        )
    none = [study.place for study in studies if study.label is None and study.place not in table]
    if none:
        raise CollectionError(
            f"{mura.root}: {len(none)} studies have no label: {some(none)}; end the folder's name in _positive or "
            "_negative, or list it in labeled_studies.csv"
        )
    return {study.place: table[study.place] if study.label is None else study.label for study in studies}


def _labelled_studies(root: Path, split: str) -> Iterator[tuple[str, int]]:
    table = root / f"{split}_labeled_studies.csv"
    for row in _rows(table):
        if len(row) != 2 or row[1].strip() not in ("0", "1"):
            raise CollectionError(f"{table} has a line other than a study's folder and 0 or 1: {','.join(row)}")
        yield _place(row[0], levels=4), int(row[1])


def _listed_images(root: Path, split: str) -> list[str]:
    return [_place(row[0], levels=5) for row in _rows(root / f"{split}_image_paths.csv")]


def _rows(table: Path) -> list[list[str]]:
    """A CSV file's rows that are not empty; none where there is no file."""
    if not table.is_file():
        return []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CollectionError(f"{table} is no CSV table in UTF-8: {error}; copy it again") from error


def _place(path: str, levels: int) -> str:
    """Relative to the root, whatever the root was called when the CSV file was written."""
    return "/".join(path.strip().rstrip("/").split("/")[-levels:])


def _notes(mura: MuraFolder, cases: list[Case]) -> list[str]:
    lists = {split: images for split in mura.splits if (images := _listed_images(mura.root, split))}
    folders = {f"{split}/{part.name}" for split, part in mura.parts}  # a copy may hold fewer parts than its lists
    listed = {image for images in lists.values() for image in images if image.rsplit("/", 3)[0] in folders}
    there = {case.case for case in cases if case.split in lists}
    notes = []
    if missing := sorted(listed - there):
        notes.append(f"{len(missing)} images that image_paths.csv lists are missing: {some(missing)}")
    if unlisted := sorted(there - listed):
        notes.append(f"{len(unlisted)} images are read that image_paths.csv does not list: {some(unlisted)}")
    return notes
