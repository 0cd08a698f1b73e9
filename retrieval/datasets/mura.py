"""The MURA layout: SPLIT/XR_PART/patientNNNNN/studyN_LABEL/imageN.png, with or without its four CSV files.

Copies are read under the names that people, other programs and `unzip` give: another name or case of a split, a part
without XR_, "patient00004 - Copy", "00005", "study1-negative", "study1_positive (1)", images in a folder of the study.

Rajpurkar et al. 2018, MURA: Large Dataset for Abnormality Detection in Musculoskeletal Radiographs, arXiv 1712.06957.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from index.case import Case
from retrieval.datasets.case_table import LABELS
from retrieval.datasets.folders import DERIVED, dicom_left_out, is_dicom_file, read_once, reading_order, walk
from retrieval.datasets.identifiers import passed_over
from retrieval.datasets.mura_paths import COPIED, PATIENT, STUDY
from retrieval.datasets.splits import SPLITS, split_name
from retrieval.errors import CollectionError
from retrieval.images.raster_headers import IMAGE_SUFFIXES
from retrieval.notices import Code, Notice
from retrieval.wording import listed

__all__ = ["MuraFolder", "find_mura", "is_image", "read_mura"]

_PART = re.compile(r"XR[ _-](\w+)|(elbow|finger|forearm|hand|humerus|shoulder|wrist)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d{5})" + COPIED)  # a patient's folder without "patient"
_MASKS = "masks"  # of lesions, beside the splits: `mura-search phantom` writes them
_LISTS = re.compile(r"([a-z]+)_(image_paths|labeled_studies)\.csv", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MuraFolder:
    """The root of a copy of MURA, and the folder to read: the root itself, a split or a part."""

    root: Path
    folder: Path


@dataclass(frozen=True, slots=True)
class _Study:
    """A study's folder relative to the root, and what its path says; `label` is None if it does not say it."""

    folder: str
    split: str
    part: str
    patient: str
    name: str  # XR_FINGER/patient00001/study1
    label: int | None
    images: list[str] = field(default_factory=list, compare=False)  # relative to the root


def find_mura(folder: Path) -> MuraFolder | None:
    """The copy of MURA whose root, split or part `folder` is; None if it is none of these."""
    folders = _folders(folder)
    if any(_is_split(name) and _has_parts(folder / name) for name in folders):
        return MuraFolder(folder, folder)
    if _has_parts(folder):
        return MuraFolder(_root(folder), folder)
    if _PART.fullmatch(folder.name) and any(map(_patient, folders)):
        return MuraFolder(_root(folder.parent), folder)
    return None


def _root(folder: Path) -> Path:
    """The root above a folder of parts: the folder itself, unless its name is a split's."""
    splits = [name for name in _folders(folder.parent) if _is_split(name)] if _is_split(folder.name) else []
    return folder.parent if folder.name in SPLITS or len(splits) > 1 else folder


def is_image(name: str) -> bool:
    """Whether a file's ending is that of an image, and its name can be stored and shown."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and name.isprintable()


def read_mura(mura: MuraFolder) -> tuple[list[Case], list[Notice]]:
    """The cases by split, part, patient, study and image number, and notices.

    The study folder ends in its label, `_positive` or `_negative`; else SPLIT_labeled_studies.csv has it. A study is
    named XR_PART/patientNNNNN/studyN, preceded by its split only if another split has a study of that name. Hidden
    files (such as `._*`) and files that are not images are passed over. Notices count DICOM, and name folders with
    images whose path is not that of a study, and images by which SPLIT_image_paths.csv and the folders differ.

    Raises CollectionError where a folder and a CSV file give different labels, and for a study without a label.
    """
    studies, left_out = _studies(mura)
    lists = _Lists.read(mura.root, {study.split for study in studies})
    labels = _labels(mura.root, studies, lists)
    splits_with = Counter(name for name, _ in {(study.name, study.split) for study in studies})
    cases = []
    for study in studies:
        name = study.name if splits_with[study.name] == 1 else f"{study.split}/{study.name}"
        for image in study.images:
            path = str(mura.root / image)
            cases.append(
                Case(image, name, study.patient, labels[study.folder], study.part, split=study.split, path=path)
            )
    return cases, lists.notices(studies) + left_out


def _studies(mura: MuraFolder) -> tuple[list[_Study], list[Notice]]:
    """The studies in order, and notices of what is left out."""
    studies: dict[str, _Study] = {}
    others: dict[str, int] = {}  # the images of each folder that is not of a study
    dicom, twice = 0, list[Path]()
    for folder, files in walk(mura.folder, twice):
        images = [name for name in files if is_image(name)]
        dicom += sum(is_dicom_file(folder / name) for name in files if not is_image(name))
        if not images:
            continue
        relative = folder.relative_to(mura.root).as_posix()
        study = _study_of(relative)
        if study is None and relative.split("/")[0] == _MASKS:
            continue
        if study is None:
            others[relative] = len(images)
        else:
            studies.setdefault(study.folder, study).images.extend(f"{relative}/{image}" for image in images)
    order = {split: number for number, split in enumerate(SPLITS)}

    def key(study: _Study) -> tuple[int, list[list[tuple[str, int]]]]:
        return order.get(study.split, len(order)), [reading_order(name) for name in study.folder.split("/")]

    left_out = passed_over(others) + dicom_left_out(dicom) + read_once(mura.root, twice)
    return sorted(studies.values(), key=key), left_out


def _study_of(folder: str) -> _Study | None:
    """The study that a folder relative to the root, or a folder in a study's folder, belongs to."""
    names = folder.split("/")
    split = split_name(names[0]) if _is_split(names[0]) else ""
    levels = names[bool(split) :]
    if len(levels) < 3 or not DERIVED.isdisjoint(map(str.lower, levels[3:])):
        return None
    part, patient, study = _PART.fullmatch(levels[0]), _patient(levels[1]), STUDY.fullmatch(levels[2])
    if not (part and patient and study):
        return None
    return _Study(
        folder="/".join(names[: bool(split) + 3]),
        split=split,
        part=(part[1] or part[2]).lower(),
        patient=patient,
        # A copy of a patient's or study's folder is a study beside the other, and of the same patient.
        name=f"{_part_name(levels[0])}/{patient if _is_plain(levels[1]) else levels[1]}/{_study_name(study)}",
        label=LABELS.get((study[2] or "").lower()),
    )


def _part_name(folder: str) -> str:
    """A part's folder as MURA names it, in capitals and with XR_; other folders as they are."""
    part = _PART.fullmatch(folder)
    return f"XR_{(part[1] or part[2]).upper()}" if part else folder


def _is_split(name: str) -> bool:
    return split_name(name) in SPLITS


def _has_parts(folder: Path) -> bool:
    """Whether a folder holds folders of parts: by name with XR_, else only with a patient in it."""
    parts = ((name, match) for name in _folders(folder) if (match := _PART.fullmatch(name)))
    return any(match[1] or any(map(_patient, _folders(folder / name))) for name, match in parts)


def _patient(folder: str) -> str:
    """The patient that a folder's name stands for, "" if it is not a patient's."""
    named = PATIENT.fullmatch(folder) or _NUMBER.fullmatch(folder)
    return f"patient{named[1]}" if named else ""


def _is_plain(folder: str) -> bool:
    return not (PATIENT.fullmatch(folder) or _NUMBER.fullmatch(folder) or [""] * 3)[2]


def _study_name(study: re.Match[str]) -> str:
    return re.sub(r"[ _-]", "", study[1]).lower() + study[3]


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.is_dir()] if folder.is_dir() else []


def _labels(root: Path, studies: list[_Study], lists: "_Lists") -> dict[str, int]:
    """The label of each study's folder: as its name says, compared with the CSV files if there are any."""
    table_labels = {study.folder: lists.labels.get((study.split, _below(study.folder))) for study in studies}
    contradicted = [s.folder for s in studies if None is not s.label != table_labels[s.folder] is not None]
    if contradicted:
        raise CollectionError(
            f"{root}: the folder and labeled_studies.csv give different labels to {len(contradicted)} studies: "
            f"{listed(contradicted)}; correct one of them"
        )
    labels = {study.folder: table_labels[study.folder] if study.label is None else study.label for study in studies}
    unlabelled = [folder for folder, label in labels.items() if label is None]
    if unlabelled:
        raise CollectionError(
            f"{root}: {len(unlabelled)} studies have no label: {listed(unlabelled)}; end the folder's name in "
            "_positive or _negative, or list it in labeled_studies.csv"
        )
    return {folder: label for folder, label in labels.items() if label is not None}


def _below(path: str) -> str:
    """The part, patient and study of a path, and whatever follows, without the split and what stands before it."""
    names = path.strip().replace("\\", "/").rstrip("/").split("/")
    first = next((number for number, name in enumerate(names) if _PART.fullmatch(name)), 0)
    return "/".join([*map(_part_name, names[first : first + 1]), *names[first + 1 :]])


@dataclass(frozen=True, slots=True)
class _Lists:
    """MURA's CSV files: the images of each split, and the labels of studies by split; paths begin with the part."""

    images: dict[str, set[str]]
    labels: dict[tuple[str, str], int]

    @classmethod
    def read(cls, root: Path, splits: set[str]) -> "_Lists":
        """The lists of the splits that are read. Raises CollectionError."""
        images: dict[str, set[str]] = {}
        labels: dict[tuple[str, str], int] = {}
        for table in sorted(path for path in root.iterdir() if _LISTS.fullmatch(path.name)):
            name, _, kind = table.name.lower().partition("_")
            split = split_name(name)
            if split not in splits:
                continue
            for row in _rows(table):
                if kind.startswith("image"):
                    images.setdefault(split, set()).add(_below(row[0]))
                elif len(row) != 2 or row[1].strip() not in ("0", "1"):
                    raise CollectionError(
                        f"{table} has a line that is not a study's folder and 0 or 1: {','.join(row)}"
                    )
                else:
                    labels[split, _below(row[0])] = int(row[1])
        return cls(images, labels)

    def notices(self, studies: list[_Study]) -> list[Notice]:
        parts = {(study.split, _below(study.folder).split("/")[0]) for study in studies}  # a copy may hold fewer
        in_table = {
            f"{split}/{image}"
            for split, images in self.images.items()
            for image in images
            if (split, image.split("/")[0]) in parts
        }
        here = {
            f"{study.split}/{_below(image)}"
            for study in studies
            if study.split in self.images
            for image in study.images
        }
        differences = {Code.LISTED_MISSING: in_table - here, Code.UNLISTED_READ: here - in_table}
        return [
            Notice(code, detail={"count": len(images), "names": listed(sorted(images))})
            for code, images in differences.items()
            if images
        ]


def _rows(table: Path) -> Iterator[list[str]]:
    """The rows of a CSV file that are not empty."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            yield from (row for row in csv.reader(file) if row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise CollectionError(f"{table} is not a CSV table in UTF-8: {error}; copy it again") from error
