"""Which planted errors does the deep audit find, and what else does it report?

    python -m experiments.planted_errors
    python -m experiments.planted_errors --data FOLDER

Copies: changed copies of radiographs are put under new patients into the other split. A reported pair is right if both
radiographs come from one, or from two that the audit of the untouched collection reports as near duplicates (phantoms
have none; those of FracAtlas have to be looked at). Labels: in each of many rounds the labels of 5 % of the studies are
inverted; a listed study is right if its label was inverted. A label that was wrong before counts as a false alarm.
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks._timing import machine
from index.case import Case
from retrieval.audit.audit import deep_audit
from retrieval.audit.deep_audit import EncodedCollection, deep_findings, encode_collection
from retrieval.audit.label_issues import LabelCheck, LabelIssue, check_labels
from retrieval.audit.near_duplicates import NearDuplicate, joined_patients
from retrieval.datasets.collection import read_collection
from retrieval.datasets.splits import split_by_patient
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.images.radiograph import read_radiograph
from retrieval.indexing.build import bundle_rules
from retrieval.synthetic.dataset import write_collection

__all__ = ["main"]

Pixels = NDArray[np.uint8]
Generator = np.random.Generator


def rescaled(pixels: Pixels, generator: Generator) -> Pixels:
    factor = generator.uniform(0.5, 0.9)
    return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def encoded(pixels: Pixels, quality: int = 30) -> Pixels:
    data = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


def brightened(pixels: Pixels, generator: Generator) -> Pixels:
    bright = pixels * generator.uniform(0.75, 1.25) + generator.uniform(-20, 20)
    changed: Pixels = np.clip(bright, 0, 255).astype(np.uint8)
    return changed


def gamma(pixels: Pixels, generator: Generator) -> Pixels:
    changed: Pixels = np.round(255 * (pixels / 255.0) ** float(generator.choice([0.7, 1.4]))).astype(np.uint8)
    return changed


def cropped(pixels: Pixels, generator: Generator, most: float) -> Pixels:
    height, width = pixels.shape[:2]
    top, bottom, left, right = (int(generator.uniform(0.2, 1) * most * side) for side in (height, height, width, width))
    return pixels[top : height - bottom, left : width - right].copy()


def tilted(pixels: Pixels, generator: Generator) -> Pixels:
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), generator.uniform(-4, 4), 1)
    return np.asarray(cv2.warpAffine(pixels, turn, (width, height)), np.uint8)


def mirrored(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


CHANGES: dict[str, Callable[[Pixels, Generator], Pixels]] = {
    "rescaled to 50 to 90 %": rescaled,
    "JPEG of quality 30": lambda pixels, generator: encoded(pixels),
    "brightness and contrast": brightened,
    "gamma 0.7 or 1.4": gamma,
    "cropped by up to 5 % a side": lambda pixels, generator: cropped(pixels, generator, 0.05),
    "cropped by up to 10 % a side": lambda pixels, generator: cropped(pixels, generator, 0.10),
    "cropped by up to 20 % a side": lambda pixels, generator: cropped(pixels, generator, 0.20),
    "tilted by up to 4 degrees": tilted,
    "mirrored": lambda pixels, generator: mirrored(pixels),
    "crop 5 %, rescaled, brightened, JPEG 60": lambda pixels, generator: encoded(
        brightened(rescaled(cropped(pixels, generator, 0.05), generator), generator), 60
    ),
    "mirrored, crop 5 %, rescaled, JPEG 60": lambda pixels, generator: encoded(
        rescaled(cropped(mirrored(pixels), generator, 0.05), generator), 60
    ),
}


@dataclass(frozen=True)
class Planted:
    """A collection with copies: the folder of its case table, and by copy its source and its change."""

    folder: Path
    sources: dict[str, str]
    changes: dict[str, str]


def plant_copies(cases: Sequence[Case], folder: Path, each: int, generator: Generator) -> Planted:
    """Write `each` copies of each change, no radiograph twice, and a case table of the originals and the copies."""
    chosen = iter(generator.permutation(len(cases)).tolist())
    rows = [
        [os.path.relpath(case.path, folder), case.label_name, case.patient, case.study, case.part, case.split]
        for case in cases
    ]
    sources, changes = {}, {}
    for number, (title, change) in enumerate(CHANGES.items()):
        for copy in range(each):
            source = cases[next(chosen)]
            name = f"copy{number:02}-{copy:02}.png"
            assert cv2.imwrite(str(folder / name), change(read_radiograph(Path(source.path)).pixels, generator))
            other_split = "valid" if source.split == "train" else "train"
            rows.append([name, source.label_name, f"planted {name}", f"planted {name}", source.part, other_split])
            sources[name], changes[name] = os.path.relpath(source.path, folder), title
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([["path", "label", "patient", "study", "part", "split"], *rows])
    return Planted(folder, sources, changes)


def score_copies(planted: Planted, before: Sequence[NearDuplicate], after: Sequence[NearDuplicate]) -> None:
    """Print recall by change, and precision. before: those of the untouched collection, named as in the new one."""
    same = {frozenset(pair.cases) for pair in before}
    right: set[str] = set()
    wrong: list[NearDuplicate] = []
    for pair in after:
        first, second = (planted.sources.get(case, case) for case in pair.cases)
        if first != second and frozenset((first, second)) not in same:
            wrong.append(pair)
        elif first == second:  # a copy and its source; never two copies, for no radiograph is copied twice
            right.update(case for case in pair.cases if case in planted.sources)
    print(f"near duplicates: {len(after)} reported; {len(before)} of the untouched collection")
    for change in CHANGES:
        copies = [case for case, planted_change in planted.changes.items() if planted_change == change]
        print(f"  {change}: found {sum(case in right for case in copies)} of {len(copies)}")
    print(f"  recall {len(right) / len(planted.sources):.3f} ({len(right)} of {len(planted.sources)} copies)")
    if after:
        print(f"  precision {1 - len(wrong) / len(after):.3f} ({len(wrong)} of {len(after)} pairs unexplained)")
    for pair in wrong:
        print(f"    unexplained: {' ~ '.join(pair.cases)}, match {pair.match:.3f}")


def score_labels(
    encoding: EncodedCollection, pairs: Sequence[NearDuplicate], rounds: int, share: float, seed: int
) -> None:
    """Invert the labels of a share of the studies, many times, and print how good the audit's list is."""
    seen, fallback = encoding.bundle.seen(), bundle_rules(encoding.bundle)
    owners = joined_patients(encoding.cases, [pair.cases for pair in pairs])
    studies = sorted({case.study for case in encoding.cases})
    rows: dict[str, list[list[float]]] = {}
    for number in range(rounds):
        generator = np.random.default_rng((seed, number))
        inverted = set(generator.choice(studies, round(share * len(studies)), replace=False).tolist())
        cases = [replace(case, label=1 - case.label) if case.study in inverted else case for case in encoding.cases]
        labelled = LabelledStudies(cases, encoding.embeddings, encoding.logits, seen)
        check = check_labels(labelled, learn_rules(labelled, fallback=fallback), owners=owners, least=0.0)
        fresh = {issue.study for issue in check.issues if issue.classifier is not None}
        groups = {"all studies": set(studies)}
        if 0 < len(fresh) < len(studies):
            groups |= {"unseen by the model": fresh, "seen in training": set(studies) - fresh}
        for name, group in groups.items():
            rows.setdefault(name, []).append(measured(check, inverted & group, group))
    print(f"labels: {share:.0%} of {len(studies)} studies inverted, {rounds} rounds; mean (least to most)")
    for name, values in rows.items():
        print(f"  {name}")
        for title, column in zip(MEASURES, np.array(values).T, strict=True):
            if not np.isnan(column).all():
                print(f"    {title}: {np.nanmean(column):.3f} ({np.nanmin(column):.3f} to {np.nanmax(column):.3f})")


MEASURES = (
    "labels inverted",
    "studies listed",
    "expected wrong among the listed",
    "precision of the list",
    "recall of the list",
    "precision where the classifier agrees",
    "recall where the classifier agrees",
    "precision of as many of the highest chance as were inverted",
    "AUROC of the chance",
    "average precision of the chance",
)


def measured(check: LabelCheck, inverted: set[str], group: set[str], least: float = 0.2) -> list[float]:
    everyone = [issue for issue in check.issues if issue.study in group]
    listed = [issue for issue in everyone if issue.chance >= least]
    agreed = [issue for issue in listed if issue.seconded]
    truth = np.array([issue.study in inverted for issue in everyone])
    chances = np.array([issue.chance for issue in everyone])
    return [
        len(inverted),
        len(listed),
        sum(issue.chance for issue in listed),
        share_of(listed, inverted),
        sum(issue.study in inverted for issue in listed) / len(inverted),
        share_of(agreed, inverted),
        sum(issue.study in inverted for issue in agreed) / len(inverted) if agreed else np.nan,
        share_of(everyone[: len(inverted)], inverted),
        float(roc_auc_score(truth, chances)),
        float(average_precision_score(truth, chances)),
    ]


def share_of(issues: Sequence[LabelIssue], inverted: set[str]) -> float:
    return float(np.mean([issue.study in inverted for issue in issues])) if issues else np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a collection to plant errors in; without it, phantoms")
    parser.add_argument("--patients", type=int, default=300, help="of phantoms")
    parser.add_argument("--each", type=int, default=8, help="copies of each change")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that is inverted")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    machine("numpy", "opencv-python-headless", "onnxruntime")
    generator = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data is None:
            data = folder / "phantoms"
            write_collection(data, patients=options.patients, seed=options.seed)
        else:
            data = options.data
        cases = read_collection(data).cases
        if not any(case.split for case in cases):
            cases = split_by_patient(cases)
        planted = plant_copies(cases, folder, options.each, generator)
        collection = read_collection(folder / "cases.csv")
        started = time.perf_counter()
        encoding = encode_collection(collection, Encoder.open(BUNDLED))
        print(f"{len(encoding.cases)} radiographs encoded in {time.perf_counter() - started:.0f} s")
        originals = without(encoding, set(planted.sources))
        before = deep_findings(originals).near_duplicates
        started = time.perf_counter()
        audited = deep_audit(collection, encoding)
        print(f"and compared in {time.perf_counter() - started:.0f} s")
        assert audited.deep
        score_copies(planted, before, audited.deep.near_duplicates)
        print(f"leakage: {audited.verdict}")
        for leak in audited.leakage:
            print(f"  {leak.split}: {leak.studies} studies, {len(leak.leaking)} tied to another split")
        score_labels(originals, before, options.rounds, options.share, options.seed)


def without(encoding: EncodedCollection, names: set[str]) -> EncodedCollection:
    """The encoding of the other cases."""
    kept = [row for row, case in enumerate(encoding.cases) if case.case not in names]
    return replace(
        encoding,
        cases=tuple(encoding.cases[row] for row in kept),
        embeddings=encoding.embeddings[kept],
        logits=encoding.logits[kept],
        thumbnails=tuple(encoding.thumbnails[row] for row in kept),
    )


if __name__ == "__main__":
    main()
