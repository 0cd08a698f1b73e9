"""`mura-search evaluate`: how well an index reads studies of patients that it does not hold."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal import (
    AsJson,
    Data,
    IndexPlace,
    KeepIdentifiers,
    Labels,
    Layout,
    Part,
    Split,
    Workers,
    bare_table,
    note,
    print_json,
    progress,
    standard_output,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from retrieval.evaluation import Evaluation
    from retrieval.metrics import Estimate
    from retrieval.reading import PartFigures

__all__ = ["evaluate", "print_evaluation"]

READERS = {"classifier": "classifier", "knn": "vote", "mean": "mean of both"}


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
    as_json: AsJson = False,
) -> None:
    """Measure kappa, accuracy, sensitivity, specificity and AUROC on patients that are not in the index.

    Nothing is tuned on DATA. The intervals are 95 % of resamplings of the patients.
    """
    from retrieval.collection import read_collection
    from retrieval.evaluation import evaluate as measure
    from retrieval.searcher import Searcher

    collection = read_collection(data, layout, part, split, labels=labels, keep_identifiers=keep_identifiers)
    with Searcher.open(place) as searcher, progress("evaluating") as show:
        result = measure(searcher, collection, rounds=rounds, seed=seed, workers=workers, progress=show)
    if as_json:
        print_json(result.to_dict())
        return
    for case, reason in result.skipped:
        note(f"left out: {case}: {reason}")
    print_evaluation(result)


def print_evaluation(result: "Evaluation") -> None:
    out = standard_output()
    out.print(f"{result.patients:,} patients that are not in the index; intervals are 95 % by resampling them.\n")
    for level, figures, items, abnormal in (
        ("study", result.study, result.studies, result.abnormal_studies),
        ("image", result.image, result.images, result.abnormal_images),
    ):
        heading = f"by {level}: {items:,}, {abnormal:,} of them abnormal"
        out.print(heading, style="bold")
        out.print(readers_table(figures))
        out.print()
    if len(result.parts) > 1:
        out.print("by part: kappa by study", style="bold")
        out.print(parts_table(result.parts))
        out.print()
    out.print("retrieval: share of the nearest studies with the label of the query, by study", style="bold")
    out.print(estimates_table(result.retrieval))
    out.print()
    out.print("difference: vote minus classifier, by study, paired", style="bold")
    out.print(estimates_table(result.difference))
    out.print()
    for text in result.notes:
        out.print(text, style="yellow")
    out.print(f"Decision rules: {result.rules.source}.", style="dim")
    out.print(
        f"Model {result.model.name} ({result.model.sha256[:8]}); {result.rounds:,} rounds; {result.seconds:.1f} s.",
        style="dim",
    )


def readers_table(figures: "Mapping[str, Mapping[str, Estimate]]") -> "Table":
    """Metrics down, readers across: three columns fit a terminal of 80."""
    table = bare_table("", *(READERS[reader] for reader in figures))
    for metric in next(iter(figures.values())):
        table.add_row(title(metric), *(interval(of_reader[metric]) for of_reader in figures.values()))
    return table


def parts_table(parts: "Mapping[str, PartFigures]") -> "Table":
    table = bare_table("part", "studies", "classifier", "vote")
    for part, figures in parts.items():
        kappas = [interval(figures.readers[reader]["kappa"]) for reader in ("classifier", "knn")]
        table.add_row(part, f"{figures.studies:,} ({figures.abnormal:,})", *kappas)
    return table


def estimates_table(estimates: "Mapping[str, Estimate]") -> "Table":
    table = bare_table("", "")
    for name, estimate in estimates.items():
        table.add_row(title(name), interval(estimate))
    return table


def title(metric: str) -> str:
    return "AUROC" if metric == "auroc" else metric.replace("_", " ")


def interval(estimate: "Estimate") -> str:
    if estimate.value is None:
        return f"undefined: {estimate.reason}"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
