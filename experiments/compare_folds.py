"""The runs of an experiment in folds, compared: on all studies, and without those that have a copy in another fold.

    python -m experiments.compare_folds CASES RUNS... [--folds 5] [--copies FILE] [--beside NAME] [--retrieval]
        [--out FOLDER]

CASES is the case table that made the runs, RUNS are folders that hold them (OUT/runs), each with its calls.csv. FILE
lists pairs of copies as experiments/fracatlas_table.py writes it; without one they are looked for, in every radiograph.

A study whose radiograph was learned from, or is indexed, under another name flatters whoever judges it; a copy in its
own fold does not. Nothing is trained anew: such studies are dropped from judging. What is left was still learned beside
other studies of patients whom a copy ties to another fold; without these too is the third line. The intervals are 95 %
of 10,000 resamplings of the patients, seed 0, as the experiment's are, but patients who share a radiograph are one.

FOLDER gets what is printed: by_fold.csv, figures.csv, and pairs.csv with what each run gains on every other, paired.

--beside: what each run gains when its classifier and its vote are averaged, half and half, with the classifier of the
run NAME, thresholds too; beside.csv.

--retrieval gives precision at 5, which calls.csv has not: the judged radiographs are encoded again with each fold's own
model and ranked among what its index holds (RUNS/NAME/fold-N/model and index, of whatever index format).
"""

import argparse
import csv
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cli.evaluate import interval
from experiments.fracatlas_table import find_near_duplicates, read_copies
from index.case import Case
from retrieval.audit.deep_audit import encode_collection
from retrieval.audit.near_duplicates import joined_patients
from retrieval.datasets.collection import Collection, read_collection
from retrieval.datasets.splits import patient_folds
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.evaluation.metrics import Bootstrap, Estimate, bootstrap, bootstrap_ratios, measure
from retrieval.evaluation.paired_comparison import Prediction, read_predictions, readers_of
from retrieval.evaluation.retrieval_metrics import Ranking

DEPTH = "precision_at_5"
NAMES = {"kappa": "kappa", "auroc": "AUROC"}
FIGURES = tuple((reader, metric) for metric in NAMES for reader in ("classifier", "vote"))
NAMED = tuple(f"{NAMES[metric]}, {reader}" for reader, metric in FIGURES)
Runs = Mapping[str, Sequence[Prediction]]  # by name; all of the same studies


@dataclass(frozen=True)
class Ties:
    """By study: its fold, its patient with whoever shares a radiograph, and what copies tie to other folds."""

    fold: Mapping[str, int]
    owner: Mapping[str, str]
    copied: frozenset[str]  # studies with a copy in another fold
    spread: frozenset[str]  # studies of patients who lie in several folds


def ties(collection: Collection, pairs: Sequence[tuple[str, str]], folds: int) -> Ties:
    """pairs: of radiographs by the names of their files; folds: those of the experiment."""
    cases = collection.cases
    by_file = {Path(case.path).name: case for case in cases}
    fold = dict(zip((case.study for case in cases), patient_folds(cases, folds), strict=True))
    linked = joined_patients(cases, [(by_file[one].case, by_file[two].case) for one, two in pairs])
    owner = dict(zip((case.study for case in cases), linked, strict=True))
    copied: set[str] = set()
    for pair in pairs:
        studies = {by_file[name].study for name in pair}
        if len({fold[study] for study in studies}) > 1:
            copied |= studies
    places: dict[str, set[int]] = {}
    for study, patient in owner.items():
        places.setdefault(patient, set()).add(fold[study])
    spread = frozenset(study for study, patient in owner.items() if len(places[patient]) > 1)
    return Ties(fold, owner, frozenset(copied), spread)


def resampled(runs: Runs, studies: frozenset[str]) -> Bootstrap:
    """The readers of all runs, named "RUN classifier" and "RUN vote", on the same studies and in the same rounds."""
    judged = in_order(first(runs), studies)
    readers = {
        f"{run} {kind}": reader
        for run, calls in runs.items()
        for kind, reader in readers_of(in_order(calls, studies)).items()
    }
    return bootstrap(np.array([call.label for call in judged]), [call.patient for call in judged], readers)


def in_order(calls: Sequence[Prediction], studies: frozenset[str]) -> list[Prediction]:
    return sorted((call for call in calls if call.study in studies), key=lambda call: call.study)


def first(runs: Runs) -> Sequence[Prediction]:
    return next(iter(runs.values()))


def precision(calls: Sequence[Prediction], of: Mapping[str, float]) -> Estimate:
    values = np.array([of[call.study] for call in calls])
    return bootstrap_ratios({DEPTH: (values, np.ones(len(values)))}, [call.patient for call in calls])[DEPTH]


def stored(file: Path) -> tuple[list[Case], NDArray[np.float32]]:
    """The cases of an index and their embeddings (N, D), by columns that all its formats have; nothing is written."""
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        rows = connection.execute(
            'SELECT "case", study, patient, label, vector FROM cases JOIN embeddings USING (row) ORDER BY row'
        ).fetchall()
    return [Case(*row[:4]) for row in rows], np.stack([np.frombuffer(row[4], "<f4") for row in rows])


def retrieved(
    run: Path, collection: Collection, calls: Sequence[Prediction], fold: Mapping[str, int]
) -> dict[str, float]:
    """Precision at 5 of every judged study, by the model and the index of its fold; empty where they are not kept."""
    found: dict[str, float] = {}
    judged = {call.study for call in calls}
    for number in sorted({fold[study] for study in judged}):
        place = run / f"fold-{number + 1}"
        if not (place / "index" / "cases.sqlite").is_file():
            return {}
        indexed, embeddings = stored(place / "index" / "cases.sqlite")
        if any(fold[case.study] == number for case in indexed):
            raise SystemExit(f"{place} was made in other folds than those of the case table")
        ranking = Ranking(indexed, embeddings)
        cases = tuple(case for case in collection.cases if case.study in judged and fold[case.study] == number)
        encoding = encode_collection(replace(collection, cases=cases), Encoder.open(place / "model"))
        rows: dict[str, list[int]] = {}
        for row_number, case in enumerate(encoding.cases):
            rows.setdefault(case.study, []).append(row_number)
        for study, own in rows.items():
            similarities = ranking.similarities(encoding.embeddings[own])
            found[study] = ranking.retrieved(similarities, encoding.cases[own[0]].label).figures[DEPTH]
    return found


def of_classifier(calls: Sequence[Prediction], metric: str) -> float:
    return float(measure(np.array([call.label for call in calls]), readers_of(calls)["classifier"])[metric][0])


@dataclass
class Table:
    """Printed as Markdown line by line, and kept for a CSV file."""

    header: Sequence[str]

    def __post_init__(self) -> None:
        self.rows: list[Sequence[str]] = []
        print()
        self._print(["", *self.header])
        self._print(["---"] * (len(self.header) + 1))

    def add(self, run: str, studies: str, cells: Sequence[str]) -> None:
        self.rows.append([run, studies, *cells])
        self._print([", ".join(filter(None, [" - ".join(f"`{one}`" for one in run.split(" - ")), studies])), *cells])

    def write(self, file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerows([["run", "studies", *self.header], *self.rows])

    @staticmethod
    def _print(cells: Sequence[str]) -> None:
        print(f"| {' | '.join(cells)} |", flush=True)


def by_fold(runs: Runs, fold: Mapping[str, int]) -> Table:
    numbers = sorted({fold[call.study] for calls in runs.values() for call in calls})
    table = Table([f"AUROC, classifier, fold {number + 1}" for number in numbers])
    for run, calls in runs.items():
        of = [[call for call in calls if fold[call.study] == number] for number in numbers]
        table.add(run, "", [f"{of_classifier(own, 'auroc'):.3f}" for own in of])
    return table


def by_run(
    runs: Runs,
    kept: Mapping[str, frozenset[str]],
    found: Mapping[str, Bootstrap],
    depth: Mapping[str, Mapping[str, float]] | None,
) -> Table:
    """found: by the names of `kept`; depth: by run, the precision at 5 of each study, empty where it is not known."""
    table = Table([*NAMED, *(["precision at 5"] if depth is not None else [])])
    estimates = {name: figures.estimates() for name, figures in found.items()}
    for run, calls in runs.items():
        for name, studies in kept.items():
            cells = [interval(estimates[name][f"{run} {reader}"][metric]) for reader, metric in FIGURES]
            if depth is not None:
                some = [call for call in calls if call.study in studies]
                cells.append(interval(precision(some, depth[run])) if depth[run] else "not kept")
            table.add(run, name, cells)
    return table


def by_pair(runs: Runs, found: Mapping[str, Bootstrap]) -> Table:
    table = Table(NAMED)
    for other, run in combinations(runs, 2):
        for name, figures in found.items():
            table.add(f"{run} - {other}", name, gains(figures, run, other))
    return table


def by_company(runs: Runs, kept: Mapping[str, frozenset[str]], beside: str) -> Table:
    """What a run gains by the mean of both its readers with the classifier of another run."""
    company = {call.study: call for call in runs[beside]}
    both = {f"{run} beside": [averaged(call, company[call.study]) for call in calls] for run, calls in runs.items()}
    found = {name: resampled({**runs, **both}, studies) for name, studies in kept.items()}
    table = Table(NAMED)
    for run in runs:
        for name, figures in found.items():
            table.add(run, name, gains(figures, f"{run} beside", run))
    return table


def gains(figures: Bootstrap, run: str, other: str) -> list[str]:
    return [signed(figures.difference(f"{run} {kind}", f"{other} {kind}", metric)) for kind, metric in FIGURES]


def averaged(call: Prediction, other: Prediction) -> Prediction:
    return replace(
        call,
        classifier=(call.classifier + other.classifier) / 2,
        classifier_threshold=(call.classifier_threshold + other.classifier_threshold) / 2,
        vote=(call.vote + other.classifier) / 2,
        vote_threshold=(call.vote_threshold + other.classifier_threshold) / 2,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--copies", type=Path, help="a table of pairs of copies")
    parser.add_argument("--beside", metavar="NAME", help="a run whose classifier is averaged with each run's readers")
    parser.add_argument("--retrieval", action="store_true", help="precision at 5 too")
    parser.add_argument("--out", type=Path, help="where the tables are written as CSV")
    options = parser.parse_args()
    collection = read_collection(options.cases)
    if options.copies:
        copies = read_copies(options.copies)
    else:
        named = [replace(case, case=Path(case.path).name) for case in collection.cases]
        copies = find_near_duplicates(named, Encoder.open(BUNDLED))
    places = {file.parent.name: file.parent for runs in options.runs for file in sorted(runs.glob("*/calls.csv"))}
    if not places:
        parser.error(f"no run with a calls.csv in {', '.join(map(str, options.runs))}")
    tied = ties(collection, [(one, two) for one, two, *_ in copies], options.folds)
    linked = {
        name: [replace(call, patient=tied.owner[call.study]) for call in read_predictions(place / "calls.csv")]
        for name, place in places.items()
    }
    runs = dict(sorted(linked.items(), key=lambda run: of_classifier(run[1], "kappa")))
    judged = first(runs)
    if len({frozenset((call.study, call.label) for call in calls) for calls in runs.values()}) > 1:
        parser.error("the runs judged other studies, so they cannot be compared")
    every = frozenset(call.study for call in judged)
    kept = {"all": every, "no copy elsewhere": every - tied.copied, "nor such a patient": every - tied.spread}
    print(f"{len(copies)} pairs of copies; copies in another fold: {len(tied.copied)} studies of all parts")
    for name, studies in kept.items():
        some = [call for call in judged if call.study in studies]
        print(f"{name}: {len(some)} studies, {sum(call.label for call in some)} abnormal, of ", end="")
        print(f"{len({call.patient for call in some})} patients")
    depth = None
    if options.retrieval:
        depth = {run: retrieved(places[run], collection, calls, tied.fold) for run, calls in runs.items()}
    found = {name: resampled(runs, studies) for name, studies in kept.items()}
    tables = {
        "by_fold": by_fold(runs, tied.fold),
        "figures": by_run(runs, kept, found, depth),
        "pairs": by_pair(runs, found),
    }
    if options.beside:
        tables["beside"] = by_company(runs, kept, options.beside)
    if options.out:
        for name, table in tables.items():
            table.write(options.out / f"{name}.csv")


def signed(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return interval(estimate)
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


if __name__ == "__main__":
    main()
