"""`mura-search evaluate`: how well an index reads patients that it does not hold."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import BadParameter, Option

from cli.console import (
    bare_table,
    note,
    print_json,
    progress,
    require_ending,
    require_writable,
    standard_output,
    write_file,
)
from cli.options.common import AsJson, Excel, IndexFolder, StudyTable, Workers, index_searcher
from cli.options.data import CollectionOptions, Data
from retrieval.errors import OutputError
from retrieval.wording import PREDICTORS, estimate_text, footnotes, metric_title, reason_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from retrieval.datasets.collection import Collection
    from retrieval.evaluation.agreement import Agreement
    from retrieval.evaluation.evaluate import Evaluation
    from retrieval.evaluation.finding_figures import FindingFigures
    from retrieval.evaluation.metrics import Estimate
    from retrieval.evaluation.robustness import Robustness
    from retrieval.evaluation.summary import Figures, PartFigures
    from retrieval.searcher import Searcher

__all__ = ["evaluate", "print_evaluation"]

# What fits a screen; JSON and HTML have all figures.
BY_STUDY = ("kappa", "accuracy", "sensitivity", "specificity", "precision", "npv", "auroc")
HEADLINES = ("kappa", "auroc")
RETRIEVAL = ("precision_at_1", "precision_at_5", "precision_at_10", "map_at_r")
FILE = "FILE"


Corrupted = Annotated[
    bool,
    Option(
        "--robustness",
        help="Measure only how the predictions change if the radiographs are blurred, resampled, sharpened, noisy and "
        "so on. It takes fifty times as long. --csv writes a line per change.",
    ),
]


class Predictor(StrEnum):
    """Who makes the predictions."""

    CLASSIFIER = "classifier"
    VOTE = "vote"
    MEAN = "mean"


@dataclass(frozen=True)
class FileOptions:
    """The files to write."""

    csv: StudyTable = None
    excel: Excel = False
    figures: Annotated[Path | None, Option(metavar=FILE, help="Write all figures as a CSV table.")] = None
    predictions: Annotated[Path | None, Option(metavar=FILE, help="Write the predictions in MURA's format.")] = None
    html: Annotated[
        Path | None, Option(metavar=FILE, help="Write a report with figures, curves and pictures of the worst errors.")
    ] = None
    reader: Annotated[
        Predictor,
        Option(metavar="NAME", help="Whose predictions --predictions writes: classifier, vote or mean."),
    ] = Predictor.CLASSIFIER
    keep: Annotated[
        bool, Option("--keep", help="Keep the main figures in the index: its answers then say how good it is.")
    ] = False

    def check(self) -> None:
        """Raise OutputError if a file cannot be written, or its name does not end as what is written."""
        require_writable(self.csv, self.figures, self.predictions, self.html)
        require_ending([".csv"], self.csv, self.figures, self.predictions)
        require_ending([".html", ".htm"], self.html)

    def write(self, result: "Evaluation", studies: int, layout: str, page: str) -> None:
        """Write the files that were asked for; `studies` is how many the collection has."""
        from retrieval.evaluation.tables import figure_table, prediction_table

        if self.csv:
            write_file(self.csv, result.to_csv(), mark=self.excel)
        if self.figures:
            write_file(self.figures, figure_table(result), mark=self.excel)
        if self.predictions:
            write_file(self.predictions, prediction_table(result.predictions, layout, self.reader.value))
            if missing := studies - result.studies:
                note(f"studies that could not be read and have no line in {self.predictions}: {missing:,}")
        if self.html:
            write_file(self.html, page)


def evaluate(
    data: Data,
    options: CollectionOptions,
    files: FileOptions,
    index: IndexFolder = None,
    sensitivity: Annotated[
        float | None,
        Option(
            min=0.5,
            max=0.999,
            metavar="SHARE",
            help="Also measure at thresholds that reach this sensitivity on the index's own studies, such as 0.95.",
        ),
    ] = None,
    rounds: Annotated[int, Option(min=1, metavar="N", help="How often the patients are resampled.")] = 10_000,
    seed: Annotated[int, Option(min=0, metavar="N", help="The random seed of the resampling.")] = 0,
    robustness: Corrupted = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well an index predicts on new patients: kappa, AUROC and more, by study and by image.

    Nothing is tuned on DATA. The 95 % intervals come from resampling the patients. The screen shows the main figures;
    --json, --figures and --html have all figures.
    """
    from retrieval.evaluation.evaluate import evaluate as measure
    from retrieval.evaluation.evaluate import frozen
    from retrieval.reports.evaluation_report import evaluation_report

    files.check()
    collection = options.read(data)
    resampling: dict[str, Any] = {"rounds": rounds, "seed": seed, "workers": workers}
    if robustness:
        measure_robustness(index, collection, files, resampling, as_json)
        return
    with index_searcher(index) as current, progress("evaluating") as show:
        searcher = frozen(current)  # the report also shows the index that was judged
        result = measure(searcher, collection, sensitivity=sensitivity, progress=show, **resampling)
        page = evaluation_report(result, searcher) if files.html else ""
        if files.keep:
            keep(result, current)
    files.write(result, len({case.study for case in collection.cases}), collection.layout, page)
    if as_json:
        print_json(result.to_dict())
        return
    for case, reason in result.skipped:
        note(f"left out: {case}: {reason}")
    print_evaluation(result)


def keep(result: "Evaluation", searcher: "Searcher") -> None:
    """Leave the main figures in the index. Raises OutputError if nothing can be written there."""
    try:
        result.keep(searcher.index)
    except OSError as error:
        raise OutputError(f"the figures cannot be kept in {searcher.index.path}: {reason_text(error)}") from error


def measure_robustness(
    index: Path | None, collection: "Collection", files: FileOptions, resampling: "Mapping[str, Any]", as_json: bool
) -> None:
    """Measure, print and write the figures under corruptions."""
    from retrieval.evaluation.robustness import robustness
    from retrieval.reports.robustness_report import robustness_report

    if files.figures or files.predictions:
        raise BadParameter("--robustness writes --csv, --json and --html; leave out --figures and --predictions")
    with index_searcher(index) as searcher, progress("evaluating") as show:
        result = robustness(searcher, collection, progress=show, **resampling)
    if files.csv:
        write_file(files.csv, result.to_csv(), mark=files.excel)
    if files.html:
        write_file(files.html, robustness_report(result))
    if as_json:
        print_json(result.to_dict())
        return
    for case, reason in result.skipped:
        note(f"left out: {case}: {reason}")
    standard_output().print(robustness_table(result))


def robustness_table(result: "Robustness") -> "Table":
    """Kappa, AUROC and specificity of both predictors under each corruption, and who is called unlike the index."""
    table = bare_table(
        "", "", "kappa, classifier", "kappa, vote", "AUROC, both", "specificity, both", "unfamiliar", "why"
    )
    for condition in result.conditions:
        classifier, vote = condition.figures["classifier"], condition.figures["knn"]
        shared_figures = [
            " / ".join(estimate_text(replace(figures[name], low=None)) for figures in (classifier, vote))
            for name in ("auroc", "specificity")
        ]
        table.add_row(
            condition.corruption or "as it is",
            f"{condition.amount:g}" if condition.amount is not None else "",
            estimate_text(classifier["kappa"], digits=2),
            estimate_text(vote["kappa"], digits=2),
            *shared_figures,
            f"{condition.unfamiliar.value or 0:.0%}",
            next(iter(condition.reasons), ""),
        )
    return table


def print_evaluation(result: "Evaluation") -> None:
    out = standard_output()
    out.print(f"{result.patients:,} patients that are not in the index; intervals are 95 % by resampling them.\n")
    for level, figures, items, abnormal, metrics in (
        ("study", result.study, result.studies, result.abnormal_studies, BY_STUDY),
        ("image", result.image, result.images, result.abnormal_images, HEADLINES),
    ):
        out.print(f"by {level}: {items:,}, {abnormal:,} of them abnormal", style="bold")
        print_predictors(figures, metrics)
    if point := result.operating_point:
        learned = f"{point.thresholds.studies:,} studies of the index, {point.thresholds.abnormal:,} abnormal"
        out.print(f"by study, thresholds for a sensitivity of {point.wanted:g} on {learned}", style="bold")
        print_predictors(point.study, ("sensitivity", "specificity", "precision", "npv"))
    if len(result.parts) > 1:
        out.print("by part: kappa by study", style="bold")
        out.print(parts_table(result.parts))
        out.print()
    if result.findings:
        out.print("findings of the voting studies, by study", style="bold")
        out.print(findings_table(result.findings))
        out.print()
    if result.leakage.studies:
        out.print(near_duplicates_line(len(result.leakage.studies), result.studies), style="yellow")
        if result.leakage.without:
            out.print(near_duplicates_table(result.study, result.leakage.without))
        out.print()
    out.print("retrieval: nearest studies with the label of the query, by study", style="bold")
    out.print(estimates_table({name: result.retrieval[name] for name in RETRIEVAL}))
    out.print()
    out.print("vote minus classifier, by study, paired", style="bold")
    out.print(estimates_table({metric: result.difference[metric] for metric in HEADLINES}))
    ranked = result.worklist["mean"].position
    if ranked.value is not None:
        out.print(
            "In a list sorted by the mean of both, the mean position of an abnormal study is "
            f"{estimate_text(ranked)}, from 0 (first) to 1 (last); unsorted, it is 0.5."
        )
    for line in agreement_lines(result.agreement, result.studies):
        out.print(line)
    out.print()
    if result.unfamiliar:
        why = ", ".join(f"{code} {count:,}" for code, count in result.reasons.items())
        text = f"Studies unlike what is indexed: {result.unfamiliar:,} of {result.studies:,} ({why})."
        out.print(text, style="yellow")
    if result.borderline:
        out.print(f"Borderline studies: {result.borderline:,} of {result.studies:,}.", style="yellow")
    if result.drift and result.drift.sentence:
        out.print(f"{result.drift.sentence}.", style="yellow")
    for text in result.notes:
        out.print(text, style="yellow")
    out.print(f"Decision rules: {result.rules.source}.", style="dim")
    out.print(
        f"Model {result.model.name} ({result.model.sha256[:8]}); {result.rounds:,} rounds; {result.seconds:.1f} s.",
        style="dim",
    )


def print_predictors(figures: "Mapping[str, Mapping[str, Estimate]]", metrics: "Sequence[str]") -> None:
    """A metric a line, a predictor a column: three columns fit a terminal of 80. Reasons of intervals come below."""
    table = bare_table("", *(PREDICTORS[reader] for reader in figures))
    for metric in metrics:
        table.add_row(
            metric_title(metric), *(estimate_text(of_reader[metric], digits=2) for of_reader in figures.values())
        )
    out = standard_output()
    out.print(table)
    for line in footnotes(estimates[metric] for estimates in figures.values() for metric in metrics):
        out.print(line, style="dim")
    out.print()


def near_duplicates_line(studies: int, total: int) -> str:
    return f"Studies with a near duplicate in the index: {studies:,} of {total:,}; --csv names them."


def near_duplicates_table(figures: "Figures", without: "PartFigures") -> "Table":
    """The main figures by study without those that have a near duplicate, beside those of all studies."""
    readers = ("classifier", "knn")
    table = bare_table("", *(PREDICTORS[reader] for reader in readers))
    for metric in HEADLINES:
        for about, shown in (("all", figures), (f"{without.studies:,} without", without.study)):
            table.add_row(
                f"{metric_title(metric)}, {about}",
                *(estimate_text(shown[reader][metric], digits=2) for reader in readers),
            )
    return table


def parts_table(parts: "Mapping[str, PartFigures]") -> "Table":
    table = bare_table("part", "studies", "classifier", "vote")
    for part, figures in parts.items():
        kappas = [estimate_text(figures.study[reader]["kappa"]) for reader in ("classifier", "knn")]
        table.add_row(part, f"{figures.studies:,} ({figures.abnormal:,})", *kappas)
    return table


def findings_table(findings: "Mapping[str, FindingFigures]") -> "Table":
    """How often the tally of findings is right, a finding a line."""
    table = bare_table("finding", "studies", "AUROC (chance 0.5)", "precision if named first", "by chance")
    for finding, figures in findings.items():
        precision = figures.precision
        table.add_row(
            finding, f"{figures.studies:,}", estimate_text(figures.auroc, digits=2),
            f"{estimate_text(precision, digits=2)} of {figures.named_first:,}", f"{precision.chance:.3f}",
        )  # fmt: skip
    return table


def estimates_table(estimates: "Mapping[str, Estimate]") -> "Table":
    table = bare_table("", "", "")
    for name, estimate in estimates.items():
        chance = "" if estimate.chance is None else f"by chance {estimate.chance:.3f}"
        table.add_row(metric_title(name), estimate_text(estimate), chance)
    return table


def agreement_lines(agreement: "Agreement", studies: int) -> "list[str]":
    """On how many studies classifier and vote agree, and who is right."""
    test, share = agreement.mcnemar, agreement.accuracy_agreeing.value
    differ = test.knn_only + test.classifier_only
    lines = [f"Classifier and vote agree on {studies - differ:,} of {studies:,} studies"]
    if share is not None:
        lines[0] += f", and are right on {share:.1%} of those."
    if differ:
        lines.append(
            f"On the others the vote is right on {test.knn_only:,}, the classifier on {test.classifier_only:,} "
            f"(McNemar: p {test.p:.2g})."
        )
    return lines
