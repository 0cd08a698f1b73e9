"""Folders named by labels: normal/ and abnormal/ with radiographs.

Folders of splits may lie above them or in them: train/normal/..., normal/train/...
"""

from collections.abc import Mapping
from pathlib import Path

from index.case import Case
from retrieval.datasets.case_table import Meanings, label_of
from retrieval.datasets.folders import DERIVED, dicom_left_out, is_dicom_file, read_once, walk
from retrieval.datasets.identifiers import passed_over
from retrieval.datasets.mura import is_image
from retrieval.datasets.splits import SPLITS, split_name
from retrieval.notices import Code, Detail, Notice

__all__ = ["has_label_folders", "label_of_folders", "read_label_folders"]


def has_label_folders(folder: Path, meanings: Meanings | None = None) -> bool:
    """Whether a folder, or a folder of a split in it, has folders of both labels."""
    inner = [path for path in folder.iterdir() if path.is_dir()]
    splits = [path for path in inner if split_name(path.name) in SPLITS]
    return any(_labels(names, meanings) == {0, 1} for names in (inner, *([*split.iterdir()] for split in splits)))


def read_label_folders(folder: Path, meanings: Meanings | None = None) -> tuple[list[Case], list[Notice]]:
    """The cases by folder and name, and notices.

    Each image directly in a label's folder is one study. A folder within it is one study, and of the patient whom the
    first folder names, or the folder itself where it lies directly in the label's folder. Folders such as "thumbnails"
    are passed over.
    """
    cases: list[Case] = []
    others: dict[str, int] = {}
    dicom = 0
    twice: list[Path] = []
    for parent, files in walk(folder, twice):
        images = [name for name in files if is_image(name)]
        names = parent.relative_to(folder).parts
        label, split, inner = label_of_folders(names, meanings)
        if label is None or not DERIVED.isdisjoint(map(str.lower, inner)):
            others |= {parent.relative_to(folder).as_posix(): len(images)} if images else {}
            continue
        dicom += sum(is_dicom_file(parent / name) for name in files if not is_image(name))
        for image in images:
            case = "/".join((*names, image))
            study = "/".join(names) if inner else case
            patient = inner[0] if inner else case
            cases.append(Case(case, study, patient, label, split=split, path=str(parent / image)))
    return cases, _notices(cases) + dicom_left_out(dicom) + passed_over(others) + read_once(folder, twice)


def label_of_folders(
    names: tuple[str, ...], meanings: Meanings | None = None
) -> tuple[int | None, str, tuple[str, ...]]:
    """The label, None without one, and the split, "" without one, that folders name, and the folders within these.

    >>> label_of_folders(("Train", "abnormal", "p1")), label_of_folders(("normal", "val"))
    ((1, 'train', ('p1',)), (0, 'valid', ()))
    """
    split = split_name(names[0]) if names and split_name(names[0]) in SPLITS else ""
    levels = names[bool(split) :]
    label = label_of(levels[0], meanings) if levels else None
    rest = levels[1:]
    if not split and rest and split_name(rest[0]) in SPLITS:
        split, rest = split_name(rest[0]), rest[1:]
    return label, split, rest


def _labels(paths: list[Path], meanings: Meanings | None) -> set[int | None]:
    # Folders named 0 and 1 may as well be numbered.
    return {label_of(path.name, meanings) for path in paths if path.is_dir() and not path.name.isdigit()} - {None}


def _notices(cases: list[Case]) -> list[Notice]:
    alone = sum(case.study == case.case for case in cases)
    detail: Mapping[str, Detail] = {"count": alone, "total": len(cases)}
    return [Notice(code, detail=detail) for code in (Code.WITHOUT_STUDY, Code.WITHOUT_PATIENT) if alone]
