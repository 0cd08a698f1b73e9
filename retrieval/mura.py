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
from retrieval.casetable import some
from retrieval.errors import CollectionError
from retrieval.header import IMAGE_SUFFIXES

__all__ = ["MuraFolder", "find_mura", "read_mura"]

_SPLITS = ("train", "valid", "test")
_PART = re.compile(r"XR_([A-Z]+)", re.IGNORECASE)
_PATIENT = re.compile(r"patient\w+", re.IGNORECASE)
_STUDY = re.compile(r"(study[A-Za-z0-9]*)(?:_(positive|negative))?", re.IGNORECASE)
_LABELS = {"positive": ABNORMAL, "negative": NORMAL}


@dataclass(frozen=True, slots=True)
class MuraFolder:
    """Where a MURA copy lies: its root, and the part folders to read as (split, folder), split "" where there is none."""

    root: Path
    parts: tuple[tuple[str, Path], ...]


@dataclass(frozen=True, slots=True)
class _Study:
    place: str  # relative to the root: train/XR_FINGER/patient00001/study1_positive
    split: str
    name: str  # XR_FINGER/patient00001/study1
    label: int | None  # as the folder's name says
    images: tuple[str, ...]


def find_mura(folder: Path) -> MuraFolder | None:
    """The MURA copy that `folder` is the root of, or a split of, or a part of; None where it is none of these."""
    splits = [(split, part) for split in _SPLITS for part in _subfolders(folder / split, _PART)]
    if splits:
        return MuraFolder(folder, tuple(splits))
    parts = _subfolders(folder, _PART)
    if not parts and _PART.fullmatch(folder.name) and _subfolders(folder, _PATIENT):
        parts, folder = [folder], folder.parent
    if not parts:
        return None
    split = folder.name if folder.name in _SPLITS else ""
    return MuraFolder(folder.parent if split else folder, tuple((split, part) for part in parts))


def read_mura(mura: MuraFolder) -> tuple[list[Case], list[str]]:
    """The cases by split, part, patient, study and image number, and notes.

    The label is the study folder's, `_positive` or `_negative`; a folder that says neither takes it from
    SPLIT_labeled_studies.csv. A study is called XR_PART/patientNNNNN/studyN, with its split before it only where another
    split has a study of that name as well. Hidden files, `._*` among them, and files that are no images are passed over.

    Raises CollectionError: a folder and a CSV file that give different labels, a study without any label.
    """
    studies = [study for split, part in mura.parts for study in _studies(mura.root, split, part)]
    splits = sorted({split for split, _ in mura.parts} - {""})
    table = {place: label for split in splits for place, label in _labelled_studies(mura.root, split)}
    labels = _labels(mura.root, studies, table)
    names = {(study.split, study.name) for study in studies}
    times = Counter(name for _, name in names)

    cases = []
    for study in studies:
        part, patient, _ = study.name.split("/")
        name = study.name if times[study.name] == 1 else f"{study.split}/{study.name}"
        for image in study.images:
            case = f"{study.place}/{image}"
            path = str(mura.root / case)
            cases.append(Case(case, name, patient, labels[study.place], _part(part), split=study.split, path=path))
    return cases, _notes(mura, cases)


def _part(folder: str) -> str:
    return folder[len("XR_") :].lower()


def _studies(root: Path, split: str, part: Path) -> Iterator[_Study]:
    for patient in _subfolders(part, _PATIENT):
        for folder in _subfolders(patient, _STUDY):
            name, word = _STUDY.fullmatch(folder.name).groups()  # type: ignore[union-attr]  # _subfolders matched it
            images = [
                entry.name
                for entry in os.scandir(folder)
                if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
            ]
            yield _Study(
                place=folder.relative_to(root).as_posix(),
                split=split,
                name=f"{part.name}/{patient.name}/{name}",
                label=_LABELS[word.lower()] if word else None,
                images=tuple(sorted(images, key=_in_reading_order)),
            )


def _subfolders(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [folder / entry.name for entry in os.scandir(folder) if pattern.fullmatch(entry.name) and entry.is_dir()]
    return sorted(found, key=lambda path: _in_reading_order(path.name))


def _in_reading_order(name: str) -> list[tuple[int, str]]:
    """image2 before image10."""
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def _labels(root: Path, studies: list[_Study], table: dict[str, int]) -> dict[str, int]:
    """Each study's label by its place, held against the CSV files' where there are any."""
    other = [
        study.place
        for study in studies
        if study.label is not None and table.get(study.place, study.label) != study.label
    ]
    if other:
        raise CollectionError(
            f"{root}: folders and labeled_studies.csv give different labels to {len(other)} studies: {some(other)}"
        )
    none = [study.place for study in studies if study.label is None and study.place not in table]
    if none:
        raise CollectionError(
            f"{root}: {len(none)} studies have no label, neither _positive or _negative in the folder's name nor a "
            f"line in labeled_studies.csv: {some(none)}"
        )
    return {study.place: table[study.place] if study.label is None else study.label for study in studies}


def _labelled_studies(root: Path, split: str) -> Iterator[tuple[str, int]]:
    for row in _rows(root / f"{split}_labeled_studies.csv"):
        if len(row) != 2 or row[1].strip() not in ("0", "1"):
            raise CollectionError(
                f"{root / split}_labeled_studies.csv has a line other than a folder and 0 or 1: {row}"
            )
        yield _place(row[0], 4), int(row[1])


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
    """What the lists of images and the folders that are there do not agree on."""
    folders = {part.relative_to(mura.root).as_posix() for split, part in mura.parts if split}
    listed: set[str] = set()
    listing: set[str] = set()
    for split in sorted({split for split, _ in mura.parts} - {""}):
        places = [_place(row[0], 5) for row in _rows(mura.root / f"{split}_image_paths.csv")]
        listing |= {split} if places else set()
        listed |= {place for place in places if place.rsplit("/", 3)[0] in folders}
    there = {case.case for case in cases if case.split in listing}
    notes = []
    if listed - there:
        notes.append(
            f"{len(listed - there)} images that image_paths.csv lists are missing: {some(sorted(listed - there))}"
        )
    if there - listed:
        notes.append(
            f"{len(there - listed)} images are read that image_paths.csv does not list: {some(sorted(there - listed))}"
        )
    return notes
