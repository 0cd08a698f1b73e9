"""How often are held-out studies called unlike the index, and which changes are seen? In folds by patient.

    python -m experiments.measure_limits DATA --index INDEX [--folds 5] [--stride 6] [--seed 1]

INDEX holds all of DATA. No radiograph is encoded:

- false alarms of the plain measures, in folds of all patients; also where the limits are learned from 200, 100 and 50
  studies of the other folds;
- false alarms of all reasons, in folds of the patients on whom the model was not trained: rules and limits are learned
  without the fold, and each of its studies is judged from its stored embeddings and measures;
- every STRIDE-th study under `images.corruptions` at each strength, by measures alone: the share that is flagged, with
  the most frequent reasons. Its patient is in the fold that is left out.
- the same for radiographs of another collection (--other), as they are: limits from the one, queries from the other.
"""

import argparse
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.datasets.collection import read_collection
from retrieval.decision.familiarity import familiarity
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.leave_patient_out import StudyMatrix
from retrieval.decision.measure_limits import MeasureLimits, learn_measure_limits
from retrieval.encoding.bundle import digest_number
from retrieval.images.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from retrieval.images.measures import MEASURES, TABLE, measure, measure_rows, unpacked
from retrieval.images.radiograph import read_radiograph
from retrieval.searcher import Searcher

Floats = NDArray[np.float64]


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
    some = [row for row in np.flatnonzero(kept).tolist() if cases[row].study in chosen]
    return learn_measure_limits([cases[row].study for row in some], rows[some])


def line(name: str, flagged: int, total: int, reasons: Counter[str]) -> str:
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return f"| {name} | {flagged} of {total} | {flagged / max(1, total):.3f} | {why} |"


def measured_alarms(cases: Sequence[Case], rows: Floats, folds: int, seed: int) -> None:
    for most in (100_000, 200, 100, 50):
        flagged, total, reasons = 0, 0, Counter[str]()
        for held in folds_of(cases, np.ones(len(cases), np.bool_), folds, seed):
            limits = learned(cases, rows, ~held, most, seed)
            for own in by_study(cases, held).values():
                codes = [str(found[0]) for found in limits.beyond(rows[own])]
                flagged, total = flagged + bool(codes), total + 1
                reasons.update(codes)
        print(
            line("measures, limits from " + (f"{most} studies" if most < 100_000 else "all"), flagged, total, reasons)
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
        rules = learn_rules(others, embeddings[kept], logits[kept], trained_on=seen, appearance=appearance)
        limits = learn_measure_limits([case.study for case in others], rows[kept])
        nearest = StudyMatrix(others, embeddings[kept]).similarities(embeddings).max(axis=1)
        for own in by_study(cases, held).values():
            unusual = limits.beyond(rows[own])
            judged = familiarity(embeddings[own], nearest[own].tolist(), rules, appearance, unusual)
            flagged, total = flagged + bool(judged.codes), total + 1
            former += len(judged.codes) > len(unusual)
            reasons.update(judged.codes)
    print(line("all reasons, patients unknown to the model", flagged, total, reasons))
    print(f"(of these, {former} by reasons other than measures)")


def changed(cases: Sequence[Case], rows: Floats, size: int, *, folds: int, stride: int, seed: int) -> None:
    chosen = set(sorted({case.study for case in cases})[::stride])
    judged: dict[tuple[str, str], list[list[str]]] = {}
    for held in folds_of(cases, np.ones(len(cases), np.bool_), folds, seed):
        limits = learned(cases, rows, ~held, len(cases), seed)
        for study, own in by_study(cases, held).items():
            if study not in chosen:
                continue
            pictures = [(cases[row].case, read_radiograph(Path(cases[row].path)).pixels) for row in own]
            for name in CORRUPTIONS:
                for strength, word in enumerate(STRENGTHS):
                    views = [
                        measure(corrupt(pixels, name, strength, seed + zlib.crc32(f"{name} {case}".encode())), size)
                        for case, pixels in pictures
                    ]
                    codes = [str(found[0]) for found in limits.beyond(measure_rows(views))]
                    judged.setdefault((name, word), []).append(codes)
    for (name, word), codes_of_all in judged.items():
        reasons = Counter(code for codes in codes_of_all for code in codes)
        print(line(f"{name}, {word}", sum(map(bool, codes_of_all)), len(codes_of_all), reasons))


def others(data: Path, cases: Sequence[Case], rows: Floats, size: int) -> None:
    """Another collection by limits of this one, and by its own in halves."""
    found = read_collection(data).cases
    other = measure_rows([measure(read_radiograph(Path(case.path)).pixels, size) for case in found])
    limits = learn_measure_limits([case.study for case in cases], rows)
    every = np.ones(len(found), np.bool_)
    codes = [[str(hit[0]) for hit in limits.beyond(other[own])] for own in by_study(found, every).values()]
    reasons = Counter(code for own in codes for code in own)
    print(line(f"{data.name}, limits of this index", sum(map(bool, codes)), len(codes), reasons))
    measured_alarms(found, other, 2, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--other", type=Path, help="a collection of other radiographs")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--stride", type=int, default=6, metavar="N", help="change the radiographs of every Nth study")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with Searcher.open(options.index) as searcher:
        size = searcher.encoder.bundle.preprocessing.size
        paths = {case.case: case.path for case in read_collection(options.data).cases}
        cases = [case for case in searcher.index.cases() if case.case in paths]
        stored = [unpacked(data) for data in searcher.index.extra(TABLE)]
        known = np.array([astuple(own) if own else [np.nan] * len(MEASURES) for own in stored])
        if np.isnan(known).any():  # an index of an earlier version
            known = measure_rows([measure(read_radiograph(Path(paths[case.case])).pixels, size) for case in cases])
        print("| | flagged | share | reasons |\n|---|---|---|---|")
        measured_alarms(cases, known, options.folds, options.seed)
        all_alarms(searcher, cases, known, options.folds, options.seed)
        if options.other:
            others(options.other, cases, known, size)
        changed(cases, known, size, folds=options.folds, stride=options.stride, seed=options.seed)


if __name__ == "__main__":
    main()
