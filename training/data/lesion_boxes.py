"""Where lesions lie: boxes from a collection's own tables, and the part of a prepared picture that they cover."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.datasets.collection import Collection
from retrieval.errors import RadiographError
from retrieval.images.preprocessing import Letterbox
from retrieval.images.radiograph import read_radiograph
from training.errors import TrainingError

__all__ = ["COVERAGE_STEP", "Box", "boxes_of", "cover", "read_boxes"]

Box = tuple[float, float, float, float]  # left, top, width, height as shares of the image's width and height
_COCO = "Annotations/COCO JSON/COCO_fracture_masks.json"  # of FracAtlas as it is published
_UNREADABLE = (KeyError, ValueError, ZeroDivisionError, TypeError, RadiographError)
COVERAGE_STEP = 4  # coverage has a quarter of the picture's resolution


def read_boxes(collection: Collection) -> dict[str, list[Box]]:
    """Boxes of lesions by image, from a collection's own files.

    A `fractures.csv` names images (image_id) and gives x, y, width, height, image_width, image_height in pixels; a
    `lesions.csv`, as synthetic collections have, names paths in the collection and masks, whose bounding box is taken.
    Where neither says anything, FracAtlas's annotations in COCO's format count. An empty dictionary where there is no
    such file, or one that says what was found but not where; TrainingError where it does not read.
    """
    boxes: dict[str, list[Box]] = {}
    for file in (collection.root / "fractures.csv", collection.root / "lesions.csv"):
        if not file.is_file():
            continue
        try:
            with file.open(newline="", encoding="utf-8") as lines:
                table = csv.DictReader(lines)
                if not {"mask", "image_id"} & set(table.fieldnames or ()):  # findings only: `Collection.lesions`
                    continue
                for row in table:
                    if "mask" not in row:
                        H, W = float(row["image_height"]), float(row["image_width"])
                        x, y, w, h = (float(row[name]) for name in ("x", "y", "width", "height"))
                        boxes.setdefault(row["image_id"], []).append((x / W, y / H, w / W, h / H))
                    elif row["mask"]:
                        mask = read_radiograph(collection.root / row["mask"]).pixels
                        (H, W), (x, y, w, h) = mask.shape, cv2.boundingRect(mask)
                        boxes[row["path"]] = [(x / W, y / H, w / W, h / H)]
        except _UNREADABLE as error:
            raise TrainingError(f"{file} is not a table of boxes ({error!r}); correct or remove it") from error
    coco = collection.root / _COCO
    return boxes or (_coco_boxes(coco) if coco.is_file() else {})


def _coco_boxes(file: Path) -> dict[str, list[Box]]:
    boxes: dict[str, list[Box]] = {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in content["images"]}
        for annotation in content["annotations"]:
            image, (x, y, w, h) = images[annotation["image_id"]], map(float, annotation["bbox"])
            W, H = float(image["width"]), float(image["height"])
            boxes.setdefault(image["file_name"], []).append((x / W, y / H, w / W, h / H))
    except _UNREADABLE as error:
        raise TrainingError(f"{file} has no boxes in COCO's format ({error!r}); correct or remove it") from error
    return boxes


def boxes_of(collection: Collection) -> list[list[Box]]:
    """The boxes of each case of a collection, whose table names it by its path in the collection or its file's name."""
    boxes = read_boxes(collection)
    return [boxes.get(case.case) or boxes.get(Path(case.path).name) or [] for case in collection.cases]


def cover(boxes: Sequence[Box], height: int, width: int, size: int) -> NDArray[np.uint8]:
    """Coverage (S/4, S/4), 255 where a box lies, of a radiograph of height x width letterboxed into S x S."""
    where = Letterbox.fit(height, width, size)
    coverage = np.zeros((size // COVERAGE_STEP, size // COVERAGE_STEP), np.uint8)
    for left, top, box_width, box_height in boxes:
        x, y = where.left + left * where.width, where.top + top * where.height
        x0, x1 = int(x / COVERAGE_STEP), int(np.ceil((x + box_width * where.width) / COVERAGE_STEP))
        y0, y1 = int(y / COVERAGE_STEP), int(np.ceil((y + box_height * where.height) / COVERAGE_STEP))
        coverage[max(0, y0) : y1, max(0, x0) : x1] = 255
    return coverage
