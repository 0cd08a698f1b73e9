"""Labelled radiographs prepared for training: read and preprocessed once, lesions' boxes beside them."""

import csv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL, Case
from retrieval.collection import Collection
from retrieval.errors import RadiographError
from retrieval.preprocess import Letterbox, Preprocessing, preprocess
from retrieval.radiograph import read_radiograph
from training.errors import TrainingError

__all__ = ["Box", "TrainingSet", "load_training_set", "read_boxes"]

Box = tuple[float, float, float, float]  # left, top, width, height as shares of the image's width and height
COVERAGE_STEP = 4  # lesions are stored at a quarter of the picture's resolution


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """N prepared radiographs.

    pictures (N, S, S, 1 or 3) uint8 (one channel where all are grey); coverage (N, S/4, S/4) uint8, 255 on a lesion;
    known (N,) says whose lesions are known: normal ones have none, abnormal ones where the collection gives boxes.
    """

    cases: tuple[Case, ...]
    pictures: NDArray[np.uint8]
    coverage: NDArray[np.uint8]
    known: NDArray[np.bool_]

    def rows(self, taken: NDArray[np.int64]) -> "TrainingSet":
        """Only these rows, in this order."""
        return TrainingSet(
            tuple(self.cases[i] for i in taken), self.pictures[taken], self.coverage[taken], self.known[taken]
        )


def read_boxes(collection: Collection) -> dict[str, list[Box]]:
    """Boxes of lesions by image, from FracAtlas's `fractures.csv` or a synthetic collection's `lesions.csv`.

    The former names images (image_id) and gives x, y, width, height, image_width, image_height in pixels; the latter
    names paths in the collection, and masks whose bounding box is taken. An empty dictionary where there is no such
    file; TrainingError where it does not read.
    """
    boxes: dict[str, list[Box]] = {}
    for file in (collection.root / "fractures.csv", collection.root / "lesions.csv"):
        if not file.is_file():
            continue
        try:
            with file.open(newline="", encoding="utf-8") as lines:
                for row in csv.DictReader(lines):
                    if "mask" not in row:
                        H, W = float(row["image_height"]), float(row["image_width"])
                        x, y, w, h = (float(row[name]) for name in ("x", "y", "width", "height"))
                        boxes.setdefault(row["image_id"], []).append((x / W, y / H, w / W, h / H))
                    elif row["mask"]:
                        mask = read_radiograph(collection.root / row["mask"]).pixels
                        (H, W), (x, y, w, h) = mask.shape, cv2.boundingRect(mask)
                        boxes[row["path"]] = [(x / W, y / H, w / W, h / H)]
        except (KeyError, ValueError, ZeroDivisionError, TypeError, RadiographError) as error:
            raise TrainingError(f"{file} is not a table of boxes ({error!r}); correct or remove it") from error
    return boxes


def load_training_set(
    collections: Sequence[Collection], how: Preprocessing, progress: Callable[[int, int], None] | None = None
) -> tuple[TrainingSet, list[tuple[str, str]]]:
    """Read and prepare every radiograph; also the (path, reason) of those that cannot be read.

    Patients, studies and cases of several collections are kept apart by the collection's number.
    """
    jobs = [
        (_apart(case, number if len(collections) > 1 else None), case, boxes)
        for number, collection in enumerate(collections)
        for boxes in [read_boxes(collection)]
        for case in collection.cases
    ]

    def prepare(
        job: tuple[Case, Case, dict[str, list[Box]]],
    ) -> tuple[Case, NDArray[np.uint8], NDArray[np.uint8], bool] | str:
        case, original, boxes = job
        try:
            radiograph = read_radiograph(Path(case.path))
        except RadiographError as error:
            return str(error)
        own = boxes.get(original.case) or boxes.get(Path(case.path).name) or []
        H, W = radiograph.pixels.shape[:2]
        coverage = _coverage(own, Letterbox.fit(H, W, how.size), how.size)
        known = case.label != ABNORMAL or bool(own)
        return replace(case, digest=radiograph.digest), preprocess(radiograph.pixels, how), coverage, known

    kept, failed = [], []
    with ThreadPoolExecutor() as pool:
        for done, (job, result) in enumerate(zip(jobs, pool.map(prepare, jobs), strict=True), 1):
            if isinstance(result, str):
                failed.append((job[0].path, result))
            else:
                case, picture, coverage, known = result
                grey = bool((picture == picture[:, :, :1]).all())
                kept.append((case, picture[:, :, :1].copy() if grey else picture, coverage, known))
            if progress is not None:
                progress(done, len(jobs))
    if not kept:
        raise TrainingError("none of the radiographs can be read; `mura-search audit` lists the reasons")
    channels = max(picture.shape[2] for _, picture, _, _ in kept)
    pictures = np.empty((len(kept), how.size, how.size, channels), np.uint8)
    for place, (_, picture, _, _) in zip(pictures, kept, strict=True):
        place[:] = picture
    training_set = TrainingSet(
        tuple(k[0] for k in kept), pictures, np.stack([k[2] for k in kept]), np.array([k[3] for k in kept])
    )
    return training_set, failed


def _apart(case: Case, number: int | None) -> Case:
    if number is None:
        return case
    return replace(
        case, case=f"{number}/{case.case}", patient=f"{number}/{case.patient}", study=f"{number}/{case.study}"
    )


def _coverage(boxes: Sequence[Box], where: Letterbox, size: int) -> NDArray[np.uint8]:
    coverage = np.zeros((size // COVERAGE_STEP, size // COVERAGE_STEP), np.uint8)
    for left, top, width, height in boxes:
        x, y = where.left + left * where.width, where.top + top * where.height
        x0, x1 = int(x / COVERAGE_STEP), int(np.ceil((x + width * where.width) / COVERAGE_STEP))
        y0, y1 = int(y / COVERAGE_STEP), int(np.ceil((y + height * where.height) / COVERAGE_STEP))
        coverage[max(0, y0) : y1, max(0, x0) : x1] = 255
    return coverage
