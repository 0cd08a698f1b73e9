"""What do the familiarity limits flag? Measured on held-out radiographs of the collection, and on other pictures.

    python -m experiments.familiarity_limits DATA --index INDEX [--other DATA2] [--most 300]
    python -m experiments.familiarity_limits DATA --index INDEX --folds 5 [--other DATA2] [--stride 6]

In the first form INDEX holds the split `train` of DATA. Each picture is a query of one view:

- the split `valid` of DATA, by study as well: here each flag is a false alarm, and the limits were set for 1 %;
- the same radiographs inverted, turned, mirrored, blurred, cut to their middle and made fainter;
- the split `valid` of DATA2 by body part, without radiographs that the model was trained on;
- synthetic fingers; noise; text pages; gradients; and crops of the photographs in scikit-learn and Matplotlib.

In the second form INDEX holds all of DATA, and no radiograph is encoded. In folds by patient are judged:

- false alarms of the plain measures; also where limits are learned from 200, 100 and 50 studies of the other folds;
- false alarms of all reasons, of patients on whom the model was not trained: rules and limits are learned without the
  fold, and each of its studies is judged from its stored embeddings and measures;
- DATA2 by the measures' limits of DATA, and by its own in halves;
- every STRIDE-th study under `images.corruptions` at each strength, by measures alone.

Printed are the share that is flagged at the stored limits, and the number for each reason. 95 % intervals by
bootstrap over patients. Nothing is tuned. The stored limits of similarity and looks are judged, those of the measures
by --folds.
"""

import argparse
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._timing import machine
from index.case import Case
from retrieval.datasets.collection import read_collection
from retrieval.decision.familiarity import familiarity
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.leave_patient_out import StudyMatrix
from retrieval.decision.measure_limits import MeasureLimits, learn_measure_limits
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.bundle import digest_number
from retrieval.errors import RadiographError
from retrieval.evaluation.metrics import bootstrap_ratios
from retrieval.images.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from retrieval.images.measures import MEASURES, TABLE, measure, measure_rows, unpacked
from retrieval.images.radiograph import read_radiograph
from retrieval.searcher import Searcher
from retrieval.synthetic.dataset import draw_study
from retrieval.wording import estimate_text

BATCH = 16
REASONS = ("nearest", "part", "inverted", "on its side")
WORDS = ("the", "of", "bone", "joint", "no", "fracture", "normal", "study", "left", "right", "patient", "report")

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]
Group = list[tuple[Picture, str, str]]  # pixels, patient, study


def radiographs(data: Path, split: str | None, seen: frozenset[int], most: int) -> dict[str, Group]:
    """Radiographs that the model was not trained on, by body part: at most `most` of each, evenly spaced."""
    cases: dict[str, list[tuple[Path, str, str]]] = {}
    for case in read_collection(data, split=split).cases:
        cases.setdefault(case.part, []).append((Path(case.path), case.patient, case.study))
    groups: dict[str, Group] = {}
    for part, files in cases.items():
        group: Group = []
        for path, patient, study in files:
            try:
                radiograph = read_radiograph(path)
            except RadiographError as error:
                print(f"left out: {error}")
                continue
            if digest_number(radiograph.digest) not in seen:
                group.append((radiograph.pixels, patient, study))
        groups[part] = [group[i] for i in np.linspace(0, len(group) - 1, min(most, len(group))).astype(int)]
    return groups


def changed(group: Group) -> Iterator[tuple[str, Group]]:
    """The same radiographs, changed."""

    def inverted(pixels: Picture) -> Picture:
        return np.asarray(255 - pixels, np.uint8)

    def turned(pixels: Picture, degrees: float) -> Picture:
        H, W = pixels.shape[:2]
        turn = cv2.getRotationMatrix2D((W / 2, H / 2), degrees, 1)
        return np.asarray(cv2.warpAffine(pixels, turn, (W, H)), np.uint8)

    def middle(pixels: Picture) -> Picture:
        H, W = pixels.shape[:2]
        return pixels[3 * H // 8 : 5 * H // 8 + 1, 3 * W // 8 : 5 * W // 8 + 1]

    changes: dict[str, Callable[[Picture], Picture]] = {
        "inverted": inverted,
        "turned by 45 degrees": lambda pixels: turned(pixels, 45),
        "turned by 90 degrees": lambda pixels: np.ascontiguousarray(np.rot90(pixels)),
        "upside down": lambda pixels: np.ascontiguousarray(pixels[::-1, ::-1]),
        "mirrored": lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
        "blurred, sigma 8": lambda pixels: np.asarray(cv2.GaussianBlur(pixels, (0, 0), 8), np.uint8),
        "the middle sixteenth": middle,
        "a fifth of the contrast": lambda pixels: (pixels // 5 + 100).astype(np.uint8),
    }
    for name, change in changes.items():
        yield name, [(change(pixels), patient, study) for pixels, patient, study in group]


def drawn(count: int, seed: int) -> Iterator[tuple[str, Group]]:
    generator = np.random.default_rng(seed)

    def named(pictures: Sequence[Picture]) -> Group:
        return [(picture, str(number), str(number)) for number, picture in enumerate(pictures)]

    fingers = [
        (view.pixels, str(n), str(n)) for n in range(count // 2) for view in draw_study(seed, n, abnormal=n % 2 == 1)
    ]
    yield "synthetic fingers", fingers[:count]
    yield "white noise", named([generator.integers(0, 256, (512, 400), np.uint8) for _ in range(count)])
    yield "smooth noise", named([smooth(generator) for _ in range(count)])
    yield "text pages", named([text_page(generator) for _ in range(count)])
    yield "gradients", named([gradient(generator) for _ in range(count)])
    yield "one grey", named([np.full((512, 400), level, np.uint8) for level in np.linspace(0, 255, 16).astype(int)])


def smooth(generator: np.random.Generator) -> Picture:
    grain = generator.standard_normal((512, 400)).astype(np.float32)
    blurred = cv2.GaussianBlur(grain, (0, 0), float(generator.uniform(5, 40)))
    return np.asarray(cv2.normalize(blurred, np.empty_like(blurred), 0, 255, cv2.NORM_MINMAX), np.uint8)


def text_page(generator: np.random.Generator) -> Picture:
    """A page of words, black on white."""
    page = np.full((800, 600), 255, np.uint8)
    for y in range(50, 760, int(generator.integers(18, 34))):
        line = " ".join(generator.choice(WORDS, 9))
        cv2.putText(
            page, line, (40, y), cv2.FONT_HERSHEY_SIMPLEX, float(generator.uniform(0.4, 0.6)), 0, 1, cv2.LINE_AA
        )
    return page


def gradient(generator: np.random.Generator) -> Picture:
    y, x = np.mgrid[:512, :400].astype(np.float32)
    angle, bend = generator.uniform(0, 2 * np.pi), generator.uniform(-1, 1)
    values = np.cos(angle) * x / 400 + np.sin(angle) * y / 512 + bend * (x * y / 204_800)
    return np.asarray(255 * (values - values.min()) / np.ptp(values), np.uint8)


def photographs(count: int, seed: int) -> Iterator[tuple[str, Group]]:
    """Crops of the photographs of two packages, in colour and grey."""
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_sample_images

    whole = [np.asarray(picture[:, :, ::-1], np.uint8) for picture in load_sample_images().images]
    whole.append(read_radiograph(Path(get_sample_data("grace_hopper.jpg", asfileobj=False))).pixels)
    generator = np.random.default_rng(seed)
    crops: Group = []
    for number in range(count):
        picture = whole[number % len(whole)]
        H, W = picture.shape[:2]
        height, width = (int(side * generator.uniform(0.4, 0.9)) for side in (H, W))
        top, left = int(generator.integers(H - height + 1)), int(generator.integers(W - width + 1))
        crops.append((np.ascontiguousarray(picture[top : top + height, left : left + width]), str(number), str(number)))
    yield "photographs", crops
    yield (
        "photographs, grey",
        [(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8), a, b) for picture, a, b in crops],
    )


def margins_above_limits(searcher: Searcher, group: Group) -> NDArray[np.float64]:
    """How far each picture, as a query of one view, lies above the limits (N, 4); negative where it is flagged.

    The columns are REASONS: similarity to the nearest study, and the margins of part, polarity and turn.
    """
    rules, appearance = searcher.rules, searcher.encoder.appearance
    folds_margins = []
    for start in range(0, len(group), BATCH):
        embeddings = searcher.encoder.encode([pixels for pixels, *_ in group[start : start + BATCH]]).embeddings
        near = np.array([hits[0].similarity for hits in searcher.index.search(embeddings, 1)])
        margins = np.full((len(near), 3), np.inf)
        if appearance is not None and rules.appearance_limits:
            margins = appearance.margins(embeddings, rules.parts) - np.array(rules.appearance_limits)
        folds_margins.append(np.column_stack((near - rules.familiarity_limit, margins)))
    return np.concatenate(folds_margins)


def line(beyond: NDArray[np.float64], owners: Sequence[str], rounds: int) -> str:
    """A row of the table, without its name."""
    flagged = np.any(beyond < 0, axis=1)
    share = bootstrap_ratios({"": (flagged.astype(float), np.ones(len(beyond)))}, owners, rounds=rounds)[""]
    reasons = " | ".join(str(count) for count in (beyond < 0).sum(0))
    return f"{flagged.sum()} of {len(beyond)} | {estimate_text(share)} | {reasons}"


def folds_of(cases: Sequence[Case], allowed: NDArray[np.bool_], folds: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """The held-out radiographs (N,) of each fold: of about one of `folds` of the patients that are allowed."""
    names = sorted({case.patient for case, usable in zip(cases, allowed, strict=True) if usable})
    order = np.random.default_rng(seed).permutation(names)
    for fold in range(folds):
        held = set(order[fold::folds].tolist())
        yield np.array([case.patient in held for case in cases])


def by_study(cases: Sequence[Case], rows: NDArray[np.bool_]) -> dict[str, list[int]]:
    studies: dict[str, list[int]] = {}
    for row in np.flatnonzero(rows).tolist():
        studies.setdefault(cases[row].study, []).append(row)
    return studies


def learned(cases: Sequence[Case], rows: Floats, kept: NDArray[np.bool_], most: int, seed: int) -> MeasureLimits:
    """The limits of the kept radiographs, of at most `most` studies of them."""
    studies = sorted(by_study(cases, kept))
    chosen = set(np.random.default_rng(seed).permutation(studies)[:most].tolist())
    chosen_rows = [row for row in np.flatnonzero(kept).tolist() if cases[row].study in chosen]
    return learn_measure_limits([cases[row].study for row in chosen_rows], rows[chosen_rows])


def counted(name: str, flagged: int, total: int, reasons: Counter[str]) -> str:
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return f"| {name} | {flagged} of {total} | {flagged / max(1, total):.3f} | {why} |"


def measured_alarms(cases: Sequence[Case], rows: Floats, folds: int, seed: int) -> None:
    for most in (100_000, 200, 100, 50):
        flagged, total, reasons = 0, 0, Counter[str]()
        for held in folds_of(cases, np.ones(len(cases), np.bool_), folds, seed):
            limits = learned(cases, rows, ~held, most, seed)
            for study_rows in by_study(cases, held).values():
                codes = [str(exceeded[0]) for exceeded in limits.beyond(rows[study_rows])]
                flagged, total = flagged + bool(codes), total + 1
                reasons.update(codes)
        print(
            counted(
                f"measures, limits from {f'{most} studies' if most < len(cases) else 'all'}", flagged, total, reasons
            )
        )


def all_alarms(searcher: Searcher, cases: Sequence[Case], rows: Floats, folds: int, seed: int) -> None:
    bundle, appearance = searcher.encoder.bundle, searcher.encoder.appearance
    embeddings, logits = searcher.index.embeddings(), searcher.index.logits()
    thumbnails = [picture for batch in searcher.index.batches() for picture in batch.thumbnails]
    seen = bundle.seen_in(cases, thumbnails)
    unseen = np.array([digest_number(case.digest) not in seen for case in cases])
    flagged, total, reasons, former = 0, 0, Counter[str](), 0
    for held in folds_of(cases, unseen, folds, seed):
        kept = ~held
        others = [case for case, keep in zip(cases, kept, strict=True) if keep]
        rules = learn_rules(LabelledStudies(others, embeddings[kept], logits[kept], seen), appearance=appearance)
        limits = learn_measure_limits([case.study for case in others], rows[kept])
        nearest = StudyMatrix(others, embeddings[kept]).similarities(embeddings).max(axis=1)
        for study_rows in by_study(cases, held).values():
            unusual = limits.beyond(rows[study_rows])
            judged = familiarity(embeddings[study_rows], nearest[study_rows].tolist(), rules, appearance, unusual)
            flagged, total = flagged + bool(judged.codes), total + 1
            former += len(judged.codes) > len(unusual)
            reasons.update(judged.codes)
    print(counted("all reasons, patients unknown to the model", flagged, total, reasons))
    print(f"(of these, {former} by reasons other than measures)")


def changed_measures(cases: Sequence[Case], rows: Floats, size: int, *, folds: int, stride: int, seed: int) -> None:
    chosen = set(sorted({case.study for case in cases})[::stride])
    judged: dict[tuple[str, str], list[list[str]]] = {}
    for held in folds_of(cases, np.ones(len(cases), np.bool_), folds, seed):
        limits = learned(cases, rows, ~held, len(cases), seed)
        for study, study_rows in by_study(cases, held).items():
            if study not in chosen:
                continue
            pictures = [(cases[row].case, read_radiograph(Path(cases[row].path)).pixels) for row in study_rows]
            for name in CORRUPTIONS:
                for strength, word in enumerate(STRENGTHS):
                    views = [
                        measure(corrupt(pixels, name, strength, zlib.crc32(f"{name} {case}".encode())), size)
                        for case, pixels in pictures
                    ]
                    codes = [str(exceeded[0]) for exceeded in limits.beyond(measure_rows(views))]
                    judged.setdefault((name, word), []).append(codes)
    for (name, word), codes_of_all in judged.items():
        reasons = Counter(code for codes in codes_of_all for code in codes)
        print(counted(f"{name}, {word}", sum(map(bool, codes_of_all)), len(codes_of_all), reasons))


def other_collection(data: Path, cases: Sequence[Case], rows: Floats, size: int) -> None:
    """Another collection by limits of this one, and by its own in halves."""
    cases_read, measures = [], []
    for case in read_collection(data).cases:
        try:
            measures.append(measure(read_radiograph(Path(case.path), case.case).pixels, size))
        except RadiographError as error:
            print(f"left out: {error}")
            continue
        cases_read.append(case)
    measured = measure_rows(measures)
    limits = learn_measure_limits([case.study for case in cases], rows)
    all_rows = np.ones(len(cases_read), np.bool_)
    codes = [
        [str(hit[0]) for hit in limits.beyond(measured[study_rows])]
        for study_rows in by_study(cases_read, all_rows).values()
    ]
    reasons = Counter(code for study_rows in codes for code in study_rows)
    print(counted(f"{data.name}, limits of this index", sum(map(bool, codes)), len(codes), reasons))
    measured_alarms(cases_read, measured, 2, 1)


def in_folds(data: Path, index: Path, other: Path | None, *, folds: int, stride: int, seed: int) -> None:
    with Searcher.open(index) as searcher:
        size = searcher.encoder.bundle.preprocessing.size
        paths = {case.case: case.path for case in read_collection(data).cases}
        cases = [case for case in searcher.index.cases() if case.case in paths]
        stored = [unpacked(data) for data in searcher.index.extra(TABLE)]
        known = np.array([astuple(measures) if measures else [np.nan] * len(MEASURES) for measures in stored])
        if np.isnan(known).any():  # an index of an earlier version
            known = measure_rows([measure(read_radiograph(Path(paths[case.case])).pixels, size) for case in cases])
        print("\n| | flagged | share | reasons |\n|---|---|---|---|")
        measured_alarms(cases, known, folds, seed)
        all_alarms(searcher, cases, known, folds, seed)
        if other:
            other_collection(other, cases, known, size)
        changed_measures(cases, known, size, folds=folds, stride=stride, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--other", type=Path, help="a collection of other body parts")
    parser.add_argument("--most", type=int, default=300, metavar="N", help="at most so many pictures of each group")
    parser.add_argument("--drawn", type=int, default=100, metavar="N", help="so many of each drawn or cropped group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument(
        "--folds", type=int, default=0, help="judge in so many folds by patient; INDEX holds all of DATA"
    )
    parser.add_argument("--stride", type=int, default=6, metavar="N", help="with --folds, change every Nth study")
    options = parser.parse_args()
    machine("onnxruntime", "opencv-python-headless", "numpy")
    if options.folds:
        shared = {"folds": options.folds, "stride": options.stride, "seed": options.seed}
        in_folds(options.data, options.index, options.other, **shared)
        return
    with Searcher.open(options.index) as searcher:
        seen, rules = searcher.encoder.bundle.seen(), searcher.rules
        print(
            f"\nlimits {rules.familiarity_limit:.4f}, {rules.appearance_limits}; parts {rules.parts}; {rules.source}\n"
        )
        print(f"| | flagged | share | {' | '.join(REASONS)} |\n|---|---|---|---|---|---|---|")
        groups = radiographs(options.data, "valid", seen, options.most)
        valid = [picture for group in groups.values() for picture in group]
        known = margins_above_limits(searcher, valid)
        studies: dict[str, list[int]] = {}
        for row, (_, _, study) in enumerate(valid):
            studies.setdefault(study, []).append(row)
        by_study = np.array([known[rows].min(0) for rows in studies.values()])

        def show(name: str, beyond: NDArray[np.float64], owners: Sequence[str]) -> None:
            print(f"| {name} | {line(beyond, owners, options.rounds)} |", flush=True)

        show("valid, by study", by_study, [valid[rows[0]][1] for rows in studies.values()])
        show("valid", known, [patient for _, patient, _ in valid])
        named: list[tuple[str, Group]] = list(changed(valid))
        if options.other:
            named += radiographs(options.other, "valid", seen, options.most).items()
        named += [*drawn(options.drawn, options.seed), *photographs(options.drawn, options.seed)]
        for name, group in named:
            show(name, margins_above_limits(searcher, group), [patient for _, patient, _ in group])


if __name__ == "__main__":
    main()
