"""`mura-search evaluate`: how well an index reads studies of patients that it does not hold."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import (
    AsJson,
    Data,
    IndexPlace,
    KeepIdentifiers,
    Labels,
    Layout,
    Part,
    Split,
    StudyTable,
    Workers,
    bare_table,
    note,
    print_json,
    progress,
    standard_output,
)
from cli.files import require_places, write_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from retrieval.evaluation.agreement import Agreement
    from retrieval.evaluation.evaluate import Evaluation
    from retrieval.evaluation.metrics import Estimate
    from retrieval.evaluation.summary import Figures, PartFigures

__all__ = ["evaluate", "print_evaluation"]

READERS = {"classifier": "classifier", "knn": "vote", "mean": "mean of both"}
# What fits a screen; JSON and HTML have all figures.
BY_STUDY = ("kappa", "accuracy", "sensitivity", "specificity", "auroc")
HEADLINES = ("kappa", "auroc")
RETRIEVAL = ("precision_at_1", "precision_at_5", "precision_at_10", "map_at_r")
FILE = "FILE"
TITLES = {"auroc": "AUROC", "map_at_r": "mAP at R"}


class Predictor(StrEnum):
    """Who makes the predictions."""

    CLASSIFIER = "classifier"
    VOTE = "vote"
    MEAN = "mean"


def evaluate(
    data: Data,
    place: IndexPlace = None,
    part: Part = None,
    split: Split = None,
    layout: Layout = None,
    labels: Labels = None,
    keep_identifiers: KeepIdentifiers = False,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Resamplings of the patients.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the resampling.")] = 0,
    workers: Workers = None,
    studies: StudyTable = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar=FILE, help="Write a CSV table of all figures.")
    ] = None,
    predicted: Annotated[
        Path | None, typer.Option("--predictions", metavar=FILE, help="Write predictions in MURA's own format.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar=FILE, help="Write a report: figures, curves, worst errors in pictures."),
    ] = None,
    reader: Annotated[Predictor, typer.Option(help="Who makes the predictions.")] = Predictor.CLASSIFIER,
    as_json: AsJson = False,
) -> None:
    """Measure how well an index reads patients that it does not hold: kappa, AUROC and more, by study and by image.

    Nothing is tuned on DATA. The intervals are 95 % of resamplings of the patients. The screen shows the main figures;
    JSON, --figures and --html have all of them.
    """
    from retrieval.datasets.collection import read_collection
    from retrieval.evaluation.evaluate import evaluate as measure
    from retrieval.reports.evaluation_csv import figure_table, predictions, study_table
    from retrieval.reports.evaluation_report import report
    from retrieval.searcher import Searcher

    require_places(studies, figures, predicted, html)
    collection = read_collection(data, layout, part, split, labels=labels, keep_identifiers=keep_identifiers)
    with Searcher.open(place) as searcher, progress("evaluating") as show:
        result = measure(searcher, collection, rounds=rounds, seed=seed, workers=workers, progress=show)
        page = report(result, searcher) if html else ""
    if studies:
        write_file(studies, study_table(result))
    if figures:
        write_file(figures, figure_table(result))
    if predicted:
        write_file(predicted, predictions(result.readings, collection.layout, reader.value))
        if missing := len({case.study for case in collection.cases}) - result.studies:
            note(f"studies that could not be read and have no line in {predicted}: {missing:,}")
    if html:
        write_file(html, page)
    if as_json:
        print_json(result.to_dict())
        return
    for case, reason in result.skipped:
        note(f"left out: {case}: {reason}")
    print_evaluation(result)


def print_evaluation(result: "Evaluation") -> None:
    out = standard_output()
    out.print(f"{result.patients:,} patients that are not in the index; intervals are 95 % by resampling them.\n")
    for level, figures, items, abnormal, metrics in (
        ("study", result.study, result.studies, result.abnormal_studies, BY_STUDY),
        ("image", result.image, result.images, result.abnormal_images, HEADLINES),
    ):
        out.print(f"by {level}: {items:,}, {abnormal:,} of them abnormal", style="bold")
        out.print(readers_table(figures, metrics))
        out.print()
    if len(result.parts) > 1:
        out.print("by part: kappa by study", style="bold")
        out.print(parts_table(result.parts))
        out.print()
    if result.copies.studies:
        out.print(near_duplicates_line(len(result.copies.studies), result.studies), style="yellow")
        if result.copies.without:
            out.print(near_duplicates_table(result.study, result.copies.without))
        out.print()
    out.print("retrieval: nearest studies with the label of the query, by study", style="bold")
    out.print(estimates_table({name: result.retrieval[name] for name in RETRIEVAL}))
    out.print()
    out.print("vote minus classifier, by study, paired", style="bold")
    out.print(estimates_table({metric: result.difference[metric] for metric in HEADLINES}))
    ranked = result.worklist["mean"].place
    if ranked.value is not None:
        out.print(
            f"Read by the mean of both, an abnormal study is reached at {interval(ranked)} of the list; as they come, "
            "at 0.5."
        )
    for line in agreement_lines(result.agreement, result.studies):
        out.print(line)
    out.print()
    if result.unfamiliar:
        out.print(f"Studies unlike what is indexed: {result.unfamiliar:,} of {result.studies:,}.", style="yellow")
    for text in result.notes:
        out.print(text, style="yellow")
    out.print(f"Decision rules: {result.rules.source}.", style="dim")
    out.print(
        f"Model {result.model.name} ({result.model.sha256[:8]}); {result.rounds:,} rounds; {result.seconds:.1f} s.",
        style="dim",
    )


def readers_table(figures: "Mapping[str, Mapping[str, Estimate]]", metrics: "Sequence[str]") -> "Table":
    """Metrics down, readers across: three columns fit a terminal of 80."""
    table = bare_table("", *(READERS[reader] for reader in figures))
    for metric in metrics:
        table.add_row(title(metric), *(interval(of_reader[metric], digits=2) for of_reader in figures.values()))
    return table


def near_duplicates_line(studies: int, of: int) -> str:
    return f"Studies with a near duplicate in the index: {studies:,} of {of:,}; --csv names them."


def near_duplicates_table(figures: "Figures", without: "PartFigures") -> "Table":
    """The main figures by study without those that have a near duplicate, beside those of all studies."""
    readers = ("classifier", "knn")
    table = bare_table("", *(READERS[reader] for reader in readers))
    for metric in HEADLINES:
        for about, of in (("all", figures), (f"{without.studies:,} without", without.readers)):
            table.add_row(f"{title(metric)}, {about}", *(interval(of[reader][metric], digits=2) for reader in readers))
    return table


def parts_table(parts: "Mapping[str, PartFigures]") -> "Table":
    table = bare_table("part", "studies", "classifier", "vote")
    for part, figures in parts.items():
        kappas = [interval(figures.readers[reader]["kappa"]) for reader in ("classifier", "knn")]
        table.add_row(part, f"{figures.studies:,} ({figures.abnormal:,})", *kappas)
    return table


def estimates_table(estimates: "Mapping[str, Estimate]") -> "Table":
    table = bare_table("", "", "")
    for name, estimate in estimates.items():
        chance = "" if estimate.chance is None else f"by chance {estimate.chance:.3f}"
        table.add_row(title(name), interval(estimate), chance)
    return table


def agreement_lines(agreement: "Agreement", studies: int) -> "list[str]":
    """On how many studies the two agree, how often rightly, and who is right where they do not."""
    test, share = agreement.mcnemar, agreement.accuracy_agreeing.value
    differ = test.knn_only + test.classifier_only
    lines = [f"They agree on {studies - differ:,} of {studies:,} studies"]
    if share is not None:
        lines[0] += f", and are right on {share:.1%} of those."
    if differ:
        lines.append(
            f"Of the others the vote is right on {test.knn_only:,}, the classifier on {test.classifier_only:,} "
            f"(McNemar: p {test.p:.2g})."
        )
    return lines


def title(metric: str) -> str:
    return TITLES.get(metric, metric.replace("_", " "))


def interval(estimate: "Estimate", digits: int = 3) -> str:
    """The value with three digits, and its interval with so many."""
    if estimate.value is None:
        return f"undefined: {estimate.reason}"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"
