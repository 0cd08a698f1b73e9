"""The views of one study, as a query names them: files, a study's folder, or pixels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import RadiographError
from retrieval.radiograph import IMAGE_SUFFIXES, read_radiograph

__all__ = ["Images", "View", "read_views"]

Image = Path | str | NDArray[np.uint8]
Images = Image | Sequence[Image]

# MURA names a patient's folder so, and a number stands for one patient throughout the data set.
_MURA_PATIENT = re.compile(r"patient\d{5}")


@dataclass(frozen=True, slots=True)
class View:
    """A radiograph that was read. `digest` and `mura_patient` are "" where it has none."""

    name: str
    pixels: NDArray[np.uint8]
    digest: str = ""
    mura_patient: str = ""


def read_views(images: Images) -> tuple[list[View], list[str]]:
    """Read the views, and say what a reader of the answer must know about them.

    A folder stands for the radiographs in it. Of several files, those that cannot be read are left out with a warning;
    RadiographError where none is left.
    """
    given = [images] if isinstance(images, Path | str | np.ndarray) else list(images)
    views: list[View] = []
    warnings: list[str] = []
    failures: list[RadiographError] = []
    for image in given:
        if isinstance(image, np.ndarray):
            views.append(View(f"array {len(views) + 1}", _checked(image)))
            continue
        for path in _files(Path(image)):
            try:
                radiograph = read_radiograph(path)
            except RadiographError as error:
                failures.append(error)
                continue
            patients = [part for part in path.absolute().parts if _MURA_PATIENT.fullmatch(part)]
            views.append(View(str(path), radiograph.pixels, radiograph.digest, patients[-1] if patients else ""))
            warnings.extend(f"{path}: {warning}" for warning in radiograph.warnings)
    if not views:
        raise failures[0] if failures else RadiographError("no radiograph was given: name at least one file")
    return views, warnings + [f"left out: {failure}" for failure in failures]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(
        file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise RadiographError(f"{path}: no radiograph in this folder; give files, or the folder of one study")
    return files


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey, colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (grey or colour) or pixels.size == 0:
        raise RadiographError(
            f"an array must be uint8 of shape (H, W) or (H, W, 3) in BGR order, not {pixels.dtype} {pixels.shape}"
        )
    return pixels
