"""Which recipe holds for radiographs that were processed otherwise?

    python -m experiments.robustness CASES RUNS NAME... [--folds 1 2] [--medium | --first-look] [--out FILE]
    python -m experiments.robustness CASES BUNDLES NAME... --split valid [--medium | --first-look] [--out FILE]

CASES is the table of all parts that `fracatlas_table.py` makes, RUNS the folder of `mura-search experiment`, whose runs
have a model for each fold. For each run and fold, the fold's upper-limb studies are asked about as they are and under
the changes of `retrieval.images.corruptions` at mild and medium strength (with --medium at medium alone, with
--first-look under six changes at medium strength). The index has the unchanged radiographs of the other folds. The
studies of all folds are counted together.

With --split the models are the bundles BUNDLES/NAME. "valid": the studies of that split, with an index of the split
`train`. "held-out": those of the split `train` whose patients did not train the bundle, with an index of the others.

FILE (experiments/robustness.csv) gets a line for each condition: those of a run and folds that are there are replaced.
Beside it, with the ending .svg, is the picture of the last run. If several runs are named, the paired differences of
each to the first one are printed, unchanged and as the mean over all changes, with 95 % intervals by patient.
"""

import argparse
import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval.datasets.collection import Collection, read_collection
from retrieval.encoding.bundle import Bundle, digest_number
from retrieval.evaluation.metrics import Predictor, measure
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.robustness import FIGURES, Condition, condition_of, predict_changed
from retrieval.images.corruptions import CORRUPTIONS
from retrieval.images.radiograph import file_digest
from retrieval.indexing.build import build_index
from retrieval.reports.robustness_chart import robustness_chart
from retrieval.reports.svg_chart import drawing
from retrieval.searcher import Searcher
from training.experiments.experiment import divided

FIRST_LOOK = ("blurred", "shrunk", "unsharp-masked", "low-contrast", "quantum-noise", "jpeg")
READERS = ("classifier", "knn")
MOST_LOST, LEAST_SPECIFICITY, LEAST_FLAGGED = 0.05, 0.85, 0.8
ROUNDS = 1_000
FIGURE_NAMES = ("kappa, classifier", "AUROC, classifier", "kappa, vote", "AUROC, vote", "precision at 5")
Side = tuple[Path, Collection, Collection]
Key = tuple[str, str]
COLUMNS = (
    "run", "folds", "corruption", "strength", "amount", "studies",
    *(f"{reader}_{figure}" for reader in READERS for figure in FIGURES), "precision_at_5", "unfamiliar",
    "classifier_holds", "knn_holds",
)  # fmt: skip


def sides(cases: Path, runs: Path, name: str, folds: Sequence[int], split: str) -> Iterator[Side]:
    """(model, indexed studies, asked studies) of each fold, or of one bundle."""
    collection = read_collection(cases)
    if not split:
        for number, (learned, asked) in enumerate(divided(collection, 5), 1):
            if number in folds:
                folder = runs / "runs" / name / f"fold-{number}" / "model"
                yield folder, learned.select(part="upper_limb"), asked.select(part="upper_limb")
        return
    train = collection.select(part="upper_limb", split="train")
    if split == "valid":
        yield runs / name, train, collection.select(part="upper_limb", split="valid")
        return
    seen = Bundle.open(runs / name).seen()
    taught = {case.patient for case in train.cases if digest_number(file_digest(Path(case.path))) in seen}
    for_index, asked = (
        replace(train, cases=tuple(case for case in train.cases if (case.patient in taught) == side))
        for side in (True, False)
    )
    yield runs / name, for_index, asked


def predictions_of(parts: Iterator[Side], wanted: Sequence[Key]) -> dict[Key, list[StudyPrediction]]:
    """The predictions under each condition, all folds together."""
    predictions: dict[Key, list[StudyPrediction]] = {key: [] for key in wanted}
    for model, indexed, asked in parts:
        with tempfile.TemporaryDirectory() as folder:
            build_index(indexed, Path(folder) / "index", model=model)
            with Searcher.open(Path(folder) / "index") as searcher:
                for corruption, strength in wanted:
                    predictions[corruption, strength] += predict_changed(searcher, asked, corruption, strength)[0]
    return predictions


def judged(predictions: dict[Key, list[StudyPrediction]]) -> list[tuple[Condition, float]]:
    """The figures under each condition, and precision at 5."""
    return [
        (condition_of(*key, predicted, rounds=2_000), _precision_at_5(predicted))
        for key, predicted in predictions.items()
    ]


def print_table(name: str, made: Sequence[tuple[Condition, float]]) -> None:
    """Classifier and vote under each condition, as Markdown."""
    print(f"\n| {name} | kappa | AUROC | sensitivity | specificity | unfamiliar |\n|{'---|' * 6}")
    for condition, _ in made:
        amount = "" if condition.amount is None else f" {condition.amount:g}"
        cells = [" / ".join(f"{condition.figures[reader][name].value:.3f}" for reader in READERS) for name in FIGURES]
        words = f"{condition.corruption or 'as they are'}{amount}"
        print(f"| {words} | {' | '.join(cells)} | {condition.unfamiliar.value:.0%} |", flush=True)
    means = [
        " / ".join(
            f"{np.mean([condition.figures[reader][name].value for condition, _ in made[1:]]):.3f}" for reader in READERS
        )
        for name in FIGURES
    ]
    print(f"| mean of the changes | {' | '.join(means)} | |", flush=True)


def print_differences(first: dict[Key, list[StudyPrediction]], second: dict[Key, list[StudyPrediction]]) -> None:
    """FIGURE_NAMES of the second minus those of the first, unchanged and as the mean over the changes, paired."""
    patients = np.array([study.patient for study in first["", ""]])
    names = np.unique(patients)
    order = []
    for studies in (*first.values(), *second.values()):
        named = {study.study: study for study in studies}
        order.append([named[study.study] for study in first["", ""]])
    random = np.random.default_rng(0)
    rounds = [np.arange(len(patients))]
    for _ in range(ROUNDS):
        drawn = random.choice(names, len(names))
        rounds.append(np.concatenate([np.flatnonzero(patients == name) for name in drawn]))
    figures = np.array(
        [[_figures([study_predictions[row] for row in rows]) for study_predictions in order] for rows in rounds]
    )
    half = len(order) // 2
    gains = figures[:, half:] - figures[:, :half]  # (rounds, conditions, 5)
    for words, gain in (("as they are", gains[:, 0]), ("mean of the changes", gains[:, 1:].mean(1))):
        for number, name in enumerate(FIGURE_NAMES):
            low, high = np.nanquantile(gain[1:, number], [0.025, 0.975])
            print(f"{words}: {name} {gain[0, number]:+.3f} ({low:+.3f} to {high:+.3f})")


def _figures(studies: Sequence[StudyPrediction]) -> list[float]:
    """FIGURE_NAMES of some studies."""
    labels = np.array([study.label for study in studies])
    result = []
    for number, score in enumerate(("probability", "vote_probability")):
        scores = np.array([getattr(study, score) for study in studies])
        predicted = np.array([study.predictions[number] for study in studies])
        values = measure(labels, Predictor(scores, predicted))
        result += [float(values["kappa"][0]), float(values["auroc"][0])]
    return [*result, _precision_at_5(studies)]


def _precision_at_5(studies: Sequence[StudyPrediction]) -> float:
    return float(np.mean([study.retrieved.figures["precision_at_5"] for study in studies]))


def holds(condition: Condition, plain: Condition, reader: str) -> bool:
    """Whether a condition meets the criterion in experiments/README.md."""
    here, there = condition.figures[reader], plain.figures[reader]
    kept = (here["kappa"].value or 0) >= (there["kappa"].value or 0) - MOST_LOST
    return (kept and (here["specificity"].value or 0) >= LEAST_SPECIFICITY) or (
        (condition.unfamiliar.value or 0) >= LEAST_FLAGGED
    )


def rows_of(run: str, folds: str, made: Sequence[tuple[Condition, float]]) -> Iterator[dict[str, object]]:
    plain = made[0][0]
    for condition, precision in made:
        figures = {
            f"{reader}_{figure}": f"{condition.figures[reader][figure].value:.3f}"
            for reader in READERS
            for figure in FIGURES
        }
        yield {
            "run": run, "folds": folds, "corruption": condition.corruption, "strength": condition.strength,
            "amount": "" if condition.amount is None else f"{condition.amount:g}", "studies": condition.studies,
            **figures, "precision_at_5": f"{precision:.3f}", "unfamiliar": f"{condition.unfamiliar.value:.3f}",
            **{f"{reader}_holds": int(holds(condition, plain, reader)) for reader in READERS},
        }  # fmt: skip


def write(rows: Sequence[dict[str, object]], out: Path) -> None:
    """Replace the lines of the same run and folds in `out`, or add these."""
    known: list[dict[str, object]] = []
    if out.exists():
        with out.open(newline="", encoding="utf-8") as lines:
            known = [dict(row) for row in csv.DictReader(lines)]
    made = {(row["run"], row["folds"]) for row in rows}
    with out.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*(row for row in known if (row["run"], row["folds"]) not in made), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--medium", action="store_true")
    parser.add_argument("--first-look", action="store_true")
    parser.add_argument("--split", default="", choices=("", "valid", "held-out"))
    parser.add_argument("--out", type=Path, default=Path("experiments/robustness.csv"))
    given = parser.parse_args()
    changes = FIRST_LOOK if given.first_look else tuple(CORRUPTIONS)
    strengths = ("medium",) if given.first_look or given.medium else ("mild", "medium")
    wanted = [("", ""), *((change, strength) for change in changes for strength in strengths)]
    folds = given.split or " ".join(map(str, given.folds))
    first = None
    for name in given.names:
        predictions = predictions_of(sides(given.cases, given.runs, name, given.folds, given.split), wanted)
        made = judged(predictions)
        print_table(name, made)
        write(list(rows_of(name, folds, made)), given.out)
        chart = robustness_chart([condition for condition, _ in made])
        picture = drawing([(f"{name}: {made[0][0].studies} studies", chart)])
        given.out.with_suffix(".svg").write_text(picture, encoding="utf-8")
        if first is not None:
            print(f"{name} - {given.names[0]}")
            print_differences(first, predictions)
        first = first or predictions


if __name__ == "__main__":
    main()
