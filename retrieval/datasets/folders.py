"""Folders on the disk: a walk that follows links but no loops, and paths that another system wrote."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from index.integrity import file_identity
from retrieval.datasets.pseudonyms import normalised
from retrieval.images.radiograph import is_dicom
from retrieval.notices import Code, Notice
from retrieval.wording import listed

__all__ = [
    "DERIVED",
    "PathFinder",
    "dicom_left_out",
    "is_dicom_file",
    "named_file",
    "read_once",
    "reading_order",
    "walk",
]

_PICTURES = ("mask", "segmentation", "annotation", "overlay", "heatmap", "thumb", "thumbnail", "preview")
DERIVED = frozenset(
    (*_PICTURES, *(f"{name}s" for name in _PICTURES), "@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin")
)
"""Names of folders, in lower case, whose images are made from radiographs, or thrown away, and no radiographs."""


def walk(folder: Path, twice: list[Path] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Each folder within `folder`, itself first, with the names of its files; hidden folders and files are left out.

    Links are followed. A folder is entered once, and the folders above `folder` never, so no loop of links is. `twice`
    gets the further paths of the folders that were entered, except loops.
    """
    entered = {file_identity(parent) for parent in Path(os.path.realpath(folder)).parents}
    twice = [] if twice is None else twice
    for parent, folders, files in os.walk(folder, followlinks=True):
        key = file_identity(Path(parent))
        if key is None or key in entered:
            folders.clear()
            if key is not None and not Path(os.path.realpath(Path(parent).parent)).is_relative_to(
                os.path.realpath(parent)
            ):
                twice.append(Path(parent))
            continue
        entered.add(key)
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=reading_order)
        yield Path(parent), sorted((name for name in files if not name.startswith(".")), key=reading_order)


def reading_order(name: str) -> list[tuple[str, int]]:
    """A key to sort by: image2 before image10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def read_once(root: Path, twice: list[Path]) -> list[Notice]:
    """A notice of the folders that further links lead to, by these links; `twice` is as `walk` gives it."""
    names = listed(path.relative_to(root).as_posix() for path in twice)
    return [Notice(Code.READ_ONCE, detail={"count": len(twice), "names": names})] if twice else []


def dicom_left_out(count: int) -> list[Notice]:
    """A notice of the DICOM files among other images, which are not read."""
    return [Notice(Code.DICOM_LEFT_OUT, detail={"count": count})] if count else []


def is_dicom_file(path: Path) -> bool:
    """Whether a path is that of a DICOM file; False for one that cannot be opened."""
    try:
        return path.is_file() and is_dicom(path)
    except OSError:
        return False


def named_file(folder: Path, name: str) -> Path:
    """The file of a name in a folder, in other case if it is the only such; its path, also if it does not exist."""
    return Path(PathFinder(folder).find(name) or folder / name)


class PathFinder:
    """Finds the files that a table in a folder names, also where another system wrote the table.

    A path may have backslashes, another normal form of Unicode, or other case than the only file it can mean.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, dict[str, list[str]]] = {}  # of each folder, by their form without case

    def find(self, text: str) -> str | None:
        """The path of the file that `text` means, relative to the folder unless absolute; None if there is none."""
        for given in (text, text.replace("\\", "/")):
            path = os.path.normpath(self._folder / given)
            if os.path.exists(path):  # noqa: PTH110 - thousands of paths, three times as fast as Path's
                return path
        current = Path(Path(path).anchor)
        for name in Path(path).parts[1:]:
            if (current / name).exists():
                current /= name
                continue
            alike = self._listed(current).get(normalised(name).casefold(), [])
            if len(alike) != 1:
                return None
            current /= alike[0]
        return str(current)

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            for path in folder.iterdir() if folder.is_dir() and os.access(folder, os.R_OK) else ():
                names.setdefault(normalised(path.name).casefold(), []).append(path.name)
            self._names[folder] = names
        return self._names[folder]
