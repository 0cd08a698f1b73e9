"""Which recipe holds for radiographs that were processed otherwise?

    python -m experiments.robustness CASES RUNS NAME... [--folds 1 2] [--medium | --first-look] [--model BUNDLE]
        [--out FILE]

CASES is the table of all parts that `fracatlas_table.py` makes, RUNS the folder of `mura-search experiment`, whose runs
have a model for each fold. For each run and fold, the fold's upper-limb studies are asked about as they are and under
the changes of `retrieval.evaluation.corruptions` at mild and medium strength (with --medium at medium alone, with
--first-look under six changes at medium strength). The index has the unchanged radiographs of the other folds. The
studies of all folds are counted together. With --model, NAME is one word for the bundle BUNDLE, whose studies are those
of the split `valid`, and whose index has those of the split `train`.

FILE (experiments/robustness.csv) gets a line for each condition: those of a run and folds that are there are replaced.
FILE with the ending .svg gets the picture of the last run.
"""

import argparse
import csv
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from retrieval.evaluation.corruptions import CORRUPTIONS

from retrieval.datasets.collection import Collection, read_collection
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.robustness import FIGURES, Condition, condition_of, predict_changed
from retrieval.indexing.build import build_index
from retrieval.reports.robustness_chart import robustness_chart
from retrieval.reports.svg_chart import drawing
from retrieval.searcher import Searcher
from training.experiments.experiment import divided

FIRST_LOOK = ("blurred", "shrunk", "unsharp-masked", "low-contrast", "quantum-noise", "jpeg")
READERS = ("classifier", "knn")
MOST_LOST, LEAST_SPECIFICITY, LEAST_FLAGGED = 0.05, 0.85, 0.8
Side = tuple[Path, Collection, Collection]
COLUMNS = (
    "run", "folds", "corruption", "strength", "amount", "studies",
    *(f"{reader}_{figure}" for reader in READERS for figure in FIGURES), "precision_at_5", "unfamiliar",
    "classifier_holds", "knn_holds",
)  # fmt: skip


def sides(cases: Path, runs: Path, name: str, folds: Sequence[int], model: Path | None) -> Iterator[Side]:
    """(model, indexed studies, asked studies) of each fold, or of the splits of one bundle."""
    collection = read_collection(cases)
    if model is not None:
        train, valid = (collection.select(part="upper_limb", split=split) for split in ("train", "valid"))
        yield model, train, valid
        return
    for number, (learned, asked) in enumerate(divided(collection, 5), 1):
        if number in folds:
            folder = runs / "runs" / name / f"fold-{number}" / "model"
            yield folder, learned.select(part="upper_limb"), asked.select(part="upper_limb")


def conditions_of(parts: Iterator[Side], wanted: Sequence[tuple[str, str]]) -> list[tuple[Condition, float]]:
    """The figures under each condition, all folds together, and precision at 5."""
    predictions: dict[tuple[str, str], list[StudyPrediction]] = {key: [] for key in wanted}
    for model, indexed, asked in parts:
        with tempfile.TemporaryDirectory() as folder:
            build_index(indexed, Path(folder) / "index", model=model)
            with Searcher.open(Path(folder) / "index") as searcher:
                for corruption, strength in wanted:
                    predictions[corruption, strength] += predict_changed(searcher, asked, corruption, strength)[0]
                    print(model, corruption, strength, flush=True)
    return [
        (
            condition_of(*key, own, rounds=2_000),
            float(np.mean([one.retrieved.figures["precision_at_5"] for one in own])),
        )
        for key, own in predictions.items()
    ]


def holds(condition: Condition, plain: Condition, reader: str) -> bool:
    """Whether a condition meets the criterion in experiments/README.md."""
    here, there = condition.figures[reader], plain.figures[reader]
    kept = (here["kappa"].value or 0) >= (there["kappa"].value or 0) - MOST_LOST
    return (kept and (here["specificity"].value or 0) >= LEAST_SPECIFICITY) or (
        (condition.unfamiliar.value or 0) >= LEAST_FLAGGED
    )


def rows_of(run: str, folds: str, judged: Sequence[tuple[Condition, float]]) -> Iterator[dict[str, object]]:
    plain = judged[0][0]
    for condition, precision in judged:
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
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("experiments/robustness.csv"))
    given = parser.parse_args()
    changes = FIRST_LOOK if given.first_look else tuple(CORRUPTIONS)
    strengths = ("medium",) if given.first_look or given.medium else ("mild", "medium")
    wanted = [("", ""), *((change, strength) for change in changes for strength in strengths)]
    folds = "valid" if given.model else " ".join(map(str, given.folds))
    for name in given.names:
        judged = conditions_of(sides(given.cases, given.runs, name, given.folds, given.model), wanted)
        write(list(rows_of(name, folds, judged)), given.out)
        title = f"{name}: {judged[0][0].studies} studies"
        chart = robustness_chart([condition for condition, _ in judged])
        given.out.with_suffix(".svg").write_text(drawing([(title, chart)]), encoding="utf-8")


if __name__ == "__main__":
    main()
