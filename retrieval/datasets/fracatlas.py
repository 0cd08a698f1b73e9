"""The FracAtlas layout: dataset.csv beside images/Fractured and images/Non_fractured.

Abedeen et al., FracAtlas: A Dataset for Fracture Classification, Localization and Segmentation of Musculoskeletal
Radiographs, Scientific Data 10, 521 (2023).
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from index.case import ABNORMAL, NORMAL, Case
from retrieval.datasets.case_table import read_table, some
from retrieval.errors import CollectionError

__all__ = ["is_fracatlas", "read_fracatlas"]

_TABLE = "dataset.csv"
_FOLDERS = {"Non_fractured": NORMAL, "Fractured": ABNORMAL}
_PARTS = ("hand", "leg", "hip", "shoulder")
_VIEWS = ("frontal", "lateral", "oblique")


def is_fracatlas(folder: Path) -> bool:
    return (folder / _TABLE).is_file() and any((folder / "images" / name).is_dir() for name in _FOLDERS)


def read_fracatlas(folder: Path) -> tuple[list[Case], list[str]]:
    """The cases in the order of their image numbers, and notes.

    The part is the one that its column names, "mixed" where several do. The view is "multiple" for a radiograph that
    shows several (`multiscan`), else the first that is set. FracAtlas publishes neither patients nor studies, but
    radiographs with consecutive numbers are visibly one limb from several views: a patient is inferred as a run of
    consecutive numbers of one part, and called by its first number; a study as a run of one label within it.

    Raises CollectionError: a column missing, an image listed twice, missing (counted, five named), or in the folder of
    the other label.
    """
    table = folder / _TABLE
    rows = [row for _, row in read_table(table, ("image_id", "fractured"))]
    places: dict[str, tuple[str, int]] = {}
    for name, label in _FOLDERS.items():
        for image in _images(folder / "images" / name):
            places[image] = (f"images/{name}/{image}", label)
    _check(table, rows, places)

    cases: list[Case] = []
    previous, patient, studies = None, "", 0
    for row in sorted(rows, key=lambda row: _number(row["image_id"])):
        number, part = _number(row["image_id"]), _part(row)
        path, label = places[row["image_id"]]
        if previous is None or number != previous + 1 or part != cases[-1].part:
            patient, studies = f"run{number:07d}", 1
        elif label != cases[-1].label:
            studies += 1
        previous = number
        study = f"{patient}-s{studies}"
        cases.append(Case(path, study, patient, label, part, _view(row), path=str(folder / path)))

    notes = ["patients and studies are inferred from runs of consecutive image numbers: FracAtlas publishes neither"]
    unlisted = len(places.keys() - {row["image_id"] for row in rows})
    if unlisted:
        notes.append(f"{unlisted} images that {_TABLE} does not list are left out")
    return cases, notes


def _images(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def _check(table: Path, rows: Sequence[dict[str, str]], places: dict[str, tuple[str, int]]) -> None:
    """Every row has its own image, in the folder of its own label."""
    images = [row["image_id"] for row in rows]
    twice = [image for image, times in Counter(images).items() if times > 1]
    if twice:
        raise CollectionError(f"{table} lists {len(twice)} images more than once: {some(twice)}")
    missing = [image for image in images if image not in places]
    if missing:
        raise CollectionError(
            f"{table} names {len(missing)} of {len(rows)} images that do not exist in images/: {some(missing)}"
        )
    other = [row["image_id"] for row in rows if row["fractured"] != str(places[row["image_id"]][1])]
    if other:
        raise CollectionError(
            f"{table} and the folders in images/ give different labels to {len(other)} images: {some(other)}"
        )


def _number(image: str) -> int:
    """The number in an image's name; names without one come first, each a run of its own."""
    digits = re.search(r"\d+", image)
    return int(digits[0]) if digits else -2


def _part(row: dict[str, str]) -> str:
    parts = [part for part in _PARTS if row.get(part) == "1"]
    return parts[0] if len(parts) == 1 and row.get("mixed") != "1" else "mixed"


def _view(row: dict[str, str]) -> str:
    if row.get("multiscan") == "1":
        return "multiple"
    return next((view for view in _VIEWS if row.get(view) == "1"), "")
