"""The FracAtlas layout: dataset.csv beside images/Fractured and images/Non_fractured.

Abedeen et al., FracAtlas: A Dataset for Fracture Classification, Localization and Segmentation of Musculoskeletal
Radiographs, Scientific Data 10, 521 (2023).
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from index.case import ABNORMAL, NORMAL, Case
from retrieval.datasets.case_table import label_of, read_table
from retrieval.errors import CollectionError
from retrieval.notices import Code, Notice
from retrieval.wording import listed

__all__ = ["is_fracatlas", "read_fracatlas"]

_TABLE = "dataset.csv"
_FOLDERS = {"Non_fractured": NORMAL, "Fractured": ABNORMAL}
_PARTS = ("hand", "leg", "hip", "shoulder")
_VIEWS = ("frontal", "lateral", "oblique")


def is_fracatlas(folder: Path) -> bool:
    """Whether a folder has FracAtlas's table and one of its folders of images."""
    return (folder / _TABLE).is_file() and any((folder / "images" / name).is_dir() for name in _FOLDERS)


def read_fracatlas(folder: Path) -> tuple[list[Case], list[Notice]]:
    """The cases in the order of their image numbers, and notices.

    The part is the one that the columns name, or "mixed" if they name several. The view is "multiple" for a radiograph
    of several views (`multiscan`), else the first that is set. FracAtlas publishes neither patients nor studies, but
    radiographs with consecutive numbers visibly show one limb. So consecutive numbers of one part are taken as one
    patient, who is named by the first number, and those of one label among them as one study.

    Images that are missing stay cases, which cannot be read. Raises CollectionError for a missing column, an image that
    is listed twice, an image in the folder of the other label, and a table of which no image exists.
    """
    table = folder / _TABLE
    rows = [row for _, row in read_table(table, ("image_id", "fractured"))]
    images: dict[str, tuple[str, int]] = {}  # the path and label of each
    for name, label in _FOLDERS.items():
        for image in _images(folder / "images" / name):
            images[image] = (f"images/{name}/{image}", label)
    _check(table, rows, images)
    missing = [row["image_id"] for row in rows if row["image_id"] not in images]
    folders = {label: name for name, label in _FOLDERS.items()}
    for row in rows:
        label = _label(row)
        images.setdefault(row["image_id"], (f"images/{folders[label]}/{row['image_id']}", label))

    cases: list[Case] = []
    previous, patient, studies = None, "", 0
    for row in sorted(rows, key=lambda row: _number(row["image_id"])):
        number, part = _number(row["image_id"]), _part(row)
        path, label = images[row["image_id"]]
        if previous is None or number != previous + 1 or part != cases[-1].part:
            patient, studies = f"run{number:07d}", 1
        elif label != cases[-1].label:
            studies += 1
        previous = number
        study = f"{patient}-s{studies}"
        cases.append(Case(path, study, patient, label, part, _view(row), path=str(folder / path)))

    notices = [Notice(Code.INFERRED_PATIENTS)]
    if missing:
        notices.append(
            Notice(Code.MISSING_FILES, detail={"count": len(missing), "total": len(rows), "names": listed(missing)})
        )
    if unlisted := len(images.keys() - {row["image_id"] for row in rows}):
        notices.append(Notice(Code.UNLISTED_LEFT_OUT, detail={"count": unlisted}))
    return cases, notices


def _images(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def _check(table: Path, rows: Sequence[dict[str, str]], images: dict[str, tuple[str, int]]) -> None:
    """Every row has its own image, in the folder of its own label."""
    images_of_rows = [row["image_id"] for row in rows]
    twice = [image for image, times in Counter(images_of_rows).items() if times > 1]
    if twice:
        raise CollectionError(f"{table} lists {len(twice)} images more than once: {listed(twice)}")
    bad = [row["image_id"] for row in rows if label_of(row["fractured"]) is None]
    if bad:
        raise CollectionError(f"{table} has values other than 0 and 1 in the column fractured: of {listed(bad)}")
    if rows and not images.keys() & set(images_of_rows):
        raise CollectionError(
            f"none of the {len(rows)} images that {table} names exists in images/: {listed(images_of_rows)}"
        )
    contradicted = [row["image_id"] for row in rows if images.get(row["image_id"], ("", _label(row)))[1] != _label(row)]
    if contradicted:
        raise CollectionError(
            f"{table} and the folders in images/ give different labels to {len(contradicted)} images: "
            f"{listed(contradicted)}"
        )


def _label(row: dict[str, str]) -> int:
    return label_of(row["fractured"]) or NORMAL


def _number(image: str) -> int:
    """The number in an image's name; names without a number come first, each a patient of its own."""
    digits = re.search(r"\d+", image)
    return int(digits[0]) if digits else -2


def _part(row: dict[str, str]) -> str:
    parts = [part for part in _PARTS if row.get(part) == "1"]
    return parts[0] if len(parts) == 1 and row.get("mixed") != "1" else "mixed"


def _view(row: dict[str, str]) -> str:
    if row.get("multiscan") == "1":
        return "multiple"
    return next((view for view in _VIEWS if row.get(view) == "1"), "")
