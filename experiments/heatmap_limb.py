"""Do heatmaps stay on the limb, and stay away from normal radiographs? Before and after one scale, limb and threshold.

    python -m experiments.heatmap_limb [DATA...] [--model FOLDER] [--normals 60] [--rounds 2000]

On radiographs of the split `valid` of each DATA that the model was not trained on: those with fracture boxes (as in
`heatmap_pointing`), and the first --normals of a shuffled list of those without a fracture. "Before" is Smooth
Grad-CAM++ stretched to its own maximum; "after" is `retrieval.explain.evidence`, with nothing below the threshold.

- off the limb: the share of a map's sum outside `limb_mask`; a map with nothing on it counts as 0;
- on empty film: the same on film that is empty by a rule of its own, which the mask does not use: connected to the
  picture's rim, and at most 8 levels brighter than the median of the rim's darker half;
- coloured: the share of the picture where the map is above 0.3, which covers a tenth of the radiograph;
- in the limb: the share of the boxes' area that the mask keeps.

Intervals are 95 %, by bootstrap over patients.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.heatmap_pointing import Example, fractures, mean, pointing
from retrieval.datasets.collection import read_collection
from retrieval.decision.rules import Rules
from retrieval.encoding.bundle import BUNDLED, digest_number
from retrieval.encoding.encoder import Encoder
from retrieval.errors import RadiographError
from retrieval.explain.evidence import evidence_of
from retrieval.explain.smooth_grad_cam import explain_class
from retrieval.images.limb import limb_mask
from retrieval.images.radiograph import read_radiograph
from retrieval.wording import estimate_text

COLUMNS = ("off the limb", "on empty film", "coloured")
POINTING = ("hit within 15 px", "energy / area")

Mask = NDArray[np.bool_]


def normals(data: Path, seen: frozenset[int], count: int) -> Iterator[Example]:
    """Radiographs of the split `valid` without a fracture, without those that the model was trained on."""
    cases = [case for case in read_collection(data, split="valid").cases if case.label == 0]
    for number in np.random.default_rng(0).permutation(len(cases)):
        try:
            radiograph = read_radiograph(Path(cases[number].path))
        except RadiographError:
            continue
        if digest_number(radiograph.digest) in seen or count < 1:
            continue
        count -= 1
        pixels = radiograph.pixels
        yield Example(pixels, np.zeros(pixels.shape[:2], np.bool_), cases[number].patient)


def empty_film(pixels: NDArray[np.uint8]) -> Mask:
    """Film that is empty beyond doubt, (H, W)."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.ndim == 3 else pixels
    rim = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    level = np.median(rim[rim <= np.median(rim)])
    parts = cv2.connectedComponents((grey <= level + 8).astype(np.uint8))[1]
    at_rim = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.asarray(np.isin(parts, at_rim[at_rim > 0]), np.bool_)


def share(values: NDArray[np.float32], where: Mask) -> float:
    return float(values[where].sum(dtype=np.float64) / max(values.sum(dtype=np.float64), 1e-12))


def measure(encoder: Encoder, examples: list[Example]) -> dict[str, dict[str, list[float]]]:
    rules = Rules.from_dict(encoder.bundle.rules) if encoder.bundle.rules else Rules()
    size = encoder.bundle.preprocessing.size
    figures: dict[str, dict[str, list[float]]] = {"before": {}, "after": {}, "mask": {}}
    for example in examples:
        views = encoder.views([encoder.prepare(example.pixels)])
        encoded = encoder.pool(views)
        limb, film = limb_mask(example.pixels), empty_film(example.pixels)
        drawn = {
            "before": explain_class(encoder, example.pixels, views=views).values,
            "after": evidence_of(encoder, rules, example.pixels, encoded, views=views).values,
        }
        for name, values in drawn.items():
            row = (share(values, ~limb), share(values, film), float((values > 0.3).mean()))
            for column, value in zip(COLUMNS, row, strict=True):
                figures[name].setdefault(column, []).append(value)
            figures[name].setdefault("drawn", []).append(float(values.any()))
        if example.lesions.any():
            asked = evidence_of(encoder, rules, example.pixels, encoded, views=views, always=True).values
            for name, values in (("before", drawn["before"]), ("after", asked)):
                scores = pointing(values, example.lesions, size)
                for column, value in zip(POINTING, (scores[1], scores[3]), strict=True):
                    figures[name].setdefault(column, []).append(value)
            kept = float((example.lesions & limb).sum() / example.lesions.sum())
            figures["mask"].setdefault("in the limb", []).append(kept)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--normals", type=int, default=60, metavar="N", help="radiographs without a fracture")
    parser.add_argument("--rounds", type=int, default=2000, help="of the bootstrap")
    options = parser.parse_args()
    encoder = Encoder.open(options.model, threads=1)
    seen = encoder.bundle.seen()
    for data in options.data:
        for kind, examples in (
            ("with boxes", list(fractures(data, seen))),
            ("normal", list(normals(data, seen, options.normals))),
        ):
            patients = [example.patient for example in examples]
            print(f"\n{data.name}, {kind}: {len(examples)} radiographs of {len(set(patients))} patients", flush=True)
            for name, columns in measure(encoder, examples).items():
                if columns:
                    print(f"\n| {name} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
                    texts = (estimate_text(mean(np.array(v), patients, options.rounds)) for v in columns.values())
                    print(f"| {kind} | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    main()
