"""The views of one study, as a query names them: files, a study's folder, or pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.datasets.mura import MURA_PATIENT
from retrieval.errors import RadiographError
from retrieval.images.blank import BLANK_CODES, blank_notices
from retrieval.images.radiograph import IMAGE_SUFFIXES, Radiograph, is_dicom, read_frames
from retrieval.notices import Code, Notice, of_view
from retrieval.pseudonyms import patient_names

__all__ = ["Images", "View", "frame_notices", "frame_views", "left_out", "may_be_view", "mura_patient", "read_views"]

Image = Path | str | NDArray[np.uint8]
Images = Image | Sequence[Image]


@dataclass(frozen=True, slots=True)
class View:
    """A radiograph that was read. `digest` is "" where it has none.

    `patients` are the names by which an index may know its patient, to be looked up there and not shown. `dicom` tells
    that a DICOM header named the patient.
    """

    name: str
    pixels: NDArray[np.uint8]
    digest: str = ""
    patients: tuple[str, ...] = field(default=(), repr=False)
    dicom: bool = False


def read_views(images: Images) -> tuple[list[View], list[Notice]]:
    """Read the views; gives them, and what a reader of the answer must know about them.

    A folder stands for the radiographs in it, a DICOM file for all its frames. Of several files, those that cannot be
    read are left out with a warning; RadiographError where none is left.
    """
    given = [images] if isinstance(images, Path | str | np.ndarray) else list(images)
    views: list[View] = []
    notices: list[Notice] = []
    failures: list[RadiographError] = []
    for image in given:
        if isinstance(image, np.ndarray):
            views.append(View(f"array {len(views) + 1}", _checked(image)))
            notices += of_view(views[-1].name, blank_notices(image))
            continue
        try:
            files = _files(Path(image))
        except RadiographError as error:
            failures.append(error)
            continue
        for path in files:
            try:
                frames = read_frames(path)
            except RadiographError as error:
                failures.append(error)
                continue
            of_file = frame_views(str(path), frames, mura_patient(path))
            views += of_file
            notices += frame_notices(str(path), of_file, frames)
    if not views:
        raise failures[0] if failures else RadiographError("no radiograph was given: name at least one file")
    return views, notices + [left_out(failure) for failure in failures]


def left_out(failure: RadiographError) -> Notice:
    """The notice of a file that could not be read."""
    return Notice(Code.LEFT_OUT, detail={"reason": str(failure)})


def frame_views(name: str, frames: Sequence[Radiograph], patients: tuple[str, ...] = ()) -> list[View]:
    """The views that a file's frames are; `patients` are names of its patient that are known besides the header's."""
    views = []
    for radiograph in frames:
        known = patients + (patient_names(radiograph.patient) if radiograph.patient else ())
        shown = f"{name}[{radiograph.frame}]" if len(frames) > 1 else name
        views.append(View(shown, radiograph.pixels, radiograph.digest, known, dicom=bool(radiograph.patient)))
    return views


def frame_notices(name: str, views: Sequence[View], frames: Sequence[Radiograph]) -> list[Notice]:
    """What reading a file has to say: of the file, or of the one view that it concerns."""
    shared = [notice for notice in frames[0].notices if notice.code not in BLANK_CODES]
    blank = [
        replace(notice, view=view.name)
        for view, frame in zip(views, frames, strict=True)
        for notice in frame.notices
        if notice.code in BLANK_CODES
    ]
    return of_view(name, shared) + blank


def mura_patient(path: Path) -> tuple[str, ...]:
    """The names that a patient has in MURA's folders: whatever of the path may be one, to be looked up in an index."""
    return tuple(part for part in path.absolute().parts if MURA_PATIENT.fullmatch(part))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and may_be_view(file))
    if not files:
        raise RadiographError(f"{path}: no radiograph in this folder; give files, or the folder of one study")
    return files


def may_be_view(file: Path) -> bool:
    """By its ending; what has another one, or none, may be DICOM, whose files are often numbered."""
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        return file.is_file() and is_dicom(file)
    except OSError:
        return False


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey, colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (grey or colour) or pixels.size == 0:
        raise RadiographError(
            f"an array must be uint8 of shape (H, W) or (H, W, 3) in BGR order, not {pixels.dtype} {pixels.shape}"
        )
    return pixels
