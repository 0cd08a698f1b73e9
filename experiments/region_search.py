"""Does the search by a region find fractures better than the search by the whole radiograph?

    python -m experiments.region_search FRACTURES --index INDEX [--patients N] [--context C]
    python -m experiments.region_search FRACTURES --folds CASES RUNS NAME [--context C]

FRACTURES lists fractures, as FracAtlas's fractures.csv, and INDEX holds radiographs. Only patients count on whom no
weight of the model was trained, or N of these, drawn with seed 0. With --folds RUNS is the folder of `mura-search
experiment`, and the upper-limb studies of each fold of CASES are searched with the model that run NAME has for it; what
is found in all folds is counted together. Each fracture is a query: its box, and for comparison the whole radiograph.
Its own patient is left out. Precision at 5 is the share of abnormal ones among the 5 nearest studies. Of the regions
found, it is also counted how many hold the middle of a fracture. Chance is the share among all studies, or all regions,
that could be found. Intervals are of 2,000 bootstrap draws of patients.

The criterion was written before the first figures: the search by a region is called better if the interval of the
difference of both precisions lies above 0. C is CONTEXT of retrieval/search_by/region.py; 100 encodes the whole
radiograph once and pools the box in it.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.robustness import sides
from index.case import Case
from index.reader import IndexReader
from retrieval.encoding.bundle import digest_number
from retrieval.encoding.encoder import Encoder
from retrieval.images.radiograph import read_radiograph
from retrieval.search_by import region
from retrieval.search_by.region import Box, attended_boxes, encode_regions

Floats = NDArray[np.float32]
SHOWN = 5


@dataclass(frozen=True)
class Encoded:
    """A radiograph: its record, whole embedding, fractures, and its attended regions with their embeddings (R, D)."""

    case: Case
    whole: Floats
    fractures: list[Box]
    boxes: list[Box]
    embeddings: Floats
    of_fractures: Floats


def fractures_of(table: Path) -> dict[str, list[tuple[float, ...]]]:
    """Each image's fractures as x, y, width, height in parts of its sides."""
    boxes_of_images: dict[str, list[tuple[float, ...]]] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            sides = [float(row[name]) for name in ("image_width", "image_height")] * 2
            box = (float(row[name]) for name in ("x", "y", "width", "height"))
            boxes_of_images.setdefault(row["image_id"], []).append(
                tuple(a / b for a, b in zip(box, sides, strict=True))
            )
    return boxes_of_images


def encoded(encoder: Encoder, case: Case, parts: Sequence[tuple[float, ...]]) -> Encoded:
    pixels = read_radiograph(Path(case.path)).pixels
    whole = encoder.encode_prepared([encoder.prepare(pixels)]).embeddings[0]
    H, W = pixels.shape[:2]
    fractures = [Box(x * W, y * H, w * W, h * H).within(H, W) for x, y, w, h in parts]
    boxes = attended_boxes(encoder, pixels)
    embeddings = encode_regions(encoder, pixels, [*boxes, *fractures])
    return Encoded(case, whole, fractures, boxes, embeddings[: len(boxes)], embeddings[len(boxes) :])


def holds_fracture(box: Box, fractures: Sequence[Box]) -> bool:
    """Whether a region holds the middle of a fracture."""
    return any(
        box.x <= f.x + f.width / 2 <= box.x + box.width and box.y <= f.y + f.height / 2 <= box.y + box.height
        for f in fractures
    )


def nearest(similarities: Floats, studies: NDArray[np.str_]) -> list[int]:
    """The rows of the nearest SHOWN studies, each by its most similar row."""
    rows: dict[str, int] = {}
    for row in np.argsort(-similarities, kind="stable"):
        rows.setdefault(str(studies[row]), int(row))
        if len(rows) == SHOWN:
            break
    return list(rows.values())


def queries(radiographs: Sequence[Encoded]) -> list[tuple[str, list[float]]]:
    """For each fracture its patient, and: precision by region, by whole picture, by chance; regions held, by chance."""
    cases = [item.case for item in radiographs]
    whole = np.stack([item.whole for item in radiographs])
    owner = [row for row, item in enumerate(radiographs) for _ in item.boxes]
    parts = np.concatenate([item.embeddings for item in radiographs])
    held = np.array([holds_fracture(box, item.fractures) for item in radiographs for box in item.boxes])
    studies, labels = np.array([case.study for case in cases]), np.array([case.label for case in cases])
    patients = np.array([case.patient for case in cases])
    answers = []
    for item in radiographs:
        of_others = patients != item.case.patient
        regions_of_others = of_others[owner]
        of_study = {study: label for study, label, free in zip(studies, labels, of_others, strict=True) if free}
        for embedding in item.of_fractures:
            by_region = nearest(np.where(regions_of_others, parts @ embedding, -np.inf), studies[owner])
            by_whole = nearest(np.where(of_others, whole @ item.whole, -np.inf), studies)
            answers.append(
                (
                    item.case.patient,
                    [
                        float(labels[np.array(owner)[by_region]].mean()),
                        float(labels[by_whole].mean()),
                        float(np.mean(list(of_study.values()))),
                        float(held[by_region].mean()),
                        float(held[regions_of_others].mean()),
                    ],
                )
            )
    return answers


def new_of_index(path: Path, most: int | None) -> Iterator[tuple[Encoder, list[Case]]]:
    """The model of an index, and the radiographs of patients who did not train it, of `most` of them."""
    with IndexReader.open(path) as reader:
        cases, encoder = reader.cases(), Encoder.open(reader.model)
    seen = encoder.bundle.seen()
    trained = {case.patient for case in cases if digest_number(case.digest) in seen}
    new = sorted({case.patient for case in cases} - trained)
    drawn = set(np.random.default_rng(0).permutation(new)[:most])
    yield encoder, [case for case in cases if case.patient in drawn]


def of_folds(table: str, runs: str, name: str) -> Iterator[tuple[Encoder, list[Case]]]:
    """The model and the held-out radiographs of each fold."""
    for model, _, asked in sides(Path(table), Path(runs), name, range(1, 6), ""):
        yield Encoder.open(model), list(asked.cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fractures", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--index", type=Path)
    source.add_argument("--folds", nargs=3, metavar=("CASES", "RUNS", "NAME"))
    parser.add_argument("--patients", type=int)
    parser.add_argument("--context", type=float, default=region.CONTEXT)
    options = parser.parse_args()
    region.CONTEXT = options.context
    boxes = fractures_of(options.fractures)
    radiographs, results = [], []
    for encoder, cases in new_of_index(options.index, options.patients) if options.index else of_folds(*options.folds):
        radiographs_of_fold = [encoded(encoder, case, boxes.get(Path(case.path).name, [])) for case in cases]
        radiographs += radiographs_of_fold
        results += queries(radiographs_of_fold)
    of_patient = {patient: [values for owner, values in results if owner == patient] for patient, _ in results}
    names = list(of_patient)
    patients = len({item.case.patient for item in radiographs})
    rng = np.random.default_rng(0)
    draws = [rng.choice(len(names), len(names)) for _ in range(2000)]
    figures = np.array([np.concatenate([of_patient[names[n]] for n in draw]).mean(0) for draw in draws])
    means = np.array([values for _, values in results]).mean(0)
    print(
        f"{len(radiographs)} radiographs of {patients} patients, {len(results)} fractures of {len(names)} patients, "
        f"{sum(len(item.boxes) for item in radiographs)} regions, context {options.context:g}"
    )
    columns = [*zip(means, figures.T, strict=True), (means[0] - means[1], figures[:, 0] - figures[:, 1])]
    for name, (mean, drawn_means) in zip(
        (
            "precision at 5 by region",
            "precision at 5 by whole radiograph",
            "chance of both",
            "regions found that hold a fracture",
            "chance of that",
            "gain of the region",
        ),
        columns,
        strict=True,
    ):
        low, high = np.quantile(drawn_means, (0.025, 0.975))
        print(f"{name}: {mean:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
