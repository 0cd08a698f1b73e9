"""The runs of an experiment in folds, compared: on all studies, and without studies that are in another fold twice.

    python -m experiments.compare_folds CASES RUNS... [--folds 5] [--copies FILE] [--out FILE]

CASES is the case table that made the runs. RUNS are folders of runs (OUT/runs of `mura-search experiment`), or tables
of many runs such as experiments/predictions.csv. FILE of --copies lists pairs of near duplicates, as
experiments/fracatlas_table.py writes it; without it, near duplicates are searched for among all radiographs.

A study is too easy for a model that has learned a near duplicate of it, or whose index holds one. A near duplicate in
the study's own fold does no such harm. Nothing is trained again: the affected studies are left out. "no copy
elsewhere" leaves out studies with a near duplicate in another fold. "nor such a patient" leaves out all studies of
patients whom a near duplicate ties to another fold. Intervals are 95 % of 10,000 resamplings of the patients with seed
0. Patients who share a radiograph count as one.

FILE of --out gets every printed figure as a line, in the columns of experiments/results.csv.
"""

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from experiments.fracatlas_table import find_near_duplicates, read_copies
from index.case import Case
from retrieval.audit.near_duplicates import joined_patients
from retrieval.datasets.collection import read_collection
from retrieval.datasets.splits import patient_folds
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.evaluation.metrics import Bootstrap, Estimate, bootstrap, measure
from retrieval.evaluation.paired_comparison import Prediction, predictors_of, read_predictions
from retrieval.wording import estimate_text

NAMES = {"kappa": "kappa", "auroc": "AUROC"}
FIGURES = tuple((reader, metric) for metric in NAMES for reader in ("classifier", "vote"))
COLUMNS = ("run", "against", "studies", "reader", "metric", "value", "low", "high")
THRESHOLD = "threshold"  # in the column `study` of a table of many runs: the row has the thresholds of its fold

Runs = Mapping[str, Sequence[Prediction]]  # by name; all of the same studies
Row = tuple[str, str, str, str, str, Estimate]  # COLUMNS, with value, low and high in one


@dataclass(frozen=True)
class Ties:
    """By study: its fold, and its patient joined with all who share a radiograph; and the studies to leave out."""

    fold: Mapping[str, int]
    owner: Mapping[str, str]
    copied: frozenset[str]  # studies with a near duplicate in another fold
    spread: frozenset[str]  # studies of joined patients who lie in several folds


def find_ties(cases: Sequence[Case], pairs: Sequence[tuple[str, str]], folds: int) -> Ties:
    """pairs: near duplicates, by the names of their files; folds: the number in the experiment."""
    by_file = {Path(case.path).name: case for case in cases}
    studies = [case.study for case in cases]
    fold = dict(zip(studies, patient_folds(cases, folds), strict=True))
    linked = joined_patients(cases, [(by_file[first].case, by_file[second].case) for first, second in pairs])
    owner = dict(zip(studies, linked, strict=True))
    copied: set[str] = set()
    for pair in pairs:
        pair_studies = {by_file[name].study for name in pair}
        if len({fold[study] for study in pair_studies}) > 1:
            copied |= pair_studies
    folds_of: dict[str, set[int]] = {}
    for study, patient in owner.items():
        folds_of.setdefault(patient, set()).add(fold[study])
    spread = frozenset(study for study, patient in owner.items() if len(folds_of[patient]) > 1)
    return Ties(fold, owner, frozenset(copied), spread)


def read_runs(source: Path) -> Iterator[tuple[str, list[Prediction]]]:
    """The runs of a folder; or of a table with study, patient, label, fold, and "RUN classifier", "RUN vote" by run."""
    if source.is_dir():
        for file in sorted(source.glob("*/calls.csv")):
            yield file.parent.name, read_predictions(file)
        return
    with source.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    thresholds = {row["fold"]: row for row in rows if row["study"] == THRESHOLD}
    studies = [row for row in rows if row["study"] != THRESHOLD]
    for name in (column.removesuffix(" vote") for column in rows[0] if column.endswith(" vote")):
        yield (
            name,
            [
                Prediction(
                    study=row["study"],
                    patient=row["patient"],
                    label=int(row["label"]),
                    classifier=float(row[f"{name} classifier"]),
                    classifier_threshold=float(thresholds[row["fold"]][f"{name} classifier"]),
                    vote=float(row[f"{name} vote"]),
                    vote_threshold=float(thresholds[row["fold"]][f"{name} vote"]),
                )
                for row in studies
            ],
        )


def resampled(runs: Runs, studies: frozenset[str]) -> Bootstrap:
    """The readers of all runs, named "RUN classifier" and "RUN vote", on the same studies and in the same rounds."""
    kept = {
        name: sorted(
            (prediction for prediction in predictions if prediction.study in studies),
            key=lambda prediction: prediction.study,
        )
        for name, predictions in runs.items()
    }
    first = next(iter(kept.values()))
    readers = {f"{name} {kind}": reader for name, run in kept.items() for kind, reader in predictors_of(run).items()}
    return bootstrap(
        np.array([prediction.label for prediction in first]), [prediction.patient for prediction in first], readers
    )


def classifier_figure(predictions: Sequence[Prediction], metric: str) -> float:
    labels = np.array([prediction.label for prediction in predictions])
    return float(measure(labels, predictors_of(predictions)["classifier"])[metric][0])


def auroc_by_fold(runs: Runs, fold: Mapping[str, int]) -> Iterator[Row]:
    numbers = sorted({fold[prediction.study] for predictions in runs.values() for prediction in predictions})
    for run, predictions in runs.items():
        for number in numbers:
            value = classifier_figure(
                [prediction for prediction in predictions if fold[prediction.study] == number], "auroc"
            )
            yield run, "", f"fold {number + 1}", "classifier", "auroc", Estimate(value, None, None)


def figures_and_gains(runs: Runs, measured: Mapping[str, Bootstrap]) -> Iterator[Row]:
    """The figures of every run, then what every run gains on those before it; measured: by the name of the studies."""
    estimates = {name: figures.estimates() for name, figures in measured.items()}
    for run in runs:
        for studies in measured:
            for reader, metric in FIGURES:
                yield run, "", studies, reader, metric, estimates[studies][f"{run} {reader}"][metric]
    for reference, run in combinations(runs, 2):
        for studies, figures in measured.items():
            for reader, metric in FIGURES:
                gain = figures.difference(f"{run} {reader}", f"{reference} {reader}", metric)
                yield run, reference, studies, reader, metric, gain


def print_table(rows: Sequence[Row]) -> None:
    """Markdown, a run (or a difference of two) and its studies a line."""
    cells: dict[tuple[str, str, str], list[str]] = {}
    for run, against, studies, _, _, estimate in rows:
        text = estimate_text(estimate, sign=bool(against))
        cells.setdefault((run, against, studies), []).append(text)
    print(f"\n| | {' | '.join(f'{NAMES[metric]}, {reader}' for reader, metric in FIGURES)} |\n|{'---|' * 5}")
    for (run, against, studies), columns in cells.items():
        name = f"`{run}` - `{against}`" if against else f"`{run}`"
        print(f"| {name}, {studies} | {' | '.join(columns)} |", flush=True)


def write_rows(rows: Sequence[Row], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        for *names, estimate in rows:
            numbers = (estimate.value, estimate.low, estimate.high)
            writer.writerow([*names, *("" if number is None else f"{number:.3f}" for number in numbers)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--copies", type=Path, help="a table of pairs of near duplicates")
    parser.add_argument("--out", type=Path, help="the CSV file that every figure is written to")
    options = parser.parse_args()
    cases = read_collection(options.cases).cases
    if options.copies:
        copies = read_copies(options.copies)
    else:
        copies = find_near_duplicates([replace(c, case=Path(c.path).name) for c in cases], Encoder.open(BUNDLED))
    ties = find_ties(cases, [(first_file, second_file) for first_file, second_file, *_ in copies], options.folds)
    linked = {
        name: [replace(prediction, patient=ties.owner[prediction.study]) for prediction in predictions]
        for source in options.runs
        for name, predictions in read_runs(source)
    }
    if not linked:
        parser.error(f"no predictions in {', '.join(map(str, options.runs))}")
    runs = dict(sorted(linked.items(), key=lambda run: classifier_figure(run[1], "kappa")))
    if (
        len(
            {
                frozenset((prediction.study, prediction.label) for prediction in predictions)
                for predictions in runs.values()
            }
        )
        > 1
    ):
        parser.error("the runs predict different studies, so they cannot be compared")
    first = next(iter(runs.values()))
    studies_of_all = frozenset(prediction.study for prediction in first)
    kept = {
        "all": studies_of_all,
        "no copy elsewhere": studies_of_all - ties.copied,
        "nor such a patient": studies_of_all - ties.spread,
    }
    print(f"{len(copies)} pairs of copies; copies in another fold: {len(ties.copied)} studies of all parts")
    for name, studies in kept.items():
        members = [prediction for prediction in first if prediction.study in studies]
        patients = len({prediction.patient for prediction in members})
        print(f"{name}: {len(members)} studies, {sum(each.label for each in members)} abnormal, of {patients} patients")
    by_fold = list(auroc_by_fold(runs, ties.fold))
    for run in runs:
        values = [f"{estimate.value:.3f}" for name, *_, estimate in by_fold if name == run]
        print(f"AUROC of the classifier by fold: `{run}` {', '.join(values)}")
    rows = list(figures_and_gains(runs, {name: resampled(runs, studies) for name, studies in kept.items()}))
    print_table([row for row in rows if not row[1]])
    print_table([row for row in rows if row[1]])
    if options.out:
        write_rows([*by_fold, *rows], options.out)


if __name__ == "__main__":
    main()
