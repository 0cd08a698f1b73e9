"""Do heatmaps show what decided? Measured against known lesions; and the time that a heatmap takes.

    python -m experiments.heatmap_pointing [DATA...] [--model FOLDER] [--phantoms 40] [--curves 50] [--rounds 10000]
    python -m experiments.heatmap_pointing --phantoms 0      the time alone

Measured on abnormal radiographs with known lesions that the model was not trained on: the split `valid` of each DATA
(with `fractures.csv` beside it), and synthetic fingers of another seed than the bundled model's. On each:

- pointing game (Zhang et al. 2018, Top-down Neural Attention by Excitation Backprop): the strongest pixel lies in a
  lesion, or within 15 pixels of one in the S x S picture;
- energy: the share of the map's sum that lies in lesions, and its ratio to their share of the area;
- deletion and insertion (Petsiuk et al. 2018, RISE): the area under the abnormality probability while the strongest
  pixels are blackened (lower is better), or return to a blurred radiograph (higher is better), on --curves radiographs;
- the same two areas with the cosine to the most similar of the radiographs before it, for heatmaps of similarity.

The maps: Smooth Grad-CAM++ as `mura-search --heatmap` draws it, with more copies and with more noise, Grad-CAM++ and
Grad-CAM (Selvaraju et al. 2017), the head's own attention, which was taught with fracture boxes, a spot in the middle
of the picture, and chance, drawn as coarsely as the others. Intervals are 95 %, by bootstrap over patients; differences
are paired.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._timing import alternate, machine, ratio, show
from retrieval.datasets.collection import read_collection
from retrieval.decision.rules import Rules
from retrieval.encoding.bundle import BUNDLED, digest_number
from retrieval.encoding.encoder import Encoder
from retrieval.errors import RadiographError
from retrieval.evaluation.metrics import Estimate, bootstrap_ratios
from retrieval.explain.smooth_grad_cam import Smoothing, explain_class, explain_similarity, undo_letterbox
from retrieval.images.preprocessing import Letterbox
from retrieval.images.radiograph import read_radiograph
from retrieval.synthetic.dataset import draw_study
from retrieval.wording import estimate_text
from training.data.lesion_boxes import read_boxes

TOLERANCE = 15  # pixels of the S x S picture, as in the pointing game
STEPS = 10  # of a curve; pixels are changed by tenths of the picture
BLUR = 5 / 224  # standard deviation of RISE's blur, as a share of the picture's side
SMOOTH = "Smooth Grad-CAM++"
POINTING = ("hit", "hit within 15 px", "energy", "energy / area")
CURVES = ("deletion", "insertion")

Array = NDArray[np.float32]
Picture = NDArray[np.uint8]
Figures = dict[str, dict[str, list[float]]]  # by map, then by figure, one number a radiograph


@dataclass(frozen=True, slots=True)
class Example:
    """An abnormal radiograph, its lesions as a mask (H, W), and its patient."""

    pixels: Picture
    lesions: NDArray[np.bool_]
    patient: str


def fractures(data: Path, seen: frozenset[int]) -> Iterator[Example]:
    """Radiographs of the split `valid` with boxes, without those that the model was trained on."""
    boxes = read_boxes(read_collection(data))
    for case in read_collection(data, split="valid").cases:
        fractured = boxes.get(Path(case.path).name, [])
        if not fractured:
            continue
        try:
            radiograph = read_radiograph(Path(case.path))
        except RadiographError as error:
            print(f"left out: {error}")
            continue
        if digest_number(radiograph.digest) in seen:
            continue
        H, W = radiograph.pixels.shape[:2]
        lesions = np.zeros((H, W), bool)
        for x, y, w, h in fractured:
            lesions[int(y * H) : int(np.ceil((y + h) * H)), int(x * W) : int(np.ceil((x + w) * W))] = True
        yield Example(radiograph.pixels, lesions, case.patient)


def phantoms(studies: int, seed: int) -> Iterator[Example]:
    for study in range(studies):
        for view in draw_study(seed, study, abnormal=True):
            if view.mask.any():
                yield Example(view.pixels, view.mask, str(study))


def maps_of(encoder: Encoder, pixels: Picture, number: int) -> dict[str, Array]:
    """Every map of a radiograph by its name, (H, W) in [0, 1]."""
    H, W = pixels.shape[:2]
    picture = encoder.prepare(pixels)
    views = encoder.views([picture])
    A, gradient = views[0], encoder.head.logit_gradient(views[0])
    suspicion = encoder.head.apply(A).suspicion[0]
    h, w = suspicion.shape
    y, x = np.mgrid[:h, :w]
    coarse = {
        "Grad-CAM": np.maximum(np.tensordot(gradient[0].mean((1, 2)), A[0], 1), 0),
        "attention": np.exp(suspicion - suspicion.max()),
        "middle": np.exp(-((y - (h - 1) / 2) ** 2 + (x - (w - 1) / 2) ** 2) / (h * w / 32)),
        "chance": np.random.default_rng(number).random((h, w)),
    }
    smooth = {
        SMOOTH: Smoothing(),
        "the same, 16 copies": Smoothing(samples=16),
        "the same, noise 0.3": Smoothing(noise=0.3),
        "Grad-CAM++": Smoothing(noise=0),
    }
    return {
        **{name: explain_class(encoder, pixels, smoothing, views=views).values for name, smoothing in smooth.items()},
        **{name: undo_letterbox(m.astype(np.float32), H, W, len(picture)) for name, m in coarse.items()},
    }


def pointing(values: Array, lesions: NDArray[np.bool_], size: int) -> tuple[float, ...]:
    """The figures of POINTING; of several strongest pixels the first counts."""
    y, x = np.unravel_index(values.argmax(), values.shape)
    away = cv2.distanceTransform((~lesions).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[y, x]
    share = float(values[lesions].sum(dtype=np.float64) / max(values.sum(dtype=np.float64), 1e-12))
    return float(away == 0), float(away * size / max(values.shape) <= TOLERANCE), share, share / float(lesions.mean())


def curves(picture: Picture, values: Array, score: Callable[[list[Picture]], NDArray[np.float64]]) -> tuple[float, ...]:
    """The areas under deletion and insertion of a prepared picture (S, S, 3), by the trapezoidal rule."""
    S = len(picture)
    box = Letterbox.fit(values.shape[0], values.shape[1], S)
    inside = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    shrunk = cv2.resize(values, (box.width, box.height), interpolation=cv2.INTER_LINEAR).ravel()
    rank = np.empty(shrunk.size, np.int64)
    rank[np.argsort(-shrunk, kind="stable")] = np.arange(shrunk.size)
    blurred = cv2.GaussianBlur(picture, (0, 0), BLUR * S)
    areas = []
    for before, after in ((picture, np.zeros_like(picture)), (blurred, picture)):
        steps = []
        for step in range(STEPS + 1):
            changed = (rank < round(step / STEPS * rank.size)).reshape(box.height, box.width, 1)
            mixed = np.asarray(before, np.uint8).copy()
            mixed[inside] = np.where(changed, after[inside], mixed[inside])
            steps.append(mixed)
        areas.append(float(np.trapezoid(score(steps), dx=1 / STEPS)))
    return tuple(areas)


def probability(encoder: Encoder, rules: Rules, pictures: list[Picture]) -> NDArray[np.float64]:
    return rules.probabilities(encoder.encode_prepared(pictures).logits)


def likeness(encoder: Encoder, embedding: Array, pictures: list[Picture]) -> NDArray[np.float64]:
    return (encoder.encode_prepared(pictures).embeddings @ embedding).astype(np.float64)


def measure(encoder: Encoder, examples: Sequence[Example], on_curves: int) -> tuple[Figures, Figures]:
    """The figures of the maps of the class, and the areas for the maps of similarity."""
    rules = Rules.from_dict(encoder.bundle.rules) if encoder.bundle.rules else Rules()
    size = encoder.bundle.preprocessing.size
    by_class: Figures = {}
    by_similarity: Figures = {}
    embeddings = encoder.encode([example.pixels for example in examples[: max(on_curves, 1)]]).embeddings

    def note(figures: Figures, name: str, columns: Sequence[str], values: Sequence[float]) -> None:
        for column, value in zip(columns, values, strict=True):
            figures.setdefault(name, {}).setdefault(column, []).append(value)

    for number, example in enumerate(examples):
        picture = encoder.prepare(example.pixels)
        maps = maps_of(encoder, example.pixels, number)
        for name, values in maps.items():
            note(by_class, name, POINTING, pointing(values, example.lesions, size))
            if number < on_curves and not name.startswith("the same"):
                note(by_class, name, CURVES, curves(picture, values, partial(probability, encoder, rules)))
        if 0 < number < on_curves:
            neighbour = embeddings[(embeddings[:number] @ embeddings[number]).argmax()]
            heatmaps = {
                "of this similarity": explain_similarity(encoder, example.pixels, neighbour).values,
                "of the class": maps[SMOOTH],
                "chance": maps["chance"],
            }
            for name, values in heatmaps.items():
                note(by_similarity, name, CURVES, curves(picture, values, partial(likeness, encoder, neighbour)))
        if number % 10 == 9:
            print(f"  {number + 1} of {len(examples)}", flush=True)
    return by_class, by_similarity


def table(title: str, figures: Figures, columns: Sequence[str], patients: Sequence[str], rounds: int) -> None:
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, by_column in figures.items():
        if columns[0] in by_column:
            cells = []
            for column in columns:
                values = np.array(by_column[column])
                cells.append(estimate_text(mean(values, patients[-len(values) :], rounds)))
            print(f"| {name} | {' | '.join(cells)} |")


def mean(values: NDArray[np.float64], patients: Sequence[str], rounds: int) -> Estimate:
    """The mean with its interval over patients."""
    return bootstrap_ratios({"mean": (values, np.ones(len(values)))}, patients, rounds=rounds)["mean"]


def differences(figures: Figures, first: str, columns: Sequence[str], patients: Sequence[str], rounds: int) -> None:
    print()
    for name, by_column in figures.items():
        common = [column for column in columns if column in by_column]
        if name == first or not common:
            continue
        cells = []
        for column in common:
            paired = np.array(figures[first][column]) - np.array(by_column[column])
            cells.append(f"{column} {estimate_text(mean(paired, patients[-len(paired) :], rounds))}")
        print(f"{first} - {name}: {', '.join(cells)}")


def cost(encoder: Encoder, examples: Sequence[Example], runs: int) -> None:
    """Print the processor time of one radiograph, from pixels to embedding and from pixels to heatmap.

    Processor time hardly depends on other work of the machine.
    """
    pixels = [example.pixels for example in examples[:16]]
    views = [encoder.views([encoder.prepare(picture)]) for picture in pixels]

    def milliseconds(act: Callable[[int], object]) -> float:
        started = time.process_time()
        for number in range(len(pixels)):
            act(number)
        return 1000 * (time.process_time() - started) / len(pixels)

    plain, beside, alone = alternate(
        runs,
        lambda: milliseconds(lambda i: encoder.encode([pixels[i]])),
        lambda: milliseconds(lambda i: explain_class(encoder, pixels[i], views=views[i])),
        lambda: milliseconds(lambda i: explain_class(encoder, pixels[i])),
    )
    print(f"\nprocessor time, {len(pixels)} radiographs one at a time, one thread")
    show("encoding", plain, "ms")
    show("heatmap beside it", beside, "ms")
    show("heatmap alone", alone, "ms")
    ratio("heatmap of a query that is encoded anyway / encoding", beside, plain)
    ratio("heatmap alone / encoding", alone, plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--phantoms", type=int, default=40, metavar="N", help="synthetic studies")
    parser.add_argument("--seed", type=int, default=1, help="of the synthetic studies; 0 trained the bundled model")
    parser.add_argument("--curves", type=int, default=50, metavar="N", help="radiographs with curves")
    parser.add_argument("--rounds", type=int, default=10_000, help="of the bootstrap")
    parser.add_argument("--runs", type=int, default=7, help="of the timing")
    options = parser.parse_args()
    machine("onnxruntime", "opencv-python-headless", "numpy")
    encoder = Encoder.open(options.model)
    seen = encoder.bundle.seen()
    groups = {data.name: list(fractures(data, seen)) for data in options.data}
    if options.phantoms:
        groups[f"synthetic fingers, seed {options.seed}"] = list(phantoms(options.phantoms, options.seed))
    for name, examples in groups.items():
        patients = [example.patient for example in examples]
        area = np.median([example.lesions.mean() for example in examples])
        print(f"\n{name}: {len(examples)} radiographs of {len(set(patients))} patients; ", end="")
        print(f"lesions cover {area:.2%} in the median", flush=True)
        by_class, by_similarity = measure(encoder, examples, options.curves)
        table("Pointing", by_class, POINTING, patients, options.rounds)
        differences(by_class, SMOOTH, POINTING[:3], patients, options.rounds)
        first = patients[: options.curves]
        table(f"Curves, the first {len(first)} radiographs", by_class, CURVES, first, options.rounds)
        differences(by_class, SMOOTH, CURVES, first, options.rounds)
        table("Curves of similarity", by_similarity, CURVES, first, options.rounds)
        differences(by_similarity, "of this similarity", CURVES, first, options.rounds)
    cost(
        Encoder.open(options.model, threads=1),
        next(iter(groups.values()), []) or list(phantoms(8, options.seed)),
        options.runs,
    )


if __name__ == "__main__":
    main()
