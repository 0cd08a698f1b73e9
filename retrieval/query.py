"""The views of one study, which a query gives as files, a study's folder, or pixels."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import Where
from retrieval.datasets.mura_paths import mura_patient, mura_study
from retrieval.datasets.pseudonyms import is_placeholder, patient_names
from retrieval.errors import RadiographError
from retrieval.images.blank import blank_notices
from retrieval.images.radiograph import IMAGE_SUFFIXES, Radiograph, file_and_frame, is_dicom, read_frames
from retrieval.notices import BLANKS, Code, Notice, of_view

__all__ = [
    "EVERYTHING",
    "SHOWN",
    "Images",
    "Original",
    "Reader",
    "Scope",
    "View",
    "count_distinct",
    "distinct_views",
    "frame_notices",
    "frame_views",
    "left_out",
    "may_be_view",
    "mura_patient",
    "read_views",
]

Image = Path | str | NDArray[np.uint8]
Images = Image | Sequence[Image]
Reader = Callable[[Path], list[Radiograph]]
"""Reads all frames of a file, as `read_frames` does."""

SHOWN = 5  # studies in an answer by default


@dataclass(frozen=True, slots=True)
class Scope:
    """Which indexed studies are compared with a query, and how many of them are shown.

    `k`: the number of studies to show; the decision rules fix the number that vote. `patient`: the query's own patient,
    whose studies are neither shown nor vote. `where`: the values allowed; a filter by label changes what is shown,
    never the vote. `filter_vote`: whether `where` chooses who votes, and not only what is shown. Raises ValueError for
    k below 1.
    """

    k: int = SHOWN
    patient: str | None = None
    where: Where | None = None
    filter_vote: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is the number of studies to show, at least 1, not {self.k}")

    @property
    def voters(self) -> Where:
        """The filter of those who vote, without the label: with it, all votes would be for that label."""
        return {field: values for field, values in (self.where or {}).items() if self.filter_vote and field != "label"}


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Original:
    """What a view was read from: a file's bytes or its path, its name to show, and the frame, counted from 1."""

    source: bytes | Path = field(repr=False)
    name: str
    frame: int


@dataclass(frozen=True, slots=True)
class View:
    """A radiograph that was read. `digest` is "" for pixels without a file.

    `patients` are the names by which an index may know its patient; they are looked up there and never shown. `dicom`
    is true if a DICOM header named the patient. `study` distinguishes studies, and is never shown; "" if it is unknown.
    `original` is kept by a server whose viewer needs more than the pixels' 8 bits.
    `case` is the indexed case that the view itself is, "" for others.
    """

    name: str
    pixels: NDArray[np.uint8]
    digest: str = ""
    patients: tuple[str, ...] = field(default=(), repr=False)
    dicom: bool = False
    study: str = field(default="", repr=False)
    original: Original | None = field(default=None, repr=False, compare=False)
    case: str = ""


def read_views(images: Images, read: Reader = read_frames) -> tuple[list[View], list[Notice]]:
    """Read the views; gives them and the notices about them.

    A folder stands for the radiographs in it, a DICOM file for all its frames. Files that cannot be read are left out
    with a notice, and a view that is given twice counts once. Raises RadiographError for a file that does not exist,
    and if no file can be read.
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
        if not os.path.lexists(file_and_frame(Path(image))[0]):
            raise RadiographError(f"{image} does not exist; check its name")
        try:
            files = _files(Path(image))
        except RadiographError as error:
            failures.append((str(image), error))
            continue
        for path in files:
            try:
                frames = read(path)
            except RadiographError as error:
                failures.append((str(path), error))
                continue
            of_file = frame_views(str(path), frames, mura_patient(path), mura_study(path))
            views += of_file
            notices += frame_notices(str(path), of_file, frames)
    if not views:
        raise failures[0][1] if failures else RadiographError("no radiograph was given: name at least one file")
    views, repeated = distinct_views(views)
    return views, [*notices, *repeated, *(left_out(*failure) for failure in failures)]


def distinct_views(views: Sequence[View]) -> tuple[list[View], list[Notice]]:
    """The views without those whose file, or array, is that of an earlier one, and notices about these."""
    distinct: dict[object, View] = {}
    repeated = []
    for view in views:
        key = view.digest or (view.pixels.shape, view.pixels.tobytes())
        if distinct.setdefault(key, view) is not view:
            repeated.append(Notice(Code.REPEATED_VIEW, view.name))
    return list(distinct.values()), repeated


def count_distinct(names: Iterable[Iterable[str]]) -> int:
    """How many people or studies sets of names mean: sets that share a name mean the same, an empty one is unknown.

    >>> count_distinct([["a", "b"], ["b"], [], ["c"]])
    2
    """
    groups: list[set[str]] = []
    for named in filter(None, map(set, names)):
        same = [group for group in groups if group & named]
        groups = [group for group in groups if not group & named] + [named.union(*same)]
    return len(groups)


def left_out(file: str, error: RadiographError) -> Notice:
    """The notice about a file that cannot be read."""
    return Notice(Code.LEFT_OUT, file, {"reason": str(error)})


def frame_views(name: str, frames: Sequence[Radiograph], patients: tuple[str, ...] = (), study: str = "") -> list[View]:
    """A file's frames as views; `patients` and `study` are what names its patient and study besides the header."""
    views = []
    for radiograph in frames:
        dicom = not is_placeholder(radiograph.patient)
        known = patients + (patient_names(radiograph.patient) if dicom else ())
        shown = f"{name}[{radiograph.frame}]" if len(frames) > 1 else name
        views.append(View(shown, radiograph.pixels, radiograph.digest, known, dicom, radiograph.study or study))
    return views


def frame_notices(name: str, views: Sequence[View], frames: Sequence[Radiograph]) -> list[Notice]:
    """What reading a file has to say: of the file, or of the one view that it concerns."""
    shared = [notice for notice in frames[0].notices if notice.code not in BLANKS]
    blank = [
        replace(notice, view=view.name)
        for view, frame in zip(views, frames, strict=True)
        for notice in frame.notices
        if notice.code in BLANKS
    ]
    return of_view(name, shared) + blank


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and may_be_view(file))
    if not files:
        raise RadiographError(
            f"{path}: no radiograph in this folder; give files, or the folder of one study. To rank the "
            "studies in a folder:  mura-search worklist FOLDER"
        )
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
