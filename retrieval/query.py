"""The views of one study, which a query gives as files, a study's folder, or pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.datasets.mura import mura_patient
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
    """A radiograph that was read. `digest` is "" for pixels without a file.

    `patients` are the names by which an index may know its patient; they are looked up there and never shown. `dicom`
    is true if a DICOM header named the patient.
    """

    name: str
    pixels: NDArray[np.uint8]
    digest: str = ""
    patients: tuple[str, ...] = field(default=(), repr=False)
    dicom: bool = False


def read_views(images: Images) -> tuple[list[View], list[Notice]]:
    """Read the views; gives them and the notices about them.

    A folder stands for the radiographs in it, a DICOM file for all its frames. Files that cannot be read are left out
    with a notice. Raises RadiographError if no file can be read.
    """
    given = [images] if isinstance(images, Path | str | np.ndarray) else list(images)
    views: list[View] = []
    notices: list[Notice] = []
    failures: list[tuple[str, RadiographError]] = []
    for image in given:
        if isinstance(image, np.ndarray):
            views.append(View(f"array {len(views) + 1}", _checked(image)))
            notices += of_view(views[-1].name, blank_notices(image))
            continue
        try:
            files = _files(Path(image))
        except RadiographError as error:
            failures.append((str(image), error))
            continue
        for path in files:
            try:
                frames = read_frames(path)
            except RadiographError as error:
                failures.append((str(path), error))
                continue
            of_file = frame_views(str(path), frames, mura_patient(path))
            views += of_file
            notices += frame_notices(str(path), of_file, frames)
    if not views:
        raise failures[0][1] if failures else RadiographError("no radiograph was given: name at least one file")
    return views, notices + [left_out(*failure) for failure in failures]


def left_out(file: str, error: RadiographError) -> Notice:
    """The notice about a file that cannot be read."""
    return Notice(Code.LEFT_OUT, file, {"reason": str(error)})


def frame_views(name: str, frames: Sequence[Radiograph], patients: tuple[str, ...] = ()) -> list[View]:
    """A file's frames as views; `patients` are names of its patient from elsewhere than the header."""
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


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and may_be_view(file))
    if not files:
        raise RadiographError(f"{path}: no radiograph in this folder; give files, or the folder of one study")
    return files


def may_be_view(file: Path) -> bool:
    """Whether a file's ending is that of an image, or its bytes are DICOM's: DICOM files often have no ending."""
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
